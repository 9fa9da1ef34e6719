"""The configuration in a form that may be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .origin import child, show
from .schema import LoadedConfig
from .section import Section


def redacted(loaded: LoadedConfig) -> dict[str, Any]:
    """The configuration as plain values, with defaults, under the keys of the file, without secrets.

    `<hidden>` stands for what is called like a secret, came from a file, or is the user and password of a URL. What was
    filled in from the environment stands as it does in the file: `${NAME}`. Durations and sizes are text: `7d`.
    """
    plain: dict[str, Any] = _plain(loaded.config, "", loaded.shown)
    return plain


def _plain(value: Any, path: str, shown: Mapping[str, str]) -> Any:
    if isinstance(value, Section):
        return _plain(value.data, path, shown)
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        value = {entry.encode_name: getattr(value, entry.name) for entry in fields}
    if isinstance(value, Mapping):
        return {key: _plain(item, child(path, key), shown) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{path}[{index}]", shown) for index, item in enumerate(value)]
    visible = show(value, path, shown)
    return visible if visible is None or type(visible) in (str, bool, int, float) else str(visible)
