"""LM Studio: models on this machine or in this network, behind OpenAI's protocol."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from ._litellm.dialects import Dialect, OpenAIChat
from .base import BaseProvider


class LMStudioProvider(BaseProvider):
    """A model that LM Studio serves, by the name that LM Studio shows for it. No key is sent unless one is given."""

    provider: ClassVar[str] = "lmstudio"
    prefix: ClassVar[str] = "openai"
    model_variables: ClassVar[tuple[str, ...]] = ("LMSTUDIO_MODEL", "LM_STUDIO_MODEL")
    default_url: ClassVar[str | None] = "http://localhost:1234/v1"
    url_variables: ClassVar[tuple[str, ...]] = ("LMSTUDIO_BASE_URL", "LM_STUDIO_ENDPOINT")

    @override
    def _url(self, url: str | None) -> str | None:
        return url if url is None or url.endswith("/v1") else f"{url}/v1"

    @override
    def _dialect(self) -> Dialect:
        return OpenAIChat()
