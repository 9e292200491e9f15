"""A minute in which a real Prometheus scrapes real daemons: lived through once, and then asked about."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest
from daemon import Daemon
from prometheus.server import Prometheus, job, relay_of_text
from rigs import metronome, running, until
from web.serving import write_certificates

from spark_agent.exporters.textfile import FILE

_PASSWORD = "open sesame"  # noqa: S105  (of a server that lives for a minute)

#: Scrapes that each job gets: one a second.
SCRAPES = 60


@pytest.fixture(scope="module")
def minute(rig: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Have four daemons scraped for a minute, and return the Prometheus that did it.

    Jobs: ``steady``, and ``text``, which is the same daemon in the text format; ``restarted``, which is stopped after
    a third of the time and killed after another; ``secure`` by TLS and password, ``stranger`` with a wrong one; and
    ``textfile``, which is node_exporter with the file that the secure one writes.
    """
    prometheus, node_exporter = rig("PROMETHEUS"), rig("NODE_EXPORTER")

    def folder(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    textfiles, certificates = folder("textfiles"), folder("certificates")
    with ExitStack() as stack:
        stalls = stack.enter_context(metronome(folder("metronome")))
        steady = stack.enter_context(Daemon(folder("steady"), f"--state.directory={folder('state')}"))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        restarted = stack.enter_context(
            Daemon(
                folder("restarted"),
                f"--state.directory={folder('kept')}",
                # Four seconds of the machine's to a beat: time at a limit is soon there to be counted.
                "--speed=4",
                listener=listener,
            )
        )
        flags = (f"--web.config.file={_web_config(certificates)}", f"--textfile={textfiles}", "--textfile.interval=1")
        secure = stack.enter_context(Daemon(folder("secure"), *flags))
        collector = stack.enter_context(
            running(
                folder("node_exporter"),
                node_exporter,
                "--collector.disable-defaults",
                "--collector.textfile",
                f"--collector.textfile.directory={textfiles}",
            )
        )
        until((textfiles / FILE).exists)
        tls = {"scheme": "https", "tls_config": {"ca_file": str(certificates / "ca.crt")}}
        server = stack.enter_context(
            Prometheus.scraping(
                prometheus,
                folder("prometheus"),
                [
                    job("steady", steady.port),
                    job("text", stack.enter_context(relay_of_text(steady.port))),
                    job("restarted", restarted.port),
                    job("secure", secure.port, **tls, basic_auth={"username": "prometheus", "password": _PASSWORD}),
                    job("stranger", secure.port, **tls, basic_auth={"username": "prometheus", "password": "a guess"}),
                    job("textfile", collector.port),
                ],
            )
        )
        until(lambda: server.scrapes("restarted") >= SCRAPES / 3)
        assert 0 == restarted.stop(signal.SIGTERM), restarted.log
        restarted.start()
        until(lambda: server.scrapes("restarted") >= SCRAPES * 2 / 3)
        restarted.stop(signal.SIGKILL)
        restarted.start()
        for name in ("steady", "text", "restarted", "secure", "textfile"):
            until(lambda name=name: server.scrapes(name) >= SCRAPES)  # type: ignore[misc]  # mypy infers no default's type
        # Scraping goes on; what is asked is to be of one moment, and of scrapes that are done.
        yield replace(server, at=time.time() - 2, stalls=stalls())


def _web_config(folder: Path) -> Path:
    write_certificates(folder)
    # As dear as exporter-toolkit's own examples; its verdict is remembered.
    hashed = bcrypt.hashpw(_PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    path = folder / "web.yml"
    path.write_text(
        "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"
        f"basic_auth_users: {{prometheus: '{hashed}'}}\n"
    )
    return path
