"""A report as one schema-versioned JSON document. ``docs/document.md`` describes it; `schema` is its JSON Schema."""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from spark_agent.agent import __version__
from spark_agent.agent.budget import Headroom, Limit, Rest
from spark_agent.agent.budget_table import REST
from spark_agent.agent.energy import Energy
from spark_agent.agent.estimate import Estimate
from spark_agent.agent.misread import Misread
from spark_agent.agent.power import Measured, Unmeasured
from spark_agent.agent.report import Report
from spark_agent.agent.snapshot import Snapshot
from spark_agent.agent.terms import EXCLUDED, Interval
from spark_agent.collectors import (
    Absence,
    Fact,
    Item,
    Property,
    Quality,
    Quantity,
    Reading,
    Section,
    Unit,
    declarations,
    spbm,
)

SCHEMA: Final = "spark-agent/snapshot/1"

_Json = dict[str, Any]

#: The order of the document. Anything that a new collector adds comes between ``fans`` and ``findings``.
ORDER: Final = (
    "schema",
    "agent",
    "machine",
    "platform",
    "cpu",
    "memory",
    "gpu",
    "power",
    "nvme",
    "nics",
    "connectx7",
    "thermal",
    "cooling",
    "fans",
)


def document(report: Report, *, private: bool = False) -> _Json:
    """Return the whole document as plain JSON values, in its order; serial numbers and the like only if asked."""
    snapshot = report.snapshot
    found: _Json = {
        "schema": SCHEMA,
        "agent": {"version": __version__},
        "machine": _machine(snapshot),
    }
    _lay_out(found, snapshot)
    tree = _Tree(found)
    for item in snapshot.items():
        if not is_power(item.of.section) and not _is_power_reading(item) and (private or not _is_private(item.of)):
            tree.add(item)
    if _was_asked(snapshot, ("gpu", "spbm")):
        found["power"] = _power(report)
    found["findings"] = [
        {
            "id": finding.id,
            "severity": finding.severity.value,
            "title": finding.title,
            "evidence": list(finding.evidence),
            "action": finding.action,
        }
        for finding in report.findings
    ]
    if report.hearsay:
        found["misreads"] = [_misread(misread) for misread in report.hearsay.misreads]
    found["collectors"] = [
        {
            "name": visit.collector,
            "status": visit.status.value,
            "reason": visit.reason.value if visit.reason else None,
            "detail": visit.detail or None,
            "seconds": round(visit.seconds, 6),
            "rejected": len(visit.rejected),
        }
        for visit in snapshot.visits
    ]
    rest = [key for key in found if key not in ORDER]
    return {key: found[key] for key in (*ORDER, *rest) if key in found}


def text(found: Mapping[str, Any]) -> str:
    """Return a document as text. Never a NaN in it."""
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)


def load(content: bytes) -> _Json:
    """Read a saved document, or raise `ValueError` that says why it is none."""
    try:
        found = json.loads(content, parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"no document of schema {SCHEMA}; save one with `spark-agent snapshot --output json`")
    return found


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number of this document")


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _refuse(text)


def is_power(section: Section) -> bool:
    """Whether a section is part of ``power``, which has a shape of its own."""
    return section.path.startswith("power.")


def _is_power_reading(item: Item) -> bool:
    # Powers and energies stand under "power" alone, with scope, quality, source and age.
    return isinstance(item.of, Quantity) and item.of.is_power


def _is_private(of: Quantity | Property) -> bool:
    return isinstance(of, Property) and of.private


def _was_asked(snapshot: Snapshot, collectors: Iterable[str]) -> bool:
    return any(snapshot.visit(name) for name in collectors)


def _machine(snapshot: Snapshot) -> _Json:
    taken_at = datetime.fromtimestamp(snapshot.taken_at, UTC).isoformat(timespec="seconds")
    return {
        "name": snapshot.machine,
        "origin": snapshot.origin.value,
        "note": snapshot.note or None,
        "taken_at": taken_at,
    }


