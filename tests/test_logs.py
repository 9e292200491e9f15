"""The daemon's log: a line a record that a person, a parser and the journal can read, and never a traceback unasked."""

import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spark_agent.agent import logs
from spark_agent.agent.logs import Format, Formatter, Level, configure, is_journal

log = logging.getLogger("spark_agent.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Return what is logged to, and give the log back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: Any = "a message", level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    """Return a record of 2026-11-22, noon and a bit."""
    return logging.makeLogRecord({"msg": message, "levelno": level, "created": 1795348800.0625} | extra)


def test_logfmt() -> None:
    """When, how severe, what, then the fields in their order."""
    line = Formatter(Format.LOGFMT, journal=False).format(record(beat=1.5, on=True, collector="gpu"))
    assert 'ts=2026-11-22T12:00:00.062Z level=info msg="a message" beat=1.5 on=true collector=gpu' == line


def test_json() -> None:
    """The same as an object; numbers stay numbers."""
    line = Formatter(Format.JSON, journal=False).format(record(beat=1.5, on=True, where=logging.Formatter))
    expected = {
        "ts": "2026-11-22T12:00:00.062Z",
        "level": "info",
        "msg": "a message",
        "beat": 1.5,
        "on": True,
        "where": "<class 'logging.Formatter'>",
    }
    assert list(expected.items()) == list(json.loads(line).items())


@pytest.mark.parametrize("form", Format)
def test_the_journal_has_a_clock_of_its_own(form: Format) -> None:
    """And takes the severity from the beginning of the line: sd-daemon(3)."""
    line = Formatter(form, journal=True).format(record("hello", logging.ERROR))
    assert {Format.LOGFMT: "<3>level=error msg=hello", Format.JSON: '<3>{"level": "error", "msg": "hello"}'}[
        form
    ] == line


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (logging.DEBUG, "<7>level=debug"),
        (logging.INFO, "<6>level=info"),
        (logging.WARNING, "<4>level=warn"),
        (logging.ERROR, "<3>level=error"),
        (logging.CRITICAL, "<3>level=error"),
        (1, "<7>level=debug"),
        (25, "<6>level=info"),
    ],
)
def test_levels_are_prometheus_own(number: int, expected: str) -> None:
    """Four of them, whatever number another library logs with."""
    assert f"{expected} msg=x" == Formatter(Format.LOGFMT, journal=True).format(record("x", number))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "x"', r'"say \"x\""'),
        ("back\\slash", r'"back\\slash"'),
        ("two\nlines", r'"two\nlines"'),
        ("\x1b[2J", r'"\u001b[2J"'),
        ("\x9b2J", r'"\u009b2J"'),
        ("\u2028", r'"\u2028"'),
        ("\udcff", r'"\udcff"'),
        ("größe", "größe"),
        (None, "None"),
        (False, "false"),
        (127, "127"),
    ],
)
def test_a_value_is_quoted_where_it_must_be(value: object, expected: str) -> None:
    """What would end the value, the line or the reader's terminal is escaped."""
    assert f"level=info msg=x key={expected}" in Formatter(Format.LOGFMT, journal=True).format(record("x", key=value))


@given(st.text(max_size=30), st.dictionaries(st.text(min_size=1, max_size=5).map("x_".__add__), st.text(max_size=30)))
@example("\x7f", {})
@example("x", {"x_\n =": "y"})
def test_any_record_is_one_line(message: str, extra: dict[str, str]) -> None:
    """That nobody can forge another line with, and from which JSON gives back what was logged."""
    text = Formatter(Format.LOGFMT, journal=False).format(record(message, logging.INFO, **extra))
    assert [] == [letter for letter in text if not letter.isprintable()]
    data = json.loads(Formatter(Format.JSON, journal=False).format(record(message, logging.INFO, **extra)))
    assert {"msg": message} | extra == {name: value for name, value in data.items() if name not in ("ts", "level")}


def test_a_field_does_not_hide_the_line_s_own() -> None:
    """A record's level is its own, whatever a caller names a field."""
    line = Formatter(Format.LOGFMT, journal=False).format(record("x", ts="now"))
    assert "ts=2026-11-22T12:00:00.062Z level=info msg=x" in line
    assert "ts_=now" in line


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("level", [Level.INFO, Level.DEBUG])
def test_a_traceback_is_for_debug(stream: io.StringIO, form: Format, level: Level) -> None:
    """Otherwise a fault is its type and text; either way on one line."""
    configure(level, form, stream=stream)
    try:
        raise ValueError("no such thing")
    except ValueError:
        log.exception("collector failed", extra={"collector": "gpu"})
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: no such thing" in line
    assert (level is Level.DEBUG) == ("Traceback" in line)


def test_a_reload_changes_level_and_format(stream: io.StringIO) -> None:
    """Without a second line for each record."""
    configure(Level.WARN, Format.LOGFMT, stream=stream)
    log.info("not yet")
    configure(Level.INFO, Format.JSON, stream=stream)
    log.info("now")
    (line,) = stream.getvalue().splitlines()
    assert "now" == json.loads(line)["msg"]


@pytest.mark.parametrize("level", Level)
def test_nothing_less_severe_is_written(stream: io.StringIO, level: Level) -> None:
    """Each level lets itself and what is worse through."""
    configure(level, Format.LOGFMT, stream=stream)
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        log.log(number, "x")
    assert list(Level)[list(Level).index(level) :] == re.findall(r"level=(\w+)", stream.getvalue())


def test_the_journal_is_told_by_its_inode() -> None:
    """The variable is inherited by what a service starts, whose stderr may lead elsewhere: systemd.exec(5)."""
    reader, writer = os.pipe()
    status = os.fstat(writer)
    with os.fdopen(reader), os.fdopen(writer, "w") as pipe:
        assert is_journal(pipe, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not is_journal(pipe, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not is_journal(pipe, {"JOURNAL_STREAM": "nonsense"})
        assert not is_journal(pipe, {})
    assert not is_journal(pipe, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}), "it is closed"
    assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})
    assert not is_journal(None, {"JOURNAL_STREAM": "1:2"})


