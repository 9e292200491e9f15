"""The rules PWR000 to PWR015: what a claim says, held against what its expressions measure."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Final

from spark_agent.agent.audit.catalogue import (
    GB10_BUDGETS,
    GB10_REACH,
    PARTS,
    Dimension,
    Extent,
    Kind,
    Reach,
    is_inside,
)
from spark_agent.agent.audit.claim import Claim, Query, Severity, Shape
from spark_agent.agent.audit.scope import GPU_LABELS, HOST_LABELS, Act, Deed, Judged, Source, Span, Value
from spark_agent.agent.audit.words import Assertion, Theme, asserts_whole, themes, written


class Target(StrEnum):
    """The machines that are meant: a Spark, of which is known what it can draw and what it never reports; or any."""

    GB10 = "gb10"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Remark:
    """What a rule has to say of one query of a claim."""

    rule: str
    query: Query
    message: str
    suggestion: str = ""
    severity: Severity | None = None


@dataclass(frozen=True)
class Case:
    """A claim with its queries typed, and the words that it is made in."""

    claim: Claim
    judged: tuple[tuple[Query, Judged], ...]
    target: Target
    #: How many machines a sum is taken to span where it does not say.
    machines: int = 2

    @cached_property
    def own(self) -> frozenset[Theme]:
        """What the claim itself speaks of."""
        claim = self.claim
        return frozenset().union(
            *map(themes, (_title(claim), claim.description, *claim.labels, *claim.labels.values()))
        )

    @cached_property
    def inherited(self) -> frozenset[Theme]:
        """What it stands under speaks of."""
        return frozenset().union(*map(themes, self.claim.context))

    @property
    def powers(self) -> list[tuple[Query, Judged]]:
        """The queries that give a power or an energy, and not only limits."""
        return [(query, judged) for query, judged in self.judged if judged.value.is_power and _is_reading(judged.value)]

    def acts(self, *deeds: Deed) -> Iterator[tuple[Query, Judged, Act]]:
        """Yield what was done in any query."""
        for query, judged in self.judged:
            for act in judged.acts:
                if act.deed in deeds:
                    yield query, judged, act

    def said_of(self, query: Query, judged: Judged) -> frozenset[Theme]:
        """Return what the claim says of one query, in words of its own."""
        return self.own | themes(query.legend) | themes(judged.comments)


def check(case: Case) -> Iterator[Remark]:
    """Yield what is wrong with a claim, each rule at most once for a query."""
    if not any(judged.value.sources or judged.acts for _, judged in case.judged):
        return  # nothing of power is in it
    seen = set()
    for rule in _CHECKS:
        for remark in rule(case):
            key = remark.rule, remark.query.at
            if key not in seen:
                seen.add(key)
                yield remark


# The whole and its parts

#: Words that say of which part a reading is.
_NAMED_BY: Final[Mapping[Extent, frozenset[Theme]]] = {
    Extent.GPU: frozenset((Theme.GPU,)),
    Extent.CPU: frozenset((Theme.CPU, Theme.PART)),
    Extent.CORES: frozenset((Theme.CPU, Theme.PART)),
    Extent.MEMORY: frozenset((Theme.MEMORY, Theme.PART)),
    Extent.CPU_GPU: frozenset((Theme.CPU, Theme.GPU, Theme.PART)),
    Extent.SOC: frozenset((Theme.PART,)),
    Extent.MODULE: frozenset((Theme.PART,)),
    Extent.RAIL: frozenset((Theme.PART,)),
}


#: What is taken for the machine. CPU packages seldom are; GPU and CPU added up leave out the rest, but no half.
_MISTAKEN: Final = frozenset((Extent.GPU, Extent.SOC, Extent.CPU_GPU, Extent.MODULE, Extent.RAIL, Extent.MEMORY))


def scope_label(case: Case) -> Iterator[Remark]:
    """Yield readings of a part under a name that says the whole."""
    powers = case.powers
    all_parts = all(_is_part(judged.value) for _, judged in powers)
    for query, judged in powers:
        value = judged.value
        if not _is_part(value) or not value.extents <= _MISTAKEN or _is_named(case, query, judged):
            continue
        said = _assertion(case, query, of_panel=all_parts)
        if said is None or any(act.deed is Deed.CONSTANT_ADDED for act in judged.acts):
            continue
        yield Remark(
            "PWR001",
            query,
            f'"{said.word}" says more than {_written(judged)} covers: {_covered(value.extents)} alone'
            f"{_missing(value, case.target)}; measure the whole, or call it {_short(value.extents)} power",
            _alert_of(value) if case.claim.shape is Shape.ALERT else _whole_of(value, case),
        )
        return


def _is_named(case: Case, query: Query, judged: Judged) -> bool:
    """Return whether words say which part a reading is."""
    extents = judged.value.extents
    names = frozenset().union(*(_NAMED_BY[extent] for extent in extents))
    own = case.own | themes(judged.comments)
    # "Package" in a legend names the sensor; in a title it says what is shown.
    around = (themes(query.legend) | case.inherited) & (names - {Theme.PART} or names)
    return bool(own & (names | {Theme.PART}) or around or (Theme.ESTIMATE in own and len(extents) > 1))


def _assertion(case: Case, query: Query, *, of_panel: bool) -> Assertion | None:
    """Return what says that a query is a whole; title and description only where they are about nothing else."""
    claim = case.claim
    said = asserts_whole(_title(claim), "", claim.description) if of_panel else None
    if said is None and (said := asserts_whole("", query.legend, "")):
        others = frozenset().union(*(themes(other.legend) for other in claim.queries))
        if said.is_total and Theme.GPU in others:
            return None  # the total of what stands beside it
    if said is None and of_panel:
        for text in reversed(claim.context):
            around = themes(text)
            is_power = Theme.POWER in around and around & {Theme.WHOLE, Theme.TOTAL}
            if is_power or (Theme.WHOLE in around and _ALL_OF.search(text)):
                return asserts_whole(text, "", "")
    return said


#: "Whole cluster" over a panel says what its power is of, where "Cluster" says where one is.
_ALL_OF: Final = re.compile(r"\b(?:whole|entire|complete|total)\s|\bgesamte?[rsn]?\s|全体|整机|整個", re.IGNORECASE)


def _missing(value: Value, target: Target) -> str:
    if target is not Target.GB10 or value.extents != {Extent.GPU}:
        return ""
    return ", beside which a Spark draws another 20 to 80 W"


def entity(case: Case) -> Iterator[Remark]:
    """Yield one part under the name of another."""
    title = themes(_title(case.claim))
    for query, judged in case.powers:
        legend = written(query.legend)
        for extents, own, other, name in (
            ({Extent.GPU}, Theme.GPU, Theme.CPU, "the CPU"),
            ({Extent.CPU}, Theme.CPU, Theme.GPU, "the GPU"),
            ({Extent.CORES}, Theme.CPU, Theme.GPU, "the GPU"),
        ):
            if judged.value.extents != extents or own in legend:
                continue
            where = "legend" if other in legend else "title" if other in title and own not in title else ""
            if where:
                yield Remark(
                    "PWR015",
                    query,
                    f"the {where} says {name}, but {_metrics(judged.value)} is {_covered(judged.value.extents)}",
                    f'legend "{_short(judged.value.extents)}"',
                )


# Limits


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
        reach, watts = _reach(case, value), _watts(value, number)
        if reach is None or watts is None or watts <= reach.watts:
            continue
        is_alert = case.claim.shape is Shape.ALERT
        is_below = act.op in ("<", "<=")
        consequence = "is always so" if is_below else "can never fire" if is_alert else "is never so"
        yield Remark(
            "PWR002",
            query,
            f"{_metrics(value)} is never above {reach.watts:g} W{_of_how_many(case, value)}, so what is compared with "
            f"{watts:g} W {consequence}: {reach.why}",
            _alert_instead(value),
            Severity.ERROR if is_alert and value.span is Span.ONE and not is_below else None,
        )


def _unreachable_shares(case: Case) -> Iterator[Remark]:
    for query, judged, act in case.acts(Deed.SHARE):
        value, number = act.value, act.other.number
        if number is None or value.dimension is not Dimension.POWER or value.is_limit:
            continue
        reach, watts = _reach(case, value), _watts(value, number)
        if reach is None or watts is None or watts <= reach.watts or _budget(watts):
            continue
        if _is_percent(case, query, judged):
            yield Remark(
                "PWR002",
                query,
                f"{_metrics(value)} never comes to {watts:g} W, so a share of it says nothing: {reach.why}",
                _share_instead(value),
            )


def _is_percent(case: Case, query: Query, judged: Judged) -> bool:
    """Return whether a result is shown as a share of something."""
    shown = query.unit or case.claim.unit or ""
    return shown.startswith("percent") or 100.0 in judged.value.scaled or "%" in _title(case.claim)


def _unreachable_scale(case: Case) -> Iterator[Remark]:
    claim = case.claim
    powers = [(query, judged.value) for query, judged in case.powers if judged.value.dimension is Dimension.POWER]
    if claim.shape is not Shape.PANEL or not powers or len(powers) < len(case.powers):
        return
    reached = [(_scale_reach(case, value), query, value) for query, value in powers]
    best = max((reach.watts for reach, _, _ in reached if reach), default=0.0)
    if any(reach is None for reach, _, _ in reached):
        return
    for reach, query, value in reached:
        if reach is None or reach.watts < best or not value.factor or not _is_shown_as_power(case, query, value):
            continue
        steps = [step for step in claim.thresholds if step / value.factor > reach.watts]
        top = claim.maximum if claim.maximum and claim.maximum / value.factor > _ROUNDED * reach.watts else None
        if not steps and top is None:
            return
        said = [f"thresholds at {_listed(steps)}"] if steps else []
        said += [f"a scale up to {top:g}"] if top else []
        yield Remark(
            "PWR002",
            query,
            f"{' and '.join(said)} for {_metrics(value)}, which is never above {reach.watts:g} W"
            f"{_of_how_many(case, value)}: {reach.why}",
            f"maximum {_round_up(reach.watts * value.factor):g}, thresholds below it",
        )
        return


def _is_shown_as_power(case: Case, query: Query, value: Value) -> bool:
    """Return whether the numbers of a panel are watts, or some multiple; not money, nor a share."""
    shown = query.unit or case.claim.unit or ""
    known = _GRAFANA_UNITS.get(shown, (None, 0.0))[0] is Dimension.POWER
    return (known or shown.lower() in _NO_UNIT or "W" in shown) and _is_plain(value.factor or 0.0)


#: How far a scale may go beyond what can be reached, for a round number.
_ROUNDED: Final = 1.25


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
            of = f"{_metrics(act.other)}, the limit of {_covered(limits)}"
        else:
            watts = _watts(value, act.other.number)
            if watts is None or not _is_foreign_limit(case, query, judged, act, watts):
                continue
            budget = _budget(watts)
            of = f"{watts:g} W, {_budget_words(budget)}" if budget else f"{watts:g} W, which is no limit of it"
        is_share = act.deed is Deed.SHARE
        yield Remark(
            "PWR003",
            query,
            f"{'a share' if is_share else 'headroom'} of {of}, from a reading of {_covered(value.extents)} "
            f"({_metrics(value)}): what the rest draws is missing",
            _share_instead(value) if is_share else "gb10_power_headroom_watts",
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
    is_share = _is_percent(case, query, judged)
    return is_share and watts >= _A_LIMIT and (reach is None or watts <= reach.watts)


#: Watts from which a constant beside a GPU's power is taken for a limit; smaller ones are offsets.
_A_LIMIT: Final = 50.0


def absent_limit(case: Case) -> Iterator[Remark]:
    """Yield what rests on a metric that no GB10 has."""
    if case.target is not Target.GB10:
        return
    for query, judged in case.judged:
        absent = sorted({(s.metric.name, s.metric.absent) for s in _all_sources(judged) if s.metric.absent})
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
        return _alert_instead(judged.value)
    shares = (act.value for act in judged.acts if act.deed is Deed.SHARE)
    if value := next(shares, None):
        return _share_instead(value)
    return 'gb10_power_limit_watts{limit="pl1"}' if _are_limits(judged, absent) else "gb10_soc_power_watts"


def _are_limits(judged: Judged, absent: Iterable[tuple[str, str]]) -> bool:
    names = {name for name, _ in absent}
    return all(source.is_limit for source in _all_sources(judged) if source.metric.name in names)


# Money and work


def cost(case: Case) -> Iterator[Remark]:
    """Yield costs of a machine from the energy of a part."""
    claim = case.claim
    unit = claim.unit or ""
    said = case.own | frozenset().union(*map(themes, (query.legend for query, _ in case.judged)))
    for query, judged in case.judged:
        value = judged.value
        named = themes(" ".join(judged.variables))
        priced = [act.value for act in judged.acts if act.deed is Deed.PRICED]
        if not (priced or Theme.COST in said | named or unit.startswith("currency")):
            continue
        value = priced[0] if priced else value
        if not _is_part(value) or _says_whose_energy(case, query):
            continue
        yield Remark(
            "PWR004",
            query,
            f"priced is the energy of {_covered(value.extents)} ({_metrics(value)}) and not that of the machine, "
            "which the bill is for",
            "increase(gb10_system_energy_joules_total[24h]) / 3.6e6 * 1.1 * PRICE_PER_KWH",
        )
        return


_GPU_ENERGY: Final = re.compile(
    r"\bgpus?\b[\s\-_:()]*(?:rail|only|alone|nur|seul|solo)?[\s\-_]*(?:power|energy|electricity|watts?|kwh|joules?|strom|energie"
    r"|énergie|energía|電力|功耗|电费|能耗)|gpu[- ]only|\bonly the gpu|gpu\s*(?:電力|功耗|电费|能耗)"
    r"|(?:power|energy|electricity|consumption) of (?:the |all )?gpus?|(?:énergie|puissance) (?:du|des) gpu",
    re.IGNORECASE,
)


def _says_whose_energy(case: Case, query: Query) -> bool:
    """Return whether a cost says that it is the GPU's energy only."""
    told = f"{_title(case.claim)}\n{case.claim.description}\n{query.legend}".replace("_", " ")
    return bool(_GPU_ENERGY.search(told))


