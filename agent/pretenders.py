"""Which series on a page of metrics claim to be the machine's power.

A series does where the catalogue of metrics says so, or its name, or where the name says nothing its HELP. What names
a part, an estimate or a limit does not, nor a counter, nor what gives no unit.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from string import digits
from typing import Final

from prometheus_client import Metric as Family
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from spark_agent.agent.audit.catalogue import WHOLES, Catalogue, Dimension, Extent, Kind, Metric, Role, Unit, words_of
from spark_agent.agent.misread import Claim

#: More of these on one page are no exporter's of one machine; what comes after them is not looked at.
MOST_CLAIMS: Final = 64
#: Lines of a page that can be about power.
_MOST_LINES: Final = 4096
#: Characters of a series, as it is told.
_MOST_LETTERS: Final = 160

#: What a whole machine is called. Not a cluster, and not what a plug feeds: either may be another thing than this box.
_WHOLE: Final = frozenset(
    ("system", "sys", "host", "node", "server", "chassis", "total", "box", "machine", "platform", "whole", "entire")
)
#: Whose power is not the machine's, whatever else the name says.
_PART: Final = frozenset(
    ("gpu", "gpus", "nvml", "dcgm", "cuda", "accelerator", "card", "board", "device", "cpu", "cpus", "core", "cores",
     "package", "pkg", "soc", "module", "rapl", "dram", "memory", "mem", "npu", "dla", "rail", "nvme", "ssd", "disk",
     "drive", "nic", "port", "poe", "usb", "fan", "pump", "battery", "ups", "pdu", "outlet", "plug", "socket",
     "container", "pod", "process", "vm", "namespace", "job", "request", "cluster", "rack")
)  # fmt: skip
#: Its metrics are of GPUs where their names do not say system or the like, whatever HELP says (nvidia-smi is the
#: System Management Interface).
_NVIDIA: Final = frozenset(("nvidia",))
_ESTIMATE: Final = frozenset(("estimate", "estimated", "estimation", "model", "modeled", "modelled", "tdp"))
#: Labels that say what of a machine a sample is.
_OF: Final = ("component", "device", "domain", "kind", "label", "rail", "scope", "sensor", "source", "type", "zone")
_OWN: Final = ("gb10_", "spark_agent_")
#: Labels of which no value leaves this machine, as nowhere else.
_SECRET: Final = re.compile(r"serial|uuid|guid|mac|host|instance|address", re.IGNORECASE)

#: Units that a HELP text gives where the name has none.
_UNITS: Final = {
    "watts": 1.0,
    "watt": 1.0,
    "w": 1.0,
    "milliwatts": 1e3,
    "mw": 1e3,
    "microwatts": 1e6,
    "kilowatts": 1e-3,
}

#: As their exporters mean them: what they are on a GB10 is what is to be found out.
_CATALOGUE: Final = Catalogue(is_gb10=False)

_LINE: Final = re.compile(r"(?:# (?:HELP|TYPE|UNIT) )?(?P<name>[A-Za-z_:][A-Za-z0-9_:]{0,199})(?=[\s{])")
_POWER: Final = re.compile(r"power|watt|_[mukMUK]?[wW](?:_|$)", re.IGNORECASE)
#: What only a page of metrics has: a line of HELP or TYPE, or a name with a number.
_METRICS: Final = re.compile(r"# (?:HELP|TYPE) |[A-Za-z_:][A-Za-z0-9_:]*(?:\{[^}]*\})?\s+[-+]?(?:\d|\.\d|NaN|Inf)")


def claims(lines: Iterable[str], *, is_openmetrics: bool = False) -> tuple[Claim, ...]:
    """Return what a page of metrics claims; `ValueError` where it is none. Only lines on power are kept and parsed."""
    parse = openmetrics_parser if is_openmetrics else parser
    kept: list[str] = []
    is_metrics = False
    for line in lines:
        is_metrics = is_metrics or _METRICS.match(line) is not None
        if (found := _LINE.match(line)) and _may_claim(found["name"]):
            kept.append(line)
            if len(kept) > _MOST_LINES:
                raise ValueError(f"more than {_MOST_LINES} lines on power")
    if not is_metrics:
        raise ValueError("no metrics")
    text = "\n".join([*kept, "# EOF\n" if is_openmetrics else ""])
    return tuple(_claims(parse.text_string_to_metric_families(text)))[:MOST_CLAIMS]


@lru_cache(maxsize=4096)
def _may_claim(name: str) -> bool:
    return not name.startswith(_OWN) and _POWER.search(name) is not None and _power(name) is not None


def _power(name: str) -> Metric | None:
    """Return what is known of a metric, if it is a reading of some power."""
    metric = _CATALOGUE.find(name)
    is_reading = metric is not None and metric.role is Role.READING and not metric.is_estimate
    is_power = metric is not None and metric.unit.dimension is Dimension.POWER and metric.kind is Kind.GAUGE
    return metric if is_reading and is_power else None


def _claims(families: Iterable[Family]) -> Iterator[Claim]:
    for family in families:
        help_, type_ = family.documentation, family.type
        if type_ not in ("gauge", "unknown", "untyped"):
            continue
        for sample in family.samples:
            metric = _power(sample.name)
            if metric is None or not _is_whole(metric, help_, sample.labels):
                continue
            factor = _factor(metric.unit, help_)
            if factor and math.isfinite(sample.value) and sample.value >= 0:
                key = repr((sample.name, sorted(sample.labels.items())))
                yield Claim(_series(sample.name, sample.labels), sample.value / factor, key)


def _is_whole(metric: Metric, help_: str, labels: Mapping[str, str]) -> bool:
    """Whether a sample claims to be the machine: by the catalogue, else by its name, else by its HELP."""
    said, told = frozenset(words_of(metric.name)), frozenset(words_of(help_))
    about = frozenset(word.rstrip(digits) for label in _OF for word in words_of(labels.get(label, "")))
    if (said | told | about) & _ESTIMATE:
        return False
    if metric.extent is Extent.MIXED:
        return metric.extents.get(labels.get(metric.label, "")) in WHOLES
    if about & _PART:
        return False
    if metric.extent in WHOLES and not metric.is_guess:
        return True
    if said & _PART:
        return False
    return bool(said & _WHOLE) or bool(told & _WHOLE and not (told & _PART or said & _NVIDIA))


def _factor(unit: Unit, help_: str) -> float | None:
    """Return how many of its unit make a watt; None where neither name nor HELP says."""
    if unit.factor:
        return unit.factor
    return next((_UNITS[word] for word in words_of(help_) if word in _UNITS), None)


def _series(name: str, labels: Mapping[str, str]) -> str:
    """Return a series as a person would write it, short, and without what tells one machine from another."""
    pairs = ((label, json.dumps(value, ensure_ascii=False)) for label, value in sorted(labels.items()))
    told = ",".join(f"{label}={value}" for label, value in pairs if not _SECRET.search(label))
    series = f"{name}{{{told}}}" if told else name
    clean = "".join(letter if letter.isprintable() else "?" for letter in series)
    return clean if len(clean) <= _MOST_LETTERS else f"{clean[:_MOST_LETTERS]}…"
