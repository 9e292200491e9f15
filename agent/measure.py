"""What one command drew: looks in a window of time, told per scope, less an idle window, per unit of work. Pure.

The joules are those of `energy.Meter`. A mean is joules over the seconds that they cover; a peak is the highest
reading, and says of which span of time the reading is a mean. What nothing measures has a reason. The system's
interval is an estimate of watts, and never becomes joules.
"""

import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from spark_agent.agent.energy import Energy, Meter, Method
from spark_agent.agent.power import Measured, Power, Unmeasured
from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import Origin, Quality, Reason, Scope, Unit, cpu, gpu, immutable, platform

#: Seconds between two looks. Counters move about every 100 ms, and powers swing in a control loop as long.
INTERVAL_SECONDS: Final = 0.1

#: Seconds below which joules are told as rough: one step of a counter of 100 ms is a tenth of them.
SHORT_SECONDS: Final = 1.0

#: The scopes that have energy, from the outermost in. The others (DLA, VCORE, pre-regulator) are rails without one.
SCOPES: Final[tuple[Scope, ...]] = (
    Scope.DC_INPUT,
    Scope.SYSTEM,
    Scope.SOC,
    Scope.CPU_GPU,
    Scope.CPU_PERFORMANCE,
    Scope.CPU_EFFICIENCY,
    Scope.GPU_RAIL,
    Scope.GPU_NVML,
)
_WHOLE: Final = (Scope.DC_INPUT, Scope.SYSTEM)
_GPU: Final = frozenset({Scope.GPU_RAIL, Scope.GPU_NVML})

# What may be uncovered without a word: a register's last step, of some 100 ms, is not over when the window is.
_SLACK_SECONDS: Final = 0.15
_SLACK_RATIO: Final = 0.01
# An idle machine's GPU runs no kernel, and its cores hardly anything but this agent.
_IDLE_GPU: Final = 0.05
_IDLE_CORES: Final = 1.0

_LONGEST_UNIT: Final = 40

_NOT_ESTIMATED: Final = Unmeasured(Reason.NOT_ASKED, "nobody estimated it")

#: What a reading's window is called where its peak is told.
PEAK_WORDS: Final = {"instant": "an instant", "average": "a 1 s average"}


@immutable
class Interval:
    """What the system may draw where nothing measures it, in watts: an estimate."""

    lower: float
    upper: float
    source: str
    excludes: str = ""


@immutable
class Estimated:
    """The mean of the estimate's two bounds over a window; ``covered_seconds`` of it had one."""

    lower: float
    upper: float
    covered_seconds: float
    source: str
    excludes: str
    age: float


@immutable
class Peak:
    """The highest reading of a scope in a window, of an ``instant`` or an ``average`` of about a second."""

    watts: float
    window: str
    quality: Quality
    source: str
    at: float


@dataclass(frozen=True, slots=True)
class Span:
    """A window of time, in the machine's clock, and what the looks in it saw.

    ``gpu_busy`` is the mean share of time in which the GPU ran a kernel, ``busy_cores`` the mean number of cores at
    work, where they are known.
    """

    began: float
    ended: float
    looks: int
    missed: int
    energies: Mapping[Scope, Energy]
    peaks: Mapping[Scope, Peak]
    absent: Mapping[Scope, Unmeasured]
    estimated: Estimated | Unmeasured
    gpu_busy: float | None
    busy_cores: float | None
    is_spark: bool

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.ended - self.began


