"""Network interfaces, the ConnectX-7's cages and twins, and the card that sleeps."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hosts import absence, host, look, value
from hypothesis import given
from hypothesis import strategies as st

from spark_agent.collectors import (
    Absence,
    Fact,
    Host,
    Kind,
    NoData,
    Property,
    Quantity,
    Reading,
    Reason,
    Unavailable,
    nic,
)
from spark_agent.collectors.nic import (
    parse_duplex,
    parse_operstate,
    parse_port_counter,
    parse_port_state,
    parse_rate,
    parse_speed,
    parse_switch,
)

DMI = "/sys/class/dmi/id/product_family"
HOTPLUG = "/sys/bus/platform/devices/MTKP0001:00/pcie_hotplug"
MARKER = "/etc/nvidia/cx7-hotplug-enabled"

# Interface, PCI address, RDMA device: facts/hardware.md 5.1 and 5.2.
CONNECTX7 = (
    ("enp1s0f0np0", "0000:01:00.0", "rocep1s0f0"),
    ("enp1s0f1np1", "0000:01:00.1", "rocep1s0f1"),
    ("enP2p1s0f0np0", "0002:01:00.0", "roceP2p1s0f0"),
    ("enP2p1s0f1np1", "0002:01:00.1", "roceP2p1s0f1"),
)
REALTEK = ("enP7s7", "0007:01:00.0")
MEDIATEK = ("wlP9s9", "0009:01:00.0")


class Machine:
    """The files and links of a machine, filled device by device as sysfs lays them out."""

    def __init__(self, files: Mapping[str, str] | None = None) -> None:
        self.files: dict[str, str] = dict(files or {})
        self.links: dict[str, str] = {}
        self.udev: dict[str, dict[str, str]] = {}

    def build(self, *, errors: Mapping[str, str] | None = None, **changes: str) -> Host:
        """Return the machine, with other content in every file of a name, and faults at paths."""
        files = {
            path: next((text for name, text in changes.items() if path.endswith(f"/{name}")), text)
            for path, text in self.files.items()
        }
        return host(files, links=self.links, errors=errors, udev=self.udev)

    def device(self, path: str, name: str, driver: str, files: Mapping[str, str]) -> None:
        """Add a device that carries one interface, which has a link."""
        net = f"{path}/net/{name}"
        self.links |= {f"/sys/class/net/{name}": net, f"{net}/device": path, f"{path}/driver": f"/sys/bus/x/{driver}"}
        self.files |= {f"{path}/{file}": text for file, text in files.items()}
        self.files |= {
            f"/sys/bus/x/{driver}/uevent": "",
            f"{net}/operstate": "up\n",
            f"{net}/carrier": "1\n",
            f"{net}/speed": "200000\n",
            f"{net}/duplex": "full\n",
            f"{net}/mtu": "1500\n",
            f"{net}/address": "4c:bb:47:00:00:01\n",
            f"{net}/carrier_changes": "3\n",
            **{
                f"{net}/statistics/{way}_{what}": f"{number}\n"
                for way, start in (("rx", 1000), ("tx", 2000))
                for number, what in enumerate(("bytes", "packets", "errors", "dropped"), start)
            },
        }

    def pci(self, name: str, address: str, driver: str, pci_id: str, speed: str = "32.0", lanes: int = 4) -> str:
        """Add a PCI function with one interface; return its path."""
        domain = address.partition(":")[0]
        path = f"/sys/devices/pci{domain}:00/{domain}:00:00.0/{address}"
        vendor, device = pci_id.split(":")
        self.links[f"/sys/bus/pci/devices/{address}"] = path
        self.device(
            path,
            name,
            driver,
            {
                "vendor": f"0x{vendor}\n",
                "device": f"0x{device}\n",
                "current_link_speed": f"{speed} GT/s PCIe\n",
                "current_link_width": f"{lanes}\n",
                "max_link_speed": f"{speed} GT/s PCIe\n",
                "max_link_width": f"{lanes}\n",
                "aer_dev_correctable": "Receiver Error 2\nBad TLP 1\nTOTAL_ERR_COR 3\n",
                "aer_dev_nonfatal": "Undefined 0\nTOTAL_ERR_NONFATAL 0\n",
                "aer_dev_fatal": "Undefined 0\nTOTAL_ERR_FATAL 0\n",
            },
        )
        return path

    def connectx7(self, name: str, address: str, rdma: str) -> None:
        """Add one function of a ConnectX-7 whose cage has a cable."""
        path = f"{self.pci(name, address, 'mlx5_core', '15b3:1021')}/infiniband/{rdma}"
        self.links[f"/sys/class/infiniband/{rdma}"] = path
        self.files |= {
            f"{path}/fw_ver": "28.45.4028\n",
            f"{path}/ports/1/state": "4: ACTIVE\n",
            f"{path}/ports/1/phys_state": "5: LinkUp\n",
            f"{path}/ports/1/rate": "200 Gb/sec (2X NDR)\n",
            **{
                f"{path}/ports/1/counters/{counter}": f"{number}\n"
                for counter, number in {
                    "port_rcv_data": 36_500_000,
                    "port_xmit_data": 169_500_000,
                    "port_rcv_packets": 11,
                    "port_xmit_packets": 12,
                    "symbol_error": 0,
                    "link_downed": 1,
                    "port_rcv_errors": 2,
                    "port_xmit_discards": 3,
                }.items()
            },
        }
        self.udev[path.partition("/infiniband")[0]] = {
            "ID_VENDOR_FROM_DATABASE": "Mellanox Technologies",
            "ID_MODEL_FROM_DATABASE": "MT2910 Family [ConnectX-7]",
        }

    def realtek(self) -> None:
        """Add the 10 GbE port."""
        path = self.pci(*REALTEK, "r8127", "10ec:8127", speed="16.0", lanes=1)
        self.files |= {f"{path}/net/enP7s7/speed": "10000\n", "/sys/module/r8127/version": "11.014.00\n"}
        self.links["/sys/bus/x/r8127/module"] = "/sys/module/r8127"

    def mediatek(self) -> None:
        """Add the Wi-Fi card, associated."""
        path = self.pci(*MEDIATEK, "mt7925e", "14c3:7925", speed="5.0", lanes=1)
        self.files[f"{path}/ieee80211/phy0/index"] = "0\n"
        self.links[f"{path}/net/wlP9s9/phy80211"] = f"{path}/ieee80211/phy0"


def spark(*, connectx7: int = 4) -> Machine:
    """Return a Founders Edition's interfaces, with this many functions of its ConnectX-7 on the bus."""
    machine = Machine({DMI: "DGX Spark\n", "/sys/class/net/lo/operstate": "unknown\n"})
    for name, address, rdma in CONNECTX7[:connectx7]:
        machine.connectx7(name, address, rdma)
    machine.realtek()
    machine.mediatek()
    return machine


