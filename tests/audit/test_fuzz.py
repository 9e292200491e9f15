"""Whatever a file holds, an audit ends: with findings, or with a line that says why not. Never with a traceback."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from audits import EXAMPLES, found, panel, record
from hypothesis import given
from hypothesis import strategies as st

from spark_agent.agent.audit import documents
from spark_agent.agent.audit.audit import audit
from spark_agent.agent.audit.case import Target
from spark_agent.agent.audit.catalogue import Catalogue, guess
from spark_agent.agent.audit.claim import Document
from spark_agent.agent.audit.expression import ExpressionError, read
from spark_agent.agent.audit.files import read as files
from spark_agent.agent.audit.syntax import MalformedError, parse
from spark_agent.agent.audit.words import asserts_whole, themes
from spark_agent.exporters.audit_report import Format, tell

AGENT = (sys.executable, "-m", "spark_agent.agent", "audit")
NAMESPACE = Path(__file__).parents[2] / ".namespace"


def _real() -> Iterator[str]:
    for one in files([str(EXAMPLES)]):
        if isinstance(one, Document):
            yield from (query.expr for claim in one.claims for query in claim.queries)


REAL = sorted(set(_real()))
TEXTS = sorted(path.read_text(encoding="utf-8") for path in EXAMPLES.iterdir())

# Expressions

_METRICS = st.sampled_from(
    ["DCGM_FI_DEV_POWER_USAGE", "nvidia_smi_energy_joules_total", "gb10_system_power_watts", "node_hwmon_power_watt",
     "kepler_node_cpu_watts", "DCGM_FI_DEV_POWER_MGMT_LIMIT", 'gb10_power_limit_watts{limit="pl1"}', "up",
     "a:power:sum", "vllm:generation_tokens_total", "price_eur", "$metric", "${prefix}gpu_power_watts",
     '{__name__=~"gb10_.*_watts"}', 'node_hwmon_sensor_label{label="gpu"}', "time()", "vector(0)",
     "acme_power_milliwatts"]
)  # fmt: skip
_NUMBERS = st.sampled_from(
    ["0", "-0", "1", "240", "1e3", "1e999", "-1e999", "NaN", "Inf", "-Inf", "0x7fffffffffffffffff", "1e-320", "3.6e6",
     "00", ".5", "5.", "1_000", "$__range_s", "$price"]
)  # fmt: skip
_RANGES = st.sampled_from(
    ["[5m]", "[1d:5m]", "[$__range]", "[$w]", "[1ms]", "[99999999999y]", "[0s]", "[1d1d]", "[5m:]"]
)


def _deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(
        ["+", "-", "*", "/", "%", "^", "==", "> bool", ">=", "<", "or", "and", "unless", "* on (instance)",
         "/ on (chip, sensor) group_left (label)", "or on ()", "atan2", "and ignoring (a)"]
    )  # fmt: skip
    wraps = st.sampled_from(
        ["sum({})", "sum by (gpu) ({})", "sum without (instance, zone) ({})", "max({})", "topk(3, {})", "count({})",
         "quantile(0.5, {})", "abs({})", "scalar({})", "clamp_max({}, 1)", "-{}", "({})",
         "label_replace({}, 'a', '', '', '')", "histogram_quantile(0.9, {})", "absent({})", "({}) offset 5m",
         "({}) @ end()", "count_values('a', {})", "({"]
    )  # fmt: skip
    over_time = st.sampled_from(
        ["rate", "irate", "increase", "delta", "deriv", "avg_over_time", "sum_over_time", "max_over_time",
         "count_over_time", "predict_linear", "last_over_time"]
    )  # fmt: skip
    return (
        st.tuples(inner, operators, inner).map(" ".join)
        | st.tuples(wraps, inner).map(lambda pair: pair[0].replace("{}", pair[1]))
        | st.tuples(over_time, inner, _RANGES).map(lambda of: f"{of[0]}({of[1]}{of[2]})")
    )


GRAMMAR = st.recursive(_METRICS | _NUMBERS, _deeper, max_leaves=12)


@st.composite
def _mutated(draw: st.DrawFn, texts: list[str]) -> str:
    """Return a real text with some of its letters cut, doubled or replaced."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 5))):
        start, length = draw(st.integers(0, len(text))), draw(st.integers(0, 20))
        new = draw(
            st.sampled_from(["", "(", ")", "{", '"', "[", "$", "#", "\n", "\0", "0", "1e999", "{{", "&a", "*a"])
            | st.text(max_size=3)
            | st.just(text[start : start + length] * 2)
        )
        text = text[:start] + new + text[start + length :]
    return text


