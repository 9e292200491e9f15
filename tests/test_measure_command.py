"""``spark-agent measure`` as a person, a script and a terminal meet it: exit codes, signals and streams."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from commands import Done
from rigs import PATIENCE, until

from spark_agent.agent import cli, runner
from spark_agent.agent.machine import open_machine
from spark_agent.agent.runner import Watched, measure
from spark_agent.exporters.measurement import schema

AGENT: Final = (sys.executable, "-m", "spark_agent.agent")
NAMESPACE: Final = Path(__file__).parent.parent / ".namespace"
STOCK: Final = ("--demo", "fe-stock")
ENVIRONMENT: Final = {
    **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")},
    "PYTHONPATH": str(NAMESPACE),
    "LC_ALL": "C.UTF-8",
    "COLUMNS": "100",
}

# Shells without job control let their children ignore SIGINT, and so may whoever runs the tests; Python has two more.
_LISTENING: Final = """\
import os, signal, sys
for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ): signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""
# A session of its own, whose terminal is standard input.
_ON_A_TERMINAL: Final = f"import fcntl, os, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n{_LISTENING}"


def started(*arguments: str | Path, machine: tuple[str, ...] = STOCK, **more: Any) -> "subprocess.Popen[bytes]":
    """Start `measure`, which listens to Ctrl-C."""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    command = (sys.executable, "-c", _LISTENING, *AGENT, *machine, "measure", *map(str, arguments))
    return subprocess.Popen(command, env=ENVIRONMENT, **streams)


def done(process: "subprocess.Popen[bytes]", stdin: bytes | None = None) -> Done:
    """Wait for it to end."""
    try:
        out, err = process.communicate(stdin, timeout=PATIENCE)
    finally:
        process.kill()
    return Done(process.returncode, (out or b"").decode(), (err or b"").decode())


def ran(*arguments: str | Path, stdin: bytes | None = None, **more: Any) -> Done:
    """Run `measure` to its end."""
    return done(started(*arguments, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE, **more), stdin)


def shell(line: str, **more: Any) -> Done:
    """Run a line of shell in which MEASURE is the command."""
    line = line.replace("MEASURE", " ".join((*AGENT, *STOCK, "measure")))
    return done(
        subprocess.Popen(("sh", "-c", line), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    )


# --- how the command ended --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 64, 126, 255])
def test_the_exit_code_is_the_commands(code: int) -> None:
    """Whatever the agent's own would mean; the report is on stderr, and stdout is the command's alone."""
    found = ran("--", "sh", "-c", f"echo said; exit {code}")
    assert (code, "said\n") == (found.code, found.out)
    assert f"exit code {code} after 0." in found.err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT])
def test_a_signal_that_killed_it_is_told(number: signal.Signals) -> None:
    """128 and its number as a shell has it, and its name."""
    found = ran("sh", "-c", f"ulimit -c 0; kill -{number.value} $$")
    assert 128 + number == found.code
    assert f"killed by {number.name} after 0." in found.err


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    """One of the real-time signals."""
    found = ran("sh", "-c", "kill -40 $$")
    assert 168 == found.code
    assert "killed by signal 40" in found.err


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (("no-such-command",), 127, "no-such-command: command not found"),
        (("",), 127, "'': command not found"),
        (("./no-such-file",), 127, "./no-such-file: no such file or directory"),
        (("/etc/passwd/x",), 127, "/etc/passwd/x: not a directory"),
        (("/etc",), 126, "/etc: is a directory"),
        (("10", "--", "sleep", "1"), 127, "10: command not found; the options of measure come before --"),
    ],
)
def test_a_command_that_cannot_be_run_is_told_in_one_line(command: tuple[str, ...], code: int, says: str) -> None:
    """As shells and time(1) do; not after a baseline of an hour."""
    assert Done(code, "", f"spark-agent: {says}\n") == ran("--baseline", "3600", "--", *command)


def test_a_file_that_is_not_executable_is_126(tmp_path: Path) -> None:
    """By its path, and on the PATH."""
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    found = ran("--", tmp_path / "tool")
    assert (126, 1) == (found.code, found.err.count("\n"))
    assert "permission denied: it is not executable" in found.err
    found = shell(f"PATH={tmp_path}:$PATH MEASURE tool")
    assert Done(126, "", "spark-agent: tool: found, but not executable\n") == found


