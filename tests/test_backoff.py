"""How long is waited before the next attempt, in each form in which it is written."""

from __future__ import annotations

from typing import Any

import pytest

from edgeq.backoff import STEPS_MAX, Backoff


def waits(written: Any, attempts: int) -> list[float]:
    backoff = written if isinstance(written, Backoff) else Backoff(written, jitter=0)
    return [backoff.delay(attempt) for attempt in range(1, attempts + 1)]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("10s", [10, 10, 10]),
        ("1s..6s", [1, 2, 4, 6, 6]),
        ("250ms..1m", [0.25, 0.5, 1, 2]),
        (["1s", "5s", "30s"], [1, 5, 30, 30, 30]),
        (("30s", 2, "4s"), [30, 2, 4, 4]),
        (["0s"], [0, 0]),
    ],
)
def test_each_form_waits_as_it_says(written: Any, expected: list[float]) -> None:
    assert waits(written, len(expected)) == expected


def test_the_wait_stays_at_the_end_of_its_range_however_often_it_fails() -> None:
    assert Backoff("1s..60s", jitter=0).delay(10**6) == 60


def test_a_wait_varies_by_a_tenth_unless_told_otherwise() -> None:
    usual, wide = Backoff("10s"), Backoff("10s", jitter=1)
    varied = [usual.delay(1) for _ in range(200)]
    assert 9 <= min(varied) < 9.5 < 10.5 < max(varied) <= 11
    assert max(wide.delay(1) for _ in range(200)) > 12


@pytest.mark.parametrize(
    "written", ["", "soon", "60s..1s", "1s..", "..5s", 5, 1.5, None, True, [], ["1s", "x"], ["1s", -1], [float("nan")]]
)
def test_what_is_no_wait_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match=r"must|is not|ends below|has no unit"):
        Backoff.parse(written)


def test_a_list_has_an_end() -> None:
    assert Backoff(["1s"] * STEPS_MAX).most == 1
    with pytest.raises(ValueError, match="from 1 to"):
        Backoff(["1s"] * (STEPS_MAX + 1))


@pytest.mark.parametrize("jitter", [-0.1, 1.1, float("nan"), "0.1", True])
def test_a_jitter_is_a_part_of_the_wait(jitter: Any) -> None:
    with pytest.raises(ValueError, match="jitter"):
        Backoff("1s", jitter=jitter)


def test_the_forms_compare_and_print_alike() -> None:
    assert Backoff("1s..60s") == Backoff(1.0, 60.0) == Backoff.parse(Backoff("1s..1m"))
    assert Backoff("10s") == Backoff(["10s"])
    assert [str(Backoff(form)) for form in ("1s..60s", "10s", ["1s", "1m"])] == ["1s..1m", "10s", "1s, 1m"]
    assert (Backoff(["30s", "1s"]).first, Backoff(["30s", "1s"]).most) == (30, 30)
