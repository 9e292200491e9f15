"""The estimate held against what owners published: ``docs/estimate.md`` shows it, ``make bench`` prints it.

Each row is one state of somebody's box. What was not published with it is unknown to the estimate, too; "idle" is
taken for idle cores.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Final

from spark_agent.agent import calibration, terms
from spark_agent.agent.calibration import Anchor, fitted, from_wall, narrowed
from spark_agent.agent.machine import demos, open_demo
from spark_agent.agent.sampler import play
from spark_agent.agent.terms import Card, Constant, Inputs, Interval, interval
from spark_agent.collectors import Scope, discover, platform

ASLEEP: Final = Card("asleep")
AWAKE: Final = Card("awake")


@dataclass(frozen=True)
class Row:
    """What was seen of a box at once: the estimate's inputs, and the system's power by firmware or at the wall."""

    name: str
    inputs: Inputs
    system: float | None = None
    wall: float | None = None

    @property
    def measured(self) -> tuple[float, float]:
        """The least and the most that the system drew, in watts."""
        if self.wall is not None:
            return from_wall(self.wall)
        assert self.system is not None
        return self.system, self.system

    @property
    def is_inside(self) -> bool:
        """Whether all that may have been drawn is in the interval."""
        lower, upper = self.measured
        found = interval(self.inputs)
        return found.lower <= lower and upper <= found.upper


def idle(gpu: float | None, card: Card | None) -> Inputs:
    """Return a box with nothing to do."""
    return Inputs(gpu, 0.0, 0.0, card)


#: Readings of the whole system by the firmware, one owner each; rows 1 to 6 are one owner's.
FIRMWARE: Final = (
    Row("1: matrix product, highest `sys_total`", Inputs(71.9), 171.0),
    Row("2: matrix product of 60 s, highest `sys_total`", Inputs(89.8), 168.0),
    Row("3: matrix product, table of that moment", Inputs(71.9), 170.8),
    Row("4: training, not compute-bound", Inputs(48.3), 139.0),
    Row("5: contended benchmark", Inputs(46.1), 132.0),
    Row("6: held at 20 W by the firmware, GPU 99 % busy", Inputs(7.9), 28.0),
    Row("7: idle, ConnectX-7 off", idle(5.0, ASLEEP), 25.0),
    Row("8: idle, older firmware, ConnectX-7 on", idle(4.65, AWAKE), 36.0),
    Row("9: idle, no NVML published", idle(None, None), 26.1),
)
#: Readings at the wall, which say less: what of them reaches the system is an interval itself.
WALL: Final = (
    Row("12: idle, ConnectX-7 on", idle(4.0, AWAKE), wall=40.0),
    Row("12: idle, ConnectX-7 off", idle(4.0, ASLEEP), wall=25.0),
    Row("13: idle with display, ConnectX-7 on", idle(None, AWAKE), wall=37.0),
    Row("13: idle with display, ConnectX-7 off", idle(None, ASLEEP), wall=25.0),
    Row("13: idle, headless, ConnectX-7 off", idle(None, ASLEEP), wall=22.0),
    Row("13: idle, other tests, least", idle(None, None), wall=40.0),
    Row("13: idle, other tests, most", idle(None, None), wall=45.0),
    Row("13: a language model at work, least", Inputs(), wall=60.0),
    Row("13: a language model at work, most", Inputs(), wall=90.0),
)
#: The rows whose load can tell a gain, as if they were of one box with row 7.
LOADS: Final = FIRMWARE[:5]
#: Nobody published how many cores were busy; so many drive a matrix product.
ASSUMED_CORES: Final = 3.0
#: The second of a demo's timeline at which cores have been seen twice.
AT: Final = 20.0


@dataclass(frozen=True)
class Sum:
    """How many rows are inside, of how many, and how wide their intervals are, in watts."""

    inside: int
    rows: int
    width: float

    def __str__(self) -> str:
        return f"{self.inside} of {self.rows} inside, median width {self.width:.0f} W"


def summed(rows: Sequence[Row]) -> Sum:
    """Sum up rows."""
    return Sum(sum(row.is_inside for row in rows), len(rows), median(interval(row.inputs).width for row in rows))


@dataclass(frozen=True)
class Crossed:
    """One load held against a fit to another."""

    fit: Row
    row: Row
    calibrated: Interval | None
    width: float

    @property
    def is_inside(self) -> bool:
        """Whether the fit to the other load holds for this one."""
        return self.calibrated is not None and self.row.system is not None and not self.calibrated.miss(self.row.system)


def crossed() -> list[Crossed]:
    """Fit the estimate to row 7 and each load in turn, and hold it against the other loads."""
    offset = Anchor(FIRMWARE[6].inputs, 24.5, 25.5)
    found = []
    for one in LOADS:
        fit = fitted(offset, Anchor(_with_cores(one), *_around(one.system or 0)))
        for other in LOADS:
            if other is not one:
                inputs = _with_cores(other)
                plain = interval(inputs)
                found.append(Crossed(one, other, narrowed(plain, inputs, fit, "a test"), plain.width))
    return found


def _with_cores(row: Row) -> Inputs:
    return Inputs(row.inputs.gpu, ASSUMED_CORES, 0.0, ASLEEP)


def _around(watts: float) -> tuple[float, float]:
    return watts - calibration.SPBM_WATTS, watts + calibration.SPBM_WATTS


@dataclass(frozen=True)
class Played:
    """What the estimate says of a demo when all that it rests on is known."""

    name: str
    interval: Interval
    measured: float | None


@cache
def played() -> tuple[Played, ...]:
    """Play each demo that is a GB10."""
    found = []
    for name in demos():
        report = play(open_demo(name), discover(), AT - 1, 1.0)
        if report.snapshot.fact(platform.IS_SPARK):
            estimate = report.estimate
            known = estimate.score.against if estimate.score else estimate.system
            assert isinstance(known, Interval), known
            found.append(Played(name, known, report.power.watts(Scope.SYSTEM)))
    return tuple(found)


def report() -> Iterator[str]:
    """Yield the lines that ``make bench`` prints."""
    yield "the estimate, held against published readings (from which its constants were chosen, too)"
    yield f"  by the firmware       {summed(FIRMWARE)}"
    yield f"  at the wall           {summed(WALL)}"
    fits = crossed()
    widths = median(one.calibrated.width for one in fits if one.calibrated)
    inside = Sum(sum(one.is_inside for one in fits), len(fits), widths)
    yield f"  fitted to another load {inside} ({median(one.width for one in fits):.0f} W without)"
    yield f"  demos (synthetic)     median width {median(one.interval.width for one in played()):.0f} W"


def page() -> str:
    """Return the part of ``docs/estimate.md`` that code writes."""
    fits = crossed()
    fit_width = median(one.calibrated.width for one in fits if one.calibrated)
    narrower = (
        "Where all is known that the estimate rests on, it is narrower. The built-in demos are synthetic, so this is "
        "about width alone:"
    )
    fit_summed = (
        f"Row 7 as the reading at idle, one of the rows 1 to 5 as that under load, and the other four held against it: "
        f"**{sum(one.is_inside for one in fits)} of {len(fits)} inside, median width {fit_width:.0f} W** "
        f"(without the fit {median(one.width for one in fits):.0f} W)."
    )
    return "\n".join(
        (
            "## Held against published readings",
            "",
            f"By the firmware's power page: **{summed(FIRMWARE)}**. At the wall: **{summed(WALL)}**.",
            "",
            *_table(FIRMWARE, "system, measured"),
            "",
            *_table(WALL, "at the wall, and what of it reaches the system"),
            "",
            narrower,
            "",
            "| demo | GPU by NVML | estimated | measured | width |",
            "|---|---:|---:|---:|---:|",
            *(_demo_line(one) for one in played()),
            "",
            "## A fit, held against other loads",
            "",
            fit_summed,
            "",
            "## Constants",
            "",
            "| name | least | most | unit | what | source | confidence |",
            "|---|---:|---:|---|---|---|---|",
            *map(_constant_line, (*terms.CONSTANTS, *calibration.CONSTANTS)),
            "",
        )
    )


def _table(rows: Sequence[Row], title: str) -> Iterator[str]:
    yield f"| row | GPU by NVML | estimated | {title} | inside | width |"
    yield "|---|---:|---:|---:|---|---:|"
    for row in rows:
        found = interval(row.inputs)
        lower, upper = row.measured
        measured = f"{row.system:g} W" if row.wall is None else f"{row.wall:g} W: {lower:.1f}–{upper:.1f} W"
        gpu = "unknown" if row.inputs.gpu is None else f"{row.inputs.gpu:g} W"
        cells = (
            row.name,
            gpu,
            f"{found.lower:.1f}–{found.upper:.1f} W",
            measured,
            "yes" if row.is_inside else "**no**",
            f"{found.width:.0f} W",
        )
        yield f"| {' | '.join(cells)} |"


def _demo_line(one: Played) -> str:
    gpu = next(term.detail for term in one.interval.basis if term.name == "gpu").rpartition("gives ")[2]
    measured = "" if one.measured is None else f"{one.measured:.1f} W"
    bounds = f"{one.interval.lower:.1f}–{one.interval.upper:.1f} W"
    return f"| `{one.name}` | {gpu} | {bounds} | {measured} | {one.interval.width:.0f} W |"


def _constant_line(one: Constant) -> str:
    cells = (f"`{one.name}`", f"{one.lower:.3g}", f"{one.upper:.3g}", one.unit, one.meaning, one.source, one.confidence)
    return f"| {' | '.join(cells)} |"
