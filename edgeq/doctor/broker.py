"""The broker: whether it is there, lets edgeq in, and allows what edgeq needs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

from ..clock import MICROSECONDS
from ..mqtt.client import Welcome, tls_context
from ..mqtt.connection import Connection, NotConnected
from ..mqtt.delivery import Delivery
from ..mqtt.topics import Template, merge
from ..units import Duration
from .case import Case
from .finding import Finding, bad, ok, unknown, warn
from .mosquitto import takes_over
from .visit import ANSWER_SECONDS, NoWay, visit

CERTIFICATE_DAYS_MIN = 30
_DAY = 86400.0
_VERSION_TOPIC = "$SYS/broker/version"
_EMBEDDED = "the embedded broker is for trying out: it forgets everything when edgeq ends"


def reached(case: Case) -> Iterator[Finding]:
    """Whether somebody listens there, and proves who they are."""
    address = case.broker
    if address is None:
        yield warn(_EMBEDDED, "what is published while edgeq is down is lost", "mqtt: {url: mqtt://localhost:1883}")
        return
    try:
        with socket.create_connection((address.host, address.port), ANSWER_SECONDS) as plain:
            if not address.tls:
                yield ok(f"something listens at {address}")
                return
            tls = case.loaded.config.mqtt.tls
            with tls_context(tls).wrap_socket(plain, server_hostname=address.host) as sock:
                yield from _certificate(case, sock)
    except ssl.SSLCertVerificationError as error:
        yield bad(
            f"the certificate of {address} isn't trusted: {error.verify_message}",
            "edgeq doesn't connect, because it might be somebody else",
            "mqtt: {tls: {ca: /etc/edgeq/ca.pem}} names who signed it",
        )
    except OSError as error:
        yield bad(
            f"{address} can't be reached: {error.strerror or error}",
            "nothing is taken in",
            "systemctl status mosquitto" if case.broker_is_here else f"ping {address.host}",
        )


def accepted(case: Case) -> Iterator[Finding]:
    """Whether the broker lets edgeq in, and on which terms."""
    if case.broker is None:
        return
    if reason := takes_over(case):
        yield unknown("whether the login works wasn't tried", reason)
        return
    mqtt = case.loaded.config.mqtt
    try:
        welcome = asyncio.run(_welcome(case))
    except NoWay as error:
        if error.unreachable:
            return  # `reached` says so
        yield bad(f"no session with the broker: {error}", "nothing is taken in", _login_hint(str(error)))
        return
    who = f"as {mqtt.username}" if mqtt.username else "without a name"
    yield ok(f"the broker accepts MQTT {mqtt.version} {who}")
    yield from terms(case, welcome)


def terms(case: Case, welcome: Welcome) -> Iterator[Finding]:
    """What the broker's welcome says it doesn't do."""
    mqtt = case.loaded.config.mqtt
    granted = welcome.session_expiry_seconds
    if granted is not None and granted < mqtt.session_expiry:
        yield bad(
            f"the broker keeps the session for {Duration(granted)}, and edgeq asks for {mqtt.session_expiry}",
            "what is published while edgeq is down for longer is lost",
            "raise the broker's limit (mosquitto: persistent_client_expiration; EMQX: session_expiry_interval)",
        )
    if welcome.qos_max < 1:
        yield bad(
            "the broker knows QoS 0 only", "it keeps nothing for edgeq, and sends nothing twice", "use another one"
        )
    if not welcome.retain_available:
        yield warn("the broker keeps no retained messages", "nobody sees whether edgeq is online", "use another one")
    if mqtt.group and not welcome.shared_available:
        yield bad(
            "the broker has no shared subscriptions, and mqtt.group needs them",
            "nothing is taken in",
            "use another one",
        )
    if not welcome.wildcards_available and any("+" in each or "#" in each for each in _filters(case)):
        yield bad("the broker has no wildcards, and routes have some", "these routes get nothing", "use another one")


def subscriptions(case: Case) -> Iterator[Finding]:
    """Whether the broker takes the routes' subscriptions, and which one it is."""
    if case.broker is None or takes_over(case):
        return
    filters = _filters(case)
    try:
        refused, version = asyncio.run(_subscribed(case, filters))
    except (NoWay, NotConnected, TimeoutError):
        return  # that is said by others
    yield (
        ok(f"the broker is {version}")
        if version
        else unknown("the broker doesn't say what it is", f"it lets nobody read {_VERSION_TOPIC}, or isn't mosquitto")
    )
    for topic, reason in refused.items():
        user = case.loaded.config.mqtt.username or "edgeq"
        yield bad(
            f"the broker refuses the subscription to {topic}: {reason}",
            "this route gets nothing",
            f"let {user} read it (mosquitto's acl_file: user {user}, topic read {topic})",
        )
    if filters and not refused:
        # mosquitto's acl_file isn't asked before a message is delivered.
        yield ok(f"the broker takes {len(filters)} subscription{'' if len(filters) == 1 else 's'}")


