"""The diff of two machines: what counts as a change, how it is told, and what `spark-agent diff` answers."""

import io
import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from demo import demo_report, looked_at
from hypothesis import given, settings
from hypothesis import strategies as st
from imagine import DEMOS, build, write_folder
from rich.console import Console

from spark_agent.agent import cli
from spark_agent.agent.machine import demos, open_demo
from spark_agent.exporters import document
from spark_agent.exporters.difference import Change, ChangeKind, Difference, compare, show, text

ADDED, REMOVED, CHANGED = ChangeKind.ADDED, ChangeKind.REMOVED, ChangeKind.CHANGED
CAGES = ("enP2p1s0f0np0", "enP2p1s0f1np1", "enp1s0f0np0", "enp1s0f1np1")
TURNED = {ADDED: REMOVED, REMOVED: ADDED, CHANGED: CHANGED}

Document = dict[str, Any]


def saved(name: str, *, private: bool = False) -> Document:
    """Return a demo's document as a file would hold it, to be changed at will."""
    return dict(json.loads(document.text(document.document(demo_report(name), private=private))))


def changes(before: Document, after: Document, *, everything: bool = False) -> dict[str, Change]:
    """Return the changes by path; no path comes twice."""
    found = compare(before, after, everything=everything).changes
    by_path = {change.path: change for change in found}
    assert len(found) == len(by_path)
    return by_path


def screen(found: Difference, width: int = 80) -> str:
    """Return what a person sees, without trailing spaces."""
    out = io.StringIO()
    show(found, Console(file=out, width=width, highlight=False, markup=False, emoji=False))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


