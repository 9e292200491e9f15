"""A machine held at low power: found in each of its shapes, with the tier that is known of it, and nowhere else."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from looks import HEALTHY, OTHER, SPARK, at, gb10, limits, seconds, watched, watts

from spark_agent.agent.budget import Standing
from spark_agent.agent.finding import Finding, Severity
from spark_agent.agent.lowpower import LOW_SECONDS, PAUSE_SECONDS, STARVED_SECONDS, TOLD_PAUSE_SECONDS
from spark_agent.agent.machine import Identity, Machine, Step, open_demo
from spark_agent.agent.report import Report, report
from spark_agent.agent.sampler import play
from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import Fact, Item, Origin, Reading, cpu, discover, gpu
from spark_agent.collectors._tree import MemoryTree

pytestmark = pytest.mark.once

_IDS = ("capped_low", "limits_unpublished", "stuck_low_power", "cpu_held_low")


def _told(known: Report) -> dict[str, Finding]:
    return {finding.id: finding for finding in known.findings if finding.id in _IDS}


def _last(looks: Iterator[Snapshot] | list[Snapshot]) -> dict[str, Finding]:
    *_, last = watched(looks)
    return _told(last)


#: What is read of load and power.
_COLLECTORS = {name: read for name, read in discover().items() if name in ("gpu", "platform", "spbm")}

# --- replays ----------------------------------------------------------------------------------------------------------

_Moving = Callable[[int], dict[str, Any]]


def _calls(busy: float, megahertz: float, milliwatts: float, pstate: int = 0, reasons: int = 0) -> dict[str, Any]:
    """Return what NVML answers, in its own units."""
    return {
        "nvmlDeviceGetName": "NVIDIA GB10",
        "nvmlDeviceGetPowerUsage": milliwatts,
        "nvmlDeviceGetUtilizationRates": {"gpu": busy, "memory": 0},
        "nvmlDeviceGetClockInfo": {"SM": megahertz, "GRAPHICS": megahertz},
        "nvmlDeviceGetPerformanceState": pstate,
        "nvmlDeviceGetCurrentClocksEventReasons": reasons,
    }


def _replayed(moving: _Moving, until: int) -> dict[str, Finding]:
    """Play a stock Spark, of which NVML is all there is, up to a second, and return what is told then."""
    nvml = {"init": "SUCCESS", "system": {}, "devices": [moving(0)]}
    steps = tuple(Step(f"line {t}", float(t), {}, {}, moving(t)) for t in range(1, until + 1))
    machine = Machine(Identity("box", Origin.SYNTHETIC, "", 1000.0), MemoryTree(), nvml, [], steps)
    return _told(play(machine, _COLLECTORS, until, 1.0))


def _swaying(busy: float, megahertz: float, watts_: float, swing: int = 3) -> _Moving:
    """Return a load whose clock and power move a little, as they do."""
    return lambda t: _calls(busy, megahertz + swing * (t % 3 - 1), round(watts_ * 1000) + 10 * (t % 5))


# Published by owners of stuck machines: load, SM clock, power.
STUCK = {
    "799 MHz": (96, 799, 19.5),
    "721 MHz": (97, 721, 17.0),
    "611 MHz": (99, 611, 14.0),
    "513 MHz": (96, 513, 10.0),
    "550 MHz": (97, 550, 8.4),
    "850 MHz": (94, 850, 20.0),
    "640 MHz": (95, 640, 16.5),
    "495 MHz": (99, 495, 7.9),
}


@pytest.mark.parametrize("swing", [0, 3], ids=["still", "swaying"])
@pytest.mark.parametrize("machine", STUCK.values(), ids=STUCK)
def test_stuck_without_a_power_driver_is_probable(machine: tuple[float, float, float], swing: int) -> None:
    """After half a minute of load, whether its clock moves or stands still; the numbers are the evidence."""
    finding = _replayed(_swaying(*machine, swing=swing), 31)["stuck_low_power"]
    assert (Severity.WARNING, "the GPU is probably stuck at low power") == (finding.severity, finding.title)
    assert "31 s of load at an SM clock of " in finding.evidence[0]
    assert f"now {machine[0]}% busy with {machine[2]:.1f} W (nvml nvmlDeviceGetPowerUsage), P0" in finding.evidence
    assert "NVML's reason for the clock: none" in finding.evidence
    assert "a reboot alone does not help" in finding.action
    assert (swing == 0) == ("-lgc" in finding.evidence[-1]) == ("-rgc" in finding.action)


@pytest.mark.parametrize("demo", ["fe-wedged", "fe-wedged-enodata"], ids=["495 MHz", "ENODATA"])
def test_collapsed_limits_are_conclusive(demo: str) -> None:
    """At once, watched or not; and the load says nothing more to it."""
    for until in (0.0, 60.0):
        known = _told(play(open_demo(demo), _COLLECTORS, until, 1.0))
        assert {"capped_low": Severity.CRITICAL} == {id_: finding.severity for id_, finding in known.items()}


HEALTHY_LOADS: dict[str, _Moving] = {
    "2150 MHz at the package's limit": _swaying(97, 2150, 89.8),
    "2236 MHz": _swaying(97, 2236, 71.9),
    "2395 MHz decoding": _swaying(94, 2395, 46.0),
    "2418 MHz, little power": _swaying(95, 2418, 36.0),
    "idle in P0": _swaying(0, 2411, 11.2),
    "idle in P8": lambda _: _calls(0, 208, 4900, pstate=8, reasons=0x1),
    "P8, and a busy display": lambda _: _calls(95, 208, 4900, pstate=8),
    "P8 with a power cap that means nothing": lambda _: _calls(0, 208, 4100, pstate=8, reasons=0x4),
    "locked at 2000 MHz": lambda _: _calls(95, 1989, 36_700),
    "hot, and NVML says so": lambda _: _calls(98, 1100, 35_000, reasons=0x20),
    "locked low, and NVML says so": lambda _: _calls(98, 700, 15_000, reasons=0x2),
    "short kernels": lambda t: _calls(96 if t % 2 else 40, 600 if t % 2 else 2400, 25_000),
    "short kernels, always busy": lambda t: _calls(96, 600 if t % 4 else 2400, 25_000),
    "work for 25 s in a minute": lambda t: _calls(96, 800, 20_000) if t % 60 < 25 else _calls(0, 2411, 11_000),
    "waking up for 20 s": lambda t: _calls(96, 1200 if t < 20 else 2300, 30_000),
    "half busy at a low clock": _swaying(60, 700, 15.0),
}


@pytest.mark.parametrize("moving", HEALTHY_LOADS.values(), ids=HEALTHY_LOADS)
@pytest.mark.parametrize("until", [31, 125])
def test_a_healthy_machine_is_not(moving: _Moving, until: int) -> None:
    """Whatever its load."""
    assert {} == _replayed(moving, until)


def test_no_demo_that_is_healthy_is() -> None:
    """Played for a minute."""
    for name in ("dell-cx7", "fe-gemm", "fe-idle", "fe-stock", "gx10-asleep", "spbm-0.1"):
        assert {} == _told(play(open_demo(name), _COLLECTORS, 60.0, 1.0)), name


# --- one look ---------------------------------------------------------------------------------------------------------


def test_one_look_only_says_that_it_may_be() -> None:
    """Information, with the command that decides: an exit code of 0, for half a minute is not known."""
    finding = _told(report(at(0, *gb10(0.96, 799, 19.5))))["stuck_low_power"]
    assert Severity.INFO is finding.severity
    assert "the GPU may be stuck at low power; `spark-agent doctor --for 60` decides" == finding.title
    assert "SM clock 799 MHz under load" in finding.evidence[0]


def test_one_look_at_a_healthy_machine_says_nothing() -> None:
    """Nor does one at an idle one."""
    assert {} == _told(report(at(0, *gb10(0.96, 2395, 46)))) == _told(report(at(0, *gb10(0, 208, 5, pstate="P8"))))


# --- for how long -----------------------------------------------------------------------------------------------------

_LOW: tuple[Item, ...] = gb10(0.96, 799, 19.5)
_IDLE: tuple[Item, ...] = gb10(0.0, 2411, 11)
_WELL: tuple[Item, ...] = gb10(0.97, 2395, 46)


def test_it_takes_half_a_minute() -> None:
    """Not a second less."""
    told = ["stuck_low_power" in _told(one) for one in watched(seconds(0, 60, *_LOW))]
    assert [False] * int(LOW_SECONDS) + [True] * (60 - int(LOW_SECONDS)) == told


def test_a_pause_does_not_count() -> None:
    """Between two requests there is no load: what is counted is load, and a pause of some seconds ends nothing."""
    looks = [*seconds(0, 20, *_LOW), *seconds(20, 20 + int(PAUSE_SECONDS), *_IDLE)]
    assert "stuck_low_power" in _last([*looks, *seconds(30, 42, *_LOW)])
    assert "stuck_low_power" not in _last([*looks, *seconds(30, 41, *_LOW)])


def test_a_longer_pause_begins_anew() -> None:
    """What was before may be over."""
    looks = [*seconds(0, 25, *_LOW), *seconds(25, 37, *_IDLE), *seconds(37, 60, *_LOW)]
    assert {} == _last(looks)


def test_a_healthy_clock_ends_it_at_once() -> None:
    """Also once it is told; then half a minute must pass again."""
    assert {} == _last([*seconds(0, 50, *_LOW), *seconds(50, 51, *_WELL)])
    assert {} == _last([*seconds(0, 29, *_LOW), *seconds(29, 30, *_WELL), *seconds(30, 59, *_LOW)])


def test_once_told_it_waits_for_load_that_says_otherwise() -> None:
    """Idle, nobody knows whether it is over; but not for ever."""
    told = [*seconds(0, 40, *_LOW), *seconds(40, 500, *_IDLE)]
    evidence = _last(told)["stuck_low_power"].evidence
    assert "seen last 460 s ago; since then there has been too little load to tell" in evidence
    assert not any(line.startswith("now") for line in evidence)
    assert {} == _last([*told, *seconds(500, 40 + int(TOLD_PAUSE_SECONDS) + 1, *_IDLE)])


def test_a_gap_ends_it() -> None:
    """What was in between nobody knows."""
    looks = [*seconds(0, 50, *_LOW), at(81, *_LOW)]
    assert {} == _last(looks)


def test_what_is_late_is_not_counted() -> None:
    """A driver that does not answer repeats its last words, which say nothing of now."""
    fresh = at(0, *_LOW)
    looks = [Snapshot("t", Origin.SYNTHETIC, "", float(t), float(t), fresh.visits) for t in range(60)]
    assert {} == _last(looks)


@given(st.lists(st.sampled_from([_LOW, _IDLE, _WELL]), min_size=1, max_size=80))
def test_it_is_told_only_of_half_a_minute_of_nothing_else(loads: list[tuple[Item, ...]]) -> None:
    """Where it is told, the looks since the last healthy one hold that much load at a low clock."""
    reports = list(watched(at(float(t), *load) for t, load in enumerate(loads)))
    since = 0
    for t, (load, one) in enumerate(zip(loads, reports, strict=True)):
        since = t + 1 if load is _WELL else since
        if "stuck_low_power" in _told(one):
            assert loads[since : t + 1].count(_LOW) > LOW_SECONDS


# --- what looks like it -----------------------------------------------------------------------------------------------


def test_a_clock_that_stands_still_above_all_that_was_seen_may_be_locked() -> None:
    """1200 MHz to the megahertz is rather a lock than a stuck machine: information, with both ways out."""
    finding = _last(seconds(0, 60, *gb10(0.97, 1200, 24)))["stuck_low_power"]
    assert (Severity.INFO, "the GPU's clock stands still at 1200 MHz under load: locked, or stuck") == (
        finding.severity,
        finding.title,
    )
    assert "`sudo nvidia-smi -rgc`" in finding.action
    assert "take the power adapter" in finding.action
    swaying = [at(t, *gb10(0.97, 1200 + t % 2, 24)) for t in range(60)]
    assert Severity.WARNING is _last(swaying)["stuck_low_power"].severity


def test_at_the_packages_limit_the_cpu_may_have_the_power() -> None:
    """With PL1 used up the GPU's clock may well be low: that is the limit, and no fault."""
    power = watts(system=170, soc=140, pl1=139.8, gpu_rail=35)
    looks = [at(t, *gb10(0.97, 1100 + t % 3, 30), *power, *HEALTHY) for t in range(60)]
    assert {} == _last(looks)


