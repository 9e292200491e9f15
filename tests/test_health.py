"""Findings: what a person should know, worst first, in words that need no manual."""

import pytest
from looks import HEALTHY, OTHER, SPARK, WEDGED, found, limits, lost, told, watts

from spark_agent.agent.health import WORST_FIRST, Finding, Severity, exit_code
from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import Absence, Fact, Item, Reading, Reason, gpu, memory, platform, spbm
from spark_agent.collectors._power import PUBLISHED

_IDLE = watts(dc_input=26, system=25, soc=17, gpu_rail=5, gpu_nvml=5, pl1=18, syspl1=26)
_ENODATA = lost("pl1", Reason.NO_DATA, "ENODATA power11_cap_max", PUBLISHED)


def _findings(snapshot: Snapshot) -> dict[str, Finding]:
    """Return findings by id, but for those on the specification; fail where an id comes twice."""
    listed = [finding for finding in told(snapshot) if not finding.id.startswith("specification_")]
    by_id = {finding.id: finding for finding in listed}
    assert len(by_id) == len(listed)
    return by_id


def _look(*items: Item) -> dict[str, Finding]:
    return _findings(found(SPARK, *items))


class TestExitCode:
    """As monitoring plugins have them."""

    @pytest.mark.parametrize(
        ("expected", "severities"),
        [
            (0, []),
            (0, [Severity.OK]),
            (0, [Severity.INFO, Severity.OK]),
            (1, [Severity.WARNING, Severity.INFO]),
            (2, [Severity.CRITICAL, Severity.WARNING, Severity.UNKNOWN]),
            (3, [Severity.UNKNOWN, Severity.INFO]),
        ],
    )
    def test_of_the_worst(self, expected: int, severities: list[Severity]) -> None:
        """The first finding is the worst one."""
        assert expected == exit_code(tuple(Finding("x", severity, "x") for severity in severities))

    @pytest.mark.parametrize(
        ("expected", "items"),
        [
            (0, (*_IDLE, *HEALTHY)),
            (0, watts(gpu_nvml=46)),
            (0, (*watts(system=170.8, soc=140, pl1=139.7), *HEALTHY)),
            (1, (*watts(system=230, soc=100), *HEALTHY)),
            (1, (*watts(system=25, soc=17), lost("pl1", Reason.PERMISSION_DENIED))),
            (1, (*watts(soc=17), *limits(pl1=25))),
            (2, (*watts(system=28, soc=19.7), *WEDGED)),
            (2, (*watts(system=25, soc=17), _ENODATA)),
            (2, (*watts(system=245, soc=130), *HEALTHY)),
            (3, (*watts(soc=17), Absence(spbm.SYSTEM, Reason.IO_ERROR))),
        ],
    )
    def test_of_a_look(self, expected: int, items: tuple[Item, ...]) -> None:
        """A healthy machine is 0, also at its limit; a wedged one is 2."""
        assert expected == exit_code(told(found(SPARK, *items)))

    def test_worst_first(self) -> None:
        """What is certainly bad comes before what may be, and that before what is only worth knowing."""
        cma = Fact(memory.CMA_LOST, True), Reading(memory.CMA_LOST_BYTES, 9.7 * 2**30)
        listed = told(found(SPARK, *watts(system=28, soc=19.7), *WEDGED, *cma, without={"nvme": Reason.TIMEOUT}))
        order = [WORST_FIRST.index(finding.severity) for finding in listed]
        assert sorted(order) == order
        assert ["capped_low", "cma_lost", "collector_failed_nvme"] == [finding.id for finding in listed[:3]]


