"""Who may ask, and how safely: TLS, client certificates, users, headers and a rate limit.

The file's format is that of Prometheus' exporter-toolkit (https://github.com/prometheus/exporter-toolkit), so that one
file serves all exporters of a machine. ``docs/web-config.md`` says where we are stricter, and why.
"""

import base64
import binascii
import contextlib
import hmac
import ipaddress
import logging
import os
import re
import secrets
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

log = logging.getLogger(__name__)

#: How often, in seconds, the files are looked at for a change; a look costs one stat(2) each.
LOOK_SECONDS: Final = 1.0


class WebConfigError(Exception):
    """The web configuration cannot be used: says in which file and line, what is wrong, and what is valid."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How connections are encrypted, and which client certificates are let in; ``allowed_sans`` is None for any."""

    context: ssl.SSLContext
    allowed_sans: frozenset[str] | None = None

    @property
    def is_authenticating(self) -> bool:
        """Whether nobody gets in without a certificate that our authority signed."""
        return self.context.verify_mode is ssl.CERT_REQUIRED

    def refusal(self, peer: ssl.SSLObject) -> str | None:
        """Return why this peer's certificate is not on the list; nothing where it is."""
        if self.allowed_sans is None:
            return None
        names = sorted(_subject_alternative_names(peer))
        if self.allowed_sans.isdisjoint(names):
            return f"client certificate is for {', '.join(names) or 'no name'}, which client_allowed_sans does not list"
        return None


def _subject_alternative_names(peer: ssl.SSLObject) -> Iterator[str]:
    certificate = peer.getpeercert() or {}
    names = certificate.get("subjectAltName", ())
    for kind, name in names if isinstance(names, tuple) else ():
        # OpenSSL writes an IPv6 address in full, everybody else in short.
        yield str(ipaddress.ip_address(str(name).strip())) if kind == "IP Address" else str(name)


class Users:
    """The users and their bcrypt hashes. A verdict is cheap the second time.

    `verdict` may be asked in any thread; `judge` costs what bcrypt costs, and is called by one thread at a time.
    """

    # A user has one right password, and any number of wrong ones: a flood of these must not push out the others.
    _RIGHT_KEPT: Final = 256
    _WRONG_KEPT: Final = 1024

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self.hashes = dict(hashes)
        # Costs as much to check as a real one, so that time does not tell whether a user exists. It fits no password
        # that anybody knows; and if one did, an unknown user would still not be let in.
        dearest = max(self.hashes.values(), key=lambda known: int(known[4:6]), default="$2b$10$")
        self._nobody = f"{dearest[:7]}{'.' * 53}"
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, bool] = {}
        self._wrong: dict[bytes, bool] = {}

    def verdict(self, authorization: str) -> bool | None:
        """Return whether this Authorization header lets in; None where only `judge` can tell."""
        credentials = _credentials(authorization)
        if credentials is None:
            return False
        # The key is ours and random, so how long the look-up takes tells nothing about the password.
        remembered = self._remembered_as(*credentials)
        return self._right.get(remembered, self._wrong.get(remembered))

    def judge(self, authorization: str) -> bool:
        """Return whether this Authorization header lets in, and remember it; takes as long as bcrypt takes."""
        import bcrypt  # late: only where there are users

        credentials = _credentials(authorization)
        if credentials is None:
            return False
        user, password = credentials
        known = self.hashes.get(user.decode(errors="replace"))
        try:
            # bcrypt looks at 72 bytes and no more; the library refuses what is longer, where others cut it off.
            fits = bcrypt.checkpw(password[:72], (known or self._nobody).encode())
        except ValueError:  # a zero byte, which no password has
            fits = False
        is_right = known is not None and fits
        kept, most = (self._right, self._RIGHT_KEPT) if is_right else (self._wrong, self._WRONG_KEPT)
        while len(kept) >= most:
            del kept[next(iter(kept))]
        kept[self._remembered_as(user, password)] = is_right
        return is_right

    def _remembered_as(self, user: bytes, password: bytes) -> bytes:
        # A user's name has no colon in it, and neither has a hash: no two triples look the same.
        known = self.hashes.get(user.decode(errors="replace"), self._nobody)
        return hmac.digest(self._key, b":".join((user, known.encode(), password)), "sha256")


def _credentials(authorization: str) -> tuple[bytes, bytes] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


