"""The doors of the machine that this process runs on: pynvml, pyudev, psutil.

Each library is imported when it is first needed: none is on the way to ``--help``.
"""

import select
import socket
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from spark_agent.collectors._host import Host, Memory, Origin
from spark_agent.collectors._nvml import LOST, Nvml, NvmlError
from spark_agent.collectors._reading import Reason, Unavailable
from spark_agent.collectors._tree import WatchedTree


def live_host() -> Host:
    """Return the machine that this process runs on. Nothing is read or loaded yet."""
    memory = Memory()
    tree = WatchedTree(gone=memory.forget)
    return Host(tree, Nvml(PynvmlLibrary()), PyudevUdev(), PsutilProcesses(), origin=Origin.LIVE, memory=memory)


class PynvmlLibrary:
    """The real NVML, through NVIDIA's own binding (``nvidia-ml-py``)."""

    def __init__(self) -> None:
        """Load nothing yet."""
        self._handles: dict[int, Any] = {}

    def call(self, function: str, device: int | None, *arguments: Any) -> Any:
        """Call one function and return plain values, structs as dicts."""
        import pynvml

        try:
            if function == "nvmlInit":
                return self._initialise(pynvml)
            if function == "nvmlShutdown":
                return self._shut_down(pynvml)
            handle = () if device is None else (self._handle(pynvml, device),)
            if special := _SPECIAL.get(function):
                return special(pynvml, *handle, *arguments)
            return _plain(getattr(pynvml, function)(*handle, *arguments))
        except pynvml.NVMLError as error:
            raise NvmlError(_code_name(pynvml, error.value), function) from error
        except AttributeError as error:
            raise NvmlError("FUNCTION_NOT_FOUND", function) from error

    def _initialise(self, pynvml: Any) -> None:
        self._handles.clear()
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            _unload(pynvml)
            raise

    def _shut_down(self, pynvml: Any) -> None:
        self._handles.clear()
        try:
            pynvml.nvmlShutdown()
        finally:
            _unload(pynvml)

    def _handle(self, pynvml: Any, device: int) -> Any:
        if device not in self._handles:
            self._handles[device] = pynvml.nvmlDeviceGetHandleByIndex(device)
        return self._handles[device]


def _unload(pynvml: Any) -> None:
    # The binding keeps the library for ever, and with it the version that no longer fits after an upgrade under
    # our feet (LIB_RM_VERSION_MISMATCH); close it, so that the next nvmlInit opens the one that is there then.
    import _ctypes

    library, pynvml.nvmlLib = pynvml.nvmlLib, None
    pynvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001  (it holds functions of the closed library)
    if library is not None:
        _ctypes.dlclose(library._handle)  # noqa: SLF001  (ctypes has no public way)


@cache
def _code_name(pynvml: Any, value: int) -> str:
    for name in dir(pynvml):
        if name.startswith("NVML_ERROR_") and getattr(pynvml, name) == value:
            return name.removeprefix("NVML_ERROR_")
    return f"UNKNOWN_{value}"


