"""What is known of batches of texts: how many one request may hold, and which refusals are of the whole alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from .errors import AllProvidersFailed, ContextTooLong, ProviderError, RequestRejected
from .types import Chunk, Model

_REFUSED = (400, 422)


class Capacity(NamedTuple):
    """How many texts one request may hold, and how many tokens in all."""

    texts: int
    tokens: int

    @classmethod
    def of(cls, models: Iterable[Model]) -> Self:
        """What all *models* take."""
        each = [OPENAI if _is_openai(model) else OTHERS for model in models]
        return cls(min(one.texts for one in each), min(one.tokens for one in each))


OPENAI = Capacity(2048, 300_000)
"""API reference, "Create embeddings", of the parameter ``input``."""
OTHERS = Capacity(96, 20_000)
"""The least that is usual: Cohere takes 96 texts ("Embed API"), Vertex AI 20,000 tokens ("Text embeddings API")."""


def may_be_parted(error: ProviderError) -> bool:
    """Whether some of the texts may be taken where all of them were not."""
    if isinstance(error, AllProvidersFailed):
        return any(map(may_be_parted, error.exceptions))
    return isinstance(error, ContextTooLong) or (isinstance(error, RequestRejected) and error.status in _REFUSED)


async def once(chunk: Chunk) -> AsyncGenerator[Chunk, None]:
    """An answer that is one piece."""
    yield chunk


def _is_openai(model: Model) -> bool:
    """Whether it is OpenAI's own server, not another one that speaks like it."""
    return model.provider == "openai" and urlsplit(model.base_url or "").hostname in (None, "api.openai.com")
