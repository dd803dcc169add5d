"""Clients for LiteLLM's calls that send over our wire: its own follow redirects, and leave two descriptors behind for
each key and each event loop. One of these serves any number of loops, since the wire finds the session of each."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

from typing_extensions import override

from ..wire import Answer, Wire
from .reading import MAX_ANSWER_BYTES, Reader

_HANDLED = frozenset(("anthropic", "openrouter"))
"""LiteLLM's names of the providers that take its own kind of client and have been tested with it."""


def client(
    provider: str,
    wire: Wire,
    reader: Reader,
    *,
    api_key: str | None,
    base_url: str | None,
    organization: str | None,
) -> Any:
    """What LiteLLM's calls take as ``client``; ``None`` for providers that have not been tested with one. *reader* puts
    whole answers to the proof before LiteLLM makes of them what it thinks they are."""
    http = _client_class()(wire, reader)
    if provider == "openai":
        import openai  # noqa: PLC0415 - as above

        return openai.AsyncOpenAI(
            api_key=api_key, base_url=base_url, organization=organization, http_client=http, max_retries=0
        )
    if provider in _HANDLED:
        from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler  # noqa: PLC0415 - loaded by now

        handler = AsyncHTTPHandler()
        handler.client = http
        return handler
    return None


@functools.cache
def _client_class() -> Any:
    import httpx  # noqa: PLC0415 - comes with LiteLLM, and is loaded by it

    class Body(httpx.AsyncByteStream):
        def __init__(self, answer: Answer) -> None:
            self._answer = answer

        @override
        async def __aiter__(self) -> AsyncGenerator[bytes, None]:
            while piece := await self._answer.piece():
                yield piece

        @override
        async def aclose(self) -> None:
            self._answer.close()

    class Client(httpx.AsyncClient):
        """Has neither cookies, redirects, log-ins nor hooks, and does not go through what httpx has for them."""

        def __init__(self, wire: Wire, reader: Reader) -> None:
            super().__init__(transport=httpx.AsyncBaseTransport(), trust_env=False, timeout=None)
            self._wire = wire
            self._reader = reader

        @override
        def build_request(self, method: str, url: Any, *, timeout: Any = None, **content: Any) -> httpx.Request:
            return httpx.Request(method, url, **content)

        @override
        async def send(self, request: httpx.Request, *, stream: bool = False, **_: Any) -> httpx.Response:
            started = time.monotonic()
            body = await request.aread()
            headers = {name: value for name, value in request.headers.items() if not name.startswith(_NOT_SENT)}
            answer = await self._wire.send(request.method, str(request.url), headers, body or None)
            told = {"content-type": answer.headers.get("content-type", "")}  # all of them that anybody reads here
            streams = b'"stream":true' in body or b'"stream": true' in body
            if answer.status < 400 and streams and answer.may_be_events:
                response = httpx.Response(answer.status, headers=told, stream=Body(answer), request=request)
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
                    await self._reader.refuse(answer)
                content = await answer.read(MAX_ANSWER_BYTES + asked_bytes * _VECTORS_PER_BYTE)
            finally:
                answer.close()
            self._reader.prove(content, answer.content_type, chat=not path.endswith("/embeddings"))
            return content

    return Client


_NOT_SENT = (
    *("host", "connection", "content-length", "accept-encoding", "transfer-encoding"),  # set by the wire itself
    "x-stainless-",  # the SDK tells the vendor of this machine
)
_VECTORS_PER_BYTE = 64 * 1024
"""Bytes of answer for a byte of texts to embed, which is more than there are."""
