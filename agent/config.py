"""Settings: one table, from which flags, environment, file, help, reference and messages follow.

All are the daemon's. Those of the group ``Power`` hold for every command that judges power.

A flag wins over the environment, the environment over the file, the file over the default. The reference is
docs/configuration.md; docs/spark-agent.toml is an example.
"""

import difflib
import errno
import ipaddress
import json
import logging
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any, Final, get_type_hints
from urllib.parse import urlsplit

import click

from spark_agent.agent import BEAT_SECONDS
from spark_agent.agent.logs import Format, Level

log = logging.getLogger(__name__)

#: Read where ``--config`` names no other, if it is there.
DEFAULT_FILE: Final = Path("/etc/spark-agent/spark-agent.toml")
PREFIX: Final = "SPARK_AGENT_"
#: Variables with that prefix that are no settings.
OTHER_VARIABLES: Final = frozenset({"SPARK_AGENT_DEBUG", "SPARK_AGENT_PROMETHEUS_TOKEN", "SPARK_AGENT_GRAFANA_TOKEN"})
#: Ten times the example. Without a limit, ``--config /dev/zero`` would be read for ever.
MAX_FILE_BYTES: Final = 1 << 16
#: What sockaddr_un holds, less its last zero: unix(7).
MAX_SOCKET_PATH_BYTES: Final = 107


class ConfigError(Exception):
    """What is wrong with file, environment or directories, one line for each fault: where, what, and what is valid."""

    def __init__(self, *problems: str) -> None:
        # They quote files that may be hostile, and go to a terminal.
        self.problems = tuple("".join(letter if letter.isprintable() else "?" for letter in line) for line in problems)
        super().__init__("\n".join(self.problems))


class SettingError(ValueError):
    """A value that a setting cannot have, and why."""


# What a setting may be


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A port of one interface; no host is every interface, port 0 any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


@dataclass(frozen=True, slots=True)
class Kind:
    """What a setting may be: how it is called in help and messages, which TOML types carry it, how its text is read."""

    metavar: str
    valid: str
    types: tuple[type, ...]
    read: Callable[[str], Any]

    def parse(self, text: str) -> Any:
        """Return the value that a text stands for; a ``SettingError`` says why there is none."""
        return self._parse(text, text)

    def parse_toml(self, value: object) -> Any:
        """Return the value that a TOML value stands for; a ``SettingError`` says why there is none."""
        if not isinstance(value, self.types):
            raise SettingError(f"{_quoted(value)} is not {self.valid}")
        return self._parse(str(value), value)

    def _parse(self, text: str, said: object) -> Any:
        try:
            return self.read(text)
        except SettingError:
            raise
        except ValueError:
            raise SettingError(f"{_quoted(said)} is not {self.valid}") from None


def _quoted(value: object) -> str:
    """Return a value as TOML or a person would write it, short and on one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:80]}…"


def parse_boolean(text: str) -> bool:
    """Return the truth value of a text, in any spelling of systemd.syntax(7)."""
    if text.lower() in ("1", "yes", "true", "on"):
        return True
    if text.lower() in ("0", "no", "false", "off"):
        return False
    raise ValueError(text)


def parse_address(text: str) -> Address:
    """Return the address that ``HOST:PORT``, ``[IPV6]:PORT``, ``:PORT`` or ``unix:/PATH`` names."""
    scheme, _, path = text.partition(":")
    if scheme == "unix":
        if not path.startswith("/"):
            raise SettingError(f"{_quoted(text)} names no absolute path, such as unix:/run/spark-agent/http.sock")
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise SettingError(
                f"{_quoted(text)} is longer than the {MAX_SOCKET_PATH_BYTES} bytes that a socket may have"
            )
        return UnixAddress(parse_path(path))
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError(text)
    if int(port) > 65535:
        raise SettingError(f"{_quoted(text)} has a port above 65535")
    if re.fullmatch(r"\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]", host):
        ipaddress.IPv6Address(host[1:-1])
        return TcpAddress(host[1:-1], int(port))
    if re.fullmatch(r"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*", host):
        raise SettingError(f"{_quoted(text)} needs brackets around an IPv6 address, such as [::1]:10240")
    if re.fullmatch(r"[0-9.]+", host):
        ipaddress.IPv4Address(host)
    elif not re.fullmatch(r"[A-Za-z0-9._-]*", host):
        raise ValueError(text)
    return TcpAddress(host, int(port))


def parse_url_path(text: str) -> str:
    """Return the path of a page; it must not hide one of the daemon's own."""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", text):
        raise ValueError(text)
    if f"{text}/".startswith(("/-/", "/api/")):
        raise SettingError(f"{_quoted(text)} would hide the daemon's own pages, which are /-/… and /api/…")
    return text