def test_a_script_without_a_first_line_is_the_shells(tmp_path: Path) -> None:
    """As execvp(3) has it."""
    script = tmp_path / "script"
    script.write_text('echo "$1"; exit 5\n')
    script.chmod(0o755)
    found = ran("--", script, "an argument")
    assert (5, "an argument\n") == (found.code, found.out)


def test_a_script_for_a_program_that_is_not_there_is_127(tmp_path: Path) -> None:
    """And says that it is not the script that is missing."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/program\n")
    script.chmod(0o755)
    assert Done(127, "", f"spark-agent: {script}: the program that it names to run it is not there\n") == ran(script)


def test_an_ignored_end_of_children_costs_no_exit_code() -> None:
    """A parent that ignores SIGCHLD would have the kernel drop it."""
    assert 6 == shell("trap '' CHLD; exec MEASURE -- sh -c 'exit 6'").code


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_the_two_dashes_may_be_forgotten() -> None:
    """What stands behind the command is the command's, options of the same name too."""
    found = ran("sh", "-c", 'echo "$@"', "sh", "--output", "json", "--", "-h")
    assert (0, "--output json -- -h\n") == (found.code, found.out)
    assert "exit code 0" in found.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no command to measure; it comes last"),
        (("--",), "no command to measure"),
        (("--nope", "true"), "No such option '--nope'"),
        (("--per", "1000", "true"), "'1000' is not NUMBER:UNIT, such as 1000:tokens"),
        (("--per", "", "true"), "'' is not NUMBER:UNIT"),
        (("--per", "0:tokens", "true"), "must be above 0, and finite"),
        (("--per", "-5:tokens", "true"), "must be above 0, and finite"),
        (("--per", "nan:tokens", "true"), "must be above 0, and finite"),
        (("--per", "many:tokens", "true"), "'many' is no number"),
        (("--baseline", "sleep", "3"), "'sleep' is not a valid float"),
        (("--baseline", "0", "true"), "0.0 is not in the range 1<=x<=3600"),
        (("--baseline", "nan", "true"), "nan is no number of seconds"),
        (("--interval", "0", "true"), "0.0 is not in the range 0.05<=x<=60"),
        (("--interval", "nan", "true"), "nan is no number of seconds"),
        (("--output", "prometheus", "true"), "'prometheus' is not one of"),
    ],
)
def test_wrong_usage_is_64(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    """And starts nothing."""
    monkeypatch.setattr(sys, "argv", ["spark-agent", *STOCK, "measure", *arguments])
    assert 64 == cli._run()
    out, err = capfd.readouterr()
    assert "" == out
    assert says in " ".join(err.split())


def _json(*arguments: str, machine: tuple[str, ...] = STOCK, report: Path) -> Mapping[str, Any]:
    found = ran("--output", "json", "--report", report, *arguments, machine=machine)
    assert (0, "") == (found.code, found.err)
    whole: dict[str, Any] = json.loads(report.read_bytes())
    jsonschema.Draft202012Validator(schema()).validate(whole)
    return whole


def test_on_a_stock_machine_the_gpu_is_measured_and_the_system_estimated(tmp_path: Path) -> None:
    """Joules for the GPU alone, watts labelled as an estimate for the system, and the plain sentence."""
    whole = _json("--per", "100:tokens", "sleep", "1.2", report=tmp_path / "report.json")
    energy = whole["scopes"]["gpu_nvml"]["energy"]
    assert ("J", "gpu_nvml", "measured", "counter") == tuple(
        energy[key] for key in ("unit", "scope", "quality", "method")
    )
    # One or two steps of the demo's timeline, a second each.
    assert 40 < energy["value"] < 100
    assert energy["value"] == pytest.approx(100 * whole["scopes"]["gpu_nvml"]["energy_per_unit"]["value"])
    assert whole["gpu_only"]
    assert whole["notes"][0].startswith("this is the GPU alone, not the box")
    system = whole["scopes"]["system"]
    assert (None, "no_driver") == (system["energy"]["value"], system["energy"]["reason"])
    estimate = whole["estimate"]["system"]
    assert ("W", "system", "estimated") == tuple(estimate[key] for key in ("unit", "scope", "quality"))
    assert 0 < estimate["lower"] <= estimate["upper"]


def test_with_the_firmwares_power_page_the_system_is_measured(tmp_path: Path) -> None:
    """And nothing is estimated."""
    whole = _json("sleep", "1.2", machine=("--demo", "fe-gemm"), report=tmp_path / "report.json")
    assert 100 < whole["scopes"]["system"]["energy"]["value"] < 400
    assert 160 < whole["scopes"]["system"]["peak_power"]["value"] < 180
    assert whole["estimate"]["system"]["lower"] is None
    assert not whole["gpu_only"]
    assert whole["window"]["seconds"] >= whole["command"]["duration_seconds"] >= 1.2


def test_its_schema_is_printed() -> None:
    """Beside the snapshot's."""
    printed = subprocess.run((*AGENT, "schema", "measurement"), env=ENVIRONMENT, capture_output=True, check=True)
    assert schema() == json.loads(printed.stdout)


def test_a_baseline_is_taken_first(tmp_path: Path) -> None:
    """Of the same scopes; here of a machine that is not idle, which is said."""
    began = time.monotonic()
    whole = _json("--baseline", "1", "true", report=tmp_path / "report.json")
    assert time.monotonic() - began >= 1
    assert whole["baseline"]["seconds"] >= 1
    assert "idle_subtracted" in whole["scopes"]["gpu_nvml"]["net"]
    assert any("not of an idle machine: the GPU was busy 94%" in note for note in whole["notes"])


def test_a_timeline_goes_on_from_where_it_was_played_to(tmp_path: Path) -> None:
    """At its end nothing moves, and that is said."""
    whole = _json("sleep", "0.3", machine=(*STOCK, "--at", "100"), report=tmp_path / "report.json")
    assert any("the timeline ends at 60 s" in note for note in whole["notes"])


def test_this_machine_can_be_measured() -> None:
    """Whatever it is: the command runs, and what is not known is said."""
    found = ran("sh", "-c", "echo said; exit 7", machine=())
    assert (7, "said\n") == (found.code, found.out)
    assert "Traceback" not in found.err


def test_json_goes_to_stderr_where_no_file_is_named() -> None:
    """Whatever the terminal's encoding is."""
    found = ran("-o", "json", "true")
    assert (0, "") == (found.code, found.out)
    assert ["true"] == json.loads(found.err)["command"]["arguments"]


def test_a_file_for_the_report_is_opened_before_the_command_runs(tmp_path: Path) -> None:
    """It may run for hours, and all for nothing."""
    made = tmp_path / "made"
    found = ran("--report", tmp_path / "no" / "report", "touch", made)
    assert Done(3, "", f"spark-agent: {tmp_path}/no/report: No such file or directory\n") == found
    assert not made.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("command", "code"), [("true", 3), ("exit 9", 9)])