class TestGpuOnly:
    """The common case: NVML alone."""

    def test_on_a_spark(self) -> None:
        """It is said that this is not the box, what is missing in it, and what would measure the box."""
        finding = _look(*watts(gpu_nvml=46))["gpu_only"]
        assert Severity.INFO is finding.severity
        assert "the only power reading here is the GPU's; it is not the power of this machine" == finding.title
        assert "NVML, which nvidia-smi shows, gives 46.0 W for the GPU" == finding.evidence[0]
        assert "ConnectX-7" in finding.evidence[1]
        assert "wall meter" in finding.action
        assert "dgx_spbm_power" in finding.action

    def test_elsewhere(self) -> None:
        """A server has no firmware page of a Spark, and needs no driver for it."""
        finding = _findings(found(OTHER, *watts(gpu_nvml=120)))["gpu_only"]
        assert "a wall meter measures the machine" == finding.action
        assert "ConnectX-7" not in str(finding)

    def test_not_where_more_is_measured(self) -> None:
        """A system that is measured needs no such words."""
        assert "gpu_only" not in _look(*_IDLE, *HEALTHY)


class TestMismatch:
    """NVML beside the firmware's rail."""

    def test_words(self) -> None:
        """How much, on which side, who measured it, and that nobody knows why; nothing is corrected."""
        finding = _look(*watts(gpu_nvml=71.9, gpu_rail=91.7), *HEALTHY)["gpu_mismatch"]
        assert Severity.INFO is finding.severity
        assert "NVML gives 71.9 W for the GPU, 22 % below the firmware's rail of 91.7 W" == finding.title
        assert (
            "measured by one owner: NVML 18–44 % below the rail under load, and equal at idle; the cause is not known",
        ) == finding.evidence
        assert "neither corrects the other" in finding.action

    def test_above(self) -> None:
        """The other side is said as plainly."""
        assert "25 % above" in _look(*watts(gpu_nvml=75, gpu_rail=60))["gpu_mismatch"].title

    @pytest.mark.parametrize(
        ("nvml", "rail", "expected"),
        [
            (71.9, 103.4, True),
            (89.8, 109, True),
            (48.3, 70, True),
            (46.1, 67, True),
            (85, 100, False),
            (84.9, 100, True),
            (7.9, 8, False),
            (4.6, 4.8, False),
            (3, 5, False),
            (2.9, 5, True),
            (0, 5, False),
        ],
    )
    def test_threshold(self, nvml: float, rail: float, expected: bool) -> None:
        """More than 15 %, and more than 2 W: at idle a watt is a fifth."""
        assert expected == ("gpu_mismatch" in _look(*watts(gpu_nvml=nvml, gpu_rail=rail)))


