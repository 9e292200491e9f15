"""What a program in the service's place can do. Printed as JSON; errors by their errno names."""

import ctypes
import errno
import json
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

NR_MOUNT, NR_UNSHARE = {"x86_64": (165, 272), "aarch64": (40, 97)}[os.uname().machine]
NR_SCHED_SETSCHEDULER = {"x86_64": 144, "aarch64": 119}[os.uname().machine]
libc = ctypes.CDLL(None, use_errno=True)


def outcome(attempt: Callable[[], object]) -> str:
    """Return ok, or the name of the error."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def call(number: int, *arguments: int) -> None:
    """Make a system call."""
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "syscall")


def device(path: str) -> Callable[[], None]:
    """Return an attempt to open a device."""
    return lambda: os.close(os.open(path, os.O_RDWR))


def writable_code() -> None:
    """Map memory to write and to run."""
    libc.mmap.restype = ctypes.c_void_p
    if libc.mmap(None, 4096, 7, 0x22, -1, 0) == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")


def bound(family: int) -> Callable[[], None]:
    """Return an attempt to make a socket of a family."""
    return lambda: socket.socket(family, socket.SOCK_DGRAM).close()


ATTEMPTS: dict[str, Callable[[], object]] = {
    "list /home": lambda: list(Path("/home").iterdir()),
    "list /root": lambda: list(Path("/root").iterdir()),
    "write /etc": lambda: Path("/etc/written").write_text("x"),
    "write /usr": lambda: Path("/usr/written").write_text("x"),
    "write state": lambda: Path(os.environ["STATE_DIRECTORY"], "written").write_text("x"),
    "write runtime": lambda: Path(os.environ["RUNTIME_DIRECTORY"], "written").write_text("x"),
    "write /tmp": lambda: tempfile.TemporaryFile().close(),
    "write tunable": lambda: Path("/proc/sys/kernel/core_uses_pid").write_text("1"),
    "read configuration": lambda: list(Path(os.environ["CONFIGURATION_DIRECTORY"]).iterdir()),
    "read meminfo": lambda: Path("/proc/meminfo").read_text(),
    "read sys": lambda: list(Path("/sys/class").iterdir()),
    "read kernel log": lambda: os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)),
    "device nvidiactl": device("/dev/nvidiactl"),
    "device nvidia0": device("/dev/nvidia0"),
    "device nvidia1": device("/dev/nvidia1"),
    "device fuse": device("/dev/fuse"),
    "device null": device("/dev/null"),
    "socket unix": bound(socket.AF_UNIX),
    "socket ipv4": bound(socket.AF_INET),
    "socket ipv6": bound(socket.AF_INET6),
    "socket netlink": bound(socket.AF_NETLINK),
    "socket packet": bound(socket.AF_PACKET),
    "syscall mount": lambda: call(NR_MOUNT, 0, 0, 0, 0, 0),
    "syscall unshare": lambda: call(NR_UNSHARE, 0x10000000),
    "syscall sched_setscheduler": lambda: call(NR_SCHED_SETSCHEDULER, 0, 0, 0),
    "memory to write and run": writable_code,
    "ctypes callback": lambda: ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)(),
}


def facts() -> dict[str, object]:
    """Return who runs here, and how it is held."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return {
        "uid": os.getuid(),
        "groups": sorted({os.getgid(), *os.getgroups()}),
        "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")],
        "no_new_privileges": status["NoNewPrivs"],
        "seccomp": status["Seccomp"],
        "processes": sum(path.name.isdecimal() for path in Path("/proc").iterdir()),
        "umask": status["Umask"],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
    }


print(json.dumps({"can": {name: outcome(attempt) for name, attempt in ATTEMPTS.items()}, **facts()}))  # noqa: T201
