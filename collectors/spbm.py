"""The firmware's own power page (SPBM, ACPI device NVDA8800), through whichever driver offers it.

NVIDIA ships no driver for it. Several others exist, and the same label does not mean the same thing in all of
them: in ``spbm`` 0.1 and 0.2 the *input* of ``pl1`` is the limit, in 0.3 it is a moving average of the power. So
the driver is told by its name, by its labels and by the presence of ``power*_cap``, and a channel is found by its
label, never by its index (channels without an offset in the firmware's table leave holes).

Powers come in microwatts, energies in microjoules: 32-bit registers of millijoules, which wrap at 2³² mJ.

https://docs.kernel.org/hwmon/sysfs-interface.html, https://github.com/antheas/spark_hwmon,
https://github.com/christopherowen/dgx-spark-power-control
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
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
    Quality,
    Quantity,
    Reason,
    Scope,
    Section,
    Unavailable,
    Unit,
    absent,
    measure,
    parse_integer,
)
from spark_agent.collectors._hwmon import Channels, Chip, chips
from spark_agent.collectors._power import CEILING, FLOOR, LIMIT, PUBLISHED, REGISTERS
from spark_agent.collectors._untrusted import SIGNAL

SPBM: Final = Section("power.spbm", "The driver of the firmware's power page.", metric="spbm")
POWER: Final = Section("power.scopes", "Power by what it covers.", metric="power")

DRIVER: Final = Property(SPBM, "driver", "/sys/class/hwmon/hwmon*/name", "hwmon name of the driver.")
VARIANT: Final = Property(
    SPBM, "variant", "/sys/class/hwmon/hwmon*/power*_label", "Which meaning the driver's channels have."
)

# 1.1 × what each can physically draw; a fallen-off or all-ones register is far above.
_SOC_MOST: Final = 160.0
_SYSTEM_MOST: Final = 265.0


def _power(scope: Scope, metric: str, label: str, most: float, help_: str, core_type: bool = False) -> Quantity:
    return Quantity(
        POWER,
        scope,
        Unit.WATT,
        f"/sys/class/hwmon/hwmon*/power*_input labelled {label}",
        help_,
        labels=("core_type",) if core_type else (),
        scope=scope,
        bounds=(0, most),
        metric=metric,
    )


DC_INPUT: Final = _power(
    Scope.DC_INPUT, "dc_input_power_watts", "dc_input", _SYSTEM_MOST, "Power that enters the board from the adapter."
)
SYSTEM: Final = _power(
    Scope.SYSTEM, "system_power_watts", "sys_total", _SYSTEM_MOST, "Power of the whole system, as the firmware has it."
)
SOC: Final = _power(Scope.SOC, "soc_power_watts", "soc_pkg", _SOC_MOST, "Power of the SoC package: CPU, GPU, fabric.")
CPU_GPU: Final = _power(
    Scope.CPU_GPU, "cpu_gpu_power_watts", "cpu_gpu", _SOC_MOST, "Power of CPU and GPU together, without the rest."
)
CPU_PERFORMANCE: Final = _power(
    Scope.CPU_PERFORMANCE,
    "cpu_power_watts",
    "cpu_p",
    _SOC_MOST,
    "Power of the CPU cores, by core type. Older firmware is known to give wrong values.",
    core_type=True,
)
CPU_EFFICIENCY: Final = _power(
    Scope.CPU_EFFICIENCY, "cpu_power_watts", "cpu_e", _SOC_MOST, CPU_PERFORMANCE.help, core_type=True
)
GPU_RAIL: Final = _power(
    Scope.GPU_RAIL,
    "gpu_rail_power_watts",
    "gpu (gpu_out in spbm 0.1)",
    _SOC_MOST,
    "Power of the GPU's rail, as the firmware has it; one owner measured NVML 18–44 % below it under load.",
)
DLA: Final = _power(Scope.DLA, "dla_power_watts", "dla", _SOC_MOST, "Power of the DLA rail.")
VCORE: Final = _power(Scope.VCORE, "vcore_power_watts", "vcore", _SOC_MOST, "Power of the VCORE rail.")
PREREGULATOR: Final = _power(
    Scope.PREREGULATOR, "preregulator_power_watts", "prereg", _SYSTEM_MOST, "Power into the pre-regulator."
)

SOC_AVERAGE: Final = Quantity(
    POWER,
    "soc_average",
    Unit.WATT,
    "/sys/class/hwmon/hwmon*/power*_input labelled pl1, pl2 (ewma_pl1, ewma_pl2 in spbm 0.2)",
    "Moving average of SoC power that the firmware holds against the limit.",
    labels=("limit",),
    scope=Scope.SOC,
    bounds=(0, _SOC_MOST),
    metric="soc_average_power_watts",
)
SYSTEM_AVERAGE: Final = Quantity(
    POWER,
    "system_average",
    Unit.WATT,
    "/sys/class/hwmon/hwmon*/power*_input labelled syspl1, syspl2 (ewma_syspl1, ewma_syspl2 in spbm 0.2)",
    "Moving average of system power that the firmware holds against the limit.",
    labels=("limit",),
    scope=Scope.SYSTEM,
    bounds=(0, _SYSTEM_MOST),
    metric="system_average_power_watts",
)

REGISTER_WRAP_JOULES: Final = 2**32 / 1000
_ALL_ONES_MICROJOULES: Final = (2**32 - 1) * 1000


def _register(scope: Scope, label: str) -> Quantity:
    return Quantity(
        REGISTERS,
        scope,
        Unit.JOULE,
        f"/sys/class/hwmon/hwmon*/energy*_input labelled {label}",
        f"Energy register since boot or since its last wrap, at {REGISTER_WRAP_JOULES:.0f} J.",
        kind=Kind.COUNTER,
        scope=scope,
        bounds=(0, REGISTER_WRAP_JOULES),
    )


SOC_REGISTER: Final = _register(Scope.SOC, "pkg")
CPU_PERFORMANCE_REGISTER: Final = _register(Scope.CPU_PERFORMANCE, "cpu_p")
CPU_EFFICIENCY_REGISTER: Final = _register(Scope.CPU_EFFICIENCY, "cpu_e")
GPU_REGISTER: Final = _register(Scope.GPU_RAIL, "gpu (gpm in spbm 0.1 and aien_spbm)")

_COMMON: Final[Mapping[str, Quantity]] = {
    "dc_input": DC_INPUT,
    "sys_total": SYSTEM,
    "soc_pkg": SOC,
    "cpu_gpu": CPU_GPU,
    "cpu_p": CPU_PERFORMANCE,
    "cpu_e": CPU_EFFICIENCY,
    "vcore": VCORE,
}
_RAILS: Final[Mapping[str, Quantity]] = {"gpu": GPU_RAIL, "prereg": PREREGULATOR, "dla": DLA}
_RAILS_0_1: Final[Mapping[str, Quantity]] = {"gpu_out": GPU_RAIL, "prereg_in": PREREGULATOR}
_CORE_TYPES: Final = {CPU_PERFORMANCE: ("performance",), CPU_EFFICIENCY: ("efficiency",)}
_ENERGIES: Final[Mapping[str, Quantity]] = {
    "pkg": SOC_REGISTER,
    "cpu_p": CPU_PERFORMANCE_REGISTER,
    "cpu_e": CPU_EFFICIENCY_REGISTER,
    "gpu": GPU_REGISTER,
    "gpm": GPU_REGISTER,
}
_LIMITS: Final[Mapping[str, tuple[Scope, Quantity]]] = {
    "pl1": (Scope.SOC, SOC_AVERAGE),
    "pl2": (Scope.SOC, SOC_AVERAGE),
    "syspl1": (Scope.SYSTEM, SYSTEM_AVERAGE),
    "syspl2": (Scope.SYSTEM, SYSTEM_AVERAGE),
}

# Channels and attributes that mislead. None of them is alarmed on, so none is needed at each beat.
_UNTRUSTED_SECONDS: Final = 10.0
_DEAD: Final = "reads 0 on every machine that was looked at"
_UNTRUSTED_CHANNELS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("vddq", "gpc_out", "gpc_in", "gpu_in", "sys_in", "dla_out"), _DEAD),
    **dict.fromkeys(
        ("budget_cpu", "budget_gpu", "budget_cpu_e", "budget_cpu_p"), "an allotment of the firmware's, no power"
    ),
    "dla_in": "no machine is known where it says anything",
}
_UNTRUSTED_ENERGIES: Final = {
    "gpc": _DEAD,
    "gpc_unverified": "its own driver calls it unverified; it reads 0 on every machine that was looked at",
}
_UNTRUSTED_STATUS: Final = {
    "prochot": "1 on healthy machines too, so it diagnoses nothing",
    "pl_level": "raw index of a limit; its encoding is not documented",
    "tj_max_c": "raw; its meaning is not known, and it is no maximum",
}

_TEMPERATURE_WHY: Final = (
    "the driver takes the firmware's word for centi-degrees, but it is in all likelihood deci-Kelvin "
    "(°C = value / 100 − 273.15); the acpitz zones show the same temperatures rightly"
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one driver variant means by its labels."""

    variant: str
    rails: Mapping[str, Quantity]
    averages: Mapping[str, str]
    limit_is_input: bool
    suffixes: tuple[tuple[str, Quantity], ...] = ()


