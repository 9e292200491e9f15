"""One PCI device as sysfs has it: its address, its link and the errors that its port counted.

A device's directory (``/sys/devices/…/0004:01:00.0``) holds ``vendor``, ``device``,
``{current,max}_link_{speed,width}`` and, with Advanced Error Reporting, ``aer_dev_{correctable,nonfatal,fatal}``:
https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-pci and …/sysfs-bus-pci-devices-aer_stats.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from spark_agent.collectors import (
    Host,
    Item,
    Kind,
    Property,
    Quantity,
    Reason,
    Section,
    Unavailable,
    Unit,
    measure,
    once,
    parse_integer,
    state,
)

# Domains have four hexadecimal digits, and five behind a host bridge that the kernel invented (Intel's VMD).
_ADDRESS: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_ID: Final = re.compile(r"0x([0-9a-f]{4})")
_SPEED: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9])?) GT/s(?: PCIe)?")
_AER_TOTAL: Final = re.compile(r"^TOTAL_ERR_[A-Z]+ ([0-9]{1,20})$", re.MULTILINE)
_GENERATIONS: Final = {2.5e9: 1, 5e9: 2, 8e9: 3, 16e9: 4, 32e9: 5, 64e9: 6}

AER_SEVERITIES: Final = ("correctable", "nonfatal", "fatal")


def pci_address(real_path: str) -> str:
    """Return the address of the PCI device that a real path leads to or through: ``0004:01:00.0``."""
    for part in reversed(real_path.split("/")):
        if _ADDRESS.fullmatch(part):
            return part
    raise ValueError(f"no PCI device in {real_path[:100]!r}")


def parse_pci_id(vendor: str, device: str) -> str:
    """Turn ``0x144d`` and ``0xa810`` into ``144d:a810``."""
    vendor_id, device_id = _ID.fullmatch(vendor), _ID.fullmatch(device)
    if not vendor_id or not device_id:
        raise ValueError(f"no PCI id: {vendor[:20]!r}, {device[:20]!r}")
    return f"{vendor_id[1]}:{device_id[1]}"


def parse_link_speed(text: str) -> float:
    """Turn ``16.0 GT/s PCIe`` into transfers per second; a link that is down says ``Unknown``."""
    found = _SPEED.fullmatch(text)
    if not found:
        raise ValueError(f"no PCIe link speed: {text[:40]!r}")
    return float(found[1]) * 1e9


def parse_generation(text: str) -> int:
    """Turn a link speed as sysfs has it into the PCIe generation that introduced it."""
    speed = parse_link_speed(text)
    if speed not in _GENERATIONS:
        raise ValueError(f"a link speed of no known PCIe generation: {text[:40]!r}")
    return _GENERATIONS[speed]


def parse_link(speed: str, width: str) -> str:
    """Turn ``16.0 GT/s PCIe`` and ``4`` into what people write: ``16.0 GT/s x4``."""
    parse_link_speed(speed)
    # 0 is a link that is down, and 63 or 255 what the kernel makes of a device that is gone.
    if not re.fullmatch(r"[1-9]|[12][0-9]|3[0-2]", width):
        raise ValueError(f"no PCIe link width: {width[:40]!r}")
    return f"{speed.removesuffix(' PCIe')} x{width}"


def parse_aer(text: str) -> int:
    """Return the sum that closes a list of error counts: ``TOTAL_ERR_COR 2``."""
    found = _AER_TOTAL.search(text)
    if not found:
        raise ValueError(f"no total of PCIe errors: {text[:60]!r}")
    return int(found[1])


class Declared(NamedTuple):
    """What a section of PCI devices says of each device's link and errors."""

    link: Property
    link_max: Property
    generation: Quantity
    generation_max: Quantity
    lanes: Quantity
    lanes_max: Quantity
    errors: Quantity


def declare(section: Section, device: str) -> Declared:
    """Declare the link and the errors of the devices in a section; ``device`` is where sysfs has one."""
    speed, width = f"{device}/{{}}_link_speed", f"{device}/{{}}_link_width"
    lanes = (1.0, 32.0)
    return Declared(
        Property(
            section,
            "pcie_link",
            f"{device}/current_link_{{speed,width}}",
            "PCIe link as it runs: 16.0 GT/s x4.",
            inventory=False,
        ),
        Property(
            section, "pcie_link_max", f"{device}/max_link_{{speed,width}}", "Best PCIe link that the device can run."
        ),
        Quantity(
            section, "pcie_generation", Unit.COUNT, speed.format("current"), "PCIe generation of the speed it runs at."
        ),
        Quantity(
            section,
            "pcie_generation_max",
            Unit.COUNT,
            speed.format("max"),
            "PCIe generation of the best speed that the device can run.",
            inventory=True,
        ),
        Quantity(
            section,
            "pcie_lanes",
            Unit.COUNT,
            width.format("current"),
            "PCIe lanes that the link runs on.",
            bounds=lanes,
        ),
        Quantity(
            section,
            "pcie_lanes_max",
            Unit.COUNT,
            width.format("max"),
            "PCIe lanes that the device can run.",
            bounds=lanes,
            inventory=True,
        ),
        Quantity(
            section,
            "pcie_errors",
            Unit.COUNT,
            f"{device}/aer_dev_{{correctable,nonfatal,fatal}}",
            "PCIe errors (AER) that the device itself saw since boot; its link partner may have seen others.",
            kind=Kind.COUNTER,
            labels=("severity",),
        ),
    )


def read_link(host: Host, declared: Declared, device: str, entity: str) -> Iterator[Item]:
    """Yield link and errors of the device in one directory of sysfs."""
    yield from _current(host, declared, device, entity)
    yield from host.keep(_most, declared, device, entity)
    for severity in AER_SEVERITIES:
        path = f"{device}/aer_dev_{severity}"
        yield measure(declared.errors, partial(_aer, host, path), entity, (severity,), source=path)


def _current(host: Host, declared: Declared, device: str, entity: str) -> Iterator[Item]:
    speed = once(partial(_trained, host, f"{device}/current_link_speed"))
    width = once(partial(_trained, host, f"{device}/current_link_width"))
    yield state(declared.link, partial(_link, speed, width), entity)
    yield measure(declared.generation, partial(_generation, speed), entity)
    yield measure(declared.lanes, partial(_lanes, width), entity)


def _most(host: Host, declared: Declared, device: str, entity: str) -> Iterator[Item]:
    speed = once(partial(_trained, host, f"{device}/max_link_speed"))
    width = once(partial(_trained, host, f"{device}/max_link_width"))
    yield state(declared.link_max, partial(_link, speed, width), entity)
    yield measure(declared.generation_max, partial(_generation, speed), entity)
    yield measure(declared.lanes_max, partial(_lanes, width), entity)


def _trained(host: Host, path: str) -> str:
    text = host.text(path)
    # What the kernel makes of a device that has no link of its own, as in a virtual machine.
    if text == "0" or text.startswith("Unknown"):
        raise Unavailable(Reason.NO_DATA, f"{path}: {text}")
    return text


def _link(speed: Callable[[], str], width: Callable[[], str]) -> str:
    return parse_link(speed(), width())


def _generation(speed: Callable[[], str]) -> int:
    return parse_generation(speed())


def _lanes(width: Callable[[], str]) -> int:
    return parse_integer(width())


def _aer(host: Host, path: str) -> int:
    return parse_aer(host.text(path))
