"""What sysfs says of a PCI device."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_agent.collectors._pci import (
    parse_aer,
    parse_generation,
    parse_link,
    parse_link_speed,
    parse_pci_id,
    pci_address,
)

_DEVICE = "/sys/devices/pci0004:00/0004:00:00.0/0004:01:00.0"

# The ABI document's own sample.
_AER = """\
Receiver Error 2
Bad TLP 0
Bad DLLP 0
RELAY_NUM Rollover 0
Replay Timer Timeout 0
Advisory Non-Fatal 0
Corrected Internal Error 0
Header Log Overflow 0
TOTAL_ERR_COR 2
"""


@pytest.mark.parametrize(
    ("path", "address"),
    [
        (_DEVICE, "0004:01:00.0"),
        (f"{_DEVICE}/nvme/nvme0", "0004:01:00.0"),
        ("/sys/devices/pci0000:00/0000:00:00.0/0000:01:00.1/net/enp1s0f1np1", "0000:01:00.1"),
        ("/sys/devices/pci000f:00/000f:00:00.0/000f:01:00.0", "000f:01:00.0"),
        ("/sys/devices/pci10000:e0/10000:e0:06.0/10000:e1:00.0", "10000:e1:00.0"),
    ],
)
def test_a_device_is_the_last_address_of_its_path(path: str, address: str) -> None:
    """A path leads through bridges; the device is the one at the end, not the first."""
    assert address == pci_address(path)


@pytest.mark.parametrize("path", ["", "/sys/devices/virtual/nvme-fabrics/ctl", "/sys/devices/pci0004:00"])
def test_what_is_not_on_pci_has_no_address(path: str) -> None:
    """A host bridge or a virtual device is not a PCI device."""
    with pytest.raises(ValueError, match="no PCI device"):
        pci_address(path)


@pytest.mark.parametrize(
    ("text", "speed", "generation"),
    [
        ("2.5 GT/s PCIe", 2.5e9, 1),
        ("5.0 GT/s PCIe", 5e9, 2),
        ("8.0 GT/s PCIe", 8e9, 3),
        ("16.0 GT/s PCIe", 16e9, 4),
        ("32.0 GT/s PCIe", 32e9, 5),
        ("64.0 GT/s PCIe", 64e9, 6),
        ("8 GT/s", 8e9, 3),
    ],
)
def test_link_speed_in_transfers_per_second(text: str, speed: float, generation: int) -> None:
    """Each speed that a kernel prints becomes transfers per second, and its generation."""
    assert speed == parse_link_speed(text)
    assert generation == parse_generation(text)


@pytest.mark.parametrize("text", ["Unknown", "Unknown speed", "", "16.0", "16.0 GT/s PCIe x4", "-1 GT/s", "٣ GT/s"])
def test_an_unknown_speed_is_no_speed(text: str) -> None:
    """A link that is down says so in words, which never become a number."""
    with pytest.raises(ValueError, match="no PCIe link speed"):
        parse_link_speed(text)


def test_a_speed_of_no_generation_is_not_rounded_to_one() -> None:
    """A speed that this agent does not know has no generation."""
    with pytest.raises(ValueError, match="no known PCIe generation"):
        parse_generation("17.0 GT/s PCIe")


def test_a_link_reads_as_people_write_it() -> None:
    """Speed and lanes together make the text that a vendor's sheet has."""
    assert "16.0 GT/s x4" == parse_link("16.0 GT/s PCIe", "4")
    assert "32.0 GT/s x16" == parse_link("32.0 GT/s PCIe", "16")


@pytest.mark.parametrize(("speed", "width"), [("Unknown", "4"), ("8.0 GT/s PCIe", "0"), ("8.0 GT/s PCIe", "255")])
def test_a_link_without_speed_or_lanes_is_none(speed: str, width: str) -> None:
    """0 lanes is a link that is down, 255 the kernel's word for not knowing."""
    with pytest.raises(ValueError, match="no PCIe link"):
        parse_link(speed, width)


def test_the_identity_is_vendor_and_device() -> None:
    """Written as lspci -n does."""
    assert "144d:a810" == parse_pci_id("0x144d", "0xa810")


@pytest.mark.parametrize(("vendor", "device"), [("", ""), ("144d", "a810"), ("0x144d", ""), ("0x144d0", "0xa810")])
def test_half_an_identity_is_none(vendor: str, device: str) -> None:
    """Both halves must be what sysfs writes."""
    with pytest.raises(ValueError, match="no PCI id"):
        parse_pci_id(vendor, device)


def test_errors_are_the_total_that_the_kernel_gives() -> None:
    """One message may carry several errors, so the lines above the total are never added up."""
    assert 2 == parse_aer(_AER)
    assert 7 == parse_aer("Data Link Protocol 3\nPoisoned TLP 9\nTOTAL_ERR_NONFATAL 7")
    assert 0 == parse_aer("Undefined 0\nTOTAL_ERR_FATAL 0\n")


@pytest.mark.parametrize("text", ["", "RxErr 2\n", "TOTAL_ERR_COR", "TOTAL_ERR_COR -1", "x TOTAL_ERR_COR 1"])
def test_errors_without_a_total_are_none(text: str) -> None:
    """A list without its last line is not zero errors."""
    with pytest.raises(ValueError, match="no total of PCIe errors"):
        parse_aer(text)


@given(st.text() | st.from_regex(r"[0-9.]{1,5} GT/s( PCIe)?|TOTAL_ERR_[A-Z]* [0-9-]*", fullmatch=True), st.text())
def test_any_text_is_a_sane_value_or_a_value_error(text: str, other: str) -> None:
    """No text becomes NaN, an infinity or a negative number."""
    for parse in (parse_link_speed, parse_generation, parse_aer):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert math.isfinite(value)
        assert value >= 0
    for compose in (parse_link, parse_pci_id):
        try:
            assert compose(text, other)
        except ValueError:
            continue
