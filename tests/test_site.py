"""The pages: what each says, to whom it says nothing, and what it costs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from demo import demo_report
from jsonschema import Draft202012Validator
from looks import found, watts
from web.serving import Served, body, header, status

from spark_agent.agent.machine import demos
from spark_agent.agent.power import understand
from spark_agent.agent.report import Report, report
from spark_agent.agent.snapshot import Snapshot
from spark_agent.collectors import Reason
from spark_agent.exporters import prometheus
from spark_agent.exporters.http import Request, Response, Work
from spark_agent.exporters.schema import schema
from spark_agent.exporters.site import Exposition, Site, how_power_is_known, landing


class Beats:
    """A sampler that a test moves."""

    def __init__(self, last: Report | None = None) -> None:
        self.report = last
        self.seconds = 0.25

    def age(self) -> float:
        return self.seconds


class Pages:
    """An exposition that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str, str, tuple[str, ...], tuple[str, ...]]] = []

    def page(
        self,
        _: Report,
        age: float,
        accept: str = "",
        accept_encoding: str = "",
        collect: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> tuple[bytes, list[tuple[str, str]]]:
        self.asked.append((age, accept, accept_encoding, tuple(collect), tuple(exclude)))
        return b"a 1\n", [("Content-Type", "text/plain; version=0.0.4"), ("Vary", "Accept")]


@pytest.fixture
def beats() -> Beats:
    """Return a sampler that has looked once."""
    return Beats(demo_report("fe-gemm"))


def _site(beats: Beats, exposition: Exposition | None = None, interval: float = 1.0) -> Site:
    return Site(beats, exposition or Pages(), interval=interval)


def _ask(site: Site, path: str, query: dict[str, list[str]] | None = None, **headers: str) -> Response | Work:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return site(Request("GET", path, query or {}, named))


def _done(answer: Response | Work) -> Response:
    return answer if isinstance(answer, Response) else answer()


def test_metrics(beats: Beats) -> None:
    """What a scraper asks for is handed on as it was asked, with the report's age."""
    pages = Pages()
    answer = _done(
        _ask(_site(beats, pages), "/metrics", {"collect[]": ["gpu", "nvme"]}, accept="a", accept_encoding="b")
    )

    assert [(0.25, "a", "b", ("gpu", "nvme"), ())] == pages.asked
    assert Response(200, "text/plain; version=0.0.4", b"a 1\n", [("Vary", "Accept")]) == answer


def test_what_is_rendered_is_served_at_once(beats: Beats) -> None:
    """The first scrape of a report is work for a thread; the next is not, and still has the age of its own time."""
    pages = Pages()
    site = _site(beats, pages)

    first = _ask(site, "/metrics")
    assert not isinstance(first, Response)
    first()
    beats.seconds = 0.75
    assert isinstance(_ask(site, "/metrics"), Response)
    assert not isinstance(_ask(site, "/metrics", accept="another"), Response)
    beats.report = replace(demo_report("fe-gemm"))
    assert not isinstance(_ask(site, "/metrics"), Response)
    assert [0.25, 0.75] == [age for age, *_ in pages.asked]


def test_who_asks_for_ever_other_things_costs_no_memory(beats: Beats) -> None:
    """What is remembered of strange requests is bounded."""
    site = _site(beats)
    for number in range(500):
        _done(_ask(site, "/metrics", accept=str(number)))

    assert site._of is not None
    assert len(site._of.known) <= 64


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("colect[]=gpu", "'colect[]' cannot be asked for; valid: collect[] and exclude[]"),
        ("collect[]=gpuu", "'gpuu'"),
        ("exclude[]=gpuu", "'gpuu'"),
        ("collect[]=gpu&exclude[]=nvme", "collect[] and exclude[]"),
    ],
)
def test_a_query_that_cannot_be_answered(query: str, message: str, beats: Beats) -> None:
    """A name that nothing has is an error, not an empty page; what is valid is said."""
    with Served(_site(beats, prometheus.Exposition())) as served:
        answer = served.get(f"/metrics?{query}")

    assert 400 == status(answer)
    assert message in body(answer)


def test_metrics_on_the_wire(beats: Beats) -> None:
    """A scrape gets the real page, in the format that it asked for, the second time as the first."""
    with Served(_site(beats, prometheus.Exposition())) as served:
        for _ in range(2):
            answer = served.get("/metrics", "Accept: application/openmetrics-text; version=1.0.0")
            assert 200 == status(answer)
            assert header(answer, "Content-Type").startswith("application/openmetrics-text")
            assert body(answer).endswith("# EOF\n")
            assert 1 == answer.count(b"Content-Type:")
        assert header(served.get("/metrics", "Accept-Encoding: gzip", method="HEAD"), "Content-Encoding") == "gzip"


