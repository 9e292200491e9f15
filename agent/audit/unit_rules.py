"""Units that are not the metric's (PWR006), and gauges taken for counters (PWR008)."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Final

from spark_agent.agent.audit.case import Case, Remark, is_reading, metrics_of, title_of
from spark_agent.agent.audit.catalogue import Dimension, Kind
from spark_agent.agent.audit.claim import Query, Shape
from spark_agent.agent.audit.instead import energy_instead
from spark_agent.agent.audit.shown import GRAFANA_UNITS, NO_UNIT, is_plain, said_units, source_unit, times, unit_of
from spark_agent.agent.audit.value import Deed, Judged, Value
from spark_agent.agent.audit.words import Theme


def unit(case: Case) -> Iterator[Remark]:
    """Yield units that are not the metric's."""
    yield from _small_constants(case)
    if case.claim.shape is Shape.ALERT:
        return
    yield from _per_work(case)
    for query, judged in case.powers:
        value, shown = judged.value, case.unit_of(query)
        if value.factor is None:
            yield from _words_against_unit(case, query, shown)
        if value.factor is None or not is_plain(value.factor):
            continue
        found = list(_contradiction(query, value, shown)) if shown in GRAFANA_UNITS else []
        if not found:
            found = list(_said_otherwise(case, query, value, is_scaled=shown in GRAFANA_UNITS))
        if not found and shown.lower() in NO_UNIT:
            found = list(_unsaid(case, query, judged))
        yield from found


_KILO: Final = re.compile(r"(?<![A-Za-z])k(?:W|J)|kilo|千瓦|キロワット", re.IGNORECASE)


def _words_against_unit(case: Case, query: Query, shown: str) -> Iterator[Remark]:
    """Yield a unit that words contradict, whatever the metric is in. Larger ones Grafana makes itself."""
    dimension, factor = GRAFANA_UNITS.get(shown, (None, 1.0))
    said = [one for text in (query.legend, title_of(case.claim)) for one in said_units(text) if one[1] is dimension]
    if said and all(small > 2 * factor for _, _, small in said):
        yield Remark("PWR006", query, f"the words say {said[0][0]}, and the unit is {shown}: one of them is wrong")


def _per_work(case: Case) -> Iterator[Remark]:
    """Yield energies for some work whose unit is not the one that is shown."""
    for query, judged in case.judged:
        value, shown = judged.value, case.unit_of(query)
        dimension, factor = GRAFANA_UNITS.get(shown, (None, 0.0))
        if value.dimension is not Dimension.EFFICIENCY or dimension is not Dimension.ENERGY or not value.factor:
            continue
        off = value.factor / factor
        if is_plain(off) and not 0.5 < off < 2:
            yield Remark(
                "PWR006",
                query,
                f"the unit is {shown}, but {metrics_of(value)} is in {source_unit(value)}: "
                f"what is shown is {_off(off)}",
                f"({query.expr.strip()}) {times(1 / off)}",
            )


def _off(by: float) -> str:
    return f"{by:g} times too much" if by > 1 else f"{1 / by:g} times too little"


def _small_constants(case: Case) -> Iterator[Remark]:
    for query, _, act in case.acts(Deed.COMPARED):
        value, number = act.value, act.other.number
        if number is None or not value.factor or value.dimension is not Dimension.POWER or value.is_limit:
            continue
        watts = number / value.factor
        if value.factor >= _MILLI and number >= _A_FEW and watts < _A_FEW:
            what = f"{metrics_of(value)} is in {unit_of(value)}"
        elif value.factor <= 1 / _MILLI and watts > _A_MEGAWATT:
            what = "this is in kilowatts"
        else:
            continue
        yield Remark(
            "PWR006",
            query,
            f"{what}, so {number:g} is {watts:g} W",
            f"{number * value.factor:g} in place of {number:g}, if watts were meant",
        )


_MILLI: Final = 1000.0


#: No machine that is worth an alert draws less; no rack of them more than the other.
_A_FEW: Final = 5.0


_A_MEGAWATT: Final = 1e5


def _contradiction(query: Query, value: Value, shown: str) -> Iterator[Remark]:
    dimension, factor = GRAFANA_UNITS[shown]
    if value.factor is None:
        return
    if dimension is not value.dimension:
        if value.is_counter:
            return  # PWR008's
        what = "a power" if value.dimension is Dimension.POWER else "an energy"
        yield Remark("PWR006", query, f"the unit is {shown}, but {metrics_of(value)} gives {what} here")
        return
    off = value.factor / factor
    if not 0.5 < off < 2:
        yield Remark(
            "PWR006",
            query,
            f"the unit is {shown}, but the expression gives {unit_of(value)}: what is shown is {_off(off)}",
            f"({query.expr.strip()}) {times(1 / off)}",
        )


