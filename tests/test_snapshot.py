"""One look: whatever one sensor does, the others are heard, and the look comes to an end."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count

import pytest
from hosts import host

from spark_agent.agent.snapshot import Snapshot, Status, Visit, look
from spark_agent.collectors import (
    Absence,
    Collector,
    Fact,
    Host,
    Item,
    NoData,
    Property,
    Quantity,
    Reading,
    Reason,
    Section,
    Unavailable,
    Unit,
    measure,
)
from spark_agent.collectors._tree import Fault, MemoryTree

PART = Section("part", "A part.", metric="part")
POWER = Quantity(PART, "power_watts", Unit.WATT, "/sys/power", "Power.", bounds=(0, 1000))
HEAT = Quantity(PART, "heat_celsius", Unit.CELSIUS, "/sys/heat", "Temperature.", labels=("sensor",))
NAME = Property(PART, "name", "/sys/name", "Name.")

# Seconds: far more than a read in memory takes, and short for a test that waits for it.
FILE_DEADLINE = 0.4
COLLECTOR_DEADLINE = 1.6


# Those that other tests have left hanging.
_strangers: set[threading.Thread] = set()


def _lookers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "look" and thread not in _strangers]


@pytest.fixture(autouse=True)
def _leave_no_thread() -> Iterator[None]:
    """Hold every test to ending its threads."""
    _strangers.update(_lookers())
    yield
    for thread in _lookers():
        thread.join(10)
        assert not thread.is_alive()


def _look(machine: Host, **collectors: Collector) -> Snapshot:
    return look(machine, collectors, FILE_DEADLINE, COLLECTOR_DEADLINE)


def _visit(snapshot: Snapshot, collector: str) -> Visit:
    visit = snapshot.visit(collector)
    assert visit
    return visit


def _files(*paths: str) -> Collector:
    """Return a collector that reads these files, each a temperature labelled with its path."""

    def read(machine: Host) -> Iterator[Item]:
        for path in paths:
            yield measure(HEAT, partial(machine.integer, path), labels=(path,))

    return read


def _failing(error: Exception, *first: Item) -> Collector:
    def read(_: Host) -> Iterator[Item]:
        yield from first
        raise error

    return read


FINE = _files("/fine")


def _machine(*hanging: str, **files: str) -> tuple[Host, MemoryTree]:
    machine = host({"/fine": "1"} | {f"/{name}": text for name, text in files.items()})
    assert isinstance(machine.tree, MemoryTree)
    for path in hanging:
        machine.tree.put(path, Fault("HANG"))
    return machine, machine.tree


def _os_error(name: str) -> OSError:
    code = getattr(errno, name)
    return OSError(code, os.strerror(code), "/sys/x")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (NoData(Reason.NO_DEVICE, "there is none"), Status.ABSENT, Reason.NO_DEVICE),
        (NoData(Reason.NO_DRIVER, "there is none"), Status.ABSENT, Reason.NO_DRIVER),
        (NoData(Reason.DEVICE_LOST, "it was there"), Status.FAILED, Reason.DEVICE_LOST),
        (NoData(Reason.VERSION_MISMATCH, "mismatch"), Status.FAILED, Reason.VERSION_MISMATCH),
        (Unavailable(Reason.NOT_FOUND, "not there"), Status.FAILED, Reason.NOT_FOUND),
        (Unavailable(Reason.TIMEOUT, "no answer"), Status.FAILED, Reason.TIMEOUT),
        (_os_error("EACCES"), Status.FAILED, Reason.PERMISSION_DENIED),
        (_os_error("EIO"), Status.FAILED, Reason.IO_ERROR),
        (_os_error("ENODATA"), Status.FAILED, Reason.NO_DATA),
        (_os_error("EBADMSG"), Status.FAILED, Reason.IMPOSSIBLE),
        (_os_error("EOVERFLOW"), Status.FAILED, Reason.OVERFLOW),
        (_os_error("ENOMEM"), Status.FAILED, Reason.IO_ERROR),
        (OSError("of no number"), Status.FAILED, Reason.IO_ERROR),
        (ValueError("garbage"), Status.FAILED, Reason.ERROR),
        (KeyError("missing"), Status.FAILED, Reason.ERROR),
        (RecursionError("deep"), Status.FAILED, Reason.ERROR),
        (MemoryError(), Status.FAILED, Reason.ERROR),
        (StopIteration(), Status.FAILED, Reason.ERROR),
    ],
)
def test_one_that_fails_hides_nobody(error: Exception, status: Status, reason: Reason) -> None:
    """What it read before is kept; those before and after it are heard; absent is told apart from failed."""
    machine, _ = _machine()
    power = Reading(POWER, 5)
    snapshot = _look(machine, before=FINE, failing=_failing(error, power), after=FINE)
    assert ["before", "failing", "after"] == [visit.collector for visit in snapshot.visits]
    assert [Status.OK, status, Status.OK] == [visit.status for visit in snapshot.visits]
    visit = _visit(snapshot, "failing")
    assert reason is visit.reason
    assert (power,) == visit.items
    assert 5 == snapshot.readings(POWER)[0].value
    assert 2 == len(snapshot.readings(HEAT))


def test_the_detail_says_what_went_wrong() -> None:
    """In the words of the collector, or of the system with the path."""
    machine, _ = _machine()
    collectors = {"a": _failing(NoData(Reason.NO_DEVICE, "no drive")), "b": _failing(_os_error("EIO"))}
    snapshot = look(machine, collectors | {"c": _failing(ValueError("bad"))})
    assert ["no drive", "[Errno 5] Input/output error: '/sys/x'", "ValueError('bad')"] == [
        visit.detail for visit in snapshot.visits
    ]


@pytest.mark.parametrize("broken", [lambda _: None, lambda _: 5, lambda: None])
def test_a_collector_that_is_none_is_one_that_failed(broken: Collector) -> None:
    """A bug in one file is a line in the report, never the end of it."""
    machine, _ = _machine()
    snapshot = _look(machine, broken=broken, fine=FINE)
    assert [Status.FAILED, Status.OK] == [visit.status for visit in snapshot.visits]


def test_no_collectors_no_visits() -> None:
    """Asked for nothing, a look says nothing."""
    machine, _ = _machine()
    assert () == look(machine, {}).visits


def test_a_look_tells_the_machines_time() -> None:
    """Not the clock of the computer that replays it."""
    machine, _ = _machine()
    clock = count(100)
    snapshot = _look(replace(machine, clock=lambda: float(next(clock)), now=lambda: 1.8e9), first=FINE, second=FINE)
    assert [101.0, 102.0] == [visit.at for visit in snapshot.visits]
    assert snapshot.visits[1].at < snapshot.at
    assert 1.8e9 == snapshot.taken_at
    assert all(visit.seconds >= 0 for visit in snapshot.visits)


def test_what_was_read_is_found_again() -> None:
    """By its declaration and its labels, with the reason where it is absent."""
    items = (
        Reading(HEAT, 40, labels=("gpu",)),
        Reading(HEAT, 50, labels=("cpu",)),
        Absence(HEAT, Reason.GARBAGE, "not a number: 'x'", labels=("nic",)),
        Absence(HEAT, Reason.IO_ERROR, labels=("ssd",)),
        Fact(NAME, "x"),
        Absence(POWER, Reason.IMPOSSIBLE),
        Absence(POWER, Reason.OVERFLOW),
    )
    machine, _ = _machine()
    snapshot = _look(machine, one=lambda _: items)
    assert items == tuple(snapshot.items())
    assert [items[0], items[1]] == snapshot.readings(HEAT)
    assert items[1] is snapshot.reading(HEAT, "cpu")
    assert snapshot.reading(HEAT) is None
    assert items[2] is snapshot.absence(HEAT, "nic")
    assert snapshot.absence(HEAT, "cpu") is None
    assert "x" == snapshot.fact(NAME)
    assert [] == snapshot.readings(POWER)
    assert [items[2], items[5], items[6]] == _visit(snapshot, "one").rejected
    assert snapshot.visit("other") is None


def test_a_file_that_hangs_costs_its_own_reading_and_no_other() -> None:
    """It is left behind, and the same collector reads on; one thread stays with it, however many looks follow."""
    machine, tree = _machine("/hung", other="3")
    collectors = {"one": _files("/fine", "/hung", "/other"), "two": FINE}
    try:
        for _ in range(20):
            snapshot = _look(machine, **collectors)
            assert [Status.OK, Status.OK] == [visit.status for visit in snapshot.visits]
            assert [1, 3, 1] == [reading.value for reading in snapshot.readings(HEAT)]
            absence = snapshot.absence(HEAT, "/hung")
            assert absence
            assert (Reason.TIMEOUT, "/hung does not answer") == (absence.reason, absence.detail)
            assert 1 == len(_lookers())
    finally:
        tree.heal("/hung")


def test_a_file_that_answers_again_is_read_again() -> None:
    """Left alone only while a thread still hangs in it."""
    machine, tree = _machine(late="2")
    tree.put("/late", Fault("HANG"))
    assert _look(machine, one=_files("/late")).absence(HEAT, "/late")
    (thread,) = _lookers()
    tree.heal("/late")
    thread.join(10)
    snapshot = _look(machine, one=_files("/late"))
    assert [2] == [reading.value for reading in snapshot.readings(HEAT)]


def test_what_a_late_thread_brings_is_thrown_away() -> None:
    """Its collector was asked again; nothing may be said twice, nor after the look is over."""
    machine, tree = _machine("/hung")
    asked = count()
    read = _files("/hung", "/fine", "/fine")

    def counting(machine: Host) -> Iterator[Item]:
        next(asked)
        yield from read(machine)

    snapshot = _look(machine, one=counting)
    items = tuple(snapshot.items())
    (thread,) = _lookers()
    tree.heal("/hung")
    thread.join(10)
    assert items == tuple(snapshot.items())
    assert 3 == len(items)
    assert 2 == next(asked)


@pytest.mark.parametrize("question", [Host.list, Host.link, Host.real, Host.text])
def test_whatever_is_asked_of_the_file_system_may_hang(question: Callable[[Host, str], object]) -> None:
    """And is left behind in the same way; here the directory that it leads through hangs."""
    machine, tree = _machine("/d")

    def read(machine: Host) -> Iterator[Item]:
        yield Reading(POWER, 1)
        question(machine, "/d/a")

    try:
        for _ in range(5):
            visit = _visit(_look(machine, one=read, two=FINE), "one")
            assert (Status.FAILED, Reason.TIMEOUT) == (visit.status, visit.reason)
            assert 1 == len(visit.items) == len(_lookers())
    finally:
        tree.heal("/d")


def test_what_does_not_answer_is_there() -> None:
    """A collector that asks for it first would else say that the machine has none."""
    machine, tree = _machine("/hung", "/d")

    def read(machine: Host) -> Iterator[Item]:
        for path in ("/hung", "/d/a", "/none"):
            if machine.exists(path):
                yield measure(HEAT, partial(machine.integer, path), labels=(path,))

    try:
        for _ in range(3):
            snapshot = _look(machine, one=read)
            assert [("/hung", Reason.TIMEOUT), ("/d/a", Reason.TIMEOUT)] == [
                (item.labels[0], item.reason) for item in snapshot.items() if isinstance(item, Absence)
            ]
    finally:
        tree.heal("/hung")
        tree.heal("/d")


def test_many_files_that_hang_end_with_the_collectors_deadline() -> None:
    """A device all of whose files hang must not hold up the look for each; look by look, all of them are learned."""
    hanging = [f"/hung{number}" for number in range(10)]
    machine, tree = _machine(*hanging)
    read = _files("/fine", *hanging)
    try:
        first = _look(machine, one=read, two=FINE)
        visit = _visit(first, "one")
        assert (Status.FAILED, Reason.TIMEOUT) == (visit.status, visit.reason)
        assert [1, 1] == [reading.value for reading in first.readings(HEAT)]
        assert len(_lookers()) <= COLLECTOR_DEADLINE / FILE_DEADLINE + 1
        for _ in range(10):
            last = _look(machine, one=read, two=FINE)
        assert Status.OK is _visit(last, "one").status
        assert 10 == sum(isinstance(item, Absence) for item in last.items()) == len(_lookers())
    finally:
        for path in hanging:
            tree.heal(path)


def test_a_collector_that_never_returns_is_left_alone_until_it_does() -> None:
    """It hangs outside any file; what it read until then is kept, and it is not asked again meanwhile."""
    machine, _ = _machine()
    over = threading.Event()

    def stuck(_: Host) -> Iterator[Item]:
        yield Reading(POWER, 7)
        over.wait()
        yield Reading(POWER, 8)

    first = _look(machine, before=FINE, stuck=stuck, after=FINE)
    try:
        visit = _visit(first, "stuck")
        assert (Status.FAILED, Reason.TIMEOUT) == (visit.status, visit.reason)
        assert [7] == [reading.value for reading in first.readings(POWER)]
        assert 2 == len(first.readings(HEAT))
        for _ in range(20):
            again = _visit(_look(machine, before=FINE, stuck=stuck, after=FINE), "stuck")
            assert (Status.FAILED, Reason.TIMEOUT, ()) == (again.status, again.reason, again.items)
            assert "stuck does not answer" == again.detail
            assert 1 == len(_lookers())
    finally:
        over.set()
    for thread in _lookers():
        thread.join(10)
    assert [7, 8] == [reading.value for reading in _look(machine, stuck=stuck).readings(POWER)]


def test_a_collector_without_end_ends_when_it_is_left_behind() -> None:
    """Nobody waits for its items any more, so its thread stops at the next one."""
    machine, _ = _machine()
    snapshot = _look(machine, endless=lambda _: (Reading(POWER, 1) for _ in iter(int, 1)), after=FINE)
    assert [Status.FAILED, Status.OK] == [visit.status for visit in snapshot.visits]
    for thread in _lookers():
        thread.join(10)
    assert [] == _lookers()


def test_nvml_that_hangs_costs_the_gpu_only() -> None:
    """NVML's own deadlines are shorter than a collector's, so its collector ends by itself."""
    machine = host({"/fine": "1"}, nvml={"devices": [{"nvmlDeviceGetName": {"hang": True}}]}, call_deadline=0.05)

    def gpu(machine: Host) -> Iterator[Item]:
        yield measure(POWER, lambda: machine.nvml.call("nvmlDeviceGetName", 0))
        yield measure(POWER, lambda: machine.nvml.call("nvmlDeviceGetPowerUsage", 0))

    for _ in range(3):
        snapshot = look(machine, {"gpu": gpu, "fine": FINE}, FILE_DEADLINE, 5)
        assert [Reason.TIMEOUT] * 2 == [item.reason for item in snapshot.items() if isinstance(item, Absence)]
        assert 1 == len(snapshot.readings(HEAT))
