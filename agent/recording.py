"""Recording a machine: whatever one look asks of it, and a sweep of further files, as an archive that can be replayed.

The collectors are run once on a host whose doors write down every question and its answer, errors too. So a replay
answers what was asked, and a collector needs nothing of its own to be recorded. ``docs/machines.md`` has the format.

What tells one machine from another is replaced (`redaction`), unless the owner wants it kept.
"""

import errno
import gzip
import io
import json
import os
import posixpath
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from spark_agent.agent import __version__
from spark_agent.agent.machine import FORMAT
from spark_agent.agent.redaction import Kind, Node, Redaction
from spark_agent.agent.snapshot import FILE_DEADLINE, look
from spark_agent.agent.sweep import swept
from spark_agent.collectors import (
    Host,
    Item,
    Nvml,
    NvmlError,
    Origin,
    Reason,
    Unavailable,
    discover,
    reason_of,
)
from spark_agent.collectors._host import Memory, Processes, Stuck, Udev
from spark_agent.collectors._nvml import Ask
from spark_agent.collectors._tree import Fault, Link, Tree

# Seconds; less than a look gives a collector, so that it is never cut off in the middle of a file.
_SWEEP_DEADLINE: Final = 15.0
_MOST_OF_A_FILE: Final = 1024 * 1024
# An archive may hold 50 000 files when it is opened.
_MOST_FILES: Final = 20_000
_MOST_BYTES: Final = 32 * 1024 * 1024

_MOST_LINKS: Final = 40
_EXAMPLES: Final = 3

