"""What Prometheus reads: names, types and labels, what must never be there, and how a page comes to a scraper."""

import dataclasses
import gzip
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from demo import demo_report
from hypothesis import given
from hypothesis import strategies as st
from looks import HEALTHY, OTHER, SPARK, found, misheard, watts
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics import exposition as client
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from spark_agent.agent import cli
from spark_agent.agent.auditor import Tally
from spark_agent.agent.budget import Standing
from spark_agent.agent.history import History
from spark_agent.agent.machine import demos
from spark_agent.agent.report import Report, report
from spark_agent.agent.snapshot import Status
from spark_agent.collectors import (
    Absence,
    Fact,
    Item,
    Kind,
    Property,
    Quality,
    Quantity,
    Reading,
    Reason,
    Scope,
    Section,
    Unit,
    cpu,
    declarations,
    fan,
    gpu,
    nic,
    spbm,
)
from spark_agent.collectors._untrusted import SIGNAL
from spark_agent.exporters import prometheus
from spark_agent.exporters.document import document
from spark_agent.exporters.prometheus import (
    ALWAYS,
    BUILD,
    DERIVED,
    DURATION,
    OPENMETRICS,
    TEXT,
    Exposition,
    Family,
    Samples,
    Type,
    choose,
    families,
    parts,
    plan,
    plans,
    render,
    tell,
    text,
    wants_gzip,
    wants_openmetrics,
)

GOLDEN = Path(__file__).parent / "golden"
#: What Prometheus sends, as version 3 has it.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)

Told = Iterable[tuple[Family, Samples]]

openmetrics: Callable[[Any], bytes] = client.generate_latest


class _Registry:
    """Families as prometheus_client would have collected them."""

    def __init__(self, told: Told) -> None:
        self._told = list(told)

    def collect(self) -> Iterator[Metric]:
        for family, samples in self._told:
            metric = Metric(family.name, family.help, family.type.value, family.unit)
            for values, value in samples.items():
                labels = {name: text for name, text in zip(family.labels, values, strict=True) if text}
                metric.add_sample(family.metric, labels, value)
            if samples:
                yield metric


def _lines(page: bytes) -> list[tuple[bytes, float | None]]:
    """Return each line byte for byte, but for numbers, which have several spellings."""
    cut = (line.rpartition(b" ") for line in page.split(b"\n"))
    return [(b" ".join((line, end)), None) if line[:1] in (b"#", b"") else (line, float(end)) for line, _, end in cut]


def _looked(*items: Item, **others: Any) -> Report:
    return report(found(*items, **others))


def _samples(of: Report) -> dict[str, float]:
    """Return each series of a report and its value."""
    lines = [line for line in text(of).decode().splitlines() if not line.startswith("#")]
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


def _every_family() -> list[Family]:
    """Return every family that any machine may have."""
    of_plans = [
        *(family for plan in plans().values() for family, _ in plan.numbers),
        *(family for plan in plans().values() for family, _ in plan.infos),
        *(family for plan in plans().values() for family, _ in plan.switches),
        *(family for plan in plans().values() for family, _ in plan.states),
    ]
    return [*of_plans, *(family for group in DERIVED.values() for family in group)]


class TestGolden:
    """What each demo looks like to Prometheus."""

    @pytest.mark.parametrize("name", demos())
    def test_scrape(self, name: str, golden: Callable[[str, str], None]) -> None:
        """A recorded machine always gives the same metrics, but for times and versions of the agent."""
        steady = (
            (family, samples) for family, samples in families(demo_report(name)) if family not in (BUILD, DURATION)
        )

        golden(f"{name}.prom", render(steady, is_openmetrics=False).decode())

    @pytest.mark.parametrize("name", demos())
    def test_promtool_finds_nothing(self, name: str, rig: Callable[[str], str]) -> None:
        """Prometheus' own linter is content, and says nothing."""
        command = [rig("PROMTOOL"), "check", "metrics"]
        page = (GOLDEN / f"{name}.prom").read_bytes()
        done = subprocess.run(command, input=page, capture_output=True, timeout=60, check=False)

        assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)


