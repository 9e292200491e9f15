"""A small HTTP/1.1 server for pages that are read: GET and HEAD, and nothing that a client does can take it down.

One event loop in one thread; h11 parses. Every wait for a client has a deadline and every buffer a bound. When all
connections are taken, the one that has kept us waiting longest makes room, so that who asks honestly is always served.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import h11

from spark_agent.exporters.listeners import address_of
from spark_agent.exporters.web_config import OPEN, Policy, Tls, Users, WebConfig

log = logging.getLogger(__name__)

PLAIN: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked. The path is decoded; the names of headers are in lower case."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    status: int
    content_type: str
    body: bytes
    headers: Sequence[tuple[str, str]] = ()


def plain(status: int, text: str, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """Return a line of text as a response."""
    return Response(status, PLAIN, f"{text}\n".encode(), headers)


#: What takes more than a moment: done in a thread of its own, one after the other, while others are served.
Work = Callable[[], Response]
#: Answers at once, or says what has to be done for an answer. Called in the event loop.
Handler = Callable[[Request], Response | Work]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may take: connections, bytes, and seconds for each thing that it is waited for."""

    connections: int = 256
    header_bytes: int = 16 * 1024
    header_seconds: float = 10.0
    handshake_seconds: float = 5.0
    idle_seconds: float = 60.0
    write_seconds: float = 30.0
    #: How long a refused client may go on talking, so that it reads why before the connection is reset.
    linger_seconds: float = 2.0
    linger_bytes: int = 4 * 1024 * 1024
    #: Passwords that wait to be checked; who comes on top of them is to come back later.
    passwords: int = 16


# --- the server -------------------------------------------------------------------------------------------------------