def _lay_out(found: _Json, snapshot: Snapshot) -> None:
    """Give each section that was asked for its place, so that the document's shape does not depend on the machine."""
    for collector, declared in declarations().items():
        if not _was_asked(snapshot, (collector,)):
            continue
        for of in declared:
            section = of.section
            if is_power(section) or section.within:
                continue
            above, key = _place(found, section)
            if section.entity:
                above.setdefault(key, [])
            elif not _is_private(of) and not (isinstance(of, Quantity) and (of.labels or of.is_power)):
                above.setdefault(key, {})[of.document_key] = None


def _place(found: _Json, section: Section) -> tuple[_Json, str]:
    *above, last = section.path.split(".")
    for part in above:
        found = found.setdefault(part, {})
    return found, last


class _Tree:
    """Puts items where their sections say."""

    def __init__(self, found: _Json) -> None:
        self._found = found
        self._entities: dict[tuple[str, str], _Json] = {}

    def add(self, item: Item) -> None:
        entity = self._entity(item.of.section, item.entity)
        key = item.of.document_key
        if isinstance(item, Fact):
            entity[key] = list(item.value) if isinstance(item.value, tuple) else item.value
            return
        labels = item.labels
        if isinstance(item, Absence):
            self._note(entity, "absent", key, labels, {"reason": item.reason.value, "detail": item.detail or None})
        elif item.quality is Quality.UNTRUSTED:
            self._note(entity, "untrusted", key, labels, {"value": number(item.value), "why": item.note})
        elif labels:
            *above, last = labels
            values = entity.setdefault(key, {})
            for label in above:
                values = values.setdefault(label, {})
            values[last] = number(item.value)
        else:
            entity[key] = number(item.value)

    @staticmethod
    def _note(entity: _Json, where: str, key: str, labels: tuple[str, ...], why: _Json) -> None:
        if not labels:
            entity.setdefault(key, None)
        entity.setdefault(where, {})[".".join((key, *labels))] = why

    def _entity(self, section: Section, name: str) -> _Json:
        known = self._entities.get((section.path, name))
        if known is not None:
            return known
        if not section.entity:
            above, key = _place(self._found, section)
            known = above.setdefault(key, {})
        else:
            parent, _, own = name.rpartition("/") if section.within else ("", "", name)
            known = {section.id_key: int(own) if section.numbered else own}
            self._list(section, parent).append(known)
        self._entities[section.path, name] = known
        return known

    def _list(self, section: Section, parent: str) -> list[_Json]:
        if section.within:
            entities: list[_Json] = self._entity(section.within, parent).setdefault(section.path.rpartition(".")[2], [])
            return entities
        above, key = _place(self._found, section)
        listed: list[_Json] = above.setdefault(key, [])
        return listed


def number(value: float) -> float:
    """Return a whole number as one: bytes and hertz have no point in them."""
    return int(value) if float(value).is_integer() else value


def _quantity(known: Measured | Unmeasured) -> _Json:
    if isinstance(known, Unmeasured):
        return {"value": None, "reason": known.reason.value, "detail": known.detail or None}
    return {
        "value": number(known.value),
        "unit": known.unit,
        "scope": known.scope.value,
        "quality": known.quality.value,
        "source": known.source,
        "age_seconds": round(known.age, 3),
    }


def _power(report: Report) -> _Json:
    power, budget = report.power, report.budget
    return {
        "driver": report.snapshot.fact(spbm.DRIVER),
        "driver_variant": report.snapshot.fact(spbm.VARIANT),
        "scopes": {scope.value: _quantity(known) for scope, known in power.scopes.items()},
        "gpu_nvml_windows": [{"window": known.labels[0], **_quantity(known)} for known in power.windows],
        "averages": {limit: _quantity(known) for limit, known in power.averages.items()},
        "estimate": _estimate(report.estimate),
        "limits": [_limit(limit) for limit in budget.limits],
        "energy": {scope.value: _energy(known) for scope, known in report.energies.items()},
        "registers": [_quantity(known) for known in power.registers],
        "headroom": _headroom(budget.headroom),
        "shares": dict(budget.shares),
        "rest": _rest(budget.rest),
        "verdicts": {
            scope: {
                "verdict": verdict.standing.value,
                "reason": verdict.reason,
                "evidence": list(verdict.evidence),
            }
            for scope, verdict in budget.verdicts.items()
        },
        "untrusted": [_untrusted(reading) for reading in power.untrusted],
    }


