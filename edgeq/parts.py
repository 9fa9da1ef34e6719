"""The parts that run for one configuration, built together, started in order, drained in order.

Started: processors, senders, workers, sources, schedules, intake, and last the session, so that nothing arrives before
there is somebody to take it. Drained the other way round: reading ends, what was taken in is committed and
acknowledged, then the rest finish what they have in hand.

Where several machines share the store, each processor and each channel is one process's at a time, and so is what goes
by the clock for all, the leader's (see `owned`). Workers and the intake are everybody's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from .clock import Clock
from .config.schema import Mqtt
from .errors import EdgeqError
from .filters import StoredFilters
from .headway import Headway
from .intake.intake import Intake
from .intake.redrive import MessageRedrive
from .jobs.slots import Slots
from .link import Link
from .members import Members
from .mqtt.inbox import QOS0_ROOM, Inbox
from .mqtt.session import Session
from .notifications.outbox import Sender
from .notifications.words import here
from .owned import Owned
from .plan import Plan
from .presence.contracts import ContractTopics
from .presence.gateway import Presence, info
from .presence.health import Health
from .presence.retained import Publisher
from .processors.runner import ProcessorRunner
from .processors.sentinel import Sentinel, close_all
from .redrive import Redriver, handlers
from .service import Service
from .store import meta, schedules
from .store.dead_letters import DeadLetter
from .store.store import Store
from .telemetry.metrics import Metrics
from .upkeep.retention import Retention
from .workforce import make_workers

if TYPE_CHECKING:
    from .jobs.schedules.scheduler import Scheduler
    from .jobs.sources.runner import SourceRunner
    from .notifications.heartbeat import Heartbeat
    from .ordered import OrderedIntake
    from .upkeep.backup import BackupMaker

log = logging.getLogger("edgeq.app")

DRAIN_SECONDS = 10.0
_CLOSE_SECONDS = 5.0


class Parts:
    """What runs for one configuration; the store and its file outlive it. `status` says how all of it stands."""

    def __init__(
        self,
        plan: Plan,
        mqtt: Mqtt,
        store: Store,
        metrics: Metrics,
        clock: Clock,
        status: Callable[[], Awaitable[dict[str, Any]]],
        *,
        started_at: int,
    ) -> None:
        config = plan.loaded.config
        # Not left to the broker alone: mosquitto 2.0.11 forgets the receive maximum after a reconnect.
        window = config.mqtt.receive_maximum
        self.inbox = Inbox(window + QOS0_ROOM)
        self.ordered = _ordered(plan, mqtt, store, metrics, clock)
        table = plan.table if self.ordered is None else plan.table.part(ordered=False)
        self.session = Session(
            mqtt,
            config.gateway,
            table.filters(),
            self.inbox,
            metrics,
            clock,
            packet_bytes_max=plan.packet_bytes_max,
            known_filters=StoredFilters(store, mqtt.client_id or f"edgeq-{config.gateway}", own=True),
            private=table.private_filters(),
        )
        self.intake = Intake(table, self.inbox, self.session, store, metrics, clock, window=window)
        self.headway = Headway(self.intakes, store)
        self.link = Link(self.session, self.inbox, self.intake, clock)
        self.runners = {
            name: ProcessorRunner(
                name,
                processor.make(self.link),
                processor.settings,
                store,
                metrics,
                clock,
                owned=partial(store.ownership.holds, f"processor:{name}"),
            )
            for name, processor in plan.processors.items()
        }
        place = here(config.gateway)
        self.senders = {
            name: Sender(
                name,
                channel,
                store,
                metrics,
                clock,
                place,
                plan.policy.quiet,
                owned=partial(store.ownership.holds, f"channel:{name}"),
            )
            for name, channel in plan.channels.items()
        }
        slots = Slots(config.jobs.concurrency)
        self.workers = make_workers(plan, config.jobs.queues, store, metrics, clock, slots=slots)
        self.scheduler: Scheduler | None = None
        if plan.schedules:
            from .jobs.schedules.scheduler import Scheduler  # who has no schedules doesn't pay for it

            self.scheduler = Scheduler(plan.schedules, store, clock, metrics)
        self.sources: list[SourceRunner] = []
        if plan.sources:
            from .jobs.sources.runner import make_source_runners

            self.sources = make_source_runners(plan.sources, config.jobs.queues, store, clock, metrics)
        self.retention = Retention(
            config.store.retention,
            store,
            clock,
            metrics,
            processors=tuple(self.runners),
            gateway=config.gateway,
            chosen="store.retention.events" in plan.loaded.places,
        )
        self.backup: BackupMaker | None = None
        if config.store.backup is not None:
            from .upkeep.backup import BackupMaker  # most have none

            self.backup = BackupMaker(config.store.backup, store, config.gateway, metrics, clock)
        self.heartbeat: Heartbeat | None = None
        if config.notifications.heartbeat is not None:
            from .notifications.heartbeat import Heartbeat  # HTTP costs memory

            self.heartbeat = Heartbeat(config.notifications.heartbeat, store, metrics, clock)
        self.web: list[Service] = []
        if config.web.listen is not None:
            from .web.making import Running, make_web  # who has no pages doesn't pay for them

            gets_on = self.headway.good
            running = Running(plan, store, metrics, clock, self.session, status, gets_on, self.positions)
            self.web = make_web(config.web.listen, running)
        publisher = Publisher(self.session, clock)
        self.health = Health(
            store,
            self.session,
            self.runners,
            config.jobs.queues,
            metrics,
            clock,
            backup_error=lambda: None if self.backup is None else self.backup.last_error,
        )
        told = info(config, len(plan.table.routes), len(plan.contracts), started_at)
        self.presence = Presence(config, told, self.health, publisher, store, plan.births, clock)
        self.contract_topics = ContractTopics(
            config, plan.contracts, self.sentinel, publisher, store, plan.births, clock
        )
        self._plan = plan
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._messages = MessageRedrive(plan.table, store, metrics, clock)
        self.redriver = Redriver(handlers(self._messages, self.runners, store, clock), store, clock, mine=self._is_mine)
        self._members = [Members(config, store, clock)] if store.ownership.shared else []
        self._started: list[Service] = []

    def positions(self) -> dict[str, int]:
        """How far each processor has come that runs here, by the id of the last event that is done."""
        return {name: runner.reached for name, runner in self.runners.items()}

    @property
    def sentinel(self) -> Sentinel | None:
        """The processor that judges contracts, if there is one."""
        processors = (runner.processor for runner in self.runners.values())
        return next((each for each in processors if isinstance(each, Sentinel)), None)

    def services(self) -> list[Service]:
        """Everything but the session and the intake, whether or not it is this process's to do."""
        arranged = self._arranged(once=False)
        owned = (each.services if isinstance(each, Owned) else [each] for each in arranged)
        return [service for services in owned for service in services]

    def _arranged(self, *, once: bool) -> list[Service]:
        """What there is to start, in this order."""
        judged = [] if self.sentinel is None else [self.contract_topics]
        processors = [
            self._owned(f"processor:{name}", runner, *(judged if runner.processor is self.sentinel else []))
            for name, runner in self.runners.items()
        ]
        channels = [self._owned(f"channel:{name}", sender) for name, sender in self.senders.items()]
        timed = [] if once else [*self.sources, *([] if self.scheduler is None else [self.scheduler])]
        unjudged = [self.contract_topics] if self.sentinel is None else []
        backup = [] if once or self.backup is None else [self.backup]
        leader = self._owned("leader", *timed, self.retention, *backup, *unjudged, first=self._close_what_is_gone)
        heartbeat = [] if self.heartbeat is None else [self.heartbeat]
        one_at_a_time = [*chain(*processors), *chain(*channels)]
        ordered = [] if self.ordered is None else self._owned(self.ordered.name, self.ordered)
        return [
            *one_at_a_time,
            *self.workers.values(),
            *leader,
            self.redriver,
            self.presence,
            *heartbeat,
            *self.web,
            *ordered,
            *self._members,
        ]

    def _owned(
        self, name: str, *services: Service, first: Callable[[], Awaitable[None]] | None = None
    ) -> Sequence[Service]:
        if not self._store.ownership.shared:
            return services
        return [Owned(name, services, self._store.ownership, self._clock, first=first)]

    async def start(self, *, once: bool = False) -> None:
        """Start everything; with `once`, all but what goes by the clock: that is asked once by who wants it."""
        if not self._store.ownership.shared:
            await self._close_what_is_gone()
        self._started = self._arranged(once=once)
        self._started += await self._recoverer()
        for service in [*self._started, self.intake, self.session]:
            await service.start()

    async def _recoverer(self) -> Sequence[Service]:
        """Who takes over the rest from a damaged database, if there was one."""
        try:
            if self._store.ownership.shared or await meta.get(self._store, meta.RECOVERY) is None:
                return []
        except EdgeqError as error:
            log.warning("whether there is more to be recovered is looked at by the next start: %s", error)
            return []
        from .upkeep.recovery import Recoverer

        return [Recoverer(self._store, self._plan.loaded.config.gateway, self._clock)]

    async def _close_what_is_gone(self) -> None:
        """Without contracts there is no sentinel to close what earlier ones have left open, and without schedules no
        scheduler to forget when earlier ones ran."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if not self._plan.contracts and not await self._store.ownership.owner_of(["processor:sentinel"]):
                    await close_all(self._store, self._metrics, self._clock)
                if not self._plan.schedules and await schedules.every(self._store):
                    await self._store.write(lambda tx: schedules.adopt(tx, {}))
        except (TimeoutError, EdgeqError) as error:
            log.warning(
                "contracts and schedules that are gone could not be closed; the next start will: %s",
                error or "no answer",
            )

    async def stop(self, grace_seconds: float = DRAIN_SECONDS) -> None:
        """Drain: what was taken in is finished, the rest stays with the broker and in the store.

        The intake, the parts behind it and the session get up to `grace_seconds` each.
        """
        self.session.stop_reading()
        await self.intake.stop(grace_seconds)
        await asyncio.gather(*(service.stop(grace_seconds) for service in self._started))
        await self.session.stop(grace_seconds)
        self._messages.close()

    def intakes(self) -> list[Intake]:
        """Those that run: that of the session, and that of the ordered routes while it is here."""
        ordered = None if self.ordered is None else self.ordered.intake
        return [self.intake] if ordered is None else [self.intake, ordered]

    def _is_mine(self, letter: DeadLetter) -> bool:
        """Whether it is this process that gives a dead letter another chance."""
        holds = self._store.ownership.holds
        name = letter.source.removeprefix("processor:")
        return holds(letter.source) if name != letter.source and name in self.runners else holds("leader")


def _ordered(plan: Plan, mqtt: Mqtt, store: Store, metrics: Metrics, clock: Clock) -> OrderedIntake | None:
    """The intake of the ordered routes, if others take part in taking in the rest."""
    table = plan.table.part(ordered=True)
    if not (table.routes and mqtt.group):
        return None
    from .ordered import OrderedIntake  # most have no group

    return OrderedIntake(
        table,
        mqtt,
        store,
        metrics,
        clock,
        packet_bytes_max=plan.packet_bytes_max,
        filters=partial(StoredFilters, store),
    )
