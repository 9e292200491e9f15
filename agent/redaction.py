"""Taking out of a recording what tells one machine, or its owner, from another.

A secret is learned from the files that are known to hold it, and then replaced wherever it stands, by a placeholder
of the same shape: the same secret has the same one everywhere, so what belongs together still does.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, Final

from spark_agent.agent.sweep import SWEPT
from spark_agent.collectors import declarations
from spark_agent.collectors._tree import Fault, Link

#: What stands at a path: a file, a link, an error, or (None) an empty directory.
Node = bytes | Link | Fault | None


class Kind(StrEnum):
    """What tells one machine, or its owner, from another."""

    SERIAL = "serial numbers"
    MAC = "MAC addresses"
    UUID = "UUIDs"
    GUID = "GUIDs"
    HOST = "host names"
    USER = "user names"


_HEX: Final = "[0-9A-Fa-f]"
_SHAPES: Final = "|".join(
    f"(?P<{name}>(?<!{_HEX})(?:{pattern})(?!{_HEX}))"
    for name, pattern in (
        ("uuid", rf"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}|{_HEX}{{32}}"),
        # 6 octets; InfiniBand's addresses have 8 and 20.
        ("mac", rf"{_HEX}{{2}}(?::{_HEX}{{2}}){{5,19}}"),
        # Node GUIDs have 4 groups and GIDs 8.
        ("guid", rf"{_HEX}{{4}}(?::{_HEX}{{4}}){{3,7}}"),
        ("link_local", rf"fe80::{_HEX}{{1,4}}(?::{_HEX}{{1,4}}){{0,3}}"),
    )
)
_USERS: Final = (
    r"(?P<home>(?<=/home/)[^/\s:;,\"']+)"
    # Who built a kernel or a driver. Ubuntu and NVIDIA are no secret, and tell a stock one from one's own.
    r"|(?P<builder>\((?!buildd@|dvs-builder@)[^\s()@]+@[^\s()@]+\))"
)
_SHAPE: Final = re.compile(_SHAPES)
# systemd names an interface that has nothing else after its address.
_NAMED_MAC: Final = re.compile(rf"(?<=enx|wlx|wwx){_HEX}{{12}}(?!{_HEX})")
_PLACEHOLDER: Final = re.compile(r"REDACTED\d*|host\d+|user\d+")
_HOST_FILES: Final = ("/etc/hostname", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname")
_SERIAL_FILE: Final = re.compile(
    r"/(?:\w*serial|serial_number|\w*asset_tag|machine-id|hostid|hostnqn|subsysnqn|wwid|eui|nguid|uuid|phys_\w*_id)"
)
_SERIAL_NAME: Final = re.compile(r"serial|uuid|guid|wwn|uniq|asset", re.IGNORECASE)
_ASSIGNED: Final = re.compile(r"""((?:SERIAL|UUID)[A-Z_]*=)(?:"([^"\n]+)"|'([^'\n]+)'|([^\s"'/]+))""")
_ASSIGNED_HOST: Final = re.compile(r"\bhostname=([^\s\"]+)")
_WWID: Final = re.compile(r"((?:eui|naa|nvme|t10)\.)(.+)")
_PCI_ADDRESS: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}(?:\.[0-7])?")
# What makers write where they should have left nothing.
_NO_SERIALS: Final = {
    *("none", "(none)", "n/a", "unknown", "default string", "not specified", "not applicable", "no asset tag"),
    *("to be filled by o.e.m.", "system serial number", "123456789", "0123456789"),
}
# Shorter, these stand in other files by chance.
_SHORTEST_SERIAL: Final = 5
_SHORTEST_DECIMAL: Final = 7
_SHORTEST_HOST: Final = 3
# From here on a serial number is found even where letters touch it, as in the name that NVMe makes of it.
_LONG_SERIAL: Final = 8
_LINK_LOCAL: Final = "fe80:0000:0000:0000"
_DOCUMENTATION: Final = "2001:0db8:0000:0000"  # RFC 3849
# A machine that bears one of these cannot be found by it, and the word means something else elsewhere.
_COMMON_NAMES: Final = {
    *("acpi", "always", "arm", "arm64", "aarch64", "auto", "debian", "default", "dgx", "disabled", "enabled", "full"),
    *("gb10", "gx10", "half", "home", "host", "linux", "local", "localdomain", "localhost", "never", "node"),
    *("performance", "recorded", "root", "server", "spark", "sparks", "synthetic", "ubuntu", "unknown", "user"),
}


