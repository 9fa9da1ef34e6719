"""The server that tests run is a real one, and its troubles are real ones."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from support.postgres import Postgres


def test_every_database_is_fresh_and_its_owner_is_nobody_special(postgres: Postgres) -> None:
    first, second = postgres.fresh_database(), postgres.fresh_database()
    postgres.sql(first, "CREATE TABLE mine (x int); INSERT INTO mine VALUES (1)")
    assert postgres.sql(first, "SELECT x FROM mine") == [(1,)]
    with pytest.raises(psycopg.errors.UndefinedTable):
        postgres.sql(second, "SELECT x FROM mine")
    assert postgres.sql(second, "SELECT usesuper, usecreatedb FROM pg_user WHERE usename = current_user") == [
        (False, False)
    ]


def test_what_was_committed_outlives_a_crash(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    url = server.fresh_database()
    server.sql(url, "CREATE TABLE mine AS SELECT 1 AS x")
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO mine VALUES (2)")
        server.restart("immediate")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    assert server.sql(url, "SELECT x FROM mine") == [(1,)]
    assert "automatic recovery in progress" in server.log


def test_a_frozen_server_answers_nobody_until_it_thaws(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    url = server.fresh_database()
    with psycopg.connect(url, application_name="edgeq gw writer") as connection:
        server.freeze()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(url, connect_timeout=2)
        server.thaw()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert server.terminate("edgeq % reader") == 0
        assert server.terminate("edgeq % writer") == 1
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
