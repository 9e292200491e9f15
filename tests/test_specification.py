"""What NVIDIA says a Spark is, against what one shows: part by part, for its own and its partners' machines."""

import pytest
from looks import OTHER, SPARK, found, limits, lost, told

from spark_agent.agent.specification import Match, Part, compare
from spark_agent.collectors import Absence, Fact, Item, Reading, Reason, cpu, gpu, memory, nic, nvme, platform

_CPU = (
    Reading(cpu.PERFORMANCE_CORES, 10),
    Reading(cpu.EFFICIENCY_CORES, 10),
    Fact(cpu.MODEL, "Cortex-A725", "0"),
    Fact(cpu.MODEL, "Cortex-X925", "5"),
)
_GPU = (
    Fact(gpu.NAME, "NVIDIA GB10", "0"),
    Fact(gpu.COMPUTE_CAPABILITY, "12.1", "0"),
    Reading(gpu.CORES, 6144, "0"),
    Fact(gpu.CUDA, "13.0", "0"),
)
_NETWORK = (
    Fact(nic.KIND, "ethernet", "enP7s7"),
    Fact(nic.PCI_ID, "10ec:8127", "enP7s7"),
    Fact(nic.KIND, "wifi", "wlP9s9"),
    Fact(nic.PCI_ID, "14c3:7925", "wlP9s9"),
)
_AWAKE = (Fact(nic.STATE, "present"), Reading(nic.FUNCTIONS, 4))
_ASLEEP = (Fact(nic.STATE, "asleep"), Reading(nic.FUNCTIONS, 0))
_SOFTWARE = (
    Fact(platform.DGX_OS, "7.6.0"),
    Fact(platform.OS, "Ubuntu 24.04.4 LTS"),
    Fact(platform.KERNEL, "6.17.0-1026-nvidia"),
    Fact(platform.DRIVER, "580.159.03"),
)
_MEMORY = Reading(memory.TOTAL, 127_600_748 * 1024)
_NVIDIA = Fact(platform.VENDOR, "NVIDIA")


def _drive(bytes_: float, model: str = "SAMSUNG MZALC4T0HBL1-00B07") -> tuple[Item, ...]:
    return Reading(nvme.CAPACITY, bytes_, "nvme0"), Fact(nvme.MODEL, model, "nvme0")


_FE = (_NVIDIA, *_CPU, *_GPU, _MEMORY, *_drive(4.096e12), *_AWAKE, *_NETWORK, *limits(pl1=140), *_SOFTWARE)


def _parts(*items: Item) -> dict[str, Part]:
    return {part.id: part for part in compare(found(SPARK, *items))}


def _part(id_: str, *items: Item) -> tuple[Match, str]:
    part = _parts(*items)[id_]
    return part.match, part.found


def test_founders_edition() -> None:
    """A Founders Edition is as specified in all that software can see."""
    matches = {id_: part.match for id_, part in _parts(*_FE).items()}
    unseen = {"bluetooth", "ports", "adapter"}
    assert {id_ for id_, match in matches.items() if match is Match.NOT_VISIBLE} == unseen
    assert {Match.AS_SPECIFIED} == {match for id_, match in matches.items() if id_ not in unseen}
    assert "enP7s7 (10ec:8127): 10 GbE" == _part("ethernet", *_FE)[1]
    assert "4.1 TB SAMSUNG MZALC4T0HBL1-00B07" == _part("storage", *_FE)[1]


def test_partner() -> None:
    """A partner may build in 1 TB; NVIDIA's own has 4, and less of it differs."""
    small = _drive(1.0e12, "some drive")
    partner = _parts(Fact(platform.VENDOR, "ASUS"), *small)["storage"]
    assert (Match.AS_SPECIFIED, "1 TB NVMe M.2 and up (partner model)") == (partner.match, partner.specified)
    assert "1 TB some drive" == partner.found
    founders = _parts(_NVIDIA, *small)["storage"]
    assert (Match.DIFFERS, "4 TB NVMe M.2") == (founders.match, founders.specified)


def test_every_part_is_told() -> None:
    """A look that found nothing leaves every part not visible, each with a reason."""
    parts = _parts(*[])
    assert {Match.NOT_VISIBLE} == {part.match for part in parts.values()}
    assert all(part.found and part.specified and part.name for part in parts.values())


def test_another_machine_is_not_compared() -> None:
    """A PC is not held against a Spark's specification."""
    assert [] == [one for one in told(found(OTHER, *_FE)) if one.id.startswith("specification_")]
    assert [] == [one for one in told(found(*_FE)) if one.id.startswith("specification_")]


