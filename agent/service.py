"""The systemd service: install it, remove it, and say how it is.

The units of ``systemd/`` ship with the code. `install` and `uninstall` compare what is there with what should be and
return the steps in between, so that a second run has nothing to do, and a dry run only says them.
"""

import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from spark_agent.agent import __version__
from spark_agent.agent.health import Severity

DISTRIBUTION: Final = "dgx-spark-agent"
SERVICE: Final = "spark-agent.service"
SOCKET: Final = "spark-agent.socket"

#: The folder that holds agent/, collectors/, exporters/ and systemd/: a checkout's, or spark_agent/ where installed.
CODE: Final = Path(__file__).resolve().parents[1]
ROOMS: Final = ("agent", "collectors", "exporters", "systemd")
#: What the shipped unit starts, which is where the Debian package has it.
PROGRAM: Final = "/usr/bin/spark-agent"
#: Compiled packages are copied along, so the environment's Python is of the same minor version.
PYTHON: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
#: The first line of an installed unit. A file without it is somebody else's, and left alone.
MARK: Final = "# Installed by `spark-agent service install`, removed by `spark-agent service uninstall`."
#: The file in an environment that says that `install` made it, and from what.
MADE_FROM: Final = ".spark-agent"
#: What the unit hides from the service: ProtectHome and PrivateTmp.
HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108  (named, not used)
#: What a purge takes besides: state, its link, configuration and drop-ins.
KEPT: Final = (
    "var/lib/spark-agent",
    "var/lib/private/spark-agent",
    "etc/spark-agent",
    "etc/default/spark-agent",
    "etc/systemd/system/spark-agent.service.d",
    "etc/systemd/system/spark-agent.socket.d",
)
ANSWER_SECONDS: Final = 5.0


class ServiceError(Exception):
    """Why the service cannot be installed, removed or asked, and what helps."""


