"""NVML in a process of its own, asked through a pipe: ``LD_LIBRARY_PATH`` counts only from a process's start."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nvml.build import LOG, STATE, write_state

from spark_agent.collectors import Nvml, NvmlError
from spark_agent.collectors._live import PynvmlLibrary


class Session:
    """A `Library`, answered by the agent's own code over NVIDIA's binding.

    Through the funnel where ``call_deadline`` says how many seconds that may wait for one call; the funnel's clock is
    then ``now``.
    """

    def __init__(self, environment: Mapping[str, str], call_deadline: float | None = None) -> None:
        """Start the process, and wait until it is ready to be asked."""
        self.now = 0.0
        self._state, self._log = Path(environment[STATE]), Path(environment[LOG])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nvml.session", json.dumps(call_deadline)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert "ready" == self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the process, which its end of input does."""
        self._process.communicate(timeout=30)

    def call(self, function: str, device: int | None = None, *arguments: Any) -> Any:
        """Call one function over there, and return or raise what comes of it."""
        assert self._process.stdin
        print(json.dumps([self.now, function, device, arguments]), file=self._process.stdin, flush=True)
        answer = self._receive()
        if "error" in answer:
            raise NvmlError(answer["error"], function)
        return answer["value"]

    def change(self, nvml: Mapping[str, Any]) -> None:
        """Change the machine under the running process."""
        write_state(nvml, self._state)

    @property
    def log(self) -> list[str]:
        """What the library was asked so far, by the names of its functions."""
        return self._log.read_text().split()

    def _receive(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"the process ended: {self._process.wait()}"
        return json.loads(line)


def _serve(call_deadline: float | None) -> None:
    """Answer one question after the other, as `Session` asks them."""
    now = 0.0
    library = PynvmlLibrary()
    answers = Nvml(library, lambda: now, call_deadline=call_deadline).call if call_deadline else library.call
    _say("ready")
    for line in sys.stdin:
        now, function, device, arguments = json.loads(line)
        try:
            answer = {"value": answers(function, device, *arguments)}
        except NvmlError as error:
            answer = {"error": error.code}
        _say(answer)


def _say(answer: Any) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201  (the other end of the pipe is waiting for it)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
