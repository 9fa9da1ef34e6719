"""A gateway in a container, with edgeq installed as the README says, and a sensor that counts what it was promised."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from .container import Container, Unfit, debian
from .readme import followed, section, steps
from .wheels import ROOT, build

SECTION = followed(section("## Install, upgrade, uninstall"))
_PROJECT = Path("root/edgeq")
_COUNTED = Path("var/lib/counter")
_COUNTER = """\
[Unit]
After=mosquitto.service

[Service]
Environment=PYTHONPATH={library}
ExecStart=/usr/bin/python3 /root/publisher.py /{counted}/acknowledged counter pw
Restart=always

[Install]
WantedBy=multi-user.target
"""
_COUNTS = 'routes:\n  - {topic: "sensors/counter/count", emit: counted}\n'


def typed(beginning: str) -> str:
    """The line of the README that begins so, as it is typed by root in a container."""
    (line,) = (line for line, _ in steps(SECTION, Path("/nonexistent")) if line.startswith(beginning))
    return line.replace("sudo ", "")


@contextmanager
def gateway_in(folder: Path) -> Iterator[Gateway]:
    """One with edgeq installed as the README says, and a sensor that counts. Skips where none can be booted; leaves
    nothing in `folder`."""
    with ExitStack() as leaving:
        leaving.callback(shutil.rmtree, folder)
        try:
            made = Gateway(folder)
            leaving.callback(made.stop)
            made.boot()
        except Unfit as error:
            pytest.skip(f"no container: {error}")
        try:
            made.begin()
            made.count()
            yield made
        except AssertionError:
            print(made.log())
            raise


class Gateway(Container):
    """One with the wheels of `version` in /root/wheels, and the project's own folder without the sources."""

    def __init__(self, folder: Path, version: str = "0.1.0") -> None:
        super().__init__(debian(), folder)
        self._wheels = folder / "wheels"
        self._changed: list[Path] = []
        self.put_wheels(version)
        for name in ("scripts", "config", "systemd"):
            shutil.copytree(ROOT / name, self.root / _PROJECT / name, ignore=shutil.ignore_patterns("__pycache__"))

    def put_wheels(self, version: str, change: Callable[[Path], None] = lambda source: None) -> None:
        """Have /root/wheels hold `version` and what it needs, made from sources that `change` is done to, if it hasn't
        been made before."""
        wheels = self._wheels / version
        if not wheels.exists():
            build(self._wheels, version, change)
        shutil.rmtree(self.root / "root/wheels", ignore_errors=True)
        shutil.copytree(wheels, self.root / "root/wheels")

    def install(self, line: str, *, check: bool = True) -> str:
        """What scripts/install says; `line` is typed in the project's folder, where there is no network."""
        done = self.run("bash", "-c", f"cd /{_PROJECT} && {line} --from /root/wheels", check=check)
        assert done.returncode in (0, 1), done.stderr
        return done.stderr

    def begin(self) -> None:
        """Follow the README from the installation to the first events."""
        for line, _ in steps(SECTION.replace("file=/", "file="), self.root):
            line = line.replace("sudo ", "")
            if line.startswith("scripts/install"):
                self.install(line)
            else:
                self.shell(line)
            if line.startswith("edgeq status"):
                break
        self.until(lambda: ("temperature.reading",) in self.rows("SELECT type FROM events"), "the first event")

    def count(self) -> None:
        """Have a sensor publish numbers from now on, also after a boot."""
        self.put("etc/edgeq/conf.d/counter.yaml", _COUNTS)
        self.put("root/publisher.py", (Path(__file__).parent / "publisher.py").read_text())
        (library,) = (self.root / "root/wheels").glob("paho_mqtt-*.whl")
        shutil.copy(library, self.root / "root")
        (self.root / _COUNTED).mkdir()
        unit = _COUNTER.format(library=f"/root/{library.name}", counted=_COUNTED)
        self.put("etc/systemd/system/counter.service", unit)
        self.shell("mosquitto_passwd -b /etc/mosquitto/edgeq.passwd counter pw; systemctl reload mosquitto")
        self.shell("systemctl reload edgeq; systemctl daemon-reload; systemctl enable --now counter")
        self.until(lambda: self.stored(), "the first number")

    def put(self, path: str, text: str) -> None:
        """Write a file below /."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def configure(self, text: str) -> None:
        """Add to the configuration, until `restore()`; edgeq isn't told."""
        self._change("etc/edgeq/conf.d/test.yaml", text)

    def edit(self, text: str) -> None:
        """Change the unit as `systemctl edit edgeq` does, until `restore()`."""
        self._change("etc/systemd/system/edgeq.service.d/test.conf", f"[Service]\n{text}\n")
        self.shell("systemctl daemon-reload")

    def _change(self, path: str, text: str) -> None:
        self.put(path, text)
        self._changed.append(self.root / path)

    def restore(self) -> None:
        """Take back what was changed, and have edgeq run as it did before."""
        if self._changed:
            for path in self._changed:
                path.unlink()
            self._changed = []
            self.shell("systemctl daemon-reload; systemctl reset-failed edgeq; systemctl restart edgeq")

    def until_connected(self) -> None:
        """Wait until edgeq runs and has its session."""

        def connected() -> bool:
            unit = self.show()
            assert unit["ActiveState"] != "failed", "edgeq has given up"
            return unit["ActiveState"] == "active" and unit.get("StatusText", "").startswith("broker: connected")

        self.until(connected, "the session")

    def show(self, unit: str = "edgeq") -> Mapping[str, str]:
        """What systemd knows of a unit."""
        shown = self.run("systemctl", "show", unit).stdout
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    def rows(self, query: str, file: str = "edgeq.db") -> list[tuple[object, ...]]:
        """Rows of a database below edgeq's folder; none as long as there is no such table."""
        path = self.root / "var/lib/edgeq" / file
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as database:
                return database.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            if re.search("no such table|unable to open|locked", str(error)):
                return []
            raise

    def promised(self) -> set[int]:
        """The numbers that the broker has acknowledged."""
        text = (self.root / _COUNTED / "acknowledged").read_text()
        return {int(line) for line in text.splitlines(keepends=True) if line.endswith("\n")}

    def stored(self) -> set[int]:
        """The numbers that edgeq has stored."""
        return {json.loads(data)["n"] for (data,) in self.rows("SELECT data FROM events WHERE type = 'counted'")}

    def nothing_is_missing(self) -> None:
        """Wait until all that was promised by now is stored; more arrives meanwhile."""
        before, promised = self.stored(), self.promised()
        self.until(lambda: promised <= self.stored(), f"{len(promised - before)} of {len(promised)} numbers")
        self.until(lambda: self.stored() - promised, "numbers that come after those")

    def log(self) -> str:
        """What edgeq and systemd have said of it since the machine was booted."""
        return self.run("journalctl", "--boot", "--no-pager", "--unit", "edgeq.service").stdout
