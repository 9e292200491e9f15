"""Which boot this is, and how long ago it began: what tells a reboot and a suspend from an agent that was away.

https://docs.kernel.org/filesystems/proc.html, https://docs.kernel.org/admin-guide/sysctl/kernel.html#random
"""

from collections.abc import Iterator
from typing import Final

from spark_agent.collectors import Host, Item, Property, Quantity, Unit, measure, state
from spark_agent.collectors.platform import PLATFORM

#: Where the kernel says which boot this is.
BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"

BOOT: Final = Property(
    PLATFORM, "boot_id", BOOT_ID, "A number that the kernel draws at each boot.", inventory=False, private=True
)
UPTIME: Final = Quantity(
    PLATFORM,
    "uptime_seconds",
    Unit.SECOND,
    "/proc/uptime",
    "Time since boot, by a clock that goes on while the machine is suspended.",
    bounds=(0, 1e10),
    metric="uptime_seconds",
)


def read(host: Host) -> Iterator[Item]:
    """Yield which boot this is, and the time since it began."""
    yield state(BOOT, lambda: host.text(BOOT_ID))
    yield measure(UPTIME, lambda: parse_uptime(host.text("/proc/uptime")))


def parse_uptime(text: str) -> float:
    """Return the first number of ``/proc/uptime``: seconds, with two decimals."""
    return float(text.split()[0])
