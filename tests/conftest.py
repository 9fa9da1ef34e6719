"""The fixtures that many tests share: a real broker, a real PostgreSQL server, a store with notifications."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from support.mosquitto import Mosquitto, find_mosquitto
from support.outbox import Outbox, outbox
from support.postgres import Postgres, find_postgres
from support.stores import KINDS, Database, PostgresDatabase, SqliteDatabase

from edgeq.testing.clock import FakeClock

if TYPE_CHECKING:
    from support.browser import Browser

# Machines may be busy; and tests with a fixture begin each example by themselves.
_ALLOWED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("edgeq", deadline=None, suppress_health_check=_ALLOWED)
settings.load_profile("edgeq")

_status = 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what a test has logged be any text: several processes report over a channel that takes only UTF-8."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_configure() -> None:
    """Let Ctrl-C work: in the background a shell has it ignored, and whatever the tests start would ignore it too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember how it ended."""
    global _status
    _status = int(exitstatus)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process, also when a failed test has left a store open, whose reader's thread would hold it for ever."""
    left = [
        thread.name for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    if left:
        print(f"threads that a test has left running: {', '.join(left)}", flush=True)
        sys.stderr.flush()
        os._exit(_status or 1)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Starts brokers: `mosquitto("max_queued_messages 0", ...)` returns one that runs, with these settings."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto isn't installed: apt-get install mosquitto")
    started: list[Mosquitto] = []

    def start(*lines: str, port: int = 0) -> Mosquitto:
        broker = Mosquitto(tmp_path / f"mosquitto-{len(started)}", *lines, port=port)
        started.append(broker)
        broker.start()
        return broker

    yield start
    for broker in started:
        broker.kill()


@pytest.fixture
def broker(mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """A broker that runs, with room for what edgeq asks of it."""
    return mosquitto("max_queued_messages 0", "max_inflight_messages 0")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium; all tests of a file share it."""
    from support.browser import browsers  # selenium takes a while

    yield from browsers()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that runs; all tests of this process share it, so none may harm it."""
    server = _postgres(autovacuum="off")  # so that nobody writes but the tests
    server.start()
    yield server
    server.close()


@pytest.fixture
def own_postgres() -> Iterator[Callable[..., Postgres]]:
    """Starts servers for one test to be harmed: `own_postgres(max_connections="20", ...)` returns one that runs."""
    started: list[Postgres] = []

    def start(**settings: str) -> Postgres:
        server = _postgres(**settings)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.close()


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A database that is empty and nobody else's."""
    url = postgres.fresh_database()
    yield url
    postgres.drop(url)


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of each kind in turn: the test runs on all of them."""
    if request.param == "sqlite":
        yield SqliteDatabase(tmp_path)
    else:
        made = PostgresDatabase.on(request.getfixturevalue("postgres"))
        yield made
        made.drop()


@pytest.fixture
def deep() -> Iterator[None]:
    """For tests that go as deep as the stack is: there, nothing that others have left is cleaned up: it would fail."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def clock() -> FakeClock:
    """One that stands still unless a test lets it go on."""
    return FakeClock()


@pytest.fixture
async def box(database: Database, clock: FakeClock) -> AsyncIterator[Outbox]:
    """An outbox that goes by `clock`, in a database of each kind in turn."""
    async with outbox(database, clock) as box:
        yield box


def _postgres(**settings: str) -> Postgres:
    if find_postgres() is None:
        pytest.skip("PostgreSQL isn't installed: apt-get install postgresql")
    return Postgres(**settings)
