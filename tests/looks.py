"""Looks, put together from what was found: for tests of what it means."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from spark_agent.agent.budget import Budget, Limit, judge, own_limits
from spark_agent.agent.config import Settings
from spark_agent.agent.health import Finding, findings
from spark_agent.agent.misread import Claim, Listener, Page
from spark_agent.agent.power import understand
from spark_agent.agent.report import Report, report
from spark_agent.agent.snapshot import Snapshot, Status, Visit
from spark_agent.agent.specification import compare
from spark_agent.collectors import (
    Absence,
    Fact,
    Item,
    Origin,
    Quantity,
    Reading,
    Reason,
    declarations,
    gpu,
    platform,
    spbm,
)
from spark_agent.collectors._power import LIMIT, PUBLISHED

_HOME: Final = {of: name for name, declared in declarations().items() for of in declared}

SPARK: Final = Fact(platform.IS_SPARK, True)
OTHER: Final = Fact(platform.IS_SPARK, False)

_POWERS: Final[Mapping[str, tuple[Quantity, tuple[str, ...]]]] = {
    "dc_input": (spbm.DC_INPUT, ()),
    "system": (spbm.SYSTEM, ()),
    "soc": (spbm.SOC, ()),
    "cpu_gpu": (spbm.CPU_GPU, ()),
    "cpu_performance": (spbm.CPU_PERFORMANCE, ("performance",)),
    "cpu_efficiency": (spbm.CPU_EFFICIENCY, ("efficiency",)),
    "gpu_rail": (spbm.GPU_RAIL, ()),
    "dla": (spbm.DLA, ()),
    "vcore": (spbm.VCORE, ()),
    "preregulator": (spbm.PREREGULATOR, ()),
    "gpu_nvml": (gpu.POWER, ("average",)),
    "pl1": (spbm.SOC_AVERAGE, ("pl1",)),
    "pl2": (spbm.SOC_AVERAGE, ("pl2",)),
    "syspl1": (spbm.SYSTEM_AVERAGE, ("syspl1",)),
    "syspl2": (spbm.SYSTEM_AVERAGE, ("syspl2",)),
}
_SCOPES: Final = {"pl1": "soc", "pl2": "soc", "syspl1": "system", "syspl2": "system"}


def watts(**powers: float) -> tuple[Reading, ...]:
    """Return powers by scope, and moving averages by the limit that they are held against."""
    return tuple(
        Reading(of, powers[name], "0" if of is gpu.POWER else "", labels, f"{_HOME[of]} {name}")
        for name, (of, labels) in _POWERS.items()
        if name in powers
    )


def limits(of: Quantity = LIMIT, /, **caps: float) -> tuple[Reading, ...]:
    """Return limits by name."""
    suffix = {LIMIT: "_cap", PUBLISHED: "_cap_max"}[of]
    return tuple(
        Reading(of, cap, labels=(_SCOPES[name], name), source=f"spbm {name}{suffix}") for name, cap in caps.items()
    )


HEALTHY: Final = limits(pl1=140, pl2=142, syspl1=231, syspl2=244)
WEDGED: Final = limits(pl1=20, pl2=20, syspl1=30, syspl2=30)


def lost(name: str, reason: Reason, detail: str = "", of: Quantity = LIMIT) -> Absence:
    """Return why one limit is not there."""
    return Absence(of, reason, detail, labels=(_SCOPES[name], name))


def found(
    *items: Item, ages: Mapping[str, float] | None = None, without: Mapping[str, Reason] | None = None
) -> Snapshot:
    """Return a look that found these, some collectors that many seconds ago, and others (``without``) nothing."""
    by_collector: dict[str, list[Item]] = {}
    for item in items:
        by_collector.setdefault(_HOME[item.of], []).append(item)
    visits = [
        Visit(name, Status.OK, 100.0 - (ages or {}).get(name, 0.0), 0.001, tuple(group))
        for name, group in by_collector.items()
    ]
    for name, reason in (without or {}).items():
        status = Status.FAILED if reason.is_fault else Status.ABSENT
        visits.append(Visit(name, status, 100.0, 0.001, reason=reason, detail=f"{name}: why"))
    return Snapshot("test", Origin.SYNTHETIC, "", 100.0, 1_800_000_000.0, tuple(visits))


def own(
    adapter: float | None = None, soc: float | None = None, system: float | None = None, rest: float | None = None
) -> tuple[Limit, ...]:
    """Return limits of the owner's, as the settings have them."""
    return own_limits(
        Settings(power_adapter_watts=adapter, power_soc_watts=soc, power_system_watts=system, power_rest_watts=rest)
    )


def judged(snapshot: Snapshot, *limits: Limit) -> Budget:
    """Return the verdicts on a look, by the owner's limits too."""
    return judge(snapshot, understand(snapshot), own=limits)


def told(snapshot: Snapshot) -> tuple[Finding, ...]:
    """Return the findings of a look."""
    known = understand(snapshot)
    return findings(
        snapshot, known, judge(snapshot, known), compare(snapshot) if snapshot.fact(platform.IS_SPARK) else ()
    )


def at(seconds: float, *items: Item, without: Mapping[str, Reason] | None = None) -> Snapshot:
    """Return a look at a time, all of it fresh."""
    snapshot = found(*items, without=without)
    return replace(snapshot, at=seconds, visits=tuple(replace(visit, at=seconds) for visit in snapshot.visits))


def watched(looks: Iterable[Snapshot]) -> Iterator[Report]:
    """Yield the report of each look, as a daemon has it."""
    before = None
    for snapshot in looks:
        before = report(snapshot, before, watching=True)
        yield before


def seconds(begin: int, end: int, *items: Item) -> list[Snapshot]:
    """Return a look each second, all alike."""
    return [at(float(second), *items) for second in range(begin, end)]


def gb10(
    busy: float, megahertz: float, watts_: float, *, pstate: str = "P0", reasons: Sequence[str] = ()
) -> tuple[Item, ...]:
    """Return what a Spark's GPU does: share of time busy, SM clock, NVML's power, and why its clock is held down."""
    return (
        SPARK,
        *watts(gpu_nvml=watts_),
        Reading(gpu.UTILIZATION, busy, "0"),
        Reading(gpu.CLOCK, megahertz * 1e6, "0", ("sm",)),
        Fact(gpu.PSTATE, pstate, "0"),
        Fact(gpu.EVENTS, tuple(reasons), "0"),
    )


def misheard(*series: str) -> Report:
    """Return a look at a Spark beside an exporter whose series are below what any Spark draws, and one that is gone."""
    claimed = [Claim(one, 4.0, one) for one in series]
    pages = (Page("http://x/metrics", tuple(claimed)), Page("http://y/metrics", fault="it answers 404"))
    return report(found(SPARK, *watts(gpu_nvml=4.0)), listener=Listener(lambda: pages))
