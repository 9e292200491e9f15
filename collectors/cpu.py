"""Processor cores, the clusters that share an L3 cache, and the load on them.

* ``/proc/cpuinfo``: which core each online number is. On Arm ``CPU implementer`` and ``CPU part`` name the design
  and variant and revision its ``r0p1``; there is no ``model name``, which is x86's.
* ``/proc/stat``: time since boot in ticks of 10 ms. https://man7.org/linux/man-pages/man5/proc_stat.5.html
* ``/proc/loadavg``: tasks that run, or wait for a core or a disk.
  https://man7.org/linux/man-pages/man5/proc_loadavg.5.html
* ``/sys/devices/system/cpu/cpuN/cpufreq``: frequencies in kHz. https://docs.kernel.org/admin-guide/pm/cpufreq.html
* ``/sys/devices/system/cpu/cpuN/cache/indexM``: sizes in KiB, written ``512K``.
  https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-devices-system-cpu

On a GB10 each of the two clusters holds both kinds of core: 0-4 and 10-14 are Cortex-A725, 5-9 and 15-19
Cortex-X925. Neither a core's number nor its cluster tells its kind, so this asks each core.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Final, TypeVar

from spark_agent.collectors import (
    Absence,
    Host,
    Item,
    Kind,
    NoData,
    Property,
    Quality,
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
from spark_agent.collectors._gb10 import is_gb10

_CPUINFO = "/proc/cpuinfo"
_STAT = "/proc/stat"
_LOADAVG = "/proc/loadavg"
_CPUS = "/sys/devices/system/cpu"
_NODES = "/sys/devices/system/node/online"
_ARCHITECTURE = "/proc/sys/kernel/arch"
_SOC_ID = "/sys/devices/soc0/soc_id"

# No core runs below a megahertz or above ten gigahertz; 7.2 GHz is a lie that a GB10 does tell, and is shown as one.
_CLOCK: Final = (1e6, 1e10)
_CACHE: Final = (1, 2.0**40)

CPU = Section("cpu", "All cores together", metric="cpu")
CORES = Section("cpu.cores", "Each core", entity="cpu", id_key="cpu", metric="cpu", numbered=True)
CLUSTERS = Section(
    "cpu.clusters",
    "Each group of cores that shares an L3 cache",
    entity="cpu_cluster",
    id_key="cluster",
    metric="cpu_cluster",
    numbered=True,
)

ARCHITECTURE = Property(CPU, "architecture", _ARCHITECTURE, "Instruction set, as uname -m has it")
SOC_ID = Property(CPU, "soc_id", _SOC_ID, "JEP106 code of the SoC's maker, then the chip; jep106:0426:8901 on a GB10")
CORES_PRESENT = Quantity(
    CPU,
    "cores_present",
    Unit.COUNT,
    f"{_CPUS}/present",
    "Cores in this machine, threads where a core has several",
    inventory=True,
)
CORES_ONLINE = Quantity(CPU, "cores_online", Unit.COUNT, _CPUINFO, "Cores that the kernel uses", inventory=True)
PERFORMANCE_CORES = Quantity(
    CPU,
    "performance_cores",
    Unit.COUNT,
    f"{_CPUINFO} CPU part",
    "Online cores of the performance kind",
    inventory=True,
)
EFFICIENCY_CORES = Quantity(
    CPU,
    "efficiency_cores",
    Unit.COUNT,
    f"{_CPUINFO} CPU part",
    "Online cores of the efficiency kind",
    inventory=True,
)
NUMA_NODES = Quantity(
    CPU, "numa_nodes", Unit.COUNT, _NODES, "Memory nodes that are online", bounds=(1, 8192), inventory=True
)
CACHE = Quantity(
    CPU,
    "cache_bytes",
    Unit.BYTE,
    f"{_CPUS}/cpu*/cache/index*/size",
    "All caches of one level together, each counted once however many cores share it",
    labels=("cache",),
    bounds=_CACHE,
    inventory=True,
)
LOAD1 = Quantity(CPU, "load1", Unit.COUNT, _LOADAVG, "Tasks that ran or waited, averaged over 1 minute")
LOAD5 = Quantity(CPU, "load5", Unit.COUNT, _LOADAVG, "Tasks that ran or waited, averaged over 5 minutes")
LOAD15 = Quantity(CPU, "load15", Unit.COUNT, _LOADAVG, "Tasks that ran or waited, averaged over 15 minutes")

CORE_TYPE = Property(
    CORES,
    "core_type",
    f"{_CPUINFO} CPU part",
    "performance (Cortex-X925), efficiency (Cortex-A725) or unknown",
)
MODEL = Property(CORES, "model", f"{_CPUINFO} CPU implementer, CPU part or model name", "Design of the core")
REVISION = Property(CORES, "revision", f"{_CPUINFO} CPU variant, CPU revision", "Revision of an Arm core, as r0p1")
ONLINE = Property(CORES, "online", _CPUINFO, "Whether the kernel uses this core")
CLUSTER = Property(
    CORES, "cluster", f"{_CPUS}/cpu*/cache/index*/shared_cpu_list", "Cluster of the core, by the L3 cache it shares"
)
MAX_FREQUENCY = Quantity(
    CORES,
    "max_hertz",
    Unit.HERTZ,
    f"{_CPUS}/cpu*/cpufreq/cpuinfo_max_freq",
    "Highest frequency of the core; those of one design differ",
    bounds=_CLOCK,
    inventory=True,
)
MIN_FREQUENCY = Quantity(
    CORES,
    "min_hertz",
    Unit.HERTZ,
    f"{_CPUS}/cpu*/cpufreq/cpuinfo_min_freq",
    "Lowest frequency of the core",
    bounds=_CLOCK,
    inventory=True,
)
FREQUENCY = Quantity(
    CORES,
    "frequency_hertz",
    Unit.HERTZ,
    f"{_CPUS}/cpu*/cpufreq/scaling_cur_freq",
    "Frequency that the cpufreq driver reports, which is not counted: no sign of throttling, nor of its absence",
    bounds=_CLOCK,
)
GOVERNOR = Property(CORES, "governor", f"{_CPUS}/cpu*/cpufreq/scaling_governor", "cpufreq governor")
DRIVER = Property(CORES, "driver", f"{_CPUS}/cpu*/cpufreq/scaling_driver", "cpufreq driver")
L1D = Quantity(
    CORES,
    "l1d_bytes",
    Unit.BYTE,
    f"{_CPUS}/cpu*/cache/index*/size",
    "L1 data cache of the core",
    bounds=_CACHE,
    inventory=True,
)
L1I = Quantity(
    CORES,
    "l1i_bytes",
    Unit.BYTE,
    f"{_CPUS}/cpu*/cache/index*/size",
    "L1 instruction cache of the core",
    bounds=_CACHE,
    inventory=True,
)
L2 = Quantity(
    CORES,
    "l2_bytes",
    Unit.BYTE,
    f"{_CPUS}/cpu*/cache/index*/size",
    "L2 cache of the core",
    bounds=_CACHE,
    inventory=True,
)
BUSY = Quantity(
    CORES,
    "busy_seconds",
    Unit.SECOND,
    f"{_STAT} user + nice + system + irq + softirq + steal",
    "Time in which the core ran something",
    Kind.COUNTER,
)
IDLE = Quantity(
    CORES,
    "idle_seconds",
    Unit.SECOND,
    f"{_STAT} idle + iowait",
    "Time in which the core had nothing to run, waiting for a disk or not",
    Kind.COUNTER,
)

CLUSTER_CPUS = Property(
    CLUSTERS, "cpus", f"{_CPUS}/cpu*/cache/index*/shared_cpu_list", "Online cores of the cluster, as 0-9"
)
CLUSTER_CORES = Quantity(
    CLUSTERS,
    "cores",
    Unit.COUNT,
    f"{_CPUS}/cpu*/cache/index*/shared_cpu_list",
    "Online cores of the cluster",
    inventory=True,
)
CLUSTER_PERFORMANCE_CORES = Quantity(
    CLUSTERS,
    "performance_cores",
    Unit.COUNT,
    f"{_CPUINFO} CPU part",
    "Online cores of the performance kind in the cluster",
    inventory=True,
)
CLUSTER_EFFICIENCY_CORES = Quantity(
    CLUSTERS,
    "efficiency_cores",
    Unit.COUNT,
    f"{_CPUINFO} CPU part",
    "Online cores of the efficiency kind in the cluster",
    inventory=True,
)
CLUSTER_L3 = Quantity(
    CLUSTERS,
    "l3_bytes",
    Unit.BYTE,
    f"{_CPUS}/cpu*/cache/index*/size",
    "L3 cache of the cluster",
    bounds=_CACHE,
    inventory=True,
)

_CPUFREQ: Final = (MAX_FREQUENCY, MIN_FREQUENCY, FREQUENCY, GOVERNOR, DRIVER)
_OF_ONLINE_CORES: Final = (MODEL, REVISION, CLUSTER, *_CPUFREQ, L1D, L1I, L2, BUSY, IDLE)

# Arm's part numbers, as arch/arm64/include/asm/cputype.h has them.
_ARM: Final = 0x41
_ARM_PARTS: Final[Mapping[int, str]] = {
    0xD03: "Cortex-A53",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD49: "Neoverse-N2",
    0xD4F: "Neoverse-V2",
    0xD84: "Neoverse-V3",
    0xD85: "Cortex-X925",
    0xD87: "Cortex-A725",
}

# Of a GB10's cores the slowest Cortex-X925 goes up to 3.9 GHz, the fastest Cortex-A725 up to 2.86.
_PERFORMANCE_HERTZ: Final = 3.5e9

# USER_HZ, the tick of /proc/stat, is 100 on arm64 and x86 whatever CONFIG_HZ is.
_TICKS_PER_SECOND: Final = 100

# For each who reads its times, the kernel sums up all interrupts of all cores; it renews its averages as seldom
# (include/linux/sched/loadavg.h LOAD_FREQ).
_USAGE_SECONDS: Final = 5.0
_MAX_CPUS: Final = 8192  # CONFIG_NR_CPUS goes no further on arm64 and x86

_HEXADECIMAL = re.compile(r"0x[0-9a-f]{1,8}")
_CACHE_SIZE = re.compile(r"([1-9][0-9]{0,11})K")
_LOADS = re.compile(r"([0-9]{1,9}\.[0-9]{2}) ([0-9]{1,9}\.[0-9]{2}) ([0-9]{1,9}\.[0-9]{2}) [0-9]+/[0-9]+ [0-9]+")
_TICKS = re.compile(r"cpu([0-9]{1,4})" + r" ([0-9]{1,20})" * 8 + r"(?: [0-9]+)*")
_CACHE_TYPES: Final = {"Data": "d", "Instruction": "i", "Unified": ""}

Answer = TypeVar("Answer")


class CoreType(StrEnum):
    """The kind of a core, where cores differ."""

    PERFORMANCE = "performance"
    EFFICIENCY = "efficiency"
    UNKNOWN = "unknown"


_TYPES: Final = {0xD85: CoreType.PERFORMANCE, 0xD87: CoreType.EFFICIENCY}


@dataclass(frozen=True, slots=True)
class Processor:
    """What ``/proc/cpuinfo`` says of one core; empty or None is what it does not say."""

    implementer: int | None = None
    part: int | None = None
    revision: str = ""
    name: str = ""

    @property
    def model(self) -> str:
        """The design by its name, or by its numbers where the name is not known here."""
        if self.implementer is None or self.part is None:
            return self.name
        return self._arm_name or f"0x{self.implementer:02x}/0x{self.part:03x}"

    @property
    def core_type(self) -> CoreType:
        """The kind, which only the part tells."""
        return _TYPES.get(self.part or 0, CoreType.UNKNOWN) if self.implementer == _ARM else CoreType.UNKNOWN

    @property
    def is_named(self) -> bool:
        """Whether the design is known by name."""
        return bool(self._arm_name or self.name)

    @property
    def _arm_name(self) -> str:
        return _ARM_PARTS.get(self.part or 0, "") if self.implementer == _ARM else ""


@dataclass(frozen=True, slots=True)
class Times:
    """How long one core worked and did not, in seconds since boot."""

    busy: float
    idle: float


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache: its name as ``l1d``, the online cores that share it, its bytes or why they are not known."""

    name: str
    cpus: tuple[int, ...]
    cpu_list: str
    size: int | Exception


