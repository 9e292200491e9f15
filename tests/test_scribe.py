"""The scribe: whatever the disk does, the beat goes on, and the next start knows how this one ended."""

import errno
import logging
import os
import re
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from demo import demo_report
from looks import found
from looks import watts as soc_watts

from spark_agent.agent import blackbox
from spark_agent.agent.blackbox import NAME, BlackBox, End, Record
from spark_agent.agent.config import Settings
from spark_agent.agent.energy import Energy, Meter
from spark_agent.agent.power import understand
from spark_agent.agent.report import Report
from spark_agent.agent.state import StateError, Store
from spark_agent.collectors import Scope
from spark_agent.exporters import scribe as module
from spark_agent.exporters import textfile
from spark_agent.exporters.scribe import _MOST_WAITING, Scribe

_PATIENCE = 10.0


@pytest.fixture
def report() -> Report:
    """Return a report of a machine under load."""
    return demo_report("fe-gemm")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of a daemon that keeps a state."""
    return Settings(state_directory=tmp_path / "state")


@pytest.fixture(autouse=True)
def _save_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save with each report, for no test waits ten seconds."""
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)


class Writing:
    """A scribe at work, and how far it has come: each report that it was handed ends with `Scribe._renew`."""

    def __init__(self, settings: Settings) -> None:
        self.scribe = Scribe(settings, "box")
        self._renewed = threading.Semaphore(0)
        renew = self.scribe._renew

        def counted(report: Report) -> None:
            renew(report)
            self._renewed.release()

        self.scribe._renew = counted  # type: ignore[method-assign]  # to know when it is done
        self.scribe.start()

    def write(self, report: Report) -> None:
        """Hand over a report, and wait until all is written."""
        self.scribe.take(report)
        assert self._renewed.acquire(timeout=_PATIENCE)

    def finish(self) -> None:
        self.scribe.finish(_PATIENCE)
        assert not self.scribe._thread.is_alive()

    def kill(self) -> None:
        """End without a word, as by kill -9: only the lock goes."""
        store = self.scribe._store
        assert store
        store.close()
        if self.scribe._box:
            self.scribe._box._release()
        self.scribe._box = None
        self.scribe._store = None
        self.finish()


@pytest.fixture
def saved(settings: Settings) -> Callable[[], Mapping[str, Any]]:
    """Return what reads the state, as the next start would."""

    def read() -> Mapping[str, Any]:
        assert settings.state_directory
        with Store(settings.state_directory) as store:
            return store.load("counts") or {}

    return read


def _counts(scribe: Scribe) -> tuple[int, int, int]:
    kept = scribe.ledger.kept
    return kept.starts, kept.unclean_shutdowns, kept.machine_unclean_shutdowns


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_clean_end_is_one(settings: Settings, report: Report, saved: Callable[[], Mapping[str, Any]]) -> None:
    """The state says that nobody runs; the next start counts itself, and nothing else."""
    for start in (1, 2, 3):
        writing = Writing(settings)
        assert (start, 0, 0) == _counts(writing.scribe)
        writing.write(report)
        writing.finish()
        assert ("", start) == (saved()["running"], saved()["starts"])


def test_a_clean_end_without_a_beat_is_one(settings: Settings, saved: Callable[[], Mapping[str, Any]]) -> None:
    """Told to stop before the first look."""
    Writing(settings).finish()
    assert "" == saved()["running"]


def test_what_was_counted_last_is_there_after_a_clean_end(
    settings: Settings, report: Report, saved: Callable[[], Mapping[str, Any]]
) -> None:
    """Also what came after the last save."""
    writing = Writing(settings)
    writing.write(report)
    writing.scribe.ledger.kept.inventory_changes["nvme"] = 7
    writing.scribe.take(report)
    writing.finish()
    assert {"nvme": 7} == saved()["inventory_changes"]


@pytest.mark.parametrize(
    ("boots", "machine", "words"),
    [(("a", "a"), 0, "the agent was killed"), (("a", "b"), 1, "the machine went down")],
)
def test_an_unclean_end_is_counted(
    settings: Settings,
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    boots: tuple[str, str],
    machine: int,
    words: str,
) -> None:
    """In the same boot the agent was killed; in another one the machine went down, which counts twice."""
    monkeypatch.setattr(module, "_boot_id", lambda: boots[0])
    first = Writing(settings)
    first.write(report)
    first.kill()
    monkeypatch.setattr(module, "_boot_id", lambda: boots[1])
    second = Writing(settings)
    assert (2, 1, machine) == _counts(second.scribe)
    assert [f"no clean end: {words}; `spark-agent blackbox` shows the last minutes before"] == [
        one.getMessage() for one in caplog.records if "no clean end" in one.getMessage()
    ]
    second.finish()
    third = Writing(settings)
    assert (3, 1, machine) == _counts(third.scribe)
    third.finish()


