"""The pages: metrics, the report, health, and one for people who follow the link."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from typing import Final, Protocol

from spark_agent.agent import __version__
from spark_agent.agent.power import Measured, Power, Unmeasured
from spark_agent.agent.report import Report
from spark_agent.agent.snapshot import Status, Visit
from spark_agent.collectors import Origin, Scope
from spark_agent.exporters.document import document, text
from spark_agent.exporters.http import Request, Response, Work, plain

#: A beat that is later than this, in seconds, is no longer late but missing; three beats where those are slower.
PATIENCE_SECONDS: Final = 10.0
_PATIENCE_BEATS: Final = 3

REPORT_PATH: Final = "/api/v1/report"
HEALTHY_PATH: Final = "/-/healthy"
READY_PATH: Final = "/-/ready"
TAKEN_PATHS: Final = frozenset({"/", REPORT_PATH, HEALTHY_PATH, READY_PATH})

_JSON: Final = "application/json; charset=utf-8"
_HTML: Final = "text/html; charset=utf-8"
# Nothing here is to be kept: the next beat is another report.
_FRESH: Final = (("Cache-Control", "no-store"),)


class Sampler(Protocol):
    """Who looks at the machine, again and again."""

    @property
    def report(self) -> Report | None:
        """The last report; None before the first."""

    def age(self) -> float:
        """Return how long ago the last beat was, in seconds; before the first, how long it is waited for."""


class Exposition(Protocol):
    """Who writes the metrics page; renders each report once, whoever asks."""

    def page(
        self,
        report: Report,
        age: float,
        accept: str = "",
        accept_encoding: str = "",
        collect: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> tuple[bytes, list[tuple[str, str]]]:
        """Return the page and its headers, or raise `ValueError` for what cannot be had."""


@dataclass(slots=True)
class _Of:
    """What was made of one report."""

    report: Report
    #: Pages by what was asked for, so far as they cost no more than a look.
    known: set[tuple[str, ...]] = field(default_factory=set)
    document: bytes | None = None


# Who asks for ever other things is to cost time, not memory.
_MOST_KNOWN: Final = 64


class Site:
    """Answers requests from the last report. What has to be rendered first is handed back as work."""

    def __init__(
        self, sampler: Sampler, exposition: Exposition, *, interval: float = 1.0, metrics_path: str = "/metrics"
    ) -> None:
        """``interval`` is the time from beat to beat in seconds; ``metrics_path`` none of `TAKEN_PATHS`."""
        if not metrics_path.startswith("/") or metrics_path in TAKEN_PATHS:
            raise ValueError(f"metrics cannot be at {metrics_path!r}; valid: a path like /metrics that is not taken")
        self.is_stopping = False
        self._sampler = sampler
        self._exposition = exposition
        self._patience = max(PATIENCE_SECONDS, _PATIENCE_BEATS * interval)
        self._metrics_path = metrics_path
        self._routes = {
            metrics_path: self._metrics,
            "/": self._landing,
            REPORT_PATH: self._report,
            HEALTHY_PATH: self._healthy,
            READY_PATH: self._ready,
        }
        self._of: _Of | None = None

    def __call__(self, request: Request) -> Response | Work:
        """Answer a request, or return the work that it takes."""
        route = self._routes.get(request.path)
        if route is None:
            return plain(HTTPStatus.NOT_FOUND, f"nothing is here; there are {', '.join(self._routes)}")
        return route(request)

    @property
    def is_healthy(self) -> bool:
        """Whether the beat goes on."""
        return self._sampler.age() < self._patience

    def _metrics(self, request: Request) -> Response | Work:
        if unknown := sorted(request.query.keys() - {"collect[]", "exclude[]"}):
            what = ", ".join(map(repr, unknown))
            return plain(HTTPStatus.BAD_REQUEST, f"{what} cannot be asked for; valid: collect[] and exclude[]")
        report = self._sampler.report
        if report is None:
            return _not_yet()
        accept, encoding = request.headers.get("accept", ""), request.headers.get("accept-encoding", "")
        collect, exclude = request.query.get("collect[]", ()), request.query.get("exclude[]", ())
        known = self._made_of(report).known
        key = (accept, encoding, *collect, "", *exclude)

        def work() -> Response:
            try:
                body, headers = self._exposition.page(report, self._sampler.age(), accept, encoding, collect, exclude)
            except ValueError as error:
                return plain(HTTPStatus.BAD_REQUEST, str(error))
            if len(known) < _MOST_KNOWN:
                known.add(key)
            content_type = next(value for name, value in headers if name == "Content-Type")
            return Response(HTTPStatus.OK, content_type, body, [one for one in headers if one[0] != "Content-Type"])

        return work() if key in known else work

    def _report(self, _: Request) -> Response | Work:
        report = self._sampler.report
        if report is None:
            return _not_yet()
        made = self._made_of(report)

        def work() -> Response:
            if made.document is None:
                made.document = f"{text(document(report))}\n".encode()
            return Response(HTTPStatus.OK, _JSON, made.document, _FRESH)

        return work() if made.document is not None else work

    def _healthy(self, _: Request) -> Response:
        age = self._sampler.age()
        if self.is_healthy:
            return plain(HTTPStatus.OK, f"healthy: last beat {age:.1f} s ago")
        return plain(HTTPStatus.SERVICE_UNAVAILABLE, f"no beat for {age:.1f} s, more than {self._patience:g} s")

    def _ready(self, _: Request) -> Response:
        if self.is_stopping:
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, "stopping")
        if self._sampler.report is None:
            return _not_yet()
        return plain(HTTPStatus.OK, "ready")

    def _landing(self, _: Request) -> Response | Work:
        report = self._sampler.report
        age = self._sampler.age()
        return lambda: Response(HTTPStatus.OK, _HTML, landing(report, age, self._metrics_path).encode(), _FRESH)

    def _made_of(self, report: Report) -> _Of:
        if self._of is None or self._of.report is not report:
            self._of = _Of(report)
        return self._of


def _not_yet() -> Response:
    return plain(HTTPStatus.SERVICE_UNAVAILABLE, "no report yet: the first look is under way", [("Retry-After", "1")])


# --- the page for people ----------------------------------------------------------------------------------------------


def landing(report: Report | None, age: float, metrics_path: str) -> str:
    """Return the page at ``/``; complete in itself, and readable without its style."""
    links = "\n".join(
        f'<li><a href="{escape(path)}">{escape(path)}</a> {escape(what)}</li>'
        for path, what in (
            (metrics_path, "the metrics, for Prometheus"),
            (REPORT_PATH, "everything that is known, as JSON"),
            (HEALTHY_PATH, "whether the agent is alive"),
            (READY_PATH, "whether it has something to say"),
        )
    )
    return _PAGE.format(
        version=escape(__version__),
        style=_STYLE,
        machine=escape(_machine(report)),
        power=_power(report.power, age) if report else "",
        links=links,
        collectors=_collectors(report.snapshot.visits, age) if report else "",
    )


def _machine(report: Report | None) -> str:
    if report is None:
        return "The first look is under way."
    snapshot = report.snapshot
    return {
        Origin.LIVE: snapshot.machine,
        Origin.RECORDED: f"{snapshot.machine}: a recording, played",
        Origin.SYNTHETIC: f"{snapshot.machine}: an imagined machine, no real one",
    }[snapshot.origin]


def how_power_is_known(power: Power, age: float) -> str:
    """Return in a sentence or two what of the machine's power is measured, and by what, ``age`` seconds after."""
    system, soc = power.scopes[Scope.SYSTEM], power.scopes[Scope.SOC]
    if isinstance(system, Measured):
        return f"The whole machine draws {_watts(system, age)}."
    if isinstance(soc, Measured):
        return f"The SoC draws {_watts(soc, age)}. Nothing measures the whole machine: {_why(system)}."
    if isinstance(gpu := power.scopes[Scope.GPU_NVML], Measured):
        return f"The GPU alone draws {_watts(gpu, age)}. Nothing measures the whole machine: {_why(system)}."
    return f"Nothing measures power here: {_why(system)}."


