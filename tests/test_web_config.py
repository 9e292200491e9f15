"""The web configuration: what exporter-toolkit takes is taken, what it refuses is refused, and each fault is located.

`GOOD_PLAIN`, `GOOD_TLS` and the first part of `BAD` re-express exporter-toolkit's own tests
(https://github.com/prometheus/exporter-toolkit, web/tls_config_test.go and web/testdata).
"""

import base64
import logging
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from web.serving import (
    PATIENCE,
    Served,
    authority,
    body,
    everything,
    header,
    one_response,
    request,
    status,
    trusting_client,
    write_certificates,
)

from spark_agent.agent.config import parse_address
from spark_agent.exporters.http import Limits
from spark_agent.exporters.listeners import listen
from spark_agent.exporters.web_config import OPEN, RateLimit, Users, WebConfig, WebConfigError, exposed


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with server.crt, server.key and ca.crt."""
    write_certificates(tmp_path)
    return tmp_path


def _load(folder: Path, text: str, clock: Clock | None = None) -> WebConfig:
    path = folder / "web.yml"
    path.write_text(text)
    return WebConfig(path, clock or Clock())


def _hash(password: str, prefix: bytes = b"2b") -> str:
    # The least cost that there is: what is tested is not bcrypt.
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4, prefix)).decode()


def _basic(user: str, password: str) -> str:
    return f"Authorization: {_credentials(user, password)}"


def _credentials(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


PAIR = "  cert_file: server.crt\n  key_file: server.key\n"
TLS = f"tls_server_config:\n{PAIR}"
GIVEN = f"{TLS}  client_auth_type: VerifyClientCertIfGiven\n"
DAVE, CAROL = _hash("dave123"), _hash("carol123")
USERS = f"basic_auth_users:\n  dave: {DAVE}\n  carol: {CAROL}\n"

ALL_SUITES = """\
  cipher_suites:
  - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
  - TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
  - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
  - TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
  - TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
  - TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
  - TLS_AES_128_GCM_SHA256
  - TLS_AES_256_GCM_SHA384
  - TLS_CHACHA20_POLY1305_SHA256
  - TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA
  - TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA
  - TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA
  - TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA
  - TLS_RSA_WITH_AES_128_CBC_SHA
  - TLS_RSA_WITH_AES_256_CBC_SHA
  - TLS_RSA_WITH_AES_128_GCM_SHA256
  - TLS_RSA_WITH_AES_256_GCM_SHA384
"""
ALL_CURVES = "  curve_preferences: [CurveP256, CurveP384, CurveP521, X25519, X25519MLKEM768]\n"
HEADERS = """\
http_server_config:
  headers:
    X-Frame-Options: deny
    Strict-Transport-Security: max-age=31536000; includeSubDomains
    X-Content-Type-Options: nosniff
    X-XSS-Protection: 1
    Content-Security-Policy: "default-src 'self' *.test.example.net"
