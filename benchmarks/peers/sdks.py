"""The providers' own SDKs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workload import MAX_TOKENS, PROMPT, TEMPERATURE

from . import Peer

ASKED: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": TEMPERATURE,
    "max_tokens": MAX_TOKENS,
}


class OpenAI(Peer):
    async def open(self) -> None:
        from openai import AsyncOpenAI

        self.client = AsyncOpenAI(api_key="k", base_url=f"{self.url}/v1", max_retries=0)

    async def call(self) -> str:
        answer = await self.client.chat.completions.create(**ASKED)
        return answer.choices[0].message.content or ""

    async def stream(self) -> str:
        options: Any = {"include_usage": True}
        chunks = await self.client.chat.completions.create(**ASKED, stream=True, stream_options=options)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        answer = await self.client.embeddings.create(model="m", input=list(texts))
        return [row.embedding for row in answer.data]


class Anthropic(Peer):
    async def open(self) -> None:
        from anthropic import AsyncAnthropic

        self.client = AsyncAnthropic(api_key="k", base_url=self.url, max_retries=0)
        self.asked: dict[str, Any] = {name: value for name, value in ASKED.items() if name != "temperature"}
        self.asked["extra_body"] = {"temperature": TEMPERATURE}  # its newest versions have no keyword for it

    async def call(self) -> str:
        answer = await self.client.messages.create(**self.asked)
        return answer.content[0].text

    async def stream(self) -> str:
        events = await self.client.messages.create(**self.asked, stream=True)
        deltas = [event.delta async for event in events if event.type == "content_block_delta"]
        return "".join([delta.text for delta in deltas if delta.type == "text_delta"])
