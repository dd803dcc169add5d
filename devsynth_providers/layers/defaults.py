"""A provider's own temperature and length of answers, for callers who do not say theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from typing_extensions import override

from ..port import ProviderPort
from ..reply import Reply
from ..types import ChatRequest, Request, left_out
from .wrapper import Wrapper


class Defaults(Wrapper):
    """Put *temperature* and *max_tokens* where the caller said nothing; what a caller says always holds.

    Below a router they do not apply: its plan has reckoned with what the request says, and its budget with the cost of
    that.
    """

    def __init__(self, inner: ProviderPort, *, temperature: float | None = None, max_tokens: int | None = None) -> None:
        super().__init__(inner)
        given = {"temperature": temperature, "max_tokens": max_tokens}
        self._defaults = {name: value for name, value in given.items() if value is not None}

    @property
    @override
    def bare(self) -> ProviderPort:
        return self.inner.bare

    @override
    async def send(self, request: Request) -> Reply:
        if isinstance(request, ChatRequest):
            mine: dict[str, Any] = {
                name: value for name, value in self._defaults.items() if left_out(getattr(request, name))
            }
            request = replace(request, **mine)
        return await self.inner.send(request)
