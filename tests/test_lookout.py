"""Look after look: each collector at its pace, and one that hangs is missed alone, told with its age, and comes back.

The stopwatch that the agent goes by stands still here, except where something hangs: how busy this computer is decides
nothing.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
from hosts import host
from hypothesis import example, given
from hypothesis import strategies as st

from spark_agent.agent import snapshot as snapshot_module
from spark_agent.agent.snapshot import GONE_SECONDS, Lookout, Snapshot, Status, Visit
from spark_agent.collectors import (
    Absence,
    Collector,
    Host,
    Item,
    Quantity,
    Reading,
    Reason,
    Section,
    Unit,
    _host,
    discover,
    measure,
    paces,
)
from spark_agent.collectors._tree import Fault, MemoryTree

PART = Section("part", "A part.", metric="part")
CLOCK = Quantity(PART, "clock_seconds", Unit.SECOND, "the clock", "Clock.")
HEAT = Quantity(PART, "heat_celsius", Unit.CELSIUS, "/sys/heat", "Temperature.", labels=("sensor",))

# Seconds by the stopwatch; an eighth of the least of them is how often a look that waits wakes up.
PATIENCE = 0.04
FILE_DEADLINE = 0.08
COLLECTOR_DEADLINE = 0.8
# What a hang lasts: too long for a look, too short for a deadline.
LATE = 0.75 * PATIENCE


class Stopwatch:
    """The agent's ``time``, which passes when it is told to, and a little whenever somebody looks at it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.creep = 0.0

    def monotonic(self) -> float:
        self.seconds += self.creep
        return self.seconds


class Hang(threading.Event):
    """Something that hangs until it is set: so long, by the stopwatch, as soon as somebody waits for it."""

    def __init__(self, watch: Stopwatch, seconds: float) -> None:
        super().__init__()
        self._watch = watch
        self._seconds = seconds
        self.begun = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            self._watch.seconds += self._seconds
            self.begun.set()
        return super().wait(timeout)


class Box:
    """A machine whose clock is moved by hand, and what its collectors were asked."""

    def __init__(self) -> None:
        self.at = 0.0
        self.host: Host = replace(host({"/fine": "1", "/other": "3"}), clock=lambda: self.at)
        self.asked: list[tuple[str, float]] = []

    @property
    def tree(self) -> MemoryTree:
        assert isinstance(self.host.tree, MemoryTree)
        return self.host.tree

    def collector(self, name: str, hang: threading.Event | None = None) -> Collector:
        """Return one that tells the clock, after it has waited for ``hang``."""

        def read(machine: Host) -> Iterator[Item]:
            self.asked.append((name, machine.clock()))
            at = machine.clock()
            if hang:
                hang.wait()
            yield Reading(CLOCK, at)

        return read

    def asked_at(self, name: str) -> list[float]:
        return [at for who, at in self.asked if who == name]


# Those that other tests have left hanging.
_strangers: set[threading.Thread] = set()


def _lookers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "look" and thread not in _strangers]


def _all_come_back() -> None:
    for thread in _lookers():
        thread.join(10)
        assert not thread.is_alive()


def _remaining(most: int) -> int:
    """Return how many threads remain, once those beyond ``most`` had the time to end."""
    for _ in range(1000):
        if len(_lookers()) <= most:
            break
        for thread in _lookers():
            thread.join(0.01)
    return len(_lookers())


@pytest.fixture(autouse=True)
def _leave_no_thread() -> Iterator[None]:
    """Hold every test to ending its threads."""
    _strangers.update(_lookers())
    yield
    _all_come_back()


@pytest.fixture(autouse=True)
def watch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    """Put the agent on a stopwatch."""
    watch = Stopwatch()
    monkeypatch.setattr(snapshot_module, "time", watch)
    monkeypatch.setattr(_host, "time", watch)
    return watch


@pytest.fixture
def box() -> Box:
    """Return a machine with two files."""
    return Box()


def _lookout(
    box: Box, collectors: Mapping[str, Collector], pace: Mapping[str, float] | None = None, patient: bool = False
) -> Callable[[], Snapshot]:
    """Return what looks once; where it is ``patient``, no deadline of a collector's own ends a hang."""
    lookout = Lookout(box.host, collectors, pace or {}, FILE_DEADLINE, 1e9 if patient else COLLECTOR_DEADLINE)
    return lambda: lookout.look(PATIENCE)


