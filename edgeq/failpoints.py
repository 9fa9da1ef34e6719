"""Named places at which a test has the program killed, as if the power went.

`EDGEQ_FAILPOINT=intake.committed:3` kills the process with SIGKILL when it comes by that place for the third time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

NAMES = (
    "intake.received",
    "intake.handled",
    "intake.committed",
    "intake.acked",
    "forward.sending",
    "forward.confirmed",
    "processor.handled",
    "processor.committed",
    "job.claimed",
    "job.handled",
    "job.ended",
    "job.committed",
    "schedule.decided",
    "schedule.dispatched",
    "notification.rendered",
    "notification.committed",
    "notification.sent",
    "notification.marked",
    "web.stored",
    "retention.deleted",
    "retention.committed",
    "copy.committed",
    "copy.compared",
    "backup.step",
    "backup.copied",
    "backup.verified",
    "restore.copied",
    "replace.linked",
    "replace.alone",
    "replace.done",
    "recover.step",
)

_armed: dict[str, int] = {}


def arm(environ: Mapping[str, str]) -> None:
    """Set the failpoint that the environment names. Raises ValueError for an unknown name."""
    _armed.clear()
    setting = environ.get("EDGEQ_FAILPOINT", "")
    if setting:
        name, _, count = setting.partition(":")
        if name not in NAMES:
            raise ValueError(f"EDGEQ_FAILPOINT: there is no {name!r}; there are {', '.join(NAMES)}")
        _armed[name] = int(count or 1)


def failpoint(name: str) -> None:
    """Die here if a test wants it. Costs a look at an empty dictionary otherwise."""
    if _armed and name in _armed:
        _armed[name] -= 1
        if _armed[name] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
