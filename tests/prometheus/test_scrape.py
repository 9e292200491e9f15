"""What a real Prometheus says of a minute in which it scraped the agent once a second."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon import Daemon
from demo import demo_report
from prometheus.server import ALL, Prometheus

from spark_agent.agent.machine import demos
from spark_agent.exporters.prometheus import Exposition

pytestmark = pytest.mark.rig

#: Jobs of which nothing was stopped.
UNBROKEN = ("steady", "text", "secure", "textfile")
JOBS = (*UNBROKEN, "restarted")

#: Counters that outlive the daemon, in its state directory.
KEPT = (
    "gb10_energy_covered_seconds_total",
    "gb10_energy_uncovered_seconds_total",
    "gb10_power_limit_seconds_total",
    "gb10_soc_energy_joules_total",
    "gb10_system_energy_joules_total",
    "gb10_unclean_shutdowns_total",
    "spark_agent_inventory_changes_total",
    "spark_agent_starts_total",
    "spark_agent_unclean_shutdowns_total",
)

_OF_A_MINUTE = "gb10_energy_crosscheck_ratio"

Series = set[frozenset[tuple[str, str]]]


def _series(minute: Prometheus, name: str) -> Series:
    """Return all series that a job had, without what the server calls job and target, and the check of a minute."""
    told = minute.api("series", **{"match[]": f'{{job="{name}",__name__!="{_OF_A_MINUTE}"}}'})
    return {frozenset(one.items() - {("job", name), ("instance", name)}) for one in told}


def _names(series: Series) -> dict[str, Series]:
    named: dict[str, Series] = {}
    for one in series:
        named.setdefault(dict(one)["__name__"], set()).add(one)
    return named


@pytest.mark.parametrize("name", UNBROKEN)
def test_no_scrape_fails(minute: Prometheus, name: str) -> None:
    """Not one, by OpenMetrics, by text, by TLS with a password, or by node_exporter's textfile collector."""
    scrapes = minute.one(f'count_over_time(up{{job="{name}"}}{ALL})')

    assert scrapes - minute.scrapes(name) <= minute.stalls


def test_a_stranger_gets_nothing(minute: Prometheus) -> None:
    """With a wrong password no scrape succeeds, and Prometheus is told why."""
    (why,) = (one["lastError"] for one in minute.api("targets")["activeTargets"] if one["scrapePool"] == "stranger")

    assert 0 == minute.scrapes("stranger")
    assert "401" in why


@pytest.mark.parametrize("name", JOBS)
def test_each_scrape_has_the_same_series(minute: Prometheus, name: str) -> None:
    """None comes or goes, over restarts either. Values change, and never labels.

    But for a finding, as it arises, and the check that looks back over a minute, when there has been one.
    """
    found = minute.samples(f'{{job="{name}",__name__!~"gb10_finding|{_OF_A_MINUTE}|scrape_.+|up"}}')
    scrapes = minute.scrapes(name)

    assert len(found) > 600
    assert [] == [(series, count) for series, count in found if scrapes - count > minute.stalls]


def test_both_formats_say_the_same(minute: Prometheus) -> None:
    """By OpenMetrics and by text come the same series; only the former knows info and state sets."""
    steady, text = minute.types("steady"), minute.types("text")

    assert _series(minute, "steady") == _series(minute, "text")
    assert ("info", "stateset", "counter") == tuple(
        steady[name] for name in ("spark_agent_build", "gb10_power_verdict", "spark_agent_beats")
    )
    assert ("gauge", "gauge", "counter") == tuple(
        text[name] for name in ("spark_agent_build_info", "gb10_power_verdict", "spark_agent_beats_total")
    )


