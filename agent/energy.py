"""Where every joule went: registers unwrapped, powers integrated, and what nobody knows counted as uncovered.

In order of trust: a register of the firmware or of the GPU's driver; where there is none, or where it stands still,
the integral of the power that was read. The system has no register of its own:
``E_system = ΔE_soc + ∫ (P_system − P_soc) dt``.

All time is on one axis that the meter keeps: the machine's monotonic clock, and what it does not show, which is the
time asleep (``/proc/uptime`` goes on then) and the time between two boots (by the wall clock, for want of another).
For each scope, covered and uncovered seconds add up to the time since its account began. Pure: no I/O, no clock.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, field, replace
from enum import StrEnum
from typing import Any, Final

from spark_agent.agent import BEAT_SECONDS
from spark_agent.agent.account import SAME_SECONDS, STILL_SECONDS, Account, Register, Sample, count, integrate
from spark_agent.agent.power import Measured, Power, Unmeasured, at_most
from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import (
    Kind,
    Quality,
    Quantity,
    Reading,
    Reason,
    Scope,
    Section,
    Unit,
    boot,
    gpu,
    immutable,
    platform,
    spbm,
)


class Method(StrEnum):
    """How energy is known."""

    COUNTER = "counter"
    INTEGRATED = "integrated"


#: The trapezoid spans no longer gap than this, in beats and in seconds: what was in between nobody knows.
GAP_BEATS: Final = 5.0
GAP_SECONDS: Final = 5.0
# A beat is not on time to the last digit.
_GAP_SLACK: Final = 0.5

#: Seconds over which a register is held against the integral, and the parts against their whole.
CHECK_SECONDS: Final = 60.0
_MISMATCH: Final = 0.10
_MISMATCH_WATTS: Final = 2.0
# Of a power that hardly varied, samples are its mean, so a register that says otherwise contradicts them.
_STEADY: Final = 0.10

# Less than this is the resolution of the clocks, and of recordings, not sleep.
_ASLEEP_LEAST: Final = 2.0

ENERGY: Final = Section(
    "power.energy", "Energy by what it covers, since the agent's count of it began.", metric="energy"
)

_KEPT: Final = "Kept over restarts of the agent."


def _energy(scope: Scope, metric: str, source: str, *, core_type: bool = False) -> Quantity:
    return Quantity(
        ENERGY,
        scope,
        Unit.JOULE,
        source,
        "Energy by what it covers: method=counter is a register, unwrapped; integrated is power over time, where there "
        f"is no register. {_KEPT}",
        kind=Kind.COUNTER,
        labels=("core_type", "method") if core_type else ("method",),
        scope=scope,
        bounds=(0, math.inf),
        metric=metric,
    )


def _of_whole(of: Quantity) -> str:
    return f"{spbm.SOC_REGISTER.source}, and the integral of {of.source} less {spbm.SOC.source}"


#: The energy of each scope that has an account, in the order in which it is told.
ENERGIES: Final[Mapping[Scope, Quantity]] = {
    Scope.DC_INPUT: _energy(Scope.DC_INPUT, "dc_input_energy_joules", _of_whole(spbm.DC_INPUT)),
    Scope.SYSTEM: _energy(Scope.SYSTEM, "system_energy_joules", _of_whole(spbm.SYSTEM)),
    Scope.SOC: _energy(Scope.SOC, "soc_energy_joules", spbm.SOC_REGISTER.source),
    Scope.CPU_GPU: _energy(Scope.CPU_GPU, "cpu_gpu_energy_joules", spbm.CPU_GPU.source),
    Scope.CPU_PERFORMANCE: _energy(
        Scope.CPU_PERFORMANCE, "cpu_energy_joules", spbm.CPU_PERFORMANCE_REGISTER.source, core_type=True
    ),
    Scope.CPU_EFFICIENCY: _energy(
        Scope.CPU_EFFICIENCY, "cpu_energy_joules", spbm.CPU_EFFICIENCY_REGISTER.source, core_type=True
    ),
    Scope.GPU_RAIL: _energy(Scope.GPU_RAIL, "gpu_rail_energy_joules", spbm.GPU_REGISTER.source),
    Scope.GPU_NVML: _energy(Scope.GPU_NVML, "gpu_nvml_energy_joules", gpu.ENERGY.source),
}
_CORE_TYPES: Final = {Scope.CPU_PERFORMANCE: ("performance",), Scope.CPU_EFFICIENCY: ("efficiency",)}


def _seconds(key: str, help_: str) -> Quantity:
    return Quantity(
        ENERGY, key, Unit.SECOND, "the agent's own account", f"{help_} {_KEPT}", kind=Kind.COUNTER, labels=("scope",)
    )


COVERED: Final = _seconds("covered_seconds", "Time of which the energy of a scope is known.")
UNCOVERED: Final = _seconds(
    "uncovered_seconds", "Time of which nobody knows what a scope drew: gaps, reboots, sleep. Never guessed."
)
RESETS: Final = Quantity(
    ENERGY,
    "resets",
    Unit.COUNT,
    "the agent's own account",
    f"How often the count of a scope had to begin at another number: reboots, driver reloads. {_KEPT}",
    kind=Kind.COUNTER,
    labels=("scope",),
)
CROSSCHECK: Final = Quantity(
    ENERGY,
    "crosscheck_ratio",
    Unit.RATIO,
    "the agent's own account",
    "Energy by a scope's register, over the integral of its power, in the last minute of which both are known.",
    labels=("scope",),
    bounds=(0, math.inf),
)

#: What the agent derives here; metrics, and their reference, follow from it.
DECLARED: Final = (*ENERGIES.values(), COVERED, UNCOVERED, RESETS, CROSSCHECK)


@immutable
class Energy:
    """What one scope drew since its account began, in joules, and of how much of that time that is known.

    ``age`` is the time since the last reading that it rests on. ``crosscheck`` is the register over the integral, in
    the last minute in which both were known.
    """

    scope: Scope
    joules: float
    method: Method
    source: str
    age: float
    covered_seconds: float
    uncovered_seconds: float
    resets: int
    crosscheck: float | None = None

    @property
    def quality(self) -> Quality:
        """How the number is known."""
        return Quality.MEASURED if self.method is Method.COUNTER else Quality.DERIVED

    def at_zero(self) -> "Energy":
        """Return the same account before anything was counted."""
        return Energy(self.scope, 0.0, self.method, self.source, self.age, 0.0, 0.0, 0)

    def later(self, seconds: float) -> "Energy":
        """Return the same, told so many seconds later."""
        return Energy(
            self.scope,
            self.joules,
            self.method,
            self.source,
            self.age + seconds,
            self.covered_seconds,
            self.uncovered_seconds,
            self.resets,
            self.crosscheck,
        )


Energies = Mapping[Scope, Energy | Unmeasured]


def readings(energies: Energies) -> Iterator[Reading]:
    """Yield what was counted, as readings of what is declared here."""
    for scope, known in energies.items():
        if isinstance(known, Energy):
            labels = (*_CORE_TYPES.get(scope, ()), known.method)
            yield Reading(ENERGIES[scope], known.joules, "", labels, known.source, known.quality)
            yield Reading(COVERED, known.covered_seconds, "", (scope,))
            yield Reading(UNCOVERED, known.uncovered_seconds, "", (scope,))
            yield Reading(RESETS, known.resets, "", (scope,))
            if known.crosscheck is not None:
                yield Reading(CROSSCHECK, known.crosscheck, "", (scope,))


_WRAP: Final = spbm.REGISTER_WRAP_JOULES
_GPU_MOST: Final = gpu.POWER.bounds[1]
_GB10_GPU_MOST: Final = spbm.GPU_RAIL.bounds[1]

# No SoC was seen below 15 W; a core type or a rail may be all but off.
_FIRMWARE: Final[Mapping[Scope, tuple[Quantity, Register]]] = {
    Scope.SOC: (spbm.SOC_REGISTER, Register(spbm.SOC.bounds[1], 1.0, _WRAP)),
    Scope.CPU_PERFORMANCE: (
        spbm.CPU_PERFORMANCE_REGISTER,
        Register(spbm.CPU_PERFORMANCE.bounds[1], wrap=_WRAP),
    ),
    Scope.CPU_EFFICIENCY: (spbm.CPU_EFFICIENCY_REGISTER, Register(spbm.CPU_EFFICIENCY.bounds[1], wrap=_WRAP)),
    Scope.GPU_RAIL: (spbm.GPU_REGISTER, Register(spbm.GPU_RAIL.bounds[1], wrap=_WRAP)),
}
_PARTS_OF_SOC: Final = (Scope.CPU_PERFORMANCE, Scope.CPU_EFFICIENCY, Scope.GPU_RAIL)
_WHOLES: Final = (Scope.SYSTEM, Scope.DC_INPUT)


@immutable
class Moment:
    """Where a look stands: the machine's clocks then, and the axis that is made of them.

    ``ahead`` is by how much uptime was ahead of the monotonic clock at most, which grows while the machine sleeps.
    """

    clock: float
    wall: float
    boot: str | None = None
    uptime: float | None = None
    ahead: float | None = None
    at: float = 0.0
    asleep: float = 0.0
    epoch: int = 0


_Known = tuple[float, float]  # joules and covered seconds of an account


@immutable
class Joint:
    """A whole's account, and where those it is made of stood when it went on last.

    They are its SoC's register, the integral of the ``rest``, and the integral of its ``own`` power.
    """

    account: Account
    at: float
    soc: _Known
    rest: _Known
    own: _Known


_Key = tuple[str, str]
# Accounts of one scope: by register, one for each GPU; by integral; and of what a whole draws besides its SoC.
_COUNTED: Final = "counted"
_INTEGRATED: Final = "integrated"
_REST: Final = "rest"


@immutable
class Accounts:
    """All accounts at one moment, and what the last checks said; the contradictions do not outlive the agent."""

    moment: Moment | None = None
    accounts: Mapping[_Key, Account] = field(default_factory=dict)
    joints: Mapping[str, Joint] = field(default_factory=dict)
    crosschecks: Mapping[Scope, float] = field(default_factory=dict)
    contradictions: Mapping[Scope, str] = field(default_factory=dict)

    def energies(self, *, of_window: bool = False) -> Energies:
        """Return what each scope drew, or why there is no number, for those that have an account.

        A counter is told from its first reading on, so that there is something to count from. Of a window that is
        over, what covers nothing of it gives way to what does.
        """
        if self.moment is None:
            return {}
        found = {scope: self._energy(scope, self.moment.at, of_window=of_window) for scope in ENERGIES}
        return {scope: known for scope, known in found.items() if known}

    def _energy(self, scope: Scope, at: float, *, of_window: bool) -> Energy | Unmeasured | None:
        if why := self.contradictions.get(scope):
            return Unmeasured(Reason.IMPOSSIBLE, why)
        counted = [account for key, account in self.accounts.items() if _is_counted(scope, key)]
        whole = self.joints.get(scope)
        integral = whole.account if whole else self.accounts.get((scope.value, _INTEGRATED))
        ways = [(Method.COUNTER, counted)] if counted else []
        if integral:
            ways.append((Method.INTEGRATED, [integral]))
        newest = max((account.last.at for _, way in ways for account in way if account.last), default=None)
        if newest is None:
            return None
        for method, way in ways:
            if not _is_late(way, newest) and (not of_window or any(account.covered for account in way)):
                return self._sum(scope, method, way, at)
        return Unmeasured(Reason.NO_DATA, "nothing was read twice")

    def _sum(self, scope: Scope, method: Method, accounts: list[Account], at: float) -> Energy:
        several = f", sum of {len(accounts)} GPUs" if len(accounts) > 1 else ""
        return Energy(
            scope,
            sum(account.joules for account in accounts),
            method,
            accounts[0].source + several,
            max(at - account.last.at for account in accounts if account.last),
            min(account.covered for account in accounts),
            max(account.uncovered for account in accounts),
            max(account.resets for account in accounts),
            self.crosschecks.get(scope),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return {
            "moment": astuple(self.moment) if self.moment else None,
            "accounts": [[*key, *astuple(account)] for key, account in self.accounts.items()],
            "joints": [[scope, *astuple(joint)] for scope, joint in self.joints.items()],
            "crosschecks": self.crosschecks,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Accounts":
        """Take what was saved; raises `ValueError` where it cannot be that."""
        try:
            moment = Moment(*content["moment"]) if content["moment"] else None
            accounts = {(Scope(scope).value, str(what)): _account(row) for scope, what, *row in content["accounts"]}
            joints = {
                Scope(scope).value: Joint(_account(row), float(at), _pair(soc), _pair(rest), _pair(own))
                for scope, row, at, soc, rest, own in content["joints"]
            }
            crosschecks = {Scope(scope): _total(ratio) for scope, ratio in content["crosschecks"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"no energies: {error!r}") from error
        numbers = [
            *((moment.clock, moment.wall, moment.at, moment.asleep, moment.epoch) if moment else ()),
            *(number for joint in joints.values() for number in (joint.at, *joint.soc, *joint.rest, *joint.own)),
        ]
        if not all(isinstance(number, float | int) and math.isfinite(number) for number in numbers):
            raise ValueError(f"no energies: {numbers}")
        return cls(moment, accounts, joints, crosschecks)


def _account(row: Iterable[Any]) -> Account:
    joules, covered, uncovered, resets, last, doubt, seen, source, *_ = row
    joules, covered, uncovered, resets = map(_total, (joules, covered, uncovered, resets))
    return Account(joules, covered, uncovered, int(resets), _sample(last), _sample(doubt), _sample(seen), str(source))


def _total(value: Any) -> float:
    if not 0 <= float(value) < math.inf:
        raise ValueError(f"a total of {value}")
    return float(value)


def _sample(row: Iterable[Any] | None) -> Sample | None:
    if row is None:
        return None
    value, at, asleep, epoch, driver = row
    if not all(math.isfinite(number) for number in (value, at, asleep)):
        raise ValueError(f"sample {row}")
    return Sample(float(value), float(at), float(asleep), int(epoch), str(driver))


def _pair(row: Iterable[Any]) -> _Known:
    joules, seconds = row
    return float(joules), float(seconds)


class _Tally:
    """One scope's joules and seconds by register and by integral, since the last check.

    ``ahead`` is the part of the integral that no reading of the register has come up with.
    """

    def __init__(self) -> None:
        self.register = self.integral = self.ahead = (0.0, 0.0)
        self.low, self.high = math.inf, 0.0

    def integrated(self, watts: float, before: Account, after: Account) -> None:
        self.ahead = _sum(self.ahead, _gain(before, after))
        self.low, self.high = min(self.low, watts), max(self.high, watts)

    def counted(self, before: Account, after: Account) -> None:
        self.register = _sum(self.register, _gain(before, after))
        self.integral, self.ahead = _sum(self.integral, self.ahead), (0.0, 0.0)


def _gain(before: Account, after: Account) -> _Known:
    return _gained(_known(before), _known(after))


def _sum(one: _Known, other: _Known) -> _Known:
    return one[0] + other[0], one[1] + other[1]


class Meter:
    """The accounts of one machine, moved look by look.

    ``contradictions`` says of scopes why their readings cannot be believed now: a register against the integral of a
    steady power, or parts that drew more than their whole. Nothing is added to their accounts meanwhile.
    """

    def __init__(self, kept: Accounts | None = None) -> None:
        """Go on from what was kept, or begin with no account."""
        kept = kept or Accounts()
        self.contradictions: Mapping[Scope, str] = {}
        self._moment = kept.moment
        self._accounts = dict(kept.accounts)
        self._joints = dict(kept.joints)
        self._tallies: dict[Scope, _Tally] = {}
        self._checked_at = kept.moment.at if kept.moment else 0.0
        self._crosschecks = dict(kept.crosschecks)

    def accounts(self) -> Accounts:
        """Return all accounts, as they are now; what is noted later does not change them."""
        return Accounts(
            self._moment, dict(self._accounts), dict(self._joints), dict(self._crosschecks), self.contradictions
        )

    def note(self, snapshot: Snapshot, power: Power, *, beat_seconds: float = BEAT_SECONDS) -> None:
        """Go on with one look; one that has nothing new moves nothing."""
        moment = self._moment = _moved(self._moment, snapshot)
        gap = max(GAP_SECONDS, GAP_BEATS * beat_seconds) + _GAP_SLACK
        for scope in ENERGIES:
            if isinstance(known := power.scopes[scope], Measured):
                self._integrate(scope, known, moment, gap)
        self._count(snapshot, moment)
        for whole in _WHOLES:
            self._join(whole, power, gap)
        if moment.at - self._checked_at >= CHECK_SECONDS:
            self._check()
            self._checked_at = moment.at

    @property
    def rejected(self) -> Mapping[tuple[str, str], int]:
        """How many readings of registers were refused since the agent started, by quantity and reason."""
        found: Counter[tuple[str, str]] = Counter()
        for (scope, _), account in self._accounts.items():
            if account.rejected:
                found[ENERGIES[Scope(scope)].name, Reason.IMPOSSIBLE.value] += account.rejected
        return found

    def energies(self, *, of_window: bool = False) -> Energies:
        """Return what each scope drew, as `Accounts.energies` does."""
        return self.accounts().energies(of_window=of_window)

    def since(self, accounts: Accounts) -> float:
        """Return the seconds from when the accounts were these until now."""
        return self._moment.at - accounts.moment.at if self._moment and accounts.moment else 0.0

    # Accounts

    def _put(self, scope: Scope, what: str, source: str, move: Callable[[Account], Account]) -> tuple[Account, Account]:
        """Move an account, and return what it was, and what it is, or were if nothing contradicted it."""
        key = scope.value, what
        before = self._accounts.get(key) or Account()
        after = move(before)
        if after.source != source:
            after = replace(after, source=source)
        if after is not before:
            self._accounts[key] = _without_gain(before, after) if scope in self.contradictions else after
        return before, after

    def _integrate(self, scope: Scope, known: Measured, moment: Moment, gap: float) -> None:
        now = Sample(known.value, moment.at - known.age, moment.asleep, moment.epoch)
        before, after = self._put(scope, _INTEGRATED, f"∫ {known.source} dt", lambda one: integrate(one, now, gap))
        self._tallies.setdefault(scope, _Tally()).integrated(known.value, before, after)

    def _count(self, snapshot: Snapshot, moment: Moment) -> None:
        driver = f"{snapshot.fact(spbm.DRIVER)} {snapshot.fact(spbm.VARIANT)}"
        for scope, (of, register) in _FIRMWARE.items():
            for reading in snapshot.readings(of):
                now = _sample_of(snapshot, "spbm", reading, moment, driver)
                self._count_one(scope, _COUNTED, reading, now, register)
        most = _GB10_GPU_MOST if snapshot.fact(platform.IS_SPARK) is True else _GPU_MOST
        for reading in snapshot.readings(gpu.ENERGY):
            version = next((fact.value for fact in snapshot.facts(gpu.DRIVER) if fact.entity == reading.entity), "")
            now = _sample_of(snapshot, "gpu", reading, moment, str(version))
            self._count_one(Scope.GPU_NVML, f"{_COUNTED} {reading.entity}", reading, now, Register(most))

    def _count_one(self, scope: Scope, what: str, reading: Reading, now: Sample, register: Register) -> None:
        before, after = self._put(scope, what, reading.origin, lambda one: count(one, now, register))
        if after.last is not before.last:
            self._tallies.setdefault(scope, _Tally()).counted(before, after)

    def _join(self, whole: Scope, power: Power, gap: float) -> None:
        """Go on with a whole: by its SoC's register and the rest, or where that does not go on, by its own power."""
        outer, inner = power.scopes[whole], power.scopes[Scope.SOC]
        own, soc = self._accounts.get((whole.value, _INTEGRATED)), self._accounts.get((Scope.SOC.value, _COUNTED))
        if own is None or own.last is None or isinstance(outer, Unmeasured):
            return
        at, rest, before = own.last.at, None, self._joints.get(whole)
        if soc and isinstance(inner, Measured):
            now = replace(own.last, value=outer.value - inner.value)
            source = f"∫ ({outer.source} − {inner.source}) dt"
            _, rest = self._put(whole, _REST, source, lambda one: integrate(one, now, gap))
        elapsed = at - before.at if before else 0.0
        is_joined = soc is not None and soc.last is not None and rest is not None and _are_same(soc.last.at, at)
        if before and (elapsed <= SAME_SECONDS or (soc and not is_joined and elapsed <= STILL_SECONDS)):
            return  # told again, or the register may still say
        marks = Joint(Account(), at, _known(soc), _known(rest), _known(own))
        joules, covered = (0.0, 0.0)
        if before:
            joules, covered = _gained(before.own, marks.own)
            by_register = [_gained(before.soc, marks.soc), _gained(before.rest, marks.rest)]
            if is_joined and all(_are_same(seconds, elapsed) for _, seconds in by_register):
                joules, covered = sum(gained for gained, _ in by_register), elapsed
        account = before.account if before else marks.account
        self._joints[whole] = replace(
            marks,
            account=Account(
                account.joules + joules,
                account.covered + covered,
                account.uncovered + elapsed - covered,
                own.resets,
                own.last,
                source=f"{soc.source} + {rest.source}" if soc and rest else own.source,
            ),
        )

    # Checks

    def _check(self) -> None:
        """Hold registers against integrals, and parts against their whole, over the last minute."""
        found: dict[Scope, str] = {}
        means: dict[Scope, float] = {}
        for scope, tally in self._tallies.items():
            (joules, seconds), (area, span) = tally.register, tally.integral
            # Of several GPUs the seconds add up, and match no integral.
            if seconds < CHECK_SECONDS / 2 or seconds > CHECK_SECONDS * 2:
                continue
            mean = means[scope] = joules / seconds
            if abs(span - seconds) > seconds / 20 or area <= 0:
                continue
            sampled = area / span
            self._crosschecks[scope] = mean / sampled
            is_steady = tally.high - tally.low <= _STEADY * sampled
            if is_steady and abs(mean - sampled) > max(_MISMATCH * sampled, _MISMATCH_WATTS):
                found[scope] = (
                    f"over {seconds:.0f} s its register gives {mean:.1f} W, and the power that was read all the while "
                    f"{sampled:.1f} W"
                )
        # What its own power contradicts accuses nobody else.
        self.contradictions = found | _more_than_whole({scope: means[scope] for scope in means if scope not in found})
        self._tallies = {}


