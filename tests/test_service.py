"""`spark-agent service`: what is installed, what a second run does, what is left alone, and what status says."""

import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import trustme
from pytest_mock import MockerFixture

from spark_agent.agent import cli, service
from spark_agent.agent.health import Severity
from spark_agent.agent.service import SERVICE, SOCKET, Answer, Place, ServiceError, Step

OPT = Path("/opt/spark-agent")


class Systemd:
    """What systemctl says and does, as far as `service` asks: units are files, and are enabled and active or not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.enabled: set[str] = set()
        self.active: set[str] = set()
        self.log: list[str] = []
        self.properties: dict[str, str] = {}

    def __call__(self, *arguments: str) -> str:
        """Run systemctl."""
        verb, *rest = [argument for argument in arguments if not argument.startswith("--")]
        if verb == "show":
            return self._show(rest[0])
        self.log.append(" ".join(arguments))
        units = set(rest)
        if verb == "enable":
            self.enabled |= units
        elif verb == "start":
            self.active |= units
        elif verb == "stop":
            self.active -= units
        elif verb == "disable":
            self.enabled -= units
            self.active -= units if "--now" in arguments else set()
        return ""

    def _show(self, unit: str) -> str:
        there = (self.root / "etc/systemd/system" / unit).is_file()
        shown = {
            "LoadState": "loaded" if there else "not-found",
            "UnitFileState": ("enabled" if unit in self.enabled else "disabled") if there else "",
            "ActiveState": "active" if unit in self.active else "inactive",
            "SubState": "running" if unit in self.active else "dead",
            "Result": "success",
            "NRestarts": "0",
            "StatusText": "",
            "UID": "62062",
            "Listen": "127.0.0.1:10240 (Stream)\nListen=/run/spark-agent/http.sock (Stream)",
            "ActiveEnterTimestamp": "Sun 2026-11-22 02:26:39 UTC",
        }
        return "".join(f"{name}={value}\n" for name, value in (shown | self.properties).items())


@pytest.fixture
def systemd(tmp_path: Path) -> Systemd:
    """Return a systemd of a system below a folder."""
    return Systemd(tmp_path)


@pytest.fixture
def place(tmp_path: Path, systemd: Systemd) -> Place:
    """Return a running system below a folder."""
    return Place(tmp_path, running=True, systemctl=systemd)


@pytest.fixture
def running_from_opt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the command run from an environment that the service can see: nothing is copied then."""
    monkeypatch.setattr(service, "_running_environment", lambda _: [])
    monkeypatch.setattr(sys, "prefix", str(OPT))
    return tmp_path


def carry_out(steps: list[Step]) -> list[str]:
    """Do what is to be done, and return how it was told."""
    for step in steps:
        step.do()
    return [step.says for step in steps]


@pytest.mark.usefixtures("running_from_opt")
def test_install_and_again(place: Place, systemd: Systemd) -> None:
    """The first run writes, enables and starts; the second finds nothing to do."""
    unit = place.unit(SERVICE)

    assert [
        f"write {unit}",
        "systemctl daemon-reload",
        f"systemctl enable {SERVICE}",
        f"systemctl start {SERVICE}",
    ] == carry_out(service.install(place))
    assert f"\nExecStart={OPT}/bin/spark-agent serve\n" in unit.read_text()
    assert [] == service.install(place)
    assert ({SERVICE}, {SERVICE}) == (systemd.enabled, systemd.active)


@pytest.mark.usefixtures("running_from_opt")
def test_a_dry_run_does_nothing(place: Place, systemd: Systemd, tmp_path: Path) -> None:
    """To plan is to look: no file is written, and systemd is asked only."""
    assert service.install(place)
    assert service.install(place, socket=True)

    assert [] == list(tmp_path.iterdir())
    assert [] == systemd.log


