"""``${NAME}`` in the values of a policy: taken from the environment, if the policy lists it or its name is known.

What a variable holds is text, put in after the YAML was read: it can never change the structure. ``$$`` is a ``$``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..errors import Problem
from .yaml_nodes import Node

SECTION = "variables"
KNOWN_PREFIXES = ("DEVSYNTH_", "LOCAL_MODEL", "LMSTUDIO_", "LM_STUDIO_")
KNOWN = ("OPENAI_MODEL",)
SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL")
"""Parts of names by which what looks like a secret is kept out of policies."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_USE = re.compile(r"\$\$|\$\{([^{}$]*)\}|\$\{")
_AS_IT_IS = "for a plain ${, write $${"
_NO_SECRET = "a policy holds no secrets: api_key_env takes the name of the variable"


def joined(own: Node, base: Node) -> Node:
    """The variables of both; where both have one, the default of *own*."""
    mine, theirs = _as_mapping(own), _as_mapping(base)
    if not (isinstance(mine.value, dict) and isinstance(theirs.value, dict)):
        return own
    return replace(mine, value={**theirs.value, **mine.value})


def expand(root: Node, environment: Mapping[str, str]) -> list[Problem]:
    """Put the values of variables into the texts below *root*; returns what is wrong with their use."""
    section = root.value.get(SECTION)
    expansion = _Expansion(environment)
    if section is not None:
        expansion.declare(_as_mapping(section))
    for key, node in root.value.items():
        expansion.check_key(node, key)
        if key != SECTION:
            expansion.fill(node)
    return expansion.problems


def _as_mapping(section: Node) -> Node:
    if not isinstance(section.value, list) or not all(isinstance(each.value, str) for each in section.value):
        return section
    return replace(section, value={each.value: replace(each, value=None, key=each.place) for each in section.value})


class _Expansion:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._listed: dict[str, str | None] = {}
        self.problems: list[Problem] = []

    def declare(self, section: Node) -> None:
        """Take note of the names that the policy lists, and of their defaults."""
        if not isinstance(section.value, dict):
            if not section.unread:
                what = "variables are a list of names, or a mapping from names to defaults"
                self.problems.append(section.problem(what))
            return
        for name, default in section.value.items():
            if (wrong := _wrong_name(name)) is not None:
                hint = _NO_SECRET if wrong[1] == _NO_SECRET else None
                self.problems.append(default.problem(wrong[0], hint, at_key=True))
            elif not isinstance(default.value, str | None):
                quoted = f'write "{default.value}"' if isinstance(default.value, int | float) else None
                self.problems.append(default.problem(f"the default of {name} is a text", quoted))
            self._listed[name] = default.value if isinstance(default.value, str) else None

    def fill(self, node: Node) -> None:
        """Expand *node*, and all below it."""
        if isinstance(node.value, dict):
            for key, each in node.value.items():
                self.check_key(each, key)
                self.fill(each)
        elif isinstance(node.value, list):
            for each in node.value:
                self.fill(each)
        elif isinstance(node.value, str) and "$" in node.value:
            self._fill_text(node)

    def check_key(self, node: Node, key: str) -> None:
        """Refuse variables in keys."""
        if "${" in key:
            self.problems.append(node.problem("variables stand in values, not in keys", at_key=True))

    def _fill_text(self, node: Node) -> None:
        written: str = node.value
        found = list(self._unusable(written))
        if found:
            self.problems += [node.problem(*each) for each in found]
            node.value, node.unread = None, True
            return
        text = _USE.sub(lambda use: "$" if use[0] == "$$" else self._value(use[1]) or "", written)
        node.value, node.written = text, written if text != written else None

    def _unusable(self, written: str) -> Iterator[tuple[str, str]]:
        for use in _USE.finditer(written):
            name = use[1]
            if use[0] == "$$":
                continue
            if name is None:
                yield "a ${ that does not end: a variable is written ${NAME}", _AS_IT_IS
            elif (wrong := _wrong_name(name)) is not None:
                yield wrong
            elif name not in self._listed and not name.startswith(KNOWN_PREFIXES) and name not in KNOWN:
                yield f"{name} is not a variable that this policy may read", f"list it: variables: [{name}]"
            elif self._value(name) is None:
                yield f"the variable {name} is not set", f"set it, or give it a default: variables: {{{name}: …}}"

    def _value(self, name: str) -> str | None:
        """What *name* stands for; an empty variable says nothing, as everywhere in this library."""
        return self._environment.get(name) or self._listed.get(name)


def _wrong_name(name: str) -> tuple[str, str] | None:
    if not _NAME.fullmatch(name):
        return f"{name!r} is not the name of a variable: letters, figures and _", _AS_IT_IS
    if any(part in name.upper() for part in SECRET):
        return f"the variable {name} looks like a secret", _NO_SECRET
    return None
