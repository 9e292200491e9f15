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
from typing import Any, Final, Protocol

from spark_agent.collectors._reading import Reason, Unavailable

# Seconds. Loading the driver's state without persistence mode takes a second or two on a large GPU.
INIT_DEADLINE: Final = 10.0
CALL_DEADLINE: Final = 3.0
_BACK_OFF: Final = (1.0, 60.0)

# After one of these no handle is good any more, and only a new nvmlInit helps.
_LOST: Final = frozenset(
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


class NvmlError(Unavailable):
    """A call failed; ``code`` is NVML's own name of the error, without ``NVML_ERROR_``."""

    def __init__(self, code: str, function: str = "") -> None:
        super().__init__(_REASONS.get(code, Reason.ERROR), f"{function}: {code}" if function else code)
        self.code = code


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
    """The funnel. One thread of its own makes the calls, so that a hanging one can be left behind."""

    def __init__(
        self,
        library: Library,
        clock: Callable[[], float] = time.monotonic,
        init_deadline: float = INIT_DEADLINE,
        call_deadline: float = CALL_DEADLINE,
    ) -> None:
        """Remember the library; touch nothing yet."""
        self.library = library
        self._clock = clock
        self._init_deadline = init_deadline
        self._call_deadline = call_deadline
        self._ready = False
        self._refused: dict[tuple[object, ...], str] = {}
        self._retry_at = float("-inf")
        self._back_off = _BACK_OFF[0]
        self._down: NvmlError | None = None
        self._worker: _Worker | None = None

    def call(self, function: str, device: int | None = None, *arguments: str) -> Any:
        """Call one NVML function and return what it says, or raise `NvmlError`."""
        self._initialise()
        key = (function, device, *arguments)
        if code := self._refused.get(key):
            raise NvmlError(code, function)
        try:
            return self._run(self._call_deadline, function, device, *arguments)
        except NvmlError as error:
            if error.code in _REMEMBERED:
                self._refused[key] = error.code
            if error.code in _LOST:
                self._lose(error)
            raise

    def fields(self, device: int, ids: Sequence[int]) -> dict[int, Any]:
        """Return field values by id; one that the driver does not offer is left out."""
        values = self.call("nvmlDeviceGetFieldValues", device, *[str(id_) for id_ in ids])
        return {int(id_): value for id_, value in values.items()}

    def count(self) -> int:
        """Return the number of devices."""
        count = self.call("nvmlDeviceGetCount")
        if not isinstance(count, int):
            raise NvmlError("GARBAGE", "nvmlDeviceGetCount")
        return count

    def _initialise(self) -> None:
        if self._ready:
            return
        if self._down and self._clock() < self._retry_at:
            raise self._down
        try:
            self._run(self._init_deadline, "nvmlInit", None)
        except NvmlError as error:
            self._lose(error)
            raise
        self._ready = True
        self._down = None
        self._back_off = _BACK_OFF[0]
        # A driver that came back may be another version, which supports other calls.
        self._refused.clear()

    def _lose(self, error: NvmlError) -> None:
        """Forget the session; the next call after the back-off starts a new one."""
        was_ready, self._ready = self._ready, False
        self._down = NvmlError(error.code, error.detail.partition(":")[0])
        self._retry_at = self._clock() + self._back_off
        self._back_off = min(self._back_off * 2, _BACK_OFF[1])
        if was_ready and error.code != "TIMEOUT":
            with contextlib.suppress(NvmlError):
                self._run(self._call_deadline, "nvmlShutdown", None)

    def _run(self, deadline: float, function: str, device: int | None, *arguments: str) -> Any:
        if self._worker is None:
            self._worker = _Worker(self.library)
        return self._worker.run(deadline, function, device, *arguments)


class _Worker:
    """A thread that makes calls one by one; while one hangs, every other call is refused at once."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._calls: queue.SimpleQueue[tuple[object, str, int | None, tuple[str, ...]]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[object, Any]] = queue.SimpleQueue()
        self._hanging: object | None = None
        self._hangs_in = ""
        threading.Thread(target=self._serve, name="nvml", daemon=True).start()

    def run(self, deadline: float, function: str, device: int | None, *arguments: str) -> Any:
        if self._hanging:
            with contextlib.suppress(queue.Empty):
                if self._answers.get_nowait()[0] is self._hanging:
                    self._hanging = None
        if self._hanging:
            raise NvmlError("TIMEOUT", self._hangs_in)
        ticket = object()
        self._calls.put((ticket, function, device, arguments))
        try:
            _, answer = self._answers.get(timeout=deadline)
        except queue.Empty:
            self._hanging, self._hangs_in = ticket, function
            raise NvmlError("TIMEOUT", function) from None
        if isinstance(answer, NvmlError):
            raise answer
        if isinstance(answer, Exception):
            raise NvmlError("GARBAGE", f"{function}: {answer}") from answer
        return answer

    def _serve(self) -> None:
        while True:
            ticket, function, device, arguments = self._calls.get()
            try:
                answer = self._library.call(function, device, *arguments)
            except Exception as error:  # noqa: BLE001  (handed over to the caller, who raises it)
                answer = error
            self._answers.put((ticket, answer))
