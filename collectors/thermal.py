r"""Temperatures and what cools: ``/sys/class/thermal`` and the hwmon chips that nothing else reads.

* ``thermal_zone{N}/{type,temp,trip_point_{M}_type,trip_point_{M}_temp}``, in thousandths of a degree Celsius.
  A Spark has seven zones, all of type ``acpitz``; which is which says only ``device/path``, the zone's name in ACPI
  (``\_SB.TSOC``), never its number.
* ``cooling_device{N}/{type,cur_state,max_state}``: states count from 0 (no cooling) and have no unit.
* ``/sys/class/hwmon/hwmon*/temp{M}_{input,crit}``, in thousandths of a degree: ConnectX-7, Wi-Fi, a PC's processors.

https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-thermal
https://docs.kernel.org/hwmon/sysfs-interface.html
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Final

from spark_agent.collectors import (
    Absence,
    Fact,
    Host,
    Item,
    NoData,
    Property,
    Quantity,
    Reading,
    Reason,
    Section,
    Unavailable,
    Unit,
    absent,
    measure,
    state,
)
from spark_agent.collectors._hwmon import PLAUSIBLE_CELSIUS, Chip, chips, parse_millidegrees

THERMAL: Final = Section(
    "thermal", "Temperature sensors, apart from the SSDs' own.", entity="sensor", id_key="name", metric="thermal"
)
COOLING: Final = Section(
    "cooling", "What the kernel can do to cool.", entity="cooling_device", id_key="name", metric="cooling"
)

TYPE: Final = Property(
    THERMAL,
    "type",
    source="/sys/class/thermal/thermal_zone*/type, /sys/class/hwmon/hwmon*/name",
    help="The kind of sensor: the type of the thermal zone, or the hwmon driver.",
)
ACPI_PATH: Final = Property(
    THERMAL,
    "acpi_path",
    source="/sys/class/thermal/thermal_zone*/device/path",
    help="The name of the thermal zone in ACPI.",
)
PLACE: Final = Property(
    THERMAL,
    "place",
    source="/sys/class/thermal/thermal_zone*/device/path",
    help="What the thermal zone of a Spark measures, by its name in ACPI.",
)
TEMPERATURE: Final = Quantity(
    THERMAL,
    "temperature_celsius",
    Unit.CELSIUS,
    source="/sys/class/thermal/thermal_zone*/temp, /sys/class/hwmon/hwmon*/temp*_input",
    help="Temperature of the sensor.",
    bounds=PLAUSIBLE_CELSIUS,
)
CRITICAL: Final = Quantity(
    THERMAL,
    "critical_celsius",
    Unit.CELSIUS,
    source="/sys/class/thermal/thermal_zone*/trip_point_*_temp, /sys/class/hwmon/hwmon*/temp*_crit",
    help="Temperature at which the machine or the device shuts down.",
    bounds=PLAUSIBLE_CELSIUS,
    inventory=True,
)
TRIP: Final = Quantity(
    THERMAL,
    "trip_celsius",
    Unit.CELSIUS,
    source="/sys/class/thermal/thermal_zone*/trip_point_*_temp",
    help="Temperature of every other trip point of a thermal zone, by its type and number.",
    labels=("trip",),
    bounds=PLAUSIBLE_CELSIUS,
    inventory=True,
)

COOLING_TYPE: Final = Property(
    COOLING,
    "type",
    source="/sys/class/thermal/cooling_device*/type",
    help="What cools: Processor, Fan, dgx_ec_fan_floor.",
)
STATE: Final = Quantity(
    COOLING,
    "state",
    Unit.COUNT,
    source="/sys/class/thermal/cooling_device*/cur_state",
    help="How hard the device cools now, from 0 (not at all) to state_max.",
    bounds=(0, 2**32),
)
STATE_MAX: Final = Quantity(
    COOLING,
    "state_max",
    Unit.COUNT,
    source="/sys/class/thermal/cooling_device*/max_state",
    help="The state in which the device cools hardest.",
    bounds=(0, 2**32),
    inventory=True,
)

# The zones of a Spark's DSDT. Two clusters of efficient (E) and fast (P) cores.
_PLACES: Final = {
    "TSOC": "SoC maximum",
    "TS0E": "cluster 0 efficiency",
    "TS0P": "cluster 0 performance",
    "TS1E": "cluster 1 efficiency",
    "TS1P": "cluster 1 performance",
    "TGPU": "GPU",
    "TUNC": "uncore",
}

# Read elsewhere: SSDs by nvme, and by spbm the firmware page, whose temperatures no driver scales rightly.
_READ_ELSEWHERE: Final = frozenset({"nvme", "spbm", "dgx_spbm_power", "aien_spbm"})

_TRIP_TYPE: Final = re.compile(r"trip_point_([0-9]+)_type")

# Reading the state of these sends a message to the embedded controller and waits for it, up to a second; polling it
# was seen to disturb fan control.
_POLLS_CONTROLLER: Final = ("dgx_ec_fan_floor",)


def read(host: Host) -> Iterator[Item]:
    """Yield the temperature of each zone and chip, then the state of each cooling device."""
    found = False
    for item in _everything(host):
        found = True
        yield item
    if not found:
        raise NoData(Reason.NO_DEVICE, "no thermal zone, no hwmon chip with a temperature, no cooling device")


def _everything(host: Host) -> Iterator[Item]:
    types: set[str] = set()
    for zone in host.keep(Host.glob, "/sys/class/thermal/thermal_zone*"):
        name = zone.rpartition("/")[2]
        for item in host.keep(_zone, zone, name):
            if isinstance(item, Fact) and item.of is TYPE:
                types.add(str(item.value).replace("-", "_"))
            yield item
        yield _degrees(host, TEMPERATURE, f"{zone}/temp", name)
    for chip in chips(host):
        # The thermal core repeats its zones as one chip for each type, so named.
        if chip.name and chip.name not in _READ_ELSEWHERE and chip.name not in types:
            yield from _chip(host, chip)
    for device in host.keep(Host.glob, "/sys/class/thermal/cooling_device*"):
        yield from _cooling_device(host, device)


def _zone(host: Host, zone: str, name: str) -> Iterator[Item]:
    yield state(TYPE, partial(host.text, f"{zone}/type"), name)
    acpi_path = state(ACPI_PATH, partial(host.text, f"{zone}/device/path"), name)
    yield acpi_path
    if isinstance(acpi_path, Fact) and (place := _PLACES.get(str(acpi_path.value).rpartition(".")[2])):
        yield Fact(PLACE, place, name)
    critical_is_known = False
    for entry in host.list(zone):
        if not (trip := _TRIP_TYPE.fullmatch(entry)):
            continue
        try:
            type_ = host.text(f"{zone}/{entry}")
        except (OSError, Unavailable) as error:
            yield absent(TRIP, error, name, (trip[1],))
            continue
        path = f"{zone}/trip_point_{trip[1]}_temp"
        if type_ == "critical" and not critical_is_known:
            critical_is_known = True
            yield _degrees(host, CRITICAL, path, name)
        else:
            yield _degrees(host, TRIP, path, name, f"{type_} {trip[1]}".strip())


def _chip(host: Host, chip: Chip) -> Iterator[Item]:
    for label, path in chip.channels(host, "temp").items():
        sensor = f"{chip.identity}/{label}"
        yield Fact(TYPE, chip.name, sensor)
        yield _degrees(host, TEMPERATURE, f"{path}_input", sensor)
        yield from host.keep(_critical, path, sensor)


def _critical(host: Host, path: str, sensor: str) -> Iterator[Item]:
    if host.exists(f"{path}_crit"):
        yield _degrees(host, CRITICAL, f"{path}_crit", sensor)


def _cooling_device(host: Host, device: str) -> Iterator[Item]:
    name = device.rpartition("/")[2]
    kind, most = host.keep(_cooling_kind, device, name)
    yield kind
    yield most
    if isinstance(kind, Fact) and kind.value in _POLLS_CONTROLLER:
        yield Absence(STATE, Reason.NOT_ASKED, "each read would poll the embedded controller", name)
    else:
        yield measure(STATE, partial(host.integer, f"{device}/cur_state"), name)


def _cooling_kind(host: Host, device: str, name: str) -> Iterator[Item]:
    yield state(COOLING_TYPE, partial(host.text, f"{device}/type"), name)
    yield measure(STATE_MAX, partial(host.integer, f"{device}/max_state"), name)


def _degrees(host: Host, of: Quantity, path: str, sensor: str, *labels: str) -> Reading | Absence:
    return measure(of, lambda: parse_millidegrees(host.text(path)), sensor, labels, source=path)
