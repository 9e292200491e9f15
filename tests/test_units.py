"""The units as systemd reads them: no line that it does not know, little that the service may do, no promise broken."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark_agent.agent import BEAT_SECONDS, cli
from spark_agent.agent.service import CODE, PROGRAM, SERVICE, SOCKET, unit_text

REPO = Path(__file__).parent.parent
UNITS = REPO / "systemd"
DROP_INS = re.findall(r"^```ini\n(.*?)^```", (REPO / "docs" / "service.md").read_text(), re.MULTILINE | re.DOTALL)

analyze = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="no systemd-analyze; this helps: apt-get install systemd"
)


def settings(unit: str) -> Iterator[tuple[str, str]]:
    """Yield the assignments of a unit."""
    for line in (UNITS / unit).read_text().splitlines():
        if not line.startswith(("#", "[")) and "=" in line:
            name, _, value = line.partition("=")
            yield name, value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with both units, which start a program that is there."""
    for unit in (SERVICE, SOCKET):
        (tmp_path / unit).write_text(unit_text(unit, Path("/bin/true")))
    return tmp_path


def verify(folder: Path) -> str:
    """Return what systemd has against the units."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", folder / SERVICE, folder / SOCKET],
        capture_output=True,
        text=True,
        check=False,
    )
    return "\n".join(line for line in done.stderr.splitlines() if "spark-agent" in line)


@analyze
def test_systemd_knows_each_line(folder: Path) -> None:
    """No key is misspelt, newer than this systemd, or of a value that it does not take."""
    assert "" == verify(folder)


@analyze
def test_the_check_can_fail(folder: Path) -> None:
    """A misspelt key is found."""
    with (folder / SERVICE).open("a") as unit:
        unit.write("[Service]\nProtectHoem=yes\n")

    assert "ProtectHoem" in verify(folder)


@analyze
@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda text: text.splitlines()[1])
def test_documented_drop_ins(folder: Path, drop_in: str) -> None:
    """What docs/service.md tells people to write is what systemd takes."""
    unit = SOCKET if drop_in.startswith("[Socket]") else SERVICE
    (folder / f"{unit}.d").mkdir()
    (folder / f"{unit}.d" / "example.conf").write_text(drop_in)

    assert "" == verify(folder)


@analyze
def test_exposure(folder: Path) -> None:
    """By systemd's own measure the service may do little: 1.5 of 10 at most."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", folder / SERVICE],
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout


def test_the_gpu_stays_in_sight() -> None:
    """NVIDIA's control node and its one GPU, by number, and no other device; PrivateDevices would hide both."""
    assert ["/dev/char/195:255 rw", "/dev/char/195:0 rw"] == [
        value for name, value in settings(SERVICE) if name == "DeviceAllow"
    ]
    assert "closed" == dict(settings(SERVICE))["DevicePolicy"]
    assert "PrivateDevices" not in dict(settings(SERVICE))


def test_kernel_files_stay_readable() -> None:
    """/proc/meminfo, stat and pressure are read, which ProcSubset=pid would hide."""
    assert "all" == dict(settings(SERVICE))["ProcSubset"]


def test_the_watchdog_outlasts_a_late_beat() -> None:
    """A machine so busy that some beats are late does not lose its monitor."""
    assert float(dict(settings(SERVICE))["WatchdogSec"].removesuffix("s")) >= 10 * BEAT_SECONDS


def test_what_a_restart_cannot_mend() -> None:
    """Wrong usage and wrong settings end with these codes, and are not tried again."""
    assert f"{cli.USAGE} {cli.CONFIG}" == dict(settings(SERVICE))["RestartPreventExitStatus"]


def test_installed_text() -> None:
    """An installed unit is the shipped one, but for its first line and the program that it starts."""
    shipped = (UNITS / SERVICE).read_text()
    (mark, *lines) = unit_text(SERVICE, Path("/opt/spark-agent/bin/spark-agent")).splitlines()

    assert mark.startswith("# Installed by")
    assert CODE == REPO
    assert 1 == shipped.count(f"\nExecStart={PROGRAM} ")
    assert shipped.replace(f"ExecStart={PROGRAM}", "ExecStart=/opt/spark-agent/bin/spark-agent").splitlines() == lines
