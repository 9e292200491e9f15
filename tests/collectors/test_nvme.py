"""NVMe drives as an ordinary user sees them."""

import math
from collections.abc import Mapping

import pytest
from hosts import absence, host, look, value
from hypothesis import given
from hypothesis import strategies as st

from spark_agent.collectors import Fact, Host, Kind, NoData, Property, Quantity, Reading, Reason, nvme
from spark_agent.collectors.nvme import parse_stat, read

_PCI = "/sys/devices/pci0004:00/0004:00:00.0/0004:01:00.0"
_DRIVE = f"{_PCI}/nvme/nvme0"
_NAMESPACE = f"{_DRIVE}/nvme0n1"
_CHIP = f"{_DRIVE}/hwmon1"

# reads, merged, sectors, ms; writes, merged, sectors, ms; in flight, busy ms, queue ms; discards…; flushes…
_STAT = "   10000    120   800000   2500    20000    340  1600000   9001        3     7500    11600 4 0 4096 20 50 99\n"

_AER_NONE = {
    "correctable": "RxErr 0\nBadTLP 0\nTOTAL_ERR_COR 0\n",
    "nonfatal": "Undefined 0\nTOTAL_ERR_NONFATAL 0\n",
    "fatal": "Undefined 0\nTOTAL_ERR_FATAL 0\n",
}


def _files(number: int = 0, pci: str = _PCI) -> dict[str, str]:
    """Return the 4 TB drive of a Founders Edition, as one whose chip hangs on its controller."""
    drive = f"{pci}/nvme/nvme{number}"
    namespace, chip = f"{drive}/nvme{number}n1", f"{drive}/hwmon{number + 1}"
    return {
        f"{pci}/vendor": "0x144d\n",
        f"{pci}/device": "0xa810\n",
        f"{pci}/current_link_speed": "16.0 GT/s PCIe\n",
        f"{pci}/current_link_width": "4\n",
        f"{pci}/max_link_speed": "16.0 GT/s PCIe\n",
        f"{pci}/max_link_width": "4\n",
        **{f"{pci}/aer_dev_{severity}": text for severity, text in _AER_NONE.items()},
        f"{drive}/model": "SAMSUNG MZALC4T0HBL1-00B07              \n",
        f"{drive}/serial": f"S0FAKE{number}       \n",
        f"{drive}/firmware_rev": "NXHB202Q\n",
        f"{drive}/state": "live\n",
        f"{drive}/transport": "pcie\n",
        f"{namespace}/size": "8001573552\n",
        f"{namespace}/stat": _STAT,
        f"{chip}/name": "nvme\n",
        f"{chip}/temp1_input": "36850\n",
        f"{chip}/temp1_label": "Composite\n",
        f"{chip}/temp1_max": "82850\n",
        f"{chip}/temp1_crit": "84850\n",
        f"{chip}/temp1_min": "-5150\n",
        f"{chip}/temp2_input": "41850\n",
        f"{chip}/temp2_label": "Sensor 1\n",
        f"{chip}/temp2_max": "65261850\n",
        f"{chip}/temp2_min": "-273150\n",
    }


def _links(number: int = 0, pci: str = _PCI) -> dict[str, str]:
    drive = f"{pci}/nvme/nvme{number}"
    return {
        f"/sys/class/nvme/nvme{number}": f"../..{drive.removeprefix('/sys')}",
        f"/sys/block/nvme{number}n1": f"..{drive.removeprefix('/sys')}/nvme{number}n1",
        f"/sys/class/hwmon/hwmon{number + 1}": f"../..{drive.removeprefix('/sys')}/hwmon{number + 1}",
        f"{drive}/device": "../../../" + pci.rpartition("/")[2],
        f"{drive}/hwmon{number + 1}/device": f"../../nvme{number}",
    }


def _spark(changes: Mapping[str, str | None] | None = None, errors: Mapping[str, str] | None = None) -> Host:
    """Return a Founders Edition, with some files changed or (None) missing."""
    files = _files() | dict(changes or {})
    return host(
        {path: content for path, content in files.items() if content is not None},
        links=_links(),
        errors=errors,
        udev={_PCI: {"ID_VENDOR_FROM_DATABASE": "Samsung Electronics Co Ltd", "ID_MODEL_FROM_DATABASE": "NVMe SSD"}},
    )


