"""The audit as the daemon does it: again and again, only after a change, and whatever it meets."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rigs import until

from spark_agent.agent.audit import files
from spark_agent.agent.audit.audit import audit, write_baseline
from spark_agent.agent.audit.catalogue import Catalogue
from spark_agent.agent.audit.claim import Finding, Severity, Unreadable
from spark_agent.agent.auditor import MAX_BYTES, Auditor, Tally, auditor
from spark_agent.agent.config import ConfigError, Settings


@dataclass
class Audited:
    """What an audit found."""

    findings: tuple[Finding, ...] = ()
    errors: tuple[Unreadable, ...] = ()


def found(rule: str) -> Finding:
    """Return a finding of a rule."""
    return Finding(rule, Severity.WARNING, "some.yml", 1, "a panel", "up", "it is wrong")


@dataclass
class Audit:
    """Finds what a test says, and notes what it was asked for."""

    finds: Audited = field(default_factory=Audited)
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, paths: Sequence[str]) -> Audited:
        """Audit."""
        self.asked.append(tuple(paths))
        return self.finds


def counted(tally: Tally | None) -> tuple[dict[str, int], int]:
    """Return what was found, whenever that was."""
    assert tally
    return dict(tally.findings), tally.errors


def test_nothing_is_told_before_it_was_audited(tmp_path: Path) -> None:
    """No 0 that nobody counted."""
    assert Auditor(Audit(), ("PWR001",), (tmp_path,), 300).tally is None


def test_each_rule_is_counted(tmp_path: Path) -> None:
    """Those that found nothing too, or there would be nothing to alert on; and what could not be read."""
    finds = Audited((found("PWR003"), found("PWR001"), found("PWR003")), (Unreadable("x.yml", "no YAML"),))
    audit = Audit(finds)
    auditor = Auditor(audit, ("PWR001", "PWR002"), (tmp_path,), 300)
    auditor.look()
    assert ({"PWR001": 1, "PWR002": 0, "PWR003": 2}, 1) == counted(auditor.tally)
    assert [(str(tmp_path),)] == audit.asked


def test_what_did_not_change_is_not_audited_again(tmp_path: Path) -> None:
    """But is known to hold until now; a file that is new, other, or gone, below a folder too, is a change."""
    (tmp_path / "rules").mkdir()
    file = tmp_path / "rules" / "some.yml"
    audit = Audit()
    auditor = Auditor(audit, (), (tmp_path, tmp_path / "missing"), 300)

    def audits() -> int:
        auditor.look()
        return len(audit.asked)

    assert 1 == audits()
    first = auditor.tally
    assert 1 == audits()
    assert first
    assert auditor.tally
    assert auditor.tally.at > first.at
    file.write_text("a")
    assert 2 == audits() == audits()
    file.write_text("ab")
    assert 3 == audits()
    os.utime(file, ns=(1, 1))
    assert 4 == audits()
    file.unlink()
    assert 5 == audits()
    (tmp_path / "missing").write_text("")
    assert 6 == audits() == audits()


def test_what_cannot_be_read_is_logged_when_it_is_audited(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And not again while it stays so."""
    auditor = Auditor(Audit(Audited(errors=(Unreadable("x.yml", "no YAML"),))), (), (tmp_path,), 300)
    auditor.look()
    auditor.look()
    assert 1 == caplog.text.count("cannot be audited: x.yml: no YAML")


def test_it_goes_on_after_a_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In its thread, until it is stopped; what it counted before stays as old as it is."""
    caplog.set_level(logging.ERROR)
    calls: list[int] = []

    def audit(_: Sequence[str]) -> Audited:
        calls.append(1)
        if len(calls) == 1:
            raise RecursionError("too deep")
        return Audited((found("PWR001"),))

    auditor = Auditor(audit, (), (tmp_path,), 0.01)
    auditor.start()
    try:
        until(lambda: auditor.tally)
    finally:
        auditor.stop()
    assert ({"PWR001": 1}, 0) == counted(auditor.tally)
    assert "the audit failed" in caplog.text


def test_too_much_is_not_audited(tmp_path: Path) -> None:
    """The service's memory is limited: it goes on without, and says so as an error."""
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    (tmp_path / "b.log").write_bytes(b"")
    asked = []

    def audit_(paths: Sequence[str]) -> Audited:
        asked.append(paths)
        return Audited()

    auditor = Auditor(audit_, ("PWR001",), (tmp_path,), 1)
    auditor.look()
    assert auditor.tally
    assert ([], {}, 1) == (asked, auditor.tally.findings, auditor.tally.errors)
    (tmp_path / "a.json").rename(tmp_path / "a.log")
    auditor.look()
    assert ({"PWR001": 0}, 0) == (auditor.tally.findings, auditor.tally.errors)


class TestSettings:
    """The audit that the settings ask for."""

    _RULES = "groups: [{name: g, rules: [{record: 'node:power:watts', expr: sum(rack_watts)}]}]"

    def test_an_own_catalogue_counts(self, tmp_path: Path) -> None:
        """A metric that only its owner knows is judged as the owner says."""
        (tmp_path / "rules.yml").write_text(self._RULES)
        own = tmp_path / "metrics.toml"
        own.write_text('[metrics.rack_watts]\nscope = "gpu"\nunit = "W"\n')
        counts = []
        for metrics in (None, own):
            made = auditor(Settings(audit=(tmp_path / "rules.yml",), audit_metrics=metrics))
            assert made
            made.look()
            assert made.tally
            counts.append(made.tally.findings["PWR001"])
        assert [0, 1] == counts

    def test_a_baseline_counts(self, tmp_path: Path) -> None:
        """What its owner accepts is not counted."""
        rules = tmp_path / "rules.yml"
        rules.write_text(self._RULES.replace("rack_watts", "DCGM_FI_DEV_POWER_USAGE"))
        accepted = audit(files.read([str(rules)]), Catalogue())
        write_baseline(tmp_path / "accepted.json", accepted)
        made = auditor(Settings(audit=(rules,), audit_baseline=tmp_path / "accepted.json"))
        assert made
        made.look()
        assert made.tally
        assert (1, 0) == (len(accepted.findings), sum(made.tally.findings.values()))

    @pytest.mark.parametrize(
        "settings",
        [
            Settings(audit=(Path("/"),), audit_metrics=Path("/nowhere/x")),
            Settings(audit=(Path("/"),), audit_baseline=Path("/nowhere/x")),
        ],
        ids=["metrics", "baseline"],
    )
    def test_a_file_that_cannot_be_used_is_a_wrong_configuration(self, settings: Settings) -> None:
        """The file is named, and nothing starts."""
        with pytest.raises(ConfigError, match="/nowhere/x: No such file"):
            auditor(settings)
