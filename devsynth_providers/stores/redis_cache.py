"""Answers that were given before, on a server of Redis or Valkey: for the processes of many hosts."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ..background import Background
from .claims import OVER, OVER_S, Claim
from .process import gone, identity
from .redis_clients import Clients
from .seal import MAC_BYTES, Refused, Seal
from .secret import secret_of
from .terms import LARGEST_BYTES, CacheStatistics, seconds

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")

CLAIM = """
-- KEYS: a claim; ARGV: whose it is to be, milliseconds to keep it
local held = redis.call('GET', KEYS[1])
if not held then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return held
"""
SWAP = """
-- KEYS: a claim; ARGV: what it was, what it is to be, milliseconds to keep that
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
AWAY_S = 5.0
"""A server that can not be used is not asked again for so long: each time may take as long as its clocks allow."""
_log = logging.getLogger("devsynth_providers")


class Unreachable(Exception):
    """The server can not be used."""


class RedisCache:
    """Keeps JSON values at *url* for *ttl* seconds, each in a scope, as a ``ResponseCache`` does in a directory.

    Entries are signed with *secret*, by default this user's key on this machine: hosts that have another neither find
    each other's entries nor can write any, so give the same to all that are to share. How much is kept, and what goes
    first, is the server's to say (``maxmemory``). It never fails a call. All keys begin with ``{prefix}``. Raises
    ``ConfigurationError`` for a URL that is none, a *ttl* that is none, or without the package redis.
    """

    tier = "redis"

    def __init__(
        self,
        url: str,
        ttl: float = 3600.0,
        *,
        secret: bytes | None = None,
        prefix: str = "devsynth",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ttl_s = seconds(ttl)
        self.statistics = CacheStatistics()
        self._clients = Clients(url, "the cache", Unreachable)
        self._seal = Seal(secret_of() if secret is None else secret)
        self._prefix = f"{{{prefix}}}:cache:"
        self._clock = clock
        self._keeping, self._background = Background(), Background()
        self._warned = False
        self._away_until = 0.0

    async def get(self, scope: str, key: str) -> Any | None:
        """The value that *scope* has at *key*; ``None`` if there is none, or none any more."""
        return (await self.get_many(scope, [key])).get(key)

    async def get_many(self, scope: str, keys: Sequence[str]) -> Mapping[str, Any]:
        """The values that *scope* has at *keys*, as far as there are any."""
        rows = [self._row(scope, key) for key in keys]
        told: Any = await self._safely(lambda client: client.mget(rows)) if rows else []
        read = {
            key: self._read(row, text) for key, row, text in zip(keys, rows, told or [None] * len(keys), strict=True)
        }
        found = {key: value for key, value in read.items() if value is not None}
        self.statistics.hits += len(found)
        self.statistics.misses += len(keys) - len(found)
        return found

    async def set(self, scope: str, key: str, value: Any, ttl: float | None = None) -> None:
        """Keep *value*, which must be JSON, for *ttl* seconds."""
        row, ttl_s = self._row(scope, key), self.ttl_s if ttl is None else seconds(ttl)
        text = self._written(row, value, ttl_s)
        if len(text) > LARGEST_BYTES:
            self.statistics.dropped += 1
        elif await self._safely(lambda client: client.set(row, text, px=_milliseconds(ttl_s))):
            self.statistics.stored += 1

    def put(self, scope: str, key: str, value: Any, ttl: float | None = None) -> None:
        """As ``set``, and nobody waits for it: ``flush`` does."""
        self._later(lambda: self.set(scope, key, value, ttl), self._keeping)

    async def claim(self, scope: str, key: str, lease_s: float) -> Claim | None:
        """Leave to make the call whose answer is to be kept at *key*, for *lease_s* at most; ``None`` while another
        process makes it. Where that cannot be found out there is leave for everybody."""
        row = self._row(scope, f"claim {key}")
        me = self._written(row, [identity(), secrets.token_hex(8)], lease_s)
        claim = Claim(own=True, done=lambda: self._later(lambda: self._released(row, me)))
        claiming = asyncio.ensure_future(self._safely(lambda client: _claimed(client, row, me, _milliseconds(lease_s))))
        try:
            held = await asyncio.shield(claiming)
        except asyncio.CancelledError:  # it may be made yet
            claiming.add_done_callback(lambda _: claim.done())
            raise
        if held is None or held == me:
            return claim
        holder = self._read(row, held)
        if holder is None or holder == OVER:
            return Claim()
        if not gone(str(holder[0])):
            return None
        try:
            taken = await self._safely(lambda client: _swapped(client, row, held, me, _milliseconds(lease_s)))
        except asyncio.CancelledError:  # likewise
            claim.done()
            raise
        return claim if taken else None

    async def clear(self, scope: str | None = None) -> int:
        """Forget everything, or what *scope* has; how many entries that were."""
        match = f"{self._prefix}{'' if scope is None else self._seal.tenant(scope)}*"

        async def cleared(client: Redis) -> int:
            return sum([await client.unlink(key) async for key in client.scan_iter(match, count=1000)])

        return await self._safely(cleared) or 0

    async def flush(self) -> None:
        """Wait until what was put so far is kept."""
        await self._keeping.ended()
        await self._background.ended()

    async def aclose(self) -> None:
        """Let go of the connections of this event loop. Whoever asks again connects again."""
        await self.flush()
        await self._clients.aclose()

    async def _released(self, row: str, me: str) -> None:
        await self._keeping.ended()  # whoever hears that it is over looks for the answer
        over = self._written(row, OVER, OVER_S)
        await self._safely(lambda client: _swapped(client, row, me, over, _milliseconds(OVER_S)))

    async def _safely(self, work: Callable[[Redis], Awaitable[T]]) -> T | None:
        """What *work* returns; ``None`` where the server can not be used, which is then left alone for a while."""
        if time.monotonic() < self._away_until:
            return None
        try:
            return await self._clients.done(work)
        except Unreachable as error:
            self._away_until = time.monotonic() + AWAY_S
            self.statistics.dropped += 1
            if not self._warned:
                self._warned = True
                _log.warning("answers are not kept: %s", error)
            return None

    def _later(self, work: Callable[[], Awaitable[None]], where: Background | None = None) -> None:
        async def begun() -> None:
            await work()

        with suppress(RuntimeError):  # outside of an event loop there is nobody to send it
            asyncio.get_running_loop()
            (where or self._background).start(begun())

    def _row(self, scope: str, key: str) -> str:
        return self._prefix + self._seal.row(scope, key)

    def _written(self, row: str, value: Any, for_s: float) -> str:
        entry = self._seal.closed(row, value, self._clock() + for_s)
        return entry[:MAC_BYTES].hex() + entry[MAC_BYTES:].decode("ascii")

    def _read(self, row: str, text: str | None) -> Any | None:
        """The value of what stands at *row*; ``None`` if nothing does, its time is over, or we did not write it."""
        if text is None:
            return None
        try:
            entry = bytes.fromhex(text[: 2 * MAC_BYTES]) + text[2 * MAC_BYTES :].encode("ascii")
            return self._seal.opened(row, entry, self._clock())
        except (Refused, ValueError, TypeError, RecursionError):
            self.statistics.refused += 1
            return None


async def _claimed(client: Redis, row: str, me: str, ms: int) -> str | None:
    """Who has had it already, if anybody has."""
    held: str | None = await client.register_script(CLAIM)([row], [me, ms])
    return held


async def _swapped(client: Redis, row: str, before: str, after: str, ms: int) -> bool:
    return bool(await client.register_script(SWAP)([row], [before, after, ms]))


def _milliseconds(for_s: float) -> int:
    return max(1, int(for_s * 1000))
