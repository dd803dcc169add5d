"""Reading YAML warily: plain values, and the place of each in the file.

Refused: aliases and anchors (a few lines can grow to gigabytes), tags, duplicate keys, ``.nan`` and ``.inf``, numbers
of more than 40 figures, more than 256 KiB, more than 10,000 values, more than 20 levels.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from typing_extensions import override

from ..errors import Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_VALUES = 10_000
MAX_FIGURES = 40

Path = tuple[str | int, ...]
Place = tuple[int, int]

_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_NUMBERS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float")}


_ADVICE = (
    ("'\\t'", "indent with spaces"),
    ("found another document", "a policy is one document: take out the line ---"),
    ("could not find expected ':'", "a key without its colon, here or in the line before"),
    ("expected <block end>", "the indentation does not fit the lines above"),
    ("mapping values are not allowed here", "a text with a colon in it stands in quotes; or the indentation is wrong"),
    ("expected ',' or", "a text with ? : , [ ] { } in it stands in quotes; or a comma or a bracket is missing"),
)
"""What the parser of YAML says, and what that mostly means."""


class Unreadable(Exception):
    """The file can not be read as YAML at all; the argument is the ``Problem``."""


@dataclass(slots=True)
class Node:
    """A value where it stands in its file: a scalar, a list of nodes, or a mapping of nodes. *key* is its key's place.

    An *unread* one makes no sense, which is told already. *written* is what stood in the place of its text.
    """

    value: Any
    place: Place
    key: Place | None = None
    file: str | None = None
    unread: bool = False
    written: str | None = None

    def problem(self, message: str, hint: str | None = None, *, at_key: bool = False) -> Problem:
        """What is wrong with it, with its place or that of its key."""
        return Problem(message, *(self.key if at_key and self.key else self.place), hint, self.file)


@dataclass(slots=True)
class Document:
    """A YAML file as plain values. *places* tells where each value stands, *keys* where its key does, *files* in which
    file, if it has a name. Those in *expanded* were made of variables.

    Values that make no sense are ``None``; they are in *unread*, and why in *problems*.
    """

    data: Any = None
    places: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[Path] = field(default_factory=set)
    files: dict[Path, str] = field(default_factory=dict)
    expanded: set[Path] = field(default_factory=set)

    @classmethod
    def of(cls, node: Node | None) -> Document:
        """The plain values of *node*."""
        document = cls()
        if node is not None:
            document.data = document._plain(node, ())
        return document

    def place(self, path: Path) -> Place:
        """Where the value at *path* stands, or the nearest thing around it that does."""
        return self.places.get(self._known(path), (1, 1))

    def problem(self, message: str, path: Path, hint: str | None = None, *, at_key: bool = False) -> Problem:
        """What is wrong at *path*, with its file, and its place or that of its key."""
        place = self.keys.get(path) if at_key else None
        return Problem(message, *(place or self.place(path)), hint, self.files.get(self._known(path)))

    def _known(self, path: Path) -> Path:
        while path not in self.places and path:
            path = path[:-1]
        return path

    def _plain(self, node: Node, path: Path) -> Any:
        self.places[path] = node.place
        if node.key:
            self.keys[path] = node.key
        if node.file:
            self.files[path] = node.file
        if node.unread:
            self.unread.add(path)
        if node.written is not None:
            self.expanded.add(path)
        if isinstance(node.value, dict):
            return {key: self._plain(each, (*path, key)) for key, each in node.value.items()}
        if isinstance(node.value, list):
            return [self._plain(each, (*path, index)) for index, each in enumerate(node.value)]
        return node.value


def read(text: str) -> Document:
    """The values of *text* with their places; what is wrong with single ones stands in ``problems``.

    Raises ``Unreadable`` if there is no making sense of it.
    """
    node, problems = read_nodes(text)
    document = Document.of(node)
    document.problems = problems
    return document


def read_nodes(text: str, file: str | None = None) -> tuple[Node | None, list[Problem]]:
    """As ``read``, with each value where it stands in *file*; no node for a file without any."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise Unreadable(Problem(f"larger than {MAX_BYTES // 1024} KiB", 1, 1, file=file))
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        before = _BREAK.split(text[: error.position])
        what = f"not YAML: {error.reason} (character {error.character!r})"
        raise Unreadable(Problem(what, len(before), len(before[-1]) + 1, file=file)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = error.problem or error.context or "it can not be read"
        hint = next((advice for said, advice in _ADVICE if said in what), None)
        raise Unreadable(Problem(f"not YAML: {what}", *place, hint, file)) from None
    except (ValueError, OverflowError):  # \\U0011ffff
        place = (loader.line + 1, loader.column + 1)
        raise Unreadable(Problem("not YAML: there is no such character", *place, file=file)) from None
    reading = _Reading(loader, file)
    return None if root is None else reading.node(root), reading.problems


def write(data: Any) -> str:
    """*data* as YAML, in its own order."""
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return text


class _Loader(yaml.SafeLoader):
    """Composes nodes, and refuses what a policy has no use for."""

    depth = 0
    values = 0

    @override
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self.values += 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"deeper than {MAX_DEPTH} levels", problem_mark=event.start_mark)
        if self.values > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES} values", problem_mark=event.start_mark)
        self.depth += 1
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
            return node
        finally:
            self.depth -= 1


class _Reading:
    """Makes ``Node``s of what was composed, and collects what is wrong with single ones."""

    def __init__(self, loader: _Loader, file: str | None) -> None:
        self._loader = loader
        self._file = file
        self.problems: list[Problem] = []

    def node(self, node: yaml.Node, key: Place | None = None) -> Node:
        made = Node(None, _place(node), key, self._file)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            made.value = self._mapping(node)
        elif isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            made.value = [self.node(each) for each in node.value]
        else:
            try:
                made.value = self._scalar(node)
            except _Senseless as error:
                made.unread = True
                self._problem(error.args[0], node)
        return made

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag == "tag:yaml.org,2002:timestamp":
            return _text(node.value)
        if node.tag not in _PLAIN or not isinstance(node, yaml.ScalarNode):
            raise _Senseless("tags are not allowed")
        if node.tag in _NUMBERS:
            if ":" in node.value:
                return node.value  # YAML 1.1 takes 22:00 for a number with the base 60; 1.2 does not, nor does anybody
            if len(node.value) > MAX_FIGURES:
                raise _Senseless("this is not a number to count with")
        try:
            value = self._loader.construct_object(node)
        except (ValueError, LookupError, yaml.YAMLError):  # LookupError: !!bool with another word
            raise _Senseless(f"{node.value[:MAX_FIGURES]!r} is not a value") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise _Senseless(f"{node.value} is not a number to count with")
        return _text(value) if isinstance(value, str) else value

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        mapping: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key_node.tag == "tag:yaml.org,2002:merge" or not _is_text(key):
                self._problem("a key is a plain word here", key_node)
            elif key in mapping:
                first = mapping[key].key or (0, 0)
                self._problem(f"{key!r} is here twice; the first is in line {first[0]}", key_node)
            else:
                mapping[key] = self.node(value_node, _place(key_node))
        return mapping

    def _problem(self, message: str, node: yaml.Node) -> None:
        self.problems.append(Problem(message, *_place(node), file=self._file))


class _Senseless(Exception):
    """A scalar that is no value of a policy; the argument says why."""


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _text(value: str) -> str:
    if not _is_text(value):
        raise _Senseless("half of a character is not text")
    return value


def _place(node: yaml.Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1