# The one that says most comes first, for hwmon numbers change from boot to boot.
_ACPI_DEVICE: Final = "NVDA8800"
_DRIVERS: Final = ("dgx_spbm_power", "spbm", "spbm_hwmon", "aien_spbm")
_INPUT_AVERAGES: Final = {name: name for name in _LIMITS}
_EWMA_AVERAGES: Final = {name: f"ewma_{name}" for name in _LIMITS}
_CAPS: Final = (("_cap", LIMIT), ("_max", CEILING), ("_min", FLOOR))
_OWEN_CAPS: Final = (("_cap", LIMIT), ("_cap_max", PUBLISHED), ("_cap_min", FLOOR))

V0_1: Final = Dialect("0.1", _RAILS_0_1, {}, limit_is_input=True)
V0_2: Final = Dialect("0.2", _RAILS, _EWMA_AVERAGES, limit_is_input=True)
V0_3: Final = Dialect("0.3", _RAILS, _INPUT_AVERAGES, limit_is_input=False, suffixes=_CAPS)
OWEN: Final = Dialect("0.1.0", _RAILS, _INPUT_AVERAGES, limit_is_input=False, suffixes=_OWEN_CAPS)
# Which labels its five powers bear nobody has published.
AIEN: Final = Dialect("research", {**_RAILS, **_RAILS_0_1}, {}, limit_is_input=False)
# Whether its pl1 is a power or a limit cannot be known, so it is neither.
UNKNOWN: Final = Dialect("unknown", _RAILS, {}, limit_is_input=False)


