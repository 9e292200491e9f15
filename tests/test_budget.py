"""Limits, headroom and verdicts: read before assumed, and a reading only ever against a limit of its own scope."""

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from looks import HEALTHY, OTHER, SPARK, WEDGED, found, judged, limits, lost, own, told, watts

from spark_agent.agent.budget import (
    Budget,
    Headroom,
    Limit,
    LimitOrigin,
    Rest,
    Standing,
    Verdict,
    crowded,
    own_limits,
)
from spark_agent.agent.config import Settings
from spark_agent.agent.power import Unmeasured
from spark_agent.collectors import Absence, Fact, Item, Reading, Reason, Scope, gpu, spbm
from spark_agent.collectors._power import CEILING, FLOOR, PUBLISHED

_IDLE = watts(dc_input=26, system=25, soc=17, gpu_rail=5, gpu_nvml=5, pl1=18, syspl1=26)
_NO_CAPS = tuple(lost(name, Reason.PERMISSION_DENIED, f"EACCES {name}_cap") for name in ("pl1", "pl2"))


def _judge(*items: Item, by: tuple[Limit, ...] = ()) -> Budget:
    return judged(found(*items), *by)


def _headroom(*items: Item) -> Headroom:
    room = _judge(*items).headroom
    assert isinstance(room, Headroom), room
    return room


def _withheld(*items: Item) -> Unmeasured:
    room = _judge(*items).headroom
    assert isinstance(room, Unmeasured), room
    return room


def _standings(budget: Budget) -> dict[str, str]:
    return {scope: verdict.standing.value for scope, verdict in budget.verdicts.items()}


# What owners measured at one instant: (readings, limits), verdicts of system, SoC and GPU, and the binding limit with
# what is left before it, or none. Rows of one reading only are left out.
_ROWS = {
    "1 dense GEMM, same instant": (
        watts(gpu_nvml=71.9, gpu_rail=103.4, system=171, pl1=139.7),
        HEALTHY,
        ("within", "at_limit", "within"),
        ("pl1", 0.3),
    ),
    "2 dense GEMM for a minute, low": (
        watts(gpu_nvml=89.8, gpu_rail=109, system=168, soc=139),
        HEALTHY,
        ("within", "at_limit", "within"),
        ("pl1", 1.0),
    ),
    "2 dense GEMM for a minute, high": (
        watts(gpu_nvml=89.8, gpu_rail=109, system=168, soc=142),
        HEALTHY,
        ("within", "at_limit", "within"),
        ("pl1", -2.0),
    ),
    "3 at the cap": (
        watts(gpu_nvml=71.9, gpu_rail=91.7, system=170.8, dc_input=175, cpu_gpu=116, cpu_performance=20.6, pl1=139.7),
        HEALTHY,
        ("within", "at_limit", "within"),
        ("pl1", 0.3),
    ),
    "4 training, not compute-bound": (
        watts(gpu_nvml=48.3, gpu_rail=70, system=139, pl1=117),
        HEALTHY,
        ("within", "within", "within"),
        ("pl1", 23.0),
    ),
    "5 contended benchmark": (
        watts(gpu_nvml=46.1, gpu_rail=67, system=132, pl1=111),
        HEALTHY,
        ("within", "within", "within"),
        ("pl1", 29.0),
    ),
    "6 wedged at 99 % utilisation": (
        watts(gpu_nvml=7.9, gpu_rail=8, system=28, dc_input=27.5),
        WEDGED,
        ("capped_low", "unmeasured", "capped_low"),
        None,
    ),
    "7 idle, NIC off": (
        watts(gpu_nvml=5, gpu_rail=5, system=25, soc=17, dc_input=26),
        HEALTHY,
        ("within", "within", "within"),
        ("pl1", 123.0),
    ),
    "8 idle, earlier firmware, NIC on": (
        watts(gpu_nvml=4.6, gpu_rail=4.8, system=36, soc=22, cpu_performance=4.5),
        HEALTHY,
        ("within", "within", "within"),
        ("pl1", 118.0),
    ),
    "9 idle status line": (
        watts(gpu_rail=5, system=26.1, soc=17.3, cpu_performance=0.5),
        HEALTHY,
        ("within", "within", "within"),
        ("pl1", 122.7),
    ),
}


@pytest.mark.parametrize(("powers", "caps", "standings", "room"), _ROWS.values(), ids=_ROWS)
def test_measured(
    powers: tuple[Item, ...], caps: tuple[Item, ...], standings: tuple[str, ...], room: tuple[str, float] | None
) -> None:
    """Verdicts and headroom of what owners measured: PL1 binds, never the adapter."""
    budget = _judge(SPARK, *powers, *caps)
    assert standings == tuple(_standings(budget).values())
    if room:
        assert isinstance(budget.headroom, Headroom)
        assert room == (budget.headroom.limit.name, round(budget.headroom.watts, 6))
    else:
        assert isinstance(budget.headroom, Unmeasured)