@dataclass(frozen=True, slots=True)
class Caches:
    """The caches of each core by name, and what went wrong while looking for a core's."""

    by_core: dict[tuple[int, str], Cache] = field(default_factory=dict)
    faults: dict[int, Exception] = field(default_factory=dict)

    def named(self, name: str) -> list[Cache]:
        """Return each cache of a name once, by the lowest core that shares it."""
        caches = {cache.cpus: cache for cache in self.by_core.values() if cache.name == name}
        return [caches[cpus] for cpus in sorted(caches)]

    def of(self, cpu: int, name: str) -> Cache:
        """Return one cache of a core, or raise why there is none."""
        if cache := self.by_core.get((cpu, name)):
            return cache
        if fault := self.faults.get(cpu):
            raise fault
        raise Unavailable(Reason.NOT_FOUND, f"cpu{cpu} shows no {name} cache")

    def size(self, cpu: int, name: str) -> int:
        """Return the bytes of one cache of a core, or raise why they are not known."""
        return _given(self.of(cpu, name).size)

    def total(self, name: str) -> int:
        """Return the bytes of all caches of a name; one that is not known leaves no total."""
        if self.faults:
            raise next(iter(self.faults.values()))
        caches = self.named(name)
        if not caches:
            raise Unavailable(Reason.NOT_FOUND, f"no core shows an {name} cache")
        return sum(_given(cache.size) for cache in caches)


