"""The power budget: limits, headroom, and the verdict on each scope. No I/O, no clock.

Limits are read before they are assumed, and a reading is only ever held against a limit of its own scope.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from spark_agent.agent.power import Measured, Power, Unmeasured
from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import Absence, Reading, Reason, Scope, gpu, immutable, platform
from spark_agent.collectors._power import CEILING, FLOOR, LIMIT, PUBLISHED


class LimitOrigin(StrEnum):
    """Who says so."""

    FIRMWARE = "firmware"
    DRIVER = "driver"
    VENDOR_DOC = "vendor_doc"
    USER = "user"

    @property
    def words(self) -> str:
        """Where a person would look for it."""
        return _ORIGIN_WORDS[self]


_ORIGIN_WORDS: Final = {
    LimitOrigin.FIRMWARE: "limit read from the firmware",
    LimitOrigin.DRIVER: "limit read from the GPU's driver",
    LimitOrigin.VENDOR_DOC: "limit from NVIDIA's user guide, not read",
    LimitOrigin.USER: "limit set below the embedded controller's",
}


@immutable
class Limit:
    """What a scope may draw, in watts."""

    name: str
    scope: str
    watts: float
    origin: LimitOrigin
    source: str
    ceiling: float | None = None
    floor: float | None = None
    published: float | None = None

    @property
    def title(self) -> str:
        """What it is called where a person reads it."""
        return _LIMIT_TITLES.get(self.name, self.name)


_LIMIT_TITLES: Final = {
    "pl1": "PL1 (SoC, sustained)",
    "pl2": "PL2 (SoC, short)",
    "syspl1": "SysPL1 (system, sustained)",
    "syspl2": "SysPL2 (system, short)",
    "soc_tdp": "SoC TDP",
    "nvml": "the GPU's own",
}

_VENDOR_PAGE: Final = "NVIDIA, DGX Spark User Guide, Hardware Overview (docs.nvidia.com/dgx/dgx-spark/hardware.html)"

#: What NVIDIA says a Spark may draw, used where the firmware does not say.
VENDOR_LIMITS: Final = (
    Limit("adapter", Scope.DC_INPUT, 240.0, LimitOrigin.VENDOR_DOC, _VENDOR_PAGE),
    Limit("soc_tdp", Scope.SOC, 140.0, LimitOrigin.VENDOR_DOC, _VENDOR_PAGE),
    Limit("rest", "rest", 100.0, LimitOrigin.VENDOR_DOC, _VENDOR_PAGE),
)

#: The firmware's fallback where the embedded controller published no limits: 20 W for the SoC, 30 W for the system.
FALLBACK_WATTS: Final = {Scope.SOC: 20.0, Scope.SYSTEM: 30.0}
#: At or below this, a limit has collapsed.
COLLAPSED_WATTS: Final = {Scope.SOC: 30.0, Scope.SYSTEM: 40.0}

AT_LIMIT: Final = 0.98
NEAR_LIMIT: Final = 0.90
#: How far below a threshold its verdict ends, so that one that hovers there does not flap.
HYSTERESIS: Final = 0.02
#: Seconds that a limit of the firmware's may be exceeded: its control loop takes some. The adapter's may not at all.
OVER_SECONDS: Final = 30.0
#: What is older is not counted as time spent at a limit.
_OF_NOW_SECONDS: Final = 5.0
#: No verdict looks back further than this, so an older reading supports none.
STALE_SECONDS: Final = 30.0


class Standing(StrEnum):
    """Where a scope stands; the first that fits, in this order."""

    UNMEASURED = "unmeasured"
    STALE = "stale"
    ERROR = "error"
    IMPOSSIBLE = "impossible"
    CAPPED_LOW = "capped_low"
    LIMITS_UNPUBLISHED = "limits_unpublished"
    OVER_BUDGET = "over_budget"
    AT_LIMIT = "at_limit"
    NEAR_LIMIT = "near_limit"
    WITHIN = "within"


@immutable
class Verdict:
    """The standing of one scope, and what it rests on; not ``conclusive`` where something harmless looks the same."""

    standing: Standing
    reason: str
    evidence: tuple[str, ...] = ()
    conclusive: bool = True


@dataclass(frozen=True, slots=True)
class Headroom:
    """How far the machine is from the limit that binds first, in watts; negative when beyond it."""

    watts: float
    limit: Limit
    against: Measured


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits, headroom and verdicts of one look; ``unreadable`` says which limits have a channel but no value.

    ``shares`` says how much of each limit is drawn, by its name, and ``over_since`` since when a limit has been
    exceeded, in seconds of the machine's clock.
    """

    limits: tuple[Limit, ...]
    headroom: Headroom | Unmeasured
    verdicts: Mapping[str, Verdict]
    unreadable: Mapping[str, Absence] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    over_since: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Past:
    """How one scope stood a look ago, and which limits have been exceeded for long enough to say so."""

    standing: Standing | None
    over: frozenset[str]


