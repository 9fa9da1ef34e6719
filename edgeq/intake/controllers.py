"""What can stand behind a route: the built-in controllers `emit`, `dispatch` and `receive`, and one's own.

A controller is a function of `ctx`; what it records through `ctx` is committed before the message is acknowledged. The
built-in ones run where they are called and take no time worth a timeout; one's own run as a task (`async def`) or in a
thread (`def`), under the route's timeout.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Collection
from typing import Any

from ..config.schema import EmitMap, Route
from ..errors import RejectedMessage
from ..events import NewEvent, to_json
from ..imports import load_name
from .context import MessageContext
from .template import Text, check_constant, compile_text, compile_value
from .times import parse_time

Inline = Callable[[MessageContext], None]


def emit(route: Route, names: Collection[str]) -> Inline:
    """The built-in controller that makes one event of each message. `names` are the topic's parameters.

    Raises ValueError for a bad template.
    """
    event_type = _event_type(route, names)
    subject = compile_text(route.subject, names)
    data_json = _data_json(route, names)
    description = compile_text(route.description, names)
    dedup = compile_text(route.dedup, names) if route.dedup else None
    occurred = compile_value(route.occurred_at, names) if route.occurred_at else None
    tags = tuple(check_constant(tag) for tag in route.tags)

    def run(ctx: MessageContext) -> None:
        kind = event_type(ctx)
        ctx.decisions.events.append(
            NewEvent(
                kind,
                subject=subject(ctx),
                topic=ctx.delivery.topic,
                data_json=data_json(ctx),
                tags=tags,
                description=description(ctx),
                occurred_at=ctx.now if occurred is None else parse_time(occurred(ctx)),
                recorded_at=ctx.now,
                # Scoped by type: two routes may take the same message, and both events must stay.
                idempotency_key=None if dedup is None else f"{kind}/{dedup(ctx)}",
                keep=ctx.keep,
            )
        )

    return run


def dispatch(job: type[Any]) -> Inline:
    """The built-in controller that queues one job for each message.

    The job's arguments are filled from the topic's parameters and, when the payload is a JSON object, from its keys of
    the same name; an argument called `payload` gets the payload itself (decoded JSON, text, or bytes, as the route's
    `payload` says), and `topic` the topic name. What doesn't fit the job's types makes the message a dead letter
    (`bad_arguments`).
    """
    wanted = inspect.signature(job).parameters

    def run(ctx: MessageContext) -> None:
        given: dict[str, Any] = {}
        value = ctx.value()
        if type(value) is dict:
            given.update(value)
        given.update(payload=value, topic=ctx.topic)
        given.update(ctx.params)
        try:
            ctx.dispatch(job.from_args({name: given[name] for name in wanted if name in given}))
        except (TypeError, ValueError) as error:
            raise RejectedMessage("bad_arguments", str(error)) from None

    return run


def receive(route: Route, names: Collection[str]) -> Inline:
    """The built-in controller that takes in what gateways forward: see `receive`. Raises ValueError."""
    from .receive import receive  # who is no site doesn't pay for it

    return receive(route, names)


def own(reference: str, names: Collection[str]) -> Callable[..., Any]:
    """The function that `package.module:name` names.

    Raises ValueError when there is none, or when it can't take `ctx` and the topic's parameters.
    """
    target = load_name(reference)
    if not callable(target):
        raise ValueError(f"{reference} is no function")
    check_takes(target, names)
    return target  # type: ignore[no-any-return]


def check_takes(function: Callable[..., Any], names: Collection[str]) -> None:
    """Raise ValueError unless `function` can be called with a ctx and the parameters `names` by keyword."""
    try:
        inspect.signature(function).bind(object(), **dict.fromkeys(names, object()))
    except TypeError as error:
        wanted = ", ".join(["ctx", *names])
        raise ValueError(f"{getattr(function, '__qualname__', function)} must take ({wanted}): {error}") from None


def _event_type(route: Route, names: Collection[str]) -> Text:
    if isinstance(route.emit, EmitMap):
        key, to = compile_text(route.emit.map, names), dict(route.emit.to)
        for kind in to.values():
            if not check_constant(kind):
                raise ValueError("an event type in emit.to is empty")

        def mapped(ctx: MessageContext) -> str:
            word = key(ctx)
            if word not in to:
                raise RejectedMessage("unmapped", f"emit.to has nothing for {word[:80]!r}")
            return to[word]

        return mapped
    if not route.emit:
        raise ValueError("is empty: an event needs a type, such as 'door.opened'")
    fill = compile_text(route.emit, names)

    def filled(ctx: MessageContext) -> str:
        text = fill(ctx)
        if not text:
            raise RejectedMessage("missing_field", "the event type came out empty")
        return text

    return filled


def _data_json(route: Route, names: Collection[str]) -> Text:
    if route.data != "payload":
        build = compile_value(route.data, names)

        def built(ctx: MessageContext) -> str:
            try:
                return to_json(build(ctx))
            except ValueError as error:
                raise RejectedMessage("undecodable", f"the data can't be written as JSON: {error}") from None

        return built
    if route.payload == "json":

        def json_text(ctx: MessageContext) -> str:
            # Decoding has checked it; the text itself is kept, numbers to the last digit.
            is_object = type(ctx.json()) is dict
            text = ctx.delivery.payload.decode()
            return text if is_object else f'{{"value":{text}}}'

        return json_text
    if route.payload == "text":
        return lambda ctx: to_json({"value": ctx.text()})
    return lambda ctx: to_json({"base64": base64.b64encode(ctx.delivery.payload).decode()})
