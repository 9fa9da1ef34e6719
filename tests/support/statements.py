"""Every statement that the store keeps, for tests of how a database goes about it."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import edgeq.store
from edgeq.store.store import Statement

# These look at a whole table, and say so: small tables, or a command that somebody typed.
WHOLE_TABLE = {
    "cursors._EVERY", "contract_states._EVERY", "contract_states._SUMMARY",
    "schedules._EVERY", "silences._UNTIL", "silences._COUNT", "silences._END_ALL", "threads._EVERY",
    "threads._SET_CLOCK", "threads._COUNTS", "pruning.PLACES", "pruning.FORGET_WRITERS",
}  # fmt: skip
# These look at the end of one.
END_OF_TABLE = {"cursors._HEAD", "events._HEAD", "pruning.LETTERS_NTH", "pruning.NOTIFICATIONS_NTH", "pruning.OLDEST"}
# These sort what they found: no more than has such a key.
SORTED = {"events._KEYED"}


def statements() -> list[tuple[str, Statement]]:
    found = []
    for module in pkgutil.iter_modules(edgeq.store.__path__):
        if not module.ispkg:
            values = vars(import_module(f"edgeq.store.{module.name}"))
            found += [
                (f"{module.name}.{name}", value) for name, value in values.items() if isinstance(value, Statement)
            ]
    return found
