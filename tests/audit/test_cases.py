"""A table of claims, right and wrong, in the words that people use; what the audit finds in each, and what not.

Where a folder with further cases lies beside the clone (shared/audit/cases.json, or what AUDIT_CASES names), those are
judged as well. They are from public repositories, and no part of this project.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from audits import alert, found, panel, record, rules_of

from spark_agent.agent.audit.case import Target
from spark_agent.agent.audit.claim import Claim, Shape
from spark_agent.agent.audit.rule import RULES

#: Data held against data, hundreds of times: no Python does that differently.
pytestmark = pytest.mark.once


@dataclass(frozen=True)
class Case:
    """A claim, and the rules that it breaks; what it ``may`` break is nobody's concern."""

    about: str
    claim: Claim
    rules: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    target: Target = Target.GB10
    beside: tuple[Claim, ...] = ()


def _case(about: str, claim: Claim, *rules: str, beside: tuple[Claim, ...] = (), target: Target = Target.GB10) -> Case:
    return Case(about, claim, rules, (), target, beside)


DCGM = "DCGM_FI_DEV_POWER_USAGE"
SMI = "nvidia_smi_power_draw_watts"
SMI_ENERGY = "nvidia_smi_energy_joules_total"
SENSOR = "node_hwmon_power_watt * on (instance, chip, sensor) group_left (label) node_hwmon_sensor_label{label=%s}"
TOKENS = "sum(rate(vllm:generation_tokens_total[5m]))"
RECORDED = record("lab:power_watts:sum", f"sum({DCGM})")

