"""The daemon beside an exporter that tells the GPU's power as the machine's, from the setting to what is told."""

import json
import re
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon, copied
from exporter import Exporter, page
from jsonschema import Draft202012Validator
from rigs import until

from spark_agent.agent.audit.rule import RULES
from spark_agent.exporters.schema import schema

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
FLOOR = 'spark_agent_misread{kind="floor",series="all_smi_chassis_power_watts"}'
IDENTITY = 'spark_agent_misread{kind="identity",series="all_smi_chassis_power_watts"}'
FINDING = 'gb10_finding{id="misread_power",severity="warning"}'


def chassis(watts: float) -> str:
    """Return what all-smi says of its machine."""
    return f'# TYPE all_smi_chassis_power_watts gauge\nall_smi_chassis_power_watts{{hostname="s"}} {watts:.2f}\n'


def told(daemon: Daemon, series: str, **headers: str) -> float | None:
    """Return a sample of the daemon's page, if it is there."""
    _, text = daemon.get(**headers)
    found = (line.rpartition(" ") for line in text.splitlines())
    return next((float(value) for name, _, value in found if name == series), None)


def report(daemon: Daemon) -> dict[str, Any]:
    """Return the daemon's document, which fits its schema."""
    _, text = daemon.get("/api/v1/report")
    found: dict[str, Any] = json.loads(text)
    assert [] == [error.message for error in Draft202012Validator(schema(closed=True)).iter_errors(found)]
    return found


def test_a_chassis_of_4_w_is_told(tmp_path: Path) -> None:
    """In both formats, in the document, and as a finding with what to do; and that it was looked."""
    with (
        Exporter(page(chassis(4.05))) as exporter,
        Daemon(
            tmp_path,
            f"--misread.exporter={exporter.url}",
            "--misread.interval=1",
            "--beat=0.1",
            "--speed=10",  # the finding is told after half a minute
            machine=("--demo", "fe-stock"),
        ) as daemon,
    ):
        until(lambda: told(daemon, FINDING), lambda: daemon.log)
        assert 1 == told(daemon, FLOOR)
        assert 1 == told(daemon, FLOOR, Accept=OPENMETRICS)
        assert 1 == told(daemon, f'spark_agent_misread_exporter_success{{exporter="{exporter.url}"}}')
        found = report(daemon)
        misread = next(one for one in found["misreads"] if one["kind"] == "floor")
        assert ("all_smi_chassis_power_watts", exporter.url) == (misread["series"], misread["url"])
        assert (4.05, "W", "system", "untrusted") == tuple(
            misread["claimed"][key] for key in ("value", "unit", "scope", "quality")
        )
        (finding,) = (one for one in found["findings"] if one["id"] == "misread_power")
        assert "says 4.0 W; floor: a Spark draws no less than 15 W" in finding["evidence"][0]
        assert "docs/misreads.md" in finding["action"]
        exporter.answer = page("", 500)
        until(lambda: told(daemon, FLOOR) is None, lambda: daemon.log)
        assert 0 == told(daemon, f'spark_agent_misread_exporter_success{{exporter="{exporter.url}"}}')


def test_without_the_setting_nobody_is_asked(tmp_path: Path) -> None:
    """And nothing of it is told."""
    with Daemon(tmp_path, machine=("--demo", "fe-stock")) as daemon:
        assert "misreads" not in report(daemon)
        assert "spark_agent_misread" not in daemon.get()[1]


@pytest.mark.rig
def test_nvml_under_another_name_is_found_by_what_it_does(tmp_path: Path) -> None:
    """An exporter that tells the very reading, while the GPU works and rests; it is never below the floor."""
    watts = (62_000, 20_000)
    fields = [{"185": one, "186": one} for one in watts]
    steps = (
        {"t": 100.0 * step, "nvml": {"nvmlDeviceGetPowerUsage": watts[step % 2], "fields": fields[step % 2]}}
        for step in range(200)
    )
    timeline = "".join(f"{json.dumps(step)}\n" for step in steps)
    machine = copied("fe-stock", tmp_path / "machine", timeline_jsonl=timeline)
    nvml = json.loads((machine / "nvml.json").read_text())
    del nvml["devices"][0]["nvmlDeviceGetTotalEnergyConsumption"]
    nvml["devices"][0]["fields"] = fields[0]
    (machine / "nvml.json").write_text(json.dumps(nvml))

    def answer(request: BaseHTTPRequestHandler) -> None:
        now = told(daemon, 'gb10_gpu_nvml_power_watts{gpu="0",window="average"}')
        page("", 503)(request) if now is None else page(chassis(now))(request)

    with (
        Exporter(page("", 503)) as exporter,
        Daemon(
            tmp_path,
            f"--misread.exporter={exporter.url}",
            "--misread.interval=1",
            "--beat=0.1",
            "--speed=10",
            machine=("--machine", str(machine)),
        ) as daemon,
    ):
        exporter.answer = answer
        until(lambda: told(daemon, IDENTITY), lambda: daemon.log)
        assert told(daemon, FLOOR) is None


def test_rules_are_audited_again_when_they_change(tmp_path: Path) -> None:
    """Each rule of the audit is a series, at 0 too; what cannot be read is counted."""
    rules = tmp_path / "rules"
    rules.mkdir()
    file = rules / "power.yml"
    line = "groups:\n- name: power\n  rules:\n  - record: node:system_power:watts\n    expr: {}\n"
    file.write_text(line.format("sum(DCGM_FI_DEV_POWER_USAGE)"))
    found = 'spark_agent_audit_findings{rule="PWR001"}'
    with Daemon(tmp_path, f"--audit={rules}", "--audit.interval=1") as daemon:
        until(lambda: told(daemon, found) == 1, lambda: daemon.log)
        assert set(RULES) == set(re.findall(r'spark_agent_audit_findings{rule="(\w+)"}', daemon.get()[1]))
        assert 0 == told(daemon, "spark_agent_audit_errors")
        file.write_text(line.format("gb10_system_power_watts"))
        until(lambda: told(daemon, found) == 0, lambda: daemon.log)
        file.write_text("groups: [")
        until(lambda: told(daemon, "spark_agent_audit_errors") == 1, lambda: daemon.log)
        assert "cannot be audited: " in daemon.log
        first = told(daemon, "spark_agent_audit_timestamp_seconds")
        until(lambda: told(daemon, "spark_agent_audit_timestamp_seconds") != first)
        assert 1 == daemon.log.count("cannot be audited: "), "it did not change"
