"""The direct lane: LiteLLM's translators, and the wire in our own hands.

What a provider wants to be sent, and what its answer means, is LiteLLM's knowledge; status, headers, every event and
the end are seen here. So nothing needs guessing: an answer is complete if the provider said so, a web page is no
answer, and an error sent with status 200 is an error.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, NoReturn

from typing_extensions import override

from ... import telemetry
from ...errors import DevSynthError, EmptyResponse, MalformedResponse, ProviderError, RequestRejected
from ...port import ProviderPort
from ...reply import Reply
from ...types import ChatRequest, Chunk, EmbedRequest, Model, Request, Usage
from .. import failures
from ..sse import Event, EventDecoder, EventTooLarge
from ..wire import Answer, Wire
from . import answers, translators
from .dialects import Dialect, Sent
from .errors import translate
from .requests import asked

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""More than any chat's answer is."""
MAX_VECTOR_BYTES = 256 * 1024
"""More than any vector is, written out; an answer may have one for each text, and ``MAX_ANSWER_BYTES``."""
_MAX_TRAILER_BYTES = 64 * 1024
_TRAILER_S = 0.05
"""How long to listen after the last event for the end of the body, which leaves the connection to the next call."""
_EVENT_TYPES = frozenset(("", "text/event-stream", "text/plain", "application/octet-stream"))
_IN_STREAM = 500
"""The status of an error inside a stream that has none of its own: the server's."""


