"""Servers: what a Prometheus and a Grafana hold is read; what goes wrong is one line, and no secret is in it."""

import contextlib
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from web.serving import PATIENCE, server_certificate, write_certificates

from spark_agent.agent.audit import servers
from spark_agent.agent.audit.claim import Document, Unreadable
from spark_agent.agent.audit.servers import Access, ServerError, read_grafana, read_prometheus, secret_in

TOKEN = "glsa_of-a-test"  # noqa: S105  (of a server that lives for a moment)


class Answers:
    """What a server answers by path, with the headers that it was asked with; each is a status, a body and a place."""

    def __init__(self, **by_path: Any) -> None:
        self.by_path: dict[str, Any] = by_path
        self.asked: list[tuple[str, str | None]] = []


@contextlib.contextmanager
def serving(answers: Answers, folder: Path | None = None) -> Iterator[str]:
    """Answer on loopback, by TLS where there is a folder with certificates, and yield the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.asked.append((self.path, self.headers["Authorization"]))
            status, body, location = answers.by_path.get(self.path, (404, {"message": "not \x1b found"}, None))
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if folder:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server_certificate().configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"{'https' if folder else 'http'}://localhost:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "localhost")


GROUPS = [
    {
        "name": "gpu",
        "file": "/etc/a.yml",
        "rules": [
            {"name": "Hot", "type": "alerting", "query": "t > 85", "labels": {}, "annotations": {"summary": "hot"}},
            {"name": "a:b", "type": "recording", "query": "sum(up)"},
        ],
    },
    {"name": "more", "file": "/etc/b.yml", "rules": []},
    {"name": "box", "file": "/etc/a.yml", "rules": [{"name": "c:d", "type": "recording", "query": "up"}]},
]
METADATA = {
    "t": [{"type": "gauge", "help": "", "unit": ""}, {"type": "gauge", "help": "other", "unit": ""}],
    "beats": [{"type": "counter"}],
    "odd": [{"type": "gauge"}, {"type": "counter"}],
    "dark": [{"type": "unknown"}],
}


def _prometheus(**more: Any) -> Answers:
    return Answers(
        **{
            "/api/v1/rules": (200, {"status": "success", "data": {"groups": GROUPS}}, None),
            "/api/v1/metadata": (200, {"status": "success", "data": METADATA}, None),
            **more,
        }
    )


def test_a_prometheus() -> None:
    """The rules of each of its files are a document; types are those on which all targets agree."""
    answers = _prometheus()
    with serving(answers) as url:
        read, types = read_prometheus(f"{url}/", Access(user="me", password="you"))  # noqa: S106

    documents = [one for one in read if isinstance(one, Document)]
    assert read == documents
    assert {f"{url} /etc/a.yml": ["Hot", "a:b", "c:d"], f"{url} /etc/b.yml": []} == {
        one.name: [claim.title for claim in one.claims] for one in documents
    }
    assert documents[0].line_of(documents[0].claims[0].at) is None
    assert {"t": "gauge", "beats": "counter", "beats_total": "counter"} == types
    assert {"Basic bWU6eW91"} == {authorization for _, authorization in answers.asked}


def test_a_prometheus_without_metadata() -> None:
    """Where types are not told, the rules are judged all the same."""
    with serving(_prometheus(**{"/api/v1/metadata": (404, {}, None)})) as url:
        read, types = read_prometheus(url, Access())

    assert {} == types
    assert [Document, Document] == [type(one) for one in read]


def _dashboard(title: str, **panel: Any) -> dict[str, Any]:
    panels = [{"id": 1, "title": "Draw", "targets": [{"expr": "up"}], **panel}]
    return {"dashboard": {"title": title, "schemaVersion": 39, "panels": panels}, "meta": {"folderTitle": "Sparks"}}


ALERT = {
    "title": "Hot",
    "condition": "A",
    "ruleGroup": "gpu",
    "data": [{"refId": "A", "datasourceUid": "x", "model": {"expr": "t > 85"}}],
}


def _grafana(**more: Any) -> Answers:
    return Answers(
        **{
            "/api/search?type=dash-db&limit=1000&page=1": (200, [{"uid": "a"}, {"uid": "b/c"}], None),
            "/api/dashboards/uid/a": (200, _dashboard("One"), None),
            "/api/dashboards/uid/b%2Fc": (200, _dashboard("Two"), None),
            "/api/v1/provisioning/alert-rules": (200, [ALERT], None),
            **more,
        }
    )


def test_a_grafana() -> None:
    """Each dashboard is a document under its address, with its folder; so are the alert rules; all with the token."""
    answers = _grafana()
    with serving(answers) as url:
        read = list(read_grafana(url, Access(token=TOKEN)))

    documents = [one for one in read if isinstance(one, Document)]
    assert read == documents
    assert {
        f"{url}/d/a": [("Draw", ("Sparks", "One"))],
        f"{url}/d/b%2Fc": [("Draw", ("Sparks", "Two"))],
        f"{url}/alerting": [("Hot", ("gpu",))],
    } == {one.name: [(claim.title, claim.context) for claim in one.claims] for one in documents}
    assert {f"Bearer {TOKEN}"} == {authorization for _, authorization in answers.asked}


def test_pages_of_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search is asked for until it has no more."""
    monkeypatch.setattr(servers, "PAGE", 2)
    answers = _grafana(
        **{
            "/api/search?type=dash-db&limit=2&page=1": (200, [{"uid": "a"}, {"uid": "a"}], None),
            "/api/search?type=dash-db&limit=2&page=2": (200, [{"uid": "a"}, {"uid": None}], None),
            "/api/search?type=dash-db&limit=2&page=3": (200, [], None),
            "/api/v1/provisioning/alert-rules": (200, [], None),
        }
    )
    with serving(answers) as url:
        read = list(read_grafana(url, Access()))

    assert [f"{url}/d/a"] == [one.name for one in read]


