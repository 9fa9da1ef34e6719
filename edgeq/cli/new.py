"""`edgeq new`: a small app to begin with."""

from __future__ import annotations

import keyword
import re
import shlex
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import click

from ..errors import EdgeqError
from .common import configured
from .printing import say

_FILES = {
    "edgeq.yaml.txt": "edgeq.yaml",
    "app.py.txt": "app/NAME.py",
    "test_app.py.txt": "tests/test_NAME.py",
    "contracts.yaml.txt": "tests/contracts.yaml",
    "pytest.ini.txt": "pytest.ini",
    "README.md.txt": "README.md",
}


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@configured
def new(folder: Path) -> None:
    """Write a small app into DIR.

    A controller, a job, a processor, a contract, and their tests.
    """
    name = _module_name(folder)
    written = []
    try:
        if folder.exists() and any(folder.iterdir()):
            raise EdgeqError(f"{folder} is not empty", hint="name a folder that isn't there yet")
        for source, target in _FILES.items():
            text = files("edgeq").joinpath("templates", source).read_text()
            path = folder / target.replace("NAME", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("NAME", name))
            written.append(path)
    except OSError as error:
        raise EdgeqError(f"can't write into {folder}: {error.strerror}") from None
    for path in written:
        say(f"wrote {path}")
    say(f"\nnext: cd {shlex.quote(str(folder))} && edgeq check && edgeq run")


def _module_name(folder: Path) -> str:
    name = re.sub(r"\W", "_", folder.resolve().name.lower(), flags=re.ASCII).strip("_")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise click.UsageError(f"{folder.name!r} can't be the name of an app: begin it with a letter")
    # A module of this name would hide the one that is there already, from edgeq too.
    return f"{name}_app" if find_spec(name) else name
