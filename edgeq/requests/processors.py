"""`processors`: `{"pause": "courier"}` holds a processor where it is, `{"resume": "courier"}` lets it go on."""

from __future__ import annotations

from ..intake.context import MessageContext
from ..store import cursors
from ..store.store import Tx
from .kind import Answer, Kind, Means, Name, Refused, Request, one_of


class ProcessorsRequest(Request, frozen=True, kw_only=True):
    """What is done with which one."""

    pause: Name | None = None
    resume: Name | None = None


def change(request: ProcessorsRequest, ctx: MessageContext, means: Means) -> Answer:
    """Pause or resume. It stays so over restarts."""
    what = one_of(request, "pause", "resume")
    name = str(getattr(request, what))
    found: list[bool] = []

    def unit(tx: Tx) -> None:
        found[:] = [cursors.pause(tx, name, what == "pause")]

    def answer() -> dict[str, object]:
        if not found[0]:
            raise Refused(f"there is no processor {name!r:.80}")
        return {"processor": name, "paused": what == "pause"}

    ctx.decisions.also.append(unit)
    return answer


KIND = Kind(ProcessorsRequest, change)
