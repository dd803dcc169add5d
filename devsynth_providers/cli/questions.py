"""What a batch asks, or embeds: a file with a JSON object on each line, checked whole before anybody is asked."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import InvalidRequest
from ..types import ChatRequest, Context, EmbedRequest, Options, Request, take_context
from .table import counted

ASKING = ("id", "prompt", *Options.__annotations__)
EMBEDDING = ("id", "embed", *Context.__annotations__)
_TOLD = 10
"""How many mistakes are told, where there are more."""


@dataclass(frozen=True, slots=True)
class Question:
    """One line: its number, from 1, a digest of what it says, whatever its *id* is, and what it asks."""

    line: int
    digest: int
    id: Any
    request: Request


class Questions:
    """Iterate it for the questions of the file *path*; each iteration reads it anew. Lines with nothing in them are
    none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_file():
            raise InvalidRequest(f"{path}: the questions are read twice, so they have to be in a file")

    def __iter__(self) -> Iterator[Question]:
        for number, text in self._lines():
            try:
                yield _question(number, text)
            except InvalidRequest as error:
                raise InvalidRequest(f"{self.path}:{number}: {error}") from None

    def check(self) -> array[int]:
        """The digest of every line, 0 for those with nothing in them. Raises ``InvalidRequest`` with the mistakes."""
        digests, mistakes, wrong = array("Q"), list[str](), 0
        for number, text in self._lines():
            digests.extend([0] * (number - len(digests) - 1))
            digests.append(_digest(text))
            try:
                _question(number, text)
            except InvalidRequest as error:
                wrong += 1
                if wrong <= _TOLD:
                    mistakes.append(f"{self.path}:{number}: {error}")
        if wrong > _TOLD:
            mistakes.append(f"and {counted(wrong - _TOLD, 'line')} more")
        if mistakes:
            raise InvalidRequest("\n".join(mistakes))
        return digests

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if text := line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip():
                    yield number, text


def _digest(text: bytes) -> int:
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def _question(number: int, text: bytes) -> Question:
    try:
        fields = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite)
    except InvalidRequest:
        raise
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"not UTF-8: byte {error.start + 1} of the line") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"not JSON: {error.msg}, at character {error.pos + 1}") from None
    except RecursionError:
        raise InvalidRequest("it is nested too deeply") from None
    except ValueError:
        raise InvalidRequest("a number has too many digits") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("a line is a JSON object, with prompt or messages, or with embed")
    _check_keys(fields)
    own = fields.pop("id", None)
    try:
        request = _request(fields)
    except InvalidRequest:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a list where a number belongs, and the like
        raise InvalidRequest(f"this can not be asked: {type(error).__name__}: {error}") from None
    return Question(number, _digest(text), own, request)


def _check_keys(fields: Mapping[str, Any]) -> None:
    """Raises ``InvalidRequest`` for the first that says nothing here."""
    keys = EMBEDDING if "embed" in fields else ASKING
    for name in fields:
        if name in keys:
            continue
        if name in ASKING:
            raise InvalidRequest(f"{name!r} says nothing beside 'embed'; a line either asks or embeds")
        near = difflib.get_close_matches(name, {*keys, "embed"}, n=1)
        hint = "what is yours goes into id" + ("" if keys is EMBEDDING else ", what is the model's into extra_body")
        raise InvalidRequest(f"unknown key {name!r}; {f'did you mean {near[0]!r}?' if near else hint}")


def _request(fields: dict[str, Any]) -> Request:
    if "embed" not in fields:
        return ChatRequest.of(fields.pop("prompt", None), **fields)
    texts = fields.pop("embed")
    if not isinstance(texts, str | list):
        raise InvalidRequest(f"embed is a text, or a list of texts, not {type(texts).__name__}")
    return EmbedRequest(texts=(texts,) if isinstance(texts, str) else tuple(texts), **take_context(fields))


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise InvalidRequest("a key stands there twice")
    return fields


def _refuse(constant: str) -> NoReturn:
    raise InvalidRequest(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)
