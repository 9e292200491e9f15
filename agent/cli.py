"""The command line: the one door that sees all three rooms.

Imports are late on purpose: ``--help`` must come at once, and most commands need few of them.
"""

import errno
import logging
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from spark_agent.agent import BEAT_SECONDS, __version__

if TYPE_CHECKING:
    from spark_agent.agent.machine import Machine
    from spark_agent.agent.report import Report
    from spark_agent.collectors import Collector, Host

UNKNOWN: Final = 3
USAGE: Final = 64
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141


@dataclass(frozen=True, slots=True)
class Target:
    """The machine that a command looks at, and up to which second of its timeline it is played before."""

    machine: Path | None
    demo: str | None
    at: float | None
    interval: float

    def must_be_live(self, why: str) -> None:
        """Refuse a machine named before a command that would not look at it."""
        if self.machine is not None or self.demo is not None:
            raise click.UsageError(f"--machine and --demo do nothing here: {why}")

    def open(self) -> "Machine | None":
        """Open the machine's folder, archive or demo; nothing where it is the live one."""
        from spark_agent.agent import machine

        if self.demo is not None:
            if self.demo not in machine.demos():
                raise click.BadParameter(
                    f"no demo {self.demo!r}; there are {', '.join(machine.demos())}", param_hint="--demo"
                )
            return machine.open_demo(self.demo)
        if self.machine is not None:
            return machine.open_machine(self.machine)
        return None

    def report(self, collectors: "Mapping[str, Collector]") -> "Report":
        """Look at the machine, after playing it where that was asked for."""
        from spark_agent.agent.report import report
        from spark_agent.agent.sampler import play
        from spark_agent.agent.snapshot import look

        machine = self.open()
        if machine and self.at is not None:
            return report(play(machine, collectors, self.at, self.interval))
        return report(look(self.host(machine), collectors))

    def host(self, machine: "Machine | None") -> "Host":
        """Return the opened machine's host, or the live one."""
        from spark_agent.collectors._live import live_host

        return machine.host if machine else live_host()


class Commands(click.Group):
    """The group of commands, with the exit codes of monitoring plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's)
        """Return the commands in the order of this file, which is that of use."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--machine",
    type=click.Path(exists=True, path_type=Path),
    help="A recorded machine, a folder or its .tar.gz, instead of this one.",
)
@click.option("--demo", metavar="NAME", help="A built-in, synthetic machine; `demos` lists them.")
@click.option(
    "--at",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Play the machine's timeline up to here before looking.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    default=BEAT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Beat at which --at plays.",
)
@click.version_option(__version__, prog_name="spark-agent")
@click.pass_context
def commands(context: click.Context, machine: Path | None, demo: str | None, at: float | None, interval: float) -> None:
    """Inventory and power of an NVIDIA DGX Spark (GB10), measured apart from estimated.

    Exit codes: 0 ok, 1 warning, 2 critical, 3 unknown, 64 wrong usage.
    """
    if machine is not None and demo is not None:
        raise click.UsageError("--machine and --demo exclude each other")
    if at is not None and machine is None and demo is None:
        raise click.UsageError("--at plays a recorded machine; name one with --machine or --demo")
    for option, seconds in (("--at", at), ("--interval", interval)):
        if seconds is not None and not math.isfinite(seconds):
            raise click.BadParameter(f"{seconds} is no number of seconds", param_hint=option)
    context.obj = Target(machine, demo, at, interval)


def _chosen(only: str | None) -> "Mapping[str, Collector]":
    """Return the collectors that ``--only`` names, by their own names or by the document's."""
    from spark_agent.collectors import discover

    collectors = discover()
    if only is None:
        return collectors
    # What the document calls otherwise than the collector that fills it. Verdicts need to know the platform.
    sections = {"power": ("gpu", "platform", "spbm"), "nics": ("nic",), "fans": ("fan",)}
    wanted: set[str] = set()
    for name in filter(None, (part.strip() for part in only.split(","))):
        if name not in sections and name not in collectors:
            known = ", ".join(sorted({*collectors, *sections}))
            raise click.BadParameter(f"no part {name!r}; there are {known}", param_hint="--only")
        wanted.update(sections.get(name, (name,)))
    if not wanted:
        raise click.BadParameter("names no part", param_hint="--only")
    return {name: read for name, read in collectors.items() if name in wanted}


@commands.command()
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--only", metavar="PARTS", help="Only these parts, such as power,nic.")
@click.option("--private", is_flag=True, help="With serial numbers, MAC addresses and UUIDs (JSON only).")
@click.pass_obj
def snapshot(target: Target, output: str, only: str | None, private: bool) -> int:
    """Show this machine, on one screen or as JSON."""
    from spark_agent.agent.health import exit_code

    if private and output != "json":
        raise click.UsageError("--private goes with --output json; the screen shows no serial numbers")
    report = target.report(_chosen(only))
    if output == "json":
        from spark_agent.exporters.document import document, text

        _write(text(document(report, private=private)))
    else:
        from rich.console import Console

        from spark_agent.exporters.table import show

        show(report, Console(highlight=False, markup=False, emoji=False))
    return exit_code(report.findings)


