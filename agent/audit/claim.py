"""What is audited, as values: panels, alerts, recording rules and queries, with all that they say in words.

Readers make them of files and servers; ``scope`` and ``rules`` judge them, and know nothing of files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

#: Where in a document something stands: the keys and indices that lead to it. ("panels", 3, "targets", 0, "expr")
At = tuple[str | int, ...]
#: Which line, from 1, that is; None where the format knows none.
LineOf = Callable[[At], int | None]


class Shape(StrEnum):
    """What kind of thing makes a claim."""

    PANEL = "panel"
    ALERT = "alert"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression, as written, with the legend or label that its result is shown under."""

    expr: str
    at: At
    legend: str = ""
    #: Grafana's unit for this series alone, where an override gives it one.
    unit: str | None = None
    #: Why it is not PromQL: the type of its data source ("loki"). Such a query is not judged.
    foreign: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """One panel, alert or recording rule: what it shows, and what it says that it shows."""

    shape: Shape
    #: For people: ``dashboard "Cluster" › row "Power" › panel "Total" (12)``, ``group "gpu" › alert "GpuHot"``.
    where: str
    at: At
    #: Title of a panel; name of an alert or a record.
    title: str
    queries: tuple[Query, ...]
    #: Description of a panel, annotations of an alert, and in YAML the comments above and inside the rule.
    description: str = ""
    #: Words that it stands under, outermost first: titles of folder, dashboard and row, name of the group, tags.
    context: tuple[str, ...] = ()
    #: Grafana's unit id (``watt``, ``kwatth``, ``percentunit``), which holds where a query has none of its own.
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    #: Absolute steps of thresholds, in the unit of the panel; those in percent of the range are left out.
    thresholds: tuple[float, ...] = ()
    #: What turns missing data into 0 outside the query, as written: ``"nullPointMode": "null as zero"``.
    zero_filled: str | None = None
    #: Labels that a rule sets.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Grafana's variables that have one value for all readers (constants, text boxes): name to text.
    variables: Mapping[str, str] = field(default_factory=dict)


def _no_line(at: At) -> int | None:  # noqa: ARG001  (a server's answer has no lines)
    return None


@dataclass(frozen=True, slots=True)
class Document:
    """One file, or one answer of a server, that was read: its name as the user knows it, and what it claims."""

    name: str
    claims: tuple[Claim, ...]
    #: Asked for findings only.
    line_of: LineOf = _no_line


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A path or server that could not be audited, and why, in one line."""

    name: str
    message: str


class Severity(StrEnum):
    """How bad a finding is: it decides the exit code (error 2, warning 1, info 0)."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


#: From the worst.
SEVERITIES: Final = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Finding:
    """One misreading: which rule, where, what is wrong and why, and what to write instead."""

    rule: str
    severity: Severity
    file: str
    line: int | None
    where: str
    expr: str
    message: str
    #: A replacement expression or wording, ready to be pasted; "" where there is none to offer.
    suggestion: str = ""
