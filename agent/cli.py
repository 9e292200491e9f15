"""The command line: the one door that sees all three rooms.

Imports are late on purpose: ``--help`` must come at once, and most commands need few of them.
"""

import errno
import logging
import math
import os
import re
import sys
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from spark_agent.agent import BEAT_SECONDS, __version__

if TYPE_CHECKING:
    from spark_agent.agent.audit.servers import Access
    from spark_agent.agent.blackbox import Recording
    from spark_agent.agent.budget import Limit
    from spark_agent.agent.calibration import Calibration
    from spark_agent.agent.machine import Machine
    from spark_agent.agent.measure import Measurement
    from spark_agent.agent.neighbours import Neighbours
    from spark_agent.agent.report import Report
    from spark_agent.agent.runner import Watched
    from spark_agent.agent.service import Place, Step
    from spark_agent.agent.terms import Inputs
    from spark_agent.collectors import Collector, Host

UNKNOWN: Final = 3
USAGE: Final = 64
CONFIG: Final = 78
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

#: The commands that read the settings: all of them, those on power (`Target.own_limits`), or those on misreads.
CONFIGURED: Final = ("serve", "snapshot", "doctor", "audit")


@dataclass(frozen=True, slots=True)
class Target:
    """The machine that a command looks at, and up to which second of its timeline it is played before.

    ``settings`` is the file that ``--config`` names.
    """

    machine: Path | None
    demo: str | None
    at: float | None
    interval: float
    settings: Path | None = None

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

    def report(
        self,
        collectors: "Mapping[str, Collector]",
        calibration: Path | None = None,
        neighbours: "Neighbours | None" = None,
    ) -> "Report":
        """Look at the machine, after playing it where that was asked for; a live one's own calibration is found.

        Of ``neighbours``, a live machine's exporters, each is asked once.
        """
        from spark_agent.agent.misread import Listener
        from spark_agent.agent.report import report
        from spark_agent.agent.sampler import play
        from spark_agent.agent.snapshot import look

        own, machine = self.own_limits(), self.open()
        if machine and self.at is not None:
            fitted = _calibration(calibration, is_live=False)
            return play(machine, collectors, self.at, self.interval, own, fitted)
        fitted = _calibration(calibration, is_live=machine is None)
        listener = Listener(neighbours.look) if neighbours else None
        return report(look(self.host(machine), collectors), own=own, calibration=fitted, listener=listener)

    def own_limits(self) -> "tuple[Limit, ...]":
        """Return the power limits that the owner has set, in file or environment; a ConfigError where they are wrong.

        For every command that judges power, once; what else is set there is the daemon's.
        """
        from spark_agent.agent import config
        from spark_agent.agent.budget import own_limits

        settings = config.load(config.Sources(self.settings, os.environ), config.POWER)
        for warning in settings.warnings:
            if warning.startswith(f"{config.PREFIX}{config.POWER.upper()}_"):
                _complain(warning)
        return own_limits(settings)

    def neighbours(self) -> "Neighbours | None":
        """Return the exporters that the settings name, if they are to be held against a live machine."""
        from spark_agent.agent import config

        settings = config.load(config.Sources(self.settings, os.environ), config.MISREADS)
        if not settings.misread_exporter or self.machine is not None or self.demo is not None:
            return None
        from spark_agent.agent.neighbours import Neighbours

        return Neighbours(settings.misread_exporter, settings.misread_interval)

    def looked_on(
        self, collectors: "Mapping[str, Collector]", seconds: float, neighbours: "Neighbours | None" = None
    ) -> "tuple[Report, bool]":
        """Look on for so many seconds, and say whether Ctrl-C cut it short; a replay takes no time."""
        from spark_agent.agent.misread import Listener
        from spark_agent.agent.sampler import look_on, play

        own, machine = self.own_limits(), self.open()
        if machine:
            return play(machine, collectors, (self.at or 0.0) + seconds, self.interval, own), False
        fitted = _calibration(None, is_live=True)
        if neighbours:
            neighbours.start()
        listener = Listener(neighbours.pages) if neighbours else None
        if not sys.stderr.isatty():
            return look_on(self.host(None), collectors, seconds, self.interval, own, fitted, listener=listener)
        with click.progressbar(length=math.ceil(seconds), label="watching", file=sys.stderr) as bar:
            began = time.monotonic()

            def tell(_: "Report") -> None:
                bar.update(min(bar.length or 0, round(time.monotonic() - began)) - bar.pos)

            return look_on(self.host(None), collectors, seconds, self.interval, own, fitted, tell, listener)

    def watched(self) -> "Watched":
        """Return the machine to look at while time goes by; one that is replayed goes by the same clock."""
        from spark_agent.agent.runner import Estimator, Watched

        machine = self.open()
        estimator = Estimator(_calibration(None, is_live=machine is None))
        if machine is None:
            return Watched(self.host(None), estimate=estimator)
        began, at = time.monotonic(), self.at or 0.0
        return Watched(
            machine.host, lambda: machine.play(at + time.monotonic() - began), machine.ends_at, estimate=estimator
        )

    def host(self, machine: "Machine | None") -> "Host":
        """Return the opened machine's host, or the live one."""
        from spark_agent.collectors._live import live_host

        return machine.host if machine else live_host()


