"""A machine held at low power: the GPU under load at a fraction of its clock, though nothing says why.

Owners of stuck machines found the GPU at 94 to 99 % with 8 to 20 W and 495 to 850 MHz, in P0 and cool, with no
clock-event reason; healthy ones run at 2150 to 2418 MHz. A reboot does not help; taking the adapter off does. Where
the firmware's limits can be read, they have collapsed or are not published, which is certain (`budget`). Elsewhere
load, clock and power make it probable, and too little load tells nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from spark_agent.agent.budget import Budget, Standing, Verdict
from spark_agent.agent.finding import Finding, Kind, Severity
from spark_agent.agent.power import Measured, Power
from spark_agent.agent.snapshot import Snapshot
from spark_agent.agent.watch import FRESH_SECONDS, Spell, Watch
from spark_agent.collectors import Scope, cpu, gpu, immutable, platform

#: What mends it, as far as anything is known to.
DRAIN: Final = (
    "shut down, take the power adapter and every USB-C device off for 1 to 10 minutes, then connect the adapter that "
    "came with the machine; a reboot alone does not help"
)
UNLOCK: Final = "if somebody locked the GPU's clocks, `sudo nvidia-smi -rgc` ends that; if nobody did: "

# Several tools for the Spark agree on these: the GPU is loaded, and yet below what any healthy one ran at.
LOADED: Final = 0.90
LOW_HERTZ: Final = 1400e6
LOW_WATTS: Final = 40.0
#: Seconds of load that make it probable: those tools ask for 30 to 60.
LOW_SECONDS: Final = 30.0
#: Seconds in which there may be too little load to tell, before the count begins anew; once it is told, more.
PAUSE_SECONDS: Final = 10.0
TOLD_PAUSE_SECONDS: Final = 600.0

#: Lower still, and for so long that it is a verdict.
STARVED_HERTZ: Final = 800e6
STARVED_WATTS: Final = 25.0
STARVED_SECONDS: Final = 600.0

#: Above every clock that was seen on a stuck machine (495 to 850 MHz). One that stands still up here to the last
#: megahertz is rather one that somebody locked (nvidia-smi -lgc), of which NVML need not say anything.
SEEN_STUCK_HERTZ: Final = 1000e6

#: One owner saw only the performance cores limited: the package pinned at 19.5 to 21.5 W, cured by taking it off the
#: power. All ten of them busy draw 64 W (one owner), so that four alone would be beyond this; the margin is ours.
CPU_WATTS: Final = (19.0, 22.0)
CPU_BUSY: Final = 4.0
CPU_SECONDS: Final = 30.0

STUCK: Final = Kind("stuck_low_power")
CPU_HELD: Final = Kind("cpu_held_low")

_LOW: Final = "GPU at low power"
_STARVED: Final = "GPU at very low power"
_LOAD: Final = "GPU under load"
_CPU: Final = "CPU at low power"


@immutable
class Gpu:
    """What a GB10 does now: share of time busy, SM clock in hertz, NVML's watts, and why its clock is held down.

    ``reasons`` are those that NVML shows; None where it shows nothing at all.
    """

    busy: float
    clock: float
    watts: float
    pstate: str
    reasons: tuple[str, ...] | None

    @property
    def is_loaded(self) -> bool:
        """Whether its clock means something. A GB10 is in P8 when nothing holds a context on it."""
        return self.busy >= LOADED and self.pstate != "P8"


def gpu_now(snapshot: Snapshot, power: Power) -> Gpu | None:
    """Return what a Spark's GPU does, if all of it was read just now."""
    visit = snapshot.visit("gpu")
    if visit is None or snapshot.at - visit.at > FRESH_SECONDS or not snapshot.fact(platform.IS_SPARK):
        return None
    busy, clock = snapshot.reading(gpu.UTILIZATION), snapshot.reading(gpu.CLOCK, "sm")
    watts = power.watts(Scope.GPU_NVML)
    if busy is None or clock is None or watts is None:
        return None
    shown = snapshot.fact(gpu.EVENTS)
    reasons = tuple(str(one) for one in shown if one != "gpu_idle") if isinstance(shown, tuple) else None
    return Gpu(busy.value, clock.value, watts, str(snapshot.fact(gpu.PSTATE)), reasons)


