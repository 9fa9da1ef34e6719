"""A configuration in, a running appliance out: builds the parts, starts them in order, drains them in order.

Started: store, processors, senders, workers, intake, and last the session, so that nothing arrives before there is
somebody to take it. Drained the other way round: reading ends, what was taken in is committed and acknowledged, then
the rest finish what they have in hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from math import inf

from .backoff import Backoff
from .clock import Clock
from .config.load import sqlite_path
from .config.schema import LoadedConfig, Mqtt
from .context import Context
from .control import ControlServer, socket_path
from .errors import ConfigError, EdgeqError, StoreUnavailable
from .intake.intake import Intake
from .jobs.worker import Worker
from .link import Link
from .mqtt.embedded import EmbeddedBroker, is_embedded
from .mqtt.inbox import Inbox
from .mqtt.session import Session
from .notifications.outbox import Sender
from .plan import Plan, make_plan
from .processors.runner import ProcessorRunner
from .redrive import Redriver
from .service import Service
from .status import SAMPLE_SECONDS, Status
from .store import cursors, dead_letters, jobs, meta, notifications
from .store.dead_letters import DeadLetter
from .store.decisions import record
from .store.events import one as one_event
from .store.sqlite import SqliteStore
from .store.store import Store, Tx
from .telemetry.metrics import Metrics
from .telemetry.systemd import Notifier

log = logging.getLogger("edgeq.app")

_QOS0_ROOM = 1000
_SWITCH_SECONDS = 0.0005
_DRAIN_SECONDS = 10.0
_OPEN_AGAIN = Backoff(0.5, 5.0)
_FILTERS_KEY = "mqtt_filters"


class App:
    """One appliance. `run()` it until it is asked to stop.

    `load` gives the configuration at the start and at every `reload()`; `reloaded` is called with each that takes the
    place of another. Raises ConfigError when the first one is wrong.
    """

    def __init__(
        self,
        load: Callable[[], LoadedConfig],
        *,
        clock: Clock | None = None,
        reloaded: Callable[[LoadedConfig], None] = lambda loaded: None,
    ) -> None:
        self._load = load
        self._reloaded = reloaded
        self._clock = clock or Clock()
        self.metrics = Metrics()
        self.plan = self._plan(load())
        self._store_settings = config = self.plan.loaded.config.store
        self.store = SqliteStore(
            sqlite_path(config.url),
            metrics=self.metrics,
            clock=self._clock,
            durability=config.durability,
            commit_interval_seconds=float(config.commit_interval),
        )
        self.parts: Parts | None = None
        self.started_at = self._clock.now()
        self._notifier = Notifier.from_environ(os.environ)
        self._started = asyncio.Event()
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._embedded: EmbeddedBroker | None = None

    def stop(self) -> None:
        """Drain and end. Returns at once; `run` returns when it is done."""
        self._stop.set()

    def reload(self) -> None:
        """Read the configuration again. The one in use stays if the new one is wrong. Returns at once."""
        self._reload.set()

    async def ready(self) -> None:
        """Return once everything runs and the broker has confirmed the subscriptions."""
        await self._started.wait()
        assert self.parts is not None
        await self.parts.session.wait_ready()

    def broker_url(self) -> str:
        """Where the session connects to, and others can, also when the broker is embedded."""
        return self.mqtt_settings().url

    def mqtt_settings(self) -> Mqtt:
        """`mqtt` of the configuration, with the address of the embedded broker when that is asked for."""
        settings = self.plan.loaded.config.mqtt
        return settings if self._embedded is None else self._embedded.settings(settings)

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish through the present session. Raises PublishFailed."""
        if self.parts is None:
            raise EdgeqError("edgeq is starting or reloading")
        await self.parts.session.publish(topic, payload, qos=qos, retain=retain)

    async def run(self) -> None:
        """Run until `stop()`. A store that can't be opened now is waited for.

        Raises StoreError when it can't be opened at all, EdgeqError when it turns out to be damaged.
        """
        # Python lets a waiting thread have its turn every 5 ms by default; a commit needs several turns.
        sys.setswitchinterval(_SWITCH_SECONDS)
        status = Status(self, self._clock)
        control = ControlServer(socket_path(self.store.path), {"status": status.gather})
        attending = asyncio.create_task(self._attend(status))
        try:
            if await self._open_store(control):
                await self._start()
                await self._until_stopped()
                log.info("stopping: what is in hand is finished first")
        finally:
            self._notifier.stopping()
            await control.stop()
            if self.parts is not None:
                await self.parts.stop()
            await self._stop_embedded()
            await self.store.close()
            attending.cancel()
        if self.store.damaged:
            raise EdgeqError(
                f"{self.store.path} is damaged; it is put aside at the next start",
                hint="systemd starts edgeq again by itself",
            )
        log.info("stopped")

    async def _open_store(self, control: ControlServer) -> bool:
        """Open the store, as soon as that is possible; False when `stop()` comes first."""
        attempt = 0
        while not self._stop.is_set():
            try:
                await self.store.open()
            except StoreUnavailable:
                attempt += 1
                self._notifier.ready()  # to systemd, as the boot must not wait for this; its status line says why
                await control.start()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _OPEN_AGAIN.delay(attempt))
            else:
                await control.start()
                return True
        return False

    async def _start(self) -> None:
        for warning in self.plan.warnings:
            log.warning("%s", warning)
        await self._start_embedded()
        self.parts = Parts(self.plan, self, self._clock)
        self._tell_of_quarantine()
        await self.parts.start()
        self._started.set()
        self._notifier.ready()
        log.info("edgeq %s is running", self.plan.loaded.config.gateway)

    async def _until_stopped(self) -> None:
        """Return when `stop()` was called, and reload when that is asked for."""
        waiting = {asyncio.create_task(self._stop.wait()), asyncio.create_task(self._reload.wait())}
        try:
            while not self._stop.is_set():
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if self._reload.is_set():
                    self._reload.clear()
                    waiting.add(asyncio.create_task(self._reload.wait()))
                    await self._take_over()
        finally:
            for task in waiting:
                task.cancel()

    async def _attend(self, status: Status) -> None:
        """Again and again: feed the watchdog, tell systemd how it stands, note the counters, look after the store."""
        limit = self._notifier.watchdog_interval_seconds or inf
        while True:
            if self.parts is None or self.parts.progressing():
                self._notifier.watchdog()
            self._notifier.status(self._summary())
            status.sample()
            if self.store.damaged:
                self.stop()
            # Twice as often as it must be: one look at the progress may come in a moment of rest.
            await asyncio.sleep(min(SAMPLE_SECONDS, limit / 2))

    def _summary(self) -> str:
        """One line for `systemctl status`."""
        told = [] if self.store.health.ok else [f"store: {self.store.health.reason}"]
        if self.parts is not None:
            session = self.parts.session
            told.append(f"broker: {session.state}" + (f" ({session.reason})" if session.reason else ""))
        return "; ".join([*told, f"{self.metrics.received.total()} messages received"])

    async def _take_over(self) -> None:
        """Put parts for the configuration as it is now in the place of the present ones, unless it is wrong."""
        try:
            plan = self._plan(self._load())
            embedded = await self._other_broker(plan)
        except ConfigError as error:
            for problem in error.problems:
                log.error("%s", problem)
            log.error("the configuration is wrong; the one in use stays")
            return
        except EdgeqError as error:
            log.error("%s; the configuration in use stays", error)
            return
        config = plan.loaded.config
        if config.store != self._store_settings:
            log.warning("%s: changes of `store` need a restart; the rest is taken over", plan.loaded.where("store"))
        self._notifier.reloading()
        self._reloaded(plan.loaded)
        for warning in plan.warnings:
            log.warning("%s", warning)
        if self.parts is not None:
            await self.parts.stop()
        if embedded is not self._embedded:
            await self._stop_embedded()
        self.plan, self._embedded = plan, embedded
        self.parts = Parts(plan, self, self._clock)
        await self.parts.start()
        self._notifier.ready()
        log.info("the configuration was read again")

    def _plan(self, loaded: LoadedConfig) -> Plan:
        return make_plan(loaded, publish=self.publish, clock=self._clock, metrics=self.metrics)

    def _tell_of_quarantine(self) -> None:
        if self.store.quarantined is None:
            return
        plan, now = self.plan, self._clock.now()
        ctx = Context(self._clock)
        ctx.emit(
            "edgeq.store_damaged",
            subject=plan.loaded.config.gateway,
            data={"severity": "critical", "put_aside_as": self.store.quarantined},
            tags=("notification",),
            description=f"The database was damaged, put aside as {self.store.quarantined}; edgeq started empty.",
        )

        def unit(tx: Tx) -> None:
            for name, processor in plan.processors.items():  # those that start at `latest` must see it, too
                cursors.take(tx, name, processor.settings.start, now)
            record(tx, ctx.decisions)

        self.store.submit(unit).add_done_callback(_note_failure)

    async def _other_broker(self, plan: Plan) -> EmbeddedBroker | None:
        """The embedded broker that `plan` needs: the present one, if its address is the same, or a running one."""
        url = plan.loaded.config.mqtt.url
        if url == self.plan.loaded.config.mqtt.url:
            return self._embedded
        return await _embedded(url)

    async def _start_embedded(self) -> None:
        self._embedded = await _embedded(self.plan.loaded.config.mqtt.url)

    async def _stop_embedded(self) -> None:
        if self._embedded is not None:
            await self._embedded.stop()
            self._embedded = None


