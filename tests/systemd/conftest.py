"""A booted machine with the service installed, as a person would: once for all tests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from systemd.container import CannotBootError, Container

#: Shorter times, so that a test waits for seconds; and any number of restarts.
HASTE = """\
[Unit]
StartLimitIntervalSec=0
[Service]
WatchdogSec=4s
RestartSec=100ms
"""


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Boot a machine; skip where that cannot be done."""
    try:
        container = Container.boot(tmp_path_factory.mktemp("container"))
    except CannotBootError as error:
        pytest.skip(str(error))
    try:
        yield container
    finally:
        container.power_off()


@pytest.fixture(scope="module")
def machine(boot: Container) -> Container:
    """Install the service, with a replayed Spark behind it."""
    # For a Python that only a home directory has: /opt/python is the same one, where the service sees it.
    boot.run("sh", "-c", "ln -sf /opt/python/bin/python3.*[0-9] /usr/local/bin")
    boot.write("/etc/ld.so.conf.d/python.conf", "/opt/python/lib\n")
    boot.run("ldconfig")
    boot.write("/run/systemd/system/spark-agent.service.d/haste.conf", HASTE)
    replay(boot, "--demo fe-gemm")
    boot.run(
        Path(sys.prefix, "bin", "python"),
        "-m",
        "spark_agent.agent",
        "service",
        "install",
        "--venv",
        "/opt/spark-agent",
        "--no-start",
    )
    return boot


def replay(container: Container, which: str) -> None:
    """Let the service look at a replayed machine from its next start on."""
    container.write(
        "/run/systemd/system/spark-agent.service.d/replay.conf",
        f"[Service]\nExecStart=\nExecStart=/opt/spark-agent/bin/spark-agent {which} serve\n",
    )
    container.run("systemctl", "daemon-reload")
