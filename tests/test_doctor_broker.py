"""`edgeq doctor` and the broker: what a real mosquitto keeps, allows, says. The appliance's session is left alone."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.authority import Authority
from support.doctors import Patient, states
from support.mosquitto import Mosquitto, free_port

from edgeq.doctor import broker as looks
from edgeq.doctor import keeping, visit
from edgeq.doctor import mosquitto as conf
from edgeq.testing import until

StartBroker = Callable[..., Mosquitto]
versions = pytest.mark.parametrize("version", ["5", "3.1.1"])

ROUTES = 'routes: [{topic: "a/{b}/#", emit: x}, {topic: "c/d", emit: y}]\n'


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which other tests run answers later."""
    for module in (visit, keeping, looks):
        monkeypatch.setattr(module, "ANSWER_SECONDS", 20.0)


def configuration(url: str, more: str = "", version: str = "5") -> str:
    return f'gateway: g\nmqtt: {{url: "{url}", version: "{version}"{more}}}\n{ROUTES}'


@versions
def test_a_broker_that_keeps_messages_and_one_that_does_not_give_them(
    mosquitto: StartBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    (tmp_path / "acl").write_text("topic write edgeq/#\n")
    good, other = mosquitto(), mosquitto(f"acl_file {tmp_path / 'acl'}")
    patient = Patient(tmp_path, configuration(good.url, version=version))
    assert patient.told(keeping.kept) == "ok: the broker keeps a message for a session that is away |  | "
    patient.configure(configuration(other.url, version=version))
    monkeypatch.setattr(keeping, "ANSWER_SECONDS", 3.0)
    told = patient.told(keeping.kept)
    assert told.startswith("bad: the broker didn't keep a message on edgeq/g/doctor for a session that was away")
    assert "may not read" in told


def test_a_broker_that_forgets_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgotten(case: object, topic: str, sent: int) -> keeping.Outcome:
        return keeping.Outcome(sent, 0, session=False)

    monkeypatch.setattr(keeping, "_try", forgotten)
    told = Patient(tmp_path, configuration("mqtt://localhost")).told(keeping.kept)
    assert told.startswith("bad: the broker has forgotten a session that was away for a moment | what is published")


@versions
def test_how_many_messages_the_broker_keeps_is_tried_when_asked(
    mosquitto: StartBroker, tmp_path: Path, version: str
) -> None:
    patient = Patient(tmp_path, configuration(mosquitto("max_queued_messages 300").url, version=version))
    told = patient.told(keeping.kept, thorough=True)
    assert f"warn: of {keeping.THOROUGH_MESSAGES} messages the broker kept 300 " in told
    patient.configure(configuration(mosquitto("max_queued_messages 0").url, version=version))
    assert f"ok: the broker keeps {keeping.THOROUGH_MESSAGES} messages" in patient.told(keeping.kept, thorough=True)


@versions
def test_nothing_is_left_at_the_broker(mosquitto: StartBroker, tmp_path: Path, version: str) -> None:
    broker = mosquitto()
    patient = Patient(tmp_path, configuration(broker.url, version=version))
    for look in (looks.reached, looks.accepted, looks.subscriptions, keeping.kept):
        assert set(states(patient.found(look))) == {"ok"}, look

    def all_gone() -> bool:
        gone = re.findall("Client edgeq-g-doctor-.* (?:disconnected|closed its connection)", broker.log)
        return len(gone) == broker.log.count("New client connected")

    asyncio.run(until(all_gone, "the broker to have heard the last goodbye"))
    broker.stop()  # it saves what it keeps
    saved = (broker.folder / "mosquitto.db").read_bytes()
    assert b"doctor" not in saved


def test_a_broker_that_does_not_let_edgeq_in_or_not_everywhere(mosquitto: StartBroker, tmp_path: Path) -> None:
    patient = Patient(tmp_path, configuration(mosquitto("allow_anonymous false").url))
    told = patient.told(looks.accepted)
    assert told.startswith("bad: no session with the broker: the broker refused the connection: Not authorized")
    assert "password_file" in told
    (tmp_path / "acl").write_text("topic read #\n")
    patient.configure(configuration(mosquitto(f"acl_file {tmp_path / 'acl'}").url))
    told = patient.told(keeping.kept)
    assert told.startswith("unknown: whether the broker keeps messages couldn't be tried: the broker refused")


def test_something_that_is_no_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        patient = Patient(tmp_path, configuration(f"mqtt://127.0.0.1:{silent.getsockname()[1]}"))
        assert states(patient.found(looks.reached)) == ["ok"]
        assert "doesn't answer" in patient.told(looks.accepted)
        assert patient.found(looks.subscriptions) == patient.found(keeping.kept) == []


def test_a_broker_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    patient = Patient(tmp_path, configuration(f"mqtt://127.0.0.1:{free_port()}"))
    assert patient.told(looks.reached).startswith("bad: 127.0.0.1:")
    for look in (looks.accepted, looks.subscriptions, keeping.kept):
        assert patient.found(look) == []
    patient.configure(configuration("mqtt://no.such.host.invalid"))
    assert "no.such.host.invalid:1883 can't be reached" in patient.told(looks.reached)


def test_an_embedded_broker_keeps_nothing(tmp_path: Path) -> None:
    patient = Patient(tmp_path, configuration("embedded://"))
    assert states(patient.found(looks.reached)) == ["warn"]
    for look in (looks.accepted, looks.subscriptions, keeping.kept, conf.configured):
        assert patient.found(look) == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl isn't installed: apt-get install openssl")
@pytest.mark.parametrize(("days", "state"), [(5, "warn"), (90, "ok")])
def test_a_certificate_that_ends_soon(mosquitto: StartBroker, tmp_path: Path, days: int, state: str) -> None:
    authority = Authority(tmp_path / "ca")
    cert, key = authority.certificate("broker", "DNS:localhost,IP:127.0.0.1", days)
    broker = mosquitto(f"cafile {authority.ca}", f"certfile {cert}", f"keyfile {key}")
    secure = broker.url.replace("mqtt://", "mqtts://")
    patient = Patient(tmp_path, configuration(secure, f", tls: {{ca: {authority.ca}}}"))
    (finding,) = patient.found(looks.reached)
    assert finding.state == state
    assert f"valid for {days - 1} more days" in finding.what or f"valid for {days} more days" in finding.what
    patient.configure(configuration(secure))
    assert "isn't trusted: self" in patient.told(looks.reached) or "isn't trusted: unable" in patient.told(
        looks.reached
    )
    patient.configure(configuration(secure, ", tls: {insecure: true}"))
    assert "isn't looked at (mqtt.tls.insecure)" in patient.told(looks.reached)


def test_the_session_of_a_running_appliance_is_left_alone(mosquitto: StartBroker, tmp_path: Path) -> None:
    broker = mosquitto("max_queued_messages 0")
    configured = configuration(broker.url, ", client_id: the-one")
    appliance = Appliance(tmp_path, configured)
    appliance.start()
    try:
        patient = Patient(tmp_path, configured)
        for look in (looks.reached, looks.accepted, looks.subscriptions, keeping.kept):
            assert set(states(patient.found(look))) == {"ok"}, look
        assert appliance.status()["session"]["connections"] == 1
        assert appliance.status()["session"]["state"] == "connected"
    finally:
        appliance.kill()


# What mosquitto's configuration says


def test_what_is_missing_in_the_configuration_of_the_broker_that_runs(mosquitto: StartBroker, tmp_path: Path) -> None:
    broker = mosquitto("persistence false", "message_size_limit 1000", "persistent_client_expiration 2d")
    told = Patient(tmp_path, configuration(broker.url)).told(conf.configured, real=True)
    file = broker.folder / "mosquitto.conf"
    assert f"bad: mosquitto keeps nothing over its restart: persistence is false ({file}:" in told
    assert f"`persistence true` into {file}" in told
    assert "mosquitto keeps at most 1000 messages for edgeq: max_queued_messages isn't set" in told
    assert "mosquitto drops messages of more than 1000B" in told
    assert "bad: mosquitto forgets sessions after 2d" in told
    assert "mosquitto lets in everybody" not in told, "it listens on this machine only"


def test_the_settings_that_the_project_gives_are_enough(mosquitto: StartBroker, tmp_path: Path) -> None:
    given = Path(__file__).parents[1] / "config/mosquitto/edgeq.conf"
    wanted = ("autosave", "max_inflight", "max_queued", "persistent_client")
    lines = [line for line in given.read_text().splitlines() if line.startswith(wanted)]
    broker = mosquitto(*lines)
    patient = Patient(tmp_path, configuration(broker.url))
    assert states(patient.found(conf.configured, real=True)) == ["ok"]
    assert states(patient.found(conf.configured)) == ["unknown"], "on another machine, nobody can tell"


def test_settings_are_found_in_what_is_included_and_the_last_one_counts(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    main = tmp_path / "mosquitto.conf"
    main.write_text(f"# a comment\npersistence false\nlistener 1883 0.0.0.0\ninclude_dir {tmp_path / 'conf.d'}\n")
    (tmp_path / "conf.d/b.conf").write_text("persistence true\n\nallow_anonymous true\n")
    (tmp_path / "conf.d/ignored.txt").write_text("persistence false\n")
    settings = conf.read(str(main))
    assert settings.get("persistence") == "true"
    assert settings.said("persistence", "") == f"persistence is true ({tmp_path}/conf.d/b.conf:1)"
    assert settings.listeners == [(1883, "0.0.0.0")]
    machine = Patient(tmp_path, configuration("mqtt://localhost"))
    machine.put("proc/12/comm", "mosquitto\n")
    machine.put("proc/12/cmdline", f"mosquitto\0-c\0{main}\0")
    assert "mosquitto lets in everybody" in machine.told(conf.configured)
    main.unlink()
    assert f"unknown: {main} may not be read by this user" in machine.told(conf.configured)


def test_nobody_logs_in_with_a_name_that_would_end_the_session(mosquitto: StartBroker, tmp_path: Path) -> None:
    broker = mosquitto("use_username_as_clientid true")
    patient = Patient(tmp_path, configuration(broker.url, ", username: edgeq"))
    assert "would end the session of edgeq" in patient.told(looks.accepted, real=True)
    assert patient.found(keeping.kept, real=True) == patient.found(looks.subscriptions, real=True) == []
    assert "New client" not in broker.log
