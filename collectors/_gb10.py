"""Whether a machine is a GB10, by what the hardware and its firmware say of themselves.

``product_family`` of DMI is the same on every maker's GB10; the ACPI device is the SoC's power telemetry; the PCI
function is the GPU, which is there when its driver is not. None of the three needs root, NVML or a DGX OS.
"""

from collections.abc import Iterator

from spark_agent.collectors import Host, Unavailable

_PRODUCT_FAMILY = "/sys/class/dmi/id/product_family"
_TELEMETRY = ("/sys/bus/acpi/devices/NVDA8800:*", "/sys/bus/platform/devices/NVDA8800:*")
_GPU = ("0x10de", "0x2e12")


def is_gb10(host: Host) -> bool:
    """Whether anything says that this is a GB10; asks no further than the first that does."""
    return host.keep(_is_gb10)


def _is_gb10(host: Host) -> bool:
    return any(_evidence(host))


def evidence(host: Host) -> tuple[str, ...]:
    """Name everything that says that this is a GB10; what cannot be read says nothing."""
    return tuple(_evidence(host))


def _evidence(host: Host) -> Iterator[str]:
    if _says(host, _PRODUCT_FAMILY, "DGX Spark"):
        yield "dmi product_family"
    if any(_paths(host, pattern) for pattern in _TELEMETRY):
        yield "acpi NVDA8800"
    vendor, device = _GPU
    for path in _paths(host, "/sys/bus/pci/devices/*"):
        if _says(host, f"{path}/vendor", vendor) and _says(host, f"{path}/device", device):
            yield "pci 10de:2e12"
            return


def _says(host: Host, path: str, text: str) -> bool:
    try:
        return host.text(path) == text
    except (OSError, Unavailable):
        return False


def _paths(host: Host, pattern: str) -> list[str]:
    try:
        return list(host.glob(pattern))
    except (OSError, Unavailable):
        return []
