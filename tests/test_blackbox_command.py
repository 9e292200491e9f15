"""The command ``blackbox``: which recording it shows, how that reads, and what it exits with."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from commands import Run, runner
from demo import demo_report
from rich.cells import cell_len
from rich.console import Console

from spark_agent.agent import cli
from spark_agent.agent.blackbox import NAME, BlackBox, End, Record, kept, read, record_of
from spark_agent.agent.budget import Standing
from spark_agent.collectors.boot import BOOT_ID
from spark_agent.exporters.blackbox import show, show_list

BEGUN: Final = 1_767_225_600.0
THIS_BOOT: Final = Path(BOOT_ID).read_text().strip()
OTHER_BOOT: Final = "5d1f7c1e-8f0c-4a0e-8a39-7a0c64b1d9f2"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command as on a terminal of 80 columns."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return runner(monkeypatch, capsys, "blackbox", columns=80)


def beat(number: int, **readings: float) -> Record:
    """Return the record of one beat, one second after the one before."""
    return Record(BEGUN + number, 50.0 + number, readings or {"system_power_watts": 100.0 + number}, {"soc": "within"})


def record(folder: Path, records: Iterable[Record], boot_id: str = THIS_BOOT, *, clean: bool = False) -> Path:
    """Leave a recording as a run that ended one way or the other."""
    box = BlackBox.open(folder / NAME, boot_id, "spark-1", BEGUN, flush_seconds=1)
    for each in records:
        box.append(each)
    box.close(clean=clean)
    return folder / NAME


def screen(tell: Callable[[Console], None]) -> list[str]:
    """Return the lines that something prints on 80 columns, without colour."""
    console = Console(file=io.StringIO(), width=80, highlight=False, markup=False, emoji=False)
    tell(console)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


# On screen


def test_a_machine_that_went_down(tmp_path: Path) -> None:
    """It says first how the recording ended and when, of which boot, then the last seconds with all that was read."""
    of_demo = replace(record_of(demo_report("fe-gemm")), ages={"nvme": 12.0})
    records = [replace(of_demo, at=BEGUN + number, clock=float(number)) for number in (0, 1, 6)]
    records[-1] = replace(records[-1], readings={**of_demo.readings, "nvme_pcie_errors_fatal_total": 3})
    path = record(tmp_path, records, OTHER_BOOT)
    recording = read(path, THIS_BOOT)

    assert [
        "the machine went down without a clean end",
        "last record 2026-01-01 00:00:06 UTC, 3 h ago",
        f"boot id {OTHER_BOOT}, machine spark-1, agent {recording.identity.agent}",
        str(path),
        "           sys   SoC rail    caps   SM  CPU GPU SSD zone avail PSI",
        "UTC          W     W    W       W  MHz  MHz  °C  °C   °C   GiB   % verdict",
        "00:00:00 170.8 140.0 91.7 140/231 2190 4004  82  51   84  73.0   0 at limit",
        "00:00:01 170.8 140.0 91.7 140/231 2190 4004  82  51   84  73.0   0 at limit",
        "                                                                   5 s gap",
        "00:00:06 170.8 140.0 91.7 140/231 2190 4004  82  51   84  73.0   0 at limit",
        "worst finding at the end: at_limit_soc",
        "PCIe errors since boot: nvme fatal 3",
        "readings that were old at the end: nvme 12 s",
    ] == screen(lambda console: show(recording, console, BEGUN + 3 * 3600 + 6))


@pytest.mark.parametrize("standing", list(Standing))
def test_it_fits_80_columns(tmp_path: Path, standing: Standing) -> None:
    """The widest numbers and any verdict stand whole in one line."""
    widest = {
        "system_power_watts": 244.4,
        "soc_power_watts": 142.4,
        "gpu_nvml_power_watts": 100.0,
        "pl1_limit_watts": 140,
        "syspl2_limit_watts": 244,
        "gpu_sm_clock_hertz": 3.003e9,
        "cpu_performance_clock_hertz": 4.004e9,
        "gpu_temperature_celsius": 105,
        "nvme_temperature_celsius": 105,
        "thermal_temperature_celsius": 105,
        "memory_available_bytes": 127.9 * 2**30,
        "memory_pressure_some_ratio": 1,
    }
    path = record(tmp_path, [Record(BEGUN, 1.0, widest, {"soc": standing.value})])
    *_, last = screen(lambda console: show(read(path, ""), console, BEGUN))

    told = {Standing.LIMITS_UNPUBLISHED: "no limits"}.get(standing, standing.replace("_", " "))
    assert f"00:00:00 244.4 142.4 100.0 140/244 3003 4004 105 105  105 127.9 100 {told}" == last
    assert cell_len(last) <= 80


def test_absent_is_empty(tmp_path: Path) -> None:
    """What was not read leaves its column empty, in the other columns' place."""
    path = record(tmp_path, [beat(0, gpu_nvml_power_watts=11.5), beat(1, syspl1_limit_watts=231.0)])
    lines = screen(lambda console: show(read(path, ""), console, BEGUN))

    assert ["00:00:00", "11.5", "within"] == lines[-2].split()
    assert ["00:00:01", "?/231", "within"] == lines[-1].split()
    assert "NVML" in lines[4]


