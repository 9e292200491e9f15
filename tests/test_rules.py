"""The rules for Prometheus as data and as a file; what they do, tests/prometheus tries."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Done, Run, runner
from test_findings_page import _rows
from test_metrics_reference import listed

from spark_agent.agent import ailments, budget, budget_table
from spark_agent.agent.finding import Severity
from spark_agent.agent.health import KINDS
from spark_agent.exporters import alerts, rules
from spark_agent.exporters.alerts import ALERTS, SILENT, Alert
from spark_agent.exporters.prometheus import Type
from spark_agent.exporters.rules import GROUPS, RECORDINGS, Recording

#: Data held against data, hundreds of times: no Python does that differently.
pytestmark = pytest.mark.once

DOCS = Path(__file__).parent.parent / "docs"
FILE = DOCS / "spark-agent.rules.yml"
PAGE = DOCS / "alerts.md"
#: The last line that people write.
MARK = "<!-- From here on `make golden` writes what exporters/alerts.py and exporters/rules.py say. -->\n"

#: Series that are not the agent's.
FOREIGN = {"up": Type.GAUGE, "node_textfile_mtime_seconds": Type.GAUGE}

#: The longest scrape interval that the rules are for, in seconds.
LONGEST = 60.0

_WORDS = (
    "and or unless on by without group sum count avg min max rate increase avg_over_time last_over_time absent time"
)


def series(expression: str) -> set[str]:
    """Return the names of the series that an expression asks for."""
    bare = re.sub(r"{[^}]*}|\[[^]]*\]|(?:on|by|without) \([^)]*\)|\b[0-9.]+\b", "", expression)
    return set(re.findall(r"[a-z_][a-z0-9_:]*", bare)) - {*_WORDS.split()}


def known() -> dict[str, Type]:
    """Return all that may be asked for, with its type."""
    declared = {family.metric: family.type for families in listed().values() for family in families}
    recorded = dict.fromkeys((one.name for one in RECORDINGS), Type.GAUGE)
    return declared | recorded | FOREIGN


EVERY = tuple(rule for group in GROUPS.values() for rule in group)


def ids(rule: Recording | Alert) -> str:
    """Name a rule."""
    return f"{rule.name}-{rule.severity}" if isinstance(rule, Alert) else rule.name


@pytest.mark.parametrize("rule", EVERY, ids=ids)
def test_what_is_asked_for_is_told(rule: Recording | Alert) -> None:
    """No rule names a metric that nothing declares, and each names one."""
    asked = series(rule.expression)

    assert asked
    assert set() == asked - known().keys()


@pytest.mark.parametrize("rule", EVERY, ids=ids)
def test_labels_are_those_of_the_metric(rule: Recording | Alert) -> None:
    """No selector names a label that its metric does not have; a target's labels have no value in any rule."""
    labels = {family.metric: {*family.labels} for families in listed().values() for family in families}
    for name, matchers in re.findall(r"([a-z0-9_]+){([^}]*)}", rule.expression):
        assert set(re.findall(r"(\w+)=", matchers)) <= labels.get(name, {"file"})
    assert not re.search(r"\b(?:job|instance) *[=!]", rule.expression)


@pytest.mark.parametrize("rule", EVERY, ids=ids)
def test_counters_are_asked_how_fast_they_rise(rule: Recording | Alert) -> None:
    """Never how high they are; and of what is no counter, nobody asks that. No absent power becomes a 0."""
    types = known()
    rising = set(re.findall(r"\b(?:rate|increase)\((\w+)", rule.expression))
    counters = {name for name in series(rule.expression) if types[name] is Type.COUNTER}

    assert rising == counters
    assert not re.search(r"\b(?:vector|absent_over_time|scalar)\b", rule.expression)


@pytest.mark.parametrize("rule", EVERY, ids=ids)
def test_times_suit_the_scrapes(rule: Recording | Alert) -> None:
    """A window holds four scrapes at the least, and an alert waits for a second one."""
    windows = [rules._seconds(window) for window in rules._WINDOW.finditer(rule.expression)]
    assert len(windows) == len(re.findall(r"\b(?:rate|increase|\w+_over_time)\(", rule.expression))
    assert all(window >= 4 * LONGEST for window in windows)
    if isinstance(rule, Alert):
        assert rule.lasting >= LONGEST


def test_no_rule_is_there_twice() -> None:
    """By name, and severity where it is an alert; nor does one expression have two."""
    assert len({*map(ids, EVERY)}) == len(EVERY) == len({rule.expression for rule in EVERY})


