"""Requests by MQTT: what others may ask of a gateway by a message, if `mqtt.requests` allows it.

Asked on `edgeq/<gateway>/request/NAME`, answered on `edgeq/<gateway>/response/NAME`, both in JSON:

    {"contract": "freezer-cold", "subject": "freezer-1", "transaction": 7}
    {"status": "ok", "data": {"acknowledged": 1, …}, "transaction": 7}
    {"status": "error", "error": "nothing is open of it", "transaction": 7}

What can be relied on:

- A request goes the way of every message: what it changes is committed, then it is answered, then acknowledged. Before
  the commit there is no answer. What isn't acknowledged comes again; to do it again changes nothing, but for `emit` and
  `dispatch` without a key.
- Whatever is sent, there is an answer, and never a dead letter; only in a flood answers are lost, which is counted
  (see `answers`). `transaction`, any JSON of TRANSACTION_BYTES_MAX, comes back in it.
- With MQTT 5, an answer goes to the response topic that the request names, with its correlation data. That topic must
  lie below `edgeq/<gateway>/response/`: else whoever may ask could have edgeq publish where they may not.
- Retained requests are passed over: they would be asked again at every start.
- An answer is published once. If there is no connection for it, nobody gets it, and who asked may ask again.

Who may ask is for the broker to say, by its access list.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..config.schema import Config
from ..errors import RejectedMessage
from ..events import NESTING_MAX, deeper_than, from_json, to_json
from ..intake.context import MessageContext
from ..intake.table import CompiledRoute
from ..intake.threads import Threads
from ..mqtt.presence import below
from ..mqtt.topics import Template, check_topic
from .answers import Answers, Publish, To
from .kind import Answer, Kind, Look, Means, Refused
from .look import Shared

__all__ = ["TABLE", "Answers", "Look", "Means", "Publish", "request_routes"]

log = logging.getLogger("edgeq.requests")

TABLE = {
    "ack": "ack",
    "dispatch": "dispatch",
    "emit": "emit",
    "health": "look",
    "processors": "processors",
    "queues": "queues",
    "redrive": "redrive",
    "silence": "silence",
    "status": "look",
}
"""Which module here each request is in."""

REQUEST_BYTES_MAX = 16 * 1024
TRANSACTION_BYTES_MAX = 1024
CORRELATION_BYTES_MAX = 1024

_SECONDS = 30.0
_NAME = re.compile(r"[a-z_-]{1,32}")
_UNKNOWN = "unknown"


def request_routes(config: Config, means: Means, publish: Publish) -> list[CompiledRoute]:
    """The route of the requests, if any is allowed."""
    if not config.mqtt.requests:
        return []
    topic = below(config.mqtt.status_topic, config.gateway, "request")
    kinds: dict[str, Kind] = {
        name: importlib.import_module(f".{TABLE[name]}", __name__).KIND for name in config.mqtt.requests
    }
    template = Template.one_below(topic, "name")
    return [
        CompiledRoute(
            label=template.filter,
            template=template,
            qos=1,
            payload="raw",
            takes_retained=False,
            payload_bytes_max=REQUEST_BYTES_MAX,
            timeout_seconds=_SECONDS,
            inline=(),
            own=_Requests(kinds, means, Answers(publish, means.metrics, means.clock)),
            limiter=None,
            limit_key=lambda ctx: "",
            over_limit_is_dead_letter=False,
            takes_oversize=True,
            private=True,
        )
    ]


class _Requests:
    """The controller of all requests."""

    def __init__(self, kinds: Mapping[str, Kind], means: Means, answers: Answers) -> None:
        self._kinds = kinds
        self._means = means
        self._answers = answers
        self._looks = {name: Shared(look, means.clock.monotonic) for name, look in means.looks.items()}
        self._responses = below(means.config.mqtt.status_topic, means.config.gateway, "response")

    async def __call__(self, ctx: MessageContext, threads: Threads) -> None:
        name = ctx.params["name"]
        to = To(f"{self._responses}/{name if _NAME.fullmatch(name) else _UNKNOWN}")
        try:
            to = self._to(ctx, to)
            values = _values(ctx)
            to = to._replace(transaction=_transaction(values))
            kind = self._kinds.get(name)
            if kind is None:
                raise Refused(f"there is no request {name!r:.40} here; mqtt.requests allows {', '.join(self._kinds)}")
            request = _read(kind, values)
            answer = None if kind.change is None else kind.change(request, ctx, self._means)
        except (Refused, RejectedMessage, ValueError) as error:
            self._means.metrics.skipped.add(1, "bad_request")
            self._answers.error(to, str(error))
        except Exception:
            log.exception("the request %s could not be done", name)
            self._answers.error(to, "this is a defect of edgeq, and stands in its log")
        else:
            if answer is None:
                self._answers.look(to, self._looks[name])
            else:
                ctx.decisions.tallies.append(lambda: self._committed(to, answer))

    def _committed(self, to: To, answer: Answer) -> None:
        try:
            data = answer()
        except Refused as error:
            self._answers.error(to, str(error))
        else:
            self._answers.ok(to, data)

    def _to(self, ctx: MessageContext, to: To) -> To:
        """Where the request wants its answer. Raises Refused and RejectedMessage."""
        properties = ctx.properties
        correlation_data, topic = properties.correlation_data, properties.response_topic
        if correlation_data is not None and len(correlation_data) > CORRELATION_BYTES_MAX:
            raise Refused(f"the correlation data are longer than {CORRELATION_BYTES_MAX} bytes")
        if topic is not None:
            try:
                check_topic(topic)
            except ValueError as error:
                raise Refused(f"the response topic {error}") from None
            if not topic.startswith(f"{self._responses}/"):
                raise Refused(f"the response topic must lie below {self._responses}/")
        return To(topic or to.topic, correlation_data)


def _values(ctx: MessageContext) -> dict[str, Any]:
    if ctx.delivery.payload_size > REQUEST_BYTES_MAX:
        raise Refused(f"the request has {ctx.delivery.payload_size} bytes, and may have {REQUEST_BYTES_MAX}")
    try:
        values = from_json(ctx.payload)
    except ValueError as error:
        raise Refused(f"the request is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise Refused("the request is no JSON object")
    if deeper_than(NESTING_MAX, ctx.payload, values):
        raise Refused(f"the request is nested more than {NESTING_MAX} deep")
    return values


def _transaction(values: dict[str, Any]) -> Any:
    transaction = values.get("transaction")
    if len(to_json(transaction)) > TRANSACTION_BYTES_MAX:
        raise Refused(f"transaction is longer than {TRANSACTION_BYTES_MAX} bytes")
    return transaction


def _read(kind: Kind, values: dict[str, Any]) -> Any:
    try:
        request = msgspec.convert(values, kind.model)
    except msgspec.ValidationError as error:
        raise Refused(f"the request can't be understood: {error}") from None
    for name, text in values.items():
        if isinstance(text, str) and "\0" in text and name != "transaction":
            raise Refused(f"{name} has a null character, which not every database takes")
    return request
