"""The black box: what it keeps of a report, and that neither kill -9, a power cut nor a sick drive spoils the rest."""

import errno
import fcntl
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from demo import demo_report
from hypothesis import given
from hypothesis import strategies as st
from looks import HEALTHY, SPARK, found, watts
from rigs import open_below

from spark_agent.agent import blackbox
from spark_agent.agent.blackbox import (
    NAME,
    BlackBox,
    BlackBoxError,
    End,
    Ending,
    Gap,
    Record,
    Recording,
    kept,
    read,
    record_of,
    rings,
)
from spark_agent.agent.report import report
from spark_agent.collectors import Fact, Item, Quality, Reading, cpu, gpu, memory, nic, nvme

NAMESPACE = Path(__file__).parent.parent / ".namespace"
BOOT: Final = "0f3c2b6e-6a55-4a64-9a6e-2c8a6f0a7a11"
OTHER_BOOT: Final = "5d1f7c1e-8f0c-4a0e-8a39-7a0c64b1d9f2"
BEGUN: Final = 1_800_000_000.0
BLOCK: Final = 4096


def beat(number: int) -> Record:
    """Return the record of one beat, one second after the one before."""
    readings = {"system_power_watts": 100.0 + number % 50, "pl1_limit_watts": 140.0}
    return Record(BEGUN + number, 50.0 + number, readings, {"system": "within"}, "gpu_only")


def beats(*numbers: Iterable[int]) -> tuple[Record, ...]:
    """Return the records of some beats."""
    return tuple(beat(number) for each in numbers for number in each)


def opened(folder: Path, boot_id: str = BOOT, **lengths: float) -> BlackBox:
    """Open the black box of a folder."""
    return BlackBox.open(folder / NAME, boot_id, "spark-1", BEGUN, **lengths)


def record(folder: Path, numbers: Iterable[int], boot_id: str = BOOT, **lengths: float) -> BlackBox:
    """Record some beats, and end as kill -9 would: with nothing more written."""
    box = opened(folder, boot_id, **lengths)
    for number in numbers:
        box.append(beat(number))
    box._release()
    return box


def shown(folder: Path, boot_id: str = BOOT) -> Recording:
    """Read the present ring of a folder."""
    return read(folder / NAME, boot_id)


# What of a report is kept


def _record(*items: Item, ages: Mapping[str, float] | None = None) -> Record:
    return record_of(report(found(*items, ages=ages)))


def test_record_of_a_busy_spark() -> None:
    """Power by scope, limits in force, clocks, temperatures, memory, pressure, PCIe errors, verdicts, worst finding."""
    of_demo = record_of(demo_report("fe-gemm"))

    assert {"system": "within", "soc": "at_limit", "gpu": "within"} == of_demo.verdicts
    assert "at_limit_soc" == of_demo.finding
    expected = {
        "dc_input_power_watts": 175.0,
        "system_power_watts": 170.8,
        "soc_power_watts": 140.0,
        "cpu_gpu_power_watts": 116.0,
        "gpu_rail_power_watts": 91.7,
        "gpu_nvml_power_watts": 71.9,
        "pl1_limit_watts": 140.0,
        "pl2_limit_watts": 142.0,
        "syspl1_limit_watts": 231.0,
        "syspl2_limit_watts": 244.0,
        "gpu_sm_clock_hertz": 2_190_000_000,
        "gpu_utilization_ratio": 0.97,
        "gpu_temperature_celsius": 82,
        "nvme_temperature_celsius": 50.9,
        "thermal_temperature_celsius": 84.2,
        "cpu_performance_clock_hertz": 4_004_000_000,
        "cpu_efficiency_clock_hertz": 2_860_000_000,
        "memory_available_bytes": 78_336_372_736,
        "memory_pressure_some_ratio": 0.0,
        "nvme_pcie_errors_fatal_total": 0,
    }
    assert expected == {name: value for name, value in of_demo.readings.items() if name in expected}


def test_absent_is_absent() -> None:
    """What was not read has no key, and NVIDIA's figures, which nobody read, are not among the limits."""
    of_nothing = _record(SPARK)

    assert {} == of_nothing.readings
    assert {} == of_nothing.ages


