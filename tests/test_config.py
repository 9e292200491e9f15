"""Settings: each from four places, in one order; what is wrong is told with its place and what is valid."""

import errno
import io
import json
import logging
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from commands import Done, Run, runner
from hypothesis import example, given
from hypothesis import strategies as st

from spark_agent.agent import cli, config
from spark_agent.agent.config import (
    BOOLEAN,
    ConfigError,
    Setting,
    SettingError,
    Settings,
    Sources,
    TcpAddress,
    UnixAddress,
    changes_needing_restart,
    checks,
    load,
    table,
)
from spark_agent.agent.logs import Format, Level
from spark_agent.collectors import discover

REPO = Path(__file__).parent.parent
EXAMPLE = REPO / "docs" / "spark-agent.toml"
REFERENCE = REPO / "docs" / "configuration.md"

#: For each setting, three texts and what they stand for; none is the default.
SAMPLES: Mapping[str, tuple[tuple[str, Any], ...]] = {
    "web.listen-address": (
        (":1", (TcpAddress("", 1),)),
        ("[::1]:2", (TcpAddress("::1", 2),)),
        ("unix:/run/3", (UnixAddress(Path("/run/3")),)),
    ),
    "web.config.file": tuple((f"/{name}.yml", Path(f"/{name}.yml")) for name in "abc"),
    "web.telemetry-path": tuple((f"/{name}", f"/{name}") for name in "abc"),
    "web.max-connections": (("1", 1), ("2", 2), ("3", 3)),
    "beat": (("0.1", 0.1), ("60", 60.0), ("3", 3.0)),
    **{
        f"power.{of}-watts": (("140", 140.0), ("1", 1.0), ("1000", 1000.0))
        for of in ("adapter", "soc", "system", "rest")
    },
    "textfile": tuple((f"/{name}", Path(f"/{name}")) for name in "abc"),
    "textfile.interval": (("1", 1.0), ("2.5", 2.5), ("3600", 3600.0)),
    "state.directory": tuple((f"/{name}", Path(f"/{name}")) for name in "abc"),
    "blackbox": (("false", False),) * 3,
    "blackbox.seconds": (("60", 60), ("61", 61), ("86400", 86400)),
    "blackbox.flush": (("1", 1), ("2", 2), ("60", 60)),
    "misread.exporter": (
        ("defaults", ("defaults",)),
        ("http://127.0.0.1:9090", ("http://127.0.0.1:9090/metrics",)),
        ("https://[::1]:9100/federate?x=1", ("https://[::1]:9100/federate?x=1",)),
    ),
    "misread.interval": (("1", 1.0), ("2.5", 2.5), ("60", 60.0)),
    "audit": tuple((f"/{name}", (Path(f"/{name}"),)) for name in "abc"),
    "audit.interval": (("1", 1.0), ("2.5", 2.5), ("86400", 86400.0)),
    "audit.metrics": tuple((f"/{name}.toml", Path(f"/{name}.toml")) for name in "abc"),
    "audit.baseline": tuple((f"/{name}.json", Path(f"/{name}.json")) for name in "abc"),
    "log.level": (("debug", Level.DEBUG), ("warn", Level.WARN), ("error", Level.ERROR)),
    "log.format": (("json", Format.JSON),) * 3,
    "speed": (("0.5", 0.5), ("2", 2.0), ("100000", 100000.0)),
}
SETTABLE = [setting for setting in table() if not setting.flag_only]


def samples(setting: Setting) -> tuple[tuple[str, Any], ...]:
    """Return texts of a setting with their values."""
    return (("false", False),) * 3 if setting.name.startswith("collector.") else SAMPLES[setting.name]


def toml(setting: Setting, text: str) -> str:
    """Return a line that sets something in a file."""
    quoted = f"[{json.dumps(text)}]" if setting.many else json.dumps(text)
    return f"{setting.key} = {quoted if str in setting.kind.types else text}\n"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let no file and no variable of this machine play a part, and return where the default file would be."""
    for name in os.environ:
        if name.startswith("SPARK_AGENT_") or name in ("STATE_DIRECTORY", "JOURNAL_STREAM"):
            monkeypatch.delenv(name)
    path = tmp_path / "etc" / "spark-agent.toml"
    monkeypatch.setattr(config, "DEFAULT_FILE", path)
    return path


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Settings]:
    """Return a function that reads a file with a text."""

    def call(text: str | bytes, **environment: str) -> Settings:
        path = tmp_path / "some.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(Sources(path, environment))

    return call


def problems(read: Callable[..., Settings], text: str | bytes, **environment: str) -> list[str]:
    """Return what is wrong with a text, without the folder of the file."""
    with pytest.raises(ConfigError) as error:
        read(text, **environment)
    return [re.sub(r"^\S*/some.toml:?", "", line) for line in error.value.problems]


# The table


def test_a_setting_has_one_name_everywhere() -> None:
    """Each field of the table, and nothing else, is a setting; its name in Python follows from that of its flag."""
    names = [one.name for one in fields(Settings)]
    settings = [setting.parameter for setting in table() if not setting.name.startswith("collector.")]
    assert ["collectors", "file", "sources", "origins", "warnings"] == [name for name in names if name not in settings]
    assert [name for name in names if name in settings] == settings


def test_no_name_stands_for_two() -> None:
    """Two settings would be set at once."""
    for names in ([setting.key for setting in SETTABLE], [setting.variable for setting in SETTABLE]):
        assert sorted(set(names)) == sorted(names)


def test_no_key_is_a_section_too() -> None:
    """TOML allows no value and a table under one name."""
    keys = {setting.key for setting in table()}
    assert set() == {key for key in keys for other in keys if other.startswith(f"{key}.")}


def test_each_collector_has_a_switch() -> None:
    """Found without importing them: the folder's listing is the registry."""
    assert tuple(discover()) == config.collector_names()
    assert tuple(discover()) == Settings().collectors
    switches = [setting.name for setting in table() if setting.name.startswith("collector.")]
    assert [f"collector.{name}" for name in discover()] == switches