def efficiency(case: Case) -> Iterator[Remark]:
    """Yield work per watt of a part that does not say of which."""
    for query, judged in case.judged:
        acts = [act for act in judged.acts if act.deed is Deed.EFFICIENCY]
        is_work = judged.value.dimension is Dimension.EFFICIENCY or any(
            act.other.dimension is Dimension.WORK for act in acts
        )
        # A work that is recorded has its act elsewhere.
        value = acts[0].value if acts else judged.value
        own = case.said_of(query, judged)
        if not (is_work or (acts and Theme.EFFICIENCY in own)) or not _is_part(value):
            continue
        if not own & frozenset().union(*(_NAMED_BY[extent] for extent in value.extents)):
            yield Remark(
                "PWR005",
                query,
                f"this is work per watt of {_covered(value.extents)} ({_metrics(value)}): no figure to compare with a "
                "machine that was measured whole",
                'gb10_system_power_watts as the denominator, or "of GPU power" in the title',
            )


def ac_dc(case: Case) -> Iterator[Remark]:
    """Yield DC power that is taken for power at the wall."""
    for query, judged in case.judged:
        value = judged.value
        measured = {source for source in value.sources if source.metric.exporter in _DC_EXPORTERS}
        if not measured or not value.extents <= {Extent.SYSTEM, Extent.DC_INPUT}:
            continue
        title = themes(_title(case.claim)) | themes(query.legend)
        said = case.said_of(query, judged) | themes(" ".join(judged.variables))
        if Theme.ESTIMATE in said or any(1.02 <= by <= 1.3 for by in value.scaled):
            continue  # the adapter's loss is in it
        is_priced = any(act.deed is Deed.PRICED for act in judged.acts) or Theme.COST in said
        if Theme.WALL in title or is_priced:
            what = "a tariff is for AC" if is_priced else "the wall is AC"
            yield Remark(
                "PWR014",
                query,
                f"{_metrics(value)} is DC, behind the adapter, and {what}: an adapter of 88 to 94 % efficiency takes "
                "6 to 14 % more",
                '* 1.1 and "estimate" in the title, or a meter at the wall',
            )