def test_under_systemd_a_line_has_a_priority(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001  (it gives the log back)
    """Found by itself, from the environment."""
    reader, writer = os.pipe()
    status = os.fstat(writer)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    with os.fdopen(reader) as journal:
        with os.fdopen(writer, "w") as pipe:
            configure(Level.INFO, Format.LOGFMT, stream=pipe)
            log.warning("it is hot")
        assert '<4>level=warn msg="it is hot"\n' == journal.read()


def test_a_log_that_nobody_reads_is_no_fault(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that restarts, a full disk, a shell's ``2>&-``: the daemon goes on, and no traceback is written."""
    configure(Level.INFO, Format.LOGFMT, stream=stream)
    stream.close()
    log.info("lost")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        configure(Level.INFO, Format.LOGFMT)
        log.info("lost")
    assert ("", "") == tuple(capsys.readouterr())


def test_a_message_with_wrong_arguments_is_still_a_line() -> None:
    """A slip of ours in a rare branch must not cost what it was to say."""
    bad = record("%d of %s", args=("x",))
    assert "<6>level=info msg=\"%d of %s ('x',)\"" == Formatter(Format.LOGFMT, journal=True).format(bad)


def test_levels_are_python_s(stream: io.StringIO) -> None:
    """A switch of a level is seen by whoever asks before an expensive message."""
    configure(Level.DEBUG, Format.LOGFMT, stream=stream)
    assert log.isEnabledFor(logging.DEBUG)
    configure(Level.ERROR, Format.LOGFMT, stream=stream)
    assert not log.isEnabledFor(logging.WARNING)
    assert set(Level) == set(logs._LEVELS)
