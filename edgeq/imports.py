"""The user's own Python, imported because the configuration names it."""

from __future__ import annotations

import importlib
import traceback
from types import ModuleType
from typing import Any

from .config.suggest import did_you_mean


def load_module(name: str) -> ModuleType:
    """The module called `name`. Raises ValueError with the reason and, if the module is to blame, the line in it."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"there is no module {name!r} (looked in app.path and where Python looks)") from None
        raise ValueError(f"importing {name} failed{_place(error)}: {type(error).__name__}: {error}") from None


def load_name(reference: str) -> Any:
    """What `package.module:name` names; `name` may have dots in it. Raises ValueError."""
    module_name, colon, path = reference.partition(":")
    if not colon or not module_name or not path:
        raise ValueError(f"{reference!r} must be written package.module:name")
    target: Any = load_module(module_name)
    for name in path.split("."):
        if not hasattr(target, name):
            public = [each for each in vars(target) if not each.startswith("_")]
            hint = did_you_mean(name, public)
            raise ValueError(f"{module_name} has no {path!r}" + (f"; {hint}" if hint.startswith("did") else ""))
        target = getattr(target, name)
    return target


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f" at {error.filename}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith("<frozen") and frame.filename not in (__file__, importlib.__file__):
            return f" at {frame.filename}:{frame.lineno}"
    return ""
