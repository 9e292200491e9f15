"""What a GB10's system power is made of: terms with the least and the most that each adds, from what is known of it.

What bounds the sum from below is the GPU's power, for a part draws no more than the whole that holds it, and the
least that the rest of an idle box was seen to draw. What bounds it from above is the SoC's limit, and for the rest
what owners measured or what is planned with. 171 W is the most that anybody saw a system draw; that is no bound, for
nobody looked at one with both cages full of optics. All terms at their most come to 234 W, which the adapter's 240
allow.

Not in it is what USB-C ports feed to other devices, up to 15 W each: nothing on the machine shows that. Nor does it
hold where somebody raised the firmware's limits. docs/estimate.md holds it against published readings.
"""

import math
from dataclasses import dataclass
from typing import Final

from spark_agent.collectors import Quality, Scope, Unit, immutable

# What is known of a GB10. One owner's figure each, unless two are named.


@dataclass(frozen=True, slots=True)
class Constant:
    """The least and the most of something, what it is of, who says so, and how sure that is.

    Confidence: A, a raw dump or two machines that agree; B, one careful measurement; C, one report; D, an inference.
    """

    name: str
    lower: float
    upper: float
    unit: str
    meaning: str
    source: str
    confidence: str


SOC_BASE: Final = Constant(
    "soc_base",
    10.0,
    14.5,
    "W",
    "what the SoC draws besides GPU rail and cores, at idle",
    "firmware's soc_pkg − gpu − cpu_p at idle: 11.5, 11.8 and 12.7 W by three owners; a package of 19.9 W leaves 14.4",
    "B",
)
GPU_OFFSET: Final = Constant(
    "gpu_offset", -0.5, 0.5, "W", "GPU rail less NVML, at idle", "two owners: NVML and rail agree within 0.5 W", "B"
)
GPU_GAIN: Final = Constant(
    "gpu_gain",
    1.0,
    1 / (1 - 0.44),
    "W per W of NVML",
    "GPU rail for each watt that NVML gives above idle",
    "one owner: NVML 18–44 % below the rail under load; nobody saw it above",
    "B",
)
GPU_IDLE: Final = 5.0  # W by NVML, up to which it was seen to agree with the rail
FABRIC: Final = Constant(
    "fabric",
    0.0,
    0.2,
    "W per W of GPU rail",
    "fabric and memory controllers, for each watt of the GPU rail above idle",
    "0.17 from soc_pkg 140, gpu 91.7 and cpu_p 20.6 W under a matrix product, against idle",
    "C",
)
CPU_IDLE: Final = Constant(
    "cpu_idle", 0.0, 5.0, "W", "cores with nothing to do", "cpu_p at idle: 0.5 W, and 4.5 W on older firmware", "B"
)
PERFORMANCE_CORE: Final = Constant(
    "performance_core",
    0.3,
    12.0,
    "W per busy core",
    "each busy Cortex-X925, its share of the cluster in it",
    "64 W for ten; 20.6 W for the few that drive a matrix product; a box held at 20 W gives all cores some 3 W",
    "D",
)
EFFICIENCY_CORE: Final = Constant(
    "efficiency_core", 0.05, 2.0, "W per busy core", "each busy Cortex-A725", "10.5 W for ten", "D"
)
CPU_BUSY_MOST: Final = Constant(
    "cpu_most",
    0.0,
    90.0,
    "W",
    "all cores busy, above idle",
    "package of 92 W with all cores busy; 155 W at the wall for a CPU-only HPL, so a package of some 110 W",
    "D",
)
SOC_MOST: Final = Constant(
    "soc_limit",
    0.0,
    142.0,
    "W",
    "most that the firmware lets the SoC draw",
    "PL2, the firmware's short limit (140 W sustained); measured up to 142 W",
    "A",
)
BOARD: Final = Constant(
    "board",
    3.0,
    10.0,
    "W",
    "SSD, 10GbE, Wi-Fi, fan, display and board at idle",
    "sys_total − soc_pkg at idle, ConnectX-7 asleep: 8.0 and 8.8 W by two owners; 22 W at the wall leave 3 W",
    "B",
)
GROWTH: Final = Constant(
    "growth",
    0.0,
    0.2,
    "W per W of SoC",
    "memory, conversion and fan, for each watt of the SoC above idle",
    "sys_total − soc_pkg grows from 8 W at 17 W to 30.8 W at 140 W: 0.185",
    "C",
)
SOC_IDLE: Final = 17.0  # W; soc_pkg at idle of the owner whose figure GROWTH is
CARD_ASLEEP: Final = Constant(
    "connectx7_asleep", 0.0, 1.5, "W", "ConnectX-7 off the bus", "about 1 W, a planning figure", "C"
)
CARD_AWAKE: Final = Constant(
    "connectx7_awake",
    6.0,
    19.0,
    "W",
    "ConnectX-7 on the bus, no link",
    "sys_total − soc_pkg 14 W where it is awake, 8 W where asleep; 15 W at the wall when it went; 18–19 W, planned",
    "C",
)
CARD_LINKED: Final = Constant(
    "connectx7_linked", 6.0, 25.0, "W", "ConnectX-7 with a link", "18–25 W, a planning figure", "C"
)
OPTICS: Final = Constant(
    "optics",
    0.0,
    9.0,
    "W per cage in use",
    "what is plugged into a cage",
    "0.1 W for a passive cable, 5 W (200G) or 8–9 W (400G) for optics, by NVIDIA's data",
    "B",
)
STORAGE: Final = Constant(
    "storage", 0.0, 8.0, "W", "SSD at work, above idle", "4–10 W at work against 1–3 W, planning figures", "C"
)
ETHERNET: Final = Constant(
    "ethernet", 0.0, 4.0, "W", "10GbE at work, above idle", "2–6 W at work against 1–2 W, planning figures", "C"
)
WIFI: Final = Constant("wifi", 0.0, 2.0, "W", "Wi-Fi at work, above idle", "2–3 W against less than 1 W", "D")

