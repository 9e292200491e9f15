"""What goes wrong with a Spark besides its power: what is found, from which threshold to which, and what is not."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from looks import HEALTHY, OTHER, SPARK, WEDGED, at, found, seconds, told, watched, watts

from spark_agent.agent.finding import Finding, Severity
from spark_agent.agent.health import exit_code
from spark_agent.agent.report import report
from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import (
    Absence,
    Fact,
    Item,
    Quality,
    Reading,
    Reason,
    cpu,
    fan,
    gpu,
    memory,
    nic,
    nvme,
    spbm,
    thermal,
)
from spark_agent.collectors._untrusted import SIGNAL

_GIB = 2**30


def _by_id(listed: Iterable[Finding]) -> dict[str, Finding]:
    return {finding.id: finding for finding in listed if not finding.id.startswith("specification_")}


def _look(*items: Item) -> dict[str, Finding]:
    """Return the findings of one look at a Spark."""
    return _by_id(told(found(SPARK, *items)))


def _told(looks: Iterable[Snapshot]) -> list[dict[str, Finding]]:
    """Return the findings of looks that follow each other."""
    return [_by_id(one.findings) for one in watched(looks)]


def _severities(looks: Iterable[Snapshot], id_: str) -> list[str]:
    return [one[id_].severity.value if id_ in one else "" for one in _told(looks)]


# --- memory -----------------------------------------------------------------------------------------------------------


def _memory(available: float, full: float = 0.0, *, swap: float = 16, unified: bool = True) -> tuple[Item, ...]:
    """Return so many GiB available, and the share of time in which everything waits."""
    return (
        SPARK,
        Fact(memory.UNIFIED, unified),
        Reading(memory.TOTAL, 121.7 * _GIB),
        Reading(memory.AVAILABLE, available * _GIB),
        Reading(memory.SWAP_TOTAL, swap * _GIB),
        Reading(memory.SWAP_FREE, swap * _GIB),
        Reading(memory.PRESSURE_FULL, full, labels=("avg10",)),
    )


class TestMemory:
    """A Spark that runs out freezes, without the kernel ending any process: it must be told before."""

    @pytest.mark.parametrize(
        ("available", "full", "expected"),
        [
            (50, 0, None),
            (8, 0, None),
            (7.99, 0, Severity.WARNING),
            (4, 0, Severity.WARNING),
            (3.99, 0, Severity.CRITICAL),
            (7, 0.011, Severity.CRITICAL),
            (7, 0.01, Severity.WARNING),
        ],
    )
    def test_thresholds(self, available: float, full: float, expected: Severity | None) -> None:
        """Below 8 GiB a warning, below 4 critical, and sooner where everything waits already."""
        finding = _look(*_memory(available, full)[1:]).get("memory_low")
        assert expected is (finding.severity if finding else None)

    def test_words(self) -> None:
        """How much is left, of what, what holds it, and what happens then."""
        held = (
            Reading(gpu.PROCESS_MEMORY, 45 * _GIB, "0/51544"),
            Reading(gpu.PROCESS_MEMORY, 60 * _GIB, "0/77"),
            Fact(gpu.PROCESS_NAME, "vllm", "0/77"),
        )
        finding = _look(*_memory(3.2, 0.05)[1:], *held)["memory_low"]
        assert "memory is running out: 3.2 of 121.7 GiB are available" == finding.title
        assert "swap: 16.0 of 16.0 GiB free" == finding.evidence[0]
        assert "all tasks waited for memory 5.0% of the last 10 s (/proc/pressure/memory full)" == finding.evidence[1]
        assert "most through the GPU: 60.0 GiB, process 77 (vllm)" == finding.evidence[2]
        assert "freezes" in finding.evidence[3]
        assert "there is no swap" == _look(*_memory(3.2, swap=0)[1:])["memory_low"].evidence[0]

    def test_it_ends_above_where_it_begins(self) -> None:
        """By a GiB, at each of its thresholds."""
        amounts = (9, 7.9, 8.9, 7.9, 3.9, 4.9, 5.1, 8.9)
        looks = [at(t, *_memory(amount)) for t, amount in enumerate(amounts)]
        words = "- warning warning warning critical critical warning warning"
        assert words.replace("-", "").split(" ") == _severities(looks, "memory_low")

    def test_it_is_held_for_half_a_minute(self) -> None:
        """What is freed may be taken again."""
        looks = [at(0, *_memory(7)), *(at(t, *_memory(20)) for t in range(1, 40))]
        assert ["warning"] * 30 + [""] * 10 == _severities(looks, "memory_low")

    def test_waiting_with_memory_left(self) -> None:
        """A container at the limit of its own looks like this: a warning, and no alarm."""
        finding = _look(*_memory(60, 0.2)[1:])["memory_stalled"]
        assert (Severity.WARNING, "all tasks wait for memory 20% of the time") == (finding.severity, finding.title)
        assert any("container" in line for line in finding.evidence)
        assert "memory_stalled" not in _look(*_memory(3, 0.2)[1:])

    def test_not_where_the_gpu_has_its_own(self) -> None:
        """A PC that runs out ends a process, and is none of ours."""
        assert not {"memory_low", "memory_stalled"} & set(_look(*_memory(1, 0.5, unified=False)[1:]))


# --- ConnectX-7 -------------------------------------------------------------------------------------------------------


def _cage(number: int, first: str, second: str, ports: tuple[str, str] | None = None) -> list[Item]:
    """Return the two interfaces of a cage, and their links."""
    names = f"enp1s0f{number}np{number}", f"enP2p1s0f{number}np{number}"
    items: list[Item] = []
    for name, twin, link in zip(names, reversed(names), (first, second), strict=True):
        items += [Fact(nic.CAGE, number, name), Fact(nic.TWIN, twin, name), Fact(nic.LINK, link, name)]
    for name, port in zip(names, ports or (), strict=False):
        items.append(Fact(nic.RDMA_STATE, port, name))
    return items


class TestConnectX7:
    """Two cages, each of two interfaces that only together carry what the cable does."""

    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ("up", "up", False),
            ("down", "down", False),
            ("up", "down", True),
            ("down", "up", True),
            ("up", "unknown", False),
        ],
    )
    def test_a_lone_twin(self, first: str, second: str, expected: bool) -> None:
        """Down together is a cage without a cable; one alone is half a cable."""
        assert expected is ("connectx7_twin_down" in _look(*_cage(0, first, second), *_cage(1, "down", "down")))

    def test_words(self) -> None:
        """Which cage, which interface, and what to do; one finding, however many cages."""
        finding = _look(*_cage(0, "up", "down"), *_cage(1, "up", "down"))["connectx7_twin_down"]
        assert Severity.WARNING is finding.severity
        assert ("cage 0: enp1s0f0np0 is up, and enP2p1s0f0np0 is down",) == finding.evidence[:1]
        assert 2 == len(finding.evidence)
        assert "`sudo ip link set enP2p1s0f0np0 up`" in finding.action

    @pytest.mark.parametrize(("ports", "expected"), [(("ACTIVE", "DOWN"), True), (("ACTIVE", "ACTIVE"), False)])
    def test_a_lone_port(self, ports: tuple[str, str], expected: bool) -> None:
        """RDMA may be down where the network is up."""
        known = _look(*_cage(0, "up", "up", ports))
        assert expected is ("connectx7_twin_down" in known)
        if expected:
            assert "is ACTIVE, and that of enP2p1s0f0np0 is DOWN" in known["connectx7_twin_down"].evidence[0]

    def test_a_cable_takes_its_time(self) -> None:
        """Twins come up one after the other."""
        looks = [*seconds(0, 10, SPARK, *_cage(0, "up", "down")), *seconds(10, 30, SPARK, *_cage(0, "up", "up"))]
        assert not any("connectx7_twin_down" in one for one in _told(looks))
        assert "connectx7_twin_down" in _told(seconds(0, 16, SPARK, *_cage(0, "up", "down")))[-1]

    @pytest.mark.parametrize(
        ("state", "id_", "severity"),
        [
            ("incomplete", "connectx7_incomplete", Severity.WARNING),
            ("missing", "connectx7_missing", Severity.INFO),
            ("asleep", "connectx7_asleep", Severity.INFO),
        ],
    )
    def test_presence(self, state: str, id_: str, severity: Severity) -> None:
        """Only a card of which a part is there is a fault."""
        known = _look(Fact(nic.STATE, state), Reading(nic.FUNCTIONS, 3 if state == "incomplete" else 0))
        assert [(id_, severity)] == [(id_, known[id_].severity) for id_ in known if id_.startswith("connectx7")]


# --- PCIe -------------------------------------------------------------------------------------------------------------


def _errors(device: str = "enp1s0f0np0", /, **counts: float) -> list[Item]:
    counts = {"fatal": 0, "nonfatal": 0, "correctable": 0} | counts
    of = nvme.PCIE_ERRORS if device.startswith("nvme") else nic.PCIE_ERRORS
    return [Reading(of, value, device, (severity,)) for severity, value in counts.items()]


class TestPcie:
    """Errors that become more. Those since boot say nothing."""

    def test_at_rest(self) -> None:
        """A thousand since boot are no finding, in one look or in many."""
        items = _errors(fatal=3, nonfatal=5, correctable=1000)
        assert "pcie_errors" not in _look(*items)
        assert not any("pcie_errors" in one for one in _told(seconds(0, 100, SPARK, *items)))

    @pytest.mark.parametrize(
        ("more", "severity"),
        [
            ({"correctable": 8}, Severity.INFO),
            ({"nonfatal": 1}, Severity.WARNING),
            ({"fatal": 1}, Severity.CRITICAL),
            ({"fatal": 1, "correctable": 90}, Severity.CRITICAL),
        ],
    )
    def test_more(self, more: Mapping[str, float], severity: Severity) -> None:
        """As bad as the worst that rose."""
        looks = [*seconds(0, 5, SPARK, *_errors(correctable=7)), at(5, SPARK, *_errors(**{"correctable": 7, **more}))]
        finding = _told(looks)[-1]["pcie_errors"]
        assert severity is finding.severity
        assert len(more) == len(finding.evidence)

    def test_words(self) -> None:
        """Which device, how many in how long, and how long ago."""
        looks = [*seconds(0, 5, SPARK, *_errors()), *seconds(5, 26, SPARK, *_errors(nonfatal=2))]
        assert ("enp1s0f0np0: nonfatal errors: 2 more in 25 s, the last 20 s ago (2 since boot)",) == (
            _told(looks)[-1]["pcie_errors"].evidence
        )

    def test_it_is_told_for_ten_minutes(self) -> None:
        """They come in bursts."""
        looks = [at(0, SPARK, *_errors()), *(at(t, SPARK, *_errors(fatal=1)) for t in range(10, 640, 10))]
        words = _severities(looks, "pcie_errors")
        assert [""] + ["critical"] * 61 + [""] * (len(words) - 62) == words

    def test_a_device_that_came_back(self) -> None:
        """It counts from 0 again, which is no rise; nor is a device that is new."""
        looks = [
            *seconds(0, 5, SPARK, *_errors(fatal=5)),
            *seconds(5, 9, SPARK),
            *seconds(9, 15, SPARK, *_errors(fatal=2), *_errors("nvme0", fatal=9)),
        ]
        assert not any("pcie_errors" in one for one in _told(looks))

    def test_a_drive(self) -> None:
        """NVMe as well."""
        looks = [at(0, SPARK, *_errors("nvme0")), at(10, SPARK, *_errors("nvme0", nonfatal=4))]
        assert "nvme0: nonfatal" in _told(looks)[-1]["pcie_errors"].evidence[0]

    def test_a_gap_begins_anew(self) -> None:
        """What was in between is not known to have been now."""
        looks = [at(0, SPARK, *_errors()), at(100, SPARK, *_errors(fatal=9))]
        assert "pcie_errors" not in _told(looks)[-1]


# --- NVMe -------------------------------------------------------------------------------------------------------------


def _drive(celsius: float, most: float | None = 82.8, end: float | None = 84.8) -> list[Item]:
    sensor = ("Composite",)
    items: list[Item] = [SPARK, Reading(nvme.TEMPERATURE, celsius, "nvme0", sensor), Fact(nvme.STATE, "live", "nvme0")]
    items += [Reading(nvme.TEMPERATURE_MAX, most, "nvme0", sensor)] if most is not None else []
    items += [Reading(nvme.TEMPERATURE_CRITICAL, end, "nvme0", sensor)] if end is not None else []
    return items


class TestNvme:
    """By the drive's own thresholds; where it names none, there is none."""

    @pytest.mark.parametrize(
        ("celsius", "expected"),
        [(50, None), (82.7, None), (82.8, Severity.WARNING), (84.8, Severity.CRITICAL)],
    )
    def test_hot(self, celsius: float, expected: Severity | None) -> None:
        """At its warning threshold, and at its critical one."""
        finding = _look(*_drive(celsius)[1:]).get("nvme_hot")
        assert expected is (finding.severity if finding else None)

    def test_words(self) -> None:
        """Which drive, which sensor, how hot, and by which threshold."""
        finding = _look(*_drive(83.4)[1:])["nvme_hot"]
        assert ("nvme0 Composite: 83.4 °C, it warns at 82.8 °C",) == finding.evidence
        assert "84.8" in _look(*_drive(90)[1:])["nvme_hot"].evidence[0]

    def test_a_drive_without_thresholds(self) -> None:
        """100 °C may be what it stands."""
        assert "nvme_hot" not in _look(*_drive(100, None, None)[1:])

    def test_a_threshold_that_is_none(self) -> None:
        """65261 °C, as extra sensors have it, never came this far; the sensor says nothing then."""
        other = Reading(nvme.TEMPERATURE, 99.0, "nvme0", ("Sensor 2",))
        why = Absence(nvme.TEMPERATURE_MAX, Reason.IMPOSSIBLE, "65261 °C", "nvme0", ("Sensor 2",))
        assert "nvme_hot" not in _look(*_drive(40)[1:], other, why)

    def test_it_ends_three_kelvin_below(self) -> None:
        """And begins after half a minute."""
        looks = [at(t, *_drive(83 if t < 40 else 80)) for t in range(50)]
        looks += [at(t, *_drive(79.7)) for t in range(50, 55)]
        assert [""] * 30 + ["warning"] * 20 + [""] * 5 == _severities(looks, "nvme_hot")

    @pytest.mark.parametrize(("state", "severity"), [("dead", Severity.CRITICAL), ("resetting", Severity.WARNING)])
    def test_not_live(self, state: str, severity: Severity) -> None:
        """A controller that the kernel gave up."""
        finding = _look(Fact(nvme.STATE, state, "nvme0"))["nvme_not_live"]
        assert (severity, (f"nvme0 is {state}",)) == (finding.severity, finding.evidence)


