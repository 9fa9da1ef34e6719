"""The table of all checks, and how they are made: side by side, each within its time."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from . import (
    appliance,
    broker,
    channels,
    clocks,
    configuration,
    disk,
    keeping,
    machine,
    mosquitto,
    rights,
    store,
    unit,
    versions,
)
from .case import Case
from .finding import Finding, unknown

log = logging.getLogger("edgeq.app")

Look = Callable[[Case], Iterable[Finding]]


class Check(NamedTuple):
    """`look` says what it finds as soon as it does. After `seconds` nobody listens any more."""

    name: str
    look: Look
    seconds: float = 10.0


CHECKS = (
    Check("configuration", configuration.loaded),
    Check("configuration", rights.configuration),
    Check("configuration", rights.secrets),
    Check("appliance", appliance.running),
    Check("unit", unit.installed),
    Check("unit", unit.settings),
    Check("unit", unit.version),
    Check("store", store.opened, 20.0),
    Check("store", store.log),
    Check("store", store.put_aside),
    Check("store", rights.database),
    Check("disk", disk.space),
    Check("disk", disk.file_system),
    Check("disk", disk.options),
    Check("disk", disk.errors),
    Check("broker", broker.reached, 15.0),
    Check("broker", broker.accepted, 20.0),
    Check("broker", broker.subscriptions, 20.0),
    Check("broker", keeping.kept, 25.0),
    Check("broker", mosquitto.configured),
    Check("channels", channels.resolved),
    Check("clock", clocks.synchronised),
    Check("clock", clocks.kept),
    Check("clock", clocks.zones),
    Check("machine", machine.memory),
    Check("machine", machine.heat),
    Check("machine", machine.load),
    Check("versions", versions.libraries),
)

_THOROUGH_TIMES = 4


def examine(case: Case, checks: Sequence[Check] = CHECKS) -> Iterator[tuple[str, list[Finding]]]:
    """What the checks find, each with the name of its check, in the order of the table.

    All begin at once; whatever is broken, it ends when the longest may take no longer. A check that fails says so.
    """
    found: list[queue.SimpleQueue[Finding | None]] = [queue.SimpleQueue() for _ in checks]
    began = time.monotonic()
    for check, results in zip(checks, found, strict=True):
        # One that hangs, as in asking for a name, must not hold up the end.
        threading.Thread(target=_look, args=(check, case, results), name=f"doctor-{check.name}", daemon=True).start()
    for check, results in zip(checks, found, strict=True):
        seconds = check.seconds * (_THOROUGH_TIMES if case.thorough else 1)
        yield check.name, list(_until(results, began + seconds, check, seconds))


def _until(
    results: queue.SimpleQueue[Finding | None], deadline: float, check: Check, seconds: float
) -> Iterator[Finding]:
    try:
        while (finding := results.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            yield finding
    except queue.Empty:
        subject = (check.look.__doc__ or "").partition(".")[0]
        yield unknown(f"{subject[:1].lower()}{subject[1:]}: couldn't be seen", f"no answer within {seconds:g} s")


def _look(check: Check, case: Case, results: queue.SimpleQueue[Finding | None]) -> None:
    try:
        for finding in check.look(case):
            results.put(finding)
    except Exception as error:
        log.debug("the check %s failed", check.name, exc_info=True)
        results.put(unknown("a check has failed; that is a defect", f"{type(error).__name__}: {error}"))
    results.put(None)
