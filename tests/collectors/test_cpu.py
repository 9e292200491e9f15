"""Cores, clusters, caches and load."""

import math
from collections.abc import Mapping

import pytest
from hosts import absence, host, look, value
from hypothesis import example, given
from hypothesis import strategies as st

from spark_agent.collectors import Absence, Host, Item, NoData, Property, Quality, Quantity, Reading, Reason, cpu

CPUS = "/sys/devices/system/cpu"
EFFICIENCY = frozenset({*range(5), *range(10, 15)})
KIB, MIB = 1024, 1024**2

# hardware.md 1.1: five classes of core by highest frequency, in kHz.
MAX_KHZ = dict.fromkeys(range(5), 2808000) | dict.fromkeys(range(5, 10), 3900000)
MAX_KHZ |= dict.fromkeys(range(10, 15), 2860000) | dict.fromkeys(range(15, 19), 3978000) | {19: 4004000}


def arm_cpuinfo(parts: Mapping[int, str]) -> str:
    """Return ``/proc/cpuinfo`` as arm64 writes it."""
    return "".join(
        f"processor\t: {core}\n"
        "BogoMIPS\t: 2000.00\n"
        "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics\n"
        "CPU implementer\t: 0x41\n"
        "CPU architecture: 8\n"
        "CPU variant\t: 0x0\n"
        f"CPU part\t: {part}\n"
        "CPU revision\t: 1\n\n"
        for core, part in parts.items()
    )


def cache(core: int, index: int, level: int, kind: str, size: str, shared: str) -> dict[str, str]:
    """Return the files of one cache that this reads."""
    above = f"{CPUS}/cpu{core}/cache/index{index}"
    return {
        f"{above}/level": f"{level}\n",
        f"{above}/type": f"{kind}\n",
        f"{above}/size": f"{size}\n",
        f"{above}/shared_cpu_list": f"{shared}\n",
    }


def spark_files() -> dict[str, str]:
    """Return the processor of a Founders Edition: hardware.md 1.1 and 1.2."""
    files = {
        "/proc/cpuinfo": arm_cpuinfo({core: "0xd87" if core in EFFICIENCY else "0xd85" for core in range(20)}),
        "/proc/stat": "cpu  20000 0 0 0 0 0 0 0 0 0\n"
        + "".join(f"cpu{core} {1000 + core} 20 300 98000 500 40 5 0 900 10\n" for core in range(20))
        + "intr 121054 0 0\nctxt 12\nbtime 1760000000\n",
        "/proc/loadavg": "0.52 1.58 20.09 3/2081 4242\n",
        "/proc/sys/kernel/arch": "aarch64\n",
        "/sys/devices/soc0/soc_id": "jep106:0426:8901\n",
        "/sys/devices/system/node/online": "0\n",
        f"{CPUS}/present": "0-19\n",
    }
    for core in range(20):
        efficient = core in EFFICIENCY
        cpufreq = f"{CPUS}/cpufreq/policy{core}"
        files |= {
            f"{cpufreq}/cpuinfo_max_freq": f"{MAX_KHZ[core]}\n",
            f"{cpufreq}/cpuinfo_min_freq": f"{338000 if efficient else 1378000}\n",
            f"{cpufreq}/scaling_cur_freq": f"{MAX_KHZ[core]}\n",
            f"{cpufreq}/scaling_governor": "performance\n",
            f"{cpufreq}/scaling_driver": "cppc_cpufreq\n",
        }
        files |= cache(core, 0, 1, "Data", "64K", f"{core}")
        files |= cache(core, 1, 1, "Instruction", "64K", f"{core}")
        files |= cache(core, 2, 2, "Unified", "512K" if efficient else "2048K", f"{core}")
        files |= cache(core, 3, 3, "Unified", *(("8192K", "0-9") if core < 10 else ("16384K", "10-19")))
    return files


LINKS = {f"{CPUS}/cpu{core}/cpufreq": f"../cpufreq/policy{core}" for core in range(20)}


def spark(changes: Mapping[str, str | None] | None = None, errors: Mapping[str, str] | None = None) -> Host:
    """Return a Founders Edition with some files changed, removed (None) or faulty."""
    files = {path: text for path, text in (spark_files() | dict(changes or {})).items() if text is not None}
    return host(files, links=LINKS, errors=errors)


