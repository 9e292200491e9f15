"""Laws on names and units, held by every declaration."""

import re

import pytest

from spark_agent.collectors import Kind, Property, Quantity, Reading, Scope, Unit, declarations

DECLARED = [(collector, of) for collector, declared in declarations().items() for of in declared]
QUANTITIES = [(collector, of) for collector, of in DECLARED if isinstance(of, Quantity)]
METRICS = [(collector, of) for collector, of in QUANTITIES if of.section.exported]


def _ids(pair: tuple[str, Quantity | Property]) -> str:
    return f"{pair[0]}.{pair[1].section.path}.{pair[1].key}"


@pytest.mark.parametrize("pair", DECLARED, ids=_ids)
def test_a_declaration_says_what_and_whence(pair: tuple[str, Quantity | Property]) -> None:
    """Each has a help text and a source: a kernel path or an NVML call."""
    _, of = pair

    assert of.help
    assert of.source
    assert re.fullmatch(r"[a-z][a-z0-9_]*", of.key)


@pytest.mark.parametrize("pair", METRICS, ids=_ids)
def test_the_unit_is_in_the_name(pair: tuple[str, Quantity]) -> None:
    """A metric's name ends in its base unit, and none but a counter says total."""
    _, of = pair

    assert of.name.endswith(of.unit.words)
    assert not of.name.endswith(("_total", "_sum", "_count", "_bucket", "_info"))
    assert re.fullmatch(r"[a-z][a-z0-9_]*", of.name)


@pytest.mark.parametrize("pair", QUANTITIES, ids=_ids)
def test_labels_are_free_for_scrape_targets(pair: tuple[str, Quantity]) -> None:
    """No label that scrape configurations use for the target itself."""
    _, of = pair

    assert not {"type", "zone", "host", "hostname", "service", "env", "cluster", "instance", "job"} & {
        *of.labels,
        of.section.entity,
    }


def test_watts_and_joules_have_a_scope() -> None:
    """A power or an energy never leaves its collector without saying what it covers; limits name it in a label."""
    without = [_ids(pair) for pair in QUANTITIES if pair[1].unit in (Unit.WATT, Unit.JOULE) and not pair[1].scope]

    assert all(".limit_" in name for name in without), without


def test_a_part_never_poses_as_the_whole() -> None:
    """No metric name holds two scopes, but for CPU power, whose core types are disjoint."""
    scopes: dict[str, set[Scope]] = {}
    for _, of in METRICS:
        if of.scope:
            scopes.setdefault(of.name, set()).add(of.scope)
    mixed = {name: found for name, found in scopes.items() if len(found) > 1}

    assert {"cpu_power_watts": {Scope.CPU_PERFORMANCE, Scope.CPU_EFFICIENCY}} == mixed


def test_names_are_declared_once() -> None:
    """No two declarations share a metric name with other labels, unit or kind."""
    shapes: dict[str, set[tuple[object, ...]]] = {}
    for _, of in METRICS:
        shapes.setdefault(of.name, set()).add((of.unit, of.kind, of.labels, of.section.entity))

    assert {} == {name: found for name, found in shapes.items() if len(found) > 1}


def test_keys_are_unique_in_their_section() -> None:
    """No two declarations would write the same key of the document."""
    keys = [(of.section.path, of.document_key) for of in {of for _, of in DECLARED}]

    assert sorted(set(keys)) == sorted(keys)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_is_no_reading(value: float) -> None:
    """A NaN compares false with every limit, so it cannot be made."""
    _, of = QUANTITIES[0]

    with pytest.raises(ValueError, match="no reading"):
        Reading(of, value, labels=("",) * len(of.labels))


def test_counters_say_so_in_the_document() -> None:
    """A key of the document tells a counter from a gauge."""
    wrong = [
        _ids(pair) for pair in QUANTITIES if pair[1].document_key.endswith("_total") != (pair[1].kind is Kind.COUNTER)
    ]

    assert ["memory.memory.hugepages_total"] == wrong