class TestOthers:
    """What the daemon tells of other exporters, and of the audit."""

    REPORT = dataclasses.replace(
        misheard("system_power_watts", 'node_power_watts{tray="1"}'),
        audit=Tally({"PWR001": 2, "PWR002": 0}, 1, 1_800_000_000.0),
    )

    def test_each_is_a_series(self) -> None:
        """Rules that found nothing too; a series of another exporter is a label, escaped."""
        page = text(self.REPORT).decode()

        assert re.findall(r"^spark_agent_(?:misread|audit).*", page, re.MULTILINE) == [
            r'spark_agent_misread{kind="floor",series="node_power_watts{tray=\"1\"}"} 1.0',
            'spark_agent_misread{kind="floor",series="system_power_watts"} 1.0',
            'spark_agent_misread_exporter_success{exporter="http://x/metrics"} 1.0',
            'spark_agent_misread_exporter_success{exporter="http://y/metrics"} 0.0',
            'spark_agent_audit_findings{rule="PWR001"} 2.0',
            'spark_agent_audit_findings{rule="PWR002"} 0.0',
            "spark_agent_audit_errors 1.0",
            "spark_agent_audit_timestamp_seconds 1800000000.0",
        ]

    def test_pages_are_as_prometheus_client_writes_them(self) -> None:
        """In both formats, escapes and all."""
        told = list(families(self.REPORT))

        assert _lines(generate_text(_Registry(told))) == _lines(render(told, is_openmetrics=False))
        assert _lines(openmetrics(_Registry(told))) == _lines(render(told, is_openmetrics=True) + b"# EOF\n")

    def test_promtool_finds_nothing(self, rig: Callable[[str], str]) -> None:
        """Prometheus' own linter is content, and says nothing."""
        command = [rig("PROMTOOL"), "check", "metrics"]
        done = subprocess.run(command, input=text(self.REPORT), capture_output=True, timeout=60, check=False)

        assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)


class TestFormat:
    """Bytes on the wire. prometheus_client, which writes and parses them too, is the judge."""

    @pytest.mark.parametrize("name", demos())
    def test_pages_are_as_prometheus_client_writes_them(self, name: str) -> None:
        """Written here for speed, both formats are what the reference implementation writes."""
        told = list(families(demo_report(name)))

        assert _lines(generate_text(_Registry(told))) == _lines(render(told, is_openmetrics=False))
        assert _lines(openmetrics(_Registry(told))) == _lines(render(told, is_openmetrics=True) + b"# EOF\n")

    @given(
        help_=st.text(st.characters(exclude_categories=["Cs"])),
        value=st.floats(allow_nan=False, allow_infinity=False),
        labels=st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]))] * 2),
        type_=st.sampled_from(Type),
    )
    def test_any_text_and_number(self, help_: str, value: float, labels: tuple[str, str], type_: Type) -> None:
        """Quotes, backslashes, line ends and odd numbers are escaped as the formats want it."""
        told: list[tuple[Family, Samples]] = [(Family("gb10_it", type_, help_, ("b", "a")), {labels: value})]

        assert _lines(generate_text(_Registry(told))) == _lines(render(told, is_openmetrics=False))
        assert _lines(openmetrics(_Registry(told))) == _lines(render(told, is_openmetrics=True) + b"# EOF\n")

    def test_a_name_that_is_no_text(self) -> None:
        """A file's name of any bytes is told, and two of them stay apart."""
        speeds = [Reading(fan.SPEED, 1.0, os.fsdecode(name)) for name in (b"\xff", b"\xfe")]

        page = text(_looked(*speeds)).decode()

        assert r'gb10_fan_speed_rpm{fan="\\udcff"} 1.0' in page
        assert r'gb10_fan_speed_rpm{fan="\\udcfe"} 1.0' in page

    @pytest.mark.parametrize("name", demos())
    @pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (PROMETHEUS, parse_openmetrics)])
    def test_pages_are_parsed(self, name: str, accept: str, parse: Callable[[str], Iterable[Metric]]) -> None:
        """The reference parsers read whole pages, and find each series once."""
        page, _ = Exposition().page(demo_report(name), 0.5, accept)
        series = [
            (sample.name, *sorted(sample.labels.items()))
            for metric in parse(page.decode())
            for sample in metric.samples
        ]

        assert len({*series}) == len(series)
        assert {one[0] for one in series} >= {"gb10_platform_info", "gb10_power_verdict", "process_cpu_seconds_total"}

    def test_a_family_without_a_sample_is_not_there(self) -> None:
        """No HELP and no TYPE of what this machine has not got."""
        page = text(_looked(OTHER, Absence(gpu.TEMPERATURE, Reason.NOT_SUPPORTED))).decode()

        assert "gb10_gpu" not in page
        assert "gb10_platform_is_spark 0.0\n" in page


