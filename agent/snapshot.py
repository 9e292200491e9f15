"""One look at the machine: the only place that calls, times and guards collectors."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from spark_agent.collectors import (
    Absence,
    Collector,
    Fact,
    Host,
    Item,
    NoData,
    Origin,
    Property,
    Quantity,
    Reading,
    Reason,
    Unavailable,
    reason_of,
)

log = logging.getLogger(__name__)

# Seconds that one file may take. Sensors behind an embedded controller take tens of milliseconds.
FILE_DEADLINE: Final = 2.0
# Seconds that one collector may take in all. NVML's own deadlines are shorter than this.
COLLECTOR_DEADLINE: Final = 20.0


class Status(StrEnum):
    """How a collector fared."""

    OK = "ok"
    ABSENT = "absent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Visit:
    """One collector's items, and how the reading went. ``at`` is the machine's clock when it began."""

    collector: str
    status: Status
    at: float
    seconds: float
    items: tuple[Item, ...] = ()
    reason: Reason | None = None
    detail: str = ""

    @property
    def rejected(self) -> int:
        """How many values were there but could not be believed."""
        doubtful = (Reason.IMPOSSIBLE, Reason.GARBAGE, Reason.OVERFLOW)
        return sum(isinstance(item, Absence) and item.reason in doubtful for item in self.items)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything read in one look. ``at`` is the machine's clock at its end, ``taken_at`` seconds since 1970."""

    machine: str
    origin: Origin
    note: str
    at: float
    taken_at: float
    visits: tuple[Visit, ...]
    _by_declaration: dict[Quantity | Property, list[Item]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for visit in self.visits:
            for item in visit.items:
                self._by_declaration.setdefault(item.of, []).append(item)

    def items(self) -> Iterator[Item]:
        """Yield all that was read, in order."""
        for visit in self.visits:
            yield from visit.items

    def readings(self, of: Quantity) -> list[Reading]:
        """Return every reading of one quantity."""
        return [item for item in self._by_declaration.get(of, ()) if isinstance(item, Reading)]

    def reading(self, of: Quantity, *labels: str) -> Reading | None:
        """Return the first reading of one quantity with these labels, if there is any."""
        return next((item for item in self.readings(of) if item.labels == labels), None)

    def facts(self, of: Property) -> list[Fact]:
        """Return every fact of one property."""
        return [item for item in self._by_declaration.get(of, ()) if isinstance(item, Fact)]

    def fact(self, of: Property) -> str | bool | int | tuple[str, ...] | tuple[int, ...] | None:
        """Return the first value of one property, if there is any."""
        return next((fact.value for fact in self.facts(of)), None)

    def absences(self, of: Quantity | Property) -> list[Absence]:
        """Return every reason why something of one declaration is not there."""
        return [item for item in self._by_declaration.get(of, ()) if isinstance(item, Absence)]

    def absence(self, of: Quantity | Property, *labels: str) -> Absence | None:
        """Return why one thing with these labels is not there, if that was said."""
        return next((item for item in self.absences(of) if item.labels == labels), None)

    def visit(self, collector: str) -> Visit | None:
        """Return how one collector fared; nothing if it was not asked."""
        return next((visit for visit in self.visits if visit.collector == collector), None)


def look(
    host: Host,
    collectors: Mapping[str, Collector],
    file_deadline: float = FILE_DEADLINE,
    collector_deadline: float = COLLECTOR_DEADLINE,
) -> Snapshot:
    """Ask every collector once. Never raises, and never waits for ever: what hangs is left behind."""
    visits = _Round(host, collectors).run(file_deadline, collector_deadline)
    in_order = tuple(visits[name] for name in collectors)
    return Snapshot(host.name, host.origin, host.note, host.clock(), host.now(), in_order)


class _Round:
    """The collectors of one look, asked one after the other in a thread that may be left behind."""

    def __init__(self, host: Host, collectors: Mapping[str, Collector]) -> None:
        self._host = host
        self._collectors = collectors
        self._todo = list(collectors)
        self._visits: dict[str, Visit] = {}
        self._items: list[Item] = []
        self._at, self._began = host.clock(), time.monotonic()
        self._moved = threading.Condition()

    def run(self, file_deadline: float, collector_deadline: float) -> dict[str, Visit]:
        with self._moved:
            self._start()
            while not self._moved.wait_for(lambda: not self._todo, timeout=file_deadline / 4):
                self._relieve(file_deadline, collector_deadline)
        return self._visits

    def _relieve(self, file_deadline: float, collector_deadline: float) -> None:
        """Put a new thread in the place of one that hangs."""
        now = time.monotonic()
        path, since = self._host.stuck.current.get(self._worker.ident or 0, ("", now))
        is_late = now - self._began >= collector_deadline
        if not is_late and not (path and now - since >= file_deadline):
            return
        # Asked again, now or in the next look, the collector finds this file refused, and reads the rest.
        self._host.stuck.give_up(path or self._todo[0], self._worker)
        if is_late:
            self._end(Status.FAILED, Reason.TIMEOUT, f"not done after {collector_deadline:g} s")
        self._start()

    def _start(self) -> None:
        self._worker = threading.Thread(target=self._work, name="look", daemon=True)
        self._worker.start()

    def _work(self) -> None:
        me = threading.current_thread()
        while True:
            with self._moved:
                # A thread that was left behind may come back; its place has been taken.
                if self._worker is not me or not self._todo:
                    return
                name = self._todo[0]
                items = self._items = []
            outcome = self._ask(name, items, me)
            with self._moved:
                if self._worker is not me:
                    return
                self._end(*outcome)

    def _ask(self, name: str, items: list[Item], me: threading.Thread) -> tuple[Status, Reason | None, str]:
        """Collect the items of one collector, and return how that went."""
        try:
            self._host.stuck.check(name)
            for item in self._collectors[name](self._host):
                items.append(item)
                if self._worker is not me:
                    break
            return Status.OK, None, ""
        except Unavailable as error:
            is_absent = isinstance(error, NoData) and not error.reason.is_fault
            return Status.ABSENT if is_absent else Status.FAILED, error.reason, error.detail
        except OSError as error:
            return Status.FAILED, reason_of(error), str(error)
        except Exception as error:  # the boundary: a sensor must not end the agent
            log.exception("collector %s failed", name)
            return Status.FAILED, Reason.ERROR, repr(error)

    def _end(self, status: Status, reason: Reason | None, detail: str) -> None:
        """Note how the first collector fared, with what it read until then, and turn to the next."""
        name = self._todo.pop(0)
        now = time.monotonic()
        items = tuple(self._items)
        self._visits[name] = Visit(name, status, self._at, now - self._began, items, reason, detail)
        self._at, self._began = self._host.clock(), now
        if not self._todo:
            self._moved.notify()
