"""The system's power where nothing measures it: an interval, told apart from every measurement.

It has types and names of its own, and no headroom, verdict or energy rests on it. Where the system is measured it is
not told; how far the measured power lies outside of what would have been is its score. ``terms`` says what it is made
of, ``calibration`` how an owner fits it to his box.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from spark_agent.agent.calibration import Calibration, narrowed
from spark_agent.agent.power import Measured, Power, Unmeasured
from spark_agent.agent.snapshot import Snapshot
from spark_agent.agent.terms import EXCLUDED, GPU_MOST, SOURCE, Card, Inputs, Interval, interval
from spark_agent.collectors import (
    Property,
    Quality,
    Quantity,
    Reading,
    Reason,
    Scope,
    Section,
    Unit,
    cpu,
    immutable,
    nic,
    platform,
    spbm,
)
from spark_agent.collectors.cpu import CoreType

ESTIMATE: Final = Section("power.estimate", "System power where nothing measures it.", metric="system_power_estimate")


def _quantity(key: str, help_: str, source: str) -> Quantity:
    metric = f"{ESTIMATE.metric}_{key}_watts"
    return Quantity(ESTIMATE, key, Unit.WATT, source, help_, scope=Scope.SYSTEM, bounds=(0, 240), metric=metric)


_NEVER: Final = "Only where nothing measures it; never a measurement, and no headroom or verdict rests on it."
LOWER: Final = _quantity("lower", f"Least that the system draws, as an estimate. {_NEVER}", SOURCE)
UPPER: Final = _quantity("upper", f"Most that the system draws, as an estimate, without {EXCLUDED}. {_NEVER}", SOURCE)
MISS: Final = _quantity(
    "miss",
    "How far the measured power of the system lies outside the interval that would have been estimated; 0 inside.",
    f"{spbm.SYSTEM.source}; {SOURCE}",
)

#: What the agent derives here; metrics, and their reference, follow from it.
DECLARED: Final = (LOWER, UPPER, MISS)

#: Seconds after which a reading says nothing of now.
_OF_NOW_SECONDS: Final = 5.0
#: Between two readings of the cores' times: less counts too few ticks of 10 ms, more hides what cores do now.
_LEAST_SECONDS: Final = 0.5
_MOST_SECONDS: Final = 30.0
#: Their collector reads them each 5 s; where it does not answer any more, this old they say nothing.
_CORES_SECONDS: Final = 15.0


@immutable
class Score:
    """How far the measured power lies outside the interval, in watts."""

    miss: float
    measured: Measured
    against: Interval


@immutable
class Applied:
    """What became of a calibration: whether it ``holds`` for what was looked at; its readings, or why it does not."""

    holds: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Cores:
    """Times of the cores as they were read last, and what was busy between two readings, if that is known.

    ``first`` is one of the readings, by which they are known again: most beats have those of the beat before.
    """

    first: Reading
    at: float
    times: Mapping[str, tuple[float, float]]
    busy: tuple[float, float] | None
    why_not: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """The interval, or why there is none; the score where the system is measured."""

    system: Interval | Unmeasured
    score: Score | None = None
    calibration: Applied | None = None
    inputs: Inputs | None = None
    cores: Cores | None = None


def readings(known: Estimate) -> Iterator[Reading]:
    """Yield what was estimated, as readings of what is declared here."""
    if isinstance(system := known.system, Interval):
        for of, watts in ((LOWER, system.lower), (UPPER, system.upper)):
            yield Reading(of, watts, source=system.source, quality=Quality.ESTIMATED)
    if score := known.score:
        yield Reading(MISS, score.miss, source=score.measured.source, quality=Quality.DERIVED)


NONE: Final = Estimate(Unmeasured(Reason.NOT_ASKED, "it was left out of this look"))

_NO_GB10: Final = "what a system draws besides its GPU is known of a GB10 only, and this is none"
_MEASURED: Final = "the system is measured, see power.scopes; the estimate is only held against that"


def estimate(
    snapshot: Snapshot, power: Power, before: Estimate | None = None, calibration: Calibration | None = None
) -> Estimate:
    """Return what the system may draw; busy cores take the look ``before``."""
    is_spark = snapshot.fact(platform.IS_SPARK)
    if is_spark is None:
        return Estimate(Unmeasured(Reason.NOT_ASKED, "whether this is a GB10 was left out of this look"))
    if not is_spark:
        return Estimate(Unmeasured(Reason.NOT_SUPPORTED, _NO_GB10))
    cores = _cores(snapshot, before.cores if before else None)
    looked = _look(snapshot, power, cores)
    inputs = looked.inputs
    if inputs.gpu is None and inputs.performance is None:
        why = f"neither the GPU's power nor busy cores are known: {'; '.join(looked.unknown)}"
        return Estimate(Unmeasured(Reason.NO_DATA, why), inputs=inputs, cores=cores)
    found = interval(inputs, looked.age, looked.unknown)
    applied = None
    if calibration:
        found, applied = _calibrated(snapshot, found, inputs, calibration)
    measured = power.scopes[Scope.SYSTEM]
    if isinstance(measured, Unmeasured):
        return Estimate(found, None, applied, inputs, cores)
    score = None
    if measured.age <= _OF_NOW_SECONDS:
        score = Score(round(found.miss(measured.value), 3), measured, found)
    return Estimate(Unmeasured(Reason.NOT_ASKED, _MEASURED), score, applied, inputs, cores)


def _calibrated(
    snapshot: Snapshot, plain: Interval, inputs: Inputs, calibration: Calibration
) -> tuple[Interval, Applied]:
    if why := calibration.why_not(snapshot):
        return plain, Applied(False, f"{why}; read idle and load anew")
    if inputs.gpu is None:
        return plain, Applied(False, "it takes the GPU's power")
    found = narrowed(plain, inputs, calibration.fit, calibration.told)
    if found is None:
        return plain, Applied(False, "its readings contradict what is seen now; read idle and load anew")
    return found, Applied(True, calibration.told)


@dataclass(frozen=True, slots=True)
class _Looked:
    inputs: Inputs
    age: float
    unknown: tuple[str, ...]


def _look(snapshot: Snapshot, power: Power, cores: Cores | None) -> _Looked:
    """Return what the estimate rests on, the age of the oldest of it, and what is not known."""
    unknown: list[str] = []
    ages = [0.0]
    watts, why = _gpu(power)
    if watts is None:
        unknown.append(f"GPU power ({why})")
    else:
        ages.append(watts.age)
    busy = cores.busy if cores and snapshot.at - cores.at <= _CORES_SECONDS else None
    if cores and busy:
        ages.append(max(0.0, snapshot.at - cores.at))
    else:
        unknown.append(f"busy cores ({_why_no_cores(snapshot, cores)})")
    card = _card(snapshot)
    visit = snapshot.visit("nic")
    if card is None:
        unknown.append(f"ConnectX-7 ({_why(snapshot, nic.STATE, 'nic')})")
    elif visit:
        ages.append(max(0.0, snapshot.at - visit.at))
    performance, efficiency = busy or (None, None)
    inputs = Inputs(watts.value if watts else None, performance, efficiency, card, _ethernet(snapshot))
    return _Looked(inputs, max(ages), tuple(unknown))


def _gpu(power: Power) -> tuple[Measured | None, str]:
    known = power.scopes[Scope.GPU_NVML]
    if isinstance(known, Unmeasured):
        return None, known.detail or known.reason
    if known.quality is not Quality.MEASURED:
        return None, f"{known.source} is not the GB10's alone"
    if known.value > GPU_MOST:
        return None, f"NVML gives {known.value:.1f} W, more than the SoC can draw"
    if known.age > _OF_NOW_SECONDS:
        return None, f"NVML last gave it {known.age:.0f} s ago"
    return known, ""


def _card(snapshot: Snapshot) -> Card | None:
    state = snapshot.fact(nic.STATE)
    if not isinstance(state, str):
        return None
    if state in ("asleep", "missing"):
        return Card(state)
    up = snapshot.reading(nic.CAGES_UP)
    if up is None:
        return None
    # A cable may be in where the far end gives no link.
    is_cabled = snapshot.fact(nic.HOTPLUG_DEBUG_STATE) == 1
    return Card("awake", max(int(up.value), int(is_cabled)))


def _ethernet(snapshot: Snapshot) -> bool | None:
    wired = {fact.entity for fact in snapshot.facts(nic.KIND) if fact.value == "ethernet"}
    if not wired:
        return None
    return any(fact.entity in wired and fact.value != "down" for fact in snapshot.facts(nic.LINK))


def _why(snapshot: Snapshot, of: Property, collector: str) -> str:
    if absence := snapshot.absence(of):
        return absence.detail or absence.reason
    visit = snapshot.visit(collector)
    if visit is None:
        return f"{collector} was left out of this look"
    return visit.detail or visit.reason or "it was not found"


# Busy cores: how many of each kind, between two readings of /proc/stat.


def _cores(snapshot: Snapshot, before: Cores | None) -> Cores | None:
    readings = snapshot.readings(cpu.BUSY)
    if not readings:
        return None
    first = readings[0]
    if before and first is before.first:
        return before
    at = snapshot.time_of(first, "cpu")
    idle = {reading.entity: reading.value for reading in snapshot.readings(cpu.IDLE)}
    times = {one.entity: (one.value, idle[one.entity]) for one in readings if one.entity in idle}
    if before is None:
        return Cores(first, at, times, None, "it takes two looks to tell")
    seconds = at - before.at
    if 0 <= seconds < _LEAST_SECONDS:
        # Counted from the reading before, once there is enough of it.
        return before
    if not 0 < seconds <= _MOST_SECONDS:
        return Cores(first, at, times, None, f"the last two looks at them are {seconds:.0f} s apart")
    busy = busy_cores(_kinds(snapshot), before.times, times)
    return Cores(first, at, times, busy, "" if busy else "their times do not add up")


def _kinds(snapshot: Snapshot) -> Mapping[str, str]:
    return {fact.entity: str(fact.value) for fact in snapshot.facts(cpu.CORE_TYPE)}


def busy_cores(
    kinds: Mapping[str, str],
    before: Mapping[str, tuple[float, float]],
    now: Mapping[str, tuple[float, float]],
) -> tuple[float, float] | None:
    """Return how many cores were busy: of the performance kind, in it those of no known kind, and of the other."""
    if before.keys() != now.keys():
        return None
    performance = efficiency = 0.0
    for core, (busy, idle) in now.items():
        busy_before, idle_before = before[core]
        worked, rested = busy - busy_before, idle - idle_before
        if worked < 0 or rested < 0 or worked + rested <= 0:
            return None
        if kinds.get(core) == CoreType.EFFICIENCY:
            efficiency += worked / (worked + rested)
        else:
            performance += worked / (worked + rested)
    return performance, efficiency


def _why_no_cores(snapshot: Snapshot, cores: Cores | None) -> str:
    if cores is None:
        return _why_of_times(snapshot)
    return cores.why_not or "they were read too long ago"


def _why_of_times(snapshot: Snapshot) -> str:
    if absences := snapshot.absences(cpu.BUSY):
        return absences[0].detail or absences[0].reason
    visit = snapshot.visit("cpu")
    if visit is None:
        return "cpu was left out of this look"
    return visit.detail or visit.reason or "not found"
