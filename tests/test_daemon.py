"""The daemon as a process: how it starts, ends, reads its settings again, and what it says to systemd meanwhile."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import pytest
from daemon import SOURCE, Daemon, copied
from rigs import PATIENCE, until

from spark_agent.agent.state import Store
from spark_agent.collectors import discover

_ENVIRONMENT = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "STATE_DIRECTORY", "LISTEN_FDS", "LISTEN_PID")


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start as from a terminal, whoever runs this test."""
    for name in [name for name in os.environ if name in _ENVIRONMENT or name.startswith("SPARK_AGENT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return an empty folder for the state."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def _saved(state: Path) -> Mapping[str, Any]:
    with Store(state) as store:
        return store.load("counts") or {}


def _line(daemon: Daemon, words: str) -> str:
    """Wait for the line of the log that has these words in it, and return it."""
    return str(
        until(lambda: next((line for line in daemon.log.splitlines() if words in line), None), lambda: daemon.log)
    )


_SERVE = ("--demo", "fe-gemm", "serve", "--web.listen-address=127.0.0.1:0")


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("with_", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_ends_cleanly_when_told_to(tmp_path: Path, state: Path, with_: signal.Signals, code: int) -> None:
    """With the exit code of its signal, a state that says so, and not a line of complaint."""
    with Daemon(tmp_path, f"--state.directory={state}") as daemon:
        assert (200, "ready\n") == daemon.get("/-/ready")
        assert code == daemon.stop(with_)
        assert ("", 1) == (_saved(state)["running"], _saved(state)["starts"])
        # That a busy computer makes it miss a beat is no complaint about its end.
        complaints = [line for line in daemon.log.splitlines() if "level=info" not in line and "missed" not in line]
        assert [] == complaints


def test_counters_outlive_a_kill(tmp_path: Path, state: Path) -> None:
    """Of what is told, nothing is told lower after it; and that it was killed is counted."""
    counters = (
        'gb10_power_limit_seconds_total{limit="pl1"}',
        "spark_agent_starts_total",
        "spark_agent_unclean_shutdowns_total",
        "gb10_unclean_shutdowns_total",
    )

    def told(daemon: Daemon) -> dict[str, float]:
        _, page = daemon.get()
        lines = (line.rpartition(" ") for line in page.splitlines())
        return {series: float(value) for series, _, value in lines if series in counters}

    with Daemon(tmp_path, f"--state.directory={state}") as daemon:
        until(lambda: told(daemon).keys() == set(counters), lambda: daemon.log)
        before = told(daemon)
        assert (1, 0) == (before["spark_agent_starts_total"], before["spark_agent_unclean_shutdowns_total"])
        for killed in (1, 2):
            assert -signal.SIGKILL == daemon.stop(signal.SIGKILL)
            daemon.start()
            # The first look may not have had the time to know all of them.
            until(lambda: told(daemon).keys() == set(counters), lambda: daemon.log)
            now = told(daemon)
            assert not {series for series in before if now[series] < before[series]}
            assert (killed + 1, killed) == (
                now["spark_agent_starts_total"],
                now["spark_agent_unclean_shutdowns_total"],
            )
            assert 0 == now["gb10_unclean_shutdowns_total"]
            assert "no clean end: the agent was killed" in daemon.log
            before = now


# --- settings ---------------------------------------------------------------------------------------------------------


def _reports_on(daemon: Daemon) -> set[str]:
    _, page = daemon.get()
    return set(re.findall(r'^spark_agent_collector_success\{collector="(\w+)"\}', page, re.MULTILINE))


def test_settings_are_read_again(tmp_path: Path) -> None:
    """What is switched off vanishes from the page; what is no good changes nothing, and is said."""
    file = tmp_path / "spark-agent.toml"
    file.write_text("")
    everybody = set(discover())
    with Daemon(tmp_path, machine=("--demo", "fe-gemm", "--config", str(file))) as daemon:
        assert everybody == _reports_on(daemon)
        file.write_text("[collector]\nnvme = false\ngpu = false\n")
        daemon.process.send_signal(signal.SIGHUP)
        _line(daemon, "settings read again")
        until(lambda: everybody - {"nvme", "gpu"} == _reports_on(daemon), lambda: str(_reports_on(daemon)))
        file.write_text("[collector]\nnvmee = true\n")
        daemon.process.send_signal(signal.SIGHUP)
        said = _line(daemon, "stay in force")
        assert "level=error" in said
        assert re.search(rf"{re.escape(str(file))}.*nvmee", said)
        assert everybody - {"nvme", "gpu"} == _reports_on(daemon)
        file.write_text("")
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: everybody == _reports_on(daemon), lambda: str(_reports_on(daemon)))
        assert 0 == daemon.stop()


def _limit(daemon: Daemon, family: str, **labels: str) -> float | None:
    _, page = daemon.get()
    wanted = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    found = re.search(rf"^{family}\{{{re.escape(wanted)}\}} (\S+)", page, re.MULTILINE)
    return float(found[1]) if found else None


def test_power_limits_are_set_without_a_restart(tmp_path: Path) -> None:
    """A weaker adapter is plugged in: file and SIGHUP, and the next look is judged by it; one that cannot be is not."""
    file, over = tmp_path / "spark-agent.toml", {"scope": "system", "gb10_power_verdict": "over_budget"}
    file.write_text("")
    with Daemon(tmp_path, machine=("--demo", "fe-gemm", "--config", str(file))) as daemon:
        nvidias = {"scope": "dc_input", "limit": "adapter", "origin": "vendor_doc"}
        assert 240 == _limit(daemon, "gb10_power_limit_watts", **nvidias)
        assert 0 == _limit(daemon, "gb10_power_verdict", **over)
        file.write_text("[power]\nadapter_watts = 140\n")
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: _limit(daemon, "gb10_power_verdict", **over) == 1, lambda: daemon.log)
        assert 140 == _limit(daemon, "gb10_power_limit_watts", **nvidias | {"origin": "user"})
        assert _limit(daemon, "gb10_power_limit_watts", **nvidias) is None
        file.write_text("[power]\nadapter_watts = -140\n")
        daemon.process.send_signal(signal.SIGHUP)
        assert "power.adapter_watts: -140 is not a number of watts from 1 to 1000" in _line(daemon, "stay in force")
        assert 1 == _limit(daemon, "gb10_power_verdict", **over)
        seconds = _limit(daemon, "gb10_power_limit_seconds_total", limit="adapter")
        assert seconds is not None
        file.write_text("")
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: _limit(daemon, "gb10_power_limit_watts", **nvidias) == 240, lambda: daemon.log)
        assert seconds <= (_limit(daemon, "gb10_power_limit_seconds_total", limit="adapter") or -1)
        assert 0 == daemon.stop()


