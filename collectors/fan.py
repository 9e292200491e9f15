"""Fans: ``/sys/class/hwmon/hwmon*/fan{N}_input``, in revolutions per minute.

A stock Spark reports none: its fans belong to the embedded controller. The out-of-tree driver ``dgx_ec_fan``
(https://github.com/christopherowen/dgx-spark-fan-control) reports two, and a PC's drivers report theirs.
``acpi_fan``, which newer kernels make of an ACPI fan object, is no fan here: on a Dell it says 2 RPM and 5 mW at any
load. Its words are kept, as untrusted. https://docs.kernel.org/hwmon/sysfs-interface.html
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

from spark_agent.collectors import (
    Fact,
    Host,
    Item,
    NoData,
    Property,
    Quality,
    Quantity,
    Reason,
    Section,
    Unit,
    measure,
)
from spark_agent.collectors._hwmon import Chip, chips
from spark_agent.collectors._untrusted import SIGNAL

FANS: Final = Section("fans", "Fans that report their speed.", entity="fan", id_key="name", metric="fan")

DRIVER: Final = Property(
    FANS,
    "driver",
    source="/sys/class/hwmon/hwmon*/name",
    help="The driver that reports this fan.",
)
SPEED: Final = Quantity(
    FANS,
    "speed_rpm",
    Unit.REVOLUTION_PER_MINUTE,
    source="/sys/class/hwmon/hwmon*/fan*_input",
    help="Speed of the fan.",
    # The faster of a Spark's two fans ends at 13500.
    bounds=(0, 20_000),
)

_CONSTANT: Final = "constant on a Dell at idle and full load; no fan reports through it"


#: The embedded controller, which some of these ask, has better to do.
EVERY_SECONDS: Final = 5.0


def read(host: Host) -> Iterator[Item]:
    """Yield the speed of each fan, and what ``acpi_fan`` says in place of one."""
    found = False
    for chip in chips(host):
        for item in _misleading(host, chip) if chip.name == "acpi_fan" else _fans(host, chip):
            found = True
            yield item
    if not found:
        raise NoData(
            Reason.NOT_SUPPORTED,
            "no driver reports a fan speed; on a Spark the fan belongs to the embedded controller",
        )


def _fans(host: Host, chip: Chip) -> Iterator[Item]:
    for label, path in chip.channels(host, "fan").items():
        fan = f"{chip.identity}/{label}"
        source = f"{path}_input"
        yield Fact(DRIVER, chip.name, fan)
        yield measure(SPEED, partial(host.integer, source), fan, source=source)


def _misleading(host: Host, chip: Chip) -> Iterator[Item]:
    for kind in ("fan", "power"):
        for path in chip.channels(host, kind).values():
            source = f"{path}_input"
            signal = f"{chip.identity} {source.rpartition('/')[2]}"
            yield measure(
                SIGNAL, partial(host.integer, source), signal, (), source, quality=Quality.UNTRUSTED, note=_CONSTANT
            )
