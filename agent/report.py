"""What the exporters see: one look, what it says of power, the verdicts on it, and the findings."""

from dataclasses import dataclass

from spark_agent.agent.budget import Budget, judge
from spark_agent.agent.health import Finding, findings
from spark_agent.agent.history import History
from spark_agent.agent.power import Power, understand
from spark_agent.agent.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Report:
    """All that an exporter may know; a ``history`` only the daemon has."""

    snapshot: Snapshot
    power: Power
    budget: Budget
    findings: tuple[Finding, ...]
    history: History | None = None


def report(snapshot: Snapshot) -> Report:
    """Say what one look means."""
    power = understand(snapshot)
    budget = judge(snapshot, power)
    return Report(snapshot, power, budget, findings(snapshot, power, budget))
