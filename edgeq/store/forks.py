"""Programs that fork: parent and child go on with connections of their own."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forking(Protocol):
    """What has a connection."""

    def before_fork(self) -> bool:
        """Make ready. False: the child is to leave everything to its parent."""

    def after_fork(self) -> None:
        """Go on, in the parent, and in a child that has nothing to leave."""

    def leave_to_parent(self) -> None:
        """Go on in the child as if nothing had been connected."""


_all: weakref.WeakSet[Forking] = weakref.WeakSet()
_ready: list[Forking] = []
_parents: list[object] = []
_registered = False


def mind(forking: Forking) -> None:
    """Call it at each fork from now on."""
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
    _all.add(forking)


def keep(connection: object) -> None:
    """Never let go of what is the parent's: that would close it."""
    _parents.append(connection)


def _before() -> None:
    _ready[:] = [each for each in list(_all) if each.before_fork()]


def _after() -> None:
    for each in _ready:
        each.after_fork()
    _ready.clear()


def _after_in_child() -> None:
    for each in list(_all):
        if each not in _ready:
            each.leave_to_parent()
    _after()
