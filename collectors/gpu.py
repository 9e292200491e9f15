"""The GPU, through NVML.

Asked for is what works on a GB10, and nothing that answers there without meaning: not the PCIe link (reads Gen1 x1
on a GPU that sits on NVLink-C2C), not memory utilisation (0 or noise), not fan, ECC or memory clock. Powers come in
milliwatts, energy in millijoules since the driver was loaded, clocks in megahertz, event counters in nanoseconds.

https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from spark_agent.collectors import (
    Absence,
    Fact,
    Host,
    Item,
    Kind,
    NoData,
    Nvml,
    NvmlError,
    Property,
    Quality,
    Quantity,
    Reading,
    Reason,
    Scope,
    Section,
    Unavailable,
    Unit,
    measure,
    state,
)
from spark_agent.collectors._power import LIMIT

GPU: Final = Section("gpu", "GPUs that NVML reports.", entity="gpu", id_key="index", metric="gpu", numbered=True)
PROCESSES: Final = Section(
    "gpu.processes",
    "Processes that hold a context on the GPU. Empty inside a container without the host's PID namespace.",
    entity="process",
    id_key="pid",
    metric="gpu_process",
    numbered=True,
    within=GPU,
    exported=False,
)

NAME: Final = Property(GPU, "name", "nvmlDeviceGetName", "Product name.")
ARCHITECTURE: Final = Property(GPU, "architecture", "nvmlDeviceGetArchitecture", "GPU architecture.")
COMPUTE_CAPABILITY: Final = Property(
    GPU, "compute_capability", "nvmlDeviceGetCudaComputeCapability", "CUDA compute capability."
)
DRIVER: Final = Property(GPU, "driver", "nvmlSystemGetDriverVersion", "Driver version.")
NVML_VERSION: Final = Property(GPU, "nvml", "nvmlSystemGetNVMLVersion", "Version of libnvidia-ml.")
CUDA: Final = Property(GPU, "cuda", "nvmlSystemGetCudaDriverVersion_v2", "Newest CUDA that the driver supports.")
VBIOS: Final = Property(GPU, "vbios", "nvmlDeviceGetVbiosVersion", "VBIOS version.")
GSP: Final = Property(GPU, "gsp_firmware", "nvmlDeviceGetGspFirmwareVersion", "GSP firmware version.")
PCI: Final = Property(GPU, "pci", "nvmlDeviceGetPciInfo", "PCI address, as sysfs spells it.")
PERSISTENCE: Final = Property(GPU, "persistence_mode", "nvmlDeviceGetPersistenceMode", "Persistence mode.")
C2C: Final = Property(GPU, "c2c_mode", "nvmlDeviceGetC2cModeInfoV", "Whether the GPU is joined by NVLink-C2C.")
ADDRESSING: Final = Property(
    GPU, "addressing_mode", "nvmlDeviceGetAddressingMode", "Addressing mode: HMM, ATS or none."
)
DISPLAY: Final = Property(
    GPU, "display_active", "nvmlDeviceGetDisplayActive", "Whether a display is driven.", inventory=False
)
UUID: Final = Property(GPU, "uuid", "nvmlDeviceGetUUID", "UUID of this GPU.", private=True)
CORES: Final = Quantity(
    GPU, "cuda_cores", Unit.COUNT, "nvmlDeviceGetNumGpuCores", "CUDA cores.", inventory=True, bounds=(1, 1e6)
)

PSTATE: Final = Property(
    GPU, "performance_state", "nvmlDeviceGetPerformanceState", "P0 (fastest) to P15.", inventory=False
)
EVENTS: Final = Property(
    GPU,
    "clock_event_reasons",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "Why the clocks are where they are. Reads empty while the firmware throttles: no reason is no evidence.",
    inventory=False,
)
EVENT_SECONDS: Final = Quantity(
    GPU,
    "clock_event_seconds",
    Unit.SECOND,
    "nvmlDeviceGetFieldValues NVML_FI_DEV_CLOCKS_EVENT_REASON_*",
    "Time that the clocks were held down for a reason. One that stands still is no evidence.",
    kind=Kind.COUNTER,
    labels=("reason",),
    bounds=(0, 1e10),
)
UTILIZATION: Final = Quantity(
    GPU,
    "utilization_ratio",
    Unit.RATIO,
    "nvmlDeviceGetUtilizationRates gpu",
    "Share of the last sample period in which a kernel ran.",
    bounds=(0, 1),
)
TEMPERATURE: Final = Quantity(
    GPU,
    "temperature_celsius",
    Unit.CELSIUS,
    "nvmlDeviceGetTemperature GPU",
    "GPU temperature; on a GB10 in effect that of the whole SoC die.",
    bounds=(-40, 150),
)
THRESHOLD: Final = Quantity(
    GPU,
    "temperature_threshold_celsius",
    Unit.CELSIUS,
    "nvmlDeviceGetTemperatureThreshold",
    "Temperature at which the driver acts. Differs between Sparks and drivers, and is often not there.",
    labels=("threshold",),
    # A GB10 answers 0 for a threshold that it does not have.
    bounds=(1, 150),
    inventory=True,
)
CLOCK: Final = Quantity(
    GPU, "clock_hertz", Unit.HERTZ, "nvmlDeviceGetClockInfo", "Clock now.", labels=("clock",), bounds=(0, 1e10)
)
MAX_CLOCK: Final = Quantity(
    GPU,
    "max_clock_hertz",
    Unit.HERTZ,
    "nvmlDeviceGetMaxClockInfo",
    "Highest clock of the table; a GB10 lists 3003 MHz and never sustains it.",
    labels=("clock",),
    inventory=True,
    bounds=(1, 1e10),
)
DEFAULT_CLOCK: Final = Quantity(
    GPU,
    "default_application_clock_hertz",
    Unit.HERTZ,
    "nvmlDeviceGetDefaultApplicationsClock GRAPHICS",
    "Default applications clock.",
    inventory=True,
    bounds=(1, 1e10),
)
# All-ones is 4294967 W; no GPU of any kind comes near the bound.
POWER: Final = Quantity(
    GPU,
    "nvml_power_watts",
    Unit.WATT,
    "nvml nvmlDeviceGetPowerUsage",
    "Power that NVML gives for the GPU: what nvidia-smi shows. Not the box, not the SoC, and measured by one owner "
    "18–44 % below the firmware's GPU rail under load. window=average: mean of about 1 s; instant: now.",
    labels=("window",),
    scope=Scope.GPU_NVML,
    bounds=(0, 3000),
)
ENERGY: Final = Quantity(
    GPU,
    "nvml_energy_joules",
    Unit.JOULE,
    "nvml nvmlDeviceGetFieldValues NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "Energy that NVML counts for the GPU since the driver was loaded. Blind to what the CPU draws.",
    kind=Kind.COUNTER,
    scope=Scope.GPU_NVML,
    bounds=(0, 1e13),
)
MEMORY_TOTAL: Final = Quantity(
    GPU,
    "memory_total_bytes",
    Unit.BYTE,
    "nvmlDeviceGetMemoryInfo total",
    "Memory of the GPU's own. Not supported on a GB10, which shares the machine's.",
    inventory=True,
    bounds=(1, 1e15),
)
MEMORY_USED: Final = Quantity(
    GPU, "memory_used_bytes", Unit.BYTE, "nvmlDeviceGetMemoryInfo used", "Memory of the GPU's own in use."
)
PROCESS_MEMORY_SUM: Final = Quantity(
    GPU,
    "process_memory_bytes",
    Unit.BYTE,
    "nvmlDeviceGetComputeRunningProcesses, nvmlDeviceGetGraphicsRunningProcesses",
    "Memory that all processes hold through the GPU; has no capacity of its own on a GB10.",
)
PROCESS_NAME: Final = Property(
    PROCESSES, "name", "psutil.Process.name (/proc/PID/comm)", "Command name.", inventory=False
)
PROCESS_KIND: Final = Property(
    PROCESSES, "kind", "nvmlDeviceGet{Compute,Graphics}RunningProcesses", "compute, graphics or both.", inventory=False
)
PROCESS_MEMORY: Final = Quantity(
    PROCESSES,
    "memory_bytes",
    Unit.BYTE,
    "nvmlDeviceGetComputeRunningProcesses usedGpuMemory",
    "Memory that the process holds through the GPU.",
    bounds=(0, 1e15),
)

# nvml.h: NVML_DEVICE_ARCH_*
ARCHITECTURES: Final = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}

# nvml.h: nvmlClocksEventReason*
EVENT_REASONS: Final = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}

# nvml.h: nvmlDeviceAddressingModeType_t
ADDRESSING_MODES: Final = {0: "none", 1: "HMM", 2: "ATS"}

# nvml.h field ids.
_POWER_AVERAGE, _POWER_INSTANT, _TOTAL_ENERGY = 185, 186, 83
_EVENT_FIELDS: Final = {
    74: "sw_power_cap",
    76: "sync_boost",
    269: "sw_thermal_slowdown",
    270: "hw_thermal_slowdown",
    271: "hw_power_brake_slowdown",
}


def read(host: Host) -> Iterator[Item]:
    """Yield all that NVML says about each GPU."""
    nvml = host.nvml
    try:
        count = nvml.count()
    except NvmlError as error:
        raise NoData(error.reason, error.detail) from error
    if not count:
        raise NoData(Reason.NO_DEVICE, "NVML answers, but reports no GPU")
    for device in range(count):
        yield from _identity(nvml, device)
        yield from _condition(nvml, device)
        yield from _power(nvml, device)
        yield from _processes(host, device)


def _identity(nvml: Nvml, device: int) -> Iterator[Item]:
    gpu = str(device)
    call = nvml.call
    yield state(NAME, lambda: parse_text(call("nvmlDeviceGetName", device)), gpu)
    yield state(ARCHITECTURE, lambda: parse_architecture(call("nvmlDeviceGetArchitecture", device)), gpu)
    yield state(COMPUTE_CAPABILITY, lambda: parse_capability(call("nvmlDeviceGetCudaComputeCapability", device)), gpu)
    yield state(DRIVER, lambda: parse_text(call("nvmlSystemGetDriverVersion")), gpu)
    yield state(NVML_VERSION, lambda: parse_text(call("nvmlSystemGetNVMLVersion")), gpu)
    yield state(CUDA, lambda: parse_cuda_version(call("nvmlSystemGetCudaDriverVersion_v2")), gpu)
    yield state(VBIOS, lambda: parse_text(call("nvmlDeviceGetVbiosVersion", device)), gpu)
    yield state(GSP, lambda: parse_text(call("nvmlDeviceGetGspFirmwareVersion", device)), gpu)
    yield state(PCI, lambda: parse_bus_id(call("nvmlDeviceGetPciInfo", device)["busId"]), gpu)
    yield state(UUID, lambda: parse_text(call("nvmlDeviceGetUUID", device)), gpu)
    yield state(PERSISTENCE, lambda: bool(parse_number(call("nvmlDeviceGetPersistenceMode", device))), gpu)
    yield state(C2C, lambda: bool(parse_number(call("nvmlDeviceGetC2cModeInfoV", device)["isC2cEnabled"])), gpu)
    yield state(
        ADDRESSING, lambda: ADDRESSING_MODES[int(parse_number(call("nvmlDeviceGetAddressingMode", device)))], gpu
    )
    yield state(DISPLAY, lambda: bool(parse_number(call("nvmlDeviceGetDisplayActive", device))), gpu)
    yield measure(CORES, lambda: parse_number(call("nvmlDeviceGetNumGpuCores", device)), gpu)
    for clock in ("GRAPHICS", "SM"):
        yield measure(
            MAX_CLOCK, partial(_clock, nvml, "nvmlDeviceGetMaxClockInfo", device, clock), gpu, (clock.lower(),)
        )
    yield measure(
        DEFAULT_CLOCK, partial(_clock, nvml, "nvmlDeviceGetDefaultApplicationsClock", device, "GRAPHICS"), gpu
    )
    for name in ("SHUTDOWN", "SLOWDOWN", "GPU_MAX"):
        yield measure(
            THRESHOLD,
            partial(_threshold, nvml, device, name),
            gpu,
            (name.lower(),),
        )


def _clock(nvml: Nvml, function: str, device: int, clock: str) -> float:
    """Return a clock in hertz; NVML gives megahertz."""
    return parse_number(nvml.call(function, device, clock)) * 1e6


def _threshold(nvml: Nvml, device: int, name: str) -> float:
    return parse_number(nvml.call("nvmlDeviceGetTemperatureThreshold", device, name))


def _condition(nvml: Nvml, device: int) -> Iterator[Item]:
    gpu = str(device)
    call = nvml.call
    yield state(PSTATE, lambda: f"P{int(parse_number(call('nvmlDeviceGetPerformanceState', device)))}", gpu)
    yield measure(UTILIZATION, lambda: parse_number(call("nvmlDeviceGetUtilizationRates", device)["gpu"]) / 100, gpu)
    yield measure(TEMPERATURE, lambda: parse_number(call("nvmlDeviceGetTemperature", device, "GPU")), gpu)
    for clock in ("GRAPHICS", "SM"):
        yield measure(CLOCK, partial(_clock, nvml, "nvmlDeviceGetClockInfo", device, clock), gpu, (clock.lower(),))
    yield state(EVENTS, lambda: parse_event_reasons(_event_reasons(nvml, device)), gpu)
    memory = partial(call, "nvmlDeviceGetMemoryInfo", device)
    yield measure(MEMORY_TOTAL, lambda: parse_number(memory()["total"]), gpu)
    yield measure(MEMORY_USED, lambda: parse_number(memory()["used"]), gpu)


def _event_reasons(nvml: Nvml, device: int) -> Any:
    try:
        return nvml.call("nvmlDeviceGetCurrentClocksEventReasons", device)
    except NvmlError as error:
        if error.reason is not Reason.NOT_SUPPORTED:
            raise
        # Its name before driver 535.
        return nvml.call("nvmlDeviceGetCurrentClocksThrottleReasons", device)


def _power(nvml: Nvml, device: int) -> Iterator[Item]:
    gpu = str(device)
    try:
        fields = nvml.fields(device, (_POWER_AVERAGE, _POWER_INSTANT, _TOTAL_ENERGY, *_EVENT_FIELDS))
        missing: NvmlError | None = None
    except NvmlError as error:
        fields, missing = {}, error

    def field(id_: int) -> float:
        if id_ not in fields:
            raise missing or Unavailable(Reason.NOT_SUPPORTED, f"nvmlDeviceGetFieldValues {id_}")
        return parse_number(fields[id_])

    def seconds(id_: int) -> float:
        return field(id_) / 1e9

    average = measure(
        POWER, lambda: parse_number(nvml.call("nvmlDeviceGetPowerUsage", device)) / 1000, gpu, ("average",)
    )
    if isinstance(average, Absence) and _POWER_AVERAGE in fields:
        source = "nvml nvmlDeviceGetFieldValues NVML_FI_DEV_POWER_AVERAGE"
        average = measure(POWER, lambda: field(_POWER_AVERAGE) / 1000, gpu, ("average",), source)
    yield average
    yield measure(
        POWER,
        lambda: field(_POWER_INSTANT) / 1000,
        gpu,
        ("instant",),
        "nvml nvmlDeviceGetFieldValues NVML_FI_DEV_POWER_INSTANT",
    )
    energy = measure(ENERGY, lambda: field(_TOTAL_ENERGY) / 1000, gpu)
    if isinstance(energy, Absence):
        function = "nvmlDeviceGetTotalEnergyConsumption"
        energy = measure(ENERGY, lambda: parse_number(nvml.call(function, device)) / 1000, gpu, source=f"nvml {function}")
    yield energy
    for id_, reason in _EVENT_FIELDS.items():
        yield measure(EVENT_SECONDS, partial(seconds, id_), gpu, (reason,))
    yield measure(
        LIMIT,
        lambda: parse_number(nvml.call("nvmlDeviceGetEnforcedPowerLimit", device)) / 1000,
        gpu,
        (Scope.GPU_NVML, "nvml"),
        "nvml nvmlDeviceGetEnforcedPowerLimit",
    )


def _processes(host: Host, device: int) -> Iterator[Item]:
    gpu = str(device)
    kinds: dict[int, list[str]] = {}
    memory: dict[int, Any] = {}
    failed: NvmlError | None = None
    for kind in ("Compute", "Graphics"):
        try:
            for process in host.nvml.call(f"nvmlDeviceGet{kind}RunningProcesses", device):
                # One process may be listed in both; its memory is the same memory.
                kinds.setdefault(process["pid"], []).append(kind.lower())
                memory[process["pid"]] = process.get("usedGpuMemory")
        except NvmlError as error:
            failed = error
        except (TypeError, LookupError) as error:
            failed = NvmlError("GARBAGE", f"nvmlDeviceGet{kind}RunningProcesses: {error!r}")
    if failed and not kinds:
        yield Absence(PROCESS_MEMORY_SUM, failed.reason, failed.detail, gpu)
        return
    held = 0.0
    for pid in sorted(kinds):
        entity = f"{gpu}/{pid}"
        yield state(PROCESS_NAME, partial(host.processes.name, pid), entity)
        yield Fact(PROCESS_KIND, " and ".join(kinds[pid]), entity)
        item = measure(PROCESS_MEMORY, partial(parse_number, memory[pid]), entity)
        held += item.value if isinstance(item, Reading) else 0
        yield item
    yield Reading(PROCESS_MEMORY_SUM, held, gpu, quality=Quality.DERIVED)


def parse_number(value: Any) -> float:
    """Take a number that NVML gave; anything else is garbage."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"not a number: {value!r}"[:80])
    return value


