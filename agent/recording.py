"""Recording a machine: whatever one look asks of it, and a sweep of further files, as an archive that can be replayed.

The collectors are run once on a host whose doors write down every question and its answer, errors too. So a replay
answers what was asked, and a collector needs nothing of its own to be recorded. ``docs/machines.md`` has the format.

What tells one machine from another (`Kind`) is replaced by placeholders of the same shape, the same one wherever the
same thing stands, unless the owner wants it kept. It is learned from the files that are known to hold it.
"""

import errno
import fnmatch
import gzip
import io
import json
import os
import posixpath
import re
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from spark_agent.agent import __version__
from spark_agent.agent.machine import FORMAT
from spark_agent.agent.snapshot import FILE_DEADLINE, look
from spark_agent.collectors import (
    Host,
    Item,
    Nvml,
    NvmlError,
    Origin,
    Reason,
    Unavailable,
    declarations,
    discover,
    reason_of,
)
from spark_agent.collectors._host import Processes, Stuck, Udev
from spark_agent.collectors._tree import Fault, Link, Tree

# What later collectors and whoever reads a bug report may want, besides what today's collectors ask. Only what the
# kernel has at hand: nothing that makes it ask a card's firmware, evaluate ACPI, wake a device or walk a bus.
_SWEPT: Final = (
    "/etc/{dgx-release,fastos-release,hostname,machine-id,nv_tegra_release,os-release}",
    "/etc/nvidia/cx7-hotplug-enabled",
    "/proc/{cmdline,cpuinfo,diskstats,loadavg,meminfo,stat,swaps,uptime,version,version_signature,vmstat}",
    "/proc/driver/nvidia/{params,version}",
    "/proc/pressure/*",
    "/proc/sys/kernel/{arch,domainname,hostname,osrelease,ostype,version,random/boot_id}",
    "/proc/sys/vm/{compaction_proactiveness,min_free_kbytes,nr_hugepages,overcommit_memory,swappiness}",
    "/sys/block/*/{size,ro,removable,stat}",
    "/sys/bus/acpi/devices/*/{hid,path}",
    "/sys/bus/pci/devices/*/{vendor,device,subsystem_vendor,subsystem_device,class,revision,numa_node,driver}",
    "/sys/bus/pci/devices/*/aer_{dev_correctable,dev_nonfatal,dev_fatal}",
    "/sys/bus/usb/devices/[0-9]*-*/{idVendor,idProduct,bDeviceClass,bMaxPower,speed,driver}",
    "/sys/class/dmi/id/*",
    "/sys/class/hwmon/*/*",
    "/sys/class/infiniband/*/{board_id,fw_ver,hca_type,hw_rev,node_desc,node_guid,node_type,sys_image_guid}",
    "/sys/class/infiniband/*/ports/*/{link_layer,phys_state,rate,state}",
    "/sys/class/infiniband/*/ports/*/{counters,hw_counters}/*",
    "/sys/class/net/*/{address,addr_assign_type,carrier,carrier_changes,carrier_down_count,carrier_up_count}",
    "/sys/class/net/*/{dev_port,device,flags,ifindex,iflink,mtu,operstate,phy80211,tx_queue_len,type}",
    "/sys/class/net/*/statistics/*",
    "/sys/class/nvme/*/{address,cntlid,device,firmware_rev,model,numa_node,queue_count,serial,state,transport}",
    "/sys/class/nvme/*/{subsysnqn,nvme*n*/eui,nvme*n*/nguid,nvme*n*/uuid,nvme*n*/wwid}",
    "/sys/class/power_supply/*/*",
    "/sys/class/powercap/*/*",
    "/sys/class/thermal/*/*",
    "/sys/class/typec/*/*",
    "/sys/class/usb_power_delivery/*/*",
    "/sys/class/usb_power_delivery/*/{source,sink}-capabilities/*/*",
    "/sys/devices/soc0/{family,machine,revision,soc_id}",
    "/sys/devices/system/cpu/{isolated,kernel_max,offline,online,possible,present}",
    "/sys/devices/system/cpu/cpu[0-9]*/{cpu_capacity,cpufreq,topology/*_list,topology/*_id}",
    "/sys/devices/system/cpu/cpu[0-9]*/cache/index*/{level,shared_cpu_list,size,type}",
    "/sys/devices/system/cpu/cpu[0-9]*/cpuidle/state*/{name,disable,latency,time,usage}",
    "/sys/devices/system/cpu/cpufreq/policy*/{affected_cpus,cpuinfo_max_freq,cpuinfo_min_freq,scaling_*}",
    "/sys/devices/system/edac/mc/mc*/{mc_name,size_mb,ce_count,ue_count}",
    "/sys/devices/system/node/{online,node*/cpulist,node*/meminfo}",
    "/sys/firmware/acpi/pm_profile",
    "/sys/firmware/efi/esrt/entries/*/{fw_class,fw_type,fw_version,last_attempt_status,last_attempt_version}",
    "/sys/kernel/mm/hugepages/*/{free_hugepages,nr_hugepages,resv_hugepages,surplus_hugepages}",
    "/sys/kernel/mm/transparent_hugepage/{defrag,enabled}",
    "/sys/module/*/version",
)
# Never read, whatever stands there: switches that act, events, and what only root may wake.
_NEVER: Final = re.compile(
    r"uevent|power|remove|rescan|reset|reset_.*|.*_reset_history|(?:un)?bind|new_id|remove_id|trigger|emul_temp"
    r"|(?:delete|rescan|reset|shutdown)_controller|config|rom|vpd|resource.*|.*_override|flush"
)
# Seconds; less than a look gives a collector, so that it is never cut off in the middle of a file.
_SWEEP_DEADLINE: Final = 15.0
_MOST_OF_A_FILE: Final = 1024 * 1024
# An archive may hold 50 000 files when it is opened.
_MOST_FILES: Final = 20_000
_MOST_BYTES: Final = 32 * 1024 * 1024

