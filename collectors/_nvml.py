"""The one funnel through which every NVML call goes.

A `Library` answers single calls; there is the real one (`PynvmlLibrary`) and a recorded one. The funnel in front
initialises it late, knows which errors mean that the driver went away, remembers what is not supported, and gives
each call a deadline, because a call into a wedged driver may never return.

https://docs.nvidia.com/deploy/nvml-api/
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from spark_agent.collectors._reading import Reason, Unavailable

# Seconds. Loading the driver's state without persistence mode takes a second or two on a large GPU.
INIT_DEADLINE: Final = 10.0
CALL_DEADLINE: Final = 3.0
_MOST_DEVICES: Final = 1024
_SHORTEST_BACK_OFF: Final = 1.0
_LONGEST_BACK_OFF: Final = 16.0

# After one of these no handle is good any more, and only a new nvmlInit helps.
LOST: Final = frozenset(
    {
        "UNINITIALIZED",
        "DRIVER_NOT_LOADED",
        "GPU_IS_LOST",
        "RESET_REQUIRED",
        "LIB_RM_VERSION_MISMATCH",
        "LIBRARY_NOT_FOUND",
        "GPU_NOT_FOUND",
        "TIMEOUT",
    }
)

_REMEMBERED: Final = frozenset({"NOT_SUPPORTED", "FUNCTION_NOT_FOUND", "ARGUMENT_VERSION_MISMATCH", "DEPRECATED"})

_REASONS: Final = {
    "NOT_SUPPORTED": Reason.NOT_SUPPORTED,
    "FUNCTION_NOT_FOUND": Reason.NOT_SUPPORTED,
    "ARGUMENT_VERSION_MISMATCH": Reason.NOT_SUPPORTED,
    "DEPRECATED": Reason.NOT_SUPPORTED,
    "NO_PERMISSION": Reason.PERMISSION_DENIED,
    "NOT_FOUND": Reason.NO_DEVICE,
    "GPU_NOT_FOUND": Reason.NO_DEVICE,
    "LIBRARY_NOT_FOUND": Reason.NO_LIBRARY,
    "DRIVER_NOT_LOADED": Reason.DRIVER_NOT_LOADED,
    "LIB_RM_VERSION_MISMATCH": Reason.VERSION_MISMATCH,
    "GPU_IS_LOST": Reason.DEVICE_LOST,
    "RESET_REQUIRED": Reason.DEVICE_LOST,
    "UNINITIALIZED": Reason.DEVICE_LOST,
    "TIMEOUT": Reason.TIMEOUT,
    "NO_DATA": Reason.NO_DATA,
    "NOT_READY": Reason.NO_DATA,
    "GARBAGE": Reason.GARBAGE,
}

# What an owner should read where a whole GPU is not there.
_PLAIN: Final = {
    "LIBRARY_NOT_FOUND": "there is no NVIDIA driver library, libnvidia-ml.so.1",
    "DRIVER_NOT_LOADED": "the NVIDIA kernel driver is not loaded",
    "LIB_RM_VERSION_MISMATCH": "driver and library are of different versions; reboot after an update",
    "GPU_IS_LOST": "the GPU has fallen off the bus",
    "RESET_REQUIRED": "the GPU needs a reset; on a GB10 that is a clean boot",
    "TIMEOUT": "the NVIDIA driver does not answer",
}


class NvmlError(Unavailable):
    """A call failed; ``code`` is NVML's own name of the error, without ``NVML_ERROR_``."""

    def __init__(self, code: str, function: str = "") -> None:
        said = f"{function}: {code}" if function else code
        plain = _PLAIN.get(code)
        super().__init__(_REASONS.get(code, Reason.ERROR), f"{plain} ({said})" if plain else said)
        self.code = code
        self.function = function


class Library(Protocol):
    """NVML by its functions' names, values in NVML's own units, structs as dicts.

    ``device`` is an index. Enumerations are given by the end of their names (``"SM"``). Raises `NvmlError`.
    """

    def call(self, function: str, device: int | None, *arguments: Any) -> Any:
        """Call one function."""


class NoLibrary:
    """A machine without ``libnvidia-ml.so.1``."""

    def call(self, function: str, device: int | None, *arguments: Any) -> Any:  # noqa: ARG002
        """Say that there is no library."""
        raise NvmlError("LIBRARY_NOT_FOUND", function)


