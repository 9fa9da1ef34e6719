"""Making the tables in PostgreSQL, whoever else does so and however it ends; and servers that don't fit."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from support.postgres import Postgres

from edgeq.errors import StoreError
from edgeq.store.postgres import connecting, schema
from edgeq.store.postgres.engine import PostgresEngine


def test_a_start_that_is_interrupted_leaves_nothing_half_made(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.fresh_database()

    def killed() -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(schema, "uuid", SimpleNamespace(uuid4=killed))
        with pytest.raises(SystemExit):
            schema.prepare(url, may_change=True)
    store_id = schema.prepare(url, may_change=True)
    assert len(store_id) == 32
    assert schema.prepare(url, may_change=False) == store_id


def test_a_server_that_is_too_old_is_refused(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is asked for what it doesn't know."""
    monkeypatch.setattr(connecting, "_EACH", "SET setting_of_later_versions = 0")
    monkeypatch.setattr(connecting, "VERSION_MIN", 990000)
    with pytest.raises(StoreError, match=r"runs PostgreSQL \d\d$") as refused:
        schema.prepare(postgres.fresh_database(), may_change=True)
    assert refused.value.hint == "edgeq needs 99 or later"


def test_a_server_that_is_told_later_not_to_wait_for_its_disk_waits_for_ours(
    own_postgres: Callable[..., Postgres],
) -> None:
    server = own_postgres()
    url = server.fresh_database()
    schema.prepare(url, may_change=True)
    engine = PostgresEngine(url, "gw writer", "full")
    connection, _ = engine.connected()
    server.sql(server.url, "ALTER SYSTEM SET synchronous_commit = off")
    server.sql(server.url, "SELECT pg_reload_conf()")
    while server.sql(url, "SHOW synchronous_commit") != [("off",)]:
        pass
    assert connection.execute(b"SHOW synchronous_commit").fetchall() == [("on",)]
    engine.disconnect()
