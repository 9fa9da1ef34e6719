"""docs/interface.md: what is typed answers as shown, and what it claims is true."""

from __future__ import annotations

import http.client
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.mosquitto import Mosquitto, free_port
from support.readme import PAGES, ROOT, Terminals, code, followed, section, steps, table

from edgeq.config.load import load
from edgeq.telemetry.metrics import Metrics

ALL = followed(PAGES["docs/interface.md"])
PART = section("## The interface", ALL)
HEAD = ALL.partition("\n## ")[0]
TYPED = re.sub(r"```(yaml prometheus|nginx)\n.*?```", "", PART, flags=re.DOTALL)
PUBLIC = "gateway.example.net"


class Gateway(NamedTuple):
    """An appliance as the page has it configured, behind the proxy or not."""

    terminals: Terminals
    port: int

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), dict(answer.headers.items())
        finally:
            connection.close()

    @property
    def token(self) -> str:
        return (self.terminals.folder / "web-token").read_text().strip()


@pytest.fixture
def gateway(tmp_path: Path, broker: Mosquitto) -> Iterator[Gateway]:
    terminals, port = Terminals(tmp_path), free_port()
    for line, _ in steps(HEAD.replace("```yaml", "```text"), terminals.folder):
        terminals.type(line)
    web = HEAD.partition("```yaml\n")[2].partition("```")[0].replace("8321", str(port))
    public = re.search(r"`(notifications: \{public_url: [^`]*\})`", PART)
    assert public is not None
    (terminals.folder / "edgeq.yaml").write_text(f"mqtt: {{url: '{broker.url}'}}\n{web}\n{public[1]}\n")
    terminals.type("edgeq run")
    yield Gateway(terminals, port)
    terminals.kill()


def test_what_is_typed_answers_as_shown(gateway: Gateway) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl isn't installed: apt-get install curl")
    shown = []
    for line, _ in steps(TYPED.replace("8321", str(gateway.port)), gateway.terminals.folder):
        shown.append(gateway.terminals.type(line))
        assert "error" not in json.loads(shown[-1]), line
    block = re.search(r"```text\n(.*?)```", PART, re.DOTALL)
    assert block is not None
    assert "".join(shown[-2:]) == block[1]
    assert '"paused":true' in gateway.terminals.type("edgeq queues --json")


def test_its_table_has_each_path(gateway: Gateway) -> None:
    described = json.loads(gateway.ask("GET", "/api/openapi.json")[1])["paths"]
    told = set()
    for first, _, changes in table(PART):
        for path in code(first):
            told.add((path, "get"))
        base = code(first)[0]
        told |= {(path if path.startswith("/api/") else base + path, "post") for path in code(changes)}
    known = {
        (path.replace("{id}", "ID").replace("{name}", "NAME"), method)
        for path, methods in described.items()
        for method in methods
        if path.startswith("/api/")
    }
    assert known - told == {("/api/openapi.json", "get"), ("/api/login", "post"), ("/api/logout", "post")}
    assert told <= known


def test_prometheus_finds_what_it_is_told_of(gateway: Gateway) -> None:
    block = re.search(r"```yaml prometheus\n(.*?)```", PART, re.DOTALL)
    assert block is not None
    assert 'targets: ["127.0.0.1:8321"]' in block[1]
    status, text, headers = gateway.ask("GET", "/metrics")
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
    names = re.findall(r"`(edgeq_\w+)", PART)
    assert len(names) > 5
    for name in names:
        assert f"# TYPE {name} " in text, name


def test_what_comes_through_the_proxy_needs_the_token(gateway: Gateway) -> None:
    block = re.search(r"```nginx\n(.*?)```", PART, re.DOTALL)
    assert block is not None
    values = {"$http_host": PUBLIC, "$remote_addr": "192.0.2.7", "$scheme": "https"}
    set_there = re.findall(r"proxy_set_header (\S+) (\S+);", block[1])
    headers = {name.replace("-", "_"): values[value] for name, value in set_there}
    assert f"server_name {PUBLIC};" in block[1]
    assert gateway.ask("GET", "/api/status", **headers)[0] == 401
    assert gateway.ask("GET", "/metrics", **headers)[0] == 401
    assert gateway.ask("GET", "/health", **headers)[0] == 200
    assert gateway.ask("GET", "/", **headers)[0] == 200
    of_page = {**headers, "Origin": f"https://{PUBLIC}", "Content_Type": "application/json"}
    status, _, answered = gateway.ask("POST", "/api/login", json.dumps({"token": gateway.token}), **of_page)
    assert status == 200
    cookie = answered["Set-Cookie"]
    assert cookie.endswith("; Secure")
    session = {"Cookie": cookie.partition(";")[0]}
    assert gateway.ask("GET", "/api/status", **headers, **session)[0] == 200
    pause = "/api/queues/default/pause"
    assert gateway.ask("POST", pause, "{}", **of_page, **session, X_Edgeq="1")[0] == 200
    evil = {**of_page, "Origin": "https://evil.example"}
    assert gateway.ask("POST", pause, "{}", **evil, **session, X_Edgeq="1")[0] == 403


def test_its_configuration_loads(tmp_path: Path) -> None:
    web = HEAD.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "web-token").write_text("x" * 20)
    (tmp_path / "edgeq.yaml").write_text(web)
    config = load(str(tmp_path / "edgeq.yaml")).config
    assert (config.web.listen, config.web.token) == ("127.0.0.1:8321", "x" * 20)


def test_every_metric_is_in_the_table() -> None:
    told = [name for names, *_ in table(section("## Metrics", ALL)) for name in code(names)]
    sources = [ROOT / "edgeq" / path for path in ("telemetry/metrics.py", "web/exposition.py")]
    known = set(re.findall(r'"(edgeq_\w+)"', "".join(map(Path.read_text, sources))))
    assert sorted(told) == sorted(known | {gauge.name for gauge in Metrics().gauges()})