def test_limits_are_those_in_force() -> None:
    """The firmware's limits are recorded by their names, beside the power that they bind."""
    of_watts = _record(*watts(system=60.1234), *HEALTHY, SPARK)

    assert {
        "system_power_watts": 60.123,
        "pl1_limit_watts": 140,
        "pl2_limit_watts": 142,
        "syspl1_limit_watts": 231,
        "syspl2_limit_watts": 244,
    } == of_watts.readings


def test_several_readings_are_one() -> None:
    """The hottest sensor and the fastest core of each type stand for the others; errors of all ports are added up."""
    of_several = _record(
        Reading(nvme.TEMPERATURE, 40.04, "nvme0", ("Composite",)),
        Reading(nvme.TEMPERATURE, 61.26, "nvme0", ("Sensor 2",)),
        Reading(nic.PCIE_ERRORS, 2, "a", ("correctable",)),
        Reading(nic.PCIE_ERRORS, 3, "b", ("correctable",)),
        Reading(nic.PCIE_ERRORS, 1, "b", ("fatal",)),
        Fact(cpu.CORE_TYPE, "efficiency", "0"),
        Fact(cpu.CORE_TYPE, "efficiency", "1"),
        Reading(cpu.FREQUENCY, 1e9, "0"),
        Reading(cpu.FREQUENCY, 2e9, "1"),
        Reading(cpu.FREQUENCY, 3e9, "2"),
        Reading(gpu.CLOCK, 2.19e9, "0", ("sm",)),
        Reading(gpu.CLOCK, 9e9, "0", ("video",)),
        Reading(memory.PRESSURE_FULL, 0.12346, labels=("avg10",)),
        Reading(memory.PRESSURE_FULL, 0.9, labels=("avg60",)),
    )

    assert {
        "nvme_temperature_celsius": 61.3,
        "nic_pcie_errors_correctable_total": 5,
        "nic_pcie_errors_fatal_total": 1,
        "cpu_efficiency_clock_hertz": 2_000_000_000,
        "cpu_unknown_clock_hertz": 3_000_000_000,
        "gpu_sm_clock_hertz": 2_190_000_000,
        "memory_pressure_full_ratio": 0.1235,
    } == of_several.readings


def test_what_misleads_is_left_out() -> None:
    """An untrusted reading is no evidence."""
    untrusted = Reading(cpu.FREQUENCY, 5e9, "0", quality=Quality.UNTRUSTED, note="above its maximum")

    assert {} == _record(untrusted).readings


def test_old_readings_say_how_old() -> None:
    """A collector that hung before the end shows in the record; one that answers at its own pace does not."""
    drive = Reading(nvme.TEMPERATURE, 40.0, "nvme0", ("Composite",))
    ages = {"spbm": 12.34, "memory": 0.5, "nvme": 9.9, "platform": 300.0}
    of_old = _record(*watts(system=60), Reading(memory.AVAILABLE, 1e9), drive, SPARK, ages=ages)

    assert {"spbm": 12.3} == of_old.ages
    assert {"nvme": 12.0} == _record(drive, ages={"nvme": 12.0}).ages


# What comes back


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    """Each record comes back as it was, in order, with what the ring is of."""
    box = opened(tmp_path)
    for number in range(25):
        box.append(beat(number))
    box.close()
    recording = shown(tmp_path)

    assert beats(range(25)) == recording.records
    assert Ending(End.CLEAN, BEGUN + 24) == recording.ending
    assert (BOOT, "spark-1", BEGUN) == (recording.identity.boot_id, recording.identity.machine, BEGUN)
    assert ((), 0) == (recording.gaps, recording.damaged)


def test_all_of_a_record_comes_back(tmp_path: Path) -> None:
    """A real report's record is read as it was written."""
    whole = replace(record_of(demo_report("fe-gemm")), ages={"gpu": 4.5})
    box = opened(tmp_path)
    box.append(whole)
    box.append(Record(BEGUN, 1.0, {}))
    box.close()

    assert (whole, Record(BEGUN, 1.0, {})) == shown(tmp_path).records