Answer = TypeVar("Answer")
Member = bytes | Link | None  # None is an empty directory


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded machine: the members of its archive, and what was read and what was not."""

    members: Mapping[str, Member]
    files: tuple[str, ...]
    unreadable: Mapping[Reason, tuple[str, ...]]
    is_whole: bool
    nvml: str
    redacted: Mapping[Kind, int] | None

    def archive(self) -> bytes:
        """Return the ``.tar.gz``; the same recording gives the same bytes, which tell nothing of who made them."""
        packed = io.BytesIO()
        with (
            gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as compressed,
            tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            for name, member in sorted(self.members.items()):
                info = tarfile.TarInfo(name)
                if isinstance(member, bytes):
                    info.size = len(member)
                    tar.addfile(info, io.BytesIO(member))
                elif member is None:
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(info)
                else:
                    info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, member.to
                    tar.addfile(info)
        return packed.getvalue()

    def write(self, out: Path) -> None:
        """Write the archive, whole or not at all, for its owner alone to read."""
        content = self.archive()
        file, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
        unfinished = Path(name)
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(content)
                stream.flush()
                # Some file systems notice only now that they are full.
                os.fsync(stream.fileno())
            unfinished.replace(out)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def summary(self, out: Path) -> str:
        """Say for the terminal what was written, what could not be read, and what was replaced."""
        size = out.stat().st_size
        lines = [f"{out}: {size / 1000:.0f} kB, {len(self.files)} files", *self._unread(_EXAMPLES)]
        lines += [f"NVML: {self.nvml}", self._redacted()]
        lines += ["Look through it before you post it: manifest.txt in it lists everything that is there."]
        return "\n".join(lines)

    def manifest(self) -> str:
        """List everything that was read and that was not."""
        lines = ["What this recording holds. Directories that are empty here were seen and not looked into.", ""]
        lines += [f"NVML: {self.nvml}", self._redacted(), *self._unread(None), "", f"read: {len(self.files)}"]
        return "\n".join([*lines, *(f"  {path}" for path in self.files), ""])

    def _redacted(self) -> str:
        if self.redacted is None:
            return "nothing was redacted: it holds serial numbers, MAC addresses, host names and UUIDs"
        counts = ", ".join(f"{kind.value} {count}" for kind, count in self.redacted.items() if count)
        return f"redacted: {counts or 'nothing, for nothing of the kind was found'}"

    def _unread(self, most: int | None) -> Iterator[str]:
        """Yield a line for each reason, and up to so many paths that it befell."""
        if not self.is_whole:
            yield "it ends early: there were more files, or slower ones, than a recording takes"
        yield f"not readable: {sum(map(len, self.unreadable.values()))}"
        for reason, paths in self.unreadable.items():
            if most is None:
                yield f"  {reason.value}: {len(paths)}"
                yield from (f"    {path}" for path in paths)
            else:
                yield f"  {reason.value}: {len(paths)}: {', '.join(paths[:most])}{', …' if len(paths) > most else ''}"


def record(host: Host, *, private: bool = False, file_deadline: float = FILE_DEADLINE) -> Recording:
    """Look at a machine once, and return all that was asked and answered; ``private`` keeps what is redacted else."""
    tree, nvml = RecordingTree(host.tree), RecordingNvml(host.nvml)
    udev, processes = RecordingUdev(host.udev), RecordingProcesses(host.processes)
    sweep = Sweep(tree)
    watched = replace(host, tree=tree, nvml=nvml, udev=udev, processes=processes, stuck=Stuck(), memory=Memory())
    look(watched, {**discover(), "sweep": sweep}, file_deadline)

    asked, calls, devices, identity = tree.asked.copy(), nvml.content(), udev.content(), _identity(watched)
    # A name that does not print is no kernel's, and is refused when a machine is opened.
    nodes = {path: node for path, node in sorted((processes.nodes() | tree.nodes()).items()) if path.isprintable()}
    redaction = None if private else Redaction()
    if redaction:
        redaction.learn({asked.get(path, path): node for path, node in nodes.items()}, calls, devices)
        nodes = {redaction.text(path): redaction.node(asked.get(path, path), node) for path, node in nodes.items()}
        asked = {redaction.text(here): redaction.text(path) for here, path in asked.items()}
        calls, devices, identity = (redaction.value(value) for value in (calls, devices, identity))
    faults = {path: node for path, node in nodes.items() if isinstance(node, Fault)}
    members: dict[str, Member] = {f"root{path}": node for path, node in nodes.items() if not isinstance(node, Fault)}
    members["machine.json"] = _json(identity | {"redacted": not private})
    members["errors.json"] = _json({path[1:]: fault.name for path, fault in faults.items()})
    members["udev.json"] = _json(devices)
    if calls is not None:
        members["nvml.json"] = _json(calls)
    unreadable: dict[Reason, list[str]] = {}
    for path, fault in faults.items():
        unreadable.setdefault(_reason(fault), []).append(asked.get(path, path))
    found = Recording(
        members,
        files=tuple(asked.get(path, path) for path, node in nodes.items() if isinstance(node, bytes)),
        unreadable={reason: tuple(paths) for reason, paths in sorted(unreadable.items())},
        is_whole=sweep.is_whole,
        nvml=nvml.summary(),
        redacted=redaction.counts() if redaction else None,
    )
    return replace(found, members=members | {"manifest.txt": found.manifest().encode(errors="replace")})


def _identity(host: Host) -> dict[str, Any]:
    """Return what machine.json says; of a replayed machine, what it said there."""
    name, origin = host.name, host.origin
    if origin is Origin.LIVE:
        product = ""
        with suppress(OSError, Unavailable):
            product = " ".join(host.text("/sys/class/dmi/id/product_name").split())
        name, origin = f"recorded {product if product.isprintable() and product else 'machine'}", Origin.RECORDED
    return {
        "format": FORMAT,
        "name": name,
        "origin": origin.value,
        "note": host.note,
        "recorded_at": datetime.fromtimestamp(host.now(), UTC).isoformat(timespec="seconds"),
        "agent": __version__,
    }


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode(errors="replace") + b"\n"


def _reason(fault: Fault) -> Reason:
    return Reason.TIMEOUT if fault.name == "HANG" else reason_of(OSError(getattr(errno, fault.name), ""))


class RecordingTree:
    """A tree that notes what was asked of another one, by real paths, and the links that lead there.

    Of two answers to one question the first counts: it is what the collectors saw.
    """

    def __init__(self, tree: Tree) -> None:
        """Note nothing yet."""
        self.asked: dict[str, str] = {}
        self._tree = tree
        self._answers: dict[str, bytes | Fault] = {}
        self._present: set[str] = set()
        self._links: dict[str, str | None] = {}
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether there is as much as a recording should hold."""
        return self._bytes > _MOST_BYTES or len(self._answers) + len(self._present) > _MOST_FILES

    def knows(self, path: str) -> bool:
        """Whether a file was asked for before."""
        return self._real(path) in self._answers

    def read(self, path: str) -> bytes:
        """Return the whole content of one file."""
        return self._ask(self._tree.read, path)

    def list(self, path: str) -> list[str]:
        """Return the names in one directory; each is there on replay, also where nobody looks what it is."""
        names = self._ask(self._tree.list, path)
        here = self._real(path).rstrip("/")
        for name in names:
            if self._link(f"{here}/{name}") is None:
                self._present.add(f"{here}/{name}")
        self._present.add(here or "/")
        return names

    def link(self, path: str) -> str:
        """Return the text of one symbolic link."""
        try:
            text = self._tree.link(path)
        except OSError as error:
            self._note_no_link(path, error)
            raise
        self._real(path)
        return text

    def real(self, path: str) -> str:
        """Return the path with every link in it followed."""
        try:
            real = self._tree.real(path)
        except OSError as error:
            self._note_no_link(path, error)
            raise
        self._present.add(self._real(path))
        return real

    def exists(self, path: str) -> bool:
        """Whether the path leads to something."""
        found = self._tree.exists(path)
        if found:
            self._present.add(self._real(path))
        return found

    def nodes(self) -> dict[str, Node]:
        """Return every file, fault, link and empty directory."""
        nodes: dict[str, Node] = dict.fromkeys(self._present.copy())
        nodes |= {path: Link(to) for path, to in self._links.copy().items() if to is not None}
        nodes |= self._answers.copy()
        above = {parent for path in nodes for parent in _parents(path)}
        # Nothing can be below a file, and what is below a fault cannot be reached.
        leaves = {path for path, node in nodes.items() if node is not None}
        return {
            path: node
            for path, node in nodes.items()
            if path != "/" and (node is not None or path not in above) and not leaves.intersection(_parents(path))
        }

    def _ask(self, question: Callable[[str], Answer], path: str) -> Answer:
        here = self._real(path)
        if here in self._answers:
            return question(path)
        self.asked[here] = path
        # What stays like this never answered.
        self._answers[here] = Fault("HANG")
        noted: bytes | Fault | None = None
        try:
            answer = question(path)
            if isinstance(answer, bytes):
                self._bytes += len(answer)
                noted = answer if len(answer) <= _MOST_OF_A_FILE else Fault("EFBIG")
            return answer
        except OSError as error:
            noted = self._fault(path, here, error)
            raise
        finally:
            if noted is None:
                del self._answers[here]
            else:
                self._answers[here] = noted

    def _note_no_link(self, path: str, error: OSError) -> None:
        here = self._real(path)
        if self._tree.exists(path):
            self._present.add(here)
        elif fault := self._fault(path, here, error):
            self._answers.setdefault(here, fault)

    def _fault(self, path: str, here: str, error: OSError) -> Fault | None:
        """Return what a file answers with; nothing where there is none, it is a directory, or one above is at fault."""
        # Drivers leak numbers of the kernel's own, such as 524, which have no name out here.
        fault = Fault(errno.errorcode.get(error.errno or 0, "EIO"))
        if self._tree.exists(path):
            if not isinstance(error, IsADirectoryError | NotADirectoryError):
                return fault
            self._present.add(here)
            return None
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        closed = next((above for above in _parents(here) if self._tree.exists(above)), "")
        if closed and self._refuses(closed, error):
            self._answers.setdefault(closed, fault)
            return None
        return fault

    def _refuses(self, directory: str, why: OSError) -> bool:
        try:
            self._tree.list(directory)
        except OSError as error:
            return error.errno == why.errno
        return False

    def _real(self, path: str) -> str:
        """Return the path with every link in it followed, so far as there are any, and note those."""
        todo = path.split("/")[::-1]
        real = ""
        links = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                real = posixpath.dirname(real).rstrip("/")
                continue
            to = self._link(f"{real}/{part}")
            if to is None or links >= _MOST_LINKS:
                real = f"{real}/{part}"
            else:
                links += 1
                todo += to.split("/")[::-1]
        return real or "/"

    def _link(self, here: str) -> str | None:
        """Return where a link leads from its directory, itself a real path; nothing where it is none."""
        if here not in self._links:
            try:
                self._links[here] = _inside(here, self._tree.link(here))
            except OSError:
                self._links[here] = None
            if self._links[here] is not None and self._tree.exists(here):
                self._present.add(self._real(here))
        return self._links[here]


