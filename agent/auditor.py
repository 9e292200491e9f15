"""The audit, again and again: in a thread of its own, and only where something changed since.

No two audits overlap, and nobody waits for one. The thread has no lower priority of its own: while it held the
interpreter's lock and the kernel let it wait, the beat would wait too.
"""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from spark_agent.agent.config import ConfigError, Settings
from spark_agent.collectors import immutable

if TYPE_CHECKING:
    from spark_agent.agent.audit.claim import Finding, Unreadable

log = logging.getLogger(__name__)


class Audited(Protocol):
    """What an audit found."""

    @property
    def findings(self) -> "Sequence[Finding]":
        """What is misread."""

    @property
    def errors(self) -> "Sequence[Unreadable]":
        """What could not be read."""


Audit = Callable[[Sequence[str]], Audited]


@immutable
class Tally:
    """The findings of an audit by rule, each rule there is; files that could not be read; and when that held last.

    ``at`` is in seconds since 1970.
    """

    findings: Mapping[str, int]
    errors: int
    at: float


def auditor(settings: Settings) -> "Auditor | None":
    """Return what audits as the command `audit` does, where that is wanted; a `ConfigError` says why it cannot."""
    if not settings.audit:
        return None
    if find_spec("promql_parser") is None:
        raise ConfigError("audit: needs the package promql-parser, which is not installed here; pip has it")
    from spark_agent.agent.audit import files
    from spark_agent.agent.audit.audit import BaselineError, audit, read_baseline
    from spark_agent.agent.audit.catalogue import Catalogue, CatalogueError, own_rows_in
    from spark_agent.agent.audit.claim import Document
    from spark_agent.agent.audit.rule import RULES

    try:
        catalogue = Catalogue(own_rows_in(settings.audit_metrics) if settings.audit_metrics else ())
        baseline = read_baseline(settings.audit_baseline) if settings.audit_baseline else set()
    except (BaselineError, CatalogueError) as error:
        raise ConfigError(f"audit: {error}") from error

    def look(paths: Sequence[str]) -> Audited:
        # Nobody here asks for lines, for which the texts would have to be kept.
        read = (Document(one.name, one.claims) if isinstance(one, Document) else one for one in files.read(paths))
        return audit(read, catalogue, baseline=baseline)

    return Auditor(look, RULES, settings.audit, settings.audit_interval)


#: What all files together may have: the service's memory is limited (MemoryMax=), and 16 MiB of dashboards take 60 MB.
MAX_BYTES: Final = 1 << 24
#: What counts of a folder; a file that is named counts in any case.
_SUFFIXES: Final = (".json", ".yml", ".yaml", ".rules")

#: A file as it was: a change changes this.
_Stamp = tuple[str, int, int]


class Auditor:
    """Audits paths every so often, and keeps what the last audit found."""

    def __init__(self, audit: Audit, rules: Iterable[str], paths: Sequence[Path], interval: float) -> None:
        """Audit nothing yet. ``rules`` are all that ``audit`` can find."""
        self.tally: Tally | None = None
        self._audit = audit
        self._rules = tuple(rules)
        self._paths = tuple(map(str, paths))
        self._interval = interval
        self._stamps: frozenset[_Stamp] | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to audit."""
        threading.Thread(target=self._run, name="audit", daemon=True).start()

    def stop(self) -> None:
        """Begin no audit any more."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception:  # whatever a file holds, the daemon goes on
                log.exception("the audit failed")
            self._stop.wait(self._interval)

    def look(self) -> None:
        """Audit, unless nothing changed since the last time."""
        # Before it reads them: what changes meanwhile is audited next time.
        stamps = frozenset(_stamps(self._paths))
        if self.tally and stamps == self._stamps:
            self.tally = Tally(self.tally.findings, self.tally.errors, time.time())
            return
        size = sum(size for name, _, size in stamps if name.endswith(_SUFFIXES) or name in self._paths)
        if size > MAX_BYTES:
            log.warning("not audited: %d MiB are too much for a daemon; `spark-agent audit` takes them", size >> 20)
            self._stamps, self.tally = stamps, Tally({}, 1, time.time())
            return
        found = self._audit(self._paths)
        counts = Counter(finding.rule for finding in found.findings)
        findings = {rule: counts[rule] for rule in sorted({*self._rules, *counts})}
        for error in found.errors:
            log.warning("cannot be audited: %s: %s", error.name, error.message)
        log.info("audited", extra={"findings": len(found.findings), "errors": len(found.errors)})
        self._stamps = stamps
        self.tally = Tally(findings, len(found.errors), time.time())


def _stamps(paths: Iterable[str]) -> Iterator[_Stamp]:
    # What cannot be listed or looked at the audit tells.
    for path in paths:
        inside = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        for file in (Path(path), *inside):
            try:
                status = file.stat()
            except OSError:
                yield str(file), -1, -1
            else:
                yield str(file), status.st_mtime_ns, status.st_size
