"""What a machine is: every maker's Spark, a Spark without half its signs, and what is none."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hosts import absence, host, look, value
from hypothesis import given
from hypothesis import strategies as st

from spark_agent.collectors import Fact, Host, Item, Property, Reading, Reason, Unavailable, platform
from spark_agent.collectors.platform import parse_dgx_os, parse_dmi, parse_vendor, read

_DMI = "/sys/class/dmi/id"
_SERIAL = "1983925003141"

_FE = {
    "sys_vendor": "NVIDIA",
    "product_name": "NVIDIA_DGX_Spark",
    "product_family": "DGX Spark",
    "product_version": "A.7",
    "board_name": "P4242",
    "board_version": "A04",
    "bios_vendor": "AMI",
    "bios_version": "5.36_0ACUM023",
    "bios_date": "04/02/2026",
}
# Two spaces in the vendor, as in the dump of a real one.
_DELL = {
    "sys_vendor": "Dell  Inc.",
    "product_name": "Dell Pro Max with GB10 FCM1253",
    "product_family": "DGX Spark",
    "bios_vendor": "Dell Inc.",
    "bios_version": "5.36_1.1.1",
    "bios_date": "09/23/2025",
}
_ASUS = {
    "sys_vendor": "ASUSTeK COMPUTER INC.",
    "product_name": "GX10",
    "product_family": "DGX Spark",
    "product_version": "5.36_GX10DGX",
    "board_name": "GX10",
    "bios_version": "GX10DGX.0105.2026.0505.1153",
}
_HP = {"sys_vendor": "HP", "product_family": "DGX Spark"}

# An ASUS of October 2026: keys that repeat, dates of two locales, the serial number in the midst of it.
_RELEASE = f"""\
DGX_NAME="DGX Spark"
DGX_PRETTY_NAME="NVIDIA DGX Spark"
DGX_SWBUILD_DATE="2025-09-10-13-50-03"
DGX_SWBUILD_VERSION="7.2.3"
DGX_COMMIT_ID="833b4a7"
DGX_PLATFORM="GX10"
DGX_SERIAL_NUMBER="{_SERIAL}"

DGX_OTA_VERSION="7.3.1"
DGX_OTA_DATE="Thu Jan 15 19:07:36 CET 2026"

DGX_OTA_VERSION="7.5.0"
DGX_OTA_DATE="Sat Apr  4 10:11:12 CEST 2026"