@pytest.mark.usefixtures("running_from_opt")
def test_a_changed_unit_restarts(place: Place) -> None:
    """A unit of an earlier version is rewritten, and the daemon then runs what is there now."""
    carry_out(service.install(place))
    unit = place.unit(SERVICE)
    unit.write_text(unit.read_text().replace("WatchdogSec=15s", "WatchdogSec=90s"))

    assert [
        f"rewrite {unit}",
        "systemctl daemon-reload",
        f"systemctl stop {SERVICE}",
        f"systemctl start {SERVICE}",
    ] == carry_out(service.install(place))


@pytest.mark.usefixtures("running_from_opt")
def test_installed_and_not_started(place: Place, systemd: Systemd) -> None:
    """With --no-start the unit is enabled and stays as it is; a later run starts it and nothing else."""
    carry_out(service.install(place, start=False))

    assert ({SERVICE}, set()) == (systemd.enabled, systemd.active)
    assert [f"systemctl start {SERVICE}"] == carry_out(service.install(place))


@pytest.mark.usefixtures("running_from_opt")
def test_socket_comes_and_goes(place: Place, systemd: Systemd) -> None:
    """The socket is had before the daemon starts, which must not hold the port itself; without --socket it goes."""
    carry_out(service.install(place))
    systemd.log.clear()
    carry_out(service.install(place, socket=True))

    assert [
        "daemon-reload",
        f"stop {SERVICE}",
        f"enable {SOCKET}",
        f"start {SOCKET}",
        f"start {SERVICE}",
    ] == systemd.log
    assert [] == service.install(place, socket=True)
    carry_out(service.install(place))
    assert not place.unit(SOCKET).exists()
    assert ({SERVICE}, {SERVICE}) == (systemd.enabled, systemd.active)


@pytest.mark.usefixtures("running_from_opt")
def test_somebody_elses_unit(place: Place) -> None:
    """A unit that install did not write is neither replaced nor removed."""
    unit = place.unit(SERVICE)
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n")

    with pytest.raises(ServiceError, match="did not write it"):
        service.install(place)
    with pytest.raises(ServiceError, match="did not write it"):
        service.uninstall(place)
    assert "[Service]\nExecStart=/bin/true\n" == unit.read_text()


@pytest.mark.usefixtures("running_from_opt")
def test_the_packages_unit(place: Place) -> None:
    """Where the Debian package is, install does not cover its unit with another."""
    unit = place.path(f"usr/lib/systemd/system/{SERVICE}")
    unit.parent.mkdir(parents=True)
    unit.touch()

    with pytest.raises(ServiceError, match="sudo systemctl enable --now spark-agent"):
        service.install(place)


@pytest.mark.usefixtures("running_from_opt")
def test_uninstall_leaves_no_trace(place: Place, systemd: Systemd, tmp_path: Path) -> None:
    """Everything that install made goes; state, configuration and drop-ins stay until they are asked for."""
    carry_out(service.install(place, socket=True))
    kept = [place.path(name) for name in ("var/lib/private/spark-agent/x", "etc/spark-agent/x")]
    for path in kept:
        path.parent.mkdir(parents=True)
        path.touch()
    place.path("var/lib/spark-agent").symlink_to("private/spark-agent")
    carry_out(service.uninstall(place))

    assert set(kept) == {path for path in tmp_path.rglob("*") if path.is_file()}
    assert (set(), set()) == (systemd.enabled, systemd.active)
    assert [] == service.uninstall(place)
    carry_out(service.uninstall(place, purge=True))
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()]


@pytest.mark.usefixtures("running_from_opt")
def test_a_tree_below_a_root(tmp_path: Path) -> None:
    """For an image only files are written, and systemctl works on these alone."""
    systemd = Systemd(tmp_path)
    place = Place(tmp_path, running=False, systemctl=systemd)
    steps = carry_out(service.install(place, socket=True))

    assert f"systemctl --root={tmp_path} enable {SERVICE} {SOCKET}" == steps[-1]
    assert [f"--root={tmp_path} enable {SERVICE} {SOCKET}"] == systemd.log


