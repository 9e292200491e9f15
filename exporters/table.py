"""A report on one screen, for a person: power first, then what the machine is made of, then what to know."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from math import ceil, floor
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from spark_agent.agent.budget import Headroom, Rest, Standing
from spark_agent.agent.energy import Energy
from spark_agent.agent.health import Finding, Severity
from spark_agent.agent.power import Measured, Power, Unmeasured
from spark_agent.agent.report import Report
from spark_agent.agent.snapshot import Snapshot
from spark_agent.agent.specification import Match
from spark_agent.agent.terms import ESTIMATED_FROM, EXCLUDED
from spark_agent.collectors import (
    Origin,
    Property,
    Quantity,
    Scope,
    cpu,
    discover,
    fan,
    gpu,
    memory,
    nic,
    nvme,
    platform,
    thermal,
)

_GIB: Final = 2**30

_SCOPES: Final = (
    (Scope.DC_INPUT, "adapter, DC in", 0),
    (Scope.SYSTEM, "system", 0),
    (Scope.SOC, "SoC", 1),
    (Scope.CPU_GPU, "CPU and GPU", 2),
    (Scope.CPU_PERFORMANCE, "CPU performance cores", 3),
    (Scope.CPU_EFFICIENCY, "CPU efficiency cores", 3),
    (Scope.GPU_RAIL, "GPU rail", 3),
    (Scope.GPU_NVML, "GPU (NVML)", 3),
    (Scope.DLA, "DLA", 2),
)
#: What a person calls a scope, and how deep it lies in the machine.
SCOPE_NAMES: Final = {scope: (name, depth) for scope, name, depth in _SCOPES}

#: The word for a severity, and its colour.
SEVERITY_STYLES: Final = {
    Severity.OK: ("ok", "green"),
    Severity.INFO: ("info", "cyan"),
    Severity.WARNING: ("warning", "yellow"),
    Severity.CRITICAL: ("critical", "bold red"),
    Severity.UNKNOWN: ("unknown", "magenta"),
}

_STANDING_STYLES: Final = {
    Standing.WITHIN: "green",
    Standing.AT_LIMIT: "cyan",
    Standing.NEAR_LIMIT: "yellow",
    Standing.UNMEASURED: "dim",
    Standing.STALE: "magenta",
    Standing.ERROR: "magenta",
    Standing.IMPOSSIBLE: "magenta",
    Standing.CAPPED_LOW: "bold red",
    Standing.LIMITS_UNPUBLISHED: "bold red",
    Standing.OVER_BUDGET: "bold red",
}

_MATCH_STYLES: Final = {
    Match.AS_SPECIFIED: ("✓", "green"),
    Match.DIFFERS: ("≠", "yellow"),
    Match.ASLEEP: ("z", "cyan"),
    Match.NOT_VISIBLE: ("?", "dim"),
}


def show(report: Report, console: Console) -> None:
    """Print the whole screen."""
    snapshot = report.snapshot
    console.print(title(snapshot))
    for name, body in (
        (_power_title(report.power), _power(report)),
        ("Budget", _budget(report)),
        (energy_title(report), energy_lines(report)),
        ("GPU", _gpu(snapshot)),
        ("CPU", _cpu(snapshot)),
        ("Memory", _memory(snapshot)),
        ("NVMe", _nvme(snapshot)),
        ("Network", _network(snapshot)),
        ("Temperature and fans", _thermal(snapshot)),
        ("Against the specification", _specification(report)),
        ("Findings", _findings(report.findings)),
    ):
        # A flow of nothing is no part.
        parts = [part for part in body if not isinstance(part, _Flow) or part]
        if parts:
            console.print(Rule(Text(name, "bold"), align="left", style="dim", characters="─"))
            console.print(Padding(Group(*parts), (0, 0, 0, 1)))


def title(snapshot: Snapshot) -> RenderableType:
    """Return what the machine is, and that it is not the live one where it is not."""
    head = Text()
    if snapshot.origin is not Origin.LIVE:
        head.append(f"{snapshot.origin.value.upper()} machine {snapshot.machine}", "black on yellow")
        head.append("  ")
    if not snapshot.visit("platform"):
        return head
    vendor, product = _fact(snapshot, platform.VENDOR), _fact(snapshot, platform.PRODUCT).replace("_", " ")
    # Some makers put their name into the product's, some do not.
    name = product if product.startswith(vendor) else f"{vendor} {product}"
    head.append(name.strip() or "unknown maker and product", "bold")
    if snapshot.fact(platform.IS_SPARK):
        head.append("  GB10", "bold green")
    else:
        head.append("  not a DGX Spark", "yellow")
    below = [
        f"DGX OS {version}" if (version := _fact(snapshot, platform.DGX_OS)) else _fact(snapshot, platform.OS),
        _prefixed("kernel", _fact(snapshot, platform.KERNEL)),
        _prefixed("driver", _fact(snapshot, platform.DRIVER)),
        _prefixed("BIOS", _fact(snapshot, platform.BIOS)),
    ]
    return Group(head, _Flow(below, "dim"))


def _prefixed(word: str, value: str) -> str:
    return f"{word} {value}" if value else ""


def _fact(snapshot: Snapshot, of: Property, entity: str | None = None) -> str:
    for fact in snapshot.facts(of):
        if entity is None or fact.entity == entity:
            return str(fact.value)
    return ""


def _value(snapshot: Snapshot, of: Quantity, entity: str = "", *labels: str) -> float | None:
    for reading in snapshot.readings(of):
        if reading.entity == entity and reading.labels == labels:
            return reading.value
    return None


def _grid(*justify: str) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for side in justify:
        table.add_column(justify="right" if side == "right" else "left", no_wrap=side != "wrap", overflow="fold")
    return table


def _power_title(power: Power) -> str:
    ages = [known.age for known in power.scopes.values() if isinstance(known, Measured)]
    return f"Power, read {max(ages):.1f} s ago" if ages else "Power"


def _power(report: Report) -> Iterator[RenderableType]:
    power = report.power
    if not any(report.snapshot.visit(name) for name in ("gpu", "spbm")):
        return
    table = _grid("left", "right", "left", "wrap")
    missing: dict[tuple[str, str], list[str]] = {}
    outermost = min((depth for scope, _, depth in _SCOPES if power.watts(scope) is not None), default=0)
    for scope, name, depth in _SCOPES:
        known = power.scopes[scope]
        if isinstance(known, Measured):
            watts = Text(f"{known.value:.1f} W", "bold")
            indent = "  " * (depth - outermost)
            table.add_row(indent + name, watts, known.quality.value, Text(known.source, "dim"))
        else:
            missing.setdefault((known.reason, known.detail), []).append(name)
    yield table
    for (reason, detail), names in missing.items():
        line = Text(f"not measured: {', '.join(names)}", "yellow")
        line.append(f" — {detail or reason}", "dim")
        yield line
    yield from _estimate(report)
    for finding in report.findings:
        if finding.id == "gpu_only":
            plain = Text("This is the GPU alone, not the power of this machine. ", "bold yellow")
            yield plain.append(f"To know that: {finding.action}.", "yellow")
        elif finding.id == "gpu_mismatch":
            yield Text.assemble((f"{finding.title}: ", "cyan"), (f"{finding.evidence[0]}.", "dim"))


def _estimate(report: Report) -> Iterator[RenderableType]:
    # On a line of its own, in other words and another style, so that nobody takes it for one of the rows above.
    system, applied = report.estimate.system, report.estimate.calibration
    if not isinstance(system, Unmeasured):
        line = Text(f"system, estimated: {floor(system.lower)}–{ceil(system.upper)} W", "cyan")
        line.append(f" from {ESTIMATED_FROM}, without {EXCLUDED}", "dim")
        if system.unknown:
            line.append(f"; wide, for this is not known: {', '.join(system.unknown)}", "dim")
        yield line
    if applied:
        yield Text(
            f"calibration: {applied.detail}" if applied.holds else f"calibration ignored: {applied.detail}", "dim"
        )


def _budget(report: Report) -> Iterator[RenderableType]:
    budget = report.budget
    if not any(report.snapshot.visit(name) for name in ("gpu", "spbm")):
        return
    if budget.limits:
        # What the owner has set stands last, not among what it takes the place of.
        limits = sorted(budget.limits, key=lambda limit: limit.is_set)
        yield _Flow(
            f"{', '.join(f'{limit.name} {limit.watts:g}' for limit in group)} W ({words})"
            for words, group in groupby(limits, key=lambda limit: limit.words)
        )
    if isinstance(budget.headroom, Headroom):
        room = budget.headroom
        if room.watts < 0:
            line = Text(f"{-room.watts:.1f} W over", "bold").append(f" {room.limit.title}: ")
        else:
            line = Text(f"{room.watts:.1f} W left", "bold").append(f" before {room.limit.title} binds: ")
        line.append(f"{room.against.value:.1f} of {room.limit.watts:g} W ")
        line.append(f"({room.against.source}; {room.limit.source})", "dim")
        yield line
    else:
        yield Text(f"headroom withheld: {budget.headroom.detail}", "dim")
    table = _grid("left", "left", "wrap")
    for scope, verdict in budget.verdicts.items():
        style = _STANDING_STYLES[verdict.standing]
        table.add_row(scope, Text(verdict.standing.value, style), Text(verdict.reason, "dim"))
    if isinstance(rest := budget.rest, Rest):
        table.add_row("rest", Text(rest.standing.value, _STANDING_STYLES[rest.standing]), Text(rest.brief, "dim"))
    yield table


def energy_title(report: Report) -> str:
    """Return the heading over what was counted, with its age."""
    ages = [known.age for known in report.energies.values() if isinstance(known, Energy)]
    return f"Energy, counted until {max(ages):.1f} s ago" if ages else "Energy"


def energy_lines(report: Report) -> Iterator[RenderableType]:
    """Yield what each scope drew, how that is known, and of how much time."""
    table = _grid("left", "right", "left", "left", "wrap")
    for scope, name, _ in _SCOPES:
        known = report.energies.get(scope)
        if isinstance(known, Energy):
            gaps = f", {_duration(known.uncovered_seconds)} not covered" if known.uncovered_seconds else ""
            table.add_row(
                name,
                Text(_joules(known.joules), "bold"),
                known.quality.value,
                f"over {_duration(known.covered_seconds)}{gaps}",
                Text(known.source, "dim"),
            )
    if table.row_count:
        yield table
    for scope, name, _ in _SCOPES:
        if isinstance(known := report.energies.get(scope), Unmeasured):
            yield Text(f"{name}: no number — {known.detail}", "yellow" if known.reason.is_fault else "dim")


def _joules(value: float) -> str:
    for size, unit in ((1e9, "GJ"), (1e6, "MJ"), (1e3, "kJ")):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:.4g} J"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _gpu(snapshot: Snapshot) -> Iterator[RenderableType]:
    for fact in snapshot.facts(gpu.NAME):
        entity = fact.entity
        capability = _fact(snapshot, gpu.COMPUTE_CAPABILITY, entity)
        yield _Flow(
            (
                f"{fact.value}",
                _fact(snapshot, gpu.ARCHITECTURE, entity),
                _prefixed("compute capability", capability),
                _prefixed("VBIOS", _fact(snapshot, gpu.VBIOS, entity)),
            )
        )
        clock, most = _value(snapshot, gpu.CLOCK, entity, "sm"), _value(snapshot, gpu.MAX_CLOCK, entity, "sm")
        used, total = _value(snapshot, gpu.MEMORY_USED, entity), _value(snapshot, gpu.MEMORY_TOTAL, entity)
        yield _Flow(
            (
                _percent("busy", _value(snapshot, gpu.UTILIZATION, entity)),
                f"SM {clock / 1e6:.0f} MHz" + (f" of {most / 1e6:.0f}" if most else "") if clock is not None else "",
                _fact(snapshot, gpu.PSTATE, entity),
                _celsius(_value(snapshot, gpu.TEMPERATURE, entity)),
                f"memory {used / _GIB:.1f} of {total / _GIB:.1f} GiB" if used is not None and total else "",
            )
        )
        reasons = next((item.value for item in snapshot.facts(gpu.EVENTS) if item.entity == entity), ())
        if isinstance(reasons, tuple) and reasons:
            yield Text(f"clock events: {', '.join(map(str, reasons))}", "dim")
        yield from _processes(snapshot, entity)
    yield from _why_not(snapshot, "gpu", bool(snapshot.facts(gpu.NAME)))


def _processes(snapshot: Snapshot, device: str) -> Iterator[RenderableType]:
    table = _grid("right", "left", "right", "left")
    for fact in snapshot.facts(gpu.PROCESS_KIND):
        if fact.entity.startswith(f"{device}/"):
            held = _value(snapshot, gpu.PROCESS_MEMORY, fact.entity)
            table.add_row(
                fact.entity.rpartition("/")[2],
                _fact(snapshot, gpu.PROCESS_NAME, fact.entity) or "?",
                f"{held / _GIB:.1f} GiB" if held is not None else "? GiB",
                Text(str(fact.value), "dim"),
            )
    if table.row_count:
        yield table


def _why_not(snapshot: Snapshot, collector: str, is_there: bool) -> Iterator[RenderableType]:
    visit = snapshot.visit(collector)
    if visit and not is_there and visit.reason:
        yield Text(f"none: {visit.detail or visit.reason}", "dim")


def _cpu(snapshot: Snapshot) -> Iterator[RenderableType]:
    models = {fact.entity: str(fact.value) for fact in snapshot.facts(cpu.MODEL)}
    kinds: dict[tuple[str, str], list[str]] = {}
    for fact in snapshot.facts(cpu.CORE_TYPE):
        kinds.setdefault((str(fact.value), models.get(fact.entity, "unknown model")), []).append(fact.entity)
    table = _grid("left", "right", "left", "left", "left")
    for (core_type, model), cores in sorted(kinds.items(), key=lambda kind: kind[0][0], reverse=True):
        top = [value for core in cores if (value := _value(snapshot, cpu.MAX_FREQUENCY, core)) is not None]
        table.add_row(
            core_type if core_type != "unknown" else "cores",
            f"{len(cores)} ×",
            model,
            f"cpu {ranges(int(core) for core in cores)}",
            f"up to {min(top) / 1e9:.2f}–{max(top) / 1e9:.2f} GHz" if top else "",
        )
    if table.row_count:
        yield table
    governors = sorted({str(fact.value) for fact in snapshot.facts(cpu.GOVERNOR)})
    clusters = [
        f"cpu {fact.value} share {value / 2**20:.0f} MiB L3"
        for fact in snapshot.facts(cpu.CLUSTER_CPUS)
        if (value := _value(snapshot, cpu.CLUSTER_L3, fact.entity)) is not None
    ]
    load = [_value(snapshot, of) for of in (cpu.LOAD1, cpu.LOAD5, cpu.LOAD15)]
    yield _Flow(
        (
            f"load {' '.join(f'{value:.2f}' for value in load if value is not None)}" if any(load) else "",
            f"governor {', '.join(governors)}" if governors else "",
            *clusters,
        )
    )
    yield from _why_not(snapshot, "cpu", bool(kinds))


def _memory(snapshot: Snapshot) -> Iterator[RenderableType]:
    total, available = _value(snapshot, memory.TOTAL), _value(snapshot, memory.AVAILABLE)
    if total is not None and available is not None:
        shared = ", shared by CPU and GPU" if snapshot.fact(memory.UNIFIED) else ""
        used = total - available
        bar = _bar(used / total)
        yield Text.assemble(bar, f" {used / _GIB:.1f} of {total / _GIB:.1f} GiB used{shared}")
    allocatable = _value(snapshot, memory.ALLOCATABLE)
    swap, swap_free = _value(snapshot, memory.SWAP_TOTAL), _value(snapshot, memory.SWAP_FREE)
    huge, stalled = _value(snapshot, memory.HUGEPAGES_TOTAL), _value(snapshot, memory.PRESSURE_SOME, "", "avg10")
    yield _Flow(
        (
            f"available {available / _GIB:.1f} GiB" if available is not None else "",
            f"CUDA can allocate {allocatable / _GIB:.1f} GiB"
            if allocatable is not None and snapshot.fact(memory.UNIFIED)
            else "",
            f"swap {swap_free / _GIB:.1f} of {swap / _GIB:.1f} GiB free" if swap and swap_free is not None else "",
            f"{huge:.0f} huge pages" if huge else "",
            f"stalled {stalled:.0%}" if stalled is not None else "",
        )
    )
    yield from _why_not(snapshot, "memory", total is not None)


def _nvme(snapshot: Snapshot) -> Iterator[RenderableType]:
    drives = _entities(snapshot, nvme.STATE, nvme.MODEL, nvme.CAPACITY)
    for name in drives:
        size = _value(snapshot, nvme.CAPACITY, name)
        yield _Flow(
            (
                f"{name} {_fact(snapshot, nvme.MODEL, name) or 'unknown model'}",
                f"{size / 1e12:.2f} TB" if size is not None else "",
                _fact(snapshot, nvme.STATE, name),
                _celsius(_value(snapshot, nvme.TEMPERATURE, name, "Composite")),
                _prefixed("firmware", _fact(snapshot, nvme.FIRMWARE, name)),
                _prefixed("PCIe", _fact(snapshot, nvme.PCIE_LINK, name)),
            )
        )
    yield from _why_not(snapshot, "nvme", bool(drives))


def _entities(snapshot: Snapshot, *of: Property | Quantity) -> list[str]:
    """Return the entities that any of these was read for, in order."""
    names: dict[str, None] = {}
    for one in of:
        items = snapshot.facts(one) if isinstance(one, Property) else snapshot.readings(one)
        names |= dict.fromkeys(item.entity for item in items)
    return list(names)


def _network(snapshot: Snapshot) -> Iterator[RenderableType]:
    table = _grid("left", "left", "left", "right", "left", "left")
    names = _entities(snapshot, nic.KIND)
    cages = {fact.entity: fact.value for fact in snapshot.facts(nic.CAGE)}
    for name in sorted(names, key=lambda one: (str(cages.get(one, "~")), names.index(one))):
        speed = _value(snapshot, nic.SPEED, name)
        rdma = _fact(snapshot, nic.RDMA_STATE, name)
        table.add_row(
            name,
            _fact(snapshot, nic.KIND, name) + (f" cage {cages[name]}" if name in cages else ""),
            Text(link := _fact(snapshot, nic.LINK, name), "green" if link == "up" else "dim"),
            f"{speed / 1e9:g} Gb/s" if speed is not None else "",
            Text(_prefixed("RDMA", rdma), "dim"),
            Text(_fact(snapshot, nic.DRIVER, name), "dim"),
        )
    if table.row_count:
        yield table
    state = snapshot.fact(nic.STATE)
    if state == "asleep":
        yield Text("ConnectX-7 is asleep: hot-plug powers it off while no cable is in. No fault.", "cyan")
    elif state in ("missing", "incomplete"):
        yield Text(f"ConnectX-7 is {state}.", "yellow")
    yield from _why_not(snapshot, "nic", bool(names))


def _thermal(snapshot: Snapshot) -> Iterator[RenderableType]:
    zones: list[str] = []
    others: list[str] = []
    for reading in snapshot.readings(thermal.TEMPERATURE):
        place = _fact(snapshot, thermal.PLACE, reading.entity)
        is_zone = reading.entity.startswith("thermal_zone")
        (zones if is_zone else others).append(f"{place or reading.entity} {reading.value:.1f} °C")
    for line in (zones, others):
        if line:
            yield _Flow(line)
    fans = [f"{reading.entity} {reading.value:.0f} rpm" for reading in snapshot.readings(fan.SPEED)]
    if fans:
        yield _Flow(fans)
    else:
        yield from (
            Text(f"fans: {visit.detail}", "dim")
            for visit in snapshot.visits
            if visit.collector == "fan" and visit.detail
        )


def _specification(report: Report) -> Iterator[RenderableType]:
    # Who asked for a few parts does not want to read which others he left out.
    if not report.parts or len(report.snapshot.visits) < len(discover()):
        return
    table = _grid("left", "left", "wrap")
    for part in report.parts:
        sign, style = _MATCH_STYLES[part.match]
        table.add_row(Text(f"{sign} {part.name}", style), Text(part.match.value, style), Text(part.found, "dim"))
    yield table


def _findings(found: Iterable[Finding]) -> Iterator[RenderableType]:
    for finding in found:
        # These have a place of their own above.
        if finding.id.startswith("specification_") or finding.id in ("gpu_only", "gpu_mismatch", "connectx7_asleep"):
            continue
        yield from finding_lines(finding)


def finding_lines(finding: Finding) -> Iterator[RenderableType]:
    """Yield one finding: how much it matters, what shows it, and what to do."""
    word, style = SEVERITY_STYLES[finding.severity]
    yield Text.assemble((f"{word}: ", style), (finding.title, "bold"))
    for line in finding.evidence:
        yield Padding(Text(line, "dim"), (0, 0, 0, 2))
    if finding.action:
        yield Padding(Text.assemble(("→ ", style), finding.action), (0, 0, 0, 2))


class _Flow:
    """Parts joined by dots; a line breaks between two parts, never inside one that would fit the next line."""

    def __init__(self, parts: Iterable[str], style: str = "") -> None:
        self._parts = [part for part in parts if part]
        self._style = style

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        line = ""
        for part in self._parts:
            joined = f"{line} · {part}" if line else part
            if line and cell_len(joined) > options.max_width:
                yield Text(line, self._style)
                line = part
            else:
                line = joined
        if line:
            yield Text(line, self._style)


def _percent(word: str, ratio: float | None) -> str:
    return f"{word} {ratio:.0%}" if ratio is not None else ""


def _celsius(value: float | None) -> str:
    return f"{value:.0f} °C" if value is not None else ""


def _bar(ratio: float, width: int = 20) -> Text:
    full = round(max(0.0, min(1.0, ratio)) * width)
    return Text.assemble(("█" * full, "cyan"), ("░" * (width - full), "dim"))


def ranges(numbers: Iterable[int]) -> str:
    """Write numbers as the kernel writes a list of them: ``5-9,15-19``."""
    parts: list[str] = []
    for _, run in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ",".join(parts)
