"""A report as Prometheus reads it: the text format 0.0.4, or OpenMetrics 1.0.

Each family follows from a declaration, so a new sensor needs no line here. ``docs/metrics.md`` lists them all.

* A `Quantity` is a gauge or a counter; a `Property` that is true or false is a gauge of 1 or 0.
* Other properties of the inventory are labels of one info metric per section. One that changes while the machine runs
  is a state set, of which only the states that hold are told: the whole vocabulary is the driver's. It is a short one.
* Powers are those that `Power` believes: a part above its whole, or a 0 where something is on, is no sample.
* What is absent has no sample, and what is untrusted has none, for whatever has a name is alarmed on some day.
* Nor have serial numbers and their like, processes (each would be a label), and the energy registers that wrap.

https://prometheus.io/docs/instrumenting/writing_exporters/
https://prometheus.io/docs/instrumenting/exposition_formats/
https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

import platform as python
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, Final, TypeVar

from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from spark_agent.agent import __version__, energy, estimate
from spark_agent.agent.budget import Headroom, Rest, Standing
from spark_agent.agent.power import Measured, Power, Unmeasured
from spark_agent.agent.report import Report
from spark_agent.agent.snapshot import Snapshot, Status
from spark_agent.collectors import Kind, Property, Quality, Quantity, Reading, Scope, Section, Unit, declarations, spbm
from spark_agent.collectors._power import LIMIT
from spark_agent.collectors._untrusted import UNTRUSTED

#: Parts of a page that are no collector: what the agent makes of power, and what a person should know.
POWER: Final = "power"
FINDINGS: Final = "findings"
#: The part that no filter takes away: how the agent itself does.
ALWAYS: Final = ""

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Type(StrEnum):
    """The types of OpenMetrics that are of use here."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"
    STATESET = "stateset"


_SUFFIXES: Final = {Type.GAUGE: "", Type.COUNTER: "_total", Type.INFO: "_info", Type.STATESET: ""}


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One metric family: what all of its samples share. ``name`` is without the suffix of its type."""

    name: str
    type: Type
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""

    @property
    def metric(self) -> str:
        """The name of its samples."""
        return self.name + _SUFFIXES[self.type]


#: Samples by the values of their labels, in the family's order; an empty value is a label that is not there.
Samples = dict[tuple[str, ...], float]
Told = Iterator[tuple[Family, Samples]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one collector's declarations become. A property has a family for each kind of value that it may have."""

    numbers: tuple[tuple[Family, tuple[Quantity, ...]], ...]
    infos: tuple[tuple[Family, tuple[Property, ...]], ...]
    switches: tuple[tuple[Family, Property], ...]
    states: tuple[tuple[Family, Property], ...]


@cache
def plans() -> Mapping[str, Plan]:
    """Return what the declarations of each collector become."""
    return {collector: plan(declared) for collector, declared in declarations().items()}


def plan(declared: Iterable[Quantity | Property]) -> Plan:
    """Make families of declarations; those that share a metric's name share its family."""
    exported = [of for of in declared if of.section.exported and of.section is not UNTRUSTED]
    # The limits in force are told with their origin, by what the agent makes of power.
    quantities = [of for of in exported if isinstance(of, Quantity) and of is not LIMIT]
    properties = [of for of in exported if isinstance(of, Property) and not of.private]
    inventory = [of for of in properties if of.inventory]
    return Plan(
        tuple((_number(alike), alike) for alike in _grouped(quantities, lambda of: of.name)),
        tuple((_info(alike), alike) for alike in _grouped(inventory, lambda of: of.section.path)),
        tuple((_fact(of, Type.GAUGE), of) for of in properties),
        tuple((_fact(of, Type.STATESET), of) for of in properties if not of.inventory),
    )


_Declared = TypeVar("_Declared", Quantity, Property)


def _grouped(declared: Iterable[_Declared], key: Callable[[_Declared], str]) -> Iterable[tuple[_Declared, ...]]:
    groups: dict[str, list[_Declared]] = {}
    for of in declared:
        groups.setdefault(key(of), []).append(of)
    return map(tuple, groups.values())


