"""What outlives one look: counts that only the daemon's one writer moves.

Some of them survive restarts in the daemon's state. Those are told as they were last saved: a counter that an agent
restarted after kill -9 told lower than before would look like a reset, and Prometheus would count it all once more.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from spark_agent.agent import BEAT_SECONDS
from spark_agent.agent.budget import AT_LIMIT, Budget
from spark_agent.agent.energy import Accounts, Energies, Energy, Meter
from spark_agent.agent.inventory import Inventory, changes, inventory, known
from spark_agent.agent.snapshot import Snapshot, Status, Visit
from spark_agent.collectors import Quantity

log = logging.getLogger(__name__)

#: Seconds between two beats beyond which nobody knows what was in between; of slow beats, two and a half.
GAP_SECONDS: Final = 5.0
_GAP_BEATS: Final = 2.5

# Seconds between two comparisons of what a collector finds is there, where nothing is reported to come or go.
_COMPARE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class History:
    """What the daemon counted.

    Of this process: ``beats``, those that were missed, values refused by metric name and reason, and failed visits by
    collector. Since the state began: the rest. ``limit_seconds`` is time spent at 98 % of a limit or above, by the
    limit's name; ``inventory_changes`` counts devices that came, went or changed, by collector.
    """

    beats: int = 0
    missed_beats: int = 0
    rejected: Mapping[tuple[str, str], int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    starts: int = 0
    unclean_shutdowns: int = 0
    machine_unclean_shutdowns: int = 0
    limit_seconds: Mapping[str, float] = field(default_factory=dict)
    inventory_changes: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Kept:
    """The counts that survive restarts."""

    starts: int = 0
    unclean_shutdowns: int = 0
    machine_unclean_shutdowns: int = 0
    limit_seconds: dict[str, float] = field(default_factory=dict)
    inventory_changes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Kept":
        """Take what was saved; raises `ValueError` where it cannot be that."""
        try:
            kept = cls(
                int(content["starts"]),
                int(content["unclean_shutdowns"]),
                int(content["machine_unclean_shutdowns"]),
                {str(name): float(seconds) for name, seconds in content["limit_seconds"].items()},
                {str(name): int(count) for name, count in content["inventory_changes"].items()},
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ValueError(f"no counts: {error!r}") from error
        counts = (kept.starts, kept.unclean_shutdowns, kept.machine_unclean_shutdowns, *kept.inventory_changes.values())
        if not all(0 <= number < math.inf for number in (*counts, *kept.limit_seconds.values())):
            raise ValueError(f"no counts: {kept}")
        return kept

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes, which later counts do not change."""
        return {
            "starts": self.starts,
            "unclean_shutdowns": self.unclean_shutdowns,
            "machine_unclean_shutdowns": self.machine_unclean_shutdowns,
            "limit_seconds": dict(self.limit_seconds),
            "inventory_changes": dict(self.inventory_changes),
        }


@dataclass(frozen=True, slots=True)
class Page:
    """What the ledger held at one beat: to be saved, and told from then on."""

    counts: Mapping[str, Any]
    accounts: Accounts

    def to_json(self) -> dict[str, Any]:
        """Return what is to be saved."""
        return {**self.counts, "energy": self.accounts.to_json()}


class Ledger:
    """The one writer of the history, and of the account of energy.

    Where it is kept on disk, it runs ahead of what is told until `saved` says that it is there.
    """

    def __init__(self, kept: Kept | None = None, meter: Meter | None = None) -> None:
        """Go on from the counts and the energies of earlier starts, if they are kept."""
        self.kept = kept or Kept()
        self.meter = meter or Meter()
        self._told: Page | None = None
        self._energies: Energies = {}
        if kept:
            self.saved(self.page())
        self._beats = self._missed = 0
        self._rejected: Counter[tuple[str, str]] = Counter()
        self._failures: Counter[str] = Counter()
        self._last: Snapshot | None = None
        self._inventories: dict[str, tuple[float, Inventory | None]] = {}

    def miss(self, beats: int) -> None:
        """Count beats that did not take place."""
        self._missed += beats

    def page(self) -> Page:
        """Return what is held now, which later beats do not change."""
        return Page(self.kept.to_json(), self.meter.accounts())

    def saved(self, page: Page) -> None:
        """Tell from now on what was saved. For the thread that saved it, which has the time to work it out."""
        self._energies = page.accounts.energies()
        self._told = page

    @property
    def energies(self) -> Energies:
        """The energy of each scope, as it was last saved."""
        if self._told is None:
            return self.meter.energies()
        if not self._energies:
            # Nothing was saved yet: from the first beat on, there is something to count from.
            return {
                scope: known.at_zero() for scope, known in self.meter.energies().items() if isinstance(known, Energy)
            }
        seconds = self.meter.since(self._told.accounts)
        return {
            scope: known.later(seconds) if isinstance(known, Energy) else known
            for scope, known in self._energies.items()
        }

    def note(
        self, snapshot: Snapshot, budget: Budget, *, beat_seconds: float = BEAT_SECONDS, is_disturbed: bool = False
    ) -> History:
        """Count one beat, and return the history with it; ``is_disturbed`` is when something came or went."""
        self._beats += 1
        before, self._last = self._last, snapshot
        seen = {visit.collector: visit for visit in before.visits} if before else {}
        for visit in snapshot.visits:
            if visit is not seen.get(visit.collector):
                self._note_visit(visit, is_disturbed=is_disturbed)
        if before and (seconds := snapshot.at - before.at) <= max(GAP_SECONDS, _GAP_BEATS * beat_seconds):
            limit_seconds = self.kept.limit_seconds
            for name, share in budget.shares.items():
                limit_seconds[name] = limit_seconds.get(name, 0.0) + (seconds if share >= AT_LIMIT else 0.0)
        told = dict(self._told.counts if self._told else self.kept.to_json())
        # From the first beat on, so that there is something to count from.
        told["limit_seconds"] = {**dict.fromkeys(budget.shares, 0.0), **told["limit_seconds"]}
        rejected = {**self._rejected, **self.meter.rejected}
        return History(self._beats, self._missed, rejected, dict(self._failures), **told)

    def _note_visit(self, visit: Visit, *, is_disturbed: bool) -> None:
        if visit.status is Status.FAILED:
            self._failures[visit.collector] += 1
        for item in visit.rejected:
            self._rejected[item.of.name if isinstance(item.of, Quantity) else item.of.key, item.reason.value] += 1
        at, before = self._inventories.get(visit.collector, (-math.inf, None))
        # One that failed says nothing of what is there.
        if visit.status is not Status.FAILED and (is_disturbed or visit.at - at >= _COMPARE_SECONDS):
            self._compare(visit, before)

    def _compare(self, visit: Visit, before: Inventory | None) -> None:
        now = known(before or {}, inventory(visit))
        self._inventories[visit.collector] = visit.at, now
        for change in changes(before, now) if before is not None else ():
            log.info("inventory: %s", change)
            counts = self.kept.inventory_changes
            counts[visit.collector] = counts.get(visit.collector, 0) + 1
