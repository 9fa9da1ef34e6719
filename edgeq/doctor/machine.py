"""The machine: memory, heat, power, load."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ..units import Size
from .case import Case
from .finding import Finding, ok, unknown, warn

MEMORY_BYTES_MIN = 64 * 2**20
HOT_CELSIUS = 80.0
LOAD_MAX = 2.0

_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
# Bits of what the firmware of a Raspberry Pi says: now, and since the boot.
_POWER, _POWER_BEFORE = 1 << 0, 1 << 16
_SLOWED, _SLOWED_BEFORE = 1 << 1 | 1 << 2 | 1 << 3, 1 << 17 | 1 << 18 | 1 << 19


def memory(case: Case) -> Iterator[Finding]:
    """Memory and swap."""
    facts = _facts(case.read("proc/meminfo"))
    available, swap, free = (facts.get(name) for name in ("MemAvailable", "SwapTotal", "SwapFree"))
    if available is None:
        yield unknown("how much memory is free can't be told", "/proc/meminfo doesn't say")
        return
    swapped = (swap or 0) - (free or 0)
    if available < MEMORY_BYTES_MIN:
        yield warn(
            f"only {Size(available)} of memory are free",
            f"edgeq takes up to {Size(MEMORY_BYTES_MIN)}; when there is none left, the kernel ends what is largest",
            "ps -eo rss,comm --sort=-rss | head",
        )
    else:
        yield ok(f"{Size(_round(available))} of memory are free, {Size(_round(swapped))} are swapped out")
    swaps = [line.split()[0] for line in case.read("proc/swaps").splitlines()[1:] if line.strip()]
    on_card = [name for name in swaps if "mmcblk" in name or name.startswith("/var")]
    if on_card and swapped > MEMORY_BYTES_MIN:
        yield warn(
            f"{Size(_round(swapped))} are swapped out to {on_card[0]}", "that wears the card", "use zram instead"
        )


def heat(case: Case) -> Iterator[Finding]:
    """Heat and power, where the machine says."""
    zones = [case.read(f"{path}/temp") for path in (case.root / "sys/class/thermal").glob("thermal_zone*")]
    degrees = []
    for text in zones:
        with contextlib.suppress(ValueError):
            degrees.append(int(text) / 1000)
    state = _throttled(case)
    if state & _POWER:
        yield warn(
            "the power supply is too weak, now", "the card may lose what it was told to keep", "use a stronger one"
        )
    elif state & _POWER_BEFORE:
        yield warn(
            "the power supply was too weak at times since the boot",
            "the card may lose what it was told to keep",
            "use a stronger one, or a shorter cable",
        )
    if state & _SLOWED:
        yield warn("the processor is slowed down, now", "it is too hot, or the power too weak", "cool it")
    elif state & _SLOWED_BEFORE and not state & _POWER_BEFORE:
        yield warn("the processor was slowed down at times since the boot", "it was too hot", "cool it")
    if not degrees:
        return
    if max(degrees) >= HOT_CELSIUS:
        yield warn(f"it is {max(degrees):.0f} °C hot", "the processor slows down, and the card ages", "cool it")
    else:
        yield ok(f"{max(degrees):.0f} °C")


def load(case: Case) -> Iterator[Finding]:
    """How busy the processor is."""
    words = case.read("proc/loadavg").split()
    if len(words) < 3:
        return
    cores = os.cpu_count() or 1
    busy = float(words[1]) / cores
    if busy > LOAD_MAX:
        yield warn(
            f"the load of the last five minutes is {words[1]} on {cores} cores",
            "edgeq has to wait for its turn; lag grows",
            "top",
        )
    else:
        yield ok(f"the load of the last five minutes is {words[1]} on {cores} cores")


def _throttled(case: Case) -> int:
    """What the firmware of a Raspberry Pi says; 0 elsewhere."""
    text = case.read(_THROTTLED).strip() or (case.run("vcgencmd", "get_throttled") or "").strip().partition("=")[2]
    try:
        return int(text, 16)
    except ValueError:
        return 0


def _facts(text: str) -> dict[str, int]:
    """The lines of /proc/meminfo, in bytes."""
    made = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            made[name] = int(words[0]) * 1024
    return made


def _round(size: int) -> int:
    return size // 2**20 * 2**20