"""

GOOD_PLAIN = {
    "empty": "",
    "only a comment": "# nothing yet\n",
    "empty sections": "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n",
    "headers": HEADERS,
    "rate limiter, nonblocking": "rate_limit:\n  interval: 0\n  burst: 0\n",
    "rate limiter, one second": "rate_limit:\n  interval: 1s\n  burst: 100\n",
    "users, no TLS": USERS,
}
GOOD_TLS = {
    "noAuth": f"{GIVEN}  client_ca_file: ca.crt\n",
    "blocking": f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n",
    "all ciphers": GIVEN + ALL_SUITES,
    "all curves": GIVEN + ALL_CURVES,
    "some curves": f"{GIVEN}  min_version: TLS13\n  curve_preferences:\n  - CurveP521\n",
    "no HTTP/2": f"{GIVEN}  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]\n  max_version: TLS12\n"
    "http_server_config:\n  http2: false\n",
    "users": TLS + USERS,
    "no client certificate": f"{TLS}  client_auth_type: NoClientCert\n",
    "client certificate asked for": f"{TLS}  client_auth_type: RequestClientCert\n",
    "old versions": f"{TLS}  min_version: TLS10\n  max_version: TLS13\n",
    "suites of TLS 1.3 only": f"{TLS}  min_version: TLS13\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n",
}

BAD = {
    # exporter-toolkit's
    "junk": ("hogehoge\n", 1, "the file is no mapping"),
    "junk key": ("tls_server_config:\n  cert_filse: server.crt\n", 2, "cert_filse.*did you mean cert_file?.*key_file"),
    "cert path empty": (
        "tls_server_config:\n  cert_file: ''\n  key_file: server.key\n",
        2,
        "neither cert_file nor cert",
    ),
    "cert empty": ("tls_server_config:\n  cert: ''\n  key_file: server.key\n", 2, "neither cert_file nor cert"),
    "key path empty": ("tls_server_config:\n  cert_file: server.crt\n  key_file: ''\n", 3, "neither key_file nor key"),
    "key empty": ("tls_server_config:\n  cert_file: server.crt\n  key: ''\n", 2, "neither key_file nor key"),
    "cert and key empty": ("tls_server_config:\n  cert_file: ''\n  key_file: ''\n", 2, "neither cert_file nor cert"),
    "cert path invalid": ("tls_server_config:\n  cert_file: no\n  key_file: server.key\n", 2, "no: No such file"),
    "key path invalid": ("tls_server_config:\n  cert_file: server.crt\n  key_file: no\n", 3, "no: No such file"),
    "cert and key path invalid": ("tls_server_config:\n  cert_file: no\n  key_file: no\n", 2, "no: No such file"),
    "client CA without a policy": (f"{TLS}  client_ca_file: /dev/null\n", 4, "without client_auth_type"),
    "client CA invalid": (
        f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: no\n",
        5,
        "no: No such file",
    ),
    "user list invalid": (f"{TLS}basic_auth_users:\n  john: doe\n", 5, "user 'john': no bcrypt hash"),
    "invented ciphers": (f"{TLS}  cipher_suites:\n  - TLS_RSA_WITH_RC4_128_SHA2048\n", 5, "cipher_suites cannot have"),
    "invented curves": (f"{TLS}  curve_preferences:\n  - CurveP257\n", 5, "did you mean CurveP256"),
    "wrong TLS version": (f"{TLS}  min_version: TLS111\n", 4, "min_version cannot be 'TLS111'; did you mean TLS11?"),
    "no HTTP/2 cipher": (f"{TLS}  cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]\n  max_version: TLS12\n", 4, "HTTP/2"),
    "X-Content-Type-Options": (
        "http_server_config:\n  headers:\n    X-Content-Type-Options: sniff\n",
        3,
        "X-Content-Type-Options cannot be 'sniff'; valid: nosniff",
    ),
    "X-Frame-Options": ("http_server_config:\n  headers:\n    X-Frame-Options: x\n", 3, "valid: deny, sameorigin"),
    "extra header": ("http_server_config:\n  headers:\n    Server: x\n", 3, "unknown field Server in headers"),
    "SANs without client certificates": (f"{TLS}  client_allowed_sans: [a]\n", 4, "needs client_auth_type"),
    "SANs with optional certificates": (f"{GIVEN}  client_allowed_sans: [a]\n", 5, "needs client_auth_type"),
    "client CA without a certificate": (
        f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: /dev/null\n",
        5,
        "no certificate",
    ),
    "client CA text without a certificate": (
        f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca: nothing\n",
        5,
        "no certificate",
    ),
    "client auth type": (f"{TLS}  client_auth_type: RequireAndVerify\n", 4, "did you mean RequireAndVerifyClientCert"),
    # ours
    "what Python cannot do": (f"{TLS}  client_auth_type: RequireAnyClientCert\n", 4, "Python's ssl does not offer"),
    "two curves": (f"{TLS}  curve_preferences: [CurveP256, CurveP384]\n", 4, "one curve, or all"),
    "TLS that would be off": ("tls_server_config:\n  min_version: TLS13\n", 2, "so there would be no TLS"),
    "twice": ("rate_limit:\n  burst: 1\n  burst: 2\n", 3, "burst stands twice in rate_limit"),
    "a user twice": (f"basic_auth_users:\n  a: {DAVE}\n  a: {CAROL}\n", 3, "a stands twice"),
    "unknown section": ("tls_config:\n", 1, "unknown field tls_config in the file; did you mean tls_server_config"),
    "cert and cert_file": (f"{TLS}  cert: x\n", 4, "both cert and cert_file"),
    "versions the wrong way round": (f"{TLS}  min_version: TLS13\n  max_version: TLS12\n", 5, "older than min_version"),
    "not PEM": ("tls_server_config:\n  cert_file: web.yml\n  key_file: server.key\n", 2, "PEM"),
    "a folder": ("tls_server_config:\n  cert_file: .\n  key_file: server.key\n", 2, "Is a directory"),
    "no YAML": ("a: [1\nb: }", 2, "no YAML"),
    "a list": ("- a\n", 1, "the file is no mapping; valid: tls_server_config"),
    "no list": (f"{TLS}  cipher_suites: 5\n", 4, "cipher_suites is no list"),
    "no text": ("tls_server_config:\n  cert_file: [a]\n", 2, "cert_file is no text"),
    "no flag": ("http_server_config:\n  http2: maybe\n", 2, "neither true nor false"),
    "no name": ("? [a]\n: b\n", 1, "a name must be plain text"),
    "a header in two lines": (
        'http_server_config:\n  headers:\n    X-XSS-Protection: "1\\r\\nX: y"\n',
        3,
        "a character that no header may have",
    ),
    "a colon in a user's name": (f'basic_auth_users:\n  "a:b": {DAVE}\n', 2, "no colon"),
    "no duration": ("rate_limit:\n  interval: soon\n", 2, "'soon' is no duration"),
    "no burst": ("rate_limit:\n  interval: 1s\n  burst: many\n", 3, "'many' is no number"),
    "a burst of nothing": ("rate_limit:\n  interval: 1s\n  burst: 0\n", 3, "no request would ever be answered"),
    "an anchor in itself": ("&a\nrate_limit: *a\n", 2, "unknown field rate_limit in rate_limit"),
}


@pytest.mark.parametrize("text", GOOD_PLAIN.values(), ids=GOOD_PLAIN)
def test_good_without_tls(text: str, folder: Path) -> None:
    """What exporter-toolkit takes is taken; an empty file asks for nothing."""
    assert _load(folder, text).policy.tls is None


@pytest.mark.parametrize("text", GOOD_TLS.values(), ids=GOOD_TLS)
def test_good_with_tls(text: str, folder: Path) -> None:
    """What exporter-toolkit takes is taken."""
    assert _load(folder, text).policy.tls is not None


@pytest.mark.parametrize(("text", "line", "message"), BAD.values(), ids=BAD)
def test_bad(text: str, line: int, message: str, folder: Path) -> None:
    """What cannot be used is refused, with the file, the line, what is wrong, and what is valid."""
    with pytest.raises(WebConfigError, match=message) as raised:
        _load(folder, text)

    assert str(raised.value).startswith(f"{folder}/web.yml: line {line}: ")
    assert "\n" not in str(raised.value)


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(WebConfigError, match=r"/somefile: No such file or directory"):
        WebConfig(tmp_path / "somefile")


@given(content=st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!|>'\"\n #%@\t?", max_size=60).map(str.encode))
def test_any_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever the file holds, it is a configuration or an error that says where."""
    path = tmp_path_factory.getbasetemp() / "any.yml"
    path.write_bytes(content)
    try:
        assert WebConfig(path).policy.tls is None
    except WebConfigError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017  (most files raise, an empty one does not)


