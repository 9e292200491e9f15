"""What one command drew, as a table for a person and as JSON. ``docs/measure.md`` describes both."""

import json
import math
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from spark_agent.agent import __version__
from spark_agent.agent.energy import Method
from spark_agent.agent.measure import PEAK_WORDS, SCOPES, Account, Estimated, Known, Measurement, Net, Span
from spark_agent.agent.power import Measured, Unmeasured
from spark_agent.collectors import Origin, Quality, Reason, Scope, Unit
from spark_agent.exporters.document import number
from spark_agent.exporters.table import SCOPE_NAMES

SCHEMA: Final = "spark-agent/measurement/1"

_Json = dict[str, Any]


# --- JSON -------------------------------------------------------------------------------------------------------------


def document(measurement: Measurement) -> _Json:
    """Return all of it as plain JSON values."""
    outcome, span, per = measurement.outcome, measurement.span, measurement.per
    return {
        "schema": SCHEMA,
        "agent": {"version": __version__},
        "machine": {
            "name": measurement.machine,
            "origin": measurement.origin.value,
            "note": measurement.note or None,
        },
        "command": {
            "arguments": [_unicode(argument) for argument in outcome.arguments],
            "started_at": datetime.fromtimestamp(outcome.started_at, UTC).isoformat(timespec="milliseconds"),
            "duration_seconds": round(outcome.seconds, 6),
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
        },
        "interval_seconds": measurement.interval_seconds,
        "window": _span(span),
        "baseline": _span(measurement.baseline) if measurement.baseline else None,
        "per": {"count": number(per.count), "unit": per.unit} if per else None,
        "gpu_only": measurement.is_gpu_only,
        "scopes": {account.scope.value: _account(account) for account in measurement.accounts},
        "estimate": {"system": _estimate(span.estimated)},
        "notes": list(measurement.notes),
    }


def text(measurement: Measurement) -> str:
    """Return the JSON document as text. Never a NaN in it."""
    return json.dumps(document(measurement), indent=2, ensure_ascii=False, allow_nan=False)


def _unicode(argument: str) -> str:
    # Bytes that are no UTF-8 come from the shell as lone surrogates, which JSON must not have.
    return argument.encode(errors="replace").decode()


