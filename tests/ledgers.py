"""Where tests keep ledgers, in a file or on a server, and what stands there, read behind the ledger's back."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import redis

from devsynth_providers.stores.entries import Entry, Ledger
from devsynth_providers.stores.redis_ledger import RedisLedger
from devsynth_providers.stores.sqlite_ledger import SqliteLedger


class Store(Protocol):
    """A place of one ledger. Processes hand it to each other."""

    def open(self, **options: Any) -> Ledger: ...

    def entries(self) -> list[dict[str, Any]]:
        """All entries, with what is ``None`` left out."""

    def balances(self) -> dict[tuple[str, str], int]:
        """What is spent, by account and period; without those that are 0."""

    def hits(self) -> dict[tuple[Any, ...], int]:
        """How often the cache has answered, by the minute and who asked."""


class InFile(NamedTuple):
    file: Path

    def open(self, **options: Any) -> SqliteLedger:
        return SqliteLedger(self.file, **options)

    def entries(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.file)) as database:
            database.row_factory = sqlite3.Row
            rows = database.execute("SELECT * FROM entries").fetchall()
        return [{name: row[name] for name in row.keys() if row[name] is not None} for row in rows]  # noqa: SIM118

    def balances(self) -> dict[tuple[str, str], int]:
        with closing(sqlite3.connect(self.file)) as database:
            return {(account, period): micros for account, period, micros in database.execute("SELECT * FROM balances")}

    def hits(self) -> dict[tuple[Any, ...], int]:
        with closing(sqlite3.connect(self.file)) as database:
            rows = database.execute("SELECT * FROM hits").fetchall()
        found = {tuple(row[:-1]): int(row[-1]) for row in rows}
        assert len(found) == len(rows)
        return found


class OnServer(NamedTuple):
    url: str
    prefix: str

    def open(self, **options: Any) -> RedisLedger:
        return RedisLedger(self.url, prefix=self.prefix, **options)

    def entries(self) -> list[dict[str, Any]]:
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            found: list[dict[str, Any]] = [client.hgetall(key) for key in self.keys(client, "entry")]
        return [{**each, **{name: int(each[name]) for name in each if name in NUMBERS}} for each in found]

    def balances(self) -> dict[tuple[str, str], int]:
        found = {}
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            for key in self.keys(client, "balance"):
                length, _, name = key.split(":", 2)[2].partition(":")
                found[name[int(length) + 1 :], name[: int(length)]] = int(client.get(key) or 0)
        return found

    def hits(self) -> dict[tuple[Any, ...], int]:
        found = {}
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            for key in self.keys(client, "hits"):
                assert 0 < client.ttl(key) <= 90 * 86_400
                found.update({tuple(json.loads(who)): int(count) for who, count in client.hgetall(key).items()})
        return found

    def keys(self, client: redis.Redis, kind: str) -> list[str]:
        return list(client.scan_iter(f"{{{self.prefix}}}:{kind}:*", count=1000))


NUMBERS = ("attempt", "reserved_micros", "cost_micros", "input_tokens", "output_tokens", "usage_estimated")


def on_server(url: str) -> Callable[[], OnServer]:
    return lambda: OnServer(url, uuid.uuid4().hex)


def entry(call: str = "c", attempt: int = 1, worst: int = 100, **facts: Any) -> Entry:
    facts = {"provider": "openai", "model": "m", "lease_s": 60.0, **facts}
    return Entry(call=call, attempt=attempt, worst_micros=worst, **facts)


def adds_up(store: Store) -> None:
    """Every balance is the sum of what its entries have cost, or may yet cost."""
    expected: dict[tuple[str, str], int] = {}
    for each in store.entries():
        for account, period in json.loads(each["purses"]):
            micros = each["reserved_micros"] if each["state"] == "reserved" else each["cost_micros"]
            expected[account, period] = expected.get((account, period), 0) + micros
    balances = store.balances()
    assert {key: micros for key, micros in balances.items() if micros} == {k: m for k, m in expected.items() if m}
