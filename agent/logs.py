"""Logging of the daemon: one line a record on stderr, as logfmt or JSON, for a terminal, a file or the journal."""

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TextIO


class Level(StrEnum):
    """The least severe records that are written, in Prometheus' spelling."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class Format(StrEnum):
    """How a record is written."""

    LOGFMT = "logfmt"
    JSON = "json"


#: Python's level and syslog's priority, as sd-daemon(3) wants it before a line: ``<3>`` is an error.
_LEVELS: Final = {
    Level.DEBUG: (logging.DEBUG, 7),
    Level.INFO: (logging.INFO, 6),
    Level.WARN: (logging.WARNING, 4),
    Level.ERROR: (logging.ERROR, 3),
}
#: What each record has; anything else came in through ``extra`` and is a field of the line.
_COMMON: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def configure(level: Level, form: Format, *, stream: TextIO | None = None) -> None:
    """Write this process's log to ``stream`` (stderr) from now on; a reload calls it again."""
    stream = stream or sys.stderr  # which is None after a shell's 2>&-
    handler = _Handler(stream)
    handler.setFormatter(Formatter(form, journal=is_journal(stream, os.environ)))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(_LEVELS[level][0])


def is_journal(stream: TextIO | None, environment: Mapping[str, str]) -> bool:
    """Return whether a stream leads to the journal: systemd.exec(5) has its device and inode in $JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno() if stream else -1)
    except (OSError, ValueError):  # closed, or held in memory
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Handler(logging.StreamHandler[TextIO]):
    """Drop a line that cannot be written: nobody reads it, and Python would tell the same stream so in a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's)
        pass


class Formatter(logging.Formatter):
    """One line a record: when, how severe, what, and the fields of ``extra``.

    A fault that is logged with ``exc_info`` is one field; its traceback is there at debug only, and never breaks the
    line. The journal has a clock of its own and takes the severity from the line's beginning.
    """

    def __init__(self, form: Format, *, journal: bool) -> None:
        super().__init__()
        self.form = form
        self.journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        level, priority = _level(record.levelno)
        values: dict[str, object] = {} if self.journal else {"ts": _time(record.created)}
        values |= {"level": level.value, "msg": _message(record)}
        values |= {f"{name}_" if name in values else name: value for name, value in _fields(record)}
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            values["error"] = f"{type(error).__name__}: {error}"
            if logging.getLogger().isEnabledFor(logging.DEBUG):
                values["traceback"] = self.formatException(record.exc_info)
        text = json.dumps(values, default=str) if self.form is Format.JSON else _logfmt(values)
        return f"<{priority}>{text}" if self.journal else text


def _level(number: int) -> tuple[Level, int]:
    """Return the level that a number of logging's is in, and its priority."""
    level = next((level for level in reversed(Level) if number >= _LEVELS[level][0]), Level.DEBUG)
    return level, _LEVELS[level][1]


def _time(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # arguments that do not fit; the line says more than its loss
        return f"{record.msg} {record.args}"


def _fields(record: logging.LogRecord) -> list[tuple[str, object]]:
    return [(name, value) for name, value in vars(record).items() if name not in _COMMON]


def _logfmt(values: Mapping[str, object]) -> str:
    """Return ``key=value`` pairs; a value with a space, a quote or no printable sign is quoted as in JSON."""
    return " ".join(f"{_key(name)}={_value(value)}" for name, value in values.items())


def _key(name: str) -> str:
    return "".join(letter if letter.isprintable() and letter not in ' ="' else "_" for letter in name)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text and text.isprintable() and not set(' ="\\') & set(text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
