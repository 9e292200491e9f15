"""What other exporters here say of the whole machine, and where that is the GPU's power under another name.

Pure: their pages come from `neighbours`, what is known of this machine from the look. A series *claims to be the
machine* where the catalogue says so, or its name or HELP does. Three tests hold it against what is measured here:

* *floor*: it reads less than any Spark draws.
* *identity*: it follows NVML's GPU power within noise, over levels far enough apart to tell.
* *contradiction*: it reads less than a part of the machine did all the while.

Exporters tell what they read up to half a minute ago. So nothing is compared with a moment, but with all that was
read here in the last `WINDOW_SECONDS`. docs/misreads.md says how sure each test is.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from string import digits
from typing import Final

from spark_agent.agent.audit.catalogue import (
    WHOLES,
    Catalogue,
    Dimension,
    Extent,
    Kind,
    Metric,
    Role,
    Unit,
    words_of,
)
from spark_agent.agent.power import Measured, Power, at_most
from spark_agent.agent.snapshot import Snapshot
from spark_agent.agent.watch import FRESH_SECONDS
from spark_agent.collectors import Quality, Scope, immutable, platform

# --- what a page claims -----------------------------------------------------------------------------------------------

#: More of these on one page are no exporter's of one machine; what comes after them is not looked at.
MOST_CLAIMS: Final = 64
#: Lines of a page that can be about power.
_MOST_LINES: Final = 4096
#: Characters of a series, as it is told.
_MOST_LETTERS: Final = 160

#: What a whole machine is called. Not a cluster, and not what a plug feeds: either may be another thing than this box.
_WHOLE: Final = frozenset(
    ("system", "sys", "host", "node", "server", "chassis", "total", "box", "machine", "platform", "whole", "entire")
)
#: Whose power is not the machine's, whatever else the name says.
_PART: Final = frozenset(
    ("gpu", "gpus", "nvidia", "nvml", "dcgm", "cuda", "cpu", "cpus", "core", "cores", "package", "pkg", "soc", "module",
     "rapl", "dram", "memory", "mem", "ane", "npu", "dla", "rail", "nvme", "ssd", "disk", "drive", "nic", "port", "poe",
     "usb", "fan", "pump", "battery", "ups", "pdu", "outlet", "plug", "socket", "container", "pod", "process", "vm",
     "namespace", "job", "request", "cluster", "rack")
)  # fmt: skip
_ESTIMATE: Final = frozenset(("estimate", "estimated", "estimation", "model", "modeled", "modelled", "tdp"))
#: Labels that say what of a machine a sample is.
_OF: Final = ("component", "device", "domain", "kind", "label", "rail", "scope", "sensor", "source", "type", "zone")
_OWN: Final = ("gb10_", "spark_agent_")
#: Labels of which no value leaves this machine, as nowhere else.
_SECRET: Final = re.compile(r"serial|uuid|guid|mac|host|instance|address", re.IGNORECASE)

#: Units that a HELP text gives where the name has none.
_UNITS: Final = {
    "watts": 1.0,
    "watt": 1.0,
    "w": 1.0,
    "milliwatts": 1e3,
    "mw": 1e3,
    "microwatts": 1e6,
    "kilowatts": 1e-3,
}

#: As their exporters mean them: what they are on a GB10 is what is to be found out.
_CATALOGUE: Final = Catalogue(is_gb10=False)

_LINE: Final = re.compile(r"(?:# (?:HELP|TYPE|UNIT) )?(?P<name>[A-Za-z_:][A-Za-z0-9_:]{0,199})(?=[\s{])")
_POWER: Final = re.compile(r"power|watt|_[mukMUK]?[wW](?:_|$)", re.IGNORECASE)
#: What only a page of metrics has: a line of HELP or TYPE, or a name with a number.
_METRICS: Final = re.compile(r"# (?:HELP|TYPE) |[A-Za-z_:][A-Za-z0-9_:]*(?:\{[^}]*\})?\s+[-+]?(?:\d|\.\d|NaN|Inf)")


@immutable
class Claim:
    """One series that claims to be the machine's power, as it is told, and what it reads, in watts."""

    series: str
    watts: float
    #: What tells it from every other series of its page; it stays here.
    key: str = ""


