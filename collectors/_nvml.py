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


#: Calls one function of one device by its name, with its arguments; as `Nvml.call` does.
Ask = Callable[..., Any]
_Question = tuple[str, int | None, *tuple[str, ...]]


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
        [answer] = self._answers((function, device, *arguments))
        if isinstance(answer, NvmlError):
            raise answer
        return answer

    def ask(self, device: int, *questions: tuple[str, *tuple[str, ...]]) -> Ask:
        """Call functions of one device, and return what tells their answers, as `call` does and as often as wanted.

        To hand calls over to another thread costs more than most of them; these go all at once. What is not among
        them is called when it is asked for.
        """
        keys: list[_Question] = [(question[0], device, *question[1:]) for question in questions]
        answers = dict(zip(keys, self._answers(*keys), strict=True))

        def ask(function: str, *arguments: str) -> Any:
            key = (function, device, *arguments)
            if key not in answers:
                return self.call(function, device, *arguments)
            answer = answers[key]
            if isinstance(answer, NvmlError):
                raise answer
            return answer

        return ask

    def _answers(self, *questions: _Question) -> list[Any]:
        """Return what each call says, or its `NvmlError`; after one that lost the driver, none is made."""
        with self._lock:
            try:
                self._initialise()
            except NvmlError as error:
                return [error] * len(questions)
            refused = {key: NvmlError(code, key[0]) for key in questions if (code := self._refused.get(key))}
            todo = [key for key in questions if key not in refused]
            made = dict(zip(todo, self._run(self._call_deadline, *todo), strict=False))
            lost: NvmlError | None = None
            for key, answer in made.items():
                if isinstance(answer, NvmlError) and answer.code in _REMEMBERED:
                    self._refused[key] = answer.code
                if isinstance(answer, NvmlError) and answer.code in LOST:
                    lost = answer
            if lost:
                self._lose(lost)
                made |= {key: NvmlError(lost.code, lost.function) for key in todo if key not in made}
            return [refused[key] if key in refused else made[key] for key in questions]

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
            self._do(self._init_deadline, "nvmlInit")
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
                self._do(self._call_deadline, "nvmlShutdown")

    def _do(self, deadline: float, function: str) -> None:
        [answer] = self._run(deadline, (function, None))
        if isinstance(answer, NvmlError):
            raise answer

    def _run(self, deadline: float, *questions: _Question) -> list[Any]:
        if self._worker is None:
            self._worker = _Worker(self._library)
        return self._worker.run(deadline, questions)


class _Batch:
    """Calls, with a place of their own for the answers: one that comes too late must not answer another call."""

    def __init__(self, questions: Sequence[_Question]) -> None:
        self.questions = questions
        self.answers: list[Any] = []
        self.began = time.monotonic()
        self.over: queue.SimpleQueue[None] = queue.SimpleQueue()


class _Worker:
    """A thread that makes calls one by one; while one hangs, every other call is refused at once."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._batches: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
        self._left_behind: tuple[_Batch, str] | None = None
        threading.Thread(target=self._serve, name="nvml", daemon=True).start()

    def run(self, deadline: float, questions: Sequence[_Question]) -> list[Any]:
        """Return the answers, errors too, in order: all of them, or those up to the first that ends the session.

        Each call has the deadline for itself.
        """
        if self._left_behind and self._left_behind[0].over.empty():
            return [NvmlError("TIMEOUT", self._left_behind[1])]
        if not questions:
            return []
        batch = _Batch(questions)
        self._batches.put(batch)
        while (left := batch.began + deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                batch.over.get(timeout=left)
                return batch.answers
        answers = batch.answers.copy()
        function = questions[len(answers)][0] if len(answers) < len(questions) else questions[-1][0]
        self._left_behind = batch, function
        return [*answers[: len(questions) - 1], NvmlError("TIMEOUT", function)]

    def _serve(self) -> None:
        while True:
            batch = self._batches.get()
            for function, device, *arguments in batch.questions:
                batch.began = time.monotonic()
                answer = self._made(function, device, *arguments)
                batch.answers.append(answer)
                if isinstance(answer, NvmlError) and answer.code in LOST:
                    break
            batch.over.put(None)

    def _made(self, function: str, device: int | None, *arguments: str) -> Any:
        try:
            return self._library.call(function, device, *arguments)
        except NvmlError as error:
            return error
        except Exception as error:  # noqa: BLE001  (handed over to the caller, who raises it)
            return NvmlError("GARBAGE", f"{function}: {error}")
