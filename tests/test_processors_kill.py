"""Exactly once inside the store (G4), whenever the process is killed."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = Path(__file__).parent / "support" / "killable.py"
ROUNDS = 10


def test_one_output_for_each_input_however_often_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    dice = random.Random(4)
    for _ in range(ROUNDS):
        with subprocess.Popen([sys.executable, PROGRAM, path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(dice.uniform(0.0, 0.3))
            process.kill()
        audit(path, complete=False)
    subprocess.run([sys.executable, PROGRAM, path, "drain"], check=True, stdout=subprocess.DEVNULL, timeout=60)
    audit(path, complete=True)


def audit(path: Path, *, complete: bool) -> None:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)  # recovery is left to the store
    try:
        (cursor,) = connection.execute("SELECT last_consumed_id FROM cursors").fetchone()
        (head,) = connection.execute("SELECT max(id) FROM events").fetchone()
        inputs = connection.execute("SELECT id, json_extract(data, '$.n') FROM events WHERE type = 'in'").fetchall()
        outputs = connection.execute("SELECT cause_id, count(*) FROM events WHERE type = 'out' GROUP BY 1").fetchall()
        letters = connection.execute("SELECT event_id, count(*) FROM dead_letters GROUP BY 1").fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        connection.close()
    assert cursor <= (head or 0)
    assert all(count == 1 for _, count in outputs + letters), "something was done twice"
    decided = {cause for cause, _ in outputs}
    dead = {cause for cause, _ in letters}
    passed = {number: n for number, n in inputs if number <= cursor}
    assert decided | dead <= passed.keys(), "something was done that the cursor has not passed"
    assert dead == {number for number, n in passed.items() if n % 50 == 0}
    assert decided == {number for number, n in passed.items() if n % 50 and n % 7}, "something was passed over"
    if complete:
        assert len(passed) == len(inputs) > 100
