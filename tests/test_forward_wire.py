"""A batch comes back as it was written, and whatever strangers send is read or refused, never more."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.events import Event, NewEvent, to_json
from edgeq.forward import wire
from edgeq.store.forwarded import Batch
from edgeq.store.store import storable
from edgeq.testing.clock import NOON

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
events = st.builds(
    lambda kind, subject, topic, data, tags, description, at: NewEvent(
        kind, at, 0, subject, topic, to_json(data), tuple(tags), description
    ),
    texts.filter(bool), texts, st.none() | texts, values, st.lists(texts, max_size=3), texts,
    st.integers(NOON, NOON + 10**15),
)  # fmt: skip


def stored(number: int, new: NewEvent) -> Event:
    """It as it stands in the gateway's store."""
    tags = to_json(new.tags)
    return Event(number, new.type, new.subject, new.topic, new.data_json, tags, new.description, NOON, 5, None, 7)


@settings(max_examples=100)
@given(st.lists(events, min_size=1, max_size=4), texts.filter(bool))
def test_a_batch_comes_back_as_it_was_written(new: list[NewEvent], gateway: str) -> None:
    batch = Batch.of(gateway, "s1", 10, range(1, len(new) + 1), new)
    written = [wire.written(stored(number, event), event) for number, event in enumerate(batch.events, 1)]
    body = wire.body(gateway, "s1", 10, written)
    json.loads(body)
    found = wire.read(wire.unpacked(gzip.compress(body)), 0)
    assert found == batch


@settings(max_examples=200)
@given(st.binary(max_size=200) | values.map(lambda value: to_json(value).encode()))
def test_whatever_is_sent_is_read_or_refused(content: bytes) -> None:
    for read in (lambda: wire.read(content, NOON), lambda: wire.read(wire.unpacked(content), NOON)):
        try:
            found = read()
        except wire.Unreadable:
            continue
        for event in found.events if isinstance(found, Batch) else found:
            assert event.type
            assert storable(event.type) == event.type
            json.loads(event.data_json)


def test_numbers_stay_as_they_were_written() -> None:
    (event,) = wire.read(b'{"type": "a", "data": {"n": 1.10000000000000000001}}', NOON)  # type: ignore[misc]
    assert event.data_json == '{"n": 1.10000000000000000001}'


@pytest.mark.parametrize("size", [wire.UNPACKED_BYTES_MAX, wire.UNPACKED_BYTES_MAX + 1])
def test_the_limit_of_what_is_unpacked(size: int) -> None:
    packed = gzip.compress(b"x" * size)
    if size <= wire.UNPACKED_BYTES_MAX:
        assert len(wire.unpacked(packed)) == size
    else:
        with pytest.raises(wire.TooMuch):
            wire.unpacked(packed)


def test_keys_that_are_not_known_are_passed_over() -> None:
    found = wire.read(b'{"gateway":"g","store":"s","head":1,"new":1,"events":[{"id":1,"type":"a","new":2}]}', NOON)
    assert isinstance(found, Batch)
    assert found.events[0].idempotency_key == "s:1"


LONG = "k" * (wire.KEY_CHARACTERS_MAX + 1)


@pytest.mark.parametrize(
    "sent",
    [
        {"type": "a", "idempotency_key": LONG},
        {"gateway": "g", "store": LONG, "head": 1, "events": [{"id": 1, "type": "a"}]},
        {"gateway": "g", "store": "a\0b", "head": 1, "events": [{"id": 1, "type": "a"}]},
        {"gateway": "a\0b", "store": "s", "head": 1, "events": [{"id": 1, "type": "a"}]},
    ],
)
def test_what_one_of_the_databases_has_no_room_for_is_refused(sent: Any) -> None:
    with pytest.raises(wire.Unreadable):
        wire.read(json.dumps(sent).encode(), NOON)
