"""Alerts on Sparks and on the agent, as data: `rules` writes them for Prometheus, docs/alerts.md is their runbook.

Where the agent has a finding, which has held for as long as it must and ends below where it began, the alert waits for
that and judges nothing anew. What the agent cannot tell, Prometheus can: that it is gone, how long a limit has held,
how a whole fleet does. Thresholds are those of the code that judges.

* They suit scrape intervals of up to a minute: ``for`` is one of them at the least, a window four.
* No job and no instance is named; a target is what its labels ``job`` and ``instance`` say.
* Where a sample is absent nothing fires, but for the alerts on what is gone.
"""

from dataclasses import dataclass
from typing import Final

from spark_agent.agent import ailments, health, lowpower
from spark_agent.agent.audit.claim import Severity as Level
from spark_agent.agent.audit.rule import RULES
from spark_agent.agent.budget import AT_LIMIT, NEAR_LIMIT, STALE_SECONDS, Standing
from spark_agent.agent.budget_table import CAPS, RATINGS
from spark_agent.agent.finding import Kind, Severity
from spark_agent.collectors import Quantity, Scope, memory
from spark_agent.exporters.prometheus import (
    AGE,
    AUDIT,
    BEATS,
    BUILD,
    FINDING,
    LIMIT_SECONDS,
    MISREAD,
    MISSED,
    UNCLEAN_ENDS,
    UNCLEAN_SHUTDOWNS,
    VERDICT,
    Family,
    plan,
)
from spark_agent.exporters.textfile import FILE


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. ``lasting`` are the seconds for which it must hold; ``kinds`` the findings that it passes on."""

    name: str
    severity: Severity
    expression: str
    lasting: float
    summary: str
    description: str
    kinds: tuple[Kind, ...] = ()


def metric(of: Quantity) -> str:
    """Return the name of a quantity's samples."""
    ((family, _),) = plan((of,)).numbers
    return family.metric


def selector(of: Family, **labels: str | tuple[str, ...]) -> str:
    """Return a selector of series; of several values of a label, or of a pattern, any that fits will do."""
    matchers = []
    for label, values in labels.items():
        value = values if isinstance(values, str) else "|".join(values)
        matchers.append(f'{label}{"=~" if set("|+") & set(value) else "="}"{value}"')
    return f"{of.metric}{{{','.join(matchers)}}}"


def _standing(*standings: Standing, **labels: str) -> str:
    return selector(VERDICT, **{VERDICT.name: standings}, **labels)


def _label(name: str) -> str:
    return f"{{{{ $labels.{name} }}}}"


_HERE: Final = _label("instance")
_ONLY_TOLD: Final = "|".join(rule.id for rule in RULES.values() if rule.severity is Level.INFO)
_DOCTOR: Final = "`spark-agent doctor` on that machine has the evidence, and says what to do."
_MINUTE: Final = 60.0
_GIB: Final = 2**30
_PL1: Final = CAPS[0]
_ADAPTER, _SOC, _ = RATINGS


def _found(
    name: str,
    severity: Severity,
    lasting: float,
    summary: str,
    description: str,
    *kinds: Kind,
    as_unknown: bool = False,
) -> Alert:
    """Pass findings of some kinds on, which have the severity of the alert, or that of what cannot be known."""
    expression = selector(
        FINDING, id=tuple(kind.of(".+") for kind in kinds), severity=Severity.UNKNOWN if as_unknown else severity
    )
    return Alert(name, severity, expression, lasting, f"{_HERE}: {summary}", f"{description} {_DOCTOR}", kinds)


#: By which labels Prometheus tells one target from another.
TARGET: Final = "on (job, instance)"

#: Share of an hour at the SoC's limit from which on it was there all the time. Ours, as are those below.
LONG_AT_LIMIT: Final = 0.95
#: Share of its looks that an agent may miss.
MISSED_RATIO: Final = 0.1
#: How often in an hour an agent may end without a clean end.
CRASHES: Final = 2
#: Age of node_exporter's file, which is written each 15 s unless the settings say otherwise.
OLD_FILE_SECONDS: Final = 300.0