def _number(alike: tuple[Quantity, ...]) -> Family:
    of = alike[0]
    kind = Type.COUNTER if of.kind is Kind.COUNTER else Type.GAUGE
    unit, _ = _base(of.unit)
    name = of.name.removesuffix(of.unit.words) + unit
    return Family(f"gb10_{name}", kind, _help(of.help, alike), (*_entity_labels(of.section), *of.labels), unit)


def _base(unit: Unit) -> tuple[str, float]:
    """Return Prometheus' base unit for a unit of ours, in words, and how many of it there are in one."""
    # Networks count in bits, Prometheus in bytes, whatever it counts.
    return ("bytes_per_second", 1 / 8) if unit is Unit.BIT_PER_SECOND else (unit.words, 1)


def _info(alike: tuple[Property, ...]) -> Family:
    section = alike[0].section
    labels = (*_entity_labels(section), *(of.key for of in alike))
    return Family(f"gb10_{_info_name(section)}", Type.INFO, _help(section.help, alike), labels)


def _info_name(section: Section) -> str:
    # All cores together and each core are both "cpu"; an info metric of each needs a name of its own.
    sections = {of.section for declared in declarations().values() for of in declared}
    is_shared = any(other.metric == section.metric and other.path != section.path for other in sections)
    return section.path.replace(".", "_") if is_shared else section.metric


def _fact(of: Property, kind: Type) -> Family:
    name = f"gb10_{of.section.metric}_{of.key}"
    labels = _entity_labels(of.section)
    return Family(name, kind, _help(of.help, (of,)), (*labels, name) if kind is Type.STATESET else labels)


def _help(text: str, alike: Sequence[Quantity | Property]) -> str:
    return f"{text.rstrip('.')}. Source: {'; '.join(dict.fromkeys(of.source for of in alike))}."


def _entity_labels(section: Section) -> tuple[str, ...]:
    above = _entity_labels(section.within) if section.within else ()
    return (*above, section.entity) if section.entity else above


def _entity_values(section: Section, entity: str) -> tuple[str, ...]:
    if section.within:
        parent, _, own = entity.rpartition("/")
        return (*_entity_values(section.within, parent), own)
    return (entity,) if section.entity else ()


def collector_families(report: Report, collector: str) -> Told:
    """Yield what one collector read, as its declarations say."""
    snapshot, planned = report.snapshot, plans()[collector]
    believed = _believed(report.power)
    for family, quantities in planned.numbers:
        yield family, _number_samples(quantities, snapshot.readings, believed)
    for family, properties in planned.infos:
        yield family, _info_samples(snapshot, properties)
    for family, of in planned.switches:
        yield family, _switch_samples(snapshot, of)
    for family, of in planned.states:
        yield family, _state_samples(snapshot, of)


_Believed = set[tuple[Scope, str, tuple[str, ...], float]]


def _believed(power: Power) -> _Believed:
    known = (*power.scopes.values(), *power.windows, *power.averages.values(), *power.registers)
    return {(one.scope, one.source, one.labels, one.value) for one in known if isinstance(one, Measured)}


def _is_told(reading: Reading, believed: _Believed) -> bool:
    # What has no scope of its own is a limit.
    scope = reading.of.scope
    return scope is None or (scope, reading.origin, reading.labels, reading.value) in believed


def _number_samples(
    quantities: Iterable[Quantity],
    readings: Callable[[Quantity], Iterable[Reading]],
    believed: _Believed | None = None,
) -> Samples:
    """Return what was read for these; of powers, where it is said which are ``believed``, only those."""
    samples: Samples = {}
    for of in quantities:
        _, factor = _base(of.unit)
        for reading in readings(of):
            is_doubted = of.is_power and believed is not None and not _is_told(reading, believed)
            if reading.quality is not Quality.UNTRUSTED and not is_doubted:
                labels = (*_entity_values(of.section, reading.entity), *reading.labels)
                samples.setdefault(labels, reading.value * factor)
    return samples


def _info_samples(snapshot: Snapshot, properties: tuple[Property, ...]) -> Samples:
    section = properties[0].section
    entities: dict[str, dict[str, str]] = {}
    for of in properties:
        for fact in snapshot.facts(of):
            if not isinstance(fact.value, bool | tuple):
                entities.setdefault(fact.entity, {})[of.key] = str(fact.value)
    return {
        (*_entity_values(section, entity), *(texts.get(of.key, "") for of in properties)): 1.0
        for entity, texts in entities.items()
    }


