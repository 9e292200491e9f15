"""Documents and screens of machines, as tests compare them."""

import io
import json
from functools import cache
from typing import Any

from rich.console import Console

from spark_agent.agent.machine import Machine, open_demo
from spark_agent.agent.report import Report, report
from spark_agent.agent.snapshot import look
from spark_agent.collectors import discover
from spark_agent.exporters.document import document, text
from spark_agent.exporters.table import show


def looked_at(machine: Machine) -> Report:
    """Return the report of one look."""
    return report(look(machine.host, discover()))


@cache
def demo_report(name: str) -> Report:
    """Return the report of one look at a built-in machine."""
    return looked_at(open_demo(name))


def steady(found: Report) -> dict[str, Any]:
    """Return the document without what differs from run to run and from release to release."""
    whole = json.loads(text(document(found)))
    del whole["agent"]
    for collector in whole["collectors"]:
        del collector["seconds"]
    return dict(whole)


def screen(found: Report, width: int = 80) -> str:
    """Return the screen as text without colours."""
    out = io.StringIO()
    show(found, Console(file=out, width=width, highlight=False, markup=False, emoji=False))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
