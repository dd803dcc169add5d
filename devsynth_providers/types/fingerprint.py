"""What makes two requests one and the same: a hash of all that shapes the answer, and of who may share it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from hashlib import sha256
from typing import Any, NamedTuple, Self

from .model import Model
from .request import Request

_VERSION = 2
"""Goes up when the same request is to be written otherwise: what is kept under an older one is found no more."""
_NOT_ASKED = frozenset(("project", "role", "task", "tags", "limits", "call"))
"""Fields of a request that say for whom it is and how it is decided. The tenant stands before all else; what the others
led to is in the models, and in what was decided."""


class Tenant(NamedTuple):
    """Who may share an answer: one role in one project, and nobody else."""

    project: str | None
    role: str | None

    @classmethod
    def of(cls, request: Request) -> Self:
        return cls(request.project, request.role)


def fingerprint(tenant: Tenant, request: Request, models: Iterable[Model], *decided: object) -> str | None:
    """The same for equal requests of one tenant to the same *models* in the same order, if the same was *decided*.

    Every field counts that a kind of request has, also one that is added later. Mappings are the same whatever the
    order of their keys; 1 and 1.0 are one number, and no truth value. A request with something in it that can not be
    compared is like no other: ``None``.
    """
    kind: Any = type(request)
    try:
        asked = _fields(_asked(kind), request)
        whole = [_VERSION, _sequence(tenant), kind.__qualname__, asked, list(map(_who, models)), _plain(decided)]
        return sha256(ascii(whole).encode()).hexdigest()
    except (TypeError, ValueError, RecursionError):
        return None


def _who(model: Model) -> list[Any]:
    """What says who answers, of all that is known of a model."""
    return _sequence((model.name, model.provider, model.id, model.base_url, model.path, model.api_key_env))


def _plain(value: Any) -> Any:
    """*value* as ``ascii`` tells different values apart: a mapping is a dictionary with one key, which no list is."""
    return (_WRITERS.get(type(value)) or _writer(value))(value)


def _same(value: Any) -> Any:
    return value


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


def _sequence(value: Iterable[Any]) -> list[Any]:
    return [_plain(each) for each in value]


def _mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {"": sorted(([json.dumps(_key(key)), _plain(each)] for key, each in value.items()), key=lambda it: it[0])}


_SAME = frozenset((type(None), str, bool, int))
_WRITERS: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys((list, tuple), _sequence),
    float: _number,
    dict: _mapping,
}
"""For what nearly all is made of; the rest is looked at more closely."""

_DERIVED: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: lambda value: _number(float.__float__(value)),
    list: lambda value: _sequence(list.__iter__(value)),
    tuple: lambda value: _sequence(tuple.__iter__(value)),
}
"""What is derived from those may write itself otherwise, and is sent as what it is derived from."""


def _writer(value: Any) -> Callable[[Any], Any]:
    """What writes a *value* of a kind that has not been met: one derived from those that all is made of, whatever else
    it is, or a dataclass, of which there are few."""
    kind = type(value)
    for simple, plain in _DERIVED.items():
        if isinstance(value, simple):
            return plain
    if isinstance(value, Mapping):
        return _mapping
    if not is_dataclass(kind):
        raise TypeError(f"a {kind.__name__} can not be compared")
    name, names = f"{kind.__module__}.{kind.__qualname__}", _names(kind)
    _WRITERS[kind] = lambda value: {name: _fields(names, value)}
    return _WRITERS[kind]


def _fields(names: tuple[str, ...], value: Any) -> list[list[Any]]:
    return [[name, each if type(each := getattr(value, name)) in _SAME else _plain(each)] for name in names]


@functools.cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@functools.cache
def _asked(kind: Any) -> tuple[str, ...]:
    """The fields of a *kind* of requests that shape the answer."""
    return tuple(name for name in _names(kind) if name not in _NOT_ASKED)


def _key(value: object) -> str | float | None:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _number(value)
    raise TypeError(f"a {type(value).__name__} is no key that can be compared")