POWER: Final = (
    Alert(
        "SparkPowerMisread",
        Severity.WARNING,
        f"{MISREAD.name} == 1",
        10 * _MINUTE,
        f"{_HERE}: {_label('series')} is not the power that it is called",
        f"An exporter on this machine tells a part of its power as the whole; what gives it away: {_label('kind')}. "
        "Budgets, bills and alerts that rest on it are too low.",
        (health.MISREAD,),
    ),
    Alert(
        "SparkPowerMisreadInRules",
        Severity.WARNING,
        # An expression that cannot be read is no misreading, nor is what is only worth knowing.
        f'{AUDIT.name}{{rule!~"{_ONLY_TOLD}"}} > 0',
        10 * _MINUTE,
        f"{_HERE}: rules or dashboards take a part of a Spark's power for the whole ({_label('rule')})",
        f"`spark-agent audit` finds {{{{ $value }}}} of {_label('rule')}, and says where and what to write instead.",
    ),
    Alert(
        "SparkOverPowerBudget",
        Severity.CRITICAL,
        f"{_standing(Standing.OVER_BUDGET)} == 1",
        _MINUTE,
        f"{_HERE}: the {_label('scope')} draws more than its power budget",
        f"It is above a limit of the firmware, of the adapter or of the owner's settings. {_DOCTOR}",
        (health.OVER_BUDGET,),
    ),
    Alert(
        "SparkNearPowerBudget",
        Severity.WARNING,
        # One that goes from near to at and back has been near all the time.
        f"max without ({VERDICT.name}) (\n"
        f"  {_standing(Standing.NEAR_LIMIT, Standing.AT_LIMIT, scope=Scope.SYSTEM)}\n"
        ") == 1",
        10 * _MINUTE,
        f"{_HERE}: the system draws more than {NEAR_LIMIT:.0%} of what it may",
        f"It is near a limit of the system or the adapter, or at it ({AT_LIMIT:.0%}). {_DOCTOR}",
        (health.NEAR_LIMIT, health.AT_LIMIT),
    ),
    Alert(
        "SparkLongAtSocLimit",
        Severity.INFO,
        f"rate({selector(LIMIT_SECONDS, limit=_PL1.name)}[1h]) > {LONG_AT_LIMIT:g}",
        5 * _MINUTE,
        f"{_HERE}: the SoC has been at its limit for an hour",
        f"It stood at {AT_LIMIT:.0%} of {_PL1.title} or above for {{{{ $value | humanizePercentage }}}} of it. "
        "That is what full load does, and no fault: more work only takes longer.",
    ),
    _found(
        "SparkSocAndRest",
        Severity.WARNING,
        5 * _MINUTE,
        "SoC and all else are at their limits together",
        "With the SoC at its limit, what is drawn besides is more than the system's limit leaves for it.",
        health.SOC_AND_REST,
    ),
    _found(
        "SparkHeldLow",
        Severity.CRITICAL,
        2 * _MINUTE,
        "the firmware holds this machine at a fraction of its power",
        f"Its limits have collapsed, or were never published. What mends it: {lowpower.DRAIN}.",
        health.CAPPED_LOW,
        health.LIMITS_UNPUBLISHED,
    ),
    _found(
        "SparkHeldLow",
        Severity.WARNING,
        10 * _MINUTE,
        "a power limit holds this machine low, or cannot be read",
        "It is not the firmware's own fallback: somebody may have set it, or the agent may not read it.",
        health.CAPPED_LOW,
        health.LIMITS_UNPUBLISHED,
    ),
    _found(
        "SparkStuckLow",
        Severity.WARNING,
        2 * _MINUTE,
        "probably stuck at low power",
        "It works at a fraction of its clock or power, though nothing says why. Unless somebody locked its clocks: "
        f"{lowpower.DRAIN}.",
        lowpower.STUCK,
        lowpower.CPU_HELD,
    ),
    _found(
        "SparkPowerImpossible",
        Severity.WARNING,
        5 * _MINUTE,
        "power readings contradict each other or physics",
        "What cannot be true is not told, so sums and bills lack it.",
        health.IMPOSSIBLE,
        ailments.TABLE_TORN,
    ),
    _found(
        "SparkPowerUnreadable",
        Severity.WARNING,
        10 * _MINUTE,
        "power cannot be read",
        "It fails, or what was read last is old.",
        health.ERROR,
        health.STALE,
        as_unknown=True,
    ),
    _found(
        "SparkPowerGpuOnly",
        Severity.INFO,
        15 * _MINUTE,
        "the only power reading is the GPU's",
        "It is not the power of this machine, and says nothing of what is left of any limit: "
        f"{_ADAPTER.watts:g} W less this reading is no headroom, nor is {_SOC.watts:g} W less it. What measures more: "
        f"{health.HOW_TO_MEASURE}.",
        health.GPU_ONLY,
    ),
    Alert(
        "SparkPowerUnmeasured",
        Severity.INFO,
        f"{_standing(Standing.UNMEASURED, scope=Scope.SYSTEM)} == 1\n"
        f"unless {TARGET}\n"
        f"{selector(FINDING, id=(health.GPU_ONLY.id, health.NOT_A_SPARK.id))}",
        15 * _MINUTE,
        f"{_HERE}: nothing measures the power of the system",
        f"Sums over the fleet lack it, and how much is left of its limits is not known. {_DOCTOR}",
    ),
)

