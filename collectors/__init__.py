"""Collectors: each public module of this folder reads one kind of source.

A collector is a module with ``read(host)``, which does the I/O and yields what it finds, and pure ``parse_*``
functions. ``EVERY_SECONDS`` in it sets a pace slower than the beat.

The folder is the registry: a new file is a new collector.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from spark_agent.collectors._host import Host, Origin, natural, parse_integer
from spark_agent.collectors._nvml import Nvml, NvmlError
from spark_agent.collectors._reading import (
    Absence,
    Fact,
    Item,
    Kind,
    NoData,
    Property,
    Quality,
    Quantity,
    Reading,
    Reason,
    Scope,
    Section,
    Unavailable,
    Unit,
    absent,
    immutable,
    measure,
    once,
    reason_of,
    state,
)

__all__ = [
    "Absence",
    "Collector",
    "Fact",
    "Host",
    "Item",
    "Kind",
    "NoData",
    "Nvml",
    "NvmlError",
    "Origin",
    "Property",
    "Quality",
    "Quantity",
    "Reading",
    "Reason",
    "Scope",
    "Section",
    "Unavailable",
    "Unit",
    "absent",
    "declarations",
    "discover",
    "immutable",
    "measure",
    "natural",
    "once",
    "paces",
    "parse_integer",
    "reason_of",
    "state",
]

Collector = Callable[[Host], Iterable[Item]]


@cache
def _modules() -> Mapping[str, ModuleType]:
    names = sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))
    return {name: import_module(f"{__name__}.{name}") for name in names}


def discover() -> Mapping[str, Collector]:
    """Return every collector of this folder under its module's name."""
    return {name: module.read for name, module in _modules().items()}


def paces() -> Mapping[str, float]:
    """Return after how many seconds each collector is asked again; 0 is at each beat.

    A module says so with ``EVERY_SECONDS`` where its readings are dear, or never of use sooner.
    """
    return {name: getattr(module, "EVERY_SECONDS", 0.0) for name, module in _modules().items()}


def declarations() -> Mapping[str, tuple[Quantity | Property, ...]]:
    """Return all that each collector declares, in the order of its file."""
    return {
        name: tuple(value for value in vars(module).values() if isinstance(value, Quantity | Property))
        for name, module in _modules().items()
    }
