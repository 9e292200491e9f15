"""The beat: a timeline is lived through, one look after another, as a daemon would have lived it."""

import math
import threading
from collections.abc import Iterator
from itertools import count, islice, pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spark_agent.agent import BEAT_SECONDS
from spark_agent.agent.machine import Identity, Machine, MachineError, RecordedNvml, Step, open_demo
from spark_agent.agent.report import Report
from spark_agent.agent.sampler import Sampler, play
from spark_agent.agent.snapshot import Status, Visit
from spark_agent.collectors import (
    Host,
    Item,
    Origin,
    Quantity,
    Reading,
    Reason,
    Section,
    Unit,
    discover,
    gpu,
    paces,
    spbm,
)
from spark_agent.collectors._tree import MemoryTree

CLOCK = Quantity(Section("part", "A part.", metric="part"), "clock_seconds", Unit.SECOND, "the clock", "Clock.")


def _machine(*steps: Step) -> Machine:
    return Machine(Identity("box", Origin.SYNTHETIC, "", 1000.0), MemoryTree(), None, [], steps)


def _step(t: float, **root: str) -> Step:
    return Step(f"line {t}", t, root, {}, {})


def _beats(until: float, interval: float) -> list[float]:
    """Return the machine's time at each look."""
    times: list[float] = []

    def read(host: Host) -> Iterator[Item]:
        times.append(host.clock())
        yield Reading(CLOCK, host.clock())

    snapshot = play(_machine(), {"clock": read}, until, interval).snapshot
    reading = snapshot.reading(CLOCK)
    assert reading
    assert until == reading.value == snapshot.at
    assert 1000.0 + until == snapshot.taken_at
    return times


@pytest.mark.parametrize(
    ("until", "interval", "beats"),
    [
        (0, 1, [0]),
        (3, 1, [0, 1, 2, 3]),
        (2.5, 1, [0, 1, 2, 2.5]),
        (0.5, 1, [0, 0.5]),
        (30, 10, [0, 10, 20, 30]),
        (5, 100, [0, 5]),
    ],
)
def test_one_look_per_beat_and_one_at_the_end(until: float, interval: float, beats: list[float]) -> None:
    """From the beginning on; the last look is at the very second that was asked for."""
    assert beats == _beats(until, interval)


@settings(deadline=None)
@given(st.floats(0, 50), st.floats(0.1, 20))
@example(0.3, 0.1)
@example(1.0, 0.1)
@example(49.7, 0.7)
def test_the_beat_is_even(until: float, interval: float) -> None:
    """Time never goes back, no beat is left out, and none is later than its second."""
    times = _beats(until, interval)
    assert 0 == times[0]
    assert sorted(times) == times
    assert until == times[-1]
    assert [beat * interval for beat in range(len(times) - 1)] == times[:-1]
    assert all(later - time <= interval * 1.000001 for time, later in pairwise(times))


def test_each_look_sees_the_timeline_as_far_as_its_second() -> None:
    """A step between two beats is seen by the next one."""
    seen: list[str] = []

    def read(host: Host) -> Iterator[Item]:
        seen.append(host.text("/a"))
        yield Reading(CLOCK, 0)

    play(_machine(_step(0, a="0"), _step(0.5, a="1"), _step(1, a="2"), _step(2.1, a="3")), {"a": read}, 4, 1)
    assert ["0", "2", "2", "3", "3"] == seen


def test_a_step_that_cannot_be_taken_ends_the_play() -> None:
    """With its place: a machine that cannot be what its timeline says is not looked at any further."""
    with pytest.raises(MachineError, match="line 1: a/b: a is not a directory"):
        play(_machine(_step(0, a="0"), Step("line 1", 1, {"a/b": "x"}, {}, {})), {"a": lambda _: ()}, 4, 1)


def test_the_beat_is_a_second() -> None:
    """``--interval`` has the same default."""
    assert 1.0 == BEAT_SECONDS


