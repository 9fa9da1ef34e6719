"""Threads that are over though the courier never heard of their end: its cursor was set forward past that, or the event
became a dead letter. Nobody would ever close them, and people would be reminded of them for good."""

from __future__ import annotations

from collections.abc import Iterable

from ..contracts.records import open_episode
from ..contracts.verdict_event import key_prefix
from ..notifications.match import Facts
from ..notifications.rows import facts_of
from ..notifications.text import episode_fingerprint
from ..store import contract_states, events, threads
from ..store.store import Store
from ..store.threads import Key, Thread


async def overtaken(store: Store, open_threads: Iterable[Thread], last_consumed_id: int) -> frozenset[Key]:
    """Those of contracts' episodes that don't stand any more and of which nothing is left to be consumed.

    A thread stays open while there is any doubt: while an event of its contract and subject waits, and where it isn't
    sure that it is about a contract of the sentinel's.
    """
    endless = [thread for thread in open_threads if thread.endless]
    if not endless:
        return frozenset()
    # In this order: what ends later than they are read has an event by the time when these are looked for.
    known, standing = set(), set()
    for row in await contract_states.every(store):
        known.add((row.contract, row.subject))
        if (episode := open_episode(row)) is not None:
            standing.add(episode_fingerprint(row.contract, row.subject, str(episode)))
    found = set()
    for thread in endless:
        if thread.fingerprint in standing:
            continue
        text = await threads.text(store, thread.key)
        facts = facts_of("" if text is None else text.detail, thread.severity)
        if thread.fingerprint != episode_fingerprint(facts.contract, facts.subject, facts.episode):
            continue
        prefix = f"{key_prefix(facts.contract)}{facts.subject}:"
        if (facts.contract, facts.subject) not in known and not await _is_of_sentinel(store, thread, facts):
            continue
        if not await events.keyed(store, prefix, limit=1, after_id=last_consumed_id):
            found.add(thread.key)
    return frozenset(found)


async def _is_of_sentinel(store: Store, thread: Thread, facts: Facts) -> bool:
    """Whether the event that opened it is there and looks like one of the sentinel's."""
    event = await events.one(store, thread.event_id)
    return event is not None and (event.idempotency_key or "").startswith(key_prefix(facts.contract))
