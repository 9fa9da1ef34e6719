"""What makes edgeq a service: its user and folders, its configuration, its units, and how it is called."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import Failed, Machine
from versions import HOME, Version

USER = "edgeq"
CONFIGURATION = Path("/etc/edgeq")
FILE = CONFIGURATION / "edgeq.yaml"
SECRETS = CONFIGURATION / "secrets"
DATA = Path("/var/lib/edgeq")
UNITS = Path("/usr/local/lib/systemd/system")
COMMAND = Path("/usr/local/bin/edgeq")
COMPLETIONS = {
    "bash": Path("/usr/local/share/bash-completion/completions/edgeq"),
    "zsh": Path("/usr/local/share/zsh/site-functions/_edgeq"),
    "fish": Path("/usr/local/share/fish/vendor_completions.d/edgeq.fish"),
}
_OWN = Path("/etc/systemd/system")
_OURS = ("edgeq.service", "edgeq-worker@*.service")
_DATABASE = ("#url: edgeq.db", f"url: sqlite:///{DATA}/edgeq.db")
_LOGIN = (
    ("#username: edgeq", "username: edgeq"),
    ("#password_file: mqtt-password", "password_file: secrets/mqtt-password"),
)


def prepare(machine: Machine) -> None:
    """Have the user, the group and the folders."""
    if machine.ask("getent", "group", USER).returncode != 0:
        machine.run(f"making the group {USER}", "groupadd", "--system", USER)
    if machine.ask("getent", "passwd", USER).returncode != 0:
        machine.run(
            f"making the user {USER}",
            *("useradd", "--system", "--gid", USER, "--home-dir", DATA, "--no-create-home"),
            *("--shell", "/usr/sbin/nologin", USER),
        )
    machine.folder(CONFIGURATION)
    machine.folder(SECRETS, 0o700)
    machine.folder(DATA, 0o750, USER)


def configure(machine: Machine, version: Version, before: Version | None, *, login: bool) -> None:
    """Have a configuration. One that is there is never changed; another sample than before is laid beside it."""
    sample = _sample(version, login=login)
    new = FILE.with_name("edgeq.yaml.new")
    if not FILE.exists():
        machine.write(FILE, sample)
        return
    known = FILE.read_text(errors="replace") == sample or (before and _sample(before, login=login) == sample)
    if not known and machine.write(new, sample):
        machine.say(f"{FILE} stays as it is; what this version may be told stands in {new}")


def arrange(machine: Machine, version: Version) -> None:
    """Have the units of that version, the command, and the completions, and tell systemd of what changed."""
    changed = [
        machine.write(UNITS / unit.name, unit.read_text()) for unit in sorted((version.share / "systemd").iterdir())
    ]
    if any(changed):
        machine.systemctl("daemon-reload")
    for name in ("edgeq.service", "edgeq-worker@.service"):
        if (_OWN / name).is_file():
            machine.say(
                f"{_OWN / name} hides the unit of this version; remove it, and use `systemctl edit` for changes"
            )
    machine.link(COMMAND, str(HOME / "bin" / "edgeq"))
    for shell, path in COMPLETIONS.items():
        made = machine.ask(version.edgeq, "completion", shell)
        if made.returncode == 0:
            machine.write(path, made.stdout)


def disarrange(machine: Machine) -> None:
    """Have neither units nor commands."""
    machine.remove(*sorted(UNITS.glob("edgeq*.service")), COMMAND, *COMPLETIONS.values())
    machine.systemctl("daemon-reload")


def running(machine: Machine) -> list[str]:
    """The units of edgeq that run or should, edgeq.service first."""
    if not machine.has_systemd:
        return []
    states = "--state=active,activating,reloading,failed"
    listed = machine.ask("systemctl", "list-units", "--all", "--plain", "--no-legend", states, *_OURS).stdout
    return sorted({line.split()[0] for line in listed.splitlines()}, key=lambda unit: (unit != "edgeq.service", unit))


def enabled(machine: Machine) -> list[str]:
    """The units of edgeq that start at boot."""
    listed = machine.ask("systemctl", "list-unit-files", "--plain", "--no-legend", "--state=enabled", *_OURS).stdout
    return [line.split()[0] for line in listed.splitlines()]


def start(machine: Machine, units: list[str]) -> None:
    """Start them, and return when they are ready. Raises Failed when one doesn't get ready."""
    if units:
        machine.systemctl("reset-failed", *units)
    for unit in units:
        machine.systemctl("start", unit)


def must_store(machine: Machine, units: list[str]) -> None:
    """Raise Failed when edgeq, which gets ready without its store, waits for that."""
    for unit in units:
        status = machine.ask("systemctl", "show", "--property=StatusText", "--value", unit).stdout.strip()
        if status.startswith("store: "):
            raise Failed(f"{unit} runs without its {status}")


def stop(machine: Machine, units: list[str]) -> None:
    """Stop them; what they have in hand is finished first."""
    if units:
        machine.systemctl("stop", *reversed(units))


def as_service(machine: Machine, version: Version, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run edgeq of that version as the service would: as its user, in its folder, with its variables and secrets."""
    shown = machine.ask("systemctl", "show", "--property=Environment", "--value", "edgeq.service").stdout
    variables = dict(pair.split("=", 1) for pair in shlex.split(shown) if "=" in pair)
    with _credentials() as credentials:
        return machine.ask(
            version.edgeq, "-c", FILE, *words,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(DATA), **variables,
                 "CREDENTIALS_DIRECTORY": credentials},
            user=USER, group=USER, extra_groups=[], cwd=DATA, umask=0o027,
        )  # fmt: skip


def checked(machine: Machine, version: Version, *words: str | Path, what: str) -> str:
    """What edgeq prints, run as the service would. Raises Failed with what it says is wrong."""
    done = as_service(machine, version, *words)
    if done.returncode != 0:
        said = "\n".join(f"    {line}" for line in (done.stderr or done.stdout).strip().splitlines()[-12:])
        raise Failed(f"{what}: `edgeq {' '.join(map(str, words))}` of {version.name} says\n{said}")
    return done.stdout


@contextmanager
def _credentials() -> Iterator[str]:
    """A folder with the secrets as the service gets them from `LoadCredential=secrets:/etc/edgeq/secrets`."""
    user = pwd.getpwnam(USER)
    with tempfile.TemporaryDirectory(prefix="edgeq-", dir="/run") as folder:
        for path in SECRETS.iterdir():
            if path.is_file():
                copy = Path(folder) / f"{SECRETS.name}_{path.name}"
                shutil.copyfile(path, copy)
                os.chown(copy, user.pw_uid, user.pw_gid)
                copy.chmod(0o400)
        os.chown(folder, user.pw_uid, user.pw_gid)
        yield folder


def _sample(version: Version, *, login: bool) -> str:
    """The commented configuration of that version, with the database where the unit lets it be written."""
    text = (version.share / "config" / "edgeq.yaml").read_text()
    for old, new in (_DATABASE, *(_LOGIN if login else ())):
        if f"\n  {old}\n" not in text:
            raise Failed(f"config/edgeq.yaml has no line `{old}`: this project's folder isn't whole")
        text = text.replace(f"\n  {old}\n", f"\n  {new}\n", 1)
    return text