@given(GRAMMAR | _mutated(REAL) | st.text(max_size=60))
def test_expressions(expr: str) -> None:
    """Any text at all as a query, as a recording rule, and in a panel with each word and unit."""
    claims = [
        panel("Total node power cost (kW)", (expr, "CPU"), unit="watt", maximum=1e308, thresholds=(float("inf"), -1.0)),
        panel("Tokens per watt", expr, "a:power:sum", unit="percent"),
        record("a:power:sum", expr),
    ]

    for target in Target:
        told = found(*claims, target=target)
        assert all(one.rule and one.message and "\n" not in one.message for one in told)


@given(st.text(max_size=200))
def test_words(text: str) -> None:
    """Any text as a title, a legend and a description; and as the name of a metric."""
    themes(text)
    asserts_whole(text, text, text)
    guess(text)


@given(
    st.sampled_from(list(Format)),
    st.text(max_size=30),
    st.dictionaries(st.sampled_from(["unit", "description"]), st.text(max_size=30)),
)
def test_outputs(form: Format, text: str, more: dict[str, Any]) -> None:
    """Whatever a title says, each output can be written as UTF-8, and JSON read again."""
    query = {"expr": f"DCGM_FI_DEV_POWER_USAGE # {text}", "legendFormat": text}
    dashboard = {"schemaVersion": 1, "title": text, "panels": [{"title": f"Node {text}", "targets": [query], **more}]}
    read_again = documents.read(text, parse(json.dumps(dashboard), is_json=True))
    told = tell(audit(read_again, Catalogue()), form)

    assert told.encode().endswith(b"\n") or form is Format.GITHUB
    assert form in (Format.TEXT, Format.GITHUB) or json.loads(told)


# Documents


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | GRAMMAR
_KEYS = st.sampled_from(
    ["panels", "rows", "targets", "expr", "title", "groups", "rules", "record", "alert", "annotations", "labels",
     "model", "fieldConfig", "defaults", "unit", "max", "thresholds", "steps", "value", "options", "mappings",
     "overrides",
     "templating", "list", "query", "data", "condition", "elements", "layout", "spec", "libraryPanel", "datasource",
     "type", "id", "gridPos", "schemaVersion", "name", "expression", "legendFormat", "repeat", "yaxes", "noValue"]
)  # fmt: skip
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=6),
    max_leaves=25,
)


def _audited(text: str, *, is_json: bool) -> None:
    try:
        parsed = parse(text, is_json=is_json)
    except MalformedError as error:
        assert str(error)  # noqa: PT017  (that it says why is the rule)
        return
    told = audit(documents.read("it", parsed), Catalogue())
    assert tell(told, Format.TEXT).encode().endswith(b"\n")
    assert len(told.findings) == len(json.loads(tell(told, Format.JSON))["findings"])


@given(_JSON)
def test_json_of_any_shape(value: Any) -> None:
    """Our keys with anything below them, where we expect it and where not."""
    _audited(json.dumps({"schemaVersion": 1, "panels": [value], "templating": value}), is_json=True)
    _audited(json.dumps({"groups": [{"rules": [value], "name": value}]}), is_json=False)
    _audited(json.dumps(value), is_json=True)


@given(_mutated(TEXTS))
def test_broken_files(text: str) -> None:
    """Examples in which something was cut, doubled or replaced, as JSON and as YAML."""
    for is_json in (True, False):
        _audited(text, is_json=is_json)


# What grows


@pytest.mark.parametrize(
    "expr",
    [
        "(" * 50_000 + "up" + ")" * 50_000,
        "-" * 50_000 + "1",
        "sum(" * 90 + "up" + ")" * 90,
        "up" + " + up" * 100_000,
        "up" + " or up" * 199,
        "up" + " ^ up" * 199,
        "up" + " unless on (a) up" * 199,
        "1" + "0" * 400,
        "1" + "0" * 30_000,
        "a{" + ",".join(f'b{index}="c"' for index in range(2000)) + "}",
        "a{b=~'" + "(" * 10_000 + "'}",
        "$" * 30_000,
        "${" * 10_000,
        "[[" * 10_000,
        '"' + "\\" * 30_000,
        "'" * 32_000,
        "#" * 32_000,
        "rate(up[" + "1d" * 5_000 + "])",
        "a @ 99999999999999999999999999",
        "a offset 99999999999999999999999y",
        "up[" * 5_000,
        "+" * 30_000 + "1",
        "- " * 10_000 + "up",
        "!" * 10_000,
    ],
    ids=lambda expr: f"{expr[:8]}… {len(expr)}",
)
def test_long_and_deep_expressions(expr: str) -> None:
    """They are judged, or told to be too long or too deep."""
    assert {"PWR000"} >= {one.rule for one in found(panel("Draw", expr))}