def test_library_panels_of_a_grafana() -> None:
    """A library panel that a dashboard only refers to is asked for, once."""
    reference = {"uid": "l", "name": "Shared"}
    element = {"uid": "l", "model": {"type": "stat", "title": "Shared", "targets": [{"expr": "shared"}]}}
    bare = _dashboard("One", libraryPanel=reference)
    del bare["dashboard"]["panels"][0]["targets"]
    del bare["dashboard"]["panels"][0]["title"]
    answers = _grafana(
        **{
            "/api/dashboards/uid/a": (200, bare, None),
            "/api/dashboards/uid/b%2Fc": (200, bare, None),
            "/api/library-elements/l": (200, {"result": element}, None),
        }
    )
    with serving(answers) as url:
        read = list(read_grafana(url, Access()))

    assert ["shared", "shared"] == [
        query.expr for one in read[:2] if isinstance(one, Document) for claim in one.claims for query in claim.queries
    ]
    assert 1 == [path for path, _ in answers.asked].count("/api/library-elements/l")


def test_what_a_grafana_does_not_show() -> None:
    """A dashboard that may not be read is told, and the others are read; so it is with alert rules."""
    answers = _grafana(
        **{
            "/api/dashboards/uid/a": (403, {}, None),
            "/api/v1/provisioning/alert-rules": (404, {"message": "not \x1b found"}, None),
        }
    )
    with serving(answers) as url:
        read = list(read_grafana(url, Access()))

    assert [
        (f"{url}/d/a", "answers /api/dashboards/uid/a with 403: this token or user may not read it"),
        (f"{url}/d/b%2Fc", "a document"),
        (f"{url}/alerting", "answers /api/v1/provisioning/alert-rules with 404: not \ufffd found"),
    ] == [(one.name, one.message if isinstance(one, Unreadable) else "a document") for one in read]