@immutable
class Page:
    """What one exporter claims, or why that is not known."""

    url: str
    claims: tuple[Claim, ...] = ()
    fault: str = ""


def claims(lines: Iterable[str], *, is_openmetrics: bool = False) -> tuple[Claim, ...]:
    """Return what a page of metrics claims; `ValueError` where it is none. Only lines on power are kept and parsed."""
    from prometheus_client import parser
    from prometheus_client.openmetrics import parser as openmetrics_parser

    parse = openmetrics_parser if is_openmetrics else parser
    kept: list[str] = []
    is_metrics = False
    for line in lines:
        is_metrics = is_metrics or _METRICS.match(line) is not None
        if (found := _LINE.match(line)) and _may_claim(found["name"]):
            kept.append(line)
            if len(kept) > _MOST_LINES:
                raise ValueError(f"more than {_MOST_LINES} lines on power")
    if not is_metrics:
        raise ValueError("no metrics")
    text = "\n".join([*kept, "# EOF\n" if is_openmetrics else ""])
    return tuple(_claims(parse.text_string_to_metric_families(text)))[:MOST_CLAIMS]


@lru_cache(maxsize=4096)
def _may_claim(name: str) -> bool:
    return not name.startswith(_OWN) and _POWER.search(name) is not None and _power(name) is not None


def _power(name: str) -> Metric | None:
    """Return what is known of a metric, if it is a reading of some power."""
    metric = _CATALOGUE.find(name)
    is_reading = metric is not None and metric.role is Role.READING and not metric.is_estimate
    is_power = metric is not None and metric.unit.dimension is Dimension.POWER and metric.kind is Kind.GAUGE
    return metric if is_reading and is_power else None


def _claims(families: Iterable[object]) -> Iterator[Claim]:
    for family in families:
        help_, type_ = family.documentation, family.type  # type: ignore[attr-defined]  # prometheus_client.Metric
        if type_ not in ("gauge", "unknown", "untyped"):
            continue
        for sample in family.samples:  # type: ignore[attr-defined]
            metric = _power(sample.name)
            if metric is None or not _is_whole(metric, help_, sample.labels):
                continue
            factor = _factor(metric.unit, help_)
            if factor and math.isfinite(sample.value) and sample.value >= 0:
                key = repr((sample.name, sorted(sample.labels.items())))
                yield Claim(_series(sample.name, sample.labels), sample.value / factor, key)


def _is_whole(metric: Metric, help_: str, labels: Mapping[str, str]) -> bool:
    """Whether a sample claims to be the machine: by the catalogue, else by its name, else by its HELP."""
    said, told = frozenset(words_of(metric.name)), frozenset(words_of(help_))
    about = frozenset(word.rstrip(digits) for label in _OF for word in words_of(labels.get(label, "")))
    if (said | told | about) & _ESTIMATE:
        return False
    if metric.extent is Extent.MIXED:
        return metric.extents.get(labels.get(metric.label, "")) in WHOLES
    if about & _PART:
        return False
    if metric.extent in WHOLES and not metric.is_guess:
        return True
    if said & _PART:
        return False
    return bool(said & _WHOLE) or bool(told & _WHOLE and not told & _PART)


def _factor(unit: Unit, help_: str) -> float | None:
    """Return how many of its unit make a watt; None where neither name nor HELP says."""
    if unit.factor:
        return unit.factor
    return next((_UNITS[word] for word in words_of(help_) if word in _UNITS), None)


def _series(name: str, labels: Mapping[str, str]) -> str:
    """Return a series as a person would write it, short, and without what tells one machine from another."""
    pairs = ((label, json.dumps(value, ensure_ascii=False)) for label, value in sorted(labels.items()))
    told = ",".join(f"{label}={value}" for label, value in pairs if not _SECRET.search(label))
    series = f"{name}{{{told}}}" if told else name
    clean = "".join(letter if letter.isprintable() else "?" for letter in series)
    return clean if len(clean) <= _MOST_LETTERS else f"{clean[:_MOST_LETTERS]}…"


# --- what is held against it ------------------------------------------------------------------------------------------


