"""Verdicts of one who looks on, look after look: none flaps, none is hasty, and none outlives a gap."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from looks import HEALTHY, SPARK, found, limits, own, watts

from spark_agent.agent.budget import (
    AT_LIMIT,
    HYSTERESIS,
    NEAR_LIMIT,
    OVER_SECONDS,
    STALE_SECONDS,
    Limit,
    Standing,
)
from spark_agent.agent.health import KINDS, MISMATCH
from spark_agent.agent.report import Report, report
from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import Item

_Items = tuple[Item, ...]

_PL1 = 140.0
# The standings that a threshold separates, the lowest first.
_GRADES = (Standing.WITHIN, Standing.NEAR_LIMIT, Standing.AT_LIMIT)


def _look(at: float, *items: Item) -> Snapshot:
    """Return a look at a time, all of it fresh."""
    snapshot = found(*items)
    return replace(snapshot, at=at, visits=tuple(replace(visit, at=at) for visit in snapshot.visits))


def _watched(looks: Iterable[Snapshot], limits: Sequence[Limit] = ()) -> Iterator[Report]:
    """Yield the report of each look, as a daemon has it, by the owner's limits too."""
    before = None
    for snapshot in looks:
        before = report(snapshot, before, watching=True, own=limits)
        yield before


def _soc(share: float) -> tuple[Item, ...]:
    """Return a machine whose SoC draws so much of PL1, and nothing else near a limit."""
    return (SPARK, *watts(system=200, soc=share * _PL1), *limits(pl1=_PL1))


def _standings(scope: str, *looks: tuple[float, Sequence[Item]]) -> list[Standing]:
    reports = _watched(_look(at, *items) for at, items in looks)
    return [one.budget.verdicts[scope].standing for one in reports]


def _of_shares(shares: Iterable[float]) -> list[Standing]:
    return _standings("soc", *((float(at), _soc(share)) for at, share in enumerate(shares)))


# --- hysteresis -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "standings"),
    [
        ((0.5, 0.9, 0.901, 0.9, 0.881, 0.88, 0.9), "within within near near near within within"),
        ((0.5, 0.979, 0.98, 0.979, 0.96, 0.959, 0.979), "within near at at at near near"),
        ((1.0, 0.881, 0.88), "at near within"),
        ((1.0, 0.5, 0.89), "at within within"),
        ((1.2, 0.97, 0.95), "at at near"),
    ],
)
def test_a_standing_ends_below_where_it_begins(shares: tuple[float, ...], standings: str) -> None:
    """By two hundredths of the limit; each of the two thresholds for itself."""
    words = {Standing.WITHIN: "within", Standing.NEAR_LIMIT: "near", Standing.AT_LIMIT: "at"}
    assert standings.split() == [words[one] for one in _of_shares(shares)]


@pytest.mark.parametrize("threshold", [NEAR_LIMIT, AT_LIMIT])
@given(wander=st.lists(st.floats(-HYSTERESIS + 1e-4, HYSTERESIS - 1e-4), min_size=2, max_size=40))
def test_no_standing_flaps(threshold: float, wander: list[float]) -> None:
    """While the share wanders about a threshold, less than the band away from it, the standing changes once at most."""
    standings = _of_shares(threshold + step for step in wander)
    assert sum(now is not before for before, now in pairwise(standings)) <= 1


@given(st.lists(st.floats(0.8, 1.1), min_size=1, max_size=40))
def test_hysteresis_only_ever_holds_a_standing(shares: list[float]) -> None:
    """It is the one of a single look, or the higher one of the look before, within the band."""
    before = Standing.WITHIN
    for share, standing in zip(shares, _of_shares(shares), strict=True):
        alone = report(_look(0, *_soc(share))).budget.verdicts["soc"].standing
        lenient = report(_look(0, *_soc(share + HYSTERESIS))).budget.verdicts["soc"].standing
        assert _GRADES.index(alone) <= _GRADES.index(standing) <= _GRADES.index(lenient)
        if standing is not alone:
            assert _GRADES.index(before) >= _GRADES.index(standing)
        before = standing


