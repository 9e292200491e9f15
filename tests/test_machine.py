"""Machines as folders and archives: what is in them is played as it was, and what is wrong with them is said."""

import gzip
import io
import json
import os
import queue
import socket
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_agent.agent import machine as machines
from spark_agent.agent.machine import Identity, Machine, MachineError, RecordedNvml, demos, open_demo, open_machine
from spark_agent.collectors import NvmlError, Origin, Reason, Unavailable
from spark_agent.collectors._tree import MemoryTree

IDENTITY = {"format": 1, "name": "box", "origin": "synthetic"}
HWMON = "sys/devices/platform/spbm/hwmon/hwmon3"

Files = Mapping[str, Any]  # a text, bytes, or what JSON makes of anything else


def _bytes(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    return (content if isinstance(content, str) else json.dumps(content)).encode()


def _folder(path: Path, files: Files, links: Mapping[str, str] | None = None) -> Path:
    """Write a machine as a folder; machine.json is there unless it is given as None."""
    path.mkdir(exist_ok=True)
    for name, content in ({"machine.json": IDENTITY} | dict(files)).items():
        if content is not None:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(_bytes(content))
    for name, to in (links or {}).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).symlink_to(to)
    return path


def _member(name: str, content: bytes = b"", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in more.items():
        setattr(member, key, value)
    return member, content


def _tar(*more: tuple[tarfile.TarInfo, bytes], below: str = "", files: Files | None = None) -> bytes:
    """Return a tar archive of a machine, not compressed, with more members."""
    packed = io.BytesIO()
    found = {"machine.json": IDENTITY} | dict(files or {})
    members = [_member(below + name, _bytes(content)) for name, content in found.items() if content is not None]
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for member, content in (*members, *more):
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _archive(path: Path, content: bytes) -> Path:
    file = path / "machine.tar.gz"
    file.write_bytes(gzip.compress(content, 1))
    return file


def _refused(path: Path) -> str:
    with pytest.raises(MachineError) as caught:
        open_machine(path)
    return str(caught.value)


def _read(machine: Machine, path: str) -> str:
    try:
        return machine.host.text(path)
    except OSError as error:
        return type(error).__name__ if error.errno is None else os.strerror(error.errno)


# What a machine is


@pytest.mark.parametrize("form", ["folder", "archive", "archive below a folder", "tar"])
def test_a_machine_is_a_folder_or_its_archive(tmp_path: Path, form: str) -> None:
    """All forms of one machine are the same machine."""
    files = {
        "machine.json": IDENTITY | {"origin": "recorded", "note": "a note", "recorded_at": "2026-01-02T03:04:05Z"},
        f"root/{HWMON}/name": "spbm\n",
        "root/proc/7/comm": "python3\n",
        "errors.json": {f"{HWMON}/power1_cap": "ENODATA"},
        "nvml.json": {"devices": [{"nvmlDeviceGetName": "NVIDIA GB10"}]},
        "udev.json": [{"subsystem": "nvme", "sys_path": "/sys/x", "properties": {"ID_MODEL": "a drive"}}],
    }
    link = _member("root/sys/class/hwmon/hwmon3", type=tarfile.SYMTYPE, linkname=f"../../../{HWMON}")
    if form == "folder":
        path = _folder(tmp_path / "box", files, {"root/sys/class/hwmon/hwmon3": f"../../../{HWMON}"})
    elif form == "tar":
        path = tmp_path / "box.tar"
        path.write_bytes(_tar(link, files=files))
    else:
        below = "box/" if form == "archive below a folder" else ""
        path = _archive(
            tmp_path,
            _tar(_member(below + link[0].name, type=b"2", linkname=link[0].linkname), below=below, files=files),
        )
    machine = open_machine(path)
    host = machine.host
    assert ("box", Origin.RECORDED, "a note") == (host.name, host.origin, host.note)
    assert (0.0, 1767323045.0) == (host.clock(), host.now())
    assert "spbm" == _read(machine, "/sys/class/hwmon/hwmon3/name")
    assert f"/{HWMON}" == host.real("/sys/class/hwmon/hwmon3")
    assert "No data available" == _read(machine, "/sys/class/hwmon/hwmon3/power1_cap")
    assert "NVIDIA GB10" == host.nvml.call("nvmlDeviceGetName", 0)
    assert {"ID_MODEL": "a drive"} == host.udev.properties("/sys/x")
    assert {} == host.udev.properties("/sys/y")
    assert "python3" == host.processes.name(7)
    with pytest.raises(Unavailable, match="process 8 is gone"):
        host.processes.name(8)


def test_all_but_machine_json_may_be_missing(tmp_path: Path) -> None:
    """Such a machine has no files, no NVML, no udev, and the time of its opening."""
    host = open_machine(_folder(tmp_path / "box", {})).host
    assert [] == host.list("/")
    assert host.now() > 1.7e9
    with pytest.raises(NvmlError, match="LIBRARY_NOT_FOUND"):
        host.nvml.call("nvmlDeviceGetName", 0)


@pytest.mark.parametrize("name", demos())
def test_every_demo_opens(name: str) -> None:
    """Under its own name, and never as a recording."""
    host = open_demo(name).host
    assert (name, Origin.SYNTHETIC) == (host.name, host.origin)
    assert host.note


def test_empty_directories_are_kept(tmp_path: Path) -> None:
    """A driver without devices is an empty directory, and that means something."""
    folder = _folder(tmp_path / "box", {})
    (folder / "root/sys/bus/pci/drivers/nvme").mkdir(parents=True)
    packed = _tar(_member("root/sys/bus/pci/drivers/nvme", type=tarfile.DIRTYPE))
    for machine in (open_machine(folder), open_machine(_archive(tmp_path, packed))):
        assert ["nvme"] == machine.host.list("/sys/bus/pci/drivers")
        assert [] == machine.host.list("/sys/bus/pci/drivers/nvme")


@pytest.mark.parametrize("below", ["", "box/"])
def test_the_folder_is_that_of_the_outermost_machine_json(tmp_path: Path, below: str) -> None:
    """Wherever in the archive another one comes; what lies beside it, as tar on a Mac puts there, is no part of it."""
    other = _member(f"{below}root/machine.json", _bytes(IDENTITY | {"name": "inner"}))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for member, content in (
            _member("._box", b"x"),
            other,
            _member(f"{below}machine.json", _bytes(IDENTITY)),
            _member(f"{below}root/a", b"1"),
        ):
            archive.addfile(member, io.BytesIO(content))
    machine = open_machine(_archive(tmp_path, packed.getvalue()))
    assert "box" == machine.host.name
    assert ["a", "machine.json"] == machine.host.list("/")


def test_nothing_outside_is_reached(tmp_path: Path) -> None:
    """``..`` and links stay within the machine, where the file of that name is its own."""
    (tmp_path / "secret").write_text("of this computer")
    folder = _folder(
        tmp_path / "box",
        {"root/etc/hostname": "recorded"},
        {"root/sys/absolute": "/etc/hostname", "root/sys/relative": "../etc/hostname"},
    )
    machine = open_machine(folder)
    assert "recorded" == _read(machine, "/sys/absolute") == _read(machine, "/sys/relative")
    assert "recorded" == _read(machine, "/../../etc/hostname")
    assert "No such file or directory" == _read(machine, "/../secret")


# What is none


def test_any_other_folder_is_refused_at_once(tmp_path: Path) -> None:
    """Before anything in it is read: it may be ``/``."""
    assert f"{tmp_path}: no machine.json in it, so it is no machine" == _refused(tmp_path)
    assert "/: no machine.json in it, so it is no machine" == _refused(Path("/"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty file"),
        (b"no archive at all", "truncated header"),
        (b"\x1f\x8b", "truncated|ended|EOF"),
        (b"\x1f\x8b" + b"\x01" * 20, "compression method"),
        (gzip.compress(b"", mtime=0), "empty file"),
        (gzip.compress(_tar(files={"root/a": "x" * 5000}), mtime=0)[:-60], "ended before"),
        (gzip.compress(_tar(), mtime=0)[:-8] + bytes(8), "CRC"),
        (_tar(files={"root/a": "x" * 5000})[:4000], "unexpected end of data"),
        (gzip.compress(b"x" * 5000, mtime=0), "invalid header|bad checksum|truncated"),
        (b'{"format": 1}', "truncated header"),
        (_tar(files={"machine.json": None}), "no machine.json in it"),
        (_tar(below="a/b/"), "no machine.json in it"),
        (_tar(_member("root", type=tarfile.SYMTYPE, linkname="/")), "root: a link out of the machine, to /"),
    ],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    """In one line that names the file and the damage."""
    file = tmp_path / "box.tar.gz"
    file.write_bytes(content)
    with pytest.raises(MachineError, match=says) as caught:
        open_machine(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (_member("../evil", b"x"), "../evil: leads out of the archive; refused"),
        (_member("root/../../evil", b"x"), "root/../../evil: leads out of the archive; refused"),
        (_member("..", type=tarfile.DIRTYPE), "..: leads out of the archive; refused"),
        (_member("/etc/evil", b"x"), "/etc/evil: leads out of the archive; refused"),
        (_member("//etc/evil", b"x"), "//etc/evil: leads out of the archive; refused"),
        (_member("root/a", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "root/a: a link out of the machine"),
        (_member("root/a", type=tarfile.SYMTYPE, linkname="../../../etc/passwd"), "root/a: a link out of the machine"),
        (_member("root/a", type=tarfile.SYMTYPE, linkname="../machine.json"), "root/a: a link out of the machine"),
        (_member("root/a", type=tarfile.SYMTYPE, linkname="b/../../c"), "root/a: a link out of the machine"),
        (_member("nvml.json", type=tarfile.SYMTYPE, linkname="root/a"), "nvml.json: a link out of the machine"),
        (_member("root/a", type=tarfile.LNKTYPE, linkname="machine.json"), "root/a: neither a file, a folder nor"),
        (_member("root/a", type=tarfile.LNKTYPE, linkname="/etc/passwd"), "root/a: neither a file, a folder nor"),
        (_member("root/a", type=tarfile.CHRTYPE, devmajor=1, devminor=5), "root/a: neither a file, a folder nor"),
        (_member("root/a", type=tarfile.BLKTYPE), "root/a: neither a file, a folder nor"),
        (_member("root/a", type=tarfile.FIFOTYPE), "root/a: neither a file, a folder nor"),
        (_member("root/\x1b[2Ja", b"x"), "'root/\\x1b[2Ja': no name of a file that a kernel shows; refused"),
        (_member("root/" + "a/" * 3000, b"x"), "no name of a file that a kernel shows; refused"),
        (_member("machine.json/root", b"x", type=tarfile.REGTYPE), ""),
    ],
)
def test_what_an_archive_must_not_hold(tmp_path: Path, member: tuple[tarfile.TarInfo, bytes], says: str) -> None:
    """Paths and links out of it, and what is neither file, folder nor link; the member is named."""
    file = _archive(tmp_path, _tar(member))
    if not says:
        open_machine(file)
        return
    assert _refused(file).startswith(f"{file}: ")
    assert says in _refused(file)


def test_links_that_lead_inside_are_taken(tmp_path: Path) -> None:
    """Relative ones even where they dangle, as some in ``/sys`` do; absolute ones to what is there."""
    packed = _tar(
        _member("root/sys/a", type=tarfile.SYMTYPE, linkname="../proc/none"),
        _member("root/sys/b", type=tarfile.SYMTYPE, linkname="/proc/version"),
        _member("root/sys/c", type=tarfile.SYMTYPE, linkname="b"),
        _member("root/sys/..d", b"a name with dots"),
        files={"root/proc/version": "Linux"},
    )
    machine = open_machine(_archive(tmp_path, packed))
    assert "none" == machine.host.link("/sys/a")
    assert "Linux" == _read(machine, "/sys/b") == _read(machine, "/sys/c")
    assert "a name with dots" == _read(machine, "/sys/..d")


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("root/a", "/etc/passwd"),
        ("root/a", "../../secret"),
        ("root", "/"),
        ("nvml.json", "../nvml.json"),
    ],
)
def test_links_out_of_a_folder_are_refused_as_well(tmp_path: Path, name: str, to: str) -> None:
    """A folder is no other machine than its archive."""
    (tmp_path / "nvml.json").write_text("{}")
    folder = _folder(tmp_path / "box", {}, {name: to})
    assert f"{folder}: {name}: a link out of the machine, to {to}; refused" == _refused(folder)


