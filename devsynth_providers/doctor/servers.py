"""Whether the servers of models answer: each is asked once for its listing, all at the same time. It costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from ..errors import (
    AuthenticationError,
    ConfigurationError,
    DevSynthError,
    MalformedResponse,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimitError,
)
from ..layers.wrapper import Wrapper
from ..port import ProviderPort
from ..providers.base import BaseProvider
from ..providers.listing import Listing
from ..providers.stub import StubProvider
from ..types import Model

TIMEOUT_S = 5.0
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What came of asking one model's server. *listed* says whether the server knows the model; ``None``: not told.

    *error* is the kind of the error it ended with, as in traces.
    """

    state: Literal["reachable", "in doubt", "broken", "nothing to reach"]
    message: str
    advice: str = ""
    latency_s: float | None = None
    listed: bool | None = None
    models: tuple[str, ...] | None = None
    loaded: tuple[str, ...] | None = None
    error: str | None = None


async def reach(providers: Mapping[str, ProviderPort], timeout_s: float = TIMEOUT_S) -> dict[str, Reach]:
    """Ask the server of each of *providers*; those that share one share the question."""
    asked: dict[object, asyncio.Task[Listing | None]] = {}
    for provider in map(facade, providers.values()):
        if provider is not None and (key := _server(provider)) not in asked:
            asked[key] = asyncio.create_task(provider.listing(timeout_s))
    await asyncio.gather(*asked.values(), return_exceptions=True)
    return {name: _reach(provider, asked) for name, provider in providers.items()}


def facade(provider: ProviderPort) -> BaseProvider | None:
    """The one of ours that is behind *provider*, if one is."""
    while not isinstance(provider, BaseProvider):
        if not isinstance(provider, Wrapper):
            return None
        provider = provider.inner
    return provider


def _server(provider: BaseProvider) -> object:
    model = provider.model
    return type(provider), model.base_url or model.name, model.api_key_env


def _reach(provider: ProviderPort, asked: Mapping[object, asyncio.Task[Listing | None]]) -> Reach:
    ours = facade(provider)
    if ours is None:
        inside = isinstance(provider, StubProvider)
        where = "it answers inside this process" if inside else "its class has no listing to ask for"
        return Reach(state="nothing to reach", message=where)
    error = (task := asked[_server(ours)]).exception()
    if error is not None:
        if not isinstance(error, DevSynthError):
            raise error
        return Reach(
            state="in doubt" if _doubtful(error) else "broken",
            message=_said(error, ours.model),
            advice=advice(error, ours),
            error=error.kind,
        )
    listing = task.result()
    if listing is None:
        where = (
            f"a file on this machine: {ours.model.path}"
            if ours.model.path
            else "only LiteLLM knows its address; a trial would tell"
        )
        return Reach(state="nothing to reach", message=where)
    return _answered(listing, ours.model.id if ours.prefix else ours.model.id.partition("/")[2])


def _answered(listing: Listing, model: str) -> Reach:
    """What *listing* tells of *model*, by the name that its server is asked for."""
    host = urlsplit(listing.url).netloc
    known, count = listing.has(model), len(listing.models or ())
    tells = "" if known is None else f", lists {count} model{'' if count == 1 else 's'}"
    if listing.loaded is not None:
        tells += f"; loaded: {', '.join(dict.fromkeys(listing.loaded)) or 'none'}"
        if known and model not in listing.loaded:
            tells += f"; {model} is loaded by its first call, which waits for that"
    return Reach(
        state="reachable",
        message=f"{host} answers in {listing.latency_s:.2f} s{tells}",
        latency_s=listing.latency_s,
        listed=known,
        models=listing.models,
        loaded=listing.loaded,
    )


def _doubtful(error: DevSynthError) -> bool:
    """Whether the server may well answer, though it does not list: it is busy, or the key may do only some things."""
    return isinstance(error, RateLimitError) or (isinstance(error, AuthenticationError) and error.status == 403)


def _said(error: DevSynthError, model: Model) -> str:
    host = urlsplit(model.base_url or "").netloc
    return str(error) if host in str(error) else f"{host}: {error}"


def advice(error: DevSynthError, provider: BaseProvider) -> str:
    """What whoever is on call does about *error*."""
    model = provider.model
    host = urlsplit(model.base_url or "").hostname or ""
    variable = model.api_key_env or provider.key_variable
    match error:
        case AuthenticationError(status=403):
            return "a key may be allowed to ask and not to list: a trial tells (doctor --trial)"
        case AuthenticationError():
            return f"look at the key in {variable}" if variable else "this server wants a key: give it api_key_env"
        case QuotaExhausted():
            return "the account behind the key has nothing left to spend: top it up"
        case RateLimitError():
            return "it is there, and asks to be left alone for a while"
        case MalformedResponse():
            return "look at base_url: it ends where the API begins, mostly with /v1"
        case ConfigurationError():
            return "correct the setting"
        case ProviderUnavailable() | ProviderTimeout() if model.provider == "lmstudio":
            return "start LM Studio's server (lms server start), or say where it is: LMSTUDIO_BASE_URL"
        case ProviderUnavailable() | ProviderTimeout() if host in _LOOPBACK:
            return "start the server, or correct base_url"
        case ProviderUnavailable() | ProviderTimeout():
            return "look at base_url, the network and its proxy, or whether the server is up"
        case _:
            return "ask the server's log"
