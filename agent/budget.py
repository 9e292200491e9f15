"""The power budget: limits, headroom, and the verdict on each scope. No I/O, no clock.

Limits are read before they are assumed, and a reading is only ever held against a limit of its own scope.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from spark_agent.agent.power import Measured, Power, Unmeasured
from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import Reading, Reason, Scope, platform
from spark_agent.collectors._power import CEILING, FLOOR, LIMIT, PUBLISHED


class LimitOrigin(StrEnum):
    """Who says so."""

    FIRMWARE = "firmware"
    DRIVER = "driver"
    VENDOR_DOC = "vendor_doc"


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """The standing of one scope, and what it rests on."""

    standing: Standing
    reason: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Headroom:
    """How far the machine is from the limit that binds first, in watts; negative when beyond it."""

    watts: float
    limit: Limit
    against: Measured


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits, headroom and verdicts of one look."""

    limits: tuple[Limit, ...]
    headroom: Headroom | Unmeasured
    verdicts: Mapping[str, Verdict]
    unreadable: Mapping[str, str] = field(default_factory=dict)


def judge(snapshot: Snapshot, power: Power) -> Budget:
    """Hold the power that was read against the limits of the same scope."""
    is_spark = snapshot.fact(platform.IS_SPARK) is True
    limits = tuple(_limits(snapshot, is_spark=is_spark))
    unreadable = {
        name: f"{absence.reason} ({absence.detail})"
        for scope, name in _FIRMWARE_LIMITS
        if (absence := snapshot.absence(LIMIT, scope, name) or snapshot.absence(PUBLISHED, scope, name))
        and absence.reason is not Reason.NOT_SUPPORTED
    }
    system = _verdict(Scope.SYSTEM, power, limits, unreadable)
    soc = _verdict(Scope.SOC, power, limits, unreadable)
    verdicts = {"system": system, "soc": soc, "gpu": _gpu_verdict(power, limits, soc)}
    return Budget(limits, _headroom(power, limits), verdicts, unreadable)


_FIRMWARE_LIMITS: Final = (
    (Scope.SOC, "pl1"),
    (Scope.SOC, "pl2"),
    (Scope.SYSTEM, "syspl1"),
    (Scope.SYSTEM, "syspl2"),
)


def _limits(snapshot: Snapshot, *, is_spark: bool) -> Iterator[Limit]:
    for scope, name in _FIRMWARE_LIMITS:
        if reading := snapshot.reading(LIMIT, scope, name):
            ceiling, floor, published = (snapshot.reading(of, scope, name) for of in (CEILING, FLOOR, PUBLISHED))
            yield Limit(
                name,
                scope,
                reading.value,
                LimitOrigin.FIRMWARE,
                reading.origin,
                _watts(ceiling),
                _watts(floor),
                _watts(published),
            )
    if reading := snapshot.reading(LIMIT, Scope.GPU_NVML, "nvml"):
        yield Limit("nvml", Scope.GPU_NVML, reading.value, LimitOrigin.DRIVER, reading.origin)
    if is_spark:
        yield from VENDOR_LIMITS


def _watts(reading: Reading | None) -> float | None:
    return None if reading is None else reading.value


def _against(limit: Limit, power: Power, limits: tuple[Limit, ...]) -> Measured | None:
    """Return the reading that a limit binds: the firmware's own average of it, or the scope's power."""
    if limit.name == "soc_tdp" and any(other.name == "pl1" for other in limits):
        # NVIDIA's figure stands in for PL1 only where PL1 cannot be read.
        return None
    if average := power.averages.get(limit.name):
        return average
    known = power.scopes.get(Scope(limit.scope)) if limit.scope in set(Scope) else None
    return known if isinstance(known, Measured) else None


def _headroom(power: Power, limits: tuple[Limit, ...]) -> Headroom | Unmeasured:
    rooms = [
        Headroom(limit.watts - against.value, limit, against)
        for limit in limits
        if limit.scope != Scope.GPU_NVML and (against := _against(limit, power, limits))
    ]
    if rooms:
        return min(rooms, key=lambda room: room.watts)
    known = power.scopes[Scope.SYSTEM]
    if isinstance(known, Measured):
        return Unmeasured(Reason.NO_DATA, "no limit of a scope that was measured is known")
    return Unmeasured(known.reason, "no power was measured that a limit of the same scope is known for")