def _parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, without the root."""
    while (path := posixpath.dirname(path)) not in ("/", ""):
        yield path


def _inside(here: str, to: str) -> str:
    """Return a link's text so that it leads to the same place, by the same name, wherever the root is."""
    above = posixpath.dirname(here)
    if not to.startswith("/"):
        if posixpath.normpath(f"root{above}/{to}").split("/")[0] == "root":
            return to
        to = posixpath.normpath(f"{above}/{to}")
    return "../" * (here.count("/") - 1) + to.lstrip("/")


class RecordingNvml(Nvml):
    """A funnel that notes what was asked of another one."""

    def __init__(self, nvml: Nvml) -> None:
        """Note nothing yet."""
        self._nvml = nvml
        self._init: Any = None
        self._calls: dict[int | None, dict[str, Any]] = {}
        self._outcomes: dict[tuple[object, ...], str] = {}

    @property
    def session(self) -> int:
        """The number of the other one's session."""
        return self._nvml.session

    def call(self, function: str, device: int | None = None, *arguments: str) -> Any:
        """Call one NVML function and return what it says, or raise `NvmlError`."""
        try:
            answer = self._nvml.call(function, device, *arguments)
        except NvmlError as error:
            failed = {"hang": True} if error.code == "TIMEOUT" else {"error": error.code}
            at_fault = error.function.partition(":")[0]
            if at_fault == "nvmlInit":
                self._init = self._init or failed.get("error", failed)
            elif at_fault == function:
                self._note(function, device, arguments, failed, error.code)
            # Else it was not called: another call has lost the driver, and will lose it again on replay.
            raise
        self._note(function, device, arguments, answer)
        return answer

    def ask(self, device: int, *_questions: tuple[str, *tuple[str, ...]]) -> Ask:
        """Return what calls functions of one device, each when it is asked for."""
        return partial(self._ask, device)

    def _ask(self, device: int, function: str, *arguments: str) -> Any:
        return self.call(function, device, *arguments)

    def _note(
        self, function: str, device: int | None, arguments: tuple[str, ...], answer: Any, failure: str = ""
    ) -> None:
        """Keep an answer in the shape of nvml.json, unless there is an earlier one."""
        self._init = self._init or "SUCCESS"
        self._outcomes.setdefault((function, device, *arguments), failure)
        calls = self._calls.setdefault(device, {})
        if function == "nvmlDeviceGetFieldValues":
            calls["fields"] = {name: _finite(value) for name, value in answer.items()} | calls.get("fields", {})
        elif arguments:
            calls.setdefault(function, {}).setdefault(arguments[0], _finite(answer))
        else:
            calls.setdefault(function, _finite(answer))

    def content(self) -> dict[str, Any] | None:
        """Return what nvml.json says; nothing where there is no library."""
        if self._init in (None, "LIBRARY_NOT_FOUND"):
            return None
        asked = max((device + 1 for device in self._calls if device is not None), default=0)
        devices = [self._calls.get(device, {}) for device in range(asked)]
        return {"init": self._init, "system": self._calls.get(None, {}), "devices": devices}

    def summary(self) -> str:
        """Say in one line how NVML fared."""
        content = self.content()
        if content is None:
            return "no library (libnvidia-ml.so.1)"
        if content["init"] != "SUCCESS":
            return f"does not start: {'TIMEOUT' if isinstance(content['init'], dict) else content['init']}"
        failures = Counter(filter(None, self._outcomes.values()))
        said = [f"devices {len(content['devices'])}", f"answers {len(self._outcomes) - failures.total()}"]
        return ", ".join(said + [f"{code} {count}" for code, count in sorted(failures.items())])


