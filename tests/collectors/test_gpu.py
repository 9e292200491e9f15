"""The GPU as NVML tells of it: a GB10 as its owners saw it, and everything that may go wrong on the way."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hosts import absence, host, look, value
from hypothesis import given
from hypothesis import strategies as st

from spark_agent.agent.machine import RecordedNvml
from spark_agent.collectors import (
    Absence,
    Fact,
    Host,
    Item,
    NoData,
    Nvml,
    NvmlError,
    Quality,
    Reading,
    Reason,
    Unavailable,
    gpu,
)
from spark_agent.collectors._nvml import Ask
from spark_agent.collectors.gpu import read

_GIB = 2**30
_REFUSED = {"error": "NOT_SUPPORTED"}

# Decoding with a large model, as nvidia-smi showed it on a driver 580.159.03; calls that are not listed are refused.
_SYSTEM = {
    "nvmlSystemGetDriverVersion": "580.159.03",
    "nvmlSystemGetNVMLVersion": "13.580.159.03",
    "nvmlSystemGetCudaDriverVersion_v2": 13000,
}
_GB10: Mapping[str, Any] = {
    "nvmlDeviceGetName": "NVIDIA GB10",
    "nvmlDeviceGetArchitecture": 10,
    "nvmlDeviceGetCudaComputeCapability": [12, 1],
    "nvmlDeviceGetUUID": "GPU-00000000-0000-0000-0000-000000000000",
    "nvmlDeviceGetPciInfo": {"busId": "0000000F:01:00.0"},
    "nvmlDeviceGetVbiosVersion": "9A.0B.2D.00.00",
    "nvmlDeviceGetGspFirmwareVersion": "580.159.03",
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetC2cModeInfoV": {"isC2cEnabled": 1},
    "nvmlDeviceGetAddressingMode": 2,
    "nvmlDeviceGetDisplayActive": 0,
    "nvmlDeviceGetNumGpuCores": 6144,
    "nvmlDeviceGetMemoryInfo": _REFUSED,
    "nvmlDeviceGetEnforcedPowerLimit": _REFUSED,
    "nvmlDeviceGetTemperatureThreshold": {"SHUTDOWN": 90, "SLOWDOWN": 86, "GPU_MAX": 0},
    "nvmlDeviceGetPerformanceState": 0,
    "nvmlDeviceGetUtilizationRates": {"gpu": 94, "memory": 0},
    "nvmlDeviceGetTemperature": {"GPU": 70},
    "nvmlDeviceGetClockInfo": {"GRAPHICS": 2395, "SM": 2395, "MEM": _REFUSED},
    "nvmlDeviceGetMaxClockInfo": {"GRAPHICS": 3003, "SM": 3003, "MEM": _REFUSED},
    "nvmlDeviceGetDefaultApplicationsClock": {"GRAPHICS": 2418, "MEM": _REFUSED},
    "nvmlDeviceGetCurrentClocksEventReasons": 0,
    "nvmlDeviceGetPowerUsage": 46_000,
    "nvmlDeviceGetComputeRunningProcesses": [{"pid": 48211, "usedGpuMemory": 67_012 * 2**20}],
    "nvmlDeviceGetGraphicsRunningProcesses": [],
    # POWER_AVERAGE, POWER_INSTANT in mW, energy in mJ; the event counters in ns, of which nvidia-smi makes µs.
    "fields": {
        "185": 46_000,
        "186": 47_250,
        "83": 91_234_567,
        "74": 165_687_000,
        "76": 0,
        "269": 903_158_000,
        "270": 0,
        "271": 0,
    },
}


def _gb10(changes: Mapping[str, Any] | None = None, *, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what NVML has, with some answers changed or, where ``None``, refused."""
    device = {**_GB10, **(changes or {})}
    device["fields"] = {**_GB10["fields"], **(fields or {})}
    return {"init": "SUCCESS", "system": dict(_SYSTEM), "devices": [device]}


def _spark(changes: Mapping[str, Any] | None = None, *, fields: Mapping[str, Any] | None = None) -> Host:
    return host({"/proc/48211/comm": "llama-server\n"}, nvml=_gb10(changes, fields=fields))


