"""Fans are only those that really report."""

import pytest
from hosts import absence, host, look, value

from spark_agent.collectors import NoData, Quality, Reading, Reason
from spark_agent.collectors._untrusted import SIGNAL
from spark_agent.collectors.fan import DRIVER, SPEED, read

_EC = {
    "/sys/class/hwmon/hwmon4/name": "dgx_ec_fan\n",
    "/sys/class/hwmon/hwmon4/fan1_input": "2700\n",
    "/sys/class/hwmon/hwmon4/fan2_input": "4050\n",
}
_DELL = {
    "/sys/class/hwmon/hwmon1/name": "acpi_fan\n",
    "/sys/class/hwmon/hwmon1/fan1_input": "2\n",
    "/sys/class/hwmon/hwmon1/power1_input": "5000\n",
}


def test_a_spark_with_the_fan_driver_has_two_fans() -> None:
    """The out-of-tree driver reports both, in revolutions per minute."""
    items = look(read, host(_EC))
    assert 2700 == value(items, SPEED, "dgx_ec_fan/fan1")
    assert 4050 == value(items, SPEED, "dgx_ec_fan/fan2")
    assert "dgx_ec_fan" == value(items, DRIVER, "dgx_ec_fan/fan1")
    assert "/sys/class/hwmon/hwmon4/fan1_input" in [item.source for item in items if isinstance(item, Reading)]


def test_a_stock_spark_has_no_fan_and_says_why() -> None:
    """No fan speed is the normal case, not a fault."""
    machine = host({"/sys/class/hwmon/hwmon0/name": "acpitz", "/sys/class/hwmon/hwmon0/temp1_input": "41000"})
    with pytest.raises(NoData, match="belongs to the embedded controller") as caught:
        look(read, machine)
    assert Reason.NOT_SUPPORTED is caught.value.reason
    assert not caught.value.reason.is_fault


def test_a_machine_without_hwmon_has_no_fan() -> None:
    """A virtual machine has no such class at all."""
    with pytest.raises(NoData):
        look(read, host())


def test_the_junk_of_acpi_fan_is_no_fan() -> None:
    """A Dell's 2 RPM and 5 mW are shown as untrusted with the reason, in their own units, and never as a fan."""
    items = look(read, host(_DELL))
    assert 2 == value(items, SIGNAL, "acpi_fan fan1_input")
    assert 5000 == value(items, SIGNAL, "acpi_fan power1_input")
    assert {SIGNAL} == {item.of for item in items}
    for item in items:
        assert isinstance(item, Reading)
        assert Quality.UNTRUSTED is item.quality
        assert "constant on a Dell" in item.note


def test_junk_beside_a_real_fan_hides_neither() -> None:
    """A Dell with the fan driver has two fans and two untrusted signals."""
    items = look(read, host(_EC | _DELL))
    assert 2 == len([item for item in items if item.of is SPEED])
    assert 2 == len([item for item in items if item.of is SIGNAL])


def test_junk_that_cannot_be_read_is_an_absence() -> None:
    """A fault stays a fault, whatever the signal is worth."""
    items = look(read, host(_DELL, errors={"/sys/class/hwmon/hwmon1/power1_input": "EIO"}))
    assert Reason.IO_ERROR is absence(items, SIGNAL, "acpi_fan power1_input").reason


def test_a_fan_that_stands_is_zero() -> None:
    """0 is a reading here: fans of a Spark are known to stop when it is headless."""
    assert 0 == value(look(read, host(_EC | {"/sys/class/hwmon/hwmon4/fan1_input": "0\n"})), SPEED, "dgx_ec_fan/fan1")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", Reason.GARBAGE),
        ("fast", Reason.GARBAGE),
        ("-1", Reason.IMPOSSIBLE),
        ("20001", Reason.IMPOSSIBLE),
        ("65535", Reason.IMPOSSIBLE),
    ],
)
def test_no_fan_turns_like_that(content: str, reason: Reason) -> None:
    """What no fan can do is an absence, and the other fan stands."""
    items = look(read, host(_EC | {"/sys/class/hwmon/hwmon4/fan1_input": content}))
    assert reason is absence(items, SPEED, "dgx_ec_fan/fan1").reason
    assert 4050 == value(items, SPEED, "dgx_ec_fan/fan2")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("EBADMSG", Reason.IMPOSSIBLE),
        ("ETIMEDOUT", Reason.TIMEOUT),
        ("EIO", Reason.IO_ERROR),
        ("ENODATA", Reason.NO_DATA),
        ("EACCES", Reason.PERMISSION_DENIED),
        ("ENODEV", Reason.DEVICE_LOST),
    ],
)
def test_a_fan_that_cannot_be_read_leaves_the_other(error: str, reason: Reason) -> None:
    """The embedded controller fails in its own ways; one file's fault is one absence."""
    items = look(read, host(_EC, errors={"/sys/class/hwmon/hwmon4/fan1_input": error}))
    assert reason is absence(items, SPEED, "dgx_ec_fan/fan1").reason
    assert 4050 == value(items, SPEED, "dgx_ec_fan/fan2")


def test_a_pcs_fans_go_by_their_labels() -> None:
    """Any driver that reports a fan counts, under the names that it gives."""
    machine = host(
        {
            "/sys/class/hwmon/hwmon2/name": "dell_smm",
            "/sys/class/hwmon/hwmon2/fan1_input": "1180",
            "/sys/class/hwmon/hwmon2/fan1_label": "Processor Fan",
            "/sys/class/hwmon/hwmon2/fan10_input": "900",
        }
    )
    items = look(read, machine)
    assert 1180 == value(items, SPEED, "dell_smm/Processor Fan")
    assert 900 == value(items, SPEED, "dell_smm/fan10")