class TestLimits:
    """Read before assumed, with who says so."""

    def test_stock(self) -> None:
        """With no driver all that is known is what NVIDIA writes."""
        budget = judged(found(SPARK, *watts(gpu_nvml=46), without={"spbm": Reason.NO_DRIVER}))
        assert [("adapter", 240, "vendor_doc"), ("soc_tdp", 140, "vendor_doc"), ("rest", 100, "vendor_doc")] == [
            (limit.name, limit.watts, limit.origin) for limit in budget.limits
        ]

    def test_read(self) -> None:
        """What the firmware says comes first, each with its file."""
        budget = _judge(SPARK, *_IDLE, *HEALTHY)
        assert {"pl1": 140, "pl2": 142, "syspl1": 231, "syspl2": 244} == {
            limit.name: limit.watts for limit in budget.limits if limit.origin is LimitOrigin.FIRMWARE
        }
        assert "spbm pl1_cap" == budget.limits[0].source

    def test_nvidias_figure_yields_to_the_firmwares(self) -> None:
        """A PL1 of 120 W binds; the 140 W of the user guide does not add 20 W of headroom."""
        items: tuple[Item, ...] = (SPARK, *watts(system=150, soc=118), *limits(pl1=120))
        assert ("pl1", 2) == (_headroom(*items).limit.name, _headroom(*items).watts)
        assert "soc_tdp" not in str(_judge(*items).verdicts["soc"].evidence)

    def test_nvidias_figure_stands_in(self) -> None:
        """A driver that shows powers and no limits: held against the user guide, which is said."""
        items: tuple[Item, ...] = (SPARK, *watts(system=25, soc=17))
        assert ("soc_tdp", 123) == (_headroom(*items).limit.name, _headroom(*items).watts)
        assert "limit from NVIDIA's user guide, not read" in _judge(*items).verdicts["soc"].evidence[0]

    def test_no_spark_no_spark_limits(self) -> None:
        """Nothing of a GB10 is assumed elsewhere."""
        assert () == _judge(OTHER, *watts(gpu_nvml=46)).limits

    def test_further_values(self) -> None:
        """Ceiling, floor and published limit go with the limit, and are none themselves."""
        labels = ("soc", "pl1")
        items = (*limits(pl1=140), Reading(CEILING, 250, labels=labels), Reading(FLOOR, 0.1, labels=labels))
        limit = _judge(*items, *limits(PUBLISHED, pl1=140)).limits[0]
        assert (140, 250, 0.1, 140) == (limit.watts, limit.ceiling, limit.floor, limit.published)

    @pytest.mark.parametrize(("cap", "origin"), [(100, "user"), (140, "firmware"), (150, "firmware")])
    def test_set_by_somebody(self, cap: float, origin: str) -> None:
        """In force is the lowest of several slots: one below the controller's own is not the controller's."""
        assert origin == _judge(*limits(pl1=cap), *limits(PUBLISHED, pl1=140)).limits[0].origin


class TestHeadroom:
    """The least over all budgets, by name; withheld where it would be a guess."""

    @pytest.mark.parametrize(
        ("powers", "binding", "left"),
        [
            ({"dc_input": 175, "system": 170.8, "soc": 140, "pl1": 139.7, "syspl1": 153}, "pl1", 0.3),
            ({"dc_input": 238, "system": 225, "soc": 100, "pl1": 100, "syspl1": 225}, "adapter", 2),
            ({"dc_input": 235, "system": 228, "soc": 100, "pl1": 100, "syspl1": 228}, "syspl1", 3),
            ({"dc_input": 200, "system": 190, "soc": 139, "pl1": 130, "pl2": 141}, "pl2", 1),
            ({"dc_input": 260, "system": 250, "soc": 139, "pl1": 130, "syspl1": 250}, "adapter", -20),
        ],
    )
    def test_least(self, powers: Mapping[str, float], binding: str, left: float) -> None:
        """Whichever limit is nearest in watts."""
        room = _headroom(SPARK, *watts(**powers), *HEALTHY)
        assert binding == room.limit.name
        assert pytest.approx(left) == room.watts

    def test_not_seventy_watts(self) -> None:
        """It is false that 70 W are left of 240: the limit of the SoC binds with 0.3 W left."""
        room = _headroom(SPARK, *watts(dc_input=175, system=170.8, soc=140, pl1=139.7), *HEALTHY)
        assert 0.3 == pytest.approx(room.watts)
        assert Scope.SOC == room.limit.scope == room.against.scope

    def test_same_scope(self) -> None:
        """What is subtracted from a limit is of the limit's scope."""
        for powers in (_IDLE, watts(dc_input=235, system=228, soc=100), watts(dc_input=239, system=228, soc=100)):
            room = _headroom(SPARK, *powers, *HEALTHY)
            assert room.limit.scope == room.against.scope

    def test_from_the_gpu_alone(self) -> None:
        """A part says nothing of what is left of the whole."""
        room = judged(found(SPARK, *watts(gpu_nvml=46), without={"spbm": Reason.NO_DRIVER})).headroom
        assert isinstance(room, Unmeasured)
        assert Reason.NO_DRIVER is room.reason

    def test_without_the_soc(self) -> None:
        """The SoC's limit binds first; the system's alone would leave 60 W too many."""
        room = _withheld(SPARK, *watts(dc_input=175, system=170.8), *HEALTHY)
        assert "what the SoC draws is not known" in room.detail

    def test_without_the_adapter(self) -> None:
        """No reading of the adapter's scope: its limit is not compared with anything else."""
        assert "syspl1" == _headroom(SPARK, *watts(system=230, soc=100), *HEALTHY).limit.name

    def test_unreadable_limits(self) -> None:
        """A limit that is there but cannot be read may be any: nothing is promised."""
        room = _withheld(SPARK, *_IDLE, *_NO_CAPS, *limits(syspl1=231, syspl2=244))
        assert "PL1 (SoC, sustained), PL2 (SoC, short)" in room.detail

    def test_stale(self) -> None:
        """An old reading leaves nothing to count on."""
        assert isinstance(judged(found(SPARK, *_IDLE, *HEALTHY, ages={"spbm": 30})).headroom, Headroom)
        assert isinstance(judged(found(SPARK, *_IDLE, *HEALTHY, ages={"spbm": 31})).headroom, Unmeasured)

    def test_no_spark(self) -> None:
        """A GPU's limit is no limit of the machine."""
        room = _withheld(OTHER, *watts(gpu_nvml=100), Reading(gpu.LIMIT, 700, "0"))
        assert "as a whole" in room.detail


