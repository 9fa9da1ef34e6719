"""What an error of PostgreSQL says to an operator, and whether it may pass."""

from __future__ import annotations

import psycopg

from ...errors import StoreError, StoreUnavailable

# By SQLSTATE, or its class: https://www.postgresql.org/docs/current/errcodes-appendix.html
_UNAVAILABLE = {
    "08": "the connection to the database is lost",
    "25006": "the database is read-only: a standby, or its disk is nearly full",
    "25P03": "the server has ended a transaction that stood still",
    "28": "the database refuses the user or the password",
    "3D000": "the database doesn't exist",
    "40001": "the database has ended the transaction in favour of another one",
    "40P01": "the database has ended the transaction in favour of another one",
    "42501": "the user has no right to the tables",
    "42P01": "a table is missing",
    "53100": "the server's disk is full",
    "53200": "the server has no memory left",
    "53300": "the server has no connection left",
    "53": "the server has not enough resources",
    "55P03": "another session holds the store's lock",
    "55006": "the database is in use by another session",
    "57014": "a statement was cancelled at the server",
    "57": "the server has ended the connection: it stops, starts or fails over",
    "58": "the server's disk or system answers with an error",
    "XX": "the database is damaged, or the server has a fault",
}
_STAYS = ("28", "3D000", "42501")
_HINTS = {
    "28": "look at the user and the password in store.url, and at pg_hba.conf of the server",
    "3D000": "create it (createdb), or change store.url",
    "42501": "let the user own the database or its schema",
    "53100": "make room on it",
    "53300": "raise max_connections, or end other programs",
}
_HINT = "look at the server's log, and at store.url"


def reason(error: Exception, place: str) -> str:
    """Why the store can't take commits, if that is what `error` says; else "": a unit is to blame."""
    if not isinstance(error, psycopg.Error):
        return ""
    found = _find(_UNAVAILABLE, error.sqlstate)
    if not found and isinstance(error, psycopg.OperationalError) and not error.sqlstate:
        found = "the database can't be reached"
    return f"{found}: {place} ({_first_line(error)})" if found else ""


def refusal(error: psycopg.Error, place: str) -> StoreError:
    """What to raise for an error at the start: StoreUnavailable for what may pass."""
    said = reason(error, place)
    stays = any((error.sqlstate or "").startswith(each) for each in _STAYS) or _refused(error)
    kind = StoreUnavailable if said and not stays else StoreError
    return kind(said or f"{place}: {_first_line(error)}", hint=_find(_HINTS, error.sqlstate) or _HINT)


def _refused(error: psycopg.Error) -> bool:
    """Whether the server has refused us for what we are. psycopg gives an error while connecting no SQLSTATE."""
    text = str(error)
    return not error.sqlstate and any(
        each in text for each in ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf")
    )


def _find(table: dict[str, str], sqlstate: str | None) -> str:
    return table.get(sqlstate or "") or table.get((sqlstate or "")[:2]) or ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # Of several addresses, each has failed in its own way.
    return "; ".join(line.removeprefix("- ") for line in lines[1:]) if lines[0].endswith("failures were:") else lines[0]
