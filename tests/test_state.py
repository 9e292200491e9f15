"""What outlives the daemon is whole at every moment, whatever ends the daemon or fills the drive."""

import errno
import fcntl
import json
import logging
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_agent.agent import state
from spark_agent.agent.state import StateError, Store

NAMESPACE = Path(__file__).parent.parent / ".namespace"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a store in a folder of its own."""
    with Store(tmp_path / "state") as opened:
        yield opened


def _refusing(number: int) -> Callable[..., Any]:
    """Return a system call that fails as a drive or a permission does."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Whole


def test_what_is_saved_is_loaded(store: Store) -> None:
    """A content comes back as it was, the newest of several, each name apart."""
    store.save("counters", {"starts": 1})
    store.save("counters", {"starts": 2, "joules": {"system": 1.5e9}, "note": "größer", "none": None})
    store.save("energy", {"resets": []})

    assert {"starts": 2, "joules": {"system": 1.5e9}, "note": "größer", "none": None} == store.load("counters")
    assert {"resets": []} == store.load("energy")
    assert store.load("verdicts") is None


def test_files_are_for_owner_and_group(store: Store) -> None:
    """Nobody else reads the state, and what a save needed on the way does not stay."""
    store.save("counters", {"starts": 1})
    store.save("counters", {"starts": 2})
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o137 for path in store.folder.iterdir()}

    assert {"counters.json": 0, "counters.previous.json": 0} == modes
    assert 0 == stat.S_IMODE(store.folder.stat().st_mode) & 0o027


def test_a_file_is_json(store: Store) -> None:
    """A person reads it with the tools for JSON."""
    store.save("counters", {"starts": 1})
    found = json.loads((store.folder / "counters.json").read_text())

    assert {"format": 1, "crc32": found["crc32"], "content": {"starts": 1}} == found


def test_no_nan_is_saved(store: Store) -> None:
    """What is no number is the caller's mistake, and does not spoil what is there."""
    store.save("counters", {"joules": 1.0})
    with pytest.raises(ValueError, match="Out of range"):
        store.save("counters", {"joules": float("nan")})

    assert {"joules": 1.0} == store.load("counters")


# Damage


@given(st.data())
def test_any_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whichever bit of the newest file flips, the generation before it is loaded, and nothing made up."""
    with Store(tmp_path_factory.mktemp("state")) as store:
        store.save("counters", {"generation": 1})
        store.save("counters", {"generation": 2})
        path = store.folder / "counters.json"
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)

        assert {"generation": 1} == store.load("counters")


@given(st.integers(0, 200))
def test_a_truncated_file_is_found(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    """However much of the newest file is left, a whole generation is loaded."""
    with Store(tmp_path_factory.mktemp("state")) as store:
        store.save("counters", {"generation": 1})
        store.save("counters", {"generation": 2})
        path = store.folder / "counters.json"
        whole = len(path.read_bytes())
        os.truncate(path, min(length, whole))

        assert {"generation": 2 if length >= whole else 1} == store.load("counters")


def test_what_is_damaged_is_set_aside(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A person may look at it later, one warning names it, and the next save goes on from the generation before."""
    store.save("counters", {"generation": 1})
    store.save("counters", {"generation": 2})
    path = store.folder / "counters.json"
    path.write_bytes(b"\0" * 100)

    assert {"generation": 1} == store.load("counters")
    assert {"generation": 1} == store.load("counters")
    store.save("counters", {"generation": 3})

    assert b"\0" * 100 == (store.folder / "counters.json.damaged").read_bytes()
    assert {"generation": 3} == store.load("counters")
    assert [f"{path} is damaged (not a whole generation); it is set aside as counters.json.damaged"] == caplog.messages


