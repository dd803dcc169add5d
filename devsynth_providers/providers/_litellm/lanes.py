"""Two ways to the same answer: the direct lane where LiteLLM's translators are proved, else the unified one."""

from __future__ import annotations

from typing_extensions import override

from ...errors import ConfigurationError
from ...port import ProviderPort
from ...reply import Reply
from ...types import EmbedRequest, Model, Request
from . import contracts, load
from .dialects import Dialect
from .direct import Direct, not_taken
from .unified import Unified


class Lanes(ProviderPort):
    """Takes *direct* as long as the installed LiteLLM keeps the contract of its *dialect*, else *unified*; and always
    *unified* for a model whose ``transport`` is ``litellm``."""

    def __init__(self, direct: Direct, unified: Unified, dialect: Dialect) -> None:
        self._direct = direct
        self._unified = unified
        self._dialect = dialect

    @property
    @override
    def model(self) -> Model:
        return self._direct.model

    @override
    async def send(self, request: Request) -> Reply:
        if isinstance(request, EmbedRequest) and not self._dialect.embeds:
            raise not_taken(self.model, "texts to embed; a model of another provider has to")
        lane = self._direct if await self.why_not_direct() is None else self._unified
        return await lane.send(request)

    @override
    def count_tokens(self, text: str) -> int:
        return self._unified.count_tokens(text)

    async def why_not_direct(self) -> str | None:
        """Why the unified lane is taken; ``None`` if it is not."""
        if self.model.transport == "litellm":
            return "transport is litellm"
        try:
            await load.ready()
        except ImportError as error:
            raise ConfigurationError(f"LiteLLM can not be loaded: {error}") from error
        return contracts.broken(self._dialect)

    @override
    async def warm_up(self) -> None:
        await self._unified.warm_up()
        await self.why_not_direct()

    @override
    async def aclose(self) -> None:
        await self._unified.aclose()
        await self._direct.aclose()