@dataclass(frozen=True, slots=True)
class Layout:
    """What changes with hot-plug only: all that is said of cores at rest, and which of them to ask further.

    ``clocked`` are the cores whose clock a driver reports, with the highest it can have, in hertz, if that is known.
    """

    items: tuple[Item, ...]
    online: tuple[int, ...]
    clocked: Mapping[int, float | None]

    @property
    def fault(self) -> Absence | None:
        """What went wrong, if anything did, so that it is tried again soon."""
        return next((item for item in self.items if isinstance(item, Absence) and item.reason.is_fault), None)


def read(host: Host) -> Iterator[Item]:
    """Yield what there is to say of each core, of each cluster, and of all cores together."""
    layout = host.keep(_layout)
    yield from layout.items
    for cpu, highest in layout.clocked.items():
        yield _clock(host, cpu, highest)
    yield from host.every(_USAGE_SECONDS, _usage, layout.online)


def _usage(host: Host, online: Iterable[int]) -> Iterator[Item]:
    times = _attempt(lambda: parse_stat(host.content(_STAT)))
    for cpu in online:
        yield from _times(cpu, times)
    loads = _attempt(lambda: parse_loadavg(host.text(_LOADAVG)))
    yield measure(LOAD1, lambda: _given(loads)[0])
    yield measure(LOAD5, lambda: _given(loads)[1])
    yield measure(LOAD15, lambda: _given(loads)[2])


