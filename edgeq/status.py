"""How the appliance is, gathered when somebody asks: for `edgeq status`, and for pages to come."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins

from .clock import MICROSECONDS, Clock
from .config.schema import Config
from .errors import StoreError
from .store import breakers, contract_states, cursors, dead_letters, events, jobs, notifications, threads
from .store.space import measure
from .store.store import Health, Store
from .version import edgeq_version

if TYPE_CHECKING:
    from .app import App
    from .config.schema import Queue
    from .notifications.outbox import Sender
    from .processors.sentinel import Sentinel

SAMPLE_SECONDS = 5.0
_SAMPLES = 12
_NO_NOTIFICATIONS: dict[str, Any] = {
    **dict.fromkeys(("queued", "sent", "grouped", "silenced", "dead"), 0),
    "oldest_queued_at": None,
    "oldest_seconds": 0.0,
    "error": None,
}
NOBODY: Mapping[str, int] = {}
_NO_JOBS = {
    **dict.fromkeys((*jobs.STATES, "ready", "blocked", "delayed"), 0),
    "oldest_ready_seconds": 0.0,
    "paused": False,
}


async def stored(
    store: Store, now: int, processors: Collection[str], positions: Mapping[str, int] = NOBODY
) -> dict[str, Any]:
    """What the tables say, whether or not an appliance runs on them. `now` is in microseconds since 1970 UTC,
    `processors` are the names of those that are configured; see `places` for `positions`."""
    answer = {
        "store": {
            "place": store.place,
            "id": store.id,
            "head": await events.head(store),
            **store.disk(),
            **await _room(store),
        },
        "processors": await places(store, now, processors, positions),
        "jobs": await jobs.counts(store, now),
        "breakers": [to_builtins(breaker) for breaker in await breakers.all(store)],
        "notifications": {
            channel: {**_NO_NOTIFICATIONS, **counts, "oldest_seconds": _age(counts["oldest_queued_at"], now)}
            for channel, counts in (await notifications.counts(store)).items()
        },
        "threads": await threads.counts(store),
        "contracts": await contract_states.counts(store),
        "dead_letters": await dead_letters.counts(store),
    }
    await add_owners(store, answer)
    return answer


async def _room(store: Store) -> dict[str, Any]:
    """What rows take, what is free between them, and since when there are events."""
    room = await measure(store)
    return {
        "used_bytes": room.used,
        "free_bytes": room.free,
        "oldest_event_at": await events.first_recorded_at(store),
    }


def limits(config: Config) -> dict[str, int | None]:
    """The limits that the store is kept within, in bytes and rows; None for what has none."""
    kept = config.store.retention
    found = {"max_size": kept.max_size, "max_rows": kept.max_rows, "min_free_disk": kept.min_free_disk}
    return {name: None if value is None else int(value) for name, value in found.items()}


async def places(
    store: Store, now: int, processors: Collection[str], positions: Mapping[str, int] = NOBODY
) -> list[dict[str, Any]]:
    """How far each processor is, as the tables say; but one that runs here lags behind by what comes after its
    position in `positions`, which its cursor follows within seconds. For the rest see `stored`."""
    found = []
    for cursor in await cursors.every(store):
        reached = max(cursor.last_consumed_id, positions.get(cursor.processor, 0))
        behind = await events.after(store, reached, 1)
        found.append(
            {
                "name": cursor.processor,
                "last_consumed_id": cursor.last_consumed_id,
                "lag_events": await events.count_after(store, reached),
                "lag_seconds": max(0.0, (now - behind[0].recorded_at) / MICROSECONDS) if behind else 0.0,
                "state": _state(cursor) if cursor.processor in processors else "not configured",
                "attempt": cursor.attempt,
                "error": cursor.error,
                "updated_at": cursor.updated_at,
            }
        )
    return found


async def every_queue(store: Store, settings: Mapping[str, Queue], now: int) -> list[dict[str, Any]]:
    """Every queue that is configured (in `settings`), has a job or is paused; see jobs.counts. `concurrency` is how
    many jobs a process runs at once, None for one that isn't configured."""
    found = {each["queue"]: each for each in await jobs.counts(store, now)}
    for name in settings:
        found.setdefault(name, {"queue": name, **_NO_JOBS})
    return [
        {
            **found[name],
            "size": found[name]["available"] + found[name]["delayed"] + found[name]["executing"],
            "concurrency": _at_once(settings[name]) if name in settings else None,
        }
        for name in sorted(found)
    ]


