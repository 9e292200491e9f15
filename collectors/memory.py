"""Memory, which CPU and GPU of a GB10 share.

* ``/proc/meminfo``: amounts in kB, which are KiB; huge pages as a number of pages.
  https://docs.kernel.org/filesystems/proc.html#meminfo
* ``/proc/pressure/memory``: shares of time in percent, totals in microseconds.
  https://docs.kernel.org/accounting/psi.html
* ``/proc/vmstat``: ``oom_kill``, processes killed since boot.
* ``/proc/sys/vm/swappiness``: 0 to 200. https://docs.kernel.org/admin-guide/sysctl/vm.html#swappiness

NVML has no memory numbers on a GB10 (``NOT_SUPPORTED``), and ``cudaMemGetInfo`` leaves out what the kernel would
reclaim; what CUDA can still have follows from these files. MemTotal differs by gigabytes between firmware and
kernel versions, so nothing here knows what it ought to be.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from spark_agent.collectors import (
    Host,
    Item,
    Kind,
    NoData,
    Property,
    Quality,
    Quantity,
    Reason,
    Section,
    Unavailable,
    Unit,
    absent,
    measure,
    state,
)
from spark_agent.collectors._gb10 import is_gb10

_MEMINFO = "/proc/meminfo"
_PRESSURE = "/proc/pressure/memory"
_VMSTAT = "/proc/vmstat"
_SWAPPINESS = "/proc/sys/vm/swappiness"

# 52 bits are all the physical addresses that arm64 and x86 have.
_AMOUNT: Final = (0, 2.0**52)
_RATIO: Final = (0, 1)

MEMORY = Section("memory", "System memory, which CPU and GPU of a GB10 share", metric="memory")

UNIFIED = Property(
    MEMORY,
    "unified",
    "/sys/class/dmi/id/product_family, /sys/bus/acpi/devices, /sys/bus/pci/devices",
    "Whether CPU and GPU share this memory: true on a GB10",
)
TOTAL = Quantity(
    MEMORY,
    "total_bytes",
    Unit.BYTE,
    f"{_MEMINFO} MemTotal",
    "Memory that the kernel manages; firmware and display keep the rest of the 128 GiB",
    bounds=(1, 2.0**52),
    inventory=True,
)
AVAILABLE = Quantity(
    MEMORY,
    "available_bytes",
    Unit.BYTE,
    f"{_MEMINFO} MemAvailable",
    "Memory that can be had without swapping; the GPU's allocations are already off it",
    bounds=_AMOUNT,
)
USED = Quantity(
    MEMORY,
    "used_bytes",
    Unit.BYTE,
    f"{_MEMINFO} MemTotal - MemAvailable",
    "Memory in use that the kernel cannot reclaim, by CPU and GPU together",
    bounds=_AMOUNT,
)
ALLOCATABLE = Quantity(
    MEMORY,
    "allocatable_bytes",
    Unit.BYTE,
    f"{_MEMINFO} MemAvailable + SwapFree, or HugePages_Free * Hugepagesize",
    "Memory that CUDA can still allocate, by NVIDIA's rule for unified memory",
    bounds=_AMOUNT,
)
FREE = Quantity(
    MEMORY,
    "free_bytes",
    Unit.BYTE,
    f"{_MEMINFO} MemFree",
    "Memory that holds nothing, not even a cache",
    bounds=_AMOUNT,
)
CACHED = Quantity(
    MEMORY, "cached_bytes", Unit.BYTE, f"{_MEMINFO} Cached", "Page cache, most of it reclaimable", bounds=_AMOUNT
)
BUFFERS = Quantity(
    MEMORY, "buffers_bytes", Unit.BYTE, f"{_MEMINFO} Buffers", "Cache of raw block devices", bounds=_AMOUNT
)
DIRTY = Quantity(
    MEMORY, "dirty_bytes", Unit.BYTE, f"{_MEMINFO} Dirty", "Page cache that waits to be written", bounds=_AMOUNT
)
ANON_HUGEPAGES = Quantity(
    MEMORY,
    "anon_hugepages_bytes",
    Unit.BYTE,
    f"{_MEMINFO} AnonHugePages",
    "Memory of processes in transparent huge pages",
    bounds=_AMOUNT,
)
SWAP_TOTAL = Quantity(
    MEMORY, "swap_total_bytes", Unit.BYTE, f"{_MEMINFO} SwapTotal", "Swap space", bounds=_AMOUNT, inventory=True
)
SWAP_FREE = Quantity(
    MEMORY, "swap_free_bytes", Unit.BYTE, f"{_MEMINFO} SwapFree", "Swap space that is free", bounds=_AMOUNT
)
SWAPPINESS = Quantity(
    MEMORY,
    "swappiness",
    Unit.COUNT,
    _SWAPPINESS,
    "How readily the kernel swaps rather than drops cache, 0 to 200",
    bounds=(0, 200),
    inventory=True,
)
HUGEPAGES_TOTAL = Quantity(
    MEMORY,
    "hugepages_total",
    Unit.COUNT,
    f"{_MEMINFO} HugePages_Total",
    "Huge pages set aside; where there are any, NVIDIA's rule of what is allocatable counts them only",
    bounds=_AMOUNT,
    inventory=True,
    # _total is a counter's suffix, which this is not.
    metric="memory_hugepages",
)
HUGEPAGES_FREE = Quantity(
    MEMORY,
    "hugepages_free",
    Unit.COUNT,
    f"{_MEMINFO} HugePages_Free",
    "Huge pages set aside and not in use",
    bounds=_AMOUNT,
)
HUGEPAGE = Quantity(
    MEMORY,
    "hugepage_bytes",
    Unit.BYTE,
    f"{_MEMINFO} Hugepagesize",
    "Size of one huge page",
    bounds=_AMOUNT,
    inventory=True,
)
CMA_TOTAL = Quantity(
    MEMORY,
    "cma_total_bytes",
    Unit.BYTE,
    f"{_MEMINFO} CmaTotal",
    "Memory reserved for the contiguous memory allocator",
    bounds=_AMOUNT,
    inventory=True,
)
CMA_FREE = Quantity(
    MEMORY,
    "cma_free_bytes",
    Unit.BYTE,
    f"{_MEMINFO} CmaFree",
    "Free memory in page blocks of the contiguous memory allocator",
    bounds=_AMOUNT,
)
CMA_LOST = Property(
    MEMORY,
    "cma_lost",
    f"{_MEMINFO} CmaFree, CmaTotal",
    "Whether more memory is free for the contiguous allocator than was ever reserved for it: kernel 7.0.0-1018 and "
    "-1019 lose 9 GiB to Kexec Handover this way, kho=off on the kernel command line brings it back",
)
CMA_LOST_BYTES = Quantity(
    MEMORY,
    "cma_lost_bytes",
    Unit.BYTE,
    f"{_MEMINFO} CmaFree - CmaTotal",
    "Memory free for the contiguous allocator beyond what was reserved for it; absent on a sound kernel",
    bounds=_AMOUNT,
)
PRESSURE_SOME = Quantity(
    MEMORY,
    "pressure_some_ratio",
    Unit.RATIO,
    f"{_PRESSURE} some",
    "Share of time in which some task waited for memory",
    labels=("window",),
    bounds=_RATIO,
)
PRESSURE_FULL = Quantity(
    MEMORY,
    "pressure_full_ratio",
    Unit.RATIO,
    f"{_PRESSURE} full",
    "Share of time in which all tasks waited for memory at once",
    labels=("window",),
    bounds=_RATIO,
)
PRESSURE_SOME_SECONDS = Quantity(
    MEMORY,
    "pressure_some_seconds",
    Unit.SECOND,
    f"{_PRESSURE} some total",
    "Time in which some task waited for memory",
    Kind.COUNTER,
)
PRESSURE_FULL_SECONDS = Quantity(
    MEMORY,
    "pressure_full_seconds",
    Unit.SECOND,
    f"{_PRESSURE} full total",
    "Time in which all tasks waited for memory at once",
    Kind.COUNTER,
)
# A GB10 that runs out often hangs before anything is killed, so 0 is no proof of enough memory.
OOM_KILLS = Quantity(
    MEMORY,
    "oom_kills",
    Unit.COUNT,
    f"{_VMSTAT} oom_kill",
    "Processes that the kernel killed for want of memory",
    Kind.COUNTER,
)

_FIELDS: Final[Mapping[Quantity, str]] = {
    TOTAL: "MemTotal",
    AVAILABLE: "MemAvailable",
    FREE: "MemFree",
    CACHED: "Cached",
    BUFFERS: "Buffers",
    DIRTY: "Dirty",
    ANON_HUGEPAGES: "AnonHugePages",
    SWAP_TOTAL: "SwapTotal",
    SWAP_FREE: "SwapFree",
    HUGEPAGES_TOTAL: "HugePages_Total",
    HUGEPAGES_FREE: "HugePages_Free",
    HUGEPAGE: "Hugepagesize",
    CMA_TOTAL: "CmaTotal",
    CMA_FREE: "CmaFree",
}
_PRESSURES: Final = (
    ("some", PRESSURE_SOME, PRESSURE_SOME_SECONDS),
    ("full", PRESSURE_FULL, PRESSURE_FULL_SECONDS),
)
_WINDOWS: Final = ("avg10", "avg60", "avg300")

# CmaFree is summed from counters that each core keeps, which may be behind by 125 pages a core (mm/vmstat.c
# calculate_normal_threshold): 156 MiB on 20 cores with pages of 64 KiB. What is lost is some 9 GiB.
_CMA_DRIFT: Final = 256 * 1024**2

_AMOUNT_TEXT = re.compile(r"([0-9]{1,18})( kB)?")
_PRESSURE_LINE = re.compile(
    r"(some|full) avg10=([0-9]{1,9}\.[0-9]{1,9}) avg60=([0-9]{1,9}\.[0-9]{1,9}) avg300=([0-9]{1,9}\.[0-9]{1,9})"
    r" total=([0-9]{1,20})"
)
_OOM_KILL = re.compile(r"^oom_kill ([0-9]{1,20})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pressure:
    """The shares of time in which tasks waited, by window, and how long they did since boot."""

    ratios: Mapping[str, float]
    seconds: float


def read(host: Host) -> Iterator[Item]:
    """Yield the amounts of memory, what CUDA can still have of it, and how short it is."""
    yield from _amounts(host)
    yield state(UNIFIED, partial(is_gb10, host))
    yield measure(SWAPPINESS, partial(host.integer, _SWAPPINESS))
    yield from _pressure(host)
    yield measure(OOM_KILLS, lambda: parse_oom_kills(host.content(_VMSTAT)))


def _amounts(host: Host) -> Iterator[Item]:
    try:
        fields = parse_meminfo(host.content(_MEMINFO))
    except FileNotFoundError:
        raise NoData(Reason.NOT_FOUND, f"no {_MEMINFO}") from None
    except (Unavailable, OSError, ValueError) as error:
        for of in _FIELDS:
            yield absent(of, error)
        yield absent(USED, error)
        yield absent(ALLOCATABLE, error)
        yield absent(CMA_LOST, error)
        yield absent(CMA_LOST_BYTES, error)
        return
    amount = partial(_amount, fields)
    for of, name in _FIELDS.items():
        yield measure(of, partial(amount, name))
    yield measure(USED, lambda: amount("MemTotal") - amount("MemAvailable"), quality=Quality.DERIVED)
    yield measure(ALLOCATABLE, lambda: _allocatable(fields), quality=Quality.DERIVED)
    yield state(CMA_LOST, lambda: _cma_lost(fields) > 0)
    yield measure(CMA_LOST_BYTES, partial(_cma_lost, fields), quality=Quality.DERIVED)


def _cma_lost(fields: Mapping[str, str]) -> int:
    """Return the bytes of CMA that are free beyond all there is of it, which the kernel lost count of."""
    lost = _amount(fields, "CmaFree") - _amount(fields, "CmaTotal")
    return lost if lost > _CMA_DRIFT else 0


def _amount(fields: Mapping[str, str], name: str) -> int:
    if name not in fields:
        raise Unavailable(Reason.NOT_FOUND, f"no {name} in {_MEMINFO}")
    return parse_amount(fields[name])


def _allocatable(fields: Mapping[str, str]) -> int:
    """Return the bytes that CUDA can still allocate, as NVIDIA's known issues of the DGX Spark have it.

    With huge pages set aside, they are all there is, and swap does not count. A kernel without huge pages has no
    such line.
    """
    if "HugePages_Total" in fields and _amount(fields, "HugePages_Total"):
        return _amount(fields, "HugePages_Free") * _amount(fields, "Hugepagesize")
    return _amount(fields, "MemAvailable") + _amount(fields, "SwapFree")


def _pressure(host: Host) -> Iterator[Item]:
    try:
        pressures = parse_pressure(host.content(_PRESSURE))
    except (Unavailable, OSError, ValueError) as error:
        for _, ratio, seconds in _PRESSURES:
            yield from (absent(ratio, error, labels=(window,)) for window in _WINDOWS)
            yield absent(seconds, error)
        return
    for line, ratio, seconds in _PRESSURES:
        yield from _waits(pressures[line], ratio, seconds)


def _waits(pressure: Pressure, ratio: Quantity, seconds: Quantity) -> Iterator[Item]:
    for window in _WINDOWS:
        yield measure(ratio, partial(pressure.ratios.__getitem__, window), labels=(window,))
    yield measure(seconds, lambda: pressure.seconds)


def parse_meminfo(text: str) -> Mapping[str, str]:
    """Split ``/proc/meminfo`` into names and amounts, which are still text: one bad line spoils no other."""
    fields = {}
    for line in text.splitlines():
        name, colon, amount = line.partition(":")
        if colon:
            fields[name] = amount.strip()
    if not fields:
        raise ValueError(f"no amounts: {text[:60]!r}")
    return fields


def parse_amount(text: str) -> int:
    """Turn an amount of ``/proc/meminfo`` into bytes, or into a plain number where it has no unit."""
    match = _AMOUNT_TEXT.fullmatch(text)
    if not match:
        raise ValueError(f"not an amount: {text[:60]!r}")
    return int(match[1]) * (1024 if match[2] else 1)


def parse_pressure(text: str) -> Mapping[str, Pressure]:
    """Turn a file of ``/proc/pressure`` into its lines ``some`` and ``full``."""
    pressures = {}
    for line in text.splitlines():
        match = _PRESSURE_LINE.fullmatch(line)
        if not match:
            raise ValueError(f"not a pressure: {line[:60]!r}")
        name, *percents, total = match.groups()
        ratios = {window: float(percent) / 100 for window, percent in zip(_WINDOWS, percents, strict=True)}
        pressures[name] = Pressure(ratios, int(total) / 1_000_000)
    if len(pressures) != len(_PRESSURES):
        raise ValueError(f"not both of some and full: {text[:60]!r}")
    return pressures


def parse_oom_kills(text: str) -> int:
    """Return from the text of ``/proc/vmstat`` how many processes were killed."""
    match = _OOM_KILL.search(text)
    if not match:
        raise ValueError(f"no oom_kill: {text[:60]!r}")
    return int(match[1])
