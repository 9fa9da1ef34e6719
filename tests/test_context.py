"""What `ctx.emit` takes, and what it refuses before the store would."""

from __future__ import annotations

from typing import Any

import pytest

from edgeq.context import Context
from edgeq.testing import FakeClock


@pytest.mark.parametrize("bad", ["a\0b", "a\udc80b"])
@pytest.mark.parametrize("key", ["type", "subject", "description", "idempotency_key", "tags"])
def test_texts_that_no_database_takes_are_refused_by_name(key: str, bad: str) -> None:
    ctx = Context(FakeClock())
    given: dict[str, Any] = {"type": "t", key: ("fine", bad) if key == "tags" else bad}
    with pytest.raises(ValueError, match=rf"^{key} of an event can't be stored") as caught:
        ctx.emit(**given)
    str(caught.value).encode("ascii")  # fit to be logged
    assert ctx.decisions.events == []


def test_a_title_of_a_notification_is_checked_too() -> None:
    with pytest.raises(ValueError, match="description"):
        Context(FakeClock()).notify("a\0b")


def test_other_texts_stay_and_what_is_no_number_becomes_null() -> None:
    ctx = Context(FakeClock())
    ctx.emit("tür", subject="😀\n", tags=(each for each in "ab"), data=[float("nan"), float("-inf"), "\0"])
    (event,) = ctx.decisions.events
    assert (event.type, event.subject, event.tags) == ("tür", "😀\n", ("a", "b"))
    assert event.data_json == '[null,null,"\\u0000"]'