@pytest.mark.parametrize("flush", [1, 3, 10, 60])
def test_the_ring_keeps_the_last_minutes(tmp_path: Path, flush: float) -> None:
    """However long it runs, at least the last ten minutes are there, and the file does not grow."""
    box = opened(tmp_path, flush_seconds=flush)
    size = (tmp_path / NAME).stat().st_size
    for number in range(2000):
        box.append(beat(number))
    box.close()
    recording = shown(tmp_path)

    assert size == (tmp_path / NAME).stat().st_size
    first = 2000 - len(recording.records)
    assert first <= 2000 - 600
    assert beats(range(first, 2000)) == recording.records


def test_the_size_is_as_stated(tmp_path: Path) -> None:
    """By default 63 blocks of 4 KiB, all written when the ring begins, so that a drive that fills up is no matter."""
    opened(tmp_path).close()
    found = (tmp_path / NAME).stat()

    assert 63 * BLOCK == found.st_size
    assert 0 == found.st_mode & 0o137


class _Drive:
    """Counts what is written where, and syncs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes: list[tuple[int, bytes]] = []
        self.syncs = 0
        self._pwrite, self._fdatasync = os.pwrite, os.fdatasync
        monkeypatch.setattr(os, "pwrite", self.pwrite)
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)

    def pwrite(self, file: int, content: bytes, offset: int) -> int:
        self.writes.append((offset, content))
        return self._pwrite(file, content, offset)

    def fdatasync(self, file: int) -> None:
        self.syncs += 1
        self._fdatasync(file)


def test_one_write_in_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is one whole block, one write and one sync, and no block is written twice in one turn of the ring."""
    whole = record_of(demo_report("fe-gemm"))
    box = opened(tmp_path)
    drive = _Drive(monkeypatch)
    for number in range(600):
        noise = random.Random(number)  # noqa: S311  (no secret)
        readings = {name: round(value * noise.uniform(0.9, 1), 3) for name, value in whole.readings.items()}
        box.append(replace(whole, at=BEGUN + number, clock=float(number), readings=readings))
    box._release()

    assert [BLOCK] * 60 == [len(content) for _, content in drive.writes]
    assert [(2 + batch) * BLOCK for batch in range(60)] == [offset for offset, _ in drive.writes]
    assert 60 == drive.syncs


def test_missed_beats_do_not_hold_up_a_batch(tmp_path: Path) -> None:
    """A batch is written when its time is up, however few beats came."""
    record(tmp_path, [0, 5, 9, 10])

    assert beats([0, 5, 9]) == shown(tmp_path).records


def test_flush_now(tmp_path: Path) -> None:
    """A flush leaves nothing pending, and is no end."""
    box = opened(tmp_path)
    box.append(beat(0))
    box.flush()
    box.flush()
    recording = shown(tmp_path)
    box._release()

    assert beats([0]) == recording.records
    assert Ending(End.RUNNING, BEGUN) == recording.ending


def test_gaps_are_told(tmp_path: Path) -> None:
    """Seconds without a record are told by the monotonic clock; a wall clock that was set makes none."""
    box = opened(tmp_path)
    for number in (0, 1, 2, 8, 9):
        box.append(beat(number))
    box.append(replace(beat(10), at=BEGUN - 3600))
    box.close()
    recording = shown(tmp_path)

    assert (Gap(BEGUN + 2, 6.0),) == recording.gaps
    assert BEGUN - 3600 == recording.ending.at


def test_the_tail(tmp_path: Path) -> None:
    """The last seconds count from the last record, whatever the wall's clock says; gaps before them go."""
    record(tmp_path, [0, 1, 5, 6, 7, 20, 21], flush_seconds=1)
    tail = shown(tmp_path).tail(20)

    assert (beats([5, 6, 7, 20, 21]), (Gap(BEGUN + 7, 13.0),)) == (tail.records, tail.gaps)
    assert 7 == len(shown(tmp_path).tail(float("inf")).records)


def test_a_batch_that_does_not_fit_is_split(tmp_path: Path) -> None:
    """Records that no compression fits into one block take several, and none is lost."""
    noise = random.Random(1)  # noqa: S311  (no secret)
    large = [replace(beat(number), finding="".join(map(str, noise.choices("abcdefgh", k=200)))) for number in range(10)]
    crowded = [
        replace(each, readings={f"{noise.random():.17f}"[2:]: noise.random() for _ in range(60)}) for each in large
    ]
    box = opened(tmp_path)
    for each in crowded:
        box.append(each)
    recording = shown(tmp_path)
    box._release()

    assert tuple(crowded) == recording.records


