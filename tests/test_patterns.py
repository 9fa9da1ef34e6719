"""Patterns with `*`: all else is literal, and no text makes them slow."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.patterns import AnyOf, pattern


@pytest.mark.parametrize(
    ("text", "candidate", "fits"),
    [
        ("*", "", True),
        ("*", "anything", True),
        ("", "", True),
        ("", "x", False),
        ("pump.on", "pump.on", True),
        ("pump.on", "pump-on", False),
        ("pump.*", "pump.", True),
        ("pump.*", "pump", False),
        ("*.reading", "temperature.reading", True),
        ("a*a", "a", False),
        ("a*b*a", "aba", True),
        ("a*ab*b", "aab", False),
        ("[a-z]?", "x", False),
        ("[a-z]?", "[a-z]?", True),
        ("freezer-*", "freezer-\n1", True),
    ],
)
def test_fits(text: str, candidate: str, fits: bool) -> None:
    assert pattern(text)(candidate) is fits


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_means_what_the_regular_expression_means(text: str, candidate: str) -> None:
    expression = ".*".join(re.escape(part) for part in text.split("*"))
    assert pattern(text)(candidate) is bool(re.fullmatch(expression, candidate))


@pytest.mark.timeout(10)
def test_a_hostile_text_takes_no_longer_than_any_other() -> None:
    assert not pattern("*a" * 30 + "c")("a" * 200_000 + "b")


def test_any_of_forgets_before_it_grows_without_end() -> None:
    fits = AnyOf(["pump.*", "door.open"])
    for number in range(5000):
        assert fits(f"pump.{number}")
        assert not fits(f"door.{number}")
    assert len(fits._known) <= 1000