def test_the_textfile_collector_tells_what_the_agent_tells(minute: Prometheus) -> None:
    """All series but ages and those of the process arrive by node_exporter, and no reading of the file fails."""
    ours = _names({one for one in _series(minute, "steady") if dict(one)["__name__"].startswith(("gb10_", "spark_"))})
    theirs = _names(_series(minute, "textfile"))
    ages = {"spark_agent_sample_age_seconds", "spark_agent_collector_sample_age_seconds"}

    assert 0 == minute.one(f"max_over_time(node_textfile_scrape_error{ALL})")
    assert {name: series for name, series in ours.items() if name not in ages} == {
        name: series for name, series in theirs.items() if name.startswith(("gb10_", "spark_")) and name != _OF_A_MINUTE
    }


def test_counters_only_grow(minute: Prometheus) -> None:
    """While the daemon and its machine run, no counter goes back."""
    names = [name for name, type_ in minute.types("text").items() if type_ == "counter"]

    assert len(names) > 40
    assert dict.fromkeys(names, 0) == {
        name: max((resets for _, resets in minute.query(f'resets({name}{{job="text"}}{ALL})')), default=0)
        for name in names
    }


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_only_grows(minute: Prometheus, name: str) -> None:
    """Over SIGTERM and kill -9, no counter that the state directory keeps is ever told lower than before."""
    kept = minute.query(f'resets({name}{{job="restarted"}}{ALL})')

    assert kept
    assert [] == [(labels, resets) for labels, resets in kept if resets]


def test_restarts_are_counted(minute: Prometheus) -> None:
    """Three starts, of which one followed a kill; other counts began anew, so the process really was another."""
    for name, count in (
        ("spark_agent_starts_total", 3),
        ("spark_agent_unclean_shutdowns_total", 1),
        ("gb10_unclean_shutdowns_total", 0),
    ):
        assert count == minute.one(f'last_over_time({name}{{job="restarted"}}{ALL})')
    assert 2 == minute.one(f'resets(spark_agent_beats_total{{job="restarted"}}{ALL})')


def test_time_at_a_limit_is_counted(minute: Prometheus) -> None:
    """What `test_what_is_kept_only_grows` looks at did move, and not by more than the machine's time."""
    grown = minute.query(f'max_over_time(gb10_power_limit_seconds_total{{job="restarted"}}{ALL}) > 0')

    assert grown


@pytest.mark.parametrize("name", ["steady", "secure", "restarted"])
def test_no_beat_is_missed(minute: Prometheus, name: str) -> None:
    """Each second had its look."""
    assert minute.one(f'max_over_time(spark_agent_beats_missed_total{{job="{name}"}}{ALL})') <= minute.stalls


class TestPromtool:
    """Prometheus' own linter is content, and says nothing."""

    @staticmethod
    def _check(promtool: str, page: bytes) -> tuple[int, str]:
        command = [promtool, "check", "metrics"]
        done = subprocess.run(
            command, input=page, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False
        )
        return done.returncode, done.stdout.decode()

    def test_of_a_live_page(self, tmp_path: Path, rig: Callable[[str], str]) -> None:
        """With what the process says of itself, as it is scraped."""
        promtool = rig("PROMTOOL")
        (tmp_path / "state").mkdir()
        with Daemon(tmp_path, f"--state.directory={tmp_path / 'state'}") as daemon:
            status, page = daemon.get()

        assert 200 == status
        assert "\nprocess_resident_memory_bytes " in page
        assert (0, "") == self._check(promtool, page.encode())

    @pytest.mark.parametrize("name", demos())
    def test_of_each_demo(self, name: str, rig: Callable[[str], str]) -> None:
        """Whole pages, ages and process included."""
        page, _ = Exposition().page(demo_report(name), 0.5)

        assert (0, "") == self._check(rig("PROMTOOL"), page)

    def test_it_would_say_something(self, rig: Callable[[str], str]) -> None:
        """Of a counter that is not called one, for instance."""
        code, said = self._check(rig("PROMTOOL"), b"# HELP gb10_it It.\n# TYPE gb10_it counter\ngb10_it 1\n")

        assert (3, True) == (code, "gb10_it" in said)
