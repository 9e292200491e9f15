"""What else goes wrong with a Spark: memory, ConnectX-7, PCIe, SSD, heat, fans, driver, and the firmware's table.

Each rule looks at one part, and yields at most one finding of a kind, with all that shows it as evidence. Thresholds
are other tools' or owners', as said beside them; where nobody published one, it says that it is ours.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from spark_agent.agent.budget import Budget, Standing
from spark_agent.agent.finding import Finding, Kind, Severity
from spark_agent.agent.lowpower import gpu_now
from spark_agent.agent.power import Power, Unmeasured
from spark_agent.agent.snapshot import Snapshot, Status
from spark_agent.agent.watch import Key, Watch
from spark_agent.collectors import Quantity, Reason, Scope, cpu, fan, gpu, memory, nic, nvme, platform, spbm
from spark_agent.collectors import thermal as heat

_GIB: Final = 2**30

# --- memory -----------------------------------------------------------------------------------------------------------

MEMORY_LOW: Final = Kind("memory_low", hold_seconds=30.0)
MEMORY_STALLED: Final = Kind("memory_stalled", hold_seconds=30.0)
CMA_LOST: Final = Kind("cma_lost")

#: A diagnosis tool for the Spark warns below 8 GiB, and calls it critical below 4 GiB or with PSI full above 1 %.
MEMORY_WARNING_BYTES: Final = 8 * _GIB
MEMORY_CRITICAL_BYTES: Final = 4 * _GIB
STALLED_RATIO: Final = 0.01
#: How far above a threshold its finding ends. Ours.
_MEMORY_BAND_BYTES: Final = 1 * _GIB


def memory_findings(snapshot: Snapshot, watch: Watch) -> Iterator[Finding]:
    """Yield what is wrong with the memory that CPU and GPU share."""
    if snapshot.fact(memory.UNIFIED) is not True:
        return
    available, total = snapshot.reading(memory.AVAILABLE), snapshot.reading(memory.TOTAL)
    stalled = snapshot.reading(memory.PRESSURE_FULL, "avg10")
    waits = stalled is not None and stalled.value > STALLED_RATIO
    if available and total:
        before = watch.before(MEMORY_LOW.id)
        held, held_critical = before is not None, before is not None and before.severity is Severity.CRITICAL
        is_low = available.value < MEMORY_WARNING_BYTES + _MEMORY_BAND_BYTES * held
        if is_low:
            is_critical = available.value < MEMORY_CRITICAL_BYTES + _MEMORY_BAND_BYTES * held_critical or waits
            yield MEMORY_LOW.found(
                Severity.CRITICAL if is_critical else Severity.WARNING,
                f"memory is running out: {available.value / _GIB:.1f} of {total.value / _GIB:.1f} GiB are available",
                (
                    *_memory_evidence(snapshot),
                    "a Spark that runs out mostly freezes, without the kernel ending any process first",
                ),
                "end or shrink what holds most of it, such as a model, its cache or a copy in progress",
            )
            return
    if stalled and waits:
        yield MEMORY_STALLED.found(
            Severity.WARNING,
            f"all tasks wait for memory {stalled.value:.0%} of the time",
            (
                *_memory_evidence(snapshot),
                "there is memory left, so it may be a container at the limit of its own",
            ),
            "see which container or service is at its limit: memory.pressure in its cgroup",
        )


def _memory_evidence(snapshot: Snapshot) -> Iterator[str]:
    swap, free = snapshot.reading(memory.SWAP_TOTAL), snapshot.reading(memory.SWAP_FREE)
    if swap and free:
        yield f"swap: {free.value / _GIB:.1f} of {swap.value / _GIB:.1f} GiB free" if swap.value else "there is no swap"
    if stalled := snapshot.reading(memory.PRESSURE_FULL, "avg10"):
        yield f"all tasks waited for memory {stalled.value:.1%} of the last 10 s (/proc/pressure/memory full)"
    held = max(snapshot.readings(gpu.PROCESS_MEMORY), key=lambda reading: reading.value, default=None)
    if held:
        names = {fact.entity: fact.value for fact in snapshot.facts(gpu.PROCESS_NAME)}
        pid = held.entity.rpartition("/")[2]
        yield f"most through the GPU: {held.value / _GIB:.1f} GiB, process {pid} ({names.get(held.entity, '?')})"


def lost_memory(snapshot: Snapshot) -> Iterator[Finding]:
    """Yield what the kernel lost of the memory."""
    if snapshot.fact(memory.CMA_LOST) is True:
        lost = snapshot.reading(memory.CMA_LOST_BYTES)
        yield CMA_LOST.found(
            Severity.WARNING,
            f"the kernel keeps {lost.value / _GIB:.1f} GiB of memory for nothing" if lost else "CMA memory is lost",
            ("CmaFree is far above CmaTotal, as on kernels 7.0.0-1018 and -1019 with kexec handover",),
            "boot with kho=off, or another kernel",
        )


# --- ConnectX-7 -------------------------------------------------------------------------------------------------------

TWIN_DOWN: Final = Kind("connectx7_twin_down", for_seconds=15.0)
INCOMPLETE: Final = Kind("connectx7_incomplete", for_seconds=30.0)
MISSING: Final = Kind("connectx7_missing", for_seconds=30.0)
ASLEEP: Final = Kind("connectx7_asleep")


def connectx7(snapshot: Snapshot) -> Iterator[Finding]:
    """Yield what is wrong with a Spark's ConnectX-7, or that it sleeps."""
    links = {fact.entity: fact.value for fact in snapshot.facts(nic.LINK)}
    ports = {fact.entity: fact.value for fact in snapshot.facts(nic.RDMA_STATE)}
    cages = {fact.entity: fact.value for fact in snapshot.facts(nic.CAGE)}
    lone = [
        (fact.entity, str(fact.value), evidence)
        for fact in snapshot.facts(nic.TWIN)
        if (evidence := _alone(fact.entity, str(fact.value), links, ports))
    ]
    if lone:
        yield TWIN_DOWN.found(
            Severity.WARNING,
            "ConnectX-7: one of a cage's two interfaces is down, so half of its 200 Gb/s is missing",
            (f"cage {cages.get(up, '?')}: {evidence}" for up, _, evidence in lone),
            f"`sudo ip link set {lone[0][1]} up` if it was switched off; else see the kernel's log for mlx5_core, and "
            "seat the cable anew",
        )
    state, functions = snapshot.fact(nic.STATE), snapshot.reading(nic.FUNCTIONS)
    if state == "incomplete" and functions:
        yield INCOMPLETE.found(
            Severity.WARNING,
            f"ConnectX-7: {functions.value:.0f} of its four PCI functions are on the bus",
            ("a Spark's card shows four, two for each cage",),
            "shut down and start again; see the kernel's log for pciehp, mlx5_core and AER",
        )
    elif state == "missing":
        yield MISSING.found(
            Severity.INFO,
            "ConnectX-7: not on the bus, and nothing says that it sleeps",
            ("neither the hot-plug marker nor the hot-plug driver is there; some kernels do not enumerate the card",),
            "if it is needed, plug a cable in; if it stays away, boot another kernel",
        )
    elif state == "asleep":
        yield ASLEEP.found(
            Severity.INFO,
            "ConnectX-7: asleep; hot-plug takes it off the bus while no cable is in, no fault",
            ("its four interfaces come back with a cable",),
        )