class _Direct(Nvml):
    """The funnel without its thread; it notes every call."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__(RecordedNvml({}))
        self.answer = answer
        self.asked: list[tuple[str, ...]] = []

    def call(self, function: str, device: int | None = None, *arguments: str) -> Any:
        """Ask at once."""
        self.asked.append((function, *arguments))
        try:
            return self.answer(function, device, *arguments)
        except (AttributeError, TypeError, ValueError) as error:
            raise NvmlError("GARBAGE", f"{function}: {error}") from error

    def ask(self, device: int, *_questions: tuple[str, *tuple[str, ...]]) -> Ask:
        """Ask each when it is wanted."""
        return lambda function, *arguments: self.call(function, device, *arguments)


def _ask(answer: Callable[..., Any]) -> tuple[list[Item], _Direct]:
    nvml = _Direct(answer)
    return look(read, replace(host(), nvml=nvml)), nvml


class TestSpark:
    """Every value of a GB10, in base units."""

    items = look(read, _spark())

    @pytest.mark.parametrize(
        ("expected", "of"),
        [
            ("NVIDIA GB10", gpu.NAME),
            ("Blackwell", gpu.ARCHITECTURE),
            ("12.1", gpu.COMPUTE_CAPABILITY),
            ("580.159.03", gpu.DRIVER),
            ("13.580.159.03", gpu.NVML_VERSION),
            ("13.0", gpu.CUDA),
            ("9A.0B.2D.00.00", gpu.VBIOS),
            ("580.159.03", gpu.GSP),
            ("000f:01:00.0", gpu.PCI),
            (True, gpu.PERSISTENCE),
            (True, gpu.C2C),
            ("ATS", gpu.ADDRESSING),
            (False, gpu.DISPLAY),
            ("P0", gpu.PSTATE),
            ((), gpu.EVENTS),
            (6144, gpu.CORES),
            (0.94, gpu.UTILIZATION),
            (70, gpu.TEMPERATURE),
            (2418e6, gpu.DEFAULT_CLOCK),
            (91_234.567, gpu.ENERGY),
            (67_012 * 2**20, gpu.PROCESS_MEMORY_SUM),
        ],
        ids=lambda one: getattr(one, "key", ""),
    )
    def test_value(self, expected: object, of: Any) -> None:
        """Each as its owners saw it."""
        assert expected == value(self.items, of, "0")

    @pytest.mark.parametrize(
        ("expected", "of", "label"),
        [
            (2395e6, gpu.CLOCK, "sm"),
            (2395e6, gpu.CLOCK, "graphics"),
            (3003e6, gpu.MAX_CLOCK, "sm"),
            (46, gpu.POWER, "average"),
            (47.25, gpu.POWER, "instant"),
            (90, gpu.THRESHOLD, "shutdown"),
            (0.165687, gpu.EVENT_SECONDS, "sw_power_cap"),
            (0.903158, gpu.EVENT_SECONDS, "sw_thermal_slowdown"),
            (0, gpu.EVENT_SECONDS, "hw_thermal_slowdown"),
        ],
    )
    def test_labelled_value(self, expected: float, of: Any, label: str) -> None:
        """Watts from milliwatts, hertz from megahertz, seconds from nanoseconds."""
        assert expected == pytest.approx(value(self.items, of, "0", label), abs=1e-12)

    def test_process(self) -> None:
        """A process has its name from the kernel, its kind, and the memory that it holds."""
        assert "llama-server" == value(self.items, gpu.PROCESS_NAME, "0/48211")
        assert "compute" == value(self.items, gpu.PROCESS_KIND, "0/48211")
        assert 67_012 * 2**20 == value(self.items, gpu.PROCESS_MEMORY, "0/48211")

    @pytest.mark.parametrize("of", [gpu.MEMORY_TOTAL, gpu.MEMORY_USED, gpu.LIMIT])
    def test_not_supported(self, of: Any) -> None:
        """What a GB10 does not support is absent for that reason, and never 0."""
        assert Reason.NOT_SUPPORTED is absence(self.items, of, "0").reason

    def test_a_threshold_of_zero_is_none(self) -> None:
        """A GB10 answers 0 °C for a threshold that it does not have."""
        assert Reason.IMPOSSIBLE is absence(self.items, gpu.THRESHOLD, "0", "gpu_max").reason

    def test_sources(self) -> None:
        """A power names the call that it comes from, so that two windows are told apart."""
        sources = {
            item.labels: item.origin for item in self.items if isinstance(item, Reading) and item.of is gpu.POWER
        }
        assert {
            ("average",): "nvml nvmlDeviceGetPowerUsage",
            ("instant",): "nvml nvmlDeviceGetFieldValues NVML_FI_DEV_POWER_INSTANT",
        } == sources

    def test_the_uuid_is_private(self) -> None:
        """It is read, and marked so that no exporter shows it unasked."""
        assert gpu.UUID.private


def test_asks_for_nothing_that_a_gb10_answers_without_meaning() -> None:
    """No PCIe link or throughput, memory clock or memory utilisation, fan, ECC, BAR1, codec or module power."""
    items, nvml = _ask(RecordedNvml(_gb10()).call)
    wrong = ("Pcie", "CurrPcie", "Fan", "Ecc", "BAR1", "Encoder", "Decoder", "Mig", "Remapped", "Retired", "Module")
    assert [] == [
        call for call in nvml.asked if call[0] != "nvmlDeviceGetPciInfo" and any(word in call[0] for word in wrong)
    ]
    assert [] == [call for call in nvml.asked if "MEM" in call or "MEMORY" in call]
    fields = [call for call in nvml.asked if call[0] == "nvmlDeviceGetFieldValues"]
    power, counters = ("185", "186"), ("83", "74", "76", "269", "270", "271")
    assert [("nvmlDeviceGetFieldValues", *power), ("nvmlDeviceGetFieldValues", *counters)] == fields
    assert [] == [item.of.key for item in items if "memory_utilization" in item.of.key or "pcie" in item.of.key]


def test_no_call_is_made_twice() -> None:
    """A look is made each second, and a call may take milliseconds."""
    changes = {"nvmlDeviceGetMemoryInfo": {"total": 139 * _GIB, "used": _GIB}, "nvmlDeviceGetName": "NVIDIA H200"}
    _, nvml = _ask(RecordedNvml(_gb10(changes)).call)
    assert {"nvmlDeviceGetName"} == {call[0] for call in nvml.asked if nvml.asked.count(call) > 1}


def test_dear_counters_are_read_every_ten_seconds() -> None:
    """The driver works milliseconds for them; each reading says when it was taken, and power is of the moment."""
    now = [100.0]
    nvml = _Direct(RecordedNvml(_gb10()).call)
    machine = replace(host(), nvml=nvml, clock=lambda: now[0])
    first = look(read, machine)
    assert [100.0] == [item.at for item in first if isinstance(item, Reading) and item.of is gpu.ENERGY]
    for now[0] in (101.0, 109.0):
        nvml.asked.clear()
        later = look(read, machine)
        assert [] == [call for call in nvml.asked if "83" in call]
        assert [call for call in nvml.asked if "186" in call]
        assert [100.0] == [item.at for item in later if isinstance(item, Reading) and item.of is gpu.ENERGY]
    now[0] = 110.0
    look(read, machine)
    assert [call for call in nvml.asked if "83" in call]


@pytest.mark.parametrize(
    ("nvml", "reason", "words"),
    [
        (None, Reason.NO_LIBRARY, "no NVIDIA driver library"),
        ({"init": "DRIVER_NOT_LOADED"}, Reason.DRIVER_NOT_LOADED, "driver is not loaded"),
        ({"init": {"error": "LIB_RM_VERSION_MISMATCH"}}, Reason.VERSION_MISMATCH, "of different versions"),
        ({"init": {"error": "GPU_IS_LOST"}}, Reason.DEVICE_LOST, "fallen off the bus"),
        ({"init": {"hang": True}}, Reason.TIMEOUT, "does not answer"),
        ({"init": "SUCCESS", "devices": []}, Reason.NO_DEVICE, "reports no GPU"),
        ({"system": {"nvmlDeviceGetCount": "many"}}, Reason.GARBAGE, "nvmlDeviceGetCount"),
        ({"system": {"nvmlDeviceGetCount": -1}}, Reason.NO_DEVICE, "reports no GPU"),
    ],
)
def test_no_gpu(nvml: Mapping[str, Any] | None, reason: Reason, words: str) -> None:
    """A machine without a usable GPU says why in words that need no manual."""
    with pytest.raises(NoData, match=words) as caught:
        look(read, host(nvml=nvml))
    assert reason is caught.value.reason


@pytest.mark.parametrize("missing", [name for name in _GB10 if name != "fields"])
def test_one_call_that_fails_leaves_the_rest(missing: str) -> None:
    """Each driver supports other calls; one that does not costs what it would have told, and no more."""
    everything = {(item.of.key, item.entity) for item in look(read, _spark()) if isinstance(item, Reading | Fact)}
    items = look(read, _spark({missing: {"error": "UNKNOWN"}}))
    lost = everything - {(item.of.key, item.entity) for item in items if isinstance(item, Reading | Fact)}
    assert {item.of.key for item in items if isinstance(item, Absence)} >= {
        key for key, entity in lost if entity == "0"
    }
    assert len(lost) <= (5 if "RunningProcesses" in missing else 1)


class TestPower:
    """Power and energy have more than one way in."""

    def test_average_from_the_field(self) -> None:
        """Where the plain call is refused, the field says the same."""
        items = look(read, _spark({"nvmlDeviceGetPowerUsage": _REFUSED}))
        assert 46 == value(items, gpu.POWER, "0", "average")

    def test_energy_from_the_call(self) -> None:
        """Where the field is missing, the plain call says the same, and is named as the source."""
        items = look(read, _spark({"nvmlDeviceGetTotalEnergyConsumption": 5000}, fields={"83": None}))
        assert 5 == value(items, gpu.ENERGY, "0")
        assert "nvml nvmlDeviceGetTotalEnergyConsumption" in [
            item.origin for item in items if isinstance(item, Reading)
        ]

    def test_no_fields_at_all(self) -> None:
        """Older drivers have no such call; the instant power and the counters are absent, the average stands."""
        items = look(read, host(nvml=_without_fields()))
        assert 46 == value(items, gpu.POWER, "0", "average")
        assert Reason.NOT_SUPPORTED is absence(items, gpu.POWER, "0", "instant").reason
        assert Reason.NOT_SUPPORTED is absence(items, gpu.ENERGY, "0").reason
        assert Reason.NOT_SUPPORTED is absence(items, gpu.EVENT_SECONDS, "0", "sync_boost").reason

    @pytest.mark.parametrize("milliwatts", [-1, 2**32 - 1, 3_000_001])
    def test_impossible(self, milliwatts: int) -> None:
        """All-ones and what no GPU can draw is rejected."""
        items = look(read, _spark({"nvmlDeviceGetPowerUsage": milliwatts}, fields={"185": None}))
        assert Reason.IMPOSSIBLE is absence(items, gpu.POWER, "0", "average").reason

    def test_a_limit_of_its_own(self) -> None:
        """An H200 has one; it is no reading, and no limit of the machine."""
        items = look(read, _spark({"nvmlDeviceGetEnforcedPowerLimit": 700_000}))
        assert 700 == value(items, gpu.LIMIT, "0")


def _without_fields() -> dict[str, Any]:
    machine = _gb10()
    machine["devices"][0]["fields"] = _REFUSED
    return machine


class TestMemory:
    """Memory of the GPU's own."""

    def test_a_discrete_gpu_has_some(self) -> None:
        """An H200 in bytes."""
        items = look(
            read,
            _spark(
                {"nvmlDeviceGetName": "NVIDIA H200", "nvmlDeviceGetMemoryInfo": {"total": 139 * _GIB, "used": _GIB}}
            ),
        )
        assert 139 * _GIB == value(items, gpu.MEMORY_TOTAL, "0")
        assert _GIB == value(items, gpu.MEMORY_USED, "0")

    def test_a_gb10_that_answers_shows_the_machines(self) -> None:
        """Two tools expect a driver that answers; what it gives is MemTotal, which is not the GPU's own."""
        items = look(read, _spark({"nvmlDeviceGetMemoryInfo": {"total": 130_663_165_952, "used": _GIB}}))
        for of in (gpu.MEMORY_TOTAL, gpu.MEMORY_USED):
            assert "shares the machine's memory" in absence(items, of, "0").detail

    def test_a_zeroed_struct_is_no_memory(self) -> None:
        """0 bytes in all are none."""
        changes = {"nvmlDeviceGetName": "Some GPU", "nvmlDeviceGetMemoryInfo": {"total": 0, "free": 0, "used": 0}}
        assert Reason.IMPOSSIBLE is absence(look(read, _spark(changes)), gpu.MEMORY_TOTAL, "0").reason