def test_machine_json_is_a_file(tmp_path: Path) -> None:
    """As a link it could be another machine's, or anything else that this user can read."""
    (tmp_path / "machine.json").write_text(json.dumps(IDENTITY))
    folder = _folder(tmp_path / "box", {"machine.json": None}, {"machine.json": "../machine.json"})
    assert f"{folder}: machine.json: expected a file" == _refused(folder)


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_a_folder_holds_files_folders_and_links_only(tmp_path: Path, kind: str) -> None:
    """A fifo would hang whoever opens it; what hangs is said in errors.json."""
    folder = _folder(tmp_path / "box", {"root/a": ""})
    if kind == "fifo":
        os.mkfifo(folder / "root/b")
        assert "neither file, folder nor link; say HANG" in _refused(folder)
        return
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "root/b"))
        assert "neither file, folder nor link; say HANG" in _refused(folder)


def _raise_denied(path: Path) -> Iterator[Path]:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the system says of it."""
    folder = _folder(tmp_path / "box", {"root/a": ""})
    monkeypatch.setattr(Path, "iterdir", _raise_denied)
    assert f"{folder}: Permission denied" == _refused(folder)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    """As a file that is gone between the look at it and its opening."""
    assert f"{tmp_path / 'none'}: No such file or directory" == _refused(tmp_path / "none")


def test_a_device_without_end_has_one() -> None:
    """``--machine /dev/zero`` reads no more than a machine may have."""
    assert "more than 50000 files or 256 MiB; this is no machine" in _refused(Path("/dev/zero"))


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    """A bomb of a quarter of a megabyte; what its headers say of the size is not asked."""
    file = tmp_path / "bomb.tar.gz"
    file.write_bytes(gzip.compress(_member("root/a")[0].tobuf() + bytes(1 << 20)) * 257)
    assert file.stat().st_size < 1 << 19
    assert f"{file}: more than 50000 files or 256 MiB; this is no machine" == _refused(file)


@pytest.mark.parametrize("name", ["root/a", "root/a{}"])
def test_an_archive_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each counts, whether it replaces another or not."""
    monkeypatch.setattr(machines, "_MOST_FILES", 100)
    packed = _tar(*(_member(name.format(number)) for number in range(101)))
    assert "more than 100 files" in _refused(_archive(tmp_path, packed))


