"""A server that runs in a thread of its own, and clients that speak in bytes: for tests of what is said on the wire."""

import asyncio
import contextlib
import functools
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import trustme

from spark_agent.agent.config import parse_address
from spark_agent.exporters.http import PLAIN, Handler, Limits, Request, Response, Server
from spark_agent.exporters.listeners import listen
from spark_agent.exporters.web_config import WebConfig

#: Seconds after which a test gives up: no bound on what is tested, only on a test that hangs.
PATIENCE = 10.0

LOOPBACK = ("127.0.0.1:0",)


def hello(_: Request) -> Response:
    """Answer anything with two words."""
    return Response(200, PLAIN, b"hello you\n")


class Served:
    """A server on loopback, for the time of a ``with``."""

    def __init__(
        self,
        handler: Handler = hello,
        web_config: WebConfig | None = None,
        limits: Limits | None = None,
        addresses: Iterable[str] = LOOPBACK,
        listeners: Sequence[socket.socket] | None = None,
    ) -> None:
        self.server = Server(handler, web_config, limits)
        self._listeners = listeners if listeners is not None else listen(parse_address(one) for one in addresses)
        self._started, self._over = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="served")
        #: What nobody caught.
        self.faults: list[Any] = []

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        await self.server.start(self._listeners)
        self.addresses = self.server.addresses
        self._started.set()
        await self._over.wait()
        await self.server.stop(0.0)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        assert [] == self.faults

    @property
    def port(self) -> int:
        """The first address's port."""
        return int(self.addresses[0].rpartition(":")[2])

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so, as the server's own thread sees it."""

        async def wait() -> None:
            while not is_so():
                await asyncio.sleep(0.002)

        asyncio.run_coroutine_threadsafe(asyncio.wait_for(wait(), PATIENCE), self.loop).result(PATIENCE)

    def stop(self, grace_seconds: float) -> None:
        """Stop gracefully, and return when that is done."""
        asyncio.run_coroutine_threadsafe(self.server.stop(grace_seconds), self.loop).result(PATIENCE)

    def connect(self) -> socket.socket:
        """Return a new connection; the caller closes it."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def say(self, content: bytes) -> bytes:
        """Say something and no more, and return all that is answered."""
        with self.connect() as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(content)
                client.shutdown(socket.SHUT_WR)
            return everything(client)

    def get(self, path: str = "/", *headers: str, method: str = "GET") -> bytes:
        """Ask for one page, and return the whole answer."""
        return self.say(request(path, *headers, "Connection: close", method=method))

    @contextlib.contextmanager
    def tls(self, client: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
        """Connect by TLS."""
        with self.connect() as plain, client.wrap_socket(plain, server_hostname="localhost") as wrapped:
            yield wrapped


def request(path: str = "/", *headers: str, method: str = "GET") -> bytes:
    """Return a request as bytes."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


def everything(client: socket.socket) -> bytes:
    """Read until the other side closes."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def one_response(client: socket.socket) -> bytes:
    """Read one response with a Content-Length."""
    content = b""
    while b"\r\n\r\n" not in content:
        content += _more(client)
    head, _, body = content.partition(b"\r\n\r\n")
    while len(body) < int(header(content, "Content-Length")):
        body += _more(client)
    return head + b"\r\n\r\n" + body


def _more(client: socket.socket) -> bytes:
    part = client.recv(65536)
    assert part, "closed in the middle of a response"
    return part


def status(answer: bytes) -> int:
    """Return an answer's status; 0 for none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


def body(answer: bytes) -> str:
    """Return an answer's body."""
    return answer.partition(b"\r\n\r\n")[2].decode()


def header(answer: bytes, name: str) -> str:
    """Return a header's value; empty where there is none."""
    for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.decode().lower() == name.lower():
            return value.decode().strip()
    return ""


def hung_up(client: socket.socket) -> None:
    """Wait until the other side has dropped this connection, without reading from it."""
    poll = select.poll()
    poll.register(client, 0)
    assert poll.poll(PATIENCE * 1000), "still connected"


# --- certificates -----------------------------------------------------------------------------------------------------


@functools.cache
def authority() -> trustme.CA:
    """Return an authority that the tests' clients trust."""
    return trustme.CA()


@functools.cache
def server_certificate(key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> trustme.LeafCert:
    """Return a certificate for localhost."""
    return authority().issue_cert("localhost", "127.0.0.1", key_type=key_type)


def write_certificates(folder: Path, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
    """Write server.crt, server.key and ca.crt."""
    certificate = server_certificate(key_type)
    (folder / "server.crt").write_bytes(b"".join(one.bytes() for one in certificate.cert_chain_pems))
    (folder / "server.key").write_bytes(certificate.private_key_pem.bytes())
    (folder / "ca.crt").write_bytes(authority().cert_pem.bytes())


def trusting_client(certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """Return the TLS side of a client that trusts our authority, and may show a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context
