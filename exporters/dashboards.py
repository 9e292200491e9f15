"""The dashboards: one Spark, where its watts go, and a fleet.

Every panel of power says its scope in the title. What was measured is drawn as a line, an estimate as a dashed band
that is stacked on nothing, a limit as a dashed line of the scope that it binds; what is absent says so in words.
Scopes lie in one another, so none is added to another: only parts that exclude each other are stacked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from spark_agent.agent.budget import Standing
from spark_agent.agent.finding import Severity
from spark_agent.collectors import Scope
from spark_agent.exporters.grafana import Dashboard, Kind, Link, Panel, Query, Row, Style, Text, url
from spark_agent.exporters.promql import (
    STEP,
    TARGET,
    Expression,
    Machines,
    Metrics,
    gathered,
    increase,
    labelled,
    less,
    over,
    rate,
    told_by,
)
from spark_agent.exporters.table import SCOPE_NAMES

SPARK, FLEET, WATTS = "spark-agent-spark", "spark-agent-fleet", "spark-agent-watts"

one, many = Metrics(Machines.ONE), Metrics(Machines.MANY)


@dataclass(frozen=True, slots=True)
class _Scope:
    """How a scope is asked for, and what a person must know who reads it."""

    scope: Scope
    metric: str
    covers: str
    labels: Mapping[str, str]
    energy: str

    @property
    def name(self) -> str:
        name, _ = SCOPE_NAMES[self.scope]
        return name

    @property
    def title(self) -> str:
        return self.name[0].upper() + self.name[1:]

    def power(self, of: Metrics) -> Expression:
        return of(self.metric, **self.labels)

    def told(self, of: Metrics) -> Expression:
        """Return its power, with what `gb10_power_source_info` says of it as labels."""
        return told_by(self.power(of), of("gb10_power_source_info", scope=self.scope), "quality", "source")

    def joules(self, of: Metrics) -> Expression:
        return of(self.energy, **{name: value for name, value in self.labels.items() if name == "core_type"})

    def curve(self) -> Query:
        return Query(self.told(one), f"{self.name}: {{{{quality}}}}, {{{{source}}}}")


def _scope(scope: Scope, covers: str, energy: str = "", metric: str = "", **labels: str) -> _Scope:
    family = metric or f"gb10_{scope}"
    return _Scope(scope, f"{family}_power_watts", covers, labels, f"{energy or family}_energy_joules_total")


_SCOPES: Final = {
    known.scope: known
    for known in (
        _scope(
            Scope.DC_INPUT,
            "What enters the board from the adapter, in DC. Not power at the wall: the adapter's own losses come on "
            "top.",
        ),
        _scope(Scope.SYSTEM, "The whole system behind the adapter. Not power at the wall."),
        _scope(Scope.SOC, "CPU, GPU and fabric. Not ConnectX-7, SSD, USB-C and losses."),
        _scope(Scope.CPU_GPU, "CPU and GPU together. Not the rest of the SoC, and nothing outside it."),
        _scope(
            Scope.CPU_PERFORMANCE,
            "The ten Cortex-X925. Not the efficiency cores, the GPU or the fabric.",
            metric="gb10_cpu",
            core_type="performance",
        ),
        _scope(
            Scope.CPU_EFFICIENCY,
            "The ten Cortex-A725. Not the performance cores, the GPU or the fabric.",
            metric="gb10_cpu",
            core_type="efficiency",
        ),
        _scope(Scope.GPU_RAIL, "The GPU's rail, as the firmware has it. Not CPU, fabric, network or SSD."),
        _scope(
            Scope.GPU_NVML,
            "What nvidia-smi shows: a reading about the GPU. Not the power of this machine, nor of its SoC.",
            window="average",
        ),
    )
}

#: Scopes that have a verdict, and what a person calls them.
VERDICT_SCOPES: Final = {"system": "system", "soc": "SoC", "gpu": "GPU"}
#: The colour of a verdict, at the end of a legend.
STANDING_COLORS: Final = {
    Standing.WITHIN: "green",
    Standing.AT_LIMIT: "blue",
    Standing.NEAR_LIMIT: "yellow",
    Standing.UNMEASURED: "text",
    Standing.STALE: "purple",
    Standing.ERROR: "purple",
    Standing.IMPOSSIBLE: "purple",
    Standing.CAPPED_LOW: "red",
    Standing.LIMITS_UNPUBLISHED: "red",
    Standing.OVER_BUDGET: "red",
}
SEVERITY_COLORS: Final = {
    Severity.OK: "green",
    Severity.INFO: "blue",
    Severity.WARNING: "yellow",
    Severity.CRITICAL: "red",
    Severity.UNKNOWN: "purple",
}


def _fixed(color: str) -> dict[str, object]:
    return {"color": {"mode": "fixed", "fixedColor": color}}


_DASHED: Final = {"custom.lineStyle": {"fill": "dash", "dash": [8, 6]}, "custom.fillOpacity": 0}
#: Limits and other bounds: thin and dashed, whatever else is drawn, and never stacked.
_LIMIT_STYLE: Final = Style("/^(limit|highest|threshold|total)/", _fixed("red") | _DASHED | {"custom.lineWidth": 1})
_LOWER, _UPPER = "system, estimated: at least", "system, estimated: at most"
#: An estimate: a dashed band, which no measured line has.
_BAND: Final = (
    Style(f"/^{_LOWER}/", _fixed("purple") | _DASHED | {"custom.lineWidth": 1}),
    Style(
        f"/^{_UPPER}/",
        _fixed("purple") | _DASHED | {"custom.lineWidth": 1, "custom.fillBelowTo": _LOWER, "custom.fillOpacity": 12},
    ),
)


def _limits(of: Metrics, scope: str) -> Query:
    return Query(of("gb10_power_limit_watts", scope=scope), "limit {{limit}}: {{origin}}")


def _estimate(of: Metrics, suffix: str = "") -> tuple[Query, Query]:
    return (
        Query(of("gb10_system_power_estimate_lower_watts"), f"{_LOWER}{suffix}"),
        Query(of("gb10_system_power_estimate_upper_watts"), f"{_UPPER}{suffix}"),
    )


def _power_of(scope: Scope, title: str = "", more: tuple[Query, ...] = (), width: int = 12) -> Panel:
    """Return a curve of one scope, with the limits of that scope and no other."""
    known = _SCOPES[scope]
    return Panel(
        Kind.CURVES,
        title or f"{known.title}: measured power, and its limits",
        f"{known.covers} Limits are those in force for this very scope, with who says so.",
        (known.curve(), _limits(one, scope), *more),
        width=width,
        styles=(_LIMIT_STYLE, *(_BAND if more else ())),
    )


def _tile(scope: Scope, width: int) -> Panel:
    known = _SCOPES[scope]
    return Panel(
        Kind.STAT,
        f"{known.title}, measured",
        f"{known.covers} The tile says so where it is not measured here.",
        (Query(known.power(one), known.name),),
        width=width,
        height=4,
    )


_ESTIMATE_TILE: Final = Panel(
    Kind.STAT,
    "System, estimated",
    "Where nothing measures the system: the least and the most that it may draw. It is no measurement; no headroom and "
    "no verdict rests on it. Not in it is what USB-C ports feed to other devices.",
    tuple(
        Query(query.expression, legend) for query, legend in zip(_estimate(one), ("at least", "at most"), strict=True)
    ),
    width=6,
    height=4,
    absent="not estimated",
    styles=(Style("/^at /", _fixed("purple")),),
    text=Text.BOTH,
)


def _column(of: Expression, *labels: str) -> Query:
    """Return a column of a table that has a row for each machine: rows are joined by all labels that they have."""
    return Query(gathered("max", of, *TARGET, *labels), "")


def _verdict_styles() -> tuple[Style, ...]:
    return tuple(Style(f"/{standing}$/", _fixed(color)) for standing, color in STANDING_COLORS.items())


_VERDICT: Final = Panel(
    Kind.STAT,
    "Verdict, by scope of power",
    "Where the power of system, SoC and GPU stands against the limits of the same scope. unmeasured: nothing is wrong, "
    "there is no reading. at_limit is normal for a SoC under matrix products.",
    tuple(
        Query(one("gb10_power_verdict", scope=scope).holds("== 1"), f"{name}: {{{{gb10_power_verdict}}}}")
        for scope, name in VERDICT_SCOPES.items()
    ),
    width=10,
    height=4,
    absent="not told",
    text=Text.NAME,
    styles=_verdict_styles(),
)

_BELOW_ZERO: Final = ((None, "red"), (0.0, "green"))

_HEADROOM: Final = Panel(
    Kind.STAT,
    "Headroom, and what binds",
    "How far the machine is from the limit that binds first, which the label names. Withheld where reading and limit "
    "differ in scope: what is left of 240 W is not told by a reading of the GPU.",
    (Query(one("gb10_power_headroom_watts"), "{{budget}} binds"),),
    width=5,
    height=4,
    absent="withheld",
    text=Text.BOTH,
    steps=_BELOW_ZERO,
)

_SOURCES: Final = Panel(
    Kind.TABLE,
    "How each power is known: scope, quality and source",
    "Which reading speaks for a scope. not measured: nothing reads that scope here; `spark-agent snapshot` says why. "
    "No scope may be added to another: each lies in the one above it.",
    (
        Query(
            one("gb10_power_source_info")
            + labelled(one("gb10_power_verdict", gb10_power_verdict="unmeasured").holds("== 1"), "quality", "none"),
            "source",
        ),
    ),
    height=9,
    absent="",
    columns={"scope": "scope", "quality": "how known", "source": "source", "driver": "driver"},
    styles=(
        Style(
            "/^how known$/",
            {
                "mappings": [
                    {
                        "type": "value",
                        "options": {
                            "measured": {"text": "measured", "color": "green", "index": 0},
                            "none": {"text": "not measured", "color": "text", "index": 1},
                        },
                    }
                ],
                "custom.cellOptions": {"type": "color-text"},
            },
        ),
        Style("/^(scope|how known|driver)$/", {"custom.width": 120}),
    ),
)


def _joules(of: Metrics) -> Expression:
    """Return the energy of each scope in the time shown, the scope as a label."""
    first, *rest = (labelled(increase(known.joules(of)), "scope", scope) for scope, known in _SCOPES.items())
    for other in rest:
        first = first + other
    return first


_ENERGY: Final = Panel(
    Kind.TABLE,
    "Energy of each scope in the time shown",
    "How it is counted, and of how much time. counter: a register, unwrapped; integrated: power over time. Time that "
    "is not covered was never guessed: its joules are in no count. No scope may be added to another.",
    (
        _column(_joules(one), "scope", "method"),
        _column(increase(one("gb10_energy_covered_seconds_total")), "scope"),
        _column(increase(one("gb10_energy_uncovered_seconds_total")), "scope"),
    ),
    height=9,
    absent="not counted",
    columns={
        "scope": "scope",
        "method": "counted by",
        "Value #A": "energy",
        "Value #B": "covered",
        "Value #C": "not covered",
    },
    styles=(Style("/covered$/", {"unit": "s"}),),
)

_AT_LIMIT: Final = Panel(
    Kind.CURVES,
    "Share of time at a limit, of the scopes that are measured",
    "Time at 98 % of a limit or above. pl1 and pl2 bind the SoC, syspl1 and syspl2 the system, adapter what enters "
    "the board. The count is kept every 10 s, so over a short time the share swings about its mean.",
    (Query(rate(one("gb10_power_limit_seconds_total")), "{{limit}}"),),
)

_HEADROOM_CURVE: Final = Panel(
    Kind.CURVES,
    "Headroom to the limit that binds first, of the scopes that are measured",
    "Below 0 beyond the limit. A gap is time in which it was withheld.",
    (Query(one("gb10_power_headroom_watts"), "{{budget}} binds"),),
    absent="withheld",
)

_TWO_READINGS: Final = Panel(
    Kind.CURVES,
    "GPU: the firmware's rail and NVML, both measured",
    "Two readings about one GPU. One owner measured NVML 18–44 % below the rail under load, and equal at idle; the "
    "cause is not known. Both are shown, and neither corrects the other. Not CPU, fabric, network or SSD.",
    (_SCOPES[Scope.GPU_RAIL].curve(), _SCOPES[Scope.GPU_NVML].curve()),
)

_NVML_RATIO: Final = Panel(
    Kind.CURVES,
    "GPU: NVML's power over the firmware's rail",
    "1 where both say the same. Only where both were read together.",
    (Query(one("gb10_gpu_nvml_power_ratio"), "NVML over rail"),),
    absent="not both measured",
)

_CPU_POWER: Final = Panel(
    Kind.CURVES,
    "CPU: power by core type, measured",
    "The cores alone. Not the GPU, nor the fabric that both share. Older firmware is known to give wrong values.",
    (_SCOPES[Scope.CPU_PERFORMANCE].curve(), _SCOPES[Scope.CPU_EFFICIENCY].curve()),
)

_SYSTEM: Final = _power_of(
    Scope.SYSTEM,
    "System: measured line or estimated band, and its limits",
    _estimate(one),
)

_FINDINGS: Final = Panel(
    Kind.STAT,
    "Findings, by severity",
    "How many things a person should know of this machine; `spark-agent doctor` says them in words.",
    (Query(gathered("sum", one("gb10_finding"), "severity"), "{{severity}}"),),
    width=5,
    height=4,
    absent="not told",
    text=Text.BOTH,
    styles=tuple(Style(f"/^{severity}$/", _fixed(color)) for severity, color in SEVERITY_COLORS.items()),
)

_ORIGIN: Final = Panel(
    Kind.STAT,
    "Machine",
    "live: this is a machine's own. recorded: a replay. synthetic: somebody made it up.",
    (Query(one("spark_agent_machine_info"), "{{origin}}"),),
    width=4,
    height=4,
    absent="not told",
    text=Text.NAME,
    styles=(Style("/^synthetic$/", _fixed("purple")), Style("/^recorded$/", _fixed("blue"))),
)


def _finding_table(of: Metrics, columns: Mapping[str, str], title: str) -> Panel:
    return Panel(
        Kind.TABLE,
        title,
        "What calls for somebody; informational ones are left out. docs/findings.md says what each means and what to "
        "do.",
        (Query(of("gb10_finding", severity="!~ok|info").holds("== 1"), "finding"),),
        height=9,
        absent="none told",
        columns=columns,
    )


def _spark_rows() -> Iterator[Row]:
    yield Row(
        "Where it stands",
        (_VERDICT, _HEADROOM, _FINDINGS, _ORIGIN),
    )
    yield Row(
        "Power by scope: each lies in the one before it, so none may be added to another",
        (
            _tile(Scope.DC_INPUT, 6),
            _tile(Scope.SYSTEM, 6),
            _ESTIMATE_TILE,
            _tile(Scope.SOC, 6),
            _tile(Scope.CPU_GPU, 5),
            _tile(Scope.CPU_PERFORMANCE, 5),
            _tile(Scope.CPU_EFFICIENCY, 5),
            _tile(Scope.GPU_RAIL, 4),
            _tile(Scope.GPU_NVML, 5),
            _SYSTEM,
            _power_of(Scope.SOC),
            _TWO_READINGS,
            _CPU_POWER,
            _HEADROOM_CURVE,
            _AT_LIMIT,
            _SOURCES,
            _finding_table(one, {"severity": "severity", "id": "finding"}, "Findings that call for somebody"),
        ),
    )
    yield Row("Energy", (_ENERGY, _power_by_energy(Scope.SYSTEM)))
    yield Row("GPU", tuple(_gpu()))
    yield Row("CPU and memory", tuple(_cpu_and_memory()))
    yield Row("SSD and network", tuple(_devices()))
    yield Row("Temperatures and the agent", tuple(_rest()))


def _power_by_energy(scope: Scope) -> Panel:
    known = _SCOPES[scope]
    return Panel(
        Kind.CURVES,
        f"{known.title}: mean power by energy, and power read",
        f"{known.covers} Energy over time is the mean of each step; a reading is of one moment. Where they part, look "
        "at what is not covered.",
        (
            Query(rate(known.joules(one)), f"{known.name}: mean, by {{{{method}}}}"),
            Query(known.power(one), f"{known.name}: read"),
        ),
        height=9,
    )


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
        styles=(_LIMIT_STYLE,),
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
        styles=(_LIMIT_STYLE,),
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
        styles=(_LIMIT_STYLE,),
    )
    yield Panel(
        Kind.CURVES,
        "Memory: share of time in which tasks waited for it",
        "Pressure stall information. full: all tasks waited at once. It rises before a Spark stands still for want of "
        "memory.",
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
        styles=(Style("/: live$/", _fixed("green")), Style("/: (?:dead|deleting)$/", _fixed("red"))),
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
        styles=(Style("/^present$/", _fixed("green")), Style("/^incomplete$/", _fixed("red"))),
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
        styles=(_LIMIT_STYLE,),
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
        (
            Query(
                told_by(one("gb10_nic_link"), one("gb10_nic_info"), "kind", "cage", "twin", on=("device",)),
                "",
            ),
        ),
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
                + labelled(one("spark_agent_collector_absent").holds("== 1"), "state", "absent"),
                "collectors",
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
        (
            Query(
                one("spark_agent_misread").holds("== 1") + one("spark_agent_audit_findings").holds("> 0"),
                "misreads",
            ),
        ),
        width=8,
        absent="none told",
        columns={"series": "series", "kind": "kind", "rule": "rule"},
    )


def _parts() -> tuple[Query, ...]:
    """Return what makes up the system's power: parts that exclude each other, the last two as differences."""
    gpu, performance, efficiency = (
        _SCOPES[scope].power(one) for scope in (Scope.GPU_RAIL, Scope.CPU_PERFORMANCE, Scope.CPU_EFFICIENCY)
    )
    return (
        Query(gpu, "GPU rail: measured"),
        Query(performance, "CPU performance cores: measured"),
        Query(efficiency, "CPU efficiency cores: measured"),
        Query(
            less(_SCOPES[Scope.SOC].power(one), gpu, performance, efficiency),
            "rest of the SoC: difference of measured",
        ),
        Query(one("gb10_power_unmeasured_watts"), "outside the SoC, no meter of its own: difference of measured"),
    )


