"""The audit as a whole: documents are typed together, each claim is judged, and what its owner accepts is left out."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from spark_agent.agent.audit.case import Case, Remark, Target
from spark_agent.agent.audit.catalogue import Catalogue
from spark_agent.agent.audit.claim import (
    SEVERITIES,
    Claim,
    Document,
    Finding,
    Query,
    Severity,
    Shape,
    Unreadable,
)
from spark_agent.agent.audit.expression import ExpressionError
from spark_agent.agent.audit.rule import RULES
from spark_agent.agent.audit.rules import check
from spark_agent.agent.audit.scope import Scopes
from spark_agent.agent.audit.unit_rules import scaled_twice
from spark_agent.agent.audit.value import Judged
from spark_agent.agent.state import write_for_others

#: What identifies a finding from one audit to the next: rule, file, where in it, expression. Lines move.
Identity = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found, what could not be read, and what nobody can judge."""

    findings: tuple[Finding, ...]
    errors: tuple[Unreadable, ...]
    #: Metrics that speak of power, and of which nobody knows what they cover.
    unknown: tuple[str, ...] = ()
    documents: int = 0
    claims: int = 0
    #: Findings that the baseline accepts, and entries of it that no longer apply.
    accepted: tuple[Finding, ...] = ()
    stale: tuple[Identity, ...] = ()

    @property
    def worst(self) -> Severity | None:
        """The worst severity among the findings."""
        found = {finding.severity for finding in self.findings}
        return next((severity for severity in SEVERITIES if severity in found), None)


def identity(finding: Finding) -> Identity:
    """Return what identifies a finding from one audit to the next."""
    return finding.rule, finding.file, finding.where, finding.expr


def audit(
    read: Iterable[Document | Unreadable],
    catalogue: Catalogue,
    target: Target = Target.GB10,
    *,
    machines: int = 2,
    baseline: Iterable[Identity] = (),
) -> Audit:
    """Return what is wrong with documents, judged together: a recording rule of one is used in another.

    Args:
        read: What readers of files and servers yield.
        catalogue: What metrics cover, for the same target.
        target: Which machines are meant.
        machines: How many a sum spans that does not say.
        baseline: Findings that are known and accepted.

    """
    documents: list[Document] = []
    errors: list[Unreadable] = []
    for one in read:
        if isinstance(one, Document):
            documents.append(one)
        else:
            errors.append(one)
    records = [claim for document in documents for claim in document.claims if claim.shape is Shape.RECORD]
    scopes = Scopes(catalogue, records)
    findings: list[Finding] = []
    unknown: set[str] = set()
    cases: list[tuple[Document, Case]] = []
    for document in documents:
        for claim in document.claims:
            case, remarks = _judge(claim, scopes, target, machines)
            cases.append((document, case))
            unknown.update(name for _, judged in case.judged for name in judged.unknown)
            findings += _found(document, claim, (*remarks, *check(case)))
    for index, remark in scaled_twice([case for _, case in cases]):
        document, case = cases[index]
        findings += _found(document, case.claim, [remark])
    known = set(baseline)
    told = [(identity(finding), finding) for finding in findings]
    return Audit(
        tuple(finding for who, finding in told if who not in known),
        tuple(errors),
        tuple(sorted(unknown)),
        len(documents),
        len(cases),
        tuple(finding for who, finding in told if who in known),
        tuple(sorted(known - {who for who, _ in told})),
    )


def _judge(claim: Claim, scopes: Scopes, target: Target, machines: int) -> tuple[Case, list[Remark]]:
    """Return a claim with its queries typed, and what cannot be read."""
    judged: list[tuple[Query, Judged]] = []
    remarks = []
    for query in claim.queries:
        if query.foreign or not query.expr.strip():
            continue
        try:
            judged.append((query, scopes.judge(query.expr, claim.variables)))
        except ExpressionError as fault:
            remarks.append(Remark("PWR000", query, f"cannot be read as PromQL, so nothing was checked: {fault}"))
    if any(one.value.is_spark for _, one in judged):
        target = Target.GB10  # it says so itself
    words = "\n".join(line for line in claim.description.splitlines() if not _DISABLE.search(line))
    return Case(replace(claim, description=words), tuple(judged), target, machines), remarks


# What the owner of a rule or panel accepts: ``# spark-agent: disable PWR001 the title is for the wall display``

_DISABLE: Final = re.compile(r"spark-agent:\s*disable\s+(PWR\d{3}(?:\s*,\s*PWR\d{3})*)[ \t]*([^\n]*)", re.IGNORECASE)


def _disabled(claim: Claim) -> Mapping[str, str]:
    """Return the rules that a claim's comments, description and expressions disable, each with the reason given."""
    texts = [claim.description, *(query.expr for query in claim.queries)]
    return {
        rule.strip().upper(): match[2].strip(" -:–—")
        for text in texts
        for match in _DISABLE.finditer(text)
        for rule in match[1].split(",")
    }


def _found(document: Document, claim: Claim, remarks: Iterable[Remark]) -> Iterator[Finding]:
    disabled = _disabled(claim)
    for remark in remarks:
        message = remark.message
        if remark.rule in disabled:
            if disabled[remark.rule]:
                continue
            message += " (to disable this takes a reason: # spark-agent: disable RULE REASON)"
        yield Finding(
            remark.rule,
            remark.severity or RULES[remark.rule].severity,
            document.name,
            document.line_of(remark.query.at),
            claim.where,
            remark.query.expr,
            message,
            remark.suggestion,
        )


# What was accepted once, and is not told again


class BaselineError(ValueError):
    """A baseline that cannot be read or written, and why."""


_BASELINE: Final = 1
_KEYS: Final = ("rule", "file", "where", "expr")


def read_baseline(path: Path) -> set[Identity]:
    """Return the findings that a file accepts; a `BaselineError` says what is wrong with it."""
    try:
        read = json.loads(path.read_bytes())
        if read["baseline"] != _BASELINE:
            raise BaselineError(f"{path}: is a baseline of version {read['baseline']}; this agent reads {_BASELINE}")
        rows = [tuple(row[key] for key in _KEYS) for row in read["findings"]]
    except OSError as error:
        raise BaselineError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, BaselineError) else BaselineError(f"{path}: is no JSON: {error}") from error
    except (KeyError, TypeError):
        raise BaselineError(f"{path}: is no baseline; `spark-agent audit --write-baseline` writes one") from None
    return {(str(rule), str(file), str(where), str(expr)) for rule, file, where, expr in rows}


def write_baseline(path: Path, found: Audit) -> Audit:
    """Write a file that accepts all that was found, and what an earlier one accepted and is still there.

    Returns the audit with all of that accepted, and nothing stale.
    """
    accepted = (*found.accepted, *found.findings)
    rows = sorted({identity(finding) for finding in accepted})
    text = json.dumps(
        {"baseline": _BASELINE, "findings": [dict(zip(_KEYS, row, strict=True)) for row in rows]},
        indent=2,
        ensure_ascii=False,
    )
    try:
        write_for_others(path, f"{text}\n".encode())
    except OSError as error:
        raise BaselineError(f"{path}: {error.strerror}") from error
    return replace(found, findings=(), accepted=accepted, stale=())
