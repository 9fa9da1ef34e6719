"""Python that isn't edgeq's own, imported because the configuration names it: the user's, and other packages'."""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Iterable
from types import ModuleType
from typing import Any, TypeVar

from .config.suggest import did_you_mean

T = TypeVar("T")

_OWN = os.path.join(os.path.dirname(__file__), "")


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


def load_class(reference: str, base: type[T]) -> type[T]:
    """The class made from `base` that `package.module:name` names. Raises ValueError."""
    found = load_name(reference)
    if not isinstance(found, type) or not issubclass(found, base) or found is base:
        raise ValueError(f"{reference} is not a class made from {base.__name__}")
    return found


def plugged_in(kind: str, base: type[T], group: str, built_in: Iterable[str]) -> type[T]:
    """The class made from `base` that an installed package brings as `kind`, by the entry-point group `group`.

    Raises ValueError; for a kind that nobody brings with the nearest of what there is, `built_in` included.
    """
    from importlib.metadata import entry_points  # its memory is paid only where it is needed

    known = {entry.name: entry.value for entry in entry_points(group=group)}
    if kind not in known:
        raise ValueError(f"there is no such kind: {kind!r}; {did_you_mean(kind, [*built_in, *known])}")
    return load_class(known[kind], base)


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f" at {error.filename}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<frozen", _OWN)) and frame.filename != importlib.__file__:
            return f" at {os.path.normpath(frame.filename)}:{frame.lineno}"
    return ""