@pytest.mark.parametrize(("until", "is_there"), [(10, True), (25, False), (45, False), (90, True)])
def test_a_driver_that_dies_and_comes_back_is_lived_through(until: float, is_there: bool) -> None:
    """What the NVML funnel learned on the way, it still knows: it waits before it tries again, and then finds it."""
    snapshot = play(open_demo("driver-lost"), {"gpu": gpu.read}, until, 1).snapshot
    assert is_there is (snapshot.reading(gpu.POWER, "average") is not None)
    visit = snapshot.visit("gpu")
    assert visit
    assert is_there is (visit.status is Status.OK)


def test_what_is_played_is_the_same_each_time() -> None:
    """Nothing of this computer's clock is in it."""
    first, second = (play(open_demo("fe-gemm"), discover(), 5, 1).snapshot for _ in range(2))
    assert tuple(first.items()) == tuple(second.items())
    assert (first.at, first.taken_at) == (second.at, second.taken_at)


# --- beats ------------------------------------------------------------------------------------------------------------


def _beaten(demo: str, *steps: Step) -> tuple[Sampler, Machine, Iterator[Report]]:
    """Return a built-in machine to which this happens besides, and the reports of its seconds."""
    machine = open_demo(demo)
    machine._steps = tuple(sorted((*machine._steps, *steps), key=lambda step: step.t))
    seconds = count()
    sampler = Sampler(machine.host, discover(), advance=lambda: machine.play(float(next(seconds))))
    return sampler, machine, (sampler.beat(math.inf) for _ in count())


def _visit(found: Report, collector: str) -> Visit:
    visit = found.snapshot.visit(collector)
    assert visit
    return visit


def test_each_collector_is_asked_at_the_pace_that_its_module_declares() -> None:
    """A beat tells how old each is; what is not due tells its last visit, and nothing is made of it twice."""
    _, _, reports = _beaten("fe-idle")
    asked: dict[str, list[float]] = {}
    for found in islice(reports, 13):
        for visit in found.snapshot.visits:
            if visit.at not in (times := asked.setdefault(visit.collector, [])):
                times.append(visit.at)
    assert {name: [float(at) for at in range(0, 13, max(1, int(pace)))] for name, pace in paces().items()} == asked


def test_a_report_is_replaced_and_never_changed() -> None:
    """Who reads one while the next is made reads one moment."""
    sampler, _, reports = _beaten("fe-idle")
    assert sampler.report is None
    first = next(reports)
    assert first is sampler.report
    assert first.history
    told = (first.history.beats, first.snapshot.at)
    second = next(reports)
    assert second is sampler.report is not first
    assert told == (first.history.beats, first.snapshot.at) == (1, 0.0)


def test_others_are_asked_from_the_next_beat_on() -> None:
    """What is switched off is told no more; what was counted is not forgotten."""
    sampler, machine, reports = _beaten("fe-idle")
    for _ in range(3):
        next(reports)
    sampler.ask({"gpu": gpu.read})
    found = next(reports)
    assert ["gpu"] == [visit.collector for visit in found.snapshot.visits]
    assert found.history
    assert 4 == found.history.beats
    assert machine.t == found.snapshot.at


class Library:
    """NVML as recorded, until somebody holds it: then each call waits."""

    def __init__(self, recorded: RecordedNvml) -> None:
        self.recorded = recorded
        self.goes_on = threading.Event()
        self.goes_on.set()

    def call(self, function: str, device: int | None, *arguments: str) -> Any:
        self.goes_on.wait()
        return self.recorded.call(function, device, *arguments)


def _gpu_hangs(monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Library]:
    machine = open_demo("fe-idle")
    recorded = machine._library
    assert isinstance(recorded, RecordedNvml)
    library = Library(recorded)
    monkeypatch.setattr(machine.host.nvml, "_library", library)
    # Seconds in which a call in memory returns, however busy this computer is, and that a test may wait for.
    monkeypatch.setattr(machine.host.nvml, "_call_deadline", 0.5)
    monkeypatch.setattr(machine.host.nvml, "_init_deadline", 0.5)
    return machine, library


