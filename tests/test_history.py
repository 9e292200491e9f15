"""The counts that outlive one look: time at a limit, what changed, what was refused; and a restart in between."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from looks import HEALTHY, SPARK, found, judged, own, watts

from spark_agent.agent.budget import AT_LIMIT, Budget, Limit
from spark_agent.agent.history import GAP_SECONDS, History, Kept, Ledger
from spark_agent.agent.power import Unmeasured
from spark_agent.agent.snapshot import Snapshot, Status, Visit
from spark_agent.collectors import Absence, Fact, Item, Origin, Reason, gpu, nvme, spbm

_NOTHING = Budget((), Unmeasured(Reason.NO_DATA, ""), {})


def _budget(**shares: float) -> Budget:
    return replace(_NOTHING, shares=shares)


def _at(at: float, *visits: Visit) -> Snapshot:
    return Snapshot("test", Origin.SYNTHETIC, "", at, 1_800_000_000.0 + at, visits)


def _visit(at: float, *items: Item, name: str = "nvme", status: Status = Status.OK) -> Visit:
    reason = Reason.TIMEOUT if status is Status.FAILED else None
    return Visit(name, status, at, 0.001, items, reason)


def _drive(name: str, firmware: str = "1") -> Fact:
    return Fact(nvme.FIRMWARE, firmware, name)


# --- time at a limit --------------------------------------------------------------------------------------------------


def _seconds(*beats: tuple[float, float]) -> float:
    """Return the seconds at the limit after these beats, each a time and a share."""
    ledger = Ledger()
    for at, share in beats:
        history = ledger.note(_at(at), _budget(pl1=share))
    return history.limit_seconds.get("pl1", 0.0)


@pytest.mark.parametrize(
    ("beats", "seconds"),
    [
        ([(0, 1.0)], 0),
        ([(0, 1.0), (1, 1.0)], 1),
        ([(0, 0.5), (1, 1.0)], 1),
        ([(0, 1.0), (1, 0.5)], 0),
        ([(0, 1.0), (1, AT_LIMIT)], 1),
        ([(0, 1.0), (1, AT_LIMIT - 0.000001)], 0),
        ([(0, 1.0), (1, 1.0), (2.5, 1.2), (3, 0.9), (4, 1.0)], 3.5),
        ([(0, 1.0), (GAP_SECONDS, 1.0)], GAP_SECONDS),
        ([(0, 1.0), (GAP_SECONDS + 0.1, 1.0)], 0),
        ([(0, 1.0), (3600, 1.0), (3601, 1.0)], 1),
    ],
)
def test_time_at_a_limit(beats: list[tuple[float, float]], seconds: float) -> None:
    """From one beat to the next at 98 % or above; what was in a gap nobody knows, so it is not counted."""
    assert seconds == _seconds(*beats)


@given(st.lists(st.tuples(st.floats(0.01, 20), st.floats(0, 1.5)), max_size=30))
def test_time_at_a_limit_is_never_more_than_passed(steps: list[tuple[float, float]]) -> None:
    """And never less than before: it is a counter."""
    ledger, at, told, known = Ledger(), 0.0, 0.0, 0.0
    for step, share in steps:
        at += step
        known += step if step <= GAP_SECONDS else 0
        now = ledger.note(_at(at), _budget(pl1=share)).limit_seconds.get("pl1", 0.0)
        assert told <= now <= known + 1e-6
        told = now


def test_a_limit_is_counted_from_its_first_beat_on() -> None:
    """At zero: a counter that appears when it first moves hides that move from rate()."""
    ledger = Ledger()
    assert {"pl1": 0.0} == ledger.note(_at(0), _budget(pl1=0.1)).limit_seconds
    assert {"pl1": 0.0} == ledger.note(_at(1), _budget(pl1=0.1)).limit_seconds
    # Its power is not known for a while, which is no reason for the counter to go.
    assert {"pl1": 0.0} == ledger.note(_at(2), _budget()).limit_seconds


def test_each_limit_that_has_a_reading_is_counted() -> None:
    """Of the firmware, of NVIDIA's guide and of the owner; the rest too. One without a reading of its own is not."""
    powers = watts(dc_input=239, system=230, soc=131, pl1=139, pl2=139, syspl1=230, syspl2=230)
    limits = own(system=232, rest=100)
    ledger = Ledger()
    for at in range(11):
        history = _note(ledger, at, *powers, by=limits)
    counted = {"pl1": 10, "pl2": 0, "syspl1": 10, "syspl2": 0, "adapter": 10, "soc_tdp": 10, "rest": 10, "system": 10}
    assert counted == history.limit_seconds
    without = _note(Ledger(), 0, *watts(system=230, soc=130), by=limits).limit_seconds
    assert {"pl1", "pl2", "syspl1", "syspl2", "soc_tdp", "rest", "system"} == set(without), "no adapter"
    alone = _note(Ledger(), 0, *watts(gpu_nvml=90), by=limits).limit_seconds
    assert {} == alone