def _at_once(settings: Queue) -> int:
    return settings.processes if settings.isolation == "process" else settings.concurrency


async def add_owners(store: Store, answer: dict[str, Any]) -> None:
    """Where several machines may share the store: whose each processor and channel is, and who is the leader."""
    if not store.ownership.shared:
        return
    owned = {f"processor:{place['name']}": place for place in answer["processors"]}
    owned |= {f"channel:{name}": channel for name, channel in answer["notifications"].items()}
    owners = await store.ownership.owner_of([*owned, "leader"])
    for name, each in owned.items():
        each["owner"] = owners.get(name)
    answer["leader"] = owners.get("leader")


class Status:
    """What a running appliance adds to what the tables say."""

    def __init__(self, app: App, clock: Clock) -> None:
        self._app = app
        self._clock = clock
        self._samples: deque[tuple[float, int, int]] = deque([(clock.monotonic(), 0, 0)], maxlen=_SAMPLES)

    def sample(self) -> None:
        """Note the counters. Called every `SAMPLE_SECONDS`, so that rates over the last minute can be told."""
        metrics = self._app.metrics
        self._samples.append((self._clock.monotonic(), metrics.received.total(), metrics.events.total()))

    async def gather(self) -> dict[str, Any]:
        """Everything, as plain values."""
        app, parts = self._app, self._app.parts
        answer: dict[str, Any] = {
            "running": True,
            "pid": os.getpid(),
            "version": edgeq_version(),
            "gateway": app.plan.loaded.config.gateway,
            "started_at": app.started_at,
            "rates": self._rates(),
            "gauges": {},
        }
        health = app.store.health
        try:
            positions = {} if parts is None else parts.positions()
            answer |= await stored(app.store, self._clock.now(), app.plan.processors, positions)
        except StoreError as error:
            health = Health(False, str(error) if health.ok else health.reason, health.since)
            answer["store"] = {"place": app.store.place, **app.store.disk()}
        answer["counters"] = {counter.name: dict(counter.values) for counter in app.metrics.all()}
        answer["retention"] = limits(app.plan.loaded.config)
        answer["store"] |= {"ok": health.ok, "reason": health.reason, "since": health.since}
        if parts is None:
            return answer
        answer["retention"] |= parts.retention.says()
        session = parts.session
        answer["session"] = {
            "state": str(session.state),
            "reason": session.reason,
            "url": str(session.address),
            "client_id": session.client_id,
            "connected_since": session.connected_since,
            "disconnected_since": session.disconnected_since,
            "connections": session.connections,
            "last_message_at": session.last_message_at,
            "waiting": len(parts.inbox),
            "in_flight": parts.intake.in_flight(),
        }
        answer["routes"] = [
            {
                "topic": route.label,
                "messages": app.metrics.routed.values.get(route.label, 0),
                "last_message_at": max(
                    (each.last_message_at.get(route.label, 0) for each in parts.intakes()), default=0
                )
                or None,
            }
            for route in app.plan.table.routes
        ]
        sections = app.plan.loaded.config.processors
        for place in answer.get("processors", []):
            if place["name"] in app.plan.processors:  # one that was added is called by its kind
                place["kind"] = sections[place["name"]].data["kind"] if place["name"] in sections else place["name"]
            runner = parts.runners.get(place["name"])
            if runner is None or not app.store.ownership.holds(f"processor:{place['name']}"):
                continue
            place["state"] = runner.state
            if runner.busy_with is not None:
                place["busy_with"], place["busy_since"] = runner.busy_with
            if runner.waiting_for:
                place["error"] = runner.waiting_for
            if said := runner.says():
                place["says"] = said
        severities = {contract.name: contract.keys.severity for contract in app.plan.contracts}
        for each in answer.get("contracts", ()):
            each["severity"] = severities.get(each["contract"])
        _add_skips(answer, parts.sentinel)
        answer["workers"] = [
            {
                "queue": name,
                "running": len(worker.running),
                "concurrency": worker.size,
                "overdue": worker.overdue,
            }
            for name, worker in parts.workers.items()
        ]
        answer["crashed"] = [
            {"name": service.name, "crashes": service.crashes, "last_error": service.last_error}
            for service in (parts.session, parts.intake, *parts.services())
            if service.crashes
        ]
        if parts.heartbeat is not None:
            answer["heartbeat"] = {
                "last_success_at": parts.heartbeat.last_success_at,
                "last_error": parts.heartbeat.last_error,
            }
        if parts.backup is not None:
            answer["backup"] = {
                "to": parts.backup.to,
                "last_success_at": parts.backup.last_success_at,
                "last_error": parts.backup.last_error,
            }
        self._add_channels(parts.senders, answer)
        answer["gauges"] = {gauge.name: gauge.values for gauge in app.metrics.gauges()}
        return answer

    def _add_channels(self, senders: Mapping[str, Sender], answer: dict[str, Any]) -> None:
        """What the senders know beside the table; all of it as metrics, too, but of no channel that is gone."""
        channels = answer.setdefault("notifications", {})
        for name, sender in senders.items():
            channels.setdefault(name, dict(_NO_NOTIFICATIONS))
            channels[name] |= {"last_error": sender.last_error, "waiting_until": sender.waiting_until}
        now = self._clock.now()
        for name, channel in channels.items():
            channel["configured"] = name in senders
        for what, gauge in self._app.metrics.channels.items():
            gauge.set({name: _measure(channels[name], what, now) for name in senders})

    def _rates(self) -> dict[str, float]:
        then, received, events_then = self._samples[0]
        seconds = max(self._clock.monotonic() - then, 1.0)
        metrics = self._app.metrics
        return {
            "messages_per_second": round((metrics.received.total() - received) / seconds, 2),
            "events_per_second": round((metrics.events.total() - events_then) / seconds, 2),
        }


