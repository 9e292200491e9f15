"""The examples that ship, each rule's wrong and right ones: what is found in them, and how it is told."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from audits import EXAMPLES, audited, found
from jsonschema import Draft202012Validator

from spark_agent.agent.audit.audit import Audit
from spark_agent.agent.audit.case import Target
from spark_agent.agent.audit.claim import Claim, Document, Finding
from spark_agent.agent.audit.files import read as documents
from spark_agent.agent.audit.rule import RULES
from spark_agent.exporters.audit_report import Format, tell

WRONG = sorted(path.name for path in EXAMPLES.glob("*-wrong.*"))
RIGHT = sorted(path.name for path in EXAMPLES.glob("*-right.*"))


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in the folder of the examples, so that findings name them as a user would."""
    monkeypatch.chdir(EXAMPLES)


def _claims(name: str) -> list[Claim]:
    return [claim for one in documents([name]) if isinstance(one, Document) for claim in one.claims]


def test_every_rule_has_both() -> None:
    """A wrong example for each rule, a right one for each wrong one, and nothing else in the folder."""
    assert set(RULES) == {name[:6] for name in WRONG}
    assert [name.replace("-wrong", "-right") for name in WRONG] == RIGHT
    assert sorted([*WRONG, *RIGHT]) == sorted(path.name for path in EXAMPLES.iterdir())


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    """Each panel and rule of a wrong example breaks the rule that it is an example of, and no other."""
    told = audited(name)

    assert [(claim.where, name[:6]) for claim in _claims(name)] == [(one.where, one.rule) for one in told.findings]
    assert () == told.errors


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    """Nothing at all is said of a right example, not even that a metric is unknown."""
    told = audited(name)

    assert ((), (), ()) == (told.findings, told.errors, told.unknown)
    assert len(_claims(name)) == told.claims > 0


@pytest.mark.parametrize("name", RIGHT)
def test_right_for_any_machine(name: str) -> None:
    """A right example is right where nobody says that the machines are Sparks."""
    assert () == audited(name, target=Target.ANY).findings


def test_no_example_disturbs_another() -> None:
    """All together they say what each says alone."""
    together = audited(".")
    alone = [one for name in sorted([*WRONG, *RIGHT]) for one in audited(name).findings]

    assert alone == list(together.findings)


@pytest.mark.parametrize("name", WRONG)
def test_lines(name: str) -> None:
    """The line of a finding has its expression."""
    lines = Path(name).read_text(encoding="utf-8").splitlines()

    for one in audited(name).findings:
        assert one.line is not None
        assert one.expr in lines[one.line - 1].replace('\\"', '"')


# Suggestions

#: How those begin that are words; every other is an expression, ready to be pasted.
_WORDS = re.compile(
    r"""leave\ gaps | two\ queries | maximum\  | legend\ " | unit\ " | \*\ 1\.1\ and | .*,?\ or\ "(?:of|estimate)
      | [\d.e+]+\ in\ place\ of""",
    re.VERBOSE,
)


def _suggested(name: str) -> list[Finding]:
    return [one for one in audited(name).findings if one.suggestion and not _WORDS.match(one.suggestion)]


@pytest.mark.parametrize("name", WRONG)
def test_suggested_expressions(name: str) -> None:
    """An expression that is suggested is PromQL, and in the place of the wrong one nothing is wrong any more."""
    still_wrong = []
    for one in _suggested(name):
        (claim,) = (claim for claim in _claims(name) if claim.where == one.where)
        queries = (
            replace(asked, expr=one.suggestion if asked.expr == one.expr else asked.expr) for asked in claim.queries
        )
        again = found(replace(claim, queries=tuple(queries)))
        still_wrong += [(one.suggestion, new.rule, new.message) for new in again]

    assert [] == still_wrong


def test_an_alert_stays_one() -> None:
    """An expression that is suggested for an alert compares something: without that it would always fire."""
    alerts = [one for name in WRONG for one in _suggested(name) if "› alert " in one.where]

    assert alerts
    assert [] == [one.suggestion for one in alerts if not re.search(r"[<>]|==", one.suggestion)]


