"""The ``provider:`` section of a YAML file: its values with their lines, or every mistake with its place."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PolicyError, Problem
from ..policy import yaml_nodes
from ..policy.yaml_nodes import Document
from .known import IN_FILE, OF_PROVIDER, Kind, suggestion

SECTION = "provider"

_ONE_OF = (("retry_attempts", "max_retries"),)
_NO_KEY = "a key does not belong into a file; name the variable that holds it"


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of the file, and its line."""

    value: Any
    line: int


Entries = Mapping[tuple[str, ...], Entry]
"""By path below the section: ``("timeout",)``, ``("openai", "model")``, ``("openai", "tls.verify")``."""


def read_settings_file(path: str | os.PathLike[str], providers: Collection[str]) -> Entries:
    """What the file at *path* says of *providers*. Raises ``PolicyError`` with all mistakes."""
    file = str(path)
    try:
        document = yaml_nodes.read(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise PolicyError(file, [Problem(f"not UTF-8: byte {error.start}")]) from None
    except OSError as error:
        raise PolicyError(file, [Problem(f"can not be read: {error.strerror}")]) from None
    except yaml_nodes.Unreadable as error:
        raise PolicyError(file, [error.args[0]]) from None
    reader = _Reader(document, providers)
    entries = reader.entries()
    if document.problems:
        raise PolicyError(file, sorted(document.problems, key=lambda problem: (problem.line, problem.column)))
    return entries


class _Reader:
    """Goes through the section once; what is wrong is added to the document's problems."""

    def __init__(self, document: Document, providers: Collection[str]) -> None:
        self._document = document
        self._providers = providers

    def entries(self) -> Entries:
        data = self._document.data
        if not isinstance(data, dict) or SECTION not in data:
            self._problem((), f"there is no section {SECTION!r} in this file")
            return {}
        section = data[SECTION]
        if not isinstance(section, dict):
            self._problem(
                (SECTION,), f"{SECTION} is a mapping with the keys primary, fallback, and one for each provider"
            )
            return {}
        found: dict[tuple[str, ...], Entry] = {}
        for key, value in section.items():
            if key in IN_FILE or key == "tls":
                found |= self._values((), {key: value}, IN_FILE)
            elif key not in self._providers:
                known = dict.fromkeys((*IN_FILE, *self._providers))
                near = suggestion(str(key), known)
                self._problem((SECTION, key), f"{key!r} is neither a setting nor a provider", near, at_key=True)
            elif isinstance(value, dict):
                found |= self._values((key,), value, OF_PROVIDER)
            elif value is not None:
                self._problem((SECTION, key), f"{key} is a mapping, with keys as model and base_url")
        for path, name in _named(found):
            if name not in self._providers:
                known = dict.fromkeys(self._providers)
                hint = suggestion(name, known) or f"there are {', '.join(known)}"
                self._problem((SECTION, *path), f"no provider is called {name!r}", hint)
        return found

    def _values(
        self, owner: tuple[str, ...], values: Mapping[str, Any], known: Mapping[str, Kind]
    ) -> dict[tuple[str, ...], Entry]:
        found: dict[tuple[str, ...], Entry] = {}
        for key, value, path in _flat(values, (SECTION, *owner)):
            if path in self._document.unread:
                continue
            if key == "tls":
                self._problem(path, "tls is a mapping with the keys verify, ca_file, cert_file, key_file")
            elif key == "api_key":
                self._problem(path, _NO_KEY, f"api_key_env: {(owner or ('THE',))[0].upper()}_API_KEY", at_key=True)
            elif key not in known:
                near = suggestion(key, known)
                self._problem(path, f"unknown key {path[-1]!r}", near and near.replace("tls.", ""), at_key=True)
            elif value is not None:  # an empty one says nothing
                try:
                    found[*owner, key] = Entry(known[key].of(value), self._document.place(path)[0])
                except ValueError as error:
                    self._problem(path, f"{key} {error}")
        for one, other in _ONE_OF:
            if (*owner, one) in found and (*owner, other) in found:
                self._problem((SECTION, *owner, other), f"{one} and {other} say the same: keep one of them")
        return found

    def _problem(self, path: yaml_nodes.Path, message: str, hint: str | None = None, *, at_key: bool = False) -> None:
        place = self._document.keys.get(path) if at_key else None
        self._document.problems.append(Problem(message, *(place or self._document.place(path)), hint))


def _flat(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    for key, value in values.items():
        if key == "tls" and isinstance(value, dict):
            for name, inner in value.items():
                yield f"tls.{name}", inner, (*path, key, name)
        else:
            yield str(key), value, (*path, key)


def _named(found: Entries) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The providers that are to be asked, and where they are named."""
    if entry := found.get(("primary",)):
        yield ("primary",), entry.value
    if entry := found.get(("fallback",)):
        yield from ((("fallback", number), name) for number, name in enumerate(entry.value))