def _energy(known: Energy | Unmeasured) -> _Json:
    if isinstance(known, Unmeasured):
        return _quantity(known)
    return {
        "value": number(round(known.joules, 3)),
        "unit": Unit.JOULE.value,
        "scope": known.scope.value,
        "quality": known.quality.value,
        "source": known.source,
        "age_seconds": round(known.age, 3),
        "method": known.method.value,
        "covered_seconds": number(round(known.covered_seconds, 3)),
        "uncovered_seconds": number(round(known.uncovered_seconds, 3)),
        "resets": known.resets,
        "crosscheck_ratio": None if known.crosscheck is None else round(known.crosscheck, 4),
    }


def _estimate(estimate: Estimate) -> _Json:
    system, score, applied = estimate.system, estimate.score, estimate.calibration
    if isinstance(system, Unmeasured):
        why = {"reason": system.reason.value, "detail": system.detail or None}
        told: _Json = {"lower": None, "upper": None, **why, "basis": []}
    else:
        told = _interval(system)
    return {
        "system": told,
        "score": score
        and {
            "value": number(score.miss),
            "unit": score.measured.unit,
            "scope": score.measured.scope.value,
            "quality": Quality.DERIVED.value,
            "source": f"{score.measured.source}, outside the interval that would have been estimated",
            "age_seconds": round(max(score.measured.age, score.against.age), 3),
            "against": _interval(score.against),
        },
        "calibration": applied and {"holds": applied.holds, "detail": applied.detail},
    }


def _interval(interval: Interval) -> _Json:
    return {
        "lower": number(interval.lower),
        "upper": number(interval.upper),
        "unit": interval.unit.value,
        "scope": interval.scope.value,
        "quality": interval.quality.value,
        "source": interval.source,
        "age_seconds": round(interval.age, 3),
        "excludes": [EXCLUDED],
        "unknown": list(interval.unknown),
        "basis": [
            {
                "term": term.name,
                "detail": term.detail,
                "lower": number(round(term.lower, 3)),
                "upper": number(round(term.upper, 3)),
                "source": term.source,
            }
            for term in interval.basis
        ],
    }


def _limit(limit: Limit) -> _Json:
    further = {"ceiling": limit.ceiling, "floor": limit.floor, "published": limit.published}
    return {
        "limit": limit.name,
        "scope": limit.scope,
        "value": number(limit.watts),
        "unit": Unit.WATT.value,
        "origin": limit.origin.value,
        "source": limit.source,
        **{key: number(value) for key, value in further.items() if value is not None},
    }


def _headroom(headroom: Headroom | Unmeasured) -> _Json:
    if isinstance(headroom, Unmeasured):
        return _quantity(headroom)
    against = headroom.against
    return {
        "value": number(round(headroom.watts, 3)),
        "unit": Unit.WATT.value,
        "scope": headroom.limit.scope,
        "quality": Quality.DERIVED.value,
        "source": f"{headroom.limit.source} − {against.source}",
        "age_seconds": round(against.age, 3),
        "budget": headroom.limit.name,
    }


def _rest(rest: Rest | Unmeasured) -> _Json:
    if isinstance(rest, Unmeasured):
        return _quantity(rest)
    return {
        "value": number(rest.watts),
        "unit": Unit.WATT.value,
        "scope": REST,
        "quality": Quality.DERIVED.value,
        "source": rest.source,
        "age_seconds": round(rest.age, 3),
    }


def _misread(misread: Misread) -> _Json:
    return {
        "series": misread.series,
        "kind": misread.kind.value,
        "url": misread.url,
        "claimed": _quantity(misread.claimed),
        "evidence": misread.evidence,
    }


def _untrusted(reading: Reading) -> _Json:
    section = reading.of.section
    # The section of such signals names them itself; elsewhere it is one of an entity's readings.
    signal = reading.entity if is_power(section) else f"{section.path}[{reading.entity}].{reading.of.key}"
    return {"signal": signal, "value": number(reading.value), "why": reading.note}
