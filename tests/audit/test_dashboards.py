"""Dashboards: what panels query, under which titles, in which units and on which scale, in all of Grafana's schemas."""

import json
from pathlib import Path
from typing import Any

import pytest

from spark_agent.agent.audit.claim import Claim, Document, Query, Shape, Unreadable
from spark_agent.agent.audit.files import read

DRAW = {"refId": "A", "expr": "sum(gpu_watts)", "legendFormat": "{{gpu}}"}


def _panel(**more: Any) -> dict[str, Any]:
    return {"type": "timeseries", "id": 7, "title": "Draw", "targets": [DRAW], **more}


def _dashboard(*panels: Any, **more: Any) -> dict[str, Any]:
    return {"title": "Power", "schemaVersion": 39, "panels": list(panels), **more}


def _read(tmp_path: Path, value: Any) -> list[Document | Unreadable]:
    path = tmp_path / "power.json"
    path.write_text(json.dumps(value, indent=2))
    return list(read([str(path)]))


def _claims(tmp_path: Path, value: Any) -> tuple[Claim, ...]:
    (document,) = _read(tmp_path, value)
    assert isinstance(document, Document), document
    return document.claims


def _claim(tmp_path: Path, **panel: Any) -> Claim:
    (claim,) = _claims(tmp_path, _dashboard(_panel(**panel)))
    return claim


def test_a_panel_is_a_claim(tmp_path: Path) -> None:
    """A panel says its titles, description, unit, scale and steps, and where all this stands."""
    defaults = {
        "unit": "watt",
        "min": 0,
        "max": 300,
        "thresholds": {"mode": "absolute", "steps": [{"value": None}, {"value": 250}, {"value": 280.5}]},
    }
    value = _dashboard(
        {"type": "row", "title": "Box"},
        _panel(description="All of it", fieldConfig={"defaults": defaults, "overrides": []}),
        tags=["spark"],
    )

    assert _claims(tmp_path, value) == (
        Claim(
            Shape.PANEL,
            'dashboard "Power" › row "Box" › panel "Draw" (7)',
            ("panels", 1),
            "Draw",
            (Query("sum(gpu_watts)", ("panels", 1, "targets", 0, "expr"), "{{gpu}}"),),
            description="All of it",
            context=("Power", "Box", "spark"),
            unit="watt",
            minimum=0,
            maximum=300,
            thresholds=(250, 280.5),
        ),
    )


def test_panels_know_their_lines(tmp_path: Path) -> None:
    """Lines are found in JSON too, past texts that look like brackets, quotes and keys."""
    path = tmp_path / "power.json"
    path.write_text(
        '{"title": "a \\"} ] , {\\\\",\n'
        ' "schemaVersion": 39, "expr": "no",\n'
        ' "panels": [\n'
        '  {"title": "expr\\u0022: [", "targets": [\n'
        '    {"refId": "A", "expr": "one"},\n'
        '    {"expr": "\\u00fc", "x": {"expr": []},\n'
        '     "expr":\n'
        '       "two"}]},\n'
        '  {"targets": [{"expr": "three"}]}]}\n'
    )
    (document,) = read([str(path)])
    assert isinstance(document, Document)

    assert [("one", 5), ("two", 8), ("three", 9)] == [
        (query.expr, document.line_of(query.at)) for claim in document.claims for query in claim.queries
    ]
    assert [4, 9] == [document.line_of(claim.at) for claim in document.claims]
    assert [None, None] == [document.line_of(at) for at in (("panels", 9), ("title", "x"))]


def test_rows(tmp_path: Path) -> None:
    """A panel belongs to the row above it, or to the one that holds it; in the old schema all are held by rows."""
    new = _dashboard(
        _panel(title="none"),
        {"type": "row", "title": "GPU", "collapsed": True, "panels": [_panel(title="within")]},
        {"type": "row", "title": "Box"},
        _panel(title="below"),
    )
    old = {"title": "Power", "schemaVersion": 14, "rows": [{"title": "GPU", "panels": [_panel(title="held")]}]}

    assert {"none": ("Power",), "within": ("Power", "GPU"), "below": ("Power", "Box")} == {
        claim.title: claim.context for claim in _claims(tmp_path, new)
    }
    assert [(("Power", "GPU"), ("rows", 0, "panels", 0))] == [
        (claim.context, claim.at) for claim in _claims(tmp_path, old)
    ]


