"""edgeq as a service on a booted Debian: installed as the README says, and then all that happens to boxes in cupboards.

`scripts/test systemd` runs these. After each test, nothing that the broker has acknowledged is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.container import Unfit
from support.gateway import Gateway, typed

pytestmark = [pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One with edgeq and a sensor, for all tests of this file."""
    try:
        made = Gateway(tmp_path_factory.mktemp("gateway"))
        made.boot()
    except Unfit as error:
        pytest.skip(f"no container: {error}")
    try:
        made.begin()
        made.count()
        yield made
    finally:
        made.stop()


@pytest.fixture
def gateway(machine: Gateway) -> Iterator[Gateway]:
    """It runs, and after the test nothing is missing."""
    machine.until(lambda: machine.show()["StatusText"].startswith("broker: connected"), "the session")
    yield machine
    machine.nothing_is_missing()


def test_a_second_installation_changes_nothing(gateway: Gateway) -> None:
    def look() -> str:
        return gateway.shell(
            "find /opt/edgeq /etc /usr/local /var/lib/edgeq -not -path '*/__pycache__*' -not -name 'edgeq.db*' "
            "-not -path /var/lib/edgeq -printf '%p %m %u %g %T@ %l\\n' | sort"
        )

    before, pid = look(), gateway.show()["MainPID"]
    said = gateway.install(typed("sudo scripts/install --mosquitto"))
    assert [line for line in said.splitlines() if "is installed" not in line] == []
    assert (look(), gateway.show()["MainPID"]) == (before, pid)


def test_secrets_and_data_are_not_for_everybody(gateway: Gateway) -> None:
    modes = gateway.shell(
        "stat -c '%a %U:%G %n' /etc/edgeq/secrets /etc/edgeq/secrets/mqtt-password /etc/mosquitto/edgeq.passwd "
        "/var/lib/edgeq /var/lib/edgeq/edgeq.db /opt/edgeq/current/"
    )
    assert modes.splitlines() == [
        "700 root:root /etc/edgeq/secrets",
        "600 root:root /etc/edgeq/secrets/mqtt-password",
        "640 root:mosquitto /etc/mosquitto/edgeq.passwd",
        "750 edgeq:edgeq /var/lib/edgeq",
        "640 edgeq:edgeq /var/lib/edgeq/edgeq.db",
        "755 root:root /opt/edgeq/current/",
    ]
    assert gateway.show()["User"] == "edgeq"


@pytest.mark.parametrize("unit", ["edgeq.service", "edgeq-worker@video.service"])
def test_the_units_leave_little_open(gateway: Gateway, unit: str) -> None:
    said = gateway.shell(f"systemd-analyze security --no-pager --json=short --threshold=20 {unit}")
    assert json.loads(said)


def test_a_killed_edgeq_runs_again(gateway: Gateway) -> None:
    before = gateway.show()
    gateway.edit("edgeq", "RestartSec=1")
    gateway.shell(f"kill -9 {before['MainPID']}")
    gateway.until(lambda: int(gateway.show()["NRestarts"]) > int(before["NRestarts"]), "the restart")
    gateway.until(lambda: gateway.show()["ActiveState"] == "active", "the service")
    gateway.nothing_is_missing()
    gateway.edit("edgeq", "")
