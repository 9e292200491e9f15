"""NVMe drives: ``/sys/class/nvme/nvme*``, all that an ordinary user may read. SMART needs root.

* ``model``, ``serial``, ``firmware_rev``, ``state``, ``transport``: text, padded with blanks.
* ``nvme{N}n{M}/size``, in sectors of 512 bytes whatever the drive's own, and ``nvme{N}n{M}/stat``: sectors,
  milliseconds, requests (https://docs.kernel.org/block/stat.html). Where the kernel knows paths, the namespace's
  directory is its path's: ``nvme{N}c{P}n{M}``.
* the drive's hwmon chip: ``temp{K}_{input,min,max,crit}``, in thousandths of a degree Celsius.
* the PCI device: address, link, errors (``_pci.py``).
"""

import re
from collections.abc import Iterator
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
    Reading,
    Reason,
    Section,
    Unavailable,
    Unit,
    absent,
    measure,
    parse_integer,
    state,
)
from spark_agent.collectors._hwmon import PLAUSIBLE_CELSIUS, Chip, chips, parse_millidegrees
from spark_agent.collectors._pci import declare, parse_pci_id, pci_address, read_link

NVME: Final = Section("nvme", "NVMe drives.", entity="device", id_key="name", metric="nvme")

_CLASS: Final = "/sys/class/nvme"
_PCI: Final = f"{_CLASS}/nvme*/device"
_SECTOR_BYTES: Final = 512

MODEL: Final = Property(NVME, "model", source=f"{_CLASS}/nvme*/model", help="Model of the drive.")
FIRMWARE: Final = Property(
    NVME, "firmware", source=f"{_CLASS}/nvme*/firmware_rev", help="Firmware that the drive runs."
)
SERIAL: Final = Property(
    NVME, "serial", source=f"{_CLASS}/nvme*/serial", help="Serial number of the drive.", private=True
)
STATE: Final = Property(
    NVME,
    "state",
    source=f"{_CLASS}/nvme*/state",
    help="State of the controller: live, resetting, connecting, deleting, dead.",
    inventory=False,
)
TRANSPORT: Final = Property(
    NVME, "transport", source=f"{_CLASS}/nvme*/transport", help="How the drive is attached: pcie, tcp, rdma."
)
NAMESPACES: Final = Quantity(
    NVME,
    "namespaces",
    Unit.COUNT,
    source=f"{_CLASS}/nvme*/nvme*n*",
    help="Namespaces of the drive that the kernel uses.",
    inventory=True,
)
CAPACITY: Final = Quantity(
    NVME,
    "capacity_bytes",
    Unit.BYTE,
    source=f"{_CLASS}/nvme*/nvme*n*/size",
    help="Size of all namespaces of the drive.",
    bounds=(1, 2**63),
    inventory=True,
)

TEMPERATURE: Final = Quantity(
    NVME,
    "temperature_celsius",
    Unit.CELSIUS,
    source=f"{_CLASS}/nvme*/hwmon*/temp*_input",
    help="Temperature at each sensor of the drive; Composite is the one that the drive acts on.",
    labels=("sensor",),
    bounds=PLAUSIBLE_CELSIUS,
)


def _limit(key: str, file: str, help_: str) -> Quantity:
    return Quantity(
        NVME,
        key,
        Unit.CELSIUS,
        source=f"{_CLASS}/nvme*/hwmon*/temp*_{file}",
        help=help_,
        labels=("sensor",),
        bounds=PLAUSIBLE_CELSIUS,
        inventory=True,
    )


TEMPERATURE_MIN: Final = _limit("temperature_min_celsius", "min", "Temperature below which the drive warns.")
TEMPERATURE_MAX: Final = _limit("temperature_max_celsius", "max", "Temperature above which the drive warns.")
TEMPERATURE_CRITICAL: Final = _limit(
    "temperature_critical_celsius", "crit", "Temperature at which the drive may stop working."
)


def _io(key: str, unit: Unit, help_: str, kind: Kind = Kind.COUNTER) -> Quantity:
    return Quantity(NVME, key, unit, source=f"{_CLASS}/nvme*/nvme*n*/stat", help=help_, kind=kind)


