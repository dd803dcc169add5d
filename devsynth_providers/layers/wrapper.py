"""What every layer over one provider starts from."""

from __future__ import annotations

from typing_extensions import override

from ..port import ProviderPort
from ..types import Identity, Model


class Wrapper(ProviderPort):
    """A provider that asks another one, and does nothing by itself. A layer overrides ``send``."""

    def __init__(self, inner: ProviderPort) -> None:
        self.inner = inner

    @property
    @override
    def model(self) -> Model:
        return self.inner.model

    @property
    @override
    def identity(self) -> Identity:
        return self.inner.identity

    @property
    @override
    def max_context_size(self) -> int:
        return self.inner.max_context_size

    @override
    def count_tokens(self, text: str) -> int:
        return self.inner.count_tokens(text)

    @override
    async def warm_up(self) -> None:
        await self.inner.warm_up()

    @override
    async def aclose(self) -> None:
        await self.inner.aclose()