def judge(snapshot: Snapshot, power: Power, before: Budget | None = None, *, watching: bool = False) -> Budget:
    """Hold the power that was read against the limits of the same scope.

    One look judges the moment. Who is ``watching``, look after look, gives the budget of the look before.
    """
    limits = tuple(_limits(snapshot))
    unreadable = _unreadable(snapshot)
    shares = {
        limit.name: _ratio(limit, against)
        for limit in limits
        if (against := _against(limit, power)) and against.age <= _OF_NOW_SECONDS
    }
    since = before.over_since if before else {}
    over_since = {name: since.get(name, snapshot.at) for name, share in shares.items() if share > 1}
    patience = OVER_SECONDS if watching else 0.0
    over = frozenset(name for name, at in over_since.items() if snapshot.at - at >= patience)
    past = {
        scope: _Past(before.verdicts[scope].standing if before else None, over) for scope in ("system", "soc", "gpu")
    }
    verdicts = {
        "system": _verdict(Scope.SYSTEM, power, limits, unreadable, past["system"]),
        "soc": _verdict(Scope.SOC, power, limits, unreadable, past["soc"]),
        "gpu": _gpu_verdict(power, limits, unreadable, past["gpu"]),
    }
    headroom = _headroom(power, limits, unreadable)
    return Budget(limits, headroom, verdicts, unreadable, shares, over_since)


_FIRMWARE_LIMITS: Final = {
    "pl1": Scope.SOC,
    "pl2": Scope.SOC,
    "syspl1": Scope.SYSTEM,
    "syspl2": Scope.SYSTEM,
}


def _limits(snapshot: Snapshot) -> Iterator[Limit]:
    for name, scope in _FIRMWARE_LIMITS.items():
        if reading := snapshot.reading(LIMIT, scope, name):
            ceiling, floor, published = (
                _watts(snapshot.reading(of, scope, name)) for of in (CEILING, FLOOR, PUBLISHED)
            )
            # The lowest of several slots applies: below the controller's own, it is that of the OS or of the UEFI.
            is_set = published is not None and reading.value < published
            origin = LimitOrigin.USER if is_set else LimitOrigin.FIRMWARE
            yield Limit(name, scope, reading.value, origin, reading.origin, ceiling, floor, published)
    if (readings := snapshot.readings(gpu.LIMIT)) and not snapshot.absence(gpu.LIMIT):
        total = sum(reading.value for reading in readings)
        source = f"nvml {gpu.LIMIT.source}" + (f", sum of {len(readings)} GPUs" if len(readings) > 1 else "")
        yield Limit("nvml", Scope.GPU_NVML, total, LimitOrigin.DRIVER, source)
    if snapshot.fact(platform.IS_SPARK) is True:
        yield from VENDOR_LIMITS


def _watts(reading: Reading | None) -> float | None:
    return None if reading is None else reading.value


def _unreadable(snapshot: Snapshot) -> dict[str, Absence]:
    """Return why a limit cannot be read though it has a channel, or that the embedded controller never published it."""
    found: dict[str, Absence] = {}
    for name, scope in _FIRMWARE_LIMITS.items():
        published, limit = snapshot.absence(PUBLISHED, scope, name), snapshot.absence(LIMIT, scope, name)
        if published and published.reason is Reason.NO_DATA:
            found[name] = published
        elif limit and limit.reason is not Reason.NOT_SUPPORTED:
            found[name] = limit
    return found


def _known(power: Power, scope: Scope) -> Measured | Unmeasured:
    """Return the power of a scope, or the firmware's own average of it where the channel itself is not there."""
    known = power.scopes[scope]
    if isinstance(known, Measured) or known.reason in _NOT_TO_BE_BELIEVED:
        return known
    return next((average for average in power.averages.values() if average.scope is scope), known)


_SCOPES: Final[Mapping[str, Scope]] = {scope.value: scope for scope in Scope}


def _against(limit: Limit, power: Power) -> Measured | None:
    """Return the reading that a limit binds: the firmware's own average where there is one, or the scope's power."""
    scope = _SCOPES.get(limit.scope)
    if scope is None:
        return None
    known = _known(power, scope)
    if isinstance(known, Unmeasured) or known.age > STALE_SECONDS:
        return None
    return power.averages.get(limit.name, known)


def _in_force(limits: Iterable[Limit], unreadable: Mapping[str, Absence]) -> list[Limit]:
    """Leave out NVIDIA's figure for the SoC where the firmware has one of its own, known or not."""
    names = {limit.name for limit in limits} | set(unreadable)
    return [limit for limit in limits if limit.name != "soc_tdp" or "pl1" not in names]


