"""What an operator sees of a forwarder whose site is away."""

from __future__ import annotations

from pathlib import Path

from support.appliance import Appliance
from support.mosquitto import free_port
from support.targets import Answer, HttpTarget, closing

CONFIGURATION = """
gateway: gw
mqtt: {{url: "mqtt://127.0.0.1:1"}}
store: {{url: edgeq.db}}
processors:
  cloud: {{kind: forward, to: "{to}", token: s3cr3t-token, rate: 1000/s, start: beginning,
           on_error: {{backoff: 100ms..200ms}}}}
"""


def test_status_says_where_to_how_much_and_why_it_waits(tmp_path: Path) -> None:
    port = free_port()
    edgeq = Appliance(tmp_path, CONFIGURATION.format(to=f"http://127.0.0.1:{port}/hook"))
    edgeq.spawn()
    try:
        edgeq.until(lambda: edgeq.status().get("processors"), "its cursor")
        assert edgeq.cli("emit", "a").returncode == 0
        edgeq.until(lambda: edgeq.status()["processors"][0]["state"] == "waiting", "the outage")
        shown = edgeq.cli("status").stdout
        assert "cloud: waiting, at event 0, 1 events" in shown
        assert f"to http://127.0.0.1:{port}, sent 0, bytes 0, at most 1000/s" in shown
        assert "Connection refused" in shown
        listed = edgeq.cli("processors", "list").stdout
        assert "waiting" in listed
        assert "Connection refused" in listed
    finally:
        edgeq.kill()
    assert "s3cr3t" not in shown + edgeq.log


def test_status_says_what_was_refused_last(tmp_path: Path) -> None:
    with closing(HttpTarget()) as server:
        server.answers.append(Answer(422, body=b"no such type"))
        edgeq = Appliance(tmp_path, CONFIGURATION.format(to=server.url))
        edgeq.spawn()
        try:
            edgeq.until(lambda: edgeq.status().get("processors"), "its cursor")
            edgeq.cli("emit", "a")
            edgeq.until(lambda: server.requests, "the first")  # both in one request would be refused together
            edgeq.cli("emit", "b")
            edgeq.until(lambda: edgeq.status()["processors"][0].get("says", {}).get("sent") == 1, "the second")
            shown = edgeq.cli("status").stdout
        finally:
            edgeq.kill()
    assert "last refused event 1: 422" in shown
    assert "no such type" in shown