def test_what_the_drive_is() -> None:
    """Text comes without its padding, size in bytes of all namespaces."""
    items = look(read, _spark())
    assert "SAMSUNG MZALC4T0HBL1-00B07" == value(items, nvme.MODEL, "nvme0")
    assert "NXHB202Q" == value(items, nvme.FIRMWARE, "nvme0")
    assert "live" == value(items, nvme.STATE, "nvme0")
    assert "pcie" == value(items, nvme.TRANSPORT, "nvme0")
    assert 1 == value(items, nvme.NAMESPACES, "nvme0")
    assert 4_096_805_658_624 == value(items, nvme.CAPACITY, "nvme0")


def test_the_serial_number_is_private() -> None:
    """It is read, and marked so that no exporter shows it unasked."""
    assert "S0FAKE0" == value(look(read, _spark()), nvme.SERIAL, "nvme0")
    assert nvme.SERIAL.private
    assert not nvme.STATE.inventory


def test_where_the_drive_sits_on_pci() -> None:
    """Address, identity, the database's name and the link, in people's words and in numbers."""
    items = look(read, _spark())
    assert "0004:01:00.0" == value(items, nvme.PCI_ADDRESS, "nvme0")
    assert "144d:a810" == value(items, nvme.PCI_ID, "nvme0")
    assert "Samsung Electronics Co Ltd NVMe SSD" == value(items, nvme.PCI_NAME, "nvme0")
    assert "16.0 GT/s x4" == value(items, nvme.PCIE_LINK, "nvme0")
    assert "16.0 GT/s x4" == value(items, nvme.PCIE_LINK_MAX, "nvme0")
    assert 4 == value(items, nvme.PCIE_GENERATION, "nvme0")
    assert 4 == value(items, nvme.PCIE_LANES, "nvme0")


def test_a_link_that_runs_below_its_best_shows_both() -> None:
    """A Gen5 drive on two lanes of Gen4 says what it could."""
    changes = {f"{_PCI}/current_link_width": "2\n", f"{_PCI}/max_link_speed": "32.0 GT/s PCIe\n"}
    items = look(read, _spark(changes))
    assert "16.0 GT/s x2" == value(items, nvme.PCIE_LINK, "nvme0")
    assert "32.0 GT/s x4" == value(items, nvme.PCIE_LINK_MAX, "nvme0")
    assert (4, 5) == (
        value(items, nvme.PCIE_GENERATION, "nvme0"),
        value(items, nvme.PCIE_GENERATION_MAX, "nvme0"),
    )
    assert (2, 4) == (value(items, nvme.PCIE_LANES, "nvme0"), value(items, nvme.PCIE_LANES_MAX, "nvme0"))


def test_a_link_that_is_down_takes_only_itself() -> None:
    """An unknown speed is no generation, and the lanes stand."""
    items = look(read, _spark({f"{_PCI}/current_link_speed": "Unknown\n"}))
    assert Reason.NO_DATA is absence(items, nvme.PCIE_LINK, "nvme0").reason
    assert Reason.NO_DATA is absence(items, nvme.PCIE_GENERATION, "nvme0").reason
    assert 4 == value(items, nvme.PCIE_LANES, "nvme0")
    assert 4 == value(items, nvme.PCIE_GENERATION_MAX, "nvme0")


def test_lanes_of_a_device_that_is_gone_are_impossible() -> None:
    """A register that reads all ones has 63 lanes."""
    items = look(read, _spark({f"{_PCI}/current_link_width": "63\n"}))
    assert Reason.IMPOSSIBLE is absence(items, nvme.PCIE_LANES, "nvme0").reason