def _switch_samples(snapshot: Snapshot, of: Property) -> Samples:
    # A number that describes the machine is a label; one that changes is worth a curve.
    return {
        _entity_values(of.section, fact.entity): float(fact.value)
        for fact in snapshot.facts(of)
        if isinstance(fact.value, bool) or (isinstance(fact.value, int) and not of.inventory)
    }


def _state_samples(snapshot: Snapshot, of: Property) -> Samples:
    return {
        (*_entity_values(of.section, fact.entity), str(state)): 1.0
        for fact in snapshot.facts(of)
        if not isinstance(fact.value, int)
        for state in (fact.value if isinstance(fact.value, tuple) else (fact.value,))
    }


LIMITS: Final = Family(
    "gb10_power_limit_watts",
    Type.GAUGE,
    "Power limit in force, by the scope it binds and who says so; never a reading. "
    f"Source: {LIMIT.source}; nvmlDeviceGetEnforcedPowerLimit; NVIDIA's DGX Spark User Guide (origin=vendor_doc); "
    "the OS's slot, or the agent's settings (origin=user).",
    ("scope", "limit", "origin"),
    Unit.WATT.words,
)
HEADROOM: Final = Family(
    "gb10_power_headroom_watts",
    Type.GAUGE,
    "How far the machine is from the limit that binds first, which the label names; below 0 beyond it. "
    "Source: that limit, less the reading of its scope.",
    ("budget",),
    Unit.WATT.words,
)
UNMEASURED: Final = Family(
    "gb10_power_unmeasured_watts",
    Type.GAUGE,
    "What the system draws besides its SoC: ConnectX-7, SSD, USB-C and losses. "
    f"Source: {spbm.SYSTEM.source}, less {spbm.SOC.source}.",
    unit=Unit.WATT.words,
)
VERDICT: Final = Family(
    "gb10_power_verdict",
    Type.STATESET,
    "Where the power of a scope stands, 1 at the one that holds. Source: readings and limits of that scope.",
    ("scope", "gb10_power_verdict"),
)
NVML_RATIO: Final = Family(
    "gb10_gpu_nvml_power_ratio",
    Type.GAUGE,
    "GPU power as NVML gives it, over the firmware's GPU rail; neither corrects the other. "
    f"Source: nvmlDeviceGetPowerUsage; {spbm.GPU_RAIL.source}.",
    unit=Unit.RATIO.words,
)
SOURCE: Final = Family(
    "gb10_power_source",
    Type.INFO,
    "Which reading speaks for the power of a scope. Source: the one that its label names.",
    ("scope", "source", "driver", "quality"),
)
LIMIT_SECONDS: Final = Family(
    "gb10_power_limit_seconds",
    Type.COUNTER,
    "Time spent at 98 % of a limit or above, as the limit was then; of each whose own scope is measured. "
    "Source: the agent's own count, kept over restarts.",
    ("limit",),
    Unit.SECOND.words,
)


FINDING: Final = Family(
    "gb10_finding",
    Type.GAUGE,
    "1 for each thing that a person should know of this machine. Source: `spark-agent snapshot` says it in words.",
    ("id", "severity"),
)

MISREAD: Final = Family(
    "spark_agent_misread",
    Type.GAUGE,
    "1 for each series of another exporter that claims to be this machine's power and is not, by what "
    "gives it away. Source: the exporters of --misread.exporter, against what is measured here.",
    ("series", "kind"),
)
EXPORTER: Final = Family(
    "spark_agent_misread_exporter_success",
    Type.GAUGE,
    "Whether the metrics of another exporter could be looked at. Source: the exporters of --misread.exporter.",
    ("exporter",),
)
AUDIT: Final = Family(
    "spark_agent_audit_findings",
    Type.GAUGE,
    "Misreadings of power in rules and dashboards, by rule. Source: the files of --audit.",
    ("rule",),
)
AUDIT_ERRORS: Final = Family(
    "spark_agent_audit_errors",
    Type.GAUGE,
    "What could not be audited. Source: the files of --audit.",
)
AUDIT_AT: Final = Family(
    "spark_agent_audit_timestamp_seconds",
    Type.GAUGE,
    "When the files were audited last, or were as they had been, in seconds since 1970. Source: the agent's clock.",
    unit=Unit.SECOND.words,
)

