"""What a Spark may draw, as data: each row has its source, and ``docs/budget.md`` is what the rows say."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from spark_agent.agent import budget, config
from spark_agent.agent.budget_table import (
    CAPS,
    CAPS_SOURCE,
    PARTS,
    RATINGS,
    SEEN,
    Basis,
    Part,
    Span,
    rest_of_parts,
)
from spark_agent.collectors import Scope
from spark_agent.collectors._power import LIMIT
from spark_agent.exporters.prometheus import DERIVED

PAGE = Path(__file__).parent.parent / "docs" / "budget.md"
#: The last line that people write.
MARK = "<!-- From here on `make golden` writes what agent/budget_table.py says. -->\n"
CAPS_NOTE = (
    "The fallback is in force where the embedded controller has published no limit. "
    "The ceiling is what a limit could be set to, and no operating limit."
)
SUM_NOTE = (
    ", the highest with both cages and all three USB-C ports at their most at once; "
    "only then does the allowance matter."
)


def watts(span: Span | None) -> str:
    """Return a span as a person writes it; what is not known says so."""
    if span is None:
        return "not known"
    low, high = span
    return f"{low:g}" if low == high else f"{low:g}–{high:g}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace("| --- ", "|---").replace("--- |", "---|")


def part_row(part: Part) -> tuple[str, ...]:
    """Return the row of one part."""
    name = f"– of it: {part.name}" if part.within else part.name + (f" (up to {part.count})" if part.count > 1 else "")
    return name, watts(part.idle), watts(part.busy), part.basis.words, part.source


def reference() -> str:
    """Return the tables, as Markdown."""
    caps = (
        (f"`{cap.name}`", cap.scope.value, f"{cap.watts:g}", f"{cap.fallback:g}", f"{cap.ceiling:g}", cap.what)
        for cap in CAPS
    )
    idle, busy = rest_of_parts()
    collapsed = ", ".join(f"{limit:g} W for the {scope.value}" for scope, limit in budget.COLLAPSED_WATTS.items())
    thresholds = (
        (f"{100 * budget.NEAR_LIMIT:g} %", "above it, near a limit"),
        (f"{100 * budget.AT_LIMIT:g} %", "from there on, at it"),
        (f"{100 * budget.HYSTERESIS:g} %", "of the limit, by which a verdict ends below where it begins (`serve`)"),
        (f"{budget.OVER_SECONDS:g} s", "for which a limit of SoC or system may be exceeded (`serve`)"),
        (f"{budget.STALE_SECONDS:g} s", "after which a reading supports no verdict and no headroom"),
    )
    return "".join(
        (
            "\n## What NVIDIA says\n\n",
            table(
                ("limit", "scope", "W", "what", "source"),
                ((f"`{row.name}`", row.scope, f"{row.watts:g}", row.what, row.source) for row in RATINGS),
            ),
            "\n## What the firmware enforces\n\n",
            table(("limit", "scope", "W", "fallback, W", "ceiling, W", "what"), caps),
            f"\nSource: {CAPS_SOURCE}. {CAPS_NOTE}\nA limit has collapsed (`capped_low`) at or below {collapsed}.\n",
            "\n## What was seen\n\n",
            table(("what", "W", "source"), ((row.what, watts(row.watts), row.source) for row in SEEN)),
            "\n## What its parts are said to draw\n\n",
            "Figures for planning, in W, of which the agent uses none for a verdict.\n\n",
            table(("part", "idle", "busy", "how sure", "source"), map(part_row, PARTS)),
            f"\nWhat is known of the rest adds up to {watts(idle)} W idle and {watts(busy)} W busy{SUM_NOTE}\n",
            "\n## Thresholds\n\n",
            table(("value", "what"), thresholds),
        )
    )


def test_the_page_is_what_the_rows_say(ends_with: Callable[[Path, str, str], None]) -> None:
    """A figure that is changed shows in the docs; `make golden` puts it there."""
    ends_with(PAGE, MARK, reference())


def test_the_prose_names_what_is_there() -> None:
    """Metrics, settings and figures that a person wrote about are those of the code."""
    prose, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    metrics = {family.metric for group in DERIVED.values() for family in group}
    assert set() == set(re.findall(r"\bgb10_[a-z0-9_]+", prose)) - metrics
    keys = {setting.key for setting in config.table() if setting.group == config.POWER}
    assert keys == {f"power.{key}" for key in re.findall(r"^(\w+_watts) = ", prose, re.MULTILINE)}
    caps = {cap.name: cap.watts for cap in CAPS}
    left = f"{caps['syspl1']:g} − {caps['pl1']:g} = {caps['syspl1'] - caps['pl1']:g} W"
    assert left in prose


def test_each_row_has_a_source() -> None:
    """And says what it is about."""
    assert all(row.source and row.what for row in RATINGS)
    assert all(row.source and row.what for row in SEEN)
    assert all(part.source and part.name for part in PARTS)
    assert all(cap.what for cap in CAPS)
    assert all(basis.words for basis in Basis)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_span_is_one(part: Part) -> None:
    """The lower value first, never below nothing; busy is no less than idle; not known is neither 0 nor half known."""
    assert (part.idle is None) == (part.busy is None) == (part.basis is Basis.UNKNOWN)
    if part.idle and part.busy:
        assert 0 <= part.idle[0] <= part.idle[1]
        assert 0 < part.busy[1]
        assert part.busy[0] <= part.busy[1]
        assert part.idle[1] <= part.busy[1]


def test_what_is_not_known_stays_unknown() -> None:
    """Nobody has measured the memory's power on a GB10, nor where it is counted."""
    (memory,) = (part for part in PARTS if part.name.startswith("LPDDR5X"))
    assert (None, None, None) == (memory.idle, memory.busy, memory.is_rest)
    assert "LPDDR5X, 128 GB | not known | not known" in reference()


def test_the_rest_adds_up() -> None:
    """Each part once for each that there may be; none that is part of another, and not the SoC."""
    (low, high), (_, most) = rest_of_parts()
    assert pytest.approx((5.2, 27.2)) == (low, high)
    # ConnectX-7, two optics, 10 GbE, NVMe, three USB-C ports, Wi-Fi, fan.
    assert 25 + 2 * 9 + 6 + 12 + 3 * 15 + 3 + 6 == most
    (allowance,) = (row.watts for row in RATINGS if row.name == "rest")
    assert most > allowance


def test_the_budget_is_made_of_the_rows() -> None:
    """No figure stands twice."""
    assert [(row.name, row.scope, row.watts, row.source) for row in RATINGS] == [
        (limit.name, limit.scope, limit.watts, limit.source) for limit in budget.VENDOR_LIMITS
    ]
    assert {Scope.SOC: 20, Scope.SYSTEM: 30} == budget.FALLBACK_WATTS
    assert {Scope.SOC: 30, Scope.SYSTEM: 40} == budget.COLLAPSED_WATTS


def test_every_figure_is_one_that_a_limit_can_have() -> None:
    """Else the reading of it would be refused as impossible."""
    low, high = LIMIT.bounds
    for cap in CAPS:
        assert low <= cap.fallback < budget.COLLAPSED_WATTS[cap.scope] < cap.watts < cap.ceiling <= high