class TestWhatCounts:
    """Which differences are changes."""

    @pytest.mark.parametrize("everything", [False, True])
    @pytest.mark.parametrize("name", demos())
    def test_a_machine_against_itself(self, name: str, everything: bool) -> None:
        """Two looks at the same machine differ in nothing, not even in how long they took."""
        again = document.document(looked_at(open_demo(name)))

        assert {} == changes(saved(name), again, everything=everything)

    def test_a_load_is_no_change(self) -> None:
        """An idle machine and a busy one have the same inventory; what came is what a cable woke."""
        found = changes(saved("fe-idle"), saved("fe-gemm"))

        assert {ADDED} == {change.kind for change in found.values()}
        assert {f"nics[{name}]" for name in CAGES} == {path for path in found if not path.startswith("thermal[mlx5-")}

    def test_another_make(self) -> None:
        """What a partner builds otherwise is told key by key, with both values."""
        found = changes(saved("fe-stock"), saved("gx10-asleep"))

        assert Change("platform.vendor", CHANGED, "NVIDIA", "ASUS") == found["platform.vendor"]
        assert ("NVIDIA_DGX_Spark", "GX10") == (found["platform.product"].before, found["platform.product"].after)
        assert {"platform.bios", "platform.kernel", "platform.driver", "gpu[0].driver", "gpu[0].vbios"} <= found.keys()
        assert {"nvme[nvme0].model", "nvme[nvme0].firmware", "nvme[nvme0].capacity_bytes"} <= found.keys()
        assert CHANGED is found["nvme[nvme0].capacity_bytes"].kind
        assert "By" == found["nvme[nvme0].capacity_bytes"].unit
        assert not [path for path in found if path.startswith(("cpu.", "findings", "collectors", "agent", "machine"))]

    def test_an_estimate_moves(self) -> None:
        """A reading, so only with all; its bounds are watts, and what they are is not told anew."""
        before, after = saved("fe-stock"), saved("gx10-asleep")
        found = changes(before, after, everything=True)
        told = {path: change.unit for path, change in found.items() if path.startswith("power.estimate")}

        assert not [path for path in changes(before, after) if path.startswith("power.estimate")]
        assert {"power.estimate.system.lower", "power.estimate.system.basis[gpu].lower"} <= told.keys()
        assert {"W"} == {*told.values()}

    def test_going_asleep(self) -> None:
        """A ConnectX-7 that goes to sleep takes its four interfaces with it: four changes, each with the reason."""
        found = changes(saved("dell-cx7"), saved("gx10-asleep"))
        nics = [change for path, change in found.items() if path.startswith("nics[")]

        assert [Change(f"nics[{name}]", REMOVED, "connectx7", None, reason="asleep") for name in CAGES] == nics

    def test_a_drive(self) -> None:
        """A second drive is one change, with its model, and says nothing of its keys."""
        before = saved("fe-idle")
        after = deepcopy(before)
        after["nvme"].append(before["nvme"][0] | {"name": "nvme1", "model": "Another"})

        assert {"nvme[nvme1]": Change("nvme[nvme1]", ADDED, None, "Another")} == changes(before, after)

    def test_a_swapped_drive(self) -> None:
        """Another drive under the same name is told key by key."""
        before = saved("fe-idle")
        after = deepcopy(before)
        after["nvme"][0]["model"] = "Another"

        assert ["nvme[nvme0].model"] == list(changes(before, after))

    def test_order_is_no_change(self) -> None:
        """Entities are matched by their name, not by their place in the list."""
        before = saved("fe-gemm")
        after = deepcopy(before)
        for part in ("nics", "thermal"):
            after[part].reverse()
        after["power"]["limits"].reverse()
        after["cpu"]["cores"].reverse()

        assert {} == changes(before, after, everything=True)

    def test_limits_are_inventory(self) -> None:
        """What the firmware allows describes the machine: a box that fell back to 20 W differs."""
        found = changes(saved("fe-idle"), saved("fe-wedged"))

        assert Change("power.limits[pl1]", CHANGED, 140, 20, "W") == found["power.limits[pl1]"]
        assert {f"power.limits[{name}]" for name in ("pl1", "pl2", "syspl1", "syspl2")} == found.keys()

    def test_limits_that_went(self) -> None:
        """A limit that is not read any more is one change; without the driver, that is the reason for the rest."""
        found = changes(saved("fe-idle"), saved("fe-stock"))

        assert Change("power.limits[pl1]", REMOVED, 140, None, "W") == found["power.limits[pl1]"]
        assert not [path for path in found if path.startswith("power.limits[pl1].")]
        assert "no_driver" == found["power.driver"].reason
        assert "no_driver" == found["power.driver_variant"].reason

    def test_who_says_a_limit(self) -> None:
        """The same limit from another source is a change; the channel that it was read from is a reading."""
        before = saved("fe-idle")
        after = deepcopy(before)
        after["power"]["limits"][0] |= {"origin": "vendor_doc", "source": "a page", "ceiling": 260}
        found = changes(before, after)

        assert ["power.limits[pl1].origin", "power.limits[pl1].ceiling"] == list(found)
        assert [None, "W"] == [change.unit for change in found.values()]
        assert {"power.limits[pl1].source"} == changes(before, after, everything=True).keys() - found.keys()

    def test_everything(self) -> None:
        """With readings, powers, temperatures, counters, verdicts and findings are compared as well."""
        found = changes(saved("fe-idle"), saved("fe-gemm"), everything=True)

        assert {
            "cpu.load1",
            "memory.available_bytes",
            "gpu[0].clock_hertz.sm",
            "gpu[0].processes[51544]",
            "power.scopes.system",
            "power.averages.pl1",
            "power.gpu_nvml_windows[instant]",
            "power.registers[spbm energy pkg]",
            "power.headroom",
            "power.verdicts.soc.verdict",
            "power.untrusted[spbm pl_level]",
            "nvme[nvme0].reads_total",
            "connectx7.state",
            "thermal[thermal_zone0].temperature_celsius",
            "findings[at_limit_soc]",
        } <= found.keys()
        assert ("within", "at_limit") == (
            found["power.verdicts.soc.verdict"].before,
            found["power.verdicts.soc.verdict"].after,
        )
        assert not [path for path in found if path.endswith((".seconds", ".evidence", ".unit"))]

    def test_a_reading_that_went(self) -> None:
        """A power that is not measured any more is one change, with the reason."""
        found = changes(saved("fe-idle"), saved("fe-stock"), everything=True)

        assert ("no_driver", "no_driver") == (found["power.scopes.system"].reason, found["power.averages.pl1"].reason)
        assert not [path for path in found if path.startswith(("power.scopes.system.", "power.averages.pl1."))]

    def test_an_age_is_no_change(self) -> None:
        """How long ago something was read says nothing of the machine."""
        before = saved("fe-idle")
        after = deepcopy(before)
        after["power"]["scopes"]["system"]["age_seconds"] = 0.7

        assert {} == changes(before, after, everything=True)

    def test_an_empty_list(self) -> None:
        """A list of nothing is a value, where it is no list of entities."""
        before = saved("fe-idle")
        after = deepcopy(before)
        after["gpu"][0]["clock_event_reasons"] = []
        [change] = changes(before, after, everything=True).values()

        assert ("gpu[0].clock_event_reasons", CHANGED, ["gpu_idle"], []) == (
            change.path,
            change.kind,
            change.before,
            change.after,
        )

    def test_a_collector_that_turns_absent(self) -> None:
        """How a collector fared is a reading."""
        before, after = saved("fe-idle"), saved("fe-stock")

        assert not [path for path in changes(before, after) if path.startswith("collectors")]
        found = changes(before, after, everything=True)
        assert Change("collectors[spbm].status", CHANGED, "ok", "absent") == found["collectors[spbm].status"]
        assert "no_driver" == found["collectors[spbm].reason"].after

    def test_versions_and_names_are_no_change(self) -> None:
        """What a document says of itself and of the agent is not compared."""
        before = saved("fe-idle")
        machine = {"name": "other", "origin": "live", "note": None, "taken_at": "2027-01-01T00:00:00+00:00"}

        assert {} == changes(before, before | {"agent": {"version": "99"}, "machine": machine}, everything=True)


