"""The estimate fitted to one box, by what its owner read off a wall meter or the firmware's power page.

Two readings, at idle and under a load of the GPU. The idle reading is the *offset*: from there on only what changes is
estimated. The load tells the *gain*: where, between the least and the most that GPU and cores may have added, the box
lay. Other loads lie elsewhere, so the gain has an allowance; docs/estimate.md says what it rests on.

It is kept with date, driver and firmware, and holds as long as these are the same.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from spark_agent.agent.snapshot import Snapshot
from spark_agent.agent.state import StateError, failure, write_whole
from spark_agent.agent.terms import (
    CPU_IDLE,
    ETHERNET,
    GROWTH,
    SOC_BASE,
    SOC_IDLE,
    SOC_MOST,
    STORAGE,
    WIFI,
    Card,
    Constant,
    Inputs,
    Interval,
    Term,
    busy_watts,
    card_watts,
    interval,
    rail_watts,
    rounded_down,
    rounded_up,
)
from spark_agent.collectors import Property, immutable, platform

FORMAT: Final = 1
SYSTEM_FILE: Final = Path("/etc/spark-agent/calibration.json")
#: Ten times what two readings take.
_MOST_BYTES: Final = 1 << 15
_MODE: Final = 0o644  # the service, which reads it, is another user

# A wall meter shows AC, and which part of that reaches the system nobody says.
ADAPTER: Final = Constant(
    "adapter",
    0.88,
    0.94,
    "W per W at the wall",
    "adapter's output, from a quarter of its 240 W upward",
    "DoE level VI wants 0.88 on average over 25, 50, 75 and 100 % of the load; 0.94 is the best of its kind",
    "D",
)
ADAPTER_LIGHT: Final = Constant(
    "adapter_light",
    0.79,
    0.94,
    "W per W at the wall",
    "adapter's output, below a quarter of its 240 W",
    "the EU code of conduct for external supplies (version 5, tier 2) wants 0.79 at 10 % of the load",
    "D",
)
INLET: Final = Constant(
    "inlet",
    0.95,
    1.0,
    "W per W of the adapter's output",
    "system, of what enters the board",
    "sys_total ÷ dc_input: 0.96 at idle, 0.98 under load, by two owners",
    "C",
)
_LIGHT_WATTS: Final = 60.0 / ADAPTER.lower
#: What an adapter of 240 W may draw from the wall, in watts.
WALL_MOST: Final = round(240.0 / ADAPTER.lower)

#: How much another load than the one that was read may differ, as a share of what the terms leave open.
ALLOWANCE: Final = 0.25
#: What the firmware's channels swing within its control loop, whatever was seen of it; in watts.
SPBM_WATTS: Final = 0.5
#: What is more is no idle: a GB10 whose GPU has nothing to do was seen with 3 to 13 W by NVML.
IDLE_WATTS: Final = 20.0
IDLE_CORES: Final = 2.0
#: How much more than at idle the GPU must draw under load, by NVML, so that a gain can be told; in watts.
LOAD_WATTS: Final = 15.0

CONSTANTS: Final = (ADAPTER_LIGHT, ADAPTER, INLET)


class CalibrationError(ValueError):
    """A reading that cannot be; one line that says why, and what to do."""


class CalibrationFileError(Exception):
    """A file that holds no calibration; one line that says which file, why, and what to do."""


# Readings


@immutable
class Anchor:
    """What was looked at, and what the system drew then: between ``lower`` and ``upper`` watts."""

    inputs: Inputs
    lower: float
    upper: float


@immutable
class Point:
    """One reading: when, off which meter (``wall`` or ``spbm``), and what it showed, in watts."""

    taken_at: str
    meter: str
    watts: float
    anchor: Anchor

    @property
    def told(self) -> str:
        """The reading in a person's words."""
        read = f"{self.watts:g} W at the wall" if self.meter == "wall" else f"{self.watts:.1f} W by the power page"
        return f"{read}, {self.taken_at[:10]}"


#: What a calibration holds for: with another driver or firmware the same box may draw otherwise.
_IDENTITY: Final[Mapping[str, Property]] = {
    "product": platform.PRODUCT,
    "board": platform.BOARD,
    "bios": platform.BIOS,
    "driver": platform.DRIVER,
}
_WORDS: Final = {"product": "product", "board": "board", "bios": "BIOS", "driver": "driver"}

Identity = Mapping[str, str | None]


