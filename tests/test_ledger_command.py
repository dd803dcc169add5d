"""``devsynth-providers ledger``: entries are shown and exported as they stand; what is removed, budgets remember."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devsynth_providers.cli.table import dollars, for_sheets
from devsynth_providers.errors import ConfigurationError
from devsynth_providers.stores.entries import Entry, Hit, Purse, period_of
from devsynth_providers.stores.ledger_file import opened
from devsynth_providers.stores.ledger_reader import COLUMNS
from devsynth_providers.stores.ledger_upkeep import check, has_ended, prune
from devsynth_providers.stores.migrations import MIGRATIONS
from devsynth_providers.stores.sqlite_ledger import SqliteLedger

from .command import CANARY, Run
from .filled import filled, hit, written

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
DAY = 86_400.0
TODAY, TOTAL, LAST_MONTH = ("project:a", "2026-11-26"), ("project:a", "total"), ("project:a", "2026-10")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


def sql(file: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        return database.execute(statement).fetchall()


class TestShow:
    def test_the_latest_entries_come_first(self, cli: Run, file: Path) -> None:
        written(file, *({"call": f"c{n}", "error": "timeout" if n == 2 else None} for n in range(4)))
        code, out, _ = cli("ledger", "show", "--ledger", str(file), "--limit", "3")
        head, *lines = out.splitlines()
        assert code == 0
        assert head.split()[:4] == ["time", "model", "rule", "project"]
        assert [line.split()[-1] for line in lines] == ["c3#1", "c2#1", "c1#1"]
        assert "timeout" in lines[1]

    def test_what_it_may_cost_and_what_nobody_knows_is_no_cost(self, cli: Run, file: Path) -> None:
        unknown = {"worst_micros": 0, "cost_micros": None, "basis": "unknown"}
        written(file, {"cost_micros": 1234}, {"worst_micros": 5000, "settled": False}, unknown)
        _, out, _ = cli("ledger", "show", "--ledger", str(file))
        assert [
            word in line for word, line in zip(("unknown", "≤ $0.0050", "$0.0012"), out.splitlines()[1:], strict=True)
        ]

    @pytest.mark.parametrize(
        ("said", "left"),
        [
            (["--project", "a"], ["1", "0"]),
            (["--project", "a", "--model", "y"], ["1"]),
            (["--role", "r"], ["2"]),
            (["--task", "t"], ["3"]),
            (["--rule", "special"], ["3"]),
            (["--call", "1"], ["1"]),
            (["--failed"], ["2"]),
            (["--since", "2027-01-15T08:00:02"], ["3", "2"]),
            (["--until", "2027-01-15T08:00:02"], ["1", "0"]),
            (["--project", "a' OR 1=1 --"], []),
        ],
    )
    def test_may_be_narrowed_down(self, cli: Run, file: Path, said: list[str], left: list[str]) -> None:
        given: list[dict[str, Any]] = [
            {"project": "a", "model": "x"},
            {"project": "a", "model": "y", "error": "cancelled"},
            {"role": "r", "error": "timeout"},
            {"task": "t", "rule": "special"},
        ]
        written(file, *({"call": f"{number}", **each} for number, each in enumerate(given)))
        told = json.loads(cli("ledger", "show", "--ledger", str(file), "--json", *said)[1])
        assert [each["call"] for each in told["entries"]] == left
        if not left:
            assert cli("ledger", "show", "--ledger", str(file), *said)[1] == "no entry is like that\n"

    def test_what_a_terminal_would_obey_is_not_printed(self, cli: Run, file: Path) -> None:
        written(file, {"project": "\x1b]0;title\x07"})
        assert "�]0;title�" in cli("ledger", "show", "--ledger", str(file))[1]


class TestExport:
    def test_both_formats_have_every_entry_as_the_router_wrote_it(self, cli: Run, file: Path) -> None:
        filled(file)
        _, out, _ = cli("ledger", "export", "--ledger", str(file), "--format", "jsonl")
        entries = [json.loads(line) for line in out.splitlines()]
        columns = ("attempt", "model", "reason", "state", "cost_micros", "error", "latency_s")
        stored = sql(file, f"SELECT {', '.join(columns)} FROM entries ORDER BY at, attempt")
        assert [tuple(each[name] for name in columns) for each in entries] == stored
        assert (entries[0]["tags"], entries[0]["project"], entries[0]["usage_estimated"]) == (["x"], "billing", False)
        assert entries[0]["at"].startswith(time.strftime("%Y-", time.gmtime()))
        _, out, _ = cli("ledger", "export", "--ledger", str(file))
        lines = list(csv.DictReader(io.StringIO(out)))
        assert list(lines[0]) == list(entries[0]) == list(COLUMNS)
        for line, entry in zip(lines, entries, strict=True):
            assert json.loads(line.pop("tags")) == entry.pop("tags")
            assert line == {name: "" if value is None else str(value) for name, value in entry.items()}

    def test_goes_into_a_file_of_its_own(self, cli: Run, file: Path, tmp_path: Path) -> None:
        written(file, {"project": "é"}, {})
        place = tmp_path / "entries.jsonl"
        arguments = ["ledger", "export", "--ledger", str(file), "--format", "jsonl", "--output"]
        assert cli(*arguments, str(place)) == (0, "", "")
        assert [json.loads(line)["project"] for line in place.read_text("utf-8").splitlines()] == ["é", None]
        assert cli(*arguments, str(file))[0] == 2
        assert cli(*arguments, str(tmp_path))[0] == 3
        (other := tmp_path / "another name").hardlink_to(file)
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "link").symlink_to(f"{file}-wal")
        assert [cli(*arguments, str(each))[0] for each in (other, f"{file}-wal", tmp_path / "link")] == [2, 2, 2]
        assert cli(*arguments, str(tmp_path / "loop"))[0] == 3
        assert sql(file, "SELECT count(*) FROM entries") == [(2,)]

    def test_has_neither_prompts_nor_who_wrote_it_nor_a_formula(self, cli: Run, file: Path) -> None:
        filled(file)
        written(file, {"project": "@SUM(1)"})
        (process,) = sql(file, "SELECT DISTINCT process FROM entries LIMIT 1")[0]
        for form in ("csv", "jsonl"):
            _, out, _ = cli("ledger", "export", "--ledger", str(file), "--format", form)
            assert CANARY not in out
            assert process not in out
            assert (",'@SUM(1)," in out) == (form == "csv")


class TestCheck:
    def test_a_ledger_of_a_router_is_right(self, cli: Run, file: Path) -> None:
        filled(file)
        assert cli("ledger", "check", "--ledger", str(file)) == (0, f"{file}: right; 10 entries, 1 balance\n", "")
        told = json.loads(cli("ledger", "check", "--ledger", str(file), "--json")[1])
        assert (told["ok"], told["wrong"], told["left"], told["overdue"]) == (True, [], 0, 0)

    @pytest.mark.parametrize(
        "wrong",
        [
            "UPDATE balances SET micros = micros + 1 WHERE period = 'total'",
            "DELETE FROM balances WHERE period = 'total'",
            "INSERT INTO balances VALUES ('project:b', 'total', 5)",
            "UPDATE ended SET cost_micros = 0",
            "DELETE FROM ended",
        ],
    )
    def test_a_balance_that_is_not_the_sum_is_said(self, cli: Run, file: Path, wrong: str) -> None:
        written(file, {"purses": [TODAY, TOTAL]}, {"purses": [TOTAL], "worst_micros": 40, "settled": False})
        assert check(file).right
        sql(file, wrong)
        code, out, _ = cli("ledger", "check", "--ledger", str(file))
        assert code == 3
        assert "the balance is " in out
        told = json.loads(cli("ledger", "check", "--ledger", str(file), "--json")[1])
        assert not told["ok"]
        assert told["wrong"][-1]["period"] == "total"

    def test_what_a_process_left_reserved_is_said_and_left_as_it_is(self, cli: Run, file: Path) -> None:
        script = """
            import asyncio, os, sys
            from devsynth_providers.stores.entries import Entry, Purse
            from devsynth_providers.stores.sqlite_ledger import SqliteLedger

            async def main():
                entry = Entry(call="left", attempt=1, provider="p", model="m", worst_micros=7000, lease_s=0)
                await SqliteLedger(sys.argv[1]).reserve(entry, [Purse("project:a", "total", 10**6)])
                os._exit(0)

            asyncio.run(main())
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(file)], timeout=60, check=True)
        code, out, _ = cli("ledger", "check", "--ledger", str(file))
        assert code == 0
        assert "1 attempt of processes that are gone: $0.0070 reserved, which counts as spent" in out
        assert sql(file, "SELECT state FROM entries") == [("reserved",)]
        told = json.loads(cli("ledger", "check", "--ledger", str(file), "--json")[1])
        assert (told["left"], told["left_micros"], told["overdue"]) == (1, 7000, 0)

    async def test_one_that_takes_longer_than_it_was_to_is_said(self, cli: Run, file: Path) -> None:
        ledger = SqliteLedger(file, clock=lambda: 0.0)
        await ledger.reserve(Entry(call="c", attempt=1, provider="p", model="m", worst_micros=1, lease_s=60))
        assert (check(file, clock=lambda: 59.0).overdue, check(file, clock=lambda: 61.0).overdue) == (0, 1)
        assert "1 attempt reserved for longer than it was to take" in cli("ledger", "check", "--ledger", str(file))[1]
        await ledger.aclose()

    def test_a_page_that_is_broken_is_found(self, cli: Run, file: Path) -> None:
        written(file, *({"project": "x" * 500} for _ in range(40)))
        blob = bytearray(file.read_bytes())
        blob[-4096:] = b"\xff" * 4096
        file.write_bytes(blob)
        code, out, err = cli("ledger", "check", "--ledger", str(file))
        assert code == 3
        assert "damaged" in out or "malformed" in err


