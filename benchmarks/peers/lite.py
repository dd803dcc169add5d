"""LiteLLM as it comes, and its own router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import Peer
from .sdks import ASKED


class Bare(Peer):
    async def open(self) -> None:
        import litellm

        litellm.telemetry = False
        litellm.suppress_debug_info = True
        self.litellm = litellm
        base = f"{self.url}/v1" if self.wire == "openai" else self.url
        self.target = {"model": f"{self.wire}/m", "api_key": "k", "api_base": base}
        self.ask: dict[str, Any] = {name: value for name, value in ASKED.items() if name != "model"}

    async def call(self) -> str:
        return (await self.complete()).choices[0].message.content

    async def stream(self) -> str:
        chunks = await self.complete(stream=True, stream_options={"include_usage": True})
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [row["embedding"] for row in (await self.vectors(list(texts))).data]

    async def complete(self, **more: Any) -> Any:
        return await self.litellm.acompletion(**self.target, **self.ask, max_retries=0, num_retries=0, **more)

    async def vectors(self, texts: list[str]) -> Any:
        return await self.litellm.aembedding(**self.target, input=texts, max_retries=0, num_retries=0)


class Routed(Bare):
    async def open(self) -> None:
        await super().open()
        models = [{"model_name": "m", "litellm_params": self.target}]
        self.router = self.litellm.Router(model_list=models, num_retries=0)

    async def complete(self, **more: Any) -> Any:
        return await self.router.acompletion(model="m", **self.ask, **more)

    async def vectors(self, texts: list[str]) -> Any:
        return await self.router.aembedding(model="m", input=texts)
