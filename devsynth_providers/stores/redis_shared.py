"""What the processes of many hosts share, on a server of Redis or Valkey, by its clock."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ..background import Background
from .process import gone, identity
from .redis_clients import Clients
from .redis_shared_scripts import ENTER, FOUND, LEFT, UNWELL
from .shared import POLL_S, WINDOW_S, Full, Leave, Quota, SharedUnavailable, Unwell

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")

SWEEP_S = 1.0
"""Between two looks who of those that have something under way has ended."""


class RedisShared:
    """Keeps at *url* what passed in the last minute, what is under way, and who is unwell.

    What a process that has ended had under way is over, that of one of another host when its lease is. All keys begin
    with ``{prefix}``: a cluster keeps them together. Any thread and event loop may use it. Raises
    ``ConfigurationError`` for a URL that is none, or without the package redis.
    """

    def __init__(self, url: str, *, prefix: str = "devsynth") -> None:
        self._prefix = f"{{{prefix}}}"
        self._unwell = f"{self._prefix}:unwell"
        self._clients = Clients(url, "what is shared at", SharedUnavailable)
        self._background = Background()
        self._swept_at: dict[str, float] = {}

    async def enter(self, quotas: Sequence[Quota], tokens: int, lease_s: float) -> Leave | Full:
        name = f"{identity()}:{secrets.token_hex(8)}"
        arguments: list[Any] = [name, tokens, lease_s, WINDOW_S]
        for quota in quotas:
            arguments += ["" if each is None else each for each in quota[1:]]
        entering = asyncio.ensure_future(self._said(ENTER, self._keys(quotas), arguments))
        try:
            told, *rest = (await asyncio.shield(entering)).split()
        except asyncio.CancelledError:  # it may be let in yet
            self._later(lambda: self._undone(entering, quotas, Leave(name, 0, tokens)))
            raise
        if told == "full":
            number, wait_s = rest
            if not float(wait_s):
                await self._forget_the_dead(self._keys(quotas)[2 * int(number) + 1])
            return Full(int(number), float(wait_s) or POLL_S)
        return Leave(name, int(rest[0]), tokens)

    def left(self, quotas: Sequence[Quota], leave: Leave, tokens: int | None) -> None:
        correction = 0 if tokens is None else tokens - leave.tokens
        self._later(lambda: self._said(LEFT, self._keys(quotas), [leave.id, leave.second, correction]))

    async def unwell(self) -> Mapping[str, Unwell]:
        told = await self._said(UNWELL, [self._unwell], [])
        return {
            server: Unwell(float(until), float(for_s), reason)
            for server, until, for_s, reason in zip(*[iter(told)] * 4, strict=True)
        }

    def found(self, server: str, for_s: float, reason: str) -> None:
        self._later(lambda: self._said(FOUND, [self._unwell], [server, for_s, reason]))

    async def aclose(self) -> None:
        await self._background.ended()
        await self._clients.aclose()

    async def _forget_the_dead(self, under_way: str) -> None:
        """What processes of this host that have ended have there is over."""
        now = time.monotonic()
        self._swept_at = {gate: at for gate, at in self._swept_at.items() if now - at < SWEEP_S}
        if under_way in self._swept_at:
            return
        self._swept_at[under_way] = now
        held: Any = await self._clients.done(lambda client: client.zrange(under_way, 0, -1))
        if dead := [each for each in held if gone(each.rpartition(":")[0])]:
            await self._clients.done(lambda client: client.zrem(under_way, *dead))

    async def _undone(self, entering: Awaitable[object], quotas: Sequence[Quota], leave: Leave) -> None:
        await entering
        await self._said(LEFT, self._keys(quotas), [leave.id, leave.second, 0])

    def _keys(self, quotas: Sequence[Quota]) -> list[str]:
        return [f"{self._prefix}:{kind}:{quota.gate}" for quota in quotas for kind in ("passed", "under_way")]

    async def _said(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        def said(client: Redis) -> Awaitable[Any]:
            return client.register_script(script)(keys, arguments)

        return await self._clients.done(said)

    def _later(self, work: Callable[[], Awaitable[object]]) -> None:
        async def tried() -> None:
            with suppress(SharedUnavailable):  # its lease ends, and so does what was said of a server
                await work()

        with suppress(RuntimeError):  # outside of an event loop there is nobody to send it
            asyncio.get_running_loop()
            self._background.start(tried())