def test_rows_by_place(tmp_path: Path) -> None:
    """Grafana goes by the place on the grid, not by the order in the file."""
    value = _dashboard(
        _panel(title="below", gridPos={"x": 0, "y": 9}),
        {"type": "row", "title": "Box", "gridPos": {"x": 0, "y": 8}},
        _panel(title="above", gridPos={"x": 0, "y": 0}),
    )

    assert [("above", ("Power",)), ("below", ("Power", "Box"))] == [
        (claim.title, claim.context) for claim in _claims(tmp_path, value)
    ]


@pytest.mark.parametrize(
    ("panel", "expected"),
    [
        (
            {
                "type": "graph",
                "yaxes": [{"format": "watt", "max": "600", "min": "0"}, {"format": "celsius"}],
                "thresholds": [{"value": 400, "op": "gt"}, {"value": 500}],
                "fieldConfig": {"defaults": {"unit": "short"}},
            },
            ("watt", 0, 600, (400, 500)),
        ),
        ({"type": "graph", "yaxes": [{"format": "short", "max": None}]}, ("short", None, None, ())),
        (
            {
                "type": "singlestat",
                "format": "watt",
                "thresholds": "75,90",
                "gauge": {"show": True, "minValue": 0, "maxValue": 100},
            },
            ("watt", 0, 100, (75, 90)),
        ),
        (
            {"type": "singlestat", "format": "watt", "thresholds": "", "gauge": {"show": False, "maxValue": 100}},
            ("watt", None, None, ()),
        ),
        (
            {
                "type": "gauge",
                "options": {
                    "fieldOptions": {
                        "defaults": {"unit": "watt", "max": 240, "min": 0},
                        "thresholds": [{"index": 0, "value": None}, {"index": 1, "value": 200}],
                    }
                },
            },
            ("watt", 0, 240, (200,)),
        ),
        (
            {
                "fieldConfig": {
                    "defaults": {"unit": "watt", "thresholds": {"mode": "percentage", "steps": [{"value": 80}]}}
                }
            },
            ("watt", None, None, ()),
        ),
        ({"type": "heatmap", "options": {"yAxis": {"unit": "joule", "max": "9"}}}, ("joule", None, 9, ())),
        ({"fieldConfig": {"defaults": {"unit": "", "max": float("1e999"), "min": True}}}, (None, None, None, ())),
    ],
)
def test_units_and_scales(tmp_path: Path, panel: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """Each kind of panel has had its own place for unit, scale and steps; steps in percent of the scale are none."""
    text = json.dumps(_dashboard(_panel(**panel))).replace("Infinity", "1e999")
    path = tmp_path / "power.json"
    path.write_text(text)
    (document,) = read([str(path)])
    assert isinstance(document, Document)
    (claim,) = document.claims

    assert expected == (claim.unit, claim.minimum, claim.maximum, claim.thresholds)


def test_a_unit_of_one_query(tmp_path: Path) -> None:
    """An override by letter or legend gives one query its own unit, and so does the right axis of a graph."""
    targets = [{"refId": name, "expr": "x", "legendFormat": f"the {name}"} for name in "ABC"]
    overrides = [
        {"matcher": {"id": "byFrameRefID", "options": "A"}, "properties": [{"id": "unit", "value": "celsius"}]},
        {
            "matcher": {"id": "byName", "options": "the B"},
            "properties": [{"id": "color"}, {"id": "unit", "value": "joule"}],
        },
    ]
    new = _claim(tmp_path, targets=targets, fieldConfig={"defaults": {"unit": "watt"}, "overrides": overrides})
    old = _claim(
        tmp_path,
        type="graph",
        targets=targets,
        yaxes=[{"format": "watt"}, {"format": "percent"}],
        seriesOverrides=[{"alias": "the C", "yaxis": 2}],
    )

    assert ["celsius", "joule", None] == [query.unit for query in new.queries]
    assert [None, None, "percent"] == [query.unit for query in old.queries]


@pytest.mark.parametrize(
    ("panel", "expected"),
    [
        ({"nullPointMode": "null as zero"}, '"nullPointMode": "null as zero"'),
        ({"fieldConfig": {"defaults": {"nullValueMode": "null as zero"}}}, '"nullValueMode": "null as zero"'),
        ({"fieldConfig": {"defaults": {"noValue": "0"}}}, '"noValue": "0"'),
        ({"fieldConfig": {"defaults": {"noValue": "-"}}}, None),
        (
            {
                "fieldConfig": {
                    "defaults": {
                        "mappings": [{"type": "special", "options": {"match": "null+nan", "result": {"text": "0"}}}]
                    }
                }
            },
            '"mappings": null to "0"',
        ),
        (
            {
                "fieldConfig": {
                    "defaults": {
                        "mappings": [{"type": "special", "options": {"match": "null", "result": {"text": "N/A"}}}]
                    }
                }
            },
            None,
        ),
        ({"type": "singlestat", "valueMaps": [{"op": "=", "text": "0", "value": "null"}]}, '"mappings": null to "0"'),
        ({"nullPointMode": "connected"}, None),
    ],
)
def test_what_shows_nothing_as_zero(tmp_path: Path, panel: dict[str, Any], expected: str | None) -> None:
    """What turns an absent value into 0 outside the query is told as it is written."""
    assert expected == _claim(tmp_path, **panel).zero_filled


def test_other_data_sources(tmp_path: Path) -> None:
    """A query to a data source of another type is none of PromQL; one that is not known may be."""
    targets = [
        {"datasource": {"type": "prometheus", "uid": "x"}, "expr": "a"},
        {"datasource": {"type": "loki", "uid": "x"}, "expr": "b"},
        {"datasource": {"type": "influxdb"}, "query": "c"},
        {"datasource": "${DS_LOGS}", "expr": "d"},
        {"datasource": "${DS_METRICS}", "expr": "e"},
        {"datasource": "$source", "expr": "f"},
        {"rawSql": "SELECT g"},
        {"target": "graphite.h"},
        {"datasource": {"type": "datasource", "uid": "-- Dashboard --"}, "panelId": 2},
        {"datasource": {"type": "prometheus"}, "expr": ""},
        {"expr": "i"},
        {"datasource": "Logs", "expr": '{app="x"} |= "j"'},
    ]
    inputs = [
        {"name": "DS_LOGS", "type": "datasource", "pluginId": "loki"},
        {"name": "DS_METRICS", "type": "datasource", "pluginId": "prometheus"},
    ]
    value = _dashboard(_panel(datasource={"type": "mixed", "uid": "-- Mixed --"}, targets=targets), __inputs=inputs)
    (claim,) = _claims(tmp_path, value)

    assert {
        "a": None,
        "b": "loki",
        "c": "influxdb",
        "d": "loki",
        "e": None,
        "f": None,
        "SELECT g": "sql",
        "graphite.h": "graphite",
        "i": None,
        '{app="x"} |= "j"': "loki",
    } == {query.expr: query.foreign for query in claim.queries}


def test_the_panels_data_source(tmp_path: Path) -> None:
    """A query that names no data source has that of its panel."""
    assert ["loki"] == [query.foreign for query in _claim(tmp_path, datasource={"type": "loki"}).queries]


def test_hidden_queries(tmp_path: Path) -> None:
    """What is hidden is claimed only if an expression makes something of it; the expression itself is no PromQL."""
    targets = [
        {"refId": "A", "expr": "used", "hide": True},
        {"refId": "B", "expr": "unused", "hide": True},
        {"refId": "AA", "expr": "neither", "hide": True},
        {"refId": "C", "datasource": {"type": "__expr__", "uid": "__expr__"}, "type": "math", "expression": "$A * 2"},
        {"refId": "D", "expr": "shown", "legendFormat": "__auto"},
    ]

    assert [("used", ""), ("shown", "")] == [
        (query.expr, query.legend) for query in _claim(tmp_path, targets=targets).queries
    ]


def test_variables_with_one_value(tmp_path: Path) -> None:
    """Constants, text boxes and lists of one are known; what a reader chooses is not."""
    listed = [
        {"type": "constant", "name": "max", "query": "240"},
        {"type": "constant", "name": "price", "query": "${VAR_PRICE}"},
        {"type": "textbox", "name": "limit", "query": "1", "current": {"value": "140"}},
        {"type": "custom", "name": "unit", "query": "watts : W"},
        {"type": "custom", "name": "either", "query": "a,b", "current": {"value": "a"}},
        {"type": "query", "name": "host", "query": "label_values(up, instance)"},
    ]
    value = _dashboard(
        _panel(), templating={"list": listed}, __inputs=[{"name": "VAR_PRICE", "type": "constant", "value": "0.3"}]
    )

    assert [{"max": "240", "price": "0.3", "limit": "140", "unit": "W"}] == [
        claim.variables for claim in _claims(tmp_path, value)
    ]


def test_a_repeated_panel(tmp_path: Path) -> None:
    """One for each value of a variable, alone or with its row: the place says so."""
    (below,) = _claims(tmp_path, _dashboard({"type": "row", "title": "Box", "repeat": "node"}, _panel()))

    assert 'dashboard "Power" › panel "Draw" (7, for each $host)' == _claim(tmp_path, repeat="host").where
    assert 'dashboard "Power" › row "Box" › panel "Draw" (7, for each $node)' == below.where


def test_an_alert_in_a_panel(tmp_path: Path) -> None:
    """Graph panels had alerts of their own: with a name, a message and a limit, over some of the queries."""
    alert = {
        "name": "Too much",
        "message": "The box is at its limit",
        "conditions": [
            {"evaluator": {"type": "gt", "params": [240, 0]}, "query": {"params": ["B", "5m", "now"]}},
            {"evaluator": {"type": "outside_range", "params": [1, 2]}, "query": {"params": ["B", "5m", "now"]}},
        ],
    }
    targets = [{"refId": "A", "expr": "a"}, {"refId": "B", "expr": "b"}]
    value = _dashboard(_panel(type="graph", yaxes=[{"format": "watt"}], targets=targets, alert=alert))
    _, claim = _claims(tmp_path, value)

    assert (Shape.ALERT, "Too much", ("b",), "The box is at its limit", ("Power", "Draw"), "watt", (240, 1, 2)) == (
        claim.shape,
        claim.title,
        tuple(query.expr for query in claim.queries),
        claim.description,
        claim.context,
        claim.unit,
        claim.thresholds,
    )


@pytest.mark.parametrize("as_list", [False, True])
def test_library_panels_of_an_export(tmp_path: Path, as_list: bool) -> None:
    """An export brings its library panels along, by uid or as a list; one that is missing is told."""
    element = {
        "uid": "u1",
        "name": "Shared",
        "kind": 1,
        "model": {"type": "stat", "title": "Shared", "targets": [DRAW]},
    }
    value = _dashboard(
        {"id": 1, "libraryPanel": {"uid": "u1", "name": "Shared"}},
        {"id": 2, "title": "Here", "libraryPanel": {"uid": "u2", "name": "Gone"}},
        __elements=[element] if as_list else {"u1": element},
    )
    document, unreadable = _read(tmp_path, value)
    assert isinstance(document, Document)
    (claim,) = document.claims

    assert ('dashboard "Power" › panel "Shared" (1)', "sum(gpu_watts)") == (claim.where, claim.queries[0].expr)
    assert ("__elements", 0 if as_list else "u1", "model", "targets", 0, "expr") == claim.queries[0].at
    assert isinstance(unreadable, Unreadable)
    assert unreadable.message.endswith(
        'dashboard "Power" › panel "Here" (2) is the library panel "Gone", which this file does not hold'
    )


def test_a_library_panel_alone(tmp_path: Path) -> None:
    """A library panel that was exported by itself is one claim."""
    value = {"name": "Shared", "kind": 1, "model": {"type": "stat", "targets": [DRAW]}}

    assert [('panel "Shared"', ("model", "targets", 0, "expr"))] == [
        (claim.where, claim.queries[0].at) for claim in _claims(tmp_path, value)
    ]


@pytest.mark.parametrize(
    ("wrap", "at"),
    [
        (lambda inner: {"dashboard": inner, "meta": {"folderTitle": "Sparks"}}, ("dashboard",)),
        (lambda inner: [{"dashboard": inner, "meta": {"folderTitle": "Sparks"}}], (0, "dashboard")),
    ],
)
def test_answers_of_the_api(tmp_path: Path, wrap: Any, at: tuple[str | int, ...]) -> None:
    """What the API says of a dashboard has the folder besides."""
    (claim,) = _claims(tmp_path, wrap(_dashboard(_panel())))

    assert (("Sparks", "Power"), (*at, "panels", 0)) == (claim.context, claim.at)


@pytest.mark.parametrize("kind", ["GrafanaDashboard", "Dashboard"])
def test_a_dashboard_as_a_resource(tmp_path: Path, kind: str) -> None:
    """Grafana's operator has the dashboard as a text, and Grafana's own API as it is."""
    inner = _dashboard(_panel())
    spec = {"json": json.dumps(inner)} if kind == "GrafanaDashboard" else inner
    value = {"apiVersion": "x/v1", "kind": kind, "spec": spec}

    assert ["Draw"] == [claim.title for claim in _claims(tmp_path, value)]


def _second(version: str) -> dict[str, Any]:
    query = {"kind": "DataQuery", "group": "prometheus", "spec": {"expr": "sum(gpu_watts)", "legendFormat": "all"}}
    display: dict[str, Any] = {"kind": "VizConfig", "group": "stat"}
    if version == "v2alpha1":
        query = {"kind": "prometheus", "spec": query["spec"]}
        display = {"kind": "stat"}
    defaults = {
        "unit": "watt",
        "max": 240,
        "thresholds": {"mode": "absolute", "steps": [{"value": None}, {"value": 9}]},
    }
    panel = {
        "kind": "Panel",
        "spec": {
            "id": 3,
            "title": "Draw",
            "description": "All of it",
            "data": {
                "kind": "QueryGroup",
                "spec": {
                    "queries": [
                        {"kind": "PanelQuery", "spec": {"refId": "A", "hidden": False, "query": query}},
                        {
                            "kind": "PanelQuery",
                            "spec": {
                                "refId": "B",
                                "query": {"kind": "DataQuery", "group": "loki", "spec": {"expr": "l"}},
                            },
                        },
                    ]
                },
            },
            "vizConfig": {**display, "spec": {"fieldConfig": {"defaults": defaults, "overrides": []}}},
        },
    }
    item = {"kind": "GridLayoutItem", "spec": {"element": {"kind": "ElementReference", "name": "panel-3"}}}
    row = {
        "kind": "RowsLayoutRow",
        "spec": {
            "title": "Box",
            "repeat": {"mode": "variable", "value": "host"},
            "layout": {"kind": "GridLayout", "spec": {"items": [item]}},
        },
    }
    tab = {
        "kind": "TabsLayoutTab",
        "spec": {"title": "Spark", "layout": {"kind": "RowsLayout", "spec": {"rows": [row]}}},
    }
    return {
        "title": "Power",
        "tags": ["dgx"],
        "variables": [{"kind": "ConstantVariable", "spec": {"name": "max", "query": "240"}}],
        "elements": {"panel-3": panel},
        "layout": {"kind": "TabsLayout", "spec": {"tabs": [tab]}},
    }


@pytest.mark.parametrize("version", ["v2alpha1", "v2beta1"])
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_the_second_schema(tmp_path: Path, version: str, is_wrapped: bool) -> None:
    """Elements are panels; the layout says under which tabs and rows they stand."""
    spec = _second(version)
    wrapped = {"apiVersion": f"dashboard.grafana.app/{version}", "kind": "Dashboard", "metadata": {}, "spec": spec}
    at = (("spec",) if is_wrapped else ()) + ("elements", "panel-3", "spec")
    queries_at = (*at, "data", "spec", "queries")

    assert _claims(tmp_path, wrapped if is_wrapped else spec) == (
        Claim(
            Shape.PANEL,
            'dashboard "Power" › row "Spark" › row "Box" › panel "Draw" (3, for each $host)',
            at,
            "Draw",
            (
                Query("sum(gpu_watts)", (*queries_at, 0, "spec", "query", "spec", "expr"), "all"),
                Query("l", (*queries_at, 1, "spec", "query", "spec", "expr"), foreign="loki"),
            ),
            description="All of it",
            context=("Power", "Spark", "Box", "dgx"),
            unit="watt",
            maximum=240,
            thresholds=(9,),
            variables={"max": "240"},
        ),
    )


def test_alerts_of_grafana(tmp_path: Path) -> None:
    """Rules that Grafana evaluates: queries with a limit in an expression, of a file or of the API."""
    rule: dict[str, Any] = {
        "uid": "x",
        "title": "Box too hot",
        "condition": "C",
        "data": [
            {
                "refId": "A",
                "datasourceUid": "abc",
                "model": {"refId": "A", "expr": "gpu_watts", "datasource": {"type": "prometheus"}},
            },
            {"refId": "B", "datasourceUid": "__expr__", "model": {"type": "reduce", "expression": "A"}},
            {
                "refId": "C",
                "datasourceUid": "__expr__",
                "model": {
                    "type": "threshold",
                    "expression": "B",
                    "conditions": [{"evaluator": {"type": "gt", "params": [240, 0]}}],
                },
            },
        ],
        "annotations": {"summary": "The box draws too much"},
        "labels": {"severity": "page"},
    }
    math = {**rule, "data": [rule["data"][0], {"refId": "C", "model": {"type": "math", "expression": "${A} > 1.5e2"}}]}
    record = {**rule, "title": "whatever", "record": {"metric": "box_watts", "from": "A"}}
    provisioned = {"apiVersion": 1, "groups": [{"name": "gpu", "folder": "Sparks", "rules": [rule, math, record]}]}
    of_api = [{**rule, "ruleGroup": "gpu", "folderUID": "f"}]
    first, second, third = _claims(tmp_path, provisioned)
    (fourth,) = _claims(tmp_path, of_api)

    assert first == Claim(
        Shape.ALERT,
        'group "gpu" › alert "Box too hot"',
        ("groups", 0, "rules", 0),
        "Box too hot",
        (Query("gpu_watts", ("groups", 0, "rules", 0, "data", 0, "model", "expr")),),
        description="The box draws too much",
        context=("Sparks", "gpu"),
        thresholds=(240,),
        labels={"severity": "page"},
    )
    assert (150,) == second.thresholds
    assert (Shape.RECORD, "box_watts") == (third.shape, third.title)
    assert (("gpu",), (0,), (240,)) == (fourth.context, fourth.at, fourth.thresholds)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"title": "P", "schemaVersion": 39, "panels": {}}, 'line 4: dashboard "P": panels is no list'),
        (_dashboard(_panel(targets={})), 'dashboard "Power" › panel "Draw" (7): targets is no list'),
        ({"elements": {"a": {"kind": "Panel"}}, "layout": {}}, 'panel "a" has no spec'),
    ],
)
def test_a_broken_dashboard(tmp_path: Path, value: Any, message: str) -> None:
    """What is ours and broken is told in one line."""
    (unreadable,) = _read(tmp_path, value)

    assert isinstance(unreadable, Unreadable)
    assert unreadable.message.endswith(message)


def test_panels_of_any_other_kind(tmp_path: Path) -> None:
    """A panel that queries nothing claims nothing; a dashboard of such is read, and empty."""
    assert () == _claims(tmp_path, _dashboard({"type": "text", "title": "Total power"}, {"type": "news"}, "x", None))


def test_odd_titles(tmp_path: Path) -> None:
    """A title with line breaks, escapes or half a letter cannot disturb a terminal, and a number is one too."""
    first, second = _claims(tmp_path, _dashboard(_panel(title="a\n\x1b[31mb\ud800"), _panel(title=240)))

    assert 'dashboard "Power" › panel "a \ufffd[31mb\ufffd" (7)' == first.where
    assert "240" == second.title