def _alone(up: str, down: str, links: Mapping[str, object], ports: Mapping[str, object]) -> str:
    """Say how an interface is up without its twin; nothing where it is not."""
    if links.get(up) == "up" and links.get(down) == "down":
        return f"{up} is up, and {down} is down"
    if links.get(up) == links.get(down) == "up" and ports.get(up) == "ACTIVE" and ports.get(down, "ACTIVE") != "ACTIVE":
        return f"the RDMA port of {up} is ACTIVE, and that of {down} is {ports[down]}"
    return ""


# --- PCIe -------------------------------------------------------------------------------------------------------------

PCIE_ERRORS: Final = Kind("pcie_errors")

_PCIE: Final = (("nic", nic.PCIE_ERRORS), ("nvme", nvme.PCIE_ERRORS))
_PCIE_SEVERITIES: Final = {
    "fatal": Severity.CRITICAL,
    "nonfatal": Severity.WARNING,
    "correctable": Severity.INFO,
}


_PCIE_WORDS: Final = {
    "fatal": (
        "PCIe errors that end a link become more",
        "the device may vanish: shut down and start again, and see the kernel's log for AER",
    ),
    "nonfatal": (
        "PCIe errors that lose data become more",
        "see the kernel's log for AER, and seat the device or cable anew",
    ),
    "correctable": (
        "PCIe errors become more, all of them corrected",
        "nothing, as long as they are few; see the kernel's log for AER where they come all the time",
    ),
}


