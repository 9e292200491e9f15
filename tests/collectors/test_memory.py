"""Memory, its pressure, and whether the machine is a GB10."""

import math
from collections.abc import Mapping

import pytest
from hosts import absence, host, look, value
from hypothesis import example, given
from hypothesis import strategies as st

from spark_agent.collectors import Absence, Host, Item, NoData, Property, Quality, Quantity, Reading, Reason, memory
from spark_agent.collectors._gb10 import evidence, is_gb10

KIB, MIB, GIB = 1024, 1024**2, 1024**3
FAMILY = "/sys/class/dmi/id/product_family"

# hardware.md 7: total and swap as a Founders Edition of August 2026 has them.
AMOUNTS = {
    "MemTotal": "127600748 kB",
    "MemFree": "98765432 kB",
    "MemAvailable": "118000000 kB",
    "Buffers": "123456 kB",
    "Cached": "16777216 kB",
    "SwapTotal": "16777212 kB",
    "SwapFree": "16777000 kB",
    "Dirty": "812 kB",
    "AnonHugePages": "2048 kB",
    "CmaTotal": "32768 kB",
    "CmaFree": "30208 kB",
    "HugePages_Total": "0",
    "HugePages_Free": "0",
    "HugePages_Rsvd": "0",
    "Hugepagesize": "2048 kB",
}
PRESSURE = """\
some avg10=1.50 avg60=0.25 avg300=0.00 total=123456789
full avg10=0.50 avg60=0.12 avg300=0.00 total=23456789
"""


def meminfo(changes: Mapping[str, str | None] | None = None) -> str:
    """Return ``/proc/meminfo`` as the kernel writes it, with some amounts changed or left out (None)."""
    amounts = AMOUNTS | dict(changes or {})
    return "".join(f"{name + ':':<16}{amount:>12}\n" for name, amount in amounts.items() if amount is not None)


