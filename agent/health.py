"""Findings: what a person should know about this machine, in plain words, with evidence and what to do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from spark_agent.agent.budget import Budget, Standing, Verdict
from spark_agent.agent.power import Measured, Power
from spark_agent.agent.snapshot import Snapshot, Status
from spark_agent.agent.specification import compare
from spark_agent.collectors import Scope, memory, platform


class Severity(StrEnum):
    """How much a finding matters; what monitoring plugins call their states."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> int:
        """The exit code of a monitoring plugin in this state."""
        return {Severity.WARNING: 1, Severity.CRITICAL: 2, Severity.UNKNOWN: 3}.get(self, 0)


#: Worst first: a fault that is known weighs more than one that may be.
WORST_FIRST: Final = (Severity.CRITICAL, Severity.WARNING, Severity.UNKNOWN, Severity.INFO, Severity.OK)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth knowing."""

    id: str
    severity: Severity
    title: str
    evidence: tuple[str, ...] = ()
    action: str = ""


def findings(snapshot: Snapshot, power: Power, budget: Budget) -> tuple[Finding, ...]:
    """Return every finding of one look, worst first."""
    found = [
        *_power(snapshot, power, budget),
        *_memory(snapshot),
        *_collectors(snapshot),
        *_specification(snapshot),
    ]
    return tuple(sorted(found, key=lambda finding: WORST_FIRST.index(finding.severity)))


def exit_code(found: tuple[Finding, ...]) -> int:
    """Return the exit code of the worst finding."""
    return found[0].severity.exit_code if found else 0


#: What would measure the box, said wherever it is not measured.
HOW_TO_MEASURE: Final = (
    "a driver for the firmware's power page (hwmon spbm or dgx_spbm_power, out of tree) measures system and SoC; "
    "a wall meter measures the box"
)

_DRAIN: Final = (
    "shut down, take the power adapter and every USB-C device off for 1 to 10 minutes, then connect the adapter that "
    "came with the machine; a reboot alone does not help"
)

_STANDINGS: Final = {
    Standing.CAPPED_LOW: (Severity.CRITICAL, "held at a fraction of its power", _DRAIN),
    Standing.LIMITS_UNPUBLISHED: (
        Severity.CRITICAL,
        "the power limits in force cannot be read",
        "if the machine is slow as well: " + _DRAIN,
    ),
    Standing.OVER_BUDGET: (
        Severity.CRITICAL,
        "above its power budget",
        "unplug what USB-C feeds, and check that the adapter is the 240 W one",
    ),
    Standing.IMPOSSIBLE: (
        Severity.WARNING,
        "power readings contradict each other or physics",
        "do not rely on this source; update the firmware or the driver that reads it",
    ),
    Standing.ERROR: (Severity.UNKNOWN, "power cannot be read", "see the evidence; the reading comes back by itself"),
    Standing.STALE: (Severity.UNKNOWN, "power readings are old", "see whether the agent still runs"),
}


def _power(snapshot: Snapshot, power: Power, budget: Budget) -> Iterator[Finding]:
    is_spark = snapshot.fact(platform.IS_SPARK)
    if snapshot.visit("platform") and not is_spark:
        yield Finding(
            "not_a_spark",
            Severity.INFO,
            "this machine is not a DGX Spark or another GB10",
            ("none of: DMI product family, ACPI NVDA8800, PCI 10de:2e12, a GPU named GB10",),
            "what follows is its inventory all the same; no GB10 limits are assumed",
        )
    said: set[Standing] = set()
    for scope, verdict in budget.verdicts.items():
        # A GPU that shares the SoC's fate is the same finding.
        if verdict.standing in _STANDINGS and not (scope == "gpu" and verdict.standing in said):
            said.add(verdict.standing)
            severity, title, action = _STANDINGS[verdict.standing]
            evidence = (verdict.reason, *verdict.evidence)
            yield Finding(f"{verdict.standing}_{scope}", severity, f"{_NAMES[scope]}: {title}", evidence, action)
    yield from _limits(budget.verdicts)
    if power.is_gpu_only:
        gpu = power.scopes[Scope.GPU_NVML]
        assert isinstance(gpu, Measured)  # noqa: S101  (that is what makes it GPU only)
        yield Finding(
            "gpu_only",
            Severity.INFO,
            "the only power reading here is the GPU's; it is not the power of this machine",
            (
                f"NVML gives {gpu.value:.1f} W for the GPU",
                "CPU, memory, ConnectX-7, SSD, USB-C and losses are not in it",
            ),
            HOW_TO_MEASURE,
        )
    yield from _mismatch(power)


_NAMES: Final = {"system": "system", "soc": "SoC", "gpu": "GPU"}


def _limits(verdicts: Mapping[str, Verdict]) -> Iterator[Finding]:
    for scope, verdict in verdicts.items():
        if verdict.standing is Standing.AT_LIMIT and scope == "system":
            yield Finding("at_limit_system", Severity.WARNING, "system: at its power limit", verdict.evidence)
        elif verdict.standing is Standing.AT_LIMIT:
            yield Finding(
                f"at_limit_{scope}",
                Severity.INFO,
                f"{_NAMES[scope]}: at its power limit; compute-bound, no fault",
                verdict.evidence,
                "nothing to mend; the limit sets the clocks now",
            )
        elif verdict.standing is Standing.NEAR_LIMIT:
            severity = Severity.WARNING if scope == "system" else Severity.INFO
            yield Finding(f"near_limit_{scope}", severity, f"{_NAMES[scope]}: near its power limit", verdict.evidence)


#: NVML and the firmware's rail differ by more than noise.
_MISMATCH_RATIO: Final = 0.15


def _mismatch(power: Power) -> Iterator[Finding]:
    nvml, rail = power.watts(Scope.GPU_NVML), power.watts(Scope.GPU_RAIL)
    if nvml is None or not rail or abs(nvml - rail) <= _MISMATCH_RATIO * rail or abs(nvml - rail) < 2.0:
        return
    yield Finding(
        "gpu_mismatch",
        Severity.INFO,
        f"NVML gives {nvml:.1f} W for the GPU, the firmware's rail {rail:.1f} W ({nvml / rail - 1:+.0%})",
        ("one owner measured NVML 18–44 % below the rail under load, and equal at idle; the cause is not known",),
        "neither is corrected by the other; say which one a figure rests on",
    )


def _memory(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.fact(memory.CMA_LOST) is True:
        lost = snapshot.reading(memory.CMA_LOST_BYTES)
        yield Finding(
            "cma_lost",
            Severity.WARNING,
            f"the kernel keeps {lost.value / 2**30:.1f} GiB of memory for nothing" if lost else "CMA memory is lost",
            ("CmaFree is far above CmaTotal, as on kernels 7.0.0-1018 and -1019 with kexec handover",),
            "boot with kho=off, or another kernel",
        )


def _collectors(snapshot: Snapshot) -> Iterator[Finding]:
    for visit in snapshot.visits:
        if visit.status is Status.FAILED:
            yield Finding(
                f"collector_failed_{visit.collector}",
                Severity.UNKNOWN,
                f"{visit.collector} could not be read: {visit.reason}",
                (visit.detail,) if visit.detail else (),
            )


def _specification(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.fact(platform.IS_SPARK):
        for part in compare(snapshot):
            yield Finding(
                f"specification_{part.id}",
                Severity.INFO,
                f"{part.name}: {part.match}",
                (f"specified: {part.specified}", f"found: {part.found}"),
            )
