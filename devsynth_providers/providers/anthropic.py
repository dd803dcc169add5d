"""Anthropic's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from typing_extensions import override

from ._litellm.dialects import AnthropicMessages, Dialect
from .base import BaseProvider


class AnthropicProvider(BaseProvider):
    """A model of Anthropic's, by ``ANTHROPIC_API_KEY``. There are no embeddings: a request for them is refused.

    *base_url* is another server that speaks Anthropic's protocol, with or without ``/v1`` at its end.
    """

    provider: ClassVar[str] = "anthropic"
    prefix: ClassVar[str] = "anthropic"
    model_variables: ClassVar[tuple[str, ...]] = ("ANTHROPIC_MODEL",)
    default_url: ClassVar[str | None] = "https://api.anthropic.com"
    key_variable: ClassVar[str | None] = "ANTHROPIC_API_KEY"
    listing_path: ClassVar[str] = "/v1/models?limit=1000"

    @override
    def _url(self, url: str | None) -> str | None:
        return url and url.removesuffix("/v1")

    @override
    def _dialect(self) -> Dialect:
        return AnthropicMessages()

    @override
    def _listing_headers(self, key: str) -> Mapping[str, str]:
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}