def _watts(known: Measured, age: float) -> str:
    return f"{known.value:.1f} W ({known.quality}, {known.source}, {known.age + age:.1f} s ago)"


def _why(known: Measured | Unmeasured) -> str:
    return (known.detail or str(known.reason)).rstrip(".") if isinstance(known, Unmeasured) else ""


def _power(power: Power, age: float) -> str:
    return f'<p class="power">{escape(how_power_is_known(power, age))}</p>'


_MARKS: Final[Mapping[Status, str]] = {Status.OK: "ok", Status.ABSENT: "absent", Status.FAILED: "FAILED"}


def _collectors(visits: Sequence[Visit], age: float) -> str:
    rows = "\n".join(
        f'<tr class="{visit.status}"><th scope="row">{escape(visit.collector)}</th>'
        f"<td>{_MARKS[visit.status]}</td><td>{escape(_reason(visit))}</td></tr>"
        for visit in visits
    )
    return f"<h2>Collectors</h2>\n<p>Last beat {age:.1f} s ago.</p>\n<table>\n{rows}\n</table>"


def _reason(visit: Visit) -> str:
    return visit.detail or (visit.reason.value if visit.reason else "")


_STYLE: Final = """\
:root { color-scheme: light dark; --dim: #667; --line: #8883; --ok: #2a7d2a; --bad: #c22; --link: #3b7a00 }
@media (prefers-color-scheme: dark) { :root { --dim: #99a; --ok: #7c7; --bad: #f77; --link: #9bd34b } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem; margin: 0 } h1 small, td, .dim { color: var(--dim); font-weight: normal }
h2 { font-size: 1.05rem; margin: 2rem 0 .3rem } a { color: var(--link) }
p { margin: .3rem 0 } .power { font-size: 1.1rem; margin: 1.2rem 0 }
ul { list-style: none; padding: 0 } li { margin: .2rem 0; color: var(--dim) }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0; border-top: 1px solid var(--line) }
th { font-weight: 600 } td:nth-child(2) { white-space: nowrap } td:nth-child(3) { width: 100%; overflow-wrap: anywhere }
.ok td:nth-child(2) { color: var(--ok) } .failed td { color: var(--bad) }"""

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>spark-agent</title>
<style>
{style}
</style>
</head>
<body>
<h1>spark-agent <small>{version}</small></h1>
<p class="dim">{machine}</p>
{power}
<ul>
{links}
</ul>
{collectors}
</body>
</html>
"""