_DC_EXPORTERS: Final = frozenset(("spark-agent", "node_exporter"))


# Units and kinds

#: Grafana's unit ids for power and energy: dimension, and how many make a watt or joule.
#: https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts
_GRAFANA_UNITS: Final[Mapping[str, tuple[Dimension, float]]] = {
    "watt": (Dimension.POWER, 1.0),
    "kwatt": (Dimension.POWER, 1e-3),
    "megwatt": (Dimension.POWER, 1e-6),
    "gwatt": (Dimension.POWER, 1e-9),
    "mwatt": (Dimension.POWER, 1e3),
    "joule": (Dimension.ENERGY, 1.0),
    "watth": (Dimension.ENERGY, 1 / 3600),
    "kwatth": (Dimension.ENERGY, 1 / 3.6e6),
}
_NO_UNIT: Final = frozenset(("", "none", "short", "locale", "string"))
#: ``kW``, ``milliwatts``, ``kWh`` in words; a prefix, and the unit.
_SAID_UNIT: Final = re.compile(
    r"(?<![A-Za-z])(?:([kKMmµμun]?)(Wh|W|J|(?<=[km])wh)|((?i:kilo|milli|micro|nano|mega)?)((?i:watts?|joules?)))(?![A-Za-z])"
)
_KILO: Final = re.compile(r"(?<![A-Za-z])k(?:W|J)|kilo|千瓦|キロワット", re.IGNORECASE)
_PREFIXES: Final = {
    "": 1.0, "k": 1e-3, "K": 1e-3, "M": 1e-6, "m": 1e3, "µ": 1e6, "μ": 1e6, "u": 1e6, "n": 1e9,
    "kilo": 1e-3, "mega": 1e-6, "milli": 1e3, "micro": 1e6, "nano": 1e9,
}  # fmt: skip


