"""What a policy file may leave short, written out: defaults of rules, tags, one word for a list, names, prices."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from .. import catalogue
from ..errors import Problem
from . import shapes
from .policy import Policy
from .rules import Rule
from .yaml_nodes import Node

TAG = "tag:"
"""What begins the name that stands, among the models of a rule, for all models with a tag."""

NOT_FOR_FILES = frozenset(("name", "price_assumed"))
"""Of a model: its name stands before it, and the other is not for people to say."""

_LONG = 60
"""Longer words are not compared: of those that repeat one letter, each pair takes milliseconds."""

_NO_DEFAULTS = ("name", "when", "models")
_ONLY_FOR_READING = ("variables", "defaults")


def nearest(word: str, words: Iterable[str]) -> str | None:
    """A suggestion, if one of *words* is nearly *word*."""
    if len(word) > _LONG:
        return None
    near = difflib.get_close_matches(word, [each for each in words if len(each) <= _LONG], n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None


def defaults_of(root: Node) -> tuple[Node | None, list[Problem]]:
    """The section ``defaults`` of *root*, and which of its keys can not be there."""
    section = root.value.get("defaults")
    if section is None or section.unread:
        return None, []
    if not isinstance(section.value, dict):
        return None, [section.problem("defaults is a mapping with keys of rules, as max_cost_usd and prefer")]
    problems = [
        section.value[key].problem(f"{key!r} has no default: each rule says its own", at_key=True)
        for key in _NO_DEFAULTS
        if key in section.value
    ]
    return section, problems


def as_rule(defaults: Node) -> Node:
    """A rule that says only *defaults*: as right, or as wrong, as they are."""
    own = {key: each for key, each in defaults.value.items() if key not in _NO_DEFAULTS}
    word = replace(defaults, value="defaults")
    rule = replace(defaults, value={"name": word, "models": replace(defaults, value=[word]), **own})
    return _spelled(rule, Rule, [])


def fill_in(root: Node, defaults: Node) -> None:
    """Put *defaults* into each rule that does not say them."""
    for rule in _entries(root, "rules"):
        for key, node in defaults.value.items():
            rule.value.setdefault(key, node)


def expand_tags(root: Node) -> list[Problem]:
    """Put models in the place of ``tag:…``; returns what is wrong with tags."""
    problems = []
    tagged: dict[str, list[str]] = {}
    models = root.value.get("models")
    for name, model in models.value.items() if models and isinstance(models.value, dict) else ():
        if name.startswith(TAG):
            problems.append(model.problem(f"a model's name does not begin with {TAG}", at_key=True))
        for tag in dict.fromkeys(_tags(model)):
            tagged.setdefault(tag, []).append(name)
    for section in ("rules", "access"):
        for entry in _entries(root, section):
            named = entry.value.get("models")
            listed = named.value if named and isinstance(named.value, list) else [named] if named else []
            if any(_tag(each) is not None for each in listed):
                entry.value["models"] = replace(named, value=list(_without_tags(listed, tagged, problems)))
    return problems


def spell_out(root: Node, name: str) -> tuple[Node, list[Problem]]:
    """*root* as the types want it; *name* is the policy's, if it says none."""
    problems: list[Problem] = []
    said = {key: node for key, node in root.value.items() if key not in _ONLY_FOR_READING}
    said.setdefault("name", Node(name, root.place, None, root.file))
    if (models := said.get("models")) is not None and isinstance(models.value, dict):
        written_out = {key: _model(key, node, problems) for key, node in models.value.items()}
        said["models"] = replace(models, value=written_out)
    return _spelled(replace(root, value=said), Policy, problems), problems


def _entries(root: Node, section: str) -> list[Node]:
    entries = root.value.get(section)
    listed = entries.value if entries and isinstance(entries.value, list) else ()
    return [each for each in listed if isinstance(each.value, dict)]


def _tags(model: Node) -> Iterator[str]:
    tags = model.value.get("tags") if isinstance(model.value, dict) else None
    for each in tags.value if tags and isinstance(tags.value, list) else [tags] if tags else ():
        if isinstance(each.value, str):
            yield each.value


def _tag(node: Node) -> str | None:
    is_tag = isinstance(node.value, str) and node.value.startswith(TAG)
    return node.value.removeprefix(TAG).strip() if is_tag else None


def _without_tags(listed: list[Node], tagged: dict[str, list[str]], problems: list[Problem]) -> Iterator[Node]:
    given: set[str] = set()
    by_tag: set[str] = set()
    for node in listed:
        tag = _tag(node)
        if tag is None:
            if not isinstance(node.value, str):
                yield node
            elif node.value not in by_tag:
                yield node
                given.add(node.value)
        elif tag not in tagged:
            hint = nearest(tag, tagged) or (f"there are: {', '.join(sorted(tagged))}" if tagged else None)
            problems.append(node.problem(f"no model has the tag {tag!r}", hint))
            yield replace(node, value=None, unread=True)
        else:
            for name in tagged.get(tag or "", ()):
                if name not in given:
                    yield replace(node, value=name, written=name.replace("$", "$$") if "$" in name else None)
                    by_tag.add(name)
                    given.add(name)


def _model(name: str, node: Node, problems: list[Problem]) -> Node:
    if not isinstance(node.value, dict):
        return node
    said = dict(node.value)
    for key in NOT_FOR_FILES & set(said):
        told = "unknown key 'name': a model is named by the key before it" if key == "name" else f"unknown key {key!r}"
        problems.append(said.pop(key).problem(told, at_key=True))
    price = said.get("price")
    if price is not None and price.value == "free":
        zero = replace(price, value=0)
        said["price"] = replace(price, value={"input_usd_per_1m": zero, "output_usd_per_1m": zero})
    elif price is not None and price.value == "catalogue":
        del said["price"]
        problems += [price.problem(told) for told in _not_priced(name, said)]
    said["name"] = Node(name, node.place, None, node.file)
    return replace(node, value=said)


def _not_priced(name: str, model: dict[str, Node]) -> Iterator[str]:
    said = {key: model[key].value for key in ("provider", "model", "base_url") if key in model}
    if said.get("base_url") is not None:
        yield "the catalogue knows no prices of servers of one's own; state it, or say free"
        return
    entry = catalogue.find(str(said.get("provider")), str(said.get("model") or name))
    if entry is None or entry.price is None:
        yield f"the catalogue has no price of {name!r}"


def _spelled(node: Node, kind: Any, problems: list[Problem]) -> Node:
    """*node* with the names of fields for keys, and lists of one for single words."""
    if kind is None:
        return node
    if isinstance(node.value, str):
        return replace(node, value=[replace(node, key=None)]) if shapes.is_names(kind) else node
    if isinstance(node.value, list):
        return replace(node, value=[_spelled(each, shapes.items(kind), problems) for each in node.value])
    if not isinstance(node.value, dict):
        return node
    known = shapes.keys(kind)
    fields: dict[Any, str] = {shapes.spelled(each.name): each.name for each in _fields(kind)}
    said: dict[str, Node] = {}
    for key, each in node.value.items():
        if key in fields.values() and key not in fields:
            hint = f"did you mean {shapes.spelled(key)!r}?"
            problems.append(each.problem(f"unknown key {key!r}", hint, at_key=True))
        else:
            said[fields.get(key) or key] = _spelled(each, known.get(key) or shapes.values(kind), problems)
    return replace(node, value=said)


def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    owner = next((each for each in shapes.alternatives(kind) if dataclasses.is_dataclass(each)), None)
    return () if owner is None else dataclasses.fields(owner)
