"""Findings: what a person should know about this machine, in plain words, with evidence and what to do."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from spark_agent.agent import ailments, lowpower
from spark_agent.agent.budget import OVER_SECONDS, Budget, Standing, Verdict, crowded
from spark_agent.agent.finding import WORST_FIRST, Finding, Kind, Severity, exit_code
from spark_agent.agent.lowpower import DRAIN
from spark_agent.agent.misread import Hearsay
from spark_agent.agent.power import Measured, Power
from spark_agent.agent.snapshot import Snapshot, Status
from spark_agent.agent.specification import Part
from spark_agent.agent.watch import Watch
from spark_agent.collectors import Reason, Scope, platform

__all__ = ["KINDS", "WORST_FIRST", "Finding", "Kind", "Severity", "exit_code", "findings"]

NOT_A_SPARK: Final = Kind("not_a_spark")
GPU_ONLY: Final = Kind("gpu_only")
#: Two readings of one GPU are never of the same moment.
MISMATCH: Final = Kind("gpu_mismatch", for_seconds=60.0)
GPU_MISSING: Final = Kind("gpu_missing")
COLLECTOR_FAILED: Final = Kind("collector_failed_*")
SPECIFICATION: Final = Kind("specification_*")
AT_LIMIT: Final = Kind("at_limit_*")
NEAR_LIMIT: Final = Kind("near_limit_*")
CAPPED_LOW: Final = Kind(Standing.CAPPED_LOW)
LIMITS_UNPUBLISHED: Final = Kind(Standing.LIMITS_UNPUBLISHED)
OVER_BUDGET: Final = Kind(Standing.OVER_BUDGET)
#: As long as the firmware's control loop may take to lower the SoC.
SOC_AND_REST: Final = Kind("soc_and_rest", for_seconds=OVER_SECONDS)
#: Three looks at an exporter, and as long as one takes to start anew. Ours.
MISREAD: Final = Kind("misread_power", for_seconds=30.0, hold_seconds=60.0)
IMPOSSIBLE: Final = Kind(Standing.IMPOSSIBLE)
ERROR: Final = Kind(Standing.ERROR)
STALE: Final = Kind(Standing.STALE)

#: Every kind of finding there is, as docs/findings.md has them.
KINDS: Final = (
    CAPPED_LOW,
    LIMITS_UNPUBLISHED,
    lowpower.STUCK,
    lowpower.CPU_HELD,
    OVER_BUDGET,
    SOC_AND_REST,
    AT_LIMIT,
    NEAR_LIMIT,
    ailments.LIMIT_UNSEEN,
    GPU_ONLY,
    MISMATCH,
    MISREAD,
    IMPOSSIBLE,
    ailments.TABLE_TORN,
    ERROR,
    STALE,
    ailments.GPU_LOST,
    ailments.DRIVER_MISMATCH,
    GPU_MISSING,
    ailments.MEMORY_LOW,
    ailments.MEMORY_STALLED,
    ailments.CMA_LOST,
    ailments.TOO_HOT,
    ailments.FANS_STILL,
    ailments.FANS_INFERRED,
    ailments.NVME_HOT,
    ailments.NVME_NOT_LIVE,
    ailments.TWIN_DOWN,
    ailments.INCOMPLETE,
    ailments.MISSING,
    ailments.ASLEEP,
    ailments.PCIE_ERRORS,
    NOT_A_SPARK,
    SPECIFICATION,
    COLLECTOR_FAILED,
)
_TIMED: Final = {kind.id: kind for kind in KINDS if kind.for_seconds or kind.hold_seconds}


def findings(
    snapshot: Snapshot,
    power: Power,
    budget: Budget,
    parts: Iterable[Part],
    watch: Watch | None = None,
    hearsay: Hearsay | None = None,
) -> tuple[Finding, ...]:
    """Return what there is to tell after a look, worst first. Who looks on gives what it knows of the looks before."""
    watch = watch or Watch(snapshot.at)
    found = [
        *_platform(snapshot),
        *_verdicts(snapshot, budget, watch),
        *_crowded(budget),
        *_gpu_only(snapshot, power),
        *_mismatch(power),
        *_misreads(hearsay),
        *_gpu_missing(snapshot),
        *_collectors(snapshot),
        *_specification(parts),
        *lowpower.findings(snapshot, power, budget, watch),
        *ailments.unseen_limit(snapshot, budget),
        *ailments.power_table(snapshot, power),
        *ailments.driver(snapshot),
        *ailments.memory_findings(snapshot, watch),
        *ailments.lost_memory(snapshot),
        *ailments.temperatures(snapshot, watch),
        *ailments.fans(snapshot, power, watch),
        *ailments.drives(snapshot, watch),
        *ailments.connectx7(snapshot),
        *ailments.pcie(snapshot, watch),
    ]
    return tuple(sorted(watch.tell(found, _TIMED), key=lambda finding: WORST_FIRST.index(finding.severity)))


#: What would measure the box, said wherever it is not measured.
HOW_TO_MEASURE: Final = (
    "a driver for the firmware's power page (hwmon spbm or dgx_spbm_power, out of tree) measures system and SoC; "
    "a wall meter measures the box"
)


@dataclass(frozen=True, slots=True)
class _Said:
    """What a standing is called, and what to do about it."""

    severity: Severity
    title: str
    action: str


_CERTAIN: Final = {
    Standing.CAPPED_LOW: _Said(Severity.CRITICAL, "the firmware holds this machine at a fraction of its power", DRAIN),
    Standing.LIMITS_UNPUBLISHED: _Said(
        Severity.CRITICAL, "the embedded controller has not told the firmware what this machine may draw", DRAIN
    ),
    Standing.OVER_BUDGET: _Said(
        Severity.CRITICAL,
        "this machine draws more than its power budget",
        "unplug what its USB-C ports feed, and check that the adapter is the one that came with it; where the limit is "
        "from the settings, give it less to do, or raise that limit",
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

_KINDS: Final[Mapping[Standing, Kind]] = {
    Standing.CAPPED_LOW: CAPPED_LOW,
    Standing.LIMITS_UNPUBLISHED: LIMITS_UNPUBLISHED,
    Standing.OVER_BUDGET: OVER_BUDGET,
    Standing.IMPOSSIBLE: IMPOSSIBLE,
    Standing.ERROR: ERROR,
    Standing.STALE: STALE,
}
_HELD_LOW: Final = (Standing.CAPPED_LOW, Standing.LIMITS_UNPUBLISHED)
_HELD: Final = "the GPU has been held at a fraction of its power under load"
# By whether the clock moves at all; one that stands still somebody may have locked.
_STARVED: Final = {
    True: _Said(Severity.CRITICAL, _HELD, DRAIN),
    False: _Said(Severity.WARNING, _HELD, lowpower.UNLOCK + DRAIN),
}

_NAMES: Final = {"system": "system", "soc": "SoC", "gpu": "GPU"}


def _platform(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.fact(platform.IS_SPARK) is False:
        yield NOT_A_SPARK.found(
            Severity.INFO,
            "this machine is not a DGX Spark or another GB10",
            ("it shows none of: DMI product family, ACPI NVDA8800, PCI 10de:2e12, a GPU named GB10, dgx-release",),
            "its inventory is shown all the same; no limits of a GB10 are assumed",
        )


#: Which collector a scope's power comes from; where all of it failed, that is said once.
_COLLECTORS: Final = {"system": "spbm", "soc": "spbm", "gpu": "gpu"}


def _verdicts(snapshot: Snapshot, budget: Budget, watch: Watch) -> Iterator[Finding]:
    alike: dict[tuple[Standing, bool], list[str]] = {}
    for scope, verdict in budget.verdicts.items():
        visit = snapshot.visit(_COLLECTORS[scope])
        if not (verdict.standing is Standing.ERROR and visit and visit.status is Status.FAILED):
            alike.setdefault((verdict.standing, verdict.conclusive), []).append(scope)
    for (standing, conclusive), scopes in alike.items():
        said = (_CERTAIN if conclusive else _UNCERTAIN).get(standing)
        if standing is Standing.CAPPED_LOW and scopes == ["gpu"] and lowpower.is_starved(watch):
            said = _STARVED[conclusive]
        if said:
            # Where the GPU shares the SoC's fate, it has nothing to add.
            telling = [scope for scope in scopes if scope != "gpu"] or scopes
            evidence = [
                f"{_NAMES[scope]}: {line}"
                for scope in telling
                for line in (budget.verdicts[scope].reason, *budget.verdicts[scope].evidence)
            ]
            if standing in _HELD_LOW and conclusive:
                evidence.append("conclusive: nothing harmless looks the same")
            yield _KINDS[standing].found(said.severity, said.title, dict.fromkeys(evidence), said.action)
    for scope, verdict in budget.verdicts.items():
        yield from _near_limit(scope, verdict)


def _near_limit(scope: str, verdict: Verdict) -> Iterator[Finding]:
    name = _NAMES[scope]
    evidence = (verdict.reason, *verdict.evidence)
    if verdict.standing is Standing.AT_LIMIT and scope == "system":
        action = "see what draws it: ConnectX-7, SSD and what USB-C feeds share it with the SoC"
        yield AT_LIMIT.found(Severity.WARNING, "system: at its power limit", evidence, action, of=scope)
    elif verdict.standing is Standing.AT_LIMIT:
        title = f"{name}: at its power limit; compute-bound, no fault"
        action = "nothing to mend: the limit sets the clocks now, as it does under full load"
        yield AT_LIMIT.found(Severity.INFO, title, evidence, action, of=scope)
    elif verdict.standing is Standing.NEAR_LIMIT:
        severity = Severity.WARNING if scope == "system" else Severity.INFO
        yield NEAR_LIMIT.found(severity, f"{name}: near its power limit", evidence, of=scope)


def _crowded(budget: Budget) -> Iterator[Finding]:
    if evidence := crowded(budget):
        title = "the SoC is at its limit, and the rest of the system draws more than is left for it"
        action = "unplug what its USB-C ports feed, then see what ConnectX-7 and its optics draw"
        yield SOC_AND_REST.found(Severity.WARNING, title, evidence, action)


def _gpu_only(snapshot: Snapshot, power: Power) -> Iterator[Finding]:
    known = power.scopes[Scope.GPU_NVML]
    if power.is_gpu_only and isinstance(known, Measured):
        yield GPU_ONLY.found(
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
    yield MISMATCH.found(
        Severity.INFO,
        f"NVML gives {nvml:.1f} W for the GPU, {percent:.0f} % {side} the firmware's rail of {rail:.1f} W",
        ("measured by one owner: NVML 18–44 % below the rail under load, and equal at idle; the cause is not known",),
        "neither corrects the other; say which of the two a figure rests on",
    )


def _misreads(hearsay: Hearsay | None) -> Iterator[Finding]:
    if not hearsay or not hearsay.misreads:
        return
    evidence = [
        f"{misread.claimed.source} says {misread.claimed.value:.1f} W; {misread.kind}: {misread.evidence}"
        for misread in hearsay.misreads
    ]
    count = len({misread.claimed.source for misread in hearsay.misreads})
    many = "metrics of other exporters here say" if count > 1 else "a metric of another exporter here says"
    yield MISREAD.found(
        Severity.WARNING,
        f"{many} that it is this machine's power, which it cannot be",
        evidence,
        "do not plan, bill or alert by it: drop or rename it where it is scraped (docs/misreads.md); for the machine, "
        + HOW_TO_MEASURE,
    )


_MEND: Final = {
    Reason.TIMEOUT: "the rest stands; a device or its driver hangs, see the kernel's log",
}


def _collectors(snapshot: Snapshot) -> Iterator[Finding]:
    for visit in snapshot.visits:
        is_own = visit.collector == "gpu" and visit.reason in ailments.OWN_REASONS
        if visit.status is Status.FAILED and visit.reason and not is_own:
            yield COLLECTOR_FAILED.found(
                Severity.UNKNOWN,
                f"{visit.collector} could not be read: {visit.reason.replace('_', ' ')}",
                (visit.detail,) if visit.detail else (),
                _MEND.get(visit.reason, "the rest stands; look again, and see the kernel's log if it stays so"),
                of=visit.collector,
            )


def _gpu_missing(snapshot: Snapshot) -> Iterator[Finding]:
    visit = snapshot.visit("gpu")
    if snapshot.fact(platform.IS_SPARK) and visit and visit.status is Status.ABSENT:
        yield GPU_MISSING.found(
            Severity.UNKNOWN,
            "this is a Spark, but its GPU cannot be seen",
            (visit.detail,),
            "in a container, give it the GPU; else see the kernel's log for NVRM and Xid: a GB10 needs the open kernel "
            "modules, and a reboot after each driver update",
        )


def _specification(parts: Iterable[Part]) -> Iterator[Finding]:
    for part in parts:
        evidence = (f"specified: {part.specified}", f"found: {part.found}")
        yield SPECIFICATION.found(Severity.INFO, f"{part.name}: {part.match}", evidence, of=part.id)