def _more_than_whole(means: Mapping[Scope, float]) -> dict[Scope, str]:
    """Return why neither the SoC nor its parts can be believed, where by their registers these drew more."""
    parts = [scope for scope in _PARTS_OF_SOC if scope in means]
    total, whole = sum(means[scope] for scope in parts), means.get(Scope.SOC)
    if whole is None or total <= at_most(whole):
        return {}
    why = (
        f"by their registers {' + '.join(parts)} drew {total:.1f} W over the last minute, more than the SoC with "
        f"{whole:.1f} W, of which they are parts"
    )
    return dict.fromkeys((Scope.SOC, *parts), why)


def _moved(before: Moment | None, snapshot: Snapshot) -> Moment:
    """Return where this look stands, after the one before."""
    clock, wall = snapshot.at, snapshot.taken_at
    boot_id, up, visit = snapshot.fact(boot.BOOT), snapshot.reading(boot.UPTIME), snapshot.visit("boot")
    id_ = str(boot_id) if boot_id else None
    uptime, ahead = (up.value, up.value - visit.at) if up and visit else (None, None)
    if before is None:
        return Moment(clock, wall, id_, uptime, ahead)
    if not _is_same_boot(before, clock, id_, uptime):
        # Where even the wall clock went back, the machine has been off for no one knows how long, and up for this.
        off = wall - before.wall if wall > before.wall else uptime or 0.0
        return Moment(clock, wall, id_, uptime, ahead, before.at + off, before.asleep, before.epoch + 1)
    asleep = 0.0
    if ahead is None or (before.ahead is not None and ahead < before.ahead + _ASLEEP_LEAST):
        ahead = before.ahead
    elif before.ahead is not None:
        asleep = ahead - before.ahead
    at = before.at + clock - before.clock + asleep
    return Moment(
        clock, wall, id_ or before.boot, uptime or before.uptime, ahead, at, before.asleep + asleep, before.epoch
    )