_MOST_LINKS: Final = 40
_EXAMPLES: Final = 3

Answer = TypeVar("Answer")
Member = bytes | Link | None  # None is an empty directory
Node = Member | Fault


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded machine: the members of its archive, and what was read and what was not."""

    members: Mapping[str, Member]
    files: tuple[str, ...]
    unreadable: Mapping[Reason, tuple[str, ...]]
    is_whole: bool
    nvml: str
    redacted: "Mapping[Kind, int] | None"

    def archive(self) -> bytes:
        """Return the ``.tar.gz``; the same recording gives the same bytes, which tell nothing of who made them."""
        packed = io.BytesIO()
        with (
            gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as compressed,
            tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            for name, member in sorted(self.members.items()):
                info = tarfile.TarInfo(name)
                if isinstance(member, bytes):
                    info.size = len(member)
                    tar.addfile(info, io.BytesIO(member))
                elif member is None:
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(info)
                else:
                    info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, member.to
                    tar.addfile(info)
        return packed.getvalue()

    def write(self, out: Path) -> None:
        """Write the archive, whole or not at all, for its owner alone to read."""
        content = self.archive()
        file, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
        unfinished = Path(name)
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(content)
                stream.flush()
                # Some file systems notice only now that they are full.
                os.fsync(stream.fileno())
            unfinished.replace(out)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def summary(self, out: Path) -> str:
        """Say for the terminal what was written, what could not be read, and what was replaced."""
        size = out.stat().st_size
        lines = [f"{out}: {size / 1000:.0f} kB, {len(self.files)} files", *self._unread(_EXAMPLES)]
        lines += [f"NVML: {self.nvml}", self._redacted()]
        lines += ["Look through it before you post it: manifest.txt in it lists everything that is there."]
        return "\n".join(lines)

    def manifest(self) -> str:
        """List everything that was read and that was not."""
        lines = ["What this recording holds. Directories that are empty here were seen and not looked into.", ""]
        lines += [f"NVML: {self.nvml}", self._redacted(), *self._unread(None), "", f"read: {len(self.files)}"]
        return "\n".join([*lines, *(f"  {path}" for path in self.files), ""])

    def _redacted(self) -> str:
        if self.redacted is None:
            return "nothing was redacted: it holds serial numbers, MAC addresses, host names and UUIDs"
        counts = ", ".join(f"{kind.value} {count}" for kind, count in self.redacted.items() if count)
        return f"redacted: {counts or 'nothing, for nothing of the kind was found'}"

    def _unread(self, most: int | None) -> Iterator[str]:
        """Yield a line for each reason, and up to so many paths that it befell."""
        if not self.is_whole:
            yield "it ends early: there were more files, or slower ones, than a recording takes"
        yield f"not readable: {sum(map(len, self.unreadable.values()))}"
        for reason, paths in self.unreadable.items():
            if most is None:
                yield f"  {reason.value}: {len(paths)}"
                yield from (f"    {path}" for path in paths)
            else:
                yield f"  {reason.value}: {len(paths)}: {', '.join(paths[:most])}{', …' if len(paths) > most else ''}"


def record(host: Host, *, private: bool = False, file_deadline: float = FILE_DEADLINE) -> Recording:
    """Look at a machine once, and return all that was asked and answered; ``private`` keeps what is redacted else."""
    tree, nvml = RecordingTree(host.tree), RecordingNvml(host.nvml)
    udev, processes = RecordingUdev(host.udev), RecordingProcesses(host.processes)
    sweep = Sweep(tree)
    watched = replace(host, tree=tree, nvml=nvml, udev=udev, processes=processes, stuck=Stuck())
    look(watched, {**discover(), "sweep": sweep}, file_deadline)

    asked, calls, devices, identity = tree.asked.copy(), nvml.content(), udev.content(), _identity(watched)
    # A name that does not print is no kernel's, and is refused when a machine is opened.
    nodes = {path: node for path, node in sorted((processes.nodes() | tree.nodes()).items()) if path.isprintable()}
    redaction = None if private else Redaction()
    if redaction:
        redaction.learn({asked.get(path, path): node for path, node in nodes.items()}, calls, devices)
        nodes = {redaction.text(path): redaction.node(asked.get(path, path), node) for path, node in nodes.items()}
        asked = {redaction.text(here): redaction.text(path) for here, path in asked.items()}
        calls, devices, identity = (redaction.value(value) for value in (calls, devices, identity))
    faults = {path: node for path, node in nodes.items() if isinstance(node, Fault)}
    members: dict[str, Member] = {f"root{path}": node for path, node in nodes.items() if not isinstance(node, Fault)}
    members["machine.json"] = _json(identity | {"redacted": not private})
    members["errors.json"] = _json({path[1:]: fault.name for path, fault in faults.items()})
    members["udev.json"] = _json(devices)
    if calls is not None:
        members["nvml.json"] = _json(calls)
    unreadable: dict[Reason, list[str]] = {}
    for path, fault in faults.items():
        unreadable.setdefault(_reason(fault), []).append(asked.get(path, path))
    found = Recording(
        members,
        files=tuple(asked.get(path, path) for path, node in nodes.items() if isinstance(node, bytes)),
        unreadable={reason: tuple(paths) for reason, paths in sorted(unreadable.items())},
        is_whole=sweep.is_whole,
        nvml=nvml.summary(),
        redacted=redaction.counts() if redaction else None,
    )
    return replace(found, members=members | {"manifest.txt": found.manifest().encode(errors="replace")})


def _identity(host: Host) -> dict[str, Any]:
    """Return what machine.json says; of a replayed machine, what it said there."""
    name, origin = host.name, host.origin
    if origin is Origin.LIVE:
        product = ""
        with suppress(OSError, Unavailable):
            product = " ".join(host.text("/sys/class/dmi/id/product_name").split())
        name, origin = f"recorded {product if product.isprintable() and product else 'machine'}", Origin.RECORDED
    return {
        "format": FORMAT,
        "name": name,
        "origin": origin.value,
        "note": host.note,
        "recorded_at": datetime.fromtimestamp(host.now(), UTC).isoformat(timespec="seconds"),
        "agent": __version__,
    }


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode(errors="replace") + b"\n"


def _reason(fault: Fault) -> Reason:
    return Reason.TIMEOUT if fault.name == "HANG" else reason_of(OSError(getattr(errno, fault.name), ""))


class RecordingTree:
    """A tree that notes what was asked of another one, by real paths, and the links that lead there.

    Of two answers to one question the first counts: it is what the collectors saw.
    """

    def __init__(self, tree: Tree) -> None:
        """Note nothing yet."""
        self.asked: dict[str, str] = {}
        self._tree = tree
        self._answers: dict[str, bytes | Fault] = {}
        self._present: set[str] = set()
        self._links: dict[str, str | None] = {}
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether there is as much as a recording should hold."""
        return self._bytes > _MOST_BYTES or len(self._answers) + len(self._present) > _MOST_FILES

    def knows(self, path: str) -> bool:
        """Whether a file was asked for before."""
        return self._real(path) in self._answers

    def read(self, path: str) -> bytes:
        """Return the whole content of one file."""
        return self._ask(self._tree.read, path)

    def list(self, path: str) -> list[str]:
        """Return the names in one directory; each is there on replay, also where nobody looks what it is."""
        names = self._ask(self._tree.list, path)
        here = self._real(path).rstrip("/")
        for name in names:
            if self._link(f"{here}/{name}") is None:
                self._present.add(f"{here}/{name}")
        self._present.add(here or "/")
        return names

    def link(self, path: str) -> str:
        """Return the text of one symbolic link."""
        try:
            text = self._tree.link(path)
        except OSError as error:
            self._note_no_link(path, error)
            raise
        self._real(path)
        return text

    def real(self, path: str) -> str:
        """Return the path with every link in it followed."""
        try:
            real = self._tree.real(path)
        except OSError as error:
            self._note_no_link(path, error)
            raise
        self._present.add(self._real(path))
        return real

    def exists(self, path: str) -> bool:
        """Whether the path leads to something."""
        found = self._tree.exists(path)
        if found:
            self._present.add(self._real(path))
        return found

    def nodes(self) -> dict[str, Node]:
        """Return every file, fault, link and empty directory."""
        nodes: dict[str, Node] = dict.fromkeys(self._present.copy())
        nodes |= {path: Link(to) for path, to in self._links.copy().items() if to is not None}
        nodes |= self._answers.copy()
        above = {parent for path in nodes for parent in _parents(path)}
        # Nothing can be below a file, and what is below a fault cannot be reached.
        leaves = {path for path, node in nodes.items() if node is not None}
        return {
            path: node
            for path, node in nodes.items()
            if path != "/" and (node is not None or path not in above) and not leaves.intersection(_parents(path))
        }

    def _ask(self, question: Callable[[str], Answer], path: str) -> Answer:
        here = self._real(path)
        if here in self._answers:
            return question(path)
        self.asked[here] = path
        # What stays like this never answered.
        self._answers[here] = Fault("HANG")
        noted: bytes | Fault | None = None
        try:
            answer = question(path)
            if isinstance(answer, bytes):
                self._bytes += len(answer)
                noted = answer if len(answer) <= _MOST_OF_A_FILE else Fault("EFBIG")
            return answer
        except OSError as error:
            noted = self._fault(path, here, error)
            raise
        finally:
            if noted is None:
                del self._answers[here]
            else:
                self._answers[here] = noted

    def _note_no_link(self, path: str, error: OSError) -> None:
        here = self._real(path)
        if self._tree.exists(path):
            self._present.add(here)
        elif fault := self._fault(path, here, error):
            self._answers.setdefault(here, fault)

    def _fault(self, path: str, here: str, error: OSError) -> Fault | None:
        """Return what a file answers with; nothing where there is none, it is a directory, or one above is at fault."""
        # Drivers leak numbers of the kernel's own, such as 524, which have no name out here.
        fault = Fault(errno.errorcode.get(error.errno or 0, "EIO"))
        if self._tree.exists(path):
            if not isinstance(error, IsADirectoryError | NotADirectoryError):
                return fault
            self._present.add(here)
            return None
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        closed = next((above for above in _parents(here) if self._tree.exists(above)), "")
        if closed and self._refuses(closed, error):
            self._answers.setdefault(closed, fault)
            return None
        return fault

    def _refuses(self, directory: str, why: OSError) -> bool:
        try:
            self._tree.list(directory)
        except OSError as error:
            return error.errno == why.errno
        return False

    def _real(self, path: str) -> str:
        """Return the path with every link in it followed, so far as there are any, and note those."""
        todo = path.split("/")[::-1]
        real = ""
        links = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                real = posixpath.dirname(real).rstrip("/")
                continue
            to = self._link(f"{real}/{part}")
            if to is None or links >= _MOST_LINKS:
                real = f"{real}/{part}"
            else:
                links += 1
                todo += to.split("/")[::-1]
        return real or "/"

    def _link(self, here: str) -> str | None:
        """Return where a link leads from its directory, itself a real path; nothing where it is none."""
        if here not in self._links:
            try:
                self._links[here] = _inside(here, self._tree.link(here))
            except OSError:
                self._links[here] = None
            if self._links[here] is not None and self._tree.exists(here):
                self._present.add(self._real(here))
        return self._links[here]


