"""This library: a provider alone and a router, on each lane; and what the router takes without any wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import fields
from typing import Any

from typing_extensions import override
from workload import MAX_TOKENS, PIECES, PROMPT, TEMPERATURE, TEXT, check_text

import devsynth_providers as library
from devsynth_providers import (
    FREE,
    ChatRequest,
    Chunk,
    Model,
    Policy,
    ProviderPort,
    Reply,
    Request,
    Retry,
    Router,
    Rule,
    Usage,
    telemetry,
)
from devsynth_providers.testing import ScriptedProvider

from . import Missing, Peer
from .lite import Bare

PROVIDERS = {"openai": "OpenAIProvider", "anthropic": "AnthropicProvider"}


class Traced(Peer):
    """With or without an OpenTelemetry SDK, whose spans are counted, and dropped: what becomes of them elsewhere is no
    part of a call."""

    def __init__(self, url: str, wire: str, *, traced: bool) -> None:
        super().__init__(url, wire)
        self.spans: Any = None
        if traced:
            self.spans = _counter()
            telemetry.configure(exporter=self.spans)

    def forget(self) -> None:
        if self.spans is not None:
            self.spans.came = 0


class Ours(Traced):
    def __init__(self, url: str, wire: str, *, lane: str, routed: bool, traced: bool) -> None:
        super().__init__(url, wire, traced=traced)
        facade = getattr(library, PROVIDERS[wire], None)
        if facade is None:
            raise Missing(f"this version has no {PROVIDERS[wire]}")
        model = _model(url, wire, lane)
        self.port: ProviderPort = _router(model) if routed else facade(model, retry_attempts=1)

    async def open(self) -> None:
        await self.port.warm_up()

    def forget(self) -> None:
        if self.spans is not None and not self.spans.came:
            raise AssertionError("no span came: nothing was measured with them")
        super().forget()

    async def call(self) -> str:
        return await self.port.generate(PROMPT, TEMPERATURE, MAX_TOKENS)

    async def stream(self) -> str:
        return "".join([piece async for piece in self.port.generate_stream(PROMPT, TEMPERATURE, MAX_TOKENS)])

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return await self.port.embed_batch(texts)


class Beside(Traced):
    """LiteLLM's own calls, and a router over them, in one process: a few percent are less than two processes differ."""

    async def open(self) -> None:
        router = Ours(self.url, self.wire, lane="unified", routed=True, traced=False)
        self.ways: dict[str, Peer] = {"litellm": Bare(self.url, self.wire), "ours": router}
        for way in self.ways.values():
            await way.open()

    async def other(self, what: str) -> None:
        name, kind = what.split()
        way = self.ways[name]
        check_text(await (way.call() if kind == "call" else way.stream()))


class Says(ScriptedProvider):
    """Always answers the same, and remembers nothing."""

    def __init__(self, model: Model, pieces: Sequence[str]) -> None:
        super().__init__(model=model)
        self._pieces = pieces

    @override
    async def send(self, request: Request) -> Reply:
        return await Reply.open(self.model, self._said())

    async def _said(self) -> AsyncGenerator[Chunk, None]:
        for piece in self._pieces:
            yield Chunk(piece)
        yield Chunk(finish_reason="stop", usage=Usage(10, 20))


class Inside(Traced):
    """What is left of a call if nothing is asked."""

    async def open(self) -> None:
        model = _model(self.url, "openai", "unified")
        self.model, self.request = model, ChatRequest.of(PROMPT)
        self.router = _router(model, Says(model, [TEXT]))
        self.streaming = _router(model, Says(model, PIECES))

    async def call(self) -> str:
        return await self.router.generate(PROMPT, TEMPERATURE, MAX_TOKENS)

    async def stream(self) -> str:
        return "".join([piece async for piece in self.streaming.generate_stream(PROMPT, TEMPERATURE, MAX_TOKENS)])

    async def other(self, what: str) -> None:
        if what == "plan":
            self.router.plan(PROMPT)
            return
        with telemetry.request_span(self.request, "p"), telemetry.attempt_span(self.request, self.model):
            telemetry.event("fallback", reason="x")


def _counter() -> Any:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Counter(SpanExporter):
        came = 0

        @override
        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            self.came += len(spans)
            return SpanExportResult.SUCCESS

    return Counter()


def _model(url: str, wire: str, lane: str) -> Model:
    more: dict[str, Any] = {}
    if "transport" in {field.name for field in fields(Model)}:
        more["transport"] = "litellm" if lane == "unified" else "auto"
    elif lane == "direct":
        raise Missing("this version has no direct lane")
    base = f"{url}/v1" if wire == "openai" else url
    abilities = ("chat", "embeddings") if wire == "openai" else ("chat",)
    return Model(name="m", provider=wire, base_url=base, price=FREE, abilities=frozenset(abilities), **more)


def _router(model: Model, provider: ProviderPort | None = None) -> Router:
    policy = Policy(
        models={"m": model}, rules=(Rule(name="all", models=("m",), coalesce="never"),), retry=Retry(attempts=1)
    )
    return Router(policy, {"m": provider} if provider else None)
