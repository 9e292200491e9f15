"""Build the library that stands in for the driver's, and write down what it is to answer.

``nvml.c`` takes the driver's place at its own door: the agent runs as it is, with NVIDIA's binding, and finds this
``libnvidia-ml.so.1`` through ``LD_LIBRARY_PATH``.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LIBRARY: Final = "libnvidia-ml.so.1"
# Environment variables: the file that the library answers from, and the one that it notes each call in.
STATE: Final = "SPARK_AGENT_TEST_NVML"
LOG: Final = "SPARK_AGENT_TEST_NVML_LOG"

_SOURCE: Final = Path(__file__).with_name("nvml.c")
_VERSION_SUFFIX = re.compile(r"_v\d+$")


class CannotBuildError(Exception):
    """There is no compiler here, or not NVIDIA's header."""


@dataclass(frozen=True)
class Driver:
    """A driver, as far as the agent can tell: a folder with its library."""

    folder: Path

    def environment(self, nvml: Mapping[str, Any]) -> dict[str, str]:
        """Return the environment of a process that finds this driver, with a state and a log of its own."""
        there = Path(tempfile.mkdtemp(dir=self.folder))
        write_state(nvml, there / "state")
        (there / "log").touch()
        return os.environ | {
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(self.folder), os.environ.get("LD_LIBRARY_PATH")])),
            # The process is to find the same agent as this one, whether that is installed or not.
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            STATE: str(there / "state"),
            LOG: str(there / "log"),
        }


def build(folder: Path, without: Collection[str] = ()) -> Path:
    """Compile the library into a folder; one that is there is replaced, as a package manager would.

    ``without`` names functions to leave out: no driver has all of them.
    """
    compiler = shutil.which("gcc")
    if not compiler:
        raise CannotBuildError("no gcc")
    library, unfinished = folder / LIBRARY, folder / f"{LIBRARY}.new"
    # Under another name, a function is not there for those who look for it.
    left_out = [f"-D{name}=left_out_{name}" for name in without]
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run([compiler, *flags, *left_out, f"-I{_header().parent}", "-o", unfinished, _SOURCE], check=True)
    return unfinished.replace(library)


def _header() -> Path:
    """Return NVIDIA's own declarations, from the package that the CUDA toolkit's are in."""
    try:
        files = importlib.metadata.files("nvidia-nvml-dev") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nvml.h":
            return Path(str(file.locate()))
    raise CannotBuildError("no nvml.h: pip install nvidia-nvml-dev")


def write_state(nvml: Mapping[str, Any], path: Path) -> None:
    """Write what ``nvml.json`` says as the library reads it; never half of it, whoever is reading."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text("".join(f"{line}\n" for line in _state(nvml)))
    unfinished.replace(path)


def _state(nvml: Mapping[str, Any]) -> Iterator[str]:
    init = nvml.get("init", "SUCCESS")
    devices = nvml.get("devices", [])
    yield from _lines("init", {"error": init} if isinstance(init, str) and init != "SUCCESS" else init)
    yield f"devices={len(devices)}"
    yield from _calls("system", {"nvmlDeviceGetCount": len(devices)} | nvml.get("system", {}))
    for index, device in enumerate(devices):
        yield from _calls(str(index), device)


def _calls(owner: str, calls: Mapping[str, Any]) -> Iterator[str]:
    for function, answer in calls.items():
        yield from _lines(f"{owner}.{_VERSION_SUFFIX.sub('', function)}", answer)


def _lines(key: str, answer: Any) -> Iterator[str]:
    match answer:
        case None:
            pass
        case {"hang": True}:
            yield f"{key}!=HANG"
        case {"error": error}:
            yield f"{key}!={error}"
        case dict():
            for name, one in answer.items():
                yield from _lines(f"{key}.{name}", one)
        case list():
            yield f"{key}.length={len(answer)}"
            for index, one in enumerate(answer):
                yield from _lines(f"{key}.{index}", one)
        case bool():
            yield f"{key}={answer:d}"
        case _:
            yield f"{key}={answer}"
