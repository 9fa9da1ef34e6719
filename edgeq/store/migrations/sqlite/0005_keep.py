"""What goes first when there is no room: events have the priority of their route."""

from typing import Any

# Whoever has had a store that nothing was deleted from is told before anything is: see upkeep.retention.
_STATEMENTS = """
ALTER TABLE events ADD COLUMN keep INTEGER NOT NULL DEFAULT 0;
CREATE INDEX events_low ON events (id) WHERE keep < 0;
INSERT INTO meta (key, value) SELECT 'retention_waits', '' WHERE EXISTS (SELECT 1 FROM events);
"""


def up(migrator: Any, db: Any) -> None:
    """Bring everything up to date."""
    for statement in _STATEMENTS.split(";\n"):
        if statement.strip():
            db.execute_sql(statement)
