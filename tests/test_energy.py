"""The account of energy, held against a machine whose true energy is known, through all that may happen to it."""

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_agent.agent.account import Account, Register, Sample, count, integrate
from spark_agent.agent.energy import (
    CHECK_SECONDS,
    COVERED,
    GAP_SECONDS,
    Accounts,
    Energy,
    Meter,
    Method,
    readings,
)
from spark_agent.agent.power import Unmeasured, understand
from spark_agent.agent.snapshot import Snapshot, Status, Visit
from spark_agent.collectors import Fact, Item, Origin, Reading, Reason, Scope, boot, gpu, platform, spbm

HOUR: Final = 3600.0
WRAP: Final = spbm.REGISTER_WRAP_JOULES
FIRMWARE: Final = (Scope.SOC, Scope.CPU_PERFORMANCE, Scope.CPU_EFFICIENCY, Scope.GPU_RAIL)


@dataclass
class World:
    """A Spark of which everything is known: what it draws, and what its clocks and registers then say.

    ``true`` is what each scope drew, in joules, since the beginning; ``time`` is when it is, in seconds that no clock
    shows: they go on while the machine is off or asleep.
    """

    swing: float = 0.0
    registers: dict[Scope, float] = field(default_factory=lambda: dict.fromkeys(FIRMWARE, 4e6))
    nvml: float = 1000.0
    time: float = 0.0
    clock: float = 5000.0
    uptime: float = 5000.0
    boot: int = 0
    driver: str = "580.142"
    true: dict[Scope, float] = field(default_factory=lambda: dict.fromkeys(Scope, 0.0))

    def watts(self) -> dict[Scope, float]:
        """Return what is drawn now."""
        sway = self.swing * math.sin(self.time / 7.0)
        soc = 140.0 + sway
        parts = {
            Scope.CPU_PERFORMANCE: 20.0 + sway / 4,
            Scope.CPU_EFFICIENCY: 1.2,
            Scope.GPU_RAIL: 92.0 + sway / 2,
            Scope.GPU_NVML: 72.0 + sway / 3,
            Scope.CPU_GPU: 116.0 + sway / 2,
        }
        return {Scope.DC_INPUT: soc + 33.0, Scope.SYSTEM: soc + 28.0 + sway / 10, Scope.SOC: soc, **parts}

    def run(self, seconds: float) -> None:
        """Go on for a while, by the trapezoid, as whoever samples the ends would see it."""
        before = self.watts()
        self.time += seconds
        self.clock += seconds
        self.uptime += seconds
        for scope, watts in self.watts().items():
            joules = seconds * (before[scope] + watts) / 2
            self.true[scope] += joules
            if scope in self.registers:
                self.registers[scope] = (self.registers[scope] + joules) % WRAP
            elif scope is Scope.GPU_NVML:
                self.nvml += joules

    def sleep(self, seconds: float) -> None:
        """Suspend: nothing is drawn, registers stand still, and the monotonic clock stops."""
        self.time += seconds
        self.uptime += seconds

    def reboot(self, seconds: float) -> None:
        """Be off for a while, and come up with everything at 0; what is drawn until the next look is not counted."""
        self.time += seconds
        self.clock = self.uptime = 20.0
        self.boot += 1
        self.registers = dict.fromkeys(self.registers, 1500.0)
        self.nvml = 0.0

    def look(self, *, without: tuple[str, ...] = (), **registers: float) -> Snapshot:
        """Return what a look sees now; some collectors may see nothing, and some registers something else."""
        watts = self.watts()
        found = {**{scope.value: value for scope, value in self.registers.items()}, **registers}
        items: dict[str, list[Item]] = {
            "boot": [Fact(boot.BOOT, f"boot {self.boot}"), Reading(boot.UPTIME, round(self.uptime, 2))],
            "gpu": [
                Fact(gpu.DRIVER, self.driver, "0"),
                Reading(gpu.POWER, watts[Scope.GPU_NVML], "0", ("average",)),
                Reading(gpu.ENERGY, found.get("gpu_nvml", self.nvml), "0"),
            ],
            "platform": [Fact(platform.IS_SPARK, True)],
            "spbm": [
                Fact(spbm.DRIVER, "spbm"),
                Fact(spbm.VARIANT, "0.3"),
                Reading(spbm.DC_INPUT, watts[Scope.DC_INPUT], source="spbm dc_input"),
                Reading(spbm.SYSTEM, watts[Scope.SYSTEM], source="spbm sys_total"),
                Reading(spbm.SOC, watts[Scope.SOC], source="spbm soc_pkg"),
                Reading(spbm.CPU_GPU, watts[Scope.CPU_GPU], source="spbm cpu_gpu"),
                Reading(spbm.CPU_PERFORMANCE, watts[Scope.CPU_PERFORMANCE], "", ("performance",), "spbm cpu_p"),
                Reading(spbm.CPU_EFFICIENCY, watts[Scope.CPU_EFFICIENCY], "", ("efficiency",), "spbm cpu_e"),
                Reading(spbm.GPU_RAIL, watts[Scope.GPU_RAIL], source="spbm gpu"),
                Reading(spbm.SOC_REGISTER, found["soc"], source="spbm energy pkg"),
                Reading(spbm.CPU_PERFORMANCE_REGISTER, found["cpu_performance"], source="spbm energy cpu_p"),
                Reading(spbm.CPU_EFFICIENCY_REGISTER, found["cpu_efficiency"], source="spbm energy cpu_e"),
                Reading(spbm.GPU_REGISTER, found["gpu_rail"], source="spbm energy gpu"),
            ],
        }
        visits = [
            Visit(name, Status.FAILED, self.clock, 0.001, (), Reason.TIMEOUT)
            if name in without
            else Visit(name, Status.OK, self.clock, 0.001, tuple(group))
            for name, group in items.items()
        ]
        return Snapshot("test", Origin.SYNTHETIC, "", self.clock, 1_800_000_000.0 + self.time, tuple(visits))