def net(name: str, file: str) -> str:
    """Return the path of an interface's file, as it is asked for."""
    return f"/sys/class/net/{name}/{file}"


class TestInterfaces:
    """Which interfaces there are, and what they are."""

    def test_only_devices(self) -> None:
        """What software makes (lo, docker0, veth, wg0) has no device and is no interface of the machine."""
        machine = spark()
        for name in ("docker0", "veth1a2b3c", "wg0"):
            machine.files[net(name, "operstate")] = "up\n"
        items = look(nic.read, machine.build())
        expected = {"enp1s0f0np0", "enp1s0f1np1", "enP2p1s0f0np0", "enP2p1s0f1np1", "enP7s7", "wlP9s9"}
        assert expected == {item.entity for item in items if item.of.section is nic.NICS}

    @pytest.mark.parametrize(
        ("name", "kind", "driver", "pci", "pci_id"),
        [
            ("enP2p1s0f1np1", "connectx7", "mlx5_core", "0002:01:00.1", "15b3:1021"),
            ("enP7s7", "ethernet", "r8127", "0007:01:00.0", "10ec:8127"),
            ("wlP9s9", "wifi", "mt7925e", "0009:01:00.0", "14c3:7925"),
        ],
    )
    def test_identity(self, name: str, kind: str, driver: str, pci: str, pci_id: str) -> None:
        """A Spark's interfaces are told apart by their PCI id and by having a radio."""
        items = look(nic.read, spark().build())
        found = [value(items, of, name) for of in (nic.KIND, nic.DRIVER, nic.PCI, nic.PCI_ID)]
        assert [kind, driver, pci, pci_id] == found

    def test_usb(self) -> None:
        """An adapter on USB is usb, and says nothing about PCI although its controller sits there."""
        machine = Machine()
        machine.device(
            "/sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0", "enx001122", "r8152", {"bInterfaceClass": "ff"}
        )
        items = look(nic.read, machine.build())
        assert "usb" == value(items, nic.KIND, "enx001122")
        assert not [item for item in items if item.of in (nic.PCI, nic.PCI_ID, nic.PCIE_LINK, nic.PCIE_ERRORS)]

    def test_paravirtual(self) -> None:
        """A virtual machine's virtio interface has a device, sits on PCI and is neither wired nor PCI itself."""
        machine = Machine()
        machine.device("/sys/devices/pci0000:00/0000:00:03.0/virtio2", "eth0", "virtio_net", {"vendor": "0x1af4"})
        items = look(nic.read, machine.build(speed="-1\n", duplex="unknown\n"))
        assert "other" == value(items, nic.KIND, "eth0")
        assert Reason.NO_DATA is absence(items, nic.SPEED, "eth0").reason
        assert Reason.NO_DATA is absence(items, nic.DUPLEX, "eth0").reason
        assert not [item for item in items if item.of is nic.PCI]

    def test_another_function_of_mellanox(self) -> None:
        """A Mellanox card that is no ConnectX-7, as a virtual function of one, is plain ethernet."""
        machine = Machine({DMI: "DGX Spark"})
        machine.pci("enp1s0f0v0", "0000:01:00.2", "mlx5_core", "15b3:101e")
        items = look(nic.read, machine.build())
        assert "ethernet" == value(items, nic.KIND, "enp1s0f0v0")
        assert 0 == value(items, nic.FUNCTIONS)
        assert not [item for item in items if item.of is nic.CAGE]

    def test_unreadable_id(self) -> None:
        """Where the PCI id cannot be read, kind and id are absent with the reason and the rest stands."""
        machine = spark(connectx7=0)
        path = "/sys/devices/pci0007:00/0007:00:00.0/0007:01:00.0/vendor"
        items = look(nic.read, machine.build(errors={path: "EACCES"}))
        assert Reason.PERMISSION_DENIED is absence(items, nic.KIND, "enP7s7").reason
        assert Reason.PERMISSION_DENIED is absence(items, nic.PCI_ID, "enP7s7").reason
        assert 10e9 == value(items, nic.SPEED, "enP7s7")

    def test_driver_version(self) -> None:
        """A vendor's driver has a version; one of the kernel has none, and that is no fault."""
        items = look(nic.read, spark().build())
        assert "11.014.00" == value(items, nic.DRIVER_VERSION, "enP7s7")
        assert not absence(items, nic.DRIVER_VERSION, "wlP9s9").reason.is_fault

    def test_name_from_udev(self) -> None:
        """The card's name comes from udev, by its real path; what udev does not name is absent."""
        items = look(nic.read, spark().build())
        assert "Mellanox Technologies MT2910 Family [ConnectX-7]" == value(items, nic.PCI_NAME, "enp1s0f0np0")
        assert Reason.NO_DATA is absence(items, nic.PCI_NAME, "enP7s7").reason

    def test_firmware(self) -> None:
        """A ConnectX tells its firmware through RDMA; another card's takes an ioctl, and the absence says so."""
        items = look(nic.read, spark().build())
        assert "28.45.4028" == value(items, nic.FIRMWARE, "enp1s0f0np0")
        missing = absence(items, nic.FIRMWARE, "enP7s7")
        assert Reason.NOT_SUPPORTED is missing.reason
        assert "ioctl" in missing.detail

    def test_mac_is_private(self) -> None:
        """A MAC names one machine, so it is read and marked private."""
        assert nic.ADDRESS.private
        assert "4c:bb:47:00:00:01" == value(look(nic.read, spark().build()), nic.ADDRESS, "enP7s7")

    def test_no_interface(self) -> None:
        """A machine without any interface of a device, and no Spark, has nothing to read."""
        with pytest.raises(NoData) as caught:
            look(nic.read, host({"/sys/class/net/lo/operstate": "unknown"}))
        assert Reason.NO_DEVICE is caught.value.reason


