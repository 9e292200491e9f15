"""The command ``audit``: what it reads, what it leaves out because its owner said so, and what it exits with."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audits import EXAMPLES
from commands import Done, Run, runner

AGENT = (sys.executable, "-m", "spark_agent.agent")
NAMESPACE = Path(__file__).parents[2] / ".namespace"

#: One of each severity, and none.
ERROR = "PWR008-wrong.json"
WARNING = "PWR001-wrong.json"
INFO = "PWR005-wrong.json"
CLEAN = "PWR001-right.json"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command here, from the folder of the examples."""
    monkeypatch.chdir(EXAMPLES)
    return runner(monkeypatch, capsys, "audit")


def _dashboard(*panels: dict[str, Any], title: str = "D") -> str:
    return json.dumps({"title": title, "schemaVersion": 39, "panels": panels}, indent=1)


def _panel(title: str, expr: str, **more: Any) -> dict[str, Any]:
    return {"id": 1, "type": "stat", "title": title, "targets": [{"expr": expr}], **more}


def _rules(*rules: str) -> str:
    return "groups:\n- name: power\n  rules:\n" + "".join(rules)


def _found(done: Done) -> list[str]:
    return [one["rule"] for one in json.loads(done.out)["findings"]]


# Exit codes


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ((CLEAN,), 0),
        ((INFO,), 0),
        ((WARNING,), 1),
        ((ERROR,), 2),
        ((WARNING, INFO), 1),
        ((WARNING, ERROR, CLEAN), 2),
        (("no-such.yml",), 3),
        ((ERROR, "no-such.yml"), 3),
        ((".",), 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst(run: Run, names: tuple[str, ...], code: int) -> None:
    """0 for nothing worse than info, 1 for warnings, 2 for errors; 3 where something was not audited."""
    done = run(*names)

    assert (code, "") == (done.code, done.err)


@pytest.mark.parametrize("form", ["text", "json", "sarif", "github"])
def test_the_exit_code_does_not_depend_on_the_output(run: Run, form: str) -> None:
    """Nor on whether anybody reads it."""
    assert [0, 1, 2, 3] == [run(name, "-o", form).code for name in (CLEAN, WARNING, ERROR, "no-such.yml")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "nothing to audit: name files"),
        (("--output", "xml", CLEAN), "'xml' is not one of"),
        (("--target", "h200", CLEAN), "'h200' is not one of"),
        (("--sparks", "0", CLEAN), "0 is not in the range"),
        (("--surprise", CLEAN), "No such option"),
    ],
)
def test_wrong_usage_is_64(run: Run, arguments: tuple[str, ...], says: str) -> None:
    """And says what is wrong."""
    done = run(*arguments)

    assert (64, "") == (done.code, done.out)
    assert says in done.err


def test_a_machine_has_nothing_to_be_audited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--demo`` before ``audit`` is a mistake, and not ignored."""
    done = runner(monkeypatch, capsys, "--demo", "fe-gemm", "audit")(EXAMPLES / CLEAN)

    assert (64, "") == (done.code, done.out)
    assert "an audit looks at files and servers" in done.err


@pytest.mark.parametrize(
    ("option", "text", "says"),
    [
        ("--metrics", None, "No such file or directory"),
        ("--metrics", "[metrics.a]\nscope = 'box'\n", "[metrics.a] scope is 'box'"),
        ("--metrics", "\xff", ""),
        ("--baseline", None, "No such file or directory"),
        ("--baseline", "{", "is no JSON"),
        ("--baseline", "[" * 100_000, "is no JSON"),
        ("--baseline", "[]", "is no baseline"),
        ("--baseline", '{"findings": []}', "is no baseline"),
        ("--baseline", '{"baseline": 2, "findings": []}', "is a baseline of version 2"),
        ("--baseline", '{"baseline": 1, "findings": [{"rule": "PWR001"}]}', "is no baseline"),
        ("--baseline", '{"baseline": 1, "findings": 3}', "is no baseline"),
    ],
)
def test_a_broken_configuration_is_78(run: Run, tmp_path: Path, option: str, text: str | None, says: str) -> None:
    """A file that the options name is told by its path, in one line."""
    file = tmp_path / "file"
    if text is not None:
        file.write_text(text, encoding="latin-1")
    done = run(CLEAN, option, file)

    assert (78, "") == (done.code, done.out)
    assert done.err.startswith(f"spark-agent: {file}: {says}")
    assert 1 == done.err.count("\n")


# What is read


def test_several_paths_are_judged_together(run: Run, tmp_path: Path) -> None:
    """A recording rule in one file is known in another, whichever comes first."""
    rules, panels = tmp_path / "rules.yml", tmp_path / "panels.json"
    rules.write_text(_rules("  - {record: 'lab:watts', expr: 'sum(DCGM_FI_DEV_POWER_USAGE)'}\n"))
    panels.write_text(_dashboard(_panel("Cluster power", "lab:watts")))

    assert ["PWR001"] == _found(run(panels, rules, "-o", "json"))
    assert ["PWR001"] == _found(run(rules, panels, "-o", "json"))
    assert [] == _found(run(panels, "-o", "json"))


def test_what_cannot_be_read_stops_nothing(run: Run, tmp_path: Path) -> None:
    """The rest is audited, and each failure is told with its reason."""
    broken = tmp_path / "broken.yml"
    broken.write_text("groups: [\n")
    done = run("no-such.yml", WARNING, broken, "-o", "json")
    told = json.loads(done.out)

    assert 3 == done.code
    assert {"PWR001"} == {one["rule"] for one in told["findings"]}
    assert ["no-such.yml", str(broken)] == [one["file"] for one in told["errors"]]


def _standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` is what a pipe brings, JSON or YAML."""
    _standard_input(monkeypatch, (EXAMPLES / WARNING).read_bytes())
    done = run("-", CLEAN)

    assert 1 == done.code
    assert done.out.startswith("standard input:11: warning: PWR001 ")


