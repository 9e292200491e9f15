"""Alert rules that Grafana itself evaluates: queries, and expressions that judge what they return.

https://grafana.com/docs/grafana/latest/alerting/set-up/provision-alerting-resources/file-provisioning/; the
provisioning API and the operator's GrafanaAlertRuleGroup have the same form.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from spark_agent.agent.audit.claim import At, Claim, Query, Shape
from spark_agent.agent.audit.syntax import comments_on, list_of, mapping_of, mappings_of, number_of, text_of
from spark_agent.agent.audit.wording import named, path_of

#: Data sources that speak PromQL, or nearly.
PROMQL: Final = frozenset(
    {
        "prometheus",
        "grafana-amazonprometheus-datasource",
        "grafana-azureprometheus-datasource",
        "victoriametrics-datasource",
        "victoriametrics-metrics-datasource",
    }
)
#: Types that stand for no data source of their own: a choice that each query makes, and Grafana's own expressions.
_NO_SOURCE: Final = frozenset({"", "mixed", "datasource", "grafana", "__expr__"})
#: Uids of Grafana's expressions; the second is that of version 8.
_EXPRESSIONS: Final = frozenset({"__expr__", "-100"})
# What LogQL does to its lines, and PromQL never.
_LOGQL: Final = re.compile(r"\}\s*\|(?:[=~]|\s*(?:json|logfmt|unwrap|pattern|line_format|label_format)\b)")
_COMPARISON: Final = re.compile(r"\s*\$\{?\w+\}?\s*[<>]=?\s*(-?[\d.]+(?:e[+-]?\d+)?)\s*", re.IGNORECASE)


def is_alert(value: dict[str, Any]) -> bool:
    """Return whether a mapping is such a rule."""
    return "title" in value and any("model" in one for _, one in mappings_of(value.get("data")))


def alert_claim(rule: dict[str, Any], at: At, context: tuple[str, ...] = ()) -> Claim:
    """Return what a rule claims."""
    record = text_of(mapping_of(rule.get("record")).get("metric"))
    shape, title = (Shape.RECORD, record) if record else (Shape.ALERT, text_of(rule.get("title")))
    outer = context or tuple(filter(None, (text_of(rule.get("ruleGroup")),)))
    annotations = (text_of(one) for one in mapping_of(rule.get("annotations")).values())
    return Claim(
        shape=shape,
        where=path_of(named("group", outer[-1]) if outer else "", named(shape, title)),
        at=at,
        title=title,
        queries=tuple(_queries(rule, (*at, "data"))),
        description="\n".join(filter(None, (*annotations, *comments_on(rule)))),
        context=outer,
        thresholds=tuple(_thresholds(rule)),
        labels={name: text_of(label) for name, label in mapping_of(rule.get("labels")).items()},
    )


def query_of(target: dict[str, Any], source: str, at: At, legend: str = "", unit: str | None = None) -> Query | None:
    """Return one query of Grafana's, by the type of its data source, empty where it is not known; None for none."""
    foreign = None if source in PROMQL or source in _NO_SOURCE or source.startswith("$") else source
    expr = text_of(target.get("expr"))
    if expr.strip() and source != "__expr__":
        return Query(expr, (*at, "expr"), legend, unit, foreign or other_language(expr))
    if source in PROMQL or source in _EXPRESSIONS:
        return None
    # Other languages, by the key that their data sources keep them under.
    for key, language in (("rawSql", "sql"), ("query", "a query that is not PromQL"), ("target", "graphite")):
        written = target.get(key)
        if isinstance(written, str) and written.strip():
            return Query(text_of(written), (*at, key), legend, unit, foreign or language)
    return None


def other_language(expr: str) -> str | None:
    """Return whose language an expression is in, where it is plainly not PromQL."""
    return "loki" if _LOGQL.search(expr) else None


def legend_of(target: dict[str, Any]) -> str:
    """Return what a query's series are called; empty where Grafana makes it up of the labels."""
    legend = text_of(target.get("legendFormat"))
    return "" if legend == "__auto" else legend


def evaluated(conditions: Any) -> Iterator[float]:
    """Yield the limits in the conditions of an alert."""
    for _, condition in mappings_of(conditions):
        evaluator = mapping_of(condition.get("evaluator"))
        limits = list_of(evaluator.get("params"))
        # The second is that of a range, and stands there as 0 where there is none.
        for limit in limits if "range" in text_of(evaluator.get("type")) else limits[:1]:
            number = number_of(limit)
            if number is not None:
                yield number


def _queries(rule: dict[str, Any], at: At) -> Iterator[Query]:
    for index, one in mappings_of(rule.get("data")):
        model = mapping_of(one.get("model"))
        source = text_of(mapping_of(model.get("datasource")).get("type"))
        if text_of(one.get("datasourceUid")) in _EXPRESSIONS:
            source = "__expr__"
        query = query_of(model, source, (*at, index, "model"), legend_of(model))
        if query:
            yield query


def _thresholds(rule: dict[str, Any]) -> Iterator[float]:
    """Yield the limits of the expression that decides."""
    for _, one in mappings_of(rule.get("data")):
        model = mapping_of(one.get("model"))
        if text_of(one.get("refId")) != text_of(rule.get("condition")):
            continue
        if model.get("type") in ("threshold", "classic_conditions"):
            yield from evaluated(model.get("conditions"))
        elif model.get("type") == "math" and (match := _COMPARISON.fullmatch(text_of(model.get("expression")))):
            number = number_of(match[1])
            if number is not None:
                yield number