class Giveaway(StrEnum):
    """What gives a claim away."""

    FLOOR = "floor"
    IDENTITY = "identity"
    CONTRADICTION = "contradiction"


#: No Spark draws less: idle ones were read at 25 W (firmware's system channel, several owners) and at 22 W (at the
#: wall, headless, the ConnectX-7 asleep); 22 W at the wall are some 20 W of the system. The margin below is ours,
#: for nobody published what one draws that is stuck at low power. NVML gives 3 to 5 W for an idle GPU.
FLOOR_WATTS: Final = 15.0

#: How far back an exporter's reading may lie: dcgm-exporter reads each 30 s, the others sooner. The rest is ours.
WINDOW_SECONDS: Final = 35.0
#: What NVML read in a window may differ by this, or this share, to be one level that a claim can be held against.
STEADY_WATTS: Final = 2.0
STEADY_RATIO: Final = 0.04
#: How far from such a level a claim may be: rounding, another window of averaging.
NOISE_WATTS: Final = 0.5
NOISE_RATIO: Final = 0.02
#: Levels at which it has to be the GPU's in a row, and watts by which the two lowest are below the two highest. What
#: the machine draws besides its GPU is 20 W at the least, and what stands still is not at both; the numbers are ours.
IDENTITY_LEVELS: Final = 12
MOVED_WATTS: Final = 15.0

#: The parts of a machine that are held against a claim, the greatest first.
_PARTS: Final = (Scope.SOC, Scope.GPU_RAIL, Scope.GPU_NVML)
#: Seconds without a new page after which what it said is not told any more.
OLD_SECONDS: Final = 90.0
#: Series that are told at most: each is a label.
MOST_SERIES: Final = 20


@immutable
class Misread:
    """One series that claims to be the machine and is not, by one test."""

    series: str
    kind: Giveaway
    url: str
    claimed: Measured
    evidence: str


@immutable
class Hearsay:
    """What other exporters here say: of each that was asked why it cannot be told, or ""; and what is misread."""

    exporters: Mapping[str, str]
    misreads: tuple[Misread, ...] = ()


@immutable
class _Track:
    """The levels at which a series was the GPU's, without one between at which it was not."""

    count: int = 0
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()

    def and_at(self, level: float) -> "_Track":
        lows, highs = sorted((*self.lows, level)), sorted((*self.highs, level))
        return _Track(self.count + 1, tuple(lows[:2]), tuple(highs[-2:]))

    @property
    def tells(self) -> bool:
        """Whether that is enough. No level alone decides: one may be chance."""
        return self.count >= IDENTITY_LEVELS and min(self.highs) - max(self.lows) >= MOVED_WATTS