def pcie(snapshot: Snapshot, watch: Watch) -> Iterator[Finding]:
    """Yield that PCIe errors become more. At rest they say nothing: some were there at boot."""
    worst: set[str] = set()
    evidence: list[str] = []
    for collector, of in _PCIE:
        visit = snapshot.visit(collector)
        if visit is None or visit.status is Status.FAILED:
            continue
        risen = watch.rising(f"PCIe {collector}", visit.at, partial(_counts, snapshot, of))
        for (device, severity), count in risen.items():
            worst.add(severity)
            ago = f", the last {watch.at - count.rose:.0f} s ago" if count.rose is not None else ""
            more = f"{count.value - count.base:.0f} more in {watch.at - count.began:.0f} s{ago}"
            evidence.append(f"{device}: {severity} errors: {more} ({count.value:.0f} since boot)")
    for severity, told in _PCIE_SEVERITIES.items():
        if severity in worst:
            title, action = _PCIE_WORDS[severity]
            yield PCIE_ERRORS.found(told, title, evidence, action)
            return


def _counts(snapshot: Snapshot, of: Quantity) -> dict[Key, float]:
    return {(reading.entity, *reading.labels): reading.value for reading in snapshot.readings(of)}


# --- NVMe -------------------------------------------------------------------------------------------------------------

NVME_HOT: Final = Kind("nvme_hot", for_seconds=30.0)
NVME_NOT_LIVE: Final = Kind("nvme_not_live", for_seconds=30.0)

#: How far below its threshold a temperature must fall, in kelvin. Ours.
_COOLER: Final = 3.0


def drives(snapshot: Snapshot, watch: Watch) -> Iterator[Finding]:
    """Yield what is wrong with the NVMe drives. Wear is not: SMART needs root."""
    before = watch.before(NVME_HOT.id)
    band = _COOLER * (before is not None)
    critical_band = _COOLER * (before is not None and before.severity is Severity.CRITICAL)
    limits = {
        of: {(reading.entity, reading.labels): reading.value for reading in snapshot.readings(of)}
        for of in (nvme.TEMPERATURE_MAX, nvme.TEMPERATURE_CRITICAL)
    }
    hot: list[str] = []
    critical = False
    for reading in snapshot.readings(nvme.TEMPERATURE):
        sensor = reading.entity, reading.labels
        most, end = (limits[of].get(sensor) for of in (nvme.TEMPERATURE_MAX, nvme.TEMPERATURE_CRITICAL))
        is_critical = end is not None and reading.value >= end - critical_band
        critical |= is_critical
        limit, words = (end, "it may stop working") if is_critical else (most, "it warns")
        if limit is not None and (is_critical or reading.value >= limit - band):
            hot.append(f"{reading.entity} {reading.labels[0]}: {reading.value:.1f} °C, {words} at {limit:.1f} °C")
    if hot:
        yield NVME_HOT.found(
            Severity.CRITICAL if critical else Severity.WARNING,
            "an NVMe drive is as hot as it warns of, and may slow down to cool",
            hot,
            "give the machine air; see what writes to it so much",
        )
    dead = [f"{fact.entity} is {fact.value}" for fact in snapshot.facts(nvme.STATE) if fact.value != "live"]
    if dead:
        yield NVME_NOT_LIVE.found(
            Severity.CRITICAL if any(line.endswith(" dead") for line in dead) else Severity.WARNING,
            "an NVMe drive does not work",
            dead,
            "see the kernel's log for nvme; save what can still be read",
        )


# --- heat and fans ----------------------------------------------------------------------------------------------------

