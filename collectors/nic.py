"""Network interfaces that are a device: /sys/class/net/*, and the ConnectX-7 behind four of them.

A Spark has two QSFP cages on one ConnectX-7, which shows four PCI functions: it hangs on two PCIe x4 ports (domains
0000 and 0002), and on each port function .0 is cage 0 and .1 cage 1. So every cage has two interfaces, its twins, and
only both together carry its 200 Gb/s. With hot-plug power saving the card leaves the bus while no cable is in, which
takes its interfaces away: no ConnectX-7 is no fault by itself.

``speed`` is in Mbit/s; ``statistics/{rx,tx}_bytes`` count bytes, and RDMA's ``port_{rcv,xmit}_data`` words of 4 bytes.

https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-net
https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-net-statistics
https://www.kernel.org/doc/Documentation/ABI/stable/sysfs-class-infiniband
https://github.com/NVIDIA/NV-Kernels/pull/271 (the hot-plug driver)
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from spark_agent.collectors import (
    Absence,
    Fact,
    Host,
    Item,
    Kind,
    NoData,
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
from spark_agent.collectors._gb10 import is_gb10
from spark_agent.collectors._pci import declare, parse_pci_id, pci_address, read_link

_NET: Final = "/sys/class/net"
_PCI: Final = "/sys/bus/pci/devices"
_RDMA: Final = "/sys/class/infiniband"
_MARKER: Final = "/etc/nvidia/cx7-hotplug-enabled"
# The driver binds to the platform device; the ACPI device of the same name is its firmware node.
_HOTPLUG: Final = tuple(f"/sys/bus/{bus}/devices/MTKP0001:00/pcie_hotplug" for bus in ("platform", "acpi"))

_CONNECTX7: Final = "15b3:1021"
_FUNCTIONS_OF_A_SPARK: Final = 4


NICS: Final = Section(
    "nics", "Network interfaces that are a device, not made by software.", entity="device", id_key="name", metric="nic"
)


def _counter(key: str, source: str, meaning: str, unit: Unit = Unit.COUNT, labels: tuple[str, ...] = ()) -> Quantity:
    return Quantity(NICS, key, unit, source, meaning, kind=Kind.COUNTER, labels=labels, bounds=(0, math.inf))


KIND: Final = Property(
    NICS,
    "kind",
    f"{_NET}/*/device, {_NET}/*/phy80211",
    "What it is: connectx7, ethernet (other wired PCI), wifi, usb, other (paravirtual and the like).",
)
DRIVER: Final = Property(NICS, "driver", f"{_NET}/*/device/driver", "Kernel driver.")
DRIVER_VERSION: Final = Property(
    NICS,
    "driver_version",
    f"{_NET}/*/device/driver/module/version",
    "Version of a driver that comes apart from the kernel, as r8127 does; the kernel's own mostly state none.",
)
LINK: Final = Property(
    NICS,
    "link",
    f"{_NET}/*/operstate, {_NET}/*/carrier",
    "Whether there is a link: up, down, or unknown. A port without a cable is down, which is normal.",
    inventory=False,
)
OPERSTATE: Final = Property(
    NICS, "operstate", f"{_NET}/*/operstate", "Operational state as RFC 2863 has it.", inventory=False
)
SPEED: Final = Quantity(
    NICS,
    "speed_bits_per_second",
    Unit.BIT_PER_SECOND,
    f"{_NET}/*/speed",
    "Speed of the link. Each twin of a ConnectX-7 cage states the cage's 200 Gb/s, but one alone reaches about half "
    "of it, which is what its PCIe Gen5 x4 carries.",
    bounds=(1e6, 1.6e12),
)
DUPLEX: Final = Property(NICS, "duplex", f"{_NET}/*/duplex", "Duplex of the link: full or half.", inventory=False)
MTU: Final = Quantity(
    NICS,
    "mtu_bytes",
    Unit.BYTE,
    f"{_NET}/*/mtu",
    "Largest packet that is sent: 1500 unless changed.",
    # 68 is the least that IPv4 allows (RFC 791).
    bounds=(68, 2**20),
    inventory=True,
)
CAGE: Final = Property(
    NICS, "cage", "PCI function number of the ConnectX-7", "QSFP cage of a Spark's ConnectX-7 that it serves: 0 or 1."
)
TWIN: Final = Property(
    NICS,
    "twin",
    "PCI function number of the ConnectX-7",
    "The interface on the same cage through the card's other PCIe port. One twin up and the other down is a fault.",
)
PCI: Final = Property(NICS, "pci", f"{_NET}/*/device", "PCI address.")
PCI_ID: Final = Property(NICS, "pci_id", f"{_NET}/*/device/vendor, device", "PCI vendor and device.")
PCI_NAME: Final = Property(
    NICS,
    "pci_name",
    "udev ID_VENDOR_FROM_DATABASE, ID_MODEL_FROM_DATABASE",
    "Vendor and model as the hardware database names them.",
)
FIRMWARE: Final = Property(
    NICS,
    "firmware",
    f"{_RDMA}/*/fw_ver",
    "Firmware version of a ConnectX. Of any other card it takes an ethtool ioctl, which sysfs has no file for.",
)
ADDRESS: Final = Property(NICS, "address", f"{_NET}/*/address", "MAC address.", private=True)

_NO_RDMA: Final = "RoCE goes past this counter: see the rdma ones."
CARRIER_CHANGES: Final = _counter(
    "carrier_changes",
    f"{_NET}/*/carrier_changes",
    "Times that the link went up or down. No uevent tells of that, so a flap shows here only.",
)
RECEIVED: Final = _counter(
    "received_bytes",
    f"{_NET}/*/statistics/rx_bytes",
    f"Bytes received by the kernel's network stack. {_NO_RDMA}",
    Unit.BYTE,
)
TRANSMITTED: Final = _counter(
    "transmitted_bytes",
    f"{_NET}/*/statistics/tx_bytes",
    f"Bytes sent by the kernel's network stack. {_NO_RDMA}",
    Unit.BYTE,
)
RECEIVED_PACKETS: Final = _counter(
    "received_packets",
    f"{_NET}/*/statistics/rx_packets",
    f"Packets received by the kernel's network stack. {_NO_RDMA}",
)
TRANSMITTED_PACKETS: Final = _counter(
    "transmitted_packets",
    f"{_NET}/*/statistics/tx_packets",
    f"Packets sent by the kernel's network stack. {_NO_RDMA}",
)
RECEIVE_ERRORS: Final = _counter("receive_errors", f"{_NET}/*/statistics/rx_errors", "Bad packets received.")
TRANSMIT_ERRORS: Final = _counter(
    "transmit_errors", f"{_NET}/*/statistics/tx_errors", "Packets that could not be sent."
)
RECEIVE_DROPPED: Final = _counter(
    "receive_dropped",
    f"{_NET}/*/statistics/rx_dropped",
    "Packets received whole and not passed on. Some are normal: unknown protocols count here.",
)
TRANSMIT_DROPPED: Final = _counter(
    "transmit_dropped", f"{_NET}/*/statistics/tx_dropped", "Packets dropped on their way out."
)

PCIE: Final = declare(NICS, f"{_NET}/*/device")
PCIE_LINK, PCIE_LINK_MAX, PCIE_GENERATION, PCIE_GENERATION_MAX, PCIE_LANES, PCIE_LANES_MAX, PCIE_ERRORS = PCIE

RDMA_DEVICE: Final = Property(NICS, "rdma_device", f"{_NET}/*/device/infiniband", "RDMA device of the same function.")
RDMA_STATE: Final = Property(
    NICS, "rdma_state", f"{_RDMA}/*/ports/1/state", "State of the RDMA port: ACTIVE, DOWN, …", inventory=False
)
RDMA_PHYSICAL_STATE: Final = Property(
    NICS,
    "rdma_physical_state",
    f"{_RDMA}/*/ports/1/phys_state",
    "Physical state of the RDMA port: LinkUp, Disabled, Polling, …",
    inventory=False,
)
RDMA_RATE: Final = Quantity(
    NICS,
    "rdma_rate_bits_per_second",
    Unit.BIT_PER_SECOND,
    f"{_RDMA}/*/ports/1/rate",
    "Rate of the RDMA port.",
    bounds=(1e9, 1.6e12),
)
_BESIDE: Final = "RoCE bytes are here only: the interface's own counters do not see them."
RDMA_RECEIVED: Final = _counter(
    "rdma_received_bytes",
    f"{_RDMA}/*/ports/1/counters/port_rcv_data",
    f"Bytes received by RDMA. {_BESIDE}",
    Unit.BYTE,
)
RDMA_TRANSMITTED: Final = _counter(
    "rdma_transmitted_bytes",
    f"{_RDMA}/*/ports/1/counters/port_xmit_data",
    f"Bytes sent by RDMA. {_BESIDE}",
    Unit.BYTE,
)
RDMA_RECEIVED_PACKETS: Final = _counter(
    "rdma_received_packets",
    f"{_RDMA}/*/ports/1/counters/port_rcv_packets",
    "Packets received by RDMA, bad ones too.",
)
RDMA_TRANSMITTED_PACKETS: Final = _counter(
    "rdma_transmitted_packets",
    f"{_RDMA}/*/ports/1/counters/port_xmit_packets",
    "Packets sent by RDMA, bad ones too.",
)
RDMA_ERRORS: Final = _counter(
    "rdma_errors",
    f"{_RDMA}/*/ports/1/counters/{{symbol_error,link_downed,port_rcv_errors,port_xmit_discards}}",
    "Errors of the RDMA port, by the kernel's name of each. The port keeps 8 or 16 bits of them and stops when full.",
    labels=("error",),
)

CONNECTX7: Final = Section("connectx7", "The ConnectX-7 as a whole.", metric="connectx7")

STATE: Final = Property(
    CONNECTX7,
    "state",
    f"{_PCI}, {_MARKER}, MTKP0001:00/pcie_hotplug",
    "Whether it is there: present; asleep (off the bus to save power, which a cable ends); incomplete (a Spark has "
    "four functions); missing (none, and nothing that would put it to sleep).",
    inventory=False,
)
FUNCTIONS: Final = Quantity(
    CONNECTX7, "functions", Unit.COUNT, f"{_PCI}/*/vendor, device", f"PCI functions {_CONNECTX7} on the bus."
)
CAGES_UP: Final = Quantity(
    CONNECTX7, "cages_up", Unit.COUNT, f"{_NET}/*/operstate", "QSFP cages with a link, through either twin."
)
HOTPLUG_ENABLED: Final = Property(
    CONNECTX7,
    "hotplug_enabled",
    f"{_HOTPLUG[0]}/hotplug_enabled",
    "Whether the driver takes the card off the bus while no cable is in.",
)
HOTPLUG_DEBUG_STATE: Final = Property(
    CONNECTX7,
    "hotplug_debug_state",
    f"{_HOTPLUG[0]}/debug_state",
    "Cable as the hot-plug driver has it: 1 plugged in, 0 out.",
    inventory=False,
)
HOTPLUG_MARKER: Final = Property(
    CONNECTX7, "hotplug_marker", _MARKER, "Whether the system is set up to use hot-plug power saving."
)

_STATISTICS: Final = (
    (RECEIVED, "rx_bytes"),
    (TRANSMITTED, "tx_bytes"),
    (RECEIVED_PACKETS, "rx_packets"),
    (TRANSMITTED_PACKETS, "tx_packets"),
    (RECEIVE_ERRORS, "rx_errors"),
    (TRANSMIT_ERRORS, "tx_errors"),
    (RECEIVE_DROPPED, "rx_dropped"),
    (TRANSMIT_DROPPED, "tx_dropped"),
)
# Data is counted in words of 4 bytes.
_RDMA_COUNTERS: Final = (
    (RDMA_RECEIVED, "port_rcv_data", 4),
    (RDMA_TRANSMITTED, "port_xmit_data", 4),
    (RDMA_RECEIVED_PACKETS, "port_rcv_packets", 1),
    (RDMA_TRANSMITTED_PACKETS, "port_xmit_packets", 1),
)
_RDMA_ERROR_FILES: Final = ("symbol_error", "link_downed", "port_rcv_errors", "port_xmit_discards")

# RFC 2863's states; what none of them settles, the carrier does.
_LINK_OF_OPERSTATE: Final = {
    "up": "up",
    "down": "down",
    "lowerlayerdown": "down",
    "notpresent": "down",
    "dormant": "unknown",
    "testing": "unknown",
    "unknown": "unknown",
}
_LINK_OF_CARRIER: Final = {"1": "up", "0": "down"}
_RATE: Final = re.compile(r"([0-9]{1,5}(?:\.[0-9])?) Gb/sec(?: \(.*\))?")
_PORT_STATE: Final = re.compile(r"[0-9]{1,3}: ([A-Za-z_ <>]{1,40})")
_USB: Final = re.compile(r"/usb[0-9]+/")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What stands behind an interface, and does not change while it is there."""

    name: str
    device: str
    address: str
    pci_id: Callable[[], str]
    kind: Fact | Absence


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface, with what more than one question needs to know of it."""

    hardware: Hardware
    operstate: Callable[[], str]
    link: Fact | Absence

    @property
    def name(self) -> str:
        """What the kernel calls it."""
        return self.hardware.name

    @property
    def address(self) -> str:
        """Its PCI address; empty where it is no PCI function itself."""
        return self.hardware.address

    @property
    def path(self) -> str:
        """Its directory."""
        return f"{_NET}/{self.name}"

    @property
    def is_connectx7(self) -> bool:
        """Whether it is one of the four functions of a ConnectX-7."""
        kind = self.hardware.kind
        return isinstance(kind, Fact) and kind.value == "connectx7"

    def link_is(self, word: str) -> bool:
        """Whether its link is known to be ``up``, or ``down``."""
        return isinstance(self.link, Fact) and self.link.value == word


#: A Spark's interfaces have some 150 files. What comes, goes or changes its link meanwhile, the kernel reports.
EVERY_SECONDS: Final = 5.0


def read(host: Host) -> Iterator[Item]:
    """Yield what the machine says of its network interfaces, and of the ConnectX-7 even where it sleeps."""
    spark = is_gb10(host)
    names = [name for name in host.list(_NET) if host.exists(f"{_NET}/{name}/device")]
    interfaces = [_interface(host, name) for name in names]
    functions = once(lambda: host.keep(_count_functions))
    cages: dict[int, list[Interface]] = {}
    for interface in interfaces:
        if spark and interface.is_connectx7:
            cages.setdefault(_function(interface.address), []).append(interface)
    for interface in interfaces:
        yield from _identity(host, interface, cages)
        yield from _traffic(host, interface)
        if interface.address:
            yield from read_link(host, PCIE, f"{interface.path}/device", interface.name)
        yield from _rdma(host, interface)
    if not interfaces and not spark:
        raise NoData(Reason.NO_DEVICE, f"no interface in {_NET} is a device")
    yield from _connectx7(host, functions, cages, spark=spark)


def _interface(host: Host, name: str) -> Interface:
    path = f"{_NET}/{name}"
    operstate = once(lambda: host.text(f"{path}/operstate"))
    link = state(LINK, lambda: _link(host, path, operstate), name)
    return Interface(host.keep(_hardware, name), operstate, link)


def _hardware(host: Host, name: str) -> Hardware:
    path = f"{_NET}/{name}"
    try:
        device = host.real(f"{path}/device")
    except OSError:  # it was unplugged as we looked
        device = ""
    try:
        # Only if the device is a PCI function itself: a virtio one merely sits on one.
        address = pci_address(device.rpartition("/")[2])
    except ValueError:
        address = ""
    pci_id = once(lambda: host.keep(_pci_id, address) if address else "")
    kind = state(KIND, lambda: _kind(host, path, device, pci_id), name)
    return Hardware(name, device, address, pci_id, kind)


def _kind(host: Host, path: str, device: str, pci_id: Callable[[], str]) -> str:
    if host.exists(f"{path}/phy80211") or host.exists(f"{path}/wireless"):
        return "wifi"
    if pci_id():
        return "connectx7" if pci_id() == _CONNECTX7 else "ethernet"
    return "usb" if _USB.search(device) else "other"


def _link(host: Host, path: str, operstate: Callable[[], str]) -> str:
    link = parse_operstate(operstate())
    if link != "unknown":
        return link
    try:
        carrier = host.text(f"{path}/carrier")
    except OSError:  # EINVAL while the interface is not up
        return link
    return _LINK_OF_CARRIER.get(carrier, link)


def _identity(host: Host, interface: Interface, cages: Mapping[int, list[Interface]]) -> Iterator[Item]:
    name, path = interface.name, interface.path
    yield from host.keep(_described, name)
    yield interface.link
    yield state(OPERSTATE, interface.operstate, name)
    yield measure(SPEED, partial(_speed, host, interface), name)
    yield state(DUPLEX, partial(_duplex, host, interface), name)
    yield measure(MTU, partial(host.integer, f"{path}/mtu"), name)
    for cage, twins in cages.items():
        if interface in twins:
            yield Fact(CAGE, cage, name)
            yield state(TWIN, partial(_twin, interface, twins), name)


def _described(host: Host, name: str) -> Iterator[Item]:
    hardware, path = host.keep(_hardware, name), f"{_NET}/{name}"
    yield hardware.kind
    yield state(DRIVER, partial(host.link, f"{path}/device/driver"), name)
    yield state(DRIVER_VERSION, partial(host.text, f"{path}/device/driver/module/version"), name)
    yield state(ADDRESS, partial(host.text, f"{path}/address"), name)
    if hardware.address:
        yield Fact(PCI, hardware.address, name)
        yield state(PCI_ID, hardware.pci_id, name)
        yield state(PCI_NAME, partial(_pci_name, host, hardware), name)


def _function(address: str) -> int:
    return int(address.rpartition(".")[2])


def _twin(interface: Interface, twins: list[Interface]) -> str:
    # A switchdev representor shares its function's address and is no twin.
    twin = next((other for other in twins if other.address != interface.address), None)
    if not twin:
        raise Unavailable(Reason.NO_DEVICE, "the cage's other function has no interface")
    return twin.name


def _speed(host: Host, interface: Interface) -> float:
    # Not asked while down: drivers then give -1, EINVAL or the last speed, and a ConnectX asks its firmware for it.
    if interface.link_is("down"):
        raise Unavailable(Reason.NO_DATA, "link is down")
    return parse_speed(host.text(f"{interface.path}/speed"))


def _duplex(host: Host, interface: Interface) -> str:
    if interface.link_is("down"):
        raise Unavailable(Reason.NO_DATA, "link is down")
    return parse_duplex(host.text(f"{interface.path}/duplex"))


def _pci_name(host: Host, hardware: Hardware) -> str:
    known = host.udev.properties(hardware.device)
    names = (known.get("ID_VENDOR_FROM_DATABASE"), known.get("ID_MODEL_FROM_DATABASE"))
    if not any(names):
        raise Unavailable(Reason.NO_DATA, "udev does not name it")
    return " ".join(filter(None, names))


def _traffic(host: Host, interface: Interface) -> Iterator[Item]:
    name, path = interface.name, interface.path
    yield measure(CARRIER_CHANGES, partial(host.integer, f"{path}/carrier_changes"), name)
    for counter, file in _STATISTICS:
        yield measure(counter, partial(host.integer, f"{path}/statistics/{file}"), name)


def _rdma(host: Host, interface: Interface) -> Iterator[Item]:
    name = interface.name
    device = state(RDMA_DEVICE, partial(_rdma_device, host, interface), name)
    if isinstance(device, Absence):
        yield from _without_rdma(interface, device)
        return
    port = f"{_RDMA}/{device.value}/ports/1"
    yield device
    yield state(FIRMWARE, partial(host.text, f"{_RDMA}/{device.value}/fw_ver"), name)
    port_state = state(RDMA_STATE, lambda: parse_port_state(host.text(f"{port}/state")), name)
    yield port_state
    yield state(RDMA_PHYSICAL_STATE, lambda: parse_port_state(host.text(f"{port}/phys_state")), name)
    yield measure(RDMA_RATE, partial(_rdma_rate, host, f"{port}/rate", port_state), name)
    for counter, file, size in _RDMA_COUNTERS:
        yield measure(counter, partial(_port_counter, host, f"{port}/counters/{file}", size), name)
    for file in _RDMA_ERROR_FILES:
        yield measure(RDMA_ERRORS, partial(_port_counter, host, f"{port}/counters/{file}"), name, (file,))


def _rdma_device(host: Host, interface: Interface) -> str:
    if devices := host.list(f"{interface.path}/device/infiniband"):
        return devices[0]
    raise Unavailable(Reason.DRIVER_NOT_LOADED, "no RDMA device: mlx5_ib is not loaded")


def _without_rdma(interface: Interface, why: Absence) -> Iterator[Item]:
    if interface.is_connectx7:
        yield why
        yield Absence(FIRMWARE, why.reason, why.detail, interface.name)
    else:
        yield Absence(FIRMWARE, Reason.NOT_SUPPORTED, "takes an ethtool ioctl; sysfs has no file", interface.name)


def _rdma_rate(host: Host, path: str, port_state: Fact | Absence) -> float:
    # mlx5 answers 40 Gb/sec (4X QDR) for any port without a link.
    if isinstance(port_state, Absence):
        raise Unavailable(port_state.reason, port_state.detail)
    if port_state.value != "ACTIVE":
        raise Unavailable(Reason.NO_DATA, f"port is {port_state.value}")
    return parse_rate(host.text(path))


def _port_counter(host: Host, path: str, size: int = 1) -> int:
    return parse_port_counter(host.text(path)) * size


def _connectx7(
    host: Host, functions: Callable[[], int], cages: Mapping[int, list[Interface]], *, spark: bool
) -> Iterator[Item]:
    hotplug = next(filter(host.exists, _HOTPLUG), _HOTPLUG[0])
    enabled = once(lambda: parse_switch(host.text(f"{hotplug}/hotplug_enabled")))
    marker = host.exists(_MARKER)
    yield state(STATE, lambda: _presence(functions(), enabled, marker=marker, spark=spark))
    yield measure(FUNCTIONS, functions)
    if spark:
        yield measure(CAGES_UP, partial(_cages_up, functions, cages))
        yield state(HOTPLUG_ENABLED, enabled)
        yield state(HOTPLUG_DEBUG_STATE, partial(host.integer, f"{hotplug}/debug_state"))
        yield Fact(HOTPLUG_MARKER, marker)


def _count_functions(host: Host) -> int:
    addresses = host.list(_PCI)
    if not addresses:
        raise Unavailable(Reason.NOT_FOUND, f"{_PCI} is empty")
    return sum(_is_connectx7(host, address) for address in addresses)


def _is_connectx7(host: Host, address: str) -> bool:
    try:
        return host.keep(_pci_id, address) == _CONNECTX7
    except FileNotFoundError:  # it left the bus as we looked
        return False


def _pci_id(host: Host, address: str) -> str:
    return parse_pci_id(host.text(f"{_PCI}/{address}/vendor"), host.text(f"{_PCI}/{address}/device"))


def _presence(functions: int, hotplug_enabled: Callable[[], bool], *, marker: bool, spark: bool) -> str:
    if functions:
        return "incomplete" if spark and functions < _FUNCTIONS_OF_A_SPARK else "present"
    if not spark:
        raise Unavailable(Reason.NO_DEVICE, "no ConnectX-7, and no GB10 that would have one")
    if marker:
        return "asleep"
    try:
        return "asleep" if hotplug_enabled() else "missing"
    except FileNotFoundError:  # no hot-plug driver
        return "missing"


def _cages_up(functions: Callable[[], int], cages: Mapping[int, list[Interface]]) -> int:
    if not cages:
        if functions():
            raise Unavailable(Reason.NO_DRIVER, "no function of the ConnectX-7 has an interface")
        raise Unavailable(Reason.NO_DEVICE, "no ConnectX-7 on the bus")
    up = 0
    for interfaces in cages.values():
        if any(interface.link_is("up") for interface in interfaces):
            up += 1
        elif fault := next((one.link for one in interfaces if isinstance(one.link, Absence)), None):
            raise Unavailable(fault.reason, fault.detail)
    return up


def parse_operstate(text: str) -> str:
    """Turn an operational state into ``up``, ``down``, or ``unknown`` where it does not settle that."""
    if text not in _LINK_OF_OPERSTATE:
        raise ValueError(f"no operational state: {text[:40]!r}")
    return _LINK_OF_OPERSTATE[text]


def parse_speed(text: str) -> float:
    """Turn Mbit/s into bits per second; -1 is the kernel's SPEED_UNKNOWN."""
    if text == "-1":
        raise Unavailable(Reason.NO_DATA, "the driver states no speed")
    return parse_integer(text) * 1e6


