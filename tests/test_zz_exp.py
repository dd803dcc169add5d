from __future__ import annotations
import asyncio, sqlite3, threading
from contextlib import closing
from pathlib import Path
import pytest
from devsynth_providers import RateLimits, LimitReached, Timeouts
from devsynth_providers.stores.entries import Outcome
from devsynth_providers.stores.sqlite_ledger import SqliteLedger
from devsynth_providers.stores.sqlite_shared import SqliteShared
from devsynth_providers.stores.database import CHECKPOINT, Database
from devsynth_providers.stores.shared import Full, Leave, Quota, SharedUnavailable
from devsynth_providers.layers.limited import Limited
from devsynth_providers.testing import run_virtually
from tests.ledgers import entry
from tests.test_limited import Server, limiter, now
from tests.test_ledger import PAID, rows, PURSE

async def test_after_a_total_the_loop_waits_for_no_other_process(tmp_path):
    file = tmp_path / "l"
    ledger = SqliteLedger(file)
    await asyncio.wrap_future(ledger.total_micros(None))
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        reserving = asyncio.ensure_future(ledger.reserve(entry("a")))
        await asyncio.sleep(0)
        other.execute("ROLLBACK")
        await reserving
    await ledger.aclose()

def test_what_is_settled_when_the_loop_ends_is_written(tmp_path):
    file = tmp_path / "l"
    ledger, go = SqliteLedger(file), threading.Event()
    async def main():
        await ledger.reserve(entry("a"))
        ledger._worker.put(go.wait)
        asyncio.ensure_future(ledger.settle("a", 1, PAID))
        await asyncio.sleep(0)
    asyncio.run(main())
    go.set()
    ledger.close()
    assert rows(file, "SELECT state FROM entries") == [("settled",)]

def test_ckpt(tmp_path):
    database = Database(tmp_path / "f", lambda each: None)
    def work():
        with database.writing() as c: c.execute("CREATE TABLE t (a)")
        c.execute("PRAGMA query_only = ON")
        database._written = CHECKPOINT
        return "done"
    assert database.patiently(work) == "done"
    database.close()

def test_who_need_not_wait():
    async def main():
        server = Server(0.1)
        each = RateLimits(requests_per_minute=1)
        layer = Limited(server, limiter(RateLimits(requests_per_minute=100, per_project=each)))
        many = [asyncio.ensure_future(layer.generate("hi", project=f"p{n}")) for n in range(60) for _ in range(2)]
        await asyncio.sleep(1)
        assert len(server.asked) == 60
        from devsynth_providers.types import ChatRequest
        r = ChatRequest.of("hi", project="b").on(deadline=now() + 20)
        await (await layer.send(r)).read()
        assert len(server.asked) == 61
        for m in many: m.cancel()
        await asyncio.gather(*many, return_exceptions=True)
    run_virtually(main())

async def test_ledger_as_shared(tmp_path):
    l = SqliteLedger(tmp_path / "f"); await l.reserve(entry("a")); await l.aclose()
    s = SqliteShared(tmp_path / "f")
    with pytest.raises(SharedUnavailable, match="another"):
        await s.unwell()
    await s.aclose()
async def test_shared_as_ledger(tmp_path):
    s = SqliteShared(tmp_path / "f"); await s.unwell(); await s.aclose()
    l = SqliteLedger(tmp_path / "f")
    with pytest.raises(Exception, match="another"):
        await l.reserve(entry("a"))
    await l.aclose()

async def test_future(tmp_path):
    t = [2e9]
    s = SqliteShared(tmp_path / "f", clock=lambda: t[0])
    q = [Quota("g", requests=1)]
    assert isinstance(await s.enter(q, 1, 60), Leave)
    t[0] -= 86400
    assert isinstance(await s.enter(q, 1, 60), Leave)
    await s.aclose()

async def test_wal(tmp_path):
    f = tmp_path / "f"
    a = SqliteShared(f); await a.unwell()
    q = [Quota("g", requests=1000000)]
    sizes = []
    for n in range(6):
        b = SqliteShared(f)
        for _ in range(500): await b.enter(q, 1, 60)
        await b.aclose()
        sizes.append((tmp_path / "f-wal").stat().st_size)
    await a.aclose()
    print(sizes)
    assert sizes[-1] < 2 * sizes[0]
