"""The way through NVIDIA's binding and a real shared library says what the replay says, and outlives what fails."""

import ctypes
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pynvml
import pytest
from hosts import host
from nvml.build import LIBRARY, Driver, build
from nvml.session import Session

from spark_agent.agent.machine import RecordedNvml
from spark_agent.collectors import Nvml, NvmlError, Reason, gpu
from spark_agent.collectors._nvml import Library

Ask = tuple[str, int | None, tuple[str, ...]]


# Asked before any test has loaded a library of that name.
def _is_installed() -> bool:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


_INSTALLED: Final = _is_installed()

# Seconds; far more than any call takes. Only a test of hanging waits for a deadline, and sets its own.
_PATIENCE: Final = 30.0

# A GB10 as owners report it: idle, but for the list of processes and for the event counters of a machine at work.
_GB10: Final[Mapping[str, Any]] = {
    "nvmlDeviceGetName": "NVIDIA GB10",
    "nvmlDeviceGetUUID": "GPU-00000000-1111-2222-3333-444444444444",
    "nvmlDeviceGetArchitecture": 10,
    "nvmlDeviceGetCudaComputeCapability": [12, 1],
    "nvmlDeviceGetPciInfo_v3": {
        "busIdLegacy": "000F:01:00.0",
        "domain": 15,
        "bus": 1,
        "device": 0,
        "pciDeviceId": 0x2E1210DE,
        "pciSubSystemId": 0,
        "busId": "0000000F:01:00.0",
    },
    "nvmlDeviceGetVbiosVersion": "9A.0B.0F.00.1D",
    "nvmlDeviceGetGspFirmwareVersion": "580.178.04",
    "nvmlDeviceGetAddressingMode": 2,
    "nvmlDeviceGetC2cModeInfoV": {"isC2cEnabled": 1},
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetDisplayActive": 0,
    "nvmlDeviceGetNumGpuCores": 6144,
    "nvmlDeviceGetPowerUsage": 4100,
    "nvmlDeviceGetTotalEnergyConsumption": 91_234_567,
    "nvmlDeviceGetPowerManagementLimit": {"error": "NOT_SUPPORTED"},
    "nvmlDeviceGetMemoryInfo": {"error": "NOT_SUPPORTED"},
    "nvmlDeviceGetUtilizationRates": {"gpu": 0, "memory": 0},
    "nvmlDeviceGetClockInfo": {"GRAPHICS": 208, "SM": 208, "MEM": {"error": "NOT_SUPPORTED"}},
    "nvmlDeviceGetMaxClockInfo": {"GRAPHICS": 3003, "SM": 3003},
    "nvmlDeviceGetDefaultApplicationsClock": {"GRAPHICS": 2418},
    "nvmlDeviceGetPerformanceState": 8,
    "nvmlDeviceGetTemperature": 36,
    "nvmlDeviceGetTemperatureThreshold": {"GPU_MAX": 0},
    "nvmlDeviceGetCurrentClocksEventReasons": 1,
    "nvmlDeviceGetSupportedClocksEventReasons": 0x1FF,
    "nvmlDeviceGetComputeRunningProcesses": [
        {
            "pid": 4242,
            "usedGpuMemory": 46141 * 2**20,
            "gpuInstanceId": 2**32 - 1,
            "computeInstanceId": 2**32 - 1,
        },
        {"pid": 4343, "usedGpuMemory": None, "gpuInstanceId": 2**32 - 1, "computeInstanceId": 2**32 - 1},
    ],
    "nvmlDeviceGetGraphicsRunningProcesses": [],
    "fields": {
        "83": 91_234_567,
        "185": 4100,
        "186": 4080,
        "74": 165_687_000,
        "76": 0,
        "269": 903_158_000,
        "270": {"error": "NO_DATA"},
    },
}

