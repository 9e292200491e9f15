"""Powers that stand still while the load changes: a reading that is stuck is no reading."""

from typing import Final

from spark_agent.agent.power import Measured, Power, without
from spark_agent.agent.snapshot import Snapshot
from spark_agent.agent.watch import FRESH_SECONDS, Watch
from spark_agent.collectors import Scope, gpu

# What moves with the GPU's load. A rail that the GPU is no part of may well stand still meanwhile.
_MOVED: Final = (Scope.DC_INPUT, Scope.SYSTEM, Scope.SOC, Scope.CPU_GPU, Scope.GPU_RAIL, Scope.GPU_NVML)

#: Seconds without a change of a single milliwatt, while the GPU was idle at one look and busy at another. The time is
#: ours: the firmware's channels swing with a control loop of 100 ms, and NVML's is the mean of a second.
FROZEN_SECONDS: Final = 60.0
_IDLE: Final = 0.1
_BUSY: Final = 0.9


def distrust(power: Power, snapshot: Snapshot, watch: Watch) -> Power:
    """Take away the numbers that stood still while the load changed, and say why there is none."""
    load, visit = snapshot.reading(gpu.UTILIZATION), snapshot.visit("gpu")
    # A late answer is not the load of now.
    if load is None or visit is None or snapshot.at - visit.at > FRESH_SECONDS:
        return power
    frozen: dict[Scope, str] = {}
    for scope in _MOVED:
        known = power.scopes[scope]
        if not isinstance(known, Measured) or known.age > FRESH_SECONDS:
            continue
        # By its value: one that moved is another spell.
        spell = watch.spell(f"{scope} {known.value!r}", True, load.value)
        if spell and spell.seconds >= FROZEN_SECONDS and spell.low <= _IDLE and spell.high >= _BUSY:
            frozen[scope] = (
                f"{known.source} has read {known.value:g} W for {spell.seconds:.0f} s without the least change, while "
                f"the GPU was {spell.low:.0%} to {spell.high:.0%} busy"
            )
    return without(power, frozen)