def test_a_folder_of_too_much_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of a terabyte takes no room on the disk, and would take all in memory."""
    folder = _folder(tmp_path / "box", {"root/a": ""})
    os.truncate(folder / "root/a", 1 << 40)
    assert "more than 50000 files or 256 MiB" in _refused(folder)
    os.truncate(folder / "root/a", 0)
    monkeypatch.setattr(machines, "_MOST_FILES", 100)
    for number in range(101):
        (folder / f"root/{number}").touch()
    assert "more than 100 files" in _refused(folder)


def test_a_member_of_negative_size_is_refused(tmp_path: Path) -> None:
    """By it, tarfile would go back and never end (CVE-2025-8194)."""
    member, _ = _member("root/a")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    # A size of -512 in GNU's base 256, and the checksum over it.
    header[124:136] = (-512).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    assert "neither a file" in _refused(_archive(tmp_path, bytes(header) + _tar()))


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    """It claims any size, and takes none in the archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, text in (
            _member("machine.json", _bytes(IDENTITY)),
            _member("root/a", pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 40)}),
        ):
            archive.addfile(member, io.BytesIO(text))
    assert "neither a file" in _refused(_archive(tmp_path, packed.getvalue()))


_WHOLE = _tar(
    _member("root/a/b", type=tarfile.SYMTYPE, linkname="../c"),
    _member("root/d", type=tarfile.DIRTYPE),
    files={"root/c": "1\n", "errors.json": {"c": "EIO"}, "nvml.json": {"devices": []}, "udev.json": []},
)


