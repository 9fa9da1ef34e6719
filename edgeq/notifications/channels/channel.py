"""What a channel is: it takes one notification at a time to one target, and says what came of it.

To add a kind: a settings record, a subclass of `Channel`, a line in `KINDS` (or, in a package of your own, an entry
point of the group `edgeq.channels`), and a test with the suite of `edgeq.testing.channels`.

A channel doesn't queue, repeat, log failures or wait between attempts: its sender (`..outbox`) does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from ...backoff import Backoff
from ...config import checks
from ...config.schema import Record
from ..bucket import Limit
from ..notification import Notification

# Publishes over edgeq's own MQTT session: `await publish(topic, payload, qos=1, retain=False)`. Returns when the broker
# has acknowledged it; raises when it can't.
Publish = Callable[..., Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Sent:
    """The target has taken it. `missed` says which part of the target has not, if so: it isn't tried again. `answer` is
    what the target said, for who tries the channel out."""

    missed: str = ""
    answer: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Retry:
    """It wasn't taken, but may be later. `after_seconds`: not before, says the target.

    `target_down`: it is not about this notification. The target was not reached, or takes none at present. Then no
    attempt is counted, and the channel as a whole waits until it can go on. `unreachable`: what is more, there was no
    way to the target, which doesn't notice then how often it is looked for.
    """

    reason: str
    after_seconds: float | None = None
    target_down: bool = False
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The target refuses this notification for good. `status` is that of an answer by HTTP."""

    reason: str
    status: int = field(default=0, compare=False)


Outcome = Sent | Retry | Rejected


@dataclass(frozen=True, slots=True)
class Links:
    """What a channel may use of edgeq beside its own settings."""

    publish: Publish


class ChannelSettings(Record, frozen=True, kw_only=True):
    """Keys of `channels.*` of every kind: how many notifications its target takes, `burst` at once and then `rate`, and
    whether several are told in one. What isn't given is the kind's own."""

    rate: Annotated[str, checks.rate] | None = None
    burst: Annotated[int, checks.between(1, 1_000_000)] | None = None
    digest: bool | None = None


class Channel(ABC):
    """A way to one target. `name` is the channel's name in the configuration.

    `kind` is its word in the configuration, `settings` the record of its keys there; `backoff` says how long the sender
    waits after failures. `digests` says whether people read it: they are told several notifications in one, with a body
    of at most `body_bytes_max` bytes, programs each by itself. `limit` is how many the target takes, None: any number.
    The constructor gets the settings, which should be a `ChannelSettings`, and raises ValueError for what can't work.
    It doesn't connect: a target that is away at the start is found when it is there.
    """

    kind: ClassVar[str]
    settings: ClassVar[type[Record]]
    backoff: ClassVar[Backoff] = Backoff(5.0, 900.0)
    # A kind's own, which the configuration of a channel may replace on the instance.
    digests: bool = False
    body_bytes_max: int = 16 * 1024
    limit: Limit | None = None

    def __init__(self, name: str, settings: Any, links: Links) -> None:
        self.name = name
        if isinstance(settings, ChannelSettings):
            self._take_over(settings)

    def _take_over(self, settings: ChannelSettings) -> None:
        if settings.digest is not None:
            self.digests = settings.digest
        if settings.rate is not None:
            self.limit = Limit(checks.rate(settings.rate), settings.burst or (self.limit.burst if self.limit else 1))
        elif settings.burst is not None:
            if self.limit is None:
                raise ValueError("burst needs rate as well")
            self.limit = Limit(self.limit.rate, settings.burst)

    @abstractmethod
    async def send(self, notification: Notification) -> Outcome:
        """Deliver. An exception counts as `Retry`.

        Give `notification.idempotency_key` to the target if it can use it: after a crash between the target's answer
        and our commit the same notification comes again. Nothing secret may stand in the outcome. Ends, whatever the
        target does, within two minutes.
        """

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"
