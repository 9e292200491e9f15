"""Dashboards as values, and as Grafana reads them: the classic model, `schemaVersion` 39 (Grafana 10.4 and later).

A panel's unit is that of what it asks, and its description ends in what the metrics' own declarations say of them.
A stat or a table asks for this moment, so that what is gone is gone; a curve shows gaps as gaps.

https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from spark_agent.agent.state import write_for_others
from spark_agent.exporters.promql import Expression

SCHEMA_VERSION: Final = 39
#: All of ours have it, and none but ours.
TAG: Final = "spark-agent"

_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS: Final = 24

#: Units of declarations, as Grafana calls them.
_UNITS: Final = {
    "watts": "watt",
    "joules": "joule",
    "celsius": "celsius",
    "bytes": "bytes",
    "bytes_per_second": "Bps",
    "seconds": "s",
    "hertz": "hertz",
    "rpm": "rotrpm",
    "ratio": "percentunit",
    "per_second": "cps",
    "": "none",
}


class Kind(StrEnum):
    """The panels of Grafana that are of use here."""

    STAT = "stat"
    CURVES = "timeseries"
    TABLE = "table"


class Text(StrEnum):
    """What a stat writes: the number, the legend, or both."""

    VALUE = "value"
    NAME = "name"
    BOTH = "value_and_name"


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked, and what a series of the answer is called; a table's columns have their labels' names."""

    expression: Expression
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Style:
    """How the series or columns look whose name matches: properties as Grafana names them."""

    pattern: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. ``absent`` stands where there is nothing: no number stands for what was not measured."""

    kind: Kind
    title: str
    description: str
    queries: Sequence[Query]
    width: int = 12
    height: int = 8
    absent: str = "not measured"
    #: What Grafana calls the unit, where it is not that of the first query.
    unit: str | None = None
    most: float | None = None
    styles: Sequence[Style] = ()
    is_stacked: bool = False
    #: Whether there are too many series for a legend below.
    is_crowded: bool = False
    text: Text = Text.VALUE
    #: Columns of a table, in order; others are not shown.
    columns: Mapping[str, str] = field(default_factory=dict)
    #: Steps of a value's colour: from the value on, this one.
    steps: Sequence[tuple[float | None, str]] = ((None, "text"),)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Link:
    """Another dashboard, and the variables that it takes over."""

    uid: str
    title: str
    variables: Sequence[str]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard: of one machine, or of ``many``."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    links: Sequence[Link]
    many: bool = False


def text(dashboard: Dashboard) -> str:
    """Return a dashboard as a file's content."""
    return json.dumps(model(dashboard), indent=2, ensure_ascii=False) + "\n"


def file_name(dashboard: Dashboard) -> str:
    """Return what a dashboard's file is called."""
    return f"{dashboard.uid}.json"


def write(dashboards: Iterable[Dashboard], folder: Path, *, replace: bool) -> Iterator[Path]:
    """Write dashboards into a folder, each file whole or not at all, and yield those that were written.

    What is there already and the same is left alone. What is there and differs is a `FileExistsError` before anything
    is written, unless it is to be replaced.
    """
    wanted = {folder / file_name(dashboard): text(dashboard).encode() for dashboard in dashboards}
    changed = {path: content for path, content in wanted.items() if not _holds(path, content)}
    for path in changed:
        if path.exists() and not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    for path, content in changed.items():
        try:
            write_for_others(path, content)  # Grafana runs as a user of its own
        except OSError as error:
            # It may name a file that nobody asked for.
            error.filename = str(path)
            raise
        yield path


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def model(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana's JSON model."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": [TAG, "dgx-spark", "power"],
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "annotations": {"list": []},
        "links": [_link(link) for link in dashboard.links],
        "templating": {"list": list(_variables(many=dashboard.many))},
        "panels": list(_panels(dashboard.rows)),
    }


def url(uid: str, variables: Sequence[str]) -> str:
    """Return where another dashboard is, with variables as they stand here."""
    return f"/d/{uid}?{'&'.join(f'${{{variable}:queryparam}}' for variable in variables)}"


def _link(link: Link) -> dict[str, Any]:
    return {
        "type": "link",
        "title": link.title,
        "url": url(link.uid, link.variables),
        "icon": "dashboard",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
    }


def _variables(*, many: bool) -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }
    match = 'job=~"$job"' if many else 'job="$job"'
    yield _variable("job", "Job", "label_values(spark_agent_build_info, job)", many=many)
    yield _variable("instance", "Instance", f"label_values(spark_agent_build_info{{{match}}}, instance)", many=many)


