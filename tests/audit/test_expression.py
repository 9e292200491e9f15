"""Expressions as people write them: Grafana's variables and macros, comments, and what cannot be read."""

import pytest

from spark_agent.agent.audit.expression import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_OPERATORS,
    RANGE_SECONDS,
    ExpressionError,
    read,
)


def _told(text: str, **variables: str) -> str:
    return " ".join(read(text, variables).tree.prettify().split())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rate(a[$__rate_interval])", "rate(a[5m])"),
        ("rate(a[${__rate_interval}])", "rate(a[5m])"),
        ("rate(a[[[__rate_interval]]])", "rate(a[5m])"),
        ("avg_over_time(a[$__range])", "avg_over_time(a[1d])"),
        ("avg_over_time(a[$__interval])", "avg_over_time(a[1m])"),
        ("max_over_time(a[$__range:$__interval])", "max_over_time(a[1d:1m])"),
        ("avg_over_time(a[$window])", "avg_over_time(a[5m])"),
        ("avg_over_time(a[${window}])", "avg_over_time(a[5m])"),
        ("a * $__range_s", f"a * {RANGE_SECONDS}"),
        ("a * ${__range_ms} / 1000", f"a * {RANGE_SECONDS * 1000} / 1000"),
        ("rate(a[5m]) * $__interval_ms", "rate(a[5m]) * 60000"),
    ],
)
def test_macros(text: str, told: str) -> None:
    """Durations and numbers that fit to one another: a range is a day everywhere."""
    assert told == _told(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('a{instance=~"$node"}', 'a{instance=~"$node"}'),
        ("a{instance=~'[[node]]'}", 'a{instance=~"[[node]]"}'),
        ("$metric", "var_metric"),
        ("${metric:raw}", "var_metric"),
        ("[[metric]]", "var_metric"),
        ("${prefix}gpu_power_watts", "gpu_power_watts"),
        ("${prefix}_gpu_power_watts", "_gpu_power_watts"),
        ("gpu_power_$unit", "gpu_power__var_unit"),
        ("topk($count, a)", "topk(1, a)"),
        ("a * $price", "a * var_price"),
    ],
)
def test_variables(text: str, told: str) -> None:
    """In strings they stay; as a metric they are a name that says so; as a prefix nothing; else a number."""
    assert told == _told(text)


@pytest.mark.parametrize(
    ("text", "variables", "told"),
    [
        ("a * $price", {"price": "0.31"}, "a * 0.31"),
        ("sum($metric)", {"metric": "gpu_power_watts"}, "sum(gpu_power_watts)"),
        ("rate(a[$window])", {"window": "10m"}, "rate(a[10m])"),
        ("a + $code", {"code": 'b{c="d"} or vector(0)'}, "a + var_code"),
        ("rate(a[$window])", {"window": "300"}, "rate(a[5m])"),
    ],
)
def test_variables_with_one_value(text: str, variables: dict[str, str], told: str) -> None:
    """A constant is what it is, where it is a number, a name or a duration; code that comes by it is not read."""
    assert told == _told(text, **variables)


def test_names_and_comments_are_kept() -> None:
    """Outside of strings: they are words that the expression says."""
    expression = read('a{b="$host"} * $price_per_kwh * $price_per_kwh # estimate\n+ c # "of the GPU"')

    assert ("price_per_kwh",) == expression.variables
    assert 'estimate "of the GPU"' == expression.comments


@pytest.mark.parametrize(
    "text",
    ['a{b="# no comment"}', "a{b='it\\'s # not'}", "a{b=`# nor this`}", 'a{b="${c} $d [[e]] (("}', 'a{b="\\"# x"}'],
)
def test_strings_are_left_alone(text: str) -> None:
    """A number sign, a bracket or a variable within one is its own."""
    expression = read(text)

    assert ((), "") == (expression.variables, expression.comments)


@pytest.mark.parametrize(
    "text", ["vllm:generation_tokens_total", "a @ end()", "a offset -5m", "limitk(2, a)", "{__name__=~'a|b'}",
             "sum by (gpu) (a)", "a == bool 1", "a * on (b) group_left (c) d", "rate(a[5m:30s])", '{"a.b"}', "1e3",
             "Inf"]
)  # fmt: skip
def test_promql_is_read(text: str) -> None:
    """What Prometheus takes."""
    assert read(text).tree.prettify()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("sum(a", "unclosed left parenthesis"),
        ("sum(a) keep_metric_names", "invalid promql query"),
        ("a" * (MAX_CHARACTERS + 1), f"longer than {MAX_CHARACTERS} characters"),
        ("(" * (MAX_DEPTH + 1) + "a" + ")" * (MAX_DEPTH + 1), f"nested deeper than {MAX_DEPTH} levels"),
        ("a" + " + a" * (MAX_OPERATORS + 1), f"more than {MAX_OPERATORS} operators"),
        ("a @ 1e999", ""),
        ("SELECT watts FROM power", ""),
    ],
)
def test_what_cannot_be_read(text: str, why: str) -> None:
    """It says why, in one short line."""
    with pytest.raises(ExpressionError) as caught:
        read(text)

    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_what_is_just_short_enough_is_read() -> None:
    """The bounds are bounds, and no guesses."""
    assert read("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH).tree.prettify()
    assert read("a" + " + a" * MAX_OPERATORS).tree.prettify()
