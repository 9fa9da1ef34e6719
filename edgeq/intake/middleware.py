"""What stands around a controller: `async def middleware(ctx, call_next)`, the first one outermost.

`await call_next()` goes on inwards; a middleware that doesn't call it ends the handling there: what was recorded
through `ctx` so far is committed and the message acknowledged. An exception makes the message a dead letter, as one
from the controller does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .context import MessageContext
from .threads import Threads

Next = Callable[[], Awaitable[None]]
Middleware = Callable[[MessageContext, Next], Awaitable[None]]
Own = Callable[[MessageContext, Threads], Awaitable[None]]


def wrap(function: Callable[..., Any], middleware: Sequence[Middleware]) -> Own:
    """`function` with `middleware` around it; it gets ctx and the parameters, and a thread unless it is `async def`."""
    in_thread = not is_async(function)

    async def innermost(ctx: MessageContext, threads: Threads) -> None:
        result = await threads.call(function, ctx, **ctx.params) if in_thread else function(ctx, **ctx.params)
        if inspect.isawaitable(result):  # also when a decorator hid the `async`
            await result

    handler: Own = innermost
    for layer in reversed(middleware):
        handler = functools.partial(_through, layer, handler)
    return handler


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling `function` gives something to await."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


async def _through(layer: Middleware, inner: Own, ctx: MessageContext, threads: Threads) -> None:
    await layer(ctx, lambda: inner(ctx, threads))
