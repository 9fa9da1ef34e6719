"""What a copy needs of a database. Every method raises StoreError."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from ..store import Row
from .tables import Copied, Key


class Side(ABC):
    """A database from which, or to which, a store is copied. `place` says where it is, for people.

    Rows are in the order of their keys, which is the same in every database: numbers by size, texts byte by byte.
    """

    place: str

    @abstractmethod
    def open(self, *, target: bool) -> None:
        """Have the database alone until `close`: nobody else writes to it meanwhile. The tables of a target are made.

        Raises StoreError when somebody uses it, StoreMissing when there is no store to copy.
        """

    @abstractmethod
    def close(self) -> None:
        """Let others have it. Safe to call when it isn't open."""

    @abstractmethod
    def count(self, table: Copied) -> int:
        """How many rows there are."""

    @abstractmethod
    def rows(self, table: Copied, after: Key | None = None) -> Iterator[Row]:
        """All rows, or those after that key, with little of them in memory. To be read to the end before anything else
        is asked."""

    @abstractmethod
    def last_key(self, table: Copied) -> Key | None:
        """The greatest key; None when there are no rows."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """What is done in the block is one commit, on disk at its end; or nothing, if it raises."""

    @abstractmethod
    def add(self, table: Copied, rows: Sequence[Row]) -> None:
        """Add rows as they are, with their numbers."""

    @abstractmethod
    def numbers(self) -> dict[str, int]:
        """For each table whose rows are numbered the greatest number that was ever used, 0 for none."""

    @abstractmethod
    def set_numbers(self, numbers: Mapping[str, int]) -> None:
        """Go on after these."""

    @abstractmethod
    def meta(self) -> dict[str, str]:
        """What `meta` says."""

    @abstractmethod
    def set_meta(self, values: Mapping[str, str]) -> None:
        """Have `meta` say this, and nothing else."""
