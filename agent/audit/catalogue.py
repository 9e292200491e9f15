"""What the metrics of the field cover: which of them is the GPU alone, which the box; data, each row with its source.

A metric has an extent (what of the machine its watts or joules are), a unit, a kind and a role. Extents contain one
another: a part is never the whole. Where a name is in no row, `guess` reads what the name itself says; a name that
says nothing clear stays unknown, which is neither right nor wrong.

https://github.com/NVIDIA/dcgm-exporter and the others named in each row.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Final


class Extent(StrEnum):
    """What of a machine a metric's watts or joules cover, as far as its name and exporter tell."""

    WALL = "wall"
    DC_INPUT = "dc_input"
    SYSTEM = "system"
    MODULE = "module"
    SOC = "soc"
    CPU_GPU = "cpu_gpu"
    CPU = "cpu"
    CORES = "cores"
    GPU = "gpu"
    MEMORY = "memory"
    RAIL = "rail"
    REST = "rest"
    #: What a tool attributes to a container, a pod, a process: shares of something, added up by whoever asks.
    WORKLOAD = "workload"
    #: Several of the above under one name, told apart by a label.
    MIXED = "mixed"
    UNKNOWN = "unknown"

    @property
    def words(self) -> str:
        """What people call it."""
        return _WORDS[self]


_WORDS: Final = {
    Extent.WALL: "the wall",
    Extent.DC_INPUT: "the adapter's output",
    Extent.SYSTEM: "the system",
    Extent.MODULE: "the module",
    Extent.SOC: "the SoC",
    Extent.CPU_GPU: "CPU and GPU",
    Extent.CPU: "the CPU",
    Extent.CORES: "the CPU's cores",
    Extent.GPU: "the GPU",
    Extent.MEMORY: "memory",
    Extent.RAIL: "one rail",
    Extent.REST: "all but the SoC",
    Extent.WORKLOAD: "a workload's share",
    Extent.MIXED: "several scopes, told apart by a label",
    Extent.UNKNOWN: "unknown",
}

#: What each extent is a part of. DLA, VCORE and the like are rails of the SoC.
_INSIDE: Final = {
    Extent.CORES: Extent.CPU,
    Extent.CPU: Extent.CPU_GPU,
    Extent.GPU: Extent.CPU_GPU,
    Extent.CPU_GPU: Extent.SOC,
    Extent.RAIL: Extent.SOC,
    Extent.SOC: Extent.MODULE,
    Extent.MODULE: Extent.SYSTEM,
    Extent.MEMORY: Extent.SYSTEM,
    Extent.REST: Extent.SYSTEM,
    Extent.SYSTEM: Extent.DC_INPUT,
    Extent.DC_INPUT: Extent.WALL,
}

#: Extents that are less than a machine.
PARTS: Final = frozenset(
    (Extent.MODULE, Extent.SOC, Extent.CPU_GPU, Extent.CPU, Extent.CORES, Extent.GPU, Extent.MEMORY, Extent.RAIL)
)
#: Extents that are a machine, or more.
WHOLES: Final = frozenset((Extent.SYSTEM, Extent.DC_INPUT, Extent.WALL))


def is_inside(part: Extent, whole: Extent) -> bool:
    """Return whether one extent is a part of another, and not the same."""
    above = _INSIDE.get(part)
    return above is not None and (above is whole or is_inside(above, whole))


class Dimension(StrEnum):
    """What kind of number an expression gives."""

    POWER = "power"
    ENERGY = "energy"
    RATIO = "ratio"
    #: Money or carbon.
    PRICE = "price"
    #: Work done: tokens, requests, images.
    WORK = "work"
    #: Work for a power or an energy, or the other way round.
    EFFICIENCY = "efficiency"
    OTHER = "other"
    UNKNOWN = "unknown"


class Kind(StrEnum):
    """Whether a metric goes up and down, or only up."""

    GAUGE = "gauge"
    COUNTER = "counter"


