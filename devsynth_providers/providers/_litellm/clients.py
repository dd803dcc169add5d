"""Clients for LiteLLM's calls that send over our wire: its own follow redirects, and leave two descriptors behind for
each key and each event loop. One of these serves any number of loops, since the wire finds the session of each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from typing_extensions import override

from ...types import Model
from .. import failures
from ..wire import Answer, Wire

_HANDLED = frozenset(("anthropic", "openrouter"))
"""LiteLLM's names of the providers that take its own kind of client and have been tested with it."""


def client(
    provider: str, wire: Wire, model: Model, *, api_key: str | None, base_url: str | None, organization: str | None
) -> Any:
    """What LiteLLM's calls take as ``client``; ``None`` for providers that have not been tested with one."""
    import httpx  # noqa: PLC0415 - comes with LiteLLM, and is loaded by it

    http = httpx.AsyncClient(
        transport=_transport(wire, model, [api_key or ""]), follow_redirects=False, trust_env=False, timeout=None
    )
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


def _transport(wire: Wire, model: Model, secrets: Sequence[str]) -> Any:
    import httpx  # noqa: PLC0415

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

    class Transport(httpx.AsyncBaseTransport):
        @override
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            body = await request.aread()
            headers = {name: value for name, value in request.headers.items() if name not in _WIRE_HEADERS}
            answer = await wire.send(request.method, str(request.url), headers, body or None)
            if answer.status >= 400:
                try:
                    await failures.refuse(answer, model, secrets)  # before LiteLLM makes of it what it thinks it is
                finally:
                    answer.close()
            told = [(name, value) for name, value in answer.headers.items() if name.lower() not in _DECODED]
            return httpx.Response(answer.status, headers=told, stream=Body(answer), request=request)

    return Transport()


_WIRE_HEADERS = frozenset(("host", "connection", "content-length", "accept-encoding", "transfer-encoding"))
"""Set by the wire itself."""
_DECODED = frozenset(("content-encoding", "content-length", "transfer-encoding"))
"""True of what came over the wire, not of the bytes that it hands on."""
