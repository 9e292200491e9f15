"""The power budget: limits, headroom, and the verdict on each scope. No I/O, no clock.

Limits are read before they are assumed, and a reading is only ever held against a limit of its own scope; but what a
part draws, its whole draws at the least. The figures are those of `budget_table`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from spark_agent.agent.budget_table import CAPS, RATINGS, REST
from spark_agent.agent.power import Measured, Power, Unmeasured
from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import Absence, Reading, Reason, Scope, gpu, immutable, platform
from spark_agent.collectors._power import CEILING, FLOOR, LIMIT, PUBLISHED

if TYPE_CHECKING:
    from spark_agent.agent.config import Settings


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
        return (_SET_TITLES if self.is_set else _LIMIT_TITLES).get(self.name, self.name)

    @property
    def words(self) -> str:
        """Who says so, in words."""
        return "limit from the settings" if self.is_set else self.origin.words

    @property
    def is_set(self) -> bool:
        """Whether the owner said so in the agent's settings: the firmware knows nothing of it."""
        return self.origin is LimitOrigin.USER and self.name not in _FIRMWARE_LIMITS


#: What the firmware enforces, and nobody else can raise from here.
_FIRMWARE_LIMITS: Final = {cap.name: cap.scope for cap in CAPS}

_LIMIT_TITLES: Final = {row.name: row.title for row in (*CAPS, *RATINGS)} | {"nvml": "the GPU's own"}
_SET_TITLES: Final = _LIMIT_TITLES | {"soc_tdp": "SoC (as set)", "system": "system (as set)"}

#: What NVIDIA says a Spark may draw, used where neither the firmware nor the owner says.
VENDOR_LIMITS: Final = tuple(
    Limit(row.name, row.scope, row.watts, LimitOrigin.VENDOR_DOC, row.source) for row in RATINGS
)

#: The firmware's fallback where the embedded controller published no limits: 20 W for the SoC, 30 W for the system.
FALLBACK_WATTS: Final = {cap.scope: cap.fallback for cap in CAPS}
#: At or below this, a limit has collapsed: somewhat above the fallback, far below any use.
COLLAPSED_WATTS: Final = {Scope.SOC: 30.0, Scope.SYSTEM: 40.0}

AT_LIMIT: Final = 0.98
NEAR_LIMIT: Final = 0.90
#: How far below a threshold its verdict ends, so that one that hovers there does not flap.
HYSTERESIS: Final = 0.02
#: Seconds that a limit of the firmware's may be exceeded: its control loop takes some. The adapter's may not at all.
OVER_SECONDS: Final = 30.0
#: What is older is not counted as time spent at a limit.
_OF_NOW_SECONDS: Final = 5.0
#: Two readings that are further apart than this are not of one look.
_ONE_LOOK_SECONDS: Final = 1.0
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


_NOT_ASKED: Final = Unmeasured(Reason.NOT_ASKED, "")