with tarfile.open(fileobj=io.BytesIO(_WHOLE)) as _archived:
    _HEADERS = [member.offset for member in _archived]
_DAMAGE = st.lists(st.tuples(st.integers(0, len(_WHOLE) - 1), st.binary(min_size=1, max_size=12)), max_size=6)


def _with_checksums(content: bytearray) -> bytearray:
    """Let the damage through to what reads the headers."""
    for at in _HEADERS:
        content[at + 148 : at + 156] = b" " * 8
        content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    return content


@settings(max_examples=300, deadline=None)
@given(damage=_DAMAGE, length=st.just(len(_WHOLE)) | st.integers(0, len(_WHOLE)), sums=st.booleans())
def test_any_damage_is_told_in_one_line(
    damage: list[tuple[int, bytes]], length: int, sums: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever an archive holds, it is a machine or a `MachineError`, and never anything else."""
    content = bytearray(_WHOLE)
    for at, noise in damage:
        content[at : at + len(noise)] = noise
    file = tmp_path_factory.getbasetemp() / "damaged.tar"
    file.write_bytes((_with_checksums(content) if sums else content)[:length])
    try:
        open_machine(file)
    except MachineError as error:
        assert str(error).startswith(f"{file}: ")  # noqa: PT017  (either is right)
        assert str(error).isprintable()  # noqa: PT017


# What its files say


@pytest.mark.parametrize(
    ("identity", "says"),
    [
        ([], "expected an object"),
        ({}, "format None, this agent reads 1; is the agent too old?"),
        (IDENTITY | {"format": 2}, "format 2, this agent reads 1; is the agent too old?"),
        (IDENTITY | {"format": "1"}, "format '1', this agent reads 1"),
        (IDENTITY | {"format": True}, "format True, this agent reads 1"),
        (IDENTITY | {"origin": "live"}, 'origin \'live\'; expected "recorded" or "synthetic"'),
        (IDENTITY | {"origin": ["recorded"]}, "origin ['recorded']; expected"),
        ({"format": 1, "name": "x"}, "origin None; expected"),
        (IDENTITY | {"name": ""}, "name '', note ''; expected texts of one line"),
        (IDENTITY | {"name": None}, "name None, note ''; expected texts of one line"),
        (IDENTITY | {"name": 5}, "name 5, note ''; expected texts of one line"),
        (IDENTITY | {"name": "\x1b[2J"}, r"name '\x1b[2J', note ''; expected texts of one line"),
        (IDENTITY | {"note": "a\nb"}, r"note 'a\nb'; expected texts of one line"),
        (IDENTITY | {"note": {"a": 1}}, "note {'a': 1}; expected texts of one line"),
        (IDENTITY | {"recorded_at": "yesterday"}, "recorded_at 'yesterday': Invalid isoformat"),
        (IDENTITY | {"recorded_at": []}, "recorded_at []: "),
        (IDENTITY | {"recorded_at": 10**400}, "recorded_at 1000"),
        (IDENTITY | {"recorded_at": 1e300}, "recorded_at 1e+300; expected ISO 8601, or seconds since 1970"),
        (IDENTITY | {"recorded_at": -1}, "recorded_at -1; expected ISO 8601"),
        (IDENTITY | {"recorded_at": "0001-01-01"}, "recorded_at '0001-01-01'"),
    ],
)
def test_an_identity_that_is_none_is_refused(tmp_path: Path, identity: Any, says: str) -> None:
    """machine.json is named, with what was found and what was expected."""
    folder = _folder(tmp_path / "box", {"machine.json": identity})
    assert _refused(folder).startswith(f"{folder}: machine.json: ")
    assert says in _refused(folder)


@pytest.mark.parametrize(
    ("recorded_at", "seconds"),
    [
        ("2026-01-02T03:04:05+00:00", 1767323045.0),
        ("2026-01-02T03:04:05+01:00", 1767319445.0),
        ("2026-01-02T03:04:05", 1767323045.0),
        ("2026-01-02", 1767312000.0),
        (1767323045, 1767323045.0),
        (1767323045.5, 1767323045.5),
    ],
)
def test_the_time_of_recording_is_the_same_wherever_it_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded_at: object, seconds: float
) -> None:
    """Without a zone it is UTC."""
    folder = _folder(tmp_path / "box", {"machine.json": IDENTITY | {"recorded_at": recorded_at}})
    try:
        for zone in ("Asia/Tokyo", "UTC", "America/New_York"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert seconds == open_machine(folder).host.now()
    finally:
        monkeypatch.undo()
        time.tzset()


FILES = ("machine.json", "errors.json", "nvml.json", "udev.json", "timeline.jsonl")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"nonsense", "line 1, column 1: Expecting value"),
        (b"{", "line 1, column 2: Expecting property name enclosed in double quotes"),
        (b'{"a": 1,}', "line 1, column "),
        (b'{"t": 0} x', "line 1, column 10: Extra data"),
        (b'{"t": yes}', "line 1, column 7: Expecting value"),
        (b'{"a": "NaN", "t": NaN}', "line 1, column 19: NaN is no number that JSON has"),
        (b'{"a": "\\"-Infinity", "t": -Infinity}', "line 1, column 27: -Infinity is no number that JSON has"),
        (b'{"t": 1e999}', "line 1, column 7: 1e999 is no number that JSON has"),
        (b'{"t": "\xff"}', "line 1, column 8: not UTF-8"),
        (b'\xef\xbb\xbf{"t": 0}', "line 1, column 1: Unexpected UTF-8 BOM"),
        (b"[" * 100_000, "recursion"),
        (b"1" * 5000, "digits"),
    ],
)
def test_malformed_json_is_shown_where_it_is(tmp_path: Path, name: str, text: bytes, says: str) -> None:
    """File, line and column, in each of the machine's files."""
    folder = _folder(tmp_path / "box", {name: text})
    assert _refused(folder).startswith(f"{folder}: {name}: ")
    assert says in _refused(folder)


@pytest.mark.parametrize("name", FILES[:-1])
def test_an_empty_file_is_no_json(tmp_path: Path, name: str) -> None:
    """Only a timeline may be empty: it is one without steps."""
    folder = _folder(tmp_path / "box", {name: "", "timeline.jsonl": ""})
    assert f"{folder}: {name}: line 1, column 1: Expecting value" == _refused(folder)


def test_a_line_is_counted_from_the_files_beginning(tmp_path: Path) -> None:
    """In a file of many lines, and in one of a line each."""
    folder = _folder(tmp_path / "box", {"nvml.json": '{\n "devices": [],\n "ü": NaN}', "timeline.jsonl": ""})
    assert f"{folder}: nvml.json: line 3, column 7: NaN is no number that JSON has" == _refused(folder)
    _folder(folder, {"nvml.json": "{}", "timeline.jsonl": '{"t": 0}\n\n{"t": 1}\n{"t" 2}\n'})
    assert f"{folder}: timeline.jsonl: line 4, column 6: Expecting ':' delimiter" == _refused(folder)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("errors.json", [], "errors.json: expected an object"),
        ("errors.json", {"a": "ENOSUCH"}, "errors.json: a: 'ENOSUCH' is neither an errno name, such as ENODATA, nor"),
        ("errors.json", {"a": "errorcode"}, "errors.json: a: 'errorcode' is neither an errno name"),
        ("errors.json", {"a": 5}, "errors.json: a: 5 is neither an errno name"),
        ("errors.json", {"a": None}, "errors.json: a: None is neither an errno name"),
        ("errors.json", {"": "EIO"}, "errors.json: "),
        ("errors.json", {"file/below": "EIO"}, "errors.json: file/below: file is not a directory"),
        ("nvml.json", [], "nvml.json: expected an object"),
        ("nvml.json", "SUCCESS", "nvml.json: line 1, column 1"),
        ("nvml.json", {"devices": {}}, "nvml.json: devices: expected a list of objects"),
        ("nvml.json", {"devices": [5]}, "nvml.json: devices: expected an object"),
        ("nvml.json", {"system": []}, "nvml.json: system: expected an object"),
        ("nvml.json", {"devices": [{"fields": 5}]}, "nvml.json: fields: expected an object"),
        ("udev.json", {}, "udev.json: expected a list"),
        ("udev.json", [5], "udev.json: expected an object"),
        ("udev.json", [{}], "udev.json: expected a sys_path and properties that are texts"),
        ("udev.json", [{"sys_path": 5}], "udev.json: expected a sys_path and properties that are texts"),
        ("udev.json", [{"sys_path": "/", "properties": []}], "udev.json: properties: expected an object"),
        ("udev.json", [{"sys_path": "/", "properties": {"a": 5}}], "udev.json: expected a sys_path and properties"),
        ("timeline.jsonl", "[]", "timeline.jsonl: line 1: expected an object"),
        ("timeline.jsonl", "{}", "timeline.jsonl: line 1: t None; expected seconds, not before the line above"),
        ("timeline.jsonl", '{"t": "1"}', "timeline.jsonl: line 1: t '1'; expected seconds"),
        ("timeline.jsonl", '{"t": true}', "timeline.jsonl: line 1: t True; expected seconds"),
        ("timeline.jsonl", '{"t": 2}\n{"t": 1.5}', "timeline.jsonl: line 2: t 1.5; expected seconds, not before"),
        ("timeline.jsonl", '{"t": 0, "root": []}', "timeline.jsonl: line 1: root: expected an object"),
        ("timeline.jsonl", '{"t": 0, "root": {"a": 5}}', "timeline.jsonl: line 1: root: expected texts or null"),
        ("timeline.jsonl", '{"t": 0, "root": {"a": "\\ud800"}}', "timeline.jsonl: line 1: root: expected texts"),
        ("timeline.jsonl", '{"t": 0, "root": {"": "x"}}', "timeline.jsonl: line 1: "),
        ("timeline.jsonl", '{"t": 0, "root": {"file/a": "x"}}', "line 1: file/a: file is not a directory"),
        ("timeline.jsonl", '{"t": 0, "errors": {"a": "X"}}', "timeline.jsonl: line 1: a: 'X' is neither an errno"),
        ("timeline.jsonl", '{"t": 0, "nvml": null}', "timeline.jsonl: line 1: nvml: expected an object"),
        ("timeline.jsonl", '{"t": 0, "nvml": {"devices": 5}}', "line 1: nvml: devices: expected a list of objects"),
        ("timeline.jsonl", '{"t": 0, "nvml": {"fields": 5}}', "line 1: nvml: fields: expected an object"),
        ("timeline.jsonl", '{"t": 0, "nvml": {"init": "X"}}', "line 1: nvml: there is no nvml.json"),
    ],
)
def test_wrong_shapes_are_named(tmp_path: Path, name: str, content: Any, says: str) -> None:
    """The file, the line where it has lines, the key, and what was expected there."""
    folder = _folder(tmp_path / "box", {"root/file": "", name: content})
    assert _refused(folder).startswith(f"{folder}: {name}: ")
    assert says in _refused(folder)


