"""What the exporters see: one look, what it says of power and of the parts, the verdicts on it, and the findings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from spark_agent.agent import BEAT_SECONDS
from spark_agent.agent.budget import STALE_SECONDS, Budget, judge
from spark_agent.agent.calibration import Calibration
from spark_agent.agent.estimate import NONE, Estimate, estimate
from spark_agent.agent.health import Finding, findings
from spark_agent.agent.history import History
from spark_agent.agent.power import Power, understand
from spark_agent.agent.snapshot import Snapshot, Visit
from spark_agent.agent.specification import Part, compare
from spark_agent.collectors import platform


@dataclass(frozen=True, slots=True)
class Report:
    """All that an exporter may know.

    ``parts`` are a Spark's, held against its specification. A ``history`` only the daemon has; ``since`` says when a
    finding began to hold. On the ``estimate`` nothing else here rests.
    """

    snapshot: Snapshot
    power: Power
    budget: Budget
    parts: tuple[Part, ...]
    findings: tuple[Finding, ...]
    history: History | None = None
    since: Mapping[str, float] = field(default_factory=dict)
    estimate: Estimate = NONE


#: Seconds for which a finding must have held before one who watches tells it.
FOR_SECONDS: Final = {"gpu_mismatch": 60.0}


def report(
    snapshot: Snapshot,
    before: Report | None = None,
    *,
    watching: bool = False,
    beat_seconds: float = BEAT_SECONDS,
    calibration: Calibration | None = None,
) -> Report:
    """Say what one look means; who is ``watching``, look after look, gives the report ``before``.

    A ``calibration`` is that of this machine's estimate, if its owner made one.
    """
    if before and snapshot.at - before.snapshot.at > max(STALE_SECONDS, 2 * beat_seconds):
        before = None  # what happened in between nobody knows
    power = understand(snapshot)
    budget = judge(snapshot, power, before.budget if before else None, watching=watching)
    parts = _parts(snapshot, before)
    found = findings(snapshot, power, budget, parts)
    since = {finding.id: before.since.get(finding.id, snapshot.at) if before else snapshot.at for finding in found}
    if watching:
        found = tuple(one for one in found if snapshot.at - since[one.id] >= FOR_SECONDS.get(one.id, 0.0))
    estimated = estimate(snapshot, power, before.estimate if before else None, calibration)
    return Report(snapshot, power, budget, parts, found, since=since, estimate=estimated)


def _parts(snapshot: Snapshot, before: Report | None) -> tuple[Part, ...]:
    """Compare a Spark's parts with its specification: at the pace at which the platform is looked at, or sooner."""
    then, now = before.snapshot.visits if before else (), snapshot.visits
    if before and len(then) == len(now) and all(map(_is_told, then, now)):
        return before.parts
    return compare(snapshot) if snapshot.fact(platform.IS_SPARK) else ()


def _is_told(before: Visit, now: Visit) -> bool:
    """Whether a visit has nothing to add to the one before about what is there."""
    alike = before.collector == now.collector and before.status is now.status
    return before is now or (alike and now.collector != "platform")