def test_the_verdict_that_matters_is_told(tmp_path: Path) -> None:
    """Of three scopes the one that is worst off; one that this agent does not know is told as it stands."""
    several: tuple[dict[str, str], ...] = (
        {"system": "within", "soc": "capped_low"},
        {"gpu": "unmeasured", "soc": "within"},
        {"soc": "melted"},
        {},
    )
    path = record(tmp_path, [replace(beat(number), verdicts=each) for number, each in enumerate(several)])
    lines = screen(lambda console: show(read(path, ""), console, BEGUN))[-4:]

    assert ["capped low", "within", "melted", ""] == [line.partition(".0")[2].strip() for line in lines]


def test_damage_is_told(tmp_path: Path) -> None:
    """Batches that do not check are counted on screen."""
    path = record(tmp_path, map(beat, range(5)))
    content = bytearray(path.read_bytes())
    content[4 * 4096 + 30] ^= 1
    path.write_bytes(content)
    lines = screen(lambda console: show(read(path, ""), console, BEGUN))

    assert "damaged batches left out: 1" in lines


def test_a_run_without_a_record(tmp_path: Path) -> None:
    """There is no table where there is nothing to tell."""
    path = record(tmp_path, [])
    lines = screen(lambda console: show(read(path, OTHER_BOOT), console, BEGUN))

    assert "no record was written" == lines[1]
    assert 4 <= len(lines) <= 5


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, ", 0 s ago"),
        (119, ", 119 s ago"),
        (120, ", 2 min ago"),
        (7200, ", 2 h ago"),
        (172800, ", 2 days ago"),
        (-5, ""),
    ],
)
def test_how_long_ago(tmp_path: Path, seconds: float, told: str) -> None:
    """In the unit that a person would use; nothing where the clock is behind the record."""
    path = record(tmp_path, [beat(0)])
    lines = screen(lambda console: show(read(path, ""), console, BEGUN + seconds))

    assert f"last record 2026-01-01 00:00:00 UTC{told}" == lines[1]


def test_the_list_on_screen(tmp_path: Path) -> None:
    """A line or two for each recording: its name, how much it holds, and how it ended."""
    record(tmp_path, map(beat, range(3)), OTHER_BOOT)
    record(tmp_path, map(beat, range(10, 12)), clean=True)
    recordings = [read(path, THIS_BOOT) for path in (tmp_path / NAME, *kept(tmp_path))]
    lines = screen(lambda console: show_list(recordings, console, BEGUN + 60))

    assert lines[0].split() == ["file", "records", "how", "it", "ended"]
    assert lines[1].startswith(f"{NAME:37}  2        the agent ended as it was")
    assert any(
        line.startswith("blackbox-20260101T000002Z-machine.bin  3        the machine went down") for line in lines
    )


# Which one, and the exit code