def test_a_file_of_the_machine_is_no_folder(tmp_path: Path) -> None:
    """An archive may name one so."""
    packed = _tar(_member("nvml.json", type=tarfile.DIRTYPE))
    assert "nvml.json: expected a file" in _refused(_archive(tmp_path, packed))
    packed = _tar(_member("machine.json", type=tarfile.DIRTYPE), files={"machine.json": None})
    assert "machine.json: expected a file" in _refused(_archive(tmp_path, packed))


def test_a_file_below_a_file_is_refused(tmp_path: Path) -> None:
    """An archive can claim it, a disk cannot."""
    packed = _tar(_member("root/a", b"x"), _member("root/a/b", b"y"))
    assert "/a/b: a is not a directory" in _refused(_archive(tmp_path, packed))


# How it moves


def _timeline(*steps: Mapping[str, Any]) -> str:
    return "".join(f"{json.dumps(step)}\n" for step in steps)


def test_a_timeline_moves_files_and_faults(tmp_path: Path) -> None:
    """In the order of its lines, each when its time has come: text replaces, null removes, an error comes and heals."""
    machine = open_machine(
        _folder(
            tmp_path / "box",
            {
                "root/sys/power": "1",
                "root/sys/gone": "here",
                "errors.json": {"/sys/sick": "EIO", "sys/mended": "ENODATA"},
                "root/sys/mended": "ok",
                "timeline.jsonl": _timeline(
                    {"t": 0, "root": {"sys/power": "2"}},
                    {"t": 1, "root": {"sys/power": "3", "/sys/gone": None}, "errors": {"sys/mended": None}},
                    {"t": 1, "root": {"sys/new/deep": "made"}},
                    {"t": 2.5, "errors": {"sys/power": "EBADMSG"}},
                    {"t": 3, "root": {"sys/power": "4"}},
                    {"t": 4, "errors": {"sys/power": None}},
                ),
            },
        )
    )
    seen: list[tuple[str, ...]] = []
    for t in (0.0, 0.9, 1.0, 2.4, 2.5, 3.0, 5.0):
        machine.play(t)
        assert t == machine.host.clock()
        seen.append(tuple(_read(machine, f"/sys/{name}") for name in ("power", "gone", "mended", "new/deep")))
    none, no_data, bad = "No such file or directory", "No data available", "Bad message"
    assert [
        ("2", "here", no_data, none),
        ("2", "here", no_data, none),
        ("3", none, "ok", "made"),
        ("3", none, "ok", "made"),
        (bad, none, "ok", "made"),
        (bad, none, "ok", "made"),
        ("4", none, "ok", "made"),
    ] == seen
    assert "Input/output error" == _read(machine, "/sys/sick")