def _span(span: Span) -> _Json:
    return {
        "seconds": round(span.seconds, 6),
        "looks": span.looks,
        "missed": span.missed,
        "gpu_busy_ratio": _rounded(span.gpu_busy),
        "busy_cores": _rounded(span.busy_cores),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else number(round(value, 6))


def _account(account: Account) -> _Json:
    how = {
        "method": account.method.value if account.method else None,
        "covered_seconds": round(account.covered_seconds, 6),
    }
    cover = how | {"uncovered_seconds": round(account.uncovered_seconds, 6), "resets": account.resets}
    found = {
        "energy": _quantity(account.energy, **cover),
        "mean_power": _quantity(account.mean, **how),
        "peak_power": _quantity(account.peak, window=_window(account.peak)),
    }
    if account.each and account.per_joule:
        found |= _shares(account.each, account.per_joule, how)
    if account.net:
        found["net"] = _net(account.net, how)
    return found


def _net(net: Net, how: _Json) -> _Json:
    found = {
        "idle_subtracted": isinstance(net.energy, Measured),
        "baseline_power": _quantity(net.idle),
        "energy": _quantity(net.energy, **how),
        "mean_power": _quantity(net.mean, **how),
    }
    if net.each and net.per_joule:
        found |= _shares(net.each, net.per_joule, how)
    return found


def _shares(each: Known, per_joule: Known, how: _Json) -> _Json:
    return {"energy_per_unit": _quantity(each, **how), "units_per_joule": _quantity(per_joule, **how)}


def _quantity(known: Known, **more: Any) -> _Json:
    if isinstance(known, Unmeasured):
        return {"value": None, "reason": known.reason.value, "detail": known.detail or None}
    return {
        "value": number(_significant(known.value)),
        "unit": str(known.unit),
        "scope": known.scope.value,
        "quality": known.quality.value,
        "source": known.source,
        "age_seconds": round(known.age, 3),
        **more,
    }


def _significant(value: float) -> float:
    # A float sums to 138.00000000000003, and a share may be a millionth.
    return float(f"{value:.9g}")


def _window(peak: Known) -> str | None:
    return peak.labels[0] if isinstance(peak, Measured) and peak.labels else None


def _estimate(estimated: Estimated | Unmeasured) -> _Json:
    # Never a "value", so that nobody takes it for a measurement.
    if isinstance(estimated, Unmeasured):
        return {"lower": None, "upper": None, "reason": estimated.reason.value, "detail": estimated.detail or None}
    return {
        "lower": round(estimated.lower, 3),
        "upper": round(estimated.upper, 3),
        "unit": Unit.WATT.value,
        "scope": Scope.SYSTEM.value,
        "quality": Quality.ESTIMATED.value,
        "source": f"{estimated.source}; mean of both bounds over the window",
        "age_seconds": round(estimated.age, 3),
        "covered_seconds": round(estimated.covered_seconds, 6),
        "excludes": [estimated.excludes] if estimated.excludes else [],
    }


def schema() -> _Json:
    """Return the JSON Schema of the document."""
    method = {"enum": [*(method.value for method in Method)]}
    seconds = {"type": "number", "minimum": 0}
    how = {"method": method, "covered_seconds": seconds}
    cover = how | {"uncovered_seconds": seconds, "resets": {"type": "integer", "minimum": 0}}
    shares = {"energy_per_unit": _known(None, how), "units_per_joule": _known(None, how)}
    net = _object(
        {
            "idle_subtracted": {"type": "boolean"},
            "baseline_power": _known(Unit.WATT),
            "energy": _known(Unit.JOULE, how),
            "mean_power": _known(Unit.WATT, how),
        },
        shares,
    )
    account = _object(
        {
            "energy": _known(Unit.JOULE, cover),
            "mean_power": _known(Unit.WATT, how),
            "peak_power": _known(Unit.WATT, {"window": {"enum": list(PEAK_WORDS)}}),
        },
        {**shares, "net": net},
    )
    span = _object(
        {
            "seconds": seconds,
            "looks": {"type": "integer", "minimum": 1},
            "missed": {"type": "integer", "minimum": 0},
            "gpu_busy_ratio": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "busy_cores": {"type": ["number", "null"], "minimum": 0},
        }
    )
    estimate = _object(
        {
            "lower": seconds,
            "upper": seconds,
            "unit": {"const": Unit.WATT.value},
            "scope": {"const": Scope.SYSTEM.value},
            "quality": {"const": Quality.ESTIMATED.value},
            "source": _TEXT,
            "age_seconds": seconds,
            "covered_seconds": seconds,
            "excludes": {"type": "array", "items": _TEXT},
        }
    )
    null = {"type": "null"}
    none = _object({"lower": null, "upper": null, "reason": _REASON, "detail": _TEXT_OR_NULL})
    positive = {"type": "number", "exclusiveMinimum": 0}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('/', ':')}",
        "title": "What one command drew, as spark-agent measured it",
        **_object(
            {
                "schema": {"const": SCHEMA},
                "agent": _object({"version": _TEXT}),
                "machine": _object(
                    {"name": _TEXT, "origin": {"enum": [str(origin) for origin in Origin]}, "note": _TEXT_OR_NULL}
                ),
                "command": _object(
                    {
                        "arguments": {"type": "array", "items": _TEXT, "minItems": 1},
                        "started_at": _TEXT,
                        "duration_seconds": seconds,
                        "exit_code": {"type": "integer", "minimum": 0, "maximum": 255},
                        "signal": _TEXT_OR_NULL,
                    }
                ),
                "interval_seconds": positive,
                "window": span,
                "baseline": {"anyOf": [span, null]},
                "per": {"anyOf": [_object({"count": positive, "unit": _TEXT}), null]},
                "gpu_only": {"type": "boolean"},
                "scopes": _object({scope.value: account for scope in SCOPES}),
                "estimate": _object({"system": {"oneOf": [estimate, none]}}),
                "notes": {"type": "array", "items": _TEXT},
            }
        ),
    }


