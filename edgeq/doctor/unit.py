"""The service of systemd: whether it is there, complete, and runs this edgeq with this configuration."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from .case import UNIT, Case
from .finding import Finding, bad, ok, unknown, warn

_INSTALL = "sudo scripts/install"
# What the unit of this version says, and what is lost without.
_SAID = {
    "Type": ("notify", "systemd takes edgeq for ready before it is"),
    "KillMode": ("mixed", "jobs are ended before they are done"),
    "RestartPreventExitStatus": ("78", "with a wrong configuration, systemd starts it again and again"),
}
_ARGUMENTS = re.compile(r"argv\[\]=(.*?) ;")


def installed(case: Case) -> Iterator[Finding]:
    """Whether the service is installed, enabled, and as it stands in its file."""
    unit = case.unit
    if unit is None:
        yield unknown("there is no systemd here, or it doesn't answer", "nobody starts edgeq again when it ends")
        return
    if not case.unit_is_there:
        yield warn(f"{UNIT} isn't installed", "nobody starts edgeq at boot, or again when it ends", _INSTALL)
        return
    drop_ins = unit.get("DropInPaths", "").split()
    changed = f", changed by {', '.join(drop_ins)}" if drop_ins else ""
    yield ok(f"{unit.get('FragmentPath')}{changed}: {unit.get('ActiveState')} ({unit.get('SubState')})")
    if unit.get("UnitFileState") != "enabled":
        yield warn(f"{UNIT} isn't enabled", "it doesn't start when the machine does", "sudo systemctl enable edgeq")
    if unit.get("NeedDaemonReload") == "yes":
        yield warn(
            f"{UNIT} was changed since systemd read it",
            "it runs with the former settings",
            "sudo systemctl daemon-reload && sudo systemctl restart edgeq",
        )
    shipped = Path(sys.prefix) / "share/edgeq/systemd" / UNIT
    if shipped.is_file() and case.read(unit.get("FragmentPath", "").lstrip("/")) != shipped.read_text():
        yield warn(
            f"{unit.get('FragmentPath')} isn't the unit of this version",
            "it may lack what this version relies on",
            f"{_INSTALL}; changes of your own belong into: sudo systemctl edit edgeq",
        )
    restarts = unit.get("NRestarts", "0")
    if restarts.isdecimal() and int(restarts):
        yield warn(
            f"systemd has started {UNIT} again {restarts} times", "it ended in between", "journalctl -u edgeq -e"
        )


def settings(case: Case) -> Iterator[Finding]:
    """Whether the service says what edgeq relies on."""
    unit = case.unit
    if unit is None or not case.unit_is_there:
        return
    do = "sudo systemctl edit edgeq; systemctl cat edgeq shows all of it"
    fine = True
    for name, (said, why) in _SAID.items():
        if said not in unit.get(name, "").split():
            fine = False
            yield warn(f"{UNIT} has {name}={unit.get(name) or ''} and not {name}={said}", why, do)
    if unit.get("WatchdogUSec", "0") in ("0", "infinity"):
        fine = False
        yield warn(f"{UNIT} has no WatchdogSec", "an edgeq that hangs isn't started again", do)
    if unit.get("User") in ("", "root"):
        fine = False
        yield warn(f"{UNIT} runs as root", "jobs and controllers can do everything on this machine", do)
    if fine:
        yield ok(f"{UNIT} says what edgeq relies on")


def version(case: Case) -> Iterator[Finding]:
    """Whether the service runs the edgeq that looks, with the configuration that is looked at."""
    found = _ARGUMENTS.search((case.unit or {}).get("ExecStart", ""))
    if not case.unit_is_there or found is None:
        return
    words = found[1].split(" ")
    program = Path(words[0])
    here = Path(sys.prefix)
    if not program.exists():
        yield bad(f"{UNIT} starts {program}, which isn't there", "it can't start", _INSTALL)
    elif program.parent.resolve().parent != here.resolve():  # its folder may be a link to that of a version
        yield warn(
            f"{UNIT} runs {program}, and this is another edgeq, in {here}",
            "what is said here is said by another version than the one that runs",
            f"sudo {program} doctor",
        )
    config = next((words[at + 1] for at, word in enumerate(words[:-1]) if word in ("-c", "--config")), "")
    files = case.loaded.files
    if config and files and os.path.realpath(config) != os.path.realpath(files[0]):
        yield warn(
            f"{UNIT} runs with {config}, and {files[0]} is looked at here",
            "what is said here is about another configuration",
            f"sudo {program} doctor -c {config}",
        )
