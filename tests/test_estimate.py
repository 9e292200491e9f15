"""The estimate of the system: it holds for all that is known, it is never a measurement, and nothing rests on it."""

import ast
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import estimates
import pytest
from demo import demo_report, screen
from estimates import ASLEEP, AWAKE, FIRMWARE, WALL, Row
from hypothesis import given
from hypothesis import strategies as st
from looks import HEALTHY, OTHER, SPARK, found, watts

from spark_agent.agent import report as reporting
from spark_agent.agent.estimate import NONE, Estimate, Score, busy_cores, estimate
from spark_agent.agent.machine import demos, open_demo
from spark_agent.agent.power import Measured, Unmeasured, understand
from spark_agent.agent.report import Report, report
from spark_agent.agent.sampler import play
from spark_agent.agent.snapshot import look
from spark_agent.agent.terms import GPU_MOST, Card, Inputs, Interval, interval, terms
from spark_agent.collectors import (
    Absence,
    Fact,
    Item,
    Quality,
    Reading,
    Reason,
    Scope,
    cpu,
    discover,
    gpu,
    nic,
)
from spark_agent.exporters import prometheus
from spark_agent.exporters.document import document

REPO = Path(__file__).parent.parent
PAGE = REPO / "docs" / "estimate.md"
#: The last line that people write.
MARK = "<!-- From here on `make golden` writes what the code says. -->\n"

#: Who makes, fits, passes on or tells the estimate; everybody else judges.
_MAY_ESTIMATE = ("estimate.py", "terms.py", "calibration.py", "calibrating.py", "report.py", "runner.py", "cli.py")

_cards = st.sampled_from((Card("asleep"), Card("missing"), AWAKE, Card("awake", 1), Card("awake", 2)))
_gpu = st.floats(0, GPU_MOST)
_cores = st.floats(0, 10)
_inputs = st.builds(
    Inputs,
    gpu=st.none() | _gpu,
    performance=_cores,
    efficiency=_cores,
    card=st.none() | _cards,
    ethernet=st.none() | st.booleans(),
)


def _estimated(*items: Item, before: Estimate | None = None, **others: Any) -> Estimate:
    snapshot = found(*items, **others)
    return estimate(snapshot, understand(snapshot), before)


def _told(known: Interval | Unmeasured) -> Interval:
    assert isinstance(known, Interval), known
    return known


def _why_none(known: Interval | Unmeasured) -> Unmeasured:
    assert isinstance(known, Unmeasured), known
    return known


def _sleeping() -> tuple[Fact, ...]:
    return (
        Fact(nic.STATE, "asleep"),
        Fact(nic.KIND, "ethernet", "enP7s7"),
        Fact(nic.LINK, "up", "enP7s7"),
    )


def _times(seconds: float, busy: Mapping[str, float], at: float) -> tuple[Item, ...]:
    """Return cores that were each busy for that share of so many seconds; E cores begin with an e."""
    return tuple(
        item
        for core, share in busy.items()
        for item in (
            Reading(cpu.BUSY, seconds * share, core, at=at),
            Reading(cpu.IDLE, seconds * (1 - share), core, at=at),
            Fact(cpu.CORE_TYPE, "efficiency" if core.startswith("e") else "performance", core),
        )
    )


class TestRows:
    """All that owners published of a system's power, beside what the estimate would have said."""

    @pytest.mark.parametrize("row", [*FIRMWARE, *WALL], ids=lambda row: row.name)
    def test_row(self, row: Row) -> None:
        """What was measured is inside; of a wall reading, all that may have reached the system."""
        assert row.is_inside, (interval(row.inputs), row.measured)

    def test_a_row_can_be_outside(self) -> None:
        """The gate is one: 60 W of a box with nothing to do would fail it."""
        assert not Row("", estimates.idle(5.0, ASLEEP), 60.0).is_inside

    @pytest.mark.parametrize("one", estimates.crossed(), ids=lambda one: f"{one.fit.name[0]}-{one.row.name[0]}")
    def test_a_fit_to_one_load_holds_for_the_others(self, one: estimates.Crossed) -> None:
        """It is narrower, and what another load drew is still inside."""
        assert one.is_inside, (one.calibrated, one.row.system)
        assert one.calibrated
        assert one.calibrated.width < one.width

    def test_what_the_bench_prints(self) -> None:
        """Coverage and median width, computed."""
        lines = list(estimates.report())

        assert "9 of 9 inside" in lines[1]
        assert all("width" in line for line in lines[1:])

    def test_the_page_is_what_the_code_says(self, request: pytest.FixtureRequest) -> None:
        """A constant that changes shows in the docs, with what it does to the rows; `make golden` puts it there."""
        prose, mark, tables = PAGE.read_text(encoding="utf-8").partition(MARK)
        if request.config.getoption("--update-golden"):
            PAGE.write_text(f"{prose}{MARK}\n{estimates.page()}", encoding="utf-8")
        else:
            assert mark
            assert f"\n{estimates.page()}" == tables

    @pytest.mark.parametrize("name", [one.name for one in estimates.played() if one.measured is not None])
    def test_demos_that_are_measured_are_inside(self, name: str) -> None:
        """With all known that the estimate rests on, so that it is at its narrowest."""
        (one,) = (one for one in estimates.played() if one.name == name)

        assert one.measured is not None
        assert 0 == one.interval.miss(one.measured)
        assert () == one.interval.unknown


