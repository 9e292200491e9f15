"""Machines as folders: replayed, imagined, and played along a timeline.

A machine folder, or its ``.tar.gz``, holds ``machine.json``, ``root/``, ``errors.json``, ``nvml.json``,
``udev.json`` and ``timeline.jsonl``; all but the first may be missing. ``docs/machines.md`` is its format. All of
it is read into memory when it is opened, so nothing outside the folder can be reached through it.
"""

import errno
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
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final

from spark_agent.collectors import Host, Nvml, NvmlError, Origin, Reason, Unavailable
from spark_agent.collectors._nvml import Library, NoLibrary
from spark_agent.collectors._tree import Fault, Link, MemoryTree

FORMAT: Final = 1

# Far above any recorded machine (about 1 MiB), far below what would hurt: an archive may be hostile.
_MOST_FILES: Final = 50_000
_MOST_BYTES: Final = 256 * 1024 * 1024

_VERSION_SUFFIX = re.compile(r"_v\d+$")
_ERRNO_NAME = re.compile(r"E[A-Z0-9]+|HANG")


class MachineError(Exception):
    """A machine cannot be opened: what, where, and what to do."""


class RecordedNvml:
    """NVML as ``nvml.json`` has it; what is not listed answers NOT_SUPPORTED."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        """Keep the content, which a timeline may change."""
        self.content: dict[str, Any] = dict(content)

    def call(self, function: str, device: int | None, *arguments: str) -> Any:
        """Answer one call."""
        if function == "nvmlShutdown":
            return None
        # A driver that goes away while in use fails each call, not only the next nvmlInit.
        if (status := _answer(self.content.get("init", "SUCCESS"), function)) != "SUCCESS":
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
            return _fields(calls.get("fields", {}), arguments)
        value = _answer(_listed(calls, function), function)
        if arguments and isinstance(value, dict):
            return _answer(value.get(arguments[0]), function)
        return value

    def merge(self, change: Mapping[str, Any]) -> None:
        """Apply one step of a timeline: into the first device, or in place of ``init``, ``system``, ``devices``."""
        for key, value in change.items():
            if key in ("init", "system", "devices"):
                self.content[key] = value
                continue
            devices = self.content.setdefault("devices", [{}])
            first = devices[0]
            if key == "fields" and isinstance(first.get(key), dict) and "error" not in value:
                first[key] = first[key] | value
            else:
                first[key] = value


def _listed(calls: Mapping[str, Any], function: str) -> Any:
    """Return what is listed for a function; ``_v2`` and the like are the same call to a reader."""
    if function in calls:
        return calls[function]
    plain = _VERSION_SUFFIX.sub("", function)
    return next((value for name, value in calls.items() if _VERSION_SUFFIX.sub("", name) == plain), None)


def _answer(value: Any, function: str) -> Any:
    """Return a recorded value, or fail or hang as it says."""
    if value is None:
        raise NvmlError("NOT_SUPPORTED", function)
    if isinstance(value, dict):
        if value.get("hang"):
            threading.Event().wait()
        if error := value.get("error"):
            raise NvmlError(str(error), function)
    return value


def _fields(fields: Any, ids: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for id_ in ids:
        try:
            found[id_] = _answer(_answer(fields, "nvmlDeviceGetFieldValues").get(id_), "nvmlDeviceGetFieldValues")
        except NvmlError as error:
            if error.code not in ("NOT_SUPPORTED", "NO_DATA", "NO_PERMISSION", "UNKNOWN"):
                raise
    return found


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
    """One line of a timeline."""

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

    def play(self, t: float) -> None:
        """Move the machine's clock, and apply every step of the timeline up to it."""
        self.t = t
        while self._done < len(self._steps) and self._steps[self._done].t <= t:
            step = self._steps[self._done]
            self._done += 1
            for path, text in step.root.items():
                self._tree.put(f"/{path}", None if text is None else text.encode())
            for path, name in step.errors.items():
                if name is None:
                    self._tree.heal(f"/{path}")
                else:
                    self._tree.put(f"/{path}", Fault(name))
            if isinstance(self._library, RecordedNvml):
                self._library.merge(step.nvml)


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
        parts = _from_folder(path) if path.is_dir() else _from_archive(path.read_bytes(), str(path))
    except OSError as error:
        raise MachineError(f"{error.filename or path}: {error.strerror}") from error
    return _assemble(parts, str(path))