def _variable(name: str, label: str, query: str, *, many: bool) -> dict[str, Any]:
    every: dict[str, Any] = {"includeAll": False}
    if many:
        every = {"includeAll": True, "allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]}}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": f"{name}s"},
        "hide": 0,
        **every,
        "multi": many,
        "options": [],
        # When the time range changes: machines come and go.
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 5,
    }


def _panels(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    number, y = 1, 0
    for row in rows:
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": _COLUMNS, "x": 0, "y": y},
            "panels": [],
        }
        number, x, y, height = number + 1, 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y, height = 0, y + height, 0
            place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            yield _panel(panel, number, place)
            number, x, height = number + 1, x + panel.width, max(height, panel.height)
        y += height


def _panel(panel: Panel, number: int, place: Mapping[str, int]) -> dict[str, Any]:
    written: dict[str, Any] = {
        "id": number,
        "type": str(panel.kind),
        "title": panel.title,
        "description": _description(panel),
        "datasource": _DATASOURCE,
        "gridPos": place,
        "targets": [_target(panel, query, chr(ord("A") + at)) for at, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": [_override(style) for style in panel.styles]},
        "options": _OPTIONS[panel.kind](panel),
    }
    if panel.kind is Kind.TABLE:
        written["transformations"] = list(_transformations(panel))
    return written


def _description(panel: Panel) -> str:
    families = dict.fromkeys(family for query in panel.queries for family in query.expression.families)
    lines = "\n".join(f"* `{family.metric}`: {family.help}" for family in families)
    return f"{panel.description}\n\n{lines}"


def _target(panel: Panel, query: Query, ref: str) -> dict[str, Any]:
    is_now = panel.kind is not Kind.CURVES
    return {
        "refId": ref,
        "datasource": _DATASOURCE,
        "editorMode": "code",
        "expr": query.expression.text,
        "legendFormat": query.legend,
        "format": "table" if panel.kind is Kind.TABLE else "time_series",
        "instant": is_now,
        "range": not is_now,
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit or _UNITS[panel.queries[0].expression.unit],
        "noValue": panel.absent,
        "color": {"mode": "palette-classic" if panel.kind is Kind.CURVES else "thresholds"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": color} for value, color in panel.steps],
        },
        "mappings": [],
        **({} if panel.most is None else {"max": panel.most}),
    }
    if panel.kind is Kind.TABLE:
        defaults["custom"] = {"minWidth": 80, "wrapHeaderText": True}
    if panel.kind is Kind.CURVES:
        defaults["custom"] = {
            "drawStyle": "line",
            # Not a bound: what is below 0 is shown.
            "axisSoftMin": 0,
            "lineInterpolation": "linear",
            "lineWidth": 1 if panel.is_stacked else 2,
            "fillOpacity": 35 if panel.is_stacked else 0,
            "showPoints": "auto",
            "spanNulls": False,
            "insertNulls": False,
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
        }
    return defaults


def _override(style: Style) -> dict[str, Any]:
    return {
        "matcher": {"id": "byRegexp", "options": style.pattern},
        "properties": [{"id": name, "value": value} for name, value in style.properties.items()],
    }


def _stat(panel: Panel) -> dict[str, Any]:
    return {
        # One size for all values of a panel, and of its neighbours.
        "text": {"titleSize": 14, "valueSize": 28 if panel.text is Text.VALUE else 18},
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": str(panel.text),
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "wideLayout": True,
    }


def _curves(panel: Panel) -> dict[str, Any]:
    return {
        "legend": {
            "displayMode": "list",
            "placement": "right" if panel.is_crowded else "bottom",
            "showLegend": True,
            "calcs": [],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _table(panel: Panel) -> dict[str, Any]:
    first = next(iter(panel.columns.values()))
    return {
        "showHeader": True,
        "cellHeight": "sm",
        "footer": {"show": False, "reducer": [], "countRows": False, "fields": ""},
        "sortBy": [{"displayName": first, "desc": False}],
    }


_OPTIONS: Final = {Kind.STAT: _stat, Kind.CURVES: _curves, Kind.TABLE: _table}


def _transformations(panel: Panel) -> Iterator[dict[str, Any]]:
    # The values of the first query are in the column "Value" where there is one, in "Value #A" where there are more.
    yield {"id": "merge", "options": {}}
    yield {
        "id": "filterFieldsByName",
        "options": {"include": {"names": list(panel.columns)}},
    }
    yield {
        "id": "organize",
        "options": {
            "excludeByName": {},
            "indexByName": {name: at for at, name in enumerate(panel.columns)},
            "renameByName": {name: title for name, title in panel.columns.items() if name != title},
        },
    }