def test_a_record_too_large_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and the others are recorded."""
    box = opened(tmp_path)
    box.append(beat(0))
    box.append(replace(beat(1), readings={f"reading_{number}": 0.5 for number in range(500)}))
    box.append(beat(2))
    box.close()

    assert beats([0, 2]) == shown(tmp_path).records
    assert 1 == len(caplog.messages)
    assert "bytes is left out; the largest has 4000" in caplog.text


@pytest.mark.parametrize(
    "lengths",
    [
        {"flush_seconds": 0.5},
        {"flush_seconds": 700},
        {"interval": 0},
        {"kept_seconds": float("inf")},
        {"kept_seconds": float("nan")},
        {"kept_seconds": 1e6, "flush_seconds": 1},
    ],
)
def test_lengths_that_make_no_ring(tmp_path: Path, lengths: dict[str, float]) -> None:
    """They are refused before anything is written."""
    with pytest.raises(ValueError, match=r"not beat ≤ flush ≤ length|a ring of"):
        opened(tmp_path, BOOT, **lengths)

    assert [] == list(tmp_path.iterdir())


# How the run before ended


def test_the_first_start_has_no_run_before_it(tmp_path: Path) -> None:
    """Where there was no ring nothing ended."""
    box = opened(tmp_path)
    box.close()

    assert box.ending is None


def test_a_clean_end(tmp_path: Path) -> None:
    """A run that was told to end is no incident, on this boot or after: its ring makes room for the next."""
    for boot_id in (BOOT, BOOT, OTHER_BOOT):
        box = opened(tmp_path, boot_id)
        box.append(beat(1))
        box.close()

    assert Ending(End.CLEAN, BEGUN + 1) == box.ending
    assert [NAME] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(("boot_id", "kind"), [(BOOT, End.AGENT), (OTHER_BOOT, End.MACHINE)])
def test_an_unclean_end_is_kept(tmp_path: Path, boot_id: str, kind: End) -> None:
    """On the same boot the agent was killed, on another the machine went down; the ring is kept under that name."""
    record(tmp_path, range(15))
    box = opened(tmp_path, boot_id)
    box.append(beat(100))
    box.close()

    assert Ending(kind, BEGUN + 9) == box.ending
    evidence = tmp_path / f"blackbox-20270115T080009Z-{kind}.bin"
    assert [tmp_path / NAME, evidence] == rings(tmp_path)
    # Told by its name from now on, whichever boot this is.
    for now in (BOOT, OTHER_BOOT, ""):
        assert (Ending(kind, BEGUN + 9), beats(range(10))) == (read(evidence, now).ending, read(evidence, now).records)
    assert beats([100]) == shown(tmp_path).records


def test_an_end_before_the_first_batch(tmp_path: Path) -> None:
    """It is unclean, and told as such; a ring without a record is no evidence, and not kept."""
    record(tmp_path, range(3))
    box = opened(tmp_path, OTHER_BOOT)
    box.close()

    assert Ending(End.MACHINE, None) == box.ending
    assert [tmp_path / NAME] == rings(tmp_path)


def test_not_told_to_end(tmp_path: Path) -> None:
    """A daemon that ends on a fault of its own writes what is pending, and does not call it clean."""
    box = opened(tmp_path)
    box.append(beat(0))
    box.close(clean=False)

    assert (Ending(End.AGENT, BEGUN), beats([0])) == (shown(tmp_path).ending, shown(tmp_path).records)


def test_as_many_are_kept_as_stated(tmp_path: Path) -> None:
    """Of those that the machine left the newest five stay."""
    for number in range(8):
        record(tmp_path, range(100 * number, 100 * number + 10), boot_id=str(number))
    opened(tmp_path, "now").close()

    assert [f"blackbox-20270115T08{minute}Z-machine.bin" for minute in ("0509", "0649", "0829", "1009", "1149")] == [
        path.name for path in kept(tmp_path)
    ]


def test_an_agent_that_is_killed_again_and_again(tmp_path: Path) -> None:
    """It does not drive out what was left of a machine that went down."""
    for number in range(3):
        record(tmp_path, range(100 * number, 100 * number + 10), boot_id=str(number))
    for number in range(3, 13):
        record(tmp_path, range(100 * number, 100 * number + 10))
    opened(tmp_path).close()

    assert ["machine"] * 3 + ["agent"] * 2 == [path.stem.rpartition("-")[2] for path in kept(tmp_path)]
    assert BEGUN + 1209 == read(kept(tmp_path)[-1], BOOT).ending.at


def test_two_ends_in_one_second(tmp_path: Path) -> None:
    """The second takes the next name: no evidence is written over."""
    for _ in range(3):
        record(tmp_path, range(10))

    assert 2 == len(kept(tmp_path))


def test_another_recorder_in_the_same_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A ring that is being written is neither taken away nor written into; when it ends, the second one begins."""
    first = opened(tmp_path)
    second = opened(tmp_path)
    expected = f"{tmp_path / NAME}: another agent records into it; stop that one, or name another folder"
    assert (expected, None) == (second.fault, second.ending)
    first.append(beat(0))
    first.close()
    second.append(beat(1))
    second.close()

    assert second.fault is None
    assert Ending(End.CLEAN, BEGUN) == second.ending
    assert beats([1]) == shown(tmp_path).records
    assert [f"the black box records nothing: {expected}", f"the black box records again: {tmp_path / NAME}"] == (
        caplog.messages
    )


