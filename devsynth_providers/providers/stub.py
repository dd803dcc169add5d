"""Answers without a model: deterministic, offline, free. By name or by ``DEVSYNTH_OFFLINE``, never by default."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import replace

from typing_extensions import override

from ..analysis import estimate_tokens
from ..port import ProviderPort
from ..reply import Reply
from ..types import FREE, ChatRequest, Chunk, EmbedRequest, Model, Request, Usage, Vector

NAME = "stub-llm"


class StubProvider(ProviderPort):
    """Repeats what it is asked, with its own name before it: nobody can take it for a model's answer.

    The text is ``[sys:SYSTEM] [stub:NAME] PROMPT``, cut to *max_tokens* characters; a vector is the first 8 bytes of
    the text's SHA-256, each divided by 255.
    """

    def __init__(self, model: str | Model | None = None) -> None:
        if not isinstance(model, Model):
            model = Model(
                name=model or NAME,
                provider="stub",
                price=FREE,
                context_window=1_000_000,
                abilities=frozenset(("chat", "embeddings", "tools", "json")),
            )
        self._model = replace(model, provider="stub")

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        return await Reply.open(self.model, self._chunks(request))

    async def _chunks(self, request: Request) -> AsyncGenerator[Chunk, None]:
        if isinstance(request, EmbedRequest):
            yield Chunk(
                vectors=tuple(map(_vector, request.texts)),
                finish_reason="stop",
                usage=Usage(estimate_tokens(request.text), 0),
            )
            return
        assert isinstance(request, ChatRequest)
        text = self._text(request)
        cut = text[: request.max_tokens]
        pieces = cut.split(" ") if request.stream else [cut]
        for number, piece in enumerate(pieces):
            yield Chunk(text=piece if number == 0 else f" {piece}")
        yield Chunk(
            finish_reason="stop" if cut == text else "length",
            usage=Usage(estimate_tokens(request.text), estimate_tokens(cut)),
        )

    def _text(self, request: ChatRequest) -> str:
        system = next((message.content for message in request.messages if message.role == "system"), "")
        prompt = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
        return (f"[sys:{system}] " if system else "") + f"[stub:{NAME}] {prompt}"


def _vector(text: str) -> Vector:
    return tuple(byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:8])
