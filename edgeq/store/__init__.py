"""Where everything durable lives. SQL, peewee and drivers stay inside this package.

`store` states the interface and its promises, `sqlite` keeps them on one file, `writer` is the thread that
commits; one file for each table holds its verbs: functions on an open transaction, and statements to read.
"""

from __future__ import annotations

from ..lean import without

# peewee imports every driver that is installed, psycopg with its 11 MiB among them, and here only renders SQL and runs
# migrations. pysqlite3 is a second SQLite: when that closes a file, the locks that the first one holds on it are gone.
_DRIVERS = ("psycopg", "psycopg2", "psycopg2cffi", "pymysql", "MySQLdb", "pysqlite3")

with without(dict.fromkeys(_DRIVERS)):
    import peewee  # noqa: F401 - from here on, everybody has this one
