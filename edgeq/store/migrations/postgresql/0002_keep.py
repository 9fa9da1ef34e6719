"""What goes first when there is no room: events have the priority of their route. And vacuum comes in time where rows
are deleted or changed all the time: by default it waits for a fifth of a table."""

from typing import Any

# Whoever has had a store that nothing was deleted from is told before anything is: see upkeep.retention.
_STATEMENTS = """
ALTER TABLE events ADD COLUMN keep integer NOT NULL DEFAULT 0;
CREATE INDEX events_low ON events (id) WHERE keep < 0;
INSERT INTO meta (key, value) SELECT 'retention_waits', '' WHERE EXISTS (SELECT 1 FROM events);
ALTER TABLE events SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE notifications SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE dead_letters SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
"""


def up(migrator: Any, db: Any) -> None:
    """Bring everything up to date, in one transaction."""
    db.connection().execute(_STATEMENTS)
