"""Commands called in this process, in a folder with a configuration, and a database to go with it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from edgeq.cli.main import main
from edgeq.clock import Clock
from edgeq.config.schema import Config
from edgeq.config.schema import Store as Settings
from edgeq.store.opening import make_store
from edgeq.store.store import Store, Unit
from edgeq.telemetry.metrics import Metrics

from .stores import Database, PostgresDatabase

_URL = "EDGEQ_STORE__URL"


class Done(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


Edgeq = Callable[..., Done]


def commands(
    configuration: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database: Database | None = None,
) -> Iterator[Edgeq]:
    """For a fixture: calls commands in `folder`, with this configuration there.

    The store is `edgeq.db` in that folder, unless `database` is of another kind: then it is empty, on its server.
    """
    monkeypatch.chdir(folder)
    for name in list(os.environ):
        if name.startswith("EDGEQ_"):
            monkeypatch.delenv(name)
    if isinstance(database, PostgresDatabase):
        monkeypatch.setenv(_URL, database.blank().url)
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))
    (folder / "edgeq.yaml").write_text(configuration)
    root, own = logging.getLogger(), logging.getLogger("edgeq")
    kept = root.handlers[:], root.level, own.level

    def call(*words: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        assert "Traceback" not in err
        return Done(ended.value.code, out, err)

    yield call
    root.handlers[:], root.level = kept[:2]
    own.setLevel(kept[2])


def make_commands_store() -> Store:
    """The store of the commands, as `edgeq run` would open it; not open yet."""
    settings = Settings(url=os.environ.get(_URL, "edgeq.db"), durability="normal")
    config = Config(gateway="g", store=settings)
    return make_store(config, "test", metrics=Metrics(), clock=Clock(), exclusive=True, make=True)


def store(unit: Unit[Any] = lambda tx: None) -> Any:
    """Make the database of the commands and commit a unit to it; what that returns."""

    async def commit() -> Any:
        made = make_commands_store()
        await made.open()
        try:
            return await made.write(unit)
        finally:
            await made.close()

    return asyncio.run(commit())


def remove_store() -> None:
    """Remove the database of the commands, or what is in it."""
    if _URL in os.environ:
        with psycopg.connect(os.environ[_URL], autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
    for path in Path().glob("edgeq.db*"):
        path.unlink()