BLIND: Final = ("gpu", "spbm", "boot")


def note(meter: Meter, snapshot: Snapshot, beat: float = 1.0) -> None:
    """Let a meter see a look, as the daemon does."""
    meter.note(snapshot, understand(snapshot), beat_seconds=beat)


def energy(meter: Meter, scope: Scope) -> Energy:
    """Return what was counted for a scope that has a number."""
    known = meter.energies()[scope]
    assert isinstance(known, Energy), known
    return known


def killed(kept: Accounts) -> Meter:
    """Return the meter of the next start, of which the last one knew only what was on disk."""
    return Meter(Accounts.from_json(json.loads(json.dumps(kept.to_json()))))


# --- 60 hours at 140 W, and what may happen in them ------------------------------------------------------------------

BEAT: Final = 20.0


def sixty_hours(world: World) -> Iterator[Snapshot]:
    """Yield each look of 60 h with wraps, a reboot, a suspend, a driver reload and a lost hour."""

    def looks(seconds: float, without: tuple[str, ...] = ()) -> Iterator[Snapshot]:
        for _ in range(round(seconds / BEAT)):
            world.run(BEAT)
            yield world.look(without=without)

    yield world.look()
    yield from looks(20 * HOUR)
    world.reboot(120.0)
    yield world.look()
    yield from looks(10 * HOUR)
    world.sleep(1800.0)
    yield from looks(10 * HOUR)
    # The driver of the GPU is loaded anew, and counts from 0; the firmware's registers know nothing of it.
    yield from looks(3 * BEAT, without=("gpu",))
    world.nvml, world.driver = 0.0, "580.159"
    yield from looks(9 * HOUR)
    yield from looks(HOUR - BEAT, without=BLIND)
    yield from looks(10 * HOUR)