def test_most_suggestions_are_expressions() -> None:
    """What is judged above is judged: the words do not swallow them."""
    assert sum(bool(one.suggestion) for one in audited(".").findings) / 2 < sum(map(len, map(_suggested, WRONG)))


# How it is told


def test_text(golden: Callable[[str, str], None]) -> None:
    """All examples, as a terminal shows them."""
    golden("audit.txt", tell(audited("."), Format.TEXT))


_TEXT = {"type": "string", "minLength": 1}
_FINDING: Mapping[str, Any] = {
    "type": "object",
    "required": ["rule", "severity", "file", "line", "where", "expr", "message", "suggestion"],
    "properties": {
        "rule": {"enum": list(RULES)},
        "name": {"enum": [rule.name for rule in RULES.values()]},
        "severity": {"enum": ["error", "warning", "info"]},
        "file": _TEXT,
        "line": {"type": ["integer", "null"], "minimum": 1},
        "where": _TEXT,
        "expr": _TEXT,
        "message": _TEXT,
        "suggestion": {"type": "string"},
    },
    "additionalProperties": False,
}
#: The fixed form of ``--output json``: more keys may come, none may be renamed.
_JSON = {
    "type": "object",
    "required": ["schema", "findings", "errors"],
    "properties": {
        "schema": {"const": "spark-agent/audit/1"},
        "findings": {"type": "array", "items": _FINDING},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["file", "message"],
                "properties": {"file": _TEXT, "message": _TEXT},
                "additionalProperties": False,
            },
        },
        "unknown_metrics": {"type": "array", "items": _TEXT},
        "documents": {"type": "integer", "minimum": 0},
        "claims": {"type": "integer", "minimum": 0},
        "accepted": {"type": "integer", "minimum": 0},
    },
    "additionalProperties": False,
}

_MESSAGE = {"type": "object", "required": ["text"], "properties": {"text": _TEXT}, "additionalProperties": False}
_LEVEL = {"enum": ["none", "note", "warning", "error"]}
#: What of SARIF 2.1.0 is used, as its own schema has it; keys that it does not know are refused.
_SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"enum": ["2.1.0"]},
        "runs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["tool"],
                "properties": {
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {
                                    "name": _TEXT,
                                    "version": _TEXT,
                                    "informationUri": {"type": "string", "format": "uri"},
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {
                                            "type": "object",
                                            "required": ["id"],
                                            "properties": {
                                                "id": _TEXT,
                                                "name": _TEXT,
                                                "shortDescription": _MESSAGE,
                                                "fullDescription": _MESSAGE,
                                                "helpUri": {"type": "string", "format": "uri"},
                                                "defaultConfiguration": {
                                                    "type": "object",
                                                    "properties": {"level": _LEVEL},
                                                    "additionalProperties": False,
                                                },
                                            },
                                            "additionalProperties": False,
                                        },
                                    },
                                },
                                "additionalProperties": False,
                            },
                        },
                        "additionalProperties": False,
                    },
                    "invocations": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["executionSuccessful"],
                            "properties": {
                                "executionSuccessful": {"type": "boolean"},
                                "toolExecutionNotifications": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "required": ["message"],
                                        "properties": {"level": _LEVEL, "message": _MESSAGE},
                                        "additionalProperties": False,
                                    },
                                },
                            },
                            "additionalProperties": False,
                        },
                    },
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["message"],
                            "properties": {
                                "ruleId": _TEXT,
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "level": _LEVEL,
                                "message": _MESSAGE,
                                "locations": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "properties": {
                                            "physicalLocation": {
                                                "type": "object",
                                                "properties": {
                                                    "artifactLocation": {
                                                        "type": "object",
                                                        "properties": {
                                                            "uri": {"type": "string", "format": "uri-reference"}
                                                        },
                                                        "additionalProperties": False,
                                                    },
                                                    "region": {
                                                        "type": "object",
                                                        "properties": {"startLine": {"type": "integer", "minimum": 1}},
                                                        "additionalProperties": False,
                                                    },
                                                },
                                                "additionalProperties": False,
                                            },
                                            "logicalLocations": {
                                                "type": "array",
                                                "items": {
                                                    "type": "object",
                                                    "properties": {"fullyQualifiedName": _TEXT},
                                                    "additionalProperties": False,
                                                },
                                            },
                                        },
                                        "additionalProperties": False,
                                    },
                                },
                                "partialFingerprints": {"type": "object", "additionalProperties": _TEXT},
                            },
                            "additionalProperties": False,
                        },
                    },
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}


