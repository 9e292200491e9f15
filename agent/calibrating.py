"""Reading a box for its calibration: what looks of some seconds saw on average, beside what a meter shows."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Final

from spark_agent.agent.calibration import (
    SPBM_WATTS,
    Anchor,
    Calibration,
    Point,
    difference,
    from_wall,
    identity,
)
from spark_agent.agent.estimate import busy_cores
from spark_agent.agent.machine import Machine
from spark_agent.agent.power import Measured, Unmeasured
from spark_agent.agent.report import Report
from spark_agent.agent.sampler import Sampler
from spark_agent.agent.terms import Inputs
from spark_agent.collectors import Collector, Host, Scope, cpu, discover, platform

#: What the estimate rests on, and what says which machine this is.
COLLECTORS: Final = ("cpu", "gpu", "nic", "platform", "spbm")

# By NVML, a GPU at rest or under one steady load moves by less.
_UNSTEADY_WATTS: Final = 4.0
_UNSTEADY_SHARE: Final = 0.25


class CannotTellError(Exception):
    """What was looked at is no reading: which part is missing or does not hold still."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What some seconds of looks saw: the last of them, means of what the estimate rests on, and the system's power.

    ``system`` is in watts, one for each look; empty where one of them did not measure it, which ``why_not`` explains.
    """

    last: Report
    inputs: Inputs
    system: tuple[float, ...]
    why_not: str


def watch(
    host: Host, machine: Machine | None, seconds: float, at: float = 0.0, sleep: Callable[[float], None] = time.sleep
) -> Looked:
    """Look for so many seconds; a replayed machine is played from ``at`` on, and nobody waits for it."""
    now = at
    chosen: Mapping[str, Collector] = {name: read for name, read in discover().items() if name in COLLECTORS}
    sampler = Sampler(host, chosen, advance=lambda: machine.play(now) if machine else False)
    reports: list[Report] = []
    began = time.monotonic()
    for passed in _moments(seconds):
        now = at + passed
        if machine is None:
            sleep(max(0.0, began + passed - time.monotonic()))
        # Nothing is to be older than this look.
        sampler.disturb()
        reports.append(sampler.beat(math.inf))
        _must_be_spark(reports[0])
    return _looked(reports)


def _moments(seconds: float) -> Iterator[float]:
    """Yield each whole second, and the last moment."""
    yield from range(math.ceil(seconds))
    yield seconds


def _must_be_spark(report: Report) -> None:
    if report.snapshot.fact(platform.IS_SPARK) is not True:
        raise CannotTellError("this machine is no GB10, and nothing is estimated for it")


def _looked(reports: list[Report]) -> Looked:
    first, last = reports[0], reports[-1]
    watts = [_gpu(report) for report in reports]
    if max(watts) - min(watts) > max(_UNSTEADY_WATTS, _UNSTEADY_SHARE * fmean(watts)):
        raise CannotTellError(
            f"the GPU's power moved between {min(watts):.1f} and {max(watts):.1f} W meanwhile; try again when it is "
            "steady"
        )
    inputs = last.estimate.inputs
    if inputs is None or any(
        (one.card, one.ethernet) != (inputs.card, inputs.ethernet) for one in map(_inputs, reports)
    ):
        raise CannotTellError("a network card came, went or changed its link meanwhile; try again")
    performance, efficiency = _busy(first, last)
    mean = replace(inputs, gpu=round(fmean(watts), 3), performance=performance, efficiency=efficiency)
    system, why_not = _system(reports)
    return Looked(last, mean, system, why_not)


def _inputs(report: Report) -> Inputs:
    return report.estimate.inputs or Inputs()


def _gpu(report: Report) -> float:
    watts = _inputs(report).gpu
    if watts is None:
        known = report.power.scopes[Scope.GPU_NVML]
        why = known.detail or known.reason if isinstance(known, Unmeasured) else f"{known.value:.1f} W cannot be"
        raise CannotTellError(f"NVML does not give the GPU's power, which a calibration takes: {why}")
    return watts


def _busy(first: Report, last: Report) -> tuple[float, float]:
    before, now = first.estimate.cores, last.estimate.cores
    kinds = {fact.entity: str(fact.value) for fact in last.snapshot.facts(cpu.CORE_TYPE)}
    busy = busy_cores(kinds, before.times, now.times) if before and now else None
    if busy is None:
        raise CannotTellError("how busy the cores were cannot be told: /proc/stat gives no two readings of all of them")
    return round(busy[0], 3), round(busy[1], 3)


def _system(reports: list[Report]) -> tuple[tuple[float, ...], str]:
    found = []
    for report in reports:
        known = report.power.scopes[Scope.SYSTEM]
        if not isinstance(known, Measured):
            return (), known.detail or known.reason
        found.append(known.value)
    return tuple(found), ""


def point(looked: Looked, wall: float | None) -> Point:
    """Return a reading of what was looked at: of a meter at the wall, in watts, or of the firmware's power page."""
    taken_at = datetime.fromtimestamp(looked.last.snapshot.taken_at, UTC).isoformat(timespec="seconds")
    if wall is not None:
        return Point(taken_at, "wall", wall, Anchor(looked.inputs, *from_wall(wall)))
    if not looked.system:
        raise CannotTellError(f"the firmware's power page does not give the system's power here: {looked.why_not}")
    mean = fmean(looked.system)
    swing = max(SPBM_WATTS, (max(looked.system) - min(looked.system)) / 2)
    return Point(taken_at, "spbm", round(mean, 3), Anchor(looked.inputs, mean - swing, mean + swing))


@dataclass(frozen=True, slots=True)
class Step:
    """A calibration with one reading more, and what had to be dropped for it."""

    calibration: Calibration
    dropped: str = ""


def with_idle(before: Calibration | None, path: Path, report: Report, reading: Point) -> Step:
    """Return a calibration with a new reading at idle; the load's stays where it still fits."""
    machine = identity(report.snapshot)
    if before is None or before.load is None:
        return Step(Calibration.of(path, machine, reading))
    if why := difference(before.machine, machine):
        return Step(Calibration.of(path, machine, reading), f"the reading under load is dropped, for {why}")
    try:
        return Step(Calibration.of(path, machine, reading, before.load))
    except ValueError as error:
        return Step(Calibration.of(path, machine, reading), f"the reading under load is dropped: {error}")


def with_load(before: Calibration, report: Report, reading: Point) -> Step:
    """Return a calibration with a new reading under load; raises `CannotTellError` where the one at idle is no more."""
    if why := difference(before.machine, identity(report.snapshot)):
        raise CannotTellError(f"since the reading at idle, {why}; read idle anew, with --idle")
    return Step(Calibration.of(before.path, before.machine, before.idle, reading))
