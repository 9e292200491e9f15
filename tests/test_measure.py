"""What is told of a command, from looks in a window and from the accounts of energy: no process, no clock."""

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from looks import SPARK, found, watts
from rich.cells import cell_len
from rich.console import Console

from spark_agent.agent.energy import Energy, Method
from spark_agent.agent.measure import (
    SCOPES,
    Account,
    Estimated,
    Interval,
    Measurement,
    Outcome,
    Peak,
    Per,
    Span,
    Window,
    parse_per,
)
from spark_agent.agent.power import Measured, Unmeasured, understand
from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import Fact, Item, Origin, Quality, Reading, Reason, Scope, cpu, gpu
from spark_agent.exporters.measurement import document, schema, show, text

WHY: Final = Unmeasured(Reason.NO_DRIVER, "no driver for it")


def look(at: float, *items: Item, ages: Mapping[str, float] | None = None) -> Snapshot:
    """Return one look at a Spark at a second of its clock, some collectors that many seconds before."""
    snapshot = found(SPARK, *items)
    visits = tuple(replace(visit, at=at - (ages or {}).get(visit.collector, 0.0)) for visit in snapshot.visits)
    return replace(snapshot, at=at, visits=visits)


def window(*looks: Snapshot, interval: Interval | Unmeasured | None = None) -> Span:
    """Return what these looks say."""
    told = Window()
    for snapshot in looks:
        told.note(snapshot, understand(snapshot), interval)
    return told.span()


def energy(scope: Scope, joules: float, covered: float = 10.0, **more: Any) -> Energy:
    """Return an account of energy."""
    how: dict[str, Any] = {
        "method": Method.COUNTER,
        "source": f"a counter of {scope}",
        "age": 0.05,
        "uncovered_seconds": 0.0,
        "resets": 0,
    }
    return Energy(scope=scope, joules=joules, covered_seconds=covered, **how | more)


def span(*energies: Energy, seconds: float = 10.0, **more: Any) -> Span:
    """Return a window with these accounts, and a peak for each of a tenth above its mean."""
    accounts = {one.scope: one for one in energies}
    peaks = {
        one.scope: Peak(1.1 * one.joules / one.covered_seconds, "instant", Quality.MEASURED, "a sensor", seconds / 2)
        for one in energies
    }
    absent = {scope: WHY for scope in SCOPES if scope not in accounts}
    known: dict[str, Any] = {"estimated": WHY, "gpu_busy": None, "busy_cores": None, "is_spark": True}
    return Span(0.0, seconds, 101, 0, accounts, peaks, absent, **known | more)


def measurement(told: Span, baseline: Span | None = None, per: Per | None = None, status: int = 0) -> Measurement:
    """Return the measurement of a command that ran for the whole window."""
    outcome = Outcome(("bench", "a b"), status, told.seconds, 1_800_000_000.0)
    return Measurement("test", Origin.SYNTHETIC, "", 0.1, outcome, told, baseline, per)


def account(of: Measurement, scope: Scope) -> Account:
    """Return one scope's account."""
    return next(one for one in of.accounts if one.scope is scope)


def value(known: Measured | Unmeasured | None) -> float:
    """Return the number; fail where there is none."""
    assert isinstance(known, Measured), known
    return known.value


def why(known: Measured | Estimated | Unmeasured | None) -> str:
    """Return why there is no number; fail where there is one."""
    assert isinstance(known, Unmeasured), known
    return known.detail


def screen(of: Measurement, width: int = 80) -> str:
    """Return the table as text."""
    out = io.StringIO()
    show(of, Console(file=out, width=width, highlight=False, markup=False, emoji=False))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


# --- a window ---------------------------------------------------------------------------------------------------------


def test_a_steady_power_is_integrated() -> None:
    """100 W for 10 s are 1000 J; the mean is joules over the seconds that they cover."""
    told = window(*(look(100 + t / 10, *watts(system=100.0)) for t in range(101)))
    one = account(measurement(told), Scope.SYSTEM)
    assert 1000 == pytest.approx(value(one.energy))
    assert 100 == pytest.approx(value(one.mean))
    assert (Method.INTEGRATED, 101) == (one.method, told.looks)
    assert 10 == pytest.approx(one.covered_seconds) == pytest.approx(told.seconds)