def parse_path(text: str) -> Path:
    """Return the path that a text names."""
    if not text or "\0" in text:
        raise ValueError(text)
    return Path(text)


#: What stands for the ports on which the exporters that are known listen.
WELL_KNOWN: Final = "defaults"


def parse_exporter(text: str) -> str:
    """Return the address of an exporter's page, which is /metrics where it has no path; or `WELL_KNOWN`."""
    if text == WELL_KNOWN:
        return text
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or not re.fullmatch(r"[!-~]+", text):
        raise ValueError(text)
    if url.username is not None:
        # The URL is told in metrics and in the log.
        raise SettingError(f"{url.hostname}: an exporter's URL takes no user and no password")
    if url.port == 0 or url.fragment:
        raise ValueError(text)
    return url._replace(path=url.path or "/metrics").geturl()


def _number(low: float, high: float, metavar: str, of: str = "") -> Kind:
    def read(text: str) -> float:
        if not low <= (number := float(text)) <= high:
            raise ValueError(text)
        return number

    return Kind(metavar, f"a number{of} from {low:g} to {high:g}", (int, float), read)


def _integer(low: int, high: int, metavar: str = "N", of: str = "") -> Kind:
    def read(text: str) -> int:
        if not low <= (number := int(text)) <= high:
            raise ValueError(text)
        return number

    return Kind(metavar, f"a whole number{of} from {low} to {high}", (int,), read)


def _choice(choices: type[Level] | type[Format]) -> Kind:
    return Kind("|".join(choices), f"one of {', '.join(choices)}", (str,), choices)


BOOLEAN: Final = Kind("", "true or false", (bool,), parse_boolean)
ADDRESS: Final = Kind(
    "ADDRESS", "an address: HOST:PORT, [IPV6]:PORT, :PORT (every interface) or unix:/PATH", (str,), parse_address
)
URL_PATH: Final = Kind("PATH", "the path of a page, such as /metrics", (str,), parse_url_path)
FILE: Final = Kind("FILE", "the path of a file", (str,), parse_path)
DIRECTORY: Final = Kind("DIR", "the path of a directory", (str,), parse_path)
PATH: Final = Kind("PATH", "the path of a file or a directory", (str,), parse_path)
EXPORTER: Final = Kind("URL", f"a URL such as http://127.0.0.1:9400/metrics, or {WELL_KNOWN}", (str,), parse_exporter)


# The table


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, under the name of its flag."""

    name: str
    kind: Kind
    group: str
    help: str
    #: In the file; its name, unless that is a section's there.
    key: str = ""
    many: bool = False
    #: Whether a reload changes it; anything else needs a restart.
    live: bool = True
    #: Of no use in a file or the environment.
    flag_only: bool = False
    #: Shown where there is no default.
    example: Any = ""
    default: Any = None

    @property
    def flag(self) -> str:
        """What is typed."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.parameter.upper()

    @property
    def parameter(self) -> str:
        """Its name in Python."""
        return re.sub(r"[.-]", "_", self.name)


