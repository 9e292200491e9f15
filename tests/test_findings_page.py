"""``docs/findings.md`` has every kind of finding there is, with its times and thresholds, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo import demo_report

from spark_agent.agent import ailments, frozen, lowpower, misread, watch
from spark_agent.agent.health import KINDS
from spark_agent.agent.machine import demos

REPO = Path(__file__).parent.parent
PAGE = (REPO / "docs" / "findings.md").read_text(encoding="utf-8")


_ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| *([^|]*?) *\| *([^|]*?) *\|$", re.MULTILINE)


def _rows() -> dict[str, tuple[str, str, str]]:
    return {id_: (severity, lasting, held) for id_, severity, lasting, held in _ROW.findall(PAGE)}


def _sections() -> dict[str, str]:
    parts = re.split(r"^### `([^`]+)`\n", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.split("\n## ")[0] for part in parts[2::2]), strict=True))


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds else ""


def test_every_kind_is_in_the_table_with_its_times() -> None:
    """In the order of the code; a time that changes there changes here."""
    assert [(kind.id, _seconds(kind.for_seconds), _seconds(kind.hold_seconds)) for kind in KINDS] == [
        (id_, lasting, held) for id_, (_, lasting, held) in _rows().items()
    ]


def test_every_kind_has_a_section_and_every_section_is_a_kind() -> None:
    """With words in it."""
    assert {kind.id for kind in KINDS} == set(_sections())
    assert all(len(text.split()) > 3 for text in _sections().values())


def _calls(name: str) -> Iterator[str]:
    """Yield the file of each call of a function, or class, in the modules that know of findings."""
    for path in (REPO / "agent").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "finding.py" and "agent.finding import" in text:
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                    yield path.name


def test_every_kind_in_the_code_is_listed() -> None:
    """None is declared anywhere that `KINDS` does not have, and no finding is made without a kind."""
    assert len(KINDS) == len(list(_calls("Kind")))
    assert [] == list(_calls("Finding"))


@pytest.mark.parametrize("name", demos())
def test_what_is_found_has_the_severity_that_the_page_says(name: str) -> None:
    """On every demo."""
    rows = {kind: _rows()[kind.id][0] for kind in KINDS}
    for finding in demo_report(name).findings:
        (severity,) = (words for kind, words in rows.items() if kind.covers(finding.id))
        assert finding.severity in severity


@pytest.mark.parametrize(
    ("id_", "words"),
    [
        ("stuck_low_power", f"at least {lowpower.LOADED:.0%}".replace("%", " %")),
        ("stuck_low_power", f"below {lowpower.LOW_HERTZ / 1e6:.0f} MHz"),
        ("stuck_low_power", f"below {lowpower.LOW_WATTS:.0f} W"),
        ("stuck_low_power", f"for {lowpower.LOW_SECONDS:.0f} s of load"),
        ("stuck_low_power", f"up to {lowpower.PAUSE_SECONDS:.0f} s"),
        ("stuck_low_power", f"up to {lowpower.TOLD_PAUSE_SECONDS / 60:.0f} minutes"),
        ("stuck_low_power", f"above {lowpower.SEEN_STUCK_HERTZ / 1e6:.0f} MHz"),
        ("capped_low", f"below {lowpower.STARVED_HERTZ / 1e6:.0f} MHz and {lowpower.STARVED_WATTS:.0f} W"),
        ("capped_low", f"after {lowpower.STARVED_SECONDS / 60:.0f} minutes"),
        ("cpu_held_low", f"for {lowpower.CPU_SECONDS:.0f} s"),
        ("cpu_held_low", "{:.0f} to {:.0f} W".format(*lowpower.CPU_WATTS)),
        ("misread_power", f"below {misread.FLOOR_WATTS:.0f} W"),
        ("impossible", f"for {frozen.FROZEN_SECONDS:.0f} s"),
        ("memory_low", f"below {ailments.MEMORY_WARNING_BYTES >> 30} GiB"),
        ("memory_low", f"below {ailments.MEMORY_CRITICAL_BYTES >> 30} GiB"),
        ("memory_low", f"more than {100 * ailments.STALLED_RATIO:.0f} %"),
        ("too_hot", f"Within {ailments.WARNING_KELVIN:.0f} K"),
        ("too_hot", f"Within {ailments.CRITICAL_KELVIN:.0f} K"),
        ("fans_still", f"from {ailments.WARM_CELSIUS:.0f} °C"),
        ("fans_still", f"from {ailments.HOT_CELSIUS:.0f} °C"),
        ("fans_probably_still", f"after {ailments.COOLED_SECONDS / 60:.0f} minutes"),
        ("pcie_errors", f"last {watch.RISING_SECONDS / 60:.0f} minutes"),
    ],
)
def test_thresholds_are_those_of_the_code(id_: str, words: str) -> None:
    """Each number that a person may want to check."""
    assert words in _sections()[id_]