def _finite(answer: Any) -> Any:
    """Return an answer of NVML's as JSON can hold it."""
    try:
        json.dumps(answer, allow_nan=False)
    except (TypeError, ValueError):
        return {"error": "GARBAGE"}
    return answer


class RecordingUdev:
    """A device database that notes what was asked of another one."""

    def __init__(self, udev: Udev) -> None:
        """Note nothing yet."""
        self._udev = udev
        self._found: dict[str, Mapping[str, str]] = {}

    def properties(self, sys_path: str) -> Mapping[str, str]:
        """Return what udev knows of a device."""
        found = self._udev.properties(sys_path)
        if found:
            self._found.setdefault(sys_path, found)
        return found

    def content(self) -> list[dict[str, Any]]:
        """Return what udev.json says."""
        return [
            {"subsystem": found.get("SUBSYSTEM", ""), "sys_path": path, "properties": dict(sorted(found.items()))}
            for path, found in sorted(self._found.copy().items())
        ]


class RecordingProcesses:
    """Processes that note whose name was asked."""

    def __init__(self, processes: Processes) -> None:
        """Note nothing yet."""
        self._processes = processes
        self._names: dict[int, str] = {}

    def name(self, pid: int) -> str:
        """Return the command name of one process, or raise `Unavailable`."""
        name = self._processes.name(pid)
        self._names.setdefault(pid, name)
        return name

    def nodes(self) -> dict[str, Node]:
        """Return the file that replaying asks for each name."""
        return {
            f"/proc/{pid}/comm": f"{name}\n".encode(errors="surrogateescape")
            for pid, name in self._names.copy().items()
        }


class Sweep:
    """A collector that yields nothing, and reads what is of use beyond what the others ask."""

    def __init__(self, tree: RecordingTree) -> None:
        """Read nothing yet."""
        self._tree = tree
        self._until: float | None = None
        self.is_whole = False

    def __call__(self, host: Host) -> Iterable[Item]:
        """Read what the sweep names. A look that finds a file hanging calls again, and this reads the rest."""
        self._until = self._until or time.monotonic() + _SWEEP_DEADLINE
        for path in swept(host):
            if self._tree.is_full or time.monotonic() > self._until:
                return ()
            if not self._tree.knows(path):
                with suppress(OSError, Unavailable):
                    _take(host, path)
        self.is_whole = True
        return ()


def _take(host: Host, path: str) -> None:
    if host.exists(path):
        try:
            host.link(path)
        except OSError:
            host.content(path)
