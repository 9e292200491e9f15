"""Rule groups of Prometheus: alerts and recording rules, from rule files and from what a server says of its own.

https://prometheus.io/docs/prometheus/latest/configuration/recording_rules/; Mimir's and Loki's rulers have the same
form, and so has all that wraps it (PrometheusRule, VMRule): ``documents`` looks for groups wherever they stand.
"""

from collections.abc import Iterator
from typing import Any, Final

from spark_agent.agent.audit.claim import At, Claim, Query, Shape
from spark_agent.agent.audit.grafana_alerts import alert_claim, is_alert, other_language
from spark_agent.agent.audit.syntax import Fault, comments_on, list_of, mapping_of, text_of
from spark_agent.agent.audit.wording import named, path_of

#: What a rule of any of these forms has.
_KEYS: Final = frozenset({"alert", "record", "expr", "query"})
#: What stands beside groups in a file that is nothing but rules.
_BESIDE: Final = frozenset({"groups", "namespace"})


def are_groups(value: dict[str, Any], *, is_whole: bool) -> bool:
    """Return whether a mapping, which may be the whole of a file, holds groups of rules; they may be broken."""
    if "groups" not in value:
        return False
    if is_whole and value.keys() <= _BESIDE:
        return True
    rules = (rule for group in list_of(value["groups"]) for rule in list_of(mapping_of(group).get("rules")))
    return any(isinstance(rule, dict) and (not _KEYS.isdisjoint(rule) or is_alert(rule)) for rule in rules)


def claims(value: dict[str, Any], at: At) -> Iterator[Claim | Fault]:
    """Yield what the groups of a mapping claim."""
    at = (*at, "groups")
    groups = value["groups"]
    if not isinstance(groups, list) and groups is not None:
        yield Fault("groups is no list", at)
    namespace = text_of(value.get("namespace"))
    for index, group in enumerate(list_of(groups)):
        if isinstance(group, dict):
            yield from _group(group, (*at, index), namespace)
        else:
            yield Fault(f"group {index + 1} is no mapping", (*at, index))


def _group(group: dict[str, Any], at: At, namespace: str) -> Iterator[Claim | Fault]:
    name = text_of(group.get("name"))
    where = named("group", name)
    context = tuple(filter(None, (namespace, text_of(group.get("folder")), name)))
    rules = group.get("rules")
    if not isinstance(rules, list) and rules is not None:
        yield Fault(f"{where}: rules is no list", (*at, "rules"))
    for index, rule in enumerate(list_of(rules)):
        rule_at = (*at, "rules", index)
        if not isinstance(rule, dict):
            yield Fault(f"{where}: rule {index + 1} is no mapping", rule_at)
        elif is_alert(rule):
            yield alert_claim(rule, rule_at, context)
        else:
            shared = mapping_of(group.get("labels"))
            yield _rule(rule, rule_at, context, shared, f"rule {index + 1}")


def _rule(rule: dict[str, Any], at: At, context: tuple[str, ...], shared: dict[str, Any], nth: str) -> Claim | Fault:
    group = named("group", context[-1] if context else "")
    key = "expr"
    if "query" in rule and "expr" not in rule:  # as a server's API has them
        key = "query"
        rule = {**rule, ("alert" if rule.get("type") == "alerting" else "record"): rule.get("name")}
    kinds = [kind for kind in ("alert", "record") if rule.get(kind) is not None]
    if len(kinds) != 1:
        return Fault(
            f"{group}: {nth} has {'both' if kinds else 'neither'} alert {'and' if kinds else 'nor'} record", at
        )
    kind, title, expr = Shape(kinds[0]), text_of(rule[kinds[0]]), text_of(rule.get(key))
    where = path_of(group, named(kind, title))
    if not title:
        return Fault(f"{group}: {nth} has no name", at)
    if not expr.strip():
        return Fault(f"{where} has no {key}", at)
    annotations = [text_of(one) for one in mapping_of(rule.get("annotations")).values()]
    remarks = [line.strip().lstrip("#").strip() for line in expr.splitlines() if line.lstrip().startswith("#")]
    return Claim(
        shape=kind,
        where=where,
        at=at,
        title=title,
        queries=(Query(expr, (*at, key), foreign=other_language(expr)),),
        description="\n".join(filter(None, (*annotations, *comments_on(rule), *remarks))),
        context=context,
        labels={name: text_of(label) for name, label in {**shared, **mapping_of(rule.get("labels"))}.items()},
    )