_STACK: Final = Panel(
    Kind.CURVES,
    "System: what it is made of; only parts that exclude each other are stacked",
    "The stack's height is the measured power of the system. Differences are of two readings of one look, so they "
    "swing. Nothing outside the SoC has a meter of its own: ConnectX-7, SSD, USB-C and losses are one rest. Not the "
    "adapter's losses. Empty where the system is not measured: an estimate is stacked on nothing.",
    _parts(),
    width=24,
    height=10,
    is_stacked=True,
)

_NESTED: Final = Panel(
    Kind.CURVES,
    "Scopes in one another: adapter ⊇ system ⊇ SoC ⊇ CPU and GPU, measured",
    "Each line lies in the one above it, and may not be added to it; where one crosses another, two readings were "
    "not of one moment or a sensor is wrong.",
    tuple(
        _SCOPES[scope].curve()
        for scope in (Scope.DC_INPUT, Scope.SYSTEM, Scope.SOC, Scope.CPU_GPU, Scope.GPU_RAIL, Scope.GPU_NVML)
    ),
    height=10,
)

_REST: Final = Panel(
    Kind.CURVES,
    "Outside the SoC: what no meter tells apart, and NVIDIA's allowance for it",
    "The system's power less the SoC's: ConnectX-7, SSD, USB-C and losses together. The limit is an allowance, which "
    "nothing enforces.",
    (
        Query(one("gb10_power_unmeasured_watts"), "outside the SoC: difference of measured"),
        _limits(one, "rest"),
    ),
    styles=(_LIMIT_STYLE,),
)

