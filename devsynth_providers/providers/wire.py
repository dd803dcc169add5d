"""HTTP in our own hands: a request out, a status, headers and bytes back, and what goes wrong as errors of ours.

Redirects are not followed: a prompt and a key go to the host that was named, and to no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from typing_extensions import override

from ..errors import ConfigurationError, MalformedResponse, ProviderError, ProviderTimeout, ProviderUnavailable
from ..types import Network, Tls
from . import sessions
from .threads import in_thread

if TYPE_CHECKING:
    import aiohttp

CLOSED = "closed"
"""The ``code`` of errors of calls that were under way when their provider was closed."""
_EVENT_TYPES = frozenset(("", "text/event-stream", "text/plain", "application/octet-stream"))


class Headers(dict[str, str]):
    """Headers of a request, which do not show what is in them: a key is, and errors are shown with variables."""

    @override
    def __repr__(self) -> str:
        return f"<{', '.join(self)}>"


class Key(str):
    """A key, which does not show what it is where variables are shown. It is sent as any text is."""

    __slots__ = ()

    @override
    def __repr__(self) -> str:
        return "<key>" if self else "''"


class Answer:
    """What a server sent: its status and headers are here, its bytes come as they are asked for."""

    def __init__(self, response: aiohttp.ClientResponse, session: aiohttp.ClientSession) -> None:
        self._response = response
        self._session = session
        _hear_of_its_end(response)
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    @property
    def content_type(self) -> str:
        """What the bytes are said to be, without parameters: ``application/json``; empty if it is not said."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def may_be_events(self) -> bool:
        """Whether the bytes may be a stream of events: they are not said to be anything else."""
        return self.content_type in _EVENT_TYPES

    async def piece(self) -> bytes:
        """The next bytes; empty at the end. Raises ``ProviderUnavailable`` if the connection breaks before."""
        piece: bytes = await _told(self._response.content.readany(), self._session)
        if not piece and self._session.closed:
            raise _closed()  # which looks like the end of an answer that does not say how long it is
        return piece

    async def read(self, max_bytes: int) -> bytes:
        """All the bytes. Raises ``MalformedResponse`` if there are more than *max_bytes*."""
        pieces, size = [], 0
        while piece := await self.piece():
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                raise MalformedResponse(f"an answer of more than {max_bytes} bytes", status=self.status)
        return b"".join(pieces)

    async def beginning(self, max_bytes: int, within_s: float) -> bytes:
        """As much as comes of the first *max_bytes* bytes *within_s* seconds, however that ends."""
        pieces, size = [], 0
        with contextlib.suppress(ProviderError, TimeoutError):
            async with asyncio.timeout(within_s):
                while size < max_bytes and (piece := await self.piece()):
                    pieces.append(piece)
                    size += len(piece)
        return b"".join(pieces)[:max_bytes]

    def close(self) -> None:
        """Let go of it. What was read to its end has left a connection for the next; one left early is cut."""
        self._response.close()


class Wire:
    """Sends requests by the way that *network* says; a connection must stand within *connect_s* seconds."""

    def __init__(self, network: Network = Network(), *, connect_s: float = 5.0) -> None:
        self._network = network
        self._connect_s = connect_s
        self._proxies: dict[str, str | None] = {}

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """The server's answer, to be closed by the caller.

        Raises ``ProviderUnavailable`` or ``ProviderTimeout`` if there is no server to be reached, and neither is
        billed; if a connection breaks after it stood, nobody can know whether it is. A redirect is a
        ``MalformedResponse``: it says where the prompt and the key should go instead, and they do not.
        """
        aiohttp = await sessions.module()
        tls = await self._tls(url)  # first: nothing may come between the session and its use
        session = await sessions.shared_with(self)
        response = await _told(
            session.request(
                method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                ssl=tls,
                proxy=self._proxy(url),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_s),
            ),
            session,
        )
        if 300 <= response.status < 400:
            response.close()
            elsewhere = _host(response.headers.get("location", "")) or "another path"
            error = MalformedResponse(
                f"a redirect to {elsewhere}, which is not followed: if that is right, it belongs into base_url",
                status=response.status,
            )
            error.billed = False
            raise error
        return Answer(response, session)

    async def aclose(self) -> None:
        """Let go of this loop's session; the last to do so closes it, and with it what is still on its way here."""
        await sessions.leave(self)

    async def _tls(self, url: str) -> ssl.SSLContext | bool:
        if url.startswith("http://"):
            return True
        tls = self._network.tls
        if tls not in _contexts:
            _contexts[tls] = await in_thread(lambda: _context(tls))
        return _contexts[tls]

    def _proxy(self, url: str) -> str | None:
        if url not in self._proxies:
            self._proxies[url] = proxy_of(url, self._network.proxy)
        return self._proxies[url]


