"""What a Spark may draw, and what its parts are said to draw: figures, each with its source and how sure it is.

Data only, in watts. docs/budget.md is made from it. What nobody has published is None, and stays that.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from spark_agent.collectors import Scope

#: The scope of what the system draws besides its SoC. No channel measures it: it is one reading less another.
REST: Final = "rest"


class Basis(StrEnum):
    """How sure a figure is."""

    VENDOR = "vendor"
    MEASURED = "measured"
    PLANNED = "planned"
    UNKNOWN = "unknown"

    @property
    def words(self) -> str:
        """What that means."""
        return _BASIS_WORDS[self]


_BASIS_WORDS: Final = {
    Basis.VENDOR: "NVIDIA says so",
    Basis.MEASURED: "owners measured it, on few machines",
    Basis.PLANNED: "for planning; not measured on a GB10",
    Basis.UNKNOWN: "nobody has published it",
}

#: A lowest and a highest value.
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rating:
    """What NVIDIA says that a scope may draw."""

    name: str
    scope: str
    title: str
    watts: float
    what: str
    source: str


VENDOR_PAGE: Final = "NVIDIA, DGX Spark User Guide, Hardware Overview (docs.nvidia.com/dgx/dgx-spark/hardware.html)"

RATINGS: Final = (
    Rating(
        "adapter",
        Scope.DC_INPUT,
        "adapter",
        240.0,
        "what the power adapter gives, in DC; with a weaker one NVIDIA warns of less performance, failed starts and "
        "shutdowns",
        VENDOR_PAGE,
    ),
    Rating("soc_tdp", Scope.SOC, "SoC TDP", 140.0, "CPU and GPU together; what PL1 enforces", VENDOR_PAGE),
    Rating(
        "rest",
        REST,
        "rest (all but the SoC)",
        100.0,
        "NVIDIA's allowance for ConnectX-7, Wi-Fi, SSD, USB-C and whatever else is not the SoC; nothing enforces it",
        VENDOR_PAGE,
    ),
)


@dataclass(frozen=True, slots=True)
class Cap:
    """A limit that the firmware enforces: the usual one, the fallback without the controller's, and the ceiling."""

    name: str
    scope: Scope
    title: str
    watts: float
    fallback: float
    ceiling: float
    what: str


CAPS_SOURCE: Final = (
    "the firmware's power page, read live through spbm and dgx_spbm_power by several owners; they agree. "
    "What is in force here is read, where a driver shows it"
)

CAPS: Final = (
    Cap("pl1", Scope.SOC, "PL1 (SoC, sustained)", 140.0, 20.0, 250.0, "sets the SoC's pace under load that lasts"),
    Cap("pl2", Scope.SOC, "PL2 (SoC, short)", 142.0, 20.0, 250.0, "sets its pace in a burst"),
    Cap("syspl1", Scope.SYSTEM, "SysPL1 (system, sustained)", 231.0, 30.0, 300.0, "for load that lasts"),
    Cap("syspl2", Scope.SYSTEM, "SysPL2 (system, short)", 244.0, 30.0, 300.0, "for a burst"),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What owners saw under a load."""

    what: str
    watts: Span
    source: str


_GEMM: Final = "dense BF16 matrix products, one owner, several runs"

SEEN: Final = (
    Seen("the system when PL1 binds", (168.0, 171.0), _GEMM),
    Seen("what enters the board then", (175.0, 175.0), f"{_GEMM}; one row"),
    Seen("the SoC then", (138.0, 142.0), f"{_GEMM}; PL1's own average stands at 139.7 of 140"),
    Seen(
        "the rest, from idle without a display to full load",
        (8.0, 31.0),
        "system less SoC; several owners, ConnectX-7 off at 8 and on at 14",
    ),
)


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of a Spark draws, idle and busy; None where that is not known."""

    name: str
    idle: Span | None
    busy: Span | None
    basis: Basis
    source: str
    #: Whether it draws from the rest of the system, and not from the SoC; None where that is not known.
    is_rest: bool | None = True
    #: How many of them there may be; the figures are those of one.
    count: int = 1
    #: Part of another row, so that it must not be added to it.
    within: str = ""


PARTS: Final = (
    Part(
        "SoC",
        (17.0, 22.0),
        (140.0, 142.0),
        Basis.MEASURED,
        "idle: soc_pkg of several owners, 22 on earlier firmware; busy: PL1 sustained, PL2 in a burst",
        is_rest=False,
    ),
    Part("GPU rail", (4.0, 5.0), (92.0, 114.0), Basis.MEASURED, "the firmware's gpu channel", False, within="SoC"),
    Part(
        "CPU cores",
        (0.5, 5.0),
        (75.0, 75.0),
        Basis.MEASURED,
        "idle: cpu_p on newer and earlier firmware; busy: one owner, all 20 cores, 64 W for the performance cores and "
        "10.5 W for the efficiency cores, within 92 W for the SoC",
        False,
        within="SoC",
    ),
    Part(
        "LPDDR5X, 128 GB",
        None,
        None,
        Basis.UNKNOWN,
        "the firmware's VDDQ channel reads 0; whether the SoC's channel has it in it, or PL1, is not known either",
        is_rest=None,
    ),
    Part(
        "ConnectX-7",
        (1.0, 19.0),
        (18.0, 25.0),
        Basis.PLANNED,
        "idle: asleep without a cable, and awake, which owners measured as 15 to 18 W more; busy: the upper figure is "
        "for planning",
    ),
    Part(
        "optics, each QSFP cage",
        (0.1, 0.1),
        (5.0, 9.0),
        Basis.VENDOR,
        "NVIDIA, MMA1Z00 documents: 5 W at 200 Gb/s, 8 to 9 W at 400 Gb/s; a passive copper cable 0.1 W",
        count=2,
    ),
    Part("10 GbE", (1.0, 2.0), (2.0, 6.0), Basis.PLANNED, "usual for such controllers"),
    Part(
        "NVMe drive", (1.0, 3.0), (4.0, 12.0), Basis.PLANNED, "drive reviews: up to 10 W with PCIe 4, 12 W peak with 5"
    ),
    Part("USB-C port as a source", (0.0, 0.0), (0.0, 15.0), Basis.PLANNED, "5 V at 3 A is the most of one", count=3),
    Part("Wi-Fi and Bluetooth", (0.0, 1.0), (2.0, 3.0), Basis.PLANNED, "usual for such cards"),
    Part("fan, embedded controller, HDMI", (2.0, 2.0), (3.0, 6.0), Basis.PLANNED, "an inference"),
    Part(
        "conversion loss",
        None,
        None,
        Basis.UNKNOWN,
        "5 to 10 % is usual; dc_input less sys_total shows that of this machine, 0.5 to 5 W for those who looked",
    ),
)


def rest_of_parts() -> tuple[Span, Span]:
    """Return what all parts besides the SoC add up to, idle and busy, as far as their figures are known."""
    rows = [part for part in PARTS if part.is_rest and not part.within]
    idle = [(part.count, part.idle) for part in rows if part.idle]
    busy = [(part.count, part.busy) for part in rows if part.busy]
    return _added(idle), _added(busy)


def _added(spans: list[tuple[int, Span]]) -> Span:
    return sum(count * low for count, (low, _) in spans), sum(count * high for count, (_, high) in spans)
