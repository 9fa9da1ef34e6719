"""Requests by MQTT: what others may ask of a gateway by a message, if `mqtt.requests` allows it.

Asked on `edgeq/<gateway>/request/NAME`, answered on `edgeq/<gateway>/response/NAME`, both in JSON:

    {"contract": "freezer-cold", "subject": "freezer-1", "transaction": 7}
    {"status": "ok", "data": {"acknowledged": 1, …}, "transaction": 7}
    {"status": "error", "error": "nothing is open of it", "transaction": 7}

What can be relied on:

- A request goes the way of every message: what it changes is committed, then it is answered, then acknowledged. Before
  the commit there is no answer; what isn't acknowledged comes again, and to do it again changes nothing.
- Whatever is sent, there is an answer, and never a dead letter. `transaction`, any JSON of TRANSACTION_BYTES_MAX, comes
  back in it.
- Retained requests are passed over: they would be asked again at every start.
- An answer is published once. If there is no connection for it, nobody gets it, and who asked may ask again.

Who may ask is for the broker to say, by its access list.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import msgspec

from .clock import Clock, rfc3339
from .config.schema import Config
from .errors import EdgeqError
from .events import from_json, to_json
from .intake.context import MessageContext
from .intake.table import CompiledRoute
from .intake.threads import Threads
from .mqtt.presence import request_topic, response_topic
from .mqtt.topics import Template
from .notifications.acknowledge import (
    BY_CHARACTERS_MAX,
    COMMENT_CHARACTERS_MAX,
    NAME_CHARACTERS_MAX,
    Note,
    Standing,
    acknowledge,
    fault,
    of_contract,
    of_notification,
)
from .store.store import Tx
from .telemetry.log import Calm
from .telemetry.metrics import Metrics

log = logging.getLogger("edgeq.requests")

REQUEST_BYTES_MAX = 16 * 1024
TRANSACTION_BYTES_MAX = 1024
ANSWERS_MAX = 100
LISTED_MAX = 50

_SECONDS = 30.0
_ERROR_CHARACTERS_MAX = 300

Publish = Callable[..., Awaitable[object]]
_Name = Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS_MAX)]


class AckRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `ack` is asked: a contract, if one likes with one subject of it alone, or a notification by its id."""

    contract: _Name | None = None
    subject: _Name | None = None
    notification: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None = None
    by: Annotated[str, msgspec.Meta(max_length=BY_CHARACTERS_MAX)] = ""
    comment: Annotated[str, msgspec.Meta(max_length=COMMENT_CHARACTERS_MAX)] = ""
    transaction: Any = None


def request_routes(config: Config, *, publish: Publish, clock: Clock, metrics: Metrics) -> list[CompiledRoute]:
    """A route for each request that is allowed."""
    routes = []
    for name in dict.fromkeys(config.mqtt.requests):
        at = (config.mqtt.status_topic, config.gateway, name)
        topic = request_topic(*at)
        routes.append(
            CompiledRoute(
                label=topic,
                template=Template.exact(topic),
                qos=1,
                payload="raw",
                takes_retained=False,
                payload_bytes_max=REQUEST_BYTES_MAX,
                timeout_seconds=_SECONDS,
                inline=(),
                own=_Ack(_Answers(response_topic(*at), publish, metrics, clock), metrics),
                limiter=None,
                limit_key=lambda ctx: "",
                over_limit_is_dead_letter=False,
                takes_oversize=True,
            )
        )
    return routes