def identity(snapshot: Snapshot) -> Identity:
    """Return what a calibration of this machine holds for."""
    return {key: None if (value := snapshot.fact(of)) is None else str(value) for key, of in _IDENTITY.items()}


def told_identity(machine: Identity) -> str:
    """Return it in a person's words."""
    return ", ".join(f"{word} {machine[key] or 'unknown'}" for key, word in _WORDS.items())


def difference(then: Identity, now: Identity) -> str:
    """Say what is another than it was; nothing where all is the same."""
    return ", ".join(
        f"the {_WORDS[key]} was {then[key] or 'unknown'} and is {now[key] or 'unknown'}"
        for key in _IDENTITY
        if then[key] != now[key]
    )


def from_wall(watts: float) -> tuple[float, float]:
    """Return the least and the most that the system draws of what a meter at the wall shows."""
    adapter = ADAPTER_LIGHT if watts < _LIGHT_WATTS else ADAPTER
    return watts * adapter.lower * INLET.lower, watts * adapter.upper * INLET.upper


# The fit


#: The gain of a box of which only the offset is known.
ANY_SHARE: Final = (0.0, 1.0)


@immutable
class Fit:
    """Offset and gain of one box.

    ``share`` is the gain: where it lay between the least and the most that GPU and cores may add, from 0 to 1, with
    the allowance. ``cores`` are how many of each kind were busy at most while it was read.
    """

    idle: Anchor
    share: tuple[float, float] = ANY_SHARE
    cores: tuple[float, float] = (math.inf, math.inf)


def fitted(idle: Anchor, load: Anchor | None = None) -> Fit:
    """Return the fit to one reading or two, or raise `CalibrationError` where no GB10 could give them."""
    _must_be_idle(idle.inputs)
    idle = _possible(idle, "idle")
    if load is None:
        return Fit(idle)
    load = _possible(load, "load")
    gpu, gpu_idle = load.inputs.gpu or 0.0, idle.inputs.gpu or 0.0
    if gpu < gpu_idle + LOAD_WATTS:
        raise CalibrationError(
            f"the load is too light to tell a gain: NVML gives {gpu:.1f} W for the GPU, and {gpu_idle:.1f} W at idle; "
            f"let the GPU work, so that it draws {LOAD_WATTS:g} W more than at idle"
        )
    if load.lower + load.upper <= idle.lower + idle.upper:
        raise CalibrationError(
            f"under load the system draws {_range(load)}, which is no more than at idle, {_range(idle)}; read both anew"
        )
    cores = (
        max(load.inputs.performance or 0.0, idle.inputs.performance or 0.0),
        max(load.inputs.efficiency or 0.0, idle.inputs.efficiency or 0.0),
    )
    least, most = _changes(idle.inputs, load.inputs, cores)
    card_least, card_most = _card_change(idle.inputs.card, load.inputs.card)
    rise_least, rise_most = load.lower - idle.upper, load.upper - idle.lower
    low = (rise_least - card_most - _extras(load.inputs) - least) / (most - least)
    high = (rise_most - card_least - least) / (most - least)
    if high < 0 or low > 1:
        raise CalibrationError(
            f"from idle to load the system rises by {max(0.0, rise_least):.0f}–{rise_most:.0f} W, where "
            f"{least + card_least:.0f}–{most + card_most + _extras(load.inputs):.0f} W are possible; read both anew"
        )
    share = max(0.0, min(1.0, low) - ALLOWANCE), min(1.0, max(0.0, high) + ALLOWANCE)
    return Fit(idle, share, cores)


def _must_be_idle(inputs: Inputs) -> None:
    cores = (inputs.performance or 0.0) + (inputs.efficiency or 0.0)
    if (inputs.gpu or 0.0) > IDLE_WATTS or cores > IDLE_CORES:
        raise CalibrationError(
            f"this is no idle: NVML gives {inputs.gpu or 0:.1f} W for the GPU, and {cores:.1f} cores are busy; read it "
            "when nothing runs"
        )


def _possible(anchor: Anchor, state: str) -> Anchor:
    """Return what of a reading is possible in that state."""
    plain = interval(anchor.inputs)
    lower, upper = max(anchor.lower, plain.lower), min(anchor.upper, plain.upper)
    if lower > upper:
        raise CalibrationError(
            f"the reading at {state} says that the system draws {_range(anchor)}, but as it is now it can only draw "
            f"{plain.lower:g}–{plain.upper:g} W; read again, in watts, of this machine alone"
        )
    return replace(anchor, lower=lower, upper=upper)