class TestVerdicts:
    """What a verdict means, and what to do about it."""

    def test_wedged(self) -> None:
        """One finding for one fault, whichever scopes show it: what it is, by which files, and the cure."""
        known = _look(*watts(system=28, soc=19.7, gpu_rail=8, gpu_nvml=7.9), *WEDGED)
        assert ["capped_low"] == list(known)
        finding = known["capped_low"]
        assert Severity.CRITICAL is finding.severity
        assert "the firmware holds this machine at a fraction of its power" == finding.title
        assert "system: SysPL1 (system, sustained) is 30 W (spbm syspl1_cap)" in finding.evidence
        assert "conclusive: nothing harmless looks the same" == finding.evidence[-1]
        assert "SoC: PL1 (SoC, sustained) is 20 W (spbm pl1_cap)" in finding.evidence
        assert not [line for line in finding.evidence if line.startswith("GPU")]
        assert "take the power adapter and every USB-C device off for 1 to 10 minutes" in finding.action
        assert "a reboot alone does not help" in finding.action

    def test_capped_by_somebody(self) -> None:
        """A cap of 25 W may be meant: a warning, other words, and another way out."""
        finding = _look(*watts(soc=19.7, gpu_nvml=7.9), *limits(pl1=25))["capped_low"]
        assert Severity.WARNING is finding.severity
        assert "a power limit holds this machine at a fraction of its power" == finding.title
        assert "SoC: held at 25 W; this is not the firmware's fallback of 20 W, so somebody may have set it" in (
            finding.evidence
        )
        assert "adapter" not in finding.action
        assert not any("conclusive" in line for line in finding.evidence)
        assert "if nobody meant it" in finding.action

    def test_unpublished(self) -> None:
        """ENODATA is certain, and has the same cure."""
        finding = _look(*watts(soc=17), *limits(pl1=140), _ENODATA)["limits_unpublished"]
        assert Severity.CRITICAL is finding.severity
        assert "take the power adapter" in finding.action

    def test_unreadable(self) -> None:
        """A permission is none of the machine's faults."""
        finding = _look(*watts(soc=17), lost("pl1", Reason.PERMISSION_DENIED, "EACCES power11_cap"))[
            "limits_unpublished"
        ]
        assert Severity.WARNING is finding.severity
        assert "SoC: PL1 (SoC, sustained) cannot be read: EACCES power11_cap" in finding.evidence
        assert "adapter" not in finding.action

    def test_over_budget(self) -> None:
        """The adapter's rating, exceeded."""
        finding = _look(*watts(dc_input=245, system=240, soc=130))["over_budget"]
        assert Severity.CRITICAL is finding.severity
        assert "system: above its limit: adapter, 245.0 of 240 W" == finding.evidence[0]

    def test_at_limit(self) -> None:
        """A SoC at PL1 is compute-bound and healthy; a system at its limit is worth a look."""
        soc = _look(*watts(system=170.8, soc=140, pl1=139.7), *HEALTHY)["at_limit_soc"]
        assert (Severity.INFO, "SoC: at its power limit; compute-bound, no fault") == (soc.severity, soc.title)
        assert "at its limit: PL1 (SoC, sustained), 139.7 of 140 W" == soc.evidence[0]
        system = _look(*watts(system=230, soc=100), *HEALTHY)["at_limit_system"]
        assert Severity.WARNING is system.severity
        assert "ConnectX-7" in system.action

    @pytest.mark.parametrize(
        ("id_", "severity", "items"),
        [
            ("near_limit_soc", Severity.INFO, watts(soc=130)),
            ("near_limit_system", Severity.WARNING, watts(system=210)),
        ],
    )
    def test_near_limit(self, id_: str, severity: Severity, items: tuple[Item, ...]) -> None:
        """A system near its limit leaves nothing for what is plugged in next."""
        assert severity is _look(*items, *HEALTHY)[id_].severity

    def test_impossible(self) -> None:
        """What cannot be is said, and both channels are named."""
        finding = _look(*watts(system=60, dc_input=50, soc=17))["impossible"]
        assert Severity.WARNING is finding.severity
        assert any("spbm system reads 60.0 W, more than spbm dc_input" in line for line in finding.evidence)

    def test_impossible_gpu(self) -> None:
        """What concerns the GPU alone is said of the GPU."""
        finding = _look(*watts(gpu_nvml=0, soc=17), Fact(gpu.PSTATE, "P0", "0"))["impossible"]
        assert (
            "GPU: what was read cannot be true, so there is no number",
            "GPU: gpu gpu_nvml reads 0 W, but is on",
        ) == (finding.evidence)

    def test_stale(self) -> None:
        """Old readings are no verdict."""
        finding = _findings(found(SPARK, *_IDLE, ages={"spbm": 40}))["stale"]
        assert Severity.UNKNOWN is finding.severity
        assert "system: the last reading is 40 s old" == finding.evidence[0]

    def test_error(self) -> None:
        """One channel that fails."""
        finding = _look(*watts(soc=17), Absence(spbm.SYSTEM, Reason.IO_ERROR, "EIO power1_input"))["error"]
        assert Severity.UNKNOWN is finding.severity
        assert ("system: it could not be read: io error", "system: EIO power1_input") == finding.evidence

    def test_healthy(self) -> None:
        """A healthy machine has nothing to tell."""
        assert {} == _look(*_IDLE, *HEALTHY)

    def test_untrusted_signals_raise_nothing(self) -> None:
        """An unmeasured box is normal, and so is one where prochot is 1."""
        assert {} == _findings(found(SPARK, without={"spbm": Reason.NO_DRIVER}))