@pytest.mark.parametrize("alert", ALERTS, ids=ids)
def test_an_alert_says_what_and_where(alert: Alert) -> None:
    """Which machine, unless there is none; in texts of some words, whose templates are whole."""
    assert (alert.name == "SparkAgentAbsent") != ("{{ $labels.instance }}" in alert.summary)
    assert alert.severity in (Severity.CRITICAL, Severity.WARNING, Severity.INFO)
    assert re.fullmatch(r"Spark[A-Za-z0-9]+", alert.name)
    assert not alert.summary.endswith(".")
    assert alert.description.endswith(".")
    assert len(alert.description.split()) > 5
    for text in (alert.summary, alert.description):
        assert text.count("{{") == len(re.findall(r"{{ \$(?:labels\.\w+|value)(?: \| humanize\w*)? }}", text))


@pytest.mark.parametrize("one", RECORDINGS, ids=ids)
def test_recorded_names_say_level_metric_and_operation(one: Recording) -> None:
    """As Prometheus recommends: the metric is one that it is made of, and a rate has no _total."""
    level, metric, operation = one.name.split(":")

    assert level in ("instance", "fleet")
    assert re.search(rf"\b(?:instance:)?{metric}(?:_total)?\b", one.expression)
    assert operation


def test_measured_and_estimated_are_never_added() -> None:
    """A sum is of one metric; the estimate's leaves out who is measured."""
    for one in RECORDINGS:
        if re.search(r"\bsum\b", one.expression):
            added = series(one.expression.partition(" unless ")[0])
            assert 1 == len(added)
            assert ("estimate" in one.name) == ("estimate" in added.pop())


def test_thresholds_are_those_of_verdicts_and_findings() -> None:
    """The numbers in the rules are the constants of the code that judges, or declared beside the rules."""
    numbers = {
        alert.name: {float(number) for number in re.findall(r"[<>] ([0-9.]+)$", alert.expression, re.MULTILINE)}
        for alert in ALERTS
    }

    assert {name: found for name, found in numbers.items() if found and found != {0.0}} == {
        "SparkLongAtSocLimit": {alerts.LONG_AT_LIMIT},
        "SparkDownShortOfMemory": {ailments.MEMORY_CRITICAL_BYTES},
        "SparkAgentStale": {budget.STALE_SECONDS, alerts.OLD_FILE_SECONDS},
        "SparkAgentLate": {alerts.MISSED_RATIO},
        "SparkAgentCrashes": {alerts.CRASHES},
    }
    (long,) = (alert for alert in ALERTS if alert.name == "SparkLongAtSocLimit")
    assert f'limit="{budget_table.CAPS[0].name}"' in long.expression


def test_every_finding_that_matters_has_an_alert() -> None:
    """In each of its severities above information; the others have a reason why not."""
    passed = {(kind.id, str(severity)) for alert in ALERTS for kind in alert.kinds for severity in _severities(alert)}
    severities = {kind.id: set(re.findall(r"\w+", _rows()[kind.id][0])) for kind in KINDS}
    matter = {(id_, one) for id_, found in severities.items() for one in found & {"critical", "warning", "unknown"}}

    assert matter <= passed
    assert {kind.id for kind in KINDS} == {id_ for id_, _ in passed} | {kind.id for kind in SILENT}
    assert set() == {id_ for id_, _ in passed} & {kind.id for kind in SILENT}
    assert set() == {kind.id for kind in SILENT} & {id_ for id_, _ in matter}


def _severities(alert: Alert) -> set[str]:
    asked = set(re.findall(r'severity="(\w+)"', alert.expression))
    return asked or {str(alert.severity)}


def _content(**how: Any) -> Any:
    return yaml.safe_load(rules.text(**how))


def test_the_file_is_what_the_rules_are() -> None:
    """YAML takes nothing away: each rule comes back as it was, with all of its fields."""
    read = {group["name"]: group["rules"] for group in _content()["groups"]}

    assert list(GROUPS) == list(read)
    for name, group in GROUPS.items():
        for rule, found in zip(group, read[name], strict=True):
            if isinstance(rule, Recording):
                assert {"record": rule.name, "expr": rule.expression} == found
                continue
            assert (rule.name, rule.expression, {"severity": str(rule.severity)}) == (
                found["alert"],
                found["expr"],
                found["labels"],
            )
            assert {
                "summary": rule.summary,
                "description": rule.description,
                "runbook_url": f"docs/alerts.md#{rule.name.lower()}",
            } == found["annotations"]
            assert re.fullmatch(r"\d+[mhd]", found["for"])


