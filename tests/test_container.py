"""edgeq as a service on a booted Debian: installed as the README says, and then all that happens to boxes in cupboards.

`scripts/test systemd` runs these. After each test, nothing that the broker has acknowledged is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.container import Unfit
from support.gateway import Gateway, gateway_in, typed

pytestmark = [pytest.mark.timeout(1200)]

# Blocks the event loop, once.
HANGS = """\
import time
from pathlib import Path
from edgeq import Router

router = Router()

@router.on("sensors/{name}/hang")
async def hang(ctx, name):
    if not Path("/var/lib/edgeq/hung").exists():
        Path("/var/lib/edgeq/hung").touch()
        time.sleep(3600)
    ctx.emit("hung")
"""
HANGING = "app: {path: app, modules: [hanging]}\n"
WORKS = """\
import os
from edgeq import job

@job
def whoami():
    return os.getpid()

@job(max_attempts=1)
def hungry():
    return len(b"x" * (300 * 2**20))
"""
WORKING = "app: {path: app, modules: [working]}\njobs: {queues: {video: {}}}\n"
HUNGRY = "app: {path: app, modules: [working]}\njobs: {queues: {hungry: {isolation: process}}}\n"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """For all tests of this file."""
    with gateway_in(tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest.fixture
def gateway(machine: Gateway) -> Iterator[Gateway]:
    """It runs, and after the test, when what that has changed is taken back, nothing is missing."""
    machine.until_connected()
    yield machine
    machine.restore()
    machine.until_connected()
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


def test_the_doctor_finds_nothing_wrong_with_the_installation(gateway: Gateway) -> None:
    found = [json.loads(line) for line in gateway.run("edgeq", "doctor", "--json").stdout.splitlines()]
    assert not [each for each in found if each["state"] == "bad"]
    ours = ("configuration", "appliance", "unit", "store", "broker")
    assert not [each for each in found if each["check"] in ours and each["state"] == "warn"]


@pytest.mark.parametrize("unit", ["edgeq.service", "edgeq-worker@video.service"])
def test_the_units_leave_little_open(gateway: Gateway, unit: str) -> None:
    said = gateway.shell(f"systemd-analyze security --no-pager --json=short --threshold=20 {unit}")
    assert json.loads(said)


def test_a_killed_edgeq_runs_again(gateway: Gateway) -> None:
    before = gateway.show()
    gateway.edit("RestartSec=1")
    gateway.shell(f"kill -9 {before['MainPID']}")
    gateway.until(lambda: int(gateway.show()["NRestarts"]) > int(before["NRestarts"]), "the restart")
    gateway.until_connected()
    assert gateway.show()["MainPID"] != before["MainPID"]


def test_the_watchdog_ends_a_loop_that_hangs_and_the_log_says_where(gateway: Gateway) -> None:
    gateway.edit("RestartSec=1\nWatchdogSec=5")
    gateway.put("etc/edgeq/app/hanging.py", HANGS)
    gateway.configure(HANGING)
    gateway.shell("edgeq check; systemctl restart edgeq")
    gateway.until_connected()
    before = gateway.show()
    gateway.shell("mosquitto_pub -u bed-1 -P a-password -t sensors/bed-1/hang -m 1 -q 1")
    gateway.until(lambda: int(gateway.show()["NRestarts"]) > int(before["NRestarts"]), "the watchdog")
    gateway.until_connected()
    gateway.until(lambda: "Watchdog timeout (limit 5s)!" in gateway.log(), "the journal to tell of the watchdog")
    gateway.until(lambda: 'hanging.py", line 11 in hang' in gateway.log(), "the journal to say where it hung")
    gateway.until(lambda: gateway.rows("SELECT id FROM events WHERE type = 'hung'"), "the message that it hung on")


def test_a_boot_is_like_any_other(gateway: Gateway) -> None:
    before = len(gateway.promised())
    gateway.reboot()
    gateway.until_connected()
    gateway.until(lambda: len(gateway.promised()) > before, "numbers after the boot")
    assert gateway.show()["NRestarts"] == "0"


def test_a_boot_without_the_broker_is_waited_out(gateway: Gateway) -> None:
    gateway.shell("systemctl disable --quiet mosquitto")
    gateway.reboot()
    unit = gateway.show()
    assert (unit["ActiveState"], unit["NRestarts"]) == ("active", "0"), "the boot was not held up"

    def told() -> bool:
        """What is missing, and why: it may be in the midst of a further try whenever one looks."""
        text = gateway.show()["StatusText"]
        return text.startswith("broker: disconnected (") and "connected yet" not in text

    gateway.until(told, "a first try")
    gateway.shell("systemctl enable --quiet --now mosquitto")
    gateway.until_connected()
    assert gateway.show()["NRestarts"] == "0"


def test_a_wrong_configuration_stays_down_until_it_is_right(gateway: Gateway) -> None:
    gateway.edit("RestartSec=0")
    gateway.configure("gatewy: x\n")
    gateway.shell("systemctl reload edgeq")
    gateway.until(lambda: "the one in use stays" in gateway.log(), "the refusal")
    assert gateway.show()["ActiveState"] == "active", "a reload doesn't end it"
    gateway.shell("systemctl restart edgeq", check=False)
    gateway.until(lambda: gateway.show()["ActiveState"] == "failed", "the end")
    unit = gateway.show()
    assert (unit["ExecMainStatus"], unit["NRestarts"]) == ("78", "0")
    told = "test.yaml:1: gatewy: unknown key (did you mean 'gateway'?)"
    gateway.until(lambda: told in gateway.log(), "the journal to say why")


def test_a_reload_takes_a_new_route_and_keeps_the_process(gateway: Gateway) -> None:
    before = gateway.show()["MainPID"]
    gateway.configure('routes:\n  - {topic: "sensors/+/count", emit: "also.counted"}\n')
    gateway.shell("systemctl reload edgeq")
    gateway.until(lambda: gateway.rows("SELECT id FROM events WHERE type = 'also.counted'"), "the new route")
    assert gateway.show()["MainPID"] == before


def test_it_ends_in_peace_well_within_its_time(gateway: Gateway) -> None:
    gateway.shell("systemctl stop edgeq")
    unit = gateway.show()
    assert (unit["Result"], unit["ExecMainStatus"]) == ("success", "0")
    seconds = (int(unit["InactiveEnterTimestampMonotonic"]) - int(unit["ActiveExitTimestampMonotonic"])) / 1e6
    assert seconds < int(unit["TimeoutStopUSec"].removesuffix("min")) * 60
    gateway.until(
        lambda: any(line.endswith(" stopped") for line in gateway.log().splitlines()), "the journal to say that it did"
    )
    gateway.shell("systemctl start edgeq")


def test_a_worker_is_a_service_of_its_own(gateway: Gateway) -> None:
    gateway.put("etc/edgeq/app/working.py", WORKS)
    gateway.configure(WORKING)
    gateway.shell(typed("sudo systemctl enable --now edgeq-worker@video"))
    worker = gateway.show("edgeq-worker@video")
    assert (worker["ActiveState"], worker["User"]) == ("active", "edgeq")
    gateway.shell("edgeq jobs dispatch working:whoami --queue video")
    gateway.until(lambda: gateway.rows("SELECT id FROM jobs WHERE state = 'completed'"), "the job")
    ((result,),) = gateway.rows("SELECT result FROM jobs WHERE state = 'completed'")
    assert json.loads(str(result)) == int(worker["MainPID"]), "it ran there"
    gateway.shell("systemctl disable --now edgeq-worker@video")


def test_more_memory_than_is_allowed_costs_only_the_job(gateway: Gateway) -> None:
    """The job takes more than the unit may have; the kernel ends its process, and edgeq goes on."""
    gateway.put("etc/edgeq/app/working.py", WORKS)
    gateway.configure(HUNGRY)
    gateway.edit("MemoryMax=128M")
    gateway.shell("systemctl restart edgeq")
    try:
        gateway.limit_memory("edgeq", 128 * 2**20)
    except Unfit as error:
        pytest.skip(str(error))
    gateway.until_connected()
    before = gateway.show()["MainPID"]
    gateway.shell("edgeq jobs dispatch working:hungry --queue hungry")
    gateway.until(lambda: gateway.rows("SELECT id FROM jobs WHERE state = 'dead'"), "the end of the job")
    unit = gateway.show()
    assert (unit["MainPID"], unit["ActiveState"], unit["NRestarts"]) == (before, "active", "0")