class TestLink:
    """Whether there is a link, and how fast."""

    @pytest.mark.parametrize(
        ("operstate", "carrier", "expected"),
        [
            ("up", "0", "up"),
            ("down", "1", "down"),
            ("lowerlayerdown", "1", "down"),
            ("notpresent", "1", "down"),
            ("unknown", "1", "up"),
            ("unknown", "0", "down"),
            ("dormant", "1", "up"),
            ("testing", "0", "down"),
            ("unknown", "", "unknown"),
        ],
    )
    def test_link(self, operstate: str, carrier: str, expected: str) -> None:
        """The operational state settles whether there is a link; where it does not, the carrier does."""
        machine = spark(connectx7=0)
        items = look(nic.read, machine.build(operstate=f"{operstate}\n", carrier=f"{carrier}\n"))
        assert expected == value(items, nic.LINK, "enP7s7")
        assert operstate == value(items, nic.OPERSTATE, "enP7s7")

    def test_no_carrier_while_not_up(self) -> None:
        """The carrier answers EINVAL while the interface is not up: then the link is unknown, not a fault."""
        machine = spark(connectx7=0)
        items = look(nic.read, machine.build(operstate="unknown", errors={net("enP7s7", "carrier"): "EINVAL"}))
        assert "unknown" == value(items, nic.LINK, "enP7s7")

    @pytest.mark.parametrize(("name", "speed"), [("enp1s0f0np0", 200e9), ("enP2p1s0f0np0", 200e9), ("enP7s7", 10e9)])
    def test_speed(self, name: str, speed: float) -> None:
        """Mbit/s become bits per second; both twins state the cage's 200 Gb/s."""
        items = look(nic.read, spark().build())
        assert speed == value(items, nic.SPEED, name)
        assert "full" == value(items, nic.DUPLEX, name)

    @pytest.mark.parametrize("told", ["-1\n", "10\n"])
    def test_speed_while_down(self, told: str) -> None:
        """A link that is down has no speed, whether the driver says -1 or the last one it had."""
        items = look(nic.read, spark(connectx7=0).build(operstate="down", speed=told))
        for of in (nic.SPEED, nic.DUPLEX):
            missing = absence(items, of, "enP7s7")
            assert (Reason.NO_DATA, "link is down") == (missing.reason, missing.detail)

    def test_speed_of_a_radio(self) -> None:
        """Wi-Fi drivers answer EINVAL for speed though the link is up: no data, and no claim that it is down."""
        items = look(nic.read, spark(connectx7=0).build(errors={net("wlP9s9", "speed"): "EINVAL"}))
        missing = absence(items, nic.SPEED, "wlP9s9")
        assert Reason.NO_DATA is missing.reason
        assert "down" not in missing.detail

    @pytest.mark.parametrize(
        ("text", "reason"),
        [("", Reason.GARBAGE), ("fast", Reason.GARBAGE), ("0", Reason.IMPOSSIBLE), ("4294967295", Reason.IMPOSSIBLE)],
    )
    def test_bad_speed(self, text: str, reason: Reason) -> None:
        """Neither garbage nor an impossible speed is reported."""
        items = look(nic.read, spark(connectx7=0).build(speed=text))
        assert reason is absence(items, nic.SPEED, "enP7s7").reason

    @pytest.mark.parametrize("text", ["", "sideways"])
    def test_bad_operstate(self, text: str) -> None:
        """A state that RFC 2863 does not have is garbage, and does not cost the speed."""
        items = look(nic.read, spark(connectx7=0).build(operstate=text))
        assert Reason.GARBAGE is absence(items, nic.LINK, "enP7s7").reason
        assert 10e9 == value(items, nic.SPEED, "enP7s7")

    def test_state_is_not_inventory(self) -> None:
        """What changes while the machine runs stays out of a diff of two machines; what it is made of does not."""
        changing = (nic.LINK, nic.OPERSTATE, nic.SPEED, nic.DUPLEX, nic.RDMA_STATE, nic.RDMA_RATE, nic.STATE)
        assert not [of.key for of in changing if of.inventory]
        assert not [of.key for of in (nic.KIND, nic.FIRMWARE, nic.CAGE, nic.MTU, nic.PCIE_LINK_MAX) if not of.inventory]


