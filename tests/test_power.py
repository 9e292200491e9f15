"""Which reading speaks for which scope, and when none does."""

import pytest
from looks import SPARK, found, watts

from spark_agent.agent.power import Measured, Power, Unmeasured, understand
from spark_agent.collectors import Absence, Fact, Item, Quality, Reading, Reason, Scope, gpu, spbm
from spark_agent.collectors._untrusted import SIGNAL

# Row 3 of the table of simultaneous readings, with what a driver shows besides.
_GEMM = watts(
    dc_input=175,
    system=170.8,
    soc=140,
    cpu_gpu=116,
    cpu_performance=20.6,
    cpu_efficiency=1.2,
    gpu_rail=91.7,
    dla=0.1,
    gpu_nvml=71.9,
    pl1=139.7,
)


def _power(*items: Item) -> Power:
    return understand(found(*items))


def _missing(known: Measured | Unmeasured) -> Unmeasured:
    assert isinstance(known, Unmeasured), known
    return known


def _watts(scope: Scope, *items: Item) -> float | None:
    return _power(*items).watts(scope)


class TestMeasured:
    """A number leaves with its scope, its quality, its source and its age."""

    def test_every_scope(self) -> None:
        """Each scope has the reading of its own channel, and no other."""
        power = _power(*_GEMM)
        assert {
            Scope.DC_INPUT: 175,
            Scope.SYSTEM: 170.8,
            Scope.SOC: 140,
            Scope.CPU_GPU: 116,
            Scope.CPU_PERFORMANCE: 20.6,
            Scope.CPU_EFFICIENCY: 1.2,
            Scope.GPU_RAIL: 91.7,
            Scope.GPU_NVML: 71.9,
            Scope.DLA: 0.1,
        } == {scope: known.value for scope, known in power.scopes.items() if isinstance(known, Measured)}
        assert list(Scope) == list(power.scopes)

    def test_what_belongs_to_a_number(self) -> None:
        """Its age is that of its own collector's visit, not of the look."""
        scopes = understand(found(*_GEMM, ages={"spbm": 2.5})).scopes
        assert Measured(170.8, "W", Scope.SYSTEM, Quality.MEASURED, "spbm system", 2.5) == scopes[Scope.SYSTEM]
        nvml = Measured(71.9, "W", Scope.GPU_NVML, Quality.MEASURED, "gpu gpu_nvml", 0, ("average",))
        assert nvml == scopes[Scope.GPU_NVML]

    def test_averages_stand_apart(self) -> None:
        """What the firmware holds against a limit is no power of a scope."""
        power = _power(*_GEMM)
        assert {"pl1": 139.7} == {limit: known.value for limit, known in power.averages.items()}
        assert Scope.SOC is power.averages["pl1"].scope

    def test_rail_and_nvml_are_never_merged(self) -> None:
        """The two readings about the GPU differ, and both are shown."""
        power = _power(*watts(gpu_rail=103.4, gpu_nvml=71.9))
        assert (103.4, 71.9) == (power.watts(Scope.GPU_RAIL), power.watts(Scope.GPU_NVML))

    def test_untrusted_signals_are_no_power(self) -> None:
        """They are handed on, and nothing is made of them."""
        signal = Reading(SIGNAL, 1, "spbm prochot", quality=Quality.UNTRUSTED, note="1 on healthy machines too")
        power = _power(signal)
        assert (signal,) == power.untrusted
        assert all(isinstance(known, Unmeasured) for known in power.scopes.values())

    def test_registers(self) -> None:
        """Energies of firmware and driver, each with its scope."""
        power = _power(Reading(spbm.SOC_REGISTER, 196_494), Reading(gpu.ENERGY, 91_234, "0"))
        assert [(Scope.SOC, "J", 196_494), (Scope.GPU_NVML, "J", 91_234)] == [
            (known.scope, known.unit, known.value) for known in power.registers
        ]

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_nan_cannot_be_made(self, value: float) -> None:
        """A NaN compares false with every limit, and would pass each budget: there is no such reading."""
        with pytest.raises(ValueError, match="is no reading"):
            watts(system=value)


