"""mosquitto on this machine, for edgeq: its settings, who may do what, and a password that nobody needs to know."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from pathlib import Path

from machine import Failed, Machine
from service import SECRETS, USER
from versions import Version

_FOLDER = Path("/etc/mosquitto")
_SETTINGS = _FOLDER / "conf.d" / "edgeq.conf"
_RIGHTS = _FOLDER / "edgeq.acl"
_PASSWORDS = _FOLDER / "edgeq.passwd"
SECRET = SECRETS / "mqtt-password"


def ensure_mosquitto(machine: Machine, version: Version) -> None:
    """Have mosquitto run with the settings that edgeq's guarantees need. What an operator has changed stays.

    Raises Failed when it doesn't start with them; then it runs without them, as before.
    """
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is None:
        machine.apt("mosquitto", "mosquitto-clients")
    changed = _ensure_password(machine)
    samples = version.share / "config" / "mosquitto"
    made = []
    for path in (_RIGHTS, _SETTINGS):
        sample = (samples / path.name).read_text()
        if not path.exists():
            machine.write(path, sample, 0o640, "mosquitto")
            made.append(path)
        elif path.read_text(errors="replace") != sample:
            machine.say(f"{path} stays as it is; it isn't the sample of this version: {samples / path.name}")
    if machine.has_systemd and (made or changed):
        _restart(machine, made)


def _ensure_password(machine: Machine) -> bool:
    """Have a password in both places; whether it is a new one. An earlier one stays where both have it."""
    lines = _PASSWORDS.read_text().splitlines() if _PASSWORDS.exists() else []
    if SECRET.exists() and any(line.startswith(f"{USER}:") for line in lines):
        return False
    password = SECRET.read_text().strip() if SECRET.exists() else secrets.token_urlsafe(24)
    machine.write(SECRET, f"{password}\n", 0o600)
    others = [line for line in lines if not line.startswith(f"{USER}:")]
    machine.do(f"giving {USER} a password at mosquitto", lambda: _allow(machine, password, others))
    return True


def _allow(machine: Machine, password: str, others: list[str]) -> None:
    """Put the password, hashed by mosquitto's own tool, beside those of others."""
    with tempfile.TemporaryDirectory(prefix="edgeq-", dir="/run") as folder:
        scratch = Path(folder) / "passwd"
        scratch.touch(mode=0o600)
        scratch.write_text(f"{USER}:{password}\n")
        machine.output("hashing the password", "mosquitto_passwd", "-U", scratch)
        machine.write(_PASSWORDS, "\n".join([*others, scratch.read_text().strip(), ""]), 0o640, "mosquitto")


def _restart(machine: Machine, made: list[Path]) -> None:
    try:
        machine.systemctl("enable", "--quiet", "mosquitto.service")
        machine.systemctl("restart", "mosquitto.service")
    except Failed as error:
        machine.remove(*made)
        machine.ask("systemctl", "restart", "mosquitto.service")
        raise Failed(
            f"{error}\nmosquitto doesn't start with {_SETTINGS}, most likely because another file of its configuration "
            "says something else (`journalctl -u mosquitto`). It was taken away again. Put the two together by hand, "
            "then run this again without --mosquitto"
        ) from None