@immutable
class Rest:
    """What the system draws besides its SoC, in watts, and the limit that it has; nothing enforces that one."""

    watts: float
    source: str
    age: float
    limit: Limit | None

    @property
    def share(self) -> float:
        """How much of the limit that is; nothing of none."""
        return _share_of(self.limit, self.watts) if self.limit else 0.0

    @property
    def standing(self) -> Standing:
        """Where it stands."""
        share = self.share
        return Standing.OVER_BUDGET if share > 1 else Standing.NEAR_LIMIT if share > NEAR_LIMIT else Standing.WITHIN

    @property
    def brief(self) -> str:
        """How that is, in a few words."""
        limit = f" of {self.limit.watts:g} W, which nothing enforces" if self.limit else " W"
        return f"all but the SoC, {self.watts:.1f}{limit}"

    @property
    def told(self) -> str:
        """How that is, with share, source and who says so."""
        if not self.limit:
            return f"{self.brief} ({self.source})"
        return f"{self.brief}, {100 * self.share:.1f} % ({self.source}; {self.limit.words})"


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits, headroom and verdicts of one look; ``unreadable`` says which limits have a channel but no value.

    ``shares`` says how much of each limit is drawn, by its name, and ``over_since`` since when a limit has been
    exceeded, in seconds of the machine's clock. ``rest`` is what the system draws besides its SoC.
    """

    limits: tuple[Limit, ...]
    headroom: Headroom | Unmeasured
    verdicts: Mapping[str, Verdict]
    unreadable: Mapping[str, Absence] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    over_since: Mapping[str, float] = field(default_factory=dict)
    rest: Rest | Unmeasured = _NOT_ASKED


@dataclass(frozen=True, slots=True)
class _Past:
    """How one scope stood a look ago, and which limits have been exceeded for long enough to say so."""

    standing: Standing | None
    over: frozenset[str]


def judge(
    snapshot: Snapshot,
    power: Power,
    before: Budget | None = None,
    *,
    watching: bool = False,
    own: Sequence[Limit] = (),
) -> Budget:
    """Hold the power that was read against the limits of the same scope.

    One look judges the moment. Who is ``watching``, look after look, gives the budget of the look before. ``own`` are
    the limits that the owner has set (`own_limits`).
    """
    limits = tuple(_limits(snapshot, own))
    unreadable = _unreadable(snapshot)
    rest = _rest(power, limits)
    drawn = {limit.name: against for limit in limits if (against := _against(limit, power))}
    shares = {
        limit.name: _ratio(limit, against)
        for limit in limits
        if (against := drawn.get(limit.name)) and against.age <= _OF_NOW_SECONDS
    }
    if isinstance(rest, Rest) and rest.limit and rest.age <= _OF_NOW_SECONDS:
        shares[REST] = rest.share
    since = before.over_since if before else {}
    over_since = {name: since.get(name, snapshot.at) for name, share in shares.items() if share > 1}
    patience = OVER_SECONDS if watching else 0.0
    over = frozenset(name for name, at in over_since.items() if snapshot.at - at >= patience)
    past = {
        scope: _Past(before.verdicts[scope].standing if before else None, over) for scope in ("system", "soc", "gpu")
    }
    system = _verdict(Scope.SYSTEM, power, limits, drawn, unreadable, past["system"])
    verdicts = {
        "system": _with_rest(system, rest),
        "soc": _verdict(Scope.SOC, power, limits, drawn, unreadable, past["soc"]),
        "gpu": _gpu_verdict(power, limits, drawn, unreadable, past["gpu"]),
    }
    headroom = _headroom(power, limits, drawn, unreadable)
    return Budget(limits, headroom, verdicts, unreadable, shares, over_since, rest)


def own_limits(settings: "Settings") -> tuple[Limit, ...]:
    """Return the limits that the owner has set, each with where.

    They take the place of NVIDIA's figure of the same name. What the firmware enforces stays beside them.
    """
    watts = {
        ("adapter", Scope.DC_INPUT, "power.adapter-watts"): settings.power_adapter_watts,
        ("soc_tdp", Scope.SOC, "power.soc-watts"): settings.power_soc_watts,
        (REST, REST, "power.rest-watts"): settings.power_rest_watts,
        ("system", Scope.SYSTEM, "power.system-watts"): settings.power_system_watts,
    }
    return tuple(
        Limit(name, scope, value, LimitOrigin.USER, settings.origin_of(setting))
        for (name, scope, setting), value in watts.items()
        if value is not None
    )


def _limits(snapshot: Snapshot, own: Iterable[Limit]) -> Iterator[Limit]:
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
    said = {limit.name: limit for limit in own}
    if snapshot.fact(platform.IS_SPARK) is True:
        for limit in VENDOR_LIMITS:
            yield said.pop(limit.name, limit)
    yield from said.values()


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


def _fresh(power: Power, scope: Scope) -> Measured | None:
    known = _known(power, scope)
    return known if isinstance(known, Measured) and known.age <= STALE_SECONDS else None


_SCOPES: Final[Mapping[str, Scope]] = {scope.value: scope for scope in Scope}

#: Whose average a limit is held against that the firmware does not know: the sustained one of its scope.
_AVERAGED_AS: Final = {"soc_tdp": "pl1", "system": "syspl1"}


def _against(limit: Limit, power: Power) -> Measured | None:
    """Return the reading that a limit binds: the firmware's own average where there is one, or the scope's power."""
    scope = _SCOPES.get(limit.scope)
    known = _fresh(power, scope) if scope else None
    return known and power.averages.get(_AVERAGED_AS.get(limit.name, limit.name), known)


#: What is drawn of each limit, by its name: a reading of the limit's own scope.
_Drawn = Mapping[str, Measured]

#: The parts of a whole that are measured by themselves, the next first.
_PARTS: Final[Mapping[str, tuple[Scope, ...]]] = {
    Scope.DC_INPUT: (Scope.SYSTEM, Scope.SOC),
    Scope.SYSTEM: (Scope.SOC,),
}


def _at_least(limit: Limit, power: Power) -> Measured | None:
    """Return what is surely drawn of a limit whose own scope is not measured: what a part of it draws."""
    return next((part for scope in _PARTS.get(limit.scope, ()) if (part := _fresh(power, scope))), None)


def _rest(power: Power, limits: Iterable[Limit]) -> Rest | Unmeasured:
    """Return what the system draws besides its SoC: of two readings of one look, or why there are none."""
    system, soc = power.scopes[Scope.SYSTEM], power.scopes[Scope.SOC]
    if isinstance(system, Unmeasured):
        return system
    if isinstance(soc, Unmeasured):
        return soc
    if abs(system.age - soc.age) > _ONE_LOOK_SECONDS:
        return Unmeasured(Reason.NO_DATA, "system and SoC were not read in one look")
    if system.value < soc.value:
        why = f"{soc.source} reads {soc.value:.1f} W, more than {system.source} with {system.value:.1f} W"
        return Unmeasured(Reason.IMPOSSIBLE, why)
    limit = next((limit for limit in limits if limit.name == REST), None)
    source = f"{system.source} − {soc.source}"
    return Rest(round(system.value - soc.value, 6), source, max(system.age, soc.age), limit)


def _with_rest(verdict: Verdict, rest: Rest | Unmeasured) -> Verdict:
    """Add to the evidence that the rest is near what is allowed for it, or above. It decides nothing: see the docs."""
    if isinstance(rest, Unmeasured) or rest.standing is Standing.WITHIN or rest.age > STALE_SECONDS:
        return verdict
    return replace(verdict, evidence=(*verdict.evidence, rest.told))


def crowded(budget: Budget) -> tuple[str, ...]:
    """Say where the SoC is at its limit and the rest draws more than then is left for it; nothing where it is not so.

    Left is what SysPL1 has above PL1: 91 W of 231, where the firmware has its usual limits.
    """
    rest, soc = budget.rest, budget.verdicts["soc"]
    if isinstance(rest, Unmeasured) or rest.age > STALE_SECONDS or soc.standing is not Standing.AT_LIMIT:
        return ()
    watts = {cap.name: cap.watts for cap in CAPS} | {limit.name: limit.watts for limit in budget.limits}
    left = watts["syspl1"] - watts["pl1"]
    if rest.watts <= left:
        return ()
    why = f"with the SoC at PL1, {watts['pl1']:g} W, SysPL1 leaves {left:g} of {watts['syspl1']:g} W for the rest"
    return soc.reason, f"all but the SoC draws {rest.watts:.1f} W ({rest.source})", why


def _in_force(limits: Iterable[Limit], unreadable: Mapping[str, Absence]) -> list[Limit]:
    """Leave out NVIDIA's figure for the SoC where the firmware has one of its own, known or not."""
    names = {limit.name for limit in limits} | set(unreadable)
    return [limit for limit in limits if limit.name != "soc_tdp" or limit.is_set or "pl1" not in names]