class Redaction:
    """Placeholders for what tells one machine from another; one secret has the same one everywhere.

    First everything is learned, then everything is replaced: what one file says may be part of any other, and of names.
    """

    def __init__(self) -> None:
        """Know no secret yet."""
        self._numbers: dict[Kind, dict[str, int]] = {kind: {} for kind in Kind}
        self._whole: dict[str, str] = {}
        self._literals: dict[str, str] = {}
        self._hex: dict[str, str] = {}
        self._regex = _SHAPE

    def counts(self) -> dict[Kind, int]:
        """Return how many secrets of each kind there are."""
        return {kind: len(numbers) for kind, numbers in self._numbers.items()}

    def learn(self, nodes: Mapping[str, Node], calls: Any, devices: Any) -> None:
        """Learn the secrets of files, by the paths by which they are known, of NVML's answers and of udev's."""
        for path, node in nodes.items():
            self._learn_text(path)
            if isinstance(node, Link):
                self._learn_text(node.to)
            elif isinstance(node, bytes):
                self._learn_file(path, _decoded(node))
        self._learn_value(calls)
        self._learn_value(devices)
        self._regex = re.compile("|".join(filter(None, (*self._known(), _SHAPES, _USERS))))

    def node(self, path: str, node: Node) -> Node:
        """Return what stands at a path without its secrets."""
        if isinstance(node, Link):
            return Link(self.text(node.to))
        if not isinstance(node, bytes):
            return node
        text = _decoded(node)
        secret = text.strip()
        if secret in self._whole and (path in _HOST_FILES or _SERIAL_FILE.fullmatch(path[path.rfind("/") :])):
            return _encoded(text.replace(secret, self._whole[secret]))
        return _encoded(self.text(text))

    def value(self, value: Any, name: str = "") -> Any:
        """Return a value of JSON without its secrets."""
        if isinstance(value, dict):
            return {self.text(key): self.value(one, key) for key, one in value.items()}
        if isinstance(value, list):
            return [self.value(one, name) for one in value]
        if not isinstance(value, str):
            return value
        if _SERIAL_NAME.search(name) and value.strip() in self._whole:
            return self._whole[value.strip()]
        return self.text(value)

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        text = self._regex.sub(self._placeholder, text)
        return _ASSIGNED.sub(self._assigned, text) if "=" in text else text

    def _number(self, kind: Kind, secret: str) -> int:
        numbers = self._numbers[kind]
        return numbers.setdefault(secret, len(numbers) + 1)

    # Learning

    def _learn_file(self, path: str, text: str) -> None:
        self._learn_text(text)
        if path in _HOST_FILES:
            self._learn_host(text.strip())
        elif _SERIAL_FILE.fullmatch(path[path.rfind("/") :]):
            self._learn_serial(text.strip())

    def _learn_value(self, value: Any, name: str = "") -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                # udev's ID_SERIAL is made of the model, which is to stay, and of ID_SERIAL_SHORT.
                self._learn_value(one, "" if f"{key}_SHORT" in value else key)
        elif isinstance(value, list):
            for one in value:
                self._learn_value(one, name)
        elif isinstance(value, str):
            self._learn_text(value)
            if _SERIAL_NAME.search(name):
                self._learn_serial(value.strip())

    def _learn_text(self, text: str) -> None:
        for found in _SHAPE.finditer(text):
            if found.lastgroup == "uuid":
                bare = found[0].replace("-", "").lower()
                self._spell(_uuid_spellings(bare), _uuid_spellings(self._uuid(bare)))
            elif found.lastgroup == "mac" and found[0].count(":") == 5:
                self._learn_mac(found[0].replace(":", ""))
        for found in _NAMED_MAC.finditer(text):
            self._learn_mac(found[0])
        for found in _ASSIGNED.finditer(text):
            self._learn_serial(found[2] or found[3] or found[4])
        for found in _ASSIGNED_HOST.finditer(text):
            self._learn_host(found[1])

    def _learn_mac(self, digits: str) -> None:
        octets = bytes.fromhex(digits)
        if _is_nobody(octets):
            return
        self._spell(_mac_spellings(octets), _mac_spellings(self._mac(octets)))

    def _spell(self, secrets: Iterable[str], placeholders: Iterable[str]) -> None:
        for secret, placeholder in zip(secrets, placeholders, strict=True):
            self._hex.setdefault(secret, placeholder)

    def _learn_serial(self, secret: str) -> None:
        wwid = _WWID.fullmatch(secret)
        kind, own = (wwid[1], wwid[2]) if wwid else ("", secret)
        is_filler = len(set(own) - set(" -.:_")) < 2 or own.lower() in _NO_SERIALS
        if is_filler or _PLACEHOLDER.fullmatch(own) or _SHAPE.search(own) or _PCI_ADDRESS.fullmatch(own):
            return
        # One drive's identifier, 0025384b21500a1b, is in one file with its kind and in another with spaces.
        placeholder = f"REDACTED{self._number(Kind.SERIAL, own.replace(' ', ''))}"
        self._whole[secret] = f"{kind}{placeholder}"
        for spelling in (own, own.replace(" ", "_"), own.replace(" ", "")):
            shortest = _SHORTEST_DECIMAL if spelling.isdecimal() else _SHORTEST_SERIAL
            # Without a digit it may be any word: makers write what they like into asset tags.
            if len(spelling) >= shortest and re.search("[0-9]", spelling):
                self._literals.setdefault(spelling, placeholder)

    def _learn_host(self, name: str) -> None:
        if not name or name in _NO_SERIALS or _PLACEHOLDER.fullmatch(name) or name.startswith("localhost"):
            return
        label, _, domain = name.partition(".")
        self._whole[name] = f"host{self._number(Kind.HOST, label)}"
        for part in filter(is_distinctive, (name, label, domain if "." in domain else "")):
            placeholder = self._whole[name] if part != domain else f"host{self._number(Kind.HOST, domain)}"
            # The device mapper doubles each hyphen of a volume group's name.
            for spelling in (part, part.replace("-", "--")):
                self._literals.setdefault(spelling, placeholder)

    def _known(self) -> Iterator[str]:
        """Yield patterns that find what was learned, longer ones first."""
        by_length = sorted(self._literals, key=len, reverse=True)
        anywhere = [
            text
            for text in by_length
            if len(text) >= _LONG_SERIAL and not text.isdecimal() and self._literals[text].startswith("REDACTED")
        ]
        words = [text for text in by_length if text not in anywhere]
        spelled = sorted(self._hex, key=len, reverse=True)
        yield f"(?P<hex>(?<!{_HEX})(?i:{_either(spelled)})(?!{_HEX}))" if spelled else ""
        yield f"(?P<anywhere>{_either(anywhere)})" if anywhere else ""
        yield f"(?P<word>(?<![0-9A-Za-z])(?:{_either(words)})(?![0-9A-Za-z]))" if words else ""

    # Replacing

    def _placeholder(self, found: re.Match[str]) -> str:
        text = found[0]
        match found.lastgroup:
            case "hex":
                return self._hex[text.lower()]
            case "anywhere" | "word":
                return self._literals[text]
            case "uuid":
                dashed, bare, _ = _uuid_spellings(self._uuid(text.replace("-", "").lower()))
                return dashed if "-" in text else bare
            case "mac":
                octets = bytes.fromhex(text.replace(":", ""))
                return text if _is_nobody(octets) else self._mac(octets).hex(":")
            case "guid":
                return self._guid(text.lower())
            case "link_local":
                return self._link_local(text.lower())
            case "home":
                return text if _PLACEHOLDER.fullmatch(text) else f"user{self._number(Kind.USER, text)}"
            case _:
                user = text[1:].partition("@")[0]
                return text if _PLACEHOLDER.fullmatch(user) else f"(user{self._number(Kind.USER, user)}@host)"

    def _assigned(self, found: re.Match[str]) -> str:
        name, secret = found[1], found[2] or found[3] or found[4]
        return name + found[0].removeprefix(name).replace(secret, self._whole.get(secret, secret))

    def _uuid(self, bare: str) -> str:
        # What is that small is a placeholder itself.
        return bare if int(bare, 16) < 1 << 32 else f"{self._number(Kind.UUID, bare):032x}"

    def _mac(self, octets: bytes) -> bytes:
        is_placeholder = octets[:-2] == b"\x02" + bytes(len(octets) - 3)
        if is_placeholder or _is_nobody(octets):
            return octets
        return b"\x02" + self._number(Kind.MAC, octets.hex()).to_bytes(len(octets) - 1)

    def _guid(self, text: str) -> str:
        prefix, own = text[:-19].rstrip(":"), text[-19:]
        if own not in self._hex and int(own.replace(":", ""), 16) >= 1 << 16:
            own = f"0000:0000:0000:{self._number(Kind.GUID, own):04x}"
        if prefix.strip("0:") and prefix != _LINK_LOCAL:
            prefix = _DOCUMENTATION[: len(prefix)]
        return f"{prefix}:{self._hex.get(own, own)}".lstrip(":")

    def _link_local(self, text: str) -> str:
        own = text.removeprefix("fe80::")
        if ":" in own and own not in self._hex:
            return f"fe80::{self._number(Kind.GUID, own):x}"
        return f"fe80::{self._hex.get(own, own)}"


