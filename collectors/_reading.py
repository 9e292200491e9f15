"""The vocabulary: what a collector declares, and what it yields.

A thing that can be said about a machine is declared once, as a `Quantity` (a number) or a `Property`
(anything else), next to the code that reads it. Prometheus families, the JSON document, its schema, the
terminal page and the diff all follow from the declaration.
"""

import errno
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar, dataclass_transform


class Unit(StrEnum):
    """Base units, spelled as UCUM has them; `words` spells them as a metric name does."""

    WATT = "W"
    JOULE = "J"
    CELSIUS = "Cel"
    BYTE = "By"
    SECOND = "s"
    HERTZ = "Hz"
    BIT_PER_SECOND = "bit/s"
    REVOLUTION_PER_MINUTE = "/min"
    RATIO = "1"
    COUNT = "{count}"

    @property
    def words(self) -> str:
        """The suffix a metric name of this unit has; empty for a plain count."""
        return _UNIT_WORDS[self]


_UNIT_WORDS: Final = {
    Unit.WATT: "watts",
    Unit.JOULE: "joules",
    Unit.CELSIUS: "celsius",
    Unit.BYTE: "bytes",
    Unit.SECOND: "seconds",
    Unit.HERTZ: "hertz",
    Unit.BIT_PER_SECOND: "bits_per_second",
    Unit.REVOLUTION_PER_MINUTE: "rpm",
    Unit.RATIO: "ratio",
    Unit.COUNT: "",
}


class Kind(StrEnum):
    """How a number behaves over time; a type of its own, never guessed from the value."""

    GAUGE = "gauge"
    COUNTER = "counter"


class Scope(StrEnum):
    """What a watt or a joule covers.

    ``dc_input ⊇ system ⊇ soc ⊇ cpu_gpu ⊇ {cpu_performance, cpu_efficiency, gpu_rail}``; ``gpu_nvml`` is a
    reading *about* the GPU that is known to differ from its rail, so it is a scope of its own.
    """

    DC_INPUT = "dc_input"
    SYSTEM = "system"
    SOC = "soc"
    CPU_GPU = "cpu_gpu"
    CPU_PERFORMANCE = "cpu_performance"
    CPU_EFFICIENCY = "cpu_efficiency"
    GPU_RAIL = "gpu_rail"
    GPU_NVML = "gpu_nvml"
    DLA = "dla"
    VCORE = "vcore"
    PREREGULATOR = "preregulator"


class Quality(StrEnum):
    """How a number is known."""

    MEASURED = "measured"
    DERIVED = "derived"
    ESTIMATED = "estimated"
    UNTRUSTED = "untrusted"


class Reason(StrEnum):
    """Why there is no number."""

    NOT_FOUND = "not_found"
    NOT_SUPPORTED = "not_supported"
    NO_DRIVER = "no_driver"
    NO_DEVICE = "no_device"
    NO_LIBRARY = "no_library"
    NO_DATA = "no_data"
    DRIVER_NOT_LOADED = "driver_not_loaded"
    VERSION_MISMATCH = "version_mismatch"
    PERMISSION_DENIED = "permission_denied"
    DEVICE_LOST = "device_lost"
    IO_ERROR = "io_error"
    TIMEOUT = "timeout"
    GARBAGE = "garbage"
    IMPOSSIBLE = "impossible"
    OVERFLOW = "overflow"
    NOT_ASKED = "not_asked"
    ERROR = "error"

    @property
    def is_fault(self) -> bool:
        """Whether something went wrong, as against this machine not having it."""
        return self in _FAULTS


_FAULTS: Final = frozenset(
    {
        Reason.DEVICE_LOST,
        Reason.IO_ERROR,
        Reason.TIMEOUT,
        Reason.GARBAGE,
        Reason.IMPOSSIBLE,
        Reason.OVERFLOW,
        Reason.VERSION_MISMATCH,
        Reason.ERROR,
    }
)

