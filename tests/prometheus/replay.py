"""Machines lived by the agent and scraped as Prometheus would, played fast: series for promtool's unit tests."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import imagine

from spark_agent.agent.budget import Limit
from spark_agent.agent.history import Kept, Ledger
from spark_agent.agent.machine import Machine, open_machine
from spark_agent.agent.sampler import Sampler
from spark_agent.collectors import discover
from spark_agent.exporters.prometheus import age_families, families, render

#: Seconds between two beats, as --interval sets them, and between two scrapes.
BEAT: Final = 10
SCRAPE: Final = 30

#: What one scrape brought, by the series as the page has it; None where it failed.
Scrape = Mapping[str, float] | None


def imagined(folder: Path, name: str, changes: Iterable[Callable[[imagine.Machine], None]]) -> Machine:
    """Open a demo that stands still as it is at its beginning, with some changes."""
    made = imagine.build(name)
    now = made.gpu(0)
    made.moving, made.gpu = [], lambda _: now
    for change in changes:
        change(made)
    path = folder / f"{name}.tar.gz"
    path.write_bytes(imagine.archive(made))
    return open_machine(path)


def lived(
    machine: Machine,
    seconds: int,
    *,
    own: Sequence[Limit] = (),
    kept: Kept | None = None,
    each_beat: Callable[[Ledger], None] = lambda _: None,
    hangs_at: float = math.inf,
) -> list[Scrape]:
    """Return the scrapes of so many seconds; from ``hangs_at`` on, the daemon answers and looks no more."""
    t = 0.0
    ledger = Ledger(kept)
    sampler = Sampler(machine.host, discover(), ledger, beat_seconds=BEAT, advance=lambda: machine.play(t), own=own)
    scrapes: list[Scrape] = []
    for second in range(0, seconds, BEAT):
        t = float(second)
        if second < hangs_at:
            each_beat(ledger)
            report, looked_at = sampler.beat(math.inf), t
        if second % SCRAPE == 0:
            page = render((*families(report), *age_families(report, t - looked_at)), is_openmetrics=False)
            scrapes.append(_samples(page.decode()))
    return scrapes


def _samples(page: str) -> dict[str, float]:
    samples = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, _, value in samples}


def down(seconds: int) -> list[Scrape]:
    """Return scrapes that all fail."""
    return [None] * (seconds // SCRAPE)


def input_series(targets: Mapping[str, Sequence[Scrape]], names: Iterable[str]) -> list[dict[str, str]]:
    """Return promtool's input: the series of these names, of targets by instance, all of one job, and their ``up``."""
    wanted = {*names}
    found = []
    for instance, scrapes in targets.items():
        told = {series for scrape in scrapes if scrape for series in scrape if series.partition("{")[0] in wanted}
        found += [
            {"series": _of(series, instance), "values": _values([(scrape or {}).get(series) for scrape in scrapes])}
            for series in sorted(told)
        ]
        found.append({"series": _of("up", instance), "values": _values([float(one is not None) for one in scrapes])})
    return found


def _of(series: str, instance: str) -> str:
    name, _, labels = series.removesuffix("}").partition("{")
    target = f'instance="{instance}",job="spark"'
    return f"{name}{{{labels + ',' if labels else ''}{target}}}"


def _values(values: Iterable[float | None]) -> str:
    """Write values as promtool has them; one that is not there any more is stale, as a scrape without it makes it."""
    words: list[str] = []
    is_there = False
    for value in values:
        words.append(f"{value!r}" if value is not None else "stale" if is_there else "_")
        is_there = value is not None
    return " ".join(words)
