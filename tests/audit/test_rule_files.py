"""Rule files: what alerts and recording rules claim, with their words and lines."""

from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from spark_agent.agent.audit import syntax
from spark_agent.agent.audit.claim import Claim, Document, Query, Shape, Unreadable
from spark_agent.agent.audit.files import read


@pytest.fixture(autouse=True, params=["libyaml", "pure"])
def _loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyYAML has no libyaml, its own parser does."""
    if request.param == "pure":
        monkeypatch.setattr(syntax, "_LOADER", yaml.SafeLoader)


def _read(tmp_path: Path, text: str, name: str = "rules.yml") -> list[Document | Unreadable]:
    path = tmp_path / name
    path.write_text(dedent(text))
    return list(read([str(path)]))


def _document(tmp_path: Path, text: str, name: str = "rules.yml") -> Document:
    (document,) = _read(tmp_path, text, name)
    assert isinstance(document, Document), document
    return document


def _messages(tmp_path: Path, text: str) -> list[str]:
    return [one.message for one in _read(tmp_path, text) if isinstance(one, Unreadable)]


RULES = """\
    # A file for a cluster of Sparks.
    groups:
      - name: gpu
        rules:
          # Total power consumption (watts)
          - record: cluster:power_watts:sum
            expr: sum(DCGM_FI_DEV_POWER_USAGE)   # all of them

          # Too hot
          # for a desk.
          - alert: GpuHot
            expr: |
              # One card.
              DCGM_FI_DEV_GPU_TEMP > 85
            for: 5m
            labels: {severity: 1, team: "on"}
            annotations:
              summary: "{{ $labels.instance }} # is hot"
              # Nobody reads this.
              description: >-
                Look at
                the fan.
          # About the next.

          - alert: Next
            expr: up == 0
    """


def test_rules_are_claims(tmp_path: Path) -> None:
    """An alert and a recording rule have their expression, labels, group, and all words: annotations and comments."""
    record, alert, following = _document(tmp_path, RULES).claims

    assert record == Claim(
        Shape.RECORD,
        'group "gpu" › record "cluster:power_watts:sum"',
        ("groups", 0, "rules", 0),
        "cluster:power_watts:sum",
        (Query("sum(DCGM_FI_DEV_POWER_USAGE)", ("groups", 0, "rules", 0, "expr")),),
        description="Total power consumption (watts)\nall of them",
        context=("gpu",),
    )
    assert alert == Claim(
        Shape.ALERT,
        'group "gpu" › alert "GpuHot"',
        ("groups", 0, "rules", 1),
        "GpuHot",
        (Query("# One card.\nDCGM_FI_DEV_GPU_TEMP > 85\n", ("groups", 0, "rules", 1, "expr")),),
        description=(
            "{{ $labels.instance }} # is hot\nLook at the fan.\nToo hot\nfor a desk.\nNobody reads this.\nOne card."
        ),
        context=("gpu",),
        labels={"severity": "1", "team": "on"},
    )
    assert "" == following.description


def test_rules_know_their_lines(tmp_path: Path) -> None:
    """A rule is where it begins, its expression where that stands."""
    document = _document(tmp_path, RULES)

    assert [(6, 7), (11, 12), (25, 26)] == [
        (document.line_of(claim.at), document.line_of(claim.queries[0].at)) for claim in document.claims
    ]


def test_several_documents(tmp_path: Path) -> None:
    """A file may hold several documents; lines are those of the file."""
    document = _document(
        tmp_path,
        """\
        ---
        groups: [{name: a, rules: [{record: "x:y", expr: up}]}]
        ---
        namespace: team
        groups:
          - name: b
            labels: {site: here, severity: info}
            rules:
              - alert: Down
                expr: up == 0
                labels: {severity: page}
        """,
    )

    assert [(2, ("a",), {}), (9, ("team", "b"), {"site": "here", "severity": "page"})] == [
        (document.line_of(claim.at), claim.context, claim.labels) for claim in document.claims
    ]


def test_a_file_without_rules_is_one(tmp_path: Path) -> None:
    """No groups, no rules: nothing is wrong with that."""
    for text in ("groups: []\n", "groups:\n", "groups: [{name: a, rules: []}]\n", "groups: [{name: a}]\n"):
        assert () == _document(tmp_path, text).claims


CRD = """\
    apiVersion: monitoring.coreos.com/v1
    kind: PrometheusRule
    metadata: {name: power}
    spec:
      groups:
        - name: gpu
          rules:
            - record: a:b
              expr: up
    """


def test_a_custom_resource(tmp_path: Path) -> None:
    """The rules of a PrometheusRule are found, alone and in a List."""
    alone = _document(tmp_path, CRD)
    listed = _document(tmp_path, "kind: List\nitems:\n- " + dedent(CRD).replace("\n", "\n  "))

    assert [("spec", "groups", 0, "rules", 0)] == [claim.at for claim in alone.claims]
    assert [("items", 0, "spec", "groups", 0, "rules", 0)] == [claim.at for claim in listed.claims]
    assert [8, 10] == [found.line_of(found.claims[0].at) for found in (alone, listed)]


def test_a_config_map(tmp_path: Path) -> None:
    """Rules and dashboards in the texts of a ConfigMap are found, on their lines of the file."""
    document = _document(
        tmp_path,
        """\
        kind: ConfigMap
        data:
          rules.yml: |

            groups:
              - name: gpu
                rules:
                  # Whole box
                  - record: a:b
                    expr: up
          power.json: |-
            {"title": "Power", "schemaVersion": 39, "panels": [
              {"type": "stat", "title": "Draw",
               "targets": [{"expr": "node_watts"}]}
            ]}
          folded.json: '{"title": "F", "schemaVersion": 39,

            "panels": [{"targets": [{"expr": "one"}]}]}'
          notes.txt: nothing of ours
        """,
    )

    assert [("up", 10, "Whole box"), ("node_watts", 14, ""), ("one", 16, "")] == [
        (claim.queries[0].expr, document.line_of(claim.queries[0].at), claim.description) for claim in document.claims
    ]


def test_what_a_server_says_of_its_rules(tmp_path: Path) -> None:
    """The answer of ``/api/v1/rules``, saved, is read as well."""
    document = _document(
        tmp_path,
        """\
        {"status": "success", "data": {"groups": [{"name": "gpu", "file": "/etc/r.yml", "rules": [
          {"name": "Hot", "type": "alerting", "query": "t > 85", "labels": {"severity": "page"},
           "annotations": {"summary": "too hot"}},
          {"name": "a:b", "type": "recording", "query": "sum(up)"}
        ]}]}}
        """,
        "rules.json",
    )

    assert [(Shape.ALERT, "Hot", "t > 85", "too hot", 2), (Shape.RECORD, "a:b", "sum(up)", "", 4)] == [
        (one.shape, one.title, one.queries[0].expr, one.description, document.line_of(one.queries[0].at))
        for one in document.claims
    ]


def test_a_ruler_of_logs(tmp_path: Path) -> None:
    """Loki's rules have the same form; what is LogQL is not judged as PromQL."""
    document = _document(
        tmp_path,
        """\
        groups:
          - name: logs
            rules:
              - {alert: A, expr: 'sum(rate({app="x"} |= "error" [5m])) > 1'}
              - {alert: B, expr: 'sum(rate({app="x"} | json | level="error" [5m])) > 1'}
              - {alert: C, expr: 'rate(up{app=~"(a|b)"}[5m]) > 1'}
        """,
    )

    assert ["loki", "loki", None] == [claim.queries[0].foreign for claim in document.claims]


