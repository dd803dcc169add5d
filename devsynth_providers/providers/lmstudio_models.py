"""What LM Studio says of its models: which there are, which are loaded, and with how much context."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import MalformedResponse, ModelNotFound, ProviderError, ProviderTimeout, RequestRejected
from ..types import Model
from . import failures
from .wire import Headers, Key, Wire

LISTING_S = 2.0
"""How long a listing may take: longer, and it is not worth waiting for."""
MAX_LISTING_BYTES = 4 * 1024 * 1024
_REFUSED = (401, 403)
_ANY = Model(name="any", provider="lmstudio")

ModelType = Literal["llm", "embeddings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LMStudioModel:
    """A model that LM Studio has. ``None`` means that it does not say.

    *key* is its name, and *instances* are the names under which it is loaded, which may differ. *context_window* is
    what it is loaded with (the least, if it is loaded more than once), *max_context_window* what it could be.
    """

    key: str
    type: ModelType | None = None
    loaded: bool | None = None
    context_window: int | None = None
    max_context_window: int | None = None
    instances: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name to ask for: one under which it is loaded, so that it is not loaded once more."""
        return self.key if self.key in self.instances or not self.instances else self.instances[0]

    def answers_to(self, name: str) -> bool:
        """Whether a request for *name* is a request for this model."""
        return name == self.key or name in self.instances


async def list_models(wire: Wire, base_url: str, api_key: Key) -> tuple[LMStudioModel, ...]:
    """The models of the LM Studio at *base_url*, by the newest of its three listings that it has.

    Raises ``ProviderError`` if there is no server, if it refuses the key, or if nothing that it says within
    ``LISTING_S`` seconds is a list of models. What is wrong with a single model leaves out that model, or that fact.
    """
    root = base_url.removesuffix("/v1")
    headers = Headers(Authorization=f"Bearer {api_key}", Accept="application/json")
    problems: list[ProviderError] = []
    try:
        async with asyncio.timeout(LISTING_S):
            for path, read in _LISTINGS:
                found = read(await _asked(wire, f"{root}{path}", headers, problems))
                if found is not None:
                    return tuple(found)
    except TimeoutError:
        raise ProviderTimeout(f"no list of models after {LISTING_S:g} s", provider="lmstudio") from None
    except ProviderError as error:
        raise error.with_traceback(None)  # noqa: B904 - below are frames with what the server said: some repeat the key
    for problem in problems:
        if not isinstance(problem, ModelNotFound | RequestRejected):  # which may only say that a path is unknown
            raise problem.with_traceback(None)
    raise MalformedResponse("what came is no list of models; is this LM Studio?", provider="lmstudio")


async def _asked(wire: Wire, url: str, headers: Mapping[str, str], problems: list[ProviderError]) -> Mapping[str, Any]:
    """What *url* answers, if it is an object in JSON; else one with nothing in it: an unknown path has any status. What
    else is wrong is added to *problems*, and told if no other path answers."""
    try:
        answer = await wire.send("GET", url, headers)
        try:
            body = await answer.read(MAX_LISTING_BYTES)
        finally:
            answer.close()
    except MalformedResponse as error:
        problems.append(error)
        return {}
    if answer.status >= 400:
        problem = failures.of(answer, body, _ANY, [headers["Authorization"].partition(" ")[2]])
        if answer.status in _REFUSED:
            raise problem
        problems.append(problem)
        return {}
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _of_v1(data: Mapping[str, Any]) -> Iterable[LMStudioModel] | None:
    """``/api/v1/models``, since LM Studio 0.4."""
    if (rows := _rows(data, "models")) is None:
        return None
    found = []
    for row in rows:
        if (key := _name(row.get("key"))) is None:
            continue
        instances = _rows(row, "loaded_instances")
        configs = [each.get("config") for each in instances or ()]
        windows = [_tokens(each.get("context_length")) for each in configs if isinstance(each, dict)]
        found.append(
            LMStudioModel(
                key=key,
                type=_type(row.get("type"), key),
                loaded=None if instances is None else bool(instances),
                context_window=min((window for window in windows if window), default=None),
                max_context_window=_tokens(row.get("max_context_length")),
                instances=tuple(name for each in instances or () if (name := _name(each.get("id")))),
            )
        )
    return found


def _of_v0(data: Mapping[str, Any]) -> Iterable[LMStudioModel] | None:
    """``/api/v0/models``, since LM Studio 0.3.6, and OpenAI's ``/v1/models``, which has only the names."""
    if (rows := _rows(data, "data")) is None:
        return None
    return [
        LMStudioModel(
            key=key,
            type=_type(row.get("type"), key),
            loaded={"loaded": True, "not-loaded": False}.get(str(row.get("state"))),
            context_window=_tokens(row.get("loaded_context_length")),
            max_context_window=_tokens(row.get("max_context_length")),
        )
        for row in rows
        if (key := _name(row.get("id"))) is not None
    ]


_Read = Callable[[Mapping[str, Any]], Iterable[LMStudioModel] | None]
_LISTINGS: tuple[tuple[str, _Read], ...] = (
    ("/api/v1/models", _of_v1),
    ("/api/v0/models", _of_v0),
    ("/v1/models", _of_v0),
)


def _rows(data: Mapping[str, Any], name: str) -> list[dict[str, Any]] | None:
    rows = data.get(name)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else None


def _name(value: object) -> str | None:
    """*value*, if it can be sent back as the name of a model: no line breaks, no half characters."""
    return value if isinstance(value, str) and value.strip() and value.isprintable() else None


def _tokens(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _type(value: object, key: str) -> ModelType | None:
    if value in ("llm", "vlm"):
        return "llm"
    if value in ("embedding", "embeddings") or key.startswith("text-embedding-"):
        return "embeddings"
    return None
