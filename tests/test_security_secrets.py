"""Secrets stay where they were written: in nothing that edgeq logs, prints, serves, publishes or stores."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer, free_port

CONFIGURATION = """
gateway: gw
mqtt: {{url: "{url}", username: edgeq, password_file: mqtt-secret, requests: [status], discovery: homeassistant}}
store: {{url: edgeq.db}}
log: {{level: debug}}
routes: [{{topic: "t/#", emit: t.told, tags: [notification], description: "told"}}]
processors:
  courier: {{kind: courier}}
  cloud: {{kind: forward, to: "http://127.0.0.1:{closed}/in?key=SECRET-query", token: SECRET-forward, start: beginning}}
  broker: {{kind: forward, to: "mqtt://127.0.0.1:{closed}", username: gw, password: SECRET-site, start: beginning}}
channels:
  chat:
    kind: webhook
    url: "http://hook:SECRET-user@127.0.0.1:{closed}/?token=SECRET-url"
    headers: {{Authorization: Bearer SECRET-header}}
    sign: {{secret: SECRET-signing-key-of-32-characters-}}
  phone: {{kind: ntfy, url: "http://127.0.0.1:{closed}/topic", token: tk_SECRET-ntfy}}
  mail:
    {{kind: smtp, host: 127.0.0.1, port: {closed}, tls: none, from: a@b.c, to: [d@e.f], timeout: 2s}}
  family: {{kind: apprise, url_file: apprise-secret}}
notifications:
  heartbeat: {{url: "http://127.0.0.1:{closed}/?token=SECRET-beat", every: 1m}}
  routes: [{{channels: [chat, phone, mail, family]}}]
web: {{listen: "127.0.0.1:{port}", token_file: web-secret}}
"""
MARK = "SECRET-"
COMMANDS = (
    "check", "check --json", "-v check", "status", "status --json", "doctor", "doctor --json",
    "notifications list --json", "processors list --json", "events list --json", "notifications test chat",
)  # fmt: skip


@pytest.fixture
def port() -> int:
    """Where the interface is."""
    return free_port()


@pytest.fixture
def edgeq(tmp_path: Path, broker: Mosquitto, port: int) -> Iterator[Appliance]:
    """One whose targets are all away, so that there is something to complain of."""
    made = Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=broker.url, closed=free_port(), port=port))
    for name, secret in (
        ("mqtt-secret", "SECRET-broker"),
        ("web-secret", "SECRET-token-of-the-interface"),
        ("apprise-secret", "json://me:SECRET-apprise@127.0.0.1:1/SECRET-path"),
    ):
        (made.folder / name).write_text(secret)
        (made.folder / name).chmod(0o600)
    yield made
    made.kill()


def test_no_secret_gets_out(edgeq: Appliance, broker: Mosquitto, port: int) -> None:
    edgeq.start()
    with Peer(broker.port, "#", version5=True) as peer:
        peer.publish("t/1", '{"value": 1}')
        peer.publish("edgeq/gw/request/status", "{}")
        failed = "SELECT channel FROM notifications WHERE error <> ''"
        edgeq.until(lambda: len(edgeq.sql(failed)) == 4, "every channel to fail")
        edgeq.until(lambda: all(f"processors.{each}: waits" in edgeq.log for each in ("cloud", "broker")), "forwarders")
        edgeq.until(lambda: "edgeq.heartbeat: was not answered" in edgeq.log, "the heartbeat to fail")
        peer.wait(lambda: any(topic == "edgeq/gw/response/status" for topic, _ in peer.seen))
        published = b"\n".join(payload for _, payload in peer.seen).decode()
    said = {"what it publishes": published, "the log": edgeq.log}
    for line in COMMANDS:
        words = line.split()
        done = edgeq.cli(*words)
        said[f"edgeq {line}"] = done.stdout + done.stderr
        assert len(done.stdout + done.stderr) > 20, line
    described = json.loads(_served(port, "/api/openapi.json"))
    for path, methods in described["paths"].items():
        operation = methods.get("get")
        if operation and path != "/api/stream" and not any(each["required"] for each in operation["parameters"]):
            said[path] = _served(port, path)
    said["an event"] = _served(port, "/api/events/1")
    assert edgeq.process is not None
    said["ps"] = Path(f"/proc/{edgeq.process.pid}/cmdline").read_text()
    assert len(said) > 25
    assert edgeq.stop() == 0
    for path in edgeq.folder.glob("edgeq.db*"):
        said[path.name] = path.read_bytes().decode("latin-1")
    assert "notification" in said["edgeq.db"]
    leaks = {where: text[max(0, text.index(MARK) - 80) :][:120] for where, text in said.items() if MARK in text}
    assert leaks == {}


def _served(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return str(answer.read().decode())