def test_a_leap_arrives_where_a_walk_does(tmp_path: Path) -> None:
    """However long the beat, no step is left out."""
    steps = _timeline(*({"t": t, "root": {"a": str(t), f"b{t}": "x"}} for t in range(100)))
    folder = _folder(tmp_path / "box", {"timeline.jsonl": steps})
    walked, leapt = open_machine(folder), open_machine(folder)
    for t in range(61):
        walked.play(float(t))
    leapt.play(60)
    for machine in (walked, leapt):
        assert "60" == _read(machine, "/a")
        assert 62 == len(machine.host.list("/"))


def test_the_machines_clock_is_its_own(tmp_path: Path) -> None:
    """It stands still between two beats, and the date goes with it."""
    folder = _folder(tmp_path / "box", {"machine.json": IDENTITY | {"recorded_at": 1000}})
    machine = open_machine(folder)
    assert (0.0, 1000.0) == (machine.host.clock(), machine.host.now())
    machine.play(12.5)
    assert (12.5, 1012.5) == (machine.host.clock(), machine.host.now())


def test_a_step_that_cannot_be_taken_names_its_line(tmp_path: Path) -> None:
    """It may fit the machine only when its time has come."""
    timeline = _timeline({"t": 1, "root": {"a": "x"}}, {"t": 2, "root": {"a/b": "x"}})
    machine = open_machine(_folder(tmp_path / "box", {"timeline.jsonl": timeline}))
    machine.play(1)
    with pytest.raises(MachineError, match=r"box: timeline\.jsonl: line 2: a/b: a is not a directory$"):
        machine.play(2)