class TestCages:
    """The two QSFP cages and their twins."""

    @pytest.mark.parametrize(
        ("name", "cage", "twin"),
        [
            ("enp1s0f0np0", 0, "enP2p1s0f0np0"),
            ("enP2p1s0f0np0", 0, "enp1s0f0np0"),
            ("enp1s0f1np1", 1, "enP2p1s0f1np1"),
            ("enP2p1s0f1np1", 1, "enp1s0f1np1"),
        ],
    )
    def test_twins(self, name: str, cage: int, twin: str) -> None:
        """The same function number on both PCIe ports is the same cage."""
        items = look(nic.read, spark().build())
        assert (cage, twin) == (value(items, nic.CAGE, name), value(items, nic.TWIN, name))

    def test_no_cage_elsewhere(self) -> None:
        """A card that is no ConnectX-7, or one in a machine that is no Spark, serves none of its cages."""
        items = look(nic.read, spark().build())
        assert {name for name, _, _ in CONNECTX7} == {item.entity for item in items if item.of is nic.CAGE}
        server = Machine()
        server.connectx7(*CONNECTX7[0])
        assert not [item for item in look(nic.read, server.build()) if item.of in (nic.CAGE, nic.TWIN, nic.CAGES_UP)]

    def test_lone_twin(self) -> None:
        """A cage whose other function has no interface has no twin, and the absence says why."""
        items = look(nic.read, spark(connectx7=2).build())
        assert Reason.NO_DEVICE is absence(items, nic.TWIN, "enp1s0f0np0").reason

    def test_representor(self) -> None:
        """A second interface on the same function is no twin."""
        machine = spark(connectx7=1)
        machine.pci("enp1s0f0npf0vf0", "0000:01:00.0", "mlx5_core", "15b3:1021")
        items = look(nic.read, machine.build())
        assert Reason.NO_DEVICE is absence(items, nic.TWIN, "enp1s0f0np0").reason

    @pytest.mark.parametrize(
        ("down", "expected"),
        [
            ((), 2),
            (("enp1s0f0np0",), 2),
            (("enp1s0f0np0", "enP2p1s0f0np0"), 1),
            (tuple(name for name, _, _ in CONNECTX7), 0),
        ],
    )
    def test_cages_up(self, down: tuple[str, ...], expected: int) -> None:
        """A cage is up through either twin."""
        machine = spark()
        machine.files |= {f"{machine.links[f'/sys/class/net/{name}']}/operstate": "down\n" for name in down}
        assert expected == value(look(nic.read, machine.build()), nic.CAGES_UP)

    def test_unreadable_cage(self) -> None:
        """With a link that cannot be read the count is absent, unless its twin is up anyway."""
        machine = spark()
        sick = {net("enp1s0f0np0", "operstate"): "EIO"}
        assert 2 == value(look(nic.read, machine.build(errors=sick)), nic.CAGES_UP)
        sick |= {net("enP2p1s0f0np0", "operstate"): "EIO"}
        assert Reason.IO_ERROR is absence(look(nic.read, machine.build(errors=sick)), nic.CAGES_UP).reason