class Role(StrEnum):
    """Whether a metric says what is drawn, or what may be."""

    READING = "reading"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: its dimension, and how many of it make one watt or joule."""

    symbol: str
    dimension: Dimension
    factor: float | None


W: Final = Unit("W", Dimension.POWER, 1.0)
MILLIWATT: Final = Unit("mW", Dimension.POWER, 1e3)
MICROWATT: Final = Unit("µW", Dimension.POWER, 1e6)
KILOWATT: Final = Unit("kW", Dimension.POWER, 1e-3)
J: Final = Unit("J", Dimension.ENERGY, 1.0)
MILLIJOULE: Final = Unit("mJ", Dimension.ENERGY, 1e3)
MICROJOULE: Final = Unit("µJ", Dimension.ENERGY, 1e6)
WATT_HOUR: Final = Unit("Wh", Dimension.ENERGY, 1 / 3600)
KILOWATT_HOUR: Final = Unit("kWh", Dimension.ENERGY, 1 / 3.6e6)
#: A power whose unit the exporters do not agree on.
SOME_POWER: Final = Unit("?", Dimension.POWER, None)
SOME_ENERGY: Final = Unit("?", Dimension.ENERGY, None)

#: By the symbol that a user's own catalogue gives.
UNITS: Final = {
    unit.symbol: unit
    for unit in (W, MILLIWATT, MICROWATT, KILOWATT, J, MILLIJOULE, MICROJOULE, WATT_HOUR, KILOWATT_HOUR)
}
UNITS_ALSO: Final = {"uW": MICROWATT, "uJ": MICROJOULE}


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: what it covers, and what is known of it on a GB10."""

    name: str
    extent: Extent
    unit: Unit = W
    exporter: str = ""
    kind: Kind = Kind.GAUGE
    role: Role = Role.READING
    #: Whether its own exporter models it rather than reads it.
    is_estimate: bool = False
    #: Why a GB10 never has it, though its exporter runs there; "" where it has, or may have.
    absent: str = ""
    #: What it really covers on a GB10, where that is less than its name says.
    on_gb10: Extent | None = None
    #: The label that tells its extents apart, and the extent by its value.
    label: str = ""
    extents: Mapping[str, Extent] = field(default_factory=dict, compare=False)
    #: The label that tells several readings of the same watts apart: a sum over it counts them twice.
    copies: str = ""
    #: Whether this is read off the name alone.
    is_guess: bool = False
    #: Whether that name says that it is a machine's, which nobody can tell.
    says_whole: bool = False


#: Labels of the firmware's power page, as the out-of-tree drivers give them to hwmon (spbm, dgx_spbm_power, aien_spbm).
#: pl1 and pl2 are moving averages of the SoC's power in one driver and its limits in another; the SoC's both ways.
HWMON_LABELS: Final = {
    "sys_total": Extent.SYSTEM,
    "soc_pkg": Extent.SOC,
    "cpu_gpu": Extent.CPU_GPU,
    "cpu_p": Extent.CORES,
    "cpu_e": Extent.CORES,
    "vcore": Extent.RAIL,
    "dc_input": Extent.DC_INPUT,
    "gpu": Extent.GPU,
    "gpu_out": Extent.GPU,
    "gpu_in": Extent.GPU,
    "gpm": Extent.GPU,
    "pkg": Extent.SOC,
    "prereg": Extent.RAIL,
    "prereg_in": Extent.RAIL,
    "dla": Extent.RAIL,
    "pl1": Extent.SOC,
    "pl2": Extent.SOC,
    "syspl1": Extent.SYSTEM,
    "syspl2": Extent.SYSTEM,
}
#: The metric whose `label` tells what a sensor of node_exporter's hwmon is.
SENSOR_LABELS: Final = frozenset(("node_hwmon_sensor_label", "node_hwmon_chip_names"))

#: Zones of Intel's and AMD's RAPL; package covers core and uncore, psys covers the platform.
RAPL_ZONES: Final = {
    "package": Extent.CPU,
    "core": Extent.CORES,
    "uncore": Extent.CORES,
    "dram": Extent.MEMORY,
    "psys": Extent.SYSTEM,
}