def _nvml_machine(tmp_path: Path, nvml: Mapping[str, Any], *steps: Mapping[str, Any]) -> Machine:
    return open_machine(_folder(tmp_path / "box", {"nvml.json": nvml, "timeline.jsonl": _timeline(*steps)}))


def _answer(machine: Machine, function: str, device: int | None = 0, *arguments: str) -> Any:
    try:
        return machine.host.nvml.call(function, device, *arguments)
    except NvmlError as error:
        return error.code


def test_a_timeline_merges_nvml_into_the_first_device(tmp_path: Path) -> None:
    """Call by call; within the fields, field by field; another device stays as it is."""
    machine = _nvml_machine(
        tmp_path,
        {
            "devices": [
                {"nvmlDeviceGetPowerUsage": 1, "nvmlDeviceGetName": "a", "fields": {"185": 1, "83": 2}},
                {"nvmlDeviceGetPowerUsage": 9},
            ]
        },
        {"t": 1, "nvml": {"nvmlDeviceGetPowerUsage": 5, "fields": {"83": 3}}},
        {"t": 2, "nvml": {"fields": {"error": "GPU_IS_LOST"}}},
        {"t": 100, "nvml": {"fields": {"186": 7}}},
    )

    def fields() -> Any:
        return _answer(machine, "nvmlDeviceGetFieldValues", 0, "185", "83", "186")

    assert {"185": 1, "83": 2} == fields()
    machine.play(1)
    assert [5, "a", 9] == [
        _answer(machine, *call)
        for call in (("nvmlDeviceGetPowerUsage", 0), ("nvmlDeviceGetName", 0), ("nvmlDeviceGetPowerUsage", 1))
    ]
    assert {"185": 1, "83": 3} == fields()
    machine.play(2)
    assert "GPU_IS_LOST" == fields()
    machine.play(100)
    assert {"186": 7} == fields()


def test_a_timeline_replaces_init_and_system_and_devices(tmp_path: Path) -> None:
    """A driver that goes takes every call with it, and may come back as another version without a GPU."""
    machine = _nvml_machine(
        tmp_path,
        {"system": {"nvmlSystemGetDriverVersion": "580"}, "devices": [{"nvmlDeviceGetName": "a"}]},
        {"t": 1, "nvml": {"init": {"error": "DRIVER_NOT_LOADED"}}},
        {"t": 100, "nvml": {"init": "SUCCESS", "system": {"nvmlSystemGetDriverVersion": "590"}, "devices": []}},
        {"t": 200, "nvml": {"nvmlDeviceGetName": "b"}},
    )

    def version() -> Any:
        return _answer(machine, "nvmlSystemGetDriverVersion", None)

    assert ("580", 1) == (version(), machine.host.nvml.count())
    machine.play(1)
    assert "DRIVER_NOT_LOADED" == version() == _answer(machine, "nvmlDeviceGetName")
    machine.play(100)
    assert ("590", 0) == (version(), machine.host.nvml.count())
    machine.play(200)
    assert ("b", 1) == (_answer(machine, "nvmlDeviceGetName"), machine.host.nvml.count())