class TestOrder:
    """The first verdict that fits, in the order of the list."""

    def test_the_list(self) -> None:
        """Its order is part of the document."""
        assert [
            "unmeasured",
            "stale",
            "error",
            "impossible",
            "capped_low",
            "limits_unpublished",
            "over_budget",
            "at_limit",
            "near_limit",
            "within",
        ] == [standing.value for standing in Standing]

    @pytest.mark.parametrize(
        ("expected", "items", "age"),
        [
            ("unmeasured", (*WEDGED, Absence(spbm.SYSTEM, Reason.NOT_SUPPORTED)), 0),
            ("stale", (*WEDGED, *watts(system=28)), 31),
            ("error", (*WEDGED, Absence(spbm.SYSTEM, Reason.IO_ERROR, "EIO")), 0),
            ("impossible", (*WEDGED, Absence(spbm.SYSTEM, Reason.IMPOSSIBLE, "4294967 W")), 0),
            ("impossible", (*WEDGED, Absence(spbm.SYSTEM, Reason.GARBAGE)), 0),
            ("impossible", (*HEALTHY, *watts(system=60, dc_input=50)), 0),
            ("capped_low", (*limits(syspl1=30), lost("syspl2", Reason.IO_ERROR), *watts(system=31)), 0),
            ("limits_unpublished", (lost("syspl1", Reason.IO_ERROR), *limits(syspl2=244), *watts(system=250)), 0),
            ("over_budget", (*HEALTHY, *watts(system=232)), 0),
            ("at_limit", (*HEALTHY, *watts(system=230)), 0),
            ("near_limit", (*HEALTHY, *watts(system=210)), 0),
            ("within", (*HEALTHY, *watts(system=200)), 0),
        ],
    )
    def test_each_before_the_next(self, expected: str, items: tuple[Item, ...], age: float) -> None:
        """Each case fits its own verdict and at least one further down, and gets its own."""
        assert expected == _standings(judged(found(SPARK, *items, ages={"spbm": age})))["system"]

    def test_left_out(self) -> None:
        """What was not asked for is unmeasured, and so is what no driver shows."""
        assert {"unmeasured"} == set(_standings(_judge(SPARK)).values())


class TestThresholds:
    """At the edges."""

    @pytest.mark.parametrize(
        ("watts_", "expected"),
        [(126.0, "within"), (126.01, "near_limit"), (137.19, "near_limit"), (137.2, "at_limit"), (145, "at_limit")],
    )
    def test_soc(self, watts_: float, expected: str) -> None:
        """At 98 % of its own limit, near it above 90 %; a SoC above its limit is at it, for the limit sets its pace."""
        assert expected == _standings(_judge(SPARK, *watts(soc=watts_), *limits(pl1=140)))["soc"]

    @pytest.mark.parametrize(
        ("watts_", "expected"),
        [(207.9, "within"), (208, "near_limit"), (226.38, "at_limit"), (231, "at_limit"), (231.01, "over_budget")],
    )
    def test_system(self, watts_: float, expected: str) -> None:
        """A system above SysPL1 is over its budget."""
        assert expected == _standings(_judge(SPARK, *watts(system=watts_), *limits(syspl1=231)))["system"]

    @pytest.mark.parametrize(("watts_", "expected"), [(216, "within"), (216.1, "near_limit"), (240.1, "over_budget")])
    def test_adapter(self, watts_: float, expected: str) -> None:
        """What enters the board is held against the adapter."""
        budget = _judge(SPARK, *watts(dc_input=watts_, system=150))
        assert expected == _standings(budget)["system"]
        assert budget.verdicts["system"].reason.endswith(f"adapter, {watts_:.1f} of 240 W")

    @pytest.mark.parametrize(
        ("watts_", "expected"),
        [(241, "over_budget"), (240, "at_limit"), (235.2, "at_limit"), (216.1, "near_limit"), (216, "within")],
    )
    def test_adapter_by_a_part(self, watts_: float, expected: str) -> None:
        """What the system draws, the adapter gives at the least; further below its rating that proves nothing."""
        verdict = _judge(SPARK, *watts(system=watts_)).verdicts["system"]
        assert expected == verdict.standing
        if expected == "within":
            assert ("no limit is known that it could exceed", ()) == (verdict.reason, verdict.evidence)
        else:
            assert verdict.reason.endswith(f"adapter, at least {watts_:.1f} of 240 W")

    @pytest.mark.parametrize(("age", "expected"), [(30, "within"), (30.1, "stale")])
    def test_age(self, age: float, expected: str) -> None:
        """A reading of half a minute ago is the last that counts, for each scope."""
        budget = judged(found(SPARK, *_IDLE, *HEALTHY, ages={"spbm": age, "gpu": age}))
        assert {expected} == set(_standings(budget).values())

    @pytest.mark.parametrize(
        ("caps", "expected"),
        [
            ({"pl1": 30}, ("within", "capped_low")),
            ({"pl1": 30.1}, ("within", "within")),
            ({"syspl1": 40}, ("capped_low", "within")),
            ({"syspl1": 40.1}, ("within", "within")),
            ({"pl1": 140, "pl2": 20}, ("within", "capped_low")),
        ],
    )
    def test_collapsed(self, caps: Mapping[str, float], expected: tuple[str, str]) -> None:
        """Up to 30 W for the SoC and 40 W for the system a limit has collapsed."""
        assert expected == tuple(_standings(_judge(SPARK, *watts(system=20, soc=10), *limits(**caps))).values())[:2]

    def test_the_average_is_what_is_held(self) -> None:
        """The firmware's own average counts, not a swing of the channel above it."""
        verdict = _judge(SPARK, *watts(soc=141, pl1=120), *limits(pl1=140)).verdicts["soc"]
        assert (Standing.WITHIN, "nearest limit: PL1 (SoC, sustained), 120.0 of 140 W") == (
            verdict.standing,
            verdict.reason,
        )