CONSTANTS: Final = (
    *(SOC_BASE, GPU_OFFSET, GPU_GAIN, FABRIC, CPU_IDLE, PERFORMANCE_CORE, EFFICIENCY_CORE, CPU_BUSY_MOST, SOC_MOST),
    *(BOARD, GROWTH, CARD_ASLEEP, CARD_AWAKE, CARD_LINKED, OPTICS, STORAGE, ETHERNET, WIFI),
)


#: What a GB10's GPU can draw at most, in watts: NVML giving more is not to be believed.
GPU_MOST: Final = SOC_MOST.upper

#: What the interval rests on, in a person's words, and what is not in it.
ESTIMATED_FROM: Final = "GPU power by NVML, busy cores and network cards"
SOURCE: Final = f"{ESTIMATED_FROM}; constants of docs/estimate.md"
EXCLUDED: Final = "what USB-C ports feed to other devices"


# What is looked at.


@immutable
class Card:
    """The ConnectX-7: its state, and in how many cages there is a link or a cable."""

    state: str
    cages: int = 0


#: Both cages of a ConnectX-7 in use, or it is off: nobody knows.
_UNKNOWN_CARD: Final = (CARD_ASLEEP.lower, CARD_LINKED.upper + 2 * OPTICS.upper)


@immutable
class Inputs:
    """What the estimate rests on; None is what is not known.

    ``gpu`` is in watts as NVML gives them; ``performance`` and ``efficiency`` are how many cores of each kind are
    busy, as a mean over some seconds; ``ethernet`` is whether 10GbE has a link.
    """

    gpu: float | None = None
    performance: float | None = None
    efficiency: float | None = None
    card: Card | None = None
    ethernet: bool | None = None


@immutable
class Term:
    """What one thing adds to the interval, in watts."""

    name: str
    detail: str
    lower: float
    upper: float
    source: str


@immutable
class Interval:
    """What the system draws, estimated: between ``lower`` and ``upper`` watts. ``unknown`` is what makes it wider."""

    lower: float
    upper: float
    age: float
    basis: tuple[Term, ...]
    unknown: tuple[str, ...] = ()
    scope: Scope = Scope.SYSTEM
    quality: Quality = Quality.ESTIMATED
    unit: Unit = Unit.WATT

    @property
    def source(self) -> str:
        """What it was made from."""
        return SOURCE

    @property
    def width(self) -> float:
        """How little it says, in watts."""
        return self.upper - self.lower

    def miss(self, watts: float) -> float:
        """Return how far a power lies outside."""
        return max(self.lower - watts, watts - self.upper, 0.0)


def terms(inputs: Inputs) -> tuple[Term, ...]:
    """Return what adds up to the interval; both bounds of the sum only rise with the GPU's power and busy cores."""
    rail, rail_most, fabric = rail_watts(inputs.gpu)
    busy = _busy_term(inputs)
    soc = SOC_BASE.upper + rail_most + fabric + CPU_IDLE.upper + busy.upper
    within = min(soc, SOC_MOST.upper)
    growth = GROWTH.upper * max(0.0, within - SOC_IDLE)
    found = [
        _of(SOC_BASE),
        _gpu_term(inputs.gpu, rail, rail_most),
        Term("gpu_fabric", FABRIC.meaning, 0.0, fabric, FABRIC.source),
        _of(CPU_IDLE),
        busy,
        Term("soc_limit", SOC_MOST.meaning, 0.0, within - soc, SOC_MOST.source),
        _of(BOARD),
        Term("growth", GROWTH.meaning, 0.0, growth, GROWTH.source),
        _card_term(inputs.card),
        _of(STORAGE),
        _of(WIFI),
    ]
    if inputs.ethernet is not False:
        found.append(_of(ETHERNET))
    return tuple(found)


