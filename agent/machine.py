"""Machines as folders: replayed, imagined, and played along a timeline.

A machine folder, or its ``.tar.gz``, holds ``machine.json``, ``root/``, ``errors.json``, ``nvml.json``,
``udev.json`` and ``timeline.jsonl``; all but the first may be missing. ``docs/machines.md`` is its format. All of
it is read into memory when it is opened, so nothing outside the folder can be reached through it.
"""

import errno
import gzip
import io
import json
import math
import posixpath
import re
import stat
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final

from spark_agent.collectors import Host, Nvml, NvmlError, Origin, Reason, Unavailable
from spark_agent.collectors._nvml import Library, NoLibrary
from spark_agent.collectors._tree import Fault, Link, MemoryTree, Node

FORMAT: Final = 1

# Far above any recorded machine (about 1 MiB), far below what would hurt: an archive may be hostile.
_MOST_FILES: Final = 50_000
_MOST_BYTES: Final = 256 * 1024 * 1024
_LONGEST_PATH: Final = 4096  # PATH_MAX
_LAST_SECOND: Final = 1e11  # in the year 5138
_GZIP: Final = b"\x1f\x8b"
# What gzip and tarfile raise, by their documentation and, for headers that nobody wrote, beyond.
_DAMAGE: Final = (
    tarfile.TarError,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    RecursionError,
)

# What a timeline replaces in nvml.json; anything else that it names is a call of the first device.
_WHOLE: Final = ("init", "system", "devices")

_VERSION_SUFFIX = re.compile(r"_v\d+$")
_NVML_ERROR = re.compile(r"[A-Z][A-Z0-9_]{0,60}")
_ERRNO_NAME = re.compile(r"E[A-Z0-9]+|HANG")
# Numbers in JSON, and NaN, which is none; in a string both are only text.
_STRING_OR_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|(-?(?:NaN|Infinity|[0-9][0-9.eE+-]*))')


class MachineError(Exception):
    """A machine cannot be opened: what, where, and what to do."""

    def __init__(self, message: str) -> None:
        # It quotes files that may be hostile, and goes to a terminal.
        super().__init__("".join(letter if letter.isprintable() else "?" for letter in message[:1000]))