@pytest.mark.parametrize(
    ("boot_id", "clean", "code", "first"),
    [
        (THIS_BOOT, True, 0, "the agent ended as it was told to"),
        (OTHER_BOOT, True, 0, "the agent ended as it was told to"),
        (THIS_BOOT, False, 1, "the agent was killed, and the machine went on"),
        (OTHER_BOOT, False, 2, "the machine went down without a clean end"),
    ],
)
def test_exit_code_says_how_it_ended(
    tmp_path: Path, run: Run, boot_id: str, clean: bool, code: int, first: str
) -> None:
    """As a script would ask: 0 clean, 1 the agent was killed, 2 the machine went down; the first line says it."""
    record(tmp_path, [beat(0)], boot_id, clean=clean)
    done = run("--state", tmp_path)

    assert (code, first, "") == (done.code, done.out.splitlines()[0], done.err)


def test_while_the_daemon_records(tmp_path: Path, run: Run) -> None:
    """One may look at any time; a recording that goes on is no incident."""
    box = BlackBox.open(tmp_path / NAME, THIS_BOOT, "spark-1", BEGUN, flush_seconds=1)
    box.append(beat(0))
    done = run("--state", tmp_path)
    box.append(beat(1))
    box.close()

    assert (0, "the recording goes on") == (done.code, done.out.splitlines()[0])
    assert 2 == len(read(tmp_path / NAME, THIS_BOOT).records)


def test_the_newest_unclean_end_is_shown(tmp_path: Path, run: Run) -> None:
    """Not the recording that goes on, nor an older incident."""
    for number in range(3):
        record(tmp_path, [beat(100 * number)], str(number))
    record(tmp_path, [beat(1000)], clean=True)
    done = run("--state", tmp_path)

    assert (2, "last record 2026-01-01 00:03:20 UTC") == (done.code, done.out.splitlines()[1].split(",")[0])


def test_a_damaged_one_does_not_hide_the_others(tmp_path: Path, run: Run) -> None:
    """Why it cannot be read is said, and the next is shown."""
    for number in range(2):
        record(tmp_path, [beat(100 * number)], str(number))
    record(tmp_path, [beat(1000)], clean=True)
    (tmp_path / NAME).write_bytes(b"")
    done = run("--state", tmp_path)

    assert (2, f"spark-agent: {tmp_path / NAME}: not a black box\n") == (done.code, done.err)
    assert "last record 2026-01-01 00:01:40 UTC" in done.out


def test_one_by_its_name(tmp_path: Path, run: Run) -> None:
    """A file that somebody sent is shown whatever is in the daemon's folder."""
    record(tmp_path, [beat(0)], OTHER_BOOT)
    sent = tmp_path / "sent.bin"
    (tmp_path / NAME).rename(sent)
    done = run("--file", sent)

    assert (2, str(sent)) == (done.code, done.out.splitlines()[3])


def test_where_it_looks(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder that is named, or the first that systemd names, or the one that the unit has."""
    (tmp_path / "one").mkdir()
    record(tmp_path / "one", [beat(0)], clean=True)

    assert "spark-agent: /var/lib/spark-agent/blackbox.bin: no black box; `spark-agent serve` records one\n" == (
        run().err
    )
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    assert 0 == run().code
    assert 3 == run("--state", tmp_path / "two").code


@pytest.mark.parametrize("call", ["open", "iterdir"])
def test_no_permission(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The daemon's folder is closed to others, and the message says the command that opens it."""

    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, call, refuse)
    done = run("--state", tmp_path)

    assert (3, "") == (done.code, done.out)
    expected = f"{tmp_path / NAME}: permission denied; it is the daemon's: sudo spark-agent blackbox"
    assert f"spark-agent: {expected}\n" == done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--file", "x", "--list"),
        ("--file", "x", "--state", "y"),
        ("--list", "--output", "csv"),
        ("--list", "--last", "5"),
        ("--last", "0"),
        ("--last", "nan"),
        ("--output", "xml"),
    ],
    ids=" ".join,
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...]) -> None:
    """What would do nothing, or cannot be, is refused."""
    done = run(*arguments)

    assert (64, "") == (done.code, done.out)