# --- heat and fans ----------------------------------------------------------------------------------------------------


def _warm(celsius: float, end: float | None = 104.85) -> list[Item]:
    zone = "thermal_zone0"
    items: list[Item] = [Fact(thermal.PLACE, "SoC maximum", zone), Reading(thermal.TEMPERATURE, celsius, zone)]
    return items + ([Reading(thermal.CRITICAL, end, zone)] if end is not None else [])


class TestHeat:
    """Against the temperature at which it shuts down."""

    @pytest.mark.parametrize(
        ("celsius", "expected"),
        [(88, None), (92.8, None), (92.9, Severity.WARNING), (96, Severity.WARNING), (99.9, Severity.CRITICAL)],
    )
    def test_thresholds(self, celsius: float, expected: Severity | None) -> None:
        """12 and 5 kelvin before it; 82 to 88 °C are normal under load."""
        finding = _look(*_warm(celsius)).get("too_hot")
        assert expected is (finding.severity if finding else None)

    def test_words(self) -> None:
        """Where, how hot, and what would be the end."""
        assert ("SoC maximum: 96.0 °C, and 104.8 °C is the end",) == _look(*_warm(96, 104.8))["too_hot"].evidence

    def test_without_an_end_nothing_is_near_it(self) -> None:
        """As Wi-Fi's sensor."""
        assert "too_hot" not in _look(*_warm(110, None))

    def test_it_takes_half_a_minute_and_ends_three_kelvin_below(self) -> None:
        """A burst is no heat."""
        looks = [at(t, SPARK, *_warm(94 if t < 40 else 91)) for t in range(60)]
        looks += [at(t, SPARK, *_warm(89)) for t in range(60, 62)]
        assert [""] * 30 + ["warning"] * 30 + ["", ""] == _severities(looks, "too_hot")


