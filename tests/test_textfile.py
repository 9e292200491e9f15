"""The file for node_exporter's textfile collector: whole or not there, readable, and understood by the real one."""

import os
import re
import stat
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from demo import demo_report
from prometheus_client.parser import text_string_to_metric_families
from rigs import running

from spark_agent.agent.machine import demos
from spark_agent.agent.report import Report
from spark_agent.exporters import prometheus
from spark_agent.exporters.textfile import FILE, write


@pytest.fixture
def report() -> Report:
    """Return the report of one machine."""
    return demo_report("fe-gemm")


def test_the_file_is_the_page(tmp_path: Path, report: Report) -> None:
    """What lies there is what `snapshot --output prometheus` prints, and nothing lies beside it."""
    file = write(report, tmp_path)

    assert tmp_path / "spark-agent.prom" == file
    assert prometheus.text(report) == file.read_bytes()
    assert [file] == [*tmp_path.iterdir()]


def test_it_is_readable_by_others(tmp_path: Path, report: Report) -> None:
    """node_exporter runs as another user, whatever the agent's umask is."""
    before = os.umask(0o077)
    try:
        file = write(report, tmp_path)
    finally:
        os.umask(before)

    assert 0o644 == stat.S_IMODE(file.stat().st_mode)


def test_no_timestamps_and_no_ages(tmp_path: Path, report: Report) -> None:
    """The textfile collector refuses timestamps; an age would stand still; and process_* are node_exporter's own."""
    page = write(report, tmp_path).read_text()
    values = [line.split("} ")[-1].split() for line in page.splitlines() if not line.startswith("#")]

    assert values
    assert all(len(value) <= 2 for value in values)
    assert not re.search(r"^(process_|spark_agent_(collector_)?sample_age)", page, re.MULTILINE)


def test_it_replaces_the_one_before(tmp_path: Path, report: Report) -> None:
    """Who has the old file open goes on reading it whole: it is replaced, never written over."""
    (tmp_path / FILE).write_text("old")
    with (tmp_path / FILE).open() as reader:
        write(report, tmp_path)

        assert "old" == reader.read()
    assert prometheus.text(report) == (tmp_path / FILE).read_bytes()


def test_a_disk_that_is_full(tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error reaches the caller, the old file stays, and nothing is left behind."""
    (tmp_path / FILE).write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match="No space left"):
        write(report, tmp_path)

    assert {FILE: "old"} == {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_a_place_that_is_taken(tmp_path: Path, report: Report) -> None:
    """A folder of that name is an error, and nothing is left behind."""
    (tmp_path / FILE).mkdir()
    with pytest.raises(OSError, match="directory"):
        write(report, tmp_path)

    assert [FILE] == [path.name for path in tmp_path.iterdir()]


def test_a_folder_that_is_not_there(tmp_path: Path, report: Report) -> None:
    """It is named."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write(report, tmp_path / "nowhere")


@pytest.mark.parametrize("name", demos())
def test_node_exporter_takes_it(tmp_path: Path, name: str, rig: Callable[[str], str]) -> None:
    """The real textfile collector reads the file without an error, and tells each series with its value."""
    file = write(demo_report(name), tmp_path)
    flags = ("--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={tmp_path}")
    with (
        running(tmp_path, rig("NODE_EXPORTER"), *flags) as node_exporter,
        urllib.request.urlopen(f"http://127.0.0.1:{node_exporter.port}/metrics", timeout=60) as answer,
    ):
        told = _samples(answer.read().decode())

    ours = _samples(file.read_text())
    assert 0 == told["node_textfile_scrape_error", frozenset()]
    assert ours == {series: value for series, value in told.items() if series[0].startswith(("gb10_", "spark_agent_"))}


def _samples(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    # node_exporter gives all series of a family the same labels, empty ones where need be: to Prometheus, no labels.
    return {
        (sample.name, frozenset((name, text) for name, text in sample.labels.items() if text)): sample.value
        for metric in text_string_to_metric_families(page)
        for sample in metric.samples
    }
