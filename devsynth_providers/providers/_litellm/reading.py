"""One answer of the direct lane, read: bytes decoded, errors found, and their meaning by LiteLLM's translators."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ...errors import DevSynthError, EmptyResponse, MalformedResponse, ProviderError
from ...types import Chunk, EmbedRequest, Model
from .. import failures
from ..sse import Event
from . import answers, translators
from .dialects import Dialect, Sent

_IN_BODY = 500
"""The status of an error that came with a status of success and has none of its own: the server's."""
_WITHHELD = {"refusal": "content_filter"}
"""Reasons that older translators do not know."""


class Reader:
    """Reads the answer to *sent*, whole or piece by piece. Raises what it says has failed, scrubbed of *secrets*, and
    ``MalformedResponse`` for what is no answer."""

    def __init__(self, model: Model, dialect: Dialect, sent: Sent, secrets: Sequence[str]) -> None:
        self._model = model
        self._dialect = dialect
        self._sent = sent
        self._secrets = secrets
        self._iterator: Any = None
        self._refusal: list[str] = []
        self._counts: dict[str, Any] = {}

    def whole(self, body: bytes, content_type: str = "") -> Chunk:
        """The answer in *body*."""
        data = self._decoded(body, content_type)
        return _read(lambda: self._whole(data))

    def piece(self, event: Event) -> Chunk:
        """What the next *event* of a stream adds; it may be empty."""
        if self._dialect.says_nothing(event):
            return Chunk()
        data = self._decoded(event.data)
        return _read(lambda: self._piece(data))

    def embedded(self, body: bytes, content_type: str, request: EmbedRequest) -> Chunk:
        """The vectors in *body*, one for each text of *request*."""
        data = self._decoded(body, content_type)
        rows = answers.vectors(data.get("data"), request, self._model)
        usage = self._dialect.usage(data, {})
        return Chunk(vectors=rows, finish_reason="stop", usage=usage, model=str(data.get("model") or ""))

    def _whole(self, data: dict[str, Any]) -> Chunk:
        self._dialect.check(data, self._model)
        if data.get("choices") == []:
            return Chunk()
        if (finish := self._dialect.finish(data)) is None:
            raise MalformedResponse("the answer is without a finish reason, and may not be whole")
        read = translators.response(self._dialect.litellm_name, self._model.id, data, self._sent)
        choice = read.choices[0]
        text = choice.message.content or ""
        if not text:
            answers.refused(self._dialect.refusal(data), self._model)
        return Chunk(
            text=text,
            finish_reason=_WITHHELD.get(finish, choice.finish_reason),
            usage=self._dialect.usage(data, {}),
            tool_calls=answers.tool_calls(choice.message),
            model=str(data.get("model") or ""),
        )

    def _piece(self, data: dict[str, Any]) -> Chunk:
        if self._iterator is None:
            config = translators.chat_config(self._dialect.litellm_name, self._model.id)
            self._iterator = self._dialect.iterator(config, self._sent)
        self._dialect.check(data, self._model)
        self._refusal.append(self._dialect.refusal(data))
        finish = self._dialect.finish(data)
        if finish is not None:
            answers.refused("".join(self._refusal), self._model)
        usage = self._dialect.usage(data, self._counts)
        said = str(data.get("model") or "")
        read = self._iterator.chunk_parser(data)
        if not read.choices:
            return Chunk(usage=usage, model=said)
        choice = read.choices[0]
        return Chunk(
            text=choice.delta.content or "",
            finish_reason=None if finish is None else _WITHHELD.get(finish, choice.finish_reason),
            usage=usage,
            tool_calls=answers.tool_calls(choice.delta),
            model=said,
        )

    def _decoded(self, text: bytes, content_type: str = "") -> dict[str, Any]:
        if not text.strip():
            raise EmptyResponse("the answer has no body")
        try:
            data = json.loads(text.decode("utf-8"))
        except ValueError as error:
            what = "a web page" if content_type == "text/html" else f"no JSON: {type(error).__name__}"
            raise MalformedResponse(f"what came is {what}") from None
        if not isinstance(data, dict):
            raise MalformedResponse("what came is JSON, but no object")
        if (told := failures.inner(data)) is not None:
            self._fail(told)
        return data

    def _fail(self, told: failures.Told) -> NoReturn:
        status = told.status or _IN_BODY
        cls = failures.kind(status, told.code, told.message) or ProviderError
        raise failures.failure(cls, told.message, self._model, status=status, code=told.code, secrets=self._secrets)


def _read(read: Callable[[], Chunk]) -> Chunk:
    """What *read* makes of data. Whatever it stumbles over is the data's fault, which came from outside."""
    try:
        return read()
    except DevSynthError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        name = type(error).__name__
    raise MalformedResponse(f"the answer is not in the form it should have: {name}")
