"""The estimate fitted to one box: what a reading is worth, what is refused, and when it no longer holds."""

import json
import logging
import math
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Done, Run, runner
from demo import screen
from hosts import host
from hypothesis import assume, given
from hypothesis import strategies as st
from looks import OTHER, SPARK, found, watts

from spark_agent.agent import calibrating, calibration
from spark_agent.agent.calibrating import CannotTellError
from spark_agent.agent.calibration import (
    ANY_SHARE,
    WALL_MOST,
    Anchor,
    Calibration,
    CalibrationError,
    CalibrationFileError,
    Point,
    fitted,
    from_wall,
    identity,
    narrowed,
)
from spark_agent.agent.estimate import Cores, Estimate
from spark_agent.agent.history import Ledger
from spark_agent.agent.machine import open_demo
from spark_agent.agent.report import Report, report
from spark_agent.agent.sampler import Sampler
from spark_agent.agent.snapshot import Snapshot, look
from spark_agent.agent.state import StateError
from spark_agent.agent.terms import Card, Inputs, Interval, interval
from spark_agent.collectors import Fact, Host, Origin, Reading, cpu, discover, platform
from spark_agent.collectors._tree import MemoryTree
from spark_agent.exporters import daemon
from spark_agent.exporters.document import document

ASLEEP = Card("asleep")
IDLE = Inputs(5.0, 0.1, 0.1, ASLEEP, True)
LOAD = Inputs(72.0, 3.0, 0.0, ASLEEP, True)
_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["format", "machine", "idle", "load"]), inner),
)
WHEN = "2026-11-01T12:00:00+00:00"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that runs a command here, on a machine without a calibration."""
    monkeypatch.setattr(calibration, "paths", lambda: (tmp_path / "own" / "c.json", tmp_path / "system" / "c.json"))
    return runner(monkeypatch, capsys)


def _anchor(inputs: Inputs, watts_: float, swing: float = 0.5) -> Anchor:
    return Anchor(inputs, watts_ - swing, watts_ + swing)


def _calibration(path: Path = Path("c.json"), load: float | None = 171.0, **machine: str | None) -> Calibration:
    identity_ = {"product": "Spark", "board": "P4242", "bios": "1", "driver": "580.1"} | machine
    under_load = Point(WHEN, "spbm", load, _anchor(LOAD, load)) if load else None
    return Calibration.of(path, identity_, Point(WHEN, "spbm", 25.0, _anchor(IDLE, 25.0)), under_load)


_BOX = (
    SPARK,
    Fact(platform.PRODUCT, "Spark"),
    Fact(platform.BOARD, "P4242"),
    Fact(platform.BIOS, "1"),
    Fact(platform.DRIVER, "580.1"),
)


class TestFit:
    """Offset and gain on the terms of the estimate."""

    def test_one_reading_is_the_offset(self) -> None:
        """At idle it leaves what drive and cards may draw; under load the interval stays wide."""
        fit = fitted(_anchor(IDLE, 25.0))
        at_idle, plain = narrowed(interval(IDLE), IDLE, fit, ""), interval(IDLE)
        under_load = narrowed(interval(LOAD), LOAD, fit, "")

        assert at_idle
        assert under_load
        assert ANY_SHARE == fit.share
        assert 24.5 == at_idle.lower
        assert at_idle.width < plain.width / 2
        assert under_load.width > 80

    def test_two_readings_are_offset_and_gain(self) -> None:
        """Both are inside, and a load in between is told with half the width."""
        fit = fitted(_anchor(IDLE, 25.0), _anchor(LOAD, 171.0))
        between = replace(LOAD, gpu=46.0)
        plain, known = interval(between), narrowed(interval(between), between, fit, "two readings")

        assert known
        assert known.width < 0.7 * plain.width
        assert ("calibration", "two readings of this box") == (known.basis[-1].name, known.basis[-1].detail)
        assert sum(term.lower for term in known.basis) == pytest.approx(known.lower, abs=0.11)
        assert sum(term.upper for term in known.basis) == pytest.approx(known.upper, abs=0.11)

    def test_another_state_of_the_card(self) -> None:
        """What it may draw more or less is added."""
        fit = fitted(_anchor(IDLE, 25.0))
        awake = replace(IDLE, card=Card("awake"))
        known = narrowed(interval(awake), awake, fit, "")

        assert known
        assert known.lower >= 24.5 + 6 - 1.5
        assert known.upper <= 40.0 + 19

    def test_cores_that_nobody_knows(self) -> None:
        """They may be busy or not, so the interval is as much wider."""
        fit = fitted(_anchor(IDLE, 25.0), _anchor(LOAD, 171.0))
        unknown = replace(IDLE, performance=None, efficiency=None)
        known = narrowed(interval(unknown), unknown, fit, "")

        assert known
        assert known.upper > 100
        assert 22 < known.lower < 25.6

    def test_more_cores_than_under_the_load_that_was_read(self) -> None:
        """The gain says nothing of them: they have the bounds that they have without it."""
        fit = fitted(_anchor(IDLE, 25.0), _anchor(LOAD, 150.0))
        few, many = (replace(IDLE, performance=cores) for cores in (3.0, 10.0))
        known = [narrowed(interval(inputs), inputs, fit, "") for inputs in (few, many)]

        assert known[0]
        assert known[1]
        assert known[1].upper - known[0].upper > 75

    def test_readings_that_contradict_what_is_seen(self) -> None:
        """Nothing is left, rather than something that cannot be."""
        fit = fitted(_anchor(IDLE, 50.0))
        less = replace(IDLE, gpu=0.0, ethernet=False)
        wrong = replace(fit, idle=replace(fit.idle, lower=239.0, upper=240.0))

        assert narrowed(interval(less), less, fit, "")
        assert narrowed(interval(less), less, wrong, "") is None

    @pytest.mark.parametrize(
        ("idle", "load", "why"),
        [
            (_anchor(IDLE, 5.0), None, "it can only draw 17.5–53.9 W"),
            (_anchor(IDLE, 90.0), None, "it can only draw"),
            (_anchor(replace(IDLE, gpu=46.0), 80.0), None, "this is no idle: NVML gives 46.0 W"),
            (_anchor(replace(IDLE, performance=4.0), 30.0), None, "4.1 cores are busy"),
            (_anchor(IDLE, 25.0), _anchor(LOAD, 70.0), "it can only draw"),
            (_anchor(IDLE, 25.0), _anchor(replace(LOAD, gpu=12.0), 60.0), "too light to tell a gain"),
            (
                _anchor(replace(IDLE, card=Card("awake", 2)), 90.0),
                _anchor(replace(LOAD, gpu=20.0), 80.0),
                "no more than at idle",
            ),
            (_anchor(replace(IDLE), 53.0), _anchor(replace(LOAD), 86.0), "rises by 32–34 W, where"),
        ],
    )
    def test_what_no_box_can_read(self, idle: Anchor, load: Anchor | None, why: str) -> None:
        """Is refused, and the line says what is possible."""
        with pytest.raises(CalibrationError, match=why):
            fitted(idle, load)

    @given(
        idle=st.floats(0, 1),
        load=st.floats(0, 1),
        swing=st.floats(0, 10),
        now=st.builds(
            Inputs,
            gpu=st.floats(3, 142),
            performance=st.none() | st.floats(0, 10),
            efficiency=st.floats(0, 10),
            card=st.sampled_from([ASLEEP, Card("awake"), Card("awake", 2)]),
            ethernet=st.booleans(),
        ),
    )
    def test_a_fit_only_narrows(self, idle: float, load: float, swing: float, now: Inputs) -> None:
        """Whatever is read: lower stays below upper, both within what they are without it."""
        first, second = (_within(inputs, share, swing) for inputs, share in ((IDLE, idle), (LOAD, load)))
        try:
            fit = fitted(first, second)
        except CalibrationError:
            assume(False)
        plain, known = interval(now), narrowed(interval(now), now, fit, "")

        assert 0 <= fit.share[0] <= fit.share[1] <= 1
        assert known is None or plain.lower <= known.lower <= known.upper <= plain.upper

    @given(idle=st.floats(0, 1), load=st.floats(0, 1), swing=st.floats(0, 10))
    def test_what_was_read_is_inside(self, idle: float, load: float, swing: float) -> None:
        """At both states some of what was read is possible still."""
        first, second = (_within(inputs, share, swing) for inputs, share in ((IDLE, idle), (LOAD, load)))
        try:
            fit = fitted(first, second)
        except CalibrationError:
            assume(False)
        for anchor in (first, second):
            known = narrowed(interval(anchor.inputs), anchor.inputs, fit, "")
            assert known
            assert known.lower <= anchor.upper
            assert anchor.lower <= known.upper

    @given(st.floats(3, 142), st.floats(3, 142))
    def test_more_gpu_power_is_no_less(self, one: float, other: float) -> None:
        """With a fit, too."""
        fit = fitted(_anchor(IDLE, 25.0), _anchor(LOAD, 160.0))
        states = [replace(LOAD, gpu=gpu) for gpu in sorted((one, other))]
        less, more = (narrowed(interval(inputs), inputs, fit, "") for inputs in states)

        assert less
        assert more
        assert less.lower <= more.lower
        assert less.upper <= more.upper


def _within(inputs: Inputs, share: float, swing: float) -> Anchor:
    """Return a reading that lies there in the interval."""
    known = interval(inputs)
    return _anchor(inputs, known.lower + share * known.width, swing)


class TestWall:
    """Watts at the wall are AC, and the system gets a part of them that nobody knows."""

    def test_a_light_load_and_a_full_one(self) -> None:
        """The adapter keeps more of little."""
        assert pytest.approx((34.5 * 0.79 * 0.95, 34.5 * 0.94)) == from_wall(34.5)
        assert pytest.approx((190 * 0.88 * 0.95, 190 * 0.94)) == from_wall(190)

    @given(st.floats(0, WALL_MOST, exclude_min=True), st.floats(0, WALL_MOST, exclude_min=True))
    def test_more_at_the_wall_is_more_of_the_system(self, one: float, other: float) -> None:
        """And never more than came out of the wall."""
        less, more = (from_wall(ac) for ac in sorted((one, other)))

        assert 0 <= less[0] <= less[1] <= max(one, other)
        assert less[0] <= more[0]
        assert less[1] <= more[1]

    def test_a_wall_reading_leaves_a_wider_interval(self) -> None:
        """Than one by the firmware does."""
        wall, firmware = Anchor(IDLE, *from_wall(30)), _anchor(IDLE, 26)
        widths = [known.width for one in (wall, firmware) if (known := narrowed(interval(IDLE), IDLE, fitted(one), ""))]

        assert widths[0] > widths[1] + 4


class TestFile:
    """What is kept, where, and what is done with a file that holds no calibration."""

    @pytest.mark.parametrize("load", [None, 171.0])
    def test_what_is_kept_is_read_again(self, tmp_path: Path, load: float | None) -> None:
        """All of it."""
        kept = _calibration(tmp_path / "new" / "c.json", load, board=None)
        calibration.save(kept)

        assert kept == calibration.load(kept.path)

    def test_the_service_may_read_it(self, tmp_path: Path) -> None:
        """It is another user, whatever the umask of the one who calibrated."""
        before = os.umask(0o077)
        try:
            calibration.save(_calibration(tmp_path / "c.json"))
        finally:
            os.umask(before)

        assert 0o644 == stat.S_IMODE((tmp_path / "c.json").stat().st_mode)

    def test_a_folder_that_is_none(self, tmp_path: Path) -> None:
        """Is said with the path and what to do."""
        (tmp_path / "file").write_text("")

        with pytest.raises(StateError, match=r"file: not a folder; name a file in one"):
            calibration.save(_calibration(tmp_path / "file" / "c.json"))

    def test_a_disk_that_is_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Leaves the calibration of before."""
        path = tmp_path / "c.json"
        calibration.save(_calibration(path))
        before = path.read_bytes()

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StateError, match="No space left on device; free some space"):
            calibration.save(_calibration(path, None))
        assert before == path.read_bytes()
        assert [path] == list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"format": 2}, "format 2, and this agent knows 1"),
            ({"machine": {}}, "'product' is missing"),
            ({"machine": {"product": 1, "board": None, "bios": None, "driver": None}}, "1 is no text"),
            ({"idle": None}, "no calibration"),
            ({"idle": {}}, "'system_watts' is missing"),
            ({"idle.system_watts": [30, 20]}, "30 is more than 20"),
            ({"idle.system_watts": [math.nan, 20]}, "nan is not a number"),
            ({"idle.system_watts": [1e999, 20]}, "inf is not a number"),
            ({"idle.gpu_nvml_watts": -1}, "-1 is not a number"),
            ({"idle.gpu_nvml_watts": True}, "True is not a number"),
            ({"idle.gpu_nvml_watts": 46}, "this is no idle"),
            ({"idle.taken_at": "soon"}, "soon"),
            ({"idle.meter": "guess"}, "no meter: 'guess'"),
            ({"idle.connectx7": {"state": "\x1b[2J", "cages": 0}}, "is no text"),
            ({"load.system_watts": [10, 11]}, "it can only draw"),
        ],
    )
    def test_a_file_that_holds_none(self, tmp_path: Path, change: dict[str, Any], why: str) -> None:
        """Is said in one line, with the path, what is wrong and what to do."""
        path = tmp_path / "c.json"
        calibration.save(_calibration(path))
        content = json.loads(path.read_text())
        for place, value in change.items():
            *above, last = place.split(".")
            (content[above[0]] if above else content)[last] = value
        path.write_text(json.dumps(content))

        with pytest.raises(CalibrationFileError) as caught:
            calibration.load(path)
        assert str(caught.value).startswith(f"{path}: no calibration: ")
        assert why in str(caught.value)
        assert "calibrate --forget" in str(caught.value)
        assert str(caught.value).isprintable()

    @given(st.binary(max_size=200) | _json.map(lambda one: json.dumps(one).encode()))
    def test_any_bytes(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        """No file ends a command with a traceback."""
        path = tmp_path_factory.getbasetemp() / "any.json"
        path.write_bytes(content)

        with pytest.raises(CalibrationFileError):
            calibration.load(path)

    def test_a_file_without_an_end(self) -> None:
        """Is not read to its end."""
        with pytest.raises(CalibrationFileError, match="more than 32768 bytes"):
            calibration.load(Path("/dev/zero"))

    @pytest.mark.parametrize(
        ("environment", "own"),
        [
            ({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/x/spark-agent/calibration.json"),
            ({"XDG_CONFIG_HOME": "x", "HOME": "/h"}, "/h/.config/spark-agent/calibration.json"),
            ({"HOME": "/h"}, "/h/.config/spark-agent/calibration.json"),
            ({}, "/.config/spark-agent/calibration.json"),
        ],
    )
    def test_where_it_is(self, environment: dict[str, str], own: str) -> None:
        """A user's own comes first, then that of the machine."""
        assert (Path(own), Path("/etc/spark-agent/calibration.json")) == calibration.paths(environment)

    def test_the_first_that_is_there(self, tmp_path: Path) -> None:
        """Or none."""
        own, system = tmp_path / "own.json", tmp_path / "system.json"

        assert calibration.found((own, system)) is None
        system.write_text("")
        assert system == calibration.found((own, system))
        own.write_text("")
        assert own == calibration.found((own, system))

    def test_where_it_goes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the service reads it, if this user may write there; the folder may have to be made."""
        own, system = tmp_path / "own" / "c.json", tmp_path / "etc" / "spark-agent" / "c.json"
        (tmp_path / "etc").mkdir()
        allowed = {tmp_path / "etc"}
        monkeypatch.setattr(os, "access", lambda path, _: path in allowed)

        assert system == calibration.writable((own, system))
        system.parent.mkdir()
        assert own == calibration.writable((own, system))
        allowed.add(system.parent)
        assert system == calibration.writable((own, system))


class TestExpiry:
    """It holds for the box, the firmware and the driver that it was read on."""

    def _looked(self, *changed: Fact, before: Estimate | None = None) -> Report:
        of = {fact.of for fact in changed}
        facts = (*(fact for fact in _BOX if fact.of not in of), *changed)
        first = report(found(*facts, *watts(gpu_nvml=46)), calibration=_calibration())
        return replace(first, estimate=before or first.estimate)

    def test_on_the_same_box(self) -> None:
        """It holds, and the basis says so."""
        estimate = self._looked().estimate

        assert estimate.calibration
        assert estimate.calibration.holds
        assert isinstance(estimate.system, Interval)
        assert "calibration" == estimate.system.basis[-1].name
        assert "25.0 W by the power page, 2026-11-01" in estimate.system.basis[-1].source

    @pytest.mark.parametrize(
        ("fact", "why"),
        [
            (Fact(platform.DRIVER, "590.1"), "the driver was 580.1 and is 590.1"),
            (Fact(platform.BIOS, "2"), "the BIOS was 1 and is 2"),
            (Fact(platform.BOARD, "GX10"), "the board was P4242 and is GX10"),
            (Fact(platform.PRODUCT, "GX10"), "the product was Spark and is GX10"),
        ],
    )
    def test_after_an_update(self, fact: Fact, why: str) -> None:
        """It is ignored, and one line on the screen and in the document says why."""
        found_ = self._looked(fact)
        applied = document(found_)["power"]["estimate"]["calibration"]

        assert found_.estimate.calibration
        assert not found_.estimate.calibration.holds
        assert {"holds": False, "detail": f"{why}; read idle and load anew"} == applied
        assert f"calibration ignored: {why}" in " ".join(screen(found_, 200).split())

    def test_without_the_gpus_power(self) -> None:
        """It rests on that, so it waits until it is back."""
        snapshot = found(*_BOX, Reading(cpu.BUSY, 1, "0", at=95.0), Reading(cpu.IDLE, 1, "0", at=95.0))
        before = report(snapshot, calibration=_calibration())
        later = found(*_BOX, Reading(cpu.BUSY, 2, "0", at=100.0), Reading(cpu.IDLE, 2, "0", at=100.0))
        applied = report(later, before, calibration=_calibration()).estimate.calibration

        assert applied
        assert "it takes the GPU's power" == applied.detail

    def test_a_calibration_that_contradicts(self) -> None:
        """Is ignored, with the reason."""
        wrong = _calibration()
        impossible = replace(wrong.fit.idle, lower=239.0, upper=240.0)
        wrong = replace(wrong, fit=replace(wrong.fit, idle=impossible))
        estimate = report(found(*_BOX, *watts(gpu_nvml=5)), calibration=wrong).estimate

        assert estimate.calibration
        assert "contradict" in estimate.calibration.detail
        assert isinstance(estimate.system, Interval)

    def test_what_a_document_says_of_none(self) -> None:
        """Null, where nobody calibrated."""
        assert document(report(found(*_BOX, *watts(gpu_nvml=5))))["power"]["estimate"]["calibration"] is None

    def test_an_unknown_bios_stays_unknown(self) -> None:
        """Some makers leave it empty; that is the same box all the same."""
        snapshot = found(*(fact for fact in _BOX if fact.of is not platform.BIOS))

        assert identity(snapshot)["bios"] is None
        assert "" == _calibration(bios=None).why_not(snapshot)
        assert "the BIOS was 1 and is unknown" == _calibration().why_not(snapshot)


class TestReading:
    """Looks of some seconds."""

    def test_a_machine_that_is_played(self) -> None:
        """Means of what the estimate rests on, and no waiting."""
        machine = open_demo("fe-idle")
        looked = calibrating.watch(machine.host, machine, 10.0, sleep=_never)

        assert ASLEEP == looked.inputs.card
        assert looked.inputs.gpu == pytest.approx(4.9, abs=0.05)
        assert looked.inputs.performance == pytest.approx(0.11, abs=0.02)
        assert 11 == len(looked.system)
        assert 10.0 == looked.last.snapshot.at

    def test_a_live_machine_is_waited_for(self) -> None:
        """A second before each look but the first, and what is left of one before the last."""
        machine = open_demo("fe-idle")
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            machine.play(float(len(waited)))

        calibrating.watch(machine.host, None, 2.5, sleep=sleep)

        assert 4 == len(waited)
        assert sorted(waited) == waited
        assert waited[-1] <= 2.5

    @pytest.mark.parametrize(
        ("demo", "at", "why"), [("driver-lost", 15.0, "the GPU's power"), ("driver-lost", 55.0, "the GPU's power")]
    )
    def test_a_gpu_that_is_not_there(self, demo: str, at: float, why: str) -> None:
        """Is no reading, at any second of it."""
        machine = open_demo(demo)

        with pytest.raises(CannotTellError, match=why):
            calibrating.watch(machine.host, machine, 10.0, at)

    def test_another_machine(self) -> None:
        """Is not looked at any longer than it takes to see that."""
        with pytest.raises(CannotTellError, match="no GB10"):
            calibrating.watch(
                replace(open_demo("fe-idle").host, tree=MemoryTree(), nvml=host().nvml),
                None,
                600.0,
                sleep=lambda seconds: _never(seconds) if seconds else None,
            )

    def _reports(self, *gpu: float, card: Card = ASLEEP) -> list[Report]:
        reports = []
        for second, power in enumerate(gpu):
            base = report(found(SPARK, *watts(gpu_nvml=power)))
            times = Cores(Reading(cpu.BUSY, 0, "0"), float(second), {"0": (second / 2, second / 2)}, None, "")
            inputs = Inputs(power, None, None, card if second else ASLEEP, True)
            reports.append(replace(base, estimate=replace(base.estimate, inputs=inputs, cores=times)))
        return reports

    def test_a_load_that_does_not_hold_still(self) -> None:
        """Is no reading: nobody knows which of it the meter showed."""
        with pytest.raises(CannotTellError, match=r"moved between 20\.0 and 80\.0 W"):
            calibrating._looked(self._reports(20, 80, 20))

    def test_a_card_that_wakes_meanwhile(self) -> None:
        """Is no reading either."""
        with pytest.raises(CannotTellError, match="network card"):
            calibrating._looked(self._reports(5, 5, card=Card("awake")))

    def test_cores_that_stand_still(self) -> None:
        """Without their times there is no saying what they added."""
        reports = self._reports(5, 5)
        cores = reports[0].estimate.cores
        reports[1] = replace(reports[1], estimate=replace(reports[1].estimate, cores=cores))

        with pytest.raises(CannotTellError, match="how busy the cores were"):
            calibrating._looked(reports)

    def test_a_steady_load(self) -> None:
        """Is its mean."""
        looked = calibrating._looked(self._reports(70, 74, 72))

        assert (72.0, 0.5) == (looked.inputs.gpu, looked.inputs.performance)
        assert () == looked.system
        with pytest.raises(CannotTellError, match="power page does not give"):
            calibrating.point(looked, None)
        assert from_wall(150) == (
            calibrating.point(looked, 150.0).anchor.lower,
            calibrating.point(looked, 150.0).anchor.upper,
        )

    def test_a_load_after_an_update(self) -> None:
        """Has no idle to be held against any more."""
        looked = calibrating._looked(self._reports(70, 74, 72))

        with pytest.raises(CannotTellError, match=r"the driver was 580\.1 and is unknown; read idle anew"):
            calibrating.with_load(_calibration(), looked.last, calibrating.point(looked, 150.0))

    def test_an_idle_that_the_load_does_not_fit_any_more(self) -> None:
        """Takes its place, and the load is dropped with a word."""
        idle = Point(WHEN, "spbm", 53.0, _anchor(IDLE, 53.0))
        step = calibrating.with_idle(_calibration(load=100.0), Path("c"), report(found(*_BOX)), idle)

        assert step.calibration.load is None
        assert "the reading under load is dropped: " in step.dropped
        kept = calibrating.with_idle(
            _calibration(), Path("c"), report(found(*_BOX)), replace(idle, watts=25, anchor=_anchor(IDLE, 25))
        )
        assert kept.calibration.load
        assert "" == kept.dropped


def _never(_: float) -> None:
    pytest.fail("nobody waits for a machine that is played")


class TestCommand:
    """``spark-agent calibrate`` as an owner types it."""

    def test_the_whole_way(self, run: Run, tmp_path: Path) -> None:
        """Idle, load, show, use, forget."""
        file = tmp_path / "c.json"
        idle = run("--demo", "fe-idle", "calibrate", "--file", file, "--idle", "30.5")
        load = run("--demo", "fe-gemm", "calibrate", "--file", file, "--load", "190")
        shown = run("--demo", "fe-stock", "calibrate", "--file", file, "--show")
        used = run("--demo", "fe-stock", "--at", "20", "snapshot", "--calibration", file, "-o", "json")
        without = run("--demo", "fe-stock", "--at", "20", "snapshot", "-o", "json")
        told, plain = (json.loads(done.out)["power"]["estimate"] for done in (used, without))

        assert [0, 0, 0, 0] == [idle.code, load.code, shown.code, used.code]
        assert "" == idle.err + load.err + shown.err
        assert "idle: 30.5 W at the wall, 2026-08-11: 22.9–28.7 W for the system" in idle.out
        assert "this is the offset alone" in idle.out
        assert "this is the offset alone" not in load.out
        assert "for product NVIDIA_DGX_Spark, board P4242, BIOS 5.36_0ACUM023, driver 580.159.03" in shown.out
        assert told["calibration"]["holds"]
        assert plain["calibration"] is None
        assert plain["system"]["lower"] < told["system"]["lower"] < told["system"]["upper"] < plain["system"]["upper"]
        assert "calibration" == told["system"]["basis"][-1]["term"]
        assert Done(0, f"{file} is removed\n", "") == run("calibrate", "--file", file, "--forget")
        assert not file.exists()

    def test_by_the_firmware(self, run: Run, tmp_path: Path) -> None:
        """Where its power page is read, nobody types watts; the score is that of the fit then."""
        file = tmp_path / "c.json"
        idle = run("--demo", "fe-idle", "calibrate", "--file", file, "--idle", "--from", "spbm")
        found_ = json.loads(run("--demo", "fe-idle", "--at", "20", "snapshot", "--calibration", file, "-o", "json").out)
        score = found_["power"]["estimate"]["score"]

        assert 0 == idle.code
        assert "25.0 W by the power page" in idle.out
        assert 0 == score["value"]
        assert score["against"]["upper"] - score["against"]["lower"] < 20

    def test_another_box(self, run: Run, tmp_path: Path) -> None:
        """Ignores it, and says why; ``--show`` ends with 1."""
        file = tmp_path / "c.json"
        run("--demo", "fe-idle", "calibrate", "--file", file, "--idle", "30.5")
        shown = run("--demo", "gx10-asleep", "calibrate", "--file", file, "--show")
        used = run("--demo", "gx10-asleep", "snapshot", "--calibration", file)

        assert 1 == shown.code
        assert "ignored: the product was NVIDIA_DGX_Spark and is GX10, the board was" in shown.out
        assert 0 == used.code
        assert "calibration ignored: the product was" in " ".join(used.out.split())

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ((), "one thing at a time"),
            (("--idle", "30", "--load", "120"), "one thing at a time"),
            (("--show", "--forget"), "one thing at a time"),
            (("--idle", "30", "--show"), "one thing at a time"),
            (("--show", "--from", "spbm"), "--from and --seconds do nothing with --show"),
            (("--forget", "--seconds", "5"), "--from and --seconds do nothing with --forget"),
            (("--idle",), "--idle needs what the meter shows, such as --idle 34.5"),
            (("--load", "--from", "wall"), "--load needs what the meter shows"),
            (("--idle", "30", "--from", "spbm"), "--from spbm reads the watts itself"),
            (("--idle", "nan"), "nan W is out of range"),
            (("--idle", "inf"), "inf W is out of range: the adapter draws up to 273 W"),
            (("--idle", "0"), "0 W is out of range"),
            (("--idle", "-30"), "-30 is out of range"),
            (("--idle=-30",), "-30 is out of range"),
            (("--load", "1000"), "1000 W is out of range"),
            (("--idle", "much"), "'much' is no number of watts, such as 34.5"),
            (("--idle", "30", "--seconds", "nan"), "nan is no number of seconds"),
            (("--idle", "30", "--seconds", "1"), "1.0 is not in the range 2<=x<=600"),
            (("--load", "120"), "first --idle, while nothing runs; then --load"),
            (("--idle", "90"), "the reading at idle says that the system draws 75.2–84.6 W"),
            (("--idle", "10"), "read again, in watts, of this machine alone"),
        ],
    )
    def test_nonsense_is_64_and_says_what_is_right(
        self, run: Run, tmp_path: Path, arguments: tuple[str, ...], says: str
    ) -> None:
        """On stderr, and nothing is kept."""
        done = run("--demo", "fe-idle", "calibrate", "--file", tmp_path / "c.json", *arguments)

        assert (64, "") == (done.code, done.out)
        assert says in " ".join(done.err.split())
        assert [] == list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("demo", "load", "says"),
        [
            ("fe-gemm", "20", "20 W under load are no more than the 30.5 W at idle"),
            ("fe-gemm", "60", "the reading at load says that the system draws"),
            ("fe-idle", "90", "the reading at load says that the system draws"),
            ("fe-idle", "45", "the load is too light to tell a gain"),
        ],
    )
    def test_a_load_that_cannot_be(self, run: Run, tmp_path: Path, demo: str, load: str, says: str) -> None:
        """Below idle, or not what such a GPU draws: the idle stays as it was."""
        file = tmp_path / "c.json"
        run("--demo", "fe-idle", "calibrate", "--file", file, "--idle", "30.5")
        before = file.read_bytes()
        done = run("--demo", demo, "calibrate", "--file", file, "--load", load)

        assert (64, "") == (done.code, done.out)
        assert says in " ".join(done.err.split())
        assert before == file.read_bytes()

    def test_an_idle_while_the_gpu_works(self, run: Run, tmp_path: Path) -> None:
        """Is none."""
        done = run("--demo", "fe-stock", "calibrate", "--file", tmp_path / "c.json", "--idle", "90")

        assert 64 == done.code
        assert "this is no idle: NVML gives 46.1 W for the GPU" in done.err

    @pytest.mark.parametrize("arguments", [("--show",), ("--idle", "30"), ("--forget",)])
    def test_a_replayed_machine_needs_a_file(self, run: Run, arguments: tuple[str, ...]) -> None:
        """The one of this machine is another's."""
        done = run("--demo", "fe-idle", "calibrate", *arguments)

        assert 64 == done.code
        assert "name its file with --file" in done.err

    def test_what_cannot_be_told_is_3(self, run: Run, tmp_path: Path) -> None:
        """No power page, no GPU, no GB10, no file, a folder that is none."""
        (tmp_path / "file").write_text("")
        kept = tmp_path / "c.json"
        calibration.save(_calibration(kept))
        for arguments, says in (
            (("--demo", "gx10-asleep", "calibrate", "--file", tmp_path / "n", "--idle", "--from", "spbm"), "no driver"),
            (
                ("--demo", "driver-lost", "--at", "55", "calibrate", "--file", tmp_path / "n", "--idle", "30"),
                "the GPU's power",
            ),
            (("--demo", "fe-idle", "calibrate", "--file", tmp_path / "file" / "c", "--idle", "30"), "not a folder"),
            (("--demo", "fe-idle", "calibrate", "--file", tmp_path / "n", "--show"), "n: No such file or directory"),
            (("--demo", "fe-idle", "calibrate", "--file", tmp_path / "file", "--show"), "no calibration"),
            (("--demo", "fe-idle", "calibrate", "--file", tmp_path / "file", "--idle", "30"), "no calibration"),
            (
                ("--demo", "fe-gemm", "calibrate", "--file", kept, "--load", "190"),
                "the product was Spark and is NVIDIA",
            ),
            (("calibrate", "--show"), "no calibration is kept"),
            (("calibrate", "--forget"), "no calibration is kept"),
        ):
            done = run(*arguments)
            assert (3, "") == (done.code, done.out), arguments
            assert says in done.err
            assert done.err.startswith("spark-agent: ")
            assert 1 == done.err.count("\n")

    def test_a_named_file_that_is_none_is_78(self, run: Run, tmp_path: Path) -> None:
        """A snapshot that was to be calibrated must not come without."""
        (tmp_path / "c.json").write_text("{}")
        done = run("--demo", "fe-idle", "snapshot", "--calibration", tmp_path / "c.json")

        assert (78, "") == (done.code, done.out)
        assert "'format' is missing" in done.err

    def test_this_machines_own_is_found(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a word on the command line; one that is damaged is said, and changes no exit code."""
        own = tmp_path / "own" / "c.json"
        own.parent.mkdir()
        monkeypatch.setattr("spark_agent.collectors._live.live_host", lambda: open_demo("fe-idle").host)
        run("--demo", "fe-idle", "calibrate", "--file", own, "--idle", "30.5")
        found_ = run("snapshot", "-o", "json")
        own.write_text("{")
        damaged = run("snapshot", "-o", "json")

        assert json.loads(found_.out)["power"]["estimate"]["calibration"]["holds"]
        assert (0, "") == (found_.code, found_.err)
        assert json.loads(damaged.out)["power"]["estimate"]["calibration"] is None
        assert 0 == damaged.code
        assert "no calibration" in damaged.err
        assert "the estimate goes without it" in damaged.err

    def test_a_live_machine(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is looked at for as long as it was said, and told whether the service reads what is kept."""
        asked: list[float] = []

        def watch(_host: Host, _machine: None, seconds: float, at: float) -> calibrating.Looked:
            asked.append(seconds)
            machine = open_demo("fe-idle")
            return real(machine.host, machine, 2.0, at)

        real = calibrating.watch
        monkeypatch.setattr(calibrating, "watch", watch)
        (tmp_path / "system").mkdir()
        done = run("calibrate", "--idle", "30.5", "--seconds", "4")
        monkeypatch.setattr(calibration, "SYSTEM_FILE", tmp_path / "system" / "c.json")
        again = run("calibrate", "--idle", "30.5")

        assert [4.0, 10.0] == asked
        assert (0, "looking for 4 s …\n") == (done.code, done.err)
        assert f"kept in {tmp_path / 'system' / 'c.json'}" in done.out
        assert "the service reads /etc/spark-agent/calibration.json only" in done.out
        assert "systemctl reload spark-agent" in again.out


class TestDaemon:
    """The service reads it at its start and at a reload."""

    def _live(self) -> Host:
        return replace(open_demo("fe-idle").host, origin=Origin.LIVE)

    def test_it_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """On a live machine; a replayed one is another."""
        path = tmp_path / "c.json"
        calibration.save(_calibration(path))
        monkeypatch.setattr(calibration, "paths", lambda: (tmp_path / "none", path))
        caplog.set_level(logging.INFO)

        found_ = daemon._calibration(self._live())

        assert _calibration(path) == found_
        assert "calibration of the estimate: idle 25.0 W by the power page" in caplog.text
        assert daemon._calibration(open_demo("fe-idle").host) is None

    def test_a_damaged_one_is_done_without(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With a line in the log."""
        path = tmp_path / "c.json"
        path.write_text("{")
        monkeypatch.setattr(calibration, "paths", lambda: (tmp_path / "none", path))

        assert daemon._calibration(self._live()) is None
        assert "the estimate goes without it" in caplog.text

    def test_a_beat_takes_it(self) -> None:
        """From the next one on, after a reload."""
        machine = open_demo("fe-stock")
        sampler = Sampler(machine.host, discover(), Ledger())
        before = sampler.beat(math.inf)
        sampler.calibration = _calibration()
        after = sampler.beat(math.inf)

        assert before.estimate.calibration is None
        assert after.estimate.calibration
        assert not after.estimate.calibration.holds

    def test_why_it_is_ignored_is_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """And again when the reason is another."""
        snapshot: Snapshot = look(open_demo("fe-stock").host, discover())
        other = report(snapshot, calibration=_calibration())
        driver = report(
            snapshot, calibration=replace(_calibration(), machine=dict(identity(snapshot)) | {"driver": "1"})
        )
        watching = object.__new__(daemon._Daemon)
        watching._ignored = ""
        watching._scribe = _Scribe()  # type: ignore[assignment]
        watching._first = _Event()  # type: ignore[assignment]
        for one in (other, other, driver, driver):
            watching._after_beat(one)

        lines = [record.getMessage() for record in caplog.records]
        assert 2 == len(lines)
        assert "calibration of the estimate ignored: the product was Spark" in lines[0]
        assert "ignored: the driver was 1 and is 580.159.03" in lines[1]


class _Scribe:
    def take(self, _: Report) -> None:
        """Write nothing."""


class _Event:
    def is_set(self) -> bool:
        """Say that there was a beat."""
        return True


def test_another_machine_is_not_estimated_whatever_was_calibrated() -> None:
    """A file that came from a Spark changes nothing elsewhere."""
    snapshot = found(OTHER, *watts(gpu_nvml=5))

    assert report(snapshot, calibration=_calibration()).estimate.calibration is None