_contexts: dict[Tls, ssl.SSLContext] = {}


def _context(tls: Tls) -> ssl.SSLContext:
    """Reads certificates from disk: not on an event loop."""
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.ca_file is None:
            import certifi  # noqa: PLC0415 - comes with LiteLLM; for machines that have no authorities of their own

            context.load_verify_locations(certifi.where())
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"tls: a file of certificates can not be used: {error}") from None
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def proxy_of(url: str, given: str | None) -> str | None:
    """The proxy by which *url* is asked: the one *given*, none if that is empty, else the environment's."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if given == "" or _on_this_machine(host):
        return None
    if given is not None:
        return given
    proxies = getproxies()
    if proxy_bypass(host):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _on_this_machine(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.rstrip(".").lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _hear_of_its_end(response: aiohttp.ClientResponse) -> None:
    """Let whoever reads *response* hear when its connection is closed.

    Where a body turns out in its midst to be no HTTP, aiohttp (3.14) closes the connection and tells its reader
    nothing: that one would wait until its clock runs out.
    """
    content, connection = response.content, response.connection
    protocol = None if connection is None else connection.protocol
    if protocol is None or content.is_eof():
        return

    def closed(end: asyncio.Future[None] | None = None) -> None:
        if end is not None:
            _heard(end)
        error = protocol.exception()
        if error is not None and not content.is_eof() and content.exception() is None:
            content.set_exception(error)

    end: asyncio.Future[None] | None = getattr(protocol, "closed", None)
    if end is None:  # it is closed already; or this is an older aiohttp, which does tell
        closed()
        return

    def read() -> None:  # the connection goes on to the next
        for callback in (closed, _heard):
            end.remove_done_callback(callback)
        end.add_done_callback(_heard)  # however it ends: of a future that nobody asks, asyncio complains

    end.add_done_callback(closed)
    content.on_eof(read)


def _heard(end: asyncio.Future[None]) -> None:
    if not end.cancelled():
        end.exception()


async def _told(work: Any, session: aiohttp.ClientSession) -> Any:
    """What *work* gives; what it raises of aiohttp's, as an error of ours, with nothing of theirs hanging on it."""
    try:
        return await work
    except (OSError, TimeoutError) as error:
        ours = _ours(error)
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "aiohttp" and not session.closed:
            raise
        ours = _ours(error)
    raise _closed() if session.closed else ours


def _closed() -> ProviderError:
    """Nobody is to be asked in its place: whoever closes a provider, or a router, wants no more answers."""
    ours = ProviderUnavailable("its provider was closed while it was asked", code=CLOSED)
    ours.retryable = ours.passes_on = False
    return ours


def _ours(error: Exception) -> ProviderError:
    import aiohttp  # noqa: PLC0415 - loaded by whoever raised it

    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    ours: ProviderError
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
        ours = ProviderUnavailable(f"{error.host}:{error.port}: its certificate is not to be trusted: {reason}")
        ours.retryable = ours.billed = False
    elif isinstance(error, aiohttp.ClientConnectorSSLError):
        reason = getattr(error.os_error, "reason", None) or type(error.os_error).__name__
        hint = ": it does not speak TLS; is it http://?" if reason == "WRONG_VERSION_NUMBER" else f": no TLS: {reason}"
        ours = ProviderUnavailable(f"{error.host}:{error.port}{hint}")
        ours.retryable = ours.billed = False
    elif isinstance(error, aiohttp.InvalidURL):
        ours = ProviderUnavailable("what should be the URL of the server, or of the proxy, is none")
        ours.retryable = ours.billed = False
    elif isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError):
        ours = ProviderUnavailable(f"{error.host}:{error.port}: {_why(error.os_error)}")
        ours.billed = False
    elif isinstance(error, aiohttp.ClientHttpProxyError):
        ours = ProviderUnavailable(f"the proxy said {error.status}", status=error.status)
        ours.billed = False
    elif isinstance(error, aiohttp.ConnectionTimeoutError):
        ours = ProviderTimeout("no connection in time")
        ours.billed = False
    elif isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientConnectionError):
        ours = ProviderUnavailable(f"the connection broke: {told}")
    elif isinstance(error, TimeoutError):
        ours = ProviderTimeout(told)
    elif isinstance(error, OSError):
        ours = ProviderUnavailable(told)
    else:  # its own text goes on with what came instead
        said = str(getattr(error, "message", "")).partition("\n")[0].rstrip(":")
        ours = MalformedResponse(f"what came is not HTTP: {said[:100] or type(error).__name__}")
    return ours


def _why(error: OSError) -> str:
    """The reason alone: asyncio says ``Connect call failed`` and the address once more."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)
