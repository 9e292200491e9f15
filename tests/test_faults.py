"""A sick machine, told whole: one bad file costs its own readings, and nothing that a file holds breaks the report."""

import errno
import io
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from spark_agent.agent.machine import Identity, Machine, RecordedNvml, open_demo
from spark_agent.agent.report import report
from spark_agent.agent.snapshot import Snapshot, Status, look
from spark_agent.collectors import Absence, Host, Item, Nvml, Origin, Reading, Reason, discover, platform, reason_of
from spark_agent.collectors._tree import Fault, Link, MemoryTree
from spark_agent.exporters.document import document, text
from spark_agent.exporters.schema import schema
from spark_agent.exporters.table import show

COLLECTORS = discover()
ASK_NVML = {name: COLLECTORS[name] for name in ("gpu", "platform")}
VALIDATOR = jsonschema.Draft202012Validator(schema(closed=True))
ERRORS = ("EIO", "EACCES", "ENODATA", "EBADMSG", "EOVERFLOW")
PAGE = "/sys/class/hwmon/hwmon7/"

# Files that say what others are: without them it is not known what those hold, and some things have no name.
NAMING = (
    *("_label", "/name", "/vendor", "/device", "/path", "_type", "/product_family"),
    *("/proc/cpuinfo", "/etc/dgx-release"),
)

pytestmark = pytest.mark.once

Key = tuple[object, ...]


def _key(item: Item) -> Key:
    return item.of, item.entity, getattr(item, "labels", ())


def _said(item: Item) -> object:
    """Return what an item says, apart from the words of a reason."""
    return item.reason if isinstance(item, Absence) else item.value


def _tree(host: Host) -> MemoryTree:
    assert isinstance(host.tree, MemoryTree)
    return host.tree


class _Noting:
    """A tree that notes which files are read."""

    def __init__(self, tree: MemoryTree) -> None:
        self._tree = tree
        self.read_files: set[str] = set()

    def read(self, path: str) -> bytes:
        if self._tree.exists(path):
            self.read_files.add(path)
        return self._tree.read(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tree, name)


@pytest.fixture(scope="module")
def machine() -> Machine:
    """Return a Spark under load, with all that a Spark can have."""
    return open_demo("fe-gemm")