CASES = (
    # PWR000
    _case("a bracket that nobody closes", panel("GPU power", f"sum({DCGM}"), "PWR000"),
    _case("MetricsQL", panel("GPU power", f"sum({DCGM}) keep_metric_names"), "PWR000"),
    _case("an operator between a vector and a scalar with on", panel("GPU", f"{DCGM} * on (instance) 2"), "PWR000"),
    _case("Grafana's macros are read", panel("GPU power", f"avg_over_time({DCGM}[$__interval])")),
    _case("a variable as a number", panel("GPU power", f"topk($count, {DCGM})")),
    _case("no query at all", panel("System power", "")),
    # PWR001
    _case("a node", panel("Node power", f"sum by (Hostname) ({DCGM})", unit="watt"), "PWR001"),
    _case("a total", panel("Total Power", f"sum({SMI})"), "PWR001"),
    _case("a total in German", panel("Gesamtverbrauch", f"sum({SMI})"), "PWR001"),
    _case("a machine in German", panel("Leistungsaufnahme des Rechners", SMI), "PWR001"),
    _case("a compound in German", panel("Serverleistung", SMI), "PWR001"),
    _case("a machine in French", panel("Consommation du serveur", SMI), "PWR001"),
    _case("a machine in Spanish", panel("Potencia del sistema", SMI), "PWR001"),
    _case("a machine in Chinese", panel("服务器功耗", DCGM), "PWR001"),
    _case("a machine in Japanese", panel("本体の消費電力", DCGM), "PWR001"),
    _case(
        "electricity, as a meter counts it", panel("kWh today", f"sum(increase({SMI_ENERGY}[1d])) / 3.6e6"), "PWR001"
    ),
    _case("the energy of one thing", panel("kWh today", f"increase({SMI_ENERGY}[1d]) / 3.6e6")),
    _case("in the legend only", panel("Power", (SMI, "whole machine")), "PWR001"),
    _case("OpenTelemetry's GPU", panel("System power", 'hw_power_watts{hw_type="gpu"}'), "PWR001"),
    _case("OpenTelemetry's GPU by its own name", panel("System power", '{"hw.power", "hw.type"="gpu"}'), "PWR001"),
    _case("OpenTelemetry's host", panel("System power", "hw_host_power_watts")),
    _case("OpenTelemetry's parts", panel("All parts", "sum(hw_power_watts)")),
    _case("in the description only", panel("Power", SMI, description="Power of the entire system."), "PWR001"),
    _case("by the row", panel("Now", SMI, context=("Lab", "System power")), "PWR001"),
    _case("a recorded name", record("node:power_watts:sum", f"sum by (instance) ({DCGM})"), "PWR001"),
    _case("camel case", alert("HighChassisPower", f"{DCGM} > 100"), "PWR001"),
    _case("what was recorded", panel("Cluster power", "lab:power_watts:sum"), "PWR001", beside=(RECORDED,)),
    _case("the SoC as the box", panel("System power", "gb10_soc_power_watts"), "PWR001"),
    _case("a sensor as the box", panel("Box power", SENSOR % '"gpu"'), "PWR001"),
    _case("all-smi's chassis is its GPU", panel("Chassis power", "all_smi_chassis_power_watts"), "PWR001"),
    _case("whatever the machines are", panel("Node power", DCGM), "PWR001", target=Target.ANY),
    _case("a total of GPUs", panel("Total GPU power", f"sum({DCGM})")),
    _case("a GPU by its legend", panel("Power per node", (DCGM, "GPU {{gpu}}"))),
    _case("a dashboard of GPUs", panel("Total power", f"sum({DCGM})", context=("NVIDIA GPUs",))),
    _case("graphics cards in German", panel("Leistung der Grafikkarten je Knoten", DCGM)),
    _case("graphics cards in Chinese", panel("显卡总功耗", f"sum({DCGM})")),
    _case("graphics cards in French", panel("Puissance totale de la carte graphique", f"sum({DCGM})")),
    _case("accelerators", panel("Accelerator power per node", f"sum by (instance) ({DCGM})")),
    _case("the box by its sensor", panel("Box power", SENSOR % '"sys_total"')),
    _case("the box by the agent", panel("Cluster power", "sum(gb10_system_power_watts)")),
    _case("the box by its BMC", panel("Server power", "ipmi_dcmi_power_consumption_watts")),
    _case("what nobody knows", panel("Node power", "acme_power_watts")),
    _case("an estimate of the box", panel("System power, estimated", f"{DCGM} + 60")),
    _case("a total of tokens", panel("Total tokens", "sum(vllm:generation_tokens_total)")),
    _case("a node's temperature", panel("Node temperature", "DCGM_FI_DEV_GPU_TEMP")),
    _case(
        "the rest of a box",
        panel("CPU, RAM, disk, board", f"ipmi_dcmi_power_consumption_watts - on (instance) {SMI}", unit="watt"),
    ),
    # PWR002
    _case("an alert that cannot fire", alert("GpuPowerHigh", f"{DCGM} > 250"), "PWR002"),
    _case("the other way round", alert("GpuPowerHigh", f"250 < {DCGM}"), "PWR002"),
    _case("in kilowatts", alert("GpuPowerHigh", f"{DCGM} / 1000 > 0.25"), "PWR002"),
    _case("above the SoC", alert("SocPowerHigh", "gb10_soc_power_watts > 200"), "PWR002"),
    _case("above the adapter", alert("PowerHigh", "gb10_system_power_watts > 260"), "PWR002"),
    _case("a scale for another card", panel("GPU power", DCGM, unit="watt", maximum=600), "PWR002"),
    _case("thresholds for another card", panel("GPU power", SMI, unit="watt", thresholds=(300, 350)), "PWR002"),
    _case("a fleet of two", alert("GpuPowerHigh", f"sum({DCGM}) > 600"), "PWR002"),
    _case("an alert that says nothing of Sparks", alert("GpuPowerHigh", f"{DCGM} > 250"), target=Target.ANY),
    _case(
        "a query that names a Spark", alert("GpuHot", f'{DCGM}{{job="dgx-spark"}} > 250'), "PWR002", target=Target.ANY
    ),
    _case("what can be reached", alert("GpuBusy", f"{DCGM} > 90")),
    _case("below what cannot be reached is always so", alert("GpuIdle", f"{DCGM} < 250"), "PWR002"),
    _case("below what can be reached", alert("GpuIdle", f"{DCGM} < 10")),
    _case("a scale of the box", panel("System power", "gb10_system_power_watts", unit="watt", maximum=240)),
    _case("a scale with room", panel("GPU power", SMI, unit="watt", maximum=150)),
    _case("a limit that collapsed", alert("CapLow", 'gb10_power_limit_watts{limit="pl1"} < 100')),
    _case("a share up to 1", panel("GPU", f"{SMI} / 100", unit="percentunit", maximum=1), "PWR003"),
    _case("a share of the adapter up to 1", panel("Used", f"{SMI} / 240", unit="percentunit", maximum=1), "PWR003"),
    _case("models apart", panel("GPU power", f"sum by (gpu_name) ({SMI})", unit="watt", maximum=700)),
    # PWR003
    _case("headroom of the adapter", panel("Headroom", f"240 - {DCGM}"), "PWR003"),
    _case("headroom of the SoC", panel("GPU headroom", f"140 - {DCGM}"), "PWR003"),
    _case("a share of the adapter", panel("Power used", f"100 * {SMI} / 240", unit="percent"), "PWR003"),
    _case(
        "a share of the system's limit",
        panel("GPU share", 'gb10_gpu_nvml_power_watts / on (instance) gb10_power_limit_watts{limit="syspl1"}'),
        "PWR003",
    ),
    _case(
        "the SoC's share of its own limit",
        panel("SoC share", 'gb10_soc_power_watts / on (instance) gb10_power_limit_watts{limit="pl1"}'),
    ),
    _case("the system's headroom", panel("Headroom", "231 - gb10_system_power_watts")),
    _case("watts in kilowatts", panel("GPU power", f"{SMI} / 1000", unit="kwatt")),
    # PWR004
    _case("a bill", panel("Electricity cost", f"sum({SMI}) / 1000 * 0.3", unit="currencyEUR"), "PWR004"),
    _case("a bill in Chinese", panel("电费", f"sum(increase({SMI_ENERGY}[1d])) / 3.6e6 * 0.6"), "PWR004"),
    _case("carbon", panel("CO2", f"sum({SMI}) / 1000 * 380"), "PWR004"),
    _case("a price by a variable", panel("Today", f"sum({SMI}) / 1000 * $price_per_kwh"), "PWR004"),
    _case("a bill that says whose", panel("Cost of GPU energy", f"sum({SMI}) / 1000 * 0.3")),
    _case("a bill by a meter", panel("Electricity cost", "sum(shelly_plug_power_watts) / 1000 * 0.3")),
    # PWR005
    _case("tokens a watt", panel("Tokens per watt", f"{TOKENS} / sum({SMI})"), "PWR005"),
    _case("joules a token", panel("Energy per token", f"sum(rate({SMI_ENERGY}[5m])) / {TOKENS}"), "PWR005"),
    _case("tokens a watt in Chinese", panel("每瓦 token", f"{TOKENS} / sum({SMI})"), "PWR005"),
    _case("tokens a watt of the GPU", panel("Tokens per GPU watt", f"{TOKENS} / sum({SMI})")),
    _case("tokens a watt of the box", panel("Tokens per watt", f"{TOKENS} / sum(gb10_system_power_watts)")),
    # PWR006
    _case("kilowatts that are watts", panel("GPU power", f"sum({SMI})", unit="kwatt"), "PWR006"),
    _case("Grafana's mwatt is a milliwatt", panel("GPU power", SMI, unit="mwatt"), "PWR006"),
    _case("millijoules as joules", panel("GPU energy", "nvml_energy_consumption", unit="joule"), "PWR006"),
    _case("milliwatts as watts", panel("GPU power", "nvidia_gpu_power_usage_milliwatts", unit="watt"), "PWR006"),
    _case("microwatts of Scaphandre", panel("Host", "scaph_host_power_microwatts", unit="watt"), "PWR006"),
    _case("a power as an energy", panel("GPU", SMI, unit="kwatth"), "PWR006"),
    _case("watts against milliwatts", alert("GpuHot", "nvidia_gpu_power_usage_milliwatts > 100"), "PWR006"),
    _case("kilowatts that nothing says", panel("GPU power", f"sum({SMI}) / 1000"), "PWR006"),
    _case("kilowatts that the title says", panel("GPU power (kW)", f"sum({SMI}) / 1000")),
    _case("milliwatts made watts", panel("GPU power", "nvidia_gpu_power_usage_milliwatts / 1000", unit="watt")),
    _case("kilowatt-hours", panel("GPU energy", f"increase({SMI_ENERGY}[1d]) / 3.6e6", unit="kwatth")),
    _case("watt-hours", panel("GPU energy", f"increase({SMI_ENERGY}[1d]) / 3600", unit="watth")),
    # PWR007
    _case("a limit that no GB10 has", panel("GPU limit", "DCGM_FI_DEV_POWER_MGMT_LIMIT"), "PWR007"),
    _case("an alert on it", alert("GpuAtLimit", f"{SMI} > 0.9 * nvidia_smi_power_limit_watts"), "PWR007"),
    _case("a module", panel("Module power", "DCGM_FI_DEV_MODULE_POWER_WATTS"), "PWR007"),
    _case("on other machines", panel("GPU limit", "DCGM_FI_DEV_POWER_MGMT_LIMIT"), target=Target.ANY),
    # PWR008
    _case("a rate of a power", panel("GPU power", f"rate({DCGM}[5m])"), "PWR008"),
    _case("an increase of a power", panel("GPU energy", f"increase({SMI}[1h])"), "PWR008"),
    _case("a counter as watts", panel("GPU power", SMI_ENERGY, unit="watt"), "PWR008"),
    _case("a rate of an energy", panel("GPU power", f"rate({SMI_ENERGY}[5m])", unit="watt")),
    _case("a trend", panel("GPU power, trend", f"deriv({SMI}[1h])")),
    # PWR009
    _case("all sensors", panel("Power", "sum(node_hwmon_power_watt)"), "PWR009"),
    _case("the GPU in its SoC", panel("Power", "gb10_soc_power_watts + gb10_gpu_rail_power_watts"), "PWR009"),
    _case("zones", panel("CPU", "sum(kepler_node_cpu_watts)"), "PWR009"),
    _case("package and core", panel("CPU", "node_rapl_package_joules_total + node_rapl_core_joules_total"), "PWR009"),
    _case("sensors apart", panel("Power", "sum by (sensor) (node_hwmon_power_watt)")),
    _case("one zone", panel("CPU power", 'sum(kepler_node_cpu_watts{zone="package"})')),
    _case("siblings", panel("CPU and GPU", "gb10_cpu_power_watts + on (instance) gb10_gpu_rail_power_watts")),
    _case(
        "one reading twice: NVML's windows", panel("GPU power", "sum(gb10_gpu_nvml_power_watts)", unit="watt"), "PWR009"
    ),
    # PWR010
    _case("vector(0)", panel("GPU power", f"sum({DCGM}) or vector(0)"), "PWR010"),
    _case("on() vector(0)", panel("GPU power", f"sum({DCGM}) or on() vector(0)"), "PWR010"),
    _case("times 0", panel("GPU power", f"{DCGM} or up * 0"), "PWR010"),
    _case("a sentinel", panel("GPU power", f"sum({DCGM}) or vector(-1)")),
    _case("no tokens", panel("Tokens", f"{TOKENS} or vector(0)")),
    # PWR011
    _case("the box, or the GPU", panel("Power", f"gb10_system_power_watts or {SMI}"), "PWR011"),
    _case("measured, or guessed", panel("System", "gb10_system_power_watts or dgx_spark_system_power_watts"), "PWR011"),
    _case("two exporters of the GPU", panel("GPU power", f"{DCGM} or {SMI}")),
    _case("a new name for the old", panel("GPU power", f"{DCGM} or DCGM_FI_DEV_BOARD_POWER_WATTS")),
    # PWR012
    _case("a constant for the rest", panel("Power", f"{SMI} + 30"), "PWR012"),
    _case("recorded", record("power_watts:all", f"sum({SMI}) + 65"), "PWR012"),
    _case("a constant that is told", panel("Power (estimate)", f"{SMI} + 30")),
    _case("told in a comment", panel("Power", f"{SMI} + 30 # roughly what the board draws")),
    # PWR013
    _case("a mean times a day", panel("GPU kWh", f"avg_over_time({SMI}[24h]) * 24 / 1000"), "PWR013"),
    _case("a mean times the range", panel("GPU energy", f"avg_over_time({SMI}[$__range]) * $__range_s"), "PWR013"),
    _case("a mean", panel("GPU power, mean of a day", f"avg_over_time({SMI}[24h])")),
    # PWR014
    _case("DC at the wall", panel("Wall power", "gb10_system_power_watts"), "PWR014"),
    _case("DC at the wall in German", panel("Steckdose", "gb10_dc_input_power_watts"), "PWR014"),
    _case("with the adapter's loss", panel("Wall power", "gb10_system_power_watts * 1.1")),
    _case("a meter", panel("Wall power", "shelly_plug_power_watts")),
    # PWR015
    _case("a GPU as the CPU", panel("Power", (SMI, "CPU")), "PWR015"),
    _case("a GPU as the processor", panel("Puissance du processeur", SMI), "PWR015"),
    _case("cores as the GPU", panel("GPU power", "gb10_cpu_power_watts"), "PWR015"),
    _case("each by its name", panel("CPU and GPU", (SMI, "GPU"), ("gb10_cpu_power_watts", "CPU"))),
)


