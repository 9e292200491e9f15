"""``make run`` on a machine where something is missing: it says which one command helps, and shows no traceback."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
# What a script needs besides Python.
TOOLS = ("sh", "rm", "tail", "grep", "date", "cat", "env")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a folder to be the whole PATH: the tools, and whatever Python a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    return folder


def python(path: Path, name: str, script: str) -> None:
    """Put a stand-in for Python on the PATH."""
    (path / name).write_text(f"#!/bin/sh\n{script}\n")
    (path / name).chmod(0o755)


def setup(path: Path, cwd: Path, folder: str = "venv", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script that ``make run`` runs."""
    return subprocess.run(
        ["sh", str(SCRIPTS / "venv.sh"), str(cwd / folder), str(SCRIPTS.parent)],
        cwd=cwd,
        env={"PATH": str(path), "HOME": str(cwd), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def helpful(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a failure is told in a few lines with a command to type."""
    assert 1 == done.returncode, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 10
    for word in ("spark-agent: ", *words):
        assert word in done.stderr


def test_python_too_old(path: Path, tmp_path: Path) -> None:
    """Only an old Python is there."""
    python(path, "python3", 'case "$1" in --version) echo Python 3.10.12;; *) exit 1;; esac')

    helpful(setup(path, tmp_path), "Python 3.11 or later", "3.10.12", "sudo apt-get install")


def test_no_python(path: Path, tmp_path: Path) -> None:
    """No Python at all is there."""
    helpful(setup(path, tmp_path), "no python3", "sudo apt-get install")


def test_no_venv(path: Path, tmp_path: Path) -> None:
    """Debian ships Python without venv: the package that has it is named for this very version."""
    python(path, "python3", f'case "$2" in *ensurepip*) exit 1;; *) exec {sys.executable} "$@";; esac')
    version = f"{sys.version_info.major}.{sys.version_info.minor}"

    helpful(setup(path, tmp_path), f"sudo apt-get install python{version}-venv")


@pytest.mark.once
def test_no_network(path: Path, tmp_path: Path) -> None:
    """The package index cannot be reached."""
    python(path, "python3", f'exec {sys.executable} "$@"')

    helpful(setup(path, tmp_path, PIP_NO_INDEX="1"), "package index", "pip download")


def test_a_folder_that_cannot_be_made(path: Path, tmp_path: Path) -> None:
    """The disk is full, or the folder is somebody else's."""
    python(path, "python3", f'exec {sys.executable} "$@"')

    helpful(setup(path, tmp_path, "/proc/self/nowhere"), "could not make", "df -h")


def test_other_pythons_are_found_by_version(path: Path, tmp_path: Path) -> None:
    """A Python that pyenv keeps is found, one that does not start is not."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    kept = tmp_path / "versions" / f"{version}.0" / "bin"
    kept.mkdir(parents=True)
    python(path, f"python{version}", "exit 127")
    python(kept, f"python{version}", f'exec {sys.executable} "$@"')
    done = subprocess.run(
        ["sh", str(SCRIPTS / "pythons.sh"), version],
        env={"PATH": str(path), "PYENV_ROOT": str(tmp_path), "HOME": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )

    assert str(kept / f"python{version}") == done.stdout.strip()
