"""The agent as a process, with NVIDIA's own binding, says of a GPU what the replay of the same ``nvml.json`` says."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from imagine import build, write_folder
from nvml.build import Driver

from spark_agent.agent.machine import demos

GPU_ONLY = ("--only", "gpu,power", "--output", "json")


def _snapshot(environment: Mapping[str, str], *before: str) -> dict[str, Any]:
    """Return the document of one run; anything on stderr is a failure."""
    command = (sys.executable, "-m", "spark_agent.agent", *before, "snapshot", *GPU_ONLY)
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    assert "" == done.stderr
    return dict(json.loads(done.stdout))


def _about_the_gpu(document: dict[str, Any]) -> dict[str, Any]:
    """Return what comes from NVML alone, without ages: the rest of the two machines is not the same."""
    power = document["power"]
    said = {
        "gpu": document["gpu"],
        "nvml": power["scopes"]["gpu_nvml"],
        "windows": power["gpu_nvml_windows"],
        "registers": [register for register in power["registers"] if register.get("scope") == "gpu_nvml"],
        "driver": document["platform"]["driver"],
        "collector": [(one["status"], one["reason"]) for one in document["collectors"] if one["name"] == "gpu"],
    }
    for quantity in (said["nvml"], *said["windows"], *said["registers"]):
        quantity.pop("age_seconds", None)
    return said


def _here(nvml: dict[str, Any]) -> dict[str, Any]:
    """Give the processes of a machine the number of one that runs here, so that both ways find its name."""
    for device in nvml.get("devices", []):
        for function in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            if isinstance(processes := device.get(function), list):
                device[function] = [process | {"pid": os.getpid()} for process in processes[:1]]
    return nvml


@pytest.mark.parametrize("demo", demos())
def test_the_real_binding_says_the_same(demo: str, nvml_library: Driver, tmp_path: Path) -> None:
    """Every demo's NVML, asked through libnvidia-ml.so.1 and replayed."""
    write_folder(build(demo), tmp_path / "demo")
    nvml = _here(json.loads((tmp_path / "demo/nvml.json").read_text()))
    environment = nvml_library.environment(nvml)
    replay = tmp_path / "replay"
    comm = replay / f"root/proc/{os.getpid()}/comm"
    comm.parent.mkdir(parents=True)
    comm.write_text(psutil.Process().name())
    (replay / "machine.json").write_text('{"format": 1, "name": "same", "origin": "synthetic"}')
    (replay / "nvml.json").write_text(json.dumps(nvml))

    live, replayed = _snapshot(environment), _snapshot(environment, "--machine", str(replay))

    assert "live" == live["machine"]["origin"]
    assert _about_the_gpu(replayed) == _about_the_gpu(live)
    assert live["power"]["scopes"]["gpu_nvml"]["value"]


def test_without_a_library(nvml_library: Driver, tmp_path: Path) -> None:
    """A machine without a driver is no error: the GPU is absent, and the reason is told."""
    environment = nvml_library.environment({}) | {"LD_LIBRARY_PATH": str(tmp_path)}

    document = _snapshot(environment)

    assert [] == document["gpu"]
    assert "no_library" == document["power"]["scopes"]["gpu_nvml"]["reason"]