def _parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, without the root."""
    while (path := posixpath.dirname(path)) not in ("/", ""):
        yield path


def _inside(here: str, to: str) -> str:
    """Return a link's text so that it leads to the same place, by the same name, wherever the root is."""
    above = posixpath.dirname(here)
    if not to.startswith("/"):
        if posixpath.normpath(f"root{above}/{to}").split("/")[0] == "root":
            return to
        to = posixpath.normpath(f"{above}/{to}")
    return "../" * (here.count("/") - 1) + to.lstrip("/")


class RecordingNvml(Nvml):
    """A funnel that notes what was asked of another one."""

    def __init__(self, nvml: Nvml) -> None:
        """Note nothing yet."""
        self._nvml = nvml
        self._init: Any = None
        self._calls: dict[int | None, dict[str, Any]] = {}
        self._outcomes: dict[tuple[object, ...], str] = {}

    def call(self, function: str, device: int | None = None, *arguments: str) -> Any:
        """Call one NVML function and return what it says, or raise `NvmlError`."""
        try:
            answer = self._nvml.call(function, device, *arguments)
        except NvmlError as error:
            failed = {"hang": True} if error.code == "TIMEOUT" else {"error": error.code}
            at_fault = error.function.partition(":")[0]
            if at_fault == "nvmlInit":
                self._init = self._init or failed.get("error", failed)
            elif at_fault == function:
                self._note(function, device, arguments, failed, error.code)
            # Else it was not called: another call has lost the driver, and will lose it again on replay.
            raise
        self._note(function, device, arguments, answer)
        return answer

    def _note(
        self, function: str, device: int | None, arguments: tuple[str, ...], answer: Any, failure: str = ""
    ) -> None:
        """Keep an answer in the shape of nvml.json, unless there is an earlier one."""
        self._init = self._init or "SUCCESS"
        self._outcomes.setdefault((function, device, *arguments), failure)
        calls = self._calls.setdefault(device, {})
        if function == "nvmlDeviceGetFieldValues":
            calls["fields"] = {name: _finite(value) for name, value in answer.items()} | calls.get("fields", {})
        elif arguments:
            calls.setdefault(function, {}).setdefault(arguments[0], _finite(answer))
        else:
            calls.setdefault(function, _finite(answer))

    def content(self) -> dict[str, Any] | None:
        """Return what nvml.json says; nothing where there is no library."""
        if self._init in (None, "LIBRARY_NOT_FOUND"):
            return None
        asked = max((device + 1 for device in self._calls if device is not None), default=0)
        devices = [self._calls.get(device, {}) for device in range(asked)]
        return {"init": self._init, "system": self._calls.get(None, {}), "devices": devices}

    def summary(self) -> str:
        """Say in one line how NVML fared."""
        content = self.content()
        if content is None:
            return "no library (libnvidia-ml.so.1)"
        if content["init"] != "SUCCESS":
            return f"does not start: {'TIMEOUT' if isinstance(content['init'], dict) else content['init']}"
        failures = Counter(filter(None, self._outcomes.values()))
        said = [f"devices {len(content['devices'])}", f"answers {len(self._outcomes) - failures.total()}"]
        return ", ".join(said + [f"{code} {count}" for code, count in sorted(failures.items())])