class Commands(click.Group):
    """The group of commands, with the exit codes of monitoring plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's)
        """Return the commands in the order of this file, which is that of use."""
        return list(self.commands)


class Configured(click.Command):
    """A command with a flag for each setting. The table is read when the command is, not for the others' help."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the settings' flags, then the command's own."""
        from spark_agent.agent.config import flags

        return [*flags(), *super().get_params(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the settings in groups."""
        from spark_agent.agent.config import help_groups

        for title, rows in help_groups().items():
            with formatter.section(title):
                formatter.write_dl(rows)
        with formatter.section("Options"):
            own = (parameter.get_help_record(ctx) for parameter in super().get_params(ctx))
            formatter.write_dl([record for record in own if record])


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
    help="Beat at which --at plays, and `doctor --for` watches.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings of `serve`, and power limits for all that judges power, in TOML.  "
    "[default: /etc/spark-agent/spark-agent.toml, if it is there]",
)
@click.version_option(__version__, prog_name="spark-agent")
@click.pass_context
def commands(
    context: click.Context,
    machine: Path | None,
    demo: str | None,
    at: float | None,
    interval: float,
    config: Path | None,
) -> None:
    """Inventory and power of an NVIDIA DGX Spark (GB10), measured apart from estimated.

    Exit codes: 0 ok, 1 warning, 2 critical, 3 unknown, 64 wrong usage, 78 wrong configuration.
    """
    if machine is not None and demo is not None:
        raise click.UsageError("--machine and --demo exclude each other")
    if at is not None and machine is None and demo is None:
        raise click.UsageError("--at plays a recorded machine; name one with --machine or --demo")
    for option, seconds in (("--at", at), ("--interval", interval)):
        if seconds is not None and not math.isfinite(seconds):
            raise click.BadParameter(f"{seconds} is no number of seconds", param_hint=option)
    if config is not None and context.invoked_subcommand not in CONFIGURED:
        raise click.UsageError(f"--config does nothing here: it is for {', '.join(CONFIGURED)}")
    context.obj = Target(machine, demo, at, interval, config)


#: What the document calls otherwise than the collector that fills it. Verdicts need to know the platform.
_SECTIONS: Final = {"power": ("gpu", "platform", "spbm"), "nics": ("nic",), "fans": ("fan",)}
#: What the judgement of power rests on besides: energy on the clock, the estimate on cores and network cards.
_BESIDES_POWER: Final = ("boot", "cpu", "nic")


def _chosen(only: str | None) -> "tuple[Mapping[str, Collector], Container[str]]":
    """Return the collectors to ask for what ``--only`` names, and which of them to tell of.

    It names collectors, or sections of the document.
    """
    from spark_agent.collectors import discover

    collectors = discover()
    if only is None:
        return collectors, collectors
    sections, wanted = _SECTIONS, set[str]()
    for name in filter(None, (part.strip() for part in only.split(","))):
        if name not in sections and name not in collectors:
            known = ", ".join(sorted({*collectors, *sections}))
            raise click.BadParameter(f"no part {name!r}; there are {known}", param_hint="--only")
        wanted.update(sections.get(name, (name,)))
    if not wanted:
        raise click.BadParameter("names no part", param_hint="--only")
    asked = wanted.union(_BESIDES_POWER) if wanted.issuperset(_SECTIONS["power"]) else wanted
    return {name: read for name, read in collectors.items() if name in asked}, wanted


@commands.command()
@click.option("--output", "-o", type=click.Choice(["table", "json", "prometheus"]), default="table", show_default=True)
@click.option("--only", metavar="PARTS", help="Only these parts, such as power,nic.")
@click.option("--private", is_flag=True, help="With serial numbers, MAC addresses and UUIDs (JSON only).")
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Fit the estimate with this.  [default: what `calibrate` keeps for this machine]",
)
@click.pass_obj
def snapshot(target: Target, output: str, only: str | None, private: bool, calibration: Path | None) -> int:
    """Show this machine, on one screen, as JSON or as Prometheus reads it."""
    from spark_agent.agent.health import exit_code

    if private and output != "json":
        raise click.UsageError("--private goes with --output json; the screen shows no serial numbers")
    collectors, told = _chosen(only)
    report = target.report(collectors, calibration).of(told)
    if output == "json":
        from spark_agent.exporters.document import document, text

        _write(text(document(report, private=private)))
    elif output == "prometheus":
        from spark_agent.exporters import prometheus

        click.echo(prometheus.text(report), nl=False)
    else:
        from rich.console import Console

        from spark_agent.exporters.table import show

        show(report, Console(highlight=False, markup=False, emoji=False))
    return exit_code(report.findings)


def _calibration(named: Path | None, *, is_live: bool) -> "Calibration | None":
    """Return the calibration that was named, or that of this machine; what cannot be used of it is said."""
    from spark_agent.agent import calibration
    from spark_agent.agent.config import ConfigError

    path = named or (calibration.found(calibration.paths()) if is_live else None)
    try:
        return calibration.load(path) if path else None
    except calibration.CalibrationFileError as error:
        if named:
            raise ConfigError(str(error)) from error
        _complain(f"{error}; the estimate goes without it")
        return None


@commands.command()
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Watch for so long: 60 decide what shows only under load. On a replay it plays on, and takes no time.",
)
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_obj
def doctor(target: Target, seconds: float | None, output: str) -> int:
    """Say what ails this machine, worst first, with evidence and what to do; and what is fine or cannot be told.

    The exit code is that of the worst finding. Ctrl-C ends --for early: what is known then is told, and the code is
    130.
    """
    from spark_agent.agent.health import exit_code
    from spark_agent.collectors import discover
    from spark_agent.exporters import diagnosis

    if seconds is not None and not math.isfinite(seconds):
        raise click.BadParameter(f"{seconds} is no number of seconds", param_hint="--for")
    neighbours = target.neighbours()
    if seconds:
        report, is_interrupted = target.looked_on(discover(), seconds, neighbours)
    else:
        report, is_interrupted = target.report(discover(), neighbours=neighbours), False
    if output == "json":
        _write(diagnosis.text(diagnosis.diagnosis(report, is_interrupted=is_interrupted)))
    else:
        from rich.console import Console

        diagnosis.show(report, Console(highlight=False, markup=False, emoji=False), is_interrupted=is_interrupted)
    return INTERRUPTED if is_interrupted else exit_code(report.findings)


@commands.command(cls=Configured)
@click.option("--check-config", is_flag=True, help="Say of each file and directory whether it is fit; start nothing.")
@click.pass_context
def serve(context: click.Context, /, check_config: bool, **_: object) -> int:
    """Watch this machine and answer Prometheus, until SIGTERM; SIGHUP reads the settings again.

    Each flag but --speed may also stand in a TOML file (--config FILE before the command) or in the environment:
    --log.level is log.level there, and SPARK_AGENT_LOG_LEVEL. A flag wins over the environment, that over the file.
    """
    from spark_agent.agent import config, logs

    target: Target = context.obj
    typed = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    settings = config.load(config.Sources(context.find_root().params["config"], os.environ, typed))
    if target.at is not None:
        raise click.UsageError("--at looks at one second; serve plays from the beginning, and --speed says how fast")
    if "speed" in typed and target.machine is None and target.demo is None:
        raise click.UsageError("--speed plays a recorded machine; name one with --machine or --demo")
    problems = []
    for name, problem in config.checks(settings, _read_web_config):
        if problem:
            problems.append(problem)
        elif check_config:
            click.echo(f"{name}: OK")
    if problems:
        raise config.ConfigError(*problems)
    if check_config:
        from spark_agent.agent.auditor import auditor

        auditor(settings)  # what it cannot start with it raises
        return 0
    from spark_agent.exporters.daemon import serve as run

    logs.configure(settings.log_level, settings.log_format)
    config.announce(settings)
    return run(settings, target)


def _read_web_config(path: Path) -> None:
    """Raise a ConfigError where a web configuration cannot be used."""
    from spark_agent.agent.config import ConfigError
    from spark_agent.exporters.web_config import WebConfig, WebConfigError

    try:
        WebConfig(path)
    except WebConfigError as error:
        raise ConfigError(str(error)) from error


class Calibrate(click.Command):
    """A command whose readings may be left out, so that click takes a negative one for an option, and knows none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse a negative reading as what it is."""
        for value in (argument.rpartition("=")[2] for argument in args):
            if re.fullmatch(r"-[0-9.]+", value):
                raise click.UsageError(f"{value} is out of range: a reading is in watts, and above 0", ctx)
        return super().parse_args(ctx, args)


def _watts(text: str, option: str) -> float:
    """Return what a meter at the wall shows, if an adapter can draw it."""
    from spark_agent.agent.calibration import WALL_MOST

    try:
        watts = float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no number of watts, such as 34.5", param_hint=option) from None
    if not 0 < watts <= WALL_MOST:
        why = f"{text} W is out of range: the adapter draws up to {WALL_MOST} W from the wall"
        raise click.BadParameter(why, param_hint=option)
    return watts


_WHILE = "without WATTS, goes with --from spbm"


@commands.command(cls=Calibrate)
@click.option("--idle", metavar="WATTS", is_flag=False, flag_value="", help=f"Read while nothing runs; {_WHILE}.")
@click.option("--load", metavar="WATTS", is_flag=False, flag_value="", help=f"Read while a GPU load runs; {_WHILE}.")
@click.option(
    "--from",
    "meter",
    type=click.Choice(["wall", "spbm"]),
    help="Whose watts: a meter's at the wall (AC), typed, or those of the firmware's power page.  [default: wall]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(2, 600),
    metavar="SECONDS",
    help="Look at GPU, cores and network cards for so long.  [default: 10]",
)
@click.option("--show", is_flag=True, help="Show what is kept, and what it makes of the estimate.")
@click.option("--forget", is_flag=True, help="Remove what is kept.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where it is kept.  [default: /etc/spark-agent/calibration.json, or else in $XDG_CONFIG_HOME/spark-agent]",
)
@click.pass_obj
def calibrate(
    target: Target,
    idle: str | None,
    load: str | None,
    meter: str | None,
    seconds: float | None,
    show: bool,
    forget: bool,
    file: Path | None,
) -> int:
    """Fit the estimate of the system's power to this machine, with a wall meter or the firmware's power page.

    Two readings: `calibrate --idle 34.5` while nothing runs, then `calibrate --load 128` while the GPU works steadily,
    with what the meter shows. They hold until driver, BIOS or board change; the service reads them at a reload.
    """
    from spark_agent.agent import calibration
    from spark_agent.agent.calibrating import CannotTellError
    from spark_agent.agent.state import StateError

    given = {"--idle": idle is not None, "--load": load is not None, "--show": show, "--forget": forget}
    asked = [name for name, is_given in given.items() if is_given]
    if len(asked) != 1:
        raise click.UsageError("one thing at a time: --idle or --load with what the meter shows, --show or --forget")
    name, reading = asked[0], load if idle is None else idle
    if seconds is not None and not math.isfinite(seconds):
        raise click.BadParameter(f"{seconds} is no number of seconds", param_hint="--seconds")
    if reading is None and (meter or seconds):
        raise click.UsageError(f"--from and --seconds do nothing with {name}")
    if file is None and (target.machine is not None or target.demo is not None):
        raise click.UsageError("a replayed machine has a calibration of its own; name its file with --file")
    if meter == "spbm" and reading:
        raise click.UsageError(f"--from spbm reads the watts itself: {name} takes none then")
    if meter != "spbm" and reading == "":
        raise click.UsageError(f"{name} needs what the meter shows, such as {name} 34.5; or --from spbm")
    try:
        if reading is not None:
            wall = _watts(reading, name) if reading else None
            path = file or calibration.writable(calibration.paths())
            return _take_reading(target, path, wall, seconds or 10.0, is_load=idle is None)
        kept = file or calibration.found(calibration.paths())
        if kept is None:
            return _complain(f"no calibration is kept: neither of {', '.join(map(str, calibration.paths()))} is there")
        if show:
            return _show_calibration(target, kept)
        calibration.forget(kept)
        click.echo(f"{kept} is removed")
        return 0
    except calibration.CalibrationError as error:
        raise click.UsageError(str(error)) from error
    except (calibration.CalibrationFileError, CannotTellError, StateError) as error:
        return _complain(str(error))


def _take_reading(target: Target, path: Path, wall: float | None, seconds: float, *, is_load: bool) -> int:
    """Look at the machine for so long, and keep that with what the meter shows."""
    from spark_agent.agent import calibrating, calibration

    before = calibration.load(path) if path.exists() else None
    if is_load and before is None:
        raise click.UsageError(f"no reading at idle is in {path}: first --idle, while nothing runs; then --load")
    if is_load and before and wall is not None and before.idle.meter == "wall" and wall <= before.idle.watts:
        raise click.UsageError(f"{wall:g} W under load are no more than the {before.idle.watts:g} W at idle; read anew")
    machine = target.open()
    if machine is None:
        click.echo(f"looking for {seconds:g} s …", err=True)
    looked = calibrating.watch(target.host(machine), machine, seconds, target.at or 0.0)
    reading = calibrating.point(looked, wall)
    if is_load and before:
        step = calibrating.with_load(before, looked.last, reading)
    else:
        step = calibrating.with_idle(before, path, looked.last, reading)
    calibration.save(step.calibration)
    if step.dropped:
        click.echo(step.dropped)
    anchor = reading.anchor
    click.echo(
        f"{'load' if is_load else 'idle'}: {reading.told}: {anchor.lower:.1f}–{anchor.upper:.1f} W for the system"
    )
    click.echo(f"kept in {path}")
    _tell_fit(step.calibration, looked.inputs)
    if step.calibration.load is None:
        click.echo("this is the offset alone; for the gain, `calibrate --load` while the GPU works steadily")
    if path == calibration.SYSTEM_FILE:
        click.echo("the service takes it at its next start, or with `systemctl reload spark-agent`")
    elif machine is None:
        click.echo(f"the service reads {calibration.SYSTEM_FILE} only, which root may write")
    return 0


def _tell_fit(fitted: "Calibration", inputs: "Inputs") -> bool:
    """Say what the estimate is for what was looked at, with and without a calibration; whether it fits."""
    from spark_agent.agent.calibration import narrowed
    from spark_agent.agent.terms import interval

    plain = interval(inputs)
    found = narrowed(plain, inputs, fitted.fit, fitted.told)
    if found is None:
        click.echo("ignored: its readings contradict what is seen now; read idle and load anew")
        return False
    told = f"{found.lower:.1f}–{found.upper:.1f} W, without it {plain.lower:.1f}–{plain.upper:.1f} W"
    click.echo(f"system, estimated now: {told}")
    return True


def _show_calibration(target: Target, path: Path) -> int:
    """Show what is kept; 1 where it does not hold for the machine."""
    from spark_agent.agent import calibrating, calibration

    kept = calibration.load(path)
    click.echo(f"{path}")
    for state, point in (("idle", kept.idle), ("load", kept.load)):
        if point:
            anchor = point.anchor
            click.echo(f"{state}: {point.told}: {anchor.lower:.1f}–{anchor.upper:.1f} W for the system")
        else:
            click.echo(f"{state}: not read, so the gain is not known")
    click.echo(f"for {calibration.told_identity(kept.machine)}")
    machine = target.open()
    looked = calibrating.watch(target.host(machine), machine, 1.0, target.at or 0.0)
    if why := kept.why_not(looked.last.snapshot):
        click.echo(f"ignored: {why}; read idle and load anew")
        return 1
    return 0 if _tell_fit(kept, looked.inputs) else 1


@commands.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] COMMAND [ARGUMENT]...")
@click.option(
    "--baseline",
    type=click.FloatRange(min=1, max=3600),
    metavar="SECONDS",
    help="Measure the idle machine for so long first, and tell what is left without it.",
)
@click.option(
    "--per", metavar="N:UNIT", help="What the command does, such as 1000:tokens: joules for each, each per joule."
)
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help="Write it here, not to stderr.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05, max=60),
    default=0.1,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks.",
)
@click.pass_obj
def measure(
    target: Target,
    command: tuple[str, ...],
    baseline: float | None,
    per: str | None,
    output: str,
    report: Path | None,
    interval: float,
) -> int:
    """Run COMMAND, and tell on stderr what it drew: joules and watts by scope.

    Its own options end where COMMAND begins, with or without -- between. The exit code is the command's: 128+N where
    signal N killed it, 127 where there is no such command, 126 where it cannot be run.
    """
    from spark_agent.agent.measure import parse_per
    from spark_agent.agent.runner import CommandError, InterruptedBefore, occupy_standard_streams
    from spark_agent.agent.runner import measure as run

    if not command:
        raise click.UsageError("no command to measure; it comes last: spark-agent measure [OPTIONS] -- COMMAND …")
    for option, seconds in (("--baseline", baseline), ("--interval", interval)):
        if seconds is not None and not math.isfinite(seconds):
            raise click.BadParameter(f"{seconds} is no number of seconds", param_hint=option)
    try:
        work = parse_per(per) if per is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--per") from error
    occupy_standard_streams()
    watched = target.watched()
    # Before the command, which may run for hours.
    with report.open("w", encoding="utf-8") if report else nullcontext() as file:
        try:
            found = run(command, watched, interval=interval, baseline=baseline or 0.0, per=work)
        except CommandError as error:
            _complain(str(error) + ("; the options of measure come before --" if "--" in command[1:] else ""))
            return error.code
        except InterruptedBefore as error:
            _complain(str(error))
            return error.code
        told = _tell(found, output, file)
    return found.outcome.exit_code or told


def _tell(found: "Measurement", output: str, file: TextIO | None) -> int:
    """Write what a command drew, and return 0 unless a file was named and did not take it."""
    from spark_agent.exporters import measurement

    try:
        if output == "json":
            # Bytes, for a terminal of another encoding would write what is no JSON.
            content = f"{measurement.text(found)}\n"
            click.echo(content if file else content.encode(), file=file, err=True, nl=False)
        elif stream := file or sys.stderr:  # a shell's 2>&- leaves none
            from rich.console import Console

            console = Console(file=stream, highlight=False, markup=False, emoji=False)
            # All at once: where the reader has gone rich would end the process, and with a code of its own.
            with console.capture() as shown:
                measurement.show(found, console)
            stream.write(shown.get())
        if file:
            # Here, where it is still heard that the disk is full.
            file.close()
    except OSError as error:
        if file:
            return _complain(f"{file.name}: {error.strerror}")
        _drop_output(2)
    return 0


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


_file_option = partial(click.option, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")


@commands.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--prometheus", "prometheus", multiple=True, metavar="URL", help="The rules of a live Prometheus.")
@click.option("--grafana", multiple=True, metavar="URL", help="The dashboards and alerts of a live Grafana.")
@_file_option(
    "--prometheus-token-file", help="Its token, or its user's password; SPARK_AGENT_PROMETHEUS_TOKEN as well."
)
@click.option("--prometheus-user", metavar="NAME", help="Ask it as this user, and not with a token.")
@_file_option("--grafana-token-file", help="Its token; SPARK_AGENT_GRAFANA_TOKEN as well.")
@_file_option("--ca-file", help="Trust these authorities, not those of this machine.")
@click.option(
    "--target",
    "machines",
    type=click.Choice(["gb10", "any"]),
    default="gb10",
    show_default=True,
    help="The machines that are meant: Sparks, or any, of which nothing is known but what metrics cover.",
)
@click.option(
    "--sparks",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="How many machines a sum spans that does not say; two is the cluster that NVIDIA specifies.",
)
@_file_option("--metrics", help="What metrics of your own cover, as TOML.  [default: the settings' audit.metrics]")
@_file_option("--baseline", help="Leave out what --write-baseline once wrote here.")
@_file_option("--write-baseline", help="Accept all that is found now, and write it here.")
@click.option(
    "--output",
    "-o",
    type=click.Choice(["text", "json", "sarif", "github"]),
    default="text",
    show_default=True,
    help="github is for annotations in GitHub Actions.",
)
@click.pass_obj
def audit(
    target: Target,
    paths: tuple[str, ...],
    prometheus: tuple[str, ...],
    grafana: tuple[str, ...],
    prometheus_token_file: Path | None,
    prometheus_user: str | None,
    grafana_token_file: Path | None,
    ca_file: Path | None,
    machines: str,
    sparks: int,
    metrics: Path | None,
    baseline: Path | None,
    write_baseline: Path | None,
    output: str,
) -> int:
    """Find rules and dashboards that take a part for the whole.

    PATHs are Prometheus rule files, Grafana dashboards, and folders of them; - is standard input. All are judged
    together: a recording rule of one file is known in another.

    Exit codes: 0 nothing worse than info, 1 warnings, 2 errors, 3 something could not be audited.
    """
    import gc

    from spark_agent.agent.config import MISREADS, ConfigError, Sources, load

    if find_spec("promql_parser") is None:
        raise ConfigError("an audit needs the package promql-parser, which is not installed here; pip has it")
    from spark_agent.agent.audit import audit as auditing
    from spark_agent.agent.audit import files, servers
    from spark_agent.agent.audit.case import Target as Machines
    from spark_agent.agent.audit.catalogue import Catalogue, CatalogueError, own_rows_in
    from spark_agent.exporters.audit_report import Format, tell

    target.must_be_live("an audit looks at files and servers, not at a machine")
    if not (paths or prometheus or grafana):
        raise click.UsageError("nothing to audit: name files, folders, --prometheus URL or --grafana URL")
    meant = Machines(machines)
    metrics = metrics or load(Sources(target.settings, os.environ), MISREADS).audit_metrics
    gc.disable()  # what is made here is kept to the end: collecting it took a third of the time
    types: dict[str, str] = {}
    try:
        own = own_rows_in(metrics) if metrics else ()
        known = auditing.read_baseline(baseline) if baseline else ()
        read = [*files.read(paths)]
        if prometheus:
            access = _access("prometheus", prometheus, prometheus_token_file, prometheus_user, ca_file)
            for url in prometheus:
                rules, said = servers.read_prometheus(url, access)
                read += rules
                types |= said
        if grafana:
            access = _access("grafana", grafana, grafana_token_file, None, ca_file)
            for url in grafana:
                read += servers.read_grafana(url, access)
        catalogue = Catalogue(own, is_gb10=meant is Machines.GB10, types=types)
        found = auditing.audit(read, catalogue, meant, machines=sparks, baseline=known)
        if write_baseline:
            found = auditing.write_baseline(write_baseline, found)
    except (auditing.BaselineError, CatalogueError, servers.ServerError) as error:
        raise ConfigError(str(error)) from error
    click.echo(tell(found, Format(output)).encode(), nl=False)
    if found.errors:
        return UNKNOWN
    return {"error": 2, "warning": 1}.get(found.worst or "", 0)


def _access(kind: str, urls: tuple[str, ...], file: Path | None, user: str | None, ca_file: Path | None) -> "Access":
    """Return how servers of a kind are asked. No flag takes a secret: everybody sees the flags of a process."""
    from spark_agent.agent.audit.servers import Access, secret_in

    secret = secret_in(file) if file else os.environ.get(f"SPARK_AGENT_{kind.upper()}_TOKEN", "")
    if user and not secret:
        raise click.UsageError(f"--{kind}-user takes a password: --{kind}-token-file names its file")
    for url in urls:
        if secret and url.startswith("http:") and not re.match(r"http://(localhost|127\.|\[::1\])", url):
            _complain(f"{kind}: the secret goes to {url.split('//')[-1].split('/')[0]} without encryption")
    return Access(user=user, password=secret, ca_file=ca_file) if user else Access(token=secret, ca_file=ca_file)


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
@click.option("--file", type=click.Path(path_type=Path), help="This recording, not the newest.")
@click.option("--list", "listing", is_flag=True, help="List the recordings that are there.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The daemon's folder.  [default: $STATE_DIRECTORY, or /var/lib/spark-agent]",
)
@click.option(
    "--last",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Only the last seconds.  [default: 60 in the table, otherwise all]",
)
@click.option("--output", "-o", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.pass_obj
def blackbox(
    target: Target, file: Path | None, listing: bool, state: Path | None, last: float | None, output: str
) -> int:
    """Show what this machine did last, and whether it went down without a clean end.

    Of the recordings that `serve` made: the newest without a clean end, or where there is none, the present one.
    Exit codes: 0 clean, 1 the agent was killed, 2 the machine went down, 3 there is nothing to show.
    """
    from spark_agent.exporters import blackbox as told

    target.must_be_live("a black box is a file of its own; name one with --file")
    if file and (listing or state):
        raise click.UsageError("--file names one recording; --list and --state are about a folder of them")
    if last is not None and not math.isfinite(last):
        raise click.BadParameter(f"{last} is no number of seconds", param_hint="--last")
    if listing and (last is not None or output == "csv"):
        raise click.UsageError("--list shows no records; it takes neither --last nor --output csv")
    # systemd may name several folders; the first is the daemon's own.
    folder = state or Path(os.environ.get("STATE_DIRECTORY", "").split(":")[0] or "/var/lib/spark-agent")
    recordings = _recordings(target, folder, file)
    shown = list(recordings) if listing else _newest(recordings)
    if not shown:
        return UNKNOWN
    if output == "table":
        from rich.console import Console

        console = Console(highlight=False, markup=False, emoji=False)
        if listing:
            told.show_list(shown, console, time.time())
        else:
            told.show(shown[0].tail(last or told.SHOWN_SECONDS), console, time.time())
    elif listing:
        _write(told.list_text(shown))
    else:
        recording = shown[0].tail(last or math.inf)
        _write(told.csv_text(recording) if output == "csv" else told.text(recording))
    return max(told.EXIT_CODES[recording.ending.kind] for recording in shown)


def _newest(recordings: "Iterator[Recording]") -> "list[Recording]":
    """Return the newest without a clean end; where all have one, the newest."""
    clean = []
    for recording in recordings:
        if recording.ending.kind.is_unclean:
            return [recording]
        clean.append(recording)
    return clean[:1]


def _recordings(target: Target, folder: Path, file: Path | None) -> "Iterator[Recording]":
    """Yield what the black boxes of a folder hold, or the one that is named; why one cannot be read is said."""
    from spark_agent.agent.blackbox import BlackBoxError, read, rings
    from spark_agent.collectors.boot import BOOT_ID

    boot_id = target.host(None).text(BOOT_ID)
    try:
        paths = [file] if file else rings(folder)
    except BlackBoxError as error:
        _complain(str(error))
        return
    for path in paths:
        try:
            yield read(path, boot_id)
        except BlackBoxError as error:
            _complain(str(error))


@commands.command()
@click.argument("of", type=click.Choice(["snapshot", "measurement"]), default="snapshot")
@click.pass_obj
def schema(target: Target, of: str) -> int:
    """Print the JSON Schema of what `snapshot` writes, or of a `measure`'s measurement."""
    import json

    target.must_be_live("the schema is the same for each machine")
    if of == "measurement":
        from spark_agent.exporters.measurement import schema as json_schema
    else:
        from spark_agent.exporters.schema import schema as json_schema
    _write(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0


@commands.command()
@click.option(
    "--runbook",
    metavar="URL",
    help="Where docs/alerts.md can be read, for the alerts' runbook_url.  [default: its path in the project]",
)
@click.pass_obj
def rules(target: Target, runbook: str | None) -> int:
    """Print recording rules and alerts for Prometheus, with the thresholds of verdicts and findings."""
    from spark_agent.exporters.rules import RUNBOOK, text

    target.must_be_live("the rules are the same for each machine")
    click.echo(text(runbook or RUNBOOK).encode(), nl=False)
    return 0


@commands.command()
@click.argument("name", required=False)
@click.option(
    "--write",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Write them into this folder, each as spark-agent-NAME.json.",
)
@click.option("--force", is_flag=True, help="Replace files that are there and differ.")
@click.pass_obj
def dashboards(target: Target, name: str | None, folder: Path | None, force: bool) -> int:
    """List the Grafana dashboards, print the one called NAME, or write them for Grafana to load."""
    from spark_agent.exporters.dashboards import DASHBOARDS
    from spark_agent.exporters.grafana import text, write

    target.must_be_live("the dashboards are the same for each machine")
    if name is not None and name not in DASHBOARDS:
        raise click.BadParameter(f"no dashboard {name!r}; there are {', '.join(DASHBOARDS)}", param_hint="NAME")
    if force and folder is None:
        raise click.UsageError("--force does nothing without --write")
    chosen = DASHBOARDS if name is None else {name: DASHBOARDS[name]}
    if folder is not None:
        try:
            for path in write(chosen.values(), folder, replace=force):
                click.echo(path)
        except FileExistsError as error:
            return _complain(f"{error.filename}: it is there already and differs; --force replaces it")
    elif name is None:
        for each, dashboard in DASHBOARDS.items():
            click.echo(f"{each:20} {dashboard.description}")
    else:
        click.echo(text(DASHBOARDS[name]).encode(), nl=False)
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


class ServiceCommands(Commands):
    """The commands on the service; what is in their way is told in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        from spark_agent.agent.service import ServiceError

        try:
            return super().invoke(ctx)
        except ServiceError as error:
            return _complain(str(error))


@commands.group(cls=ServiceCommands)
@click.pass_obj
def service(target: Target) -> None:
    """Install, remove or check the systemd service."""
    target.must_be_live("a service is installed on this machine")


_root = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    metavar="FOLDER",
    help="Work on a system below this folder, and start nothing.",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


def _place(root: Path | None, *, dry_run: bool) -> "Place":
    """Return where the service is to be changed, if this user may."""
    from spark_agent.agent.service import Place, needs_root, needs_systemd

    if root is not None:
        return Place(root, running=False)
    needs_systemd()
    if not dry_run:
        needs_root(sys.argv[1:])
    return Place()


def _carry_out(steps: "list[Step]", nothing: str, *, dry_run: bool) -> int:
    """Say each step and do it; a dry run only says."""
    for step in steps:
        click.echo(f"would {step.says}" if dry_run else step.says)
        if not dry_run:
            step.do()
    if not steps:
        click.echo(f"nothing to do: {nothing}")
    return 0


@service.command("install")
@click.option(
    "--venv",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Make an environment of its own here, such as /opt/spark-agent.  [default: the one this runs from]",
)
@click.option("--socket", is_flag=True, help="Let systemd listen: a scrape during a restart waits, and is not refused.")
@click.option("--now/--no-start", "start", default=True, help="Start it, or only enable it.", show_default=True)
@_root
@_dry_run
def install_service(venv: Path | None, socket: bool, start: bool, root: Path | None, dry_run: bool) -> int:
    """Install, enable and start the service. What is so already is left alone."""
    from spark_agent.agent.service import install

    steps = install(_place(root, dry_run=dry_run), venv=venv, socket=socket, start=start)
    return _carry_out(steps, "the service is installed", dry_run=dry_run)


@service.command("uninstall")
@click.option("--purge", is_flag=True, help="Remove state, configuration and drop-ins too.")
@_root
@_dry_run
def uninstall_service(purge: bool, root: Path | None, dry_run: bool) -> int:
    """Stop the service and remove what install made. State and configuration stay."""
    from spark_agent.agent.service import uninstall

    steps = uninstall(_place(root, dry_run=dry_run), purge=purge)
    return _carry_out(steps, "the service is not installed", dry_run=dry_run)


@service.command("status")
def service_status() -> int:
    """Show whether the service runs, where it listens, and whether its beat goes on.

    Exit codes: 0 it is ready, 1 it runs and is not ready, 2 it does not run or answer, 3 it is not installed.
    """
    from spark_agent.agent.service import Place, needs_systemd, status

    needs_systemd()
    standing = status(Place())
    for name, text in standing.rows:
        click.echo(f"{name:12}{text}")
    return standing.severity.exit_code


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
        from spark_agent.agent.config import ConfigError
        from spark_agent.agent.machine import MachineError

        if isinstance(error, ConfigError):
            for problem in error.problems:
                _complain(problem)
            return CONFIG
        if isinstance(error, MachineError):
            return _complain(str(error))
        if os.environ.get("SPARK_AGENT_DEBUG"):
            raise
        return _complain(f"{type(error).__name__}: {error}; this is a bug, SPARK_AGENT_DEBUG=1 shows where")


def _reader_gone() -> int:
    """End as `… | head` makes a command end."""
    _drop_output()
    return BROKEN_PIPE


def _drop_output(descriptor: int = 1) -> None:
    # What could not be written Python tries once more when it closes stdout, and then it says so in its own words.
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _complain(message: str) -> int:
    click.echo(f"spark-agent: {message}", err=True)
    return UNKNOWN
