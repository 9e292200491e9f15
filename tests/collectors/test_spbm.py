"""The firmware's power page through every driver that is known: other files, the same meaning."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hosts import absence, host, look, value
from hypothesis import given
from hypothesis import strategies as st

from spark_agent.collectors import (
    Absence,
    Host,
    Item,
    NoData,
    Quality,
    Quantity,
    Reading,
    Reason,
    Scope,
    Unavailable,
    spbm,
)
from spark_agent.collectors._power import CEILING, FLOOR, LIMIT, PUBLISHED
from spark_agent.collectors._untrusted import SIGNAL
from spark_agent.collectors.spbm import read

_CHIP = "/sys/class/hwmon/hwmon3"
_LIMITS = {"pl1": 140, "pl2": 142, "syspl1": 231, "syspl2": 244}
_AVERAGES = {"pl1": 18, "pl2": 18.1, "syspl1": 26, "syspl2": 27}
_BUDGETS = {"budget_cpu": 105, "budget_gpu": 170, "budget_cpu_e": 19, "budget_cpu_p": 97}
_STATUS = ("prochot", "pl_level", "tj_max_c")
_TEMPERATURES = ("tj_max", "cpu_e_clu0", "cpu_p_clu0", "cpu_e_clu1", "cpu_p_clu1", "gpu", "soc", "dla")

# An idle Founders Edition, in watts by scope, and its registers in joules.
_IDLE = {
    "sys_total": 25.0,
    "soc_pkg": 17.0,
    "cpu_gpu": 6.0,
    "cpu_p": 0.5,
    "cpu_e": 0.01,
    "vcore": 4.0,
    "dc_input": 26.0,
}
_RAILS = {"gpu": 5.0, "prereg": 8.0, "dla": 0.1}
_RAILS_0_1 = {
    "gpu_out": 5.0,
    "gpc_out": 0,
    "gpu_in": 0,
    "gpc_in": 0,
    "sys_in": 0,
    "prereg_in": 8.0,
    "dla_in": 0.1,
    "dla_out": 0,
}
_JOULES = {"pkg": 196_494.0, "cpu_e": 105.0, "cpu_p": 5_257.0, "gpu": 52_570.0}
_JOULES_GPM = {"pkg": 196_494.0, "cpu_e": 105.0, "cpu_p": 5_257.0, "gpc": 0.0, "gpm": 52_570.0}


@dataclass(frozen=True)
class _Driver:
    """What one variant shows: powers in watts, joules by label, the files of each limit, further files."""

    name: str
    variant: str
    powers: Mapping[str, float]
    joules: Mapping[str, float] = field(default_factory=lambda: _JOULES)
    caps: Mapping[str, Sequence[float]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def _status() -> dict[str, str]:
    labels = {f"temp{number}_label": label for number, label in enumerate(_TEMPERATURES, 1)}
    return {
        **labels,
        **{name.replace("label", "input"): "30950" for name in labels},
        **dict(zip(_STATUS, ("1", "0", "40"), strict=True)),
    }


_OWN = tuple(_LIMITS.values())
_FLOORS = (0.1,) * 4
V0_1 = _Driver(
    "spbm",
    "0.1",
    {**_IDLE, "vddq": 0, **_RAILS_0_1, "pl1": 140, "pl2": 142, "syspl1": 231, **_BUDGETS},
    _JOULES_GPM,
)
V0_2 = _Driver(
    "spbm",
    "0.2",
    {**_IDLE, **_RAILS, **_LIMITS, **_BUDGETS, **{f"ewma_{name}": watts for name, watts in _AVERAGES.items()}},
    files={"prochot": "1", "pl_level": "0"},
)
V0_3 = _Driver(
    "spbm",
    "0.3",
    {**_IDLE, **_RAILS, **_AVERAGES},
    caps={"_cap": _OWN, "_max": (250, 250, 300, 300), "_min": _FLOORS},
    files=_status(),
)
OWEN = _Driver(
    "dgx_spbm_power",
    "0.1.0",
    {**_IDLE, **_RAILS, **_AVERAGES},
    caps={"_cap": _OWN, "_cap_max": _OWN, "_cap_min": _FLOORS},
    files=_status(),
)
AIEN = _Driver(
    "aien_spbm",
    "research",
    {"sys_total": 25.0, "soc_pkg": 17.0, "cpu_e": 0.01, "cpu_p": 0.5, "gpu": 5.0},
    {"pkg": 196_494.0, "cpu_e": 105.0, "cpu_p": 5_257.0, "gpc_unverified": 0.0, "gpm": 52_570.0},
    files={f"energy{number}_overflow_raw": "0" for number in range(1, 6)},
)
INV = _Driver("spbm_hwmon", "0.1", V0_1.powers, _JOULES_GPM)
DRIVERS = {"0.1": V0_1, "0.2": V0_2, "0.3": V0_3, "owen": OWEN, "aien": AIEN, "inv": INV}
every_driver = pytest.mark.parametrize("driver", DRIVERS.values(), ids=DRIVERS)
with_limits = pytest.mark.parametrize("driver", [V0_1, V0_2, V0_3, OWEN, INV], ids=["0.1", "0.2", "0.3", "owen", "inv"])


def _files(driver: _Driver, *, chip: str = _CHIP, first: int = 1, holes: Sequence[str] = ()) -> dict[str, str]:
    """Return the files of a chip, in its driver's order; a hole keeps its number and has no file."""
    files = {"name": driver.name, **driver.files}
    for number, (label, watts) in enumerate(driver.powers.items(), first):
        if label in holes:
            continue
        files[f"power{number}_label"] = label
        files[f"power{number}_input"] = f"{round(watts * 1e6)}"
        if label in _LIMITS:
            at = tuple(_LIMITS).index(label)
            files |= {f"power{number}{suffix}": f"{round(caps[at] * 1e6)}" for suffix, caps in driver.caps.items()}
    for number, (label, joules) in enumerate(driver.joules.items(), 1):
        files |= {f"energy{number}_label": label, f"energy{number}_input": f"{round(joules * 1e6)}"}
    return {f"{chip}/{name}": f"{text}\n" for name, text in files.items()}


