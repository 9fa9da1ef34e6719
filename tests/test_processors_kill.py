"""Exactly once inside the store (G4), whenever the process is killed."""

from __future__ import annotations

import json
import random
import subprocess
import time

from support.programs import of_tests
from support.stores import Database

PROGRAM = ("-m", "support.killable")
ROUNDS = 10
INPUTS = "SELECT id, data FROM events WHERE type = 'in' ORDER BY id"


def test_one_output_for_each_input_however_often_it_is_killed(database: Database) -> None:
    dice = random.Random(4)
    rounds = inputs = 0
    longest = 0.3
    while rounds < ROUNDS or inputs <= 100:
        with subprocess.Popen(**of_tests(*PROGRAM, database.where), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(dice.uniform(0.0, longest))
            process.kill()
        rounds += 1
        longest *= 1 if rounds < ROUNDS else 2  # a slow disk takes fewer in the same time
        inputs = audit(database, complete=False)
    subprocess.run(**of_tests(*PROGRAM, database.where, "drain"), check=True, stdout=subprocess.DEVNULL, timeout=120)
    audit(database, complete=True)


def audit(database: Database, *, complete: bool) -> int:
    """How many inputs there are. It may have been killed before it took its cursor."""
    cursor = max((row[0] for row in database.look("SELECT last_consumed_id FROM cursors")), default=0)
    (head,) = database.look("SELECT max(id) FROM events")[0]
    inputs = [(number, json.loads(data)["n"]) for number, data in database.look(INPUTS)]
    outputs = database.look("SELECT cause_id, count(*) FROM events WHERE type = 'out' GROUP BY 1")
    letters = database.look("SELECT event_id, count(*) FROM dead_letters GROUP BY 1")
    if database.kind == "sqlite":
        assert database.look("PRAGMA integrity_check") == [("ok",)]
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
    return len(inputs)