_NO_LIMIT: Final = "NVML has no power limit on a GB10 (NOT_SUPPORTED; nvidia-smi prints N/A)"
_NO_MODULE: Final = "NVML's module scope is NOT_SUPPORTED on a GB10"
_GRACE_ONLY: Final = "DCGM has it on Grace servers only"


def _rows(exporter: str, extent: Extent, unit: Unit, *names: str, **more: object) -> Iterable[Metric]:
    base = Metric("", extent, unit, exporter)
    for name in names:
        yield replace(base, name=name, **more)  # type: ignore[arg-type]  # **more are fields of Metric


def _own() -> Iterable[Metric]:
    """Yield this agent's own; a test holds that none of its powers and energies is missing."""
    for stem, extent in (
        ("dc_input", Extent.DC_INPUT),
        ("system", Extent.SYSTEM),
        ("soc", Extent.SOC),
        ("cpu_gpu", Extent.CPU_GPU),
        ("cpu", Extent.CORES),
        ("gpu_rail", Extent.GPU),
        ("gpu_nvml", Extent.GPU),
        ("dla", Extent.RAIL),
        ("vcore", Extent.RAIL),
        ("preregulator", Extent.RAIL),
    ):
        copies = "window" if stem == "gpu_nvml" else ""
        yield Metric(f"gb10_{stem}_power_watts", extent, W, "spark-agent", copies=copies)
        if extent is not Extent.RAIL:
            yield Metric(f"gb10_{stem}_energy_joules_total", extent, J, "spark-agent", Kind.COUNTER)
    for bound in ("lower", "upper"):
        name = f"gb10_system_power_estimate_{bound}_watts"
        yield Metric(name, Extent.SYSTEM, W, "spark-agent", is_estimate=True)
    yield Metric("gb10_soc_average_power_watts", Extent.SOC, W, "spark-agent")
    yield Metric("gb10_system_average_power_watts", Extent.SYSTEM, W, "spark-agent")
    yield Metric("gb10_power_unmeasured_watts", Extent.REST, W, "spark-agent")
    # Of several scopes, and never a draw.
    for name in ("gb10_power_headroom_watts", "gb10_system_power_estimate_miss_watts"):
        yield Metric(name, Extent.UNKNOWN, W, "spark-agent")
    limits = {"adapter": Extent.DC_INPUT, "soc_tdp": Extent.SOC, "pl1": Extent.SOC, "pl2": Extent.SOC}
    limits |= {"syspl1": Extent.SYSTEM, "syspl2": Extent.SYSTEM, "rest": Extent.REST, "gpu": Extent.GPU}
    for kind in ("", "_ceiling", "_floor", "_published"):
        name = f"gb10_power_limit{kind}_watts"
        yield Metric(name, Extent.MIXED, W, "spark-agent", role=Role.LIMIT, label="limit", extents=limits)
    yield Metric("gb10_gpu_power_limit_watts", Extent.GPU, W, "spark-agent", role=Role.LIMIT, absent=_NO_LIMIT)


