"""What is kept from look to look: answers on the machine's layout, and open files. Neither may hide a change."""

import errno
import gc
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
from hosts import host
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rigs import open_below

from spark_agent.collectors import (
    Absence,
    Fact,
    Host,
    Item,
    Property,
    Quantity,
    Reading,
    Reason,
    Section,
    Unavailable,
    Unit,
)
from spark_agent.collectors._host import KEEP_FAULT_SECONDS, KEEP_SECONDS
from spark_agent.collectors._tree import _MOST_KEPT, _MOST_SEEN, LiveTree, WatchedTree

PART = Section("part", "A part.", metric="part")
COUNT = Quantity(PART, "count", Unit.COUNT, "/sys/count", "Count.")
NAME = Property(PART, "name", "/sys/name", "Name.")
FAULT = Absence(NAME, Reason.IO_ERROR)


class Box:
    """A machine whose clock is moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.host: Host = replace(host(), clock=lambda: self.at)


@pytest.fixture
def box() -> Box:
    """Return a machine without files."""
    return Box()


class Question:
    """Something that is asked of a machine, and how often it was."""

    def __init__(self, *answers: object) -> None:
        self.asked = 0
        self._answers = answers

    def __call__(self, _: Host, *__: object) -> object:
        self.asked += 1
        answer = self._answers[min(self.asked, len(self._answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass(frozen=True)
class Chip:
    """An answer that may have a fault in it."""

    fault: Exception | None = None


# --- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_is_kept_for_its_time(box: Box) -> None:
    """Asked once, however often it is wanted, and again when it is a minute old: what changes it, udev reports."""
    question = Question("a", "b")
    for seconds in (0.0, 1.0, KEEP_SECONDS - 0.1):
        box.at = 1000 + seconds
        assert "a" == box.host.keep(question)
    assert 1 == question.asked
    box.at = 1000 + KEEP_SECONDS
    assert "b" == box.host.keep(question)
    assert 2 == question.asked


@pytest.mark.parametrize("answer", [False, 0, "", ()])
def test_an_answer_that_says_no_is_an_answer(box: Box, answer: object) -> None:
    """That there is none is as dear to find out as that there is one."""
    question = Question(answer)
    for _ in range(3):
        assert answer == box.host.keep(question)
    assert 1 == question.asked


@pytest.mark.parametrize(
    "faulty",
    [FAULT, (Fact(NAME, "x"), FAULT), (Fact(NAME, "x"), (FAULT,)), Chip(OSError())],
    ids=["alone", "among others", "deep", "in a value"],
)
def test_a_fault_is_not_kept_for_long(box: Box, faulty: object) -> None:
    """It may be over in a moment; but a sick device is not asked at each beat either."""
    question = Question(faulty, "well")
    box.host.keep(question)
    box.at += KEEP_FAULT_SECONDS - 0.1
    assert faulty is box.host.keep(question)
    box.at += 0.1
    assert "well" == box.host.keep(question)


@pytest.mark.parametrize("sound", [Absence(NAME, Reason.NOT_FOUND), Chip(), (Fact(NAME, "x"),)])
def test_what_a_machine_has_not_got_is_no_fault(box: Box, sound: object) -> None:
    """It is kept as long as what it has."""
    question = Question(sound)
    box.host.keep(question)
    box.at += KEEP_SECONDS - 0.1
    box.host.keep(question)
    assert 1 == question.asked


@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), Unavailable(Reason.TIMEOUT), ValueError("garbage")])
def test_a_failure_is_not_kept(box: Box, error: Exception) -> None:
    """Who asks next asks the machine."""
    question = Question(error, "a")
    with pytest.raises(type(error)):
        box.host.keep(question)
    assert "a" == box.host.keep(question)


def test_a_generator_that_fails_halfway_is_not_kept(box: Box) -> None:
    """Half an answer is none."""
    asked = []

    def question(_: Host) -> Iterator[Item]:
        asked.append(1)
        yield Fact(NAME, "x")
        if len(asked) == 1:
            raise OSError(errno.EIO, "x")
        yield Fact(NAME, "y")

    with pytest.raises(OSError, match="x"):
        box.host.keep(question)
    for _ in range(3):
        assert (Fact(NAME, "x"), Fact(NAME, "y")) == box.host.keep(question)
    assert 2 == len(asked)


def test_questions_are_told_apart(box: Box) -> None:
    """By what is asked, and by what it is asked about."""
    one, other = Question("one"), Question("other")
    box.host.keep(one, "eth0")
    box.host.keep(one, "eth1")
    assert "other" == box.host.keep(other, "eth0")
    assert "one" == box.host.keep(one, "eth0")
    assert (2, 1) == (one.asked, other.asked)


def test_all_is_forgotten_when_something_comes_or_goes(box: Box) -> None:
    """Nothing is known of where things are then."""
    question = Question("hwmon3", "hwmon4")
    assert "hwmon3" == box.host.keep(question)
    box.host.memory.forget()
    assert "hwmon4" == box.host.keep(question)


def test_what_was_asked_before_something_went_is_not_kept_after(box: Box) -> None:
    """It was found out about a machine that is another now."""
    box.host.keep(lambda machine: machine.memory.forget())
    question = Question("old", "new")

    def asking(machine: Host) -> object:
        answer = question(machine)
        if answer == "old":
            machine.memory.forget()
        return answer

    assert "old" == box.host.keep(asking)
    assert "new" == box.host.keep(asking)
    assert "new" == box.host.keep(asking)
    assert 2 == question.asked


def test_a_thread_that_was_left_behind_keeps_nothing(box: Box) -> None:
    """What it brings may be as old as the hang; the one that took its place has asked since."""
    begun, over = threading.Event(), threading.Event()

    def question(_: Host) -> str:
        if threading.current_thread() is not late:
            return "new"
        begun.set()
        over.wait()
        return "old"

    heard = []
    late = threading.Thread(target=lambda: heard.append(box.host.keep(question)))
    late.start()
    begun.wait()
    box.host.stuck.give_up("/sys/hung", late)
    try:
        assert "new" == box.host.keep(question)
    finally:
        over.set()
        late.join()
    assert ["old"] == heard
    assert "new" == box.host.keep(question)


def test_names_that_change_for_ever_cost_no_memory(box: Box) -> None:
    """A container host makes and removes interfaces all day; what is in use is not dropped for it."""
    lasting = Question("eth0")
    most = 0
    for beat in range(10_000):
        box.at += 1
        box.host.keep(Question("x"), f"veth{beat}")
        box.host.keep(lasting)
        most = max(most, len(box.host.memory._kept))
    assert most <= 256
    assert 10_000 / KEEP_SECONDS <= lasting.asked <= 10_000 / KEEP_SECONDS + 1


def test_as_many_answers_as_a_machine_needs_are_kept(box: Box) -> None:
    """However many that are: the bound is on what is old."""
    questions = [Question(number) for number in range(2000)]
    for _ in range(3):
        for number, question in enumerate(questions):
            assert number == box.host.keep(question)
    assert {1} == {question.asked for question in questions}


def test_dear_readings_are_taken_anew_where_that_is_wanted(box: Box) -> None:
    """As right before and after a measurement; where things are stays known, for it takes longer to find out."""
    layout = Question("hwmon3", "hwmon4")
    taken = count(1)

    def question(_: Host) -> Iterator[Item]:
        yield Reading(COUNT, next(taken))

    for number in (1, 2):
        for _ in range(2):
            assert (Reading(COUNT, number, at=1000.0),) == box.host.every(10, question)
            assert "hwmon3" == box.host.keep(layout)
        box.host.memory.forget_readings()


def test_dear_readings_are_taken_at_their_own_pace(box: Box) -> None:
    """And each says when it was taken, however often it is told; an absence says it no more than before."""
    asked = []

    def question(machine: Host) -> Iterator[Item]:
        asked.append(machine.clock())
        yield Reading(COUNT, len(asked))
        yield Absence(NAME, Reason.NOT_FOUND)

    for beat in range(25):
        box.at = 1000 + beat * 0.9999
        reading, absence = box.host.every(10, question)
        assert isinstance(reading, Reading)
        assert (asked[-1], len(asked)) == (reading.at, reading.value)
        assert Absence(NAME, Reason.NOT_FOUND) == absence
    assert 3 == len(asked)


# --- files ------------------------------------------------------------------------------------------------------------


class Files:
    """Some files below a root, and a tree that watches them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("sys", "proc"):
            (root / name).mkdir(exist_ok=True)
        # Not through this object: in a circle, the tree and its descriptors would outlive the test.
        calls = self._calls = list[int]()
        self.tree = WatchedTree(lambda: calls.append(1), str(root))
        self.live = LiveTree(str(root))

    @property
    def gone(self) -> int:
        return len(self._calls)

    def put(self, path: str, content: bytes) -> str:
        (self.root / path.removeprefix("/")).write_bytes(content)
        return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return a tree of no files, and no descriptors that another test has left to be collected."""
    gc.collect()
    return Files(tmp_path)


@pytest.mark.parametrize("folder", ["/sys", "/proc"])
@pytest.mark.parametrize("size", [0, 1, 4096, 65535, 65536, 65537, 200_000])
def test_a_kept_file_reads_as_one_that_is_opened(files: Files, folder: str, size: int) -> None:
    """The same bytes, whatever the size: sysfs by one read, all else to its end."""
    path = files.put(f"{folder}/file", os.urandom(size))
    for _ in range(4):
        assert files.live.read(path) == files.tree.read(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.binary(max_size=300) | st.sampled_from((b"x" * 70_000, b"")), min_size=1, max_size=8))
def test_what_is_written_is_what_is_read_next(files: Files, contents: list[bytes]) -> None:
    """A kept descriptor begins at the beginning each time."""
    path = files.put("/proc/file", b"")
    for content in contents:
        files.put(path, content)
        assert content == files.tree.read(path)


@pytest.mark.parametrize("path", ["/proc/self/stat", "/proc/meminfo", "/proc/stat", "/proc/self/maps"])
def test_this_machines_own_files(path: str) -> None:
    """A live one changes while it is read; it is whole all the same."""
    tree = WatchedTree(lambda: pytest.fail("nothing went"))
    lines = [tree.read(path).splitlines() for _ in range(5)]
    assert {lines[0][0].split()[0]} == {found[0].split()[0] for found in lines}
    assert all(found for found in lines)
    assert LiveTree().read(path).splitlines()[-1].split()[0] == lines[-1][-1].split()[0]


def test_a_live_counter_moves() -> None:
    """Through the kept descriptor too: the kernel writes the file anew for each reader at its beginning."""
    tree = WatchedTree(lambda: pytest.fail("nothing went"))
    path = f"/proc/{os.getpid()}/comm"
    name = Path(path).read_bytes()
    assert name == tree.read(path) == tree.read(path) == tree.read(path)
    try:
        Path(path).write_bytes(b"another")
        assert b"another\n" == tree.read(path)
    finally:
        Path(path).write_bytes(name.strip())


def test_a_file_that_is_read_again_stays_open(files: Files) -> None:
    """One descriptor for it, from the second time on: some are read once in an agent's life."""
    path = files.put("/sys/file", b"x")
    before = open_below(files.root)
    files.tree.read(path)
    assert before == open_below(files.root)
    for _ in range(10):
        files.tree.read(path)
        assert before + 1 == open_below(files.root)
    del files.tree
    assert before == open_below(files.root)