@pytest.mark.parametrize("folder", [f"{hidden}/venv" for hidden in service.HIDDEN])
def test_a_hidden_environment(place: Place, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ProtectHome and PrivateTmp hide cannot be started; the message says what can."""
    monkeypatch.setattr(sys, "prefix", folder)

    with pytest.raises(ServiceError, match="--venv /opt/spark-agent"):
        service.install(place)
    with pytest.raises(ServiceError, match="--venv /opt/spark-agent"):
        service.install(place, venv=Path(folder))


def test_a_link_into_home(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a path leads is what counts, not how it is spelt."""
    (tmp_path / "venv").symlink_to("/home/me/.venv")
    monkeypatch.setattr(service, "HIDDEN", ("/home",))

    with pytest.raises(ServiceError, match="is below /home"):
        service.install(place, venv=tmp_path / "venv")


@pytest.mark.parametrize("folder", ["/opt/my agent", "/opt/$HOME", "/opt/a'b", '/opt/a"b', "/opt/a\\b", "/opt/a\nb"])
def test_a_path_that_units_cannot_name(place: Place, folder: str) -> None:
    """A path with blanks, quotes or variables is refused instead of escaped three times."""
    with pytest.raises(ServiceError, match="without blanks"):
        service.install(place, venv=Path(folder))


def test_a_percent_sign() -> None:
    """A per cent sign begins a specifier in a unit, so it is doubled there."""
    assert "\nExecStart=/opt/100%%/bin/spark-agent serve\n" in service.unit_text(
        SERVICE, Path("/opt/100%/bin/spark-agent")
    )


def test_a_closed_environment(tmp_path: Path) -> None:
    """The service's user must be able to walk to the program."""
    program = tmp_path / "closed" / "bin" / "spark-agent"
    program.parent.mkdir(parents=True)
    program.touch()
    (tmp_path / "closed").chmod(0o700)

    with pytest.raises(ServiceError, match=f"chmod o\\+rx {tmp_path / 'closed'}"):
        service._refuse_closed(program)


def test_no_command_here(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run from a checkout that is not installed there is no command to start."""
    monkeypatch.setattr(sys, "prefix", "/opt/nothing")

    with pytest.raises(ServiceError, match="no /opt/nothing/bin/spark-agent"):
        service.install(place)


# An environment of its own


@pytest.fixture
def system_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this Python count as the system's, wherever it is; skip where the project is not installed for it."""
    try:
        distribution(service.DISTRIBUTION)
    except PackageNotFoundError:
        pytest.skip("the project is not installed here, so there is nothing to install from")
    monkeypatch.setattr(service, "_system_python", lambda: Path(sys.base_prefix, "bin", service.PYTHON))


@pytest.mark.once
@pytest.mark.usefixtures("system_python")
def test_an_environment_of_its_own(tmp_path: Path) -> None:
    """Offline, from what runs here: it works alone, others can read it, and a second run changes nothing."""
    place = Place(tmp_path, running=False, systemctl=Systemd(tmp_path))
    umask = os.umask(0o077)
    try:
        carry_out(service.install(place, venv=OPT))
    finally:
        os.umask(umask)
    folder = place.path(OPT)
    script = folder / "bin" / "spark-agent"
    done = subprocess.run(
        [folder / "bin" / "python", "-I", script, "--demo", "fe-gemm", "snapshot", "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert ("", True) == (done.stderr, '"fe-gemm"' in done.stdout)
    assert f"#!{OPT}/bin/python" == script.read_text().splitlines()[0]
    closed = [path for path in (folder, *folder.rglob("*")) if not path.stat().st_mode & stat.S_IROTH]
    assert [] == closed
    (place.path("etc/systemd/system/multi-user.target.wants")).mkdir()
    (place.path("etc/systemd/system/multi-user.target.wants") / SERVICE).symlink_to(place.unit(SERVICE))
    assert [] == service.install(place, venv=OPT)


@pytest.mark.once
@pytest.mark.usefixtures("system_python")
def test_an_environment_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other code makes another environment in the same place, and the old one is gone; uninstall removes it."""
    place = Place(tmp_path, running=False, systemctl=Systemd(tmp_path))
    carry_out(service.install(place, venv=OPT))
    (place.path(OPT) / "old").touch()
    monkeypatch.setattr(service, "_digest", lambda: "other code")
    (says, *_) = carry_out(service.install(place, venv=OPT))

    assert says.startswith(f"renew {place.path(OPT)}: ")
    assert not (place.path(OPT) / "old").exists()
    carry_out(service.uninstall(place))
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_with_something_in_it(place: Place) -> None:
    """A folder that install did not make is not made an environment."""
    place.path(OPT).mkdir(parents=True)
    (place.path(OPT) / "letters").touch()

    with pytest.raises(ServiceError, match="did not make it"):
        service.install(place, venv=OPT)


def test_no_system_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only a Python below a home is there, the message names the one to install."""
    monkeypatch.setattr(service, "HIDDEN", ("/",))

    with pytest.raises(ServiceError, match=f"apt-get install python3.{sys.version_info.minor}"):
        service._system_python()


# Who may


def test_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not root gets the line to type, quoted for a shell."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(ServiceError, match=r"sudo \S+/bin/spark-agent service install --venv '/opt/a b'$"):
        service.needs_root(["service", "install", "--venv", "/opt/a b"])


# The command line


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return what runs a command: exit code, output and complaints."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spark-agent", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.mark.usefixtures("running_from_opt")
def test_a_dry_run_on_screen(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """A dry run needs no root, says each step, and leaves nothing."""
    code, out, err = command("service", "install", "--root", tmp_path, "--dry-run")

    assert (0, "") == (code, err)
    assert [
        f"would write {tmp_path}/etc/systemd/system/{SERVICE}",
        f"would systemctl --root={tmp_path} enable {SERVICE}",
    ] == out.splitlines()
    assert [] == list(tmp_path.iterdir())


def test_nothing_to_uninstall(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """Uninstall where nothing is installed is no error, and says so."""
    assert (0, "nothing to do: the service is not installed\n", "") == command(
        "service", "uninstall", "--root", tmp_path
    )


def test_what_is_in_the_way(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the way is one line, and the state is unknown."""
    monkeypatch.setattr(sys, "prefix", "/root/venv")
    code, out, err = command("service", "install", "--root", tmp_path)

    assert (3, "") == (code, out)
    assert err.startswith("spark-agent: /root/venv/bin/spark-agent is below /root, which")
    assert 1 == err.count("\n")


def test_no_service_of_a_recording(command: Callable[..., tuple[int, str, str]]) -> None:
    """A recorded machine has no service."""
    code, _, err = command("--demo", "fe-gemm", "service", "status")

    assert 64 == code
    assert "--machine and --demo do nothing here" in err


@pytest.mark.parametrize("severity", [Severity.OK, Severity.WARNING, Severity.CRITICAL, Severity.UNKNOWN])
def test_status_ends_as_monitoring_plugins_do(
    command: Callable[..., tuple[int, str, str]], severity: Severity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is how bad it is; the lines are aligned."""
    monkeypatch.setattr(service, "needs_systemd", lambda: None)
    monkeypatch.setattr(service, "status", lambda _: service.Standing(severity, (("at boot", "enabled"),)))

    assert (severity.exit_code, "at boot     enabled\n", "") == command("service", "status")


# Status


def well(address: str, page: str) -> Answer:
    """Answer as a daemon that is well."""
    return Answer(200, f"asked at {address} for {page}\nmore\n")


@pytest.fixture
def installed(place: Place, running_from_opt: Path) -> Place:  # noqa: ARG001  (what it patches is used)
    """Return a system on which the service runs and listens."""
    carry_out(service.install(place))
    table = place.path("proc/net/tcp")
    table.parent.mkdir(parents=True)
    table.write_text(TCP)
    return place


#: A daemon's port on loopback (user 62062), its connection to a scraper, and another user's port on every interface.
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2800 00000000:0000 0A 00000000:00000000 00:00000000 00000000 62062        0 20751 1 0000 100 0 0 10 0
   1: 0100007F:2800 0100007F:C350 01 00000000:00000000 00:00000000 00000000 62062        0 20752 1 0000 100 0 0 10 0
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1 0000 100 0 0 10 0
"""


def test_all_is_well(installed: Place) -> None:
    """Active and ready is ok; where it listens and what it answered are shown."""
    standing = service.status(installed, well)

    assert Severity.OK == standing.severity
    assert {
        "service": "active (running) since Sun 2026-11-22 02:26:39 UTC",
        "at boot": "enabled",
        "restarts": "0",
        "listening": "127.0.0.1:10240",
        "ready": "asked at 127.0.0.1:10240 for /-/ready (200)",
        "healthy": "asked at 127.0.0.1:10240 for /-/healthy (200)",
    } == dict(standing.rows)


@pytest.mark.parametrize(
    ("answers", "severity", "says"),
    [
        ({"/-/ready": Answer(503, "no report yet\nmore")}, Severity.WARNING, "no report yet (503)"),
        (
            {"/-/ready": Answer(503, "no beat"), "/-/healthy": Answer(503, "no beat for 20 s")},
            Severity.CRITICAL,
            "no beat (503)",
        ),
        ({"/-/ready": Answer(401, "")}, Severity.OK, "127.0.0.1:10240 answers, and wants a password or certificate"),
        ({"/-/ready": ConnectionRefusedError(111, "refused")}, Severity.CRITICAL, "no answer from 127.0.0.1:10240"),
        ({"/-/ready": TimeoutError("timed out")}, Severity.CRITICAL, "no answer from 127.0.0.1:10240: timed out"),
    ],
    ids=["not ready", "no beat", "password", "refused", "timeout"],
)
def test_it_runs_but(installed: Place, answers: dict[str, Answer | OSError], severity: Severity, says: str) -> None:
    """A daemon that runs is asked as well: systemd cannot know whether its page tells the truth."""

    def ask(address: str, page: str) -> Answer:
        answer = answers.get(page, well(address, page))
        if isinstance(answer, OSError):
            raise answer
        return answer

    standing = service.status(installed, ask)

    assert severity == standing.severity
    assert dict(standing.rows)["ready"].startswith(says)


def test_it_does_not_run(installed: Place, systemd: Systemd) -> None:
    """A service that is down is critical, is not asked, and points to its log."""
    systemd.active.clear()
    systemd.properties = {"ActiveState": "failed", "SubState": "failed", "Result": "watchdog", "NRestarts": "3"}
    standing = service.status(installed, lambda *_: pytest.fail("asked"))

    assert Severity.CRITICAL == standing.severity
    assert ("service", "failed (failed), last result watchdog") == standing.rows[0]
    assert ("why", "journalctl --unit spark-agent --lines 20") == standing.rows[-1]


def test_it_is_not_installed(place: Place) -> None:
    """What is not there is unknown, not down."""
    assert Severity.UNKNOWN == service.status(place, well).severity


def test_systemd_listens(installed: Place, systemd: Systemd) -> None:
    """With socket activation the address is systemd's; unix sockets are not asked."""
    installed.path("proc/net/tcp").write_text(TCP.splitlines()[0] + "\n")
    systemd.active.add(SOCKET)

    assert "127.0.0.1:10240" == dict(service.status(installed, well).rows)["listening"]


def test_no_port_at_all(installed: Place) -> None:
    """A daemon with a unix socket alone is not asked, and that is no fault."""
    installed.path("proc/net/tcp").write_text(TCP.splitlines()[0] + "\n")
    standing = service.status(installed, lambda *_: pytest.fail("asked"))

    assert (Severity.OK, "no TCP address") == (standing.severity, dict(standing.rows)["listening"])


@pytest.mark.parametrize(
    ("local", "shown"),
    [
        ("0100007F:2800", "127.0.0.1:10240"),
        ("00000000:0050", "0.0.0.0:80"),
        ("00000000000000000000000001000000:2800", "[::1]:10240"),
        ("B80D0120000000000000000001000000:2800", "[2001:db8::1]:10240"),
    ],
)
def test_addresses_as_the_kernel_writes_them(local: str, shown: str) -> None:
    """Each word of 32 bits is in the processor's byte order."""
    line = f"   0: {local} 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1 0 1 1 0 100 0 0 10 0"

    assert [shown] == list(service.parse_listening(f"header\n{line}\n", "1"))


def test_this_machines_own_table() -> None:
    """The kernel's own table is read: a port that listens here is found under our user."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        shown = list(service.parse_listening(Path("/proc/self/net/tcp").read_text(), str(os.getuid())))

    assert f"{host}:{port}" in shown


@pytest.mark.parametrize(
    ("addresses", "asked"),
    [
        (["10.0.0.1:1", "127.0.0.1:2"], "127.0.0.1:2"),
        (["0.0.0.0:1"], "127.0.0.1:1"),
        (["[::]:1"], "[::1]:1"),
        (["10.0.0.1:1"], "10.0.0.1:1"),
    ],
    ids=str,
)
def test_loopback_is_asked(addresses: list[str], asked: str) -> None:
    """Of several addresses that of loopback is asked; every interface includes it."""
    assert asked == service._reachable(addresses)


class Page(BaseHTTPRequestHandler):
    """A daemon's health page."""

    code = 503

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(self.code if self.path == "/-/ready" else 404)
        self.end_headers()
        self.wfile.write(b"no report yet\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[ssl.SSLContext | None], str]]:
    """Serve the page in the background, plain or secure, and return the address."""
    servers: list[tuple[HTTPServer, threading.Thread]] = []

    def start(context: ssl.SSLContext | None) -> str:
        server = HTTPServer(("127.0.0.1", 0), Page)
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_asking(serve: Callable[[ssl.SSLContext | None], str], secure: bool) -> None:
    """The health page is asked over HTTP, and over HTTPS where that is what is spoken, whatever the certificate."""
    context = None
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("spark.example").configure_cert(context)

    assert Answer(503, "no report yet\n") == service.ask_page(serve(context), "/-/ready")


def test_asking_who_wants_a_certificate() -> None:
    """A daemon that asks its clients for a certificate lives, and that is all that there is to know."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("spark.example").configure_cert(context)

    def refuse(server: socket.socket) -> None:
        server.accept()[0].close()
        connection = server.accept()[0]
        # Closed with something unread, a connection is reset, and the alert may be lost.
        with connection.dup() as raw:
            with suppress(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)
            while raw.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse, args=(server,))
        thread.start()
        answer = service.ask_page(f"127.0.0.1:{server.getsockname()[1]}", "/-/ready")
        thread.join()

    assert 401 == answer.code


def test_asking_who_may_mean_tls(serve: Callable[[ssl.SSLContext | None], str], mocker: MockerFixture) -> None:
    """A bad request may mean that TLS is spoken there; where it is not, that was the answer."""
    mocker.patch.object(Page, "code", 400)

    assert Answer(400, "no report yet\n") == service.ask_page(serve(None), "/-/ready")


def test_asking_who_hangs_up() -> None:
    """What speaks neither is no answer, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            for _ in range(2):
                server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(OSError, match=r"."):
            service.ask_page(f"127.0.0.1:{server.getsockname()[1]}", "/-/ready")
        thread.join()
