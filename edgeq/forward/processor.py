"""The processor of kind `forward`: takes events to a site, a batch at a time.

What can be relied on, and why:

- **Nothing is lost, and the site has it once.** The cursor passes events once the site has confirmed them, in the next
  commit; what is sent again after a crash has the same keys.
- **A site that is away costs nothing but time.** It isn't the events' fault, so no attempt is counted; the log says it
  once. Then `rate` keeps the backlog from filling the line.
- **One bad event doesn't hold up the others.** What the site refuses is sent again in halves until the event is found;
  that one becomes a dead letter. Where one after the other is refused, it is the site rather than the events: then they
  are tried ever more seldom.
- **Newest first** of the types that are chosen: see `window`, which moves in one commit with the cursor.
- **No circles.** What has been on this gateway once already, and came back from the site, isn't sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from ..backoff import Backoff
from ..clock import Clock
from ..config import checks
from ..events import Event, NewEvent
from ..failpoints import failpoint
from ..notifications.bucket import Bucket, Limit
from ..patterns import AnyOf
from ..processors.calls import wants
from ..processors.processor import NotYet, ProcessorContext, QueueProcessor
from ..store import events as stored_events
from ..store import meta
from ..store.dead_letters import NewDeadLetter
from ..store.forwarded import Batch, from_tag
from ..store.store import Store, Tx
from ..telemetry.log import Calm
from ..telemetry.metrics import Metrics
from . import wire
from .settings import ForwardSettings
from .target import Away, Parcel, Taken, Target
from .window import Window

_PAGE = 1000
_PAGES_MAX = 10  # that are looked through in one go for events of the chosen types
_REFUSED_IN_A_ROW = 10
_ENVELOPE_BYTES = 512  # what a batch has around its events


class Forward(QueueProcessor):
    """Processor `name` of `gateway`."""

    def __init__(
        self, name: str, settings: ForwardSettings, target: Target, gateway: str, metrics: Metrics, clock: Clock
    ) -> None:
        self._name = name
        self._forward = settings
        self._target = target
        self._gateway = gateway
        self._own_tag = from_tag(gateway)
        self._prefix = settings.prefix.replace("{gateway}", gateway)
        self._metrics = metrics
        self._clock = clock
        rate = None if settings.rate is None else checks.rate(settings.rate)
        self._bucket = Bucket(None if rate is None else Limit(rate, max(1, int(rate))), clock.monotonic)
        self._burst = settings.batch_size if rate is None else max(1, min(int(rate), settings.batch_size))
        self._backoff: Backoff = settings.on_error.backoff
        self._chosen = AnyOf(settings.newest_first)
        self._wanted: Callable[[Event], bool] = wants(self, settings)
        choice = [settings.newest_first, settings.types, settings.tags, settings.subject]
        self._choice = msgspec.json.encode(choice).decode()
        self._store: Store | None = None
        self._position = 0
        self._window = Window(0)
        self._series = ""
        self._failures = 0
        self._refused = 0  # one after the other
        self._size = self._most = settings.batch_size
        self._gathering: tuple[int, float] | None = None
        self._stored = ""  # the window's text as it was handed over last
        self._calm = Calm(logging.getLogger(f"edgeq.processors.{name}"), clock.monotonic)
        self._last_refusal = ""

    def filter_item(self, event: Event) -> bool:
        """What came back from the site has been there."""
        return self._own_tag not in event.tags

    async def opened(self, store: Store, last_consumed_id: int) -> None:
        """See QueueProcessor."""
        self._store = store
        series = self._forward.series
        self._series = store.id if series == 1 else f"{store.id}.{series}"
        self._position = last_consumed_id
        text = await meta.get(store, self._window_key) if self._forward.newest_first else None
        self._stored = text or ""
        self._window = Window.stored(text, last_consumed_id, self._choice)

    def says(self) -> Mapping[str, str | int]:
        """See QueueProcessor."""
        owed = sum(high - low for low, high in self._window.owed)
        said: dict[str, str | int] = {
            "to": self._target.place,
            "sent": self._metrics.forwarded.values.get(self._name, 0),
            "bytes": self._metrics.forwarded_bytes.values.get(self._name, 0),
        }
        if self._forward.rate is not None:
            said["at_most"] = self._forward.rate
        if owed:
            said["to_look_through_for_the_newest"] = owed
        if self._last_refusal:
            said["last_refused"] = self._last_refusal
        return said

    async def closed(self) -> None:
        """See QueueProcessor."""
        await self._target.close()

    async def process_batch(self, events: Sequence[Event], ctx: ProcessorContext) -> None:
        """See QueueProcessor. One request is made in each call; what is left over comes again at once."""
        assert self._store is not None
        head = await stored_events.head(self._store)
        last_id = events[-1].id
        if last_id <= self._position:  # somebody wants it sent once more
            await self._send(events, head, ctx, rated=False)
            return
        behind = head - last_id >= self._forward.batch_size  # by more than what is read next
        if behind and self._forward.newest_first:
            await self._send_newest(head, ctx)
        due = [event for event in events if not (self._chosen(event.type) and self._window.covers(event.id))]
        if not behind:
            self._gather(due)
        done, pause = await self._send(due, head, ctx) if due else (0, 0.0)
        done_to = last_id if done == len(due) else due[done - 1].id
        self._move(done_to, ctx)
        if done < len(due) or pause:
            raise NotYet(after_seconds=pause, done_to=done_to)

    # What is sent when

    def _gather(self, due: Sequence[Event]) -> None:
        """Wait for more, if there is time. Raises NotYet."""
        if not due or not self._forward.gather or len(due) >= self._forward.batch_size:
            return
        now = self._clock.monotonic()
        if self._gathering is None or self._gathering[0] != due[0].id:
            self._gathering = due[0].id, now
        rest = self._gathering[1] + self._forward.gather - now
        if rest > 0:
            raise NotYet(after_seconds=rest)

    async def _send_newest(self, head: int, ctx: ProcessorContext) -> None:
        """Send what is owed of the chosen types. Raises NotYet as long as there may be more."""
        self._window = self._window.looked(head)
        for _ in range(_PAGES_MAX):
            if not self._window.owed:
                self._remember(self._window, ctx)
                return
            if newest := await self._newest():
                done, pause = await self._send(newest, head, ctx, backwards=True)
                self._remember(self._window.sent_down_to(newest[done - 1].id - 1), ctx)
                raise NotYet(after_seconds=pause)
        raise NotYet

    async def _newest(self) -> list[Event]:
        """The newest events that are owed, backwards; when a page has none, it is passed over."""
        assert self._store is not None
        low, high = self._window.owed[-1]
        page = await stored_events.before(self._store, high + 1, _PAGE)
        owed = [event for event in page if event.id > low]
        found = [event for event in owed if self._chosen(event.type) and self._wanted(event)]
        if not found:
            self._window = self._window.sent_down_to(owed[-1].id - 1 if len(owed) == _PAGE else low)
        return found

    def _move(self, position: int, ctx: ProcessorContext) -> None:
        self._position = position
        self._remember(self._window.moved(position), ctx)

    def _remember(self, window: Window, ctx: ProcessorContext) -> None:
        self._window = window
        text = window.text(self._choice)
        if text != self._stored:
            self._stored = text
            ctx.decisions.lazily.append(_Remember(self._window_key, text))

    @property
    def _window_key(self) -> str:
        return f"forward_window:{self._name}"

    # Sending

    async def _send(
        self, events: Sequence[Event], head: int, ctx: ProcessorContext, *, backwards: bool = False, rated: bool = True
    ) -> tuple[int, float]:
        """Send as many of `events` as go at once: how many are done, and for how many seconds to rest then.

        Those that are to be sent `backwards` are still stored by the site in their order. Raises NotYet when none is.
        """
        parcel, count = self._parcel(events, head, backwards)
        if parcel is None:
            return 1, self._set_aside(events[0], "its data isn't JSON", ctx)
        if rated and (rest := self._bucket.seconds(count)) > 0:
            raise NotYet(after_seconds=rest)
        self._bucket.take(count)
        failpoint("forward.sending")
        answer = await self._target.send(parcel)
        failpoint("forward.confirmed")
        if isinstance(answer, Taken):
            self._taken(answer, count, ctx)
            return count, 0.0
        self._metrics.failures.add(1, self._name)
        if isinstance(answer, Away):
            self._failures += 1
            rest = answer.after_seconds or self._backoff.delay(self._failures)
            raise NotYet(f"{self._target.place}: {answer.reason}", after_seconds=rest)
        if count == 1:
            return 1, self._set_aside(events[0], answer.reason, ctx)
        self._size = count // 2
        if answer.too_large:
            self._most = self._size
        raise NotYet

    def _parcel(self, events: Sequence[Event], head: int, backwards: bool) -> tuple[Parcel | None, int]:
        """What goes at once, and of how many events it is; None when not even the first one can go."""
        now = self._clock.now()
        some = events[: min(self._size, self._burst)]
        batch = Batch.of(
            self._gateway, self._series, head, [event.id for event in some], [self._new(event, now) for event in some]
        )
        written: list[bytes] = []
        room = int(self._forward.max_body)
        for event, new in zip(some, batch.events, strict=True):
            try:
                text = wire.written(event, new)
            except ValueError:
                break
            room -= len(text)
            if written and room < _ENVELOPE_BYTES:
                break
            written.append(text)
        if not written:
            return None, 0
        count = len(written)
        step = -1 if backwards else 1
        batch = replace(batch, ids=batch.ids[:count][::step], events=batch.events[:count][::step])
        return Parcel(batch, written[::step], now), count

    def _new(self, event: Event, now: int) -> NewEvent:
        return NewEvent(
            event.type,
            subject=self._prefix + event.subject,
            topic=event.topic,
            data_json=event.data_json,
            tags=event.tags,
            description=event.description,
            occurred_at=event.occurred_at,
            recorded_at=now,
        )

    def _taken(self, answer: Taken, count: int, ctx: ProcessorContext) -> None:
        self._failures = self._refused = 0
        self._most = min(self._forward.batch_size, self._most + max(1, self._most // 16))
        self._size = min(self._most, self._size * 2)

        def tally() -> None:
            self._metrics.forwarded.add(count, self._name)
            self._metrics.forwarded_bytes.add(answer.size_bytes, self._name)

        ctx.decisions.tallies.append(tally)

    def _set_aside(self, event: Event, reason: str, ctx: ProcessorContext) -> float:
        """The site doesn't take this one: for how many seconds to rest."""
        self._refused += 1
        self._last_refusal = f"event {event.id}: {reason}"
        letter = NewDeadLetter(
            source=f"processor:{self._name}",
            reason="refused",
            error=f"{self._target.place}: {reason}",
            topic=event.topic,
            event_id=event.id,
            created_at=ctx.now,
        )
        ctx.decisions.dead_letters.append(letter)
        self._calm.warning("refused", "event %d (%s) is refused, and set aside: %s", event.id, event.type, reason)
        beyond = self._refused - _REFUSED_IN_A_ROW
        return self._backoff.delay(beyond) if beyond > 0 else 0.0


class _Remember:
    """Stores a window; of several, only the last one counts."""

    def __init__(self, key: str, text: str) -> None:
        self.key = key
        self.text = text

    def __call__(self, tx: Tx) -> None:
        meta.put(tx, self.key, self.text)

    def absorb(self, later: object) -> bool:
        """See Absorbing."""
        if not isinstance(later, _Remember):
            return False
        self.text = later.text
        return True