_TEXT: Final[_Json] = {"type": "string"}
_TEXT_OR_NULL: Final[_Json] = {"type": ["string", "null"]}
_REASON: Final[_Json] = {"enum": [str(reason) for reason in Reason]}


def _object(properties: _Json, optional: _Json | None = None) -> _Json:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties | (optional or {}),
    }


def _known(unit: Unit | None, more: _Json | None = None) -> _Json:
    """Return the schema of a power, an energy or a share of one; a share's unit names what the user counts."""
    known = {
        "value": {"type": "number", "exclusiveMinimum": 0}
        if unit is not Unit.WATT
        else {"type": "number", "minimum": 0},
        "unit": {"const": unit.value} if unit else {"type": "string", "pattern": r"^(J/\{.+\}|\{.+\}/J)$"},
        "scope": {"enum": [str(scope) for scope in SCOPES]},
        "quality": {"enum": [str(quality) for quality in Quality]},
        "source": _TEXT,
        "age_seconds": {"type": "number", "minimum": 0},
        **(more or {}),
    }
    absent = _object({"value": {"type": "null"}, "reason": _REASON, "detail": _TEXT_OR_NULL})
    return {"oneOf": [_object(known), absent]}


# --- the table --------------------------------------------------------------------------------------------------------


def show(measurement: Measurement, console: Console) -> None:
    """Print all of it for a person."""
    for line in _head(measurement):
        console.print(line)
    accounts = [account for account in measurement.accounts if account.is_known]
    per, baseline = measurement.per, measurement.baseline
    if accounts:
        _part(console, "Energy and power", Group(_gross(accounts), _peaks(accounts)))
    if baseline and accounts:
        _part(console, f"Net: less the idle machine, as measured for {baseline.seconds:.1f} s before", _nets(accounts))
    if per and accounts:
        _part(console, f"Per unit: {per.count:g} {_printable(per.unit)}", _units(accounts, per.unit))
    for line in _tail(measurement):
        console.print(line)


def _part(console: Console, title: str, body: RenderableType) -> None:
    console.print(Rule(Text(title, "bold"), align="left", style="dim", characters="─"))
    console.print(Padding(body, (0, 0, 0, 1)))


def _head(measurement: Measurement) -> Iterator[Text]:
    outcome, span = measurement.outcome, measurement.span
    if measurement.origin is not Origin.LIVE:
        yield Text(f"{measurement.origin.value.upper()} machine {measurement.machine}", "black on yellow")
    line = Text(_printable(shlex.join(outcome.arguments)), "bold", no_wrap=True, overflow="ellipsis")
    yield line
    ended = f"killed by {outcome.signal}" if outcome.signal else f"exit code {outcome.exit_code}"
    looks = f"{span.looks} looks" + (f", {span.missed} missed" if span.missed else "")
    yield Text(f"{ended} after {outcome.seconds:.2f} s; {looks}, one each {measurement.interval_seconds:g} s", "dim")


def _gross(accounts: list[Account]) -> Table:
    table = _grid(("", "left"), ("energy", "right"), ("mean", "right"), ("peak", "right"), ("", "wrap"))
    for account in accounts:
        table.add_row(
            *_name(account, accounts), *map(_cell, (account.energy, account.mean, account.peak)), _how(account)
        )
    return table


def _how(account: Account) -> Text:
    if isinstance(account.energy, Unmeasured):
        return Text(_reason(account.energy), "yellow")
    return Text(f"{account.method}, {account.covered_seconds:.1f} s", "dim")


def _peaks(accounts: list[Account]) -> Text:
    """Say of what the peaks are peaks."""
    names: dict[str, list[str]] = {}
    for account in accounts:
        if window := _window(account.peak):
            names.setdefault(PEAK_WORDS[window], []).append(SCOPE_NAMES[account.scope][0])
    if len(names) < 2:
        return Text(f"peak of {next(iter(names), 'nothing')}", "dim")
    return Text("; ".join(f"peak of {words}: {', '.join(those)}" for words, those in names.items()), "dim")