class Window:
    """Takes the looks of a window, and keeps no more of them than it will tell."""

    def __init__(self, beat_seconds: float = INTERVAL_SECONDS) -> None:
        """Begin with the first look, which should come right before what is measured."""
        self._meter = Meter()
        self._beat_seconds = beat_seconds
        self._began = math.nan
        self._last: tuple[Snapshot, Power] | None = None
        self._looks = 0
        self._peaks: dict[Scope, Peak] = {}
        self._gpu_busy: list[float] = [0.0, 0.0]  # sum, number
        self._cores: list[tuple[float, float, int]] = []  # seconds busy, when, of how many cores
        self._interval: tuple[float, Interval] | Unmeasured = _NOT_ESTIMATED
        self._told: tuple[float, Interval] | None = None
        self._estimated = [0.0, 0.0, 0.0]  # joules lower and upper, seconds
        self.missed = 0

    def note(self, snapshot: Snapshot, power: Power, interval: Interval | Unmeasured | None = None) -> None:
        """Take one look, with what the system is estimated to draw, or why that is not estimated."""
        if self._last is None:
            self._began = snapshot.at
        self._last = snapshot, power
        self._looks += 1
        self._meter.note(snapshot, power, beat_seconds=self._beat_seconds)
        for scope, known in _highest(power).items():
            at = snapshot.at - known.age
            # One from before the window began is of what ran before.
            if at > self._began and (scope not in self._peaks or known.value > self._peaks[scope].watts):
                self._peaks[scope] = Peak(known.value, known.labels[0], known.quality, known.source, at)
        if busy := [reading.value for reading in snapshot.readings(gpu.UTILIZATION)]:
            self._gpu_busy[0] += max(busy)
            self._gpu_busy[1] += 1
        self._note_cores(snapshot)
        self._note_interval(snapshot.at, interval or _NOT_ESTIMATED)

    def _note_cores(self, snapshot: Snapshot) -> None:
        visit, cores = snapshot.visit("cpu"), snapshot.readings(cpu.BUSY)
        if visit and cores:
            at = visit.at if cores[0].at is None else cores[0].at
            # The first and the last; one between them only for as long as it is the last.
            self._cores[1:] = [(sum(core.value for core in cores), at, len(cores))]

    def _note_interval(self, at: float, now: Interval | Unmeasured) -> None:
        before = self._interval
        if isinstance(now, Unmeasured):
            self._interval = now
            return
        if not isinstance(before, Unmeasured) and (seconds := at - before[0]) > 0:
            self._estimated[0] += (before[1].lower + now.lower) / 2 * seconds
            self._estimated[1] += (before[1].upper + now.upper) / 2 * seconds
            self._estimated[2] += seconds
        self._interval = self._told = at, now

    def span(self) -> Span:
        """Return what the looks until now say."""
        if self._last is None:
            raise ValueError("a window without a look says nothing")
        snapshot, power = self._last
        told = self._meter.energies(of_window=True)
        # A register that did not move says nothing, least of all that nothing was drawn.
        energies = {
            scope: known
            for scope, known in told.items()
            if isinstance(known, Energy) and known.joules > 0 and known.covered_seconds > 0
        }
        seconds = snapshot.at - self._began
        absent = {
            scope: _why_not(power.scopes[scope], told.get(scope), seconds) for scope in SCOPES if scope not in energies
        }
        return Span(
            self._began,
            snapshot.at,
            self._looks,
            self.missed,
            energies,
            # What cannot be believed has no peak either.
            {
                scope: peak
                for scope, peak in self._peaks.items()
                if scope not in absent or absent[scope].reason is not Reason.IMPOSSIBLE
            },
            absent,
            self._estimate(snapshot.at),
            self._gpu_busy[0] / self._gpu_busy[1] if self._gpu_busy[1] else None,
            self._busy_cores(),
            snapshot.fact(platform.IS_SPARK) is True,
        )

    def _estimate(self, at: float) -> Estimated | Unmeasured:
        lower, upper, seconds = self._estimated
        if seconds <= 0 or self._told is None:
            why = self._interval
            return why if isinstance(why, Unmeasured) else Unmeasured(Reason.NO_DATA, "it takes two looks")
        told_at, told = self._told
        return Estimated(lower / seconds, upper / seconds, seconds, told.source, told.excludes, max(0.0, at - told_at))

    def _busy_cores(self) -> float | None:
        if len(self._cores) < 2:
            return None
        (first, began, count), (last, ended, still) = self._cores
        # One core that came or went takes its times with it.
        if count != still or ended <= began or last < first:
            return None
        return (last - first) / (ended - began)