def test_a_limit_that_is_changed_keeps_its_counter() -> None:
    """Each second counts by the limit of that second: it never falls, begins anew, or counts one twice."""
    powers = watts(dc_input=138, system=134, soc=80)
    ledger, told = Ledger(), []
    for at, limits in enumerate([()] * 3 + [own(adapter=140)] * 3 + [own(adapter=280)] * 3 + [own(adapter=139)] * 2):
        told.append(_note(ledger, at, *powers, by=limits).limit_seconds["adapter"])
    assert [0, 0, 0, 1, 2, 3, 3, 3, 3, 4, 5] == told


def _note(ledger: Ledger, at: float, *items: Item, by: tuple[Limit, ...]) -> History:
    snapshot = found(SPARK, *items, *HEALTHY)
    snapshot = replace(snapshot, at=at, visits=tuple(replace(visit, at=at) for visit in snapshot.visits))
    return ledger.note(snapshot, judged(snapshot, *by))


# --- what is told, and what is saved ----------------------------------------------------------------------------------


def _killed(saved: dict[str, Any]) -> Ledger:
    """Return the ledger of the next start, of which the last knew only what was saved."""
    return Ledger(Kept.from_json(json.loads(json.dumps(saved))))


@given(st.lists(st.sampled_from(("beat", "save", "kill", "change")), max_size=40))
def test_no_count_ever_falls(events: list[str]) -> None:
    """Whenever the agent is killed: told is what was saved, however far the counts ran ahead."""
    saved = Kept().to_json()
    ledger = Ledger(Kept())
    at, firmware = 0.0, 0
    told = History()
    for event in events:
        if event == "save":
            page = ledger.page()
            ledger.saved(page)
            saved = page.to_json()
        elif event == "kill":
            ledger = _killed(saved)
        elif event == "change":
            firmware += 1
        at += 1
        snapshot = _at(at, _visit(at, _drive("nvme0", str(firmware))))
        now = ledger.note(snapshot, _budget(pl1=1.0), is_disturbed=True)
        assert told.limit_seconds.get("pl1", 0) <= now.limit_seconds.get("pl1", 0)
        assert told.inventory_changes.get("nvme", 0) <= now.inventory_changes.get("nvme", 0)
        told = now


def test_what_is_told_is_what_was_saved() -> None:
    """Neither less, nor what runs ahead of it."""
    ledger = Ledger(Kept(starts=3))
    ledger.note(_at(0), _budget(pl1=1.0))
    assert {"pl1": 0.0} == ledger.note(_at(1), _budget(pl1=1.0)).limit_seconds
    ledger.saved(ledger.page())
    history = ledger.note(_at(2), _budget(pl1=1.0))
    assert ({"pl1": 1.0}, 3) == (history.limit_seconds, history.starts)
    assert {"pl1": 2.0} == ledger.kept.limit_seconds


def test_without_a_state_all_is_told_at_once() -> None:
    """Nothing survives, so nothing has to be there first."""
    ledger = Ledger()
    ledger.note(_at(0), _budget(pl1=1.0))
    assert {"pl1": 1.0} == ledger.note(_at(1), _budget(pl1=1.0)).limit_seconds


def test_a_history_does_not_change_once_it_is_told() -> None:
    """A report is read by many while the next beat counts on."""
    ledger = Ledger()
    visits = [_visit(0, Absence(nvme.FIRMWARE, Reason.GARBAGE, entity="nvme0")), _visit(0, status=Status.FAILED)]
    ledger.note(_at(0, *visits), _budget(pl1=1.0))
    history = ledger.note(_at(1), _budget(pl1=1.0))
    before = repr(history)
    for at in range(2, 20):
        again = [replace(visit, at=float(at)) for visit in visits]
        ledger.note(_at(at, *again), _budget(pl1=1.0, pl2=1.0))
    ledger.miss(5)
    assert before == repr(history)


_COUNTS = st.integers(0, 2**53)
_NAMED = st.text(max_size=8)


@given(
    st.builds(
        Kept,
        _COUNTS,
        _COUNTS,
        _COUNTS,
        st.dictionaries(_NAMED, st.floats(0, 1e12)),
        st.dictionaries(_NAMED, _COUNTS),
    )
)
def test_what_is_kept_comes_back(kept: Kept) -> None:
    """Through JSON, to the last digit."""
    assert kept == Kept.from_json(json.loads(json.dumps(kept.to_json())))


_WHOLE = Kept(1, 2, 3, {"pl1": 1.5}, {"nvme": 2}).to_json()