def test_a_pair_that_does_not_match(folder: Path) -> None:
    """The commonest mistake with certificates has words of its own."""
    (folder / "server.key").write_bytes(authority().issue_cert("other").private_key_pem.bytes())

    with pytest.raises(WebConfigError, match="line 2: certificate and key do not belong together"):
        _load(folder, TLS)


def test_an_encrypted_key(folder: Path) -> None:
    """A service has nobody to ask for a passphrase, and must not hang at a terminal."""
    (folder / "server.key").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIC\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )

    with pytest.raises(WebConfigError, match="line 3: the key is encrypted"):
        _load(folder, TLS)


# --- on the wire ------------------------------------------------------------------------------------------------------


def _indented(path: Path) -> str:
    return "".join(f"    {line}\n" for line in path.read_text().splitlines())


def test_tls(folder: Path) -> None:
    """Pages are served over TLS, by HTTP/1.1 also to who would rather have HTTP/2."""
    client = trusting_client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    with Served(web_config=_load(folder, TLS)) as served, served.tls(client) as connection:
        assert "http/1.1" == connection.selected_alpn_protocol()
        for _ in range(2):
            connection.sendall(request())
            assert "hello you\n" == body(one_response(connection))


def test_tls_inline(folder: Path) -> None:
    """Certificate and key may stand in the file itself, and no copy of the key is left anywhere."""
    text = (
        f"tls_server_config:\n  cert: |\n{_indented(folder / 'server.crt')}  key: |\n{_indented(folder / 'server.key')}"
    )
    before = set(folder.iterdir())
    with Served(web_config=_load(folder, text)) as served, served.tls(trusting_client()) as connection:
        connection.sendall(request())
        assert 200 == status(one_response(connection))
    assert {folder / "web.yml"} == set(folder.iterdir()) - before