@pytest.mark.once
def test_sixty_hours() -> None:
    """Within 0.1 % of the truth where it is covered, and what is not covered is exact."""
    world, meter = World(), Meter()
    for snapshot in sixty_hours(world):
        note(meter, snapshot, BEAT)
    # From the last look before the reboot to the first after it; asleep; from the last with a GPU to the first with it.
    off, asleep, reloading, lost = 120.0, 1800.0, 4 * BEAT, HOUR

    soc = energy(meter, Scope.SOC)
    assert Method.COUNTER is soc.method
    assert soc.joules == pytest.approx(world.true[Scope.SOC], rel=1e-3)
    assert soc.joules > 6 * WRAP
    assert soc.uncovered_seconds == pytest.approx(off + asleep)
    assert 1 == soc.resets
    assert soc.covered_seconds == pytest.approx(world.time - off - asleep)

    nvml = energy(meter, Scope.GPU_NVML)
    drawn = world.true[Scope.GPU_NVML] - 72.0 * reloading
    assert nvml.joules == pytest.approx(drawn, rel=1e-3)
    assert nvml.uncovered_seconds == pytest.approx(off + asleep + reloading)
    assert 2 == nvml.resets

    # What has no register is lost while nobody looks, and is not spanned from before a sleep to after it.
    system = energy(meter, Scope.SYSTEM)
    assert Method.INTEGRATED is system.method
    assert system.uncovered_seconds == pytest.approx(off + asleep + BEAT + lost)
    assert 1 == system.resets
    assert system.joules == pytest.approx(world.true[Scope.SYSTEM] - 168.0 * (lost + BEAT), rel=1e-3)
    assert system.covered_seconds + system.uncovered_seconds == pytest.approx(world.time)


@pytest.mark.once
@pytest.mark.parametrize("seed", range(2))
def test_sixty_hours_with_an_agent_that_is_killed_again_and_again(seed: int) -> None:
    """A register goes on from what was saved; what has none loses what no look was kept of, and all say how much."""
    world, meter, whole = World(swing=8.0), Meter(), Meter()
    chance = random.Random(seed)  # noqa: S311  (no secret)
    kept = meter.accounts()
    for number, snapshot in enumerate(sixty_hours(world)):
        note(whole, snapshot, BEAT)
        note(meter, snapshot, BEAT)
        if not number % 6:
            kept = meter.accounts()
        if chance.random() < 1 / 50:
            meter = killed(kept)
    for scope, watts in World().watts().items():
        one, other = energy(meter, scope), energy(whole, scope)
        accounted = other.covered_seconds + other.uncovered_seconds
        assert one.covered_seconds + one.uncovered_seconds == pytest.approx(accounted)
        missing = one.uncovered_seconds - other.uncovered_seconds
        assert other.joules - one.joules == pytest.approx(watts * missing, rel=0.05, abs=1.0)
        # A register loses time only where it began anew between what was saved and the kill.
        assert one.method is not Method.COUNTER or missing <= 2 * 6 * BEAT
        assert one.resets == other.resets


def test_killed_at_every_point() -> None:
    """Wherever it is killed, and whatever was just about to happen, the registers' answer is the same."""

    def hour(world: World) -> Iterator[Snapshot]:
        for number in range(60):
            yield world.look(without=BLIND if 20 <= number < 25 else ())
            world.run(BEAT)
            if number == 35:
                world.reboot(60.0)
            if number == 50:
                world.sleep(300.0)

    def played(kill_at: int | None) -> tuple[float, float, float, int]:
        world, meter = World(swing=20.0, registers=dict.fromkeys(FIRMWARE, WRAP - 40_000.0)), Meter()
        for number, snapshot in enumerate(hour(world)):
            note(meter, snapshot, BEAT)
            if number == kill_at:
                meter = killed(meter.accounts())
        soc = energy(meter, Scope.SOC)
        return soc.joules, soc.covered_seconds, soc.uncovered_seconds, soc.resets

    expected = played(None)
    assert 1 == expected[-1]
    for number in range(60):
        assert played(number) == pytest.approx(expected)


# --- whatever happens, nothing is made up -----------------------------------------------------------------------------

EVENTS: Final[Mapping[str, st.SearchStrategy[float]]] = {
    "run": st.floats(0.2, 5.0),
    "away": st.floats(5.0, 12 * HOUR),
    "sleep": st.floats(3.0, 12 * HOUR),
    "reboot": st.floats(0.0, 12 * HOUR),
    "spike": st.floats(0.5, 1.0),
    "kill": st.just(0.0),
}