def _highest(power: Power) -> dict[Scope, Measured]:
    """Return each scope's reading of this look that is nearest to an instant; its label says whether it is one."""
    found: dict[Scope, Measured] = {
        scope: _labelled(known, "instant")
        for scope, known in power.scopes.items()
        if isinstance(known, Measured) and scope in SCOPES
    }
    if isinstance(nvml := power.scopes[Scope.GPU_NVML], Measured):
        found[Scope.GPU_NVML] = _nvml(power, nvml)
    return found


def _nvml(power: Power, speaks: Measured) -> Measured:
    instants = [known for known in power.windows if known.labels == ("instant",)]
    averages = [known for known in power.windows if known.labels == ("average",)]
    # Of several GPUs the sum was chosen already, and is of averages.
    if len(instants) == 1 and len(averages) <= 1:
        return instants[0]
    return _labelled(speaks, speaks.labels[0] if speaks.labels else "average")


def _labelled(known: Measured, window: str) -> Measured:
    return Measured(known.value, known.unit, known.scope, known.quality, known.source, known.age, (window,))


def _why_not(power: Measured | Unmeasured, energy: Energy | Unmeasured | None, seconds: float) -> Unmeasured:
    """Return why a scope has no joules."""
    if isinstance(energy, Unmeasured) and energy.reason is not Reason.NO_DATA:
        return energy
    if isinstance(power, Unmeasured) and energy is None:
        return power
    return Unmeasured(Reason.NO_DATA, f"no reading moved in {seconds:.2f} s")


@immutable
class Per:
    """How many units of work the command did, and what they are."""

    count: float
    unit: str


def parse_per(text: str) -> Per:
    """Turn ``1000:tokens`` into what it means, or raise `ValueError`."""
    number, colon, unit = text.partition(":")
    unit = unit.strip()
    if not colon or not unit:
        raise ValueError(f"{text!r} is not NUMBER:UNIT, such as 1000:tokens")
    try:
        count = float(number)
    except ValueError:
        raise ValueError(f"{number!r} is no number; NUMBER:UNIT is such as 1000:tokens") from None
    if not 0 < count < math.inf:
        raise ValueError(f"{number} {unit}: the number must be above 0, and finite")
    if not unit.isprintable() or len(unit) > _LONGEST_UNIT or set("{}") & set(unit):
        raise ValueError(f"{unit[:_LONGEST_UNIT]!r} is no name for a unit")
    return Per(count, unit)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the command ended: its status is an exit code, or less than 0 the signal that killed it."""

    arguments: tuple[str, ...]
    status: int
    seconds: float
    started_at: float

    @property
    def exit_code(self) -> int:
        """The exit code as a shell has it: 128 and the signal's number where one killed it."""
        return 128 - self.status if self.status < 0 else self.status

    @property
    def signal(self) -> str | None:
        """The name of the signal that killed it."""
        if self.status >= 0:
            return None
        try:
            return signal.Signals(-self.status).name
        except ValueError:  # a real-time signal between the first and the last has no name
            return f"signal {-self.status}"


Known = Measured | Unmeasured


@dataclass(frozen=True, slots=True)
class Net:
    """What is left of an account when the idle machine's watts are taken off for the same seconds."""

    idle: Known
    energy: Known
    mean: Known
    each: Known | None
    per_joule: Known | None


@dataclass(frozen=True, slots=True)
class Account:
    """One scope's joules and watts; ``each`` and ``per_joule`` where the units of work are known."""

    scope: Scope
    energy: Known
    method: Method | None
    covered_seconds: float
    uncovered_seconds: float
    resets: int
    mean: Known
    peak: Known
    each: Known | None
    per_joule: Known | None
    net: Net | None

    @property
    def is_known(self) -> bool:
        """Whether anything was measured."""
        return isinstance(self.energy, Measured) or isinstance(self.peak, Measured)


