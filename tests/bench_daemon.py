"""What the daemon costs, beside node_exporter in the same run: the second part of ``make bench``.

A replayed Spark of 20 cores and 14 power channels is served, once held in memory and once read from disk at each beat.
Who measures is one client in another process, which keeps its connection; processor time is the kernel's own account
of all threads of a process, in nanoseconds, and of its children, in ticks. What a process spends without being asked
is taken off from what a scrape costs, and is what a beat costs.
"""

import gzip
import http.client
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from imagine import build, write_folder
from rigs import MissingRigError, Running, program, running, until

REPO: Final = Path(__file__).parent.parent
ENVIRONMENT: Final = os.environ | {"PYTHONPATH": str(REPO / ".namespace")}

#: How a scrape is asked for: as `curl` does, and as Prometheus does.
PLAIN: Final = {"Accept": "text/plain;version=0.0.4"}
PROMETHEUS: Final = {
    "Accept": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}

SCRAPES: Final = 1000
TIMED: Final = 200
PAUSE_SECONDS: Final = 0.02
COLD: Final = 20
IDLE_SECONDS: Final = 40.0
MIDDLE, END = 5000, 10_000
STARTS: Final = 7
TRACED: Final = 15


@dataclass
class Scrapes:
    """What scrapes of one kind cost: latencies in seconds, and the processor's seconds per scrape."""

    latencies: list[float] = field(default_factory=list)
    #: Of those whose page had been rendered for a scrape before.
    cached: list[float] = field(default_factory=list)
    processor: float = 0.0
    bytes: int = 0

    def quantile(self, share: float) -> float:
        """Return a quantile of the latencies, in seconds."""
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[round(share * 100) - 1]


@dataclass
class Served:
    """What one server costs."""

    scrapes: dict[str, Scrapes] = field(default_factory=dict)
    #: The first scrape after a beat, which renders the page.
    cold: Scrapes = field(default_factory=Scrapes)
    idle: float = 0.0
    beat: float = 0.0
    series: int = 0


class Client:
    """One that keeps its connection."""

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = dict(headers)

    def scrape(self) -> bytes:
        """Return a page as it came."""
        self._connection.request("GET", "/metrics", headers=self._headers)
        answer = self._connection.getresponse()
        page = answer.read()
        assert answer.status == http.HTTPStatus.OK, answer.status
        return page

    def timed(self) -> tuple[float, bytes]:
        """Return the seconds that a scrape took, and its page."""
        began = time.perf_counter()
        page = self.scrape()
        return time.perf_counter() - began, page

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process, its threads that have ended and children that it has waited for."""
    # clock_getcpuclockid(3): the clock of another process is its number's complement, with CPUCLOCK_SCHED.
    own = time.clock_gettime((~pid << 3) | 2)
    return own + sum(map(int, _stat(pid)[13:15])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on, so that the field called N in proc(5) is at N - 3."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def resident_megabytes(pid: int) -> float:
    """Return the memory of a process that is in RAM, shared libraries included, in MB of a million bytes."""
    found = re.search(r"^Rss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024 / 1e6


def beats(page: bytes) -> int:
    """Return how many beats a page says there were; 0 where it is not the agent's."""
    if page.startswith(b"\x1f\x8b"):
        page = gzip.decompress(page)
    found = re.search(rb"^spark_agent_beats_total (\d+)", page, re.MULTILINE)
    return int(found[1]) if found else 0


# --- what is run ------------------------------------------------------------------------------------------------------


