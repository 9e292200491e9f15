"""A real Prometheus with the rules, and three daemons at replayed Sparks: what fires, and what only it can see.

``for`` and windows are a sixtieth of what they are (`rules.text`), for a scrape each second and not each minute.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from daemon import Daemon
from prometheus.server import Prometheus, job
from rigs import metronome, until

from spark_agent.exporters import rules
from spark_agent.exporters.alerts import ALERTS

pytestmark = pytest.mark.rig

HURRY = 60
DEMOS = {"healthy": "fe-idle", "wedged": "fe-wedged", "stock": "fe-stock"}

Firing = set[tuple[str, str, str]]


@dataclass(frozen=True)
class Fleet:
    """The daemons by their names, and the server that scrapes them."""

    daemons: dict[str, Daemon]
    server: Prometheus
    stalls: Callable[[], int]

    def firing(self) -> Firing:
        """Return name, severity and instance of what fires; lateness is no news where this machine stood still."""
        labels = [one["labels"] for one in self.server.api("alerts")["alerts"] if one["state"] == "firing"]
        ours = {"SparkAgentLate"} if self.stalls() else set()
        return {
            (one["alertname"], one["severity"], one.get("instance", ""))
            for one in labels
            if one["alertname"] not in ours
        }


@pytest.fixture(scope="module")
def fleet(rig: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Run three daemons, each a job of its own name, and a Prometheus."""
    prometheus = rig("PROMETHEUS")
    with ExitStack() as stack:
        stalls = stack.enter_context(metronome(tmp_path_factory.mktemp("metronome")))
        daemons = {
            name: stack.enter_context(Daemon(tmp_path_factory.mktemp(name), machine=("--demo", demo)))
            for name, demo in DEMOS.items()
        }
        server = stack.enter_context(
            Prometheus.scraping(
                prometheus,
                tmp_path_factory.mktemp("prometheus"),
                [job(name, daemon.port) for name, daemon in daemons.items()],
                rules=rules.text(hurry=HURRY),
            )
        )
        yield Fleet(daemons, server, stalls)


EXPECTED: Firing = {("SparkHeldLow", "critical", "wedged"), ("SparkPowerGpuOnly", "info", "stock")}


def test_what_fires_and_what_does_not(fleet: Fleet) -> None:
    """The machine that is held low, and that of which only the GPU is measured; nothing of the healthy one."""
    until(lambda: fleet.firing() >= EXPECTED, lambda: str(fleet.firing()))
    # As long again as the longest of them waited: what was to come has come.
    seen = fleet.server.scrapes("healthy")
    until(lambda: fleet.server.scrapes("healthy") >= seen + max(alert.lasting for alert in ALERTS) / HURRY)

    assert fleet.firing() == EXPECTED


def test_no_rule_fails(fleet: Fleet) -> None:
    """Each was evaluated, and none with an error."""
    groups = fleet.server.api("rules")["groups"]

    assert list(rules.GROUPS) == sorted((group["name"] for group in groups), key=list(rules.GROUPS).index)
    assert {("ok", "")} == {(rule["health"], rule.get("lastError", "")) for group in groups for rule in group["rules"]}


def test_the_fleet_is_told(fleet: Fleet) -> None:
    """Two of three are measured, and only these are added up; the third is an estimate by itself."""
    (idle,), (wedged,) = (
        [value for labels, value in fleet.server.query("gb10_system_power_watts") if labels["instance"] == name]
        for name in ("healthy", "wedged")
    )

    assert 3 == fleet.server.one("fleet:spark_agent_build_info:count")
    assert 2 / 3 == pytest.approx(fleet.server.one("fleet:gb10_system_power_watts:coverage"))
    # Powers sway by some thousandths between a scrape and the next evaluation.
    assert idle + wedged == pytest.approx(fleet.server.one("fleet:gb10_system_power_watts:sum"), rel=0.05)
    assert fleet.server.one("gb10_system_power_estimate_lower_watts") == pytest.approx(
        fleet.server.one("fleet:gb10_system_power_estimate_lower_watts:sum"), rel=0.05
    )


def test_who_is_gone_is_missed(fleet: Fleet) -> None:
    """An agent that is killed cannot say so itself; what it said last of its machine is no alert any more."""
    fleet.daemons["wedged"].stop(signal.SIGKILL)
    gone = {("SparkAgentDown", "warning", "wedged"), ("SparkPowerGpuOnly", "info", "stock")}
    until(lambda: fleet.firing() == gone, lambda: str(fleet.firing()))

    assert fleet.firing() == gone