async def _embedded(url: str) -> EmbeddedBroker | None:
    """A running broker, if `url` asks for one in this process."""
    if not is_embedded(url):
        return None
    broker = EmbeddedBroker(url)
    await broker.start()
    return broker


class Parts:
    """What runs for one configuration; the store and its file outlive it."""

    def __init__(self, plan: Plan, app: App, clock: Clock) -> None:
        config = plan.loaded.config
        store, metrics = app.store, app.metrics
        # Not left to the broker alone: mosquitto 2.0.11 forgets the receive maximum after a reconnect.
        window = config.mqtt.receive_maximum
        self.inbox = Inbox(window + _QOS0_ROOM)
        self.session = Session(
            app.mqtt_settings(),
            config.gateway,
            plan.table.filters(),
            self.inbox,
            metrics,
            clock,
            packet_bytes_max=plan.packet_bytes_max,
            known_filters=_Filters(store),
        )
        self.intake = Intake(plan.table, self.inbox, self.session, store, metrics, clock, window=window)
        self.link = Link(self.session, self.inbox, self.intake, clock)
        self.runners = {
            name: ProcessorRunner(name, processor.make(self.link), processor.settings, store, metrics, clock)
            for name, processor in plan.processors.items()
        }
        self.senders = {name: Sender(name, channel, store, metrics, clock) for name, channel in plan.channels.items()}
        owner = f"{config.gateway}:{os.getpid()}"
        self.workers = {
            name: Worker(name, settings, store, metrics=metrics, clock=clock, owner=owner)
            for name, settings in config.jobs.queues.items()
        }
        self._store = store
        self._clock = clock
        self.redriver = Redriver(
            {
                "intake": self.intake.redrive,
                "processor": self._redrive_processor,
                "job": self._redrive_job,
                "channel": self._redrive_notification,
            },
            store,
            clock,
        )
        self._landed_before = 0

    def services(self) -> list[Service]:
        """Everything but the session and the intake, in the order of starting."""
        return [*self.runners.values(), *self.senders.values(), *self.workers.values(), self.redriver]

    async def start(self) -> None:
        """Start everything."""
        for service in [*self.services(), self.intake, self.session]:
            await service.start()

    async def stop(self) -> None:
        """Drain: what was taken in is finished, the rest stays with the broker and in the store."""
        self.session.stop_reading()
        await self.intake.stop(_DRAIN_SECONDS)
        await asyncio.gather(*(service.stop(_DRAIN_SECONDS) for service in self.services()))
        await self.session.stop(_DRAIN_SECONDS)

    def progressing(self) -> bool:
        """Whether messages got on since the last call, or it is known why not: what the watchdog is fed by.

        A message may wait for the disk, and for a controller of one's own, which has its time limit.
        """
        landed = self.intake.landed
        moved = landed != self._landed_before
        self._landed_before = landed
        return moved or not self.intake.in_flight() or self.intake.handling or self._store.busy

    async def _redrive_processor(self, letter: DeadLetter) -> None:
        name = letter.source.partition(":")[2]
        runner = self.runners.get(name)
        if runner is None:
            raise EdgeqError(f"there is no processor {name!r} in this configuration")
        event = await one_event(self._store, letter.event_id or 0)
        if event is None:
            raise EdgeqError(f"event {letter.event_id} is no longer stored")
        await runner.redrive(event, lambda tx: dead_letters.mark_redriven(tx, letter.id, self._clock.now()))

    async def _redrive_job(self, letter: DeadLetter) -> None:
        now = self._clock.now()

        def unit(tx: Tx) -> None:
            if not jobs.retry_dead(tx, [letter.job_id or 0], now):
                raise EdgeqError(f"job {letter.job_id} is no longer there, or not dead")
            dead_letters.mark_redriven(tx, letter.id, now)

        await self._store.write(unit)

    async def _redrive_notification(self, letter: DeadLetter) -> None:
        now = self._clock.now()
        notification_id = int(letter.detail.get("notification_id", 0))

        def unit(tx: Tx) -> None:
            if not notifications.requeue(tx, [notification_id], now):
                raise EdgeqError(f"notification {notification_id} is no longer there, or not dead")
            dead_letters.mark_redriven(tx, letter.id, now)

        await self._store.write(unit)


class _Filters:
    """Keeps in the store which topic filters the broker holds for us. See mqtt.session.SubscriptionMemory."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def load(self) -> list[str]:
        return (await meta.get(self._store, _FILTERS_KEY) or "").splitlines()

    async def save(self, filters: list[str]) -> None:
        await self._store.write(lambda tx: meta.put(tx, _FILTERS_KEY, "\n".join(filters)))


def _note_failure(done: asyncio.Future[None]) -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        log.error("that the database was damaged could not be stored as an event: %s", error)
