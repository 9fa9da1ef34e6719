"""Who owns what, of several stores on one PostgreSQL database; and services that run only where they are owned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.postgres import Postgres
from support.proxy import Proxy
from support.stores import PostgresDatabase, SqliteDatabase, postgres_store

from edgeq.clock import Clock
from edgeq.errors import StoreError
from edgeq.naming import GatewayName
from edgeq.owned import Owned
from edgeq.service import Service
from edgeq.store.ownership import Alone, Held
from edgeq.store.postgres.ownership import lock_key
from edgeq.store.store import Store
from edgeq.testing import until

SOON_SECONDS = 60.0


@pytest.fixture
def url(postgres: Postgres) -> str:
    return PostgresDatabase.on(postgres).url


async def own(stack: AsyncExitStack, store: Store, name: str) -> Held:
    async with asyncio.timeout(SOON_SECONDS):
        return await stack.enter_async_context(store.ownership.own(name))


async def lost(held: Held) -> None:
    async with asyncio.timeout(SOON_SECONDS):
        await held.lost.wait()


class Busy(Service):
    """Notes when it runs, and who else does."""

    def __init__(self, running: set[str], name: str) -> None:
        super().__init__(name, Clock())
        self.running = running
        self.turns = 0

    async def run(self) -> None:
        assert not self.running, f"{self.name} runs beside {self.running}"
        self.running.add(self.name)
        self.turns += 1
        try:
            await self.stopping.wait()
        finally:
            self.running.discard(self.name)


async def test_one_machine_owns_everything_at_once(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path).opened() as store, AsyncExitStack() as stack:
        held = await own(stack, store, "leader")
        assert store.ownership.holds("anything")
        assert not held.lost.is_set()
        assert not store.ownership.shared
        assert await store.ownership.owner_of(["leader"]) == {}


async def test_a_name_is_owned_once_and_passes_on_when_it_is_given_back(url: str) -> None:
    async with postgres_store(url, "a run") as first, postgres_store(url, "b run") as second, AsyncExitStack() as stack:
        await own(stack, first, "processor:p")
        waiting = asyncio.ensure_future(own(stack, second, "processor:p"))
        await own(stack, second, "processor:q")  # it was asked, and not given the other one
        assert not waiting.done()
        assert first.ownership.holds("processor:p")
        assert not second.ownership.holds("processor:p")
        owners = await first.ownership.owner_of(["processor:p", "processor:q", "processor:r"])
        assert owners == {"processor:p": "a", "processor:q": "b"}
        await first.close()
        await waiting
        assert second.ownership.holds("processor:p")


async def test_who_gives_up_waiting_gets_nothing(url: str) -> None:
    async with postgres_store(url, "a") as first, postgres_store(url, "b") as second, AsyncExitStack() as stack:
        async with AsyncExitStack() as firsts:
            await own(firsts, first, "leader")
            waiting = asyncio.ensure_future(own(stack, second, "leader"))
            await own(stack, second, "other")
            waiting.cancel()
        await own(stack, first, "leader")  # once more, which takes nobody else's
        assert not second.ownership.holds("leader")


async def test_one_block_at_a_time_for_each_name(url: str) -> None:
    async with postgres_store(url, "a") as store, AsyncExitStack() as stack:
        await own(stack, store, "leader")
        with pytest.raises(ValueError, match="asked for twice"):
            await own(stack, store, "leader")


async def test_an_ended_session_loses_all_and_the_next_has_it(url: str, postgres: Postgres) -> None:
    async with postgres_store(url, "ended") as first, postgres_store(url, "next") as second, AsyncExitStack() as stack:
        held = [await own(stack, first, name) for name in ("leader", "processor:p")]
        waiting = asyncio.ensure_future(own(stack, second, "leader"))
        postgres.terminate("edgeq ended session")
        await asyncio.gather(*map(lost, held))
        assert not first.ownership.holds("leader")
        await waiting
        assert second.ownership.holds("leader")


async def test_who_is_cut_off_knows_that_it_has_lost_before_another_can_own(url: str, postgres: Postgres) -> None:
    async with Proxy(postgres.port) as proxy, AsyncExitStack() as stack:
        through = url.replace(f":{postgres.port}", f":{proxy.port}")
        first = await stack.enter_async_context(postgres_store(through, "a"))
        second = await stack.enter_async_context(postgres_store(url, "b"))
        held = await own(stack, first, "leader")
        proxy.hold()
        await own(stack, second, "leader")
        assert held.lost.is_set()
        assert not first.ownership.holds("leader")
        proxy.release()


async def test_a_service_runs_in_one_place_at_a_time(url: str, postgres: Postgres) -> None:
    running: set[str] = set()
    async with Proxy(postgres.port) as proxy, AsyncExitStack() as stack:
        through = url.replace(f":{postgres.port}", f":{proxy.port}")
        first = await stack.enter_async_context(postgres_store(through, "a"))
        second = await stack.enter_async_context(postgres_store(url, "b"))
        services = [Busy(running, "a"), Busy(running, "b")]
        owned = [Owned("leader", [services[0]], first.ownership, Clock())]
        owned += [Owned("leader", [services[1]], second.ownership, Clock())]
        await owned[0].start()
        await until(lambda: running == {"a"})
        await owned[1].start()
        proxy.hold()
        await until(lambda: running == {"b"}, deadline_seconds=SOON_SECONDS)
        proxy.release()
        await owned[1].stop()
        await until(lambda: running == {"a"}, deadline_seconds=SOON_SECONDS)
        await owned[0].stop()
        assert not running
        assert [(service.turns, service.crashes) for service in services] == [(2, 0), (1, 0)]


async def test_one_that_does_not_end_keeps_the_name(url: str, postgres: Postgres) -> None:
    class Stubborn(Service):
        may_end = asyncio.Event()

        async def run(self) -> None:
            while not self.may_end.is_set():
                try:
                    await self.may_end.wait()
                except asyncio.CancelledError:
                    self.log.debug("so what")

    async with postgres_store(url, "a") as store:
        stubborn = Stubborn("stubborn", Clock())
        owned = Owned("leader", [stubborn], store.ownership, Clock())
        await owned.start()
        await until(lambda: stubborn._task is not None)
        postgres.terminate("edgeq a session")
        await until(lambda: not store.ownership.holds("leader"))
        task = stubborn._task
        async with AsyncExitStack() as stack:  # the session is back, and could have had it
            await own(stack, store, "other")
        assert not store.ownership.holds("leader")
        stubborn.may_end.set()
        await until(lambda: stubborn._task is not task and store.ownership.holds("leader"))
        await owned.stop()


async def test_stopping_while_it_waits(url: str) -> None:
    async with postgres_store(url, "a") as first, postgres_store(url, "b") as second, AsyncExitStack() as stack:
        await own(stack, first, "leader")
        service = Busy(set(), "never")
        owned = Owned("leader", [service], second.ownership, Clock())
        await owned.start()
        await own(stack, second, "other")
        async with asyncio.timeout(SOON_SECONDS):
            await owned.stop()
        assert service.turns == 0


async def test_a_gateway_name_is_refused_to_the_second(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.naming.NAME_SECONDS", 1.5)
    async with postgres_store(url, "käserei run") as first, postgres_store(url, "käserei run") as second:
        stop, refused = asyncio.Event(), asyncio.Event()
        names = [GatewayName("käserei", store, refused.set) for store in (first, second)]
        assert await names[0].claim(stop)
        assert not await names[1].claim(stop)
        assert refused.is_set()
        error = await names[1].give_back()
        assert isinstance(error, StoreError)
        assert "another edgeq run goes by the name käserei" in str(error)
        assert await names[0].give_back() is None

        async def free() -> bool:
            return await second.ownership.owner_of(["gateway:käserei"]) == {}

        await until(free, "the name to be free")
        again = GatewayName("käserei", second, refused.set)
        async with asyncio.timeout(SOON_SECONDS):
            assert await again.claim(stop)
        await again.give_back()


async def test_a_gateway_that_was_just_given_its_name_is_not_refused_for_itself(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeq.naming.NAME_SECONDS", 1.5)
    monkeypatch.setattr("edgeq.naming.NEWS_SECONDS", SOON_SECONDS)
    async with postgres_store(url, "käserei run") as first, postgres_store(url, "käserei run") as second:
        stop, refused = asyncio.Event(), asyncio.Event()
        before, after = (GatewayName("käserei", store, refused.set) for store in (first, second))
        assert await before.claim(stop)

        async def owner_of(names: Iterable[str]) -> dict[str, str]:
            await before.give_back()
            return dict.fromkeys(names, "käserei run")  # as the server says before we have heard of it

        monkeypatch.setattr(second.ownership, "owner_of", owner_of)
        assert await after.claim(stop)
        assert await after.give_back() is None


async def test_a_gateway_name_survives_an_outage(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    url = await asyncio.to_thread(lambda: PostgresDatabase.on(server).url)
    refused = asyncio.Event()
    async with postgres_store(url, "käserei run") as store, AsyncExitStack() as stack:
        name = GatewayName("käserei", store, refused.set)
        other = await own(stack, store, "other")
        assert await name.claim(asyncio.Event())
        await asyncio.to_thread(server.restart, "immediate")
        await lost(other)
        await until(lambda: store.ownership.holds("gateway:käserei"), deadline_seconds=SOON_SECONDS)
        assert not refused.is_set()
        assert await name.give_back() is None


def test_the_locks_of_our_own_names_differ() -> None:
    names = [f"{kind}:{name}" for kind in ("processor", "channel", "gateway") for name in ("a", "courier", "sentinel")]
    assert len({lock_key(name) for name in [*names, "leader"]}) == len(names) + 1


async def test_asked_to_stop_it_lets_its_services_finish_within_the_grace() -> None:
    """What is on its way outside, such as a mail, isn't cut off and sent again by the next owner."""
    finished = asyncio.Event()
    let = asyncio.Event()

    class Careful(Service):
        async def run(self) -> None:
            await self.stopping.wait()
            await let.wait()
            finished.set()

    careful = Careful("careful", Clock())
    owned = Owned("leader", [careful], Alone(), Clock())
    await owned.start()
    await until(lambda: careful._task is not None, "it to start")
    stopping = asyncio.create_task(owned.stop(60.0))
    await until(lambda: owned.stopping.is_set() and careful.stopping.is_set(), "the end to be asked for")
    for _ in range(10):
        await asyncio.sleep(0)
    let.set()
    await stopping
    assert finished.is_set()