def test_merged_keys(tmp_path: Path) -> None:
    """Anchors, aliases and ``<<`` are followed, and what a rule says itself wins."""
    document = _document(
        tmp_path,
        """\
        groups:
          - name: gpu
            rules:
              - &first
                alert: First
                expr: &up up == 0
                labels: {severity: page}
              - <<: *first
                alert: Second
              - {alert: Third, expr: *up}
        """,
    )

    assert [("First", "up == 0", "page"), ("Second", "up == 0", "page"), ("Third", "up == 0", None)] == [
        (claim.title, claim.queries[0].expr, claim.labels.get("severity")) for claim in document.claims
    ]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{alert: A}", 'line 5: group "gpu" › alert "A" has no expr'),
        ("{record: 'a:b', expr: ' '}", 'line 5: group "gpu" › record "a:b" has no expr'),
        ("{expr: up}", 'line 5: group "gpu": rule 2 has neither alert nor record'),
        ("{alert: A, record: b, expr: up}", 'line 5: group "gpu": rule 2 has both alert and record'),
        ("{alert: [], expr: up}", 'line 5: group "gpu": rule 2 has no name'),
        ("[]", 'line 5: group "gpu": rule 2 is no mapping'),
        ("{alert: A, expr: [up]}", 'line 5: group "gpu" › alert "A" has no expr'),
    ],
)
def test_a_broken_rule(tmp_path: Path, rule: str, message: str) -> None:
    """One rule that is broken is named with its line; the others are read."""
    text = f"""\
        groups:
          - name: gpu
            rules:
              - {{alert: Good, expr: up == 0}}
              - {rule}
              - {{alert: Better, expr: up == 0}}
        """
    document, unreadable = _read(tmp_path, text)

    assert isinstance(document, Document)
    assert ["Good", "Better"] == [claim.title for claim in document.claims]
    assert Unreadable(document.name, message) == unreadable


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("groups: {name: a}\n", "line 1: groups is no list"),
        ("groups: [a]\n", "line 1: group 1 is no mapping"),
        ("groups: [{name: a, rules: b}]\n", 'line 1: group "a": rules is no list'),
        ("groups:\n - name: a\n   rules: [\n", "line 4: no YAML: "),
        ("groups: [{name: a, rules: [{alert: A, alert: B}]}]\n", "line 1: no YAML: alert stands twice"),
        ("groups: [{name: a, rules: [{alert: A, expr: *no}]}]\n", "line 1: no YAML: no anchor is before the alias *no"),
        ("groups:\n- name: {{ .Values.x }}\n", "is a Helm template: render it first (helm template …)"),
        (
            "groups: [{name: a, rules: [{alert: A, expr: 'up > {{ .Values.max }}'}]}]\n",
            "is a Helm template: render it first (helm template …)",
        ),
        ("{{- if true }}\ngroups: []\n{{- end }}\n", "is a Helm template: render it first (helm template …)"),
        ("{% for a in b %}\ngroups: []\n{% endfor %}\n", "is a Jinja template: render it first"),
    ],
)
def test_a_broken_file(tmp_path: Path, text: str, message: str) -> None:
    """A file that is ours and broken is told in one line, with where and why."""
    (told,) = _messages(tmp_path, text)

    assert told.startswith(message)


def test_templates_of_prometheus_are_none_of_helm(tmp_path: Path) -> None:
    """Annotations have templates of their own, at the beginning of a line too."""
    document = _document(
        tmp_path,
        """\
        groups:
          - name: a
            rules:
              - alert: A
                expr: up == 0
                annotations:
                  description: |
                    {{ if gt $value 1.0 }}{{ $labels.instance }}{{ end }}
                    {{ range query "up" }}{{ . }}{{ end }}
        """,
    )

    assert 1 == len(document.claims)
    assert "range query" in document.claims[0].description


def test_many_faults(tmp_path: Path) -> None:
    """A file full of faults is told of in some lines, and how many more there are."""
    told = _messages(tmp_path, "groups:\n- name: a\n  rules:\n" + "  - {expr: up}\n" * 50)

    assert 21 == len(told)
    assert "and 30 faults more" == told[-1]