def _visit(snapshot: Snapshot, collector: str) -> Visit:
    visit = snapshot.visit(collector)
    assert visit
    return visit


def _said(snapshot: Snapshot, collector: str) -> tuple[Status, float, int]:
    """Return how a collector fared, when it was asked, and how much it said."""
    visit = _visit(snapshot, collector)
    return visit.status, visit.at, len(visit.items)


def _files(*paths: str) -> Collector:
    def read(machine: Host) -> Iterator[Item]:
        for path in paths:
            yield measure(HEAT, partial(machine.integer, path), labels=(path,))

    return read


def _heat(snapshot: Snapshot) -> dict[str, float | Reason]:
    """Return what each file said, or why it said nothing."""
    return {
        item.labels[0]: item.value if isinstance(item, Reading) else item.reason
        for item in snapshot.items()
        if item.of is HEAT and isinstance(item, Reading | Absence)
    }


# --- paces ------------------------------------------------------------------------------------------------------------


def test_each_is_asked_at_its_own_pace(box: Box) -> None:
    """By the machine's clock; in between, what it said last is told, with the time at which it said it."""
    look = _lookout(box, {"often": box.collector("often"), "seldom": box.collector("seldom")}, {"seldom": 10.0})
    told = []
    for beat in range(25):
        box.at = float(beat)
        snapshot = look()
        assert (Status.OK, beat, 1) == _said(snapshot, "often")
        told.append(_visit(snapshot, "seldom").at)
    assert [*range(25)] == box.asked_at("often")
    assert [0, 10, 20] == box.asked_at("seldom")
    assert [0] * 10 + [10] * 10 + [20] * 5 == told


@given(st.lists(st.floats(0.9, 1.1), min_size=1, max_size=60), st.sampled_from((2.0, 5.0, 10.0)))
@example([0.999] * 40, 2.0)
@example([1.001] * 40, 2.0)
def test_a_pace_is_kept_whatever_the_beat_does(beats: list[float], pace: float) -> None:
    """Never asked much sooner than its pace, and never a whole beat later: beats are not quite even."""
    box = Box()
    look = _lookout(box, {"seldom": box.collector("seldom")}, {"seldom": pace})
    look()
    for seconds in beats:
        box.at += seconds
        look()
    asked = [*box.asked_at("seldom"), box.at]
    assert all(pace - 0.051 <= later - at for at, later in pairwise(asked[:-1]))
    assert all(later - at <= pace + 1.1 for at, later in pairwise(asked))


def test_a_beat_that_comes_a_little_early_is_no_beat_lost(box: Box) -> None:
    """A clock and a beat that differ by a hair must not make each second visit one beat late."""
    look = _lookout(box, {"seldom": box.collector("seldom")}, {"seldom": 2.0})
    for beat in range(7):
        box.at = beat * 0.99999
        look()
    assert 4 == len(box.asked)


def test_every_collector_has_a_pace() -> None:
    """And what is dear is not asked at each beat."""
    assert discover().keys() == paces().keys()
    assert {"nvme", "platform"} <= {name for name, seconds in paces().items() if seconds >= 10}
    assert {"spbm", "gpu", "cpu", "memory"} <= {name for name, seconds in paces().items() if not seconds}


def test_who_is_hurried_is_asked_at_once(box: Box) -> None:
    """One or all, in the next look, and from then on at the same pace; who is not there is nobody."""
    names = ("a", "b")
    lookout = Lookout(box.host, {name: box.collector(name) for name in names}, dict.fromkeys(names, 10.0))
    for at, hurried in ((0.0, None), (1.0, ("b", "none")), (2.0, None), (3.0, ()), (4.0, None), (13.0, None)):
        box.at = at
        if hurried is not None:
            lookout.hurry(*hurried)
        lookout.look()
    assert [0, 3, 13] == box.asked_at("a")
    assert [0, 1, 3, 13] == box.asked_at("b")


# --- a collector that hangs -------------------------------------------------------------------------------------------


def test_one_that_hangs_holds_up_nobody(box: Box, watch: Stopwatch) -> None:
    """The others are fresh in the same look, before and after it; it is asked once, however many looks follow."""
    hang = Hang(watch, LATE)
    look = _lookout(
        box, {"first": box.collector("first"), "hung": box.collector("hung", hang), "last": box.collector("last")}
    )
    try:
        for beat in range(30):
            box.at = float(beat)
            snapshot = look()
            assert (Status.OK, beat, 1) == _said(snapshot, "first")
            assert (Status.OK, beat, 1) == _said(snapshot, "last")
            visit = _visit(snapshot, "hung")
            assert (Status.FAILED, Reason.TIMEOUT, ()) == (visit.status, visit.reason, visit.items)
            assert "no answer yet" == visit.detail
            assert 1 == _remaining(1)
        assert [0] == box.asked_at("hung")
        assert LATE == watch.seconds
    finally:
        hang.set()