class TestTraffic:
    """What the network stack counts."""

    @pytest.mark.parametrize(
        ("of", "expected"),
        [
            (nic.CARRIER_CHANGES, 3),
            (nic.RECEIVED, 1000),
            (nic.RECEIVED_PACKETS, 1001),
            (nic.RECEIVE_ERRORS, 1002),
            (nic.RECEIVE_DROPPED, 1003),
            (nic.TRANSMITTED, 2000),
            (nic.TRANSMITTED_PACKETS, 2001),
            (nic.TRANSMIT_ERRORS, 2002),
            (nic.TRANSMIT_DROPPED, 2003),
        ],
    )
    def test_counters(self, of: Quantity, expected: int) -> None:
        """Each counter comes from its own file, and is a counter."""
        assert Kind.COUNTER is of.kind
        assert expected == value(look(nic.read, spark().build()), of, "enP7s7")

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ("ENOENT", Reason.NOT_FOUND),
            ("EACCES", Reason.PERMISSION_DENIED),
            ("EIO", Reason.IO_ERROR),
            ("ENODATA", Reason.NO_DATA),
            ("ENODEV", Reason.DEVICE_LOST),
            ("EBADMSG", Reason.IMPOSSIBLE),
        ],
    )
    def test_one_sick_file(self, fault: str, reason: Reason) -> None:
        """A file that fails costs its own reading, with the reason, and no other."""
        healthy = look(nic.read, spark().build())
        items = look(nic.read, spark().build(errors={net("enP7s7", "statistics/rx_bytes"): fault}))
        assert reason is absence(items, nic.RECEIVED, "enP7s7").reason
        readings = [item for item in healthy if isinstance(item, Reading)]
        assert len(readings) - 1 == len([item for item in items if isinstance(item, Reading)])

    @pytest.mark.parametrize(
        ("text", "reason"), [("", Reason.GARBAGE), ("lots", Reason.GARBAGE), ("-5", Reason.IMPOSSIBLE)]
    )
    def test_bad_counter(self, text: str, reason: Reason) -> None:
        """Neither garbage nor a count below nought is reported."""
        assert reason is absence(look(nic.read, spark().build(rx_packets=text)), nic.RECEIVED_PACKETS, "enP7s7").reason

    @pytest.mark.parametrize("of", [nic.RECEIVED, nic.TRANSMITTED, nic.RDMA_RECEIVED, nic.RDMA_TRANSMITTED])
    def test_help_warns(self, of: Quantity) -> None:
        """RoCE bytes are invisible to the network stack's counters, and whoever reads either is told."""
        assert "RoCE" in of.help


