"""What authors of controllers, jobs, processors and channels use in their own tests.

`Harness` is the whole appliance but for the broker; `run_job` runs one job inline, and `Jobs` is a queue that runs when
it is told. Each has `notified()`: what was told by `ctx.notify`, as `Notified`. The rest is a clock to set, and ways to
wait.

Nothing here sleeps and hopes: what is timed takes a clock, and what happens in the store can be waited for.
"""

from .clock import FakeClock
from .harness import FakeSession, Harness
from .jobs import JobRun, Jobs, run_job
from .notified import Notified
from .waiting import cursor_at, events_stored, until

__all__ = [
    "FakeClock",
    "FakeSession",
    "Harness",
    "JobRun",
    "Jobs",
    "Notified",
    "cursor_at",
    "events_stored",
    "run_job",
    "until",
]