def test_several_that_hang_leave_time_for_the_others(box: Box, watch: Stopwatch) -> None:
    """Each is waited for half the time that is left, so that those after them are fresh in the very first look."""
    # Far less than it takes to end a hang that nobody ends; but a look that waits for it ends.
    watch.creep = PATIENCE / 10_000
    hangs = {name: Hang(watch, PATIENCE * left) for name, left in (("a", 0.6), ("b", 0.25), ("c", 0.1))}
    look = _lookout(
        box, {name: box.collector(name, hang) for name, hang in hangs.items()} | {"fine": box.collector("fine")}
    )
    try:
        assert (Status.OK, 0, 1) == _said(look(), "fine")
    finally:
        for hang in hangs.values():
            hang.set()


def test_all_may_hang(box: Box, watch: Stopwatch) -> None:
    """A look ends all the same; those that it did not come to are asked meanwhile, and told in the next."""
    watch.creep = PATIENCE / 1000
    hangs = {name: Hang(watch, LATE) for name in ("a", "b", "c", "d")}
    look = _lookout(
        box, {name: box.collector(name, hang) for name, hang in hangs.items()} | {"fine": box.collector("fine")}
    )
    try:
        for _ in range(8):
            box.at += 1
            snapshot = look()
        assert (Status.OK, 8, 1) == _said(snapshot, "fine")
        assert 4 == _remaining(4)
        assert {Status.FAILED} == {_visit(snapshot, name).status for name in hangs}
    finally:
        for hang in hangs.values():
            hang.set()
    _all_come_back()
    box.at += 1
    assert {Status.OK} == {visit.status for visit in look().visits}
    _all_come_back()


def test_what_hangs_is_told_with_its_age_until_it_is_too_old(box: Box, watch: Stopwatch) -> None:
    """Its last visit keeps its own time; after a minute it is absent with the reason, and what it said is gone."""
    hang = Hang(watch, LATE)
    hang.set()
    look = _lookout(box, {"hung": box.collector("hung", hang), "fine": box.collector("fine")}, patient=True)
    box.at = 5.0
    last = _visit(look(), "hung")
    assert (Status.OK, 5, 1) == (last.status, last.at, len(last.items))
    hang.clear()
    try:
        for at in (6.0, 7.0, 5 + GONE_SECONDS):
            box.at = at
            assert last is _visit(look(), "hung")
        for seconds in (1, 100):
            box.at = 5 + GONE_SECONDS + seconds
            snapshot = look()
            visit = _visit(snapshot, "hung")
            assert (Status.FAILED, Reason.TIMEOUT, ()) == (visit.status, visit.reason, visit.items)
            assert (5, f"no answer for more than {GONE_SECONDS:g} s") == (visit.at, visit.detail)
            assert (Status.OK, box.at, 1) == _said(snapshot, "fine")
    finally:
        hang.set()
    _all_come_back()
    box.at += 1
    assert (Status.OK, box.at, 1) == _said(look(), "hung")


def test_what_is_asked_seldom_does_not_age_out(box: Box) -> None:
    """Only one that does not answer is gone: a pace may be longer than a minute."""
    look = _lookout(box, {"seldom": box.collector("seldom")}, {"seldom": 10 * GONE_SECONDS})
    look()
    box.at = 5 * GONE_SECONDS
    assert (Status.OK, 0, 1) == _said(look(), "seldom")


def test_a_late_answer_is_of_the_look_in_which_it_comes(box: Box, watch: Stopwatch) -> None:
    """It is told with the time at which it was asked, and said once."""
    hang = Hang(watch, LATE)
    look = _lookout(box, {"late": box.collector("late", hang)}, {"late": 10.0})
    assert Status.FAILED is _visit(look(), "late").status
    box.at = 3.0
    hang.set()
    _all_come_back()
    snapshot = look()
    assert (Status.OK, 0, 1) == _said(snapshot, "late")
    assert [0] == box.asked_at("late")
    reading = snapshot.reading(CLOCK)
    assert reading
    assert 0 == reading.value


