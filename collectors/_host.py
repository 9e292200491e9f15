"""The machine as a value: its files, NVML, udev, processes and clocks.

Everything that a collector knows of a machine it asks here, so that a recorded machine is read by the same
code as the live one.
"""

import fnmatch
import re
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar, overload

from spark_agent.collectors._nvml import Nvml
from spark_agent.collectors._reading import Absence, Item, Reading, Reason, Unavailable
from spark_agent.collectors._tree import Tree

#: Seconds that a machine's layout is taken for unchanged. What changes it sooner, udev reports.
KEEP_SECONDS: Final = 60.0
#: Seconds after which a layout that was read with a fault is read again.
KEEP_FAULT_SECONDS: Final = 5.0

#: Seconds by which something may be done before it is due: beats and clock are not the same to the last digit.
EVERY_SLACK: Final = 0.05

# What is read only so often is kept under keys that begin with this.
_EVERY: Final = "every"

_DIGITS = re.compile(r"(\d+)")
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
Answer = TypeVar("Answer")


class Origin(StrEnum):
    """Where a machine's answers come from."""

    LIVE = "live"
    RECORDED = "recorded"
    SYNTHETIC = "synthetic"


class Udev(Protocol):
    """The device database."""

    def properties(self, sys_path: str) -> Mapping[str, str]:
        """Return what udev knows of the device at one path of ``/sys``; empty where it knows nothing."""


class Processes(Protocol):
    """The names of running processes."""

    def name(self, pid: int) -> str:
        """Return the command name of one process, or raise `Unavailable`."""


class NoUdev:
    """A machine without a device database."""

    def properties(self, sys_path: str) -> Mapping[str, str]:  # noqa: ARG002  (the protocol's)
        """Return nothing."""
        return {}


class Stuck:
    """What never answered, files and whole collectors; each is left alone until the thread that hangs in it is gone."""

    def __init__(self) -> None:
        """Start with none."""
        self.current: dict[int, tuple[str, float]] = {}
        self._hung: dict[str, threading.Thread] = {}

    def give_up(self, what: str, thread: threading.Thread) -> None:
        """Note that a thread hangs in a file or a collector."""
        self._hung[what] = thread

    def has_left_behind(self, thread: threading.Thread) -> bool:
        """Whether a thread was given up, so that what it brings back is not wanted any more."""
        return thread in self._hung.values()

    def check(self, what: str) -> None:
        """Raise where a thread still hangs in this from an earlier time."""
        if self._hung and (thread := self._hung.get(what)):
            if thread.is_alive():
                raise Unavailable(Reason.TIMEOUT, f"{what} does not answer")
            self._hung.pop(what, None)


class Memory:
    """What does not change while a machine runs undisturbed, so that not every look has to find it out again."""

    def __init__(self) -> None:
        """Remember nothing."""
        #: How often all was forgotten: what was asked before that is not to be kept.
        self.forgotten = 0
        self._kept: dict[tuple[object, ...], tuple[float, Any]] = {}
        self._most = 256

    def get(self, key: tuple[object, ...], now: float) -> Any:
        """Return what was kept, if it is still good; nothing is None."""
        until, answer = self._kept.get(key, (now, None))
        return answer if now < until else None

    def put(self, key: tuple[object, ...], now: float, answer: object, seconds: float) -> None:
        """Keep an answer for so many seconds; one with a fault in it not for long."""
        if len(self._kept) >= self._most:
            # What is asked no more, of a device that is gone, is dropped when it is old.
            # Of a copy: a thread that was left behind may be putting something.
            self._kept = {key: kept for key, kept in self._kept.copy().items() if now < kept[0]}
            self._most = max(256, 2 * len(self._kept))
        self._kept[key] = now + (min(seconds, KEEP_FAULT_SECONDS) if _has_fault(answer) else seconds), answer

    def forget(self) -> None:
        """Forget all, for a device or a driver came or went."""
        self.forgotten += 1
        self._kept = {}

    def forget_readings(self) -> None:
        """Have what is read only so often read anew; the layout stays, which takes longer to find out."""
        self.forgotten += 1
        self._kept = {key: kept for key, kept in self._kept.copy().items() if key[0] is not _EVERY}


def _has_fault(answer: object) -> bool:
    if isinstance(answer, Absence):
        return answer.reason.is_fault
    if isinstance(answer, tuple):
        return any(map(_has_fault, answer))
    return getattr(answer, "fault", None) is not None


