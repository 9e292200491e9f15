"""The flight recorder: the last minutes of the machine, on its drive, for after it went down without a trace.

A ring is a file of 4096-byte blocks, written with zeros in full when a run of the agent begins, so that a drive that
fills up later does not stop it:

    block 0, block 1    the superblock, twice: what this ring is of; written once, never again
    slots               one batch of records each, in turn; batch ``n`` in slot ``n % slots``

A batch is a header (magic, CRC-32 of all that follows, number, length, whether the run ended with it) and the
records of ten seconds, as lines of JSON, compressed. It starts on a block of its own and takes one write and one
fdatasync. No block is written twice in one turn of the ring, so a write torn by a power cut costs the batch being
written and the oldest one, which it was to replace, and nothing else. A batch that does not check is left out.

A run that was told to end says so in its last batch. The next one looks for that: without it, the boot id tells
whether the agent alone was killed or the machine went down, and the ring is kept under another name.
"""

import errno
import fcntl
import json
import logging
import math
import operator
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

from spark_agent.agent import BEAT_SECONDS, __version__
from spark_agent.agent.budget import LimitOrigin
from spark_agent.agent.power import Measured
from spark_agent.agent.report import Report
from spark_agent.agent.snapshot import Snapshot
from spark_agent.agent.state import failure, set_aside, sync_folder, write_whole
from spark_agent.collectors import Quality, Quantity, Scope, Unit, cpu, gpu, memory, nic, nvme, paces, thermal
from spark_agent.collectors._pci import AER_SEVERITIES

log = logging.getLogger(__name__)

FORMAT: Final = 1
#: The name of the ring in the daemon's folder.
NAME: Final = "blackbox.bin"

#: How much is kept, how often it is written, and how long the recorder waits after a fault; in seconds.
KEPT_SECONDS: Final = 600.0
FLUSH_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 60.0

#: Rings kept of runs that did not end cleanly; no more than two of these of an agent that keeps being killed.
KEPT_RINGS: Final = 5
KEPT_RINGS_OF_AGENT: Final = 2

#: A collector that is late by as much as this has its age in the record.
LATE_SECONDS: Final = 2.0

_BLOCK: Final = 4096
_SUPERBLOCKS: Final = 2
# Those of a busy Spark take less than half a block.
_RECORDS_PER_BLOCK: Final = 10
# Nobody needs more, and the file of a reader may be anybody's.
_LARGEST_RING: Final = 64 * 2**20
_LARGEST_BATCH: Final = 16 * 2**20
_LONGEST_TEXT: Final = 256
# Fits into a block with its header even where it does not compress.
_LARGEST_RECORD: Final = 4000

_SUPERBLOCK_MAGIC: Final = b"spark-agent black box\n"
_SUPERBLOCK_HEAD: Final = struct.Struct("<II")
_BATCH_MAGIC: Final = b"SABB"
_BATCH_CHECKSUM: Final = struct.Struct("<I")
_BATCH_HEAD: Final = struct.Struct("<QI?")
_BATCH_PAYLOAD: Final = len(_BATCH_MAGIC) + _BATCH_CHECKSUM.size + _BATCH_HEAD.size


class BlackBoxError(Exception):
    """A file is no black box, or cannot be read; the message names it and says why."""


# What is recorded


@dataclass(frozen=True, slots=True)
class Record:
    """One beat. ``at`` is seconds since 1970, ``clock`` seconds of the machine's monotonic clock, which starts at boot.

    ``readings`` are by metric name, with scope and unit in it, in base units; what was not read has no key.
    ``verdicts`` are by scope, ``finding`` is the id of the worst, ``ages`` are seconds by collector where its readings
    were older than its pace makes them.
    """

    at: float
    clock: float
    readings: Mapping[str, float]
    verdicts: Mapping[str, str] = field(default_factory=dict)
    finding: str | None = None
    ages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Channel:
    """A reading of a record: which quantity, with which labels, and how several of them become one."""

    name: str
    of: Quantity
    labels: tuple[str, ...] | None = None
    fold: Callable[[Iterable[float]], float] = max