def test_defaults_are_valid() -> None:
    """What a setting is without a word could be said as well."""
    for setting in table():
        if setting.default is not None:
            assert setting.default == read_text(setting, config.show(setting.default))


def read_text(setting: Setting, text: str) -> Any:
    """Return what a text stands for."""
    return tuple(map(setting.kind.parse, text.split(","))) if setting.many else setting.kind.parse(text)


# Where they come from


def test_nothing_set_is_the_default() -> None:
    """The daemon needs no configuration."""
    assert Settings() == load(Sources())
    assert {} == load(Sources()).origins


@pytest.mark.parametrize("setting", SETTABLE, ids=lambda setting: setting.name)
def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    setting: Setting, tmp_path: Path, serve: "Serve"
) -> None:
    """The nearest to the person who types, for every setting there is."""
    (in_file, from_file), (in_environment, from_environment), (typed, from_flag) = samples(setting)
    path = tmp_path / "some.toml"
    path.write_text(toml(setting, in_file))
    environment = {setting.variable: in_environment}
    flag = (f"--no-{setting.name}",) if setting.kind is BOOLEAN else (setting.flag, typed)

    for expected, origin, got in (
        (from_file, f"{path}:1:1", load(Sources(path))),
        (from_environment, setting.variable, load(Sources(path, environment))),
        (from_flag, setting.flag, serve("--config", path, "serve", *flag, environment=environment)),
    ):
        assert expected == config.value_of(got, setting)
        assert {setting.name: origin} == got.origins
    assert from_flag != config.value_of(Settings(), setting)


def test_a_switch_can_be_switched_on_again(read: Callable[..., Settings], serve: "Serve", tmp_path: Path) -> None:
    """A later place may say yes where an earlier said no."""
    text = "collector.gpu = false\nblackbox.enabled = false"
    assert "gpu" not in read(text).collectors
    got = read(text, SPARK_AGENT_COLLECTOR_GPU="on", SPARK_AGENT_BLACKBOX="1")
    assert ("gpu" in got.collectors, got.blackbox) == (True, True)
    typed = serve("--config", tmp_path / "some.toml", "serve", "--collector.gpu", "--blackbox")
    assert ("gpu" in typed.collectors, typed.blackbox) == (True, True)


def test_the_default_file_is_read_if_it_is_there(nowhere: Path) -> None:
    """At each load: it may have come, or gone, before a reload."""
    assert load(Sources()).file is None
    nowhere.parent.mkdir()
    nowhere.write_text("beat = 2")
    assert (nowhere, 2.0) == ((got := load(Sources())).file, got.beat)
    nowhere.unlink()
    assert Settings() == load(Sources())


def test_a_named_file_hides_the_default_one(nowhere: Path, read: Callable[..., Settings]) -> None:
    """Two files would be hard to follow."""
    nowhere.parent.mkdir()
    nowhere.write_text("beat = nonsense")
    assert Settings(file=(got := read("")).file) == got


def test_a_default_file_that_cannot_be_read_is_an_error(nowhere: Path) -> None:
    """It is there, so somebody means it; here it is a folder, as no permission means nothing to root."""
    nowhere.mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"^{nowhere}: Is a directory$"):
        load(Sources())