def dialect(name: str, labels: Collection[str], *, has_caps: bool) -> Dialect:
    """Tell the driver variant by its hwmon name, its labels, and whether its limits have a ``_cap``."""
    if name == "aien_spbm":
        return AIEN
    if "gpu_out" in labels:
        return V0_1
    if "ewma_pl1" in labels:
        return V0_2
    if has_caps:
        return OWEN if name == "dgx_spbm_power" else V0_3
    return UNKNOWN


def read(host: Host) -> Iterator[Item]:
    """Yield powers, limits, energy registers and raw status of the firmware's power page."""
    found = chips(host)
    by_name = {chip.name: chip for chip in found}
    chip = next((by_name[name] for name in _DRIVERS if name in by_name), None)
    if chip is None:
        raise _no_chip(host, found)
    powers = chip.channels(host, "power")
    meaning = host.keep(_meaning, chip)
    yield Fact(DRIVER, chip.name)
    yield Fact(VARIANT, meaning.variant)
    for label, quantity in {**_COMMON, **meaning.rails}.items():
        if prefix := powers.get(label):
            source = f"{chip.name} {label}"
            yield measure(
                quantity, partial(_micro, host, f"{prefix}_input"), labels=_CORE_TYPES.get(quantity, ()), source=source
            )
        elif powers.fault:
            yield absent(quantity, powers.fault, labels=_CORE_TYPES.get(quantity, ()))
    yield from _limits(host, chip, powers, meaning)
    yield from _energies(host, chip)
    yield from host.every(_UNTRUSTED_SECONDS, _untrusted, chip)


def _meaning(host: Host, chip: Chip) -> Dialect:
    powers = chip.channels(host, "power")
    files = host.list(chip.path)
    has_caps = any(f"{powers[name].rpartition('/')[2]}_cap" in files for name in _LIMITS if name in powers)
    return dialect(chip.name, powers, has_caps=has_caps)