def test_one_that_is_always_a_little_slow_is_heard_all_the_same(box: Box, watch: Stopwatch) -> None:
    """Each of its answers is told one look later; no look waits for it, and no thread is left."""
    hangs: list[Hang] = []

    def slow(machine: Host) -> Iterator[Item]:
        at = machine.clock()
        hangs.append(Hang(watch, LATE))
        hangs[-1].wait()
        yield Reading(CLOCK, at)

    look = _lookout(box, {"slow": slow, "fine": box.collector("fine")})
    look()
    for beat in range(1, 10):
        hangs[-1].set()
        _all_come_back()
        box.at = float(beat)
        snapshot = look()
        assert (Status.OK, beat - 1, 1) == _said(snapshot, "slow")
        assert (Status.OK, beat, 1) == _said(snapshot, "fine")
    hangs[-1].set()


def test_one_that_hangs_for_good_is_given_up_at_its_deadline(box: Box, watch: Stopwatch) -> None:
    """What it said before the look is no longer told then; it is asked no more until it is back, and then by itself."""
    hang = Hang(watch, LATE)
    hang.set()
    look = _lookout(box, {"hung": box.collector("hung", hang), "fine": box.collector("fine")})
    look()
    hang.clear()
    box.at = 1.0
    assert (Status.OK, 0, 1) == _said(look(), "hung")
    watch.seconds += COLLECTOR_DEADLINE
    try:
        for beat in (2.0, 3.0, 4.0):
            box.at = beat
            snapshot = look()
            visit = _visit(snapshot, "hung")
            assert (Status.FAILED, Reason.TIMEOUT, ()) == (visit.status, visit.reason, visit.items)
            assert (Status.OK, beat, 1) == _said(snapshot, "fine")
        assert [0, 1] == box.asked_at("hung")
    finally:
        hang.set()
    _all_come_back()
    box.at = 5.0
    assert (Status.OK, 5, 1) == _said(look(), "hung")


def test_one_that_was_left_behind_asks_nobody_else(box: Box, watch: Stopwatch) -> None:
    """Its place has been taken: the collectors are asked one after the other, by one thread."""
    late, busy = Hang(watch, LATE), Hang(watch, 0.0)
    names = {"late": late, "busy": busy, "last": None}
    look = _lookout(box, {name: box.collector(name, hang) for name, hang in names.items()})
    looking = threading.Thread(target=look)
    looking.start()
    try:
        assert late.begun.wait(10)
        assert busy.begun.wait(10)
        (left_behind, _) = _lookers()
        late.set()
        left_behind.join(10)
        assert not left_behind.is_alive()
        assert [] == box.asked_at("last")
    finally:
        late.set()
        busy.set()
        looking.join()
    assert [0] == box.asked_at("last")


def test_who_is_hurried_while_it_hangs_is_asked_when_it_is_back(box: Box, watch: Stopwatch) -> None:
    """Not a second time meanwhile, and not only when its pace says so."""
    hang = Hang(watch, LATE)
    lookout = Lookout(box.host, {"hung": box.collector("hung", hang)}, {"hung": 10.0}, FILE_DEADLINE, 1e9)
    lookout.look(PATIENCE)
    box.at = 1.0
    lookout.hurry("hung")
    lookout.look(PATIENCE)
    assert [0] == box.asked_at("hung")
    hang.set()
    _all_come_back()
    box.at = 2.0
    assert (Status.OK, 2, 1) == _said(lookout.look(PATIENCE), "hung")


# --- a file that hangs ------------------------------------------------------------------------------------------------


def test_a_file_that_hangs_is_given_up_and_the_others_are_read(box: Box, watch: Stopwatch) -> None:
    """Within its deadline the last visit is told; after it, all but this file is fresh in each look."""
    box.tree.put("/hung", b"2")
    look = _lookout(box, {"files": _files("/fine", "/hung", "/other"), "fine": box.collector("fine")})
    first = look()
    assert {"/fine": 1, "/hung": 2, "/other": 3} == {item.labels[0]: item.value for item in first.readings(HEAT)}
    box.tree.put("/hung", Fault("HANG", over=Hang(watch, LATE)))
    try:
        box.at = 1.0
        late = look()
        assert (Status.OK, 0, 3) == _said(late, "files")
        assert (Status.OK, 1, 1) == _said(late, "fine")
        watch.seconds += FILE_DEADLINE
        for beat in (2.0, 3.0, 4.0):
            box.at = beat
            snapshot = look()
            # Who goes on without the file had begun a look before.
            assert (Status.OK, 1 if beat == 2 else beat, 3) == _said(snapshot, "files")
            assert {"/fine": 1, "/hung": Reason.TIMEOUT, "/other": 3} == _heat(snapshot)
            assert (Status.OK, beat, 1) == _said(snapshot, "fine")
            assert 1 == _remaining(1)
    finally:
        box.tree.heal("/hung")
    _all_come_back()
    box.at = 5.0
    snapshot = look()
    assert (Status.OK, 5, 3) == _said(snapshot, "files")
    assert 2 == _heat(snapshot)["/hung"]


