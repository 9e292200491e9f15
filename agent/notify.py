"""Tell systemd how the daemon is: sd_notify(3), and the watchdog of sd_watchdog_enabled(3).

A datagram to the socket that ``$NOTIFY_SOCKET`` names is the whole protocol; where there is none, nobody is told.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

logger: Final = logging.getLogger(__name__)

#: A manager that is busy takes no datagrams for a while. A beat does not wait for it: the next one tells it again.
PATIENCE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Notifier:
    """Where systemd listens, if it does, and after how many seconds without a word it restarts the daemon."""

    address: str | None = None
    watchdog_seconds: float | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return who listens to this process, by what systemd put into its environment."""
        address = environment.get("NOTIFY_SOCKET", "")
        # Other families (vsock) are for virtual machines that notify their host.
        if not address.startswith(("/", "@")):
            return cls()
        # The watchdog may be another process's: WATCHDOG_PID then names it.
        pid, microseconds = environment.get("WATCHDOG_PID", ""), environment.get("WATCHDOG_USEC", "")
        ours = pid in ("", str(os.getpid())) and microseconds.isdecimal() and int(microseconds) > 0
        return cls(address, int(microseconds) / 1e6 if ours else None)

    def ready(self, status: str = "") -> None:
        """Say that start or reload is over; ``systemctl start`` has waited for this."""
        self._send("READY=1", *_status(status))

    def status(self, text: str) -> None:
        """Say in one line how things are, for ``systemctl status``."""
        self._send(*_status(text))

    def watchdog(self) -> None:
        """Say that the beat goes on; to be called well within ``watchdog_seconds``."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that a reload begins; ``ready`` ends it."""
        # The time tells this reload from one that was asked for a moment earlier (Type=notify-reload, systemd 253).
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the end was asked for, and is on its way."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if self.address is None or not lines:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
                peer.settimeout(PATIENCE_SECONDS)
                peer.sendto("\n".join(lines).encode(errors="replace"), address)
        except OSError as error:
            # Whoever cannot be told is no reason to end: the page is there for others too.
            logger.debug("systemd was not told %s: %s", lines[0], error)


def _status(text: str) -> tuple[str, ...]:
    # One line is one assignment: a line break would begin the next one.
    return (f"STATUS={' '.join(text.split())}",) if text else ()
