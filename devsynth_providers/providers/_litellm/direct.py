"""The direct lane: LiteLLM's translators, and the wire in our own hands.

What a provider wants to be sent, and what its answer means, is LiteLLM's knowledge; status, headers, every event and
the end are seen here. So nothing needs guessing: an answer is complete if the provider said so, a web page is no
answer, and an error sent with status 200 is an error.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

from typing_extensions import override

from ... import telemetry
from ...errors import DevSynthError, InvalidRequest, ProviderError, RequestRejected
from ...port import ProviderPort
from ...reply import Reply
from ...types import ChatRequest, Chunk, EmbedRequest, Model, Request
from ..threads import in_thread
from ..wire import Headers, Wire
from . import answers, translators
from .dialects import Dialect, Sent
from .errors import translate
from .events import each_event
from .reading import MAX_ANSWER_BYTES, Reader
from .requests import Asked, asked

MAX_VECTOR_BYTES = 256 * 1024
"""More than any vector is, written out; an answer may have one for each text, and ``MAX_ANSWER_BYTES``."""
_LARGE_BYTES = 512 * 1024


_PLAIN = frozenset(("max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options"))
"""Options that say how to answer, and not in which form."""
_MAX_PREPARED = 256
"""Sets of plain options that are remembered."""


class _Prepared(NamedTuple):
    """A request's headers and options as the provider wants them; *beside* goes into the body as it is."""

    headers: Headers
    options: Mapping[str, Any]
    beside: Mapping[str, Any]
    json_mode: bool


class Direct(ProviderPort):
    """*model* over *wire*, in the *dialect* of its provider."""

    def __init__(self, model: Model, dialect: Dialect, wire: Wire, *, api_key: str, base_url: str) -> None:
        self._model = model
        self._dialect = dialect
        self._wire = wire
        self._api_key = api_key
        self._base_url = base_url
        self._vectors = answers.Vectors()
        self._plain: dict[str, _Prepared] = {}

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
        body = _encoded(sent.body)
        reader = self.reader(sent)
        answer = None
        try:
            headers = Headers(sent.headers, **telemetry.upstream(self.model))
            answer = await self._wire.send("POST", sent.url, headers, body)
            if answer.status >= 300:
                await reader.refuse(answer)
            if isinstance(request, EmbedRequest):
                telemetry.mark("gen_ai.request.encoding_formats", ["float"])
                most = MAX_ANSWER_BYTES + len(request.texts) * MAX_VECTOR_BYTES
                vectors = await answer.read(most)
                read = functools.partial(reader.embedded, vectors, answer.content_type, request, self._vectors)
                yield read() if len(vectors) < _LARGE_BYTES else await in_thread(read)  # which takes a while
            elif _streams(request) and answer.may_be_events:
                async with aclosing(each_event(answer, reader, reader.piece)) as chunks:
                    async for chunk in chunks:
                        if not chunk.empty:
                            yield chunk
            else:
                yield reader.whole(await answer.read(MAX_ANSWER_BYTES), answer.content_type)
        except ProviderError as error:
            error.provider, error.model = self.model.provider, self.model.name
            raise error.with_traceback(None)  # noqa: B904 - below are frames with what the server said, or a key
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
        question = asked(request, self._dialect.litellm_name, name)
        known = translators.supported(self._dialect.litellm_name, name)
        given = {option: value for option, value in question.options.items() if option in known}
        if unknown := question.options.keys() - given.keys() - {"stream_options"}:
            raise not_taken(self.model, ", ".join(sorted(unknown)))
        memory: dict[str, Any] = {}
        prepared = self._prepared(question, given, memory)
        headers, options = Headers(prepared.headers), dict(prepared.options)
        body = config.transform_request(name, question.messages, dict(options), memory, headers)
        if request.stream:
            body["stream"] = True
        headers.update(self._dialect.headers())
        url = self._dialect.url(self._base_url)
        return Sent(url, headers, {**body, **prepared.beside, **question.body}, options, memory, prepared.json_mode)

    def _prepared(self, question: Asked, given: dict[str, Any], memory: dict[str, Any]) -> _Prepared:
        """What goes beside the messages. Of plain requests it does not depend on what they say, and LiteLLM, which
        looks the model up in its tables several times for it, is asked once for each set of options."""
        said = all(len(message) == 2 for message in question.messages)  # role and content: no calls of tools
        plain = said and given.keys() <= _PLAIN
        key = repr(given) if plain else None
        prepared = None if key is None else self._plain.get(key)
        if prepared is None:
            config = translators.chat_config(self._dialect.litellm_name, self.model.id)
            options = config.map_openai_params(given, {}, self.model.id, False)
            json_mode = bool(options.pop("json_mode", False))
            beside = options.pop("extra_body", None) or {}
            headers = config.validate_environment(
                {},
                self.model.id,
                question.messages,
                dict(options),
                memory,
                api_key=self._api_key,
                api_base=self._base_url,
            )
            prepared = _Prepared(Headers(headers), options, beside, json_mode)
            if key is not None:
                if len(self._plain) >= _MAX_PREPARED:
                    self._plain.clear()
                self._plain[key] = prepared
        return prepared

    def reader(self, sent: Sent) -> Reader:
        """What reads the answer to *sent*."""
        return Reader(self.model, self._dialect, [self._api_key], sent)


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:  # a parameter or a tool of the caller's
        raise InvalidRequest(f"a parameter of the request can not be sent as JSON: {error}") from None


def not_taken(model: Model, what: str) -> RequestRejected:
    """The refusal of a request before it is sent, since *model* can not take *what*: another one may."""
    error = RequestRejected(f"{model.provider} does not take {what}", provider=model.provider, model=model.name)
    error.passes_on = True
    return error


def _streams(request: Request) -> bool:
    return isinstance(request, ChatRequest) and request.stream
