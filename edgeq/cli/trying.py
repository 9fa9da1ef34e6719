"""`edgeq notifications test`: one real notification over one channel, past everything that is queued."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec

from ..clock import Clock
from ..config.schema import LoadedConfig, Mqtt, Severity
from ..config.suggest import did_you_mean
from ..control import ask_appliance
from ..errors import ConfigError, EdgeqError, Problem
from ..events import to_json
from . import completing
from .common import configured, load_config
from .printing import say

if TYPE_CHECKING:  # imported when used: the other commands beside this one don't need them
    from ..notifications.channels import Channel, Outcome
    from ..notifications.notification import Notification


@click.command("test")
@click.argument("name", metavar="CHANNEL", shell_complete=completing.channels)
@click.option(
    "--severity", type=click.Choice(get_args(Severity)), default="info", show_default=True, help="As if so severe."
)
@click.option("--resolved", is_flag=True, help="As if something were resolved: a siren stops.")
@configured
def test(name: str, severity: str, resolved: bool) -> None:
    """Send a real notification over a channel now, and say what its target answered.

    It isn't queued: the exit status is 0 when it was sent, and 1 when not.
    """
    from ..notifications.channels import Rejected, Retry

    loaded = load_config()
    clock = Clock()
    channel = _channel(loaded, name, clock)
    logging.getLogger("edgeq.notification").setLevel(logging.DEBUG)  # what the channel log says is to be seen here
    began = clock.monotonic()
    outcome = asyncio.run(_send(channel, _notification(loaded.config.gateway, severity, resolved, clock.now())))
    seconds = clock.monotonic() - began
    if isinstance(outcome, Retry | Rejected):
        refused = "refused for good" if isinstance(outcome, Rejected) else "not sent"
        wait = outcome.after_seconds if isinstance(outcome, Retry) else None
        hint = f"it is to be tried again after {wait:g}s" if wait else ""
        raise EdgeqError(f"{name}: {refused}: {outcome.reason}", hint=hint)
    if outcome.missed:
        raise EdgeqError(f"{name}: sent, but not to everyone: {outcome.missed}")
    answer = f": {outcome.answer}" if outcome.answer else ""
    say(f"{name}: sent in {seconds:.1f}s{answer}")


def _channel(loaded: LoadedConfig, name: str, clock: Clock) -> Channel:
    """The channel of that name. Raises ConfigError for what is wrong with it; other channels aren't looked at."""
    from ..notifications.channels import build_channels

    sections = loaded.config.channels
    if name not in sections:
        hint = did_you_mean(name, sections) if sections else "the configuration has no channels"
        raise EdgeqError(f"there is no channel {name!r}", hint=hint)

    async def publish(topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        from ..mqtt.single import publish_alone

        settings = await _broker(loaded)
        await publish_alone(settings, loaded.config.gateway, clock, topic, payload, qos=qos, retain=retain)

    problems: list[Problem] = []
    channels = build_channels({name: sections[name]}, problems, publish=publish)
    if problems:
        raise ConfigError(problems)
    return channels[name]


async def _broker(loaded: LoadedConfig) -> Mqtt:
    """How to connect to the broker, also when that is in the process of an appliance."""
    from ..mqtt.embedded import is_embedded

    settings = loaded.config.mqtt
    if not is_embedded(settings.url):
        return settings
    answer: dict[str, Any] = await ask_appliance(loaded.config) or {}
    address = answer.get("session", {}).get("url")
    if address is None:
        raise EdgeqError("the broker is in the process of `edgeq run`, which doesn't run")
    return msgspec.structs.replace(settings, url=f"mqtt://{address}", version="3.1.1")


def _notification(gateway: str, severity: str, resolved: bool, now: int) -> Notification:
    from ..notifications.notification import Notification

    return Notification(
        id=0,
        event_id=None,
        severity=severity,
        title=f"Test from {gateway}" + (": resolved" if resolved else ""),
        body="Somebody has tried out this channel with `edgeq notifications test`. There is nothing to do.",
        fingerprint="edgeq-test",
        idempotency_key=f"test-{uuid.uuid4().hex}",
        raised_at=now,
        attempted_at=now,
        kind="resolved" if resolved else "alert",
        detail_json=to_json({"type": "edgeq.test", "subject": gateway, "tags": [], "data": {}}),
    )


async def _send(channel: Channel, notification: Notification) -> Outcome:
    from ..notifications.channels import Retry
    from ..notifications.outbox import SEND_SECONDS_MAX

    try:
        async with asyncio.timeout(SEND_SECONDS_MAX):
            return await channel.send(notification)
    except TimeoutError:
        return Retry(f"took longer than {SEND_SECONDS_MAX:g}s")
    except Exception as error:  # noqa: BLE001 - it may be a package's
        return Retry(f"{type(error).__name__}: {error}")
