"""The laws, on machines that hypothesis makes up: whatever was read, no watt and no joule leaves without what it needs.

A power or an energy is told with scope, quality, source and age; what is estimated is never told as measured; no
family mixes a whole with its parts; nothing is NaN.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import jsonschema
from demo import screen
from hypothesis import given
from hypothesis import strategies as st
from looks import HEALTHY, SPARK, WEDGED, found, watts

from spark_agent.agent.energy import Meter
from spark_agent.agent.report import Report, report
from spark_agent.collectors import Fact, Item, Quality, Reading, Scope, gpu, spbm
from spark_agent.exporters import prometheus
from spark_agent.exporters.document import document, text
from spark_agent.exporters.prometheus import DERIVED, families, plans
from spark_agent.exporters.schema import schema

VALIDATOR: Final = jsonschema.Draft202012Validator(schema(closed=True))

_POWERS: Final = (
    *("dc_input", "system", "soc", "cpu_gpu", "cpu_performance", "cpu_efficiency", "gpu_rail", "dla", "vcore"),
    *("gpu_nvml", "pl1", "pl2", "syspl1", "syspl2"),
)
_REGISTERS: Final = (
    spbm.SOC_REGISTER,
    spbm.CPU_PERFORMANCE_REGISTER,
    spbm.CPU_EFFICIENCY_REGISTER,
    spbm.GPU_REGISTER,
    gpu.ENERGY,
)

#: What holds what, at whatever depth.
_SOC: Final = frozenset({Scope.DC_INPUT, Scope.SYSTEM, Scope.SOC})
_INSIDE: Final = {
    Scope.SYSTEM: {Scope.DC_INPUT},
    Scope.SOC: {Scope.DC_INPUT, Scope.SYSTEM},
    Scope.CPU_GPU: _SOC,
    Scope.CPU_PERFORMANCE: {*_SOC, Scope.CPU_GPU},
    Scope.CPU_EFFICIENCY: {*_SOC, Scope.CPU_GPU},
    Scope.GPU_RAIL: {*_SOC, Scope.CPU_GPU},
    Scope.GPU_NVML: {*_SOC, Scope.CPU_GPU},
    Scope.DLA: _SOC,
    Scope.VCORE: _SOC,
    Scope.PREREGULATOR: {Scope.DC_INPUT},
}

_LOOK: Final = st.tuples(
    st.dictionaries(st.sampled_from(_POWERS), st.floats(0, 260), max_size=len(_POWERS)),
    st.dictionaries(st.sampled_from(_REGISTERS), st.floats(0, 4e6), max_size=len(_REGISTERS)),
    st.sampled_from((0.0, 0.5, 1.0, 1.0, 1.0, 4.0, 40.0, 4000.0)),
    st.sampled_from(((), HEALTHY, WEDGED)),
    st.floats(0, 40),
)


def _reports(looks: list[Any], *, is_spark: bool) -> Iterator[Report]:
    """Yield the report of each look, as the daemon would make it."""
    meter, before, clock = Meter(), None, 100.0
    for powers, registers, step, limits, age in looks:
        clock += step
        items: list[Item] = [
            Fact(SPARK.of, is_spark),
            *watts(**powers),
            *limits,
            *(Reading(of, value, "0" if of is gpu.ENERGY else "") for of, value in registers.items()),
        ]
        seen = found(*items, ages={"gpu": age})
        visits = tuple(replace(visit, at=visit.at + clock - seen.at) for visit in seen.visits)
        seen = replace(seen, at=clock, taken_at=seen.taken_at + clock, visits=visits)
        before = report(seen, before, watching=True, meter=meter)
        yield replace(before, energies=meter.energies())


def _objects(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            yield from _objects(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner, path)


def _numbers(value: dict[str, Any]) -> dict[str, float]:
    return {key: inner for key, inner in value.items() if isinstance(inner, int | float) and inner is not True}


# Numbers that are no watts and no joules, besides a power or an energy.
_COMPANIONS: Final = {
    *("age_seconds", "covered_seconds", "uncovered_seconds", "resets", "crosscheck_ratio", "share", "ratio"),
}


def _check_document(told: Report) -> None:
    whole = json.loads(text(document(told)))
    VALIDATOR.validate(whole)
    power = whole.get("power", {})
    for path, one in _objects(power, ("power",)):
        if one.get("unit") in ("W", "J"):
            # Of a limit the origin says how it is known.
            needed = {"scope", "source"} | ({"origin"} if "limit" in one else {"quality", "age_seconds"})
            assert needed <= {*one}, path
            if "estimate" not in path:
                assert one.get("quality") != Quality.ESTIMATED, path
        elif path[-1] == "basis":
            # A part of the estimate, whose unit, scope, quality and age are those of the whole of it.
            assert one["source"]
        elif "signal" not in one:
            assert not {*_numbers(one)} - _COMPANIONS - {*power.get("shares", ())}, path
    for path, one in _objects({key: part for key, part in whole.items() if key != "power"}):
        assert not [key for key in _numbers(one) if re.search(r"watt|joule|power(?!_(state|on))", key)], path


def _check_metrics(told: Report) -> None:
    sources = {values[0] for family, samples in families(told) for values in samples if "power_source" in family.name}
    for family, samples in families(told):
        assert ". Source: " in family.help, family.name
        assert all(math.isfinite(value) for value in samples.values()), family.name
        if (
            samples
            and family.unit == "watts"
            and family in _OF_SCOPE
            and not re.search("average|estimate", family.name)
        ):
            (scope, *_) = _OF_SCOPE[family]
            assert scope in sources or scope in (Scope.CPU_EFFICIENCY, Scope.CPU_PERFORMANCE), family.name


def _check_screen(told: Report) -> None:
    part = ""
    for line in screen(told, width=240).splitlines():
        if line.endswith("─"):
            part = line
        elif part.startswith(("Power", "Energy")) and re.search(r"\d (?:W|[kMG]?J) ", line):
            assert re.search(r"measured|derived|estimated|not measured|no number|NVML gives|GPU alone", line), line
            assert "ago" in part, part


@given(st.lists(_LOOK, min_size=1, max_size=6), st.booleans())
def test_no_watt_and_no_joule_leaves_alone(looks: list[Any], is_spark: bool) -> None:
    """In no document, no metric and on no screen, whatever was read and in whatever order."""
    for told in _reports(looks, is_spark=is_spark):
        _check_document(told)
        _check_metrics(told)
        _check_screen(told)


def _scopes() -> dict[prometheus.Family, set[Scope]]:
    planned = [pair for plan in plans().values() for pair in plan.numbers] + [*prometheus._OWN]
    return {
        family: {of.scope for of in quantities if of.scope}
        for family, quantities in planned
        if any(of.is_power and of.scope for of in quantities)
    }


_OF_SCOPE: Final = _scopes()


def test_a_family_never_holds_a_whole_and_its_parts() -> None:
    """So that a sum over its labels is of things side by side."""
    assert len(_OF_SCOPE) > 15
    for family, scopes in _OF_SCOPE.items():
        assert not [(one, other) for one in scopes for other in scopes if other in _INSIDE.get(one, ())], family.name


def test_measured_and_estimated_share_no_name() -> None:
    """A name says which it is."""
    names = {family.name for group in DERIVED.values() for family in group} | {family.name for family in _OF_SCOPE}
    estimated = {name for name in names if "estimate" in name}
    assert not {name for name in names - estimated if any(name in one for one in estimated)}


def test_each_power_says_its_scope_in_its_name() -> None:
    """But for limits, headroom and what is left over, which have a label or a name of their own."""
    own = {"gb10_power_limit_watts", "gb10_power_headroom_watts", "gb10_power_unmeasured_watts"}
    for family in (family for group in DERIVED.values() for family in group if family.unit in ("watts", "joules")):
        assert family.name in own or re.match(r"gb10_(dc_input|system|soc|cpu|cpu_gpu|gpu_rail|gpu_nvml)_", family.name)
