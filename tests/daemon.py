"""`spark-agent serve` in a process of its own, as a person starts it: for tests that need all of it."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Final, Self

from rigs import PATIENCE, until

SOURCE: Final = Path(__file__).parent.parent / ".namespace"

# As systemd does it: the socket is descriptor 3, and the variables are meant for this process.
_ACTIVATED: Final = """\
import os, runpy, sys
os.dup2(int(sys.argv.pop(1)), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
runpy.run_module("spark_agent.agent", run_name="__main__", alter_sys=True)
"""


class Daemon:
    """A daemon that looks at a replayed machine, for the time of a ``with``; it may be stopped and started again.

    It listens on a port of its own choice, or on a socket that is handed to it and outlives it, as systemd's do.
    Without a ``machine`` it looks at the one that it runs on.
    """

    def __init__(
        self,
        folder: Path,
        *flags: str,
        machine: tuple[str, ...] = ("--demo", "fe-gemm"),
        listener: socket.socket | None = None,
    ) -> None:
        self._folder = folder
        self._machine = machine
        self._flags = flags
        self._listener = listener
        self._starts = 0
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)

    def start(self) -> None:
        """Start it, and return when it is ready."""
        self._starts += 1
        command = [*self._machine, "serve", *self._flags]
        kept: tuple[int, ...] = ()
        if self._listener:
            kept = (self._listener.fileno(),)
            command = ["-c", _ACTIVATED, str(kept[0]), *command]
        else:
            command = ["-m", "spark_agent.agent", *command, "--web.listen-address=127.0.0.1:0"]
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=kept,
                env=os.environ | {"PYTHONPATH": str(SOURCE)},
            )
        self.port = int(until(self._ready, lambda: self.log)[1])

    def stop(self, with_: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(with_)
        return self.process.wait(PATIENCE)

    @property
    def _log(self) -> Path:
        return self._folder / f"log.{self._starts}"

    @property
    def log(self) -> str:
        """What it has logged since it was started last."""
        return self._log.read_text()

    def _ready(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self.log
        return re.search(r"msg=ready .*addresses=\S+?:(\d+)", self.log)

    def get(self, path: str = "/metrics", **headers: str) -> tuple[int, str]:
        """Ask for a page, and return status and text."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            client.request("GET", path, headers=headers)
            answer = client.getresponse()
            return answer.status, answer.read().decode()
        finally:
            client.close()

    def sample(self, series: str, **headers: str) -> float:
        """Return the value of one series of the page, written as it stands there."""
        status, page = self.get(**headers)
        assert 200 == status
        return next(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(f"{series} "))

    def resident_bytes(self) -> int:
        """Return the memory that the process holds, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found
        return int(found[1]) * 1024


def copied(demo: str, folder: Path, **files: Any) -> Path:
    """Unpack a built-in machine, with some of its JSON files replaced or added."""
    archive = SOURCE.parent / "agent" / "demos" / f"{demo}.tar.gz"
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    machine = next(folder.rglob("machine.json")).parent
    for name, content in files.items():
        lines = content if isinstance(content, str) else json.dumps(content)
        (machine / name.replace("_", ".")).write_text(lines)
    return machine
