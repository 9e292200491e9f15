"""The GPU, through NVML.

Asked for is what works on a GB10, and nothing that answers there without meaning: not the PCIe link (reads Gen1 x1
on a GPU that sits on NVLink-C2C), not memory utilisation (0 or noise), not fan, ECC or memory clock. Powers come in
milliwatts, energy in millijoules since the driver was loaded, clocks in megahertz, event counters in nanoseconds.

https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from typing import Any, Final

from spark_agent.collectors import (
    Absence,
    Fact,
    Host,
    Item,
    Kind,
    NoData,
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
    once,
    state,
)
from spark_agent.collectors._nvml import Ask
from spark_agent.collectors._power import REGISTERS

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
    "Why the clocks are where they are. On a GB10 neither a reason nor the lack of one is evidence: none shows while "
    "the firmware throttles, and a power cap may show at idle.",
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
    "18–44 % below the firmware's GPU rail under load. window=average: mean of about 1 s (before Ampere, and on a "
    "GA100, of this moment); instant: now.",
    labels=("window",),
    scope=Scope.GPU_NVML,
    bounds=(0, 3000),
)
LIMIT: Final = Quantity(
    GPU,
    "limit_watts",
    Unit.WATT,
    "nvmlDeviceGetEnforcedPowerLimit",
    "Power limit that the driver enforces on the GPU. Not supported on a GB10, whose GPU shares the SoC's.",
    bounds=(1, 3000),
    inventory=True,
    metric="gpu_power_limit_watts",
)
ENERGY: Final = Quantity(
    REGISTERS,
    Scope.GPU_NVML,
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
    "Memory of the GPU's own. A GB10 has none: it shares the machine's.",
    inventory=True,
    bounds=(1, 1e15),
)
MEMORY_USED: Final = Quantity(
    GPU,
    "memory_used_bytes",
    Unit.BYTE,
    "nvmlDeviceGetMemoryInfo used",
    "Memory of the GPU's own in use.",
    bounds=(0, 1e15),
)
PROCESS_MEMORY_SUM: Final = Quantity(
    GPU,
    "process_memory_bytes",
    Unit.BYTE,
    "nvmlDeviceGetComputeRunningProcesses, nvmlDeviceGetGraphicsRunningProcesses",
    "Memory that all processes hold through the GPU; has no capacity of its own on a GB10.",
    bounds=(0, 1e15),
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
    0x200: "board_limit",
    0x400: "reliability",
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

# nvml.h: NVML_DEVICE_ARCH_UNKNOWN, NVML_PSTATE_UNKNOWN, NVML_VALUE_NOT_AVAILABLE
_UNKNOWN_ARCHITECTURE: Final = 2**32 - 1
_UNKNOWN_STATE: Final = 32
_NOT_AVAILABLE: Final = 2**64 - 1

# An H200's driver works 3 to 5 ms, busily, for the energy counter and half a millisecond for each of two others, where
# all else takes microseconds (driver 580.159.04, 2026-11-22).
_COUNTERS_SECONDS: Final = 10.0

_BUS_ID: Final = re.compile(r"([0-9a-f]{1,8}):([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])")


_AT_EACH_VISIT: Final = (
    ("nvmlDeviceGetPerformanceState",),
    ("nvmlDeviceGetUtilizationRates",),
    ("nvmlDeviceGetTemperature", "GPU"),
    ("nvmlDeviceGetClockInfo", "GRAPHICS"),
    ("nvmlDeviceGetClockInfo", "SM"),
    ("nvmlDeviceGetCurrentClocksEventReasons",),
    ("nvmlDeviceGetMemoryInfo",),
    ("nvmlDeviceGetFieldValues", str(_POWER_AVERAGE), str(_POWER_INSTANT)),
    ("nvmlDeviceGetPowerUsage",),
    ("nvmlDeviceGetComputeRunningProcesses",),
    ("nvmlDeviceGetGraphicsRunningProcesses",),
)


def read(host: Host) -> Iterator[Item]:
    """Yield all that NVML says about each GPU."""
    nvml = host.nvml
    try:
        count = nvml.count()
    except NvmlError as error:
        raise NoData(error.reason, error.detail) from error
    if count < 1:
        raise NoData(Reason.NO_DEVICE, "the NVIDIA driver answers, but reports no GPU")
    for device in range(count):
        # A session that is new may be one with another driver.
        yield from host.keep(_identity, device, nvml.session)
        ask = nvml.ask(device, *_AT_EACH_VISIT)
        condition = list(_condition(ask, device))
        yield from condition
        yield from _power(ask, device)
        yield from host.every(_COUNTERS_SECONDS, _counters, device, nvml.session)
        is_busy = any(isinstance(item, Reading) and item.of is UTILIZATION and item.value > 0 for item in condition)
        yield from _processes(host, ask, device, is_busy=is_busy)


def _identity(host: Host, device: int, _session: int) -> Iterator[Item]:
    gpu = str(device)
    call = host.nvml.call
    ask = host.nvml.ask(device)
    yield state(NAME, lambda: parse_text(ask("nvmlDeviceGetName")), gpu)
    yield state(ARCHITECTURE, lambda: parse_architecture(ask("nvmlDeviceGetArchitecture")), gpu)
    yield state(COMPUTE_CAPABILITY, lambda: parse_capability(ask("nvmlDeviceGetCudaComputeCapability")), gpu)
    yield state(DRIVER, lambda: parse_text(call("nvmlSystemGetDriverVersion")), gpu)
    yield state(NVML_VERSION, lambda: parse_text(call("nvmlSystemGetNVMLVersion")), gpu)
    yield state(CUDA, lambda: parse_cuda_version(call("nvmlSystemGetCudaDriverVersion_v2")), gpu)
    yield state(VBIOS, lambda: parse_text(ask("nvmlDeviceGetVbiosVersion")), gpu)
    yield state(GSP, lambda: parse_text(ask("nvmlDeviceGetGspFirmwareVersion")), gpu)
    yield state(PCI, lambda: parse_bus_id(ask("nvmlDeviceGetPciInfo")["busId"]), gpu)
    yield state(UUID, lambda: parse_text(ask("nvmlDeviceGetUUID")), gpu)
    yield state(PERSISTENCE, lambda: parse_switch(ask("nvmlDeviceGetPersistenceMode")), gpu)
    yield state(C2C, lambda: parse_switch(ask("nvmlDeviceGetC2cModeInfoV")["isC2cEnabled"]), gpu)
    yield state(ADDRESSING, lambda: parse_addressing_mode(ask("nvmlDeviceGetAddressingMode")), gpu)
    yield state(DISPLAY, lambda: parse_switch(ask("nvmlDeviceGetDisplayActive")), gpu)
    yield measure(CORES, lambda: parse_number(ask("nvmlDeviceGetNumGpuCores")), gpu)
    for clock in ("GRAPHICS", "SM"):
        yield measure(MAX_CLOCK, partial(_clock, ask, "nvmlDeviceGetMaxClockInfo", clock), gpu, (clock.lower(),))
    yield measure(DEFAULT_CLOCK, partial(_clock, ask, "nvmlDeviceGetDefaultApplicationsClock", "GRAPHICS"), gpu)
    for name in ("SHUTDOWN", "SLOWDOWN", "GPU_MAX"):
        yield measure(THRESHOLD, partial(_threshold, ask, name), gpu, (name.lower(),))
    yield measure(LIMIT, lambda: parse_number(ask("nvmlDeviceGetEnforcedPowerLimit")) / 1000, gpu)


def _clock(ask: Ask, function: str, clock: str) -> float:
    """Return a clock in hertz; NVML gives megahertz."""
    return parse_number(ask(function, clock)) * 1e6


def _threshold(ask: Ask, name: str) -> float:
    return parse_number(ask("nvmlDeviceGetTemperatureThreshold", name))


def _condition(ask: Ask, device: int) -> Iterator[Item]:
    gpu = str(device)
    yield state(PSTATE, lambda: parse_performance_state(ask("nvmlDeviceGetPerformanceState")), gpu)
    yield measure(UTILIZATION, lambda: parse_number(ask("nvmlDeviceGetUtilizationRates")["gpu"]) / 100, gpu)
    yield measure(TEMPERATURE, lambda: parse_number(ask("nvmlDeviceGetTemperature", "GPU")), gpu)
    for clock in ("GRAPHICS", "SM"):
        yield measure(CLOCK, partial(_clock, ask, "nvmlDeviceGetClockInfo", clock), gpu, (clock.lower(),))
    yield state(EVENTS, lambda: parse_event_reasons(_event_reasons(ask)), gpu)
    memory = cache(partial(_own_memory, ask))
    yield measure(MEMORY_TOTAL, lambda: parse_number(memory()["total"]), gpu)
    yield measure(MEMORY_USED, lambda: parse_number(memory()["used"]), gpu)


def _own_memory(ask: Ask) -> Any:
    memory = ask("nvmlDeviceGetMemoryInfo")
    # Every owner saw NOT_SUPPORTED here, but two tools expect a driver that answers with the machine's memory.
    with suppress(NvmlError):
        if "GB10" in str(ask("nvmlDeviceGetName")).split():
            raise Unavailable(Reason.NOT_SUPPORTED, "a GB10 shares the machine's memory, and has none of its own")
    return memory


def _event_reasons(ask: Ask) -> Any:
    try:
        return ask("nvmlDeviceGetCurrentClocksEventReasons")
    except NvmlError as error:
        if error.reason is not Reason.NOT_SUPPORTED:
            raise
        # Its name before driver 535.
        return ask("nvmlDeviceGetCurrentClocksThrottleReasons")


def _power(ask: Ask, device: int) -> Iterator[Item]:
    gpu = str(device)
    field = _fields(ask, _POWER_AVERAGE, _POWER_INSTANT)
    average = measure(POWER, lambda: parse_number(ask("nvmlDeviceGetPowerUsage")) / 1000, gpu, ("average",))
    if isinstance(average, Absence):
        source = "nvml nvmlDeviceGetFieldValues NVML_FI_DEV_POWER_AVERAGE"
        by_field = measure(POWER, lambda: field(_POWER_AVERAGE) / 1000, gpu, ("average",), source)
        average = by_field if isinstance(by_field, Reading) else average
    yield average
    yield measure(
        POWER,
        lambda: field(_POWER_INSTANT) / 1000,
        gpu,
        ("instant",),
        "nvml nvmlDeviceGetFieldValues NVML_FI_DEV_POWER_INSTANT",
    )


def _counters(host: Host, device: int, _session: int) -> Iterator[Item]:
    gpu = str(device)
    ask = host.nvml.ask(device)
    field = _fields(ask, _TOTAL_ENERGY, *_EVENT_FIELDS)
    energy = measure(ENERGY, lambda: field(_TOTAL_ENERGY) / 1000, gpu)
    if isinstance(energy, Absence):
        function = "nvmlDeviceGetTotalEnergyConsumption"
        energy = measure(ENERGY, lambda: parse_number(ask(function)) / 1000, gpu, source=f"nvml {function}")
    yield energy
    for id_, reason in _EVENT_FIELDS.items():
        yield measure(EVENT_SECONDS, partial(_seconds, field, id_), gpu, (reason,))


def _seconds(field: Callable[[int], float], id_: int) -> float:
    return field(id_) / 1e9


def _fields(ask: Ask, *ids: int) -> Callable[[int], float]:
    """Ask for field values in one call; what is returned gives one of them, or fails as the call did."""
    values = once(lambda: ask("nvmlDeviceGetFieldValues", *map(str, ids)))

    def field(id_: int) -> float:
        found = values()
        if str(id_) not in found:
            raise Unavailable(Reason.NOT_SUPPORTED, f"nvmlDeviceGetFieldValues {id_}")
        return parse_number(found[str(id_)])

    return field


def _processes(host: Host, ask: Ask, device: int, *, is_busy: bool) -> Iterator[Item]:
    gpu = str(device)
    kinds: dict[int, dict[str, None]] = {}
    memory: dict[int, Any] = {}
    failed: NvmlError | None = None
    for kind in ("Compute", "Graphics"):
        function = f"nvmlDeviceGet{kind}RunningProcesses"
        try:
            for process in ask(function):
                pid = parse_pid(process["pid"])
                kinds.setdefault(pid, {})[kind.lower()] = None
                # One process may be listed in both; its memory is the same memory, and one of them may not know it.
                if memory.get(pid) in (None, _NOT_AVAILABLE):
                    memory[pid] = process.get("usedGpuMemory")
        except NvmlError as error:
            failed = error
        except (TypeError, ValueError, LookupError) as error:
            failed = NvmlError("GARBAGE", f"{function}: {error!r}"[:120])
    held: list[float] = []
    for pid in sorted(kinds):
        entity = f"{gpu}/{pid}"
        yield state(PROCESS_NAME, partial(host.processes.name, pid), entity)
        yield Fact(PROCESS_KIND, " and ".join(kinds[pid]), entity)
        item = measure(PROCESS_MEMORY, partial(parse_process_memory, memory[pid]), entity)
        if isinstance(item, Reading):
            held.append(item.value)
        yield item

    def total() -> float:
        if failed and (not kinds or failed.reason is not Reason.NOT_SUPPORTED):
            raise failed
        if len(held) < len(kinds):
            raise Unavailable(Reason.NO_DATA, f"NVML gives it for {len(held)} of {len(kinds)} processes")
        if is_busy and not kinds:
            raise Unavailable(
                Reason.NO_DATA,
                "the GPU is busy, but no process is listed, as in a container without the host's PID namespace",
            )
        return sum(held)

    yield measure(PROCESS_MEMORY_SUM, total, gpu, quality=Quality.DERIVED)


def parse_number(value: Any) -> float:
    """Take a number that NVML gave; anything else is garbage."""
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"not a number: {value!r}"[:80])


def parse_whole(value: Any) -> int:
    """Take a whole number from 0 up, as NVML's enumerations, versions and masks are."""
    number = parse_number(value)
    if number < 0 or number != int(number):
        raise ValueError(f"not a whole number: {value!r}"[:80])
    return int(number)


