"""The bench of intake says what it has measured of several members on one PostgreSQL."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.benches import bench
from support.mosquitto import find_mosquitto
from support.postgres import find_postgres


@pytest.fixture(name="members")
def _members() -> Iterator[ModuleType]:
    if find_mosquitto() is None or find_postgres() is None:
        pytest.skip("mosquitto or PostgreSQL isn't installed: apt-get install mosquitto postgresql")
    with bench("members") as module:
        yield module


@pytest.mark.timeout(300)  # it starts seven servers and programs
def test_all_members_are_measured_and_the_limit_is_said(
    members: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own can't be entered by the server's user
        runs = members.measure(Path(folder), 2, 10_000, 1)  # the system counts processor time in steps of 10 ms
    assert len(runs) == 2
    for run in runs:
        assert run.rate > 0
        assert run.commits > 0
        assert run.wal_bytes > 100
        assert 0 <= run.held <= 1
        assert run.edgeq > 0
    members.report(runs)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["members", "1", "2"]
    assert [line.partition(":")[0] for line in printed if "the limit" in line] == ["1 member", "2 members"]
    assert "2 members take in" in printed[-1]
