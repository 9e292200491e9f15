"""Pages of other exporters as they are fetched, over loopback: the good, the broken and the hostile."""

import gzip
import itertools
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest
from exporter import Answer, Exporter, page
from rigs import until

from spark_agent.agent import neighbours
from spark_agent.agent.misread import Page
from spark_agent.agent.neighbours import Neighbours, fetch, urls

CHASSIS = 'all_smi_chassis_power_watts{hostname="spark-1",instance="spark-1"} 4.05\n'
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def fault(answer: Answer, timeout: float = 5.0, deadline: float = 10.0) -> str:
    """Return why a page cannot be had."""
    with Exporter(answer) as exporter:
        got = fetch(exporter.url, timeout, deadline)
    assert () == got.claims
    return got.fault


def _told(got: Page) -> list[tuple[str, float]]:
    assert "" == got.fault
    return [(claim.series, claim.watts) for claim in got.claims]


# --- one page ---------------------------------------------------------------------------------------------------------


def test_a_page_is_what_it_claims() -> None:
    """From the path and with the query of its URL."""
    with Exporter(page(CHASSIS)) as exporter:
        got = fetch(f"{exporter.url}?collect=power")
        assert [("all_smi_chassis_power_watts", 4.05)] == _told(got)
        assert ["/metrics?collect=power"] == exporter.asked


def test_a_page_of_openmetrics() -> None:
    """Where an exporter speaks nothing else."""
    with Exporter(page(f"# TYPE all_smi_chassis_power_watts gauge\n{CHASSIS}# EOF\n", media=OPENMETRICS)) as exporter:
        assert [("all_smi_chassis_power_watts", 4.05)] == _told(fetch(exporter.url))


def test_a_page_in_pieces() -> None:
    """Lines are put together, wherever the network cuts them."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Content-Type", "text/plain")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for letter in CHASSIS.encode():
            request.wfile.write(b"1\r\n%c\r\n" % letter)
            request.wfile.flush()
        request.wfile.write(b"0\r\n\r\n")

    with Exporter(answer) as exporter:
        assert [("all_smi_chassis_power_watts", 4.05)] == _told(fetch(exporter.url))


def test_a_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says."""
    with Exporter(page("up 1\n")) as proxy, Exporter(page(CHASSIS)) as exporter:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert 1 == len(fetch(exporter.url).claims)
        assert [] == proxy.asked


def test_a_redirect_is_not_followed() -> None:
    """It would lead from loopback to anywhere."""
    with Exporter(page(CHASSIS)) as elsewhere:
        assert "it answers 302" == fault(page("", 302, Location=elsewhere.url))
        assert [] == elsewhere.asked