class TestCappedLow:
    """Held at a fraction of its power."""

    @staticmethod
    def _soc(*items: Item) -> Verdict:
        return _judge(SPARK, *watts(soc=19.7, system=28, gpu_rail=8, gpu_nvml=7.9), *items).verdicts["soc"]

    def test_fallback(self) -> None:
        """20 and 30 W are what the firmware falls back to."""
        budget = _judge(SPARK, *watts(soc=19.7, system=28, gpu_rail=8, gpu_nvml=7.9), *WEDGED)
        assert {"capped_low"} == set(_standings(budget).values())
        assert all(verdict.conclusive for verdict in budget.verdicts.values())
        assert "held at 20 W, as the firmware does" in budget.verdicts["soc"].reason
        assert "held at 30 W, as the firmware does" in budget.verdicts["system"].reason
        assert budget.verdicts["gpu"].reason.startswith("it shares the SoC's limit: held at 20 W")
        assert "PL1 (SoC, sustained) is 20 W (spbm pl1_cap)" in budget.verdicts["soc"].evidence
        assert "19.7 W drawn now (spbm soc)" in budget.verdicts["soc"].evidence

    def test_some_other_value(self) -> None:
        """25 W is not the fallback: somebody may have set it, and it is not called a fault."""
        verdict = self._soc(*limits(pl1=25, pl2=142))
        assert Standing.CAPPED_LOW is verdict.standing
        assert not verdict.conclusive
        assert (
            "held at 25 W; this is not the firmware's fallback of 20 W, so somebody may have set it" == verdict.reason
        )

    @pytest.mark.parametrize("cap", [25, 20])
    def test_set_by_somebody(self, cap: float) -> None:
        """Where the controller's own limit can be read, a lower one is somebody's, be it 20 W."""
        verdict = self._soc(*limits(pl1=cap), *limits(PUBLISHED, pl1=140))
        assert not verdict.conclusive
        assert f"held at {cap} W; the embedded controller allows 140 W, so somebody has set it" == verdict.reason

    def test_fallback_and_unpublished(self) -> None:
        """The controller published nothing: the file that says so is among the evidence."""
        verdict = self._soc(*WEDGED, lost("pl1", Reason.NO_DATA, "ENODATA power11_cap_max", PUBLISHED))
        assert Standing.CAPPED_LOW is verdict.standing
        assert "PL1 (SoC, sustained) was not published: ENODATA power11_cap_max" in verdict.evidence

    def test_headroom_stays(self) -> None:
        """A limit of 20 W is a limit: what is left of it is known."""
        assert 0.3 == pytest.approx(_headroom(SPARK, *watts(soc=19.7, system=28), *WEDGED).watts)


class TestUnpublished:
    """The channel is there, its limit is not."""

    @pytest.mark.parametrize(
        ("absence", "conclusive"),
        [
            (lost("pl1", Reason.NO_DATA, "ENODATA power11_cap_max", PUBLISHED), True),
            (lost("pl1", Reason.NO_DATA, "ENODATA power11_cap"), True),
            (lost("pl1", Reason.PERMISSION_DENIED, "EACCES power11_cap"), False),
            (lost("pl1", Reason.IO_ERROR, "EIO power11_cap"), False),
            (lost("pl1", Reason.IMPOSSIBLE, "0 W is outside 0.1…1000"), False),
            (lost("pl1", Reason.NOT_FOUND, "ENOENT power11_cap"), False),
        ],
    )
    def test_reasons(self, absence: Absence, conclusive: bool) -> None:
        """ENODATA is the controller's own word and certain; anything else may be harmless."""
        known = limits(pl1=140) if absence.of is PUBLISHED else ()
        budget = _judge(SPARK, *_IDLE, *known, *limits(syspl1=231), absence)
        assert {"system": "within", "soc": "limits_unpublished", "gpu": "limits_unpublished"} == _standings(budget)
        assert conclusive is budget.verdicts["soc"].conclusive is budget.verdicts["gpu"].conclusive
        assert absence.detail in budget.verdicts["soc"].evidence[0]

    def test_of_the_system(self) -> None:
        """Each scope has limits of its own."""
        budget = _judge(SPARK, *_IDLE, *limits(pl1=140, pl2=142), lost("syspl1", Reason.IO_ERROR))
        assert {"system": "limits_unpublished", "soc": "within", "gpu": "within"} == _standings(budget)

    def test_a_published_limit_that_nobody_may_read(self) -> None:
        """The limit in force is known, and that is what counts."""
        budget = _judge(SPARK, *_IDLE, *HEALTHY, lost("pl1", Reason.PERMISSION_DENIED, "EACCES", PUBLISHED))
        assert {"within"} == set(_standings(budget).values())

    def test_a_driver_without_limits(self) -> None:
        """What a driver does not offer, or nobody can interpret, is not unpublished."""
        budget = _judge(SPARK, *_IDLE, lost("pl1", Reason.NOT_SUPPORTED, "a power or a limit"))
        assert {"within"} == set(_standings(budget).values())