class TestPrune:
    def test_without_yes_it_only_says_what_would_go(self, cli: Run, file: Path) -> None:
        written(file, {"at": 1000.0, "cost_micros": 1234}, {"at": 2000.0, "settled": False}, {"at": 1e9})
        code, out, _ = cli("ledger", "prune", "--ledger", str(file), "--before", "2001-01-01")
        assert code == 0
        first, second = out.splitlines()
        assert first.startswith("1 entry, from 1970-01-01T00:16:40.000Z to 1970-01-01T00:16:40.000Z, $0.0012 in all")
        assert first.endswith("; 1 attempt under way since then stay")
        assert second == "nothing is removed yet: say --yes"
        assert sql(file, "SELECT count(*) FROM entries") == [(3,)]
        assert cli("ledger", "prune", "--ledger", str(file), "--before", "1970-01-01")[1].startswith("no attempt that")

    def test_with_yes_it_removes_what_has_ended_and_nothing_else(self, cli: Run, file: Path) -> None:
        written(file, {"at": 1000.0}, {"at": 1500.0}, {"at": 2000.0, "settled": False}, {"at": 1e9})
        told = cli("ledger", "prune", "--ledger", str(file), "--before", "2001-01-01", "--yes")
        assert (told[0], told[1].splitlines()[-1]) == (0, "removed 2 entries")
        assert sql(file, "SELECT at, state FROM entries ORDER BY at") == [(2000.0, "reserved"), (1e9, "settled")]
        again = json.loads(
            cli("ledger", "prune", "--ledger", str(file), "--before", "2001-01-01", "--yes", "--json")[1]
        )
        assert (again["found"], again["removed"], again["under_way"]) == (0, 0, 1)
        assert cli("ledger", "prune", "--ledger", str(file), "--before", "never")[0] == 2
        assert cli("ledger", "prune", "--ledger", str(file))[0] == 2

    def test_what_the_cache_has_answered_goes_with_the_entries(self, cli: Run, file: Path) -> None:
        arguments = ["ledger", "prune", "--ledger", str(file), "--before"]
        written(file)
        for at in (100.0, 200.0):
            hit(file, Hit("p", "m"), Hit("p", "m"), at=at)
        assert "; 4 answers out of the cache came before\nnothing is removed yet" in cli(*arguments, "2001-01-01")[1]
        written(file, {"at": 100.0})
        code, out, _ = cli(*arguments, "1970-01-01T00:02:30", "--yes")
        assert (code, "; and 2 answers out of the cache" in out, "removed 1 entry\n" in out) == (0, True, True)
        assert sql(file, "SELECT at, hits FROM hits") == [(180, 2)]
        assert json.loads(cli(*arguments, "2001-01-01", "--json")[1])["hits"] == 2

    async def test_a_budget_that_runs_still_knows_what_it_has_paid(self, file: Path) -> None:
        await asyncio.to_thread(
            written, file, *({"purses": [TOTAL], "worst_micros": 600, "cost_micros": 600} for _ in "ab")
        )
        assert await asyncio.to_thread(prune, file, time.time() + 1e9) == 2
        ledger, purse = SqliteLedger(file), Purse(*TOTAL, limit_micros=1300)
        entry = Entry(call="new", attempt=1, provider="p", model="m", worst_micros=200, lease_s=60)
        assert (await ledger.reserve(entry, [purse])).refused is not None
        assert await ledger.spent_micros(purse) == 1200
        await ledger.aclose()
        assert check(file).right

    def test_balances_of_times_that_are_over_go_with_their_last_entry(self, file: Path) -> None:
        at = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
        written(file, *({"at": at + n * DAY, "purses": [LAST_MONTH, TOTAL]} for n in range(4)), {"purses": [TODAY]})
        for days, balances in ((2, {LAST_MONTH: 40, TOTAL: 40, TODAY: 10}), (30, {TOTAL: 40, TODAY: 10})):
            prune(file, at + days * DAY, clock=NOW.timestamp)
            found = sql(file, "SELECT account, period, micros FROM balances")
            assert {(account, period): micros for account, period, micros in found} == balances
            assert check(file).right

    def test_many_go_in_parts_between_which_routers_have_their_turn(self, file: Path) -> None:
        written(file, *({"at": float(n), "purses": [TOTAL]} for n in range(25)))
        left: list[int] = []

        def turn(_: float) -> None:
            with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as router:
                router.execute("BEGIN IMMEDIATE")
                left.append(router.execute("SELECT count(*) FROM entries").fetchone()[0])
                router.execute("COMMIT")
            assert check(file).right

        assert prune(file, 22.0, batch=10, sleep=turn) == 22
        assert left == [15, 5, 3]

    @settings(max_examples=15, deadline=None)
    @given(
        st.lists(
            st.fixed_dictionaries(
                {
                    "at": st.floats(0, 100),
                    "purses": st.lists(st.sampled_from([TODAY, TOTAL, LAST_MONTH]), unique=True),
                    "cost_micros": st.integers(0, 1000),
                    "settled": st.booleans(),
                }
            ),
            max_size=12,
        ),
        st.lists(st.floats(0, 110), max_size=3),
    )
    def test_whatever_is_removed_it_adds_up_and_what_runs_is_not_touched(
        self, tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any]], befores: list[float]
    ) -> None:
        file = tmp_path_factory.mktemp("l") / "ledger.db"
        written(file, {}, *entries)
        running = "SELECT * FROM balances WHERE period != '2026-10' ORDER BY 1, 2"
        before = sql(file, running)
        for moment in befores:
            prune(file, moment, clock=NOW.timestamp, sleep=lambda _: None)
            assert check(file).right
            assert sql(file, running) == before
        left = [each for each in entries if not each["settled"] or each["at"] >= max(befores, default=0.0)]
        assert sql(file, "SELECT count(*) FROM entries") == [(1 + len(left),)]