@commands.command()
@click.argument("before", type=click.Path(exists=True, path_type=Path))
@click.argument("after", type=click.Path(exists=True, path_type=Path))
@click.option("--all", "everything", is_flag=True, help="Readings too, not only the inventory.")
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_obj
def diff(target: Target, before: Path, after: Path, everything: bool, output: str) -> int:
    """Show what changed between two machines.

    BEFORE and AFTER are recorded machines (a folder or its .tar.gz) or documents that `snapshot --output json`
    wrote (.json). Exit codes, as diff(1) has them: 0 no difference, 1 some, 3 cannot tell.
    """
    from spark_agent.agent.machine import MachineError
    from spark_agent.exporters import difference

    target.must_be_live("diff names both its machines itself")
    try:
        found = difference.compare(_document(before), _document(after), everything=everything)
    except ValueError as error:
        raise MachineError(f"{before}, {after}: {error}") from error
    if output == "json":
        _write(difference.text(found))
    else:
        from rich.console import Console

        difference.show(found, Console(highlight=False, markup=False, emoji=False))
    return 1 if found.changes else 0


def _write(json_text: str) -> None:
    """Write JSON, which is UTF-8 whatever the terminal is."""
    click.echo(json_text.encode())


def _document(path: Path) -> Mapping[str, Any]:
    """Return a saved document, or that of a recorded machine."""
    from spark_agent.agent.machine import MachineError, open_machine
    from spark_agent.agent.report import report
    from spark_agent.agent.snapshot import look
    from spark_agent.collectors import discover
    from spark_agent.exporters.document import document, load

    if path.is_file() and (path.suffix == ".json" or _begins(path) == b"{"):
        try:
            return load(path.read_bytes())
        except ValueError as error:
            raise MachineError(f"{path}: {error}") from error
    return document(report(look(open_machine(path).host, discover())))


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1)


@commands.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--private", is_flag=True, help="Keep serial numbers, MAC addresses, host names and UUIDs.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.pass_obj
def record(target: Target, out: Path, private: bool, force: bool) -> int:
    """Record this machine into OUT (.tar.gz), for a bug report or a replay. Needs no root."""
    from spark_agent.agent.machine import MachineError
    from spark_agent.agent.recording import record as record_machine

    if out.exists() and not force:
        raise click.BadParameter(f"{out} is there already; --force replaces it", param_hint="OUT")
    machine = target.open()
    if machine and target.at is not None:
        machine.play(target.at)
    recording = record_machine(target.host(machine), private=private)
    try:
        recording.write(out)
    except OSError as error:
        raise MachineError(f"{out}: {error.strerror}") from error
    click.echo(recording.summary(out))
    return 0


@commands.command()
@click.pass_obj
def schema(target: Target) -> int:
    """Print the JSON Schema of the document."""
    import json

    from spark_agent.exporters.schema import schema as json_schema

    target.must_be_live("the schema is the same for each machine")
    _write(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0


@commands.command()
@click.pass_obj
def demos(target: Target) -> int:
    """List the built-in machines."""
    from spark_agent.agent import machine

    target.must_be_live("the list is the same for each machine")
    for name in machine.demos():
        click.echo(f"{name:20} {machine.open_demo(name).host.note}")
    return 0


def main() -> None:
    """Run a command; what goes wrong is told in one line, never in a traceback."""
    logging.basicConfig(format="spark-agent: %(message)s", level=logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_without_traceback)
    if hasattr(sys.stdout, "reconfigure"):
        # A terminal without UTF-8 shows question marks, and no error.
        sys.stdout.reconfigure(errors="replace")
    sys.exit(_run())


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


def _run() -> int:
    try:
        code = commands.main(prog_name="spark-agent", standalone_mode=False)
        if sys.stdout:  # a shell's >&- leaves none
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SystemExit:
        # Only click and rich leave this way, where the reader has gone; with 1, which would say "warning".
        return _reader_gone()
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        error.show()
        return UNKNOWN
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        if error.errno == errno.EPIPE:
            return _reader_gone()
        _drop_output()
        return _complain(f"{error.filename or 'output'}: {error.strerror}")
    except Exception as error:  # the last door
        from spark_agent.agent.machine import MachineError

        if isinstance(error, MachineError):
            return _complain(str(error))
        if os.environ.get("SPARK_AGENT_DEBUG"):
            raise
        return _complain(f"{type(error).__name__}: {error}; this is a bug, SPARK_AGENT_DEBUG=1 shows where")


def _reader_gone() -> int:
    """End as `… | head` makes a command end."""
    _drop_output()
    return BROKEN_PIPE


def _drop_output() -> None:
    # What could not be written Python tries once more when it closes stdout, and then it says so in its own words.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _complain(message: str) -> int:
    click.echo(f"spark-agent: {message}", err=True)
    return UNKNOWN