def _further() -> Iterator[Case]:
    """Yield the cases of others, where they are."""
    path = Path(os.environ.get("AUDIT_CASES") or Path(__file__).parents[3] / "shared" / "audit" / "cases.json")
    if not path.is_file():
        return
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    records = tuple(_claim(case) for case in cases if case["kind"] == "record")
    for case in cases:
        sure = tuple(rule for rule in case["expect"] if not rule.endswith("?"))
        may = tuple(rule.rstrip("?") for rule in case["expect"])
        yield Case(case["id"], _claim(case), sure, may if not case["expect"] else tuple(RULES), beside=records)


def _claim(case: dict[str, object]) -> Claim:
    title, description = str(case["title"]), str(case["description"] or "")
    targets = [(str(one["expr"]), str(one["legend"] or "")) for one in case["targets"]]  # type: ignore[attr-defined]
    if case["kind"] == "record":
        return record(title, targets[0][0], description)
    if case["kind"] == "alert":
        return alert(title, targets[0][0], f"{description}\n{targets[0][1]}")
    # A title of a dashboard that says GPU is in a note of the case only.
    context = ("GPU",) if "dashboard title" in f"{case.get('note')} {case.get('note2')}" else ()
    return panel(
        title,
        *((expr, legend.replace("__auto", "")) for expr, legend in targets),
        unit=case["unit"],  # type: ignore[arg-type]
        maximum=case["max"],  # type: ignore[arg-type]
        thresholds=tuple(case["thresholds"]),  # type: ignore[arg-type]
        description=description,
        context=context,
    )


