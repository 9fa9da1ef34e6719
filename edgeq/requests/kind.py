"""What a request is made of: what it is asked with, and what is done about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from ..clock import Clock
from ..config.schema import Config
from ..errors import EdgeqError
from ..intake.context import MessageContext
from ..notifications.acknowledge import BY_CHARACTERS_MAX, COMMENT_CHARACTERS_MAX, NAME_CHARACTERS_MAX
from ..telemetry.metrics import Metrics

Look = Callable[[], Awaitable[dict[str, Any]]]
Answer = Callable[[], dict[str, Any]]

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
Text = Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS_MAX)]
By = Annotated[str, msgspec.Meta(max_length=BY_CHARACTERS_MAX)]
Comment = Annotated[str, msgspec.Meta(max_length=COMMENT_CHARACTERS_MAX)]
Id = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class Refused(EdgeqError):
    """It isn't done, and this is why."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every request may have beside its own: what comes back with the answer."""

    transaction: Any = None


@dataclass(frozen=True, slots=True)
class Means:
    """What requests work with. `looks` are for those that only look, by their names."""

    config: Config
    clock: Clock
    metrics: Metrics
    looks: Mapping[str, Look]


@dataclass(frozen=True, slots=True)
class Kind:
    """A request that is read as `model`.

    `change` records through `ctx` what is to be committed, and returns what says afterwards what came of it; both raise
    Refused (or ValueError) instead, the latter after the commit. A unit must not raise it: its commit would be refused.
    Without `change`, it is a look.
    """

    model: type[Request]
    change: Callable[[Any, MessageContext, Means], Answer] | None = None


def one_of(request: Request, *names: str) -> str:
    """Which one of these fields is given. Raises Refused unless it is exactly one."""
    given = [name for name in names if getattr(request, name) is not None]
    if len(given) != 1:
        raise Refused(f"the request must name either {' or '.join(names)}")
    return given[0]