def loaded_seconds(watch: Watch) -> float:
    """Return for how many seconds of the watch the GPU was seen under load."""
    spell = watch.spells.get(_LOAD)
    return spell.seconds if spell else 0.0


def low_seconds(watch: Watch) -> float | None:
    """Return for how many seconds of load the GPU has been low; None where it is not, or cannot be told."""
    spell = watch.spells.get(_LOW)
    return spell.seconds if spell else None


def busy_cores(watch: Watch) -> float | None:
    """Return how many performance cores' worth of time was busy of late, as far as that was of interest."""
    rate = watch.rates.get(_CPU)
    return rate.per_second if rate else None


def is_starved(watch: Watch) -> bool:
    """Whether the GPU has been so low for so long that it is a verdict."""
    spell = watch.spells.get(_STARVED)
    return spell is not None and spell.seconds >= STARVED_SECONDS


def judge_clocks(snapshot: Snapshot, power: Power, budget: Budget, watch: Watch) -> Budget:
    """Follow the GPU's clock under load; where it has starved for long enough, that is the verdict on it."""
    now = gpu_now(snapshot, power)
    loaded = now is not None and now.is_loaded
    watch.spell(_LOAD, loaded or None, patience=math.inf)
    low = starved = None
    clock = 0.0
    if now and loaded:
        clock = now.clock
        # At the package's limit the CPU may have taken what the GPU would need; and a reason shown is one.
        is_explained = budget.verdicts["soc"].standing is Standing.AT_LIMIT
        low = now.clock < LOW_HERTZ and now.watts < LOW_WATTS and not now.reasons and not is_explained
        is_set = now.reasons is not None and "applications_clocks_setting" in now.reasons
        starved = now.clock < STARVED_HERTZ and now.watts < STARVED_WATTS and not is_set and not is_explained
    is_told = watch.before(STUCK.id) is not None and watch.watching
    watch.spell(_LOW, low, clock, TOLD_PAUSE_SECONDS if is_told else PAUSE_SECONDS)
    was = watch.ago(_STARVED)
    is_long = was is not None and was.seconds >= STARVED_SECONDS
    spell = watch.spell(_STARVED, starved, clock, TOLD_PAUSE_SECONDS if is_long else PAUSE_SECONDS)
    verdict = budget.verdicts["gpu"]
    if spell is None or spell.seconds < STARVED_SECONDS or verdict.standing not in _COMPARED:
        return budget
    evidence = (*_evidence(spell, now, watch.at), *_limits(budget), *verdict.evidence)
    reason = f"under load below {STARVED_HERTZ / 1e6:.0f} MHz and {STARVED_WATTS:.0f} W for {_minutes(spell.seconds)}"
    held = Verdict(Standing.CAPPED_LOW, reason, evidence, conclusive=not _is_pinned(spell))
    return replace(budget, verdicts={**budget.verdicts, "gpu": held})


# Those after `capped_low` and `limits_unpublished` in the order of verdicts.
_COMPARED: Final = (Standing.OVER_BUDGET, Standing.AT_LIMIT, Standing.NEAR_LIMIT, Standing.WITHIN)


def findings(snapshot: Snapshot, power: Power, budget: Budget, watch: Watch) -> Iterator[Finding]:
    """Yield what is probable; what is certain, the verdicts say."""
    standings = {verdict.standing for verdict in budget.verdicts.values()}
    if standings & {Standing.CAPPED_LOW, Standing.LIMITS_UNPUBLISHED}:
        return
    if spell := watch.spells.get(_LOW):
        yield from _stuck(spell, gpu_now(snapshot, power), budget, watch)
    yield from _cpu(snapshot, power, watch)