def test_who_cannot_wait_has_shorter_times() -> None:
    """All windows and each ``for``, and nothing else."""
    slow, fast = ([rule for group in _content(hurry=hurry)["groups"] for rule in group["rules"]] for hurry in (1, 60))

    for before, after in zip(slow, fast, strict=True):
        assert re.sub(r"\[\d+[smhd]\]", "", before["expr"]) == re.sub(r"\[\d+[smhd]\]", "", after["expr"])
        assert {**before, "expr": "", "for": ""} == {**after, "expr": "", "for": ""}
    assert 'rate(gb10_power_limit_seconds_total{limit="pl1"}[1m]) > 0.95' in [rule["expr"] for rule in fast]
    assert {"1s", "2s", "5s", "10s", "15s"} == {rule["for"] for rule in fast if "for" in rule}


def test_the_runbook_may_be_elsewhere() -> None:
    """Each link leads to its own section there."""
    found = [
        rule["annotations"]["runbook_url"]
        for group in _content(runbook="https://wiki.example/a")["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]

    assert [f"https://wiki.example/a#{alert.name.lower()}" for alert in ALERTS] == found


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command here."""
    return runner(monkeypatch, capsys)


def test_the_command_prints_them(run: Run) -> None:
    """To stdout, and nothing else; with a runbook where it is said to be."""
    assert Done(0, rules.text(), "") == run("rules")
    assert Done(0, rules.text("https://wiki.example/a"), "") == run("rules", "--runbook", "https://wiki.example/a")


def test_the_rules_are_no_machines(run: Run) -> None:
    """Whoever names one is told that it changes nothing."""
    done = run("--demo", "fe-gemm", "rules")

    assert (64, "") == (done.code, done.out)
    assert "the rules are the same for each machine" in done.err


def test_the_shipped_file_is_fresh(request: pytest.FixtureRequest) -> None:
    """docs/spark-agent.rules.yml is what `spark-agent rules` prints; `make golden` puts it there."""
    if request.config.getoption("--update-golden"):
        FILE.write_text(rules.text(), encoding="utf-8")
    else:
        assert rules.text() == FILE.read_text(encoding="utf-8")


def reference() -> str:
    """Return the tables of the runbook, as Markdown."""
    recorded = ((f"`{one.name}`", f"`{' '.join(one.expression.split())}`".replace("|", r"\|")) for one in RECORDINGS)
    told = (
        (
            f"[{alert.name}](#{alert.name.lower()})",
            str(alert.severity),
            f"{alert.lasting / 60:.0f} min",
            ", ".join(f"`{kind.id}`" for kind in alert.kinds),
        )
        for alert in ALERTS
    )
    silent = ((f"`{kind.id}`", why) for kind, why in SILENT.items())
    return (
        f"\n## All alerts\n\n{_table(('alert', 'severity', 'for', 'passes on'), told)}"
        f"\n## Findings without an alert\n\n{_table(('finding', 'why'), silent)}"
        f"\n## Recorded series\n\n{_table(('series', 'is'), recorded)}"
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(cells)} |" for cells in rows)]
    return "\n".join(lines) + "\n"


def test_the_runbooks_tables_are_what_the_rules_say(ends_with: Callable[[Path, str, str], None]) -> None:
    """A rule that changes shows there; `make golden` puts it there."""
    ends_with(PAGE, MARK, reference())


def test_every_alert_has_a_section() -> None:
    """In the order of the rules, each with words of what it means and of what to do."""
    prose, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    parts = re.split(r"^### (\S+)\n", prose, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], (part.split("\n## ")[0] for part in parts[2::2]), strict=True))

    assert list(dict.fromkeys(alert.name for alert in ALERTS)) == list(sections)
    for name, text in sections.items():
        assert "**Do**" in text, name
        severities = {str(alert.severity) for alert in ALERTS if alert.name == name}
        assert len(severities) == 1 or all(f"*{severity}*" in text.lower() for severity in severities), name


def test_the_runbook_names_metrics_that_are_there() -> None:
    """No metric that a person wrote about is one that was renamed since."""
    prose, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    named = set(re.findall(r"(?<![\w:])(?:(?:fleet|instance):)?(?:gb10|spark_agent)_[a-z0-9_:]*[a-z0-9]", prose))

    assert named
    assert set() == named - known().keys()


def test_the_gates_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric that nothing declares, and an alert without a section."""
    assert {"gb10_no_such_watts"} == series('sum(gb10_no_such_watts{scope="soc"}) > 1') - known().keys()
    before = reference()
    monkeypatch.setattr(rules, "RECORDINGS", ())
    monkeypatch.setitem(SILENT, KINDS[0], "why")

    assert before != reference()