@given(
    st.lists(st.one_of(*(st.tuples(st.just(name), size) for name, size in EVENTS.items())), max_size=60),
    # Within what a SoC can draw: of a gap of hours, that is what tells how many wraps are in it.
    st.floats(0.0, 19.0),
    st.floats(0.0, WRAP - 1),
)
def test_never_more_than_was_drawn_and_every_second_is_accounted_for(
    events: list[tuple[str, float]], swing: float, begin: float
) -> None:
    """Through gaps, wraps, reboots, sleep, bad readings and kills; totals never fall."""
    world, meter = World(swing=swing, registers=dict.fromkeys(FIRMWARE, begin)), Meter()
    note(meter, world.look())
    told: dict[tuple[Scope, Method], float] = {}
    for name, size in events:
        if name == "kill":
            meter = killed(meter.accounts())
        elif name == "spike":
            # Further than any second can carry it.
            world.run(size)
            note(meter, world.look(soc=(world.registers[Scope.SOC] + 1e6) % WRAP, gpu_nvml=world.nvml + 1e6))
            world.run(size)
        else:
            {"run": world.run, "away": world.run, "sleep": world.sleep, "reboot": world.reboot}[name](size)
            if name in ("sleep", "reboot"):
                world.run(1.0)
        note(meter, world.look())
        for scope, known in meter.energies().items():
            assert isinstance(known, Energy) or known.reason is Reason.NO_DATA
            if isinstance(known, Unmeasured):
                continue
            slack = 1e-6 + 1e-9 * world.true[scope]
            assert known.joules <= world.true[scope] + slack
            lost = known.uncovered_seconds + known.age
            assert world.true[scope] - known.joules <= 320.0 * lost + slack
            assert known.covered_seconds + lost == pytest.approx(world.time, abs=0.01 * len(events))
            assert told.get((scope, known.method), 0.0) <= known.joules
            told[scope, known.method] = known.joules


# --- one register, one reading after another --------------------------------------------------------------------------

SOC: Final = Register(160.0, 1.0, WRAP)


def counted(*points: tuple[float, float], register: Register = SOC) -> Account:
    """Return the account of a register that read these joules at these seconds."""
    account = Account()
    for at, value in points:
        account = count(account, Sample(value, at, 0.0, 0), register)
    return account


@pytest.mark.parametrize(
    ("points", "joules", "covered", "uncovered", "resets"),
    [
        pytest.param([(0, 100)], 0, 0, 0, 0, id="the first reading is where it begins"),
        pytest.param([(0, 100), (1, 240)], 140, 1, 0, 0, id="a step"),
        pytest.param([(0, 100), (0, 100), (1, 240), (1, 240)], 140, 1, 0, 0, id="told twice"),
        pytest.param([(0, WRAP - 40), (1, 100)], 140, 1, 0, 0, id="a wrap"),
        pytest.param([(0, 4e6), (HOUR, 4e6 + 504e3 - WRAP)], 504e3, HOUR, 0, 0, id="a wrap in a lost hour"),
        pytest.param([(0, 100), (6 * HOUR, 100 + 3.0e6)], 3.0e6, 6 * HOUR, 0, 0, id="six hours, no wrap possible"),
        pytest.param([(0, 100), (12 * HOUR, 2e6)], 0, 0, 12 * HOUR, 0, id="twelve hours may hide a wrap"),
        pytest.param([(0, 100), (30 * HOUR, 2e6)], 0, 0, 30 * HOUR, 0, id="thirty hours may hide several"),
        pytest.param([(0, 1e6), (1, 50), (2, 190)], 140, 1, 1, 1, id="a step back that is no wrap"),
        pytest.param([(0, 1e6), (1, 50)], 0, 0, 0, 0, id="one reading does not tell a reset from a bad one"),
        pytest.param([(0, 1e6), (1, 0), (2, 1e6 + 280)], 280, 2, 0, 0, id="a bad reading of 0"),
        pytest.param([(0, 1e6), (1, 3e6), (2, 1e6 + 280)], 280, 2, 0, 0, id="a spike"),
        pytest.param([(0, 1e6), (1, 3e6), (2, 0), (3, 1e6 + 420)], 420, 3, 0, 0, id="two bad readings in a row"),
        pytest.param([(0, 1e6), (1, 3e6), (2, 3e6 + 140)], 140, 1, 1, 1, id="it goes on elsewhere"),
        pytest.param([(0, 100), (1, 100), (2, 380)], 280, 2, 0, 0, id="not renewed yet"),
        pytest.param([(0, 100), (600, 200)], 100, 0, 600, 0, id="less than is always drawn: it stood still"),
    ],
)
def test_a_register(
    points: list[tuple[float, float]], joules: float, covered: float, uncovered: float, resets: int
) -> None:
    """Each situation by itself."""
    account = counted(*points)
    assert (joules, covered, uncovered) == pytest.approx((account.joules, account.covered, account.uncovered))
    assert resets == account.resets