def _nets(accounts: list[Account]) -> Table:
    table = _grid(("", "left"), ("idle", "right"), ("net energy", "right"), ("net mean", "right"), ("", "wrap"))
    for account in accounts:
        if net := account.net:
            how = Text("derived", "dim")
            if isinstance(net.energy, Unmeasured):
                was_measured = isinstance(net.idle, Measured) and isinstance(account.mean, Measured)
                how = Text("not above idle" if was_measured else _reason(net.energy), "yellow")
            table.add_row(*_name(account, accounts), *map(_cell, (net.idle, net.energy, net.mean)), how)
    return table


def _units(accounts: list[Account], unit: str) -> Table:
    has_net = any(account.net for account in accounts)
    rate = f"{_printable(unit)}/J"
    heads = [("", "left"), ("J each", "right"), (rate, "right")]
    heads += [("net J each", "right"), (f"net {rate}", "right")] if has_net else []
    table = _grid(*heads, ("", "wrap"))
    for account in accounts:
        shares = [account.each, account.per_joule]
        shares += [account.net.each, account.net.per_joule] if account.net else []
        # Why there is no energy was said above.
        why = account.each if isinstance(account.energy, Measured) and isinstance(account.each, Unmeasured) else None
        table.add_row(*_name(account, accounts), *map(_share, shares), Text(_reason(why) if why else "", "yellow"))
    return table


def _tail(measurement: Measurement) -> Iterator[Text]:
    estimated = measurement.span.estimated
    if isinstance(estimated, Estimated):
        line = Text(f"system, estimated: {math.floor(estimated.lower)}–{math.ceil(estimated.upper)} W", "cyan")
        without = f", without {estimated.excludes}" if estimated.excludes else ""
        yield line.append(f" on average{without}; not measured, so no joules are told for it", "dim")
    missing: dict[str, list[str]] = {}
    for account in measurement.accounts:
        if not account.is_known and isinstance(account.energy, Unmeasured):
            missing.setdefault(_reason(account.energy), []).append(SCOPE_NAMES[account.scope][0])
    for why, names in missing.items():
        yield Text.assemble((f"not measured: {', '.join(names)}", "yellow"), (f" — {why}", "dim"))
    for note in measurement.notes:
        yield Text(f"{note[:1].upper()}{_printable(note[1:])}.", "yellow")


def _grid(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_header=True)
    for title, side in columns:
        table.add_column(title, justify="right" if side == "right" else "left", no_wrap=side != "wrap")
    return table


def _name(account: Account, accounts: list[Account]) -> tuple[str]:
    name, depth = SCOPE_NAMES[account.scope]
    return ("  " * (depth - min(SCOPE_NAMES[one.scope][1] for one in accounts)) + name,)


def _reason(known: Unmeasured) -> str:
    return known.detail or known.reason.value


def _cell(known: Known) -> Text:
    if isinstance(known, Unmeasured):
        return Text("–", "dim")
    if known.unit == Unit.WATT:
        return Text(f"{_digits(known.value)} W")
    for least, size, word in ((1e8, 1e6, "MJ"), (1e5, 1e3, "kJ")):
        if known.value >= least:
            return Text(f"{known.value / size:.1f} {word}", "bold")
    return Text(f"{_digits(known.value)} J", "bold")


def _digits(value: float) -> str:
    # What is there is not told as 0.0.
    return f"{value:.1f}" if value >= 1 or not value else f"{value:.2g}"


def _share(known: Known | None) -> Text:
    """Return four digits, without an exponent where that can be read."""
    if not isinstance(known, Measured):
        return Text("–", "dim")
    digits = max(0, 3 - math.floor(math.log10(known.value)))
    return Text(f"{known.value:.{digits}f}" if digits <= 8 else f"{known.value:.4g}")


def _printable(found: str) -> str:
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in found)
