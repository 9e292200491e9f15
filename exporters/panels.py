"""Panels of power that several dashboards share: scopes, their limits, estimates, verdicts and energy.

Every panel of power says its scope in the title. What was measured is drawn as a line, an estimate as a dashed band
that is stacked on nothing, a limit as a dashed line of the scope that it binds; what is absent says so in words.
Scopes lie in one another, so none is added to another: only parts that exclude each other are stacked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from spark_agent.agent.budget import Standing
from spark_agent.agent.finding import Severity
from spark_agent.collectors import Scope
from spark_agent.exporters.grafana import Kind, Panel, Query, Style, Text
from spark_agent.exporters.promql import (
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

one, many = Metrics(Machines.ONE), Metrics(Machines.MANY)


@dataclass(frozen=True, slots=True)
class PowerScope:
    """How a scope is asked for, and what a person must know who reads it."""

    scope: Scope
    metric: str
    covers: str
    labels: Mapping[str, str]
    energy: str

    @property
    def name(self) -> str:
        """What a person calls it."""
        name, _ = SCOPE_NAMES[self.scope]
        return name

    @property
    def title(self) -> str:
        """Its name, at the beginning of a title."""
        return self.name[0].upper() + self.name[1:]

    def power(self, of: Metrics) -> Expression:
        """Return its measured power."""
        return of(self.metric, **self.labels)

    def told(self, of: Metrics) -> Expression:
        """Return its power, with what `gb10_power_source_info` says of it as labels."""
        return told_by(self.power(of), of("gb10_power_source_info", scope=self.scope), "quality", "source")

    def joules(self, of: Metrics) -> Expression:
        """Return the count of its energy."""
        return of(self.energy, **{name: value for name, value in self.labels.items() if name == "core_type"})

    def curve(self) -> Query:
        """Return its power as a line whose legend says how it is known."""
        return Query(self.told(one), f"{self.name}: {{{{quality}}}}, {{{{source}}}}")


def _scope(scope: Scope, covers: str, energy: str = "", metric: str = "", **labels: str) -> PowerScope:
    family = metric or f"gb10_{scope}"
    return PowerScope(scope, f"{family}_power_watts", covers, labels, f"{energy or family}_energy_joules_total")


SCOPES: Final = {
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


def fixed(color: str) -> dict[str, object]:
    """Return the properties of what has always the same colour."""
    return {"color": {"mode": "fixed", "fixedColor": color}}


DASHED: Final = {"custom.lineStyle": {"fill": "dash", "dash": [8, 6]}, "custom.fillOpacity": 0}

#: Limits and other bounds: thin and dashed, whatever else is drawn, and never stacked.
LIMIT_STYLE: Final = Style("/^(limit|highest|threshold|total)/", fixed("red") | DASHED | {"custom.lineWidth": 1})

_LOWER, _UPPER = "system, estimated: at least", "system, estimated: at most"

#: An estimate: a dashed band, which no measured line has.
_BAND: Final = (
    Style(f"/^{_LOWER}/", fixed("purple") | DASHED | {"custom.lineWidth": 1}),
    Style(
        f"/^{_UPPER}/",
        fixed("purple") | DASHED | {"custom.lineWidth": 1, "custom.fillBelowTo": _LOWER, "custom.fillOpacity": 12},
    ),
)


def _limits(of: Metrics, scope: str) -> Query:
    return Query(of("gb10_power_limit_watts", scope=scope), "limit {{limit}}: {{origin}}")


def estimate(of: Metrics, suffix: str = "") -> tuple[Query, Query]:
    """Return both bounds of what the system may draw, under names of their own."""
    return (
        Query(of("gb10_system_power_estimate_lower_watts"), f"{_LOWER}{suffix}"),
        Query(of("gb10_system_power_estimate_upper_watts"), f"{_UPPER}{suffix}"),
    )


def power_of(scope: Scope, title: str = "", more: tuple[Query, ...] = (), width: int = 12) -> Panel:
    """Return a curve of one scope, with the limits of that scope and no other."""
    known = SCOPES[scope]
    return Panel(
        Kind.CURVES,
        title or f"{known.title}: measured power, and its limits",
        f"{known.covers} Limits are those in force for this very scope, with who says so.",
        (known.curve(), _limits(one, scope), *more),
        width=width,
        styles=(LIMIT_STYLE, *(_BAND if more else ())),
    )


def tile(scope: Scope) -> Panel:
    """Return the measured power of a scope as a number."""
    known = SCOPES[scope]
    return Panel(
        Kind.STAT,
        f"{known.title}, measured",
        f"{known.covers} The tile says so where it is not measured here.",
        (Query(known.power(one), known.name),),
        width=8,
        height=3,
    )


ESTIMATE_TILE: Final = Panel(
    Kind.STAT,
    "System, estimated",
    "Where nothing measures the system: the least and the most that it may draw. It is no measurement; no headroom and "
    "no verdict rests on it. Not in it is what USB-C ports feed to other devices.",
    tuple(
        Query(query.expression, legend) for query, legend in zip(estimate(one), ("at least", "at most"), strict=True)
    ),
    width=8,
    height=3,
    absent="not estimated",
    styles=(Style("/^at /", fixed("purple")),),
    text=Text.BOTH,
)


def column(of: Expression, *labels: str) -> Query:
    """Return a column of a table that has a row for each machine: rows are joined by all labels that they have."""
    return Query(gathered("max", of, *TARGET, *labels))


def _verdict_styles() -> tuple[Style, ...]:
    return tuple(Style(f"/{standing}$/", fixed(color)) for standing, color in STANDING_COLORS.items())


VERDICT: Final = Panel(
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

HEADROOM: Final = Panel(
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

SOURCES: Final = Panel(
    Kind.TABLE,
    "How each power is known: scope, quality and source",
    "Which reading speaks for a scope. not measured: nothing reads that scope here; `spark-agent snapshot` says why. "
    "No scope may be added to another: each lies in the one above it.",
    (
        Query(
            one("gb10_power_source_info")
            + labelled(one("gb10_power_verdict", gb10_power_verdict="unmeasured").holds("== 1"), "quality", "none")
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
    first, *rest = (labelled(increase(known.joules(of)), "scope", scope) for scope, known in SCOPES.items())
    for other in rest:
        first = first + other
    return first


ENERGY: Final = Panel(
    Kind.TABLE,
    "Energy of each scope in the time shown",
    "How it is counted, and of how much time. counter: a register, unwrapped; integrated: power over time. Time that "
    "is not covered was never guessed: its joules are in no count. No scope may be added to another.",
    (
        column(_joules(one), "scope", "method"),
        column(increase(one("gb10_energy_covered_seconds_total")), "scope"),
        column(increase(one("gb10_energy_uncovered_seconds_total")), "scope"),
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

AT_LIMIT: Final = Panel(
    Kind.CURVES,
    "Share of time at a limit, of the scopes that are measured",
    "Time at 98 % of a limit or above. pl1 and pl2 bind the SoC, syspl1 and syspl2 the system, adapter what enters "
    "the board. The count is kept every 10 s, so over a short time the share swings about its mean.",
    (Query(rate(one("gb10_power_limit_seconds_total")), "{{limit}}"),),
)

HEADROOM_CURVE: Final = Panel(
    Kind.CURVES,
    "Headroom to the limit that binds first, of the scopes that are measured",
    "Below 0 beyond the limit. A gap is time in which it was withheld.",
    (Query(one("gb10_power_headroom_watts"), "{{budget}} binds"),),
    absent="withheld",
)

TWO_READINGS: Final = Panel(
    Kind.CURVES,
    "GPU: the firmware's rail and NVML, measured",
    "Two readings about one GPU. One owner measured NVML 18–44 % below the rail under load, and equal at idle; the "
    "cause is not known. Both are shown, and neither corrects the other. Not CPU, fabric, network or SSD.",
    (SCOPES[Scope.GPU_RAIL].curve(), SCOPES[Scope.GPU_NVML].curve()),
)

NVML_RATIO: Final = Panel(
    Kind.CURVES,
    "GPU: NVML's power over the firmware's rail",
    "1 where both say the same. Only where both were read together.",
    (Query(one("gb10_gpu_nvml_power_ratio"), "NVML over rail"),),
    absent="not both measured",
)

CPU_POWER: Final = Panel(
    Kind.CURVES,
    "CPU: power by core type, measured",
    "The cores alone. Not the GPU, nor the fabric that both share. Older firmware is known to give wrong values.",
    (SCOPES[Scope.CPU_PERFORMANCE].curve(), SCOPES[Scope.CPU_EFFICIENCY].curve()),
)

SYSTEM: Final = power_of(
    Scope.SYSTEM,
    "System: measured line or estimated band, and its limits",
    estimate(one),
)

FINDINGS: Final = Panel(
    Kind.STAT,
    "Findings, by severity",
    "How many things a person should know of this machine; `spark-agent doctor` says them in words.",
    (Query(gathered("sum", one("gb10_finding"), "severity"), "{{severity}}"),),
    width=5,
    height=4,
    absent="not told",
    text=Text.BOTH,
    styles=tuple(Style(f"/^{severity}$/", fixed(color)) for severity, color in SEVERITY_COLORS.items()),
)

ORIGIN: Final = Panel(
    Kind.STAT,
    "Machine",
    "live: this is a machine's own. recorded: a replay. synthetic: somebody made it up.",
    (Query(one("spark_agent_machine_info"), "{{origin}}"),),
    width=4,
    height=4,
    absent="not told",
    text=Text.NAME,
    styles=(Style("/^synthetic$/", fixed("purple")), Style("/^recorded$/", fixed("blue"))),
)


def power_by_energy(scope: Scope) -> Panel:
    """Return the mean power of a scope as its energy has it, beside the power that was read."""
    known = SCOPES[scope]
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


def _parts() -> tuple[Query, ...]:
    """Return what makes up the system's power: parts that exclude each other, the last two as differences."""
    gpu, performance, efficiency = (
        SCOPES[scope].power(one) for scope in (Scope.GPU_RAIL, Scope.CPU_PERFORMANCE, Scope.CPU_EFFICIENCY)
    )
    return (
        Query(gpu, "GPU rail: measured"),
        Query(performance, "CPU performance cores: measured"),
        Query(efficiency, "CPU efficiency cores: measured"),
        Query(
            less(SCOPES[Scope.SOC].power(one), gpu, performance, efficiency),
            "rest of the SoC: difference of measured",
        ),
        Query(one("gb10_power_unmeasured_watts"), "outside the SoC, no meter of its own: difference of measured"),
    )