def test_a_counter_is_taken_where_there_is_one() -> None:
    """NVML's counter stood 230 J higher after 5 s, whatever the samples between them were."""
    counter = {t: Reading(gpu.ENERGY, 1000 + 46.0 * t, "0") for t in (0, 5)}
    told = window(look(100, *watts(gpu_nvml=5.0), counter[0]), look(105, *watts(gpu_nvml=46.0), counter[5]))
    one = account(measurement(told), Scope.GPU_NVML)
    assert Method.COUNTER is one.method
    assert 230 == pytest.approx(value(one.energy))
    assert 46 == pytest.approx(value(one.mean))


@pytest.mark.parametrize("seconds", [0.03, 5.0])
def test_a_counter_that_did_not_move_is_no_energy(seconds: float) -> None:
    """Never 0 J: nothing is known of a command that ended before the counter moved, where no power is read either."""
    counter = Reading(gpu.ENERGY, 1000.0, "0")
    told = window(*(look(100 + t, counter) for t in (0, seconds)))
    one = account(measurement(told, per=Per(10, "tokens")), Scope.GPU_NVML)
    assert f"no reading moved in {seconds:.2f} s" == why(one.energy) == why(one.mean) == why(one.each)
    assert not one.is_known


def test_one_look_is_no_energy() -> None:
    """Of a single moment there are no joules, and no mean."""
    one = account(measurement(window(look(100, *watts(system=100.0)))), Scope.SYSTEM)
    assert why(one.energy) == why(one.mean) == "no reading moved in 0.00 s"
    assert not one.is_known


def test_what_was_drawn_before_is_no_peak() -> None:
    """The look before the command begins, and one that is told once more by a driver that hangs, are not of it."""
    told = window(
        look(100, *watts(system=170.0)),
        look(100.2, *watts(system=170.0), ages={"spbm": 0.2}),
        look(100.4, *watts(system=90.0)),
        look(100.6, *watts(system=80.0)),
    )
    peak = account(measurement(told), Scope.SYSTEM).peak
    assert (90.0, ("instant",)) == (value(peak), peak.labels if isinstance(peak, Measured) else None)


@pytest.mark.parametrize(("instant", "peak", "of"), [(None, 46.0, "average"), (88.0, 88.0, "instant")])
def test_a_peak_says_of_what_it_is_one(instant: float | None, peak: float, of: str) -> None:
    """NVML's usual power is a mean of about a second, which hides a short peak."""
    now = [] if instant is None else [Reading(gpu.POWER, instant, "0", ("instant",))]
    told = measurement(window(look(100, *watts(gpu_nvml=40.0)), look(101, *watts(gpu_nvml=46.0), *now)))
    highest = account(told, Scope.GPU_NVML).peak
    assert (peak, (of,)) == (value(highest), highest.labels if isinstance(highest, Measured) else None)
    assert ("peak of a 1 s average" in screen(told)) == (of == "average")


def test_of_several_gpus_the_sum_is_told() -> None:
    """Not the first one's instant for all of them."""
    powers = [
        Reading(gpu.POWER, 100.0 + 50 * number, str(number), (of,))
        for number in range(2)
        for of in ("average", "instant")
    ]
    told = measurement(window(look(100, *powers), look(101, *powers)))
    assert 250 == value(account(told, Scope.GPU_NVML).peak)


def test_the_estimate_is_a_mean_of_watts() -> None:
    """Its bounds over the time that it was known; no scope gets a joule of it."""
    told = Window()
    then, now = Interval(30, 100, "terms", "a lamp"), Interval(50, 120, "terms", "a lamp")
    for at, interval in ((100, then), (101, now), (103, WHY), (104, WHY)):
        snapshot = look(at, *watts(gpu_nvml=46.0))
        told.note(snapshot, understand(snapshot), interval)
    span_ = told.span()
    assert Estimated(40, 110, 1.0, "terms", "a lamp", 3.0) == span_.estimated
    assert Scope.SYSTEM not in span_.energies
    assert "system, estimated: 40–110 W on average, without a lamp; not measured" in screen(measurement(span_))


def test_no_estimate_has_a_reason() -> None:
    """Nobody made one, it takes two looks, or the one who makes it says why not."""
    assert "nobody estimated it" == why(window(look(100), look(101)).estimated)
    assert "it takes two looks" == why(window(look(100), interval=Interval(30, 100, "terms")).estimated)
    assert WHY == window(look(100), look(101), interval=WHY).estimated


def test_how_busy_it_was_is_known() -> None:
    """The GPU by its mean utilisation, the cores by the times that the kernel counts for them."""
    times = {at: [Reading(cpu.BUSY, 10 + at * core, str(core)) for core in (0, 1)] for at in (0, 2, 4)}
    told = window(
        *(
            look(100 + at, Reading(gpu.UTILIZATION, share, "0"), *times[at])
            for at, share in ((0, 0.0), (2, 0.5), (4, 1.0))
        )
    )
    assert 0.5 == pytest.approx(told.gpu_busy)
    assert 1.0 == pytest.approx(told.busy_cores)


