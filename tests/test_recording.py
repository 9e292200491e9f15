"""Recordings: that they replay as the machine answered, and that they tell nothing of whose machine it was."""

import errno
import gzip
import io
import json
import os
import re
import stat
import string
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hosts
import pytest
from demo import looked_at, steady
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_agent.agent import recording
from spark_agent.agent.machine import Machine, demos, open_demo, open_machine
from spark_agent.agent.recording import Recording, record
from spark_agent.agent.redaction import Redaction, is_distinctive
from spark_agent.collectors import Host, Item, Origin, Reason, Unavailable, gpu, reason_of
from spark_agent.collectors._tree import Fault, Link, MemoryTree

REPO = Path(__file__).parent.parent
FOLDERS = sorted((REPO / "tests/machines").iterdir())


def replay(found: Recording, folder: Path) -> Machine:
    """Write a recording, and open it again."""
    out = folder / "machine.tar.gz"
    found.write(out)
    return open_machine(out)


def unpacked(found: Recording) -> bytes:
    """Return everything that is in an archive: names, links, contents."""
    return gzip.decompress(found.archive())


def member(found: Recording, name: str) -> Any:
    """Return what one of the machine's JSON files says."""
    content = found.members[name]
    assert isinstance(content, bytes)
    return json.loads(content)


def text(found: Recording, path: str) -> str:
    """Return a recorded file."""
    content = found.members[f"root{path}"]
    assert isinstance(content, bytes)
    return content.decode()


# What is replayed is what was answered


@pytest.mark.parametrize("name", demos())
def test_demo_replays_the_same(name: str, tmp_path: Path) -> None:
    """A recorded demo gives the demo's document: values, absences with their details, name, origin and note."""
    again = replay(record(open_demo(name).host), tmp_path)

    assert steady(looked_at(open_demo(name))) == steady(looked_at(again))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_folder_replays_the_same(folder: Path, tmp_path: Path) -> None:
    """A recorded folder gives the folder's document."""
    again = replay(record(open_machine(folder).host), tmp_path)

    assert steady(looked_at(open_machine(folder))) == steady(looked_at(again))


def test_live_machine_is_recorded_by_its_product(tmp_path: Path) -> None:
    """What was live is a recording of that product, of no host's name, at that moment."""
    machine = hosts.host({"/sys/class/dmi/id/product_name": "NVIDIA_DGX_Spark\n"})
    live = Host(**{slot: getattr(machine, slot) for slot in Host.__slots__} | {"origin": Origin.LIVE, "name": "box"})
    again = replay(record(live), tmp_path).host

    assert ("recorded NVIDIA_DGX_Spark", Origin.RECORDED, 1_800_000_000.0) == (again.name, again.origin, again.now())