def _range(anchor: Anchor) -> str:
    return f"{anchor.lower:.1f}–{anchor.upper:.1f} W"


def narrowed(plain: Interval, inputs: Inputs, fit: Fit, told: str) -> Interval | None:
    """Return what is left of an interval on this box; nothing where the readings contradict what is seen now."""
    low, high = _from_idle(inputs, fit)
    lower, upper = max(plain.lower, rounded_down(low)), min(plain.upper, rounded_up(high))
    if lower > upper:
        return None
    is_gain_known = fit.share != ANY_SHARE
    detail = "two readings of this box" if is_gain_known else "one reading of this box, so only the offset is known"
    term = Term("calibration", detail, lower - plain.lower, upper - plain.upper, told)
    return replace(plain, lower=lower, upper=upper, basis=(*plain.basis, term))


def _from_idle(inputs: Inputs, fit: Fit) -> tuple[float, float]:
    """Return the bounds of a state by what it adds to the reading at idle, where drive and cards were at rest."""
    idle = fit.idle
    least, most = _changes(idle.inputs, inputs, fit.cores)
    changes = [least + share * (most - least) for share in fit.share]
    card_least, card_most = _card_change(idle.inputs.card, inputs.card)
    more_least, more_most = _further_cores(inputs, fit.cores)
    lower = idle.lower + min(changes) + card_least + more_least
    upper = idle.upper + max(changes) + card_most + more_most + _extras(inputs)
    return lower, upper


def _changes(before: Inputs, now: Inputs, cores: tuple[float, float]) -> tuple[float, float]:
    """Return how much GPU and cores add at a share of 0, and at one of 1."""
    least_before, most_before = _added(before, cores)
    least, most = _added(now, cores)
    return least - least_before, most - most_before


def _added(inputs: Inputs, cores: tuple[float, float]) -> tuple[float, float]:
    """Return the least and the most that the GPU and so many busy cores add to a system, in it what they entail."""
    rail, rail_most, fabric = rail_watts(inputs.gpu)
    busy, busy_most = busy_watts(min(inputs.performance or 0.0, cores[0]), min(inputs.efficiency or 0.0, cores[1]))
    # How little the rest of the SoC draws is not known, so neither is how much its limit leaves.
    soc = min(SOC_MOST.upper - SOC_BASE.lower, rail_most + fabric + busy_most)
    growth = GROWTH.upper * max(0.0, min(SOC_MOST.upper, SOC_BASE.upper + CPU_IDLE.upper + soc) - SOC_IDLE)
    return rail + busy, soc + growth


def _further_cores(inputs: Inputs, cores: tuple[float, float]) -> tuple[float, float]:
    """Return what cores add that were not busy when the gain was read, or of which it is not known."""
    if inputs.performance is None or inputs.efficiency is None:
        least, most = 0.0, busy_watts(math.inf, 0.0)[1]
    else:
        least, most = busy_watts(max(0.0, inputs.performance - cores[0]), max(0.0, inputs.efficiency - cores[1]))
    return least, most * (1 + GROWTH.upper)


def _card_change(before: Card | None, now: Card | None) -> tuple[float, float]:
    if before == now and now is not None:
        return 0.0, 0.0
    (least_before, most_before), (least, most) = card_watts(before), card_watts(now)
    return least - most_before, most - least_before


def _extras(inputs: Inputs) -> float:
    """Return what drive and cards at work may add, which nothing tells."""
    return STORAGE.upper + WIFI.upper + (ETHERNET.upper if inputs.ethernet is not False else 0.0)


# What is kept


@dataclass(frozen=True, slots=True)
class Calibration:
    """The readings of one box, what they hold for, and the fit to them."""

    path: Path
    machine: Identity
    idle: Point
    load: Point | None
    fit: Fit

    @classmethod
    def of(cls, path: Path, machine: Identity, idle: Point, load: Point | None = None) -> "Calibration":
        """Fit readings, or raise `CalibrationError`."""
        return cls(path, machine, idle, load, fitted(idle.anchor, load.anchor if load else None))

    @property
    def told(self) -> str:
        """The readings in a person's words."""
        under_load = f"; under load {self.load.told}" if self.load else ""
        return f"idle {self.idle.told}{under_load}"

    def why_not(self, snapshot: Snapshot) -> str:
        """Say why it does not hold for the machine that was looked at; nothing where it does."""
        return difference(self.machine, identity(snapshot))


