"""Reading YAML warily: plain values, and the place of each in the file.

Refused: aliases and anchors (a few lines can grow to gigabytes), tags, duplicate keys, ``.nan`` and ``.inf``, more
than 256 KiB, more than 20 levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import yaml
from typing_extensions import override

from ..errors import Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20

Path = tuple[str | int, ...]
Place = tuple[int, int]

_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}


class Unreadable(Exception):
    """The file can not be read as YAML at all; the argument is the ``Problem``."""


@dataclass(slots=True)
class Document:
    """A YAML file as plain values. *places* tells where each value stands, *keys* where its key does.

    Values that make no sense are ``None``; they are in *unread*, and why in *problems*.
    """

    data: Any = None
    places: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[Path] = field(default_factory=set)

    def place(self, path: Path) -> Place:
        """Where the value at *path* stands, or the nearest thing around it that does."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, (1, 1))


def read(text: str) -> Document:
    """The values of *text* with their places; what is wrong with single ones stands in ``problems``.

    Raises ``Unreadable`` if there is no making sense of it.
    """
    if len(text.encode()) > MAX_BYTES:
        raise Unreadable(Problem(f"larger than {MAX_BYTES // 1024} KiB"))
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        what = error.problem or error.context or "it can not be read"
        hint = "indent with spaces" if "'\\t'" in what else None
        raise Unreadable(Problem(f"not YAML: {what}", *place, hint)) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise Unreadable(Problem(f"not YAML: {error}")) from None
    document = Document()
    if node is not None:
        document.data = _plain(loader, node, (), document)
    return document


class _Loader(yaml.SafeLoader):
    """Composes nodes, and refuses what a policy has no use for."""

    depth = 0

    @override
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"deeper than {MAX_DEPTH} levels", problem_mark=event.start_mark)
        self.depth += 1
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
            return node
        finally:
            self.depth -= 1


def _plain(loader: _Loader, node: yaml.Node, path: Path, document: Document) -> Any:
    document.places[path] = _place(node)
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        return _mapping(loader, node, path, document)
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_plain(loader, each, (*path, index), document) for index, each in enumerate(node.value)]
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value
    problem = None
    value = None
    if node.tag not in _PLAIN or not isinstance(node, yaml.ScalarNode):
        problem = "tags are not allowed"
    else:
        try:
            value = loader.construct_object(node)
        except (ValueError, yaml.YAMLError):
            problem = f"{node.value!r} is not a value"
        if isinstance(value, float) and not math.isfinite(value):
            problem = f"{node.value} is not a number to count with"
    if problem is None:
        return value
    document.problems.append(Problem(problem, *_place(node)))
    document.unread.add(path)
    return None


def _mapping(loader: _Loader, node: yaml.MappingNode, path: Path, document: Document) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if key is None or key_node.tag == "tag:yaml.org,2002:merge":
            document.problems.append(Problem("a key is a plain word here", *_place(key_node)))
        elif key in mapping:
            first = document.keys[(*path, key)]
            document.problems.append(
                Problem(f"{key!r} is here twice; the first is in line {first[0]}", *_place(key_node))
            )
        else:
            document.keys[(*path, key)] = _place(key_node)
            mapping[key] = _plain(loader, value_node, (*path, key), document)
    return mapping


def _place(node: yaml.Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1