class TestPcie:
    """How the card is connected."""

    @pytest.mark.parametrize(
        ("name", "link", "generation", "lanes"),
        [("enp1s0f0np0", "32.0 GT/s x4", 5, 4), ("enP7s7", "16.0 GT/s x1", 4, 1), ("wlP9s9", "5.0 GT/s x1", 2, 1)],
    )
    def test_links(self, name: str, link: str, generation: int, lanes: int) -> None:
        """The link is told as people write it, and as numbers."""
        items = look(nic.read, spark().build())
        assert (link, link) == (value(items, nic.PCIE_LINK, name), value(items, nic.PCIE_LINK_MAX, name))
        assert (generation, lanes) == (value(items, nic.PCIE_GENERATION, name), value(items, nic.PCIE_LANES, name))

    def test_narrow_link(self) -> None:
        """A link that trained lower than it could shows as both numbers, current and maximal."""
        items = look(nic.read, spark().build(current_link_width="2\n", current_link_speed="16.0 GT/s PCIe\n"))
        assert "16.0 GT/s x2" == value(items, nic.PCIE_LINK, "enp1s0f0np0")
        assert (2, 4) == (value(items, nic.PCIE_LANES, "enp1s0f0np0"), value(items, nic.PCIE_LANES_MAX, "enp1s0f0np0"))
        generations = (nic.PCIE_GENERATION, nic.PCIE_GENERATION_MAX)
        assert [4, 5] == [value(items, of, "enp1s0f0np0") for of in generations]

    def test_no_link(self) -> None:
        """A device without a PCIe link of its own says Unknown and 0, which is no data and no fault."""
        items = look(nic.read, spark().build(current_link_width="0\n", current_link_speed="Unknown\n"))
        found = {absence(items, of, "enP7s7").reason for of in (nic.PCIE_LINK, nic.PCIE_GENERATION, nic.PCIE_LANES)}
        assert {Reason.NO_DATA} == found

    def test_one_half_unreadable(self) -> None:
        """Without its speed the link cannot be told, but its lanes can."""
        items = look(nic.read, spark().build(errors={net("enP7s7", "device/current_link_speed"): "EIO"}))
        assert Reason.IO_ERROR is absence(items, nic.PCIE_LINK, "enP7s7").reason
        assert Reason.IO_ERROR is absence(items, nic.PCIE_GENERATION, "enP7s7").reason
        assert 1 == value(items, nic.PCIE_LANES, "enP7s7")

    def test_errors(self) -> None:
        """Errors are the kernel's own totals, one per severity."""
        items = look(nic.read, spark().build())
        found = [value(items, nic.PCIE_ERRORS, "enP7s7", severity) for severity in ("correctable", "nonfatal", "fatal")]
        assert [3, 0, 0] == found

    def test_no_error_reporting(self) -> None:
        """A function without AER has no error counters, which is no fault and no zero."""
        machine = spark(connectx7=0)
        machine.files = {path: text for path, text in machine.files.items() if "aer_dev" not in path}
        items = look(nic.read, machine.build())
        assert Reason.NOT_FOUND is absence(items, nic.PCIE_ERRORS, "enP7s7", "fatal").reason


class TestRdma:
    """What goes past the network stack."""

    def test_port(self) -> None:
        """The RDMA device of the same function tells its state, its physical state and its rate."""
        items = look(nic.read, spark().build())
        name = "enP2p1s0f1np1"
        assert "roceP2p1s0f1" == value(items, nic.RDMA_DEVICE, name)
        assert "ACTIVE" == value(items, nic.RDMA_STATE, name)
        assert "LinkUp" == value(items, nic.RDMA_PHYSICAL_STATE, name)
        assert 200e9 == value(items, nic.RDMA_RATE, name)

    def test_counters(self) -> None:
        """Data is counted in words of 4 bytes, packets one by one."""
        items = look(nic.read, spark().build())
        bytes_ = [value(items, of, "enp1s0f0np0") for of in (nic.RDMA_RECEIVED, nic.RDMA_TRANSMITTED)]
        assert [146_000_000, 678_000_000] == bytes_
        packets = (nic.RDMA_RECEIVED_PACKETS, nic.RDMA_TRANSMITTED_PACKETS)
        assert [11, 12] == [value(items, of, "enp1s0f0np0") for of in packets]

    def test_errors(self) -> None:
        """Errors are one family, by the kernel's names."""
        items = look(nic.read, spark().build())
        names = ("symbol_error", "link_downed", "port_rcv_errors", "port_xmit_discards")
        assert [0, 1, 2, 3] == [value(items, nic.RDMA_ERRORS, "enp1s0f0np0", name) for name in names]

    def test_rate_while_down(self) -> None:
        """A port without a link has no rate, though mlx5 answers 40 Gb/sec for it."""
        machine = spark()
        items = look(
            nic.read, machine.build(state="1: DOWN\n", phys_state="3: Disabled\n", rate="40 Gb/sec (4X QDR)\n")
        )
        assert "DOWN" == value(items, nic.RDMA_STATE, "enp1s0f0np0")
        assert Reason.NO_DATA is absence(items, nic.RDMA_RATE, "enp1s0f0np0").reason

    def test_no_counters(self) -> None:
        """A device that keeps no such counters says so in words, which is no garbage."""
        items = look(nic.read, spark().build(port_rcv_data="N/A (no PMA)\n"))
        assert Reason.NOT_SUPPORTED is absence(items, nic.RDMA_RECEIVED, "enp1s0f0np0").reason

    def test_driver_not_loaded(self) -> None:
        """A ConnectX-7 without its RDMA driver has no RDMA device and tells no firmware; other cards never had one."""
        machine = spark(connectx7=0)
        machine.pci("enp1s0f0np0", "0000:01:00.0", "mlx5_core", "15b3:1021")
        items = look(nic.read, machine.build())
        assert Reason.DRIVER_NOT_LOADED is absence(items, nic.RDMA_DEVICE, "enp1s0f0np0").reason
        assert Reason.DRIVER_NOT_LOADED is absence(items, nic.FIRMWARE, "enp1s0f0np0").reason
        assert not [item for item in items if item.of is nic.RDMA_DEVICE and item.entity == "enP7s7"]

    @pytest.mark.parametrize("text", ["", "ACTIVE", "4:", "4"])
    def test_bad_state(self, text: str) -> None:
        """A state without its name is garbage."""
        items = look(nic.read, spark().build(state=text))
        assert Reason.GARBAGE is absence(items, nic.RDMA_STATE, "enp1s0f0np0").reason


