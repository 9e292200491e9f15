"""The command line as a person and a script meet it: exit codes, streams, and one line for whatever goes wrong."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from commands import Done, Run, runner
from rich.cells import cell_len

from spark_agent.agent import __version__, cli, config
from spark_agent.agent.machine import demos

AGENT = (sys.executable, "-m", "spark_agent.agent")
COMMANDS = tuple(cli.commands.commands)
NAMESPACE = Path(__file__).parent.parent / ".namespace"
FULL = Path("/dev/full")

# What stdlib modules click and the few lines before a command may take with them; anything else costs start-up time.
FOREIGN = {"click", "spark_agent"}
OWN = {"spark_agent", "spark_agent.agent", "spark_agent.agent.cli"}
STANDARD = frozenset(
    """ast atexit bz2 collections contextlib copy copyreg dataclasses datetime dis enum errno fnmatch functools gettext
    glob grp importlib inspect ipaddress itertools keyword linecache locale logging lzma math ntpath opcode operator
    pathlib platform posixpath pwd re reprlib shutil string struct textwrap threading token tokenize traceback types
    typing urllib uuid warnings weakref zlib""".split()  # noqa: SIM905  (a hundred quotes say no more)
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command here, where no process is needed to see what it does."""
    return runner(monkeypatch, capsys)


