"""What an audit found: as a compiler would print it, as JSON, as SARIF, and as annotations of GitHub.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
"""

import json
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

from spark_agent.agent import __version__
from spark_agent.agent.audit.audit import Audit, identity
from spark_agent.agent.audit.claim import SEVERITIES, Finding, Severity
from spark_agent.agent.audit.rule import RULES


class Format(StrEnum):
    """How an audit is told."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


#: Names of metrics that the summary shows.
_NAMED: Final = 8


def tell(audit: Audit, form: Format) -> str:
    """Return an audit in one of the formats, with its last line's end."""
    match form:
        case Format.JSON:
            return _json(document(audit))
        case Format.SARIF:
            return _json(sarif(audit))
        case Format.GITHUB:
            return "".join(f"{line}\n" for line in _annotations(audit))
        case Format.TEXT:
            return "".join(f"{line}\n" for line in _lines(audit))


def _json(value: Any) -> str:
    """Return JSON that people can read in their language, with what could steer a terminal escaped."""
    lines = json.dumps(value, indent=2, ensure_ascii=False).split("\n")
    return "".join(f"{line if line.isprintable() else _escaped(line)}\n" for line in lines)


def _escaped(line: str) -> str:
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in line)


# Text


def _lines(audit: Audit) -> Iterator[str]:
    for finding in audit.findings:
        rule = RULES[finding.rule]
        yield f"{_place(finding)}: {finding.severity}: {finding.rule} {rule.name}: {finding.message}"
        yield f"    in {_plain(finding.where)}"
        yield from (f"    {_plain(line)}" for line in finding.expr.strip().splitlines()[:_EXPR_LINES])
        if finding.suggestion:
            yield f"    instead: {_plain(finding.suggestion)}"
    for error in audit.errors:
        yield f"{_plain(error.name)}: not audited: {_plain(error.message)}"
    yield summary(audit)


#: Lines that are shown of an expression.
_EXPR_LINES: Final = 6


def _place(finding: Finding) -> str:
    return _plain(finding.file if finding.line is None else f"{finding.file}:{finding.line}")


def _plain(text: str) -> str:
    """Return a text without what could steer a terminal: it comes from files of others."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)


def summary(audit: Audit) -> str:
    """Return one line: how much was audited, and with what outcome."""
    counts = Counter(finding.severity for finding in audit.findings)
    told = [_counted(counts[severity], severity.value) for severity in SEVERITIES if counts[severity]] or [
        "no findings"
    ]
    parts = [f"{', '.join(told)} in {_counted(audit.claims, 'panel or rule', 'panels and rules')}"]
    parts[0] += f" of {_counted(audit.documents, 'document')}"
    if audit.accepted:
        parts.append(f"{len(audit.accepted)} accepted by the baseline")
    if audit.stale:
        parts.append(f"{_counted(len(audit.stale), 'entry', 'entries')} of the baseline no longer found")
    if audit.errors:
        parts.append(f"{_counted(len(audit.errors), 'thing')} could not be audited")
    if audit.unknown:
        more = f" and {len(audit.unknown) - _NAMED} more" if len(audit.unknown) > _NAMED else ""
        parts.append(
            f"nobody knows what these cover, so they were not judged: {', '.join(audit.unknown[:_NAMED])}{more}"
        )
    return "; ".join(parts)


def _counted(number: int, one: str, many: str = "") -> str:
    if number == 1:
        return f"1 {one}"
    return f"{number} {many or (one if one == Severity.INFO else f'{one}s')}"


# JSON


def document(audit: Audit) -> dict[str, Any]:
    """Return an audit as the JSON document of ``--output json``."""
    return {
        "schema": "spark-agent/audit/1",
        "findings": [
            {
                "rule": finding.rule,
                "name": RULES[finding.rule].name,
                "severity": finding.severity,
                "file": finding.file,
                "line": finding.line,
                "where": finding.where,
                "expr": finding.expr,
                "message": finding.message,
                "suggestion": finding.suggestion,
            }
            for finding in audit.findings
        ],
        "errors": [{"file": error.name, "message": error.message} for error in audit.errors],
        "unknown_metrics": list(audit.unknown),
        "documents": audit.documents,
        "claims": audit.claims,
        "accepted": len(audit.accepted),
    }


_LEVELS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_SARIF_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(audit: Audit) -> dict[str, Any]:
    """Return an audit as SARIF 2.1.0."""
    ids = list(RULES)
    return {
        "$schema": _SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "spark-agent",
                        "version": __version__,
                        "rules": [
                            {
                                "id": rule.id,
                                "name": rule.name,
                                "shortDescription": {"text": rule.what},
                                "defaultConfiguration": {"level": _LEVELS[rule.severity]},
                            }
                            for rule in RULES.values()
                        ],
                    }
                },
                "invocations": [
                    {
                        "executionSuccessful": not audit.errors,
                        "toolExecutionNotifications": [
                            {"level": "error", "message": {"text": f"{error.name}: {error.message}"}}
                            for error in audit.errors
                        ],
                    }
                ],
                "results": [_result(finding, ids) for finding in audit.findings],
            }
        ],
    }


def _result(finding: Finding, ids: list[str]) -> dict[str, Any]:
    text = f"{finding.message}. In {finding.where}: {finding.expr}"
    if finding.suggestion:
        text += f". Instead: {finding.suggestion}"
    place: dict[str, Any] = {"artifactLocation": {"uri": quote(finding.file)}}
    if finding.line is not None:
        place["region"] = {"startLine": finding.line}
    return {
        "ruleId": finding.rule,
        "ruleIndex": ids.index(finding.rule),
        "level": _LEVELS[finding.severity],
        "message": {"text": text},
        "locations": [{"physicalLocation": place, "logicalLocations": [{"fullyQualifiedName": finding.where}]}],
        "partialFingerprints": {"finding/v1": "|".join(identity(finding))},
    }


# GitHub

_COMMANDS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def _annotations(audit: Audit) -> Iterator[str]:
    for finding in audit.findings:
        line = "" if finding.line is None else f",line={finding.line}"
        title = f"{finding.rule} {RULES[finding.rule].name}"
        text = f"{finding.message}\n{finding.where}\n{finding.expr}"
        if finding.suggestion:
            text += f"\ninstead: {finding.suggestion}"
        where = f"file={_property(finding.file)}{line},title={_property(title)}"
        yield f"::{_COMMANDS[finding.severity]} {where}::{_data(text)}"
    for error in audit.errors:
        yield f"::error file={_property(error.name)},title=not audited::{_data(error.message)}"


def _data(text: str) -> str:
    return "%0A".join(_plain(line).replace("%", "%25") for line in text.splitlines())


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
