"""Imagine machines: the demos that the agent carries, written from what owners of real ones published.

``python tests/imagine.py`` writes each machine of `SHIPPED` to ``agent/demos/NAME.tar.gz``; names as arguments write
only those. A machine is files, links and faults by absolute path, what NVML answers, and how all that moves in time.

To add one, write a function as those below ``# The machines``: take `machine` with a `Model`, a `Release` and a
`Load`, add what differs, say in ``sources`` where each new value comes from, and list it in `SHIPPED`.

Nothing here was recorded. Where nobody published a value, its file is left out or the confidence says ``D``. Numbers
after § are the sections of our survey of GB10 machines; ``sources``, which travels with each machine, says in plain
words what stands behind them.
"""

import argparse
import gzip
import io
import json
import posixpath
import sys
import tarfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

DEMOS: Final = Path(__file__).parent.parent / "agent" / "demos"

Text = str | int | None  # what a file holds; a line ends itself; None removes the file
Files = dict[str, Text]
Moving = Callable[[int], Files]  # seconds into the timeline → files
Calls = Mapping[str, Any]  # NVML function → answer, as in nvml.json

CONFIDENCE: Final = {
    "A": "a raw dump or driver source of a real machine, or two machines that agree",
    "B": "one careful first-party measurement",
    "C": "one report or relay",
    "D": "our inference, or a placeholder",
}


class Source(NamedTuple):
    """Where the values of one part come from."""

    part: str
    origin: str
    confidence: str


@dataclass
class Machine:
    """A machine under construction."""

    name: str
    note: str
    at: str  # the machine's clock at the timeline's beginning, ISO 8601
    uptime: int  # s, at that instant
    seconds: int = 60  # length of the timeline
    warm: bool = False  # worked long enough that drive and network cards feel it, by some ten degrees
    sources: list[Source] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    errors: dict[str, str] = field(default_factory=dict)
    udev: dict[str, dict[str, str]] = field(default_factory=dict)
    moving: list[Moving] = field(default_factory=list)
    events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    system: dict[str, Any] = field(default_factory=dict)
    gpu: Callable[[int], Calls] = field(default=lambda _: {})

    def put(self, directory: str, files: Mapping[str, Text]) -> str:
        """Write files into a directory; return the directory."""
        for name, text in files.items():
            self.files[f"{directory}/{name}"] = as_text(text) or ""
        return directory

    def link(self, path: str, target: str) -> None:
        """Link a path to another, relatively, as the kernel does."""
        self.links[path] = posixpath.relpath(target, posixpath.dirname(path))

    def move(self, moving: Moving) -> None:
        """Write files that change as the timeline plays."""
        self.put("", {path.removeprefix("/"): text for path, text in moving(0).items()})
        self.moving.append(moving)

    def bind(self, device: str, bus: str, driver: str, module: str = "", version: str = "") -> None:
        """Let a driver drive a device of a bus."""
        drivers = f"/sys/bus/{bus}/drivers/{driver}"
        self.link(f"{device}/driver", drivers)
        self.link(f"{drivers}/{posixpath.basename(device)}", device)
        if module:
            self.link(f"{drivers}/module", f"/sys/module/{module}")
            self.put(f"/sys/module/{module}", {"initstate": "live"} | ({"version": version} if version else {}))

    def hwmon(self, device: str, name: str, files: Mapping[str, Text], *, of_class: bool = False) -> str:
        """Add a hardware monitoring chip with the next free number; return its directory."""
        # A chip below a device that is itself of a class gets no directory "hwmon" in between.
        number = sum(path.startswith("/sys/class/hwmon/") for path in self.links)
        chip = f"{device}/hwmon{number}" if of_class else f"{device}/hwmon/hwmon{number}"
        self.link(f"/sys/class/hwmon/hwmon{number}", chip)
        self.link(f"{chip}/device", device)
        return self.put(chip, {"name": name} | dict(files))

    def timeline(self) -> list[dict[str, Any]]:
        """Return what changes at each second, besides the events that are set."""
        steps: list[dict[str, Any]] = []
        files, calls = self._moment(0)
        for t in range(1, self.seconds + 1):
            steps += [{"t": t} | event for at, event in self.events if at == t]
            files_now, calls_now = self._moment(t)
            root = {path[1:]: text for path, text in files_now.items() if text != files.get(path)}
            nvml = {call: answer for call, answer in calls_now.items() if answer != calls.get(call)}
            if root or nvml:
                steps.append({"t": t} | ({"root": root} if root else {}) | ({"nvml": nvml} if nvml else {}))
            files, calls = files_now, calls_now
        return steps

    def _moment(self, t: int) -> tuple[dict[str, str | None], Calls]:
        return {path: as_text(text) for moving in self.moving for path, text in moving(t).items()}, self.gpu(t)


def as_text(text: Text) -> str | None:
    """Return what a file holds, each line ended."""
    if text is None:
        return None
    line = str(text)
    return line if not line or line.endswith("\n") else f"{line}\n"


def lines(mapping: Mapping[str, object], form: str = "{} {}") -> str:
    """Return one line for each entry."""
    return "".join(f"{form.format(name, value)}\n" for name, value in mapping.items())


# Writing

Member = bytes | str | None  # a file, the target of a link, an empty directory


def members(machine: Machine) -> dict[str, Member]:
    """Return everything in the machine's folder by its relative path, in order."""
    identity = {
        "format": 1,
        "name": machine.name,
        "origin": "synthetic",
        "note": machine.note,
        "recorded_at": machine.at,
        "agent": "tests/imagine.py",
        "sources": [source._asdict() for source in machine.sources],
        "confidence": CONFIDENCE,
    }
    nvml = {"init": "SUCCESS", "system": machine.system, "devices": [machine.gpu(0)]}
    udev = [
        {"subsystem": "net" if "/net/" in path else "pci", "sys_path": path, "properties": properties}
        for path, properties in sorted(machine.udev.items())
    ]
    found: dict[str, Member] = {
        "machine.json": as_json(identity),
        "errors.json": as_json({path[1:]: name for path, name in sorted(machine.errors.items())}),
        "nvml.json": as_json(nvml),
        "udev.json": as_json(udev),
        "timeline.jsonl": b"".join(as_json(step, compact=True) for step in machine.timeline()),
    }
    found |= {f"root{path}": text.encode() for path, text in machine.files.items()}
    found |= {f"root{path}": target for path, target in machine.links.items()}
    found |= {f"root{path}": None for path in machine.directories}
    return dict(sorted(found.items()))


def as_json(value: object, *, compact: bool = False) -> bytes:
    """Return JSON text that ends its line."""
    if compact:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"


def archive(machine: Machine) -> bytes:
    """Return the machine as a ``.tar.gz`` in which nothing tells when, where or by whom it was made."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in members(machine).items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                continue
            info.type, info.mode = (tarfile.DIRTYPE, 0o755) if content is None else (tarfile.SYMTYPE, 0o777)
            info.linkname = content or ""
            tar.addfile(info)
    return packed.getvalue()


def write_folder(machine: Machine, folder: Path) -> None:
    """Write the machine as a folder."""
    for name, content in members(machine).items():
        path = folder / name
        if content is None:
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.symlink_to(content)


# Movement: whole numbers only, so that every computer imagines the same bytes

# Few, so that a step repeats what the archive's compressor still remembers.
_SWAY: Final = (0, 4, -3, 6)


def sway(value: int, t: int, damping: int = 1) -> int:
    """Return a value that moves by up to 6 ‰ around itself, and is itself at t = 0."""
    return value + value * _SWAY[t % len(_SWAY)] // (1000 * damping)


def swayed_sum(value: int, t: int) -> int:
    """Return what a swaying rate adds up to in t seconds."""
    period = [sway(value, second) for second in range(1, len(_SWAY) + 1)]
    return sum(period) * (t // len(period)) + sum(period[: t % len(period)])


# Processor (§1.1, §1.2)


class Core(NamedTuple):
    """One core, and the share of an L2 cache that it has."""

    part: str
    least_megahertz: int
    most_megahertz: int
    l2_kib: int


class Cluster(NamedTuple):
    """Cores that share an L3 cache; the id is an offset into the firmware's table."""

    id: int
    cores: range
    l3_kib: int


CORES: Final = (
    *[Core("0xd87", 338, 2808, 512)] * 5,
    *[Core("0xd85", 1378, 3900, 2048)] * 5,
    *[Core("0xd87", 338, 2860, 512)] * 5,
    *[Core("0xd85", 1378, 3978, 2048)] * 4,
    Core("0xd85", 1378, 4004, 2048),
)
CLUSTERS: Final = (Cluster(56, range(10), 8192), Cluster(1144, range(10, 20), 16384))
FEATURES: Final = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 "
    "sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm sb paca pacg dcpodp sve2 sveaes svepmull svebitperm "
    "svesha3 svesm4 flagm2 frint svei8mm svebf16 i8mm bf16 dgh bti ecv afp wfxt"
)


