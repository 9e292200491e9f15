"""The doctor beside other exporters: what one look tells of them, and what it cannot."""

from pathlib import Path

import pytest
from commands import Run, runner
from exporter import Exporter, page
from looks import OTHER, SPARK, at, found, watts

from spark_agent.agent import config
from spark_agent.agent.checkup import Checked, Outcome, checked
from spark_agent.agent.misread import Claim, Listener, Page
from spark_agent.agent.report import Report, report
from spark_agent.collectors import Fact

URL = "http://x/metrics"


def looked(*pages: Page, platform: Fact = SPARK) -> Report:
    """Return one look beside exporters."""
    return report(found(platform, *watts(gpu_nvml=4.0)), listener=Listener(lambda: pages))


def check(known: Report) -> list[Checked]:
    """Return how the check of other exporters came out, if there was one."""
    return [one for one in checked(known) if one.id == "exporters"]


def test_nobody_asked() -> None:
    """No check, and so no line that nothing can be told."""
    assert [] == check(report(found(SPARK)))


def test_a_misread_is_found_in_one_look() -> None:
    """By the floor alone."""
    (one,) = check(looked(Page(URL, (Claim("system_power_watts", 4.0, ""),))))
    assert (Outcome.FOUND, ("misread_power",)) == (one.outcome, one.findings)


@pytest.mark.parametrize(
    ("pages", "platform", "why"),
    [
        ((Page(URL),), SPARK, "one look only tells what is below 15 W"),
        ((Page(URL), Page("http://y/metrics", fault="it answers 404")), SPARK, "http://y/metrics: it answers 404"),
        ((), SPARK, "no exporter answers on the usual ports"),
        ((Page(URL),), OTHER, "only of a Spark is it known what it draws"),
    ],
)
def test_what_cannot_be_told(pages: tuple[Page, ...], platform: Fact, why: str) -> None:
    """With the reason."""
    (one,) = check(looked(*pages, platform=platform))
    assert Outcome.UNKNOWN is one.outcome
    assert one.why.startswith(why)


def test_after_ten_minutes_nothing_is_fine() -> None:
    """As long as the check itself asks for."""
    listener, known = Listener(lambda: (page_,)), None
    page_ = Page(URL, (Claim("system_power_watts", 40.0, ""),))
    for second in range(0, 601, 5):
        page_ = Page(URL, page_.claims)
        known = report(at(float(second), SPARK, *watts(gpu_nvml=4.0)), known, watching=True, listener=listener)
    assert known
    assert [Outcome.FINE] == [one.outcome for one in check(known)]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return what runs the command, with no settings but those of the test."""
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "none.toml")
    return runner(monkeypatch, capsys)


@pytest.mark.parametrize("arguments", [("doctor",), ("doctor", "--for", "0.1")])
def test_the_doctor_asks_what_the_settings_name(
    arguments: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a live machine; a replayed one has other exporters beside it."""
    with Exporter(page("up 1\n")) as exporter:
        monkeypatch.setenv("SPARK_AGENT_MISREAD_EXPORTER", exporter.url)
        run("--demo", "fe-stock", *arguments)
        assert [] == exporter.asked
        run(*arguments)
        assert ["/metrics"] == exporter.asked
