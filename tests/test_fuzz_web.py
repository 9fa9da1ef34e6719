"""The web interface of a running appliance, asked by schemathesis for all that it says of itself, and by no rules."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.appliance import Appliance
from support.fuzzing import TIMES, damaged, fuzz
from support.mosquitto import Mosquitto, Peer, find_mosquitto, free_port

TOKEN = "a-token-of-some-length"
CONFIGURATION = """
gateway: gw
mqtt: {{url: "{url}"}}
store: {{url: edgeq.db}}
app: {{path: ., modules: [fuzzed]}}
routes:
  - {{topic: "t/{{subject}}", emit: t.reading, subject: "{{subject}}"}}
  - {{topic: "j/#", dispatch: "fuzzed:Note"}}
processors: {{courier: {{kind: courier}}, sentinel: {{kind: sentinel}}}}
channels: {{box: {{kind: inbox}}}}
contracts: [{{name: cold, kind: threshold, of: t.reading, field: value, above: 5}}]
jobs: {{queues: {{default: {{}}}}}}
web: {{listen: "127.0.0.1:{port}", token: {token}}}
"""
MODULE = """
from edgeq import Job

class Note(Job):
    max_attempts = 1
    value: int = 0

    def handle(self, ctx):
        raise ValueError("never")
"""
RULES = """
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "415", "421", "429", "431"]

# A schema doesn't say that since is before until, nor what an event is.
[[operations]]
include-path-regex = "^/api/(series|events)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "429"]
"""
# A path that fits /api/dead-letters/{id} as well takes what both do: only its data are tried.
OF_TWO = "^/api/dead-letters/(redrive|discard)$"
# What there is, so that more than "not found" is answered.
KNOWN = """
[parameters]
id = 1

[[operations]]
include-path-regex = "^/api/queues/"
parameters = {name = "default"}

[[operations]]
include-path-regex = "^/api/processors/"
parameters = {name = "courier"}

[[operations]]
include-path-regex = "^/api/contracts/"
parameters = {name = "cold"}
"""
# This version of schemathesis takes a tuple, described by prefixItems, for no schema; test_web_described checks it.
HOOKS = """
import schemathesis

@schemathesis.hook
def before_load_schema(context, raw_schema):
    point = raw_schema["components"]["schemas"]["Drawn"]["properties"]["points"]["items"]
    del point["prefixItems"], point["items"]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Appliance, int]]:
    """One with something of everything in its store, and the port of its interface."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto isn't installed: apt-get install mosquitto")
    folder, port = tmp_path_factory.mktemp("web"), free_port()
    broker = Mosquitto(folder / "mosquitto")
    broker.start()
    edgeq = Appliance(folder, CONFIGURATION.format(url=broker.url, port=port, token=TOKEN))
    (folder / "fuzzed.py").write_text(MODULE)
    try:
        edgeq.start()
        with Peer(broker.port) as peer:
            for number in range(5):
                peer.publish_many([(f"t/{number}", '{"value": 7}'), ("t/x", "no JSON"), ("j/", '{"value": 1}')])
        for table in ("notifications WHERE state = 'sent'", "jobs WHERE state = 'dead'", "dead_letters"):
            edgeq.until(lambda table=table: len(edgeq.sql(f"SELECT * FROM {table}")) >= 5, table)
        yield edgeq, port
        assert edgeq.status()["running"]
        assert "a page failed" not in edgeq.log
    finally:
        edgeq.kill()
        broker.kill()


@pytest.mark.parametrize("phases", ["coverage,stateful", "fuzzing"])
def test_it_is_what_it_says(served: tuple[Appliance, int], phases: str, tmp_path: Path) -> None:
    """No error of the server; statuses, types and schemas as they are described; who isn't known changes nothing."""
    _, port = served
    (tmp_path / "schemathesis.toml").write_text(RULES + (KNOWN if phases == "fuzzing" else ""))
    (tmp_path / "hooks.py").write_text(HOOKS)
    command = [
        sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", "schemathesis.toml",
        "run", f"http://127.0.0.1:{port}/api/openapi.json", "--header", f"Authorization: Bearer {TOKEN}",
        "--phases", phases, "--checks", "all", "--exclude-path", "/api/stream", "--suppress-health-check", "all",
        "--max-examples", str(6 * TIMES), "--generation-database", "none", "--warnings", "off",
    ]  # fmt: skip
    if phases != "fuzzing":
        command += ["--exclude-path-regex", OF_TWO]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks.py"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, "\n".join(line[:300] for line in (done.stdout + done.stderr).splitlines())
    selected = re.search(r"Operations:\s+(\d+) selected", done.stdout)
    assert selected, done.stdout
    assert int(selected[1]) > 30


LOCAL = b"HTTP/1.1\r\nHost: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
REQUESTS = st.sampled_from(
    [
        b"GET /api/events?type=a*&limit=5 " + LOCAL + b"\r\n",
        b"GET /static/app.js " + LOCAL + b'If-None-Match: "x"\r\n\r\n',
        b"GET /ack/AAAA.BBBB HTTP/1.0\r\nHost: [::1]:80\r\nCookie: edgeq_session=1.2.3\r\n\r\n",
        b"POST /api/login " + LOCAL + JSON + b'Content-Length: 13\r\n\r\n{"token":"x"}',
        b"POST /ack/A " + LOCAL + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 4\r\n\r\nby=%",
        b"POST /api/events " + LOCAL + JSON + f"Authorization: Bearer {TOKEN}\r\n".encode()
        + b"Content-Encoding: gzip\r\nIdempotency-Key: k\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
        b"OPTIONS * HTTP/1.1\r\n\r\n",
    ]
)  # fmt: skip


@fuzz(400)
@given(damaged(REQUESTS))
def test_any_bytes_are_answered_or_not_understood(served: tuple[Appliance, int], octets: bytes) -> None:
    _, port = served
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(octets)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    if not answer:  # it ended in the midst of what it promised
        return
    found = re.match(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n", answer)
    assert found, answer
    assert int(found[1]) < 500, answer
    head = answer.partition(b"\r\n\r\n")[0]
    assert b"nosniff" in head
    assert b"Connection: close" in head