class RecordedNvml:
    """NVML as ``nvml.json`` has it; what is not listed answers NOT_SUPPORTED."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        """Keep the content, which a timeline may change."""
        self.content: dict[str, Any] = dict(content)
        self._moved_on = threading.Event()

    def call(self, function: str, device: int | None, *arguments: str) -> Any:
        """Answer one call."""
        if function == "nvmlShutdown":
            return None
        # A driver that goes away while in use fails each call, not only the next nvmlInit.
        if (status := self._answer(self.content.get("init", "SUCCESS"), function)) != "SUCCESS":
            raise NvmlError(str(status), function)
        if function == "nvmlInit":
            return None
        devices = self.content.get("devices", [])
        if function == "nvmlDeviceGetCount" and "nvmlDeviceGetCount" not in self.content.get("system", {}):
            return len(devices)
        if device is None:
            calls = self.content.get("system", {})
        elif device < len(devices):
            calls = devices[device]
        else:
            raise NvmlError("INVALID_ARGUMENT", function)
        if function == "nvmlDeviceGetFieldValues":
            return self._fields(calls.get("fields", {}), arguments)
        value = self._answer(_listed(calls, function), function)
        if arguments and isinstance(value, dict):
            return self._answer(value.get(arguments[0]), function)
        return value

    def merge(self, change: Mapping[str, Any]) -> None:
        """Apply one step of a timeline: into the first device, or in place of ``init``, ``system``, ``devices``."""
        content = self.content | {key: change[key] for key in _WHOLE if key in change}
        if calls := {key: value for key, value in change.items() if key not in _WHOLE}:
            first, *others = content.get("devices") or [{}]
            before, now = first.get("fields", {}), calls.get("fields", {})
            if not any(word in fields for fields in (before, now) for word in ("error", "hang")):
                calls["fields"] = before | now
            content["devices"] = [first | calls, *others]
        # At once, and nothing changed in place: a call may be reading it.
        self.content = content
        moved_on, self._moved_on = self._moved_on, threading.Event()
        moved_on.set()

    def _answer(self, value: Any, function: str) -> Any:
        """Return a recorded value, or fail or hang as it says; what hangs fails when the timeline moves on."""
        if value is None:
            raise NvmlError("NOT_SUPPORTED", function)
        if isinstance(value, dict):
            if value.get("hang"):
                self._moved_on.wait()
                raise NvmlError("UNKNOWN", function)
            if error := value.get("error"):
                known = isinstance(error, str) and _NVML_ERROR.fullmatch(error)
                raise NvmlError(error if known else "UNKNOWN", function)
        return value

    def _fields(self, fields: Any, ids: tuple[str, ...]) -> dict[str, Any]:
        function = "nvmlDeviceGetFieldValues"
        found: dict[str, Any] = {}
        for id_ in ids:
            try:
                found[id_] = self._answer(self._answer(fields, function).get(id_), function)
            except NvmlError as error:
                if error.code not in ("NOT_SUPPORTED", "NO_DATA", "NO_PERMISSION", "UNKNOWN"):
                    raise
        return found


def _listed(calls: Mapping[str, Any], function: str) -> Any:
    """Return what is listed for a function; ``_v2`` and the like are the same call to a reader."""
    if function in calls:
        return calls[function]
    plain = _VERSION_SUFFIX.sub("", function)
    return next((value for name, value in calls.items() if _VERSION_SUFFIX.sub("", name) == plain), None)


class RecordedUdev:
    """The device database as ``udev.json`` has it."""

    def __init__(self, devices: list[Mapping[str, Any]]) -> None:
        """Index the devices by their path."""
        self._devices: dict[str, Mapping[str, str]] = {
            device["sys_path"]: device.get("properties", {}) for device in devices
        }

    def properties(self, sys_path: str) -> Mapping[str, str]:
        """Return what udev knew of the device."""
        return self._devices.get(sys_path, {})


class RecordedProcesses:
    """Processes as the recorded ``/proc/PID/comm`` names them."""

    def __init__(self, tree: MemoryTree) -> None:
        """Keep the tree."""
        self._tree = tree

    def name(self, pid: int) -> str:
        """Return the command name of one process."""
        try:
            return self._tree.read(f"/proc/{pid}/comm").decode(errors="replace").strip()
        except OSError as error:
            raise Unavailable(Reason.NOT_FOUND, f"process {pid} is gone") from error


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a timeline, and where it stands."""

    where: str
    t: float
    root: Mapping[str, str | None]
    errors: Mapping[str, str | None]
    nvml: Mapping[str, Any]


class Machine:
    """An opened machine: a host, and a timeline that moves it when it is played."""

    def __init__(
        self,
        identity: "Identity",
        tree: MemoryTree,
        nvml: Mapping[str, Any] | None,
        udev: list[Mapping[str, Any]],
        steps: tuple[Step, ...],
    ) -> None:
        """Put the parts together; the machine stands at the timeline's beginning."""
        self._tree = tree
        self._library: Library = RecordedNvml(nvml) if nvml is not None else NoLibrary()
        self._steps = steps
        self._done = 0
        self.t = 0.0
        started = identity.recorded_at if identity.recorded_at is not None else time.time()
        self.host = Host(
            tree,
            Nvml(self._library, lambda: self.t),
            RecordedUdev(udev),
            RecordedProcesses(tree),
            name=identity.name,
            origin=identity.origin,
            clock=lambda: self.t,
            now=lambda: started + self.t,
            note=identity.note,
        )
        self.play(0.0)

    @property
    def ends_at(self) -> float:
        """The second of its last step; after that the machine stands still."""
        return self._steps[-1].t if self._steps else 0.0

    def play(self, t: float) -> bool:
        """Move the machine's clock, and apply every step of the timeline up to it.

        Says whether something came or went on the way, which a live machine's udev would have reported.
        """
        self.t = t
        is_disturbed = False
        while self._done < len(self._steps) and self._steps[self._done].t <= t:
            step = self._steps[self._done]
            self._done += 1
            for path, text in step.root.items():
                is_disturbed |= _put(self._tree, path, None if text is None else text.encode(), step.where)
            for path, name in step.errors.items():
                if name is None:
                    self._tree.heal(f"/{path}")
                else:
                    _put(self._tree, path, Fault(name), step.where)
            if step.nvml and isinstance(self._library, RecordedNvml):
                self._library.merge(step.nvml)
        return is_disturbed