# What a GB10 does not have, the widest values, and errors that are about one call.
_DISCRETE: Final[Mapping[str, Any]] = {
    "nvmlDeviceGetName": "NVIDIA H200",
    "nvmlDeviceGetUUID": {"error": "NO_PERMISSION"},
    "nvmlDeviceGetMemoryInfo": {"total": 2**64 - 1, "free": 1, "used": 2**63},
    "nvmlDeviceGetPowerManagementLimit": 700_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetPowerUsage": 2**32 - 1,
    "nvmlDeviceGetTotalEnergyConsumption": 2**64 - 1,
    "nvmlDeviceGetPerformanceState": {"error": "UNKNOWN"},
    "nvmlDeviceGetCurrentClocksThrottleReasons": 2**63,
    "nvmlDeviceGetClockInfo": {"GRAPHICS": 345, "SM": 345, "MEM": 3201, "VIDEO": 765},
    "nvmlDeviceGetTemperatureThreshold": {"SHUTDOWN": 92, "SLOWDOWN": 89, "MEM_MAX": 95, "GPU_MAX": 87},
    "nvmlDeviceGetGraphicsRunningProcesses": {"error": "NO_PERMISSION"},
    "fields": {"83": 2**64 - 1, "186": 2**32 - 1, "150": -40, "151": 0.5},
}

_SYSTEM: Final[Mapping[str, Any]] = {
    "nvmlSystemGetDriverVersion": "580.178.04",
    "nvmlSystemGetNVMLVersion": "13.580.178.04",
    "nvmlSystemGetCudaDriverVersion_v2": 13000,
}

_MACHINE: Final[Mapping[str, Any]] = {"init": "SUCCESS", "system": _SYSTEM, "devices": [_GB10, _DISCRETE]}

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "nvmlDeviceGetClockInfo": ("GRAPHICS", "SM", "MEM", "VIDEO"),
    "nvmlDeviceGetMaxClockInfo": ("GRAPHICS", "SM", "MEM", "VIDEO"),
    "nvmlDeviceGetDefaultApplicationsClock": ("GRAPHICS", "SM", "MEM", "VIDEO"),
    "nvmlDeviceGetTemperature": ("GPU",),
    "nvmlDeviceGetTemperatureThreshold": ("SHUTDOWN", "SLOWDOWN", "MEM_MAX", "GPU_MAX"),
}


def _with(**calls: Any) -> dict[str, Any]:
    """Return the machine with a few calls of its GB10 answering something else."""
    return {**_MACHINE, "devices": [{**_GB10, **calls}]}


