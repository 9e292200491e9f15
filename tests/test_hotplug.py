"""Devices that come and go: heard of at once, looked at within a beat, counted, and never mixed up."""

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import pytest

from spark_agent.agent.machine import Step, open_demo
from spark_agent.agent.report import Report
from spark_agent.agent.sampler import Sampler
from spark_agent.collectors import Property, _live, discover, nic, nvme, spbm
from spark_agent.collectors._live import Hotplug
from spark_agent.collectors._tree import MemoryTree

_PATIENCE = 10.0


@dataclass
class Device:
    """A device as pyudev tells of it."""

    action: str


class Monitor:
    """udev's monitor, with a pipe in place of its socket: readable while there is something to tell."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self.filters: list[str] = []
        self.is_started = False
        self.waiting: deque[Device | OSError] = deque()

    def filter_by(self, subsystem: str) -> None:
        self.filters.append(subsystem)

    def start(self) -> None:
        self.is_started = True

    def fileno(self) -> int:
        return self._read.fileno()

    def tell(self, *devices: Device | OSError) -> None:
        self.waiting.extend(devices)
        self._write.send(b"x" * len(devices))

    def poll(self, timeout: float | None = None) -> Device | None:
        assert timeout == 0  # anything else would wait
        if not self.waiting:
            return None
        self._read.recv(1)
        device = self.waiting.popleft()
        if isinstance(device, OSError):
            raise device
        return device

    def close(self) -> None:
        self._read.close()
        self._write.close()


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    """Put a monitor of our own in the place of udev's."""
    pyudev = pytest.importorskip("pyudev")
    monitor = Monitor()
    monkeypatch.setattr(_live, "_udev_context", lambda: None)
    monkeypatch.setattr(pyudev.Monitor, "from_netlink", lambda _: monitor)
    yield monitor
    monitor.close()


@pytest.fixture
def hotplug(monitor: Monitor) -> Iterator[Hotplug]:
    """Listen to it."""
    hotplug = Hotplug()
    assert monitor.is_started
    yield hotplug
    hotplug.close()


def _devices(hotplug: Hotplug) -> bool:
    """Return whether devices came or went; links of the computer that runs this test may change at any time."""
    return hotplug.wait(0)[0]


# --- what is heard ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actions", "devices"),
    [
        ((), False),
        (("add",), True),
        (("remove",), True),
        (("bind",), True),
        (("unbind",), True),
        (("move",), True),
        (("online",), True),
        (("offline",), True),
        (("change",), False),
        (("change", "change", "add", "change"), True),
    ],
)
def test_what_comes_or_goes_is_heard(
    monitor: Monitor, hotplug: Hotplug, actions: tuple[str, ...], devices: bool
) -> None:
    """A battery that changes is no device that comes; all that waits is heard at once, and once."""
    monitor.tell(*map(Device, actions))
    assert devices is _devices(hotplug)
    assert not monitor.waiting
    assert not _devices(hotplug)


def test_what_collectors_read_is_listened_to(monitor: Monitor, hotplug: Hotplug) -> None:  # noqa: ARG001  (it asks)
    """Network, drives, sensors and drivers; a disk says nothing that its controller does not."""
    assert {"net", "nvme", "hwmon", "pci", "module", "thermal"} <= set(monitor.filters)
    assert "block" not in monitor.filters


def test_more_events_than_fit_are_one(monitor: Monitor, hotplug: Hotplug) -> None:
    """The kernel drops what a buffer does not hold: anything may have come or gone, and the next is heard again."""
    monitor.tell(Device("change"), OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)))
    assert _devices(hotplug)
    monitor.tell(Device("add"))
    assert _devices(hotplug)