def test_a_file_that_one_may_not_read_is_an_error(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts by other limits than the daemon's would be wrong; faked, as root may read anything."""

    def refuse_to_open(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse_to_open)
    with pytest.raises(ConfigError, match=f"^{nowhere}: Permission denied; let everybody read it"):
        load(Sources(), config.POWER)


def test_a_list_in_the_environment_has_commas() -> None:
    """And spaces, if somebody likes them."""
    got = load(Sources(environment={"SPARK_AGENT_WEB_LISTEN_ADDRESS": "127.0.0.1:1, [::1]:1,unix:/run/s"}))
    assert (TcpAddress("127.0.0.1", 1), TcpAddress("::1", 1), UnixAddress(Path("/run/s"))) == got.web_listen_address


def test_a_file_may_name_one_address_or_several(read: Callable[..., Settings]) -> None:
    """One needs no brackets."""
    assert (TcpAddress("", 1),) == read('web.listen-address = ":1"').web_listen_address
    two = (TcpAddress("", 1), TcpAddress("a.b-c_d", 0))
    assert two == read('web.listen-address = [\n":1", # one\n"a.b-c_d:0",\n]').web_listen_address


def test_an_empty_variable_is_not_set(read: Callable[..., Settings]) -> None:
    """A unit and a compose file leave one empty to mean the default."""
    empty = {setting.variable: "" for setting in SETTABLE}
    assert 2.0 == read("beat = 2", **empty, STATE_DIRECTORY="").beat


def test_paths_belong_to_where_they_are_written(
    read: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file, to its folder; elsewhere to the working directory, and at once: a daemon may change it."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    got = read('web.config.file = "web.yml"', SPARK_AGENT_TEXTFILE="out", SPARK_AGENT_STATE_DIRECTORY="/abs")
    assert tmp_path / "web.yml" == got.web_config_file
    assert (tmp_path / "elsewhere" / "out", Path("/abs")) == (got.textfile, got.state_directory)


@pytest.mark.parametrize(
    ("given_", "expected"), [("/var/lib/a", "/var/lib/a"), ("/var/lib/a:/var/lib/b", "/var/lib/a")]
)
def test_systemd_names_the_state_directory(read: Callable[..., Settings], given_: str, expected: str) -> None:
    """The first of several; and anything that a person says wins over it."""
    got = read("", STATE_DIRECTORY=given_)
    assert (Path(expected), "$STATE_DIRECTORY") == (got.state_directory, got.origins["state.directory"])
    assert Path("/mine") == read('state.directory = "/mine"', STATE_DIRECTORY=given_).state_directory


def test_an_unknown_variable_is_a_warning() -> None:
    """No error: Kubernetes makes such names by itself. SPARK_AGENT_DEBUG is none of ours, and known."""
    names = ("SPARK_AGENT_DEBUG", "SPARK_AGENT_LOG_LEVLE", "SPARK_AGENT_SERVICE_PORT_HTTP_3", "SPARK_AGENT_SPEED")
    settings = load(Sources(environment=dict.fromkeys(names, "2")))
    one, two, three = settings.warnings
    assert {} == settings.origins
    assert "SPARK_AGENT_LOG_LEVLE: no such variable; did you mean SPARK_AGENT_LOG_LEVEL?" == one
    assert two.startswith("SPARK_AGENT_SERVICE_PORT_HTTP_3: no such variable; ")
    assert three.startswith("SPARK_AGENT_SPEED: no such variable; ")


def test_sources_can_be_read_again(tmp_path: Path) -> None:
    """A reload is another load of the same sources, which the settings keep."""
    path = tmp_path / "some.toml"
    path.write_text("beat = 2")
    old = load(Sources(path, {"SPARK_AGENT_LOG_LEVEL": "debug"}))
    path.write_text("beat = 3")
    new = load(old.sources)
    assert (2.0, 3.0, Level.DEBUG) == (old.beat, new.beat, new.log_level)


# Values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:10240", TcpAddress("127.0.0.1", 10240)),
        (":10240", TcpAddress("", 10240)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("spark-1.lan:65535", TcpAddress("spark-1.lan", 65535)),
        ("[::]:1", TcpAddress("::", 1)),
        ("[FE80::1%eth0]:1", TcpAddress("FE80::1%eth0", 1)),
        ("[::ffff:127.0.0.1]:1", TcpAddress("::ffff:127.0.0.1", 1)),
        ("unix:/run/spark agent/s", UnixAddress(Path("/run/spark agent/s"))),
        ("unix:/" + "x" * 106, UnixAddress(Path("/" + "x" * 106))),
    ],
)
def test_addresses(text: str, expected: config.Address) -> None:
    """As Prometheus' exporters have them, and a socket's path."""
    got = config.ADDRESS.parse(text)
    assert expected == got
    assert got == config.ADDRESS.parse(str(got)), "and an address can be said"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not an address: HOST:PORT, [IPV6]:PORT, :PORT"),
        ("10240", "is not an address"),
        ("localhost", "is not an address"),
        ("localhost:", "is not an address"),
        ("localhost:http", "is not an address"),
        ("localhost:-1", "is not an address"),
        ("localhost:１", "is not an address"),
        ("localhost:65536", "has a port above 65535"),
        ("localhost:100000", "is not an address"),
        ("127.0.0.256:1", "is not an address"),
        ("127.0.0.1.1:1", "is not an address"),
        ("127.0.0.01:1", "is not an address"),
        ("::1:10240", "needs brackets around an IPv6 address, such as [::1]:10240"),
        ("::1", "needs brackets"),
        ("fe80::1:1", "needs brackets"),
        ("[::1]", "is not an address"),
        ("[::1:1", "is not an address"),
        ("[127.0.0.1]:1", "is not an address"),
        ("[::g]:1", "is not an address"),
        ("[]:1", "is not an address"),
        ("http://localhost:1", "is not an address"),
        ("a b:1", "is not an address"),
        ("ä:1", "is not an address"),
        ("localhost:1\n", "is not an address"),
        ("unix:", "names no absolute path, such as unix:/run"),
        ("unix:relative", "names no absolute path"),
        ("unix:@abstract", "names no absolute path"),
        ("unix:/a\0b", "is not an address"),
        ("unix:/" + "x" * 107, "is longer than the 107 bytes"),
        ("unix:/" + "ä" * 54, "is longer than the 107 bytes"),
    ],
)
def test_bad_addresses(text: str, says: str) -> None:
    """Each said with what is valid."""
    with pytest.raises(SettingError, match=re.escape(says)):
        config.ADDRESS.parse(text)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("beat", ("", "0.099", "60.1", "nan", "inf", "-inf", "-1", "0", "1s", "1,5", "0x1")),
        ("web.max-connections", ("", "0", "-1", "65536", "1.0", "1e3", "many", "9" * 5000)),
        ("blackbox", ("", "2", "maybe", "none")),
        ("log.level", ("", "warning", "INFO", "0", "info ")),
        ("web.telemetry-path", ("", "/", "metrics", "/a b", "/a?b", "/a#b", "/a/", "//a", "/ä", "/a\n", "/a%20b")),
        ("web.telemetry-path", ("/-/ready", "/-/x", "/-", "/api", "/api/v1/report")),
        ("textfile", ("", "/a\0b")),
        ("speed", ("0", "-1", "inf", "nan")),
        ("power.adapter-watts", ("", "0", "-0.0", "0.9", "-1", "1000.1", "nan", "inf", "140W", "0,1")),
        ("power.soc-watts", ("0", "-140", "1e9", "-inf", "NaN")),
        ("misread.exporter", ("", "default", "9100", "127.0.0.1:9100", "ftp://127.0.0.1/metrics", "http://")),
        (
            "misread.exporter",
            ("http://:9100", "http://h:0/", "http://h:65536/", "http://h/ä", "http://h/#x", "http://[::1"),
        ),
        ("misread.exporter", ("http://me:secret@127.0.0.1:9100/metrics", "http://@127.0.0.1")),
        ("misread.interval", ("0", "61", "nan")),
        ("audit", ("", "/a\0b")),
    ],
)
def test_bad_values(name: str, texts: tuple[str, ...]) -> None:
    """Never guessed at, never cut to what would fit."""
    (setting,) = (setting for setting in table() if setting.name == name)
    for text in texts:
        with pytest.raises(SettingError):
            setting.kind.parse(text)