def _is_nobody(octets: bytes) -> bool:
    """Whether an address is loopback's or everybody's."""
    return not octets.strip(b"\x00") or not octets.strip(b"\xff")


def _decoded(content: bytes) -> str:
    return content.decode(errors="surrogateescape")


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _either(texts: Iterable[str]) -> str:
    return "|".join(map(re.escape, texts))


def _uuid_spellings(bare: str) -> tuple[str, ...]:
    parts = bare[:8], bare[8:12], bare[12:16], bare[16:20], bare[20:]
    return tuple(separator.join(parts) for separator in ("-", "", "_"))


def _mac_spellings(octets: bytes) -> list[str]:
    """Return how an address is written, and what is made of it: IPv6's interface ids, and Mellanox's GUIDs."""
    spellings = [octets.hex(separator) for separator in ":-_"] + [octets.hex()]
    first, last = octets[:3], octets[3:]
    flipped = bytes([first[0] ^ 2]) + first[1:]  # RFC 4291, appendix A
    for eui64 in (flipped + b"\xff\xfe" + last, first + b"\xff\xfe" + last, first + b"\x03\x00" + last):
        groups = [eui64[at : at + 2].hex() for at in range(0, 8, 2)]
        spellings += [":".join(groups), ":".join(group.lstrip("0") or "0" for group in groups), eui64.hex()]
    return spellings


def is_distinctive(host_name: str) -> bool:
    """Whether a word is the name of a host wherever it stands, and not also one of the kernel's, or everybody's."""
    is_short = len(host_name) < _SHORTEST_HOST
    return not (is_short or host_name.isdecimal() or host_name.lower() in _vocabulary())


@cache
def _vocabulary() -> frozenset[str]:
    """Return the words that the agent itself looks for: a host of such a name would take them with it."""
    declared = (text for of in declarations().values() for one in of for text in (one.source, one.key))
    words = re.findall(r"[0-9A-Za-z]+", " ".join((*SWEPT, *declared)).lower())
    return frozenset(words) | _COMMON_NAMES