class TestGpu:
    """The GPU: rail and NVML, with or without a limit of its own."""

    def test_shares_the_socs(self) -> None:
        """A GB10's has none, which is said."""
        verdict = _judge(SPARK, *_IDLE, *HEALTHY).verdicts["gpu"]
        assert (Standing.WITHIN, "it has no limit of its own; the SoC's limit holds for both") == (
            verdict.standing,
            verdict.reason,
        )
        assert ("5.0 W drawn now (spbm gpu_rail)", "5.0 W drawn now (gpu gpu_nvml)") == verdict.evidence

    @pytest.mark.parametrize(
        ("watts_", "expected"), [(70, "within"), (640, "near_limit"), (690, "at_limit"), (710, "at_limit")]
    )
    def test_its_own(self, watts_: float, expected: str) -> None:
        """An H200 has 700 W of its own, which the driver enforces."""
        budget = _judge(OTHER, *watts(gpu_nvml=watts_), Reading(gpu.LIMIT, 700, "0"))
        assert {"system": "unmeasured", "soc": "unmeasured", "gpu": expected} == _standings(budget)
        assert budget.verdicts["gpu"].reason.endswith(f"the GPU's own, {watts_:.1f} of 700 W")
        assert [("nvml", LimitOrigin.DRIVER)] == [(limit.name, limit.origin) for limit in budget.limits]

    def test_two(self) -> None:
        """The sum of two is held against the sum of their limits, and says that it is one."""
        powers = [Reading(gpu.POWER, 600, device, ("average",)) for device in "01"]
        both = [Reading(gpu.LIMIT, 700, device) for device in "01"]
        budget = _judge(OTHER, *powers, *both)
        assert "nearest limit: the GPU's own, 1200.0 of 1400 W" == budget.verdicts["gpu"].reason
        assert "nvml nvmlDeviceGetEnforcedPowerLimit, sum of 2 GPUs" == budget.limits[0].source
        assert "nvml nvmlDeviceGetEnforcedPowerLimit" == _judge(OTHER, powers[0], both[0]).limits[0].source

    def test_one_limit_of_two(self) -> None:
        """A sum that lacks one is no limit."""
        powers = [Reading(gpu.POWER, 600, device, ("average",)) for device in "01"]
        budget = _judge(
            OTHER, *powers, Reading(gpu.LIMIT, 700, "0"), Absence(gpu.LIMIT, Reason.NOT_SUPPORTED, entity="1")
        )
        assert () == budget.limits
        assert "no limit is known that it could exceed" == budget.verdicts["gpu"].reason

    def test_dead_on_a_live_gpu(self) -> None:
        """Exactly 0 W of a GPU that works is impossible, although the rail says something."""
        budget = _judge(SPARK, *watts(gpu_nvml=0, gpu_rail=60, soc=90), Fact(gpu.PSTATE, "P0", "0"))
        assert Standing.IMPOSSIBLE is budget.verdicts["gpu"].standing
        assert "reads 0 W" in budget.verdicts["gpu"].evidence[0]

    def test_lost(self) -> None:
        """A lost GPU is an error, also where the rail has no driver."""
        budget = judged(found(SPARK, without={"gpu": Reason.DEVICE_LOST, "spbm": Reason.NO_DRIVER}))
        assert Standing.ERROR is budget.verdicts["gpu"].standing

    def test_neither(self) -> None:
        """Where nothing failed and nothing measures it, the reason is NVML's, which every GPU has."""
        budget = judged(found(SPARK, without={"gpu": Reason.NO_LIBRARY, "spbm": Reason.NO_DRIVER}))
        assert "nothing measures it: there is no NVIDIA driver library" == budget.verdicts["gpu"].reason

    def test_limits_of_others(self) -> None:
        """A limit of the system is none of the GPU's."""
        verdict = _judge(OTHER, *watts(gpu_nvml=46), *limits(syspl1=231)).verdicts["gpu"]
        assert "no limit is known that it could exceed" == verdict.reason

    def test_lost_but_for_the_rail(self) -> None:
        """The rail still measures it."""
        budget = judged(found(SPARK, *_IDLE[:-3], *HEALTHY, without={"gpu": Reason.DEVICE_LOST}))
        assert Standing.WITHIN is budget.verdicts["gpu"].standing

    def test_wedged_with_no_soc_channel(self) -> None:
        """The SoC's limit holds for the GPU, also where the SoC is not measured."""
        assert Standing.CAPPED_LOW is _judge(SPARK, *watts(gpu_nvml=7.9), *WEDGED).verdicts["gpu"].standing


class TestWords:
    """Who reads only this line must understand."""

    @pytest.mark.parametrize(
        ("expected", "items"),
        [
            ("nearest limit: adapter, 175.0 of 240 W", watts(dc_input=175, system=150)),
            ("near its limit: SysPL1 (system, sustained), 210.0 of 231 W", watts(system=210)),
            ("at its limit: SysPL1 (system, sustained), 230.0 of 231 W", watts(system=230)),
            ("above its limit: SysPL1 (system, sustained), 233.0 of 231 W", watts(system=233)),
        ],
    )
    def test_system(self, expected: str, items: tuple[Item, ...]) -> None:
        """What it stands against, by how much, of how much."""
        assert expected == _judge(SPARK, *items, *HEALTHY).verdicts["system"].reason

    @pytest.mark.parametrize(
        ("expected", "reason"),
        [
            ("nothing measures it: no driver for the firmware's power page is installed", Reason.NO_DRIVER),
            ("nothing measures it: this machine has no sensor for it", Reason.NO_DEVICE),
            ("it could not be read: timeout", Reason.TIMEOUT),
        ],
    )
    def test_unmeasured(self, expected: str, reason: Reason) -> None:
        """Why, in words."""
        assert expected == judged(found(SPARK, without={"spbm": reason})).verdicts["soc"].reason

    def test_evidence(self) -> None:
        """Share, source of the reading, and origin of the limit, nearest first."""
        assert (
            "PL1 (SoC, sustained), 18.0 of 140 W, 12.9 % (spbm pl1; limit read from the firmware)",
            "PL2 (SoC, short), 17.0 of 142 W, 12.0 % (spbm soc; limit read from the firmware)",
        ) == _judge(SPARK, *_IDLE, *HEALTHY).verdicts["soc"].evidence