def reading(items: list[Item], of: Quantity, entity: str = "") -> Reading:
    """Return the one reading of a quantity."""
    (found,) = (item for item in items if isinstance(item, Reading) and item.of is of and item.entity == entity)
    return found


def opened(machine: Host, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the path of each file that one look opens."""
    paths: list[str] = []
    read = machine.tree.read

    def watched(path: str) -> bytes:
        paths.append(path)
        return read(path)

    monkeypatch.setattr(machine.tree, "read", watched)
    look(cpu.read, machine)
    return paths


@pytest.fixture(scope="module")
def founders_edition() -> list[Item]:
    """Return what is said of a Founders Edition."""
    return look(cpu.read, spark())


class TestSpark:
    """A Founders Edition in good order."""

    def test_kinds_interleave(self, founders_edition: list[Item]) -> None:
        """The part tells a core's kind: fast are 5-9 and 15-19, though one document says 0-9."""
        fast = [n for n in range(20) if value(founders_edition, cpu.CORE_TYPE, str(n)) == "performance"]
        slow = [n for n in range(20) if value(founders_edition, cpu.CORE_TYPE, str(n)) == "efficiency"]
        assert [*range(5, 10), *range(15, 20)] == fast
        assert [*range(5), *range(10, 15)] == slow

    def test_models(self, founders_edition: list[Item]) -> None:
        """Parts are shown by the name and the revision that Arm gave them."""
        assert "Cortex-A725" == value(founders_edition, cpu.MODEL, "0")
        assert "Cortex-X925" == value(founders_edition, cpu.MODEL, "19")
        assert "r0p1" == value(founders_edition, cpu.REVISION, "19")

    def test_nothing_is_missing(self, founders_edition: list[Item]) -> None:
        """A machine that says everything has no absence."""
        assert [] == [item for item in founders_edition if isinstance(item, Absence)]

    def test_clusters_are_the_l3_caches(self, founders_edition: list[Item]) -> None:
        """Each L3 cache is a cluster, numbered by its lowest core, and holds both kinds of core."""
        assert [0] * 10 + [1] * 10 == [value(founders_edition, cpu.CLUSTER, str(n)) for n in range(20)]
        assert ["0-9", "10-19"] == [value(founders_edition, cpu.CLUSTER_CPUS, c) for c in "01"]
        assert [8 * MIB, 16 * MIB] == [value(founders_edition, cpu.CLUSTER_L3, c) for c in "01"]
        for of, count in (
            (cpu.CLUSTER_CORES, 10),
            (cpu.CLUSTER_PERFORMANCE_CORES, 5),
            (cpu.CLUSTER_EFFICIENCY_CORES, 5),
        ):
            assert [count, count] == [value(founders_edition, of, c) for c in "01"]

    def test_frequencies_are_in_hertz(self, founders_edition: list[Item]) -> None:
        """Sysfs has kHz; cores of one design have different maxima."""
        assert [2.808e9, 3.9e9, 2.86e9, 3.978e9, 4.004e9] == [
            value(founders_edition, cpu.MAX_FREQUENCY, str(n)) for n in (0, 5, 10, 15, 19)
        ]
        assert [338e6, 1378e6] == [value(founders_edition, cpu.MIN_FREQUENCY, str(n)) for n in (0, 5)]

    def test_cpufreq(self, founders_edition: list[Item]) -> None:
        """Governor and driver are the core's policy's."""
        assert "performance" == value(founders_edition, cpu.GOVERNOR, "7")
        assert "cppc_cpufreq" == value(founders_edition, cpu.DRIVER, "7")

    def test_caches_are_counted_once(self, founders_edition: list[Item]) -> None:
        """By lscpu 25 MiB are L2 and 24 MiB L3: a shared cache counts once, not once a core."""
        totals = {name: value(founders_edition, cpu.CACHE, "", name) for name in ("l1d", "l1i", "l2", "l3")}
        assert {"l1d": 1280 * KIB, "l1i": 1280 * KIB, "l2": 25 * MIB, "l3": 24 * MIB} == totals
        assert [512 * KIB, 2 * MIB] == [value(founders_edition, cpu.L2, n) for n in ("4", "5")]
        assert [64 * KIB, 64 * KIB] == [value(founders_edition, of, "5") for of in (cpu.L1D, cpu.L1I)]

    def test_busy_time_leaves_guests_out(self, founders_edition: list[Item]) -> None:
        """User holds guest already; a tick is 10 ms."""
        assert (1003 + 20 + 300 + 40 + 5) / 100 == value(founders_edition, cpu.BUSY, "3")
        assert (98000 + 500) / 100 == value(founders_edition, cpu.IDLE, "3")

    def test_whole(self, founders_edition: list[Item]) -> None:
        """The machine as a whole."""
        expected: dict[Quantity | Property, object] = {
            cpu.CORES_PRESENT: 20,
            cpu.CORES_ONLINE: 20,
            cpu.PERFORMANCE_CORES: 10,
            cpu.EFFICIENCY_CORES: 10,
            cpu.NUMA_NODES: 1,
            cpu.ARCHITECTURE: "aarch64",
            cpu.SOC_ID: "jep106:0426:8901",
            cpu.LOAD1: 0.52,
            cpu.LOAD5: 1.58,
            cpu.LOAD15: 20.09,
        }
        assert expected == {of: value(founders_edition, of) for of in expected}

    def test_no_file_is_read_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One look is made each second, so each file is opened once, and a shared cache for one core only."""
        paths = opened(spark(), monkeypatch)
        assert sorted(set(paths)) == sorted(paths)
        shared = {path.partition("/cache/")[0] for path in paths if "/index3/" in path}
        assert {f"{CPUS}/cpu0", f"{CPUS}/cpu10"} == shared


class TestFrequency:
    """``scaling_cur_freq`` is what the driver says, and it lies."""

    def test_plausible(self) -> None:
        """At or below the maximum it is shown, as reported."""
        reported = reading(look(cpu.read, spark()), cpu.FREQUENCY, "5")
        assert (3.9e9, Quality.MEASURED) == (reported.value, reported.quality)
        assert "not counted" in reported.note

    def test_above_the_maximum(self) -> None:
        """7228 MHz was seen on a Dell: shown unclamped, and untrusted with the reason."""
        path = f"{CPUS}/cpufreq/policy5/scaling_cur_freq"
        reported = reading(look(cpu.read, spark({path: "7228000\n"})), cpu.FREQUENCY, "5")
        assert (7.228e9, Quality.UNTRUSTED) == (reported.value, reported.quality)
        assert "above cpuinfo_max_freq" in reported.note

    def test_without_a_maximum(self) -> None:
        """Where the maximum is not known, nothing contradicts the driver."""
        items = look(cpu.read, spark({f"{CPUS}/cpufreq/policy5/cpuinfo_max_freq": None}))
        assert Reason.NOT_FOUND is absence(items, cpu.MAX_FREQUENCY, "5").reason
        assert Quality.MEASURED is reading(items, cpu.FREQUENCY, "5").quality

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("0\n", Reason.IMPOSSIBLE),
            ("4294967295\n", Reason.IMPOSSIBLE),
            ("<unknown>\n", Reason.GARBAGE),
            ("", Reason.GARBAGE),
        ],
    )
    def test_no_frequency(self, text: str, reason: Reason) -> None:
        """What cannot be a frequency is none, and costs no other attribute."""
        items = look(cpu.read, spark({f"{CPUS}/cpufreq/policy5/scaling_cur_freq": text}))
        assert reason is absence(items, cpu.FREQUENCY, "5").reason
        assert 3.9e9 == value(items, cpu.MAX_FREQUENCY, "5")
        assert 3.9e9 == value(items, cpu.FREQUENCY, "6")

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            ("EACCES", Reason.PERMISSION_DENIED),
            ("EIO", Reason.IO_ERROR),
            ("ENODATA", Reason.NO_DATA),
            ("EBADMSG", Reason.IMPOSSIBLE),
            ("EBUSY", Reason.IO_ERROR),
        ],
    )
    def test_fault(self, error: str, reason: Reason) -> None:
        """A fault of one file is one absence."""
        items = look(cpu.read, spark(errors={f"{CPUS}/cpufreq/policy5/scaling_governor": error}))
        assert [reason] == [item.reason for item in items if isinstance(item, Absence)]
        assert reason is absence(items, cpu.GOVERNOR, "5").reason


class TestOffline:
    """A core that is present but not in ``/proc/cpuinfo``."""

    @pytest.fixture
    def items(self) -> list[Item]:
        """Return a Spark whose core 7 is offline."""
        parts = {core: "0xd87" if core in EFFICIENCY else "0xd85" for core in range(20) if core != 7}
        changes: dict[str, str | None] = {"/proc/cpuinfo": arm_cpuinfo(parts)}
        for core in range(10):
            changes[f"{CPUS}/cpu{core}/cache/index3/shared_cpu_list"] = "0-6,8-9\n"
        return look(cpu.read, spark(changes))

    def test_is_listed(self, items: list[Item]) -> None:
        """It stays in the inventory, and says that it is offline."""
        assert value(items, cpu.ONLINE, "7") is False
        assert value(items, cpu.ONLINE, "8") is True
        assert (20, 19) == (value(items, cpu.CORES_PRESENT), value(items, cpu.CORES_ONLINE))

    def test_has_no_numbers(self, items: list[Item]) -> None:
        """Files left over from before are not read: an offline core has a reason for everything else."""
        assert "unknown" == value(items, cpu.CORE_TYPE, "7")
        assert {(Reason.NO_DATA, "the core is offline")} == {
            (item.reason, item.detail) for item in items if isinstance(item, Absence)
        }
        assert Reason.NO_DATA is absence(items, cpu.BUSY, "7").reason
        declared = {of for of in vars(cpu).values() if getattr(of, "section", None) is cpu.CORES}
        assert declared == {item.of for item in items if item.entity == "7" and item.of.section is cpu.CORES}

    def test_is_not_counted(self, items: list[Item]) -> None:
        """Counts by kind are of the cores that run."""
        assert (9, 10) == (value(items, cpu.PERFORMANCE_CORES), value(items, cpu.EFFICIENCY_CORES))
        assert ("0-6,8-9", 9) == (value(items, cpu.CLUSTER_CPUS, "0"), value(items, cpu.CLUSTER_CORES, "0"))
        assert 0 == value(items, cpu.CLUSTER, "8")


class TestFaults:
    """One file is broken; the rest stands."""

    @pytest.mark.parametrize("broken", ["unreadable", "empty", "garbage"])
    def test_cpuinfo(self, broken: str) -> None:
        """Without ``/proc/cpuinfo`` nobody knows what the cores are, but they are there."""
        errors = {"/proc/cpuinfo": "EIO"} if broken == "unreadable" else {}
        text = {"unreadable": None, "empty": "", "garbage": "processor : x\n"}[broken]
        items = look(cpu.read, spark({"/proc/cpuinfo": text}, errors))
        reason = Reason.IO_ERROR if broken == "unreadable" else Reason.GARBAGE
        for of in (cpu.ONLINE, cpu.CORE_TYPE, cpu.MODEL, cpu.REVISION):
            assert reason is absence(items, of, "5").reason
        assert reason is absence(items, cpu.CORES_ONLINE).reason
        assert reason is absence(items, cpu.PERFORMANCE_CORES).reason
        assert 3.9e9 == value(items, cpu.MAX_FREQUENCY, "5")
        assert 25 * MIB == value(items, cpu.CACHE, "", "l2")

    def test_present(self) -> None:
        """Without the list of cores those of ``/proc/cpuinfo`` are all."""
        items = look(cpu.read, spark({f"{CPUS}/present": None}))
        assert Reason.NOT_FOUND is absence(items, cpu.CORES_PRESENT).reason
        assert 20 == value(items, cpu.CORES_ONLINE)
        assert "Cortex-X925" == value(items, cpu.MODEL, "19")

    def test_stat(self) -> None:
        """Without ``/proc/stat`` each core lacks its times."""
        items = look(cpu.read, spark(errors={"/proc/stat": "EACCES"}))
        assert {Reason.PERMISSION_DENIED} == {item.reason for item in items if isinstance(item, Absence)}
        assert 40 == sum(isinstance(item, Absence) for item in items)

    def test_core_without_times(self) -> None:
        """A core that went offline since has no line in ``/proc/stat``; 0 s would be a lie."""
        items = look(cpu.read, spark({"/proc/stat": "cpu0 1 2 3 4 5 6 7 8 9 10\n"}))
        assert 0.27 == value(items, cpu.BUSY, "0")
        assert Reason.NOT_FOUND is absence(items, cpu.BUSY, "1").reason

    def test_loadavg(self) -> None:
        """Garbage is three absences."""
        items = look(cpu.read, spark({"/proc/loadavg": "nan nan nan 1/1 1\n"}))
        assert [Reason.GARBAGE] * 3 == [absence(items, of).reason for of in (cpu.LOAD1, cpu.LOAD5, cpu.LOAD15)]

    def test_cache_of_unknown_size(self) -> None:
        """A size that is not known leaves no total, which would be too small, but the cluster is known."""
        items = look(cpu.read, spark({f"{CPUS}/cpu0/cache/index3/size": None}))
        assert Reason.NOT_FOUND is absence(items, cpu.CLUSTER_L3, "0").reason
        assert Reason.NOT_FOUND is absence(items, cpu.CACHE, "", "l3").reason
        assert 16 * MIB == value(items, cpu.CLUSTER_L3, "1")
        assert 0 == value(items, cpu.CLUSTER, "9")
        assert 25 * MIB == value(items, cpu.CACHE, "", "l2")

    def test_cache_that_cannot_be_read(self) -> None:
        """A cache whose level is not known could be any, so no total is given."""
        items = look(cpu.read, spark(errors={f"{CPUS}/cpu5/cache/index2/level": "EIO"}))
        assert Reason.IO_ERROR is absence(items, cpu.L2, "5").reason
        assert Reason.IO_ERROR is absence(items, cpu.CACHE, "", "l2").reason
        assert 64 * KIB == value(items, cpu.L1D, "5")
        assert 0 == value(items, cpu.CLUSTER, "5")

    def test_shared_cache_is_found_through_a_neighbour(self) -> None:
        """Where the first core's files are broken, the next that shares the cache speaks for it."""
        items = look(cpu.read, spark(errors={f"{CPUS}/cpu0/cache/index3/level": "EIO"}))
        assert 0 == value(items, cpu.CLUSTER, "0")
        assert 8 * MIB == value(items, cpu.CLUSTER_L3, "0")

    def test_caches_that_cannot_be_listed(self) -> None:
        """A directory that cannot be read is a fault, not a core without caches."""
        files = {path: text for path, text in spark_files().items() if "/cpu5/cache/" not in path}
        items = look(cpu.read, host(files, links=LINKS, errors={f"{CPUS}/cpu5/cache": "EACCES"}))
        assert Reason.PERMISSION_DENIED is absence(items, cpu.L2, "5").reason
        assert Reason.PERMISSION_DENIED is absence(items, cpu.CACHE, "", "l2").reason

    def test_nothing(self) -> None:
        """Where neither ``/proc`` nor ``/sys`` names a core, there is nothing to say."""
        with pytest.raises(NoData) as raised:
            look(cpu.read, host())
        assert Reason.NOT_FOUND is raised.value.reason

    def test_both_lists_broken(self) -> None:
        """… and a fault is not passed off as a machine without cores."""
        with pytest.raises(NoData) as raised:
            look(cpu.read, host(errors={"/proc/cpuinfo": "EIO"}))
        assert Reason.IO_ERROR is raised.value.reason


class TestOtherMachines:
    """What is not a Spark."""

    X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Processor\nstepping\t: 2\n\n"

    def virtual_machine(self, changes: Mapping[str, str] | None = None) -> Host:
        """Return an x86 VM with two cores, no cpufreq and no cache files."""
        text = self.X86 + self.X86.replace("processor\t: 0", "processor\t: 1")
        files = {"/proc/cpuinfo": text, f"{CPUS}/present": "0-1\n", f"{CPUS}/cpu0/online": "1"}
        return host(files | dict(changes or {}))

    def test_x86(self) -> None:
        """An x86 core has a model name, and neither a kind nor a revision."""
        items = look(cpu.read, self.virtual_machine())
        assert "Intel(R) Xeon(R) Processor" == value(items, cpu.MODEL, "1")
        assert "unknown" == value(items, cpu.CORE_TYPE, "1")
        assert Reason.NO_DATA is absence(items, cpu.REVISION, "1").reason
        assert Reason.NO_DATA is absence(items, cpu.PERFORMANCE_CORES).reason
        assert Reason.NOT_FOUND is absence(items, cpu.SOC_ID).reason

    def test_no_cpufreq(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without any cpufreq each attribute says so, and no file of it is tried."""
        items = look(cpu.read, self.virtual_machine())
        for of in (cpu.MAX_FREQUENCY, cpu.MIN_FREQUENCY, cpu.FREQUENCY, cpu.GOVERNOR, cpu.DRIVER):
            assert Reason.NO_DRIVER is absence(items, of, "0").reason
        assert [] == [path for path in opened(self.virtual_machine(), monkeypatch) if "cpufreq" in path]

    def test_no_caches(self) -> None:
        """Without cache files there are no clusters and no totals."""
        items = look(cpu.read, self.virtual_machine())
        assert Reason.NOT_FOUND is absence(items, cpu.CLUSTER, "0").reason
        assert Reason.NOT_FOUND is absence(items, cpu.L2, "0").reason
        assert Reason.NOT_FOUND is absence(items, cpu.CACHE, "", "l3").reason
        assert [] == [item for item in items if item.of.section is cpu.CLUSTERS]

    def test_hybrid_x86(self) -> None:
        """An x86 of two kinds lists the cores of each."""
        lists = {"/sys/devices/cpu_core/cpus": "0\n", "/sys/devices/cpu_atom/cpus": "1\n"}
        items = look(cpu.read, self.virtual_machine(lists))
        assert ["performance", "efficiency"] == [value(items, cpu.CORE_TYPE, core) for core in "01"]
        assert 1 == value(items, cpu.EFFICIENCY_CORES)

    def test_shared_private_caches(self) -> None:
        """Two threads of one core share its L1, which counts once."""
        machine = self.virtual_machine(cache(0, 0, 1, "Data", "48K", "0-1") | cache(1, 0, 1, "Data", "48K", "0-1"))
        items = look(cpu.read, machine)
        assert [48 * KIB] * 2 == [value(items, cpu.L1D, core) for core in "01"]
        assert 48 * KIB == value(items, cpu.CACHE, "", "l1d")

    @pytest.mark.parametrize(("part", "model"), [("0xd4f", "Neoverse-V2"), ("0xd99", "0x41/0xd99")])
    def test_other_arm(self, part: str, model: str) -> None:
        """Another Arm machine's cores have no kind, however fast they are; an unknown part shows its numbers."""
        files = {
            "/proc/cpuinfo": arm_cpuinfo({0: part}),
            f"{CPUS}/cpu0/cpufreq/cpuinfo_max_freq": "3600000\n",
        }
        items = look(cpu.read, host(files))
        assert model == value(items, cpu.MODEL, "0")
        assert "unknown" == value(items, cpu.CORE_TYPE, "0")

    def test_other_implementer(self) -> None:
        """Part numbers are the implementer's own: 0xd85 of another is no Cortex-X925."""
        text = arm_cpuinfo({0: "0xd85"}).replace("0x41", "0x61")
        items = look(cpu.read, host({"/proc/cpuinfo": text}))
        assert ("0x61/0xd85", "unknown") == (value(items, cpu.MODEL, "0"), value(items, cpu.CORE_TYPE, "0"))

    def test_gb10_without_parts(self) -> None:
        """On a GB10 whose ``/proc/cpuinfo`` names no part, the highest frequency tells the kinds apart."""
        text = "".join(f"processor\t: {core}\n\n" for core in range(20))
        items = look(cpu.read, spark({"/proc/cpuinfo": text, "/sys/class/dmi/id/product_family": "DGX Spark\n"}))
        slow = [core for core in range(20) if value(items, cpu.CORE_TYPE, str(core)) == "efficiency"]
        assert sorted(EFFICIENCY) == slow
        assert 10 == value(items, cpu.PERFORMANCE_CORES)
        assert Reason.NO_DATA is absence(items, cpu.MODEL, "0").reason

    def test_gb10_without_parts_or_clocks(self) -> None:
        """… and without the frequency they stay unknown."""
        text = "".join(f"processor\t: {core}\n\n" for core in range(2))
        items = look(cpu.read, host({"/proc/cpuinfo": text, "/sys/class/dmi/id/product_family": "DGX Spark\n"}))
        assert "unknown" == value(items, cpu.CORE_TYPE, "0")


class TestParse:
    """Text becomes numbers, or is refused."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("", ()), ("0", (0,)), ("0-3", (0, 1, 2, 3)), ("0-1,4,6-7", (0, 1, 4, 6, 7))],
    )
    def test_cpulist(self, text: str, expected: tuple[int, ...]) -> None:
        """The kernel's lists hold numbers and ranges."""
        assert expected == cpu.parse_cpulist(text)

    @pytest.mark.parametrize("text", ["3-1", "0-4294967295", "0,0", "-1", "0-", ",", "0-3,2", "0 1", "0-3:1/2"])
    def test_no_cpulist(self, text: str) -> None:
        """A list that the kernel would not write is garbage, and never a million cores."""
        with pytest.raises(ValueError, match="not a"):
            cpu.parse_cpulist(text)

    def test_doubled_core(self) -> None:
        """A core that is there twice makes ``/proc/cpuinfo`` untrustworthy."""
        with pytest.raises(ValueError, match="second time"):
            cpu.parse_cpuinfo(arm_cpuinfo({0: "0xd85"}) * 2)

    @pytest.mark.parametrize("text", ["cpu0 1 2 3\n", "cpu0 1 2 3 4 5 6 7 -8 0 0\n", "intr 0\n", ""])
    def test_no_stat(self, text: str) -> None:
        """Columns that are missing or negative are no times."""
        with pytest.raises(ValueError, match="no"):
            cpu.parse_stat(text)

    @pytest.mark.parametrize("text", ["0K", "512", "512M", "-1K", "K", ""])
    def test_no_size(self, text: str) -> None:
        """A cache of no bytes is none, and the kernel writes K only."""
        with pytest.raises(ValueError, match="not a size"):
            cpu.parse_cache_size(text)

    @given(st.text() | st.from_regex(r"(cpu[0-9]? [0-9 -]{0,40}\n?){0,3}"))
    @example("cpu0 1 2 3 4 5 6 7 8 9 10\n")
    def test_any_stat(self, text: str) -> None:
        """Whatever the text, times are finite and not negative, or there are none."""
        try:
            times = cpu.parse_stat(text)
        except ValueError:
            return
        assert times
        assert all(math.isfinite(t.busy + t.idle) and t.busy >= 0 and t.idle >= 0 for t in times.values())

    @given(st.text() | st.from_regex(r"([0-9]{1,3}\.[0-9]{2} ?){3} 1/1 1"))
    @example("0.00 0.01 0.05 1/84 4362")
    def test_any_loadavg(self, text: str) -> None:
        """Whatever the text, loads are finite and not negative, or there are none."""
        try:
            loads = cpu.parse_loadavg(text)
        except ValueError:
            return
        assert all(math.isfinite(load) and load >= 0 for load in loads)

    @given(st.text() | st.from_regex(r"[0-9,-]{0,12}", fullmatch=True))
    @example("0-19")
    def test_any_cpulist(self, text: str) -> None:
        """Whatever the text, a list ascends and stays within what a kernel can have."""
        try:
            cpus = cpu.parse_cpulist(text)
        except ValueError:
            return
        assert sorted(set(cpus)) == list(cpus)
        assert all(0 <= core < 8192 for core in cpus)

    @given(
        st.text() | st.from_regex(r"processor\s*: [0-9a-z-]{0,3}\n(CPU (part|implementer|variant)\t: [0-9a-fx]*\n)*")
    )
    @example(arm_cpuinfo({0: "0xd85"}))
    def test_any_cpuinfo(self, text: str) -> None:
        """Whatever the text, a core has a number a kernel can have and a kind, or there is none."""
        try:
            processors = cpu.parse_cpuinfo(text)
        except ValueError:
            return
        assert processors
        assert all(0 <= core < 8192 for core in processors)
        assert all(processor.core_type in cpu.CoreType for processor in processors.values())

    @given(st.text(), st.text())
    @example("1", "Data")
    def test_any_cache_name(self, level: str, kind: str) -> None:
        """Whatever the text, a cache has a name of the kernel's making or none."""
        try:
            name = cpu.parse_cache_name(level, kind)
        except ValueError:
            return
        assert name in {f"l{n}{kind}" for n in range(1, 10) for kind in ("d", "i", "")}

    @given(st.text() | st.from_regex(r"[0-9]+K?", fullmatch=True))
    @example("512K")
    def test_any_cache_size(self, text: str) -> None:
        """Whatever the text, a cache has some bytes or no size."""
        try:
            size = cpu.parse_cache_size(text)
        except ValueError:
            return
        assert size > 0
