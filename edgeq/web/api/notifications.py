"""Notifications: what was told to whom, what waits, another chance, and acknowledging."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from ...clock import Clock
from ...notifications.acknowledge import Note, Standing, acknowledge, fault, of_notification
from ...store import history, notifications, threads
from ...store.notifications import StoredNotification
from ...store.store import Store, Tx
from ...store.threads import Thread
from ...telemetry.metrics import Metrics
from ..operation import Call, Listing, One, Operation, Text
from ..replies import Refusal
from .common import Done, fields_of, missing, page_of, saved

OPEN_MAX = 1000

State = Literal["queued", "sent", "grouped", "silenced", "dead"]


class ShownNotification(TypedDict):
    """A notification, by its columns. `detail` is decoded: what it is about. `open`: that goes on, and nobody has
    acknowledged it; of a digest, it isn't known."""

    id: int
    event_id: int | None
    channel: str
    severity: str
    title: str
    body: str
    fingerprint: str
    state: str
    attempt: int
    next_attempt_at: int
    sent_at: int | None
    error: str | None
    created_at: int
    kind: str
    detail: Any
    group_key: str | None
    digest_id: int | None
    expires_at: int | None
    failover: list[str]
    read_at: int | None
    tried_at: int | None
    route: str | None
    open: bool | None


class NotificationPage(TypedDict):
    """Notifications, the newest first."""

    items: list[ShownNotification]
    next: int | None


class Acknowledged(TypedDict):
    """`news`: it was acknowledged just now, and not before."""

    done: bool
    news: bool


class Search(Listing, frozen=True, kw_only=True):
    """Which notifications."""

    state: State | Literal[""] = ""
    channel: Text = ""


class NotificationOperations:
    """Looks at the table `notifications`, and changes it by the verbs of the commands."""

    def __init__(self, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock

    def operations(self) -> list[Operation]:
        """See api."""
        path = "/api/notifications"
        changes: dict[str, Any] = {"asks": One, "need": "change", "refusals": (404, 409)}
        return [
            Operation("GET", path, "The latest notifications that fit.", self._find, NotificationPage, Search),
            Operation("POST", f"{path}/<id>/retry", "Send it again, or now.", self._retry, gives=Done, **changes),
            Operation(
                "POST", f"{path}/<id>/ack", "Acknowledge what it is about.", self._ack, gives=Acknowledged, **changes
            ),
        ]  # fmt: skip

    async def _find(self, call: Call) -> dict[str, Any]:
        asked: Search = call.asked
        page = await page_of(
            lambda limit: notifications.find(
                self._store, limit=limit, channel=asked.channel, state=asked.state, before_id=asked.before
            ),
            asked.limit,
            lambda row: fields_of(row, "detail"),
        )
        rows = page["items"]
        told = {row["fingerprint"] for row in rows}
        found = await threads.latest(self._store, OPEN_MAX, fingerprints=list(told)) if told else []
        unseen = {each.thread.fingerprint: each.thread for each in found if each.thread.acknowledged_at is None}
        for row in rows:
            row["open"] = _is_open(row, unseen.get(row["fingerprint"]))
        return page

    async def _retry(self, call: Call) -> Done:
        now, row_id = self._clock.now(), call.asked.id
        if not await saved(self._store, lambda tx: history.retry(tx, [row_id], now)):
            row = await self._row(row_id)
            raise Refusal(409, f"notification {row.id} is {row.state}: only what is dead or waits is sent again")
        return {"done": True}

    async def _ack(self, call: Call) -> Acknowledged:
        now, row_id = self._clock.now(), call.asked.id

        def unit(tx: Tx) -> list[Standing]:
            told = of_notification(tx, row_id)
            if not told:
                raise missing(f"notification {row_id}", "it was never there, or is gone for its age")
            return acknowledge(tx, told, Note(by="", how="page"), now)

        found = await saved(self._store, unit)
        if why := fault(found):
            raise Refusal(409, f"nothing to acknowledge: {why}")
        news = sum(each.news for each in found)
        self._metrics.events.add(news)
        return {"done": True, "news": news > 0}

    async def _row(self, row_id: int) -> StoredNotification:
        row = await notifications.one(self._store, row_id)
        if row is None:
            raise missing(f"notification {row_id}", "it was never there, or is gone for its age")
        return row


def _is_open(row: dict[str, Any], thread: Thread | None) -> bool | None:
    if row["kind"] == "digest":
        return None
    # An earlier row of the same fingerprint told of what is over.
    return thread is not None and row["kind"] != "resolved" and (row["event_id"] or 0) >= thread.event_id