#: Patterns on which Python's own machine takes a time that doubles with each letter of a name.
_EVIL = [
    "(a+)+$",
    "(.*)*x",
    "(_|\\w)*!",
    "(\\w+\\w+)+!",
    "((a|b|_)*)*c!",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "(\\w*)*\\w*!",
]
_GUARDED = """\
    import resource, sys
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    from spark_agent.agent.audit.catalogue import Catalogue
    from spark_agent.agent.audit.expression import ExpressionError
    from spark_agent.agent.audit.scope import Scopes
    try:
        Scopes(Catalogue()).judge(sys.argv[1])
    except ExpressionError as error:
        print(error)
    """


@pytest.mark.parametrize("pattern", _EVIL)
def test_patterns_of_names_end(pattern: str) -> None:
    """A pattern that Prometheus takes, for its machine needs no time, holds up no audit."""
    expr = f"sum({{__name__=~{json.dumps(pattern)}}})"
    done = subprocess.run(
        (sys.executable, "-c", dedent(_GUARDED), expr),
        env=os.environ | {"PYTHONPATH": str(NAMESPACE)},
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert (0, b"") == (done.returncode, done.stderr)


def test_a_panic_of_the_parser_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rust's panics are no `Exception`: one that the parser has is told of its expression, and the rest goes on."""

    class PanicException(BaseException):
        """As pyo3 raises it, from a module that nobody can import."""

        __module__ = "pyo3_runtime"

    def panicking(_: str) -> Any:
        raise PanicException("byte index 1 is not a char boundary")

    monkeypatch.setattr("spark_agent.agent.audit.expression._parsed", panicking)
    with pytest.raises(ExpressionError):
        read("up")


@given(st.text(alphabet="a0(){}[]\"'`\\$#@:,=~!<>+-*/%^ \n\té功\ud800\0", max_size=40))
def test_the_parser_does_not_panic(text: str) -> None:
    """Letters of any width, where the parser counts bytes."""
    try:
        read(text)
    except ExpressionError as error:
        assert str(error)  # noqa: PT017  (that it says why is the rule)


# A process with little memory


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))


def _process(path: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (*AGENT, str(path)),
        env=os.environ | {"PYTHONPATH": str(NAMESPACE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=_limited,
    )


def _many_panels(path: Path) -> None:
    """Four MiB of them, a hundred times a large dashboard."""
    one = json.dumps({"type": "stat", "title": "Node power", "targets": [{"expr": "sum(DCGM_FI_DEV_POWER_USAGE)"}]})
    count = ((1 << 22) - 100) // (len(one) + 1)
    path.write_text(f'{{"schemaVersion": 1, "panels": [{",".join([one] * count)}]}}')


def _one_long_expression(path: Path) -> None:
    expr = "DCGM_FI_DEV_POWER_USAGE" + " + DCGM_FI_DEV_POWER_USAGE" * 600_000
    path.write_text(json.dumps({"schemaVersion": 1, "panels": [{"title": "Node power", "targets": [{"expr": expr}]}]}))


def _deep(path: Path) -> None:
    path.write_text('{"schemaVersion": 1, "panels": ' + '[{"panels": ' * 500_000)


def _deep_and_whole(path: Path) -> None:
    path.write_text('{"schemaVersion": 1, "panels": ' + '[{"panels": ' * 900 + "1" + "}]" * 900 + "}")


@pytest.mark.once
@pytest.mark.parametrize(
    ("write", "code", "says"),
    [
        (lambda path: path.write_text(" " * 50_000_000), 3, "is longer than 16 MiB"),
        (_deep, 3, "is nested too deeply"),
        (_deep_and_whole, 3, ""),
        (_one_long_expression, 0, "longer than 32768 characters"),
    ],
    ids=["50 MB", "deep", "deep and whole", "one expression"],
)
def test_a_file_that_is_too_much_ends_with_a_line(tmp_path: Path, write: Any, code: int, says: str) -> None:
    """In a process that has 1 GiB and a minute."""
    path = tmp_path / "dashboard.json"
    write(path)
    done = _process(path)

    assert (code, "") == (done.returncode, done.stderr)
    assert says in done.stdout
    assert "this is a bug" not in done.stdout


@pytest.mark.once
def test_many_wrong_panels(tmp_path: Path) -> None:
    """They are told in a process that has 1 GiB and a minute: no cost grows as the square of their number."""
    path = tmp_path / "dashboard.json"
    _many_panels(path)
    done = _process(path)

    assert (1, "") == (done.returncode, done.stderr)
    assert done.stdout.count(": warning: PWR001 ") > 30_000
