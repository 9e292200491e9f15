"""What this machine is: DMI, ACPI, PCI, release files, kernel and driver.

Files: ``/sys/class/dmi/id/*``, ``/etc/dgx-release``, ``/etc/os-release``, ``/proc/sys/kernel/osrelease``,
``/proc/driver/nvidia/version``, ``/proc/stat``. Whether it is a Spark is told by several independent signs, because
each is missing somewhere: partners' boxes have other names, plain Ubuntu has no dgx-release, a dead driver no NVML.

https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-dmi
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from spark_agent.collectors import (
    Fact,
    Host,
    Item,
    NvmlError,
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
from spark_agent.collectors._gb10 import evidence

PLATFORM: Final = Section("platform", "What this machine is.", metric="platform")

_DMI: Final = "/sys/class/dmi/id"

IS_SPARK: Final = Property(PLATFORM, "is_spark", "the signs named in evidence", "Whether this is a GB10 machine.")
EVIDENCE: Final = Property(
    PLATFORM,
    "evidence",
    "DMI product_family, ACPI NVDA8800, PCI 10de:2e12, NVML name, /etc/dgx-release",
    "Which signs say that this is a GB10 machine.",
)
VENDOR: Final = Property(PLATFORM, "vendor", f"{_DMI}/sys_vendor", "Who sells this machine.")
PRODUCT: Final = Property(PLATFORM, "product", f"{_DMI}/product_name", "What it is sold as.")
FAMILY: Final = Property(PLATFORM, "family", f"{_DMI}/product_family", "Product family.")
VERSION: Final = Property(PLATFORM, "version", f"{_DMI}/product_version", "Product version.")
BOARD: Final = Property(PLATFORM, "board", f"{_DMI}/board_name", "Board.")
BOARD_VERSION: Final = Property(PLATFORM, "board_version", f"{_DMI}/board_version", "Board revision.")
BIOS: Final = Property(PLATFORM, "bios", f"{_DMI}/bios_version", "UEFI firmware version that runs now.")
FIRMWARE_VENDOR: Final = Property(PLATFORM, "firmware_vendor", f"{_DMI}/bios_vendor", "Who wrote the firmware.")
FIRMWARE_DATE: Final = Property(PLATFORM, "firmware_date", f"{_DMI}/bios_date", "Date of the firmware.")
OS: Final = Property(PLATFORM, "os", "/etc/os-release PRETTY_NAME", "Operating system.")
DGX_OS: Final = Property(
    PLATFORM,
    "dgx_os",
    "/etc/dgx-release, the last DGX_OTA_VERSION",
    "DGX OS version that runs: the last over-the-air update, or the factory image.",
)
DGX_IMAGE: Final = Property(
    PLATFORM, "dgx_os_image", "/etc/dgx-release DGX_SWBUILD_VERSION", "DGX OS version of the factory image."
)
KERNEL: Final = Property(PLATFORM, "kernel", "/proc/sys/kernel/osrelease", "Kernel release.")
DRIVER: Final = Property(
    PLATFORM, "driver", "nvmlSystemGetDriverVersion, /proc/driver/nvidia/version", "NVIDIA driver version."
)
DRIVER_MODULES: Final = Property(
    PLATFORM,
    "driver_modules",
    "/proc/driver/nvidia/version",
    "Kind of NVIDIA kernel modules: a GB10 needs the open ones from driver 580.173.02 on.",
)
BOOTED: Final = Quantity(
    PLATFORM,
    "boot_time_seconds",
    Unit.SECOND,
    "/proc/stat btime",
    "When the machine booted, in seconds since 1970.",
    bounds=(1, 1e11),
)

# DMI names of the makers, by the word that they begin with. The last four are not yet seen in a Spark's dump.
VENDORS: Final[Mapping[str, str]] = {
    "nvidia": "NVIDIA",
    "dell": "Dell",
    "asustek": "ASUS",
    "asus": "ASUS",
    "hp": "HP",
    "lenovo": "Lenovo",
    "micro-star": "MSI",
    "gigabyte": "Gigabyte",
    "acer": "Acer",
}

# What makers leave in DMI where they should have left nothing.
_PLACEHOLDERS: Final = frozenset(
    {
        "",
        "default string",
        "n/a",
        "none",
        "not applicable",
        "not specified",
        "system manufacturer",
        "system product name",
        "system version",
        "to be filled by o.e.m.",
        "unknown",
    }
)

_ASSIGNMENT: Final = re.compile(r"""^\s*(?:export\s+)?([A-Z][A-Z0-9_]*)=(?:"([^"]*)"|'([^']*)'|(.*?))\s*$""")
_DRIVER_VERSION: Final = re.compile(r"Kernel Module(?: for \S+)?\s+([0-9]+(?:\.[0-9]+)+)\b")