class TestNames:
    """Prometheus' rules on names, held by each family that any machine may have."""

    @pytest.mark.parametrize("family", _every_family(), ids=lambda family: family.metric)
    def test_name(self, family: Family) -> None:
        """Legal, under one of two prefixes, with its base unit; only a counter says total, only an info says info."""
        assert re.fullmatch(r"(gb10|spark_agent)_[a-z0-9]+(_[a-z0-9]+)*", family.name)
        assert not family.name.endswith(("_total", "_sum", "_count", "_bucket", "_info", "_created"))
        assert family.name.endswith(family.unit)
        assert family.unit in {*(unit.words for unit in Unit), "bytes_per_second"} - {"bits_per_second"}
        assert (family.type is Type.COUNTER) == family.metric.endswith("_total")

    @pytest.mark.parametrize("family", _every_family(), ids=lambda family: family.metric)
    def test_labels(self, family: Family) -> None:
        """Legal, once each, and none that belongs to Prometheus or to its scrape configuration."""
        taken = {"le", "quantile", "instance", "job", "host", "hostname", "node", "service", "env", "zone"}

        assert len({*family.labels}) == len(family.labels)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in family.labels)
        assert not taken & {*family.labels}

    @pytest.mark.parametrize("family", _every_family(), ids=lambda family: family.metric)
    def test_help(self, family: Family) -> None:
        """One sentence or more, on one line, and where it comes from."""
        assert re.fullmatch(r"\S.+\. Source: .+\.", family.help)

    def test_a_state_set_has_its_own_label(self) -> None:
        """The label that tells the state is named like the metric, as OpenMetrics has it."""
        assert [] == [one.name for one in _every_family() if (one.type is Type.STATESET) != (one.name in one.labels)]

    def test_no_name_is_used_twice(self) -> None:
        """No two declarations make families of one name, but for a property, which has one kind of value."""
        properties = {
            family.name for plan in plans().values() for family, _ in (*plan.switches, *plan.states)
        }  # fmt: skip
        others = [family for family in _every_family() if family.name not in properties]

        assert len({family.metric for family in others}) == len(others)
        assert not properties & {family.metric for family in others}
        assert len(properties) == sum(len(plan.switches) for plan in plans().values())

    def test_no_collector_is_called_like_a_part(self) -> None:
        """What a filter names is a collector or what follows from several, never both."""
        assert not {*declarations()} & {*DERIVED}