# Killed, and cut off


# Records beats for ever, and says each on stdout that is on the drive.
_WRITER = f"""
import sys
from pathlib import Path
from spark_agent.agent.blackbox import BlackBox, Record
box = BlackBox.open(Path(sys.argv[1]), "{BOOT}", "spark-1", {BEGUN}, kept_seconds=50, flush_seconds=5)
number = 0
while True:
    readings = {{"system_power_watts": 100.0 + number % 50, "pl1_limit_watts": 140.0}}
    box.append(Record({BEGUN} + number, 50.0 + number, readings, {{"system": "within"}}, "gpu_only"))
    if not box._pending:
        sys.stdout.write(f"{{number}}\\n")
        sys.stdout.flush()
    number += 1
"""


@pytest.mark.parametrize("moment", range(8))
def test_kill_9(tmp_path: Path, moment: int) -> None:
    """A writer that is killed anywhere leaves whole records, up to the last batch that it knew to be on the drive."""
    environment = {"PYTHONPATH": str(NAMESPACE), "PATH": os.environ["PATH"]}
    command = (sys.executable, "-c", _WRITER, str(tmp_path / NAME))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        for _ in range(3 + 17 * moment):
            last = int(writer.stdout.readline())
        assert End.RUNNING is shown(tmp_path).ending.kind
        writer.send_signal(signal.SIGKILL)
        last = max(last, *map(int, writer.stdout.read().split()), 0)
    recording = shown(tmp_path)
    first, end = (round(record.at - BEGUN) for record in (recording.records[0], recording.records[-1]))

    assert last <= end <= last + 5
    assert beats(range(first, end + 1)) == recording.records
    assert first == 0 or len(recording.records) >= 50
    assert (End.AGENT, 0) == (recording.ending.kind, recording.damaged)


def _fat(number: int) -> Record:
    """Return a record that hardly compresses, so that a batch takes several sectors."""
    noise = random.Random(number)  # noqa: S311  (no secret)
    return replace(beat(number), readings={f"reading_{each}": noise.random() for each in range(30)})


