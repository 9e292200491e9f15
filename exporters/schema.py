"""The JSON Schema of the document, made from the same declarations that fill it."""

from collections.abc import Iterable
from typing import Any, Final

from spark_agent.agent.budget import LimitOrigin, Standing
from spark_agent.agent.budget_table import REST
from spark_agent.agent.energy import ENERGIES, Method
from spark_agent.agent.estimate import LOWER, MISS, UPPER
from spark_agent.agent.health import Severity
from spark_agent.agent.misread import Giveaway
from spark_agent.agent.snapshot import Status
from spark_agent.collectors import Origin, Property, Quality, Quantity, Reason, Scope, Section, declarations
from spark_agent.exporters.document import SCHEMA, is_power

_Json = dict[str, Any]

_TEXT: Final[_Json] = {"type": "string"}
_NULL: Final[_Json] = {"type": "null"}
_NUMBER: Final[_Json] = {"type": "number"}
_TEXT_OR_NULL: Final[_Json] = {"type": ["string", "null"]}
_TEXTS: Final[_Json] = {"type": "array", "items": _TEXT}


def schema(*, closed: bool = False) -> _Json:
    """Return the JSON Schema; ``closed`` refuses what this version does not write, where others may add to it."""
    sections = _sections()
    body = {
        "schema": {"const": SCHEMA},
        "agent": _object({"version": _TEXT}),
        "machine": _object(
            {"name": _TEXT, "origin": _one_of(Origin), "note": _TEXT_OR_NULL, "taken_at": {"type": "string"}}
        ),
        "power": _power(),
        "findings": _list(
            {"id": _TEXT, "severity": _one_of(Severity), "title": _TEXT, "evidence": _TEXTS, "action": _TEXT}
        ),
        "misreads": _list(
            {"series": _TEXT, "kind": _one_of(Giveaway), "url": _TEXT, "claimed": _quantity(), "evidence": _TEXT}
        ),
        "collectors": _list(
            {
                "name": _TEXT,
                "status": _one_of(Status),
                "reason": {"enum": [*(str(reason) for reason in Reason), None]},
                "detail": _TEXT_OR_NULL,
                "seconds": {"type": "number", "minimum": 0},
                "rejected": {"type": "integer", "minimum": 0},
            }
        ),
        **sections,
    }
    found: _Json = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('/', ':')}",
        "title": "What spark-agent says of one machine",
        "type": "object",
        "required": ["schema", "agent", "machine", "findings", "collectors"],
        "properties": body,
    }
    if closed:
        _close(found)
    return found


def _one_of(choices: Any) -> _Json:
    return {"enum": [str(choice) for choice in choices]}


def _object(properties: _Json, optional: _Json | None = None) -> _Json:
    return {"type": "object", "required": list(properties), "properties": properties | (optional or {})}


def _list(properties: _Json, optional: _Json | None = None) -> _Json:
    return {"type": "array", "items": _object(properties, optional)}


def _sections() -> _Json:
    """Return the schema of every section that follows from declarations alone."""
    top: _Json = {}
    objects: dict[str, _Json] = {}
    for of in (of for declared in declarations().values() for of in declared):
        if is_power(of.section) or (isinstance(of, Quantity) and of.is_power):
            continue
        properties = _properties(top, objects, of.section)
        properties[of.document_key] = _number(of) if isinstance(of, Quantity) else _fact(of)
    return top


def _properties(top: _Json, objects: dict[str, _Json], section: Section) -> _Json:
    """Return the properties of a section's object, made in its place where it is new."""
    if section.path in objects:
        return objects[section.path]
    *above, last = section.path.split(".")
    if section.within:
        home = _properties(top, objects, section.within)
    else:
        home = top
        for part in above:
            home = home.setdefault(part, {"type": "object", "properties": {}})["properties"]
    notes = {"absent": _ABSENT, "untrusted": _UNTRUSTED}
    if section.entity:
        id_ = {"type": "integer" if section.numbered else "string"}
        items: _Json = {"type": "object", "required": [section.id_key], "properties": {section.id_key: id_, **notes}}
        home[last] = {"description": section.help, "type": "array", "items": items}
        objects[section.path] = items["properties"]
    else:
        home.setdefault(last, {"description": section.help, "type": "object", "properties": {}})
        home[last]["properties"] |= notes
        objects[section.path] = home[last]["properties"]
    return objects[section.path]


_ABSENT: Final[_Json] = {
    "description": "What is not there, and why.",
    "type": "object",
    "additionalProperties": _object({"reason": _one_of(Reason), "detail": _TEXT_OR_NULL}),
}
_UNTRUSTED: Final[_Json] = {
    "description": "What was read but is known to mislead, and why.",
    "type": "object",
    "additionalProperties": _object({"value": _NUMBER, "why": _TEXT}),
}