def _layout(host: Host) -> Layout:
    items: list[Item] = []
    processors = _attempt(lambda: parse_cpuinfo(host.content(_CPUINFO)))
    present = _attempt(lambda: parse_cpulist(host.text(f"{_CPUS}/present")))
    if isinstance(processors, Exception) and isinstance(present, Exception):
        why = absent(CORES_PRESENT, processors)
        raise NoData(why.reason, why.detail)
    known = {} if isinstance(processors, Exception) else processors
    cpus = sorted({*known, *(() if isinstance(present, Exception) else present)})
    # An offline core is present and not in /proc/cpuinfo. Without that file nobody says which, so each is asked.
    online: Collection[int] = known.keys() or set(cpus)

    caches = _caches(host, online)
    clusters = {cache.cpus: number for number, cache in enumerate(caches.named("l3"))}
    has_cpufreq = any(host.exists(f"{_CPUS}/cpu{cpu}/cpufreq") for cpu in online)
    hybrid = _hybrid(host) if any(processor.implementer is None for processor in known.values()) else {}
    # A clock tells the kind of a GB10's core and of no other, so it is asked only where no core has a name.
    by_clock = bool(known) and not any(processor.is_named for processor in known.values()) and is_gb10(host)

    types: dict[int, CoreType] = {}
    clocked: dict[int, float | None] = {}
    for cpu in cpus:
        entity = str(cpu)
        if cpu not in online:
            items += _offline(entity)
            continue
        maximum, *cpufreq = _cpufreq(host, cpu) if has_cpufreq else _no_cpufreq(entity)
        highest = maximum.value if isinstance(maximum, Reading) else None
        if has_cpufreq:
            clocked[cpu] = highest
        if isinstance(processors, Exception):
            items += (absent(of, processors, entity) for of in (ONLINE, CORE_TYPE, MODEL, REVISION))
        else:
            processor = processors[cpu]
            types[cpu] = hybrid.get(cpu, processor.core_type)
            if by_clock and highest is not None:
                types[cpu] = _type_by_clock(highest)
            items += _identity(entity, processor, types[cpu])
        items += (maximum, *cpufreq, *_place(cpu, caches, clusters))

    for number, cache in enumerate(caches.named("l3")):
        items += _cluster(str(number), cache, types)

    items.append(measure(CORES_PRESENT, lambda: len(_given(present))))
    items.append(measure(CORES_ONLINE, lambda: len(_given(processors))))
    for of, core_type in ((PERFORMANCE_CORES, CoreType.PERFORMANCE), (EFFICIENCY_CORES, CoreType.EFFICIENCY)):
        if isinstance(processors, Exception):
            items.append(absent(of, processors))
        else:
            items.append(measure(of, partial(_count, types, online, core_type)))
    for name in ("l1d", "l1i", "l2", "l3"):
        items.append(measure(CACHE, partial(caches.total, name), labels=(name,), quality=Quality.DERIVED))
    items += _system(host)
    return Layout(tuple(items), tuple(cpu for cpu in cpus if cpu in online), clocked)