@given(cut=st.integers(0, 14), sectors=st.sets(st.integers(0, 7)))
def test_a_power_cut(tmp_path_factory: pytest.TempPathFactory, cut: int, sectors: set[int]) -> None:
    """Whichever sectors of a batch the drive took, no batch is lost but that one and the one it was to replace."""
    folder, slots = tmp_path_factory.mktemp("cut"), 6
    box = opened(folder, kept_seconds=25, flush_seconds=5)
    for number in range(5 * cut):
        box.append(_fat(number))
    torn = bytearray((folder / NAME).read_bytes())
    for number in range(5 * cut, 5 * cut + 5):
        box.append(_fat(number))
    box._release()
    after = (folder / NAME).read_bytes()
    for sector in sectors:
        start = (2 + cut % slots) * BLOCK + 512 * sector
        torn[start : start + 512] = after[start : start + 512]
    (folder / NAME).write_bytes(torn)
    recording = shown(folder, OTHER_BOOT)

    before, within = max(0, cut - slots), max(0, cut - slots + 1)
    possible = ((before, cut), (within, cut), (within, cut + 1))
    assert recording.records in [tuple(map(_fat, range(5 * first, 5 * end))) for first, end in possible]
    assert End.MACHINE is recording.ending.kind


@cache
def _ring() -> bytes:
    """Return a ring that has been round twice, of a run that ended cleanly."""
    with tempfile.TemporaryDirectory() as folder:
        box = opened(Path(folder), kept_seconds=60, flush_seconds=5)
        for number in range(200):
            box.append(beat(number))
        box.close()
        return (Path(folder) / NAME).read_bytes()


def _read_bytes(folder: Path, content: bytes | bytearray) -> Recording:
    (folder / NAME).write_bytes(content)
    return shown(folder, OTHER_BOOT)