def _stuck(spell: Spell, now: Gpu | None, budget: Budget, watch: Watch) -> Iterator[Finding]:
    if not watch.watching:
        title = "the GPU may be stuck at low power; `spark-agent doctor --for 60` decides"
        yield STUCK.found(
            Severity.INFO, title, _evidence(spell, now, watch.at), "let it work for a minute, and look for as long"
        )
    elif spell.seconds >= LOW_SECONDS:
        evidence = (*_evidence(spell, now, watch.at), *_limits(budget))
        if _is_pinned(spell) and spell.high > SEEN_STUCK_HERTZ:
            title = f"the GPU's clock stands still at {spell.high / 1e6:.0f} MHz under load: locked, or stuck"
            yield STUCK.found(Severity.INFO, title, evidence, UNLOCK + DRAIN)
        else:
            action = UNLOCK + DRAIN if _is_pinned(spell) else DRAIN
            yield STUCK.found(Severity.WARNING, "the GPU is probably stuck at low power", evidence, action)


def _is_pinned(spell: Spell) -> bool:
    return spell.low == spell.high


def _evidence(spell: Spell, now: Gpu | None, at: float) -> Iterator[str]:
    low, high = spell.low / 1e6, spell.high / 1e6
    clocks = f"{low:.0f} MHz" if _is_pinned(spell) else f"{low:.0f} to {high:.0f} MHz"
    if spell.seconds:
        yield f"{_minutes(spell.seconds)} of load at an SM clock of {clocks}; a healthy GB10 has 2150 to 2418 MHz"
    else:
        yield f"SM clock {clocks} under load; a healthy GB10 has 2150 to 2418 MHz"
    if now and now.is_loaded:
        yield f"now {now.busy:.0%} busy with {now.watts:.1f} W (nvml nvmlDeviceGetPowerUsage), {now.pstate}"
        if now.reasons is None:
            yield "NVML shows no clock-event reasons here at all"
        else:
            yield f"NVML's reason for the clock: {', '.join(now.reasons) or 'none'}"
    if spell.is_paused:
        yield f"seen last {at - spell.last:.0f} s ago; since then there has been too little load to tell"
    if spell.seconds and _is_pinned(spell):
        yield "the clock has not moved by a megahertz, which a lock (nvidia-smi -lgc) would look like as well"


def _limits(budget: Budget) -> Iterator[str]:
    for limit in budget.limits:
        if limit.name == "pl1":
            yield f"{limit.title} is {limit.watts:g} W, so it is not the collapse of limits that others saw"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _cpu(snapshot: Snapshot, power: Power, watch: Watch) -> Iterator[Finding]:
    soc = power.scopes[Scope.SOC]
    if not isinstance(soc, Measured) or soc.age > FRESH_SECONDS or not snapshot.fact(platform.IS_SPARK):
        return
    busy = _busy_cores(snapshot, watch)
    low, high = CPU_WATTS
    holds = None if busy is None else busy >= CPU_BUSY and low <= soc.value <= high
    spell = watch.spell(_CPU, holds, soc.value, PAUSE_SECONDS)
    if spell and spell.seconds >= CPU_SECONDS and busy is not None:
        yield CPU_HELD.found(
            Severity.WARNING,
            "the performance cores are probably held at low power",
            (
                f"the SoC drew {spell.low:.1f} to {spell.high:.1f} W for {_minutes(spell.seconds)} ({soc.source})",
                f"{busy:.1f} performance cores are busy; all ten draw some 64 W alone",
                "one owner saw this: cores at 3.0 to 3.5 GHz, while cpufreq went on reporting 3.9",
            ),
            DRAIN,
        )


def _busy_cores(snapshot: Snapshot, watch: Watch) -> float | None:
    """Return how many performance cores' worth of time was busy of late."""
    fast = {fact.entity for fact in snapshot.facts(cpu.CORE_TYPE) if fact.value == cpu.CoreType.PERFORMANCE}
    readings = [reading for reading in snapshot.readings(cpu.BUSY) if reading.entity in fast]
    if not readings:
        return None
    return watch.rate(_CPU, snapshot.time_of(readings[0], "cpu"), sum(reading.value for reading in readings))
