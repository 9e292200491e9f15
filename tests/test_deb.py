"""The Debian package: what is in it, that it is the same each time, and its life on a machine that systemd runs."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from systemd.container import CannotBootError, Container

REPO = Path(__file__).parent.parent
BUILD = REPO / "packaging" / "deb" / "build.py"

pytestmark = pytest.mark.install


def dpkg_deb(*arguments: str | Path) -> str:
    """Ask dpkg-deb, and return what it says."""
    return subprocess.run(["dpkg-deb", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package; skip where that cannot be done."""
    if not shutil.which("dpkg-deb"):
        pytest.skip("no dpkg-deb: no Debian package is built here")
    try:
        distribution("dgx-spark-agent")
    except PackageNotFoundError:
        pytest.skip("the project is not installed here, so what it runs with is not known")
    return build(tmp_path_factory.mktemp("deb"), umask=0o077)


def build(folder: Path, umask: int) -> Path:
    """Build the package as somebody with a umask."""
    done = subprocess.run([sys.executable, BUILD, folder], capture_output=True, text=True, check=False, umask=umask)
    assert 0 == done.returncode, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def unpacked(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the package puts on a machine."""
    folder = tmp_path_factory.mktemp("unpacked")
    dpkg_deb("--extract", deb, folder)
    return folder


def test_the_same_each_time(deb: Path, tmp_path: Path) -> None:
    """One commit and one environment make one file, byte for byte, whoever builds it."""
    assert deb.read_bytes() == build(tmp_path, umask=0o022).read_bytes()


def test_for_each_architecture(deb: Path) -> None:
    """Nothing in it is compiled, so it is for arm64 and any other; what is compiled is the distribution's."""
    contents = dpkg_deb("--contents", deb)

    assert "all" == dpkg_deb("--field", deb, "Architecture").strip()
    assert deb.name == f"spark-agent_{dpkg_deb('--field', deb, 'Version').strip()}_all.deb"
    assert not re.search(r"\.(so|pyc|pyd)\b|__pycache__", contents)
    depends = dpkg_deb("--field", deb, "Depends")
    assert {"python3", "python3-psutil", "python3-bcrypt", "python3-yaml"} <= set(
        re.findall(r"python3[-a-z]*", depends)
    )


def test_files_are_roots_and_readable(deb: Path) -> None:
    """Whatever the builder's umask, all is root's, and others may read it."""
    for line in dpkg_deb("--contents", deb).splitlines():
        mode, owner, *_ = line.split()
        assert ("root/root", "r") == (owner, mode[7]), line
        assert "w" not in mode[5] + mode[8], line


def test_configuration_is_the_administrators(deb: Path, tmp_path: Path) -> None:
    """What is in /etc is a conffile: an upgrade does not write over it."""
    dpkg_deb("--control", deb, tmp_path / "control")

    assert "/etc/default/spark-agent\n" == (tmp_path / "control" / "conffiles").read_text()


def test_licences_travel(unpacked: Path) -> None:
    """Each package that is carried along is listed with its licence, and its text is there."""
    text = (unpacked / "usr/share/doc/spark-agent/copyright").read_text()
    listed = {
        Path(name.rstrip("*")).name for line in re.findall(r"^Files: (.*)", text, re.MULTILINE) for name in line.split()
    }
    carried = {path.name for path in (unpacked / "usr/lib/spark-agent").iterdir()} - {"spark_agent"}

    assert carried <= listed
    assert text.count("\nFiles: ") == text.count("\nLicense: ")
    for folder in re.findall(r"in /(usr/share/doc/spark-agent/licenses/[^/]+)/", text):
        assert any((unpacked / folder).iterdir()), folder


def test_changelog(unpacked: Path) -> None:
    """The changelog has Debian's form, with the package's version."""
    text = gzip.decompress((unpacked / "usr/share/doc/spark-agent/changelog.gz").read_bytes()).decode()

    assert re.match(r"spark-agent \([0-9.]+\) unstable; urgency=medium\n\n  \* .*\n\n -- .* <.*>  \w{3}, \d", text)


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm", "rtupdate"])
def test_scripts_parse(script: str) -> None:
    """What dpkg runs parses in a POSIX shell."""
    subprocess.run([shutil.which("dash") or "sh", "-n", BUILD.with_name(script)], check=True)


def test_units_are_the_repositorys(unpacked: Path) -> None:
    """The units are the ones of systemd/, which start what the package installs."""
    for name in ("spark-agent.service", "spark-agent.socket"):
        assert (REPO / "systemd" / name).read_bytes() == (unpacked / "usr/lib/systemd/system" / name).read_bytes()
    assert os.access(unpacked / "usr/bin/spark-agent", os.X_OK)


# On a machine


@pytest.fixture(scope="module")
def machine(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Boot a machine with the distribution's compiled packages, and put the package on its disk."""
    if not Path("/usr/lib/python3/dist-packages/psutil").exists():
        pytest.skip("no python3-psutil; this helps: apt-get install python3-psutil python3-bcrypt python3-yaml")
    try:
        container = Container.boot(tmp_path_factory.mktemp("container"))
    except CannotBootError as error:
        pytest.skip(str(error))
    try:
        # What container images forbid; a machine that boots has no such policy.
        container.run("rm", "-f", "/usr/sbin/policy-rc.d")
        container.write("/srv/spark-agent.deb", deb.read_bytes())
        container.write(
            "/etc/systemd/system/spark-agent.service.d/replay.conf",
            "[Service]\nExecStart=\nExecStart=/usr/bin/spark-agent --demo fe-gemm serve\n",
        )
        yield container
    finally:
        container.power_off()


def test_a_life(machine: Container) -> None:
    """Installed it runs, upgraded it runs anew, disabled it stays so, and purged it leaves nothing."""
    machine.run("dpkg", "--install", "/srv/spark-agent.deb")
    pid = machine.show("spark-agent", "MainPID")
    assert ("active", "enabled") == tuple(
        machine.show("spark-agent", name) for name in ("ActiveState", "UnitFileState")
    )
    assert 200 == machine.get("/metrics")[0]
    assert "SYNTHETIC machine fe-gemm" in machine.try_("spark-agent", "--demo", "fe-gemm", "snapshot").stdout
    assert (0, "") == tuple(machine.try_("spark-agent", "service", "status").__dict__.values())[::2]
    assert "from the Debian package" in machine.try_("spark-agent", "service", "install").stderr
    assert "" == machine.run("dpkg", "--verify", "spark-agent")

    machine.run("dpkg", "--install", "/srv/spark-agent.deb")
    assert machine.show("spark-agent", "MainPID") not in ("0", pid)

    machine.run("systemctl", "disable", "--now", "spark-agent")
    machine.run("dpkg", "--install", "/srv/spark-agent.deb")
    assert "disabled" == machine.show("spark-agent", "UnitFileState")

    machine.run("systemctl", "start", "spark-agent")
    machine.run("dpkg", "--remove", "spark-agent")
    assert "inactive" == machine.show("spark-agent", "ActiveState")
    assert "x" == machine.run(
        "sh", "-c", "[ -d /var/lib/private/spark-agent ] && [ -f /etc/default/spark-agent ] && printf x"
    )
    machine.run("dpkg", "--purge", "spark-agent")
    machine.run("rm", "-r", "/etc/systemd/system/spark-agent.service.d")
    left = machine.run(
        "find", "/etc", "/usr/lib", "/usr/bin", "/usr/share", "/var/lib", "-xdev", "-name", "*spark-agent*"
    )
    assert "" == left