class TestEvents:
    """Why the clocks are where they are."""

    def test_older_name(self) -> None:
        """Before driver 535 the call had another name."""
        changes = {"nvmlDeviceGetCurrentClocksEventReasons": None, "nvmlDeviceGetCurrentClocksThrottleReasons": 0x24}
        items = look(read, _spark(changes))
        assert ("sw_power_cap", "sw_thermal_slowdown") == value(items, gpu.EVENTS, "0")

    def test_neither_name(self) -> None:
        """Refused under both names, it is not supported."""
        items = look(read, _spark({"nvmlDeviceGetCurrentClocksEventReasons": None}))
        assert Reason.NOT_SUPPORTED is absence(items, gpu.EVENTS, "0").reason

    def test_a_fault_is_not_asked_again_by_the_other_name(self) -> None:
        """Only a refusal leads to the older name."""
        changes = {
            "nvmlDeviceGetCurrentClocksEventReasons": {"error": "NO_PERMISSION"},
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
        }
        assert Reason.PERMISSION_DENIED is absence(look(read, _spark(changes)), gpu.EVENTS, "0").reason

    def test_a_newer_bit_keeps_its_number(self) -> None:
        """What this agent cannot name it shows all the same."""
        items = look(read, _spark({"nvmlDeviceGetCurrentClocksEventReasons": 0x8001}))
        assert ("gpu_idle", "0x8000") == value(items, gpu.EVENTS, "0")


