"""A tree in memory answers as the kernel does, so that a recorded machine is read as the live one was."""

import errno
import os
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spark_agent.collectors import natural, parse_integer
from spark_agent.collectors._tree import Fault, Link, LiveTree, MemoryTree, Tree

_NAMES = st.sampled_from(("a", "b", "c"))
_TARGETS = st.lists(st.sampled_from(("a", "b", "c", "..", ".", "")), min_size=1, max_size=4).map("/".join)
_LINKS = st.builds(Link, _TARGETS.filter(lambda target: target.strip("/") != ""))
_FOLDERS = st.recursive(
    st.dictionaries(_NAMES, st.binary(max_size=3) | _LINKS, max_size=3),
    lambda inner: st.dictionaries(_NAMES, st.binary(max_size=3) | _LINKS | inner, max_size=3),
    max_leaves=8,
)
_PATHS = st.lists(st.sampled_from(("a", "b", "c", "..", ".", "")), max_size=5).map(lambda parts: "/" + "/".join(parts))

Folder = dict[str, "Folder | bytes | Link"]


def _write(folder: Folder, path: str, memory: MemoryTree, top: str) -> None:
    """Write a folder to the disk and into memory; absolute links lead below ``top``."""
    memory.put(path, {})
    for name, node in folder.items():
        here = f"{path}/{name}"
        if isinstance(node, bytes):
            Path(here).write_bytes(node)
            memory.put(here, node)
        elif isinstance(node, Link):
            to = f"{top}{node.to}" if node.to.startswith("/") else node.to
            Path(here).symlink_to(to)
            memory.put(here, Link(to))
        else:
            Path(here).mkdir()
            _write(node, here, memory, top)


def _outcome(question: Callable[[str], object], path: str) -> object:
    """Return the answer, or the name of the error."""
    try:
        answer = question(path)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return sorted(answer) if isinstance(answer, list) else answer


@settings(max_examples=150, deadline=None)
@given(_FOLDERS, st.lists(_PATHS, min_size=1, max_size=8))
@example({"a": Link("a")}, ["/a", "/a/b", "/a/"])
@example({"a": Link("b"), "b": Link("a")}, ["/a", "/b/c"])
@example({"a": Link("c")}, ["/a", "/a/", "/a/b"])
@example({"a": Link("/b"), "b": {"c": b"1"}}, ["/a/c", "/a/../b/c", "/a/..", "/a/."])
@example({"a": {"b": Link("../../a/c"), "c": b""}}, ["/a/b", "/a/b/", "/a/c/..", "/a/c/."])
@example({"a": {"b": Link("..")}}, ["/a/b", "/a/b/a/b/a", "/a/b/.."])
def test_memory_answers_as_the_kernel(folder: Folder, paths: list[str]) -> None:
    """Content, names, links, and the very error, through links, dots and what is not there."""
    with tempfile.TemporaryDirectory() as own:
        own = os.path.realpath(own)
        top = f"{own}/1/2"
        Path(top).mkdir(parents=True)
        live, memory = LiveTree(), MemoryTree()
        _write(folder, top, memory, top)
        for path in (top + path for path in paths):
            if not os.path.realpath(path).startswith(own):
                continue  # above, the disk holds more than the memory
            for kernel, ours in ((live.read, memory.read), (live.list, memory.list), (live.link, memory.link)):
                assert _outcome(kernel, path) == _outcome(ours, path), f"{ours.__name__} {path}"
            assert live.exists(path) == memory.exists(path)
            # Python's realpath() passes through a file with "..", where the kernel does not.
            real = _outcome(live.real, path) if live.exists(path) else _outcome(memory.read, path)
            assert real == _outcome(memory.real, path)


def test_forty_links_are_followed_and_no_more(tmp_path: Path) -> None:
    """The kernel gives up at the 41st (MAXSYMLINKS); a chain that long is a loop to it."""
    live, memory = LiveTree(str(tmp_path)), MemoryTree()
    (tmp_path / "0").write_text("end")
    memory.put("/0", b"end")
    for number in range(1, 43):
        (tmp_path / str(number)).symlink_to(str(number - 1))
        memory.put(f"/{number}", Link(str(number - 1)))
    for tree in (live, memory):
        assert [b"end", "ELOOP", "ELOOP"] == [_outcome(tree.read, f"/{number}") for number in (40, 41, 42)]


@pytest.mark.parametrize("tree", ["live", "memory"])
def test_a_links_text_is_as_it_was_written(tmp_path: Path, tree: str) -> None:
    """A driver's name is the last part of a link's text; nothing may have been normalised in it."""
    (tmp_path / "driver").symlink_to("../../bus/pci/../drivers/nvme")
    memory = MemoryTree()
    memory.put("/driver", Link("../../bus/pci/../drivers/nvme"))
    trees: dict[str, Tree] = {"live": LiveTree(str(tmp_path)), "memory": memory}
    assert "../../bus/pci/../drivers/nvme" == trees[tree].link("/driver")


