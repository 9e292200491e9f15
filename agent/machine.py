"""Machines as folders: replayed, imagined, and played along a timeline.

A machine folder, or its ``.tar.gz``, holds ``machine.json``, ``root/``, ``errors.json``, ``nvml.json``,
``udev.json`` and ``timeline.jsonl``; all but the first may be missing. ``docs/machines.md`` is its format. All of
it is read into memory when it is opened, so nothing outside the folder can be reached through it.
"""

import re
import threading
from collections.abc import Mapping
from typing import Any, Final

from spark_agent.collectors import NvmlError, Reason, Unavailable
from spark_agent.collectors._tree import MemoryTree

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
        if function == "nvmlInit":
            if (status := _answer(self.content.get("init", "SUCCESS"), function)) != "SUCCESS":
                raise NvmlError(str(status), function)
            return None
        if function == "nvmlShutdown":
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
