"""Small programs for tests of what runs programs."""

from __future__ import annotations

from pathlib import Path


def script(folder: Path, text: str, name: str = "program") -> Path:
    """A shell script that does `text`."""
    made = folder / name
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o755)
    return made
