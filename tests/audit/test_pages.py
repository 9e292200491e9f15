"""The pages of the audit: each rule has one, and what they show is what the examples hold and the audit says."""

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import click
import pytest
from audits import EXAMPLES, audited

from spark_agent.agent import cli
from spark_agent.agent.audit import expression
from spark_agent.agent.audit.audit import Audit
from spark_agent.agent.audit.catalogue import UNITS, Extent
from spark_agent.agent.audit.rule import RULES
from spark_agent.exporters.audit_report import Format, tell

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "audit.md"
RULE_PAGES = DOCS / "audit"

#: A snippet of an example, and below it, where it is a wrong one, what the audit says of it.
_SNIPPET = re.compile(r"```(json|yaml)\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
_SUFFIXES = {"json": "json", "yaml": "yml"}


def _page(rule: str) -> str:
    return (RULE_PAGES / f"{rule}.md").read_text(encoding="utf-8")


def _sections(rule: str) -> dict[str, str]:
    parts = re.split(r"^## (.*)\n", _page(rule), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_rule_has_its_page() -> None:
    """And no page is without a rule, but for the catalogue's."""
    assert {f"{rule}.md" for rule in RULES} | {"catalogue.md"} == {path.name for path in RULE_PAGES.iterdir()}


@pytest.mark.parametrize("rule", RULES)
def test_a_page_begins_with_its_rule(rule: str) -> None:
    """Id, name, severity and what it is are the code's; the sections are the same on all."""
    known = RULES[rule]

    assert _page(rule).startswith(f"# {rule} {known.name}\n\n*{known.severity.capitalize()}: {known.what}.*\n\n")
    assert ["Wrong", "Right", "Why", "When to disable it"] == list(_sections(rule))
    assert all(len(text.split()) > 5 for text in _sections(rule).values())


@pytest.mark.parametrize("kind", ["wrong", "right"])
@pytest.mark.parametrize("rule", RULES)
def test_snippets_are_the_examples(rule: str, kind: str) -> None:
    """What a page calls wrong or right is, letter by letter, in the example that a test audits."""
    snippets = list(_SNIPPET.finditer(_sections(rule)[kind.capitalize()]))

    assert snippets
    for match in snippets:
        suffix = _SUFFIXES[match[1]]
        example = (EXAMPLES / f"{rule}-{kind}.{suffix}").read_text(encoding="utf-8")
        assert indent(match[2], " " * {"json": 4, "yml": 6}[suffix]).rstrip() in example


def _said(rule: str, kind: str, snippet: str) -> str:
    """Return what the audit says of a snippet, as a terminal shows it."""
    findings = audited(f"{rule}-wrong.{_SUFFIXES[kind]}").findings
    (title,) = re.findall(r'(?:"title"|record|alert): "?([^"\n]+)', snippet)
    (about,) = (one for one in findings if f'"{title}"' in one.where)
    return tell(Audit((about,), ()), Format.TEXT).rpartition("\n1 ")[0] + "\n"


@pytest.mark.parametrize("rule", RULES)
def test_pages_say_what_the_audit_says(
    rule: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Below each wrong snippet; ``--update-golden`` rewrites it."""
    monkeypatch.chdir(EXAMPLES)
    wrong = _sections(rule)["Wrong"]
    new = _SNIPPET.sub(
        lambda match: f"```{match[1]}\n{match[2]}```\n\n```text\n{_said(rule, match[1], match[2])}```\n", wrong
    )
    if request.config.getoption("--update-golden"):
        (RULE_PAGES / f"{rule}.md").write_text(_page(rule).replace(wrong, new), encoding="utf-8")

    assert new == _sections(rule)["Wrong"]


def test_bounds_are_those_of_the_code() -> None:
    """Where a page names a figure of the parser's."""
    page = _page("PWR000")

    assert f"longer than {expression.MAX_CHARACTERS} characters" in page
    assert f"deeper than {expression.MAX_DEPTH} levels" in page
    assert f"more than {expression.MAX_OPERATORS} operators" in page


# The page of the command


TEXT = PAGE.read_text(encoding="utf-8")
_EXAMPLE = re.compile(r"^(```console\n\$ spark-agent audit (\S+)\n)(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_first_example_is_real(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """It shows what the command says; ``--update-golden`` rewrites it."""
    monkeypatch.chdir(EXAMPLES)
    match = _EXAMPLE.search(TEXT)
    assert match
    new = TEXT.replace(match[0], f"{match[1]}{tell(audited(match[2]), Format.TEXT)}```")
    if request.config.getoption("--update-golden"):
        PAGE.write_text(new, encoding="utf-8")

    assert new == PAGE.read_text(encoding="utf-8")


def test_every_rule_is_in_the_table() -> None:
    """With its name, its usual severity, and what it is, in order, each linked to its page."""
    rows = re.findall(
        r"^\| \[(PWR\d{3})\]\(audit/(PWR\d{3})\.md\) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE
    )

    assert [(one.id, one.id, one.name, one.severity, one.what) for one in RULES.values()] == rows


def _options() -> Iterator[str]:
    command = cli.commands.get_command(click.Context(cli.commands), "audit")
    assert command
    yield from (option for parameter in command.params for option in parameter.opts if option.startswith("--"))


def test_every_option_is_told() -> None:
    """And none that there is not."""
    told = set(re.findall(r"^\| `(--[a-z-]+)", TEXT, re.MULTILINE))

    assert set(_options()) - {"--help"} == told


def test_scopes_and_units_of_own_metrics_are_told() -> None:
    """All that a user's own catalogue may say."""
    section = TEXT.partition("## Metrics of your own")[2].partition("\n## ")[0]

    assert {one.value for one in Extent if one is not Extent.MIXED} <= set(re.findall(r"`(\w+)`", section))
    assert set(UNITS) <= set(re.findall(r"`([\wµ]+)`", section))


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", [PAGE, *sorted(RULE_PAGES.glob("*.md"))], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """To a file that is there, and to a title in it."""
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", path.read_text(encoding="utf-8")):
        page = (path.parent / target) if target else path
        assert page.exists(), target
        titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in map(_anchor, titles), anchor
