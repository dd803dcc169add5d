"""The cache of answers: what was kept comes back to whoever kept it, to nobody else, and never as something else."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typing_extensions import override

from devsynth_providers import ConfigurationError, ResponseCache
from devsynth_providers.stores.secret import secret_of
from devsynth_providers.stores.strict_disk import DATABASE

SECRET = b"s" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "answers"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def cache(place: Path, ttl: float = 60, **options: Any) -> ResponseCache:
    return ResponseCache(ttl, directory=place, secret=options.pop("secret", SECRET), **options)


def execute(place: Path, *statements: str, values: tuple[Any, ...] = ()) -> None:
    with closing(sqlite3.connect(place / DATABASE)) as database, database:
        for statement in statements:
            database.execute(statement, values)


async def filled(place: Path, value: Any = "the answer") -> None:
    one = cache(place)
    await one.set("tenant", "key", value)
    await one.aclose()


class TestWhatIsKept:
    async def test_comes_back(self, place: Path) -> None:
        kept = cache(place)
        value = {"text": "é ½", "chunks": [["a", None], ["b", "stop"]], "number": 1.5}
        await kept.set("tenant", "key", value)
        assert await kept.get("tenant", "key") == value
        await kept.aclose()
        again = cache(place)
        assert await again.get("tenant", "key") == value
        await again.aclose()

    async def test_is_nobody_elses(self, place: Path) -> None:
        kept = cache(place)
        await kept.set("one", "key", 1)
        await kept.set("two", "key", 2)
        assert [await kept.get(scope, "key") for scope in ("one", "two", "three", "")] == [1, 2, None, None]
        await kept.aclose()

    async def test_is_gone_after_its_time(self, place: Path) -> None:
        clock = Clock()
        kept = cache(place, ttl=60, clock=clock)
        await kept.set("", "short", 1, ttl=5)
        await kept.set("", "long", 2)
        clock.now += 6
        assert (await kept.get("", "short"), await kept.get("", "long")) == (None, 2)
        clock.now += 60
        assert await kept.get("", "long") is None
        await kept.aclose()

    async def test_many_are_looked_up_at_once(self, place: Path) -> None:
        kept = cache(place)
        for number in range(5):
            kept.put("", f"{number}", number)
        await kept.flush()
        assert await kept.get_many("", ["0", "9", "4"]) == {"0": 0, "4": 4}
        assert (kept.statistics.hits, kept.statistics.misses, kept.statistics.stored) == (2, 1, 5)
        await kept.aclose()

    async def test_the_oldest_goes_where_there_is_no_room(self, place: Path) -> None:
        kept = cache(place, size_limit_bytes=400_000)
        for number in range(300):
            await kept.set("", f"{number}", "x" * 10_000)
        assert kept.size_bytes < 8_000_000
        assert (await kept.get("", "0"), await kept.get("", "299")) == (None, "x" * 10_000)
        await kept.aclose()

    async def test_comes_back_from_a_directory_that_is_named_from_here(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        await filled(Path("answers"))
        kept = cache(Path("answers"))
        assert await kept.get("tenant", "key") == "the answer"
        await kept.aclose()

    async def test_fills_the_room_that_there_is(self, place: Path) -> None:
        kept = cache(place, size_limit_bytes=2_000_000)
        for number in range(250):
            await kept.set("", f"{number}", "x" * 10_000)
        there = await kept.get_many("", [f"{number}" for number in range(250)])
        assert 1_200_000 < 10_000 * len(there) < 2_000_000
        await kept.aclose()

    async def test_one_too_large_is_not_kept(self, place: Path) -> None:
        kept = cache(place, size_limit_bytes=10_000)
        await kept.set("", "k", "x" * 6_000)
        assert (await kept.get("", "k"), kept.statistics.dropped) == (None, 1)
        await kept.aclose()

    async def test_can_be_forgotten_by_its_owner(self, place: Path) -> None:
        kept = cache(place)
        for scope in ("one", "two"):
            for key in ("a", "b"):
                await kept.set(scope, key, scope)
        assert await kept.clear("one") == 2
        assert (await kept.get("one", "a"), await kept.get("two", "a")) == (None, "two")
        assert await kept.clear() == 2
        await kept.aclose()

    async def test_neither_scope_nor_key_nor_value_of_another_key_stands_in_the_file(self, place: Path) -> None:
        kept = cache(place)
        await kept.set("canary-tenant", "canary-key", "v")
        await kept.aclose()
        on_disk = b"".join(file.read_bytes() for file in place.iterdir())
        assert b"canary" not in on_disk

    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.tuples(
                st.text(max_size=8), st.text(max_size=8), st.recursive(st.none() | st.text() | st.integers(), st.lists)
            )
        )
    )
    def test_is_what_was_kept_last_whatever_the_names(
        self, tmp_path_factory: pytest.TempPathFactory, told: Any
    ) -> None:
        told = [(s, k, v) for s, k, v in told if f"{s}{k}".isprintable() and v is not None]

        async def work() -> None:
            kept = cache(tmp_path_factory.mktemp("c") / "answers")
            for scope, key, value in told:
                await kept.set(scope, key, value)
            for scope, key in {(s, k) for s, k, _ in told}:
                assert await kept.get(scope, key) == [v for s, k, v in told if (s, k) == (scope, key)][-1]
            await kept.aclose()

        asyncio.run(work())


COLUMNS = {
    "key": ["'other'", "x'00'", "1"],
    "raw": ["0"],
    "expire_time": ["NULL", "1e12", "'soon'"],
    "mode": ["0", "2", "3", "4"],
    "filename": ["'/etc/passwd'", "'../../x'", "'cache.db'"],
    "value": ["NULL", "'text'", "5", "x''", "x'80'", "zeroblob(40)"],
    "size": ["-5", "'x'"],
    "tag": ["'x'"],
    "access_count": ["9"],
}


class TestAgainstItsOwner:
    @pytest.mark.parametrize(("column", "value"), [(c, v) for c, values in COLUMNS.items() for v in values])
    async def test_a_row_that_was_changed_is_a_miss_or_the_old_value(
        self, place: Path, column: str, value: str
    ) -> None:
        await filled(place)
        execute(place, f"UPDATE Cache SET {column} = {value}")
        kept = cache(place)
        assert await kept.get("tenant", "key") in (None, "the answer")
        await kept.set("tenant", "key", "new")
        assert await kept.get("tenant", "key") == "new"
        await kept.aclose()

    async def test_a_value_changed_in_any_byte_is_a_miss(self, place: Path) -> None:
        await filled(place)
        with closing(sqlite3.connect(place / DATABASE)) as database:
            ((entry,),) = database.execute("SELECT value FROM Cache").fetchall()
        kept = cache(place)
        for at in range(len(entry)):
            changed = entry[:at] + bytes([entry[at] ^ 1]) + entry[at + 1 :]
            with closing(sqlite3.connect(place / DATABASE)) as database, database:
                database.execute("DELETE FROM Cache")
                database.execute(
                    "INSERT INTO Cache(key, raw, store_time, access_time, mode, value) VALUES (?, 1, 0, 0, 1, ?)",
                    (kept._seal.row("tenant", "key"), changed),
                )
            assert await kept.get("tenant", "key") is None, at
        assert kept.statistics.refused == len(entry)
        await kept.aclose()

    async def test_a_tenant_whose_name_is_of_a_kind_of_its_own_is_the_text_that_it_is(self, place: Path) -> None:
        class Anybody(str):
            @override
            def __eq__(self, other: object) -> bool:
                return True

            @override
            def __hash__(self) -> int:
                return 1

        kept = cache(place)
        for name in ("one", "two"):
            await kept.set(Anybody(name), "key", name)
        told = [await kept.get(scope, "key") for scope in (Anybody("one"), Anybody("two"), "one", "two")]
        assert told == ["one", "two"] * 2
        await kept.aclose()

    async def test_an_entry_that_was_moved_to_another_tenant_is_a_miss(self, place: Path) -> None:
        await filled(place, "of the tenant")
        kept = cache(place)
        execute(place, "UPDATE Cache SET key = ?", values=(kept._seal.row("thief", "key"),))
        assert await kept.get("thief", "key") is None
        await kept.aclose()

    async def test_an_entry_whose_time_is_over_can_not_be_given_more(self, place: Path) -> None:
        clock = Clock()
        first = cache(place, ttl=5, clock=clock)
        await first.set("", "k", 1)
        await first.aclose()
        execute(place, "UPDATE Cache SET expire_time = 1e12")
        clock.now += 10
        kept = cache(place, clock=clock)
        assert await kept.get("", "k") is None
        await kept.aclose()

    async def test_entries_signed_with_another_key_are_misses(self, place: Path) -> None:
        await filled(place)
        kept = cache(place, secret=b"t" * 32)
        assert await kept.get("tenant", "key") is None
        await kept.aclose()

    async def test_nothing_is_unpickled_opened_or_removed(self, place: Path, tmp_path: Path) -> None:
        await filled(place)
        victim = tmp_path / "victim"
        victim.write_text("here")
        bomb = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
        for mode in (2, 3, 4):
            execute(place, f"UPDATE Cache SET mode = {mode}, filename = '../victim', value = ?", values=(bomb,))
            kept = cache(place)
            assert await kept.get("tenant", "key") is None
            await kept.clear()
            await kept.aclose()
            await filled(place)
        assert victim.read_text() == "here"
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE TRIGGER evil AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END",
            "CREATE TRIGGER Cache AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END",
            "CREATE VIEW v AS SELECT * FROM Cache",
            "DROP TRIGGER Settings_count_insert\n"
            "CREATE TRIGGER Settings_count_insert AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END",
            "ALTER TABLE Cache RENAME TO Settings_size_insert\nCREATE VIEW Cache AS SELECT * FROM Settings_size_insert",
            "INSERT INTO Settings VALUES ('sqlite_temp_store_directory', 'x; y')",
            "INSERT INTO Settings VALUES ('disk_shell', 'x')",
            "UPDATE Settings SET value = '/etc' WHERE key = 'sqlite_journal_mode'",
        ],
    )
    async def test_a_database_with_anything_of_somebody_elses_is_put_aside(
        self, place: Path, statement: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        await filled(place)
        execute(place, *statement.split("\n"))
        kept = cache(place)
        assert await kept.get("tenant", "key") is None
        await kept.set("tenant", "key", "new")
        assert await kept.get("tenant", "key") == "new"
        assert [file.name for file in place.glob("*.broken-*")] != []
        assert "begun anew" in caplog.text
        await kept.aclose()

    def test_a_directory_that_others_may_write_is_refused(self, tmp_path: Path) -> None:
        shared = tmp_path / "shared"
        shared.mkdir(mode=0o700)
        shared.chmod(0o770)
        with pytest.raises(ConfigurationError, match="chmod 700"):
            cache(shared)
        link = tmp_path / "link"
        link.symlink_to(tmp_path)
        with pytest.raises(ConfigurationError, match="link"):
            cache(link)
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(ConfigurationError):
            cache(file)

    def test_the_key_is_made_once_elsewhere_and_for_nobody_else_to_read(self, home: Path) -> None:
        kept = ResponseCache(60)
        file = home / "state" / "devsynth_providers" / "cache.key"
        assert (stat.S_IMODE(file.stat().st_mode), len(file.read_bytes())) == (0o600, 32)
        assert kept.directory == home / "caches" / "devsynth_providers" / "answers"
        assert secret_of() == file.read_bytes()
        file.chmod(0o644)
        with pytest.raises(ConfigurationError, match="chmod 600"):
            secret_of()
        file.chmod(0o600)
        file.write_bytes(b"short")
        with pytest.raises(ConfigurationError, match="no key"):
            secret_of()
        assert list(file.parent.glob(".*")) == []

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), True, "60"])
    def test_a_time_to_live_that_is_none_is_refused(self, place: Path, ttl: Any) -> None:
        with pytest.raises(ConfigurationError, match="seconds above 0"):
            cache(place, ttl=ttl)


class TestWhatGoesWrong:
    @pytest.mark.parametrize("rubbish", [b"", b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
    async def test_a_broken_file_costs_what_was_in_it(self, place: Path, rubbish: bytes) -> None:
        await filled(place)
        (place / DATABASE).write_bytes(rubbish)
        for rest in ("-wal", "-shm"):
            (place / f"{DATABASE}{rest}").unlink(missing_ok=True)
        kept = cache(place)
        assert await kept.get("tenant", "key") is None
        await kept.set("tenant", "key", "new")
        assert await kept.get("tenant", "key") == "new"
        await kept.aclose()

    async def test_a_file_that_breaks_while_it_is_used_does_too(self, place: Path) -> None:
        kept = cache(place)
        for number in range(200):
            await kept.set("", f"{number}", "x" * 500)
        with (place / DATABASE).open("r+b") as file:
            file.seek(0)
            file.write(b"\xff" * 50_000)
        for number in range(200):
            await kept.get("", f"{number}")
            await kept.set("", f"new {number}", 1)
        assert await kept.get("", "new 199") == 1
        await kept.aclose()

    async def test_another_process_that_writes_is_not_waited_for(self, place: Path) -> None:
        await filled(place)
        kept = cache(place)
        assert await kept.get("tenant", "key") == "the answer"
        with closing(sqlite3.connect(place / DATABASE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await kept.set("tenant", "other", "lost")
            assert (await kept.get("tenant", "key"), kept.statistics.dropped) == ("the answer", 1)
        await kept.set("tenant", "other", "kept")
        assert await kept.get("tenant", "other") == "kept"
        await kept.aclose()

    def test_a_full_disk_keeps_nothing_and_still_answers(self, place: Path) -> None:
        script = """
            import asyncio, resource, signal, sys
            from devsynth_providers import ResponseCache

            async def main():
                kept = ResponseCache(60, directory=sys.argv[1], secret=b"s" * 32)
                await kept.set("", "before", "here")
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
                for number in range(100):
                    await kept.set("", f"{number}", "x" * 10_000)
                assert kept.statistics.dropped > 50, kept.statistics
                assert await kept.get("", "before") == "here"
                await kept.aclose()

            asyncio.run(main())
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(place)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    @pytest.mark.skipif(os.name != "posix", reason="there it is not said by modes who may write")
    def test_one_that_may_only_be_read_keeps_nothing_and_fails_nobody(self) -> None:
        """As a user who is not root, whom no mode holds up."""
        script = """
            import asyncio, os, sys, tempfile
            from devsynth_providers import ResponseCache

            async def main(place, user):
                kept = ResponseCache(60, directory=place, secret=b"s" * 32)
                await kept.set("", "before", "here")
                await kept.aclose()
                for name in ("cache.db", "."):
                    os.chown(f"{place}/{name}", user, -1)
                    os.chmod(f"{place}/{name}", 0o400 if name != "." else 0o500)
                os.setuid(user)
                kept = ResponseCache(60, directory=place, secret=b"s" * 32)
                await kept.set("", "after", "lost")
                assert kept.statistics.dropped == 1, kept.statistics
                assert await kept.get("", "before") in (None, "here")
                assert await kept.get("", "after") is None
                await kept.aclose()
                assert os.listdir(place) == ["cache.db"], os.listdir(place)

            with tempfile.TemporaryDirectory() as place:
                child = os.fork()
                if not child:
                    asyncio.run(main(place, os.getuid() or 65534))
                    os._exit(0)
                failed = os.waitpid(child, 0)[1]
                os.chmod(place, 0o700)
            sys.exit(1 if failed else 0)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr

    @pytest.mark.skipif(os.name != "posix", reason="there it is not known to whom it belongs")
    def test_one_of_somebody_else_is_refused(self, tmp_path: Path) -> None:
        other = Path("/")
        if os.getuid() == 0:
            other = tmp_path / "other"
            other.mkdir(mode=0o700)
            os.chown(other, 65534, -1)
        with pytest.raises(ConfigurationError, match="belongs to another user"):
            cache(other)

    def test_two_processes_share_a_directory(self, place: Path) -> None:
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=_hammer, args=(str(place), number)) for number in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(90)
        assert [process.exitcode for process in processes] == [0, 0, 0]

    def test_one_that_is_forgotten_lets_go_of_it(self, place: Path) -> None:
        """Since Python 3.13 a connection that is left complains, which no test may."""
        before = set(threading.enumerate())

        async def work() -> sqlite3.Connection:
            kept = cache(place)
            await kept.set("", "k", 1)
            assert isinstance(kept._reader, sqlite3.Connection)
            return kept._reader

        reader = asyncio.run(work())
        gc.collect()
        while set(threading.enumerate()) - before:
            time.sleep(0.001)
        with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
            reader.execute("SELECT 1")

    def test_a_forked_child_opens_it_for_itself(self, place: Path) -> None:
        async def work() -> ResponseCache:
            kept = cache(place)
            await kept.set("", "k", "of the parent")
            return kept

        kept = asyncio.run(work())
        child = os.fork()
        if child == 0:
            found = asyncio.run(kept.get("", "k"))
            asyncio.run(kept.set("", "child", 1))
            os._exit(0 if found == "of the parent" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

        async def after() -> tuple[Any, Any]:
            found = await kept.get("", "k"), await kept.get("", "child")
            await kept.aclose()
            return found

        assert asyncio.run(after()) == ("of the parent", 1)

    async def test_what_is_no_json_is_dropped(self, place: Path) -> None:
        kept = cache(place)
        for value in (object(), float("nan"), {1, 2}):
            await kept.set("", "k", value)
        assert await kept.get("", "k") is None
        await kept.aclose()

    async def test_it_may_be_used_again_after_it_was_closed(self, place: Path) -> None:
        kept = cache(place)
        await kept.set("", "k", 1)
        await kept.aclose()
        await kept.aclose()
        assert await kept.get("", "k") == 1
        await kept.aclose()


def _hammer(place: str, number: int) -> None:
    async def work() -> None:
        kept = ResponseCache(60, directory=place, secret=SECRET)
        for turn in range(60):
            key = f"{turn % 7}"
            await kept.set("", key, [key] * 50)
            found = await kept.get("", key)
            assert found in (None, [key] * 50), (number, json.dumps(found)[:100])
        assert kept.statistics.refused == 0
        await kept.aclose()

    asyncio.run(work())
