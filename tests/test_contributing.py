"""The prose is true: its example works, its samples are what comes out, its links lead somewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import runner

REPO = Path(__file__).parent.parent
PROSE = [REPO / "README.md", REPO / "CONTRIBUTING.md", REPO / "CHANGELOG.md", *sorted((REPO / "docs").rglob("*.md"))]


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.once
def test_adding_a_collector(tmp_path: Path) -> None:
    """One file and one fixture, and the switch writes the goldens; the worked example shows no more than is true."""
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns(".git", ".venv*", "*_cache", ".hypothesis", "__pycache__", "build")
    shutil.copytree(REPO, clone, symlinks=True, ignore=ignored)
    guide = REPO / "CONTRIBUTING.md"
    (code,), (identity,), (numbers,) = (_blocks(guide, language) for language in ("python", "json", "text"))
    fixture = clone / "tests/machines/some-files"
    (fixture / "root/proc/sys/fs").mkdir(parents=True)
    (clone / "collectors/files.py").write_text(code)
    (fixture / "machine.json").write_text(identity)
    (fixture / "root/proc/sys/fs/file-nr").write_text(numbers)

    def pytest_on_clone(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
        clean = {key: value for key, value in os.environ.items() if key != "CI" and not key.startswith("PYTEST")}
        return subprocess.run(command, cwd=clone, env=clean, capture_output=True, text=True, check=False)

    assert 1 == pytest_on_clone("tests/test_golden.py").returncode, "a new collector must not pass unseen"
    updated = pytest_on_clone("tests/test_golden.py", "--update-golden")
    assert 0 == updated.returncode, updated.stdout
    again = pytest_on_clone("tests/test_golden.py", "tests/test_document.py", "tests/test_declarations.py")
    assert 0 == again.returncode, again.stdout
    document = json.loads((clone / "tests/golden/some-files.json").read_text())
    assert {"open": 2176} == document["files"]


def test_samples_are_what_comes_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line that README shows of a demo stands in that demo's golden screen; an audit's is what it prints."""
    samples = _blocks(REPO / "README.md", "console")
    monkeypatch.chdir(REPO)
    run = runner(monkeypatch, capsys)
    assert samples
    for sample in samples:
        command, *lines = sample.splitlines()
        if demo := re.search(r"--demo (\S+)", command):
            said = (REPO / "tests/golden" / f"{demo[1]}.txt").read_text(encoding="utf-8")
        else:
            assert command.startswith("$ spark-agent audit ")
            said = run(*command.split()[2:]).out
        assert lines
        assert [] == [line for line in lines if line not in said.splitlines()]


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """A link to a file of the repository finds it."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))

    assert [] == [target for target in targets if not (path.parent / target).exists()]


def test_files_named_in_docstrings_exist() -> None:
    """A docstring that names a page of the docs names one that is there."""
    named = {
        match
        for room in ("agent", "collectors", "exporters")
        for path in (REPO / room).rglob("*.py")
        for match in re.findall(r"docs/[a-z-]+\.md", path.read_text(encoding="utf-8"))
    }

    assert [] == sorted(name for name in named if not (REPO / name).exists())
