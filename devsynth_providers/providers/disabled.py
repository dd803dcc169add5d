"""What stands where providers are switched off: it answers nothing, opens nothing, and says why."""

from __future__ import annotations

from typing import NoReturn

from typing_extensions import override

from ..errors import ConfigurationError
from ..port import ProviderPort
from ..types import Model, Request


class DisabledProvider(ProviderPort):
    """Every call raises ``ConfigurationError`` with *reason*."""

    def __init__(self, reason: str, model: str | None = None) -> None:
        self.reason = reason
        self._model = Model(name=model or "disabled", provider="disabled")

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> NoReturn:
        raise ConfigurationError(self.reason)