DGX_OTA_VERSION="7.6.0"
DGX_OTA_DATE="mer. 16 sept. 2026 17:08:05 CEST"
"""
_UNQUOTED = _RELEASE.replace('"', "").replace("=GX10", "=HP ZGX Nano G1n AI Station")

_OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.159.03  Release Build  (dvs-builder)\n"
_SOFTWARE = {
    "/etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.4 LTS"\nNAME="Ubuntu"\n',
    "/proc/sys/kernel/osrelease": "6.17.0-1026-nvidia\n",
    "/proc/driver/nvidia/version": _OPEN,
    "/proc/stat": "cpu  1 2 3\nbtime 1786442616\nprocesses 9\n",
}
_NVML = {"init": "SUCCESS", "system": {"nvmlSystemGetDriverVersion": "580.159.03"}, "devices": [{}]}
_TELEMETRY = {"/sys/bus/acpi/devices/NVDA8800:00/path": "\\_SB_.MTEL\n"}
_GPU = {"/sys/bus/pci/devices/000f:01:00.0/vendor": "0x10de\n", "/sys/bus/pci/devices/000f:01:00.0/device": "0x2e12\n"}


def _dmi(names: Mapping[str, str]) -> dict[str, str]:
    return {f"{_DMI}/{name}": f"{text}\n" for name, text in names.items()}


def _machine(
    dmi: Mapping[str, str],
    release: str | None = _RELEASE,
    more: Mapping[str, str] | None = None,
    nvml: Mapping[str, Any] | None = _NVML,
    errors: Mapping[str, str] | None = None,
) -> Host:
    files = _dmi(dmi) | _SOFTWARE | dict(more or {})
    if release is not None:
        files["/etc/dgx-release"] = release
    return host(files, nvml=nvml, errors=errors)


def _known(items: list[Item], *of: Property) -> list[Any]:
    return [value(items, one) for one in of]


class TestSparks:
    """Each maker's, as its owners dumped it."""

    def test_founders_edition(self) -> None:
        """NVIDIA's own, whole."""
        items = look(read, _machine(_FE, more=_TELEMETRY | _GPU))
        assert value(items, platform.IS_SPARK)
        assert ("dmi product_family", "acpi NVDA8800", "pci 10de:2e12", "dgx-release") == value(
            items, platform.EVIDENCE
        )
        assert ["NVIDIA", "NVIDIA_DGX_Spark", "DGX Spark", "A.7"] == _known(
            items, platform.VENDOR, platform.PRODUCT, platform.FAMILY, platform.VERSION
        )
        assert ["P4242", "A04", "5.36_0ACUM023", "AMI", "04/02/2026"] == _known(
            items,
            platform.BOARD,
            platform.BOARD_VERSION,
            platform.BIOS,
            platform.FIRMWARE_VENDOR,
            platform.FIRMWARE_DATE,
        )
        assert ["Ubuntu 24.04.4 LTS", "7.6.0", "7.2.3", "6.17.0-1026-nvidia"] == _known(
            items, platform.OS, platform.DGX_OS, platform.DGX_IMAGE, platform.KERNEL
        )
        assert ["580.159.03", "open"] == _known(items, platform.DRIVER, platform.DRIVER_MODULES)
        assert 1_786_442_616 == value(items, platform.BOOTED)

    @pytest.mark.parametrize(
        ("dmi", "vendor", "product"),
        [(_DELL, "Dell", "Dell Pro Max with GB10 FCM1253"), (_ASUS, "ASUS", "GX10")],
        ids=["dell", "asus"],
    )
    def test_partner(self, dmi: Mapping[str, str], vendor: str, product: str) -> None:
        """The family is the same on every maker's; the names are the makers' own."""
        items = look(read, _machine(dmi))
        assert [True, vendor, product] == _known(items, platform.IS_SPARK, platform.VENDOR, platform.PRODUCT)

    def test_hp(self) -> None:
        """Its release file has no quotes, and its platform is something else again."""
        items = look(read, _machine(_HP, _UNQUOTED))
        assert [True, "HP", "7.6.0", "7.2.3"] == _known(
            items, platform.IS_SPARK, platform.VENDOR, platform.DGX_OS, platform.DGX_IMAGE
        )
        assert Reason.NOT_FOUND is absence(items, platform.PRODUCT).reason

    @pytest.mark.parametrize(
        ("text", "vendor"),
        [
            ("LENOVO", "Lenovo"),
            ("Micro-Star International Co., Ltd.", "MSI"),
            ("GIGABYTE", "Gigabyte"),
            ("Acer", "Acer"),
            ("ASUS", "ASUS"),
            ("dell inc.", "Dell"),
            ("HPE", "HPE"),
            ("NVIDIA", "NVIDIA"),
            ("Fabulous  Sparks GmbH", "Fabulous Sparks GmbH"),
        ],
    )
    def test_maker(self, text: str, vendor: str) -> None:
        """Makers are named as people name them; one that nobody knows keeps its own words."""
        assert vendor == value(look(read, _machine({**_FE, "sys_vendor": text})), platform.VENDOR)


class TestSigns:
    """Each sign alone is enough, for each is missing somewhere."""

    @pytest.mark.parametrize(
        ("files", "nvml", "sign"),
        [
            (_dmi({"product_family": "DGX Spark"}), None, "dmi product_family"),
            (_TELEMETRY, None, "acpi NVDA8800"),
            (_GPU, None, "pci 10de:2e12"),
            ({}, {"devices": [{"nvmlDeviceGetName": "NVIDIA GB10"}]}, "nvml name"),
            ({"/etc/dgx-release": _RELEASE}, None, "dgx-release"),
            ({"/etc/dgx-release": _UNQUOTED}, None, "dgx-release"),
        ],
        ids=["dmi", "acpi", "pci", "nvml", "release", "unquoted"],
    )
    def test_one(self, files: Mapping[str, str], nvml: Mapping[str, Any] | None, sign: str) -> None:
        """The sign is named."""
        items = look(read, host(files, nvml=nvml))
        assert [True, (sign,)] == _known(items, platform.IS_SPARK, platform.EVIDENCE)

    def test_plain_ubuntu(self) -> None:
        """A GB10 with plain Ubuntu has no release file of DGX OS; its own is what runs."""
        items = look(read, _machine(_FE, None))
        assert [True, "Ubuntu 24.04.4 LTS"] == _known(items, platform.IS_SPARK, platform.OS)
        assert Reason.NOT_FOUND is absence(items, platform.DGX_OS).reason

    @pytest.mark.parametrize(
        "init", ["DRIVER_NOT_LOADED", {"error": "LIB_RM_VERSION_MISMATCH"}, {"error": "GPU_IS_LOST"}]
    )
    def test_dead_driver(self, init: Any) -> None:
        """The GPU is on the bus when its driver is not; the loaded module still tells its version."""
        items = look(read, _machine({}, None, _GPU, {"init": init}))
        assert [True, "580.159.03"] == _known(items, platform.IS_SPARK, platform.DRIVER)

    def test_no_driver(self) -> None:
        """With neither library nor module there is no version, and the reason is the library's."""
        items = look(read, host(_dmi(_FE)))
        assert Reason.NO_LIBRARY is absence(items, platform.DRIVER).reason
        assert Reason.NOT_FOUND is absence(items, platform.DRIVER_MODULES).reason

    @pytest.mark.parametrize(
        "lookalike",
        [
            _dmi({"product_family": "DGX Sparkling"}),
            {
                "/sys/bus/pci/devices/0001:01:00.0/vendor": "0x10de",
                "/sys/bus/pci/devices/0001:01:00.0/device": "0x2e03",
            },
            {
                "/sys/bus/pci/devices/000f:01:00.0/vendor": "0x8086",
                "/sys/bus/pci/devices/000f:01:00.0/device": "0x2e12",
            },
            {"/etc/dgx-release": 'DGX_NAME="DGX Server"\nDGX_PLATFORM="DGX Spark"\n'},
        ],
        ids=["family", "rtx-spark", "not-nvidia", "dgx-server"],
    )
    def test_lookalike(self, lookalike: Mapping[str, str]) -> None:
        """What is only similar is no sign."""
        assert [False, ()] == _known(look(read, host(lookalike)), platform.IS_SPARK, platform.EVIDENCE)

    @pytest.mark.parametrize("name", ["NVIDIA GB200", "NVIDIA GB100", "NVIDIA H200", 7, None, ["NVIDIA", "GB10"]])
    def test_another_gpu(self, name: Any) -> None:
        """The name is taken as a word, and garbage is no name."""
        items = look(read, host(nvml={"devices": [{"nvmlDeviceGetName": name}]}))
        assert not value(items, platform.IS_SPARK)


