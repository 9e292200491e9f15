"""What an expression measures: extents, dimension, scale, and what was done to a power on the way."""

from contextlib import suppress

import pytest
from audits import record

from spark_agent.agent.audit.catalogue import Catalogue, Dimension, Extent
from spark_agent.agent.audit.claim import Claim
from spark_agent.agent.audit.expression import ExpressionError
from spark_agent.agent.audit.scope import Scopes
from spark_agent.agent.audit.value import Deed, Judged, Span

GPU = "DCGM_FI_DEV_POWER_USAGE"
ENERGY = "nvidia_smi_energy_joules_total"
SYSTEM = "gb10_system_power_watts"
JOIN = " * on (chip, sensor, instance) group_left (label) node_hwmon_sensor_label"


def _judge(expr: str, *records: Claim, variables: dict[str, str] | None = None) -> Judged:
    return Scopes(Catalogue(), records).judge(expr, variables)


def _extents(expr: str, *records: Claim) -> list[str]:
    return sorted(_judge(expr, *records).value.extents)


def _deeds(expr: str) -> list[Deed]:
    return [act.deed for act in _judge(expr).acts]


# What is covered


@pytest.mark.parametrize(
    "expr",
    [
        GPU, f"sum({GPU})", f"sum by (instance) ({GPU})", f"avg({GPU})", f"max without (gpu) ({GPU})",
        f"topk(3, {GPU})", f"quantile(0.9, {GPU})", f"avg_over_time({GPU}[5m])", f"max_over_time({GPU}[1h:1m])",
        f"clamp_min({GPU}, 0)", f"abs(-{GPU})", f"{GPU} offset 1d", f"{GPU} @ end()", f"({GPU})", f"{GPU} / 1000",
        f"{GPU} and on (instance) up", f"{GPU} unless up == 0", f"{GPU} > 10", f"label_replace({GPU}, 'a', '', '', '')",
        f"scalar({GPU})", f"{GPU} + on (instance) nvidia_smi_power_draw_watts", f"{{__name__='{GPU}'}}",
        "{__name__=~'DCGM_FI_DEV_POWER_USAGE|nvidia_smi_power_draw_watts'}", "{__name__=~'nvidia_smi_power_draw.*'}",
        f"{GPU} * on (instance) group_left (nodename) node_uname_info", f"increase({ENERGY}[1d])",
        f"rate({ENERGY}[5m])",
        "gb10_gpu_rail_power_watts", "gb10_gpu_nvml_power_watts", f"{GPU} or nvidia_smi_power_draw_watts",
        f"min_over_time({GPU}[1h]) - 3",
    ],
)  # fmt: skip
def test_a_gpu_stays_a_gpu(expr: str) -> None:
    """Aggregation, functions over time, joins and constants change nothing of what is covered."""
    assert ["gpu"] == _extents(expr)


@pytest.mark.parametrize(
    ("expr", "extents"),
    [
        (f"{GPU} + on (instance) gb10_cpu_power_watts", ["cores", "gpu"]),
        (f"{SYSTEM} - on (instance) {GPU}", []),
        (f"count({GPU})", []),
        (f"stddev({GPU})", []),
        (f"{GPU} / on (instance) {SYSTEM}", ["gpu", "system"]),
        ("up", []),
        ("$metric", []),
        ("acme_power_watts", ["unknown"]),
        ('kepler_node_cpu_watts{zone="package"}', ["cpu"]),
        ('kepler_node_cpu_watts{zone=~"package|dram"}', ["cpu", "memory"]),
        ('kepler_node_cpu_watts{zone="$zone"}', ["unknown"]),
        ("kepler_node_cpu_watts", ["mixed"]),
        ('gb10_power_limit_watts{limit="pl1"}', []),
    ],
)
def test_extents(expr: str, extents: list[str]) -> None:
    """What is left of a whole without a part is neither; a limit is no reading; nobody knows a variable."""
    assert extents == _extents(expr)


@pytest.mark.parametrize(
    ("expr", "extents"),
    [
        (f'node_hwmon_power_watt{JOIN}{{label="sys_total"}}', ["system"]),
        (f'node_hwmon_power_watt{JOIN}{{label="gpu"}}', ["gpu"]),
        (f'node_hwmon_power_watt{JOIN}{{label=~"gpu|soc_pkg"}}', ["gpu", "soc"]),
        (f'node_hwmon_power_watt{JOIN}{{label=~"$channel"}}', ["unknown"]),
        (f'(node_hwmon_sensor_label{{label="dc_input"}}) * {"on (chip, sensor) group_right ()"} node_hwmon_power_watt',
         ["dc_input"]),
        (f'sum(node_hwmon_power_watt{JOIN}{{label="soc_pkg"}})', ["soc"]),
        (f'rate(node_hwmon_energy_joule_total[5m]){JOIN}{{label="gpu"}}', ["gpu"]),
        ("node_hwmon_power_watt", ["mixed"]),
        ('node_hwmon_power_watt{chip="x", sensor="power1"}', ["unknown"]),
        ('node_hwmon_power_watt{label="gpu"}', ["gpu"]),
        ('node_hwmon_power_watt{label="fan_controller"}', ["unknown"]),
    ],
)  # fmt: skip
def test_sensors_by_their_label(expr: str, extents: list[str]) -> None:
    """node_exporter has one metric for all sensors, and their names in another that is joined to it."""
    assert extents == _extents(expr)