def _idle(celsius: float, *, busy: float = 0.0, load: float = 0.1, power: float = 5) -> tuple[Item, ...]:
    return (
        SPARK,
        *_warm(celsius),
        *watts(gpu_nvml=power),
        Reading(gpu.UTILIZATION, busy, "0"),
        Reading(gpu.CLOCK, 208e6, "0", ("sm",)),
        Reading(cpu.LOAD1, load),
    )


class TestFans:
    """They may stand still, as long as it is cool."""

    @pytest.mark.parametrize(
        ("rpm", "celsius", "expected"),
        [
            ((0, 0), 40, None),
            ((0, 0), 51.9, None),
            ((0, 0), 52, Severity.INFO),
            ((0, 0), 70, Severity.WARNING),
            ((0, 2700), 80, None),
            ((2700, 4050), 80, None),
        ],
    )
    def test_as_their_driver_says(self, rpm: tuple[int, int], celsius: float, expected: Severity | None) -> None:
        """All of them, and warm."""
        items = [Reading(fan.SPEED, speed, f"dgx_ec_fan/fan{number}") for number, speed in enumerate(rpm)]
        finding = _look(*items, *_warm(celsius)).get("fans_still")
        assert expected is (finding.severity if finding else None)

    def test_inferred(self) -> None:
        """Nobody reports a speed: warm after ten idle minutes, it may be; that it is inferred is said."""
        *_, last = _told(at(t, *_idle(54)) for t in range(601))
        finding = last["fans_probably_still"]
        assert Severity.INFO is finding.severity
        assert "inferred: no driver reports their speed" in finding.title
        assert "54 to 54 °C in 10 min without load" == finding.evidence[0]

    @pytest.mark.parametrize(
        "items", [_idle(41), _idle(54, busy=0.5), _idle(54, load=12), _idle(54, power=40)], ids=str
    )
    def test_nothing_to_infer_from(self, items: tuple[Item, ...]) -> None:
        """Cool, or at work."""
        assert not any("fans_probably_still" in one for one in _told(at(t, *items) for t in range(620)))

    def test_one_that_cools_down(self) -> None:
        """After work it takes some minutes."""
        looks = (at(t, *_idle(max(38, 80 - t / 10))) for t in range(900))
        assert not any("fans_probably_still" in one for one in _told(looks))


