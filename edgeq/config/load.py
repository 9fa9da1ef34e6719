"""From YAML files and the environment to a `LoadedConfig`, or to every mistake in them at once.

A plain scalar keeps its text until its type is known, so `on`, `no`, `1.10` and `3.1.1` are text where text is
wanted. Anchors, aliases and merge keys (`<<`) work; tags, second documents and keys set twice are mistakes. A file is
bounded in size (`files.FILE_BYTES_MAX`), and the whole in values (after aliases) and depth.

Precedence: `overrides` (command line) > `EDGEQ_…` variables > files. See `environment` for these and for `${NAME}`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml

from ..errors import ConfigError, Problem
from . import environment, files
from .checks import sqlite_path
from .convert import FAILED, Converter
from .files import find
from .origin import child
from .redact import redacted
from .relations import check_channels, completed
from .schema import Config, LoadedConfig
from .tree import Map, Node, Scalar, Seq, copy, flatten, merge, overlay

__all__ = ["LEVELS_MAX", "NODES_MAX", "find", "load", "load_file", "load_to_plan", "redacted", "sqlite_path"]

T = TypeVar("T")

NODES_MAX = 100_000
LEVELS_MAX = 64

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT_TAGS = {"!", "tag:yaml.org,2002:str"}
_TAGS = {None, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", *_TEXT_TAGS}
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def load(
    path: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, str] = MappingProxyType({}),
) -> LoadedConfig:
    """The configuration in the file at `path` (see `find`), `conf.d` beside it, `environ` and `overrides`.

    `overrides` maps dotted paths (`mqtt.url`) to text. Raises ConfigError with every problem found.
    """
    loaded = load_to_plan(path, environ=environ, overrides=overrides)
    if loaded.problems:
        raise ConfigError(loaded.problems)
    return loaded


def load_to_plan(
    path: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, str] = MappingProxyType({}),
) -> LoadedConfig:
    """The same for `make_plan`, which finds the mistakes that can't be seen here and raises all of them together.

    Those found here stand in `problems`, and each top-level key with one of them has its default; of a list only the
    items that are wrong are left out. Raises ConfigError when no plan can be made of the rest.
    """
    main = find(path, environ)
    problems: list[Problem] = []
    root, names = _read_files(main, problems)
    if root is None:
        raise ConfigError(files.in_order(problems, names))
    overlay(root, environment.from_environment(environ, problems), "", problems)
    overlay(root, environment.from_command_line(overrides, problems), "", problems)
    data, origin = flatten(root, environment.filler(environ), problems, FAILED)
    folder = Path(os.path.abspath(main)).parent
    secret_files: list[str] = []
    read_secret = files.secret_reader(folder, environ, secret_files)
    converter = Converter("", origin, problems, read_secret)
    config = converter.convert(Config, data, "")
    check_channels(data, origin.places, problems)
    if config is FAILED:
        config = converter.what_is_right(Config, data)
    problems = files.in_order(problems, names)
    if any(f"{problem.path}.".startswith("app.") for problem in problems):  # nothing of one's own would be found
        raise ConfigError(problems)
    return LoadedConfig(
        config=completed(config, str(folder)), files=names, folder=str(folder), places=origin.places,
        shown=origin.shown, secret_files=secret_files, problems=problems,
    )  # fmt: skip


def load_file(
    path: Path, record: type[T], *, ignore: Collection[str] = (), environ: Mapping[str, str] = os.environ
) -> tuple[T | None, list[Problem]]:
    """One file by itself as a `record`, all of whose keys have defaults, and every mistake in it; keys with a mistake
    in them have their defaults. None when the file can't be read at all.

    There is no `conf.d` and no variable `EDGEQ_…`; `${NAME}` is filled in, and keys in `ignore` are passed over.
    """
    problems: list[Problem] = []
    root = _Reader(problems).read(path)
    if root is None:
        return None, problems
    data, origin = flatten(root, environment.filler(environ), problems, FAILED)
    converter = Converter("", origin, problems, files.secret_reader(path.parent, environ))
    value = converter.record(record, data, "", ignore)
    return (converter.what_is_right(record, data) if value is FAILED else value), problems


def _read_files(main: Path, problems: list[Problem]) -> tuple[Map | None, list[str]]:
    """The files' trees as one, and the files' names. No tree when one of them can't be read at all."""
    paths = [main]
    try:
        paths += files.beside(main)
    except ValueError as error:
        problems.append(Problem(environment.printable(str(main.parent / "conf.d")), "", str(error)))
    reader = _Reader(problems)
    trees = [reader.read(path) for path in paths]
    names = [str(path) for path in paths]
    root = trees[0]
    for tree in trees[1:]:
        if root is not None and tree is not None:
            merge(root, tree, "", problems)
    return (None if None in trees else root), names


