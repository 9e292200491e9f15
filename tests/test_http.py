"""The server for honest clients: what it says on the wire, where it listens, and how it ends."""

import contextlib
import errno
import logging
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from web.serving import (
    PATIENCE,
    Served,
    body,
    everything,
    header,
    hello,
    one_response,
    request,
    status,
)

from spark_agent.agent.config import parse_address
from spark_agent.exporters.http import (
    PLAIN,
    Request,
    Response,
    Work,
)
from spark_agent.exporters.listeners import ListenError, activated, listen


@pytest.fixture
def served() -> Iterator[Served]:
    """Serve a greeting."""
    with Served() as running:
        yield running


def _echo(asked: Request) -> Response:
    return Response(200, PLAIN, repr((asked.method, asked.path, dict(asked.query))).encode())


def test_get(served: Served) -> None:
    """A page is answered in full, with what a client needs to know of it and little else."""
    answer = served.get()

    assert 200 == status(answer)
    assert "hello you\n" == body(answer)
    assert PLAIN == header(answer, "Content-Type")
    assert "10" == header(answer, "Content-Length")
    assert "nosniff" == header(answer, "X-Content-Type-Options")
    assert "spark-agent" == header(answer, "Server")
    assert header(answer, "Date").endswith(" GMT")


def test_head_is_get_without_its_body(served: Served) -> None:
    """HEAD says how long the page is that GET would give."""
    answer = served.get(method="HEAD")

    assert (200, "10", "") == (status(answer), header(answer, "Content-Length"), body(answer))


def test_a_connection_is_kept(served: Served) -> None:
    """One connection serves one scrape after another."""
    with served.connect() as client:
        for _ in range(3):
            client.sendall(request())
            assert 200 == status(one_response(client))
        assert 1 == served.server.connections


def test_pipelined_requests_are_answered_in_order() -> None:
    """Who asks three things at once gets three answers, whether they are ready or have to be made first."""

    def handler(asked: Request) -> Response | Work:
        ready = _echo(asked)
        return (lambda: ready) if asked.path == "/slow" else ready

    with Served(handler) as served:
        answer = served.say(request("/a") + request("/slow") + request("/b", "Connection: close"))

    assert ["/a", "/slow", "/b"] == [name for name in answer.decode().split("'") if name.startswith("/")]


def test_http_1_0(served: Served) -> None:
    """An old client that names no host is served, and the connection ends."""
    with served.connect() as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = everything(client)

    assert (200, "close") == (status(answer), header(answer, "Connection"))


def test_the_target_is_taken_apart() -> None:
    """A path is decoded, a query may repeat a name, and the form for proxies is understood."""
    with Served(_echo) as served:
        assert "('GET', '/a b', {'collect[]': ['gpu', 'nvme'], 'x': ['']})" == body(
            served.get("/a%20b?collect[]=gpu&collect%5B%5D=nvme&x=")
        )
        assert "('GET', '/metrics', {})" == body(served.get("http://localhost/metrics"))


