"""Sums of what contains one another (PWR009), gaps and guesses shown as readings (PWR010 to PWR013)."""

import re
from collections.abc import Iterator
from typing import Final

from spark_agent.agent.audit.case import Case, Remark, covered, listed, metrics_of, watts_of
from spark_agent.agent.audit.catalogue import Dimension, Extent
from spark_agent.agent.audit.instead import energy_instead
from spark_agent.agent.audit.value import Deed, Value
from spark_agent.agent.audit.words import Theme


def nested_sum(case: Case) -> Iterator[Remark]:
    """Yield sums of things that contain one another."""
    for query, _, act in case.acts(Deed.NESTED):
        extents = act.value.extents
        if Extent.MIXED in extents:
            label = next((s.metric.label for s in act.value.sources if s.extent is Extent.MIXED), "label")
            why = f"{metrics_of(act.value)} has totals and their parts under one name, told apart by {label}"
        elif copies := sorted({source.metric.copies for source in act.value.sources if source.metric.copies}):
            why = f"{metrics_of(act.value)} has one reading more than once, told apart by {copies[0]}"
        else:
            why = f"{listed(sorted(extent.words for extent in extents))} contain one another"
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
            f"where {metrics_of(act.value)} is missing this says 0 W, which no machine that runs ever draws; "
            "a gap is a gap",
            _without_fill(query.expr),
        )
    if case.claim.zero_filled and case.powers:
        query, judged = case.powers[0]
        yield Remark(
            "PWR010",
            query,
            f"{case.claim.zero_filled} shows 0 W where {metrics_of(judged.value)} is missing; a gap is a gap",
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
            f"{metrics_of(left)} is {covered(left.extents)}{_guessed(left)} and {metrics_of(right)} is "
            f"{covered(right.extents)}{_guessed(right)}: under one name, nobody sees which is shown",
            "two queries, each with a legend of its own",
        )


def _guessed(value: Value) -> str:
    return ", estimated" if any(source.metric.is_estimate for source in value.sources) else ""


def constant_plus(case: Case) -> Iterator[Remark]:
    """Yield readings to which a constant is added, without saying that it is a guess."""
    for query, judged, act in case.acts(Deed.CONSTANT_ADDED):
        number, value = act.other.number, act.value
        watts = watts_of(value, number) if number is not None else None
        if watts is None or abs(watts) < 1 or value.dimension is not Dimension.POWER or value.is_limit:
            continue
        if Theme.ESTIMATE not in case.said_of(query, judged) | case.inherited:
            yield Remark(
                "PWR012",
                query,
                f"{watts:g} W are added to {metrics_of(value)} that nobody measured, and nothing says so",
                'gb10_system_power_estimate_lower_watts and _upper_watts, or "estimate" in the title',
            )


def mean_times_time(case: Case) -> Iterator[Remark]:
    """Yield energies that are a mean times a time."""
    for query, _, act in case.acts(Deed.MEAN_TIMES):
        yield Remark(
            "PWR013",
            query,
            "a mean over the samples there are, times the whole time, counts gaps and down-time as load",
            energy_instead(act.value, query, case),
        )