class _Answers:
    """Publishes answers on `topic`, without anybody waiting for them."""

    def __init__(self, topic: str, publish: Publish, metrics: Metrics, clock: Clock) -> None:
        self._topic = topic
        self._publish = publish
        self._metrics = metrics
        self._calm = Calm(log, clock.monotonic)
        self._tasks: set[asyncio.Task[None]] = set()

    def ok(self, data: dict[str, Any], transaction: Any) -> None:
        """Answer that it is done."""
        self._send({"status": "ok", "data": data}, transaction)

    def error(self, sentence: str, transaction: Any = None) -> None:
        """Answer that it is not done, and why."""
        self._send({"status": "error", "error": sentence[:_ERROR_CHARACTERS_MAX]}, transaction)

    def _send(self, answer: dict[str, Any], transaction: Any) -> None:
        if len(self._tasks) >= ANSWERS_MAX:
            self._lost("too many are asked at once")
            return
        payload = to_json(answer if transaction is None else {**answer, "transaction": transaction}).encode()
        task = asyncio.create_task(self._deliver(payload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, payload: bytes) -> None:
        try:
            await self._publish(self._topic, payload, qos=1)
        except EdgeqError as error:
            self._lost(str(error))

    def _lost(self, why: str) -> None:
        self._metrics.dropped.add(1, "answer")
        self._calm.warning("answer", "an answer on %s could not be published: %s", self._topic, why)


class _Ack:
    """The controller of `ack`."""

    def __init__(self, answers: _Answers, metrics: Metrics) -> None:
        self._answers = answers
        self._metrics = metrics

    async def __call__(self, ctx: MessageContext, threads: Threads) -> None:
        transaction = None
        try:
            values = _values(ctx)
            transaction = _transaction(values)
            request = _read(values)
        except ValueError as error:
            self._metrics.skipped.add(1, "bad_request")
            self._answers.error(str(error), transaction)
            return
        note = Note(by=request.by, how="mqtt", comment=request.comment)
        now = ctx.clock.now()
        found: list[Standing] = []

        def unit(tx: Tx) -> None:
            if request.contract is not None:
                told = of_contract(tx, request.contract, request.subject)
            else:
                told = of_notification(tx, request.notification or 0)
            found[:] = acknowledge(tx, told, note, now)

        ctx.decisions.also.append(unit)
        ctx.decisions.tallies.append(lambda: self._committed(found, transaction))

    def _committed(self, found: Sequence[Standing], transaction: Any) -> None:
        why = fault(found)
        if why:
            self._answers.error(why, transaction)
            return
        news = sum(each.news for each in found)
        self._metrics.events.add(news)
        acknowledged = [each for each in found if each.state == "acknowledged"]
        listed = [_as_dict(each) for each in acknowledged[:LISTED_MAX]]
        self._answers.ok({"acknowledged": news, "before": len(acknowledged) - news, "what": listed}, transaction)


def _values(ctx: MessageContext) -> dict[str, Any]:
    if ctx.delivery.payload_size > REQUEST_BYTES_MAX:
        raise ValueError(f"the request has {ctx.delivery.payload_size} bytes, and may have {REQUEST_BYTES_MAX}")
    try:
        values = from_json(ctx.payload)
    except ValueError as error:
        raise ValueError(f"the request is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError("the request is no JSON object")
    return values


def _transaction(values: dict[str, Any]) -> Any:
    transaction = values.get("transaction")
    if len(to_json(transaction)) > TRANSACTION_BYTES_MAX:
        raise ValueError(f"transaction is longer than {TRANSACTION_BYTES_MAX} bytes")
    return transaction


def _read(values: dict[str, Any]) -> AckRequest:
    try:
        request = msgspec.convert(values, AckRequest)
    except msgspec.ValidationError as error:
        raise ValueError(f"the request can't be understood: {error}") from None
    if (request.contract is None) == (request.notification is None):
        raise ValueError("the request must name either contract or notification")
    if request.subject is not None and request.contract is None:
        raise ValueError("subject goes with contract")
    return request


def _as_dict(found: Standing) -> dict[str, Any]:
    assert found.thread is not None
    at = found.acknowledged_at
    return {
        "contract": found.facts.contract or None, "subject": found.facts.subject, "title": found.thread.text.title,
        "by": found.by, "at": None if at is None else rfc3339(at),
    }  # fmt: skip