def _offline(entity: str) -> Iterator[Item]:
    why = Unavailable(Reason.NO_DATA, "the core is offline")
    yield state(ONLINE, lambda: False, entity)
    yield state(CORE_TYPE, lambda: CoreType.UNKNOWN, entity)
    yield from (absent(of, why, entity) for of in _OF_ONLINE_CORES)


def _system(host: Host) -> Iterator[Item]:
    yield measure(NUMA_NODES, lambda: len(parse_cpulist(host.text(_NODES))))
    yield state(ARCHITECTURE, partial(host.text, _ARCHITECTURE))
    yield state(SOC_ID, partial(host.text, _SOC_ID))


def _attempt(ask: Callable[[], Answer]) -> Answer | Exception:
    """Return an answer that many items need, or what went wrong, so that each of them can say so."""
    try:
        return ask()
    except (Unavailable, OSError, ValueError) as error:
        return error


def _given(answer: Answer | Exception) -> Answer:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _identity(entity: str, processor: Processor, core_type: CoreType) -> Iterator[Item]:
    yield state(ONLINE, lambda: True, entity)
    yield state(CORE_TYPE, lambda: core_type, entity)
    yield state(MODEL, lambda: processor.model, entity)
    yield state(REVISION, lambda: processor.revision, entity)


def _hybrid(host: Host) -> dict[int, CoreType]:
    """Return the kinds of the cores that perf tells apart on an x86 of two kinds; none on any other machine."""
    types = {}
    for unit, core_type in (("cpu_core", CoreType.PERFORMANCE), ("cpu_atom", CoreType.EFFICIENCY)):
        cpus = _attempt(partial(_cpu_list, host, f"/sys/devices/{unit}/cpus"))
        if not isinstance(cpus, Exception):
            types.update(dict.fromkeys(cpus, core_type))
    return types


def _type_by_clock(max_hertz: float) -> CoreType:
    return CoreType.PERFORMANCE if max_hertz >= _PERFORMANCE_HERTZ else CoreType.EFFICIENCY


def _cpu_list(host: Host, path: str) -> tuple[int, ...]:
    return parse_cpulist(host.text(path))