class TestUnmeasured:
    """Why there is no number."""

    def test_not_read(self) -> None:
        """The reason of the one reading comes before that of its collector."""
        absence = Absence(spbm.SYSTEM, Reason.IMPOSSIBLE, "4294967 W is outside 0…265")
        known = _missing(_power(absence, *watts(soc=17)).scopes[Scope.SYSTEM])
        assert (Reason.IMPOSSIBLE, "4294967 W is outside 0…265") == (known.reason, known.detail)

    @pytest.mark.parametrize("reason", [Reason.NO_DRIVER, Reason.TIMEOUT])
    def test_no_collector(self, reason: Reason) -> None:
        """A collector that has nothing, or failed, says why for all its scopes."""
        known = _missing(understand(found(SPARK, without={"spbm": reason})).scopes[Scope.SOC])
        assert (reason, "spbm: why") == (known.reason, known.detail)

    def test_left_out(self) -> None:
        """What was not asked for is not missing."""
        assert Reason.NOT_ASKED is _missing(_power(SPARK).scopes[Scope.SOC]).reason

    def test_no_such_channel(self) -> None:
        """A driver that shows less than others is no fault."""
        assert Reason.NOT_SUPPORTED is _missing(_power(*watts(soc=17)).scopes[Scope.DC_INPUT]).reason

    @pytest.mark.parametrize(
        ("items", "expected"),
        [
            (watts(gpu_nvml=46), True),
            (watts(gpu_nvml=46, system=130), False),
            (watts(gpu_nvml=46, gpu_rail=60), False),
            (watts(system=130), False),
            ((), False),
        ],
    )
    def test_gpu_only(self, items: tuple[Item, ...], expected: bool) -> None:
        """Whether all that is known is NVML's."""
        assert expected is _power(*items).is_gpu_only


class TestNvml:
    """GPU power as nvidia-smi shows it."""

    @staticmethod
    def _reading(watts_: float, device: str = "0", window: str = "average") -> Reading:
        return Reading(gpu.POWER, watts_, device, (window,))

    def test_average_first(self) -> None:
        """The mean of a second is steadier than the moment; both windows are handed on."""
        power = _power(self._reading(47.25, window="instant"), self._reading(46))
        assert 46 == power.watts(Scope.GPU_NVML)
        assert {("instant",): 47.25, ("average",): 46} == {known.labels: known.value for known in power.windows}

    def test_instant_where_there_is_no_average(self) -> None:
        """One window is better than none, and the labels say which."""
        absence = Absence(gpu.POWER, Reason.NOT_SUPPORTED, entity="0", labels=("average",))
        known = _power(absence, self._reading(47.25, window="instant")).scopes[Scope.GPU_NVML]
        assert isinstance(known, Measured)
        assert (47.25, ("instant",)) == (known.value, known.labels)

    def test_two_gpus(self) -> None:
        """Their sum is derived, and says of how many."""
        known = _power(self._reading(120), self._reading(130, "1")).scopes[Scope.GPU_NVML]
        assert isinstance(known, Measured)
        assert (250, Quality.DERIVED) == (known.value, known.quality)
        assert known.source.endswith("sum of 2 GPUs")

    def test_one_of_two_is_not_both(self) -> None:
        """Where one GPU is lost, the other does not pose as all of them."""
        lost = Absence(gpu.POWER, Reason.DEVICE_LOST, "gone", "1", ("average",))
        known = _missing(_power(self._reading(120), lost).scopes[Scope.GPU_NVML])
        assert Reason.DEVICE_LOST is known.reason

    @pytest.mark.parametrize(
        "live", [Reading(gpu.UTILIZATION, 0.01, "0"), Fact(gpu.PSTATE, "P0", "0")], ids=["busy", "P0"]
    )
    def test_a_live_gpu_draws_something(self, live: Item) -> None:
        """Exactly 0 W of a GPU that works is no reading, neither NVML's nor the rail's; no window shows it."""
        power = _power(self._reading(0), live, *watts(gpu_rail=0, soc=17))
        assert Reason.IMPOSSIBLE is _missing(power.scopes[Scope.GPU_NVML]).reason
        assert Reason.IMPOSSIBLE is _missing(power.scopes[Scope.GPU_RAIL]).reason
        assert () == power.windows
        assert 17 == power.watts(Scope.SOC)

    def test_a_sleeping_gpu_may_draw_nothing(self) -> None:
        """At rest, less than half a milliwatt is thinkable."""
        idle = Reading(gpu.UTILIZATION, 0, "0"), Fact(gpu.PSTATE, "P8", "0")
        power = _power(self._reading(0), *idle)
        assert 0 == power.watts(Scope.GPU_NVML)
        assert 1 == len(power.windows)