def parse_switch(value: Any) -> bool:
    """Take an ``nvmlEnableState_t``."""
    if (number := parse_whole(value)) > 1:
        raise ValueError(f"neither on nor off: {value!r}"[:80])
    return number == 1


def parse_text(value: Any) -> str:
    """Take a text that NVML gave; anything else is garbage."""
    if not isinstance(value, str):
        raise ValueError(f"not a text: {value!r}"[:80])
    return value.strip()


def parse_pid(value: Any) -> int:
    """Take the number of a process."""
    if not 0 < (number := parse_whole(value)) < 2**31:
        raise ValueError(f"not a process: {value!r}"[:80])
    return number


def parse_process_memory(value: Any) -> float:
    """Take the bytes that a process holds; NVML may not know them."""
    if value in (None, _NOT_AVAILABLE):
        raise Unavailable(Reason.NO_DATA, "NVML does not say how much")
    return parse_number(value)


def parse_architecture(value: Any) -> str:
    """Name an ``NVML_DEVICE_ARCH_*``; one that is newer than this agent keeps its number."""
    number = parse_whole(value)
    if number == _UNKNOWN_ARCHITECTURE:
        raise Unavailable(Reason.NO_DATA, "newer than this NVML")
    return ARCHITECTURES.get(number, f"architecture {number}")


