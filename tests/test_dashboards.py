"""The dashboards: what every panel must have, that they name only what there is, and the command that writes them."""

import errno
import itertools
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Run, runner
from demo import demo_report
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard as Model
from test_metrics_reference import listed

from spark_agent.agent.budget import Standing
from spark_agent.agent.finding import Severity
from spark_agent.agent.machine import demos
from spark_agent.collectors import Scope
from spark_agent.exporters import grafana
from spark_agent.exporters.dashboards import DASHBOARDS
from spark_agent.exporters.panels import SEVERITY_COLORS, STANDING_COLORS
from spark_agent.exporters.prometheus import families
from spark_agent.exporters.promql import TARGET, Machines, Metrics, increase, known, rate, told_by

#: Data held against data, hundreds of times: no Python does that differently.
pytestmark = pytest.mark.once

FOLDER = Path(__file__).parent.parent / "dashboards"

Panel = dict[str, Any]


def models() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each dashboard as a file has it."""
    for name, dashboard in DASHBOARDS.items():
        yield name, json.loads(grafana.text(dashboard))


def panels() -> Iterator[tuple[str, Panel]]:
    """Yield each panel that is no row, with the name of its dashboard."""
    for name, model in models():
        yield from ((name, panel) for panel in model["panels"] if panel["type"] != "row")


each_dashboard = pytest.mark.parametrize(("name", "model"), [*models()], ids=[*DASHBOARDS])
every_model = pytest.mark.parametrize("model", [model for _, model in models()], ids=[*DASHBOARDS])
each_panel = pytest.mark.parametrize(
    ("name", "panel"), [*panels()], ids=[f"{name}-{panel['title']}" for name, panel in panels()]
)
every_panel = pytest.mark.parametrize(
    "panel", [panel for _, panel in panels()], ids=[f"{name}-{panel['title']}" for name, panel in panels()]
)


def expressions(panel: Panel) -> list[str]:
    """Return what a panel asks."""
    return [target["expr"] for target in panel["targets"]]


SELECTOR = re.compile(r"\b((?:gb10|spark_agent)_[a-z0-9_]+)\{([^{}]*)\}")
MATCHER = re.compile(r'([a-z_][a-z0-9_]*)(=~|!~|!=|=)"([^"]*)"')


def selectors(expression: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return the metrics that are selected, with label, operator and value of each matcher."""
    return [(metric, MATCHER.findall(inside)) for metric, inside in SELECTOR.findall(expression)]