def _verdict(scope: Scope, power: Power, limits: tuple[Limit, ...], unreadable: Mapping[str, str]) -> Verdict:
    known = power.scopes[scope]
    if isinstance(known, Unmeasured):
        return _without(scope, known)
    own = [limit for limit in limits if limit.scope == scope]
    # The adapter bounds what enters the board, of which the system is all but the first conversion's loss.
    if scope is Scope.SYSTEM:
        own += [limit for limit in limits if limit.scope == Scope.DC_INPUT]
    if collapsed := [limit for limit in own if limit.watts <= COLLAPSED_WATTS[scope]]:
        return _collapsed(scope, known, collapsed, unreadable)
    names = {name for of, name in _FIRMWARE_LIMITS if of is scope}
    if lost := {name: why for name, why in unreadable.items() if name in names}:
        return Verdict(
            Standing.LIMITS_UNPUBLISHED,
            "the firmware's channel is there, but its limit cannot be read",
            tuple(f"{name}: {why}" for name, why in lost.items()),
        )
    return _compared(own, power, limits)


def _without(scope: Scope, known: Unmeasured) -> Verdict:
    if known.reason in (Reason.IMPOSSIBLE, Reason.GARBAGE, Reason.OVERFLOW):
        return Verdict(Standing.IMPOSSIBLE, f"what was read for {scope} cannot be", (known.detail,))
    if known.reason.is_fault:
        return Verdict(Standing.ERROR, f"{scope} power could not be read: {known.reason}", (known.detail,))
    return Verdict(Standing.UNMEASURED, f"nothing measures {scope} power: {known.reason}", (known.detail,))


def _collapsed(scope: Scope, known: Measured, limits: list[Limit], unreadable: Mapping[str, str]) -> Verdict:
    evidence = [f"{limit.name} is {limit.watts:g} W ({limit.source})" for limit in limits]
    evidence += [f"{name}: {why}" for name, why in unreadable.items()]
    evidence.append(f"{scope} draws {known.value:.1f} W ({known.source})")
    if any(limit.watts == FALLBACK_WATTS[scope] for limit in limits):
        reason = "the firmware holds the machine at its fallback limit, as it does when none was published to it"
    else:
        reason = "a limit far below normal is set; it is not the firmware's fallback, so somebody may have set it"
    return Verdict(Standing.CAPPED_LOW, reason, tuple(evidence))


def _compared(own: list[Limit], power: Power, limits: tuple[Limit, ...]) -> Verdict:
    ratios = sorted(
        (
            (against.value / limit.watts, limit, against)
            for limit in own
            if limit.watts > 0 and (against := _against(limit, power, limits))
        ),
        key=lambda compared: -compared[0],
    )
    if not ratios:
        return Verdict(Standing.WITHIN, "no limit of this scope is known")
    evidence = tuple(
        f"{limit.name}: {against.value:.1f} of {limit.watts:g} W ({ratio:.0%}; {against.source}; {limit.origin} limit)"
        for ratio, limit, against in ratios
    )
    ratio, limit, _ = ratios[0]
    if ratio > 1 and (limit.name == "adapter" or limit.scope == Scope.SYSTEM):
        return Verdict(Standing.OVER_BUDGET, f"more than {limit.name} allows", evidence)
    if ratio >= AT_LIMIT:
        return Verdict(Standing.AT_LIMIT, f"{limit.name} binds", evidence)
    if ratio > NEAR_LIMIT:
        return Verdict(Standing.NEAR_LIMIT, f"within {1 - NEAR_LIMIT:.0%} of {limit.name}", evidence)
    return Verdict(Standing.WITHIN, f"{limit.name} is nearest", evidence)


def _gpu_verdict(power: Power, limits: tuple[Limit, ...], soc: Verdict) -> Verdict:
    known = power.scopes[Scope.GPU_NVML]
    rail = power.scopes[Scope.GPU_RAIL]
    if isinstance(known, Unmeasured) and isinstance(rail, Unmeasured):
        return _without(Scope.GPU_NVML, known)
    if own := [limit for limit in limits if limit.scope == Scope.GPU_NVML]:
        return _compared(own, power, limits)
    if soc.standing in (Standing.CAPPED_LOW, Standing.LIMITS_UNPUBLISHED):
        return Verdict(soc.standing, "the GPU has no limit of its own; it shares the SoC's", soc.evidence)
    evidence = tuple(
        f"{one.scope} {one.value:.1f} W ({one.source})" for one in (rail, known) if isinstance(one, Measured)
    )
    return Verdict(Standing.WITHIN, "the GPU has no limit of its own; it shares the SoC's", evidence)
