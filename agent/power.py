"""Which reading speaks for which scope: a number with scope, quality, source and age, or the reason for none."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import Quality, Quantity, Reading, Reason, Scope, gpu, immutable, spbm


@immutable
class Measured:
    """A power or an energy that may leave the agent: it says what it covers, how it is known, and how old it is."""

    value: float
    unit: str
    scope: Scope
    quality: Quality
    source: str
    age: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Why there is no number for a scope."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Power:
    """All that is known of the machine's power in one look."""

    scopes: Mapping[Scope, Measured | Unmeasured]
    windows: tuple[Measured, ...]
    averages: Mapping[str, Measured]
    registers: tuple[Measured, ...]
    untrusted: tuple[Reading, ...]

    def watts(self, scope: Scope) -> float | None:
        """Return what was measured for a scope, in watts, if anything was."""
        known = self.scopes[scope]
        return known.value if isinstance(known, Measured) else None

    @property
    def is_gpu_only(self) -> bool:
        """Whether the only power known of this machine is what NVML says about its GPU."""
        return {scope for scope, known in self.scopes.items() if isinstance(known, Measured)} == {Scope.GPU_NVML}


_FIRMWARE: Final[Mapping[Scope, Quantity]] = {
    of.scope: of
    for of in (
        spbm.DC_INPUT,
        spbm.SYSTEM,
        spbm.SOC,
        spbm.CPU_GPU,
        spbm.CPU_PERFORMANCE,
        spbm.CPU_EFFICIENCY,
        spbm.GPU_RAIL,
        spbm.DLA,
        spbm.VCORE,
        spbm.PREREGULATOR,
    )
    if of.scope is not None
}

# Each part and the whole that holds it next. NVML's reading is about the GPU, and has no place in the tree.
_WHOLES: Final = {
    Scope.SYSTEM: Scope.DC_INPUT,
    Scope.SOC: Scope.SYSTEM,
    Scope.CPU_GPU: Scope.SOC,
    Scope.DLA: Scope.SOC,
    Scope.VCORE: Scope.SOC,
    Scope.CPU_PERFORMANCE: Scope.CPU_GPU,
    Scope.CPU_EFFICIENCY: Scope.CPU_GPU,
    Scope.GPU_RAIL: Scope.CPU_GPU,
}

# What draws power as long as this agent runs; the GPU does as long as it works.
_NEVER_OFF: Final = (Scope.DC_INPUT, Scope.SYSTEM, Scope.SOC, Scope.CPU_GPU)
_GPU: Final = (Scope.GPU_RAIL, Scope.GPU_NVML)


def understand(snapshot: Snapshot) -> Power:
    """Choose for each scope the reading that speaks for it; one that cannot be speaks for nothing."""
    scopes = {scope: _firmware(snapshot, of) for scope, of in _FIRMWARE.items()} | {Scope.GPU_NVML: _nvml(snapshot)}
    gpu_works = _gpu_works(snapshot)
    scopes |= _dead(scopes, (*_NEVER_OFF, *_GPU) if gpu_works else _NEVER_OFF)
    scopes |= _contradictory(scopes)
    return Power(
        {scope: scopes[scope] for scope in Scope},
        tuple(
            _measured(snapshot, reading, "gpu")
            for reading in snapshot.readings(gpu.POWER)
            if reading.value or not gpu_works
        ),
        {
            reading.labels[0]: _measured(snapshot, reading, "spbm")
            for of in (spbm.SOC_AVERAGE, spbm.SYSTEM_AVERAGE)
            for reading in snapshot.readings(of)
            if reading.value
        },
        tuple(
            _measured(snapshot, reading, "spbm")
            for of in (
                spbm.SOC_REGISTER,
                spbm.CPU_PERFORMANCE_REGISTER,
                spbm.CPU_EFFICIENCY_REGISTER,
                spbm.GPU_REGISTER,
            )
            for reading in snapshot.readings(of)
        )
        + tuple(_measured(snapshot, reading, "gpu") for reading in snapshot.readings(gpu.ENERGY)),
        tuple(reading for visit in snapshot.visits for reading in visit.untrusted),
    )


