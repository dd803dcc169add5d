"""Engines of our own as a LiteLLM provider, so that a model in this process's care is called like any other."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

from ...guard import Guard
from . import load

PREFIX = "devsynth_llama"

PARAMETERS = frozenset(
    (
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "repeat_penalty",
        "response_format",
    )
)
"""What an engine takes beside temperature, stop and max_tokens."""

_PASSED = PARAMETERS | {"temperature", "stop"}

_guard = Guard()
_keys = itertools.count(1)
_engines: weakref.WeakValueDictionary[str, Engine] = weakref.WeakValueDictionary()


class Engine(Protocol):
    """What answers: events with ``text`` as it is written, and a last one with ``done``."""

    def ask(self, **request: Any) -> AsyncGenerator[dict[str, Any], None]: ...


def enlist(engine: Engine) -> str:
    """Make *engine* known for as long as somebody else holds on to it; returns LiteLLM's name for it."""
    key = f"engine-{next(_keys)}"
    _engines[key] = engine
    return f"{PREFIX}/{key}"


async def ready() -> Any:
    """LiteLLM, with our provider among its own."""
    litellm = await load.ready()
    with _guard:
        if not any(entry["provider"] == PREFIX for entry in litellm.custom_provider_map):
            litellm.custom_provider_map.append({"provider": PREFIX, "custom_handler": _handler(litellm)})
    return litellm


def _handler(litellm: Any) -> Any:
    class Handler(litellm.CustomLLM):  # type: ignore[misc]
        """LiteLLM's side of an engine."""

        async def acompletion(self, *, model: str, messages: Any, optional_params: Any, **_: Any) -> Any:
            text, done = [], {}
            async with aclosing(_chat(model, messages, optional_params)) as events:
                async for event in events:
                    text.append(event.get("text", ""))
                    done = event.get("done", {})
            message = {"role": "assistant", "content": "".join(text)}
            choice = {"index": 0, "message": message, "finish_reason": done["finish_reason"]}
            return litellm.ModelResponse(model=model, choices=[choice], usage=_usage(done))

        async def astreaming(
            self, *, model: str, messages: Any, optional_params: Any, **_: Any
        ) -> AsyncIterator[dict[str, Any]]:
            async with aclosing(_chat(model, messages, optional_params)) as events:
                async for event in events:
                    done = event.get("done")
                    yield {
                        "text": event.get("text", ""),
                        "is_finished": done is not None,
                        "finish_reason": done["finish_reason"] if done else "",
                        "index": 0,
                        "tool_use": None,
                        "usage": _usage(done) if done else None,
                    }

        async def aembedding(self, *, model: str, input: Any, **_: Any) -> Any:
            async with aclosing(_engines[model].ask(do="embed", texts=list(input))) as events:
                done = [event["done"] async for event in events][-1]
            data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(done["vectors"])]
            return litellm.EmbeddingResponse(model=model, data=data, usage=_usage(done))

    return Handler()


def _chat(model: str, messages: Any, options: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    plain = [{"role": each["role"], "content": each.get("content") or ""} for each in messages]
    sampling = {key: value for key, value in options.items() if value is not None and key in _PASSED}
    stop = sampling.pop("stop", [])
    return _engines[model].ask(
        do="chat",
        messages=plain,
        max_tokens=options["max_tokens"],
        stop=[stop] if isinstance(stop, str) else stop,
        **sampling,
    )


def _usage(done: dict[str, Any]) -> dict[str, int]:
    prompt, completion = done["input_tokens"], done["output_tokens"]
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
