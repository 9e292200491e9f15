"""The command, run here, where no process is needed to see what it does."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from spark_agent.agent import cli


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


def runner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *before: str, columns: int = 100
) -> Run:
    """Return a function that runs the command with its arguments, after those that stand ``before`` them."""
    monkeypatch.setenv("COLUMNS", str(columns))

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["spark-agent", *before, *map(str, arguments)])
        code = cli._run()
        return Done(code, *capsys.readouterr())

    return call
