"""The ways to ask that are compared, one class each; a module is imported only where what it needs is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

SLOW_S = 0.0009
"""``Way.chunk_s`` of all that goes through LiteLLM: the same for all that are compared with each other."""
HERE = "here"
"""The environment of the benchmark itself; the others are files in ``requirements/``."""


class Missing(Exception):
    """This way does not exist in what is installed; the message says why."""


class Peer:
    """One way to ask one wire, set up as its documentation advises, with retries and telemetry off."""

    def __init__(self, url: str, wire: str) -> None:
        self.url = url
        self.wire = wire

    async def open(self) -> None:
        """Make what is made once. Runs in the event loop that the calls run in."""

    async def call(self) -> str:
        raise Missing("has no whole answers")

    async def stream(self) -> str:
        raise Missing("has no streams")

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        raise Missing("has no embeddings")

    async def other(self, what: str) -> None:
        """Something that is no call at all, by its name."""
        raise Missing(f"has no {what}")

    async def settle(self) -> None:
        """Do what calls have left to be done later: it is part of what they cost."""

    def forget(self) -> None:
        """Let go of what was gathered while measuring."""


@dataclass(frozen=True)
class Way:
    """Where a peer is, and which wires it speaks."""

    name: str
    home: str
    environment: str = HERE
    wires: tuple[str, ...] = ("openai", "anthropic")
    settings: tuple[tuple[str, Any], ...] = ()
    chunk_s: float = 0.0003
    """How long the far side leaves it for a chunk: enough to find each one alone, and little to wait."""

    def make(self, url: str, wire: str) -> Peer:
        module, _, cls = self.home.partition(":")
        peer: Peer = getattr(import_module(f"peers.{module}"), cls)(url, wire, **dict(self.settings))
        return peer


def _ours(name: str, lane: str, *, routed: bool, traced: bool = False) -> Way:
    settings = (("lane", lane), ("routed", routed), ("traced", traced))
    return Way(name, "ours:Ours", settings=settings, chunk_s=SLOW_S if lane == "unified" else Way.chunk_s)


LITELLM = "litellm.acompletion"
OPENAI_SDK = "openai SDK"

UNIFIED, DIRECT = "Router, unified lane", "Router, direct lane"
SPANS = ", with spans"

WAYS = (
    Way("aiohttp", "raw:Aiohttp"),
    Way("httpx", "raw:Httpx"),
    Way(OPENAI_SDK, "sdks:OpenAI", "sdks", ("openai",)),
    Way("openai SDK, the one LiteLLM takes", "sdks:OpenAI", HERE, ("openai",)),
    Way("anthropic SDK", "sdks:Anthropic", "sdks", ("anthropic",)),
    Way(LITELLM, "lite:Bare", chunk_s=SLOW_S),
    Way("litellm.Router", "lite:Routed", chunk_s=SLOW_S),
    Way("any-llm", "frameworks:AnyLlm", "any-llm"),
    Way("pydantic-ai, model_request", "frameworks:PydanticAi", "pydantic-ai"),
    Way("pydantic-ai, FallbackModel", "frameworks:PydanticAiFallback", "pydantic-ai"),
    Way("LangChain, with_fallbacks", "frameworks:LangChain", "langchain"),
    _ours("provider, unified lane", "unified", routed=False),
    _ours(UNIFIED, "unified", routed=True),
    _ours(UNIFIED + SPANS, "unified", routed=True, traced=True),
    _ours("provider, direct lane", "direct", routed=False),
    _ours(DIRECT, "direct", routed=True),
    _ours(DIRECT + SPANS, "direct", routed=True, traced=True),
)
BESIDE = (
    Way(UNIFIED, "ours:Beside", settings=(("traced", False),), chunk_s=SLOW_S),
    Way(UNIFIED + SPANS, "ours:Beside", settings=(("traced", True),), chunk_s=SLOW_S),
)
"""A router over LiteLLM's calls and those calls alone, each pair in one process."""
STATES = ("no SDK", "sampled out", "spans", "spans and metrics")
"""What an application may have set up, each in a process of its own."""
OURS, OURS_BARE = "Router, direct lane", "Router, without a wire"
SDK_ALONE = "OpenTelemetry's SDK alone, the same spans"
_PEERS = (
    (OURS_BARE, "instrumented:OursBare", HERE),
    (SDK_ALONE, "instrumented:SdkAlone", HERE),
    (OURS, "instrumented:Ours", HERE),
    ("LiteLLM's OpenTelemetry callback", "instrumented:LiteLlm", HERE),
    ("pydantic-ai's InstrumentedModel", "instrumented:PydanticAi", "telemetry"),
    ("OpenInference over the openai SDK", "instrumented:OpenInference", "telemetry"),
)
INSTRUMENTED = tuple(
    Way(f"{name}: {state}", home, environment, ("openai",), (("state", state),), SLOW_S)
    for name, home, environment in _PEERS
    for state in STATES
)
"""Calls with and without telemetry, each pair in one process."""
INSIDE = (
    Way("without an SDK", "ours:Inside", wires=("openai",), settings=(("traced", False),)),
    Way("with an SDK", "ours:Inside", wires=("openai",), settings=(("traced", True),)),
)
