"""The service under a real systemd: it starts by its own word, and comes back from what can happen to it."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from systemd.conftest import replay
from systemd.container import REPO, Container, until

pytestmark = pytest.mark.install

UNIT = "spark-agent"
STATE = "/var/lib/private/spark-agent"
CONFIGURATION = "/etc/spark-agent/spark-agent.toml"
AGENT = "/opt/spark-agent/bin/spark-agent"
EXAMPLES = re.findall(r"^```ini\n(.*?)^```", (REPO / "docs" / "service.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def agent(machine: Container) -> Iterator[Container]:
    """Start the service; stop it, and forget its state, after the test."""
    machine.start(UNIT)
    yield machine
    machine.try_("systemctl", "stop", f"{UNIT}.socket", UNIT)
    machine.run("sh", "-c", f"rm -rf {STATE}/* {CONFIGURATION}; systemctl reset-failed {UNIT} 2>/dev/null || true")


def log(container: Container) -> str:
    """Return all that the service logged."""
    container.run("journalctl", "--sync")
    return container.journal("--unit", UNIT, "--lines=all")


def restarted(container: Container, pid: str) -> str:
    """Wait until another process serves, and return its number."""

    def another() -> str | None:
        new = container.show(UNIT, "MainPID")
        return new if new not in ("0", pid) and container.show(UNIT, "ActiveState") == "active" else None

    return until(another, lambda: log(container))


def test_start_waits_for_the_first_report(agent: Container) -> None:
    """`systemctl start` returns when there are numbers to serve, as the daemon itself says."""
    code, page = agent.get("/metrics")

    assert ("active", "running") == (agent.show(UNIT, "ActiveState"), agent.show(UNIT, "SubState"))
    assert "" != agent.show(UNIT, "StatusText")
    assert 200 == code
    assert re.search(r"^gb10_soc_power_watts 1[0-9]{2}", page, re.MULTILINE)
    assert 200 == agent.get("/-/ready")[0]


def test_status_command(agent: Container) -> None:
    """`spark-agent service status` finds the daemon, where it listens, and asks it."""
    done = agent.try_(AGENT, "service", "status")
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if not line.startswith("at boot"))

    assert (0, "") == (done.code, done.stderr)
    assert "127.0.0.1:10240" == rows["listening"]
    assert "ready (200)" == rows["ready"], done.stdout


def test_kill_9(agent: Container) -> None:
    """A daemon that was killed is back, and serves."""
    pid = agent.show(UNIT, "MainPID")
    agent.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT)
    restarted(agent, pid)

    assert "1" == agent.show(UNIT, "NRestarts")
    assert 200 == agent.get("/metrics")[0]


def test_hung(agent: Container) -> None:
    """A daemon whose beat does not go on is restarted by the watchdog, and says where each thread was."""
    pid = agent.show(UNIT, "MainPID")
    agent.run("kill", "-STOP", pid)
    restarted(agent, pid)

    logged = log(agent)
    assert "Watchdog timeout" in logged
    assert "Fatal Python error: Aborted" in logged
    assert 200 == agent.get("/-/healthy")[0]


def test_hung_driver(machine: Container) -> None:
    """A driver that stops answering costs the GPU's readings; the page, the beat and the process go on."""
    archive = machine.run("find", "/opt/spark-agent/lib", "-name", "fe-gemm.tar.gz").split()[0]
    machine.run("sh", "-c", f"mkdir -p /srv/hung && tar xzf {archive} -C /srv/hung")
    hang = {"t": 2, "nvml": {"nvmlDeviceGetPowerUsage": {"hang": True}}}
    machine.write("/srv/hung/timeline.jsonl", f"{json.dumps(hang)}\n")
    replay(machine, "--machine /srv/hung")
    try:
        machine.start(UNIT)
        pid, before = machine.show(UNIT, "MainPID"), machine.get("/metrics")[1]
        until(lambda: "gb10_gpu_nvml_power_watts{" not in machine.get("/metrics")[1] or None, lambda: log(machine))
        hung = float(sample(machine.get("/metrics")[1], "spark_agent_beats_total"))
        # More beats than the watchdog has patience for.
        until(lambda: float(sample(machine.get("/metrics")[1], "spark_agent_beats_total")) > hung + 5 or None)
        page = machine.get("/metrics")[1]

        assert "gb10_gpu_nvml_power_watts{" in before
        assert re.search(r"^gb10_soc_power_watts 1", page, re.MULTILINE)
        assert (pid, "0") == (machine.show(UNIT, "MainPID"), machine.show(UNIT, "NRestarts"))
    finally:
        machine.try_("systemctl", "stop", UNIT)
        replay(machine, "--demo fe-gemm")


def sample(page: str, name: str) -> str:
    """Return the value of a sample without labels."""
    return str(re.findall(rf"^{name} (\S+)", page, re.MULTILINE)[0])