def _environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")}
    return kept | {"PYTHONPATH": str(NAMESPACE), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | more


def _process(
    *arguments: str | Path, stdout: int = subprocess.PIPE, environment: Mapping[str, str] | None = None
) -> Done:
    """Run a command as a process of its own."""
    done = subprocess.run(
        (*AGENT, *map(str, arguments)),
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=_environment() | dict(environment or {}),
        timeout=60,
        check=False,
    )
    return Done(done.returncode, (done.stdout or b"").decode("utf-8", "replace"), done.stderr.decode())


def _folder(path: Path, files: Mapping[str, str] | None = None, **parts: Any) -> Path:
    """Write a small machine as a folder."""
    (path / "root").mkdir(parents=True)
    identity = {"format": 1, "name": "box", "origin": "synthetic"}
    for name, content in ({"machine": identity} | parts).items():
        (path / f"{name}.json").write_text(json.dumps(content))
    for name, text in (files or {}).items():
        (path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "root" / name).write_text(text)
    return path


# Power limits of one's own


@pytest.fixture
def default_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return where the default file would be, with nothing set in the environment."""
    for name in os.environ:
        if name.startswith("SPARK_AGENT_"):
            monkeypatch.delenv(name)
    path = tmp_path / "etc" / "spark-agent.toml"
    path.parent.mkdir()
    monkeypatch.setattr(config, "DEFAULT_FILE", path)
    return path


def _adapter(done: Done) -> tuple[float, str, str]:
    (limit,) = (one for one in json.loads(done.out)["power"]["limits"] if one["limit"] == "adapter")
    return limit["value"], limit["origin"], limit["source"]


_LOOK = ("--demo", "fe-gemm", "snapshot", "--output", "json")


def test_a_look_is_judged_by_the_owners_limits(
    run: Run, default_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the default file, the one that is named, or the environment; with the exit code of what follows."""
    assert (0, 240, "vendor_doc") == ((done := run(*_LOOK)).code, *_adapter(done)[:2])
    default_file.write_text("[power]\nadapter_watts = 140")
    done = run(*_LOOK)
    assert (140, "user", f"{default_file}:2:1 power.adapter_watts") == _adapter(done)
    assert 2 == done.code
    power = json.loads(done.out)["power"]
    assert "over_budget" == power["verdicts"]["system"]["verdict"]
    assert ("adapter", -35) == (power["headroom"]["budget"], power["headroom"]["value"])
    (named := tmp_path / "some.toml").write_text("power = { adapter_watts = 200 }")
    assert (200, "user", f"{named}:1:1 power.adapter_watts") == _adapter(run("--config", named, *_LOOK))
    assert 240 == _adapter(run("--config", "/dev/null", *_LOOK))[0]
    monkeypatch.setenv("SPARK_AGENT_POWER_ADAPTER_WATTS", "300")
    assert (300, "user", "SPARK_AGENT_POWER_ADAPTER_WATTS") == _adapter(run("--config", named, *_LOOK))
    played = run("--config", named, "--demo", "fe-gemm", "--at", "3", "snapshot", "--output", "json")
    assert 300 == _adapter(played)[0]


def test_a_look_needs_nothing_that_the_daemon_needs(run: Run, default_file: Path) -> None:
    """A port, a folder or a beat that is no good is no matter here; what is no setting is."""
    default_file.write_text("beat = 0\nweb.listen-address = 'x'\nstate.directory = '/nope'\npower.soc_watts = 100")
    assert 2 == run(*_LOOK).code
    default_file.write_text("beat = 0\n[power]\nsoc_wats = 100\nrest_watts = 0")
    done = run(*_LOOK)
    assert (78, "") == (done.code, done.out)
    assert [
        f"spark-agent: {default_file}:3:1: power.soc_wats: no such setting; did you mean power.soc_watts?",
        f"spark-agent: {default_file}:4:1: power.rest_watts: 0 is not a number of watts from 1 to 1000",
    ] == done.err.splitlines()


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1001", "140 W"])
def test_a_limit_that_cannot_be_is_78(run: Run, default_file: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """From the environment as from the file."""
    assert not default_file.exists()
    monkeypatch.setenv("SPARK_AGENT_POWER_SYSTEM_WATTS", text)
    done = run(*_LOOK)
    assert (78, "", 1) == (done.code, done.out, done.err.count("\n"))
    assert f'SPARK_AGENT_POWER_SYSTEM_WATTS: "{text}" is not a number of watts from 1 to 1000' in done.err


def test_a_variable_that_is_none_is_told(run: Run, default_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who means to set a limit must learn that it is not set; others are the daemon's, which warns of them itself."""
    assert not default_file.exists()
    monkeypatch.setenv("SPARK_AGENT_POWER_ADAPTER", "140")
    monkeypatch.setenv("SPARK_AGENT_BEET", "1")
    done = run(*_LOOK)
    told = "SPARK_AGENT_POWER_ADAPTER: no such variable; did you mean SPARK_AGENT_POWER_ADAPTER_WATTS?"
    assert (0, f"spark-agent: {told}\n") == (done.code, done.err)


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--demo", "fe-gemm"), 0),
        (("--demo", "fe-stock"), 0),
        (("--demo", "fe-wedged"), 2),
        (("--demo", "fe-wedged-enodata"), 2),
        (("--demo", "driver-lost"), 0),
        (("--demo", "driver-lost", "--at", "25"), 2),
        (("--demo", "driver-lost", "--at", "45"), 3),
        (("--demo", "driver-lost", "--at", "90", "--interval", "5"), 0),
    ],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_the_exit_code_is_that_of_a_monitoring_plugin(
    run: Run, arguments: tuple[str, ...], code: int, output: str
) -> None:
    """0 ok, 2 critical, 3 unknown, whatever the output; and nothing on stderr."""
    done = run(*arguments, "snapshot", "--output", output)
    assert (code, "") == (done.code, done.err)
    if output == "json":
        assert json.loads(done.out)


def test_this_machine_is_told_whatever_it_is(run: Run) -> None:
    """Without NVIDIA driver, hwmon or udev there is still something to say."""
    done = run("snapshot", "--output", "json")
    assert done.code in (0, 1, 2, 3)
    assert "live" == json.loads(done.out)["machine"]["origin"]
    assert "" == done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--demo", "nope", "snapshot"), "no demo 'nope'; there are dell-cx7, driver-lost, fe-gemm"),
        (("--demo", "", "snapshot"), "no demo ''; there are"),
        (("--demo", "../demos/fe-gemm", "snapshot"), "no demo"),
        (("nope",), "No such command 'nope'"),
        (("--nope",), "No such option '--nope'"),
        (("snapshot", "--nope"), "No such option '--nope'"),
        (("snapshot", "--output", "xml"), "'xml' is not one of"),
        (("snapshot", "more"), "unexpected extra argument (more)"),
        (("--demo", "fe-gemm", "snapshot", "--only", "gpu,nope"), "no part 'nope'; there are boot, cpu"),
        (("--demo", "fe-gemm", "snapshot", "--only", ""), "names no part"),
        (("--demo", "fe-gemm", "snapshot", "--only", " , "), "names no part"),
        (("--demo", "fe-gemm"), "Missing command"),
        (("--demo", "fe-gemm", "--machine", "/", "snapshot"), "--machine and --demo exclude each other"),
        (("--at", "5", "snapshot"), "--at plays a recorded machine; name one with --machine or --demo"),
        (("--demo", "fe-gemm", "--at", "soon", "snapshot"), "'soon' is not a valid float"),
        (("--demo", "fe-gemm", "--at", "-1", "snapshot"), "-1.0 is not in the range x>=0"),
        (("--demo", "fe-gemm", "--at", "nan", "snapshot"), "nan is no number of seconds"),
        (("--demo", "fe-gemm", "--at", "inf", "snapshot"), "inf is no number of seconds"),
        (("--demo", "fe-gemm", "--at", "1", "--interval", "0", "snapshot"), "0.0 is not in the range x>0"),
        (("--demo", "fe-gemm", "--at", "1", "--interval", "nan", "snapshot"), "nan is no number of seconds"),
        (("--machine", "/nope", "snapshot"), "'/nope' does not exist"),
        (("diff", "/nope", "/"), "'/nope' does not exist"),
        (("diff", "/"), "Missing argument 'AFTER'"),
    ],
)
def test_wrong_usage_is_64_and_says_what_is_right(run: Run, arguments: tuple[str, ...], says: str) -> None:
    """Never 2, which would say critical; on stderr, with nothing on stdout."""
    done = run(*arguments)
    assert (64, "") == (done.code, done.out)
    assert says in " ".join(done.err.split())


