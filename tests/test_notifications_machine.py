"""Outbox and senders against targets that do anything, over clock steps and crashes, and then one audit: every
notification was told once, in order, or is accounted for.

`OUTBOX_EXAMPLES=2000` in the environment tries so many sequences, at random; the suite tries the same few each time.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from support.outbox import Scripted
from support.stores import Database, emptied

from edgeq.backoff import Backoff
from edgeq.clock import MICROSECONDS
from edgeq.notifications.bucket import Limit
from edgeq.notifications.channels import Outcome, Rejected, Retry, Sent
from edgeq.notifications.notification import Notification
from edgeq.notifications.outbox import Sender
from edgeq.store import dead_letters, notifications
from edgeq.store.notifications import Group, NewNotification, StoredNotification
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock

T = TypeVar("T")

EXAMPLES = int(os.environ.get("OUTBOX_EXAMPLES", "0"))
FEW = {"sqlite": 25, "postgresql": 10}  # each of the many steps is a way to a server and back
ROUNDS_MAX = 2000

fingerprints = st.sampled_from([f"f{number}" for number in range(4)])
groups = st.sampled_from([None, None, Group("g", 30 * MICROSECONDS, 300 * MICROSECONDS), Group("quiet:r", 0, 0)])
channels = st.sampled_from(["phone", "phone", "phone", "siren"])
answers = st.sampled_from(
    ["takes", "gone", "busy", "fails", "refuses", "loses the answer", "crash", "crash", "fails some"]
)


class Killed(BaseException):
    """The program ends between the target's answer and the commit."""


class Target(Scripted):
    """`taken` are the notifications it took, with what is in them; `unsure` the keys of those that may come again."""

    backoff = Backoff(5.0, 900.0)

    def __init__(self, digests: bool, limit: Limit | None) -> None:
        super().__init__(self._answer)
        self.digests = digests
        self.limit = limit
        self.body_bytes_max = 700
        self.mood = "takes"
        self.taken: list[Notification] = []
        self.unsure: set[int] = set()

    def _answer(self, notification: Notification) -> Outcome | Exception:
        mood = self.mood
        if mood == "fails some":
            mood = "fails" if notification.id % 3 == 0 else "takes"
        if mood == "gone":
            return Retry("no route to host", target_down=True, unreachable=True)
        if mood == "busy":
            return Retry("429 Too Many Requests", after_seconds=7.0, target_down=True)
        if mood == "fails":
            return Retry("500 Internal Server Error")
        if mood == "refuses":
            return Rejected("400 Bad Request")
        self.taken.append(notification)
        if mood == "loses the answer":
            self.unsure.add(notification.id)
            return TimeoutError("no answer")
        if mood == "crash":
            self.unsure.add(notification.id)
            self.mood = "takes"
            raise Killed
        return Sent()


