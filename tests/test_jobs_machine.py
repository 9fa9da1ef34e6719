"""The store's job verbs, in any order, by several workers, over clock steps and restarts, against a model of them.

Each rule does one thing to the store and tells the model what the store answered; the model fails if that can't be.
After each rule all rows are compared. In the end the way is cleared, and every job must come to its end.

`JOBS_EXAMPLES=5000` in the environment tries so many sequences, at random; the suite tries the same few each time.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from support.jobs_model import FINISHED, SECOND, JobsModel
from support.stores import Database, emptied

from edgeq.store import breakers, claims, dead_letters, jobs, queues
from edgeq.store.claims import BreakerSettings, Rate
from edgeq.store.jobs import Limit, NewJob, StoredJob, Unique
from edgeq.store.store import Store, Unit
from edgeq.testing import FakeClock

T = TypeVar("T")

EXAMPLES = int(os.environ.get("JOBS_EXAMPLES", "0"))
FEW = {"sqlite": 70, "postgresql": 20}  # each of the many steps is a way to a server and back
QUEUES = ("a", "b", "slow")
LEASE = 60.0
LEASE_US = round(LEASE * SECOND)
RATES = {"slow": Rate(interval_us=7 * SECOND, burst=2)}
BREAKERS = {"crm": BreakerSettings(failures=2, within_us=1000 * SECOND, wait_us=30 * SECOND)}
LIMITS = (
    Limit("one", concurrency=1),
    Limit("two", concurrency=2),
    Limit("rate", interval_us=11 * SECOND, burst=2),
    Limit("both", concurrency=1, interval_us=5 * SECOND),
    Limit("shared", concurrency=1),  # by all queues; the others are one for each queue
)
WITHIN = Unique((*jobs.INCOMPLETE, "completed"), 50 * SECOND)
CALLBACKS = (
    NewJob(queue="a", kind="m:Callback", args='{"n":1}'),
    NewJob(queue="slow", kind="m:Callback", args='{"n":2}', limit=LIMITS[0], max_attempts=1),
    NewJob(queue="b", kind="m:Callback", args='{"n":3}', on_success=NewJob(queue="b", kind="m:Next", args="{}")),
)
ROUNDS_MAX = 400
PAGE = 10_000

queue_names = st.sampled_from(("a", "a", "b", "slow"))
gates = st.sampled_from(
    [{}] * 3
    + [{"limit": limit} for limit in LIMITS]
    + [{"needs": "crm"}] * 3
    + [{"needs": "crm", "limit": limit} for limit in LIMITS[::2]]
)
keys = st.sampled_from([{}] * 6 + [{"unique": unique} for unique in (Unique(), WITHIN, Unique(jobs.STATES))])
callbacks = st.sampled_from([{}] * 4 + [{"on_success": each, "on_failure": each} for each in CALLBACKS])
new_jobs = st.builds(
    lambda queue, kind, priority, max_attempts, delay, *more: {
        "queue": queue,
        "kind": kind,
        "priority": priority,
        "max_attempts": max_attempts,
        "delay": delay,
        **more[0],
        **more[1],
        **more[2],
    },
    queue_names,
    st.sampled_from(["m:One", "m:Two"]),
    st.sampled_from([0, 0, 10, -10, 1]),
    st.integers(1, 3),
    st.sampled_from([0, 0, 0, 1, 10, 100]),
    gates,
    keys,
    callbacks,
)
SAYS_FAILED = {"complete": False, "retry": True, "last": True}  # of what the job needs; other ends say nothing
ends = st.sampled_from(["complete", "complete", "retry", "retry", "last", "snooze", "bury", "release"])


SELDOM = (
    "progress", "cancel", "cancel", "pause", "resume", "purge", "purge old", "retry dead", "retry dead",
    "set the clock back", "set the clock back", "restart",
)  # fmt: skip


class JobsMachine(RuleBasedStateMachine):
    """Workers, and whoever dispatches jobs, on one store."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.clock = FakeClock()
        self.model = JobsModel(RATES, BREAKERS)
        self.model.clock_is(self.clock.now())
        self.numbers = itertools.count()
        self.claims: list[StoredJob] = []  # all that were ever made, the last ones last
        self.runner = asyncio.Runner()
        self.store = self.open()
        self.write(emptied)

    def open(self) -> Store:
        """The store under test, opened."""
        store = self.database.store(clock=self.clock, durability="normal")
        self.runner.run(store.open())
        return store

    def write(self, unit: Unit[T]) -> T:
        """Commit one unit."""
        return self.runner.run(self.store.write(unit))

    def find(self, **filters: Any) -> list[StoredJob]:
        """All rows, oldest first."""
        return self.runner.run(jobs.find(self.store, limit=PAGE, **filters))[::-1]

    @property
    def now(self) -> int:
        """What the clock shows."""
        return self.clock.now()

    # Rules

    @rule(seconds=st.sampled_from([0.5, 2, 5, 11, 31, 61, 1001]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.clock_is(self.now)

    @rule(what=st.lists(new_jobs, min_size=1, max_size=4))
    def dispatch(self, what: list[dict[str, Any]]) -> None:
        self.dispatch_all(what)

    def dispatch_all(self, what: list[dict[str, Any]]) -> None:
        new = [self.new_job(**each) for each in what]
        answers = self.write(lambda tx: jobs.add(tx, new))
        assert len(answers) == len(new)
        for each, answer in zip(new, answers, strict=True):
            self.model.dispatched(each, answer)

    @rule(what=new_jobs, count=st.integers(2, 6))
    def dispatch_some_alike(self, what: dict[str, Any], count: int) -> None:
        self.dispatch_all([what] * count)

    def new_job(self, *, delay: int = 0, **how: Any) -> NewJob:
        args = f'{{"n":{next(self.numbers)}}}'
        key = "key" if "unique" in how else None
        limit = how.pop("limit", None)
        if limit is not None and limit.key != "shared":
            limit = msgspec.structs.replace(limit, key=f"{limit.key} of {how['queue']}")
        return NewJob(
            args=args, run_at=self.now + delay * SECOND, created_at=self.now, unique_key=key, limit=limit, **how
        )

    @rule(queue=queue_names, limit=st.sampled_from([1, 2, 3, 100]), owner=st.sampled_from(["w1", "w2"]))
    def claim(self, queue: str, limit: int, owner: str) -> None:
        self.claim_as(queue, limit, owner)

    def claim_as(self, queue: str, limit: int, owner: str) -> list[StoredJob]:
        taken = self.write(
            lambda tx: claims.claim(
                tx, queue=queue, owner=owner, lease_seconds=LEASE, limit=limit, now=self.now,
                rate=RATES.get(queue), breakers=BREAKERS,
            )
        )  # fmt: skip
        self.model.claimed(queue, limit, self.now, LEASE_US, taken)
        self.claims += taken
        return taken

    @precondition(lambda self: self.claims)
    @rule(which=st.lists(st.tuples(st.integers(0, 9), ends), min_size=1, max_size=4, unique_by=lambda each: each[0]))
    def end(self, which: list[tuple[int, str]]) -> None:
        """Of the last ten claims, some end, together; those that were lost since try it, too."""
        chosen = [(self.claims[-1 - n], how) for n, how in which if n < len(self.claims)]
        if len({row.id for row, _ in chosen}) == len(chosen):
            self.end_all(chosen)

    def end_all(self, chosen: Sequence[tuple[StoredJob, str]]) -> None:
        again_at = self.now + 15 * SECOND
        kinds = {
            "complete": lambda row: claims.Completed(row, '{"done":true}'),
            "retry": lambda row: claims.Retried(row, again_at, "ValueError: no"),
            "last": lambda row: claims.Retried(row, again_at, "ValueError: no", last=True),
            "snooze": lambda row: claims.Snoozed(row, again_at),
            "bury": lambda row: claims.Buried(row, "failed", "ValueError: no"),
            "release": claims.Released,
        }
        what = [kinds[how](row) for row, how in chosen]
        held = [self.model.holds(row) for row, _ in chosen]
        before = {name: breaker.closed for name, breaker in self.model.breakers.items()}
        answers = self.write(lambda tx: claims.end(tx, what, now=self.now, breakers=BREAKERS))
        for (row, how), was_held in zip(chosen, held, strict=True):
            if was_held and how in SAYS_FAILED:
                self.model.said(row, self.now, failed=SAYS_FAILED[how])
        self.see_breakers()
        needing = sum(was_held and row.needs is not None for (row, _), was_held in zip(chosen, held, strict=True))
        for (row, how), was_held, took_effect in zip(chosen, held, answers, strict=True):
            counts: bool | None = True
            if row.needs is not None:
                counts = self.model.breakers[row.needs].closed
                if needing > 1 and before[row.needs] != counts:
                    counts = None  # it opened or closed with one of several
            if how == "last" and was_held and counts is not None:
                assert took_effect == (not counts), (
                    "with none left, the job is tried again if the attempt doesn't count"
                )
            elif how != "last" or not was_held:
                assert took_effect == was_held, f"{how} of job {row.id}, held: {was_held}"
            if took_effect:
                self.ended(row, how, again_at, counts=False if how == "last" else counts)
        self.all_is_as_it_should_be()

    def ended(self, row: StoredJob, how: str, again_at: int, *, counts: bool | None) -> None:
        if how == "complete":
            self.model.completed(row, '{"done":true}', self.now)
        elif how == "bury":
            self.model.buried(row, "failed", self.now)
        elif how in ("retry", "last"):
            self.model.tried_again(row, again_at, counts=counts)
        else:
            self.model.put_off(row, again_at if how == "snooze" else None)

    @precondition(lambda self: self.claims)
    @rule(count=st.integers(1, 5))
    def extend(self, count: int) -> None:
        rows = list({row.id: row for row in self.claims[-count:]}.values())
        assert self.runner.run(claims.lost(self.store, rows)) == {row.id for row in rows if not self.model.holds(row)}
        lost = self.write(lambda tx: claims.extend(tx, rows, lease_seconds=LEASE, now=self.now))
        self.model.extended(rows, lost, self.now + LEASE_US)

    @rule(queue=queue_names)
    def a_worker_goes_silent(self, queue: str) -> None:
        """Another takes its jobs over, and it may yet be heard of."""
        self.wait(LEASE + 1)
        self.rescue(queue)
        self.all_is_as_it_should_be()
        self.claim_as(queue, 100, "w2")

    @rule(queue=queue_names)
    def what_they_need_breaks(self, queue: str) -> None:
        """All jobs that need something find that it doesn't work."""
        self.claim_as(queue, 100, "w1")
        self.end_all([(row, "retry") for row in self.claims if row.needs is not None and self.model.holds(row)])

    @rule(what=st.sampled_from(SELDOM), queue=queue_names, n=st.integers(0, 9))
    def seldom(self, what: str, queue: str, n: int) -> None:
        """What is done now and then."""
        match what:
            case "progress" if self.claims:
                self.progress(n)
            case "cancel" if self.model.jobs:
                self.cancel([max(self.model.jobs) - n, *(row.id for row in self.claims[-1 - n :][:1])])
            case "pause":
                self.pause(queue)
            case "resume":
                self.resume(queue)
            case "purge":
                self.purge(
                    jobs.STATES if n % 3 == 0 else FINISHED[: n % 3],
                    queue if n % 2 else "",
                    "" if n > 6 else ("m:One", "m:Two")[n % 2],
                )
            case "purge old":
                self.purge_old(10 * n)
            case "retry dead":
                self.retry_dead(n < 7)
            case "set the clock back":
                self.set_clock_back((3, 600, 40 * 365 * 86400)[n % 3])
            case "restart":
                self.restart()

    def progress(self, n: int) -> None:
        row = self.claims[-1 - n % len(self.claims)]
        noted = self.write(lambda tx: claims.progress(tx, row, '{"fraction":0.5}'))
        assert noted == self.model.holds(row)

    @rule(queue=queue_names)
    def rescue(self, queue: str) -> None:
        answer: list[claims.Rescued] = []
        while True:
            page = self.write(lambda tx: claims.rescue(tx, queue=queue, lease_seconds=LEASE, limit=2, now=self.now))
            answer += page
            if len(page) < 2:
                break
        self.model.rescued(queue, self.now, LEASE_US, answer)

    def cancel(self, ids: list[int]) -> None:
        self.model.cancelled(ids, self.write(lambda tx: jobs.cancel(tx, ids, self.now)), self.now)

    def pause(self, queue: str) -> None:
        assert self.write(lambda tx: queues.pause(tx, queue)) == (queue not in self.model.paused)
        self.model.paused.add(queue)

    def resume(self, queue: str) -> None:
        assert self.write(lambda tx: queues.resume(tx, queue)) == (queue in self.model.paused)
        self.model.paused.discard(queue)

    def purge(self, states: Sequence[str], queue: str, kind: str) -> None:
        wanted = (*states, *(("waiting",) if "available" in states else ()))
        doomed = [
            job.id
            for job in self.model.jobs.values()
            if job.state in wanted and job.state != "executing"
            if queue in ("", job.new.queue) and kind in ("", job.new.kind)
        ]
        answer = self.write(
            lambda tx: jobs.purge(tx, states=states, queue=queue, kind=kind, finished_before=None, limit=PAGE)
        )
        self.model.purged(doomed, answer)

    def purge_old(self, seconds: int) -> None:
        before = self.now - seconds * SECOND
        doomed = [
            job.id for job in self.model.jobs.values() if job.finished_at is not None and job.finished_at < before
        ]
        answer = self.write(lambda tx: jobs.purge(tx, states=FINISHED, finished_before=before, limit=PAGE))
        self.model.purged(doomed, answer)

    def retry_dead(self, all_of_them: bool) -> None:
        dead = [job.id for job in self.model.jobs.values() if job.state == "dead"]
        ids = dead if all_of_them else dead[-1:]
        if all_of_them:
            answer = self.write(lambda tx: jobs.retry_where(tx, now=self.now, limit=PAGE))
        else:
            answer = self.write(lambda tx: jobs.retry(tx, ids, self.now))
        self.model.retried(ids, answer, self.now)

    def set_clock_back(self, seconds: float) -> None:
        seconds = min(seconds, self.now / SECOND - 10 * 365 * 86400)  # a machine without a clock begins in 1970
        self.clock.step(-seconds)
        self.model.clock_is(self.now, set_back=True)

    @rule(queue=queue_names)
    def sleep_as_long_as_a_worker_would(self, queue: str) -> None:
        """A worker that found less than it has room for looks at its outlook, and sleeps."""
        self.claim_as(queue, 100, "w1")
        outlook = self.write(lambda tx: claims.outlook(tx, queue, self.now))
        assert outlook.paused == (queue in self.model.paused)
        assert not outlook.ready
        if not outlook.paused:
            assert outlook.next_at is None or outlook.next_at > self.now, "it would go round and round"
            until = self.now + 86400 * SECOND if outlook.next_at is None else outlook.next_at - 1
            late = [job.id for job in self.model.waiting(queue) if not self.model.why_not(job, until, surely=True)]
            assert not late, f"it would sleep through the time of jobs {late}"

    def restart(self) -> None:
        self.runner.run(self.store.close())
        self.store = self.open()

    # What is always so

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        """The rows, breakers and counts of the store are those of the model."""
        self.see_breakers()
        letters = self.runner.run(dead_letters.find(self.store, limit=PAGE))
        of_jobs: Counter[tuple[int | None, str]] = Counter(
            (letter.job_id, letter.reason) for letter in letters if letter.job_id in self.model.jobs
        )
        self.model.see_rows(self.find(), of_jobs)
        self.model.see_counts(self.runner.run(jobs.counts(self.store, self.now)))

    def see_breakers(self) -> None:
        self.model.see_breakers(self.runner.run(breakers.all(self.store)))

    def teardown(self) -> None:
        """Nothing stands against any job any more: each must end."""
        try:
            self.finish()
        finally:
            self.runner.run(self.store.close())
            self.runner.close()

    def finish(self) -> None:
        self.finish_queues([queue for queue in QUEUES if queue not in self.model.paused])
        for queue in QUEUES:
            self.resume(queue)
        self.finish_queues(QUEUES)

    def finish_queues(self, names: Sequence[str]) -> None:
        for _ in range(ROUNDS_MAX):
            if all(job.state in FINISHED for job in self.model.jobs.values() if job.new.queue in names):
                return
            latest = max((job.run_at for job in self.model.jobs.values() if job.state == "waiting"), default=0)
            self.clock.advance(max(0, latest - self.now) / SECOND + 100)
            self.model.clock_is(self.now)
            for queue in QUEUES:
                self.rescue(queue)
                self.all_is_as_it_should_be()
            for queue in names:
                self.end_all([(row, "complete") for row in self.claim_as(queue, 100, "w1")])
        raise AssertionError("not all jobs come to an end")


@pytest.mark.timeout(600 + EXAMPLES)
def test_whatever_is_done_in_any_order(database: Database) -> None:
    how = settings(
        max_examples=EXAMPLES or FEW[database.kind],
        stateful_step_count=60,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(lambda: JobsMachine(database), settings=how)