@pytest.mark.parametrize("text", ["1", "yes", "true", "on", "TRUE", "0", "no", "false", "off", "Off"])
def test_truth_has_systemd_s_spellings(text: str) -> None:
    """For variables, which units set; a file has TOML's."""
    assert (text.lower() in ("1", "yes", "true", "on")) is BOOLEAN.parse(text)


# What is wrong with a file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("beat = 2s", ["1:9: expected newline or end of document after a statement"]),
        ("beat = 2\nbeat = 3\n", ["2:9: cannot overwrite a value"]),
        ("\n\n  beat = true", ["3:3: beat: true is not a number of seconds from 0.1 to 60"]),
        ("[web]\n\tmax-connections = 0", ["2:2: web.max-connections: 0 is not a whole number from 1 to 65535"]),
        ("web.max-connections = 1.0", ["1:1: web.max-connections: 1.0 is not a whole number from 1 to 65535"]),
        ("beat = 2020-01-01", ['1:1: beat: "2020-01-01" is not a number of seconds from 0.1 to 60']),
        ("beat = nan", ["1:1: beat: NaN is not a number of seconds from 0.1 to 60"]),
        ('log.level = "warning"', ['1:1: log.level: "warning" is not one of debug, info, warn, error']),
        ("collector.gpu = 1", ["1:1: collector.gpu: 1 is not true or false"]),
        ("web.listen-address = []", ["1:1: web.listen-address: the list is empty"]),
        ("web.listen-address = [\n':1',\n10240,\n]", ["1:1: web.listen-address: 10240 is not an address: "]),
        ("beet = 2", ["1:1: beet: no such setting; did you mean beat?"]),
        ("[web]\nlisten-adress = 1", ["2:1: web.listen-adress: no such setting; did you mean web.listen-address?"]),
        ("listen-address = 1", ["1:1: listen-address: no such setting; did you mean web.listen-address?"]),
        ("collector.gpux = false", ["1:1: collector.gpux: no such setting; did you mean collector.gpu?"]),
        ("\n[collectr]\n[collectr.x]", ["2:1: collectr: no such setting; did you mean collector?"]),
        ("[collectr]\ngpu = false", ["1:1: collectr: no such setting; did you mean collector?"]),
        ('"web.listen-address" = 1', ['1:1: "web.listen-address": no such setting; did you mean web.listen-address?']),
        (
            "[log]\nzzzzzzzzzzz = 1",
            ["2:1: log.zzzzzzzzzzz: no such setting; there are level, format"],
        ),
        ("log = 3", ["1:1: log: is a section; in it are level, format"]),
        ("textfile = '/a'", ["1:1: textfile: is a section; in it are directory, interval"]),
        ("[[log]]\nlevel = 'info'", ["1:1: log: is a section; in it are level, format"]),
        ("beat.x = 3", ['1:1: beat: {"x": 3} is not a number of seconds from 0.1 to 60']),
        ("web = { max-connections = 0 }", ["1:1: web.max-connections: 0 is not a whole number from 1 to 65535"]),
        ("blackbox.flush = 0x" + "f" * 5000, ["1:1: blackbox.flush: far too large"]),
        ("beat = " + "9" * 5000, ["exceeds the limit"]),
        ("speed = 3", ["1:1: speed: no such setting; there are "]),
        (
            "[power]\nadapter_watts = 0\nsoc_watts = nan\nrest_watts = -1\nsystem_watts = 1001",
            [
                "2:1: power.adapter_watts: 0 is not a number of watts from 1 to 1000",
                "3:1: power.soc_watts: NaN is not a number of watts from 1 to 1000",
                "4:1: power.rest_watts: -1 is not a number of watts from 1 to 1000",
                "5:1: power.system_watts: 1001 is not a number of watts from 1 to 1000",
            ],
        ),
        ("power.adapter-watts = 1", ["1:1: power.adapter-watts: no such setting; did you mean power.adapter_watts?"]),
        ("adapter_watts = 1", ["1:1: adapter_watts: no such setting; did you mean power.adapter_watts?"]),
        ("power = 140", ["1:1: power: is a section; in it are adapter_watts, soc_watts, system_watts, rest_watts"]),
        (b"beat = 2 # \xff", ["1:12: not UTF-8, which TOML is"]),
        (b"# \xc3\xa4\nx = '\xe4'", ["2:6: not UTF-8, which TOML is"]),
        ("a = [1,\n", ["invalid value (at end of document)"]),
    ],
)
def test_a_fault_has_its_place(read: Callable[..., Settings], text: str | bytes, expected: list[str]) -> None:
    """Line and column, as compilers have them, so that an editor goes there; and what is valid, or was meant."""
    got = problems(read, text)
    assert len(expected) == len(got)
    assert [] == [(line, says) for line, says in zip(got, expected, strict=True) if says not in line]


