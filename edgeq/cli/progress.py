"""How far long work is: a bar on a terminal, nothing elsewhere.

with progress("events", total) as advance:
    for page in pages:
        ...
        advance(len(page))
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yields what is to be called with how many more are done, of `total` (None: nobody knows how many there are).

    The bar is drawn on standard error, where that is a terminal, and is gone at the end; what is printed meanwhile
    stands above it. Calling is cheap: the bar is drawn ten times a second.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda more: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Whatever goes through the bar ends up on standard error: a pipe's output must not.
    mixed = sys.stdout is not None and sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=mixed) as bar:
        shown = bar.add_task(what, total=total)
        yield lambda more: bar.advance(shown, more)
