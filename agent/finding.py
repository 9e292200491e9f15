"""What a finding is: one thing that a person should know, how much it matters, and how long it must have held."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from spark_agent.collectors import immutable


class Severity(StrEnum):
    """How much a finding matters; what monitoring plugins call their states."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> int:
        """The exit code of a monitoring plugin in this state."""
        return {Severity.WARNING: 1, Severity.CRITICAL: 2, Severity.UNKNOWN: 3}.get(self, 0)


#: Worst first: a fault that is known weighs more than one that may be.
WORST_FIRST: Final = (Severity.CRITICAL, Severity.WARNING, Severity.UNKNOWN, Severity.INFO, Severity.OK)


@immutable
class Finding:
    """One thing worth knowing."""

    id: str
    severity: Severity
    title: str
    evidence: tuple[str, ...] = ()
    action: str = ""


@immutable
class Kind:
    """What findings of one id have in common; a ``*`` in it stands for what the finding is about.

    Who looks on tells one when it has held for ``for_seconds``, and goes on for ``hold_seconds`` after it last held.
    One look cannot wait: it tells what it sees.
    """

    id: str
    for_seconds: float = 0.0
    hold_seconds: float = 0.0

    def of(self, part: str) -> str:
        """Return the id of a finding about one part."""
        return self.id.replace("*", part)

    def covers(self, id_: str) -> bool:
        """Whether an id is one of this kind."""
        start, star, _ = self.id.partition("*")
        return id_.startswith(start) if star else id_ == self.id

    def found(
        self, severity: Severity, title: str, evidence: Iterable[str] = (), action: str = "", of: str = ""
    ) -> Finding:
        """Return a finding of this kind, ``of`` the part that it is about."""
        return Finding(self.of(of) if of else self.id, severity, title, tuple(evidence), action)


def exit_code(found: tuple[Finding, ...]) -> int:
    """Return the exit code of the worst finding."""
    return found[0].severity.exit_code if found else 0
