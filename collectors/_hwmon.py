"""The chips of the hardware monitoring class, found by name: ``/sys/class/hwmon/hwmon*/name``.

Numbers lie: hwmonN changes across boots and drivers, and a driver may leave holes among its channels. So chips are
found by ``name`` and channels by ``KIND{N}_label``: https://docs.kernel.org/hwmon/sysfs-interface.html
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from spark_agent.collectors import Host, Unavailable, parse_integer
from spark_agent.collectors._pci import pci_address

# Nothing in a computer is colder or hotter; limits that nobody set read -273.15, 254.85 or 65261.85 °C.
PLAUSIBLE_CELSIUS: Final = (-100.0, 150.0)

_CLASS: Final = "/sys/class/hwmon"
_INPUT: Final = re.compile(r"([a-z]+)([0-9]+)_input")


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip: where it is, what its driver calls it, and the real path of its device (empty where it has none).

    ``identity`` tells chips of one name apart and survives renumbering: ``mlx5-0000:01:00.0``, ``dgx_ec_fan``.
    A chip whose name cannot be read has a ``fault`` in its place.
    """

    path: str
    name: str
    device: str = ""
    identity: str = ""
    fault: OSError | Unavailable | None = None

    def channels(self, host: Host, kind: str) -> "Channels":
        """Return where each channel of a kind is, by its label: ``{"dc_input": "…/hwmon3/power7"}``.

        A channel without a label, or with one that another channel bears too, goes by its own name: ``power7``.
        One whose label cannot be read is not named after its number, or it would pass for another.
        """
        return host.keep(_channels, self.path, kind)


class Channels(dict[str, str]):
    """Where the channels of one kind are, by label; ``fault`` is why some of them are not among them."""

    fault: OSError | Unavailable | None = None


def _channels(host: Host, path: str, kind: str) -> Channels:
    found = Channels()
    try:
        names = host.list(path)
    except (OSError, Unavailable) as error:
        found.fault = error
        return found
    for name in names:
        if not (match := _INPUT.fullmatch(name)) or match[1] != kind:
            continue
        channel = name.removesuffix("_input")
        label, fault = _word(host, f"{path}/{channel}_label")
        if fault:
            found.fault = fault
        else:
            found[channel if not label or label in found else label] = f"{path}/{channel}"
    return found


def chips(host: Host) -> tuple[Chip, ...]:
    """Return every chip of the machine, in the order of its numbers."""
    return host.keep(_chips)


def _chips(host: Host) -> tuple[Chip, ...]:
    try:
        names = host.list(_CLASS)
    except (OSError, Unavailable):
        return ()
    found = []
    for path in (f"{_CLASS}/{name}" for name in names):
        word, fault = _word(host, f"{path}/name")
        if word or fault:
            found.append(Chip(path, word, _device(host, path), fault=fault))
    count = Counter(chip.name for chip in found)
    return tuple(replace(chip, identity=_identity(chip, alone=count[chip.name] == 1)) for chip in found)


def parse_millidegrees(text: str) -> float:
    """Turn thousandths of a degree into degrees Celsius."""
    return parse_integer(text) / 1000


def _identity(chip: Chip, *, alone: bool) -> str:
    # Always with the address where there is one: of four mlx5, any may be powered off and come back.
    try:
        return f"{chip.name}-{pci_address(chip.device)}"
    except ValueError:
        return chip.name if alone else f"{chip.name}-{(chip.device or chip.path).rpartition('/')[2]}"


def _device(host: Host, path: str) -> str:
    try:
        return host.real(f"{path}/device")
    except OSError:
        return ""


def _word(host: Host, path: str) -> tuple[str, OSError | Unavailable | None]:
    """Return one word of a chip, or why there is none; one that is simply not there is empty."""
    try:
        return host.text(path), None
    except FileNotFoundError:
        return "", None
    except (OSError, Unavailable) as error:
        return "", error