def _said_units(text: str) -> list[tuple[str, Dimension, float]]:
    """Return the units that a text names: as written, what they measure, and how many make a watt or joule."""
    said = []
    for match in _SAID_UNIT.finditer(text.replace("_", " ").replace(":", " ")):
        prefix, symbol = (
            (match[1] or "", match[2].replace("wh", "Wh")) if match[2] else (match[3].lower(), match[4][0].upper())
        )
        factor = _PREFIXES[prefix] / (3600 if symbol == "Wh" else 1)
        said.append((match[0], Dimension.POWER if symbol == "W" else Dimension.ENERGY, factor))
    return said


def unit(case: Case) -> Iterator[Remark]:
    """Yield units that are not the metric's."""
    yield from _small_constants(case)
    if case.claim.shape is Shape.ALERT:
        return
    yield from _per_work(case)
    for query, judged in case.powers:
        value, shown = judged.value, query.unit or case.claim.unit or ""
        if value.factor is None:
            yield from _words_against_unit(case, query, shown)
        if value.factor is None or not _is_plain(value.factor):
            continue
        found = list(_contradiction(query, value, shown)) if shown in _GRAFANA_UNITS else []
        if not found:
            found = list(_said_otherwise(case, query, value, is_scaled=shown in _GRAFANA_UNITS))
        if not found and shown.lower() in _NO_UNIT:
            found = list(_unsaid(case, query, judged))
        yield from found


