"""The server under clients that mean no good, or know no better: honest ones are served, and nothing is left behind."""

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web.serving import (
    PATIENCE,
    Served,
    body,
    everything,
    hello,
    hung_up,
    one_response,
    request,
    status,
    trusting_client,
    write_certificates,
)

from spark_agent.exporters.http import PLAIN, Limits, Response
from spark_agent.exporters.web_config import WebConfig

#: Deadlines that a test need not wait long for. What is tested is that they come, not when.
SHORT = Limits(header_seconds=0.1, idle_seconds=0.1, handshake_seconds=0.1, write_seconds=0.1, linger_seconds=0.1)
BIG = Response(200, PLAIN, b"x" * 16_000_000)


def _web_config(folder: Path, text: str) -> WebConfig:
    write_certificates(folder)
    path = folder / "web.yml"
    path.write_text(text)
    return WebConfig(path)


TLS = "tls_server_config: {cert_file: server.crt, key_file: server.key}"


@contextlib.contextmanager
def _crowd(served: Served, count: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connect many times, and say something each time."""
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(served.connect())
            client.sendall(said)
            clients.append(client)
        yield clients


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "])
def test_slow_loris(said: bytes) -> None:
    """With more dawdlers than connections, an honest client is served at once, and the longest waiting one has gone."""
    with Served(limits=Limits(connections=8)) as served, _crowd(served, 24, said) as crowd:
        assert 200 == status(served.get())
        assert b"" == everything(crowd[0])
        served.until(lambda: served.server.connections <= 8)


def test_dripping_does_not_help() -> None:
    """A header has one deadline in all: each further byte buys no time."""
    with Served(limits=SHORT) as served, served.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        with contextlib.suppress(ConnectionError):
            while served.server.connections:
                client.sendall(b"a")
        served.until(lambda: 0 == served.server.connections)


def test_the_deadline_of_a_header_is_told() -> None:
    """Who does not come to an end is told so, and dropped."""
    with Served(limits=SHORT) as served, served.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        assert 408 == status(everything(client))


def test_a_second_request_has_a_deadline_too() -> None:
    """A connection that was well behaved once is not trusted for ever."""
    with Served(limits=Limits(header_seconds=0.1, linger_seconds=0.1)) as served, served.connect() as client:
        client.sendall(request() + b"GET / HT")
        assert 200 == status(one_response(client))
        assert 408 == status(everything(client))


def test_idle_connections_end() -> None:
    """A client that has vanished, or forgot us, costs a connection for a while only."""
    with Served(limits=SHORT) as served, served.connect() as client:
        client.sendall(request())
        assert 200 == status(one_response(client))
        assert b"" == everything(client)


def test_a_connection_at_work_makes_no_room() -> None:
    """Where every connection is being answered, it is the newcomer that has to go."""
    may_go_on = threading.Event()

    def work() -> Response:
        assert may_go_on.wait(PATIENCE)
        return Response(200, PLAIN, b"done")

    with Served(lambda _: work, limits=Limits(connections=2)) as served, _crowd(served, 2, request()) as crowd:
        served.until(lambda: [False, False] == [one.is_waiting for one in served.server._connections])
        # It may be sent away before it knows that it had come in.
        with contextlib.suppress(ConnectionResetError), served.connect() as late:
            assert b"" == everything(late)
        may_go_on.set()
        assert ["done", "done"] == [body(one_response(client)) for client in crowd]


def test_a_client_that_never_reads() -> None:
    """What it does not take is kept for a while and bounded: one response, however many it asked for."""
    with Served(lambda _: BIG, limits=SHORT) as served, served.connect() as client:
        client.sendall(request() * 50)
        hung_up(client)
        served.until(lambda: 0 == served.server.connections)
        assert 200 == status(served.get())


def test_who_does_not_read_is_not_read() -> None:
    """While a response waits to be taken, nothing more is taken in: what a client can make us hold has a bound."""
    with Served(lambda _: BIG) as served, served.connect() as client:
        client.sendall(request())
        served.until(lambda: ["WRITE"] == [one._state.name for one in served.server._connections])
        (connection,) = served.server._connections
        assert not connection._transport.is_reading()
        assert 200 == status(one_response(client))
        client.sendall(request(method="HEAD"))
        assert 200 == status(client.recv(65536))


def test_a_refused_client_may_finish_its_sentence() -> None:
    """A client that writes all before it reads is not cut off by a reset, and so learns what was wrong."""
    with Served() as served, served.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000)
        served.until(lambda: ["LINGER"] == [one._state.name for one in served.server._connections])
        for part in (b"a" * 100_000, b"a" * 100_000, b"\r\n\r\n"):
            client.sendall(part)
        client.shutdown(socket.SHUT_WR)
        assert 431 == status(everything(client))


def test_who_never_reads_holds_up_nobody() -> None:
    """Full buffers of one client are no wait for another, and make room where room is needed."""
    with Served(lambda asked: BIG if asked.path == "/big" else hello(asked), limits=Limits(connections=4)) as served:  # noqa: SIM117  (would not fit)
        with _crowd(served, 12, request("/big")):
            assert 200 == status(served.get())


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200_000 + b"\r\n",
        b"\n" * 1_000_000,
        b"\x00" * 1_000_000,
    ],
    ids=["header", "target", "headers", "newlines", "zeros"],
)
def test_a_megabyte_of_header(content: bytes) -> None:
    """However much is said, 16 KiB of it are kept, the answer arrives, and the connection ends."""
    with Served() as served:
        assert status(served.say(content)) in (400, 431)
        served.until(lambda: 0 == served.server.connections)


def test_who_goes_on_for_ever_is_cut_off() -> None:
    """After a refusal only so much is heard out."""
    with Served(limits=Limits(linger_bytes=100_000)) as served, served.connect() as client:
        with contextlib.suppress(ConnectionError):
            while True:
                client.sendall(b"a" * 10_000)
        served.until(lambda: 0 == served.server.connections)


def test_two_hundred_scrapers() -> None:
    """All that come at once are answered in full."""
    page = Response(200, PLAIN, b"0123456789" * 6000)
    with Served(lambda asked: page if asked.path == "/" else lambda: page) as served, _crowd(served, 200) as crowd:
        for index, client in enumerate(crowd):
            client.sendall(request("/" if index % 2 else "/work", "Connection: close"))
        answers = [everything(client) for client in crowd]

    assert {200} == {status(answer) for answer in answers}
    assert {60_000} == {len(body(answer)) for answer in answers}


def test_clients_that_leave_without_a_word() -> None:
    """A reset in the middle of anything is no fault of ours."""
    with Served(lambda asked: BIG if asked.path == "/big" else lambda: hello(asked)) as served:
        for said in (b"", b"GET", request("/big"), request("/"), request("/") * 20):
            client = served.connect()
            client.sendall(said)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        served.until(lambda: 0 == served.server.connections)
        assert 200 == status(served.get("/"))


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_plain_words_on_a_tls_port(tmp_path: Path) -> None:
    """Who forgot the s in https is told so, in words."""
    with Served(web_config=_web_config(tmp_path, TLS)) as served:
        answer = served.get()

    assert 400 == status(answer)
    assert "https://" in body(answer)


def test_tls_on_a_plain_port() -> None:
    """A TLS client learns at once that there is no TLS."""
    with Served() as served, pytest.raises(ssl.SSLError), served.tls(trusting_client()):
        pass


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
def test_shaking_hands_for_ever(said: bytes, tmp_path: Path) -> None:
    """A handshake has a deadline, blocks nobody, and makes room for honest clients."""
    few = Limits(connections=4, handshake_seconds=60.0)
    with Served(web_config=_web_config(tmp_path, TLS), limits=few) as served, _crowd(served, 12, said):  # noqa: SIM117  (would not fit)
        with served.tls(trusting_client()) as client:
            client.sendall(request())
            assert 200 == status(one_response(client))
    with Served(web_config=_web_config(tmp_path, TLS), limits=SHORT) as served, served.connect() as client:
        client.sendall(said)
        assert b"" == everything(client)


def test_a_reader_that_stops_within_tls(tmp_path: Path) -> None:
    """Encryption changes nothing: bounded, and dropped in time."""
    with Served(lambda _: BIG, _web_config(tmp_path, TLS), Limits(write_seconds=0.1)) as served:
        with served.tls(trusting_client()) as client:
            client.sendall(request() * 20)
            hung_up(client)
        served.until(lambda: 0 == served.server.connections)


# --- nonsense ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_lived() -> Iterator[Served]:
    """Serve all examples of a module by one server."""
    with Served(limits=SHORT) as served:
        yield served


@pytest.fixture(scope="module")
def long_lived_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve all examples of a module by one server, with TLS."""
    with Served(web_config=_web_config(tmp_path_factory.mktemp("tls"), TLS), limits=SHORT) as served:
        yield served


_PIECES = st.sampled_from(
    (
        *(b"GET", b"HEAD", b" ", b"/", b"?a=%", b"HTTP/1.1", b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"Host: a"),
        *(b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Connection: upgrade", b"Upgrade: h2c"),
        *(b"Expect: 100-continue", request()),
    )
)
_NONSENSE = st.binary(max_size=400) | st.lists(_PIECES, max_size=30).map(b"".join)


@settings(max_examples=150)
@given(content=_NONSENSE)
def test_nonsense(content: bytes, long_lived: Served) -> None:
    """Whatever bytes come, the server lives on, says nothing but HTTP, and keeps no connection."""
    answer = long_lived.say(content)

    assert not answer or answer.startswith(b"HTTP/1.1 ")
    long_lived.until(lambda: 0 == long_lived.server.connections)
    assert 200 == status(long_lived.get())
    assert [] == long_lived.faults


@settings(max_examples=60)
@given(content=st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"\x16\x03\x01" + rest))
def test_nonsense_instead_of_tls(content: bytes, long_lived_tls: Served) -> None:
    """The same holds where TLS is expected."""
    long_lived_tls.say(content)

    long_lived_tls.until(lambda: 0 == long_lived_tls.server.connections)
    assert [] == long_lived_tls.faults


def test_clients_faults_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A stranger cannot fill the log: what a client does wrong is for debugging only."""
    with caplog.at_level(logging.INFO), Served(limits=SHORT) as served:
        for content in (b"", b"nonsense\r\n\r\n", b"\x16\x03\x01", request("/%ff"), request(method="PUT")):
            served.say(content)

    assert [] == [record.getMessage() for record in caplog.records]


def _sockets(port: int) -> int:
    """Return how many sockets this process has open that a server at a port listens to or has accepted."""
    return sum(one.laddr.port == port for one in psutil.Process().net_connections("tcp"))


def test_descriptors_are_given_back() -> None:
    """After many connections of every kind, as many sockets are open as before."""
    with Served(limits=SHORT) as served:
        served.get()
        served.until(lambda: 0 == served.server.connections)
        before = _sockets(served.port)
        for content in (b"", b"GET / HT", request(), request() * 5, b"x" * 100_000, b"\xff\xff"):
            for _ in range(10):
                served.say(content)
        served.until(lambda: 0 == served.server.connections)
        assert before == _sockets(served.port)
