"""What stores cost: reserve and settle in a ledger, a look into a cache and a hit through the whole router.

    .venv/bin/python benchmarks/stores.py [--rounds 7] [--redis redis://127.0.0.1:6379/0]

All in one process, one after the other, in rounds that take turns. Beside the ledger stands what SQLite itself takes
for the same statements, without putting them from the log into the file; beside the cache diskcache alone (no
signature, pickled values), and LiteLLM's disk and Redis caches over the same answer. Figures are medians over rounds,
in wall and in CPU time of this process; ratios are taken within a round. Without ``--redis`` a server is started that
writes down what it has every second, if there is one (on the path, or where ``scripts/test`` puts it).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import diskcache

from devsynth_providers import Keep, Model, Policy, Price, ResponseCache, Router, Rule, SqliteLedger, Usage
from devsynth_providers.stores import sqlite_ledger
from devsynth_providers.stores.database import PAGE_BYTES
from devsynth_providers.stores.entries import Entry, Ledger, Outcome, Purse
from devsynth_providers.stores.migrations import bring_up_to_date
from devsynth_providers.stores.redis_ledger import RedisLedger
from devsynth_providers.testing import ScriptedProvider

CALLS = 300
ANSWER = [{"text": f"word {number} "} for number in range(100)]
HIT, PAIR = "cache: a hit through the whole router", "ledger: reserve and settle, SQLite"
GOALS_MS = {HIT: 0.3, PAIR: 0.15}
Work = Callable[[int], Awaitable[object]]


def pair(ledger: Ledger, prefix: str) -> Work:
    """An attempt that is written down, and settled."""
    purses = (Purse("project:a", "2026-11-26", 10**12), Purse("policy:p", "2026-11", 10**12))
    paid = Outcome(cost_micros=5, basis="computed", usage=Usage(10, 20))

    async def work(number: int) -> None:
        name = f"{prefix}{number}"
        await ledger.reserve(Entry(call=name, attempt=1, provider="p", model="m", worst_micros=10, lease_s=60), purses)
        await ledger.settle(name, 1, paid)

    return work


def statements(file: Path, prefix: str) -> Work:
    """What SQLite takes for the same: the statements of such a pair, with nothing around them."""
    database = sqlite3.connect(file, isolation_level=None)
    settings = f"page_size = {PAGE_BYTES}", "journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 0"
    for setting in settings:
        database.execute(f"PRAGMA {setting}")
    bring_up_to_date(database, file)
    cursor, purses = database.cursor(), (("project:a", "2026-11-26"), ("policy:p", "2026-11"))
    run, nothing = cursor.execute, bytearray()
    began = (0.0, 60.0, "a process", 10, "[]", "p", "m", nothing, nothing, nothing, "", "", "[]", "primary", nothing)
    ended = ("settled", 5, "computed", 10, 20, 0, 0, 0, 0, nothing, 0.0, nothing, nothing)

    async def work(number: int) -> None:
        name = (f"{prefix}{number}", 1)
        run("BEGIN IMMEDIATE")
        for purse in purses:
            taken = (10, *purse, 10, 10**12, 1)
            assert run(sqlite_ledger._TAKE, taken).rowcount or run(sqlite_ledger._TAKE_FIRST, taken).rowcount
        run(sqlite_ledger._RESERVE, (*name, *began, *name))
        run("COMMIT")
        run("BEGIN IMMEDIATE")
        run(sqlite_ledger._FIND, name).fetchone()
        run(sqlite_ledger._SETTLE, (*ended, *name))
        run(sqlite_ledger._END, name)
        for purse in purses:
            run(sqlite_ledger._ADD, (-5, *purse))
        run("COMMIT")

    return work


async def ways(directory: Path, server: str | None) -> AsyncIterator[tuple[str, Work]]:
    """Everything that is measured, each filled with what it is asked for."""
    prefix = f"{os.getpid()}-{time.time()}-"
    yield PAIR, pair(SqliteLedger(directory / "ledger.db"), prefix)
    yield "sqlite3 alone, the same statements", statements(directory / "alone.db", prefix)
    if server is not None:
        yield "ledger: reserve and settle, Redis", pair(RedisLedger(server, prefix="bench"), prefix)

    model = Model(name="m", provider="test", price=Price(input_usd_per_1m=1, output_usd_per_1m=2))
    policy = Policy(models={"m": model}, rules=(Rule(name="all", models=("m",), cache=Keep()),))
    answers = ResponseCache(directory=directory / "answers", secret=b"s" * 32)
    far = ScriptedProvider(*["word " * 100] * (CALLS + 1), model=model)
    router = Router(policy, {"m": far}, cache=answers)
    await router.complete("hi", temperature=0)
    for number in range(CALLS):
        await router.complete(f"hi {number}", temperature=0)
    await answers.flush()
    yield HIT, lambda _: router.complete("hi", temperature=0)
    yield f"the same, {CALLS} prompts in turn", lambda number: router.complete(f"hi {number % CALLS}", temperature=0)

    await answers.set("a", "key", ANSWER)
    yield "cache: ResponseCache.get", lambda _: answers.get("a", "key")
    yield "cache: ResponseCache.set", lambda number: answers.set("a", f"key{number}", ANSWER)

    plain = diskcache.Cache(str(directory / "plain"))
    plain.set("key", ANSWER)
    yield "diskcache alone, get", lambda _: asyncio.to_thread(plain.get, "key")
    yield "diskcache alone, set", lambda number: asyncio.to_thread(plain.set, f"key{number}", ANSWER)

    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask for prices over the network
    from litellm.caching.disk_cache import DiskCache

    disk = DiskCache(disk_cache_dir=str(directory / "litellm"))
    await disk.async_set_cache("key", ANSWER)
    yield "LiteLLM's disk cache, get", lambda _: disk.async_get_cache("key")
    yield "LiteLLM's disk cache, set", lambda number: disk.async_set_cache(f"key{number}", ANSWER)
    if server is not None:
        from litellm.caching.redis_cache import RedisCache

        of = urlsplit(server)
        remote = RedisCache(host=of.hostname, port=of.port, password=of.password)
        await remote.async_set_cache("key", ANSWER)
        yield "LiteLLM's Redis cache, get", lambda _: remote.async_get_cache("key")
        yield "LiteLLM's Redis cache, set", lambda number: remote.async_set_cache(f"key{number}", ANSWER)


async def measured(work: Work, first: int) -> tuple[float, float]:
    """Milliseconds of wall and of CPU for each of some calls."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(first, first + CALLS):
        await work(number)
    return (time.perf_counter() - wall) / CALLS * 1000, (time.process_time() - cpu) / CALLS * 1000


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[str | None]:
    """The URL of a server that is there for this run alone; ``None`` if no server can be had."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.servers import RedisServer, program

    if program() is None:
        yield None
        return
    with RedisServer(directory, "--maxmemory-policy", "noeviction", "--appendfsync", "everysec") as server:
        yield server.url()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--redis", help="the URL of a server, in place of one that is started")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        with contextlib.nullcontext(asked.redis) if asked.redis else redis_server(directory) as server:
            all_ways: list[tuple[str, Work]] = [each async for each in ways(directory, server)]
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in all_ways}
            for round_ in range(asked.rounds + 1):
                for name, work in all_ways:
                    figures = await measured(work, (round_ + 1) * CALLS)
                    if round_:  # the first warms up
                        taken[name].append(figures)
    print("| one after the other | wall ms | CPU ms | a second | times diskcache alone, get | goal, ms |")
    print("|---|--:|--:|--:|--:|--:|")
    base = [wall for wall, _ in taken["diskcache alone, get"]]
    for name, figures in taken.items():
        wall, cpu = (statistics.median(each) for each in zip(*figures, strict=True))
        times = statistics.median(own[0] / other for own, other in zip(figures, base, strict=True))
        goal: Any = GOALS_MS.get(name, "")
        print(f"| {name} | {wall:.3f} | {cpu:.3f} | {1000 / wall:,.0f} | {times:.2f} | {goal} |")


if __name__ == "__main__":
    asyncio.run(main())