_SHARES: Final = Panel(
    Kind.CURVES,
    "Share of the system's measured power that its parts are",
    "How much of the system a reading of the SoC or of the GPU alone would have missed. The GPU's lies in the SoC's.",
    (
        Query(over(_SCOPES[Scope.SOC].power(one), _SCOPES[Scope.SYSTEM].power(one)), "SoC over system"),
        Query(over(_SCOPES[Scope.GPU_RAIL].power(one), _SCOPES[Scope.SYSTEM].power(one)), "GPU rail over system"),
        Query(
            over(_SCOPES[Scope.GPU_NVML].power(one), _SCOPES[Scope.SYSTEM].power(one)),
            "GPU by NVML over system",
        ),
    ),
    height=10,
)


def _watts_rows() -> Iterator[Row]:
    yield Row("Containment", (_VERDICT, _HEADROOM, _ORIGIN, _ESTIMATE_TILE_SHORT, _STACK, _NESTED, _SHARES))
    yield Row("Each scope with its own limits", (_power_of(Scope.DC_INPUT), _SYSTEM, _power_of(Scope.SOC), _REST))
    yield Row("How close to the limits", (_HEADROOM_CURVE, _AT_LIMIT))
    yield Row("The GPU, by two readings", (_TWO_READINGS, _NVML_RATIO))
    yield Row(
        "Energy",
        (
            _ENERGY,
            _power_by_energy(Scope.SYSTEM),
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
    yield Row("How it is known", (_SOURCES, _MISS))


_ESTIMATE_TILE_SHORT: Final = Panel(
    Kind.STAT,
    "System, estimated",
    _ESTIMATE_TILE.description,
    _ESTIMATE_TILE.queries,
    width=5,
    height=4,
    absent=_ESTIMATE_TILE.absent,
    styles=_ESTIMATE_TILE.styles,
    text=Text.BOTH,
)

_MISS: Final = Panel(
    Kind.CURVES,
    "System: how far the measured power lies outside of what would have been estimated",
    "0 inside the interval. Only where the system is measured: it scores the estimate, and changes nothing.",
    (Query(one("gb10_system_power_estimate_miss_watts"), "outside the estimate by"),),
    height=9,
    styles=(Style("/^outside/", _fixed("purple") | _DASHED),),
)


def _fleet_rows() -> Iterator[Row]:
    system, soc, nvml = (_SCOPES[scope] for scope in (Scope.SYSTEM, Scope.SOC, Scope.GPU_NVML))
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
                unit="none",
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
                unit="none",
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
                styles=_FINDINGS.styles,
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
                    _column(many("gb10_power_verdict", scope="system").holds("== 1"), "gb10_power_verdict"),
                    _column(system.power(many)),
                    _column(many("gb10_system_power_estimate_lower_watts")),
                    _column(many("gb10_system_power_estimate_upper_watts")),
                    _column(soc.power(many)),
                    _column(nvml.power(many)),
                    _column(many("gb10_power_headroom_watts"), "budget"),
                    _column(many("spark_agent_sample_age_seconds")),
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
                    Style("/^estimated/", {"noValue": "—", **_fixed("purple"), "custom.cellOptions": _COLOR_TEXT}),
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
                                        for at, (standing, color) in enumerate(STANDING_COLORS.items())
                                    },
                                }
                            ],
                            "custom.cellOptions": _COLOR_TEXT,
                        },
                    ),
                ),
            ),
            _each("System: measured power of each Spark", system.covers, Query(system.power(many), "{{instance}}")),
            Panel(
                Kind.CURVES,
                "System: estimated band of each Spark that does not measure it",
                f"{_ESTIMATE_TILE.description} Two dashed lines for each.",
                _estimate(many, ", {{instance}}"),
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
                _HEADROOM.description,
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
                    _column(increase(system.joules(many)), "method"),
                    _column(increase(many("gb10_energy_covered_seconds_total", scope="system"))),
                    _column(increase(many("gb10_energy_uncovered_seconds_total", scope="system"))),
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
                    _column(many("spark_agent_machine_info"), "origin"),
                    _column(many("spark_agent_build_info"), "version"),
                    _column(many("gb10_platform_info"), "product", "bios", "driver", "kernel"),
                    _column(many("gb10_connectx7_state"), "gb10_connectx7_state"),
                ),
                width=24,
                absent="",
                unit="none",
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


_COLOR_TEXT: Final = {"type": "color-text"}
_FLEET_BAND: Final = Style("/^system, estimated/", _DASHED | {"custom.lineWidth": 1})


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