def test_a_driver_that_hangs_is_missed_alone_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its readings are absent with the reason while the others go on; back they are by themselves."""
    machine, library = _gpu_hangs(monkeypatch)
    seconds = count()
    sampler = Sampler(machine.host, discover(), advance=lambda: machine.play(float(next(seconds))))
    assert sampler.beat(math.inf).snapshot.readings(gpu.POWER)
    library.goes_on.clear()
    try:
        for _ in range(20):
            found = sampler.beat(math.inf)
            assert [] == found.snapshot.readings(gpu.POWER)
            visit = _visit(found, "gpu")
            absence = found.snapshot.absences(gpu.POWER)
            assert Reason.TIMEOUT in {visit.reason, *(one.reason for one in absence)}
            assert (Status.OK, machine.t) == (_visit(found, "spbm").status, _visit(found, "spbm").at)
            assert found.snapshot.readings(spbm.SYSTEM)
        # One thread waits in it, however often it is asked for.
        assert 1 == sum(thread.name == "nvml" for thread in _begun_since(machine))
    finally:
        library.goes_on.set()
    # The longest wait between two tries.
    found = next(one for one in (sampler.beat(math.inf) for _ in range(40)) if one.snapshot.readings(gpu.POWER))
    assert Status.OK is _visit(found, "gpu").status


def _begun_since(machine: Machine) -> list[threading.Thread]:
    """Return the threads that serve this machine's NVML: other tests' hang for good."""
    worker = machine.host.nvml._worker
    return [
        thread
        for thread in threading.enumerate()
        if getattr(getattr(thread, "_target", None), "__self__", None) is worker and worker
    ]


def test_a_library_that_was_upgraded_under_us_is_asked_anew() -> None:
    """Version mismatch, and then another driver: what the GPU is was learnt in another session, and is read again."""
    mismatch = {"init": {"error": "LIB_RM_VERSION_MISMATCH"}}
    system = {"nvmlSystemGetDriverVersion": "999.1", "nvmlSystemGetNVMLVersion": "13.999.1"}
    steps = (
        Step("here", 3, {}, {}, mismatch),
        Step("here", 6, {}, {}, {"init": "SUCCESS", "system": system}),
    )
    _, machine, reports = _beaten("fe-idle", *steps)
    seen = list(islice(reports, 30))
    drivers = [found.snapshot.fact(gpu.DRIVER) for found in seen]
    before = drivers[0]
    assert [before] * 3 == drivers[:3]
    assert before not in drivers[3:]
    assert (None, "999.1") == (drivers[4], drivers[-1])
    assert Reason.VERSION_MISMATCH is _visit(seen[4], "gpu").reason
    assert 2 == machine.host.nvml.session
    counts = [found.history.inventory_changes.get("gpu", 0) for found in seen if found.history]
    # One that failed says nothing of what is there; the other driver is another GPU's inventory.
    assert (0, 1) == (counts[5], counts[-1])


def test_beats_that_come_too_late_are_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is made up for: the next is at its own time, and how many were left out is known."""
    machine = _machine()
    now = [0.0]
    monkeypatch.setattr("spark_agent.agent.sampler.time", SimpleNamespace(monotonic=lambda: now[0]))
    sampler = Sampler(machine.host, {})
    waits: list[float] = []
    begun: list[float] = []
    # Seconds that each beat takes.
    takes = iter((0.1, 0.9, 2.5, 0.0, 1.0, 1.01, 0.2))

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            now[0] += timeout or 0.0
            begun.append(now[0])
            return len(begun) > 7

    def after(_: Report) -> None:
        now[0] += next(takes)

    sampler.run(Stop(), after)
    assert [0, 1, 2, 5, 6, 7, 9, 10] == pytest.approx(begun)
    found = sampler.beat()
    assert found.history
    assert (8, 3) == (found.history.beats, found.history.missed_beats)
    assert ["2 beats missed: the last took 2.5 s", "1 beats missed: the last took 1.0 s"] == [
        one.getMessage() for one in caplog.records
    ]


def test_the_age_of_a_beat_is_that_of_this_computers_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first it is how long one waits for it; a machine that is played fast has not aged."""
    now = [100.0]
    monkeypatch.setattr("spark_agent.agent.sampler.time", SimpleNamespace(monotonic=lambda: now[0]))
    sampler = Sampler(_machine().host, {})
    now[0] = 103.0
    assert 3.0 == sampler.age()
    sampler.beat()
    assert 0.0 == sampler.age()
    now[0] = 104.5
    assert 1.5 == sampler.age()