Part = bytes | Link


def _from_folder(folder: Path) -> dict[str, Part | None]:
    """Return every file and link of a folder by its relative path; an empty directory is ``None``."""
    parts: dict[str, Part | None] = {}
    room = _MOST_BYTES
    todo = [folder]
    while todo:
        above = todo.pop()
        entries = sorted(above.iterdir())
        if not entries:
            parts[above.relative_to(folder).as_posix()] = None
        for entry in entries:
            name = entry.relative_to(folder).as_posix()
            mode = entry.lstat().st_mode
            if stat.S_ISLNK(mode):
                parts[name] = Link(str(entry.readlink()))
            elif stat.S_ISDIR(mode):
                todo.append(entry)
            elif stat.S_ISREG(mode):
                parts[name] = content = entry.read_bytes()
                room -= len(content)
            else:
                raise MachineError(f"{entry}: neither file, folder nor link; say HANG or an errno in errors.json")
            _check_room(len(parts), room, str(folder))
    return parts


def _check_room(files: int, room: int, where: str) -> None:
    if files > _MOST_FILES or room < 0:
        raise MachineError(f"{where}: more than {_MOST_FILES} files or {_MOST_BYTES >> 20} MiB; this is no machine")


def _from_archive(content: bytes, where: str) -> dict[str, Part | None]:
    """Return every file and link of an archive by its path below the folder that holds machine.json."""
    parts: dict[str, Part | None] = {}
    room = _MOST_BYTES
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as archive:
            for member in archive:
                name = posixpath.normpath(member.name)
                if name.startswith(("/", "..")):
                    raise MachineError(f"{where}: {member.name}: leads out of the archive; refused")
                room -= member.size
                _check_room(len(parts), room, where)
                if member.isreg():
                    file = archive.extractfile(member)
                    assert file is not None  # noqa: S101  (a regular member has content)
                    parts[name] = file.read()
                elif member.issym():
                    parts[name] = Link(member.linkname)
                elif member.isdir():
                    parts[name] = None
                else:
                    raise MachineError(f"{where}: {member.name}: neither a file, a folder nor a symbolic link; refused")
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise MachineError(f"{where}: not a readable .tar.gz: {error}") from error
    top = next((name for name in parts if posixpath.basename(name) == "machine.json" and name.count("/") < 2), None)
    if top is None:
        raise MachineError(f"{where}: no machine.json in it; is it an archive of `spark-agent record`?")
    folder = posixpath.dirname(top)
    found = {posixpath.relpath(name, folder or "."): part for name, part in parts.items()}
    _refuse_links_out(found, where)
    return found


def _refuse_links_out(parts: Mapping[str, Part | None], where: str) -> None:
    """Raise for a link that leads out of ``root/``; nothing could be reached by it, but it has no honest use."""
    for name, part in parts.items():
        if not isinstance(part, Link):
            continue
        inside = name.startswith("root/")
        if part.to.startswith("/"):
            inside = inside and any(other.startswith(f"root{part.to}") for other in parts)
        else:
            inside = inside and posixpath.normpath(f"{posixpath.dirname(name)}/{part.to}").startswith("root/")
        if not inside:
            raise MachineError(f"{where}: {name}: a link out of the archive, to {part.to}; refused")


def _assemble(parts: dict[str, Part | None], where: str) -> Machine:
    """Build the machine that the files describe."""
    identity = _identity(_json(parts, "machine.json", where), where)
    tree = MemoryTree()
    for name, part in parts.items():
        if not name.startswith("root/"):
            continue
        path = name.removeprefix("root")
        try:
            if part is None:
                tree.make_directory(path)
            else:
                tree.put(path, part)
        except (ValueError, OSError) as error:
            raise MachineError(f"{where}: {name}: {error}") from error
    for path, name in _mapping(_json(parts, "errors.json", where, {}), "errors.json", where).items():
        _place_fault(tree, path, name, f"{where}: errors.json")
    nvml = _json(parts, "nvml.json", where)
    if nvml is not None:
        _check_nvml(nvml, f"{where}: nvml.json")
    udev = _json(parts, "udev.json", where, [])
    if not isinstance(udev, list) or not all(
        isinstance(device, dict) and isinstance(device.get("sys_path"), str) for device in udev
    ):
        raise MachineError(f"{where}: udev.json: expected a list of objects with a sys_path")
    return Machine(identity, tree, nvml, udev, tuple(_timeline(parts, where)))