def without(power: Power, impossible: Mapping[Scope, str]) -> Power:
    """Return power without the numbers of scopes that cannot be believed, for these reasons."""
    doubted = {
        scope: Unmeasured(Reason.IMPOSSIBLE, why)
        for scope, why in impossible.items()
        if isinstance(power.scopes[scope], Measured)
    }
    if not doubted:
        return power
    windows = () if Scope.GPU_NVML in doubted else power.windows
    return replace(power, scopes={**power.scopes, **doubted}, windows=windows)


_Scopes = Mapping[Scope, Measured | Unmeasured]


def _dead(scopes: _Scopes, live: Iterable[Scope]) -> dict[Scope, Measured | Unmeasured]:
    """Return why there is no number for what reads 0 W though it is on."""
    return {
        scope: Unmeasured(Reason.IMPOSSIBLE, f"{known.source} reads 0 W, but is on")
        for scope in live
        if isinstance(known := scopes[scope], Measured) and known.value == 0
    }


def _gpu_works(snapshot: Snapshot) -> bool:
    # A GB10 is in P0 as soon as a process holds a context on it.
    return any(reading.value > 0 for reading in snapshot.readings(gpu.UTILIZATION)) or any(
        fact.value == "P0" for fact in snapshot.facts(gpu.PSTATE)
    )


def _contradictory(scopes: _Scopes) -> dict[Scope, Measured | Unmeasured]:
    """Return why there is no number for a part that reads more than the whole that holds it, nor for that whole."""
    found: dict[Scope, Measured | Unmeasured] = {}
    for part, whole in _WHOLES.items():
        # Only the next whole that is known: one wrong part must not cost the numbers of the whole machine.
        while whole in _WHOLES and isinstance(scopes[whole], Unmeasured):
            whole = _WHOLES[whole]
        inner, outer = scopes[part], scopes[whole]
        if isinstance(inner, Measured) and isinstance(outer, Measured) and inner.value > at_most(outer.value):
            why = (
                f"{inner.source} reads {inner.value:.1f} W, more than {outer.source} with {outer.value:.1f} W, "
                "of which it is a part"
            )
            found[part] = found[whole] = Unmeasured(Reason.IMPOSSIBLE, why)
    return found


def at_most(watts: float) -> float:
    """Return what the parts of a whole that draws so much may read, in watts."""
    # Channels are not read in one instant, and swing with a control loop of about 100 ms.
    return max(watts * 1.1, watts + 2.0)


def _firmware(snapshot: Snapshot, of: Quantity) -> Measured | Unmeasured:
    if readings := snapshot.readings(of):
        return _measured(snapshot, readings[0], "spbm")
    return _unmeasured(snapshot, of, "spbm", "the driver has no such channel")


def _nvml(snapshot: Snapshot) -> Measured | Unmeasured:
    """Return GPU power as nvidia-smi shows it; of several GPUs their sum, if every one is known."""
    for window in ("average", "instant"):
        readings = [reading for reading in snapshot.readings(gpu.POWER) if reading.labels == (window,)]
        if not readings or snapshot.absence(gpu.POWER, window):
            continue
        known = _measured(snapshot, readings[0], "gpu")
        if len(readings) == 1:
            return known
        total = sum(reading.value for reading in readings)
        source = f"{known.source}, sum of {len(readings)} GPUs"
        return replace(known, value=total, quality=Quality.DERIVED, source=source)
    return _unmeasured(snapshot, gpu.POWER, "gpu", "NVML gives no power for this GPU")


def _measured(snapshot: Snapshot, reading: Reading, collector: str) -> Measured:
    assert reading.of.scope is not None  # noqa: S101  (a power or an energy has a scope)
    age = max(0.0, snapshot.at - snapshot.time_of(reading, collector))
    return Measured(
        reading.value, reading.of.unit, reading.of.scope, reading.quality, reading.origin, age, reading.labels
    )


def _unmeasured(snapshot: Snapshot, of: Quantity, collector: str, otherwise: str) -> Unmeasured:
    if absences := snapshot.absences(of):
        return Unmeasured(absences[0].reason, absences[0].detail)
    visit = snapshot.visit(collector)
    if visit is None:
        return Unmeasured(Reason.NOT_ASKED, f"the collector {collector} was left out")
    if visit.reason:
        return Unmeasured(visit.reason, visit.detail)
    return Unmeasured(Reason.NOT_SUPPORTED, otherwise)