def _words_against_unit(case: Case, query: Query, shown: str) -> Iterator[Remark]:
    """Yield a unit that words contradict, whatever the metric is in. Larger ones Grafana makes itself."""
    dimension, factor = _GRAFANA_UNITS.get(shown, (None, 1.0))
    said = [one for text in (query.legend, _title(case.claim)) for one in _said_units(text) if one[1] is dimension]
    if said and all(small > 2 * factor for _, _, small in said):
        yield Remark("PWR006", query, f"the words say {said[0][0]}, and the unit is {shown}: one of them is wrong")


def _per_work(case: Case) -> Iterator[Remark]:
    """Yield energies for some work whose unit is not the one that is shown."""
    for query, judged in case.judged:
        value, shown = judged.value, query.unit or case.claim.unit or ""
        dimension, factor = _GRAFANA_UNITS.get(shown, (None, 0.0))
        if value.dimension is not Dimension.EFFICIENCY or dimension is not Dimension.ENERGY or not value.factor:
            continue
        off = value.factor / factor
        if _is_plain(off) and not 0.5 < off < 2:
            yield Remark(
                "PWR006",
                query,
                f"the unit is {shown}, but {_metrics(value)} is in {_source_unit(value)}: what is shown is "
                f"{f'{off:g} times too much' if off > 1 else f'{1 / off:g} times too little'}",
                f"({query.expr.strip()}) {_times(1 / off)}",
            )


def _small_constants(case: Case) -> Iterator[Remark]:
    for query, _, act in case.acts(Deed.COMPARED):
        value, number = act.value, act.other.number
        if number is None or not value.factor or value.dimension is not Dimension.POWER or value.is_limit:
            continue
        watts = number / value.factor
        if value.factor >= _MILLI and number >= _A_FEW and watts < _A_FEW:
            yield Remark(
                "PWR006",
                query,
                f"{_metrics(value)} is in {_unit_of(value)}, so {number:g} is {watts:g} W",
                f"{number * value.factor:g} in place of {number:g}, if watts were meant",
            )
        elif value.factor <= 1 / _MILLI and watts > _A_MEGAWATT:
            yield Remark(
                "PWR006",
                query,
                f"this is in kilowatts, so {number:g} is {watts:g} W",
                f"{number * value.factor:g} in place of {number:g}, if watts were meant",
            )


_MILLI: Final = 1000.0
#: No machine that is worth an alert draws less; no rack of them more than the other.
_A_FEW: Final = 5.0
_A_MEGAWATT: Final = 1e5


def _contradiction(query: Query, value: Value, shown: str) -> Iterator[Remark]:
    dimension, factor = _GRAFANA_UNITS[shown]
    if value.factor is None:
        return
    if dimension is not value.dimension:
        if value.is_counter:
            return  # PWR008's
        what = "a power" if value.dimension is Dimension.POWER else "an energy"
        yield Remark("PWR006", query, f"the unit is {shown}, but {_metrics(value)} gives {what} here")
        return
    off = value.factor / factor
    if not 0.5 < off < 2:
        yield Remark(
            "PWR006",
            query,
            f"the unit is {shown}, but the expression gives {_unit_of(value)}: what is shown is "
            f"{f'{off:g} times too much' if off > 1 else f'{1 / off:g} times too little'}",
            f"({query.expr.strip()}) {_times(1 / off)}",
        )