def _is_same_boot(before: Moment, clock: float, boot_id: str | None, uptime: float | None) -> bool:
    if clock < before.clock or (before.boot and boot_id and before.boot != boot_id):
        return False
    return uptime is None or before.uptime is None or uptime >= before.uptime - _ASLEEP_LEAST


def _sample_of(snapshot: Snapshot, collector: str, reading: Reading, moment: Moment, driver: str) -> Sample:
    age = max(0.0, snapshot.at - snapshot.time_of(reading, collector))
    return Sample(reading.value, moment.at - age, moment.asleep, moment.epoch, driver)


def _without_gain(before: Account, after: Account) -> Account:
    """Return an account that went on, and got nothing of what it went through."""
    joules, seconds = _gain(before, after)
    return replace(
        after, joules=after.joules - joules, covered=after.covered - seconds, uncovered=after.uncovered + seconds
    )


def _known(account: Account | None) -> _Known:
    return (account.joules, account.covered) if account else (0.0, 0.0)


def _gained(before: _Known, now: _Known) -> _Known:
    return now[0] - before[0], now[1] - before[1]


def _are_same(one: float, other: float) -> bool:
    return abs(one - other) <= SAME_SECONDS


def _is_counted(scope: Scope, key: _Key) -> bool:
    return key[0] == scope.value and key[1].startswith(_COUNTED)


def _is_late(accounts: Iterable[Account], newest: float) -> bool:
    """Whether an account stands still while others of its scope move."""
    return any(account.last is None or newest - account.last.at > STILL_SECONDS for account in accounts)
