"""The floor: an HTTP client and JSON, with nothing checked but the text."""

from __future__ import annotations

import array
import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from workload import MAX_TOKENS, PROMPT, TEMPERATURE

from . import Peer


class Raw(Peer):
    """The bodies and what is read from the answers; a subclass posts."""

    def __init__(self, url: str, wire: str) -> None:
        super().__init__(url, wire)
        path, self.headers = {
            "openai": ("/v1/chat/completions", {"Authorization": "Bearer k"}),
            "anthropic": ("/v1/messages", {"x-api-key": "k", "anthropic-version": "2023-06-01"}),
        }[wire]
        self.chat_url, self.embed_url = url + path, url + "/v1/embeddings"

    async def post(self, url: str, body: Any) -> Any:
        raise NotImplementedError

    def lines(self, url: str, body: Any) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def call(self) -> str:
        answer = await self.post(self.chat_url, self._asked())
        return answer["choices"][0]["message"]["content"] if self.wire == "openai" else answer["content"][0]["text"]

    async def stream(self) -> str:
        told = _openai_text if self.wire == "openai" else _anthropic_text
        lines = self.lines(self.chat_url, self._asked(stream=True))
        return "".join([told(line[5:].strip()) async for line in lines if line.startswith(b"data:")])

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        body = {"model": "m", "input": list(texts), "encoding_format": "base64"}
        answer = await self.post(self.embed_url, body)
        return [_unpacked(row["embedding"]) for row in answer["data"]]

    def _asked(self, *, stream: bool = False) -> dict[str, Any]:
        messages = [{"role": "user", "content": PROMPT}]
        body: dict[str, Any] = {
            "model": "m",
            "messages": messages,
            "temperature": TEMPERATURE,
            "max_tokens": MAX_TOKENS,
        }
        if stream:
            body["stream"] = True
            if self.wire == "openai":
                body["stream_options"] = {"include_usage": True}
        return body


class Aiohttp(Raw):
    async def open(self) -> None:
        import aiohttp

        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=self.headers)

    async def post(self, url: str, body: Any) -> Any:
        async with self.session.post(url, json=body) as answer:
            answer.raise_for_status()
            return json.loads(await answer.read())

    async def lines(self, url: str, body: Any) -> AsyncIterator[bytes]:
        async with self.session.post(url, json=body) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                yield line


class Httpx(Raw):
    async def open(self) -> None:
        import httpx

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self.client = httpx.AsyncClient(headers=self.headers, limits=limits, timeout=60)

    async def post(self, url: str, body: Any) -> Any:
        answer = await self.client.post(url, json=body)
        answer.raise_for_status()
        return json.loads(answer.content)

    async def lines(self, url: str, body: Any) -> AsyncIterator[bytes]:
        async with self.client.stream("POST", url, json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                yield line.encode()


def _openai_text(data: bytes) -> str:
    if data == b"[DONE]":
        return ""
    choices = json.loads(data)["choices"]
    return choices[0]["delta"].get("content", "") if choices else ""


def _anthropic_text(data: bytes) -> str:
    event = json.loads(data)
    return event["delta"]["text"] if event["type"] == "content_block_delta" else ""


def _unpacked(coded: str) -> list[float]:
    numbers = array.array("f")
    numbers.frombytes(base64.b64decode(coded))
    return numbers.tolist()
