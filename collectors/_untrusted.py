"""Signals that are known to mislead: shown with the reason, never judged and never alarmed on."""

from typing import Final

from spark_agent.collectors import Quantity, Section, Unit

UNTRUSTED: Final = Section(
    "power.untrusted",
    "Signals that are known to mislead, shown with the reason and never alarmed on.",
    entity="signal",
    id_key="signal",
    metric="untrusted",
)

SIGNAL: Final = Quantity(
    UNTRUSTED,
    "value",
    Unit.COUNT,
    source="the file that the signal names",
    help="A signal that is known to mislead, as read, in the unit of its own file.",
)