class Server:
    """Answers by a handler, under a web configuration that is looked at anew for each request."""

    def __init__(self, handler: Handler, web_config: WebConfig | None = None, limits: Limits | None = None) -> None:
        self.handler = handler
        #: May be replaced while the server runs; what comes next is answered under the new one.
        self.web_config = web_config
        self.limits = limits or Limits()
        self.is_stopping = False
        self._servers: list[asyncio.Server] = []
        self._listeners: list[socket.socket] = []
        self._connections: set[_Connection] = set()
        self._all_gone = asyncio.Event()
        # One thread renders, another checks passwords: neither can hold up the loop, nor one the other.
        self._renderer = ThreadPoolExecutor(1, "http-render")
        self._doorman = ThreadPoolExecutor(1, "http-password")
        self._passwords = 0
        # Filled and emptied within one callback, so that one is enough for all.
        self.buffer = memoryview(bytearray(_READ_BYTES))

    @property
    def addresses(self) -> list[str]:
        """Where it listens, with the ports that were given."""
        return [str(address_of(listener)) for listener in self._listeners]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def policy(self) -> Policy:
        """What applies now."""
        return self.web_config.policy if self.web_config else OPEN

    async def start(self, listeners: Iterable[socket.socket]) -> None:
        """Serve on sockets that listen; they are the server's from now on."""
        loop = asyncio.get_running_loop()
        for listener in listeners:
            self._listeners.append(listener)
            listener.setblocking(False)
            self._servers.append(await loop.create_server(lambda: _Connection(self, loop), sock=listener))

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Take no more connections, finish what is being answered, and close; after the grace, at once."""
        self.is_stopping = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.finish()
        if self._connections:
            try:
                await asyncio.wait_for(self._all_gone.wait(), grace_seconds)
            except TimeoutError:
                for connection in list(self._connections):
                    connection.abort()
                await asyncio.sleep(0)
        self._renderer.shutdown(wait=False, cancel_futures=True)
        self._doorman.shutdown(wait=False, cancel_futures=True)

    # What connections tell the server.

    def admit(self, connection: "_Connection") -> None:
        """Count a connection in; where there are too many, the one that has kept us waiting longest goes."""
        self._connections.add(connection)
        if len(self._connections) > self.limits.connections:
            waiting = [one for one in self._connections if one.is_waiting and one is not connection]
            last = min(waiting, key=lambda one: one.since, default=connection)
            log.debug("too many connections: closing the one that was idle or slow for longest")
            last.abort()
            self._connections.discard(last)

    def part(self, connection: "_Connection") -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        if self.is_stopping and not self._connections:
            self._all_gone.set()

    def answer(self, request: Request) -> Response | Work:
        """Return the handler's answer; a fault of ours is one line in the log, and no more than that to the client."""
        try:
            return self.handler(request)
        except Exception as error:  # noqa: BLE001  (the boundary: one page must not end the server)
            return self._fault(request, error)

    def render(self, request: Request, work: Work) -> "asyncio.Future[Response]":
        """Do what takes more than a moment in the thread for it."""

        def guarded() -> Response:
            try:
                return work()
            except Exception as error:  # noqa: BLE001  (the boundary: one page must not end the server)
                return self._fault(request, error)

        return asyncio.get_running_loop().run_in_executor(self._renderer, guarded)

    def judge(self, users: Users, authorization: str) -> "asyncio.Future[bool] | None":
        """Have a password checked in the thread for it; nothing where too many are waiting already."""
        if self._passwords >= self.limits.passwords:
            return None
        self._passwords += 1
        judged = asyncio.get_running_loop().run_in_executor(self._doorman, self._verdict, users, authorization)
        judged.add_done_callback(self._judged)
        return judged

    @staticmethod
    def _verdict(users: Users, authorization: str) -> bool:
        # It may have been told while this one waited: several clients often come with one password.
        verdict = users.verdict(authorization)
        return users.judge(authorization) if verdict is None else verdict

    def _judged(self, _: "asyncio.Future[bool]") -> None:
        self._passwords -= 1

    @staticmethod
    def _fault(request: Request, error: Exception) -> Response:
        log.error("%s %s failed: %r", request.method, request.path, error)
        log.debug("%s", request.path, exc_info=error)
        return plain(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error: the log of spark-agent says more")


# --- a connection -----------------------------------------------------------------------------------------------------

_READ_BYTES: Final = 16 * 1024
#: struct linger: on, and no second of it. The peer gets a reset.
_RESET: Final = struct.pack("ii", 1, 0)


class _State(Enum):
    """What a connection is about."""

    HANDSHAKE = auto()
    IDLE = auto()
    HEADER = auto()
    WORK = auto()
    WRITE = auto()
    LINGER = auto()
    CLOSED = auto()


class _Connection(asyncio.BufferedProtocol):
    """One client: reads a request, has it answered, writes the response, and so on."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._limits = server.limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=server.limits.header_bytes)
        self._timer: asyncio.TimerHandle | None = None
        self._state = _State.HEADER
        self._tls: _TlsLayer | None = None
        self._request: h11.Request | None = None
        self._is_blocked = False
        self._has_ended = False
        self._discarded = 0
        #: Since when the client is waited for, by the loop's clock.
        self.since = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether it is the client's turn, and so no loss of ours to end this."""
        return self._state not in (_State.WORK, _State.CLOSED)

    def finish(self) -> None:
        """Close now where nothing is being answered, else when it is."""
        if self._state in (_State.IDLE, _State.HEADER, _State.HANDSHAKE):
            self._close()

    def abort(self) -> None:
        """Drop the client, with all that is on its way: the kernel would try for minutes to deliver it."""
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (for the type checker: it is a stream)
        self._transport = transport
        # Nothing is to be written on top of what a client has not taken: `pause_writing` says so at the first byte.
        transport.set_write_buffer_limits(high=0)
        if (tls := self._server.policy.tls) is not None:
            self._tls = _TlsLayer(tls)
            self._enter(_State.HANDSHAKE, self._limits.handshake_seconds)
        else:
            self._enter(_State.HEADER, self._limits.header_seconds)
        self._server.admit(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._state = _State.CLOSED
        if self._timer is not None:
            self._timer.cancel()
        self._server.part(self)

    def get_buffer(self, _: int) -> memoryview:
        return self._server.buffer

    def buffer_updated(self, count: int) -> None:
        if self._state in (_State.LINGER, _State.CLOSED):
            self._discarded += count
            if self._discarded > self._limits.linger_bytes:
                self.abort()
            return
        content = bytes(self._server.buffer[:count])
        if self._tls is not None:
            content = self._decrypt(self._tls, content)
        if content:
            self._http.receive_data(content)
            self._advance()

    def eof_received(self) -> bool:
        if self._state is _State.LINGER or self._tls is not None:
            return False
        # "I have said all" need not mean "I am gone": what was asked is still answered.
        self._has_ended = True
        self._http.receive_data(b"")
        self._advance()
        return True

    def pause_writing(self) -> None:
        self._is_blocked = True

    def resume_writing(self) -> None:
        self._is_blocked = False
        # Not from here: a transport that is closed within this call ends its connection twice, and fails.
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._state is _State.WRITE and not self._is_blocked:
            self._answered()
            self._advance()

    # The steps.

    def _enter(self, state: _State, seconds: float | None) -> None:
        """Turn to something that may take so many seconds."""
        self._state = state
        self.since = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._expire) if seconds is not None else None

    def _expire(self) -> None:
        log.debug("client kept waiting too long: %s", self._state.name)
        if self._state is _State.HEADER:
            self._refuse(plain(HTTPStatus.REQUEST_TIMEOUT, "no complete request in time"))
        elif self._state is _State.IDLE:
            self._close()
        else:
            self.abort()

    def _decrypt(self, tls: "_TlsLayer", content: bytes) -> bytes:
        """Return what the client said; nothing while hands are shaken, or where that failed."""
        was_open = tls.is_open
        try:
            content = tls.receive(content)
        except ssl.SSLError as error:
            log.debug("TLS failed: %s", error)
            self._transport.write(_TLS_EXPECTED if error.reason == "HTTP_REQUEST" else tls.outgoing())
            self._linger()
            return b""
        if outgoing := tls.outgoing():
            self._transport.write(outgoing)
        if tls.is_open and not was_open:
            if refusal := tls.refusal():
                log.debug("%s", refusal)
                self._close()
                return b""
            self._enter(_State.HEADER, self._limits.header_seconds)
        if tls.is_over and not content:
            self._close()
        return content

    def _advance(self) -> None:
        """Take from the input what can be taken now."""
        while self._state in (_State.IDLE, _State.HEADER):
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                log.debug("not HTTP: %s", error)
                self._refuse(plain(error.error_status_hint, str(error)[:200]))
                return
            if event is h11.NEED_DATA:
                if self._state is _State.IDLE and self._http.trailing_data[0]:
                    self._enter(_State.HEADER, self._limits.header_seconds)
                return
            if isinstance(event, h11.Request):
                self._request = event
                if _size(event) > self._limits.header_bytes:
                    # h11 counts what is incomplete only: the last piece may have completed too much.
                    self._refuse(plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too long a request"))
                elif _has_body(event):
                    self._refuse(plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a request here has no body"))
            elif isinstance(event, h11.EndOfMessage):
                assert self._request is not None  # noqa: S101  (a message has a beginning)
                self._answer(self._request)
            else:
                self._close()

    def _answer(self, asked: h11.Request) -> None:
        """Answer one request, now or when the work for it is done."""
        policy = self._server.policy
        authorization = next((value for name, value in asked.headers if name == b"authorization"), b"")
        if policy.rate_limit and not policy.rate_limit.allows(self._loop.time()):
            self._send(plain(HTTPStatus.TOO_MANY_REQUESTS, "too many requests"))
        elif policy.users and authorization:
            self._authenticate(asked, policy.users, authorization.decode("latin-1"))
        elif policy.users:
            self._send(_UNAUTHORIZED)
        else:
            self._respond(asked)

    def _authenticate(self, asked: h11.Request, users: Users, authorization: str) -> None:
        verdict = users.verdict(authorization)
        if verdict is None:
            judged = self._server.judge(users, authorization)
            if judged is None:
                self._send(plain(HTTPStatus.SERVICE_UNAVAILABLE, "too many passwords to check", [("Retry-After", "1")]))
                return
            self._wait_for(judged, lambda is_right: self._respond(asked) if is_right else self._send(_UNAUTHORIZED))
        elif verdict:
            self._respond(asked)
        else:
            self._send(_UNAUTHORIZED)

    def _respond(self, asked: h11.Request) -> None:
        try:
            request = _request(asked)
        except _BadRequest as error:
            self._send(error.response)
            return
        answer = self._server.answer(request)
        if isinstance(answer, Response):
            self._send(answer)
        else:
            self._wait_for(self._server.render(request, answer), self._send)

    def _wait_for(self, future: "asyncio.Future[_T]", then: "Callable[[_T], None]") -> None:
        """Leave the client alone until something is done elsewhere."""
        self._enter(_State.WORK, None)
        self._transport.pause_reading()

        def done(future: "asyncio.Future[_T]") -> None:
            if self._state is not _State.WORK:
                return
            if future.cancelled() or (error := future.exception()):
                log.error("no answer: %r", "stopped" if future.cancelled() else error)
                self.abort()
                return
            self._transport.resume_reading()
            then(future.result())
            self._advance()

        future.add_done_callback(done)

    def _send(self, response: Response) -> None:
        """Write a response, all in one; the next request waits until the client has taken it."""
        self._write(response)
        if self._is_blocked:
            self._enter(_State.WRITE, self._limits.write_seconds)
            self._transport.pause_reading()
        else:
            self._answered()

    def _answered(self) -> None:
        """Turn to the next request, if there may be one."""
        if self._state is _State.WRITE:
            self._transport.resume_reading()
        if self._http.our_state is h11.MUST_CLOSE or self._server.is_stopping:
            self._close()
            return
        self._http.start_next_cycle()
        self._enter(_State.IDLE, self._limits.idle_seconds)

    def _refuse(self, response: Response) -> None:
        """Say what is wrong, and hear no more."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._write(response, is_last=True)
        self._linger()

    def _write(self, response: Response, *, is_last: bool = False) -> None:
        policy = self._server.policy
        headers = [
            ("Date", _date()),
            ("Server", "spark-agent"),
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("X-Content-Type-Options", "nosniff"),
            *response.headers,
        ]
        headers += [header for header in policy.headers if header[0] != "X-Content-Type-Options"]
        if is_last or self._server.is_stopping:
            headers.append(("Connection", "close"))
        status = HTTPStatus(response.status)
        sent = self._http.send(h11.Response(status_code=status, reason=status.phrase, headers=headers)) or b""
        if self._request is None or self._request.method != b"HEAD":
            sent += self._http.send(h11.Data(data=response.body)) or b""
        self._http.send(h11.EndOfMessage())
        self._request = None
        self._transport.write(self._tls.encrypt(sent) if self._tls else sent)

    def _close(self) -> None:
        """Let the client have what is still on its way, then close."""
        self._enter(_State.LINGER, self._limits.write_seconds)
        if self._tls is not None:
            self._transport.write(self._tls.close())
        self._transport.close()

    def _linger(self) -> None:
        """Close our side, but hear the client out: a reset would take away what it has not read yet."""
        if self._has_ended:
            self._close()
            return
        self._enter(_State.LINGER, self._limits.linger_seconds)
        if self._tls is not None and self._tls.is_open:
            self._transport.write(self._tls.close())
        if not self._transport.is_closing():
            self._transport.write_eof()
            self._transport.resume_reading()


_T = TypeVar("_T")

_UNAUTHORIZED: Final = plain(
    HTTPStatus.UNAUTHORIZED, "who are you?", [("WWW-Authenticate", 'Basic realm="spark-agent"')]
)

#: What a client is told that speaks HTTP where TLS is spoken.
_TLS_EXPECTED: Final = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    b"this port speaks TLS: write https:// instead of http://\n"
)


class _BadRequest(Exception):  # noqa: N818  (an answer, not a fault of ours)
    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


_METHODS: Final = (b"GET", b"HEAD")


def _request(asked: h11.Request) -> Request:
    """Return what was asked, or raise `_BadRequest`."""
    if asked.http_version not in (b"1.0", b"1.1"):
        raise _BadRequest(plain(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here"))
    if asked.method not in _METHODS:
        raise _BadRequest(
            plain(HTTPStatus.METHOD_NOT_ALLOWED, "this can only be read: GET or HEAD", [("Allow", "GET, HEAD")])
        )
    try:
        target = urlsplit(asked.target.decode("ascii"))
        query = parse_qs(target.query, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
        path = unquote(target.path, errors="strict")
    except ValueError as error:
        raise _BadRequest(plain(HTTPStatus.BAD_REQUEST, "this address cannot be read")) from error
    headers: dict[str, str] = {}
    for name, value in asked.headers:
        text = name.decode("ascii")
        decoded = value.decode("latin-1")
        headers[text] = f"{headers[text]}, {decoded}" if text in headers else decoded
    return Request(asked.method.decode("ascii"), path, query, headers)


_MOST_FIELDS: Final = 64


def _size(asked: h11.Request) -> int:
    return len(asked.target) + sum(len(name) + len(value) for name, value in asked.headers)


def _has_body(asked: h11.Request) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in asked.headers
    )


_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _date() -> str:
    return _date_of(int(time.time()))


@lru_cache(maxsize=1)
def _date_of(seconds: int) -> str:
    """Return a time as HTTP writes it (RFC 9110, 5.6.7); strftime would write it in the user's language."""
    at = time.gmtime(seconds)
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    return f"{day}, {at.tm_mday:02} {month} {at.tm_year} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"


class _TlsLayer:
    """TLS between bytes and bytes. asyncio's own holds a quarter of a megabyte per connection, and one context only."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = tls.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.is_open = False
        self.is_over = False

    def receive(self, content: bytes) -> bytes:
        """Take what came in, and return what it says, if anything yet."""
        self._incoming.write(content)
        said = bytearray()
        try:
            if not self.is_open:
                self._object.do_handshake()
                self.is_open = True
            while chunk := self._object.read(_READ_BYTES):
                said += chunk
            self.is_over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_over = True
        return bytes(said)

    def refusal(self) -> str | None:
        """Return why this client may not come in, if it may not."""
        return self._tls.refusal(self._object)

    def encrypt(self, content: bytes) -> bytes:
        self._object.write(content)
        return self._outgoing.read()

    def outgoing(self) -> bytes:
        """Return what TLS itself has to say."""
        return self._outgoing.read()

    def close(self) -> bytes:
        """Return the words of farewell."""
        # The client's own are not waited for.
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()
        return self._outgoing.read()
