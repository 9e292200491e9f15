"""What other exporters here say of the whole machine, and where that is the GPU's power under another name.

Pure: what their pages claim comes from `neighbours`, what is known of this machine from the look. Three tests hold
one against the other:

* *floor*: it reads less than any Spark draws.
* *identity*: it follows NVML's GPU power within noise, over levels far enough apart to tell.
* *contradiction*: it reads less than a part of the machine did all the while.

Exporters tell what they read up to half a minute ago. So nothing is compared with a moment, but with all that was
read here in the last `WINDOW_SECONDS`. docs/misreads.md says how sure each test is.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from itertools import pairwise
from typing import Final

from spark_agent.agent.power import Measured, Power, at_most
from spark_agent.agent.snapshot import Snapshot
from spark_agent.agent.watch import FRESH_SECONDS
from spark_agent.collectors import Quality, Scope, immutable, platform


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
