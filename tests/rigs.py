"""What tests are held against: programs of others, how they are run, and what this process has open."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

#: Where ``scripts/prometheus.sh`` puts them.
FETCHED: Final = Path(__file__).parent.parent / ".rigs" / "usr" / "bin"

#: Each under its variable in the environment, which wins, and then under the names that distributions give it.
NAMES: Final = {
    "PROMETHEUS": ("prometheus",),
    "PROMTOOL": ("promtool",),
    "NODE_EXPORTER": ("prometheus-node-exporter", "node_exporter"),
}

#: Seconds after which a wait is given up: no bound on what is tested, only on a test that hangs.
PATIENCE: Final = 300.0


class MissingRigError(Exception):
    """A program is not here: says what helps."""


def program(variable: str) -> str:
    """Return the path of a program of `NAMES`, or raise `MissingRigError`."""
    if named := os.environ.get(variable):
        return named
    for folder in (str(FETCHED), None):
        for name in NAMES[variable]:
            if found := shutil.which(name, path=folder):
                return found
    raise MissingRigError(f"no {NAMES[variable][0]}; `sh scripts/prometheus.sh` fetches it, {variable}=FILE names one")


T = TypeVar("T")


def until(what: Callable[[], T | None], told: Callable[[], str] = str) -> T:
    """Ask until there is an answer, and return it; ``told`` says what is known where none comes."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := what()):
        assert time.monotonic() < deadline, f"nothing in {PATIENCE:g} s\n{told()}"
        time.sleep(0.02)  # between two questions
    return answer


# Says so whenever it slept for a tenth of a second longer than it meant to.
_METRONOME: Final = """\
import time
while True:
    began = time.monotonic()
    time.sleep(0.02)
    if (late := time.monotonic() - began - 0.02) > 0.1:
        print(f"{late:.2f}", flush=True)
"""


def open_below(folder: Path) -> int:
    """Return how many files below a folder this process has open; other tests' threads may open what they like."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            count += descriptor.readlink().is_relative_to(folder)
    return count


@contextmanager
def metronome(folder: Path) -> Iterator[Callable[[], int]]:
    """Yield what counts how often this machine itself stood still, as a virtual one does when its host is busy.

    So often a daemon may have missed a second, and no more: on a machine that is left alone, never.
    """
    log = folder / "metronome"
    with log.open("wb") as out, subprocess.Popen([sys.executable, "-c", _METRONOME], stdout=out) as process:
        try:
            yield lambda: len(log.read_text().splitlines())
        finally:
            process.terminate()


@dataclass(frozen=True)
class Running:
    """One of Prometheus' programs, which listens on loopback."""

    pid: int
    port: int


@contextmanager
def running(folder: Path, *command: str) -> Iterator[Running]:
    """Run one of Prometheus' programs with its output in a folder's ``log``, and yield it once it says where it is."""
    log = folder / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [*command, "--web.listen-address=127.0.0.1:0"], stdout=out, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield Running(process.pid, int(until(lambda: _listening(process, log), log.read_text)[1]))
        finally:
            process.terminate()


def _listening(process: subprocess.Popen[bytes], log: Path) -> re.Match[str] | None:
    assert process.poll() is None, log.read_text()
    return re.search(r"Listening on.*127\.0\.0\.1:([1-9]\d*)", log.read_text())