def _endless(line: bytes) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/plain")
        request.end_headers()
        for _ in itertools.count():
            request.wfile.write(line)

    return answer


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (page("not found", 404), "it answers 404"),
        (page(CHASSIS, 500), "it answers 500"),
        (page("<html>", media="text/html"), "it answers with 'text/html', not with metrics"),
        (page("{}", media="application/json"), "it answers with 'application/json', not with metrics"),
        (page("<html>"), "no metrics"),
        (page(""), "no metrics"),
        (
            page(gzip.compress(bytes(1 << 24)), Content_Encoding="gzip"),
            "it answers with 'gzip', which nobody asked for",
        ),
        (page(b"up 1\n\xff\xfe\n"), "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (page(f"{CHASSIS}system_power_watts{{\n"), "could not convert string to float: '{'"),
        (page(f"{CHASSIS}system_power_watts x\n"), "could not convert string to float: 'x'"),
        (_endless(b"up 1\n" * 10_000), "its page has more than 200000 lines"),
        (_endless(b'up{of="%s"} 1\n' % (b"x" * 1000) * 100), "its page is larger than 16 MiB"),
        (_endless(b"x" * 100_000), "a line is longer than 64 KiB"),
    ],
)
def test_what_is_no_page_of_metrics(answer: Answer, says: str) -> None:
    """Each is one line that says why, and no claim."""
    assert says == fault(answer)


def test_who_hangs_is_given_up() -> None:
    """Before the answer, and in it."""
    with Exporter(page("")) as exporter:
        exporter.answer = exporter.hang
        assert Page(exporter.url, fault="no answer within 0.05 s") == fetch(exporter.url, 0.05)

    def answer(request: BaseHTTPRequestHandler) -> None:
        page(CHASSIS, Content_Length="1000")(request)
        request.close_connection = False
        exporter.over.wait()

    with Exporter(answer) as exporter:
        assert Page(exporter.url, fault="no answer within 0.05 s") == fetch(exporter.url, 0.05)


def test_who_drips_is_given_up() -> None:
    """A page has an end, and comes to it in time."""
    assert "its page takes too long" == fault(_endless(b"up 1\n"), deadline=0.0)


def test_what_speaks_no_http_is_a_fault() -> None:
    """As a port may be anything's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def speak() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1 << 16)
                peer.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        threading.Thread(target=speak, daemon=True).start()
        assert fetch(f"http://127.0.0.1:{port}/metrics").fault.startswith("SSH-2.0-OpenSSH_9.6")


def test_nothing_listens() -> None:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "Connection refused" in fetch(f"http://127.0.0.1:{port}/metrics").fault


def test_https_is_checked() -> None:
    """What is no TLS, or nobody vouches for, is a fault."""
    with Exporter(page(CHASSIS)) as exporter:
        assert fetch(exporter.url.replace("http", "https")).fault


# --- all of them, again and again -------------------------------------------------------------------------------------


@contextmanager
def started(*exporters: str) -> Iterator[Neighbours]:
    """Yield what fetches these pages without a pause."""
    one = Neighbours(exporters, 0.01)
    one.start()
    try:
        yield one
    finally:
        one.stop()


def test_the_usual_ports_are_those_of_this_machine() -> None:
    """Each page is asked for once, named or not."""
    found = urls(("defaults", "http://127.0.0.1:9400/metrics", "http://10.0.0.1:9400/metrics"))
    assert len(neighbours.PORTS) + 1 == len(found)
    assert all(url.startswith("http://127.0.0.1:") or is_named for url, is_named in found.items())
    assert found["http://127.0.0.1:9400/metrics"]


def test_one_that_hangs_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does one that is not there. What changes shows, and is logged once."""
    caplog.set_level(logging.INFO)
    with Exporter(page(CHASSIS)) as good, Exporter(page("")) as bad, Exporter(page("")) as hung:
        hung.answer = hung.hang
        bad.answer = page("", 404)
        with started(good.url, bad.url, hung.url) as one:

            def told() -> dict[str, Page]:
                return {got.url: got for got in one.pages()}

            until(lambda: len(bad.asked) > 3 and len(good.asked) > 3)
            assert {good.url, bad.url} == told().keys()
            assert "it answers 404" == told()[bad.url].fault
            assert 1 == caplog.text.count("cannot be looked at")
            assert ["/metrics"] == hung.asked, "asked once, and waited for"
            bad.answer = page(CHASSIS)
            until(lambda: told()[bad.url].claims)
            assert 1 == caplog.text.count("can be looked at again")


def test_a_usual_port_that_is_no_exporter_is_not_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A web page on port 8000 is nobody's fault; one that was an exporter, and is no more, is told."""
    with Exporter(page("<html>", media="text/html")) as other:
        monkeypatch.setattr(neighbours, "PORTS", (other.port,))
        with started("defaults") as one:
            until(lambda: len(other.asked) > 2)
            assert () == one.pages()
            assert "" == caplog.text
            other.answer = page(CHASSIS)
            until(one.pages)
            other.answer = page("", 404)
            until(lambda: one.pages()[0].fault)
            assert f"exporter {other.url} cannot be looked at: it answers 404" in caplog.text
