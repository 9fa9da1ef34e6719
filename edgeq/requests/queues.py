"""`queues`: `{"pause": "default"}` has no more jobs of a queue begin, `{"resume": "default"}` lets them."""

from __future__ import annotations

from ..intake.context import MessageContext
from ..store import queues
from ..store.store import Tx
from .kind import Answer, Kind, Means, Name, Refused, Request, one_of


class QueuesRequest(Request, frozen=True, kw_only=True):
    """What is done with which one."""

    pause: Name | None = None
    resume: Name | None = None


def change(request: QueuesRequest, ctx: MessageContext, means: Means) -> Answer:
    """Pause or resume a queue that is configured. It stays so over restarts."""
    what = one_of(request, "pause", "resume")
    name = str(getattr(request, what))
    if name not in means.config.jobs.queues:
        raise Refused(f"there is no queue {name!r:.80} in the configuration")

    def unit(tx: Tx) -> None:
        (queues.pause if what == "pause" else queues.resume)(tx, name)

    ctx.decisions.also.append(unit)
    return lambda: {"queue": name, "paused": what == "pause"}


KIND = Kind(QueuesRequest, change)
