"""LM Studio: models on this machine or in this network, behind OpenAI's protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from typing_extensions import override

from ..types import Model
from .base import BaseProvider


class LMStudioProvider(BaseProvider):
    """A model that LM Studio serves, by the name that LM Studio shows for it. No key is sent unless one is given."""

    provider: ClassVar[str] = "lmstudio"
    prefix: ClassVar[str] = "openai"
    model_variables: ClassVar[tuple[str, ...]] = ("LMSTUDIO_MODEL", "LM_STUDIO_MODEL")
    default_url: ClassVar[str | None] = "http://localhost:1234/v1"
    url_variables: ClassVar[tuple[str, ...]] = ("LMSTUDIO_BASE_URL", "LM_STUDIO_ENDPOINT")

    @override
    def _facts(self, model: str | Model | None, base_url: str | None) -> Model:
        facts = super()._facts(model, base_url)
        url = facts.base_url or ""
        return facts if url.endswith("/v1") else replace(facts, base_url=f"{url}/v1")
