"""Several `edgeq run` on one PostgreSQL database: who dies or freezes is replaced, and everything is decided once."""

from __future__ import annotations

import asyncio
import functools
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto
from support.postgres import Postgres
from support.site import CONFIGURATION, PROCESSORS, SOON_SECONDS, Site
from support.stores import PostgresDatabase

from edgeq.clock import Clock
from edgeq.events import NewEvent
from edgeq.store import events


@pytest.fixture
def site(tmp_path: Path, postgres: Postgres, broker: Mosquitto) -> Iterator[Site]:
    site = Site(tmp_path, PostgresDatabase.on(postgres), broker)
    yield site
    site.close()


def until(condition: Callable[[], object], what: str, site: Site) -> None:
    deadline = time.monotonic() + SOON_SECONDS
    while not condition():
        logs = "\n".join(f"--- {name}\n{member.log[-3000:]}" for name, member in site.members.items())
        assert time.monotonic() < deadline, f"waited for {what}:\n{logs}"
        time.sleep(0.05)


def all_copied(site: Site, count: int) -> None:
    """Wait until each of the processors has copied each of so many events; none of them twice."""
    until(lambda: len(site.copies()) >= PROCESSORS * count, f"{count} events to be copied", site)
    copies = site.copies()
    assert len(copies) == PROCESSORS * count
    assert set(copies.values()) == {1}, [key for key, times in copies.items() if times > 1]


def beat(site: Site, subjects: list[str]) -> None:
    """Store a beat of each, all in one commit: their deadlines are at one moment."""

    async def main() -> None:
        now = Clock().now()
        new = [NewEvent("beat", subject=each, occurred_at=now, recorded_at=now) for each in subjects]
        async with site.database.opened(beside=True) as store:
            await store.write(lambda tx: events.append(tx, new))

    asyncio.run(main())


def start(site: Site, first: str, *others: str) -> None:
    """Start members; the first owns everything by the time the others begin: to be connected isn't yet to own it."""
    site.start(first)
    for name in ("leader", "processor:courier", "processor:sentinel", *(f"processor:p{n}" for n in range(PROCESSORS))):
        until(lambda name=name: site.owner(name) == first, f"{first} to own {name}", site)  # type: ignore[misc]
    site.start(*others)


def state(member: Appliance) -> str:
    assert member.process is not None
    return Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_an_owner_that_is_killed_is_replaced_where_it_was(site: Site) -> None:
    start(site, "a", "b")
    assert site.owner() == "a"
    for _ in range(20):
        site.append(*["in.x"] * 10)
    until(lambda: len(site.copies()) > 100, "some copies", site)
    site.members["a"].kill()
    site.append(*["in.x"] * 10)
    all_copied(site, 210)
    assert site.owner() == "b"
    for name in ("leader", "processor:courier", "processor:sentinel"):  # each is asked for by itself
        until(lambda name=name: site.owner(name) == "b", f"b to own {name}", site)  # type: ignore[misc]
    listed = site.members["b"].cli("processors", "list").stdout
    assert listed.split()[:3] == ["processor", "state", "owner"]
    assert [line.split()[2] for line in listed.splitlines()[1:]] == ["b"] * (PROCESSORS + 2)
    assert "leader        b" in site.members["b"].cli("status").stdout


def test_an_owner_frozen_in_the_midst_of_a_commit_is_replaced_and_writes_nothing_when_it_goes_on(site: Site) -> None:
    start(site, "a", "b")
    assert site.owner() == "a"
    site.append("in.x", "in.freeze", "in.x")
    until(lambda: state(site.members["a"]) == "T", "the freeze", site)
    until(lambda: site.owner() == "b", "another owner", site)
    all_copied(site, 3)
    site.members["a"].send(signal.SIGCONT)
    site.append("in.x")
    all_copied(site, 4)
    assert site.owner() == "b"
    until(lambda: "control session is back" in site.members["a"].log, "it to be well again", site)
    site.members["b"].kill()
    site.append("in.x")
    all_copied(site, 5)
    assert site.owner() == "a"


