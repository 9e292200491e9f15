"""JSON and YAML as plain values that know their lines. Whatever a text holds, it soon ends in a value or in one line.

YAML is built from its events, and not composed: libyaml's composer calls itself and dies of a hundred thousand
brackets, and aliases within aliases would grow without end where somebody walks them.
"""

import json
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import yaml

from spark_agent.agent.audit.claim import At

#: Deeper than any dashboard; Grafana's second schema needs 30.
MAX_DEPTH: Final = 100
#: Values that a YAML file may have, with all that its aliases repeat: some seconds' work.
MAX_VALUES: Final = 1_000_000

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BREAK: Final = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_COMMENT: Final = re.compile(r"(?:^|\s)#+(.*)")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# Prometheus' own templates have no such names; a line that begins with braces may be one of theirs, if YAML takes it.
_HELM: Final = re.compile(r"\{\{-?[\s($]*(?:\.(?:Values|Release|Chart|Capabilities|Files)\b|include\s|toYaml\b|`)")
_BRACES: Final = re.compile(r"^[ \t]*(?:[\w-]+:[ \t]+)?\{\{", re.MULTILINE)
_HELM_TEMPLATE: Final = "is a Helm template: render it first (helm template …)"


class MalformedError(Exception):
    """A text that cannot be read: says on which line, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A part of a document that cannot be audited, and why; the rest of it can."""

    message: str
    at: At


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a text holds; ``root`` is a list where YAML has several documents."""

    root: Any
    line_of: Callable[[At], int | None]


def parse(text: str, *, is_json: bool) -> Parsed:
    """Return what a text holds, or raise `MalformedError`; YAML where it is not said to be JSON."""
    text = str(text)  # libyaml takes no kind of its own
    if is_json:
        return parse_json(text)
    if text.lstrip()[:1] in ("{", "["):
        try:
            return parse_json(text)
        except MalformedError:
            pass  # YAML that begins like JSON
    return parse_yaml(text)


# --- values: of any type, until one of these has judged them ----------------------------------------------------------


def text_of(value: Any) -> str:
    """Return a text, or a number as text; empty where it is neither."""
    if isinstance(value, str):
        # Half of a surrogate pair, which JSON can write and no terminal can.
        return str(value) if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return ""


def number_of(value: Any) -> float | None:
    """Return a number, or what a text says that is one: YAML's are texts here, and so are those of old dashboards."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def is_true(value: Any) -> bool:
    """Return whether a value is true, in JSON or YAML."""
    return value is True or value == "true"


def mapping_of(value: Any) -> dict[str, Any]:
    """Return a mapping; an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """Return a list; an empty one where it is none."""
    return value if isinstance(value, list) else []


def mappings_of(value: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the mappings of a list, with their indices."""
    for index, one in enumerate(list_of(value)):
        if isinstance(one, dict):
            yield index, one


# --- JSON -------------------------------------------------------------------------------------------------------------


def parse_json(text: str) -> Parsed:
    """Return what a JSON text holds, or raise `MalformedError`."""
    try:
        root = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise MalformedError(f"line {error.lineno}: no JSON: {error.msg[:1].lower()}{error.msg[1:]}") from None
    except RecursionError:
        raise MalformedError("is nested too deeply") from None
    except ValueError as error:
        raise MalformedError(f"no JSON: {error}") from None
    return Parsed(root, _JsonLines(text))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