def _is_in_order(records: Iterable[Record]) -> bool:
    """Whether these are whole records of those that were written, in order, none twice."""
    numbers = [round(record.at - BEGUN) for record in records]
    return numbers == sorted(set(numbers)) and tuple(records) == beats(numbers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for rings that are spoilt one after the other."""
    return tmp_path_factory.mktemp("spoilt")


@given(length=st.integers(0, 15 * BLOCK))
def test_truncated_anywhere(folder: Path, length: int) -> None:
    """However much of a file is left, whole records are read from it, or that it is no black box."""
    try:
        recording = _read_bytes(folder, _ring()[:length])
    except BlackBoxError:
        assert length < BLOCK
        return

    assert _is_in_order(recording.records)


@given(offset=st.integers(0, 15 * BLOCK - 1), bit=st.integers(0, 7))
def test_any_flipped_bit(folder: Path, offset: int, bit: int) -> None:
    """A flipped bit costs at most the batch that it is in."""
    content = bytearray(_ring())
    content[offset] ^= 1 << bit
    recording = _read_bytes(folder, content)

    assert _is_in_order(recording.records)
    assert len(recording.records) >= 55
    assert recording.damaged <= 1


def test_each_bit_of_a_header(tmp_path: Path) -> None:
    """Not one bit of the newest batch's header may flip unseen: a power cut would pass for a clean end."""
    record(tmp_path, range(20))
    content = (tmp_path / NAME).read_bytes()
    for offset in range(3 * BLOCK, 3 * BLOCK + blackbox._BATCH_PAYLOAD):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[offset] ^= 1 << bit
            recording = _read_bytes(tmp_path, flipped)
            assert (beats(range(10)), 1) == (recording.records, recording.damaged)
            assert Ending(End.MACHINE, BEGUN + 9) == recording.ending


@given(block=st.integers(0, 14), garbage=st.one_of(st.just(b""), st.binary(max_size=BLOCK)))
def test_any_block_of_garbage(folder: Path, block: int, garbage: bytes) -> None:
    """A block of zeros or of anything costs at most the batch that was in it."""
    content = bytearray(_ring())
    content[block * BLOCK : (block + 1) * BLOCK] = garbage.ljust(BLOCK, b"\0")
    recording = _read_bytes(folder, content)

    assert _is_in_order(recording.records)
    assert len(recording.records) >= 55


@given(source=st.integers(0, 14), target=st.integers(0, 14))
def test_a_block_in_the_wrong_place(folder: Path, source: int, target: int) -> None:
    """A batch that a drive put where another belongs is not read twice."""
    content = bytearray(_ring())
    content[target * BLOCK : (target + 1) * BLOCK] = content[source * BLOCK : (source + 1) * BLOCK]
    recording = _read_bytes(folder, content)

    assert _is_in_order(recording.records)


@given(st.binary(max_size=3 * BLOCK))
def test_any_other_file(folder: Path, content: bytes) -> None:
    """What is no black box is said to be none."""
    with pytest.raises(BlackBoxError, match="not a black box"):
        _read_bytes(folder, content)


def test_both_superblocks_are_the_same() -> None:
    """Either is enough: a block that the drive lost does not cost the whole recording."""
    assert _ring()[:BLOCK] == _ring()[BLOCK : 2 * BLOCK]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 2}, "a black box of format 2, and this agent knows 1"),
        ({"slots": 10**9}, "a black box of an impossible shape"),
        ({"slots": 0}, "a black box of an impossible shape"),
        ({"slot_bytes": 100}, "a black box of an impossible shape"),
        ({"interval": 0}, "a black box of an impossible shape"),
        ({"slots": "many"}, "not a black box of this agent"),
        ({"machine": "\x1b[2J"}, "no text for a terminal"),
        ({"started": 1e300}, "no time: 1e+300"),
        ({"started": 10**400}, "not a black box of this agent"),
    ],
)
def test_a_superblock_that_checks_and_lies(folder: Path, change: Mapping[str, Any], why: str) -> None:
    """A file may be anybody's: nothing in it ends the reader, fills its memory or reaches a terminal raw."""
    start = len(blackbox._SUPERBLOCK_MAGIC) + 8
    text = json.loads(_ring()[start:BLOCK].rstrip(b"\0")) | change
    packed = json.dumps(text).encode()
    block = blackbox._SUPERBLOCK_MAGIC + blackbox._SUPERBLOCK_HEAD.pack(zlib.crc32(packed), len(packed)) + packed
    with pytest.raises(BlackBoxError) as refused:
        _read_bytes(folder, block.ljust(BLOCK, b"\0") * 2)

    assert str(refused.value).startswith(f"{folder / NAME}: {why}")


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"at": 1, "clock": NaN, "readings": {}}',
        b'{"at": 1e300, "clock": 1, "readings": {}}',
        b'{"at": 1, "clock": 1, "readings": {"watts": 1e999}}',
        b'{"at": 1, "clock": 1, "readings": {"watts": "5"}}',
        b'{"at": 1, "clock": 1, "readings": {"watts": true}}',
        b'{"at": 1, "clock": 1, "readings": {"watts": ' + b"9" * 400 + b"}}",
        b'{"at": 1, "clock": 1, "readings": {"\\u001b[2J": 1}}',
        b'{"at": 1, "clock": 1, "readings": {}, "verdicts": {"system": "\\u001b"}}',
        b'{"at": 1, "clock": 1, "readings": {}, "finding": 7}',
        b" " * (32 * 2**20) + b'{"at": 1, "clock": 1, "readings": {}}',
    ],
    ids=lambda line: line[:60].decode(),
)
def test_a_batch_that_checks_and_lies(tmp_path: Path, line: bytes) -> None:
    """Neither does a record: what is none costs its batch, and what unpacks to gigabytes is not unpacked."""
    box = opened(tmp_path, interval=0.1)
    box.append(beat(0))
    box.flush()
    box._put(zlib.compress(line), is_last=False)
    box._release()
    recording = shown(tmp_path)

    assert (beats([0]), 1) == (recording.records, recording.damaged)


# A drive that refuses