def test_descriptors_have_a_bound(files: Files) -> None:
    """All beyond it are opened each time; a service has 1024, and clients need some."""
    paths = [files.put(f"/sys/{number}", b"%d" % number) for number in range(_MOST_KEPT + 50)]
    before = open_below(files.root)
    for _ in range(3):
        assert [b"%d" % number for number in range(len(paths))] == [files.tree.read(path) for path in paths]
    assert before + _MOST_KEPT == open_below(files.root)


def test_files_that_come_and_go_for_ever_cost_no_memory(files: Files) -> None:
    """Nobody reads them again, so nobody hears that they are gone."""
    before = open_below(files.root)
    lasting = files.put("/sys/lasting", b"x")
    for number in range(3 * _MOST_SEEN):
        path = files.put("/sys/passing", b"y")
        (files.root / "sys/passing").rename(files.root / f"sys/passing{number}")
        path = f"/sys/passing{number}"
        for _ in range(2 if number % 8 == 0 else 1):
            files.tree.read(path)
        (files.root / f"sys/passing{number}").unlink()
        assert b"x" == files.tree.read(lasting)
        assert len(files.tree._seen) <= _MOST_SEEN
    assert open_below(files.root) - before <= _MOST_KEPT
    assert 0 == files.gone


def _answering(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Let each kept descriptor fail, as the kernel does once the device is gone."""

    def pread(*_: object) -> bytes:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pread", pread)


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ENXIO, errno.ESTALE])
def test_a_device_that_is_gone_is_said_to_be(files: Files, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The read fails, with the path; nothing is opened behind the reader's back, and the next one opens anew."""
    path, other = files.put("/sys/hwmon3", b"40"), files.put("/sys/other", b"1")
    before = open_below(files.root)
    for _ in range(2):
        files.tree.read(path)
        files.tree.read(other)
    with monkeypatch.context() as patch:
        _answering(patch, code)
        with pytest.raises(OSError, match=f"{os.strerror(code)}: '/sys/hwmon3'"):
            files.tree.read(path)
    assert 1 == files.gone
    # Those of its other files would else stay open, for nobody reads them any more.
    assert before == open_below(files.root)
    files.put(path, b"50")
    assert [b"50"] * 3 == [files.tree.read(path) for _ in range(3)]
    assert 1 == files.gone


@pytest.mark.parametrize("code", [errno.EIO, errno.EAGAIN, errno.ENODATA, errno.EINVAL, errno.ETIMEDOUT])
def test_a_fault_is_no_device_that_went(files: Files, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The descriptor is as good as before."""
    path = files.put("/sys/file", b"1")
    for _ in range(2):
        files.tree.read(path)
    before = open_below(files.root)
    for _ in range(5):
        with monkeypatch.context() as patch:
            _answering(patch, code)
            with pytest.raises(OSError, match="'/sys/file'"):
                files.tree.read(path)
    assert (0, before) == (files.gone, open_below(files.root))
    assert b"1" == files.tree.read(path)


def test_a_file_that_is_removed_is_gone(files: Files) -> None:
    """Between the first reading and the second too."""
    path = files.put("/sys/file", b"1")
    files.tree.read(path)
    (files.root / "sys/file").unlink()
    with pytest.raises(FileNotFoundError, match="'/sys/file'"):
        files.tree.read(path)
    assert 1 == files.gone
    with pytest.raises(FileNotFoundError):
        files.tree.read(path)
    assert 1 == files.gone


@pytest.mark.parametrize("fault", [FileNotFoundError, IsADirectoryError])
def test_what_never_answered_is_not_gone(files: Files, fault: type[OSError]) -> None:
    """An ACPI zone that says ENODEV for ever must not make the agent find out its machine anew at each beat."""
    path = "/sys/none" if fault is FileNotFoundError else "/sys"
    before = open_below(files.root)
    for _ in range(5):
        with pytest.raises(fault):
            files.tree.read(path)
    assert (0, before) == (files.gone, open_below(files.root))


def test_a_device_that_says_enodev_from_the_beginning_is_not_gone(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was never there; and it is asked each time, for it may yet come."""
    path = files.put("/sys/zone", b"1")

    def refuse(*_: object) -> bytes:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", refuse)
        patch.setattr(os, "pread", refuse)
        for _ in range(5):
            with pytest.raises(OSError, match="'/sys/zone'"):
                files.tree.read(path)
    assert 0 == files.gone
    assert b"1" == files.tree.read(path)


def _race(read: Callable[[], object], threads: int) -> None:
    """Run in several threads at once, and raise what the first of them raised."""
    faults: list[BaseException] = []
    begin = threading.Barrier(threads)

    def run() -> None:
        begin.wait()
        try:
            for _ in range(200):
                read()
        except BaseException as fault:  # noqa: BLE001  (raised in the test's own thread)
            faults.append(fault)

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if faults:
        raise faults[0]


def test_two_threads_may_read_the_same_file(files: Files) -> None:
    """One that was left behind comes back while its successor reads, or lets go of all."""
    path = files.put("/proc/file", bytes(range(256)) * 300)
    content = files.live.read(path)
    before = open_below(files.root)

    def read() -> None:
        assert content == files.tree.read(path)
        files.tree._let_go()

    _race(read, 4)
    files.tree._let_go()
    assert before == open_below(files.root)