class TestAbsence:
    """Absent is absent, and says why."""

    def test_a_value_that_went(self) -> None:
        """The reason is that of the side which lacks the value, whichever it is."""
        before, after = saved("fe-stock"), saved("gx10-asleep")
        went = changes(before, after)["platform.firmware_date"]
        came = changes(after, before)["platform.firmware_date"]

        assert (REMOVED, None, "not_found") == (went.kind, went.after, went.reason)
        assert (ADDED, None, "not_found") == (came.kind, came.before, came.reason)
        assert went.detail == came.detail == "ENOENT /sys/class/dmi/id/bios_date"

    def test_a_label_that_went(self) -> None:
        """A number with labels is compared label by label, and each absence has a reason of its own."""
        before = saved("fe-idle")
        after = deepcopy(before)
        del after["gpu"][0]["max_clock_hertz"]["sm"]
        after["gpu"][0]["absent"]["max_clock_hertz.sm"] = {"reason": "device_lost", "detail": "GPU_IS_LOST"}
        value = before["gpu"][0]["max_clock_hertz"]["sm"]

        assert {
            "gpu[0].max_clock_hertz.sm": Change(
                "gpu[0].max_clock_hertz.sm", REMOVED, value, None, "Hz", "device_lost", "GPU_IS_LOST"
            )
        } == changes(before, after)

    def test_another_reason_is_no_change(self) -> None:
        """What neither side has did not change."""
        before = saved("fe-idle")
        after = deepcopy(before)
        after["gpu"][0]["absent"]["cuda_cores"]["reason"] = "device_lost"

        assert {} == changes(before, after)

    def test_a_value_beside_an_absence(self) -> None:
        """What was read is there, whatever another source had to say."""
        before = saved("fe-idle")
        after = deepcopy(before)
        after["gpu"][0]["absent"]["vbios"] = {"reason": "not_found", "detail": None}

        assert {} == changes(before, after)

    def test_a_missing_key_is_absent(self) -> None:
        """An agent that did not know a key says as little as one that found nothing."""
        before = saved("fe-idle")
        after = deepcopy(before)
        del after["gpu"][0]["cuda_cores"], after["gpu"][0]["absent"]

        assert {} == changes(before, after)

    def test_a_collector_that_failed(self) -> None:
        """Where nothing at all could be read, the reason is the collector's."""
        before = saved("fe-idle")
        after = deepcopy(before) | {"gpu": [], "platform": dict.fromkeys(before["platform"])}
        for visit in after["collectors"]:
            if visit["name"] in ("gpu", "platform"):
                visit |= {"status": "failed", "reason": "timeout", "detail": "20 s"}
        found = changes(before, after)

        assert Change("gpu[0]", REMOVED, "NVIDIA GB10", None, None, "timeout", "20 s") == found["gpu[0]"]
        assert {"timeout"} == {change.reason for change in found.values()}
        assert not [path for path in found if path.startswith("gpu[0].")]

    def test_untrusted_is_absent(self) -> None:
        """A number of the inventory that came to be distrusted is gone, with the reason; what it says is a reading."""
        before = saved("fe-idle")
        after = deepcopy(before)
        after["thermal"][0] |= {
            "critical_celsius": None,
            "untrusted": {"critical_celsius": {"value": 1, "why": "junk"}},
        }
        [change] = changes(before, after).values()

        assert ("thermal[thermal_zone0].critical_celsius", REMOVED) == (change.path, change.kind)
        assert ("untrusted", "junk") == (change.reason, change.detail)
        assert "thermal[thermal_zone0].untrusted.critical_celsius" in changes(before, after, everything=True)

    def test_private(self) -> None:
        """Serial numbers are compared where both hold them, so one saved without them lost nothing."""
        before = saved("fe-idle", private=True)
        after = deepcopy(before)
        after["gpu"][0]["uuid"] = "GPU-1"

        assert "uuid" in before["gpu"][0]
        assert {} == changes(before, saved("fe-idle"))
        assert {} == changes(saved("fe-idle"), before, everything=True)
        assert ["gpu[0].uuid"] == list(changes(before, after))


