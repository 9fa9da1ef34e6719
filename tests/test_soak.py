"""An hour of a gateway's life, in which time passes forty times as fast: nothing that edgeq holds on to grows.

`scripts/bench soak` is the same for as long as one likes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.benches import bench

HURRY = 40


@pytest.fixture(name="soak")
def _soak() -> Iterator[ModuleType]:
    if shutil.which("mosquitto", path="/usr/bin:/usr/sbin:/usr/local/sbin") is None:
        pytest.skip("mosquitto isn't installed: apt-get install mosquitto")
    with bench("soak") as module:
        yield module


@pytest.mark.timeout(600)
def test_in_an_hour_of_everything_nothing_grows(soak: ModuleType, tmp_path: Path) -> None:
    with soak.mosquitto(tmp_path) as port:
        seen = soak.soak(tmp_path, port, 60, HURRY)
    assert seen.grown() == []
    assert seen.acknowledged >= seen.messages > 3600
    assert seen.answers > 100
    rows = {name: after for name, _, after in seen.quarters() if name.startswith("rows of ")}
    busy = ("events", "jobs", "notifications", "dead_letters", "contract_states")
    assert all(rows[f"rows of {table}"] > 0 for table in busy), rows
    assert rows["rows of events"] < 3000, "what is older than ten minutes goes"


@pytest.mark.timeout(300)
def test_what_an_app_never_lets_go_of_is_found(soak: ModuleType, tmp_path: Path) -> None:
    """If it isn't, the test above proves nothing."""
    with soak.mosquitto(tmp_path) as port:
        seen = soak.soak(tmp_path, port, 8, HURRY, leak=True)
    found = " ".join(seen.grown())
    assert "memory MiB grew" in found
    assert "descriptors grew" in found
