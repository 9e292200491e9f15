"""JSON and YAML as plain values that know their lines. Whatever a text holds, it soon ends in a value or in one line.

YAML is built from its events, and not composed: libyaml's composer calls itself and dies of a hundred thousand
brackets, and aliases within aliases would grow without end where somebody walks them.
"""

import json
import math
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from spark_agent.agent.audit.claim import At, LineOf

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
    line_of: LineOf


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
    return Parsed(root, _JsonLines(text).of)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


class _JsonLines:
    """The lines of a JSON text's values: only findings ask, so each mapping or list is gone through when one does."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._breaks: list[int] = []
        #: By the place of a mapping or list: where what is in it begins.
        self._within: dict[int, dict[str | int, int]] = {}

    def of(self, at: At) -> int | None:
        """Return the line of a place, from 1; None where there is no such place."""
        if not self._breaks:
            self._breaks = [match.start() for match in re.finditer("\n", self._text)] + [len(self._text)]
        position = _skip(self._text, 0)
        for step in at:
            if position not in self._within:
                self._within[position] = self._children(position)
            if step not in self._within[position]:
                return None
            position = self._within[position][step]
        return bisect_left(self._breaks, position) + 1

    def _children(self, position: int) -> dict[str | int, int]:
        text, value_at = self._text, json.JSONDecoder().raw_decode
        found: dict[str | int, int] = {}
        if text[position] not in "{[":
            return found
        is_object, position = text[position] == "{", _skip(text, position + 1)
        while text[position] not in "}]":
            key: str | int = len(found)
            if is_object:
                key, position = value_at(text, position)
                position = _skip(text, _skip(text, position) + 1)
            found[key] = position  # the last one counts, where it stands twice
            position = _skip(text, value_at(text, position)[1])
            if text[position] == ",":
                position = _skip(text, position + 1)
        return found


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
class _Frame:
    """A mapping or list that is not yet complete."""

    container: _Mapping | _List
    anchor: str | None
    key: str | None = None
    is_merge: bool = False
    merged: list[Any] = field(default_factory=list)


def parse_yaml(text: str) -> Parsed:
    """Return what a YAML text holds, with texts for all scalars but null; or raise `MalformedError`."""
    try:
        documents = list(_documents(text))
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
        if not isinstance(root, _Mapping | _List):
            # Documents of a stream stand in a list of ours, which has no place.
            if not isinstance(root, list) or not isinstance(step, int):
                return None
            root = root[step]
            line = root.place.first if isinstance(root, _Mapping | _List) else None
            continue
        line = root.place.lines.get(step)
        if line is None:
            return None
        root = root[step]  # type: ignore[index]  # a key that has a line
    return line


def _documents(text: str) -> Iterator[Any]:
    comments = _Comments(text)
    anchors: dict[str, Any] = {}
    stack: list[_Frame] = []
    values = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line, last = _lines(event)
        value: Any
        size = 1
        is_plain = False
        if isinstance(event, yaml.ScalarEvent):
            comments.skip(event)
            is_plain = not event.style
            value = _scalar(event, is_plain=is_plain)
            if event.anchor:
                anchors[event.anchor] = value
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                raise MalformedError(
                    f"line {line}: no YAML: no anchor is before the alias *{event.anchor}, or it is within"
                )
            value = anchors[event.anchor]
            size = value.place.size if isinstance(value, _Mapping | _List) else 1
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if len(stack) >= MAX_DEPTH:
                raise MalformedError(f"line {line}: is nested deeper than {MAX_DEPTH}")
            container = _Mapping() if isinstance(event, yaml.MappingStartEvent) else _List()
            container.place = _Place(line, line, comments)
            anchors.pop(event.anchor or "", None)  # an alias within itself would have no end
            stack.append(_Frame(container, event.anchor))
            continue
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            frame = stack.pop()
            _merge(frame)
            value = frame.container
            line, last, size = value.place.first, value.place.last, value.place.size
            if frame.anchor:
                anchors[frame.anchor] = value
        else:
            if isinstance(event, yaml.DocumentStartEvent):
                anchors.clear()
            continue
        # What is within a mapping or list was counted as it came.
        values += size if isinstance(event, yaml.AliasEvent) else 1
        if values > MAX_VALUES:
            raise MalformedError(
                f"line {line}: holds more than {MAX_VALUES} values, with those that its aliases repeat"
            )
        if stack:
            _put(stack[-1], value, line, last, size, is_plain=is_plain)
        else:
            yield value


def _lines(event: Any) -> tuple[int, int]:
    """Return the first and last line of an event; a block ends where the next line begins."""
    is_block = getattr(event, "style", None) in ("|", ">")
    first = event.start_mark.line + 1
    return first, max(first, event.end_mark.line + (0 if is_block and not event.end_mark.column else 1))


def _scalar(event: yaml.ScalarEvent, *, is_plain: bool) -> str | None:
    if is_plain and event.value in _NULLS:
        return None
    if event.style == "|":
        block = _Block(event.value)
        block.line = _lines(event)[0]
        return block
    return str(event.value)


def _put(frame: _Frame, value: Any, line: int, last: int, size: int, *, is_plain: bool) -> None:
    container, place = frame.container, frame.container.place
    place.last = max(place.last, last)
    place.size += size
    if isinstance(container, _List):
        place.lines[len(container)] = line
        container.append(value)
    elif frame.is_merge:
        frame.merged.append(value)
        frame.is_merge = False
    elif frame.key is not None:
        place.lines[frame.key] = line
        container[frame.key] = value
        frame.key = None
    elif value == "<<" and is_plain:
        frame.is_merge = True
    else:
        if isinstance(value, dict | list):
            raise MalformedError(f"line {line}: no YAML: a key is no text")
        key = "null" if value is None else str(value)
        if key in container:
            raise MalformedError(f"line {line}: no YAML: {key} stands twice")
        frame.key = key


def _merge(frame: _Frame) -> None:
    """Add what ``<<`` names, where the mapping has no such key of its own."""
    for merged in frame.merged:
        for source in merged if isinstance(merged, _List) else [merged]:
            if isinstance(source, _Mapping) and isinstance(frame.container, _Mapping):
                for key, value in source.items():
                    if key not in frame.container:
                        frame.container[key] = value
                        frame.container.place.lines[key] = source.place.lines[key]