# Recording rules


def test_what_is_recorded_is_known() -> None:
    """A recorded metric is what its expression is, through as many rules as there are."""
    rules = (record("a:power", f"sum by (instance) ({GPU})"), record("b:power", "sum(a:power) / 1000"))
    judged = _judge("max(b:power)", *rules)

    assert {Extent.GPU} == judged.value.extents
    assert 1e-3 == judged.value.factor
    assert Span.MANY is judged.value.span


def test_a_rule_that_records_itself_ends() -> None:
    """Alone or through others: it is unknown, and not without end."""
    rules = (record("a", "b + a"), record("b", f"a or {GPU}"))

    assert _judge("a", *rules).value.dimension in (Dimension.UNKNOWN, Dimension.POWER)
    assert [] == _extents("c", record("c", "c"))


def test_a_long_chain_of_rules_ends() -> None:
    """Longer than any stack is deep."""
    chain = [record("r0", GPU), *(record(f"r{index}", f"r{index - 1}") for index in range(1, 3000))]

    assert _judge("r20", *chain).value.extents == {Extent.GPU}
    assert _judge("r2999", *chain).value.extents in (frozenset(), {Extent.GPU})


def test_rules_with_labels_are_chosen_by_them() -> None:
    """Two rules record one name, told apart by a label: a matcher chooses."""
    rules = (record("power:watts", GPU, labels={"of": "gpu"}), record("power:watts", SYSTEM, labels={"of": "box"}))

    assert ["gpu"] == _extents('power:watts{of="gpu"}', *rules)
    assert ["system"] == _extents('power:watts{of="box"}', *rules)
    assert ["gpu", "system"] == _extents("power:watts", *rules)
    assert ["gpu"] == _extents('power:watts{of!="box"}', *rules)


def test_a_rule_that_cannot_be_read_is_unknown() -> None:
    """It is told where it stands, and judges nothing elsewhere."""
    assert [] == _extents("a:power", record("a:power", "sum("))


def test_a_recorded_name_wins() -> None:
    """Over the catalogue: somebody here made it."""
    assert ["system"] == _extents(GPU, record(GPU, SYSTEM))


# Units and dimensions


@pytest.mark.parametrize(
    ("expr", "dimension", "factor"),
    [
        (GPU, Dimension.POWER, 1.0),
        (f"{GPU} / 1000", Dimension.POWER, 1e-3),
        (f"1000 * {GPU}", Dimension.POWER, 1e3),
        (f"sum({GPU}) / 1e3 * 1e3", Dimension.POWER, 1.0),
        ("nvidia_gpu_power_usage_milliwatts", Dimension.POWER, 1e3),
        ("nvidia_gpu_power_usage_milliwatts / 1000", Dimension.POWER, 1.0),
        ("scaph_host_power_microwatts / 1e6", Dimension.POWER, 1.0),
        (ENERGY, Dimension.ENERGY, 1.0),
        (f"rate({ENERGY}[5m])", Dimension.POWER, 1.0),
        ("rate(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[5m]) / 1000", Dimension.POWER, 1.0),
        (f"increase({ENERGY}[1d]) / 3.6e6", Dimension.ENERGY, 1 / 3.6e6),
        (f"increase({ENERGY}[1d]) / (1000 * 3600)", Dimension.ENERGY, 1 / 3.6e6),
        (f"sum_over_time({GPU}[1h])", Dimension.ENERGY, None),
        ("nvitop_power * 0", Dimension.RATIO, None),
        (f"{GPU} * on (instance) group_left (nodename) node_uname_info", Dimension.POWER, 1.0),
        (f"{GPU} / {SYSTEM}", Dimension.RATIO, None),
        (f"{GPU} * price_eur", Dimension.PRICE, None),
        (f"{GPU} * unknown_number", Dimension.POWER, None),
        ("amd_gpu_power", Dimension.POWER, None),
        ("tokens_total", Dimension.WORK, None),
        ("2 * 3", Dimension.RATIO, None),
        (f"{GPU} / 0", Dimension.POWER, 1.0),
    ],
)
def test_units(expr: str, dimension: Dimension, factor: float | None) -> None:
    """A scale is known, or known not to be."""
    value = _judge(expr).value

    assert dimension is value.dimension
    assert value.factor == (pytest.approx(factor) if factor is not None else None)


