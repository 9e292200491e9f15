"""The built-in machines: that they are what `imagine` writes, and that they could be real."""

import gzip
import io
import json
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import imagine
import pytest
from imagine import DEMOS, EXTRA, SHIPPED, Machine, archive, build, members, write_folder

from spark_agent.agent.machine import open_demo, open_machine
from spark_agent.collectors import NvmlError, Origin
from spark_agent.collectors._tree import Link, MemoryTree

every_machine = pytest.mark.parametrize("name", [*SHIPPED, *EXTRA])
every_demo = pytest.mark.parametrize("name", SHIPPED)

# Each inside the one before it; 0.1.0 calls the GPU's rail gpu_out.
NESTED = ("dc_input", "sys_total", "soc_pkg", "cpu_gpu")
PARTS = ("cpu_p", "cpu_e", "gpu", "gpu_out")


@every_demo
def test_fresh(name: str) -> None:
    """A shipped archive holds what `imagine` writes today, byte for byte; forgotten? ``python tests/imagine.py``."""
    shipped = (DEMOS / f"{name}.tar.gz").read_bytes()
    # The archive within: builds of zlib pack the same bytes in different ways.
    assert gzip.decompress(archive(build(name))) == gzip.decompress(shipped)


def test_all_are_shipped() -> None:
    """The folder of demos holds the shipped machines and nothing else."""
    assert sorted(f"{name}.tar.gz" for name in SHIPPED) == sorted(file.name for file in DEMOS.iterdir())


@every_demo
def test_archive_tells_nothing_of_its_making(name: str) -> None:
    """Neither time, owner nor file name of whoever made it is in an archive, and its members are in order."""
    packed = archive(build(name))
    flags, time = packed[3], packed[4:8]
    assert (0, bytes(4)) == (flags, time)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = tar.getmembers()
    assert {(0, 0, 0, "", "")} == {(one.mtime, one.uid, one.gid, one.uname, one.gname) for one in found}
    names = [one.name for one in found]
    assert sorted(names) == names
    assert {"machine.json", "errors.json", "nvml.json", "udev.json", "timeline.jsonl"} == {
        one for one in names if not one.startswith("root/")
    }


@every_machine
def test_says_that_it_is_imagined(name: str) -> None:
    """A machine never claims to be a recording, and says where each part of it comes from and how sure that is."""
    identity = json.loads(text(name, "machine.json"))
    assert (1, "synthetic", name) == (identity["format"], identity["origin"], identity["name"])
    assert identity["note"].startswith("Imagined, not recorded. ")
    parts = [source["part"] for source in identity["sources"]]
    assert sorted(set(parts)) == sorted(parts)
    assert {source["confidence"] for source in identity["sources"]} <= set(identity["confidence"])
    assert all(source["origin"] for source in identity["sources"])