def test_files_that_hang_one_after_the_other_are_learned_look_by_look(box: Box, watch: Stopwatch) -> None:
    """A device all of whose files hang costs a thread for each, and no more; healed, all are gone."""
    hangs = {f"/hung{number}": Hang(watch, 2 * FILE_DEADLINE) for number in range(5)}
    for path, hang in hangs.items():
        box.tree.put(path, Fault("HANG", over=hang))
    done = threading.Event()

    def read(machine: Host) -> Iterator[Item]:
        yield from _files(*hangs, "/other")(machine)
        done.set()

    look = _lookout(box, {"files": read}, patient=True)
    try:
        for hang in hangs.values():
            look()
            assert hang.begun.wait(10)
        look()
        assert done.wait(10)
        for thread in _lookers():
            if not box.host.stuck.has_left_behind(thread):
                thread.join(10)
        for beat in range(1, 20):
            box.at = float(beat)
            snapshot = look()
        assert dict.fromkeys(hangs, Reason.TIMEOUT) | {"/other": 3} == _heat(snapshot)
        assert (Status.OK, 19, 6) == _said(snapshot, "files")
        assert len(hangs) == _remaining(len(hangs))
    finally:
        for path in hangs:
            box.tree.heal(path)


def test_a_file_that_hangs_and_heals_for_ever_leaves_nothing(box: Box, watch: Stopwatch) -> None:
    """Neither threads nor what was noted of them, however often it happens."""
    box.tree.put("/flaky", b"-1")
    look = _lookout(box, {"files": _files("/fine", "/flaky")})
    for number in range(20):
        assert {"/fine": 1, "/flaky": number - 1} == _heat(look())
        hang = Hang(watch, LATE)
        box.tree.put("/flaky", Fault("HANG", over=hang))
        assert number - 1 == _heat(look())["/flaky"]
        watch.seconds += FILE_DEADLINE
        assert Reason.TIMEOUT is _heat(look())["/flaky"]
        box.tree.heal("/flaky")
        box.tree.put("/flaky", b"%d" % number)
        _all_come_back()
    look()
    _all_come_back()
    assert not box.host.stuck._hung
    assert not box.host.stuck.current


def test_many_looks_leave_no_thread(box: Box) -> None:
    """Each look's thread ends with it: 24 hours of beats are 86 400 looks."""
    look = _lookout(box, {name: box.collector(name) for name in "abc"})
    for beat in range(500):
        box.at = float(beat)
        assert {Status.OK} == {visit.status for visit in look().visits}
    _all_come_back()
    assert [] == _lookers()


def test_one_thread_serves_look_after_look(box: Box) -> None:
    """Where it is told to linger; one that hangs is replaced, and when nobody looks any more it ends."""
    seen: list[threading.Thread] = []
    hang = threading.Event()

    def read(machine: Host) -> Iterator[Item]:
        seen.append(threading.current_thread())
        if machine.clock() == 50:
            hang.wait()
        yield Reading(CLOCK, machine.clock())

    lookout = Lookout(box.host, {"a": read}, {}, FILE_DEADLINE, COLLECTOR_DEADLINE, linger=600.0)
    for beat in range(50):
        box.at = float(beat)
        assert Status.OK is _visit(lookout.look(PATIENCE), "a").status
    assert 1 == len(set(seen))

    box.at = 50.0
    lookout.look(0.0)
    hang.set()
    for beat in range(51, 60):
        box.at = float(beat)
        assert Status.OK is _visit(lookout.look(PATIENCE), "a").status
    assert len(set(seen)) <= 2

    # The last look is of one who lingers no longer.
    lookout._linger = 0.0
    lookout.look(PATIENCE)
    _all_come_back()
