"""Keys made of a job's arguments: `Unique`, by which a job isn't added twice, and `Limit`, by which jobs wait for each
other. Both are written on a job class and checked there; what they come to for one job is a record of the store's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..config.checks import rate as per_second
from ..config.suggest import did_you_mean
from ..store import jobs
from ..store.store import storable
from ..units import Duration

KEY_BYTES_MAX = 1024
CONCURRENCY_MAX = 100_000
BURST_MAX = 1_000_000
PERIOD_SECONDS_MAX = 366 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique:
    """By what a job is unique: where one of its kind with the same key is there, a dispatch adds none.

    `by` names the arguments that make the key (default: all). `states` are those in which the earlier job counts:
    by default until it has ended. With `within` (`"10m"`, at most 366d) it counts only as long after its dispatch; then
    by default also when it is completed. Raises ValueError that names what is wrong.
    """

    by: str | Iterable[str] | None = None
    states: str | Iterable[str] | None = None
    within: str | None = None
    rule: jobs.Unique = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.by is not None:
            _set(self, "by", _names("by", self.by))
        within = None if self.within is None else _period(self.within)
        states: tuple[str, ...] = jobs.INCOMPLETE if within is None else (*jobs.INCOMPLETE, "completed")
        if self.states is not None:
            states = _names("states", self.states)
            for state in states or ("",):
                if state not in jobs.STATES:
                    raise ValueError(f"states: there is no state {state!r} ({did_you_mean(state, jobs.STATES)})")
        _set(self, "rule", jobs.Unique(states, None if within is None else round(within * 1e6)))

    def key(self, arguments: Mapping[str, Any]) -> str:
        """The key of a job with these arguments. Raises ValueError for what JSON can't say."""
        return key_of(arguments, self.by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many jobs may run: `concurrency` of them at once, and so many a second, minute, hour or day as `rate` says
    (`"10/m"`), of which `burst` may begin together after a pause.

    What counts together: the jobs of the class, or of all classes whose limit has the same `name`; with `by`, only
    those with the same values of these arguments. A job of a queue that is paused or has no worker may hold up those
    of other queues that share a limit with it, but for seconds only. Raises ValueError that names what is wrong.
    """

    by: str | Iterable[str] = ()
    name: str | None = None
    concurrency: int | None = None
    rate: str | None = None
    burst: int = 1
    interval_us: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _set(self, "by", _names("by", self.by))
        if self.name is not None:
            check_key("name", self.name)
        if self.concurrency is None and self.rate is None:
            raise ValueError("a limit needs concurrency or rate, or both")
        if self.concurrency is not None:
            _check_count("concurrency", self.concurrency, CONCURRENCY_MAX)
        _check_count("burst", self.burst, BURST_MAX)
        if self.rate is None and self.burst != 1:
            raise ValueError("burst needs rate as well")
        _set(self, "interval_us", None if self.rate is None else _interval_us(self.rate))

    def of(self, kind: str, arguments: Mapping[str, Any], key: str | None = None) -> jobs.Limit:
        """The limit of a job of that kind with these arguments, or with `key` instead of them. Raises ValueError for
        arguments that JSON can't say."""
        whose = self.name or kind
        if key is None and self.by:
            key = key_of(arguments, self.by)
        full = whose if key is None else f"{whose} {key}"
        return jobs.Limit(_short(full), self.concurrency, self.interval_us, self.burst)


def key_of(arguments: Mapping[str, Any], names: Iterable[str] | None) -> str:
    """The arguments of these names (None: all) as JSON that is the same for the same values, or, where that is longer
    than KEY_BYTES_MAX, a hash of it. Raises ValueError for what JSON can't say."""
    chosen = arguments if names is None else {name: arguments[name] for name in names}
    try:
        plain = msgspec.to_builtins(chosen, str_keys=True, order="sorted")  # of sets, too
        return _short(msgspec.json.encode(plain, order="sorted").decode())
    except (TypeError, OverflowError, RecursionError, UnicodeError, msgspec.MsgspecError) as error:
        raise ValueError(f"no key can be made of the arguments: {error}") from None


def check_key(name: str, key: object) -> str:
    """`key` as it is given. Raises ValueError that names the key unless it is a text of 1 to KEY_BYTES_MAX bytes that
    every database takes."""
    if not isinstance(key, str) or not key:
        raise ValueError(f"{name} must be a text that isn't empty, not {key!r:.80}")
    if storable(key) != key:
        raise ValueError(f"{name} can't be stored: {key!a:.80} has a null character or a lone surrogate")
    size = len(key.encode())
    if size > KEY_BYTES_MAX:
        raise ValueError(f"{name} must be at most {KEY_BYTES_MAX} bytes long, not {size}: {key[:40]!r}…")
    return key


def _short(key: str) -> str:
    encoded = key.encode()
    return key if len(encoded) <= KEY_BYTES_MAX else f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def _names(setting: str, value: object) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{setting} must be names, such as ('device',), not {value!r:.80}")
    return names


def _period(value: object) -> float:
    try:
        seconds = float(Duration.parse(value))
    except ValueError as error:
        raise ValueError(f"within: {error}") from None
    if not 0 < seconds <= PERIOD_SECONDS_MAX:
        raise ValueError("within must be longer than nothing and at most 366d")
    return seconds


def _interval_us(rate: object) -> int:
    try:
        interval = 1 / per_second(str(rate))
    except ValueError as error:
        raise ValueError(f"rate {error}") from None
    if not 1e-6 <= interval <= PERIOD_SECONDS_MAX:
        raise ValueError("rate must be at most 1000000/s and at least 1/366d")
    return round(interval * 1e6)


def _check_count(name: str, value: object, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 1 to {most}, not {value!r:.80}")


def _set(record: object, name: str, value: object) -> None:
    object.__setattr__(record, name, value)  # the record is frozen, and this is how it is made
