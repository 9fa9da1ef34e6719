"""`edgeq new`: a small app to begin with."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path

import click

from ..errors import EdgeqError
from .common import say

_FILES = {
    "edgeq.yaml.txt": "edgeq.yaml",
    "app.py.txt": "app/NAME.py",
    "test_app.py.txt": "tests/test_NAME.py",
    "README.md.txt": "README.md",
}


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def new(folder: Path) -> None:
    """Write a small app into DIR: a controller, a job, a processor, a contract, and their tests."""
    name = re.sub(r"\W", "_", folder.resolve().name.lower(), flags=re.ASCII).strip("_")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise click.UsageError(f"{folder.name!r} can't be the name of an app: begin it with a letter")
    if folder.exists() and any(folder.iterdir()):
        raise EdgeqError(f"{folder} is not empty", hint="name a folder that isn't there yet")
    for source, target in _FILES.items():
        text = files("edgeq").joinpath("templates", source).read_text()
        path = folder / target.replace("NAME", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("NAME", name))
        say(f"wrote {path}")
    say(f"\nnext: cd {folder} && edgeq check && edgeq run")