SEARCH = "/api/search?type=dash-db&limit=1000&page=1"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {"message": "Unauthorized"}, None), "answers {} with 401: it wants a token or password, or another one"),
        ((200, b"<html>Welcome</html>", None), "answers {} with something that is no JSON"),
        ((200, b"[" * 1_000_000, None), "answers {} with something that is no JSON"),
        ((500, {"error": "out of\nmemory"}, None), "answers {} with 500: out of memory"),
        ((502, b"<html>", None), "answers {} with 502"),
        (
            (302, b"", "https://me:you@elsewhere.example/login?token=x"),
            "answers {} with 302, on to https://elsewhere.example/login; if that is right, name that address",
        ),
        (
            (301, b"", "file:///etc/passwd"),
            "answers {} with 301, on to file:///etc/passwd; if that is right, name that address",
        ),
    ],
)
def test_what_is_no_answer(answer: Any, message: str) -> None:
    """Refusals, pages for people, errors and redirects are one line; nothing is followed."""
    with serving(_prometheus(**{"/api/v1/rules": answer})) as url:
        (of_prometheus,), types = read_prometheus(url, Access(token=TOKEN))
    with serving(_grafana(**{SEARCH: answer})) as url:
        (of_grafana,) = read_grafana(url, Access(token=TOKEN))

    assert isinstance(of_prometheus, Unreadable)
    assert isinstance(of_grafana, Unreadable)
    assert (message.format("/api/v1/rules"), {}) == (of_prometheus.message, types)
    assert message.format("/api/search") == of_grafana.message


def test_the_wrong_server() -> None:
    """JSON of something else is told as such."""
    answers = Answers(**{"/api/v1/rules": (200, {"status": "ok"}, None), SEARCH: (200, {"total": 0}, None)})
    with serving(answers) as url:
        (of_prometheus,), _ = read_prometheus(url, Access())
        (of_grafana,) = read_grafana(url, Access())

    assert Unreadable(url, "answers /api/v1/rules with something else than data; is it a Prometheus?") == of_prometheus
    assert Unreadable(url, "answers its search with something else than a list; is it a Grafana?") == of_grafana


def test_an_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is too long, or takes too long, is given up."""
    monkeypatch.setattr(servers, "MAX_BYTES", 1 << 20)
    with serving(_grafana(**{SEARCH: (200, b" " * (1 << 21), None)})) as url:
        (long,) = read_grafana(url, Access())
        monkeypatch.setattr(servers, "MAX_BYTES", 1 << 30)
        monkeypatch.setattr(servers, "ANSWER_SECONDS", -1)
        (slow,) = read_grafana(url, Access())

    assert Unreadable(url, "answers with more than 1 MiB") == long
    assert Unreadable(url, "takes more than -1 s for an answer") == slow


def test_tls(tmp_path: Path) -> None:
    """A certificate must be signed by whom this machine trusts, or the authority that is named; for that name."""
    write_certificates(tmp_path)
    with serving(_grafana(), tmp_path) as url:
        (stranger,) = read_grafana(url, Access(token=TOKEN))
        known = list(read_grafana(url, Access(token=TOKEN, ca_file=tmp_path / "ca.crt")))
        other = url.replace("localhost", "127.0.0.2")
        (named_otherwise,) = read_grafana(other, Access(ca_file=tmp_path / "ca.crt"))
    with serving(_grafana()) as plain:
        (no_tls,) = read_grafana(plain.replace("http:", "https:"), Access())

    assert [True] * 3 == [isinstance(one, Document) for one in known]
    assert isinstance(stranger, Unreadable)
    assert stranger.message.startswith("has a certificate that is not trusted: ")
    assert isinstance(named_otherwise, Unreadable)
    assert isinstance(no_tls, Unreadable)
    assert no_tls.message.startswith("cannot be spoken to by TLS: ")


def test_files_of_authorities(tmp_path: Path) -> None:
    """A file that holds no authority, or is not there, is named."""
    (tmp_path / "empty").touch()

    assert [f"{tmp_path}/none: No such file or directory", f"{tmp_path}/empty: holds no certificates"] == [
        one.message
        for name in ("none", "empty")
        for one in read_grafana("https://localhost", Access(ca_file=tmp_path / name))
        if isinstance(one, Unreadable)
    ]


def _raw(answer: bytes) -> tuple[socket.socket, threading.Thread]:
    """Return a listener that says something to whoever comes, and hangs up; or says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.settimeout(PATIENCE)
            client.recv(65536)
            if answer:
                client.sendall(answer)
            else:
                client.recv(65536)  # until the other side gives up

    thread = threading.Thread(target=serve)
    thread.start()
    return listener, thread


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "answers with something that is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n[", "answers /api/search with something that is no JSON"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "answers with something that is no HTTP"),
        (b"", "says nothing for 0.1 s"),
    ],
)
def test_what_is_no_http(monkeypatch: pytest.MonkeyPatch, answer: bytes, message: str) -> None:
    """Other protocols, answers that break off, and silence are one line."""
    monkeypatch.setattr(servers, "SILENCE_SECONDS", 0.1 if not answer else PATIENCE)
    listener, thread = _raw(answer)
    with listener:
        (unreadable,) = read_grafana(f"http://localhost:{listener.getsockname()[1]}", Access())
        thread.join()

    assert isinstance(unreadable, Unreadable)
    assert message == unreadable.message