def _number(driver: _Driver, label: str) -> int:
    return list(driver.powers).index(label) + 1


def _file(driver: _Driver, label: str, suffix: str = "_input") -> str:
    return f"{_CHIP}/power{_number(driver, label)}{suffix}"


def _host(
    driver: _Driver, changes: Mapping[str, str | None] | None = None, errors: Mapping[str, str] | None = None
) -> Host:
    files = _files(driver) | dict(changes or {})
    return host({path: text for path, text in files.items() if text is not None}, errors=errors)


def _powers(items: list[Item]) -> dict[Scope, float]:
    """Return every power by its scope; fail where a scope has two."""
    found = [item for item in items if isinstance(item, Reading) and item.of.section is spbm.POWER]
    found = [item for item in found if item.of not in (spbm.SOC_AVERAGE, spbm.SYSTEM_AVERAGE)]
    scopes = [item.of.scope for item in found]
    assert len(set(scopes)) == len(scopes)
    return {item.of.scope: item.value for item in found if item.of.scope}


def _limits(items: list[Item], of: Quantity = LIMIT) -> dict[tuple[str, ...], float]:
    return {item.labels: item.value for item in items if isinstance(item, Reading) and item.of is of}


@every_driver
def test_the_same_powers(driver: _Driver) -> None:
    """One machine, six drivers: each scope that a driver shows has the same watts, and none is a limit."""
    whole = {
        Scope.SYSTEM: 25,
        Scope.SOC: 17,
        Scope.CPU_GPU: 6,
        Scope.CPU_PERFORMANCE: 0.5,
        Scope.CPU_EFFICIENCY: 0.01,
        Scope.VCORE: 4,
        Scope.DC_INPUT: 26,
        Scope.GPU_RAIL: 5,
        Scope.PREREGULATOR: 8,
        Scope.DLA: 0.1,
    }
    missing = {
        "aien_spbm": {Scope.CPU_GPU, Scope.VCORE, Scope.DC_INPUT, Scope.PREREGULATOR, Scope.DLA},
    }.get(driver.name, {Scope.DLA} if driver.variant == "0.1" else set())
    items = look(read, _host(driver))
    assert {scope: watts for scope, watts in whole.items() if scope not in missing} == _powers(items)
    assert driver.name == value(items, spbm.DRIVER)
    assert driver.variant == value(items, spbm.VARIANT)