def test_errors_of_the_link_are_counted_by_severity() -> None:
    """The totals that the kernel gives, each under its own severity."""
    items = look(read, _spark({f"{_PCI}/aer_dev_correctable": "RxErr 9\nBadTLP 3\nTOTAL_ERR_COR 11\n"}))
    assert 11 == value(items, nvme.PCIE_ERRORS, "nvme0", "correctable")
    assert 0 == value(items, nvme.PCIE_ERRORS, "nvme0", "nonfatal")
    assert 0 == value(items, nvme.PCIE_ERRORS, "nvme0", "fatal")


def test_a_device_without_error_reporting_counts_nothing() -> None:
    """No file is no zero."""
    items = look(read, _spark({f"{_PCI}/aer_dev_{severity}": None for severity in _AER_NONE}))
    assert Reason.NOT_FOUND is absence(items, nvme.PCIE_ERRORS, "nvme0", "fatal").reason


def test_udev_without_a_name_is_an_absence() -> None:
    """A container has no device database."""
    items = look(read, host(_files(), links=_links()))
    assert Reason.NOT_FOUND is absence(items, nvme.PCI_NAME, "nvme0").reason


def test_temperatures_by_sensor_with_the_limits_that_are_real() -> None:
    """Composite has the drive's own limits; those of Sensor 1 nobody set, and they are not shown as limits."""
    items = look(read, _spark())
    assert 36.85 == value(items, nvme.TEMPERATURE, "nvme0", "Composite")
    assert 41.85 == value(items, nvme.TEMPERATURE, "nvme0", "Sensor 1")
    assert 82.85 == value(items, nvme.TEMPERATURE_MAX, "nvme0", "Composite")
    assert 84.85 == value(items, nvme.TEMPERATURE_CRITICAL, "nvme0", "Composite")
    assert -5.15 == value(items, nvme.TEMPERATURE_MIN, "nvme0", "Composite")
    assert Reason.IMPOSSIBLE is absence(items, nvme.TEMPERATURE_MAX, "nvme0", "Sensor 1").reason
    assert Reason.IMPOSSIBLE is absence(items, nvme.TEMPERATURE_MIN, "nvme0", "Sensor 1").reason
    assert [] == [item for item in items if item.of is nvme.TEMPERATURE_CRITICAL and "Sensor 1" in item.labels]


def test_a_chip_that_hangs_on_the_pci_device_is_found_too() -> None:
    """Where the chip is the controller's sibling, its device link leads to the owner."""
    files = {path.replace(f"{_CHIP}/", f"{_PCI}/hwmon/hwmon1/"): content for path, content in _files().items()}
    links = _links() | {
        "/sys/class/hwmon/hwmon1": f"../..{_PCI.removeprefix('/sys')}/hwmon/hwmon1",
        f"{_PCI}/hwmon/hwmon1/device": "../../../0004:01:00.0",
    }
    links.pop(f"{_CHIP}/device")
    items = look(read, host(files, links=links))
    assert 36.85 == value(items, nvme.TEMPERATURE, "nvme0", "Composite")


def test_a_drive_without_a_chip_says_so() -> None:
    """Another chip's temperature is not the drive's."""
    files = {path: content for path, content in _files().items() if not path.startswith(_CHIP)}
    files |= {"/sys/class/hwmon/hwmon0/name": "acpitz", "/sys/class/hwmon/hwmon0/temp1_input": "41000"}
    links = {path: to for path, to in _links().items() if "hwmon" not in path}
    items = look(read, host(files, links=links))
    assert Reason.NOT_FOUND is absence(items, nvme.TEMPERATURE, "nvme0").reason
    assert "live" == value(items, nvme.STATE, "nvme0")


def test_work_done_is_in_base_units() -> None:
    """Sectors of 512 bytes become bytes, milliseconds seconds, and all but the requests in flight count up."""
    items = look(read, _spark())
    expected = {
        nvme.READS: 10_000,
        nvme.READ_BYTES: 409_600_000,
        nvme.READ_SECONDS: 2.5,
        nvme.WRITES: 20_000,
        nvme.WRITTEN_BYTES: 819_200_000,
        nvme.WRITE_SECONDS: 9.001,
        nvme.IN_FLIGHT: 3,
        nvme.IO_SECONDS: 7.5,
        nvme.QUEUE_SECONDS: 11.6,
        nvme.DISCARDS: 4,
        nvme.DISCARDED_BYTES: 2_097_152,
        nvme.DISCARD_SECONDS: 0.02,
        nvme.FLUSHES: 50,
        nvme.FLUSH_SECONDS: 0.099,
    }
    assert expected == {of: value(items, of, "nvme0") for of in expected}
    assert [nvme.IN_FLIGHT] == [of for of in expected if of.kind is Kind.GAUGE]