@dataclass(frozen=True, slots=True)
class Identity:
    """What ``machine.json`` says."""

    name: str
    origin: Origin
    note: str
    recorded_at: float | None


def demos() -> tuple[str, ...]:
    """Return the names of the built-in machines, in order."""
    folder = resources.files("spark_agent.agent") / "demos"
    return tuple(
        sorted(file.name.removesuffix(".tar.gz") for file in folder.iterdir() if file.name.endswith(".tar.gz"))
    )


def open_demo(name: str) -> Machine:
    """Open a built-in machine."""
    file = resources.files("spark_agent.agent") / "demos" / f"{name}.tar.gz"
    return _assemble(_from_archive(file.read_bytes(), f"{name}.tar.gz"), f"demo {name}")


def open_machine(path: Path) -> Machine:
    """Open a machine folder or its ``.tar.gz``, or raise `MachineError`."""
    try:
        parts = _from_folder(path) if path.is_dir() else _from_archive(_content(path), str(path))
    except OSError as error:
        raise MachineError(f"{error.filename or path}: {error.strerror}") from error
    return _assemble(parts, str(path))


Part = bytes | Link | None  # None is a directory


def _from_folder(folder: Path) -> dict[str, Part]:
    """Return every file, link and empty directory of a folder by its relative path."""
    if not (folder / "machine.json").is_file():
        # Before anything else is read: it may be any folder.
        raise MachineError(f"{folder}: no machine.json in it, so it is no machine")
    parts: dict[str, Part] = {}
    size = 0
    todo = [folder]
    while todo:
        above = todo.pop()
        entries = sorted(above.iterdir())
        if not entries:
            parts[above.relative_to(folder).as_posix()] = None
        for entry in entries:
            name = entry.relative_to(folder).as_posix()
            status = entry.lstat()
            if stat.S_ISLNK(status.st_mode):
                parts[name] = Link(str(entry.readlink()))
            elif stat.S_ISDIR(status.st_mode):
                todo.append(entry)
            elif stat.S_ISREG(status.st_mode):
                size += status.st_size
                _check_size(len(parts), size, str(folder))
                parts[name] = entry.read_bytes()
            else:
                raise MachineError(f"{entry}: neither file, folder nor link; say HANG or an errno in errors.json")
    return parts


def _content(path: Path) -> bytes:
    # Never more than can be a machine: it may be a device, which has no end.
    with path.open("rb") as file:
        return file.read(_MOST_BYTES + 1)


def _check_size(files: int, size: int, where: str) -> None:
    if files > _MOST_FILES or size > _MOST_BYTES:
        raise MachineError(f"{where}: more than {_MOST_FILES} files or {_MOST_BYTES >> 20} MiB; this is no machine")


def _from_archive(content: bytes, where: str) -> dict[str, Part]:
    """Return every file, link and directory of an archive by its path below the folder that holds machine.json."""
    parts: dict[str, Part] = {}
    try:
        if content.startswith(_GZIP):
            # Whole, and no further than it may go: what the headers inside say of their sizes is not to be believed.
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(_MOST_BYTES + 1)
        _check_size(0, len(content), where)
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for number, member in enumerate(archive):
                _check_size(number, 0, where)
                name = posixpath.normpath(member.name)
                if name.startswith("/") or name.split("/")[0] == "..":
                    raise MachineError(f"{where}: {member.name}: leads out of the archive; refused")
                parts[name] = _part(archive, member, where)
    except _DAMAGE as error:
        raise MachineError(f"{where}: not a readable .tar.gz: {error}") from error
    tops = [name for name in parts if posixpath.basename(name) == "machine.json" and name.count("/") < 2]
    if not tops:
        raise MachineError(f"{where}: no machine.json in it; is it an archive of `spark-agent record`?")
    folder = min(tops, key=len).removesuffix("machine.json")
    return {name.removeprefix(folder): part for name, part in parts.items() if name.startswith(folder)}