def test_links_cannot_leave_the_memory() -> None:
    """``..`` above the root is the root, and an absolute link starts there: as if chrooted into."""
    memory = MemoryTree()
    memory.put("/etc/hostname", b"recorded")
    memory.put("/sys/up", Link("../../../../../etc/hostname"))
    memory.put("/sys/absolute", Link("/etc/hostname"))
    memory.put("/sys/passwd", Link("/etc/passwd"))
    assert b"recorded" == memory.read("/sys/up") == memory.read("/sys/absolute") == memory.read("/../etc/hostname")
    assert "/etc/hostname" == memory.real("/sys/up")
    assert "ENOENT" == _outcome(memory.read, "/sys/passwd")


def test_an_error_names_the_path_that_was_asked() -> None:
    """The path as the collector knows it, not the real one: that is what a person looks for."""
    memory = MemoryTree()
    memory.put("/sys/devices/x/temp", Fault("EIO"))
    memory.put("/sys/class/x", Link("../devices/x"))
    with pytest.raises(OSError, match="Input/output") as caught:
        memory.read("/sys/class/x/temp")
    assert "/sys/class/x/temp" == caught.value.filename


@pytest.mark.parametrize("name", ["EIO", "EACCES", "ENODATA", "EBADMSG", "EOVERFLOW", "ENODEV"])
def test_a_fault_answers_with_its_errno(name: str) -> None:
    """Whatever is asked of the file; and the file is still there to be listed."""
    memory = MemoryTree()
    memory.put("/sys/a", b"1")
    memory.put("/sys/a", Fault(name))
    assert name == _outcome(memory.read, "/sys/a")
    assert name == _outcome(memory.list, "/sys/a")
    assert name == _outcome(memory.read, "/sys/a/b")
    assert ["a"] == memory.list("/sys")
    assert memory.exists("/sys/a")


def test_a_fault_on_a_directory_hides_all_below() -> None:
    """A device that is gone fails for each of its files; healed, they are as they were left meanwhile."""
    memory = MemoryTree()
    memory.put("/sys/d/a", b"1")
    memory.put("/sys/d", Fault("ENODEV"))
    assert "ENODEV" == _outcome(memory.list, "/sys/d") == _outcome(memory.read, "/sys/d/a")
    assert not memory.exists("/sys/d/a")
    memory.put("/sys/d/a", b"2")
    memory.put("/sys/d/b", b"3")
    memory.heal("/sys/d")
    assert [b"2", b"3"] == [memory.read(f"/sys/d/{name}") for name in sorted(memory.list("/sys/d"))]


def test_what_is_written_under_a_fault_shows_when_it_is_healed() -> None:
    """A timeline may change a file while it cannot be read."""
    memory = MemoryTree()
    memory.put("/a", b"1")
    memory.put("/a", Fault("EIO"))
    memory.put("/a", b"2")
    assert "EIO" == _outcome(memory.read, "/a")
    memory.put("/a", Fault("ENODATA"))
    assert "ENODATA" == _outcome(memory.read, "/a")
    memory.heal("/a")
    assert b"2" == memory.read("/a")
    memory.heal("/a")
    assert b"2" == memory.read("/a")


def test_a_fault_over_nothing_leaves_nothing() -> None:
    """A file that only ever failed is not there once it is healed."""
    memory = MemoryTree()
    memory.put("/d/a", Fault("EIO"))
    memory.heal("/d/a")
    memory.heal("/d/none")
    assert [] == memory.list("/d")


@pytest.mark.parametrize("end", ["heal", "remove", "replace"])
def test_whoever_waits_for_a_file_that_hangs_is_let_go_when_it_is_healed(end: str) -> None:
    """It gets an error, as of a device that was reset; the next read gets what is there now."""
    memory = MemoryTree()
    memory.put("/a", b"1")
    memory.put("/a", Fault("HANG"))
    outcomes: list[object] = []
    reader = threading.Thread(target=lambda: outcomes.append(_outcome(memory.read, "/a")), daemon=True)
    reader.start()
    if end == "heal":
        memory.heal("/a")
    else:
        memory.put("/a", None if end == "remove" else Fault("ENODATA"))
    reader.join(10)
    expected = {"heal": b"1", "remove": "ENOENT", "replace": "ENODATA"}[end]
    # The thread may have come only after the end, and then it gets what is there.
    assert outcomes[0] in ("EIO", expected)
    assert expected == _outcome(memory.read, "/a")


def test_files_are_placed_where_links_lead() -> None:
    """errors.json and timeline.jsonl name files as collectors do: through ``/sys/class``."""
    memory = MemoryTree()
    memory.put("/sys/devices/x/temp", b"1")
    memory.put("/sys/class/x", Link("../devices/x"))
    memory.put("/sys/class/x/temp", b"2")
    memory.put("/sys/class/x/new", b"3")
    assert [b"2", b"3"] == [memory.read(f"/sys/devices/x/{name}") for name in ("temp", "new")]
    memory.put("/sys/class/x/temp", None)
    assert "ENOENT" == _outcome(memory.read, "/sys/devices/x/temp")
    memory.put("/sys/class/x", None)
    assert ["new"] == memory.list("/sys/devices/x")


