"""PromQL about metrics that are declared: a name or a label that no declaration has is an error, and no empty panel.

A selector names the machines it is about, by the variables of a dashboard; a unit goes along with what is asked, so
that a rate of joules is watts wherever it is drawn.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from itertools import chain
from typing import Final

from spark_agent.exporters.prometheus import DERIVED, Family, Type, plans

#: What Prometheus adds to every series that it scrapes.
TARGET: Final = ("job", "instance")


@cache
def known() -> Mapping[str, Family]:
    """Return the families that there may be, by the name of their samples."""
    planned = (
        family for plan in plans().values() for family, _ in (*plan.numbers, *plan.infos, *plan.switches, *plan.states)
    )
    return {family.metric: family for family in chain(planned, *DERIVED.values())}


class Machines(StrEnum):
    """Which machines a selector is about: the one that a dashboard's variables name, or all that they name."""

    ONE = 'job="$job", instance="$instance"'
    MANY = 'job=~"$job", instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Expression:
    """What is asked, in which unit the answer is (as a family spells it), and the families that it rests on."""

    text: str
    unit: str
    families: tuple[Family, ...]

    def __add__(self, other: "Expression") -> "Expression":
        """Return the series of both: `or`, which adds no numbers."""
        return Expression(f"{self.text} or {other.text}", self.unit, _all(self, other))

    def holds(self, condition: str) -> "Expression":
        """Return the series whose value meets a condition, such as ``== 1``."""
        return replace(self, text=f"{self.text} {condition}")


_MATCH: Final = re.compile(r"(!=|=~|!~)?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Selectors of declared metrics, for some machines."""

    machines: Machines

    def __call__(self, metric: str, **labels: str) -> Expression:
        """Select a metric, by labels where they are given: ``"pl1"``, ``"!=pl1"``, ``"=~pl."`` or ``"!~pl."``."""
        family = known()[metric]
        _check(family, labels)
        matchers = [str(self.machines)]
        for name, wanted in labels.items():
            operator, value = _MATCH.fullmatch(wanted).groups()  # type: ignore[union-attr]  # it matches anything
            matchers.append(f'{name}{operator or "="}"{value}"')
        return Expression(f"{metric}{{{', '.join(matchers)}}}", family.unit, (family,))


def _check(family: Family, labels: Mapping[str, str] | tuple[str, ...]) -> None:
    if unknown := {*labels} - {*family.labels}:
        raise ValueError(f"{family.metric} has no label {', '.join(sorted(unknown))}")


#: The time that a dashboard shows, and a step of its curves.
RANGE, STEP = "$__range", "$__rate_interval"
#: What a counter's unit becomes where its growth is divided by time.
_PER_SECOND: Final = {"joules": "watts", "bytes": "bytes_per_second", "seconds": "ratio", "": "per_second"}


def rate(of: Expression) -> Expression:
    """Return how fast a counter grows: joules as watts, seconds as the share of time."""
    return Expression(f"rate({_counter(of)}[{STEP}])", _PER_SECOND[of.unit], of.families)


def increase(of: Expression, window: str = RANGE) -> Expression:
    """Return by how much a counter grew."""
    return replace(of, text=f"increase({_counter(of)}[{window}])")


def _counter(of: Expression) -> str:
    if of.families[0].type is not Type.COUNTER:
        raise ValueError(f"{of.text} is no counter")
    return of.text


def gathered(operation: str, of: Expression, *labels: str) -> Expression:
    """Return ``operation by (labels)``; labels are those of the target, or of what is gathered."""
    text = f"{operation} by ({', '.join(labels)}) ({of.text})" if labels else f"{operation}({of.text})"
    return replace(of, text=text, unit="" if operation == "count" else of.unit)


def told_by(of: Expression, info: Expression, *labels: str, on: tuple[str, ...] = ()) -> Expression:
    """Return the same values with labels of an info metric, by the target and the labels that both have."""
    _check(info.families[0], (*labels, *on))
    text = f"{of.text} * on ({', '.join((*TARGET, *on))}) group_left ({', '.join(labels)}) {info.text}"
    return replace(of, text=text, families=_all(of, info))


def less(whole: Expression, *parts: Expression) -> Expression:
    """Return a whole without its parts, of each machine; nothing where one of them is absent."""
    on = f" - on ({', '.join(TARGET)}) "
    return Expression(on.join(one.text for one in (whole, *parts)), whole.unit, _all(whole, *parts))


def over(one: Expression, other: Expression) -> Expression:
    """Return a ratio, of each machine."""
    return Expression(f"{one.text} / on ({', '.join(TARGET)}) {other.text}", "ratio", _all(one, other))


def labelled(of: Expression, label: str, value: str) -> Expression:
    """Return the same series with a label more."""
    return replace(of, text=f'label_replace({of.text}, "{label}", "{value}", "", "")')


def _all(*expressions: Expression) -> tuple[Family, ...]:
    return tuple(dict.fromkeys(family for one in expressions for family in one.families))
