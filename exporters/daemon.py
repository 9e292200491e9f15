"""The daemon: a beat that looks, a loop that answers, and a scribe that writes; none waits for another.

The beat is a thread, and the only writer of reports. The event loop, in the main thread, serves the last report and
listens to signals. systemd's watchdog is fed by the loop for as long as the beat goes on: if either hangs, the daemon
is restarted.
"""

import asyncio
import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from spark_agent.agent import __version__, calibration, config, logs
from spark_agent.agent.auditor import auditor
from spark_agent.agent.budget import own_limits
from spark_agent.agent.config import ConfigError, Settings
from spark_agent.agent.machine import Machine
from spark_agent.agent.misread import Listener
from spark_agent.agent.notify import Notifier
from spark_agent.agent.report import Report
from spark_agent.agent.sampler import Sampler
from spark_agent.agent.state import StateError
from spark_agent.collectors import Collector, Host, Origin, discover
from spark_agent.collectors._live import Hotplug
from spark_agent.exporters.http import Limits, Server
from spark_agent.exporters.listeners import ListenError, activated, listen
from spark_agent.exporters.prometheus import Exposition
from spark_agent.exporters.scribe import Scribe
from spark_agent.exporters.site import Site, how_power_is_known
from spark_agent.exporters.web_config import WebConfig, WebConfigError, exposed

if TYPE_CHECKING:
    from spark_agent.agent.neighbours import Neighbours

log = logging.getLogger(__name__)

_INTERRUPTED: Final = 130
_SOFTWARE: Final = 70  # EX_SOFTWARE of sysexits.h

# Seconds: between two looks at whether all is well, between two lines of `systemctl status`, and what a stop may take.
_TICK_SECONDS: Final = 1.0
_STATUS_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 5.0


class Target(Protocol):
    """The machine that was named on the command line."""

    def open(self) -> Machine | None:
        """Open it; nothing where it is the live one."""

    def host(self, machine: Machine | None) -> Host:
        """Return the opened machine's host, or the live one."""


def serve(settings: Settings, target: Target) -> int:
    """Run until a signal ends it, and return the exit code; raises `ConfigError` for what cannot be started with."""
    audits = auditor(settings)
    machine = target.open()
    host = target.host(machine)
    scribe: Scribe | None = None
    sockets: list[socket.socket] = []
    try:
        web_config = WebConfig(settings.web_config_file) if settings.web_config_file else None
        sockets = activated() or listen(settings.web_listen_address)
        scribe = Scribe(settings, host.name)
    except (WebConfigError, ListenError, StateError) as error:
        for one in sockets:
            one.close()
        raise ConfigError(str(error)) from error
    if warning := exposed(sockets, web_config):
        log.warning(warning)
    neighbours = _neighbours(settings)
    calibrate = partial(_calibration, host)
    sampler = Sampler(
        host,
        _chosen(settings),
        scribe.ledger,
        settings.beat,
        _player(machine, settings.speed),
        own_limits(settings),
        calibrate(),
        Listener(neighbours.pages) if neighbours else None,
        lambda: audits.tally if audits else None,
    )
    aside = [one for one in (neighbours, audits) if one]
    for thread in aside:
        thread.start()
    try:
        return asyncio.run(_Daemon(settings, sampler, scribe, web_config, calibrate).run(sockets))
    finally:
        for thread in aside:
            thread.stop()


def _chosen(settings: Settings) -> Mapping[str, Collector]:
    return {name: read for name, read in discover().items() if name in settings.collectors}


def _neighbours(settings: Settings) -> "Neighbours | None":
    if not settings.misread_exporter:
        return None
    from spark_agent.agent.neighbours import Neighbours

    return Neighbours(settings.misread_exporter, settings.misread_interval)


def _calibration(host: Host) -> calibration.Calibration | None:
    """Return what the owner fitted the estimate with; a replayed machine is another than this one."""
    path = calibration.found(calibration.paths()) if host.origin is Origin.LIVE else None
    if path is None:
        return None
    try:
        found = calibration.load(path)
    except calibration.CalibrationFileError as error:
        log.warning("%s; the estimate goes without it", error)
        return None
    log.info("calibration of the estimate: %s", found.told, extra={"path": str(path)})
    return found


def _player(machine: Machine | None, speed: float) -> Callable[[], bool]:
    """Return what moves a machine along its timeline, so many times as fast as it went; a live one moves by itself."""
    if machine is None:
        return lambda: False
    started = time.monotonic()
    return lambda: machine.play((time.monotonic() - started) * speed)