class _Reader:
    """Reads files to trees; counts values over all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.nodes = 0

    def read(self, path: Path) -> Map | None:
        """The tree of a file; None, with a problem noted, when it has none."""
        label = environment.printable(str(path))
        try:
            text = files.read(path)
        except ValueError as error:
            self.problems.append(Problem(label, "", str(error)))
            return None
        bad = _UNPRINTABLE.search(text)
        if bad:
            place = f"{label}:{text.count(chr(10), 0, bad.start()) + 1}"
            self.problems.append(Problem(place, "", f"the character U+{ord(bad[0]):04X} can't stand in YAML"))
            return None
        try:
            return _Builder(self, label).build(text)
        except _Unreadable as error:
            self.problems.append(error.problem)
        except yaml.MarkedYAMLError as error:
            self.problems.append(_syntax(error, text, label))
        except (yaml.YAMLError, ValueError, ArithmeticError, LookupError) as error:
            self.problems.append(Problem(f"{label}:1", "", f"isn't YAML: {error}"))
        return None


class _Unreadable(Exception):
    def __init__(self, place: str, message: str, hint: str = "") -> None:
        self.problem = Problem(place, "", message, hint)


class _Open:
    """A list or mapping whose end has not been seen yet."""

    def __init__(self, node: Seq | Map, path: str, anchor: str | None) -> None:
        self.node = node
        self.path = path
        self.anchor = anchor
        self.key: tuple[str, str] | None = None  # name and place; the value comes next
        self.merges: list[Map] = []


class _Builder:
    """Makes one file's tree out of YAML's events, without recursion: a file may nest as deep as it likes."""

    def __init__(self, reader: _Reader, label: str) -> None:
        self.reader = reader
        self.label = label
        self.anchors: dict[str, Node] = {}
        self.open: list[_Open] = []
        self.root: Node | None = None

    def build(self, text: str) -> Map:
        documents = 0
        for event in yaml.parse(text, Loader=_LOADER):
            place = f"{self.label}:{event.start_mark.line + 1 if event.start_mark else 1}"
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Unreadable(place, "a second document begins here (---): put it all in one")
            elif isinstance(event, yaml.CollectionEndEvent):
                self._close()
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in self.anchors:
                    hint = "a text that begins with * needs quotes"
                    raise _Unreadable(place, "this alias (*…) names no anchor that ends before it", hint)
                self._add(self._again(self.anchors[event.anchor]), place, None)
            elif isinstance(event, yaml.NodeEvent):
                self._begin(event, place)
        if self.root is None or (isinstance(self.root, Scalar) and self.root.empty):
            return Map(f"{self.label}:1")
        if not isinstance(self.root, Map):
            raise _Unreadable(self.root.place, "must be a mapping at the top, such as mqtt: {url: …}")
        return self.root

    def _begin(self, event: Any, place: str) -> None:
        if event.tag not in _TAGS:
            hint = "a text that begins with ! needs quotes"
            self.reader.problems.append(Problem(place, self._path(), "tags (!…) aren't supported", hint))
        self._count(place, 1)
        if isinstance(event, yaml.ScalarEvent):
            try:
                event.value.encode()
            except UnicodeEncodeError:
                raise _Unreadable(place, "half of a surrogate pair can't stand in a text") from None
            plain = event.implicit[0] and event.tag not in _TEXT_TAGS
            self._add(Scalar(event.value, place, plain), place, event.anchor)
            return
        if len(self.open) >= LEVELS_MAX:
            raise _Unreadable(place, f"lists and mappings are nested more than {LEVELS_MAX} deep")
        node: Seq | Map = Seq(place) if isinstance(event, yaml.SequenceStartEvent) else Map(place)
        self.open.append(_Open(node, self._path(), event.anchor))

    def _close(self) -> None:
        done = self.open.pop()
        if isinstance(done.node, Map):
            for merged in done.merges:
                for key, entry in merged.entries.items():
                    done.node.entries.setdefault(key, entry)
        self._add(done.node, done.node.place, done.anchor)

    def _add(self, node: Node, place: str, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = node
        if not self.open:
            self.root = node
            return
        inside = self.open[-1]
        if isinstance(inside.node, Seq):
            inside.node.items.append(node)
        elif inside.key is None:
            inside.key = self._key(node, place)
        else:
            name, key_place = inside.key
            inside.key = None
            if name == "<<":
                inside.merges += self._merged(node, key_place)
            elif name in inside.node.entries:
                earlier = inside.node.entries[name][0]
                self.reader.problems.append(
                    Problem(key_place, child(inside.path, name), f"is set already at {earlier}")
                )
            else:
                inside.node.entries[name] = (key_place, node)

    def _key(self, node: Node, place: str) -> tuple[str, str]:
        if not isinstance(node, Scalar):
            hint = "a value that begins with { or [ needs quotes"
            raise _Unreadable(place, "a list or mapping can't be a key", hint)
        if node.plain and not node.text:
            raise _Unreadable(place, "a key is missing before the colon")
        return node.text, place

    def _merged(self, node: Node, place: str) -> list[Map]:
        nodes = node.items if isinstance(node, Seq) else [node]
        maps = [each for each in nodes if isinstance(each, Map)]
        if len(maps) < len(nodes):
            raise _Unreadable(place, "<< must name a mapping, such as *base, or a list of them")
        return maps

    def _again(self, node: Node) -> Node:
        size, levels = _measure(node)
        self._count(node.place, size)
        if len(self.open) + levels > LEVELS_MAX:
            raise _Unreadable(node.place, f"lists and mappings are nested more than {LEVELS_MAX} deep")
        return copy(node)

    def _count(self, place: str, nodes: int) -> None:
        self.reader.nodes += nodes
        if self.reader.nodes > NODES_MAX:
            raise _Unreadable(place, f"there are more than {NODES_MAX} values, counting what aliases repeat")

    def _path(self) -> str:
        if not self.open:
            return ""
        inside = self.open[-1]
        if isinstance(inside.node, Seq):
            return f"{inside.path}[{len(inside.node.items)}]"
        return child(inside.path, inside.key[0]) if inside.key else inside.path


def _measure(node: Node) -> tuple[int, int]:
    """How many values there are in `node`, and how deep lists and mappings stand in it."""
    if isinstance(node, Scalar):
        return 1, 0
    inner = node.items if isinstance(node, Seq) else [item for _, item in node.entries.values()]
    sizes = [_measure(item) for item in inner]
    return 1 + sum(size for size, _ in sizes), 1 + max((levels for _, levels in sizes), default=0)


def _syntax(error: yaml.MarkedYAMLError, text: str, label: str) -> Problem:
    """What YAML's parser said, with the usual causes."""
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines() or [""]
    number = min(mark.line if mark else 0, len(lines) - 1)
    message = f"isn't YAML: {error.problem or error.context or error}"
    if error.context_mark and error.context_mark.line != number:
        message += f" ({error.context}, begun in line {error.context_mark.line + 1})"
    hint = ""
    if "\t" in lines[number][: len(lines[number]) - len(lines[number].lstrip())]:
        hint = "indent with spaces, not tabs"
    elif any(sign in lines[number] for sign in "{}[]*&%@`"):
        hint = "a text that holds one of { } [ ] , & * % @ ` needs quotes"
    elif lines[number].count(": ") > 1:
        hint = 'a text that holds ": " needs quotes'
    return Problem(f"{label}:{number + 1}", "", message, hint)
