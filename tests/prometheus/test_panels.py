"""Each panel's query, asked of a real Prometheus that scrapes replayed Sparks, says what the machine itself says."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from daemon import Daemon
from prometheus.server import Prometheus, job
from rigs import until
from test_dashboards import panels

from spark_agent.exporters.panels import VERDICT_SCOPES

pytestmark = pytest.mark.rig

#: All is measured; the GPU only; all, at a fraction of its power; a fan, and a ConnectX-7 without a cable.
MEASURED, STOCK, WEDGED, FAN = "fe-gemm", "fe-stock", "fe-wedged", "dell-cx7"
SPARKS: Final = (MEASURED, STOCK, WEDGED, FAN)
SCRAPES: Final = 40

#: What Grafana puts for its own variables: four scrapes at least, and the time that a dashboard shows.
_STEP, _RANGE = "20s", "1m"

Answer = list[tuple[dict[str, str], float]]


@dataclass(frozen=True)
class Minute:
    """A Prometheus, and all documents that each Spark told while it was scraped."""

    server: Prometheus
    documents: dict[str, list[Any]]

    def ask(self, expression: str, *machines: str) -> Answer:
        """Return what a query of a panel gives, with its variables as Grafana would put them."""
        named = "|".join(machines)
        for variable, value in (
            ("$__rate_interval", _STEP),
            ("$__range", _RANGE),
            ("$job", named),
            ("$instance", named),
        ):
            expression = expression.replace(variable, value)
        return self.server.query(expression)

    def told(self, machine: str, read: Callable[[Any], Any]) -> list[Any]:
        """Return what was told of something, report after report."""
        return [read(document) for document in self.documents[machine]]


class _Listener(threading.Thread):
    """Asks a daemon for its document, more often than it makes one."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._is_over = threading.Event()
        self.heard: list[Any] = []

    def run(self) -> None:
        while not self._is_over.wait(0.3):
            _, page = self._daemon.get("/api/v1/report")
            self.heard.append(json.loads(page))

    def end(self) -> None:
        """Stop listening."""
        self._is_over.set()
        self.join()


@pytest.fixture(scope="module")
def minute(rig: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minute]:
    """Have the Sparks scraped, and ask of one moment in the end, when the documents of that moment are there too."""
    prometheus = rig("PROMETHEUS")
    with ExitStack() as stack:
        daemons = {
            name: stack.enter_context(
                Daemon(
                    tmp_path_factory.mktemp(name),
                    f"--state.directory={tmp_path_factory.mktemp('state')}",
                    # Their timelines end after a minute, and then registers stand still.
                    "--speed=0.5",
                    machine=("--demo", name),
                )
            )
            for name in SPARKS
        }
        listeners = {name: _Listener(daemon) for name, daemon in daemons.items()}
        for name in SPARKS:
            listeners[name].start()
            stack.callback(listeners[name].end)
        server = stack.enter_context(
            Prometheus.scraping(
                prometheus,
                tmp_path_factory.mktemp("prometheus"),
                [job(name, daemon.port) for name, daemon in daemons.items()],
            )
        )
        for name in SPARKS:
            until(lambda name=name: server.scrapes(name) >= SCRAPES)  # type: ignore[misc]  # mypy infers no default's type
        at = time.time() - 2
        for listener in listeners.values():
            listener.end()
        yield Minute(replace(server, at=at), {name: listener.heard for name, listener in listeners.items()})


def queries(title: str) -> list[dict[str, Any]]:
    """Return the queries of a panel by its title; one that is on two dashboards is the same there."""
    return next(panel["targets"] for _, panel in panels() if panel["title"] == title)


#: What none of these machines has, and why.
_NOT_HERE: Final = {
    "Misreads of power found here": "no audit runs here",
    "Energy: registers over the integral of the power read, by scope": "needs a minute of both, by the Spark's clock",
    "Fans": "no built-in Spark has a fan whose speed can be believed",
}
#: … and queries of panels that otherwise show something.
_NO_SUCH_PART: Final = ("gb10_gpu_temperature_threshold_celsius",)


@pytest.mark.parametrize(("name", "panel"), [*panels()], ids=[f"{name}-{panel['title']}" for name, panel in panels()])
def test_each_panel_shows_something(minute: Minute, name: str, panel: dict[str, Any]) -> None:
    """Prometheus takes each query, and each shows something of some Spark, but for what none of them has."""
    for target in panel["targets"]:
        groups = [SPARKS] if name == "fleet" else [(spark,) for spark in SPARKS]
        shown = [one for group in groups for one in minute.ask(target["expr"], *group)]
        has_none = panel["title"] in _NOT_HERE or any(metric in target["expr"] for metric in _NO_SUCH_PART)

        assert has_none is not bool(shown), target["expr"]


def scope(name: str) -> Callable[[Any], Any]:
    """Return what reads the power of a scope in a document."""
    return lambda document: document["power"]["scopes"][name]["value"]