def test_nobody_there() -> None:
    """A server that is not there, or has no such name, is told."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (refused,) = read_grafana(f"http://localhost:{port}", Access())

    assert Unreadable(f"http://localhost:{port}", "Connection refused") == refused


@pytest.mark.parametrize(
    ("url", "name", "message"),
    [
        ("grafana.example", "grafana.example", "is no address"),
        ("file:///etc/passwd", "file:///etc/passwd", "is no address"),
        ("http://", "http://", "is no address"),
        ("http://host:port", "http://host:port", "is no address"),
        ("http://ho st", "http://ho st", "is no address"),
        ("http://host/\r\nX: y", "http://host/ X: y", "is no address"),
        ("http://[::1", "http://[::1", "is no address"),
        (f"http://me:{TOKEN}@host", "http://host", "has a user or password in its address"),
        (f"http://me:{TOKEN}/x@host", "http://host", "is no address"),
        (f"http://host/?token={TOKEN}", "http://host", "has a query in its address"),
    ],
)
def test_addresses(url: str, name: str, message: str) -> None:
    """What is no address of a server is told, and no secret in it is repeated."""
    (unreadable,) = read_grafana(url, Access())

    assert isinstance(unreadable, Unreadable)
    assert name == unreadable.name
    assert unreadable.message.startswith(message)


def test_secrets(tmp_path: Path) -> None:
    """A token comes from a file, on one line; one that could break a request is refused, and never repeated."""
    (tmp_path / "good").write_text(f"{TOKEN}\n")
    (tmp_path / "bad").write_text(f"{TOKEN}\nX-Other: header\n")
    (tmp_path / "empty").touch()
    (tmp_path / "bytes").write_bytes(b"\xff")

    (tmp_path / "password").write_text("Käse und Brot\n")

    assert TOKEN == secret_in(tmp_path / "good")
    assert "Käse und Brot" == secret_in(tmp_path / "password")
    for name in ("bad", "empty", "bytes"):
        with pytest.raises(ServerError, match=f"/{name}: holds no token or password on one line"):
            secret_in(tmp_path / name)
    with pytest.raises(ServerError, match="/none: No such file or directory"):
        secret_in(tmp_path / "none")
    (unreadable,) = read_grafana("http://localhost", Access(token=f"{TOKEN}\r\nX: y"))
    assert isinstance(unreadable, Unreadable)
    assert "the token has other than printable ASCII in it" == unreadable.message
    assert TOKEN not in repr(Access(token=TOKEN, password=TOKEN))


@pytest.mark.parametrize(
    "value", [None, 7, [], {}, {"groups": 7}, {"groups": [{"rules": 7}]}, {"data": {"groups": [1]}}]
)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"status": "success", "data": value}])
def test_any_answer(value: Any, wrap: Callable[[Any], Any]) -> None:
    """Whatever a server answers is a document or a line."""
    answer = (200, wrap(value), None)
    answers = Answers(
        **dict.fromkeys(("/api/v1/rules", "/api/v1/metadata", "/api/dashboards/uid/a"), answer),
        **{SEARCH: (200, [{"uid": "a"}, 7, {"uid": []}], None), "/api/v1/provisioning/alert-rules": answer},
    )
    with serving(answers) as url:
        read, _ = read_prometheus(url, Access())
        read += read_grafana(url, Access())

    assert all(isinstance(one, Document | Unreadable) for one in read)
    assert f"{url}/d/a" in [one.name for one in read]