def _said_otherwise(case: Case, query: Query, value: Value, *, is_scaled: bool) -> Iterator[Remark]:
    """Yield a scale that words contradict. Grafana itself turns 1500 W into 1.5 kW, where it knows the unit."""
    if value.factor is None or case.own & {Theme.COST, Theme.EFFICIENCY}:
        return
    said = [one for text in (query.legend, _title(case.claim)) for one in _said_units(text)]
    said = [one for one in said if one[1] is value.dimension and not (is_scaled and one[2] < 1)]
    if said and not any(0.5 < value.factor / factor < 2 for _, _, factor in said):
        yield Remark(
            "PWR006",
            query,
            f"the words say {said[0][0]}, but the expression gives {_unit_of(value)}",
            f"({query.expr.strip()}) {_times(said[0][2] / value.factor)}",
        )


def _times(by: float) -> str:
    return f"* {by:g}" if by >= 1 else f"/ {1 / by:g}"


def _unsaid(case: Case, query: Query, judged: Judged) -> Iterator[Remark]:
    """Yield watts that are divided as if they were milliwatts, where nothing says that kilowatts are meant."""
    claim, value = case.claim, judged.value
    told = [_title(claim), query.legend, claim.description, judged.comments]
    if value.factor is None or value.dimension is not Dimension.POWER or case.own & {Theme.COST, Theme.EFFICIENCY}:
        return
    is_watts = all(source.metric.unit.factor == 1 for source in value.sources)
    if is_watts and value.factor < 0.5 and not any(_KILO.search(text) for text in told):
        yield Remark(
            "PWR006",
            query,
            f"the expression divides {_metrics(value)}, which is in {_source_unit(value)}, and gives "
            f"{_unit_of(value)}, which nothing here says: it reads as watts, {1 / value.factor:g} times too few",
            'unit "kwatt", or no division',
        )


def _is_plain(factor: float) -> bool:
    """Return whether a factor is a change of unit, and no price or efficiency is in it."""
    if factor <= 0:
        return False
    digits = f"{factor:.6e}".split("e")[0].rstrip("0").rstrip(".")
    hours = f"{factor * 3600:.6e}".split("e")[0].rstrip("0").rstrip(".")
    return "1" in (digits, hours)


def gauge_counter(case: Case) -> Iterator[Remark]:
    """Yield rates of gauges, and counters shown as powers."""
    for query, _, act in case.acts(Deed.RATED):
        yield Remark(
            "PWR008",
            query,
            f"{act.op}() is for counters, and {_metrics(act.value)} is a power, which goes up and down: "
            "the result means nothing",
            _energy_instead(act.value, query, case) if act.op == "increase" else _without_rate(query.expr),
        )
    for query, judged in case.judged:
        shown = query.unit or case.claim.unit or ""
        dimension, _ = _GRAFANA_UNITS.get(shown, (None, 0.0))
        is_energy = judged.value.dimension is Dimension.ENERGY and _is_reading(judged.value)
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


# Sums, gaps and guesses


def nested_sum(case: Case) -> Iterator[Remark]:
    """Yield sums of things that contain one another."""
    for query, _, act in case.acts(Deed.NESTED):
        extents = act.value.extents
        if Extent.MIXED in extents:
            label = next((s.metric.label for s in act.value.sources if s.extent is Extent.MIXED), "label")
            why = f"{_metrics(act.value)} has totals and their parts under one name, told apart by {label}"
        elif copies := sorted({source.metric.copies for source in act.value.sources if source.metric.copies}):
            why = f"{_metrics(act.value)} has one reading more than once, told apart by {copies[0]}"
        else:
            why = f"{_listed(sorted(extent.words for extent in extents))} contain one another"
        yield Remark(
            "PWR009",
            query,
            f"{why}: added up, the same watts count more than once",
            "gb10_system_power_watts" if len(extents) > 1 or extents & {Extent.MIXED, Extent.SYSTEM} else "",
        )


def zero_fill(case: Case) -> Iterator[Remark]:
    """Yield zeros where nothing was measured."""
    for query, _, act in case.acts(Deed.ZERO_FILLED):
        yield Remark(
            "PWR010",
            query,
            f"where {_metrics(act.value)} is missing this says 0 W, which no machine that runs ever draws; "
            "a gap is a gap",
            _without_fill(query.expr),
        )
    if case.claim.zero_filled and case.powers:
        query, judged = case.powers[0]
        yield Remark(
            "PWR010",
            query,
            f"{case.claim.zero_filled} shows 0 W where {_metrics(judged.value)} is missing; a gap is a gap",
            "leave gaps",
        )


_FILL: Final = re.compile(r"\s+or\s+(?:on\s*\(\s*\)\s*)?(?:vector\s*\(\s*0(?:\.0*)?\s*\)|0(?:\.0*)?\b)", re.IGNORECASE)


