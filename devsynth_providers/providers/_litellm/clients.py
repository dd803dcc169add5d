"""Clients for LiteLLM's calls that send over our wire: its own follow redirects, and leave two descriptors behind for
each key and each event loop. One of these serves any number of loops, since the wire finds the session of each."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from typing_extensions import override

from ..wire import Answer, Headers, Wire
from .events import each_event
from .reading import MAX_ANSWER_BYTES, Reader

_reader: ContextVar[Reader] = ContextVar("_reader")
_HANDLED = frozenset(("anthropic", "openrouter"))
"""LiteLLM's names of the providers that take its own kind of client and have been tested with it."""


def client(
    provider: str,
    wire: Wire,
    *,
    api_key: str | None,
    base_url: str | None,
    organization: str | None,
) -> Any:
    """What LiteLLM's calls take as ``client``; ``None`` for providers that have not been tested with one. A call
    with it is made inside of ``read_by``."""
    http = _client_class()(wire)
    if provider == "openai":
        return _sdk_class()(
            api_key=api_key, base_url=base_url, organization=organization, http_client=http, max_retries=0
        )
    if provider in _HANDLED:
        from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler  # noqa: PLC0415 - loaded by now

        handler = AsyncHTTPHandler()
        handler.client = http
        return handler
    return None


@contextmanager
def read_by(reader: Reader | None) -> Iterator[None]:
    """Let *reader* put the answer to the call that is made here to the proof, before LiteLLM makes of it what it thinks
    it is."""
    if reader is None:
        yield
        return
    token = _reader.set(reader)
    try:
        yield
    finally:
        _reader.reset(token)


_asking: ContextVar[bool] = ContextVar("_asking", default=False)


@functools.cache
def _sdk_class() -> Any:
    import openai  # noqa: PLC0415 - comes with LiteLLM, and is loaded by it

    class Client(openai.AsyncOpenAI):
        """Keeps prompts out of the log: at level DEBUG the SDK writes down whatever it sends."""

        @override
        async def request(self, *asked: Any, **options: Any) -> Any:
            token = _asking.set(True)
            try:
                return await super().request(*asked, **options)
            finally:
                _asking.reset(token)

    logging.getLogger("openai._base_client").addFilter(lambda _: not _asking.get())
    return Client


@functools.cache
def _client_class() -> Any:
    import httpx  # noqa: PLC0415 - comes with LiteLLM, and is loaded by it

    class Body(httpx.AsyncByteStream):
        def __init__(self, answer: Answer, reader: Reader) -> None:
            self._answer = answer
            self._reader = reader

        @override
        async def __aiter__(self) -> AsyncGenerator[bytes, None]:
            try:  # those who iterate do not all close what they have left
                async with aclosing(each_event(self._answer, self._reader, self._reader.proved)) as events:
                    async for event in events:
                        yield event
            finally:
                self._answer.close()

        @override
        async def aclose(self) -> None:
            self._answer.close()

    class Client(httpx.AsyncClient):
        """Has neither cookies, redirects, log-ins nor hooks, and does not go through what httpx has for them."""

        def __init__(self, wire: Wire) -> None:
            super().__init__(transport=httpx.AsyncBaseTransport(), trust_env=False, timeout=None)
            self._wire = wire

        @override
        def build_request(self, method: str, url: Any, *, timeout: Any = None, **content: Any) -> httpx.Request:
            return httpx.Request(method, url, **content)

        @override
        async def send(self, request: httpx.Request, *, stream: bool = False, **_: Any) -> httpx.Response:
            started = time.monotonic()
            body = await request.aread()
            headers = Headers(each for each in request.headers.items() if not each[0].startswith(_NOT_SENT))
            answer = await self._wire.send(request.method, str(request.url), headers, body or None)
            told = {"content-type": answer.headers.get("content-type", "")}  # all of them that anybody reads here
            streams = b'"stream":true' in body or b'"stream": true' in body
            if answer.status < 400 and streams and answer.may_be_events:
                response = httpx.Response(
                    answer.status, headers=told, stream=Body(answer, _reader.get()), request=request
                )
                if not stream:
                    await response.aread()
            else:
                content = await self._content(answer, request.url.path, len(body))
                response = httpx.Response(answer.status, headers=told, content=content, request=request)
            response.elapsed = timedelta(seconds=time.monotonic() - started)
            return response

        async def _content(self, answer: Answer, path: str, asked_bytes: int) -> bytes:
            try:
                if answer.status >= 400:
                    await _reader.get().refuse(answer)
                content = await answer.read(MAX_ANSWER_BYTES + asked_bytes * _VECTORS_PER_BYTE)
            finally:
                answer.close()
            _reader.get().prove(content, answer.content_type, chat=not path.endswith("/embeddings"))
            return content

    return Client


_NOT_SENT = (
    *("host", "connection", "content-length", "accept-encoding", "transfer-encoding"),  # set by the wire itself
    "x-stainless-",  # the SDK tells the vendor of this machine
)
_VECTORS_PER_BYTE = 64 * 1024
"""Bytes of answer for a byte of texts to embed, which is more than there are."""
