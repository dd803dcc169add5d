"""Other libraries over several providers, each with an environment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workload import MAX_TOKENS, PROMPT, TEMPERATURE

from . import Missing, Peer
from .sdks import ASKED


class AnyLlm(Peer):
    async def open(self) -> None:
        from any_llm import AnyLLM

        base = f"{self.url}/v1" if self.wire == "openai" else self.url
        self.client = AnyLLM.create(self.wire, api_key="k", api_base=base, max_retries=0)

    async def call(self) -> str:
        return (await self.client.acompletion(**ASKED)).choices[0].message.content

    async def stream(self) -> str:
        options = {"stream_options": {"include_usage": True}} if self.wire == "openai" else {}
        chunks = await self.client.acompletion(**ASKED, stream=True, **options)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [row.embedding for row in (await self.client.aembedding("m", list(texts))).data]


class PydanticAi(Peer):
    """Its leanest way, without an agent."""

    async def open(self) -> None:
        from pydantic_ai import direct, messages
        from pydantic_ai.settings import ModelSettings

        self.direct = direct
        self.messages = [messages.ModelRequest.user_text_prompt(PROMPT)]
        self.settings = ModelSettings(temperature=TEMPERATURE, max_tokens=MAX_TOKENS)
        self.model = self.build()

    def build(self) -> Any:
        if self.wire == "anthropic":
            from anthropic import AsyncAnthropic
            from pydantic_ai.models.anthropic import AnthropicModel
            from pydantic_ai.providers.anthropic import AnthropicProvider

            client = AsyncAnthropic(api_key="k", base_url=self.url, max_retries=0)
            return AnthropicModel("m", provider=AnthropicProvider(anthropic_client=client))
        from pydantic_ai.embeddings import Embedder
        from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
        from pydantic_ai.models.openai import OpenAIChatModel

        self.embedder = Embedder(OpenAIEmbeddingModel("m", provider=self._openai()))
        return OpenAIChatModel("m", provider=self._openai())

    def _openai(self) -> Any:
        from openai import AsyncOpenAI
        from pydantic_ai.providers.openai import OpenAIProvider

        client = AsyncOpenAI(api_key="k", base_url=f"{self.url}/v1", max_retries=0)
        return OpenAIProvider(openai_client=client)

    async def call(self) -> str:
        answer = await self.direct.model_request(self.model, self.messages, model_settings=self.settings)
        return answer.text or ""

    async def stream(self) -> str:
        pieces = []
        asked = self.direct.model_request_stream(self.model, self.messages, model_settings=self.settings)
        async with asked as stream:
            async for event in stream:
                if event.event_kind == "part_start" and event.part.part_kind == "text":
                    pieces.append(event.part.content)
                elif event.event_kind == "part_delta" and event.delta.part_delta_kind == "text":
                    pieces.append(event.delta.content_delta)
        return "".join(pieces)

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return (await self.embedder.embed_documents(list(texts))).embeddings


class PydanticAiFallback(PydanticAi):
    def build(self) -> Any:
        from pydantic_ai.models.fallback import FallbackModel

        return FallbackModel(super().build(), super().build())

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        raise Missing("FallbackModel has no embeddings")


class LangChain(Peer):
    async def open(self) -> None:
        self.model = self.build().with_fallbacks([self.build()])

    def build(self) -> Any:
        common: dict[str, Any] = {"api_key": "k", "max_retries": 0, "temperature": TEMPERATURE}
        if self.wire == "anthropic":
            from langchain_anthropic import ChatAnthropic

            return ChatAnthropic(model="m", base_url=self.url, max_tokens=MAX_TOKENS, **common)
        from langchain_openai import ChatOpenAI, OpenAIEmbeddings

        base = f"{self.url}/v1"
        self.embedder = OpenAIEmbeddings(
            model="m", api_key="k", base_url=base, max_retries=0, check_embedding_ctx_length=False
        )
        return ChatOpenAI(model="m", base_url=base, max_tokens=MAX_TOKENS, stream_usage=True, **common)

    async def call(self) -> str:
        return (await self.model.ainvoke(PROMPT)).text

    async def stream(self) -> str:
        return "".join([chunk.text async for chunk in self.model.astream(PROMPT)])

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return await self.embedder.aembed_documents(list(texts))