def _refusing(number: int) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device; free some space on its file system"),
        (errno.EROFS, "Read-only file system; its file system is mounted read-only"),
        (errno.EACCES, "Permission denied; run as the user that owns it"),
        (errno.EIO, "Input/output error; see the kernel's log for the drive"),
    ],
)
@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "fstat"])
def test_a_drive_that_refuses_for_a_while(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
    number: int,
    advice: str,
) -> None:
    """One line says so, it is tried again each minute, and what was recorded before and comes after is there."""
    box = opened(tmp_path)
    for beat_number in range(10):
        box.append(beat(beat_number))
    tried = []

    def refuse(*_: Any) -> Any:
        tried.append(call)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        for beat_number in range(10, 160):
            box.append(beat(beat_number))
        assert str(box.fault).startswith(f"{tmp_path / NAME}: {advice}")
    for beat_number in range(160, 220):
        box.append(beat(beat_number))
    box.close()

    assert 3 == len(tried)
    assert [logging.ERROR, logging.WARNING] == [record.levelno for record in caplog.records]
    assert box.fault is None
    # While it refused, the newest batch was kept for when it would not.
    assert beats(range(10), range(190, 220)) == shown(tmp_path).records


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_drive_that_refuses_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    """How the run before ended is found all the same, once, and recording begins when the drive lets it."""
    record(tmp_path, range(10))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, _refusing(errno.ENOSPC))
        box = opened(tmp_path, OTHER_BOOT)
        box.append(beat(0))
        box.flush()
        assert "No space left on device" in str(box.fault)
    for number in range(1, 100):
        box.append(beat(number))
    box.close()

    assert Ending(End.MACHINE, BEGUN + 9) == box.ending
    assert 1 == len(kept(tmp_path))
    assert beats(range(51, 100)) == shown(tmp_path).records
    assert 2 == len(caplog.records)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The daemon goes on, and what is wrong is told; an end without a place to say so is none of its troubles."""
    box = opened(tmp_path / "missing")
    for number in range(100):
        box.append(beat(number))
    box.close()

    assert f"{tmp_path / 'missing' / NAME}: No such file or directory; create the folder above it, or name another" == (
        box.fault
    )


def test_a_black_box_that_somebody_removes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It begins anew with the next batch, and says so."""
    box = opened(tmp_path)
    for number in range(30):
        if number == 15:
            (tmp_path / NAME).unlink()
        box.append(beat(number))
    box.close()

    assert beats(range(10, 30)) == shown(tmp_path).records
    assert [f"{tmp_path / NAME}: somebody has removed the black box; it begins anew"] == caplog.messages


def test_what_is_no_black_box_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that cannot be read for one does not end the daemon, and is not written over."""
    (tmp_path / NAME).write_text("a diary")
    box = opened(tmp_path)
    box.close()

    assert box.ending is None
    assert "a diary" == (tmp_path / f"{NAME}.damaged").read_text()
    assert [f"{tmp_path / NAME} is damaged (not a black box); it is set aside as {NAME}.damaged"] == caplog.messages


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file"), "no black box; `spark-agent serve` records one"),
        (PermissionError(errno.EACCES, "no"), "permission denied; it is the daemon's: sudo spark-agent blackbox"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, why: str) -> None:
    """The message names it, and says what to do."""

    def refuse(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BlackBoxError) as refused:
        shown(tmp_path)

    assert f"{tmp_path / NAME}: {why}" == str(refused.value)


# Beside others


def test_readers_do_not_disturb(tmp_path: Path) -> None:
    """One who reads while the ring begins does not stop the recording."""
    opened(tmp_path).close()
    flock = fcntl.flock
    with pytest.MonkeyPatch.context() as patch:

        def busy(file: int, how: int) -> None:
            if how & fcntl.LOCK_EX:
                raise BlockingIOError(errno.EWOULDBLOCK, "busy")
            flock(file, how)

        patch.setattr(fcntl, "flock", busy)
        box = opened(tmp_path)
    box.append(beat(0))
    box.close()

    assert box.fault is None
    assert beats([0]) == shown(tmp_path).records


def test_a_batch_that_is_being_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who reads in the middle of a write looks once more."""
    box = opened(tmp_path, flush_seconds=1)
    box.append(beat(0))
    looks = []
    batches = blackbox._batches

    def torn_once(content: bytes, identity: blackbox.Identity) -> Any:
        looks.append(1)
        return ([], 1) if len(looks) == 1 else batches(content, identity)

    monkeypatch.setattr(blackbox, "_batches", torn_once)
    recording = shown(tmp_path)
    box.close()

    assert (2, beats([0]), 0) == (len(looks), recording.records, recording.damaged)


def test_no_growth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand beats leave no more in memory than the first thousand, and no file open but the ring."""
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    box = opened(tmp_path, kept_seconds=100)
    seen = []
    for end in (1_000, 100_000):
        for number in range(end):
            box.append(beat(number))
        seen.append((sys.getallocatedblocks(), open_below(tmp_path)))
    box.close()

    (blocks, descriptors), (blocks_after, descriptors_after) = seen
    assert blocks_after - blocks < 1_000
    assert (1, 1) == (descriptors, descriptors_after)
