"""What outlives one look: counts that only the daemon's one writer moves.

Some of them survive restarts in the daemon's state. Those are told as they were last saved: a counter that an agent
restarted after kill -9 told lower than before would look like a reset, and Prometheus would count it all once more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class History:
    """What the daemon counted.

    Of this process: ``beats``, those that came late (``missed_beats``), values refused by metric name and reason, and
    failed visits by collector. Since the state began: the rest; ``limit_seconds`` is time spent at 98 % of a limit or
    above, by the limit's name, ``inventory_changes`` counts by collector.
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