def cpu(m: Machine, busy: Mapping[int, int], loadavg: str, megahertz: Sequence[int] = ()) -> None:
    """Add the processor; ``busy`` is in percent, by core; ``megahertz`` what ``scaling_cur_freq`` claims."""
    every = f"0-{len(CORES) - 1}"
    cpus = "/sys/devices/system/cpu"
    m.put(cpus, dict.fromkeys(("present", "online", "possible"), every))
    m.put("/sys/devices/system/node", {"online": "0", "possible": "0"})
    m.put("/sys/devices/system/node/node0", {"cpulist": every})
    soc_id = "jep106:0426"
    m.put("/sys/devices/soc0", {"soc_id": f"{soc_id}:8901", "family": soc_id, "revision": "0x00000000"})
    m.link("/sys/bus/soc/devices/soc0", "/sys/devices/soc0")
    for cluster in CLUSTERS:
        siblings = f"{cluster.cores[0]}-{cluster.cores[-1]}"
        for number in cluster.cores:
            core, own = CORES[number], f"{cpus}/cpu{number}"
            m.put(f"{own}/topology", {"core_id": number, "cluster_id": cluster.id, "physical_package_id": 36})
            caches: tuple[tuple[int, str, int, Text], ...] = (
                (1, "Data", 64, number),
                (1, "Instruction", 64, number),
                (2, "Unified", core.l2_kib, number),
                (3, "Unified", cluster.l3_kib, siblings),
            )
            for index, (level, kind, kib, cores) in enumerate(caches):
                cache = f"{own}/cache/index{index}"
                m.put(cache, {"level": level, "type": kind, "size": f"{kib}K", "shared_cpu_list": cores})
            least, most = core.least_megahertz * 1000, core.most_megahertz * 1000
            policy = m.put(
                f"{cpus}/cpufreq/policy{number}",
                {
                    "cpuinfo_min_freq": least,
                    "cpuinfo_max_freq": most,
                    "scaling_min_freq": least,
                    "scaling_max_freq": most,
                    "scaling_cur_freq": megahertz[number] * 1000 if megahertz else most,
                    "scaling_driver": "cppc_cpufreq",
                    "scaling_governor": "performance",
                    "scaling_available_governors": "performance powersave",
                },
            )
            m.link(f"{own}/cpufreq", policy)
    m.put(
        "/proc",
        {
            "cpuinfo": "".join(cpuinfo(number, core.part) for number, core in enumerate(CORES)),
            "loadavg": loadavg,
            "pressure/cpu": pressure("0.00", m.uptime * 400),
        },
    )
    booted = int(datetime.fromisoformat(m.at).timestamp()) - m.uptime
    percents = [busy.get(number, 0) for number in range(len(CORES))]
    m.move(
        lambda t: {
            "/proc/stat": stat(m.uptime + t, booted, percents),
            "/proc/uptime": f"{m.uptime + t}.00 {(m.uptime + t) * (99 * 20 - sum(percents)) // 100}.00",
        }
    )


def cpuinfo(number: int, part: str) -> str:
    """Return one processor's block of ``/proc/cpuinfo``, as arm64 prints it."""
    return (
        f"processor\t: {number}\nBogoMIPS\t: 2000.00\nFeatures\t: {FEATURES}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 1\n\n"
    )


def stat(uptime: int, booted: int, busy: Sequence[int]) -> str:
    """Return ``/proc/stat`` of cores that were always that busy: ticks of 10 ms."""
    # user nice system idle iowait irq softirq steal guest guest_nice
    ticks = [(uptime * percent, 0, uptime, uptime * (99 - percent), 0, 0, 0, 0, 0, 0) for percent in busy]
    total = [sum(column) for column in zip(*ticks, strict=True)]
    rows = [f"cpu  {' '.join(map(str, total))}"]
    rows += [f"cpu{number} {' '.join(map(str, row))}" for number, row in enumerate(ticks)]
    rows += [f"intr {uptime * 5200} 0 0", f"ctxt {uptime * 9100}", f"btime {booted}", f"processes {4200 + uptime // 4}"]
    return "\n".join([*rows, "procs_running 2", "procs_blocked 0", f"softirq {uptime * 2600} 0 0 0 0 0 0 0 0 0 0", ""])


def pressure(average: str, total: int) -> str:
    """Return a file of ``/proc/pressure``."""
    return "".join(f"{who} avg10={average} avg60={average} avg300=0.00 total={total}\n" for who in ("some", "full"))


# Memory (§7)