def _place_fault(tree: MemoryTree, path: str, name: Any, where: str) -> None:
    if not isinstance(name, str) or not _ERRNO_NAME.fullmatch(name) or not (name == "HANG" or hasattr(errno, name)):
        raise MachineError(f"{where}: {path}: {name!r} is neither an errno name, such as ENODATA, nor HANG")
    try:
        tree.put(f"/{path.lstrip('/')}", Fault(name))
    except (ValueError, OSError) as error:
        raise MachineError(f"{where}: {path}: {error}") from error


def _json(parts: Mapping[str, Part | None], name: str, where: str, default: Any = None) -> Any:
    part = parts.get(name)
    if part is None:
        if name == "machine.json":
            raise MachineError(f"{where}: no machine.json in it, so it is no machine")
        return default
    if isinstance(part, Link):
        raise MachineError(f"{where}: {name}: is a link; expected a file")
    return _parse_json(part, f"{where}: {name}")


def _parse_json(content: bytes, where: str) -> Any:
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise MachineError(f"{where}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise MachineError(f"{where}: {error}") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _mapping(value: Any, name: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise MachineError(f"{where}: {name}: expected an object")
    return value


def _identity(content: Any, where: str) -> Identity:
    machine = _mapping(content, "machine.json", where)
    if machine.get("format") != FORMAT:
        raise MachineError(
            f"{where}: machine.json: format {machine.get('format')!r}, this agent reads {FORMAT}; is the agent too old?"
        )
    origin = machine.get("origin")
    if origin not in (Origin.RECORDED, Origin.SYNTHETIC):
        raise MachineError(f'{where}: machine.json: origin {origin!r}; expected "recorded" or "synthetic"')
    name = machine.get("name")
    if not isinstance(name, str) or not name:
        raise MachineError(f"{where}: machine.json: name {name!r}; expected a text")
    return Identity(name, Origin(origin), str(machine.get("note") or ""), _seconds(machine.get("recorded_at"), where))


def _seconds(recorded_at: Any, where: str) -> float | None:
    """Turn ``recorded_at``, ISO 8601 or seconds since 1970, into seconds."""
    if recorded_at is None:
        return None
    try:
        if isinstance(recorded_at, str):
            return datetime.fromisoformat(recorded_at).timestamp()
        return float(recorded_at)
    except (TypeError, ValueError) as error:
        raise MachineError(f"{where}: machine.json: recorded_at {recorded_at!r}: {error}") from error


def _check_nvml(content: Any, where: str) -> None:
    """Raise where nvml.json has not the shape that its calls are looked up in."""
    if not isinstance(content, dict):
        raise MachineError(f"{where}: expected an object")
    devices = content.get("devices", [])
    if not isinstance(devices, list) or not all(isinstance(device, dict) for device in devices):
        raise MachineError(f"{where}: devices: expected a list of objects")
    if not isinstance(content.get("system", {}), dict):
        raise MachineError(f"{where}: system: expected an object")
    for device in devices:
        if not isinstance(device.get("fields", {}), dict):
            raise MachineError(f"{where}: fields: expected an object")


def _timeline(parts: Mapping[str, Part | None], where: str) -> Iterator[Step]:
    part = parts.get("timeline.jsonl")
    if part is None:
        return
    if isinstance(part, Link):
        raise MachineError(f"{where}: timeline.jsonl: is a link; expected a file")
    last = -math.inf
    for number, line in enumerate(part.splitlines(), 1):
        here = f"{where}: timeline.jsonl: line {number}"
        if not line.strip():
            continue
        step = _mapping(_parse_json(line, here), f"line {number}", f"{where}: timeline.jsonl")
        t = step.get("t")
        if isinstance(t, bool) or not isinstance(t, int | float) or t < last:
            raise MachineError(f"{here}: t {t!r}; expected seconds, not before the line above")
        last = t
        root, errors, nvml = (_mapping(step.get(key, {}), key, here) for key in ("root", "errors", "nvml"))
        if not all(text is None or isinstance(text, str) for text in root.values()):
            raise MachineError(f"{here}: root: expected texts or null")
        for path, name in errors.items():
            if name is not None:
                _place_fault(MemoryTree(), path, name, here)
        yield Step(float(t), root, errors, nvml)
