"""What the exporters see: one look, what it says of power and of the parts, the verdicts on it, and the findings."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace

from spark_agent.agent import BEAT_SECONDS
from spark_agent.agent.auditor import Tally
from spark_agent.agent.budget import STALE_SECONDS, Budget, Limit, judge
from spark_agent.agent.calibration import Calibration
from spark_agent.agent.energy import Energies, Meter
from spark_agent.agent.energy import readings as energy_readings
from spark_agent.agent.estimate import NONE, Estimate, estimate
from spark_agent.agent.estimate import readings as estimate_readings
from spark_agent.agent.frozen import distrust
from spark_agent.agent.health import Finding, findings
from spark_agent.agent.history import History
from spark_agent.agent.lowpower import judge_clocks
from spark_agent.agent.misread import Hearsay, Listener
from spark_agent.agent.power import Power, understand, without
from spark_agent.agent.snapshot import Snapshot, Visit
from spark_agent.agent.specification import Part, compare
from spark_agent.agent.watch import Watch
from spark_agent.collectors import Reading, platform


@dataclass(frozen=True, slots=True)
class Report:
    """All that an exporter may know.

    ``parts`` are a Spark's, held against its specification. A ``history`` only the daemon has, and ``energies`` only
    who looks again and again; ``watch`` is what the next look must know of this one and of those before. On the
    ``estimate`` nothing else here rests. What other exporters say (``hearsay``) and what the last ``audit`` found is
    there where somebody asked for it.
    """

    snapshot: Snapshot
    power: Power
    budget: Budget
    parts: tuple[Part, ...]
    findings: tuple[Finding, ...]
    history: History | None = None
    watch: Watch = field(default_factory=Watch)
    energies: Energies = field(default_factory=dict)
    estimate: Estimate = NONE
    hearsay: Hearsay | None = None
    audit: Tally | None = None

    def of(self, collectors: Container[str]) -> "Report":
        """Return the same report without what other collectors read; what was made of that stays."""
        visits = tuple(visit for visit in self.snapshot.visits if visit.collector in collectors)
        return replace(self, snapshot=replace(self.snapshot, visits=visits))

    def derived(self) -> tuple[Reading, ...]:
        """Return what the agent itself makes of what was read, as readings of its own declarations."""
        return (*energy_readings(self.energies), *estimate_readings(self.estimate))


def report(
    snapshot: Snapshot,
    before: Report | None = None,
    *,
    watching: bool = False,
    beat_seconds: float = BEAT_SECONDS,
    meter: Meter | None = None,
    own: Sequence[Limit] = (),
    calibration: Calibration | None = None,
    listener: Listener | None = None,
) -> Report:
    """Say what one look means; who is ``watching``, look after look, gives the report ``before`` and a ``meter``.

    ``own`` are the limits that the owner has set (`budget.own_limits`). A ``calibration`` is that of this machine's
    estimate, if its owner made one. A ``listener`` hears what other exporters say of it.
    """
    if before and snapshot.at - before.snapshot.at > max(STALE_SECONDS, 2 * beat_seconds):
        before = None  # what happened in between nobody knows
    watch = Watch(snapshot.at, before.watch if before else None, watching=watching)
    power = distrust(understand(snapshot), snapshot, watch)
    if meter:
        meter.note(snapshot, power, beat_seconds=beat_seconds)
        power = without(power, meter.contradictions)
    budget = judge(snapshot, power, before.budget if before else None, watching=watching, own=own)
    budget = judge_clocks(snapshot, power, budget, watch)
    parts = _parts(snapshot, before)
    hearsay = listener.hear(snapshot, power) if listener else None
    found = findings(snapshot, power, budget, parts, watch, hearsay)
    estimated = estimate(snapshot, power, before.estimate if before else None, calibration)
    return Report(snapshot, power, budget, parts, found, watch=watch, estimate=estimated, hearsay=hearsay)


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