class TestFiles:
    COMMANDS = (["show"], ["export"], ["check"], ["prune", "--before", "7d", "--yes"])

    @pytest.mark.parametrize("command", COMMANDS)
    def test_that_are_missing_are_said_and_not_made(self, cli: Run, tmp_path: Path, command: list[str]) -> None:
        missing = tmp_path / "no" / "ledger"
        code, out, err = cli("ledger", *command, "--ledger", str(missing))
        assert (code, out) == (3, "")
        assert f"there is no ledger at {missing}" in err
        assert not missing.parent.exists()

    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize(
        ("version", "why"), [(0, "is not a ledger"), (99, "is of version 99, from a newer"), (-1, "from an older")]
    )
    def test_of_other_versions_are_refused_and_left_alone(
        self, cli: Run, file: Path, command: list[str], version: int, why: str
    ) -> None:
        written(file, {"at": 0.0})
        sql(file, f"PRAGMA user_version = {version}")
        code, out, err = cli("ledger", *command, "--ledger", str(file))
        assert (code, out) == (3, "")
        assert why in err
        assert sql(file, "SELECT count(*) FROM entries") == [(1,)]

    @pytest.mark.parametrize("command", COMMANDS)
    def test_that_are_none_are_said(self, cli: Run, tmp_path: Path, command: list[str]) -> None:
        text, other = tmp_path / "text", tmp_path / "other"
        text.write_text("no database" * 1000)
        sql(other, f"PRAGMA user_version = {len(MIGRATIONS)}")
        for each, why in (
            (text, "can not be used as a ledger: file is not a database"),
            (other, "can not be used as a ledger: no such table"),
            (tmp_path, "is not a file"),
        ):
            code, _, err = cli("ledger", *command, "--ledger", str(each))
            assert (code, f"{each} {why}" in err) == (3, True), err

    @pytest.mark.parametrize("command", [["show"], ["export"], ["check"]])
    def test_that_are_only_looked_at_can_not_be_written(self, cli: Run, tmp_path: Path, command: list[str]) -> None:
        file = tmp_path / "a ledger?#%20.db"
        filled(file)
        before = file.read_bytes()
        assert cli("ledger", *command, "--ledger", str(file))[0] == 0
        assert file.read_bytes() == before
        with opened(file, "ro") as database, pytest.raises(sqlite3.OperationalError, match="readonly"):
            database.execute("DELETE FROM ended")

    def test_an_error_inside_says_which_file_it_was(self, file: Path) -> None:
        written(file, {})
        wrong = pytest.raises(ConfigurationError, match=r"ledger\.sqlite3 can not be used as a ledger")
        with wrong, opened(file, "ro") as database:
            database.execute("SELECT nothing FROM nowhere")


