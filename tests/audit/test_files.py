"""Files and folders: what is read, what is passed over, what is told; and that nothing disturbs it."""

import io
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_agent.agent.audit import documents, files
from spark_agent.agent.audit.claim import Document, Unreadable
from spark_agent.agent.audit.files import MAX_BYTES, read
from spark_agent.agent.audit.syntax import MAX_DEPTH, MAX_VALUES

RULES = "groups:\n- name: gpu\n  rules:\n  - {record: 'a:b', expr: up}\n"
DASHBOARD = json.dumps({"title": "D", "schemaVersion": 39, "panels": [{"title": "P", "targets": [{"expr": "up"}]}]})


def _read(*paths: Path | str) -> list[tuple[str, str | int]]:
    """Return for each document how many claims it has, and for what is unreadable why."""
    return [(one.name, len(one.claims) if isinstance(one, Document) else one.message) for one in read(map(str, paths))]


def _why(path: Path, content: str | bytes) -> str | int:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    ((_, why),) = _read(path)
    return why


def test_a_folder(tmp_path: Path) -> None:
    """All that may be rules or dashboards below a folder is read, sorted by name; what is hidden is not."""
    for name in ("b.yml", "a/z.rules", "a/y.yaml", ".git/x.yml", "a/.hidden.yml", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(RULES)
    (tmp_path / "c.json").write_text(DASHBOARD)

    assert [(str(tmp_path / name), 1) for name in ("a/y.yaml", "a/z.rules", "b.yml", "c.json")] == _read(tmp_path)


OTHERS = {
    "package.json": '{"name": "x", "scripts": {"test": "jest"}}',
    "docker-compose.yml": "services:\n  grafana:\n    image: grafana/grafana\n",
    "prometheus.yml": "global: {scrape_interval: 1s}\nrule_files: [rules.yml]\nscrape_configs: []\n",
    "deployment.yaml": "kind: Deployment\nspec: {template: {spec: {containers: []}}}\n---\nkind: Service\n",
    "role.yaml": "kind: ClusterRole\nrules:\n- {apiGroups: [''], resources: [pods], verbs: [get]}\n",
    "inventory.yml": "all:\n  children:\n    groups: [a, b]\n",
    "datasource.yml": "apiVersion: 1\ndatasources: [{name: Prometheus, type: prometheus}]\n",
    "tsconfig.json": "[]",
    "empty.yml": "",
    "comment.yml": "# nothing\n",
    "text.yml": "just words\n",
    "number.json": "7",
    "template.yaml": "kind: Deployment\nmetadata:\n  {{- include \"x\" . | nindent 4 }}\n",
}  # fmt: skip


def test_what_is_something_else(tmp_path: Path) -> None:
    """In a folder, what is plainly no rule file and no dashboard is passed over; if it is named, it is told."""
    for name, content in OTHERS.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "rules.yml").write_text(RULES)

    assert [(str(tmp_path / "rules.yml"), 1)] == _read(tmp_path)
    for name in OTHERS:
        ((told, why),) = _read(tmp_path / name)
        assert str(tmp_path / name) == told
        assert why in (
            "is neither a rule file nor a dashboard",
            "is empty",
            "is a Helm template: render it first (helm template …)",
        )


def test_a_folder_without_anything(tmp_path: Path) -> None:
    """Somebody who names a folder expects something in it."""
    assert [(str(tmp_path), "holds neither rules nor dashboards")] == _read(tmp_path)


def test_what_is_broken_in_a_folder(tmp_path: Path) -> None:
    """What cannot be read is told in a folder too, and the rest is read; so is a template of rules."""
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.yml").write_text("groups: 7\n")
    (tmp_path / "c.yml").write_text("{{ if x }}\n- alert: A\n  expr: up\n{{ end }}\n")
    (tmp_path / "d.yml").symlink_to("nowhere")
    (tmp_path / "e.yml").write_text(RULES)

    assert [
        ("a.json", "line 1: no JSON: expecting property name enclosed in double quotes"),
        ("b.yml", "line 1: groups is no list"),
        ("c.yml", "is a Helm template: render it first (helm template …)"),
        ("d.yml", "No such file or directory"),
        ("e.yml", 1),
    ] == [(Path(name).name, what) for name, what in _read(tmp_path)]


def test_a_file_of_any_name(tmp_path: Path) -> None:
    """A file that is named may be called anything, and be JSON or YAML."""
    (tmp_path / "alerts").write_text(RULES)
    (tmp_path / "board.txt").write_text(DASHBOARD)
    (tmp_path / "flow").write_text("{groups: [{name: a, rules: [{record: 'a:b', expr: up}]}]}")
    (tmp_path / "marked.json").write_bytes(b"\xef\xbb\xbf" + DASHBOARD.encode())

    assert [1, 1, 1, 1] == [
        what for _, what in _read(*(tmp_path / name for name in ("alerts", "board.txt", "flow", "marked.json")))
    ]


