"""Which reading speaks for which scope: a number with scope, quality, source and age, or the reason for none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import Absence, Quality, Quantity, Reading, Reason, Scope, gpu, spbm
from spark_agent.collectors._untrusted import SIGNAL


@dataclass(frozen=True, slots=True)
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

# A part and a whole that holds it.
_CONTAINMENT: Final = (
    (Scope.SYSTEM, Scope.DC_INPUT),
    (Scope.SOC, Scope.SYSTEM),
    (Scope.CPU_GPU, Scope.SOC),
    (Scope.GPU_RAIL, Scope.CPU_GPU),
    (Scope.GPU_RAIL, Scope.SOC),
    (Scope.CPU_PERFORMANCE, Scope.CPU_GPU),
    (Scope.CPU_EFFICIENCY, Scope.CPU_GPU),
    (Scope.DLA, Scope.SOC),
)


def understand(snapshot: Snapshot) -> Power:
    """Choose for each scope the reading that speaks for it; a part above its whole speaks for nothing."""
    scopes: dict[Scope, Measured | Unmeasured] = {scope: _firmware(snapshot, of) for scope, of in _FIRMWARE.items()} | {
        Scope.GPU_NVML: _nvml(snapshot)
    }
    for part, whole in _CONTAINMENT:
        inner, outer = scopes[part], scopes[whole]
        if isinstance(inner, Measured) and isinstance(outer, Measured) and inner.value > _at_most(outer.value):
            why = f"{part} {inner.value:.1f} W is more than {whole} {outer.value:.1f} W, which holds it"
            scopes[part] = scopes[whole] = Unmeasured(Reason.IMPOSSIBLE, why)
    order = {scope: scopes[scope] for scope in Scope}
    return Power(
        order,
        tuple(_measured(snapshot, reading, "gpu") for reading in snapshot.readings(gpu.POWER)),
        {
            reading.labels[0]: _measured(snapshot, reading, "spbm")
            for of in (spbm.SOC_AVERAGE, spbm.SYSTEM_AVERAGE)
            for reading in snapshot.readings(of)
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
        tuple(snapshot.readings(SIGNAL)),
    )


def _at_most(watts: float) -> float:
    # Channels are not read in one instant, and swing with a control loop of about 100 ms.
    return max(watts * 1.1, watts + 2.0)


def _firmware(snapshot: Snapshot, of: Quantity) -> Measured | Unmeasured:
    if readings := snapshot.readings(of):
        return _measured(snapshot, readings[0], "spbm")
    return _unmeasured(snapshot, of, "spbm", "the driver has no such channel")


def _nvml(snapshot: Snapshot) -> Measured | Unmeasured:
    """Return GPU power as nvidia-smi shows it; of several GPUs, their sum."""
    for window in ("average", "instant"):
        readings = [reading for reading in snapshot.readings(gpu.POWER) if reading.labels == (window,)]
        if len(readings) == 1:
            return _measured(snapshot, readings[0], "gpu")
        if readings:
            known = _measured(snapshot, readings[0], "gpu")
            total = sum(reading.value for reading in readings)
            source = f"{known.source}, sum of {len(readings)} GPUs"
            return Measured(total, known.unit, known.scope, Quality.DERIVED, source, known.age, (window,))
    return _unmeasured(snapshot, gpu.POWER, "gpu", "NVML gives no power for this GPU")


def _measured(snapshot: Snapshot, reading: Reading, collector: str) -> Measured:
    visit = snapshot.visit(collector)
    assert visit is not None  # noqa: S101  (the reading came from it)
    assert reading.of.scope is not None  # noqa: S101  (a power or an energy has a scope)
    age = max(0.0, snapshot.at - visit.at)
    return Measured(
        reading.value, reading.of.unit, reading.of.scope, reading.quality, reading.origin, age, reading.labels
    )


def _unmeasured(snapshot: Snapshot, of: Quantity, collector: str, otherwise: str) -> Unmeasured:
    absence = next((item for item in snapshot.items() if isinstance(item, Absence) and item.of is of), None)
    if absence:
        return Unmeasured(absence.reason, absence.detail)
    visit = snapshot.visit(collector)
    if visit is None:
        return Unmeasured(Reason.NOT_ASKED, f"the collector {collector} was left out")
    if visit.reason:
        return Unmeasured(visit.reason, visit.detail)
    return Unmeasured(Reason.NOT_SUPPORTED, otherwise)