class TestOwn:
    """Limits that the owner has set: they take the place of NVIDIA's, and stand beside the firmware's."""

    def test_in_place_of_nvidias(self) -> None:
        """Of the same name, in the same place, with who says so and where."""
        before, now = _judge(SPARK), _judge(SPARK, by=own(adapter=140, rest=60))
        assert [limit.name for limit in before.limits] == [limit.name for limit in now.limits]
        assert [("adapter", 140, "user"), ("soc_tdp", 140, "vendor_doc"), ("rest", 60, "user")] == [
            (limit.name, limit.watts, limit.origin) for limit in now.limits
        ]

    def test_with_where_they_were_set(self) -> None:
        """As the settings know it."""
        settings = Settings(power_adapter_watts=140, origins={"power.adapter-watts": "--power.adapter-watts"})
        assert [("adapter", Scope.DC_INPUT, "--power.adapter-watts")] == [
            (limit.name, limit.scope, limit.source) for limit in own_limits(settings)
        ]
        assert () == own_limits(Settings())

    def test_anywhere(self) -> None:
        """Who says it may say it of any machine; nothing of NVIDIA's comes with it."""
        budget = _judge(OTHER, *watts(gpu_nvml=46), by=own(adapter=850))
        assert [("adapter", 850)] == [(limit.name, limit.watts) for limit in budget.limits]
        assert isinstance(budget.headroom, Unmeasured)
        assert {"system": "unmeasured", "soc": "unmeasured", "gpu": "within"} == _standings(budget)

    @pytest.mark.parametrize(
        ("entering", "expected"),
        [(126, "within"), (126.1, "near_limit"), (137.2, "at_limit"), (140, "at_limit"), (140.1, "over_budget")],
    )
    def test_a_weak_adapter(self, entering: float, expected: str) -> None:
        """Above its rating at all is over budget, though each limit of the firmware's is far away."""
        powers = watts(dc_input=entering, system=entering - 4, soc=80)
        verdict = _judge(SPARK, *powers, *HEALTHY, by=own(adapter=140)).verdicts["system"]
        assert expected == verdict.standing
        assert f"adapter, {entering:.1f} of 140 W" in verdict.reason
        assert "limit from the settings" in verdict.evidence[0]

    def test_a_strong_adapter(self) -> None:
        """Some makers' gives more; SysPL1 is what binds then."""
        room = judged(found(SPARK, *watts(dc_input=239, system=228, soc=100), *HEALTHY), *own(adapter=280)).headroom
        assert isinstance(room, Headroom)
        assert ("syspl1", 3) == (room.limit.name, room.watts)

    @pytest.mark.parametrize(
        ("limit", "binding", "left"),
        [({"soc": 120}, "soc_tdp", 20), ({"soc": 200}, "pl1", 40), ({"system": 150}, "system", 20)],
    )
    def test_the_lower_binds(self, limit: dict[str, float], binding: str, left: float) -> None:
        """Below the firmware's limit it is the owner's; above it raises nothing."""
        powers = watts(dc_input=135, system=130, soc=100, pl1=100)
        room = _judge(SPARK, *powers, *HEALTHY, by=own(**limit)).headroom
        assert isinstance(room, Headroom)
        assert (binding, left) == (room.limit.name, round(room.watts, 6))

    def test_of_the_soc(self) -> None:
        """Near it, or over it; never at it, for nothing sets the SoC's pace there."""
        for watts_, expected in ((90, "within"), (90.1, "near_limit"), (100, "near_limit"), (100.1, "over_budget")):
            budget = _judge(SPARK, *watts(system=130, soc=watts_), *HEALTHY, by=own(soc=100))
            assert expected == _standings(budget)["soc"]
            assert "SoC (as set)" in budget.verdicts["soc"].reason

    def test_of_the_soc_above_the_firmwares(self) -> None:
        """At PL1 it is at PL1, whatever else is allowed."""
        verdict = _judge(SPARK, *watts(system=170, soc=140), *HEALTHY, by=own(soc=141)).verdicts["soc"]
        assert (Standing.AT_LIMIT, "at its limit: PL1 (SoC, sustained), 140.0 of 140 W") == (
            verdict.standing,
            verdict.reason,
        )

    def test_against_the_firmwares_average(self) -> None:
        """Not against a channel that swings, where there is a better."""
        budget = _judge(SPARK, *watts(system=155, soc=125, pl1=110, syspl1=140), *HEALTHY, by=own(soc=120, system=150))
        assert {"system": "near_limit", "soc": "near_limit", "gpu": "unmeasured"} == _standings(budget)
        assert pytest.approx((110 / 120, 140 / 150), abs=1e-6) == (budget.shares["soc_tdp"], budget.shares["system"])

    @pytest.mark.parametrize("limit", [{"soc": 20}, {"soc": 25}, {"system": 30}])
    def test_low_ones_hold_nothing_down(self, limit: dict[str, float]) -> None:
        """That is the firmware's to do: a box that draws more than it is to is over budget, and not capped."""
        standings = _standings(_judge(SPARK, *watts(system=60, soc=40), *HEALTHY, by=own(**limit)))
        assert "capped_low" not in standings.values()
        assert "over_budget" in standings.values()

    def test_set_at_the_firmware(self) -> None:
        """A cap that somebody wrote there is the firmware's to enforce, and told apart from one in the settings."""
        budget = _judge(
            SPARK, *watts(soc=99, system=120), *limits(pl1=100), *limits(PUBLISHED, pl1=140), by=own(soc=110)
        )
        words = {limit.name: limit.words for limit in budget.limits if limit.origin is LimitOrigin.USER}
        assert {"pl1": "limit set below the embedded controller's", "soc_tdp": "limit from the settings"} == words
        assert Standing.AT_LIMIT is budget.verdicts["soc"].standing