@contextmanager
def agent(folder: Path, *arguments: str) -> Iterator[Running]:
    """Run a daemon with state directory and black box, and yield it once it is ready."""
    with tempfile.TemporaryDirectory(dir=folder) as state, (folder / "log").open("wb") as out:
        command = [sys.executable, str(REPO / "tests" / "bench_replay.py"), *arguments, "serve"]
        process = subprocess.Popen(
            [*command, "--web.listen-address=127.0.0.1:0", f"--state.directory={state}"],
            env=ENVIRONMENT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Running(process.pid, int(until(lambda: _ready(process, folder / "log"))[1]))
        finally:
            process.terminate()
            process.wait()


def _ready(process: subprocess.Popen[bytes], log: Path) -> re.Match[str] | None:
    assert process.poll() is None, log.read_text()
    return re.search(r"msg=ready .*addresses=\S+?:(\d+)", log.read_text())


# --- what is measured -------------------------------------------------------------------------------------------------


def served(server: Running) -> Served:
    """Measure one server that answers."""
    told = Served()
    plain = Client(server.port, PLAIN)
    for _ in range(5):
        page = plain.scrape()
    told.series = sum(not line.startswith(b"#") for line in page.splitlines())
    first = beats(page)
    before, began = processor_seconds(server.pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    spent = processor_seconds(server.pid) - before
    told.idle = spent / (time.monotonic() - began)
    if first:
        told.beat = spent / (beats(plain.scrape()) - first)
        told.cold = _cold(server, plain, told.idle)
    plain.close()
    for name, headers in (("as text", PLAIN), ("as Prometheus asks (OpenMetrics, gzip)", PROMETHEUS)):
        told.scrapes[name] = _scrapes(server, headers, told.idle)
    return told


def _cold(server: Running, client: Client, idle: float) -> Scrapes:
    told = Scrapes()
    before, began = processor_seconds(server.pid), time.monotonic()
    for _ in range(COLD):
        # Nobody else asks, so each of these is the first after a beat.
        time.sleep(1.0)
        seconds, _ = client.timed()
        told.latencies.append(seconds)
    spent = processor_seconds(server.pid) - before - idle * (time.monotonic() - began)
    told.processor = spent / COLD
    return told


def _scrapes(server: Running, headers: Mapping[str, str], idle: float) -> Scrapes:
    told = Scrapes()
    client = Client(server.port, headers)
    client.scrape()
    seen = 0
    for _ in range(TIMED):
        time.sleep(PAUSE_SECONDS)
        seconds, page = client.timed()
        told.latencies.append(seconds)
        if seen == (seen := beats(page)):
            told.cached.append(seconds)
    told.bytes = len(page)
    before, began = processor_seconds(server.pid), time.monotonic()
    for _ in range(SCRAPES):
        client.scrape()
    told.processor = (processor_seconds(server.pid) - before - idle * (time.monotonic() - began)) / SCRAPES
    client.close()
    return told


@dataclass
class Aged:
    """A daemon after many beats: memory in MB in the middle and at the end, the processor's seconds a beat."""

    middle: float
    end: float
    beat: float


def aged(folder: Path, *arguments: str) -> Aged:
    """Let a daemon beat without waiting."""
    with agent(folder, f"--beats={END}", *arguments) as server:
        client = Client(server.port, PLAIN)

        def after(wanted: int) -> tuple[int, float, float]:
            while (number := beats(client.scrape())) < wanted:
                time.sleep(1.0)
            return number, resident_megabytes(server.pid), processor_seconds(server.pid)

        (first, middle, before), (last, end, spent) = after(MIDDLE), after(END)
        client.close()
    return Aged(middle, end, (spent - before) / (last - first))


def ready_seconds(folder: Path, *arguments: str) -> float:
    """Return the seconds from a daemon's start to its first 200 on /-/ready, the median of several."""
    return statistics.median(_ready_seconds(folder, *arguments) for _ in range(STARTS))


def _ready_seconds(folder: Path, *arguments: str) -> float:
    path = folder / "ready.sock"
    command = [sys.executable, "-m", "spark_agent.agent", *arguments, "serve", f"--web.listen-address=unix:{path}"]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _is_ready(path):
            time.sleep(0.002)
        return time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, which has a name before anybody listens."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.host)


def _unix(path: Path, page: str) -> http.client.HTTPResponse:
    connection = _UnixConnection(str(path), timeout=60)
    connection.request("GET", page, headers={"Host": "localhost", "Connection": "close", **PLAIN})
    return connection.getresponse()


def _is_ready(path: Path) -> bool:
    try:
        return _unix(path, "/-/ready").status == http.HTTPStatus.OK
    except (FileNotFoundError, ConnectionRefusedError):
        return False


def processes_started(server: Running) -> int:
    """Return a number that is 0 as long as a process has started no other.

    Children that live, or were not waited for, are listed; of the others the kernel keeps the page faults, and there is
    no process without any.
    """
    lists = Path(f"/proc/{server.pid}/task").glob("*/children")
    living = sum(len(children.read_text().split()) for children in lists)
    return living + int(_stat(server.pid)[8])


def traced(folder: Path) -> int | None:
    """Return the processes that a daemon started in 15 beats and as many scrapes, as strace sees it; None without."""
    if not shutil.which("strace"):
        return None
    trace, path = folder / "trace", folder / "traced.sock"
    strace = ("strace", "-f", "-qq", "-e", "trace=fork,vfork,clone,clone3,execve", "-o", str(trace))
    daemon = (sys.executable, "-m", "spark_agent.agent", "--machine", str(folder / "machine"), "serve")
    process = subprocess.Popen(
        [*strace, *daemon, f"--web.listen-address=unix:{path}"],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _is_ready(path))
        while beats(_unix(path, "/metrics").read()) < TRACED:
            time.sleep(0.5)
    finally:
        # strace itself would let go of it, and leave it running.
        os.kill(int(trace.read_text().split()[0]), signal.SIGTERM)
        process.wait()
    calls = re.findall(r"(?:fork|clone3?|execve)\(.*", trace.read_text())
    # Threads are cloned too; and one execve is the daemon's own.
    return sum("CLONE_THREAD" not in call for call in calls) - 1


# --- the account ------------------------------------------------------------------------------------------------------


def report() -> Iterator[str]:
    """Measure, and yield what there is to say, line by line."""
    yield f"Python {sys.version.split()[0]}, {os.cpu_count()} processors, {_load()}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        machine = folder / "machine"
        machine.mkdir()
        write_folder(build("fe-gemm"), machine)
        replayed = ("--machine", str(machine))
        yield from _beside(folder, replayed)
        yield f"{END} beats without waiting, a scrape a second"
        for name, arguments in (
            ("replayed, in memory", replayed),
            ("replayed, on disk", ("--on-disk", *replayed)),
            ("this machine itself", ()),
        ):
            yield from _long(name, aged(folder, *arguments))
        yield "starts and forks"
        seconds = ready_seconds(folder, *replayed)
        yield _row(f"first 200 on /-/ready, median of {STARTS}", f"{seconds:.2f} s", _verdict(seconds < 1))
        count = traced(folder)
        if count is not None:
            yield _row(f"processes started in {TRACED} beats (strace)", f"{count}", _verdict(count == 0))
    yield _load()


def _load() -> str:
    return f"load of the last 1, 5 and 15 minutes: {' '.join(f'{load:.2f}' for load in os.getloadavg())}"


def _row(what: str, figure: str, *more: str) -> str:
    return "   ".join((f"  {what:42}{figure:>10}", *more))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _verdict(is_met: bool) -> str:
    return "target met: yes" if is_met else "target met: NO"


def _against(ours: float, theirs: float, times: int) -> tuple[str, str]:
    return f"1/{theirs / ours:.1f} of node_exporter's", _verdict(ours * times <= theirs)


def _beside(folder: Path, replayed: Sequence[str]) -> Iterator[str]:
    them: Served | None = None
    try:
        with running(folder, program("NODE_EXPORTER")) as server:
            them = served(server)
        yield from _table("prometheus-node-exporter, default collectors, this machine", them, None)
    except MissingRigError as error:
        yield f"nothing to compare with: {error}"
    for name, option in (("in memory", ()), ("on disk", ("--on-disk",))):
        with agent(folder, *option, *replayed) as server:
            ours = served(server)
            started = processes_started(server)
        yield from _table(f"spark-agent, replayed fe-gemm {name}", ours, them)
        yield _row("processes started in all this", str(started), _verdict(started == 0))


def _table(title: str, told: Served, other: Served | None) -> Iterator[str]:
    yield f"{title}: {told.series} series, idle at {told.idle * 100:.2f} % of one processor"
    if told.beat:
        yield _row("processor a beat, one each second", _milliseconds(told.beat), _verdict(told.beat <= 3e-3))
    for headers, scrapes in told.scrapes.items():
        theirs = other.scrapes[headers] if other else None
        yield f" scrapes {headers}, {scrapes.bytes} bytes"
        cached = statistics.median(scrapes.cached)
        yield _row(
            f"p50 of {len(scrapes.cached)}" + (", rendered before" if other else ""),
            _milliseconds(cached),
            *(_against(cached, theirs.quantile(0.5), 5) if theirs else ()),
        )
        p99 = scrapes.quantile(0.99)
        below = (f"{_verdict(p99 < theirs.quantile(0.5))}: below its p50",) if theirs else ()
        yield _row(f"p99 of {len(scrapes.latencies)}", _milliseconds(p99), *below)
        yield _row(
            f"processor a scrape, of {SCRAPES} at once",
            _milliseconds(scrapes.processor),
            *(_against(scrapes.processor, theirs.processor, 5) if theirs else ()),
        )
    if told.cold.latencies:
        yield " the first scrape after a beat, which renders the page: all there is with one Prometheus"
        yield _row(f"p50 of {COLD}", _milliseconds(told.cold.quantile(0.5)))
        yield _row("processor", _milliseconds(told.cold.processor))


def _long(name: str, told: Aged) -> Iterator[str]:
    growth = told.end - told.middle
    yield _row(
        f"{name}: RSS",
        f"{told.end:.1f} MB",
        f"{growth:+.2f} MB since beat {MIDDLE}",
        _verdict(told.end <= 45 and growth < 1),
    )
    yield _row("  processor a beat", _milliseconds(told.beat), _verdict(told.beat <= 3e-3))