def test_one_look_has_no_past() -> None:
    """Below the threshold is below it, whoever looked before."""
    first = report(_look(0, *_soc(1.0)), watching=True)
    assert Standing.NEAR_LIMIT is report(_look(1, *_soc(0.97))).budget.verdicts["soc"].standing
    assert Standing.AT_LIMIT is report(_look(1, *_soc(0.97)), first, watching=True).budget.verdicts["soc"].standing


# --- for how long -----------------------------------------------------------------------------------------------------

_UNDER: _Items = (SPARK, *watts(system=150, soc=100), *HEALTHY)
_OVER: _Items = (SPARK, *watts(system=235, soc=100, syspl1=235), *HEALTHY)
_ADAPTER: _Items = (SPARK, *watts(dc_input=241, system=200, soc=100), *HEALTHY)


def _seconds(begin: float, end: float, items: Sequence[Item]) -> list[tuple[float, Sequence[Item]]]:
    return [(float(at), items) for at in range(int(begin), int(end))]


def test_the_firmware_has_time_to_hold_its_limit() -> None:
    """Above SysPL it is at its limit, and over budget only when that has lasted half a minute."""
    standings = _standings("system", *_seconds(0, 10, _UNDER), *_seconds(10, 60, _OVER))
    since = 10 + int(OVER_SECONDS)
    assert {Standing.AT_LIMIT} == set(standings[10:since])
    assert {Standing.OVER_BUDGET} == set(standings[since:])


def test_a_limit_that_is_held_in_between_begins_anew() -> None:
    """Half a minute without a break; and it ends as soon as it is held."""
    looks = [*_seconds(0, 29, _OVER), *_seconds(29, 30, _UNDER), *_seconds(30, 59, _OVER)]
    assert Standing.OVER_BUDGET not in _standings("system", *looks)
    standings = _standings("system", *_seconds(0, 40, _OVER), (40.0, _UNDER), (41.0, _OVER))
    assert [Standing.OVER_BUDGET, Standing.WITHIN, Standing.AT_LIMIT] == standings[-3:]


def test_above_the_adapter_is_over_at_once() -> None:
    """It has no control loop that would need time."""
    assert [Standing.WITHIN, Standing.OVER_BUDGET, Standing.WITHIN] == _standings(
        "system", (0.0, _UNDER), (1.0, _ADAPTER), (2.0, _UNDER)
    )


def test_above_a_weak_adapter_is_over_at_once() -> None:
    """The owner says what it gives; where what enters is not measured, the system shows it as well."""
    for powers in (watts(dc_input=141, system=130, soc=90), watts(system=141, soc=90)):
        over = _look(0, SPARK, *powers, *HEALTHY)
        assert (
            Standing.OVER_BUDGET is report(over, watching=True, own=own(adapter=140)).budget.verdicts["system"].standing
        )
        assert Standing.WITHIN is report(over, watching=True).budget.verdicts["system"].standing


@pytest.mark.parametrize("limit", [{"soc": 100}, {"system": 130}])
def test_a_budget_of_ones_own_may_be_exceeded_for_a_while(limit: dict[str, float]) -> None:
    """As long as one of the firmware's: a burst is no matter."""
    (name,) = limit
    looks = [_look(float(at), SPARK, *watts(system=131, soc=101), *HEALTHY) for at in range(40)]
    standings = [one.budget.verdicts[name].standing for one in _watched(looks, own(**limit))]
    since = int(OVER_SECONDS)
    assert Standing.OVER_BUDGET not in standings[:since]
    assert {Standing.OVER_BUDGET} == set(standings[since:])


def test_a_limit_that_is_changed_is_judged_by_its_new_value() -> None:
    """From the next look on, as after a reload of the settings."""
    look: _Items = (SPARK, *watts(dc_input=175, system=170, soc=130), *HEALTHY)
    before, standings = None, []
    for at, set_ in enumerate(((), own(adapter=140), own(adapter=190), own(adapter=250))):
        before = report(_look(at, *look), before, watching=True, own=set_)
        standings.append(before.budget.verdicts["system"].standing)
    assert [Standing.WITHIN, Standing.OVER_BUDGET, Standing.NEAR_LIMIT, Standing.WITHIN] == standings