class TestOtherDocuments:
    """Documents of other agents, of some parts only, and broken ones."""

    def test_a_newer_agent(self) -> None:
        """What this agent does not know counts as inventory, wherever it is."""
        before = saved("fe-idle")
        after = deepcopy(before) | {"battery": {"cells": [{"name": "a", "wear": 1}]}}
        after["platform"]["colour"] = "gold"
        after["power"]["psu"] = {"value": 240, "unit": "W"}
        after["nics"][0]["lanes"] = [{"lane": 0}]
        after["cpu"]["cores"][3]["smt"] = 2

        assert {
            "platform.colour": "gold",
            "cpu.cores[3].smt": 2,
            "power.psu": 240,
            "nics[enP7s7].lanes": [{"lane": 0}],
            "battery.cells[a]": "present",
        } == {path: change.after for path, change in changes(before, after).items()}
        assert "240 W" in screen(compare(before, after))

    def test_some_parts_only(self) -> None:
        """A part that only one side was asked for did not come or go; that it was left out is said."""
        whole = saved("fe-idle")
        part = {key: whole[key] for key in ("schema", "agent", "machine", "nics", "connectx7", "findings")}
        part["collectors"] = [visit for visit in whole["collectors"] if visit["name"] == "nic"]
        found = compare(whole, part)

        assert () == found.changes
        assert {"platform", "cpu", "memory", "gpu", "power"} <= set(found.not_compared)
        assert not {"nics", "connectx7", "findings", "collectors"} & set(found.not_compared)
        assert {"findings", "collectors"} <= set(compare(part, whole, everything=True).not_compared)
        assert "not compared, as only one side was asked for it: platform, cpu" in screen(found)

    def test_power_from_the_gpu_alone(self) -> None:
        """A document that asked the GPU only lost no firmware limits; the fans have no part in them."""
        whole = saved("fe-idle")
        part = deepcopy(whole)
        part["power"]["limits"] = []

        for without, is_compared in (("spbm", False), ("gpu", False), ("fan", True)):
            part["collectors"] = [visit for visit in whole["collectors"] if visit["name"] != without]
            assert is_compared == ("power" not in compare(whole, part).not_compared)

    def test_nothing_in_common(self) -> None:
        """Where nothing can be compared, nothing is said to be equal."""
        whole = saved("fe-idle")
        visits = {visit["name"]: visit for visit in whole["collectors"]}
        one = {"nics": whole["nics"], "collectors": [visits["nic"]]}
        other = {"memory": whole["memory"], "collectors": [visits["memory"]]}

        with pytest.raises(ValueError, match="no part in common"):
            compare(one, other)

    def test_names_that_come_twice(self) -> None:
        """Entities of one name are matched in their order."""
        before = saved("fe-idle")
        after = deepcopy(before)
        for found, cells in ((before, (1, 2)), (after, (1, 3))):
            found["battery"] = [{"name": "a", "cells": count} for count in cells]

        assert ["battery[a#2].cells"] == list(changes(before, after))


