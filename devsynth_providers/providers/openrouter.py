"""OpenRouter: models of many providers behind one key."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from ._litellm.dialects import Dialect, OpenAIChat
from .base import BaseProvider


class OpenRouterProvider(BaseProvider):
    """A model by OpenRouter's name for it, as in ``anthropic/claude-sonnet-4.5``, by ``OPENROUTER_API_KEY``."""

    provider: ClassVar[str] = "openrouter"
    prefix: ClassVar[str] = "openrouter"
    model_variables: ClassVar[tuple[str, ...]] = ("OPENROUTER_MODEL",)
    default_url: ClassVar[str | None] = "https://openrouter.ai/api/v1"
    key_variable: ClassVar[str | None] = "OPENROUTER_API_KEY"
    listing_path: ClassVar[str] = "/key"  # its listing is public, and would say nothing of the key

    @override
    def _dialect(self) -> Dialect:
        return OpenAIChat("openrouter")