class _Daemon:
    def __init__(
        self,
        settings: Settings,
        sampler: Sampler,
        scribe: Scribe,
        web_config: WebConfig | None,
        calibrate: Callable[[], calibration.Calibration | None],
    ) -> None:
        self._settings = self._started_with = settings
        self._sampler = sampler
        self._scribe = scribe
        self._web_config = web_config
        self._calibrate = calibrate
        self._site = Site(sampler, Exposition(), interval=settings.beat, metrics_path=settings.web_telemetry_path)
        self._notifier = Notifier.from_environment()
        self._stop = threading.Event()
        self._code = 0
        self._ignored = ""

    async def run(self, sockets: list[socket.socket]) -> int:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._first = asyncio.Event()
        self._loop.add_signal_handler(signal.SIGTERM, self._end, 0)
        self._loop.add_signal_handler(signal.SIGINT, self._end, _INTERRUPTED)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._scribe.start()
        beat = threading.Thread(target=self._beat, name="beat", daemon=True)
        beat.start()
        threading.Thread(target=self._listen_to_hotplug, name="hotplug", daemon=True).start()
        # The first look is not waited for any longer than its patience, and who asks meanwhile waits in the backlog.
        await self._first.wait()
        server = Server(self._site, self._web_config, Limits(connections=self._settings.web_max_connections))
        await server.start(sockets)
        watch = asyncio.create_task(self._watch(server.addresses))
        await self._over.wait()
        self._notifier.stopping()
        self._site.is_stopping = True
        self._stop.set()
        watch.cancel()
        await server.stop(_STOP_SECONDS)
        beat.join(_STOP_SECONDS)
        self._scribe.finish(_STOP_SECONDS)
        log.info("stopped")
        return self._code

    def _end(self, code: int) -> None:
        self._code = code
        self._over.set()
        # Who ends does not wait for the first look either.
        self._first.set()

    def _beat(self) -> None:
        try:
            self._sampler.run(self._stop, self._after_beat)
        except Exception as error:
            # Without a beat there is nothing to serve; systemd starts the daemon anew.
            log.critical("the beat ended: %r", error, exc_info=error)
            self._loop.call_soon_threadsafe(self._end, _SOFTWARE)

    def _after_beat(self, report: Report) -> None:
        self._scribe.take(report)
        applied = report.estimate.calibration
        why = applied.detail if applied and not applied.holds else ""
        if why and why != self._ignored:
            log.warning("calibration of the estimate ignored: %s", why)
        self._ignored = why
        if not self._first.is_set():
            self._loop.call_soon_threadsafe(self._first.set)

    def _listen_to_hotplug(self) -> None:
        if self._sampler.origin is not Origin.LIVE:
            return
        try:
            hotplug = Hotplug()
        except (ImportError, OSError) as error:
            log.warning("udev cannot be listened to (%s): devices that come or go show within a minute", error)
            return
        while not self._stop.is_set():
            devices, links = hotplug.wait(_TICK_SECONDS)
            if devices:
                self._sampler.disturb()
            if links:
                self._sampler.hurry("nic")
        hotplug.close()

    async def _watch(self, addresses: list[str]) -> None:
        """Say when the daemon is ready and how it is, and feed the watchdog while the beat goes on."""
        self._notifier.ready("the first look is done")
        log.info("ready", extra={"version": __version__, "addresses": " ".join(addresses)})
        # All that was loaded until now stays; the collector of cycles need not go through it again and again.
        gc.collect()
        gc.freeze()
        status_at = time.monotonic()
        while True:
            if self._site.is_healthy:
                self._notifier.watchdog()
            if time.monotonic() >= status_at and (report := self._sampler.report):
                status_at = time.monotonic() + _STATUS_SECONDS
                how = how_power_is_known(report.power, self._sampler.age())
                self._notifier.status(f"{how} Serving {', '.join(addresses)}.")
            await asyncio.sleep(_TICK_SECONDS)

    def _reload(self) -> None:
        """Read the settings again; where they are no good, keep those of before and say so."""
        self._notifier.reloading()
        try:
            settings = config.load(self._settings.sources)
        except ConfigError as error:
            problems = "; ".join(error.problems)
            log.error("%s; the settings of before stay in force", problems)  # noqa: TRY400  (one line)
        else:
            self._take(settings)
        if self._web_config:
            self._web_config.reload()
        # Before the first look it is not; that one says so.
        if self._first.is_set():
            self._notifier.ready()

    def _take(self, settings: Settings) -> None:
        pending = config.changes_needing_restart(self._started_with, settings)
        for line in (*settings.warnings, *(f"{name} changes with a restart only" for name in pending)):
            log.warning(line)
        logs.configure(settings.log_level, settings.log_format)
        if settings.collectors != self._settings.collectors:
            self._sampler.ask(_chosen(settings))
        self._sampler.own = own_limits(settings)
        self._scribe.settings = settings
        self._settings = settings
        self._sampler.calibration = self._calibrate()
        log.info("settings read again")
