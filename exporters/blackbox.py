"""A black box on one screen, as JSON or as CSV: what the machine did last, and how that ended."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spark_agent.agent.blackbox import End, Ending, Record, Recording
from spark_agent.agent.budget import Standing

SCHEMA: Final = "spark-agent/blackbox/1"
LIST_SCHEMA: Final = "spark-agent/blackbox-list/1"
#: How much of it fits on a screen, in seconds.
SHOWN_SECONDS: Final = 60.0

_WORDS: Final = {
    End.CLEAN: "the agent ended as it was told to",
    End.AGENT: "the agent was killed, and the machine went on",
    End.MACHINE: "the machine went down without a clean end",
    End.RUNNING: "the recording goes on",
}

#: Exit codes, worst last: what monitoring plugins call ok, warning and critical.
EXIT_CODES: Final = {End.CLEAN: 0, End.RUNNING: 0, End.AGENT: 1, End.MACHINE: 2}

_STYLES: Final = {End.CLEAN: "green", End.RUNNING: "green", End.AGENT: "yellow", End.MACHINE: "bold red"}

# The one of three verdicts that has a column's room. "within" is last but one: it says more than "unmeasured".
_TOLD_FIRST: Final = (
    Standing.OVER_BUDGET,
    Standing.CAPPED_LOW,
    Standing.LIMITS_UNPUBLISHED,
    Standing.IMPOSSIBLE,
    Standing.ERROR,
    Standing.STALE,
    Standing.AT_LIMIT,
    Standing.NEAR_LIMIT,
    Standing.WITHIN,
)
_SHORT: Final = {Standing.LIMITS_UNPUBLISHED: "no limits"}

_ERRORS: Final = "_pcie_errors_"
# Where the kernel does not tell one type of core from another, there is one.
_CPU, _OTHER_CPU = "cpu_performance_clock_hertz", "cpu_unknown_clock_hertz"


def show(recording: Recording, console: Console, now: float) -> None:
    """Print the recording, the newest record last; ``now`` is seconds since 1970."""
    identity, records = recording.identity, recording.records
    console.print(Text(_WORDS[recording.ending.kind], _STYLES[recording.ending.kind]))
    console.print(_last(recording.ending, now))
    console.print(f"boot id {identity.boot_id}, machine {identity.machine}, agent {identity.agent}")
    console.print(Text(str(recording.path), "dim"), soft_wrap=True)
    if recording.damaged:
        console.print(f"damaged batches left out: {recording.damaged}")
    if not records:
        return
    console.print(_table(recording))
    for line in _at_the_end(records[-1]):
        console.print(line)


def show_list(recordings: Iterable[Recording], console: Console, now: float) -> None:
    """Print a line for each recording."""
    table = Table(box=None, pad_edge=False)
    for name in ("file", "records", "how it ended"):
        table.add_column(name, no_wrap=name != "how it ended", overflow="fold")
    for recording in recordings:
        ending = recording.ending
        words = Text.assemble((_WORDS[ending.kind], _STYLES[ending.kind]), f"; {_last(ending, now)}")
        table.add_row(recording.path.name, str(len(recording.records)), words)
    console.print(table)


def _last(ending: Ending, now: float) -> str:
    if ending.at is None:
        return "no record was written"
    ago = f", {_duration(now - ending.at)} ago" if now >= ending.at else ""
    return f"last record {_time(ending.at):%Y-%m-%d %H:%M:%S} UTC{ago}"


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _table(recording: Recording) -> Table:
    # Two scopes never share a column: the firmware's rail where it was recorded at all, or else NVML's reading.
    rail = "gpu_rail_power_watts"
    has_rail = any(rail in record.readings for record in recording.records)
    gpu = rail if has_rail else "gpu_nvml_power_watts"
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in (
        *("UTC", "sys\nW", "SoC\nW", "rail W" if has_rail else "NVML W", "caps\nW", "SM\nMHz", "CPU\nMHz"),
        *("GPU\n°C", "SSD\n°C", "zone\n°C", "avail\nGiB", "PSI\n%", "verdict"),
    ):
        is_text = name in ("UTC", "verdict")
        table.add_column(name.replace(" W", "\nW"), justify="left" if is_text else "right", no_wrap=True)
    gaps = {gap.after: gap.seconds for gap in recording.gaps}
    for record in recording.records:
        table.add_row(*_cells(record, gpu))
        if record.at in gaps:
            table.add_row(*([""] * 12), f"{_duration(gaps[record.at])} gap")
    return table


def _cells(record: Record, gpu: str) -> tuple[str, ...]:
    readings = record.readings
    return (
        f"{_time(record.at):%H:%M:%S}",
        _cell(readings, "system_power_watts", digits=1),
        _cell(readings, "soc_power_watts", digits=1),
        _cell(readings, gpu, digits=1),
        _caps(readings),
        _cell(readings, "gpu_sm_clock_hertz", 1e-6),
        _cell(readings, _CPU if _CPU in readings else _OTHER_CPU, 1e-6),
        _cell(readings, "gpu_temperature_celsius"),
        _cell(readings, "nvme_temperature_celsius"),
        _cell(readings, "thermal_temperature_celsius"),
        _cell(readings, "memory_available_bytes", 2**-30, digits=1),
        _cell(readings, "memory_pressure_some_ratio", 100),
        _verdict(record.verdicts),
    )


def _cell(readings: Mapping[str, float], name: str, factor: float = 1, *, digits: int = 0) -> str:
    """Return a reading in the unit of its column; nothing where there is none."""
    return f"{readings[name] * factor:.{digits}f}" if name in readings else ""


def _caps(readings: Mapping[str, float]) -> str:
    """Return the limits of SoC and system, the lower of two where the firmware has two: ``140/231``."""
    lowest = [
        min((readings[name] for name in names if name in readings), default=None)
        for names in (("pl1_limit_watts", "pl2_limit_watts"), ("syspl1_limit_watts", "syspl2_limit_watts"))
    ]
    return "/".join("?" if watts is None else f"{watts:.0f}" for watts in lowest) if any(lowest) else ""


def _verdict(verdicts: Mapping[str, str]) -> str:
    standings = set(verdicts.values())
    known = next((standing for standing in _TOLD_FIRST if standing in standings), None)
    if known:
        return _SHORT.get(known, known.replace("_", " "))
    return next(iter(verdicts.values()), "")


def _at_the_end(last: Record) -> list[str]:
    lines = [f"worst finding at the end: {last.finding}"] if last.finding else []
    errors = [
        f"{name.removesuffix('_total').replace(_ERRORS, ' ')} {value:.0f}"
        for name, value in last.readings.items()
        if _ERRORS in name and value
    ]
    if errors:
        lines.append(f"PCIe errors since boot: {', '.join(errors)}")
    if last.ages:
        ages = ", ".join(f"{collector} {age:.0f} s" for collector, age in last.ages.items())
        lines.append(f"readings that were old at the end: {ages}")
    return lines


def text(recording: Recording) -> str:
    """Return the recording as one JSON document."""
    found = {
        "schema": SCHEMA,
        **_head(recording),
        "gaps": [{"after": _iso(gap.after), "seconds": gap.seconds} for gap in recording.gaps],
        "records": [
            {
                "time": _iso(record.at),
                "monotonic_seconds": record.clock,
                "readings": record.readings,
                "verdicts": record.verdicts,
                "worst_finding": record.finding,
                "age_seconds": record.ages,
            }
            for record in recording.records
        ],
    }
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)


def list_text(recordings: Iterable[Recording]) -> str:
    """Return what there is as one JSON document."""
    found = [{**_head(recording), "records": len(recording.records)} for recording in recordings]
    return json.dumps({"schema": LIST_SCHEMA, "recordings": found}, indent=2, ensure_ascii=False)


def _head(recording: Recording) -> dict[str, Any]:
    identity, ending = recording.identity, recording.ending
    return {
        "file": str(recording.path),
        "machine": identity.machine,
        "agent": identity.agent,
        "boot_id": identity.boot_id,
        "started": _iso(identity.started),
        "ending": {"kind": ending.kind.value, "last_record": None if ending.at is None else _iso(ending.at)},
        "damaged_batches": recording.damaged,
    }


def _iso(at: float) -> str:
    return _time(at).isoformat(timespec="milliseconds")


def csv_text(recording: Recording) -> str:
    """Return the records as CSV, a column for each reading; what was not read is empty."""
    rows = [_row(record) for record in recording.records]
    columns = {"time": None, "monotonic_seconds": None} | {name: None for row in rows for name in row}
    lines = io.StringIO()
    writer = csv.DictWriter(lines, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue().rstrip("\n")


def _row(record: Record) -> dict[str, Any]:
    return {
        "time": _iso(record.at),
        "monotonic_seconds": record.clock,
        **record.readings,
        **{f"{scope}_verdict": standing for scope, standing in record.verdicts.items()},
        **({"worst_finding": record.finding} if record.finding else {}),
        **{f"{collector}_age_seconds": age for collector, age in record.ages.items()},
    }