class TestFolding:
    """Many cores, one line."""

    def test_cores(self) -> None:
        """Cores that change alike are one change, with their numbers as the kernel lists them."""
        before = saved("fe-idle")
        after = deepcopy(before)
        for core in after["cpu"]["cores"]:
            core["governor"] = "powersave"
            if core["core_type"] == "efficiency":
                core["max_hertz"] = 2_000_000_000
                core["l2_bytes"] *= 2

        assert [
            Change("cpu.cores[0-4].max_hertz", CHANGED, 2_808_000_000, 2_000_000_000, "Hz"),
            Change("cpu.cores[0-19].governor", CHANGED, "performance", "powersave"),
            Change("cpu.cores[0-4,10-14].l2_bytes", CHANGED, 524288, 1048576, "By"),
            Change("cpu.cores[10-14].max_hertz", CHANGED, 2_860_000_000, 2_000_000_000, "Hz"),
        ] == list(changes(before, after).values())

    def test_cores_that_went(self) -> None:
        """Cores that are gone are one change for each type of core."""
        before = saved("fe-idle")
        after = deepcopy(before)
        after["cpu"]["cores"] = [core for core in after["cpu"]["cores"] if core["cpu"] < 10]

        assert [
            Change("cpu.cores[10-14]", REMOVED, "efficiency Cortex-A725", None),
            Change("cpu.cores[15-19]", REMOVED, "performance Cortex-X925", None),
        ] == list(changes(before, after).values())

    def test_other_values_stay_apart(self) -> None:
        """Cores that end at different values are different changes."""
        before = saved("fe-idle")
        after = deepcopy(before)
        for core in after["cpu"]["cores"][:3]:
            core["revision"] = f"r1p{core['cpu'] % 2}"

        assert ["cpu.cores[0,2].revision", "cpu.cores[1].revision"] == list(changes(before, after))


class TestScreen:
    """What a person sees."""

    def test_the_whole_screen(self) -> None:
        """Both sides are named with their origin; numbers have units that people use."""
        before = saved("fe-idle")
        after = deepcopy(before)
        after["machine"]["name"] = "fe-later"
        after["memory"]["total_bytes"] -= 2**31
        after["nvme"][0]["capacity_bytes"] = 1_000_204_886_016
        after["nics"][0]["mtu_bytes"] = 9000
        after["nics"] = [nic for nic in after["nics"] if nic["kind"] != "wifi"]
        after["gpu"][0]["max_clock_hertz"]["sm"] = 208_000_000
        after["gpu"][0]["persistence_mode"] = False

        assert """\
- fe-idle · synthetic · 2026-08-11T10:00:00+00:00
+ fe-later · synthetic · 2026-08-11T10:00:00+00:00

~ memory.total_bytes         121.7 GiB → 119.7 GiB
~ gpu[0].persistence_mode    yes → no
~ gpu[0].max_clock_hertz.sm  3.003 GHz → 208 MHz
~ nvme[nvme0].capacity_bytes 4.097 TB → 1 TB
~ nics[enP7s7].mtu_bytes     1500 B → 9000 B
- nics[wlP9s9]               wifi""" == screen(compare(before, after))

    def test_nothing(self) -> None:
        """That nothing differs is said, and what was not looked at."""
        same = saved("fe-idle")

        assert "no difference in the inventory (--all: readings too)" == screen(compare(same, same)).splitlines()[-1]
        assert "no difference" == screen(compare(same, same, everything=True)).splitlines()[-1]

    def test_no_two_values_look_alike(self) -> None:
        """Numbers that would look the same are shown to the last digit."""
        before = saved("fe-idle")
        after = deepcopy(before)
        total = before["memory"]["total_bytes"]
        after["memory"]["total_bytes"] = total + 4096

        assert f"{total} B → {total + 4096} B" in screen(compare(before, after), width=100)

    def test_nothing_is_cut_off(self) -> None:
        """On a narrow screen, long paths and values break."""
        before = saved("fe-idle")
        value = "".join(f"<{number:04}>" for number in range(50))
        lines = screen(compare(before, before | {"new": {"k" * 70: value}}), width=60).splitlines()[3:]

        assert 60 >= max(map(len, lines))
        assert "new." + "k" * 70 == "".join(line[2:42].strip() for line in lines)
        assert value == "".join(line[43:].strip() for line in lines)

    def test_a_reason_is_told_once(self) -> None:
        """Without the power driver much is absent for one reason; its detail is not repeated."""
        seen = screen(compare(saved("fe-idle"), saved("fe-stock"), everything=True), width=250)

        assert 1 == seen.count("no driver for it is installed")
        assert seen.count("(no_driver)") > 5

    def test_no_escapes(self) -> None:
        """What would move a terminal's cursor does not reach it: a document may come from anywhere."""
        before = saved("fe-idle")
        after = deepcopy(before)
        after["machine"]["name"] = "\x1b[2Jname"
        after["platform"] |= {"bios": "\x1b]0;title\x07", "key\x1b[1m": ["\r"]}
        after["gpu"][0] |= {"vbios": None, "absent": {"vbios": {"reason": "\x1b", "detail": "\x9b"}}}
        after["\x1b[3m"] = {"a": {"value": {"b": "\x1b"}}}

        assert not set("\x1b\x07\r\x9b") & set(screen(compare(before, after)))