class TestDeclarations:
    """Families follow from declarations alone."""

    DISKS = Section("disks", "Disks", entity="disk", id_key="name", metric="disk")
    SLICES = Section("disks.slices", "Slices", entity="slice", id_key="name", metric="slice", within=DISKS)

    def test_a_new_quantity(self) -> None:
        """A sensor that is declared has a family, with the labels of its section and its own."""
        of = Quantity(self.SLICES, "heat_celsius", Unit.CELSIUS, "/sys/heat", "How hot it is", labels=("end",))
        ((family, quantities),) = plan([of]).numbers

        assert (of,) == quantities
        assert ("gb10_slice_heat_celsius", Type.GAUGE, "celsius") == (family.metric, family.type, family.unit)
        assert ("disk", "slice", "end") == family.labels
        assert "How hot it is. Source: /sys/heat." == family.help

    def test_a_new_collector(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Entities of a list within another have the labels of both, and each kind of fact is told in its way."""
        spins = Quantity(self.SLICES, "spins", Unit.COUNT, "/sys/spins", "Spins.", kind=Kind.COUNTER)
        maker = Property(self.DISKS, "maker", "/sys/maker", "Who made it.")
        lamp = Property(self.DISKS, "lamp", "/sys/lamp", "Whether the lamp is on.", inventory=False)
        level = Property(self.DISKS, "level", "/sys/level", "Level.", inventory=False)
        mood = Property(self.DISKS, "mood", "/sys/mood", "Mood.", inventory=False)
        woes = Property(self.DISKS, "woes", "/sys/woes", "Woes.", inventory=False)
        serial = Property(self.DISKS, "serial", "/sys/serial", "Serial number.", private=True)
        monkeypatch.setattr(prometheus, "plans", lambda: {"fan": plan([spins, maker, lamp, level, mood, woes, serial])})
        items = (
            Reading(spins, 7, "a/b"),
            Fact(maker, "ACME", "a"),
            Fact(lamp, True, "a"),
            Fact(level, 3, "a"),
            Fact(mood, "low", "a"),
            Fact(woes, ("wet", "cold"), "a"),
            Fact(serial, "S3CR3T", "a"),
        )
        visit = found(Reading(fan.SPEED, 1, "x")).visits[0]
        snapshot = dataclasses.replace(found(), visits=(dataclasses.replace(visit, items=items),))

        told = {
            (family.metric, *values): value
            for family, samples in tell(report(snapshot), "fan")
            for values, value in samples.items()
        }

        assert {
            ("gb10_slice_spins_total", "a", "b"): 7,
            ("gb10_disk_info", "a", "ACME"): 1,
            ("gb10_disk_lamp", "a"): 1,
            ("gb10_disk_level", "a"): 3,
            ("gb10_disk_mood", "a", "low"): 1,
            ("gb10_disk_woes", "a", "wet"): 1,
            ("gb10_disk_woes", "a", "cold"): 1,
        } == told

    def test_one_family_for_both_kinds_of_core(self) -> None:
        """Declarations that share a name share HELP, which names the sources of both."""
        page = text(_looked(*watts(soc=30, cpu_performance=12, cpu_efficiency=3))).decode()

        assert 1 == page.count("# HELP gb10_cpu_power_watts ")
        assert re.search("# HELP gb10_cpu_power_watts .*labelled cpu_p; .*labelled cpu_e", page)
        assert 'gb10_cpu_power_watts{core_type="performance"} 12.0\n' in page
        assert 'gb10_cpu_power_watts{core_type="efficiency"} 3.0\n' in page

    def test_links_are_counted_in_bytes(self) -> None:
        """Prometheus' base unit is the byte, of a network as well."""
        samples = _samples(_looked(Reading(nic.SPEED, 200e9, "enp1s0f0np0")))

        assert 25e9 == samples['gb10_nic_speed_bytes_per_second{device="enp1s0f0np0"}']

    def test_what_is_not_told_twice(self) -> None:
        """A limit in force has one family, with its origin; no series of it is there without."""
        names = [family.metric for family in _every_family() if family.name == "gb10_power_limit_watts"]
        samples = _samples(_looked(SPARK, *watts(soc=100), *HEALTHY))

        assert ["gb10_power_limit_watts"] == names
        assert 140 == samples['gb10_power_limit_watts{limit="pl1",origin="firmware",scope="soc"}']


class TestAbsent:
    """What is not known has no sample."""

    @pytest.mark.parametrize("name", demos())
    def test_no_value_is_made_up(self, name: str) -> None:
        """As many samples of a quantity as there are readings that are trusted and believed."""
        of_demo = demo_report(name)
        told = {family.name: len(samples) for family, samples in families(of_demo)}
        for collector in plans().values():
            for family, quantities in collector.numbers:
                readings = [one for of in quantities for one in of_demo.snapshot.readings(of)]
                trusted = [one for one in readings if one.quality is not Quality.UNTRUSTED]
                if any(of.is_power and of.scope for of in quantities):
                    assert told[family.name] <= len(trusted)
                else:
                    assert told[family.name] == len(trusted)

    @pytest.mark.parametrize("name", demos())
    def test_no_serial_number(self, name: str) -> None:
        """Nothing that names an individual machine, wherever it might have got in."""
        of_demo = demo_report(name)
        private = {str(item.value) for item in of_demo.snapshot.items() if isinstance(item, Fact) and item.of.private}
        page = Exposition().page(of_demo, 0.5)[0].decode()

        assert private
        assert {value for value in private if value in str(document(of_demo, private=True))} == private
        assert [] == [value for value in private if value in page]

    def test_an_untrusted_reading(self) -> None:
        """What is known to mislead has no name that an alarm could use."""
        junk = Reading(SIGNAL, 5.0, "acpi_fan power1_input", quality=Quality.UNTRUSTED, note="constant")
        fast = Reading(cpu.FREQUENCY, 7.2e9, "3", quality=Quality.UNTRUSTED, note="above its maximum")
        samples = _samples(_looked(junk, fast, Reading(cpu.FREQUENCY, 2.8e9, "4")))

        assert {'gb10_cpu_frequency_hertz{cpu="4"}': 2.8e9} == {
            series: value for series, value in samples.items() if "hertz" in series or value == 5.0 or "acpi" in series
        }

    def test_processes_are_no_labels(self) -> None:
        """A process comes and goes, so it is no metric."""
        page = text(_looked(Reading(gpu.PROCESS_MEMORY, 1e9, "0/4711"), Fact(gpu.PROCESS_NAME, "vllm", "0/4711")))

        assert b"4711" not in page
        assert b"vllm" not in page

    @pytest.mark.parametrize("name", demos())
    def test_series_are_few(self, name: str) -> None:
        """A family has no more series than a machine has parts, and a label's value is short."""
        told = list(families(demo_report(name)))

        assert 1000 > sum(len(samples) for _, samples in told)
        assert [] == [family.name for family, samples in told if len(samples) > 64]
        assert 120 > max(len(value) for _, samples in told for values in samples for value in values)


class TestPower:
    """A part never poses as the whole, and no family contradicts a verdict."""

    @pytest.mark.parametrize("name", demos())
    def test_a_family_holds_one_scope(self, name: str) -> None:
        """No family of powers or energies mixes scopes, but for the two kinds of core; none holds a limit as well."""
        of_demo = demo_report(name)
        names = {family.name for family, samples in families(of_demo) if samples}
        scopes: dict[str, set[Scope | None]] = {}
        for collector in plans().values():
            for family, quantities in collector.numbers:
                if family.name in names and family.unit in ("watts", "joules"):
                    scopes[family.name] = {of.scope for of in quantities}
        mixed = {name: kinds for name, kinds in scopes.items() if len(kinds) > 1}
        whole = {name for name, kinds in scopes.items() if None in kinds}

        cores = {Scope.CPU_PERFORMANCE, Scope.CPU_EFFICIENCY}
        assert mixed in ({}, {"gb10_cpu_power_watts": cores})
        assert all("_limit_" in name for name in whole)

    def test_contradictory_powers(self) -> None:
        """A part that reads more than its whole is not told, nor is that whole; the rest is."""
        samples = _samples(_looked(SPARK, *watts(system=60, soc=90, gpu_rail=20)))

        assert 20 == samples["gb10_gpu_rail_power_watts"]
        assert not {"gb10_system_power_watts", "gb10_soc_power_watts", "gb10_power_unmeasured_watts"} & samples.keys()

    def test_a_zero_where_something_is_on(self) -> None:
        """A system that draws nothing is a dead channel, and no sample."""
        samples = _samples(_looked(SPARK, *watts(system=0, soc=20)))

        assert "gb10_system_power_watts" not in samples
        assert 20 == samples["gb10_soc_power_watts"]

    @pytest.mark.parametrize("name", demos())
    def test_metrics_and_document_agree(self, name: str) -> None:
        """Each power of the document is a sample, and each sample of a power is in the document."""
        of_demo = demo_report(name)
        scopes = document(of_demo)["power"]["scopes"]
        told = {
            of.scope: samples
            for collector in ("gpu", "spbm")
            for family, quantities in plans()[collector].numbers
            for of in quantities
            if of.unit is Unit.WATT and of.scope and "average" not in of.key
            for known, samples in families(of_demo)
            if known is family
        }
        got = {scope: scopes[scope]["value"] for scope in told}

        assert {scope for scope, value in got.items() if value is not None} == {
            scope
            for scope, samples in told.items()
            if any(not values or values[-1] in (scope.removeprefix("cpu_"), "average", "instant") for values in samples)
        }

    @pytest.mark.parametrize("name", demos())
    def test_one_verdict_per_scope(self, name: str) -> None:
        """Of all standings exactly the one that holds is 1."""
        samples = _samples(demo_report(name))
        for scope, verdict in demo_report(name).budget.verdicts.items():
            values = {
                standing: samples[f'gb10_power_verdict{{gb10_power_verdict="{standing}",scope="{scope}"}}']
                for standing in Standing
            }
            assert {standing: float(standing is verdict.standing) for standing in Standing} == values

    def test_headroom_names_its_budget(self) -> None:
        """Watts to the limit that binds first."""
        samples = _samples(_looked(SPARK, *watts(system=171, soc=130), *HEALTHY))

        assert 10 == samples['gb10_power_headroom_watts{budget="pl1"}']
        assert 41 == samples["gb10_power_unmeasured_watts"]

    def test_headroom_that_is_withheld(self) -> None:
        """Without a reading of the SoC there is no headroom, not one of 0."""
        assert not [series for series in _samples(_looked(SPARK, *watts(system=171), *HEALTHY)) if "headroom" in series]

    @pytest.mark.parametrize(
        ("powers", "ratio"),
        [
            ({"gpu_rail": 80, "gpu_nvml": 60}, 0.75),
            ({"gpu_rail": 80}, None),
            ({"gpu_nvml": 60}, None),
            ({"gpu_rail": 0, "gpu_nvml": 4}, None),
        ],
    )
    def test_ratio(self, powers: dict[str, float], ratio: float | None) -> None:
        """NVML over rail, where there are both."""
        assert ratio == _samples(_looked(SPARK, *watts(**powers))).get("gb10_gpu_nvml_power_ratio")

    def test_ratio_of_readings_that_are_apart(self) -> None:
        """NVML that hangs says what the GPU drew then, which is not held against what its rail shows now."""
        powers = watts(gpu_rail=80, gpu_nvml=60)

        assert "gb10_gpu_nvml_power_ratio" in _samples(_looked(SPARK, *powers, ages={"gpu": 1.0}))
        assert "gb10_gpu_nvml_power_ratio" not in _samples(_looked(SPARK, *powers, ages={"gpu": 5.0}))

    def test_sources(self) -> None:
        """Each power that is known says whence, by which driver, and how."""
        samples = _samples(_looked(SPARK, Fact(spbm.DRIVER, "spbm"), *watts(soc=50, gpu_nvml=9)))

        assert {
            'gb10_power_source_info{driver="spbm",quality="measured",scope="soc",source="spbm soc"}',
            'gb10_power_source_info{driver="nvml",quality="measured",scope="gpu_nvml",source="gpu gpu_nvml"}',
        } == {series for series in samples if "source_info" in series}

    def test_without_its_collectors(self) -> None:
        """A look that asked neither NVML nor the firmware has no verdict on power."""
        assert not [series for series in _samples(_looked(SPARK)) if series.startswith("gb10_power")]


class TestAgent:
    """What the agent says of itself."""

    def test_collectors(self) -> None:
        """To have nothing is no failure; to fail is no absence."""
        samples = _samples(_looked(SPARK, without={"fan": Reason.NOT_SUPPORTED, "gpu": Reason.DEVICE_LOST}))

        assert {"platform": 1, "fan": 1, "gpu": 0} == {
            name: samples[f'spark_agent_collector_success{{collector="{name}"}}'] for name in ("platform", "fan", "gpu")
        }
        assert ['spark_agent_collector_absent{collector="fan",reason="not_supported"}'] == [
            series for series in samples if "collector_absent" in series
        ]
        assert 1 == samples['gb10_finding{id="gpu_lost",severity="critical"}']

    def test_where_it_comes_from(self) -> None:
        """A machine that was made up never passes for one."""
        assert 1 == _samples(demo_report("fe-idle"))['spark_agent_machine_info{origin="synthetic"}']

    def test_no_history_in_one_look(self) -> None:
        """Counts that only a daemon has are not there, not 0."""
        ours = {family.metric for family in DERIVED[ALWAYS] if family.type is Type.COUNTER}

        assert ours
        assert not ours & {series.partition("{")[0] for series in _samples(demo_report("fe-idle"))}

    def test_history(self) -> None:
        """Each count is told, and 0 is told of what was asked and never failed."""
        history = History(
            beats=9,
            missed_beats=2,
            rejected={("gb10_soc_power_watts", "impossible"): 3},
            failures={"gpu": 4},
            starts=5,
            unclean_shutdowns=1,
            machine_unclean_shutdowns=6,
            limit_seconds={"pl1": 7.5},
            inventory_changes={"nic": 8},
        )
        of_demo = dataclasses.replace(demo_report("fe-idle"), history=history)
        names = {family.metric for family, _ in families(of_demo) if family.type is Type.COUNTER}
        samples = _samples(of_demo)

        assert {family.metric for group in DERIVED.values() for family in group if family.type is Type.COUNTER} <= names
        assert {
            "spark_agent_beats_total": 9,
            "spark_agent_beats_missed_total": 2,
            'spark_agent_samples_rejected_total{quantity="gb10_soc_power_watts",reason="impossible"}': 3,
            'spark_agent_collector_failures_total{collector="gpu"}': 4,
            'spark_agent_collector_failures_total{collector="nic"}': 0,
            "spark_agent_starts_total": 5,
            "spark_agent_unclean_shutdowns_total": 1,
            "gb10_unclean_shutdowns_total": 6,
            'gb10_power_limit_seconds_total{limit="pl1"}': 7.5,
            'spark_agent_inventory_changes_total{collector="nic"}': 8,
        }.items() <= samples.items()


class TestNegotiation:
    """Which format and encoding a request gets."""

    @pytest.mark.parametrize(
        ("accept", "expected"),
        [
            ("", TEXT),
            ("*/*", TEXT),
            ("text/html", TEXT),
            ("text/plain;version=0.0.4", TEXT),
            ("text/plain;version=1.0.0;escaping=allow-utf-8", TEXT),
            ("application/openmetrics-text", OPENMETRICS),
            (PROMETHEUS, OPENMETRICS),
            ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5", TEXT),
            ("application/openmetrics-text;version=one", TEXT),
            ("application/openmetrics-text;version=1.x\r\nX: y", TEXT),
            (";;,=,q=", TEXT),
        ],
    )
    def test_format(self, accept: str, expected: str) -> None:
        """As asked, and the old text format for whoever asks for anything else."""
        page, headers = Exposition().page(demo_report("fe-idle"), 0.5, accept)

        assert expected == dict(headers)["Content-Type"]
        assert (expected == OPENMETRICS) == wants_openmetrics(accept) == page.endswith(b"\n# EOF\n")

    @pytest.mark.parametrize(
        ("accept_encoding", "expected"),
        [
            ("gzip", True),
            ("GZIP", True),
            ("x-gzip", True),
            ("*", True),
            ("deflate, gzip;q=0.5", True),
            ("gzip;q=1.0, identity; q=0.5, *;q=0", True),
            ("gzip;q=0.001", True),
            ("", False),
            ("identity", False),
            ("deflate, br", False),
            ("gzip;q=0", False),
            ("gzip; q=0.000, *", False),
            ("gzip;q=0.5, identity", False),
            ("*;q=0", False),
            ("gzip;q=high", False),
            ("gzip;q=nan", False),
            (",;q,", False),
        ],
    )
    def test_encoding(self, accept_encoding: str, *, expected: bool) -> None:
        """Weights are minded: 0 is no, and identity may be liked better."""
        assert expected == wants_gzip(accept_encoding)

    @pytest.mark.parametrize("accept", ["", PROMETHEUS])
    def test_gzip_holds_the_same_page(self, accept: str) -> None:
        """Packed or not, a scraper reads the same; and each end of the one stream is its own."""
        exposition, of_demo = Exposition(), demo_report("fe-gemm")
        for age in (0.25, 0.5):
            plain, headers = exposition.page(of_demo, age, accept)
            packed, packed_headers = exposition.page(of_demo, age, accept, "gzip")

            assert plain == gzip.decompress(packed)
            assert len(packed) < len(plain) / 3
            assert [*headers, ("Content-Encoding", "gzip")] == packed_headers
            assert "Accept, Accept-Encoding" == dict(headers)["Vary"]


class TestFilters:
    """``collect[]`` and ``exclude[]``."""

    @staticmethod
    def _names(page: bytes) -> set[str]:
        return {line.split()[2] for line in page.decode().splitlines() if line.startswith("# TYPE")}

    def test_collect(self) -> None:
        """Only what is named, and the agent's own."""
        page, _ = Exposition().page(demo_report("fe-gemm"), 0.5, collect=["nvme", "power"])
        names = self._names(page)

        assert {"gb10_nvme_info", "gb10_power_verdict", "spark_agent_build_info", "process_open_fds"} <= names
        assert not [name for name in names if name.startswith(("gb10_gpu_info", "gb10_cpu", "gb10_finding"))]

    def test_exclude(self) -> None:
        """All but what is named."""
        whole, _ = Exposition().page(demo_report("fe-gemm"), 0.5)
        rest, _ = Exposition().page(demo_report("fe-gemm"), 0.5, exclude=["nvme"])
        gone = self._names(whole) - self._names(rest)

        assert gone
        assert {name for name in self._names(whole) if name.startswith("gb10_nvme")} == gone

    @pytest.mark.parametrize("name", demos())
    def test_parts_make_the_whole(self, name: str) -> None:
        """Each family belongs to exactly one part."""
        of_demo = demo_report(name)
        each = [family.name for part in (*parts(of_demo), ALWAYS) for family, _ in tell(of_demo, part) if _]

        assert [family.name for family, samples in families(of_demo) if samples] == each
        assert len({*each}) == len(each)

    def test_an_unknown_name(self) -> None:
        """The valid ones are listed: those that this agent reads with."""
        with pytest.raises(ValueError, match=r"nothing here is called 'disk', 'nic'; there are platform, findings$"):
            Exposition().page(_looked(SPARK), 0.5, collect=["nic", "platform", "disk"])

    def test_both(self) -> None:
        """To collect and to exclude at once is refused, as node_exporter does."""
        with pytest.raises(ValueError, match="cannot both be given"):
            choose(["a", "b"], ["a"], ["b"])

    def test_repeated(self) -> None:
        """A name that comes twice counts once, and the page keeps its order."""
        assert ("a", "c") == choose(["a", "b", "c"], ["c", "a", "c"], [])


class TestOnce:
    """What is the same for each scraper is rendered once."""

    @pytest.fixture
    def rendered(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Note each part that is rendered."""
        parts_told: list[str] = []

        def noted(of: Report, part: str) -> Iterator[tuple[Family, Samples]]:
            parts_told.append(part)
            return tell(of, part)

        monkeypatch.setattr(prometheus, "tell", noted)
        return parts_told

    def test_many_scrapers_at_once(self, rendered: list[str]) -> None:
        """Two hundred that come together cost one rendering, and get the same page."""
        exposition, of_demo, gate = Exposition(), demo_report("fe-gemm"), threading.Barrier(20)

        def scrape(_: int) -> list[bytes]:
            gate.wait(timeout=60)
            return [exposition.page(of_demo, 0.5, encoding, "gzip")[0] for encoding in ["", PROMETHEUS] * 5]

        interval = sys.getswitchinterval()
        # Threads change places within a rendering, as they would on many processors.
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(20) as pool:
                pages = {gzip.decompress(page) for group in pool.map(scrape, range(20)) for page in group}
        finally:
            sys.setswitchinterval(interval)

        assert 2 == len(pages)
        assert sorted([*parts(of_demo), ALWAYS] * 2) == sorted(rendered)

    def test_each_filter_takes_what_is_there(self, rendered: list[str]) -> None:
        """A filter costs no rendering of what another has rendered."""
        exposition, of_demo = Exposition(), demo_report("fe-gemm")
        exposition.page(of_demo, 0.5)
        known = len(rendered)
        for part in parts(of_demo):
            exposition.page(of_demo, 0.5, collect=[part])
            exposition.page(of_demo, 0.5, exclude=[part])

        assert known == len(rendered)

    def test_a_new_report_is_a_new_page(self, rendered: list[str]) -> None:
        """What was rendered of one report is told of no other, whichever comes late around a beat."""
        exposition = Exposition()
        old, new = (_looked(Reading(fan.SPEED, speed, "a")) for speed in (1000, 2000))
        pages = [exposition.page(one, 0.5)[0].decode() for one in (old, new, old, new)]

        assert [1000, 2000, 1000, 2000] == [int(float(re.findall(r"speed_rpm\S+ (\S+)", page)[0])) for page in pages]
        assert ["fan", "findings", ""] * 2 == rendered

    def test_memory_is_bounded(self) -> None:
        """Ever other filters and reports leave no more behind than a few."""
        exposition = Exposition()
        for _ in range(5):
            of = dataclasses.replace(demo_report("fe-idle"))
            for part in parts(of):
                exposition.page(of, 0.5, accept_encoding="gzip", collect=[part])
                exposition.page(of, 0.5, accept_encoding="gzip", exclude=[part])

        assert 2 == len(exposition._last)
        assert 8 >= max(len(pages._pages) for pages in exposition._last)

    def test_age_is_the_scrape_s(self) -> None:
        """The page is kept, its age is not: that of the report, and of each collector's visit."""
        exposition = Exposition()
        of = _looked(SPARK, Reading(fan.SPEED, 1000, "a"), ages={"fan": 4.0})
        for accept in ("", PROMETHEUS):
            for age in (0.25, 7.5):
                page = exposition.page(of, age, accept)[0].decode()

                assert f"\nspark_agent_sample_age_seconds {age}\n" in page
                assert f'\nspark_agent_collector_sample_age_seconds{{collector="fan"}} {age + 4}\n' in page
                assert f'\nspark_agent_collector_sample_age_seconds{{collector="platform"}} {age}\n' in page

    def test_a_rendering_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It fails for who asked, and neither holds up nor spoils what comes after."""
        exposition, of_demo = Exposition(), demo_report("fe-idle")
        with monkeypatch.context() as broken:
            broken.setattr(prometheus, "tell", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                exposition.page(of_demo, 0.5)

        assert b"gb10_platform_info" in exposition.page(of_demo, 0.5)[0]


class TestCommand:
    """``snapshot --output prometheus``."""

    def test_it_prints_the_page(
        self, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        """The text format, of the parts that --only names, without what only a server has."""
        monkeypatch.setattr(
            "sys.argv", ["spark-agent", "--demo", "fe-gemm", "snapshot", "-o", "prometheus", "--only", "nic"]
        )
        code = cli._run()
        page = capsysbinary.readouterr().out.decode()
        names = {metric.name for metric in parse_text(page)}

        assert 0 == code
        assert {"gb10_nic_info", "spark_agent_build_info"} <= names
        assert not {"gb10_gpu_info", "spark_agent_sample_age_seconds", "process_open_fds"} & names


def test_status_covers_all_visits() -> None:
    """A status more would need a family that tells it."""
    assert {"ok", "absent", "failed"} == {*Status}
