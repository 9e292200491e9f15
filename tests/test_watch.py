"""Conditions over time: how long something held, what rose, and what is told; all on the machine's clock."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_agent.agent.finding import Finding, Kind, Severity
from spark_agent.agent.watch import RISING_SECONDS, Spell, Watch, count_on, go_on

_KIND = Kind("x", for_seconds=10.0, hold_seconds=5.0)
_FINDING = _KIND.found(Severity.WARNING, "x")
_KINDS = {"x": _KIND}


def _spells(*holds: bool | None, patience: float = 0.0) -> list[float | None]:
    """Return the seconds that a condition has held, look by look."""
    seconds: list[float | None] = []
    spell: Spell | None = None
    for at, one in enumerate(holds):
        spell = go_on(spell, float(at), one, patience=patience)
        seconds.append(spell.seconds if spell else None)
    return seconds


class TestSpell:
    """A stretch of time in which something held."""

    def test_it_grows_from_look_to_look(self) -> None:
        """The first look that sees it hold begins it."""
        assert [None, 0, 1, 2, None, 0] == _spells(False, True, True, True, False, True)

    def test_what_cannot_be_told_ends_it_where_nobody_is_patient(self) -> None:
        """Without patience, not to know is not to hold."""
        assert [0, 1, None, 0] == _spells(True, True, None, True)

    def test_what_cannot_be_told_is_no_time(self) -> None:
        """The pause is bridged, and does not count."""
        assert [0, 1, 1, 1, 1, 2] == _spells(True, True, None, None, True, True, patience=3.0)

    def test_patience_ends(self) -> None:
        """When the pause is longer."""
        assert [0, 0, 0, None, 0] == _spells(True, None, None, None, True, patience=2.0)

    def test_it_never_begins_with_a_pause(self) -> None:
        """What was never seen to hold has not held."""
        assert [None, None, 0] == _spells(None, None, True, patience=9.0)

    @given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=60), st.floats(0, 10))
    def test_it_is_never_longer_than_what_was_seen(self, holds: list[bool | None], patience: float) -> None:
        """Its seconds are those between two looks in a row that saw it hold, since it last did not."""
        seen = 0
        for (before, now), seconds in zip(pairwise([None, *holds]), _spells(*holds, patience=patience), strict=True):
            seen = 0 if now is False else seen + (before is True and now is True)
            assert seconds is None or seconds <= seen
            if now:
                assert seconds is not None

    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
    def test_it_knows_the_range_of_a_value(self, values: list[float]) -> None:
        """Of all the looks that saw it hold."""
        spell: Spell | None = None
        for at, value in enumerate(values):
            spell = go_on(spell, float(at), True, value)
        assert spell
        assert (min(values), max(values)) == (spell.low, spell.high)


class TestCount:
    """A counter that rises."""

    def test_at_rest_it_says_nothing(self) -> None:
        """However high it stands."""
        count = count_on(count_on(None, 0.0, 7000), 5.0, 7000)
        assert count.rose is None

    def test_it_rose(self) -> None:
        """By how much, since it was watched."""
        count = count_on(count_on(count_on(None, 0.0, 7), 5.0, 9), 10.0, 9)
        assert (2, 5.0) == (count.value - count.base, count.rose)

    def test_one_that_fell_was_reset(self) -> None:
        """A device that came back counts from 0, which is no rise."""
        count = count_on(count_on(None, 0.0, 7), 5.0, 1)
        assert (None, 1) == (count.rose, count.base)

    def test_it_rests_again(self) -> None:
        """Some time after the last rise, which the next one has no part in."""
        count = count_on(count_on(None, 0.0, 7), 5.0, 9)
        assert 5.0 == count_on(count, 5.0 + RISING_SECONDS, 9).rose
        rested = count_on(count, 6.0 + RISING_SECONDS, 9)
        assert (None, 9) == (rested.rose, rested.base)

    @given(st.lists(st.integers(0, 5), min_size=1, max_size=50))
    def test_what_only_rises_is_counted_whole(self, steps: list[int]) -> None:
        """From the first look on."""
        count, total = count_on(None, 0.0, 0), 0
        for at, step in enumerate(steps, 1):
            total += step
            count = count_on(count, float(at), total)
        assert total == count.value - count.base
        assert (total > 0) == (count.rose is not None)


class TestRate:
    """A counter that is read less often than there are looks."""

    def test_between_two_readings(self) -> None:
        """The rate of the last two holds until there is a newer one."""
        rates: list[float | None] = []
        watch = None
        for at, read_at, total in ((0, 0, 10), (1, 0, 10), (5, 5, 20), (6, 5, 20), (10, 10, 21), (15, 15, 3)):
            watch = Watch(float(at), watch, watching=True)
            rates.append(watch.rate("cores", float(read_at), total))
        assert [None, None, 2.0, 2.0, 0.2, None] == rates


def _told(*found: bool, watching: bool = True) -> list[bool]:
    told: list[bool] = []
    watch = None
    for at, one in enumerate(found):
        watch = Watch(float(at), watch, watching=watching)
        told.append(bool(watch.tell([_FINDING] if one else [], _KINDS)))
    return told


class TestTelling:
    """When a finding is told, and for how long."""

    def test_for(self) -> None:
        """When it has held long enough, and for some time after."""
        assert [False] * 10 + [True] * 6 + [False] * 4 == _told(*[True] * 12, *[False] * 8)

    def test_it_begins_anew(self) -> None:
        """Where it did not hold in between before it was told."""
        assert not any(_told(*[True] * 10, False, *[True] * 10))

    def test_held_it_does_not_flap(self) -> None:
        """Off and on within the time for which it is held is on."""
        assert all(_told(*[True] * 12, *[False, False, True] * 5)[10:])

    def test_one_look_tells_what_it_sees(self) -> None:
        """It cannot wait."""
        assert [True] == _told(True, watching=False)

    def test_a_kind_without_times_is_told_as_it_is(self) -> None:
        """At once, and no longer."""
        watch = Watch(0.0, watching=True)
        assert [_FINDING] == watch.tell([_FINDING], {})
        assert [] == Watch(1.0, watch, watching=True).tell([], {})

    def test_what_is_told_is_the_last_that_held(self) -> None:
        """With its numbers of then, while it is held."""
        kinds = {"x": Kind("x", hold_seconds=5.0)}
        watch = None
        for at, title in enumerate(("1", "2")):
            watch = Watch(float(at), watch, watching=True)
            watch.tell([_KIND.found(Severity.WARNING, title)], kinds)
        (held,) = Watch(3.0, watch, watching=True).tell([], kinds)
        assert ("2", ("so it was 2 s ago",)) == (held.title, held.evidence)

    @given(st.lists(st.booleans(), min_size=1, max_size=60))
    def test_nothing_is_told_that_did_not_hold_for_long_enough(self, found: list[bool]) -> None:
        """Whatever came before."""
        for at, told in enumerate(_told(*found)):
            if told:
                runs = "".join("x" if one else " " for one in found[: at + 1]).split()
                assert max(map(len, runs)) > _KIND.for_seconds


class TestWatch:
    """What is known of the looks before."""

    def test_what_held_a_look_ago(self) -> None:
        """Told or not: a threshold is lower for what is above it."""
        first = Watch(0.0, watching=True)
        first.tell([_FINDING], _KINDS)
        assert (None, _FINDING) == (first.before("x"), Watch(1.0, first, watching=True).before("x"))

    def test_since_when(self) -> None:
        """Of looks without a gap."""
        first = Watch(7.0, watching=True)
        assert [0.0, 3.0] == [first.seconds, Watch(10.0, first, watching=True).seconds]

    def test_it_holds_nothing_of_long_ago(self) -> None:
        """A day of looks is no chain of watches."""
        watch = Watch(0.0, watching=True)
        for at in range(1, 50):
            watch = Watch(float(at), watch, watching=True)
            watch.spell(f"{at}", True)
            watch.tell([Finding(f"{at}", Severity.INFO, "")], {})
        assert ["49"] == list(watch.spells) == list(watch.found)


@pytest.mark.parametrize(
    ("kind", "id_", "covers"),
    [("memory_low", "memory_low", True), ("memory_low", "memory_lower", False), ("at_limit_*", "at_limit_soc", True)],
)
def test_a_kind_covers_its_ids(kind: str, id_: str, covers: bool) -> None:
    """A star stands for what the finding is about."""
    assert covers is Kind(kind).covers(id_)