STACK: Final = Panel(
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

NESTED: Final = Panel(
    Kind.CURVES,
    "Scopes in one another: adapter ⊇ system ⊇ SoC ⊇ CPU and GPU, measured",
    "Each line lies in the one above it, and may not be added to it; where one crosses another, two readings were "
    "not of one moment or a sensor is wrong.",
    tuple(
        SCOPES[scope].curve()
        for scope in (Scope.DC_INPUT, Scope.SYSTEM, Scope.SOC, Scope.CPU_GPU, Scope.GPU_RAIL, Scope.GPU_NVML)
    ),
    height=10,
)

REST: Final = Panel(
    Kind.CURVES,
    "Outside the SoC: what no meter tells apart, and NVIDIA's allowance for it",
    "The system's power less the SoC's: ConnectX-7, SSD, USB-C and losses together. The limit is an allowance, which "
    "nothing enforces.",
    (
        Query(one("gb10_power_unmeasured_watts"), "outside the SoC: difference of measured"),
        _limits(one, "rest"),
    ),
    styles=(LIMIT_STYLE,),
)

SHARES: Final = Panel(
    Kind.CURVES,
    "Share of the system's measured power that its parts are",
    "How much of the system a reading of the SoC or of the GPU alone would have missed. The GPU's lies in the SoC's.",
    (
        Query(over(SCOPES[Scope.SOC].power(one), SCOPES[Scope.SYSTEM].power(one)), "SoC over system"),
        Query(over(SCOPES[Scope.GPU_RAIL].power(one), SCOPES[Scope.SYSTEM].power(one)), "GPU rail over system"),
        Query(
            over(SCOPES[Scope.GPU_NVML].power(one), SCOPES[Scope.SYSTEM].power(one)),
            "GPU by NVML over system",
        ),
    ),
    height=10,
)

MISS: Final = Panel(
    Kind.CURVES,
    "System: how far the measured power lies outside of what would have been estimated",
    "0 inside the interval. Only where the system is measured: it scores the estimate, and changes nothing.",
    (Query(one("gb10_system_power_estimate_miss_watts"), "outside the estimate by"),),
    height=9,
    styles=(Style("/^outside/", fixed("purple") | DASHED),),
)

COLOR_TEXT: Final = {"type": "color-text"}