class TestProcesses:
    """Who holds memory through the GPU."""

    @staticmethod
    def _look(compute: Any, graphics: Any = (), busy: int = 94) -> list[Item]:
        return look(
            read,
            _spark(
                {
                    "nvmlDeviceGetComputeRunningProcesses": compute,
                    "nvmlDeviceGetGraphicsRunningProcesses": graphics,
                    "nvmlDeviceGetUtilizationRates": {"gpu": busy, "memory": 0},
                }
            ),
        )

    def test_listed_twice(self) -> None:
        """One process may do both; its memory is the same memory, counted once."""
        items = self._look([{"pid": 48211, "usedGpuMemory": 4096}], [{"pid": 48211, "usedGpuMemory": 4096}])
        assert "compute and graphics" == value(items, gpu.PROCESS_KIND, "0/48211")
        assert 4096 == value(items, gpu.PROCESS_MEMORY, "0/48211")
        assert 4096 == value(items, gpu.PROCESS_MEMORY_SUM, "0")

    @pytest.mark.parametrize("unknown", [None, 2**64 - 1])
    def test_one_list_knows_more(self, unknown: int | None) -> None:
        """An N/A in one list does not hide what the other knows, whichever comes first."""
        known = [{"pid": 48211, "usedGpuMemory": 4096}]
        not_available = [{"pid": 48211, "usedGpuMemory": unknown}]
        for items in (self._look(known, not_available), self._look(not_available, known)):
            assert 4096 == value(items, gpu.PROCESS_MEMORY, "0/48211")

    @pytest.mark.parametrize("unknown", [None, 2**64 - 1])
    def test_not_available(self, unknown: int | None) -> None:
        """Memory that is N/A is absent, and a sum without it would be too small, so there is none."""
        items = self._look([{"pid": 48211, "usedGpuMemory": unknown}, {"pid": 5, "usedGpuMemory": 4096}])
        assert Reason.NO_DATA is absence(items, gpu.PROCESS_MEMORY, "0/48211").reason
        assert 4096 == value(items, gpu.PROCESS_MEMORY, "0/5")
        assert "NVML gives it for 1 of 2 processes" == absence(items, gpu.PROCESS_MEMORY_SUM, "0").detail

    def test_gone_since(self) -> None:
        """A process that ended between two reads has no name any more, and keeps what NVML said."""
        items = self._look([{"pid": 99, "usedGpuMemory": 4096}])
        assert Reason.NOT_FOUND is absence(items, gpu.PROCESS_NAME, "0/99").reason
        assert 4096 == value(items, gpu.PROCESS_MEMORY, "0/99")

    def test_none(self) -> None:
        """An idle GPU that nobody uses holds 0 bytes, and that number is derived."""
        items = self._look([], [], busy=0)
        assert 0 == value(items, gpu.PROCESS_MEMORY_SUM, "0")
        assert [Quality.DERIVED] == [
            item.quality for item in items if isinstance(item, Reading) and item.of is gpu.PROCESS_MEMORY_SUM
        ]

    def test_container(self) -> None:
        """In a container the list is empty without an error; a busy GPU gives that away."""
        assert "container" in absence(self._look([], [], busy=3), gpu.PROCESS_MEMORY_SUM, "0").detail

    def test_one_list_refused(self) -> None:
        """A driver without graphics still tells what computes."""
        items = self._look([{"pid": 48211, "usedGpuMemory": 4096}], _REFUSED)
        assert 4096 == value(items, gpu.PROCESS_MEMORY_SUM, "0")

    def test_one_list_failed(self) -> None:
        """What one list would have said is not known, so there is no sum; what the other says stands."""
        items = self._look([{"pid": 48211, "usedGpuMemory": 4096}], {"error": "NO_PERMISSION"})
        assert 4096 == value(items, gpu.PROCESS_MEMORY, "0/48211")
        assert Reason.PERMISSION_DENIED is absence(items, gpu.PROCESS_MEMORY_SUM, "0").reason

    def test_both_refused(self) -> None:
        """No list, no sum."""
        assert Reason.NOT_SUPPORTED is absence(self._look(None, None), gpu.PROCESS_MEMORY_SUM, "0").reason

    @pytest.mark.parametrize(
        "garbage", [7, "none", [1], [{}], [{"pid": "x"}], [{"pid": -1}], [{"pid": None}], [{"pid": 2**40}], {"a": 1}]
    )
    def test_garbage(self, garbage: Any) -> None:
        """A list that is none is one absence."""
        assert Reason.GARBAGE is absence(self._look(garbage), gpu.PROCESS_MEMORY_SUM, "0").reason


