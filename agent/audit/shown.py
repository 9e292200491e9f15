"""Units, as Grafana has them and as words say them, and the scale that an expression gives."""

import re
from collections.abc import Mapping
from typing import Final

from spark_agent.agent.audit.catalogue import Dimension
from spark_agent.agent.audit.value import Value

#: Grafana's unit ids for power and energy: dimension, and how many make a watt or joule.
#: https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts
GRAFANA_UNITS: Final[Mapping[str, tuple[Dimension, float]]] = {
    "watt": (Dimension.POWER, 1.0),
    "kwatt": (Dimension.POWER, 1e-3),
    "megwatt": (Dimension.POWER, 1e-6),
    "gwatt": (Dimension.POWER, 1e-9),
    "mwatt": (Dimension.POWER, 1e3),
    "joule": (Dimension.ENERGY, 1.0),
    "watth": (Dimension.ENERGY, 1 / 3600),
    "kwatth": (Dimension.ENERGY, 1 / 3.6e6),
}


NO_UNIT: Final = frozenset(("", "none", "short", "locale", "string"))


#: ``kW``, ``milliwatts``, ``kWh`` in words; a prefix, and the unit.
_SAID_UNIT: Final = re.compile(
    r"(?<![A-Za-z])(?:([kKMmµμun]?)(Wh|W|J|(?<=[km])wh)|((?i:kilo|milli|micro|nano|mega)?)((?i:watts?|joules?)))(?![A-Za-z])"
)


_PREFIXES: Final = {
    "": 1.0, "k": 1e-3, "K": 1e-3, "M": 1e-6, "m": 1e3, "µ": 1e6, "μ": 1e6, "u": 1e6, "n": 1e9,
    "kilo": 1e-3, "mega": 1e-6, "milli": 1e3, "micro": 1e6, "nano": 1e9,
}  # fmt: skip


def said_units(text: str) -> list[tuple[str, Dimension, float]]:
    """Return the units that a text names: as written, what they measure, and how many make a watt or joule."""
    said = []
    for match in _SAID_UNIT.finditer(text.replace("_", " ").replace(":", " ")):
        prefix, symbol = (
            (match[1] or "", match[2].replace("wh", "Wh")) if match[2] else (match[3].lower(), match[4][0].upper())
        )
        factor = _PREFIXES[prefix] / (3600 if symbol == "Wh" else 1)
        said.append((match[0], Dimension.POWER if symbol == "W" else Dimension.ENERGY, factor))
    return said


def is_plain(factor: float) -> bool:
    """Return whether a factor is a change of unit, and no price or efficiency is in it."""
    if factor <= 0:
        return False
    digits = f"{factor:.6e}".split("e")[0].rstrip("0").rstrip(".")
    hours = f"{factor * 3600:.6e}".split("e")[0].rstrip("0").rstrip(".")
    return "1" in (digits, hours)


def unit_of(value: Value) -> str:
    """Return the unit that an expression gives."""
    symbols = (
        {1e3: "mW", 1e6: "µW", 1.0: "W", 1e-3: "kW", 1e-6: "MW"}
        if value.dimension is Dimension.POWER
        else {1e3: "mJ", 1e6: "µJ", 1.0: "J", 1e-3: "kJ", 1 / 3600: "Wh", 1 / 3.6e6: "kWh"}
    )
    base = "W" if value.dimension is Dimension.POWER else "J"
    if value.factor is None:
        return base
    near = next((symbol for factor, symbol in symbols.items() if abs(value.factor / factor - 1) < 0.01), None)
    return near or f"{base} times {value.factor:g}"


def source_unit(value: Value) -> str:
    """Return the units of the metrics that a value comes from."""
    return "/".join(sorted({source.metric.unit.symbol for source in value.sources}))


def times(by: float) -> str:
    """Return what scales an expression, as it is written behind it."""
    return f"* {by:g}" if by >= 1 else f"/ {1 / by:g}"
