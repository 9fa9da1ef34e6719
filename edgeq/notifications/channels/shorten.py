"""Texts for targets that take no long ones."""

from __future__ import annotations

_LAST_BYTES_MAX = 200


def shortened(text: str, bytes_max: int) -> str:
    """`text`, or so much of it that it fits into `bytes_max` bytes (at least 256), which says then that it was cut.

    A short last paragraph stays: how late a notification is stands there.
    """
    if len(text.encode()) <= bytes_max:
        return text
    _, paragraph, last = text.rpartition("\n\n")
    end = f"\n… (cut; {len(text)} characters in all)"
    if paragraph and len(last.encode()) <= _LAST_BYTES_MAX - len(end.encode()):
        end += paragraph + last
    return text.encode()[: bytes_max - len(end.encode())].decode(errors="ignore") + end
