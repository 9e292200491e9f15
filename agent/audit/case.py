"""What the rules judge: a claim with its queries typed, the words that it is made in, and how it is spoken of."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from spark_agent.agent.audit.catalogue import PARTS, Extent
from spark_agent.agent.audit.claim import Claim, Query, Severity, Shape
from spark_agent.agent.audit.value import Act, Deed, Judged, Source, Value
from spark_agent.agent.audit.words import Theme, themes


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
            *map(themes, (title_of(claim), claim.description, *claim.labels, *claim.labels.values()))
        )

    @cached_property
    def inherited(self) -> frozenset[Theme]:
        """What it stands under speaks of."""
        return frozenset().union(*map(themes, self.claim.context))

    @property
    def powers(self) -> list[tuple[Query, Judged]]:
        """The queries that give a power or an energy, and not only limits."""
        return [(query, judged) for query, judged in self.judged if judged.value.is_power and is_reading(judged.value)]

    def unit_of(self, query: Query) -> str:
        """Return Grafana's unit that a query is shown in; "" where it has none."""
        return query.unit or self.claim.unit or ""

    def acts(self, *deeds: Deed) -> Iterator[tuple[Query, Judged, Act]]:
        """Yield what was done in any query."""
        for query, judged in self.judged:
            for act in judged.acts:
                if act.deed in deeds:
                    yield query, judged, act

    def said_of(self, query: Query, judged: Judged) -> frozenset[Theme]:
        """Return what the claim says of one query, in words of its own."""
        return self.own | themes(query.legend) | themes(judged.comments)


def title_of(claim: Claim) -> str:
    """Return the title without what a recorded name ends with by custom: the operation."""
    if claim.shape is Shape.RECORD and claim.title.count(":") > 1:
        return claim.title.rpartition(":")[0]
    return claim.title


def is_reading(value: Value) -> bool:
    """Return whether a value is made of readings, and not of limits alone."""
    return bool(value.sources) and not value.is_limit


def is_part(value: Value) -> bool:
    """Return whether all that a value is made of are parts of a machine."""
    return bool(value.extents) and value.extents <= PARTS and not value.is_open


def all_sources(judged: Judged) -> Iterable[Source]:
    """Yield what an expression, or any step on the way to it, comes from."""
    yield from judged.value.sources
    for act in judged.acts:
        yield from act.value.sources
        yield from act.other.sources


def watts_of(value: Value, number: float) -> float | None:
    """Return how many watts a number is that stands beside a value; None where the scale is not known."""
    return number / value.factor if value.factor else None


def metrics_of(value: Value) -> str:
    """Return the names of the metrics, the first few."""
    names = sorted({source.metric.name for source in value.sources})
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "this"


def written_of(judged: Judged) -> str:
    """Return the metrics of an expression as it names them, and those that they were recorded from."""
    recorded = sorted(judged.metrics - {source.metric.name for source in judged.value.sources})
    told = metrics_of(judged.value)
    return f"{recorded[0]}, recorded from {told}," if len(recorded) == 1 == len(judged.metrics) else told


def covered(extents: frozenset[Extent]) -> str:
    """Return what extents are, as in "the CPU and the GPU"."""
    return listed(sorted(extent.words for extent in extents)) or "something unknown"


_SHORT: Final = {Extent.GPU: "GPU", Extent.CPU: "CPU", Extent.CORES: "CPU", Extent.SOC: "SoC", Extent.MODULE: "module"}


def short(extents: frozenset[Extent]) -> str:
    """Return what extents are, as in a title."""
    return " and ".join(sorted({_SHORT.get(extent, extent.value) for extent in extents}))


def listed(items: Iterable[object]) -> str:
    """Return "a, b and c"."""
    told = [f"{item:g}" if isinstance(item, float) else str(item) for item in items]
    return " and ".join([", ".join(told[:-1]), told[-1]]) if len(told) > 1 else "".join(told)


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


def names_of(extents: Iterable[Extent]) -> frozenset[Theme]:
    """Return the words that say of which parts a reading is."""
    return frozenset().union(*(_NAMED_BY[extent] for extent in extents))
