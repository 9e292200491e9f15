"""Rules for Prometheus: what a fleet of Sparks draws, and the alerts. `spark-agent rules` prints them.

The names of recorded series are level, metric and operations. What is measured is never added to what is estimated:
the sum over a fleet is that of the Sparks whose system is measured, and says beside it which share of them that is.

https://prometheus.io/docs/practices/rules/
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from spark_agent.agent import energy, estimate, health
from spark_agent.collectors import Scope, spbm
from spark_agent.exporters.alerts import AGENT, MACHINE, POWER, TARGET, Alert, metric, selector
from spark_agent.exporters.prometheus import BUILD, FINDING, HEADROOM, LIMIT_SECONDS


@dataclass(frozen=True, slots=True)
class Recording:
    """A series that Prometheus makes of others."""

    name: str
    expression: str


_SYSTEM: Final = metric(spbm.SYSTEM)
_ENERGY: Final = metric(energy.ENERGIES[Scope.SYSTEM]).removesuffix("_total")
_LIMIT_SECONDS: Final = LIMIT_SECONDS.name
#: Each Spark that is told now, by the labels of its target.
_SPARKS: Final = f"instance:{BUILD.metric}:group"

RECORDINGS: Final = (
    Recording(
        _SPARKS,
        f"group without ({', '.join(BUILD.labels)}) ({BUILD.metric})\n"
        f"unless {TARGET}\n"
        f"{selector(FINDING, id=health.NOT_A_SPARK.id)}",
    ),
    Recording(f"fleet:{BUILD.metric}:count", f"count({_SPARKS})"),
    Recording(f"instance:{_SYSTEM}:avg5m", f"avg_over_time({_SYSTEM}[5m])"),
    Recording(f"fleet:{_SYSTEM}:sum", f"sum({_SYSTEM})"),
    Recording(f"fleet:{_SYSTEM}:count", f"count({_SYSTEM})"),
    # Of Sparks, and so 0 where none is measured; a power is never made 0.
    Recording(
        f"fleet:{_SYSTEM}:coverage",
        f"avg(\n  ({_SPARKS} and {TARGET} {_SYSTEM})\n  or\n  0 * {_SPARKS}\n)",
    ),
    *(
        Recording(f"fleet:{metric(bound)}:sum", f"sum({metric(bound)} unless {TARGET} {_SYSTEM})")
        for bound in (estimate.LOWER, estimate.UPPER)
    ),
    Recording(f"fleet:{HEADROOM.metric}:min", f"min({HEADROOM.metric})"),
    # One method takes over from the other; together they are what was drawn.
    Recording(f"instance:{_ENERGY}:rate5m", f"sum without (method) (rate({_ENERGY}_total[5m]))"),
    Recording(f"fleet:{_ENERGY}:rate5m", f"sum(instance:{_ENERGY}:rate5m)"),
    Recording(f"instance:{_LIMIT_SECONDS}:rate5m", f"rate({LIMIT_SECONDS.metric}[5m])"),
)

GROUPS: Final[Mapping[str, tuple[Recording | Alert, ...]]] = {
    "spark-agent-fleet": RECORDINGS,
    "spark-agent-power": POWER,
    "spark-agent-machine": MACHINE,
    "spark-agent-agent": AGENT,
}

#: Where the runbook is: a path in this project, unless it is told where people can read it.
RUNBOOK: Final = "docs/alerts.md"

_HEAD: Final = f"""\
# Made by `spark-agent rules` from what its verdicts and findings go by; what it makes next takes the place of this.
# {RUNBOOK} says of each alert what it means and what to do.
"""


class _Dumper(yaml.SafeDumper):
    """Writes expressions as they are, line by line."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def text(runbook: str = RUNBOOK, hurry: int = 1) -> str:
    """Return the rules as a YAML file, with links to a runbook.

    ``hurry`` divides each ``for`` and each window: for tests, which cannot wait, and scrape as much more often.
    """
    groups = [
        {"name": name, "rules": [_rule(rule, runbook, hurry) for rule in rules]} for name, rules in GROUPS.items()
    ]
    dumped = yaml.dump({"groups": groups}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return f"{_HEAD}{dumped}"


def _rule(rule: Recording | Alert, runbook: str, hurry: int) -> dict[str, Any]:
    expression = _WINDOW.sub(lambda found: f"[{_duration(_seconds(found) / hurry)}]", rule.expression)
    if isinstance(rule, Recording):
        return {"record": rule.name, "expr": expression}
    return {
        "alert": rule.name,
        "expr": expression,
        "for": _duration(rule.lasting / hurry),
        "labels": {"severity": str(rule.severity)},
        "annotations": {
            "summary": rule.summary,
            "description": rule.description,
            "runbook_url": f"{runbook}#{rule.name.lower()}",
        },
    }


_WINDOW: Final = re.compile(r"\[(\d+)([mhd])\]")
_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def _seconds(window: re.Match[str]) -> float:
    return int(window[1]) * _UNITS[window[2]]


def _duration(seconds: float) -> str:
    """Return a time as Prometheus writes it, in whole numbers of one unit."""
    return next(f"{seconds / size:.0f}{unit}" for unit, size in _UNITS.items() if not round(seconds) % size)
