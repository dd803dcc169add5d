"""What all facades share: a wire to one model; and retries, clocks and spans for use without a router."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from typing_extensions import override

from .. import catalogue
from ..errors import ConfigurationError
from ..layers.metered import Metered
from ..layers.retrying import Retrying
from ..layers.timed import Timed
from ..layers.traced import Traced
from ..layers.wrapper import Wrapper
from ..port import ProviderPort
from ..reply import Reply
from ..types import Model, Request, Retry, Timeouts
from ._litellm.unified import Unified

NO_KEY = "no-key"
"""Sent where a server wants none. LiteLLM would else send the key of OpenAI to whatever server this is."""


class BaseProvider(Wrapper):
    """One model behind LiteLLM. A subclass says, as data, what is different about its provider.

    *model* is a name or a ``Model``; *retry_attempts* counts all attempts, the first too; *timeout* is the deadline for
    an answer over all attempts, in seconds, or all four clocks. Where a setting is not given, the environment is
    asked. Raises ``ConfigurationError`` if a key is missing, before anything is opened.
    """

    provider: ClassVar[str]
    """The name in policies, answers and traces."""
    prefix: ClassVar[str]
    """LiteLLM's name for the provider."""
    default_model: ClassVar[str | None] = None
    model_variables: ClassVar[tuple[str, ...]] = ()
    default_url: ClassVar[str | None] = None
    url_variables: ClassVar[tuple[str, ...]] = ()
    key_variable: ClassVar[str | None] = None
    """Where the key for ``default_url`` is; no other server is ever sent it."""

    def __init__(
        self,
        model: str | Model | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        retry_attempts: int = 3,
        timeout: float | Timeouts = 60,
    ) -> None:
        timeouts = Timeouts.of(timeout)
        facts = self._facts(model, base_url)
        super().__init__(self._connect(facts, self._key(facts, api_key), timeouts))
        self._total_s = timeouts.total_s
        self._layered = Retrying(Metered(Traced(Timed(self.inner, timeouts))), Retry(attempts=retry_attempts))

    @property
    @override
    def bare(self) -> ProviderPort:
        return self.inner

    @override
    async def send(self, request: Request) -> Reply:
        started = asyncio.get_running_loop().time()
        return (await self._layered.send(request.due(started + self._total_s))).since(started)

    def _facts(self, model: str | Model | None, base_url: str | None) -> Model:
        facts = model or _environment(self.model_variables) or self.default_model
        if facts is None:
            ways = " or ".join(("the argument model", *self.model_variables))
            raise ConfigurationError(f"{type(self).__name__} needs a model: {ways}")
        url = base_url or (facts.base_url if isinstance(facts, Model) else None) or _environment(self.url_variables)
        if isinstance(facts, str):
            facts = catalogue.complete(Model(name=facts, provider=self.provider, base_url=url))
        return replace(facts, base_url=_checked(url or self.default_url))

    def _key(self, model: Model, given: str | None) -> str:
        at_home = model.base_url == self.default_url
        variable = model.api_key_env or (self.key_variable if at_home else None)
        key = given or (os.environ.get(variable) if variable else None)
        if variable and not key:
            raise ConfigurationError(f"{variable} is not set, and no api_key is given")
        return key or NO_KEY

    def _connect(self, model: Model, key: str, timeouts: Timeouts) -> ProviderPort:
        return Unified(
            model,
            target=f"{self.prefix}/{model.id}",
            api_key=key,
            base_url=model.base_url,
            connect_s=timeouts.connect_s,
            extra=self._extra(),
        )

    def _extra(self) -> Mapping[str, Any]:
        """What LiteLLM is told with every call, beside what all providers need."""
        return {}


def _environment(variables: Sequence[str]) -> str | None:
    return next((value for name in variables if (value := os.environ.get(name))), None)


def _checked(url: str | None) -> str | None:
    """*url*, if it is one that a request with a key in it may go to."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for what is no port
    except ValueError as error:
        raise ConfigurationError(f"base_url is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"base_url must start with http:// or https:// and name a host, not {url!r}")
    if parts.username or parts.password:
        raise ConfigurationError("base_url must not carry a user name or a password; use api_key")
    url = url.rstrip("/")
    if url.endswith(("/chat/completions", "/embeddings")):
        raise ConfigurationError(f"base_url ends before the name of the call: {url.rpartition('/v1/')[0]}/v1")
    return url
