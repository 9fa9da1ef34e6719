"""What was deleted for want of room though somebody still waited for it: counted in the commit that deletes it, and
told by an event soon after (G10). A crash between the two loses neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ..clock import rfc3339
from ..events import NewEvent, to_json
from ..store import events, meta
from ..store.store import Tx

KEY = "events_dropped"


class Tally(msgspec.Struct):
    """What was dropped since `since` (microseconds since 1970 UTC) and isn't told yet: events from `first` to `last`,
    and by whom they had not been seen; dead letters that nobody had redriven."""

    since: int
    events: int = 0
    dead_letters: int = 0
    first: int = 0
    last: int = 0
    reasons: dict[str, int] = {}
    processors: dict[str, int] = {}

    def words(self) -> str:
        """What was dropped, in a sentence."""
        found = []
        if self.events:
            unseen = ", ".join(f"{name} {count}" for name, count in sorted(self.processors.items()))
            found.append(f"{self.events} events (ids {self.first} to {self.last}), not yet seen by {unseen}")
        if self.dead_letters:
            found.append(f"{self.dead_letters} dead letters that nobody had redriven")
        return f"for want of room ({', '.join(sorted(self.reasons))}) edgeq has deleted {'; and '.join(found)}"


def note_events(tx: Tx, ids: Sequence[int], places: Mapping[str, int], reason: str, now: int) -> int:
    """Count those of `ids`, which are about to be deleted, that a processor hasn't seen; how many."""
    unseen = {name: sum(event_id > place for event_id in ids) for name, place in places.items()}
    missed = [event_id for event_id in ids if event_id > min(places.values(), default=0)] if places else []
    if missed:
        tally = _read(tx) or Tally(now)
        tally.first = min(tally.first or missed[0], missed[0])
        tally.last = max(tally.last, missed[-1])
        tally.events += len(missed)
        for name, count in unseen.items():
            if count:
                tally.processors[name] = tally.processors.get(name, 0) + count
        _write(tx, tally, reason, len(missed))
    return len(missed)


def note_letters(tx: Tx, count: int, reason: str, now: int) -> int:
    """Count open dead letters that are about to be deleted; how many."""
    if count:
        tally = _read(tx) or Tally(now)
        tally.dead_letters += count
        _write(tx, tally, reason, count)
    return count


def tell(tx: Tx, gateway: str, now: int) -> Tally | None:
    """Store an event that tells what was dropped, if anything was, and begin to count anew."""
    tally = _read(tx)
    if tally is None:
        return None
    said = tally.words()
    event = NewEvent(
        "edgeq.events_dropped",
        subject=gateway,
        data_json=to_json({"severity": "critical", **msgspec.to_builtins(tally), "since": rfc3339(tally.since)}),
        tags=("notification",),
        description=said[0].upper() + said[1:],
        occurred_at=now,
        recorded_at=now,
        keep=1,
    )
    events.append(tx, [event])
    meta.remove(tx, KEY)
    return tally


def _read(tx: Tx) -> Tally | None:
    text = meta.value(tx, KEY)
    return None if text is None else msgspec.json.decode(text, type=Tally)


def _write(tx: Tx, tally: Tally, reason: str, count: int) -> None:
    tally.reasons[reason] = tally.reasons.get(reason, 0) + count
    meta.put(tx, KEY, to_json(tally))