_CHANNELS: Final = (
    _Channel("gpu_sm_clock_hertz", gpu.CLOCK, ("sm",)),
    _Channel("gpu_utilization_ratio", gpu.UTILIZATION),
    _Channel("gpu_temperature_celsius", gpu.TEMPERATURE),
    _Channel("nvme_temperature_celsius", nvme.TEMPERATURE),
    _Channel("thermal_temperature_celsius", thermal.TEMPERATURE),
    _Channel("memory_available_bytes", memory.AVAILABLE),
    _Channel("memory_allocatable_bytes", memory.ALLOCATABLE),
    _Channel("memory_pressure_some_ratio", memory.PRESSURE_SOME, ("avg10",)),
    _Channel("memory_pressure_full_ratio", memory.PRESSURE_FULL, ("avg10",)),
    *(
        _Channel(f"{of.name}_{severity}_total", of, (severity,), sum)
        for of in (nic.PCIE_ERRORS, nvme.PCIE_ERRORS)
        for severity in AER_SEVERITIES
    ),
)

_POWERS: Final = {scope: f"{scope.value}_power_watts" for scope in Scope}

# Whose readings these are, and those of power; and how old each may be by itself.
_PACES: Final = {name: paces()[name] for name in ("cpu", "gpu", "memory", "nic", "nvme", "spbm", "thermal")}

# Beyond what a sensor resolves, digits cost space and say nothing. Hertz, bytes and counts are whole.
_DIGITS: Final = {Unit.WATT: 3, Unit.CELSIUS: 1, Unit.RATIO: 4}


def record_of(report: Report) -> Record:
    """Return what the black box keeps of a report."""
    snapshot = report.snapshot
    readings: dict[str, float] = {}
    for scope, known in report.power.scopes.items():
        if isinstance(known, Measured):
            readings[_POWERS[scope]] = _rounded(known.value, Unit.WATT)
    for limit in report.budget.limits:
        # What NVIDIA's guide says is no evidence of this machine.
        if limit.origin is not LimitOrigin.VENDOR_DOC:
            readings[f"{limit.name}_limit_watts"] = _rounded(limit.watts, Unit.WATT)
    for channel in _CHANNELS:
        found = [
            reading.value
            for reading in snapshot.readings(channel.of)
            if (channel.labels is None or reading.labels == channel.labels) and reading.quality is not Quality.UNTRUSTED
        ]
        if found:
            readings[channel.name] = _rounded(channel.fold(found), channel.of.unit)
    readings.update(_cpu_clocks(snapshot))
    return Record(
        round(snapshot.taken_at, 3),
        round(snapshot.at, 3),
        readings,
        {scope: verdict.standing.value for scope, verdict in report.budget.verdicts.items()},
        report.findings[0].id if report.findings else None,
        {
            visit.collector: round(age, 1)
            for visit in snapshot.visits
            if visit.collector in _PACES and (age := snapshot.at - visit.at) >= _PACES[visit.collector] + LATE_SECONDS
        },
    )


def _rounded(value: float, unit: Unit) -> float:
    return round(value, _DIGITS.get(unit))


def _cpu_clocks(snapshot: Snapshot) -> dict[str, float]:
    """Return the highest clock of each type of core."""
    types = {fact.entity: fact.value for fact in snapshot.facts(cpu.CORE_TYPE)}
    unknown, untrusted = cpu.CoreType.UNKNOWN, Quality.UNTRUSTED
    clocks: dict[object, float] = {}
    for reading in snapshot.readings(cpu.FREQUENCY):
        if reading.quality is not untrusted:
            kind = types.get(reading.entity, unknown)
            clocks[kind] = max(clocks.get(kind, 0.0), reading.value)
    return {f"cpu_{kind}_clock_hertz": _rounded(hertz, Unit.HERTZ) for kind, hertz in clocks.items()}


# How a run ended


