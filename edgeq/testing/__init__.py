"""What authors of controllers, jobs, processors and channels use in their own tests: a clock to set, and ways to wait.

Nothing here sleeps and hopes: what is timed takes a clock, and what happens in the store can be waited for.
"""

from .clock import FakeClock
from .waiting import cursor_at, events_stored, until

__all__ = ["FakeClock", "cursor_at", "events_stored", "until"]
