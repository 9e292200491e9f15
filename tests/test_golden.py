"""The whole pipe, on every machine: what must come out lies in ``tests/golden``; ``--update-golden`` rewrites it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from demo import demo_report, looked_at, screen, steady

from spark_agent.agent.machine import demos, open_machine
from spark_agent.agent.report import Report

FOLDERS = {path.name: path for path in sorted((Path(__file__).parent / "machines").iterdir()) if path.is_dir()}


def _report(name: str) -> Report:
    return looked_at(open_machine(FOLDERS[name])) if name in FOLDERS else demo_report(name)


@pytest.mark.parametrize("name", [*demos(), *FOLDERS])
def test_document(name: str, golden: Callable[[str, str], None]) -> None:
    """A recorded machine always gives the same document."""
    golden(f"{name}.json", json.dumps(steady(_report(name)), indent=2, ensure_ascii=False) + "\n")


@pytest.mark.parametrize("name", [*demos(), *FOLDERS])
def test_screen(name: str, golden: Callable[[str, str], None]) -> None:
    """A recorded machine always gives the same screen, 80 columns wide."""
    golden(f"{name}.txt", screen(_report(name)))