TOO_HOT: Final = Kind("too_hot", for_seconds=30.0)
FANS_STILL: Final = Kind("fans_still", for_seconds=60.0)
FANS_INFERRED: Final = Kind("fans_probably_still")

#: Below the critical point, 104.85 °C in each zone of a Spark: another tool warns from 93 °C, and at 96 °C a Spark
#: throttles. The second figure is ours.
WARNING_KELVIN: Final = 12.0
CRITICAL_KELVIN: Final = 5.0

#: A Spark idles at 36 to 41 °C, and at 52 to 56 °C where its fans stood still (one owner).
WARM_CELSIUS: Final = 52.0
#: As warm as one under load with its fans on.
HOT_CELSIUS: Final = 70.0
#: Seconds of idling after which a machine that was busy has cooled down. Ours.
COOLED_SECONDS: Final = 600.0
_IDLE_BUSY: Final = 0.05
_IDLE_WATTS: Final = 15.0
_IDLE_LOAD: Final = 2.0

_WARM: Final = "warm though idle"


def temperatures(snapshot: Snapshot, watch: Watch) -> Iterator[Finding]:
    """Yield what comes near the temperature at which it shuts down."""
    if not snapshot.fact(platform.IS_SPARK):
        return  # a PC's processor may well work at its end
    before = watch.before(TOO_HOT.id)
    ends = {reading.entity: reading.value for reading in snapshot.readings(heat.CRITICAL)}
    places = {fact.entity: fact.value for fact in snapshot.facts(heat.PLACE)}
    near: list[str] = []
    least = WARNING_KELVIN + 1
    for reading in snapshot.readings(heat.TEMPERATURE):
        end = ends.get(reading.entity)
        if end is not None and reading.value >= end - WARNING_KELVIN - _COOLER * (before is not None):
            least = min(least, end - reading.value)
            place = places.get(reading.entity, reading.entity)
            near.append(f"{place}: {reading.value:.1f} °C, and {end:.1f} °C is the end")
    if near:
        band = _COOLER * (before is not None and before.severity is Severity.CRITICAL)
        yield TOO_HOT.found(
            Severity.CRITICAL if least <= CRITICAL_KELVIN + band else Severity.WARNING,
            "this machine is near the temperature at which it shuts down",
            near,
            "give it air, or less to do: `sudo nvidia-smi -lgc 0,2100` took one from 91 to 65 °C",
        )


def fans(snapshot: Snapshot, power: Power, watch: Watch) -> Iterator[Finding]:
    """Yield that the fans stand still though it is warm: as their driver says, or as it must be."""
    zones = [reading for reading in snapshot.readings(heat.TEMPERATURE) if reading.entity.startswith("thermal_zone")]
    hottest = max((reading.value for reading in zones), default=None)
    if hottest is None or not snapshot.fact(platform.IS_SPARK):
        return
    speeds = snapshot.readings(fan.SPEED)
    if speeds:
        before = watch.before(FANS_STILL.id)
        band = _COOLER * (before is not None)
        hot_band = _COOLER * (before is not None and before.severity is Severity.WARNING)
        if not any(reading.value for reading in speeds) and hottest >= WARM_CELSIUS - band:
            yield FANS_STILL.found(
                Severity.WARNING if hottest >= HOT_CELSIUS - hot_band else Severity.INFO,
                f"the fans stand still at {hottest:.0f} °C",
                (
                    *(f"{reading.entity}: 0 rpm" for reading in speeds),
                    "firmware is known that stops them without a display or with the ConnectX-7 off",
                ),
                "update the firmware; a display, or a cable in the ConnectX-7, may start them",
            )
        return
    warm = hottest >= WARM_CELSIUS - _COOLER * (watch.ago(_WARM) is not None)
    spell = watch.spell(_WARM, warm and _is_idle(snapshot, power), hottest)
    if spell and spell.seconds >= COOLED_SECONDS:
        yield FANS_INFERRED.found(
            Severity.INFO,
            f"{hottest:.0f} °C though idle: the fans may stand still (inferred: no driver reports their speed)",
            (
                f"{spell.low:.0f} to {spell.high:.0f} °C in {spell.seconds / 60:.0f} min without load",
                "a Spark idles at 36 to 41 °C, and at 52 to 56 °C where its fans stood still (one owner)",
            ),
            "listen; firmware is known that stops them without a display or with the ConnectX-7 off",
        )