# --- systemd ----------------------------------------------------------------------------------------------------------


class Manager:
    """What systemd is to a service: it hears datagrams, and wants the watchdog fed."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(PATIENCE)

    def hear(self, until_: str) -> list[str]:
        """Return what is said until this is, with the status left out."""
        heard: list[str] = []
        while until_ not in heard:
            lines = self.socket.recv(4096).decode().split("\n")
            heard += [line for line in lines if not line.startswith(("STATUS=", "MONOTONIC_USEC="))]
        return heard

    def next(self) -> list[str]:
        """Return what is said with the next status."""
        heard: list[str] = []
        while not (lines := self.socket.recv(4096).decode().split("\n"))[0].startswith("STATUS="):
            heard += lines
        return heard

    def forget(self) -> None:
        """Throw away what waits to be heard."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(4096):
                pass
        except BlockingIOError:
            self.socket.settimeout(PATIENCE)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """Listen as systemd does."""
    manager = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "15000000")
    yield manager
    manager.socket.close()


def test_systemd_hears_how_it_is(tmp_path: Path, manager: Manager) -> None:
    """Ready with the first report, fed while it beats, reloading until it is done, and stopping before it ends."""
    with Daemon(tmp_path) as daemon:
        assert "READY=1" == manager.hear("READY=1")[0]
        assert 200 == daemon.get()[0]
        assert ["WATCHDOG=1"] == manager.hear("WATCHDOG=1")
        daemon.process.send_signal(signal.SIGHUP)
        heard = [word for word in manager.hear("READY=1") if word != "WATCHDOG=1"]
        assert ["RELOADING=1", "READY=1"] == heard
        assert 0 == daemon.stop()
        assert "STOPPING=1" == manager.hear("STOPPING=1")[-1]