def test_healthy_limits_are_said() -> None:
    """Then it is not the collapse of limits, whatever else it is."""
    power = watts(system=40, soc=25, gpu_rail=12)
    looks = [at(t, *gb10(0.97, 700 + t % 3, 11), *power, *HEALTHY) for t in range(60)]
    finding = _last(looks)["stuck_low_power"]
    assert any("PL1 (SoC, sustained) is 140 W, so it is not the collapse" in line for line in finding.evidence)


def test_collapsed_limits_say_it_alone() -> None:
    """One fault, one finding."""
    low = (*watts(soc=19.7), *limits(pl1=20, pl2=20))
    assert {"capped_low"} == set(_last([at(t, *_LOW, *low) for t in range(60)]))


def test_elsewhere_nothing_is_known_of_clocks() -> None:
    """A graphics card of a PC may run at 799 MHz as it likes."""
    other = tuple(OTHER if item is SPARK else item for item in _LOW)
    assert {} == _last(seconds(0, 60, *other)) == _told(report(at(0, *other)))


@pytest.mark.parametrize("of", [gpu.UTILIZATION, gpu.CLOCK, gpu.POWER])
def test_without_one_of_its_readings_nothing_is_said(of: object) -> None:
    """Load, clock and power belong together."""
    assert {} == _last(seconds(0, 60, *(item for item in _LOW if item.of is not of)))


