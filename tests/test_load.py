"""The whole daemon under many clients, some of whom mean no good: it looks on, serves honest ones, and stays small.

Nothing is timed: a number of scrapes is asked for, while others do what they can to be in the way.
"""

import asyncio
import base64
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import bcrypt
import pytest
from daemon import Daemon
from rigs import PATIENCE, metronome

pytestmark = pytest.mark.rig

#: Of each client.
SCRAPES = 50
#: What a daemon can hold open.
CONNECTIONS = 256

#: What a flood may cost. A daemon holds some 35 MB; without bounds on what it buffers, a flood costs hundreds.
MOST_GROWTH = 30_000_000


async def _response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return int(head.split()[1]), await reader.readexactly(int(length.split()[1]))


class _Scraper:
    """A client as Prometheus is one: keeps its connection, and opens another where that was closed meanwhile."""

    def __init__(self, port: int, *headers: str) -> None:
        self._port = port
        self._request = "\r\n".join(("GET /metrics HTTP/1.1", "Host: localhost", *headers, "", "")).encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def scrape(self) -> int:
        """Return the status of one scrape; raises `ConnectionError` where a new connection is none."""
        if self._streams:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                return await self._ask(*self._streams)
            self.close()
        self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return await self._ask(*self._streams)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        writer.write(self._request)
        status, _ = await _response(reader)
        return status

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()

    async def many(self, times: int) -> list[int]:
        """Return the statuses of many scrapes, one after the other."""
        try:
            return [await self.scrape() for _ in range(times)]
        finally:
            self.close()


async def _dawdle(port: int, begun: list[int], losses: Callable[[], int]) -> None:
    """Begin a request and never end it, byte by byte; again and again, whenever the server has had enough."""
    while True:
        with contextlib.suppress(ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
                begun.append(port)
                while True:
                    await asyncio.sleep(0.1)  # the pace of the attack
                    writer.write(b"a")
                    await writer.drain()
            finally:
                writer.close()
        losses()


async def _while(
    *others: Awaitable[None], honest: list[Awaitable[list[int]]], when: Callable[[], bool] = lambda: True
) -> set[int]:
    """Return what honest clients were answered while others were at work, which they are from ``when`` on."""
    attack = asyncio.gather(*others)
    try:
        while not when():
            await asyncio.sleep(0.02)  # between two questions
        answered = await asyncio.wait_for(asyncio.gather(*honest), PATIENCE)
    finally:
        attack.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await attack
    return {status for statuses in answered for status in statuses}


@pytest.mark.parametrize(("scrapers", "dawdlers"), [(200, 100), (20, 300)])
@pytest.mark.parametrize("machine", [("--demo", "fe-gemm"), ()], ids=["replayed", "live"])
def test_scrapers_and_dawdlers(tmp_path: Path, machine: tuple[str, ...], scrapers: int, dawdlers: int) -> None:
    """All scrape as fast as they can while slow ones take the connections that are left, or all: each is answered.

    Of a replayed machine, and of this one, whose files are read while the loop is busy.
    """
    assert scrapers + dawdlers > CONNECTIONS
    lost = itertools.count()
    begun: list[int] = []
    with metronome(tmp_path) as stalls, Daemon(tmp_path, machine=machine) as daemon:
        assert [200] * 5 == [daemon.get()[0] for _ in range(5)]
        before = daemon.resident_bytes()

        told = asyncio.run(
            _while(
                *(_dawdle(daemon.port, begun, lambda: next(lost)) for _ in range(dawdlers)),
                honest=[_Scraper(daemon.port).many(SCRAPES) for _ in range(scrapers)],
                when=lambda: len(begun) >= dawdlers,
            )
        )

        assert {200} == told
        assert next(lost) > 0, "the server was never short of connections"
        assert 200 == daemon.get("/-/healthy")[0]
        assert daemon.sample("spark_agent_beats_missed_total") <= stalls()
        assert daemon.resident_bytes() - before < MOST_GROWTH
        assert 0 == daemon.stop()
    assert "level=error" not in daemon.log


def _authorization(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_wrong_passwords(tmp_path: Path) -> None:
    """Fifty who guess do not stop who knows: bcrypt is dear, so its verdicts are remembered and its queue is short."""
    hashed = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(10)).decode()
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{prometheus: '{hashed}'}}\n")
    known = _authorization("prometheus", "open sesame")
    refused: list[int] = []

    async def guess(port: int, name: int) -> None:
        for number in itertools.count():
            headers = f"Authorization: {_authorization('prometheus', f'{name} {number}')}"
            refused.extend(await _Scraper(port, headers).many(1))

    with metronome(tmp_path) as stalls, Daemon(tmp_path, f"--web.config.file={tmp_path / 'web.yml'}") as daemon:
        assert 200 == daemon.get(Authorization=known)[0]
        before = daemon.resident_bytes()

        told = asyncio.run(
            _while(
                *(guess(daemon.port, name) for name in range(50)),
                honest=[_Scraper(daemon.port, f"Authorization: {known}").many(SCRAPES) for _ in range(50)],
            )
        )

        assert {200} == told
        assert {401, 503} >= {*refused}
        assert refused
        assert daemon.resident_bytes() - before < MOST_GROWTH
        assert daemon.sample("spark_agent_beats_missed_total", Authorization=known) <= stalls()