class TestPresence:
    """Whether the ConnectX-7 is there, or sleeps, or should be there."""

    def test_present(self) -> None:
        """With its four functions on the bus the card is present."""
        items = look(nic.read, spark().build())
        assert ("present", 4) == (value(items, nic.STATE), value(items, nic.FUNCTIONS))

    @pytest.mark.parametrize("functions", [1, 2, 3])
    def test_incomplete(self, functions: int) -> None:
        """A Spark has four functions; fewer are not right."""
        items = look(nic.read, spark(connectx7=functions).build())
        assert ("incomplete", functions) == (value(items, nic.STATE), value(items, nic.FUNCTIONS))

    def test_without_interfaces(self) -> None:
        """Functions count on the bus, so a card without its driver is present, and its cages are unknown."""
        machine = spark(connectx7=0)
        for _, address, _ in CONNECTX7:
            machine.files |= {
                f"/sys/bus/pci/devices/{address}/vendor": "0x15b3\n",
                f"/sys/bus/pci/devices/{address}/device": "0x1021\n",
            }
        items = look(nic.read, machine.build())
        assert ("present", 4) == (value(items, nic.STATE), value(items, nic.FUNCTIONS))
        assert Reason.NO_DRIVER is absence(items, nic.CAGES_UP).reason

    @pytest.mark.parametrize(
        "files",
        [
            {MARKER: ""},
            {f"{HOTPLUG}/hotplug_enabled": "1\n"},
            {f"{HOTPLUG.replace('platform', 'acpi')}/hotplug_enabled": "1\n"},
            {MARKER: "", f"{HOTPLUG}/hotplug_enabled": "0\n"},
        ],
    )
    def test_asleep(self, files: Mapping[str, str]) -> None:
        """No function while hot-plug power saving is set up, by marker or by driver, is sleep and no fault."""
        machine = spark(connectx7=0)
        machine.files |= files
        items = look(nic.read, machine.build())
        assert ("asleep", 0) == (value(items, nic.STATE), value(items, nic.FUNCTIONS))
        assert Reason.NO_DEVICE is absence(items, nic.CAGES_UP).reason

    @pytest.mark.parametrize("files", [{}, {f"{HOTPLUG}/hotplug_enabled": "0\n"}])
    def test_missing(self, files: Mapping[str, str]) -> None:
        """No function on a Spark that would not put the card to sleep is a fault."""
        machine = spark(connectx7=0)
        machine.files |= files
        assert "missing" == value(look(nic.read, machine.build()), nic.STATE)

    @pytest.mark.parametrize(("fault", "reason"), [("EIO", Reason.IO_ERROR), ("EACCES", Reason.PERMISSION_DENIED)])
    def test_cannot_tell(self, fault: str, reason: Reason) -> None:
        """Where hot-plug cannot be read, asleep and missing cannot be told apart, so neither is claimed."""
        machine = spark(connectx7=0)
        items = look(nic.read, machine.build(errors={f"{HOTPLUG}/hotplug_enabled": fault}))
        assert reason is absence(items, nic.STATE).reason

    def test_hotplug(self) -> None:
        """The driver's two switches and the marker are told as they are."""
        machine = spark()
        machine.files |= {MARKER: "", f"{HOTPLUG}/hotplug_enabled": "1\n", f"{HOTPLUG}/debug_state": "1\n"}
        items = look(nic.read, machine.build())
        of = (nic.HOTPLUG_ENABLED, nic.HOTPLUG_DEBUG_STATE, nic.HOTPLUG_MARKER)
        assert [True, 1, True] == [value(items, one) for one in of]

    def test_no_hotplug(self) -> None:
        """A Spark without the hot-plug driver has no switches; that nothing set it up is a fact."""
        items = look(nic.read, spark().build())
        assert Reason.NOT_FOUND is absence(items, nic.HOTPLUG_ENABLED).reason
        assert Reason.NOT_FOUND is absence(items, nic.HOTPLUG_DEBUG_STATE).reason
        assert value(items, nic.HOTPLUG_MARKER) is False

    def test_asleep_without_any_interface(self) -> None:
        """A Spark with no interface left still says that its ConnectX-7 sleeps."""
        files = {DMI: "DGX Spark", MARKER: "", "/sys/bus/pci/devices/000f:01:00.0/vendor": "0x10de\n"}
        assert "asleep" == value(look(nic.read, host(files)), nic.STATE)

    def test_elsewhere(self) -> None:
        """A machine that is no GB10 lacks nothing without a ConnectX-7, and is complete with two functions."""
        machine = Machine()
        machine.realtek()
        items = look(nic.read, machine.build())
        assert Reason.NO_DEVICE is absence(items, nic.STATE).reason
        assert not [item for item in items if item.of in (nic.HOTPLUG_MARKER, nic.CAGES_UP)]
        for name, address, rdma in CONNECTX7[:2]:
            machine.connectx7(name, address, rdma)
        assert "present" == value(look(nic.read, machine.build()), nic.STATE)

    def test_no_bus(self) -> None:
        """Where the PCI bus cannot be seen nothing is said to be missing from it."""
        items = look(nic.read, host({DMI: "DGX Spark"}))
        assert Reason.NOT_FOUND is absence(items, nic.STATE).reason
        assert Reason.NOT_FOUND is absence(items, nic.FUNCTIONS).reason

    def test_function_leaves(self) -> None:
        """A function that leaves the bus between two reads is gone, which is no fault."""
        machine = spark(connectx7=0)
        machine.files |= {MARKER: "", "/sys/bus/pci/devices/0000:01:00.0/uevent": ""}
        assert "asleep" == value(look(nic.read, machine.build()), nic.STATE)


