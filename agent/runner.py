"""Runs a command and looks at the machine meanwhile: what ``measure`` does, its exit code and signals as time(1)'s.

The program that is started is the user's own. No sensor is read through one.

* Standard input, output and error, the terminal, the working directory, the environment and the process group are
  left as they are, so that job control, full-screen programs and pipes work as without this agent.
* What the terminal sends (Ctrl-C) reaches the command from the kernel, as both are in one process group; what another
  process sends to the agent alone is passed on. In both cases the agent waits for the command to end.
* The signals are blocked in each of the agent's threads and waited for by the main one, which learns who sent them.
"""

import errno
import logging
import math
import os
import shutil
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spark_agent.agent.calibration import Calibration
from spark_agent.agent.estimate import Estimate, estimate
from spark_agent.agent.measure import INTERVAL_SECONDS, Interval, Measurement, Outcome, Per, Span, Window
from spark_agent.agent.power import Power, Unmeasured, understand
from spark_agent.agent.snapshot import Lookout, Snapshot
from spark_agent.agent.terms import EXCLUDED
from spark_agent.collectors import Collector, Host, Origin, discover, paces

log = logging.getLogger(__name__)

#: What power needs, and what an estimate of it does.
COLLECTORS: Final = ("boot", "cpu", "gpu", "nic", "platform", "spbm")
# Those that hold powers and energies.
_POWER: Final = ("gpu", "spbm")

#: The exit codes of a command that cannot be started, as shells and time(1) have them.
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126

# Seconds. Until a driver that sleeps is awake the command waits, but not for one that hangs.
_WAKE_PATIENCE: Final = 5.0
_EDGE_PATIENCE: Final = 2.0
_EDGE_TRIES: Final = 3

_ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
_PASSED_ON: Final = _ENDING | {signal.SIGUSR1, signal.SIGUSR2}


class CommandError(Exception):
    """The command cannot be started; ``code`` is the exit code that says so."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__("".join(letter if letter.isprintable() else "?" for letter in message[:1000]))
        self.code = code


class InterruptedBefore(Exception):  # noqa: N818  (no error: somebody wanted it)
    """A signal ended it before the command was started."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name} came before the command was started, so it was not")
        self.code = 128 + number


@dataclass(frozen=True, slots=True)
class Watched:
    """The machine to look at while a command runs.

    ``advance`` moves one that is replayed, and says whether something came or went; ``ends_at`` is the second of its
    clock after which it stands still. ``estimate`` says what the system may draw where nothing measures it.
    """

    host: Host
    advance: Callable[[], bool] = lambda: False
    ends_at: float = math.inf
    estimate: Callable[[Snapshot, Power], Interval | Unmeasured | None] = lambda _snapshot, _power: None


class Estimator:
    """Says what the system may draw, look after look: which cores were busy takes the look before."""

    def __init__(self, calibration: Calibration | None = None) -> None:
        """Begin without a look; a ``calibration`` is that of the machine, if its owner made one."""
        self._calibration = calibration
        self._before: Estimate | None = None

    def __call__(self, snapshot: Snapshot, power: Power) -> Interval | Unmeasured:
        """Return what it may draw, or why that is not estimated."""
        found = self._before = estimate(snapshot, power, self._before, self._calibration)
        system = found.system
        if isinstance(system, Unmeasured):
            return system
        return Interval(system.lower, system.upper, system.source, EXCLUDED)


def measure(
    command: tuple[str, ...],
    watched: Watched,
    *,
    interval: float = INTERVAL_SECONDS,
    baseline: float = 0.0,
    per: Per | None = None,
) -> Measurement:
    """Run a command and return what it drew.

    Of an idle machine the ``baseline`` is taken for so many seconds first. Raises `CommandError` where the command
    cannot be started, and `InterruptedBefore` where a signal came before it was.
    """
    path = find(command[0])
    host = watched.host
    with _signals() as signals:
        watch = _Watch(watched, interval)
        watch.wake(signals)
        idle = None
        if baseline:
            watch.begin()
            signals.sleep_through(lambda: time.sleep(baseline))
            idle = watch.end()
        watch.begin()
        signals.check()
        started_at, began = time.time(), time.monotonic()
        status = signals.wait(_start(path, command, signals.mask))
        seconds = time.monotonic() - began
        span = watch.end()
    outcome = Outcome(command, status, seconds, started_at)
    return Measurement(
        host.name, host.origin, host.note, interval, outcome, span, idle, per, tuple(watch.remarks(span))
    )


