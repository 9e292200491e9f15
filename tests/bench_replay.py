"""``spark-agent`` for ``make bench``, on what is otherwise hard to have: a Spark whose files lie on disk, fast beats.

``python tests/bench_replay.py [--on-disk] [--beats N] ARGUMENT…``: the arguments are those of ``spark-agent``.

* ``--on-disk``: the files of ``--machine FOLDER`` are read from disk at each beat, through the tree that reads /proc
  and /sys on a live machine; else they are held in memory. They stand still, for a timeline moves memory only.
* ``--beats N``: a beat follows the other without waiting, each a second of the machine's, until there were so many.
"""

import argparse
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count

from spark_agent.agent import cli
from spark_agent.agent.machine import Machine
from spark_agent.agent.report import Report
from spark_agent.agent.sampler import Sampler
from spark_agent.collectors import Host
from spark_agent.collectors._tree import WatchedTree
from spark_agent.exporters import daemon


def _on_disk(target: cli.Target, machine: Machine | None) -> Host:
    assert machine
    # Links in such a folder are relative, so it can be walked where it lies.
    tree = WatchedTree(gone=machine.host.memory.forget, root=f"{target.machine}/root")
    return replace(machine.host, tree=tree)


def _hasten(beats: int) -> None:
    def run(sampler: Sampler, stop: threading.Event, after: Callable[[Report], None]) -> None:
        for _ in range(beats):
            if stop.is_set():
                return
            after(sampler.beat())
        while not stop.wait(0.1):
            # Healthy, and idle.
            sampler._beaten_at = float("inf")

    def player(machine: Machine | None, _: float) -> Callable[[], bool]:
        seconds = count()
        return lambda: machine is not None and machine.play(next(seconds))

    Sampler.run = run  # type: ignore[method-assign, assignment]  # what this file is for
    daemon._player = player  # type: ignore[assignment]  # its speed is none


def main() -> None:
    """Change what is asked for, and go on as spark-agent."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--on-disk", action="store_true")
    parser.add_argument("--beats", type=int)
    options, arguments = parser.parse_known_args()
    if options.on_disk:
        cli.Target.host = _on_disk  # type: ignore[method-assign, assignment]  # what this file is for
    if options.beats:
        _hasten(options.beats)
    sys.argv[1:] = arguments
    cli.main()


if __name__ == "__main__":
    main()