def test_two_gpus() -> None:
    """Each has an entity of its own, and so have its processes."""
    second = {"nvmlDeviceGetName": "NVIDIA H200", "nvmlDeviceGetPowerUsage": 120_000}
    machine = _gb10()
    machine["devices"].append(second | {"nvmlDeviceGetComputeRunningProcesses": [{"pid": 7, "usedGpuMemory": 1}]})
    items = look(read, host(nvml=machine))
    assert ["NVIDIA GB10", "NVIDIA H200"] == [value(items, gpu.NAME, number) for number in ("0", "1")]
    assert [46, 120] == [value(items, gpu.POWER, number, "average") for number in ("0", "1")]
    assert 1 == value(items, gpu.PROCESS_MEMORY, "1/7")
    assert Reason.NOT_SUPPORTED is absence(items, gpu.VBIOS, "1").reason


class _Dying(RecordedNvml):
    """A GPU that falls off the bus after so many calls."""

    def __init__(self, alive: int) -> None:
        super().__init__(_gb10())
        self.alive = alive

    def call(self, function: str, device: int | None, *arguments: str) -> Any:
        """Answer as long as it lives."""
        self.alive -= 1
        if self.alive < 0:
            raise NvmlError("GPU_IS_LOST", function)
        return super().call(function, device, *arguments)