class TestByAPart:
    """A whole that is not measured draws at least what its part does."""

    def test_headroom_is_withheld_where_it_surely_is_less(self) -> None:
        """35 W are left of PL1, but no more than 10 of the adapter: nobody knows how much less."""
        room = judged(found(SPARK, *watts(system=130, soc=105), *HEALTHY), *own(adapter=140)).headroom
        assert isinstance(room, Unmeasured)
        assert "adapter binds first" in room.detail
        assert "140 W less 130.0 (spbm system) leave 10.0 W" in room.detail

    def test_of_the_soc_alone(self) -> None:
        """With no reading of the system either, what the SoC draws is what is surely drawn."""
        room = judged(found(SPARK, *watts(soc=100), *HEALTHY), *own(adapter=120, system=130)).headroom
        assert isinstance(room, Unmeasured)
        assert "(spbm soc) leave 20.0 W" in room.detail or "(spbm soc) leave 30.0 W" in room.detail

    def test_no_less_than_what_is_known(self) -> None:
        """The adapter cannot be shown to bind first, so PL1's room stands, as it always did."""
        assert "pl1" == _headroom(SPARK, *watts(system=171, soc=140, pl1=139.7), *HEALTHY).limit.name

    @given(st.floats(1, 260), st.floats(0, 160), st.floats(50, 1000), st.booleans())
    def test_never_more_than_is_left(self, system: float, soc: float, adapter: float, is_measured: bool) -> None:
        """No headroom is promised that is above what any whole has left, measured or not."""
        entering = {"dc_input": system} if is_measured else {}
        powers = watts(system=system, soc=min(soc, system), **entering)
        room = judged(found(SPARK, *powers, *HEALTHY), *own(adapter=adapter)).headroom
        if isinstance(room, Headroom):
            assert room.watts <= adapter - system + 1e-9
            assert room.limit.scope == room.against.scope


