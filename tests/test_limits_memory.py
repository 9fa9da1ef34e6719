"""edgeq in as little memory as a small gateway leaves it takes a flood in; and the bench of it measures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.appliance import Appliance
from support.benches import bench
from support.mosquitto import Mosquitto, find_mosquitto, free_port

MIB = 2**20
FLOOD = 50_000
CONFIGURATION = """\
gateway: small
mqtt: {{url: "{url}"}}
web: {{listen: "127.0.0.1:{port}"}}
routes: [{{topic: "flood/{{device}}", emit: flooded, subject: "{{device}}"}}]
processors: {{sentinel: {{kind: sentinel, start: beginning}}}}
contracts: [{{name: cool, kind: threshold, of: flooded, field: value, above: 1000000}}]
"""


@pytest.fixture(name="limits")
def _limits() -> Iterator[ModuleType]:
    with bench("limits") as module:
        yield module


@pytest.fixture
def cgroup(limits: ModuleType) -> Iterator[Any]:
    """One with 128 MiB."""
    try:
        with limits.Cgroup(128 * MIB) as made:
            yield made
    except limits.NoCgroupError as error:
        pytest.skip(str(error))


@pytest.mark.timeout(300)
def test_a_flood_is_taken_in_within_128_mib(limits: ModuleType, cgroup: Any, broker: Mosquitto, tmp_path: Path) -> None:
    edgeq = Appliance(tmp_path, CONFIGURATION.format(url=broker.url, port=free_port()))
    edgeq.command = (*cgroup.command, *edgeq.command)
    edgeq.start()
    try:
        packets = [
            limits.publish_packet(f"flood/{number % 50}", b'{"value":%d}' % number, number) for number in range(FLOOD)
        ]
        publisher = limits.Wire(broker.port, "flood")
        publisher.publish(packets)
        publisher.close()
        edgeq.until(lambda: edgeq.sql("SELECT max(id) FROM events") == [(FLOOD,)], "all messages", seconds=200)
        behind = "SELECT (SELECT max(id) FROM events) - last_consumed_id FROM cursors"
        edgeq.until(lambda: edgeq.sql(behind) == [(0,)], "the sentinel", seconds=200)
        numbers = "SELECT count(DISTINCT json_extract(data, '$.value')) FROM events"
        assert edgeq.sql(numbers) == [(FLOOD,)]
        assert cgroup.killed == 0
        assert edgeq.stop() == 0
    finally:
        edgeq.kill()


def test_a_cgroup_kills_what_takes_more_than_it_has(cgroup: Any, tmp_path: Path) -> None:
    """If it doesn't, the test above proves nothing."""
    greedy = Appliance(tmp_path, "")
    greedy.command = (*cgroup.command, sys.executable, "-c", f"bytearray({256 * MIB})")
    greedy.spawn()
    assert greedy.ended() == -9
    assert cgroup.killed == 1


@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto isn't installed: apt-get install mosquitto")
def test_the_bench_measures(limits: ModuleType, tmp_path: Path) -> None:
    with limits.mosquitto(tmp_path) as port, limits.limited(128, 0.5) as cgroup:
        found = limits.measure(tmp_path, port, cgroup, rate=50, seconds=4)
    assert found.keys() > limits.ALLOWED.keys()
    assert found["messages"] == 200
    assert found["lost"] == found["killed"] == 0
    assert all(found[name] > 0 for name in ("memory_peak_mib", "processor_share", "latency_median_ms", "wal_mib"))
