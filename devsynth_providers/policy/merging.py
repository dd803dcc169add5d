"""Policies that extend others: a chain of files becomes one tree, in which each value knows its file.

Mappings are merged key by key, and a ``null`` takes an inherited key away. A rule with the name of an inherited one
changes that one where it stands, key by key; the other rules of the file go before the inherited. ``access`` and
``budgets`` are appended to. ``name`` and ``tests`` are each file's own. Every other list is replaced whole.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import PolicyError, Problem
from . import sources, variables
from .yaml_nodes import Node, Unreadable, read_nodes

MAX_CHAIN = 5

_OWN = ("name", "tests", "version", "extends")
_APPENDED = ("access", "budgets")


def read_whole(text: str, file: str) -> tuple[Node, list[Problem], list[str]]:
    """The tree of *text* with all that it extends, what is wrong with single values, and the files, its own first.

    Raises ``PolicyError`` if a file of the chain can not be had, or is no mapping.
    """
    chain = [file]
    nodes: list[Node] = []
    problems: list[Problem] = []
    while True:
        try:
            node, found = read_nodes(text, chain[-1])
        except Unreadable as error:
            raise PolicyError(file, [*problems, error.args[0]]) from None
        problems += found
        if node is None or not isinstance(node.value, dict):
            wrong = Problem("a policy is a mapping with the keys models and rules", 1, 1, file=chain[-1])
            raise PolicyError(file, [*problems, wrong])
        nodes.append(node)
        if len(nodes) > 1:
            problems += _other_version(node)
        extends = node.value.pop("extends", None)
        if extends is None:
            break
        try:
            path = _next(extends, chain)
            text = sources.read_text(path)
        except PolicyError as error:
            told = error.problems[0]
            raise PolicyError(file, [*problems, extends.problem(f"extends: {told.message}", told.suggestion)]) from None
        chain.append(str(path))
    whole = nodes.pop()
    while nodes:
        whole = _extended(nodes.pop(), whole)
    return whole, problems, chain


def _next(extends: Node, chain: list[str]) -> Path:
    """The file that the last one of *chain* extends."""
    if not isinstance(extends.value, str) or not extends.value.strip():
        raise PolicyError("", [Problem("it names one other file, or a packaged policy")])
    if "${" in extends.value:
        raise PolicyError("", [Problem("no variables here: which files make up a policy stands in the files")])
    path = sources.find(extends.value, Path(chain[-1]).parent)
    told = " → ".join([*chain, str(path)])
    if any(_same(path, each) for each in chain):
        raise PolicyError("", [Problem(f"a circle: {told}")])
    if len(chain) == MAX_CHAIN:
        raise PolicyError("", [Problem(f"a chain of more than {MAX_CHAIN} files: {told}")])
    return path


def _same(path: Path, other: str) -> bool:
    try:
        return path.resolve() == Path(other).resolve()
    except (OSError, ValueError):  # a text that has no file, but a name that could be none
        return False


def _other_version(base: Node) -> list[Problem]:
    version = base.value.get("version")
    if version is None or version.unread or (type(version.value) is int and version.value == 1):
        return []
    return [version.problem(f"version should be 1, not {version.value!r}")]


def _extended(own: Node, base: Node) -> Node:
    """*base* with what *own* says in its place."""
    kept = {key: node for key, node in base.value.items() if key not in _OWN}
    said = dict(own.value)
    whole: dict[str, Node] = {}
    for key, join in (("rules", _rules), *((each, _appended) for each in _APPENDED), ("variables", variables.joined)):
        if key in kept and key in said and said[key].value is not None:
            whole[key] = join(said.pop(key), kept.pop(key))
    merged = _merged(replace(own, value=said), replace(base, value=kept))
    return replace(own, value={**merged.value, **whole})


def _merged(own: Node, base: Node) -> Node:
    if not (isinstance(own.value, dict) and isinstance(base.value, dict)):
        return own
    value: dict[str, Node] = dict(base.value)
    for key, node in own.value.items():
        if key not in value or node.unread:
            value[key] = node
        elif node.value is None:
            del value[key]
        else:
            value[key] = _merged(node, value[key])
    return replace(own, value=value)


def _rules(own: Node, base: Node) -> Node:
    if not (isinstance(own.value, list) and isinstance(base.value, list)):
        return own
    inherited: list[Node] = list(base.value)
    places: dict[str | None, int] = {}
    for place, rule in enumerate(inherited):
        if (name := _name(rule)) is not None:
            places.setdefault(name, place)
    further: list[Node] = []
    for rule in own.value:
        name = _name(rule)
        if name in places:
            place = places.pop(name)
            inherited[place] = _merged(rule, inherited[place])
        else:
            further.append(rule)
    return replace(own, value=[*further, *inherited])


def _name(rule: Node) -> str | None:
    name = rule.value.get("name") if isinstance(rule.value, dict) else None
    return name.value if isinstance(name, Node) and isinstance(name.value, str) else None


def _appended(own: Node, base: Node) -> Node:
    if not (isinstance(own.value, list) and isinstance(base.value, list)):
        return own
    return replace(own, value=[*base.value, *own.value])
