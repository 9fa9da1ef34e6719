"""What SQLite and PostgreSQL say in different words, so that a verb is written once for both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import peewee as pw

BEGINNING_SIGNS = 1000


class ByDialect(pw.Node):
    """A part of a query that is `sqlite` for the one database and `postgresql` for the other."""

    def __init__(self, *, sqlite: pw.Node, postgresql: pw.Node) -> None:
        self._sqlite = sqlite
        self._postgresql = postgresql

    def __sql__(self, context: pw.Context) -> pw.Context:
        """See peewee.Node."""
        rendered: pw.Context = context.sql(self._postgresql if is_postgresql(context.state.param) else self._sqlite)
        return rendered


def is_postgresql(placeholder: str) -> bool:
    """Whether a database with that `placeholder` for parameters is PostgreSQL."""
    return placeholder == "%s"


def unlocked(column: pw.Field, query: pw.ModelSelect[Any]) -> pw.Node:
    """That `column` is among what `query` finds; on PostgreSQL without rows that another transaction has changed or is
    about to, which are never waited for, and found once, whatever the plan: a limit in `query` holds."""
    found = query.for_update(skip_locked=True)
    return ByDialect(
        sqlite=column.in_(query), postgresql=pw.NodeList((column, pw.SQL("= ANY (ARRAY"), found, pw.SQL(")")))
    )


def beginning(column: pw.Field) -> pw.Node:
    """The first BEGINNING_SIGNS of a text: enough for a list."""
    return pw.fn.SUBSTR(column, pw.SQL("1"), pw.SQL(str(BEGINNING_SIGNS)))


def least(*values: object) -> pw.Node:
    """The smallest of several values."""
    return ByDialect(sqlite=pw.fn.MIN(*values), postgresql=pw.fn.LEAST(*values))


def spells(column: pw.ColumnBase, parts: Sequence[str], *, any_case: bool = False) -> pw.Node:
    """That a text is these parts in their order, with any text between them. Upper and lower case differ, unless in
    `any_case`: then not those letters of which the database knows both."""
    # peewee says GLOB to SQLite, and LIKE to PostgreSQL.
    glob = "*".join(re.sub(r"[\[?*]", r"[\g<0>]", part) for part in parts)
    like = "%".join(re.sub(r"[%_\\]", r"\\\g<0>", part) for part in parts)
    if any_case:
        lower = pw.fn.LOWER(column)
        return ByDialect(sqlite=lower % pw.fn.LOWER(glob), postgresql=lower % pw.fn.LOWER(like))
    return ByDialect(sqlite=column % glob, postgresql=column % like)