def _dcgm() -> Iterable[Metric]:
    """Yield NVIDIA's DCGM: dcgm_fields.h, https://github.com/NVIDIA/DCGM; names since mid-2026 beside the old ones."""
    exporter = "dcgm-exporter"
    yield from _rows(
        exporter, Extent.GPU, W, "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_POWER_USAGE_INSTANT",
        "DCGM_FI_DEV_BOARD_POWER_WATTS", "DCGM_FI_DEV_BOARD_POWER_RAW_WATTS",
    )  # fmt: skip
    yield from _rows(exporter, Extent.GPU, MILLIJOULE, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", kind=Kind.COUNTER)
    yield from _rows(exporter, Extent.GPU, J, "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", kind=Kind.COUNTER)
    limits = [f"DCGM_FI_DEV_POWER_MGMT_LIMIT{end}" for end in ("", "_MIN", "_MAX", "_DEF")]
    limits += ["DCGM_FI_DEV_ENFORCED_POWER_LIMIT"]
    ends = ("REQUESTED", "MIN", "MAX", "DEFAULT", "ENFORCED")
    limits += [f"DCGM_FI_DEV_BOARD_POWER_LIMIT_{end}_WATTS" for end in ends]
    yield from _rows(exporter, Extent.GPU, W, *limits, role=Role.LIMIT, absent=_NO_LIMIT)
    for name, extent in (("CPU", Extent.CPU), ("SYSIO", Extent.RAIL), ("MODULE", Extent.MODULE)):
        yield from _rows(exporter, extent, W, f"DCGM_FI_DEV_{name}_POWER_WATTS", absent=_GRACE_ONLY)


def _nvidia_smi() -> Iterable[Metric]:
    """Yield utkuozdemir/nvidia_gpu_exporter, and telegraf's nvidia_smi input, whose names have no unit."""
    exporter = "nvidia_gpu_exporter"
    draws = ("power_draw", "power_draw_average", "power_draw_instant")
    yield from _rows(exporter, Extent.GPU, W, *(f"nvidia_smi_{draw}_watts" for draw in draws))
    yield from _rows("telegraf", Extent.GPU, W, *(f"nvidia_smi_{draw}" for draw in draws))
    yield from _rows(exporter, Extent.GPU, J, "nvidia_smi_energy_joules_total", kind=Kind.COUNTER)
    modules = ("module_power_draw_average", "module_power_draw_instant", "module_power_draw")
    names = [f"nvidia_smi_{module}{end}" for module in modules for end in ("_watts", "")]
    yield from _rows(exporter, Extent.MODULE, W, *names, absent=_NO_MODULE)
    kinds = ("", "enforced_", "default_", "max_", "min_", "requested_", "current_")
    names = [f"nvidia_smi_{kind}power_limit{end}" for kind in kinds for end in ("_watts", "")]
    names += [f"nvidia_smi_power_{kind}limit{end}" for kind in kinds[1:] for end in ("_watts", "")]
    yield from _rows(exporter, Extent.GPU, W, *names, role=Role.LIMIT, absent=_NO_LIMIT)


def _gpu_exporters() -> Iterable[Metric]:
    """Yield what the smaller exporters of GPU power say."""
    gpu = Extent.GPU
    yield from _rows("mindprince/nvidia_gpu_prometheus_exporter", gpu, MILLIWATT, "nvidia_gpu_power_usage_milliwatts")
    yield from _rows("Triton Inference Server", gpu, W, "nv_gpu_power_usage")
    yield from _rows("Triton Inference Server", gpu, W, "nv_gpu_power_limit", role=Role.LIMIT, absent=_NO_LIMIT)
    yield from _rows("Triton Inference Server", gpu, J, "nv_energy_consumption", kind=Kind.COUNTER)
    yield from _rows("nv-monitor", gpu, W, "nv_gpu_power_watts", "nv_gpu_power_peak_30m_watts")
    yield from _rows("all-smi", gpu, W, "all_smi_gpu_power_consumption_watts")
    yield from _rows("all-smi", Extent.CPU, W, "all_smi_cpu_power_consumption_watts")
    # Its HELP says chassis; on Linux without a BMC it is the sum of the GPUs (src/api/collection_loop.rs).
    yield from _rows("all-smi", Extent.UNKNOWN, W, "all_smi_chassis_power_watts", on_gb10=gpu)
    yield from _rows("dgx-spark-exporter", gpu, W, "dgx_spark_gpu_power_watts")
    yield from _rows("dgx-spark-exporter", Extent.CPU, W, "dgx_spark_cpu_package_power_watts", is_estimate=True)
    yield from _rows("dgx-spark-exporter", Extent.SYSTEM, W, "dgx_spark_system_power_watts", is_estimate=True)
    yield from _rows("several", gpu, W, "gpu_power_watts", "dgx_gpu_power_draw_watts", "dcgm_power_usage")
    yield from _rows("nvitop-exporter", gpu, W, "gpu_power_usage_W")
    yield from _rows("netdata", gpu, W, "nvidia_smi.gpu_power_draw", "netdata_nvidia_smi_gpu_power_draw_Watts_average")
    amd = ("gpu_power_usage", "gpu_package_power", "gpu_average_package_power", "amd_gpu_power", "amdgpu_power_watts")
    yield from _rows("AMD device-metrics-exporter", gpu, SOME_POWER, *amd)
    yield from _rows("AMD device-metrics-exporter", gpu, SOME_ENERGY, "gpu_energy_consumed", kind=Kind.COUNTER)
    yield from _rows("SLYD SystemMonitor", gpu, W, "system_gpu_power_draw_watts")
    yield from _rows("aitra-meter", gpu, W, "aitra_gpu_power_watts", "aitra_idle_power_watts")
    # A gauge, and the sum of the GPUs, whatever its name says.
    yield from _rows("aitra-meter", gpu, W, "aitra_cluster_power_watts_total")
    yield from _rows("ESNODE", Extent.SYSTEM, W, "esnode_node_power_watts")
    yield from _rows("Alumet", gpu, MILLIWATT, "nvml_instant_power")
    yield from _rows("Alumet", gpu, MILLIJOULE, "nvml_energy_consumption")
    yield from _rows("Alumet", Extent.MODULE, MICROWATT, "grace_instant_power")


def _cpu_and_host() -> Iterable[Metric]:
    """Yield Kepler, Scaphandre, node_exporter and what reads a BMC."""
    for level in ("node", "container", "process", "pod", "vm", "namespace"):
        cpu = Extent.MIXED if level == "node" else Extent.WORKLOAD
        zones = RAPL_ZONES if level == "node" else dict.fromkeys(RAPL_ZONES, Extent.WORKLOAD)
        for state in ("", "active_", "idle_"):
            stem = f"kepler_{level}_cpu_{state}"
            yield Metric(f"{stem}watts", cpu, W, "Kepler", label="zone", extents=zones)
            yield Metric(f"{stem}joules_total", cpu, J, "Kepler", Kind.COUNTER, label="zone", extents=zones)
        gpu = Extent.GPU if level == "node" else Extent.WORKLOAD
        yield Metric(f"kepler_{level}_gpu_watts", gpu, W, "Kepler")
        yield Metric(f"kepler_{level}_gpu_joules_total", gpu, J, "Kepler", Kind.COUNTER)
        for part, extent in (
            ("package", Extent.CPU),
            ("core", Extent.CORES),
            ("uncore", Extent.CORES),
            ("dram", Extent.MEMORY),
            ("platform", Extent.SYSTEM),
            ("other", Extent.REST),
            ("", Extent.WORKLOAD),
        ):
            name = f"kepler_{level}_{part}_joules_total".replace("__", "_")
            own = extent if level == "node" else Extent.WORKLOAD
            yield Metric(name, own, J, "Kepler", Kind.COUNTER)
    # PSYS, or package and DRAM; a GPU that is not in the processor is in neither.
    yield from _rows("Scaphandre", Extent.UNKNOWN, MICROWATT, "scaph_host_power_microwatts")
    yield from _rows("Scaphandre", Extent.UNKNOWN, MICROJOULE, "scaph_host_energy_microjoules", kind=Kind.COUNTER)
    yield from _rows("Scaphandre", Extent.CPU, MICROWATT, "scaph_socket_power_microwatts")
    yield from _rows("Scaphandre", Extent.WORKLOAD, MICROWATT, "scaph_process_power_consumption_microwatts")
    for zone, extent in RAPL_ZONES.items():
        yield Metric(f"node_rapl_{zone}_joules_total", extent, J, "node_exporter", Kind.COUNTER)
    for name, role in (
        ("power_watt", Role.READING),
        ("power_average_watt", Role.READING),
        ("power_input_watt", Role.READING),
        ("power_cap_watt", Role.LIMIT),
        ("power_cap_max_watt", Role.LIMIT),
        ("power_cap_min_watt", Role.LIMIT),
        ("power_max_watt", Role.LIMIT),
        ("power_crit_watt", Role.LIMIT),
    ):
        yield Metric(
            f"node_hwmon_{name}", Extent.MIXED, W, "node_exporter", role=role, label="label", extents=HWMON_LABELS
        )
    yield Metric(
        "node_hwmon_energy_joule_total", Extent.MIXED, J, "node_exporter", Kind.COUNTER, label="label",
        extents=HWMON_LABELS,
    )  # fmt: skip
    yield from _rows("ipmi_exporter", Extent.SYSTEM, W, "ipmi_dcmi_power_consumption_watts")
    yield from _open_telemetry()


def _open_telemetry() -> Iterable[Metric]:
    """Yield OpenTelemetry's hardware conventions, as its own names have them and as Prometheus writes these.

    https://opentelemetry.io/docs/specs/semconv/hardware/: the host's are apart from those of its parts.
    """
    extents = {"gpu": Extent.GPU, "cpu": Extent.CPU, "memory": Extent.MEMORY}
    for power, energy, label in (
        ("hw.power", "hw.energy", "hw.type"),
        ("hw_power_watts", "hw_energy_joules_total", "hw_type"),
    ):
        yield Metric(power, Extent.UNKNOWN, W, "OpenTelemetry", label=label, extents=extents)
        yield Metric(energy, Extent.UNKNOWN, J, "OpenTelemetry", Kind.COUNTER, label=label, extents=extents)
    yield from _rows("OpenTelemetry", Extent.SYSTEM, W, "hw.host.power", "hw_host_power_watts")
    yield from _rows(
        "OpenTelemetry", Extent.SYSTEM, J, "hw.host.energy", "hw_host_energy_joules_total", kind=Kind.COUNTER
    )


@cache
def rows() -> Mapping[str, Metric]:
    """Return the catalogue, by name."""
    every = (*_own(), *_dcgm(), *_nvidia_smi(), *_gpu_exporters(), *_cpu_and_host())
    return {metric.name: metric for metric in every}


# What a name says by itself

_GPU: Final = frozenset(("gpu", "gpus", "amdgpu", "nvgpu", "dcgm", "nvml", "vgpu", "igpu", "dgpu", "rocm", "geforce"))
_NVIDIA: Final = frozenset(("nvidia", "nvidiasmi", "cuda"))
_NVML: Final = frozenset(("dcgm", "nvml", "nvgpu"))
_CPU: Final = frozenset(("cpu", "cpus", "rapl", "package", "pkg", "core", "cores", "processor"))
_SOC: Final = frozenset(("soc",))
_WALL: Final = frozenset(
    ("wall", "ups", "pdu", "outlet", "plug", "mains", "shelly", "tasmota", "kasa", "tapo", "apcupsd", "smartplug")
)
_WHOLE: Final = frozenset(
    ("system", "sys", "host", "node", "server", "chassis", "total", "box", "machine", "cluster", "platform", "psys",
     "rack", "psu")
)  # fmt: skip
_LIMIT: Final = frozenset(
    ("limit", "limits", "cap", "max", "min", "tdp", "rated", "capacity", "budget", "default", "enforced", "threshold",
     "ceiling", "crit", "rating")
)  # fmt: skip
_NO_POWER: Final = frozenset(
    ("state", "status", "violation", "violations", "throttle", "throttled", "throttling", "profile", "factor", "info",
     "cycle", "cycles", "temp", "temperature", "celsius", "errors", "count", "reasons", "mode", "saving", "ratio",
     "percent", "percentage", "utilization", "cost", "price", "usd", "eur", "tokens", "per", "requests", "bytes",
     "seconds", "hours", "carbon", "co2", "emissions", "supply", "management", "efficiency", "on", "off", "enabled",
     "verdict", "source", "resets")
)  # fmt: skip
_POWERS: Final = {
    "w": W, "watt": W, "watts": W, "mw": MILLIWATT, "milliwatt": MILLIWATT, "milliwatts": MILLIWATT,
    "uw": MICROWATT, "microwatt": MICROWATT, "microwatts": MICROWATT, "kw": KILOWATT, "kilowatt": KILOWATT,
    "kilowatts": KILOWATT, "realpower": W, "apower": W, "wattage": W,
}  # fmt: skip
_ENERGIES: Final = {
    "j": J, "joule": J, "joules": J, "mj": MILLIJOULE, "millijoule": MILLIJOULE, "millijoules": MILLIJOULE,
    "uj": MICROJOULE, "microjoule": MICROJOULE, "microjoules": MICROJOULE, "wh": WATT_HOUR, "kwh": KILOWATT_HOUR,
}  # fmt: skip

_PREFIXED: Final = re.compile(r"(?:DCGM_FI_DEV_|nvidia_smi_|node_hwmon_|kepler_node_|all_smi_)\w+$")


def words_of(name: str) -> list[str]:
    """Return the words of a metric's name, small: of ``nodePower_W:sum`` node, power, w, sum."""
    split = re.sub(r"([a-z0-9]{2})([A-Z])", r"\1_\2", name) if not name.isupper() else name
    return [word for word in re.split(r"[^A-Za-z0-9]+", split.lower()) if word]


@lru_cache(maxsize=4096)  # names come from other programs too
def guess(name: str) -> Metric | None:
    """Return what a name that is in no row says by itself; None where it is no power and no energy."""
    words = words_of(name)
    said = frozenset(words)
    unit = next((unit for word in words for unit in (_ENERGIES.get(word), _POWERS.get(word)) if unit), None)
    if unit is None:
        if "power" in said:
            unit = SOME_POWER
        elif "energy" in said:
            unit = SOME_ENERGY
        else:
            return None
    elif unit.symbol in ("W", "J") and said & {"w", "j"} and not said & {"power", "energy", "consumption", "draw"}:
        return None  # a single letter is a unit only beside a word that says of what
    if said & _NO_POWER:
        return None
    kind = Kind.COUNTER if words[-1] == "total" else Kind.GAUGE
    role = Role.LIMIT if said & _LIMIT else Role.READING
    extent = _extent_of(said)
    says_whole = extent is Extent.UNKNOWN and bool(said & _WHOLE)
    if says_whole and role is Role.LIMIT:
        extent = Extent.SYSTEM  # at the least: a rack's is no part's either
    # Whoever exports a limit of NVIDIA's GPUs has it from NVML.
    is_nvml = role is Role.LIMIT and extent is Extent.GPU and said & (_NVML | _NVIDIA)
    absent = _NO_LIMIT if is_nvml else ""
    return Metric(name, extent, unit, "", kind, role, absent=absent, is_guess=True, says_whole=says_whole)


def _extent_of(said: frozenset[str]) -> Extent:
    if said & _GPU:
        return Extent.UNKNOWN if said & _CPU - {"core", "cores", "package", "pkg"} else Extent.GPU
    if said & _WALL:
        return Extent.WALL
    if said & _WHOLE:
        return Extent.UNKNOWN  # it says that it is the box: who knows
    if said & _NVIDIA:
        return Extent.GPU
    if said & _SOC:
        return Extent.SOC
    if said & _CPU:
        return Extent.CPU
    if said & {"dram", "ddr"}:
        return Extent.MEMORY
    return Extent.UNKNOWN


class Catalogue:
    """The rows, with a user's own before them, for one target.

    ``types`` is what a Prometheus says of its metrics (``counter``, ``gauge``); it counts where there is no row.
    """

    def __init__(
        self, own: Iterable[Metric] = (), *, is_gb10: bool = True, types: Mapping[str, str] | None = None
    ) -> None:
        self._own = {metric.name: metric for metric in own}
        self._is_gb10 = is_gb10
        self._types = types or {}

    def find(self, name: str) -> Metric | None:
        """Return what is known of a metric, by row, by the row that its name ends with, or by what the name says."""
        found = self._own.get(name) or rows().get(name)
        if found is None and (prefixed := _PREFIXED.search(name)):
            found = rows().get(prefixed[0])
        if found is None:
            found = guess(name)
            if found is not None and self._types.get(name) in tuple(Kind):
                found = replace(found, kind=Kind(self._types[name]))
        if found is not None and self._is_gb10 and found.on_gb10:
            return replace(found, extent=found.on_gb10)
        return found


# A user's own rows


class CatalogueError(ValueError):
    """What is wrong with a user's own rows, one line."""


_OWN_KEYS: Final = ("scope", "unit", "kind", "role", "estimate")
_OWN_EXTENTS: Final = tuple(extent.value for extent in Extent if extent is not Extent.MIXED)


def own_rows_in(path: Path) -> list[Metric]:
    """Return the metrics that a file has, or raise a `CatalogueError` that names it."""
    try:
        return own_rows(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogueError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise CatalogueError(f"{path}: is no UTF-8") from None
    except CatalogueError as error:
        raise CatalogueError(f"{path}: {error}") from None


def own_rows(text: str) -> list[Metric]:
    """Return the metrics of a TOML text: a table ``[metrics.NAME]`` each, with scope, unit, and if needed the rest."""
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise CatalogueError(str(fault)) from None
    if unknown := sorted(set(read) - {"metrics"}):
        raise CatalogueError(f"unknown key {unknown[0]!r}: a metric is a table [metrics.NAME]")
    tables = read.get("metrics", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise CatalogueError("metrics is no table of tables: [metrics.NAME]")
    return [_own_row(name, table) for name, table in tables.items()]


def _own_row(name: str, table: Mapping[str, object]) -> Metric:
    where = f"[metrics.{name}]"
    if unknown := sorted(set(table) - set(_OWN_KEYS)):
        raise CatalogueError(f"{where} has an unknown key {unknown[0]!r}; known are {', '.join(_OWN_KEYS)}")
    extent = _choice(where, "scope", table.get("scope"), _OWN_EXTENTS)
    unit = (UNITS | UNITS_ALSO)[_choice(where, "unit", table.get("unit"), (*UNITS, *UNITS_ALSO))]
    kind = Kind(_choice(where, "kind", table.get("kind", Kind.GAUGE.value), tuple(Kind)))
    role = Role(_choice(where, "role", table.get("role", Role.READING.value), tuple(Role)))
    is_estimate = table.get("estimate", False)
    if not isinstance(is_estimate, bool):
        raise CatalogueError(f"{where} estimate is {is_estimate!r}, and not true or false")
    return Metric(name, Extent(extent), unit, "own catalogue", kind, role, is_estimate)


def _choice(where: str, key: str, value: object, valid: Iterable[str]) -> str:
    if value is None:
        raise CatalogueError(f"{where} has no {key}; it is one of {', '.join(valid)}")
    if not isinstance(value, str) or value not in set(valid):
        raise CatalogueError(f"{where} {key} is {value!r}, and not one of {', '.join(valid)}")
    return value


# What each extent can reach


@dataclass(frozen=True, slots=True)
class Reach:
    """The most that one machine can draw in an extent, in watts, and how that is known."""

    watts: float
    why: str


#: On a GB10. What is behind a meter at the wall nobody knows. The adapter's and the SoC's are NVIDIA's, the rest
#: owners' (agent/budget_table.py has the sources).
GB10_REACH: Final = {
    Extent.GPU: Reach(140.0, "the GPU shares the SoC's 140 W; its rail was never seen above 114 W"),
    Extent.CPU: Reach(140.0, "the CPU shares the SoC's 140 W"),
    Extent.CORES: Reach(140.0, "the cores share the SoC's 140 W"),
    Extent.CPU_GPU: Reach(142.0, "the SoC is held at 140 W, 142 W in a burst"),
    Extent.SOC: Reach(142.0, "the SoC is held at 140 W, 142 W in a burst"),
    Extent.MODULE: Reach(142.0, "the SoC is held at 140 W, 142 W in a burst"),
    Extent.SYSTEM: Reach(244.0, "the system is held at 231 W, 244 W in a burst; 171 W was the most ever seen"),
    Extent.DC_INPUT: Reach(244.0, "the adapter gives 240 W"),
}

#: Numbers that people take for the power budget of a Spark, and what each is the budget of, in watts.
GB10_BUDGETS: Final = {
    140.0: Extent.SOC,
    142.0: Extent.SOC,
    231.0: Extent.SYSTEM,
    240.0: Extent.DC_INPUT,
    244.0: Extent.SYSTEM,
}
