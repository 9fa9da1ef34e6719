"""The store on one SQLite file: write-ahead log, one writing connection, readers of their own.

`synchronous=FULL` makes a commit survive a power cut. Checkpoints are made between commits (one inside a commit is a
stall that the intake feels), and only while nobody else can write: versions 3.7.0 to 3.51.2 of SQLite can damage a
database when one connection begins the log anew at the moment at which another one checkpoints.

- `transaction`, `engine`: the writing connection
- `patience`: how long it waits for those of others
- `faults`: what an error of the database says to an operator
- `store`: all of it together, with the reading connection
"""

from .engine import LOG_BYTES_KEPT as LOG_BYTES_KEPT
from .engine import SqliteEngine as SqliteEngine
from .engine import log_path as log_path
from .faults import FileGone as FileGone
from .store import SqliteStore as SqliteStore
from .transaction import SqliteTx as SqliteTx
