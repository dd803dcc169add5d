"""Dataclasses as JSON and back, by their fields: a field that comes to them is written and read without a word here.

Reading is lenient where versions differ: a field that is not known is passed over, one that is missing takes its
default. It is strict where a value is not what its field holds: that is a ``ValueError`` which names the field.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypeVar, cast, get_args, get_origin

T = TypeVar("T")

_Reader = Callable[[Any], Any]
_PLAIN = (str, bool, int, float)
_TOO_MUCH = 1e300
"""Nothing that is counted or measured comes near it, and to reckon with it ends in errors; so it does with NaN."""
_AS_IT_IS = frozenset((*_PLAIN, type(None)))
_MOMENTS = (datetime.datetime, datetime.date, datetime.time)


def encoded(value: object) -> Any:
    """*value* in what JSON has. Raises ``TypeError`` for what it has no form for."""
    kind: Any = type(value)
    if kind in _AS_IT_IS:
        return value
    if (names := _names(kind)) is not None:
        return _fields(value, names)
    if isinstance(value, enum.Enum):
        return encoded(value.value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(key): encoded(each) for key, each in value.items()}
    if isinstance(value, Set):
        return sorted((encoded(each) for each in value), key=repr)
    if isinstance(value, Sequence):
        return [encoded(each) for each in value]
    if isinstance(value, _MOMENTS):
        return value.isoformat()
    raise TypeError(f"{kind.__name__} has no form in JSON")


@functools.cache
def _names(kind: Any) -> tuple[str, ...] | None:
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return kind._fields if issubclass(kind, tuple) and hasattr(kind, "_fields") else None


def _fields(value: object, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields that have a form in JSON: one that has none is no reason to lose the others."""
    written = {}
    for name in names:
        each = getattr(value, name)
        try:
            written[name] = each if type(each) in _AS_IT_IS else encoded(each)
        except TypeError:
            continue
    return written


def decoded(kind: type[T], data: object) -> T:
    """The *kind* that *data* stands for. Raises ``ValueError`` with the place and what is wrong there."""
    made: T = _reader(cast("Any", kind))(data)
    return made


@functools.cache
def _reader(hint: Any) -> _Reader:
    """What makes a value of type *hint* of what JSON has for it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return _reader(inner[0])
    if origin is typing.Literal:
        return _one_of(inner)
    if origin in (typing.Union, types.UnionType):
        some = _any_of([_reader(each) for each in inner if each is not type(None)])
        return _or_nothing(some) if type(None) in inner else some
    if origin in (tuple, frozenset, list, set):
        return _many(origin, inner)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_reader(inner[1]))
    if origin is not None:
        return _many(frozenset if issubclass(origin, Set) else tuple, inner)
    return _single(hint)


def _single(hint: Any) -> _Reader:
    if hint in (Any, object):
        return lambda data: data
    if hint in (None, type(None)):
        return _one_of((None,))
    if dataclasses.is_dataclass(hint):
        fields = [field for field in dataclasses.fields(hint) if field.init]
        missing = dataclasses.MISSING
        needed = {field.name for field in fields if field.default is missing and field.default_factory is missing}
        return _record(hint, [field.name for field in fields], needed)
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        return _record(hint, hint._fields, set(hint._fields) - hint._field_defaults.keys())  # type: ignore[attr-defined]
    if hint in _MOMENTS:
        return _moment(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint
    return _plain(hint)


def _plain(kind: Any) -> _Reader:
    at_once = kind if kind in (str, bool) else None

    def read(data: Any) -> Any:
        if type(data) is at_once:
            return data
        if type(data) in (int, float) and not abs(data) < _TOO_MUCH:
            raise ValueError(": no number to count with")
        if kind is float and type(data) is int:
            return float(data)
        if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
            raise ValueError(f": {kind.__name__} expected, not {type(data).__name__}")
        return data

    return read


def _one_of(values: tuple[Any, ...]) -> _Reader:
    def read(data: Any) -> Any:
        if data not in values:
            raise ValueError(": not one of its values")
        return data

    return read


def _or_nothing(reader: _Reader) -> _Reader:
    return lambda data: None if data is None else reader(data)


def _any_of(readers: list[_Reader]) -> _Reader:
    if len(readers) == 1:
        return readers[0]

    def read(data: Any) -> Any:
        for reader in readers:
            try:
                return reader(data)
            except ValueError as error:
                last = error
        raise last

    return read


def _moment(kind: Any) -> _Reader:
    def read(data: Any) -> Any:
        try:
            return kind.fromisoformat(data)
        except (TypeError, ValueError):
            raise ValueError(f": no {kind.__name__}") from None

    return read


def _many(kind: Any, inner: tuple[Any, ...]) -> _Reader:
    reader = _reader(inner[0])
    fixed = (
        [_reader(each) for each in inner] if kind is tuple and inner[-1] is not Ellipsis and len(inner) > 1 else None
    )

    def read(data: Any) -> Any:
        if not isinstance(data, list) or (fixed is not None and len(data) != len(fixed)):
            raise ValueError(": a list expected")
        if fixed is not None:
            return tuple(one(each) for one, each in zip(fixed, data, strict=True))
        return kind([reader(each) for each in data])

    return read


def _mapping(reader: _Reader) -> _Reader:
    def read(data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError(": a mapping expected")
        return {key: reader(each) for key, each in data.items()}

    return read


def _record(kind: Any, names: Sequence[str], needed: Set[str]) -> _Reader:
    """For a dataclass or a named tuple."""
    hints = typing.get_type_hints(kind, include_extras=True)
    readers = {name: _reader(hints[name]) for name in names}

    def read(data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError(f": {kind.__name__} expected")
        if missing := needed - data.keys():
            raise ValueError(f".{min(missing)}: missing")
        given = {}
        for name, value in data.items():
            if (reader := readers.get(name)) is not None:
                try:
                    given[name] = reader(value)
                except ValueError as error:
                    raise ValueError(f".{name}{error}") from None
        try:
            return kind(**given)
        except ValueError as error:
            raise ValueError(f": {error}") from None

    return read