def test_metrics_elsewhere(beats: Beats) -> None:
    """The path may be another, and the landing page links there."""
    site = Site(beats, Pages(), metrics_path="/power")

    assert 200 == _done(_ask(site, "/power")).status
    assert 404 == _done(_ask(site, "/metrics")).status
    assert b'href="/power"' in _done(_ask(site, "/")).body


@pytest.mark.parametrize("path", ["", "metrics", "/", "/-/ready", "/api/v1/report"])
def test_paths_that_are_taken(path: str, beats: Beats) -> None:
    """Metrics cannot be where something else is."""
    with pytest.raises(ValueError, match="metrics cannot be at"):
        Site(beats, Pages(), metrics_path=path)


def test_the_report(beats: Beats) -> None:
    """The JSON document, made once per report."""
    site = _site(beats)
    answer = _done(_ask(site, "/api/v1/report"))

    assert "application/json; charset=utf-8" == answer.content_type
    assert [] == list(Draft202012Validator(schema()).iter_errors(json.loads(answer.body)))
    again = _ask(site, "/api/v1/report")
    assert isinstance(again, Response)
    assert answer.body is again.body


@pytest.mark.parametrize(
    ("age", "interval", "expected"), [(9.9, 1.0, 200), (10.0, 1.0, 503), (29.0, 10.0, 200), (30.0, 10.0, 503)]
)
def test_healthy_while_beats_come(age: float, interval: float, expected: int, beats: Beats) -> None:
    """Healthy is no constant: without a beat for 10 s, or three beats where those are slower, the agent is not."""
    beats.seconds = age
    answer = _done(_ask(_site(beats, interval=interval), "/-/healthy"))

    assert expected == answer.status
    assert f"{age:.1f} s" in answer.body.decode()


def test_healthy_but_not_ready() -> None:
    """Before the first report the agent lives, and has nothing to say; nothing is invented meanwhile."""
    site = _site(Beats())

    assert [200, 503, 503, 503, 200] == [
        _done(_ask(site, path)).status for path in ("/-/healthy", "/-/ready", "/metrics", "/api/v1/report", "/")
    ]
    assert b"The first look is under way" in _done(_ask(site, "/")).body


def test_ready_until_it_stops(beats: Beats) -> None:
    """Who is about to stop is taken out of use first."""
    site = _site(beats)
    assert 200 == _done(_ask(site, "/-/ready")).status
    site.is_stopping = True
    assert 503 == _done(_ask(site, "/-/ready")).status


def test_nothing_there(beats: Beats) -> None:
    """A wrong path is answered with the right ones."""
    answer = _done(_ask(_site(beats), "/metric"))

    assert 404 == answer.status
    assert b"nothing is here; there are /metrics, /, /api/v1/report, /-/healthy, /-/ready\n" == answer.body


# --- the page for people ----------------------------------------------------------------------------------------------


class _Words(HTMLParser):
    """What a page says, and whether its tags are closed in order."""

    _VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self._VOID:
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.said.append(data.strip())


def _words(page: str) -> _Words:
    words = _Words()
    words.feed(page)
    words.close()
    assert [] == words.open
    return words


@pytest.mark.parametrize("name", demos())
def test_the_landing_page(name: str) -> None:
    """It names the machine and says what it is, lists every collector, and links nowhere but here."""
    known = demo_report(name)
    words = _words(landing(known, 0.5, "/metrics"))

    assert ["/metrics", "/api/v1/report", "/-/healthy", "/-/ready"] == words.links
    assert any("an imagined machine, no real one" in said for said in words.said)
    for visit in known.snapshot.visits:
        assert visit.collector in words.said
        assert not visit.detail or visit.detail in words.said


@pytest.mark.parametrize(
    ("snapshot", "expected"),
    [
        (found(*watts(system=41.25, soc=20.0)), "The whole machine draws 41.2 W (measured, spbm system, 0.5 s ago)."),
        (
            found(*watts(soc=20.0)),
            "The SoC draws 20.0 W (measured, spbm soc, 0.5 s ago). Nothing measures the whole machine: ",
        ),
        (found(*watts(gpu_nvml=4.0)), "The GPU alone draws 4.0 W (measured, gpu gpu_nvml, 0.5 s ago). Nothing"),
        (found(without={"spbm": Reason.NO_DRIVER}), "Nothing measures power here: spbm: why."),
    ],
)
def test_how_power_is_known(snapshot: Snapshot, expected: str) -> None:
    """One sentence says what the watts are of: a part is never told as the whole."""
    assert how_power_is_known(understand(snapshot), 0.5).startswith(expected)


def test_nothing_that_a_machine_says_is_markup() -> None:
    """What comes from files and drivers is text, whatever it looks like."""
    plain = found(without={"gpu": Reason.ERROR})
    visit = replace(plain.visits[0], detail="<script>alert('x')</script>")
    page = landing(report(replace(plain, machine="<b>&", visits=(visit,))), 0.0, "/metrics")

    assert "<script" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "<script>alert('x')</script>" in _words(page).said