# --- driver and power page --------------------------------------------------------------------------------------------


class TestDriver:
    """Where NVML itself says what is wrong."""

    @pytest.mark.parametrize(
        ("reason", "id_", "severity", "words"),
        [
            (Reason.DEVICE_LOST, "gpu_lost", Severity.CRITICAL, "shut down and start again"),
            (Reason.VERSION_MISMATCH, "driver_mismatch", Severity.WARNING, "reboot"),
        ],
    )
    def test_said_once(self, reason: Reason, id_: str, severity: Severity, words: str) -> None:
        """With what helps, and not once more as a failure to read."""
        known = _by_id(told(found(SPARK, without={"gpu": reason})))
        assert [id_] == list(known)
        assert (severity, ("gpu: why",)) == (known[id_].severity, known[id_].evidence[:1])
        assert words in known[id_].action


_TABLE = {"dc_input": 26, "system": 25, "soc": 17, "cpu_gpu": 6, "cpu_performance": 0.5, "cpu_efficiency": 0.1}


class TestTable:
    """The firmware's power page may come torn: several channels missing or impossible together."""

    @pytest.mark.parametrize("variant", ["0.1", "0.2", "0.3", "0.1.0"])
    @pytest.mark.parametrize("gone", [0, 1, 2, 3, 5])
    def test_missing(self, variant: str, gone: int) -> None:
        """Three and more of seven."""
        powers = dict(list({**_TABLE, "gpu_rail": 5}.items())[gone:])
        known = _look(Fact(spbm.VARIANT, variant), *watts(**powers), *HEALTHY)
        assert (gone >= 3) is ("power_table_torn" in known)

    def test_words(self) -> None:
        """Which channels, and why."""
        impossible = [
            Absence(spbm.SYSTEM, Reason.IMPOSSIBLE, "4294967 W is outside 0…265"),
            Absence(spbm.DC_INPUT, Reason.IMPOSSIBLE, "4294967 W is outside 0…265"),
        ]
        known = _look(Fact(spbm.VARIANT, "0.3"), *watts(soc=17, cpu_gpu=6, gpu_rail=5), *impossible, *HEALTHY)
        finding = known["power_table_torn"]
        assert "the firmware's power page is torn: 4 of 7 channels are missing or impossible" == finding.title
        assert "system: 4294967 W is outside 0…265" in finding.evidence
        assert "cpu_performance: the driver has no such channel" in finding.evidence

    @pytest.mark.parametrize("variant", ["research", "unknown"])
    def test_a_driver_that_never_shows_all(self, variant: str) -> None:
        """The research reader has five powers, and an unknown one what it has."""
        assert "power_table_torn" not in _look(Fact(spbm.VARIANT, variant), *watts(soc=17))

    def test_no_driver_is_no_torn_table(self) -> None:
        """Nor is one that does not answer."""
        for reason in (Reason.NO_DRIVER, Reason.TIMEOUT):
            assert "power_table_torn" not in _by_id(told(found(SPARK, without={"spbm": reason})))

    def test_a_moment_is_none(self) -> None:
        """A driver that is busy answers the next time."""
        torn: tuple[Item, ...] = (SPARK, Fact(spbm.VARIANT, "0.3"), *watts(soc=17))
        whole: tuple[Item, ...] = (SPARK, Fact(spbm.VARIANT, "0.3"), *watts(**_TABLE, gpu_rail=5))
        looks = [*seconds(0, 9, *torn), *seconds(9, 12, *whole), *seconds(12, 23, *torn)]
        assert [""] * 22 + ["warning"] == _severities(looks, "power_table_torn")