def _finite(answer: Any) -> Any:
    """Return an answer of NVML's as JSON can hold it."""
    try:
        json.dumps(answer, allow_nan=False)
    except (TypeError, ValueError):
        return {"error": "GARBAGE"}
    return answer


class RecordingUdev:
    """A device database that notes what was asked of another one."""

    def __init__(self, udev: Udev) -> None:
        """Note nothing yet."""
        self._udev = udev
        self._found: dict[str, Mapping[str, str]] = {}

    def properties(self, sys_path: str) -> Mapping[str, str]:
        """Return what udev knows of a device."""
        found = self._udev.properties(sys_path)
        if found:
            self._found.setdefault(sys_path, found)
        return found

    def content(self) -> list[dict[str, Any]]:
        """Return what udev.json says."""
        return [
            {"subsystem": found.get("SUBSYSTEM", ""), "sys_path": path, "properties": dict(sorted(found.items()))}
            for path, found in sorted(self._found.copy().items())
        ]


class RecordingProcesses:
    """Processes that note whose name was asked."""

    def __init__(self, processes: Processes) -> None:
        """Note nothing yet."""
        self._processes = processes
        self._names: dict[int, str] = {}

    def name(self, pid: int) -> str:
        """Return the command name of one process, or raise `Unavailable`."""
        name = self._processes.name(pid)
        self._names.setdefault(pid, name)
        return name

    def nodes(self) -> dict[str, Node]:
        """Return the file that replaying asks for each name."""
        return {
            f"/proc/{pid}/comm": f"{name}\n".encode(errors="surrogateescape")
            for pid, name in self._names.copy().items()
        }