class TestJson:
    """What a program reads."""

    def test_document(self) -> None:
        """One object for each change, all with the same keys."""
        found = json.loads(text(compare(saved("fe-stock"), saved("gx10-asleep"))))
        by_path = {change["path"]: change for change in found["changes"]}

        assert ("spark-agent/diff/1", "fe-stock", "gx10-asleep") == (found["schema"], found["before"], found["after"])
        assert [] == found["not_compared"]
        assert {
            "path": "platform.firmware_date",
            "kind": "removed",
            "before": saved("fe-stock")["platform"]["firmware_date"],
            "after": None,
            "unit": None,
            "reason": "not_found",
            "detail": "ENOENT /sys/class/dmi/id/bios_date",
        } == by_path["platform.firmware_date"]

    def test_order(self) -> None:
        """Changes come in the order of the document, even where a tool has sorted its keys."""
        before, after = (dict(sorted(saved(name).items())) for name in ("fe-stock", "gx10-asleep"))
        found = json.loads(text(compare(before, after, everything=True)))
        parts = list(dict.fromkeys(change["path"].replace("[", ".").partition(".")[0] for change in found["changes"]))

        assert [part for part in (*document.ORDER, "findings", "collectors") if part in parts] == parts


# Documents as nobody writes them, but of the words that are looked for.
_KNOWN = ("name", "value", "absent", "untrusted", "reason", "why", "cpu", "cores", "limits", "limit", "scopes", "kind")
_WORDS = st.sampled_from(_KNOWN)
_SCALARS = st.none() | st.booleans() | st.integers(-1, 10**13) | st.text(max_size=3) | st.sampled_from(["x", "0"])
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS | st.text(max_size=2), inner, max_size=4),
    max_leaves=12,
)
_PARTS = st.sampled_from([*document.ORDER, "findings", "collectors", "new"])
_documents = st.dictionaries(_PARTS, _ANYTHING, min_size=1, max_size=4).map(lambda found: found | {"always": 1})


@pytest.mark.once
class TestLaws:
    """What holds for any two documents."""

    @settings(deadline=None)
    @given(_documents, st.booleans())
    def test_nothing_differs_from_itself(self, found: Document, everything: bool) -> None:
        """A document never differs from itself."""
        assert {} == changes(found, deepcopy(found), everything=everything)

    @settings(deadline=None)
    @given(_documents, _documents, st.booleans())
    def test_a_mirror(self, one: Document, other: Document, everything: bool) -> None:
        """Compared the other way round, what was added is removed; and either way it can be told."""
        self._mirrored(one, other, everything=everything)

    @pytest.mark.parametrize("one", demos())
    def test_demos_are_mirrored(self, one: str) -> None:
        """The same holds for whole machines."""
        for other in demos():
            if one < other:
                self._mirrored(saved(one), saved(other), everything=False)
                self._mirrored(saved(one), saved(other), everything=True)

    @staticmethod
    def _mirrored(one: Document, other: Document, *, everything: bool) -> None:
        there, back = (compare(*pair, everything=everything) for pair in ((one, other), (other, one)))
        turned = [
            (change.path, TURNED[change.kind], change.after, change.before, change.reason, change.detail)
            for change in there.changes
        ]
        straight = [
            (change.path, change.kind, change.before, change.after, change.reason, change.detail)
            for change in back.changes
        ]

        assert sorted(map(repr, turned)) == sorted(map(repr, straight))
        assert set(there.not_compared) == set(back.not_compared)
        assert screen(there)
        assert len(there.changes) == len(json.loads(text(there))["changes"])