def _is_idle(snapshot: Snapshot, power: Power) -> bool:
    now, load = gpu_now(snapshot, power), snapshot.reading(cpu.LOAD1)
    return bool(now and load and now.busy <= _IDLE_BUSY and now.watts <= _IDLE_WATTS and load.value <= _IDLE_LOAD)


# --- the GPU's driver -------------------------------------------------------------------------------------------------

GPU_LOST: Final = Kind("gpu_lost")
DRIVER_MISMATCH: Final = Kind("driver_mismatch")

#: Why the GPU cannot be read, where that is a finding of its own and no failure of the agent's to read it.
OWN_REASONS: Final = (Reason.DEVICE_LOST, Reason.VERSION_MISMATCH)


def driver(snapshot: Snapshot) -> Iterator[Finding]:
    """Yield what is wrong with the GPU or its driver where NVML says so."""
    visit = snapshot.visit("gpu")
    if visit is None or visit.status is not Status.FAILED:
        return
    if visit.reason is Reason.DEVICE_LOST:
        action = "shut down and start again; on a GB10, nvidia-smi -r cannot reset the GPU"
        yield GPU_LOST.found(Severity.CRITICAL, "the GPU is lost", (visit.detail,), action)
    elif visit.reason is Reason.VERSION_MISMATCH:
        yield DRIVER_MISMATCH.found(
            Severity.WARNING,
            "the GPU's driver and its library are of different versions",
            (visit.detail, "no program can begin to use the GPU before the two agree"),
            "reboot: the driver was updated, and the old one is still loaded",
        )


# --- the firmware's power page ----------------------------------------------------------------------------------------

TABLE_TORN: Final = Kind("power_table_torn", for_seconds=10.0)
LIMIT_UNSEEN: Final = Kind("limit_unseen_by_nvml", for_seconds=10.0)

_OF_TABLE: Final = (
    Scope.DC_INPUT,
    Scope.SYSTEM,
    Scope.SOC,
    Scope.CPU_GPU,
    Scope.CPU_PERFORMANCE,
    Scope.CPU_EFFICIENCY,
    Scope.GPU_RAIL,
)
#: Drivers that show all of these; the research reader has five powers of its own choice.
_WHOLE_TABLES: Final = (spbm.V0_1.variant, spbm.V0_2.variant, spbm.V0_3.variant, spbm.OWEN.variant)
#: One channel that fails, or a part and a whole that contradict each other, is not yet a torn table. Ours.
TORN_CHANNELS: Final = 3


def power_table(snapshot: Snapshot, power: Power) -> Iterator[Finding]:
    """Yield that several channels of the firmware's power page are missing or impossible together."""
    visit = snapshot.visit("spbm")
    if visit is None or visit.status is not Status.OK or snapshot.fact(spbm.VARIANT) not in _WHOLE_TABLES:
        return
    gone = [(scope, known) for scope in _OF_TABLE if isinstance(known := power.scopes[scope], Unmeasured)]
    if len(gone) >= TORN_CHANNELS:
        yield TABLE_TORN.found(
            Severity.WARNING,
            f"the firmware's power page is torn: {len(gone)} of {len(_OF_TABLE)} channels are missing or impossible",
            (f"{scope}: {known.detail or known.reason}" for scope, known in gone),
            "trust none of its channels; bring BIOS, embedded controller and driver to versions that go together",
        )


def unseen_limit(snapshot: Snapshot, budget: Budget) -> Iterator[Finding]:
    """Yield that the package is at its limit while NVML shows no reason for the GPU's clock."""
    verdict, reasons = budget.verdicts["soc"], snapshot.fact(gpu.EVENTS)
    if verdict.standing is Standing.AT_LIMIT and isinstance(reasons, tuple) and not reasons:
        yield LIMIT_UNSEEN.found(
            Severity.INFO,
            "the SoC is at its power limit, of which NVML shows nothing",
            (verdict.reason, f"{gpu.EVENTS.source}: none"),
            "do not take NVML's clock-event reasons for a sign that there is power left",
        )