@pytest.mark.parametrize("output", ["table", "json"])
def test_a_report_that_cannot_be_written_is_said(command: str, code: int, output: str) -> None:
    """And is no success; a failure of the command counts for more."""
    found = ran("--report", "/dev/full", "-o", output, "sh", "-c", command)
    assert Done(code, "", "spark-agent: /dev/full: No space left on device\n") == found


# --- what the command gets from us ------------------------------------------------------------------------------------


def test_standard_input_is_the_commands() -> None:
    """As if the agent were not there."""
    assert "given" == ran("cat", stdin=b"given").out


def _without_internal_signals(status: str) -> str:
    """Take out 32 and 33, which glibc's posix_spawn(3) has ignored, here or in whoever started the tests."""
    return re.sub(r"(?<=SigIgn:\t)\w+", lambda mask: f"{int(mask[0], 16) & ~(3 << 31):016x}", status)


def test_the_command_finds_what_it_would_find_without_us(tmp_path: Path) -> None:
    """The same signals blocked and ignored, the same open files, folder, niceness, group and environment."""
    look = "grep -E '^(Sig(Blk|Ign|Cgt)|Threads)' /proc/self/status; ls /proc/self/fd; pwd; nice; env | grep -v '^_='"
    with (tmp_path / "held").open("w") as held:
        streams: dict[str, Any] = {"pass_fds": (held.fileno(),), "cwd": tmp_path, "stdin": subprocess.DEVNULL}
        plain = subprocess.Popen(
            (sys.executable, "-c", _LISTENING, "sh", "-c", look),
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **streams,
        )
        held_as = str(held.fileno())
        expected = done(plain)
        found = done(started("sh", "-c", look, **streams))
    assert _without_internal_signals(expected.out) == _without_internal_signals(found.out)
    assert held_as in found.out.split()