def spark(
    changes: Mapping[str, str | None] | None = None,
    *,
    files: Mapping[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
) -> Host:
    """Return a Founders Edition with some amounts changed, some files replaced and some faulty."""
    machine = {
        "/proc/meminfo": meminfo(changes),
        "/proc/pressure/memory": PRESSURE,
        "/proc/vmstat": "nr_free_pages 24691358\npgfault 4711\noom_kill 2\nunevictable_pgs_culled 0\n",
        "/proc/sys/vm/swappiness": "60\n",
        FAMILY: "DGX Spark\n",
    }
    return host(machine | dict(files or {}), errors=errors)


def reading(items: list[Item], of: Quantity) -> Reading:
    """Return the one reading of a quantity."""
    (found,) = (item for item in items if isinstance(item, Reading) and item.of is of)
    return found


class TestSpark:
    """A Founders Edition in good order."""

    def test_amounts(self) -> None:
        """The kB of ``/proc/meminfo`` are KiB; huge pages are counted, not weighed."""
        items = look(memory.read, spark())
        expected: dict[Quantity | Property, object] = {
            memory.TOTAL: 127600748 * KIB,
            memory.FREE: 98765432 * KIB,
            memory.AVAILABLE: 118000000 * KIB,
            memory.BUFFERS: 123456 * KIB,
            memory.CACHED: 16777216 * KIB,
            memory.DIRTY: 812 * KIB,
            memory.ANON_HUGEPAGES: 2 * MIB,
            memory.SWAP_TOTAL: 16777212 * KIB,
            memory.SWAP_FREE: 16777000 * KIB,
            memory.SWAPPINESS: 60,
            memory.HUGEPAGES_TOTAL: 0,
            memory.HUGEPAGES_FREE: 0,
            memory.HUGEPAGE: 2 * MIB,
            memory.CMA_TOTAL: 32 * MIB,
            memory.CMA_FREE: 30208 * KIB,
            memory.OOM_KILLS: 2,
            memory.UNIFIED: True,
        }
        assert expected == {of: value(items, of) for of in expected}
        assert [] == [item for item in items if isinstance(item, Absence)]

    def test_used(self) -> None:
        """Used is what is not available: caches that can be dropped do not count."""
        used = reading(look(memory.read, spark()), memory.USED)
        assert ((127600748 - 118000000) * KIB, Quality.DERIVED) == (used.value, used.quality)

    def test_pressure(self) -> None:
        """PSI has percent and microseconds; ratios and seconds are shown."""
        items = look(memory.read, spark())
        assert [0.015, 0.0025, 0.0] == [
            value(items, memory.PRESSURE_SOME, "", window) for window in ("avg10", "avg60", "avg300")
        ]
        assert [0.005, 0.0012, 0.0] == [
            value(items, memory.PRESSURE_FULL, "", window) for window in ("avg10", "avg60", "avg300")
        ]
        assert 123.456789 == value(items, memory.PRESSURE_SOME_SECONDS)
        assert 23.456789 == value(items, memory.PRESSURE_FULL_SECONDS)

    @pytest.mark.parametrize("kib", [125489508, 125513944, 127535084, 117754060])
    def test_any_total(self, kib: int) -> None:
        """Firmware and kernel keep more or less for themselves, so any total is right."""
        assert kib * KIB == value(look(memory.read, spark({"MemTotal": f"{kib} kB"})), memory.TOTAL)

    def test_each_file_is_read_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One look is made each second."""
        machine = spark()
        paths: list[str] = []
        read = machine.tree.read

        def watched(path: str) -> bytes:
            paths.append(path)
            return read(path)

        monkeypatch.setattr(machine.tree, "read", watched)
        look(memory.read, machine)
        assert sorted(set(paths)) == sorted(paths)


class TestAllocatable:
    """What CUDA can still have, by NVIDIA's rule."""

    def test_available_and_swap(self) -> None:
        """Without huge pages: what is available, and free swap."""
        allocatable = reading(look(memory.read, spark()), memory.ALLOCATABLE)
        assert ((118000000 + 16777000) * KIB, Quality.DERIVED) == (allocatable.value, allocatable.quality)

    def test_huge_pages(self) -> None:
        """With huge pages set aside, only the free ones count, and no swap."""
        items = look(memory.read, spark({"HugePages_Total": "1024", "HugePages_Free": "512"}))
        assert 1 * GIB == value(items, memory.ALLOCATABLE)

    def test_no_free_huge_page(self) -> None:
        """A true nothing is a number."""
        items = look(memory.read, spark({"HugePages_Total": "1024", "HugePages_Free": "0"}))
        assert 0 == value(items, memory.ALLOCATABLE)

    def test_kernel_without_huge_pages(self) -> None:
        """A kernel that cannot set huge pages aside has set none aside."""
        changes = dict.fromkeys(("HugePages_Total", "HugePages_Free", "Hugepagesize"))
        items = look(memory.read, spark(changes))
        assert (118000000 + 16777000) * KIB == value(items, memory.ALLOCATABLE)
        assert Reason.NOT_FOUND is absence(items, memory.HUGEPAGES_TOTAL).reason

    @pytest.mark.parametrize("name", ["MemAvailable", "SwapFree"])
    def test_half_is_missing(self, name: str) -> None:
        """Half of a sum is not shown as the sum."""
        assert Reason.NOT_FOUND is absence(look(memory.read, spark({name: None})), memory.ALLOCATABLE).reason

    def test_unreadable_huge_pages(self) -> None:
        """Where it is not known which branch of the rule holds, neither is taken."""
        items = look(memory.read, spark({"HugePages_Total": "many"}))
        assert Reason.GARBAGE is absence(items, memory.ALLOCATABLE).reason
        assert 127600748 * KIB == value(items, memory.TOTAL)


class TestLostCma:
    """Kernel 7.0.0-1018 and -1019 lose 9 GiB to the contiguous allocator."""

    @pytest.mark.parametrize("total", [0, 32 * 1024])
    def test_lost(self, total: int) -> None:
        """More is free than was ever reserved."""
        items = look(memory.read, spark({"CmaTotal": f"{total} kB", "CmaFree": "10171187 kB"}))
        assert value(items, memory.CMA_LOST) is True
        lost = reading(items, memory.CMA_LOST_BYTES)
        assert ((10171187 - total) * KIB, Quality.DERIVED) == (lost.value, lost.quality)

    @pytest.mark.parametrize(("total", "free"), [(0, 0), (32 * 1024, 30 * 1024), (32 * 1024, 40 * 1024)])
    def test_sound(self, total: int, free: int) -> None:
        """A sound kernel, its counters a little behind, has lost nothing and shows no number for it."""
        items = look(memory.read, spark({"CmaTotal": f"{total} kB", "CmaFree": f"{free} kB"}))
        assert value(items, memory.CMA_LOST) is False
        assert 0 == value(items, memory.CMA_LOST_BYTES)

    def test_kernel_without_cma(self) -> None:
        """A kernel without the allocator cannot say."""
        items = look(memory.read, spark({"CmaTotal": None, "CmaFree": None}))
        assert Reason.NOT_FOUND is absence(items, memory.CMA_LOST).reason
        assert Reason.NOT_FOUND is absence(items, memory.CMA_FREE).reason


class TestFaults:
    """One file is broken; the rest stands."""

    def test_no_meminfo(self) -> None:
        """A machine without ``/proc/meminfo`` has nothing to say of memory."""
        with pytest.raises(NoData) as raised:
            look(memory.read, host())
        assert Reason.NOT_FOUND is raised.value.reason

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            ("EACCES", Reason.PERMISSION_DENIED),
            ("EIO", Reason.IO_ERROR),
            ("ENODATA", Reason.NO_DATA),
            ("EBADMSG", Reason.IMPOSSIBLE),
        ],
    )
    def test_unreadable_meminfo(self, error: str, reason: Reason) -> None:
        """Each amount says why it is missing, and the pressure is there."""
        items = look(memory.read, spark(errors={"/proc/meminfo": error}))
        for of in (memory.TOTAL, memory.AVAILABLE, memory.USED, memory.ALLOCATABLE, memory.CMA_LOST):
            assert reason is absence(items, of).reason
        assert 0.015 == value(items, memory.PRESSURE_SOME, "", "avg10")
        assert value(items, memory.UNIFIED) is True

    @pytest.mark.parametrize("text", ["", "\n", "not what it was\n"])
    def test_garbage_meminfo(self, text: str) -> None:
        """An empty file is no machine without memory."""
        items = look(memory.read, spark(files={"/proc/meminfo": text}))
        assert Reason.GARBAGE is absence(items, memory.TOTAL).reason

    @pytest.mark.parametrize(
        ("amount", "reason"),
        [
            ("-1 kB", Reason.GARBAGE),
            ("1 MB", Reason.GARBAGE),
            ("", Reason.GARBAGE),
            ("nan kB", Reason.GARBAGE),
            ("0 kB", Reason.IMPOSSIBLE),
            ("18446744073709551 kB", Reason.IMPOSSIBLE),
        ],
    )
    def test_one_bad_amount(self, amount: str, reason: Reason) -> None:
        """One bad line is one absence, and with it what follows from it."""
        items = look(memory.read, spark({"MemTotal": amount}))
        assert reason is absence(items, memory.TOTAL).reason
        assert 118000000 * KIB == value(items, memory.AVAILABLE)

    def test_more_available_than_there_is(self) -> None:
        """Used memory below zero is impossible, not 0."""
        items = look(memory.read, spark({"MemTotal": "1000 kB"}))
        assert Reason.IMPOSSIBLE is absence(items, memory.USED).reason

    @pytest.mark.parametrize(
        ("error", "reason"),
        [("ENOENT", Reason.NOT_FOUND), ("EOPNOTSUPP", Reason.NOT_SUPPORTED), ("EIO", Reason.IO_ERROR)],
    )
    def test_no_pressure(self, error: str, reason: Reason) -> None:
        """A kernel without PSI, or booted with psi=0, has no pressure: not one of 0."""
        items = look(memory.read, spark(errors={"/proc/pressure/memory": error}))
        for of in (memory.PRESSURE_SOME, memory.PRESSURE_FULL):
            for window in ("avg10", "avg60", "avg300"):
                assert reason is absence(items, of, "", window).reason
        assert reason is absence(items, memory.PRESSURE_SOME_SECONDS).reason
        assert reason is absence(items, memory.PRESSURE_FULL_SECONDS).reason
        assert 2 == value(items, memory.OOM_KILLS)

    def test_impossible_pressure(self) -> None:
        """More than all of the time is impossible."""
        items = look(memory.read, spark(files={"/proc/pressure/memory": PRESSURE.replace("1.50", "101.00")}))
        assert Reason.IMPOSSIBLE is absence(items, memory.PRESSURE_SOME, "", "avg10").reason
        assert 0.0025 == value(items, memory.PRESSURE_SOME, "", "avg60")

    def test_no_vmstat(self) -> None:
        """Without the counter nobody knows of kills; 0 would be a lie."""
        assert (
            Reason.GARBAGE
            is absence(look(memory.read, spark(files={"/proc/vmstat": "pgfault 1\n"})), memory.OOM_KILLS).reason
        )
        assert (
            Reason.PERMISSION_DENIED
            is absence(look(memory.read, spark(errors={"/proc/vmstat": "EACCES"})), memory.OOM_KILLS).reason
        )

    def test_impossible_swappiness(self) -> None:
        """The kernel takes 0 to 200."""
        items = look(memory.read, spark(files={"/proc/sys/vm/swappiness": "201\n"}))
        assert Reason.IMPOSSIBLE is absence(items, memory.SWAPPINESS).reason