class RateLimit:
    """A token bucket: ``burst`` requests at once, and one more each ``interval`` seconds."""

    def __init__(self, interval: float, burst: int) -> None:
        self.interval = interval
        self.burst = burst
        self._tokens = float(burst)
        self._at: float | None = None

    def allows(self, now: float) -> bool:
        """Take one token, if there is one; ``now`` in seconds of a steady clock."""
        if self._at is not None:
            self._tokens = min(self.burst, self._tokens + (now - self._at) / self.interval)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class Policy:
    """One version of the file, ready to be applied."""

    tls: Tls | None = None
    users: Users | None = None
    headers: tuple[tuple[str, str], ...] = ()
    rate_limit: RateLimit | None = None


#: What applies where there is no file.
OPEN: Final = Policy()

_Stamp = tuple[int, int, int] | None


class WebConfig:
    """A web configuration file that is read again when it, or a file that it names, has changed.

    A version that cannot be used is said once in the log, and the one before stays in force.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file, or raise `WebConfigError`."""
        self.path = path
        self._clock = clock
        self._stamps: dict[Path, _Stamp] = {}
        self._policy = self._read()
        self._looked_at = clock()

    @property
    def policy(self) -> Policy:
        """What applies now; looks for changes at most once per second."""
        now = self._clock()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            if any(_stamp(path) != stamp for path, stamp in self._stamps.items()):
                self.reload()
        return self._policy

    def reload(self) -> bool:
        """Read the file again, and return whether it could be used."""
        try:
            policy = self._read()
        except WebConfigError as error:
            log.error("%s; the web configuration of before stays in force", error)  # noqa: TRY400  (one line)
            return False
        before = self._policy
        if policy.users and before.users and policy.users.hashes == before.users.hashes:
            # A new certificate is no reason to have every client pay for bcrypt once more.
            policy = Policy(policy.tls, before.users, policy.headers, policy.rate_limit)
        self._policy = policy
        log.info("web configuration read again from %s", self.path)
        return True

    def _read(self) -> Policy:
        # Each file's stamp is taken before it is read: what changes meanwhile is seen at the next look.
        self._stamps = {}
        return _read(self.path, self._stamps)


def exposed(listeners: Iterable[socket.socket], web_config: WebConfig | None) -> str | None:
    """Return what to warn of where other machines reach these sockets too easily; nothing where all is well."""
    outside = [listener.getsockname() for listener in listeners if _is_reachable(listener)]
    if not outside:
        return None
    where = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port, *_ in outside)
    policy = web_config.policy if web_config else OPEN
    if policy.tls and policy.tls.is_authenticating:
        return None
    if not policy.users:
        return (
            f"anybody who reaches {where} can read this machine's inventory and power; listen on 127.0.0.1, "
            "or ask for a password or a client certificate with --web.config.file"
        )
    if not policy.tls:
        return f"passwords reach {where} unencrypted; add tls_server_config to {web_config.path if web_config else ''}"
    return None


def _is_reachable(listener: socket.socket) -> bool:
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return not ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