@pytest.mark.parametrize(("content", "says"), [(b"", "is empty"), (b"hello", "is neither a rule file nor a dashboard")])
def test_standard_input_without_anything(run: Run, monkeypatch: pytest.MonkeyPatch, content: bytes, says: str) -> None:
    """It is told, like a file."""
    _standard_input(monkeypatch, content)
    done = run("-")

    assert 3 == done.code
    assert f"standard input: not audited: {says}" in done.out


# What is meant


def test_any_machine(run: Run) -> None:
    """Of machines that are no Sparks nobody knows what they can draw, but what a metric covers."""
    assert [1, 0] == [run("PWR007-wrong.json", "--target", target).code for target in ("gb10", "any")]
    assert [1, 1] == [run(WARNING, "--target", target).code for target in ("gb10", "any")]


def test_more_sparks(run: Run, tmp_path: Path) -> None:
    """A sum may reach as much as all of them."""
    rules = tmp_path / "rules.yml"
    rules.write_text(_rules("  - {alert: AllGpusBusy, expr: 'sum(DCGM_FI_DEV_POWER_USAGE) > 300'}\n"))

    assert [1, 0] == [run(rules).code, run(rules, "--sparks", "3").code]


def test_own_metrics(run: Run, tmp_path: Path) -> None:
    """What nobody knew is judged by what its owner says."""
    panels, own = tmp_path / "panels.json", tmp_path / "own.toml"
    panels.write_text(_dashboard(_panel("Node power", "acme_feed_watts")))
    own.write_text('[metrics.acme_feed_watts]\nscope = "gpu"\nunit = "W"\n')

    assert "nobody knows what these cover, so they were not judged: acme_feed_watts" in run(panels).out
    assert ["PWR001"] == _found(run(panels, "--metrics", own, "-o", "json"))


# What its owner accepts


def test_a_baseline_accepts_what_it_has(run: Run, tmp_path: Path) -> None:
    """Written once, it leaves out all that was found then, and only that."""
    file = tmp_path / "baseline.json"
    run(WARNING, ERROR, "--write-baseline", file)
    known = run(WARNING, ERROR, "--baseline", file)
    more = run(WARNING, ERROR, "PWR010-wrong.json", "--baseline", file, "-o", "json")

    assert 0 == known.code
    assert known.out.startswith("no findings in")
    assert "11 accepted by the baseline" in known.out
    assert {"PWR010"} == set(_found(more))


def test_a_baseline_outlives_lines(run: Run, tmp_path: Path) -> None:
    """What moves within its file is still the same; what changes is new, and what is gone is told."""
    file, panels = tmp_path / "baseline.json", tmp_path / "panels.json"
    one, two = _panel("Node power", "DCGM_FI_DEV_POWER_USAGE"), _panel("Temperature", "DCGM_FI_DEV_GPU_TEMP")
    panels.write_text(_dashboard(one))
    run(panels, "--write-baseline", file)
    panels.write_text(_dashboard(two, one))
    assert 0 == run(panels, "--baseline", file).code
    panels.write_text(_dashboard(_panel("Node power", "sum(DCGM_FI_DEV_POWER_USAGE)")))
    changed = run(panels, "--baseline", file)

    assert 1 == changed.code
    assert "1 entry of the baseline no longer found" in changed.out


