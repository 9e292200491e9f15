"""What changed between two documents: another drive, another driver, a network card that went.

What belongs to the inventory, what names an entity and which unit a number has follows from the declarations.
What they do not know, as of a newer agent, counts as inventory, so that no change goes unseen.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spark_agent.collectors import Property, Quantity, Unit, declarations
from spark_agent.exporters.document import ORDER
from spark_agent.exporters.table import ranges

SCHEMA: Final = "spark-agent/diff/1"


class ChangeKind(StrEnum):
    """How something changed."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs. ``reason`` says why the side that lacks it does, where that is known.

    An entity that came or went has a few words on what it is for its value. Numbered entities that changed alike
    are one change, their numbers written as the kernel writes a list of them: ``cpu.cores[0-4,10-14].governor``.
    """

    path: str
    kind: ChangeKind
    before: Any
    after: Any
    unit: str | None = None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """Whose document was compared, and from when it is."""

    name: str
    origin: str
    taken_at: str


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs. ``not_compared`` are the parts that only one of the two was asked for."""

    before: Side
    after: Side
    everything: bool
    changes: tuple[Change, ...]
    not_compared: tuple[str, ...]


def compare(before: Mapping[str, Any], after: Mapping[str, Any], *, everything: bool = False) -> Difference:
    """Compare the inventory of two documents, or all of it; raise `ValueError` if they have no part in common."""
    rules = _rules()
    parts = [part for part in dict.fromkeys((*ORDER, *before, *after)) if part in before or part in after]
    aside = _HEADING if everything else _HEADING | _JUDGEMENTS
    common, apart = _parted([part for part in parts if part not in aside], before, after)
    if not common:
        raise ValueError("they have no part in common; save both with the same --only, or without it")
    changes = [
        change
        for part in common
        for change in _changes(_Part(part, before, rules), _Part(part, after, rules), everything=everything)
    ]
    return Difference(_side(before), _side(after), everything, tuple(_folded(changes)), tuple(apart))