def test_all_faults_are_told_at_once(read: Callable[..., Settings]) -> None:
    """Those of the file in its order, then those of the environment."""
    text = "beat = 0\n[log]\nlevel = 3\nformt = 3\n"
    assert ["1:1", "3:1", "4:1", "SPARK_AGENT_BEAT", "SPARK_AGENT_COLLECTOR_NIC"] == [
        line.partition(": ")[0] for line in problems(read, text, SPARK_AGENT_BEAT="x", SPARK_AGENT_COLLECTOR_NIC="x")
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_no_text_that_looks_like_a_key_is_taken_for_it(read: Callable[..., Settings], end: str) -> None:
    """In a comment, in a string of several lines, in a section of the same name."""
    lines = [
        "# log.level = 1",
        'web.telemetry-path = """/x\\',
        "log.level = 1",
        '"""',
        "[textfile]",
        "interval = 0  # level = 1",
        "[log]  # [textfile]",
        "",
        "   'level' = 1",
    ]
    assert ["2:1", "6:1", "9:4"] == [line.partition(": ")[0] for line in problems(read, end.join(lines))]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a = " + b"[" * 60_000, "nested too deeply|at line|too deep"),
        (b"a = " + b"[" * 300 + b"]" * 300, "no such setting"),
        (b"beat" * 20_000, "larger than 65536 bytes"),
        (b"k" * 60_000 + b" = 1", "no such setting"),
        (b"beat = [\n" + b"1,\n" * 20_000 + b"]", "1:1: beat: .* is not a number"),
        (b"x = '''\n" + b"]\n" * 500 + b"'''", "1:1: x: no such setting"),
        (b"a" + b".a" * 3_000 + b" = 1", "nested too deeply"),
        (b"beat" + b".a" * 3_000 + b" = 1", "nested too deeply"),
        (b"\0", "at line 1|1:1"),
    ],
    ids=["depth", "some depth", "size", "a long key", "many lines", "many ends", "a path", "a value", "NUL"],
)
def test_no_file_is_too_much(read: Callable[..., Settings], content: bytes, says: str) -> None:
    """Nor hostile: it ends with a message."""
    (problem,) = problems(read, content)
    assert re.search(says, problem)


def test_a_file_without_end() -> None:
    """Is not read to its end."""
    with pytest.raises(ConfigError, match=r"^/dev/zero: larger than 65536 bytes, which no settings are$"):
        load(Sources(Path("/dev/zero")))


def test_what_a_file_says_cannot_reach_the_terminal(read: Callable[..., Settings]) -> None:
    """Neither a new line nor an escape sequence, from key or value."""
    for text in ('"\\u001b[2J\\n" = 1', 'log.level = "\\u001b[2J\\n\\u009b"', "beat = 'x\u202e'"):
        (problem,) = problems(read, text)
        assert problem.isprintable()


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="replace")))
@example(b"[[web]]\n[web.config]")
@example(b"web.config = 1")
@example(b"a.b.c = {d = {e = 1}}\n[a.b.x]\n")
def test_any_file_ends_with_settings_or_a_line(content: bytes) -> None:
    """Whatever is in it: no other exception, and each problem on a line of its own."""
    _ends_well(content, {})


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*(setting.key for setting in table()), "web", "web.config", "[log]#", "x", '"log"']),
            st.sampled_from(
                ["1", "true", "-1.5", "'x'", "[]", "[':1', 3]", "{}", "{x = 1}", "0xff", "1979-05-27", "'''\n'''"]
            ),
        ),
        max_size=5,
    )
)
def test_any_keys_with_any_values(pairs: list[tuple[str, str]]) -> None:
    """Real keys with values of any type, in any order and twice."""
    _ends_well("\n".join(f"{key} = {value}" for key, value in pairs).encode(), {})


@given(st.dictionaries(st.sampled_from([setting.variable for setting in table()]), st.text(max_size=20)))
@example({"SPARK_AGENT_WEB_LISTEN_ADDRESS": "unix:/\ud800"})
@example({"SPARK_AGENT_WEB_LISTEN_ADDRESS": ","})
def test_any_environment_ends_with_settings_or_a_line(environment: dict[str, str]) -> None:
    """Bytes that are no UTF-8 among them, which Python carries as lone surrogates."""
    _ends_well(b"", environment)


def _ends_well(content: bytes, environment: Mapping[str, str]) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, content)
    os.close(write_end)
    try:
        told = _problems(Sources(Path(f"/dev/fd/{read_end}"), environment))
    finally:
        os.close(read_end)
    assert [] == [line for line in told if not line or not line.isprintable()]


def _problems(sources: Sources) -> tuple[str, ...]:
    try:
        load(sources)
    except ConfigError as error:
        return error.problems
    return ()


# What must be there


def refuse(path: Path) -> None:
    """Be a web configuration that cannot be used."""
    raise ConfigError(f"{path}:3: unknown field")


def test_what_is_needed_is_looked_at(tmp_path: Path, read: Callable[..., Settings]) -> None:
    """The file itself, the web configuration, each directory, and a socket's."""
    for name in ("out", "state", "run"):
        (tmp_path / name).mkdir()
    settings = read(
        "textfile.directory = 'out'\nstate.directory = 'state'\nweb.config.file = 'web.yml'\n"
        f"web.listen-address = [':1', 'unix:{tmp_path}/run/a']"
    )
    asked: list[Path] = []
    names = ["some.toml", "web.yml", "run", "out", "state"]
    assert [(str(tmp_path / name), None) for name in names] == list(checks(settings, asked.append))
    assert [tmp_path / "web.yml"] == asked


