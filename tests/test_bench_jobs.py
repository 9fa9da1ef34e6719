"""The bench of jobs measures what it says, on every queue that it knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.benches import bench
from support.postgres import Postgres


@pytest.fixture(name="bench")
def _bench() -> Iterator[ModuleType]:
    with bench("jobs") as module:
        yield module


def on_sqlite(bench: ModuleType, folder: Path, postgres: Callable[[], Postgres]) -> tuple[object, list[object]]:
    """edgeq and huey."""
    found: tuple[object, list[object]] = bench.on_sqlite(folder, 5)
    return found


def on_postgresql(bench: ModuleType, folder: Path, postgres: Callable[[], Postgres]) -> tuple[object, list[object]]:
    """edgeq, procrastinate and pgqueuer, each with a database of its own."""
    server = postgres()

    class Server:
        def database(self, name: str) -> str:
            return server.fresh_database()

    found: tuple[object, list[object]] = bench.on_postgresql(Server(), 5)
    return found


@pytest.mark.parametrize(
    ("sides", "demands", "others"),
    [(on_sqlite, "ON_SQLITE", ["huey"]), (on_postgresql, "ON_POSTGRESQL", ["procrastinate", "pgqueuer"])],
    ids=["sqlite", "postgresql"],
)
def test_every_side_does_all_the_work(
    bench: ModuleType,
    sides: Callable[..., tuple[object, list[object]]],
    demands: str,
    others: list[str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def postgres() -> Postgres:
        server: Postgres = request.getfixturevalue("postgres")
        return server

    bench.compare(sides(bench, tmp_path, postgres), getattr(bench, demands), 2, 100)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    measured = [(what, other) for what, _, other, *_ in lines[1:-1]]
    assert measured == [(what, other) for what in ("single", "bulk", "run") for other in others]
    for _, ours, _, theirs, ratio, *_, verdict in lines[1:-1]:
        assert float(ours) > 0
        assert float(theirs) > 0
        assert float(ratio) > 0
        assert verdict in ("PASS", "FAIL")