@pytest.mark.parametrize(
    ("end", "joules", "covered", "uncovered"),
    [
        pytest.param(500.0, 400, 10, 0, id="it stands still: nobody knows yet"),
        pytest.param(1900.0, 1800, 20, HOUR, id="it goes on from where it stood"),
        pytest.param(500.0 + 505_400, 505_800, HOUR + 20, 0, id="it had counted on, and only was not told"),
    ],
)
def test_a_register_that_stands_still(end: float, joules: float, covered: float, uncovered: float) -> None:
    """What was in that time is known when it moves again."""
    frozen = [(float(at), 500.0) for at in range(0, 3601, 10)]
    account = counted((-10.0, 100.0), *frozen, (3610.0, end))
    assert (joules, covered, uncovered) == pytest.approx((account.joules, account.covered, account.uncovered))
    assert 0 == account.resets


def test_a_counter_that_does_not_wrap_steps_back_only_when_it_begins_anew() -> None:
    """NVML's counts since its driver was loaded."""
    nvml = Register(160.0)
    assert 1 == counted((0, WRAP - 10), (1, 50), (2, 100), register=nvml).resets


def test_refused_readings_are_counted() -> None:
    """By the metric that they would have spoiled."""
    world, meter = World(), Meter()
    for soc in (None, None, 1.0, None, 2e6, None):
        world.run(1.0)
        note(meter, world.look() if soc is None else world.look(soc=soc))
    assert {("soc_energy_joules", "impossible"): 2} == meter.rejected


# --- powers over time -------------------------------------------------------------------------------------------------


def integrated(*points: tuple[float, float]) -> Account:
    """Return the account of a power that read these watts at these seconds."""
    account = Account()
    for at, value in points:
        account = integrate(account, Sample(value, at, 0.0, 0), GAP_SECONDS)
    return account


@pytest.mark.parametrize(
    ("points", "joules", "covered", "uncovered"),
    [
        pytest.param([(0, 100)], 0, 0, 0, id="one sample has no duration"),
        pytest.param([(0, 100), (1, 200)], 150, 1, 0, id="a trapezoid"),
        pytest.param([(0, 100), (0, 100), (1, 200), (1, 200)], 150, 1, 0, id="told twice"),
        pytest.param([(0, 100), (GAP_SECONDS, 100)], 100 * GAP_SECONDS, GAP_SECONDS, 0, id="a gap that is spanned"),
        pytest.param([(0, 100), (6, 100), (7, 100)], 100, 1, 6, id="a gap that is not"),
    ],
)
def test_a_power(points: list[tuple[float, float]], joules: float, covered: float, uncovered: float) -> None:
    """Each situation by itself."""
    account = integrated(*points)
    assert (joules, covered, uncovered) == (account.joules, account.covered, account.uncovered)


def test_the_gap_limit_goes_with_the_beat() -> None:
    """Who looks each ten seconds has five beats of patience too."""
    world, meter = World(), Meter()
    for seconds in (0.0, 10.0, 10.0, 50.0, 60.0):
        world.run(seconds)
        note(meter, world.look(), 10.0)
    whole = energy(meter, Scope.CPU_GPU)
    assert (70.0, 60.0) == (whole.covered_seconds, whole.uncovered_seconds)


# --- which of several speaks ------------------------------------------------------------------------------------------


def _played(
    world: World, seconds: int, look: Callable[[], Snapshot] | None = None, meter: Meter | None = None
) -> Meter:
    meter = meter or Meter()
    for _ in range(seconds):
        note(meter, (look or world.look)())
        world.run(1.0)
    note(meter, (look or world.look)())
    return meter


def test_a_register_is_told_before_an_integral() -> None:
    """And the whole's is made of the SoC's register and the rest."""
    world = World(swing=10.0)
    meter = _played(world, 30)
    methods = {scope: known.method for scope, known in meter.energies().items() if isinstance(known, Energy)}
    assert {*FIRMWARE, Scope.GPU_NVML} == {scope for scope, method in methods.items() if method is Method.COUNTER}
    assert {Scope.SYSTEM, Scope.DC_INPUT, Scope.CPU_GPU} == {*methods} - {*FIRMWARE, Scope.GPU_NVML}
    assert "spbm energy pkg + ∫ (spbm sys_total − spbm soc_pkg) dt" == energy(meter, Scope.SYSTEM).source
    assert energy(meter, Scope.SYSTEM).joules == pytest.approx(world.true[Scope.SYSTEM], rel=1e-9)
    assert energy(meter, Scope.GPU_NVML).source == gpu.ENERGY.source


