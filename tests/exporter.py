"""An exporter on loopback that answers what a test says, well or badly."""

import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self

Answer = Callable[[BaseHTTPRequestHandler], None]

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


def page(text: str | bytes, status: int = 200, media: str = TEXT, **headers: str) -> Answer:
    """Return what answers with a page; ``_`` in the name of a header is a hyphen."""
    content = text if isinstance(text, bytes) else text.encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Type": media, **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


class Exporter:
    """Answers requests for the time of a ``with``, each in a thread; ``answer`` may be replaced meanwhile."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        #: The paths that were asked for.
        self.asked: list[str] = []
        #: Set at the end: who hangs waits for it.
        self.over = threading.Event()
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                exporter.asked.append(self.path)
                with suppress(OSError):  # who asked has gone
                    exporter.answer(self)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/metrics"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def hang(self, _: BaseHTTPRequestHandler) -> None:
        """Answer nothing until the end."""
        self.over.wait()
