"""Acknowledging: somebody says "I have seen it". The command line, requests by MQTT, links in notifications and the
page all do it by `acknowledge`, in one commit, and what can be relied on is the same for all of them:

- What is acknowledged is a thread: it has no reminders and no escalation any more, also not those that are due at that
  moment. That it is resolved is still told.
- The first one counts. Whoever comes later, or asks again because no answer came, is told who was first; nothing
  changes, and nothing is recorded twice.
- Only what was there to be seen is acknowledged: a link or a notification says nothing of what happened after it.
- Who it was, and how, is recorded as an event `notification.acknowledged`. It has no tag `notification`: it is told to
  nobody unless a processor of one's own does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from ..events import NewEvent, to_json
from ..store import events, history, threads
from ..store.store import Tx, storable
from ..store.threads import OpenThread
from .match import Facts
from .rows import facts_of

BY_CHARACTERS_MAX = 100
COMMENT_CHARACTERS_MAX = 1000
NAME_CHARACTERS_MAX = 1000
# So many threads of one contract are acknowledged at once.
TOLD_MAX = 10_000

EVENT_TYPE = "notification.acknowledged"

How = Literal["command", "mqtt", "link", "page"]
State = Literal["open", "acknowledged", "over", "replaced"]


class Told(NamedTuple):
    """What somebody was told of: what the fingerprint stands for, as far as event `event_id`, or one before it, has
    opened it; whichever has, when that is None."""

    fingerprint: str
    event_id: int | None = None


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Who acknowledges, and how. Texts that are too long are cut."""

    by: str
    how: How
    comment: str = ""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How it stands with what was told. `open`: nobody has acknowledged it. `over`: it is resolved, or nothing more
    would have come of it. `replaced`: what is open now, and newer, took its place. `news`: it was acknowledged just
    now. `thread` is what is open; `acknowledged_at` is in microseconds since 1970 UTC."""

    state: State
    thread: OpenThread | None = None
    news: bool = False

    @property
    def facts(self) -> Facts:
        """What the thread is about; nothing when there is none."""
        return Facts(type="", subject="", severity="") if self.thread is None else facts_of_thread(self.thread)

    @property
    def acknowledged_at(self) -> int | None:
        """When it was acknowledged."""
        return None if self.thread is None else self.thread.thread.acknowledged_at

    @property
    def by(self) -> str:
        """Who was the first to acknowledge it."""
        return "" if self.thread is None else self.thread.acknowledged_by or ""


def facts_of_thread(thread: OpenThread) -> Facts:
    """What an open thread is about."""
    return facts_of(thread.text.detail, thread.thread.severity)


def standing(open_threads: Sequence[OpenThread], told: Told) -> Standing:
    """How it stands with what was told, of which these are the threads."""
    if not open_threads:
        return Standing(state="over")
    meant = [each for each in open_threads if told.event_id is None or each.thread.event_id <= told.event_id]
    if not meant:
        return Standing(state="replaced", thread=open_threads[0])
    waiting = [each for each in meant if each.thread.acknowledged_at is None]
    return Standing(state="open" if waiting else "acknowledged", thread=(waiting or meant)[0])


def look(tx: Tx, told: Told) -> Standing:
    """How it stands with what was told. Nothing is changed."""
    return standing(threads.of(tx, told.fingerprint), told)


def acknowledge(tx: Tx, all_told: Iterable[Told], note: Note, now: int) -> list[Standing]:
    """Acknowledge what is open of all that was told, and record it; how it stands with each then."""
    note = Note(by=_cut(note.by, BY_CHARACTERS_MAX), how=note.how, comment=_cut(note.comment, COMMENT_CHARACTERS_MAX))
    found: list[Standing] = []
    for told in all_told:
        before = look(tx, told)
        if before.state != "open":
            found.append(before)
            continue
        assert before.thread is not None
        until = {} if told.event_id is None else {"event_id": told.event_id}
        threads.acknowledge(tx, told.fingerprint, by=note.by, comment=note.comment, now=now, **until)
        _take_back(tx, told.fingerprint, now)
        events.append(tx, [_event(before.thread, note, now)])
        found.append(msgspec.structs.replace(look(tx, told), news=True))
    return found


def of_notification(tx: Tx, notification_id: int) -> list[Told]:
    """What a notification is about: what each of its members is, if it is a digest. Empty when there is no such."""
    rows = history.about(tx, notification_id, TOLD_MAX)
    return list(dict.fromkeys(Told(fingerprint, event_id) for fingerprint, event_id in rows))


def of_contract(tx: Tx, contract: str, subject: str | None = None) -> list[Told]:
    """What is open of a contract, for one subject or, without one, for all."""
    words = [to_json(word) for word in (contract, subject) if word is not None]
    found = threads.with_words(tx, words, TOLD_MAX)
    return list(
        dict.fromkeys(
            Told(each.thread.fingerprint)
            for each in found
            if (facts := facts_of_thread(each)).contract == contract and subject in (None, facts.subject)
        )
    )


def fault(found: Sequence[Standing]) -> str:
    """Why none of what was asked for is acknowledged, in words; empty when some is, or was before."""
    states = {each.state for each in found}
    if "acknowledged" in states:
        return ""
    return "something newer has taken its place" if "replaced" in states else "nothing is open of it"


def _take_back(tx: Tx, fingerprint: str, now: int) -> None:
    """Take back what waits of the threads that were acknowledged `now`, also copies where another channel stands in;
    not what waits for channels that only go on with what isn't acknowledged."""
    all_threads = [each.thread for each in threads.of(tx, fingerprint)]
    seen = {name for thread in all_threads if thread.acknowledged_at == now for name in thread.channels}
    going_on = {name for thread in all_threads if thread.acknowledged_at is None for name in thread.channels}
    history.take_back(tx, fingerprint, "acknowledged", spared=going_on - seen)


def _event(thread: OpenThread, note: Note, now: int) -> NewEvent:
    facts = facts_of_thread(thread)
    data = {
        "by": note.by, "how": note.how, "comment": note.comment, "title": thread.text.title,
        "severity": thread.thread.severity, "type": facts.type, "contract": facts.contract or None,
        "episode": facts.episode or None, "opened_at": thread.thread.opened_at,
        "fingerprint": thread.thread.fingerprint,
    }  # fmt: skip
    return NewEvent(
        EVENT_TYPE,
        occurred_at=now,
        recorded_at=now,
        subject=facts.subject,
        data_json=to_json(data),
        cause_id=thread.thread.event_id,
        description=f"{thread.text.title}: acknowledged{f' by {note.by}' if note.by else ''}",
    )


def _cut(text: str, most: int) -> str:
    """`text` on one line of at most `most` characters that any database takes."""
    line = storable(" ".join(text[: 4 * most].split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"