def _said_otherwise(case: Case, query: Query, value: Value, *, is_scaled: bool) -> Iterator[Remark]:
    """Yield a scale that words contradict. Grafana itself turns 1500 W into 1.5 kW, where it knows the unit."""
    if value.factor is None or case.own & {Theme.COST, Theme.EFFICIENCY}:
        return
    said = [one for text in (query.legend, title_of(case.claim)) for one in said_units(text)]
    said = [one for one in said if one[1] is value.dimension and not (is_scaled and one[2] < 1)]
    if said and not any(0.5 < value.factor / factor < 2 for _, _, factor in said):
        yield Remark(
            "PWR006",
            query,
            f"the words say {said[0][0]}, but the expression gives {unit_of(value)}",
            f"({query.expr.strip()}) {times(said[0][2] / value.factor)}",
        )


def _unsaid(case: Case, query: Query, judged: Judged) -> Iterator[Remark]:
    """Yield watts that are divided as if they were milliwatts, where nothing says that kilowatts are meant."""
    claim, value = case.claim, judged.value
    told = [title_of(claim), query.legend, claim.description, judged.comments]
    if value.factor is None or value.dimension is not Dimension.POWER or case.own & {Theme.COST, Theme.EFFICIENCY}:
        return
    is_watts = all(source.metric.unit.factor == 1 for source in value.sources)
    if is_watts and value.factor < 0.5 and not any(_KILO.search(text) for text in told):
        yield Remark(
            "PWR006",
            query,
            f"the expression divides {metrics_of(value)}, which is in {source_unit(value)}, and gives "
            f"{unit_of(value)}, which nothing here says: it reads as watts, {1 / value.factor:g} times too few",
            'unit "kwatt", or no division',
        )


def scaled_twice(cases: Sequence[Case]) -> Iterator[tuple[int, Remark]]:
    """Yield the panels, by their index, that scale a metric of unknown unit otherwise than one before: one is wrong."""
    first: dict[str, tuple[float, Case]] = {}
    for index, case in enumerate(cases):
        for query, judged in case.powers:
            value = judged.value
            names = {source.metric.name for source in value.sources if source.metric.unit.factor is None}
            dimension, shown = GRAFANA_UNITS.get(case.unit_of(query), (None, 0.0))
            by = math.prod(value.scaled)
            if len(names) != 1 or len(value.sources) != 1 or dimension is not value.dimension or not is_plain(by):
                continue
            name = names.pop()
            implied = shown / by
            before, where = first.setdefault(name, (implied, case))
            if not 0.5 < implied / before < 2:
                yield (
                    index,
                    Remark(
                        "PWR006",
                        query,
                        f"here {name} is scaled as if 1 W were {implied:g} of it, and in {where.claim.where} as if it "
                        f"were {before:g}: one of them is wrong",
                    ),
                )


def gauge_counter(case: Case) -> Iterator[Remark]:
    """Yield rates of gauges, and counters shown as powers."""
    for query, _, act in case.acts(Deed.RATED):
        yield Remark(
            "PWR008",
            query,
            f"{act.op}() is for counters, and {metrics_of(act.value)} is a power, which goes up and down: "
            "the result means nothing",
            energy_instead(act.value, query, case) if act.op == "increase" else _without_rate(query.expr),
        )
    for query, _, act in case.acts(Deed.COMPARED):
        if act.value.is_counter and act.value.dimension is Dimension.ENERGY and act.other.number:
            name, is_one = metrics_of(act.value), len(act.value.sources) == 1
            yield Remark(
                "PWR008",
                query,
                f"{name} is an energy that only grows: above any number, sooner or later",
                f"rate({name}[5m]) {act.op} {act.other.number:g}" if is_one else "",
            )
    for query, judged in case.judged:
        shown = case.unit_of(query)
        dimension, _ = GRAFANA_UNITS.get(shown, (None, 0.0))
        is_energy = judged.value.dimension is Dimension.ENERGY and is_reading(judged.value)
        if judged.value.is_counter and is_energy and dimension is Dimension.POWER:
            names = sorted(source.metric.name for source in judged.value.sources if source.metric.kind is Kind.COUNTER)
            name = names[0] if names else "it"
            yield Remark(
                "PWR008",
                query,
                f"{name} is an energy that only grows, and the unit says watts",
                f"rate({name}[$__rate_interval])",
            )


def _without_rate(expr: str) -> str:
    bare = re.sub(r"\b(?:rate|irate|increase)\s*\(\s*([^()\[\]]+?)\s*\[[^\]]*\]\s*\)", r"\1", expr)
    return bare.strip() if bare != expr else ""
