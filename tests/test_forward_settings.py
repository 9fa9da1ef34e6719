"""The keys of a forwarder: what is refused, and that nothing secret is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeq.clock import Clock
from edgeq.config.load import load
from edgeq.errors import ConfigError
from edgeq.forward.settings import way
from edgeq.plan import Plan, make_plan
from edgeq.telemetry.metrics import Metrics


async def nowhere(*_: Any, **__: Any) -> None: ...


def plan(folder: Path, keys: str) -> Plan:
    (folder / "secret").write_text("s3cr3t-of-length\n")
    path = folder / "edgeq.yaml"
    path.write_text(f"gateway: gw\nprocessors:\n  cloud: {{kind: forward, {keys}}}\n")
    return make_plan(load(str(path), environ={}), publish=nowhere, clock=Clock(), metrics=Metrics())


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("https://a.example/x", "http"),
        ("http://a.example", "http"),
        ("mqtt://a.example", "mqtt"),
        ("mqtts://a.example:8884", "mqtt"),
        ("mqtt:site/gw/events", "session"),
        ("mqtt:site/{gateway}/events", "session"),
        ("postgresql://u@h/d", "postgresql"),
        ("postgres:///d?host=/run/postgresql", "postgresql"),
    ],
)
def test_where_to(tmp_path: Path, to: str, expected: str) -> None:
    assert way(to) == expected
    made = plan(tmp_path, f'to: "{to}"').processors["cloud"]
    assert type(made.make(None)).__name__ == "Forward"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("gzip: true", "to: is missing"),
        ("to: ftp://a.example", "must be https://"),
        ("to: site.example.net", "must be https://"),
        ('to: "mqtt:site/+/events"', "without wildcards"),
        ("to: postgresql://u@h", "must name a database"),
        ("to: 'postgresql://u:s3cr3t%@h/d'", "are written %2F"),
        ("to: 'postgresql://u:s3cr3t@s3cr3t@h/d'", "are written %2F"),
        ("to: 'postgresql://u:s3cr3t@h/d?nosuch=1'", "nosuch"),
        ("to: mqtt://u@h", "must not hold a user name"),
        ("to: https://a.example, rate: fast", "must be a rate"),
        ("to: https://a.example, batch_size: 5000", "between 1 and 1000"),
        ('to: https://a.example, prefix: "{subject}/"', "no placeholder but {gateway}"),
        ("to: https://a.example, topic: a/b", "is for mqtt:// only"),
        ("to: https://a.example, password_file: secret", "is for mqtt:// and postgresql:// only"),
        ("to: mqtts://a.example, token_file: secret", "is for http:// only"),
        ("to: mqtts://a.example, password_file: secret", "needs username as well"),
        ("to: mqtt://a.example, tls: {insecure: true}", "used with mqtts:// only"),
        ("to: postgresql://u@h/d, gzip: true", "a database takes rows"),
        ("to: https://a.example, newest: [a]", "did you mean"),
        ("to: https://a.example, headers: {Idempotency-Key: x}", "is set by edgeq"),
        ("to: https://a.example, ca: /nowhere.pem", "readable file"),
    ],
)
def test_what_is_refused(tmp_path: Path, keys: str, words: str) -> None:
    with pytest.raises(ConfigError) as failed:
        plan(tmp_path, keys)
    assert words in str(failed.value)
    assert "edgeq.yaml:3" in str(failed.value)
    assert "s3cr3t" not in str(failed.value)


def test_without_the_driver_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.forward.making.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'edgeq\[postgres\]'"):
        plan(tmp_path, "to: postgresql://u@h/d")


def test_no_more_is_read_at_once_than_the_rate_lets_go(tmp_path: Path) -> None:
    made = plan(tmp_path, "to: https://a.example, rate: 20/s, batch_size: 500")
    assert made.processors["cloud"].settings.batch_size == 20


def test_a_route_that_receives_has_no_use_for_what_is_of_emit(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.yaml"
    path.write_text('routes: [{topic: "site/{gateway}/events", receive: events, subject: "x"}]\n')
    with pytest.raises(ConfigError, match="events that are received have their own"):
        load(str(path), environ={})
