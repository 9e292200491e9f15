"""The exporters that run beside this agent: their pages of metrics, each fetched in a thread of its own.

One that hangs, or never ends, costs its own result and nothing else. A page is read line by line and given up where
it is larger than any exporter's; a redirect is not followed, a proxy not asked, a compressed page not unpacked.
"""

import http.client
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit

from spark_agent.agent.config import WELL_KNOWN
from spark_agent.agent.misread import Page
from spark_agent.agent.pretenders import claims

log = logging.getLogger(__name__)

#: Where exporters of GPU, host or "system" power listen: node_exporter, dcgm-exporter, nvidia_gpu_exporter, all-smi,
#: nv-monitor, dgx-spark-exporter, a Spark exporter without a name, nvitop-exporter, Kepler.
PORTS: Final = (9100, 9400, 9835, 9090, 9101, 9876, 9273, 8000, 28282)
#: Seconds for which an exporter may say nothing at all, and in which its page must have come to its end.
TIMEOUT_SECONDS: Final = 5.0
DEADLINE_SECONDS: Final = 10.0
#: No exporter of one machine says so much.
MOST_BYTES: Final = 16 << 20
MOST_LINES: Final = 200_000
MOST_LINE_BYTES: Final = 64 << 10
_CHUNK_BYTES: Final = 64 << 10

_TEXT: Final = "text/plain"
_OPENMETRICS: Final = "application/openmetrics-text"
_ACCEPT: Final = f"{_OPENMETRICS};version=1.0.0;q=0.5,{_TEXT};version=0.0.4"


class PageError(Exception):
    """Why an exporter's page cannot be had, in one line."""


def urls(exporters: Iterable[str]) -> dict[str, bool]:
    """Return the pages to look at, each once, and whether there must be one: on a usual port there need not."""
    found: dict[str, bool] = {}
    for exporter in exporters:
        if exporter == WELL_KNOWN:
            for port in PORTS:
                found.setdefault(f"http://127.0.0.1:{port}/metrics", False)
        else:
            found[exporter] = True
    return found


def fetch(url: str, timeout: float = TIMEOUT_SECONDS, deadline: float = DEADLINE_SECONDS) -> Page:
    """Return what one exporter claims now, or why that cannot be had."""
    where = urlsplit(url)
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    client = kind(where.hostname or "", where.port, timeout=timeout)
    until = time.monotonic() + deadline
    try:
        path = f"{where.path}?{where.query}" if where.query else where.path
        client.request("GET", path, headers={"Accept": _ACCEPT, "Accept-Encoding": "identity"})
        answer = client.getresponse()
        media = _media_type(answer)
        return Page(url, claims(_lines(answer, until), is_openmetrics=media == _OPENMETRICS))
    except PageError as error:
        return Page(url, fault=str(error))
    except TimeoutError:
        return Page(url, fault=f"no answer within {timeout:g} s")
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        # LookupError: prometheus_client's parsers, of lines that are none.
        return Page(url, fault=_one_line(error))
    finally:
        client.close()


def _media_type(answer: http.client.HTTPResponse) -> str:
    """Return what an answer says that it is; raises a `PageError` where that is no page of metrics."""
    if answer.status != http.client.OK:
        raise PageError(f"it answers {answer.status}")
    if (coding := answer.headers.get("Content-Encoding", "identity").lower()) != "identity":
        raise PageError(f"it answers with {coding[:20]!r}, which nobody asked for")
    media = answer.headers.get_content_type()
    if media not in (_TEXT, _OPENMETRICS):
        raise PageError(f"it answers with {media[:40]!r}, not with metrics")
    return media


def _lines(answer: http.client.HTTPResponse, until: float) -> Iterator[str]:
    """Yield the lines of a page as they come; raises a `PageError` where they are too many, too long or too late."""
    rest, size, count = b"", 0, 0
    while chunk := answer.read1(_CHUNK_BYTES):
        size += len(chunk)
        if size > MOST_BYTES:
            raise PageError(f"its page is larger than {MOST_BYTES >> 20} MiB")
        if time.monotonic() > until:
            raise PageError("its page takes too long")
        *lines, rest = (rest + chunk).split(b"\n")
        count += len(lines)
        if count > MOST_LINES:
            raise PageError(f"its page has more than {MOST_LINES} lines")
        if len(rest) > MOST_LINE_BYTES:
            raise PageError(f"a line is longer than {MOST_LINE_BYTES >> 10} KiB")
        yield from (line.decode() for line in lines)
    yield rest.decode()


def _one_line(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in text[:120])


class Neighbours:
    """Fetches the pages of exporters again and again, and keeps of each the last."""

    def __init__(self, exporters: Iterable[str], interval: float) -> None:
        """Fetch nothing yet; each page every ``interval`` seconds."""
        self._urls = urls(exporters)
        self._interval = interval
        self._pages: dict[str, Page] = {}
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to fetch; a page that takes longer than the interval is waited for, not asked for again."""
        for url, is_named in self._urls.items():
            threading.Thread(target=self._listen, args=(url, is_named), name=url, daemon=True).start()

    def stop(self) -> None:
        """Fetch no more; who hangs is not waited for."""
        self._stop.set()

    def pages(self) -> tuple[Page, ...]:
        """Return the last page of each exporter that is there, or was; any thread may ask."""
        return tuple(self._pages.copy().values())

    def look(self) -> tuple[Page, ...]:
        """Fetch each page once, all at the same time, and return those that came in time."""
        until = time.monotonic() + DEADLINE_SECONDS
        threads = [threading.Thread(target=self._take, args=one, daemon=True) for one in self._urls.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return self.pages()

    def _listen(self, url: str, is_named: bool) -> None:
        while not self._stop.is_set():
            self._take(url, is_named)
            self._stop.wait(self._interval)

    def _take(self, url: str, is_named: bool) -> None:
        before = self._pages.get(url)
        page = fetch(url)
        if page.fault and before is None and not is_named:
            return  # whatever that port is used for here, it was no exporter so far
        if page.fault and (before is None or before.fault != page.fault):
            log.warning("exporter %s cannot be looked at: %s", url, page.fault)
        elif before and before.fault and not page.fault:
            log.info("exporter %s can be looked at again", url)
        self._pages[url] = page