def test_a_core_that_went_offline_takes_its_times_with_it() -> None:
    """So nothing is told of the cores."""
    of_two = [Reading(cpu.BUSY, 10.0, str(core)) for core in (0, 1)]
    told = window(look(100, *of_two), look(101, of_two[0]))
    assert told.busy_cores is None


def test_a_window_without_a_look_says_nothing() -> None:
    """It is no measurement."""
    with pytest.raises(ValueError, match="without a look"):
        Window().span()


# --- less the idle machine, and per unit ------------------------------------------------------------------------------


def test_the_idle_machine_is_taken_off_for_the_same_seconds() -> None:
    """1000 J in 10 s, of which it would have drawn 250 J doing nothing."""
    one = account(
        measurement(span(energy(Scope.SYSTEM, 1000)), span(energy(Scope.SYSTEM, 125, 5.0), seconds=5)), Scope.SYSTEM
    )
    assert one.net
    assert (1000, 25, 750, 75) == tuple(map(value, (one.energy, one.net.idle, one.net.energy, one.net.mean)))
    assert isinstance(one.net.energy, Measured)
    assert Quality.DERIVED is one.net.energy.quality
    assert "less 25.00 W measured in the 5.0 s before" in one.net.energy.source


def test_less_than_the_idle_machine_is_no_net() -> None:
    """A negative energy would be the noise of two measurements, or a machine that was not idle."""
    told = measurement(span(energy(Scope.SYSTEM, 240)), span(energy(Scope.SYSTEM, 250)), Per(1000, "tokens"))
    net = account(told, Scope.SYSTEM).net
    assert net
    assert "not above idle: 24.00 W with the command, 25.00 W before it" == why(net.energy) == why(net.each)
    assert "not above idle" in screen(told)


def test_no_baseline_for_a_scope_is_no_net() -> None:
    """Gross is told all the same, and net says why not."""
    told = measurement(span(energy(Scope.SYSTEM, 240)), span(energy(Scope.GPU_NVML, 50)))
    net = account(told, Scope.SYSTEM).net
    assert net
    assert WHY.detail == why(net.idle) == why(net.energy)
    assert not document(told)["scopes"]["system"]["net"]["idle_subtracted"]
    assert WHY.detail in screen(told)


def test_a_share_is_joules_for_each_and_each_for_a_joule() -> None:
    """500 J for 1000 tokens, of which 250 J net."""
    told = measurement(span(energy(Scope.SYSTEM, 500)), span(energy(Scope.SYSTEM, 250)), Per(1000, "tokens"))
    one = account(told, Scope.SYSTEM)
    assert one.net
    assert (0.5, 2.0, 0.25, 4.0) == tuple(map(value, (one.each, one.per_joule, one.net.each, one.net.per_joule)))
    assert isinstance(one.each, Measured)
    assert isinstance(one.per_joule, Measured)
    assert ("J/{tokens}", "{tokens}/J") == (one.each.unit, one.per_joule.unit)
    assert "as told by the user" in one.each.source
    assert "0.5000     2.000      0.2500         4.000" in screen(told)


def test_a_part_of_the_joules_is_not_shared_among_all_units() -> None:
    """Where 3 of 10 s are not covered, J/token would come out too low; the joules themselves say what they cover."""
    told = measurement(span(energy(Scope.SYSTEM, 700, 7.0)), span(energy(Scope.SYSTEM, 250)), Per(1000, "tokens"))
    one = account(told, Scope.SYSTEM)
    assert one.net
    assert 700 == value(one.energy)
    assert 3 == pytest.approx(one.uncovered_seconds)
    assert "3.0 of 10.0 s are not covered, so the joules are not of all units" == why(one.each) == why(one.net.each)
    assert (
        "3.0 of 10.0 s are not covered (system): the joules are of the rest, and the true ones are more" in told.notes
    )


@pytest.mark.parametrize(("given", "count", "unit"), [("1000:tokens", 1000, "tokens"), ("1e6: a:b ", 1e6, "a:b")])
def test_units_are_a_number_and_a_name(given: str, count: float, unit: str) -> None:
    """The first colon parts them."""
    assert Per(count, unit) == parse_per(given)