READS: Final = _io("reads", Unit.COUNT, "Read requests completed.")
READ_BYTES: Final = _io("read_bytes", Unit.BYTE, "Bytes read.")
READ_SECONDS: Final = _io("read_seconds", Unit.SECOND, "Time that read requests waited and ran, added up.")
WRITES: Final = _io("writes", Unit.COUNT, "Write requests completed.")
WRITTEN_BYTES: Final = _io("written_bytes", Unit.BYTE, "Bytes written.")
WRITE_SECONDS: Final = _io("write_seconds", Unit.SECOND, "Time that write requests waited and ran, added up.")
IN_FLIGHT: Final = _io("requests_in_flight", Unit.COUNT, "Requests that the drive works on now.", Kind.GAUGE)
IO_SECONDS: Final = _io("io_seconds", Unit.SECOND, "Time with at least one request in flight.")
QUEUE_SECONDS: Final = _io("queue_seconds", Unit.SECOND, "Time that all requests waited and ran, added up.")
DISCARDS: Final = _io("discards", Unit.COUNT, "Discard requests completed.")
DISCARDED_BYTES: Final = _io("discarded_bytes", Unit.BYTE, "Bytes discarded.")
DISCARD_SECONDS: Final = _io("discard_seconds", Unit.SECOND, "Time that discard requests waited and ran, added up.")
FLUSHES: Final = _io("flushes", Unit.COUNT, "Flush requests completed.")
FLUSH_SECONDS: Final = _io("flush_seconds", Unit.SECOND, "Time that flush requests waited and ran, added up.")

PCI_ADDRESS: Final = Property(NVME, "pci_address", source=_PCI, help="PCI address of the drive.")
PCI_ID: Final = Property(
    NVME, "pci_id", source=f"{_PCI}/{{vendor,device}}", help="PCI vendor and device of the drive: 144d:a810."
)
PCI_NAME: Final = Property(
    NVME,
    "pci_name",
    source="udev ID_VENDOR_FROM_DATABASE, ID_MODEL_FROM_DATABASE",
    help="What the PCI database calls the drive's controller.",
)
PCIE: Final = declare(NVME, _PCI)
PCIE_LINK, PCIE_LINK_MAX, PCIE_GENERATION, PCIE_GENERATION_MAX, PCIE_LANES, PCIE_LANES_MAX, PCIE_ERRORS = PCIE

_CONTROLLER: Final = re.compile(r"nvme[0-9]+")
_NAMESPACE: Final = re.compile(r"(nvme[0-9]+)(?:c[0-9]+)?(n[0-9]+)")
_CHIP: Final = re.compile(r"hwmon[0-9]+")

_TEXTS: Final = (
    (MODEL, "model"),
    (FIRMWARE, "firmware_rev"),
    (SERIAL, "serial"),
    (STATE, "state"),
    (TRANSPORT, "transport"),
)
_LIMITS: Final = ((TEMPERATURE_MIN, "min"), (TEMPERATURE_MAX, "max"), (TEMPERATURE_CRITICAL, "crit"))

# What the fields of a stat file are; merged requests are left out.
_STAT: Final = (
    *(READS, None, READ_BYTES, READ_SECONDS),
    *(WRITES, None, WRITTEN_BYTES, WRITE_SECONDS),
    *(IN_FLIGHT, IO_SECONDS, QUEUE_SECONDS),
    *(DISCARDS, None, DISCARDED_BYTES, DISCARD_SECONDS),  # since Linux 4.18
    *(FLUSHES, FLUSH_SECONDS),  # since Linux 5.5
)
_OLDEST_STAT: Final = 11


#: Each temperature is an admin command to the drive.
EVERY_SECONDS: Final = 10.0


def read(host: Host) -> Iterator[Item]:
    """Yield what each NVMe drive is and does."""
    drives = [name for name in host.list(_CLASS) if _CONTROLLER.fullmatch(name)]
    if not drives:
        raise NoData(Reason.NO_DEVICE, "no NVMe drive")
    for drive in drives:
        yield from _drive(host, drive)


def parse_stat(text: str) -> tuple[int, ...]:
    """Return the fields of one block device's stat file, in its own units."""
    fields = tuple(parse_integer(field) for field in text.split())
    if len(fields) < _OLDEST_STAT or min(fields) < 0:
        raise ValueError(f"no block device statistics: {text[:60]!r}")
    return fields


def _drive(host: Host, drive: str) -> Iterator[Item]:
    path = f"{_CLASS}/{drive}"
    entries = host.list(path)
    if not entries:
        yield Absence(STATE, Reason.DEVICE_LOST, "the drive went while it was looked at", drive)
        return
    for of, file in _TEXTS:
        yield state(of, partial(host.text, f"{path}/{file}"), drive)
    namespaces = _namespaces(host, drive, entries)
    yield Reading(NAMESPACES, len(namespaces), drive)
    yield measure(CAPACITY, lambda: _capacity(host, namespaces), drive)
    yield from _statistics(host, drive, namespaces)
    yield from _temperatures(host, drive, entries)
    yield from _pci_device(host, drive, f"{path}/device")