def _plain(value: Any) -> Any:
    """Turn what the binding returns into what JSON has."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if fields := getattr(value, "_fields_", None):
        return {name: _plain(getattr(value, name)) for name, *_ in fields}
    if value is None or isinstance(value, int | float | str):
        return value
    return {name: _plain(one) for name, one in vars(value).items()}


def _by_name(function: str, prefix: str) -> Callable[..., Any]:
    """Wrap a function whose argument is an enumeration, to take the end of its name."""

    def call(pynvml: Any, handle: object, name: str) -> Any:
        return getattr(pynvml, function)(handle, getattr(pynvml, prefix + name))

    return call


def _field_values(pynvml: Any, handle: object, *ids: str) -> dict[str, int | float]:
    """Return the fields that the driver offers."""
    # The union member to read, by nvmlValueType_t.
    members: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
    values: dict[str, int | float] = {}
    for field in pynvml.nvmlDeviceGetFieldValues(handle, [int(id_) for id_ in ids]):
        # The call as a whole succeeds even where each field says that the GPU is gone.
        if field.nvmlReturn != pynvml.NVML_SUCCESS:
            if (code := _code_name(pynvml, field.nvmlReturn)) in LOST:
                raise NvmlError(code, "nvmlDeviceGetFieldValues")
        elif field.valueType < len(members):
            values[str(field.fieldId)] = getattr(field.value, members[field.valueType])
    return values


def _compute_capability(pynvml: Any, handle: object) -> list[int]:
    return list(pynvml.nvmlDeviceGetCudaComputeCapability(handle))


_SPECIAL: Final[Mapping[str, Callable[..., Any]]] = {
    "nvmlDeviceGetFieldValues": _field_values,
    "nvmlDeviceGetCudaComputeCapability": _compute_capability,
    "nvmlDeviceGetClockInfo": _by_name("nvmlDeviceGetClockInfo", "NVML_CLOCK_"),
    "nvmlDeviceGetMaxClockInfo": _by_name("nvmlDeviceGetMaxClockInfo", "NVML_CLOCK_"),
    "nvmlDeviceGetDefaultApplicationsClock": _by_name("nvmlDeviceGetDefaultApplicationsClock", "NVML_CLOCK_"),
    "nvmlDeviceGetTemperature": _by_name("nvmlDeviceGetTemperature", "NVML_TEMPERATURE_"),
    "nvmlDeviceGetTemperatureThreshold": _by_name("nvmlDeviceGetTemperatureThreshold", "NVML_TEMPERATURE_THRESHOLD_"),
    # The unversioned wrappers raise a class of their own where the library lacks the newest version.
    "nvmlDeviceGetComputeRunningProcesses": lambda pynvml, handle: _plain(
        pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)
    ),
    "nvmlDeviceGetGraphicsRunningProcesses": lambda pynvml, handle: _plain(
        pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3(handle)
    ),
}


class PyudevUdev:
    """The device database of the running system."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._context: Any = None

    def properties(self, sys_path: str) -> Mapping[str, str]:
        """Return what udev knows of the device at one path of ``/sys``."""
        import pyudev

        try:
            if self._context is None:
                self._context = _udev_context()
            return dict(pyudev.Devices.from_sys_path(self._context, sys_path).properties)
        except (ImportError, OSError, pyudev.DeviceNotFoundError):
            return {}


def _udev_context() -> Any:
    import pyudev
    from pyudev._ctypeslib import utils

    # pyudev finds libudev through ctypes.util.find_library, which forks ldconfig or even a compiler. The agent
    # forks nothing, and the library's name has been this since systemd 183.
    original, utils.find_library = utils.find_library, lambda name: f"lib{name}.so.1"
    try:
        return pyudev.Context()
    finally:
        utils.find_library = original


# What a machine consists of, so far as a collector tells it. A disk says nothing that its controller does not.
_HOTPLUG: Final = ("cpu", "drm", "hwmon", "infiniband", "module", "net", "nvme", "pci", "platform", "thermal", "usb")
_COMES_OR_GOES: Final = frozenset({"add", "remove", "bind", "unbind", "move", "online", "offline"})

# linux/rtnetlink.h
_NETLINK_ROUTE: Final = 0
_RTMGRP_LINK: Final = 1
_LONGEST_MESSAGE: Final = 65536


class Hotplug:
    """What udev and the network report: devices that come and go, links that go up and down."""

    def __init__(self) -> None:
        """Listen; raises `OSError` or `ImportError` where nobody reports anything."""
        import pyudev

        self._monitor = pyudev.Monitor.from_netlink(_udev_context())
        for subsystem in _HOTPLUG:
            self._monitor.filter_by(subsystem)
        self._monitor.start()
        # A carrier that comes or goes is no uevent.
        self._links = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
        self._links.setblocking(False)
        self._links.bind((0, _RTMGRP_LINK))

    def wait(self, seconds: float) -> tuple[bool, bool]:
        """Wait for something to happen, and say whether devices came or went, and whether links may have changed."""
        ready, _, _ = select.select([self._monitor, self._links], [], [], seconds)
        devices = False
        try:
            while self._monitor in ready and (device := self._monitor.poll(timeout=0)):
                devices |= device.action in _COMES_OR_GOES
        except OSError:  # more was sent than fitted, and what was lost nobody knows
            devices = True
        links = self._links in ready
        try:
            while links and self._links.recv(_LONGEST_MESSAGE):
                pass
        except OSError:  # all is read, or more was sent than fitted
            pass
        return devices, links

    def close(self) -> None:
        """Listen no more."""
        self._links.close()


class PsutilProcesses:
    """The processes of the running system."""

    def name(self, pid: int) -> str:
        """Return the command name of one process; psutil mends the kernel's cut at 15 characters."""
        import psutil

        try:
            return psutil.Process(pid).name()
        except psutil.NoSuchProcess as error:
            raise Unavailable(Reason.NOT_FOUND, f"process {pid} is gone") from error
        except psutil.AccessDenied as error:
            raise Unavailable(Reason.PERMISSION_DENIED, f"process {pid}") from error