def _without_fill(expr: str) -> str:
    bare = re.sub(
        r"\s+or\s+(?:on\s*\(\s*\)\s*)?(?:vector\s*\(\s*0(?:\.0*)?\s*\)|0(?:\.0*)?\b)", "", expr, flags=re.IGNORECASE
    )
    return bare.strip() if bare != expr else ""


def scope_switch(case: Case) -> Iterator[Remark]:
    """Yield what is one scope here and another there."""
    for query, _, act in case.acts(Deed.SWITCHED):
        left, right = act.value, act.other
        if left.is_limit or right.is_limit:
            continue
        yield Remark(
            "PWR011",
            query,
            f"{_metrics(left)} is {_covered(left.extents)}{_guessed(left)} and {_metrics(right)} is "
            f"{_covered(right.extents)}{_guessed(right)}: under one name, nobody sees which is shown",
            "two queries, each with a legend of its own",
        )


def _guessed(value: Value) -> str:
    return ", estimated" if any(source.metric.is_estimate for source in value.sources) else ""


def constant_plus(case: Case) -> Iterator[Remark]:
    """Yield readings to which a constant is added, without saying that it is a guess."""
    for query, judged, act in case.acts(Deed.CONSTANT_ADDED):
        number, value = act.other.number, act.value
        watts = _watts(value, number) if number is not None else None
        if watts is None or abs(watts) < 1 or value.dimension is not Dimension.POWER or value.is_limit:
            continue
        if Theme.ESTIMATE not in case.said_of(query, judged) | case.inherited:
            yield Remark(
                "PWR012",
                query,
                f"{watts:g} W are added to {_metrics(value)} that nobody measured, and nothing says so",
                'gb10_system_power_estimate_lower_watts and _upper_watts, or "estimate" in the title',
            )


def mean_times_time(case: Case) -> Iterator[Remark]:
    """Yield energies that are a mean times a time."""
    for query, _, act in case.acts(Deed.MEAN_TIMES):
        yield Remark(
            "PWR013",
            query,
            "a mean over the samples there are, times the whole time, counts gaps and down-time as load",
            _energy_instead(act.value, query, case),
        )


_CHECKS: Final[tuple[Callable[[Case], Iterator[Remark]], ...]] = (
    scope_label, scope_limit, headroom, cost, efficiency, unit, absent_limit, gauge_counter, nested_sum, zero_fill,
    scope_switch, constant_plus, mean_times_time, ac_dc, entity,
)  # fmt: skip


# From one claim to another


def scaled_twice(cases: Sequence[Case]) -> Iterator[tuple[Case, Remark]]:
    """Yield panels that scale a metric of unknown unit in another way than a panel before: one of them is wrong."""
    first: dict[str, tuple[float, Case]] = {}
    for case in cases:
        for query, judged in case.powers:
            value = judged.value
            names = {source.metric.name for source in value.sources if source.metric.unit.factor is None}
            dimension, shown = _GRAFANA_UNITS.get(query.unit or case.claim.unit or "", (None, 0.0))
            by = math.prod(value.scaled)
            if len(names) != 1 or len(value.sources) != 1 or dimension is not value.dimension or not _is_plain(by):
                continue
            name = names.pop()
            implied = shown / by
            before, where = first.setdefault(name, (implied, case))
            if not 0.5 < implied / before < 2:
                yield (
                    case,
                    Remark(
                        "PWR006",
                        query,
                        f"here {name} is scaled as if 1 W were {implied:g} of it, and in {where.claim.where} as if it "
                        f"were {before:g}: one of them is wrong",
                    ),
                )


# How it is said


def _title(claim: Claim) -> str:
    """Return the title without what a recorded name ends with by custom: the operation."""
    if claim.shape is Shape.RECORD and claim.title.count(":") > 1:
        return claim.title.rpartition(":")[0]
    return claim.title


def _is_reading(value: Value) -> bool:
    return bool(value.sources) and not value.is_limit


def _is_part(value: Value) -> bool:
    """Return whether all that a value is made of are parts of a machine."""
    return bool(value.extents) and value.extents <= PARTS and not value.is_open


def _all_sources(judged: Judged) -> Iterable[Source]:
    yield from judged.value.sources
    for act in judged.acts:
        yield from act.value.sources
        yield from act.other.sources


def _watts(value: Value, number: float) -> float | None:
    return number / value.factor if value.factor else None


def _metrics(value: Value) -> str:
    """Return the names of the metrics, the first few."""
    names = sorted({source.metric.name for source in value.sources})
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "this"