@with_limits
def test_the_same_limits(driver: _Driver) -> None:
    """Whether a driver shows them as inputs or as caps, the limits are the same, by the scope they bind."""
    limits = {("soc", "pl1"): 140, ("soc", "pl2"): 142, ("system", "syspl1"): 231, ("system", "syspl2"): 244}
    if "syspl2" not in driver.powers:
        del limits["system", "syspl2"]
    assert limits == _limits(look(read, _host(driver)))


@pytest.mark.parametrize("driver", [V0_2, V0_3, OWEN], ids=["0.2", "0.3", "owen"])
def test_the_same_averages(driver: _Driver) -> None:
    """What the firmware holds against its limits, under whichever label."""
    items = look(read, _host(driver))
    assert [18, 18.1] == [value(items, spbm.SOC_AVERAGE, "", name) for name in ("pl1", "pl2")]
    assert [26, 27] == [value(items, spbm.SYSTEM_AVERAGE, "", name) for name in ("syspl1", "syspl2")]


@every_driver
def test_the_same_registers(driver: _Driver) -> None:
    """Energies in joules; gpm is what others call gpu."""
    items = look(read, _host(driver))
    assert 196_494 == value(items, spbm.SOC_REGISTER)
    assert 5_257 == value(items, spbm.CPU_PERFORMANCE_REGISTER)
    assert 105 == value(items, spbm.CPU_EFFICIENCY_REGISTER)
    assert 52_570 == value(items, spbm.GPU_REGISTER)


@pytest.mark.parametrize("driver", [V0_1, V0_2, INV], ids=["0.1", "0.2", "inv"])
def test_a_limit_is_never_a_power(driver: _Driver) -> None:
    """Whoever plots pl1 of the first drivers sees 140 W at idle; here nothing measured is above the idle machine."""
    items = look(read, _host(driver))
    watts = [item.value for item in items if isinstance(item, Reading) and item.of.scope and item.of.unit == "W"]
    assert 27 == max([*watts, 27])


def test_further_limits() -> None:
    """Ceilings and floors stand apart from the limits in force, and so do published ones."""
    items = look(read, _host(V0_3))
    assert 250 == _limits(items, CEILING)["soc", "pl1"]
    assert 0.1 == _limits(items, FLOOR)["system", "syspl1"]
    assert {} == _limits(items, PUBLISHED)
    items = look(read, _host(OWEN))
    assert 140 == _limits(items, PUBLISHED)["soc", "pl1"]
    assert 0.1 == _limits(items, FLOOR)["soc", "pl1"]
    assert {} == _limits(items, CEILING)


@every_driver
def test_where_it_comes_from(driver: _Driver) -> None:
    """A source names driver and label, which survive renumbering, and no path."""
    sources = [item.origin for item in look(read, _host(driver)) if isinstance(item, Reading) and item.of is spbm.SOC]
    assert [f"{driver.name} soc_pkg"] == sources


