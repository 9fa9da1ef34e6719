"""Events have the priority of the route that they come from."""

from __future__ import annotations

from support.intake import running, table_of
from support.stores import Database

from edgeq.config.schema import Route
from edgeq.intake.context import MessageContext
from edgeq.intake.router import Router
from edgeq.store.store import Store
from edgeq.store.tables import Events

own = Router()


@own.on("own/{kind}", keep="low")
def emit(ctx: MessageContext, kind: str) -> None:
    ctx.emit(kind)


async def priorities(store: Store) -> dict[str, int]:
    return dict(await store.read(Events.select(Events.type, Events.keep)))


async def test_each_route_has_its_own_in_yaml_and_in_python(database: Database) -> None:
    routes = [Route("a", emit="a", keep="low"), Route("b", emit="b"), Route("c", emit="c", keep="high")]
    async with running(database, table_of(routes, [own])) as made:
        await made.acked(*[made.send(topic) for topic in ("a", "b", "c", "own/d")])
        assert await priorities(made.store) == {"a": -1, "b": 0, "c": 1, "d": -1}
