"""What a policy file may have where: read from the types themselves, with names as the file spells them."""

from __future__ import annotations

import dataclasses
import functools
import keyword
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal


def spelled(field: str) -> str:
    """The key of the file for *field*: ``not`` for ``not_``."""
    return field[:-1] if field.endswith("_") and keyword.iskeyword(field[:-1]) else field


@functools.cache
def keys(kind: Any) -> Mapping[str, Any]:
    """The keys of a value of *kind*, and the kind of each; none, if it is no dataclass."""
    owner = next((each for each in alternatives(kind) if dataclasses.is_dataclass(each)), None)
    if owner is None:
        return {}
    kinds = typing.get_type_hints(owner)
    return {spelled(each.name): kinds[each.name] for each in dataclasses.fields(owner)}


@functools.cache
def alternatives(kind: Any) -> tuple[Any, ...]:
    """The kinds of which *kind* is the union, ``None`` left out."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return tuple(each for each in typing.get_args(kind) if each is not types.NoneType)
    return (kind,)


@functools.cache
def items(kind: Any) -> Any:
    """The kind of what is in a list of *kind*; ``None``, if it is none."""
    found = (typing.get_args(each)[0] for each in alternatives(kind) if typing.get_origin(each) in (tuple, frozenset))
    return next(found, None)


@functools.cache
def values(kind: Any) -> Any:
    """The kind of the values of a mapping with keys of the user's own; ``None``, if *kind* is none."""
    return next((typing.get_args(each)[1] for each in alternatives(kind) if typing.get_origin(each) is Mapping), None)


@functools.cache
def is_names(kind: Any) -> bool:
    """Whether a value is a list of words, so that one word may stand for a list of one."""
    return items(kind) is not None and _is_word(items(kind)) and not any(map(_is_word, alternatives(kind)))


def at(kind: Any, path: tuple[str | int, ...]) -> Any:
    """The kind of what stands at *path*, as the file spells it; ``None``, if nothing can."""
    for step in path:
        if kind is None:
            return None
        kind = items(kind) if isinstance(step, int) else keys(kind).get(step) or values(kind)
    return kind


def _is_word(kind: Any) -> bool:
    return kind is str or typing.get_origin(kind) is Literal
