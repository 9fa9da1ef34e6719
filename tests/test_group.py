"""Several `edgeq run` behind one shared subscription on one store: members die, leave and join under load.

mosquitto 2.0 deals the messages of a shared subscription out to its members in turn, also to one that is away: what it
was sent and didn't acknowledge, and its share of what comes, wait in its session at the broker until it is back. So a
member has to come back, or a spare in its name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.group import Group
from support.mosquitto import Mosquitto
from support.postgres import Postgres
from support.stores import PostgresDatabase


@pytest.fixture
def group(tmp_path: Path, broker: Mosquitto, postgres: Postgres) -> Iterator[Group]:
    database = PostgresDatabase.on(postgres)
    made = Group(tmp_path, broker, database)
    yield made
    made.close()
    database.drop()


def test_the_owner_is_killed_another_member_leaves_and_a_new_one_joins(group: Group) -> None:
    group.start("a", "b", "c")
    traffic = group.traffic()
    killed = group.owner()
    group.kill(killed)
    began = time.monotonic()
    group.until(lambda: group.owner() not in ("", killed), "another owner")
    print(f"another owner after {time.monotonic() - began:.1f}s")
    group.flows()
    left = next(name for name in group.members if name not in (killed, group.owner()))
    assert group.members[left].stop() == 0
    group.flows()
    group.start("d")
    group.flows()
    traffic.stop()
    assert traffic.topics > set(group.stored()), "the broker keeps some for those who are away"
    group.member("spare", gateway=killed)
    group.start(left, "spare")
    group.settle(traffic)
    group.audit(traffic)
