"""Libraries without what they import for uses that aren't ours: memory that a gateway shouldn't pay."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import cast


@contextlib.contextmanager
def without(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """While this lasts, who imports one of `modules`, by name, gets what stands in for it, or with None an ImportError,
    as if it weren't installed. Afterwards it is imported as ever. One that was imported before stays."""
    absent = {name: stand_in for name, stand_in in modules.items() if name not in sys.modules}
    sys.modules.update(cast("dict[str, ModuleType]", absent))
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
