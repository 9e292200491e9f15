"""The scribe: all that the daemon writes to disk, in a thread that may wait for it.

The black box gets each report, the counts that survive restarts are saved when they have moved, and node_exporter's
textfile is renewed. A disk that is full, read-only or hangs costs what would have been written, and never a beat.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from spark_agent.agent.blackbox import NAME, BlackBox, Record, record_of
from spark_agent.agent.config import Settings
from spark_agent.agent.energy import Accounts, Meter
from spark_agent.agent.history import Kept, Ledger
from spark_agent.agent.report import Report
from spark_agent.agent.state import StateError, Store
from spark_agent.collectors.boot import BOOT_ID
from spark_agent.exporters import textfile

log = logging.getLogger(__name__)

#: Seconds between two saves of the counts.
SAVE_SECONDS: Final = 10.0
_COUNTS: Final = "counts"
# Records that wait for a disk that hangs; older ones are given up. Of whole reports, they would cost 100 MiB.
_MOST_WAITING: Final = 1200


class Scribe:
    """Writes what it is handed, until it is told to finish."""

    def __init__(self, settings: Settings, machine: str) -> None:
        """Open what is kept, or raise `StateError` where there can be no folder for it.

        Without a state directory there is only the textfile; so there is where the state is of a newer agent.
        """
        #: May be replaced while it writes.
        self.settings = settings
        self._boot_id = _boot_id()
        self._machine = machine
        self._waiting: deque[Record] = deque(maxlen=_MOST_WAITING)
        self._report: Report | None = None
        self._moved = threading.Condition()
        self._is_over = False
        self._faults: set[str] = set()
        self._save_at = self._textfile_at = -math.inf
        self._saved: Mapping[str, Any] | None = None
        self._store = Store(settings.state_directory) if settings.state_directory else None
        self._box: BlackBox | None = None
        self.ledger = Ledger()
        self._page = self.ledger.page()
        if self._store:
            try:
                self.ledger = self._go_on(self._store)
            except StateError as error:
                log.error("%s; until then, nothing outlives this agent: no counters, no black box", error)  # noqa: TRY400  (one line)
                self._store.close()
                self._store = None
        if self._store and settings.blackbox:
            self._box = self._open_box(self._store.folder, machine)
        self._thread = threading.Thread(target=self._write, name="scribe", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def take(self, report: Report) -> None:
        """Write this when there is time; for the thread of the beat, which it does not hold up."""
        record = record_of(report) if self._box else None
        with self._moved:
            if record:
                self._waiting.append(record)
            self._report, self._page = report, self.ledger.page()
            self._moved.notify()

    def finish(self, seconds: float) -> None:
        """Write what is left, and that the end was clean; a disk that takes longer is not waited for."""
        with self._moved:
            self._is_over = True
            self._moved.notify()
        self._thread.join(seconds)

    def _go_on(self, store: Store) -> Ledger:
        """Return the counts of earlier starts, with this one, and with how the last one ended."""
        kept, meter = Kept(), Meter()
        if before := store.load(_COUNTS):
            try:
                kept = Kept.from_json(before)
                # What another machine drew, one that is replayed, is no part of this one's account.
                if before.get("machine") == self._machine:
                    meter = Meter(Accounts.from_json(before["energy"]))
            except (KeyError, ValueError) as error:
                log.warning("%s: %s; these begin anew", store.folder / _COUNTS, error)
            if boot_id := before.get("running"):
                is_machine = boot_id != self._boot_id
                kept.unclean_shutdowns += 1
                kept.machine_unclean_shutdowns += is_machine
                what = "the machine went down" if is_machine else "the agent was killed"
                hint = "; `spark-agent blackbox` shows the last minutes before" if self.settings.blackbox else ""
                log.warning("no clean end: %s%s", what, hint)
        kept.starts += 1
        ledger = Ledger(kept, meter)
        self._page = ledger.page()
        self._save(store, ledger, running=self._boot_id)
        return ledger

    def _open_box(self, folder: Path, machine: str) -> BlackBox:
        settings = self.settings
        return BlackBox.open(
            folder / NAME,
            self._boot_id,
            machine,
            time.time(),
            kept_seconds=settings.blackbox_seconds,
            flush_seconds=max(settings.blackbox_flush, settings.beat),
            interval=settings.beat,
        )

    def _write(self) -> None:
        is_over = False
        while not is_over:
            with self._moved:
                self._moved.wait_for(lambda: self._report or self._is_over)
                waiting, report, is_over = list(self._waiting), self._report, self._is_over
                self._waiting.clear()
                self._report = None
            try:
                for record in waiting:
                    if self._box:
                        self._box.append(record)
                if report:
                    self._renew(report)
            except Exception as error:  # noqa: BLE001  (the boundary: what cannot be written must not end the writing)
                self._complain("scribe", f"{error!r}; this is a bug, and something is not written")
        if self._box:
            self._box.close()
        if self._store:
            self._save(self._store, self.ledger, running="")
            self._store.close()

    def _renew(self, report: Report) -> None:
        """Save the counts, and write the textfile, where either is due."""
        now = time.monotonic()
        if self._store and now >= self._save_at:
            self._save_at = now + SAVE_SECONDS
            self._save(self._store, self.ledger, running=self._boot_id)
        if (folder := self.settings.textfile) and now >= self._textfile_at:
            self._textfile_at = now + self.settings.textfile_interval
            try:
                textfile.write(report, folder)
                self._mend(str(folder))
            except OSError as error:
                self._complain(str(folder), f"{folder}: {error.strerror}; no textfile is written")

    def _save(self, store: Store, ledger: Ledger, *, running: str) -> None:
        """Save the counts if they have moved. Where that cannot be, they are told all the same, and may be lost."""
        # Of this moment: the beat goes on counting.
        page = self._page
        content = {**page.to_json(), "machine": self._machine, "running": running}
        if content == self._saved:
            return
        try:
            store.save(_COUNTS, content)
            self._saved = content
            self._mend(_COUNTS)
        except StateError as error:
            self._complain(_COUNTS, f"{error}; until then, counters are lost at a restart")
        ledger.saved(page)

    def _complain(self, what: str, why: str) -> None:
        """Log a fault once, until it is mended."""
        if what not in self._faults:
            self._faults.add(what)
            log.error(why)

    def _mend(self, what: str) -> None:
        if what in self._faults:
            self._faults.remove(what)
            log.info("%s can be written again", what)


def _boot_id() -> str:
    try:
        return Path(BOOT_ID).read_text(encoding="ascii").strip()
    except (OSError, ValueError):  # each start then counts as one of the same boot
        return "unknown"