class End(StrEnum):
    """How a run of the agent ended, or that it goes on."""

    CLEAN = "clean"
    AGENT = "agent"
    MACHINE = "machine"
    RUNNING = "running"

    @property
    def is_unclean(self) -> bool:
        """Whether nobody told the agent to end."""
        return self in (End.AGENT, End.MACHINE)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, and the time of its last record in seconds since 1970, if it left any."""

    kind: End
    at: float | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Seconds without a record, by the monotonic clock, after the one at ``after`` (seconds since 1970)."""

    after: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Identity:
    """What a ring is of: the superblock. ``started`` is seconds since 1970, ``interval`` the beat in seconds."""

    boot_id: str
    machine: str
    agent: str
    started: float
    interval: float
    slots: int
    slot_bytes: int

    @property
    def size(self) -> int:
        """The size of the ring's file, in bytes."""
        return _SUPERBLOCKS * _BLOCK + self.slots * self.slot_bytes


@dataclass(frozen=True, slots=True)
class Recording:
    """What a ring holds: whole records, in order; ``damaged`` counts the batches that did not check."""

    path: Path
    identity: Identity
    records: tuple[Record, ...]
    ending: Ending
    gaps: tuple[Gap, ...]
    damaged: int

    def tail(self, seconds: float) -> Self:
        """Return the recording with its last seconds only, by the monotonic clock."""
        records = tuple(record for record in self.records if self.records[-1].clock - record.clock < seconds)
        return replace(self, records=records, gaps=tuple(_gaps(records, self.identity.interval)))


# Reading


def read(path: Path, boot_id: str) -> Recording:
    """Read a ring, also while it is written; ``boot_id`` is that of the machine now. Raises `BlackBoxError`."""
    try:
        return _recording(path, boot_id)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise BlackBoxError(f"{path}: {error}") from error


def _unreadable(path: Path, error: OSError) -> BlackBoxError:
    if isinstance(error, FileNotFoundError):
        return BlackBoxError(f"{path}: no black box; `spark-agent serve` records one")
    if isinstance(error, PermissionError):
        return BlackBoxError(f"{path}: permission denied; it is the daemon's: sudo spark-agent blackbox")
    return BlackBoxError(f"{path}: {error.strerror}")


# The writer may be in the middle of a batch at one look, hardly at three.
_LOOKS: Final = 3


def _recording(path: Path, boot_id: str) -> Recording:
    with path.open("rb") as file:
        is_running = _is_locked(file.fileno())
        for _ in range(_LOOKS):
            file.seek(0)
            content = file.read(_LARGEST_RING)
            identity = _identity(content)
            batches, damaged = _batches(content, identity)
            if not (damaged and is_running):
                break
    records = tuple(record for batch in batches for record in batch.records)
    end = _end(path, identity, batches, boot_id, is_running=is_running)
    last = records[-1].at if records else None
    gaps = tuple(_gaps(records, identity.interval))
    return Recording(path, identity, records, Ending(end, last), gaps, damaged)


@dataclass(frozen=True, slots=True)
class _Batch:
    number: int
    records: tuple[Record, ...]
    is_last: bool


def _end(path: Path, identity: Identity, batches: list[_Batch], boot_id: str, *, is_running: bool) -> End:
    if batches and batches[-1].is_last:
        return End.CLEAN
    if is_running:
        return End.RUNNING
    # A ring that was kept says so in its name: the machine may have been started often since.
    for kind in (End.AGENT, End.MACHINE):
        if path.stem.endswith(f"-{kind}"):
            return kind
    return End.AGENT if identity.boot_id == boot_id else End.MACHINE


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _gaps(records: tuple[Record, ...], interval: float) -> Iterator[Gap]:
    for before, after in pairwise(records):
        # Not the wall's clock, which may have been set in between.
        seconds = after.clock - before.clock
        if seconds > 2.5 * interval:
            yield Gap(before.at, round(seconds, 3))


def _identity(content: bytes) -> Identity:
    """Return the first superblock that checks, or raise `ValueError`."""
    why = ValueError("not a black box")
    for block in range(_SUPERBLOCKS):
        try:
            return _superblock(content[block * _BLOCK : (block + 1) * _BLOCK])
        except ValueError as error:
            why = error
    raise why