def _headroom(power: Power, limits: tuple[Limit, ...], unreadable: Mapping[str, Absence]) -> Headroom | Unmeasured:
    of_machine = [limit for limit in _in_force(limits, unreadable) if limit.scope != Scope.GPU_NVML]
    if unread := set(unreadable) - {limit.name for limit in limits}:
        names = ", ".join(_LIMIT_TITLES[name] for name in sorted(unread))
        return Unmeasured(Reason.NO_DATA, f"which limit binds first is not known, for these cannot be read: {names}")
    if not of_machine:
        return Unmeasured(Reason.NO_DATA, "no limit on the power of this machine as a whole is known")
    rooms = [
        Headroom(limit.watts - against.value, limit, against)
        for limit in of_machine
        if (against := _against(limit, power))
    ]
    # The SoC's limit is the first to bind, at about 170 W of the adapter's 240: without it, any figure is too high.
    if not any(room.limit.scope == Scope.SOC for room in rooms):
        soc = power.scopes[Scope.SOC]
        reason = soc.reason if isinstance(soc, Unmeasured) else Reason.NO_DATA
        return Unmeasured(reason, "the SoC's limit is the first to bind, and what the SoC draws is not known")
    return min(rooms, key=lambda room: room.watts)


def _verdict(
    scope: Scope, power: Power, limits: tuple[Limit, ...], unreadable: Mapping[str, Absence], past: _Past
) -> Verdict:
    known = _known(power, scope)
    if isinstance(known, Unmeasured):
        return _without(known)
    if known.age > STALE_SECONDS:
        return _stale(known)
    if held := _held_low(scope, limits, unreadable):
        return replace(held, evidence=(*held.evidence, _drawn(known)))
    own = [limit for limit in _in_force(limits, unreadable) if limit.scope == scope]
    compared = [(limit, against) for limit in own if (against := _against(limit, power))]
    if scope is Scope.SYSTEM:
        entering = [limit for limit in limits if limit.scope == Scope.DC_INPUT]
        compared += [(limit, against) for limit in entering if (against := _entering(power, limit))]
    return _compared(compared, past)


def _entering(power: Power, limit: Limit) -> Measured | None:
    """Return what enters the board; where that is not measured, the system if it alone is above the limit."""
    entering, system = power.scopes[Scope.DC_INPUT], power.scopes[Scope.SYSTEM]
    if isinstance(entering, Measured):
        return entering
    return system if isinstance(system, Measured) and system.value > limit.watts else None


def _stale(known: Measured) -> Verdict:
    return Verdict(Standing.STALE, f"the last reading is {known.age:.0f} s old", (known.source,))


_NO_LIMIT: Final = "no limit is known that it could exceed"
_NOT_TO_BE_BELIEVED: Final = (Reason.IMPOSSIBLE, Reason.GARBAGE, Reason.OVERFLOW)
_WHY_UNMEASURED: Final = {
    Reason.NO_DRIVER: "no driver for the firmware's power page is installed",
    Reason.NO_DEVICE: "this machine has no sensor for it",
    Reason.NO_LIBRARY: "there is no NVIDIA driver library",
    Reason.NOT_ASKED: "it was left out of this look",
}


def _without(known: Unmeasured) -> Verdict:
    evidence = (known.detail,) if known.detail else ()
    why = _WHY_UNMEASURED.get(known.reason, known.reason.replace("_", " "))
    if known.reason in _NOT_TO_BE_BELIEVED:
        return Verdict(Standing.IMPOSSIBLE, "what was read cannot be true, so there is no number", evidence)
    if known.reason.is_fault:
        return Verdict(Standing.ERROR, f"it could not be read: {why}", evidence)
    return Verdict(Standing.UNMEASURED, f"nothing measures it: {why}", evidence)


def _drawn(known: Measured) -> str:
    return f"{known.value:.1f} W drawn now ({known.source})"


def _told(name: str, why: Absence) -> str:
    what = "was not published" if why.reason is Reason.NO_DATA else "cannot be read"
    return f"{_LIMIT_TITLES[name]} {what}: {why.detail or why.reason}"