def test_without_registers_powers_are_integrated() -> None:
    """As with a driver that has none."""

    def look() -> Snapshot:
        seen = world.look()
        registers = {spbm.SOC_REGISTER, spbm.GPU_REGISTER, gpu.ENERGY}
        visits = [
            replace(visit, items=tuple(item for item in visit.items if item.of not in registers))
            for visit in seen.visits
        ]
        return replace(seen, visits=tuple(visits))

    world = World(swing=10.0)
    meter = _played(world, 30, look)
    for scope in (Scope.SYSTEM, Scope.SOC, Scope.GPU_RAIL, Scope.GPU_NVML):
        assert Method.INTEGRATED is energy(meter, scope).method
        assert energy(meter, scope).joules == pytest.approx(world.true[scope], rel=1e-9)


def test_a_register_that_stands_still_gives_way_to_the_integral() -> None:
    """And takes its place again when it moves."""
    world = World()
    meter = _played(world, 30)
    stuck = world.registers[Scope.SOC]
    _played(world, 100, lambda: world.look(soc=stuck), meter)
    assert Method.INTEGRATED is energy(meter, Scope.SOC).method
    assert energy(meter, Scope.SOC).joules == pytest.approx(140.0 * 130, rel=1e-6)
    world.registers[Scope.SOC] = stuck
    _played(world, 3, meter=meter)
    assert Method.COUNTER is energy(meter, Scope.SOC).method


def test_a_count_begins_at_its_first_reading() -> None:
    """At 0, by the method that it will go on with, so that Prometheus has something to count from."""
    world, meter = World(), Meter()
    assert {} == meter.energies()
    note(meter, world.look())
    begun = {scope: known.method for scope, known in meter.energies().items() if isinstance(known, Energy)}
    assert {0.0} == {energy(meter, scope).joules + energy(meter, scope).covered_seconds for scope in begun}
    _played(world, 30, meter=meter)
    assert begun == {scope: known.method for scope, known in meter.energies().items() if isinstance(known, Energy)}
    assert begun.keys() == {reading.labels[0] for reading in readings(meter.energies()) if reading.of is COVERED}


def test_of_a_window_what_covers_nothing_is_not_told() -> None:
    """A command that is measured wants what is known of its few seconds, by whatever method."""
    world, meter = World(), Meter()
    note(meter, world.look(gpu_nvml=1000.0))
    assert {Reason.NO_DATA} == {
        known.reason for known in meter.energies(of_window=True).values() if isinstance(known, Unmeasured)
    }
    for _ in range(3):
        world.run(1.0)
        note(meter, world.look(gpu_nvml=1000.0))
    assert (Method.COUNTER, 0.0) == (energy(meter, Scope.GPU_NVML).method, energy(meter, Scope.GPU_NVML).joules)
    told = meter.energies(of_window=True)[Scope.GPU_NVML]
    assert isinstance(told, Energy)
    assert (Method.INTEGRATED, 3.0) == (told.method, told.covered_seconds)
    assert told.joules == pytest.approx(world.true[Scope.GPU_NVML])


def test_a_whole_whose_soc_has_no_register_that_moves_goes_on_by_its_own_power() -> None:
    """In the same count, which never falls, for both are called integrated."""
    world = World(swing=10.0)
    meter = _played(world, 30)
    stuck, told = world.registers[Scope.SOC], 0.0
    for second in range(200):
        note(meter, world.look(soc=stuck) if second < 150 else world.look())
        if second == 149:
            world.registers[Scope.SOC] = stuck
        world.run(1.0)
        assert told <= energy(meter, Scope.SYSTEM).joules
        told = energy(meter, Scope.SYSTEM).joules
    system = energy(meter, Scope.SYSTEM)
    assert system.joules == pytest.approx(world.true[Scope.SYSTEM], rel=0.02)
    assert system.covered_seconds + system.uncovered_seconds + system.age == pytest.approx(world.time - 1.0)