class Listener:
    """Holds the pages of exporters against one machine, look after look. It belongs to who looks."""

    def __init__(self, pages: Callable[[], Iterable[Page]]) -> None:
        """Listen to ``pages``, of each exporter the last: one that is new is another object than the one before."""
        self._pages = pages
        self._past: deque[tuple[float, Mapping[Scope, float]]] = deque()
        self._heard: dict[str, tuple[float, Page, tuple[Misread, ...]]] = {}
        self._tracks: dict[str, dict[str, _Track]] = {}

    def hear(self, snapshot: Snapshot, power: Power) -> Hearsay:
        """Take in one look, with what the exporters have said since the one before."""
        at = snapshot.at
        self._remember(at, power)
        is_spark = snapshot.fact(platform.IS_SPARK) is True
        for page in self._pages():
            if page.url not in self._heard or self._heard[page.url][1] is not page:
                self._heard[page.url] = at, page, tuple(self._judge(at, page)) if is_spark else ()
        fresh = [heard for heard in self._heard.values() if at - heard[0] <= OLD_SECONDS]
        told = [_aged(misread, at - heard_at) for heard_at, _, misreads in fresh for misread in misreads]
        return Hearsay({url: _fault(at, *heard[:2]) for url, heard in sorted(self._heard.items())}, _most(told))

    def _remember(self, at: float, power: Power) -> None:
        if self._past and at < self._past[-1][0]:
            self._past.clear()  # a replay that began anew
        known = ((scope, power.scopes[scope]) for scope in _PARTS)
        now = {scope: one.value for scope, one in known if isinstance(one, Measured) and one.age <= FRESH_SECONDS}
        self._past.append((at, now))
        while self._past[0][0] < at - WINDOW_SECONDS - FRESH_SECONDS:
            self._past.popleft()

    def _window(self, at: float, scope: Scope) -> tuple[float, float] | None:
        """Return the least and the most of a scope in the window; None where a part of it was not seen."""
        seen = [(then, watts[scope]) for then, watts in self._past if scope in watts]
        times = [at - WINDOW_SECONDS, *(then for then, _ in seen if then > at - WINDOW_SECONDS), at]
        is_whole = bool(seen) and seen[0][0] <= times[0]
        if not is_whole or any(later - then > FRESH_SECONDS for then, later in pairwise(times)):
            return None
        values = [watts for _, watts in seen]
        return min(values), max(values)

    def _judge(self, at: float, page: Page) -> Iterator[Misread]:
        if page.fault:
            return  # what it is when it answers again goes on from here
        windows = {scope: window for scope in _PARTS if (window := self._window(at, scope))}
        before = self._tracks.get(page.url, {})
        self._tracks[page.url] = tracks = {}
        for claim in page.claims:
            track = _follow(before.get(claim.key, _Track()), claim.watts, windows.get(Scope.GPU_NVML))
            tracks[claim.key] = track
            for kind, why in _giveaways(claim.watts, track, windows, self._past[-1][1]):
                source = f"{claim.series} of {page.url}"
                claimed = Measured(claim.watts, "W", Scope.SYSTEM, Quality.UNTRUSTED, source, 0.0)
                yield Misread(claim.series, kind, page.url, claimed, why)


_Windows = Mapping[Scope, tuple[float, float]]


def _follow(track: _Track, watts: float, window: tuple[float, float] | None) -> _Track:
    """Return a track after one more reading. What a GPU that changes all the time might have been says nothing."""
    if window is None:
        return track
    low, high = window
    level = (low + high) / 2
    noise = max(NOISE_WATTS, NOISE_RATIO * level)
    if not low - noise <= watts <= high + noise:
        return _Track()
    return track.and_at(level) if high - low <= max(STEADY_WATTS, STEADY_RATIO * level) else track


def _giveaways(
    watts: float, track: _Track, windows: _Windows, now: Mapping[Scope, float]
) -> Iterator[tuple[Giveaway, str]]:
    if watts < FLOOR_WATTS:
        nvml = now.get(Scope.GPU_NVML)
        beside = "" if nvml is None else f"; NVML gives {nvml:.1f} W for the GPU"
        yield Giveaway.FLOOR, f"a Spark draws no less than {FLOOR_WATTS:.0f} W, idle 22 to 25 W{beside}"
    if track.tells:
        levels = f"from {min(track.lows):.1f} to {max(track.highs):.1f} W"
        yield Giveaway.IDENTITY, f"it was NVML's GPU power {track.count} times in a row, {levels}"
    for scope in _PARTS:
        if scope in windows and windows[scope][0] > at_most(watts):
            least, seconds = windows[scope][0], WINDOW_SECONDS
            yield (
                Giveaway.CONTRADICTION,
                f"{_NAMES[scope]}, a part of it, read {least:.1f} W or more for {seconds:.0f} s",
            )
            return


_NAMES: Final = {Scope.SOC: "the SoC", Scope.GPU_RAIL: "the GPU's rail", Scope.GPU_NVML: "the GPU (NVML)"}


def _fault(at: float, heard_at: float, page: Page) -> str:
    return page.fault or ("" if at - heard_at <= OLD_SECONDS else f"no answer for {at - heard_at:.0f} s")


def _aged(misread: Misread, seconds: float) -> Misread:
    return replace(misread, claimed=replace(misread.claimed, age=seconds))


def _most(misreads: Iterable[Misread]) -> tuple[Misread, ...]:
    """Return those of the first `MOST_SERIES` series, in a fixed order."""
    found = sorted(misreads, key=lambda misread: (misread.series, misread.url, misread.kind))
    told = list(dict.fromkeys(misread.series for misread in found))[:MOST_SERIES]
    return tuple(misread for misread in found if misread.series in told)
