"""From plain values to the types, by pydantic; where they do not fit, its errors in the words of a policy file."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..errors import Problem
from . import shapes, units
from .shorthands import nearest
from .yaml_nodes import Document, Path

T = TypeVar("T")

MAX_SUGGESTIONS = 100
"""For so many problems of one file, near names are looked for; that takes time, and nobody reads more."""

_SUBJECT = re.compile(r"^(?:Value error, |Input |Tuple |String )| after validation.*|(?<=character).*")
_WORDS = (("an object", "a mapping"), ("an array", "a list"), ("valid array", "list"))
_NUMBER_WANTED = ("float_type", "int_type", "int_from_float", "float_parsing", "int_parsing")


@functools.cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """What turns plain values into a *kind*."""
    return TypeAdapter(kind)


def typed(document: Document, kind: type[T]) -> tuple[T | None, list[Problem]]:
    """The value that *document* says, or what is wrong with it, beside what its reader told already."""
    try:
        whole: Any = kind
        value: T = adapter(whole).validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        telling = _Telling(document, kind)
        told = error.errors(include_url=False, include_context=True)
        told.sort(key=lambda each: each["type"].startswith("missing"))  # what was meant for the missing key comes first
        return None, list(dict.fromkeys(each for one in told for each in telling.problems(dict(one))))
    return value, []


class _Telling:
    """Says in words, and with its place, what pydantic found."""

    def __init__(self, document: Document, kind: Any) -> None:
        self._document = document
        self._kind = kind
        self._suggestions = 0
        self._meant_as: set[Path] = set()

    def problems(self, error: dict[str, Any]) -> Iterator[Problem]:
        code, seen, facts = error["type"], error["input"], error.get("ctx", {})
        path = self._path(error["loc"], with_last=code.startswith(("missing", "unexpected")))
        if path in self._document.unread or (code == "too_short" and len(seen) >= facts["min_length"]):
            return  # told already: by the reader, or by what is wrong with the items
        if code == "unexpected_keyword_argument":
            yield self._unknown(path, seen)
        elif code.startswith("missing"):
            *parent, key = path
            if path in self._meant_as:
                return
            owner = " ".join(f"{step + 1}" if isinstance(step, int) else step.removesuffix("s") for step in parent)
            what = f"{owner} has no {shapes.spelled(str(key))!r}" if parent else f"no {key!r}"
            yield self._document.problem(f"{what}, which is required", tuple(parent))
        elif not self._of_another_kind(path, code, seen):
            yield self._misfit(path, error)

    def _path(self, location: tuple[str | int, ...], *, with_last: bool) -> Path:
        """*location* without the names of types, which pydantic puts between where a value may have several."""
        path: list[str | int] = []
        here = self._document.data
        for number, step in enumerate(location):
            inside = range(len(here)) if isinstance(here, list) else here if isinstance(here, dict) else ()
            if step in inside:
                here = here[step]
            elif not (with_last and number == len(location) - 1):
                continue
            path.append(step)
        return tuple(path)

    def _known(self, path: Path) -> Any:
        return shapes.at(self._kind, tuple(shapes.spelled(step) if isinstance(step, str) else step for step in path))

    def _of_another_kind(self, path: Path, code: str, seen: object) -> bool:
        """Whether this is about the other of two kinds that a value may have: a word, or a mapping."""
        if len(shapes.alternatives(self._known(path))) < 2:
            return False
        return code == "dataclass_type" or (isinstance(seen, dict) and code != "value_error")

    def _unknown(self, path: Path, seen: object) -> Problem:
        key = str(path[-1])
        known = [*shapes.keys(self._known(path[:-1]))]
        hint = self._suggested() and (units.right_key(key, seen, known) or nearest(key, known) or _comma(key))
        self._meant_as |= {(*path[:-1], word) for word in re.findall(r"\w+", hint or "") if word in known}
        return self._document.problem(f"unknown key {key!r}", path, hint or None, at_key=True)

    def _misfit(self, path: Path, error: dict[str, Any]) -> Problem:
        code, seen, facts = error["type"], error["input"], error.get("ctx", {})
        name = shapes.spelled(next((step for step in reversed(path) if isinstance(step, str)), "policy"))
        told = _SUBJECT.sub("", error["msg"])
        for theirs, ours in _WORDS:
            told = told.replace(theirs, ours)
        if code == "value_error":
            return self._document.problem(f"{name}: {told}", path)
        if name == "price":
            told += ", free, or catalogue"
        elif len(shapes.alternatives(self._known(path))) > 1:
            told += ", or a mapping"
        got = "" if isinstance(seen, dict | list) else f", not {_shown(seen)}"
        hint = self._suggested() and self._meant(name, path, code, seen, facts)
        return self._document.problem(f"{name} {told}{got}", path, hint or None)

    def _meant(self, name: str, path: Path, code: str, seen: object, facts: dict[str, Any]) -> str | None:
        if isinstance(seen, str) and code in _NUMBER_WANTED:
            if path in self._document.expanded:
                return "a variable is text: numbers are written out"
            if re.fullmatch(r"\d+e[-+]?\d+", seen, re.IGNORECASE):
                return "YAML wants a point before the e, as in 1.0e-3"
            number = units.right_number(name, seen)
            in_list = path and isinstance(path[-1], int)
            return number and (f"write {number}" if in_list else f"write {name}: {number}")
        if isinstance(seen, int | float) and code == "less_than_equal":
            if name.endswith("_s"):
                return units.from_milliseconds(name, seen)
            return units.from_percent(name, seen) if facts["le"] == 1 else None
        if isinstance(seen, bool) and code in ("string_type", "tuple_type", "literal_error"):
            return "YAML reads yes, no, on and off as true and false: a word like that is put in quotes"
        if isinstance(seen, int | float) and code == "string_type":
            return f'put it in quotes: "{seen}"'
        return nearest(str(seen), re.findall("'([^']+)'", str(facts.get("expected", ""))))

    def _suggested(self) -> bool:
        self._suggestions += 1
        return self._suggestions <= MAX_SUGGESTIONS


def _comma(key: str) -> str | None:
    return "a number has a point in it, 0.50, and no comma" if key.isdigit() else None


def _shown(seen: object) -> str:
    text = json.dumps(seen, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}…"