class TestChannels:
    """Channels go by their labels."""

    @every_driver
    @pytest.mark.parametrize(("number", "first"), [(0, 1), (11, 7), (2, 30)])
    def test_renumbered(self, driver: _Driver, number: int, first: int) -> None:
        """Another hwmon number and other channel numbers change nothing."""
        chip = f"/sys/class/hwmon/hwmon{number}"
        moved = look(read, host(_files(driver, chip=chip, first=first)))
        usual = look(read, _host(driver))
        assert _powers(usual) == _powers(moved)
        assert _limits(usual) == _limits(moved)

    def test_ten_is_not_before_two(self) -> None:
        """In the alphabet power10 (dla) comes before power2 (soc_pkg)."""
        items = look(read, _host(V0_3))
        assert 10 == _number(V0_3, "dla")
        assert 0.1 == value(items, spbm.DLA)
        assert 17 == value(items, spbm.SOC)

    def test_holes(self) -> None:
        """A channel that the firmware's table does not have is not there; all others keep their meaning."""
        items = look(read, host(_files(V0_3, holes=["cpu_gpu", "pl1", "dla"])))
        assert {Scope.CPU_GPU, Scope.DLA} == set(_powers(look(read, _host(V0_3)))) - set(_powers(items))
        assert {("soc", "pl2"), ("system", "syspl1"), ("system", "syspl2")} == set(_limits(items))
        assert "0.3" == value(items, spbm.VARIANT)
        assert [] == [item for item in items if isinstance(item, Absence)]

    def test_a_label_that_cannot_be_read(self) -> None:
        """The channel is not guessed by its number: what it may have been is absent for that reason."""
        path = _file(V0_3, "soc_pkg", "_label")
        items = look(read, _host(V0_3, {path: None}, {path: "EIO"}))
        assert Reason.IO_ERROR is absence(items, spbm.SOC).reason
        assert 25 == value(items, spbm.SYSTEM)
        assert 140 == value(items, LIMIT, "", "soc", "pl1")

    def test_a_limits_label_that_cannot_be_read(self) -> None:
        """Its limit is not left out in silence."""
        path = _file(V0_3, "pl1", "_label")
        items = look(read, _host(V0_3, {path: None}, {path: "EACCES"}))
        assert Reason.PERMISSION_DENIED is absence(items, LIMIT, "", "soc", "pl1").reason
        assert 142 == value(items, LIMIT, "", "soc", "pl2")

    def test_a_foreign_channel(self) -> None:
        """A label that nobody knows is left alone."""
        changes = {f"{_CHIP}/power99_label": "warp_core", f"{_CHIP}/power99_input": "1000000"}
        assert _powers(look(read, _host(V0_3))) == _powers(look(read, _host(V0_3, changes)))

    def test_the_junk_fan_is_no_power(self) -> None:
        """A Dell's acpi_fan has a power1_input too."""
        junk = {"/sys/class/hwmon/hwmon0/name": "acpi_fan", "/sys/class/hwmon/hwmon0/power1_input": "5000"}
        with pytest.raises(NoData):
            look(read, host(junk))
        assert _powers(look(read, _host(V0_3))) == _powers(look(read, _host(V0_3, junk)))

    @pytest.mark.parametrize(("one", "other"), [(3, 5), (5, 3)])
    def test_two_drivers(self, one: int, other: int) -> None:
        """Of two drivers the same one speaks after each boot: that which says most."""
        files = _files(AIEN, chip=f"/sys/class/hwmon/hwmon{one}") | _files(OWEN, chip=f"/sys/class/hwmon/hwmon{other}")
        assert "dgx_spbm_power" == value(look(read, host(files)), spbm.DRIVER)


class TestUnknownVariant:
    """A set of labels that fits no driver that is known."""

    driver = _Driver("spbm", "unknown", {**_IDLE, **_RAILS, "pl1": 140, "pl2": 142, "syspl1": 18})

    def test_refuses_to_interpret_limits(self) -> None:
        """Without a cap, pl1 may be a power or a limit: it is neither, and that is said."""
        items = look(read, _host(self.driver))
        assert "unknown" == value(items, spbm.VARIANT)
        assert {} == _limits(items)
        assert {} == _limits(items, spbm.SOC_AVERAGE) | _limits(items, spbm.SYSTEM_AVERAGE)
        refused = absence(items, LIMIT, "", "soc", "pl1")
        assert Reason.NOT_SUPPORTED is refused.reason
        assert "a power or a limit" in refused.detail

    def test_powers_stand(self) -> None:
        """What is called the same in every driver is the same."""
        assert 17 == value(look(read, _host(self.driver)), spbm.SOC)


