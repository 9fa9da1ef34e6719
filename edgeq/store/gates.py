"""What stands between a job that is available and its claim, said once for every statement that makes a job available.

`blocked_by` is NULL for a job that can be claimed. A job whose dependency is broken waits for that first (`breaker`),
and only then, if it has a limit, for its turn under it (`limit`): see `breakers` and `limits`.
"""

from __future__ import annotations

import peewee as pw

from .store import literal
from .tables import Breakers, Jobs

BREAKER, LIMIT = literal("breaker"), literal("limit")
BROKEN = Jobs.needs.is_null(False) & pw.fn.EXISTS(
    Breakers.select(pw.SQL("1")).where((Breakers.name == Jobs.needs) & (Breakers.state != literal("closed")))
)
BLOCKED_BY_LIMIT = pw.Case(None, ((Jobs.limit_key.is_null(False), LIMIT),))
BLOCKED_BY_BREAKER = pw.Case(None, ((BROKEN, BREAKER),))
AVAILABLE = {
    Jobs.state: literal("available"),
    Jobs.blocked_by: pw.Case(None, ((BROKEN, BREAKER), (Jobs.limit_key.is_null(False), LIMIT))),
}
