"""A configuration in, a running appliance out: opens the store, runs the parts, reloads, feeds the watchdog, ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from math import inf

from .backoff import Backoff
from .clock import Clock
from .config.schema import LoadedConfig, Mqtt
from .control import ControlServer, socket_path
from .errors import ConfigError, EdgeqError, StoreUnavailable
from .hosting import GIVE_UP_SECONDS, give_memory_back, settle_process
from .mqtt.embedded import EmbeddedBroker, is_embedded
from .naming import GatewayName
from .once import do_all
from .parts import DRAIN_SECONDS, Parts
from .plan import Plan, make_plan
from .status import SAMPLE_SECONDS, Status
from .store.opening import local_base, make_store
from .telemetry.metrics import Metrics
from .telemetry.systemd import Notifier
from .upkeep.quarantine import tell_of_quarantine

log = logging.getLogger("edgeq.app")

_OPEN_AGAIN = Backoff(0.5, 5.0)
_SESSION_SECONDS = 5.0
"""How long whoever waits for edgeq at a boot waits for its broker, too."""


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
        self._store_settings = self.plan.loaded.config.store
        self.store = make_store(
            self.plan.loaded.config, "run", metrics=self.metrics, clock=self._clock, exclusive=True, make=True
        )
        self.parts: Parts | None = None
        self.started_at = self._clock.now()
        self._status = Status(self, self._clock)
        self._notifier = Notifier.from_environ(os.environ)
        self._started = asyncio.Event()
        self._stop = asyncio.Event()
        self._asked = asyncio.Event()  # to stop or to reload
        self._hurrying: asyncio.Future[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._reload = False
        self._embedded: EmbeddedBroker | None = None
        self._name = GatewayName(self.plan.loaded.config.gateway, self.store, refused=self.stop)

    def stop(self) -> None:
        """Drain and end. Called again: wait for nothing any more, and give back what isn't done. Returns at once; `run`
        returns when it is done."""
        if self._stop.is_set() and self.parts is not None and self._hurrying is None:
            log.info("what is in hand is given back now")
            self._hurrying = asyncio.ensure_future(self.parts.stop(0.0))
        self._stop.set()
        self._asked.set()

    def reload(self) -> None:
        """Read the configuration again. The one in use stays if the new one is wrong. Returns at once."""
        self._reload = True
        self._asked.set()

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

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation_data: bytes | None = None,
    ) -> int:
        """Publish through the present session; the broker's reason code. Raises PublishFailed."""
        session = self._present().session
        return await session.publish(topic, payload, qos=qos, retain=retain, correlation_data=correlation_data)

    async def run(self, *, once: bool = False) -> None:
        """Run until `stop()`; or `once`, until all is done that there is to do now. A store that can't be opened now is
        waited for, but not with `once`.

        Raises StoreError when it can't be opened at all, or another one goes by this gateway's name on it, EdgeqError
        when it turns out to be damaged, and with `once` also when the broker could not be reached.
        """
        unreached = ""
        settle_process()
        base = local_base(self.plan.loaded.config)
        control = ControlServer(socket_path(base), {"status": self._status.gather})
        attending = asyncio.create_task(self._attend())
        try:
            if await self._open_store(control, patient=not once):
                await self._start(once)
                if once:
                    unreached = await self._until_done()
                else:
                    await self._until_stopped()
                log.info("stopping: what is in hand is finished first")
        finally:
            if self._telling is not None:
                self._telling.cancel()
            self._notifier.stopping()
            await control.stop()
            if self.parts is not None:
                # Nothing more can be finished on a file that is damaged or gone.
                await self.parts.stop(GIVE_UP_SECONDS if self.store.fault else DRAIN_SECONDS)
            if self._hurrying is not None:
                await self._hurrying
            await self._stop_embedded()
            refused = await self._name.give_back()
            await self.store.close()
            attending.cancel()
        if (error := refused or self.store.fault) is not None:
            raise error
        if unreached:
            raise EdgeqError(
                f"the broker at {self.broker_url()} could not be reached {unreached}",
                hint="everything else was done; what the broker has is left for the next time",
            )
        log.info("stopped")

    async def _open_store(self, control: ControlServer, *, patient: bool) -> bool:
        """Open the store, if one is `patient` as soon as that is possible; False when `stop()` comes first, or the
        gateway's name is another's there."""
        attempt = 0
        while not self._stop.is_set():
            try:
                await self.store.open()
            except StoreUnavailable:
                if not patient:
                    raise
                attempt += 1
                self._say_ready()  # as the boot must not wait for this
                await control.start(alone=False)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _OPEN_AGAIN.delay(attempt))
            else:
                if not await self._name.claim(self._stop):
                    return False
                await control.start()
                return True
        return False

    async def _start(self, once: bool) -> None:
        for warning in (*self.plan.warnings, *await self.store.warnings()):
            log.warning("%s", warning)
        await self._start_embedded()
        self.parts = self._make_parts()
        starts = {name: processor.settings.start for name, processor in self.plan.processors.items()}
        tell_of_quarantine(self.store, self.plan.loaded.config.gateway, starts, self._clock)
        await self.parts.start(once=once)
        self._started.set()
        self._telling = asyncio.create_task(self._tell_ready(self.parts))
        give_memory_back()
        log.info("edgeq %s is running", self.plan.loaded.config.gateway)

    async def _until_stopped(self) -> None:
        """Return when `stop()` was called, and reload when that is asked for."""
        while not self._stop.is_set():
            await self._asked.wait()
            self._asked.clear()
            if self._reload and not self._stop.is_set():
                self._reload = False
                await self._take_over()

    async def _until_done(self) -> str:
        """Return when all is done, or `stop()` was called; why the broker could not be reached, if so."""
        assert self.parts is not None
        done = asyncio.ensure_future(do_all(self.parts, self.store, self._clock))
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((done, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if done.done():
            return done.result()
        done.cancel()
        return ""

    async def _attend(self) -> None:
        """Again and again: feed the watchdog, tell systemd and the broker how it stands, note the counters, look after
        the store."""
        limit = self._notifier.watchdog_interval_seconds or inf
        while True:
            if self.parts is None or self.parts.headway.look():
                self._notifier.watchdog()
            self._notifier.status(self._summary())
            self._status.sample()
            if self.parts is not None:
                self.parts.presence.tick()
            if self.store.fault is not None:
                self.stop()
            # Twice as often as it must be: one look at the progress may come in a moment of rest.
            await asyncio.sleep(min(SAMPLE_SECONDS, limit / 2))

    async def _tell_ready(self, parts: Parts) -> None:
        """Tell systemd when the session is up; or soon, as a boot must not wait for a broker that is away."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(parts.session.wait_ready(), _SESSION_SECONDS)
        self._say_ready()

    def _say_ready(self) -> None:
        """Tell systemd that nobody need wait any longer, and before that, what is still missing."""
        self._notifier.status(self._summary())
        self._notifier.ready()

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
        if self._telling is not None:
            self._telling.cancel()
        self._notifier.reloading()
        self._reloaded(plan.loaded)
        for warning in plan.warnings:
            log.warning("%s", warning)
        if self.parts is not None:
            await self.parts.stop()
        if embedded is not self._embedded:
            await self._stop_embedded()
        self.plan, self._embedded = plan, embedded
        self.parts = self._make_parts()
        await self.parts.start()
        self._telling = asyncio.create_task(self._tell_ready(self.parts))
        give_memory_back()
        log.info("the configuration was read again")

    def _plan(self, loaded: LoadedConfig) -> Plan:
        looks = {"status": lambda: self._status.gather(), "health": lambda: self._present().health.look()}
        return make_plan(loaded, publish=self.publish, clock=self._clock, metrics=self.metrics, looks=looks)

    def _present(self) -> Parts:
        if self.parts is None:
            raise EdgeqError("edgeq is starting or reloading")
        return self.parts

    def _make_parts(self) -> Parts:
        return Parts(
            self.plan,
            self.mqtt_settings(),
            self.store,
            self.metrics,
            self._clock,
            self._status.gather,
            started_at=self.started_at,
        )

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