def test_no_file_is_read_twice() -> None:
    """One look reads each file at most once; what tells a GB10 apart is another's to read."""

    class Counting:
        def __init__(self, tree: Any) -> None:
            self.tree = tree
            self.reads: list[str] = []

        def read(self, path: str) -> bytes:
            self.reads.append(path if path.startswith("/sys/class/dmi") else self.tree.real(path))
            content: bytes = self.tree.read(path)
            return content

        def __getattr__(self, name: str) -> Any:
            return getattr(self.tree, name)

    machine = spark().build()
    counting = Counting(machine.tree)
    look(nic.read, Host(counting, machine.nvml, machine.udev, machine.processes))
    assert [] == [path for path in set(counting.reads) if counting.reads.count(path) > 1]


def test_each_item_once() -> None:
    """Nothing is said twice of the same interface."""
    items = look(nic.read, spark().build())
    said = [(item.of.key, item.entity, () if isinstance(item, Fact) else item.labels) for item in items]
    assert len(set(said)) == len(said)


def test_names() -> None:
    """Every key of a number ends in the words of its unit, and no counter says total itself."""
    numbers = [of for of in vars(nic).values() if isinstance(of, Quantity)]
    assert numbers
    assert not [of.key for of in numbers if not of.key.endswith(of.unit.words)]
    assert not [of.key for of in numbers if of.key.endswith("_total")]
    assert {"kind", "driver", "link", "cage", "pci"} <= {
        of.key for of in vars(nic).values() if isinstance(of, Property)
    }


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (parse_speed, "200000", 200e9),
        (parse_speed, "10", 1e7),
        (parse_duplex, "half", "half"),
        (parse_operstate, "lowerlayerdown", "down"),
        (parse_port_state, "4: ACTIVE", "ACTIVE"),
        (parse_port_state, "7: Phy Test", "Phy Test"),
        (parse_rate, "200 Gb/sec (2X NDR)", 200e9),
        (parse_rate, "2.5 Gb/sec (1X)", 2.5e9),
        (parse_port_counter, "18446744073709551615", 2**64 - 1),
        (parse_switch, "0", False),
    ],
)
def test_parsed(parse: Callable[[str], Any], text: str, expected: object) -> None:
    """What the kernel writes is understood."""
    assert expected == parse(text)


PARSERS = (
    parse_speed,
    parse_duplex,
    parse_operstate,
    parse_port_state,
    parse_rate,
    parse_port_counter,
    parse_switch,
)
ALPHABET = "0123456789-+.: /()GbsecXNDRATIVEfullhapdownk\n_"


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.text() | st.text(ALPHABET))
def test_any_text(parse: Callable[[str], Any], text: str) -> None:
    """Any text is either understood as something finite, or refused; nothing else can come of it."""
    try:
        found = parse(text)
    except (ValueError, Unavailable):
        return
    assert math.isfinite(found) if isinstance(found, float | int) else found


@pytest.mark.parametrize("parse", PARSERS)
def test_empty_text(parse: Callable[[str], Any]) -> None:
    """An empty file, as kernel 6.14's first builds gave for a speed, says nothing."""
    with pytest.raises(ValueError, match="''"):
        parse("")


@given(text=st.text() | st.text(ALPHABET))
def test_any_file(text: str) -> None:
    """Whatever all files of a ConnectX-7 say, the look ends, with every number in its bounds."""
    machine = spark(connectx7=1)
    machine.files = {
        path: text if "0000:01:00.0" in path and not path.endswith(("/vendor", "/device")) else content
        for path, content in machine.files.items()
    }
    for item in look(nic.read, machine.build()):
        if isinstance(item, Reading):
            assert item.of.bounds[0] <= item.value <= item.of.bounds[1]
        assert isinstance(item, Reading | Fact | Absence)
