"""The dashboards: one Spark, where its watts go, and a fleet."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from spark_agent.collectors import Scope
from spark_agent.exporters import panels
from spark_agent.exporters.grafana import Dashboard, Kind, Link, Panel, Query, Row, Style, Text, url
from spark_agent.exporters.panels import many, one
from spark_agent.exporters.promql import STEP, Metrics, gathered, increase, labelled, rate, told_by

SPARK, FLEET, WATTS = "spark-agent-spark", "spark-agent-fleet", "spark-agent-watts"


def _finding_table(of: Metrics, columns: Mapping[str, str], title: str) -> Panel:
    return Panel(
        Kind.TABLE,
        title,
        "What calls for somebody; informational ones are left out. docs/findings.md says what each means and what to "
        "do.",
        (Query(of("gb10_finding", severity="!~ok|info").holds("== 1")),),
        height=9,
        absent="none told",
        columns=columns,
    )


def _spark_rows() -> Iterator[Row]:
    yield Row(
        "Where it stands",
        (panels.VERDICT, panels.HEADROOM, panels.FINDINGS, panels.ORIGIN),
    )
    yield Row(
        "Power by scope: each lies in the one before it, so none may be added to another",
        (
            panels.tile(Scope.DC_INPUT),
            panels.tile(Scope.SYSTEM),
            panels.ESTIMATE_TILE,
            panels.tile(Scope.SOC),
            panels.tile(Scope.CPU_GPU),
            panels.tile(Scope.CPU_PERFORMANCE),
            panels.tile(Scope.CPU_EFFICIENCY),
            panels.tile(Scope.GPU_RAIL),
            panels.tile(Scope.GPU_NVML),
            panels.SYSTEM,
            panels.power_of(Scope.SOC),
            panels.TWO_READINGS,
            panels.CPU_POWER,
            panels.HEADROOM_CURVE,
            panels.AT_LIMIT,
            panels.SOURCES,
            _finding_table(one, {"severity": "severity", "id": "finding"}, "Findings that call for somebody"),
        ),
    )
    yield Row("Energy", (panels.ENERGY, panels.power_by_energy(Scope.SYSTEM)))
    yield Row("GPU", tuple(_gpu()))
    yield Row("CPU and memory", tuple(_cpu_and_memory()))
    yield Row("SSD and network", tuple(_devices()))
    yield Row("Temperatures and the agent", tuple(_rest()))


def _gpu() -> Iterator[Panel]:
    yield Panel(
        Kind.CURVES,
        "GPU: utilisation",
        "Share of time in which a kernel ran; it says nothing of how much of the GPU that kernel used.",
        (Query(one("gb10_gpu_utilization_ratio"), "GPU {{gpu}}"),),
        absent="not read",
        most=1.0,
    )
    yield Panel(
        Kind.CURVES,
        "GPU: clocks, and the highest of the table",
        "A GB10 lists 3003 MHz and never sustains it.",
        (
            Query(one("gb10_gpu_clock_hertz"), "GPU {{gpu}}: {{clock}}"),
            Query(one("gb10_gpu_max_clock_hertz", clock="sm"), "highest of the table, GPU {{gpu}}: {{clock}}"),
        ),
        absent="not read",
        styles=(panels.LIMIT_STYLE,),
    )
    yield Panel(
        Kind.CURVES,
        "GPU: temperature",
        "On a GB10 in effect that of the whole SoC die.",
        (
            Query(one("gb10_gpu_temperature_celsius"), "GPU {{gpu}}"),
            Query(one("gb10_gpu_temperature_threshold_celsius"), "threshold of GPU {{gpu}}: {{threshold}}"),
        ),
        absent="not read",
        styles=(panels.LIMIT_STYLE,),
    )
    yield Panel(
        Kind.CURVES,
        "GPU: share of time that NVML held clocks down, by reason",
        "One that stands still is no evidence: none shows while the firmware throttles.",
        (Query(rate(one("gb10_gpu_clock_event_seconds_total")), "GPU {{gpu}}: {{reason}}"),),
        absent="not read",
        most=1.0,
    )


def _cpu_and_memory() -> Iterator[Panel]:
    cores = one("gb10_cpu_cores_info")
    yield Panel(
        Kind.CURVES,
        "CPU: busy share, by core type",
        "Mean over the cores of a type: performance is Cortex-X925, efficiency Cortex-A725.",
        (
            Query(
                gathered(
                    "avg",
                    told_by(rate(one("gb10_cpu_busy_seconds_total")), cores, "core_type", on=("cpu",)),
                    "core_type",
                ),
                "{{core_type}}",
            ),
        ),
        absent="not read",
        most=1.0,
    )
    yield Panel(
        Kind.CURVES,
        "CPU: highest frequency, by core type",
        "What the cpufreq driver reports; it is not counted, so it is no sign of throttling nor of its absence.",
        (
            Query(
                gathered("max", told_by(one("gb10_cpu_frequency_hertz"), cores, "core_type", on=("cpu",)), "core_type"),
                "{{core_type}}",
            ),
        ),
        absent="not read",
    )
    yield Panel(
        Kind.CURVES,
        "Memory, shared by CPU and GPU: what can still be had",
        "allocatable is what CUDA can still allocate, by NVIDIA's rule for unified memory, swap included. What the GPU "
        "holds is off what is available already.",
        (
            Query(one("gb10_memory_allocatable_bytes"), "allocatable by CUDA"),
            Query(one("gb10_memory_available_bytes"), "available"),
            Query(one("gb10_gpu_process_memory_bytes"), "held through GPU {{gpu}}"),
            Query(one("gb10_memory_total_bytes"), "total"),
        ),
        absent="not read",
        styles=(panels.LIMIT_STYLE,),
    )
    yield Panel(
        Kind.CURVES,
        "Memory: share of time in which tasks waited for it",
        "Pressure stall information. full: all tasks waited at once.",
        (
            Query(rate(one("gb10_memory_pressure_some_seconds_total")), "some"),
            Query(rate(one("gb10_memory_pressure_full_seconds_total")), "full"),
        ),
        absent="not read",
        most=1.0,
    )


def _devices() -> Iterator[Panel]:
    yield Panel(
        Kind.STAT,
        "SSD: state and PCIe link",
        "State of the NVMe controller; live is well.",
        (
            Query(one("gb10_nvme_state"), "{{device}}: {{gb10_nvme_state}}"),
            Query(one("gb10_nvme_pcie_link"), "{{device}}: {{gb10_nvme_pcie_link}}"),
        ),
        width=12,
        height=4,
        absent="not read",
        text=Text.NAME,
        styles=(Style("/: live$/", panels.fixed("green")), Style("/: (?:dead|deleting)$/", panels.fixed("red"))),
    )
    yield Panel(
        Kind.STAT,
        "ConnectX-7: is it there?",
        "asleep: off the bus to save power, which a cable ends; no fault.",
        (Query(one("gb10_connectx7_state"), "{{gb10_connectx7_state}}"),),
        width=6,
        height=4,
        absent="not read",
        text=Text.NAME,
        styles=(Style("/^present$/", panels.fixed("green")), Style("/^incomplete$/", panels.fixed("red"))),
    )
    yield Panel(
        Kind.STAT,
        "Cages with a link",
        "QSFP cages of the ConnectX-7 with a link, through either twin.",
        (Query(one("gb10_connectx7_cages_up"), "cages"),),
        width=6,
        height=4,
        absent="not read",
    )
    yield Panel(
        Kind.CURVES,
        "SSD: bytes read and written",
        "Of all namespaces of a drive.",
        (
            Query(rate(one("gb10_nvme_read_bytes_total")), "{{device}}: read"),
            Query(rate(one("gb10_nvme_written_bytes_total")), "{{device}}: written"),
        ),
        absent="not read",
    )
    yield Panel(
        Kind.CURVES,
        "SSD: temperature by sensor",
        "Composite is the one that the drive acts on.",
        (
            Query(one("gb10_nvme_temperature_celsius"), "{{device}}: {{sensor}}"),
            Query(one("gb10_nvme_temperature_critical_celsius"), "threshold of {{device}}: {{sensor}}, critical"),
        ),
        absent="not read",
        styles=(panels.LIMIT_STYLE,),
    )
    yield Panel(
        Kind.CURVES,
        "Network: bytes through the kernel, and by RDMA",
        "RoCE goes past the kernel's counters, so it has lines of its own. Each twin of a ConnectX-7 cage counts for "
        "itself.",
        (
            Query(rate(one("gb10_nic_received_bytes_total")), "{{device}}: received"),
            Query(rate(one("gb10_nic_transmitted_bytes_total")), "{{device}}: sent"),
            Query(rate(one("gb10_nic_rdma_received_bytes_total")), "{{device}}: received by RDMA"),
            Query(rate(one("gb10_nic_rdma_transmitted_bytes_total")), "{{device}}: sent by RDMA"),
        ),
        is_crowded=True,
        absent="not read",
    )
    yield Panel(
        Kind.TABLE,
        "Network: links",
        "A port without a cable is down, which is normal. Twins are two functions of one ConnectX-7 cage.",
        (Query(told_by(one("gb10_nic_link"), one("gb10_nic_info"), "kind", "cage", "twin", on=("device",))),),
        absent="",
        columns={
            "device": "interface",
            "kind": "kind",
            "gb10_nic_link": "link",
            "cage": "cage",
            "twin": "twin",
        },
    )
    yield Panel(
        Kind.CURVES,
        "PCIe errors that the devices themselves saw",
        "How many came in each step, by severity; the link repairs correctable ones.",
        (
            Query(
                gathered("sum", increase(one("gb10_nic_pcie_errors_total"), STEP), "severity"), "network: {{severity}}"
            ),
            Query(gathered("sum", increase(one("gb10_nvme_pcie_errors_total"), STEP), "severity"), "SSD: {{severity}}"),
        ),
        width=24,
        height=6,
        absent="not read",
    )


def _rest() -> Iterator[Panel]:
    yield Panel(
        Kind.CURVES,
        "Temperatures, by place",
        "Zones of the firmware with what each measures; other devices by their own sensors.",
        (
            Query(
                told_by(
                    one("gb10_thermal_temperature_celsius"),
                    one("gb10_thermal_info"),
                    "place",
                    on=("sensor",),
                ),
                "{{place}} {{sensor}}",
            ),
        ),
        is_crowded=True,
        absent="not read",
    )
    yield Panel(
        Kind.CURVES,
        "Fans",
        "Only fans that are known to report their speed.",
        (Query(one("gb10_fan_speed_rpm"), "{{fan}}"),),
        absent="not reported",
    )
    yield Panel(
        Kind.CURVES,
        "Agent: age of what it tells, by collector",
        "A collector that hangs grows old; after a minute what it said is absent.",
        (
            Query(one("spark_agent_sample_age_seconds"), "report"),
            Query(one("spark_agent_collector_sample_age_seconds"), "{{collector}}"),
        ),
        is_crowded=True,
        absent="not told",
    )
    yield Panel(
        Kind.CURVES,
        "Agent: how long its collectors take",
        "By the last visit of each.",
        (Query(one("spark_agent_collector_duration_seconds"), "{{collector}}"),),
        is_crowded=True,
        absent="not told",
    )
    yield Panel(
        Kind.TABLE,
        "Agent: collectors that failed or found nothing",
        "absent: this machine has nothing of the kind, and why; no failure.",
        (
            Query(
                labelled(one("spark_agent_collector_success").holds("== 0"), "state", "failed")
                + labelled(one("spark_agent_collector_absent").holds("== 1"), "state", "absent")
            ),
        ),
        width=8,
        absent="none told",
        columns={"collector": "collector", "state": "state", "reason": "reason"},
    )
    yield Panel(
        Kind.CURVES,
        "Agent: values rejected, looks missed, visits failed",
        "How many in each step. A rejected value was read and could not be believed.",
        (
            Query(increase(one("spark_agent_samples_rejected_total"), STEP), "{{quantity}}: {{reason}}"),
            Query(increase(one("spark_agent_beats_missed_total"), STEP), "looks that came late"),
            Query(gathered("sum", increase(one("spark_agent_collector_failures_total"), STEP)), "visits that failed"),
        ),
        width=8,
        absent="not told",
    )
    yield Panel(
        Kind.TABLE,
        "Misreads of power found here",
        "Series of other exporters, and rules or panels, that take the GPU's power for more than it is.",
        (Query(one("spark_agent_misread").holds("== 1") + one("spark_agent_audit_findings").holds("> 0")),),
        width=8,
        absent="none told",
        columns={"series": "series", "kind": "kind", "rule": "rule"},
    )


def _watts_rows() -> Iterator[Row]:
    yield Row(
        "Containment",
        (
            panels.VERDICT,
            panels.HEADROOM,
            panels.ORIGIN,
            replace(panels.ESTIMATE_TILE, width=5, height=4),
            panels.STACK,
            panels.NESTED,
            panels.SHARES,
        ),
    )
    yield Row(
        "Each scope with its own limits",
        (panels.power_of(Scope.DC_INPUT), panels.SYSTEM, panels.power_of(Scope.SOC), panels.REST),
    )
    yield Row("How close to the limits", (panels.HEADROOM_CURVE, panels.AT_LIMIT))
    yield Row("The GPU, by two readings", (panels.TWO_READINGS, panels.NVML_RATIO))
    yield Row(
        "Energy",
        (
            panels.ENERGY,
            panels.power_by_energy(Scope.SYSTEM),
            Panel(
                Kind.CURVES,
                "Energy: share of time that is covered, by scope",
                "1 where the joules of all time are known. What is not covered is a gap, a reboot or sleep, and was "
                "never guessed.",
                (Query(rate(one("gb10_energy_covered_seconds_total")), "{{scope}}"),),
                absent="not counted",
            ),
            Panel(
                Kind.CURVES,
                "Energy: registers over the integral of the power read, by scope",
                "Of the last minute in which both are known; 1 where both agree.",
                (Query(one("gb10_energy_crosscheck_ratio"), "{{scope}}"),),
                absent="not both known",
            ),
        ),
    )
    yield Row("How it is known", (panels.SOURCES, panels.MISS))


def _fleet_rows() -> Iterator[Row]:
    system, soc, nvml = (panels.SCOPES[scope] for scope in (Scope.SYSTEM, Scope.SOC, Scope.GPU_NVML))
    yield Row(
        "All of them",
        (
            Panel(
                Kind.STAT,
                "Sparks that answer",
                "Agents that Prometheus reaches now.",
                (Query(gathered("count", many("spark_agent_build_info")), "Sparks"),),
                width=4,
                height=4,
                absent="none",
            ),
            Panel(
                Kind.STAT,
                "System measured",
                "Where a driver for the firmware's power page is installed.",
                (Query(gathered("count", system.power(many)), "measured"),),
                width=4,
                height=4,
                absent="none",
            ),
            Panel(
                Kind.STAT,
                "System not measured",
                "Their power is in no sum on this page. What they may draw is the estimate's to say, Spark by Spark.",
                (
                    Query(
                        gathered(
                            "count",
                            many("gb10_power_verdict", scope="system", gb10_power_verdict="unmeasured").holds("== 1"),
                        ),
                        "unmeasured",
                    ),
                ),
                width=4,
                height=4,
                absent="none",
            ),
            Panel(
                Kind.STAT,
                "System, measured: sum of those Sparks",
                f"{system.covers} Different machines exclude each other, so this sum is one; those that are not "
                "measured are not in it.",
                (Query(gathered("sum", system.power(many)), "system, measured"),),
                width=7,
                height=4,
            ),
            Panel(
                Kind.STAT,
                "Findings, by severity",
                "How many things a person should know.",
                (Query(gathered("sum", many("gb10_finding"), "severity"), "{{severity}}"),),
                width=5,
                height=4,
                absent="not told",
                text=Text.BOTH,
                styles=panels.FINDINGS.styles,
            ),
        ),
    )
    yield Row(
        "Spark by Spark",
        (
            Panel(
                Kind.TABLE,
                "Each Spark: verdict of its system, and power by scope",
                "A cell that says so was not measured; the estimate has columns of its own. The columns lie in one "
                "another: do not add them.",
                (
                    panels.column(many("gb10_power_verdict", scope="system").holds("== 1"), "gb10_power_verdict"),
                    panels.column(system.power(many)),
                    panels.column(many("gb10_system_power_estimate_lower_watts")),
                    panels.column(many("gb10_system_power_estimate_upper_watts")),
                    panels.column(soc.power(many)),
                    panels.column(nvml.power(many)),
                    panels.column(many("gb10_power_headroom_watts"), "budget"),
                    panels.column(many("spark_agent_sample_age_seconds")),
                ),
                width=24,
                height=9,
                unit="watt",
                columns={
                    "instance": "Spark",
                    "job": "job",
                    "gb10_power_verdict": "verdict",
                    "Value #B": "system, measured",
                    "Value #C": "estimated, at least",
                    "Value #D": "estimated, at most",
                    "Value #E": "SoC, measured",
                    "Value #F": "GPU by NVML",
                    "Value #G": "headroom",
                    "budget": "what binds",
                    "Value #H": "age",
                },
                styles=(
                    Style(
                        "/^Spark$/",
                        {
                            "links": [
                                {
                                    "title": "This Spark",
                                    "url": f"{url(SPARK, ['datasource'])}"
                                    "&var-job=${__data.fields.job}&var-instance=${__value.text}",
                                    "targetBlank": False,
                                }
                            ]
                        },
                    ),
                    Style(
                        "/^estimated/",
                        {"noValue": "—", **panels.fixed("purple"), "custom.cellOptions": panels.COLOR_TEXT},
                    ),
                    Style("/^(headroom|what binds)$/", {"noValue": "withheld"}),
                    Style("/^age$/", {"unit": "s", "noValue": "not told"}),
                    Style(
                        "/^verdict$/",
                        {
                            "mappings": [
                                {
                                    "type": "value",
                                    "options": {
                                        standing: {"text": str(standing), "color": color, "index": at}
                                        for at, (standing, color) in enumerate(panels.STANDING_COLORS.items())
                                    },
                                }
                            ],
                            "custom.cellOptions": panels.COLOR_TEXT,
                        },
                    ),
                ),
            ),
            _each("System: measured power of each Spark", system.covers, Query(system.power(many), "{{instance}}")),
            Panel(
                Kind.CURVES,
                "System: estimated band of each Spark that does not measure it",
                f"{panels.ESTIMATE_TILE.description} Two dashed lines for each.",
                panels.estimate(many, ", {{instance}}"),
                absent="not estimated",
                styles=(_FLEET_BAND,),
            ),
            _each("SoC: measured power of each Spark", soc.covers, Query(soc.power(many), "{{instance}}")),
            _each(
                "GPU by NVML: measured power of each Spark",
                nvml.covers,
                Query(nvml.power(many), "{{instance}}, GPU {{gpu}}"),
            ),
            _each(
                "Headroom of each Spark, and what binds",
                panels.HEADROOM.description,
                Query(many("gb10_power_headroom_watts"), "{{instance}}: {{budget}} binds"),
                absent="withheld",
            ),
            _each(
                "Share of time at PL1, the SoC's sustained limit",
                "1 under matrix products, which is normal; above 0 at idle is not.",
                Query(rate(many("gb10_power_limit_seconds_total", limit="pl1")), "{{instance}}"),
            ),
        ),
    )
    yield Row(
        "Energy",
        (
            Panel(
                Kind.TABLE,
                "System: energy of each Spark in the time shown",
                f"{system.covers} Time that is not covered was never guessed: its joules are in no count.",
                (
                    panels.column(increase(system.joules(many)), "method"),
                    panels.column(increase(many("gb10_energy_covered_seconds_total", scope="system"))),
                    panels.column(increase(many("gb10_energy_uncovered_seconds_total", scope="system"))),
                ),
                height=9,
                absent="not counted",
                columns={
                    "instance": "Spark",
                    "job": "job",
                    "method": "counted by",
                    "Value #A": "energy",
                    "Value #B": "covered",
                    "Value #C": "not covered",
                },
                styles=(Style("/covered$/", {"unit": "s"}),),
            ),
            _finding_table(
                many,
                {"instance": "Spark", "job": "job", "severity": "severity", "id": "finding"},
                "Findings that call for somebody",
            ),
        ),
    )
    yield Row(
        "What else",
        (
            _each(
                "Memory that CUDA can still allocate",
                "By NVIDIA's rule for unified memory, swap included.",
                Query(many("gb10_memory_allocatable_bytes"), "{{instance}}"),
                absent="not read",
            ),
            _each(
                "GPU: temperature",
                "On a GB10 in effect that of the whole SoC die.",
                Query(many("gb10_gpu_temperature_celsius"), "{{instance}}, GPU {{gpu}}"),
                absent="not read",
            ),
            Panel(
                Kind.TABLE,
                "Agents, drivers and the ConnectX-7",
                "What runs on each Spark.",
                (
                    panels.column(many("spark_agent_machine_info"), "origin"),
                    panels.column(many("spark_agent_build_info"), "version"),
                    panels.column(many("gb10_platform_info"), "product", "bios", "driver", "kernel"),
                    panels.column(many("gb10_connectx7_state"), "gb10_connectx7_state"),
                ),
                width=24,
                absent="",
                columns={
                    "instance": "Spark",
                    "job": "job",
                    "origin": "machine",
                    "version": "agent",
                    "product": "product",
                    "bios": "BIOS",
                    "driver": "GPU driver",
                    "kernel": "kernel",
                    "gb10_connectx7_state": "ConnectX-7",
                },
            ),
        ),
    )


_FLEET_BAND: Final = Style("/^system, estimated/", panels.DASHED | {"custom.lineWidth": 1})


def _each(title: str, description: str, query: Query, absent: str = "not measured") -> Panel:
    return Panel(Kind.CURVES, title, description, (query,), absent=absent)


_ONE_MACHINE: Final = ("datasource", "job", "instance")

DASHBOARDS: Final[Mapping[str, Dashboard]] = {
    "spark": Dashboard(
        SPARK,
        "Spark: one machine",
        "Power of one DGX Spark (GB10) by scope, with how each number is known; and what else it does.",
        tuple(_spark_rows()),
        (Link(WATTS, "Where the watts go", _ONE_MACHINE), Link(FLEET, "All Sparks", ("datasource",))),
    ),
    "fleet": Dashboard(
        FLEET,
        "Sparks: a fleet",
        "DGX Sparks (GB10) side by side: verdicts, power by scope, energy; measured apart from estimated.",
        tuple(_fleet_rows()),
        (Link(SPARK, "One Spark", ("datasource",)), Link(WATTS, "Where the watts go", ("datasource",))),
        many=True,
    ),
    "watts": Dashboard(
        WATTS,
        "Spark: where the watts go",
        "Scopes of power in one another, each against its own limits; energy with what is not covered; NVML against "
        "the firmware's GPU rail.",
        tuple(_watts_rows()),
        (Link(SPARK, "One Spark", _ONE_MACHINE), Link(FLEET, "All Sparks", ("datasource",))),
    ),
}