class TestOthers:
    """What is no Spark is described all the same."""

    def test_server(self) -> None:
        """An H200 server."""
        dmi = {"sys_vendor": "Supermicro", "product_name": "SYS-821GE-TNHR", "product_family": "Family"}
        proprietary = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Tue Jan 21 21:45:46 UTC 2025\n"
        nvml = {
            "system": {"nvmlSystemGetDriverVersion": "570.86.10"},
            "devices": [{"nvmlDeviceGetName": "NVIDIA H200"}],
        }
        items = look(read, _machine(dmi, None, {"/proc/driver/nvidia/version": proprietary}, nvml))
        assert [False, "Supermicro", "SYS-821GE-TNHR"] == _known(
            items, platform.IS_SPARK, platform.VENDOR, platform.PRODUCT
        )
        assert ["570.86.10", "proprietary"] == _known(items, platform.DRIVER, platform.DRIVER_MODULES)

    def test_home_made_pc(self) -> None:
        """Makers of boards leave phrases where they should have left nothing; none of them is a name."""
        dmi = {
            "sys_vendor": "To Be Filled By O.E.M.",
            "product_name": "System Product Name",
            "product_family": "Default string",
            "product_version": "  ",
            "board_name": "PRIME X670-P",
        }
        items = look(read, _machine(dmi, None, nvml=None))
        assert [False, "PRIME X670-P"] == _known(items, platform.IS_SPARK, platform.BOARD)
        for of in (platform.VENDOR, platform.PRODUCT, platform.FAMILY, platform.VERSION):
            assert Reason.NO_DATA is absence(items, of).reason

    def test_no_dmi(self) -> None:
        """A small board or a container has no DMI, and still a kernel."""
        items = look(read, _machine({}, None, nvml=None))
        assert [False, "6.17.0-1026-nvidia"] == _known(items, platform.IS_SPARK, platform.KERNEL)
        assert Reason.NOT_FOUND is absence(items, platform.VENDOR).reason

    def test_nothing_at_all(self) -> None:
        """An empty machine is no Spark, and each thing that it lacks has a reason."""
        items = look(read, host())
        assert [False, ()] == _known(items, platform.IS_SPARK, platform.EVIDENCE)
        assert [platform.IS_SPARK, platform.EVIDENCE] == [item.of for item in items if isinstance(item, Fact | Reading)]