@pytest.mark.parametrize(
    "given",
    ["", "1000", ":tokens", "1000:", "1000: ", "tokens:1000", "0:t", "-1:t", "nan:t", "inf:t", "1e999:t", "1:\x1b[2J"],
)
def test_nonsense_is_no_number_of_units(given: str) -> None:
    """Each is refused with what it is."""
    with pytest.raises(ValueError, match=r"is no|is not|must be above 0"):
        parse_per(given)


@pytest.mark.parametrize("unit", [41 * "t", "{t}", "t}"])
def test_a_unit_that_cannot_be_written_is_refused(unit: str) -> None:
    """UCUM puts it into braces."""
    with pytest.raises(ValueError, match="is no name for a unit"):
        parse_per(f"1:{unit}")


# --- what must be known of the numbers --------------------------------------------------------------------------------


def test_the_gpu_alone_is_not_the_box() -> None:
    """The plain sentence, where no other power was measured; and what NVML is known for on a Spark."""
    told = measurement(span(energy(Scope.GPU_NVML, 460)))
    assert told.notes[0].startswith("this is the GPU alone, not the box")
    assert "NVML may read low" in told.notes[1]
    assert "This is the GPU alone, not the box" in screen(told)
    assert document(told)["gpu_only"]
    assert 1 == len(replace(told, span=replace(told.span, is_spark=False)).notes)


@pytest.mark.parametrize(
    ("scopes", "says"),
    [
        ((), "nothing measures power here"),
        ((Scope.GPU_RAIL, Scope.GPU_NVML), "this is the GPU alone"),
        ((Scope.SOC, Scope.GPU_NVML), "these are parts, not the box"),
        ((Scope.SYSTEM, Scope.GPU_NVML), ""),
        ((Scope.DC_INPUT,), ""),
    ],
)
def test_what_the_scopes_are_of_is_said(scopes: tuple[Scope, ...], says: str) -> None:
    """A part never poses as the whole."""
    told = measurement(span(*(energy(scope, 500) for scope in scopes)))
    assert says in " ".join(told.notes)
    assert bool(says) == bool(told.notes)
    assert document(told)["gpu_only"] == ("GPU alone" in says)


def test_a_short_command_is_not_measured_exactly() -> None:
    """One step of the counter is a tenth of a second."""
    short = measurement(span(energy(Scope.SYSTEM, 50, 0.5), seconds=0.5))
    assert [
        "0.50 s is too short to be exact, as counters move about every 100 ms: let the command do its work many "
    ] == [note[:103] for note in short.notes]
    assert () == measurement(span(energy(Scope.SYSTEM, 1000))).notes


def test_a_reset_is_said() -> None:
    """The joules from before it are not lost, and not doubled, but somebody should know."""
    assert "the counter of gpu_nvml began anew 1 times" in " ".join(
        measurement(span(energy(Scope.SYSTEM, 10), energy(Scope.GPU_NVML, 10, resets=1))).notes
    )


@pytest.mark.parametrize(
    ("gpu_busy", "cores", "says"),
    [
        (0.0, 0.3, None),
        (None, None, None),
        (0.94, 0.3, "the GPU was busy 94% of the time"),
        (0.0, 3.2, "3.2 cores were at work"),
        (0.94, 3.2, "the GPU was busy 94% of the time and 3.2 cores were at work"),
    ],
)
def test_a_baseline_of_a_machine_at_work_is_none(gpu_busy: float | None, cores: float | None, says: str | None) -> None:
    """What is subtracted then is somebody's work."""
    baseline = span(energy(Scope.SYSTEM, 300), gpu_busy=gpu_busy, busy_cores=cores)
    notes = measurement(span(energy(Scope.SYSTEM, 1000)), baseline).notes
    assert ((f"the baseline is not of an idle machine: {says}",) if says else ()) == notes


# --- how it is told ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "name"), [(0, 0, None), (3, 3, None), (-9, 137, "SIGKILL"), (-2, 130, "SIGINT")]
)
def test_how_the_command_ended_is_told(status: int, code: int, name: str | None) -> None:
    """As a shell has it, with the signal's name."""
    told = measurement(span(energy(Scope.SYSTEM, 1000)), status=status)
    command = document(told)["command"]
    assert (code, name, ["bench", "a b"]) == (command["exit_code"], command["signal"], command["arguments"])
    assert (f"killed by {name}" if name else f"exit code {code}") in screen(told)
    assert "bench 'a b'" in screen(told)


def test_a_signal_without_a_name_has_a_number() -> None:
    """Real-time signals have none."""
    assert "signal 40" == Outcome(("x",), -40, 1.0, 0.0).signal