@pytest.mark.parametrize("case", [*CASES, *_further()], ids=lambda case: case.about)
def test_case(case: Case) -> None:
    """The rules that a claim breaks are found, and no other."""
    told = found(case.claim, target=case.target, beside=case.beside)

    assert list(case.rules) == [rule for rule in rules_of(told) if rule in case.rules or rule not in case.may]


#: An energy as the box's, recorded.
_DAILY = record("node:energy_kwh:1d", f"sum by (instance) (increase({SMI_ENERGY}[1d])) / 3.6e6")


@pytest.mark.parametrize(
    "claim",
    [*(case.claim for case in CASES if case.claim.shape is not Shape.PANEL), _DAILY],
    ids=lambda claim: claim.title,
)
def test_rules_are_offered_no_variables(claim: Claim) -> None:
    """Prometheus knows none of Grafana's: ``$__range`` in a rule file is a syntax error."""
    assert [] == [one.suggestion for one in found(claim) if "$" in one.suggestion]


def test_every_rule_has_cases() -> None:
    """Enough of them, of each rule one that breaks it, and as many that break none."""
    assert set(RULES) == {rule for case in CASES for rule in case.rules}
    assert len(CASES) >= 60
    assert sum(not case.rules for case in CASES) > len(CASES) / 3
    assert len(CASES) == len({case.about for case in CASES})