def _count(types: Mapping[int, CoreType], cpus: Collection[int], core_type: CoreType) -> int:
    unknown = sum(types.get(cpu, CoreType.UNKNOWN) is CoreType.UNKNOWN for cpu in cpus)
    if unknown:
        raise Unavailable(Reason.NO_DATA, f"of {len(cpus)} cores, {unknown} are of no known type")
    return sum(types[cpu] is core_type for cpu in cpus)


def _cpufreq(host: Host, cpu: int) -> Iterator[Item]:
    entity = str(cpu)
    above = f"{_CPUS}/cpu{cpu}/cpufreq"
    yield _frequency(host, MAX_FREQUENCY, f"{above}/cpuinfo_max_freq", entity)
    yield _frequency(host, MIN_FREQUENCY, f"{above}/cpuinfo_min_freq", entity)
    yield state(GOVERNOR, lambda: host.text(f"{above}/scaling_governor"), entity)
    yield state(DRIVER, lambda: host.text(f"{above}/scaling_driver"), entity)


def _clock(host: Host, cpu: int, highest: float | None) -> Item:
    path = f"{_CPUS}/cpu{cpu}/cpufreq/scaling_cur_freq"
    reported = _frequency(host, FREQUENCY, path, str(cpu), "reported by the driver, not counted")
    if highest is not None and isinstance(reported, Reading) and reported.value > highest:
        note = f"above cpuinfo_max_freq, {highest / 1e9:.3f} GHz: no core can run at this"
        return replace(reported, quality=Quality.UNTRUSTED, note=note)
    return reported


def _frequency(host: Host, of: Quantity, path: str, entity: str, note: str = "") -> Reading | Absence:
    return measure(of, lambda: host.integer(path) * 1000, entity, source=path, note=note)


def _no_cpufreq(entity: str) -> Iterator[Item]:
    for of in _CPUFREQ:
        yield Absence(of, Reason.NO_DRIVER, "no core has a cpufreq driver", entity)


def _caches(host: Host, cpus: Collection[int]) -> Caches:
    caches = Caches()
    seen: set[tuple[int, str]] = set()
    for cpu in cpus:
        above = f"{_CPUS}/cpu{cpu}/cache"
        names = _attempt(partial(host.list, above))
        if isinstance(names, Exception):
            caches.faults[cpu] = names
            continue
        for index in names:
            # Cores that share a cache have it under one index, so the first of them speaks for all.
            if not index.startswith("index") or (cpu, index) in seen:
                continue
            cache = _attempt(partial(_cache, host, f"{above}/{index}"))
            if isinstance(cache, Exception):
                caches.faults[cpu] = cache
                continue
            for sharer in cache.cpus:
                caches.by_core[sharer, cache.name] = cache
                seen.add((sharer, index))
    return caches


def _cache(host: Host, path: str) -> Cache:
    name = parse_cache_name(host.text(f"{path}/level"), host.text(f"{path}/type"))
    cpu_list = host.text(f"{path}/shared_cpu_list")
    size = _attempt(lambda: parse_cache_size(host.text(f"{path}/size")))
    return Cache(name, parse_cpulist(cpu_list), cpu_list, size)


def _place(cpu: int, caches: Caches, clusters: Mapping[tuple[int, ...], int]) -> Iterator[Item]:
    entity = str(cpu)
    yield state(CLUSTER, lambda: clusters[caches.of(cpu, "l3").cpus], entity)
    yield measure(L1D, partial(caches.size, cpu, "l1d"), entity)
    yield measure(L1I, partial(caches.size, cpu, "l1i"), entity)
    yield measure(L2, partial(caches.size, cpu, "l2"), entity)


def _cluster(entity: str, cache: Cache, types: Mapping[int, CoreType]) -> Iterator[Item]:
    yield state(CLUSTER_CPUS, lambda: cache.cpu_list, entity)
    yield measure(CLUSTER_CORES, lambda: len(cache.cpus), entity)
    yield measure(CLUSTER_PERFORMANCE_CORES, lambda: _count(types, cache.cpus, CoreType.PERFORMANCE), entity)
    yield measure(CLUSTER_EFFICIENCY_CORES, lambda: _count(types, cache.cpus, CoreType.EFFICIENCY), entity)
    yield measure(CLUSTER_L3, lambda: _given(cache.size), entity)


