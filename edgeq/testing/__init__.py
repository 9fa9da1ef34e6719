"""What authors of controllers, jobs, processors and channels use in their own tests.

`Harness` is the whole appliance but for the broker; the rest is a clock to set, and ways to wait.

Nothing here sleeps and hopes: what is timed takes a clock, and what happens in the store can be waited for.
"""

from .clock import FakeClock
from .harness import FakeSession, Harness
from .waiting import cursor_at, events_stored, until

__all__ = ["FakeClock", "FakeSession", "Harness", "cursor_at", "events_stored", "until"]