def test_what_is_ignored_stays_ignored() -> None:
    """As after nohup(1): neither we nor the command end by it."""
    found = shell("trap '' HUP INT; exec MEASURE sh -c 'kill -HUP $PPID; kill -INT $PPID $$; kill -HUP $$; exit 4'")
    assert 4 == found.code
    assert "exit code 4" in found.err


def test_a_closed_stdout_is_the_commands_matter() -> None:
    """It finds it closed, and the report is told all the same."""
    found = shell("MEASURE sh -c '[ -e /proc/self/fd/1 ] && exit 9; exit 4' >&-")
    assert (4, "") == (found.code, found.out)
    assert "exit code 4" in found.err


def test_a_closed_stderr_leaves_the_exit_code() -> None:
    """Somebody wants no report."""
    for output in ("table", "json"):
        assert Done(4, "", "") == shell(f"MEASURE -o {output} sh -c '[ -e /proc/self/fd/2 ] && exit 9; exit 4' 2>&-")


def test_a_reader_that_has_gone_leaves_the_exit_code() -> None:
    """As after ``2>&1 | head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        for output in ("table", "json"):
            assert 4 == ran("-o", output, "sh", "-c", "exit 4", stderr=writer).code
    finally:
        os.close(writer)


# --- signals ----------------------------------------------------------------------------------------------------------


def _said(process: "subprocess.Popen[bytes]", word: bytes) -> None:
    assert process.stdout
    assert word == process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_a_signal_for_us_is_passed_on(number: signal.Signals) -> None:
    """Once; what was measured so far is told, and the exit code is what the command made of it."""
    line = (
        f"trap 'echo {number.name}; exit 5' {number.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.05; done"
    )
    process = started("sh", "-c", line)
    _said(process, b"ready")
    process.send_signal(number)
    found = done(process)
    assert (5, f"{number.name}\n") == (found.code, found.out)
    assert "exit code 5" in found.err


def test_a_signal_that_the_command_does_not_survive_is_told() -> None:
    """143 for SIGTERM, as without us."""
    process = started("sh", "-c", "echo ready; exec sleep 60")
    _said(process, b"ready")
    process.terminate()
    found = done(process)
    assert 143 == found.code
    assert "killed by SIGTERM" in found.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_in_the_baseline_starts_no_command(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Somebody changed his mind; one line says that nothing was run."""
    made = tmp_path / "made"
    process = started("--baseline", "60", "touch", made)
    until(lambda: len(list(Path(f"/proc/{process.pid}/task").iterdir())) > 2, lambda: "no thread looks")
    process.send_signal(number)
    found = done(process)
    says = f"spark-agent: {number.name} came before the command was started, so it was not\n"
    assert Done(code, "", says) == found
    assert not made.exists()


def _on_a_terminal(keys: bytes, *arguments: str) -> tuple[int, str]:
    """Run `measure` on a terminal of its own, press keys when the command says that it is ready, and return the end."""
    own, its = pty.openpty()
    process = subprocess.Popen(
        (sys.executable, "-c", _ON_A_TERMINAL, *AGENT, *STOCK, "measure", *arguments),
        stdin=its,
        stdout=its,
        stderr=its,
        env=ENVIRONMENT,
    )
    os.close(its)
    shown = b""
    pressed = False
    try:
        while more := os.read(own, 65536):
            shown += more
            if b"ready" in shown and not pressed:
                pressed = True
                os.write(own, keys)
    except OSError:  # EIO: it has closed its side
        pass
    finally:
        os.close(own)
        code = process.wait(PATIENCE)
    return code, shown.decode()


def test_ctrl_c_goes_to_the_command_once() -> None:
    """The terminal tells it, so we do not; what it makes of it is its own matter, and the report is told."""
    line = "trap 'echo heard; sleep 0.2; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    code, shown = _on_a_terminal(b"\x03", "sh", "-c", line)
    assert (5, 1) == (code, shown.count("heard\r"))
    assert "exit code 5" in shown


