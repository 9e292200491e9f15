"""The file tree of a machine: the live one, or one held in memory.

These are the only places that open a machine's files. Paths are the machine's own, absolute.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn, Protocol

# A sysfs attribute fits one page, and a page has 64 KiB on some arm64 kernels.
_ONE_READ = 65536
_MAX_LINKS = 40


class Tree(Protocol):
    """What a collector may ask of a file system; each call raises `OSError` as the kernel would."""

    def read(self, path: str) -> bytes:
        """Return the whole content of one file."""

    def list(self, path: str) -> list[str]:
        """Return the names in one directory, unsorted."""

    def link(self, path: str) -> str:
        """Return the text of one symbolic link."""

    def real(self, path: str) -> str:
        """Return the path with every link in it followed."""

    def exists(self, path: str) -> bool:
        """Whether the path leads to something."""


class LiveTree:
    """The machine that this process runs on."""

    def __init__(self, root: str = "") -> None:
        """Read below a root, for tests; the machine's own is empty."""
        self.root = root

    def read(self, path: str) -> bytes:
        """Return all that one file holds, taken with one read(2) where it is sysfs."""
        # Never a stat first: pseudo-files lie about their size. And no second read in sysfs, where some hwmon
        # drivers answer EAGAIN for ever to a reader that insists.
        fd = os.open(self.root + path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.read(fd, _ONE_READ)
            if path.startswith("/sys/"):
                return content
            parts = [content]
            while parts[-1]:
                parts.append(os.read(fd, _ONE_READ))
            return b"".join(parts)
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(fd)

    def list(self, path: str) -> list[str]:
        """Return the names in one directory."""
        return os.listdir(self.root + path)

    def link(self, path: str) -> str:
        """Return the text of one symbolic link."""
        return os.readlink(self.root + path)

    def real(self, path: str) -> str:
        """Return the path with every link in it followed."""
        return os.path.realpath(self.root + path, strict=True).removeprefix(self.root)

    def exists(self, path: str) -> bool:
        """Whether the path leads to something."""
        return os.path.exists(self.root + path)


class _Descriptor:
    """An open file, closed when nobody uses it any more, a thread that hangs in it included."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # it was never opened, or closed behind our back
            os.close(self.number)


# Of the 1024 descriptors that a service has by default, with room for its clients.
_MOST_KEPT: Final = 512

# Names that may have been read, of devices that are gone too, before all is opened anew.
_MOST_SEEN: Final = 4 * _MOST_KEPT

# What a file says, once it was read, whose device is gone; in its place may be another under the same name.
_GONE: Final = frozenset({errno.ENODEV, errno.ENOENT, errno.ESTALE, errno.ENXIO})


class WatchedTree(LiveTree):
    """The live machine for one who reads the same files again and again.

    Reading through a descriptor that stays open costs a seventh of opening the file anew. One whose device is gone
    is not opened again behind the reader's back, for hwmon numbers are given anew: it fails, all others are let go of,
    and ``gone`` is called, so that who remembers where things are forgets it.
    """

    def __init__(self, gone: Callable[[], None], root: str = "") -> None:
        """Open nothing yet."""
        super().__init__(root)
        self._gone = gone
        self._seen: set[str] = set()
        self._kept: dict[str, _Descriptor] = {}

    def read(self, path: str) -> bytes:
        """Return all that one file holds; from the second time on through a kept descriptor."""
        kept = self._kept.get(path)
        if kept is None and (path not in self._seen or len(self._kept) >= _MOST_KEPT):
            content = super().read(path)
            # Only now: a file that has never answered says nothing of a device that went.
            if len(self._seen) >= _MOST_SEEN:
                self._let_go()
            self._seen.add(path)
            return content
        try:
            if kept is None:
                kept = self._kept[path] = _Descriptor(self.root + path)
            content = os.pread(kept.number, _ONE_READ, 0)
            if path.startswith("/sys/") or not content:
                return content
            parts = [content]
            while part := os.pread(kept.number, _ONE_READ, sum(map(len, parts))):
                parts.append(part)
            return b"".join(parts)
        except OSError as error:
            error.filename = path
            if error.errno in _GONE:
                self._let_go()
                self._gone()
            raise

    def _let_go(self) -> None:
        # Replaced, not cleared: a thread that was left behind may be reading.
        self._seen, self._kept = set(), {}


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link in a tree in memory."""

    to: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A file in memory that answers with an error. What it hides comes back on healing.

    ``HANG`` does not answer; who waited for it when it is healed or removed gets EIO, as of a device that came back.
    """

    name: str
    under: "Node | None" = None
    over: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def strike(self, path: str) -> NoReturn:
        """Raise the error; one that hangs waits first."""
        if self.name == "HANG":
            self.over.wait()
        code = getattr(errno, self.name, errno.EIO)
        raise OSError(code, os.strerror(code), path)


Directory = dict[str, "Node"]
Node = bytes | Directory | Link | Fault


class MemoryTree:
    """A machine's files held in memory; links lead inside it, as if it were chrooted into."""

    def __init__(self) -> None:
        """Start with an empty root."""
        self._root: Directory = {}
        # Where a path leads: the directory that holds its node, the node's name in it, and the real path.
        self._found: dict[str, tuple[Directory, str, str]] = {}
        self._places: dict[str, tuple[Directory, str]] = {}

    def put(self, path: str, node: Node | None) -> bool:
        """Place a node where links lead, with the directories above it; ``{}`` is a directory, ``None`` removes.

        Says whether something came or went, and did not only change.
        """
        # A timeline changes what some files say, thousands of times, and hardly ever what there is.
        if isinstance(node, bytes) and (place := self._places.get(path)):
            directory, name = place
            directory[name] = node
            return False
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        above = [self._root]
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                if len(above) > 1:
                    above.pop()
                continue
            below = above[-1].get(part)
            if isinstance(below, Link) and (todo or not isinstance(node, Link | None)):
                links += 1
                if links > _MAX_LINKS:
                    raise ValueError(f"{path}: too many links")
                if below.to.startswith("/"):
                    above = [self._root]
                todo += [part for part in reversed(below.to.split("/")) if part not in ("", ".")]
                continue
            if not todo:
                if isinstance(node, bytes) and isinstance(below, bytes):
                    self._places[path] = above[-1], part
                    above[-1][part] = node
                    return False
                self._forget()
                return _settle(above[-1], part, node)
            if below is None:
                if node is None:
                    return False
                below = above[-1][part] = {}
            if isinstance(below, Fault):
                below = below.under
            if not isinstance(below, dict):
                raise ValueError(f"{path}: {part} is not a directory")
            above.append(below)
        raise ValueError(f"{path}: leads to a directory")

    def _forget(self) -> None:
        self._found.clear()
        self._places.clear()

    def heal(self, path: str) -> None:
        """Take a fault away, and leave what it hid."""
        try:
            node, real = self._walk(path)
        except OSError:
            return
        if isinstance(node, Fault):
            self._forget()
            above, _, name = real.rpartition("/")
            directory, _ = self._walk(above)
            assert isinstance(directory, dict)  # noqa: S101  (the node was found in it)
            if node.under is None:
                del directory[name]
            else:
                directory[name] = node.under
            node.over.set()

    def _walk(self, path: str) -> tuple[Node, str]:
        """Return the node at a path and its real path."""
        if found := self._found.get(path):
            directory, name, real = found
            # In another thread, the timeline may be taking it away.
            if (there := directory.get(name)) is not None:
                return there, real
        todo = path.split("/")[::-1]
        above: list[tuple[Directory, str]] = []
        node: Node = self._root
        real = ""
        links = 0
        while todo:
            part = todo.pop()
            if isinstance(node, Fault):
                node.strike(path)
            if not isinstance(node, dict):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            if part in ("", "."):
                continue
            if part == "..":
                if above:
                    node, real = above.pop()
                continue
            below = node.get(part)
            if below is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            if isinstance(below, Link):
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if below.to.startswith("/"):
                    above, node, real = [], self._root, ""
                todo += reversed(below.to.split("/"))
                continue
            above.append((node, real))
            node, real = below, f"{real}/{part}"
        if above:
            self._found[path] = above[-1][0], real.rpartition("/")[2], real
        return node, real or "/"

    def read(self, path: str) -> bytes:
        """Return the content of one file, or raise what its fault says."""
        node, _ = self._walk(path)
        if isinstance(node, bytes):
            return node
        if isinstance(node, Fault):
            node.strike(path)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)

    def list(self, path: str) -> list[str]:
        """Return the names in one directory."""
        node, _ = self._walk(path)
        if isinstance(node, Fault):
            node.strike(path)
        if not isinstance(node, dict):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return list(node)

    def link(self, path: str) -> str:
        """Return the text of one symbolic link."""
        above, _, name = path.rpartition("/")
        directory, _ = self._walk(above)
        node = directory.get(name) if isinstance(directory, dict) else None
        if isinstance(node, Link):
            return node.to
        self._walk(path)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)

    def real(self, path: str) -> str:
        """Return the path with every link in it followed."""
        return self._walk(path)[1]

    def exists(self, path: str) -> bool:
        """Whether the path leads to something."""
        try:
            self._walk(path)
        except OSError:
            return False
        return True

    def entries(self) -> Mapping[str, bytes | Link | Fault]:
        """Return every file, link and fault by its path, in order."""
        found: dict[str, bytes | Link | Fault] = {}
        todo: list[tuple[str, Directory]] = [("", self._root)]
        while todo:
            above, directory = todo.pop()
            for name, node in directory.items():
                if isinstance(node, dict):
                    todo.append((f"{above}/{name}", node))
                else:
                    found[f"{above}/{name}"] = node
        return dict(sorted(found.items()))


def _settle(directory: Directory, name: str, node: Node | None) -> bool:
    """Place a node in its directory; a fault lies over what is there, and what comes later goes under the fault."""
    existing = directory.get(name)
    fault = existing if isinstance(existing, Fault) else None
    hidden = fault.under if fault else existing
    if node is not None and not isinstance(node, Fault):
        if hidden is not None and isinstance(hidden, dict) is not isinstance(node, dict):
            raise ValueError(f"{name} is {'' if isinstance(hidden, dict) else 'not '}a directory")
        placed = hidden if isinstance(hidden, dict) else node
        directory[name] = replace(fault, under=placed) if fault else placed
        return existing is None
    if node is None:
        directory.pop(name, None)
    else:
        directory[name] = replace(node, under=hidden)
    if fault:
        fault.over.set()
    return (existing is None) is not (node is None)
