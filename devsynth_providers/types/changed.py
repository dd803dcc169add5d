"""A frozen value with other fields, several times as quickly as ``dataclasses.replace``, which checks it all anew."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


def changed(value: T, **changes: Any) -> T:
    """A copy of *value*, a dataclass with slots, with *changes*. Nothing is checked: these are values that have been,
    in fields that no check of another one looks at."""
    kind: Any = type(value)
    read, write = _slots(kind)
    copy: T = object.__new__(kind)
    for put, each in zip(write.values(), read(value), strict=True):
        put(copy, each)
    for name, each in changes.items():
        write[name](copy, each)
    return copy


@functools.cache
def _slots(kind: Any) -> tuple[Callable[[Any], tuple[Any, ...]], Mapping[str, Callable[[Any, Any], None]]]:
    """What reads all fields of a *kind* of values, of which there are two at least, and what writes each."""
    names = [field.name for field in fields(kind)]
    return attrgetter(*names), {name: getattr(kind, name).__set__ for name in names}