MACHINE: Final = (
    Alert(
        "SparkDownShortOfMemory",
        Severity.CRITICAL,
        f"up == 0\nand {TARGET}\nlast_over_time({metric(memory.AVAILABLE)}[1d]) < {ailments.MEMORY_CRITICAL_BYTES}",
        2 * _MINUTE,
        f"{_HERE}: does not answer any more, and was short of memory before",
        f"Less than {ailments.MEMORY_CRITICAL_BYTES / _GIB:g} GiB were left when it was last heard. A Spark that runs "
        "out mostly freezes: it answers pings, and only a power cycle helps.",
    ),
    _found(
        "SparkMemoryLow",
        Severity.CRITICAL,
        _MINUTE,
        "is about to run out of memory",
        "CPU and GPU share it, and a Spark that runs out mostly freezes: end or shrink what holds most.",
        ailments.MEMORY_LOW,
    ),
    _found(
        "SparkMemoryLow",
        Severity.WARNING,
        5 * _MINUTE,
        f"less than {ailments.MEMORY_WARNING_BYTES / _GIB:g} GiB of memory are left",
        "CPU and GPU share it, and a Spark that runs out mostly freezes.",
        ailments.MEMORY_LOW,
    ),
    _found(
        "SparkMemoryStalled",
        Severity.WARNING,
        5 * _MINUTE,
        "all tasks wait for memory, though there is some",
        "Most likely a container is at the limit of its own.",
        ailments.MEMORY_STALLED,
    ),
    _found(
        "SparkMemoryLost",
        Severity.WARNING,
        10 * _MINUTE,
        "its kernel keeps memory for nothing",
        "Some kernels lose about 9 GiB to kexec handover: boot with kho=off, or another kernel.",
        ailments.CMA_LOST,
    ),
    _found(
        "SparkGpuLost",
        Severity.CRITICAL,
        _MINUTE,
        "has lost its GPU",
        "NVML says that it fell off the bus or needs a reset: shut down and start again.",
        ailments.GPU_LOST,
    ),
    _found(
        "SparkGpuUnseen",
        Severity.WARNING,
        5 * _MINUTE,
        "its GPU cannot be seen",
        "There is no library, no driver or no device.",
        health.GPU_MISSING,
        as_unknown=True,
    ),
    _found(
        "SparkDriverMismatch",
        Severity.WARNING,
        5 * _MINUTE,
        "GPU driver and library are of different versions",
        "As after an update without a reboot: reboot.",
        ailments.DRIVER_MISMATCH,
    ),
    _found(
        "SparkTooHot",
        Severity.CRITICAL,
        _MINUTE,
        "is about to shut down for heat",
        f"A sensor is within {ailments.CRITICAL_KELVIN:g} K of where its device shuts down.",
        ailments.TOO_HOT,
    ),
    _found(
        "SparkTooHot",
        Severity.WARNING,
        5 * _MINUTE,
        "is hot",
        f"A sensor is within {ailments.WARNING_KELVIN:g} K of where its device shuts down.",
        ailments.TOO_HOT,
    ),
    _found(
        "SparkFansStill",
        Severity.WARNING,
        5 * _MINUTE,
        "its fans stand still, and it is hot",
        f"All of them report 0 rpm at {ailments.HOT_CELSIUS:g} °C or more.",
        ailments.FANS_STILL,
    ),
    _found(
        "SparkNvmeFailed",
        Severity.CRITICAL,
        _MINUTE,
        "a drive is dead, or at its critical temperature",
        "The kernel has given it up, or its own threshold is reached.",
        ailments.NVME_NOT_LIVE,
        ailments.NVME_HOT,
    ),
    _found(
        "SparkNvmeTrouble",
        Severity.WARNING,
        5 * _MINUTE,
        "a drive is not live, or hot",
        "The kernel resets or has not set it up, or its own warning temperature is reached.",
        ailments.NVME_NOT_LIVE,
        ailments.NVME_HOT,
    ),
    _found(
        "SparkConnectX7Fault",
        Severity.WARNING,
        5 * _MINUTE,
        "its ConnectX-7 is not whole",
        "One of a cage's two interfaces is down, or functions are missing from the bus.",
        ailments.TWIN_DOWN,
        ailments.INCOMPLETE,
    ),
    _found(
        "SparkPcieErrors",
        Severity.CRITICAL,
        _MINUTE,
        "fatal PCIe errors",
        "A network card or drive has them now.",
        ailments.PCIE_ERRORS,
    ),
    _found(
        "SparkPcieErrors",
        Severity.WARNING,
        5 * _MINUTE,
        "PCIe errors that were not corrected",
        "A network card or drive has them now.",
        ailments.PCIE_ERRORS,
    ),
    Alert(
        "SparkUncleanShutdown",
        Severity.WARNING,
        f"increase({UNCLEAN_SHUTDOWNS.metric}[6h]) > 0",
        _MINUTE,
        f"{_HERE}: went down without a clean end",
        "It lost its power, froze or was reset. `spark-agent blackbox` on that machine shows its last minutes.",
    ),
)

