"""What authors of controllers, jobs, processors and channels use in their own tests: a clock to set, and ways to wait.

Nothing here sleeps and hopes: everything timed takes a clock, and everything that happens in the store can be waited for.
"""

from .clock import FakeClock

__all__ = ["FakeClock"]