class TestBounds:
    """Laws of the interval, whatever is seen."""

    @given(_inputs)
    def test_an_interval_is_one(self, inputs: Inputs) -> None:
        """Neither NaN nor upside down, above nothing, and within what the adapter can give."""
        known = interval(inputs)

        assert 0 < known.lower <= known.upper <= 240
        assert math.isfinite(known.width)

    @given(_inputs)
    def test_the_terms_add_up(self, inputs: Inputs) -> None:
        """The bounds are the sums of what is told of each term, rounded outward to a tenth of a watt."""
        known = interval(inputs)

        assert 0 <= sum(term.lower for term in known.basis) - known.lower < 0.1 + 1e-6
        assert 0 <= known.upper - sum(term.upper for term in known.basis) + 1e-6 < 0.1 + 2e-6
        assert all(term.source and term.detail for term in terms(inputs))

    @given(_inputs, _gpu, _gpu)
    def test_more_gpu_power_is_no_less_system_power(self, inputs: Inputs, one: float, other: float) -> None:
        """Both bounds rise with it."""
        less, more = (interval(replace(inputs, gpu=watts)) for watts in sorted((one, other)))

        assert less.lower <= more.lower
        assert less.upper <= more.upper

    @given(_inputs, _cores, _cores)
    def test_more_busy_cores_are_no_less_system_power(self, inputs: Inputs, one: float, other: float) -> None:
        """Both bounds rise with them."""
        less, more = (interval(replace(inputs, performance=cores)) for cores in sorted((one, other)))

        assert less.lower <= more.lower
        assert less.upper <= more.upper

    @given(_inputs, st.sampled_from(["gpu", "performance", "efficiency", "card", "ethernet"]))
    def test_what_is_not_known_makes_it_wider(self, inputs: Inputs, name: str) -> None:
        """Never narrower, and what was inside stays inside."""
        known, without = interval(inputs), interval(replace(inputs, **{name: None}))

        assert without.lower <= known.lower
        assert known.upper <= without.upper

    @given(_inputs.filter(lambda one: one.gpu is not None))
    def test_the_gpu_is_a_part_of_it(self, inputs: Inputs) -> None:
        """The system draws at least what NVML gives for the GPU, and the rest of an idle box."""
        assert interval(inputs).lower >= (inputs.gpu or 0) + 10

    def test_the_gpu_at_a_rail_44_percent_above_nvml(self) -> None:
        """The most that NVML was said to read low is within: 100 W of rail where it gives 56."""
        (rail,) = (term for term in terms(Inputs(56.0)) if term.name == "gpu")

        assert 55 <= rail.lower <= 56
        assert 96 <= rail.upper