class TestWords:
    @pytest.mark.parametrize(
        ("name", "ended"),
        [
            *(("2026-11-25", True), ("2026-11-26", False), ("2026-10", True), ("2026-11", False)),
            *(("2026-W47", True), ("2026-W48", False), ("total", False), ("2026-11-26T09+0000", True)),
            *(("2026-11-26T11+0000", False), ("2026-11-26T11+0100", True), ("2026-11-25 America/Los_Angeles", True)),
            *(("2026-11-26 Pacific/Kiritimati", True), ("2026-11-26 Nowhere/Atall", False)),
            *(("2026-11-31", False), ("2026-W99", False), ("whatever", False), ("", False)),
        ],
    )
    def test_of_periods_tell_whether_they_are_over(self, name: str, ended: bool) -> None:
        assert has_ended(name, NOW) is ended

    @given(st.sampled_from(["hour", "day", "week", "month"]), st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))
    def test_of_periods_that_run_never_say_that_they_are_over(self, per: Any, moment: datetime) -> None:
        now = moment.replace(tzinfo=UTC)
        assert not has_ended(period_of(per, now, UTC), now)

    def test_of_money_and_sheets(self) -> None:
        assert [dollars(each) for each in (0, 1, 99, 100, 1_234_567_890)] == [
            *("$0.0000", "<$0.0001", "<$0.0001", "$0.0001", "$1,234.5679"),
        ]
        assert [for_sheets(each) for each in ("a", "", "-1", None, -1)] == ["a", "", "'-1", None, -1]