def text(found: Difference) -> str:
    """Return what differs as JSON."""
    content = {
        "schema": SCHEMA,
        "before": found.before.name,
        "after": found.after.name,
        "not_compared": found.not_compared,
        "changes": [asdict(change) for change in found.changes],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def show(found: Difference, console: Console) -> None:
    """Print what differs, for a person."""
    for sign, style, side in (("-", "red", found.before), ("+", "green", found.after)):
        known = " · ".join(filter(None, (side.name, side.origin, side.taken_at)))
        console.print(Text(f"{sign} {_printable(known)}", style))
    console.print()
    if found.changes:
        console.print(_table(found.changes))
    else:
        console.print(Text("no difference" + ("" if found.everything else " in the inventory (--all: readings too)")))
    if found.not_compared:
        parts = _printable(", ".join(found.not_compared))
        console.print(Text(f"not compared, as only one side was asked for it: {parts}", "dim"))


#: What a document says of itself.
_HEADING: Final = frozenset({"schema", "agent", "machine"})
#: What follows from all that was asked.
_JUDGEMENTS: Final = frozenset({"findings", "misreads", "collectors"})


@dataclass(frozen=True, slots=True)
class _Rule:
    """What is known beforehand of one place in the document, and of all under it that has no rule of its own."""

    inventory: bool = True
    private: bool = False
    unit: str = ""
    collector: str = ""
    id_key: str = "name"


_READING: Final = _Rule(inventory=False)
_WATTS: Final = _Rule(inventory=False, unit=Unit.WATT)
#: Where an interval of the estimate stands.
_INTERVALS: Final = ("power.estimate.system", "power.estimate.score.against")

#: The places that `document` lays out by hand.
_BY_HAND: Final = {
    "power": _Rule(),
    "power.driver": _Rule(collector="spbm"),
    "power.driver_variant": _Rule(collector="spbm"),
    "power.scopes": _READING,
    "power.gpu_nvml_windows": _Rule(inventory=False, id_key="window"),
    "power.averages": _Rule(inventory=False, collector="spbm"),
    "power.estimate": _READING,
    **{
        f"{place}.{bound}": _WATTS for place in _INTERVALS for bound in ("lower", "upper", "basis.lower", "basis.upper")
    },
    **{f"{place}.basis": _Rule(inventory=False, id_key="term") for place in _INTERVALS},
    "power.limits": _Rule(id_key="limit"),
    "power.limits.source": _READING,
    "power.limits.ceiling": _Rule(unit=Unit.WATT),
    "power.limits.floor": _Rule(unit=Unit.WATT),
    "power.limits.published": _Rule(unit=Unit.WATT),
    "power.energy": _READING,
    "power.registers": _Rule(inventory=False, id_key="source"),
    "power.headroom": _READING,
    "power.shares": _Rule(inventory=False, unit=Unit.RATIO),
    "power.rest": _READING,
    "power.verdicts": _READING,
    "power.untrusted": _Rule(inventory=False, id_key="signal"),
    "findings": _Rule(inventory=False, id_key="id"),
    "misreads": _Rule(inventory=False, id_key="series"),
    "collectors": _READING,
}
#: Keys there that differ with every look, or follow from what is compared.
_ASIDE: Final = frozenset({"evidence", "action", "detail", "seconds", "rejected"})
#: Keys of a number that has all that belongs to it beside it.
_ABOUT_A_NUMBER: Final = frozenset({"value", "unit", "age_seconds", "reason", "detail", "why"})
#: Keys beside the bounds of an estimate: what both of them are.
_ABOUT_BOUNDS: Final = _ABOUT_A_NUMBER | {"scope", "quality", "source", "excludes"}
#: What tells a person which entity it is, apart from its name.
_HINTS: Final = ("kind", "name", "core_type", "type", "place", "model", "cpus", "title")

#: The hints of what comes and goes with the ConnectX-7: its interfaces and their sensors. It sleeps without a cable.
_CONNECTX7: Final = frozenset({"connectx7", "mlx5"})


def _rules() -> Mapping[str, _Rule]:
    """Return what the declarations say, by place: ``cpu.cores`` and ``cpu.cores.max_hertz``."""
    rules: dict[str, _Rule] = {}
    for collector, declared in declarations().items():
        for of in declared:
            section = of.section
            inventory = of.inventory or rules.get(section.path, _READING).inventory
            rules[section.path] = _Rule(inventory, collector=collector, id_key=section.id_key or "name")
            if isinstance(of, Property):
                rule = _Rule(of.inventory, of.private, collector=collector, id_key="")
            else:
                rule = _Rule(of.inventory, unit=of.unit, collector=collector, id_key="")
            rules[f"{section.path}.{of.document_key}"] = rule
    return rules | _BY_HAND


def _parted(parts: Iterable[str], before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Part what can be compared from what only one side was asked for, all of which would seem to come or go.

    That is so where one was saved with ``--only``, or by an agent that had not this collector yet.
    """
    feeds: dict[str, set[str]] = {part: set(declarations()) for part in _JUDGEMENTS}
    for collector, declared in declarations().items():
        for of in declared:
            # Powers and energies stand in one part, whichever collector reads them.
            is_power = isinstance(of, Quantity) and of.is_power
            if is_power or of.inventory:
                feeds.setdefault("power" if is_power else of.section.path.partition(".")[0], set()).add(collector)
    asked, asked_after = _visits(before).keys(), _visits(after).keys()
    common: list[str] = []
    apart: list[str] = []
    for part in parts:
        fed = feeds.get(part, set())
        (common if asked & fed == asked_after & fed else apart).append(part)
    return common, apart


def _visits(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    visits: Any = document.get("collectors")
    return {str(visit["name"]): visit for visit in visits} if _are_entities(visits, "name") else {}


def _are_entities(found: Any, id_key: str) -> bool:
    return isinstance(found, list) and all(isinstance(one, Mapping) and id_key in one for one in found)


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _is_number(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def _texts(found: Any, *keys: str) -> list[str]:
    return [str(_mapping(found).get(key) or "") for key in keys]


def _side(document: Mapping[str, Any]) -> Side:
    return Side(*_texts(document.get("machine"), "name", "origin", "taken_at"))


@dataclass(frozen=True, slots=True)
class _Said:
    """What a document says at one path. ``within`` is the path of the entity or the number that it belongs to."""

    value: Any
    rule: _Rule
    within: str
    unit: str = ""
    reason: str = ""
    detail: str = ""
    is_entity: bool = False


_NOTHING: Final = _Said(None, _Rule(), "")


class _Part:
    """One part of a document, laid out flat: what is said at each path, such as ``nics[enP7s7].driver``."""

    def __init__(self, name: str, document: Mapping[str, Any], rules: Mapping[str, _Rule]) -> None:
        self.said: dict[str, _Said] = {}
        self._visits = _visits(document)
        [self._connectx7] = _texts(document.get("connectx7"), "state")
        self._rules = rules
        self._aside = _ASIDE if name in _BY_HAND else frozenset()
        self._add(name, name, document.get(name), _Rule(), "")

    def has(self, path: str) -> bool:
        """Whether anything is there: an entity, or a value."""
        return self.said.get(path, _NOTHING).value is not None

    def why_not(self, path: str, other: _Said) -> tuple[str, str]:
        """Return why nothing is at a path where the other document says something, as far as that is known."""
        if (said := self.said.get(path, _NOTHING)).reason:
            return said.reason, said.detail
        if other.is_entity and other.value in _CONNECTX7 and self._connectx7 not in ("", "present"):
            return self._connectx7, ""
        reason, detail = _texts(self._visits.get(other.rule.collector), "reason", "detail")
        return reason, detail

    def _add(self, place: str, path: str, found: Any, rule: _Rule, within: str) -> None:
        rule = self._rules.get(place, rule)
        if isinstance(found, Mapping):
            self._object(place, path, found, rule, within)
        elif rule.id_key and _are_entities(found, rule.id_key):
            self._entities(place, path, found, rule, within)
        else:
            self.said[path] = _Said(found, rule, within, rule.unit if _is_number(found) else "")

    def _entities(self, place: str, path: str, found: Iterable[Mapping[str, Any]], rule: _Rule, within: str) -> None:
        for one in found:
            name = str(one[rule.id_key])
            times = 1
            while (own := f"{path}[{name}]" if times == 1 else f"{path}[{name}#{times}]") in self.said:
                times += 1
            hints = [one[key] for key in _HINTS if key != rule.id_key and isinstance(one.get(key), str)]
            self.said[own] = _Said(" ".join(hints) or "present", rule, within, is_entity=True)
            self._object(place, own, {key: one[key] for key in one if key != rule.id_key}, rule, own)

    def _object(self, place: str, path: str, found: Mapping[str, Any], rule: _Rule, within: str) -> None:
        aside = self._aside
        if "value" in found:
            unit, reason, detail = _texts(found, "unit", "reason", "detail")
            # An entity that is a number belongs to what the entity belongs to, and all else about it to the number.
            above = self.said[path].within if path in self.said else within
            self.said[path] = _Said(found["value"], rule, above, unit or rule.unit, reason, detail)
            aside, within = aside | _ABOUT_A_NUMBER, path
        elif "lower" in found:
            aside |= _ABOUT_BOUNDS
        absent, untrusted = _mapping(found.get("absent")), _mapping(found.get("untrusted"))
        for key, value in found.items():
            if key not in aside and value is not absent and value is not untrusted:
                self._add(f"{place}.{key}", f"{path}.{key}", value, rule, within)
        for key, note in absent.items():
            reason, detail = _texts(note, "reason", "detail")
            self._explain(place, path, key, _Said(None, rule, within, reason=reason, detail=detail))
        for key, note in untrusted.items():
            self._add(f"{place}.untrusted", f"{path}.untrusted.{key}", note, _READING, within)
            [why] = _texts(note, "why")
            self._explain(place, path, key, _Said(None, rule, within, reason="untrusted", detail=why))

    def _explain(self, place: str, path: str, key: str, said: _Said) -> None:
        """Say why there is no value; the key of a number with labels has them in it."""
        rule = self._rules.get(f"{place}.{key.partition('.')[0]}", said.rule)
        if not self.has(f"{path}.{key}"):
            self.said[f"{path}.{key}"] = replace(said, rule=rule)


def _changes(before: _Part, after: _Part, *, everything: bool) -> Iterator[Change]:
    for path, known in (before.said | after.said).items():
        old, new = before.said.get(path, _NOTHING), after.said.get(path, _NOTHING)
        if not (everything or known.rule.inventory) or (known.rule.private and _NOTHING in (old, new)):
            continue
        # That an entity came or went says it all.
        if any(above and not (before.has(above) and after.has(above)) for above in (old.within, new.within)):
            continue
        if old.value == new.value or (old.is_entity and new.is_entity):
            continue
        kind, reason, detail = ChangeKind.CHANGED, "", ""
        if old.value is None:
            kind, (reason, detail) = ChangeKind.ADDED, before.why_not(path, new)
        elif new.value is None:
            kind, (reason, detail) = ChangeKind.REMOVED, after.why_not(path, old)
        yield Change(path, kind, old.value, new.value, old.unit or new.unit or None, reason or None, detail or None)


_NUMBERED: Final = re.compile(r"(.*\[)([0-9]{1,9})(\].*)", re.DOTALL)


def _folded(changes: Iterable[Change]) -> Iterator[Change]:
    """Make one of those changes of numbered entities that are alike, in the place of the first."""
    groups: dict[str, tuple[Change, str, str, list[int]]] = {}
    for change in changes:
        match = _NUMBERED.fullmatch(change.path)
        head, number, tail = match.groups() if match else (change.path, "", "")
        alike = repr((head, tail, replace(change, path="")))
        numbers = groups.setdefault(alike, (change, head, tail, []))[3]
        if number:
            numbers.append(int(number))
    for change, head, tail, numbers in groups.values():
        yield replace(change, path=f"{head}{ranges(numbers)}{tail}")


_SIGNS: Final = {
    ChangeKind.ADDED: Text("+", "green"),
    ChangeKind.REMOVED: Text("-", "red"),
    ChangeKind.CHANGED: Text("~", "yellow"),
}


def _table(changes: Iterable[Change]) -> Table:
    changes = list(changes)
    longest = max(len(change.path) for change in changes)
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column()
    # Long paths break, as long values do; nothing is cut off.
    table.add_column(overflow="fold", width=min(longest, 40))
    table.add_column(overflow="fold")
    told: set[str | None] = {None}
    for change in changes:
        # The same detail once is enough: without a driver, many things are absent for one reason.
        known = change if change.detail not in told else replace(change, detail=None)
        told.add(change.detail)
        table.add_row(_SIGNS[change.kind], Text(_printable(change.path)), _values(known))
    return table


def _values(change: Change) -> Text:
    if change.kind is ChangeKind.CHANGED:
        return Text(" → ".join(_pair(change)))
    value = change.after if change.before is None else change.before
    values = Text(_humane(value, change.unit, change.path))
    if change.reason:
        why = ": ".join(filter(None, (change.reason, change.detail)))
        values.append(_printable(f" ({'was ' if change.before is None else ''}{why})"), "dim")
    return values


def _pair(change: Change) -> tuple[str, str]:
    """Return both values as a person reads them, to the last digit where they would look the same."""
    before, after = (_humane(value, change.unit, change.path) for value in (change.before, change.after))
    if before != after:
        return before, after
    return _exact(change.before, change.unit), _exact(change.after, change.unit)


#: From which number on a unit is spoken of as which other.
_SCALES: Final[Mapping[str, tuple[tuple[float, float, str], ...]]] = {
    # An MTU stays in bytes.
    Unit.BYTE: ((2**40, 2**40, "TiB"), (2**30, 2**30, "GiB"), (2**20, 2**20, "MiB"), (2**14, 2**10, "KiB")),
    Unit.HERTZ: ((1e9, 1e9, "GHz"), (1e6, 1e6, "MHz")),
    Unit.BIT_PER_SECOND: ((1e9, 1e9, "Gb/s"), (1e6, 1e6, "Mb/s")),
}
#: Drives are sold by powers of ten.
_SOLD: Final = ((1e12, 1e12, "TB"), (1e9, 1e9, "GB"))

_WORDS: Final[Mapping[str, str]] = {
    Unit.CELSIUS: "°C",
    Unit.BYTE: "B",
    Unit.BIT_PER_SECOND: "b/s",
    Unit.REVOLUTION_PER_MINUTE: "rpm",
    Unit.RATIO: "",
    Unit.COUNT: "",
}


def _humane(value: Any, unit: str | None, path: str) -> str:
    if _is_number(value):
        scales = _SOLD if path.endswith(".capacity_bytes") else _SCALES.get(unit or "", ())
        for least, size, word in scales:
            if value >= least:
                return f"{value / size:.4g} {word}"
    return _exact(value, unit)


def _exact(value: Any, unit: str | None) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return f"{value} {_WORDS.get(unit or '', unit or '')}".rstrip()
        case list():
            return ", ".join(_exact(one, unit) for one in value) or "none"
        case str():
            return _printable(value)
        case _:
            return _printable(json.dumps(value, ensure_ascii=False))


def _printable(found: str) -> str:
    """Return a text without what would move a terminal's cursor: a saved document may come from anywhere."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in found)