class Nvml:
    """The funnel. One thread of its own makes the calls, so that a hanging one can be left behind.

    Any number of threads may call: a look that was given up may still be asking while the next one begins.
    """

    def __init__(
        self,
        library: Library,
        clock: Callable[[], float] = time.monotonic,
        init_deadline: float = INIT_DEADLINE,
        call_deadline: float = CALL_DEADLINE,
    ) -> None:
        """Remember the library; touch nothing yet."""
        self._library = library
        self._clock = clock
        self._init_deadline = init_deadline
        self._call_deadline = call_deadline
        self._lock = threading.Lock()
        self._session = 0
        self._ready = False
        self._ready_since = 0.0
        self._refused: dict[tuple[object, ...], str] = {}
        self._down: tuple[str, str] | None = None
        self._retry_at = 0.0
        self._back_off = _SHORTEST_BACK_OFF
        self._worker: _Worker | None = None

    @property
    def session(self) -> int:
        """The number of this session with the driver; what was learnt in one may not hold in the next."""
        return self._session

    def call(self, function: str, device: int | None = None, *arguments: str) -> Any:
        """Call one NVML function and return what it says, or raise `NvmlError`."""
        with self._lock:
            self._initialise()
            key = (function, device, *arguments)
            if code := self._refused.get(key):
                raise NvmlError(code, function)
            try:
                return self._run(self._call_deadline, function, device, *arguments)
            except NvmlError as error:
                if error.code in _REMEMBERED:
                    self._refused[key] = error.code
                if error.code in LOST:
                    self._lose(error)
                raise

    def fields(self, device: int, ids: Sequence[int]) -> dict[int, Any]:
        """Return field values by id; one that the driver does not offer is left out."""
        values = self.call("nvmlDeviceGetFieldValues", device, *[str(id_) for id_ in ids])
        return {int(id_): value for id_, value in values.items()}

    def count(self) -> int:
        """Return the number of devices."""
        count = self.call("nvmlDeviceGetCount")
        # A loop goes by it, so it must be one that ends.
        if not isinstance(count, int) or count > _MOST_DEVICES:
            raise NvmlError("GARBAGE", "nvmlDeviceGetCount")
        return count

    def _initialise(self) -> None:
        if self._ready:
            return
        if self._down and self._clock() < self._retry_at:
            # A new error each time: one that is raised again and again keeps every frame that it went through.
            raise NvmlError(*self._down)
        try:
            self._run(self._init_deadline, "nvmlInit", None)
        except NvmlError as error:
            self._lose(error)
            raise
        self._ready, self._ready_since = True, self._clock()
        self._session += 1
        # A driver that came back may be another version, which supports other calls.
        self._refused.clear()

    def _lose(self, error: NvmlError) -> None:
        """Forget the session; the next call after the back-off starts a new one."""
        was_ready, self._ready = self._ready, False
        now = self._clock()
        # Only a session that outlived the back-off was a recovery: nvmlInit may well succeed on a GPU that is lost.
        if was_ready and now - self._ready_since > self._back_off:
            self._back_off = _SHORTEST_BACK_OFF
        self._down, self._retry_at = (error.code, error.function), now + self._back_off
        self._back_off = min(self._back_off * 2, _LONGEST_BACK_OFF)
        if was_ready:
            with contextlib.suppress(NvmlError):
                self._run(self._call_deadline, "nvmlShutdown", None)

    def _run(self, deadline: float, function: str, device: int | None, *arguments: str) -> Any:
        if self._worker is None:
            self._worker = _Worker(self._library)
        return self._worker.run(deadline, function, device, *arguments)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call, with a place of its own for the answer: one that comes too late must not answer another call."""

    function: str
    device: int | None
    arguments: tuple[str, ...]
    answer: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)


class _Worker:
    """A thread that makes calls one by one; while one hangs, every other call is refused at once."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._left_behind: _Call | None = None
        threading.Thread(target=self._serve, name="nvml", daemon=True).start()

    def run(self, deadline: float, function: str, device: int | None, *arguments: str) -> Any:
        if self._left_behind and self._left_behind.answer.empty():
            raise NvmlError("TIMEOUT", self._left_behind.function)
        call = _Call(function, device, arguments)
        self._calls.put(call)
        try:
            answer = call.answer.get(timeout=deadline)
        except queue.Empty:
            self._left_behind = call
            raise NvmlError("TIMEOUT", function) from None
        if isinstance(answer, NvmlError):
            raise answer
        if isinstance(answer, Exception):
            raise NvmlError("GARBAGE", f"{function}: {answer}") from answer
        return answer

    def _serve(self) -> None:
        while True:
            call = self._calls.get()
            try:
                answer = self._library.call(call.function, call.device, *call.arguments)
            except Exception as error:  # noqa: BLE001  (handed over to the caller, who raises it)
                answer = error
            call.answer.put(answer)
