"""The beat: a timeline is lived through, one look after another, as a daemon would have lived it."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spark_agent.agent import BEAT_SECONDS
from spark_agent.agent.machine import Identity, Machine, MachineError, Step, open_demo
from spark_agent.agent.sampler import play
from spark_agent.agent.snapshot import Status
from spark_agent.collectors import Host, Item, Origin, Quantity, Reading, Section, Unit, discover, gpu
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