#: Scopes whose limits bind the machine. That of the rest binds nothing, and that of a GPU the GPU alone.
_BINDING: Final = frozenset({Scope.SOC, Scope.SYSTEM, Scope.DC_INPUT})


def _headroom(
    power: Power, limits: tuple[Limit, ...], drawn: _Drawn, unreadable: Mapping[str, Absence]
) -> Headroom | Unmeasured:
    of_machine = [limit for limit in _in_force(limits, unreadable) if limit.scope in _BINDING]
    if unread := set(unreadable) - {limit.name for limit in limits}:
        names = ", ".join(_LIMIT_TITLES[name] for name in sorted(unread))
        return Unmeasured(Reason.NO_DATA, f"which limit binds first is not known, for these cannot be read: {names}")
    if not of_machine:
        return Unmeasured(Reason.NO_DATA, "no limit on the power of this machine as a whole is known")
    rooms = [
        Headroom(limit.watts - against.value, limit, against)
        for limit in of_machine
        if (against := drawn.get(limit.name))
    ]
    # The SoC's limit is the first to bind, at about 170 W of the adapter's 240: without it, any figure is too high.
    if not any(room.limit.scope == Scope.SOC for room in rooms):
        return Unmeasured(_why_not_known(power, Scope.SOC), _WITHOUT_SOC)
    least = min(rooms, key=lambda room: room.watts)
    for limit in of_machine:
        # Of a whole that is not measured its part is known: a weak adapter may have less left than any other limit.
        part = None if limit.name in drawn else _at_least(limit, power)
        if part and limit.watts - part.value < least.watts:
            left = f"{limit.watts:g} W less {part.value:.1f} ({part.source}) leave {limit.watts - part.value:.1f} W"
            why = f"{limit.title} binds first, and what is drawn of it is not measured; at the most, {left}"
            return Unmeasured(_why_not_known(power, Scope(limit.scope)), why)
    return least


_WITHOUT_SOC: Final = "the SoC's limit is the first to bind, and what the SoC draws is not known"


def _why_not_known(power: Power, scope: Scope) -> Reason:
    known = power.scopes[scope]
    return known.reason if isinstance(known, Unmeasured) else Reason.NO_DATA