@pytest.mark.parametrize("scope", ["dc_input", "system", "soc", "cpu_gpu"])
def test_a_running_machine_draws_something(scope: str) -> None:
    """The agent runs on it, so 0 W is a channel that nobody feeds."""
    known = _missing(_power(*watts(**{scope: 0})).scopes[Scope(scope)])
    assert (Reason.IMPOSSIBLE, f"spbm {scope} reads 0 W, but is on") == (known.reason, known.detail)


@pytest.mark.parametrize("scope", ["cpu_performance", "cpu_efficiency", "dla"])
def test_parts_may_rest(scope: str) -> None:
    """Cores and accelerators switch off."""
    assert 0 == _watts(Scope(scope), *watts(**{scope: 0}))


def test_an_average_of_nothing() -> None:
    """A moving average of 0 W would leave the whole limit as headroom."""
    assert {} == _power(*watts(pl1=0, soc=17)).averages


class TestContainment:
    """A part above its whole: both are doubtful, and neither is a number."""

    @pytest.mark.parametrize(
        ("part", "whole"),
        [
            ("system", "dc_input"),
            ("soc", "system"),
            ("cpu_gpu", "soc"),
            ("gpu_rail", "cpu_gpu"),
            ("cpu_performance", "cpu_gpu"),
            ("cpu_efficiency", "cpu_gpu"),
            ("dla", "soc"),
            ("vcore", "soc"),
            # … and where what is between them is not there
            ("soc", "dc_input"),
            ("gpu_rail", "soc"),
            ("gpu_rail", "system"),
            ("cpu_performance", "dc_input"),
        ],
    )
    def test_part_above_whole(self, part: str, whole: str) -> None:
        """The message names both, with their values."""
        power = _power(*watts(**{part: 60, whole: 50}))
        for scope in (part, whole):
            known = _missing(power.scopes[Scope(scope)])
            assert Reason.IMPOSSIBLE is known.reason
            assert (
                f"spbm {part} reads 60.0 W, more than spbm {whole} with 50.0 W, of which it is a part" == known.detail
            )

    @pytest.mark.parametrize(
        ("part", "whole", "believed"),
        [(55.0, 50, True), (55.1, 50, False), (7.0, 5, True), (7.1, 5, False), (28, 27.5, True)],
    )
    def test_tolerance(self, part: float, whole: float, believed: bool) -> None:
        """Channels are not read in one instant: a tenth or 2 W are no contradiction."""
        assert believed == (part == _watts(Scope.SYSTEM, *watts(system=part, dc_input=whole)))

    def test_others_stand(self) -> None:
        """What is not part of the contradiction keeps its number."""
        power = _power(*watts(dc_input=26, system=25, soc=17, cpu_gpu=6, cpu_performance=40))
        assert (26, 25) == (power.watts(Scope.DC_INPUT), power.watts(Scope.SYSTEM))
        assert None is power.watts(Scope.CPU_PERFORMANCE)

    def test_nvml_has_no_place_in_the_tree(self) -> None:
        """It is a reading about the GPU, of another moment and by another meter."""
        assert 71.9 == _watts(Scope.GPU_NVML, *watts(gpu_nvml=71.9, gpu_rail=50))

    def test_real_readings_hold(self) -> None:
        """No row that an owner measured is a contradiction."""
        rows = (
            watts(gpu_nvml=71.9, gpu_rail=103.4, system=171),
            watts(gpu_nvml=89.8, gpu_rail=109, system=168, soc=142),
            _GEMM,
            watts(gpu_nvml=48.3, gpu_rail=70, system=139),
            watts(gpu_nvml=46.1, gpu_rail=67, system=132),
            watts(gpu_nvml=7.9, gpu_rail=8, system=28, dc_input=27.5),
            watts(gpu_nvml=5, gpu_rail=5, system=25, soc=17, dc_input=26),
            watts(gpu_nvml=4.6, gpu_rail=4.8, system=36, soc=22, cpu_performance=4.5),
            watts(gpu_rail=5, system=26.1, soc=17.3, cpu_performance=0.5),
        )
        for row in rows:
            scopes = _power(*row).scopes.values()
            assert Reason.IMPOSSIBLE not in [known.reason for known in scopes if isinstance(known, Unmeasured)]