def test_lost_half_way() -> None:
    """A GPU may fall off the bus at any call: what was read stands, the rest is absent for that reason."""
    _, whole = _ask(RecordedNvml(_gb10()).call)
    assert len(whole.asked) > 30
    for alive in range(1, len(whole.asked)):
        items, _ = _ask(_Dying(alive).call)
        reasons = {item.reason for item in items if isinstance(item, Absence)}
        assert Reason.DEVICE_LOST in reasons
        assert reasons <= {Reason.DEVICE_LOST, Reason.NOT_SUPPORTED, Reason.IMPOSSIBLE, Reason.NOT_FOUND}
        assert (alive > 1) == any(isinstance(item, Reading | Fact) for item in items)


def test_a_hung_driver_costs_one_deadline() -> None:
    """A call that never returns is left behind; every later one is refused at once, and what came before stands."""
    items = look(read, _spark({"nvmlDeviceGetPerformanceState": {"hang": True}}))
    assert "NVIDIA GB10" == value(items, gpu.NAME, "0")
    assert Reason.TIMEOUT is absence(items, gpu.PSTATE, "0").reason
    assert Reason.TIMEOUT is absence(items, gpu.POWER, "0", "average").reason


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["gpu", "total", "used", "busId", "isC2cEnabled", "SM", "GPU", "pid", "usedGpuMemory", "83"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)