class _JsonLines:
    """The lines of a JSON text's values, found by going through it once more: only findings ask."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._value_at = json.JSONDecoder().raw_decode
        #: By where a mapping or list begins: where its values do.
        self._values: dict[int, dict[str | int, int]] = {}

    def __call__(self, at: At) -> int | None:
        """Return the line of a value, from 1; None where there is none."""
        position = _skip(self._text, 0)
        for step in at:
            if position not in self._values:
                self._values[position] = dict(self._within(position))
            found = self._values[position].get(step)
            if found is None:
                return None
            position = found
        return bisect_left(self._breaks, position) + 1

    @cached_property
    def _breaks(self) -> list[int]:
        return [match.start() for match in re.finditer("\n", self._text)]

    def _within(self, position: int) -> Iterator[tuple[str | int, int]]:
        """Yield the keys or indices of a mapping or list, and where the values stand; of one key, the last counts."""
        text = self._text
        if text[position] not in "{[":
            return
        is_object, position = text[position] == "{", _skip(text, position + 1)
        index = 0
        while text[position] not in "}]":
            key: str | int = index
            if is_object:
                key, position = self._value_at(text, position)
                position = _skip(text, _skip(text, position) + 1)
            yield key, position
            position = _skip(text, self._value_at(text, position)[1])
            if text[position] == ",":
                position = _skip(text, position + 1)
            index += 1


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


# --- YAML -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Place:
    """Where a mapping or list of YAML stands, in lines from 1; how many values it has within."""

    first: int
    last: int
    comments: "_Comments"
    lines: dict[str | int, int] = field(default_factory=dict)
    size: int = 1


class _Mapping(dict[str, Any]):
    """A mapping that knows its lines."""

    __slots__ = ("place",)
    place: _Place


class _List(list[Any]):
    """A list that knows its lines."""

    __slots__ = ("place",)
    place: _Place


class _Block(str):
    """A text that stands below its key, line by line (``|``): a document within a document keeps its lines."""

    __slots__ = ("line",)
    line: int


def block_line(text: Any) -> int | None:
    """Return the line before the first one of a text that stands there line by line."""
    return text.line if isinstance(text, _Block) else None


def comments_on(value: Any) -> list[str]:
    """Return the comments directly above a mapping of YAML and within it, from the top."""
    return value.place.comments.of(value.place) if isinstance(value, _Mapping) else []


class _Comments:
    """The comments of a text, which no event tells: what stands behind a number sign, and in no scalar."""

    def __init__(self, text: str) -> None:
        self._text = text if "#" in text else ""
        self._lines: list[str] | None = None
        # By line, from 0: the column after its last scalar; no column for a line that is all a scalar's.
        self._ends: dict[int, int | None] = {}

    def skip(self, event: Any) -> None:
        """Take note of a scalar."""
        if not self._text:
            return
        start, end = event.start_mark, event.end_mark
        is_block = event.style in ("|", ">")
        self._ends[start.line] = start.column if is_block else end.column
        if end.line > start.line:
            # A block ends where the next line begins, unless the text ends with it.
            self._ends.update(dict.fromkeys(range(start.line + 1, end.line + (is_block and end.column > 0))))
            if not is_block:
                self._ends[end.line] = end.column

    def of(self, place: _Place) -> list[str]:
        """Return those that belong to a place."""
        if not self._text:
            return []
        if self._lines is None:
            self._lines = _BREAK.split(self._text)
        top = place.first - 1
        while top > 0 and self._ends.get(top - 1, 0) == 0 and self._lines[top - 1].lstrip().startswith("#"):
            top -= 1
        found = (self._on(line) for line in range(top, min(place.last, len(self._lines))))
        return [comment for comment in found if comment]

    def _on(self, line: int) -> str:
        end = self._ends.get(line, 0)
        match = _COMMENT.search((self._lines or [])[line][end:]) if end is not None else None
        return match[1].strip() if match else ""


@dataclass(slots=True)
class _Node:
    """A value that is complete, its first and last line, and how many values it is with all within."""

    value: Any
    first: int
    last: int
    size: int = 1
    #: Whether it is ``<<``, as a key: what follows is merged.
    is_merge: bool = False


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is not yet complete."""

    container: _Mapping | _List
    anchor: str | None
    key: str | None = None
    is_merge: bool = False
    merged: list[Any] = field(default_factory=list)

    def put(self, node: _Node) -> None:
        """Add an item, a key, or the value of the key before."""
        container, place = self.container, self.container.place
        place.last = max(place.last, node.last)
        place.size += node.size
        if isinstance(container, _List):
            place.lines[len(container)] = node.first
            container.append(node.value)
        elif self.is_merge:
            self.merged.append(node.value)
            self.is_merge = False
        elif self.key is not None:
            place.lines[self.key] = node.first
            container[self.key] = node.value
            self.key = None
        elif node.is_merge:
            self.is_merge = True
        else:
            if isinstance(node.value, dict | list):
                raise MalformedError(f"line {node.first}: no YAML: a key is no text")
            self.key = "null" if node.value is None else str(node.value)
            if self.key in container:
                raise MalformedError(f"line {node.first}: no YAML: {self.key} stands twice")

    def complete(self) -> _Node:
        """Return the mapping or list, with what ``<<`` names where it has no such key of its own."""
        container, place = self.container, self.container.place
        for merged in self.merged:
            for source in merged if isinstance(merged, _List) else [merged]:
                if isinstance(source, _Mapping) and isinstance(container, _Mapping):
                    place.lines |= {key: source.place.lines[key] for key in source.keys() - container.keys()}
                    container |= {key: value for key, value in source.items() if key not in container}
        return _Node(container, place.first, place.last, place.size)


