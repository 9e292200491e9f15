"""Temperatures, each told apart by what it is and never by its number."""

import pytest
from hosts import absence, host, look, value

from spark_agent.collectors import Fact, Host, Item, NoData, Property, Quantity, Reading, Reason
from spark_agent.collectors.thermal import (
    ACPI_PATH,
    COOLING_TYPE,
    CRITICAL,
    PLACE,
    STATE,
    STATE_MAX,
    TEMPERATURE,
    TRIP,
    TYPE,
    read,
)

_CLASS = "/sys/class/thermal"
_ZONES = ("TSOC", "TS0E", "TS0P", "TS1E", "TS1P", "TGPU", "TUNC")
_PORTS = ("0000:01:00.0", "0000:01:00.1", "0002:01:00.0", "0002:01:00.1")


def _zones(names: tuple[str, ...] = _ZONES) -> dict[str, str]:
    """Return a Spark's zones, in the order of the names; zone N is at 41 - N °C."""
    files: dict[str, str] = {}
    for number, name in enumerate(names):
        zone = f"{_CLASS}/thermal_zone{number}"
        files |= {
            f"{zone}/type": "acpitz\n",
            f"{zone}/temp": f"{41_000 - 1000 * number}\n",
            f"{zone}/device/path": f"\\_SB_.{name}\n",
            f"{zone}/trip_point_0_type": "critical\n",
            f"{zone}/trip_point_0_temp": "104850\n",
        }
    return files


def _spark(errors: dict[str, str] | None = None, **more: str) -> Host:
    """Return a Founders Edition with its network card awake."""
    files = _zones() | more
    links = {}
    for number, port in enumerate(_PORTS):
        chip = f"/sys/class/hwmon/hwmon{number + 3}"
        device = f"/sys/devices/pci{port[:7]}/{port[:4]}:00:00.0/{port}"
        links[f"{chip}/device"] = device
        files |= {
            f"{device}/vendor": "0x15b3\n",
            f"{chip}/name": "mlx5\n",
            f"{chip}/temp1_input": f"{44_000 + number * 1000}\n",
            f"{chip}/temp1_label": "asic\n",
            f"{chip}/temp1_crit": "105000\n",
            f"{chip}/temp1_highest": "66000\n",
        }
    wifi = "/sys/devices/pci0009:00/0009:00:00.0/0009:01:00.0/ieee80211/phy0"
    links["/sys/class/hwmon/hwmon2/device"] = wifi
    files |= {
        f"{wifi}/name": "phy0\n",
        "/sys/class/hwmon/hwmon2/name": "mt7925_phy0\n",
        "/sys/class/hwmon/hwmon2/temp1_input": "36000\n",
        "/sys/class/hwmon/hwmon1/name": "nvme\n",
        "/sys/class/hwmon/hwmon1/temp1_input": "36850\n",
        "/sys/class/hwmon/hwmon0/name": "acpitz\n",
    }
    files |= {f"/sys/class/hwmon/hwmon0/temp{number + 1}_input": "41000\n" for number in range(7)}
    return host(files, links=links, errors=errors)


def test_a_spark_has_seven_zones_each_with_its_place() -> None:
    """The place comes from the zone's name in ACPI."""
    items = look(read, _spark())
    assert [41, 40, 39, 38, 37, 36, 35] == [value(items, TEMPERATURE, f"thermal_zone{n}") for n in range(7)]
    assert [
        "SoC maximum",
        "cluster 0 efficiency",
        "cluster 0 performance",
        "cluster 1 efficiency",
        "cluster 1 performance",
        "GPU",
        "uncore",
    ] == [value(items, PLACE, f"thermal_zone{n}") for n in range(7)]
    assert {104.85} == {value(items, CRITICAL, f"thermal_zone{n}") for n in range(7)}
    assert "acpitz" == value(items, TYPE, "thermal_zone6")
    assert r"\_SB_.TUNC" == value(items, ACPI_PATH, "thermal_zone6")


def test_a_zones_number_says_nothing_about_its_place() -> None:
    """Another firmware may list the zones in another order."""
    items = look(read, host(_zones(("TGPU", "TSOC"))))
    assert "GPU" == value(items, PLACE, "thermal_zone0")
    assert "SoC maximum" == value(items, PLACE, "thermal_zone1")


def test_a_zone_without_a_known_name_has_no_place() -> None:
    """A PC's zones, with or without ACPI, are shown without a guess."""
    files = _zones(("TZ00",)) | {
        f"{_CLASS}/thermal_zone1/type": "x86_pkg_temp",
        f"{_CLASS}/thermal_zone1/temp": "50000",
    }
    items = look(read, host(files))
    assert [] == [item for item in items if item.of is PLACE]
    assert 50 == value(items, TEMPERATURE, "thermal_zone1")
    assert Reason.NOT_FOUND is absence(items, ACPI_PATH, "thermal_zone1").reason