@pytest.mark.parametrize("fault", [ImportError("no pyudev"), OSError(errno.EAFNOSUPPORT, "no netlink")])
def test_who_cannot_listen_says_so(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """With what the daemon expects, and without a socket left open."""

    def refuse() -> None:
        raise fault

    monkeypatch.setattr(_live, "_udev_context", refuse)
    with pytest.raises(type(fault)):
        Hotplug()


# In a network namespace of its own, so that no link of this computer changes: each line is what `ip link` is told.
_IN_NAMESPACE = """\
import socket, subprocess, sys
from types import SimpleNamespace
import pyudev
from spark_agent.collectors import _live

quiet, _other = socket.socketpair()
_live._udev_context = lambda: None
pyudev.Monitor.from_netlink = lambda _: SimpleNamespace(
    filter_by=lambda _: None, start=lambda: None, fileno=quiet.fileno, poll=lambda timeout: None
)
hotplug = _live.Hotplug()
for line in sys.stdin:
    subprocess.run(["ip", "link", *line.split()], check=True)
    print(*hotplug.wait(10), flush=True)
    while hotplug.wait(0)[1]:
        pass
hotplug.close()
"""

# A namespace of users too, so that it needs no root.
_UNSHARE = ("unshare", "--map-root-user", "--net")


def _why_not() -> str:
    """Return why no network namespace with links can be made here, if that is so."""
    links = "ip link add t0 type veth peer name t1"
    try:
        done = subprocess.run([*_UNSHARE, "sh", "-c", links], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""


def _heard(*changes: str) -> list[str]:
    """Return what is heard, in a network namespace of its own, when these links change one after the other."""
    done = subprocess.run(
        [*_UNSHARE, sys.executable, "-c", _IN_NAMESPACE],
        input="".join(f"{change}\n" for change in changes),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return done.stdout.splitlines()


def test_links_that_change_are_heard_of() -> None:
    """For real: a link that comes, goes up, loses its carrier and goes; the kernel tells no uevent of a carrier."""
    if why := _why_not():
        pytest.skip(f"no network namespace can be made here: {why}")
    changes = ("add t0 type veth peer name t1", "set t0 up", "set t1 up", "set t1 down", "del t0")
    assert ["False True"] * len(changes) == _heard(*changes)


# --- what is done about it --------------------------------------------------------------------------------------------


def _watched(demo: str, *steps: Step) -> Iterator[Report]:
    """Yield the report of each second of a built-in machine to which this happens besides."""
    machine = open_demo(demo)
    machine._steps = tuple(sorted((*machine._steps, *steps), key=lambda step: step.t))
    seconds = count()
    sampler = Sampler(machine.host, discover(), advance=lambda: machine.play(float(next(seconds))))
    while True:
        yield sampler.beat(_PATIENCE)


def _step(t: float, root: Mapping[str, str | None]) -> Step:
    return Step("here", t, root, {}, {})


def _entities(report: Report, of: Property) -> set[str]:
    return {fact.entity for fact in report.snapshot.facts(of)}


@pytest.mark.parametrize(
    ("collector", "of", "folder", "name", "files"),
    [
        ("nvme", nvme.MODEL, "sys/class/nvme", "nvme0", {"model": "Another", "state": "live"}),
        ("nic", nic.OPERSTATE, "sys/class/net", "enP7s7", {"operstate": "up", "device/uevent": "DRIVER=r8127"}),
    ],
)
def test_what_comes_and_goes_is_told_and_counted_within_a_beat(
    collector: str, of: Property, folder: str, name: str, files: Mapping[str, str]
) -> None:
    """Though drives are asked every ten seconds only, and links every two."""
    steps = (
        _step(3, {f"{folder}/{name}": None}),
        _step(6, {f"{folder}/{name}/{file}": text for file, text in files.items()}),
    )
    reports = list(islice(_watched("fe-gemm", *steps), 9))
    assert [True] * 3 + [False] * 3 + [True] * 3 == [name in _entities(report, of) for report in reports]
    counts = [report.history.inventory_changes.get(collector, 0) for report in reports if report.history]
    gone, back = counts[3], counts[6]
    assert [0] * 3 + [gone] * 3 + [back] * 3 == counts
    assert 0 < gone < back


def test_a_sensor_that_comes_back_under_another_number_is_the_same_sensor() -> None:
    """Numbers of hwmon are given anew: what one chip reads must not be told as another's, in no beat on the way."""
    tree = open_demo("fe-gemm").host.tree
    assert isinstance(tree, MemoryTree)
    chips = {
        tree.read(f"/sys/class/hwmon/{chip}/name").decode().strip(): chip for chip in tree.list("/sys/class/hwmon")
    }
    one, other = chips["spbm"], chips["nvme"]
    swapped: dict[str, str | None] = {}
    for old, new in ((one, other), (other, one)):
        for file in tree.list(f"/sys/class/hwmon/{old}"):
            with contextlib.suppress(OSError):
                swapped[f"sys/class/hwmon/{new}/{file}"] = tree.read(f"/sys/class/hwmon/{old}/{file}").decode()
    steps = (
        _step(3, {f"sys/class/hwmon/{one}": None, f"sys/class/hwmon/{other}": None}),
        _step(5, swapped),
    )
    for second, report in enumerate(islice(_watched("fe-gemm", *steps), 9)):
        powers = [reading.value for reading in report.snapshot.readings(spbm.SYSTEM)]
        heats = [reading.value for reading in report.snapshot.readings(nvme.TEMPERATURE)]
        assert all(power > 10 for power in powers), second
        assert (second in (3, 4)) is not bool(powers), second
        assert all(heat < 100 for heat in heats), second


class Asked:
    """A collector that is asked seldom, and the beats in which it was."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, host: Any) -> Iterator[Any]:
        self.asked.append(host.clock())
        yield from ()


@pytest.mark.parametrize("thread", [False, True])
def test_who_is_disturbed_looks_anew_in_the_next_beats(thread: bool) -> None:
    """In three of them, for the files of a device come one after the other; what was kept is forgotten."""
    machine = open_demo("fe-gemm")
    drives, beat = Asked(), 0
    sampler = Sampler(machine.host, {"nvme": drives}, advance=lambda: machine.play(float(beat)))
    for beat in range(9):
        if beat == 2:
            if thread:
                other = threading.Thread(target=sampler.disturb)
                other.start()
                other.join()
            else:
                sampler.disturb()
        sampler.beat(_PATIENCE)
    assert [0, 2, 3, 4] == drives.asked
    assert 3 == machine.host.memory.forgotten


def test_links_are_asked_for_at_once() -> None:
    """Without the rest being found out anew: a carrier that comes and goes changes no layout."""
    machine = open_demo("fe-gemm")
    links, drives, beat = Asked(), Asked(), 0
    sampler = Sampler(machine.host, {"nic": links, "nvme": drives}, advance=lambda: machine.play(float(beat)))
    for beat in range(9):
        if beat == 3:
            sampler.hurry("nic")
        sampler.beat(_PATIENCE)
    assert ([0, 3, 8], [0]) == (links.asked, drives.asked)
    assert 0 == machine.host.memory.forgotten