NAMES = st.sampled_from(["a", "b", "c", "enx020000000001"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
TARGETS = st.one_of(
    PATHS,
    st.tuples(st.integers(0, 5), PATHS).map(lambda found: "../" * found[0] + found[1][1:]),
)
ERRORS = st.sampled_from(["EIO", "EACCES", "ENODATA", "EINVAL", "ENODEV", "ENOENT"])
NODES = st.dictionaries(
    PATHS,
    st.one_of(
        st.tuples(st.just("file"), st.text(string.ascii_lowercase, max_size=3)),
        st.tuples(st.just("link"), TARGETS),
        st.tuples(st.just("directory"), st.just("")),
        st.tuples(st.just("fault"), ERRORS),
        st.tuples(st.just("closed"), st.just("EACCES")),
    ),
    max_size=12,
)
QUESTIONS = st.lists(
    st.tuples(st.sampled_from(["content", "list", "exists", "link", "real", "glob"]), PATHS), max_size=25
)


def built(nodes: Mapping[str, tuple[str, str]]) -> Host:
    """Return a machine with such of the nodes as fit together."""
    machine = hosts.host()
    tree = machine.tree
    assert isinstance(tree, MemoryTree)
    for path, (kind, what) in sorted(nodes.items()):
        node: Any = {"file": what.encode(), "link": Link(what), "directory": {}, "fault": Fault(what)}.get(kind)
        try:
            if kind == "closed":
                tree.put(f"{path}/inside", b"")
                node = Fault(what)
            tree.put(path, node)
        except ValueError:
            continue
    return machine


def answers(host: Host, questions: list[tuple[str, str]]) -> Iterator[object]:
    """Yield what a machine answers to each question, or why it does not."""
    for question, path in questions:
        try:
            if question == "glob":
                yield list(host.glob(f"{path}/*"))
            else:
                yield getattr(host, question)(path)
        except OSError as error:
            yield reason_of(error)


@pytest.mark.once
@settings(deadline=None, max_examples=300)
@given(nodes=NODES, questions=QUESTIONS)
def test_any_question_gets_its_answer_again(
    nodes: Mapping[str, tuple[str, str]], questions: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of whatever tree, each file, list, link, real path and absence that was asked is the same on replay."""
    said: list[object] = []

    def ask(host: Host) -> list[Item]:
        said.extend(answers(host, questions))
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "discover", lambda: {"asker": ask})
        again = replay(record(built(nodes)), tmp_path_factory.mktemp("any"))

    assert said == list(answers(again.host, questions))


def test_absolute_links_become_relative(tmp_path: Path) -> None:
    """Whoever unpacks a recording finds no link to a file of their own, and the driver keeps its name."""
    net = "/sys/devices/pci0000:00/0000:00:03.0/net/eth0"
    machine = hosts.host(
        {f"{net}/mtu": "1500", "/sys/bus/pci/drivers/r8127/module/version": "1"},
        links={
            "/sys/class/net/eth0": net,
            f"{net}/device": "../../../0000:00:03.0",
            "/sys/devices/pci0000:00/0000:00:03.0/driver": "/sys/bus/pci/drivers/r8127",
            "/etc/os-release": "../../../../usr/lib/os-release",
        },
    )
    found = record(machine)
    links = {name: node.to for name, node in found.members.items() if isinstance(node, Link)}

    assert {
        "root/etc/os-release": "../usr/lib/os-release",
        "root/sys/class/net/eth0": "../../../sys/devices/pci0000:00/0000:00:03.0/net/eth0",
        "root/sys/devices/pci0000:00/0000:00:03.0/driver": "../../../../sys/bus/pci/drivers/r8127",
        "root/sys/devices/pci0000:00/0000:00:03.0/net/eth0/device": "../../../0000:00:03.0",
    } == links
    assert "r8127" == replay(found, tmp_path).host.link("/sys/class/net/eth0/device/driver")


def test_unread_names_stay_and_never_pose_as_data(tmp_path: Path) -> None:
    """A name that was listed and not read is listed again; reading it finds no text, empty or not."""
    machine = hosts.host({"/sys/class/net/eth0/mtu": "1500", "/sys/class/net/eth0/ifalias": "nobody asks this"})
    machine.tree.list("/sys/class/net/eth0")

    def ask(host: Host) -> list[Item]:
        assert ["ifalias", "mtu"] == host.list("/sys/class/net/eth0")
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "discover", lambda: {"asker": ask})
        again = replay(record(machine), tmp_path).host
    assert ["ifalias", "mtu"] == again.list("/sys/class/net/eth0")
    with pytest.raises(IsADirectoryError):
        again.text("/sys/class/net/eth0/ifalias")


def test_what_hangs_is_recorded_as_such() -> None:
    """A file that never answers costs one deadline, hangs on replay too, and does not hide what comes after it."""
    zone = "/sys/class/thermal/thermal_zone0"
    files = {f"{zone}/type": "acpitz", f"{zone}/temp": "0", f"{zone}/mode": "enabled"}
    found = record(hosts.host(files, errors={f"{zone}/temp": "HANG"}), file_deadline=0.1)

    assert {"sys/class/thermal/thermal_zone0/temp": "HANG"} == member(found, "errors.json")
    assert {Reason.TIMEOUT: (f"{zone}/temp",)} == found.unreadable
    assert "enabled" == text(found, f"{zone}/mode")


def test_a_number_that_has_no_name_is_an_io_error() -> None:
    """Drivers leak errors of the kernel's own, 524; the recording must be one that can be opened."""

    class Leaky(MemoryTree):
        def read(self, path: str) -> bytes:
            super().read(path)
            raise OSError(524, "Unknown error 524", path)

    leaky = Leaky()
    leaky.put("/proc/version", b"")
    machine = hosts.host()
    found = record(Host(leaky, machine.nvml, machine.udev, machine.processes, now=machine.now))

    assert {"proc/version": "EIO"} == member(found, "errors.json")


GPU = {
    "nvmlDeviceGetName": "NVIDIA GB10",
    "nvmlDeviceGetUUID": "GPU-00000000-0000-0000-0000-000000000000",
    "nvmlDeviceGetPowerUsage": 4100,
    "nvmlDeviceGetMemoryInfo": {"error": "NOT_SUPPORTED"},
    "nvmlDeviceGetClockInfo": {"SM": 208, "GRAPHICS": {"error": "NO_PERMISSION"}},
    "nvmlDeviceGetTemperature": {"GPU": 40},
    "nvmlDeviceGetComputeRunningProcesses": [{"pid": 77, "usedGpuMemory": 1024}],
    "nvmlDeviceGetGraphicsRunningProcesses": [],
    "fields": {"185": 4100, "83": 91},
}
SYSTEM = {"nvmlSystemGetDriverVersion": "580.178.04", "nvmlSystemGetCudaDriverVersion": 13000}


@pytest.mark.parametrize(
    "nvml",
    [
        pytest.param(None, id="no library"),
        pytest.param({"system": SYSTEM, "devices": [GPU]}, id="one GPU"),
        pytest.param({"system": SYSTEM, "devices": [GPU, {}]}, id="a second one that says nothing"),
        pytest.param({"system": SYSTEM, "devices": []}, id="no GPU"),
        pytest.param({"init": "DRIVER_NOT_LOADED"}, id="no driver"),
        pytest.param({"init": "LIB_RM_VERSION_MISMATCH", "devices": [GPU]}, id="upgraded under our feet"),
        pytest.param({"devices": [GPU | {"nvmlDeviceGetPowerUsage": {"error": "GPU_IS_LOST"}}]}, id="lost meanwhile"),
        pytest.param({"devices": [GPU | {"fields": {"error": "GPU_IS_LOST"}}]}, id="lost while asked for fields"),
        pytest.param({"system": {"nvmlDeviceGetCount": {"error": "UNKNOWN"}}, "devices": [GPU]}, id="cannot count"),
    ],
)
def test_nvml_replays_the_same(nvml: Mapping[str, Any] | None, tmp_path: Path) -> None:
    """Whatever NVML answers or fails with, the GPU's collector finds the same on replay."""

    def machine() -> Host:
        return hosts.host({"/proc/77/comm": "vllm\n"}, nvml=nvml)

    def fared(host: Host) -> tuple[list[Item], str]:
        items: list[Item] = []
        try:
            for item in gpu.read(host):
                items.append(item)  # noqa: PERF402  (what came before a fault counts)
        except Unavailable as error:
            return items, repr(error)
        return items, ""

    assert fared(machine()) == fared(replay(record(machine()), tmp_path).host)


def test_nvml_call_that_hangs_is_recorded_as_such() -> None:
    """A call that never returns does not return on replay either."""
    found = record(hosts.host(nvml={"devices": [GPU | {"nvmlDeviceGetPowerUsage": {"hang": True}}]}))

    assert {"hang": True} == member(found, "nvml.json")["devices"][0]["nvmlDeviceGetPowerUsage"]
    assert "TIMEOUT 1" in found.nvml


def test_nvml_has_the_documented_shape() -> None:
    """nvml.json has values by argument, fields by number and the errors' names, as docs/machines.md shows."""
    nvml = member(record(hosts.host(nvml={"system": SYSTEM, "devices": [GPU]})), "nvml.json")
    device = nvml["devices"][0]

    assert ("SUCCESS", 1) == (nvml["init"], len(nvml["devices"]))
    assert {"GPU": 40} == device["nvmlDeviceGetTemperature"]
    assert (208, {"error": "NO_PERMISSION"}) == tuple(
        device["nvmlDeviceGetClockInfo"][name] for name in ("SM", "GRAPHICS")
    )
    assert {"185": 4100, "83": 91} == device["fields"]
    assert {"error": "NOT_SUPPORTED"} == device["nvmlDeviceGetMemoryInfo"]


def test_what_is_no_json_is_garbage() -> None:
    """A driver that answers NaN must not make an archive that no one can open."""
    found = record(hosts.host(nvml={"devices": [GPU | {"nvmlDeviceGetPowerUsage": float("nan")}]}))

    assert {"error": "GARBAGE"} == member(found, "nvml.json")["devices"][0]["nvmlDeviceGetPowerUsage"]


# The sweep


def test_sweep_keeps_what_no_collector_asks() -> None:
    """A bug report holds more than today's collectors read."""
    files = {"/sys/class/typec/port0/power_role": "[sink]", "/proc/cmdline": "quiet", "/proc/uptime": "5.0 1.0"}
    found = record(hosts.host(files))

    assert files == {path: text(found, path) for path in files}


def test_sweep_leaves_alone_what_acts() -> None:
    """Neither switches and events, nor what asks a card, nor a process beyond its name is ever read."""
    alone = {
        "/sys/class/hwmon/hwmon0/uevent",
        "/sys/class/hwmon/hwmon0/reset_history",
        "/sys/class/hwmon/hwmon0/power1_reset_history",
        "/sys/class/hwmon/hwmon0/power/control",
        "/sys/class/thermal/thermal_zone0/emul_temp",
        "/sys/class/nvme/nvme0/reset_controller",
        "/sys/class/nvme/nvme0/rescan_controller",
        "/sys/class/net/eth0/phys_switch_id",
        "/sys/bus/pci/rescan",
        *(
            f"/sys/bus/pci/devices/0000:01:00.0/{name}"
            for name in ("config", "remove", "reset", "rom", "vpd", "uevent")
        ),
        "/sys/bus/i2c/devices/i2c-0/new_device",
        "/sys/kernel/debug/sleep_time",
        "/proc/1/environ",
        "/proc/kmsg",
    }
    read: list[str] = []

    class Watched(MemoryTree):
        def read(self, path: str) -> bytes:
            read.append(self.real(path))
            return super().read(path)

    tree = Watched()
    for path in alone | {"/sys/class/hwmon/hwmon0/name", "/sys/bus/pci/devices/0000:01:00.0/vendor"}:
        tree.put(path, b"1")
    machine = hosts.host()
    record(Host(tree, machine.nvml, machine.udev, machine.processes))

    assert {"/sys/class/hwmon/hwmon0/name", "/sys/bus/pci/devices/0000:01:00.0/vendor"} <= set(read)
    assert set() == alone.intersection(read)


def test_sweep_has_bounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A huge file is left out and said to be so; a huge machine ends early, and the summary says that."""
    big = record(hosts.host({"/proc/version": "x" * (recording._MOST_OF_A_FILE + 1)}))
    monkeypatch.setattr(recording, "_MOST_FILES", 10)
    many = record(hosts.host({f"/sys/class/hwmon/hwmon{number}/name": "x" for number in range(100)}))
    many.write(tmp_path / "x")

    assert {"proc/version": "EFBIG"} == member(big, "errors.json")
    assert (True, False) == (big.is_whole, many.is_whole)
    assert "ends early" in many.summary(tmp_path / "x")


# Redaction

MACS = st.binary(min_size=6, max_size=6).filter(lambda mac: len(set(mac)) > 3 and mac[0] != 2)
UUIDS = st.uuids(version=4).map(str)
SERIALS = st.one_of(
    st.from_regex(r"[A-Z][A-Z0-9]{6,14}[0-9]", fullmatch=True),
    st.from_regex(r"[1-9][0-9]{9,12}", fullmatch=True).filter(lambda serial: len(set(serial)) > 3),
)
HOST_NAMES = st.one_of(
    st.from_regex(r"[a-z]{5,8}-[0-9a-f]{4}", fullmatch=True), st.from_regex(r"[a-z]{9,12}", fullmatch=True)
).filter(is_distinctive)
UNTOUCHED = (
    *("0004:01:00.0", "000f:01:00.0", "6.17.0-1008-nvidia", "SAMSUNG MZALC4T0HBL1-00B07", "5.36_0ACUM018"),
    *("28.45.4028", "NVIDIA_DGX_Spark", "580.178.04", "jep106:0426:8901", "0x15b3", "200 Gb/sec (2X NDR)"),
    *("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "0000:0000:0000:0000", "buildd@bos03-arm64-018"),
    *("pci:v000015B3d00001021sv000015B3sd00000006bc02sc00i00", "/sys/devices/pci0000:00/0000:00:00.0/0000:01:00.1"),
    *("16 Aug 22:12:31 UTC 2026", "0-4,10-14", "ffffffff,ffffffff", "cpu0 12 34 56 78", "00000000:0f:01.0"),
    *("da39a3ee5e6b4b0d3255bfef95601890afd80709", "FF:FF:FF:FF:FF:FF", "(dvs-builder@U22-I3-AE18-09-2)", "fe80::1"),
)


def whose(mac: bytes, uuids: list[str], serials: list[str], host_name: str) -> Host:
    """Return a machine with the secrets of one owner in all the places where such things stand."""
    bare, colons = mac.hex(), mac.hex(":")
    flipped = (bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]).hex()
    gid = ":".join(flipped[at : at + 4] for at in range(0, 16, 4))
    guid = f"{bare[:4]}:{bare[4:6]}03:00{bare[6:8]}:{bare[8:]}"
    product, drive, gpu_serial = serials
    card, nic = "/sys/devices/pci0000:00/0000:01:00.0", f"enx{bare}"
    disk = "/sys/devices/pci0004:00/0004:01:00.0/nvme/nvme0"
    return hosts.host(
        {
            f"{card}/net/{nic}/address": f"{colons}\n",
            f"{card}/net/{nic}/operstate": "up\n",
            f"{card}/vendor": "0x15b3\n",
            f"{card}/device": "0x1021\n",
            f"{card}/infiniband/mlx5_0/node_guid": f"{guid}\n",
            f"{card}/infiniband/mlx5_0/node_desc": f"{host_name} mlx5_0\n",
            f"{card}/infiniband/mlx5_0/fw_ver": "28.45.4028\n",
            f"{disk}/serial": f"{drive:20}\n",
            f"{disk}/model": "SAMSUNG MZALC4T0HBL1-00B07\n",
            f"{disk}/subsysnqn": f"nqn.2014.08.org.nvmexpress:144d144d{drive:20}SAMSUNG MZALC4T0HBL1-00B07\n",
            f"{disk}/nvme0n1/wwid": f"eui.{flipped}\n",
            f"{disk}/nvme0n1/nguid": f"{uuids[0]}\n",
            "/sys/class/dmi/id/product_serial": f"{product}\n",
            "/sys/class/dmi/id/product_uuid": f"{uuids[1]}\n",
            "/sys/class/dmi/id/product_family": "DGX Spark\n",
            "/sys/class/dmi/id/product_name": "NVIDIA_DGX_Spark\n",
            "/sys/class/dmi/id/bios_version": "5.36_0ACUM018\n",
            f"/sys/class/hwmon/hwmon0/{host_name}": f"{product} {colons.upper()}\n",
            f"/sys/class/power_supply/hid-{colons}-battery/status": "Full\n",
            "/etc/dgx-release": f'DGX_NAME="DGX Spark"\nDGX_SERIAL_NUMBER="{product}"\n',
            "/etc/hostname": f"{host_name}\n",
            "/etc/machine-id": uuids[2].replace("-", "") + "\n",
            "/proc/sys/kernel/hostname": f"{host_name}.lan.example\n",
            "/proc/sys/kernel/osrelease": "6.17.0-1008-nvidia\n",
            "/proc/sys/kernel/random/boot_id": f"{uuids[3]}\n",
            "/proc/cmdline": f"root=UUID={uuids[4]} resume=/dev/mapper/{host_name.replace('-', '--')}-swap "
            f"key=/home/{host_name}x/key serial={gpu_serial} ip6=fe80:0000:0000:0000:{gid} gw=fe80::{gid}%{nic}\n",
            "/proc/version": f"Linux version 6.17.0-1008-nvidia ({host_name}@{host_name}) (gcc)\n",
            "/proc/77/comm": f"{host_name}\n",
        },
        links={
            f"/sys/class/net/{nic}": f"../../devices/pci0000:00/0000:01:00.0/net/{nic}",
            f"{card}/net/{nic}/device": "../../../0000:01:00.0",
            "/sys/bus/pci/devices/0000:01:00.0": "../../../devices/pci0000:00/0000:01:00.0",
            "/sys/class/infiniband/mlx5_0": f"{card}/infiniband/mlx5_0",
            "/sys/class/nvme/nvme0": disk,
            "/etc/os-release": f"/nix/{host_name}/{product}/os-release",
        },
        errors={f"{card}/net/{nic}/carrier_changes": "EIO"},
        nvml={
            "devices": [
                {
                    "nvmlDeviceGetName": f"NVIDIA GB10 {gpu_serial}",
                    "nvmlDeviceGetUUID": f"GPU-{uuids[5]}",
                    "nvmlDeviceGetComputeRunningProcesses": [{"pid": 77, "usedGpuMemory": 1}],
                }
            ]
        },
        udev={
            card: {
                "ID_MODEL_FROM_DATABASE": "MT2910 Family [ConnectX-7]",
                "ID_NET_NAME_MAC": nic,
                "ID_SERIAL": f"ACME_Card_{gpu_serial}",
                "ID_SERIAL_SHORT": gpu_serial,
                "DEVLINKS": f"/dev/disk/by-id/nvme-{drive} /dev/disk/by-uuid/{uuids[0]} /dev/{host_name}/{product}",
            }
        },
    )


@pytest.mark.once
@settings(deadline=None, max_examples=60)
@given(
    mac=MACS,
    uuids=st.lists(UUIDS, min_size=6, max_size=6, unique=True),
    serials=st.lists(SERIALS, min_size=3, max_size=3, unique=True),
    host_name=HOST_NAMES,
)
def test_nothing_tells_whose_machine_it_was(mac: bytes, uuids: list[str], serials: list[str], host_name: str) -> None:
    """No secret is in the archive, not in contents, names, links, udev or NVML, in none of its spellings."""
    found = record(whose(mac, uuids, serials, host_name))
    everything = unpacked(found).decode(errors="replace").lower()
    bare = mac.hex()
    secrets = [mac.hex(":"), mac.hex("-"), bare, f"{bare[:6]}fffe{bare[6:]}", f"{bare[6:8]}:{bare[8:]}"]
    secrets += [spelling for uuid in uuids for spelling in (uuid, uuid.replace("-", ""))]
    secrets += [serial.lower() for serial in serials]
    secrets += [host_name, host_name.replace("-", "--")]

    assert [] == [secret for secret in secrets if secret in everything]


@pytest.mark.once
@settings(deadline=None, max_examples=30)
@given(
    mac=MACS,
    uuids=st.lists(UUIDS, min_size=6, max_size=6, unique=True),
    serials=st.lists(SERIALS, min_size=3, max_size=3, unique=True),
    host_name=HOST_NAMES,
)
def test_redaction_changes_nothing_else(
    mac: bytes, uuids: list[str], serials: list[str], host_name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A redacted machine is the same machine: its document differs in names made of secrets, and in nothing else."""
    machine = record(whose(mac, uuids, serials, host_name))
    redacted = steady(looked_at(replay(machine, tmp_path_factory.mktemp("redacted"))))
    kept = steady(
        looked_at(replay(record(whose(mac, uuids, serials, host_name), private=True), tmp_path_factory.mktemp("kept")))
    )
    placeholders = {f"enx{mac.hex()}": "enx020000000001", f"{host_name}": "host1"}
    placeholders[serials[2]] = next(iter(re.findall(r"GB10 (REDACTED\d)", json.dumps(redacted))))
    expected = json.dumps(kept)
    for secret, placeholder in placeholders.items():
        expected = expected.replace(secret, placeholder)

    assert json.loads(expected) == redacted


def owners() -> Host:
    """Return one owner's machine."""
    uuids = [f"{digit * 8}-1234-4567-89ab-0123456789ab" for digit in "abcdef"]
    return whose(bytes.fromhex("a8b8e0123456"), uuids, ["1791425003333", "S6Z1NX0W123456", "QX77AB12"], "spark-a1b2")


def test_placeholders_have_the_shape_of_what_they_replace() -> None:
    """One secret has one placeholder wherever it stands; shape and grouping stay, so parsers and people can read on."""
    found = record(owners())
    card, disk = "/sys/devices/pci0000:00/0000:01:00.0", "/sys/devices/pci0004:00/0004:01:00.0/nvme/nvme0"
    device = member(found, "udev.json")[0]["properties"]
    cmdline = text(found, "/proc/cmdline").split()

    assert "02:00:00:00:00:01\n" == text(found, f"{card}/net/enx020000000001/address")
    assert "0200:0003:0000:0001\n" == text(found, f"{card}/infiniband/mlx5_0/node_guid")
    assert "host1 mlx5_0\n" == text(found, f"{card}/infiniband/mlx5_0/node_desc")
    assert re.fullmatch(r"00000000-0000-0000-0000-00000000000\d\n", text(found, "/sys/class/dmi/id/product_uuid"))
    assert re.fullmatch(r"0{31}\d\n", text(found, "/etc/machine-id"))
    assert re.fullmatch(r"REDACTED\d\s+", text(found, f"{disk}/serial"))
    assert text(found, "/sys/class/dmi/id/product_serial").strip() == device["DEVLINKS"].rpartition("/")[2]
    assert "enx020000000001" == device["ID_NET_NAME_MAC"]
    assert f"ACME_Card_{device['ID_SERIAL_SHORT']}" == device["ID_SERIAL"]
    assert "resume=/dev/mapper/host1-swap" == cmdline[1]
    assert "ip6=fe80:0000:0000:0000:0000:00ff:fe00:0001" == cmdline[4]
    assert "gw=fe80::0000:00ff:fe00:0001%enx020000000001" == cmdline[5]
    assert re.fullmatch(
        r"GPU-0{8}-0{4}-0{4}-0{4}-0{11}\d", member(found, "nvml.json")["devices"][0]["nvmlDeviceGetUUID"]
    )
    assert {"sys/devices/pci0000:00/0000:01:00.0/net/enx020000000001/carrier_changes": "EIO"} == member(
        found, "errors.json"
    )


def test_a_recording_recorded_again_stays_as_it_is(tmp_path: Path) -> None:
    """Placeholders are known as such: what was redacted once comes out the same."""
    once = record(owners())
    twice = record(replay(once, tmp_path).host)

    assert {name: node for name, node in once.members.items() if name != "manifest.txt"} == {
        name: node for name, node in twice.members.items() if name != "manifest.txt"
    }
    assert not any((twice.redacted or {}).values())


@pytest.mark.parametrize("words", UNTOUCHED)
def test_what_is_no_secret_stays(words: str) -> None:
    """Addresses on the bus, versions, models and ids survive whatever was learned."""
    redaction = Redaction()
    redaction.learn({"/sys/class/net/eth0/address": b"a8:b8:e0:12:34:56\n", "/etc/hostname": b"spark-a1b2\n"}, None, [])

    assert words == redaction.text(words)


@pytest.mark.parametrize("name", ["spark", "nvidia", "localhost", "net", "vm", "hwmon", "ubuntu", "0"])
def test_a_common_host_name_is_replaced_only_where_it_stands_alone(name: str) -> None:
    """A host called like a thing must not take the thing with it; the files that hold the name do not keep it."""
    files = {"/proc/sys/kernel/hostname": f"{name}\n", "/proc/cmdline": f"{name} of /proc/driver/{name}\n"}
    found = record(hosts.host(files))

    assert f"{name} of /proc/driver/{name}\n" == text(found, "/proc/cmdline")
    assert "localhost" == name or "host1\n" == text(found, "/proc/sys/kernel/hostname")


@pytest.mark.parametrize("filler", ["Default string", "To be filled by O.E.M.", "0000000000", "None", "REDACTED"])
def test_fillers_are_no_serial_numbers(filler: str) -> None:
    """What makers write for want of a serial number says something, and identifies nobody."""
    found = record(hosts.host({"/sys/class/dmi/id/board_serial": f"{filler}\n"}))

    assert f"{filler}\n" == text(found, "/sys/class/dmi/id/board_serial")


@pytest.mark.parametrize("tag", ["7", "0042", "DGX Spark", "alice"])
def test_short_and_wordy_tags_go_where_they_stand_alone(tag: str) -> None:
    """A tag that might be any number or word is replaced in its own file, and not in others by chance."""
    files = {"/sys/class/dmi/id/chassis_asset_tag": f"{tag}\n", "/proc/version": f"{tag} here\n"}
    found = record(hosts.host(files))

    assert f"{tag} here\n" == text(found, "/proc/version")
    assert "7" == tag or "REDACTED1\n" == text(found, "/sys/class/dmi/id/chassis_asset_tag")


@pytest.mark.parametrize("serial", ["AB 7", "0042", "SERIAL", "1791425003333"])
def test_assigned_serials_are_replaced_whatever_they_look_like(serial: str) -> None:
    """The release file says which of its values is a serial number, however short; names and versions stay."""
    release = 'DGX_NAME="DGX Spark"\nDGX_SERIAL_NUMBER="{}"\nDGX_OTA_VERSION="7.3.1"\n'
    found = record(hosts.host({"/etc/dgx-release": release.format(serial)}))

    assert release.format("REDACTED1") == text(found, "/etc/dgx-release")


def test_identifiers_of_a_drive_are_one_secret_in_each_spelling() -> None:
    """A namespace's identifier is known with and without its kind, and with the spaces that sysfs writes in it."""
    disk = "/sys/class/nvme/nvme0/nvme0n1"
    files = {
        f"{disk}/wwid": "eui.0025384b21500a1b\n",
        f"{disk}/eui": "00 25 38 4b 21 50 0a 1b\n",
        "/proc/cmdline": "by-id/nvme-eui.0025384b21500a1b by-id/wwn-0x0025384b21500a1b eui=00_25_38_4b_21_50_0a_1b\n",
    }
    found = record(hosts.host(files))

    assert "by-id/nvme-eui.REDACTED1 by-id/wwn-0xREDACTED1 eui=REDACTED1\n" == text(found, "/proc/cmdline")


def test_serials_of_nvml_are_known_by_the_call() -> None:
    """What a call's or a property's name says to be a serial number is one."""
    redaction = Redaction()
    calls = {"devices": [{"nvmlDeviceGetSerial": "1324921012345", "nvmlDeviceGetBoardPartNumber": "900-5G178"}]}
    redaction.learn({"/proc/cmdline": b"x=1324921012345"}, calls, [])

    assert {"devices": [{"nvmlDeviceGetSerial": "REDACTED1", "nvmlDeviceGetBoardPartNumber": "900-5G178"}]} == (
        redaction.value(calls)
    )
    assert "x=REDACTED1" == redaction.text("x=1324921012345")


@given(st.text())
def test_any_text_can_be_redacted(anything: str) -> None:
    """Whatever a file holds, redaction neither fails nor changes what it made."""
    redaction = Redaction()
    redaction.learn({"/proc/cmdline": anything.encode(errors="surrogatepass")}, anything, [])
    once = redaction.text(anything)

    assert once == redaction.text(once)


def test_private_keeps_everything(tmp_path: Path) -> None:
    """With --private nothing is replaced, and the summary says so."""
    found = record(owners(), private=True)
    found.write(tmp_path / "x")
    everything = unpacked(found)

    for secret in (b"a8:b8:e0:12:34:56", b"1791425003333", b"S6Z1NX0W123456", b"spark-a1b2", b"GPU-ffffffff"):
        assert secret in everything
    assert "nothing was redacted" in found.summary(tmp_path / "x")
    assert member(found, "machine.json")["redacted"] is False


# The archive


def test_archive_tells_nothing_of_its_making() -> None:
    """Two recordings of one machine are the same bytes, in order, of no time, owner or mode of whoever made them."""
    found, again = record(open_demo("fe-gemm").host), record(open_demo("fe-gemm").host)
    with tarfile.open(fileobj=io.BytesIO(found.archive())) as tar:
        members = tar.getmembers()

    assert found.archive() == again.archive()
    assert {(0, 0, 0, "", "")} == {(one.mtime, one.uid, one.gid, one.uname, one.gname) for one in members}
    assert {0o644} == {one.mode for one in members if one.isreg()}
    assert sorted(one.name for one in members) == [one.name for one in members]


def test_write_is_for_the_owner_alone(tmp_path: Path) -> None:
    """A recording may hold what redaction does not know: nobody else may read it, and it replaces what is there."""
    out = tmp_path / "x.tar.gz"
    out.write_bytes(b"old")
    record(hosts.host()).write(out)

    assert 0o600 == stat.S_IMODE(out.stat().st_mode)
    assert [out] == list(tmp_path.iterdir())
    assert "test" == open_machine(out).host.name


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room there is no half archive, what was there stays, and the error says why."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "x.tar.gz"
    out.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space left"):
        record(hosts.host()).write(out)
    assert ([out], b"old") == (list(tmp_path.iterdir()), out.read_bytes())


def test_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    """A folder that is not there is told as the system tells it."""
    with pytest.raises(FileNotFoundError):
        record(hosts.host()).write(tmp_path / "none" / "x.tar.gz")


def test_summary_and_manifest_say_what_is_missing(tmp_path: Path) -> None:
    """Who reports a bug sees what the recording lacks and what was replaced; the archive holds the whole list."""
    secret = ("board_serial", "chassis_serial", "product_serial", "product_uuid")
    machine = hosts.host(
        {
            "/proc/cmdline": "quiet",
            "/sys/class/net/enp1s0/address": "a8:b8:e0:12:34:56",
            "/sys/class/dmi/id/bios_date": "",
        },
        errors={f"/sys/class/dmi/id/{name}": "EACCES" for name in secret} | {"/proc/version": "EIO"},
        nvml={"init": "DRIVER_NOT_LOADED"},
    )
    found = record(machine)
    out = tmp_path / "x.tar.gz"
    found.write(out)

    assert [
        f"{out}: {out.stat().st_size / 1000:.0f} kB, 3 files",
        "not readable: 5",
        "  io_error: 1: /proc/version",
        f"  permission_denied: 4: {', '.join(f'/sys/class/dmi/id/{name}' for name in secret[:3])}, …",
        "NVML: does not start: DRIVER_NOT_LOADED",
        "redacted: MAC addresses 1",
        "Look through it before you post it: manifest.txt in it lists everything that is there.",
    ] == found.summary(out).splitlines()
    manifest = found.members["manifest.txt"]
    assert isinstance(manifest, bytes)
    assert "    /sys/class/dmi/id/product_uuid" in manifest.decode().splitlines()
    assert "  /proc/cmdline" in manifest.decode().splitlines()


# The command


def spark_agent(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder."""
    command = (sys.executable, "-m", "spark_agent.agent", *arguments)
    environment = os.environ | {"PYTHONPATH": str(REPO / ".namespace")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def shown(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the document that a command printed, without the times that collectors took."""
    found: dict[str, Any] = json.loads(done.stdout)
    for collector in found["collectors"]:
        del collector["seconds"]
    return found


def test_command_records_a_demo(tmp_path: Path) -> None:
    """What `record` wrote, `snapshot` shows as it shows the demo."""
    done = spark_agent(tmp_path, "--demo", "fe-gemm", "record", "x.tar.gz")
    original = spark_agent(tmp_path, "--demo", "fe-gemm", "snapshot", "--output", "json")
    recorded = spark_agent(tmp_path, "--machine", "x.tar.gz", "snapshot", "--output", "json")

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("x.tar.gz: ")
    assert shown(original) == shown(recorded)
    assert original.returncode == recorded.returncode


def test_command_records_a_moment(tmp_path: Path) -> None:
    """With --at a demo is recorded as it is at that second."""
    done = spark_agent(tmp_path, "--demo", "fe-gemm", "--at", "5", "record", "x.tar.gz")

    assert 0 == done.returncode, done.stderr
    assert open_demo("fe-gemm").host.now() + 5 == open_machine(tmp_path / "x.tar.gz").host.now()


def test_command_keeps_what_is_there(tmp_path: Path) -> None:
    """An existing file is replaced only by --force."""
    (tmp_path / "x.tar.gz").write_bytes(b"old")

    assert 64 == spark_agent(tmp_path, "--demo", "fe-idle", "record", "x.tar.gz").returncode
    assert b"old" == (tmp_path / "x.tar.gz").read_bytes()
    assert 0 == spark_agent(tmp_path, "--demo", "fe-idle", "record", "--force", "x.tar.gz").returncode


def _said(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def test_command_records_the_machine_of_this_test(tmp_path: Path) -> None:
    """Any Linux machine can be recorded without a traceback, and its recording does not tell which one it was."""
    done = spark_agent(tmp_path, "record", "x.tar.gz")
    assert 0 == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    everything = gzip.decompress((tmp_path / "x.tar.gz").read_bytes()).decode(errors="replace")
    machine = open_machine(tmp_path / "x.tar.gz")
    secrets = {_said(str(path)) for path in Path("/sys/class/net").glob("*/address")}
    secrets = {mac for mac in secrets if len(set(mac)) > 2 and not mac.startswith("02:00:00:00:")}
    secrets |= {_said("/etc/machine-id"), _said("/proc/sys/kernel/random/boot_id")} - {""}
    host_name = _said("/proc/sys/kernel/hostname")

    assert [] == [secret for secret in secrets if secret in everything]
    if is_distinctive(host_name):
        assert not re.search(rf"(?<![0-9A-Za-z]){re.escape(host_name)}(?![0-9A-Za-z])", everything)
    assert host_name == "localhost" or host_name != machine.host.text("/proc/sys/kernel/hostname")
    assert Origin.RECORDED is machine.host.origin
    again = spark_agent(tmp_path, "--machine", "x.tar.gz", "snapshot", "--output", "json")
    live = spark_agent(tmp_path, "snapshot", "--output", "json")
    reasons = [
        [(one["name"], one["status"], one["reason"]) for one in json.loads(run.stdout)["collectors"]]
        for run in (live, again)
    ]
    assert reasons[0] == reasons[1]
