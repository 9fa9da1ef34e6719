"""docs/forwarding.md: every block and line, and what it claims is true."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.mosquitto import free_port
from support.readme import PAGES, Terminals, code, files, followed, printed, section, shows, steps, table

from edgeq.clock import Clock
from edgeq.forward import wire
from edgeq.forward.settings import ForwardSettings
from edgeq.processors.settings import ProcessorSettings
from edgeq.store.forwarded import Batch

FORWARDING = followed(PAGES["docs/forwarding.md"])
JSON = FORWARDING[FORWARDING.index("```json\n") + 8 :].partition("```")[0]
TYPED = FORWARDING.replace(f"```json\n{JSON}```", "")
PORTS = ("18841", "18842", "18843")


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.kill()


@pytest.mark.timeout(600)
def test_it_works_as_it_is_written(terminals: Terminals) -> None:
    pytest.importorskip("amqtt", reason="the extra 'demo' is not installed")
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    ports = {port: str(free_port()) for port in PORTS}
    blocks = printed(TYPED)
    shown = ""
    for number, (line, _) in enumerate(steps(TYPED, terminals.folder)):
        for name in ("edgeq.yaml", "site/edgeq.yaml"):
            path = terminals.folder / name
            text = path.read_text()
            for port, own in ports.items():
                text = text.replace(port, own)
            path.write_text(text)
        if line == "edgeq run -c site/edgeq.yaml":
            terminals.start(line, "listening on")
            continue
        shown = terminals.type(line)
        if number in blocks:
            assert shows(shown, blocks.pop(number)), shown
    assert blocks == {}
    events = [json.loads(line) for line in shown.splitlines()]
    assert len(events) == 2
    assert {event["idempotency_key"].rpartition(":")[2] for event in events} == {"1", "2"}
    status = terminals.type("edgeq status")
    assert "cloud" in status
    for name in ("ways/site-token", "ways/site-password"):
        (terminals.folder / name).write_text("a-secret-of-some-length\n")
    assert "fine" in terminals.type("edgeq check -c ways/edgeq.yaml")
    assert "fine" in terminals.type("edgeq check -c ways/site.yaml")
    shutil.rmtree(terminals.folder / "ways")


def test_every_file_is_named_once() -> None:
    assert set(files(FORWARDING)) == {"site/edgeq.yaml", "edgeq.yaml", "ways/edgeq.yaml", "ways/site.yaml"}


def test_the_table_has_every_key() -> None:
    own = {field.encode_name for field in msgspec.structs.fields(ForwardSettings)}
    common = {field.encode_name for field in msgspec.structs.fields(ProcessorSettings)}
    listed = {name for cell, _ in table(section("## Keys", FORWARDING)) for name in code(cell)}
    assert listed == own - common | {"batch_size"}


def test_the_batch_that_is_shown_is_one() -> None:
    shown = JSON.replace("…", "")
    found = wire.read(shown.encode(), Clock().now())
    assert isinstance(found, Batch)
    assert found.ids == (17,)
    assert {field.encode_name for field in msgspec.structs.fields(wire._Sent)} == set(json.loads(shown)["events"][0])
