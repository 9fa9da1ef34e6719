"""What befalls the PostgreSQL server under a running appliance, under load: nothing acknowledged is missing, all goes
on by itself, everything is told once, and the log stays short.
"""

from __future__ import annotations

import itertools
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest
from support.group import Group, Traffic
from support.manager import WATCHDOG_SECONDS, Manager
from support.mosquitto import Mosquitto
from support.postgres import ROLE, Postgres
from support.stores import PostgresDatabase

GRACE_SECONDS = 60.0  # what the units of systemd give it to end
LOCKED_SECONDS = 7.0  # longer than it waits for a lock before it says who holds it
LINES_FOR_START = 25  # and for the end
LINES_FOR_TROUBLE = 12


@pytest.fixture
def server(own_postgres: Callable[..., Postgres]) -> Postgres:
    return own_postgres(max_connections="20")


@pytest.fixture
def group(tmp_path: Path, broker: Mosquitto, server: Postgres) -> Iterator[Group]:
    made = Group(tmp_path, broker, PostgresDatabase.on(server))
    yield made
    made.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def lines(group: Group) -> list[str]:
    """What was logged, but for what is said of each job."""
    logged = "".join(each.log for each in group.members.values()).splitlines()
    return [line for line in logged if not re.search(r"edgeq\.worker\.default: job \d+", line)]


def says(group: Group, words: str, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Return when `edgeq status` says that the store of member `a` can't take commits, and why. Until then, `meanwhile`
    is called again and again."""

    def said() -> bool:
        meanwhile()
        store = group.members["a"].status().get("store", {"ok": True})
        return not store["ok"] and re.search(words, store["reason"]) is not None

    group.until(said, f"the status to say {words!r}")


def recovers(group: Group, traffic: Traffic, trouble: str) -> None:
    """Return when all that was published up to now is stored, and more comes. Prints how long that took."""
    over, waited, before = time.monotonic(), set(traffic.topics), group.stored().total()
    group.until(lambda: group.stored().total() > before, "the first message to be stored")
    first = time.monotonic() - over
    group.until(lambda: waited <= set(group.stored()), "what waited to be stored")
    print(f"{trouble}: the first message after {first:.1f}s, all that waited after {time.monotonic() - over:.1f}s")
    group.flows()


def ends_well(group: Group, traffic: Traffic, *, starts: int = 1, troubles: int = 1) -> None:
    """What every test ends with."""
    group.settle(traffic)
    group.audit(traffic)
    for each in group.members.values():
        assert each.stop() == 0, each.log
    found = lines(group)
    print(f"{len(found)} lines of log for {starts} starts and {troubles} troubles")
    assert len(found) <= LINES_FOR_START * starts + LINES_FOR_TROUBLE * troubles, "\n".join(found)
    assert not any("Traceback" in line for line in found), "\n".join(found)


def test_crashes_and_sessions_that_are_ended_at_any_moment(group: Group, server: Postgres) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    group.start("a")
    traffic = group.traffic()
    troubles = ["restart", "restart", "restart", "writer", "reader", "session", "%"]
    chance.shuffle(troubles)
    count = 0
    for trouble in troubles:
        times = 1 if trouble == "restart" else chance.randrange(1, 5)
        count += times
        if trouble == "restart":
            server.restart("immediate")
        else:
            for _ in range(times):
                server.terminate(f"edgeq % {trouble}")
                time.sleep(chance.uniform(0.0, 0.3))
        recovers(group, traffic, trouble)
    ends_well(group, traffic, troubles=count)


@pytest.mark.timeout(300)  # it waits out two outages, and may take a minute to end
@pytest.mark.parametrize(
    ("begin", "end", "words"),
    [(Postgres.stop, Postgres.start, "can't be reached|stops"), (Postgres.freeze, Postgres.thaw, "doesn't answer")],
    ids=["stopped", "frozen"],
)
def test_a_server_that_is_away_or_hangs_for_a_while_and_again_when_edgeq_is_to_end(
    group: Group,
    server: Postgres,
    manager: Manager,
    begin: Callable[[Postgres], None],
    end: Callable[[Postgres], None],
    words: str,
) -> None:
    edgeq = group.member("a")
    edgeq.start(**manager.environment)
    traffic = group.traffic()
    manager.drain()
    begin(server)
    says(group, words)
    manager.listen(WATCHDOG_SECONDS)
    end(server)
    recovers(group, traffic, "away")
    assert 0 < manager.gap < WATCHDOG_SECONDS, "it was alive all the time"
    begin(server)
    says(group, words)
    traffic.stop()
    asked = time.monotonic()
    assert edgeq.stop(GRACE_SECONDS) == 0, edgeq.log
    print(f"ended after {time.monotonic() - asked:.1f}s")
    end(server)
    group.start("a")
    ends_well(group, traffic, starts=2, troubles=2)


def test_others_take_all_connections(group: Group, server: Postgres) -> None:
    group.start("a")
    traffic = group.traffic()
    takes = itertools.count(1)
    with ExitStack() as others:

        def take() -> None:
            next(takes)
            server.terminate("edgeq %")
            with suppress(psycopg.OperationalError):
                while True:
                    others.enter_context(psycopg.connect(group.database.where, application_name="other"))

        says(group, "remaining connection slots|too many", meanwhile=take)
    recovers(group, traffic, "refused")
    ends_well(group, traffic, troubles=next(takes))


def test_somebody_else_keeps_a_transaction_open(group: Group) -> None:
    group.start("a")
    traffic = group.traffic()
    with group.database.locked():
        until = time.monotonic() + LOCKED_SECONDS
        says(group, "another session holds the store's lock.*holder")
        time.sleep(max(0.0, until - time.monotonic()))
    recovers(group, traffic, "locked")
    ends_well(group, traffic)


def test_an_owner_that_freezes_and_goes_on(group: Group) -> None:
    group.start("a", "b")
    traffic = group.traffic()
    owner = group.owner()
    group.members[owner].send(signal.SIGSTOP)
    began = time.monotonic()
    group.until(lambda: group.owner() not in ("", owner), "another owner")
    print(f"another owner after {time.monotonic() - began:.1f}s")
    group.flows()
    group.members[owner].send(signal.SIGCONT)
    group.unclean += 1
    recovers(group, traffic, "frozen")
    ends_well(group, traffic, starts=2, troubles=2)


def test_it_is_started_before_the_server(group: Group, server: Postgres) -> None:
    server.stop()
    group.member("a").spawn()
    group.until(lambda: "can't take commits" in group.members["a"].log, "it to say what it waits for")
    says(group, "can't be reached")
    server.start()
    group.members["a"].until(group.members["a"].connected, "a connection")
    traffic = group.traffic()
    ends_well(group, traffic)


def test_a_wrong_password_ends_it_with_an_error(group: Group, server: Postgres) -> None:
    rules = server.folder / "data" / "pg_hba.conf"
    rules.write_text(f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    server.sql(server.url, "SELECT pg_reload_conf()")

    def asks() -> bool:
        try:
            group.database.sql("SELECT 1")
        except psycopg.OperationalError:
            return True
        return False

    group.until(asks, "the server to ask for a password")  # it takes its time to read its settings
    gateway = group.member("a")
    gateway.spawn(EDGEQ_STORE__URL=group.database.where.replace(f"{ROLE}@", f"{ROLE}:wrong@"))
    assert gateway.ended() == 1
    assert "password" in gateway.log
    assert "wrong" not in gateway.log
    assert len(gateway.log.splitlines()) < 5
