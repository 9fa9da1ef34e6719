"""How much the fuzzers try. `FUZZ=50 pytest --timeout=0 tests/test_fuzz_*.py` tries fifty times as much."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("FUZZ", "1"))

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
"""Anything that JSON can say."""


def fuzz(examples: int, *, shrink: bool = True) -> settings:
    """So many, unless more are asked for; however long one takes. Without `shrink` a failing one is told as it is: for
    examples that take a second each."""
    phases = [phase for phase in Phase if shrink or phase not in (Phase.shrink, Phase.explain)]
    return settings(max_examples=examples * TIMES, suppress_health_check=list(HealthCheck), phases=phases)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """What `whole` gives, with some bytes changed, cut out, put in or repeated."""
    octets = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(octets)))
        end = draw(st.integers(start, min(len(octets), start + 8)))
        octets[start:end] = draw(st.binary(max_size=6) | st.just(bytes(octets[start:end]) * 3))
    return bytes(octets)