def test_a_step_leaves_what_a_call_is_reading() -> None:
    """NVML answers in a thread of its own, which a beat may overtake."""
    content = {"devices": [{"fields": {"83": 1}}]}
    library = RecordedNvml(content)
    library.merge({"fields": {"83": 2}, "nvmlDeviceGetName": "x", "init": {"error": "UNKNOWN"}})
    assert {"devices": [{"fields": {"83": 1}}]} == content


def test_what_nvml_json_does_not_list_is_not_supported(tmp_path: Path) -> None:
    """And what it lists is what a call answers, whatever version of the call was asked."""
    machine = _nvml_machine(
        tmp_path,
        {
            "system": {"nvmlSystemGetCudaDriverVersion_v2": 13000},
            "devices": [
                {
                    "nvmlDeviceGetClockInfo": {"SM": 208, "MEM": {"error": "NOT_SUPPORTED"}},
                    "nvmlDeviceGetMemoryInfo": {"error": "NO_PERMISSION"},
                    "nvmlDeviceGetUUID": {"error": "\x1b[2J"},
                }
            ],
        },
    )
    assert 208 == _answer(machine, "nvmlDeviceGetClockInfo", 0, "SM")
    assert "NOT_SUPPORTED" == _answer(machine, "nvmlDeviceGetClockInfo", 0, "MEM")
    assert "NOT_SUPPORTED" == _answer(machine, "nvmlDeviceGetClockInfo", 0, "VIDEO")
    assert "NOT_SUPPORTED" == _answer(machine, "nvmlDeviceGetName")
    assert "NO_PERMISSION" == _answer(machine, "nvmlDeviceGetMemoryInfo")
    assert "UNKNOWN" == _answer(machine, "nvmlDeviceGetUUID")
    assert "INVALID_ARGUMENT" == _answer(machine, "nvmlDeviceGetName", 1)
    assert 13000 == _answer(machine, "nvmlSystemGetCudaDriverVersion", None)


@pytest.mark.parametrize(
    "init", ["DRIVER_NOT_LOADED", {"error": "DRIVER_NOT_LOADED"}, {"error": 5}, 5, None, [], {"error": None}]
)
def test_nvml_may_fail_to_start_in_any_words(tmp_path: Path, init: object) -> None:
    """Every call then fails for a reason."""
    machine = _nvml_machine(tmp_path, {"init": init, "devices": [{"nvmlDeviceGetName": "a"}]})
    with pytest.raises(NvmlError) as caught:
        machine.host.nvml.call("nvmlDeviceGetName", 0)
    assert caught.value.reason in Reason
    assert caught.value.code.isprintable()


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("a", "error", "hang", "1")), inner, max_size=3)
    ),
    max_leaves=6,
).filter(lambda value: '"hang"' not in json.dumps(value))


@settings(deadline=None)
@given(_JSON, st.sampled_from(("nvmlDeviceGetName", "nvmlDeviceGetFieldValues", "nvmlInit", "nvmlDeviceGetCount")))
def test_any_answer_is_an_answer_or_an_nvml_error(value: Any, function: str) -> None:
    """Whatever nvml.json gives for a call, the funnel returns it or says why not."""
    content = {"init": value} if function == "nvmlInit" else {"system": {}, "devices": [{function: value}]}
    if function == "nvmlDeviceGetFieldValues":
        content = {"devices": [{"fields": {"1": value}}]}
    machine = Machine(Identity("x", Origin.SYNTHETIC, "", 0.0), MemoryTree(), content, [], ())
    try:
        machine.host.nvml.call(function, 0, "1")
    except NvmlError as error:
        assert error.reason in Reason  # noqa: PT017  (either is right)


class _Gate(threading.Event):
    """An event that says when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)


def test_a_call_that_hangs_fails_when_the_timeline_moves_on() -> None:
    """As a file does whose fault is healed: the driver came back, and who waited for it learns that it was gone."""
    library = RecordedNvml({"devices": [{"nvmlDeviceGetName": {"hang": True}}]})
    gate = library._moved_on = _Gate()
    outcome: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask() -> None:
        with pytest.raises(NvmlError) as failed:
            library.call("nvmlDeviceGetName", 0)
        outcome.put(failed.value.code)

    threading.Thread(target=ask).start()
    gate.reached.wait()
    library.merge({"nvmlDeviceGetName": "NVIDIA GB10"})
    assert "UNKNOWN" == outcome.get()
    assert "NVIDIA GB10" == library.call("nvmlDeviceGetName", 0)
