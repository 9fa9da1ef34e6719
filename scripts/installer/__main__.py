"""Reads the command line of scripts/install and does what it says, one at a time on a machine."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from pathlib import Path

import broker
import service
import upgrade
import versions
from machine import Failed, Machine
from versions import HOME, PROJECT, Origin, Version

_LOCK = Path("/run/edgeq-install.lock")
_DEBIAN_LIKE = {"debian", "raspbian", "ubuntu"}


def main() -> int:
    """Do it; the exit status."""
    asked = _arguments()
    machine = Machine(dry_run=asked.dry_run)
    if os.geteuid() != 0:
        machine.say("this must be run as root: sudo scripts/install")
        return 1
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal may go
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with _LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (_uninstall if asked.uninstall else _install)(machine, asked)
    except BlockingIOError:
        machine.say("another run of this script is at work; wait for it")
        return 1
    except (Failed, KeyboardInterrupt) as error:
        machine.say(str(error) or "interrupted; run it again, and it goes on or back from here")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/install", description="Installs edgeq on this machine, as root.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--upgrade",
        action="store_true",
        help="take this version in the place of the one that is installed, which stays if anything is wrong: "
        "configuration, backup, migration, start",
    )
    what.add_argument("--uninstall", action="store_true", help="remove edgeq; configuration, secrets and data stay")
    parser.add_argument("--purge", action="store_true", help="with --uninstall: remove those and the user, too")
    parser.add_argument(
        "--mosquitto",
        action="store_true",
        help="have the broker mosquitto as well, set up for edgeq, with a password for it",
    )
    parser.add_argument(
        "--from",
        dest="origin",
        type=Path,
        default=PROJECT,
        metavar="WHEEL|FOLDER",
        help="a wheel of edgeq, or a folder with it, and beside it what it needs: nothing is fetched. By default the "
        "folder of this project is installed, and pip fetches the rest",
    )
    parser.add_argument("--extras", default="", metavar="NAME,…", help="postgres, apprise, or both")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    asked = parser.parse_args()
    if asked.purge and not asked.uninstall:
        parser.error("--purge goes with --uninstall")
    if asked.uninstall and (asked.mosquitto or asked.extras or asked.origin != PROJECT):
        parser.error("--uninstall goes with --purge and --dry-run only")
    return asked


def _install(machine: Machine, asked: argparse.Namespace) -> None:
    origin = Origin(asked.origin, [extra for extra in asked.extras.split(",") if extra])
    before = versions.current()
    if before is None and asked.upgrade:
        raise Failed("edgeq isn't installed here; without --upgrade, this script installs it")
    _look_at(machine)
    upgrade.recover(machine)
    before = versions.current()
    after = origin.version
    if before not in (None, after) and not asked.upgrade:
        raise Failed(f"{before.name} is installed, and this is {after.name}; to take it: scripts/install --upgrade")
    service.prepare(machine)
    origin.build(machine)
    if machine.dry_run and not after.complete:
        machine.say("would then lay out configuration, units, and the command edgeq")
        return
    service.configure(machine, after, before, login=asked.mosquitto)
    if before in (None, after):
        versions.switch(machine, after)
        service.arrange(machine, after)
        versions.forget(machine, after, _previous(after))
    else:
        upgrade.upgrade(machine, before, after)
    if asked.mosquitto:
        broker.ensure_mosquitto(machine, after)
    if not machine.dry_run:
        _say_what_next(machine, after, before, asked)


def _previous(present: Version) -> Version | None:
    """The newest complete version besides the present one: that from which it was upgraded."""
    others = [Version(folder.name) for folder in present.folder.parent.iterdir() if folder.name != present.name]
    others = [version for version in others if version.complete]
    return max(others, key=lambda version: version.folder.stat().st_mtime, default=None)


def _say_what_next(machine: Machine, after: Version, before: Version | None, asked: argparse.Namespace) -> None:
    if asked.mosquitto and "secrets/mqtt-password" not in service.FILE.read_text(errors="replace"):
        machine.say(f"for {service.FILE}, below mqtt: username: edgeq, password_file: secrets/mqtt-password")
    if before == after:
        machine.say(f"{after.name} is installed")
        return
    machine.say(f"{after.name} is installed" + (f" in the place of {before.name}" if before else ""))
    if "edgeq.service" not in service.running(machine):
        machine.say(f"next: describe your topics in {service.FILE}, look at it with `edgeq check`, and start it with")
        machine.say("      systemctl enable --now edgeq")


def _look_at(machine: Machine) -> None:
    """Say what this machine lacks, though edgeq can be installed."""
    release = Path("/etc/os-release")
    fields = (
        dict(line.split("=", 1) for line in release.read_text().splitlines() if "=" in line) if release.exists() else {}
    )
    family = {word for key in ("ID", "ID_LIKE") for word in fields.get(key, "").strip('"').split()}
    if not family & _DEBIAN_LIKE:
        machine.say("this is neither Debian nor Raspberry Pi OS; what is missing has to be installed by hand")
    if not machine.has_systemd:
        machine.say("systemd doesn't run here: units are laid out, and nothing is started")
    controllers = [line.split() for line in Path("/proc/cgroups").read_text().splitlines()]
    if ["memory", "0"] in [[line[0], line[-1]] for line in controllers]:
        machine.say(
            "the kernel limits nobody's memory, so MemoryMax= of the units does nothing. On a Raspberry Pi, add "
            "`cgroup_enable=memory` to the line in /boot/firmware/cmdline.txt and reboot"
        )


def _uninstall(machine: Machine, asked: argparse.Namespace) -> None:
    units = sorted({*service.running(machine), *service.enabled(machine)})
    if units:
        machine.systemctl("disable", "--now", "--quiet", *units)
    service.disarrange(machine)
    machine.remove(HOME)
    if not asked.purge:
        machine.say(
            f"edgeq is removed; {service.CONFIGURATION}, {service.DATA} and the user {service.USER} stay. To remove "
            "them, too: scripts/install --uninstall --purge"
        )
        return
    machine.remove(*sorted(Path("/etc/systemd/system").glob("edgeq*.service.d")), service.CONFIGURATION, service.DATA)
    if machine.ask("getent", "passwd", service.USER).returncode == 0:
        machine.run(f"removing the user {service.USER}", "userdel", service.USER)
    if machine.ask("getent", "group", service.USER).returncode == 0:
        machine.run(f"removing the group {service.USER}", "groupdel", service.USER)
    machine.systemctl("daemon-reload")
    machine.say("edgeq is removed with all that it had; mosquitto and its settings stay, if they are there")


if __name__ == "__main__":
    sys.exit(main())