class TestConnectX7:
    """Two cages, four PCI functions, and a habit of sleeping."""

    def test_awake(self) -> None:
        """All four functions."""
        assert (Match.AS_SPECIFIED, "4 PCI functions (present)") == _part("connectx7", *_AWAKE)

    def test_asleep(self) -> None:
        """Off the bus for want of a cable is no difference."""
        match, words = _part("connectx7", *_ASLEEP)
        assert Match.ASLEEP is match
        assert "comes back with one" in words

    @pytest.mark.parametrize(("state", "functions"), [("missing", 0), ("incomplete", 2)])
    def test_differs(self, state: str, functions: int) -> None:
        """None that anything would put to sleep, or half of it."""
        match, words = _part("connectx7", Fact(nic.STATE, state), Reading(nic.FUNCTIONS, functions))
        assert (Match.DIFFERS, f"{functions} PCI functions ({state})") == (match, words)

    def test_not_visible(self) -> None:
        """A machine whose PCI bus cannot be read."""
        absence = Absence(nic.FUNCTIONS, Reason.NOT_FOUND, "/sys/bus/pci/devices is empty")
        assert (Match.NOT_VISIBLE, "/sys/bus/pci/devices is empty") == _part("connectx7", absence)


@pytest.mark.parametrize(
    ("id_", "items", "words"),
    [
        ("cpu", (Reading(cpu.PERFORMANCE_CORES, 8), Reading(cpu.EFFICIENCY_CORES, 12), *_CPU[2:]), "8 performance"),
        ("cpu", (*_CPU[:2], Fact(cpu.MODEL, "Cortex-X4", "0")), "Cortex-X4"),
        ("gpu", (Fact(gpu.NAME, "NVIDIA H200", "0"), Fact(gpu.COMPUTE_CAPABILITY, "9.0", "0")), "NVIDIA H200"),
        ("gpu", (*_GPU[:2], Reading(gpu.CORES, 5120, "0")), "5120 CUDA cores"),
        ("memory", (Reading(memory.TOTAL, 64 * 2**30),), "64.0 GiB"),
        ("ethernet", (_NETWORK[0], Fact(nic.PCI_ID, "10ec:8168", "enP7s7")), "enP7s7 (10ec:8168)"),
        ("wifi", (_NETWORK[2],), "wlP9s9 (no PCI id)"),
        ("soc_power", limits(pl1=120), "PL1, the limit in force, is 120 W"),
        ("os", (Fact(platform.OS, "Ubuntu 24.04.4 LTS"),), "Ubuntu 24.04.4 LTS"),
        ("os", (Fact(platform.DGX_OS, "70.1"),), "DGX OS 70.1"),
        ("kernel", (Fact(platform.KERNEL, "6.11.0-1016-nvidia"),), "6.11.0-1016-nvidia"),
        ("driver", (Fact(platform.DRIVER, "580.82.07"),), "580.82.07"),
        ("cuda", (Fact(gpu.CUDA, "12.9", "0"),), "up to 12.9"),
    ],
)
def test_differs(id_: str, items: tuple[Item, ...], words: str) -> None:
    """A difference is told with what was found instead."""
    match, what = _part(id_, *items)
    assert Match.DIFFERS is match
    assert words in what


@pytest.mark.parametrize(
    ("id_", "item"),
    [
        ("memory", Reading(memory.TOTAL, 125_489_508 * 1024)),
        ("memory", Reading(memory.TOTAL, 112.3 * 2**30)),
        ("kernel", Fact(platform.KERNEL, "6.14.0-1013-nvidia")),
        ("kernel", Fact(platform.KERNEL, "7.0.0-1019-nvidia")),
        ("driver", Fact(platform.DRIVER, "580.95.05")),
        ("driver", Fact(platform.DRIVER, "610.57.04")),
        ("os", Fact(platform.DGX_OS, "7.2.3")),
    ],
)
def test_as_specified(id_: str, item: Item) -> None:
    """What real machines show differs by month, firmware and kernel, and is all within the specification."""
    assert Match.AS_SPECIFIED is _part(id_, item)[0]


class TestNotVisible:
    """Why a part cannot be seen."""

    def test_no_power_driver(self) -> None:
        """The limit in force is not NVIDIA's figure, and needs a driver to be read."""
        assert "only a driver for the firmware's power page" in _part("soc_power")[1]

    def test_a_limit_that_cannot_be_read(self) -> None:
        """With a driver the reason is the file's."""
        assert (Match.NOT_VISIBLE, "EACCES power11_cap") == _part(
            "soc_power", lost("pl1", Reason.PERMISSION_DENIED, "EACCES power11_cap")
        )

    def test_dead_driver(self) -> None:
        """The collector's words."""
        parts = compare(found(SPARK, without={"gpu": Reason.DRIVER_NOT_LOADED}))
        assert [(Match.NOT_VISIBLE, "gpu: why")] == [(part.match, part.found) for part in parts if part.id == "gpu"]

    def test_left_out(self) -> None:
        """A part that was not asked for is not missing."""
        assert "nic was left out of this look" == _part("wifi")[1]

    def test_half_of_the_cores(self) -> None:
        """How many there are of one kind says nothing of the other."""
        absence = Absence(cpu.PERFORMANCE_CORES, Reason.GARBAGE, "CPU part: x")
        assert (Match.NOT_VISIBLE, "CPU part: x") == _part("cpu", absence, _CPU[1])

    def test_no_interface(self) -> None:
        """A collector that looked and found none says so."""
        assert (Match.NOT_VISIBLE, "no wifi interface") == _part("wifi", *_NETWORK[:2])
