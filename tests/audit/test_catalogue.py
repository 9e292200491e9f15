"""What the audit knows of metrics: its own rows against what this agent exports, what names say, a user's own rows."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from test_metrics_reference import listed

from spark_agent.agent.audit.catalogue import (
    GB10_REACH,
    PARTS,
    UNITS,
    UNITS_ALSO,
    WHOLES,
    Catalogue,
    CatalogueError,
    Dimension,
    Extent,
    Kind,
    Metric,
    Role,
    guess,
    is_inside,
    own_rows,
    rows,
)
from spark_agent.collectors import Quantity, Scope, Unit, declarations
from spark_agent.exporters.prometheus import Family, Type

#: Data held against data, hundreds of times: no Python does that differently.
pytestmark = pytest.mark.once

PAGE = Path(__file__).parents[2] / "docs" / "audit" / "catalogue.md"
FAMILIES = {family.metric: family for families in listed().values() for family in families}
POWERS = {name: family for name, family in FAMILIES.items() if family.unit in ("watts", "joules")}
OWN = {name: metric for name, metric in rows().items() if metric.exporter == "spark-agent"}

#: What each scope of the agent is to the audit, which tells no core types apart.
EXTENTS = {
    Scope.DC_INPUT: Extent.DC_INPUT,
    Scope.SYSTEM: Extent.SYSTEM,
    Scope.SOC: Extent.SOC,
    Scope.CPU_GPU: Extent.CPU_GPU,
    Scope.CPU_PERFORMANCE: Extent.CORES,
    Scope.CPU_EFFICIENCY: Extent.CORES,
    Scope.GPU_RAIL: Extent.GPU,
    Scope.GPU_NVML: Extent.GPU,
    Scope.DLA: Extent.RAIL,
    Scope.VCORE: Extent.RAIL,
    Scope.PREREGULATOR: Extent.RAIL,
}


# This agent's own


def test_every_power_of_this_agent_is_known() -> None:
    """Each family of watts and joules that is exported has a row."""
    assert [] == sorted(POWERS.keys() - OWN.keys())


def test_no_row_is_of_what_this_agent_does_not_export() -> None:
    """A row of ours that nobody exports is a mistake."""
    assert [] == sorted(OWN.keys() - POWERS.keys())


@pytest.mark.parametrize("name", sorted(POWERS.keys() & OWN.keys()))
def test_units_and_kinds_are_those_exported(name: str) -> None:
    """Watts are W, joules J, and a counter is one."""
    family, metric = POWERS[name], OWN[name]

    assert {"watts": "W", "joules": "J"}[family.unit] == metric.unit.symbol
    assert (family.type is Type.COUNTER) is (metric.kind is Kind.COUNTER)
    assert ("_limit_" in name) is (metric.role is Role.LIMIT)
    assert name.endswith(("_estimate_lower_watts", "_estimate_upper_watts")) is metric.is_estimate


def test_extents_are_the_scopes_that_are_declared() -> None:
    """What a collector says that its watts cover is what the audit takes them for."""
    declared = {
        (f"gb10_{of.name}", EXTENTS[of.scope])
        for quantities in declarations().values()
        for of in quantities
        if isinstance(of, Quantity) and of.unit in (Unit.WATT, Unit.JOULE) and of.scope and of.section.exported
    }

    assert {(name, extent) for name, extent in declared if "_limit_" not in name} == {
        (name, OWN[name].extent) for name, _ in declared if name in OWN and "_limit_" not in name
    }


def test_an_energy_covers_what_its_power_does() -> None:
    """``gb10_SCOPE_energy_joules_total`` is the integral of ``gb10_SCOPE_power_watts``."""
    energies = [name for name in OWN if name.endswith("_energy_joules_total")]

    assert [OWN[name.replace("energy_joules_total", "power_watts")].extent for name in energies] == [
        OWN[name].extent for name in energies
    ]


def _is_no_power(family: Family) -> bool:
    return family.unit not in ("watts", "joules")


@pytest.mark.parametrize("name", sorted(name for name, family in FAMILIES.items() if _is_no_power(family)))
def test_nothing_else_of_this_agent_is_taken_for_a_power(name: str) -> None:
    """A state, a count, a ratio or a time of a power is none."""
    assert Catalogue().find(name) is None


# The others


def test_every_row_says_whose_it_is() -> None:
    """No row without an exporter, a dimension, and a name that Prometheus takes or that another tool writes."""
    for metric in rows().values():
        assert metric.exporter
        assert metric.unit.dimension in (Dimension.POWER, Dimension.ENERGY)
        assert re.fullmatch(r"[A-Za-z_:][\w:.]*", metric.name)
        assert (metric.extent is Extent.MIXED) <= bool(metric.label and metric.extents)


def test_what_is_said_to_be_absent_is_a_limit_or_a_scope_of_graces() -> None:
    """What a GB10 never has: NVML's limits, its module, and the processors of Grace servers. No GPU reading is."""
    absent = [metric for metric in rows().values() if metric.absent]

    assert absent
    assert [] == [one.name for one in absent if one.extent is Extent.GPU and one.role is not Role.LIMIT]


