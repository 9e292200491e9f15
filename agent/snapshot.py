"""One look at the machine: the only place that calls, times and guards collectors."""

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
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
    Quality,
    Quantity,
    Reading,
    Reason,
    Unavailable,
    reason_of,
)
from spark_agent.collectors._host import EVERY_SLACK

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


#: Seconds after which what a collector said last is no longer told, where it does not answer any more.
GONE_SECONDS: Final = 60.0

#: Why a value that was there is not told.
DOUBTFUL: Final = frozenset({Reason.IMPOSSIBLE, Reason.GARBAGE, Reason.OVERFLOW})

Declaration = Quantity | Property


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
    by_declaration: Mapping[Declaration, list[Item]] = field(init=False, repr=False, compare=False)
    untrusted: Sequence[Reading] = field(init=False, repr=False, compare=False)
    rejected: Sequence[Absence] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Once, for all who look for something among hundreds of items at each beat. ``untrusted`` are the readings
        # that are known to mislead, ``rejected`` the values that were there but could not be believed.
        found: dict[Declaration, list[Item]] = {}
        untrusted: list[Reading] = []
        rejected: list[Absence] = []
        misleading = Quality.UNTRUSTED
        for item in self.items:
            of = item.of
            if of in found:
                found[of].append(item)
            else:
                found[of] = [item]
            if isinstance(item, Reading):
                if item.quality is misleading:
                    untrusted.append(item)
            elif isinstance(item, Absence) and item.reason in DOUBTFUL:
                rejected.append(item)
        object.__setattr__(self, "by_declaration", found)
        object.__setattr__(self, "untrusted", untrusted)
        object.__setattr__(self, "rejected", rejected)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything known at one moment. ``at`` is the machine's clock then, ``taken_at`` seconds since 1970."""

    machine: str
    origin: Origin
    note: str
    at: float
    taken_at: float
    visits: tuple[Visit, ...]
    _by_declaration: dict[Declaration, list[Item]] = field(init=False, repr=False, default_factory=dict)
    _by_collector: dict[str, Visit] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        found = self._by_declaration
        for visit in self.visits:
            self._by_collector[visit.collector] = visit
            # Hardly anything is said by two collectors; the rest goes at the speed of C.
            shared = {of: [*found[of], *visit.by_declaration[of]] for of in found.keys() & visit.by_declaration.keys()}
            found.update(visit.by_declaration)
            found.update(shared)

    def items(self) -> Iterator[Item]:
        """Yield all that was read, in order."""
        for visit in self.visits:
            yield from visit.items

    def readings(self, of: Quantity) -> list[Reading]:
        """Return every reading of one quantity."""
        return [item for item in self._by_declaration.get(of, ()) if isinstance(item, Reading)]

    def reading(self, of: Quantity, *labels: str) -> Reading | None:
        """Return the first reading of one quantity with these labels, if there is any."""
        for item in self._by_declaration.get(of, ()):
            if isinstance(item, Reading) and item.labels == labels:
                return item
        return None

    def facts(self, of: Property) -> list[Fact]:
        """Return every fact of one property."""
        return [item for item in self._by_declaration.get(of, ()) if isinstance(item, Fact)]

    def fact(self, of: Property) -> str | bool | int | tuple[str, ...] | tuple[int, ...] | None:
        """Return the first value of one property, if there is any."""
        for item in self._by_declaration.get(of, ()):
            if isinstance(item, Fact):
                return item.value
        return None

    def absences(self, of: Quantity | Property) -> list[Absence]:
        """Return every reason why something of one declaration is not there."""
        return [item for item in self._by_declaration.get(of, ()) if isinstance(item, Absence)]

    def absence(self, of: Quantity | Property, *labels: str) -> Absence | None:
        """Return why one thing with these labels is not there, if that was said."""
        for item in self._by_declaration.get(of, ()):
            if isinstance(item, Absence) and item.labels == labels:
                return item
        return None

    def visit(self, collector: str) -> Visit | None:
        """Return how one collector fared; nothing if it was not asked."""
        return self._by_collector.get(collector)

    def time_of(self, reading: Reading, collector: str) -> float:
        """Return when a collector took a reading, on the machine's clock: at its visit, or before it."""
        visit = self._by_collector[collector]
        return visit.at if reading.at is None else reading.at


def look(
    host: Host,
    collectors: Mapping[str, Collector],
    file_deadline: float = FILE_DEADLINE,
    collector_deadline: float = COLLECTOR_DEADLINE,
) -> Snapshot:
    """Ask every collector once. Never raises, and never waits for ever: what hangs is left behind."""
    return Lookout(host, collectors, {}, file_deadline, collector_deadline).look()


@dataclass(slots=True)
class _Task:
    """One collector that is being asked, by which thread and since when, and what it has said so far.

    ``at`` and ``began`` are of its visit, which may have begun in a thread that was left behind.
    """

    name: str
    thread: threading.Thread
    at: float
    began: float
    asked: float
    items: list[Item] = field(default_factory=list)
    is_late: bool = False
    is_given_up: bool = False