def _held_low(scope: Scope, limits: Iterable[Limit], unreadable: Mapping[str, Absence]) -> Verdict | None:
    """Say if the limits of a scope have collapsed, or are not to be had."""
    low = [limit for limit in limits if limit.scope == scope and limit.watts <= COLLAPSED_WATTS[scope]]
    lost = {name: why for name, why in unreadable.items() if _FIRMWARE_LIMITS[name] is scope}
    unpublished = any(why.reason is Reason.NO_DATA for why in lost.values())
    evidence = (
        *(f"{limit.title} is {limit.watts:g} W ({limit.source})" for limit in low),
        *(_told(name, why) for name, why in lost.items()),
    )
    if not low:
        if unpublished:
            return Verdict(Standing.LIMITS_UNPUBLISHED, "the embedded controller has published no limit", evidence)
        if lost:
            reason = "the limit in force cannot be read"
            return Verdict(Standing.LIMITS_UNPUBLISHED, reason, evidence, conclusive=False)
        return None
    least, fallback = min(low, key=lambda limit: limit.watts), FALLBACK_WATTS[scope]
    is_fallback = any(limit.watts == fallback and limit.origin is LimitOrigin.FIRMWARE for limit in low)
    if is_fallback or unpublished:
        reason = f"held at {least.watts:g} W, as the firmware does when the embedded controller gives it no limit"
        return Verdict(Standing.CAPPED_LOW, reason, evidence)
    if least.published:
        why = f"the embedded controller allows {least.published:g} W, so somebody has set it"
    else:
        why = f"this is not the firmware's fallback of {fallback:g} W, so somebody may have set it"
    return Verdict(Standing.CAPPED_LOW, f"held at {least.watts:g} W; {why}", evidence, conclusive=False)


def _ratio(limit: Limit, against: Measured) -> float:
    # Rounded, so that 137.2 of 140 W are 98 %.
    return round(against.value / limit.watts, 6)


#: The standings that a threshold separates, the higher first.
_GRADES: Final = (Standing.OVER_BUDGET, Standing.AT_LIMIT, Standing.NEAR_LIMIT)


def _threshold(standing: Standing, threshold: float, past: _Past) -> float:
    """Return where a standing begins; for a scope that is in it, or above, where it ends."""
    held = past.standing in _GRADES[: _GRADES.index(standing) + 1]
    return threshold - HYSTERESIS if held else threshold


def _compared(pairs: Iterable[tuple[Limit, Measured]], past: _Past) -> Verdict:
    ratios = sorted(
        ((_ratio(limit, against), limit, against) for limit, against in pairs),
        key=lambda compared: -compared[0],
    )
    if not ratios:
        return Verdict(Standing.WITHIN, _NO_LIMIT)
    evidence = tuple(
        f"{_share(limit, against)}, {100 * ratio:.1f} % ({against.source}; {limit.origin.words})"
        for ratio, limit, against in ratios
    )
    ratio, limit, against = ratios[0]
    told = _share(limit, against)
    if any(_is_over(limit, ratio, past) for ratio, limit, _ in ratios):
        return Verdict(Standing.OVER_BUDGET, f"above its limit: {told}", evidence)
    if ratio >= _threshold(Standing.AT_LIMIT, AT_LIMIT, past):
        return Verdict(Standing.AT_LIMIT, f"at its limit: {told}", evidence)
    if ratio > _threshold(Standing.NEAR_LIMIT, NEAR_LIMIT, past):
        return Verdict(Standing.NEAR_LIMIT, f"near its limit: {told}", evidence)
    return Verdict(Standing.WITHIN, f"nearest limit: {told}", evidence)


def _is_over(limit: Limit, ratio: float, past: _Past) -> bool:
    if limit.scope == Scope.DC_INPUT:
        return ratio > _threshold(Standing.OVER_BUDGET, 1.0, past)
    return limit.scope == Scope.SYSTEM and ratio > 1 and limit.name in past.over


def _share(limit: Limit, against: Measured) -> str:
    return f"{limit.title}, {against.value:.1f} of {limit.watts:g} W"


def _gpu_verdict(power: Power, limits: tuple[Limit, ...], unreadable: Mapping[str, Absence], past: _Past) -> Verdict:
    both = power.scopes[Scope.GPU_RAIL], power.scopes[Scope.GPU_NVML]
    known = [one for one in both if isinstance(one, Measured)]
    unknown = [one for one in both if isinstance(one, Unmeasured)]
    if doubtful := [one for one in unknown if one.reason in _NOT_TO_BE_BELIEVED]:
        return _without(doubtful[0])
    if not known:
        return _without(next((one for one in unknown if one.reason.is_fault), unknown[-1]))
    if all(one.age > STALE_SECONDS for one in known):
        return _stale(known[0])
    if own := [(limit, one) for limit in limits if limit.scope == Scope.GPU_NVML and (one := _against(limit, power))]:
        return _compared(own, past)
    drawn = tuple(_drawn(one) for one in known)
    if held := _held_low(Scope.SOC, limits, unreadable):
        return replace(held, reason=f"it shares the SoC's limit: {held.reason}", evidence=(*held.evidence, *drawn))
    if any(limit.scope == Scope.SOC for limit in limits):
        return Verdict(Standing.WITHIN, "it has no limit of its own; the SoC's limit holds for both", drawn)
    return Verdict(Standing.WITHIN, _NO_LIMIT, drawn)