@pytest.fixture(scope="module")
def readers(machine: Machine) -> Mapping[str, list[str]]:
    """Return which collectors read which files, by the paths that they use."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, read in COLLECTORS.items():
        noting = _Noting(_tree(machine.host))
        look(replace(machine.host, tree=noting), {name: read})
        for path in noting.read_files:
            found[path].append(name)
    assert len(found) > 500
    return dict(sorted(found.items()))


@pytest.fixture(scope="module")
def healthy(machine: Machine) -> Mapping[str, Mapping[Key, object]]:
    """Return what each collector says of the machine while nothing is wrong with it."""
    snapshot = look(machine.host, COLLECTORS)
    return {visit.collector: {_key(item): _said(item) for item in visit.items} for visit in snapshot.visits}


def _differences(
    host: Host, path: str, name: str, readers: list[str], healthy: Mapping[str, Mapping[Key, object]], deadline: float
) -> Iterator[str]:
    """Yield what is wrong with what is said while one file has a fault."""
    wanted = Reason.TIMEOUT if name == "HANG" else reason_of(OSError(getattr(errno, name), ""))
    tree = _tree(host)
    tree.put(path, Fault(name))
    try:
        snapshot = look(host, {reader: COLLECTORS[reader] for reader in readers}, deadline)
    finally:
        tree.heal(path)
    for visit in snapshot.visits:
        if visit.reason is wanted and path.startswith(PAGE) and path.endswith("/name"):
            # Without its name the power page is nothing, and says so as a whole.
            continue
        if visit.status is Status.FAILED or visit.reason is Reason.ERROR:
            yield f"{path} {name}: {visit.collector} failed: {visit.reason} {visit.detail}"
        before = healthy[visit.collector]
        after = {_key(item): _said(item) for item in visit.items}
        for key in before.keys() | after.keys():
            was, now = before.get(key), after.get(key)
            if was == now or key[0] is platform.EVIDENCE:
                continue
            if now is not None and not isinstance(now, Reason) and was is not None:
                yield f"{path} {name}: {key} was {was}, and is {now}"
            elif now is not wanted and not path.endswith(NAMING):
                yield f"{path} {name}: {key} was {was}, and is {now}, not {wanted}"


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_costs_its_own_readings_and_no_other(
    machine: Machine, readers: Mapping[str, list[str]], healthy: Mapping[str, Mapping[Key, object]], name: str
) -> None:
    """They are absent for that very reason; nothing else changes, vanishes, or comes to be.

    Each file gets one of the errors; those of the power page get all.
    """
    at = ERRORS.index(name)
    chosen = [path for number, path in enumerate(readers) if (number % len(ERRORS) == at or path.startswith(PAGE))]
    assert len(chosen) > 150
    wrong = [line for path in chosen for line in _differences(machine.host, path, name, readers[path], healthy, 2)]
    assert [] == wrong


def test_a_port_of_unknown_state_has_no_rate(
    machine: Machine, readers: Mapping[str, list[str]], healthy: Mapping[str, Mapping[Key, object]]
) -> None:
    """mlx5 answers 40 Gb/sec for any port that has no link."""
    ports = [path for path in readers if path.endswith("/ports/1/state")]
    assert 4 == len(ports)
    assert [] == [line for path in ports for line in _differences(machine.host, path, "EIO", ["nic"], healthy, 2)]


def test_a_file_that_hangs_costs_its_own_readings_and_no_other(
    readers: Mapping[str, list[str]], healthy: Mapping[str, Mapping[Key, object]]
) -> None:
    """And one deadline; here for a few of each collector's files."""
    # A machine of its own: a file is left alone until the thread that hung in it is gone, which takes a moment.
    hanging = open_demo("fe-gemm").host
    chosen = [path for path in readers if not path.endswith(NAMING)][::45]
    assert len(chosen) > 10
    wrong = [line for path in chosen for line in _differences(hanging, path, "HANG", readers[path], healthy, 0.4)]
    assert [] == wrong


def _leaves(found: object, at: str = "") -> dict[str, object]:
    if isinstance(found, dict):
        return {path: leaf for key, value in found.items() for path, leaf in _leaves(value, f"{at}.{key}").items()}
    if isinstance(found, list):
        return {path: leaf for key, value in enumerate(found) for path, leaf in _leaves(value, f"{at}.{key}").items()}
    return {at: found}


def test_the_rest_of_the_document_is_the_same(machine: Machine) -> None:
    """Leaf by leaf, in all its parts; what was read is null, and why stands next to it."""
    path = "/sys/class/nvme/nvme0/firmware_rev"
    before = _leaves(_told(look(machine.host, COLLECTORS)))
    for name in ERRORS:
        _tree(machine.host).put(path, Fault(name))
        try:
            after = _leaves(_told(look(machine.host, COLLECTORS)))
        finally:
            _tree(machine.host).heal(path)
        changed = {at for at in before.keys() | after.keys() if before.get(at) != after.get(at)}
        assert {".nvme.0.firmware", ".nvme.0.absent.firmware.reason", ".nvme.0.absent.firmware.detail"} == {
            at for at in changed if not at.endswith((".seconds", ".rejected"))
        }
        assert reason_of(OSError(getattr(errno, name), "")) == after[".nvme.0.absent.firmware.reason"]
        assert f"{name} {path}" == after[".nvme.0.absent.firmware.detail"]


def _told(snapshot: Snapshot) -> dict[str, Any]:
    """Tell a snapshot in every form, hold the document against its schema, and return it."""
    assert [] == [visit.detail for visit in snapshot.visits if visit.reason is Reason.ERROR]
    told = report(snapshot)
    found = document(told, private=True)
    text(found)
    VALIDATOR.validate(found)
    screen = io.StringIO()
    show(told, Console(file=screen, width=60, highlight=False, markup=False, emoji=False))
    # Nothing that a file holds may reach the terminal's own language.
    assert "" == "".join(sign for sign in screen.getvalue() if not sign.isprintable() and sign != "\n")
    return found