def test_a_baseline_is_kept_up(run: Run, tmp_path: Path) -> None:
    """Read and written at once, it keeps what is still there, takes what is new, and drops the rest."""
    file = tmp_path / "baseline.json"
    run(WARNING, INFO, "--write-baseline", file)
    run(WARNING, ERROR, "--baseline", file, "--write-baseline", file)
    rules = {one["rule"] for one in json.loads(file.read_text(encoding="utf-8"))["findings"]}

    assert {"PWR001", "PWR008"} == rules
    assert [file] == list(tmp_path.iterdir())


def test_a_baseline_that_cannot_be_written_is_78(run: Run, tmp_path: Path) -> None:
    """And says why."""
    file = tmp_path / "none" / "baseline.json"
    done = run(WARNING, "--write-baseline", file)

    assert (78, f"spark-agent: {file}: No such file or directory\n") == (done.code, done.err)


_BAD = "    expr: sum(DCGM_FI_DEV_POWER_USAGE)\n"


@pytest.mark.parametrize(
    "rule",
    [
        f"  # spark-agent: disable PWR001 the wall display needs it short\n  - record: cluster:watts:sum\n{_BAD}",
        f"  - record: cluster:watts:sum\n    # spark-agent: disable PWR001 known since May\n{_BAD}",
        f"  - record: cluster:watts:sum # spark-agent: disable PWR001 known since May\n{_BAD}",
        f"  - record: cluster:watts:sum\n    expr: |\n      # spark-agent: disable PWR001 known\n      {_BAD[10:]}",
        f"  # spark-agent: disable PWR002,PWR001 both are known\n  - record: cluster:watts:sum\n{_BAD}",
        f"  # spark-agent: disable pwr001 — known since May\n  - record: cluster:watts:sum\n{_BAD}",
    ],
    ids=["above", "inside", "behind", "in the expression", "several", "small letters"],
)
def test_a_rule_is_disabled_by_a_comment(run: Run, tmp_path: Path, rule: str) -> None:
    """Above the rule or anywhere in it, with a reason."""
    file = tmp_path / "rules.yml"
    file.write_text(_rules(rule, f"  - record: node:watts\n{_BAD}"), encoding="utf-8")
    told = json.loads(run(file, "-o", "json").out)

    assert ['group "power" › record "node:watts"'] == [one["where"] for one in told["findings"]]


def test_a_panel_is_disabled_by_its_description(run: Run, tmp_path: Path) -> None:
    """As JSON has no comments; an expression has, and one of two rules may be left."""
    file = tmp_path / "panels.json"
    accepted = "For the hall.\nspark-agent: disable PWR001 the hall knows"
    expr = "DCGM_FI_DEV_POWER_USAGE or vector(0)"
    file.write_text(
        _dashboard(
            _panel("Node power", expr, description=accepted),
            _panel("Node power", f"{expr} # spark-agent: disable PWR010 the wall display hides gaps"),
        )
    )

    assert ["PWR010", "PWR001"] == _found(run(file, "-o", "json"))


@pytest.mark.parametrize("reason", ["", "  ", " - ", " :"])
def test_nothing_is_disabled_without_a_reason(run: Run, tmp_path: Path, reason: str) -> None:
    """It is told as before, and that a reason is missing."""
    file = tmp_path / "rules.yml"
    file.write_text(_rules(f"  # spark-agent: disable PWR001{reason}\n  - record: cluster:watts:sum\n{_BAD}"))
    done = run(file)

    assert 1 == done.code
    assert "to disable this takes a reason" in done.out


def test_what_is_disabled_says_nothing_about_power(run: Run, tmp_path: Path) -> None:
    """The words of a reason are no words of the panel: "GPU" in it makes no title right."""
    file = tmp_path / "panels.json"
    accepted = "spark-agent: disable PWR010 GPU gaps are hidden"
    file.write_text(_dashboard(_panel("Node power", "DCGM_FI_DEV_POWER_USAGE or vector(0)", description=accepted)))

    assert ["PWR001"] == _found(run(file, "-o", "json"))


def test_an_unknown_rule_disables_nothing(run: Run, tmp_path: Path) -> None:
    """Nor does one that stands in another panel."""
    file = tmp_path / "panels.json"
    file.write_text(
        _dashboard(
            _panel("Node power", "DCGM_FI_DEV_POWER_USAGE", description="spark-agent: disable PWR999 no such rule"),
            _panel("Draw", "up", description="spark-agent: disable PWR001 elsewhere"),
        )
    )

    assert ["PWR001"] == _found(run(file, "-o", "json"))


