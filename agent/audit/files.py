"""Files and folders that are audited: found, read once each, and judged whether they are rules or dashboards at all.

A file that the user names is told of in any case. In a folder, what is plainly something else (a package.json, a
Deployment) is passed over; what cannot be read, or is ours and broken, is told.
"""

import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from spark_agent.agent.audit import documents
from spark_agent.agent.audit.claim import Document, Unreadable
from spark_agent.agent.audit.syntax import MalformedError, parse
from spark_agent.agent.audit.wording import printable

#: What is looked at in a folder; a file that is named may be called anything.
SUFFIXES: Final = (".json", ".yml", ".yaml", ".rules")
#: A hundred times a large dashboard; what is longer is not read.
MAX_BYTES: Final = 1 << 24
STANDARD_INPUT: Final = "-"

# A template of any other program says none of these, and is nothing to audit.
_OUR_WORDS: Final = ("expr:", "alert:", "record:", '"expr"', '"panels"')


def read(paths: Iterable[str]) -> Iterator[Document | Unreadable]:
    """Yield what files and folders claim, each file once, and what of them cannot be audited; "-" is standard input."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if path == STANDARD_INPUT:
            yield from _standard_input()
        else:
            yield from _named(path, seen)


class _UnreadableError(Exception):
    """Why a file was not read."""


def _named(path: str, seen: set[tuple[int, int]]) -> Iterator[Document | Unreadable]:
    try:
        found = _stat(path)
    except _UnreadableError as error:
        yield Unreadable(_name(path), str(error))
        return
    if not stat.S_ISDIR(found.st_mode):
        yield from _file(path, seen, is_named=True)
        return
    if (found.st_dev, found.st_ino) in seen:
        return
    count = 0
    for one in _folder(path, seen):
        count += 1
        yield one
    if not count:
        yield Unreadable(_name(path), "holds neither rules nor dashboards")


def _folder(path: str, seen: set[tuple[int, int]]) -> Iterator[Document | Unreadable]:
    """Yield what a folder and those within it hold, sorted by name; hidden ones (``.git``) are left out."""
    waiting = [Path(path)]
    while waiting:
        one = waiting.pop()
        is_wanted = one.name.endswith(SUFFIXES)
        try:
            found = _stat(one)
            if stat.S_ISDIR(found.st_mode):
                identity = (found.st_dev, found.st_ino)
                if identity not in seen:  # a link may lead back
                    seen.add(identity)
                    waiting += sorted((new for new in one.iterdir() if not new.name.startswith(".")), reverse=True)
            elif is_wanted:
                yield from _file(one, seen, is_named=False)
        except _UnreadableError as error:
            if is_wanted:
                yield Unreadable(_name(one), str(error))
        except OSError as error:
            yield Unreadable(_name(one), _reason(error))


def _file(path: str | Path, seen: set[tuple[int, int]], *, is_named: bool) -> Iterator[Document | Unreadable]:
    try:
        content = _content(path, seen)
        if content is not None:
            yield from _judged(_name(path), content, is_json=str(path).endswith(".json"), is_named=is_named)
    except _UnreadableError as error:
        yield Unreadable(_name(path), str(error))


def _standard_input() -> Iterator[Document | Unreadable]:
    name = "standard input"
    try:
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
    except (OSError, ValueError, AttributeError):  # closed, or none at all
        yield Unreadable(name, "cannot be read")
        return
    if len(content) > MAX_BYTES:
        yield Unreadable(name, _too_long())
        return
    yield from _judged(name, content, is_json=False, is_named=True)


def _judged(name: str, content: bytes, *, is_json: bool, is_named: bool) -> Iterator[Document | Unreadable]:
    """Yield what a file holds; nothing where nobody named it and it is something else."""
    if not content.strip():
        if is_named:
            yield Unreadable(name, "is empty")
        return
    text = ""
    try:
        text = _text(content)
        parsed = parse(text, is_json=is_json)
    except MalformedError as error:
        is_template = "template" in str(error)
        if is_named or not is_template or any(word in text for word in _OUR_WORDS):
            yield Unreadable(name, printable(str(error)))
        return
    found = False
    for one in documents.read(name, parsed):
        found = True
        yield one
    if is_named and not found:
        yield Unreadable(name, "is neither a rule file nor a dashboard")


def _text(content: bytes) -> str:
    if b"\0" in content:
        raise MalformedError("is binary")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MalformedError(f"line {line}: is not UTF-8") from None


def _content(path: str | Path, seen: set[tuple[int, int]]) -> bytes | None:
    """Return what is in a file; None where it was read before, under whatever name."""
    found = _stat(path)
    identity = (found.st_dev, found.st_ino)
    if identity in seen:
        return None
    seen.add(identity)
    if not stat.S_ISREG(found.st_mode):
        raise _UnreadableError("is no regular file")
    if found.st_size > MAX_BYTES:
        raise _UnreadableError(_too_long())
    try:
        with open(path, "rb", opener=_open) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _UnreadableError(_reason(error)) from error
    if len(content) > MAX_BYTES:
        raise _UnreadableError(_too_long())
    return content


def _open(path: str, flags: int) -> int:
    # It may have become a pipe meanwhile, which nobody writes to.
    return os.open(path, flags | os.O_NONBLOCK)


def _stat(path: str | Path) -> os.stat_result:
    try:
        return Path(path).stat()
    except (OSError, ValueError) as error:
        raise _UnreadableError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "is a link that leads back to itself"
    return (isinstance(error, OSError) and error.strerror) or "is no name that a file may have"


def _too_long() -> str:
    return f"is longer than {MAX_BYTES >> 20} MiB"


def _name(path: str | Path) -> str:
    """Return a path as it can be printed, whatever bytes it is of."""
    return printable(os.fsencode(path).decode(errors="replace"))