class _Watch:
    """Looks at the machine, each interval, in a thread of its own."""

    def __init__(self, watched: Watched, interval: float) -> None:
        self._watched = watched
        self._host = watched.host
        self._interval = interval
        collectors: Mapping[str, Collector] = {name: read for name, read in discover().items() if name in COLLECTORS}
        self._lookout = Lookout(self._host, collectors, paces(), linger=2 * interval)
        self._window = Window(interval)
        self._fault: Exception | None = None

    def wake(self, signals: "_Signals") -> None:
        """Look once, so that drivers are awake and the machine's layout is known when it counts."""
        signals.sleep_through(lambda: self._look(_WAKE_PATIENCE))

    def begin(self) -> None:
        """Look at everything anew, and go on looking."""
        self._window = Window(self._interval)
        self._note(self._anew())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def end(self) -> Span:
        """Look at everything anew once more, and return what was seen."""
        self._stop.set()
        self._thread.join()
        return self._window.span()

    def remarks(self, span: Span) -> Iterator[str]:
        """Say what went wrong with looking."""
        if self._fault:
            yield f"looking at the machine ended with {self._fault!r}; what came after is not covered"
        if self._host.origin is not Origin.LIVE:
            yield "a replayed machine moves in the steps of its timeline, so joules may be off by what one step holds"
        if span.ended > self._watched.ends_at:
            yield f"the timeline ends at {self._watched.ends_at:g} s; nothing in this machine moves after that"

    def _run(self) -> None:
        try:
            due = time.monotonic() + self._interval
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                self._note(self._look(self._interval))
                due += self._interval
                if (late := time.monotonic() - due) > 0:
                    missed = 1 + int(late // self._interval)
                    self._window.missed += missed
                    due += missed * self._interval
            self._note(self._anew())
        except Exception as error:  # noqa: BLE001  (the command goes on, and its exit code counts)
            self._fault = error

    def _move(self) -> None:
        if self._watched.advance():
            self._host.memory.forget()
            self._lookout.hurry()

    def _look(self, patience: float) -> Snapshot:
        self._move()
        return self._lookout.look(patience)

    def _anew(self) -> Snapshot:
        """Look with nothing taken over from before, nor from a driver that was still busy with an earlier question."""
        until = time.monotonic() + _EDGE_PATIENCE
        self._move()
        since = self._host.clock()
        for _ in range(_EDGE_TRIES):
            self._host.memory.forget_readings()
            snapshot = self._lookout.look(max(self._interval, until - time.monotonic()))
            visits = (snapshot.visit(name) for name in _POWER)
            if all(visit and visit.at >= since for visit in visits) or time.monotonic() >= until:
                break
        return snapshot

    def _note(self, snapshot: Snapshot) -> None:
        power = understand(snapshot)
        self._window.note(snapshot, power, self._watched.estimate(snapshot, power))


def find(name: str) -> str:
    """Return the path of a program as execvp(3) finds it, or raise `CommandError`."""
    if "/" not in name:
        if path := shutil.which(name):
            return path
        if name and any(_is_file(Path(folder, name)) for folder in os.get_exec_path()):
            raise CommandError(f"{name}: found, but not executable", NOT_EXECUTABLE)
        raise CommandError(f"{name or repr(name)}: command not found", NOT_FOUND)
    try:
        is_folder = stat.S_ISDIR(Path(name).stat().st_mode)
    except OSError as error:
        raise _refused(name, error) from error
    if is_folder:
        raise CommandError(f"{name}: is a directory", NOT_EXECUTABLE)
    if not os.access(name, os.X_OK):
        raise CommandError(f"{name}: permission denied: it is not executable", NOT_EXECUTABLE)
    return name


def _is_file(path: Path) -> bool:
    with suppress(OSError):
        return path.is_file()
    return False


def _refused(name: str, error: OSError) -> CommandError:
    missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
    return CommandError(f"{name}: {os.strerror(error.errno or 0).lower()}", NOT_FOUND if missing else NOT_EXECUTABLE)


def _start(path: str, command: tuple[str, ...], mask: set[signal.Signals]) -> int:
    """Start the command with all that this process was started with, and return its number."""
    # What Python ignores for itself; whatever this agent was told to ignore (nohup) the command ignores too.
    defaults = [signal.SIGPIPE, signal.SIGXFSZ]
    try:
        try:
            return os.posix_spawn(path, command, os.environ, setsigmask=mask, setsigdef=defaults)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            # A script that does not say who reads it is the shell's, as execvp(3) has it.
            script = ["/bin/sh", path, *command[1:]]
            return os.posix_spawn(script[0], script, os.environ, setsigmask=mask, setsigdef=defaults)
    except OSError as error:
        if error.errno == errno.ENOENT and Path(path).exists():
            raise CommandError(f"{path}: the program that it names to run it is not there", NOT_FOUND) from error
        raise _refused(path, error) from error
    except ValueError as error:
        raise CommandError(f"{path}: {error}", NOT_EXECUTABLE) from error


class _Signals:
    """The signals that come while the agent measures. ``mask`` is what the command begins with."""

    def __init__(self, waited: set[signal.Signals], mask: set[signal.Signals]) -> None:
        self._waited = waited
        self._ending = waited & _ENDING
        self.mask = mask

    def check(self) -> None:
        """Raise where one came that ends it before the command is started."""
        if info := signal.sigtimedwait(self._ending, 0):
            raise InterruptedBefore(info.si_signo)

    def sleep_through(self, what: Callable[[], object]) -> None:
        """Wait for a function to return, unless a signal ends it."""
        for info in self._until(what, self._ending):
            raise InterruptedBefore(info.si_signo)

    def wait(self, child: int) -> int:
        """Wait for the command to end, pass on meanwhile what it should hear, and return how it ended."""
        # It is left to be waited for below, so that until then no other process gets its number.
        for info in self._until(lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT), self._waited):
            # A code above 0 is the kernel's: from the terminal, which told the command as well.
            if info.si_code <= 0:
                _pass_on(child, signal.Signals(info.si_signo))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _until(self, what: Callable[[], object], waited: set[signal.Signals]) -> Iterator[signal.struct_siginfo]:
        """Yield the signals that come while a function runs, in a thread of its own; raise what it raises."""
        # Not sigtimedwait: where this process was stopped (Ctrl-Z) until the time was over, Python makes up a signal.
        me, faults, over = threading.get_ident(), list[Exception](), threading.Event()

        def run() -> None:
            try:
                what()
            except Exception as error:  # noqa: BLE001  (raised below)
                faults.append(error)
            over.set()
            signal.pthread_kill(me, signal.SIGCHLD)

        threading.Thread(target=run, name="until", daemon=True).start()
        while not over.is_set():
            info = signal.sigwaitinfo(waited | {signal.SIGCHLD})
            if info.si_signo != signal.SIGCHLD:
                yield info
        if faults:
            raise faults[0]


def _pass_on(child: int, number: signal.Signals) -> None:
    try:
        os.kill(child, number)
    except OSError as error:  # one that runs as another user
        log.error("%s cannot be passed on to the command: %s", number.name, error.strerror)  # noqa: TRY400


@contextmanager
def _signals() -> Iterator[_Signals]:
    """Hold back signals from this process and all threads that it starts, for `_Signals` to take."""
    # Left alone is what this process was told to ignore (nohup, a job in the background of a script).
    waited = {number for number in _PASSED_ON if signal.getsignal(number) != signal.SIG_IGN} | {signal.SIGCHLD}
    # Where it is ignored the kernel keeps no exit code.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    try:
        yield _Signals(waited, {signal.Signals(number) for number in mask})
    finally:
        # One more that came when all was over must not end the report of it.
        while signal.sigtimedwait(waited, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def occupy_standard_streams() -> None:
    """Open what the shell closed (``>&-``) on nothing, so that no driver's file is taken for it.

    The command gets it closed all the same, for Python's descriptors end where another program begins.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