class TestLook:
    """What of a look the estimate takes."""

    def test_another_machine(self) -> None:
        """What is known of a GB10 says nothing of it."""
        known = _why_none(_estimated(OTHER, *watts(gpu_nvml=40)).system)

        assert Reason.NOT_SUPPORTED == known.reason
        assert "GB10" in known.detail

    def test_a_machine_that_nobody_identified(self) -> None:
        """Without the platform there is no estimate, and it says so."""
        assert Reason.NOT_ASKED == _why_none(_estimated(*watts(gpu_nvml=40)).system).reason

    def test_nothing_but_the_platform(self) -> None:
        """The widest interval would say nothing, so there is none."""
        known = _why_none(_estimated(SPARK, *_sleeping()).system)

        assert Reason.NO_DATA == known.reason
        assert "takes" not in known.detail
        assert "left out of this look" in known.detail

    def test_one_look(self) -> None:
        """GPU and card are known, busy cores are not, and it says that they take two looks."""
        told = _estimated(SPARK, *watts(gpu_nvml=40), *_sleeping(), *_times(10, {"5": 0.5}, 99.0))
        known = _told(told.system)

        assert ("busy cores (it takes two looks to tell)",) == known.unknown
        assert Inputs(40.0, None, None, ASLEEP, True) == told.inputs
        assert (Scope.SYSTEM, Quality.ESTIMATED, "W") == (known.scope, known.quality, known.unit)

    def test_without_nvml(self) -> None:
        """Cores alone make an interval, a wide one."""
        first = _estimated(SPARK, *_sleeping(), *_times(10, {"5": 0.5}, 95.0), without={"gpu": Reason.NO_LIBRARY})
        known = _estimated(
            SPARK,
            *_sleeping(),
            *_times(20, {"5": 0.5}, 100.0),
            without={"gpu": Reason.NO_LIBRARY},
            before=first,
        )

        assert Reason.NO_DATA == _why_none(first.system).reason
        assert ("GPU power (gpu: why)",) == _told(known.system).unknown
        assert _told(known.system).width > 150

    def test_busy_cores_of_two_looks(self) -> None:
        """Each counts for the share of its time that it worked, by its kind; the age is that of the second reading."""
        busy = {"5": 0.25, "6": 0.5, "e0": 1.0, "e1": 0.0}
        begin = dict.fromkeys(busy, 0.0)
        first = _estimated(SPARK, *watts(gpu_nvml=40), *_sleeping(), *_times(100, begin, 94.0))
        later = tuple(
            replace(item, value=item.value + (100 if item.of is cpu.IDLE else 0)) if isinstance(item, Reading) else item
            for item in _times(5, busy, 99.0)
        )
        told = _estimated(SPARK, *watts(gpu_nvml=40), *_sleeping(), *later, before=first)

        assert told.inputs
        assert (0.75, 1.0) == (told.inputs.performance, told.inputs.efficiency)
        assert 1.0 == _told(told.system).age
        assert () == _told(told.system).unknown

    def test_readings_of_the_look_before_are_known_again(self) -> None:
        """Cores are read each five seconds: the beats between keep what is known of them."""
        items = _times(10, {"5": 0.5}, 99.0)
        first = _estimated(SPARK, *items)
        again = _estimated(SPARK, *items, before=first)

        assert again.cores is first.cores

    @pytest.mark.parametrize(
        ("at", "why"), [(200.0, "are 105 s apart"), (95.0, "takes two looks"), (90.0, "are -5 s apart")]
    )
    def test_looks_that_tell_nothing_of_now(self, at: float, why: str) -> None:
        """Too far apart, too near, or a clock that went back."""
        first = _estimated(SPARK, *watts(gpu_nvml=40), *_times(10, {"5": 0.5}, 95.0))
        told = _estimated(SPARK, *watts(gpu_nvml=40), *_times(20, {"5": 0.5}, at), before=first)

        assert why in _told(told.system).unknown[0]

    def test_cores_that_were_read_long_ago(self) -> None:
        """Where their collector answers no more, what was busy is not known any more."""
        first = _estimated(SPARK, *watts(gpu_nvml=40), *_times(10, {"5": 0.5}, 75.0))
        told = _estimated(SPARK, *watts(gpu_nvml=40), *_times(20, {"5": 0.5}, 80.0), before=first)

        assert "busy cores (they were read too long ago)" in _told(told.system).unknown

    @pytest.mark.parametrize(
        ("before", "now"),
        [
            ({"0": (1.0, 1.0)}, {"0": (0.5, 2.0)}),
            ({"0": (1.0, 1.0)}, {"0": (2.0, 0.5)}),
            ({"0": (1.0, 1.0)}, {"0": (1.0, 1.0)}),
            ({"0": (1.0, 1.0)}, {"0": (2.0, 1.0), "1": (1.0, 1.0)}),
        ],
    )
    def test_times_that_do_not_add_up(
        self, before: Mapping[str, tuple[float, float]], now: Mapping[str, tuple[float, float]]
    ) -> None:
        """Backwards, standing still, or of other cores than before: nobody knows what was busy."""
        assert busy_cores({}, before, now) is None

    def test_a_core_of_no_known_kind(self) -> None:
        """Counts for the kind that draws more."""
        assert (0.5, 0.0) == busy_cores({"0": "unknown"}, {"0": (0.0, 0.0)}, {"0": (1.0, 1.0)})

    @pytest.mark.parametrize(
        ("items", "others", "why"),
        [
            ((*watts(gpu_nvml=143),), {}, "more than the SoC can draw"),
            ((*watts(gpu_nvml=40),), {"ages": {"gpu": 6.0}}, "6 s ago"),
            (
                (
                    Reading(gpu.POWER, 40, "0", ("average",)),
                    Reading(gpu.POWER, 40, "1", ("average",)),
                ),
                {},
                "not the GB10's alone",
            ),
            ((Absence(gpu.POWER, Reason.NOT_SUPPORTED, "never", "0", ("average",)),), {}, "(never)"),
        ],
    )
    def test_a_gpu_power_that_says_nothing(self, items: tuple[Item, ...], others: dict[str, Any], why: str) -> None:
        """Too much for a GB10, too old, of several GPUs, or none."""
        begin = _estimated(SPARK, *_times(10, {"5": 0.5}, 95.0))
        told = _estimated(SPARK, *items, *_times(20, {"5": 0.5}, 100.0), before=begin, **others)

        assert why in _told(told.system).unknown[0]
        assert told.inputs
        assert told.inputs.gpu is None

    @pytest.mark.parametrize(
        ("items", "card"),
        [
            ((Fact(nic.STATE, "asleep"),), Card("asleep")),
            ((Fact(nic.STATE, "missing"),), Card("missing")),
            ((Fact(nic.STATE, "present"), Reading(nic.CAGES_UP, 0)), Card("awake")),
            ((Fact(nic.STATE, "incomplete"), Reading(nic.CAGES_UP, 1)), Card("awake", 1)),
            ((Fact(nic.STATE, "present"), Reading(nic.CAGES_UP, 2)), Card("awake", 2)),
            (
                (Fact(nic.STATE, "present"), Reading(nic.CAGES_UP, 0), Fact(nic.HOTPLUG_DEBUG_STATE, 1)),
                Card("awake", 1),
            ),
            ((Fact(nic.STATE, "present"), Absence(nic.CAGES_UP, Reason.NO_DRIVER)), None),
            ((Absence(nic.STATE, Reason.NOT_FOUND),), None),
        ],
    )
    def test_the_card(self, items: tuple[Item, ...], card: Card | None) -> None:
        """Asleep, awake, with a link or only a cable in a cage, or not known."""
        told = _estimated(SPARK, *watts(gpu_nvml=5), *items)

        assert told.inputs
        assert card == told.inputs.card
        assert any("ConnectX-7" in one for one in _told(told.system).unknown) == (card is None)

    @pytest.mark.parametrize(("link", "known"), [("up", True), ("unknown", True), ("down", False)])
    def test_ethernet(self, link: str, known: bool) -> None:
        """A wired port without a link adds nothing at work."""
        told = _estimated(SPARK, *watts(gpu_nvml=5), Fact(nic.KIND, "ethernet", "e"), Fact(nic.LINK, link, "e"))

        assert told.inputs
        assert known is told.inputs.ethernet

    def test_a_gpu_that_is_lost_on_the_way(self) -> None:
        """The interval widens, and narrows when it is back."""
        widths = {
            t: _told(play(open_demo("driver-lost"), discover(), t, 1.0).estimate.system).width for t in (15.0, 25.0, 80)
        }

        assert widths[25.0] > 1.5 * widths[15.0]
        assert widths[80.0] < widths[15.0]