@pytest.mark.parametrize(
    ("expected", "content"),
    [
        (405, request(method="DELETE")),
        (405, request("*", method="OPTIONS")),
        (413, request("/", "Content-Length: 5", method="POST") + b"hello"),
        (413, request("/", "Transfer-Encoding: chunked")),
        (400, request("/", "Content-Length: -1")),
        (400, request("/", "Content-Length: 1", "Content-Length: 2")),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"hello there, how are you?\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (400, request("/%ff")),
        (400, request("/?a=%ff")),
        (400, request("/?" + "&".join("a=1" for _ in range(100)))),
        (400, request("http://[::1")),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n"),
        (505, b"GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
        (431, request("/" + "a" * 20_000)),
        (431, request("/", *(f"X-{number}: {'a' * 1000}" for number in range(20)))),
    ],
)
def test_what_is_no_request_is_told_so(expected: int, content: bytes, served: Served) -> None:
    """Whatever is wrong has a status of its own, and the next client is served."""
    answer = served.say(content)

    assert expected == status(answer)
    assert expected != 405 or header(answer, "Allow") == "GET, HEAD"
    assert 200 == status(served.get())


def test_a_fault_of_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    """A page that fails is one line in the log and a plain 500, at once or in the making; the connection lives on."""

    def handler(asked: Request) -> Response | Work:
        def fail() -> Response:
            raise RuntimeError("no such thing")

        return fail if asked.path == "/later" else fail()

    with caplog.at_level(logging.INFO), Served(handler) as served, served.connect() as client:
        for path in ("/now", "/later"):
            client.sendall(request(path))
            assert 500 == status(one_response(client))

    assert ["GET /now failed: RuntimeError('no such thing')", "GET /later failed: RuntimeError('no such thing')"] == [
        record.getMessage() for record in caplog.records
    ]


def test_work_does_not_keep_others_waiting() -> None:
    """While one page is in the making, others are served."""
    is_asked, may_go_on = threading.Event(), threading.Event()

    def slow() -> Response:
        is_asked.set()
        assert may_go_on.wait(PATIENCE)
        return Response(200, PLAIN, b"at last")

    with Served(lambda asked: slow if asked.path == "/slow" else hello(asked)) as served, served.connect() as client:
        client.sendall(request("/slow"))
        assert is_asked.wait(PATIENCE)
        assert "hello you\n" == body(served.get())
        may_go_on.set()
        assert "at last" == body(one_response(client))


def test_a_client_may_close_its_side_and_still_read() -> None:
    """A half-closed connection gets the answer, even one that takes a while."""
    with Served(lambda asked: lambda: hello(asked)) as served:
        assert "hello you\n" == body(served.say(request()))


# --- where it listens -------------------------------------------------------------------------------------------------


def test_several_addresses_at_once(tmp_path: Path) -> None:
    """IPv4, IPv6 and a unix socket are served by one server; [::] and 0.0.0.0 do not get into each other's way."""
    path = tmp_path / "x.sock"
    with Served(addresses=["127.0.0.1:0", "[::1]:0", f"unix:{path}"]) as served:
        assert ["127.0.0.1", "[::1]", "unix"] == [one.rpartition(":")[0] for one in served.addresses]
        with socket.create_connection(("::1", int(served.addresses[1].rpartition(":")[2])), PATIENCE) as six:
            six.sendall(request())
            assert 200 == status(one_response(six))
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(str(path))
            local.sendall(request())
            assert 200 == status(one_response(local))
        assert 200 == status(served.get())


def test_all_interfaces_have_one_port() -> None:
    """``:port`` and ``localhost:0`` mean IPv4 and IPv6 on the same port."""
    for text in (":0", "localhost:0"):
        opened = listen([parse_address(text)])
        try:
            assert 1 == len({one.getsockname()[1] for one in opened})
        finally:
            for one in opened:
                one.close()


def test_a_port_that_is_taken() -> None:
    """The message says where, why, and what to do; what was already opened is closed."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=rf"^127\.0\.0\.1:{port}: something else listens there; stop it"):
            listen([parse_address("127.0.0.1:0"), parse_address(f"127.0.0.1:{port}")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("192.0.2.1:0", "no interface of this machine has this address"),
        ("no-such-host.invalid:0", "no such host"),
        (f"{'a' * 70}.invalid:0", "no such host"),
        ("unix:/nowhere/at/all.sock", "No such file or directory"),
        ("unix:/dev/null", "no socket"),
    ],
)
def test_where_nobody_can_listen(text: str, message: str) -> None:
    """Each fault is told in words, with the address."""
    with pytest.raises(ListenError, match=message) as raised:
        listen([parse_address(text)])

    assert str(raised.value).startswith(text)


def test_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that only root may have is said to be one."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("spark_agent.exporters.listeners._bound", refuse)

    with pytest.raises(ListenError, match=r"127\.0\.0\.1:80: no permission; ports below 1024"):
        listen([parse_address("127.0.0.1:80")])


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    """What a killed agent left behind is no obstacle; the new file has the mode that was asked for."""
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    address = parse_address(f"unix:{path}")

    (opened,) = listen([address], mode=0o600)

    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    with pytest.raises(ListenError, match="something else listens there"):
        listen([address])
    opened.close()
    assert not path.exists()


def test_a_successors_socket_stays(tmp_path: Path) -> None:
    """Who closes removes its own file, and no other's."""
    path = tmp_path / "x.sock"
    (first,) = listen([parse_address(f"unix:{path}")])
    path.rename(tmp_path / "old")
    (second,) = listen([parse_address(f"unix:{path}")])

    first.close()

    assert path.exists()
    second.close()
    assert not path.exists()


def _handed_over(*listeners: socket.socket) -> int:
    """Lay copies of sockets side by side, as systemd does, and return the first descriptor."""
    first = 200
    for index, listener in enumerate(listeners):
        os.dup2(listener.fileno(), first + index)
    return first


def test_sockets_from_systemd() -> None:
    """Sockets that systemd opened are served, and the variables are gone for children."""
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:also", "HOME": "/"}
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        listeners = activated(environment, _handed_over(one, other))
        assert {"HOME": "/"} == environment
        assert [False, False] == [listener.get_inheritable() for listener in listeners]

    with Served(listeners=listeners) as served:
        assert 2 == len(served.addresses)
        assert 200 == status(served.get())


def test_sockets_for_somebody_else() -> None:
    """Variables that were meant for a parent are no sockets of ours."""
    assert [] == activated({})
    assert [] == activated({"LISTEN_PID": "1", "LISTEN_FDS": "1"})


def test_sockets_that_are_none() -> None:
    """What systemd handed over by mistake is named, and nothing is kept open."""
    pid = str(os.getpid())
    with pytest.raises(ListenError, match="LISTEN_FDS is 'x'"):
        activated({"LISTEN_PID": pid, "LISTEN_FDS": "x"})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        first = _handed_over(datagrams)
        with pytest.raises(ListenError, match="socket web from systemd does not listen"):
            activated({"LISTEN_PID": pid, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}, first)
    with pytest.raises(ListenError, match="socket 1 from systemd: Bad file descriptor"):
        activated({"LISTEN_PID": pid, "LISTEN_FDS": "1"}, first)


# --- how it ends ------------------------------------------------------------------------------------------------------


def test_a_graceful_stop() -> None:
    """Who waits for a page gets it, idle connections are closed, and nobody new comes in."""
    is_asked, may_go_on = threading.Event(), threading.Event()

    def slow() -> Response:
        is_asked.set()
        assert may_go_on.wait(PATIENCE)
        return Response(200, PLAIN, b"at last")

    with Served(lambda _: slow) as served, served.connect() as idle, served.connect() as busy:
        busy.sendall(request())
        assert is_asked.wait(PATIENCE)
        stopping = threading.Thread(target=served.stop, args=(PATIENCE,))
        stopping.start()
        assert b"" == everything(idle)
        with contextlib.suppress(TimeoutError), pytest.raises(ConnectionRefusedError):
            served.connect().close()
        may_go_on.set()
        answer = everything(busy)
        stopping.join(PATIENCE)

    assert ("at last", "close") == (body(answer), header(answer, "Connection"))


def test_a_stop_lets_a_slow_reader_finish() -> None:
    """A response that is on its way arrives in full, and then the connection ends at once."""
    big = Response(200, PLAIN, b"x" * 16_000_000)
    with Served(lambda _: big) as served, served.connect() as client:
        client.sendall(request())
        served.until(lambda: ["WRITE"] == [one._state.name for one in served.server._connections])
        stopping = threading.Thread(target=served.stop, args=(3600.0,))
        stopping.start()
        served.until(lambda: served.server.is_stopping)
        assert len(big.body) == len(body(everything(client)))
        stopping.join(PATIENCE)


def test_a_stop_does_not_wait_for_ever() -> None:
    """After the grace, whoever is left is dropped."""
    may_go_on = threading.Event()

    def never() -> Response:
        assert may_go_on.wait(PATIENCE)
        return Response(200, PLAIN, b"")

    with Served(lambda _: never) as served, served.connect() as client:
        client.sendall(request())
        served.until(lambda: [False] == [one.is_waiting for one in served.server._connections])
        served.stop(0.0)
        assert b"" == everything(client)
        may_go_on.set()
