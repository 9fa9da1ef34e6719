"""Wheels of edgeq as it stands here, of other versions made from it, and of all that it needs, for a machine without a
network."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .container import Unfit, alone

ROOT = Path(__file__).parents[2]
_PYTHON = "3.11"  # that of Debian 12


def build(folder: Path, version: str, change: Callable[[Path], None] = lambda source: None) -> Path:
    """A folder with the wheel of `version` and what it needs. `change` is done to the sources first. Raises Unfit."""
    source = folder / f"source-{version}"
    shutil.copytree(ROOT / "edgeq", source / "edgeq", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    project = (ROOT / "pyproject.toml").read_text()
    (source / "pyproject.toml").write_text(re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', project, count=1))
    change(source)
    wheels = folder / version
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source))
    for path in _needs(next(wheels.iterdir())).iterdir():
        shutil.copy(path, wheels)
    return wheels


def _needs(wheel: Path) -> Path:
    """The folder with all that it needs, fetched once for each set of requirements."""
    key = hashlib.sha256((ROOT / "constraints.txt").read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    with alone(f"wheels-{key[:12]}") as folder:
        if not folder.is_dir():
            scratch = folder.with_suffix(".new")
            shutil.rmtree(scratch, ignore_errors=True)
            _pip("download", "--only-binary", ":all:", "--python-version", _PYTHON, "--dest", str(scratch),
                 "--constraint", str(ROOT / "constraints.txt"), str(wheel))  # fmt: skip
            (scratch / wheel.name).unlink()
            scratch.rename(folder)
    return folder


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words[:1], "--quiet", *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 and "from versions: none" in done.stderr:
        raise Unfit(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