def collector_names() -> tuple[str, ...]:
    """Return the names of the collectors from the listing of their folder: help must not import them."""
    folder = find_spec("spark_agent.collectors")
    modules = iter_modules(folder.submodule_search_locations if folder else None)
    return tuple(sorted(module.name for module in modules if not module.name.startswith("_")))


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings come from. A reload reads them again."""

    #: The file that ``--config`` names; without one, ``DEFAULT_FILE`` if it is there.
    file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    #: The flags that were typed, by the setting's parameter.
    flags: Mapping[str, Any] = field(default_factory=dict)


_SECONDS: Final = " of seconds"
_EACH_COLLECTOR: Final = Setting("collector.NAME", BOOLEAN, "Readings", "Read with this collector.")
_LOOPBACK: Final = TcpAddress("127.0.0.1", 10240)
#: The group of those that every command takes which judges power.
POWER: Final = "Power"
#: The group of those on misread power, of which `doctor` takes the exporters.
MISREADS: Final = "Misreads"
# No GB10 runs on less, and no USB-C adapter gives a quarter of the most.
_WATTS: Final = _number(1, 1000, "WATTS", " of watts")


def _watts(of: str, help_: str, example: float) -> Setting:
    return Setting(f"power.{of}-watts", _WATTS, POWER, help_, key=f"power.{of}_watts", example=example)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings. Each annotated field is one entry of the table."""

    web_listen_address: Annotated[
        tuple[Address, ...],
        Setting(
            "web.listen-address",
            ADDRESS,
            "Web",
            "Where to answer HTTP: HOST:PORT, [IPV6]:PORT, :PORT for every interface, or unix:/PATH. May be repeated.",
            many=True,
            live=False,
        ),
    ] = (_LOOPBACK,)
    web_config_file: Annotated[
        Path | None,
        Setting(
            "web.config.file",
            FILE,
            "Web",
            "TLS, client certificates, users and headers, in the format of Prometheus' exporter-toolkit.",
            live=False,
            example="/etc/spark-agent/web.yml",
        ),
    ] = None
    web_telemetry_path: Annotated[
        str, Setting("web.telemetry-path", URL_PATH, "Web", "Page with the metrics.", live=False)
    ] = "/metrics"
    web_max_connections: Annotated[
        int, Setting("web.max-connections", _integer(1, 65535), "Web", "Connections held open at once.", live=False)
    ] = 256
    beat: Annotated[
        float,
        Setting(
            "beat", _number(0.1, 60, "SECONDS", _SECONDS), "Readings", "Time from one look to the next.", live=False
        ),
    ] = BEAT_SECONDS
    #: The names of those that are on.
    collectors: Annotated[tuple[str, ...], _EACH_COLLECTOR] = field(default_factory=collector_names)
    power_adapter_watts: Annotated[
        float | None,
        _watts(
            "adapter",
            "What the power adapter gives, where that is not NVIDIA's 240 W; more is over budget at once.",
            140,
        ),
    ] = None
    power_soc_watts: Annotated[
        float | None, _watts("soc", "What the SoC may draw, by your own budget; PL1 stays in force.", 120)
    ] = None
    power_system_watts: Annotated[
        float | None,
        _watts("system", "What the whole system may draw, by your own budget; SysPL1 stays in force.", 200),
    ] = None
    power_rest_watts: Annotated[
        float | None, _watts("rest", "What all but the SoC may draw, where that is not NVIDIA's 100 W.", 60)
    ] = None
    textfile: Annotated[
        Path | None,
        Setting(
            "textfile",
            DIRECTORY,
            "Textfile",
            "Write the metrics as a file there too, for node_exporter's textfile collector.",
            key="textfile.directory",
            example="/var/lib/prometheus/node-exporter",
        ),
    ] = None
    textfile_interval: Annotated[
        float,
        Setting(
            "textfile.interval",
            _number(1, 3600, "SECONDS", _SECONDS),
            "Textfile",
            "Time between two such files; a beat at the least.",
        ),
    ] = 15.0
    state_directory: Annotated[
        Path | None,
        Setting(
            "state.directory",
            DIRECTORY,
            "State",
            "Where counters and black box outlive a restart. None, unless systemd sets $STATE_DIRECTORY.",
            live=False,
            example="/var/lib/spark-agent",
        ),
    ] = None
    blackbox: Annotated[
        bool,
        Setting(
            "blackbox",
            BOOLEAN,
            "State",
            "Keep the last minutes on disk, for after a sudden power-off; in the state directory.",
            key="blackbox.enabled",
            live=False,
        ),
    ] = True
    blackbox_seconds: Annotated[
        int,
        Setting(
            "blackbox.seconds",
            _integer(60, 86400, "SECONDS", _SECONDS),
            "State",
            "How far back the black box goes.",
            live=False,
        ),
    ] = 600
    blackbox_flush: Annotated[
        int,
        Setting(
            "blackbox.flush",
            _integer(1, 60, "SECONDS", _SECONDS),
            "State",
            "Time between two writes of the black box: what a power-off may cost.",
            live=False,
        ),
    ] = 10
    misread_exporter: Annotated[
        tuple[str, ...] | None,
        Setting(
            "misread.exporter",
            EXPORTER,
            MISREADS,
            "Look at the metrics of this exporter for GPU power that is told as the machine's. "
            f"{WELL_KNOWN} stands for the usual ports of this machine. May be repeated.",
            key="misread.exporters",
            many=True,
            live=False,
            example=(WELL_KNOWN,),
        ),
    ] = None
    misread_interval: Annotated[
        float,
        Setting(
            "misread.interval",
            _number(1, 60, "SECONDS", _SECONDS),
            MISREADS,
            "Time between two looks at an exporter.",
            live=False,
        ),
    ] = 15.0
    audit: Annotated[
        tuple[Path, ...] | None,
        Setting(
            "audit",
            PATH,
            MISREADS,
            "Audit these rules and dashboards again and again, as the command `audit` does once. May be repeated.",
            key="audit.paths",
            many=True,
            live=False,
            example=("/etc/prometheus/rules",),
        ),
    ] = None
    audit_interval: Annotated[
        float,
        Setting(
            "audit.interval",
            _number(1, 86400, "SECONDS", _SECONDS),
            MISREADS,
            "Time between two audits; what did not change is not read again.",
            live=False,
        ),
    ] = 300.0
    audit_metrics: Annotated[
        Path | None,
        Setting(
            "audit.metrics",
            FILE,
            MISREADS,
            "What metrics of your own cover, for this audit and for the command's: docs/audit.md.",
            live=False,
            example="/etc/spark-agent/metrics.toml",
        ),
    ] = None
    audit_baseline: Annotated[
        Path | None,
        Setting(
            "audit.baseline",
            FILE,
            MISREADS,
            "Leave out what this file accepts: `audit --write-baseline` writes it.",
            live=False,
            example="/etc/spark-agent/audit-baseline.json",
        ),
    ] = None
    log_level: Annotated[Level, Setting("log.level", _choice(Level), "Log", "Least severe line to log.")] = Level.INFO
    log_format: Annotated[Format, Setting("log.format", _choice(Format), "Log", "How a line is written.")] = (
        Format.LOGFMT
    )
    speed: Annotated[
        float,
        Setting(
            "speed",
            _number(0.001, 100000, "FACTOR"),
            "Replay",
            "Play the timeline of --machine or --demo so many times as fast.",
            live=False,
            flag_only=True,
        ),
    ] = 1.0

    #: The file that was read.
    file: Path | None = None
    sources: Sources = field(default_factory=Sources, compare=False, repr=False)
    #: Where each setting was set that is not left to its default, by its name.
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    #: What is odd, but no fault.
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def origin_of(self, name: str) -> str:
        """Return where a setting was set, and as what: file, line and key, or the variable or flag, which say both."""
        (setting,) = (one for one in table() if one.name == name)
        origin = self.origins.get(name, "default")
        is_in_file = origin not in (setting.variable, setting.flag, "default")
        return f"{origin} {setting.key}" if is_in_file else origin