def test_each_file_once(tmp_path: Path) -> None:
    """A file that is reached twice, by any name or link, is read once; links may lead round in circles."""
    (tmp_path / "rules.yml").write_text(RULES)
    (tmp_path / "same.yml").symlink_to("rules.yml")
    os.link(tmp_path / "rules.yml", tmp_path / "also.yml")
    (tmp_path / "round").symlink_to(".")

    assert [(str(tmp_path / "also.yml"), 1)] == _read(tmp_path, tmp_path / "rules.yml", tmp_path, tmp_path / "round")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash reads standard input, JSON or YAML; where there is none, that is told."""
    for content in (RULES, DASHBOARD):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        assert [("standard input", 1)] == _read("-")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert [("standard input", "is empty")] == _read("-")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b" " * (MAX_BYTES + 1))))
    assert [("standard input", "is longer than 16 MiB")] == _read("-")
    monkeypatch.setattr("sys.stdin", None)
    assert [("standard input", "cannot be read")] == _read("-")


def test_what_is_no_file(tmp_path: Path) -> None:
    """Pipes, sockets, devices, loops and what is not there are told, and nothing waits for them."""
    os.mkfifo(tmp_path / "pipe.yml")
    (tmp_path / "loop.yml").symlink_to("loop.yml")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.yml"))
        told = dict(
            _read(*(tmp_path / f"{name}.yml" for name in ("pipe", "socket", "loop", "none")), "/dev/zero", "a\0b")
        )

    assert {
        "pipe.yml": "is no regular file",
        "socket.yml": "is no regular file",
        "loop.yml": "is a link that leads back to itself",
        "none.yml": "No such file or directory",
        "zero": "is no regular file",
        "a\ufffdb": "is no name that a file may have",
    } == {Path(name).name: why for name, why in told.items()}


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder or file that may not be read is told, and what is beside it is read."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b.yml").write_text(RULES)
    (tmp_path / "c.yml").write_text(RULES)
    forbidden = {tmp_path / "a", tmp_path / "b.yml"}

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def guard(path: str | Path, *more: Any) -> Any:
            if Path(path) in forbidden:
                raise PermissionError(13, "Permission denied")
            return function(path, *more)

        return guard

    monkeypatch.setattr(Path, "iterdir", guarded(Path.iterdir))
    monkeypatch.setattr(files, "_open", guarded(files._open))

    assert [("a", "Permission denied"), ("b.yml", "Permission denied"), ("c.yml", 1)] == [
        (Path(name).name, what) for name, what in _read(tmp_path)
    ]


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """A name of any bytes can be printed."""
    path = os.fsdecode(bytes(tmp_path) + b"/\xff\n.yml")
    Path(path).write_text(RULES)
    ((name, _),) = _read(path)

    assert f"{tmp_path}/\ufffd .yml" == name


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x7fELF\0\0", "is binary"),
        (b"groups:\n- name: se\xf1al\n", "line 2: is not UTF-8"),
        (b"\xff\xfeg\0r\0", "is binary"),
        (b"groups: \x01\n", "no YAML: control characters are not allowed"),
        ("[" * 100_000, f"line 1: is nested deeper than {MAX_DEPTH}"),
        ("- " * 100_000, f"line 1: is nested deeper than {MAX_DEPTH}"),
        ("a: " + "{b: " * 5000, f"line 1: is nested deeper than {MAX_DEPTH}"),
        ("a: &a [*a]", "line 1: no YAML: no anchor is before the alias *a, or it is within"),
        ("a: &a {b: *a}", "line 1: no YAML: no anchor is before the alias *a, or it is within"),
        ("? [a]\n: b", "line 1: no YAML: a key is no text"),
        ("%YAML 9.9\n---\na", "line 1: no YAML: found incompatible YAML document"),
    ],
)
def test_yaml_that_cannot_be_read(tmp_path: Path, content: str | bytes, why: str) -> None:
    """Whatever is wrong is one line, which says where."""
    assert why == _why(tmp_path / "x.yml", content)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (DASHBOARD[:-3], "line 1: no JSON: expecting ',' delimiter"),
        ('{"title":\n"D', "line 2: no JSON: unterminated string starting at"),
        ('{"schemaVersion": NaN, "panels": []}', "no JSON: NaN is no number"),
        ("[" * 1_000_000, "is nested too deeply"),
        ('{"panels": [{"max": ' + "9" * 5000 + "}]}", "no JSON: "),
    ],
)
def test_json_that_cannot_be_read(tmp_path: Path, content: str, why: str) -> None:
    """Whatever is wrong is one line, which says where."""
    assert str(_why(tmp_path / "x.json", content)).startswith(why)


def test_a_large_file(tmp_path: Path) -> None:
    """A file that is longer than any dashboard is not read."""
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)

    assert [(str(path), "is longer than 16 MiB")] == _read(path)


def test_a_billion_laughs(tmp_path: Path) -> None:
    """Aliases of aliases are counted as what they stand for, before anybody walks them."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    rules = "\n".join(["groups:", "- name: g", "  rules: &r"] + ["  - {record: a, expr: b}"] * 2000)
    rules += "".join(f"\n- {{name: g{n}, rules: *r}}" for n in range(2000))
    expected = f"holds more than {MAX_VALUES} values, with those that its aliases repeat"

    assert f"line 7: {expected}" == _why(tmp_path / "a.yml", "\n".join(lines))
    assert str(_why(tmp_path / "b.yml", rules)).endswith(expected)