def _number(of: Quantity) -> _Json:
    value: _Json = {"type": ["number", "null"]}
    for _ in of.labels:
        value = {"type": ["object", "null"], "additionalProperties": value}
    described = {"description": f"{of.help} Source: {of.source}.", "x-unit": of.unit.value, "x-kind": of.kind.value}
    return described | value


def _fact(of: Property) -> _Json:
    value: _Json = {
        "type": ["string", "boolean", "integer", "array", "null"],
        "items": {"type": ["string", "integer"]},
    }
    return {"description": f"{of.help} Source: {of.source}."} | value


def _quantity(more: _Json | None = None, scopes: Iterable[str] = Scope) -> _Json:
    """Return the schema of a power or an energy: a value with all that belongs to it, or the reason for none."""
    known = {
        "value": _NUMBER,
        "unit": {"enum": ["W", "J"]},
        "scope": _one_of(scopes),
        "quality": _one_of(Quality),
        "source": _TEXT,
        "age_seconds": {"type": "number", "minimum": 0},
        **(more or {}),
    }
    return {"oneOf": [_object(known), _object({"value": _NULL, "reason": _one_of(Reason), "detail": _TEXT_OR_NULL})]}


_SHARES: Final[_Json] = {
    "description": "How much of each limit is drawn, by its name; only of those whose own scope was read just now.",
    "type": "object",
    "additionalProperties": {"type": "number", "minimum": 0},
}


def _estimate() -> _Json:
    """Return the schema of the estimate: never a ``value``, so that nobody takes it for a measurement."""
    about = {
        "unit": {"const": "W"},
        "scope": {"const": Scope.SYSTEM.value},
        "quality": {"const": Quality.ESTIMATED.value},
        "source": _TEXT,
        "age_seconds": {"type": "number", "minimum": 0},
        "excludes": _TEXTS,
        "unknown": _TEXTS,
    }
    bounds = {
        of.key: {"description": f"{of.help} Source: {of.source}.", "type": "number", "x-unit": of.unit.value}
        for of in (LOWER, UPPER)
    }
    term = {"term": _TEXT, "detail": _TEXT, "lower": _NUMBER, "upper": _NUMBER, "source": _TEXT}
    interval = _object({**bounds, **about, "basis": _list(term)})
    none = _object(
        {
            **dict.fromkeys(bounds, _NULL),
            "reason": _one_of(Reason),
            "detail": _TEXT_OR_NULL,
            "basis": {"type": "array", "maxItems": 0},
        }
    )
    score = _quantity({"against": interval})["oneOf"][0] | {"description": f"{MISS.help} Source: {MISS.source}."}
    calibration = _object({"holds": {"type": "boolean"}, "detail": _TEXT})
    return _object(
        {
            "system": {"oneOf": [interval, none]},
            "score": {"oneOf": [score, _NULL]},
            "calibration": {"oneOf": [calibration, _NULL]},
        }
    )


def _power() -> _Json:
    scopes = {scope.value: _quantity() for scope in Scope}
    limit = {
        "limit": {"enum": ["pl1", "pl2", "syspl1", "syspl2", "nvml", "adapter", "soc_tdp", "rest", "system"]},
        "scope": {"enum": [*(scope.value for scope in Scope), REST]},
        "value": _NUMBER,
        "unit": {"const": "W"},
        "origin": _one_of(LimitOrigin),
        "source": _TEXT,
    }
    seconds = {"type": "number", "minimum": 0}
    energy = _quantity(
        {
            "method": _one_of(Method),
            "covered_seconds": seconds,
            "uncovered_seconds": seconds,
            "resets": {"type": "integer", "minimum": 0},
            "crosscheck_ratio": {"type": ["number", "null"], "minimum": 0},
        }
    )
    verdict = _object({"verdict": _one_of(Standing), "reason": _TEXT, "evidence": _TEXTS})
    return _object(
        {
            "driver": _TEXT_OR_NULL,
            "driver_variant": _TEXT_OR_NULL,
            "scopes": _object(scopes),
            "gpu_nvml_windows": {"type": "array", "items": _quantity({"window": _TEXT})},
            "averages": {"type": "object", "additionalProperties": _quantity()},
            "estimate": _estimate(),
            "limits": _list(limit, {"ceiling": _NUMBER, "floor": _NUMBER, "published": _NUMBER}),
            "energy": {"type": "object", "properties": {scope.value: energy for scope in ENERGIES}},
            "registers": {"type": "array", "items": _quantity()},
            "headroom": _quantity({"budget": _TEXT}),
            "shares": _SHARES,
            "rest": _quantity(scopes=[REST]),
            "verdicts": _object({"system": verdict, "soc": verdict, "gpu": verdict}),
            "untrusted": _list({"signal": _TEXT, "value": _NUMBER, "why": _TEXT}),
        }
    )


def _close(found: Any) -> None:
    if isinstance(found, dict):
        if "properties" in found:
            found.setdefault("additionalProperties", False)
        for value in found.values():
            _close(value)
    elif isinstance(found, list):
        for value in found:
            _close(value)