async def _welcome(case: Case) -> Welcome:
    """What the broker says to a session such as the appliance's. It is ended after that, and not kept."""
    async with visit(case, "login", session_expiry=case.loaded.config.mqtt.session_expiry) as connection:
        welcome = connection.welcome
    async with visit(case, "login"):
        return welcome


async def _subscribed(case: Case, filters: dict[str, int]) -> tuple[dict[str, str], str]:
    """The filters that the broker refuses, and its version."""
    version = asyncio.get_running_loop().create_future()

    def take(deliveries: list[Delivery]) -> None:
        for each in deliveries:
            if each.topic == _VERSION_TOPIC and not version.done():
                version.set_result(each.payload.decode(errors="replace")[:100])

    async with visit(case, "rights", on_messages=take) as connection:
        async with asyncio.timeout(ANSWER_SECONDS):
            # Not shared with a group, of whose messages this would take some. QoS 0: nothing waits for us.
            refused = await connection.subscribe(dict.fromkeys(filters, 0))
            await connection.unsubscribe(list(filters))
            if await _takes(connection, _VERSION_TOPIC):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(version, 1.0)
    return refused, version.result() if version.done() and not version.cancelled() else ""


async def _takes(connection: Connection, topic: str) -> bool:
    return not await connection.subscribe({topic: 0})


def _filters(case: Case) -> dict[str, int]:
    """What the session subscribes to for the routes of the configuration. Those made in code aren't known here."""
    return merge({Template.parse(route.topic).filter: 1 for route in case.loaded.config.routes})


def _certificate(case: Case, sock: ssl.SSLSocket) -> Iterator[Finding]:
    shown = sock.getpeercert() or {}
    if not shown:
        yield warn(
            f"the certificate of {case.broker} isn't looked at (mqtt.tls.insecure)",
            "somebody in between can read and change everything",
            "mqtt: {tls: {ca: /etc/edgeq/ca.pem}}, and remove insecure",
        )
        return
    ends = ssl.cert_time_to_seconds(str(shown["notAfter"]))
    days = (ends - case.clock.now() / MICROSECONDS) / _DAY
    said = f"the certificate of {case.broker} is valid for {days:.0f} more days ({sock.version()})"
    if days < CERTIFICATE_DAYS_MIN:
        yield warn(said, "after that edgeq doesn't connect any more", "renew it, and reload the broker")
    else:
        yield ok(said)


def _login_hint(reason: str) -> str:
    if "protocol version" in reason or "MQTT 5" in reason:
        return 'mqtt: {version: "3.1.1"}'
    if "uthori" in reason or "password" in reason:
        return "mqtt: {username: …, password_file: …}; at mosquitto: mosquitto_passwd /etc/mosquitto/edgeq.passwd edgeq"
    return "look at the broker's log: journalctl -u mosquitto -e"
