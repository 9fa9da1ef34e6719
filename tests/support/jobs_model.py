"""What the store promises of jobs, said as simply as possible: a list of jobs and rules, one method for each verb.

The model is told what the store answered, and fails when no store that keeps its promises could have answered so. It
knows nothing of how a store does it: of rates it remembers every start, of limits it counts who runs, of breakers it
believes what the store shows and judges what follows from that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

import msgspec

from edgeq.store.breakers import StoredBreaker
from edgeq.store.claims import BreakerSettings, Rate, Rescued
from edgeq.store.jobs import Dispatched, NewJob, Options, Parent, StoredJob

SECOND = 1_000_000
POINT_OF_PRIORITY = 6 * SECOND
FINISHED = ("completed", "cancelled", "dead")
WAITING = ("scheduled", "available", "retryable")


@dataclass
class ModelJob:
    """`state` is `waiting` for what the store calls scheduled, available and retryable. `callbacks` are those that
    must have been added for it, `reason` is that of its dead letter. `attempt_may_count`: the last one, or not."""

    id: int
    new: NewJob
    run_at: int
    expires_at: int | None
    state: str = "waiting"
    attempt: int = 0
    token: int = 0
    lease_ends_at: int = 0
    result: str | None = None
    finished_at: int | None = None
    reason: str | None = None
    callbacks: list[NewJob] = field(default_factory=list)
    attempt_may_count: bool = False

    @property
    def place(self) -> tuple[int, int]:
        """Of two that are ready, the one with the smaller place is claimed first."""
        return self.run_at - self.new.priority * POINT_OF_PRIORITY, self.id


@dataclass
class Starts:
    """The starts under one rate since the clock was last set back. `sure_from`: until then the store may hold jobs
    back for what was started before; it may go by the moment at which it first sees that the clock was set back."""

    interval_us: int
    burst: int
    times: list[int] = field(default_factory=list)
    sure_from: float = 0

    def allows(self, now: int) -> bool:
        """Whether in no window that ends `now` there would be more starts than the rate and its burst allow."""
        return all(
            len(self.times) - n + 1 <= self.burst + (now - start) // self.interval_us
            for n, start in enumerate(self.times)
        )

    def clock_was_set_back(self) -> None:
        """Windows are of the wall clock."""
        self.times.clear()
        self.sure_from = inf

    def was_looked_at(self, now: int) -> None:
        """The store had to reckon with it."""
        if self.sure_from == inf:
            self.sure_from = now + self.interval_us * self.burst


@dataclass
class ModelBreaker:
    """What the store shows of a breaker, and when those failures happened that came in a row until now.

    Of what has happened since it was last looked at: `may_open` and `must_open`, by failures; `worked`, by a success.
    """

    settings: BreakerSettings
    shown: StoredBreaker | None = None
    probe: int | None = None
    failures: list[int] = field(default_factory=list)
    may_open: bool = False
    must_open: bool = False
    worked: bool = False

    @property
    def closed(self) -> bool:
        """Whether what it stands for works, as far as the store says."""
        return self.shown is None or self.shown.state == "closed"

    def holds_back(self, job_id: int, now: int) -> bool:
        """Whether it is too early for this job to try it."""
        shown = self.shown
        if shown is None or shown.state == "closed" or job_id == shown.probe_id:
            return False
        return shown.probe_at is not None and now < shown.probe_at

    def failed(self, now: int) -> None:
        """An attempt said that it doesn't work."""
        self.failures.append(now)
        row = self.failures[-self.settings.failures :]
        if len(row) == self.settings.failures:
            self.may_open = True
            self.must_open |= self.closed and abs(now - row[0]) <= self.settings.within_us

    def succeeded(self) -> None:
        """An attempt said that it works."""
        self.failures.clear()
        self.worked = True

    def see(self, shown: StoredBreaker) -> None:
        """The store shows this of it."""
        before, self.shown = self.closed, shown
        if before and self.closed:
            assert not self.must_open, "a breaker didn't open"
        elif before:
            assert self.may_open, "a breaker opened without failures"
        elif self.closed:
            assert self.worked, "a breaker closed without a success"
        self.may_open = self.must_open = self.worked = False


