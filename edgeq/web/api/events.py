"""Events: finding them, one with what is around it, and the numbers in them over time."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict, cast

from msgspec import Meta

from ...clock import Clock
from ...contracts.overview import data_of
from ...events import Event
from ...store import consequences, events
from ...store.event_search import Wanted, search
from ...store.store import Store
from ...where import parse_path
from ..operation import ID_MAX, Call, Listing, Nothing, One, Operation, Text, Time
from ..replies import Refusal
from ..series import DAY, Point, Series, numbers_in
from .common import missing

CAUSES_MAX = 20
IDS_MAX = 500_000
ROWS_MAX = 20_000
FIELDS_OF = 50

_PAGE = 500

Pattern = Annotated[str, Meta(max_length=500, description="`*` stands for any text.")]


class ShownEvent(TypedDict):
    """An event, by its columns. `data` is decoded."""

    id: int
    type: str
    subject: str
    topic: str | None
    data: Any
    tags: list[str]
    description: str
    occurred_at: int
    recorded_at: int
    idempotency_key: str | None
    cause_id: int | None


class EventPage(TypedDict):
    """Events, the newest first. `next` may be there though no event is: so much was looked at, and there is more."""

    items: list[ShownEvent]
    next: int | None


class Effect(TypedDict):
    """A row that names the event as its cause; `what` is its table."""

    what: str
    id: int
    type: NotRequired[str]
    subject: NotRequired[str]
    occurred_at: NotRequired[int]
    kind: NotRequired[str]
    title: NotRequired[str]
    state: NotRequired[str]
    created_at: NotRequired[int]


class Around(TypedDict):
    """An event, what caused it, the nearest first, and what it caused."""

    event: ShownEvent
    causes: list[ShownEvent]
    effects: list[Effect]


class Drawn(TypedDict):
    """A field over time. `complete`: all events of that time were looked at, and not only the latest."""

    field: str
    points: list[Point]
    complete: bool


class Fields(TypedDict):
    """The fields with numbers, by their dotted paths."""

    fields: list[str]


class Search(Listing, frozen=True, kw_only=True):
    """What is looked for."""

    type: Pattern = ""
    subject: Pattern = ""
    text: Annotated[str, Meta(max_length=500, description="Found in data and description.")] = ""
    since: Time = 0
    until: Time = ID_MAX


class OfSeries(Nothing, frozen=True, kw_only=True):
    """Which numbers, and from when to when."""

    type: Pattern
    field: Text
    subject: Pattern = ""
    since: Time | None = None
    until: Time | None = None
    points: Annotated[int, Meta(ge=1, le=1000)] = 300


class OfType(Nothing, frozen=True, kw_only=True):
    """Events of a type."""

    type: Pattern


class EventOperations:
    """Looks at the table `events`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def operations(self) -> list[Operation]:
        """See api."""
        return [
            Operation("GET", "/api/events", "The latest events that fit.", self._find, EventPage, Search),
            Operation(
                "GET", "/api/events/<id>", "An event, with what caused it and what it caused.", self._one, Around, One,
                refusals=(404,),
            ),
            Operation("GET", "/api/series", "A number in events over time.", self._series, Drawn, OfSeries),
            Operation("GET", "/api/fields", "Which numbers the latest events hold.", self._fields, Fields, OfType),
        ]  # fmt: skip

    async def _find(self, call: Call) -> EventPage:
        asked: Search = call.asked
        until = None if asked.until == ID_MAX else asked.until
        wanted = Wanted(asked.type, asked.subject, asked.text, asked.since, until)
        found = await search(self._store, wanted, limit=asked.limit, before_id=asked.before)
        return {"items": [_shown(event) for event in found.events], "next": found.next}

    async def _one(self, call: Call) -> Around:
        event = await events.one(self._store, call.asked.id)
        if event is None:
            raise missing(f"event {call.asked.id}", "it was never there, or is gone for its age")
        causes: list[Event] = []
        cause_id = event.cause_id
        while cause_id and len(causes) < CAUSES_MAX and (cause := await events.one(self._store, cause_id)):
            causes.append(cause)
            cause_id = cause.cause_id
        effects: Any = await consequences.of(self._store, event.id)
        return {"event": _shown(event), "causes": [_shown(each) for each in causes], "effects": effects}

    async def _series(self, call: Call) -> Drawn:
        asked: OfSeries = call.asked
        try:
            path = parse_path(asked.field)
        except ValueError as error:
            raise Refusal(400, f"field: {error}") from None
        until = self._clock.now() if asked.until is None else asked.until
        since = until - DAY if asked.since is None else asked.since
        if since >= until:
            raise Refusal(400, "since must be earlier than until")
        series = Series(path, since, until, asked.points)
        # What was recorded up to a day after it happened, as after an outage, is drawn where it belongs.
        first = await events.id_before(self._store, until + DAY) + 1
        top, lowest, rows = cast("int | None", first), first - IDS_MAX, 0
        while top is not None and top > lowest and rows < ROWS_MAX:
            wanted = Wanted(asked.type, asked.subject, since=since)
            found = await search(self._store, wanted, limit=_PAGE, before_id=top)
            series.add(found.events)
            top, rows = found.next, rows + len(found.events)
        return {"field": asked.field, "points": series.points(), "complete": top is None}

    async def _fields(self, call: Call) -> Fields:
        found = await search(self._store, Wanted(call.asked.type), limit=FIELDS_OF, before_id=ID_MAX)
        return {"fields": numbers_in(found.events)}


def _shown(event: Event) -> ShownEvent:
    return {
        "id": event.id, "type": event.type, "subject": event.subject, "topic": event.topic, "data": data_of(event),
        "tags": _tags(event), "description": event.description, "occurred_at": event.occurred_at,
        "recorded_at": event.recorded_at, "idempotency_key": event.idempotency_key, "cause_id": event.cause_id,
    }  # fmt: skip


def _tags(event: Event) -> list[str]:
    try:
        return [str(tag) for tag in event.tags]
    except (ValueError, TypeError):  # somebody else has written into the table
        return []