class _Noting:
    """A library that remembers what it was asked."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.asks: dict[Ask, None] = {}

    def call(self, function: str, device: int | None, *arguments: str) -> Any:
        if function != "nvmlInit":
            self.asks[function, device, arguments] = None
        return self._library.call(function, device, *arguments)


def _asks(nvml: Mapping[str, Any]) -> list[Ask]:
    """Return every call that the collector makes, and all others that the library answers."""
    noting = _Noting(RecordedNvml(nvml))
    list(gpu.read(replace(host(), nvml=Nvml(noting))))
    asks = noting.asks
    for function in nvml["system"]:
        asks[function, None, ()] = None
    # One device more than there are.
    for device in range(len(nvml["devices"]) + 1):
        for function in {**_GB10, **_DISCRETE}:
            if function == "fields":
                asks["nvmlDeviceGetFieldValues", device, ("83", "186", "150", "151", "270", "99")] = None
            else:
                for choice in _CHOICES.get(function, ()):
                    asks[function, device, (choice,)] = None
                if function not in _CHOICES:
                    asks[function, device, ()] = None
    return list(asks)


def _outcome(call: Callable[..., Any], ask: Ask) -> Any:
    """Return what one call gives: a value, or the name of an error."""
    function, device, arguments = ask
    try:
        return call(function, device, *arguments)
    except NvmlError as error:
        return f"error {error.code}"


def test_the_library_says_what_the_replay_says(nvml_library: Driver) -> None:
    """Value for value and error for error, for every call that the agent makes and every function of the library."""
    asks = _asks(_MACHINE)
    recorded = RecordedNvml(_MACHINE)
    with Session(nvml_library.environment(_MACHINE)) as session:
        session.call("nvmlInit")
        assert {ask: _outcome(recorded.call, ask) for ask in asks} == {ask: _outcome(session.call, ask) for ask in asks}
        session.call("nvmlShutdown")
        listing = subprocess.check_output(
            ["nm", "-D", "--defined-only", "-P", nvml_library.folder / LIBRARY], text=True
        )
        functions = {line.split()[0] for line in listing.splitlines()}
        # NVIDIA's binding calls neither of the two; other clients do.
        assert {"nvmlInit_v2", "nvmlErrorString"} == functions - set(session.log)


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param({"init": "DRIVER_NOT_LOADED"}, id="no_driver"),
        pytest.param({**_MACHINE, "init": {"error": "LIB_RM_VERSION_MISMATCH"}}, id="version_mismatch"),
        pytest.param({**_MACHINE, "devices": []}, id="no_device"),
        pytest.param({**_MACHINE, "system": {"nvmlDeviceGetCount": {"error": "NO_DATA"}}}, id="no_count"),
        pytest.param(_with(fields={"error": "GPU_IS_LOST"}), id="lost"),
        pytest.param(_with(fields={"83": 1, "186": {"error": "GPU_IS_LOST"}}), id="lost_by_one_field"),
        pytest.param(_with(nvmlDeviceGetName={"error": "RESET_REQUIRED"}), id="lost_early"),
    ],
)
def test_both_fail_alike(nvml_library: Driver, machine: Mapping[str, Any]) -> None:
    """What is wrong with the machine as a whole looks the same both ways."""
    asks: list[Ask] = [
        ("nvmlDeviceGetCount", None, ()),
        ("nvmlSystemGetDriverVersion", None, ()),
        ("nvmlDeviceGetName", 0, ()),
        ("nvmlDeviceGetPowerUsage", 0, ()),
        ("nvmlDeviceGetFieldValues", 0, ("83", "186")),
        ("nvmlDeviceGetTemperature", 0, ("GPU",)),
    ]
    recorded = Nvml(RecordedNvml(machine), lambda: 0.0)
    with Session(nvml_library.environment(machine), _PATIENCE) as session:
        assert [_outcome(recorded.call, ask) for ask in asks] == [_outcome(session.call, ask) for ask in asks]


def test_every_error_keeps_its_name(nvml_library: Driver) -> None:
    """NVML's numbers come out as NVML's names, all that the binding knows."""
    names = [name.removeprefix("NVML_ERROR_") for name in dir(pynvml) if name.startswith("NVML_ERROR_")]
    with Session(nvml_library.environment(_MACHINE)) as session:
        session.call("nvmlInit")
        for name in names:
            session.change(_with(nvmlDeviceGetPowerUsage={"error": name}))
            assert f"error {name}" == _outcome(session.call, ("nvmlDeviceGetPowerUsage", 0, ()))


def test_the_library_refuses_calls_before_it_is_initialised(nvml_library: Driver) -> None:
    """As the real one does: the agent must never get away with a forgotten nvmlInit."""
    library = ctypes.CDLL(str(nvml_library.folder / LIBRARY))
    assert pynvml.NVML_ERROR_UNINITIALIZED == library.nvmlDeviceGetCount_v2(ctypes.byref(ctypes.c_uint()))
    assert pynvml.NVML_ERROR_UNINITIALIZED == library.nvmlShutdown()


def test_nothing_is_loaded_before_the_first_call(nvml_library: Driver) -> None:
    """The library costs nothing until somebody asks for a GPU."""
    with Session(nvml_library.environment(_MACHINE), _PATIENCE) as session:
        assert [] == session.log
        assert 2 == session.call("nvmlDeviceGetCount")
        assert ["load", "nvmlInitWithFlags", "nvmlDeviceGetCount_v2"] == session.log


def test_a_driver_that_comes_late_is_found(nvml_library: Driver) -> None:
    """Until then nvmlInit is tried after 1 s, 2 s, …, and every call in between costs nothing."""
    with Session(nvml_library.environment({"init": "DRIVER_NOT_LOADED"}), _PATIENCE) as session:
        tries = []
        for now in (0, 0.5, 1, 1.5, 2.9, 3, 6.9):
            session.now = now
            with pytest.raises(NvmlError) as caught:
                session.call("nvmlDeviceGetName", 0)
            assert Reason.DRIVER_NOT_LOADED is caught.value.reason
            tries.append(session.log.count("nvmlInitWithFlags"))
        assert [1, 1, 2, 2, 2, 3, 3] == tries
        session.change(_MACHINE)
        session.now = 7
        assert "NVIDIA GB10" == session.call("nvmlDeviceGetName", 0)


def test_a_gpu_that_was_lost_comes_back(nvml_library: Driver) -> None:
    """The session ends with the GPU, the library is closed, and a new one begins after the back-off."""
    with Session(nvml_library.environment(_MACHINE), _PATIENCE) as session:
        assert 4100 == session.call("nvmlDeviceGetPowerUsage", 0)
        session.change(_with(nvmlDeviceGetPowerUsage={"error": "GPU_IS_LOST"}))
        for _ in range(2):
            with pytest.raises(NvmlError) as caught:
                session.call("nvmlDeviceGetPowerUsage", 0)
            assert Reason.DEVICE_LOST is caught.value.reason
        assert ["nvmlDeviceGetPowerUsage", "nvmlShutdown", "unload"] == session.log[-3:]
        session.change(_MACHINE)
        session.now = 1
        assert 4100 == session.call("nvmlDeviceGetPowerUsage", 0)


def test_a_gpu_that_is_lost_by_its_fields_alone_is_noticed(nvml_library: Driver) -> None:
    """The driver may answer the call and say of each field in it that the GPU is lost."""
    with Session(nvml_library.environment(_with(fields={"83": {"error": "GPU_IS_LOST"}})), _PATIENCE) as session:
        with pytest.raises(NvmlError) as caught:
            session.call("nvmlDeviceGetFieldValues", 0, "83")
        assert "GPU_IS_LOST" == caught.value.code
        assert ["nvmlShutdown", "unload"] == session.log[-2:]


@pytest.mark.usefixtures("nvml_library")
def test_a_driver_upgrade_is_followed(tmp_path: Path) -> None:
    """A library that no longer fits the kernel's driver is closed, and the one that is there by then is opened."""
    build(tmp_path, without=["nvmlDeviceGetNumGpuCores"])
    with Session(Driver(tmp_path).environment(_MACHINE), _PATIENCE) as session:
        assert {"isC2cEnabled": 1} == session.call("nvmlDeviceGetC2cModeInfoV", 0)
        assert "error FUNCTION_NOT_FOUND" == _outcome(session.call, ("nvmlDeviceGetNumGpuCores", 0, ()))
        build(tmp_path, without=["nvmlDeviceGetC2cModeInfoV"])
        assert "error FUNCTION_NOT_FOUND" == _outcome(session.call, ("nvmlDeviceGetNumGpuCores", 0, ()))
        session.change({**_MACHINE, "init": "LIB_RM_VERSION_MISMATCH"})
        with pytest.raises(NvmlError) as caught:
            session.call("nvmlDeviceGetPowerUsage", 0)
        assert Reason.VERSION_MISMATCH is caught.value.reason
        session.change(_MACHINE)
        session.now = 1
        assert 6144 == session.call("nvmlDeviceGetNumGpuCores", 0)
        assert "error FUNCTION_NOT_FOUND" == _outcome(session.call, ("nvmlDeviceGetC2cModeInfoV", 0, ()))
        assert ["load", "unload", "load"] == [event for event in session.log if event.endswith("load")]


