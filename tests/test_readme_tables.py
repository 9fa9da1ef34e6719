"""docs/tables.md: the tables, columns, states and events are those of the code, and its statements can be run."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import get_args

from support.readme import PAGES, ROOT, code, followed, section, table

from edgeq.clock import Clock
from edgeq.contracts.instance import Shown
from edgeq.store.sqlite import SqliteStore
from edgeq.store.tables import Table
from edgeq.telemetry.metrics import Metrics

TABLES = followed(PAGES["docs/tables.md"])
STATEMENTS = TABLES.partition("```sql\n")[2].partition("```")[0].strip().split(";\n")
MODELS = {model._meta.table_name: set(model._meta.columns) for model in Table.__subclasses__()}


def test_the_tables_and_their_columns_are_there() -> None:
    rows = {code(name)[0]: code(columns) for name, _, columns in table(TABLES)}
    assert all(set(columns) <= MODELS[name] for name, columns in rows.items())
    rest = set(code(TABLES[TABLES.index("\n`queues`") :].partition("are edgeq's own")[0]))
    assert set(rows) | rest == set(MODELS)


def test_the_states_are_those_of_the_code() -> None:
    rows = {code(name)[0]: code(states) for name, states in table(TABLES[TABLES.index("The states:") :])}
    assert rows["contract_states"] == list(get_args(Shown))
    source = "".join(path.read_text() for path in (ROOT / "edgeq").rglob("*.py"))
    for states in rows.values():
        assert [state for state in states if f'"{state}"' not in source] == []


def test_the_statements_can_be_run(tmp_path: Path) -> None:
    async def make() -> None:
        store = SqliteStore(str(tmp_path / "edgeq.db"), metrics=Metrics(), clock=Clock(), exclusive=True)
        await store.open()
        await store.close()

    asyncio.run(make())
    with closing(sqlite3.connect(f"file:{tmp_path}/edgeq.db?mode=ro", uri=True)) as connection:
        for statement in STATEMENTS:
            assert connection.execute(statement).fetchall() == []


def test_its_events_are_those_that_edgeq_stores() -> None:
    rows = {code(name)[0]: tagged for name, _, tagged in table(section("## Events of edgeq's own", TABLES))}
    source = "".join(path.read_text() for path in (ROOT / "edgeq").rglob("*.py"))
    emitted = re.findall(r'(?:emit\(|NewEvent\(|type=)\s*"(edgeq\.\w+)"', source)
    assert set(emitted) == {name for name in rows if name.startswith("edgeq.")}