class TestFaults:
    """One file's fault is one absence."""

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("4294967295000", Reason.IMPOSSIBLE),  # all ones in milliwatts
            ("4294967295", Reason.IMPOSSIBLE),  # all ones in microwatts
            ("1000000001", Reason.IMPOSSIBLE),  # above 1000 W
            ("160000001", Reason.IMPOSSIBLE),  # above what the SoC can draw
            ("-1", Reason.IMPOSSIBLE),
            ("", Reason.GARBAGE),
            ("nan", Reason.GARBAGE),
            ("17 W", Reason.GARBAGE),
        ],
    )
    def test_no_such_power(self, content: str, reason: Reason) -> None:
        """What cannot be is rejected, and the rest stands."""
        items = look(read, _host(V0_3, {_file(V0_3, "soc_pkg"): content}))
        assert reason is absence(items, spbm.SOC).reason
        assert 25 == value(items, spbm.SYSTEM)

    def test_no_such_average(self) -> None:
        """An average has the bounds of what it is the average of."""
        files = {
            _file(V0_3, "pl1"): "160000001",
            _file(V0_3, "syspl1"): "265000001",
            _file(V0_3, "syspl2"): "170000000",
        }
        items = look(read, _host(V0_3, files))
        assert Reason.IMPOSSIBLE is absence(items, spbm.SOC_AVERAGE, "", "pl1").reason
        assert Reason.IMPOSSIBLE is absence(items, spbm.SYSTEM_AVERAGE, "", "syspl1").reason
        assert 170 == value(items, spbm.SYSTEM_AVERAGE, "", "syspl2")

    def test_the_system_may_draw_more_than_the_soc(self) -> None:
        """Each scope has bounds of its own."""
        files = {_file(V0_3, "sys_total"): "170800000", _file(V0_3, "dc_input"): "265000001"}
        items = look(read, _host(V0_3, files))
        assert 170.8 == value(items, spbm.SYSTEM)
        assert Reason.IMPOSSIBLE is absence(items, spbm.DC_INPUT).reason

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            ("EBADMSG", Reason.IMPOSSIBLE),
            ("EOVERFLOW", Reason.OVERFLOW),
            ("ENODATA", Reason.NO_DATA),
            ("EACCES", Reason.PERMISSION_DENIED),
            ("EIO", Reason.IO_ERROR),
            ("ENODEV", Reason.DEVICE_LOST),
        ],
    )
    def test_unreadable(self, error: str, reason: Reason) -> None:
        """A driver's own errors keep their meaning, for powers, limits, registers and status alike."""
        paths = [_file(OWEN, "soc_pkg"), _file(OWEN, "pl1", "_cap"), f"{_CHIP}/energy1_input", f"{_CHIP}/prochot"]
        items = look(read, _host(OWEN, dict.fromkeys(paths), dict.fromkeys(paths, error)))
        for found in (
            absence(items, spbm.SOC),
            absence(items, LIMIT, "", "soc", "pl1"),
            absence(items, spbm.SOC_REGISTER),
            absence(items, SIGNAL, "dgx_spbm_power prochot"),
        ):
            assert reason is found.reason
            assert error in found.detail
        assert 25 == value(items, spbm.SYSTEM)
        assert 142 == value(items, LIMIT, "", "soc", "pl2")

    def test_unpublished(self) -> None:
        """ENODATA of cap_max: the controller published no limit, while the one in force can be read."""
        paths = [_file(OWEN, name, "_cap_max") for name in _LIMITS]
        items = look(read, _host(OWEN, dict.fromkeys(paths), dict.fromkeys(paths, "ENODATA")))
        assert Reason.NO_DATA is absence(items, PUBLISHED, "", "soc", "pl1").reason
        assert 140 == value(items, LIMIT, "", "soc", "pl1")

    @pytest.mark.parametrize("content", ["0", "4294967295000", "1000000001"])
    def test_no_such_limit(self, content: str) -> None:
        """An empty slot is no limit of 0 W, and all-ones none of megawatts."""
        items = look(read, _host(V0_3, {_file(V0_3, "pl1", "_cap"): content}))
        assert Reason.IMPOSSIBLE is absence(items, LIMIT, "", "soc", "pl1").reason

    def test_a_cap_that_is_not_there(self) -> None:
        """Older builds have no floor; the limit in force stands."""
        items = look(read, _host(V0_3, {_file(V0_3, name, "_min"): None for name in _LIMITS}))
        assert Reason.NOT_FOUND is absence(items, FLOOR, "", "soc", "pl1").reason
        assert 140 == value(items, LIMIT, "", "soc", "pl1")

    def test_a_cap_that_nobody_may_read(self) -> None:
        """The variant is told by the cap's presence, not by its content."""
        paths = [_file(V0_3, name, "_cap") for name in _LIMITS]
        items = look(read, _host(V0_3, dict.fromkeys(paths), dict.fromkeys(paths, "EACCES")))
        assert "0.3" == value(items, spbm.VARIANT)
        assert Reason.PERMISSION_DENIED is absence(items, LIMIT, "", "soc", "pl1").reason
        assert 18 == value(items, spbm.SOC_AVERAGE, "", "pl1")


