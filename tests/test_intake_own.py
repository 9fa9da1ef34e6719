"""Controllers of one's own: async or not, in order for each topic, holding up nobody, whatever they do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.intake import running, table_of
from support.stores import Database

from edgeq.config.schema import Route
from edgeq.errors import RejectedMessage
from edgeq.intake import calls
from edgeq.intake.router import Router
from edgeq.testing import until


async def test_async_and_plain_functions_get_their_parameters(database: Database) -> None:
    router = Router()
    threads: list[str] = []

    @router.on("a/{number:int}/{rest:#}")
    async def coroutine(ctx: Any, number: int, rest: str) -> None:
        ctx.emit("a", subject=f"{number!r} {rest}", data=ctx.json())

    @router.on("b/{name}", payload="text")
    def function(ctx: Any, name: str) -> None:
        threads.append(threading.current_thread().name)
        ctx.emit("b", subject=name, data={"text": ctx.text()})

    class Callable_:  # noqa: N801
        async def __call__(self, ctx: Any) -> None:
            ctx.emit("c")

    router.on("c")(Callable_())
    router.on("d/{name}")(functools.partial(coroutine_with, "d"))

    @router.on("e")
    def hidden(ctx: Any) -> Any:
        return coroutine_with("e", ctx, "")

    async with running(database, table_of([], [router])) as rig:
        for topic, payload in (("a/7/x/y", '{"n": 1}'), ("b/bee", "hello"), ("c", ""), ("d/dee", ""), ("e", "")):
            await rig.acked(rig.send(topic, payload))
        assert [(event.type, event.subject, event.data) for event in await rig.events()] == [
            ("a", "7 x/y", {"n": 1}),
            ("b", "bee", {"text": "hello"}),
            ("c", "", {}),
            ("d", "dee", {}),
            ("e", "", {}),
        ]
        assert threads == ["edgeq-controller"]


async def coroutine_with(kind: str, ctx: Any, name: str) -> None:
    ctx.emit(kind, subject=name)


async def test_a_message_says_what_it_is(database: Database) -> None:
    router = Router()
    seen: list[Any] = []

    @router.on("a/+", retained="handle", payload="raw")
    async def look(ctx: Any) -> None:
        seen.append((ctx.topic, ctx.payload, ctx.qos, ctx.retain, ctx.dup, ctx.received_at, ctx.route, ctx.value()))
        seen.append(ctx.properties.user)

    async with running(database, table_of([], [router])) as rig:
        properties = b"\x26\x00\x01k\x00\x01v"
        await rig.acked(
            rig.send("a/b", b"\xff", qos=0, retain=True, dup=True, received_at=5, properties_raw=properties)
        )
        assert seen == [("a/b", b"\xff", 0, True, True, 5, "a/+", b"\xff"), [("k", "v")]]


async def test_a_slow_one_does_not_hold_up_what_comes_behind_but_its_acknowledgement(database: Database) -> None:
    router = Router()
    finish = asyncio.Event()

    @router.on("slow/{name}")
    async def slow(ctx: Any, name: str) -> None:
        await finish.wait()
        ctx.emit("slow", subject=name)

    async with running(
        database, table_of([Route(topic="fast/{name}", emit="fast", subject="{name}")], [router])
    ) as rig:
        before = rig.send("fast/0", "1")
        mids = rig.send_all([("slow/1", "1"), ("fast/2", "1"), ("slow/3", "1"), ("fast/4", "1")])

        async def committed() -> bool:
            return len(await rig.events()) == 3

        await until(committed, "the fast ones to be committed", store=rig.store)
        assert [event.subject for event in await rig.events()] == ["0", "2", "4"]
        await rig.acked(before)
        assert rig.acks.mids == [before]
        finish.set()
        await rig.acked(*mids)
        assert rig.acks.mids == [before, *mids]


async def test_messages_of_one_topic_are_handled_in_order_and_others_meanwhile(database: Database) -> None:
    router = Router()
    running_now: dict[str, int] = {}
    overlaps: list[str] = []
    order: list[str] = []

    @router.on("t/{topic}")
    async def handle(ctx: Any, topic: str) -> None:
        running_now[topic] = running_now.get(topic, 0) + 1
        if running_now[topic] > 1:
            overlaps.append(topic)
        for _ in range(5 - int(ctx.text())):  # the later ones are quicker
            await asyncio.sleep(0)
        order.append(f"{topic}{ctx.text()}")
        running_now[topic] -= 1

    async with running(database, table_of([], [router])) as rig:
        mids = rig.send_all([(f"t/{topic}", str(number)) for topic in "ab" for number in range(5)])
        await rig.acked(*mids)
        assert rig.acks.mids == mids
        assert overlaps == []
        assert [each for each in order if each[0] == "a"] == [f"a{number}" for number in range(5)]
        assert [each for each in order if each[0] == "b"] == [f"b{number}" for number in range(5)]
        assert order[0] != order[1][0] + "1"  # both topics at once
        assert rig.intake._tails == {}


class Own(Exception):
    def __str__(self) -> str:
        raise RuntimeError("can't even say what is wrong")


class Unusual(BaseException):
    pass


def explode(error: BaseException) -> Callable[..., Any]:
    def function(ctx: Any) -> None:
        ctx.emit("never")
        raise error

    return function


def explode_async(error: BaseException) -> Callable[..., Any]:
    async def function(ctx: Any) -> None:
        ctx.emit("never")
        raise error

    return function


@pytest.mark.parametrize("make", [explode, explode_async])
@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (KeyError("field"), "failed", "KeyError: 'field'"),
        (RejectedMessage("odd", "this one is odd"), "odd", "this one is odd"),
        (RejectedMessage("", ""), "rejected", ""),
        (RejectedMessage("\ud800\n" * 999, "\ud800\0"), None, "\\ud800"),
        (ValueError("\ud800\0\x1b[31m"), "failed", "\\ud800"),
        (ValueError("x" * 10**6), "failed", "x" * 1000),
        (Own(), "failed", "str() failed"),
        (TimeoutError("the sensor didn't answer"), "failed", "the sensor didn't answer"),
        (StopIteration(), "failed", "StopIteration"),
        (asyncio.CancelledError(), "failed", "CancelledError"),
        (SystemExit(3), "failed", "SystemExit"),
        (KeyboardInterrupt(), "failed", "KeyboardInterrupt"),
        (Unusual(), "failed", "Unusual"),
        (GeneratorExit(), "failed", "GeneratorExit"),
        (BaseExceptionGroup("both", [SystemExit(3)]), "failed", "BaseExceptionGroup"),
        (RecursionError(), "failed", "RecursionError"),
        (MemoryError(), "failed", "MemoryError"),
    ],
)
async def test_whatever_is_raised_makes_a_dead_letter_and_nothing_else(
    database: Database, make: Callable[[BaseException], Any], error: BaseException, reason: str | None, said: str
) -> None:
    router = Router()
    router.on("bad")(make(error))
    async with running(database, table_of([Route(topic="good", emit="good")], [router])) as rig:
        mids = rig.send_all([("good", "1"), ("bad", b"\0raw"), ("good", "2"), ("bad", "again")])
        await rig.acked(*mids)
        assert rig.acks.mids == mids
        letters = await rig.dead_letters()
        assert [letter.payload for letter in letters] == [b"\0raw", b"again"]
        assert said in letters[0].error
        assert len(letters[0].error) < 60_000
        assert reason is None or letters[0].reason == reason
        assert (letters[0].source, letters[0].topic, letters[0].detail["route"]) == ("intake", "bad", "bad")
        assert [event.type for event in await rig.events()] == ["good", "good"]
        assert rig.metrics.dead_letters.values == {"intake": 2}
        assert rig.metrics.rejected.values == {"failed" if reason == "failed" else "rejected": 2}
        assert rig.intake.crashes == 0


@pytest.mark.parametrize(
    "decide",
    [
        lambda ctx: ctx.emit(""),
        lambda ctx: ctx.emit("x", subject="\ud800"),
        lambda ctx: ctx.emit("x", subject=None),
        lambda ctx: ctx.emit("x", subject=object()),
        lambda ctx: ctx.emit("x", data={"x": object()}),
        lambda ctx: ctx.emit("x", data="\ud800"),
        lambda ctx: ctx.emit("x", occurred_at=2**64),
        lambda ctx: ctx.emit("x", occurred_at=10**18),
        lambda ctx: ctx.emit("x", occurred_at="yesterday"),
        lambda ctx: ctx.emit("x", tags=["\ud800"]),
        lambda ctx: ctx.emit("x", tags=5),
        lambda ctx: ctx.dispatch(None),
    ],
)
async def test_decisions_that_no_store_can_take_make_a_dead_letter(
    database: Database, decide: Callable[[Any], None]
) -> None:
    router = Router()

    @router.on("bad")
    async def bad(ctx: Any) -> None:
        decide(ctx)

    async with running(database, table_of([Route(topic="good", emit="good")], [router])) as rig:
        mids = rig.send_all([("good", "1"), ("bad", "raw"), ("good", "2")])
        await rig.acked(*mids)
        [letter] = await rig.dead_letters()
        assert (letter.payload, letter.topic) == (b"raw", "bad")
        assert [event.type for event in await rig.events()] == ["good", "good"]


async def test_one_that_takes_too_long_becomes_a_dead_letter(database: Database) -> None:
    router = Router()

    @router.on("slow", timeout="20ms")
    async def slow(ctx: Any) -> None:
        ctx.emit("never")
        await asyncio.Event().wait()

    async with running(database, table_of([], [router])) as rig:
        await rig.acked(rig.send("slow", "raw"))
        [letter] = await rig.dead_letters()
        assert (letter.reason, letter.payload) == ("timeout", b"raw")
        assert letter.error == "the controller took longer than 0.02s"
        assert await rig.events() == []


async def test_a_function_that_hangs_keeps_its_thread_and_nothing_else(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "THREADS_MAX", 2)
    router = Router()
    wake = threading.Event()
    late: list[str] = []

    @router.on("hangs/+", timeout="500ms")
    def hangs(ctx: Any) -> None:
        wake.wait(120)
        late.append(ctx.topic)
        ctx.emit("too late")

    @router.on("works", timeout="60s")
    def works(ctx: Any) -> None:
        ctx.emit("works")

    async with running(database, table_of([], [router])) as rig:
        await rig.acked(rig.send("hangs/1"))
        await rig.acked(rig.send("works"))  # there is another thread
        mids = rig.send_all([("hangs/2", ""), ("hangs/3", ""), ("works", "")])
        await rig.acked(*mids[:2])
        assert [letter.reason for letter in await rig.dead_letters()] == ["timeout"] * 3
        wake.set()
        await rig.acked(*mids)
        assert [event.type for event in await rig.events()] == ["works", "works"]
        await until(lambda: len(late) == 2, "both to go on")  # one of them is enough for what works
        assert sorted(late) == ["hangs/1", "hangs/2"]  # the third had waited for a thread, and was not called


async def test_a_coroutine_that_will_not_be_cancelled_holds_up_nobody(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "THREADS_MAX", 2)
    monkeypatch.setattr(calls, "_CANCEL_SECONDS", 0.02)
    router = Router()
    wake = asyncio.Event()

    @router.on("deaf/+", timeout="20ms")
    async def deaf(ctx: Any) -> None:
        while not wake.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await wake.wait()
        ctx.emit("too late")
        raise SystemExit(3)

    @router.on("works", timeout="20ms")
    async def works(ctx: Any) -> None:
        ctx.emit("works")

    async with running(database, table_of([], [router])) as rig:
        await rig.acked(rig.send("deaf/1"))
        await rig.acked(rig.send("works"))
        await rig.acked(*rig.send_all([("deaf/2", ""), ("deaf/3", "")]))
        await rig.acked(rig.send("works", "not called"))
        wake.set()
        await until(
            lambda: not any(task.get_name().startswith("controller:deaf") for task in asyncio.all_tasks()),
            "the end of those that go on",
        )
        await rig.acked(rig.send("works"))
        assert [event.type for event in await rig.events()] == ["works", "works"]
        letters = await rig.dead_letters()
        assert [letter.reason for letter in letters] == ["timeout"] * 4
        assert letters[3].error.startswith("not called: ")


async def test_the_end_does_not_wait_for_a_function_that_hangs(database: Database) -> None:
    router = Router()
    wake = threading.Event()

    @router.on("hangs", timeout="1h")
    def hangs(ctx: Any) -> None:
        wake.wait(20)

    async with running(database, table_of([], [router])) as rig:
        rig.send("hangs")
        await rig.taken()
        await until(lambda: any(t.name == "edgeq-controller" for t in threading.enumerate()), "the call")
        rig.inbox.close()
        await rig.intake.stop(0.05)
        assert all(t.daemon for t in threading.enumerate() if t.name == "edgeq-controller")
        assert rig.acks.mids == []
    wake.set()


async def test_threads_end_with_the_intake(database: Database) -> None:
    router = Router()
    threads: list[threading.Thread] = []

    @router.on("a")
    def function(ctx: Any) -> None:
        threads.append(threading.current_thread())

    async with running(database, table_of([], [router])) as rig:
        for _ in range(5):
            await rig.acked(rig.send("a"))
        assert len(set(threads)) == 1  # none is made while another waits
    await until(lambda: not threads[0].is_alive(), "the thread to end")


async def test_middleware_stands_around_the_outermost_first(database: Database) -> None:
    said: list[str] = []

    def layer(name: str) -> Callable[[Any, Callable[[], Awaitable[None]]], Awaitable[None]]:
        async def middleware(ctx: Any, call_next: Callable[[], Awaitable[None]]) -> None:
            said.append(f"{name} in {ctx.params['pump']}")
            await call_next()
            said.append(f"{name} out")

        return middleware

    router = Router(middleware=[layer("router")])
    with router.group("pumps/{pump}", middleware=[layer("group")]) as pumps:

        @pumps.on("state", middleware=[layer("route 1"), layer("route 2")])
        def state(ctx: Any, pump: int) -> None:
            said.append(f"state {pump}")

    async with running(database, table_of([], [router])) as rig:
        await rig.acked(rig.send("pumps/7/state"))
    assert said == [
        "router in 7", "group in 7", "route 1 in 7", "route 2 in 7", "state 7", "route 2 out", "route 1 out",
        "group out", "router out",
    ]  # fmt: skip


async def test_middleware_may_end_it_and_may_fail(database: Database) -> None:
    async def guard(ctx: Any, call_next: Callable[[], Awaitable[None]]) -> None:
        if ctx.json()["word"] == "wrong":
            raise RejectedMessage("forbidden", "wrong word")
        if ctx.json()["word"] == "none":
            ctx.emit("refused")
            return
        await call_next()

    router = Router(middleware=[guard])

    @router.on("a")
    async def handle(ctx: Any) -> None:
        ctx.emit("handled")

    async with running(database, table_of([], [router])) as rig:
        await rig.acked(*(rig.send("a", f'{{"word": "{word}"}}') for word in ("right", "none", "wrong")))
        assert [event.type for event in await rig.events()] == ["handled", "refused"]
        assert [letter.reason for letter in await rig.dead_letters()] == ["forbidden"]


async def test_a_route_that_fails_takes_nothing_from_the_others(database: Database) -> None:
    router = Router()

    @router.on("a")
    async def fails(ctx: Any) -> None:
        ctx.emit("never")
        raise ValueError

    routes = [
        Route(topic="a", emit="before"),
        Route(topic="a", emit="x", dispatch="any"),
        Route(topic="+", emit="after"),
    ]

    def no_job(_: str) -> Any:
        class Broken:
            @classmethod
            def from_args(cls, given: dict[str, Any]) -> None:
                raise ValueError("broken")

        return Broken

    async with running(database, table_of(routes, [router], resolve_job=no_job)) as rig:
        await rig.acked(rig.send("a", "1"))
        assert [event.type for event in await rig.events()] == ["before", "after"]
        assert [(letter.detail["route"], letter.reason) for letter in await rig.dead_letters()] == [
            ("a (2)", "bad_arguments"),
            ("a (3)", "failed"),
        ]
        assert rig.metrics.routed.values == {"a": 1, "a (2)": 1, "a (3)": 1, "+": 1}


async def test_built_in_controllers_that_fail_half_way_leave_nothing_behind(database: Database) -> None:
    def no_job(_: str) -> Any:
        class Broken:
            @classmethod
            def from_args(cls, given: dict[str, Any]) -> None:
                raise ZeroDivisionError

        return Broken

    routes = [Route(topic="a", emit="good"), Route(topic="+", emit="half", dispatch="any")]
    async with running(database, table_of(routes, resolve_job=no_job)) as rig:
        await rig.acked(*rig.send_all([("a", "1"), ("a", "2")]))
        assert [event.type for event in await rig.events()] == ["good", "good"]
        assert [letter.detail["route"] for letter in await rig.dead_letters()] == ["+", "+"]