_TILES: Final = {
    "Adapter, DC in, measured": "dc_input",
    "System, measured": "system",
    "SoC, measured": "soc",
    "CPU and GPU, measured": "cpu_gpu",
    "CPU performance cores, measured": "cpu_performance",
    "CPU efficiency cores, measured": "cpu_efficiency",
    "GPU rail, measured": "gpu_rail",
    "GPU (NVML), measured": "gpu_nvml",
}


@pytest.mark.parametrize("spark", SPARKS)
@pytest.mark.parametrize(("title", "name"), _TILES.items())
def test_a_tile_says_what_the_machine_says(minute: Minute, spark: str, title: str, name: str) -> None:
    """The very number of some report; and nothing, not 0, where the machine does not measure the scope."""
    (target,) = queries(title)
    values = [value for _, value in minute.ask(target["expr"], spark)]
    told = minute.told(spark, scope(name))

    assert ([], 1)[told[-1] is not None] == (values if not values else len(values))
    assert {*values} <= {*told}


@pytest.mark.parametrize("spark", SPARKS)
def test_the_estimate_stands_only_where_nothing_is_measured(minute: Minute, spark: str) -> None:
    """Both of its bounds, as some report had them."""
    told = [
        (found["lower"], found["upper"])
        for found in minute.told(spark, lambda document: document["power"]["estimate"]["system"])
        if found and found["lower"] is not None
    ]
    shown = [value for target in queries("System, estimated") for _, value in minute.ask(target["expr"], spark)]

    assert (spark in {STOCK, FAN}) is bool(shown)
    assert not shown or tuple(shown) in told


@pytest.mark.parametrize("spark", SPARKS)
def test_verdicts(minute: Minute, spark: str) -> None:
    """One for each scope, which is one that was told."""
    for name, target in zip(VERDICT_SCOPES, queries("Verdict, by scope of power"), strict=True):
        ((labels, value),) = minute.ask(target["expr"], spark)
        told = minute.told(spark, lambda document: document["power"]["verdicts"])

        assert 1.0 == value
        assert labels["gb10_power_verdict"] in {verdicts[name]["verdict"] for verdicts in told}


@pytest.mark.parametrize("spark", SPARKS)
def test_headroom(minute: Minute, spark: str) -> None:
    """The number and the limit of one report, or withheld."""
    (target,) = queries("Headroom, and what binds")
    shown = [(value, labels["budget"]) for labels, value in minute.ask(target["expr"], spark)]
    told = minute.told(spark, lambda document: document["power"]["headroom"])

    assert (spark in {MEASURED, WEDGED}) is bool(shown)
    for watts, budget in shown:
        assert any(budget == one["budget"] and abs(watts - one["value"]) < 1e-6 for one in told)


@pytest.mark.parametrize("spark", SPARKS)
@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Adapter, DC in: measured power, and its limits", "dc_input"),
        ("System: measured line or estimated band, and its limits", "system"),
        ("SoC: measured power, and its limits", "soc"),
        ("Outside the SoC: what no meter tells apart, and NVIDIA's allowance for it", "rest"),
    ],
)
def test_limits_are_those_of_the_scope(minute: Minute, spark: str, title: str, name: str) -> None:
    """All that the machine tells of that scope, each with who says so, and none of another."""
    target = queries(title)[1]
    shown = {(labels["limit"], labels["origin"], value) for labels, value in minute.ask(target["expr"], spark)}
    told = {
        (limit["limit"], limit["origin"], limit["value"])
        for limit in minute.documents[spark][-1]["power"]["limits"]
        if limit["scope"] == name
    }

    assert told == shown


@pytest.mark.parametrize("spark", SPARKS)
def test_how_each_power_is_known(minute: Minute, spark: str) -> None:
    """Each scope that the document has a number of, with quality and source; what is not measured says so."""
    (target,) = queries("How each power is known: scope, quality and source")
    shown = {(one["scope"], one["quality"], one.get("source")) for one, _ in minute.ask(target["expr"], spark)}
    document = minute.documents[spark][-1]
    told = {
        (name, known["quality"], known["source"])
        for name, known in document["power"]["scopes"].items()
        if known["value"] is not None
    }
    unmeasured = {
        (name, "none", None)
        for name, verdict in document["power"]["verdicts"].items()
        if verdict["verdict"] == "unmeasured"
    }

    assert told | unmeasured == shown


def test_a_curve_s_legend_carries_how_it_is_known(minute: Minute) -> None:
    """Quality and source come from the machine, joined to the very same value."""
    target = queries("System: measured line or estimated band, and its limits")[0]
    ((labels, value),) = minute.ask(target["expr"], MEASURED)

    assert ("measured", "spbm sys_total") == (labels["quality"], labels["source"])
    assert value in minute.told(MEASURED, scope("system"))
    assert [] == minute.ask(target["expr"], STOCK)


@pytest.mark.parametrize("spark", [MEASURED, WEDGED])
def test_the_stack_is_as_high_as_the_system(minute: Minute, spark: str) -> None:
    """Its parts exclude each other and leave nothing out, so their sum is the whole."""
    parts = queries("System: what it is made of; only parts that exclude each other are stacked")
    values = [value for target in parts for _, value in minute.ask(target["expr"], spark)]

    assert len(parts) == len(values)
    assert any(abs(sum(values) - whole) < 1e-6 for whole in minute.told(spark, scope("system")))


