"""Audits of what a test imagines: panels, alerts and recording rules as values, and files through the whole of it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from spark_agent.agent.audit.audit import Audit, audit
from spark_agent.agent.audit.case import Target
from spark_agent.agent.audit.catalogue import Catalogue, own_rows
from spark_agent.agent.audit.claim import Claim, Document, Finding, Query, Shape
from spark_agent.agent.audit.files import read

EXAMPLES = Path(__file__).parent / "audit" / "examples"


def panel(
    title: str,
    *queries: str | tuple[str, str],
    unit: str | None = None,
    maximum: float | None = None,
    thresholds: tuple[float, ...] = (),
    description: str = "",
    context: tuple[str, ...] = (),
    variables: Mapping[str, str] | None = None,
) -> Claim:
    """Return a panel; a query is an expression, or one with its legend."""
    asked = ((one, "") if isinstance(one, str) else one for one in queries)
    return Claim(
        Shape.PANEL,
        f'panel "{title}"',
        (),
        title,
        tuple(Query(expr, ("targets", index), legend) for index, (expr, legend) in enumerate(asked)),
        description,
        context,
        unit,
        maximum=maximum,
        thresholds=thresholds,
        variables=variables or {},
    )


def alert(name: str, expr: str, description: str = "", labels: Mapping[str, str] | None = None) -> Claim:
    """Return an alert."""
    return Claim(Shape.ALERT, f'alert "{name}"', (), name, (Query(expr, ("expr",)),), description, labels=labels or {})


def record(name: str, expr: str, description: str = "", labels: Mapping[str, str] | None = None) -> Claim:
    """Return a recording rule."""
    return Claim(
        Shape.RECORD, f'record "{name}"', (), name, (Query(expr, ("expr",)),), description, labels=labels or {}
    )


def found(
    *claims: Claim, target: Target = Target.GB10, machines: int = 2, beside: Iterable[Claim] = (), own: str = ""
) -> list[Finding]:
    """Return what is wrong with claims, which know of the recording rules ``beside`` them and of ``own`` metrics."""
    catalogue = Catalogue(own_rows(own), is_gb10=target is Target.GB10)
    documents = [Document("these", claims), Document("beside", tuple(beside))]
    return [one for one in audit(documents, catalogue, target, machines=machines).findings if one.file == "these"]


def rules_of(findings: Iterable[Finding]) -> list[str]:
    """Return the rules that were broken, sorted, each once."""
    return sorted({finding.rule for finding in findings})


def audited(*paths: Path | str, target: Target = Target.GB10) -> Audit:
    """Return the audit of files and folders."""
    return audit(read(map(str, paths)), Catalogue(is_gb10=target is Target.GB10), target)
