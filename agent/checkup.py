"""What was checked, what is fine, and what cannot be told and why: the other half of the findings, for `doctor`."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from spark_agent.agent import ailments, health, lowpower, misread
from spark_agent.agent.budget import LimitOrigin
from spark_agent.agent.finding import Finding, Kind, Severity
from spark_agent.agent.power import Measured, Unmeasured
from spark_agent.agent.report import Report
from spark_agent.agent.snapshot import Status
from spark_agent.agent.specification import Match
from spark_agent.collectors import Scope, fan, memory, nic, nvme, platform
from spark_agent.collectors import thermal as heat


class Outcome(StrEnum):
    """How a check came out."""

    FINE = "fine"
    FOUND = "found"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Checked:
    """One check: the findings that it made, or why nothing can be told."""

    id: str
    name: str
    outcome: Outcome
    why: str = ""
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Check:
    """What is checked: the kinds of findings that it can make, and what says why it cannot be told."""

    id: str
    name: str
    kinds: tuple[Kind, ...]
    unknown: Callable[[Report], str]
    #: Whether somebody asked for it.
    is_asked: Callable[[Report], bool] = lambda _: True


#: What decides what only load or time shows.
WATCH: Final = "`spark-agent doctor --for 60`"


def checked(report: Report) -> tuple[Checked, ...]:
    """Return how each check came out, in a fixed order."""
    return tuple(_outcome(check, report) for check in _CHECKS if check.is_asked(report))


def worth_telling(report: Report) -> tuple[Finding, ...]:
    """Return the findings without those on parts that are as specified, or cannot be seen."""
    plain = {health.SPECIFICATION.of(part.id) for part in report.parts if part.match is not Match.DIFFERS}
    return tuple(finding for finding in report.findings if finding.id not in plain)


def severity(report: Report) -> Severity:
    """Return that of the worst finding; ok where there is none."""
    return report.findings[0].severity if report.findings else Severity.OK


def _outcome(check: _Check, report: Report) -> Checked:
    made = tuple(
        finding.id for finding in worth_telling(report) if any(kind.covers(finding.id) for kind in check.kinds)
    )
    if made:
        return Checked(check.id, check.name, Outcome.FOUND, findings=made)
    if why := check.unknown(report):
        return Checked(check.id, check.name, Outcome.UNKNOWN, why)
    return Checked(check.id, check.name, Outcome.FINE)


def _not_read(report: Report, collector: str) -> str:
    """Say why a collector has nothing to tell; empty where it has."""
    visit = report.snapshot.visit(collector)
    if visit is None or visit.status is Status.OK:
        return "" if visit else "not looked at"
    return visit.detail or str(visit.reason)


def _limits(report: Report) -> str:
    if any(limit.origin in (LimitOrigin.FIRMWARE, LimitOrigin.USER) for limit in report.budget.limits):
        return ""
    return "no driver shows the limits in force"


def _budget(report: Report) -> str:
    scopes = report.power.scopes
    if all(isinstance(scopes[scope], Measured) for scope in (Scope.SYSTEM, Scope.SOC)):
        return ""
    return "nothing measures what system and SoC draw"


def _stuck(report: Report) -> str:
    snapshot, watch = report.snapshot, report.watch
    if why := _not_read(report, "gpu"):
        return why
    if not snapshot.fact(platform.IS_SPARK):
        return "only of a Spark is it known what it looks like"
    now = lowpower.gpu_now(snapshot, report.power)
    if now is None:
        return "NVML does not give load, clock and power of the GPU"
    if (seconds := lowpower.low_seconds(watch)) is not None:
        return f"it looks so after {seconds:.0f} s of load, and {lowpower.LOW_SECONDS:.0f} s decide"
    if now.is_loaded or lowpower.loaded_seconds(watch) >= lowpower.LOW_SECONDS:
        return ""
    return f"the GPU is {now.busy:.0%} busy, and only under load its clock says anything: give it work, then {WATCH}"


def _cpu(report: Report) -> str:
    if not isinstance(report.power.scopes[Scope.SOC], Measured):
        return "nothing measures what the SoC draws"
    busy = lowpower.busy_cores(report.watch)
    if busy is None:
        return f"it takes more than one look: {WATCH}"
    if busy < lowpower.CPU_BUSY:
        return f"{busy:.1f} of the performance cores are busy, and it shows only under load"
    return ""


def _readings(report: Report) -> str:
    measured = [scope for scope, known in report.power.scopes.items() if isinstance(known, Measured)]
    if len(measured) > 1:
        return ""
    return "one reading alone has nothing to be held against" if measured else "there is no reading of any power"


def _others(report: Report) -> str:
    exporters = report.hearsay.exporters if report.hearsay else {}
    if faults := [f"{url}: {fault}" for url, fault in exporters.items() if fault]:
        return "; ".join(faults)
    if not exporters:
        return "no exporter answers on the usual ports"
    if not report.snapshot.fact(platform.IS_SPARK):
        return "only of a Spark is it known what it draws"
    if report.watch.seconds < _OTHERS_SECONDS:
        return (
            f"one look only tells what is below {misread.FLOOR_WATTS:.0f} W; for the rest, "
            f"`spark-agent doctor --for {_OTHERS_SECONDS:.0f}` while the GPU works and rests"
        )
    return ""


#: Two and a half minutes of looks at exporters, and as much again in which the GPU changes its level.
_OTHERS_SECONDS: Final = 600.0


def _energy(report: Report) -> str:
    if not report.energies:
        return f"one look has no duration: {WATCH}"
    doubted = [f"{scope}: {known.detail}" for scope, known in report.energies.items() if isinstance(known, Unmeasured)]
    return "; ".join(dict.fromkeys(doubted))


def _gpu(report: Report) -> str:
    return _not_read(report, "gpu")


def _memory(report: Report) -> str:
    if why := _not_read(report, "memory"):
        return why
    if report.snapshot.fact(memory.UNIFIED) is not True:
        return "only of a Spark is it known what is too little"
    return "" if report.snapshot.reading(memory.AVAILABLE) else "/proc/meminfo does not say what is available"


def _heat(report: Report) -> str:
    has_end = {reading.entity for reading in report.snapshot.readings(heat.CRITICAL)}
    read = {reading.entity for reading in report.snapshot.readings(heat.TEMPERATURE)}
    return "" if has_end & read else "no sensor names the temperature at which it shuts down"


def _fans(report: Report) -> str:
    snapshot = report.snapshot
    zones = [one.value for one in snapshot.readings(heat.TEMPERATURE) if one.entity.startswith("thermal_zone")]
    if snapshot.readings(fan.SPEED) or (zones and max(zones) < ailments.WARM_CELSIUS):
        return ""
    if not zones:
        return "no driver reports their speed, and no thermal zone how warm it is"
    return "no driver reports their speed, and only after ten idle minutes the warmth says anything"


def _drives(report: Report) -> str:
    snapshot = report.snapshot
    if why := _not_read(report, "nvme"):
        return why
    limited = {reading.entity for reading in snapshot.readings(nvme.TEMPERATURE_MAX)}
    without = [fact.entity for fact in snapshot.facts(nvme.STATE) if fact.entity not in limited]
    return f"{', '.join(without)}: live, but names no temperature at which it warns" if without else ""


def _wear(report: Report) -> str:
    return _not_read(report, "nvme") or "SMART needs root, which this agent does without"


def _connectx7(report: Report) -> str:
    return _not_read(report, "nic") or ("" if report.snapshot.fact(nic.STATE) else "there is none to look at")


def _pcie(report: Report) -> str:
    if not (report.snapshot.readings(nic.PCIE_ERRORS) or report.snapshot.readings(nvme.PCIE_ERRORS)):
        return "no device counts them"
    if report.watch.seconds:
        return ""
    return f"those since boot say nothing; whether they become more: {WATCH}"


def _always(_: Report) -> str:
    return ""


def _parts(report: Report) -> str:
    return "" if report.parts else "there is no specification of what this is not"


_COLLAPSED: Final = (health.CAPPED_LOW, health.LIMITS_UNPUBLISHED)
_CHECKS: Final = (
    _Check("limits", "power limits", _COLLAPSED, _limits),
    _Check(
        "budget",
        "power within its limits",
        (health.OVER_BUDGET, health.AT_LIMIT, health.NEAR_LIMIT, ailments.LIMIT_UNSEEN),
        _budget,
    ),
    _Check("stuck", "GPU not stuck at low power", (*_COLLAPSED, lowpower.STUCK), _stuck),
    _Check("cpu", "CPU not held at low power", (*_COLLAPSED, lowpower.CPU_HELD), _cpu),
    _Check(
        "readings",
        "power readings",
        (health.IMPOSSIBLE, ailments.TABLE_TORN, health.MISMATCH, health.ERROR, health.STALE, health.GPU_ONLY),
        _readings,
    ),
    _Check(
        "exporters",
        "other exporters' power",
        (health.MISREAD,),
        _others,
        lambda report: report.hearsay is not None,
    ),
    _Check("energy", "energy accounted for", (), _energy),
    _Check("gpu", "GPU and its driver", (ailments.GPU_LOST, ailments.DRIVER_MISMATCH, health.GPU_MISSING), _gpu),
    _Check("memory", "memory", (ailments.MEMORY_LOW, ailments.MEMORY_STALLED, ailments.CMA_LOST), _memory),
    _Check("heat", "temperatures", (ailments.TOO_HOT,), _heat),
    _Check("fans", "fans", (ailments.FANS_STILL, ailments.FANS_INFERRED), _fans),
    _Check("nvme", "NVMe drives", (ailments.NVME_HOT, ailments.NVME_NOT_LIVE), _drives),
    _Check("nvme_wear", "wear of the NVMe drives", (), _wear),
    _Check(
        "connectx7",
        "ConnectX-7",
        (ailments.TWIN_DOWN, ailments.INCOMPLETE, ailments.MISSING, ailments.ASLEEP),
        _connectx7,
    ),
    _Check("pcie", "PCIe errors", (ailments.PCIE_ERRORS,), _pcie),
    _Check("specification", "parts as specified", (health.SPECIFICATION, health.NOT_A_SPARK), _parts),
    _Check("collectors", "all sources read", (health.COLLECTOR_FAILED,), _always),
)