class Direct(ProviderPort):
    """*model* over *wire*, in the *dialect* of its provider."""

    def __init__(self, model: Model, dialect: Dialect, wire: Wire, *, api_key: str, base_url: str) -> None:
        self._model = model
        self._dialect = dialect
        self._wire = wire
        self._api_key = api_key
        self._base_url = base_url

    @property
    @override
    def model(self) -> Model:
        return self._model

    @override
    async def send(self, request: Request) -> Reply:
        telemetry.mark("devsynth.transport", "direct")
        return await Reply.open(self.model, self._chunks(request))

    @override
    async def aclose(self) -> None:
        await self._wire.aclose()

    async def _chunks(self, request: Request) -> AsyncGenerator[Chunk, None]:
        sent = self.translated(request)
        body = json.dumps(sent.body, ensure_ascii=False, separators=(",", ":")).encode()
        answer = None
        try:
            answer = await self._wire.send("POST", sent.url, sent.headers, body)
            if answer.status >= 300:
                await failures.refuse(answer, self.model, [self._api_key])
            if isinstance(request, EmbedRequest):
                yield self._embedded(await self._json(answer, len(request.texts)), request)
            elif _streams(request) and answer.content_type in _EVENT_TYPES:
                async for chunk in self._events(answer, sent):
                    yield chunk
            else:
                yield self.whole(await self._json(answer), sent)
        except ProviderError as error:
            error.provider, error.model = self.model.provider, self.model.name
            raise
        finally:
            if answer is not None:
                answer.close()

    def translated(self, request: Request) -> Sent:
        """*request* as this provider wants it. Raises ``RequestRejected`` for what it does not take."""
        if isinstance(request, EmbedRequest):
            return self._dialect.embedding(request, self.model.id, self._base_url, self._api_key)
        assert isinstance(request, ChatRequest)
        try:
            return self._translated(request)
        except DevSynthError:
            raise
        except Exception as error:
            ours = translate(error, self.model, [self._api_key])
            if ours is None:
                raise
        raise ours

    def _translated(self, request: ChatRequest) -> Sent:
        name = self.model.id
        config = translators.chat_config(self._dialect.litellm_name, name)
        question = asked(request, config, name)
        known = config.get_supported_openai_params(name)
        given = {option: value for option, value in question.options.items() if option in known}
        if unknown := question.options.keys() - given.keys() - {"stream_options"}:
            raise not_taken(self.model, ", ".join(sorted(unknown)))
        memory: dict[str, Any] = {}
        options = config.map_openai_params(given, {}, name, False)
        json_mode = bool(options.pop("json_mode", False))
        beside = options.pop("extra_body", None) or {}
        url = self._dialect.url(self._base_url)
        headers = config.validate_environment(
            {}, name, question.messages, dict(options), memory, api_key=self._api_key, api_base=self._base_url
        )
        body = config.transform_request(name, question.messages, dict(options), memory, headers)
        if request.stream:
            body["stream"] = True
        headers |= self._dialect.headers()
        return Sent(url, headers, {**body, **beside, **question.body}, options, memory, json_mode)

    def _fail(self, told: failures.Told, status: int, headers: Mapping[str, str] | None = None) -> NoReturn:
        cls = failures.kind(status, told.code, told.message) or ProviderError
        raise failures.failure(
            cls, told.message, self.model, status=status, code=told.code, headers=headers, secrets=[self._api_key]
        )

    async def _json(self, answer: Answer, texts: int = 0) -> dict[str, Any]:
        """The body, decoded, if it is an answer at all."""
        body = await answer.read(MAX_ANSWER_BYTES + texts * MAX_VECTOR_BYTES)
        if not body.strip():
            raise EmptyResponse("the answer has no body", status=answer.status)
        data = self._decoded(body, answer.content_type)
        if (told := failures.inner(data)) is not None:
            self._fail(told, told.status or _IN_STREAM, answer.headers)
        return data

    def _decoded(self, text: bytes, content_type: str = "") -> dict[str, Any]:
        try:
            data = json.loads(text.decode("utf-8"))
        except ValueError as error:
            what = "a web page" if content_type == "text/html" else f"no JSON: {type(error).__name__}"
            raise MalformedResponse(f"what came is {what}") from None
        if not isinstance(data, dict):
            raise MalformedResponse("what came is JSON, but no object")
        return data

    def whole(self, data: dict[str, Any], sent: Sent) -> Chunk:
        """The answer in *data*, decoded JSON. Raises ``MalformedResponse`` if its provider did not finish it."""
        return _read(lambda: self._whole(data, sent))

    def _whole(self, data: dict[str, Any], sent: Sent) -> Chunk:
        self._dialect.check(data, self.model)
        if data.get("choices") == []:
            return Chunk()
        if not self._dialect.finished(data):
            raise MalformedResponse("the answer is without a finish reason, and may not be whole")
        read = translators.response(self._dialect.litellm_name, self.model.id, data, sent)
        choice = read.choices[0]
        text = choice.message.content or ""
        if not text:
            answers.refused(self._dialect.refusal(data), self.model)
        return Chunk(
            text=text,
            finish_reason=choice.finish_reason,
            usage=answers.usage(read) if data.get("usage") else None,
            tool_calls=answers.tool_calls(choice.message),
            model=str(data.get("model") or ""),
        )

    async def _events(self, answer: Answer, sent: Sent) -> AsyncGenerator[Chunk, None]:
        """The chunks of a stream, as long as its provider has more to say."""
        piece_of = self.pieces(sent)
        decoder = EventDecoder()
        finished = False
        try:
            while True:
                bytes_ = await answer.piece()
                for event in decoder.feed(bytes_) if bytes_ else decoder.flush():
                    if self._dialect.last(event):
                        await self._trailer(answer)
                        return
                    chunk = piece_of(event)
                    finished = finished or chunk.finish_reason is not None
                    if not chunk.empty:
                        yield chunk
                if not bytes_:
                    return
        except EventTooLarge as error:
            raise MalformedResponse(str(error)) from None
        except ProviderError:
            if not finished:  # else it was whole, whatever happened to the connection afterwards
                raise

    def pieces(self, sent: Sent) -> Callable[[Event], Chunk]:
        """What reads the events of one answer, each into a chunk, which may be empty."""
        config = translators.chat_config(self._dialect.litellm_name, self.model.id)
        iterator = self._dialect.iterator(config, sent)
        refusal: list[str] = []

        def piece(event: Event) -> Chunk:
            if self._dialect.says_nothing(event):
                return Chunk()
            data = self._decoded(event.data)
            if (told := failures.inner(data)) is not None:
                self._fail(told, told.status or _IN_STREAM)
            return _read(lambda: self._piece(data, iterator, refusal))

        return piece

    def _piece(self, data: dict[str, Any], iterator: Any, refusal: list[str]) -> Chunk:
        self._dialect.check(data, self.model)
        refusal.append(self._dialect.refusal(data))
        finished = self._dialect.finished(data)
        if finished:
            answers.refused("".join(refusal), self.model)
        read = iterator.chunk_parser(data)
        usage = answers.usage(read) if self._dialect.counted(data) else None
        said = str(data.get("model") or "")
        if not read.choices:
            return Chunk(usage=usage, model=said)
        choice = read.choices[0]
        return Chunk(
            text=choice.delta.content or "",
            finish_reason=choice.finish_reason if finished else None,
            usage=usage,
            tool_calls=answers.tool_calls(choice.delta),
            model=said,
        )

    async def _trailer(self, answer: Answer) -> None:
        try:
            async with asyncio.timeout(_TRAILER_S):
                await answer.read(_MAX_TRAILER_BYTES)
        except (TimeoutError, ProviderError):
            return  # the connection is closed then, and that is all

    def _embedded(self, data: dict[str, Any], request: EmbedRequest) -> Chunk:
        rows = answers.vectors(data.get("data"), request, self.model)
        told = data.get("usage")
        tokens = told.get("prompt_tokens") if isinstance(told, dict) else None
        usage = answers.checked(Usage(tokens, 0)) if type(tokens) is int else None
        return Chunk(vectors=rows, finish_reason="stop", usage=usage, model=str(data.get("model") or ""))


def not_taken(model: Model, what: str) -> RequestRejected:
    """The refusal of a request before it is sent, since *model* can not take *what*: another one may."""
    error = RequestRejected(f"{model.provider} does not take {what}", provider=model.provider, model=model.name)
    error.passes_on = True
    return error


def _streams(request: Request) -> bool:
    return isinstance(request, ChatRequest) and request.stream


def _read(read: Callable[[], Chunk]) -> Chunk:
    """What *read* makes of data. Whatever it stumbles over is the data's fault, which came from outside."""
    try:
        return read()
    except DevSynthError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        name = type(error).__name__
    raise MalformedResponse(f"the answer is not in the form it should have: {name}")
