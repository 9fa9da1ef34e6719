"""Configuration before it has types: scalars, lists and mappings, each with the place it was read from.

`merge` joins files of equal rank, where setting a key twice is a mistake; `overlay` lays settings of a higher rank
(environment, command line) over them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..errors import Problem
from .origin import Origin, child, safe
from .scalars import resolve

Fill = Callable[[str], tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as text. `plain`: unquoted, so it may mean a number. `final`: holds no references to fill in."""

    text: str
    place: str
    plain: bool = True
    final: bool = False

    @property
    def empty(self) -> bool:
        """Whether it stands for nothing (`key:`, `~`, `null`)."""
        return self.plain and not self.final and resolve(self.text) is None


@dataclass(frozen=True, slots=True)
class Seq:
    """A list."""

    place: str
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Map:
    """A mapping: for each key the place of the key, and the value."""

    place: str
    entries: dict[str, tuple[str, Node]] = field(default_factory=dict)


Node = Scalar | Seq | Map


def merge(base: Map, more: Map, path: str, problems: list[Problem]) -> None:
    """Adds `more` to `base`: lists append, mappings merge, any other key set in both is a mistake."""
    for key, (place, node) in more.entries.items():
        here = child(path, key)
        old_place, old = base.entries.get(key, ("", None))
        match old, node:
            case (None, _):
                base.entries[key] = (place, node)
            case (Map(), Map()):
                merge(old, node, here, problems)
            case (Seq(), Seq()):
                old.items.extend(node.items)
            case (Scalar(empty=True), _):
                base.entries[key] = (place, node)
            case (_, Scalar(empty=True)):
                pass
            case _:
                problems.append(Problem(place, here, f"is set already at {old_place}", "a key is set in one file only"))


def overlay(base: Map, over: Map, path: str, problems: list[Problem]) -> None:
    """Lays `over` upon `base`: its scalars replace what is there. `KEY` replaces `KEY_file` as well, and vice versa."""
    for key, (place, node) in over.entries.items():
        name = _same_name(key, base)
        here = child(path, name)
        old = base.entries.get(name, ("", None))[1]
        if isinstance(node, Map):
            if old is None or (isinstance(old, Scalar) and old.empty):
                old = Map(place)
                base.entries[name] = (place, old)
            if isinstance(old, Map):
                overlay(old, node, here, problems)
            else:
                problems.append(Problem(place, here, "isn't a mapping, so nothing below it can be set"))
            continue
        base.entries.pop(f"{name}_file", None)
        if name.endswith("_file"):
            base.entries.pop(name.removesuffix("_file"), None)
        base.entries[name] = (place, node)


def flatten(root: Map, fill: Fill, problems: list[Problem], wrong: object) -> tuple[object, Origin]:
    """The plain values of the tree with references filled in by `fill`, and what is known of them.

    `fill` gives a text with its references filled in, and whether anything of it came from the environment; it raises
    ValueError for a text that it can't fill in, and `wrong` then stands in the text's place.
    """
    origin = Origin()

    def plain(node: Node, place: str, path: str) -> object:
        origin.places[path] = place
        if isinstance(node, Map):
            return {key: plain(item, at, child(path, key)) for key, (at, item) in node.entries.items()}
        if isinstance(node, Seq):
            return [plain(item, item.place, f"{path}[{index}]") for index, item in enumerate(node.items)]
        text, foreign = node.text, False
        if not node.final:
            try:
                text, foreign = fill(node.text)
            except ValueError as error:
                problems.append(Problem(place, path, str(error)))
                return wrong
        if foreign:
            origin.shown[path] = safe(node.text)
        value = resolve(text) if node.plain else text
        if value is None and (node.final or text != node.text):
            return text
        if not isinstance(value, str):
            origin.written[path] = text
        return value

    return plain(root, root.place, ""), origin


def copy(node: Node) -> Node:
    """The same tree once more, sharing nothing that may change."""
    if isinstance(node, Map):
        return replace(node, entries={key: (place, copy(item)) for key, (place, item) in node.entries.items()})
    if isinstance(node, Seq):
        return replace(node, items=[copy(item) for item in node.items])
    return node


def _same_name(key: str, base: Map) -> str:
    """The key of `base` that `key` names; the environment can't write capitals or `-`."""
    if key in base.entries:
        return key
    wanted = key.lower().replace("-", "_")
    return next((name for name in base.entries if name.lower().replace("-", "_") == wanted), key)