class TestUnseenLimit:
    """The package at its limit, of which NVML's reasons say nothing."""

    @pytest.mark.parametrize(("reasons", "expected"), [((), True), (("sw_power_cap",), False)])
    def test_no_reason(self, reasons: tuple[str, ...], expected: bool) -> None:
        """Information: the reasons are no evidence."""
        known = _look(*watts(system=170, soc=140, pl1=139.7), *HEALTHY, Fact(gpu.EVENTS, reasons, "0"))
        assert expected is ("limit_unseen_by_nvml" in known)
        if expected:
            assert Severity.INFO is known["limit_unseen_by_nvml"].severity

    def test_below_the_limit_there_is_nothing_to_see(self) -> None:
        """An idle machine."""
        assert "limit_unseen_by_nvml" not in _look(*watts(system=25, soc=17), *HEALTHY, Fact(gpu.EVENTS, (), "0"))


# --- known liars ------------------------------------------------------------------------------------------------------


def _signal(name: str, value: float) -> Reading:
    return Reading(SIGNAL, value, name, quality=Quality.UNTRUSTED, note="why")


LIARS: dict[str, list[Item]] = {
    "prochot": [_signal("spbm prochot", 1)],
    "pl_level": [_signal("spbm pl_level", 1)],
    "tj_max_c": [_signal("spbm tj_max_c", 4000)],
    "temperatures of spbm, in deci-Kelvin": [_signal("spbm temperature tj_max", 3700)],
    "acpi_fan that turns with 2 rpm": [_signal("acpi_fan fan1_input", 2), *_warm(88)],
    "acpi_fan's power": [_signal("acpi_fan power1_input", 5000)],
    "scaling_cur_freq above its maximum": [
        Reading(cpu.FREQUENCY, 7.2e9, "5", quality=Quality.UNTRUSTED, note="why"),
        Reading(cpu.MAX_FREQUENCY, 3.9e9, "5"),
    ],
    "no ConnectX-7, which sleeps": [Fact(nic.STATE, "asleep"), Reading(nic.FUNCTIONS, 0)],
    "no cable": [*_cage(0, "down", "down"), *_cage(1, "down", "down"), Fact(nic.STATE, "present")],
    "a power cap shown at idle": [Fact(gpu.EVENTS, ("sw_power_cap",), "0"), Fact(gpu.PSTATE, "P8", "0")],
    "never at 3003 MHz": [Reading(gpu.CLOCK, 2418e6, "0", ("sm",)), Reading(gpu.MAX_CLOCK, 3003e6, "0", ("sm",))],
    "no memory in NVML": [Absence(gpu.MEMORY_TOTAL, Reason.NOT_SUPPORTED, "a GB10 shares it", "0")],
    "errors since boot": _errors(nonfatal=2, correctable=40),
}