# --- what hangs -------------------------------------------------------------------------------------------------------


def test_a_driver_that_hangs_costs_the_gpu_only(tmp_path: Path) -> None:
    """From the first call on: it is ready all the same, healthy, and tells all else."""
    machine = copied("fe-gemm", tmp_path / "machine", nvml_json={"init": {"hang": True}}, timeline_jsonl="")
    with Daemon(tmp_path, machine=("--machine", str(machine))) as daemon:
        assert (200, "ready\n") == daemon.get("/-/ready")
        assert 200 == daemon.get("/-/healthy")[0]
        success = "spark_agent_collector_success"
        # How many of the others the first look has time for is not for a busy computer to say.
        until(lambda: daemon.sample(f'{success}{{collector="spbm"}}'), lambda: daemon.log)
        _, page = daemon.get()
        assert f'{success}{{collector="gpu"}} 0.0' in page
        assert "gb10_gpu_nvml_power_watts{" not in page
        assert "gb10_system_power_watts " in page
        until(lambda: daemon.sample("spark_agent_beats_total") >= 3, lambda: daemon.log)
        assert 0 == daemon.stop()


# What Python runs before anything else: after so many beats, a beat hangs for as long as the named pipe is there.
_HANGING = """\
import os
from spark_agent.agent import sampler
from spark_agent.exporters import daemon, site

PIPE = {pipe!r}
beat = sampler.Sampler.beat

def hang(self, patience=None):
    beats = self.report.history.beats if self.report else 0
    if beats >= {beats} and os.path.exists(PIPE):
        with open(PIPE) as pipe:
            pipe.read()
    return beat(self, patience)

sampler.Sampler.beat = hang
daemon._TICK_SECONDS, daemon._STATUS_SECONDS, daemon._STOP_SECONDS, site.PATIENCE_SECONDS = 0.02, 0.1, 0.1, 0.5
"""


