"""Durations and sizes as people write them in YAML: `250ms 10s 5m 2h 7d`, `64KiB 2GiB`."""

from __future__ import annotations

import re

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
_MOST = 2.0**42  # seconds: microseconds still fit 64 bits; bytes: 4 TiB
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


class Duration(float):
    """A length of time in seconds."""

    @classmethod
    def parse(cls, value: object) -> Duration:
        """The duration that `value` says: `"90s"`, `"1h30m"`, `0`.

        Raises ValueError for a number without a unit (other than 0), an unknown unit, or a negative value.
        """
        if isinstance(value, Duration):
            return value
        if value == 0 and not isinstance(value, bool):
            return cls(0)
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"{value} has no unit: write {value}s, {value}m or {value}h")
        if isinstance(value, str):
            if value.strip() == "0":
                return cls(0)
            return cls(_sum(value, _SECONDS, "a duration such as 250ms, 10s, 5m, 2h or 7d"))
        raise ValueError("must be a duration such as 250ms, 10s, 5m, 2h or 7d")

    @property
    def microseconds(self) -> int:
        """The same in whole microseconds."""
        return round(self * 1_000_000)

    def __str__(self) -> str:
        for unit in ("w", "d", "h", "m", "s", "ms", "us"):
            count = self / _SECONDS[unit]
            if count >= 1 and abs(count - round(count)) < 1e-9:
                return f"{round(count)}{unit}"
        return f"{float(self):g}s"


class Size(int):
    """An amount of data in bytes."""

    @classmethod
    def parse(cls, value: object) -> Size:
        """The size that `value` says: `"64KiB"`, `"1.5MiB"`, or a whole number of bytes.

        Raises ValueError for an unknown unit or a negative value.
        """
        if isinstance(value, bool):
            raise ValueError("must be a size such as 64KiB or 2GiB")
        if isinstance(value, int):
            if value < 0:
                raise ValueError("must not be negative")
            return cls(value)
        if isinstance(value, str):
            if value.strip().isdecimal():
                return cls(int(value))
            return cls(round(_sum(value, _BYTES, "a size such as 64KiB or 2GiB")))
        raise ValueError("must be a size such as 64KiB or 2GiB")

    def __str__(self) -> str:
        for unit in ("TiB", "GiB", "MiB", "KiB"):
            if self >= _BYTES[unit]:
                return f"{self / _BYTES[unit]:.4g}{unit}"
        return f"{int(self)}B"


def _sum(text: str, units: dict[str, float] | dict[str, int], wanted: str) -> float:
    total = 0.0
    position = 0
    stripped = text.strip()
    for match in _PART.finditer(stripped):
        if stripped[position : match.start()].strip() or match[2] not in units:
            break
        total += float(match[1]) * units[match[2]]
        position = match.end()
    if not stripped or position != len(stripped):
        raise ValueError(f"{text!r} is not {wanted}")
    if total > _MOST:
        raise ValueError(f"{text!r} is too large")
    return total


def spoken(seconds: float) -> str:
    """A length of time in at most two units: `12m 34s`, `0.25s`, `3d 4h`."""
    if seconds < 60:
        return f"{round(seconds, 3):g}s"
    rest = round(seconds)
    for unit, name, smaller, smaller_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if rest >= unit:
            count, left = divmod(rest, unit)
            return f"{count}{name} {left // smaller}{smaller_name}" if left >= smaller else f"{count}{name}"
    raise AssertionError(seconds)