@dataclass(frozen=True, slots=True)
class Host:
    """A machine. ``clock`` is monotonic seconds, ``now`` seconds since 1970, both the machine's own."""

    tree: Tree
    nvml: Nvml
    udev: Udev
    processes: Processes
    name: str = "this machine"
    origin: Origin = Origin.LIVE
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    note: str = ""
    stuck: Stuck = field(default_factory=Stuck)
    memory: Memory = field(default_factory=Memory)

    @overload
    def keep(self, question: Callable[..., Iterator[Answer]], *arguments: Hashable) -> tuple[Answer, ...]: ...

    @overload
    def keep(self, question: Callable[..., Answer], *arguments: Hashable) -> Answer: ...

    def keep(self, question: Callable[..., Any], *arguments: Hashable) -> Any:
        """Ask about the machine's layout, ``question(host, *arguments)``, or return what it said not long ago.

        For what is no reading: names, sizes, limits, where things are. What a generator yields is kept as a tuple.
        """
        key = (question, *arguments)
        now = self.clock()
        answer = self.memory.get(key, now)
        if answer is None:
            forgotten = self.memory.forgotten
            answer = question(self, *arguments)
            if isinstance(answer, Iterator):
                answer = tuple(answer)
            self._remember(key, now, answer, KEEP_SECONDS, forgotten)
        return answer

    def every(self, seconds: float, question: Callable[..., Iterator[Item]], *arguments: Hashable) -> tuple[Item, ...]:
        """Take readings that are dear only so often, ``question(host, *arguments)``; each says when it was taken."""
        key = (_EVERY, question, *arguments)
        now = self.clock()
        answer: tuple[Item, ...] | None = self.memory.get(key, now)
        if answer is None:
            forgotten = self.memory.forgotten
            found = question(self, *arguments)
            answer = tuple(replace(item, at=now) if isinstance(item, Reading) else item for item in found)
            self._remember(key, now, answer, seconds - EVERY_SLACK, forgotten)
        return answer

    def _remember(self, key: tuple[object, ...], now: float, answer: object, seconds: float, forgotten: int) -> None:
        # Not wanted is what a thread brings that was left behind, and what was found out before something went.
        is_old = forgotten != self.memory.forgotten or self.stuck.has_left_behind(threading.current_thread())
        if not is_old:
            self.memory.put(key, now, answer, seconds)

    def text(self, path: str) -> str:
        """Return one small kernel file as text, without the white space around it."""
        return self._ask(self.tree.read, path).decode(errors="replace").strip()

    def content(self, path: str) -> str:
        """Return one kernel file as text."""
        return self._ask(self.tree.read, path).decode(errors="replace")

    def _ask(self, question: Callable[[str], Answer], path: str) -> Answer:
        # A file of a sick device may hang for ever, so say where this thread is before it may stop there.
        self.stuck.check(path)
        me = threading.get_ident()
        self.stuck.current[me] = path, time.monotonic()
        try:
            return question(path)
        finally:
            self.stuck.current.pop(me, None)

    def integer(self, path: str) -> int:
        """Return one kernel file that holds a decimal number."""
        return parse_integer(self.text(path))

    def list(self, path: str) -> list[str]:
        """Return the names in a directory, in natural order; none where there is no such directory."""
        try:
            return sorted(self._ask(self.tree.list, path), key=natural)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def glob(self, pattern: str) -> Iterator[str]:
        """Yield the paths that match, in natural order; ``*`` stays within one part of the path."""
        fixed, star, _ = pattern.partition("*")
        if not star:
            if self.exists(pattern):
                yield pattern
            return
        above = fixed.rpartition("/")[0]
        part, _, rest = pattern[len(above) + 1 :].partition("/")
        for name in self.list(above):
            if fnmatch.fnmatchcase(name, part):
                yield from self.glob(f"{above}/{name}/{rest}" if rest else f"{above}/{name}")

    def exists(self, path: str) -> bool:
        """Whether there is something at a path."""
        try:
            return self._ask(self.tree.exists, path)
        except Unavailable:
            return True  # what does not answer is there, and whoever reads it hears so

    def link(self, path: str) -> str:
        """Return the name that a symbolic link leads to: of ``…/driver``, the driver's."""
        return self._ask(self.tree.link, path).rstrip("/").rpartition("/")[2]

    def real(self, path: str) -> str:
        """Return the path with every link followed."""
        return self._ask(self.tree.real, path)


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a sort key under which ``power2`` comes before ``power10``."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in _DIGITS.split(name)]


def parse_integer(text: str) -> int:
    """Turn decimal text into a number; anything else is garbage, and the message shows it."""
    # int() would take "1_000", " 12 " and other alphabets' digits.
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"not a number: {text[:60]!r}")
    return int(text)