@each_dashboard
def test_the_copy_in_the_tree_is_fresh(name: str, model: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """What a person takes from the tree is what the command writes; `--update-golden` rewrites it."""
    path = FOLDER / grafana.file_name(DASHBOARDS[name])
    if request.config.getoption("--update-golden"):
        path.write_text(grafana.text(DASHBOARDS[name]), encoding="utf-8")

    assert grafana.text(DASHBOARDS[name]) == path.read_text(encoding="utf-8")
    assert model["uid"] == path.stem


def test_nothing_else_is_in_the_tree() -> None:
    """No dashboard that is gone is left there."""
    assert sorted(grafana.file_name(one) for one in DASHBOARDS.values()) == sorted(
        path.name for path in FOLDER.iterdir()
    )


def test_the_page_explains_every_row() -> None:
    """And shows only pictures that are there, each of which `tests/grafana/draw.py` draws."""
    page = (FOLDER.parent / "docs" / "dashboards.md").read_text(encoding="utf-8")
    rows = {row.title for dashboard in DASHBOARDS.values() for row in dashboard.rows}
    shown = re.findall(r"\]\(images/(dashboard-[a-z-]+\.png)\)", page)

    assert rows == {*re.findall(r"^\| \*\*(.+)\*\* \|", page, re.MULTILINE)}
    assert sorted(shown) == sorted(path.name for path in (FOLDER.parent / "docs" / "images").glob("dashboard-*"))


class TestModel:
    """Of each dashboard as a whole."""

    @every_model
    def test_grafana_s_own_model_loses_nothing(self, model: dict[str, Any]) -> None:
        """What Grafana's SDK reads and writes again has all that we wrote, as we wrote it; it may add defaults."""
        again = json.loads(JSONEncoder().encode(Model.from_json(json.loads(json.dumps(model)))))

        assert [] == [*lost(model, again)]

    def test_the_gate_can_fail(self) -> None:
        """A key that is no key of a panel is lost, and found to be."""
        _, model = next(models())
        model["panels"][0]["gridPoz"] = model["panels"][0].pop("gridPos")
        again = json.loads(JSONEncoder().encode(Model.from_json(json.loads(json.dumps(model)))))

        assert [".panels[0].gridPoz"] == [*lost(model, again)]

    @each_dashboard
    def test_it_belongs_to_no_server(self, name: str, model: dict[str, Any]) -> None:
        """It can be edited, has no number of a server's, and every data source is a variable."""
        sources = {target["datasource"]["uid"] for target in walk(model) if "datasource" in target}

        assert ("id" not in model, True) == (True, model["editable"])
        assert {"${datasource}"} == sources
        assert ["datasource", "job", "instance"] == [one["name"] for one in model["templating"]["list"]]
        assert name == "fleet" or not any(one["multi"] for one in model["templating"]["list"])

    @every_model
    def test_links_lead_to_the_others(self, model: dict[str, Any]) -> None:
        """From each dashboard a person gets to both others."""
        there = {link["url"].split("?")[0].removeprefix("/d/") for link in model["links"]}

        assert {one.uid for one in DASHBOARDS.values()} - {model["uid"]} == there

    @every_model
    def test_no_two_panels_overlap(self, model: dict[str, Any]) -> None:
        """Each has a number and a place of its own, within the 24 columns."""
        taken: set[tuple[int, int]] = set()
        for panel in model["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert set() == cells & taken, panel["title"]
            assert place["x"] + place["w"] <= 24
            taken |= cells
        numbers = [panel["id"] for panel in model["panels"]]
        assert len(numbers) == len({*numbers})

    @every_model
    def test_titles_are_told_apart(self, model: dict[str, Any]) -> None:
        """No two panels of a dashboard have the same title."""
        titles = [panel["title"] for panel in model["panels"]]
        assert [] == [one for one, group in itertools.groupby(sorted(titles)) if len([*group]) > 1]


def lost(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Yield where ``theirs`` has not what ``ours`` has."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key not in theirs:
                yield f"{path}.{key}"
            else:
                yield from lost(value, theirs[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{path}[{at}]")
    elif ours != theirs:
        yield path


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Yield each object below."""
    if isinstance(value, dict):
        yield value
        for below in value.values():
            yield from walk(below)
    elif isinstance(value, list):
        for below in value:
            yield from walk(below)


class TestPanels:
    """Of each panel."""

    @every_panel
    def test_it_explains_itself(self, panel: Panel) -> None:
        """It has a title, a unit, what to show where there is nothing, and a description that names its metrics."""
        defaults = panel["fieldConfig"]["defaults"]

        assert panel["title"].strip()
        assert defaults["unit"]
        assert "noValue" in defaults
        for metric, _ in (one for text in expressions(panel) for one in selectors(text)):
            assert f"`{metric}`" in panel["description"]

    @each_panel
    def test_every_selector_names_its_machines(self, name: str, panel: Panel) -> None:
        """By job and instance, as the dashboard's variables say; only a fleet's may be several."""
        operator = "=~" if name == "fleet" else "="
        for text in expressions(panel):
            found = selectors(text)
            assert found
            for _, matchers in found:
                assert [("job", operator, "$job"), ("instance", operator, "$instance")] == matchers[:2]

    @every_panel
    def test_every_metric_is_inside_a_selector(self, panel: Panel) -> None:
        """None is asked of all machines by mistake."""
        for text in expressions(panel):
            outside = SELECTOR.sub("", re.sub(r"(?:by|on|group_left) \([^)]*\)", "", text))
            assert [] == re.findall(r"\b(?:gb10|spark_agent)_\w+", outside)

    @every_panel
    def test_rates_fit_the_scrapes(self, panel: Panel) -> None:
        """Over a step that has scrapes enough, or the whole time shown; a counter is never drawn as it stands."""
        for text in expressions(panel):
            assert {*re.findall(r"\[([^\]]+)\]", text)} <= {"$__rate_interval", "$__range"}
            for metric, _ in selectors(text):
                if metric.endswith("_total"):
                    assert re.search(rf"(?:rate|increase)\({metric}\{{", text)

    @every_panel
    def test_what_is_gone_is_not_shown(self, panel: Panel) -> None:
        """A number or a row is of this moment; a curve has gaps where there is nothing, and no invented line."""
        is_curve = panel["type"] == "timeseries"

        assert {(not is_curve, is_curve)} == {(one["instant"], one["range"]) for one in panel["targets"]}
        if is_curve:
            assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False
        if panel["type"] == "stat":
            assert "none" == panel["options"]["graphMode"]

    @every_panel
    def test_legends_name_labels_that_are_left(self, panel: Panel) -> None:
        """A legend's label is one of the metrics asked for, or of the machine."""
        for target in panel["targets"]:
            labels = {label for metric, _ in selectors(target["expr"]) for label in known()[metric].labels}
            wanted = {*re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])}
            assert set() == wanted - labels - {*TARGET}

    @every_panel
    def test_power_has_its_scope_in_the_title(self, panel: Panel) -> None:
        """No panel in watts or joules says "power" of it does not say what."""
        if panel["fieldConfig"]["defaults"]["unit"] in {"watt", "joule"}:
            words = r"\b(adapter|system|SoC|CPU|GPU|scopes?|headroom)\b"
            assert re.search(words, panel["title"], re.IGNORECASE)

    @every_panel
    def test_no_limit_is_typed(self, panel: Panel) -> None:
        """Limits are asked for, of the scope that is drawn; no threshold repeats one."""
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        limited = {
            {label: value for label, _, value in matchers}.get("scope")
            for text in expressions(panel)
            for metric, matchers in selectors(text)
            if metric == "gb10_power_limit_watts"
        }

        assert {step["value"] for step in steps} <= {None, 0.0}
        assert len(limited) <= 1

    @every_panel
    def test_an_estimate_is_drawn_as_one(self, panel: Panel) -> None:
        """Dashed, with a name of its own, and stacked on nothing."""
        for target in panel["targets"]:
            if panel["type"] == "timeseries" and "_estimate_" in target["expr"]:
                looks = [
                    {one["id"]: one["value"] for one in override["properties"]}
                    for override in panel["fieldConfig"]["overrides"]
                    if re.search(override["matcher"]["options"].strip("/"), target["legendFormat"])
                ]
                assert "estimate" in target["legendFormat"]
                assert ["dash"] == [look["custom.lineStyle"]["fill"] for look in looks]
                assert "none" == panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"]

    def test_only_one_panel_stacks(self) -> None:
        """That of parts which exclude each other: scopes lie in one another, and a stack of them would count twice."""
        stacked = {
            (name, panel["title"])
            for name, panel in panels()
            if panel["type"] == "timeseries"
            and panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] != "none"
        }

        assert {("watts", "System: what it is made of; only parts that exclude each other are stacked")} == stacked

    @every_panel
    def test_scopes_are_never_added(self, panel: Panel) -> None:
        """Nothing adds two metrics of power; a sum is over machines, of one metric."""
        for text in expressions(panel):
            assert " + " not in text
            for inside in re.findall(r"sum(?: by \([^)]*\))? \((.*?)\)", text):
                assert len({metric for metric, _ in selectors(inside)}) <= 1


class TestDeclarations:
    """Panels ask for what the agent can tell."""

    def test_every_metric_is_declared(self) -> None:
        """One that is renamed or gone fails here."""
        there = {family.metric for group in listed().values() for family in group}
        asked = {metric for _, panel in panels() for text in expressions(panel) for metric, _ in selectors(text)}

        assert asked
        assert set() == asked - there

    def test_every_label_is_one_of_its_metric(self) -> None:
        """As the reference of the metrics lists them."""
        there = {family.metric: family for group in listed().values() for family in group}
        for _, panel in panels():
            for metric, matchers in (one for text in expressions(panel) for one in selectors(text)):
                assert {label for label, _, _ in matchers} <= {*there[metric].labels, *TARGET}

    def test_every_label_s_value_is_one_that_there_is(self) -> None:
        """No selector waits for a word that nothing says."""
        vocabulary: dict[tuple[str, str], set[str]] = {}
        for name in demos():
            for family, samples in families(demo_report(name)):
                for values in samples:
                    for label, value in zip(family.labels, values, strict=True):
                        vocabulary.setdefault((family.metric, label), set()).add(value)
        # Told by a daemon only, with words that are declared.
        vocabulary["gb10_power_limit_seconds_total", "limit"] = vocabulary["gb10_power_limit_watts", "limit"]
        energy = ("gb10_energy_covered_seconds_total", "gb10_energy_uncovered_seconds_total")
        vocabulary |= {(metric, "scope"): {*map(str, Scope)} for metric in energy}
        vocabulary["gb10_cpu_energy_joules_total", "core_type"] = vocabulary["gb10_cpu_power_watts", "core_type"]
        vocabulary["gb10_finding", "severity"] = {*map(str, Severity)}
        for _, panel in panels():
            for metric, matchers in (one for text in expressions(panel) for one in selectors(text)):
                for label, _, value in matchers[2:]:
                    assert {*value.split("|")} <= vocabulary[metric, label], (metric, label)

    def test_every_verdict_and_severity_has_a_colour(self) -> None:
        """A new one is not drawn like any other by mistake."""
        assert {*Standing} == {*STANDING_COLORS}
        assert {*Severity} == {*SEVERITY_COLORS}


class TestPromql:
    """What builds the queries refuses what cannot be answered."""

    one = Metrics(Machines.ONE)

    def test_a_metric_that_is_not_declared(self) -> None:
        """It is an error where the dashboard is made."""
        with pytest.raises(KeyError):
            self.one("gb10_system_power")

    def test_a_label_that_a_metric_has_not(self) -> None:
        """Nor can one be joined that an info metric has not."""
        with pytest.raises(ValueError, match="gb10_soc_power_watts has no label gpu"):
            self.one("gb10_soc_power_watts", gpu="0")
        with pytest.raises(ValueError, match="gb10_cpu_cores_info has no label kind"):
            told_by(self.one("gb10_cpu_frequency_hertz"), self.one("gb10_cpu_cores_info"), "kind", on=("cpu",))

    def test_the_rate_of_a_gauge(self) -> None:
        """Only counters grow."""
        with pytest.raises(ValueError, match="is no counter"):
            rate(self.one("gb10_soc_power_watts"))

    def test_units_follow(self) -> None:
        """Joules over time are watts, and seconds over time a share."""
        energy, seconds = self.one("gb10_soc_energy_joules_total"), self.one("gb10_power_limit_seconds_total")

        assert ("watts", "joules", "ratio") == (rate(energy).unit, increase(energy).unit, rate(seconds).unit)

    def test_every_unit_of_a_declaration_has_one_in_grafana(self) -> None:
        """A unit that is new in the declarations is known here too."""
        units = {family.unit for family in known().values()}

        assert units <= {*grafana._UNITS}


class TestCommand:
    """`spark-agent dashboards`."""

    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
        return runner(monkeypatch, capsys, "dashboards")

    def test_lists_them(self, run: Run) -> None:
        """Without a name, one line for each."""
        done = run()

        assert (0, [*DASHBOARDS]) == (done.code, [line.split()[0] for line in done.out.splitlines()])

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_prints_one(self, run: Run, name: str) -> None:
        """As it stands in its file."""
        assert (0, grafana.text(DASHBOARDS[name])) == (run(name).code, run(name).out)

    def test_writes_all(self, run: Run, tmp_path: Path) -> None:
        """Into a folder that is there, readable for whoever Grafana runs as, and says which."""
        done = run("--write", tmp_path)
        paths = [tmp_path / grafana.file_name(one) for one in DASHBOARDS.values()]

        assert (0, [*map(str, paths)]) == (done.code, done.out.split())
        assert sorted(paths) == sorted(tmp_path.iterdir())
        assert {0o644} == {stat.S_IMODE(path.stat().st_mode) for path in paths}

    def test_writes_one(self, run: Run, tmp_path: Path) -> None:
        """That which is named."""
        assert 0 == run("watts", "--write", tmp_path).code
        assert ["spark-agent-watts.json"] == [path.name for path in tmp_path.iterdir()]

    def test_leaves_alone_what_is_the_same(self, run: Run, tmp_path: Path) -> None:
        """Twice is as once, and nothing is said to be written."""
        run("--write", tmp_path)

        assert (0, "") == (run("--write", tmp_path).code, run("--write", tmp_path).out)

    def test_replaces_nothing_unasked(self, run: Run, tmp_path: Path) -> None:
        """A file that differs may be somebody's work; then nothing at all is written."""
        mine = tmp_path / "spark-agent-watts.json"
        mine.write_text("{}")
        refused = run("--write", tmp_path)

        assert (3, "", f"spark-agent: {mine}: it is there already and differs; --force replaces it\n") == (
            refused.code,
            refused.out,
            refused.err,
        )
        assert ["{}"] == [path.read_text() for path in tmp_path.iterdir()]
        assert 0 == run("--write", tmp_path, "--force").code
        assert grafana.text(DASHBOARDS["watts"]) == mine.read_text()

    def test_a_full_disk(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One line names the file, and neither a half nor another file is left."""

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        done = run("fleet", "--write", tmp_path)

        assert (3, f"spark-agent: {tmp_path}/spark-agent-fleet.json: No space left on device\n") == (
            done.code,
            done.err,
        )
        assert [] == [*tmp_path.iterdir()]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("nope",), "no dashboard 'nope'; there are spark, fleet, watts"),
            (("--force",), "--force does nothing without --write"),
            (("--write", "/nonexistent"), "does not exist"),
        ],
        ids=["name", "force", "folder"],
    )
    def test_wrong_usage(self, run: Run, arguments: tuple[str, ...], said: str) -> None:
        """Is said, and nothing is written."""
        done = run(*arguments)

        assert 64 == done.code
        assert said in " ".join(done.err.split())

    def test_of_no_machine(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """A machine named before it would do nothing."""
        assert 64 == runner(monkeypatch, capsys, "--demo", "fe-gemm")("dashboards").code
