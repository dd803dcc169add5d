"""LM Studio: models on this machine or in this network, behind OpenAI's protocol."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from dataclasses import replace
from typing import ClassVar, Unpack
from urllib.parse import urlsplit

from typing_extensions import override

from ..errors import ConfigurationError, ProviderError, ProviderTimeout
from ..port import ProviderPort
from ..reply import Reply
from ..types import EmbedRequest, Model, Request, Timeouts
from ._litellm.dialects import Dialect, OpenAIChat, Sent
from ._litellm.lanes import Lanes
from .base import BaseProvider, Common, environment
from .listing import Listing
from .lmstudio_models import LMStudioModel, list_models
from .lmstudio_served import Served
from .wire import Key


class LMStudioProvider(BaseProvider):
    """A model that LM Studio serves, by the name that LM Studio shows for it. Without a key
    ``no-key`` is sent, which LM Studio does not look at.

    Without a name it is the model that is loaded, or the only one there is, found out with the first call; for
    embeddings it is the loaded model for those. A model that is not loaded has *load_s* seconds for that, beside the
    clock of the first content; the deadline for the whole answer holds for both. *ttl_s* is how long LM Studio keeps
    a model that it loaded for a call, after the last one. The window is the one that the model is loaded with, unless
    its facts name another.
    """

    provider: ClassVar[str] = "lmstudio"
    prefix: ClassVar[str] = "openai"
    model_variables: ClassVar[tuple[str, ...]] = ("LMSTUDIO_MODEL", "LM_STUDIO_MODEL")
    default_url: ClassVar[str | None] = "http://localhost:1234/v1"
    url_variables: ClassVar[tuple[str, ...]] = ("LMSTUDIO_BASE_URL", "LM_STUDIO_ENDPOINT")

    def __init__(
        self,
        model: str | Model | None = None,
        *,
        load_s: float = 120.0,
        ttl_s: int | None = None,
        **common: Unpack[Common],
    ) -> None:
        if not 0 < load_s < math.inf:
            raise ConfigurationError(f"load_s must be a number of seconds above 0, not {load_s!r}")
        if ttl_s is not None and (type(ttl_s) is not int or ttl_s < 1):
            raise ConfigurationError(f"ttl_s must be a whole number of seconds above 0, not {ttl_s!r}")
        self._named = bool(model or environment(self.model_variables))
        self._load_s = load_s
        self._ttl_s = ttl_s
        super().__init__(model, **common)

    async def models(self) -> tuple[LMStudioModel, ...]:
        """What LM Studio has, loaded or not. Raises ``ProviderError`` if it does not say within 2 seconds."""
        return await self._listed()

    @override
    async def listing(self, timeout_s: float = 5.0) -> Listing:
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                found = await self.models()
        except TimeoutError:
            raise ProviderTimeout(f"no answer within {timeout_s:g} s", provider=self.provider) from None
        says = any(each.loaded is not None for each in found)
        return Listing(
            url=self.model.base_url or "",
            latency_s=time.monotonic() - started,
            models=tuple(dict.fromkeys(name for each in found for name in (each.key, *each.instances))),
            loaded=tuple(name for each in found if each.loaded for name in (each.key, *each.instances))
            if says
            else None,
        )

    @override
    async def send(self, request: Request) -> Reply:
        started = asyncio.get_running_loop().time()
        request = request.due(started + self._total_s)
        if not self._named:  # first, so that spans and attempts are of a model, and not of whichever is loaded
            with contextlib.suppress(ProviderError, TimeoutError):
                async with asyncio.timeout_at(request.call.deadline):
                    await self._served.resolve(request)
        return (await super().send(request)).since(started)

    @override
    async def why_not_direct(self) -> str | None:
        lane = self._served.lane
        return await lane.why_not_direct() if isinstance(lane, Lanes) else "no translators are proved for it"

    @override
    def _facts(self, model: str | Model | None, base_url: str | None) -> Model:
        facts = super()._facts(model if self._named else "unnamed", base_url)
        if self._named:
            return facts
        return replace(facts, name=f"(loaded at {urlsplit(facts.base_url or '').netloc})")

    @override
    def _url(self, url: str | None) -> str | None:
        return url if url is None or url.endswith("/v1") else f"{url}/v1"

    @override
    def _connect(self, model: Model, key: str, timeouts: Timeouts) -> ProviderPort:
        self._listed = functools.partial(list_models, self._wire, model.base_url or "", Key(key))
        self._served = Served(
            model,
            named=self._named,
            connect=functools.partial(super()._connect, key=key, timeouts=timeouts),
            listed=self._listed,
            load_s=self._load_s,
            ttl_s=self._ttl_s,
        )
        return self._served

    @override
    def _dialect(self) -> Dialect:
        return _LMStudioChat(self._ttl_s)


class _LMStudioChat(OpenAIChat):
    """OpenAI's wire, and what LM Studio takes beside it."""

    def __init__(self, ttl_s: int | None) -> None:
        super().__init__()
        self._ttl_s = ttl_s

    @override
    def embedding(self, request: EmbedRequest, model: str, base_url: str, key: str) -> Sent:
        sent = super().embedding(request, model, base_url, key)
        if self._ttl_s is not None:
            sent.body["ttl"] = self._ttl_s
        return sent
