"""A provider under another name, with the facts that a policy states of it."""

from __future__ import annotations

from typing_extensions import override

from ..port import ProviderPort
from ..reply import Reply
from ..types import Model, Request
from .wrapper import Wrapper


class Named(Wrapper):
    """Let *inner* answer as *model*: its name, its price and its window are what plans and bills go by."""

    def __init__(self, inner: ProviderPort, model: Model) -> None:
        super().__init__(inner)
        self._model = model

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        reply = await self.inner.send(request)
        reply.model = self._model
        return reply
