"""What ``doctor`` says: findings worst first, what is fine, and what cannot be told. ``docs/findings.md`` has them."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from spark_agent.agent.budget import Headroom
from spark_agent.agent.checkup import Outcome, checked, severity, worth_telling
from spark_agent.agent.finding import Severity
from spark_agent.agent.report import Report
from spark_agent.exporters.document import document
from spark_agent.exporters.table import SEVERITY_STYLES, energy_lines, energy_title, finding_lines, title

SCHEMA: Final = "spark-agent/doctor/1"

_SUMMARY: Final = {
    Severity.OK: "nothing to mend",
    Severity.INFO: "nothing to mend",
    Severity.WARNING: "something to see to",
    Severity.CRITICAL: "something to mend now",
    Severity.UNKNOWN: "something could not be looked at",
}


def diagnosis(report: Report, *, is_interrupted: bool = False) -> dict[str, Any]:
    """Return the diagnosis as plain JSON values; what the document has too is told as there."""
    whole = document(report)
    power = whole.get("power", {})
    return {
        "schema": SCHEMA,
        "agent": whole["agent"],
        "machine": whole["machine"],
        "watched_seconds": round(report.watch.seconds, 3),
        "interrupted": is_interrupted,
        "severity": severity(report).value,
        "headroom": power.get("headroom"),
        "verdicts": power.get("verdicts"),
        "energy": power.get("energy"),
        "findings": whole["findings"],
        "checks": [
            {
                "id": check.id,
                "name": check.name,
                "outcome": check.outcome.value,
                "why": check.why or None,
                "findings": list(check.findings),
            }
            for check in checked(report)
        ],
    }


def text(found: dict[str, Any]) -> str:
    """Return a diagnosis as text. Never a NaN in it."""
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)


def show(report: Report, console: Console, *, is_interrupted: bool = False) -> None:
    """Print the diagnosis, for a person."""
    console.print(title(report.snapshot))
    for name, body in (
        (_how_long(report, is_interrupted=is_interrupted), _summary(report)),
        ("Findings", _findings(report)),
        (energy_title(report), energy_lines(report)),
        ("Checked and fine", _fine(report)),
        ("Cannot be told", _unknown(report)),
    ):
        if parts := list(body):
            console.print(Rule(Text(name, "bold"), align="left", style="dim", characters="─"))
            console.print(Padding(Group(*parts), (0, 0, 0, 1)))


def _how_long(report: Report, *, is_interrupted: bool) -> str:
    if not report.watch.watching:
        return "Doctor, after one look"
    cut = ", ended early" if is_interrupted else ""
    return f"Doctor, after {report.watch.seconds:.0f} s{cut}"


def _summary(report: Report) -> Iterator[RenderableType]:
    worst = severity(report)
    word, style = SEVERITY_STYLES[Severity.OK if worst is Severity.INFO else worst]
    yield Text.assemble((f"{word}: ", style), (_SUMMARY[worst], "bold"))
    room = report.budget.headroom
    if isinstance(room, Headroom):
        line = Text(f"headroom {room.watts:.1f} W before {room.limit.title} binds: ")
        line.append(f"{room.against.value:.1f} of {room.limit.watts:g} W ")
        yield line.append(f"({room.against.source}; {room.limit.source})", "dim")
    else:
        yield Text(f"headroom withheld: {room.detail}", "dim")


def _findings(report: Report) -> Iterable[RenderableType]:
    for finding in worth_telling(report):
        yield from finding_lines(finding)


def _fine(report: Report) -> Iterator[RenderableType]:
    if fine := [check.name for check in checked(report) if check.outcome is Outcome.FINE]:
        yield Text(" · ".join(fine))


def _unknown(report: Report) -> Iterator[RenderableType]:
    for check in checked(report):
        if check.outcome is Outcome.UNKNOWN:
            yield Text.assemble((f"{check.name}: ", "magenta"), (check.why, "dim"))
