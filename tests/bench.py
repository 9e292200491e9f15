"""What a start, a look and the daemon cost here: ``make bench``. Ratios within one run; nothing is asserted.

A start is a process of its own, its cost the processor time of its children (user and system), the median of several.
A look is held against reading the same files by hand: every file that the look read, opened, read and closed.
The estimate is held against published readings of whole systems; docs/estimate.md has them row by row.
The audit is of dashboards as large as people's, made here; a quarter of their panels is wrong.
"""

import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import bench_daemon
import estimates
from imagine import build, write_folder

from spark_agent.agent.machine import demos, open_machine
from spark_agent.agent.snapshot import look
from spark_agent.collectors import declarations, discover
from spark_agent.collectors._tree import LiveTree

REPO = Path(__file__).parent.parent
RUNS = 15


def processor_seconds(*command: str) -> float:
    """Return the processor time of one run of a command, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(REPO / ".namespace")}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def median(measured: Callable[[], float], runs: int = RUNS) -> float:
    """Return the median of several runs; the first, which warms caches, does not count."""
    measured()
    return statistics.median(measured() for _ in range(runs))


class CountingTree(LiveTree):
    """The live tree, which remembers what was read."""

    def read(self, path: str) -> bytes:
        """Read, and remember."""
        content = super().read(path)
        READ.append(path)
        return content


READ: list[str] = []


def seconds(work: Callable[[], object]) -> float:
    """Return the time that some work takes on this processor, in seconds."""
    started = time.process_time()
    work()
    return time.process_time() - started


def bare(root: str, paths: list[str]) -> None:
    """Read files with nothing around it."""
    for path in paths:
        fd = os.open(root + path, os.O_RDONLY)
        os.read(fd, 65536)
        os.close(fd)


#: Titles and expressions by turns, of which one is wrong.
PANELS = (
    ("GPU power of {}", 'sum by (instance, gpu) (DCGM_FI_DEV_POWER_USAGE{{instance=~"$node", job="{}"}})'),
    ("Node power of {}", 'sum by (instance) (avg_over_time(nvidia_smi_power_draw_watts{{job="{}"}}[$__interval]))'),
    ("Temperature of {}", 'max by (instance) (DCGM_FI_DEV_GPU_TEMP{{instance=~"$node", job="{}"}}) > 20'),
    ("Tokens of {}", 'sum(rate(vllm:generation_tokens_total{{job="{}"}}[$__rate_interval])) or vector(0)'),
)
DASHBOARDS = 1000
PANELS_EACH = 30


def dashboard(number: int) -> str:
    """Return a dashboard of some 60 kB, as Grafana writes it."""
    panels = []
    for index in range(PANELS_EACH):
        title, expr = (text.format(f"lab-{number}-{index}") for text in PANELS[index % len(PANELS)])
        steps = [{"color": color, "value": value} for color, value in (("green", None), ("orange", 60), ("red", 90))]
        look = {
            "axisBorderShow": False, "axisCenteredZero": False, "axisColorMode": "text", "axisLabel": "",
            "axisPlacement": "auto", "barAlignment": 0, "drawStyle": "line", "fillOpacity": 10, "gradientMode": "none",
            "hideFrom": {"legend": False, "tooltip": False, "viz": False}, "insertNulls": False, "lineWidth": 1,
            "lineInterpolation": "linear", "pointSize": 5, "scaleDistribution": {"type": "linear"}, "spanNulls": False,
            "showPoints": "never", "stacking": {"group": "A", "mode": "none"}, "thresholdsStyle": {"mode": "off"},
        }  # fmt: skip
        panels.append(
            {
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "description": "What it is, where it comes from, and what to do when it is high. ",
                "fieldConfig": {
                    "defaults": {"custom": look, "thresholds": {"mode": "absolute", "steps": steps}},
                    "overrides": [],
                },
                "gridPos": {"h": 8, "w": 12, "x": index % 2 * 12, "y": index // 2 * 8},
                "id": index,
                "targets": [{"expr": expr, "legendFormat": "{{instance}}", "refId": "A"}],
                "title": title,
                "type": "timeseries",
            }
        )
    return json.dumps({"panels": panels, "schemaVersion": 39, "title": f"Lab {number}"}, indent=2)


def main() -> None:
    """Measure, and print."""
    # Told to end, it takes what it started along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    python = (sys.executable, "-m", "spark_agent.agent")
    empty = median(lambda: processor_seconds(sys.executable, "-c", "pass"))
    print("processor seconds of a process, median of", RUNS)
    for name, command in (
        ("python -c pass", (sys.executable, "-c", "pass")),
        ("spark-agent --help", (*python, "--help")),
        ("--demo fe-gemm snapshot", (*python, "--demo", "fe-gemm", "snapshot")),
        ("--demo fe-gemm snapshot -o json", (*python, "--demo", "fe-gemm", "snapshot", "--output", "json")),
        ("snapshot of this machine", (*python, "snapshot")),
    ):
        cost = median(partial(processor_seconds, *command))
        print(f"  {name:34} {cost:6.3f} s   {cost / empty:5.1f} × an empty Python")

    collectors = discover()
    declarations()
    with tempfile.TemporaryDirectory() as folder:
        write_folder(build("fe-gemm"), Path(folder))
        machine = open_machine(Path(folder))
        root = f"{folder}/root"
        # Links in the folder are relative, so the live tree can walk it where it lies.
        on_disk = replace(machine.host, tree=CountingTree(root))
        READ.clear()
        look(on_disk, collectors)
        paths = list(READ)
        in_memory = median(lambda: seconds(lambda: look(machine.host, collectors)), 50)
        from_disk = median(lambda: seconds(lambda: look(replace(on_disk, tree=LiveTree(root)), collectors)), 50)
        by_hand = median(lambda: seconds(lambda: bare(root, paths)), 50)
    print(f"one full look at fe-gemm ({len(paths)} files, {len(collectors)} collectors), processor time, median of 50")
    print(f"  reading those files by hand        {by_hand * 1e3:6.2f} ms   1.0")
    print(f"  a look, files on disk              {from_disk * 1e3:6.2f} ms   {from_disk / by_hand:.1f} × that")
    print(f"  a look, files in memory            {in_memory * 1e3:6.2f} ms   {in_memory / by_hand:.1f} × that")
    print(f"({len(demos())} demos)")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(DASHBOARDS):
            (Path(folder) / f"{number}.json").write_text(dashboard(number))
        plain = seconds(lambda: [json.loads(path.read_bytes()) for path in Path(folder).iterdir()])
        cost = processor_seconds(*python, "audit", folder, "--output", "json")
    print(
        f"audit of {DASHBOARDS} dashboards of {len(dashboard(0)) / 1e3:.0f} kB and {PANELS_EACH} panels, processor time"
    )
    print(f"  reading them as JSON               {plain:6.2f} s    1.0")
    print(f"  spark-agent audit                  {cost:6.2f} s   {cost / plain:.1f} × that")
    for line in estimates.report():
        print(line)
    print("the daemon, beside node_exporter; MB are of a million bytes, all figures of this machine, not of a Spark")
    for line in bench_daemon.report():
        print(line, flush=True)


if __name__ == "__main__":
    main()