@pytest.mark.parametrize(
    "content",
    [
        {},
        *({key: value for key, value in _WHOLE.items() if key != missing} for missing in _WHOLE),
        _WHOLE | {"starts": None},
        _WHOLE | {"starts": "many"},
        _WHOLE | {"starts": []},
        _WHOLE | {"limit_seconds": None},
        _WHOLE | {"limit_seconds": [1]},
        _WHOLE | {"limit_seconds": {"pl1": "long"}},
        _WHOLE | {"limit_seconds": {"pl1": None}},
        _WHOLE | {"inventory_changes": 7},
        _WHOLE | {"inventory_changes": {"nvme": {}}},
        _WHOLE | {"starts": -1},
        _WHOLE | {"starts": float("inf")},
        _WHOLE | {"limit_seconds": {"pl1": -1.0}},
        _WHOLE | {"limit_seconds": {"pl1": float("nan")}},
        _WHOLE | {"inventory_changes": {"nvme": -2}},
    ],
)
def test_garbage_is_no_count(content: Mapping[str, Any]) -> None:
    """Said in one way, so that who reads it can begin anew."""
    with pytest.raises(ValueError, match=r"no counts"):
        Kept.from_json(content)


# --- what was seen ----------------------------------------------------------------------------------------------------


def test_beats_are_counted_with_those_that_were_missed() -> None:
    """Of this process alone."""
    ledger = Ledger(Kept())
    ledger.note(_at(0), _NOTHING)
    ledger.miss(3)
    ledger.miss(2)
    history = ledger.note(_at(6), _NOTHING)
    assert (2, 5) == (history.beats, history.missed_beats)


def test_a_visit_is_counted_once_however_often_it_is_told() -> None:
    """One that hangs tells its last visit again and again; a new one counts again."""
    doubtful = (
        Absence(spbm.SYSTEM, Reason.IMPOSSIBLE),
        Absence(spbm.SYSTEM, Reason.OVERFLOW),
        Absence(nvme.FIRMWARE, Reason.GARBAGE, entity="nvme0"),
        Absence(gpu.POWER, Reason.TIMEOUT, labels=("average",)),
    )
    visit, failed = _visit(0, *doubtful, name="spbm"), _visit(0, name="gpu", status=Status.FAILED)
    absent = _visit(0, name="nic", status=Status.ABSENT)
    ledger = Ledger()
    for at in range(5):
        history = ledger.note(_at(at, visit, failed, absent), _NOTHING)
    once = {
        (spbm.SYSTEM.name, "impossible"): 1,
        (spbm.SYSTEM.name, "overflow"): 1,
        (nvme.FIRMWARE.key, "garbage"): 1,
    }
    assert (once, {"gpu": 1}) == (history.rejected, history.failures)
    history = ledger.note(_at(6, replace(visit, at=6.0), replace(failed, at=6.0), replace(absent, at=6.0)), _NOTHING)
    assert (dict.fromkeys(once, 2), {"gpu": 2}) == (history.rejected, history.failures)


def _changes(*looks: tuple[float, Visit], is_disturbed: bool = True) -> dict[str, int]:
    ledger = Ledger()
    for at, visit in looks:
        history = ledger.note(_at(at, visit), _NOTHING, is_disturbed=is_disturbed)
    return dict(history.inventory_changes)


def test_each_device_that_comes_goes_or_changes_counts() -> None:
    """By its collector; what is there in the first look did not come."""
    assert {} == _changes((0, _visit(0, _drive("nvme0"), _drive("nvme1"))))
    assert {"nvme": 3} == _changes(
        (0, _visit(0, _drive("nvme0"), _drive("nvme1"))), (1, _visit(1, _drive("nvme1", "2"), _drive("nvme2")))
    )


def test_one_that_failed_says_nothing_of_what_is_there() -> None:
    """A driver that does not answer has no fewer drives."""
    looks = [_visit(0, _drive("nvme0")), _visit(1, status=Status.FAILED), _visit(2, _drive("nvme0"))]
    assert {} == _changes(*enumerate(looks))


def test_the_last_device_may_go() -> None:
    """Its collector is absent then, which is no failure."""
    looks = [_visit(0, _drive("nvme0")), _visit(1, status=Status.ABSENT), _visit(2, _drive("nvme0"))]
    assert {"nvme": 2} == _changes(*enumerate(looks))


@pytest.mark.parametrize(("after", "count"), [("1", {}), ("2", {"nvme": 1})])
def test_a_fault_changes_nothing_and_hides_nothing(after: str, count: dict[str, int]) -> None:
    """The fact before it is compared with the one after it."""
    looks = [
        _visit(0, _drive("nvme0")),
        _visit(1, Absence(nvme.FIRMWARE, Reason.IO_ERROR, entity="nvme0")),
        _visit(2, Absence(nvme.FIRMWARE, Reason.IO_ERROR, entity="nvme0")),
        _visit(3, _drive("nvme0", after)),
    ]
    assert count == _changes(*enumerate(looks))


def test_undisturbed_it_is_compared_seldom() -> None:
    """Every ten seconds, which is dear enough; one that is disturbed is compared at once."""
    beats = [(float(at), _visit(float(at), _drive("nvme0", str(at)))) for at in range(25)]
    assert {"nvme": 2} == _changes(*beats, is_disturbed=False)
    assert {"nvme": 24} == _changes(*beats)