_ERRNO_REASONS: Final = {
    errno.ENOENT: Reason.NOT_FOUND,
    errno.ENOTDIR: Reason.NOT_FOUND,
    errno.EISDIR: Reason.NOT_FOUND,
    errno.ENODEV: Reason.DEVICE_LOST,
    errno.ENXIO: Reason.DEVICE_LOST,
    errno.ESTALE: Reason.DEVICE_LOST,
    errno.EACCES: Reason.PERMISSION_DENIED,
    errno.EPERM: Reason.PERMISSION_DENIED,
    errno.ENODATA: Reason.NO_DATA,
    errno.EAGAIN: Reason.NO_DATA,
    # A link that is down has no speed: net-sysfs answers EINVAL.
    errno.EINVAL: Reason.NO_DATA,
    errno.EOPNOTSUPP: Reason.NOT_SUPPORTED,
    errno.ENOSYS: Reason.NOT_SUPPORTED,
    # dgx_spbm_power answers EBADMSG where the firmware's word is implausible.
    errno.EBADMSG: Reason.IMPOSSIBLE,
    errno.EOVERFLOW: Reason.OVERFLOW,
    errno.ETIMEDOUT: Reason.TIMEOUT,
}


class Unavailable(Exception):  # noqa: N818  (an answer, not an error: "there is none, because …")
    """One thing could not be read; carries the reason."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(detail or reason.value)
        self.reason = reason
        self.detail = detail


class NoData(Unavailable):
    """The machine has nothing at all for this collector to read."""


# Declarations are told apart by identity: each is made once, and a beat looks some hundred of them up.
@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """One part of the document: a single object, or a list of entities.

    ``entity`` is the Prometheus label that names one of many; ``id_key`` is the key that holds that name in
    the document (an int where ``numbered``). A list ``within`` another has entities named ``parent/child``.
    One that is not ``exported`` is no metric: its entities come and go too fast for a label.
    """

    path: str
    help: str
    entity: str = ""
    id_key: str = ""
    metric: str = ""
    numbered: bool = False
    within: "Section | None" = None
    exported: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """A number that this agent may report, in a base unit.

    ``source`` is the kernel path or the NVML call it comes from. ``bounds`` are what is physically possible:
    a value outside is rejected as impossible, never reported. ``inventory`` marks a number that describes the
    machine and not its state, so that a diff shows it.
    """

    section: Section
    key: str
    unit: Unit
    source: str
    help: str
    kind: Kind = Kind.GAUGE
    labels: tuple[str, ...] = ()
    scope: Scope | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)
    inventory: bool = False
    metric: str = ""

    @property
    def is_power(self) -> bool:
        """Whether it is in watts or joules, and so worth nothing without its scope."""
        return self.unit in (Unit.WATT, Unit.JOULE)

    @property
    def name(self) -> str:
        """The metric's name without prefix and ``_total``."""
        return self.metric or f"{self.section.metric}_{self.key}"

    @property
    def document_key(self) -> str:
        """The key in the document; a counter says so."""
        return f"{self.key}_total" if self.kind is Kind.COUNTER else self.key


@dataclass(frozen=True, slots=True, eq=False)
class Property:
    """A fact that is no number to calculate with: a name, a version, a state.

    ``inventory`` is false for one that changes while the machine runs (a link's state, a process list), and
    ``private`` marks one that names an individual machine: a serial number, a MAC, a UUID.
    """

    section: Section
    key: str
    source: str
    help: str
    inventory: bool = True
    private: bool = False

    @property
    def document_key(self) -> str:
        """The key in the document."""
        return self.key


Value = bool | int | str | tuple[str, ...] | tuple[int, ...]
Class = TypeVar("Class")