class TestMachine:
    """What it is, and what of it could not be read."""

    def test_not_a_spark(self) -> None:
        """Information, no fault; and nothing is compared with a Spark."""
        listed = told(found(OTHER))
        assert ["not_a_spark"] == [finding.id for finding in listed]
        assert Severity.INFO is listed[0].severity
        assert "no limits of a GB10 are assumed" in listed[0].action

    @pytest.mark.parametrize("reason", [Reason.TIMEOUT, Reason.ERROR])
    def test_not_known_what(self, reason: Reason) -> None:
        """Where that could not be read, it is not said to be something else."""
        assert ["collector_failed_platform"] == list(_findings(found(without={"platform": reason})))

    def test_failed_collector(self) -> None:
        """What failed, why, and that the rest stands."""
        finding = _findings(found(SPARK, without={"nvme": Reason.TIMEOUT}))["collector_failed_nvme"]
        assert (Severity.UNKNOWN, "nvme could not be read: timeout") == (finding.severity, finding.title)
        assert ("nvme: why",) == finding.evidence
        assert "the rest stands" in finding.action

    @pytest.mark.parametrize(
        ("reason", "id_"), [(Reason.VERSION_MISMATCH, "driver_mismatch"), (Reason.DEVICE_LOST, "gpu_lost")]
    )
    def test_failed_gpu(self, reason: Reason, id_: str) -> None:
        """Said once, by what is known to be wrong with it."""
        assert [id_] == list(_findings(found(SPARK, *_IDLE[:-3], *HEALTHY, without={"gpu": reason})))

    def test_failed_power_page(self) -> None:
        """Not once more for each scope."""
        known = _findings(found(SPARK, *watts(gpu_nvml=46), without={"spbm": Reason.TIMEOUT}))
        assert ["collector_failed_spbm", "gpu_only"] == list(known)

    @pytest.mark.parametrize("reason", [Reason.NO_LIBRARY, Reason.DRIVER_NOT_LOADED, Reason.NO_DEVICE])
    def test_spark_without_its_gpu(self, reason: Reason) -> None:
        """Every Spark has one, so that it is not seen is worth a word; a PC need not have one."""
        finding = _findings(found(SPARK, without={"gpu": reason}))["gpu_missing"]
        assert (Severity.UNKNOWN, ("gpu: why",)) == (finding.severity, finding.evidence)
        assert "gpu_missing" not in _findings(found(OTHER, without={"gpu": reason}))

    def test_absent_collector(self) -> None:
        """What a machine does not have is no finding."""
        assert {} == _findings(found(SPARK, without={"nvme": Reason.NO_DEVICE, "fan": Reason.NOT_SUPPORTED}))

    def test_lost_memory(self) -> None:
        """Kernel 7 takes gigabytes: how many, by what sign, and the way back."""
        finding = _look(Fact(memory.CMA_LOST, True), Reading(memory.CMA_LOST_BYTES, 9.7 * 2**30))["cma_lost"]
        assert Severity.WARNING is finding.severity
        assert "9.7 GiB" in finding.title
        assert "kho=off" in finding.action
        assert "cma_lost" not in _look(Fact(memory.CMA_LOST, False))

    def test_specification(self) -> None:
        """Each part of it is information."""
        listed = told(found(SPARK, Fact(platform.DGX_OS, "7.6.0"), Fact(gpu.NAME, "NVIDIA GB10", "0")))
        parts = [finding for finding in listed if finding.id.startswith("specification_")]
        assert {Severity.INFO} == {finding.severity for finding in parts}
        assert ("System: as specified", ("specified: DGX OS 7 on Ubuntu 24.04", "found: DGX OS 7.6.0")) in [
            (finding.title, finding.evidence) for finding in parts
        ]