@pytest.mark.parametrize(
    ("name", "extent", "symbol", "kind"),
    [
        ("DCGM_FI_DEV_POWER_USAGE", Extent.GPU, "W", Kind.GAUGE),
        ("nvidia_tesla_t4_DCGM_FI_DEV_POWER_USAGE", Extent.GPU, "W", Kind.GAUGE),
        ("DCGM_FI_DEV_BOARD_POWER_WATTS", Extent.GPU, "W", Kind.GAUGE),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", Extent.GPU, "mJ", Kind.COUNTER),
        ("nvidia_gpu_power_usage_milliwatts", Extent.GPU, "mW", Kind.GAUGE),
        ("system_gpu_power_draw_watts", Extent.GPU, "W", Kind.GAUGE),
        ("aitra_cluster_power_watts_total", Extent.GPU, "W", Kind.GAUGE),
        ("esnode_node_power_watts", Extent.SYSTEM, "W", Kind.GAUGE),
        ("scaph_host_power_microwatts", Extent.UNKNOWN, "µW", Kind.GAUGE),
        ("node_rapl_package_joules_total", Extent.CPU, "J", Kind.COUNTER),
        ("kepler_pod_gpu_watts", Extent.WORKLOAD, "W", Kind.GAUGE),
    ],
)
def test_known_metrics(name: str, extent: Extent, symbol: str, kind: Kind) -> None:
    """Those that people confuse, by row or by the row that a name ends with."""
    metric = Catalogue().find(name)

    assert metric is not None
    assert (extent, symbol, kind) == (metric.extent, metric.unit.symbol, metric.kind)


@pytest.mark.parametrize(
    ("name", "extent", "symbol"),
    [
        ("acme_gpu_power_milliwatts", Extent.GPU, "mW"),
        ("my_gpu_energy_joules_total", Extent.GPU, "J"),
        ("acme_system_power_watts", Extent.UNKNOWN, "W"),
        ("rack_pdu_power_watts", Extent.WALL, "W"),
        ("shelly_plug_energy_kwh", Extent.WALL, "kWh"),
        ("soc_power_uw", Extent.SOC, "µW"),
        ("gpuPowerUsage", Extent.GPU, "?"),
    ],
)
def test_names_speak(name: str, extent: Extent, symbol: str) -> None:
    """A name that is in no row says what it can; that it is a system's, nobody knows from the name alone."""
    metric = guess(name)

    assert metric is not None
    assert metric.is_guess
    assert (extent, symbol) == (metric.extent, metric.unit.symbol)


@pytest.mark.parametrize(
    "name",
    ["up", "gpu_power_state", "power_cycles_total", "node_power_supply_online", "gpu_throttle_power_ratio", "http_w",
     "gpu_power_profile", "power_cost_usd", "tokens_per_watt", "disk_power_on_hours", "redfish_power_factor"],
)  # fmt: skip
def test_names_of_no_power(name: str) -> None:
    """That a name has the word is not enough."""
    assert guess(name) is None


def test_a_chassis_is_its_gpu_on_a_gb10_only() -> None:
    """all-smi adds up the GPUs where there is no BMC; a server may have one."""
    on_gb10, elsewhere = (Catalogue(is_gb10=is_gb10).find("all_smi_chassis_power_watts") for is_gb10 in (True, False))

    assert (Extent.GPU, Extent.UNKNOWN) == (on_gb10 and on_gb10.extent, elsewhere and elsewhere.extent)


# What contains what


def test_containment_has_no_rings() -> None:
    """Nothing is inside itself, and of two things at most one is inside the other."""
    assert [] == [one for one in Extent if is_inside(one, one)]
    assert [] == [(one, two) for one in Extent for two in Extent if is_inside(one, two) and is_inside(two, one)]


def test_every_part_is_inside_every_whole() -> None:
    """And no whole inside a part."""
    assert all(is_inside(part, whole) for part in PARTS for whole in WHOLES)
    assert not any(is_inside(whole, part) for part in PARTS for whole in WHOLES)


def test_a_part_reaches_no_more_than_what_it_is_in() -> None:
    """The figures of a GB10 fit to one another."""
    for part, reach in GB10_REACH.items():
        assert reach.why
        around = [GB10_REACH[whole].watts for whole in GB10_REACH if is_inside(part, whole)]
        assert all(reach.watts <= watts for watts in around)


# A user's own


OWN_TOML = """
[metrics.rack_feed_watts]
scope = "wall"
unit = "W"

[metrics."plant:gpu_energy"]
scope = "gpu"
unit = "mJ"
kind = "counter"

[metrics.box_cap]
scope = "system"
unit = "kW"
role = "limit"

[metrics.box_guess]
scope = "system"
unit = "uW"
estimate = true
"""