@dataclass(frozen=True, slots=True)
class Measurement:
    """All that is told of one command. ``remarks`` are of the one who looked, not of what was seen."""

    machine: str
    origin: Origin
    note: str
    interval_seconds: float
    outcome: Outcome
    span: Span
    baseline: Span | None
    per: Per | None
    remarks: tuple[str, ...] = ()

    @property
    def accounts(self) -> tuple[Account, ...]:
        """Return the account of each scope, from the outermost in."""
        return tuple(_account(self, scope) for scope in SCOPES)

    @property
    def is_gpu_only(self) -> bool:
        """Whether all that was measured is about the GPU."""
        known = self.span.energies.keys() | self.span.peaks.keys()
        return bool(known) and known <= _GPU

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a reader must know of these numbers, in plain sentences."""
        return tuple(note for make in _NOTES for note in make(self)) + self.remarks


def _account(measurement: Measurement, scope: Scope) -> Account:
    span, per = measurement.span, measurement.per
    energy = span.energies.get(scope)
    peak = _told_peak(span, scope)
    if energy is None:
        why = span.absent[scope]
        net = Net(why, why, why, why if per else None, why if per else None) if measurement.baseline else None
        return Account(scope, why, None, 0.0, span.seconds, 0, why, peak, *_shares(why, per), net)
    joules, mean = _joules(energy), _mean(energy)
    return Account(
        scope,
        joules,
        energy.method,
        energy.covered_seconds,
        _uncovered(span, energy),
        energy.resets,
        mean,
        peak,
        *_shares(_whole(joules, span, energy, measurement.interval_seconds), per),
        _net(measurement, scope, energy, measurement.baseline) if measurement.baseline else None,
    )


def _joules(energy: Energy) -> Measured:
    return Measured(energy.joules, Unit.JOULE, energy.scope, energy.quality, energy.source, energy.age)


def _mean(energy: Energy) -> Measured:
    seconds = energy.covered_seconds
    source = f"{energy.source} over {seconds:.1f} s"
    return Measured(energy.joules / seconds, Unit.WATT, energy.scope, Quality.DERIVED, source, energy.age)


def _told_peak(span: Span, scope: Scope) -> Known:
    if peak := span.peaks.get(scope):
        age = max(0.0, span.ended - peak.at)
        return Measured(peak.watts, Unit.WATT, scope, peak.quality, peak.source, age, (peak.window,))
    return span.absent.get(scope) or Unmeasured(Reason.NO_DATA, "no reading was taken in the window")


def _uncovered(span: Span, energy: Energy) -> float:
    # What the meter does not know of it counts as well: a sensor that came late, or went and did not come back.
    return max(energy.uncovered_seconds, span.seconds - energy.covered_seconds, 0.0)


def _is_whole(span: Span, energy: Energy, interval_seconds: float) -> bool:
    return _uncovered(span, energy) <= interval_seconds + _SLACK_SECONDS + _SLACK_RATIO * span.seconds


def _whole(joules: Measured, span: Span, energy: Energy, interval_seconds: float) -> Known:
    """Return the joules if they are of all the work, and not of a part of it."""
    if _is_whole(span, energy, interval_seconds):
        return joules
    why = f"{_uncovered(span, energy):.1f} of {span.seconds:.1f} s are not covered, so the joules are not of all units"
    return Unmeasured(Reason.NO_DATA, why)


def _shares(joules: Known, per: Per | None) -> tuple[Known | None, Known | None]:
    """Return joules for each unit, and units for each joule."""
    if per is None:
        return None, None
    if isinstance(joules, Unmeasured):
        return joules, joules
    source = f"{joules.source}, for {per.count:g} {per.unit} as told by the user"
    each, per_joule = joules.value / per.count, per.count / joules.value
    if not (0 < each < math.inf and 0 < per_joule < math.inf):
        why = Unmeasured(Reason.IMPOSSIBLE, f"{per.count:g} {per.unit} for {joules.value:g} J")
        return why, why
    return (
        Measured(each, f"J/{{{per.unit}}}", joules.scope, Quality.DERIVED, source, joules.age),
        Measured(per_joule, f"{{{per.unit}}}/J", joules.scope, Quality.DERIVED, source, joules.age),
    )


def _net(measurement: Measurement, scope: Scope, energy: Energy, baseline: Span) -> Net:
    """Take off what the idle machine drew: its mean, for as long as the joules cover."""
    span, per, of_idle = measurement.span, measurement.per, baseline.energies.get(scope)
    if of_idle is None:
        why = baseline.absent[scope]
        return Net(why, why, why, *_shares(why, per))
    idle, mean = _mean(of_idle), _mean(energy)
    watts = mean.value - idle.value
    source = f"{energy.source}, less {idle.value:.2f} W measured in the {baseline.seconds:.1f} s before"
    if watts <= 0:
        told = f"not above idle: {mean.value:.2f} W with the command, {idle.value:.2f} W before it"
        why = Unmeasured(Reason.NO_DATA, told)
        return Net(idle, why, why, *_shares(why, per))
    joules = Measured(watts * energy.covered_seconds, Unit.JOULE, scope, Quality.DERIVED, source, energy.age)
    left = Measured(watts, Unit.WATT, scope, Quality.DERIVED, source, energy.age)
    return Net(idle, joules, left, *_shares(_whole(joules, span, energy, measurement.interval_seconds), per))


# --- what must be known of the numbers --------------------------------------------------------------------------------


def _of_scope(measurement: Measurement) -> Sequence[str]:
    span = measurement.span
    known = span.energies.keys() | span.peaks.keys()
    if not known:
        return ("nothing measures power here",)
    if measurement.is_gpu_only:
        return (
            "this is the GPU alone, not the box: what CPU, memory, network, SSD and losses draw is not in it",
            *(
                ("NVML may read low for the GPU itself: one owner measured it 18–44 % below the GPU's rail under load",)
                if span.is_spark and known == {Scope.GPU_NVML}
                else ()
            ),
        )
    if not known & {*_WHOLE}:
        return ("these are parts, not the box: nothing here measures the whole system",)
    return ()


def _of_length(measurement: Measurement) -> Sequence[str]:
    seconds = measurement.outcome.seconds
    if seconds < SHORT_SECONDS and measurement.span.energies:
        short = f"{seconds:.2f} s is too short to be exact, as counters move about every 100 ms"
        return (f"{short}: let the command do its work many times over",)
    return ()


def _of_cover(measurement: Measurement) -> Sequence[str]:
    span = measurement.span
    gaps: dict[str, list[str]] = {}
    for scope, energy in span.energies.items():
        if not _is_whole(span, energy, measurement.interval_seconds):
            told = f"{_uncovered(span, energy):.1f} of {span.seconds:.1f} s"
            gaps.setdefault(told, []).append(scope.value)
    return [
        f"{told} are not covered ({', '.join(scopes)}): the joules are of the rest, and the true ones are more"
        for told, scopes in gaps.items()
    ]


def _of_resets(measurement: Measurement) -> Sequence[str]:
    return [
        f"the counter of {scope.value} began anew {energy.resets} times, as after a driver reload"
        for scope, energy in measurement.span.energies.items()
        if energy.resets
    ]


def _of_baseline(measurement: Measurement) -> Sequence[str]:
    baseline = measurement.baseline
    if baseline is None:
        return ()
    busy = []
    if baseline.gpu_busy is not None and baseline.gpu_busy > _IDLE_GPU:
        busy.append(f"the GPU was busy {baseline.gpu_busy:.0%} of the time")
    if baseline.busy_cores is not None and baseline.busy_cores > _IDLE_CORES:
        busy.append(f"{baseline.busy_cores:.1f} cores were at work")
    if busy:
        return (f"the baseline is not of an idle machine: {' and '.join(busy)}",)
    return ()


_NOTES: Final[tuple[Callable[[Measurement], Sequence[str]], ...]] = (
    _of_scope,
    _of_length,
    _of_cover,
    _of_resets,
    _of_baseline,
)
