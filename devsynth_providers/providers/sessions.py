"""One aiohttp session for each event loop, shared by all providers: connections do not grow with keys or models.

It is closed with the last provider that used it there, or with its loop.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import importlib
import os
import socket
import threading
import weakref
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from .threads import in_thread

if TYPE_CHECKING:
    import aiohttp

USER_AGENT = "devsynth_providers"


class _Shared:
    """The session of one loop, its sockets, and who uses it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self.life = _life(loop, self.sockets)
        self.session: Any = None


_lock = threading.Lock()
_open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = weakref.WeakKeyDictionary()
_left_behind: list[_Shared] = []
"""Sessions of a parent process. A forked child must not close them, nor let them be collected: they are not its own."""
_aiohttp: Any = None


async def module() -> Any:
    """The module ``aiohttp``; its import does not stop the loop."""
    global _aiohttp  # noqa: PLW0603 - set once, when it is whole: what is in sys.modules may be half imported
    if _aiohttp is None:
        _aiohttp = await in_thread(lambda: importlib.import_module("aiohttp"))
    return _aiohttp


async def shared_with(user: object) -> aiohttp.ClientSession:
    """The session of the running loop, which *user* uses from now on."""
    await module()
    loop = asyncio.get_running_loop()
    with _lock:
        shared = _open.get(loop)
    if shared is None or shared.session.closed:
        shared = _Shared(loop)
        shared.session = await anext(shared.life)  # does not wait: no other task comes in between
        with _lock:
            _open[loop] = shared
        await _close_those_of_ended_loops()
    shared.users.add(user)
    session: aiohttp.ClientSession = shared.session
    return session


async def leave(user: object) -> None:
    """*user* needs the session of the running loop no longer; the last to leave closes it."""
    loop = asyncio.get_running_loop()
    with _lock:
        shared = _open.get(loop)
        if shared is None:
            return
        shared.users.discard(user)
        if shared.users:
            return
    await shared.life.aclose()


async def _close_those_of_ended_loops() -> None:
    """A loop that was closed without closing its generators has left its session. Does not wait either."""
    with _lock:
        ended = [loop for loop in _open if loop.is_closed()]
        left = [_open.pop(loop) for loop in ended]
    for each in left:
        await each.session.close()


async def _life(
    loop: asyncio.AbstractEventLoop, sockets: weakref.WeakSet[socket.socket]
) -> AsyncGenerator[aiohttp.ClientSession, None]:
    """A session that ends in good order with its loop: a loop closes the generators that it has seen begin."""

    def make(address: tuple[Any, ...]) -> socket.socket:
        made = socket.socket(*address[:3])
        sockets.add(made)
        return made

    connector = _aiohttp.TCPConnector(limit=0, resolver=_resolver(), socket_factory=make)
    async with _aiohttp.ClientSession(
        connector=connector, cookie_jar=_aiohttp.DummyCookieJar(), headers={"User-Agent": USER_AGENT}
    ) as session:
        try:
            yield session
        finally:
            with _lock:
                if (shared := _open.get(loop)) is not None and shared.session is session:
                    del _open[loop]  # it holds on to its loop, which would never be collected


@atexit.register
def _close_all() -> None:
    """Before the interpreter ends: loops that were left as they were have left their sessions, which would complain."""
    for loop, shared in list(_open.items()):
        with contextlib.suppress(Exception):  # nobody can hear of it any more
            if loop.is_closed():
                shared.session.close().send(None)  # which waits for nothing then
            elif not loop.is_running():
                loop.run_until_complete(shared.life.aclose())


def _resolver() -> Any:
    return _resolver_class()()


@functools.cache
def _resolver_class() -> Any:
    from aiohttp.abc import AbstractResolver, ResolveResult  # noqa: PLC0415 - loaded by now

    class Resolver(AbstractResolver):
        """Looks names up in threads of ours: asyncio's few are often blocked by others."""

        @override
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await in_thread(lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
            return [
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
                for kind, _, protocol, _, address in found
            ]

        @override
        async def close(self) -> None:
            pass

    return Resolver


def _forget() -> None:
    """In a forked child: begin with nothing. The lock may be held by a thread that stayed behind. The child's copies of
    the sockets are closed, or no server would see the parent close its own; nobody is told goodbye by that."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    for shared in _open.values():
        for each in shared.sockets:
            each.close()
    _left_behind.extend(_open.values())
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