def test_nothing_set_needs_nothing() -> None:
    """The defaults start anywhere."""
    assert [] == list(checks(Settings(), refuse))


def test_what_is_missing_is_told_with_who_wants_it(tmp_path: Path, read: Callable[..., Settings]) -> None:
    """The directory alone would not say which of three places is wrong."""
    (tmp_path / "file").write_text("")
    settings = read("textfile.directory = 'file'", SPARK_AGENT_STATE_DIRECTORY="/nope")
    expected = [
        (str(tmp_path / "some.toml"), None),
        (
            str(tmp_path / "file"),
            f"{tmp_path}/file: Not a directory; textfile is set by {tmp_path}/some.toml:1:1",
        ),
        ("/nope", "/nope: No such file or directory; state.directory is set by SPARK_AGENT_STATE_DIRECTORY"),
    ]
    assert expected == list(checks(settings, refuse))


def test_no_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said by the kernel, which knows of read-only mounts too; faked, as root may write anywhere."""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(os, "getuid", lambda: 998)
    ((_, problem),) = checks(Settings(state_directory=tmp_path), refuse)
    assert f"{tmp_path}: user 998 may not write there; state.directory is set by nobody" == problem


def test_a_drive_that_became_read_only_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote the settings cannot help it, and what fails beside the drive is worth knowing."""
    status = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*status[:8], os.ST_RDONLY, *status[9:])))
    settings = Settings(state_directory=tmp_path, textfile=tmp_path)
    (_, textfile), (_, state) = checks(settings, refuse)
    assert textfile
    assert state is None


def test_a_web_configuration_that_cannot_be_used_is_told_in_its_own_words(tmp_path: Path) -> None:
    """It has file and line in it already."""
    path = tmp_path / "web.yml"
    assert [(str(path), f"{path}:3: unknown field")] == list(checks(Settings(web_config_file=path), refuse))


# Reload


@pytest.mark.parametrize("setting", table(), ids=lambda setting: setting.name)
def test_what_needs_a_restart_is_named(setting: Setting) -> None:
    """One by one: each setting that is changed is named where a reload cannot change it, and no other."""
    old = Settings()
    if setting.name.startswith("collector."):
        new = replace(old, collectors=tuple(name for name in old.collectors if f"collector.{name}" != setting.name))
    else:
        new = replace(old, **{setting.parameter: samples(setting)[0][1]})
    assert old != new
    assert ([] if setting.live else [setting.name]) == changes_needing_restart(old, new)


def test_what_a_reload_must_be_able_to_change() -> None:
    """And what it must not pretend to."""
    live = {setting.name for setting in table() if setting.live}
    assert {"log.level", "textfile", "textfile.interval", "collector.gpu", "power.adapter-watts"} <= live
    assert set() == {"beat", "web.listen-address", "state.directory", "speed"} & live


# Those on power alone


def test_a_group_is_read_without_the_others(tmp_path: Path) -> None:
    """A look must not fail for a port that it never opens; but what is no setting is none for it either."""
    path = tmp_path / "some.toml"
    path.write_text("beat = 0\nweb.listen-address = 3\npower.adapter_watts = 140\nlog.level = 'loud'")
    environment = {"SPARK_AGENT_BEAT": "never", "SPARK_AGENT_POWER_REST_WATTS": "60", "STATE_DIRECTORY": "/nope"}
    got = load(Sources(path, environment), config.POWER)
    assert (140.0, 60.0, Settings().beat, None) == (
        got.power_adapter_watts,
        got.power_rest_watts,
        got.beat,
        got.power_soc_watts,
    )
    for text in ("beet = 2", "beat = 2s", "power.soc_watts = 'all'", "log = 3"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}:1:"):
            load(Sources(path), config.POWER)


def test_where_a_setting_was_set(tmp_path: Path) -> None:
    """File, line and key; a variable and a flag say the key themselves."""
    path = tmp_path / "some.toml"
    path.write_text("[power]\nadapter_watts = 140")
    sources = Sources(path, {"SPARK_AGENT_POWER_REST_WATTS": "60"}, {"power_soc_watts": 100.0})
    settings = load(sources)
    assert [
        f"{path}:2:1 power.adapter_watts",
        "SPARK_AGENT_POWER_REST_WATTS",
        "--power.soc-watts",
        "default",
    ] == [settings.origin_of(f"power.{of}-watts") for of in ("adapter", "rest", "soc", "system")]


# The command

Serve = Callable[..., Settings]


