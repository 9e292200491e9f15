"""Claims that others labelled, without a look at the rules: what must be found is, and nothing that is right is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from spark_agent.agent.audit.audit import audit
from spark_agent.agent.audit.case import Target
from spark_agent.agent.audit.catalogue import Catalogue
from spark_agent.agent.audit.claim import Claim, Document, Query, Shape

#: Data held against data, hundreds of times: no Python does that differently.
pytestmark = pytest.mark.once

CASES: Final = json.loads(Path(__file__).with_name("labelled.json").read_text(encoding="utf-8"))["cases"]


def _claim(case: Mapping[str, Any]) -> Claim:
    return Claim(
        Shape(case["kind"]),
        case["id"],
        (),
        case["title"],
        tuple(Query(expr, (index,), legend) for index, (expr, legend) in enumerate(case["queries"])),
        case.get("description", ""),
        tuple(case.get("context", ())),
        case.get("unit"),
        maximum=case.get("max"),
        thresholds=tuple(case.get("thresholds", ())),
    )


def _records(case: Mapping[str, Any]) -> tuple[Claim, ...]:
    recorded: Mapping[str, str] = case.get("records", {})
    return tuple(Claim(Shape.RECORD, "", (), name, (Query(expr, ()),)) for name, expr in recorded.items())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case: Mapping[str, Any]) -> None:
    """What must be found is found, and what is found may be."""
    target = Target(case.get("target", "any"))
    shown, beside = Document("shown", (_claim(case),)), Document("beside", _records(case))
    read = audit([beside, shown], Catalogue(is_gb10=target is Target.GB10), target)
    found = {finding.rule for finding in read.findings if finding.file == "shown"}
    must = {rule for rule in case["expect"] if not rule.endswith("?")}
    may = {rule.rstrip("?") for rule in case["expect"]}

    assert (set(), set()) == (must - found, found - may)
