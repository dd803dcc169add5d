"""A model for processes that tests start: it takes its time, and writes down what it was asked."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from typing_extensions import override

from devsynth_providers import ChatRequest, Chunk, EmbedRequest, Model, ProviderPort, Reply, Request, Usage

LOG = "PACED_LOG"
"""The variable that says in which file it is written, by any number of processes."""
CHAT, EMBEDDING = Usage(4, 90), Usage(5, 0)
TAKES_S = 0.05


class Paced(ProviderPort):
    """Says what the prompt ends with; a vector is the length of its text, and 1."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        _write_down(request)
        return await Reply.open(self.model, self._chunks(request))

    async def _chunks(self, request: Request) -> AsyncGenerator[Chunk, None]:
        await asyncio.sleep(TAKES_S)
        if isinstance(request, EmbedRequest):
            rows = tuple((float(len(text)), 1.0) for text in request.texts)
            yield Chunk(vectors=rows, finish_reason="stop", usage=EMBEDDING)
        else:
            yield Chunk(f"about {request.text.rpartition(chr(10))[2]}", finish_reason="stop", usage=CHAT)


def _write_down(request: Request) -> None:
    texts = request.texts if isinstance(request, EmbedRequest) else (request.text,)
    with Path(os.environ[LOG]).open("a", encoding="utf-8") as log:
        log.write(json.dumps([isinstance(request, ChatRequest), texts, time.monotonic()]) + "\n")