def _namespaces(host: Host, drive: str, entries: list[str]) -> list[str]:
    """Return the directory of each namespace, as this controller sees it."""
    # The controller's own first: before Linux 6.2 the disk that unites several paths counted nothing.
    own = [f"{_CLASS}/{drive}/{entry}" for entry in entries if _NAMESPACE.fullmatch(entry)]
    return own or [
        f"/sys/block/{disk}"
        for disk in host.list("/sys/block")
        if (found := _NAMESPACE.fullmatch(disk)) and found[1] == drive
    ]


def _capacity(host: Host, namespaces: list[str]) -> int:
    if not namespaces:
        raise Unavailable(Reason.NO_DATA, "no namespace")
    return sum(host.integer(f"{namespace}/size") for namespace in namespaces) * _SECTOR_BYTES


def _statistics(host: Host, drive: str, namespaces: list[str]) -> Iterator[Item]:
    try:
        if not namespaces:
            raise Unavailable(Reason.NO_DATA, "no namespace")
        stats = [parse_stat(host.text(f"{namespace}/stat")) for namespace in namespaces]
    except (OSError, ValueError, Unavailable) as error:
        yield from (absent(of, error, drive) for of in _STAT if of)
        return
    # Ends with the shortest: older kernels count less.
    for of, *counts in zip(_STAT, *stats, strict=False):
        if of:
            yield Reading(of, _base(sum(counts), of.unit), drive)


def _base(count: int, unit: Unit) -> float:
    """Turn a field of a stat file, sectors or milliseconds, into a base unit."""
    if unit is Unit.BYTE:
        return count * _SECTOR_BYTES
    return count / 1000 if unit is Unit.SECOND else count


def _temperatures(host: Host, drive: str, entries: list[str]) -> Iterator[Item]:
    chip = _chip(host, drive, entries)
    channels = chip.channels(host, "temp") if chip else {}
    if not channels:
        yield Absence(TEMPERATURE, Reason.NOT_FOUND, "no hwmon chip reports for this drive", drive)
    for sensor, path in channels.items():
        yield _degrees(host, TEMPERATURE, f"{path}_input", drive, sensor)
        for of, limit in _LIMITS:
            if host.exists(f"{path}_{limit}"):
                yield _degrees(host, of, f"{path}_{limit}", drive, sensor)


def _chip(host: Host, drive: str, entries: list[str]) -> Chip | None:
    path = f"{_CLASS}/{drive}"
    for entry in entries:
        if _CHIP.fullmatch(entry):
            return Chip(f"{path}/{entry}", "nvme")
    # Older kernels hang the chip on the PCI device.
    owners = {_real(host, path), _real(host, f"{path}/device")} - {""}
    return next((chip for chip in chips(host) if chip.device in owners), None)


def _real(host: Host, path: str) -> str:
    try:
        return host.real(path)
    except OSError:
        return ""


def _degrees(host: Host, of: Quantity, path: str, drive: str, sensor: str) -> Item:
    return measure(of, lambda: parse_millidegrees(host.text(path)), drive, (sensor,), source=path)


def _pci_device(host: Host, drive: str, device: str) -> Iterator[Item]:
    try:
        real = host.real(device)
        yield Fact(PCI_ADDRESS, pci_address(real), drive)
    except OSError as error:
        yield absent(PCI_ADDRESS, error, drive)
        return
    except ValueError as error:
        # A drive at the end of a network.
        yield Absence(PCI_ADDRESS, Reason.NOT_SUPPORTED, str(error), drive)
        return
    yield state(PCI_ID, lambda: parse_pci_id(host.text(f"{device}/vendor"), host.text(f"{device}/device")), drive)
    yield state(PCI_NAME, lambda: _pci_name(host, real), drive)
    yield from read_link(host, PCIE, device, drive)


def _pci_name(host: Host, real: str) -> str:
    known = host.udev.properties(real)
    name = f"{known.get('ID_VENDOR_FROM_DATABASE', '')} {known.get('ID_MODEL_FROM_DATABASE', '')}".strip()
    if not name:
        raise Unavailable(Reason.NOT_FOUND, f"udev has no name for {real}")
    return name