def _times(cpu: int, times: Mapping[int, Times] | Exception) -> Iterator[Item]:
    def of_core() -> Times:
        found = _given(times).get(cpu)
        if found is None:
            raise Unavailable(Reason.NOT_FOUND, f"no cpu{cpu} in {_STAT}")
        return found

    yield measure(BUSY, lambda: of_core().busy, str(cpu))
    yield measure(IDLE, lambda: of_core().idle, str(cpu))


def parse_cpuinfo(text: str) -> Mapping[int, Processor]:
    """Turn ``/proc/cpuinfo`` into what it says of each online core."""
    blocks: dict[int, dict[str, str]] = {}
    block: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        key = key.rstrip()
        if key == "processor":
            cpu = parse_integer(value.strip())
            if cpu in blocks or not 0 <= cpu < _MAX_CPUS:
                raise ValueError(f"not a core, or a second time: {line[:60]!r}")
            block = blocks[cpu] = {}
        else:
            block[key] = value.strip()
    if not blocks:
        raise ValueError(f"no core: {text[:60]!r}")
    return {cpu: _processor(block) for cpu, block in blocks.items()}


def _processor(block: Mapping[str, str]) -> Processor:
    variant, revision = block.get("CPU variant"), block.get("CPU revision")
    return Processor(
        implementer=_hexadecimal(block.get("CPU implementer")),
        part=_hexadecimal(block.get("CPU part")),
        revision=f"r{_hexadecimal(variant)}p{parse_integer(revision)}" if variant and revision else "",
        name=block.get("model name", ""),
    )


def _hexadecimal(text: str | None) -> int | None:
    if text is None:
        return None
    if not _HEXADECIMAL.fullmatch(text):
        raise ValueError(f"not a hexadecimal number: {text[:60]!r}")
    return int(text, 16)


def parse_cpulist(text: str) -> tuple[int, ...]:
    """Turn a list of the kernel's, such as ``0-4,10``, into the numbers it means."""
    cpus: list[int] = []
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        low = parse_integer(first)
        high = parse_integer(last) if dash else low
        if not (cpus[-1] if cpus else -1) < low <= high < _MAX_CPUS:
            raise ValueError(f"not a list of cores: {text[:60]!r}")
        cpus.extend(range(low, high + 1))
    return tuple(cpus)


def parse_stat(text: str) -> Mapping[int, Times]:
    """Turn the lines ``cpuN`` of ``/proc/stat`` into seconds."""
    times = {}
    for line in text.splitlines():
        if not line.startswith("cpu"):
            break  # the interrupts, a line of many kilobytes
        if line.startswith("cpu "):
            continue
        match = _TICKS.fullmatch(line)
        if not match:
            raise ValueError(f"not a core's times: {line[:60]!r}")
        # user holds guest and nice holds guest_nice, the two columns after these.
        cpu, user, nice, system, idle, iowait, irq, softirq, steal = map(int, match.groups())
        # proc(5): iowait alone may run backwards, as a wait may end up booked to idle; their sum does not.
        busy, unused = user + nice + system + irq + softirq + steal, idle + iowait
        times[cpu] = Times(busy / _TICKS_PER_SECOND, unused / _TICKS_PER_SECOND)
    if not times:
        raise ValueError(f"no core: {text[:60]!r}")
    return times


def parse_loadavg(text: str) -> tuple[float, float, float]:
    """Turn ``/proc/loadavg`` into the averages over 1, 5 and 15 minutes."""
    match = _LOADS.fullmatch(text)
    if not match:
        raise ValueError(f"not load averages: {text[:60]!r}")
    return float(match[1]), float(match[2]), float(match[3])


def parse_cache_name(level: str, kind: str) -> str:
    """Turn ``1`` and ``Data`` into ``l1d``."""
    if kind not in _CACHE_TYPES or not 1 <= parse_integer(level) <= 9:
        raise ValueError(f"not a cache: level {level[:20]!r}, type {kind[:20]!r}")
    return f"l{level}{_CACHE_TYPES[kind]}"


def parse_cache_size(text: str) -> int:
    """Turn ``512K`` into bytes."""
    match = _CACHE_SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"not a size: {text[:60]!r}")
    return int(match[1]) * 1024