#: What a machine is changes with an update of its software at most.
EVERY_SECONDS: Final = 10.0


def read(host: Host) -> Iterator[Item]:
    """Yield what this machine is; never absent, for each machine is something."""
    release = once(lambda: parse_assignments(host.content("/etc/dgx-release")))
    signs = list(evidence(host))
    if "GB10" in _gpu_name(host).split():
        signs.append("nvml name")
    with suppress(OSError, Unavailable):
        # Never DGX_PLATFORM, which says anything from GX10 to "DGX Server for KVM".
        if release().get("DGX_NAME") == "DGX Spark":
            signs.append("dgx-release")
    yield Fact(IS_SPARK, bool(signs))
    yield Fact(EVIDENCE, tuple(signs))
    yield state(VENDOR, lambda: parse_vendor(host.text(f"{_DMI}/sys_vendor")))
    for of in (PRODUCT, FAMILY, VERSION, BOARD, BOARD_VERSION, BIOS, FIRMWARE_VENDOR, FIRMWARE_DATE):
        yield state(of, partial(_text, host, of.source))
    yield state(OS, lambda: parse_assignments(host.content("/etc/os-release"))["PRETTY_NAME"])
    yield state(DGX_OS, lambda: parse_dgx_os(release()))
    yield state(DGX_IMAGE, lambda: release()["DGX_SWBUILD_VERSION"])
    yield state(KERNEL, lambda: host.text("/proc/sys/kernel/osrelease"))
    yield state(DRIVER, lambda: _driver(host))
    yield state(DRIVER_MODULES, lambda: parse_driver_modules(host.text("/proc/driver/nvidia/version")))
    yield measure(BOOTED, lambda: parse_boot_time(host.text("/proc/stat")))


def _text(host: Host, path: str) -> str:
    return parse_dmi(host.text(path))


def _gpu_name(host: Host) -> str:
    try:
        return str(host.nvml.call("nvmlDeviceGetName", 0))
    except NvmlError:
        return ""


def _driver(host: Host) -> str:
    try:
        version = host.nvml.call("nvmlSystemGetDriverVersion")
        if not isinstance(version, str):
            raise NvmlError("GARBAGE", "nvmlSystemGetDriverVersion")
        return version
    except NvmlError as error:
        # The module may be loaded where its library is missing, or of another version.
        try:
            return parse_driver_version(host.text("/proc/driver/nvidia/version"))
        except (OSError, ValueError, Unavailable):
            raise error from None


def parse_assignments(text: str) -> dict[str, str]:
    """Turn lines of ``KEY="value"``, quoted or not, into a dict; of a key that repeats, the last counts."""
    return {
        found[1]: next(part for part in (found[2], found[3], found[4]) if part is not None)
        for line in text.splitlines()
        if (found := _ASSIGNMENT.match(line))
    }


def parse_dgx_os(release: Mapping[str, str]) -> str:
    """Return the DGX OS version that runs: the last update's, or the factory image's."""
    version = release.get("DGX_OTA_VERSION") or release.get("DGX_SWBUILD_VERSION")
    if not version:
        raise Unavailable(Reason.NO_DATA, "neither DGX_OTA_VERSION nor DGX_SWBUILD_VERSION")
    return version


def parse_dmi(text: str) -> str:
    """Clean a DMI string: makers leave double spaces, and phrases where they should have left nothing."""
    words = " ".join(text.split())
    if words.lower() in _PLACEHOLDERS:
        raise Unavailable(Reason.NO_DATA, f"the maker left {words!r}")
    return words


def parse_vendor(text: str) -> str:
    """Name the maker as people do; one that is not known keeps its own words."""
    words = parse_dmi(text)
    return VENDORS.get(words.split()[0].lower(), words)


def parse_driver_version(text: str) -> str:
    """Return the version in ``/proc/driver/nvidia/version``."""
    found = _DRIVER_VERSION.search(text)
    if not found:
        raise ValueError(f"no driver version: {text[:80]!r}")
    return found[1]


def parse_driver_modules(text: str) -> str:
    """Tell open kernel modules from proprietary ones."""
    parse_driver_version(text)
    return "open" if "Open Kernel Module" in text else "proprietary"


def parse_boot_time(text: str) -> int:
    """Return ``btime`` of ``/proc/stat``."""
    for line in text.splitlines():
        if line.startswith("btime "):
            return parse_integer(line.removeprefix("btime ").strip())
    raise ValueError("no btime in it")
