"""Chips of the hardware monitoring class are found by name, their channels by label."""

import math

import pytest
from hosts import host
from hypothesis import given
from hypothesis import strategies as st

from spark_agent.collectors._hwmon import Chip, chips, parse_millidegrees

_MLX5 = "/sys/devices/pci0000:00/0000:00:00.0/0000:01:00.0"


def test_chips_come_in_natural_order_with_their_names() -> None:
    """hwmon10 comes after hwmon2."""
    machine = host({f"/sys/class/hwmon/hwmon{n}/name": f"chip{n}\n" for n in (10, 0, 2)})
    assert ["chip0", "chip2", "chip10"] == [chip.name for chip in chips(machine)]
    assert ["/sys/class/hwmon/hwmon0", "/sys/class/hwmon/hwmon2", "/sys/class/hwmon/hwmon10"] == [
        chip.path for chip in chips(machine)
    ]


@pytest.mark.parametrize("files", [{}, {"/sys/class/thermal/thermal_zone0/temp": "1"}])
def test_a_machine_without_the_class_has_no_chips(files: dict[str, str]) -> None:
    """No hwmon at all is an ordinary machine."""
    assert () == chips(host(files))


def test_a_chip_that_goes_while_it_is_read_takes_no_other_with_it() -> None:
    """Numbers change under our feet, and hot-plug takes the ConnectX-7's chips away."""
    machine = host(
        {"/sys/class/hwmon/hwmon1/name": "acpitz", "/sys/class/hwmon/hwmon2/name": ""},
        errors={"/sys/class/hwmon/hwmon0/name": "ENODEV"},
        links={"/sys/class/hwmon/hwmon3": "../../devices/gone"},
    )
    assert ["", "acpitz"] == [chip.name for chip in chips(machine)]


def test_the_device_is_a_real_path() -> None:
    """Links are followed, so that a chip can be matched with what it belongs to."""
    machine = host(
        {f"{_MLX5}/hwmon/hwmon0/name": "mlx5"},
        links={
            "/sys/class/hwmon/hwmon0": f"../../..{_MLX5}/hwmon/hwmon0",
            f"{_MLX5}/hwmon/hwmon0/device": "../../../0000:01:00.0",
        },
    )
    (chip,) = chips(machine)
    assert Chip("/sys/class/hwmon/hwmon0", "mlx5", _MLX5, "mlx5-0000:01:00.0") == chip


def test_chips_of_one_name_stay_apart() -> None:
    """By their PCI address, else by their device, else by their own directory."""
    names = {0: "coretemp", 1: "coretemp", 2: "dgx_ec_fan", 3: "jc42", 4: "jc42"}
    machine = host(
        {f"/sys/class/hwmon/hwmon{n}/name": name for n, name in names.items()}
        | {"/sys/devices/platform/coretemp.0/x": "", "/sys/devices/platform/coretemp.1/x": ""},
        links={f"/sys/class/hwmon/hwmon{n}/device": f"/sys/devices/platform/coretemp.{n}" for n in (0, 1)},
    )
    assert ["coretemp-coretemp.0", "coretemp-coretemp.1", "dgx_ec_fan", "jc42-hwmon3", "jc42-hwmon4"] == [
        chip.identity for chip in chips(machine)
    ]


def test_channels_are_found_by_label_past_holes_and_in_natural_order() -> None:
    """The spbm driver hides a channel that it cannot resolve, so an index means nothing; power10 follows power9."""
    path = "/sys/class/hwmon/hwmon2"
    labels = {1: "sys_total", 7: "dc_input", 10: "prereg", 9: "gpu"}
    machine = host(
        {f"{path}/power{n}_label": f"{label}\n" for n, label in labels.items()}
        | {f"{path}/power{n}_input": "1000000\n" for n in labels}
        | {f"{path}/energy1_input": "5\n", f"{path}/energy1_label": "pkg\n", f"{path}/power7_cap": "1\n"}
    )
    chip = Chip(path, "spbm")
    assert [
        ("sys_total", f"{path}/power1"),
        ("dc_input", f"{path}/power7"),
        ("gpu", f"{path}/power9"),
        ("prereg", f"{path}/power10"),
    ] == list(chip.channels(machine, "power").items())
    assert {"pkg": f"{path}/energy1"} == chip.channels(machine, "energy")
    assert {} == chip.channels(machine, "temp")


def test_a_channel_without_a_label_of_its_own_goes_by_its_name() -> None:
    """No label, an empty one, or another channel's: each channel stays, under its own name."""
    path = "/sys/class/hwmon/hwmon0"
    machine = host(
        {f"{path}/temp{n}_input": "1" for n in (1, 2, 4, 5)}
        | {f"{path}/temp2_label": "\n", f"{path}/temp4_label": "Core 0", f"{path}/temp5_label": "Core 0"}
    )
    assert {
        "temp1": f"{path}/temp1",
        "temp2": f"{path}/temp2",
        "Core 0": f"{path}/temp4",
        "temp5": f"{path}/temp5",
    } == Chip(path, "x").channels(machine, "temp")


def test_a_chip_that_cannot_be_listed_has_no_channels() -> None:
    """It is skipped, and the others stand."""
    machine = host(errors={"/sys/class/hwmon/hwmon0": "EACCES"})
    assert {} == Chip("/sys/class/hwmon/hwmon0", "x").channels(machine, "temp")


@given(st.text() | st.integers().map(str))
def test_any_text_is_degrees_or_a_value_error(text: str) -> None:
    """No text becomes NaN or an infinity."""
    try:
        assert math.isfinite(parse_millidegrees(text))
    except ValueError:
        assert not text.isascii() or not text.lstrip("+-").isdigit() or len(text) > 40


def test_a_label_that_cannot_be_read_names_no_channel() -> None:
    """Named after its number, a channel would pass for another; the fault says that one is missing."""
    chip = "/sys/class/hwmon/hwmon0"
    files = {f"{chip}/name": "spbm", f"{chip}/power1_input": "1", f"{chip}/power2_input": "2"}
    machine = host(files | {f"{chip}/power2_label": "soc_pkg"}, errors={f"{chip}/power1_label": "EIO"})
    (found,) = chips(machine)
    channels = found.channels(machine, "power")

    assert {"soc_pkg": f"{chip}/power2"} == channels
    assert isinstance(channels.fault, OSError)


def test_a_chip_whose_name_cannot_be_read_is_still_one() -> None:
    """It has a fault in the name's place, so that whoever looks for a driver can tell it from none."""
    (found,) = chips(host({}, errors={"/sys/class/hwmon/hwmon0/name": "EIO"}))

    assert "" == found.name
    assert isinstance(found.fault, OSError)
