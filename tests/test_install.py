"""What ships is what is tested: a wheel and an editable install, each in an environment of its own."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent

pytestmark = pytest.mark.install


def run(*command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command outside the repository, and return what it prints."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | dict(environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel once, from a copy of what git knows: a build writes into the tree that it builds."""
    source = tmp_path_factory.mktemp("source")
    for name in (
        subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=REPO,
            capture_output=True,
            check=True,
        )
        .stdout.decode()
        .split("\0")
    ):
        if name and (REPO / name).is_file() and not (REPO / name).is_symlink():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPO / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def environment(folder: Path, *install: str | Path) -> Path:
    """Make an environment, install into it, and return its ``bin``."""
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "python", "-m", "pip", "install", "-q", *install, cwd=folder)
    return folder / "bin"


def check_commands(bin_: Path, cwd: Path) -> None:
    """Show that the command is there and looks at the built-in machine, with no file of this repository in reach."""
    document = json.loads(run(bin_ / "spark-agent", "--demo", "fe-gemm", "snapshot", "--output", "json", cwd=cwd))

    assert "at_limit" == document["power"]["verdicts"]["soc"]["verdict"]
    assert "spark-agent" in run(bin_ / "python", "-m", "spark_agent.agent", "--version", cwd=cwd)
    assert "fe-stock" in run(bin_ / "spark-agent", "demos", cwd=cwd)


def test_wheel_holds_what_it_should(wheel: Path) -> None:
    """Code, types marker, demos and licence are in it; tests are not."""
    names = zipfile.ZipFile(wheel).namelist()
    demos = {path.name for path in (REPO / "agent" / "demos").glob("*.tar.gz")}

    assert wheel.name.startswith("dgx_spark_agent-")
    assert demos == {name.rpartition("/")[2] for name in names if "/demos/" in name}
    assert {"spark_agent/agent/py.typed", "spark_agent/collectors/py.typed", "spark_agent/exporters/py.typed"} <= set(
        names
    )
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("test" in name for name in names)


def test_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    """The wheel works alone, and the golden tests pass against it instead of the tree."""
    bin_ = environment(tmp_path / "venv", wheel, "pytest", "hypothesis", "jsonschema")
    check_commands(bin_, tmp_path)
    where = "import spark_agent.agent; print(spark_agent.agent.__file__)"
    assert str(tmp_path) in run(bin_ / "python", "-c", where, cwd=tmp_path)

    tests = [REPO / "tests" / name for name in ("test_golden.py", "test_document.py")]
    options = ("-q", "-p", "no:cacheprovider", "-c", REPO / "pyproject.toml", "-o", f"pythonpath={REPO / 'tests'}")
    assert " passed" in run(bin_ / "python", "-m", "pytest", *options, *tests, cwd=tmp_path)


def test_editable_runs(tmp_path: Path) -> None:
    """An editable install runs the tree, so a change to a file is live at once."""
    bin_ = environment(tmp_path / "venv", "-e", REPO)
    check_commands(bin_, tmp_path)
    where = "import spark_agent.agent; print(spark_agent.agent.__file__)"

    assert str(REPO / "agent" / "__init__.py") == run(bin_ / "python", "-c", where, cwd=tmp_path).strip()