class OutboxMachine(RuleBasedStateMachine):
    """A phone, that people read, and a siren, to which it may fail over."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.store = database.store(clock=self.clock)
        self.do(self.store.open())
        self.do(self.store.write(emptied))
        self.targets = {"phone": Target(True, Limit(0.2, 10)), "siren": Target(False, None)}
        self.senders = {name: self.sender(name) for name in self.targets}
        self.added = 0
        self.redriven: set[int] = set()

    def do(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(doing)

    def sender(self, name: str) -> Sender:
        return Sender(name, self.targets[name], self.store, Metrics(), self.clock)

    def teardown(self) -> None:
        try:
            self.settle()
            self.audit()
        finally:
            self.do(self.store.close())
            self.runner.close()

    @rule(
        channel=channels,
        fingerprint=fingerprints,
        kind=st.sampled_from(["alert", "alert", "update", "reminder", "resolved"]),
        severity=st.sampled_from(["info", "warning", "critical"]),
        group=groups,
        held=st.sampled_from([0, 0, 0, 100, 5000]),
        ttl=st.sampled_from([None, None, None, 200, 20_000]),
        failover=st.sampled_from([(), (), ("siren",)]),
        times=st.sampled_from([1, 1, 1, 2, 12]),
    )
    def add(self, **drawn: Any) -> None:
        """Something happened."""
        self.queue(**drawn)

    def queue(
        self, channel: str, fingerprint: str, kind: str, severity: str, group: Group | None, held: int,
        ttl: int | None, failover: tuple[str, ...], times: int,
    ) -> None:  # fmt: skip
        """Queue it, perhaps also for the fingerprints next to it."""
        now = self.clock.now()
        rows = []
        for _ in range(times):
            self.added += 1
            rows.append(
                NewNotification(
                    channel=channel, severity=severity, title=f"n{self.added}", body="", kind=kind, created_at=now,
                    fingerprint=fingerprint if times == 1 else f"{fingerprint}-{self.added}", group=group,
                    not_before=now + held * MICROSECONDS if held else None,
                    expires_at=None if ttl is None else now + ttl * MICROSECONDS,
                    failover=() if channel == "siren" else failover,
                )
            )  # fmt: skip
        self.do(self.store.write(lambda tx: notifications.add(tx, rows)))

    @rule(channel=channels, mood=answers)
    def change(self, channel: str, mood: str) -> None:
        """The target becomes otherwise."""
        self.targets[channel].mood = mood

    @rule(seconds=st.sampled_from([1, 20, 70, 400, 4000]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.play(seconds)

    @rule(seconds=st.sampled_from([-86400, -90, -5, 5, 90, 86400]))
    def step(self, seconds: int) -> None:
        """The clock is set."""
        self.clock.step(seconds)

    @rule(channel=channels, fingerprint=fingerprints, kind=st.sampled_from(["update", "reminder", "resolved"]))
    def crash(self, channel: str, fingerprint: str, kind: str) -> None:
        """The program ends in the worst moment, and then there is more to tell."""
        common: dict[str, Any] = {
            "channel": channel,
            "fingerprint": fingerprint,
            "severity": "info",
            "failover": (),
            "times": 1,
        }
        self.queue(kind="alert", group=None, held=0, ttl=None, **common)
        self.targets[channel].mood = "crash"
        self.play(1)
        self.queue(kind=kind, group=None, held=0, ttl=None, **common)

    @rule(channel=channels)
    def restart(self, channel: str) -> None:
        """The sender knows nothing of before."""
        self.senders[channel] = self.sender(channel)

    @rule()
    def redrive(self) -> None:
        """Somebody wants the dead ones to be tried again."""
        dead = [row.id for row in self.rows() if row.state == "dead"][:5]
        letters = {letter.detail["notification_id"]: letter.id for letter in self.letters()}
        self.redriven.update(dead)
        now = self.clock.now()

        def unit(tx: Any) -> None:
            notifications.requeue(tx, dead, now)
            for row_id in dead:
                assert dead_letters.mark_redriven(tx, letters[row_id], now)

        self.do(self.store.write(unit))

    def rows(self) -> list[StoredNotification]:
        return self.do(notifications.find(self.store, limit=10_000))[::-1]

    def letters(self) -> list[dead_letters.DeadLetter]:
        return self.do(dead_letters.find(self.store, limit=10_000))

    def play(self, seconds: float) -> bool:
        """Let so much time pass, but for a crash; whether nothing waits then."""
        end = self.clock.monotonic() + seconds
        for _ in range(ROUNDS_MAX):
            waits = []
            for name in self.senders:
                try:
                    waits.append(self.do(self.senders[name].work()))
                except Killed:
                    self.restart(name)
                    return False
            rest = end - self.clock.monotonic()
            if rest <= 0 or waits == [None, None]:
                self.clock.advance(max(0.0, rest))
                return waits == [None, None]
            self.clock.advance(min([rest, *(max(0.001, wait) for wait in waits if wait is not None)]))
        raise AssertionError("the senders don't come to rest")

    def settle(self) -> None:
        """The targets take all, and time passes until nothing waits."""
        for target in self.targets.values():
            target.mood = "takes"
        assert any(self.play(3 * 86400) for _ in range(2)), [row for row in self.rows() if row.state == "queued"]

    def audit(self) -> None:
        """See the module."""
        rows = {row.id: row for row in self.rows()}
        own = [row for row in rows.values() if row.title.startswith("n") and row.kind != "digest"]
        assert len({row.title for row in own}) == self.added, "lost"
        letters = Counter(letter.detail["notification_id"] for letter in self.letters())
        for name, target in self.targets.items():
            times = Counter(notification.id for notification in target.taken)
            for row_id, count in times.items():
                assert count == 1 or row_id in target.unsure, f"{row_id} was sent {count} times"
            for row in rows.values():
                if row.channel == name:
                    self.account(row, rows, times, letters, target)
            self.in_order(target, [row for row in rows.values() if row.channel == name])

    @staticmethod
    def account(
        row: StoredNotification, rows: dict[int, StoredNotification], times: Counter[int], letters: Counter[int],
        target: Target,
    ) -> None:  # fmt: skip
        """Every row was sent, or told by another, or is dead with a letter, or silenced with a reason."""
        assert letters[row.id] == (row.state == "dead"), row
        if row.state == "sent":
            assert times[row.id], row
        elif row.state == "dead":
            assert not times[row.id] or row.id in target.unsure, row
        elif row.state == "silenced":
            assert not times[row.id], row
            assert row.error, row
        else:
            assert row.state == "grouped", row
            assert not times[row.id], f"told twice: {row}"
            assert rows[row.digest_id or 0].state in ("sent", "dead"), row
            assert rows[row.digest_id or 0].channel == row.channel

    def in_order(self, target: Target, rows: list[StoredNotification]) -> None:
        """What belongs together was told in the order of the rows, but for those that somebody had tried again."""
        told: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            if row.title.startswith("n") and row.state in ("sent", "grouped") and row.id not in self.redriven:
                told[row.fingerprint][row.digest_id or row.id].append(row.id)
        firsts = list(dict.fromkeys(notification.id for notification in target.taken))
        for by_message in told.values():
            last = 0
            for message in firsts:
                if message in by_message and message not in self.redriven:
                    assert min(by_message[message]) > last, f"out of order: {by_message}"
                    last = max(by_message[message])


@pytest.mark.timeout(600 + EXAMPLES)
def test_whatever_befalls_it(database: Database) -> None:
    how = settings(
        max_examples=EXAMPLES or FEW[database.kind],
        stateful_step_count=40,
        derandomize=not EXAMPLES,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(lambda: OutboxMachine(database), settings=how)


@pytest.mark.parametrize("mood", ["gone", "busy", "fails"])
def test_what_the_target_may_have_from_before_a_crash_stays_as_it_is(database: Database, mood: str) -> None:
    machine = OutboxMachine(database)
    machine.crash(channel="phone", fingerprint="f0", kind="update")
    machine.change(channel="phone", mood=mood)
    machine.wait(seconds=1)
    machine.teardown()
