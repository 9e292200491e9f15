"""A day of beats, played fast: memory, descriptors and threads stay what they are.

In the suite some 3,000 beats, 50 minutes of the machine's; ``make soak`` plays all 86,400 of a day.
"""

import gc
import logging
import os
import re
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Final, overload
from unittest.mock import patch

import pytest
from rigs import until

from spark_agent.agent.blackbox import NAME
from spark_agent.agent.config import Settings
from spark_agent.agent.machine import Machine, Step, open_demo
from spark_agent.agent.sampler import Sampler
from spark_agent.collectors import discover
from spark_agent.exporters import scribe as scribe_module
from spark_agent.exporters.prometheus import Exposition
from spark_agent.exporters.scribe import Scribe

pytestmark = pytest.mark.rig

BEATS: Final = int(os.environ.get("SOAK_BEATS", "3000"))
#: Beats from one scrape to the next: Prometheus asks four times a minute.
SCRAPE_BEATS: Final = 15

#: Growth from the middle to the end. One object, or 64 bytes, kept from each beat would be more than this in a day
#: and in the suite's 1,500 beats alike; what caches and the interpreter take now and then is less.
MOST_BLOCKS: Final = BEATS // 8
MOST_BYTES: Final = 1_000_000 + 32 * BEATS

_ACCEPT: Final = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


class _Endless(Sequence[Step]):
    """A timeline that begins anew whenever it is over, so that the machine's life never settles."""

    def __init__(self, steps: Sequence[Step], seconds: float) -> None:
        self._steps = steps
        self._seconds = seconds

    def __len__(self) -> int:
        return sys.maxsize

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Step]: ...
    def __getitem__(self, index: int | slice) -> Step | Sequence[Step]:
        assert isinstance(index, int)
        lap, which = divmod(index, len(self._steps))
        step = self._steps[which]
        return replace(step, t=lap * self._seconds + step.t)


def _endless(name: str) -> tuple[Machine, int]:
    """Return a demo whose timeline never ends, and how long it takes to begin anew, in seconds."""
    machine = open_demo(name)
    seconds = int(machine._steps[-1].t) + 1
    machine._steps = _Endless(machine._steps, seconds)  # type: ignore[assignment]  # it is read by number only
    return machine, seconds


@dataclass(frozen=True)
class _Held:
    """What this process holds."""

    blocks: int
    resident_bytes: int
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> "_Held":
        gc.collect()
        resident = re.search(r"^VmRSS:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        assert resident
        return cls(
            sys.getallocatedblocks(),
            int(resident[1]) * 1024,
            len(list(Path("/proc/self/fd").iterdir())),
            threading.active_count(),
        )


class _MachineTime:
    """The module ``time``, as it is on the machine that is played: a day's saves in a day's beats."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def monotonic(self) -> float:
        return self._machine.host.clock()

    def time(self) -> float:
        return self._machine.host.now()


def _lived(name: str, folder: Path) -> tuple[_Held, _Held]:
    """Do all that a daemon does each beat, and return what this process holds in the middle and at the end.

    With state, black box, textfile and scrapes, on a machine that lives on and on.
    """
    machine, lap = _endless(name)
    logging.disable()
    with patch.object(scribe_module, "time", _MachineTime(machine)):
        scribe = Scribe(Settings(state_directory=folder, textfile=folder), machine.host.name)
        t = 0.0
        sampler = Sampler(machine.host, discover(), scribe.ledger, advance=lambda: machine.play(t))
        exposition = Exposition()
        # At the same second of the timeline.
        middle, end = (beats // lap * lap for beats in (BEATS // 2, BEATS))
        held: list[_Held] = []
        scribe.start()
        for beat in range(end + 1):
            t = float(beat)
            report = sampler.beat(60.0)
            scribe.take(report)
            if beat % SCRAPE_BEATS == 0:
                assert exposition.page(report, 0.5, _ACCEPT, "gzip")
                # As far behind as a disk may be here: reports that wait are memory too.
                until(lambda: not scribe._waiting)
            if beat in (middle, end):
                until(lambda: not scribe._waiting)
                held.append(_Held.now())
        scribe.finish(60.0)
    assert report.history
    assert end + 1 == report.history.beats
    before, after = held
    return before, after


@pytest.mark.parametrize("name", ["fe-gemm", "driver-lost"])
def test_nothing_grows(name: str, tmp_path: Path) -> None:
    """Not what a process of its own holds, nor what it leaves on disk."""
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        before, after = alone.submit(_lived, name, tmp_path).result()

    print(f"{name}, {BEATS} beats\n in the middle: {before}\n at the end: {after}")  # noqa: T201  (what `make soak` is for)
    assert (tmp_path / NAME).stat().st_size < 4_000_000
    assert (before.descriptors, before.threads) == (after.descriptors, after.threads)
    assert after.blocks - before.blocks < MOST_BLOCKS
    assert after.resident_bytes - before.resident_bytes < MOST_BYTES
