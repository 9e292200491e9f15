"""A Prometheus with a data directory of its own, and what it is asked afterwards."""

import http.client
import http.server
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rigs import PATIENCE, running, until

#: All that happened in a test's time.
ALL: Final = "[30m]"


@dataclass(frozen=True)
class Prometheus:
    """A running one, and the time for which it is asked; now where there is none.

    Until then the machine itself stood still so many times.
    """

    port: int
    at: float | None = None
    stalls: int = 0

    @classmethod
    @contextmanager
    def scraping(
        cls, binary: str, folder: Path, jobs: Sequence[Mapping[str, Any]], rules: str = ""
    ) -> Iterator["Prometheus"]:
        """Run one that scrapes these jobs once a second, and goes by these rules as often."""
        config = folder / "prometheus.yml"
        (folder / "rules.yml").write_text(rules, encoding="utf-8")
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        # JSON is YAML.
        config.write_text(json.dumps({"global": every, "rule_files": ["rules.yml"], "scrape_configs": list(jobs)}))
        with running(folder, binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}") as process:
            server = cls(process.port)
            until(server._is_ready)
            yield server

    def _is_ready(self) -> bool:
        # It listens before it has opened its data.
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=PATIENCE):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return False

    def api(self, path: str, **parameters: str) -> Any:
        """Return what its API says under ``/api/v1/``."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and values of an expression."""
        return [(one["metric"], float(one["value"][1])) for one in self._result(expression)]

    def samples(self, selector: str) -> list[tuple[dict[str, str], int]]:
        """Return the labels of each series that is selected, and how many samples it has."""
        return [(one["metric"], len(one["values"])) for one in self._result(f"{selector}{ALL}")]

    def _result(self, expression: str) -> Any:
        at = {} if self.at is None else {"time": f"{self.at:.3f}"}
        return self.api("query", query=expression, **at)["result"]

    def one(self, expression: str) -> float:
        """Return the value of an expression that has one."""
        ((_, value),) = self.query(expression)
        return value

    def scrapes(self, job: str) -> float:
        """Return how many scrapes of a job did not fail."""
        return sum(value for _, value in self.query(f'sum_over_time(up{{job="{job}"}}{ALL})'))

    def types(self, job: str) -> dict[str, str]:
        """Return the types of a job's metrics, by name."""
        told = self.api("targets/metadata", match_target=f'{{job="{job}"}}')
        return {one["metric"]: one["type"] for one in told}


def job(name: str, port: int, **more: Any) -> dict[str, Any]:
    """Return the configuration of a job with one target, called after it: a port that is free differs each time."""
    target = {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}}
    return {"job_name": name, "static_configs": [target], **more}


@contextmanager
def relay_of_text(port: int) -> Iterator[int]:
    """Relay an exporter's page in the text format, which Prometheus asks for only where there is no OpenMetrics."""

    class Relay(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            try:
                upstream.request("GET", self.path, headers={"Accept": "text/plain;version=0.0.4"})
                answer = upstream.getresponse()
                page = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers["Content-Type"])
                self.end_headers()
                self.wfile.write(page)
            finally:
                upstream.close()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