@pytest.mark.parametrize("items", LIARS.values(), ids=LIARS)
def test_known_liars_never_alarm(items: list[Item]) -> None:
    """Neither in one look nor in an hour's: at most information, and an exit code of 0."""
    once = report(at(0, SPARK, *items)).findings
    *_, last = watched(at(float(t), SPARK, *items) for t in range(0, 3600, 20))
    for known in (once, last.findings):
        assert {Severity.INFO} >= {finding.severity for finding in known}
        assert 0 == exit_code(known)


def test_a_pc_has_none_of_these() -> None:
    """What is known of a Spark says nothing of other machines, and nothing of theirs is compared with it."""
    warm: list[Any] = [*_warm(99), Reading(fan.SPEED, 0, "nct6775/fan1"), *_drive(40)[1:]]
    listed = _by_id(report(at(0, OTHER, Fact(memory.UNIFIED, False), *_memory(2, unified=False)[2:], *warm)).findings)
    assert ["not_a_spark"] == list(listed)


def test_several_at_once() -> None:
    """Each finding once, the worst first."""
    items = (*watts(system=28, soc=19.7), *WEDGED, *_memory(2)[1:], *_warm(96), *_cage(0, "up", "down"))
    listed = told(found(SPARK, *items))
    ids = [finding.id for finding in listed]
    assert sorted(set(ids)) == sorted(ids)
    assert {"capped_low", "memory_low"} == set(ids[:2])