def _part(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> Part:
    if member.isdir():
        return None
    if member.issym():
        return Link(member.linkname)
    # A size below zero leads tarfile back to where it was, and a sparse file may claim any size.
    if member.isreg() and member.size >= 0 and not member.issparse():
        file = archive.extractfile(member)
        assert file is not None  # noqa: S101  (a regular member has content)
        return file.read()
    raise MachineError(f"{where}: {member.name}: neither a file, a folder nor a symbolic link; refused")


def _assemble(parts: Mapping[str, Part], where: str) -> Machine:
    """Build the machine that the files describe."""
    identity = _identity(_json(parts, "machine.json", where), f"{where}: machine.json")
    tree = MemoryTree()
    for name, part in parts.items():
        if len(name) > _LONGEST_PATH or not name.isprintable():
            raise MachineError(f"{where}: {name[:60]!r}: no name of a file that a kernel shows; refused")
        if name.startswith("root/"):
            _put(tree, name.removeprefix("root"), {} if part is None else part, where)
    for name, part in parts.items():
        if isinstance(part, Link) and _leads_out(name, part.to, tree):
            raise MachineError(f"{where}: {name}: a link out of the machine, to {part.to}; refused")
    for path, name in _object(_json(parts, "errors.json", where, {}), f"{where}: errors.json").items():
        _put(tree, path, _fault(path, name, f"{where}: errors.json"), f"{where}: errors.json")
    nvml = _json(parts, "nvml.json", where)
    if nvml is not None:
        _check_nvml(_object(nvml, f"{where}: nvml.json"), f"{where}: nvml.json")
    udev = _json(parts, "udev.json", where, [])
    _check_udev(udev, f"{where}: udev.json")
    return Machine(identity, tree, nvml, udev, tuple(_timeline(parts, where)))


def _leads_out(name: str, to: str, tree: MemoryTree) -> bool:
    """Whether a link leads out of ``root/``; nothing could be reached by it, but it has no honest use."""
    if not name.startswith("root/"):
        return True
    if to.startswith("/"):
        # The machine's own, if it leads to what the machine has; and else to a file of whoever unpacks it.
        return not tree.exists(to)
    return posixpath.normpath(f"{posixpath.dirname(name)}/{to}").split("/")[0] != "root"


def _put(tree: MemoryTree, path: str, node: Node | None, where: str) -> bool:
    try:
        return tree.put(path, node)
    except ValueError as error:
        raise MachineError(f"{where}: {error}") from error


def _fault(path: str, name: Any, where: str) -> Fault:
    if not isinstance(name, str) or not _ERRNO_NAME.fullmatch(name) or not (name == "HANG" or hasattr(errno, name)):
        raise MachineError(f"{where}: {path}: {name!r} is neither an errno name, such as ENODATA, nor HANG")
    return Fault(name)


def _json(parts: Mapping[str, Part], name: str, where: str, default: Any = None) -> Any:
    content = _file(parts, name, where)
    return default if content is None else _parse_json(content, f"{where}: {name}")


def _file(parts: Mapping[str, Part], name: str, where: str) -> bytes | None:
    """Return one of the machine's own files; nothing where there is none."""
    if name not in parts:
        return None
    content = parts[name]
    if not isinstance(content, bytes):
        raise MachineError(f"{where}: {name}: expected a file")
    return content


def _parse_json(content: bytes, where: str, line: int = 1) -> Any:
    """Parse JSON, or say where it is none; ``line`` is the number of its first line."""
    try:
        return json.loads(content.decode(), parse_constant=_finite, parse_float=_finite)
    except json.JSONDecodeError as error:
        before, why = error.doc[: error.pos], error.msg
    except UnicodeDecodeError as error:
        before, why = content[: error.start].decode(), "not UTF-8"
    except _NotFiniteError as error:
        text = content.decode()
        before = text[: next(found.start() for found in _STRING_OR_NUMBER.finditer(text) if found[1] == str(error))]
        why = f"{error} is no number that JSON has"
    except (ValueError, RecursionError) as error:
        raise MachineError(f"{where}: {error}") from error
    lines = before.split("\n")
    raise MachineError(f"{where}: line {line + len(lines) - 1}, column {len(lines[-1]) + 1}: {why}")


class _NotFiniteError(ValueError):
    """NaN, an infinity, or a number beyond what a float holds."""


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise _NotFiniteError(number)
    return value


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise MachineError(f"{where}: expected an object")
    return value


def _identity(content: Any, where: str) -> Identity:
    machine = _object(content, where)
    found = machine.get("format")
    if isinstance(found, bool) or found != FORMAT:
        raise MachineError(f"{where}: format {found!r}, this agent reads {FORMAT}; is the agent too old?")
    origin = machine.get("origin")
    if origin not in (Origin.RECORDED, Origin.SYNTHETIC):
        raise MachineError(f'{where}: origin {origin!r}; expected "recorded" or "synthetic"')
    name, note = machine.get("name"), machine.get("note") or ""
    if not name or not all(isinstance(text, str) and text.isprintable() for text in (name, note)):
        raise MachineError(f"{where}: name {name!r}, note {note!r}; expected texts of one line, the name not empty")
    return Identity(name, Origin(origin), note, _seconds(machine.get("recorded_at"), where))


def _seconds(recorded_at: Any, where: str) -> float | None:
    """Turn ``recorded_at``, ISO 8601 or seconds since 1970, into seconds."""
    if recorded_at is None:
        return None
    try:
        if isinstance(recorded_at, str):
            moment = datetime.fromisoformat(recorded_at)
            # Without a zone it is UTC, so that it is the same instant wherever it is replayed.
            seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
        else:
            seconds = float(recorded_at)
    except (TypeError, ValueError, OverflowError) as error:
        raise MachineError(f"{where}: recorded_at {recorded_at!r}: {error}") from error
    if not 0 <= seconds < _LAST_SECOND:
        raise MachineError(f"{where}: recorded_at {recorded_at!r}; expected ISO 8601, or seconds since 1970")
    return seconds


def _check_nvml(content: Mapping[str, Any], where: str) -> None:
    """Raise where nvml.json, or a change to it, has not the shape that its calls are looked up in."""
    devices = content.get("devices", [])
    if not isinstance(devices, list):
        raise MachineError(f"{where}: devices: expected a list of objects")
    _object(content.get("system", {}), f"{where}: system")
    for device in (content, *devices):
        _object(_object(device, f"{where}: devices").get("fields", {}), f"{where}: fields")


def _check_udev(devices: Any, where: str) -> None:
    if not isinstance(devices, list):
        raise MachineError(f"{where}: expected a list")
    for device in devices:
        properties = _object(_object(device, where).get("properties", {}), f"{where}: properties")
        if not all(isinstance(text, str) for text in (device.get("sys_path"), *properties.values())):
            raise MachineError(f"{where}: expected a sys_path and properties that are texts")


def _timeline(parts: Mapping[str, Part], where: str) -> Iterator[Step]:
    where = f"{where}: timeline.jsonl"
    last = -math.inf
    for number, line in enumerate((_file(parts, "timeline.jsonl", where) or b"").splitlines(), 1):
        if not line.strip():
            continue
        here = f"{where}: line {number}"
        step = _object(_parse_json(line, where, number), here)
        t = step.get("t")
        if isinstance(t, bool) or not isinstance(t, int | float) or t < last:
            raise MachineError(f"{here}: t {t!r}; expected seconds, not before the line above")
        last = t
        root, errors, nvml = (_object(step.get(key, {}), f"{here}: {key}") for key in ("root", "errors", "nvml"))
        if not all(text is None or (isinstance(text, str) and _is_unicode(text)) for text in root.values()):
            raise MachineError(f"{here}: root: expected texts or null")
        for path, name in errors.items():
            if name is not None:
                _fault(path, name, here)
        _check_nvml(nvml, f"{here}: nvml")
        if nvml and "nvml.json" not in parts:
            raise MachineError(f"{here}: nvml: there is no nvml.json, so the machine has no NVML")
        yield Step(here, float(t), root, errors, nvml)


def _is_unicode(text: str) -> bool:
    # JSON may spell half a character, "\\ud800", which no file can hold.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
