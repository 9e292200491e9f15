"""Conditions over time, followed look after look on the machine's own clock. No I/O, and no clock of its own.

A `Watch` belongs to one look and takes over from the watch of the look before. Where too long a gap lies between
two looks there is none before, so everything begins anew: what happened in between nobody knows.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from spark_agent.agent.finding import Finding, Kind
from spark_agent.collectors import immutable

#: What is older than this, in seconds, says nothing about now.
FRESH_SECONDS: Final = 5.0


@immutable
class Spell:
    """A stretch of time in which something held, and the range of a value meanwhile.

    ``seconds`` are those between two looks that both saw it hold; those in which nothing could be told do not count.
    """

    began: float
    last: float
    seconds: float
    low: float
    high: float
    is_paused: bool = False


def go_on(
    spell: Spell | None, at: float, holds: bool | None, value: float = 0.0, patience: float = 0.0
) -> Spell | None:
    """Return the spell after one more look: it holds, it does not, or that cannot be told (``None``).

    What cannot be told ends a spell only when it lasts longer than ``patience``, in seconds.
    """
    if holds is None and spell and at - spell.last <= patience:
        return spell if spell.is_paused else replace(spell, is_paused=True)
    if not holds:
        return None
    if spell is None:
        return Spell(at, at, 0.0, value, value)
    seconds = spell.seconds + (0.0 if spell.is_paused else at - spell.last)
    return Spell(spell.began, at, seconds, min(spell.low, value), max(spell.high, value))


#: A counter by what it is a counter of.
Key = tuple[str, ...]


@immutable
class Count:
    """A counter: when it began to be watched, its value then and now, and when it last rose."""

    began: float
    base: float
    value: float
    rose: float | None = None


#: Seconds after its last rise for which a counter is said to rise. Errors come in bursts.
RISING_SECONDS: Final = 600.0


def count_on(count: Count | None, at: float, value: float) -> Count:
    """Return the counter after one more look. One that fell was reset, and begins anew; so does one that rests."""
    if count is None or value < count.value:
        return Count(at, value, value)
    if value > count.value:
        return Count(count.began, count.base, value, at)
    if count.rose is not None and at - count.rose > RISING_SECONDS:
        return Count(at, value, value)
    return count


@immutable
class _Rate:
    """What a counter that is read now and then was at its last reading, and its increase per second before that."""

    at: float
    total: float
    per_second: float | None


@immutable
class _Timed:
    """A finding as it last held, for how long, and whether it is told."""

    finding: Finding
    spell: Spell
    is_told: bool


class Watch:
    """What one who looks knows of the looks before this one. It is filled while a look is judged, and rests then."""

    def __init__(self, at: float = 0.0, before: "Watch | None" = None, *, watching: bool = False) -> None:
        """Take over from the look before. Who is not ``watching`` looks once, and can wait for nothing."""
        self.at = at
        self.watching = watching
        #: Since when there have been looks without a gap, on the machine's clock.
        self.began: float = before.began if before else at
        self.spells: dict[str, Spell] = {}
        self.counts: dict[str, tuple[float, Mapping[Key, Count]]] = {}
        self.rates: dict[str, _Rate] = {}
        self.found: dict[str, Finding] = {}
        self.timed: dict[str, _Timed] = {}
        # Not the watch itself, which would hold the one before it, and so on.
        self._spells = before.spells if before else {}
        self._counts = before.counts if before else {}
        self._rates = before.rates if before else {}
        self._found = before.found if before else {}
        self._timed = before.timed if before else {}

    @property
    def seconds(self) -> float:
        """For how long this machine has been watched without a gap."""
        return self.at - self.began

    def spell(self, name: str, holds: bool | None, value: float = 0.0, patience: float = 0.0) -> Spell | None:
        """Follow a condition by its name, as `go_on` does."""
        if spell := go_on(self._spells.get(name), self.at, holds, value, patience):
            self.spells[name] = spell
        return spell

    def ago(self, name: str) -> Spell | None:
        """Return a spell as it was a look ago."""
        return self._spells.get(name)

    def rising(self, name: str, at: float, values: Callable[[], Mapping[Key, float]]) -> Mapping[Key, Count]:
        """Follow counters, those of one ``name`` together, and return those that rose of late.

        ``values`` is asked where they have been read since the last look. A counter that is new begins now.
        """
        read_at, before = self._counts.get(name, (None, {}))
        counts = before if read_at == at else {key: count_on(before.get(key), at, now) for key, now in values().items()}
        self.counts[name] = at, counts
        return {key: count for key, count in counts.items() if count.rose is not None}

    def rate(self, name: str, at: float, total: float) -> float | None:
        """Return the increase per second of a counter between its last two readings; None before there are two."""
        before = self._rates.get(name)
        if before and before.at == at:
            rate = before
        else:
            rose = before is not None and at > before.at and total >= before.total
            rate = _Rate(at, total, (total - before.total) / (at - before.at) if before and rose else None)
        self.rates[name] = rate
        return rate.per_second

    def before(self, id_: str) -> Finding | None:
        """Return a finding as the look before had it, told or not: a threshold is lower for what is above it."""
        return self._found.get(id_)

    def tell(self, found: Iterable[Finding], kinds: Mapping[str, Kind]) -> list[Finding]:
        """Return what is told of what was found: what has held for long enough, and what held not long ago."""
        told: list[Finding] = []
        for finding in found:
            self.found[finding.id] = finding
            kind = kinds.get(finding.id)
            if kind is None or not self.watching or self._follow(kind, finding):
                told.append(finding)
        for id_, before in self._timed.items():
            ago = self.at - before.spell.last
            if id_ not in self.found and before.is_told and ago < kinds[id_].hold_seconds:
                self.timed[id_] = replace(before, spell=replace(before.spell, is_paused=True))
                when = f"so it was {ago:.0f} s ago"
                told.append(replace(before.finding, evidence=(*before.finding.evidence, when)))
        return told

    def _follow(self, kind: Kind, finding: Finding) -> bool:
        before = self._timed.get(finding.id)
        spell = go_on(before.spell if before else None, self.at, True)
        assert spell is not None  # noqa: S101  (it holds)
        is_told = spell.seconds >= kind.for_seconds or (before is not None and before.is_told)
        self.timed[finding.id] = _Timed(finding, spell, is_told)
        return is_told