def test_reload(agent: Container) -> None:
    """`systemctl reload` reads the settings again in the same process; bad ones leave the old ones in force."""
    pid = agent.show(UNIT, "MainPID")
    agent.write(CONFIGURATION, 'log.level = "debug"\n')
    agent.run("chmod", "644", CONFIGURATION)
    agent.run("systemctl", "reload", UNIT)
    until(lambda: "settings read again" in log(agent) or None, lambda: log(agent))
    agent.write(CONFIGURATION, "log.lvel = 3\n")
    agent.run("systemctl", "reload", UNIT)
    until(lambda: "stay in force" in log(agent) or None, lambda: log(agent))

    assert (pid, "active") == (agent.show(UNIT, "MainPID"), agent.show(UNIT, "ActiveState"))
    assert 200 == agent.get("/-/ready")[0]


def test_bad_settings_are_not_tried_again(machine: Container) -> None:
    """Settings that are wrong stay wrong: the start fails at once, with the line that says what is valid."""
    machine.write(CONFIGURATION, "log.lvel = 3\n")
    machine.run("chmod", "644", CONFIGURATION)
    done = machine.try_("systemctl", "start", UNIT)
    shown = {name: machine.show(UNIT, name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")}
    machine.run("rm", CONFIGURATION)

    assert 0 != done.code
    assert {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"} == shown
    assert "log.level" in log(machine)


def test_full_disk(machine: Container) -> None:
    """A state folder in which nothing can be written costs the state: the daemon starts and serves."""
    machine.run("sh", "-c", f"mkdir -p {STATE} && mount -t tmpfs -o size=16k tmpfs {STATE}")
    try:
        machine.try_("sh", "-c", f"cat /dev/zero >{STATE}/fill")
        assert "0" == machine.run("stat", "--file-system", "--format=%a", STATE).strip()
        machine.start(UNIT)

        assert 200 == machine.get("/metrics")[0]
        assert 200 == machine.get("/-/ready")[0]
    finally:
        machine.try_("systemctl", "stop", UNIT)
        machine.run("umount", STATE)


def test_the_sandbox_holds(machine: Container) -> None:
    """What the unit forbids is forbidden, and what the agent needs is not: asked by a program in its place."""
    seen = probe(machine)

    assert {
        "list /home": "EACCES",
        "list /root": "EACCES",
        "write /etc": "EROFS",
        "write /usr": "EROFS",
        "write state": "ok",
        "write runtime": "ok",
        "write /tmp": "ok",
        "write tunable": "EROFS",
        "read configuration": "ok",
        "read meminfo": "ok",
        "read sys": "ok",
        "read kernel log": "EACCES",
        # No such driver: what was to be shown is that the policy lets these two through, and no other.
        "device nvidiactl": "ENXIO",
        "device nvidia0": "ENXIO",
        "device nvidia1": "EPERM",
        "device fuse": "EPERM",
        "device null": "ok",
        "socket unix": "ok",
        "socket ipv4": "ok",
        "socket ipv6": "ok",
        "socket netlink": "ok",
        "socket packet": "EAFNOSUPPORT",
        "syscall mount": "EPERM",
        "syscall unshare": "EPERM",
        "syscall sched_setscheduler": "EPERM",
        "memory to write and run": "EPERM",
        "ctypes callback": "ok",
    } == seen["can"]
    assert 61184 <= seen["uid"] <= 65519, "DynamicUser takes one of this range"
    assert [seen["uid"]] == seen["groups"]
    assert [0, 0, 0, 0] == seen["capabilities"]
    assert ("1", "2", "0077", 5) == (seen["no_new_privileges"], seen["seccomp"], seen["umask"], seen["nice"])
    assert 1 == seen["processes"], "ProtectProc shows it none but its own"


def probe(machine: Container) -> dict[str, Any]:
    """Run the probe in a unit that is the service's own but for what it starts."""
    unit = machine.run("cat", f"/etc/systemd/system/{UNIT}.service")
    unit = re.sub(r"^(WatchdogSec|ExecReload|Restart\w*|NotifyAccess)=.*\n", "", unit, flags=re.MULTILINE)
    unit = re.sub(r"^ExecStart=.*", "ExecStart=/opt/spark-agent/bin/python /run/probe.py", unit, flags=re.MULTILINE)
    unit = unit.replace("Type=notify", "Type=oneshot\nStandardOutput=file:/run/probe.json\nStandardError=journal")
    machine.write("/run/probe.py", (Path(__file__).parent / "probe.py").read_text())
    machine.write("/run/systemd/system/probe.service", unit.replace("=spark-agent\n", "=probe\n"))
    nodes = {"nvidiactl": (195, 255), "nvidia0": (195, 0), "nvidia1": (195, 1), "fuse": (10, 229), "kmsg": (1, 11)}
    for name, (major, minor) in nodes.items():
        machine.run("sh", "-c", f"[ -e /dev/{name} ] || mknod -m 666 /dev/{name} c {major} {minor}")
    machine.run("systemctl", "daemon-reload")
    machine.start("probe")
    return dict(json.loads(machine.run("cat", "/run/probe.json")))


def test_exposure(machine: Container) -> None:
    """By systemd's own measure the service may do little: 1.5 or less, and the table is printed."""
    report = machine.run("systemd-analyze", "security", f"{UNIT}.service", "--no-pager")
    verdict = report.strip().splitlines()[-1]
    sys.stdout.write(f"{report}\n")

    assert float(re.findall(r"[0-9]+\.[0-9]", verdict)[0]) <= 1.5


def test_socket_activation(machine: Container) -> None:
    """With the socket unit a scrape while the service is down is not refused: systemd holds the port and starts it."""
    machine.run(AGENT, "service", "install", "--venv", "/opt/spark-agent", "--socket")
    try:
        again = machine.run(AGENT, "service", "install", "--venv", "/opt/spark-agent", "--socket")
        assert "active" == machine.show(UNIT, "ActiveState")
        assert 200 == machine.get("/-/ready")[0]
        machine.run("systemctl", "stop", UNIT)
        assert machine.get("/metrics")[0] in (200, 503)
        until(lambda: machine.get("/metrics")[0] == 200 or None, lambda: log(machine))
    finally:
        machine.run(AGENT, "service", "install", "--venv", "/opt/spark-agent", "--no-start")
        machine.run("systemctl", "stop", UNIT)
    assert again.startswith("nothing to do")
    assert "not-found" == machine.show(f"{UNIT}.socket", "LoadState")


@pytest.fixture
def drop_in(machine: Container) -> Iterator[Callable[[str], None]]:
    """Add an example of docs/service.md to the service, by a word in it; take it away after the test."""
    path = f"/run/systemd/system/{UNIT}.service.d/example.conf"

    def add(word: str) -> None:
        (example,) = [text for text in EXAMPLES if word in text]
        machine.write(path, example)
        machine.run("systemctl", "daemon-reload")

    yield add
    machine.try_("systemctl", "stop", UNIT)
    machine.run("rm", path)
    machine.run("systemctl", "daemon-reload")


def test_key_of_root(machine: Container, drop_in: Callable[[str], None]) -> None:
    """As docs/service.md has it, a key that only root can read serves HTTPS."""
    certificate = trustme.CA().issue_cert("rig")
    machine.write("/etc/spark-agent/tls.crt", certificate.cert_chain_pems[0].bytes())
    machine.write("/etc/spark-agent/tls.key", certificate.private_key_pem.bytes())
    machine.write("/etc/spark-agent/web.yml", "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n")
    machine.run("sh", "-c", "chmod 600 /etc/spark-agent/*")
    drop_in("tls.key")
    machine.start(UNIT)
    done, (code, _) = machine.try_(AGENT, "service", "status"), machine.get("/metrics")
    machine.run("sh", "-c", "rm /etc/spark-agent/*")

    assert "0.0.0.0:10240" in done.stdout or "[::]:10240" in done.stdout
    assert "ready (200)" in done.stdout
    assert 400 == code, "plain HTTP gets nothing"


def test_textfile_of_a_group(machine: Container, drop_in: Callable[[str], None]) -> None:
    """As docs/service.md has it, the service writes for node_exporter into a folder of a group."""
    machine.run("groupadd", "--system", "textfile")
    machine.run("install", "-d", "-g", "textfile", "-m", "2775", "/var/lib/textfile")
    drop_in("SPARK_AGENT_TEXTFILE")
    machine.start(UNIT)
    written = until(lambda: machine.run("find", "/var/lib/textfile", "-name", "*.prom").split(), lambda: log(machine))

    assert "644" == machine.run("stat", "--format=%a", *written).strip()
    assert "gb10_soc_power_watts" in machine.run("cat", *written)


def test_uninstall(machine: Container) -> None:
    """Uninstall leaves nothing but state, and may be said twice; the last test of this machine."""
    # From the environment that it runs from, which is one that the service can see.
    machine.run(AGENT, "service", "install")
    assert "active" == machine.show(UNIT, "ActiveState")
    command = (f"{sys.prefix}/bin/python", "-m", "spark_agent.agent", "service", "uninstall")
    machine.run(*command)

    assert "0" == machine.show(UNIT, "MainPID")
    assert "" == machine.run(
        "sh",
        "-c",
        "find /etc/systemd/system /opt -maxdepth 2 -name 'spark-agent*'",
    )
    assert "nothing to do: the service is not installed\n" == machine.run(*command)