def paths(environment: Mapping[str, str] | None = None) -> tuple[Path, Path]:
    """Return where a calibration may be: this user's own, and that of the machine, which the service reads."""
    environment = os.environ if environment is None else environment
    config = environment.get("XDG_CONFIG_HOME", "")
    # The specification has a relative path ignored.
    own = Path(config) if config.startswith("/") else Path(environment.get("HOME") or "/") / ".config"
    return own / "spark-agent" / SYSTEM_FILE.name, SYSTEM_FILE


def found(candidates: Iterable[Path]) -> Path | None:
    """Return the first of these files that is there."""
    return next((path for path in candidates if _is_there(path)), None)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder that this user may not enter
        return False


def writable(candidates: tuple[Path, Path]) -> Path:
    """Return where to keep a calibration: for the machine, if this user may, or else for this user."""
    own, system = candidates
    folder = system.parent if system.parent.exists() else system.parent.parent
    return system if os.access(folder, os.W_OK) else own


def load(path: Path) -> Calibration:
    """Read a calibration, or raise `CalibrationFileError`."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise CalibrationFileError(f"{path}: {error.strerror}") from error
    try:
        if len(content) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES} bytes")
        return _parsed(path, json.loads(content))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        lacks = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        why = "".join(letter if letter.isprintable() else "?" for letter in lacks[:300])
        raise CalibrationFileError(
            f"{path}: no calibration: {why}; calibrate anew, after `spark-agent calibrate --forget`"
        ) from error


def save(calibration: Calibration) -> None:
    """Keep a calibration, whole or not at all; raises `StateError`."""
    points = {"idle": calibration.idle, "load": calibration.load}
    content = {
        "format": FORMAT,
        "machine": dict(calibration.machine),
        **{state: _point_json(point) for state, point in points.items() if point},
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path = calibration.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode(), mode=_MODE)
    except FileExistsError as error:
        raise StateError(f"{path.parent}: not a folder; name a file in one") from error
    except OSError as error:
        raise failure(path, error) from error


def forget(path: Path) -> None:
    """Remove a calibration; raises `StateError`."""
    try:
        path.unlink()
    except OSError as error:
        raise failure(path, error) from error


def _point_json(point: Point) -> dict[str, Any]:
    inputs = point.anchor.inputs
    return {
        "taken_at": point.taken_at,
        "meter": point.meter,
        "watts": round(point.watts, 3),
        "system_watts": [round(point.anchor.lower, 3), round(point.anchor.upper, 3)],
        "gpu_nvml_watts": inputs.gpu,
        "busy_performance_cores": inputs.performance,
        "busy_efficiency_cores": inputs.efficiency,
        "connectx7": asdict(inputs.card) if inputs.card else None,
        "ethernet_link": inputs.ethernet,
    }


def _parsed(path: Path, content: Any) -> Calibration:
    if content["format"] != FORMAT:
        raise ValueError(f"format {str(content['format'])[:20]}, and this agent knows {FORMAT}")
    machine = {key: _text_or_none(content["machine"][key]) for key in _IDENTITY}
    load_point = _point(content["load"]) if "load" in content else None
    return Calibration.of(path, machine, _point(content["idle"]), load_point)


def _point(content: Any) -> Point:
    lower, upper = content["system_watts"]
    card = content["connectx7"]
    inputs = Inputs(
        _number(content["gpu_nvml_watts"], SOC_MOST.upper),
        _number(content["busy_performance_cores"], 10_000),
        _number(content["busy_efficiency_cores"], 10_000),
        None if card is None else Card(_text(card["state"]), int(_number(card["cages"], 2))),
        None if content["ethernet_link"] is None else bool(content["ethernet_link"]),
    )
    anchor = Anchor(inputs, _number(lower, 240), _number(upper, 240))
    if anchor.lower > anchor.upper:
        raise ValueError(f"{lower} is more than {upper}")
    taken_at = datetime.fromisoformat(_text(content["taken_at"])).isoformat(timespec="seconds")
    meter = _text(content["meter"])
    if meter not in ("wall", "spbm"):
        raise ValueError(f"no meter: {meter!r}")
    return Point(taken_at, meter, _number(content["watts"], 1000), anchor)


def _number(value: Any, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{value!r} is not a number from 0 to {most:g}")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{value!r} is no text")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)
