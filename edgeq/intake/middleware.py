"""What stands around a controller: `async def middleware(ctx, call_next)`, the first one outermost.

`await call_next()` goes on inwards; a middleware that doesn't call it ends the handling there: what was recorded
through `ctx` so far is committed and the message acknowledged. An exception makes the message a dead letter, as one
from the controller does.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .context import MessageContext
from .controllers import is_async

Next = Callable[[], Awaitable[None]]
Middleware = Callable[[MessageContext, Next], Awaitable[None]]


def wrap(function: Callable[..., Any], middleware: Sequence[Middleware]) -> Callable[..., Any]:
    """`function` with `middleware` around it; `function` itself when there is none."""
    if not middleware:
        return function

    async def innermost(ctx: MessageContext, **params: Any) -> None:
        if is_async(function):
            await function(ctx, **params)
        else:
            await asyncio.to_thread(function, ctx, **params)

    handler: Callable[..., Awaitable[None]] = innermost
    for layer in reversed(middleware):
        handler = functools.partial(_layer, layer, handler)
    outermost = handler

    async def run(ctx: MessageContext, **params: Any) -> None:
        await outermost(ctx, **params)

    return run


async def _layer(layer: Middleware, inner: Callable[..., Awaitable[None]], ctx: MessageContext, **params: Any) -> None:
    await layer(ctx, lambda: inner(ctx, **params))
