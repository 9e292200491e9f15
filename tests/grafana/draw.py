"""Hold the dashboards against Grafana's types, and draw them for ``docs/images``.

Real daemons tell of synthetic machines, a real Prometheus scrapes them, and Grafana's own components draw.
``python tests/grafana/draw.py`` needs node, npm, Chromium and what ``scripts/prometheus.sh`` fetches. There is no
Grafana server in it, so a picture shows what our JSON means to Grafana's components, and no import into a server.
"""

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from daemon import Daemon
from prometheus.server import Prometheus, job
from rigs import program, until

HERE: Final = Path(__file__).parent
REPO: Final = HERE.parent.parent
WORK: Final = REPO / ".rigs" / "grafana"
MACHINES: Final = ("fe-gemm", "fe-stock", "fe-wedged", "fe-idle")
#: Seconds of scrapes that a picture shows: the timelines of the machines end after a minute.
SECONDS: Final = 57
WIDTH: Final = 1220


@dataclass(frozen=True)
class Picture:
    """A dashboard, for which machines, and its first and last row."""

    name: str
    dashboard: str
    machines: str
    rows: tuple[int, int]


PICTURES: Final = (
    Picture("dashboard-spark", "spark", "fe-gemm", (0, 1)),
    Picture("dashboard-spark-gpu-only", "spark", "fe-stock", (0, 1)),
    Picture("dashboard-spark-devices", "spark", "fe-gemm", (3, 5)),
    Picture("dashboard-watts", "watts", "fe-gemm", (0, 3)),
    Picture("dashboard-fleet", "fleet", "|".join(MACHINES), (0, 2)),
)


def build() -> None:
    """Fetch Grafana's components and bundle the page."""
    WORK.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "package.json", WORK)
    if not (WORK / "node_modules").is_dir():
        # No package may run anything; and peers that Grafana names beside its own are not needed.
        flags = ("--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund")
        subprocess.run(["npm", "install", *flags], cwd=WORK, check=True)
    for name in ("page.jsx", "page.html"):
        shutil.copy(HERE / name, WORK)
    shutil.copy(WORK / "node_modules" / "uplot" / "dist" / "uPlot.min.css", WORK)
    options = ("--bundle", "--format=esm", "--outfile=out.js", "--log-level=error", "--jsx=transform")
    loaders = ("--loader:.svg=dataurl", "--loader:.ttf=empty", "--define:process.env.NODE_ENV='production'")
    subprocess.run(["node_modules/.bin/esbuild", "page.jsx", *options, *loaders], cwd=WORK, check=True)
    for path in (REPO / "dashboards").glob("*.json"):
        shutil.copy(path, WORK)
        check_types(path)


# Their enumerations are TypeScript's, of which JSON has the words.
_TYPES: Final = """\
import type {Dashboard} from '@grafana/schema';
type Words<T> = T extends string ? `${T}` : T extends (infer One)[] ? Words<One>[]
  : T extends object ? {[Key in keyof T]: Words<T[Key]>} : T;
export const dashboard: Words<Dashboard> = """


def check_types(path: Path) -> None:
    """Hold a dashboard against the types of `@grafana/schema`; where it does not fit, the compiler says so."""
    (WORK / "check.ts").write_text(_TYPES + path.read_text())
    flags = ("--noEmit", "--strict", "--skipLibCheck", "--module", "preserve", "--moduleResolution", "bundler")
    subprocess.run(["node_modules/.bin/tsc", *flags, "check.ts"], cwd=WORK, check=True)


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """Serve a folder on loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def browse(chromium: str, url: str, height: int, *command: str) -> str:
    """Let Chromium load a page, and return what it writes."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=20000")
    size = f"--window-size={WIDTH},{height}"
    done = subprocess.run([chromium, *flags, size, *command, url], capture_output=True, text=True, check=True)
    return done.stdout


def draw(picture: Picture, port: int, prometheus: int, now: int, out: Path) -> None:
    """Draw one picture; what Grafana's components complained of ends it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or "google-chrome"
    first, last = picture.rows
    query = urllib.parse.urlencode(
        {
            "dashboard": f"spark-agent-{picture.dashboard}.json",
            "prometheus": prometheus,
            "machines": picture.machines,
            "rows": f"{first}-{last}",
            "now": now,
            "seconds": SECONDS,
        }
    )
    url = f"http://127.0.0.1:{port}/page.html?{query}"
    page = browse(chromium, url, 900, "--dump-dom")
    found = {name: html.unescape(value) for name, value in re.findall(r'data-(wrong|height)="([^"]*)"', page)}
    if "height" not in found:
        sys.exit(f"{picture.name}: nothing was drawn\n{page[-2000:]}")
    # Translations are a server's part; without them Grafana's components speak English, and say so once.
    if wrong := [one for one in json.loads(found["wrong"]) if "before i18n was initialized" not in one]:
        sys.exit("\n".join((f"{picture.name}:", *wrong)))
    browse(chromium, url, int(found["height"]), f"--screenshot={out / picture.name}.png")
    sys.stdout.write(f"{out / picture.name}.png\n")


def main() -> None:
    """Draw all pictures, or those that are named."""
    named = set(sys.argv[1:])
    build()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        jobs = []
        for name in MACHINES:
            for part in (name, f"{name}-state"):
                (folder / part).mkdir()
            flag = f"--state.directory={folder / f'{name}-state'}"
            daemon = stack.enter_context(Daemon(folder / name, flag, machine=("--demo", name)))
            jobs.append(job(name, daemon.port))
        (folder / "prometheus").mkdir()
        server = stack.enter_context(Prometheus.scraping(program("PROMETHEUS"), folder / "prometheus", jobs))
        until(lambda: server.scrapes(MACHINES[-1]) >= SECONDS)
        now = int(time.time()) - 1
        port = stack.enter_context(served(WORK))
        for picture in PICTURES:
            if not named or picture.name in named:
                draw(picture, port, server.port, now, REPO / "docs" / "images")


if __name__ == "__main__":
    main()