def _no_chip(host: Host, others: Iterable[Chip]) -> Unavailable:
    for chip in others:
        if chip.fault and _ACPI_DEVICE in chip.device:
            return Unavailable(absent(DRIVER, chip.fault).reason, f"{chip.path}/name: {chip.fault}")
    if any(host.exists(f"/sys/bus/{bus}/devices/{_ACPI_DEVICE}:00") for bus in ("acpi", "platform")):
        return NoData(
            Reason.NO_DRIVER,
            "the firmware has a power page (ACPI NVDA8800), but no driver for it is installed; NVIDIA ships none",
        )
    return NoData(Reason.NO_DEVICE, "this machine has no firmware power page (ACPI NVDA8800)")


def _limits(host: Host, chip: Chip, powers: Channels, meaning: Dialect) -> Iterator[Item]:
    for name, (scope, average) in _LIMITS.items():
        prefix = powers.get(name)
        labels = (str(scope), name)
        if prefix and meaning.limit_is_input:
            source = f"{chip.name} {name} input"
            yield measure(LIMIT, partial(_micro, host, f"{prefix}_input"), labels=labels, source=source)
        elif prefix and not meaning.suffixes:
            why = f"{chip.name}: nothing tells whether its {name} is a power or a limit"
            yield Absence(LIMIT, Reason.NOT_SUPPORTED, why, labels=labels)
        elif prefix:
            for suffix, quantity in meaning.suffixes:
                source = f"{chip.name} {name}{suffix}"
                yield measure(quantity, partial(_micro, host, f"{prefix}{suffix}"), labels=labels, source=source)
        elif powers.fault:
            yield absent(LIMIT, powers.fault, labels=labels)
        if averaged := powers.get(meaning.averages.get(name, "")):
            source = f"{chip.name} {meaning.averages[name]}"
            yield measure(average, partial(_micro, host, f"{averaged}_input"), labels=(name,), source=source)


def _energies(host: Host, chip: Chip) -> Iterator[Item]:
    for label, prefix in chip.channels(host, "energy").items():
        source = f"{chip.name} energy {label}"
        if why := _UNTRUSTED_ENERGIES.get(label):
            yield _signal(host, f"{chip.name} energy {label}", f"{prefix}_input", why)
        elif quantity := _ENERGIES.get(label):
            yield measure(quantity, partial(_register_joules, host, prefix), source=source)


def _untrusted(host: Host, chip: Chip) -> Iterator[Item]:
    powers = chip.channels(host, "power")
    for label, why in _UNTRUSTED_CHANNELS.items():
        if prefix := powers.get(label):
            yield _signal(host, f"{chip.name} {label}", f"{prefix}_input", why)
    for name, why in _UNTRUSTED_STATUS.items():
        # In the hwmon directory itself, where the driver's extra attribute group puts them.
        if host.keep(Host.exists, f"{chip.path}/{name}"):
            yield _signal(host, f"{chip.name} {name}", f"{chip.path}/{name}", why)
    for label, prefix in chip.channels(host, "temp").items():
        yield _signal(host, f"{chip.name} temperature {label}", f"{prefix}_input", _TEMPERATURE_WHY)


def _signal(host: Host, name: str, path: str, why: str) -> Item:
    return measure(SIGNAL, partial(host.integer, path), name, source=path, quality=Quality.UNTRUSTED, note=why)


def _micro(host: Host, path: str) -> float:
    return parse_micro(host.text(path))


def _register_joules(host: Host, prefix: str) -> float:
    overflow = f"{prefix}_overflow_raw"
    # Only aien_spbm has it; a counter that overflowed says nothing.
    if host.keep(Host.exists, overflow) and host.integer(overflow):
        raise Unavailable(Reason.OVERFLOW, overflow)
    return parse_register(host.text(f"{prefix}_input"))


def parse_micro(text: str) -> float:
    """Turn the text of a ``power*`` file, microwatts, into watts."""
    return parse_integer(text) / 1e6


def parse_register(text: str) -> float:
    """Turn the text of an ``energy*_input`` file, microjoules, into joules; all-ones is no energy."""
    microjoules = parse_integer(text)
    if microjoules == _ALL_ONES_MICROJOULES:
        raise Unavailable(Reason.IMPOSSIBLE, "all ones: the register was not read")
    return microjoules / 1e6