def _superblock(block: bytes) -> Identity:
    start = len(_SUPERBLOCK_MAGIC) + _SUPERBLOCK_HEAD.size
    if len(block) < start or not block.startswith(_SUPERBLOCK_MAGIC):
        raise ValueError("not a black box")
    checksum, length = _SUPERBLOCK_HEAD.unpack_from(block, len(_SUPERBLOCK_MAGIC))
    text = block[start : start + length]
    if zlib.crc32(text) != checksum:
        raise ValueError("a damaged black box: its superblock does not check")
    try:
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise ValueError(f"a black box of format {found['format']}, and this agent knows {FORMAT}")
        identity = Identity(
            _text(found["boot_id"]),
            _text(found["machine"]),
            _text(found["agent"]),
            _time(found["started"]),
            _number(found["interval"]),
            operator.index(found["slots"]),
            operator.index(found["slot_bytes"]),
        )
    except _NOT_OURS as error:
        raise ValueError(f"not a black box of this agent: {error!r}") from error
    is_whole = identity.slots > 0 and identity.slot_bytes > 0 and identity.slot_bytes % _BLOCK == 0
    if not is_whole or identity.size > _LARGEST_RING or identity.interval <= 0:
        raise ValueError("a black box of an impossible shape")
    return identity


def _blank(identity: Identity) -> bytes:
    """Return the ring with nothing in it."""
    text = json.dumps({"format": FORMAT} | asdict(identity), ensure_ascii=False).encode()
    superblock = _SUPERBLOCK_MAGIC + _SUPERBLOCK_HEAD.pack(zlib.crc32(text), len(text)) + text
    return (superblock.ljust(_BLOCK, b"\0") * _SUPERBLOCKS).ljust(identity.size, b"\0")


def _batches(content: bytes, identity: Identity) -> tuple[list[_Batch], int]:
    """Return the batches that check, in order, and how many slots hold something else."""
    batches, damaged = [], 0
    for slot in range(identity.slots):
        start = _SUPERBLOCKS * _BLOCK + slot * identity.slot_bytes
        written = content[start : start + identity.slot_bytes]
        try:
            batch = _batch(written)
            if batch.number % identity.slots != slot:
                raise ValueError("a batch of another slot")
            batches.append(batch)
        except ValueError:
            damaged += any(written)
    return sorted(batches, key=lambda batch: batch.number), damaged


def _batch(written: bytes) -> _Batch:
    """Return a whole batch, or raise `ValueError`."""
    if len(written) < _BATCH_PAYLOAD or not written.startswith(_BATCH_MAGIC):
        raise ValueError("no batch")
    (checksum,) = _BATCH_CHECKSUM.unpack_from(written, len(_BATCH_MAGIC))
    number, length, is_last = _BATCH_HEAD.unpack_from(written, len(_BATCH_MAGIC) + _BATCH_CHECKSUM.size)
    end = _BATCH_PAYLOAD + length
    if zlib.crc32(written[len(_BATCH_MAGIC) + _BATCH_CHECKSUM.size : end]) != checksum:
        raise ValueError("its checksum does not match")
    try:
        lines = zlib.decompressobj().decompress(written[_BATCH_PAYLOAD:end], _LARGEST_BATCH)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    return _Batch(number, tuple(_record(line) for line in lines.splitlines()), is_last)


def _record(line: bytes) -> Record:
    """Return the record of one line, or raise `ValueError`."""
    try:
        found = json.loads(line)
        return Record(
            _time(found["at"]),
            _number(found["clock"]),
            {_text(name): _number(value) for name, value in found["readings"].items()},
            {_text(scope): _text(standing) for scope, standing in found.get("verdicts", {}).items()},
            _text(found["finding"]) if "finding" in found else None,
            {_text(name): _number(age) for name, age in found.get("ages", {}).items()},
        )
    except _NOT_OURS as error:
        raise ValueError(f"no record: {error!r}") from error


# What JSON of another shape comes to; the file may be anybody's.
_NOT_OURS: Final = (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)

_YEAR_9999: Final = 253_370_764_800


def _time(value: Any) -> float:
    if not 0 <= _number(value) < _YEAR_9999:
        raise ValueError(f"no time: {value!r}")
    return float(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"no number: {value!r}")
    return value


def _text(value: Any) -> str:
    # It goes to a terminal.
    if not isinstance(value, str) or not value.isprintable() or len(value) > _LONGEST_TEXT:
        raise ValueError("no text for a terminal")
    return value