class _Builder:
    """Makes values of events."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._comments = _Comments(text)
        self._anchors: dict[str, Any] = {}
        self._open: list[_Frame] = []
        self._values = 0

    def documents(self) -> Iterator[Any]:
        """Yield the value of each document."""
        for event in yaml.parse(self._text, Loader=_LOADER):
            node = self._node(event)
            if node is None:
                continue
            # What is within a mapping or list was counted as it came.
            self._values += node.size if isinstance(event, yaml.AliasEvent) else 1
            if self._values > MAX_VALUES:
                raise MalformedError(
                    f"line {node.first}: holds more than {MAX_VALUES} values, with those that its aliases repeat"
                )
            if self._open:
                self._open[-1].put(node)
            else:
                yield node.value

    def _node(self, event: yaml.Event) -> _Node | None:
        """Return what an event completes."""
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            frame = self._open.pop()
            if frame.anchor:
                self._anchors[frame.anchor] = frame.container
            return frame.complete()
        elif isinstance(event, yaml.DocumentStartEvent):
            self._anchors.clear()
        return None

    def _scalar(self, event: yaml.ScalarEvent) -> _Node:
        self._comments.skip(event)
        first, last = _lines(event)
        value: str | None = event.value
        if not event.style and value in _NULLS:
            value = None
        elif event.style == "|":
            value = _Block(value)
            value.line = first
        if event.anchor:
            self._anchors[event.anchor] = value
        return _Node(value, first, last, is_merge=not event.style and value == "<<")

    def _alias(self, event: yaml.AliasEvent) -> _Node:
        line, _ = _lines(event)
        if event.anchor not in self._anchors:
            raise MalformedError(
                f"line {line}: no YAML: no anchor is before the alias *{event.anchor}, or it is within"
            )
        value = self._anchors[event.anchor]
        return _Node(value, line, line, value.place.size if isinstance(value, _Mapping | _List) else 1)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        line, _ = _lines(event)
        if len(self._open) >= MAX_DEPTH:
            raise MalformedError(f"line {line}: is nested deeper than {MAX_DEPTH}")
        container = _Mapping() if isinstance(event, yaml.MappingStartEvent) else _List()
        container.place = _Place(line, line, self._comments)
        self._anchors.pop(event.anchor or "", None)  # an alias within itself would have no end
        self._open.append(_Frame(container, event.anchor))


def _lines(event: Any) -> tuple[int, int]:
    """Return the first and last line of an event; a block ends where the next line begins."""
    is_block = getattr(event, "style", None) in ("|", ">")
    first = event.start_mark.line + 1
    return first, max(first, event.end_mark.line + (0 if is_block and not event.end_mark.column else 1))


def parse_yaml(text: str) -> Parsed:
    """Return what a YAML text holds, with texts for all scalars but null; or raise `MalformedError`."""
    try:
        documents = list(_Builder(text).documents())
    except MalformedError as error:
        raise MalformedError(_broken_template(text) or str(error)) from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise MalformedError(_broken_template(text) or f"{line}no YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        reason = getattr(error, "reason", None) or " ".join(str(error).split())
        raise MalformedError(f"no YAML: {reason}") from None
    if _HELM.search(text):
        raise MalformedError(_HELM_TEMPLATE)
    found = [document for document in documents if document is not None]
    root = found[0] if len(found) == 1 else found
    return Parsed(root or None, lambda at: _yaml_line(root, at))


def _broken_template(text: str) -> str | None:
    """Return which program's template it is that is no YAML."""
    if _HELM.search(text) or _BRACES.search(text):
        return _HELM_TEMPLATE
    return "is a Jinja template: render it first" if "{%" in text else None


def _yaml_line(root: Any, at: At) -> int | None:
    line = None
    for step in at:
        try:
            if isinstance(root, _Mapping | _List):
                line = root.place.lines[step]
            # The documents of a stream stand in a list of ours, which has no place.
            root = root[step]
        except (IndexError, KeyError, TypeError):
            return None
    return root.place.first if line is None and isinstance(root, _Mapping | _List) else line
