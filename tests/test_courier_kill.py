"""Each notification is queued, and each reminder made, once: whenever the courier is killed."""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest
from support.programs import of_tests
from support.stores import Database

PROGRAM = ("-m", "support.killable_courier")
ROUNDS = 8
EVENTS = 120


def test_none_is_lost_or_queued_twice_however_often_it_is_killed(database: Database) -> None:
    dice = random.Random(5)
    for number in range(ROUNDS):
        with subprocess.Popen(**of_tests(*PROGRAM, database.where), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if number == ROUNDS - 1:  # on a slow disk, few events were stored in the rounds before
                assert any(int(line) > EVENTS for line in process.stdout)
            time.sleep(dice.uniform(0.0, 0.4))
            process.kill()
        audit(database)
    drain(database)
    told, reminders = audit(database)
    assert told > 50
    assert reminders > 20


@pytest.mark.parametrize("place", ["processor.handled", "processor.committed"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_killed_before_and_after_the_commit(database: Database, place: str, count: int) -> None:
    how = of_tests(*PROGRAM, database.where, EDGEQ_FAILPOINT=f"{place}:{count}")
    assert subprocess.run(**how, stdout=subprocess.DEVNULL, timeout=120).returncode == -signal.SIGKILL
    audit(database)
    drain(database)
    audit(database)


def drain(database: Database) -> None:
    how = of_tests(*PROGRAM, database.where, "drain")
    subprocess.run(**how, check=True, stdout=subprocess.DEVNULL, timeout=120)


def audit(database: Database) -> tuple[int, int]:
    """How many events were told, and how often was reminded of them."""
    (cursor,) = database.look("SELECT max(last_consumed_id) FROM cursors")[0]
    stored = database.look("SELECT id, type FROM events WHERE id <= ?", cursor or 0)
    rows = database.look("SELECT event_id, channel, kind, title FROM notifications")
    threads = database.look("SELECT event_id, reminder FROM threads")
    kinds = {"contract.violated": "alert", "contract.resolved": "resolved", "thing": "alert"}
    expected = {(number, channel, kinds[name]) for number, name in stored for channel in ("phone", "mail")}
    told = [row[:3] for row in rows if row[2] != "reminder"]
    assert len(told) == len(set(told)), "queued twice"
    assert set(told) == expected, "lost, or told before the cursor"
    reminders = [(row[0], row[1], _number(row[3])) for row in rows if row[2] == "reminder"]
    assert len(reminders) == len(set(reminders)), "reminded twice"
    made = dict(threads)
    assert all(number <= made.get(event_id, number) for event_id, _, number in reminders), "and not counted"
    return len(stored), len(reminders)


def _number(title: str) -> int:
    return int(title.partition("(reminder ")[2].partition(",")[0])
