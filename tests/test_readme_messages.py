"""docs/messages.md: every block and line, in one folder and in its order; and its tables are the code's."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml
from support.mosquitto import free_port
from support.readme import PAGES, ROOT, Terminals, code, followed, printed, section, shows, steps, table

from edgeq import Backoff
from edgeq.config.schema import OnError, Route
from edgeq.intake.rejection import REASONS
from edgeq.processors.settings import ProcessorSettings

MESSAGES = followed(PAGES["docs/messages.md"])
OTHERS = section("## What becomes of the others", MESSAGES)
SHOWN = {
    "edgeq check": ["routes      4: "],
    "edgeq check -c session/edgeq.yaml": ["mqtts://broker.example.net (MQTT 5)"],
    "edgeq events list": [
        "temperature.reading",
        "door.opened",
        "light.switched",
        'pump-7   {"on":true,"by":"by/hand"}',
    ],
    "edgeq processors list": ["diary", "lights"],
    "edgeq processors pause diary": ["diary is paused"],
    "edgeq processors seek diary --to start": ["diary stands at 0"],
    "edgeq processors resume diary": ["diary goes on"],
    "edgeq events list --type 'door.*' --json": ['"type":"door.opened"'],
    "edgeq events export --since 1h --format csv": ["id,type,subject,topic,"],
    "python -m pytest -q tests": ["1 passed"],
}


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.kill()


@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed (mosquitto-clients)")
def test_it_works_as_it_is_written(terminals: Terminals) -> None:
    pytest.importorskip("amqtt", reason="the extra 'demo' is not installed")
    port, blocks, typed = str(free_port()), printed(MESSAGES), []
    for number, (line, _) in enumerate(steps(MESSAGES, terminals.folder)):
        if number == 0:
            file = terminals.folder / "edgeq.yaml"
            file.write_text(file.read_text().replace("18851", port))
            (terminals.folder / "session").mkdir()
            (terminals.folder / "session/mqtt-password").write_text("a-password\n")
        deadline = time.monotonic() + 40
        while True:
            out = terminals.type(line.replace("18851", port))
            if all(text in out for text in SHOWN.get(line, [])) and shows(out, blocks.get(number, "")):
                break
            assert time.monotonic() < deadline, f"{line}\n{out}"
            time.sleep(0.1)
        if line == "edgeq events list":
            types = re.findall(r"Z  ([a-z.]+) ", out)
            assert sorted(types) == ["door.opened", "light.switched", "pump.ordered", "temperature.reading"], (
                "each once"
            )
        typed.append(line)
    assert set(SHOWN) <= set(typed)
    assert len(blocks) == 1
    assert (terminals.folder / "gate.jpg").read_text().strip() == "not really a picture"
    diary, deadline = terminals.folder / "diary.txt", time.monotonic() + 40  # it goes on by itself, when its time comes
    while not diary.exists() or "door.opened north\n" not in diary.read_text():
        assert time.monotonic() < deadline, "the diary isn't written"
        time.sleep(0.1)


def test_the_keys_of_a_route_are_those_of_the_table() -> None:
    rows = {name: code(default) for cell, default, _ in table(section("## Routes", MESSAGES)) for name in code(cell)}
    fields = {field.encode_name: field.default for field in msgspec.structs.fields(Route)}
    assert set(rows) == set(fields)
    for name in ("data", "payload", "qos", "retained", "ordered", "keep"):
        assert yaml.safe_load(rows[name][0]) == fields[name], name
    assert (fields["timeout"], rows["timeout"]) == (5.0, ["5s"])
    assert (fields["max_payload"], rows["max_payload"]) == (256 * 1024, ["256KiB"])


def test_the_keys_of_a_processor_are_those_of_the_table() -> None:
    rows = {name: default for cell, default, _ in table(section("## Processors", MESSAGES)) for name in code(cell)}
    fields = {field.encode_name: field.default for field in msgspec.structs.fields(ProcessorSettings)}
    assert set(rows) == set(fields)
    assert (code(rows["batch_size"]), fields["batch_size"]) == (["100"], 100)
    assert (code(rows["poll_interval"]), fields["poll_interval"]) == (["5s"], 5.0)
    assert (code(rows["start"]), fields["start"]) == (["latest"], "latest")
    assert code(rows["on_error"]) == ["{attempts: 5, backoff: 1s..60s, then: dead_letter}"]
    assert OnError() == OnError(5, Backoff("1s..60s"), "dead_letter")


def test_the_reasons_are_all_told() -> None:
    assert [code(cell)[0] for cell, _ in table(OTHERS)] == list(REASONS)
    source = "".join(path.read_text() for path in (ROOT / "edgeq").rglob("*.py"))
    dropped = set(re.findall(r'metrics\.dropped\.add\(\w+, "(\w+)"\)', source)) - {"answer"}  # docs/mqtt.md has that
    told = set(code(OTHERS.partition("Dropped without a dead letter")[2])) & {*dropped, "retained", "empty"}
    assert told == dropped