def test_own_rows() -> None:
    """A table each: scope and unit, and if needed kind, role, and whether it is an estimate."""
    feed, energy, cap, guessed = own_rows(OWN_TOML)

    assert Metric("rack_feed_watts", Extent.WALL, UNITS["W"], "own catalogue") == feed
    assert (Extent.GPU, "mJ", Kind.COUNTER) == (energy.extent, energy.unit.symbol, energy.kind)
    assert (Role.LIMIT, "kW") == (cap.role, cap.unit.symbol)
    assert (True, "µW") == (guessed.is_estimate, guessed.unit.symbol)


def test_own_rows_come_first() -> None:
    """Who knows better than the catalogue is believed."""
    (own,) = own_rows('[metrics.DCGM_FI_DEV_POWER_USAGE]\nscope = "module"\nunit = "W"\n')

    assert own is Catalogue([own]).find("DCGM_FI_DEV_POWER_USAGE")


def test_no_rows_are_none() -> None:
    """An empty file, and one with an empty table."""
    assert [] == own_rows("") == own_rows("[metrics]\n")


@pytest.mark.parametrize("unit", [*UNITS, *UNITS_ALSO])
def test_every_unit_can_be_said(unit: str) -> None:
    """With µ or with u."""
    (metric,) = own_rows(f'[metrics.a]\nscope = "gpu"\nunit = "{unit}"\n')

    assert (UNITS | UNITS_ALSO)[unit] is metric.unit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[metrics", "Expected ']' at the end of a table declaration"),
        ("[metric.a]\n", "unknown key 'metric'"),
        ("metrics = 3\n", "metrics is no table of tables"),
        ("[metrics]\na = 3\n", "metrics is no table of tables"),
        ('[metrics.a]\nunit = "W"\n', "[metrics.a] has no scope; it is one of wall, dc_input, system"),
        ('[metrics.a]\nscope = "gpu"\n', "[metrics.a] has no unit; it is one of W, mW"),
        ('[metrics.a]\nscope = "box"\nunit = "W"\n', "[metrics.a] scope is 'box', and not one of wall"),
        ('[metrics.a]\nscope = "mixed"\nunit = "W"\n', "[metrics.a] scope is 'mixed'"),
        ('[metrics.a]\nscope = "gpu"\nunit = "V"\n', "[metrics.a] unit is 'V'"),
        ('[metrics.a]\nscope = ["gpu"]\nunit = "W"\n', "[metrics.a] scope is ['gpu']"),
        ('[metrics.a]\nscope = "gpu"\nunit = "W"\nkind = "histogram"\n', "[metrics.a] kind is 'histogram'"),
        ('[metrics.a]\nscope = "gpu"\nunit = "W"\nestimate = "yes"\n', "[metrics.a] estimate is 'yes'"),
        ('[metrics.a]\nscope = "gpu"\nunit = "W"\nwatts = 1\n', "[metrics.a] has an unknown key 'watts'"),
    ],
)
def test_faults_of_own_rows(text: str, message: str) -> None:
    """One line, which names the metric, the key, and what may stand there."""
    with pytest.raises(CatalogueError) as caught:
        own_rows(text)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# The page


#: The last line that people write.
MARK = "<!-- From here on `make golden` writes what the catalogue says. -->\n"


def test_the_page_lists_the_catalogue(request: pytest.FixtureRequest) -> None:
    """``docs/audit/catalogue.md`` has every row; ``--update-golden`` rewrites it."""
    written = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    if request.config.getoption("--update-golden"):
        PAGE.write_text(written + MARK + _table(), encoding="utf-8")

    assert written + MARK + _table() == PAGE.read_text(encoding="utf-8")


def _table() -> str:
    lines = []
    by_exporter: Callable[[Metric], str] = lambda metric: metric.exporter.casefold()  # noqa: E731
    exporter = None
    for metric in sorted(rows().values(), key=lambda metric: (by_exporter(metric), metric.name)):
        if metric.exporter != exporter:
            exporter = metric.exporter
            lines += [
                "",
                f"## {exporter}",
                "",
                "| metric | covers | unit | kind | on a GB10 |",
                "|---|---|---|---|---|",
            ]
        kind = (
            "limit" if metric.role is Role.LIMIT else f"{metric.kind}, estimated" if metric.is_estimate else metric.kind
        )
        lines.append(f"| `{metric.name}` | {_covers(metric)} | {metric.unit.symbol} | {kind} | {_on_gb10(metric)} |")
    return "\n".join(lines) + "\n"


def _covers(metric: Metric) -> str:
    if not metric.label:
        return metric.extent.words
    return f"by `{metric.label}`: " + ", ".join(f"{value} {extent.words}" for value, extent in metric.extents.items())


def _on_gb10(metric: Metric) -> str:
    if metric.absent:
        return f"absent: {metric.absent}"
    return metric.on_gb10.words if metric.on_gb10 else ""
