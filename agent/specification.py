"""What the vendor says a Spark is, held against what this one shows, part by part.

The specification is NVIDIA's for the Founders Edition (pages of January 2026), and what its partners may change of
it. A part that software cannot see is said to be not visible; a difference is information, no fault.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import Property, Quantity, Scope, cpu, gpu, memory, nic, nvme, platform
from spark_agent.collectors._power import LIMIT

_GIB: Final = 2**30


class Match(StrEnum):
    """How a part stands against the specification."""

    AS_SPECIFIED = "as specified"
    DIFFERS = "differs"
    ASLEEP = "asleep"
    NOT_VISIBLE = "not visible"


@dataclass(frozen=True, slots=True)
class Part:
    """One part: what is specified, and what was found."""

    id: str
    name: str
    specified: str
    match: Match
    found: str


def compare(snapshot: Snapshot) -> tuple[Part, ...]:
    """Hold every part of a Spark against the specification."""
    is_founders = snapshot.fact(platform.VENDOR) == "NVIDIA"
    return tuple(
        Part(id_, name, specified(is_founders), *check(snapshot, is_founders)) for id_, name, specified, check in _PARTS
    )


_Found = tuple[Match, str]


def _judge(found: str | None, *, fits: bool, why_not: str = "") -> _Found:
    if found is None:
        return Match.NOT_VISIBLE, why_not
    return (Match.AS_SPECIFIED if fits else Match.DIFFERS), found


def _cpu(snapshot: Snapshot, _: bool) -> _Found:
    performance, efficiency = snapshot.reading(cpu.PERFORMANCE_CORES), snapshot.reading(cpu.EFFICIENCY_CORES)
    if performance is None or efficiency is None:
        return Match.NOT_VISIBLE, _why(snapshot, cpu.PERFORMANCE_CORES, "cpu")
    found = f"{performance.value:.0f} performance and {efficiency.value:.0f} efficiency cores"
    models = sorted({str(fact.value) for fact in snapshot.facts(cpu.MODEL)})
    fits = (performance.value, efficiency.value) == (10, 10) and models == ["Cortex-A725", "Cortex-X925"]
    return _judge(f"{found} ({', '.join(models)})", fits=fits)


def _gpu(snapshot: Snapshot, _: bool) -> _Found:
    name, capability = snapshot.fact(gpu.NAME), snapshot.fact(gpu.COMPUTE_CAPABILITY)
    if name is None:
        return Match.NOT_VISIBLE, _why(snapshot, gpu.NAME, "gpu")
    cores = snapshot.reading(gpu.CORES)
    found = f"{name}, compute capability {capability}" + (f", {cores.value:.0f} CUDA cores" if cores else "")
    fits = name == "NVIDIA GB10" and capability == "12.1" and (cores is None or cores.value == 6144)
    return _judge(found, fits=fits)


def _memory(snapshot: Snapshot, _: bool) -> _Found:
    total = snapshot.reading(memory.TOTAL)
    if total is None:
        return Match.NOT_VISIBLE, _why(snapshot, memory.TOTAL, "memory")
    found = f"{total.value / _GIB:.1f} GiB for the system; firmware and display keep the rest"
    # 112 to 122 GiB of the 128 were seen, by firmware, kernel and display reserve.
    return _judge(found, fits=105 * _GIB < total.value <= 128 * _GIB)


def _storage(snapshot: Snapshot, is_founders: bool) -> _Found:
    drives = {reading.entity: reading.value for reading in snapshot.readings(nvme.CAPACITY)}
    if not drives:
        return Match.NOT_VISIBLE, _why(snapshot, nvme.CAPACITY, "nvme")
    models = {fact.entity: str(fact.value) for fact in snapshot.facts(nvme.MODEL)}
    found = ", ".join(f"{size / 1e12:.2g} TB {models.get(name, '')}".strip() for name, size in drives.items())
    return _judge(found, fits=max(drives.values()) >= (3.9e12 if is_founders else 0.9e12))


def _connectx7(snapshot: Snapshot, _: bool) -> _Found:
    state = snapshot.fact(nic.STATE)
    if state == "asleep":
        return Match.ASLEEP, "powered off by hot-plug while no cable is in; it comes back with one"
    functions = snapshot.reading(nic.FUNCTIONS)
    if functions is None:
        return Match.NOT_VISIBLE, _why(snapshot, nic.FUNCTIONS, "nic")
    found = f"{functions.value:.0f} PCI functions ({state})"
    return _judge(found, fits=functions.value == 4)


def _ethernet(snapshot: Snapshot, _: bool) -> _Found:
    return _network(snapshot, "ethernet", ("10ec:8127",), "10 GbE")


def _wifi(snapshot: Snapshot, _: bool) -> _Found:
    return _network(snapshot, "wifi", ("14c3:7925",), "Wi-Fi 7")


def _network(snapshot: Snapshot, kind: str, ids: tuple[str, ...], what: str) -> _Found:
    devices = [fact.entity for fact in snapshot.facts(nic.KIND) if fact.value == kind]
    if not devices:
        return Match.NOT_VISIBLE, _why(snapshot, nic.KIND, "nic", f"no {kind} interface")
    found = {fact.entity: str(fact.value) for fact in snapshot.facts(nic.PCI_ID) if fact.entity in devices}
    known = [device for device, id_ in found.items() if id_ in ids]
    text = ", ".join(f"{device} ({found.get(device, 'no PCI id')})" for device in devices)
    return _judge(f"{text}: {what}" if known else text, fits=bool(known))


def _soc_power(snapshot: Snapshot, _: bool) -> _Found:
    limit = snapshot.reading(LIMIT, Scope.SOC, "pl1")
    if limit is None:
        if absence := snapshot.absence(LIMIT, Scope.SOC, "pl1"):
            return Match.NOT_VISIBLE, absence.detail or absence.reason
        return Match.NOT_VISIBLE, "only a driver for the firmware's power page shows the limit in force"
    return _judge(f"PL1, the limit in force, is {limit.value:g} W", fits=limit.value == 140)


def _unseen(why: str) -> Callable[[Snapshot, bool], _Found]:
    return lambda _, __: (Match.NOT_VISIBLE, why)


def _os(snapshot: Snapshot, _: bool) -> _Found:
    version = snapshot.fact(platform.DGX_OS)
    if version is None:
        return _judge(_text(snapshot.fact(platform.OS)), fits=False, why_not=_why(snapshot, platform.OS, "platform"))
    return _judge(f"DGX OS {version}", fits=_numbers(str(version))[:1] == (7,))


def _kernel(snapshot: Snapshot, _: bool) -> _Found:
    release = _text(snapshot.fact(platform.KERNEL))
    why_not = _why(snapshot, platform.KERNEL, "platform")
    return _judge(release, fits=_numbers((release or "").partition("-")[0]) >= (6, 14), why_not=why_not)


def _driver(snapshot: Snapshot, _: bool) -> _Found:
    version = _text(snapshot.fact(platform.DRIVER))
    why_not = _why(snapshot, platform.DRIVER, "platform")
    return _judge(version, fits=_numbers(version or "") >= (580, 95, 5), why_not=why_not)


def _cuda(snapshot: Snapshot, _: bool) -> _Found:
    version = _text(snapshot.fact(gpu.CUDA))
    found = f"the driver supports CUDA up to {version}" if version else None
    return _judge(found, fits=_numbers(version or "") >= (13, 0), why_not=_why(snapshot, gpu.CUDA, "gpu"))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _numbers(version: str) -> tuple[int, ...]:
    # The file may hold anything: digits that int() does not know, and more of them than it takes.
    return tuple(int(part) for part in version.split(".") if part.isdecimal() and len(part) < 10)


def _why(snapshot: Snapshot, of: Property | Quantity, collector: str, otherwise: str = "it was not found") -> str:
    if absence := snapshot.absence(of):
        return absence.detail or absence.reason
    visit = snapshot.visit(collector)
    if visit is None:
        return f"{collector} was left out of this look"
    return visit.detail or visit.reason or otherwise


def _always(text: str) -> Callable[[bool], str]:
    return lambda _: text


_PARTS: Final[tuple[tuple[str, str, Callable[[bool], str], Callable[[Snapshot, bool], _Found]], ...]] = (
    ("cpu", "CPU", _always("20 Arm cores: 10 Cortex-X925, 10 Cortex-A725"), _cpu),
    ("gpu", "GPU", _always("Blackwell, sm_121, 6144 CUDA cores"), _gpu),
    ("memory", "Memory", _always("128 GB LPDDR5X, unified"), _memory),
    (
        "storage",
        "Storage",
        lambda is_founders: "4 TB NVMe M.2" if is_founders else "1 TB NVMe M.2 and up (partner model)",
        _storage,
    ),
    ("connectx7", "ConnectX-7", _always("ConnectX-7, two QSFP cages, 200 Gb/s"), _connectx7),
    ("ethernet", "Ethernet", _always("10 GbE, RJ-45"), _ethernet),
    ("wifi", "Wi-Fi", _always("Wi-Fi 7"), _wifi),
    ("bluetooth", "Bluetooth", _always("Bluetooth 5.3 or 5.4"), _unseen("the agent does not look at it")),
    ("ports", "Ports", _always("4 USB-C, HDMI 2.1a"), _unseen("the agent does not look at them")),
    ("soc_power", "SoC power", _always("TDP 140 W, CPU and GPU together"), _soc_power),
    ("adapter", "Adapter", _always("240 W, USB-C"), _unseen("no kernel interface shows the adapter's contract")),
    ("os", "System", _always("DGX OS 7 on Ubuntu 24.04"), _os),
    ("kernel", "Kernel", _always("6.14 and later"), _kernel),
    ("driver", "Driver", _always("580.95.05 and later"), _driver),
    ("cuda", "CUDA", _always("13.0 and later"), _cuda),
)