PCI = "/sys/bus/pci/devices/000f:01:00.0"
GPU = {f"{PCI}/vendor": "0x10de\n", f"{PCI}/device": "0x2e12\n"}
ACPI = {"/sys/bus/acpi/devices/NVDA8800:00/hid": "NVDA8800\n"}
PLATFORM = {"/sys/bus/platform/devices/NVDA8800:00/modalias": "acpi:NVDA8800:\n"}


class TestGb10:
    """What says that a machine is a GB10."""

    @pytest.mark.parametrize(
        ("files", "expected"),
        [
            ({FAMILY: "DGX Spark\n"}, ("dmi product_family",)),
            (ACPI, ("acpi NVDA8800",)),
            (PLATFORM, ("acpi NVDA8800",)),
            (ACPI | PLATFORM, ("acpi NVDA8800",)),
            (GPU, ("pci 10de:2e12",)),
            ({FAMILY: "DGX Spark\n"} | ACPI | GPU, ("dmi product_family", "acpi NVDA8800", "pci 10de:2e12")),
        ],
    )
    def test_each_piece_is_enough(self, files: dict[str, str], expected: tuple[str, ...]) -> None:
        """Plain Ubuntu has no DGX files and a dead driver no NVML, so each piece of hardware speaks for itself."""
        assert expected == evidence(host(files))
        assert is_gb10(host(files))

    @pytest.mark.parametrize(
        "files",
        [
            {},
            {FAMILY: "DGX Station\n"},
            {f"{PCI}/vendor": "0x10de\n", f"{PCI}/device": "0x2e03\n"},
            {f"{PCI}/vendor": "0x15b3\n", f"{PCI}/device": "0x2e12\n"},
            {"/sys/bus/acpi/devices/NVDA8801:00/hid": "NVDA8801\n"},
        ],
    )
    def test_others(self, files: dict[str, str]) -> None:
        """RTX Spark (10de:2e03) and other NVIDIA machines are no GB10."""
        assert () == evidence(host(files))
        assert not is_gb10(host(files))
        assert value(look(memory.read, host({"/proc/meminfo": meminfo()} | files)), memory.UNIFIED) is False

    @pytest.mark.parametrize("path", [FAMILY, "/sys/bus/acpi/devices", "/sys/bus/pci/devices/0000:00:00.0/vendor"])
    def test_unreadable(self, path: str) -> None:
        """What cannot be read says nothing, and hides nothing else."""
        assert ("pci 10de:2e12",) == evidence(host(GPU, errors={path: "EIO"}))
        assert () == evidence(host(errors={path: "EACCES"}))

    def test_asks_no_further(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a Spark the first file settles it, each second."""
        machine = host({FAMILY: "DGX Spark\n"} | GPU)
        monkeypatch.setattr(machine.tree, "list", None)
        assert is_gb10(machine)


class TestParse:
    """Text becomes numbers, or is refused."""

    @pytest.mark.parametrize(
        "text",
        [
            "",
            PRESSURE.splitlines()[0],
            PRESSURE.replace("avg60", "avg61"),
            PRESSURE.replace("0.50", "nan"),
            PRESSURE.replace("0.50", "-0.50"),
            PRESSURE + "none avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        ],
    )
    def test_no_pressure(self, text: str) -> None:
        """Both lines must be there, and nothing else."""
        with pytest.raises(ValueError, match="not"):
            memory.parse_pressure(text)

    @given(st.text() | st.from_regex(r"((some|full) avg10=[0-9.]+ avg60=0.00 avg300=0.00 total=[0-9]+\n){1,2}"))
    @example(PRESSURE)
    def test_any_pressure(self, text: str) -> None:
        """Whatever the text, pressures are finite and not negative, or there are none."""
        try:
            pressures = memory.parse_pressure(text)
        except ValueError:
            return
        assert {"some", "full"} == pressures.keys()
        numbers = [n for pressure in pressures.values() for n in (*pressure.ratios.values(), pressure.seconds)]
        assert all(math.isfinite(number) and number >= 0 for number in numbers)

    @given(st.text() | st.from_regex(r"[0-9]{1,25}( kB)?", fullmatch=True))
    @example("127600748 kB")
    @example("٣ kB")
    def test_any_amount(self, text: str) -> None:
        """Whatever the text, an amount is finite and not negative, or there is none."""
        try:
            amount = memory.parse_amount(text)
        except ValueError:
            return
        assert text.isascii()
        assert 0 <= amount < 1e22

    @given(st.text() | st.from_regex(r"(\w+: +[0-9]+( kB)?\n){0,3}"))
    @example(meminfo())
    def test_any_meminfo(self, text: str) -> None:
        """Whatever the text, there are amounts or a refusal."""
        try:
            fields = memory.parse_meminfo(text)
        except ValueError:
            return
        assert fields

    @given(st.text() | st.from_regex(r"oom_kill [0-9-]{0,25}\n"))
    @example("oom_kill 2\n")
    def test_any_vmstat(self, text: str) -> None:
        """Whatever the text, kills are finite and not negative, or there is no number."""
        try:
            kills = memory.parse_oom_kills(text)
        except ValueError:
            return
        assert 0 <= kills < 1e20
