"""What outlives the daemon: small named contents, each a file that is whole at every moment.

``NAME.json`` is ``{"format": 1, "crc32": "…", "content": {…}}``. A new generation is written beside it and synced,
the one in force is renamed to ``NAME.previous.json``, the new one takes its place, and the folder is synced. Killed
anywhere in between, one whole generation is found, and none older than the last that `Store.save` returned for.
"""

import errno
import fcntl
import json
import logging
import os
import re
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

log = logging.getLogger(__name__)

FORMAT: Final = 1

_FILE_MODE: Final = 0o640
_FOLDER_MODE: Final = 0o750

# The content is checked as it stands in the file: another spelling of the same values need not be told from damage.
_GENERATION: Final = re.compile(
    rb'\{"format": ([0-9]{1,9}), "crc32": "([0-9a-f]{8})", "content": (\{.*\})\}\n', re.DOTALL
)

_ADVICE: Final = {
    errno.ENOSPC: "free some space on its file system",
    errno.EDQUOT: "raise the quota, or free some space",
    errno.EROFS: "its file system is mounted read-only; mount it writable, or name another folder",
    errno.EACCES: "run as the user that owns it, or name another folder",
    errno.EPERM: "run as the user that owns it, or name another folder",
    errno.ENOENT: "create the folder above it, or name another",
    errno.ENOTDIR: "name a folder",
    errno.EWOULDBLOCK: "stop that one, or name another folder",
}


class StateError(Exception):
    """The state cannot be kept or found; the message names the path and says what to do."""


class Store:
    """The folder of one daemon's state; it is locked until `close`."""

    def __init__(self, folder: Path) -> None:
        """Create the folder where it is missing, and lock it, or raise `StateError`."""
        self.folder = folder
        self._checked: set[str] = set()
        try:
            folder.mkdir(_FOLDER_MODE, exist_ok=True)
            # The lock goes with the process, however that ends.
            self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileExistsError as error:
            raise StateError(f"{folder}: not a folder; name a folder") from error
        except OSError as error:
            raise failure(folder, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            held = BlockingIOError(errno.EWOULDBLOCK, "another agent holds it")
            raise failure(folder, held) from error
        except OSError as error:
            os.close(self._lock)
            raise failure(folder, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another agent have the folder."""
        os.close(self._lock)

    def save(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep the content under a name, durably, or raise `StateError` and leave what was kept before."""
        if name not in self._checked:
            self._refuse_newer(name)
        text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
        head = f'{{"format": {FORMAT}, "crc32": "{_checksum(FORMAT, text)}", "content": '.encode()
        path = self._path(name)
        try:
            write_whole(path, head + text + b"}\n", previous=self._previous(name))
        except OSError as error:
            raise failure(path, error) from error

    def load(self, name: str) -> dict[str, Any] | None:
        """Return the newest whole content under a name, if there is any.

        What is damaged is set aside, with one warning. Raises `StateError` where a newer agent wrote it, or where it
        may not be read.
        """
        self._refuse_newer(name)
        for path in (self._path(name), self._previous(name)):
            try:
                return _content(path.read_bytes())
            except FileNotFoundError:
                continue
            except PermissionError as error:
                raise failure(path, error) from error
            except (OSError, ValueError) as error:
                set_aside(path, error)
        return None

    def _refuse_newer(self, name: str) -> None:
        for path in (self._path(name), self._previous(name)):
            try:
                _content(path.read_bytes())
            except _NewerError as error:
                raise StateError(f"{path}: {error}; upgrade this agent, or move the file away") from error
            except (OSError, ValueError):
                continue  # what is there may be replaced
        self._checked.add(name)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _previous(self, name: str) -> Path:
        return self.folder / f"{name}.previous.json"


class _NewerError(ValueError):
    """A whole generation, in a format that this agent does not know."""


def _checksum(format_: int, text: bytes) -> str:
    return f"{zlib.crc32(text, zlib.crc32(b'%d' % format_)):08x}"


def _content(generation: bytes) -> dict[str, Any]:
    """Return what a generation holds, or raise `ValueError` that says why it holds nothing."""
    parts = _GENERATION.fullmatch(generation)
    if not parts:
        raise ValueError("not a whole generation")
    format_, text = int(parts[1]), parts[3]
    # Checked first, so that a flipped bit does not pass for a newer format.
    if parts[2].decode() != _checksum(format_, text):
        raise ValueError("its checksum does not match")
    if format_ != FORMAT:
        raise _NewerError(f"format {format_}, and this agent knows {FORMAT}")
    content: dict[str, Any] = json.loads(text)
    return content


def write_whole(path: Path, content: bytes, *, previous: Path | None = None, mode: int | None = None) -> None:
    """Write a file, whole and durably or not at all; the one in its place is kept as ``previous``.

    ``mode`` is set whatever the umask is, for a file that another user is to read.
    """
    unfinished = path.with_name(f".{path.name}.new")
    try:
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _FILE_MODE)
        with os.fdopen(file, "wb") as stream:
            if mode is not None:
                os.fchmod(file, mode)
            stream.write(content)
            stream.flush()
            # Some file systems notice only now that they are full.
            os.fsync(file)
        if previous and path.exists():
            path.replace(previous)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_for_others(path: Path, content: bytes, *, is_durable: bool = True) -> None:
    """Write a file that every user may read, whole or not at all; the folder may be another user's.

    So what is not done yet has a name that nobody can guess, and goes whatever ends this.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Make what was created and renamed in a folder durable."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def set_aside(path: Path, why: Exception) -> None:
    """Rename what cannot be used, for a person to look at; an older one of that name goes."""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        path.replace(aside)
    except OSError as error:
        log.warning("%s is damaged (%s), and cannot be set aside: %s", path, why, error.strerror)
    else:
        log.warning("%s is damaged (%s); it is set aside as %s", path, why, aside.name)


def failure(path: Path, error: OSError) -> StateError:
    """Say what went wrong at a path, and what to do about it."""
    advice = _ADVICE.get(error.errno or 0, "see the kernel's log for the drive")
    return StateError(f"{path}: {error.strerror}; {advice}")
