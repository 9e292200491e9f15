"""What this project ships passes the audit that it ships."""

from pathlib import Path
from typing import Final

import pytest

from spark_agent.agent.audit import files
from spark_agent.agent.audit.audit import audit
from spark_agent.agent.audit.catalogue import Catalogue

REPO: Final = Path(__file__).parents[2]


@pytest.mark.parametrize("path", ["docs/spark-agent.rules.yml", "dashboards"])
def test_nothing_is_found(path: str) -> None:
    """Neither in the rules nor in the dashboards, and each of their power metrics is known."""
    found = audit(files.read([str(REPO / path)]), Catalogue())

    assert found.claims
    assert ((), (), ()) == (found.findings, found.errors, found.unknown)