class TestScore:
    """Where the system is measured, the agent holds itself against that."""

    def test_a_measured_system_is_not_estimated(self) -> None:
        """What would have been estimated is not told in its place."""
        told = _estimated(SPARK, *watts(system=26, gpu_nvml=5), *_sleeping())

        assert "measured" in _why_none(told.system).detail
        assert told.score
        assert 0 == told.score.miss

    @pytest.mark.parametrize(("system", "low", "high"), [(240.0, 5.0, 240.0), (8.0, 5.0, 12.0)])
    def test_a_miss(self, system: float, low: float, high: float) -> None:
        """Is told in watts, above or below."""
        told = _estimated(SPARK, *watts(system=system, gpu_nvml=5), *_sleeping())

        assert told.score
        assert low < told.score.miss < high
        bound = told.score.against.upper if system > 100 else told.score.against.lower
        assert abs(system - bound) == pytest.approx(told.score.miss)

    def test_an_old_measurement_is_no_judge(self) -> None:
        """Nor is it replaced by an estimate."""
        told = _estimated(SPARK, *watts(system=26, gpu_nvml=5), ages={"spbm": 20.0})

        assert told.score is None
        assert isinstance(told.system, Unmeasured)

    def test_a_system_that_contradicts_itself_is_estimated(self) -> None:
        """A part above its whole is no measurement, so there is an estimate, and no score."""
        told = _estimated(SPARK, *watts(system=20, soc=60, gpu_nvml=5), *_sleeping())

        assert told.score is None
        assert _told(told.system).width > 0