def test_both_damaged_is_a_new_beginning(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing whole is left the daemon begins anew, and both files are kept."""
    for generation in (1, 2):
        store.save("counters", {"generation": generation})
    for path in store.folder.iterdir():
        path.write_text("garbage")

    assert store.load("counters") is None
    assert ["counters.json.damaged", "counters.previous.json.damaged"] == _names(store.folder)
    assert [logging.WARNING] * 2 == [record.levelno for record in caplog.records]


def test_what_is_damaged_on_a_read_only_drive_ends_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it cannot be set aside, the warning says so, and the generation before is loaded all the same."""
    for generation in (1, 2):
        store.save("counters", {"generation": generation})
    (store.folder / "counters.json").write_text("garbage")
    monkeypatch.setattr(Path, "replace", _refusing(errno.EROFS))

    assert {"generation": 1} == store.load("counters")
    assert "cannot be set aside: Read-only file system" in caplog.text


def _of_format(path: Path, format_: int) -> bytes:
    """Make a file say that it is of another format, with a checksum that holds."""
    text = path.read_bytes().partition(b'"content": ')[2][:-2]
    checksum = state._checksum(format_, text)
    content = b'{"format": %d, "crc32": "%s", "content": %s}\n' % (format_, checksum.encode(), text)
    path.write_bytes(content)
    return content


@pytest.mark.parametrize("generation", ["counters.json", "counters.previous.json"])
@pytest.mark.parametrize("ask", [lambda store: store.load("counters"), lambda store: store.save("counters", {})])
def test_a_newer_format_is_refused_and_kept(tmp_path: Path, ask: Callable[[Store], Any], generation: str) -> None:
    """An older agent neither reads nor replaces what a newer one wrote."""
    with Store(tmp_path) as store:
        store.save("counters", {"starts": 1})
        store.save("counters", {"starts": 2})
    content = _of_format(tmp_path / generation, 2)
    with Store(tmp_path) as store, pytest.raises(StateError) as refused:
        ask(store)

    expected = f"{tmp_path / generation}: format 2, and this agent knows 1; upgrade this agent, or move the file away"
    assert expected == str(refused.value)
    assert content == (tmp_path / generation).read_bytes()


# A drive or a permission that refuses


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device; free some space on its file system"),
        (errno.EROFS, "Read-only file system; its file system is mounted read-only; mount it writable"),
        (errno.EACCES, "Permission denied; run as the user that owns it, or name another folder"),
        (errno.EIO, "Input/output error; see the kernel's log for the drive"),
    ],
)
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_failed_save_leaves_the_old_state(
    store: Store, monkeypatch: pytest.MonkeyPatch, call: str, number: int, advice: str
) -> None:
    """Whichever step fails, the error names the file and says what to do, and the generation before is found."""
    store.save("counters", {"generation": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Path if call == "replace" else os, call, _refusing(number))
        with pytest.raises(StateError) as failed:
            store.save("counters", {"generation": 2})

    assert str(failed.value).startswith(f"{store.folder / 'counters.json'}: {advice}")
    assert {"generation": 1} == store.load("counters")
    assert ["counters.json"] == _names(store.folder)


def test_a_drive_that_is_full(store: Store) -> None:
    """The kernel's own answer on a full file: nothing of what was half written stays."""
    store.save("counters", {"generation": 1})
    (store.folder / ".counters.json.new").symlink_to("/dev/full")
    with pytest.raises(StateError, match="No space left on device"):
        store.save("counters", {"generation": 2})

    assert {"generation": 1} == store.load("counters")
    assert ["counters.json"] == _names(store.folder)


def test_no_permission_to_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may not be read is no damage: it is left where it is, and told."""
    store.save("counters", {"generation": 1})
    monkeypatch.setattr(Path, "read_bytes", _refusing(errno.EACCES))
    with pytest.raises(StateError, match=r"counters\.json: Permission denied; run as the user that owns it"):
        store.load("counters")

    assert ["counters.json"] == _names(store.folder)


# The folder


def test_one_agent_per_folder(tmp_path: Path) -> None:
    """A second agent is refused while the first lives, and welcome after."""
    with Store(tmp_path), pytest.raises(StateError) as refused:
        Store(tmp_path)

    assert f"{tmp_path}: another agent holds it; stop that one, or name another folder" == str(refused.value)
    Store(tmp_path).close()


@pytest.mark.parametrize(
    ("place", "advice"),
    [
        ("missing/state", "No such file or directory; create the folder above it, or name another"),
        ("file", "not a folder; name a folder"),
        ("file/state", "Not a directory; name a folder"),
    ],
)
def test_a_folder_that_cannot_be(tmp_path: Path, place: str, advice: str) -> None:
    """No folder is made in a place that nobody made, and the error says what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(StateError) as refused:
        Store(tmp_path / place)

    assert f"{tmp_path / place}: {advice}" == str(refused.value)
    assert ["file"] == _names(tmp_path)


@pytest.mark.parametrize("call", ["mkdir", "open", "flock"])
def test_a_folder_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """No permission, whichever step meets it, is an error with the path and what to do."""
    where = {"mkdir": Path, "open": os, "flock": fcntl}[call]
    monkeypatch.setattr(where, call, _refusing(errno.EACCES))
    with pytest.raises(StateError) as refused:
        Store(tmp_path)

    expected = f"{tmp_path}: Permission denied; run as the user that owns it, or name another folder"
    assert expected == str(refused.value)


# Killed

# Saves generation after generation, and says each on stdout when it is durable.
_SAVER = """
import sys
from pathlib import Path
from spark_agent.agent.state import Store
store = Store(Path(sys.argv[1]))
generation = (store.load("counters") or {"generation": 0})["generation"]
while True:
    generation += 1
    store.save("counters", {"generation": generation, "again": [generation] * 500})
    sys.stdout.write(f"{generation}\\n")
    sys.stdout.flush()
"""

# Dies in the system call of this number, as kill -9 would have it: before it, or after.
_DIER = """
import os, sys
from pathlib import Path
from spark_agent.agent.state import Store
store = Store(Path(sys.argv[1]))
store.save("counters", {"generation": 1})
store.save("counters", {"generation": 2})
left, after = int(sys.argv[2]), sys.argv[3] == "after"
def deadly(call):
    def die(*arguments, **named):
        global left
        left -= 1
        if left == 0 and not after:
            os._exit(9)
        answer = call(*arguments, **named)
        if left == 0:
            os._exit(9)
        return answer
    return die
os.open, os.fsync, Path.replace = deadly(os.open), deadly(os.fsync), deadly(Path.replace)
store.save("counters", {"generation": 3})
"""


def _python(code: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {"PYTHONPATH": str(NAMESPACE), "PATH": os.environ["PATH"]}
    return subprocess.Popen(
        (sys.executable, "-c", code, *arguments), env=environment, stdout=subprocess.PIPE, text=True
    )


def test_kill_at_random_moments(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Killed many times while it saves, it always leaves a whole generation, none older than one acknowledged."""
    moments = random.Random(3)  # noqa: S311  (no secret)
    acknowledged = 0
    for _ in range(20):
        with _python(_SAVER, str(tmp_path)) as saver:
            assert saver.stdout
            for _ in range(moments.randint(1, 30)):
                saver.stdout.readline()
            saver.kill()
            acknowledged = int(([str(acknowledged), *saver.stdout.read().split()])[-1])
        with Store(tmp_path) as store:
            found = store.load("counters")
        assert found
        assert found["generation"] >= acknowledged
        assert [found["generation"]] * 500 == found["again"]
        acknowledged = found["generation"]

    assert [] == caplog.messages
    assert acknowledged > 20


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 7))
def test_kill_at_each_call(tmp_path: Path, caplog: pytest.LogCaptureFixture, call: int, when: str) -> None:
    """Killed before or after any system call of a save, it leaves the generation before, or the new one."""
    with _python(_DIER, str(tmp_path), str(call), when) as dier:
        assert 9 == dier.wait()
    with Store(tmp_path) as store:
        found = store.load("counters")
        assert found in ({"generation": 2}, {"generation": 3})
        assert [] == caplog.messages
        store.save("counters", {"generation": 4})

        assert {"generation": 4} == store.load("counters")
    assert ["counters.json", "counters.previous.json"] == _names(tmp_path)