# --- the file ---------------------------------------------------------------------------------------------------------


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path, stamps: dict[Path, _Stamp]) -> Policy:
    stamps[path] = _stamp(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WebConfigError(f"{path}: {error.strerror}") from error
    try:
        node = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise WebConfigError(f"{path}: {line}no YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise WebConfigError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    file = _File(path, stamps)
    root = _Section(file, node, "the file", _ROOT)
    http = root.section("http_server_config", _HTTP)
    has_http2 = http.flag("http2", default=True)
    return Policy(
        _tls(root.section("tls_server_config", _TLS), has_http2=has_http2),
        _users(root.section("basic_auth_users")),
        _headers(http.section("headers", tuple(_HEADERS))),
        _rate_limit(root.section("rate_limit", ("interval", "burst"))),
    )


@dataclass(frozen=True, slots=True)
class _File:
    """The file that is read, and those that it names."""

    path: Path
    stamps: dict[Path, _Stamp]

    def error(self, node: yaml.Node, message: str) -> WebConfigError:
        return WebConfigError(f"{self.path}: line {node.start_mark.line + 1}: {message}")

    def named(self, node: yaml.Node, name: str) -> Path:
        """Return a file that this one names, having made sure that it can be read."""
        path = self.path.parent / name
        self.stamps[path] = _stamp(path)
        try:
            path.open("rb").close()
        except OSError as error:
            raise self.error(node, f"{path}: {error.strerror}") from error
        return path


@dataclass(frozen=True, slots=True)
class _Section:
    """One mapping of the file; ``valid`` are the fields it may have, None for any."""

    file: _File
    node: yaml.Node | None
    name: str
    valid: Sequence[str] | None = None
    fields: dict[str, yaml.Node] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.node is None or _is_null(self.node):
            return
        if not isinstance(self.node, yaml.MappingNode):
            what = f"valid: {', '.join(self.valid)}" if self.valid else "one name and one value a line"
            raise self.file.error(self.node, f"{self.name} is no mapping; {what}")
        for key, value in self.node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.file.error(key, f"{self.name}: a name must be plain text")
            if self.valid is not None and key.value not in self.valid:
                raise self.file.error(key, f"unknown field {key.value} in {self.name}{_nearest(key.value, self.valid)}")
            if key.value in self.fields:
                raise self.file.error(key, f"{key.value} stands twice in {self.name}")
            self.fields[key.value] = value

    def section(self, name: str, valid: Sequence[str] | None = None) -> "_Section":
        """Return a mapping within this one; an empty one where there is none."""
        return _Section(self.file, self.fields.get(name), name, valid)

    def text(self, name: str) -> str:
        """Return a field as text; empty where there is none."""
        node = self.fields.get(name)
        return "" if node is None else self._text(node, name)

    def texts(self, name: str) -> list[tuple[str, yaml.Node]] | None:
        """Return a list of texts, each with where it stands; None where there is no list."""
        node = self.fields.get(name)
        if node is None or _is_null(node):
            return None
        if not isinstance(node, yaml.SequenceNode):
            raise self.file.error(node, f"{name} is no list; write one `- value` a line")
        return [(self._text(one, name), one) for one in node.value]

    def flag(self, name: str, *, default: bool) -> bool:
        """Return true or false."""
        node = self.fields.get(name)
        if node is None or _is_null(node):
            return default
        if node.tag != "tag:yaml.org,2002:bool":
            raise self.file.error(node, f"{name} is neither true nor false")
        return str(node.value).lower() in ("true", "yes", "on")

    def error(self, name: str, message: str) -> WebConfigError:
        """Return an error that says where a field stands; where it is not there, where its section does."""
        node = self.fields.get(name) or self.node
        assert node is not None  # noqa: S101  (an empty section has nothing wrong)
        return self.file.error(node, message)

    def _text(self, node: yaml.Node, name: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self.file.error(node, f"{name} is no text")
        return "" if _is_null(node) else str(node.value)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _nearest(name: str, valid: Iterable[str]) -> str:
    import difflib  # late: only for a mistake

    near = difflib.get_close_matches(name, valid, 1, cutoff=0.5)
    return f"; did you mean {near[0]}? valid: {', '.join(valid)}" if near else f"; valid: {', '.join(valid)}"


# --- users, headers, rate limit ---------------------------------------------------------------------------------------

_HASH: Final = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")


def _users(section: _Section) -> Users | None:
    for user in section.fields:
        if ":" in user:
            raise section.error(user, f"user {user!r}: basic authentication allows no colon in a name")
        if not _HASH.fullmatch(section.text(user)):
            raise section.error(user, f"user {user!r}: no bcrypt hash; make one with `htpasswd -nBC 10 {user}`")
    return Users({user: section.text(user) for user in section.fields}) if section.fields else None


# The headers that may be set, and the values that each may have; an empty list allows any.
_HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}


def _headers(section: _Section) -> tuple[tuple[str, str], ...]:
    headers = {name: section.text(name) for name in section.fields}
    for name, value in headers.items():
        if _HEADERS[name] and value not in _HEADERS[name]:
            raise section.error(name, f"{name} cannot be {value!r}; valid: {', '.join(_HEADERS[name])}")
        if not (value.isascii() and value.isprintable()):
            raise section.error(name, f"{name} has a character that no header may have")
    return tuple((name, value.strip()) for name, value in headers.items() if value.strip())


_DURATION_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def _rate_limit(section: _Section) -> RateLimit | None:
    interval, burst = section.text("interval") or "0", section.text("burst") or "0"
    if not re.fullmatch(rf"0|({_DURATION.pattern})+", interval):
        raise section.error(
            "interval", f"interval {interval!r} is no duration; write 100ms, 1s or 1m30s, or 0 for none"
        )
    if not re.fullmatch(r"\d{1,9}", burst):
        raise section.error("burst", f"burst {burst!r} is no number of requests")
    seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in _DURATION.findall(interval))
    if not seconds:
        return None
    if not int(burst):
        raise section.error("burst", "with a burst of 0 no request would ever be answered; write at least 1")
    return RateLimit(seconds, int(burst))


# --- TLS --------------------------------------------------------------------------------------------------------------

_ROOT: Final = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
_HTTP: Final = ("http2", "headers")
_TLS: Final = (
    "cert_file",
    "key_file",
    "cert",
    "key",
    "client_ca_file",
    "client_ca",
    "client_auth_type",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
)

_VERSIONS: Final = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}