class TestLaws:
    """Measured and estimated never share a name, and nothing rests on an estimate."""

    @pytest.mark.parametrize("name", demos())
    def test_nothing_rests_on_it(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Headroom, verdicts, findings and every other metric are the same whatever the estimate says."""
        snapshot = look(open_demo(name).host, discover())
        honest = report(snapshot)
        absurd = Interval(1.0, 999.0, 0.0, ())
        monkeypatch.setattr(reporting, "estimate", lambda *_: Estimate(absurd))
        twisted = report(snapshot)

        assert absurd == twisted.estimate.system
        assert (honest.power, honest.budget, honest.findings, honest.parts) == (
            twisted.power,
            twisted.budget,
            twisted.findings,
            twisted.parts,
        )
        assert _without_estimate(honest) == _without_estimate(twisted)
        assert _other_metrics(honest) == _other_metrics(twisted)

    @pytest.mark.parametrize(
        "path", [path for path in sorted((REPO / "agent").glob("*.py")) if path.name not in _MAY_ESTIMATE], ids=str
    )
    def test_who_judges_does_not_know_it(self, path: Path) -> None:
        """Budget, health, history, energy and what else judges import neither the estimate nor what it is made of."""
        modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}

        assert not {f"spark_agent.agent.{name}" for name in ("estimate", "terms")} & modules

    @pytest.mark.parametrize("name", demos())
    def test_it_never_poses_as_measured(self, name: str) -> None:
        """It has no value, only bounds, and says what it is; the scope is either measured or estimated."""
        found_ = document(demo_report(name))["power"]
        told = found_["estimate"]["system"]

        assert "value" not in told
        if told["lower"] is None:
            assert told["reason"]
        else:
            assert found_["scopes"]["system"]["value"] is None
            assert ("W", "system", "estimated") == (told["unit"], told["scope"], told["quality"])
            assert told["source"]
            assert told["age_seconds"] >= 0
            assert all(term["source"] for term in told["basis"])

    @pytest.mark.parametrize("name", demos())
    def test_metrics(self, name: str) -> None:
        """Bounds where the system is not measured, a score where it is, never both."""
        told = {family.metric: samples for family, samples in prometheus.families(demo_report(name)) if samples}
        names = {metric.removeprefix("gb10_system_power_estimate_") for metric in told if "estimate" in metric}

        assert names == ({"miss_watts"} if "gb10_system_power_watts" in told else {"lower_watts", "upper_watts"})

    @pytest.mark.parametrize("name", demos())
    def test_screen(self, name: str) -> None:
        """One line says that it is an estimate; there is none where the system is measured."""
        shown = screen(demo_report(name))

        assert ("system, estimated: " in shown) == (demo_report(name).power.watts(Scope.SYSTEM) is None)

    def test_a_screen_rounds_outward(self) -> None:
        """What is shown in whole watts still holds what is told in tenths."""
        told = _told(demo_report("fe-stock").estimate.system)

        assert f"system, estimated: {math.floor(told.lower)}–{math.ceil(told.upper)} W" in screen(
            demo_report("fe-stock")
        )

    @given(
        st.dictionaries(
            st.sampled_from(["system", "soc", "gpu_rail", "gpu_nvml", "dc_input"]), st.floats(0, 300, allow_nan=False)
        ),
        st.booleans(),
    )
    def test_any_look_makes_a_document(self, powers: dict[str, float], sleeps: bool) -> None:
        """Without NaN, with bounds in order, whatever the sensors say."""
        snapshot = found(SPARK, *watts(**powers), *HEALTHY, *(_sleeping() if sleeps else ()))
        told = json.loads(json.dumps(document(report(snapshot))["power"]["estimate"], allow_nan=False))

        if told["system"]["lower"] is not None:
            assert told["system"]["lower"] <= told["system"]["upper"] <= 240
        if told["score"]:
            assert 0 <= told["score"]["value"] <= 240

    def test_a_report_that_was_not_asked_says_so(self) -> None:
        """The default is no estimate, with a reason."""
        assert Reason.NOT_ASKED == _why_none(NONE.system).reason

    def test_a_score_holds_the_measurement(self) -> None:
        """With its source, so that the miss has one."""
        score = demo_report("fe-gemm").estimate.score

        assert isinstance(score, Score)
        assert isinstance(score.measured, Measured)
        assert "sys_total" in score.measured.source


def _without_estimate(of: Report) -> dict[str, Any]:
    whole = document(of)
    del whole["power"]["estimate"]
    return whole


def _other_metrics(of: Report) -> dict[str, Any]:
    return {
        family.metric: samples
        for family, samples in prometheus.families(of)
        if not family.name.startswith("gb10_system_power_estimate_")
    }
