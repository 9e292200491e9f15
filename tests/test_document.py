"""The document: its fixed keys, its schema, and the laws that no number breaks."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from demo import demo_report, steady
from jsonschema import Draft202012Validator
from looks import misheard

from spark_agent.agent.machine import demos
from spark_agent.collectors import Scope
from spark_agent.exporters.document import document, load, text
from spark_agent.exporters.schema import schema

CLOSED = Draft202012Validator(schema(closed=True))

#: What readers of the document rely on; more may come, none may be renamed.
FIXED = {
    "machine": {"name", "origin"},
    "platform": {"is_spark", "vendor", "product", "board", "bios", "os", "kernel", "driver"},
    "memory": {"total_bytes", "available_bytes", "allocatable_bytes", "swap_free_bytes", "unified"},
    "power": {"scopes", "estimate", "limits", "energy", "headroom", "verdicts", "untrusted"},
}
CORE = {"cpu", "core_type", "model", "cluster", "max_hertz"}
DRIVE = {"name", "model", "firmware", "capacity_bytes", "state", "temperature_celsius"}
CARD = {"name", "kind", "driver", "link"}


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _numbers(one, f"{path}.{key}")
    elif isinstance(value, list):
        for one in value:
            yield from _numbers(one, f"{path}[]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def test_the_schema_is_a_schema() -> None:
    """The JSON Schema itself is valid, open and closed."""
    Draft202012Validator.check_schema(schema())
    Draft202012Validator.check_schema(schema(closed=True))


@pytest.mark.parametrize("name", demos())
def test_documents_fit_the_schema(name: str) -> None:
    """Every demo's document fits, and holds no key that the schema does not describe."""
    found = json.loads(text(document(demo_report(name), private=True)))

    assert [] == [error.message for error in CLOSED.iter_errors(found)]


def test_misreads_fit_the_schema() -> None:
    """Where other exporters were looked at, there is a list of what they misread, even of nothing."""
    found = document(misheard("system_power_watts"))
    (misread,) = found["misreads"]

    assert [] == [error.message for error in CLOSED.iter_errors(json.loads(text(found)))]
    assert ("system_power_watts", "floor", "http://x/metrics") == (misread["series"], misread["kind"], misread["url"])
    assert [] == document(misheard())["misreads"]
    assert "misreads" not in document(demo_report("fe-stock"))


@pytest.mark.parametrize(
    ("key", "value"), [("schema", "other/1"), ("surprise", 1), ("findings", [{"id": 1}]), ("power", {})]
)
def test_the_schema_can_refuse(key: str, value: object) -> None:
    """The gate is one: what is wrong does not fit."""
    found = steady(demo_report("fe-gemm")) | {"agent": {"version": "0"}} | {key: value}

    assert list(CLOSED.iter_errors(found))


@pytest.mark.parametrize("name", demos())
def test_fixed_keys(name: str) -> None:
    """The keys that the contract fixes are there on every machine, if need be with null."""
    found = steady(demo_report(name))

    for section, keys in FIXED.items():
        assert keys <= set(found[section]), section
    assert all(set(core) >= CORE for core in found["cpu"]["cores"])
    assert all(set(drive) >= DRIVE for drive in found["nvme"])
    assert all(set(card) >= CARD for card in found["nics"])
    assert {scope.value for scope in Scope} == set(found["power"]["scopes"])
    assert {"system", "soc", "gpu"} == set(found["power"]["verdicts"])


@pytest.mark.parametrize("name", demos())
def test_no_watt_without_scope_quality_source_and_age(name: str) -> None:
    """Under power, each value stands in an object that says what it is; elsewhere there is no watt and no joule."""
    found = steady(demo_report(name))
    for scope, quantity in found["power"]["scopes"].items():
        if quantity["value"] is None:
            assert quantity["reason"], scope
        else:
            assert {"value", "unit", "scope", "quality", "source", "age_seconds"} == set(quantity)
            assert scope == quantity["scope"]
    elsewhere = [path for path, _ in _numbers({key: value for key, value in found.items() if key != "power"})]
    assert [] == [path for path in elsewhere if "watt" in path or "joule" in path]


@pytest.mark.parametrize("name", demos())
def test_an_absence_has_a_reason(name: str) -> None:
    """A null in an entity is explained in its absent map."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, list):
            for one in value:
                check(one, path)
        elif isinstance(value, dict):
            for key, one in value.items():
                if one is None and key != "detail":
                    why = value.get("absent", {}) | value.get("untrusted", {})
                    assert key in why, f"{path}.{key}"
                elif key != "absent":
                    check(one, f"{path}.{key}")

    found = steady(demo_report(name))
    for section in ("platform", "cpu", "memory", "connectx7", "gpu", "nvme", "nics", "thermal", "fans", "cooling"):
        check(found.get(section, {}), section)


def test_private_things_only_if_asked() -> None:
    """Serial numbers, MAC addresses and UUIDs are left out unless they are asked for."""
    usual, private = (text(document(demo_report("fe-gemm"), private=asked)) for asked in (False, True))

    assert "02:00:00:00:00" not in usual
    assert "02:00:00:00:00" in private


def test_a_saved_document_loads() -> None:
    """What was saved can be read again."""
    found = document(demo_report("fe-stock"))

    assert json.loads(text(found)) == load(text(found).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"schema": "x"}',
        b"\xff",
        b'{"schema": "spark-agent/snapshot/1", "x": NaN}',
        b'{"schema": "spark-agent/snapshot/1", "x": 1e999}',
    ],
)
def test_anything_else_is_refused(content: bytes) -> None:
    """A file that is no document is said to be none."""
    with pytest.raises(ValueError, match=r"schema|line \d+|decode|no number"):
        load(content)


def test_what_the_issue_shows() -> None:
    """On the common Spark the system is unmeasured with a reason, and cores 5–9 and 15–19 are the fast ones."""
    found = steady(demo_report("fe-stock"))
    fast = [core["cpu"] for core in found["cpu"]["cores"] if core["core_type"] == "performance"]

    assert found["power"]["scopes"]["system"]["value"] is None
    assert "no_driver" == found["power"]["scopes"]["system"]["reason"]
    assert [5, 6, 7, 8, 9, 15, 16, 17, 18, 19] == fast
    assert 46 == found["power"]["scopes"]["gpu_nvml"]["value"]
