"""The door to redis: a client for each event loop, which it belongs to, and every failure of it as an error of ours."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from ..errors import ConfigurationError, LedgerUnavailable
from ..guard import Guard

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")

SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
"""What a URL may begin with, and what the client calls it; those with an s at the end are encrypted."""
WITHIN_S = 5.0
"""How long anything may take, with the one time that it is tried again."""
CONNECT_S, ANSWER_S = 1.0, 2.0
CONNECTIONS = 16
"""For one event loop; whoever comes when all are busy waits for one."""

_left_behind: list[object] = []
"""Clients of a parent process. A forked child must not let them be collected: what is told to the system then, that a
socket is no longer listened to, holds for the parent too."""


class Clients:
    """Connects to *url* when it is first needed; options of the client may stand in its query.

    Raises ``ConfigurationError`` if the package is missing, or the URL is none. Any thread and event loop may use it.
    What is open is closed by ``aclose``, and at the latest with its loop. *what* is kept there, for people; where it
    can not be used, *failure* is raised.
    """

    def __init__(self, url: str, what: str = "the ledger", failure: type[Exception] = LedgerUnavailable) -> None:
        self._what, self._failure = what, failure
        self._redis = _module("redis")
        self.refusal: type[Exception] = self._redis.ResponseError
        self._asyncio = _module("redis.asyncio")
        self.name = _name(url)
        self._options = self._understood(url)
        given = (str(self._options.get(key) or "") for key in ("password", "username"))
        self._secrets = [form for secret in given if secret for form in (secret, quote(secret, safe=""))]
        self._open: dict[asyncio.AbstractEventLoop, tuple[Redis, AsyncGenerator[Redis]]] = {}
        self._guard = Guard(self._leave_behind)

    async def done(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """What *work* returns, which is tried again once where a connection broke: it must be safe to say twice. Raises
        the *failure*, in bounded time."""
        try:
            async with asyncio.timeout(WITHIN_S):
                try:
                    return await work(await self._here())
                except (self._redis.ConnectionError, self._redis.TimeoutError):
                    return await work(await self._here())  # over the connection that broke, which connects anew
                except self._redis.ReadOnlyError:  # it was the master: whoever is now has the same name, or will
                    await (await self._here()).connection_pool.disconnect(inuse_connections=False)
                    return await work(await self._here())
        except (self._redis.RedisError, OSError, UnicodeEncodeError) as error:  # the deadline's is one of the system's
            why = self._scrubbed(str(error)) or f"no answer within {WITHIN_S:g} s"
        raise self._failure(f"{self._what} {self.name} can not be used: {why}")

    async def aclose(self) -> None:
        """Close what this event loop has open."""
        with self._guard:
            mine = self._open.get(asyncio.get_running_loop())
        if mine is not None:
            await mine[1].aclose()

    async def _here(self) -> Redis:
        loop = asyncio.get_running_loop()
        with self._guard:
            mine = self._open.get(loop)
        if mine is None:
            life = self._life(loop)
            mine = await anext(life), life  # does not wait: no other task comes in between
            with self._guard:
                self._open = {each: kept for each, kept in self._open.items() if not each.is_closed()} | {loop: mine}
        return mine[0]

    async def _life(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[Redis]:
        """A client that ends in good order with its loop: a loop closes the generators that it has seen begin."""
        client = self._asyncio.Redis.from_pool(self._asyncio.BlockingConnectionPool(**self._options))
        try:
            yield client
        finally:
            with self._guard:
                self._open.pop(loop, None)
            await client.aclose()

    def _leave_behind(self) -> None:
        """In a forked child."""
        _left_behind.append(self._open)
        self._open = {}

    def _understood(self, url: str) -> dict[str, Any]:
        """*url* as options of a pool. The client's own retries are off: it does not know what may be said twice."""
        scheme, _, rest = url.partition("://")
        options: dict[str, Any] = {"socket_connect_timeout": CONNECT_S, "socket_timeout": ANSWER_S, "timeout": WITHIN_S}
        options["max_connections"] = CONNECTIONS
        no_retries = _module("redis.asyncio.retry").Retry(_module("redis.backoff").NoBackoff(), 0)
        try:
            told = _module("redis.asyncio.connection").parse_url(f"{SCHEMES[scheme.lower()]}://{rest}")
            kind = told.get("connection_class", self._asyncio.Connection)
            if kind is self._asyncio.SSLConnection:
                options["ssl_check_hostname"] = True
            options |= told | {"retry": no_retries, "protocol": 2, "decode_responses": True}
            kind(**{key: value for key, value in options.items() if key not in _OF_THE_POOL})
        except (ValueError, TypeError, self._redis.RedisError) as error:
            why = type(error).__name__  # its text may have the password in it
        else:
            return options
        raise ConfigurationError(f"{self.name} is no URL of a server, or has an option that is unknown ({why})")

    def _scrubbed(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text[:300]


_OF_THE_POOL = ("connection_class", "max_connections", "timeout")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        pass
    raise ConfigurationError("Redis and Valkey need the package redis: pip install 'devsynth_providers[redis]'")


def _name(url: str) -> str:
    """What may be said of *url*: where it leads, and nobody's name or password."""
    try:
        parts = urlsplit(url)
        number = parts.path.strip("/")
        right = parts.scheme in SCHEMES and parts.hostname and parts.port != 0 and not parts.fragment
        right = right and (number.isdecimal() or not number)
    except ValueError:
        right = False
    if not right:
        schemes = ", ".join(f"{each}://" for each in SCHEMES)
        raise ConfigurationError(f"the URL of a server is {schemes} and host:port/number of the database")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
