"""What a machine consists of, as a collector has it, and what changed in it while the agent looked on."""

from collections.abc import Iterator, Mapping
from typing import Final

from spark_agent.agent.snapshot import Visit
from spark_agent.collectors import Absence, Fact

Entity = tuple[str, str]
Key = tuple[str, ...]
#: What is known of each entity, by section and name: its facts, and the numbers that describe it.
Inventory = Mapping[Entity, Mapping[Key, object]]

# What could not be read may still be what it was.
_UNKNOWN: Final = object()


def inventory(visit: Visit) -> Inventory:
    """Return all that one visit found of what is there, without what only tells how it is."""
    found: dict[Entity, dict[Key, object]] = {}
    for of, items in visit.by_declaration.items():
        if not of.inventory:
            continue
        for item in items:
            facts = found.setdefault((of.section.path, item.entity), {})
            key = (of.key,) if isinstance(item, Fact) else (of.key, *item.labels)
            if not isinstance(item, Absence):
                facts[key] = item.value
            elif item.reason.is_fault:
                facts[key] = _UNKNOWN
    return found


def known(before: Inventory, now: Inventory) -> Inventory:
    """Return an inventory in which what could not be read is what it was before, if that is known."""
    return {
        entity: {
            key: before.get(entity, {}).get(key, _UNKNOWN) if value is _UNKNOWN else value
            for key, value in facts.items()
        }
        for entity, facts in now.items()
    }


def changes(before: Inventory, now: Inventory) -> Iterator[str]:
    """Yield in words what came, what went, and what is another than before; one line for each device or part."""
    for entity in before.keys() | now.keys():
        name = " ".join(filter(None, entity))
        if entity not in now:
            yield f"{name} went"
        elif entity not in before:
            yield f"{name} came"
        elif changed := sorted(_changed(before[entity], now[entity])):
            yield f"{name} changed: {', '.join(changed)}"


def _changed(before: Mapping[Key, object], now: Mapping[Key, object]) -> Iterator[str]:
    for key in before.keys() | now.keys():
        was, is_now = before.get(key), now.get(key)
        if was != is_now and _UNKNOWN not in (was, is_now):
            yield ".".join(key)
