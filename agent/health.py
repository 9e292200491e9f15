"""Findings: what a person should know about this machine, in plain words, with evidence and what to do."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from spark_agent.agent.budget import Budget, Standing, Verdict, crowded
from spark_agent.agent.power import Measured, Power
from spark_agent.agent.snapshot import Snapshot, Status
from spark_agent.agent.specification import Part
from spark_agent.collectors import Reason, Scope, immutable, memory, platform


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


@immutable
class Finding:
    """One thing worth knowing."""

    id: str
    severity: Severity
    title: str
    evidence: tuple[str, ...] = ()
    action: str = ""


def findings(snapshot: Snapshot, power: Power, budget: Budget, parts: Iterable[Part]) -> tuple[Finding, ...]:
    """Return every finding of one look, worst first."""
    found = [
        *_platform(snapshot),
        *_verdicts(snapshot, budget),
        *_crowded(budget),
        *_gpu_only(snapshot, power),
        *_mismatch(power),
        *_gpu_missing(snapshot),
        *_memory(snapshot),
        *_collectors(snapshot),
        *_specification(parts),
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


@dataclass(frozen=True, slots=True)
class _Said:
    """What a standing is called, and what to do about it."""

    severity: Severity
    title: str
    action: str


_CERTAIN: Final = {
    Standing.CAPPED_LOW: _Said(Severity.CRITICAL, "the firmware holds this machine at a fraction of its power", _DRAIN),
    Standing.LIMITS_UNPUBLISHED: _Said(
        Severity.CRITICAL, "the embedded controller has not told the firmware what this machine may draw", _DRAIN
    ),
    Standing.OVER_BUDGET: _Said(
        Severity.CRITICAL,
        "this machine draws more than its power budget",
        "unplug what its USB-C ports feed, and check that the adapter is the 240 W one that came with it",
    ),
    Standing.IMPOSSIBLE: _Said(
        Severity.WARNING,
        "power readings contradict each other or physics",
        "do not rely on this source; update the firmware, or the driver that reads it",
    ),
    Standing.ERROR: _Said(
        Severity.UNKNOWN, "power cannot be read", "look again; if it stays so, see the kernel's log for the device"
    ),
    Standing.STALE: _Said(Severity.UNKNOWN, "power readings are old", "see whether the agent still runs"),
}
_UNCERTAIN: Final = {
    Standing.CAPPED_LOW: _Said(
        Severity.WARNING,
        "a power limit holds this machine at a fraction of its power",
        "if nobody meant it, take the limit away with the tool that set it; with the spbm driver, root writes 0 to the "
        "power*_cap file",
    ),
    Standing.LIMITS_UNPUBLISHED: _Said(
        Severity.WARNING,
        "the power limits in force cannot be read",
        "see the evidence: the agent needs to read the driver's power*_cap files",
    ),
}

_NAMES: Final = {"system": "system", "soc": "SoC", "gpu": "GPU"}


def _platform(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.fact(platform.IS_SPARK) is False:
        yield Finding(
            "not_a_spark",
            Severity.INFO,
            "this machine is not a DGX Spark or another GB10",
            ("it shows none of: DMI product family, ACPI NVDA8800, PCI 10de:2e12, a GPU named GB10, dgx-release",),
            "its inventory is shown all the same; no limits of a GB10 are assumed",
        )


#: Which collector a scope's power comes from; where all of it failed, that is said once.
_COLLECTORS: Final = {"system": "spbm", "soc": "spbm", "gpu": "gpu"}


def _verdicts(snapshot: Snapshot, budget: Budget) -> Iterator[Finding]:
    alike: dict[tuple[Standing, bool], list[str]] = {}
    for scope, verdict in budget.verdicts.items():
        visit = snapshot.visit(_COLLECTORS[scope])
        if not (verdict.standing is Standing.ERROR and visit and visit.status is Status.FAILED):
            alike.setdefault((verdict.standing, verdict.conclusive), []).append(scope)
    for (standing, conclusive), scopes in alike.items():
        if said := (_CERTAIN if conclusive else _UNCERTAIN).get(standing):
            # Where the GPU shares the SoC's fate, it has nothing to add.
            telling = [scope for scope in scopes if scope != "gpu"] or scopes
            evidence = [
                f"{_NAMES[scope]}: {line}"
                for scope in telling
                for line in (budget.verdicts[scope].reason, *budget.verdicts[scope].evidence)
            ]
            yield Finding(standing, said.severity, said.title, tuple(dict.fromkeys(evidence)), said.action)
    for scope, verdict in budget.verdicts.items():
        yield from _near_limit(scope, verdict)


def _near_limit(scope: str, verdict: Verdict) -> Iterator[Finding]:
    name = _NAMES[scope]
    evidence = (verdict.reason, *verdict.evidence)
    if verdict.standing is Standing.AT_LIMIT and scope == "system":
        action = "see what draws it: ConnectX-7, SSD and what USB-C feeds share it with the SoC"
        yield Finding("at_limit_system", Severity.WARNING, "system: at its power limit", evidence, action)
    elif verdict.standing is Standing.AT_LIMIT:
        title = f"{name}: at its power limit; compute-bound, no fault"
        action = "nothing to mend: the limit sets the clocks now, as it does under full load"
        yield Finding(f"at_limit_{scope}", Severity.INFO, title, evidence, action)
    elif verdict.standing is Standing.NEAR_LIMIT:
        severity = Severity.WARNING if scope == "system" else Severity.INFO
        yield Finding(f"near_limit_{scope}", severity, f"{name}: near its power limit", evidence)


def _crowded(budget: Budget) -> Iterator[Finding]:
    if evidence := crowded(budget):
        title = "the SoC is at its limit, and the rest of the system draws more than is left for it"
        action = "unplug what its USB-C ports feed, then see what ConnectX-7 and its optics draw"
        yield Finding("soc_and_rest", Severity.WARNING, title, evidence, action)


def _gpu_only(snapshot: Snapshot, power: Power) -> Iterator[Finding]:
    known = power.scopes[Scope.GPU_NVML]
    if power.is_gpu_only and isinstance(known, Measured):
        yield Finding(
            "gpu_only",
            Severity.INFO,
            "the only power reading here is the GPU's; it is not the power of this machine",
            (
                f"NVML, which nvidia-smi shows, gives {known.value:.1f} W for the GPU",
                "what CPU, memory, ConnectX-7, SSD and USB-C draw is not in it, nor what is lost on the way"
                if snapshot.fact(platform.IS_SPARK)
                else "what the rest of the machine draws is not in it",
            ),
            HOW_TO_MEASURE if snapshot.fact(platform.IS_SPARK) else "a wall meter measures the machine",
        )


#: NVML and the firmware's rail differ by more than noise.
_MISMATCH_RATIO: Final = 0.15
_MISMATCH_WATTS: Final = 2.0


def _mismatch(power: Power) -> Iterator[Finding]:
    nvml, rail = power.watts(Scope.GPU_NVML), power.watts(Scope.GPU_RAIL)
    if not nvml or not rail or abs(nvml - rail) <= max(_MISMATCH_RATIO * rail, _MISMATCH_WATTS):
        return
    percent, side = 100 * abs(nvml / rail - 1), "below" if nvml < rail else "above"
    yield Finding(
        "gpu_mismatch",
        Severity.INFO,
        f"NVML gives {nvml:.1f} W for the GPU, {percent:.0f} % {side} the firmware's rail of {rail:.1f} W",
        ("measured by one owner: NVML 18–44 % below the rail under load, and equal at idle; the cause is not known",),
        "neither corrects the other; say which of the two a figure rests on",
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


_MEND: Final = {
    Reason.VERSION_MISMATCH: "reboot: the driver was updated, and the old one is still loaded",
    Reason.DEVICE_LOST: "shut down and start again; on a GB10, nvidia-smi -r cannot reset the GPU",
    Reason.TIMEOUT: "the rest stands; a device or its driver hangs, see the kernel's log",
}


def _collectors(snapshot: Snapshot) -> Iterator[Finding]:
    for visit in snapshot.visits:
        if visit.status is Status.FAILED and visit.reason:
            yield Finding(
                f"collector_failed_{visit.collector}",
                Severity.UNKNOWN,
                f"{visit.collector} could not be read: {visit.reason.replace('_', ' ')}",
                (visit.detail,) if visit.detail else (),
                _MEND.get(visit.reason, "the rest stands; look again, and see the kernel's log if it stays so"),
            )


def _gpu_missing(snapshot: Snapshot) -> Iterator[Finding]:
    visit = snapshot.visit("gpu")
    if snapshot.fact(platform.IS_SPARK) and visit and visit.status is Status.ABSENT:
        yield Finding(
            "gpu_missing",
            Severity.UNKNOWN,
            "this is a Spark, but its GPU cannot be seen",
            (visit.detail,),
            "in a container, give it the GPU; else see the kernel's log for NVRM and Xid: a GB10 needs the open kernel "
            "modules, and a reboot after each driver update",
        )


def _specification(parts: Iterable[Part]) -> Iterator[Finding]:
    for part in parts:
        yield Finding(
            f"specification_{part.id}",
            Severity.INFO,
            f"{part.name}: {part.match}",
            (f"specified: {part.specified}", f"found: {part.found}"),
        )