def test_what_is_not_supported_is_asked_once(nvml_library: Driver) -> None:
    """A driver that does not offer something is not asked again each second."""
    with Session(nvml_library.environment(_MACHINE), _PATIENCE) as session:
        for _ in range(3):
            for choice in ("MEM", "SM"):
                _outcome(session.call, ("nvmlDeviceGetClockInfo", 0, (choice,)))
            with pytest.raises(NvmlError) as caught:
                session.call("nvmlDeviceGetMemoryInfo", 0)
            assert Reason.NOT_SUPPORTED is caught.value.reason
        assert 1 == session.log.count("nvmlDeviceGetMemoryInfo")
        assert 1 + 3 == session.log.count("nvmlDeviceGetClockInfo")
        # It is this device's answer, not the function's.
        assert 1 == session.call("nvmlDeviceGetMemoryInfo", 1)["free"]


def test_a_call_that_hangs_is_left_behind(nvml_library: Driver) -> None:
    """It costs one deadline; until it returns no other call is made, and then the driver is used again."""
    hanging = _with(nvmlDeviceGetTotalEnergyConsumption={"hang": True})
    with Session(nvml_library.environment(hanging), call_deadline=1.0) as session:
        with pytest.raises(NvmlError) as caught:
            session.call("nvmlDeviceGetTotalEnergyConsumption", 0)
        assert Reason.TIMEOUT is caught.value.reason
        made = session.log
        assert "nvmlDeviceGetTotalEnergyConsumption" == made[-1]
        for session.now in (0, 1, 100, 200):
            with pytest.raises(NvmlError) as caught:
                session.call("nvmlDeviceGetName", 0)
            assert Reason.TIMEOUT is caught.value.reason
        session.change(_MACHINE)
        assert "NVIDIA GB10" == _eventually(session, lambda: session.call("nvmlDeviceGetName", 0))
        # None of the refused calls was kept waiting for its turn.
        assert ["nvmlInitWithFlags", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetName"] == session.log[len(made) :]


def _eventually(session: Session, call: Callable[[], Any]) -> Any:
    """Return what a call gives once it no longer fails, with the back-off over each time."""
    until = time.monotonic() + _PATIENCE
    while True:
        session.now += 100
        try:
            return call()
        except NvmlError:
            assert time.monotonic() < until
            time.sleep(0.001)


@pytest.mark.usefixtures("nvml_library")
def test_a_function_that_the_driver_lacks_is_not_supported(tmp_path: Path) -> None:
    """Drivers 580 to 610 differ in what they have; one missing symbol costs one answer."""
    build(tmp_path, without=["nvmlDeviceGetC2cModeInfoV", "nvmlDeviceGetFieldValues"])
    with Session(Driver(tmp_path).environment(_MACHINE), _PATIENCE) as session:
        for function, arguments in (("nvmlDeviceGetC2cModeInfoV", ()), ("nvmlDeviceGetFieldValues", ("83",))):
            with pytest.raises(NvmlError) as caught:
                session.call(function, 0, *arguments)
            assert Reason.NOT_SUPPORTED is caught.value.reason
        assert 4100 == session.call("nvmlDeviceGetPowerUsage", 0)


@pytest.mark.parametrize("broken", [False, True])
def test_a_machine_without_a_library_says_so(tmp_path: Path, broken: bool) -> None:
    """No libnvidia-ml.so.1, or a file of that name that is none, is an absence with its reason."""
    if broken:
        (tmp_path / LIBRARY).touch()
    elif _INSTALLED:
        pytest.skip(f"this machine has a {LIBRARY}")
    with Session(Driver(tmp_path).environment(_MACHINE), _PATIENCE) as session:
        with pytest.raises(NvmlError) as caught:
            session.call("nvmlDeviceGetCount")
        assert Reason.NO_LIBRARY is caught.value.reason
