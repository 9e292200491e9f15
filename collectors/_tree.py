"""The file tree of a machine: the live one, or one held in memory.

These are the only places that open a machine's files. Paths are the machine's own, absolute.
"""

import errno
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

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


@dataclass(frozen=True, slots=True)
class LiveTree:
    """The machine that this process runs on."""

    root: str = ""

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


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link in a tree in memory."""

    to: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A file in memory that answers with an error; ``HANG`` never answers. What it hides comes back on healing."""

    name: str
    under: "Node | None" = None

    def strike(self, path: str) -> bytes:
        """Raise the error, or wait for ever."""
        if self.name == "HANG":
            threading.Event().wait()
        code = getattr(errno, self.name, errno.EIO)
        raise OSError(code, os.strerror(code), path)


Directory = dict[str, "Node"]
Node = bytes | Directory | Link | Fault


class MemoryTree:
    """A machine's files held in memory; links lead inside it, as if it were chrooted into."""

    def __init__(self) -> None:
        """Start with an empty root."""
        self._root: Directory = {}
        self._found: dict[str, tuple[Node, str]] = {}

    def put(self, path: str, node: bytes | Link | Fault | None, links: int = 0) -> None:
        """Place a node, with the directories above it, where links lead; ``None`` removes what is there."""
        self._found.clear()
        if links > _MAX_LINKS:
            raise ValueError(f"{path}: too many links")
        parts = [part for part in path.split("/") if part]
        if not parts:
            raise ValueError("the root itself cannot be replaced")
        directory = self._root
        for at, part in enumerate(parts):
            above = "/" + "/".join(parts[:at])
            below = directory.get(part)
            last = at == len(parts) - 1
            if isinstance(below, Link) and node is not None and not (last and isinstance(node, Link)):
                target = os.path.normpath(below.to if below.to.startswith("/") else f"{above}/{below.to}")
                return self.put("/".join([target, *parts[at + 1 :]]), node, links + 1)
            if last:
                break
            if below is None:
                if node is None:
                    return None
                below = directory[part] = {}
            if isinstance(below, Link):
                return self.put("/".join([self.real(f"{above}/{part}"), *parts[at + 1 :]]), None, links + 1)
            if not isinstance(below, dict):
                raise ValueError(f"{above}/{part} is a file, so {path} cannot be")  # noqa: TRY004  (about the data)
            directory = below
        existing = directory.get(parts[-1])
        if node is None:
            directory.pop(parts[-1], None)
        elif isinstance(node, Fault):
            directory[parts[-1]] = Fault(node.name, existing.under if isinstance(existing, Fault) else existing)
        elif isinstance(existing, dict):
            raise ValueError(f"{path} is a directory")
        elif isinstance(existing, Fault):
            directory[parts[-1]] = Fault(existing.name, node)
        else:
            directory[parts[-1]] = node
        return None

    def heal(self, path: str) -> None:
        """Take a fault away, and leave what it hid."""
        try:
            node, real = self._walk(path)
        except OSError:
            return
        if isinstance(node, Fault):
            self._found.clear()
            above, _, name = real.rpartition("/")
            directory, _ = self._walk(above)
            assert isinstance(directory, dict)  # noqa: S101  (the node was found in it)
            if node.under is None:
                del directory[name]
            else:
                directory[name] = node.under

    def make_directory(self, path: str) -> None:
        """Make an empty directory, which a machine may well have."""
        self.put(f"{path}/new", b"")
        self.put(f"{path}/new", None)

    def _walk(self, path: str) -> tuple[Node, str]:
        """Return the node at a path and its real path."""
        if found := self._found.get(path):
            return found
        todo = [part for part in reversed(path.split("/")) if part and part != "."]
        above: list[tuple[Directory, str]] = []
        node: Node = self._root
        real = ""
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                if above:
                    node, real = above.pop()
                continue
            if isinstance(node, bytes | Fault):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            assert isinstance(node, dict)  # noqa: S101  (links never stay: they are followed below)
            below = node.get(part)
            if below is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            if isinstance(below, Link):
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if below.to.startswith("/"):
                    above, node, real = [], self._root, ""
                todo.extend(part for part in reversed(below.to.split("/")) if part and part != ".")
                continue
            above.append((node, real))
            node, real = below, f"{real}/{part}"
        self._found[path] = node, real or "/"
        return node, real or "/"

    def read(self, path: str) -> bytes:
        """Return the content of one file, or raise what its fault says."""
        node, _ = self._walk(path)
        if isinstance(node, Fault):
            return node.strike(path)
        if isinstance(node, dict):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        assert isinstance(node, bytes)  # noqa: S101  (a walk never ends on a link)
        return node

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
        above, _, name = path.rstrip("/").rpartition("/")
        directory, _ = self._walk(above)
        node = directory.get(name) if isinstance(directory, dict) else None
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if not isinstance(node, Link):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return node.to

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