def test_an_older_kernel_counts_less() -> None:
    """Eleven fields, before discards and flushes were counted: those are left out, not zero."""
    items = look(read, _spark({f"{_NAMESPACE}/stat": " ".join(_STAT.split()[:11])}))
    assert 11.6 == value(items, nvme.QUEUE_SECONDS, "nvme0")
    assert [] == [item for item in items if item.of in (nvme.DISCARDS, nvme.FLUSHES)]


@pytest.mark.parametrize("text", ["", "1 2 3", "1 2 3 4 5 6 7 8 9 10 eleven", "1 2 3 4 5 6 7 8 9 10 -11"])
def test_broken_statistics_are_absent_as_a_whole(text: str) -> None:
    """No counter is made from half a line, and the rest of the drive stands."""
    items = look(read, _spark({f"{_NAMESPACE}/stat": text}))
    assert Reason.GARBAGE is absence(items, nvme.READ_BYTES, "nvme0").reason
    assert Reason.GARBAGE is absence(items, nvme.FLUSH_SECONDS, "nvme0").reason
    assert 4_096_805_658_624 == value(items, nvme.CAPACITY, "nvme0")


def test_a_drive_with_paths_is_counted_by_its_own() -> None:
    """A multipath kernel names the namespace's directory after the path, and the disk is elsewhere."""
    files = {path.replace("/nvme0n1/", "/nvme0c0n1/"): content for path, content in _files().items()}
    disk = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"
    files |= {f"{disk}/size": "8001573552\n", f"{disk}/stat": " 0" * 17}
    links = _links() | {"/sys/block/nvme0n1": "../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"}
    items = look(read, host(files, links=links))
    assert 1 == value(items, nvme.NAMESPACES, "nvme0")
    assert 4_096_805_658_624 == value(items, nvme.CAPACITY, "nvme0")
    assert 10_000 == value(items, nvme.READS, "nvme0")


def test_a_namespace_that_is_only_among_the_disks_is_found() -> None:
    """A recording may hold the disk and not the controller's own directory of it."""
    files = {path: content for path, content in _files().items() if not path.startswith(_NAMESPACE)}
    files |= {"/sys/block/nvme0n1/size": "2048", "/sys/block/nvme0n1/stat": _STAT, "/sys/block/nvme1n1/size": "1"}
    links = {path: to for path, to in _links().items() if not path.startswith("/sys/block")}
    items = look(read, host(files, links=links))
    assert 1_048_576 == value(items, nvme.CAPACITY, "nvme0")
    assert 10_000 == value(items, nvme.READS, "nvme0")


def test_namespaces_of_one_drive_are_added() -> None:
    """Capacity and work are the drive's, so a namespace whose size is unknown leaves no capacity at all."""
    second = f"{_DRIVE}/nvme0n2"
    files = {f"{second}/size": "1000\n", f"{second}/stat": _STAT}
    items = look(read, _spark(files))
    assert 2 == value(items, nvme.NAMESPACES, "nvme0")
    assert 4_096_805_658_624 + 512_000 == value(items, nvme.CAPACITY, "nvme0")
    assert 20_000 == value(items, nvme.READS, "nvme0")
    items = look(read, _spark(files, {f"{second}/size": "EIO"}))
    assert Reason.IO_ERROR is absence(items, nvme.CAPACITY, "nvme0").reason


