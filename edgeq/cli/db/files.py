"""What the commands of `edgeq db` that deal with a database's file share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ...config.checks import is_postgres, sqlite_path
from ...config.schema import LoadedConfig
from ...errors import EdgeqError
from ...store.opening import place
from ..progress import progress

Watch = Callable[[str, int, int], None]


def database_file(loaded: LoadedConfig, *, instead: str) -> str:
    """The path of the SQLite file. Raises EdgeqError for a store on a server, with what to do `instead`."""
    url = loaded.config.store.url
    if is_postgres(url):
        raise EdgeqError(f"the store is on a server, {place(url)}", hint=instead)
    return sqlite_path(url)


@contextmanager
def watched() -> Iterator[Watch]:
    """Yields what shows on a terminal how far work is, a bar for each thing that is done."""
    with ExitStack() as stack:
        shown, before = "", 0
        advance = None

        def watch(doing: str, done: int, total: int) -> None:
            nonlocal shown, before, advance
            if not doing:
                return
            if doing != shown:
                stack.close()
                advance = stack.enter_context(progress(doing, total))
                shown, before = doing, 0
            if advance is not None:
                advance(done - before)
            before = done

        yield watch
