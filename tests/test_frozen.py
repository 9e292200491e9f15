"""Readings that stand still: taken for no reading where the load changed meanwhile, and only there."""

from collections.abc import Callable

import pytest
from looks import HEALTHY, SPARK, at, watched, watts

from spark_agent.agent.budget import Standing
from spark_agent.agent.frozen import FROZEN_SECONDS
from spark_agent.agent.power import Measured, Unmeasured
from spark_agent.agent.report import Report
from spark_agent.collectors import Reading, Reason, Scope, gpu

_UNTIL = int(FROZEN_SECONDS) + 1


_Moving = Callable[[int], float]


def _played(busy: _Moving, until: int = _UNTIL, /, **powers: _Moving) -> Report:
    """Return the last report of a Spark whose load and powers move as they are told to."""
    *_, last = watched(
        at(
            t,
            SPARK,
            *watts(**{name: moving(t) for name, moving in powers.items()}),
            *HEALTHY,
            Reading(gpu.UTILIZATION, busy(t), "0"),
        )
        for t in range(until)
    )
    return last


def _waking(t: int) -> float:
    return 0.0 if t < 20 else 0.97


def _alive(watts_: float, swing: float = 0.001) -> _Moving:
    return lambda t: watts_ + t % 2 * swing


@pytest.mark.parametrize("name", ["dc_input", "system", "soc", "cpu_gpu", "gpu_rail", "gpu_nvml"])
def test_a_power_that_stands_still_while_the_gpu_wakes_is_impossible(name: str) -> None:
    """To the milliwatt, for a minute: there is no number then, and the reason says why."""
    powers = {"dc_input": 60, "system": 50, "soc": 40, "cpu_gpu": 30, "gpu_rail": 20, "gpu_nvml": 20}
    moving = {one: _alive(value, 0.0 if one == name else 0.001) for one, value in powers.items()}
    known = _played(_waking, **moving).power.scopes
    assert {Scope(name)} == {scope for scope, one in known.items() if isinstance(one, Unmeasured)} & {
        Scope(one) for one in powers
    }
    why = known[Scope(name)]
    assert isinstance(why, Unmeasured)
    assert Reason.IMPOSSIBLE is why.reason
    assert "for 60 s without the least change, while the GPU was 0% to 97% busy" in why.detail


def test_it_is_a_verdict_and_a_finding() -> None:
    """As everything that cannot be true."""
    last = _played(_waking, system=lambda _: 50.0, soc=_alive(40))
    assert Standing.IMPOSSIBLE is last.budget.verdicts["system"].standing
    assert Standing.WITHIN is last.budget.verdicts["soc"].standing
    (finding,) = (one for one in last.findings if one.id == "impossible")
    assert any("without the least change" in line for line in finding.evidence)


@pytest.mark.parametrize(
    "busy", [lambda _: 0.0, lambda _: 0.97, lambda t: 0.5 + t % 2 * 0.3], ids=["idle", "busy", "half busy"]
)
def test_a_still_load_may_have_a_still_power(busy: Callable[[int], float]) -> None:
    """An idle machine may well draw 4.9 W for an hour."""
    assert isinstance(_played(busy, gpu_nvml=lambda _: 4.9).power.scopes[Scope.GPU_NVML], Measured)


def test_less_than_a_minute_is_not_enough() -> None:
    """Not a second less."""
    last = _played(_waking, _UNTIL - 1, gpu_nvml=lambda _: 4.9)
    assert isinstance(last.power.scopes[Scope.GPU_NVML], Measured)


def test_the_load_must_change_while_it_stands_still() -> None:
    """One that moved when the load did is alive, however still it is before and after."""
    last = _played(_waking, 200, gpu_nvml=lambda t: 4.9 if t < 21 else 46.0)
    assert isinstance(last.power.scopes[Scope.GPU_NVML], Measured)


def test_one_that_moves_again_is_believed_again() -> None:
    """At once."""
    last = _played(_waking, 101, gpu_nvml=lambda t: 4.9 if t < 100 else 46.0)
    assert isinstance(last.power.scopes[Scope.GPU_NVML], Measured)


def test_nvmls_windows_go_with_it() -> None:
    """They are the same number."""
    assert () == _played(_waking, gpu_nvml=lambda _: 4.9).power.windows