def _faults(schema: Mapping[str, Any], document: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(document)]


@pytest.fixture
def told() -> Audit:
    """All examples, and what cannot be read."""
    return audited(".", "no such: file,100%.yml")


def test_json(told: Audit) -> None:
    """The document has the fixed form, and says the same as the findings."""
    document = json.loads(tell(told, Format.JSON))

    assert [] == _faults(_JSON, document)
    assert [(one.rule, one.file, one.line, one.expr, one.suggestion) for one in told.findings] == [
        (one["rule"], one["file"], one["line"], one["expr"], one["suggestion"]) for one in document["findings"]
    ]
    assert [{"file": "no such: file,100%.yml", "message": "No such file or directory"}] == document["errors"]


@pytest.mark.parametrize("change", [{"findings": [{"rule": "PWR001"}]}, {"schema": "other/1"}, {"surprise": 1}])
def test_the_form_can_refuse(told: Audit, change: Mapping[str, Any]) -> None:
    """The gate is one: what is wrong does not fit."""
    assert _faults(_JSON, json.loads(tell(told, Format.JSON)) | change)


def test_sarif(told: Audit) -> None:
    """The log is SARIF, has each rule once, and each finding with its rule, level, file and line."""
    log = json.loads(tell(told, Format.SARIF))
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    levels = {"error": "error", "warning": "warning", "info": "note"}

    assert [] == _faults(_SARIF, log)
    assert list(RULES) == [rule["id"] for rule in rules]
    assert [(one.rule, levels[one.severity], one.file, one.line) for one in told.findings] == [
        (
            rules[one["ruleIndex"]]["id"],
            one["level"],
            unquote(one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]),
            one["locations"][0]["physicalLocation"]["region"]["startLine"],
        )
        for one in run["results"]
    ]
    (invocation,) = run["invocations"]
    assert not invocation["executionSuccessful"]
    assert ["no such: file,100%.yml: No such file or directory"] == [
        one["message"]["text"] for one in invocation["toolExecutionNotifications"]
    ]


def test_fingerprints_tell_findings_apart(told: Audit) -> None:
    """GitHub takes two results with one fingerprint for the same."""
    (run,) = json.loads(tell(told, Format.SARIF))["runs"]

    assert len(told.findings) == len({json.dumps(one["partialFingerprints"]) for one in run["results"]})


_ANNOTATION = re.compile(r"::(error|warning|notice) file=([^,:]*)(?:,line=(\d+))?,title=([^,:]*)::(.*)")


def test_annotations(told: Audit) -> None:
    """Each is one line, in which what GitHub reads as its own signs is escaped."""
    lines = tell(told, Format.GITHUB).splitlines()
    read = [match.groups() for match in map(_ANNOTATION.fullmatch, lines) if match]

    assert len(lines) == len(read) == len(told.findings) + len(told.errors)
    for finding, (kind, file, line, title, text) in zip(told.findings, read, strict=False):
        assert {"error": "error", "warning": "warning", "info": "notice"}[finding.severity] == kind
        assert (finding.file, str(finding.line)) == (unquote(file), line)
        assert f"{finding.rule} {RULES[finding.rule].name}" == unquote(title)
        assert unquote(text).startswith(f"{finding.message}\n{finding.where}\n{finding.expr}")
    assert "no such%3A file%2C100%25.yml" == read[-1][1]