@pytest.mark.parametrize("spark", [STOCK, FAN])
def test_nothing_is_stacked_where_nothing_is_measured(minute: Minute, spark: str) -> None:
    """An estimate is no part of it, nor is NVML's reading."""
    parts = queries("System: what it is made of; only parts that exclude each other are stacked")

    assert [] == [one for target in parts for one in minute.ask(target["expr"], spark)]


@pytest.mark.parametrize("spark", SPARKS)
def test_energy_is_told_of_each_scope_that_is_counted(minute: Minute, spark: str) -> None:
    """With how it is counted; and so is the time that is covered."""
    energy, covered, _ = queries("Energy of each scope in the time shown")
    counted = {
        (name, one["method"])
        for name, one in minute.documents[spark][-1]["power"]["energy"].items()
        if one.get("value") is not None
    }

    assert counted == {(one["scope"], one["method"]) for one, _ in minute.ask(energy["expr"], spark)}
    assert {name for name, _ in counted} <= {one["scope"] for one, _ in minute.ask(covered["expr"], spark)}


def test_nvml_against_the_rail(minute: Minute) -> None:
    """The ratio of two numbers of one report, where there are both."""
    (target,) = queries("GPU: NVML's power over the firmware's rail")
    ((_, ratio),) = minute.ask(target["expr"], MEASURED)
    told = minute.told(MEASURED, lambda document: scope("gpu_nvml")(document) / scope("gpu_rail")(document))

    assert any(abs(ratio - one) < 1e-9 for one in told)
    assert [] == minute.ask(target["expr"], STOCK)


def test_findings_that_call_for_somebody(minute: Minute) -> None:
    """Only of the Spark that is held at a fraction of its power, and none of those that are well."""
    (target,) = next(
        panel["targets"]
        for name, panel in panels()
        if name == "fleet" and panel["title"] == "Findings that call for somebody"
    )
    found = {(one["instance"], one["id"], one["severity"]) for one, _ in minute.ask(target["expr"], *SPARKS)}
    told = {
        (spark, one["id"], one["severity"])
        for spark in SPARKS
        for document in minute.documents[spark]
        for one in document["findings"]
        if one["severity"] not in {"ok", "info"}
    }

    assert (WEDGED, "capped_low", "critical") in found
    assert found <= told
    assert MEASURED not in {spark for spark, _, _ in found}


def test_a_fleet_s_sum_is_of_those_that_measure(minute: Minute) -> None:
    """Beside it stands how many are in it, and how many are not."""
    counts = [queries(title)[0]["expr"] for title in ("Sparks that answer", "System measured", "System not measured")]
    total = queries("System, measured: sum of those Sparks")[0]["expr"]
    ((_, added),) = minute.ask(total, *SPARKS)
    measured = [minute.told(spark, scope("system")) for spark in (MEASURED, WEDGED)]

    assert [4.0, 2.0, 2.0] == [value for text in counts for _, value in minute.ask(text, *SPARKS)]
    assert any(abs(added - one - other) < 1e-6 for one in measured[0] for other in measured[1])


def test_a_fleet_s_table_has_a_row_for_each(minute: Minute) -> None:
    """Its columns are of the same labels, so that rows are joined; a power that is not measured is no cell."""
    targets = queries("Each Spark: verdict of its system, and power by scope")
    columns = [{one["instance"] for one, _ in minute.ask(target["expr"], *SPARKS)} for target in targets]
    measured, estimated = {MEASURED, WEDGED}, {STOCK, FAN}

    assert [{*SPARKS}, measured, estimated, estimated, measured, {*SPARKS}, measured, {*SPARKS}] == columns
    for target in targets:
        for labels, _ in minute.ask(target["expr"], *SPARKS):
            assert {*labels} <= {"job", "instance", "gb10_power_verdict", "budget"}


def test_memory_that_can_still_be_had(minute: Minute) -> None:
    """As the document has it: by NVIDIA's rule, and what the kernel has available."""
    allocatable, available, *_ = queries("Memory, shared by CPU and GPU: what can still be had")
    for target, key in ((allocatable, "allocatable_bytes"), (available, "available_bytes")):
        ((_, value),) = minute.ask(target["expr"], MEASURED)
        assert value in {memory[key] for memory in minute.told(MEASURED, lambda document: document["memory"])}


def test_cores_are_told_by_type(minute: Minute) -> None:
    """The highest frequency of each type, by a join that loses no core."""
    (target,) = queries("CPU: highest frequency, by core type")
    shown = {labels["core_type"]: value for labels, value in minute.ask(target["expr"], MEASURED)}
    cores = minute.documents[MEASURED][-1]["cpu"]["cores"]

    assert {"performance", "efficiency"} == {*shown}
    for kind, value in shown.items():
        assert value <= max(core["max_hertz"] for core in cores if core["core_type"] == kind)