@pytest.mark.parametrize(
    ("expr", "number"),
    [("240", 240.0), ("-240", -240.0), ("0.9 * 240", 216.0), ("2 ^ 3", 8.0), ("7 % 4", 3.0), ("1 / 0", None),
     ("10 ^ 1000", None), ("2 * (100 + 20)", 240.0), ("(-1) ^ 0.5", None)],
)  # fmt: skip
def test_constants_are_folded(expr: str, number: float | None) -> None:
    """As far as they are numbers."""
    assert number == _judge(expr).value.number


@pytest.mark.parametrize(
    "expr", ["1e999", "Inf", "-Inf", "NaN", "1e999 * 0", "0x1p2000", f"{GPU} > 1e999", f"{GPU} / NaN"]
)
def test_odd_numbers(expr: str) -> None:
    """They are PromQL, or cannot be read; nothing breaks."""
    with suppress(ExpressionError):
        _judge(expr)


# How many


@pytest.mark.parametrize(
    ("expr", "span"),
    [
        (GPU, Span.ONE),
        (f"sum({GPU})", Span.MANY),
        (f"sum by (gpu) ({GPU})", Span.MANY),
        (f"sum by (instance) ({GPU})", Span.ONE),
        (f"sum by (Hostname, gpu) ({GPU})", Span.ONE),
        (f"sum without (gpu) ({GPU})", Span.ONE),
        (f"sum without (instance) ({GPU})", Span.MANY),
        (f'sum({GPU}{{instance="a"}})', Span.ONE),
        (f'sum({GPU}{{instance=~"a|b"}})', Span.MANY),
        (f'sum({GPU}{{gpu=~"$gpu"}})', Span.GPUS),
        (f"avg({GPU})", Span.ONE),
        (f"max(sum by (instance) ({GPU}))", Span.ONE),
        (f"sum(sum by (instance) ({GPU}))", Span.MANY),
    ],
)
def test_spans(expr: str, span: Span) -> None:
    """Whether a number is about one machine, the GPUs that a reader chose, or as many machines as there are."""
    assert span is _judge(expr).value.span


# What was done


@pytest.mark.parametrize(
    ("expr", "deeds"),
    [
        (GPU, []),
        (f"{GPU} > 100", [Deed.COMPARED]),
        (f"100 < {GPU}", [Deed.COMPARED]),
        (f"240 - {GPU}", [Deed.HEADROOM]),
        (f"{GPU} - 240", []),
        (f"{GPU} / 240", [Deed.SHARE]),
        (f"{GPU} / 1000", []),
        (f"{GPU} / 3600", []),
        (f"{GPU} / DCGM_FI_DEV_POWER_MGMT_LIMIT", [Deed.SHARE]),
        (f"{GPU} / {SYSTEM}", [Deed.QUOTIENT]),
        ("sum(node_hwmon_power_watt)", [Deed.NESTED]),
        ("sum by (sensor) (node_hwmon_power_watt)", []),
        ("sum without (sensor) (node_hwmon_power_watt)", [Deed.NESTED]),
        ("sum(node_hwmon_power_cap_watt)", []),
        ("avg(node_hwmon_power_watt)", []),
        ("gb10_soc_power_watts + gb10_gpu_rail_power_watts", [Deed.NESTED]),
        ("sum({__name__=~'gb10_(soc|gpu_rail)_power_watts'})", [Deed.NESTED]),
        (f"{GPU} + nvidia_smi_power_draw_watts", []),
        (f"{GPU} or vector(0)", [Deed.ZERO_FILLED]),
        (f"{GPU} or vector(-1)", []),
        (f"{GPU} or {SYSTEM}", [Deed.SWITCHED]),
        (f"{GPU} + 40", [Deed.CONSTANT_ADDED]),
        (f"40 + {GPU}", [Deed.CONSTANT_ADDED]),
        (f"avg_over_time({GPU}[24h]) * 24", [Deed.MEAN_TIMES]),
        (f"avg_over_time({GPU}[1h]) * 3600", [Deed.MEAN_TIMES]),
        (f"avg_over_time({GPU}[1h]) * 2", []),
        (f"rate({GPU}[5m])", [Deed.RATED]),
        (f"deriv({GPU}[5m])", []),
        (f"delta({GPU}[5m])", []),
        (f"rate({ENERGY}[5m])", []),
        (f"{GPU} * price_eur", [Deed.PRICED]),
        (f"tokens_total / {GPU}", [Deed.EFFICIENCY]),
        (f"{GPU} / tokens_total", [Deed.EFFICIENCY]),
    ],
)
def test_deeds(expr: str, deeds: list[Deed]) -> None:
    """Each is noted once, where it is done."""
    assert deeds == _deeds(expr)


def test_a_comparison_is_turned() -> None:
    """The power comes first, whichever side it stands on."""
    (act,) = _judge(f"100 < {GPU}").acts

    assert (">", 100.0) == (act.op, act.other.number)


def test_unknown_powers_are_named() -> None:
    """Metrics that speak of power, and of which nobody knows what they cover."""
    assert {"acme_power_watts"} == _judge(f"acme_power_watts + {GPU} + up").unknown
