"""One answer of the direct lane, read: bytes decoded, errors found, and their meaning by LiteLLM's translators."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ... import telemetry
from ...errors import DevSynthError, EmptyResponse, MalformedResponse, ProviderUnavailable
from ...scrubbing import scrub
from ...types import Chunk, EmbedRequest, Model
from .. import failures
from ..sse import Event
from ..wire import Answer
from . import answers, translators
from .dialects import Dialect, Sent

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""More than any chat's answer is."""
_NOTHING = Sent("", {}, {})
_OPENAI = ("stop", "length", "tool_calls", "function_call", "content_filter")
_ANTHROPIC = ("end_turn", "stop_sequence", "tool_use", "max_tokens")
_MAPPED = frozenset((*_OPENAI, *_ANTHROPIC))
"""Finish reasons that the translators have a word for. Of any other they make ``stop``."""
_OURS = {"refusal": "content_filter", "model_context_window_exceeded": "length"}


def _finish_reason(said: str, translated: str | None) -> str | None:
    """The finish reason that a provider *said*, in OpenAI's words where they have one."""
    return _OURS.get(said) or (translated if said in _MAPPED else said)


class Reader:
    """Reads the answer to *sent*, whole or piece by piece. Raises what it says has failed, scrubbed of *secrets*, and
    ``MalformedResponse`` for what is no answer."""

    def __init__(self, model: Model, dialect: Dialect, secrets: Sequence[str], sent: Sent = _NOTHING) -> None:
        self._model = model
        self._dialect = dialect
        self._secrets = secrets
        self._sent = sent
        self._iterator: Any = None
        self._refusal: list[str] = []
        self._counts: dict[str, Any] = {}
        self.finished = False
        """Whether the finish reason of a stream has come."""
        self.said = ""
        """The model that a stream says it is of."""
        self._begun = False

    def prove(self, body: bytes, content_type: str, *, chat: bool) -> None:
        """Raise if *body* is no answer: for those who read it otherwise than by ``whole`` or ``embedded``."""
        data = self._decoded(body, content_type)
        if chat:
            _read(lambda: self._proved(data))
        else:
            answers.numbered(data.get("data"))

    def proved(self, event: Event) -> bytes:
        """*event* as it was sent. Raises if it is no piece of an answer: for those who read it otherwise than by
        ``piece``."""
        if self._dialect.says_nothing(event):
            return b""
        if not self.last(event):
            data = self._decoded(event.data)
            _read(lambda: Chunk(finish_reason=self._noted(data)))
        return event.encoded

    def last(self, event: Event) -> bool:
        """Whether *event* says that no more will come."""
        return self._dialect.last(event)

    def whole(self, body: bytes, content_type: str = "") -> Chunk:
        """The answer in *body*."""
        data = self._decoded(body, content_type)
        return _read(lambda: self._whole(data))

    async def refuse(self, answer: Answer) -> NoReturn:
        """Raise what *answer*, which has a status of failure, means."""
        raise await failures.refusal(answer, self._model, self._secrets)

    def piece(self, event: Event) -> Chunk:
        """What the next *event* of a stream adds; it may be empty."""
        if self._dialect.says_nothing(event) or self.last(event):
            return Chunk()
        data = self._decoded(event.data)
        return _read(lambda: self._piece(data))

    def embedded(self, body: bytes, content_type: str, request: EmbedRequest, vectors: answers.Vectors) -> Chunk:
        """The vectors in *body*, one for each text of *request*."""
        data = self._decoded(body, content_type)
        return _read(lambda: self._embedded(data, request, vectors))

    def _embedded(self, data: dict[str, Any], request: EmbedRequest, vectors: answers.Vectors) -> Chunk:
        rows = vectors.read(data.get("data"), request, self._model)
        usage = self._dialect.usage(data, {})
        return Chunk(vectors=rows, finish_reason="stop", usage=usage, model=str(data.get("model") or ""))

    def _proved(self, data: dict[str, Any]) -> Chunk:
        """What *data* has beside its content: a finish reason, unless it is empty."""
        self._dialect.check(data, self._model)
        self._note_id(data)
        finish = self._dialect.finish(data)
        if finish is None and data.get("choices") != []:
            raise MalformedResponse("the answer is without a finish reason, and may not be whole")
        return Chunk(finish_reason=finish)

    def _note_id(self, data: dict[str, Any]) -> None:
        """Put the id of the answer on the span of its attempt, which is the current one while the answer begins."""
        if not self._begun:
            self._begun = True
            told = (data.get("message") or data).get("id")
            if told and isinstance(told, str):
                telemetry.mark("gen_ai.response.id", scrub(told, self._secrets)[:128])

    def _whole(self, data: dict[str, Any]) -> Chunk:
        finish = self._proved(data).finish_reason
        if finish is None:
            return Chunk()
        usage = self._dialect.usage(data, {})
        data["usage"] = self._dialect.no_usage
        read = translators.response(self._dialect.litellm_name, self._model.id, data, self._sent)
        choice = read.choices[0]
        text = _text(choice.message.content)
        if not text:
            answers.refused(self._dialect.refusal(data), self._model)
        return Chunk(
            text=text,
            finish_reason=_finish_reason(finish, choice.finish_reason),
            usage=usage,
            tool_calls=answers.tool_calls(choice.message),
            model=str(data.get("model") or ""),
        )

    def _noted(self, data: dict[str, Any]) -> str | None:
        """The finish reason in *data*, a piece of a stream, of which is noted what will count later."""
        self._dialect.check(data, self._model)
        self._note_id(data)
        self.said = self.said or str((data.get("message") or data).get("model") or "")
        self._refusal.append(self._dialect.refusal(data))
        finish = self._dialect.finish(data)
        if finish is not None:
            answers.refused("".join(self._refusal), self._model)
            self.finished = True
        return finish

    def _piece(self, data: dict[str, Any]) -> Chunk:
        if self._iterator is None:
            config = translators.chat_config(self._dialect.litellm_name, self._model.id)
            self._iterator = self._dialect.iterator(config, self._sent)
        finish = self._noted(data)
        usage = self._dialect.usage(data, self._counts)
        if "usage" in data:
            data["usage"] = self._dialect.no_usage
        read = self._iterator.chunk_parser(data)
        if not read.choices:
            return Chunk(usage=usage, model=self.said)
        choice = read.choices[0]
        return Chunk(
            text=_text(choice.delta.content),
            finish_reason=None if finish is None else _finish_reason(finish, choice.finish_reason),
            usage=usage,
            tool_calls=answers.tool_calls(choice.delta),
            model=self.said,
        )

    def _decoded(self, text: bytes, content_type: str = "") -> dict[str, Any]:
        if not text.strip():
            raise EmptyResponse("the answer has no body")
        try:
            data = json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            what = "a web page" if content_type == "text/html" else f"no JSON: {type(error).__name__}"
            raise MalformedResponse(f"what came is {what}") from None
        if not isinstance(data, dict):
            raise MalformedResponse("what came is JSON, but no object")
        if (told := failures.inner(data)) is not None:
            self._fail(told)
        return data

    def _fail(self, told: failures.Told) -> NoReturn:
        cls = failures.kind(told.status, told.code, told.message) or ProviderUnavailable
        raise failures.failure(
            cls, told.message, self._model, status=told.status, code=told.code, secrets=self._secrets
        )


def _text(content: Any) -> str:
    if not isinstance(content, str | None):
        raise MalformedResponse(f"the answer's content is no text, but {type(content).__name__}")
    return content or ""


def _read(read: Callable[[], Chunk]) -> Chunk:
    """What *read* makes of data. Whatever it stumbles over is the data's fault, which came from outside."""
    try:
        return read()
    except DevSynthError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        name = type(error).__name__
    raise MalformedResponse(f"the answer is not in the form it should have: {name}")
