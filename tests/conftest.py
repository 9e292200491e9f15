"""Shared fixtures, and the rule on skips."""

import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from rigs import MissingRigError, program

# No test asserts a time; and CI draws the same examples each time, so that it fails for the change it runs on.
settings.register_profile(
    "untimed", deadline=None, derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow]
)
# Where the suite runs once more on another Python.
settings.register_profile("again", settings.get_profile("untimed"), max_examples=20)
settings.load_profile("untimed")

#: Why a test may be skipped in CI. Anything else there means that the rig is broken, and fails the run.
EXPECTED_SKIPS: tuple[str, ...] = ()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a person accept new golden output, as node_exporter's -u does."""
    parser.addoption(
        "--update-golden", action="store_true", help="Write what the agent says now as what it should say."
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with rigs and installs, where several processes share the work, for these take longest."""
    order = ("rig", "install")
    items.sort(key=lambda item: next((place for place, kind in enumerate(order) if item.get_closest_marker(kind)), 2))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare text with tests/golden/NAME, or write it there."""
    folder = Path(__file__).parent / "golden"

    def check(name: str, got: str) -> None:
        if request.config.getoption("--update-golden"):
            folder.mkdir(exist_ok=True)
            (folder / name).write_text(got, encoding="utf-8")
        assert (folder / name).read_text(encoding="utf-8") == got

    return check


@pytest.fixture
def ends_with(request: pytest.FixtureRequest) -> Callable[[Path, str, str], None]:
    """Compare what a page has after a mark with what the code says, or write it there."""

    def check(page: Path, mark: str, told: str) -> None:
        prose, there, said = page.read_text(encoding="utf-8").partition(mark)
        assert there
        if request.config.getoption("--update-golden"):
            page.write_text(prose + mark + told, encoding="utf-8")
        else:
            assert told == said

    return check


@pytest.fixture(scope="session")
def rig() -> Callable[[str], str]:
    """Return what finds a program of `rigs.NAMES`; a test that needs one that is not here is skipped."""

    def find(variable: str) -> str:
        try:
            return program(variable)
        except MissingRigError as error:
            pytest.skip(str(error))

    return find


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail in CI where a test is skipped for a reason that is not expected there."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(expected in reason for expected in EXPECTED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, which is not expected: {reason}"
    return report
