"""The sample of a configuration, `config/edgeq.yaml`, with every key of it in use."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / "config"
SAMPLE = FOLDER / "edgeq.yaml"
_KEY_LINE = re.compile(r"(?m)^( *)#(?=[^ \n#])")

_JOBS = """\
from edgeq import Job

class Report(Job):
    kind: str

    def handle(self, ctx): ...

def connect(): ...
"""
_SECRETS = {
    "mqtt-password": "x\n",
    "smtp-password": "y\n",
    "apprise-url": "tgram://z/1\n",
    "webhook-secret": "z" * 32,
    "ntfy-token": "tk_z\n",
    "site-token": "t\n",
    "site-password": "p\n",
    "web-token": "w" * 32,
}


def uncommented_in(folder: Path) -> Path:
    """The file, and in `folder` all that it names: an app, which must be on sys.path, and secrets."""
    (folder / "greenhouse").mkdir()
    (folder / "greenhouse" / "jobs.py").write_text(_JOBS)
    for name, secret in _SECRETS.items():
        (folder / name).write_text(secret)
    path = folder / "edgeq.yaml"
    path.write_text(_KEY_LINE.sub(r"\1", SAMPLE.read_text()))
    return path
