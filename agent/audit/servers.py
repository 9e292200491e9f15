"""A Prometheus and a Grafana that are asked for the rules and dashboards that they hold.

By the standard library: all that is asked is some GETs, and httpx would bring four more packages and a list of
authorities of its own, which knows nothing of those that this machine trusts. No redirect is followed, so that a
credential reaches the server that was named, and no other.
"""

import base64
import http.client
import json
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from spark_agent.agent.audit import documents
from spark_agent.agent.audit.claim import Document, Unreadable
from spark_agent.agent.audit.syntax import Parsed, list_of, mapping_of, mappings_of, text_of
from spark_agent.agent.audit.wording import printable

#: Seconds without a byte after which a server is given up, and those that a whole answer may take.
SILENCE_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 60.0
#: What an answer may have; a Prometheus with ten thousand rules needs 10 MB.
MAX_BYTES: Final = 1 << 26
#: Dashboards to a page of Grafana's search, and pages: more than anybody has.
PAGE: Final = 1000
MAX_PAGES: Final = 100
#: No token and no password is longer.
MAX_SECRET_BYTES: Final = 1 << 16
#: Letters of a server's own words on what went wrong.
_MAX_SAID: Final = 200


class ServerError(Exception):
    """Why a server cannot be asked, in one line that names no secret."""


@dataclass(frozen=True, slots=True)
class Access:
    """How a server is asked: with a token, or a user and a password; by whom its certificate may be signed."""

    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    #: Authorities that are trusted instead of this machine's.
    ca_file: Path | None = None

    def header(self) -> dict[str, str]:
        """Return the header that says who asks."""
        if self.token:
            if not self.token.isascii() or not self.token.isprintable():
                # http.client would print the header that it does not take.
                raise ServerError("the token has other than printable ASCII in it")
            return {"Authorization": f"Bearer {self.token}"}
        if self.user:
            pair = os.fsencode(f"{self.user}:{self.password}")  # an argument may be of any bytes
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}


def secret_in(path: Path) -> str:
    """Return the token or password that a file holds, or raise `ServerError`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES)
    except OSError as error:
        raise ServerError(f"{path}: {error.strerror}") from None
    secret = content.decode(errors="replace").strip()
    # What is no UTF-8 was read as this, which nobody has in a password.
    if not secret or not secret.isprintable() or "\ufffd" in secret:
        raise ServerError(f"{path}: holds no token or password on one line")
    return secret


def read_prometheus(url: str, access: Access) -> tuple[list[Document | Unreadable], dict[str, str]]:
    """Return the rules that a Prometheus evaluates, one document for each of its files; and its metrics' types.

    Types are a help and no more: those that speak its API without metadata (Mimir, Thanos) have none.
    """
    try:
        server = _Server(url, access)
        read = [*_rules(server)]
    except ServerError as error:
        return [Unreadable(_shown(url), str(error))], {}
    try:
        return read, _types(server)
    except ServerError:
        return read, {}


def read_grafana(url: str, access: Access) -> Iterator[Document | Unreadable]:
    """Yield the dashboards of a Grafana, and the alert rules that it evaluates itself, as far as they may be read."""
    try:
        server = _Server(url, access)
        uids = list(dict.fromkeys(_uids(server)))  # one that was renamed meanwhile is on two pages
    except ServerError as error:
        yield Unreadable(_shown(url), str(error))
        return
    library: dict[str, Any] = {}
    for uid in uids:
        name = f"{server.url}/d/{quote(uid, safe='')}"
        try:
            found = mapping_of(server.get(f"/api/dashboards/uid/{quote(uid, safe='')}"))
            _add_library(server, mapping_of(found.get("dashboard")), library)
        except ServerError as error:
            yield Unreadable(name, str(error))
            continue
        yield from _judged(name, found, "is no dashboard")
    name = f"{server.url}/alerting"
    try:
        rules = server.get("/api/v1/provisioning/alert-rules")
    except ServerError as error:
        yield Unreadable(name, str(error))
        return
    if rules:
        yield from _judged(name, rules, "has no alert rules")


def _rules(server: "_Server") -> Iterator[Document | Unreadable]:
    files: defaultdict[str, list[Any]] = defaultdict(list)
    for group in list_of(server.data("/api/v1/rules").get("groups")):
        files[text_of(mapping_of(group).get("file"))].append(group)
    for file, groups in files.items():
        yield from documents.read(printable(f"{server.url} {file}".strip()), _parsed({"groups": groups}))


def _types(server: "_Server") -> dict[str, str]:
    types: dict[str, str] = {}
    for metric, told in server.data("/api/v1/metadata").items():
        found = {text_of(one.get("type")) for _, one in mappings_of(told)}
        # Targets that disagree tell nothing.
        if len(found) == 1 and (type_ := found.pop()) not in ("", "unknown"):
            types[metric] = type_
            if type_ == "counter" and not metric.endswith("_total"):
                # OpenMetrics has the family's name here, and its series' ends so.
                types.setdefault(f"{metric}_total", type_)
    return types


def _uids(server: "_Server") -> Iterator[str]:
    for page in range(1, MAX_PAGES + 1):
        found = server.get(f"/api/search?type=dash-db&limit={PAGE}&page={page}")
        if not isinstance(found, list):
            raise ServerError("answers its search with something else than a list; is it a Grafana?")
        yield from filter(None, (text_of(one.get("uid")) for _, one in mappings_of(found)))
        if len(found) < PAGE:
            return


def _add_library(server: "_Server", dashboard: dict[str, Any], library: dict[str, Any]) -> None:
    """Put into a dashboard the library panels that it only refers to, as an export has them."""
    panels = [panel for _, panel in mappings_of(dashboard.get("panels"))]
    panels += [panel for row in panels for _, panel in mappings_of(row.get("panels"))]
    wanted = {text_of(mapping_of(panel.get("libraryPanel")).get("uid")) for panel in panels if "targets" not in panel}
    for uid in sorted(wanted - {""} - library.keys()):
        answer = mapping_of(server.get(f"/api/library-elements/{quote(uid, safe='')}"))
        library[uid] = answer.get("result")
    if wanted - {""}:
        dashboard["__elements"] = library


def _judged(name: str, value: Any, otherwise: str) -> Iterator[Document | Unreadable]:
    read = list(documents.read(name, _parsed(value)))
    yield from read or [Unreadable(name, otherwise)]


def _parsed(value: Any) -> Parsed:
    return Parsed(value, lambda _: None)  # an answer has no lines that anybody could look up


def _shown(url: str) -> str:
    """Return an address as it can be printed: without a password, and what else stands before or behind it."""
    scheme, separator, rest = url.rpartition("://")
    return printable(scheme + separator + re.split("[?#]", rest.rpartition("@")[2])[0].rstrip("/"))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows none: what is not followed is an error, as any other status."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request to go on with."""


