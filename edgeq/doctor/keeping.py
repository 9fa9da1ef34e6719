"""Whether the broker keeps what is published while edgeq is away: it is tried, with a session and a topic of its own.

A client subscribes and leaves, another one publishes, the first comes back. Its session ends with that; should the
doctor be killed in between, the broker forgets it a minute later (with MQTT 3.1.1: when the doctor is called again).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import msgspec

from ..mqtt.connection import WAITING_MAX, Connection, NotConnected, PublishFailed
from ..mqtt.delivery import Delivery
from ..mqtt.presence import below
from ..units import Duration
from .case import Case
from .finding import Finding, bad, ok, unknown, warn
from .mosquitto import takes_over
from .visit import ANSWER_SECONDS, NoWay, visit

THOROUGH_MESSAGES = 5000

_KEPT_FOR = Duration(60)
_AGAIN_SECONDS = 0.5
_LAST = b"last"
_LOST = "what is published while edgeq is down is lost"
_DO = "mosquitto: config/mosquitto/edgeq.conf has all it needs (max_queued_messages, persistence)"


class Outcome(msgspec.Struct, frozen=True):
    """Of `sent` messages, `came` were there again; `session` says whether the broker still knew the client."""

    sent: int
    came: int
    session: bool


def kept(case: Case) -> Iterator[Finding]:
    """Whether the broker keeps messages for a session that is away."""
    if case.broker is None or takes_over(case):
        return
    sent = THOROUGH_MESSAGES if case.thorough else 1
    topic = below(case.loaded.config.mqtt.status_topic, case.loaded.config.gateway, "doctor")
    try:
        outcome = asyncio.run(_try(case, topic, sent))
    except NoWay:
        return  # that is said by others
    except (PublishFailed, NotConnected, TimeoutError) as error:
        why = str(error) or "the broker doesn't answer"
        yield unknown(f"whether the broker keeps messages couldn't be tried: {why}", f"it was tried on {topic}")
        return
    if not outcome.session:
        yield bad("the broker has forgotten a session that was away for a moment", _LOST, _DO)
    elif not outcome.came:
        yield bad(
            f"the broker didn't keep a message on {topic} for a session that was away",
            f"{_LOST}; or edgeq may not read below its status topic",
            _DO,
        )
    elif outcome.came < outcome.sent:
        yield warn(
            f"of {outcome.sent} messages the broker kept {outcome.came} for a session that was away",
            "the rest is dropped without a word, as when edgeq is down for long",
            _DO,
        )
    else:
        many = f"{outcome.came} messages" if outcome.came > 1 else "a message"
        yield ok(f"the broker keeps {many} for a session that is away")


async def _try(case: Case, topic: str, sent: int) -> Outcome:
    came: list[Delivery] = []
    news = asyncio.Event()

    def take(deliveries: list[Delivery]) -> None:
        came.extend(deliveries)
        news.set()

    try:
        async with visit(case, "away", session_expiry=_KEPT_FOR) as connection, asyncio.timeout(ANSWER_SECONDS):
            refused = await connection.subscribe({topic: 1})
            if refused:
                raise PublishFailed(f"the broker refuses the subscription to {topic}: {refused[topic]}")
        async with visit(case, "here") as here:
            await _publish(here, topic, sent)
            async with visit(case, "away", session_expiry=_KEPT_FOR, on_messages=take) as connection:
                if connection.welcome.session_present:
                    await _take_all(connection, here, topic, came, news)
                kept = sum(each.payload != _LAST for each in came)
                return Outcome(sent, kept, connection.welcome.session_present)
    finally:
        with contextlib.suppress(NoWay):
            async with visit(case, "away"):
                pass  # its session is not to outlast it


async def _take_all(
    connection: Connection, here: Connection, topic: str, came: list[Delivery], news: asyncio.Event
) -> None:
    """Acknowledge what comes until all that was kept has come: a last message comes after it. That one is published
    again while nothing comes, as it may have found the queue full; and given up when that is so for long."""
    acknowledged, silent = 0, 0.0
    await here.publish(topic, _LAST, 1, False, ANSWER_SECONDS)
    while silent < ANSWER_SECONDS and all(each.payload != _LAST for each in came):
        try:
            await asyncio.wait_for(news.wait(), _AGAIN_SECONDS)
            silent = 0.0
        except TimeoutError:
            silent += _AGAIN_SECONDS
            await here.publish(topic, _LAST, 1, False, ANSWER_SECONDS)
        news.clear()
        connection.ack(came[acknowledged:])
        acknowledged = len(came)


async def _publish(connection: Connection, topic: str, count: int) -> None:
    for at in range(0, count, WAITING_MAX):
        page = range(at, min(at + WAITING_MAX, count))
        await asyncio.gather(
            *(connection.publish(topic, str(number).encode(), 1, False, ANSWER_SECONDS) for number in page)
        )
