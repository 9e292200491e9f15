"""Grafana's dashboards: what each panel queries, and all that it says of it.

The classic schema (https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/) with
its older forms, which Grafana still takes: rows that hold panels, the graph and singlestat panels. And the second
schema (https://grafana.com/docs/grafana/latest/observability-as-code/schema-v2/): elements, and a layout apart.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from spark_agent.agent.audit.claim import At, Claim, Query, Shape
from spark_agent.agent.audit.grafana_alerts import evaluated, legend_of, query_of
from spark_agent.agent.audit.syntax import Fault, is_true, list_of, mapping_of, mappings_of, number_of, text_of
from spark_agent.agent.audit.wording import named, path_of, printable

#: What a panel has, and hardly anything else that is called so.
_PANEL_KEYS: Final = frozenset({"targets", "gridPos", "fieldConfig", "libraryPanel"})
_DASHBOARD_KEYS: Final = frozenset({"schemaVersion", "templating"})
#: Rows within tabs within rows: Grafana allows two.
_MAX_LAYOUTS: Final = 10
_VARIABLE: Final = re.compile(r"\$\{?(\w+)\}?")


def is_dashboard(value: dict[str, Any]) -> bool:
    """Return whether a mapping is a dashboard, whole or broken."""
    if isinstance(value.get("elements"), dict) and isinstance(value.get("layout"), dict):
        return True
    if "panels" not in value and "rows" not in value:
        return False
    if not _DASHBOARD_KEYS.isdisjoint(value):
        return True
    panels = [panel for _, panel in mappings_of(value.get("panels"))]
    for _, row in mappings_of(value.get("rows")):
        panels += [panel for _, panel in mappings_of(row.get("panels"))]
    return any(not _PANEL_KEYS.isdisjoint(panel) for panel in panels)


def is_library_panel(value: dict[str, Any]) -> bool:
    """Return whether a mapping is a library panel that was exported alone."""
    model = mapping_of(value.get("model"))
    return "type" in model and not {"targets", "fieldConfig"}.isdisjoint(model)


def claims(value: dict[str, Any], at: At, folder: str = "") -> Iterator[Claim | Fault]:
    """Yield what the panels of a dashboard claim."""
    if isinstance(value.get("elements"), dict) and isinstance(value.get("layout"), dict):
        yield from _second_schema(value, at, folder)
    else:
        yield from _classic(value, at, folder)


def claims_of_library_panel(value: dict[str, Any], at: At) -> Iterator[Claim | Fault]:
    """Yield what a library panel claims."""
    model = {"title": value.get("name"), **mapping_of(value.get("model"))}
    yield from _panel(_Panel(model, (*at, "model"), _Around(_Dashboard("", {}))))


# --- what surrounds a panel -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Dashboard:
    """What holds for all panels of a dashboard."""

    title: str
    #: Variables that have one value for all readers.
    variables: Mapping[str, str]
    folder: str = ""
    tags: tuple[str, ...] = ()
    #: What the inputs of an export stand for: a type of data source, or a constant.
    inputs: Mapping[str, str] = field(default_factory=dict)
    #: Library panels that an export brings along, by uid, and where.
    elements: Mapping[str, tuple[dict[str, Any], At]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Around:
    """What a panel stands in: its dashboard, and the titles of tabs and rows."""

    dashboard: _Dashboard
    rows: tuple[str, ...] = ()
    #: The variable for each of whose values there is one such panel.
    repeat: str = ""

    @property
    def context(self) -> tuple[str, ...]:
        dashboard = self.dashboard
        return tuple(filter(None, (dashboard.folder, dashboard.title, *self.rows, *dashboard.tags)))

    def where(self, kind: str, title: str, number: Any = None) -> str:
        notes = [text_of(number)] if number is not None else []
        if self.repeat:
            notes.append(f"for each ${printable(self.repeat)}")
        return path_of(
            named("dashboard", self.dashboard.title) if self.dashboard.title else "",
            *(named("row", row) for row in self.rows if row),
            f"{named(kind, title)} ({', '.join(notes)})" if notes else named(kind, title),
        )


@dataclass(frozen=True, slots=True)
class _Panel:
    """A panel in the classic schema, or as if it were in it."""

    model: dict[str, Any]
    at: At
    around: _Around
    #: The places of its queries, where they do not stand below ``targets``.
    targets_at: tuple[At, ...] | None = None

    def target_at(self, index: int) -> At:
        return self.targets_at[index] if self.targets_at else (*self.at, "targets", index)


# --- the classic schema -----------------------------------------------------------------------------------------------


def _classic(value: dict[str, Any], at: At, folder: str) -> Iterator[Claim | Fault]:
    inputs = {
        text_of(one.get("name")): text_of(one.get("pluginId") or one.get("value"))
        for _, one in mappings_of(value.get("__inputs"))
    }
    dashboard = _Dashboard(
        title=text_of(value.get("title")),
        variables=dict(_variables(value, inputs)),
        folder=folder,
        tags=tuple(filter(None, map(text_of, list_of(value.get("tags"))))),
        inputs=inputs,
        elements=dict(_library(value, at)),
    )
    around = _Around(dashboard)
    for key in ("panels", "rows"):
        if value.get(key) is not None and not isinstance(value[key], list):
            yield Fault(f"{named('dashboard', dashboard.title)}: {key} is no list", (*at, key))
    for index, row in mappings_of(value.get("rows")):
        titled = _below(row, dashboard)
        for nested, panel in mappings_of(row.get("panels")):
            yield from _panel(_Panel(panel, (*at, "rows", index, "panels", nested), titled))
    for index, panel in _in_reading_order(list(mappings_of(value.get("panels")))):
        panel_at = (*at, "panels", index)
        if panel.get("type") != "row":
            yield from _panel(_Panel(panel, panel_at, around))
            continue
        around = _below(panel, dashboard)
        for nested, inner in mappings_of(panel.get("panels")):
            yield from _panel(_Panel(inner, (*panel_at, "panels", nested), around))


def _below(row: dict[str, Any], dashboard: _Dashboard) -> _Around:
    return _Around(dashboard, (text_of(row.get("title")),), text_of(row.get("repeat")))


def _in_reading_order(panels: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """Order panels as Grafana does, which decides in which row each stands; as written where one has no place."""

    def place(indexed: tuple[int, dict[str, Any]]) -> tuple[float, float]:
        grid = mapping_of(indexed[1].get("gridPos"))
        return number_of(grid.get("y")) or 0, number_of(grid.get("x")) or 0

    return sorted(panels, key=place) if all("gridPos" in panel for _, panel in panels) else panels


def _library(value: dict[str, Any], at: At) -> Iterator[tuple[str, tuple[dict[str, Any], At]]]:
    elements = value.get("__elements")
    listed = elements.items() if isinstance(elements, dict) else mappings_of(elements)
    for key, element in listed:
        model = mapping_of(mapping_of(element).get("model"))
        yield text_of(mapping_of(element).get("uid")) or text_of(key), (model, (*at, "__elements", key, "model"))


def _variables(value: dict[str, Any], inputs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for _, variable in mappings_of(mapping_of(value.get("templating")).get("list")):
        text = _one_value(text_of(variable.get("type")), variable)
        match = _VARIABLE.fullmatch(text or "")
        if text is not None:
            yield text_of(variable.get("name")), inputs.get(match[1], text) if match else text


def _one_value(kind: str, variable: dict[str, Any]) -> str | None:
    """Return the value of a variable that has one for all readers."""
    query = text_of(variable.get("query"))
    current = text_of(mapping_of(variable.get("current")).get("value"))
    if kind == "constant":
        return query or current
    if kind == "textbox":
        return current or query
    if kind == "custom" and query and not is_true(variable.get("includeAll")):
        values = query.split(",")
        return values[0].rpartition(" : ")[2].strip() if len(values) == 1 else None
    return None


# --- the second schema ------------------------------------------------------------------------------------------------


def _second_schema(value: dict[str, Any], at: At, folder: str) -> Iterator[Claim | Fault]:
    kinds = {"ConstantVariable": "constant", "TextVariable": "textbox", "CustomVariable": "custom"}
    variables: dict[str, str] = {}
    for _, variable in mappings_of(value.get("variables")):
        spec = mapping_of(variable.get("spec"))
        text = _one_value(kinds.get(text_of(variable.get("kind")), ""), spec)
        if text is not None:
            variables[text_of(spec.get("name"))] = text
    tags = tuple(filter(None, map(text_of, list_of(value.get("tags")))))
    dashboard = _Dashboard(text_of(value.get("title")), variables, folder, tags)
    placed = dict(_placed(value["layout"], _Around(dashboard), 0))
    for name, element in value["elements"].items():
        spec = mapping_of(mapping_of(element).get("spec"))
        around = placed.get(name, _Around(dashboard))
        if not spec:
            yield Fault(f"{around.where('panel', name)} has no spec", (*at, "elements", name))
        elif mapping_of(element).get("kind") == "LibraryPanel":
            yield _elsewhere(spec, (*at, "elements", name), around)
        else:
            yield from _panel(_as_classic(spec, (*at, "elements", name, "spec"), around))


def _as_classic(spec: dict[str, Any], at: At, around: _Around) -> _Panel:
    display = mapping_of(spec.get("vizConfig"))
    targets, places = [], []
    group = mapping_of(mapping_of(spec.get("data")).get("spec"))
    for index, query in mappings_of(group.get("queries")):
        outer = mapping_of(query.get("spec"))
        inner = mapping_of(outer.get("query"))
        # The type is the query's kind in the alpha of the schema, and its group since.
        source = text_of(inner.get("group")) or text_of(inner.get("kind"))
        named_source = mapping_of(outer.get("datasource")).get("type")
        targets.append(
            {
                **mapping_of(inner.get("spec")),
                "refId": outer.get("refId"),
                "hide": outer.get("hidden"),
                "datasource": {"type": named_source or ("" if source == "DataQuery" else source)},
            }
        )
        places.append((*at, "data", "spec", "queries", index, "spec", "query", "spec"))
    model = {
        "id": spec.get("id"),
        "title": spec.get("title"),
        "description": "\n".join(filter(None, (text_of(spec.get("subtitle")), text_of(spec.get("description"))))),
        "type": text_of(display.get("group")) or text_of(display.get("kind")),
        **mapping_of(display.get("spec")),
        "targets": targets,
    }
    return _Panel(model, at, around, tuple(places))


def _placed(layout: Any, around: _Around, depth: int) -> Iterator[tuple[str, _Around]]:
    """Yield for each element of a layout by what it is surrounded."""
    if depth > _MAX_LAYOUTS:
        return
    spec = mapping_of(mapping_of(layout).get("spec"))
    for key in ("rows", "tabs"):
        for _, part in mappings_of(spec.get(key)):
            inner = mapping_of(part.get("spec"))
            repeat = text_of(mapping_of(inner.get("repeat")).get("value")) or around.repeat
            rows = (*around.rows, text_of(inner.get("title")))
            yield from _placed(inner.get("layout"), replace(around, rows=rows, repeat=repeat), depth + 1)
    for _, item in mappings_of(spec.get("items")):
        inner = mapping_of(item.get("spec"))
        repeat = text_of(mapping_of(inner.get("repeat")).get("value")) or around.repeat
        yield text_of(mapping_of(inner.get("element")).get("name")), replace(around, repeat=repeat)
        # Rows within a grid, as the alpha of the schema had them.
        rows = (*around.rows, text_of(inner.get("title")))
        for _, nested in mappings_of(inner.get("elements")):
            name = mapping_of(mapping_of(nested.get("spec")).get("element")).get("name")
            yield text_of(name), replace(around, rows=rows, repeat=repeat)


# --- one panel --------------------------------------------------------------------------------------------------------


def _panel(panel: _Panel) -> Iterator[Claim | Fault]:
    model, around = panel.model, panel.around
    repeat = text_of(model.get("repeat"))
    if repeat:
        around = replace(around, repeat=repeat)
    reference = mapping_of(model.get("libraryPanel"))
    if reference and "targets" not in model:
        if text_of(reference.get("uid")) not in around.dashboard.elements:
            yield _elsewhere(model, panel.at, around)
            return
        found, at = around.dashboard.elements[text_of(reference.get("uid"))]
        panel = replace(panel, at=at)
        model = {**found, "id": model.get("id"), "title": model.get("title") or found.get("title")}
    title = text_of(model.get("title"))
    where = around.where("panel", title, model.get("id"))
    targets = model.get("targets")
    if targets is not None and not isinstance(targets, list):
        yield Fault(f"{where}: targets is no list", panel.at)
        return
    display = _Display(model)
    queries = tuple(_queries(panel, model, display))
    if not queries:
        return
    yield Claim(
        shape=Shape.PANEL,
        where=where,
        at=panel.at,
        title=title,
        queries=queries,
        description=text_of(model.get("description")),
        context=around.context,
        unit=display.unit,
        minimum=display.minimum,
        maximum=display.maximum,
        thresholds=display.thresholds,
        zero_filled=display.zero_filled,
        variables=around.dashboard.variables,
    )
    alert = mapping_of(model.get("alert"))
    asked = tuple(_asked(alert, model, queries, panel))
    if asked:
        name = text_of(alert.get("name")) or title
        yield Claim(
            shape=Shape.ALERT,
            where=path_of(where, named("alert", name)),
            at=(*panel.at, "alert"),
            title=name,
            queries=asked,
            description=text_of(alert.get("message")),
            context=(*around.context, title),
            unit=display.unit,
            thresholds=tuple(evaluated(alert.get("conditions"))),
            variables=around.dashboard.variables,
        )


def _elsewhere(model: dict[str, Any], at: At, around: _Around) -> Fault:
    where = around.where("panel", text_of(model.get("title")), model.get("id"))
    name = text_of(mapping_of(model.get("libraryPanel")).get("name"))
    return Fault(f"{where} is the {named('library panel', name)}, which this file does not hold", at)


def _queries(panel: _Panel, model: dict[str, Any], display: "_Display") -> Iterator[Query]:
    targets = list_of(model.get("targets"))
    expressions = " ".join(text_of(target.get("expression")) for _, target in mappings_of(targets))
    for index, target in mappings_of(targets):
        name = text_of(target.get("refId"))
        # What is hidden is drawn only where an expression makes something of it: "$A * 2", or a reduce's "A".
        if is_true(target.get("hide")) and not (name and re.search(rf"\b{re.escape(name)}\b", expressions)):
            continue
        legend = legend_of(target)
        query = query_of(
            target,
            _source(target, panel) or _source(model, panel),
            panel.target_at(index),
            legend,
            display.unit_of(name, legend),
        )
        if query:
            yield query


def _source(holder: dict[str, Any], panel: _Panel) -> str:
    """Return the type of a target's or a panel's data source; empty where only a name or a variable is known."""
    source = holder.get("datasource")
    if isinstance(source, dict):
        kind = text_of(source.get("type"))
        return "" if kind in ("datasource", "mixed") else kind
    match = _VARIABLE.fullmatch(source) if isinstance(source, str) else None
    if source == "__expr__":
        return "__expr__"
    return panel.around.dashboard.inputs.get(match[1], "") if match else ""


def _asked(alert: dict[str, Any], model: dict[str, Any], queries: tuple[Query, ...], panel: _Panel) -> Iterator[Query]:
    """Yield the queries that an alert of a graph panel asks."""
    asked = {
        text_of(name)
        for _, condition in mappings_of(alert.get("conditions"))
        for name in list_of(mapping_of(condition.get("query")).get("params"))[:1]
    }
    places = {
        panel.target_at(index): text_of(target.get("refId")) for index, target in mappings_of(model.get("targets"))
    }
    for query in queries:
        if places.get(query.at[:-1]) in asked:
            yield query


class _Display:
    """How a panel shows its values, in any of the forms that Grafana had for it."""

    def __init__(self, model: dict[str, Any]) -> None:
        self._model = model
        options = mapping_of(model.get("options"))
        config = mapping_of(model.get("fieldConfig"))
        # Grafana 6 kept them among the options.
        self._old = mapping_of(options.get("fieldOptions"))
        self._defaults = {**mapping_of(self._old.get("defaults")), **mapping_of(config.get("defaults"))}
        self._overrides = [one for _, one in mappings_of(config.get("overrides"))]
        self._axes = [axis for _, axis in mappings_of(model.get("yaxes"))] if model.get("type") == "graph" else []
        self._axis = self._axes[0] if self._axes else {}
        self._gauge = mapping_of(model.get("gauge")) if is_true(mapping_of(model.get("gauge")).get("show")) else {}
        self._heat = mapping_of(options.get("yAxis")) or mapping_of(model.get("yAxis"))

    @property
    def unit(self) -> str | None:
        """Return Grafana's unit id."""
        model, heat = self._model, self._heat
        units = (self._axis.get("format"), self._defaults.get("unit"), model.get("format"))
        return next((text_of(unit) for unit in (*units, heat.get("unit"), heat.get("format")) if unit), None)

    @property
    def minimum(self) -> float | None:
        """Return where the scale begins."""
        return self._bound("min")

    @property
    def maximum(self) -> float | None:
        """Return where the scale ends."""
        return self._bound("max")

    def _bound(self, key: str) -> float | None:
        values = (self._axis.get(key), self._defaults.get(key), self._gauge.get(f"{key}Value"), self._heat.get(key))
        return next((number for number in map(number_of, values) if number is not None), None)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Return the steps that are absolute; the first has none, as all begins with it."""
        found = self._defaults.get("thresholds")
        if isinstance(found, dict):
            steps = [] if found.get("mode") == "percentage" else list_of(found.get("steps"))
        else:
            options = mapping_of(self._model.get("options"))
            steps = self._model.get("thresholds") or self._old.get("thresholds") or options.get("thresholds") or []
        if isinstance(steps, str):  # singlestat's: "75,90"
            steps = [{"value": step} for step in steps.split(",")]
        values = (number_of(step.get("value")) for _, step in mappings_of(steps))
        return tuple(value for value in values if value is not None)

    @property
    def zero_filled(self) -> str | None:
        """Return what shows 0 where there is no value, as written."""
        for holder in (self._model, self._defaults):
            for key in ("nullPointMode", "nullValueMode"):
                if holder.get(key) == "null as zero":
                    return f'"{key}": "null as zero"'
        if number_of(self._defaults.get("noValue")) == 0:
            return f'"noValue": "{text_of(self._defaults["noValue"])}"'
        mappings = [*list_of(self._defaults.get("mappings")), *list_of(self._old.get("mappings"))]
        for _, mapping in mappings_of([*mappings, *list_of(self._model.get("valueMaps"))]):
            options = mapping_of(mapping.get("options"))
            is_null = "null" in text_of(options.get("match")) or mapping.get("value") == "null"
            text = mapping_of(options.get("result")).get("text", mapping.get("text"))
            if is_null and number_of(text) == 0:
                return f'"mappings": null to "{text_of(text)}"'
        return None

    def unit_of(self, name: str, legend: str) -> str | None:
        """Return the unit that one query has for itself, by its letter or its legend."""
        for override in self._overrides:
            matcher = mapping_of(override.get("matcher"))
            wanted = {"byFrameRefID": name, "byName": legend}.get(text_of(matcher.get("id")))
            if not wanted or text_of(matcher.get("options")) != wanted:
                continue
            for _, one in mappings_of(override.get("properties")):
                if one.get("id") == "unit":
                    return text_of(one.get("value")) or None
        for _, series in mappings_of(self._model.get("seriesOverrides")):
            is_right = number_of(series.get("yaxis")) == 2
            if legend and is_right and text_of(series.get("alias")) == legend and len(self._axes) > 1:
                return text_of(self._axes[1].get("format")) or None
        return None