def _of(constant: Constant) -> Term:
    return Term(constant.name, constant.meaning, constant.lower, constant.upper, constant.source)


def _gpu_term(watts: float | None, lower: float, upper: float) -> Term:
    if watts is None:
        return Term("gpu", "GPU rail; what NVML gives is not known", lower, upper, SOC_MOST.source)
    detail = f"GPU rail; NVML gives {watts:.1f} W"
    return Term("gpu", detail, lower, upper, f"{GPU_GAIN.source}; {GPU_OFFSET.source}")


def rail_watts(watts: float | None) -> tuple[float, float, float]:
    """Return the least and the most that the GPU's rail draws, and the most that fabric and memory add for it."""
    if watts is None:
        lower, upper = 0.0, SOC_MOST.upper
    else:
        lower = max(0.0, watts + GPU_OFFSET.lower)
        upper = watts + GPU_OFFSET.upper + (GPU_GAIN.upper - GPU_GAIN.lower) * max(0.0, watts - GPU_IDLE)
    return lower, upper, FABRIC.upper * max(0.0, upper - GPU_IDLE)


def _busy_term(inputs: Inputs) -> Term:
    sources = f"{PERFORMANCE_CORE.source}; {EFFICIENCY_CORE.source}"
    if inputs.performance is None or inputs.efficiency is None:
        return Term("cpu_busy", "busy cores; not known", 0.0, CPU_BUSY_MOST.upper, CPU_BUSY_MOST.source)
    lower, upper = busy_watts(inputs.performance, inputs.efficiency)
    detail = f"busy cores; {inputs.performance:.1f} of the performance kind, {inputs.efficiency:.1f} of the other"
    return Term("cpu_busy", detail, lower, upper, sources)


def busy_watts(performance: float, efficiency: float) -> tuple[float, float]:
    """Return the least and the most that so many busy cores draw above idle."""
    return (
        performance * PERFORMANCE_CORE.lower + efficiency * EFFICIENCY_CORE.lower,
        min(CPU_BUSY_MOST.upper, performance * PERFORMANCE_CORE.upper + efficiency * EFFICIENCY_CORE.upper),
    )


def _card_term(card: Card | None) -> Term:
    lower, upper = card_watts(card)
    if card is None or card.state == "missing":
        detail = "ConnectX-7; its state is not known" if card is None else "ConnectX-7; not on the bus, and not asleep"
        return Term("connectx7", detail, lower, upper, f"{CARD_LINKED.source}; {OPTICS.source}")
    if card.state == "asleep":
        return Term("connectx7", "ConnectX-7; asleep", lower, upper, CARD_ASLEEP.source)
    if not card.cages:
        return Term("connectx7", "ConnectX-7; awake, no cable", lower, upper, CARD_AWAKE.source)
    detail = f"ConnectX-7; awake, {card.cages} of its cages in use"
    return Term("connectx7", detail, lower, upper, f"{CARD_LINKED.source}; {OPTICS.source}")


def card_watts(card: Card | None) -> tuple[float, float]:
    """Return the least and the most that a ConnectX-7 draws."""
    if card is None or card.state == "missing":
        return _UNKNOWN_CARD
    if card.state == "asleep":
        return CARD_ASLEEP.lower, CARD_ASLEEP.upper
    if not card.cages:
        return CARD_AWAKE.lower, CARD_AWAKE.upper
    return CARD_LINKED.lower, CARD_LINKED.upper + card.cages * OPTICS.upper


def interval(inputs: Inputs, age: float = 0.0, unknown: tuple[str, ...] = ()) -> Interval:
    """Return the interval that the terms add up to."""
    basis = terms(inputs)
    lower, upper = sum(term.lower for term in basis), sum(term.upper for term in basis)
    return Interval(rounded_down(lower), rounded_up(upper), age, basis, unknown)


def rounded_down(watts: float) -> float:
    """Return a lower bound with one digit: more would feign that it is known better."""
    return math.floor(round(watts * 10, 6)) / 10


def rounded_up(watts: float) -> float:
    """Return an upper bound with one digit."""
    return math.ceil(round(watts * 10, 6)) / 10