class JobsModel:
    """All jobs that there are, and were."""

    def __init__(self, rates: dict[str, Rate], breakers: dict[str, BreakerSettings]) -> None:
        self.jobs: dict[int, ModelJob] = {}
        self.gone: set[int] = set()
        self.paused: set[str] = set()
        self.queue_starts = {queue: Starts(rate.interval_us, rate.burst) for queue, rate in rates.items()}
        self.key_starts: dict[str, Starts] = {}
        self.breakers = {name: ModelBreaker(settings) for name, settings in breakers.items()}
        self.latest = 0  # that the clock has ever shown

    def clock_is(self, now: int, *, set_back: bool = False) -> None:
        """The clock shows this from now on."""
        self.latest = max(self.latest, now)
        if set_back:
            for starts in (*self.queue_starts.values(), *self.key_starts.values()):
                starts.clock_was_set_back()

    # What is

    def waiting(self, *queues: str) -> Iterator[ModelJob]:
        """The jobs of these queues that somebody will have to claim."""
        return (job for job in self.jobs.values() if job.state == "waiting" and job.new.queue in queues)

    def executing(self, key: str) -> int:
        """How many jobs with this limit key run."""
        return sum(
            job.state == "executing" and job.new.limit is not None and job.new.limit.key == key
            for job in self.jobs.values()
        )

    def why_not(self, job: ModelJob, now: int, *, surely: bool = False) -> str:
        """What stands against claiming this waiting job; "" if nothing. `surely`: when in doubt, nothing does."""
        if job.new.queue in self.paused:
            return "its queue is paused"
        if job.run_at > (now if surely else self.latest):
            return "it isn't due"
        limit = job.new.limit
        if limit is not None:
            if limit.concurrency is not None and self.executing(limit.key) >= limit.concurrency:
                return "as many of its key run as may"
            if surely and self._other_queue(job):
                return "another queue's job has its turn"
        for starts in self._rates(job):
            if not starts.allows(now) or (surely and now < starts.sure_from):
                return "its rate is used up"
        if job.new.needs is not None:
            breaker = self.breakers[job.new.needs]
            if not breaker.closed and breaker.probe is not None:
                return "another job tries out what it needs"
            if breaker.holds_back(job.id, now):
                return "what it needs is broken"
        return ""

    def _rates(self, job: ModelJob) -> list[Starts]:
        of_key = None if job.new.limit is None else self.key_starts.get(job.new.limit.key)
        return [starts for starts in (self.queue_starts.get(job.new.queue), of_key) if starts is not None]

    def _other_queue(self, job: ModelJob) -> bool:
        return any(
            other.state == "waiting"
            and other.run_at <= self.latest
            and other.new.queue != job.new.queue
            and other.new.limit is not None
            and job.new.limit is not None
            and other.new.limit.key == job.new.limit.key
            for other in self.jobs.values()
        )

    # Verbs that anybody may use

    def dispatched(self, new: NewJob, answer: Dispatched) -> None:
        """A job was dispatched, and this was the answer."""
        same = {
            job.id
            for job in self.jobs.values()
            if new.unique_key is not None
            and (job.new.unique_key, job.new.kind) == (new.unique_key, new.kind)
            and job.state in (*new.unique.states, "waiting")
            and (new.unique.within_us is None or abs(job.new.created_at - new.created_at) <= new.unique.within_us)
        }
        if same:
            assert answer.existed, f"there is a job with the same unique key: {same}"
            assert answer.id in same
        else:
            assert not answer.existed, "no job with that unique key counts"
            self._add(answer.id, new)

    def _add(self, job_id: int, new: NewJob) -> None:
        assert job_id not in self.gone, "an id was used again"
        assert job_id > max(self.jobs, default=0), "ids must grow"
        expires_at = None if new.expires_us is None else new.run_at + new.expires_us
        self.jobs[job_id] = ModelJob(job_id, new, new.run_at, expires_at)
        if new.limit is not None and new.limit.interval_us is not None:
            self.key_starts.setdefault(new.limit.key, Starts(new.limit.interval_us, new.limit.burst))

    def cancelled(self, ids: Sequence[int], answer: int, now: int) -> None:
        """These were to be cancelled, and so many were."""
        incomplete = {n for n in ids if n in self.jobs and self.jobs[n].state not in FINISHED}
        assert answer == len(incomplete), "what isn't finished can be cancelled, and nothing else"
        for n in incomplete:
            self._finish(self.jobs[n], "cancelled", now)

    def retried(self, ids: Iterable[int], answer: int, now: int) -> None:
        """Dead ones among these were to be tried again, and so many were."""
        dead = {n for n in ids if n in self.jobs and self.jobs[n].state == "dead"}
        assert answer == len(dead)
        for n in dead:
            job = self.jobs[n]
            job.state, job.run_at, job.attempt, job.finished_at, job.reason = "waiting", now, 0, None, None

    def purged(self, ids: Iterable[int], answer: int) -> None:
        """These jobs were to be removed, and so many were."""
        gone = [n for n in ids if n in self.jobs]
        assert answer == len(gone)
        for n in gone:
            self._not_probing(self.jobs[n])
            del self.jobs[n]
            self.gone.add(n)

    # A worker's verbs

    def claimed(self, queue: str, limit: int, now: int, lease_us: int, taken: Sequence[StoredJob]) -> None:
        """A worker asked for up to `limit` jobs and was given these."""
        assert len(taken) <= limit
        places = [self.jobs[row.id].place for row in taken]
        assert places == sorted(places), "claimed in another order than that of their places"
        for row in taken:
            job = self.jobs[row.id]
            assert job.state == "waiting", f"job {row.id} was claimed, and is {job.state}"
            assert job.new.queue == queue
            why_not = self.why_not(job, now)
            assert not why_not, f"job {row.id} was claimed, but {why_not}"
            self._start(job, row, now, lease_us)
        for job in self.waiting(queue):
            for starts in self._rates(job) if job.run_at <= now and queue not in self.paused else ():
                starts.was_looked_at(now)
        left = [job for job in self.waiting(queue) if not self.why_not(job, now, surely=True)]
        if len(taken) < limit:
            assert not left, f"nothing stands against {[job.id for job in left]}, and they could not be claimed"
        for job in left:  # of those with a limit or a need, others may have been let in before them
            if job.new.limit is None and job.new.needs is None and places:
                assert job.place > max(places), f"job {job.id} was passed over"

    def _start(self, job: ModelJob, row: StoredJob, now: int, lease_us: int) -> None:
        token = row.lease_token or 0
        assert token > job.token, "each claim has a token of its own, greater than the last"
        assert row.lease_expires_at == now + lease_us
        job.state, job.token, job.attempt, job.lease_ends_at = "executing", token, job.attempt + 1, now + lease_us
        assert row.attempt == job.attempt, "the attempt counts at the claim"
        for starts in self._rates(job):
            starts.times.append(now)
        if job.new.needs is not None and not self.breakers[job.new.needs].closed:
            self.breakers[job.new.needs].probe = job.id

    def holds(self, row: StoredJob) -> bool:
        """Whether this claim is still that of the worker to which it was given."""
        job = self.jobs.get(row.id)
        return job is not None and job.state == "executing" and job.token == row.lease_token

    def extended(self, rows: Sequence[StoredJob], lost: set[int], ends_at: int) -> None:
        """The leases of these claims were extended, but for the lost ones."""
        assert lost == {row.id for row in rows if not self.holds(row)}
        for row in rows:
            if row.id not in lost:
                self.jobs[row.id].lease_ends_at = ends_at

    def completed(self, row: StoredJob, result: str, now: int) -> None:
        """A claim that was held ended well."""
        job = self.jobs[row.id]
        job.result = result
        self._finish(job, "completed", now)

    def put_off(self, row: StoredJob, run_at: int | None) -> None:
        """A claim that was held was given back, and the attempt doesn't count: snoozed, or released (None)."""
        job = self.jobs[row.id]
        job.state, job.attempt = "waiting", job.attempt - 1
        job.run_at = job.run_at if run_at is None else run_at
        self._not_probing(job)

    def tried_again(self, row: StoredJob, run_at: int, *, counts: bool | None) -> None:
        """A claim that was held ended with a failure, and the job is tried again. `counts`: whether the attempt does;
        None if that can't be told."""
        job = self.jobs[row.id]
        job.state, job.run_at, job.attempt_may_count = "waiting", run_at, counts is None
        self._not_probing(job)
        if counts is False:
            job.attempt -= 1

    def buried(self, row: StoredJob, reason: str, now: int) -> None:
        """A claim that was held ended with the job's death."""
        self._die(self.jobs[row.id], reason, now)

    def rescued(self, queue: str, now: int, lease_us: int, answer: Sequence[Rescued]) -> None:
        """Claims whose leases had ended were taken back."""
        held = [job for job in self.jobs.values() if job.state == "executing" and job.new.queue == queue]
        for job in held:
            job.lease_ends_at = min(job.lease_ends_at, now + lease_us)  # longer ones are of a clock since set back
        assert sorted(each.id for each in answer) == [job.id for job in held if job.lease_ends_at <= now]
        for each in answer:
            job = self.jobs[each.id]
            assert each.dead == (job.attempt >= job.new.max_attempts)
            if each.dead:
                self._die(job, "lease_expired", now)
            else:
                job.state, job.run_at = "waiting", now
                self._not_probing(job)

    # How jobs end

    def _die(self, job: ModelJob, reason: str, now: int) -> None:
        job.reason = reason
        self._finish(job, "dead", now)

    def _finish(self, job: ModelJob, state: str, now: int) -> None:
        assert job.state not in FINISHED, f"job {job.id} ended twice"
        job.state, job.finished_at = state, now
        callback = {"completed": job.new.on_success, "dead": job.new.on_failure}.get(state)
        if callback is not None:
            job.callbacks.append(callback)
        self._not_probing(job)

    def said(self, row: StoredJob, now: int, *, failed: bool) -> None:
        """The end of an attempt says whether what the job needs works."""
        if row.needs is not None and failed:
            self.breakers[row.needs].failed(now)
        elif row.needs is not None:
            self.breakers[row.needs].succeeded()

    def _not_probing(self, job: ModelJob) -> None:
        if job.new.needs is not None and self.breakers[job.new.needs].probe == job.id:
            self.breakers[job.new.needs].probe = None

    # Looking

    def see_breakers(self, shown: Iterable[StoredBreaker]) -> None:
        """The store shows this of its breakers, after one verb."""
        for row in shown:
            self.breakers[row.name].see(row)

    def see_rows(self, rows: Iterable[StoredJob], letters: Counter[tuple[int | None, str]]) -> None:
        """These are all rows and open dead letters that the store has."""
        there = {row.id: row for row in rows}
        for row in sorted(there.values(), key=lambda row: row.id):
            if row.id not in self.jobs:
                self._see_callback(row)
        assert not [job.id for job in self.jobs.values() if job.callbacks], "a callback is missing"
        assert set(there) == set(self.jobs), "jobs came or went"
        for job in self.jobs.values():
            self._see(job, there[job.id])
        assert letters == Counter((job.id, job.reason) for job in self.jobs.values() if job.state == "dead")

    def _see_callback(self, row: StoredJob) -> None:
        parent = msgspec.json.decode(row.options or "{}", type=Options).parent
        assert parent is not None, f"nobody dispatched job {row.id}"
        job = self.jobs[parent.id]
        new = next((each for each in job.callbacks if each.kind == row.kind), None)
        assert new is not None, f"job {row.id} is a callback of {parent.id} once too often"
        job.callbacks.remove(new)
        assert parent == Parent(job.id, job.new.kind, job.new.args, job.result, parent.error)
        assert (parent.error is None) == (job.state == "completed")
        assert job.finished_at is not None
        self._add(row.id, msgspec.structs.replace(new, run_at=job.finished_at, created_at=job.finished_at))

    @staticmethod
    def _see(job: ModelJob, row: StoredJob) -> None:
        state = "waiting" if row.state in WAITING else row.state
        if job.attempt_may_count and row.attempt == job.attempt - 1:
            job.attempt -= 1
        job.attempt_may_count = False
        shown = (state, row.attempt, row.run_at, row.result, row.finished_at, row.queue, row.priority, row.args)
        new = job.new
        assert shown == (
            job.state, job.attempt, job.run_at, job.result, job.finished_at, new.queue, new.priority, new.args
        )  # fmt: skip
        assert (row.lease_expires_at, row.lease_owner is None) == (
            (job.lease_ends_at, False) if state == "executing" else (None, True)
        )
        assert row.blocked_by is None or row.state == "available"

    def see_counts(self, rows: Iterable[dict[str, object]]) -> None:
        """These are the counts that the store gives of its queues."""
        shown = {str(row["queue"]): row for row in rows}
        for queue in {job.new.queue for job in self.jobs.values()} | set(shown):
            states = Counter(job.state for job in self.jobs.values() if job.new.queue == queue)
            row = shown[queue]
            for state in ("executing", *FINISHED):
                assert row[state] == states[state], f"{queue}: {state}"
            assert sum(int(str(row[each])) for each in ("ready", "blocked", "delayed")) == states["waiting"]
            assert row["paused"] == (queue in self.paused)
