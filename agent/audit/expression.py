"""An expression as somebody wrote it, with Grafana's variables in it, made into a tree of PromQL.

The grammar is promql-parser's. What it has no notion of is replaced first: Grafana's macros by durations and numbers,
other variables by their value, where all readers see the same one, or else by a name that says so.
https://grafana.com/docs/grafana/latest/dashboards/variables/
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from promql_parser import Expr, parse

#: The parser, and the walk over its trees, go as deep as an expression does, and a stack has an end.
MAX_CHARACTERS: Final = 1 << 15
MAX_DEPTH: Final = 100
MAX_OPERATORS: Final = 200

#: Seconds that ``$__range`` stands for here: a day, so that what is scaled by ``$__range_s`` fits to it.
RANGE_SECONDS: Final = 86_400
_DURATIONS: Final = {"__range": "1d", "__rate_interval": "5m", "__interval": "1m", "interval": "5m"}
_NUMBERS: Final = {
    "__range_s": str(RANGE_SECONDS),
    "__range_ms": str(RANGE_SECONDS * 1000),
    "__interval_ms": "60000",
    "__interval_s": "60",
    "__rate_interval_ms": "300000",
    "__from": "0",
    "__to": "86400000",
}
#: How the name begins that stands for a variable which may be anything.
VARIABLE: Final = "var_"

_TOKEN: Final = re.compile(
    r"""
      (?P<comment>\#[^\n]*)
    | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
    | (?P<variable>\$\{(?P<braced>\w+)[^{}]*\}|\[\[(?P<bracketed>\w+)(?::\w+)?\]\]|\$(?P<plain>\w+))
    | (?P<operator>==|!=|>=|<=|=~|!~|[-+*/%^<>]|\b(?:and|or|unless|atan2)\b)
    | (?P<open>[({])
    | (?P<close>[)}])
    | (?P<range>\[)
    | (?P<ranged>\])
    """,
    re.VERBOSE | re.IGNORECASE,
)


class ExpressionError(Exception):
    """Why an expression cannot be read as PromQL."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A tree, and what the text said besides."""

    tree: Expr
    #: Names of the variables outside of strings: a price is often one.
    variables: tuple[str, ...]
    comments: str


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Expr:
    return parse(text)


def _tree(text: str) -> Expr:
    """Return a tree, or raise a `ValueError`."""
    try:
        return _parsed(text)
    except OverflowError as fault:
        raise ValueError(str(fault)) from None
    except BaseException as fault:
        # What Rust calls a panic is no `Exception` here, and its type cannot be imported.
        if type(fault).__name__ == "PanicException":
            raise ValueError("the parser gave up on it") from None
        raise


def read(text: str, variables: Mapping[str, str] | None = None) -> Expression:
    """Return an expression's tree, or raise `ExpressionError`."""
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"longer than {MAX_CHARACTERS} characters")
    if not text.strip():
        raise ExpressionError("empty")
    known = variables or {}
    named: list[str] = []
    comments: list[str] = []
    # A variable may be a metric or a number: which one fits is known when it is parsed.
    first = _substituted(text, known, lambda name: VARIABLE + name, named, comments)
    try:
        tree = _tree(first)
    except ValueError as fault:
        if not named:
            raise ExpressionError(_short(fault)) from None
        try:
            tree = _tree(_substituted(text, known, lambda _: "1", [], []))
        except ValueError:
            raise ExpressionError(_short(fault)) from None
    return Expression(tree, tuple(dict.fromkeys(named)), " ".join(comments))


def _short(fault: Exception) -> str:
    line = " ".join(str(fault).split())
    return line if len(line) <= 160 else f"{line[:160]}…"


def _substituted(
    text: str, known: Mapping[str, str], stand_in: Callable[[str], str], named: list[str], comments: list[str]
) -> str:
    """Return the text without variables and comments, and note which there were."""
    out: list[str] = []
    end = depth = operators = 0
    is_range = False
    for token in _TOKEN.finditer(text):
        out.append(text[end : token.start()])
        end = token.end()
        kind, said = token.lastgroup, token[0]
        if kind == "comment":
            comments.append(said[1:].strip())
            continue
        if kind == "variable":
            name = token["braced"] or token["bracketed"] or token["plain"]
            after = text[end : end + 1]
            before = out[-1][-1:] if out[-1] else (text[token.start() - 1 : token.start()] if token.start() else "")
            said = _value(name, before, after, known, stand_in, is_range=is_range)
            if said.startswith(VARIABLE) or (said == "1" and name not in known):
                named.append(name)
        elif kind == "operator":
            operators += 1
        elif kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        elif kind == "range":
            is_range = True
        elif kind == "ranged":
            is_range = False
        if depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH} levels")
        if operators > MAX_OPERATORS:
            raise ExpressionError(f"more than {MAX_OPERATORS} operators")
        out.append(said)
    out.append(text[end:])
    return "".join(out)


_SIMPLE: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE]-?\d+)?|[A-Za-z_:][\w:]*|(?:\d+(?:ms|[smhdwy]))+")


def _value(
    name: str, before: str, after: str, known: Mapping[str, str], stand_in: Callable[[str], str], *, is_range: bool
) -> str:
    """Return what stands for a variable."""
    if name in _NUMBERS and not is_range:
        return _NUMBERS[name]
    if name in _DURATIONS and (is_range or name.startswith("__")):
        return _DURATIONS[name]
    value = known.get(name, "")
    if _SIMPLE.fullmatch(value) and not (is_range and not value[-1].isalpha()):
        return value
    if is_range:
        return "5m"
    if re.match(r"[\w:]", after):
        return ""  # a prefix: the metric is what follows
    if re.match(r"[\w:]", before):
        return f"_{VARIABLE}{name}"
    return stand_in(name)
