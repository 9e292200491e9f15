"""``docs/metrics.md`` lists what is exported, and nothing else; ``make golden`` (``--update-golden``) rewrites it."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from demo import demo_report

from spark_agent.agent.machine import demos
from spark_agent.collectors import Fact, Property
from spark_agent.exporters.prometheus import ALWAYS, DERIVED, Family, Type, families, plans

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
#: The last line that people write.
MARK = "<!-- From here on `make golden` writes what the declarations say. -->\n"

PROCESS = """
`process_*` (processor time, memory, descriptors, start) are those of every Prometheus client, about the agent's own process. Only `/metrics` has them.
"""  # noqa: E501  (Markdown)


@cache
def _types() -> Mapping[Property, set[type]]:
    """Return the types of values that the demos give each property: nothing declares them."""
    found: dict[Property, set[type]] = {}
    for name in demos():
        for item in demo_report(name).snapshot.items():
            if isinstance(item, Fact):
                found.setdefault(item.of, set()).add(type(item.value))
    return found


def declared(collector: str) -> Iterator[Family]:
    """Yield the families of one collector: of a property, the one that its values call for."""
    plan = plans()[collector]
    # One that no demo shows is a text.
    types = {of: _types().get(of, {str}) for of in (*(of for _, of in plan.switches), *(of for _, of in plan.states))}
    yield from (family for family, _ in plan.numbers)
    for family, properties in plan.infos:
        elsewhere = {of.key for of in properties if types[of] & {bool, tuple}}
        labels = tuple(label for label in family.labels if label not in elsewhere)
        if elsewhere != {of.key for of in properties}:
            yield Family(family.name, family.type, family.help, labels)
    for family, of in plan.switches:
        if bool in types[of] or (int in types[of] and not of.inventory):
            yield family
    for family, of in plan.states:
        if types[of] & {str, tuple}:
            yield family


def listed() -> dict[str, list[Family]]:
    """Return every family there is, by the part of a page that it belongs to."""
    return {part: list(declared(part)) for part in plans()} | {part: list(known) for part, known in DERIVED.items()}


def reference() -> str:
    """Return the tables, as Markdown."""
    return "".join(_section(part, known) for part, known in listed().items()) + PROCESS


def _section(part: str, known: Iterable[Family]) -> str:
    title = "The agent" if part == ALWAYS else f"`{part}`"
    rows = "".join(_row(family) for family in sorted(known, key=lambda family: family.metric))
    return f"\n## {title}\n\n| metric | type | unit | labels | what | source |\n|---|---|---|---|---|---|\n{rows}"


def _row(family: Family) -> str:
    what, _, source = family.help.removesuffix(".").rpartition(". Source: ")
    labels = ", ".join(f"`{label}`" for label in family.labels)
    words = "state set" if family.type is Type.STATESET else str(family.type)
    texts = (text.replace("*", r"\*").replace("|", r"\|") for text in (what, source))
    cells = (f"`{family.metric}`", words, family.unit.replace("_", " "), labels, *texts)
    return f"| {' | '.join(cells)} |\n"


def test_the_reference_is_what_the_declarations_say(ends_with: Callable[[Path, str, str], None]) -> None:
    """A metric that is added, renamed or gone shows in the docs; `make golden` puts it there."""
    ends_with(PAGE, MARK, reference())


@pytest.mark.parametrize("name", demos())
def test_what_is_exported_is_listed(name: str) -> None:
    """Each family of each demo is in the reference, with its type, and with no other labels."""
    known = {family.metric: family for group in listed().values() for family in group}

    for family, samples in families(demo_report(name)):
        used = {label for values in samples for label, value in zip(family.labels, values, strict=True) if value}
        if samples:
            assert family.type is known[family.metric].type
            assert used <= {*known[family.metric].labels}


def test_prose_names_metrics_that_are_there() -> None:
    """No metric that a person wrote about is one that was renamed since."""
    prose, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    known = {family.metric for group in listed().values() for family in group}
    named = set(re.findall(r"\b(?:gb10|spark_agent)_[a-z0-9_]*[a-z0-9]", prose))

    assert named
    assert set() == named - known


def test_the_gate_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family more makes other tables."""
    before = reference()
    monkeypatch.setitem(DERIVED, "power", (*DERIVED["power"], Family("gb10_new", Type.GAUGE, "New. Source: a test.")))

    assert before != reference()
