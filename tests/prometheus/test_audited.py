"""What a real Prometheus says of its rules is what we read in their file."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus.server import job
from rigs import running, until

from spark_agent.agent.audit.claim import Document
from spark_agent.agent.audit.files import read
from spark_agent.agent.audit.servers import Access, read_prometheus

pytestmark = pytest.mark.rig

RULES = """\
groups:
  - name: gpu
    rules:
      - record: cluster:gpu_power_watts:sum
        expr: sum(DCGM_FI_DEV_POWER_USAGE)
      - alert: GpuHot
        expr: |
          DCGM_FI_DEV_GPU_TEMP > 85
        for: 5m
        labels: {severity: warning}
        annotations:
          summary: "{{ $labels.instance }} is hot"
  - name: other
    rules:
      - {alert: Down, expr: up == 0}
"""


def test_rules_of_a_server(rig: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File and server make the same claims."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    rules, config = tmp_path / "rules.yml", tmp_path / "prometheus.yml"
    rules.write_text(RULES)
    config.write_text(json.dumps({"rule_files": [str(rules)]}))
    flags = (f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}")
    with running(tmp_path, rig("PROMETHEUS"), *flags) as process:
        url = f"http://127.0.0.1:{process.port}"

        def served() -> list[Document]:
            # Until it has loaded its rules it answers with none, or not at all.
            return [one for one in read_prometheus(url, Access())[0] if isinstance(one, Document)]

        (of_server,) = until(served)
    (of_file,) = read([str(rules)])

    assert isinstance(of_file, Document)
    assert f"{url} {rules}" == of_server.name
    assert [
        (one.shape, one.where, one.title, one.queries[0].expr.strip(), one.description, one.context, one.labels)
        for one in of_file.claims
    ] == [
        (one.shape, one.where, one.title, one.queries[0].expr, one.description, one.context, one.labels)
        for one in of_server.claims
    ]


_HEAD = "groups:\n- name: g\n  rules:\n"


@pytest.mark.parametrize(
    ("rules", "is_good"),
    [
        ("groups:\n", True),
        ("groups: [{name: a}]\n", True),
        ('{"groups": [{"name": "a", "rules": [{"alert": "A", "expr": "up"}]}]}', True),
        ("\ufeff" + _HEAD + "  - {alert: yes, expr: 1, labels: {a: 1, b: true}}\n", True),
        (_HEAD + "  - &x {alert: A, expr: up}\n  - <<: *x\n    alert: B\n  - *x\n", True),
        (_HEAD.replace("\n", "\r\n") + "  - {alert: A, expr: up}\r\n", True),
        ("groups: {a: b}\n", False),
        (_HEAD + "  - {alert: A, alert: B, expr: up}\n", False),
        (_HEAD + "  - {alert: A, record: b, expr: up}\n", False),
        (_HEAD + "  - {alert: A}\n", False),
        (_HEAD + "  - {expr: up}\n", False),
        (_HEAD + "\t- {alert: A, expr: up}\n", False),
    ],
)
def test_what_is_a_rule_file(rig: Callable[[str], str], tmp_path: Path, rules: str, is_good: bool) -> None:
    """What promtool takes is read without a fault, and what it cannot read is told."""
    path = tmp_path / "rules.yml"
    path.write_text(rules, newline="")
    checked = subprocess.run([rig("PROMTOOL"), "check", "rules", path], capture_output=True, check=False)

    assert (is_good, is_good) == (checked.returncode == 0, all(isinstance(one, Document) for one in read([str(path)])))


def test_types_of_a_server(rig: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The types of all that is scraped are known."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    config = tmp_path / "prometheus.yml"
    with running(tmp_path, rig("NODE_EXPORTER"), "--collector.disable-defaults", "--collector.time") as exporter:
        pace = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        config.write_text(json.dumps({"global": pace, "scrape_configs": [job("node", exporter.port)]}))
        folder = tmp_path / "prometheus"
        folder.mkdir()
        flags = (f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}")
        with running(folder, rig("PROMETHEUS"), *flags) as process:
            url = f"http://127.0.0.1:{process.port}"
            types = until(lambda: read_prometheus(url, Access())[1])

    assert ("gauge", "counter") == (types["node_time_seconds"], types["process_cpu_seconds_total"])