UNCLEAN_SHUTDOWNS: Final = Family(
    "gb10_unclean_shutdowns",
    Type.COUNTER,
    "How often the machine went down without a clean end. Source: the agent's black box, kept over restarts.",
)
MACHINE: Final = Family(
    "spark_agent_machine",
    Type.INFO,
    "Whether this machine is live, a recording of one, or made up. Source: --machine, --demo.",
    ("origin",),
)
BUILD: Final = Family(
    "spark_agent_build",
    Type.INFO,
    "What runs here. Source: the agent.",
    ("version", "python", "implementation"),
)
SUCCESS: Final = Family(
    "spark_agent_collector_success",
    Type.GAUGE,
    "0 where a collector failed; 1 where it read its source, or found that there is none here. Source: its last visit.",
    ("collector",),
)
ABSENT: Final = Family(
    "spark_agent_collector_absent",
    Type.GAUGE,
    "1 where this machine has nothing for a collector to read, and why; no failure. Source: its last visit.",
    ("collector", "reason"),
)
DURATION: Final = Family(
    "spark_agent_collector_duration_seconds",
    Type.GAUGE,
    "How long a collector took. Source: its last visit.",
    ("collector",),
    Unit.SECOND.words,
)
INVENTORY_CHANGES: Final = Family(
    "spark_agent_inventory_changes",
    Type.COUNTER,
    "How often a collector's inventory was another than before. Source: the agent's own count, kept over restarts.",
    ("collector",),
)
FAILURES: Final = Family(
    "spark_agent_collector_failures",
    Type.COUNTER,
    "Visits of a collector that failed. Source: the agent's own count since it started.",
    ("collector",),
)
REJECTED: Final = Family(
    "spark_agent_samples_rejected",
    Type.COUNTER,
    "Values that were read and could not be believed. Source: the agent's own count since it started.",
    ("quantity", "reason"),
)
BEATS: Final = Family("spark_agent_beats", Type.COUNTER, "Looks taken. Source: the agent's own count since it started.")
MISSED: Final = Family(
    "spark_agent_beats_missed", Type.COUNTER, "Looks that came late. Source: the agent's own count since it started."
)
STARTS: Final = Family(
    "spark_agent_starts", Type.COUNTER, "Starts of the agent. Source: its own count, kept over restarts."
)
UNCLEAN_ENDS: Final = Family(
    "spark_agent_unclean_shutdowns",
    Type.COUNTER,
    "How often the agent ended without a clean end. Source: its own count, kept over restarts.",
)

AGE: Final = Family(
    "spark_agent_sample_age_seconds",
    Type.GAUGE,
    "Age of the report that this page tells, when it was asked for. Source: the agent's clock.",
    unit=Unit.SECOND.words,
)
COLLECTOR_AGE: Final = Family(
    "spark_agent_collector_sample_age_seconds",
    Type.GAUGE,
    "Age of what a collector read, when this page was asked for. Source: the agent's clock.",
    ("collector",),
    Unit.SECOND.words,
)

#: What the agent's own declarations become. An estimate has names of its own.
_OWN: Final = plan((*energy.DECLARED, *estimate.DECLARED)).numbers

#: Families that follow from no collector's declaration, by the part that a filter takes them with.
DERIVED: Final[Mapping[str, tuple[Family, ...]]] = {
    POWER: (
        *(LIMITS, HEADROOM, UNMEASURED, VERDICT, NVML_RATIO, SOURCE, LIMIT_SECONDS),
        *(family for family, _ in _OWN),
    ),
    FINDINGS: (FINDING,),
    ALWAYS: (
        *(UNCLEAN_SHUTDOWNS, MACHINE, BUILD, SUCCESS, ABSENT, DURATION, INVENTORY_CHANGES, FAILURES, REJECTED),
        *(BEATS, MISSED, STARTS, UNCLEAN_ENDS, AGE, COLLECTOR_AGE),
        *(MISREAD, EXPORTER, AUDIT, AUDIT_ERRORS, AUDIT_AT),
    ),
}