class TestRest:
    """What the system draws besides its SoC."""

    @staticmethod
    def _rest(*items: Item, by: tuple[Limit, ...] = (), ages: Mapping[str, float] | None = None) -> Rest | Unmeasured:
        return judged(found(SPARK, *items, ages=ages), *by).rest

    def test_of_one_look(self) -> None:
        """One reading less the other, and of NVIDIA's allowance."""
        rest = self._rest(*watts(system=170.8, soc=140))
        assert isinstance(rest, Rest)
        assert (30.8, 0.308, "spbm system − spbm soc") == (rest.watts, rest.share, rest.source)
        assert "all but the SoC, 30.8 of 100 W, which nothing enforces" == rest.brief

    @pytest.mark.parametrize(
        ("items", "reason"),
        [
            (watts(system=170.8), Reason.NOT_SUPPORTED),
            (watts(soc=140, dc_input=175), Reason.NOT_SUPPORTED),
            (watts(gpu_nvml=46), Reason.NOT_ASKED),
            (watts(system=170.8, pl1=139.7), Reason.NOT_SUPPORTED),
            (watts(system=17, soc=17.5), Reason.IMPOSSIBLE),
            ((*watts(soc=140), replace(watts(system=170)[0], at=97.0)), Reason.NO_DATA),
        ],
        ids=["no SoC", "no system", "the GPU alone", "an average only", "below the SoC", "of two looks"],
    )
    def test_not_known(self, items: tuple[Item, ...], reason: Reason) -> None:
        """Then there is no number, no share and no second, with the reason."""
        budget = _judge(SPARK, *items)
        assert isinstance(budget.rest, Unmeasured)
        assert reason is budget.rest.reason
        assert "rest" not in budget.shares

    @pytest.mark.parametrize(("age", "is_counted"), [(5, True), (5.1, False), (31, False)])
    def test_recent(self, age: float, is_counted: bool) -> None:
        """An old one is told with its age, and counts for nothing."""
        budget = judged(found(SPARK, *watts(system=230, soc=130), ages={"spbm": age}))
        assert isinstance(budget.rest, Rest)
        assert age == pytest.approx(budget.rest.age)
        assert is_counted is ("rest" in budget.shares)

    @pytest.mark.parametrize(
        ("watts_", "standing"), [(90, "within"), (90.1, "near_limit"), (100, "near_limit"), (100.1, "over_budget")]
    )
    def test_decides_nothing(self, watts_: float, standing: str) -> None:
        """Near its allowance or above, it is evidence; verdicts and headroom are those of what is enforced."""
        budget = _judge(SPARK, *watts(dc_input=190, system=185, soc=185 - watts_), *HEALTHY)
        assert isinstance(budget.rest, Rest)
        assert standing == budget.rest.standing
        assert ("within", "within") == tuple(_standings(budget).values())[:2]
        told_ = [line for line in budget.verdicts["system"].evidence if line.startswith("all but the SoC")]
        assert (standing != "within") == bool(told_)
        assert isinstance(budget.headroom, Headroom)
        assert "rest" != budget.headroom.limit.name

    def test_by_the_owners_limit(self) -> None:
        """And by whose it is."""
        rest = self._rest(*watts(system=170, soc=140), by=own(rest=32))
        assert isinstance(rest, Rest)
        assert (Standing.NEAR_LIMIT, 0.9375) == (rest.standing, rest.share)
        assert "93.8 % (spbm system − spbm soc; limit from the settings)" in rest.told

    def test_without_a_limit(self) -> None:
        """On another machine nothing is allowed or forbidden."""
        rest = _judge(OTHER, *watts(system=170, soc=40)).rest
        assert isinstance(rest, Rest)
        assert (None, Standing.WITHIN) == (rest.limit, rest.standing)
        assert "all but the SoC, 130.0 W (spbm system − spbm soc)" == rest.told

    @pytest.mark.parametrize(
        ("powers", "caps", "is_crowded"),
        [
            ({"system": 231.1, "soc": 140}, HEALTHY, True),
            ({"system": 230.9, "soc": 140}, HEALTHY, False),
            ({"system": 228.3, "soc": 137.2}, HEALTHY, True),
            ({"system": 228.0, "soc": 137.1}, HEALTHY, False),
            ({"system": 240, "soc": 100}, HEALTHY, False),
            ({"system": 231.1, "soc": 140}, (), True),
            ({"system": 231.1, "soc": 140}, limits(pl1=140, syspl1=240), False),
            ({"system": 200, "soc": 100}, limits(pl1=100, syspl1=195), True),
            ({"system": 170.8, "soc": 140}, HEALTHY, False),
        ],
    )
    def test_what_matters_is_both(self, powers: Mapping[str, float], caps: tuple[Item, ...], is_crowded: bool) -> None:
        """The SoC at PL1, and the rest above what SysPL1 leaves then: 91 W, or what the limits in force make it."""
        look = found(SPARK, *watts(**powers), *caps)
        assert is_crowded is bool(crowded(judged(look)))
        assert is_crowded is ("soc_and_rest" in [finding.id for finding in told(look)])

    def test_its_words(self) -> None:
        """Both halves, and what is left."""
        (finding,) = (
            one for one in told(found(SPARK, *watts(system=235, soc=140), *HEALTHY)) if one.id == "soc_and_rest"
        )
        assert (
            "at its limit: PL1 (SoC, sustained), 140.0 of 140 W",
            "all but the SoC draws 95.0 W (spbm system − spbm soc)",
            "with the SoC at PL1, 140 W, SysPL1 leaves 91 of 231 W for the rest",
        ) == finding.evidence
        assert "USB-C" in finding.action


@given(
    st.dictionaries(st.sampled_from(["dc_input", "system", "soc", "pl1", "syspl1"]), st.floats(0, 300)),
    st.dictionaries(st.sampled_from(["adapter", "soc", "system", "rest"]), st.floats(1, 1000)),
)
def test_any_limits_of_ones_own(powers: dict[str, float], limits_: dict[str, float]) -> None:
    """Whatever is set: a share only of what was read, and over budget only where a limit in force is exceeded."""
    budget = _judge(SPARK, *watts(**powers), *HEALTHY, by=own(**limits_))
    by_name = {limit.name: limit for limit in budget.limits}
    assert len(by_name) == len(budget.limits)
    assert set(budget.shares) <= set(by_name)
    for name, set_ in (("adapter", "adapter"), ("soc_tdp", "soc"), ("system", "system"), ("rest", "rest")):
        if set_ in limits_:
            assert (limits_[set_], LimitOrigin.USER) == (by_name[name].watts, by_name[name].origin)
    assert (140, 231) == (by_name["pl1"].watts, by_name["syspl1"].watts)
    for scope in ("system", "soc"):
        verdict = budget.verdicts[scope]
        percents = [
            float(re.search(r", ([0-9.]+) %", line)[1])  # type: ignore[index]
            for line in verdict.evidence
            if " % (" in line and not line.startswith("all but the SoC")
        ]
        if verdict.standing is Standing.OVER_BUDGET:
            assert max(percents) >= 100
        elif verdict.standing is Standing.WITHIN:
            assert max(percents, default=0) <= 90


@given(
    st.dictionaries(
        st.sampled_from(
            ["dc_input", "system", "soc", "cpu_gpu", "gpu_rail", "gpu_nvml", "pl1", "pl2", "syspl1", "syspl2"]
        ),
        st.floats(0, 300),
    ),
    st.dictionaries(st.sampled_from(["pl1", "pl2", "syspl1", "syspl2"]), st.floats(0.1, 1000)),
    st.booleans(),
)
def test_any_reading(powers: dict[str, float], caps: dict[str, float], is_spark: bool) -> None:
    """Whatever is read: there is a verdict for each scope, and headroom only of a limit and a reading of one scope."""
    budget = _judge(SPARK if is_spark else OTHER, *watts(**powers), *limits(**caps))
    assert ["system", "soc", "gpu"] == list(budget.verdicts)
    assert all(verdict.reason for verdict in budget.verdicts.values())
    if isinstance(budget.headroom, Headroom):
        room = budget.headroom
        assert room.limit.scope == room.against.scope
        assert room.limit.watts - room.against.value == room.watts