def test_no_command_shows_the_help(run: Run) -> None:
    """And is wrong usage: a script that forgot it must not go on."""
    done = run()
    assert 64 == done.code
    assert "Commands:" in done.out + done.err


def test_a_machine_that_is_none_is_3_in_one_line(run: Run, tmp_path: Path) -> None:
    """With the file and the place in it."""
    (tmp_path / "nothing").mkdir()
    (tmp_path / "text.tar.gz").write_text("no archive")
    broken = _folder(tmp_path / "broken")
    (broken / "nvml.json").write_text('{\n"devices": [,]}')
    for path, says in (
        (tmp_path / "nothing", "no machine.json in it, so it is no machine"),
        (tmp_path / "text.tar.gz", "not a readable .tar.gz: truncated header"),
        (broken, "nvml.json: line 2, column 13: Expecting value"),
    ):
        done = run("--machine", path, "snapshot")
        assert (3, "", 1) == (done.code, done.out, done.err.count("\n"))
        assert done.err.startswith(f"spark-agent: {path}: ")
        assert says in done.err


def test_a_bug_is_one_line_unless_asked_for_more(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback helps nobody but us, and we say how to get it."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cli.Target, "report", broken)
    done = run("snapshot")
    assert (3, "") == (done.code, done.out)
    assert "spark-agent: ZeroDivisionError: a bug; this is a bug, SPARK_AGENT_DEBUG=1 shows where\n" == done.err
    monkeypatch.setenv("SPARK_AGENT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("snapshot")


def test_a_collector_with_a_bug_is_a_finding_and_no_traceback() -> None:
    """The rest of the report stands; the process says unknown."""
    code = (
        "import sys; from spark_agent.collectors import fan; from spark_agent.agent import cli\n"
        "def read(host): raise ZeroDivisionError('a bug')\n"
        "fan.read = read; sys.argv = ['spark-agent', '--demo', 'fe-gemm', 'snapshot', '--output', 'json']; cli.main()"
    )
    done = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, env=_environment(), timeout=60, check=False
    )
    assert 3 == done.returncode
    assert "Traceback" not in done.stderr
    (visit,) = (visit for visit in json.loads(done.stdout)["collectors"] if visit["name"] == "fan")
    assert ("failed", "error", "ZeroDivisionError('a bug')") == (visit["status"], visit["reason"], visit["detail"])


# Help


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids="-".join)
@pytest.mark.parametrize("columns", [80, 200])
def test_every_command_has_help(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], columns: int
) -> None:
    """Under both names, in words, within the terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    long, short = run(*command, "--help"), run(*command, "-h")
    assert (0, "") == (long.code, long.err)
    assert long == short
    assert long.out.startswith("Usage: spark-agent ")
    assert max(map(len, long.out.splitlines())) <= columns


def test_every_option_says_what_it_does() -> None:
    """All but the one whose name says it."""
    options = [
        option
        for command in (cli.commands, *cli.commands.commands.values())
        for option in command.params
        if isinstance(option, click.Option) and option.name != "output"
    ]
    assert [] == [option.name for option in options if not option.help]


def test_the_version_is_that_of_the_package(run: Run) -> None:
    """For a bug report."""
    assert Done(0, f"spark-agent, version {__version__}\n", "") == run("--version")


def test_the_demos_are_listed(run: Run) -> None:
    """Each with what it is."""
    done = run("demos")
    assert 0 == done.code
    assert list(demos()) == [line.split()[0] for line in done.out.splitlines()]
    assert all(len(line.split()) > 2 for line in done.out.splitlines())


def test_help_imports_little() -> None:
    """It must come at once: no room but this door; no rich, psutil, pynvml, pyudev, prometheus_client, tarfile."""
    code = (
        "import sys; before = set(sys.modules); sys.argv = ['spark-agent', '--help']\n"
        "from spark_agent.agent.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, env=_environment(), timeout=60, check=True
    )
    modules = set(done.stderr.split())
    assert OWN == {module for module in modules if module.startswith("spark_agent")}
    roots = {module.partition(".")[0] for module in modules}
    assert set() == {root for root in roots if not root.startswith("_")} - FOREIGN - STANDARD


# Streams


@pytest.fixture
def no_reader() -> Iterator[int]:
    """Yield a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    "arguments", [("--demo", "fe-gemm", "snapshot"), ("--demo", "fe-gemm", "snapshot", "--output", "json"), ("--help",)]
)
def test_a_reader_that_has_gone_is_no_error(no_reader: int, arguments: tuple[str, ...]) -> None:
    """As after ``| head -1``: not a word, and the exit code of a command that SIGPIPE ended, never 1 for warning."""
    assert Done(141, "", "") == _process(*arguments, stdout=no_reader)


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "arguments", [("--demo", "fe-gemm", "snapshot"), ("--demo", "fe-gemm", "snapshot", "--output", "json"), ("--help",)]
)
def test_a_full_disk_is_said(arguments: tuple[str, ...]) -> None:
    """A report that was cut off must not look like one that was written."""
    with FULL.open("wb") as full:
        done = _process(*arguments, stdout=full.fileno())
    assert Done(3, "", "spark-agent: output: No space left on device\n") == done