class TestRegisters:
    """Energy registers of 32 bits of millijoules."""

    @pytest.mark.parametrize("microjoules", [0, 4_294_967_294_000])
    def test_whole_range(self, microjoules: int) -> None:
        """Each value up to the last before the wrap is one; 0 is what a register holds at boot."""
        items = look(read, _host(V0_3, {f"{_CHIP}/energy1_input": f"{microjoules}"}))
        assert microjoules / 1e6 == value(items, spbm.SOC_REGISTER)

    def test_all_ones(self) -> None:
        """All ones mean that the register was not read."""
        items = look(read, _host(V0_3, {f"{_CHIP}/energy1_input": "4294967295000"}))
        found = absence(items, spbm.SOC_REGISTER)
        assert (Reason.IMPOSSIBLE, "all ones: the register was not read") == (found.reason, found.detail)

    @pytest.mark.parametrize("content", ["4294967296001", "-1", "18446744073709551615"])
    def test_wider_than_32_bits(self, content: str) -> None:
        """No register holds more than it has bits for."""
        assert (
            Reason.IMPOSSIBLE
            is absence(look(read, _host(V0_3, {f"{_CHIP}/energy1_input": content})), spbm.SOC_REGISTER).reason
        )

    def test_overflow(self) -> None:
        """A register whose overflow flag is up says nothing; its neighbours stand."""
        items = look(read, _host(AIEN, {f"{_CHIP}/energy1_overflow_raw": "1"}))
        assert Reason.OVERFLOW is absence(items, spbm.SOC_REGISTER).reason
        assert 5_257 == value(items, spbm.CPU_PERFORMANCE_REGISTER)

    def test_an_overflow_flag_that_cannot_be_read(self) -> None:
        """Whether the register overflowed is not known, so it says nothing either."""
        path = f"{_CHIP}/energy1_overflow_raw"
        assert (
            Reason.IO_ERROR is absence(look(read, _host(AIEN, {path: None}, {path: "EIO"})), spbm.SOC_REGISTER).reason
        )

    def test_nothing_for_the_system(self) -> None:
        """There is no accumulator of the whole box."""
        found = {item.of.scope for item in look(read, _host(V0_3)) if isinstance(item, Reading) and item.of.unit == "J"}
        assert {Scope.SOC, Scope.CPU_PERFORMANCE, Scope.CPU_EFFICIENCY, Scope.GPU_RAIL} == found