@dataclass
class Daemon:
    """What the daemon was started with."""

    settings: Settings | None = None
    target: Any = None
    code: int = 0

    def serve(self, settings: Settings, target: object) -> int:
        """Stand in for the daemon."""
        self.settings, self.target = settings, target
        return self.code


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """Return a stand-in for the daemon, and give the log back afterwards."""
    stand_in = Daemon()
    module = types.ModuleType("spark_agent.exporters.daemon")
    module.__dict__["serve"] = stand_in.serve
    monkeypatch.setitem(sys.modules, "spark_agent.exporters.daemon", module)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield stand_in
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def serve(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Return a function that runs the command and returns what the daemon was given, where nothing is checked."""
    monkeypatch.setattr(config, "checks", lambda *_: [])

    def call(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> Settings:
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["spark-agent", *map(str, arguments)])
        assert 0 == cli._run()
        assert daemon.settings
        return daemon.settings

    return call


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], daemon: Daemon) -> Run:  # noqa: ARG001  (stands in for the real one)
    """Return a function that runs a command here."""
    return runner(monkeypatch, capsys)


def test_serve_starts_the_daemon(run: Run, daemon: Daemon) -> None:
    """With the settings, and the machine to look at; its exit code is the command's."""
    daemon.code = 1
    assert 1 == run("--demo", "fe-gemm", "serve", "--speed", "60", "--beat", "5", "--no-collector.nic").code
    assert daemon.settings
    assert (60.0, 5.0) == (daemon.settings.speed, daemon.settings.beat)
    assert "nic" not in daemon.settings.collectors
    assert "fe-gemm" == daemon.target.demo


def test_addresses_may_be_repeated(serve: Serve) -> None:
    """In their order."""
    got = serve("serve", "--web.listen-address", ":1", "--web.listen-address", "[::1]:2")
    assert (TcpAddress("", 1), TcpAddress("::1", 2)) == got.web_listen_address


def test_the_log_says_once_what_it_runs_with(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was set and where that came from a file or not; what is odd; and what is off without a state directory."""
    monkeypatch.setenv("SPARK_AGENT_BEET", "1")
    lines = run("serve", "--log.format", "json", "--textfile", tmp_path, "--web.listen-address", "[::1]:0").err
    warning, settings, state = map(json.loads, lines.splitlines())
    assert ("warn", "SPARK_AGENT_BEET: no such variable; did you mean SPARK_AGENT_BEAT?") == (
        warning["level"],
        warning["msg"],
    )
    del settings["ts"], settings["level"], settings["msg"]
    assert {"web.listen-address": "[::1]:0", "textfile": str(tmp_path), "log.format": "json"} == settings
    assert state["msg"].startswith("no state directory, so ")
    assert "no state directory" not in run("serve", "--state.directory", tmp_path).err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("serve", "--beat", "0"), "Invalid value for '--beat': \"0\" is not a number of seconds from 0.1 to 60"),
        (("serve", "--web.listen-address", "::1:1"), "Invalid value for '--web.listen-address': \"::1:1\" needs"),
        (("serve", "--web.listen-address", ":1", "--web.listen-address", "x"), '"x" is not an address'),
        (("serve", "--log.level", "warning"), "is not one of debug, info, warn, error"),
        (("serve", "--collector.gpux"), "--collector.gpu"),
        (("serve", "--web.listen-adress", ":1"), "--web.listen-address"),
        (("serve", "--textfile", ""), "is not the path of a directory"),
        (("serve", "--beat"), "requires an argument"),
        (("serve", "now"), "unexpected extra argument (now)"),
        (("serve", "--speed", "2"), "--speed plays a recorded machine; name one with --machine or --demo"),
        (("--config", "x.toml", "demos"), "--config does nothing here: it is for serve, snapshot"),
    ],
)
def test_a_wrong_flag_is_wrong_usage(run: Run, daemon: Daemon, arguments: tuple[str, ...], says: str) -> None:
    """64, as with each command; what is valid is said, and nothing starts."""
    done = run(*arguments)
    assert (64, "") == (done.code, done.out)
    assert says in " ".join(done.err.split())
    assert daemon.settings is None


@pytest.mark.parametrize("check", [(), ("--check-config",)], ids=["serve", "check"])
def test_a_wrong_file_is_78(run: Run, daemon: Daemon, tmp_path: Path, check: tuple[str, ...]) -> None:
    """EX_CONFIG of sysexits(3), which a unit can name in RestartPreventExitStatus=; a line for each fault."""
    path = tmp_path / "some.toml"
    expected = f"spark-agent: {path}: No such file or directory\n"
    assert Done(78, "", expected) == run("--config", path, "serve", *check)
    path.write_text("beat = 0\nbeet = 1")
    done = run("--config", path, "serve", *check)
    assert (78, "", 2) == (done.code, done.out, done.err.count("\n"))
    assert all(line.startswith(f"spark-agent: {path}:") for line in done.err.splitlines())
    assert daemon.settings is None


def test_a_wrong_variable_is_78(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that would win over it does not hide it."""
    monkeypatch.setenv("SPARK_AGENT_BEAT", "soon")
    expected = 'spark-agent: SPARK_AGENT_BEAT: "soon" is not a number of seconds from 0.1 to 60\n'
    assert Done(78, "", expected) == run("serve", "--beat", "1")


@pytest.mark.parametrize("check", [(), ("--check-config",)], ids=["serve", "check"])
def test_a_missing_directory_is_78(run: Run, daemon: Daemon, check: tuple[str, ...]) -> None:
    """At the start, not at the first write."""
    expected = "spark-agent: /nope: No such file or directory; textfile is set by --textfile\n"
    assert Done(78, "", expected) == run("serve", "--textfile", "/nope", *check)
    assert daemon.settings is None


def test_a_wrong_web_configuration_is_78(run: Run, tmp_path: Path) -> None:
    """In the words of who reads it, without a second mention of the file."""
    path = tmp_path / "web.yml"
    path.write_text("tls_server_confg:\n")
    done = run("serve", "--check-config", "--web.config.file", path)
    assert (78, "", 1) == (done.code, done.out, done.err.count("\n"))
    assert 1 == done.err.count(str(path))
    assert "tls_server_confg" in done.err


def test_check_config_says_what_is_fit_and_starts_nothing(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    """A line for each file and directory; what is wrong goes to stderr."""
    path, web = tmp_path / "some.toml", tmp_path / "web.yml"
    path.write_text("web.config.file = 'web.yml'\nstate.directory = '.'\n")
    web.write_text("")
    assert Done(0, f"{path}: OK\n{web}: OK\n{tmp_path}: OK\n", "") == run("--config", path, "serve", "--check-config")
    done = run("--config", path, "serve", "--check-config", "--textfile", "/nope")
    assert (78, f"{path}: OK\n{web}: OK\n{tmp_path}: OK\n", 1) == (done.code, done.out, done.err.count("\n"))
    assert daemon.settings is None


@pytest.mark.parametrize("columns", [80, 100])
def test_help_has_every_flag_under_its_group(run: Run, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Each with what it does and its default, and none cut off; the collectors' switches share a line."""
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = run("serve", "--help").out
    assert max(map(len, shown.splitlines())) <= columns
    words = " ".join(shown.split())
    for setting in config._entries():
        flag = f"--[no-]{setting.name}" if setting.kind is BOOLEAN else f"{setting.flag} {setting.kind.metavar}"
        assert f"{flag} {setting.help}" in words
        assert f"\n{setting.group}:\n" in shown
    for name in discover():
        assert re.search(rf"\b{name}\b", words)
    assert "--check-config" in words


def test_help_imports_no_collector() -> None:
    """Nor yaml, rich, pynvml, psutil, pyudev, prometheus_client: it must come at once."""
    code = (
        "import sys; before = set(sys.modules); sys.argv = ['spark-agent', 'serve', '--help']\n"
        "from spark_agent.agent.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO / ".namespace")}
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, env=environment, check=True)
    modules = set(done.stderr.split())
    own = {module for module in modules if module.startswith("spark_agent.")}
    assert {f"spark_agent.agent{name}" for name in ("", ".cli", ".config", ".logs")} == own
    foreign = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names)
    assert {"click", "spark_agent"} == foreign


# The pages


def literal(value: object) -> str:
    """Return a value as TOML has it, which for these is as JSON has it."""
    return json.dumps([str(one) for one in value] if isinstance(value, tuple) else value, default=str)


def reference() -> str:
    """Return the table of docs/configuration.md."""
    rows = ["| flag | in the file | in the environment | value | default | reload | what |", "|---" * 7 + "|"]
    for setting in config._entries():
        flag = f"--[no-]{setting.name}" if setting.kind is BOOLEAN else setting.flag
        variable = setting.variable.replace("COLLECTOR_NAME", "COLLECTOR_*NAME*")
        places = ("–", "–") if setting.flag_only else (f"`{setting.key}`", f"`{variable}`".replace("*", ""))
        default = f"`{config.show(setting.default)}`" if setting.default is not None else "–"
        reload = "at once" if setting.live else "restart"
        rows.append(
            f"| `{flag}` | {' | '.join(places)} | {setting.kind.valid} | {default} | {reload} | {setting.help} |"
        )
    return "\n".join(rows) + "\n"


def example_file() -> str:
    """Return docs/spark-agent.toml."""
    out = io.StringIO()
    out.write(
        "# Settings of `spark-agent serve`, each with its default: what is commented out changes nothing.\n"
        "# [power] holds for `snapshot` too.\n"
        "# Read from /etc/spark-agent/spark-agent.toml, or as `spark-agent --config FILE serve`;\n"
        "# `serve --check-config` tells what is wrong. docs/configuration.md has the whole story.\n"
    )
    section = ""
    # Keys without a section come first: TOML has no way back out of one.
    for setting in sorted(SETTABLE, key=lambda setting: "." in setting.key):
        before, _, name = setting.key.rpartition(".") if "." not in setting.key else setting.key.partition(".")
        if before != section:
            section = before
            out.write(f"\n[{section}]\n")
        if setting.name.startswith("collector."):
            out.write(f"#{name} = true\n")
            continue
        out.write(f"\n# {setting.help}\n# It is {setting.kind.valid}.\n")
        if setting.default is None:
            out.write(f"# No default; for example:\n#{name} = {literal(setting.example)}\n")
        else:
            out.write(f"#{name} = {literal(setting.default)}\n")
    return out.getvalue()


def test_the_reference_is_the_table(request: pytest.FixtureRequest) -> None:
    """The page has each setting as the code has it; ``--update-golden`` writes it."""
    prose, mark, _ = REFERENCE.read_text(encoding="utf-8").partition("--update-golden`. -->\n")
    expected = f"{prose}{mark}\n{reference()}"
    if request.config.getoption("--update-golden"):
        REFERENCE.write_text(expected, encoding="utf-8")
    assert expected == REFERENCE.read_text(encoding="utf-8")


def test_the_example_has_every_key(request: pytest.FixtureRequest) -> None:
    """With its default, commented out; ``--update-golden`` writes it."""
    if request.config.getoption("--update-golden"):
        EXAMPLE.write_text(example_file(), encoding="utf-8")
    assert example_file() == EXAMPLE.read_text(encoding="utf-8")


def test_the_example_changes_nothing() -> None:
    """Neither as it is, nor with every default in it said."""
    assert Settings(file=EXAMPLE) == load(Sources(EXAMPLE))


def test_each_line_of_the_example_is_valid(read: Callable[..., Settings]) -> None:
    """All keys, uncommented; what has a default has that one."""
    text = re.sub(r"^#([a-z._-]+ = )", r"\1", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    got = read(text)
    assert {setting.name for setting in SETTABLE} == set(got.origins)
    for setting in SETTABLE:
        example = [*setting.example] if setting.many else setting.example
        expected = config._toml_value(setting, example) if setting.default is None else setting.default
        assert expected == config.value_of(got, setting)
