"""Small machines, built where they are needed."""

import json
from collections.abc import Mapping
from typing import Any

from spark_agent.agent.machine import RecordedNvml, RecordedProcesses, RecordedUdev
from spark_agent.collectors import Absence, Collector, Fact, Host, Item, Nvml, Origin, Property, Quantity, Reading
from spark_agent.collectors._nvml import NoLibrary
from spark_agent.collectors._tree import Fault, Link, MemoryTree


def host(
    files: Mapping[str, str | bytes] | None = None,
    *,
    links: Mapping[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
    nvml: Mapping[str, Any] | None = None,
    udev: Mapping[str, Mapping[str, str]] | None = None,
    call_deadline: float | None = None,
) -> Host:
    """Return a machine with just these files (absolute paths), links, faults (errno names), NVML and udev.

    An NVML call has ``call_deadline`` seconds: a few, unless one is to hang, for a busy machine takes its time.
    """
    if call_deadline is None:
        call_deadline = 0.2 if '"hang": true' in json.dumps(nvml) else 10.0
    tree = MemoryTree()
    for path, to in (links or {}).items():
        tree.put(path, Link(to))
    for path, content in (files or {}).items():
        tree.put(path, content.encode() if isinstance(content, str) else content)
    for path, name in (errors or {}).items():
        tree.put(path, Fault(name))
    library = NoLibrary() if nvml is None else RecordedNvml(nvml)
    return Host(
        tree,
        Nvml(library, lambda: 0.0, init_deadline=call_deadline, call_deadline=call_deadline),
        RecordedUdev([{"sys_path": path, "properties": dict(found)} for path, found in (udev or {}).items()]),
        RecordedProcesses(tree),
        name="test",
        origin=Origin.SYNTHETIC,
        clock=lambda: 0.0,
        now=lambda: 1_800_000_000.0,
    )


def look(collector: Collector, machine: Host) -> list[Item]:
    """Return everything that one collector yields."""
    return list(collector(machine))


def value(items: list[Item], of: Quantity | Property, entity: str = "", *labels: str) -> Any:
    """Return the one value that was read for something; fail if there is none, or more than one."""
    found = [
        item.value
        for item in items
        if isinstance(item, Reading | Fact)
        and item.of is of
        and item.entity == entity
        and (not labels or (isinstance(item, Reading) and item.labels == labels))
    ]
    assert 1 == len(found), f"{of.key} of {entity!r}: {found}"
    return found[0]


def absence(items: list[Item], of: Quantity | Property, entity: str = "", *labels: str) -> Absence:
    """Return the one absence of something; fail if it was read."""
    assert not [i for i in items if isinstance(i, Reading) and i.of is of and i.entity == entity and i.labels == labels]
    found = [i for i in items if isinstance(i, Absence) and i.of is of and i.entity == entity and i.labels == labels]
    assert 1 == len(found), f"{of.key} of {entity!r}: {found}"
    return found[0]
