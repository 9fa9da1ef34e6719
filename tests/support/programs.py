"""Small programs for tests of what runs programs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


def of_tests(*arguments: str, **environ: str) -> dict[str, Any]:
    """For `subprocess`: Python with these arguments, which may name modules of the tests and of the project."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return {"args": [sys.executable, *arguments], "env": {**os.environ, "PYTHONPATH": path, **environ}}


def script(folder: Path, text: str, name: str = "program") -> Path:
    """A shell script that does `text`."""
    made = folder / name
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o755)
    return made
