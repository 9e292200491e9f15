"""sd_notify: what systemd is told, and that nothing happens to the daemon where it cannot be told."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark_agent.agent.notify import Notifier


class Manager:
    """What systemd is to a service: a datagram socket, and the environment that names it."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(10)
        self.environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "15000000", "WATCHDOG_PID": str(os.getpid())}

    def heard(self) -> list[str]:
        """Return the lines of the next message."""
        return self.socket.recv(4096).decode().split("\n")

    def silence(self) -> bool:
        """Return whether nothing was said: sends are done when they return."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        return False


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """Listen as systemd does, at a path or in the abstract namespace."""
    manager = Manager(f"@{tmp_path.name}-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


def test_the_life_of_a_service(manager: Manager) -> None:
    """Each call is one message, with the lines that sd_notify(3) lists."""
    notifier = Notifier.from_environment(manager.environment)

    notifier.ready("serving")
    assert ["READY=1", "STATUS=serving"] == manager.heard()
    notifier.watchdog()
    assert ["WATCHDOG=1"] == manager.heard()
    notifier.status("12 beats")
    assert ["STATUS=12 beats"] == manager.heard()
    notifier.ready()
    assert ["READY=1"] == manager.heard()
    notifier.stopping()
    assert ["STOPPING=1"] == manager.heard()


def test_reload_carries_its_time(manager: Manager) -> None:
    """RELOADING=1 goes with the monotonic time in microseconds, which systemd 253 and later insist on."""
    before = time.monotonic_ns() // 1000
    Notifier.from_environment(manager.environment).reloading()
    said, (key, _, microseconds) = (lines := manager.heard())[0], lines[1].partition("=")

    assert ("RELOADING=1", "MONOTONIC_USEC") == (said, key)
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000


def test_status_stays_one_line(manager: Manager) -> None:
    """A text with line breaks cannot smuggle in an assignment of its own."""
    Notifier.from_environment(manager.environment).status("no GPU:\nSTOPPING=1\n")

    assert ["STATUS=no GPU: STOPPING=1"] == manager.heard()


def test_status_of_broken_text(manager: Manager) -> None:
    """A text that is no UTF-8 is told as far as it goes."""
    Notifier.from_environment(manager.environment).status("file \udcff")

    assert ["STATUS=file ?"] == manager.heard()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 15.0),
        ({"WATCHDOG_PID": ""}, 15.0),
        ({"WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
    ids=str,
)
def test_whose_watchdog(manager: Manager, environment: dict[str, str], seconds: float | None) -> None:
    """The watchdog counts where it is on and means this process; otherwise it is told nothing."""
    notifier = Notifier.from_environment(manager.environment | environment)
    notifier.watchdog()

    assert seconds == notifier.watchdog_seconds
    assert (seconds is None) == manager.silence()


@pytest.mark.parametrize("address", [None, "", "vsock:2:9999", "relative/path"])
def test_without_systemd(address: str | None) -> None:
    """Started by hand, or by something else than systemd, the calls do nothing."""
    notifier = Notifier.from_environment({} if address is None else {"NOTIFY_SOCKET": address})
    notifier.ready("serving")
    notifier.reloading()
    notifier.watchdog()
    notifier.stopping()

    assert Notifier() == notifier


def test_nobody_listens_any_more(tmp_path: Path) -> None:
    """A socket that is gone does not end the daemon."""
    Notifier(str(tmp_path / "gone"), 15.0).watchdog()


def test_a_manager_that_does_not_read(tmp_path: Path) -> None:
    """A manager whose queue is full is given up on instead of waited for: a lost message is all that happens."""
    manager = Manager(str(tmp_path / "notify"))
    notifier = Notifier.from_environment(manager.environment)
    told = 0
    # The kernel's queue is net.unix.max_dgram_qlen messages long: 10 to some hundred.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
        flood.setblocking(False)
        try:
            while True:
                flood.sendto(b"WATCHDOG=1", str(tmp_path / "notify"))
                told += 1
        except BlockingIOError:
            notifier.watchdog()
    manager.socket.setblocking(False)
    heard = 0
    try:
        while manager.socket.recv(4096):
            heard += 1
    except BlockingIOError:
        manager.socket.close()

    assert told == heard