@pytest.mark.parametrize(("key", "number"), [(b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)])
def test_ctrl_c_ends_the_command_and_the_report_is_told(key: bytes, number: signal.Signals) -> None:
    """With 130 as a shell has it, and 131 for Ctrl and the backslash."""
    code, shown = _on_a_terminal(key, "sh", "-c", "ulimit -c 0; echo ready; exec sleep 60")
    assert 128 + number == code
    assert f"killed by {number.name}" in shown
    assert "This is the GPU alone, not the box" in shown


def test_a_command_that_ignores_ctrl_c_goes_on() -> None:
    """And we with it, to its end."""
    code, shown = _on_a_terminal(b"\x03", "sh", "-c", "trap '' INT; echo ready; sleep 0.5; echo on; exit 6")
    assert 6 == code
    assert "on" in shown.split()


def test_a_pause_is_no_signal(tmp_path: Path) -> None:
    """Stopped by Ctrl-Z for longer than the command took, it goes on where it was."""
    made = tmp_path / "made"
    process = started("sh", "-c", f"echo ready; sleep 0.3; touch {made}; exit 4")
    _said(process, b"ready")
    process.send_signal(signal.SIGSTOP)
    until(made.exists, lambda: "the command does not go on")
    process.send_signal(signal.SIGCONT)
    found = done(process)
    assert 4 == found.code
    assert "exit code 4" in found.err


def test_a_pause_longer_than_the_baseline_is_no_signal() -> None:
    """Python's sigtimedwait tells of one that never came then, and nothing would be started."""
    code = (
        "import time; from spark_agent.agent import runner\n"
        "with runner._signals() as signals:\n"
        "    print('ready', flush=True); signals.sleep_through(lambda: time.sleep(0.3))\n"
        "print('over')"
    )
    process = subprocess.Popen((sys.executable, "-c", code), env=ENVIRONMENT, stdout=subprocess.PIPE)
    _said(process, b"ready")
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    process.send_signal(signal.SIGCONT)
    assert Done(0, "over\n", "") == done(process)


# --- what goes wrong with looking -------------------------------------------------------------------------------------


def _box(folder: Path, **parts: Any) -> Path:
    (folder / "root").mkdir(parents=True)
    parts = {"machine": {"format": 1, "name": "box", "origin": "synthetic"}} | parts
    for name, content in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a driver that hangs no longer than a test should."""
    monkeypatch.setattr(runner, "_WAKE_PATIENCE", 0.1)
    monkeypatch.setattr(runner, "_EDGE_PATIENCE", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_driver_that_hangs_holds_up_no_command(tmp_path: Path) -> None:
    """It costs the GPU's readings, with the reason; the command runs."""
    machine = open_machine(_box(tmp_path / "box", nvml={"init": {"hang": True}, "devices": [{}]}))
    told = measure(("sh", "-c", "exit 4"), Watched(machine.host))
    assert 4 == told.outcome.exit_code
    assert "nothing measures power here" in told.notes


@pytest.mark.usefixtures("impatient")
def test_looking_that_fails_does_not_end_the_command(tmp_path: Path) -> None:
    """What went wrong is a note; the exit code is the command's."""
    machine = open_machine(_box(tmp_path / "box"))
    looks = count(1)

    def move() -> bool:
        # The first wakes the drivers, the second begins.
        if next(looks) > 2:
            raise ValueError("a bug")
        return False

    told = measure(("sh", "-c", "sleep 0.3; exit 4"), Watched(machine.host, move))
    assert 4 == told.outcome.exit_code
    assert "looking at the machine ended with ValueError('a bug'); what came after is not covered" in told.notes


@pytest.mark.usefixtures("impatient")
def test_a_machine_that_cannot_be_looked_at_starts_no_command(tmp_path: Path) -> None:
    """Before anything is run."""
    made = tmp_path / "made"

    def move() -> bool:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        measure(("touch", str(made)), Watched(open_machine(_box(tmp_path / "box")).host, move))
    assert not made.exists()


@pytest.mark.usefixtures("impatient")
def test_signals_are_as_before_when_it_is_over(tmp_path: Path) -> None:
    """Nothing stays blocked, whatever came of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    measure(("true",), Watched(open_machine(_box(tmp_path / "box")).host))
    assert before == signal.pthread_sigmask(signal.SIG_BLOCK, [])
