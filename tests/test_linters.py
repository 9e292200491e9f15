"""Linters are tests, so that there is one command and one verdict."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent

pytestmark = pytest.mark.lint


def run(*command: str) -> None:
    """Run a tool on the repository; what it prints is the failure."""
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}", pytrace=False)


@pytest.mark.parametrize(
    "tool",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy", "-p", "spark_agent"),
        ("mypy", "tests"),
        ("codespell_lib", "."),
    ],
    ids=" ".join,
)
def test_python(tool: tuple[str, ...]) -> None:
    """The code is clean under the tools that pyproject.toml pins and configures."""
    run(sys.executable, "-m", *tool)


@pytest.mark.parametrize("script", sorted((REPO / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_shell(script: Path) -> None:
    """The scripts parse in a POSIX shell."""
    run(shutil.which("dash") or "sh", "-n", str(script))


def test_nothing_of_the_workshop() -> None:
    """A clone stands alone: no file names a path of the machine that it was made on."""
    # Written in two parts, so that this file does not find itself.
    foreign = ["/wo" + "rk/", "../sha" + "red", ".libr" + "ary"]
    files = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, check=False)
    if files.returncode:
        pytest.skip("not a git checkout")
    found = [
        f"{name}: {word}"
        for name in files.stdout.decode().split("\0")
        if name and (REPO / name).is_file()
        for word in foreign
        if word in (REPO / name).read_text(encoding="utf-8", errors="replace")
    ]

    assert [] == found


@pytest.mark.parametrize(("environment", "code"), [({}, 0), ({"CI": "true"}, 1)])
def test_no_skip_passes_unseen(tmp_path: Path, environment: dict[str, str], code: int) -> None:
    """In CI a skip that is not expected there is a failure: it would hide a rig that is broken."""
    for name in ("conftest.py", "rigs.py"):
        shutil.copy(REPO / "tests" / name, tmp_path)
    (tmp_path / "test_it.py").write_text("import pytest\n\ndef test_it():\n    pytest.skip('no rig')\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )

    assert code == done.returncode, done.stdout
