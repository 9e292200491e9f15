"""The doctor: worst first, what is fine, what cannot be told; on a replay at once, on this machine after a wait."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagine
import pytest
from demo import demo_report
from hosts import host
from jsonschema import Draft202012Validator
from looks import HEALTHY, SPARK, at, gb10, seconds, watched, watts
from rich.console import Console

from spark_agent.agent import cli, sampler
from spark_agent.agent.checkup import Outcome, checked
from spark_agent.agent.finding import WORST_FIRST, Severity
from spark_agent.agent.health import exit_code
from spark_agent.agent.machine import demos
from spark_agent.agent.report import Report, report
from spark_agent.collectors import Fact, Reading, Reason, gpu, platform, thermal
from spark_agent.exporters import diagnosis
from spark_agent.exporters.schema import schema

AGENT = (sys.executable, "-m", "spark_agent.agent")
NAMESPACE = Path(__file__).parent.parent / ".namespace"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command here, on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spark-agent", *map(str, arguments)])
        code = cli._run()
        return code, *capsys.readouterr()

    return call


def _json(run: Run, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    code, out, err = run(*arguments, "--output", "json")
    assert "" == err
    return code, json.loads(out)


def _screen(known: Report) -> str:
    out = io.StringIO()
    diagnosis.show(known, Console(file=out, width=80, highlight=False, markup=False, emoji=False))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _outcomes(known: Report) -> dict[str, Outcome]:
    return {check.id: check.outcome for check in checked(known)}


def _why(known: Report, id_: str) -> str:
    return next(check.why for check in checked(known) if check.id == id_)


def _folder(path: Path, nvml: dict[str, Any], steps: list[dict[str, Any]]) -> Path:
    """Write a small machine of which NVML is all there is."""
    (path / "root").mkdir(parents=True)
    (path / "machine.json").write_text(json.dumps({"format": 1, "name": "box", "origin": "synthetic"}))
    (path / "nvml.json").write_text(json.dumps({"init": "SUCCESS", "system": {}, "devices": [nvml]}))
    (path / "timeline.jsonl").write_text("".join(f"{json.dumps(step)}\n" for step in steps))
    return path


_STUCK = {
    "nvmlDeviceGetName": "NVIDIA GB10",
    "nvmlDeviceGetPowerUsage": 19_500,
    "nvmlDeviceGetUtilizationRates": {"gpu": 96, "memory": 0},
    "nvmlDeviceGetClockInfo": {"SM": 799, "GRAPHICS": 799},
    "nvmlDeviceGetPerformanceState": 0,
    "nvmlDeviceGetCurrentClocksEventReasons": 0,
}


class TestDemos:
    """Machines that are known."""

    def test_at_its_limit_is_no_fault(self, run: Run) -> None:
        """Compute-bound, with the headroom of PL1 and not of the adapter."""
        code, out, err = run("--demo", "fe-gemm", "doctor")
        assert (0, "") == (code, err)
        assert "ok: nothing to mend" in out
        assert "info: SoC: at its power limit; compute-bound, no fault" in out
        assert "headroom 0.3 W before PL1 (SoC, sustained) binds: 139.7 of 140 W" in out

    @pytest.mark.parametrize("name", demos())
    def test_the_exit_code_is_that_of_the_worst(self, run: Run, name: str) -> None:
        """In either form, watched or not; after a minute `driver-lost` has its driver back, and not yet its GPU."""
        code = 2 if name.startswith("fe-wedged") else 0
        assert (code, "") == run("--demo", name, "doctor")[::2]
        got, found = _json(run, "--demo", name, "doctor", "--for", "60")
        assert (3 if name == "driver-lost" else code, 60.0) == (got, found["watched_seconds"])
        assert got == Severity(found["severity"]).exit_code

    @pytest.mark.parametrize("name", demos())
    def test_golden(self, name: str, golden: Callable[[str, str], None]) -> None:
        """Every screen is as somebody has looked at."""
        golden(f"{name}.doctor.txt", _screen(demo_report(name)))

    @pytest.mark.parametrize("name", demos())
    def test_all_is_told_worst_first_and_nothing_twice(self, name: str) -> None:
        """Each check has one outcome, and a reason where it cannot be told."""
        known = demo_report(name)
        found = diagnosis.diagnosis(known)
        order = [WORST_FIRST.index(Severity(one["severity"])) for one in found["findings"]]
        assert sorted(order) == order
        ids = [check["id"] for check in found["checks"]]
        assert sorted(set(ids)) == sorted(ids)
        told = {finding["id"] for finding in found["findings"]}
        for check in found["checks"]:
            assert {"found": 1, "unknown": 2, "fine": 0}[check["outcome"]] == bool(check["findings"]) + 2 * bool(
                check["why"]
            )
            assert told >= set(check["findings"])

    @pytest.mark.parametrize("name", demos())
    def test_findings_are_those_of_the_document(self, run: Run, name: str) -> None:
        """With the same keys, so that one reader does for both; so are headroom and verdicts."""
        _, found = _json(run, "--demo", name, "doctor")
        _, whole = _json(run, "--demo", name, "snapshot")
        assert "spark-agent/doctor/1" == found["schema"]
        assert {key: whole[key] for key in ("agent", "machine", "findings")} == {
            key: found[key] for key in ("agent", "machine", "findings")
        }
        assert (whole["power"]["headroom"], whole["power"]["verdicts"]) == (found["headroom"], found["verdicts"])
        known = schema(closed=True)["properties"]
        Draft202012Validator(known["findings"]).validate(found["findings"])

    @pytest.mark.parametrize("name", demos())
    def test_every_finding_is_some_checks(self, name: str) -> None:
        """But for parts that are as specified."""
        known = demo_report(name)
        plain = {f"specification_{part.id}" for part in known.parts if part.match != "differs"}
        made = {id_ for check in checked(known) for id_ in check.findings}
        assert {finding.id for finding in known.findings} - plain == made


def test_a_machine_with_everything_wrong(run: Run, tmp_path: Path) -> None:
    """From the files on: a lone twin, a fatal PCIe error on the way, no memory, a hot SoC and a hot drive."""
    machine = imagine.build("dell-cx7")
    files = machine.files

    def path(end: str) -> str:
        return next(one for one in files if one.endswith(end))

    files[path("/enp1s0f0np0/operstate")] = "up\n"
    files[path("/temp1_max").replace("_max", "_input")] = "83000\n"
    errors, zone = path("0000:01:00.0/aer_dev_fatal"), path("/thermal_zone0/temp")
    counted, amounts = files[errors], files["/proc/meminfo"]
    few = re.sub(r"(MemAvailable: +)[0-9]+", rf"\g<1>{3 * 2**20}", amounts)
    machine.move(
        lambda t: {
            errors: counted.replace("TOTAL_ERR_FATAL 0", f"TOTAL_ERR_FATAL {int(t > 20)}"),
            zone: 95_000,
            "/proc/meminfo": few,
        }
    )
    imagine.write_folder(machine, tmp_path / "sick")
    code, found = _json(run, "--machine", tmp_path / "sick", "doctor", "--for", "60")
    assert 2 == code
    assert ["memory_low", "pcie_errors", "too_hot", "nvme_hot", "connectx7_twin_down", "gpu_only"] == [
        finding["id"] for finding in found["findings"] if not finding["id"].startswith("specification_")
    ]


_ZONE = Reading(thermal.TEMPERATURE, 40, "thermal_zone0")


class TestChecks:
    """What is fine, and what cannot be told, and why."""

    def test_a_gpu_without_load(self) -> None:
        """Its clock says nothing, watched or not; never an alarm."""
        idle = gb10(0.0, 208, 5, pstate="P8")
        once, (*_, long) = report(at(0, *idle)), watched(seconds(0, 120, *idle))
        for known in (once, long):
            assert Outcome.UNKNOWN is _outcomes(known)["stuck"]
            assert "the GPU is 0% busy, and only under load its clock says anything" in _why(known, "stuck")
            assert 0 == exit_code(known.findings)

    def test_a_gpu_under_load(self) -> None:
        """One look at a healthy clock is enough to say that it is not stuck now."""
        assert Outcome.FINE is _outcomes(report(at(0, *gb10(0.97, 2395, 46))))["stuck"]
        *_, after = watched([*seconds(0, 40, *gb10(0.97, 2395, 46)), *seconds(40, 60, *gb10(0, 2411, 11))])
        assert Outcome.FINE is _outcomes(after)["stuck"]

    def test_a_gpu_that_looks_stuck(self) -> None:
        """Not yet, then found."""
        low = gb10(0.96, 799, 19.5)
        *_, early = watched(seconds(0, 20, *low))
        assert "it looks so after 19 s of load, and 30 s decide" == _why(early, "stuck")
        *_, late = watched(seconds(0, 40, *low))
        assert Outcome.FOUND is _outcomes(late)["stuck"]
        assert Outcome.FOUND is _outcomes(report(at(0, *low)))["stuck"]

    @pytest.mark.parametrize(
        ("check", "items", "why"),
        [
            ("limits", (), "no driver shows the limits in force"),
            ("limits", HEALTHY, ""),
            ("budget", watts(system=25), "nothing measures what system and SoC draw"),
            ("budget", watts(system=25, soc=17), ""),
            ("readings", (), "there is no reading of any power"),
            ("memory", (), "not looked at"),
            ("stuck", (), "not looked at"),
            ("stuck", (Reading(gpu.UTILIZATION, 0.5, "0"),), "NVML does not give load, clock and power of the GPU"),
            ("cpu", (), "nothing measures what the SoC draws"),
            ("cpu", watts(soc=17), "it takes more than one look: `spark-agent doctor --for 60`"),
            (
                "heat",
                (Reading(thermal.TEMPERATURE, 40, "x"),),
                "no sensor names the temperature at which it shuts down",
            ),
            ("nvme_wear", (), "not looked at"),
            ("pcie", (), "no device counts them"),
        ],
    )
    def test_reasons(self, check: str, items: tuple[Any, ...], why: str) -> None:
        """In plain words."""
        assert why == _why(report(at(0, SPARK, *items)), check)

    def test_a_collector_that_was_absent_says_why(self) -> None:
        """In its own words."""
        known = report(at(0, SPARK, without={"gpu": Reason.NO_LIBRARY, "nic": Reason.NO_DEVICE}))
        assert ["gpu: why", "nic: why"] == [_why(known, "stuck"), _why(known, "connectx7")]

    def test_elsewhere(self) -> None:
        """Of a PC less is known, and it is said."""
        known = report(at(0, Fact(platform.IS_SPARK, False), Reading(gpu.UTILIZATION, 0.5, "0")))
        assert "only of a Spark is it known what it looks like" == _why(known, "stuck")


@pytest.mark.once
class TestFor:
    """Watching for long enough."""

    def test_a_replay_takes_no_time(self, run: Run, tmp_path: Path) -> None:
        """A stock Spark that is stuck: one look says that it may be, half a minute that it probably is."""
        machine = _folder(tmp_path / "box", _STUCK, [])
        once, found = _json(run, "--machine", machine, "doctor")
        assert (0, "info") == (once, next(one["severity"] for one in found["findings"] if "stuck" in one["id"]))
        for seconds_, id_ in (("60", "stuck_low_power"), ("3600", "capped_low")):
            code, found = _json(run, "--machine", machine, "doctor", "--for", seconds_)
            # A warning, for the clock of this machine stands still, as a locked one would.
            assert (1, id_) == (code, found["findings"][0]["id"])

    def test_it_plays_on_from_at(self, run: Run, tmp_path: Path) -> None:
        """And knows what came before, as a daemon would."""
        healthy = {"nvmlDeviceGetClockInfo": {"SM": 2395, "GRAPHICS": 2395}, "nvmlDeviceGetPowerUsage": 46_000}
        machine = _folder(tmp_path / "box", _STUCK, [{"t": 50, "nvml": healthy}])
        codes = {
            played: _json(run, "--machine", machine, *played.split(), "doctor", *lasting.split())[0]
            for played, lasting in (("--at 10", "--for 25"), ("--at 40", ""), ("--at 45", "--for 10"), ("", "--for 20"))
        }
        assert {"--at 10": 1, "--at 40": 1, "--at 45": 0, "": 0} == codes

    @pytest.mark.parametrize("value", ["nan", "inf", "-1", "soon"])
    def test_nonsense(self, run: Run, value: str) -> None:
        """64, and what is wrong."""
        code, out, err = run("--demo", "fe-gemm", "doctor", "--for", value)
        assert (64, "") == (code, out)
        assert "--for" in err

    def test_zero_is_one_look(self, run: Run) -> None:
        """As without it."""
        assert "Doctor, after one look" in run("--demo", "fe-gemm", "doctor", "--for", "0")[1]

    def test_this_machine(self, run: Run) -> None:
        """It waits, and tells for how long it watched; no progress where stderr is no terminal."""
        code, found = _json(run, "--interval", "0.1", "doctor", "--for", "0.3")
        assert code in (0, 1, 2, 3)
        assert 0.2 <= found["watched_seconds"]
        assert not found["interrupted"]

    def test_a_fault_at_the_last_look(self) -> None:
        """The last look is a whole one, however slow a source is."""
        known, is_cut = sampler.look_on(host(), {"platform": lambda _: ()}, 0.0, 0.01)
        assert not is_cut
        assert known.snapshot.visit("platform")

    def test_ctrl_c_tells_what_is_known(self) -> None:
        """With 130, for it is not what was asked for; a terminal shows how far it is."""
        own, its = pty.openpty()
        process = subprocess.Popen(
            (*AGENT, "--interval", "0.2", "doctor", "--for", "10", "--output", "json"),
            stdout=subprocess.PIPE,
            stderr=its,
            env={**os.environ, "PYTHONPATH": str(NAMESPACE), "COLUMNS": "80", "TERM": "xterm"},
            # A shell without job control lets its children ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )
        os.close(its)
        try:
            shown = b""
            while b"0%" not in shown.replace(b" 0%", b""):
                shown += os.read(own, 4096)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
            os.close(own)
        assert b"watching" in shown
        assert 130 == process.returncode
        found = json.loads(out)
        assert found["interrupted"]
        assert 0 < found["watched_seconds"] < 10
