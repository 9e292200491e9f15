"""What several collectors say about power, declared once: limits, and signals that mislead."""

from typing import Final

from spark_agent.collectors._reading import Quantity, Section, Unit

# The firmware's floor is 0.1 W, so a 0 is an empty slot; ceilings go up to 300 W, all-ones registers far above.
_POSSIBLE: Final = (0.1, 1000.0)

REGISTERS: Final = Section(
    "power.registers", "Energy registers as the firmware and the GPU's driver have them.", exported=False
)
LIMITS: Final = Section("power.limits", "What the machine may draw, by scope.", metric="power")


def _limit(key: str, source: str, help_: str) -> Quantity:
    return Quantity(
        LIMITS,
        key,
        Unit.WATT,
        source,
        help_,
        labels=("scope", "limit"),
        bounds=_POSSIBLE,
        inventory=True,
    )


LIMIT: Final = _limit(
    "limit_watts",
    "/sys/class/hwmon/hwmon*/power*_cap (spbm 0.3, dgx_spbm_power), power*_input (spbm 0.1 and 0.2)",
    "Power limit in force, by the scope it binds. Never a reading.",
)
CEILING: Final = _limit(
    "limit_ceiling_watts",
    "/sys/class/hwmon/hwmon*/power*_max (spbm)",
    "The highest that the limit could be set to; no operating limit.",
)
FLOOR: Final = _limit(
    "limit_floor_watts",
    "/sys/class/hwmon/hwmon*/power*_min (spbm) or power*_cap_min (dgx_spbm_power)",
    "The lowest that the limit could be set to.",
)
PUBLISHED: Final = _limit(
    "limit_published_watts",
    "/sys/class/hwmon/hwmon*/power*_cap_max (dgx_spbm_power)",
    "Limit that the embedded controller published. ENODATA: it published none, and the firmware applies its fallback.",
)