@every_machine
def test_holds_nobodys_secrets(name: str) -> None:
    """No serial number, MAC address or UUID of a real machine is in it, and no path of the workshop."""
    for path, content in members(build(name)).items():
        assert not re.search(r"serial|machine-id|wwid|guid|boot_id", path), path
        if not isinstance(content, bytes):
            continue
        words = content.decode()
        assert not re.search(r"/work\b|/shared/|hardware\.md", words), path
        for mac in re.findall(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", words):
            assert mac.startswith(("02:00:00:00:00:", "00:00:00:00:00:00")), f"{path}: {mac}"
        for uuid in re.findall(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", words):
            assert not uuid.strip("0-"), f"{path}: {uuid}"
    assert 'DGX_SERIAL_NUMBER="REDACTED"\n' in text(name, "root/etc/dgx-release")


@every_machine
def test_links_lead_somewhere(name: str) -> None:
    """Every symbolic link leads to something, and none out of the machine."""
    machine, tree = build(name), MemoryTree()
    for path, content in machine.files.items():
        tree.put(path, content.encode())
    for path, target in machine.links.items():
        assert posixpath.normpath(f"root{posixpath.dirname(path)}/{target}").startswith("root/"), path
        tree.put(path, Link(target))
    assert [] == [path for path in machine.links if not tree.exists(path)]


@pytest.mark.parametrize("name", ["fe-gemm", "aien"])
def test_a_folder_is_the_same_machine(name: str, tmp_path: Path) -> None:
    """A machine written as a folder reads as the archive does."""
    machine, folder, packed = build(name), tmp_path / name, tmp_path / f"{name}.tar.gz"
    write_folder(machine, folder)
    packed.write_bytes(archive(machine))
    one, other = open_machine(folder), open_machine(packed)
    for path in machine.files:
        assert one.host.content(path) == other.host.content(path)
    assert {path: one.host.real(path) for path in machine.links} == {
        path: other.host.real(path) for path in machine.links
    }
    assert [] == one.host.list("/sys/class/power_supply") == other.host.list("/sys/class/power_supply")


@every_machine
def test_a_file_answers_or_fails(name: str) -> None:
    """No path both holds a text and fails."""
    machine = build(name)
    moved = {f"/{path}" for step in machine.timeline() for path in step.get("root", {})}
    assert not set(machine.errors) & (set(machine.files) | moved)


@every_machine
def test_a_second_changes_something(name: str) -> None:
    """Time stands still for no machine: its clocks and counters move each second, and never backwards in the file."""
    machine = build(name)
    times = [step["t"] for step in machine.timeline()]
    assert sorted(times) == times
    assert set(range(1, machine.seconds + 1)) == set(times)


@every_machine
def test_the_whole_is_no_less_than_its_parts(name: str) -> None:
    """Input, system, package, CPU and GPU contain one another, at each second."""
    for now in moments(build(name)):
        power = channels(now, "power")
        nested = [power[label] for label in NESTED if label in power]
        # As one owner of a wedged machine read them: half a watt more in the system than at its input.
        slack = 600_000 if name == "fe-wedged" else 0
        for outer, inner in pairwise(nested):
            assert outer + slack >= inner, power
        if nested:
            assert nested[-1] >= sum(power.get(label, 0) for label in PARTS), power


@every_machine
def test_energy_is_power_over_time(name: str) -> None:
    """Each energy register advances by the power that it adds up, around its 32 bits."""
    rails = {"pkg": "soc_pkg", "cpu_e": "cpu_e", "cpu_p": "cpu_p", "gpu": "gpu", "gpm": "gpu"}
    for before, now in pairwise(moments(build(name))):
        power, energy = channels(now, "power"), channels(now, "energy")
        for label, started in channels(before, "energy").items():
            rail = "gpu_out" if "gpu_out" in power and label == "gpm" else rails.get(label, "")
            assert power.get(rail, 0) == (energy[label] - started) % (2**32 * 1000), label


def test_a_register_comes_round() -> None:
    """Under the heaviest load the package's energy register overflows once on the way."""
    registers = [channels(now, "energy")["pkg"] for now in moments(build("fe-gemm"))]
    assert 1 == sum(after < before for before, after in pairwise(registers))


@every_machine
def test_the_first_zone_is_the_hottest(name: str) -> None:
    """Zone 0 is the maximum of the others, and the GPU's zone agrees with NVML to a degree."""
    machine = build(name)
    for second, now in enumerate(moments(machine)):
        zones = [int(now[f"/sys/devices/virtual/thermal/thermal_zone{zone}/temp"]) for zone in range(7)]
        assert max(zones) == zones[0]
        reading = machine.gpu(second)["nvmlDeviceGetTemperature"]
        if "error" not in reading:
            assert abs(zones[5] - reading["GPU"] * 1000) <= 1000


@every_machine
def test_what_the_gpu_holds_is_not_available(name: str) -> None:
    """What NVML's processes hold is gone from MemAvailable, and each of them has a name."""
    machine = build(name)
    memory = {row.split(":")[0]: int(row.split()[1]) for row in machine.files["/proc/meminfo"].splitlines()}
    held = 0
    for process in machine.gpu(0)["nvmlDeviceGetComputeRunningProcesses"]:
        held += process["usedGpuMemory"] // 1024
        assert machine.files[f"/proc/{process['pid']}/comm"]
    assert 0 < memory["MemAvailable"] < memory["MemTotal"] - held


@every_demo
def test_the_player_takes_it(name: str) -> None:
    """The agent opens each demo and plays it to its end."""
    machine = open_demo(name)
    assert (name, Origin.SYNTHETIC) == (machine.host.name, machine.host.origin)
    machine.play(1000.0)
    assert machine.host.text("/proc/uptime").startswith(f"{build(name).uptime + build(name).seconds}.")


def test_the_driver_goes_and_comes_back() -> None:
    """``driver-lost`` loses its GPU, then its driver, and gets both back with counters that start anew."""
    machine = open_demo("driver-lost")
    version = "/proc/driver/nvidia/version"

    def energy() -> int:
        return int(machine.host.nvml.call("nvmlDeviceGetFieldValues", 0, "83")["83"])

    machine.play(10.0)
    before = energy()
    machine.play(25.0)
    with pytest.raises(NvmlError, match="GPU_IS_LOST"):
        energy()
    assert machine.host.exists(version)
    machine.play(45.0)
    with pytest.raises(NvmlError, match="DRIVER_NOT_LOADED"):
        energy()
    assert not machine.host.exists(version)
    machine.play(80.0)
    assert 0 < energy() < before
    assert machine.host.exists(version)


def test_published_limits_are_missing() -> None:
    """Where the embedded controller published no limit, ``cap_max`` answers ENODATA and the cap is 20 or 30 W."""
    machine = build("fe-wedged-enodata")
    ceilings = {path: name for path, name in machine.errors.items() if path.endswith("_cap_max")}
    assert {"ENODATA"} == set(ceilings.values())
    caps = [int(machine.files[path.removesuffix("_max")]) // 10**6 for path in sorted(ceilings)]
    assert [20, 20, 30, 30] == caps


def test_main_writes_the_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command writes what it is told to, where the demos are."""
    monkeypatch.setattr(imagine, "DEMOS", tmp_path / "demos")
    monkeypatch.setattr("sys.argv", ["imagine.py", "fe-idle"])
    imagine.main()
    assert ["fe-idle.tar.gz"] == [file.name for file in (tmp_path / "demos").iterdir()]


def text(name: str, member: str) -> str:
    """Return one file of a machine."""
    content = members(build(name))[member]
    assert isinstance(content, bytes)
    return content.decode()


def moments(machine: Machine) -> Iterator[Mapping[str, str]]:
    """Yield all files as they are at each second."""
    files: dict[str, Any] = dict(machine.files)
    yield dict(files)
    for step in machine.timeline():
        if "root" in step:
            files |= {f"/{path}": content for path, content in step["root"].items()}
            yield dict(files)


def channels(files: Mapping[str, str], kind: str) -> dict[str, int]:
    """Return the labelled channels of one kind, of all chips, in the kernel's units."""
    label = re.compile(rf"/{kind}\d+_label")
    return {files[path].strip(): int(files[path.replace("_label", "_input")]) for path in files if label.search(path)}
