"""Where the daemon listens: TCP, unix sockets, and sockets that systemd opened for it."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Final

from spark_agent.agent.config import Address, TcpAddress, UnixAddress

_BACKLOG: Final = 128
#: The first descriptor that systemd hands over: SD_LISTEN_FDS_START.
_FIRST_DESCRIPTOR: Final = 3


class ListenError(Exception):
    """There is no listening at an address: says where, why, and what to do."""


def listen(addresses: Iterable[Address], *, mode: int = 0o660) -> list[socket.socket]:
    """Open sockets for all addresses, or none and raise `ListenError`; ``mode`` is that of unix sockets."""
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            if isinstance(address, UnixAddress):
                opened.append(_listen_unix(address, mode))
            else:
                opened.extend(_listen_tcp(address))
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


def _listen_tcp(address: TcpAddress) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise ListenError(f"{address}: no such host: {getattr(error, 'strerror', None) or error}") from error
    opened: list[socket.socket] = []
    why: OSError | None = None
    port = address.port
    for family, _, _, _, where in dict.fromkeys(found):
        try:
            listener = _bound(family, (where[0], port, *where[2:]))
        except OSError as error:
            why = error
            # A name often stands for IPv6 too, which this machine may have switched off.
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue
            for one in opened:
                one.close()
            raise ListenError(f"{address}: {_listen_fault(error)}") from error
        # Of a name with any port, all addresses are to have the same.
        port = listener.getsockname()[1]
        opened.append(listener)
    if not opened:
        assert why is not None  # noqa: S101  (getaddrinfo returns something, or raises)
        raise ListenError(f"{address}: {_listen_fault(why)}") from why
    return opened


def _bound(family: int, where: tuple[str | int, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Or [::] would take IPv4 as well, and 0.0.0.0 beside it would be in use.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(where)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _listen_fault(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "something else listens there; stop it, or choose another port"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return "no interface of this machine has this address; `ip address` lists what there is"
        case errno.EACCES | errno.EPERM:
            return "no permission; ports below 1024 need CAP_NET_BIND_SERVICE, so choose one above"
        case _:
            return error.strerror or str(error)


class _UnixListener(socket.socket):
    """A unix socket that takes its file along when it is closed."""

    inode: int | None = None

    def bind_to(self, path: str) -> None:
        self.bind(path)
        self.inode = Path(path).stat().st_ino

    def close(self) -> None:
        if self.fileno() >= 0 and self.inode is not None:
            path = Path(self.getsockname())
            # A successor may have put its own in the place of ours.
            with contextlib.suppress(OSError):
                if path.lstat().st_ino == self.inode:
                    path.unlink()
        super().close()


def _listen_unix(address: UnixAddress, mode: int) -> socket.socket:
    listener = _UnixListener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear_away(address)
        listener.bind_to(str(address.path))
        # Nobody can connect before listen(2), so there is no moment at which the mode is another.
        address.path.chmod(mode)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        hint = "; may this user write to the folder?" if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise ListenError(f"{address}: {error.strerror or error}{hint}") from error
    except BaseException:
        listener.close()
        raise
    return listener


def _clear_away(address: UnixAddress) -> None:
    """Remove the socket of one that was killed; anything else that is there stays, and is an error."""
    path = address.path
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ListenError(f"{address}: there is something that is no socket; remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            # Its queue is full, or it is not ours to ask: somebody is there.
            pass
    raise ListenError(f"{address}: something else listens there; stop it, or choose another path")


def activated(
    environment: MutableMapping[str, str] = os.environ, first: int = _FIRST_DESCRIPTOR
) -> list[socket.socket]:
    """Return the sockets that systemd opened for this process, as sd_listen_fds(3) has it; none where it did not.

    Takes the variables away, so that no child believes that they are meant for it. Raises `ListenError`.
    """
    pid, count, names = (environment.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdecimal()):
        raise ListenError(f"LISTEN_FDS is {count!r}, which is no number of sockets")
    called = dict(enumerate(names.split(":") if names else ()))
    listeners: list[socket.socket] = []
    try:
        for index in range(int(count)):
            name = f"socket {called.get(index, '') or index + 1} from systemd"
            try:
                listener = socket.socket(fileno=first + index)
            except OSError as error:
                raise ListenError(f"{name}: {error.strerror}; the socket unit and the service disagree") from error
            listeners.append(listener)
            listener.set_inheritable(False)
            if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise ListenError(f"{name} does not listen; use ListenStream= with Accept=no in the socket unit")
    except BaseException:
        for one in listeners:
            one.close()
        raise
    return listeners


def address_of(listener: socket.socket) -> Address:
    """Return where a socket listens, with the port that it was given."""
    name = listener.getsockname()
    return UnixAddress(Path(name)) if listener.family == socket.AF_UNIX else TcpAddress(name[0], name[1])
