"""A ledger on a server of Redis or Valkey, for the processes of many hosts."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ConfigurationError, LedgerUnavailable
from .entries import Entry, Hit, Outcome, Purse, Reserved, Spent
from .hits import Hits
from .process import elsewhere, gone, identity
from .redis_clients import Clients
from .redis_scripts import HITS, RECOVER, RESERVE, SETTLE, VOID

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")
_Said = tuple[str, list[str], list[Any]]
"""A script, its keys and its arguments, which may be said twice."""

PREFIX = "devsynth"
LARGEST_MICROS = 2**53 - 1
"""What is more is not exact in Lua, and refused: some nine billion dollars."""
DAY_S = 86_400.0
BALANCES_KEPT_S = 100 * DAY_S
"""Since something was last taken from them: long after any period has ended, a month at most. Totals never go."""
KEEPS_ALL = "noeviction"
AT_ONCE = 500
"""Entries that one script takes: the server does nothing else meanwhile."""
OWED, PAID_BACK = 10_000, 20
"""What could not be said while the server was away: how much of it is kept in mind, and said by one who comes."""


class RedisLedger:
    """Keeps entries and balances at *url*, ``redis://``, ``valkey://`` or, encrypted, ``rediss://`` and ``valkeys://``.

    A balance is what is spent and what is reserved; one script decides whether an attempt may begin. What a process
    left reserved is counted as spent in full once its lease is over and the process has ended, as far as one can know
    of a process of another host; that is done at the first use, and by ``recover``. What is acknowledged outlives the
    server as it is set up to (``appendonly yes``, ``appendfsync always``); one that forgets keys when it is full is
    refused. Where nobody knows whether something has been reserved, the answer being lost, it is not: it is given back
    when the server is next there, and what could not be settled is settled then.

    Entries are kept for *kept_s* after their end. All keys begin with ``{prefix}``: a cluster keeps them together. Any
    thread and event loop may use it; a child that was forked has connections of its own. *clock* tells the time of day,
    which should be about the same on all hosts. Raises ``ConfigurationError`` for a URL that is none, or without the
    package redis.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = PREFIX,
        kept_s: float = 90 * DAY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not prefix or {"{", "}"} & set(prefix) or kept_s < 1:
            raise ConfigurationError("a prefix is text without braces, and what is kept is kept for a second at least")
        self._prefix = f"{{{prefix}}}"
        self._reserved = f"{self._prefix}:reserved"
        self._kept_s = int(kept_s)
        self._clock = clock
        self._clients = Clients(url)
        self._hits = Hits()
        self._counting: asyncio.Task[None] | None = None
        self._under_way = set[asyncio.Task[Any]]()
        self._owed: dict[str, _Said] = {}  # by its token
        self._begun_in = 0

    async def reserve(self, entry: Entry, purses: Sequence[Purse] = ()) -> Reserved:
        self._exact(entry.worst_micros, *(abs(purse.limit_micros) for purse in purses))
        token, key = secrets.token_hex(8), self._entry(entry.call, entry.attempt)
        keys = [key, self._reserved, self._voided(token), *map(self._balance, purses)]
        fields = self._fields(entry, purses)
        first = 7 + 3 * len(purses)
        kept_s = self._kept_s + int(min(entry.lease_s, BALANCES_KEPT_S))
        arguments = [token, fields["until"], entry.worst_micros, kept_s, int(BALANCES_KEPT_S), first]
        for purse in purses:
            arguments += [purse.limit_micros, int(purse.binding), int(purse.period == "total")]
        arguments += [each for pair in fields.items() for each in pair]
        try:
            said, *numbers = (await self._said(RESERVE, keys, arguments)).split()
        except BaseException:  # it may have been done, or may yet be
            self._owe(token, (VOID, [self._voided(token), key, self._reserved], [token]))
            raise
        told = tuple(Spent(purses[int(at) - 1], int(spent)) for at, spent in zip(*[iter(numbers)] * 2, strict=True))
        if said == "reserved":
            return Reserved(over=told)
        if said == "refused":
            return Reserved(refused=told[0])
        why = {
            "there": "this attempt is there already",
            "void": "this came too late",
            "large": "a balance would be too large to be exact",
        }
        raise LedgerUnavailable(f"the ledger {self._clients.name} can not be used: {why[said]}")

    def settle(self, call: str, attempt: int, outcome: Outcome) -> Awaitable[bool]:
        return asyncio.shield(self._begun(self._settled(call, attempt, outcome)))

    async def _settled(self, call: str, attempt: int, outcome: Outcome) -> bool:
        self._exact(outcome.cost_micros or 0)
        usage = outcome.usage
        fields = {
            "state": "estimated" if outcome.basis in ("estimated", "unknown") else "settled",
            "basis": outcome.basis,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_input_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "usage_estimated": int(usage.estimated),
            "error": outcome.error,
            "latency_s": outcome.latency_s,
            "first_token_s": outcome.first_token_s,
            "finish_reason": outcome.finish_reason,
        }
        cost = "" if outcome.cost_micros is None else outcome.cost_micros
        token, keys = secrets.token_hex(8), [self._entry(call, attempt), self._reserved]
        arguments: list[Any] = [token, cost, self._kept_s]
        arguments += [each for pair in fields.items() if pair[1] is not None for each in pair]
        try:
            return bool(await self._said(SETTLE, keys, arguments))
        except BaseException:
            self._owe(token, (SETTLE, keys, arguments))
            raise

    def hit(self, hit: Hit) -> None:
        self._hits.add(self._clock(), hit)
        counting = self._counting
        if counting is None or counting.done() or counting.get_loop() is not asyncio.get_running_loop():
            self._counting = self._begun(self._count_hits())

    async def spent_micros(self, purse: Purse) -> int:
        return int(await self._done(lambda client: client.get(self._balance(purse))) or 0)

    async def recover(self) -> int:
        """Count as spent in full what processes that have ended left reserved; how many entries that were."""
        return await self._done(self._recover)

    async def aclose(self) -> None:
        loop = asyncio.get_running_loop()
        if mine := [task for task in self._under_way if task.get_loop() is loop]:
            await asyncio.wait(mine)
        with suppress(LedgerUnavailable, ConfigurationError):
            while self._owed:
                await self._done(lambda _: asyncio.sleep(0))
        await self._clients.aclose()

    def _begun(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """*work*, which goes on where nobody waits for it; ``aclose`` does."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _count_hits(self) -> None:
        """Until there are none, also of those that come meanwhile."""
        while counts := self._hits.take():
            days: dict[str, list[Any]] = {}
            for (minute, hit), count in counts.items():
                day = datetime.fromtimestamp(minute, UTC).date().isoformat()
                days.setdefault(f"{self._prefix}:hits:{day}", []).extend([json.dumps([minute, *hit]), count])
            try:
                for key, told in days.items():
                    await self._said(HITS, [f"{self._prefix}:said:{secrets.token_hex(8)}", key], [self._kept_s, *told])
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody is there to hear of it
                self._hits.lost(error)

    async def _said(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return await self._done(lambda client: client.register_script(script)(keys, arguments))

    async def _done(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        async def begun(client: Redis) -> T:
            if self._begun_in != os.getpid():
                await self._begin(client)
                self._begun_in = os.getpid()
            await self._pay_back(client)
            return await work(client)

        return await self._clients.done(begun)

    async def _begin(self, client: Redis) -> None:
        """Before anything else, in each process."""
        memory: dict[str, Any] = {}
        with suppress(self._clients.refusal):  # we may not be allowed to know
            memory = await client.info("memory")
        policy = memory.get("maxmemory_policy", KEEPS_ALL)
        if memory.get("maxmemory") and policy != KEEPS_ALL:
            raise ConfigurationError(
                f"the server {self._clients.name} forgets keys when its memory is full (maxmemory-policy {policy}), "
                f"and with them what is spent: set it to {KEEPS_ALL}"
            )
        await self._recover(client)

    async def _recover(self, client: Redis) -> int:
        """Their worst case is what has been taken out for them already: it only becomes what they have cost."""
        now = self._clock()
        due: list[Any] = await client.zrangebyscore(self._reserved, "-inf", now)
        async with client.pipeline(transaction=False) as asking:
            for entry in due:
                asking.hget(entry, "process")
            processes = await asking.execute()
        ended = [(entry, why) for entry, process in zip(due, processes, strict=True) if (why := _ended(process))]
        script, recovered = client.register_script(RECOVER), 0
        for first in range(0, len(ended), AT_ONCE):
            entries, reasons = zip(*ended[first : first + AT_ONCE], strict=True)
            recovered += int(await script([self._reserved, *entries], [now, *reasons]))
        return recovered

    def _owe(self, token: str, said: _Said) -> None:
        if len(self._owed) < OWED:
            self._owed[token] = said

    async def _pay_back(self, client: Redis) -> None:
        """Give back what was wanted when nobody answered, and settle what could not be settled, in their order."""
        for token, (script, keys, arguments) in list(self._owed.items())[:PAID_BACK]:  # another may do so, too
            try:
                await client.register_script(script)(keys, arguments)
            except self._clients.refusal:
                continue  # its memory is full, for one: others may read
            except UnicodeEncodeError:
                pass  # nobody ever can say it
            self._owed.pop(token, None)

    def _fields(self, entry: Entry, purses: Sequence[Purse]) -> dict[str, Any]:
        now = self._clock()
        fields = {
            "state": "reserved",
            "call": entry.call,
            "attempt": entry.attempt,
            "at": now,
            "until": now + entry.lease_s,
            "process": identity(),
            "reserved_micros": entry.worst_micros,
            "purses": json.dumps([purse[:2] for purse in purses]),
            "balances": json.dumps([self._balance(purse) for purse in purses]),
            "provider": entry.provider,
            "model": entry.model,
            "project": entry.project,
            "role": entry.role,
            "task": entry.task,
            "policy": entry.policy,
            "rule": entry.rule,
            "tags": json.dumps(entry.tags),
            "reason": entry.reason,
            "complexity": entry.complexity,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _entry(self, call: str, attempt: int) -> str:
        return f"{self._prefix}:entry:{call}:{attempt}"

    def _voided(self, token: str) -> str:
        return f"{self._prefix}:void:{token}"

    def _balance(self, purse: Purse) -> str:
        return f"{self._prefix}:balance:{len(purse.period)}:{purse.period}:{purse.account}"  # no two have one name

    def _exact(self, *micros: int) -> None:
        if not all(0 <= each <= LARGEST_MICROS for each in micros):
            raise LedgerUnavailable(
                f"the ledger {self._clients.name} counts from 0 to {LARGEST_MICROS} micro-USD exactly"
            )


def _ended(process: str | None) -> str | None:
    """Why what *process* has reserved can be counted as spent, its lease being over; ``None`` if it can not."""
    if process is None or gone(process):
        return "process_ended"
    return "lease_ended" if elsewhere(process) else None
