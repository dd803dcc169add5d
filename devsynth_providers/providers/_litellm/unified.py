"""One model through LiteLLM's unified calls, and what LiteLLM says put to the proof.

It reports a stream that was cut, a web page and an error sent with status 200 as finished answers, and makes up
their usage. A stream is complete here only if the provider sent a finish reason; of a whole answer LiteLLM does not
tell whether it did, and that its JSON is whole has to do. Vectors are right only if there is one for each text, in
order, finite and of one dimension.
"""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from typing_extensions import override

from ...errors import ContentFiltered, DevSynthError, MalformedResponse, ProviderUnavailable
from ...port import ProviderPort
from ...reply import Reply
from ...tokens import TokenCounter
from ...types import ChatRequest, Chunk, EmbedRequest, Message, Model, Request, ToolCallPart, Usage, Vector
from . import load
from .errors import translate

TRANSPORT_TIMEOUT_S = 3600.0
"""What LiteLLM is told, in place of its own default. The clocks that count are ``Timed``'s."""

_API_PARAMETERS = frozenset(
    (
        "top_p",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "response_format",
        "tool_choice",
        "parallel_tool_calls",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "reasoning_effort",
    )
)
"""Parameters of OpenAI's API that LiteLLM translates for other providers."""


class Unified(ProviderPort):
    """*model* by *target*, LiteLLM's name for it. LiteLLM's retries are off, and the key is always explicit."""

    def __init__(
        self,
        model: Model,
        *,
        target: str,
        api_key: str = "none",
        base_url: str | None = None,
        connect_s: float = 5.0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._litellm_name = target
        self._api_key = api_key
        self._base_url = base_url
        self._connect_s = connect_s
        self._extra = dict(extra or {})

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        return await Reply.open(self.model, self._chunks(request))

    @functools.cached_property
    def _counter(self) -> TokenCounter:
        return TokenCounter(self._model)

    @override
    def count_tokens(self, text: str) -> int:
        """As ``TokenCounter`` of this model counts; the first count of a process reads its table, in 0.3 s."""
        return self._counter.count(text)

    @override
    async def warm_up(self) -> None:
        await load.warm_up()

    async def _chunks(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """What LiteLLM answers, as chunks; what it raises, as errors of ours. Any other error is a bug, and shows."""
        try:
            async with aclosing(self._answer(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        except DevSynthError:
            raise
        except Exception as error:
            ours = translate(error, self.model, [self._api_key])
            if ours is None:
                raise
        raise ours  # out here, so that LiteLLM's error does not hang on it: that one carries the request and the key

    async def _answer(self, request: Request) -> AsyncGenerator[Chunk, None]:
        litellm = await load.ready()
        if isinstance(request, EmbedRequest):
            yield self._embedded(await litellm.aembedding(input=list(request.texts), **self._target()), request)
            return
        assert isinstance(request, ChatRequest)
        answer = await litellm.acompletion(**self._target(), **self._options(request))
        if not request.stream:
            yield self._whole(answer)
            return
        try:
            async for delta in answer:
                yield self._piece(delta, answer)
        finally:
            await answer.aclose()

    def _target(self) -> dict[str, Any]:
        import httpx  # noqa: PLC0415 - comes with LiteLLM, and is loaded by it

        return {
            "model": self._litellm_name,
            "api_key": self._api_key,
            "api_base": self._base_url,
            "timeout": httpx.Timeout(TRANSPORT_TIMEOUT_S, connect=self._connect_s),
            "max_retries": 0,
            "num_retries": 0,
            **self._extra,
        }

    def _options(self, request: ChatRequest) -> dict[str, Any]:
        options: dict[str, Any] = {
            "messages": [_message(message) for message in request.messages],
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "stream": request.stream,
            "_skip_mcp_handler": True,  # with tools, LiteLLM would import the package mcp, which it does not require
        }
        if request.stream:
            options["stream_options"] = {"include_usage": True}
        if request.stop:
            options["stop"] = list(request.stop)
        if request.tools:
            options["tools"] = [dict(tool) for tool in request.tools]
        return {**options, **self._parameters(request.parameters)}

    def _parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The caller's own parameters. Those that LiteLLM does not know as the API's go into the body, and only there:
        as keywords they could be LiteLLM's controls, which send the key elsewhere or answer without asking anybody."""
        known = {name: value for name, value in parameters.items() if name in _API_PARAMETERS}
        others = {name: value for name, value in parameters.items() if name not in known and name != "extra_body"}
        if body := {**others, **(parameters.get("extra_body") or {})}:
            known["extra_body"] = body
        return known

    def _whole(self, answer: Any) -> Chunk:
        if not answer.choices:
            return Chunk()
        choice = answer.choices[0]
        native = (getattr(choice, "provider_specific_fields", None) or {}).get("native_finish_reason")
        if native == "error":
            raise ProviderUnavailable(
                "the answer ended in an error", provider=self.model.provider, model=self.model.name
            )
        return Chunk(
            text=choice.message.content or self._unrefused(choice.message),
            finish_reason=choice.finish_reason,
            usage=_usage(answer),
            tool_calls=_tool_calls(choice.message),
            model=self._said(answer),
        )

    def _piece(self, delta: Any, stream: Any) -> Chunk:
        usage = _usage(delta)
        if usage is not None and not _reported(stream):
            usage = None
        if not delta.choices:
            return Chunk(usage=usage)
        choice = delta.choices[0]
        sent = stream.received_finish_reason is not None  # else it is made up: the stream was cut, or is none
        return Chunk(
            text=choice.delta.content or self._unrefused(choice.delta),
            finish_reason=choice.finish_reason if sent else None,
            usage=usage,
            tool_calls=_tool_calls(choice.delta),
            model=self._said(delta),
        )

    def _said(self, answer: Any) -> str:
        """The model that the provider says it was."""
        return answer.model or ""

    def _unrefused(self, message: Any) -> str:
        own = getattr(message, "provider_specific_fields", None) or {}
        refusal = getattr(message, "refusal", None) or own.get("refusal")
        if refusal:
            raise ContentFiltered(f"the model refused: {refusal}", provider=self.model.provider, model=self.model.name)
        return ""

    def _embedded(self, answer: Any, request: EmbedRequest) -> Chunk:
        try:
            rows = [(row["index"], tuple(row["embedding"])) for row in map(dict, answer.data)]
            problem = _problem([index for index, _ in rows], [row for _, row in rows], len(request.texts))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            rows, problem = [], f"embeddings in a form that is none: {type(error).__name__}"
        if problem:
            raise MalformedResponse(problem, provider=self.model.provider, model=self.model.name)
        vectors: tuple[Vector, ...] = tuple(row for _, row in sorted(rows, key=lambda row: row[0]))
        return Chunk(vectors=vectors, finish_reason="stop", usage=_usage(answer), model=self._said(answer))


def _message(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _tool_calls(message: Any) -> tuple[ToolCallPart, ...]:
    calls = getattr(message, "tool_calls", None) or ()
    return tuple(
        ToolCallPart(
            index if getattr(call, "index", None) is None else call.index,
            call.id or "",
            call.function.name or "",
            call.function.arguments or "",
        )
        for index, call in enumerate(calls)
    )


def _usage(answer: Any) -> Usage | None:
    """The usage in *answer*, or ``None`` where there is none or it can not be true."""
    usage = getattr(answer, "usage", None)
    if usage is None:
        return None
    prompt, completion = usage.prompt_tokens or 0, getattr(usage, "completion_tokens", 0) or 0
    inner = getattr(usage, "prompt_tokens_details", None)
    outer = getattr(usage, "completion_tokens_details", None)
    cached = getattr(inner, "cached_tokens", None) or 0
    written = getattr(inner, "cache_creation_tokens", None) or 0
    reasoning = getattr(outer, "reasoning_tokens", None) or 0
    likely = min(prompt, completion, cached, written, reasoning) >= 0 and cached + written <= prompt
    if not likely or reasoning > completion or prompt + completion == 0:
        return None
    return Usage(prompt, completion, cached, written, reasoning)


def _reported(stream: Any) -> bool:
    """Whether the provider sent usage at all; LiteLLM makes up what is missing, with another tokenizer."""
    return any(getattr(chunk, "usage", None) is not None for chunk in stream.chunks)


def _problem(indices: Sequence[int], rows: Sequence[Any], wanted: int) -> str | None:
    """What is wrong with vectors, or ``None``."""
    if sorted(indices) != list(range(wanted)):
        return f"{wanted} texts, but vectors number {sorted(indices)[:10]}"
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        return f"vectors of different length: {sorted(lengths)}"
    for row in rows:
        if not all(isinstance(x, int | float) and math.isfinite(x) for x in row):
            return "a vector with something in it that is no number"
        if not any(row):
            return "a vector of zeros"
    return None