def test_no_output_at_all_leaves_the_exit_code() -> None:
    """As a monitoring script may want it: ``spark-agent snapshot >&-``."""
    line = f"{' '.join(AGENT)} --demo fe-wedged snapshot >&-"
    done = subprocess.run(
        ("sh", "-c", line), capture_output=True, text=True, env=_environment(), timeout=60, check=False
    )
    assert (2, "", "") == (done.returncode, done.stdout, done.stderr)


def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    """With 130 and without a traceback, even where a file hangs."""
    files = {f"sys/class/thermal/thermal_zone{number}/temp": "1" for number in range(40)}
    machine = _folder(tmp_path / "box", files, errors=dict.fromkeys(files, "HANG"))
    process = subprocess.Popen(
        (*AGENT, "--machine", machine, "snapshot"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        # A shell without job control lets its children ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    try:
        # It has begun to look when it has a second thread; then forty files hang, two seconds each.
        until = time.monotonic() + 30
        while len(list(Path(f"/proc/{process.pid}/task").iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (130, b"", b"") == (process.returncode, out, err.strip())


def _on_a_terminal(*arguments: str, **environment: str) -> str:
    """Run a command on a terminal of its own, and return what it showed there."""
    own, its = pty.openpty()
    with subprocess.Popen(
        (*AGENT, *arguments), stdout=its, stderr=its, env=_environment(COLUMNS="80", **environment)
    ) as process:
        os.close(its)
        shown = b""
        try:
            while more := os.read(own, 65536):
                shown += more
        except OSError:  # EIO: it has closed its side
            pass
        assert 0 == process.wait(60)
    os.close(own)
    return shown.decode()


_COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-9]|4[0-9]|9[0-7]|10[0-7])(?:;[0-9]+)*m")


def test_colours_are_for_terminals() -> None:
    """Not for a pipe, not under NO_COLOR (https://no-color.org), not for a terminal that cannot."""
    assert _COLOUR.search(_on_a_terminal("--demo", "fe-gemm", "snapshot"))
    assert not _COLOUR.search(_on_a_terminal("--demo", "fe-gemm", "snapshot", NO_COLOR="1"))
    assert "\x1b" not in _on_a_terminal("--demo", "fe-gemm", "snapshot", TERM="dumb")
    assert "\x1b" not in _on_a_terminal("--demo", "fe-gemm", "snapshot", "--output", "json")
    assert "\x1b" not in _process("--demo", "fe-gemm", "snapshot").out


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("name", demos())
def test_no_line_is_wider_than_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, columns: int) -> None:
    """It would break in the middle of a word, and the table with it."""
    monkeypatch.setenv("COLUMNS", str(columns))
    done = run("--demo", name, "snapshot")
    assert [] == [line for line in done.out.splitlines() if cell_len(line) > columns]


def test_this_machine_fits_the_terminal_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its parts are called."""
    monkeypatch.setenv("COLUMNS", "60")
    assert [] == [line for line in run("snapshot").out.splitlines() if cell_len(line) > 60]


@pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "no_SUCH.locale"},
    ],
    ids=["ascii", "C", "C without UTF-8", "unknown"],
)
def test_any_locale_will_do(locale: Mapping[str, str]) -> None:
    """A terminal that knows no sign shows another one; JSON is UTF-8 all the same."""
    table = _process("--demo", "fe-gemm", "snapshot", environment=locale)
    assert (0, "") == (table.code, table.err)
    assert "170.8 W" in table.out
    document = _process("--demo", "fe-gemm", "snapshot", "--output", "json", environment=locale)
    assert 0 == document.code
    assert not document.out.isascii()
    assert "\ufffd" not in document.out
    assert json.loads(document.out)


@pytest.mark.parametrize("name", ["ä", "\udce4", "\x1b[2J"])
def test_any_argument_can_be_answered(name: str) -> None:
    """In a locale that cannot even spell it, too."""
    for locale in ({}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}):
        done = _process("--demo", name, "snapshot", environment=locale)
        assert 64 == done.code
        assert "Traceback" not in done.err


# What is asked for


def test_only_what_is_asked_for_is_read(run: Run) -> None:
    """By the collectors' names or the document's; the rest is not even looked at."""
    found = json.loads(run("--demo", "fe-gemm", "snapshot", "--only", "nics, cpu", "--output", "json").out)
    assert ["cpu", "nic"] == [visit["name"] for visit in found["collectors"]]
    assert found["nics"]
    assert "power" not in found
    assert "memory" not in found
    power = json.loads(run("--demo", "fe-gemm", "snapshot", "--only", "power", "--output", "json").out)
    whole = json.loads(run("--demo", "fe-gemm", "snapshot", "--output", "json").out)
    assert whole["power"] == power["power"]
    assert ["gpu", "platform", "spbm"] == [visit["name"] for visit in power["collectors"]]
    assert not {"cpu", "nics"} & {*power}


@pytest.mark.parametrize("part", ["cpu", "fan", "gpu", "memory", "nic", "nvme", "platform", "power", "spbm", "thermal"])
@pytest.mark.parametrize("name", ["fe-gemm", "gx10-asleep", "driver-lost"])
def test_each_part_stands_alone(run: Run, name: str, part: str) -> None:
    """A verdict that needs another part is left out, not made up, and nothing breaks."""
    done = run("--demo", name, "snapshot", "--only", part)
    assert (0, "") == (done.code, done.err)
    assert done.out.startswith("SYNTHETIC")


def test_a_machine_that_is_imagined_says_so(run: Run, tmp_path: Path) -> None:
    """On the first line of the screen, and in the document; so does one that was recorded."""
    for origin, word in (("synthetic", "SYNTHETIC"), ("recorded", "RECORDED")):
        machine = _folder(tmp_path / origin, machine={"format": 1, "name": "box", "origin": origin})
        assert run("--machine", machine, "snapshot").out.startswith(f"{word} machine box")
        assert origin == json.loads(run("--machine", machine, "snapshot", "-o", "json").out)["machine"]["origin"]


def test_a_timeline_is_played_before_the_look(run: Run, tmp_path: Path) -> None:
    """Up to the second that ``--at`` names."""
    machine = _folder(tmp_path / "box", {"proc/meminfo": "MemTotal: 1 kB\n"})
    steps = [{"t": t, "root": {"proc/meminfo": f"MemTotal: {t} kB\n"}} for t in range(2, 10)]
    (machine / "timeline.jsonl").write_text("".join(f"{json.dumps(step)}\n" for step in steps))

    def memory(*played: str) -> float:
        found = json.loads(run("--machine", machine, *played, "snapshot", "--only", "memory", "-o", "json").out)
        return float(found["memory"]["total_bytes"]) / 1024

    assert [1, 5, 5] == [memory(), memory("--at", "5"), memory("--at", "5.9", "--interval", "3")]
    assert 9 == memory("--at", "100")


def test_the_schema_is_printed(run: Run) -> None:
    """As JSON, and nothing else."""
    done = run("schema")
    assert (0, "") == (done.code, done.err)
    assert "object" == json.loads(done.out)["type"]


def test_private_is_for_documents(run: Run) -> None:
    """The screen shows nothing private, so asking for it there would do nothing."""
    done = run("--demo", "fe-idle", "snapshot", "--private")

    assert 64 == done.code
    assert "--output json" in done.err