def test_reasons_that_cannot_be_read_are_said_to_be_so() -> None:
    """They are no evidence either way."""
    looks = seconds(0, 60, *(item for item in _LOW if item.of is not gpu.EVENTS))
    assert "NVML shows no clock-event reasons here at all" in _last(looks)["stuck_low_power"].evidence


# --- as a verdict -----------------------------------------------------------------------------------------------------


def _starved(until: int, megahertz: float = 790, power: float = 19.5) -> list[Snapshot]:
    return [at(t, *gb10(0.96, megahertz + t % 5, power)) for t in range(until)]


def test_ten_minutes_below_800_mhz_are_a_verdict() -> None:
    """Power, load and clock by themselves: `capped_low`, and no second finding beside it."""
    reports = list(watched(_starved(int(STARVED_SECONDS) + 1)))
    assert [Standing.WITHIN, Standing.CAPPED_LOW] == [one.budget.verdicts["gpu"].standing for one in reports[-2:]]
    verdict = reports[-1].budget.verdicts["gpu"]
    assert verdict.conclusive
    assert "under load below 800 MHz and 25 W for 10 min" == verdict.reason
    finding = _told(reports[-1])["capped_low"]
    assert Severity.CRITICAL is finding.severity
    assert "the GPU has been held at a fraction of its power under load" == finding.title
    assert {"capped_low"} == set(_told(reports[-1]))


