"""A part under the name of the whole (PWR001), or of another part (PWR015)."""

import re
from collections.abc import Iterator
from typing import Final

from spark_agent.agent.audit.case import (
    Case,
    Remark,
    Target,
    covered,
    is_part,
    metrics_of,
    names_of,
    short,
    title_of,
    written_of,
)
from spark_agent.agent.audit.catalogue import Extent
from spark_agent.agent.audit.claim import Query, Shape
from spark_agent.agent.audit.instead import alert_of, whole_of
from spark_agent.agent.audit.value import Deed, Judged, Span, Value
from spark_agent.agent.audit.words import Assertion, Theme, asserts_whole, is_a_machine, themes, written

#: What is taken for the machine. CPU packages seldom are; GPU and CPU added up leave out the rest, but no half.
_MISTAKEN: Final = frozenset((Extent.GPU, Extent.SOC, Extent.CPU_GPU, Extent.MODULE, Extent.RAIL, Extent.MEMORY))


def scope_label(case: Case) -> Iterator[Remark]:
    """Yield readings of a part under a name that says the whole."""
    powers = case.powers
    all_parts = all(is_part(judged.value) for _, judged in powers)
    for query, judged in powers:
        value = judged.value
        if not is_part(value) or not value.extents <= _MISTAKEN or _is_named(case, query, judged):
            continue
        said = _assertion(case, query, value, of_panel=all_parts)
        if said is None or any(act.deed is Deed.CONSTANT_ADDED for act in judged.acts):
            continue
        yield Remark(
            "PWR001",
            query,
            f'"{said.word}" says more than {written_of(judged)} covers: {covered(value.extents)} alone'
            f"{_missing(value, case.target)}; measure the whole, or call it {short(value.extents)} power",
            alert_of(value) if case.claim.shape is Shape.ALERT else whole_of(value, case),
        )
        return


def _is_named(case: Case, query: Query, judged: Judged) -> bool:
    """Return whether words say which part a reading is."""
    extents = judged.value.extents
    names = names_of(extents)
    own = case.own | themes(judged.comments)
    # "Package" in a legend names the sensor; in a title it says what is shown.
    around = (themes(query.legend) | case.inherited) & (names - {Theme.PART} or names)
    return bool(own & (names | {Theme.PART}) or around or (Theme.ESTIMATE in own and len(extents) > 1))


def _assertion(case: Case, query: Query, value: Value, *, of_panel: bool) -> Assertion | None:
    """Return what says that a query is a whole; title and description only where they are about nothing else."""
    claim = case.claim
    said = asserts_whole(title_of(claim), "", claim.description) if of_panel else None
    if said is None and (said := asserts_whole("", query.legend, "")):
        others = frozenset().union(*(themes(other.legend) for other in claim.queries))
        if said.theme is Theme.TOTAL and Theme.GPU in others:
            return None  # the total of what stands beside it
    if said is not None and said.theme is Theme.METERED and not _is_added_up(value):
        return None  # the energy of one thing may be in kWh as well
    if said is None and of_panel:
        if themes(claim.title) == {Theme.POWER}:
            for text in claim.context:
                if is_a_machine(text):
                    return asserts_whole(text, "", "")
        for text in reversed(claim.context):
            around = themes(text)
            is_power = Theme.POWER in around and around & {Theme.WHOLE, Theme.TOTAL}
            if is_power or (Theme.WHOLE in around and _ALL_OF.search(text)):
                return asserts_whole(text, "", "")
    return said


def _is_added_up(value: Value) -> bool:
    return value.span is not Span.ONE or bool(value.by)


#: "Whole cluster" over a panel says what its power is of, where "Cluster" says where one is.
_ALL_OF: Final = re.compile(r"\b(?:whole|entire|complete|total)\s|\bgesamte?[rsn]?\s|全体|整机|整個", re.IGNORECASE)


def _missing(value: Value, target: Target) -> str:
    if target is not Target.GB10 or value.extents != {Extent.GPU}:
        return ""
    return ", beside which a Spark draws another 20 to 80 W"


def entity(case: Case) -> Iterator[Remark]:
    """Yield one part under the name of another."""
    title = themes(title_of(case.claim))
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
                    f"the {where} says {name}, but {metrics_of(judged.value)} is {covered(judged.value.extents)}",
                    f'legend "{short(judged.value.extents)}"',
                )
