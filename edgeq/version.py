"""Which edgeq this is. The library that tells of packages would cost a gateway 5 MiB, so only names are looked at."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache

_PREFIX, _SUFFIX = "edgeq-", ".dist-info"


@cache
def edgeq_version() -> str:
    """Such as `1.2.0`; `unknown` where edgeq isn't installed, as when it runs out of its sources."""
    return next(_found(), "unknown")


def _found() -> Iterator[str]:
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
                yield name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