AGENT: Final = (
    Alert(
        "SparkAgentDown",
        Severity.WARNING,
        f"up == 0\nand {TARGET}\nlast_over_time({BUILD.metric}[1d])",
        5 * _MINUTE,
        f"{_HERE}: a Spark that was told within a day cannot be scraped",
        "The machine is off or frozen, its network or the agent is down, or the scrape is refused: the server's page "
        "/targets says which.",
    ),
    Alert(
        "SparkAgentAbsent",
        Severity.WARNING,
        # Those that were there and are gone, the alert above tells for a day.
        f"absent(last_over_time({BUILD.metric}[1d]))",
        15 * _MINUTE,
        "No Spark is told at all",
        "No target has had a sample of the agent for a day, or ever: most likely no scrape configuration names one.",
    ),
    Alert(
        "SparkAgentStale",
        Severity.WARNING,
        f"{AGE.metric} > {STALE_SECONDS:g}\n"
        "or\n"
        f'time() - node_textfile_mtime_seconds{{file=~"(.*/)?{FILE.replace(".", "[.]")}"}} > {OLD_FILE_SECONDS:g}',
        2 * _MINUTE,
        f"{_HERE}: what is told was read {{{{ $value | humanizeDuration }}}} ago",
        "The agent answers but looks no more, or does not write its file for node_exporter: see its log.",
    ),
    Alert(
        "SparkAgentLate",
        Severity.WARNING,
        # A beat that was missed did not take place.
        f"rate({MISSED.metric}[15m])\n/\n(rate({MISSED.metric}[15m]) + rate({BEATS.metric}[15m])) > {MISSED_RATIO:g}",
        10 * _MINUTE,
        f"{_HERE}: {{{{ $value | humanizePercentage }}}} of the looks come too late",
        "The machine has no time for it, or a source hangs; energy that is integrated has gaps then.",
    ),
    Alert(
        "SparkAgentCrashes",
        Severity.WARNING,
        f"increase({UNCLEAN_ENDS.metric}[1h]) > {CRASHES}",
        _MINUTE,
        f"{_HERE}: the agent ends again and again without a clean end",
        "Something kills it: see the journal for its unit, and for the kernel's OOM killer.",
    ),
    _found(
        "SparkCollectorFails",
        Severity.WARNING,
        10 * _MINUTE,
        f"a source cannot be read ({_label('id')})",
        "The rest stands.",
        health.COLLECTOR_FAILED,
        as_unknown=True,
    ),
)

ALERTS: Final = (*POWER, *MACHINE, *AGENT)

#: Findings that no alert passes on, and why.
SILENT: Final = {
    ailments.LIMIT_UNSEEN: "it explains a reading, and is no fault",
    health.MISMATCH: "two readings of one GPU; neither is known to be wrong",
    ailments.FANS_INFERRED: "inferred; a Spark in the sun looks the same",
    ailments.MISSING: "some kernels do not enumerate the card",
    ailments.ASLEEP: "as it should be without a cable",
    health.NOT_A_SPARK: "no fault",
    health.SPECIFICATION: "what a machine is made of, and not how it does",
}