class TestReleaseFile:
    """Which DGX OS runs."""

    def test_the_last_update_counts(self) -> None:
        """Keys repeat; the last one is what runs, whatever its date's locale makes of the alphabet."""
        assert "7.6.0" == value(look(read, _machine(_ASUS)), platform.DGX_OS)

    def test_never_updated(self) -> None:
        """Before the first update the factory image is what runs."""
        image = _RELEASE.partition("\n\n")[0]
        assert ["7.2.3", "7.2.3"] == _known(look(read, _machine(_FE, image)), platform.DGX_OS, platform.DGX_IMAGE)

    @pytest.mark.parametrize(
        "release", [_RELEASE, _UNQUOTED, _RELEASE.replace("\n", "\r\n"), _RELEASE.replace('"', "'")]
    )
    def test_the_serial_number_stays(self, release: str) -> None:
        """It stands in the file, and in nothing that is said of it."""
        for items in (look(read, _machine(_FE, release)), look(read, _machine({}, release, nvml=None))):
            assert _SERIAL not in repr(items)
            assert "7.6.0" == value(items, platform.DGX_OS)

    @pytest.mark.parametrize("release", ["", "\0\0\0", "no assignments here", "DGX_NAME\n", "=7.6.0"])
    def test_garbage(self, release: str) -> None:
        """A file that says nothing is an absence, and the machine is still a Spark by its DMI."""
        items = look(read, _machine(_FE, release))
        assert Reason.NO_DATA is absence(items, platform.DGX_OS).reason
        assert value(items, platform.IS_SPARK)

    @pytest.mark.parametrize(("error", "reason"), [("EACCES", Reason.PERMISSION_DENIED), ("EIO", Reason.IO_ERROR)])
    def test_unreadable(self, error: str, reason: Reason) -> None:
        """A fault is one absence each for what the file would have told."""
        items = look(read, _machine(_FE, None, errors={"/etc/dgx-release": error}))
        assert [reason, reason] == [absence(items, of).reason for of in (platform.DGX_OS, platform.DGX_IMAGE)]
        assert "NVIDIA" == value(items, platform.VENDOR)


_FILES = {**_dmi(_FE), **_SOFTWARE, **_TELEMETRY, **_GPU, "/etc/dgx-release": _RELEASE}


@pytest.mark.parametrize("path", sorted(_FILES))
@pytest.mark.parametrize("error", ["EACCES", "EIO", "ENODEV"])
def test_any_file_may_fail(path: str, error: str) -> None:
    """What one file would have told is lost, and the rest stands."""
    files = {other: text for other, text in _FILES.items() if other != path}
    items = look(read, host(files, nvml=_NVML, errors={path: error}))
    assert value(items, platform.IS_SPARK)
    whole = {item.of for item in look(read, host(_FILES, nvml=_NVML)) if isinstance(item, Fact | Reading)}
    lost = whole - {item.of for item in items if isinstance(item, Fact | Reading)}
    assert len(lost) <= 2


@pytest.mark.parametrize(
    ("text", "version", "modules"),
    [
        (_OPEN, "580.159.03", "open"),
        ("NVRM version: NVIDIA UNIX aarch64 Kernel Module  580.95.05  Tue Sep 23\n", "580.95.05", "proprietary"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  610.57.04\n", "610.57.04", "open"),
    ],
)
def test_driver_module(text: str, version: str, modules: str) -> None:
    """A GB10 needs the open modules; the version is the module's own."""
    assert version == platform.parse_driver_version(text)
    assert modules == platform.parse_driver_modules(text)


@pytest.mark.parametrize("answer", [7, None, {"a": 1}, [1]])
def test_a_driver_version_that_is_none(answer: Any) -> None:
    """Where NVML gives no text, the kernel's file does."""
    nvml = {"system": {"nvmlSystemGetDriverVersion": answer}, "devices": [{}]}
    assert "580.159.03" == value(look(read, _machine(_FE, nvml=nvml)), platform.DRIVER)


@pytest.mark.parametrize(
    ("path", "text", "of"),
    [
        ("/proc/stat", "cpu 1 2 3\n", platform.BOOTED),
        ("/proc/stat", "btime soon\n", platform.BOOTED),
        ("/proc/driver/nvidia/version", "unloading\n", platform.DRIVER_MODULES),
        (f"{_DMI}/product_name", "\x1b[31mSpark", platform.PRODUCT),
        (f"{_DMI}/product_name", "Spark\ufffd", platform.PRODUCT),
    ],
)
def test_garbage(path: str, text: str, of: Any) -> None:
    """Garbage in a file is an absence that says so."""
    assert Reason.GARBAGE is absence(look(read, _machine(_FE, more={path: text})), of).reason


@given(st.text())
def test_parsers(text: str) -> None:
    """Each gives something sane, or says what it was given."""
    for parse in (parse_dmi, parse_vendor, platform.parse_driver_version, platform.parse_driver_modules):
        with suppress(ValueError, Unavailable):
            assert parse(text)
    with suppress(ValueError):
        assert isinstance(platform.parse_boot_time(text), int)
    with suppress(Unavailable):
        assert parse_dgx_os(platform.parse_assignments(text))


@given(st.sampled_from(sorted(_FILES)), st.text(max_size=40))
def test_garbage_in_any_file(path: str, text: str) -> None:
    """Whatever one file holds, nothing is raised, and no text hurts a terminal."""
    items = look(read, host(_FILES | {path: text}, nvml=None))
    assert all(item.value.isprintable() for item in items if isinstance(item, Fact) and isinstance(item.value, str))