class TestUntrusted:
    """What is known to mislead is shown as read, with the reason, and is nothing else."""

    @staticmethod
    def _signals(driver: _Driver) -> dict[str, Reading]:
        items = look(read, _host(driver))
        found = [item for item in items if isinstance(item, Reading) and item.quality is Quality.UNTRUSTED]
        assert {SIGNAL} == {item.of for item in found}
        assert all(item.note for item in found)
        return {item.entity: item for item in found}

    @pytest.mark.parametrize("driver", [V0_3, OWEN], ids=["0.3", "owen"])
    def test_status(self, driver: _Driver) -> None:
        """On healthy machines prochot is 1; pl_level and tj_max_c are raw numbers that nobody documents."""
        signals = self._signals(driver)
        assert [1, 0, 40] == [signals[f"{driver.name} {name}"].value for name in _STATUS]
        assert "healthy machines" in signals[f"{driver.name} prochot"].note

    @pytest.mark.parametrize("driver", [V0_3, OWEN], ids=["0.3", "owen"])
    def test_temperatures(self, driver: _Driver) -> None:
        """The drivers take deci-Kelvin for centi-degrees: none of their temperatures is one."""
        signals = self._signals(driver)
        assert 8 == len([name for name in signals if "temperature" in name])
        found = signals[f"{driver.name} temperature gpu"]
        assert 30_950 == found.value
        assert "deci-Kelvin" in found.note
        assert "°C = value / 100 − 273.15" in found.note
        assert [] == [item for item in look(read, _host(driver)) if item.of.key.endswith("celsius")]

    def test_status_elsewhere_is_not_looked_for(self) -> None:
        """Another tool expects prochot below the platform device; the drivers put it into the hwmon directory."""
        changes = {f"{_CHIP}/{name}": None for name in _STATUS} | {"/sys/bus/platform/devices/NVDA8800:00/prochot": "1"}
        items = look(read, _host(V0_3, changes))
        assert [] == [item for item in items if isinstance(item, Reading) and item.entity.endswith(_STATUS)]

    def test_dead_channels_and_allotments(self) -> None:
        """Channels that always read 0, and the firmware's budgets, are no powers."""
        signals = self._signals(V0_1)
        labels = {"vddq", "gpc_out", "gpc_in", "gpu_in", "sys_in", "dla_in", "dla_out", *_BUDGETS}
        assert {f"spbm {label}" for label in labels} | {"spbm energy gpc"} == set(signals)
        assert 170e6 == signals["spbm budget_gpu"].value

    def test_the_unverified_register(self) -> None:
        """Its own driver calls it so."""
        assert ["aien_spbm energy gpc_unverified"] == list(self._signals(AIEN))


class TestNoDriver:
    """Most Sparks have none."""

    @pytest.mark.parametrize("bus", ["acpi", "platform"])
    def test_a_stock_spark(self, bus: str) -> None:
        """The page is there, and nothing reads it: that is normal, and no fault."""
        with pytest.raises(NoData, match="no driver for it is installed") as caught:
            look(read, host({f"/sys/bus/{bus}/devices/NVDA8800:00/path": r"\_SB_.MTEL"}))
        assert Reason.NO_DRIVER is caught.value.reason
        assert not caught.value.reason.is_fault

    def test_another_machine(self) -> None:
        """A PC has no such page."""
        with pytest.raises(NoData) as caught:
            look(read, host({"/sys/class/hwmon/hwmon0/name": "coretemp"}))
        assert Reason.NO_DEVICE is caught.value.reason

    def test_a_chip_whose_name_cannot_be_read(self) -> None:
        """By its device it is the power page's: that is a fault, whichever other chips have no name either."""
        device = "/sys/devices/LNXSYSTM:00/NVDA8800:00"
        machine = host(
            {f"{device}/path": r"\_SB_.MTEL"},
            links={f"{_CHIP}/device": device},
            errors={f"{_CHIP}/name": "EIO", "/sys/class/hwmon/hwmon4/name": "EIO"},
        )
        with pytest.raises(Unavailable) as caught:
            look(read, machine)
        assert Reason.IO_ERROR is caught.value.reason
        assert f"{_CHIP}/name" in caught.value.detail

    def test_a_driver_without_channels(self) -> None:
        """A driver that shows nothing is named all the same."""
        items = look(read, host({f"{_CHIP}/name": "spbm"}))
        assert ["spbm", "unknown"] == [value(items, spbm.DRIVER), value(items, spbm.VARIANT)]
        assert 2 == len(items)


@given(st.text() | st.integers().map(str))
def test_parsers(text: str) -> None:
    """Each gives a finite number, or says what it was given."""
    for parse in (spbm.parse_micro, spbm.parse_register):
        with suppress(ValueError, Unavailable):
            assert -math.inf < parse(text) < math.inf


@given(st.sampled_from(sorted(_files(OWEN))), st.text(max_size=20) | st.integers().map(str))
def test_garbage_in_any_file(path: str, text: str) -> None:
    """Whatever one file holds, nothing is raised but "no such driver", and no reading leaves its bounds."""
    with suppress(NoData):
        for item in look(read, _host(OWEN, {path: text})):
            if isinstance(item, Reading):
                low, high = item.of.bounds
                assert low <= item.value <= high