_CLIENT_AUTH: Final = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    # Asked for, but neither needed nor looked at: as safe, or unsafe, as not to ask.
    "RequestClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_UNVERIFIED: Final = ("RequireAnyClientCert", "RequireClientCert")

# Go's names of cipher suites and OpenSSL's; those of TLS 1.3 cannot be chosen, neither there nor here.
_SUITES: Final = {
    "TLS_AES_128_GCM_SHA256": "",
    "TLS_AES_256_GCM_SHA384": "",
    "TLS_CHACHA20_POLY1305_SHA256": "",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}
# RFC 9113, 9.2.2: HTTP/2 over TLS 1.2 needs one of these.
_HTTP2_SUITES: Final = ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")

_CURVES: Final = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
    "X25519MLKEM768": "X25519MLKEM768",
}
# What OpenSSL offers by itself, at least.
_USUAL_CURVES: Final = frozenset({"CurveP256", "CurveP384", "CurveP521", "X25519"})


def _tls(section: _Section, *, has_http2: bool) -> Tls | None:
    if not section.fields:
        return None
    for one, other in (("cert", "cert_file"), ("key", "key_file"), ("client_ca", "client_ca_file")):
        if section.text(one) and section.text(other):
            raise section.error(one, f"both {one} and {other} are there; keep one")
    for one, other in (("cert", "cert_file"), ("key", "key_file")):
        if not (section.text(one) or section.text(other)):
            raise section.error(other, f"tls_server_config has neither {other} nor {one}, so there would be no TLS")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    _set_versions(context, section)
    _set_suites(context, section, has_http2=has_http2)
    _set_curves(context, section)
    _load_pair(context, section)
    _set_client_auth(context, section)
    return Tls(context, _allowed_sans(context, section))


def _choice(section: _Section, name: str, default: str, valid: Iterable[str]) -> str:
    chosen = section.text(name) or default
    if chosen not in valid:
        raise section.error(name, f"{name} cannot be {chosen!r}{_nearest(chosen, [one for one in valid if one])}")
    return chosen


def _choices(section: _Section, name: str, valid: Mapping[str, str]) -> list[str]:
    chosen = section.texts(name) or []
    for one, node in chosen:
        if one not in valid:
            raise section.file.error(node, f"{name} cannot have {one!r}{_nearest(one, valid)}")
    return [one for one, _ in chosen]


def _set_versions(context: ssl.SSLContext, section: _Section) -> None:
    oldest = _choice(section, "min_version", "TLS12", _VERSIONS)
    newest = _choice(section, "max_version", "TLS13", _VERSIONS)
    if oldest > newest:
        raise section.error("max_version", f"max_version {newest} is older than min_version {oldest}")
    with warnings.catch_warnings():
        # Python warns of versions before 1.2. Whoever writes one down has old clients, and knows.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = _VERSIONS[oldest], _VERSIONS[newest]


def _set_suites(context: ssl.SSLContext, section: _Section, *, has_http2: bool) -> None:
    chosen = _choices(section, "cipher_suites", _SUITES)
    is_old = context.minimum_version < ssl.TLSVersion.TLSv1_2
    if chosen and has_http2 and context.minimum_version < ssl.TLSVersion.TLSv1_3 and not set(_HTTP2_SUITES) & {*chosen}:
        # We speak HTTP/1.1 only, but a file that no other exporter takes is no shared file.
        raise section.error(
            "cipher_suites",
            f"HTTP/2 needs {' or '.join(_HTTP2_SUITES)} among cipher_suites; add it, or set http2: false",
        )
    suites = [_SUITES[one] for one in chosen if _SUITES[one]]
    if chosen and not suites:
        # All are of TLS 1.3, so there is none left for the versions before it.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if suites or is_old:
        # OpenSSL 3 refuses TLS 1.0 and 1.1 at its usual level of security, whatever the minimum says.
        context.set_ciphers(":".join([*(suites or ["DEFAULT"]), *(["@SECLEVEL=0"] if is_old else [])]))
    if not section.flag("prefer_server_cipher_suites", default=True):
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE


def _set_curves(context: ssl.SSLContext, section: _Section) -> None:
    chosen = _choices(section, "curve_preferences", _CURVES)
    if not chosen or _USUAL_CURVES.issubset(chosen):
        return
    if len(chosen) > 1:
        raise section.error(
            "curve_preferences", "Python's ssl takes one curve, or all; leave the list out, or keep the curve you need"
        )
    try:
        context.set_ecdh_curve(_CURVES[chosen[0]])
    except (ValueError, ssl.SSLError) as error:
        raise section.error("curve_preferences", f"{ssl.OPENSSL_VERSION} has no {chosen[0]}") from error


def _load_pair(context: ssl.SSLContext, section: _Section) -> None:
    with contextlib.ExitStack() as stack:
        certificate = _pem_file(section, "cert", stack)
        key = _pem_file(section, "key", stack)
        if b"ENCRYPTED" in key.read_bytes():
            raise section.error("key_file", "the key is encrypted, and nobody is there to type its passphrase")
        try:
            context.load_cert_chain(certificate, key, password="")
        except (ssl.SSLError, OSError) as error:
            raise section.error("cert_file" if "cert_file" in section.fields else "cert", _pair_fault(error)) from error


def _pem_file(section: _Section, name: str, stack: contextlib.ExitStack) -> Path:
    """Return a file that OpenSSL can read; for text, one in memory, so that no key is written to a disk."""
    if not section.text(name):
        return section.file.named(section.fields[f"{name}_file"], section.text(f"{name}_file"))
    memory = stack.enter_context(os.fdopen(os.memfd_create(name), "wb"))
    memory.write(section.text(name).encode())
    memory.flush()
    return Path(f"/proc/self/fd/{memory.fileno()}")


def _pair_fault(error: OSError) -> str:
    reason = getattr(error, "reason", None) or str(error)
    if "KEY_VALUES_MISMATCH" in reason or "KEY_TYPE_MISMATCH" in reason:
        return "certificate and key do not belong together"
    if "NO_START_LINE" in reason or "PEM" in str(error):
        return "certificate or key is no PEM; it begins with -----BEGIN CERTIFICATE----- or -----BEGIN PRIVATE KEY-----"
    return f"OpenSSL does not take this certificate and key: {reason.lower().replace('_', ' ')}"


def _set_client_auth(context: ssl.SSLContext, section: _Section) -> None:
    kind = section.text("client_auth_type")
    if kind in _UNVERIFIED:
        raise section.error(
            "client_auth_type",
            f"{kind} would ask for a certificate and believe any, which Python's ssl does not offer, and which keeps "
            "nobody out; use RequireAndVerifyClientCert with client_ca_file",
        )
    _choice(section, "client_auth_type", "", _CLIENT_AUTH)
    authority = section.text("client_ca") or section.text("client_ca_file")
    if authority and kind in ("", "NoClientCert"):
        raise section.error(
            "client_ca_file", "client_ca_file is of no use without client_auth_type: RequireAndVerifyClientCert"
        )
    context.verify_mode = _CLIENT_AUTH[kind]
    # A certificate that is listed itself is trusted, whoever signed it; Go does so too.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not authority:
        if context.verify_mode is not ssl.CERT_NONE:
            log.warning("%s: no client_ca_file, so no client certificate is valid", section.file.path)
        return
    name = "client_ca" if section.text("client_ca") else "client_ca_file"
    try:
        if name == "client_ca":
            context.load_verify_locations(cadata=section.text("client_ca"))
        else:
            context.load_verify_locations(section.file.named(section.fields[name], section.text(name)))
    except (ssl.SSLError, OSError, ValueError) as error:
        raise section.error(name, f"{name} holds no certificate in PEM") from error


def _allowed_sans(context: ssl.SSLContext, section: _Section) -> frozenset[str] | None:
    allowed = section.texts("client_allowed_sans")
    if allowed is None:
        return None
    if context.verify_mode is not ssl.CERT_REQUIRED:
        raise section.error(
            "client_allowed_sans", "client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert"
        )
    return frozenset(_plain(name) for name, _ in allowed)


def _plain(name: str) -> str:
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(name))
    return name