def test_the_age_is_that_of_the_last_reading() -> None:
    """Whoever reads it knows how much may be missing."""
    world = World()
    meter = _played(world, 5)
    for _ in range(20):
        world.run(1.0)
        note(meter, world.look(without=BLIND))
    assert 20 == pytest.approx(energy(meter, Scope.SOC).age)
    assert 0 == energy(meter, Scope.SOC).uncovered_seconds


# --- contradictions ---------------------------------------------------------------------------------------------------


def test_a_register_and_a_steady_power_that_differ_are_both_distrusted() -> None:
    """For as long as they do; the account goes on when they agree, without what was in doubt."""
    world = World()
    scale = 0.5

    def look() -> Snapshot:
        return world.look(soc=(start + (world.registers[Scope.SOC] - start) * scale) % WRAP)

    start = world.registers[Scope.SOC]
    meter = _played(world, int(CHECK_SECONDS) + 1, look)
    assert {Scope.SOC} == {*meter.contradictions}
    assert "70.0 W" in meter.contradictions[Scope.SOC]
    assert "140.0 W" in meter.contradictions[Scope.SOC]
    known = meter.energies()[Scope.SOC]
    assert isinstance(known, Unmeasured)
    assert Reason.IMPOSSIBLE is known.reason

    scale, start = 1.0, 0.0
    world.registers[Scope.SOC] = 1e6
    _played(world, 2 * int(CHECK_SECONDS) + 3, meter=meter)
    assert {} == meter.contradictions
    soc = energy(meter, Scope.SOC)
    assert soc.joules <= world.true[Scope.SOC]
    assert soc.covered_seconds + soc.uncovered_seconds == pytest.approx(world.time)
    assert soc.crosscheck == pytest.approx(1.0, rel=1e-3)


def test_a_register_and_a_power_that_swings_may_differ() -> None:
    """Samples of one that swings are not its mean."""
    world = World(swing=60.0)
    start = world.registers[Scope.SOC]
    meter = _played(world, 130, lambda: world.look(soc=(start + (world.registers[Scope.SOC] - start) * 0.85) % WRAP))
    assert {} == meter.contradictions
    assert 0.85 == pytest.approx(energy(meter, Scope.SOC).crosscheck, rel=0.02)


def test_parts_that_drew_more_than_their_whole_are_distrusted_with_it() -> None:
    """By their registers, over a minute: powers that swing may look right at each look."""
    world = World(swing=20.0)
    start = world.registers[Scope.GPU_RAIL]
    meter = _played(
        world, 62, lambda: world.look(gpu_rail=(start + (world.registers[Scope.GPU_RAIL] - start) * 1.6) % WRAP)
    )
    assert {Scope.SOC, Scope.CPU_PERFORMANCE, Scope.CPU_EFFICIENCY, Scope.GPU_RAIL} == {*meter.contradictions}
    assert "more than the SoC with 1" in meter.contradictions[Scope.SOC]


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_what_is_kept_does_not_change_with_later_looks() -> None:
    """The scribe writes it while the beat goes on."""
    world = World()
    meter = _played(world, 10)
    kept = meter.accounts()
    before = json.dumps(kept.to_json())
    _played(world, 10, meter=meter)
    assert before == json.dumps(kept.to_json())


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"moment": 5},
        {"moment": None, "accounts": None, "joints": []},
        {"accounts": [["soc", "counted", -1.0, 0, 0, 0, None, None, None, ""]]},
        {"accounts": [["soc", "counted", math.nan, 0, 0, 0, None, None, None, ""]]},
        {"accounts": [["soc", "counted", 1.0, 0, 0, 0, [math.inf, 0, 0, 0, ""], None, None, ""]]},
        {"accounts": [["the whole", "counted", 1.0, 0, 0, 0, None, None, None, ""]]},
        {"accounts": [["soc"]]},
        {"moment": ["now", 0, None, None, None, 0, 0, 0]},
        {"joints": [["system", None, 0, [0, 0], [0, 0], [0, 0]]]},
    ],
)
def test_what_cannot_be_an_account_is_refused(damage: dict[str, object]) -> None:
    """In one way, whatever is wrong with it."""
    content = {**Meter().accounts().to_json(), **damage} if damage else {}
    with pytest.raises(ValueError, match="no energies"):
        Accounts.from_json(content)