def test_no_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded machine has no black box, so naming one is a mistake."""
    monkeypatch.setattr(sys, "argv", ["spark-agent", "--demo", "fe-idle", "blackbox"])

    assert 64 == cli._run()


# For programs


def test_json(tmp_path: Path, run: Run) -> None:
    """All records by default, absent readings absent, times with their zone."""
    record(tmp_path, [beat(0), beat(5, gpu_sm_clock_hertz=2e9)], OTHER_BOOT)
    done = run("--state", tmp_path, "--output", "json")
    found = json.loads(done.out)

    assert 2 == done.code
    assert {
        "schema": "spark-agent/blackbox/1",
        "file": str(tmp_path / NAME),
        "machine": "spark-1",
        "agent": found["agent"],
        "boot_id": OTHER_BOOT,
        "started": "2026-01-01T00:00:00.000+00:00",
        "ending": {"kind": "machine", "last_record": "2026-01-01T00:00:05.000+00:00"},
        "damaged_batches": 0,
        "gaps": [{"after": "2026-01-01T00:00:00.000+00:00", "seconds": 5.0}],
        "records": [
            {
                "time": f"2026-01-01T00:00:0{number}.000+00:00",
                "monotonic_seconds": 50.0 + number,
                "readings": readings,
                "verdicts": {"soc": "within"},
                "worst_finding": None,
                "age_seconds": {},
            }
            for number, readings in ((0, {"system_power_watts": 100.0}), (5, {"gpu_sm_clock_hertz": 2e9}))
        ],
    } == found


def test_csv(tmp_path: Path, run: Run) -> None:
    """A column for whatever was read at any time, empty where it was not."""
    full = replace(beat(1, gpu_sm_clock_hertz=2e9), finding="gpu_only", ages={"gpu": 3.0})
    record(tmp_path, [beat(0), full], clean=True)
    done = run("--state", tmp_path, "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))

    assert 0 == done.code
    common = {"soc_verdict": "within"}
    assert [
        {
            "time": "2026-01-01T00:00:00.000+00:00",
            "monotonic_seconds": "50.0",
            "system_power_watts": "100.0",
            "gpu_sm_clock_hertz": "",
            "worst_finding": "",
            "gpu_age_seconds": "",
        }
        | common,
        {
            "time": "2026-01-01T00:00:01.000+00:00",
            "monotonic_seconds": "51.0",
            "system_power_watts": "",
            "gpu_sm_clock_hertz": "2000000000.0",
            "worst_finding": "gpu_only",
            "gpu_age_seconds": "3.0",
        }
        | common,
    ] == rows


@pytest.mark.parametrize(
    ("arguments", "records"),
    [
        ((), 60),
        (("--last", "5"), 5),
        (("--last", "1000"), 100),
        (("-o", "csv"), 100),
        (("-o", "csv", "--last", "2"), 2),
    ],
)
def test_how_much_is_shown(tmp_path: Path, run: Run, arguments: tuple[str, ...], records: int) -> None:
    """A screen's worth in the table, all for a program, or as many seconds as asked for."""
    record(tmp_path, map(beat, range(100)), clean=True)
    done = run("--state", tmp_path, *arguments)

    assert records == sum(":" in line and "within" in line for line in done.out.splitlines())


def test_the_list_as_json(tmp_path: Path, run: Run) -> None:
    """Newest first, with how each ended; the exit code is that of the worst."""
    record(tmp_path, map(beat, range(3)), OTHER_BOOT)
    record(tmp_path, map(beat, range(10, 12)), clean=True)
    done = run("--state", tmp_path, "--list", "-o", "json")
    found = json.loads(done.out)

    assert 2 == done.code
    assert "spark-agent/blackbox-list/1" == found["schema"]
    assert [(End.CLEAN, 2), (End.MACHINE, 3)] == [
        (each["ending"]["kind"], each["records"]) for each in found["recordings"]
    ]


def test_no_colour_in_a_pipe(tmp_path: Path, run: Run) -> None:
    """What goes into a file has no escapes."""
    record(tmp_path, [beat(0)], OTHER_BOOT)

    assert "\x1b" not in run("--state", tmp_path).out + run("--state", tmp_path, "--list").out