def test_deadlines_of_a_dead_owner_lead_to_one_verdict_and_one_notification_each(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first deadline must not be over before the owner is killed: then nothing would be left to wait for.
    monkeypatch.setattr("support.site.CONFIGURATION", CONFIGURATION.replace("every: 4s", "every: 15s"))
    start(site, "a", "b", "c")
    subjects = [f"door-{number}" for number in range(20)]
    beat(site, subjects)
    known = "SELECT count(*) FROM contract_states WHERE deadline_at IS NOT NULL"
    until(lambda: site.database.sql(known) == [(len(subjects),)], "deadlines", site)
    site.members["a"].kill()
    site.members["b"].send(signal.SIGSTOP)
    violated = "SELECT subject, count(*) FROM events WHERE type = 'contract.violated' GROUP BY 1 ORDER BY 1"
    until(lambda: len(site.database.sql(violated)) == len(subjects), "verdicts", site)
    until(lambda: len(set(site.told)) == len(subjects), "notifications", site)
    site.members["b"].send(signal.SIGCONT)
    site.append("in.x")
    all_copied(site, 1)
    assert site.database.sql(violated) == [(subject, 1) for subject in sorted(subjects)]
    assert len(site.told) == len(subjects)
    sent = "SELECT state, count(*) FROM notifications GROUP BY 1"
    until(lambda: site.database.sql(sent) == [("sent", len(subjects))], "all to be marked", site)


def test_each_run_of_a_schedule_takes_place_once_though_its_leader_dies(site: Site) -> None:
    runs = "SELECT run_at, count(*) FROM jobs GROUP BY 1"
    start(site, "a", "b")
    for leader, other in (("a", "b"), ("b", "a")):
        count = len(site.database.sql(runs))
        until(lambda count=count: len(site.database.sql(runs)) >= count + 2, "runs", site)  # type: ignore[misc]
        assert site.owner("leader") == leader
        site.members[leader].kill()
        count = len(site.database.sql(runs))
        until(lambda count=count: len(site.database.sql(runs)) >= count + 2, "runs", site)  # type: ignore[misc]
        assert site.owner("leader") == other
        site.start(leader)
    assert {count for _, count in site.database.sql(runs)} == {1}


def test_a_crash_of_the_server_leaves_each_event_done_once(
    tmp_path: Path, own_postgres: Callable[..., Postgres], broker: Mosquitto
) -> None:
    server = own_postgres()
    site = Site(tmp_path, PostgresDatabase.on(server), broker)
    try:
        site.start("a", "b")
        site.append(*["in.x"] * 50)
        server.restart("immediate")
        site.append(*["in.x"] * 50)
        all_copied(site, 100)
        for member in site.members.values():
            until(lambda member=member: "control session is back" in member.log, "the session", site)  # type: ignore[misc]
            assert member.log.count("the control session at") == 1
    finally:
        site.close()


def test_a_second_edgeq_run_with_one_name_is_refused_and_a_successor_is_not(site: Site) -> None:
    site.start("a")
    first = site.members["a"]
    second = Appliance(first.folder, (first.folder / "edgeq.yaml").read_text(), site.database)
    second.log_file = site.folder / "second.log"
    second.spawn()
    assert second.ended() == 1
    assert "another edgeq run goes by the name a on database" in second.log
    assert first.process is not None
    assert first.process.poll() is None
    assert "running as process" in first.cli("status").stdout, "the second one took its control socket"
    first.kill()
    first.start()


def test_members_that_run_by_different_files_are_warned_of(site: Site) -> None:
    site.start("a")
    a = site.members["a"]
    a.reload((a.folder / "edgeq.yaml").read_text().replace("every: 4s", "every: 5s"))
    site.start("b", "c")
    warning = "gateway a shares this store, and runs by a file with other contracts:"
    for name in ("b", "c"):
        log = site.members[name].log_file
        site.members[name].until(functools.partial(_says, log, warning), "a warning")
    assert "gateway b shares" not in site.members["c"].log


def _says(log: Path, text: str) -> bool:
    return text in log.read_text()