class _Server:
    """A server that is asked for JSON."""

    def __init__(self, url: str, access: Access) -> None:
        """Take an address and how to ask there, or raise `ServerError`."""
        self.url = _shown(url)
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            is_address = False
        if not is_address or not url.isprintable() or not url.isascii() or " " in url:
            raise ServerError("is no address such as https://grafana.example:3000")
        if "@" in parts.netloc:
            raise ServerError("has a user or password in its address, where others see it; name a file that holds it")
        if parts.query or parts.fragment:
            raise ServerError("has a query in its address; name the server alone")
        self._headers = {"Accept": "application/json", "User-Agent": "spark-agent", **access.header()}
        try:
            context = ssl.create_default_context(cafile=access.ca_file)
        except ssl.SSLError:
            raise ServerError(f"{access.ca_file}: holds no certificates") from None
        except OSError as error:
            raise ServerError(f"{access.ca_file}: {error.strerror}") from None
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect())

    def data(self, path: str) -> Mapping[str, Any]:
        """Return the data of an answer of Prometheus' API."""
        answer = mapping_of(self.get(path))
        data = answer.get("data")
        if answer.get("status") != "success" or not isinstance(data, dict):
            raise ServerError(f"answers {path} with something else than data; is it a Prometheus?")
        return data

    def get(self, path: str) -> Any:
        """Return what is at a path, or raise `ServerError`."""
        request = urllib.request.Request(self.url + path, headers=self._headers)  # noqa: S310  (http or https)
        path = path.partition("?")[0]
        try:
            with self._opener.open(request, timeout=SILENCE_SECONDS) as response:
                content = _body(response)
        except urllib.error.HTTPError as error:
            with error:
                raise ServerError(f"answers {path} with {_status(error)}") from None
        except urllib.error.URLError as error:
            raise ServerError(_reason(error.reason)) from None
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(_reason(error)) from None
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise ServerError(f"answers {path} with something that is no JSON") from None


def _body(response: http.client.HTTPResponse) -> bytes:
    deadline = time.monotonic() + ANSWER_SECONDS
    parts: list[bytes] = []
    size = 0
    while part := response.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES:
            raise ServerError(f"answers with more than {MAX_BYTES >> 20} MiB")
        if time.monotonic() > deadline:
            raise ServerError(f"takes more than {ANSWER_SECONDS:g} s for an answer")
    return b"".join(parts)


def _status(error: urllib.error.HTTPError) -> str:
    """Return what a status means here, and what the server says of it."""
    meanings = {401: ": it wants a token or password, or another one", 403: ": this token or user may not read it"}
    if error.code in meanings:
        return f"{error.code}{meanings[error.code]}"
    if location := error.headers.get("Location"):
        return f"{error.code}, on to {_shown(location)}; if that is right, name that address"
    said = ""
    try:
        answer = mapping_of(json.loads(error.read(MAX_SECRET_BYTES)))
        said = text_of(answer.get("message")) or text_of(answer.get("error"))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        pass  # what it says is not needed
    return printable(f"{error.code}{f': {said[:_MAX_SAID]}' if said else ''}")


def _reason(error: Any) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"cannot be spoken to by TLS: {printable(error.reason or str(error))}"
    if isinstance(error, TimeoutError):
        return f"says nothing for {SILENCE_SECONDS:g} s"
    if isinstance(error, socket.gaierror):
        return f"is not known by that name: {error.strerror}"
    if isinstance(error, http.client.HTTPException):
        return "answers with something that is no HTTP"
    return (isinstance(error, OSError) and error.strerror) or printable(str(error))
