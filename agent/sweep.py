"""What a recording holds beyond what the collectors ask: for later collectors, and for whoever reads a bug report."""

import fnmatch
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Final

from spark_agent.collectors import Host, Unavailable

# What later collectors and whoever reads a bug report may want, besides what today's collectors ask. Only what the
# kernel has at hand: nothing that makes it ask a card's firmware, evaluate ACPI, wake a device or walk a bus.
SWEPT: Final = (
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
    # Of the fan driver it would poll the embedded controller; the thermal collector asks the others.
    r"|cur_state"
)


def swept(host: Host) -> Iterator[str]:
    """Yield every path that a pattern of the sweep names."""

    @cache
    def names(directory: str) -> list[str]:
        with suppress(OSError, Unavailable):
            return [name for name in host.list(directory) if not _NEVER.fullmatch(name)]
        return []

    for pattern in SWEPT:
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