@dataclass_transform(frozen_default=True)
def immutable(cls: type[Class]) -> type[Class]:
    """Make a dataclass that mypy holds to be frozen.

    At run time it is not: one is made in a third of the time then, and each beat makes some hundred of them.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


@immutable
class Reading:
    """A number that the machine gave for a quantity.

    ``at`` is the machine's clock when it was taken, where that was not at its collector's last visit.
    """

    of: Quantity
    value: float
    entity: str = ""
    labels: tuple[str, ...] = ()
    source: str = ""
    quality: Quality = Quality.MEASURED
    note: str = ""
    at: float | None = None

    def __post_init__(self) -> None:
        # A NaN compares false with every limit, so it would pass each budget.
        if not math.isfinite(self.value):
            raise ValueError(f"{self.of.name}: {self.value} is no reading")
        if len(self.labels) != len(self.of.labels):
            raise ValueError(f"{self.of.name}: labels {self.labels} for {self.of.labels}")

    @property
    def origin(self) -> str:
        """Where exactly the number comes from."""
        return self.source or self.of.source


@immutable
class Fact:
    """What the machine says for a property."""

    of: Property
    value: Value
    entity: str = ""


@immutable
class Absence:
    """A reading or a fact that is not there, and why."""

    of: Quantity | Property
    reason: Reason
    detail: str = ""
    entity: str = ""
    labels: tuple[str, ...] = ()


Item = Reading | Fact | Absence


def reason_of(error: OSError) -> Reason:
    """Return the reason that an operating system error stands for."""
    return _ERRNO_REASONS.get(error.errno or 0, Reason.IO_ERROR)


def errno_name(error: OSError) -> str:
    """Name an error as the C library does: ``ENODATA``."""
    return errno.errorcode.get(error.errno or 0, os.strerror(error.errno or 0))


def absent(of: Quantity | Property, error: Exception, entity: str = "", labels: tuple[str, ...] = ()) -> Absence:
    """Turn what went wrong while reading into an absence."""
    if isinstance(error, Unavailable):
        return Absence(of, error.reason, error.detail, entity, labels)
    if isinstance(error, OSError):
        path = f" {error.filename}" if error.filename else ""
        return Absence(of, reason_of(error), f"{errno_name(error)}{path}", entity, labels)
    if isinstance(error, LookupError):
        return Absence(of, Reason.NO_DATA, f"no {error}", entity, labels)
    return Absence(of, Reason.GARBAGE, str(error)[:120], entity, labels)


def measure(
    of: Quantity,
    read: Callable[[], float],
    entity: str = "",
    labels: tuple[str, ...] = (),
    source: str = "",
    quality: Quality = Quality.MEASURED,
    note: str = "",
) -> Reading | Absence:
    """Read one number; a fault, garbage or a value beyond the quantity's bounds becomes an absence."""
    try:
        value = read()
        low, high = of.bounds
        if not low <= value <= high:
            raise Unavailable(Reason.IMPOSSIBLE, f"{value:g} {of.unit} is outside {low:g}…{high:g}")
        return Reading(of, value, entity, labels, source, quality, note)
    except (Unavailable, OSError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        return absent(of, error, entity, labels)


# No name, version or path of a device comes near this.
_LONGEST_TEXT: Final = 256


def state(of: Property, read: Callable[[], Value], entity: str = "") -> Fact | Absence:
    """Read one fact; a fault, an empty text or one that no terminal should see becomes an absence."""
    try:
        value = read()
        if value == "":
            raise Unavailable(Reason.NO_DATA, "empty")
        if isinstance(value, str) and (not value.isprintable() or "\ufffd" in value or len(value) > _LONGEST_TEXT):
            raise ValueError(f"not a text: {value[:60]!r}")
        return Fact(of, value, entity)
    except (Unavailable, OSError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        return absent(of, error, entity)


Answer = TypeVar("Answer")


def once(question: Callable[[], Answer]) -> Callable[[], Answer]:
    """Ask now; what is returned gives the answer, or fails as the question did, as often as it is called."""
    try:
        answer = question()
    except (Unavailable, OSError, ValueError) as error:
        fault = error

        def fail() -> Answer:
            raise fault

        return fail
    return lambda: answer