def _verdict(
    scope: Scope,
    power: Power,
    limits: tuple[Limit, ...],
    drawn: _Drawn,
    unreadable: Mapping[str, Absence],
    past: _Past,
) -> Verdict:
    known = _known(power, scope)
    if isinstance(known, Unmeasured):
        return _without(known)
    if known.age > STALE_SECONDS:
        return _stale(known)
    if held := _held_low(scope, limits, unreadable):
        return replace(held, evidence=(*held.evidence, _drawn(known)))
    own = [limit for limit in _in_force(limits, unreadable) if limit.scope == scope]
    compared = [(limit, against) for limit in own if (against := drawn.get(limit.name))]
    if scope is Scope.SYSTEM:
        entering = [limit for limit in limits if limit.scope == Scope.DC_INPUT]
        compared += [
            (limit, against)
            for limit in entering
            if (against := drawn.get(limit.name) or _near_by_a_part(limit, power, past))
        ]
    return _compared(compared, past)


def _near_by_a_part(limit: Limit, power: Power, past: _Past) -> Measured | None:
    """Return what a part draws of what the adapter gives, if that alone is near its limit; below it proves nothing."""
    part = _at_least(limit, power)
    return part if part and _ratio(limit, part) > _threshold(Standing.NEAR_LIMIT, NEAR_LIMIT, past) else None


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
    # One that the owner has set for himself holds nothing down.
    own = [limit for limit in limits if limit.scope == scope and not limit.is_set]
    low = [limit for limit in own if limit.watts <= COLLAPSED_WATTS[scope]]
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
    return _share_of(limit, against.value)


def _share_of(limit: Limit, watts: float) -> float:
    # Rounded, so that 137.2 of 140 W are 98 %.
    return round(watts / limit.watts, 6)


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
        f"{_share(limit, against)}, {100 * ratio:.1f} % ({against.source}; {limit.words})"
        for ratio, limit, against in ratios
    )
    at = _threshold(Standing.AT_LIMIT, AT_LIMIT, past)
    near = _threshold(Standing.NEAR_LIMIT, NEAR_LIMIT, past)
    for ratio, limit, against in ratios:
        if _is_over(limit, ratio, past):
            return Verdict(Standing.OVER_BUDGET, f"above its limit: {_share(limit, against)}", evidence)
    for ratio, limit, against in ratios:
        if ratio >= at and not _is_soc_as_set(limit):
            return Verdict(Standing.AT_LIMIT, f"at its limit: {_share(limit, against)}", evidence)
    ratio, limit, against = ratios[0]
    told = _share(limit, against)
    if ratio > near:
        return Verdict(Standing.NEAR_LIMIT, f"near its limit: {told}", evidence)
    return Verdict(Standing.WITHIN, f"nearest limit: {told}", evidence)


def _is_over(limit: Limit, ratio: float, past: _Past) -> bool:
    if limit.scope == Scope.DC_INPUT:
        return ratio > _threshold(Standing.OVER_BUDGET, 1.0, past)
    return (limit.scope == Scope.SYSTEM or _is_soc_as_set(limit)) and ratio > 1 and limit.name in past.over


def _is_soc_as_set(limit: Limit) -> bool:
    # PL1 sets the SoC's pace, so that to be at it is no fault. Nothing enforces what the owner sets here.
    return limit.scope == Scope.SOC and limit.is_set


def _share(limit: Limit, against: Measured) -> str:
    at_least = "" if against.scope == limit.scope else "at least "
    return f"{limit.title}, {at_least}{against.value:.1f} of {limit.watts:g} W"


def _gpu_verdict(
    power: Power, limits: tuple[Limit, ...], drawn: _Drawn, unreadable: Mapping[str, Absence], past: _Past
) -> Verdict:
    both = power.scopes[Scope.GPU_RAIL], power.scopes[Scope.GPU_NVML]
    known = [one for one in both if isinstance(one, Measured)]
    unknown = [one for one in both if isinstance(one, Unmeasured)]
    if doubtful := [one for one in unknown if one.reason in _NOT_TO_BE_BELIEVED]:
        return _without(doubtful[0])
    if not known:
        return _without(next((one for one in unknown if one.reason.is_fault), unknown[-1]))
    if all(one.age > STALE_SECONDS for one in known):
        return _stale(known[0])
    if own := [(limit, one) for limit in limits if limit.scope == Scope.GPU_NVML and (one := drawn.get(limit.name))]:
        return _compared(own, past)
    now = tuple(_drawn(one) for one in known)
    if held := _held_low(Scope.SOC, limits, unreadable):
        return replace(held, reason=f"it shares the SoC's limit: {held.reason}", evidence=(*held.evidence, *now))
    if any(limit.scope == Scope.SOC for limit in limits):
        return Verdict(Standing.WITHIN, "it has no limit of its own; the SoC's limit holds for both", now)
    return Verdict(Standing.WITHIN, _NO_LIMIT, now)