def test_removing_what_is_not_there_is_no_error() -> None:
    """And makes no directory either."""
    memory = MemoryTree()
    memory.put("/a/b/c", None)
    assert [] == memory.list("/")


@pytest.mark.parametrize("path", ["/", "", "/..", "/file/below", "/folder", "/loop", "/loop/below", "/up"])
def test_what_cannot_be_placed_is_refused(path: str) -> None:
    """A file is no directory, a directory no file, and a loop is neither."""
    memory = MemoryTree()
    memory.put("/file", b"")
    memory.put("/folder/a", b"")
    memory.put("/loop", Link("loop"))
    memory.put("/up", Link(".."))
    with pytest.raises(ValueError, match=r"director|links"):
        memory.put(path, b"x")
    assert b"" == memory.read("/file") == memory.read("/folder/a")


def test_an_empty_directory_keeps_what_is_in_it() -> None:
    """An archive may name a folder before its files or after them."""
    memory = MemoryTree()
    memory.put("/a/new", b"1")
    memory.put("/a", {})
    memory.put("/b", {})
    assert ["new"] == memory.list("/a")
    assert [] == memory.list("/b")
    with pytest.raises(ValueError, match="not a directory"):
        memory.put("/a/new", {})


def test_entries_are_all_there_is() -> None:
    """The recorder writes these, in an order of its own."""
    memory = MemoryTree()
    nodes: dict[str, bytes | Link | Fault] = {"/b": b"1", "/a/c": Link("../b"), "/a/b": Fault("EIO")}
    for path, node in nodes.items():
        memory.put(path, node)
    memory.put("/d", {})
    assert sorted(nodes) == list(memory.entries())
    assert nodes == memory.entries()


def test_sysfs_is_read_with_one_read(tmp_path: Path) -> None:
    """Some hwmon drivers answer EAGAIN for ever to a second one; elsewhere a file is read to its end."""
    long = b"x" * 200_000
    for folder in ("sys", "proc"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "long").write_bytes(long)
    tree = LiveTree(str(tmp_path))
    assert long[:65536] == tree.read("/sys/long")
    assert long == tree.read("/proc/long")


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), max_size=6))
@example(["²", "1²3", "٣", ""])
def test_any_names_have_a_natural_order(names: list[str]) -> None:
    """Superscripts and other alphabets' digits are no reason to fail."""
    assert sorted(names) == sorted(sorted(names, key=natural))


def test_natural_order_counts() -> None:
    """``power2`` comes before ``power10``."""
    assert ["power", "power1_cap", "power2", "power10"] == sorted(
        ["power10", "power2", "power", "power1_cap"], key=natural
    )


@settings(deadline=None)
@given(st.text(max_size=50))
@example("1_000")
@example(" 1")
@example("٣")
@example("9" * 41)
@example("1\n")
def test_a_number_is_decimal_or_garbage(text: str) -> None:
    """What int() takes beyond that is no kernel's."""
    if re.fullmatch(r"[+-]?[0-9]{1,40}", text):
        assert int(text) == parse_integer(text)
    else:
        with pytest.raises(ValueError, match=re.escape(repr(text[:60]))):
            parse_integer(text)


def test_what_changes_is_seen_on_every_way() -> None:
    """By path and by link, read before or not, however often it changes; and so is what takes its place."""
    tree = MemoryTree()
    tree.put("/devices/a/temp", b"1")
    tree.put("/class/a", Link("../devices/a"))
    ways = ("/devices/a/temp", "/class/a/temp", "/class/a/../a/temp")
    for number in range(3):
        assert not tree.put(ways[number], b"%d" % number)
        assert [b"%d" % number] * 3 == [tree.read(way) for way in ways]

    tree.put("/devices/a", Fault("EIO"))
    assert all(_fails(tree, way) for way in ways)
    tree.put("/class/a/temp", b"7")
    assert all(_fails(tree, way) for way in ways)
    tree.heal("/devices/a")
    assert [b"7"] * 3 == [tree.read(way) for way in ways]

    tree.put("/devices/b/temp", b"8")
    tree.put("/class/a", Link("../devices/b"))
    assert not tree.put("/class/a/temp", b"9")
    assert [b"7", b"9"] == [tree.read(f"/devices/{name}/temp") for name in "ab"]
    assert tree.put("/devices/b/temp", None)
    assert _fails(tree, "/class/a/temp")
    assert tree.put("/class/a/temp", b"10")
    assert b"10" == tree.read("/devices/b/temp")


def _fails(tree: MemoryTree, path: str) -> bool:
    try:
        tree.read(path)
    except OSError:
        return True
    return False