def test_a_drive_without_a_namespace_has_no_capacity() -> None:
    """Neither 0 bytes nor 0 requests: there is nothing that could have a size or do work."""
    files = {path: content for path, content in _files().items() if not path.startswith(_NAMESPACE)}
    items = look(read, host(files, links={path: to for path, to in _links().items() if "block" not in path}))
    assert 0 == value(items, nvme.NAMESPACES, "nvme0")
    assert Reason.NO_DATA is absence(items, nvme.CAPACITY, "nvme0").reason
    assert Reason.NO_DATA is absence(items, nvme.READS, "nvme0").reason


def test_two_drives_stay_apart() -> None:
    """Each has its own text, chip, counters and link; a dying one takes nothing from the other."""
    other = "/sys/devices/pci0005:00/0005:00:00.0/0005:01:00.0"
    files = _files() | _files(1, other)
    files |= {
        f"{other}/nvme/nvme1/model": "ESL04TBTLCZ-27J4-TYN\n",
        f"{other}/nvme/nvme1/hwmon2/temp1_input": "50850\n",
        f"{other}/nvme/nvme1/nvme1n1/size": "2048\n",
        f"{other}/current_link_speed": "32.0 GT/s PCIe\n",
    }
    links = _links() | _links(1, other)
    items = look(read, host(files, links=links))
    assert "SAMSUNG MZALC4T0HBL1-00B07" == value(items, nvme.MODEL, "nvme0")
    assert "ESL04TBTLCZ-27J4-TYN" == value(items, nvme.MODEL, "nvme1")
    assert 36.85 == value(items, nvme.TEMPERATURE, "nvme0", "Composite")
    assert 50.85 == value(items, nvme.TEMPERATURE, "nvme1", "Composite")
    assert 1_048_576 == value(items, nvme.CAPACITY, "nvme1")
    assert "0005:01:00.0" == value(items, nvme.PCI_ADDRESS, "nvme1")
    assert 5 == value(items, nvme.PCIE_GENERATION, "nvme1")
    dying = host(files, links=links, errors={f"{_DRIVE}/state": "EIO", f"{_NAMESPACE}/stat": "ENODEV"})
    items = look(read, dying)
    assert Reason.IO_ERROR is absence(items, nvme.STATE, "nvme0").reason
    assert Reason.DEVICE_LOST is absence(items, nvme.READS, "nvme0").reason
    assert "live" == value(items, nvme.STATE, "nvme1")
    assert 10_000 == value(items, nvme.READS, "nvme1")


def test_drives_come_in_natural_order_and_nothing_else_is_one() -> None:
    """nvme10 follows nvme2; a subsystem or a generic device is no controller."""
    files = {f"/sys/class/nvme/{name}/state": "live" for name in ("nvme10", "nvme2", "nvme-subsys0", "ng0n1")}
    states = [item.entity for item in look(read, host(files)) if item.of is nvme.STATE]
    assert ["nvme2", "nvme10"] == states


def test_a_drive_that_went_is_lost_and_not_empty() -> None:
    """A link in the class that leads nowhere is a drive just removed, not one with 0 namespaces."""
    items = look(read, host(_files(), links=_links() | {"/sys/class/nvme/nvme1": "../../devices/gone"}))
    assert Reason.DEVICE_LOST is absence(items, nvme.STATE, "nvme1").reason
    assert 1 == len([item for item in items if item.entity == "nvme1"])
    assert "live" == value(items, nvme.STATE, "nvme0")


def test_a_drive_across_a_network_has_no_pci_address() -> None:
    """Its controller hangs on nvme-fabrics; it is a drive all the same, and no fault."""
    drive = "/sys/devices/virtual/nvme-fabrics/ctl/nvme0"
    files = {f"{drive}/state": "live", f"{drive}/transport": "tcp", f"{drive}/nvme0n1/size": "8"}
    links = {"/sys/class/nvme/nvme0": "../../devices/virtual/nvme-fabrics/ctl/nvme0", f"{drive}/device": "../../ctl"}
    items = look(read, host(files, links=links))
    assert "tcp" == value(items, nvme.TRANSPORT, "nvme0")
    assert Reason.NOT_SUPPORTED is absence(items, nvme.PCI_ADDRESS, "nvme0").reason