class Lookout:
    """The collectors of one machine, each asked when it is due, one after the other.

    They are asked in a thread that may be left behind: one that takes longer than a look has patience for goes on
    alone, and what it says is of the look in which it says it.
    """

    def __init__(
        self,
        host: Host,
        collectors: Mapping[str, Collector],
        paces: Mapping[str, float],
        file_deadline: float = FILE_DEADLINE,
        collector_deadline: float = COLLECTOR_DEADLINE,
        linger: float = 0.0,
    ) -> None:
        """Ask each of these collectors; ``paces`` are seconds between two visits, for those not asked at each look.

        The thread waits ``linger`` seconds for the next look: to wake one is cheaper than to begin one.
        """
        self._host = host
        self._collectors = collectors
        self._paces = paces
        self._file_deadline = file_deadline
        self._collector_deadline = collector_deadline
        self._linger = linger
        self._due = dict.fromkeys(collectors, -math.inf)
        self._visits: dict[str, Visit] = {}
        self._todo: list[str] = []
        self._tasks: dict[str, _Task] = {}
        self._begun: dict[str, tuple[float, float]] = {}
        self._worker: threading.Thread | None = None
        lock = threading.Lock()
        self._moved = threading.Condition(lock)
        self._wanted = threading.Condition(lock)

    def hurry(self, *names: str) -> None:
        """Ask these collectors, or all, in the next look, whenever they were asked last."""
        for name in names or self._collectors:
            if name in self._due:
                self._due[name] = -math.inf

    def look(self, patience: float = math.inf) -> Snapshot:
        """Ask every collector that is due, and return what is known then. Never raises.

        A collector that has not answered after ``patience`` seconds is waited for no longer; what it said last is
        told with its age, until it is too old.
        """
        host = self._host
        with self._moved:
            until = time.monotonic() + patience
            now = host.clock()
            for name in self._collectors:
                if now >= self._due[name] and name not in self._tasks and name not in self._todo:
                    self._todo.append(name)
                    self._due[name] = now + self._paces.get(name, 0.0) - EVERY_SLACK
            self._relieve(until)
            while self._is_awaited() and time.monotonic() < until:
                self._moved.wait(min(self._file_deadline, patience) / 8)
                self._relieve(until)
            at = host.clock()
            visits = tuple(self._known(name, at) for name in self._collectors)
        return Snapshot(host.name, host.origin, host.note, at, host.now(), visits)

    def _is_awaited(self) -> bool:
        return bool(self._todo) or any(not task.is_late for task in self._tasks.values())

    def _known(self, name: str, at: float) -> Visit:
        """Return what a collector said last, unless that is too old and it does not answer now."""
        visit = self._visits.get(name)
        if visit is None:
            # One visit, however many looks it takes.
            visit = self._visits[name] = Visit(name, Status.FAILED, at, 0.0, (), Reason.TIMEOUT, "no answer yet")
        elif name in self._tasks and visit.items and at - visit.at > GONE_SECONDS:
            why = f"no answer for more than {GONE_SECONDS:g} s"
            visit = self._visits[name] = Visit(name, Status.FAILED, visit.at, visit.seconds, (), Reason.TIMEOUT, why)
        return visit

    def _relieve(self, until: float) -> None:
        """Leave behind what hangs, and see that somebody asks those that are left."""
        now = time.monotonic()
        for task in list(self._tasks.values()):
            path, since = self._host.stuck.current.get(task.thread.ident or 0, ("", now))
            elapsed = now - task.began
            if elapsed >= self._collector_deadline:
                self._host.stuck.give_up(path or task.name, task.thread)
                why = f"not done after {self._collector_deadline:g} s"
                self._end(task, Status.FAILED, Reason.TIMEOUT, why)
            elif path and now - since >= self._file_deadline:
                # Asked again, the collector finds this file refused, and reads the rest.
                self._host.stuck.give_up(path, task.thread)
                task.is_given_up = True
                del self._tasks[task.name]
                self._todo.insert(0, task.name)
            elif now - task.asked >= (until - task.asked) / 2 or now >= until:
                # Half of what is left, so that there is always some for the others.
                task.is_late = True
            else:
                continue
            if task.thread is self._worker:
                self._worker = None
        if self._todo and self._worker:
            self._wanted.notify()
        elif self._todo:
            self._worker = threading.Thread(target=self._work, name="look", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        me = threading.current_thread()
        while True:
            with self._moved:
                # A thread that was left behind may come back; its place has been taken.
                if self._worker is not me:
                    return
                if not self._todo and not self._wanted.wait_for(lambda: self._todo, self._linger):
                    self._worker = None
                    return
                name = self._todo.pop(0)
                # One that is asked again has not begun anew.
                at, began = self._begun.setdefault(name, (self._host.clock(), time.monotonic()))
                task = self._tasks[name] = _Task(name, me, at, began, time.monotonic())
            outcome = self._ask(task)
            with self._moved:
                if self._tasks.get(name) is task:
                    self._end(task, *outcome)

    def _ask(self, task: _Task) -> tuple[Status, Reason | None, str]:
        """Collect the items of one collector, and return how that went."""
        try:
            self._host.stuck.check(task.name)
            for item in self._collectors[task.name](self._host):
                task.items.append(item)
                if task.is_given_up:
                    break
            return Status.OK, None, ""
        except Unavailable as error:
            is_absent = isinstance(error, NoData) and not error.reason.is_fault
            return Status.ABSENT if is_absent else Status.FAILED, error.reason, error.detail
        except OSError as error:
            return Status.FAILED, reason_of(error), str(error)
        except Exception as error:  # the boundary: a sensor must not end the agent
            log.exception("collector %s failed", task.name)
            return Status.FAILED, Reason.ERROR, repr(error)

    def _end(self, task: _Task, status: Status, reason: Reason | None, detail: str) -> None:
        """Note how a collector fared, with what it read until then."""
        seconds = time.monotonic() - task.began
        task.is_given_up = True
        self._visits[task.name] = Visit(task.name, status, task.at, seconds, tuple(task.items), reason, detail)
        del self._tasks[task.name], self._begun[task.name]
        if not self._is_awaited():
            self._moved.notify()