def test_texts_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document within a document that aliases repeat is read so often, and no more."""
    monkeypatch.setattr(documents, "_MAX_LETTERS", 3 * len(DASHBOARD))
    path = tmp_path / "x.yml"
    path.write_text(f"a: &a '{DASHBOARD}'\nb: [*a, *a, *a]\n")

    assert [(str(path), 3), (str(path), "line 2: b.2: the documents within this one are too long")] == _read(path)


def test_a_broken_text_within(tmp_path: Path) -> None:
    """A dashboard within a ConfigMap that cannot be read is told with its name and the line of the file."""
    path = tmp_path / "x.yml"
    path.write_text('kind: ConfigMap\ndata:\n  a.json: |\n    {"panels": [\n  b.json: |\n    ' + DASHBOARD + "\n")

    assert [
        (str(path), 1),
        (str(path), "line 3: data.a.json: line 2: no JSON: expecting value"),
    ] == _read(path)


# --- anything at all --------------------------------------------------------------------------------------------------

_KEYS = st.sampled_from(
    [
        *("groups", "rules", "alert", "record", "expr", "name", "annotations", "labels", "title", "panels", "rows"),
        *(
            "targets",
            "fieldConfig",
            "defaults",
            "overrides",
            "thresholds",
            "steps",
            "value",
            "unit",
            "min",
            "max",
            "type",
        ),
        *("schemaVersion", "templating", "list", "datasource", "elements", "layout", "spec", "items", "kind", "model"),
        *(
            "data",
            "options",
            "mappings",
            "yaxes",
            "seriesOverrides",
            "alert",
            "conditions",
            "evaluator",
            "params",
            "gauge",
        ),
        *(
            "libraryPanel",
            "__elements",
            "__inputs",
            "uid",
            "dashboard",
            "meta",
            "matcher",
            "properties",
            "id",
            "gridPos",
        ),
    ]
)
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.sampled_from(["graph", "row", "singlestat", "Panel", "$x", "__expr__", "null", "1e999", "a,b", '{"panels": 1}']),
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_KEYS, inner, max_size=6)),
    max_leaves=20,
)


def _everything(path: Path) -> None:
    """Read a file, and ask all that may be asked of it."""
    for one in read([str(path)]):
        assert isinstance(one, Document | Unreadable)
        if isinstance(one, Unreadable):
            assert one.message.isprintable()
            continue
        for claim in one.claims:
            assert claim.where.isprintable()
            assert (one.line_of(claim.at) or 1) >= 1
            for query in claim.queries:
                query.expr.encode()
                assert (one.line_of(query.at) or 1) >= 1


_FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(_FUZZ, max_examples=60)
@given(
    value=_VALUES, is_json=st.booleans(), wrap=st.sampled_from(["{}", '{{"panels": [{}], "schemaVersion": 1}}', "[{}]"])
)
def test_any_value(tmp_path: Path, value: object, is_json: bool, wrap: str) -> None:
    """Keys of ours with values of any type where nobody expects them: a document or a line, and never more."""
    path = tmp_path / ("x.json" if is_json else "x.yml")
    path.write_text(wrap.format(json.dumps(value)))

    _everything(path)


@_FUZZ
@given(content=st.binary(max_size=200) | st.text(alphabet="-:{}[]&*a|>#\"'\n ?!%<,\t", max_size=80).map(str.encode))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    """Bytes of any kind, and what is nearly YAML: a document or a line, and never more."""
    for name in ("x.json", "x.yml"):
        (tmp_path / name).write_bytes(content)
        _everything(tmp_path / name)


@_FUZZ
@given(data=st.data())
def test_any_damage(tmp_path: Path, data: st.DataObject) -> None:
    """A good file with some bytes taken out, put in or doubled: a document or a line, and never more."""
    name, content = data.draw(st.sampled_from([("x.yml", RULES.encode()), ("x.json", DASHBOARD.encode())]))
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(begin, min(len(content), begin + 9)))
        content = (
            content[:begin]
            + data.draw(st.sampled_from([b"", b"*a", b"&a ", b"[", b"\n", content[begin:end] * 2]))
            + content[end:]
        )
    (tmp_path / name).write_bytes(content)

    _everything(tmp_path / name)