@cache
def _entries() -> tuple[Setting, ...]:
    """Return the annotations of ``Settings``, with their defaults."""
    annotations = get_type_hints(Settings, include_extras=True)
    return tuple(
        replace(setting, key=setting.key or setting.name, default=True if setting is _EACH_COLLECTOR else one.default)
        for one in fields(Settings)
        for setting in getattr(annotations[one.name], "__metadata__", ())
    )


@cache
def table() -> tuple[Setting, ...]:
    """Return every setting, the switch of each collector among them."""
    return tuple(
        setting if name is None else replace(setting, name=f"collector.{name}", key=f"collector.{name}")
        for setting in _entries()
        for name in (collector_names() if setting.name == _EACH_COLLECTOR.name else [None])
    )


def show(value: object) -> str:
    """Return a setting's value as the text that its environment variable would have; none is empty."""
    if isinstance(value, tuple):
        return ",".join(map(show, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


def value_of(settings: Settings, setting: Setting) -> Any:
    """Return what a setting is set to."""
    section, _, name = setting.name.partition(".")
    return name in settings.collectors if section == "collector" else getattr(settings, setting.parameter)


# Reading the sources

#: Values with where they were set, by the setting's name.
Layer = dict[str, tuple[Any, str]]


def load(sources: Sources, group: str | None = None) -> Settings:
    """Return the settings that the sources make; a ``ConfigError`` tells every fault of file and environment.

    Who names a ``group`` gets that one's, and defaults; what the others are set to is not looked at.
    """
    problems: list[str] = []
    file, from_file = _from_file(sources.file, group, problems)
    from_environment = _from_environment(sources.environment, group, problems)
    if problems:
        raise ConfigError(*problems)
    from_flags = {
        setting.name: (_anchored(sources.flags[setting.parameter]), setting.flag)
        for setting in table()
        if setting.parameter in sources.flags
    }
    layer = _from_systemd(sources.environment) | from_file | from_environment | from_flags
    values = {setting.parameter: layer[setting.name][0] for setting in table() if setting.name in layer}
    collectors = tuple(name for name in collector_names() if values.pop(f"collector_{name}", True))
    return Settings(
        **values,
        collectors=collectors,
        file=file,
        sources=sources,
        origins={name: origin for name, (_, origin) in layer.items()},
        warnings=tuple(_unknown_variables(sources.environment)),
    )


def _anchored(value: Any, folder: Path | None = None) -> Any:
    """Make paths absolute: in a file they are relative to that file, elsewhere to the working directory."""
    if isinstance(value, tuple):
        return tuple(_anchored(one, folder) for one in value)
    return (folder or Path()).joinpath(value).absolute() if isinstance(value, Path) else value


def _from_systemd(environment: Mapping[str, str]) -> Layer:
    # StateDirectory= may name several; the first is the service's own. systemd.exec(5)
    first, _, _ = environment.get("STATE_DIRECTORY", "").partition(":")
    return {"state.directory": (Path(first), "$STATE_DIRECTORY")} if first else {}


def _from_environment(environment: Mapping[str, str], group: str | None, problems: list[str]) -> Layer:
    layer: Layer = {}
    for setting in table():
        # An empty variable is one that a unit or a compose file leaves to the default.
        if setting.flag_only or not (text := environment.get(setting.variable)) or group not in (None, setting.group):
            continue
        try:
            parts = [setting.kind.parse(part.strip()) for part in (text.split(",") if setting.many else [text])]
        except SettingError as error:
            problems.append(f"{setting.variable}: {error}")
        else:
            layer[setting.name] = (_anchored(tuple(parts) if setting.many else parts[0]), setting.variable)
    return layer


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    # No fault: Kubernetes sets SPARK_AGENT_SERVICE_HOST and more beside a service called spark-agent.
    known = [setting.variable for setting in table() if not setting.flag_only]
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and name not in OTHER_VARIABLES:
            yield f"{name}: {_no_such('variable', name, known, known)}"


def _no_such(what: str, name: str, known: Iterable[str], there: Iterable[str]) -> str:
    """Say that there is no such thing, and which one was meant or which there are."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"no such {what}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(there)}")


def _from_file(named: Path | None, group: str | None, problems: list[str]) -> tuple[Path | None, Layer]:
    """Return the file that was read, and its values."""
    path = named or DEFAULT_FILE
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        if named is None:
            return None, {}
        raise ConfigError(f"{path}: {error.strerror}") from None
    except PermissionError as error:
        raise ConfigError(f"{path}: {error.strerror}; let everybody read it, for whoever looks judges by it") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes, which no settings are")
    try:
        return path, _from_toml(path, _decoded(path, content), group, problems)
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None


def _from_toml(path: Path, text: str, group: str | None, problems: list[str]) -> Layer:
    tree = _parsed(path, text)
    places = _places(text)
    layer: Layer = {}
    for key, value in _leaves(tree, ()):
        line, column = places[key]
        place = f"{path}:{line}:{column}"
        setting = _keys().get(key)
        try:
            if setting is None:
                raise SettingError(_not_a_key(key))
            if group in (None, setting.group):
                layer[setting.name] = (_anchored(_toml_value(setting, value), path.parent), place)
        except SettingError as error:
            problems.append(f"{place}: {_spelled(key)}: {error}")
        except ValueError:  # Python writes no integer of thousands of digits
            problems.append(f"{place}: {_spelled(key)}: far too large")
    return layer


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode().replace("\r\n", "\n")  # as tomllib has it
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise ConfigError(f"{path}:{line}:{column}: not UTF-8, which TOML is") from None


_PLACE: Final = re.compile(r"(?P<what>.*) \(at line (?P<line>[0-9]+), column (?P<column>[0-9]+)\)", re.DOTALL)


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or an integer with thousands of digits
        if found := _PLACE.fullmatch(str(error)):
            raise ConfigError(f"{path}:{found['line']}:{found['column']}: {_lowered(found['what'])}") from None
        raise ConfigError(f"{path}: {_lowered(str(error))}") from None


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


Key = tuple[str, ...]


@cache
def _keys() -> Mapping[Key, Setting]:
    return {tuple(setting.key.split(".")): setting for setting in table() if not setting.flag_only}


@cache
def _sections() -> frozenset[Key]:
    return frozenset(key[:end] for key in _keys() for end in range(1, len(key)))


def _leaves(content: Mapping[str, Any], section: Key) -> Iterator[tuple[Key, Any]]:
    """Yield each key with its value; what is no section of ours is told as one key, whatever is in it."""
    for name, value in content.items():
        key = (*section, name)
        if key in _sections() and isinstance(value, dict):
            yield from _leaves(value, key)
        else:
            yield key, value


def _toml_value(setting: Setting, value: object) -> Any:
    if not setting.many:
        return setting.kind.parse_toml(value)
    if isinstance(value, list) and not value:
        raise SettingError("the list is empty")
    return tuple(setting.kind.parse_toml(one) for one in (value if isinstance(value, list) else [value]))


def _not_a_key(key: Key) -> str:
    if key in _sections():
        return f"is a section; in it are {', '.join(_names_in(key))}"
    within = key[:-1]
    known = [*map(".".join, _keys()), *map(".".join, _sections())]
    return _no_such("setting", ".".join(key), known, _names_in(within))


def _names_in(section: Key) -> list[str]:
    """Return the names of a section's keys, as they are written in it."""
    depth = len(section)
    return [".".join(key[depth:]) for key in _keys() if key[:depth] == section]


def _spelled(key: Key) -> str:
    """Return a key as TOML would have it."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else _quoted(part) for part in key)


def _places(text: str) -> Mapping[Key, tuple[int, int]]:
    """Return line and column of each key of a valid TOML text.

    tomllib does not say. So it is given one statement at a time: as many lines as make a text of their own.
    """
    places: dict[Key, tuple[int, int]] = {}
    section: Key = ()
    statement: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not statement:
            place = (number, len(line) - len(line.lstrip()) + 1)
        statement.append(line)
        # Only so can a statement of several lines end; to try at each would be quadratic.
        if len(statement) > 1 and not re.search(r"]|\"{3}|'{3}", line):
            continue
        try:
            keys = list(_all_keys(tomllib.loads("\n".join(statement))))
        except tomllib.TOMLDecodeError:
            continue
        if statement[0].lstrip().startswith("["):
            section = keys[-1]
        else:
            keys = [(*section, *key) for key in keys]
        for key in keys:
            places.setdefault(key, place)
        statement = []
    return places


def _all_keys(content: object) -> Iterator[Key]:
    """Yield the keys of nested tables, each before those in it."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield (name,)
            yield from ((name, *key) for key in _all_keys(value))


# What must be there before it starts, and what a reload cannot change


def checks(settings: Settings, read_web_config: Callable[[Path], object]) -> Iterator[tuple[str, str | None]]:
    """Yield each file and directory that the daemon needs, with a line on what is wrong with it, or None.

    ``read_web_config`` raises a ConfigError.
    """
    if settings.file:
        yield str(settings.file), None  # it has been read
    if path := settings.web_config_file:
        try:
            read_web_config(path)
        except ConfigError as error:
            yield str(path), str(error)
        else:
            yield str(path), None
    sockets = [address.path for address in settings.web_listen_address if isinstance(address, UnixAddress)]
    directories = [("web.listen-address", path.parent) for path in sockets]
    directories += [("textfile", settings.textfile)] if settings.textfile else []
    directories += [("state.directory", settings.state_directory)] if settings.state_directory else []
    for name, path in directories:
        problem = _problem_of(path)
        if problem and name == "state.directory" and _is_read_only(path):
            # The kernel does that to a drive that fails; the daemon goes on without, and says so.
            problem = None
        yield str(path), problem and f"{path}: {problem}; {name} is set by {settings.origins.get(name, 'nobody')}"


def _problem_of(directory: Path) -> str | None:
    try:
        mode = directory.stat().st_mode
    except OSError as error:
        return error.strerror
    if not stat.S_ISDIR(mode):
        return os.strerror(errno.ENOTDIR)
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"user {os.getuid()} may not write there"
    return None


def _is_read_only(directory: Path) -> bool:
    try:
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def changes_needing_restart(old: Settings, new: Settings) -> list[str]:
    """Return the names of the settings that differ, and that a reload cannot change."""
    return [
        setting.name for setting in table() if not setting.live and value_of(old, setting) != value_of(new, setting)
    ]


def announce(settings: Settings) -> None:
    """Log, once at the start, what the daemon runs with."""
    for warning in settings.warnings:
        log.warning(warning)
    given = {setting.name: show(value_of(settings, setting)) for setting in table() if setting.name in settings.origins}
    log.info("settings that are not left to their defaults", extra=given)
    if settings.state_directory is None:
        log.info("no state directory, so counters begin anew and there is no black box; --state.directory sets one")


# Flags


@cache
def flags() -> tuple[click.Option, ...]:
    """Return the flag of each setting."""
    return tuple(
        click.Option([f"{setting.flag}/--no-{setting.name}", setting.parameter], default=None)
        if setting.kind is BOOLEAN
        else click.Option(
            [setting.flag, setting.parameter], multiple=setting.many, callback=partial(_typed, setting.kind)
        )
        for setting in table()
    )


def _typed(kind: Kind, context: click.Context, flag: click.Parameter, text: str | tuple[str, ...] | None) -> Any:
    """Return what was typed as the value that it stands for."""
    try:
        if isinstance(text, tuple):
            return tuple(map(kind.parse, text))
        return None if text is None else kind.parse(text)
    except SettingError as error:
        raise click.BadParameter(str(error), context, flag) from None


def help_groups() -> Mapping[str, list[tuple[str, str]]]:
    """Return the flags with their help, by group; the collectors' switches share a line."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for setting in _entries():
        flag = f"--[no-]{setting.name}" if setting.kind is BOOLEAN else f"{setting.flag} {setting.kind.metavar}"
        text = setting.help
        if setting.name == _EACH_COLLECTOR.name:
            text += f" There are {', '.join(collector_names())}."
        if default := show(setting.default):
            text += f"  [default: {default}]"
        groups.setdefault(setting.group, []).append((flag, text))
    return groups
