"""The unified lane: one model through LiteLLM's calls, and what LiteLLM says put to the proof.

It reports a stream that was cut, a web page and an error sent with status 200 as finished answers, and makes up
their usage. A stream is complete here only if the provider sent a finish reason. So is a whole answer, where it comes
over our wire in a dialect that we know; else LiteLLM does not tell, and that its JSON is whole has to do.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import Any

from typing_extensions import override

from ... import telemetry
from ...errors import DevSynthError, ProviderUnavailable, RequestRejected
from ...port import ProviderPort
from ...reply import Reply
from ...tokens import TokenCounter
from ...types import ChatRequest, Chunk, EmbedRequest, Model, Request
from ..wire import Wire
from . import answers, clients, load
from .dialects import Dialect
from .errors import translate
from .reading import Reader
from .requests import Asked, asked

TRANSPORT_TIMEOUT_S = 3600.0
"""What LiteLLM is told, in place of its own default. The clocks that count are ``Timed``'s."""


class Unified(ProviderPort):
    """*model* by *target*, LiteLLM's name for it. LiteLLM's retries are off, and the key is always explicit."""

    def __init__(
        self,
        model: Model,
        *,
        target: str,
        api_key: str | None = "none",
        base_url: str | None = None,
        wire: Wire | None = None,
        dialect: Dialect | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._litellm_name = target
        self._api_key = api_key
        self._base_url = base_url
        self._wire = wire
        self._dialect = dialect
        self._extra = dict(extra or {})
        self._targets: dict[str, Any] | None = None
        self._vectors = answers.Vectors()

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        telemetry.mark("devsynth.transport", "litellm")
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

    @override
    async def aclose(self) -> None:
        if self._wire is not None:
            await self._wire.aclose()

    async def _chunks(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """What LiteLLM answers, as chunks; what it raises, as errors of ours. Any other error is a bug, and shows."""
        try:
            litellm = await load.ready()
            reader = None if self._dialect is None else Reader(self.model, self._dialect, [self._api_key or ""])
            if isinstance(request, EmbedRequest):
                with clients.read_by(reader):
                    told = await _unlogged(litellm.aembedding(input=list(request.texts), **self._target()))
                rows = self._vectors.read(told.data, request, self.model)
                yield Chunk(vectors=rows, finish_reason="stop", usage=answers.usage(told), model=self._said(told))
                return
            assert isinstance(request, ChatRequest)
            with clients.read_by(reader):
                answer = await _unlogged(litellm.acompletion(**self._target(), **self._options(request)))
            if not request.stream:
                yield self._whole(answer)
                return
            finished = False
            try:
                async for delta in answer:
                    chunk = self._piece(delta, answer, reader)
                    yield chunk
                    finished = finished or chunk.finish_reason is not None
                    if finished and chunk.usage is not None:
                        break  # the last that it says; asked for more, it would put the answer together for its logs
            finally:
                await _close(answer)
            return
        except DevSynthError as error:
            raise error.with_traceback(None)  # noqa: B904 - below are frames with what the server said, or a key
        except Exception as error:
            ours = translate(error, self.model, [self._api_key or ""])
            if ours is None:
                raise
        # Out here, so that LiteLLM's error does not hang on it: that one carries the request and the key.
        raise ours.with_traceback(None)

    def _target(self) -> dict[str, Any]:
        if self._targets is None:
            self._targets = self._made_target()
        headers = telemetry.upstream(self.model)
        return {**self._targets, "extra_headers": dict(headers)} if headers else dict(self._targets)

    def _made_target(self) -> dict[str, Any]:
        import httpx  # noqa: PLC0415 - comes with LiteLLM, and is loaded by it

        target = {
            "model": self._litellm_name,
            "api_key": self._api_key,
            "api_base": self._base_url,
            "timeout": httpx.Timeout(TRANSPORT_TIMEOUT_S),
            "max_retries": 0,
            "num_retries": 0,
            "no-log": True,  # an application's callbacks on LiteLLM do not get our prompts with their answers
            **self._extra,
        }
        if self._wire is not None and self._dialect is not None:
            client = clients.client(
                self._litellm_name.partition("/")[0],
                self._wire,
                api_key=self._api_key,
                base_url=self._base_url,
                organization=self._extra.get("organization"),
            )
            if client is not None:
                target["client"] = client
        return target

    def _options(self, request: ChatRequest) -> dict[str, Any]:
        provider, _, name = self._litellm_name.partition("/")
        question = asked(request, provider, name)
        options = {
            "messages": question.messages,
            "stream": False,
            **question.options,
        }
        if load.has_mcp_switch():
            options[load.NO_MCP] = True  # else, with tools, LiteLLM imports the package mcp, which it does not require
        return options | self._beside(question)

    def _beside(self, question: Asked) -> dict[str, Any]:
        """What goes with the options: the parameters that are not OpenAI's."""
        if not question.body or self._litellm_name.startswith("openai/"):
            return {"extra_body": question.body} if question.body else {}
        if taken := sorted(question.body.keys() & load.controls()):
            raise RequestRejected(f"{', '.join(taken)}: LiteLLM takes that for itself, and would not pass it on")
        return question.body

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
            text=answers.text(choice.message, self.model),
            finish_reason=choice.finish_reason,
            usage=answers.usage(answer),
            tool_calls=answers.tool_calls(choice.message),
            model=self._said(answer),
        )

    def _piece(self, delta: Any, stream: Any, reader: Reader | None) -> Chunk:
        sent = stream.received_finish_reason is not None  # else it is made up: the stream was cut, or is none
        usage = answers.usage(delta) if sent and _reported(stream) else None
        if not delta.choices:
            return Chunk(usage=usage)
        choice = delta.choices[0]
        return Chunk(
            text=answers.text(choice.delta, self.model),
            finish_reason=choice.finish_reason if sent else None,
            usage=usage,
            tool_calls=answers.tool_calls(choice.delta),
            model=reader.said if reader else self._said(delta),
        )

    def _said(self, answer: Any) -> str:
        """The model that the provider says it was."""
        return answer.model or ""


async def _unlogged(call: Awaitable[Any]) -> Any:
    """What *call* of LiteLLM's gives, without what it does after each for its own prices, budgets and callbacks: those
    are ours, and an application's would get our prompts with their answers."""
    internal = load.internal()
    if internal is None:
        return await call
    before = internal.get()
    internal.set(True)
    try:
        return await call
    finally:
        internal.set(before)  # not by a token: a generator that is forgotten is closed in another context


async def _close(stream: Any) -> None:
    """Stop listening to *stream*; LiteLLM's wrappers leave that to what they wrap, or forget it."""
    inner = getattr(stream, "completion_stream", None)
    for each in (stream, inner, getattr(inner, "streaming_response", None)):
        close = getattr(each, "aclose", None) or getattr(each, "close", None)
        if close is not None:
            await close()


def _reported(stream: Any) -> bool:
    """Whether the provider sent usage at all; LiteLLM makes up what is missing, with another tokenizer."""
    return any(getattr(chunk, "usage", None) is not None for chunk in stream.chunks)