def test_an_argument_of_any_bytes_can_be_told() -> None:
    """One that is no UTF-8, and one that would move the cursor."""
    told = measurement(span(energy(Scope.SYSTEM, 1000)))
    told = replace(told, outcome=replace(told.outcome, arguments=("\udcff", "\x1b[2J")))
    assert json.loads(text(told))
    assert "\x1b" not in screen(told)


_JOULES = st.floats(1e-6, 1e9)
_SECONDS = st.floats(0.01, 1e6)


@st.composite
def _spans(draw: st.DrawFn) -> Span:
    seconds = draw(_SECONDS)
    energies = {
        scope: energy(
            scope,
            draw(_JOULES),
            seconds * draw(st.floats(0.01, 1.05)),
            method=draw(st.sampled_from(Method)),
            age=draw(st.floats(0, 1e5)),
            resets=draw(st.integers(0, 3)),
        )
        for scope in draw(st.sets(st.sampled_from(SCOPES)))
    }
    bounds = sorted((draw(st.floats(0, 300)), draw(st.floats(0, 300))))
    estimated = draw(st.sampled_from([WHY, Estimated(bounds[0], bounds[1], seconds, "terms", "", 0.0)]))
    busy = draw(st.none() | st.floats(0, 1))
    return span(*energies.values(), seconds=seconds, estimated=estimated, gpu_busy=busy, busy_cores=busy)


_MEASUREMENTS = st.builds(
    measurement,
    _spans(),
    st.none() | _spans(),
    st.none() | st.builds(Per, st.floats(1e-300, 1e300), st.sampled_from(["tokens", "Bild/er", "µ"])),
    st.integers(-64, 255),
)


def _closed(found_: Any) -> Any:
    """Return a schema that refuses what it does not name."""
    if isinstance(found_, dict):
        closed = {key: _closed(one) for key, one in found_.items()}
        return closed | {"additionalProperties": False} if "properties" in closed else closed
    return [_closed(one) for one in found_] if isinstance(found_, list) else found_


CHECKER: Final = jsonschema.Draft202012Validator(_closed(schema()))


def _quantities(found_: Any) -> Iterator[dict[str, Any]]:
    if isinstance(found_, dict):
        if "value" in found_:
            yield found_
        for one in found_.values():
            yield from _quantities(one)


@given(_MEASUREMENTS)
def test_no_number_leaves_without_what_belongs_to_it(told: Measurement) -> None:
    """Scope, quality, source, age; or a reason. No NaN; no estimate among what was measured; the schema holds."""
    whole = json.loads(text(told), parse_constant=lambda name: pytest.fail(name))
    CHECKER.validate(whole)
    for quantity in _quantities(whole):
        if quantity["value"] is None:
            assert quantity["reason"]
        else:
            assert {"unit", "scope", "quality", "source", "age_seconds"} <= quantity.keys()
            assert "estimated" != quantity["quality"]
            assert math.isfinite(quantity["value"])
    for scope, scoped in whole["scopes"].items():
        assert {scope} >= {quantity["scope"] for quantity in _quantities(scoped) if quantity["value"] is not None}


@given(_MEASUREMENTS)
def test_the_sums_hold(told: Measurement) -> None:
    """Net and idle are gross; the shares of all units are the whole; none is negative."""
    for one in told.accounts:
        if isinstance(one.energy, Unmeasured):
            continue
        if one.net and isinstance(one.net.energy, Measured):
            idle = value(one.net.idle) * one.covered_seconds
            assert value(one.energy) == pytest.approx(one.net.energy.value + idle, rel=1e-6)
            assert one.net.energy.value > 0
        if told.per and isinstance(one.each, Measured):
            assert value(one.energy) == pytest.approx(one.each.value * told.per.count)
            assert value(one.energy) == pytest.approx(told.per.count / value(one.per_joule))


@settings(max_examples=30)
@given(_MEASUREMENTS, st.sampled_from([40, 80, 200]))
def test_the_table_can_always_be_shown(told: Measurement, width: int) -> None:
    """Within the terminal, each cell of a power or energy that is there with its unit."""
    shown = screen(told, width)
    assert [] == [line for line in shown.splitlines() if cell_len(line) > width]
    assert "nan" not in shown


def test_the_kernel_is_not_needed_for_a_fact() -> None:
    """A look without any power is a window too."""
    told = measurement(window(look(100, Fact(gpu.NAME, "NVIDIA GB10", "0")), look(101)))
    assert ("nothing measures power here",) == told.notes
    assert "Energy and power" not in screen(told)
