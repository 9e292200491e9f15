"""A machine that systemd has booted: this one's own root file system, copy-on-write, in systemd-nspawn.

Nothing written inside reaches the disk, its network is loopback alone, and it ends with the test session.
"""

import ctypes
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

REPO: Final = Path(__file__).parents[2]
BOOT_SECONDS: Final = 120.0
PATIENCE_SECONDS: Final = 60.0
CLONE_NEWNET: Final = 0x40000000

T = TypeVar("T")


class CannotBootError(Exception):
    """There is no booting another machine on this one."""


def until(what: Callable[[], T | None], told: Callable[[], str] = str) -> T:
    """Ask until there is an answer; how long it takes is not judged, but it must come."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := what()):
        if time.monotonic() > deadline:
            raise AssertionError(f"nothing in {PATIENCE_SECONDS:g} s\n{told()}")
        time.sleep(0.05)  # between two questions
    return answer


@dataclass(frozen=True)
class Done:
    """A command that has run."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Container:
    """A booted machine: its PID 1 as we see it, and where its console is written."""

    nspawn: subprocess.Popen[bytes]
    leader: int
    console: Path

    @classmethod
    def boot(cls, folder: Path) -> Self:
        """Boot, and return when systemd is up."""
        if os.geteuid():
            raise CannotBootError("not root: no machine can be booted for the tests of the service")
        if not shutil.which("systemd-nspawn"):
            raise CannotBootError("no systemd-nspawn; this helps: apt-get install systemd-container")
        root, console, notify = folder / "root", folder / "console", folder / "notify"
        root.mkdir()
        (folder / "nspawn").mkdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, console.open("wb") as out:
            ready.bind(str(notify))
            # A mount namespace of its own: the mount of / ends with it. "/" itself is refused as a container.
            nspawn = subprocess.Popen(
                # With a signal for when these tests are killed, which leaves nobody to power it off.
                [
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    "unshare",
                    "--mount",
                    "sh",
                    "-c",
                    'mount --bind -o ro / "$0" && exec "$@"',
                    root,
                    *_command(root),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    "PATH": os.environ["PATH"],
                    "NOTIFY_SOCKET": str(notify),
                    # The service's device policy is a BPF program, which hangs on cgroup version 2.
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                },
            )
            try:
                leader = _leader(ready, nspawn)
            except BaseException:
                nspawn.kill()
                nspawn.wait()
                print(console.read_text(errors="replace"), file=sys.stderr)  # noqa: T201  (what pytest shows)
                raise
        return cls(nspawn, leader, console)

    def power_off(self) -> None:
        """End it, as a power button does."""
        os.kill(self.leader, signal.SIGRTMIN + 4)
        try:
            self.nspawn.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.nspawn.kill()
            self.nspawn.wait()

    def try_(self, *command: str | Path, stdin: bytes = b"") -> Done:
        """Run a command inside, as root; what it printed is for the test to judge."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.leader), "--all", "--", *map(str, command)],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=2 * PATIENCE_SECONDS,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def run(self, *command: str | Path, stdin: bytes = b"") -> str:
        """Run a command inside, as root, and return what it prints; it must succeed."""
        done = self.try_(*command, stdin=stdin)
        assert 0 == done.code, f"{command}\n{done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout

    def start(self, unit: str) -> None:
        """Start a unit; it must succeed.

        Once more where its cgroup was gone as it began (219/CGROUP): systemd may still be removing that of a run that
        has just failed.
        """
        done = self.try_("systemctl", "start", unit)
        if done.code and self.show(unit, "ExecMainStatus") == "219":
            done = self.try_("systemctl", "start", unit)
        assert 0 == done.code, f"{unit}\n{done.stdout}{done.stderr}\n{self.journal()}"

    def write(self, path: str, content: str | bytes) -> None:
        """Write a file inside, with its folder."""
        raw = content.encode() if isinstance(content, str) else content
        self.run("sh", "-c", f"mkdir -p '{Path(path).parent}' && cat >'{path}'", stdin=raw)

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value").strip()

    def journal(self, *arguments: str) -> str:
        """Return what was logged."""
        return self.try_("journalctl", "--no-pager", "--lines=60", "--output=short-precise", *arguments).stdout

    def connect(self, port: int) -> socket.socket:
        """Return a connection to a port of its loopback."""
        made: list[socket.socket | OSError] = []

        def in_its_network() -> None:
            # A network namespace is a thread's; a socket stays in the one that it was made in.
            with Path(f"/proc/{self.leader}/ns/net").open() as net:
                if ctypes.CDLL(None, use_errno=True).setns(net.fileno(), CLONE_NEWNET):
                    made.append(OSError(ctypes.get_errno(), "setns"))
                    return
            try:
                made.append(socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=in_its_network)
        thread.start()
        thread.join()
        (got,) = made
        if isinstance(got, OSError):
            raise got
        return got

    def get(self, path: str, port: int = 10240) -> tuple[int, str]:
        """Return the status and the text of a page."""
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.sock = self.connect(port)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise AssertionError(f"{path}: {error!r}\n{self.journal()}") from error
        finally:
            connection.close()


def _command(root: Path) -> list[str]:
    # Where the tests run from may be on a file system of its own, or below /tmp, which is the container's.
    visible = {str(path) for path in (REPO, Path(sys.prefix), Path(sys.base_prefix))}
    return [
        "systemd-nspawn",
        "--quiet",
        f"--directory={root}",
        "--volatile=overlay",
        "--machine=rig",
        "--hostname=rig",
        "--register=no",
        "--keep-unit",
        "--private-network",
        "--console=pipe",
        "--notify-ready=yes",
        # Without both, systemd says nothing and enforces no device policy.
        "--capability=all",
        "--system-call-filter=bpf",
        *(f"--bind-ro={path}" for path in sorted(visible)),
        # A Python below /root is hidden from the service: here the service sees it too.
        f"--bind-ro={sys.base_prefix}:/opt/python",
        "--boot",
        # Not the services that this machine happens to have.
        "systemd.unit=basic.target",
    ]


def _leader(ready: socket.socket, nspawn: "subprocess.Popen[bytes]") -> int:
    """Return the container's PID 1, when it says that it is up."""
    leader, deadline = 0, time.monotonic() + BOOT_SECONDS
    ready.settimeout(1)
    while True:
        try:
            message = ready.recv(4096).decode()
        except TimeoutError:
            if nspawn.poll() is not None or time.monotonic() > deadline:
                raise CannotBootError("systemd-nspawn did not boot this machine's root file system") from None
            continue
        for line in message.split("\n"):
            name, _, value = line.partition("=")
            if name == "X_NSPAWN_LEADER_PID":
                leader = int(value)
            if line == "READY=1" and leader:
                return leader
