"""From one version to another, with a way back as long as nothing is lost by it.

1. *built* beside the present one, which goes on; `edgeq check` of the new one takes the configuration.
2. *stopped*, and what is in hand finished. The broker keeps what arrives from here on.
3. *backed up*: the database, verified.
4. *switched* to the new version, its units, and the database *migrated*.
5. *started*: when it is ready, it stays. Otherwise back: the link, the units, and the database, if that was changed.

Before 2 a note is made, which says how to go back or on, should this end in the midst. It is heeded by the next run of
the script, whatever that is for. A machine that is booted meanwhile starts the version that the link names.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import service
import versions
from machine import Failed, Machine
from versions import HOME, Version

_NOTE = HOME / "upgrading.json"
_BACKUPS = service.DATA / "backups"
_BACKUPS_KEPT = 3


@dataclass
class _Note:
    """What an upgrade needs to go back. `database` is None for a store that isn't a file, or isn't there."""

    before: str
    after: str
    units: list[str]
    database: str | None
    backup: str | None = None


def upgrade(machine: Machine, before: Version, after: Version) -> None:
    """Have `after` run in the place of `before`. Raises Failed when that goes on or runs again instead."""
    kept = f"{before.name} stays"
    if machine.dry_run:
        machine.say(f"would check the configuration, stop edgeq, back up and migrate its database, start {after.name}")
        return
    try:
        said = service.checked(machine, after, "check", "--json", what=kept)
    except Failed:
        versions.forget(machine, before)
        raise
    path = Path(json.loads(said)["store"])
    note = _Note(before.name, after.name, service.running(machine), str(path) if path.is_file() else None)
    _write(machine, note)
    try:
        service.stop(machine, note.units)
        _back_up(machine, note)
        _take(machine, after)
        service.checked(machine, after, "db", "migrate", "--no-backup", what="migrating the database")
        service.start(machine, note.units)
        service.must_store(machine, note.units)
    except BaseException as error:
        machine.say(f"{after.name} is not taken; going back to {before.name}")
        _go_back(machine, note)
        if isinstance(error, Failed):
            raise Failed(f"{error}\n{kept}: {after.name} was not taken") from None
        raise
    machine.remove(_NOTE)
    versions.forget(machine, before, after)


def recover(machine: Machine) -> None:
    """Finish what an earlier run was interrupted in: on, if the new version runs by now, otherwise back."""
    if not _NOTE.exists():
        return
    if machine.dry_run:
        machine.say("would finish an upgrade that was interrupted")
        return
    note = _Note(**json.loads(_NOTE.read_text()))
    present = versions.current()
    runs = machine.ask("systemctl", "is-active", "edgeq.service").stdout.strip() == "active"
    if present is not None and present.name == note.after and runs:
        machine.say(f"the upgrade to {note.after} was interrupted; it runs, and stays")
        _take(machine, present)
        service.start(machine, note.units)
        machine.remove(_NOTE)
    else:
        machine.say(f"the upgrade to {note.after} was interrupted; going back to {note.before}")
        _go_back(machine, note)


def _take(machine: Machine, version: Version) -> None:
    versions.switch(machine, version)
    service.arrange(machine, version)


def _back_up(machine: Machine, note: _Note) -> None:
    if note.database is None:
        machine.say("the store isn't a file here: it is not backed up by this")
        return
    machine.folder(_BACKUPS, 0o750, service.USER)
    words = ("db", "backup", "--json", "--keep", str(_BACKUPS_KEPT), _BACKUPS)
    made = json.loads(service.checked(machine, Version(note.after), *words, what="backing up the database"))
    machine.say(f"the database is backed up in {made['path']}")
    note.backup = made["path"]
    _write(machine, note)


def _go_back(machine: Machine, note: _Note) -> None:
    """Have the earlier version run again. Raises Failed when that would lose what the new one has taken in."""
    service.stop(machine, service.running(machine))
    if note.database is not None and note.backup is not None:
        _restore(machine, Version(note.after), Path(note.database), Path(note.backup))
    _take(machine, Version(note.before))
    try:
        service.start(machine, note.units)
    finally:  # from here on it is a version that doesn't start, and no upgrade any more
        machine.remove(_NOTE)
        versions.forget(machine, Version(note.before))


def _restore(machine: Machine, version: Version, database: Path, backup: Path) -> None:
    was, is_now = _look(backup), _look(database)
    if is_now is not None and is_now[0] == was[0]:
        return  # the tables are those that the earlier version knows
    if is_now is not None and is_now[1] > was[1]:
        raise Failed(
            f"{version.name} has changed the database and taken in {is_now[1] - was[1]} events before it failed, which "
            "would be lost by going back. It stays: see `journalctl -u edgeq`. To go back nevertheless: "
            f"edgeq db restore {backup}"
        )
    service.checked(machine, version, "db", "restore", backup, what="putting the database back")


def _look(path: Path) -> tuple[str, int] | None:
    """The version of the tables, and the id of the last event; None when the file can't be read."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
            ((schema,),) = database.execute("SELECT value FROM meta WHERE key = 'schema_version'")
            ((last,),) = database.execute("SELECT coalesce(max(id), 0) FROM events")
            return schema, last
    except (sqlite3.Error, ValueError):
        return None


def _write(machine: Machine, note: _Note) -> None:
    machine.write(_NOTE, json.dumps(asdict(note)) + "\n")