def test_the_rest_may_crowd_the_soc_for_a_while() -> None:
    """The firmware has as long to hold SysPL1."""
    looks = [_look(float(at), SPARK, *watts(system=235, soc=140, syspl1=225), *HEALTHY) for at in range(40)]
    is_told = ["soc_and_rest" in {finding.id for finding in one.findings} for one in _watched(looks)]
    assert [False] * int(OVER_SECONDS) + [True] * (40 - int(OVER_SECONDS)) == is_told


def test_each_limit_has_its_own_time() -> None:
    """One that is exceeded for a while does not make another one's excess older."""
    other: _Items = (
        SPARK,
        *watts(system=250, soc=100, syspl1=200, syspl2=245),
        *limits(pl1=140, syspl1=231, syspl2=244),
    )
    budgets = [one.budget for one in _watched(_look(at, *items) for at, items in [(0.0, _OVER), (20.0, other)])]
    assert [{"syspl1": 0.0}, {"syspl2": 20.0}] == [
        {name: at for name, at in one.over_since.items() if name.startswith("sys")} for one in budgets
    ]


def test_one_look_judges_at_once() -> None:
    """Who looks once cannot wait: what it sees is what it says."""
    assert Standing.OVER_BUDGET is report(_look(0, *_OVER)).budget.verdicts["system"].standing
    assert "gpu_mismatch" in {finding.id for finding in report(_look(0, *_MISMATCH)).findings}


_MISMATCH: _Items = (SPARK, *watts(system=150, soc=120, gpu_rail=60, gpu_nvml=100), *HEALTHY)


def _told(*looks: tuple[float, Sequence[Item]]) -> list[bool]:
    reports = _watched(_look(at, *items) for at, items in looks)
    return ["gpu_mismatch" in {finding.id for finding in one.findings} for one in reports]


def test_a_finding_is_told_when_it_has_held_long_enough() -> None:
    """Two readings of one GPU are never of the same moment, so a moment's difference is none."""
    told = _told(*_seconds(0, 100, _MISMATCH))
    since = int(MISMATCH.for_seconds)
    assert [False] * since + [True] * (100 - since) == told


def test_a_finding_that_is_gone_for_a_look_begins_anew() -> None:
    """It holds, or it does not."""
    told = _told(*_seconds(0, 59, _MISMATCH), (59.0, _UNDER), *_seconds(60, 119, _MISMATCH))
    assert not any(told)


def test_a_finding_without_a_time_is_told_at_once() -> None:
    """Only those are held back that a moment may feign."""
    low: _Items = (SPARK, *watts(system=28, soc=15), *limits(pl1=20, pl2=20, syspl1=30, syspl2=30))
    once, (watched,) = report(_look(0, *low)), _watched([_look(0, *low)])
    patient = {kind.id for kind in KINDS if kind.for_seconds}
    assert {one.id for one in once.findings} - patient == {one.id for one in watched.findings}
    assert watched.findings


# --- gaps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gap", "is_kept"), [(1.0, True), (STALE_SECONDS, True), (STALE_SECONDS + 0.1, False)])
def test_a_gap_is_the_end_of_all_that_was_known(gap: float, is_kept: bool) -> None:
    """What was in between nobody knows: nothing has held for longer than since then."""
    after = 50 + gap
    over = _standings("system", *_seconds(0, 51, _OVER), (after, _OVER))
    assert [Standing.OVER_BUDGET, Standing.OVER_BUDGET if is_kept else Standing.AT_LIMIT] == over[-2:]
    held = _standings("soc", (50.0, _soc(1.0)), (after, _soc(0.97)))
    assert (Standing.AT_LIMIT if is_kept else Standing.NEAR_LIMIT) is held[-1]
    told = _told(*_seconds(-20, 51, _MISMATCH), (after, _MISMATCH), (after + 1, _MISMATCH))
    assert [True, is_kept, is_kept] == told[-3:]
