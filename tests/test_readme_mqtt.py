"""docs/mqtt.md: every line works as it is written, and what it claims is true."""

from __future__ import annotations

import importlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.mosquitto import free_port
from support.readme import PAGES, Terminals, code, followed, printed, section, shows, steps, table

from edgeq import requests
from edgeq.config import schema
from edgeq.presence import birth, contracts
from edgeq.requests import TABLE, answers, look, redrive
from edgeq.requests.kind import Request

SEEN = followed(PAGES["docs/mqtt.md"])
ASKED = section("## Requests", SEEN)
HOME = section("## Home Assistant", SEEN)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.kill()


@pytest.mark.skipif(shutil.which("mosquitto_rr") is None, reason="mosquitto_rr is not installed (mosquitto-clients)")
def test_it_works_as_it_is_written(terminals: Terminals) -> None:
    pytest.importorskip("amqtt", reason="the extra 'demo' is not installed")
    port = str(free_port())
    blocks = printed(SEEN)
    for number, (line, _) in enumerate(steps(SEEN, terminals.folder)):
        if number == 0:
            file = terminals.folder / "edgeq.yaml"
            file.write_text(file.read_text().replace("18843", port))
        deadline = time.monotonic() + 120
        while not shows(out := terminals.type(line.replace("18843", port)), blocks.get(number, "")):
            assert time.monotonic() < deadline, f"{line}\n{out}"
            time.sleep(0.1)
    assert len(blocks) == 2


def test_the_table_of_requests_has_all_and_each_is_one() -> None:
    rows = {code(name)[0]: [json.loads(each) for each in code(asked)] for name, asked in table(ASKED)}
    assert rows.keys() == TABLE.keys() == {*schema.Request.__args__}  # type: ignore[attr-defined]
    for name, examples in rows.items():
        kind = importlib.import_module(f"edgeq.requests.{TABLE[name]}").KIND
        assert examples
        for example in examples:
            assert isinstance(msgspec.convert(example, kind.model), Request)


def test_the_numbers_are_right() -> None:
    assert (f"`redrive` takes {redrive.REDRIVEN_MAX} at a time", answers.ANSWERS_MAX) == (
        "`redrive` takes 1000 at a time",
        100,
    )
    assert "with a hundred answers under" in ASKED
    assert f"has {look.ANSWER_BYTES_MAX // 1024} KiB at most" in ASKED
    assert f"a request {requests.REQUEST_BYTES_MAX // 1024} KiB" in ASKED
    assert f"up to {contracts.SUBJECTS_MAX} of the subjects" in SEEN
    assert contracts.GATHER_SECONDS <= 1
    assert "within five seconds" in HOME
    assert birth.DELAY_SECONDS[1] == 5