def _random(seed: int) -> Iterator[bytes]:
    source = random.Random(seed)  # noqa: S311  (a test that fails must fail again)
    while True:
        yield source.randbytes(source.choice((1, 2, 5, 20, 200, 5000)))


def _same(content: bytes) -> Iterator[bytes]:
    while True:
        yield content


GARBAGE: Mapping[str, Iterator[bytes]] = {
    "random 1": _random(1),
    "random 2": _random(2),
    "random 3": _random(3),
    "empty": _same(b""),
    "a new line": _same(b"\n"),
    "zero": _same(b"0\n"),
    "one": _same(b"1\n"),
    "minus one": _same(b"-1\n"),
    "all ones": _same(b"4294967295\n"),
    "beyond 64 bit": _same(b"9" * 30 + b"\n"),
    "a number of 10000 digits": _same(b"9" * 10_000),
    "nan": _same(b"nan\n"),
    "inf": _same(b"inf\n"),
    "1e400": _same(b"1e400\n"),
    "float": _same(b"1.5\n"),
    "hexadecimal": _same(b"0xffffffff\n"),
    "NUL": _same(bytes(100)),
    "not UTF-8": _same(b"\xff" * 100),
    "other digits": _same("٣²½\n".encode()),
    "escapes": _same(b"\x1b[2J\x1b]0;title\x07\n"),
    "markup": _same(b"[bold red]x[/]\n"),
    "a screenful": _same(b"x" * 65536),
    "many lines": _same(b"a: b\n" * 5000),
    "a list": _same(b"0-99999999\n"),
    "a comma": _same(b",,,\n"),
    "slashes": _same(b"../../etc/passwd\n"),
    "spaces": _same(b" \t \n"),
    "wide signs": _same("表🔥\n".encode() * 30),
    "right to left": _same("\u202eabc\n".encode()),
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_every_file_at_once_is_told(garbage: str) -> None:
    """On the screen and as a document that fits its schema; what can be shown of it is shown as text."""
    machine = open_demo("fe-gemm")
    tree = _tree(machine.host)
    for path, node in tree.entries().items():
        if isinstance(node, bytes):
            tree.put(path, next(GARBAGE[garbage]))
    found = _told(look(machine.host, COLLECTORS))
    assert "fe-gemm" == found["machine"]["name"]


@pytest.mark.parametrize("what", ["directories", "errors", "loops", "nothing"])
def test_a_tree_of_another_shape_is_told(what: str) -> None:
    """Files that are directories, that all fail, links that lead in circles, and no files at all."""
    machine = open_demo("fe-gemm")
    tree = _tree(machine.host)
    for path, node in tree.entries().items():
        if what == "loops" and isinstance(node, Link):
            tree.put(path, Link(path.rpartition("/")[2]))
        elif what in ("directories", "nothing"):
            tree.put(path, None)
            if what == "directories":
                tree.put(path, {})
        elif what == "errors" and isinstance(node, bytes):
            tree.put(path, Fault("EIO"))
    _told(look(machine.host, COLLECTORS))


@pytest.mark.parametrize(
    "path", ["/sys/class/net", "/sys/class/hwmon", "/sys/class/nvme", "/sys/class/thermal", "/sys"]
)
@pytest.mark.parametrize("name", ["EACCES", "EIO", "HANG"])
def test_a_directory_that_cannot_be_read_is_told(path: str, name: str) -> None:
    """It may cost a collector all it has; the others stand."""
    machine = open_demo("fe-gemm")
    tree = _tree(machine.host)
    tree.put(path, Fault(name))
    try:
        _told(look(machine.host, COLLECTORS, 0.05, 0.3))
    finally:
        tree.heal(path)


@pytest.mark.parametrize("name", ["²", "٣", "a b", "x" * 255, "enp1s0[bold]", "表🔥", "-1", "nvme0n1p1", "hwmon"])
def test_entities_of_any_name_are_told(name: str) -> None:
    """A kernel's own names are tame; those of a machine that somebody sent may not be."""
    machine = open_demo("fe-gemm")
    tree = _tree(machine.host)
    for kind in ("net", "nvme", "hwmon", "thermal", "infiniband", "block"):
        folder = f"/sys/class/{kind}"
        for one in machine.host.list(folder)[:1]:
            tree.put(f"{folder}/{name}", Link(tree.real(f"{folder}/{one}")))
    _told(look(machine.host, COLLECTORS))


def _replaced(found: Any, by: Any, depth: int) -> Any:
    """Return JSON with each value at a depth replaced, and each leaf above it."""
    if depth == 0 or not isinstance(found, dict | list):
        return by
    if isinstance(found, list):
        return [_replaced(value, by, depth - 1) for value in found]
    return {key: _replaced(value, by, depth - 1) for key, value in found.items()}


JUNK: Mapping[str, Any] = {
    "null": None,
    "true": True,
    "text": "x",
    "no text": "",
    "escapes": "\x1b[2J",
    "half a sign": "\ud800",
    "a long text": "x" * 100_000,
    "minus one": -1,
    "zero": 0,
    "large": 2**64 - 1,
    "far too large": 10**400,
    "a float": 1.5,
    "a large float": 1e308,
    "list": [],
    "list of lists": [[[]]],
    "list of numbers": [1, 2, 3],
    "list of processes": [{"pid": "x", "usedGpuMemory": {}}, {"pid": None}, {}, {"pid": -1}, {"pid": 1.5}, 5],
    "object": {},
    "deep object": {"a": {"b": {"c": [{}]}}},
    "an error": {"error": "UNKNOWN"},
    "an unknown error": {"error": "\x1b[2J"},
    "a lost GPU": {"error": "GPU_IS_LOST"},
}


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_junk_from_nvml_is_told(machine: Machine, junk: str, depth: int) -> None:
    """Whatever type a call answers with, or a part of what it answers."""
    library = machine._library
    assert isinstance(library, RecordedNvml)
    devices = [_replaced(device, JUNK[junk], depth) for device in library.content["devices"]]
    if depth == 1:
        # A device is what its calls are listed in.
        devices = [dict.fromkeys(device, JUNK[junk]) for device in library.content["devices"]]
        devices[0]["fields"] = {"83": JUNK[junk], "185": JUNK[junk], "74": JUNK[junk]}
    content = {
        "init": "SUCCESS",
        "system": {key: JUNK[junk] for key in library.content["system"] if key != "nvmlDeviceGetCount"},
        "devices": [
            device | {"fields": device["fields"] if isinstance(device["fields"], dict) else {}} for device in devices
        ],
    }
    host = replace(machine.host, nvml=Nvml(RecordedNvml(content), machine.host.clock))
    _told(look(host, ASK_NVML))


@pytest.mark.parametrize("count", [None, -1, "x", 1.5, True, [], 2**70, {"error": "GPU_IS_LOST"}])
def test_a_count_of_gpus_that_is_none_is_told(machine: Machine, count: Any) -> None:
    """It is what the loop over them goes by."""
    library = machine._library
    assert isinstance(library, RecordedNvml)
    content = library.content | {"system": library.content["system"] | {"nvmlDeviceGetCount": count}}
    host = replace(machine.host, nvml=Nvml(RecordedNvml(content), machine.host.clock))
    snapshot = look(host, ASK_NVML)
    _told(snapshot)
    assert len(list(snapshot.items())) < 5000


def test_a_machine_of_which_nothing_is_known_is_told() -> None:
    """No file, no NVML, no udev: every reading has a reason to be absent."""
    machine = Machine(Identity("nothing", Origin.RECORDED, "", 0.0), MemoryTree(), None, [], ())
    snapshot = look(machine.host, COLLECTORS)
    found = _told(snapshot)
    assert [] == [item for item in snapshot.items() if isinstance(item, Reading)]
    assert {None} == {scope["value"] for scope in found["power"]["scopes"].values()}
    assert os.sep not in found["machine"]["name"]
