"""The wall clock jumps, as it does when a machine without a battery first hears of the time: the beat goes on."""

import json
import subprocess
import sys
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from daemon import SOURCE, Daemon
from rigs import until

pytestmark = pytest.mark.rig

DAY = timedelta(days=1)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that says by how much the processes that the test starts see the time wrong."""
    found = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if found is None:
        pytest.skip("no libfaketime: nobody's clock can be made to jump; sudo apt-get install libfaketime")
    file = tmp_path / "clock"
    file.write_text("+0\n")
    monkeypatch.setenv("LD_PRELOAD", str(found))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(file))
    monkeypatch.setenv("FAKETIME_CACHE_DURATION", "1")
    # As for the kernel, only the time of day is set: intervals go by the monotonic clock.
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    return file


def _taken_at(daemon: Daemon) -> datetime:
    return datetime.fromisoformat(json.loads(daemon.get("/api/v1/report")[1])["machine"]["taken_at"])


def _beats(daemon: Daemon) -> float:
    return daemon.sample("spark_agent_beats_total")


def _has_jumped(daemon: Daemon, to: datetime) -> bool:
    return abs(_taken_at(daemon) - to) < DAY / 2


def _has_gone_on(daemon: Daemon, since: float) -> bool:
    return _beats(daemon) >= since + 2


def test_a_clock_that_jumps_a_day_ahead_and_two_back(clock: Path, tmp_path: Path) -> None:
    """Reports tell the new time, beats and ages go by another clock, and the black box has all of it."""
    state = tmp_path / "state"
    state.mkdir()
    with Daemon(tmp_path, f"--state.directory={state}", "--blackbox.flush=1", machine=()) as daemon:
        began = _taken_at(daemon)
        for offset in (DAY, -DAY):
            clock.write_text(f"{offset.total_seconds():+.0f}\n")
            until(partial(_has_jumped, daemon, began + offset))
            until(partial(_has_gone_on, daemon, _beats(daemon)))
            assert 200 == daemon.get("/-/healthy")[0]
            assert 0 <= daemon.sample("spark_agent_sample_age_seconds") < DAY.total_seconds() / 2
        assert 0 == daemon.stop()
    shown = subprocess.run(
        [sys.executable, "-m", "spark_agent.agent", "blackbox", "--state", str(state), "-o", "json"],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        check=False,
    )
    assert 0 == shown.returncode, shown.stderr
    times = [datetime.fromisoformat(record["time"]) for record in json.loads(shown.stdout)["records"]]
    assert max(times) - min(times) > DAY