def power_families(report: Report) -> Told:
    """Yield what the agent makes of power."""
    power, budget = report.power, report.budget
    yield LIMITS, {(limit.scope, limit.name, limit.origin): limit.watts for limit in budget.limits}
    if isinstance(budget.headroom, Headroom):
        yield HEADROOM, {(budget.headroom.limit.name,): budget.headroom.watts}
    if isinstance(budget.rest, Rest):
        yield UNMEASURED, {(): budget.rest.watts}
    yield (
        VERDICT,
        {
            (scope, standing): float(standing is verdict.standing)
            for scope, verdict in budget.verdicts.items()
            for standing in Standing
        },
    )
    if (ratio := _ratio(power.scopes[Scope.GPU_NVML], power.scopes[Scope.GPU_RAIL])) is not None:
        yield NVML_RATIO, {(): ratio}
    driver = str(report.snapshot.fact(spbm.DRIVER) or "")
    yield (
        SOURCE,
        {
            (scope, known.source, "nvml" if scope is Scope.GPU_NVML else driver, known.quality): 1.0
            for scope, known in power.scopes.items()
            if isinstance(known, Measured)
        },
    )
    if report.history:
        yield LIMIT_SECONDS, {(limit,): seconds for limit, seconds in report.history.limit_seconds.items()}
    derived: dict[Quantity, list[Reading]] = {}
    for reading in report.derived():
        derived.setdefault(reading.of, []).append(reading)
    for family, quantities in _OWN:
        yield family, _number_samples(quantities, lambda of: derived.get(of, ()))


#: Watts below which a ratio to them says nothing.
_RATIO_LEAST: Final = 0.1
#: Seconds between two readings beyond which neither is held against the other: powers swing from one to the next.
_TOGETHER_SECONDS: Final = 2.0


def _ratio(over: Measured | Unmeasured, under: Measured | Unmeasured) -> float | None:
    if isinstance(over, Unmeasured) or isinstance(under, Unmeasured):
        return None
    is_together = abs(over.age - under.age) <= _TOGETHER_SECONDS
    return over.value / under.value if is_together and under.value >= _RATIO_LEAST else None


def finding_families(report: Report) -> Told:
    """Yield what a person should know of this machine."""
    yield FINDING, {(finding.id, finding.severity): 1.0 for finding in report.findings}


def agent_families(report: Report) -> Told:
    """Yield how the agent does, but for ages, which a scrape knows."""
    visits, history = report.snapshot.visits, report.history
    yield MACHINE, {(report.snapshot.origin,): 1.0}
    yield BUILD, {(__version__, python.python_version(), python.python_implementation()): 1.0}
    yield SUCCESS, {(visit.collector,): float(visit.status is not Status.FAILED) for visit in visits}
    yield (
        ABSENT,
        {(visit.collector, visit.reason or ""): 1.0 for visit in visits if visit.status is Status.ABSENT},
    )
    yield DURATION, {(visit.collector,): visit.seconds for visit in visits}
    if report.hearsay:
        yield MISREAD, {(misread.series, misread.kind): 1.0 for misread in report.hearsay.misreads}
        yield EXPORTER, {(url,): float(not fault) for url, fault in report.hearsay.exporters.items()}
    if report.audit:
        yield AUDIT, {(rule,): count for rule, count in report.audit.findings.items()}
        yield AUDIT_ERRORS, {(): report.audit.errors}
        yield AUDIT_AT, {(): report.audit.at}
    if history is None:
        return
    yield INVENTORY_CHANGES, {(visit.collector,): history.inventory_changes.get(visit.collector, 0) for visit in visits}
    yield FAILURES, {(visit.collector,): history.failures.get(visit.collector, 0) for visit in visits}
    yield REJECTED, dict(history.rejected.items())
    yield BEATS, {(): history.beats}
    yield MISSED, {(): history.missed_beats}
    yield STARTS, {(): history.starts}
    yield UNCLEAN_ENDS, {(): history.unclean_shutdowns}
    yield UNCLEAN_SHUTDOWNS, {(): history.machine_unclean_shutdowns}


