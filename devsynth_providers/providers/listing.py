"""What a server says it has: one GET, which costs no tokens and proves that it is there and takes the key."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import MalformedResponse, ProviderError, ProviderTimeout
from ..types import Model
from . import failures
from .wire import Answer, Headers, Wire

MAX_LISTING_BYTES = 8 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_UNLISTED = frozenset((404, 405, 501))
"""What servers answer that are there, and keep no list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A server that answered: which models it knows, and which it has loaded; ``None`` where it does not tell."""

    url: str
    latency_s: float
    models: tuple[str, ...] | None = None
    loaded: tuple[str, ...] | None = None

    def has(self, model: str) -> bool | None:
        """Whether it knows *model*, perhaps by a tag or a date behind the name; ``None`` if it does not tell."""
        if self.models is None:
            return None
        return any(each == model or each.startswith((f"{model}:", f"{model}@")) for each in self.models)


async def ask_listing(
    wire: Wire, url: str, headers: Mapping[str, str], model: Model, *, secrets: Sequence[str], timeout_s: float
) -> Listing:
    """The listing at *url*. Raises a ``ProviderError`` that says why there is none, after *timeout_s* at the latest."""
    started = time.monotonic()
    answer = None
    try:
        async with asyncio.timeout(timeout_s):
            answer = await wire.send("GET", url, Headers(headers, accept="application/json"))
            names = await _names(answer, model, secrets)
    except TimeoutError:
        raise ProviderTimeout(f"no answer within {timeout_s:g} s", provider=model.provider, model=model.name) from None
    except ProviderError as error:
        error.provider, error.model = model.provider, model.name
        raise error.with_traceback(None)  # noqa: B904 - below are frames with what the server said: some repeat the key
    finally:
        if answer is not None:
            answer.close()
    return Listing(url=url, latency_s=time.monotonic() - started, models=names)


async def _names(answer: Answer, model: Model, secrets: Sequence[str]) -> tuple[str, ...] | None:
    if answer.status in _UNLISTED:
        return None
    if answer.status >= 300:
        told = failures.told(await answer.read(_MAX_ERROR_BYTES))
        cls = failures.kind(answer.status, told.code, told.message) or ProviderError
        message = f"HTTP {answer.status}: {told.message}"
        raise failures.failure(
            cls, message, model, status=answer.status, code=told.code, headers=answer.headers, secrets=secrets
        )
    body = await answer.read(MAX_LISTING_BYTES)
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        what = "a web page" if answer.content_type == "text/html" or body.lstrip()[:1] == b"<" else "no JSON"
        raise MalformedResponse(f"what came is {what}, not a list of models", status=answer.status) from None
    if (inner := failures.inner(data)) is not None:  # some send an error with a status that says all is well
        cls = failures.kind(inner.status, inner.code, inner.message) or MalformedResponse
        raise failures.failure(cls, inner.message, model, status=inner.status, code=inner.code, secrets=secrets)
    return _listed(data)


def _listed(data: Any) -> tuple[str, ...] | None:
    rows = data.get("data", data.get("models")) if isinstance(data, dict) else data
    if not isinstance(rows, list):
        return None
    names = (row.get("id") or row.get("key") or row.get("name") for row in rows if isinstance(row, dict))
    return tuple(name for name in names if isinstance(name, str))