def test_the_network_card_and_wifi_are_told_apart_by_their_address() -> None:
    """Four functions of one ConnectX-7 bear the same chip name and the same label."""
    items = look(read, _spark())
    assert [44, 45, 46, 47] == [value(items, TEMPERATURE, f"mlx5-{port}/asic") for port in _PORTS]
    assert {105} == {value(items, CRITICAL, f"mlx5-{port}/asic") for port in _PORTS}
    assert 36 == value(items, TEMPERATURE, "mt7925_phy0-0009:01:00.0/temp1")
    assert "mlx5" == value(items, TYPE, "mlx5-0002:01:00.1/asic")


def test_nothing_is_said_twice() -> None:
    """The thermal core repeats its zones in hwmon, and the SSD is nvme's to report."""
    items = look(read, _spark())
    sensors = [item.entity for item in items if item.of is TEMPERATURE]
    assert 7 + 4 + 1 == len(sensors)
    assert sorted(set(sensors)) == sorted(sensors)


@pytest.mark.parametrize("driver", ["spbm", "dgx_spbm_power", "aien_spbm"])
def test_temperatures_of_the_firmware_page_are_not_read_here(driver: str) -> None:
    """Its drivers take tenths of a kelvin for hundredths of a degree."""
    machine = host(
        {
            "/sys/class/hwmon/hwmon5/name": driver,
            "/sys/class/hwmon/hwmon5/temp1_input": "31200",
            "/sys/class/hwmon/hwmon5/temp1_label": "tj_max",
        }
    )
    with pytest.raises(NoData):
        look(read, machine)


def test_a_pcs_processor_is_read_from_hwmon() -> None:
    """A machine without ACPI zones still has temperatures."""
    machine = host(
        {
            "/sys/class/hwmon/hwmon1/name": "k10temp",
            "/sys/class/hwmon/hwmon1/temp1_input": "55125",
            "/sys/class/hwmon/hwmon1/temp1_label": "Tctl",
        }
    )
    items = look(read, machine)
    assert 55.125 == value(items, TEMPERATURE, "k10temp/Tctl")
    assert [] == [item for item in items if item.of is CRITICAL]


def test_a_zone_whose_type_has_a_hyphen_is_not_repeated_either() -> None:
    """The hwmon class forbids a hyphen in a name, so the thermal core writes an underscore."""
    machine = host(
        {
            f"{_CLASS}/thermal_zone0/type": "soc-thermal",
            f"{_CLASS}/thermal_zone0/temp": "45000",
            "/sys/class/hwmon/hwmon0/name": "soc_thermal",
            "/sys/class/hwmon/hwmon0/temp1_input": "45000",
        }
    )
    assert 1 == len([item for item in look(read, machine) if item.of is TEMPERATURE])


def test_other_trips_keep_their_type_and_number() -> None:
    """Several active trips stay apart, only the first critical one is the limit, and -274 °C is a trip never set."""
    zone = f"{_CLASS}/thermal_zone0"
    trips = [("active", 71_000), ("active", 55_000), ("critical", 105_000), ("hot", -274_000), ("critical", 110_000)]
    files = {f"{zone}/type": "acpitz", f"{zone}/temp": "40000"}
    for number, (type_, temperature) in enumerate(trips):
        files |= {f"{zone}/trip_point_{number}_type": type_, f"{zone}/trip_point_{number}_temp": str(temperature)}
    items = look(read, host(files))
    assert 105 == value(items, CRITICAL, "thermal_zone0")
    assert 71 == value(items, TRIP, "thermal_zone0", "active 0")
    assert 55 == value(items, TRIP, "thermal_zone0", "active 1")
    assert 110 == value(items, TRIP, "thermal_zone0", "critical 4")
    assert Reason.IMPOSSIBLE is absence(items, TRIP, "thermal_zone0", "hot 3").reason


@pytest.mark.parametrize(
    ("file", "error", "of", "reason", "labels"),
    [
        ("temp", "EIO", TEMPERATURE, Reason.IO_ERROR, ()),
        ("temp", "ENODATA", TEMPERATURE, Reason.NO_DATA, ()),
        ("temp", "EAGAIN", TEMPERATURE, Reason.NO_DATA, ()),
        ("temp", "ENOENT", TEMPERATURE, Reason.NOT_FOUND, ()),
        ("type", "EACCES", TYPE, Reason.PERMISSION_DENIED, ()),
        ("device/path", "EACCES", ACPI_PATH, Reason.PERMISSION_DENIED, ()),
        ("trip_point_0_temp", "EINVAL", CRITICAL, Reason.NO_DATA, ()),
        ("trip_point_0_type", "EBADMSG", TRIP, Reason.IMPOSSIBLE, ("0",)),
    ],
)
def test_one_files_fault_is_one_absence(
    file: str, error: str, of: Quantity | Property, reason: Reason, labels: tuple[str, ...]
) -> None:
    """The rest of the zone, and every other zone, stands."""
    whole = look(read, host(_zones()))
    items = look(read, host(_zones(), errors={f"{_CLASS}/thermal_zone2/{file}": error}))
    assert reason is absence(items, of, "thermal_zone2", *labels).reason
    lost = {(item.of.key, item.entity) for item in _found(whole)} - {
        (item.of.key, item.entity) for item in _found(items)
    }
    assert {entity for _, entity in lost} == {"thermal_zone2"}
    assert len(lost) <= 2, "a zone without its path has no place; nothing else goes with another"


