"""A ledger on a server for those who only look: all that stands there, copied into a file that nobody else sees; and
what a project has spent, summed up there."""

from __future__ import annotations

import asyncio
import functools
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, LedgerUnavailable
from .migrations import BEGUN, MIGRATIONS, OUTCOME
from .redis_clients import Clients
from .redis_ledger import PREFIX
from .redis_scripts import SUM

if TYPE_CHECKING:
    from redis.asyncio import Redis

AT_ONCE = 500
"""Keys that are asked for at the same time."""
_BEGUN, _ENDED = BEGUN.split(", "), [*BEGUN.split(", "), *OUTCOME.split(", ")]
_ENTRIES, _HITS = f"{{{PREFIX}}}:entry:*", f"{{{PREFIX}}}:hits:*"
_HIT = ("at", "provider", "model", "project", "role", "task", "policy", "rule", "hits")


@contextmanager
def copied(url: str) -> Iterator[tuple[sqlite3.Connection, str]]:
    """What the ledger at *url* has, as the database of a ledger's file; and what the server is called, without its
    password. Not in a running event loop. An entry that changes meanwhile is as it was before or after.

    Raises ``ConfigurationError`` for a URL that is none, without the package redis, and where no server answers.
    """
    clients = Clients(url, failure=ConfigurationError)
    with closing(sqlite3.connect("", isolation_level=None)) as database:  # in memory, on the disk if it is large
        for statement in (each for step in MIGRATIONS for each in step):
            database.execute(statement)
        database.execute("BEGIN")
        asyncio.run(_copy(clients, database))
        database.execute("COMMIT")
        yield database, clients.name


async def _copy(clients: Clients, database: sqlite3.Connection) -> None:
    try:
        async for found in _hashes(clients, _ENTRIES):
            for entry in found:
                table, columns = ("under_way", _BEGUN) if entry["state"] == "reserved" else ("ended", _ENDED)
                _put(database, table, columns, [entry.get(column) for column in columns])
        async for found in _hashes(clients, _HITS):
            for day in found:
                for hit, count in day.items():
                    _put(database, "hits", _HIT, [*json.loads(hit), count])
    except ConfigurationError:
        raise  # it is a ValueError, too
    except (sqlite3.IntegrityError, KeyError, ValueError, TypeError):
        raise ConfigurationError(f"what stands at {clients.name} is no ledger of this version") from None
    finally:
        await clients.aclose()


async def spent_by(clients: Clients, project: str | None) -> tuple[int, int]:
    """What all entries of *project* that are kept have cost, or, while they are under way, may cost; and how many calls
    they are of. The server sums them up, some at a time."""
    micros, calls = 0, set[str]()
    async for keys in _keys(clients, _ENTRIES):
        spent, whose = await clients.done(functools.partial(_sum, keys, project))
        micros += int(spent)
        calls.update(keys[number - 1].rpartition(":")[0] for number in whose)  # without the number of the attempt
    return micros, len(calls)


async def hits_of(clients: Clients, project: str | None) -> int:
    """How many requests of *project* the cache has answered."""
    hits = 0
    try:
        async for found in _hashes(clients, _HITS):
            told = [(json.loads(hit), int(count)) for day in found for hit, count in day.items()]
            hits += sum(count for hit, count in told if hit[_HIT.index("project")] == project)
    except (ValueError, TypeError, LookupError):
        raise LedgerUnavailable(f"what stands at {clients.name} is no ledger of this version") from None
    return hits


async def _hashes(clients: Clients, pattern: str) -> AsyncIterator[Sequence[Mapping[str, str]]]:
    """All hashes whose keys are like *pattern*, some at a time, each once."""
    async for keys in _keys(clients, pattern):
        yield await clients.done(functools.partial(_read, keys))


async def _keys(clients: Clients, pattern: str) -> AsyncIterator[list[str]]:
    """All keys that are like *pattern*, some at a time, each once."""
    cursor, seen = 0, set[str]()
    while True:
        cursor, keys = await clients.done(functools.partial(_scan, cursor, pattern))
        new = set(keys) - seen
        seen |= new
        if new:
            yield list(new)
        if not cursor:
            return


async def _scan(cursor: int, pattern: str, client: Redis) -> tuple[int, list[Any]]:
    return await client.scan(cursor, match=pattern, count=AT_ONCE)


async def _sum(keys: Sequence[str], project: str | None, client: Redis) -> tuple[str, list[int]]:
    micros, whose = await client.register_script(SUM)(keys, [] if project is None else [project])
    return micros, whose


async def _read(keys: Sequence[str], client: Redis) -> list[Mapping[str, str]]:
    async with client.pipeline(transaction=False) as asking:
        for key in keys:
            asking.hgetall(key)
        return [each for each in await asking.execute() if each]  # one may have gone meanwhile


def _put(database: sqlite3.Connection, table: str, columns: Sequence[str], values: Sequence[object]) -> None:
    marks = ", ".join("?" * len(columns))
    database.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", values)