def parse_text(value: Any) -> str:
    """Take a text that NVML gave; anything else is garbage."""
    if not isinstance(value, str):
        raise ValueError(f"not a text: {value!r}"[:80])
    return value.strip()


def parse_architecture(value: Any) -> str:
    """Name an ``NVML_DEVICE_ARCH_*``; one that is newer than this agent keeps its number."""
    number = int(parse_number(value))
    return ARCHITECTURES.get(number, f"architecture {number}")


def parse_capability(value: Any) -> str:
    """Turn ``[12, 1]`` into ``12.1``."""
    major, minor = value
    return f"{int(parse_number(major))}.{int(parse_number(minor))}"


def parse_cuda_version(value: Any) -> str:
    """Turn 13020 into ``13.2``: 1000 × major + 10 × minor."""
    number = int(parse_number(value))
    return f"{number // 1000}.{number % 1000 // 10}"


def parse_bus_id(value: Any) -> str:
    """Turn NVML's ``0000000F:01:00.0`` into sysfs' ``000f:01:00.0``."""
    domain, _, rest = parse_text(value).lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"


def parse_event_reasons(value: Any) -> tuple[str, ...]:
    """Name the bits that are set; one that is newer than this agent keeps its number."""
    bits = int(parse_number(value))
    if bits < 0:
        raise ValueError(f"not a bit mask: {bits}")
    known = tuple(name for bit, name in EVENT_REASONS.items() if bits & bit)
    unknown = bits & ~sum(EVENT_REASONS)
    return (*known, f"0x{unknown:x}") if unknown else known
