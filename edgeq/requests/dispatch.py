"""`dispatch`: a job by hand. `{"job": "greenhouse.jobs:Water", "args": {"bed": "north"}}`, and if one likes `delay`
(such as `10m`) or `run_at` (a time), `queue`, `priority`, `max_attempts`, `expires` and `unique_key`: while a job with
the same one is there, none is added. Without it, a request that is made again adds another job. Only jobs of the
modules that the configuration names can be dispatched."""

from __future__ import annotations

from typing import Any

import msgspec

from ..clock import MICROSECONDS
from ..config.suggest import did_you_mean
from ..context import delay_seconds
from ..errors import RejectedMessage
from ..events import to_json
from ..intake.context import MessageContext
from ..intake.times import parse_time
from ..jobs.job import registry
from ..store import jobs
from ..store.jobs import Dispatched
from ..store.store import Tx
from .kind import Answer, Kind, Means, Name, Refused, Request

_HOW = ("queue", "priority", "max_attempts", "expires", "unique_key")


class DispatchRequest(Request, frozen=True, kw_only=True):
    """The job, its arguments, and what is different for this one."""

    job: Name
    args: dict[str, Any] = msgspec.field(default_factory=dict)
    delay: str | int | float | None = None
    run_at: str | int | float | None = None
    queue: Name | None = None
    priority: str | int | None = None
    max_attempts: int | None = None
    expires: str | int | float | None = None
    unique_key: Name | None = None


def change(request: DispatchRequest, ctx: MessageContext, means: Means) -> Answer:
    """Add the job; the answer has its id, and says whether it was there before."""
    definition = registry.get(request.job)
    if definition is None:
        hint = did_you_mean(request.job, registry)
        raise Refused(f"there is no job {request.job} in the modules that the configuration names ({hint})")
    unknown = [name for name in request.args if name not in definition.arguments]
    if unknown:
        raise Refused(f"the job has no argument {unknown[0]!r:.80}")
    how = {name: value for name in _HOW if (value := getattr(request, name)) is not None}
    try:
        decoded = definition.decode(to_json(request.args))
        new = decoded.new_job(now=ctx.now, run_at=_run_at(request, ctx.now), **how)
    except (TypeError, RejectedMessage) as error:
        raise Refused(str(error)) from None
    found: list[Dispatched] = []

    def unit(tx: Tx) -> None:
        found[:] = jobs.add(tx, [new])

    ctx.decisions.also.append(unit)
    return lambda: {"id": found[0].id, "existed": found[0].existed}


def _run_at(request: DispatchRequest, now: int) -> int | None:
    if request.delay is None:
        return None if request.run_at is None else parse_time(request.run_at)
    if request.run_at is not None:
        raise Refused("delay and run_at don't go together")
    return now + round(delay_seconds(request.delay) * MICROSECONDS)


KIND = Kind(DispatchRequest, change)