def parse_addressing_mode(value: Any) -> str:
    """Name an ``nvmlDeviceAddressingModeType_t``; one that is newer than this agent keeps its number."""
    number = parse_whole(value)
    return ADDRESSING_MODES.get(number, f"mode {number}")


def parse_performance_state(value: Any) -> str:
    """Turn 8 into ``P8``."""
    number = parse_whole(value)
    if number == _UNKNOWN_STATE:
        raise Unavailable(Reason.NO_DATA, "NVML does not know it")
    if number > 15:
        raise ValueError(f"not a performance state: {value!r}"[:80])
    return f"P{number}"


def parse_capability(value: Any) -> str:
    """Turn ``[12, 1]`` into ``12.1``."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"not a compute capability: {value!r}"[:80])
    return ".".join(str(parse_whole(part)) for part in value)


def parse_cuda_version(value: Any) -> str:
    """Turn 13020 into ``13.2``: 1000 × major + 10 × minor."""
    number = parse_whole(value)
    return f"{number // 1000}.{number % 1000 // 10}"


def parse_bus_id(value: Any) -> str:
    """Turn NVML's ``0000000F:01:00.0`` into sysfs' ``000f:01:00.0``."""
    found = _BUS_ID.fullmatch(parse_text(value).lower())
    if not found:
        raise ValueError(f"not a PCI address: {value!r}"[:80])
    return f"{int(found[1], 16):04x}:{found[2]}"


def parse_event_reasons(value: Any) -> tuple[str, ...]:
    """Name the bits that are set; one that is newer than this agent keeps its number."""
    bits = parse_whole(value)
    known = tuple(name for bit, name in EVENT_REASONS.items() if bits & bit)
    unknown = bits & ~sum(EVENT_REASONS)
    return (*known, f"0x{unknown:x}") if unknown else known
