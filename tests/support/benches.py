"""The benches as modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

BENCHES = Path(__file__).parent.parent.parent / "scripts" / "benches"


@contextmanager
def bench(name: str) -> Iterator[ModuleType]:
    """One of them. Within the block, `support` is what it is to them, and not the support of the tests."""
    ours = {key: module for key, module in sys.modules.items() if key.partition(".")[0] == "support"}
    before = set(sys.modules) - set(ours)
    for key in ours:
        del sys.modules[key]
    sys.path.insert(0, str(BENCHES))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHES))
        for key, module in list(sys.modules.items()):
            if key not in before and str(BENCHES) in str(getattr(module, "__file__", "")):
                del sys.modules[key]
        sys.modules.update(ours)