# What reaches the terminal


_STEERING = "\x1b[31m\x9b31m\x07\x08\r\x7f\u202e\u2028"


@pytest.mark.parametrize("form", ["text", "json", "sarif", "github"])
def test_no_file_steers_the_terminal(run: Run, tmp_path: Path, form: str) -> None:
    """Titles, expressions, legends, and names of files are of others: no escape of theirs gets through."""
    folder = tmp_path / f"x{_STEERING}"
    folder.mkdir()
    expr = f'DCGM_FI_DEV_POWER_USAGE{{a="{_STEERING}"}}'
    (folder / f"{_STEERING}.json").write_text(
        _dashboard(_panel(f"Node {_STEERING} power", expr), _panel("Node", f"sum({_STEERING}"), title=_STEERING)
    )
    (folder / f"broken{_STEERING}.yml").write_text(f'groups: ["{_STEERING}"\n')
    done = run(folder, "-o", form)

    assert 3 == done.code
    assert "PWR001" in done.out
    assert "broken" in done.out
    assert [] == [letter for letter in done.out if not letter.isprintable() and letter != "\n"]


@pytest.mark.parametrize("form", ["text", "github"])
def test_no_colours(run: Run, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """A compiler's form has none, whatever the terminal can do."""
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert "\x1b" not in run(".", "-o", form).out


def test_github_commands_cannot_be_forged(run: Run, tmp_path: Path) -> None:
    """A title is data: it begins no line, so no command of GitHub Actions either."""
    file = tmp_path / "panels.json"
    file.write_text(
        _dashboard(_panel("Node power\n::error::forged", "DCGM_FI_DEV_POWER_USAGE # \r\n# ::stop-commands::x"))
    )
    lines = run(file, "-o", "github").out.splitlines()

    assert 1 == len(lines)
    assert lines[0].startswith("::warning file=")


def test_sarif_names_files_as_addresses(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A space, a percent or an umlaut in a path is escaped: the field is a URI."""
    monkeypatch.chdir(tmp_path)
    Path("my rules 100%").mkdir()
    Path("my rules 100%/ü.json").write_text(_dashboard(_panel("Node power", "DCGM_FI_DEV_POWER_USAGE")))
    (run_of_it,) = json.loads(run("my rules 100%", "-o", "sarif").out)["runs"]
    (result,) = run_of_it["results"]

    assert "my%20rules%20100%25/%C3%BC.json" == result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]


# As a process


def _process(*arguments: str | Path, **more: Any) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        (*AGENT, "audit", *map(str, arguments)),
        env=os.environ | {"PYTHONPATH": str(NAMESPACE)},
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
        **more,
    )


@pytest.fixture
def no_reader() -> Iterator[int]:
    """Yield a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_reader_that_has_gone_is_no_error(no_reader: int, form: str) -> None:
    """As after ``| head -1``: not a word, and the code of a command that SIGPIPE ended, never 1 for warnings."""
    done = _process(EXAMPLES, "-o", form, stdout=no_reader)

    assert (141, b"") == (done.returncode, done.stderr)


def test_closed_standard_input_is_told() -> None:
    """``spark-agent audit - <&-``."""
    line = f"{' '.join(AGENT)} audit - <&-"
    environment = os.environ | {"PYTHONPATH": str(NAMESPACE)}
    done = subprocess.run(("sh", "-c", line), env=environment, capture_output=True, timeout=120, check=False)

    assert (3, b"") == (done.returncode, done.stderr)
    assert b"standard input: not audited: cannot be read" in done.stdout


# Without promql-parser, as in the Debian package


@pytest.mark.parametrize("arguments", [("audit", "."), ("serve", "--check-config", "--audit=.")])
def test_without_the_parser(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The audit says what it needs, and so does the daemon that is to audit."""
    for module in ("cli", "auditor"):
        monkeypatch.setattr(f"spark_agent.agent.{module}.find_spec", lambda _: None)
    done = runner(monkeypatch, capsys)(*arguments)

    assert 78 == done.code
    assert "needs the package promql-parser" in done.err


@pytest.mark.parametrize("command", ["rules", "dashboards", "--demo fe-stock snapshot --only gpu"])
def test_nothing_else_needs_it(command: str) -> None:
    """Rules and dashboards name metrics, and parse nothing."""
    code = (
        f"import sys; sys.argv = ['spark-agent', *'{command}'.split()]\n"
        "from spark_agent.agent.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: sys.exit(end.code or 'promql_parser' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(NAMESPACE)}
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, env=environment, check=False)

    assert (0, "") == (done.returncode, done.stderr)
