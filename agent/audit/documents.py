"""What a parsed text is: rules or dashboards, whatever they are wrapped in.

They are found by their own form, wherever they stand: in an answer of Grafana's or Prometheus' API, a PrometheusRule, a
GrafanaDashboard, a ConfigMap (as texts within the text), a List of these, the values of a HelmRelease.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from spark_agent.agent.audit import dashboards, rule_files
from spark_agent.agent.audit.claim import At, Claim, Document, LineOf, Unreadable
from spark_agent.agent.audit.grafana_alerts import alert_claim, is_alert
from spark_agent.agent.audit.syntax import (
    MAX_DEPTH,
    Fault,
    MalformedError,
    Parsed,
    block_line,
    mapping_of,
    parse,
    text_of,
)
from spark_agent.agent.audit.wording import printable

#: Faults told of one document; a file with more of them is hardly one of ours.
MAX_FAULTS: Final = 20
#: A text within a text: a dashboard's JSON within a ConfigMap. Nobody nests them deeper.
_MAX_TEXTS: Final = 2
#: Letters of such texts that are read: aliases may repeat a long one without end.
_MAX_LETTERS: Final = 1 << 26
# What a text must have within for it to be looked into.
_OURS: Final = re.compile(r'"(?:panels|rows|elements)"\s*:|^[" \t]*groups[" \t]*:', re.MULTILINE)


def read(name: str, parsed: Parsed) -> Iterator[Document | Unreadable]:
    """Yield what a text holds, and what of it cannot be audited; nothing where it is neither rules nor dashboards."""
    reading = _Reading(parsed)
    found = [*reading.walk(parsed.root, ())] if isinstance(parsed.root, dict | list) else []
    claims = tuple(one for one in found if isinstance(one, Claim))
    faults = [one for one in found if isinstance(one, Fault)]
    if claims or (reading.is_ours and not faults):
        yield Document(name, claims, reading.line_of)
    for fault in faults[:MAX_FAULTS]:
        line = reading.line_of(fault.at)
        yield Unreadable(name, printable(f"{f'line {line}: ' if line else ''}{fault.message}"))
    if len(faults) > MAX_FAULTS:
        yield Unreadable(name, f"and {len(faults) - MAX_FAULTS} faults more")


class _Reading:
    """One text, and those within it."""

    def __init__(self, parsed: Parsed) -> None:
        # Lines only: of a thousand dashboards, nobody wants what they held once their claims are made.
        self._line_of = parsed.line_of
        #: By the place of a text that is a document of its own: its lines, and the line before it.
        self._within: dict[At, tuple[LineOf, int | None]] = {}
        self._letters = 0
        #: Where documents begin, or lists of documents.
        self._wholes: set[At] = {()}
        #: Whether it holds rules or dashboards, be they empty or broken.
        self.is_ours = False

    def walk(self, value: Any, at: At, folder: str = "", texts: int = 0) -> Iterator[Claim | Fault]:
        """Yield what is found at a place and below it, ``texts`` deep in texts within texts."""
        if len(at) > MAX_DEPTH:
            return
        if isinstance(value, str):
            if texts < _MAX_TEXTS and _OURS.search(value):
                yield from self._text(value, at, folder, texts)
            return
        if isinstance(value, dict):
            found = self._claims(value, at, folder)
            if found is not None:
                self.is_ours = True
                yield from found
                return
            folder = text_of(mapping_of(value.get("meta")).get("folderTitle")) or folder
        children = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in children:
            if isinstance(child, dict | list | str):
                yield from self.walk(child, (*at, key), folder, texts)

    def _claims(self, value: dict[str, Any], at: At, folder: str) -> Iterator[Claim | Fault] | None:
        if dashboards.is_dashboard(value):
            return dashboards.claims(value, at, folder)
        if dashboards.is_library_panel(value):
            return dashboards.claims_of_library_panel(value, at)
        if rule_files.are_groups(value, is_whole=self._is_whole(at)):
            return rule_files.claims(value, at)
        if is_alert(value):
            return iter((alert_claim(value, at),))
        return None

    def _is_whole(self, at: At) -> bool:
        return at in self._wholes or (isinstance(at[-1], int) and at[:-1] in self._wholes)

    def _text(self, text: str, at: At, folder: str, texts: int) -> Iterator[Claim | Fault]:
        self._letters += len(text)
        if self._letters > _MAX_LETTERS:
            yield Fault(f"{_place(at)}: the documents within this one are too long", at)
            return
        try:
            parsed = parse(text, is_json=_place(at).endswith(".json"))
        except MalformedError as error:
            self.is_ours = True
            yield Fault(f"{_place(at)}: {error}", at)
            return
        self._within[at] = parsed.line_of, block_line(text)
        self._wholes.add(at)
        if isinstance(parsed.root, dict | list):
            yield from self.walk(parsed.root, at, folder, texts + 1)

    def line_of(self, at: At) -> int | None:
        """Return the line of a place; that of the text within which it is, where that one's own lines are not kept."""
        line_of, begin, before = self._line_of, 0, 0
        for end in range(1, len(at) + 1):
            if at[:end] not in self._within:
                continue
            inner, line_before = self._within[at[:end]]
            if line_before is None:
                at = at[:end]
                break
            line_of, begin, before = inner, end, before + line_before
        line = line_of(at[begin:])
        return before + line if line is not None else None


def _place(at: At) -> str:
    return ".".join(map(str, at))
