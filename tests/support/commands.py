"""Commands called in this process, in a folder with a configuration, and a database to go with it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgeq.cli.main import main
from edgeq.clock import Clock
from edgeq.store.sqlite import SqliteStore
from edgeq.store.store import Unit
from edgeq.telemetry.metrics import Metrics


class Done(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


Edgeq = Callable[..., Done]


def commands(
    configuration: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Edgeq]:
    """For a fixture: calls commands in `folder`, with this configuration there."""
    monkeypatch.chdir(folder)
    for name in list(os.environ):
        if name.startswith("EDGEQ_"):
            monkeypatch.delenv(name)
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


def store(unit: Unit[Any] = lambda tx: None) -> Any:
    """Make the database of the present folder, as `edgeq run` would, and commit a unit to it; what that returns."""

    async def commit() -> Any:
        made = SqliteStore("edgeq.db", metrics=Metrics(), clock=Clock(), durability="normal")
        await made.open()
        try:
            return await made.write(unit)
        finally:
            await made.close()

    return asyncio.run(commit())
