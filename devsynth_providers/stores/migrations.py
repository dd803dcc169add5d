"""How a ledger's file came to be what it is: each step once, in order. A step that has been released never changes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ..errors import ConfigurationError

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
)


def bring_up_to_date(database: sqlite3.Connection, file: Path) -> None:
    """Carry out the steps that *file* lacks, in one transaction; refuse one that a newer version has made."""
    database.execute("BEGIN IMMEDIATE")
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
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
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
