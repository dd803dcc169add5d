"""How a ledger's file came to be what it is: each step once, in order. A step that has been released never changes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ..errors import ConfigurationError
from .database import Transaction

_BEGUN_COLUMNS = """
    call TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    at REAL NOT NULL,
    until REAL NOT NULL,
    process TEXT NOT NULL,
    reserved_micros INTEGER NOT NULL CHECK (reserved_micros >= 0),
    purses TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    project TEXT,
    role TEXT,
    task TEXT,
    policy TEXT NOT NULL,
    rule TEXT NOT NULL,
    tags TEXT NOT NULL,
    reason TEXT NOT NULL
"""
_BEGUN = ", ".join(line.split()[0] for line in _BEGUN_COLUMNS.strip().splitlines())
"""The second step is made of it, as of what follows: neither changes."""
OUTCOME = (
    "state, cost_micros, basis, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,"
    " usage_estimated, error, latency_s, first_token_s, finish_reason"
)
"""What came of it."""
BEGUN = f"{_BEGUN}, complexity"
"""What is known of an attempt before it is made, since the third step."""
_NOTHING = ", ".join(
    f"CAST(NULL AS {kind})" for kind in ("INTEGER", "TEXT", *("INTEGER",) * 6, "TEXT", "REAL", "REAL", "TEXT")
)
"""Nothing yet came of it, of the kinds that those columns have: else SQLite sorts all entries to find the latest."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE entries (
            id INTEGER PRIMARY KEY,
            call TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('reserved', 'settled', 'estimated')),
            at REAL NOT NULL,
            until REAL NOT NULL,
            process TEXT NOT NULL,
            reserved_micros INTEGER NOT NULL CHECK (reserved_micros >= 0),
            cost_micros INTEGER CHECK (cost_micros >= 0),
            basis TEXT,
            purses TEXT NOT NULL,
            provider TEXT NOT NULL,
            model TEXT NOT NULL,
            project TEXT,
            role TEXT,
            task TEXT,
            policy TEXT NOT NULL,
            rule TEXT NOT NULL,
            tags TEXT NOT NULL,
            reason TEXT NOT NULL,
            input_tokens INTEGER,
            output_tokens INTEGER,
            cached_input_tokens INTEGER,
            cache_write_tokens INTEGER,
            reasoning_tokens INTEGER,
            usage_estimated INTEGER,
            error TEXT,
            latency_s REAL,
            first_token_s REAL,
            finish_reason TEXT,
            UNIQUE (call, attempt)
        )
        """,
        "CREATE INDEX entries_at ON entries (at)",
        "CREATE INDEX entries_reserved ON entries (process) WHERE state = 'reserved'",
        """
        CREATE TABLE balances (
            account TEXT NOT NULL,
            period TEXT NOT NULL,
            micros INTEGER NOT NULL,
            PRIMARY KEY (account, period)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE hits (  -- answers out of the cache, which are no attempts, in the minute that begins then
            at INTEGER NOT NULL,
            provider TEXT NOT NULL,
            model TEXT NOT NULL,
            project TEXT,
            role TEXT,
            task TEXT,
            policy TEXT NOT NULL,
            rule TEXT NOT NULL,
            hits INTEGER NOT NULL
        )
        """,
        "CREATE UNIQUE INDEX hits_once ON hits"
        " (at, provider, model, ifnull(project, x''), ifnull(role, x''), ifnull(task, x''), policy, rule)",
        """
        CREATE TABLE pruned (  -- what was paid by entries that are no longer there
            account TEXT NOT NULL,
            period TEXT NOT NULL,
            micros INTEGER NOT NULL,
            PRIMARY KEY (account, period)
        ) WITHOUT ROWID
        """,
    ),
    (  # what is under way is few rows in one page, and what has ended is written once, where it stays
        f"""
        CREATE TABLE under_way (
            {_BEGUN_COLUMNS},
            PRIMARY KEY (call, attempt)
        ) WITHOUT ROWID
        """,
        f"""
        CREATE TABLE ended (
            {_BEGUN_COLUMNS},
            state TEXT NOT NULL CHECK (state IN ('settled', 'estimated')),
            cost_micros INTEGER NOT NULL CHECK (cost_micros >= 0),
            basis TEXT,
            input_tokens INTEGER,
            output_tokens INTEGER,
            cached_input_tokens INTEGER,
            cache_write_tokens INTEGER,
            reasoning_tokens INTEGER,
            usage_estimated INTEGER,
            error TEXT,
            latency_s REAL,
            first_token_s REAL,
            finish_reason TEXT,
            PRIMARY KEY (at, call, attempt)  -- what is looked for is mostly of a span of time
        ) WITHOUT ROWID
        """,
        f"INSERT INTO under_way ({_BEGUN}) SELECT {_BEGUN} FROM entries WHERE state = 'reserved'",
        f"INSERT INTO ended ({_BEGUN}, {OUTCOME}) SELECT {_BEGUN}, {OUTCOME} FROM entries WHERE state != 'reserved'"
        " ORDER BY at, call, attempt",
        "DROP TABLE entries",
        "CREATE UNIQUE INDEX ended_once ON ended (call, attempt)",
        f"CREATE VIEW entries AS SELECT {_BEGUN}, {OUTCOME} FROM ended UNION ALL"
        f" SELECT {_BEGUN}, CAST('reserved' AS TEXT), {_NOTHING} FROM under_way",
    ),
    (
        "ALTER TABLE under_way ADD COLUMN complexity REAL",
        "ALTER TABLE ended ADD COLUMN complexity REAL",
        "DROP VIEW entries",
        f"CREATE VIEW entries AS SELECT {BEGUN}, {OUTCOME} FROM ended UNION ALL"
        f" SELECT {BEGUN}, CAST('reserved' AS TEXT), {_NOTHING} FROM under_way",
    ),
)


UNDER_CHANGE_S = 300.0
"""How long to wait for another process that brings the file up to date: with millions of entries that takes a while."""


def bring_up_to_date(database: sqlite3.Connection, file: Path) -> None:
    """Carry out the steps that *file* lacks, in one transaction; refuse one that a newer version has made."""
    if 0 < _version(database) < len(MIGRATIONS):
        database.execute(f"PRAGMA busy_timeout = {int(UNDER_CHANGE_S * 1000)}")
    with Transaction(database):
        version = _version(database)
        if version > len(MIGRATIONS):
            raise ConfigurationError(
                f"the ledger {file} is of version {version}, from a newer devsynth_providers; this one knows "
                f"{len(MIGRATIONS)}: update it, or name another file"
            )
        if version and not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone():
            raise ConfigurationError(f"{file} is not a ledger, but another's: name another file")
        for step in MIGRATIONS[version:]:
            for statement in step:
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _version(database: sqlite3.Connection) -> int:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return int(version)
