"""Threads for jobs that are plain functions: reused, bounded, and what comes back from them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edgeq.jobs.threads import Call, Threads
from edgeq.testing import until

DEADLINE_SECONDS = 60.0
word = contextvars.ContextVar("word", default="")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Lets what waits for it go on, at the latest when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def wait(gate: threading.Event) -> str:
    assert gate.wait(DEADLINE_SECONDS)
    return threading.current_thread().name


def me() -> str:
    return threading.current_thread().name


def meet(others: threading.Barrier) -> str:
    others.wait()
    return threading.current_thread().name


async def test_threads_are_made_when_they_are_needed_and_used_again() -> None:
    threads = Threads(8)
    assert threads.started == 0
    names = {await threads.start(me).result() for _ in range(20)}
    assert (names, threads.started) == ({"edgeq-job-1"}, 1)
    all_there = threading.Barrier(3, timeout=DEADLINE_SECONDS)
    calls = [threads.start(meet, all_there) for _ in range(3)]
    assert len({await call.result() for call in calls}) == threads.started == 3
    threads.close()


async def test_never_more_than_that_many_run_and_each_has_a_thread_though_all_others_hang(
    gate: threading.Event,
) -> None:
    threads = Threads(5)
    begun: list[str] = []

    def hang() -> None:
        begun.append(me())
        wait(gate)

    calls = [threads.start(hang) for _ in range(5)]
    await until(lambda: len(begun) == 5)
    assert len(set(begun)) == threads.started == 5
    later = threads.start(me)
    await asyncio.sleep(0.02)
    assert (threads.started, later.returned) == (5, False)
    gate.set()
    await asyncio.gather(later.result(), *(call.result() for call in calls))
    threads.close()


async def test_a_thread_is_there_for_each_call_however_they_come_in() -> None:
    """Many rounds of a few calls that only end together: one that no thread took would never end."""
    threads = Threads(4)
    for _ in range(200):
        barrier = threading.Barrier(4)
        calls = [threads.start(barrier.wait, DEADLINE_SECONDS) for _ in range(4)]
        await asyncio.gather(*(call.result() for call in calls))
    assert threads.started == 4
    threads.close()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_what_a_function_raises_is_raised_where_it_was_called(error: BaseException) -> None:
    threads = Threads(1)

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await threads.start(fail).result()
    assert raised.value is error
    assert await threads.start(me).result() == "edgeq-job-1", "the thread has outlived it"
    threads.close()


async def test_a_function_sees_the_context_of_who_called_it() -> None:
    threads = Threads(1)
    for text in ("first", "second"):
        word.set(text)
        assert await threads.start(word.get).result() == text
    threads.close()


async def test_who_no_longer_waits_is_told_when_it_returns_after_all(gate: threading.Event) -> None:
    threads = Threads(1)
    call = threads.start(wait, gate)
    waiting = asyncio.create_task(call.result())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    returned: list[tuple[Call, threading.Thread]] = []
    call.on_return = lambda call: returned.append((call, threading.current_thread()))
    assert not call.returned
    gate.set()
    await until(lambda: bool(returned))
    assert returned == [(call, threading.main_thread())]
    assert call.returned
    threads.close()


async def test_results_that_are_there_come_back_together(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    told: list[Any] = []
    tell = loop.call_soon_threadsafe

    def count(*args: Any, **named: Any) -> asyncio.Handle:
        told.append(args)
        return tell(*args, **named)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)
    threads = Threads(3)
    done = threading.Semaphore(0)
    calls = [threads.start(done.release) for _ in range(50)]
    for _ in calls:  # the loop stands still meanwhile
        assert done.acquire(timeout=DEADLINE_SECONDS)
    await asyncio.gather(*(call.result() for call in calls))
    assert len(told) <= 4, "one for all that had returned; a thread may have been between its call and its report"
    threads.close()


async def test_closed_threads_end_at_once_or_when_their_function_returns(gate: threading.Event) -> None:
    threads = Threads(2, name="closing")
    busy = threads.start(wait, gate)
    await threads.start(me).result()

    def alive() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("closing")]

    assert len(alive()) == 2
    threads.close()
    threads.close()
    await until(lambda: len(alive()) == 1)
    with pytest.raises(RuntimeError, match="closed"):
        threads.start(me)
    gate.set()
    await busy.result()
    await until(lambda: not alive())


async def test_a_function_that_hangs_does_not_keep_the_program_from_ending() -> None:
    """Its thread is a daemon, for which the interpreter doesn't wait."""
    threads = Threads(1)
    assert await threads.start(lambda: threading.current_thread().daemon).result()
    threads.close()


async def test_without_a_thread_to_give_nothing_is_called_and_the_next_call_is_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = Threads(2)
    called: list[str] = []
    with monkeypatch.context() as no_threads:
        no_threads.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            threads.start(called.append, "first")
    await asyncio.wait_for(threads.start(called.append, "second").result(), DEADLINE_SECONDS)
    assert (called, threads.started) == (["second"], 1)
    threads.close()


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