class Sweep:
    """A collector that yields nothing, and reads what is of use beyond what the others ask."""

    def __init__(self, tree: RecordingTree) -> None:
        """Read nothing yet."""
        self._tree = tree
        self._until: float | None = None
        self.is_whole = False

    def __call__(self, host: Host) -> Iterable[Item]:
        """Read what stands in `_SWEPT`. A look that finds a file hanging calls again, and this reads the rest."""
        self._until = self._until or time.monotonic() + _SWEEP_DEADLINE
        for path in _swept(host):
            if self._tree.is_full or time.monotonic() > self._until:
                return ()
            if not self._tree.knows(path):
                with suppress(OSError, Unavailable):
                    _take(host, path)
        self.is_whole = True
        return ()


def _take(host: Host, path: str) -> None:
    if host.exists(path):
        try:
            host.link(path)
        except OSError:
            host.content(path)


def _swept(host: Host) -> Iterator[str]:
    """Yield every path that a pattern of the sweep names."""

    @cache
    def names(directory: str) -> list[str]:
        with suppress(OSError, Unavailable):
            return [name for name in host.list(directory) if not _NEVER.fullmatch(name)]
        return []

    for pattern in _SWEPT:
        for one in _alternatives(pattern):
            paths = [""]
            for part in one.split("/")[1:]:
                if "*" in part:
                    paths = [f"{path}/{name}" for path in paths for name in fnmatch.filter(names(path), part)]
                else:
                    paths = [f"{path}/{part}" for path in paths]
            yield from paths


def _alternatives(pattern: str) -> Iterator[str]:
    """Yield what ``a{b,c}`` stands for: ``ab`` and ``ac``."""
    before, brace, rest = pattern.partition("{")
    if not brace:
        yield pattern
        return
    choices, _, after = rest.partition("}")
    for choice in choices.split(","):
        yield from _alternatives(f"{before}{choice}{after}")


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
    words = re.findall(r"[0-9A-Za-z]+", " ".join((*_SWEPT, *declared)).lower())
    return frozenset(words) | _COMMON_NAMES
