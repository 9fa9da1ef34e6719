"""Each notification is queued, and each reminder made, once: whenever the courier is killed."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "support" / "killable_courier.py"
ROUNDS = 8


def test_none_is_lost_or_queued_twice_however_often_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    dice = random.Random(5)
    for _ in range(ROUNDS):
        with subprocess.Popen([sys.executable, PROGRAM, path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(dice.uniform(0.0, 0.4))
            process.kill()
        audit(path)
    subprocess.run([sys.executable, PROGRAM, path, "drain"], check=True, stdout=subprocess.DEVNULL, timeout=90)
    told, reminders = audit(path)
    assert told > 50
    assert reminders > 20


@pytest.mark.parametrize("place", ["processor.handled", "processor.committed"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_killed_before_and_after_the_commit(tmp_path: Path, place: str, count: int) -> None:
    path = tmp_path / "edgeq.db"
    environ = {**os.environ, "EDGEQ_FAILPOINT": f"{place}:{count}"}
    killed = subprocess.run([sys.executable, PROGRAM, path], env=environ, stdout=subprocess.DEVNULL, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    audit(path)
    subprocess.run([sys.executable, PROGRAM, path, "drain"], check=True, stdout=subprocess.DEVNULL, timeout=90)
    audit(path)


def audit(path: Path) -> tuple[int, int]:
    """How many events were told, and how often was reminded of them."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)  # recovery is left to the store
    try:
        (cursor,) = connection.execute("SELECT max(last_consumed_id) FROM cursors").fetchone()
        stored = connection.execute("SELECT id, type FROM events WHERE id <= ?", (cursor or 0,)).fetchall()
        rows = connection.execute("SELECT event_id, channel, kind, title FROM notifications").fetchall()
        threads = connection.execute("SELECT event_id, reminder FROM threads").fetchall()
    finally:
        connection.close()
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