def _shakes_hands(served: Served, client: ssl.SSLContext) -> str | None:
    """Return the protocol that was agreed on and served, None for none."""
    try:
        with served.tls(client) as connection:
            connection.sendall(request("/", "Connection: close"))
            # In TLS 1.3 a client learns only now that it is not welcome.
            return connection.version() if status(everything(connection)) == 200 else None
    except (ssl.SSLError, ConnectionError):
        return None


@pytest.mark.parametrize(
    ("settings", "newest", "agreed"),
    [
        ("", ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        ("", ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        ("", ssl.TLSVersion.TLSv1_1, None),
        ("  max_version: TLS12\n", ssl.TLSVersion.TLSv1_3, "TLSv1.2"),
        ("  min_version: TLS13\n", ssl.TLSVersion.TLSv1_2, None),
        ("  min_version: TLS11\n", ssl.TLSVersion.TLSv1_1, "TLSv1.1"),
        ("  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n", ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
    ],
)
def test_tls_versions(settings: str, newest: ssl.TLSVersion, agreed: str | None, folder: Path) -> None:
    """TLS 1.2 and 1.3 unless the file says otherwise, and old versions only where it does."""
    client = trusting_client()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version, client.maximum_version = ssl.TLSVersion.TLSv1_1, newest
    client.set_ciphers("DEFAULT:@SECLEVEL=0")

    with Served(web_config=_load(folder, TLS + settings)) as served:
        assert agreed == _shakes_hands(served, client)


SOME_SUITES = (
    "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n"
    "  max_version: TLS12\n"
)


@pytest.mark.parametrize(
    ("settings", "offered", "agreed"),
    [
        (SOME_SUITES, "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        (SOME_SUITES, "ECDHE-RSA-AES256-SHA", None),
        (
            f"{SOME_SUITES}  prefer_server_cipher_suites: true\n",
            "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES256-GCM-SHA384",
        ),
        (
            f"{SOME_SUITES}  prefer_server_cipher_suites: false\n",
            "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES128-GCM-SHA256",
        ),
    ],
)
def test_cipher_suites(settings: str, offered: str, agreed: str | None, tmp_path: Path) -> None:
    """Only what is listed is spoken, in the server's order or the client's."""
    write_certificates(tmp_path, trustme.KeyType.RSA)
    client = trusting_client()
    client.set_ciphers(offered)
    got = None
    with Served(web_config=_load(tmp_path, TLS + settings)) as served:
        try:
            with served.tls(client) as connection:
                cipher = connection.cipher()
                got = cipher[0] if cipher else None
        except ssl.SSLError:
            pass

    assert agreed == got


@pytest.mark.parametrize(("curve", "agreed"), [("secp521r1", "TLSv1.3"), ("secp384r1", None)])
def test_curves(curve: str, agreed: str | None, folder: Path) -> None:
    """A client that has another curve than the one that is listed is refused."""
    client = trusting_client()
    client.set_ecdh_curve(curve)

    with Served(web_config=_load(folder, f"{TLS}  min_version: TLS13\n  curve_preferences: [CurveP521]\n")) as served:
        assert agreed == _shakes_hands(served, client)


VERIFY = f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
OURS = "prometheus.example"


def _client_certificate(*names: str, ours: bool = True) -> trustme.LeafCert:
    return (authority() if ours else trustme.CA()).issue_cert(*names)


@pytest.mark.parametrize(
    ("text", "certificate", "is_served"),
    [
        (VERIFY, None, False),
        (VERIFY, "ours", True),
        (VERIFY, "other", False),
        (f"{GIVEN}  client_ca_file: ca.crt\n", None, True),
        (f"{GIVEN}  client_ca_file: ca.crt\n", "ours", True),
        (f"{GIVEN}  client_ca_file: ca.crt\n", "other", False),
        (GIVEN, "ours", False),
        (f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n", None, False),
        (f"{TLS}  client_auth_type: RequestClientCert\n", "other", True),
    ],
)
def test_client_certificates(text: str, certificate: str | None, is_served: bool, folder: Path) -> None:
    """Who has to show a certificate that our authority signed, and does not, gets nothing."""
    shown = {None: None, "ours": _client_certificate(OURS), "other": _client_certificate(OURS, ours=False)}[certificate]

    with Served(web_config=_load(folder, text)) as served:
        assert is_served == (_shakes_hands(served, trusting_client(shown)) is not None)
        served.until(lambda: 0 == served.server.connections)


def test_a_certificate_may_be_its_own_authority(folder: Path) -> None:
    """One client's certificate as client_ca_file lets in that client, and no other of the same authority."""
    known, other = _client_certificate(OURS), _client_certificate(OURS)
    (folder / "ca.crt").write_bytes(known.cert_chain_pems[0].bytes())

    with Served(web_config=_load(folder, VERIFY)) as served:
        assert "TLSv1.3" == _shakes_hands(served, trusting_client(known))
        assert None is _shakes_hands(served, trusting_client(other))


@pytest.mark.parametrize(
    ("allowed", "is_served"),
    [
        ("[one, test3, prometheus.example]", True),
        ("[one]", False),
        ("[Prometheus.example]", False),
        ("['*.example']", False),
        ("[10.1.2.3]", True),
        ("['fd00:0::7']", True),
        ("[someone@prometheus.example]", True),
        ("[]", False),
    ],
)
def test_client_allowed_sans(allowed: str, is_served: bool, folder: Path) -> None:
    """One of a certificate's names has to be on the list: DNS name, address or e-mail, exactly."""
    shown = _client_certificate(OURS, "10.1.2.3", "fd00::7", "someone@prometheus.example")

    with Served(web_config=_load(folder, f"{VERIFY}  client_allowed_sans: {allowed}\n")) as served:
        assert is_served == (_shakes_hands(served, trusting_client(shown)) is not None)


def test_headers(folder: Path) -> None:
    """Headers of the file are in every answer, also that to somebody unknown, and none stands there twice."""
    with Served(web_config=_load(folder, HEADERS + USERS)) as served:
        answer = served.get()

    assert 401 == status(answer)
    assert "deny" == header(answer, "X-Frame-Options")
    assert "max-age=31536000; includeSubDomains" == header(answer, "Strict-Transport-Security")
    assert "1" == header(answer, "X-XSS-Protection")
    assert 1 == answer.count(b"nosniff")


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (None, 401),
        (_basic("dave", "dave123"), 200),
        (_basic("carol", "carol123"), 200),
        (_basic("dave", "carol123"), 401),
        (_basic("dave", "bad"), 401),
        (_basic("dave", "dave123 "), 401),
        (_basic("nonexistent", "nonexistent"), 401),
        (_basic("", ""), 401),
        (_basic("dave", "x" * 1000), 401),
        (_basic("dave", "a\0b"), 401),
        (_basic("dävé", "pässword"), 401),
        ("Authorization: Basic", 401),
        ("Authorization: Basic ????", 401),
        ("Authorization: Basic ZGF2ZQ==", 401),
        ("Authorization: Bearer dave123", 401),
    ],
)
def test_users(authorization: str | None, expected: int, folder: Path) -> None:
    """Who is listed and knows the password gets in, the second time as the first; nobody else does."""
    with Served(web_config=_load(folder, USERS)) as served:
        for _ in range(2):
            answer = served.get("/", *([authorization] if authorization else []))
            assert expected == status(answer)
            assert ('Basic realm="spark-agent"' if expected == 401 else "") == header(answer, "WWW-Authenticate")


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """Return the calls of bcrypt, as they come."""
    calls: list[tuple[bytes, bytes]] = []
    real = bcrypt.checkpw

    def checkpw(password: bytes, known: bytes) -> bool:
        calls.append((password, known))
        return real(password, known)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    return calls


@pytest.mark.parametrize(
    ("user", "password", "verdict"), [("dave", "dave123", True), ("dave", "x", False), ("x", "x", False)]
)
def test_a_verdict_is_paid_for_once(
    user: str,
    password: str,
    verdict: bool,
    checked: list[tuple[bytes, bytes]],
) -> None:
    """Bcrypt is asked once for each user and password, known or unknown, right or wrong."""
    users = Users({"dave": DAVE})
    authorization = _credentials(user, password)

    assert None is users.verdict(authorization)
    assert verdict == users.judge(authorization)
    assert verdict == users.verdict(authorization)
    assert 1 == len(checked)


def test_an_unknown_user_costs_as_much(checked: list[tuple[bytes, bytes]]) -> None:
    """Time does not tell who exists: a hash of the same cost is checked for anybody."""
    users = Users({"dave": DAVE})

    for user in ("dave", "nobody"):
        assert not users.judge(_credentials(user, "x"))

    assert [DAVE[:7], DAVE[:7]] == [known[:7].decode() for _, known in checked]


def test_the_dearest_hash_is_what_an_unknown_user_costs(checked: list[tuple[bytes, bytes]]) -> None:
    """With hashes of several costs, the unknown cost as much as the dearest."""
    dear = bcrypt.hashpw(b"x", bcrypt.gensalt(5)).decode()

    assert not Users({"a": DAVE, "b": dear}).judge(_credentials("nobody", "x"))
    assert b"$2b$05$" == checked[0][1][:7]


def test_nobody_gets_in_whatever_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash that an unknown user's password is held against is never a way in."""
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: True)

    assert not Users({"dave": DAVE}).judge(_credentials("nobody", "x"))


def test_wrong_passwords_do_not_push_out_right_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of wrong passwords costs no memory, and honest clients stay known."""
    monkeypatch.setattr(Users, "_WRONG_KEPT", 20)
    users = Users({"dave": DAVE})
    users.judge(_credentials("dave", "dave123"))
    for number in range(users._WRONG_KEPT + 10):
        users.judge(_credentials("dave", f"{number}"))

    assert True is users.verdict(_credentials("dave", "dave123"))
    assert None is users.verdict(_credentials("dave", "0"))
    assert users._WRONG_KEPT == len(users._wrong)


def test_hashes_of_other_tools() -> None:
    """What htpasswd writes ($2y$) is taken, and a password longer than bcrypt's 72 bytes is judged by those."""
    users = Users({"a": _hash("secret").replace("$2b$", "$2y$"), "b": _hash("x" * 72)})

    assert users.judge(_credentials("a", "secret"))
    assert users.judge(_credentials("b", "x" * 100))
    assert not users.judge(_credentials("b", "x" * 71))


def test_known_clients_pass_a_flood_of_wrong_passwords(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While bcrypt is busy with strangers, those it knows are served, and strangers beyond a few are sent away."""
    is_busy, may_go_on = threading.Event(), threading.Event()
    real = bcrypt.checkpw

    def slow(password: bytes, known: bytes) -> bool:
        if password.startswith(b"wrong"):
            is_busy.set()
            assert may_go_on.wait(PATIENCE)
        return real(password, known)

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    with Served(web_config=_load(folder, USERS), limits=Limits(passwords=3)) as served:
        assert 200 == status(served.get("/", _basic("dave", "dave123")))
        strangers = [served.connect() for _ in range(5)]
        for number, stranger in enumerate(strangers):
            stranger.sendall(request("/", _basic("dave", f"wrong{number}"), "Connection: close"))
        assert is_busy.wait(PATIENCE)
        assert 200 == status(served.get("/", _basic("dave", "dave123")))
        served.until(lambda: 3 == served.server._passwords)
        assert 503 == status(served.get("/", _basic("dave", "wrong")))
        may_go_on.set()
        assert [401, 401, 401, 503, 503] == sorted(status(everything(stranger)) for stranger in strangers)
        for stranger in strangers:
            stranger.close()


def test_a_rate_limit(folder: Path) -> None:
    """Who asks too often is told so, whoever it is."""
    with Served(web_config=_load(folder, "rate_limit:\n  interval: 1h\n  burst: 2\n")) as served:
        assert [200, 200, 429] == [status(served.get()) for _ in range(3)]


def test_a_bucket_fills_again() -> None:
    """One request more for each interval that passes, and never more than the burst."""
    limit = RateLimit(0.5, 2)

    assert [True, True, False] == [limit.allows(10.0) for _ in range(3)]
    assert [True, False] == [limit.allows(10.5) for _ in range(2)]
    assert [True, True, False] == [limit.allows(1000.0) for _ in range(3)]


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1.0), ("1m30s", 90.0), ("250ms", 0.25), ("1.5h", 5400.0), ("5us", 5e-6)]
)
def test_durations(text: str, seconds: float, folder: Path) -> None:
    """Durations are written as Go has them."""
    limit = _load(folder, f"rate_limit:\n  interval: {text}\n  burst: 1\n").policy.rate_limit

    assert limit is not None
    assert seconds == pytest.approx(limit.interval)


# --- read again -------------------------------------------------------------------------------------------------------


def _replace(path: Path, content: bytes) -> None:
    """Replace a file as careful tools do it, so that its inode is another."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def test_a_new_version_applies_without_a_restart(folder: Path) -> None:
    """What is changed on disk applies to the next connection and the next request, after a second at most."""
    clock = Clock()
    config = _load(folder, "", clock)
    with Served(web_config=config) as served, served.connect() as kept:
        kept.sendall(request())
        assert 200 == status(one_response(kept))
        _replace(config.path, USERS.encode())
        clock.now += 1
        kept.sendall(request())
        assert 401 == status(one_response(kept))
        _replace(config.path, TLS.encode())
        clock.now += 1
        assert "TLSv1.3" == _shakes_hands(served, trusting_client())


def test_a_new_certificate(folder: Path) -> None:
    """A certificate that was renewed is shown to the next client; passwords once known stay known."""
    clock = Clock()
    config = _load(folder, TLS + USERS, clock)
    users = config.policy.users
    renewed = authority().issue_cert("localhost")
    with Served(web_config=config) as served:
        with served.tls(trusting_client()) as client:
            before = client.getpeercert(binary_form=True)
        _replace(folder / "server.key", renewed.private_key_pem.bytes())
        clock.now += 1
        with served.tls(trusting_client()) as client:
            assert before == client.getpeercert(binary_form=True)
        _replace(folder / "server.crt", renewed.cert_chain_pems[0].bytes())
        clock.now += 1
        with served.tls(trusting_client()) as client:
            assert before != client.getpeercert(binary_form=True)
    assert users is config.policy.users


def test_a_changed_password_is_forgotten(folder: Path) -> None:
    """Who was let in by an old password is not let in by it once it is another."""
    clock = Clock()
    config = _load(folder, f"basic_auth_users:\n  dave: {_hash('old')}\n", clock)
    with Served(web_config=config) as served:
        assert 200 == status(served.get("/", _basic("dave", "old")))
        _replace(config.path, f"basic_auth_users:\n  dave: {_hash('new')}\n".encode())
        clock.now += 1
        assert [401, 200] == [status(served.get("/", _basic("dave", password))) for password in ("old", "new")]


def test_a_bad_version_is_said_once_and_changes_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The version before stays in force until there is a good one; the log has one line for each bad one."""
    clock = Clock()
    config = _load(folder, USERS, clock)
    before = config.policy
    with caplog.at_level(logging.ERROR):
        for content in (b"rate_limt:\n", b"tls_server_config: {cert_file: new.crt, key_file: server.key}\n"):
            _replace(config.path, content)
            for _ in range(3):
                clock.now += 1
                assert before is config.policy
        # What was missing comes: no need to touch the file that names it.
        (folder / "new.crt").write_bytes((folder / "server.crt").read_bytes())
        clock.now += 1
        assert config.policy.tls is not None
    sections = "tls_server_config, http_server_config, basic_auth_users, rate_limit"
    faults = (
        f"unknown field rate_limt in the file; did you mean rate_limit? valid: {sections}",
        f"{folder}/new.crt: No such file or directory",
    )
    end = "the web configuration of before stays in force"
    assert [f"{config.path}: line 1: {fault}; {end}" for fault in faults] == [
        record.getMessage() for record in caplog.records
    ]


def test_a_file_that_goes_away_changes_nothing(folder: Path) -> None:
    """To remove the file is no way to open the doors."""
    clock = Clock()
    config = _load(folder, USERS, clock)
    config.path.unlink()
    clock.now += 1

    assert config.policy.users is not None


def test_files_are_looked_at_once_a_second(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many requests cost one look per second."""
    clock = Clock()
    config = _load(folder, TLS, clock)
    looks: list[Path] = []

    def stamp(path: Path) -> tuple[int, int, int] | None:
        looks.append(path)
        return config._stamps[path]

    monkeypatch.setattr("spark_agent.exporters.web_config._stamp", stamp)
    for _ in range(100):
        clock.now += 0.05
        assert config.policy.tls is not None

    assert 4 <= len(looks) // 3 <= 5


def test_reload_on_demand(folder: Path) -> None:
    """SIGHUP does not wait for the second, and is told whether the file could be used."""
    config = _load(folder, "")
    config.path.write_text(USERS)
    assert config.reload()
    assert config.policy.users is not None
    config.path.write_text("nonsense")
    assert not config.reload()
    assert config.policy.users is not None


# --- who reaches it ---------------------------------------------------------------------------------------------------


@pytest.fixture
def everywhere() -> Iterator[list[socket.socket]]:
    """Return sockets on all interfaces."""
    listeners = listen([parse_address("0.0.0.0:0")])
    yield listeners
    for listener in listeners:
        listener.close()


def test_what_only_this_machine_reaches(tmp_path: Path) -> None:
    """Loopback and unix sockets are no reason to warn."""
    listeners = listen(parse_address(one) for one in ("127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/x.sock"))
    try:
        assert None is exposed(listeners, None)
    finally:
        for listener in listeners:
            listener.close()


def test_what_others_reach(everywhere: list[socket.socket], folder: Path) -> None:
    """Without a password or a certificate anybody reads; a password needs TLS."""
    port = everywhere[0].getsockname()[1]

    assert f"anybody who reaches 0.0.0.0:{port} can read" in (exposed(everywhere, None) or "")
    assert "anybody" in (exposed(everywhere, _load(folder, TLS)) or "")
    assert f"passwords reach 0.0.0.0:{port} unencrypted" in (exposed(everywhere, _load(folder, USERS)) or "")
    assert None is exposed(everywhere, _load(folder, TLS + USERS))
    assert None is exposed(everywhere, _load(folder, VERIFY))


def test_nothing_is_the_policy_without_a_file() -> None:
    """Without a file there is no TLS, nobody has to say who they are, and nothing is added."""
    assert (None, None, (), None) == (OPEN.tls, OPEN.users, OPEN.headers, OPEN.rate_limit)