def _written(judged: Judged) -> str:
    """Return the metrics of an expression as it names them, and those that they were recorded from."""
    recorded = sorted(judged.metrics - {source.metric.name for source in judged.value.sources})
    told = _metrics(judged.value)
    return f"{recorded[0]}, recorded from {told}," if len(recorded) == 1 == len(judged.metrics) else told


def _covered(extents: frozenset[Extent]) -> str:
    return _listed(sorted(extent.words for extent in extents)) or "something unknown"


_SHORT: Final = {Extent.GPU: "GPU", Extent.CPU: "CPU", Extent.CORES: "CPU", Extent.SOC: "SoC", Extent.MODULE: "module"}


def _short(extents: frozenset[Extent]) -> str:
    return " and ".join(sorted({_SHORT.get(extent, extent.value) for extent in extents}))


def _listed(items: Iterable[object]) -> str:
    told = [f"{item:g}" if isinstance(item, float) else str(item) for item in items]
    return " and ".join([", ".join(told[:-1]), told[-1]]) if len(told) > 1 else "".join(told)


def _round_up(number: float) -> float:
    return -(-number // 10) * 10


def _unit_of(value: Value) -> str:
    """Return the unit that an expression gives."""
    symbols = (
        {1e3: "mW", 1e6: "µW", 1.0: "W", 1e-3: "kW", 1e-6: "MW"}
        if value.dimension is Dimension.POWER
        else {1e3: "mJ", 1e6: "µJ", 1.0: "J", 1e-3: "kJ", 1 / 3600: "Wh", 1 / 3.6e6: "kWh"}
    )
    base = "W" if value.dimension is Dimension.POWER else "J"
    if value.factor is None:
        return base
    near = next((symbol for factor, symbol in symbols.items() if abs(value.factor / factor - 1) < 0.01), None)
    return near or f"{base} times {value.factor:g}"


def _source_unit(value: Value) -> str:
    return "/".join(sorted({source.metric.unit.symbol for source in value.sources}))


def _by(value: Value) -> str:
    """Return the aggregation that keeps this agent's machines apart as the expression did."""
    labels = dict.fromkeys("instance" if label in HOST_LABELS else label for label in value.by)
    kept = [label for label in labels if label not in GPU_LABELS]
    return f"sum by ({', '.join(kept)}) " if kept else "sum"


def _whole_of(value: Value, case: Case) -> str:
    """Return the expression that measures the machine."""
    if value.dimension is Dimension.ENERGY:
        span = "$__range" if case.claim.shape is Shape.PANEL else "1d"
        increase = f"increase(gb10_system_energy_joules_total[{span}])"
        return f"{_added(value, increase)}{_per(value.factor or 1.0)}"
    whole = _added(value, "gb10_system_power_watts")
    return f"{whole} / 1000" if value.factor and abs(value.factor / 1e-3 - 1) < 0.01 else whole


def _alert_of(value: Value) -> str:
    """Return an alert on the whole: a threshold for a part is none for it."""
    return _alert_instead(replace(value, sources=frozenset()))


def _alert_instead(value: Value) -> str:
    if value.extents <= {Extent.SYSTEM, Extent.DC_INPUT, Extent.WALL}:
        return 'gb10_system_power_watts > on (instance) (0.9 * gb10_power_limit_watts{limit="syspl1"})'
    return 'gb10_soc_power_watts >= on (instance) (0.98 * gb10_power_limit_watts{limit="pl1"})'


def _share_instead(value: Value) -> str:
    if value.extents <= {Extent.SYSTEM, Extent.DC_INPUT, Extent.WALL}:
        return 'gb10_system_power_watts / on (instance) gb10_power_limit_watts{limit="syspl1"}'
    return 'gb10_soc_power_watts / on (instance) gb10_power_limit_watts{limit="pl1"}'


def _energy_instead(value: Value, query: Query, case: Case) -> str:
    """Return the increase of a counter, over the range that the expression has, in the unit that is shown."""
    scope = "gpu_nvml" if value.extents == {Extent.GPU} else "system"
    span = re.search(r"\[([^\]:]+)[\]:]", query.expr)
    _, factor = _GRAFANA_UNITS.get(query.unit or case.claim.unit or "", (None, 1 / 3.6e6))
    increase = f"increase(gb10_{scope}_energy_joules_total[{span[1] if span else '24h'}])"
    return f"{_added(value, increase)}{_per(factor)}"


def _added(value: Value, expr: str) -> str:
    """Return an expression, added up where the value was."""
    return f"{_by(value)}({expr})" if value.by or value.span is not Span.ONE else expr


def _per(factor: float) -> str:
    return "" if factor == 1 else f" / {1 / factor:g}".replace("e+06", "e6")