def parse_duplex(text: str) -> str:
    """Return ``full`` or ``half``."""
    if text == "unknown":
        raise Unavailable(Reason.NO_DATA, "the driver states no duplex")
    if text not in ("full", "half"):
        raise ValueError(f"no duplex: {text[:40]!r}")
    return text


def parse_port_state(text: str) -> str:
    """Turn ``4: ACTIVE`` into ``ACTIVE``."""
    found = _PORT_STATE.fullmatch(text)
    if not found:
        raise ValueError(f"no state of an RDMA port: {text[:40]!r}")
    return found[1]


def parse_rate(text: str) -> float:
    """Turn ``200 Gb/sec (2X NDR)`` into bits per second."""
    found = _RATE.fullmatch(text)
    if not found:
        raise ValueError(f"no rate of an RDMA port: {text[:40]!r}")
    return float(found[1]) * 1e9


def parse_port_counter(text: str) -> int:
    """Return a counter of an RDMA port, which says ``N/A (no PMA)`` where the device keeps none."""
    if text.startswith("N/A"):
        raise Unavailable(Reason.NOT_SUPPORTED, text[:40])
    return parse_integer(text)


def parse_switch(text: str) -> bool:
    """Turn ``1`` or ``0`` into whether it is on."""
    if text not in ("0", "1"):
        raise ValueError(f"neither 0 nor 1: {text[:40]!r}")
    return text == "1"
