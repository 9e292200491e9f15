"""Limits that a reading cannot reach (PWR002), that belong to something else (PWR003), that are not there (PWR007)."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from spark_agent.agent.audit.case import (
    Case,
    Remark,
    Target,
    all_sources,
    covered,
    listed,
    metrics_of,
    title_of,
    watts_of,
)
from spark_agent.agent.audit.catalogue import GB10_BUDGETS, GB10_REACH, PARTS, Dimension, Extent, Reach, is_inside
from spark_agent.agent.audit.claim import Query, Severity, Shape
from spark_agent.agent.audit.instead import alert_instead, share_instead
from spark_agent.agent.audit.shown import GRAFANA_UNITS, NO_UNIT, is_plain
from spark_agent.agent.audit.value import Act, Deed, Judged, Span, Value
from spark_agent.agent.audit.words import Theme


def scope_limit(case: Case) -> Iterator[Remark]:
    """Yield readings that are held against numbers which they cannot reach."""
    if case.target is Target.GB10:
        yield from _unreachable_comparisons(case)
        yield from _unreachable_shares(case)
        yield from _unreachable_scale(case)


def _unreachable_comparisons(case: Case) -> Iterator[Remark]:
    for query, _, act in case.acts(Deed.COMPARED):
        value, number = act.value, act.other.number
        if number is None or act.op == "!=" or value.dimension is not Dimension.POWER:
            continue
        reach, watts = _reach(case, value), watts_of(value, number)
        if reach is None or watts is None or watts <= reach.watts:
            continue
        is_alert = case.claim.shape is Shape.ALERT
        is_below = act.op in ("<", "<=")
        consequence = "is always so" if is_below else "can never fire" if is_alert else "is never so"
        yield Remark(
            "PWR002",
            query,
            f"{metrics_of(value)} is never above {reach.watts:g} W{_of_how_many(case, value)}, so what is compared "
            f"with {watts:g} W {consequence}: {reach.why}",
            alert_instead(value),
            Severity.ERROR if is_alert and value.span is Span.ONE and not is_below else None,
        )


def _unreachable_shares(case: Case) -> Iterator[Remark]:
    for query, judged, act in case.acts(Deed.SHARE):
        value, number = act.value, act.other.number
        if number is None or value.dimension is not Dimension.POWER or value.is_limit:
            continue
        reach, watts = _reach(case, value), watts_of(value, number)
        if reach is None or watts is None or watts <= reach.watts or _budget(watts):
            continue
        if _is_percent(case, query, judged):
            yield Remark(
                "PWR002",
                query,
                f"{metrics_of(value)} never comes to {watts:g} W, so a share of it says nothing: {reach.why}",
                share_instead(value),
            )


def _unreachable_scale(case: Case) -> Iterator[Remark]:
    claim = case.claim
    powers = [(query, judged.value) for query, judged in case.powers if judged.value.dimension is Dimension.POWER]
    if claim.shape is not Shape.PANEL or not powers or len(powers) < len(case.powers):
        return
    reached = [(_scale_reach(case, value), query, value) for query, value in powers]
    known = [(reach, query, value) for reach, query, value in reached if reach]
    if len(known) < len(reached):
        return
    best = max(reach.watts for reach, _, _ in known)
    for reach, query, value in known:
        if reach.watts < best or not value.factor or not _is_shown_as_power(case, query, value):
            continue
        steps = [step for step in claim.thresholds if step / value.factor > reach.watts]
        top = claim.maximum if claim.maximum and claim.maximum / value.factor > _ROUNDED * reach.watts else None
        if not steps and top is None:
            return
        said = [f"thresholds at {listed(steps)}"] if steps else []
        said += [f"a scale up to {top:g}"] if top else []
        yield Remark(
            "PWR002",
            query,
            f"{' and '.join(said)} for {metrics_of(value)}, which is never above {reach.watts:g} W"
            f"{_of_how_many(case, value)}: {reach.why}",
            f"maximum {_round_up(reach.watts * value.factor):g}, thresholds below it",
        )
        return


def _is_shown_as_power(case: Case, query: Query, value: Value) -> bool:
    """Return whether the numbers of a panel are watts, or some multiple; not money, nor a share."""
    shown = case.unit_of(query)
    known = GRAFANA_UNITS.get(shown, (None, 0.0))[0] is Dimension.POWER
    return (known or shown.lower() in NO_UNIT or "W" in shown) and is_plain(value.factor or 0.0)


#: How far a scale may go beyond what can be reached, for a round number.
_ROUNDED: Final = 1.25


def _is_percent(case: Case, query: Query, judged: Judged) -> bool:
    """Return whether a result is shown as a share of something."""
    shown = case.unit_of(query)
    return shown.startswith("percent") or 100.0 in judged.value.scaled or "%" in title_of(case.claim)


def _scale_reach(case: Case, value: Value) -> Reach | None:
    """Return what the axis of a panel can need; None where that depends on machines that nobody named."""
    is_spark = value.is_spark or Theme.SPARK in case.own | case.inherited
    if not is_spark and (value.has_models or value.span is not Span.ONE):
        return None
    return _reach(case, value)


def _reach(case: Case, value: Value) -> Reach | None:
    """Return the most that an expression can give on Sparks; None where that is not known."""
    if not value.extents or value.is_open or value.is_limit or value.span is Span.GPUS:
        return None
    if value.has_models and not value.is_spark:
        return None
    reach = GB10_REACH.get(_smallest_around(value.extents))
    if reach is None:
        return None
    count = case.machines if value.span is Span.MANY else 1
    return Reach(reach.watts * count, reach.why)


def _smallest_around(extents: frozenset[Extent]) -> Extent:
    """Return the smallest extent that contains all of these."""
    if len(extents) == 1:
        return next(iter(extents))
    around = [
        extent
        for extent in Extent
        if all(extent is one or is_inside(one, extent) for one in extents)
    ]  # fmt: skip
    return next((one for one in around if not any(is_inside(two, one) for two in around)), Extent.UNKNOWN)


def _of_how_many(case: Case, value: Value) -> str:
    return f" for {case.machines} Sparks (--sparks)" if value.span is Span.MANY else ""


def headroom(case: Case) -> Iterator[Remark]:
    """Yield headroom and shares whose reading and limit are of different scopes."""
    for query, judged, act in case.acts(Deed.HEADROOM, Deed.SHARE):
        value = act.value
        if value.dimension is not Dimension.POWER or not value.extents or value.is_open or value.is_limit:
            continue
        if act.other.number is None:
            limits = frozenset(source.extent for source in act.other.sources)
            if not limits or limits & {Extent.MIXED, Extent.UNKNOWN} or limits & value.extents:
                continue
            if value.extents & {Extent.MIXED, Extent.UNKNOWN, Extent.WORKLOAD}:
                continue
            of = f"{metrics_of(act.other)}, the limit of {covered(limits)}"
        else:
            watts = watts_of(value, act.other.number)
            if watts is None or not _is_foreign_limit(case, query, judged, act, watts):
                continue
            budget = _budget(watts)
            of = f"{watts:g} W, {_budget_words(budget)}" if budget else f"{watts:g} W, which is no limit of it"
        is_share = act.deed is Deed.SHARE
        yield Remark(
            "PWR003",
            query,
            f"{'a share' if is_share else 'headroom'} of {of}, from a reading of {covered(value.extents)} "
            f"({metrics_of(value)}): what the rest draws is missing",
            share_instead(value) if is_share else "gb10_power_headroom_watts",
        )


def _budget(watts: float) -> Extent | None:
    return next((extent for figure, extent in GB10_BUDGETS.items() if abs(watts - figure) < 0.5), None)


def _budget_words(extent: Extent) -> str:
    return {
        Extent.SOC: "the limit of the SoC, CPU and GPU together",
        Extent.SYSTEM: "a limit of the system",
        Extent.DC_INPUT: "what the adapter gives to all of the machine",
    }[extent]


def _is_foreign_limit(case: Case, query: Query, judged: Judged, act: Act, watts: float) -> bool:
    """Return whether a constant is, or is taken for, a limit of another scope."""
    extents = act.value.extents
    budget = _budget(watts) if case.target is Target.GB10 or act.value.is_spark else None
    if budget is not None:
        if extents <= {Extent.SYSTEM, Extent.DC_INPUT, Extent.WALL}:
            return budget is Extent.SOC
        return bool(extents <= PARTS and budget not in extents)
    if case.target is not Target.GB10 or not extents <= PARTS or Extent.SOC in extents or act.value.span is Span.GPUS:
        return False
    if act.value.has_models and not act.value.is_spark:
        return False
    if act.deed is Deed.HEADROOM:
        return watts >= _A_LIMIT
    reach = _reach(case, act.value)
    is_share = _is_percent(case, query, judged) and not _OBSERVED.search(f"{case.claim.title} {case.claim.description}")
    return is_share and watts >= _A_LIMIT and (reach is None or watts <= reach.watts)


#: Words for a reference that is not called a limit.
_OBSERVED: Final = re.compile(
    r"plateau|observed|settles|baseline|reference|highest seen|no limit|not a limit", re.IGNORECASE
)
#: Watts from which a constant beside a GPU's power is taken for a limit; smaller ones are offsets.
_A_LIMIT: Final = 50.0


def absent_limit(case: Case) -> Iterator[Remark]:
    """Yield what rests on a metric that no GB10 has."""
    if case.target is not Target.GB10:
        return
    for query, judged in case.judged:
        absent = sorted({(s.metric.name, s.metric.absent) for s in all_sources(judged) if s.metric.absent})
        if absent:
            names = ", ".join(name for name, _ in absent)
            consequence = "never fires" if case.claim.shape is Shape.ALERT else "shows nothing"
            yield Remark(
                "PWR007",
                query,
                f"on a Spark this {consequence}: there is no {names}; {absent[0][1]}",
                _present_instead(case, judged, absent),
            )


def _present_instead(case: Case, judged: Judged, absent: Iterable[tuple[str, str]]) -> str:
    if case.claim.shape is Shape.ALERT:
        return alert_instead(judged.value)
    shares = (act.value for act in judged.acts if act.deed is Deed.SHARE)
    if value := next(shares, None):
        return share_instead(value)
    return 'gb10_power_limit_watts{limit="pl1"}' if _are_limits(judged, absent) else "gb10_soc_power_watts"


def _are_limits(judged: Judged, absent: Iterable[tuple[str, str]]) -> bool:
    names = {name for name, _ in absent}
    return all(source.is_limit for source in all_sources(judged) if source.metric.name in names)


def _round_up(number: float) -> float:
    return -(-number // 10) * 10