def _add_skips(answer: dict[str, Any], sentinel: Sentinel | None) -> None:
    """Say of each contract which events it couldn't judge since the start, by reason, and the last of them."""
    if sentinel is None or not sentinel.skipped:
        return
    known = {each["contract"]: each for each in answer.setdefault("contracts", [])}
    for name, reasons in sorted(sentinel.skipped.items()):
        if name not in known:
            known[name] = {"contract": name}
            answer["contracts"].append(known[name])
        last = sentinel.last_skipped[name]
        known[name]["skipped"] = reasons
        known[name]["last_skipped"] = {"event_id": last.event_id, "reason": last.reason, "subject": last.subject}


def _age(since: int | None, now: int) -> float:
    return 0.0 if since is None else max(0.0, (now - since) / MICROSECONDS)


def _measure(channel: dict[str, Any], what: str, now: int) -> float:
    """What a gauge says of a channel."""
    if what == "failing":
        return float(channel["last_error"] is not None)
    if what == "waiting_seconds":
        until = channel["waiting_until"]
        return 0.0 if until is None else max(0.0, (until - now) / MICROSECONDS)
    return float(channel[what])


def _state(cursor: cursors.Cursor) -> str:
    if cursor.paused:
        return "halted" if cursor.halted else "paused"
    return "idle" if cursor.failure is None else "retrying"
