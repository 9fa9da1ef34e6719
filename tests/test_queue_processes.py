"""edgeq.Queue among processes: many at once, killed ones, forked ones, and the appliance that runs the jobs."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.appliance import DEADLINE_SECONDS, Appliance

from edgeq import Job, Queue

ROUNDS = 8

JOBS = """
from edgeq import Job

class Ship(Job):
    order: int
    async def handle(self, ctx):
        return {"shipped": self.order}
"""


class Ship(Job):
    """The same for this process."""

    order: int

    async def handle(self, ctx: object) -> None: ...


START = """
import os, signal, sqlite3, sys, threading
sys.path[:0] = ["{root}", "{folder}"]
from edgeq import EdgeqError, Queue
from shop_jobs import Ship
queue = Queue("{folder}/edgeq.db")
"""

CONFIGURATION = """\
gateway: gw
mqtt: {url: "mqtt://127.0.0.1:1"}
store: {url: edgeq.db}
app: {path: ., modules: [shop_jobs]}
jobs: {queues: {default: {concurrency: 4}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop_jobs.py").write_text(JOBS)
    return tmp_path


def start(folder: Path, program: str, *args: str) -> subprocess.Popen[str]:
    """A Python program in a process of its own, which begins with a queue and the jobs."""
    text = START.format(root=Path(__file__).parents[1], folder=folder) + program
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", text, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, program: str, *args: str) -> str:
    """What the program prints; it must end well."""
    process = start(folder, program, *args)
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, err) == (0, "")
    return out


def orders(folder: Path) -> list[int]:
    """The orders of the jobs that are there, by the ids of the jobs; and the database is whole."""
    with closing(sqlite3.connect(folder / "edgeq.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute("SELECT json_extract(args, '$.order') FROM jobs ORDER BY id").fetchall()
    return [row[0] for row in rows]


def test_processes_that_start_at_once_make_one_database(folder: Path) -> None:
    program = """
sys.stdin.readline()
for number in range(25):
    queue.dispatch(Ship(order=int(sys.argv[1]) + number))
queue.close()
"""
    processes = [start(folder, program, str(100 * number)) for number in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, err = process.communicate(timeout=DEADLINE_SECONDS)
        assert (process.returncode, err) == (0, "")
    assert sorted(orders(folder)) == sorted(100 * n + m for n in range(4) for m in range(25))


def test_processes_that_write_all_the_time_let_each_other_in(folder: Path) -> None:
    program = """
sys.stdin.readline()
while True:
    queue.dispatch(Ship(order=int(sys.argv[1])))
"""
    with Queue(folder / "edgeq.db") as queue:
        processes = [start(folder, program, str(number)) for number in range(4)]
        try:
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            deadline = time.monotonic() + DEADLINE_SECONDS
            while min(Counter(orders(folder)).get(number, 0) for number in range(4)) < 20:
                queue.dispatch(Ship(order=4))
                assert time.monotonic() < deadline, Counter(orders(folder))
        finally:
            for process in processes:
                process.kill()
        assert [process.communicate()[1] for process in processes] == [""] * 4


TRANSACTIONS = {
    "the queue's": """
with queue.transaction() as connection:
    connection.execute("INSERT INTO meta VALUES ('order', '2')")
    queue.dispatch_many(Ship(order=2) for _ in range(1000))
    os.kill(os.getpid(), signal.SIGKILL)
""",
    "its own": """
connection = sqlite3.connect(queue.path)
connection.execute("INSERT INTO meta VALUES ('order', '2')")
queue.dispatch_many([Ship(order=2) for _ in range(1000)], connection=connection)
os.kill(os.getpid(), signal.SIGKILL)
""",
    "written to the log": """
with queue.transaction() as connection:
    connection.execute("PRAGMA cache_size=1")
    queue.dispatch_many(Ship(order=2) for _ in range(1000))
    os.kill(os.getpid(), signal.SIGKILL)
""",
}


@pytest.mark.parametrize("program", TRANSACTIONS.values(), ids=TRANSACTIONS)
def test_a_process_killed_in_a_transaction_leaves_nothing(folder: Path, program: str) -> None:
    with Queue(folder / "edgeq.db") as queue:
        run(folder, "queue.dispatch(Ship(order=1))")
        process = start(folder, program)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert orders(folder) == [1]
        with queue.transaction() as own:
            assert own.execute("SELECT count(*) FROM meta WHERE key = 'order'").fetchone() == (0,)
        run(folder, "queue.dispatch(Ship(order=3))")
    assert orders(folder) == [1, 3]


def test_what_dispatch_has_returned_for_is_there_whenever_the_process_is_killed(folder: Path) -> None:
    program = """
number = int(sys.argv[1])
while True:
    number += 1
    if number % 7 == 0:
        with queue.transaction():
            queue.dispatch(Ship(order=number))
            queue.dispatch(Ship(order=-number))
    else:
        queue.dispatch(Ship(order=number))
    print(number, flush=True)
"""
    rng = random.Random(3)
    told: list[int] = []
    for round_number in range(ROUNDS):
        process = start(folder, program, str(1_000_000 * (round_number + 1)))
        assert process.stdout is not None
        told.append(int(process.stdout.readline()))
        time.sleep(rng.random() * 0.2)
        process.kill()
        told += [int(line) for line in process.communicate(timeout=60)[0].split()]
        there = orders(folder)
        assert set(told) <= set(there)
        assert len(set(there)) == len(there)
        assert all((number in there) == (-number in there) for number in told if number % 7 == 0)


def test_a_forked_process_goes_on_with_connections_of_its_own(folder: Path) -> None:
    """Also while others come and go, of which the last one to have the database takes the log along."""
    program = """
queue.dispatch(Ship(order=0))
children = []
for child in range(4):
    number = os.fork()
    if number == 0:
        for order in range(20):
            queue.dispatch(Ship(order=100 * (child + 1) + order))
            if order % 5 == 0:
                other = Queue(queue.path)
                other.get(1)
                other.close()
        queue.close()
        os._exit(0)
    children.append(number)
for order in range(1, 20):
    queue.dispatch(Ship(order=order))
print([os.waitpid(number, 0)[1] for number in children])
queue.dispatch(Ship(order=20))
"""
    assert run(folder, program) == "[0, 0, 0, 0]\n"
    expected = [*range(21), *(100 * (child + 1) + order for child in range(4) for order in range(20))]
    assert sorted(orders(folder)) == sorted(expected)


def test_a_forked_process_is_not_the_last_one_to_leave(folder: Path) -> None:
    """Locks don't pass on to a child: a parent that thinks that it is the last one takes the log along."""
    program = """
queue.dispatch(Ship(order=1))
told, tell = os.pipe()
number = os.fork()
if number == 0:
    queue.dispatch(Ship(order=2))
    os.read(told, 1)
    queue.dispatch(Ship(order=3))
    os._exit(0)
while not queue.get(2):
    pass
queue.close()
os.write(tell, b"x")
print(os.waitpid(number, 0)[1])
"""
    assert run(folder, program) == "0\n"
    assert orders(folder) == [1, 2, 3]


REFUSED = (
    "this process was forked while its parent was connected, and SQLite can't be used here / "
    "fork outside of transactions and with os.fork (or multiprocessing), or before the queue is used\n"
)


def test_a_process_forked_by_other_means_says_so(folder: Path) -> None:
    """By a library in C, for example: Python isn't told, and the parent stays connected."""
    program = """
import ctypes
def fork(order):
    number = ctypes.PyDLL(None).fork()
    if number == 0:
        try:
            queue.dispatch(Ship(order=order))
        except EdgeqError as error:
            print(error, "/", error.hint, flush=True)
        os._exit(0)
    assert os.waitpid(number, 0)[1] == 0
fork(1)
queue.dispatch(Ship(order=2))
fork(3)
queue.dispatch(Ship(order=4))
"""
    assert run(folder, program) == REFUSED
    assert orders(folder) == [1, 2, 4]


def test_a_fork_inside_of_a_transaction_leaves_it_to_the_parent(folder: Path) -> None:
    program = """
try:
    with queue.transaction():
        queue.dispatch(Ship(order=1))
        number = os.fork()
        if number:
            assert os.waitpid(number, 0)[1] == 0
            queue.dispatch(Ship(order=2))
        elif sys.argv[1] == "use":
            queue.dispatch(Ship(order=3))
except EdgeqError as error:
    assert number == 0
    print(error, "/", error.hint, flush=True)
    os._exit(0)
"""
    for way in ("use", "leave"):
        assert run(folder, program, way) == REFUSED
    assert orders(folder) == [1, 2, 1, 2]


def test_a_fork_while_a_thread_is_in_a_transaction_waits_for_it(folder: Path) -> None:
    program = """
import warnings
warnings.simplefilter("ignore")  # Python 3.12 doesn't like threads in a process that forks
began, go = threading.Event(), threading.Event()
def work():
    with queue.transaction():
        queue.dispatch(Ship(order=1))
        began.set()
        go.wait(30)
thread = threading.Thread(target=work)
thread.start()
began.wait(30)
threading.Timer(0.2, go.set).start()
number = os.fork()
if number == 0:
    queue.dispatch(Ship(order=2))
    os._exit(0)
print(os.waitpid(number, 0)[1])
thread.join()
"""
    assert run(folder, program) == "0\n"
    assert orders(folder) == [1, 2]


@pytest.fixture
def appliance(folder: Path) -> Iterator[Appliance]:
    made = Appliance(folder, CONFIGURATION)
    yield made
    made.kill()


def test_an_appliance_runs_what_was_dispatched_before_it_and_beside_it(folder: Path, appliance: Appliance) -> None:
    shop = "connection = sqlite3.connect(queue.path)\n"
    shop += "queue.dispatch(Ship(order=1))\n"
    run(folder, shop)
    appliance.spawn()
    program = """
job = queue.wait(1, 60)
print(job.state, job.result)
job = queue.wait(queue.dispatch(Ship(order=2)).id, 60)
print(job.state, job.result)
connection = sqlite3.connect(queue.path)
connection.execute("INSERT INTO meta VALUES ('order', '3')")
answer = queue.dispatch(Ship(order=3), connection=connection)
connection.commit()
job = queue.wait(answer.id, 60)
print(job.state, job.result)
queue.pause("default")
answer = queue.dispatch(Ship(order=4))
print(queue.cancel(answer.id), queue.wait(answer.id, 0).state)
print(queue.stats()["default"]["completed"])
"""
    assert run(folder, program).splitlines() == [
        'completed {"shipped":1}',
        'completed {"shipped":2}',
        'completed {"shipped":3}',
        "1 cancelled",
        "3",
    ]
    assert appliance.stop() == 0
    assert not os.path.exists(folder / "edgeq.db-wal")
