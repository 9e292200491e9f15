"""The beat: one look after another, at a machine's own pace."""

from collections.abc import Mapping

from spark_agent.agent.machine import Machine
from spark_agent.agent.snapshot import Snapshot, look
from spark_agent.collectors import Collector


def play(machine: Machine, collectors: Mapping[str, Collector], until: float, interval: float) -> Snapshot:
    """Live a machine's timeline from its beginning, one look per beat, and return the look at ``until``."""
    beats = int(until // interval)
    for beat in range(beats + 1):
        machine.play(beat * interval)
        snapshot = look(machine.host, collectors)
    if beats * interval < until:
        machine.play(until)
        snapshot = look(machine.host, collectors)
    return snapshot