def test_killed_again_and_again(settings: Settings, report: Report) -> None:
    """Each time counts, also where it was killed before its first report."""
    for start in range(1, 6):
        writing = Writing(settings)
        assert (start, start - 1, 0) == _counts(writing.scribe)
        if start % 2:
            writing.write(report)
        writing.kill()


def test_counts_that_are_none_begin_anew(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """With one warning: a state that nobody understands must not keep the daemon from its start."""
    assert settings.state_directory
    with Store(settings.state_directory) as store:
        store.save("counts", {"starts": "many", "running": ""})
    writing = Writing(settings)
    assert (1, 0, 0) == _counts(writing.scribe)
    assert ["WARNING"] == [one.levelname for one in caplog.records if "these begin anew" in one.getMessage()]
    writing.finish()


def _metered(*looks: tuple[float, float]) -> Meter:
    """Return a meter that saw these watts of the SoC at these seconds."""
    meter = Meter()
    for at, watts in looks:
        seen = replace(found(*soc_watts(soc=watts)), at=at)
        seen = replace(seen, visits=tuple(replace(visit, at=at) for visit in seen.visits))
        meter.note(seen, understand(seen))
    return meter


def test_energy_outlives_the_agent(settings: Settings, report: Report) -> None:
    """To the last joule that was saved."""
    first = Writing(settings)
    first.scribe.ledger.meter = _metered((10, 100), (11, 120))
    first.write(report)
    first.kill()
    second = Writing(settings)
    told = second.scribe.ledger.energies[Scope.SOC]
    assert isinstance(told, Energy)
    assert (110, 1) == (told.joules, told.covered_seconds)
    second.finish()


def test_energy_of_another_machine_is_not_gone_on_with(settings: Settings, report: Report) -> None:
    """One that was replayed with the same state directory; the counts of the agent go on."""
    first = Writing(settings)
    first.scribe.ledger.meter = _metered((10, 100), (11, 120))
    first.write(report)
    first.finish()
    second = Scribe(settings, "another box")
    assert ({}, 2) == (second.ledger.energies, second.ledger.kept.starts)
    second.start()
    second.finish(_PATIENCE)


def test_energy_that_is_none_begins_anew(settings: Settings, report: Report, caplog: pytest.LogCaptureFixture) -> None:
    """With one warning, and with the counts as they were."""
    first = Writing(settings)
    first.scribe.ledger.kept.inventory_changes["nvme"] = 3
    first.write(report)
    first.finish()
    assert settings.state_directory
    with Store(settings.state_directory) as store:
        store.save("counts", {**(store.load("counts") or {}), "energy": {"accounts": "many"}})
    second = Writing(settings)
    assert ({}, {"nvme": 3}) == (second.scribe.ledger.energies, second.scribe.ledger.kept.inventory_changes)
    assert ["WARNING"] == [one.levelname for one in caplog.records if "no energies" in one.getMessage()]
    second.finish()


def test_a_state_of_a_newer_agent_is_left_alone(
    settings: Settings, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent goes on without one, and says so: a monitor that does not run helps nobody."""
    folder = settings.state_directory
    assert folder
    folder.mkdir()
    content = b"{}"
    checksum = zlib.crc32(content, zlib.crc32(b"2"))
    newer = b'{"format": 2, "crc32": "%08x", "content": %s}\n' % (checksum, content)
    (folder / "counts.json").write_bytes(newer)
    writing = Writing(settings)
    ((level, line),) = _lines(caplog)
    assert "ERROR" == level
    assert re.search(r"counts.json: format 2.*upgrade this agent.*nothing outlives this agent", line)
    writing.write(report)
    writing.finish()
    assert ["counts.json"] == [path.name for path in folder.iterdir()]
    assert newer == (folder / "counts.json").read_bytes()


def test_the_black_box_has_each_report(settings: Settings, report: Report) -> None:
    """And says at the end that it was clean."""
    writing = Writing(settings)
    for second in range(5):
        at = replace(report.snapshot, at=float(second), taken_at=1.8e9 + second)
        writing.write(replace(report, snapshot=at))
    writing.finish()
    assert settings.state_directory
    recording = blackbox.read(settings.state_directory / NAME, "x")
    assert (End.CLEAN, [0, 1, 2, 3, 4]) == (recording.ending.kind, [one.clock for one in recording.records])


def test_without_a_state_nothing_is_written(report: Report, tmp_path: Path) -> None:
    """Neither counts nor black box, and nothing is missed."""
    writing = Writing(Settings(state_directory=None))
    writing.write(report)
    writing.finish()
    assert [] == list(tmp_path.iterdir())
    assert 0 == writing.scribe.ledger.kept.starts


# --- a disk that takes nothing ----------------------------------------------------------------------------------------


def _lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(one.levelname, one.getMessage()) for one in caplog.records if one.name == module.__name__]


def test_a_full_disk_is_said_once_and_when_it_is_mended(
    settings: Settings,
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    saved: Callable[[], Mapping[str, Any]],
) -> None:
    """Not at each save; meanwhile the counts are told all the same, and after it they are kept."""
    caplog.set_level(logging.INFO)
    writing = Writing(settings)
    ledger = writing.scribe.ledger
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise StateError("/state/counts.json: no space")

        patch.setattr(Store, "save", refuse)
        for number in range(1, 6):
            ledger.kept.inventory_changes["nvme"] = number
            writing.write(report)
            assert ledger._told == ledger.page()
    assert [("ERROR", "/state/counts.json: no space; until then, counters are lost at a restart")] == _lines(caplog)
    caplog.clear()
    for number in range(6, 9):
        ledger.kept.inventory_changes["nvme"] = number
        writing.write(report)
    assert [("INFO", "counts can be written again")] == _lines(caplog)
    writing.finish()
    assert {"nvme": 8} == saved()["inventory_changes"]


def test_a_textfile_that_cannot_be_written_is_said_once(
    settings: Settings,
    report: Report,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """And costs neither counts nor black box."""
    caplog.set_level(logging.INFO)
    folder = tmp_path / "textfile"
    # Shorter than the shortest that a person may set, for no test waits a second.
    writing = Writing(replace(settings, textfile=folder, textfile_interval=0.0))
    for _ in range(3):
        writing.write(report)
    assert [("ERROR", f"{folder}: {os.strerror(errno.ENOENT)}; no textfile is written")] == _lines(caplog)
    caplog.clear()
    folder.mkdir()
    for _ in range(3):
        writing.write(report)
    assert [("INFO", f"{folder} can be written again")] == _lines(caplog)
    assert (folder / textfile.FILE).exists()
    writing.finish()


class Disk:
    """A disk that hangs from the first write on until it is told to answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hangs = threading.Event()
        self.answers = threading.Event()
        self.records: list[Record] = []
        monkeypatch.setattr(BlackBox, "append", lambda _, record: self._append(record))

    def _append(self, record: Record) -> None:
        self.hangs.set()
        self.answers.wait()
        self.records.append(record)


def test_a_disk_that_hangs_holds_up_no_beat(
    settings: Settings, report: Report, monkeypatch: pytest.MonkeyPatch, saved: Callable[[], Mapping[str, Any]]
) -> None:
    """Reports are taken at once, the newest are kept and the others given up; when it answers, it goes on."""
    disk = Disk(monkeypatch)
    writing = Writing(settings)
    scribe = writing.scribe
    try:
        scribe.take(report)
        assert disk.hangs.wait(_PATIENCE)
        # Were one of these to wait for the disk, this would never end.
        for second in range(_MOST_WAITING + 50):
            scribe.take(replace(report, snapshot=replace(report.snapshot, at=float(second))))
        assert _MOST_WAITING == len(scribe._waiting)
        assert {Record} == {type(one) for one in scribe._waiting}
    finally:
        disk.answers.set()
    writing.finish()
    assert [report.snapshot.at, *range(50, 50 + _MOST_WAITING)] == [one.clock for one in disk.records]
    assert "" == saved()["running"]


def test_an_end_does_not_wait_for_a_disk_that_hangs(
    settings: Settings, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends all the same, and the next start finds that this end was none."""
    disk = Disk(monkeypatch)
    writing = Writing(settings)
    try:
        writing.scribe.take(report)
        assert disk.hangs.wait(_PATIENCE)
        writing.scribe.finish(0.01)
        assert writing.scribe._thread.is_alive()
        assert settings.state_directory
        assert writing.scribe._store
        assert writing.scribe._boot_id == (writing.scribe._store.load("counts") or {})["running"]
    finally:
        disk.answers.set()
        writing.finish()


def test_counts_of_one_moment_are_saved_and_told(
    settings: Settings, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The beat counts on while the disk is slow: what is told is what was saved, and not what came meanwhile."""
    writing = Writing(settings)
    scribe = writing.scribe
    kept = scribe.ledger.kept.inventory_changes
    begun, over = threading.Event(), threading.Event()
    save = Store.save

    def slow(store: Store, name: str, content: Mapping[str, Any]) -> None:
        begun.set()
        over.wait()
        save(store, name, content)

    monkeypatch.setattr(module, "SAVE_SECONDS", 1e9)
    kept["nvme"] = 1
    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", slow)
        scribe.take(report)
        assert begun.wait(_PATIENCE)
    kept["nvme"] = 2
    scribe.take(report)
    over.set()
    assert writing._renewed.acquire(timeout=_PATIENCE)
    assert scribe.ledger._told
    assert {"nvme": 1} == scribe.ledger._told.counts["inventory_changes"]
    writing.finish()