def age_families(report: Report, age: float) -> Told:
    """Yield how old everything is on a page that is asked for so many seconds after its report."""
    snapshot = report.snapshot
    yield AGE, {(): age}
    yield COLLECTOR_AGE, {(visit.collector,): age + max(0.0, snapshot.at - visit.at) for visit in snapshot.visits}


def parts(report: Report) -> tuple[str, ...]:
    """Return what a filter can name: the collectors that were asked, and what the agent makes of them."""
    collectors = tuple(visit.collector for visit in report.snapshot.visits if visit.collector in plans())
    return (*collectors, *((POWER,) if {"gpu", "spbm"} & {*collectors} else ()), FINDINGS)


def tell(report: Report, part: str) -> Told:
    """Yield what belongs to one part, or to the agent itself where it is `ALWAYS`."""
    derived = _DERIVED.get(part)
    return derived(report) if derived else collector_families(report, part)


_DERIVED: Final = {POWER: power_families, FINDINGS: finding_families, ALWAYS: agent_families}


def families(report: Report) -> Told:
    """Yield all that a report says, whenever it is asked: no ages, and nothing of the agent's process."""
    for part in (*parts(report), ALWAYS):
        yield from tell(report, part)


def text(report: Report) -> bytes:
    """Return `families` in the text format."""
    return render(families(report), is_openmetrics=False)


def render(told: Iterable[tuple[Family, Samples]], *, is_openmetrics: bool) -> bytes:
    """Write families as prometheus_client does, in a fifth of its time; one without a sample is not written."""
    lines: list[str] = []
    for family, samples in told:
        if samples:
            lines.append(_header(family, is_openmetrics))
            lines += [f"{_series(family, values)} {float(value)!r}\n" for values, value in samples.items()]
    return "".join(lines).encode()


@cache
def _header(family: Family, is_openmetrics: bool) -> str:
    escaped = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if not is_openmetrics:
        plain = Type.COUNTER if family.type is Type.COUNTER else Type.GAUGE
        return f"# HELP {family.metric} {escaped}\n# TYPE {family.metric} {plain}\n"
    unit = f"# UNIT {family.name} {family.unit}\n" if family.unit else ""
    quoted = escaped.replace('"', r"\"")
    return f"# HELP {family.name} {quoted}\n# TYPE {family.name} {family.type}\n{unit}"


@lru_cache(maxsize=8192)
def _series(family: Family, values: tuple[str, ...]) -> str:
    pairs = sorted((name, value) for name, value in zip(family.labels, values, strict=True) if value)
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)
    return f"{family.metric}{{{labels}}}" if labels else family.metric


def _escaped(value: str) -> str:
    # A file's name may hold bytes that are no UTF-8, which Python keeps as surrogates.
    clean = value.encode(errors="backslashreplace").decode()
    return clean.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


Headers = list[tuple[str, str]]


class Exposition:
    """Pages for whoever scrapes: what is the same for all of them is rendered once per report."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = ProcessCollector(registry=None)
        # Around a beat some still ask for the report before.
        self._last: tuple[_Pages, ...] = ()

    def page(
        self,
        report: Report,
        age: float,
        accept: str = "",
        accept_encoding: str = "",
        collect: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> tuple[bytes, Headers]:
        """Return the page of a report that is ``age`` seconds old, and its headers.

        ``accept`` and ``accept_encoding`` are the request's headers. ``collect`` names the only parts to tell,
        ``exclude`` those to leave out; a `ValueError` says where they cannot be had. The agent's own metrics stay.
        """
        chosen = choose(parts(report), collect, exclude)
        is_openmetrics, is_gzip = wants_openmetrics(accept), wants_gzip(accept_encoding)
        with self._lock:
            page = self._of(report).page(chosen, is_openmetrics=is_openmetrics)
            body = page.packed() if is_gzip else page.body
        # Ages differ from scrape to scrape, so they come last.
        tail = render(age_families(report, age), is_openmetrics=is_openmetrics) + (
            b"# EOF\n" if is_openmetrics else b""
        )
        headers = [("Content-Type", OPENMETRICS if is_openmetrics else TEXT), ("Vary", "Accept, Accept-Encoding")]
        if isinstance(body, bytes):
            return body + tail, headers
        return body.end(tail), [*headers, ("Content-Encoding", "gzip")]

    def _of(self, report: Report) -> "_Pages":
        for pages in self._last:
            if pages.report is report:
                return pages
        pages = _Pages(report, self._process)
        self._last = (pages, *self._last[:1])
        return pages


@dataclass(frozen=True, slots=True)
class _Packed:
    """The beginning of a gzip stream, and a compressor that can go on from there."""

    beginning: bytes
    compressor: Any

    def end(self, tail: bytes) -> bytes:
        return b"".join((self.beginning, self.compressor.compress(tail), self.compressor.flush()))


class _Page:
    def __init__(self, body: bytes) -> None:
        self.body = body
        self._packed: _Packed | None = None

    def packed(self) -> _Packed:
        """Return the body as the beginning of a gzip stream that is the caller's own to end."""
        if self._packed is None:
            compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
            # Flushed, or each copy would hold the body in its buffers and compress it once more.
            beginning = compressor.compress(self.body) + compressor.flush(zlib.Z_SYNC_FLUSH)
            self._packed = _Packed(beginning, compressor)
        return _Packed(self._packed.beginning, self._packed.compressor.copy())


