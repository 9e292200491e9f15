"""What a machine consists of, and what changed in it: parts that come and go, and facts that are others than before."""

import pytest

from spark_agent.agent.inventory import changes, inventory, known
from spark_agent.agent.snapshot import Status, Visit
from spark_agent.collectors import Absence, Fact, Item, Property, Quantity, Reading, Reason, Section, Unit

DISK = Section("nvme", "Drives.", entity="device", id_key="device", metric="nvme")
MODEL = Property(DISK, "model", "/sys/model", "Model.")
STATE = Property(DISK, "state", "/sys/state", "State.", inventory=False)
SIZE = Quantity(DISK, "size_bytes", Unit.BYTE, "/sys/size", "Size.", labels=("namespace",), inventory=True)
HEAT = Quantity(DISK, "heat_celsius", Unit.CELSIUS, "/sys/heat", "Temperature.")


def _visit(*items: Item) -> Visit:
    return Visit("nvme", Status.OK, 0.0, 0.001, items)


def _changes(before: tuple[Item, ...], now: tuple[Item, ...]) -> list[str]:
    return sorted(changes(inventory(_visit(*before)), inventory(_visit(*now))))


_ONE = (Fact(MODEL, "x", "nvme0"), Reading(SIZE, 10, "nvme0", ("1",)), Reading(HEAT, 40, "nvme0"))


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (_ONE, []),
        (_ONE[::-1], []),
        ((), ["nvme nvme0 went"]),
        ((*_ONE, Fact(MODEL, "y", "nvme1")), ["nvme nvme1 came"]),
        ((Fact(MODEL, "y", "nvme1"),), ["nvme nvme0 went", "nvme nvme1 came"]),
        ((Fact(MODEL, "y", "nvme0"), *_ONE[1:]), ["nvme nvme0 changed: model"]),
        ((_ONE[0], Reading(SIZE, 20, "nvme0", ("1",))), ["nvme nvme0 changed: size_bytes.1"]),
        ((*_ONE, Reading(SIZE, 10, "nvme0", ("2",))), ["nvme nvme0 changed: size_bytes.2"]),
        (
            (Fact(MODEL, "y", "nvme0"), Reading(SIZE, 20, "nvme0", ("1",))),
            ["nvme nvme0 changed: model, size_bytes.1"],
        ),
        ((Absence(MODEL, Reason.NOT_FOUND, entity="nvme0"), *_ONE[1:]), ["nvme nvme0 changed: model"]),
    ],
)
def test_one_line_for_each_part_that_changed(now: tuple[Item, ...], told: list[str]) -> None:
    """What came, what went, and what is another than before; order is nothing."""
    assert told == _changes(_ONE, now)


@pytest.mark.parametrize("now", [(Fact(STATE, "dead", "nvme0"), *_ONE), (*_ONE[:2], Reading(HEAT, 90, "nvme0"))])
def test_how_a_part_is_is_no_inventory(now: tuple[Item, ...]) -> None:
    """Readings and states change at each look."""
    assert [] == _changes((Fact(STATE, "live", "nvme0"), *_ONE), now)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.is_fault])
def test_what_could_not_be_read_may_be_what_it_was(reason: Reason) -> None:
    """A fault changes nothing, neither when it comes nor when it goes; the part is there all the while."""
    faulty = (Absence(MODEL, reason, entity="nvme0"), Absence(SIZE, reason, "", "nvme0", ("1",)))
    assert [] == _changes(_ONE, faulty)
    assert [] == _changes(faulty, _ONE)
    assert [] == _changes(faulty, faulty)


@pytest.mark.parametrize(("after", "told"), [("x", []), ("y", ["nvme nvme0 changed: model"])])
def test_a_change_is_seen_through_a_fault(after: str, told: list[str]) -> None:
    """What was known before it is still known: a firmware that is another after a fault is another firmware."""
    before = inventory(_visit(Fact(MODEL, "x", "nvme0")))
    faulty = known(before, inventory(_visit(Absence(MODEL, Reason.IO_ERROR, entity="nvme0"))))
    assert [] == list(changes(before, faulty))
    assert told == list(changes(faulty, inventory(_visit(Fact(MODEL, after, "nvme0")))))


def test_a_part_that_went_is_not_remembered_for_its_successor() -> None:
    """Only the look before counts."""
    before = inventory(_visit(Fact(MODEL, "x", "nvme0")))
    none = known(before, inventory(_visit()))
    assert {} == none
    assert ["nvme nvme0 came"] == list(changes(none, inventory(_visit(Fact(MODEL, "x", "nvme0")))))