@given(function=st.sampled_from([*_GB10, *_SYSTEM]), garbage=_JSON)
def test_garbage_from_any_call(function: str, garbage: Any) -> None:
    """Whatever one call answers, no reading leaves its bounds, no text hurts a terminal, and nothing is raised."""
    machine = _gb10()
    where = machine["system"] if function in _SYSTEM else machine["devices"][0]
    where[function] = garbage
    items, _ = _ask(RecordedNvml(machine).call)
    for item in items:
        if isinstance(item, Reading):
            low, high = item.of.bounds
            assert low <= item.value <= high
        elif isinstance(item, Fact) and isinstance(item.value, str):
            assert item.value.isprintable()


@given(_JSON)
def test_parsers(garbage: Any) -> None:
    """Each gives something sane, or says what it was given."""
    numbers = (gpu.parse_number, gpu.parse_whole, gpu.parse_pid, gpu.parse_process_memory)
    texts = (
        gpu.parse_text,
        gpu.parse_architecture,
        gpu.parse_addressing_mode,
        gpu.parse_performance_state,
        gpu.parse_capability,
        gpu.parse_cuda_version,
        gpu.parse_bus_id,
    )
    for parse in numbers:
        with suppress(ValueError, Unavailable):
            assert -math.inf < parse(garbage) < math.inf
    for name in texts:
        with suppress(ValueError, Unavailable):
            assert isinstance(name(garbage), str)
    with suppress(ValueError):
        assert gpu.parse_switch(garbage) in (True, False)
    with suppress(ValueError):
        assert all(gpu.parse_event_reasons(garbage))


@pytest.mark.parametrize(
    ("expected", "parse", "given_"),
    [
        ("13.2", gpu.parse_cuda_version, 13020),
        ("12.4", gpu.parse_cuda_version, 12040),
        ("architecture 99", gpu.parse_architecture, 99),
        ("Hopper", gpu.parse_architecture, 9),
        ("HMM", gpu.parse_addressing_mode, 1),
        ("mode 7", gpu.parse_addressing_mode, 7),
        ("P15", gpu.parse_performance_state, 15),
        ("000f:01:00.0", gpu.parse_bus_id, "0000000F:01:00.0"),
        ("0000:17:00.0", gpu.parse_bus_id, "00000000:17:00.0"),
        ("10002:17:00.0", gpu.parse_bus_id, "00010002:17:00.0"),
        ((), gpu.parse_event_reasons, 0),
    ],
)
def test_parsed(expected: object, parse: Callable[[Any], object], given_: object) -> None:
    """Enumerations and versions as people write them."""
    assert expected == parse(given_)


@pytest.mark.parametrize(
    ("parse", "given_"),
    [
        (gpu.parse_architecture, 2**32 - 1),
        (gpu.parse_performance_state, 32),
        (gpu.parse_process_memory, None),
    ],
)
def test_nvml_says_that_it_does_not_know(parse: Callable[[Any], object], given_: object) -> None:
    """Its own word for "unknown" is an absence, not a value."""
    with pytest.raises(Unavailable) as caught:
        parse(given_)
    assert Reason.NO_DATA is caught.value.reason


@pytest.mark.parametrize(
    ("parse", "given_"),
    [
        (gpu.parse_performance_state, 16),
        (gpu.parse_performance_state, -1),
        (gpu.parse_capability, [12]),
        (gpu.parse_capability, "12.1"),
        (gpu.parse_cuda_version, -5),
        (gpu.parse_bus_id, "F:foo"),
        (gpu.parse_bus_id, ""),
        (gpu.parse_switch, 2),
        (gpu.parse_event_reasons, -1),
        (gpu.parse_number, True),
        (gpu.parse_number, float("nan")),
        (gpu.parse_number, "7"),
    ],
)
def test_garbage_is_shown(parse: Callable[[Any], object], given_: object) -> None:
    """The message shows what was given."""
    with pytest.raises(ValueError, match=r"not |neither "):
        parse(given_)
