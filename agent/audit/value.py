"""The type of an expression: extents, dimension, scale and span; and what was done to a power on the way to it."""

from dataclasses import dataclass
from enum import StrEnum

from spark_agent.agent.audit.catalogue import Dimension, Extent, Metric, Role


class Span(StrEnum):
    """How much of a fleet one number of a result is about."""

    #: One GPU, one machine: what a series of an exporter is.
    ONE = "one"
    #: The chosen GPUs of a host, of which a GB10 has one: whoever asks has more.
    GPUS = "gpus"
    #: As many machines as there happen to be.
    MANY = "many"


@dataclass(frozen=True, slots=True)
class Source:
    """One metric that a value comes from, with the extent that its labels select."""

    extent: Extent
    metric: Metric

    @property
    def is_limit(self) -> bool:
        """Whether it says what may be drawn, not what is."""
        return self.metric.role is Role.LIMIT


@dataclass(frozen=True, slots=True)
class Value:
    """The type of an expression."""

    dimension: Dimension = Dimension.UNKNOWN
    #: Of powers and energies: whence. Empty where nothing of that is in it, or nothing that is known.
    sources: frozenset[Source] = frozenset()
    #: How much it shows for one watt or joule; None where that is not known.
    factor: float | None = 1.0
    #: The value itself, of a constant.
    number: float | None = None
    #: Whether it is a counter as it stands, before any rate.
    is_counter: bool = False
    #: Whether something of unknown extent was added to it.
    is_open: bool = False
    #: Seconds over which it is a mean.
    window: float | None = None
    span: Span = Span.ONE
    #: Whether it tells GPUs apart by their model, so is about more than one kind of them.
    has_models: bool = False
    #: Whether one host was selected by name.
    is_one_host: bool = False
    #: Whether GPUs were selected by a pattern.
    picks_gpus: bool = False
    #: Numbers that it was multiplied with.
    scaled: tuple[float, ...] = ()
    #: Labels that an aggregation kept.
    by: tuple[str, ...] = ()
    #: Labels with a value that the expression itself gives: what tells one side of an ``or`` from the other.
    marks: frozenset[tuple[str, str]] = frozenset()
    #: Whether a metric or a label says that it is about Sparks.
    is_spark: bool = False

    @property
    def extents(self) -> frozenset[Extent]:
        """What its readings cover."""
        return frozenset(source.extent for source in self.sources if not source.is_limit)

    @property
    def is_power(self) -> bool:
        """Whether it is a power or an energy."""
        return self.dimension in (Dimension.POWER, Dimension.ENERGY)

    @property
    def is_limit(self) -> bool:
        """Whether it is made of limits only."""
        return bool(self.sources) and all(source.is_limit for source in self.sources)


class Deed(StrEnum):
    """What was done to a power."""

    COMPARED = "compared"
    #: ``limit - power``, where either may be a constant.
    HEADROOM = "headroom"
    #: ``power / limit``, where the limit may be a constant.
    SHARE = "share"
    #: ``power / power``, where the second is no limit.
    QUOTIENT = "quotient"
    NESTED = "nested"
    ZERO_FILLED = "zero filled"
    SWITCHED = "switched"
    CONSTANT_ADDED = "constant added"
    MEAN_TIMES = "mean times time"
    RATED = "rate of a gauge"
    PRICED = "priced"
    EFFICIENCY = "efficiency"


@dataclass(frozen=True, slots=True)
class Act:
    """One of them: to what, and with what."""

    deed: Deed
    value: Value
    other: Value = Value()
    op: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """An expression's type, the acts in it, and every metric that it names."""

    value: Value
    acts: tuple[Act, ...]
    metrics: frozenset[str]
    #: Names of Grafana's variables outside of strings, and comments: words that it says.
    variables: tuple[str, ...] = ()
    comments: str = ""
    #: Metrics whose name speaks of power, and of which nobody knows what they cover.
    unknown: frozenset[str] = frozenset()