def memory(m: Machine, total: int, swap: int, held: Callable[[int], int], swapped: int = 0, kho: int = 0) -> None:
    """Add the memory, in KiB; ``held`` is what the GPU's processes hold, ``kho`` what Kexec Handover took."""
    m.move(lambda t: {"/proc/meminfo": meminfo(total, swap, swapped, held(t), kho)})
    counters = {"pswpin": 0, "pswpout": swapped // 4, "pgfault": m.uptime * 3100, "pgmajfault": 2400, "oom_kill": 0}
    m.put(
        "/proc",
        {
            "vmstat": lines(counters),
            "swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
            f"/swap.img                               file\t\t{swap}\t{swapped}\t\t-2",
            "pressure/memory": pressure("0.00", 1800),
            "pressure/io": pressure("0.00", 4_100_000),
            "sys/vm/swappiness": 60,
        },
    )
    m.put("/sys/kernel/mm/transparent_hugepage", {"enabled": "always [madvise] never"})


# KiB; in the kernel's order.
_MEMINFO: Final = (
    "MemTotal {total} MemFree {free} MemAvailable {available} Buffers 160000 Cached 5800000 SwapCached 0 "
    "Active 3900000 Inactive 4100000 Active(anon) 2050000 Inactive(anon) 142000 Active(file) 1850000 "
    "Inactive(file) 3958000 Unevictable 32000 Mlocked 28000 SwapTotal {swap} SwapFree {swap_free} Zswap 0 Zswapped 0 "
    "Dirty 220 Writeback 0 AnonPages 2150000 Mapped 610000 Shmem 42000 KReclaimable 410000 Slab 1130000 "
    "SReclaimable 410000 SUnreclaim 720000 KernelStack 15600 PageTables 27000 SecPageTables 2100 NFS_Unstable 0 "
    "Bounce 0 WritebackTmp 0 CommitLimit {commit} Committed_AS 7400000 VmallocTotal 261087232 VmallocUsed 240000 "
    "VmallocChunk 0 Percpu 19000 HardwareCorrupted 0 AnonHugePages 0 ShmemHugePages 0 ShmemPmdMapped 0 "
    "FileHugePages 0 FilePmdMapped 0 CmaTotal {cma} CmaFree {cma_free} HugePages_Total 0 HugePages_Free 0 "
    "HugePages_Rsvd 0 HugePages_Surp 0 Hugepagesize 2048 Hugetlb 0"
)


def meminfo(total: int, swap: int, swapped: int, held: int, kho: int) -> str:
    """Return ``/proc/meminfo`` of a machine that needs about 4 GiB itself."""
    free = total - held - kho - 9_880_000
    words = _MEMINFO.format(
        total=total,
        free=free,
        available=free + 6_028_000,
        swap=swap,
        swap_free=swap - swapped,
        commit=total // 2 + swap,
        cma=0 if kho else 32_768,
        cma_free=10_171_000 if kho else 30_000,
    ).split()
    rows = [(f"{name}:", kib) for name, kib in zip(words[::2], words[1::2], strict=True)]
    return "".join(f"{name:<15} {number:>8}{'' if name.startswith('HugePages') else ' kB'}\n" for name, number in rows)


# Temperatures (§1.4)

ZONES: Final = ("TSOC", "TS0E", "TS0P", "TS1E", "TS1P", "TGPU", "TUNC")
ACPI: Final = "/sys/devices/LNXSYSTM:00"


def decikelvin(celsius: Sequence[float], t: int) -> list[int]:
    """Return temperatures as ACPI and the power firmware have them."""
    # A degree takes its time.
    return [round((value + 273.15) * 10) + _SWAY[t // 8 % len(_SWAY)] // 3 for value in celsius]


def zones(m: Machine, celsius: Sequence[float]) -> None:
    """Add the ACPI thermal zones, and the one hwmon chip that repeats them."""
    paths = [f"/sys/devices/virtual/thermal/thermal_zone{number}" for number in range(len(ZONES))]
    chip = m.hwmon(paths[0], "acpitz", {}, of_class=True)
    for number, (zone, path) in enumerate(zip(ZONES, paths, strict=True)):
        m.put(path, {"type": "acpitz", "mode": "enabled", "policy": "step_wise"})
        m.put(path, {"trip_point_0_type": "critical", "trip_point_0_temp": 104_850})
        m.link(f"/sys/class/thermal/thermal_zone{number}", path)
        device = m.put(f"{ACPI}/LNXSYBUS:01/LNXTHERM:{number:02}", {"hid": "LNXTHERM", "path": rf"\_TZ_.{zone}"})
        m.link(f"{path}/device", device)

    def moving(t: int) -> Files:
        files: Files = {}
        for number, (path, word) in enumerate(zip(paths, decikelvin(celsius, t), strict=True), 1):
            files[f"{path}/temp"] = files[f"{chip}/temp{number}_input"] = word * 100 - 273_150
        return files

    m.move(moving)


# PCI (§5.1)


class Function(NamedTuple):
    """A PCI function: ids and class as sysfs has them, its link, and what the hardware database calls it."""

    address: str
    id: str  # vendor:device; empty where nobody published it
    kind: str
    driver: str
    transfers: str  # GT/s
    lanes: int
    vendor: str = ""
    model: str = ""


WIFI_MODEL: Final = "MT7925 802.11be 160MHz 2x2 PCIe Wireless Network Adapter [Filogic 360]"
GPU_FUNCTION: Final = Function("000f:01:00.0", "10de:2e12", "0x030000", "nvidia", "2.5", 1, "NVIDIA Corporation")
REALTEK: Final = Function(
    "0007:01:00.0", "10ec:8127", "0x020000", "r8127", "16.0", 1, "Realtek Semiconductor Co., Ltd."
)
WIFI: Final = Function("0009:01:00.0", "14c3:7925", "0x028000", "mt7925e", "5.0", 1, "MEDIATEK Corp.", WIFI_MODEL)
CONNECTX7: Final = Function(
    "", "15b3:1021", "0x020000", "mlx5_core", "32.0", 4, "Mellanox Technologies", "MT2910 Family [ConnectX-7]"
)
ROOT_PORTS: Final = (("0000", "22ce"), ("0002", "22ce"), ("0004", "22ce"), ("0007", "22d0"), ("0009", "22d0"))
_CORRECTABLE: Final = "RxErr BadTLP BadDLLP Rollover Timeout NonFatalErr CorrIntErr HeaderOF"
_UNCORRECTABLE: Final = (
    "Undefined DLP SDES TLP FCP CmpltTO CmpltAbrt UnxCmplt RxOF MalfTLP ECRC UnsupReq ACSViol UncorrIntErr BlockedTLP "
    "AtomicOpBlocked TLPBlockedErr PoisonTLPBlocked"
)
AER: Final = {
    "aer_dev_correctable": f"{_CORRECTABLE} TOTAL_ERR_COR",
    "aer_dev_nonfatal": f"{_UNCORRECTABLE} TOTAL_ERR_NONFATAL",
    "aer_dev_fatal": f"{_UNCORRECTABLE} TOTAL_ERR_FATAL",
}


def root_ports(m: Machine) -> None:
    """Add the root ports, which stay when what hangs on them goes."""
    for domain, device in (*ROOT_PORTS, ("000f", "22d1")):
        path = f"/sys/devices/pci{domain}:00/{domain}:00:00.0"
        m.put(path, {"vendor": "0x10de", "device": f"0x{device}", "class": "0x060400"})
        m.link(f"/sys/bus/pci/devices/{domain}:00:00.0", path)
        m.bind(path, "pci", "pcieport")


def pci(m: Machine, function: Function) -> str:
    """Add a PCI function; return its directory."""
    domain = function.address[:4]
    device = f"/sys/devices/pci{domain}:00/{domain}:00:00.0/{function.address}"
    speed = dict.fromkeys(("current_link_speed", "max_link_speed"), f"{function.transfers} GT/s PCIe")
    width = dict.fromkeys(("current_link_width", "max_link_width"), function.lanes)
    m.put(device, {"class": function.kind, **speed, **width})
    if function.id:
        vendor, model = function.id.split(":")
        m.put(device, {"vendor": f"0x{vendor}", "device": f"0x{model}"})
    if function is GPU_FUNCTION:  # it is on NVLink-C2C; what PCIe says of it means nothing
        m.put(device, {"revision": "0xa1", "max_link_width": 16})
    else:
        m.put(device, {file: lines(dict.fromkeys(errors.split(), 0)) for file, errors in AER.items()})
    m.link(f"/sys/bus/pci/devices/{function.address}", device)
    m.link(f"{device}/subsystem", "/sys/bus/pci")
    m.bind(device, "pci", function.driver, function.driver)
    named = {"ID_VENDOR_FROM_DATABASE": function.vendor, "ID_MODEL_FROM_DATABASE": function.model}
    if known := {key: value for key, value in named.items() if value}:
        m.udev[device] = known
    return device


# NVMe (§4)


class Drive(NamedTuple):
    """An NVMe drive; what nobody published of it is empty."""

    model: str
    firmware: str
    sectors: int  # of 512 bytes
    transfers: str  # GT/s, on four lanes
    celsius: tuple[float, ...]  # Composite, then the numbered sensors
    limits: Mapping[str, int] = {}  # of Composite, in thousandths of a degree
    id: str = ""
    vendor: str = ""


SAMSUNG: Final = Drive(
    model="SAMSUNG MZALC4T0HBL1-00B07",
    firmware="NXHB202Q",
    sectors=8_001_573_552,
    transfers="32.0",
    celsius=(36.85, 36.85, 38.85),
    id="144d:a810",
    vendor="Samsung Electronics Co Ltd",
)


def nvme(m: Machine, drive: Drive) -> None:
    """Add the drive, its one namespace and its temperatures."""
    device = pci(m, Function("0004:01:00.0", drive.id, "0x010802", "nvme", drive.transfers, 4, drive.vendor))
    controller = f"{device}/nvme/nvme0"
    m.link("/sys/class/nvme/nvme0", controller)
    m.link(f"{controller}/device", device)
    # The drive pads its names with blanks, and the kernel prints them so.
    m.put(controller, {"model": f"{drive.model:<40}"})
    if drive.firmware:
        m.put(controller, {"firmware_rev": f"{drive.firmware:<8}"})
    m.put(controller, {"state": "live", "transport": "pcie", "address": posixpath.basename(device)})
    namespace = f"{controller}/nvme0n1"
    m.put(namespace, {"size": drive.sectors, "ro": 0, "removable": 0, "nsid": 1})
    m.put(f"{namespace}/queue", {"logical_block_size": 512, "physical_block_size": 4096, "rotational": 0})
    m.link("/sys/block/nvme0n1", namespace)
    m.link("/sys/class/block/nvme0n1", namespace)
    m.link(f"{namespace}/device", controller)
    labels = ("Composite", *(f"Sensor {number}" for number in range(1, len(drive.celsius))))
    files: Files = {f"temp1_{name}": value for name, value in drive.limits.items()}
    for number, (label, celsius) in enumerate(zip(labels, drive.celsius, strict=True), 1):
        files |= {f"temp{number}_label": label, f"temp{number}_input": round((celsius + 12 * m.warm) * 1000)}
        if number > 1:  # never set by the maker: what 65535 K and 0 K come to
            files |= {f"temp{number}_max": 65_261_850, f"temp{number}_min": -273_150}
    m.hwmon(controller, "nvme", files, of_class=True)
    m.move(lambda t: {f"{namespace}/stat": block_stat(m.uptime + t)})


def block_stat(seconds: int) -> str:
    """Return a ``stat`` file: reads, writes, in flight and times, discards, flushes; sectors of 512 bytes."""
    reads, writes = seconds // 2 + 310_000, seconds * 7
    counts = [reads, 1200, reads * 96, reads // 3, writes, writes // 2, writes * 40, writes // 4, 0, seconds * 3]
    counts += [reads // 2, 0, 0, 0, 0, seconds // 9, seconds // 40]
    return " ".join(f"{count:>8}" for count in counts)


# Network (§5)

_QUIET: Final = ("rx_errors", "tx_errors", "rx_dropped", "tx_dropped", "rx_crc_errors", "collisions", "multicast")


def interface(m: Machine, device: str, name: str, link: str, megabits: int = 0, rate: int = 0) -> str:
    """Add a network interface: its link ``up``, ``no-carrier`` or ``off``; ``rate`` in bytes per second."""
    path = f"{device}/net/{name}"
    number = sum(other.startswith("/sys/class/net/") for other in m.links) + 1
    m.link(f"/sys/class/net/{name}", path)
    m.link(f"{path}/device", device)
    m.put(path, {"address": f"02:00:00:00:00:{number:02x}", "ifindex": number, "mtu": 1500})
    m.put(path, {"operstate": "up" if link == "up" else "down"})
    m.put(path, {"carrier_changes": {"up": 2, "no-carrier": 1, "off": 0}[link]})
    if link == "off":  # the kernel refuses to ask a card that is switched off
        m.errors |= dict.fromkeys((f"{path}/{file}" for file in ("carrier", "speed", "duplex")), "EINVAL")
    else:
        m.put(path, {"carrier": int(link == "up"), "speed": megabits or -1})
        m.put(path, {"duplex": "full" if megabits else "unknown"})
    if device in m.udev:
        m.udev[path] = m.udev[device]
    statistics(m, path, rate)
    return path


def statistics(m: Machine, path: str, rate: int) -> None:
    """Add an interface's counters; it sends ``rate`` bytes per second and receives thrice that."""
    m.put(f"{path}/statistics", dict.fromkeys(_QUIET, 0))

    def moving(t: int) -> Files:
        sent = rate * m.uptime + swayed_sum(rate, t)
        counters = {"rx_bytes": sent * 3, "tx_bytes": sent, "rx_packets": sent // 300, "tx_packets": sent // 400}
        return {f"{path}/statistics/{name}": value for name, value in counters.items()}

    m.move(moving)


def network(m: Machine) -> None:
    """Add what every Spark has besides the ConnectX-7: loopback, 10 GbE, Wi-Fi."""
    loopback = "/sys/devices/virtual/net/lo"
    m.link("/sys/class/net/lo", loopback)
    m.put(loopback, {"address": "00:00:00:00:00:00", "ifindex": 1, "mtu": 65536})
    m.put(loopback, {"operstate": "unknown", "carrier": 1, "carrier_changes": 0})
    m.errors |= dict.fromkeys((f"{loopback}/speed", f"{loopback}/duplex"), "EINVAL")
    statistics(m, loopback, 0)
    interface(m, pci(m, REALTEK), "enP7s7", "up", 10_000, rate=2100)
    m.put("/sys/module/r8127", {"version": "11.014.00-NAPI"})
    wireless = pci(m, WIFI)
    path = interface(m, wireless, "wlP9s9", "off")
    phy = m.put(f"{wireless}/ieee80211/phy0", {"index": 0, "name": "phy0"})
    m.link(f"{path}/phy80211", phy)
    m.hwmon(phy, "mt7925_phy0", {"temp1_input": 47_000 if m.warm else 36_000}, of_class=True)


def connectx7(m: Machine, *, cabled: bool) -> None:
    """Add the ConnectX-7: four functions, of which two, the twins, lead to each cage; a cable is in cage 0, or none."""
    counters = "symbol_error link_downed port_rcv_errors port_xmit_discards"
    # One generation moved 678 MB through one twin and 146 MB through the other, in words of 4 bytes; the interfaces'
    # own counters saw 170 kB and nothing of it. That it took ten seconds is ours.
    for domain, prefix, words, seen in (("0000", "p1", 16_950_000, 17_000), ("0002", "P2p1", 3_650_000, 0)):
        for cage in (0, 1):
            up = cabled and cage == 0
            device = pci(m, CONNECTX7._replace(address=f"{domain}:01:00.{cage}"))
            name = f"en{prefix}s0f{cage}np{cage}"
            interface(m, device, name, *(("up", 200_000, seen) if up else ("no-carrier",)))
            rdma = f"{device}/infiniband/roce{prefix}s0f{cage}"
            m.link(f"/sys/class/infiniband/roce{prefix}s0f{cage}", rdma)
            m.link(f"{rdma}/device", device)
            m.put(rdma, {"fw_ver": "28.45.4028", "hca_type": "MT4129", "node_type": "1: CA"})
            m.put(
                f"{rdma}/ports/1",
                {
                    "state": "4: ACTIVE" if up else "1: DOWN",
                    "phys_state": "5: LinkUp" if up else "3: Disabled",
                    "rate": "200 Gb/sec (2X NDR)" if up else "40 Gb/sec (4X QDR)",
                    "link_layer": "Ethernet",
                    "gid_attrs/ndevs/0": name,
                },
            )
            m.put(f"{rdma}/ports/1/counters", dict.fromkeys(counters.split(), 0))
            rdma_traffic(m, f"{rdma}/ports/1/counters", words if up else 0)
            chip = m.hwmon(device, "mlx5", {"temp1_label": "asic", "temp1_input": 50_000 if m.warm else 40_000})
            m.put(chip, {"temp1_crit": 105_000, "temp1_highest": 66_000})


def rdma_traffic(m: Machine, directory: str, rate: int) -> None:
    """Add the traffic of an RDMA port, in words of 4 bytes per second, for the last hour and from now on."""

    def moving(t: int) -> Files:
        words = rate * 3600 + swayed_sum(rate, t)
        files: Files = {}
        for way in ("xmit", "rcv"):
            files[f"{directory}/port_{way}_data"], files[f"{directory}/port_{way}_packets"] = words, words // 1024
        return files

    m.move(moving)


def hotplug(m: Machine, *, cable: bool) -> None:
    """Add the driver that takes an uncabled ConnectX-7 off the bus (§5.3)."""
    m.put("/etc/nvidia", {"cx7-hotplug-enabled": ""})
    device = platform_device(m, "MTKP0001:00")
    m.put(f"{device}/pcie_hotplug", {"hotplug_enabled": 1, "debug_state": int(cable)})
    m.bind(device, "platform", "cx7-pcie-hotplug", "mtk_pcie_hotplug")


def acpi_device(m: Machine, name: str, path: str = "") -> str:
    """Add a device that the firmware's tables name; return its directory."""
    device = m.put(f"{ACPI}/LNXSYBUS:00/{name}", {"hid": name.partition(":")[0]} | ({"path": path} if path else {}))
    m.link(f"/sys/bus/acpi/devices/{name}", device)
    return device


def platform_device(m: Machine, name: str) -> str:
    """Add a device that the firmware's tables name and the kernel made a platform device of."""
    device = f"/sys/devices/platform/{name}"
    m.link(f"/sys/bus/platform/devices/{name}", device)
    m.link(f"{device}/firmware_node", acpi_device(m, name))
    return device


# GPU (§2.1)


@dataclass(frozen=True)
class Gpu:
    """What NVML says of the GPU."""

    milliwatts: int
    megahertz: int
    utilization: int  # %
    celsius: int
    pstate: int = 0
    reasons: int = 0  # bit mask
    events: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)  # µs: SW power, sync boost, SW/HW thermal, power brake
    swing: int = 0  # MHz for each ‰ of sway
    process: tuple[int, str, int] | None = None  # pid, command name, MiB held

    @property
    def held(self) -> int:
        """KiB that its process holds."""
        return self.process[2] * 1024 if self.process else 0


EVENT_FIELDS: Final = (74, 76, 269, 270, 271)
# In P8 the driver gives "GPU idle" as the reason.
IDLE_GPU: Final = Gpu(4900, 208, 0, 36, pstate=8, reasons=0x1)


def calls(gpu: Gpu, release: "Release", t: int, loaded: int) -> Calls:
    """Return what NVML answers ``t`` seconds in, of a driver loaded ``loaded`` seconds before."""
    milliwatts, instant = sway(gpu.milliwatts, t), sway(gpu.milliwatts, t + 2 if t else 0)
    millijoules = gpu.milliwatts * loaded + swayed_sum(gpu.milliwatts, t)
    clock = gpu.megahertz + gpu.swing * _SWAY[t % len(_SWAY)]
    clocks = {"GRAPHICS": clock, "SM": clock, "MEM": {"error": "NOT_SUPPORTED"}}
    events = {str(id_): us * 1000 for id_, us in zip(EVENT_FIELDS, gpu.events, strict=True)}
    processes = [{"pid": gpu.process[0], "usedGpuMemory": gpu.process[2] * 1024 * 1024}] if gpu.process else []
    return {
        "nvmlDeviceGetName": "NVIDIA GB10",
        "nvmlDeviceGetUUID": "GPU-00000000-0000-0000-0000-000000000000",
        "nvmlDeviceGetArchitecture": 10,
        "nvmlDeviceGetCudaComputeCapability": [12, 1],
        "nvmlDeviceGetPciInfo": {"busId": "0000000F:01:00.0", "domain": 15, "bus": 1, "pciDeviceId": 0x2E1210DE},
        "nvmlDeviceGetVbiosVersion": release.vbios,
        "nvmlDeviceGetGspFirmwareVersion": release.driver,
        "nvmlDeviceGetPersistenceMode": 1,
        "nvmlDeviceGetC2cModeInfoV": {"isC2cEnabled": 1},
        "nvmlDeviceGetAddressingMode": 2,
        "nvmlDeviceGetDisplayActive": 0,
        "nvmlDeviceGetPowerUsage": milliwatts,
        "nvmlDeviceGetTotalEnergyConsumption": millijoules,
        "fields": {"185": milliwatts, "186": instant, "83": millijoules} | events,
        "nvmlDeviceGetUtilizationRates": {"gpu": gpu.utilization, "memory": 0},
        "nvmlDeviceGetClockInfo": clocks,
        "nvmlDeviceGetMaxClockInfo": {"GRAPHICS": 3003, "SM": 3003, "MEM": {"error": "NOT_SUPPORTED"}},
        "nvmlDeviceGetDefaultApplicationsClock": {"GRAPHICS": 2418},
        "nvmlDeviceGetPerformanceState": gpu.pstate,
        "nvmlDeviceGetTemperature": {"GPU": gpu.celsius},
        "nvmlDeviceGetCurrentClocksEventReasons": gpu.reasons,
        "nvmlDeviceGetCurrPcieLinkGeneration": 1,
        "nvmlDeviceGetCurrPcieLinkWidth": 1,
        "nvmlDeviceGetComputeRunningProcesses": processes,
        "nvmlDeviceGetGraphicsRunningProcesses": [],
    }


def add_gpu(m: Machine, gpu: Gpu, release: "Release") -> None:
    """Add the GPU, its driver and what runs on it."""
    pci(m, GPU_FUNCTION)
    m.put("/sys/module/nvidia", {"version": release.driver})
    m.put("/proc/driver/nvidia", {"version": release.nvrm})
    if gpu.process:
        m.put(f"/proc/{gpu.process[0]}", {"comm": gpu.process[1]})
    m.system |= {
        "nvmlSystemGetDriverVersion": release.driver,
        "nvmlSystemGetNVMLVersion": f"13.{release.driver}",
        "nvmlSystemGetCudaDriverVersion_v2": 13000,
    }
    m.gpu = lambda t: calls(gpu, release, t, m.uptime)


# The firmware's power page, as its drivers show it (§3.3, §3.4)

_LABELS: Final = "sys_total soc_pkg cpu_gpu cpu_p cpu_e vcore dc_input gpu prereg dla pl1 pl2 syspl1 syspl2"
LABELS: Final = tuple(_LABELS.split())
LIMITS: Final = ("pl1", "pl2", "syspl1", "syspl2")
HEALTHY: Final = (140, 142, 231, 244)  # W
WEDGED: Final = (20, 20, 30, 30)
CEILINGS: Final = (250, 250, 300, 300)
BUDGETS: Final = {"budget_cpu": 105_000, "budget_gpu": 170_000, "budget_cpu_e": 19_000, "budget_cpu_p": 97_000}
_REGISTER: Final = 2**32  # mJ
_UNPOWERED: Final = 2729  # dK, what the DLA reads
_TEMPERATURES: Final = ("tj_max", "cpu_e_clu0", "cpu_p_clu0", "cpu_e_clu1", "cpu_p_clu1", "gpu", "soc")


def power_page(
    m: Machine,
    device: str,
    name: str,
    power: Mapping[str, int],
    energy: Mapping[str, str],
    still: Collection[str] = (),
    start: Mapping[str, int] | None = None,
) -> str:
    """Add an SPBM chip: powers in mW, energies by the power that they add up; ``still`` channels do not move."""
    chip = m.hwmon(device, name, {f"power{number}_label": label for number, label in enumerate(power, 1)})
    m.put(chip, {f"energy{number}_label": label for number, label in enumerate(energy, 1)})
    # Registers of 32 bits that start at boot: the package's is around for the first time after 54 h at 22 W.
    begin = {label: m.uptime * power.get(rail, 0) % _REGISTER for label, rail in energy.items()} | dict(start or {})

    def moving(t: int) -> Files:
        files: Files = {}
        for number, (label, milliwatts) in enumerate(power.items(), 1):
            # Averages move less than what they average.
            damping = 4 if label.startswith(("pl", "syspl", "ewma")) else 1
            now = milliwatts if label in still else sway(milliwatts, t, damping)
            files[f"{chip}/power{number}_input"] = now * 1000
        for number, (label, rail) in enumerate(energy.items(), 1):
            millijoules = begin[label] + swayed_sum(power.get(rail, 0), t)
            files[f"{chip}/energy{number}_input"] = millijoules % _REGISTER * 1000
        return files

    m.move(moving)
    return chip


def status(m: Machine, chip: str, celsius: Sequence[float], pl_level: int) -> None:
    """Add what the later drivers show besides power; temperatures on their scale, which is wrong."""
    labels = (*_TEMPERATURES, "dla")
    m.put(chip, {f"temp{number}_label": label for number, label in enumerate(labels, 1)})
    m.put(chip, {"prochot": 1, "pl_level": pl_level, "tj_max_c": 40})
    # The firmware's word is deci-Kelvin; the drivers multiply it by ten and call it thousandths of a degree.
    m.move(
        lambda t: {
            f"{chip}/temp{number}_input": word * 10
            for number, word in enumerate((*decikelvin(celsius, t), _UNPOWERED), 1)
        }
    )


_ENERGIES: Final = {"pkg": "soc_pkg", "cpu_e": "cpu_e", "cpu_p": "cpu_p", "gpu": "gpu"}


def spbm_0_3(
    m: Machine, watts: Sequence[float], caps: Sequence[int], celsius: Sequence[float], pl_level: int = 0, **more: Any
) -> None:
    """Add the power page as ``spbm`` 0.3.0 shows it."""
    device = acpi_device(m, "NVDA8800:00", r"\_SB_.MTEL")
    m.bind(device, "acpi", "spbm", "spbm")
    chip = power_page(m, device, "spbm", milliwatts(watts), _ENERGIES, **more)
    status(m, chip, celsius, pl_level)
    for label, cap, ceiling in zip(LIMITS, caps, CEILINGS, strict=True):
        prefix = f"power{LABELS.index(label) + 1}"
        m.put(chip, {f"{prefix}_cap": cap * 10**6, f"{prefix}_max": ceiling * 10**6, f"{prefix}_min": 100_000})


def milliwatts(watts: Sequence[float]) -> dict[str, int]:
    """Name the powers of the fourteen channels."""
    return {label: round(value * 1000) for label, value in zip(LABELS, watts, strict=True)}


# Who made it, what runs on it, what it does


@dataclass(frozen=True)
class Model:
    """Who made the machine: what DMI says, and its drive (§4, §6.1)."""

    dmi: Mapping[str, Text]
    drive: Drive


@dataclass(frozen=True)
class Release:
    """What runs on it (§6.1, §6.2, §6.4, §7)."""

    kernel: str
    driver: str
    ubuntu: str
    bios: Mapping[str, Text]
    vbios: str
    memory: int  # KiB
    updates: tuple[tuple[str, str], ...] = ()  # version, date
    platform: str = "DGX Server for KVM"
    swap: int = 16_777_212  # KiB

    @property
    def nvrm(self) -> str:
        """``/proc/driver/nvidia/version``."""
        gcc = "gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04.1)"
        module = f"NVIDIA UNIX Open Kernel Module for aarch64  {self.driver}  Release Build  (dvs-builder)"
        return f"NVRM version: {module}\nGCC version:  {gcc} \n"

    @property
    def dgx(self) -> str:
        """``/etc/dgx-release``: the factory image's words, then two for each update."""
        words = {
            "DGX_NAME": "DGX Spark",
            "DGX_PRETTY_NAME": "NVIDIA DGX Spark",
            "DGX_SWBUILD_DATE": "2025-09-10-13-50-03",
            "DGX_SWBUILD_VERSION": "7.2.3",
            "DGX_COMMIT_ID": "833b4a7",
        }
        words |= {"DGX_PLATFORM": self.platform} if self.platform else {}
        updates = "".join(f'DGX_OTA_VERSION="{version}"\nDGX_OTA_DATE="{date}"\n' for version, date in self.updates)
        return lines(words | {"DGX_SERIAL_NUMBER": "REDACTED"}, '{}="{}"') + updates


@dataclass(frozen=True)
class Load:
    """What the machine does."""

    celsius: tuple[float, ...]  # of each of `ZONES`
    gpu: Gpu
    busy: Mapping[int, int]  # percent, by core
    loadavg: str


FOUNDERS_EDITION: Final = Model(
    {
        "sys_vendor": "NVIDIA",
        "product_name": "NVIDIA_DGX_Spark",
        "product_family": "DGX Spark",
        "product_version": "A.7",
        "board_vendor": "NVIDIA",
        "board_name": "P4242",
        "board_version": "A04",
        "bios_vendor": "AMI",
        "chassis_type": 17,
    },
    SAMSUNG,
)
NOVEMBER_2025: Final = Release(
    kernel="6.14.0-1013-nvidia",
    driver="580.95.05",
    ubuntu="24.04.3",
    bios={"bios_version": "5.36_0ACUM018", "bios_date": "08/06/2025"},
    vbios="9A.0B.0F.00.1D",
    memory=125_489_508,
)
JULY_2026: Final = Release(
    kernel="6.17.0-1026-nvidia",
    driver="580.159.03",
    ubuntu="24.04.4",
    bios={"bios_version": "5.36_0ACUM023", "bios_date": "04/02/2026"},
    vbios="9A.0B.2D.00.00",
    memory=127_600_748,
    updates=(("7.5.0", "Wed Jul 15 09:06:56 AM PDT 2026"),),
)
SEPTEMBER_2026: Final = replace(
    JULY_2026,
    kernel="7.0.0-1019-nvidia",
    driver="580.178.04",
    bios={"bios_version": "5.36_0ACUM027"},
    updates=(*JULY_2026.updates, ("7.6.0", "Wed Sep 16 09:00:00 AM PDT 2026")),
)

IDLE: Final = Load(
    (36.85, 36.45, 36.85, 36.25, 36.55, 36.55, 36.65), IDLE_GPU, {0: 1, 5: 1, 12: 1}, "0.08 0.05 0.01 1/524 4711"
)
# One core of the inference server is busy; the rest of the work is the GPU's.
DECODE: Final = Load(
    (72.55, 66.25, 70.15, 67.05, 72.55, 70.45, 69.85),
    Gpu(46_000, 2395, 94, 70, events=(165_687, 0, 903_158, 0, 0), swing=1, process=(48211, "llama-server", 67_012)),
    {5: 82, 6: 11, 15: 4},
    "1.12 1.08 1.02 3/561 48230",
)
WEDGE: Final = Load(
    (47.35, 46.15, 47.35, 46.05, 46.85, 46.35, 46.95),
    Gpu(7_900, 495, 99, 46, process=(30977, "VLLM::EngineCor", 46_141)),
    {5: 96, 8: 21, 16: 14},
    "1.61 1.55 1.49 2/603 31002",
)

COMMON_SOURCES: Final = (
    Source(
        "processor: cores, caches, clocks, SoC id",
        "sbc-bench's dump of a Dell Pro Max FCM1253 (results/fcm1253.txt, 22 Nov 2025); three more machines agree "
        "on which core is which",
        "A",
    ),
    Source(
        "processor: cluster_id, cpufreq driver",
        "two cluster ids that a power investigation of an FE saw; NixOS' module for the Spark",
        "B",
    ),
    Source("processor: core_id, times and load", "placed by us to fit what the machine does", "D"),
    Source(
        "thermal zones: number, type, critical point", "the FCM1253 dump, all-smi on an FE, a GB10 root-cause tool", "A"
    ),
    Source("thermal zones: ACPI names and their order", "a GB10 root-cause tool that read the DSDT", "B"),
    Source(
        "PCI: addresses, ids, classes, links, root ports",
        "the FCM1253 dump; a probe of a Gigabyte AI TOP ATOM (May 2026); Gentoo's wiki page of the DGX Spark",
        "A",
    ),
    Source("PCI: link of the Samsung drive", "a Gen5 drive on a Gen5 x4 port", "D"),
    Source("memory: MemTotal, SwapTotal", "dumps of machines of the same time", "A"),
    Source("memory: all else", "made to fit the 3.7 GiB that idle machines use, and what the GPU's process holds", "D"),
    Source("network: names, speeds, driver versions", "the FCM1253 dump and the AI TOP ATOM probe", "A"),
    Source("network: MAC addresses", "placeholders", "D"),
    Source(
        "NVML: which calls answer, and with what kind of value",
        "nvidia-smi tables in dozens of repositories; nvitop's and gpud's tests by owners; power scopes in Zeus PR 242",
        "A",
    ),
    Source("NVML: UUID", "placeholder", "D"),
    Source("release files, driver module", "NVCheckup's fixtures, the AI TOP ATOM probe", "A"),
    Source("serial numbers, machine ids", "left out, or REDACTED", "D"),
    Source("drive and network cards: temperatures", "the FCM1253 dump: at idle, and after minutes of full load", "A"),
    Source("movement in time", "a few tenths of a percent around each value; no measurement of it", "D"),
)
FE_SOURCES: Final = (
    Source("DMI", "all-smi issue 147, a DGX Spark power-control driver's validation, an owner's baseline (FE)", "A"),
    Source("NVMe", "an owner's baseline (FE) for model and firmware; size as sold; traffic is ours", "B"),
    Source("versions", "each was seen on a real machine of that month; that they go together is ours", "D"),
)


def machine(
    name: str,
    note: str,
    model: Model,
    release: Release,
    load: Load,
    *,
    at: str,
    uptime: int,
    megahertz: Sequence[int] = (),
    held: Callable[[int], int] | None = None,
    **kib: int,
) -> Machine:
    """Return a machine with everything that every Spark has; ConnectX-7 and power drivers are added to it."""
    m = Machine(name, f"Imagined, not recorded. {note}", at, uptime, sources=list(COMMON_SOURCES))
    m.warm = max(load.celsius) > 60
    software(m, release)
    dmi = m.put("/sys/devices/virtual/dmi/id", {**model.dmi, **release.bios})
    m.link("/sys/class/dmi/id", dmi)
    secret = ("product_serial", "product_uuid", "board_serial", "chassis_serial")
    m.errors |= dict.fromkeys((f"{dmi}/{one}" for one in secret), "EACCES")
    firmware = "/sys/firmware/efi/esrt/entries/entry0"
    m.errors |= dict.fromkeys((f"{firmware}/{one}" for one in ("fw_class", "fw_version")), "EACCES")
    cpu(m, load.busy, load.loadavg, megahertz)
    memory(m, release.memory, release.swap, held or (lambda _: load.gpu.held), **kib)
    zones(m, load.celsius)
    root_ports(m)
    nvme(m, model.drive)
    network(m)
    add_gpu(m, load.gpu, release)
    m.directories |= {"/sys/class/power_supply", "/sys/class/powercap"}
    return m


OS_RELEASE: Final = """\
PRETTY_NAME="Ubuntu {version} LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="{version} LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
SUPPORT_URL="https://help.ubuntu.com/"
BUG_REPORT_URL="https://bugs.launchpad.net/ubuntu/"
PRIVACY_POLICY_URL="https://www.ubuntu.com/legal/terms-and-policies/privacy-policy"
UBUNTU_CODENAME=noble
LOGO=ubuntu-logo
"""


def software(m: Machine, release: Release) -> None:
    """Add the kernel's own words and the release files."""
    built = f"#{int(release.kernel.split('-')[1][2:])}-Ubuntu SMP PREEMPT_DYNAMIC"
    tools = "(aarch64-linux-gnu-gcc-13 (Ubuntu 13.3.0-6ubuntu2~24.04.1) 13.3.0, GNU ld (GNU Binutils for Ubuntu) 2.42)"
    m.put(
        "/proc",
        {
            "version": f"Linux version {release.kernel} (buildd@builder) {tools} {built}",
            "cmdline": f"BOOT_IMAGE=/boot/vmlinuz-{release.kernel} root=/dev/nvme0n1p2 ro init_on_alloc=0 console=tty0 "
            "plymouth.ignore-serial-consoles plymouth.use-simpledrm earlycon=uart,mmio32,0x16A00000 console=tty0 "
            "console=ttyS0,921600 crashkernel=1G-:0M quiet splash pci=pcie_bus_safe vt.handoff=7",
            "sys/kernel/osrelease": release.kernel,
            "sys/kernel/ostype": "Linux",
            "sys/kernel/version": built,
            "sys/kernel/arch": "aarch64",
        },
    )
    m.put(
        "/etc",
        {
            "os-release": OS_RELEASE.format(version=release.ubuntu),
            "dgx-release": release.dgx,
            "fastos-release": 'NAME="DGX SPARK FASTOS"\nVERSION="1.91.51"\nBUILD_TYPE="customer"\n',
        },
    )


def founders_edition(
    name: str,
    note: str,
    load: Load,
    release: Release = JULY_2026,
    *,
    at: str = "2026-08-11T10:00:00+00:00",
    uptime: int = 93_784,
    cabled: bool = False,
    **more: Any,
) -> Machine:
    """Return a Founders Edition as NVIDIA ships it: no power driver, ConnectX-7 asleep unless ``cabled``."""
    m = machine(name, note, FOUNDERS_EDITION, release, load, at=at, uptime=uptime, **more)
    m.sources += FE_SOURCES
    if release is not NOVEMBER_2025:
        hotplug(m, cable=cabled)
        m.sources.append(
            Source("ConnectX-7 hot-plug", "NixOS issue 165 for the Spark, owners' notes on debug_state", "A")
        )
    if cabled:
        connectx7(m, cabled=True)
    return m


# The machines


def fe_stock() -> Machine:
    """Imagine the common case: no power driver, ConnectX-7 asleep, one model decoding (§2.3)."""
    m = founders_edition(
        "fe-stock",
        "A Founders Edition as NVIDIA ships it, decoding with a large model: NVML's GPU power is the only power "
        "reading there is, and the ConnectX-7 is asleep for want of a cable.",
        DECODE,
    )
    acpi_device(m, "NVDA8800:00", r"\_SB_.MTEL")
    m.sources += [
        Source("GPU: power, utilisation, temperature, process", "an nvidia-smi table of a 580.159.03 machine", "A"),
        Source("GPU: clock", "2385-2405 MHz while decoding, as a serving post-mortem has it", "A"),
        Source("GPU: event counters", "ollama issue 13552 (580.95.05)", "A"),
    ]
    return m


def fe_idle() -> Machine:
    """Imagine a healthy Founders Edition with ``spbm`` 0.3.0, doing nothing, ConnectX-7 asleep (§8.2, row 7)."""
    m = founders_edition(
        "fe-idle", "A healthy Founders Edition at idle with the spbm 0.3.0 driver; the ConnectX-7 is asleep.", IDLE
    )
    spbm_0_3(m, (25, 17, 6, 0.5, 0.01, 4, 26, 5, 8, 0.1, 18, 18, 26, 27), HEALTHY, IDLE.celsius)
    m.sources += [
        Source("power page: channels, files, idle powers", "spark_hwmon's source and README (0.3.0)", "A"),
        Source("power page: limits, floors", "a power-control driver's validation on two P4242 (26 Sept 2026)", "A"),
        Source("power page: ceilings", "spark_hwmon 0.3.0", "A"),
        Source("power page: temperatures", "deci-Kelvin shown as hundredths of a degree, by two readings of it", "D"),
        Source("power page: pl_level, tj_max_c", "their meaning is not documented", "D"),
    ]
    return m


def fe_gemm() -> Machine:
    """Imagine a Founders Edition pinned at PL1 by a dense GEMM, ConnectX-7 cabled in cage 0 (§8.1, §8.2 row 3)."""
    load = Load(
        (84.25, 78.35, 84.25, 79.05, 82.65, 82.45, 80.15),
        Gpu(71_900, 2190, 97, 82, swing=6, process=(51544, "python3", 46_141)),
        {5: 95, 6: 60, 7: 45, 15: 40, 19: 35},
        "3.42 3.31 2.98 5/618 51603",
    )
    m = founders_edition(
        "fe-gemm",
        "A Founders Edition whose package is pinned at its 140 W limit by matrix products: all is well, and nothing "
        "is left. NVML reads a fifth below the firmware's GPU rail. A cable is in cage 0.",
        load,
        cabled=True,
        uptime=604_800,
    )
    watts = (170.8, 140, 116, 20.6, 1.2, 6, 175, 91.7, 8, 0.1, 139.7, 139.9, 153, 160)
    # Half-way through the timeline the package's register comes round.
    spbm_0_3(m, watts, HEALTHY, load.celsius, pl_level=1, start={"pkg": _REGISTER - 30 * 140_000})
    m.sources += [
        Source("power: NVML, gpu, sys_total, dc_input, cpu_gpu, cpu_p, soc_pkg", "sparkup's table of a GEMM", "C"),
        Source("power: pl1, syspl1", "sparkup's peaks of another run of the same", "B"),
        Source("power: cpu_e, vcore, prereg, dla, pl2, syspl2", "chosen to fit between them", "D"),
        Source("GPU: clock, temperature, event counters", "sparkup, and a clock-lock post-mortem", "B"),
        Source("ConnectX-7: link, RDMA state and rate", "owners' dumps of cabled Sparks", "A"),
        Source("ConnectX-7: traffic", "the ratio of the twins is measured, its pace is ours", "D"),
    ]
    return m


def fe_wedged() -> Machine:
    """Imagine a Founders Edition that its embedded controller holds at 20 W (§8.2 row 6, §8.3), caps visible."""
    m = founders_edition(
        "fe-wedged",
        "A Founders Edition after a failed USB-C power negotiation: limits of 20 and 30 W, the GPU at 99 % and "
        "495 MHz, and no reason shown anywhere. Taking the adapter off cures it, a reboot does not.",
        WEDGE,
        uptime=41_220,
    )
    watts = (28, 19.7, 11.2, 2.2, 0.3, 4, 27.5, 8, 8, 0.1, 19.6, 19.7, 27.8, 28)
    spbm_0_3(m, watts, WEDGED, WEDGE.celsius, pl_level=1)
    m.sources += [
        Source("power: NVML, gpu, sys_total, dc_input; GPU clock, utilisation", "sparkup's table", "C"),
        Source("power: soc_pkg and its other parts", "chosen to fit below the 20 W limit", "D"),
        Source("power page: limits", "a power-control driver's validation on an affected P4242", "A"),
    ]
    return m


def fe_wedged_enodata() -> Machine:
    """Imagine the same fault through ``dgx_spbm_power``, whose published limits answer ENODATA (§3.3, §3.4)."""
    load = replace(WEDGE, gpu=replace(WEDGE.gpu, milliwatts=8_400, megahertz=550, utilization=97))
    m = founders_edition(
        "fe-wedged-enodata",
        "A Founders Edition whose embedded controller never published its limits: the dgx_spbm_power driver says so, "
        "the firmware applies 20 and 30 W. The kernel is one that Kexec Handover takes 9 GiB from.",
        load,
        SEPTEMBER_2026,
        at="2026-09-26T10:00:00+00:00",
        uptime=27_030,
        kho=9_752_000,
    )
    device = platform_device(m, "NVDA8800:00")
    m.bind(device, "platform", "dgx-spbm-power-control", "dgx_spbm_power_control", "0.1.0")
    watts = (28.4, 19.8, 11.7, 2.2, 0.3, 4, 28.9, 8.5, 8, 0.1, 19.7, 19.8, 28.2, 28.4)
    chip = power_page(m, device, "dgx_spbm_power", milliwatts(watts), _ENERGIES)
    status(m, chip, load.celsius, pl_level=1)
    for label, cap in zip(LIMITS, WEDGED, strict=True):
        prefix = f"power{LABELS.index(label) + 1}"
        m.put(chip, {f"{prefix}_cap": cap * 10**6, f"{prefix}_cap_min": 100_000})
        m.errors[f"{chip}/{prefix}_cap_max"] = "ENODATA"
    m.sources += [
        Source("power page: limits, floors, ENODATA", "that driver's source and validation (26 Sept 2026)", "A"),
        Source("power: all channels", "sparkup's table of a wedged box, shifted a little", "D"),
        Source("GPU: clock", "about 550 MHz on the affected machine", "A"),
        Source("memory: CmaTotal 0, CmaFree 9.7 GiB", "NVIDIA/NV-Kernels PR 590 (7.0.0-1018 and -1019)", "A"),
    ]
    return m


def spbm_0_1() -> Machine:
    """Imagine the first driver and firmware: ``pl1`` is a limit, not a power; the NIC is awake (§3.3, §8.2 row 8)."""
    m = founders_edition(
        "spbm-0.1",
        "A Founders Edition of 2025 at idle, with the first spbm driver: what it calls pl1 is the limit, so whoever "
        "plots it sees 140 W at idle. The ConnectX-7 is awake, for hot-plug came later.",
        IDLE,
        NOVEMBER_2025,
        at="2026-02-27T18:00:00+00:00",
    )
    connectx7(m, cabled=False)
    device = acpi_device(m, "NVDA8800:00", r"\_SB_.MTEL")
    m.bind(device, "acpi", "spbm", "spbm")
    measured = {"sys_total": 36_000, "soc_pkg": 22_000, "cpu_gpu": 10_000, "cpu_p": 4_500, "cpu_e": 100, "vcore": 4_000}
    inputs = {"dc_input": 36_500, "gpu_out": 4_800, "gpc_out": 0, "gpu_in": 0, "gpc_in": 0, "sys_in": 0}
    inputs |= {"prereg_in": 8_000, "dla_in": 100, "dla_out": 0}
    limits = {"pl1": 140_000, "pl2": 142_000, "syspl1": 231_000}
    energy = {"pkg": "soc_pkg", "cpu_e": "cpu_e", "cpu_p": "cpu_p", "gpc": "gpc_out", "gpm": "gpu_out"}
    power = measured | {"vddq": 0} | inputs | limits | BUDGETS
    power_page(m, device, "spbm", power, energy, still={*limits, *BUDGETS})
    m.sources += [
        Source("power page: channels, idle powers", "spark_hwmon 0.1.0, source and README", "A"),
        Source("power page: zero channels", "a power investigation that saw them so", "A"),
        Source("power page: budgets", "README of a later version", "D"),
    ]
    return m


def dell_cx7() -> Machine:
    """Imagine a Dell at idle as sbc-bench found it: ConnectX-7 awake, a junk fan, mad clocks (§1.3, §3.1)."""
    dell = Model(
        {
            "sys_vendor": "Dell  Inc.",
            "product_name": "Dell Pro Max with GB10 FCM1253",
            "product_family": "DGX Spark",
            "product_sku": "0DA7",
            "bios_vendor": "Dell Inc.",
            "bios_version": "5.36_1.1.1",
            "bios_date": "09/23/2025",
            "bios_release": "5.36",
        },
        Drive(
            model="ESL04TBTLCZ-27J4-TYN",
            firmware="",
            sectors=7_814_037_168,
            transfers="16.0",
            celsius=(36.85, 36.85),
            limits={"max": 82_850, "min": -5_150, "crit": 84_850},
        ),
    )
    release = replace(NOVEMBER_2025, bios={}, memory=125_446_656, platform="")
    load = Load(
        (40.35, 36.65, 40.35, 35.85, 36.75, 36.75, 38.75), IDLE_GPU, {0: 1, 5: 1, 6: 1}, "0.58 0.25 0.14 1/512 20263"
    )
    # scaling_cur_freq of cpu0…19 as found; no core of it goes beyond 4004.
    claimed = [2210, 2236, 2288, 3250, 2912, 7228, 3198, 3094, 3536, 3432]
    claimed += [3484, 3666, 3276, 3172, 2184, 2964, 3094, 6916, 2418, 3406]
    m = machine(
        "dell-cx7",
        "A Dell Pro Max with GB10 at idle in November 2025: the ConnectX-7 awake without a cable, a fan that "
        "always reads 2 RPM, clocks of 7 GHz, and no power driver.",
        dell,
        release,
        load,
        at="2025-11-22T06:18:21+00:00",
        uptime=37_260,
        megahertz=claimed,
        swapped=512,
    )
    connectx7(m, cabled=False)
    fan = f"{ACPI}/LNXSYBUS:00/PNP0C0B:00"
    m.put(fan, {"hid": "PNP0C0B"})
    m.hwmon(fan, "acpi_fan", {"fan1_input": 2, "power1_input": 5000})
    acpi_device(m, "NVDA8800:00", r"\_SB_.MTEL")
    m.sources += [
        Source(
            "DMI, drive, clocks, temperatures, fan, swap, load",
            "sbc-bench's dump of a Dell Pro Max FCM1253 (results/fcm1253.txt, 22 Nov 2025)",
            "A",
        ),
        Source("drive: firmware, PCI id", "not in the dump, so left out", "D"),
        Source("GPU: power, clock", "an idle GB10 of the same driver", "D"),
        Source("VBIOS", "as of a Founders Edition of the time", "D"),
    ]
    return m


def gx10_asleep() -> Machine:
    """Imagine an idle ASUS GX10, ConnectX-7 gone by hot-plug (§6.1, §6.2)."""
    asus = Model(
        {
            "sys_vendor": "ASUSTeK COMPUTER INC.",
            "product_name": "GX10",
            "product_family": "DGX Spark",
            "product_version": "5.36_GX10DGX",
            "board_name": "GX10",
        },
        Drive("NVMe 1 TB (imagined)", "IMAGINED", 1_953_525_168, "16.0", (38.85, 38.85)),
    )
    release = Release(
        kernel="6.17.0-1032-nvidia",
        driver="580.178.04",
        ubuntu="24.04.4",
        bios={"bios_version": "GX10DGX.0105.2026.0505.1153"},
        vbios="9A.0B.25.00.00",
        memory=127_535_084,
        updates=(
            ("7.3.1", "Thu Jan 15 19:07:36 CET 2026"),
            ("7.4.0", "Mon Feb  2 12:00:00 CET 2026"),
            ("7.5.0", "Sat Apr  4 12:00:00 CEST 2026"),
            ("7.6.0", "mer. 16 sept. 2026 17:08:05 CEST"),
        ),
        platform="GX10",
        swap=33_554_428,
    )
    load = replace(
        IDLE,
        celsius=(39.45, 38.65, 39.45, 38.55, 38.95, 38.45, 39.05),
        gpu=replace(IDLE_GPU, milliwatts=4_100, celsius=38, reasons=0x4),
    )
    m = machine(
        "gx10-asleep",
        "An idle ASUS Ascent GX10 whose ConnectX-7 is off the bus to save power, as it is by default without a cable: "
        "no fault. NVML gives a power cap as the reason for its low clocks, which means nothing at idle.",
        asus,
        release,
        load,
        at="2026-10-03T09:00:00+00:00",
        uptime=1_382_400,
    )
    hotplug(m, cable=False)
    acpi_device(m, "NVDA8800:00", r"\_SB_.MTEL")
    m.sources += [
        Source("DMI, dgx-release, memory, swap, driver, VBIOS", "a GB10 doctor's reference GX10 (3 Oct 2026)", "A"),
        Source("dgx-release: hours of 7.4.0 and 7.5.0", "the days are known, the hours not", "D"),
        Source("drive: model, firmware", "placeholders; its size is that of a 1 TB drive", "D"),
        Source("GPU: reason 0x4 at idle", "one report of an idle GB10", "C"),
    ]
    return m


_LOST, _UNLOADED, _BACK = 20, 30, 60


def driver_lost() -> Machine:
    """Imagine that NVML fails on the way: GPU lost at 20 s, driver unloaded at 30 s, all well again at 60 s (§2.5)."""
    before = Gpu(38_200, 2395, 61, 63, swing=1, process=(22018, "llama-server", 12_288))
    after = replace(IDLE_GPU, celsius=before.celsius)
    load = Load((64.35, 59.05, 64.35, 60.25, 62.85, 63.45, 61.95), before, {5: 6, 15: 2}, "0.31 0.28 0.25 1/549 22050")

    def held(t: int) -> int:
        return before.held if t < _LOST else 0

    m = founders_edition(
        "driver-lost",
        "A Founders Edition that loses its GPU: at 20 s every call says GPU_IS_LOST, from 30 to 60 s no driver is "
        "loaded, then it is back with new counters. Its server died with it.",
        load,
        held=held,
    )
    acpi_device(m, "NVDA8800:00", r"\_SB_.MTEL")
    m.seconds = 90

    def gpu(t: int) -> Calls:
        if t >= _BACK:
            return calls(after, JULY_2026, t - _BACK, loaded=0)
        healthy = calls(before, JULY_2026, t, m.uptime)
        if t < _LOST:
            return healthy
        lost = {"error": "GPU_IS_LOST"}
        # Fields fail one by one, for a timeline merges them one by one.
        return dict.fromkeys(healthy, lost) | {"fields": dict.fromkeys(healthy["fields"], lost)}

    def driver(t: int) -> Files:
        gone = _UNLOADED <= t < _BACK
        return {
            "/proc/driver/nvidia/version": None if gone else JULY_2026.nvrm,
            "/sys/module/nvidia/version": None if gone else JULY_2026.driver,
            "/proc/22018/comm": "llama-server" if t < _LOST else None,
        }

    m.gpu = gpu
    m.move(driver)
    m.events = [(_UNLOADED, {"nvml": {"init": "DRIVER_NOT_LOADED"}}), (_BACK, {"nvml": {"init": "SUCCESS"}})]
    m.sources.append(Source("the failure", "its calls' codes are as NVML documents them; its times are ours", "D"))
    return m


def spbm_0_2() -> Machine:
    """Imagine the second driver: still limits as inputs, averages under names of their own (§3.3)."""
    m = founders_edition("spbm-0.2", "A Founders Edition at idle with the spbm 0.2.0 driver.", IDLE)
    device = acpi_device(m, "NVDA8800:00", r"\_SB_.MTEL")
    m.bind(device, "acpi", "spbm", "spbm")
    averages = {"ewma_pl1": 18_000, "ewma_pl2": 18_000, "ewma_syspl1": 26_000, "ewma_syspl2": 27_000}
    power = milliwatts((25, 17, 6, 0.5, 0.01, 4, 26, 5, 8, 0.1, *HEALTHY)) | BUDGETS | averages
    chip = power_page(m, device, "spbm", power, _ENERGIES, still={*LIMITS, *BUDGETS})
    hottest, *others = decikelvin(IDLE.celsius, 0)
    labels = (_TEMPERATURES[0], "tj_max_c", *_TEMPERATURES[1:], "dla")
    for number, (label, word) in enumerate(zip(labels, (hottest, 4, *others, _UNPOWERED), strict=True), 1):
        m.put(chip, {f"temp{number}_label": label, f"temp{number}_input": word * 10})
    m.put(chip, {"prochot": 1, "pl_level": 0})
    m.sources.append(Source("power page", "source and README of spark_hwmon 0.2.0, as a fork keeps them", "A"))
    return m


def aien() -> Machine:
    """Imagine the research reader: five powers, five energies, each with the firmware's overflow flag (§3.3)."""
    m = founders_edition(
        "aien",
        "A Founders Edition at idle with the aien_spbm reader.",
        IDLE,
        SEPTEMBER_2026,
        at="2026-09-28T10:00:00+00:00",
        uptime=10_514,
    )
    device = platform_device(m, "NVDA8800:00")
    m.bind(device, "platform", "aien_spbm_readonly", "aien_spbm")
    power = {"sys_total": 27_400, "soc_pkg": 18_700, "cpu_e": 10, "cpu_p": 500, "gpu": 5_000}
    energy = {"pkg": "soc_pkg", "cpu_e": "cpu_e", "cpu_p": "cpu_p", "gpc_unverified": "", "gpm": "gpu"}
    chip = power_page(m, device, "aien_spbm", power, energy)
    m.put(chip, {f"energy{number}_overflow_raw": 0 for number in range(1, len(energy) + 1)})
    m.sources.append(Source("power page", "that reader's source; its package counter after 10514 s", "A"))
    return m


SHIPPED: Final[Mapping[str, Callable[[], Machine]]] = {
    "fe-stock": fe_stock,
    "fe-idle": fe_idle,
    "fe-gemm": fe_gemm,
    "fe-wedged": fe_wedged,
    "fe-wedged-enodata": fe_wedged_enodata,
    "spbm-0.1": spbm_0_1,
    "dell-cx7": dell_cx7,
    "gx10-asleep": gx10_asleep,
    "driver-lost": driver_lost,
}
EXTRA: Final[Mapping[str, Callable[[], Machine]]] = {"spbm-0.2": spbm_0_2, "aien": aien}


def build(name: str) -> Machine:
    """Return one machine of `SHIPPED` or `EXTRA`, newly imagined."""
    return {**SHIPPED, **EXTRA}[name]()


def main() -> None:
    """Write the archives of the shipped machines."""
    parser = argparse.ArgumentParser(description="Write the built-in machines.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all by default: {', '.join(SHIPPED)}")
    DEMOS.mkdir(exist_ok=True)
    for name in parser.parse_args().names or SHIPPED:
        path = DEMOS / f"{name}.tar.gz"
        path.write_bytes(archive(build(name)))
        sys.stdout.write(f"{path}: {path.stat().st_size / 1000:.1f} kB\n")


if __name__ == "__main__":
    main()