# A page of 70 kB takes a third of the time that level 6 takes, and 2 kB more.
_GZIP_LEVEL: Final = 1
_GZIP_FORMAT: Final = 16 + zlib.MAX_WBITS
#: Pages that are kept per report: who asks for ever other filters is to cost time, not memory.
_MOST_PAGES: Final = 8


class _Pages:
    """What was rendered of one report."""

    def __init__(self, report: Report, process: ProcessCollector) -> None:
        self.report = report
        self._process = process
        self._rendered: dict[tuple[str, bool], bytes] = {}
        self._pages: dict[tuple[tuple[str, ...], bool], _Page] = {}

    def page(self, chosen: tuple[str, ...], *, is_openmetrics: bool) -> _Page:
        page = self._pages.get((chosen, is_openmetrics))
        if page is None:
            if len(self._pages) >= _MOST_PAGES:
                self._pages.clear()
            body = b"".join(self._part(name, is_openmetrics=is_openmetrics) for name in (*chosen, ALWAYS))
            page = self._pages[chosen, is_openmetrics] = _Page(body)
        return page

    def _part(self, name: str, *, is_openmetrics: bool) -> bytes:
        part = self._rendered.get((name, is_openmetrics))
        if part is None:
            part = self._render(name, is_openmetrics=is_openmetrics)
            self._rendered[name, is_openmetrics] = part
        return part

    def _render(self, name: str, *, is_openmetrics: bool) -> bytes:
        rendered = render(tell(self.report, name), is_openmetrics=is_openmetrics)
        if name != ALWAYS:
            return rendered
        generate = generate_openmetrics if is_openmetrics else generate_text
        return rendered + generate(self._process).removesuffix(b"# EOF\n")


def choose(known: Iterable[str], collect: Sequence[str], exclude: Sequence[str]) -> tuple[str, ...]:
    """Return the parts that a scrape's ``collect[]`` and ``exclude[]`` leave, in the page's order."""
    names = tuple(known)
    if collect and exclude:
        raise ValueError("collect[] and exclude[] cannot both be given; name the parts to have, or those to leave out")
    if unknown := sorted({*collect, *exclude} - {*names}):
        raise ValueError(f"nothing here is called {', '.join(map(repr, unknown))}; there are {', '.join(names)}")
    return tuple(name for name in names if (name in collect if collect else name not in exclude))


def wants_openmetrics(accept: str) -> bool:
    """Whether a request's ``Accept`` header asks for OpenMetrics, as prometheus_client reads it."""
    try:
        _, content_type = choose_encoder(accept)
    except (TypeError, ValueError):
        # A version that is no number.
        return False
    return content_type.startswith("application/openmetrics-text")


def wants_gzip(accept_encoding: str) -> bool:
    """Whether a request's ``Accept-Encoding`` header takes gzip at least as well as no encoding (RFC 9110, 12.5.3)."""
    weights: dict[str, float] = {}
    for coding in accept_encoding.lower().split(","):
        name, *parameters = (part.strip() for part in coding.split(";"))
        weights[name] = _weight(parameters)
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
