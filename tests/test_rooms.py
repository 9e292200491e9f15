"""Data flows collectors → agent → exporters; imports only ever look upstream, and the command line sees all."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark_agent import collectors

REPO = Path(__file__).parent.parent
MAY_SEE = {
    "collectors": {"collectors"},
    "agent": {"agent", "collectors"},
    "exporters": {"exporters", "agent", "collectors"},
}
DOORS = {"agent/cli.py", "agent/__main__.py"}
FILES = [path for room in MAY_SEE for path in sorted((REPO / room).rglob("*.py"))]


def _name(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


def _imported(source: str) -> Iterator[str]:
    """Yield every module that a source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            # `from spark_agent import agent` names a room as well.
            yield from (
                [f"spark_agent.{one.name}" for one in node.names]
                if node.module == "spark_agent"
                else [node.module or ""]
            )
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names)


def rooms(source: str) -> set[str]:
    """Return the rooms that a source imports from."""
    parts = [name.split(".") for name in _imported(source)]
    for part in parts:
        assert part[0] not in MAY_SEE, f"import the installed name, not {'.'.join(part)!r}"
    return {part[1] for part in parts if part[0] == "spark_agent"}


@pytest.mark.parametrize("path", [path for path in FILES if _name(path) not in DOORS], ids=_name)
def test_imports_look_upstream(path: Path) -> None:
    """No room imports a room downstream of it."""
    room = path.relative_to(REPO).parts[0]

    assert rooms(path.read_text()) <= MAY_SEE[room]


@pytest.mark.parametrize(
    "source",
    [
        "from spark_agent.exporters import table",
        "from spark_agent.exporters.table import show",
        "from spark_agent import exporters",
        "import spark_agent.exporters.table",
        "def late():\n    from spark_agent.exporters import table",
    ],
)
def test_the_gate_can_fail(source: str) -> None:
    """Each way to import an exporter is seen."""
    assert {"exporters"} == rooms(source)


@pytest.mark.parametrize("path", sorted((REPO / "collectors").glob("*.py")), ids=_name)
def test_collectors_fork_nothing(path: Path) -> None:
    """A sensor is read, never asked of another program."""
    assert not {"subprocess", "pty", "multiprocessing"} & {name.split(".")[0] for name in _imported(path.read_text())}


def test_the_folder_is_the_registry() -> None:
    """Each public file of the folder is a collector under its own name."""
    files = {path.stem for path in (REPO / "collectors").glob("*.py") if not path.stem.startswith("_")}

    assert files == set(collectors.discover())


def test_all_names_what_is_public() -> None:
    """``__all__`` is sorted, and all of it is there."""
    assert sorted(collectors.__all__) == collectors.__all__
    assert [] == [name for name in collectors.__all__ if not hasattr(collectors, name)]


def test_every_package_is_installed() -> None:
    """A folder with code that setuptools is not told of would be missing from the wheel."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    told = set(project["tool"]["setuptools"]["packages"])
    there = {"spark_agent." + ".".join(path.parent.relative_to(REPO).parts) for path in FILES}
    units = "spark_agent.systemd"  # no code, but the command `service` installs them from the wheel

    assert told == there | {units}


@pytest.mark.parametrize("room", sorted(MAY_SEE))
def test_checkers_find_the_rooms(room: str) -> None:
    """Editors and type checkers see the installed names through links."""
    link = REPO / ".namespace" / "spark_agent" / room

    assert link.is_symlink()
    assert (REPO / room) == link.resolve()
