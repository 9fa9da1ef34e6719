"""What a check has found."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["ok", "warn", "bad", "unknown"]

SUDO = "run it with sudo: sudo edgeq doctor"


class Finding(msgspec.Struct, frozen=True):
    """`what` is so, in a sentence; unless it is ok, `why` says what comes of it, and `do` is a command to type or a
    line of configuration to write."""

    state: State
    what: str
    why: str = ""
    do: str = ""


def ok(what: str) -> Finding:
    """As it should be."""
    return Finding("ok", what)


def warn(what: str, why: str, do: str = "") -> Finding:
    """Works, but not in every case that will come."""
    return Finding("warn", what, why, do)


def bad(what: str, why: str, do: str = "") -> Finding:
    """Doesn't work, or loses something."""
    return Finding("bad", what, why, do)


def unknown(what: str, why: str, do: str = "") -> Finding:
    """Can't be seen from here."""
    return Finding("unknown", what, why, do)