def kept(folder: Path) -> list[Path]:
    """Return the rings in a folder that did not end cleanly, oldest first."""
    # Not glob, which hides on some versions of Python that it may not look.
    return sorted(path for path in folder.iterdir() if fnmatch(path.name, f"{Path(NAME).stem}-*-*.bin"))


def rings(folder: Path) -> list[Path]:
    """Return the rings that a folder should hold, newest first: the present one, then those of `kept`.

    Raises `BlackBoxError` where nobody may look.
    """
    try:
        return [folder / NAME, *reversed(kept(folder))]
    except OSError as error:
        raise _unreadable(folder / NAME, error) from error


def _of_agent(ring: Path) -> bool:
    return ring.stem.endswith(f"-{End.AGENT}")


# Writing


_line: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class BlackBox:
    """The recorder of one run. Nothing that the drive does is raised: ``fault`` says why nothing is recorded.

    A drive that hangs holds up `append`, `flush` and `close`: call them in a thread that may wait, one at a time.
    That there is one recorder is for the `Store` of the folder to see to.
    """

    def __init__(self, path: Path, identity: Identity, flush_seconds: float) -> None:
        """Use `open`."""
        self.path = path
        self.ending: Ending | None = None
        self.fault: str | None = None
        self._identity = identity
        self._flush_seconds = flush_seconds
        self._file: int | None = None
        self._is_ours = False
        self._number = 0
        # While the drive takes nothing, the newest are kept for when it does.
        self._pending: deque[bytes] = deque(maxlen=math.ceil(flush_seconds / identity.interval))
        self._clock = self._waits_since = self._retry_at = -math.inf

    @classmethod
    def open(
        cls,
        path: Path,
        boot_id: str,
        machine: str,
        now: float,
        *,
        kept_seconds: float = KEPT_SECONDS,
        flush_seconds: float = FLUSH_SECONDS,
        interval: float = BEAT_SECONDS,
    ) -> Self:
        """Begin a ring at a path, and find how the run before it ended (``ending``; None where there was none).

        ``now`` is seconds since 1970, ``interval`` the beat. A ring that did not end cleanly is kept beside it.
        Raises `ValueError` for lengths and names that make no ring.
        """
        if not 0 < interval <= flush_seconds <= kept_seconds < math.inf:
            raise ValueError(f"not beat ≤ flush ≤ length: {interval:g} s, {flush_seconds:g} s, {kept_seconds:g} s")
        # One more, for while a slot is written it holds nothing.
        slots = math.ceil(kept_seconds / flush_seconds) + 1
        slot_bytes = _BLOCK * math.ceil(math.ceil(flush_seconds / interval) / _RECORDS_PER_BLOCK)
        identity = Identity(_text(boot_id), _text(machine), __version__, _time(now), interval, slots, slot_bytes)
        if identity.size > _LARGEST_RING:
            raise ValueError(f"a ring of {identity.size} bytes; the largest has {_LARGEST_RING}")
        box = cls(path, identity, flush_seconds)
        box._begin()
        return box

    def append(self, record: Record) -> None:
        """Record a beat; it is on the drive when its batch is."""
        content: dict[str, Any] = {"at": record.at, "clock": record.clock, "readings": record.readings}
        if record.verdicts:
            content["verdicts"] = record.verdicts
        if record.finding:
            content["finding"] = record.finding
        if record.ages:
            content["ages"] = record.ages
        line = _line(content).encode()
        self._clock = record.clock
        if len(line) > _LARGEST_RECORD:
            log.warning(
                "%s: a record of %d bytes is left out; the largest has %d", self.path, len(line), _LARGEST_RECORD
            )
            return
        if not self._pending:
            self._waits_since = record.clock
        self._pending.append(line)
        # A batch that would be late with the next beat is due now, however few beats came.
        next_beat = record.clock - self._waits_since + self._identity.interval
        if next_beat >= self._flush_seconds or len(self._pending) == self._pending.maxlen:
            self.flush()

    def flush(self) -> None:
        """Write what is pending; during a fault, try so once a minute."""
        if self._pending and self._clock >= self._retry_at:
            self._write(is_last=False)

    def close(self, *, clean: bool = True) -> None:
        """Write what is pending, and where the run ends ``clean`` that it does."""
        if self._pending or clean:
            self._write(is_last=clean)
        self._release()

    def _begin(self) -> None:
        """Open this run's ring; begin it where there is none, and keep the one in its place if that ended badly."""
        try:
            if not self._is_ours:
                self._make_room()
            if not self._is_ours or not self.path.exists():
                write_whole(self.path, _blank(self._identity))
                self._is_ours, self._number = True, 0
            self._file = os.open(self.path, os.O_WRONLY)
            # Tells readers that the run goes on. One that looks just now is in the way, and no harm.
            with suppress(BlockingIOError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._fail(error)

    def _make_room(self) -> None:
        """Find how the run before ended, and take its ring away where it is worth keeping."""
        try:
            self.ending = _recording(self.path, self._identity.boot_id).ending
        except FileNotFoundError:
            return
        except ValueError as error:
            set_aside(self.path, error)
            return
        kind, at = self.ending.kind, self.ending.at
        if kind is End.RUNNING:
            self.ending = None
            raise BlockingIOError(errno.EWOULDBLOCK, "another agent records into it", str(self.path))
        if not kind.is_unclean or at is None:
            return
        while (kept_as := self.path.with_name(_kept_name(at, kind))).exists():
            at += 1
        self.path.rename(kept_as)
        sync_folder(self.path.parent)
        rings = kept(self.path.parent)
        # An agent that is killed again and again must not drive out what was left of a machine that went down.
        surplus = [ring for ring in rings if _of_agent(ring)][:-KEPT_RINGS_OF_AGENT]
        rings = [ring for ring in rings if ring not in surplus]
        for ring in surplus + rings[:-KEPT_RINGS]:
            ring.unlink()

    def _write(self, *, is_last: bool) -> None:
        """Write what is pending as one batch, or as several where it does not fit into a slot."""
        if self._file is None:
            self._begin()
        try:
            self._begin_again_if_removed()
            while self._file is not None and (self._pending or is_last):
                count, payload = _fitting(list(self._pending), self._identity.slot_bytes - _BATCH_PAYLOAD)
                ends = is_last and count == len(self._pending)
                self._put(payload, is_last=ends)
                for _ in range(count):
                    self._pending.popleft()
                if ends:
                    break
        except OSError as error:
            self._fail(error)
        else:
            if self._file is not None and self.fault:
                log.warning("the black box records again: %s", self.path)
                self.fault = None

    def _begin_again_if_removed(self) -> None:
        if self._file is not None and not os.fstat(self._file).st_nlink:
            log.warning("%s: somebody has removed the black box; it begins anew", self.path)
            self._release()
            self._begin()

    def _put(self, payload: bytes, *, is_last: bool) -> None:
        """Put the next batch into its slot, durably."""
        assert self._file is not None  # noqa: S101  (whoever calls has seen to it)
        checked = _BATCH_HEAD.pack(self._number, len(payload), is_last) + payload
        batch = _BATCH_MAGIC + _BATCH_CHECKSUM.pack(zlib.crc32(checked)) + checked
        blocks = batch + bytes(-len(batch) % _BLOCK)
        slot = self._number % self._identity.slots
        if os.pwrite(self._file, blocks, _SUPERBLOCKS * _BLOCK + slot * self._identity.slot_bytes) != len(blocks):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        os.fdatasync(self._file)
        self._number += 1

    def _fail(self, error: OSError) -> None:
        """Stop recording for a minute, and say so once."""
        why = str(failure(self.path, error))
        if self.fault is None:
            log.error("the black box records nothing: %s", why)
        self.fault = why
        self._retry_at = self._clock + RETRY_SECONDS
        self._release()

    def _release(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None


def _fitting(lines: list[bytes], room: int) -> tuple[int, bytes]:
    """Return how many of the first lines fit into a batch, and that batch's payload."""
    count = len(lines)
    while len(payload := zlib.compress(b"\n".join(lines[:count]))) > room:
        count //= 2
    return count, payload


def _kept_name(at: float, kind: End) -> str:
    return f"{Path(NAME).stem}-{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}-{kind}.bin"