def _hanging(folder: Path, monkeypatch: pytest.MonkeyPatch, beats: int) -> Path:
    """Let the daemon hang after so many beats, and return the pipe that it hangs in."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    (folder / "sitecustomize.py").write_text(_HANGING.format(pipe=str(pipe), beats=beats))
    monkeypatch.setattr("daemon.SOURCE", f"{folder}{os.pathsep}{SOURCE}")
    return pipe


@pytest.fixture
def first_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[subprocess.Popen[bytes], TextIO]]:
    """Return a daemon that hangs in its first look, and the end of the pipe that ends it when it is closed."""
    pipe = _hanging(tmp_path, monkeypatch, 0)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "spark_agent.agent", *_SERVE],
            stderr=log,
            env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{SOURCE}"},
        )
    # Opens when the look has begun.
    with process, pipe.open("w") as end:
        yield process, end
        process.kill()


def test_what_is_asked_before_the_first_look_makes_nobody_ready(
    manager: Manager, first_look: tuple[subprocess.Popen[bytes], TextIO], tmp_path: Path
) -> None:
    """A reload is done with when it is done, but ready is who has something to say."""
    process, end = first_look
    process.send_signal(signal.SIGHUP)
    assert ["RELOADING=1"] == manager.hear("RELOADING=1")
    (tmp_path / "pipe").unlink()
    end.close()
    assert ["READY=1", "WATCHDOG=1"] == manager.hear("WATCHDOG=1")


def test_an_end_does_not_wait_for_the_first_look(first_look: tuple[subprocess.Popen[bytes], TextIO]) -> None:
    """Nor for one that never comes."""
    process, _ = first_look
    process.send_signal(signal.SIGTERM)
    assert 0 == process.wait(PATIENCE)


def test_a_beat_that_hangs_starves_the_watchdog(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are still answered, and say that it is not healthy; what beats again is fed again."""
    pipe = _hanging(tmp_path, monkeypatch, 3)
    with Daemon(tmp_path, "--beat=0.1") as daemon:
        manager.hear("WATCHDOG=1")
        until(lambda: daemon.get("/-/healthy")[0] == 503, lambda: daemon.log)
        assert 200 == daemon.get()[0]
        manager.forget()
        # Each status is told by the one who would feed it.
        assert [] == [word for _ in range(5) for word in manager.next()]
        # The next beat does not find it, and the one that hangs in it comes back.
        pipe = pipe.rename(tmp_path / "over")
        pipe.open("w").close()
        assert ["WATCHDOG=1"] == manager.hear("WATCHDOG=1")
        until(lambda: daemon.get("/-/healthy")[0] == 200, lambda: daemon.log)
        assert 0 == daemon.stop()


# --- what cannot be started with --------------------------------------------------------------------------------------


def _refused(*words: str) -> tuple[int, list[str]]:
    """Return the exit code of a daemon that does not start, and what it says but for the log."""
    done = subprocess.run(
        [sys.executable, "-m", "spark_agent.agent", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )
    assert "" == done.stdout
    assert "Traceback" not in done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if " level=info " not in line]


def test_a_port_that_is_taken(state: Path) -> None:
    """Named, with what to do; the state is not touched."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, (line,) = _refused(
            "--demo", "fe-gemm", "serve", f"--web.listen-address={address}", f"--state.directory={state}"
        )
    assert 78 == code
    assert address in line
    assert [] == list(state.iterdir())


def test_a_state_that_cannot_be_kept(tmp_path: Path) -> None:
    """Where it would be, and why not; counters that reset at each start would be worse than no start."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "state", tmp_path / "none" / "state"):
        code, (line,) = _refused(*_SERVE, f"--state.directory={folder}")
        assert 78 == code
        assert str(folder) in line


def test_a_state_that_another_agent_keeps(tmp_path: Path, state: Path) -> None:
    """Two would count each other's ends."""
    with Store(state):
        code, (line,) = _refused(*_SERVE, f"--state.directory={state}")
    assert 78 == code
    assert re.search(rf"{re.escape(str(state))}.*another agent", line)
    with Daemon(tmp_path, f"--state.directory={state}") as daemon:
        assert 0 == daemon.stop()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--collector.nvmee",), 64, "nvmee"),
        (("--no-collector.nvmee",), 64, "nvmee"),
        (("--beat=often",), 64, "often"),
        (("--web.listen-address=[::1",), 64, "::1"),
        (("--web.config.file=/none/web.yml",), 78, "/none/web.yml"),
    ],
)
def test_a_flag_that_is_none(words: tuple[str, ...], code: int, says: str) -> None:
    """Usage is 64, and what a flag names is configuration."""
    got, lines = _refused(*_SERVE, *words)
    assert code == got
    assert says in lines[-1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[collector]\nnvme = 1\n", "nvme"),
        ("[collektor]\n", "collektor"),
        ("beat = \n", "spark-agent.toml:1:"),
        ("[collector]\nnvmee = true\n", "nvmee"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, content: str, says: str) -> None:
    """One line, with the file in it."""
    file = tmp_path / "spark-agent.toml"
    file.write_text(content)
    code, (line,) = _refused("--demo", "fe-gemm", "--config", str(file), "serve")
    assert 78 == code
    assert str(file) in line
    assert says in line