def _found(items: list[Item]) -> list[Reading | Fact]:
    return [item for item in items if isinstance(item, Reading | Fact)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", Reason.GARBAGE),
        ("41.0", Reason.GARBAGE),
        ("nan", Reason.GARBAGE),
        ("-273150", Reason.IMPOSSIBLE),
        ("-200000", Reason.IMPOSSIBLE),
        ("150001", Reason.IMPOSSIBLE),
        ("65261850", Reason.IMPOSSIBLE),
    ],
)
def test_what_is_no_temperature_is_an_absence(content: str, reason: Reason) -> None:
    """Garbage and what no machine can have never become a number."""
    items = look(read, host(_zones() | {f"{_CLASS}/thermal_zone0/temp": content}))
    assert reason is absence(items, TEMPERATURE, "thermal_zone0").reason
    assert 40 == value(items, TEMPERATURE, "thermal_zone1")


def test_an_empty_type_is_an_absence() -> None:
    """A zone without a type still has its temperature."""
    items = look(read, host(_zones() | {f"{_CLASS}/thermal_zone0/type": "\n"}))
    assert Reason.NO_DATA is absence(items, TYPE, "thermal_zone0").reason
    assert 41 == value(items, TEMPERATURE, "thermal_zone0")


def test_wifi_that_is_down_has_no_temperature() -> None:
    """The radio's driver answers ENODATA while the interface is down."""
    items = look(read, _spark(errors={"/sys/class/hwmon/hwmon2/temp1_input": "ENODATA"}))
    assert Reason.NO_DATA is absence(items, TEMPERATURE, "mt7925_phy0-0009:01:00.0/temp1").reason


def test_a_card_that_hot_plug_took_away_is_simply_not_there() -> None:
    """Without a cable the four functions leave the bus, and their chips with them."""
    items = look(read, host(_zones()))
    assert 7 == len([item for item in items if item.of is TEMPERATURE])
    assert not [item for item in items if "mlx5" in item.entity]


def test_cooling_devices_are_a_list_of_their_own() -> None:
    """Each has a state that counts from 0."""
    device = f"{_CLASS}/cooling_device20"
    machine = host({f"{device}/type": "Processor\n", f"{device}/cur_state": "3\n", f"{device}/max_state": "12\n"})
    items = look(read, machine)
    assert "Processor" == value(items, COOLING_TYPE, "cooling_device20")
    assert 3 == value(items, STATE, "cooling_device20")
    assert 12 == value(items, STATE_MAX, "cooling_device20")


def test_the_embedded_controller_is_not_polled() -> None:
    """Reading the fan floor's state would send it a message, so the file is never opened."""
    device = f"{_CLASS}/cooling_device20"
    files = {f"{device}/type": "dgx_ec_fan_floor\n", f"{device}/max_state": "12\n"}
    items = look(read, host(files, errors={f"{device}/cur_state": "EIO"}))
    assert Reason.NOT_ASKED is absence(items, STATE, "cooling_device20").reason
    assert 12 == value(items, STATE_MAX, "cooling_device20")


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        ("-1", None, Reason.IMPOSSIBLE),
        ("", None, Reason.GARBAGE),
        ("0", "ESTALE", Reason.DEVICE_LOST),
        ("0", "EIO", Reason.IO_ERROR),
    ],
)
def test_a_cooling_state_that_cannot_be_had_is_an_absence(content: str, error: str | None, reason: Reason) -> None:
    """The fan floor's driver answers ESTALE where somebody else moved it."""
    device = f"{_CLASS}/cooling_device0"
    files = {f"{device}/type": "Fan", f"{device}/cur_state": content, f"{device}/max_state": "1"}
    items = look(read, host(files, errors={f"{device}/cur_state": error} if error else None))
    assert reason is absence(items, STATE, "cooling_device0").reason
    assert 1 == value(items, STATE_MAX, "cooling_device0")


def test_a_machine_with_no_sensor_at_all_says_so() -> None:
    """A virtual machine has the class and nothing in it."""
    machine = host()
    with pytest.raises(NoData) as caught:
        look(read, machine)
    assert Reason.NO_DEVICE is caught.value.reason