@pytest.mark.parametrize(("megahertz", "power"), [(846, 20), (790, 25)])
def test_above_it_is_no_verdict(megahertz: float, power: float) -> None:
    """850 MHz, or 25 W, stay probable for as long as it lasts."""
    *_, last = watched(_starved(700, megahertz, power))
    assert Standing.WITHIN is last.budget.verdicts["gpu"].standing
    assert {"stuck_low_power"} == set(_told(last))


def test_a_clock_that_stands_still_is_no_certain_verdict() -> None:
    """Somebody may have locked it: a warning, with the way out of a lock."""
    *_, last = watched(seconds(0, 700, *gb10(0.96, 700, 15)))
    assert not last.budget.verdicts["gpu"].conclusive
    finding = _told(last)["capped_low"]
    assert Severity.WARNING is finding.severity
    assert "-rgc" in finding.action


def test_a_verdict_ends_with_a_healthy_clock() -> None:
    """At once."""
    *_, last = watched([*_starved(700), at(700, *_WELL)])
    assert Standing.WITHIN is last.budget.verdicts["gpu"].standing
    assert {} == _told(last)


def test_what_comes_first_stays() -> None:
    """A GPU whose power cannot be true has no other verdict."""
    items = tuple(item for item in gb10(0.96, 700, 0.0))
    *_, last = watched(seconds(0, 700, *items))
    assert Standing.IMPOSSIBLE is last.budget.verdicts["gpu"].standing


# --- performance cores ------------------------------------------------------------------------------------------------


def _cores(t: int, busy: int, soc: float, *, pace: int = 5) -> Snapshot:
    """Return a look at a Spark with so many of its ten performance cores busy, whose times are read now and then."""
    read_at = float(t - t % pace)
    times: list[Item] = [Reading(cpu.BUSY, read_at * (core < busy), str(core), at=read_at) for core in range(10)]
    slow: list[Item] = [Reading(cpu.BUSY, read_at, "10", at=read_at), Fact(cpu.CORE_TYPE, "efficiency", "10")]
    types = [Fact(cpu.CORE_TYPE, "performance", str(core)) for core in range(10)]
    return at(t, SPARK, *watts(soc=soc), *times, *slow, *types)


def test_busy_cores_and_no_power() -> None:
    """One owner's machine: the package pinned at 20 W, whatever its performance cores do."""
    finding = _last([_cores(t, 10, 19.6 + t % 7 * 0.3) for t in range(60)])["cpu_held_low"]
    assert Severity.WARNING is finding.severity
    assert "10.0 performance cores are busy; all ten draw some 64 W alone" in finding.evidence
    assert "take the power adapter" in finding.action


@pytest.mark.parametrize(
    ("busy", "soc"), [(10, 92.0), (4, 40.0), (3, 20.0), (0, 17.0), (0, 19.7), (10, 22.5), (10, 18.0)]
)
def test_a_healthy_package_draws_what_its_cores_need(busy: int, soc: float) -> None:
    """And an idle one little."""
    assert {} == _last([_cores(t, busy, soc) for t in range(90)])


def test_performance_cores_are_not_told_of_in_one_look() -> None:
    """Times say something only between two readings."""
    assert {} == _told(report(_cores(50, 10, 20.0)))