class TestCommand:
    """`spark-agent diff`."""

    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
        """Return a function that runs the command, and gives its exit code, its output and its complaint."""

        def run(*arguments: str | Path) -> tuple[int, str, str]:
            monkeypatch.setattr(sys, "argv", ["spark-agent", "diff", *map(str, arguments)])
            code = cli._run()
            out = capsys.readouterr()
            return code, out.out, out.err

        return run

    @staticmethod
    def archive(name: str) -> Path:
        """Return where a demo's archive is."""
        return DEMOS / f"{name}.tar.gz"

    def test_exit_codes(self, run: Any) -> None:
        """As diff(1): 0 where nothing differs, 1 where something does."""
        idle, gemm = self.archive("fe-idle"), self.archive("fe-gemm")
        same, _, _ = run(idle, idle)
        differs, out, _ = run(idle, gemm)

        assert (0, 1) == (same, differs)
        assert "+ nics[enp1s0f0np0]" in out

    def test_options(self, run: Any) -> None:
        """Readings on demand, and JSON."""
        idle, wedged = self.archive("fe-idle"), self.archive("fe-wedged")
        few, many = (json.loads(run(idle, wedged, "--output", "json", *more)[1]) for more in ([], ["--all"]))

        assert "fe-wedged" == few["after"]
        assert len(few["changes"]) < len(many["changes"])

    def test_sources(self, run: Any, tmp_path: Path) -> None:
        """A machine's folder, its archive and its saved document are the same machine, down to the readings."""
        write_folder(build("fe-gemm"), tmp_path / "folder")
        (tmp_path / "saved.json").write_text(document.text(document.document(demo_report("fe-gemm"))))
        (tmp_path / "private.json").write_text(document.text(document.document(demo_report("fe-gemm"), private=True)))

        for before, after in (
            (tmp_path / "folder", self.archive("fe-gemm")),
            (tmp_path / "folder", tmp_path / "saved.json"),
            (tmp_path / "saved.json", self.archive("fe-gemm")),
            (tmp_path / "private.json", tmp_path / "folder"),
        ):
            code, out, err = run("--all", before, after)
            assert (0, "") == (code, err), out

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (b"", "line 1, column 1: Expecting value"),
            (b'{"schema": ', "line 1, column 12: Expecting value"),
            (b'{"schema": "spark-agent/snapshot/99"}', "no document of schema spark-agent/snapshot/1"),
            (b"[]", "no document of schema spark-agent/snapshot/1"),
            (b"\xff\xfe\xfd", "codec can't decode"),
            (b'{"schema": "spark-agent/snapshot/1"}', "no part in common"),
        ],
    )
    def test_no_document(self, run: Any, tmp_path: Path, content: bytes, complaint: str) -> None:
        """What is no document is named with the reason, exit code 3, in one line."""
        path = tmp_path / "broken.json"
        path.write_bytes(content)
        code, out, err = run(path, self.archive("fe-idle"))

        assert (3, "", 1) == (code, out, len(err.splitlines()))
        assert err.startswith(f"spark-agent: {path}")
        assert complaint in err

    def test_no_machine(self, run: Any, tmp_path: Path) -> None:
        """A folder that is no machine is refused as clearly; a path that is not there is wrong usage."""
        code, _, err = run(tmp_path, self.archive("fe-idle"))
        assert (3, 1) == (code, len(err.splitlines()))

        code, _, err = run(tmp_path / "gone.json", self.archive("fe-idle"))
        assert 64 == code
        assert "does not exist" in err

    def test_help(self, run: Any) -> None:
        """The exit codes can be looked up where they are needed."""
        code, out, _ = run("--help")

        assert 0 == code
        assert "Exit codes" in out
