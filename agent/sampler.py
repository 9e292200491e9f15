"""The beat: one look after another, at a machine's own pace, by one writer that everybody else only reads.

Whatever hangs, a beat takes place: a collector that does not answer in time is left to itself (`snapshot.Lookout`),
and what it said last is told with its age. Nobody who reads a report waits for one, and a hundred who read it cost
one reading of the machine.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count, takewhile
from typing import Final

from spark_agent.agent import BEAT_SECONDS
from spark_agent.agent.auditor import Tally
from spark_agent.agent.budget import Limit
from spark_agent.agent.calibration import Calibration
from spark_agent.agent.history import Ledger
from spark_agent.agent.machine import Machine
from spark_agent.agent.misread import Listener
from spark_agent.agent.report import Report, report
from spark_agent.agent.snapshot import Lookout
from spark_agent.collectors import Collector, Host, Origin, paces

log = logging.getLogger(__name__)

# Of a beat, the share that is spent waiting for a collector that does not answer; of the first one more, since a
# driver may have to be woken.
_PATIENCE: Final = 0.25
_FIRST_PATIENCE: Final = 0.75
# Beats during which everything is asked anew after a device came or went: its files come one after the other.
_DISTURBED_BEATS: Final = 3


class Sampler:
    """Looks at a machine beat after beat. ``report`` is the last one; it never changes, but is replaced."""

    def __init__(
        self,
        host: Host,
        collectors: Mapping[str, Collector],
        ledger: Ledger | None = None,
        beat_seconds: float = BEAT_SECONDS,
        advance: Callable[[], bool] = lambda: False,
        own: Sequence[Limit] = (),
        calibration: Calibration | None = None,
        listener: Listener | None = None,
        audited: Callable[[], Tally | None] = lambda: None,
    ) -> None:
        """Look at nothing yet. ``ledger`` keeps the counts.

        ``own`` are the limits that the owner has set, and ``calibration`` is the estimate's, from the next beat on.
        ``advance`` moves a machine that is replayed, and says whether something came or went in it, as udev would.
        A ``listener`` hears what other exporters say, and ``audited`` gives what the last audit found.
        """
        #: May be replaced between two beats, as may the calibration.
        self.own = own
        self.calibration = calibration
        self.report: Report | None = None
        self.ledger = ledger or Ledger()
        self.beat_seconds = beat_seconds
        self._host = host
        self._lookout = self._lookout_for(collectors)
        self._advance = advance
        self._listener = listener
        self._audited = audited
        self._disturbed = 0
        self._beaten_at = time.monotonic()

    @property
    def origin(self) -> Origin:
        """Whether the machine is the live one, recorded or imagined."""
        return self._host.origin

    def age(self) -> float:
        """Return the seconds since the last beat, or since the beginning where there was none."""
        return time.monotonic() - self._beaten_at

    def ask(self, collectors: Mapping[str, Collector]) -> None:
        """Ask these collectors from the next beat on."""
        self._lookout = self._lookout_for(collectors)

    def _lookout_for(self, collectors: Mapping[str, Collector]) -> Lookout:
        return Lookout(self._host, collectors, paces(), linger=2 * self.beat_seconds)

    def hurry(self, *collectors: str) -> None:
        """Ask these collectors at the next beat, whatever their pace. Any thread may say so."""
        self._lookout.hurry(*collectors)

    def disturb(self) -> None:
        """Find out anew what there is, for something came or went. Any thread may say so."""
        self._disturbed = _DISTURBED_BEATS

    def beat(self, patience: float | None = None) -> Report:
        """Look, judge, count, and publish the report."""
        if self._advance():
            self.disturb()
        if is_disturbed := self._disturbed > 0:
            self._disturbed -= 1
            self._host.memory.forget()
            self._lookout.hurry()
        if patience is None:
            patience = self.beat_seconds * (_PATIENCE if self.report else _FIRST_PATIENCE)
        snapshot = self._lookout.look(patience)
        judged = report(
            snapshot,
            self.report,
            watching=True,
            beat_seconds=self.beat_seconds,
            meter=self.ledger.meter,
            own=self.own,
            calibration=self.calibration,
            listener=self._listener,
        )
        history = self.ledger.note(snapshot, judged.budget, beat_seconds=self.beat_seconds, is_disturbed=is_disturbed)
        self.report = replace(judged, history=history, energies=self.ledger.energies, audit=self._audited())
        self._beaten_at = time.monotonic()
        return self.report

    def run(self, stop: threading.Event, after: Callable[[Report], None]) -> None:
        """Beat until told to stop, and call ``after`` each beat with its report."""
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            after(self.beat())
            due += self.beat_seconds
            if (late := time.monotonic() - due) > 0:
                missed = 1 + int(late // self.beat_seconds)
                self.ledger.miss(missed)
                log.warning("%d beats missed: the last took %.1f s", missed, self.beat_seconds + late)
                due += missed * self.beat_seconds


def play(
    machine: Machine,
    collectors: Mapping[str, Collector],
    until: float,
    interval: float,
    own: Sequence[Limit] = (),
    calibration: Calibration | None = None,
) -> Report:
    """Live a machine's timeline from its beginning, one beat after another, and look closely at ``until``."""
    t = 0.0
    sampler = Sampler(
        machine.host,
        collectors,
        beat_seconds=interval,
        advance=lambda: machine.play(t),
        own=own,
        calibration=calibration,
    )
    for beat in takewhile(lambda beat: beat * interval < until, count()):
        t = beat * interval
        sampler.beat(math.inf)
    t = until
    # Who asked for this second wants nothing older.
    sampler.disturb()
    return sampler.beat(math.inf)


def look_on(
    host: Host,
    collectors: Mapping[str, Collector],
    seconds: float,
    beat_seconds: float = BEAT_SECONDS,
    own: Sequence[Limit] = (),
    calibration: Calibration | None = None,
    after: Callable[[Report], None] = lambda _: None,
    listener: Listener | None = None,
) -> tuple[Report, bool]:
    """Look on for so many seconds, and return the last report, and whether Ctrl-C cut it short."""
    sampler = Sampler(host, collectors, beat_seconds=beat_seconds, own=own, calibration=calibration, listener=listener)
    until = host.clock() + seconds
    stop = threading.Event()

    def see(report: Report) -> None:
        after(report)
        if host.clock() + beat_seconds > until:
            stop.set()

    try:
        sampler.run(stop, see)
        if (rest := until - host.clock()) > 0:
            time.sleep(rest)
        # Who waited for this moment wants nothing older.
        sampler.disturb()
        return sampler.beat(math.inf), False
    except KeyboardInterrupt:
        if sampler.report is None:
            raise
        return sampler.report, True