@pytest.mark.parametrize(
    ("path", "of", "labels"),
    [
        (f"{_DRIVE}/model", nvme.MODEL, ()),
        (f"{_DRIVE}/firmware_rev", nvme.FIRMWARE, ()),
        (f"{_DRIVE}/serial", nvme.SERIAL, ()),
        (f"{_DRIVE}/state", nvme.STATE, ()),
        (f"{_DRIVE}/transport", nvme.TRANSPORT, ()),
        (f"{_NAMESPACE}/size", nvme.CAPACITY, ()),
        (f"{_CHIP}/temp1_input", nvme.TEMPERATURE, ("Composite",)),
        (f"{_CHIP}/temp1_max", nvme.TEMPERATURE_MAX, ("Composite",)),
        (f"{_CHIP}/temp1_crit", nvme.TEMPERATURE_CRITICAL, ("Composite",)),
        (f"{_PCI}/vendor", nvme.PCI_ID, ()),
        (f"{_PCI}/aer_dev_fatal", nvme.PCIE_ERRORS, ("fatal",)),
    ],
)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("EIO", Reason.IO_ERROR),
        ("EACCES", Reason.PERMISSION_DENIED),
        ("ENODATA", Reason.NO_DATA),
        ("EBADMSG", Reason.IMPOSSIBLE),
        ("ENOENT", Reason.NOT_FOUND),
    ],
)
def test_one_files_fault_is_one_absence(
    path: str, of: Quantity | Property, labels: tuple[str, ...], error: str, reason: Reason
) -> None:
    """Whatever a file answers, everything else stands as it was."""
    items = look(read, _spark(errors={path: error}))
    assert reason is absence(items, of, "nvme0", *labels).reason
    readings = [item for item in look(read, _spark()) if isinstance(item, Reading | Fact)]
    assert len(readings) - 1 == len([item for item in items if isinstance(item, Reading | Fact)])


@pytest.mark.parametrize(
    ("path", "of", "reason"),
    [
        (f"{_DRIVE}/model", nvme.MODEL, Reason.NO_DATA),
        (f"{_NAMESPACE}/size", nvme.CAPACITY, Reason.GARBAGE),
        (f"{_PCI}/device", nvme.PCI_ID, Reason.GARBAGE),
        (f"{_PCI}/current_link_width", nvme.PCIE_LANES, Reason.GARBAGE),
    ],
)
def test_an_empty_file_is_an_absence(path: str, of: Quantity | Property, reason: Reason) -> None:
    """Nothing written is nothing known."""
    assert reason is absence(look(read, _spark({path: "\n"})), of, "nvme0").reason


def test_a_drive_of_no_size_has_no_capacity() -> None:
    """A namespace that is gone but still listed has size 0, which no drive has."""
    items = look(read, _spark({f"{_NAMESPACE}/size": "0\n"}))
    assert Reason.IMPOSSIBLE is absence(items, nvme.CAPACITY, "nvme0").reason


def test_no_file_is_read_twice() -> None:
    """One look costs one read of each file: some of them are commands to the drive."""
    machine = _spark()
    reads: list[str] = []

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(machine.tree, name)

        def read(self, path: str) -> bytes:
            reads.append(machine.tree.real(path))
            return machine.tree.read(path)

    look(read, Host(Counting(), machine.nvml, machine.udev, machine.processes))  # type: ignore[arg-type]  # a tree that counts
    assert sorted(set(reads)) == sorted(reads)


def test_a_machine_without_nvme_has_no_data() -> None:
    """A virtual machine has none."""
    with pytest.raises(NoData) as caught:
        look(read, host())
    assert Reason.NO_DEVICE is caught.value.reason


@given(
    st.text() | st.lists(st.integers(-3, 2**64) | st.text(max_size=3), max_size=20).map(lambda x: " ".join(map(str, x)))
)
def test_any_text_is_counts_or_a_value_error(text: str) -> None:
    """A stat file is at least eleven numbers, none of them negative, or garbage."""
    try:
        fields = parse_stat(text)
    except ValueError:
        return
    assert len(fields) >= 11
    assert all(math.isfinite(field) and field >= 0 for field in fields)