def systemctl(*arguments: str) -> str:
    """Run systemctl and return what it prints."""
    program = shutil.which("systemctl")
    if program is None:
        raise ServiceError("no systemctl: this machine has no systemd, so there is no service to speak of")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError(f"systemctl {shlex.join(arguments)}: {done.stderr.strip() or f'exit {done.returncode}'}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Place:
    """Where the service is: the running system, or a tree below ``root`` that somebody prepares."""

    root: Path = Path("/")
    running: bool = True
    systemctl: Callable[..., str] = systemctl

    def path(self, name: str | Path) -> Path:
        """Return where a path of that system is for us."""
        return self.root / str(name).lstrip("/")

    def unit(self, name: str) -> Path:
        """Return where `install` puts a unit."""
        return self.path(f"etc/systemd/system/{name}")

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return what systemd says about a unit; a unit that is not there is ``LoadState=not-found``."""
        shown: dict[str, str] = {}
        for line in self.systemctl("show", unit, f"--property={','.join(properties)}").splitlines():
            name, _, value = line.partition("=")
            # What there are several of, such as addresses, comes as several lines.
            shown[name] = f"{shown[name]}\n{value}" if name in shown else value
        return shown


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, and how it is told."""

    says: str
    do: Callable[[], object]


# Install


def install(place: Place, *, venv: Path | None = None, socket: bool = False, start: bool = True) -> list[Step]:
    """Return the steps to a service that is enabled and, if wanted, started; none where all is so already."""
    _refuse_package(place)
    if venv is not None:
        venv = Path(os.path.abspath(venv))  # noqa: PTH100  (resolve() would follow a link that may be meant)
    program = (venv or Path(sys.prefix)) / "bin" / "spark-agent"
    _refuse_unfit(program)
    environment = _environment_steps(place, venv) if venv else _running_environment(program)

    units = {SERVICE: unit_text(SERVICE, program)} | ({SOCKET: unit_text(SOCKET, program)} if socket else {})
    changes = [step for name, text in units.items() for step in _unit_steps(place, name, text)]
    if not socket:
        changes += _removal_steps(place, SOCKET)
    steps = [*environment, *changes]
    if not place.running:
        disabled = [name for name in units if not _is_enabled_offline(place, name)]
        return steps + ([_systemctl_step(place, f"--root={place.root}", "enable", *disabled)] if disabled else [])

    if changes:
        steps.append(_systemctl_step(place, "daemon-reload"))
    states = {name: place.show(name, "UnitFileState", "ActiveState") for name in units}
    idle = [name for name, state in states.items() if state["ActiveState"] != "active"]
    if start and steps and SERVICE not in idle:
        # It runs what was there before; and a socket cannot be had while the daemon itself listens there.
        steps.append(_systemctl_step(place, "stop", SERVICE))
        idle.append(SERVICE)
    disabled = [name for name, state in states.items() if state["UnitFileState"] != "enabled"]
    if disabled:
        steps.append(_systemctl_step(place, "enable", *disabled))
    if start:
        steps += [_systemctl_step(place, "start", name) for name in (SOCKET, SERVICE) if name in idle]
    return steps


def unit_text(name: str, program: Path) -> str:
    """Return a shipped unit as it is installed: marked, and with the program that it starts."""
    text = (CODE / "systemd" / name).read_text(encoding="utf-8")
    # A per cent sign begins a specifier: systemd.unit(5).
    return f"{MARK}\n{text.replace(f'ExecStart={PROGRAM} ', f'ExecStart={program} '.replace('%', '%%'))}"


def _refuse_package(place: Place) -> None:
    for folder in ("usr/lib/systemd/system", "lib/systemd/system"):
        if (unit := place.path(folder) / SERVICE).exists():
            raise ServiceError(
                f"{unit} is there, from the Debian package; this starts it: sudo systemctl enable --now spark-agent"
            )


def _refuse_unfit(program: Path) -> None:
    """Refuse a program that the service could not see, or that a unit and a script cannot name."""
    if re.search(r"[\s\"'\\$]", str(program)):
        raise ServiceError(f"{program}: systemd and a script's first line want a path without blanks and quotes")
    for folder in HIDDEN:
        if program.is_relative_to(folder) or program.resolve().is_relative_to(folder):
            raise ServiceError(
                f"{program} is below {folder}, which the service does not see (ProtectHome, PrivateTmp); "
                "this makes an environment that it sees: --venv /opt/spark-agent"
            )


def _running_environment(program: Path) -> list[Step]:
    """Show that the service could run from the environment that runs now; there is nothing to do for it."""
    if not program.exists():
        raise ServiceError(f"no {program}; this makes an environment that has it: --venv /opt/spark-agent")
    for path in (Path(sys.executable).resolve(), CODE):
        _refuse_unfit(path)
    for path in (program, CODE):
        _refuse_closed(path)
    return []


def _refuse_closed(path: Path) -> None:
    for folder in (path, *path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            raise ServiceError(
                f"{folder} is closed to other users, and the service has one of its own; this opens it: "
                f"sudo chmod o+rx {folder}"
            )


def _unit_steps(place: Place, name: str, text: str) -> Iterator[Step]:
    path = place.unit(name)
    there = path.read_text(encoding="utf-8") if path.is_file() else None
    if there == text:
        return
    if there is not None and not _is_ours(path):
        raise ServiceError(
            f"{path} is there, and `service install` did not write it; remove it, or keep only what differs: "
            f"systemctl edit {name}"
        )
    yield Step(f"{'rewrite' if there else 'write'} {path}", lambda: _write(path, text))


def _is_ours(unit: Path) -> bool:
    return unit.is_file() and unit.read_text(encoding="utf-8", errors="replace").startswith(MARK)


def _is_enabled_offline(place: Place, name: str) -> bool:
    return any(
        (place.unit(f"{target}.wants") / name).is_symlink() for target in ("multi-user.target", "sockets.target")
    )


def _systemctl_step(place: Place, *arguments: str) -> Step:
    return Step(f"systemctl {shlex.join(arguments)}", lambda: place.systemctl(*arguments))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.chmod(0o644)
    beside.replace(path)


# An environment of its own


def _environment_steps(place: Place, venv: Path) -> Iterator[Step]:
    """Yield the step that makes an environment, if it is not there with the same content."""
    folder = place.path(venv)
    if Path(sys.prefix) == folder:
        return
    made_from = folder / MADE_FROM
    if folder.exists() and not made_from.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ServiceError(f"{folder} is there, and `service install` did not make it; name another folder")
    python, packages = _system_python(), runtime_packages()
    description = json.dumps(
        {
            "version": __version__,
            "python": str(python),
            "code": _digest(),
            "packages": sorted(f"{package.name}=={package.version}" for package in packages),
        },
        indent=1,
    )
    if made_from.is_file() and made_from.read_text(encoding="utf-8") == description:
        return
    yield Step(
        f"{'renew' if folder.exists() else 'make'} {folder}: {PYTHON}, spark-agent {__version__} and the "
        f"{len(packages) - 1} packages that it runs with here",
        lambda: _make_environment(folder, venv, python, packages, description),
    )


def _system_python() -> Path:
    """Return an interpreter of this version that the service can see."""
    for folder in (f"{sys.base_prefix}/bin", "/usr/bin", "/usr/local/bin"):
        # Resolved, since a link's folder is not where Python finds its library.
        python = Path(folder, PYTHON).resolve()
        if python.exists() and not any(python.is_relative_to(hidden) for hidden in HIDDEN):
            return python
    raise ServiceError(
        f"{sys.base_prefix} is hidden from the service (ProtectHome, PrivateTmp), and the system has no {PYTHON}; "
        f"install it (apt-get install {PYTHON}), or run this from an environment of the system's Python"
    )


def runtime_packages() -> list[Distribution]:
    """Return this distribution and what it needs, as far as it is installed here."""
    found: dict[str, Distribution] = {}
    wanted = [DISTRIBUTION]
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # needed elsewhere only: for another Python or another system
        for requirement in found[name].requires or ():
            if "extra ==" not in requirement:
                wanted += re.findall(r"^[\w.-]+", requirement)
    if DISTRIBUTION not in found:
        raise ServiceError(f"{DISTRIBUTION} is not installed here, so what it needs is not known; run it from a venv")
    return list(found.values())


def code_files() -> Iterator[Path]:
    """Yield the files of the code and of the units, relative to `CODE`."""
    for room in ROOMS:
        for path in sorted((CODE / room).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(CODE)


def _digest() -> str:
    digest = hashlib.sha256()
    for name in code_files():
        content = (CODE / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _make_environment(folder: Path, venv: Path, python: Path, packages: list[Distribution], description: str) -> None:
    """Make an environment beside the folder, and put it there when it is whole."""
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.parent.mkdir(parents=True, exist_ok=True)
    # Whoever is root with a umask of 077 still makes an environment that the service can read.
    umask = os.umask(0o022)
    try:
        _run(str(python), "-m", "venv", "--without-pip", "--symlinks", str(beside))
        site = beside / "lib" / PYTHON / "site-packages"
        for name in code_files():
            _copy(CODE / name, site / "spark_agent" / name)
        for package in packages:
            _copy_package(package, site)
        script = beside / "bin" / "spark-agent"
        script.write_text(f"#!{venv}/bin/python\nfrom spark_agent.agent.cli import main\n\nmain()\n", encoding="utf-8")
        script.chmod(0o755)
        _run(str(beside / "bin" / "python"), "-m", "compileall", "-q", str(site))
        (beside / MADE_FROM).write_text(description, encoding="utf-8")
    finally:
        os.umask(umask)
    if folder.exists():
        shutil.rmtree(folder)
    beside.rename(folder)


def _copy_package(package: Distribution, site: Path) -> None:
    if package.name == DISTRIBUTION:
        # Its code is copied from where it runs, which an editable install's list of files does not name.
        _write(site / f"dgx_spark_agent-{package.version}.dist-info" / "METADATA", package.read_text("METADATA") or "")
        return
    if package.files is None:
        raise ServiceError(
            f"{package.name} was not installed by pip here, so its files are not known; run this from a venv"
        )
    for name in package.files:
        # Scripts and manuals are outside; the service has no use for them.
        if ".." not in name.parts and "__pycache__" not in name.parts:
            _copy(Path(str(package.locate_file(name))), site / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError(f"{shlex.join(command)}: {(done.stderr or done.stdout).strip()}")


# Uninstall


def uninstall(place: Place, *, purge: bool = False) -> list[Step]:
    """Return the steps that remove what `install` made; state and configuration only with ``purge``."""
    _refuse_package(place)
    environment = _installed_environment(place)
    steps = [step for name in (SOCKET, SERVICE) for step in _removal_steps(place, name)]
    if steps and place.running:
        steps.append(_systemctl_step(place, "daemon-reload"))
    if environment is not None:
        steps.append(Step(f"remove {environment}", lambda: shutil.rmtree(environment)))
    if purge:
        steps += [
            Step(f"remove {path}", partial(_remove, path)) for path in map(place.path, KEPT) if os.path.lexists(path)
        ]
    return steps


def _removal_steps(place: Place, name: str) -> Iterator[Step]:
    unit = place.unit(name)
    if not unit.is_file():
        return
    if not _is_ours(unit):
        raise ServiceError(f"{unit} is there, and `service install` did not write it; remove it yourself")
    yield _systemctl_step(
        place, *(["disable", "--now"] if place.running else [f"--root={place.root}", "disable"]), name
    )
    yield Step(f"remove {unit}", unit.unlink)


def _installed_environment(place: Place) -> Path | None:
    """Return the environment that `install` made for the installed unit, if it made one."""
    unit = place.unit(SERVICE)
    if not unit.is_file():
        return None
    started = re.search(r"^ExecStart=(\S+)/bin/spark-agent ", unit.read_text(encoding="utf-8"), re.MULTILINE)
    if started is None:
        return None
    folder = place.path(started[1].replace("%%", "%"))
    return folder if (folder / MADE_FROM).is_file() else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


# Status


@dataclass(frozen=True, slots=True)
class Standing:
    """How the service is: line by line, and how bad."""

    severity: Severity
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a daemon answered to a health check."""

    code: int
    text: str


def status(place: Place, ask: Callable[[str, str], Answer] | None = None) -> Standing:
    """Return how the service is: ok, warning when it runs but is not ready, critical when it does not run or beat."""
    ask = ask or ask_page
    properties = ("LoadState", "UnitFileState", "ActiveState", "SubState", "Result", "NRestarts", "StatusText", "UID")
    shown = place.show(SERVICE, *properties, "ActiveEnterTimestamp")
    if shown.get("LoadState") != "loaded":
        return Standing(
            Severity.UNKNOWN, (("service", "not installed; this installs it: spark-agent service install"),)
        )
    active = shown["ActiveState"] == "active"
    since = f" since {shown['ActiveEnterTimestamp']}" if active else f", last result {shown['Result']}"
    rows = [
        ("service", f"{shown['ActiveState']} ({shown['SubState']}){since}"),
        ("at boot", shown["UnitFileState"]),
        ("restarts", shown["NRestarts"]),
    ]
    if shown["StatusText"]:
        rows.append(("says", shown["StatusText"]))
    if not active:
        rows.append(("why", "journalctl --unit spark-agent --lines 20"))
        return Standing(Severity.CRITICAL, tuple(rows))
    addresses = sorted({*_listening(place, shown["UID"]), *_listening_for(place)})
    rows.append(("listening", ", ".join(addresses) or "no TCP address"))
    if not addresses:
        return Standing(Severity.OK, tuple(rows))
    severity, health = _health(_reachable(addresses), ask)
    return Standing(severity, (*rows, *health))


def _health(address: str, ask: Callable[[str, str], Answer]) -> tuple[Severity, list[tuple[str, str]]]:
    """Return how bad a daemon is by what its own pages say, and their first lines."""
    severity, rows = Severity.OK, []
    for page, otherwise in (("ready", Severity.WARNING), ("healthy", Severity.CRITICAL)):
        try:
            answer = ask(address, f"/-/{page}")
        except OSError as error:
            return Severity.CRITICAL, [(page, f"no answer from {address}: {error}")]
        if answer.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return Severity.OK, [(page, f"{address} answers, and wants a password or certificate for more")]
        rows.append((page, f"{_first_line(answer.text)} ({answer.code})"))
        if answer.code != HTTPStatus.OK:
            severity = otherwise
    return severity, rows


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]


def _listening(place: Place, uid: str) -> Iterator[str]:
    """Yield the TCP addresses on which a user listens; the service has a user of its own, so they are its."""
    for name in ("tcp", "tcp6"):
        table = place.path(f"proc/net/{name}")
        if table.exists():
            yield from parse_listening(table.read_text(encoding="ascii"), uid)


def parse_listening(text: str, uid: str) -> Iterator[str]:
    """Yield the addresses on which a user listens, from ``/proc/net/tcp`` or ``tcp6``: proc_net(5)."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        local, state, owner = fields[1], fields[3], fields[7]
        if state == "0A" and owner == uid:
            address, port = local.split(":")
            # Words of 32 bits, each in the processor's byte order; both of ours are little-endian.
            raw = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
            yield _shown(ip_address(raw), int(port, 16))


def _listening_for(place: Place) -> Iterator[str]:
    """Yield the TCP addresses on which systemd listens for the service."""
    shown = place.show(SOCKET, "ActiveState", "Listen")
    if shown.get("ActiveState") == "active":
        for line in shown["Listen"].splitlines():
            address = line.removesuffix(" (Stream)")
            if not address.startswith("/"):
                yield address


def _shown(address: IPv4Address | IPv6Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _reachable(addresses: list[str]) -> str:
    """Return the address to ask: one of loopback where there is one."""
    local = [address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]") for address in addresses]  # noqa: S104
    return next((address for address in local if address.startswith(("127.", "[::1]"))), local[0])


def ask_page(address: str, page: str) -> Answer:
    """Ask a daemon for a page; it may speak HTTP or HTTPS."""
    answer = None
    with suppress(http.client.HTTPException, ConnectionResetError, BrokenPipeError):
        answer = _get(http.client.HTTPConnection(address, timeout=ANSWER_SECONDS), page)
    # Where TLS is spoken, HTTP is hung up on or a bad request.
    if answer and answer.code != HTTPStatus.BAD_REQUEST:
        return answer
    # Whether it lives is the question, on this machine; its certificate names another address.
    context = ssl._create_unverified_context()  # noqa: S323, SLF001
    try:
        return _get(http.client.HTTPSConnection(address, timeout=ANSWER_SECONDS, context=context), page)
    except (http.client.HTTPException, OSError) as error:
        if isinstance(error, ssl.SSLError) and "CERTIFICATE" in (error.reason or ""):
            return Answer(HTTPStatus.UNAUTHORIZED, "wants a client certificate")
        if answer:
            return answer
        raise OSError(str(error)) from error


def _get(connection: http.client.HTTPConnection, page: str) -> Answer:
    try:
        connection.request("GET", page)
        response = connection.getresponse()
        return Answer(response.status, response.read(4096).decode(errors="replace"))
    finally:
        connection.close()


# Who may


def needs_root(arguments: list[str]) -> None:
    """Refuse whoever is not root, with the line that helps."""
    if os.geteuid():
        command = shlex.join([str(Path(sys.prefix, "bin", "spark-agent")), *arguments])
        raise ServiceError(f"a system's service is root's to change; this helps: sudo {command}")


def needs_systemd() -> None:
    """Refuse a machine on which systemd does not run."""
    # sd_booted(3) looks at the same.
    if not Path("/run/systemd/system").is_dir():
        raise ServiceError("systemd does not run here (no /run/systemd/system); --root FOLDER writes the files only")
