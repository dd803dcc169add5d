"""``devsynth-providers cache``: what is kept is counted, exported and removed; whoever only looks changes nothing."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from devsynth_providers import ResponseCache
from devsynth_providers.stores.cache_reader import key_of, look
from devsynth_providers.stores.cache_upkeep import Old, clear, prune
from devsynth_providers.stores.places import default_cache
from devsynth_providers.stores.strict_disk import DATABASE

from .command import Run

KEPT_S = 10_000 * 86_400.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def place(home: Path) -> Path:
    return home / "caches" / "devsynth_providers" / "answers"


def keep(*values: Any, at: float | None = None, ttl_s: float = KEPT_S, scope: str = "t", **options: Any) -> None:
    """Keep *values* for *scope*, in the user's own cache, at a moment, in seconds since 1970. What has expired by then
    is no longer there."""

    async def work() -> None:
        cache = ResponseCache(ttl_s, clock=time.time if at is None else lambda: at, **options)
        for number, value in enumerate(values):
            await cache.set(scope, f"{at} {number}", value)
        assert cache.statistics.dropped == 0
        await cache.aclose()

    place: Path = options.get("directory", default_cache())
    ((last,),) = execute(place, "SELECT max(rowid) FROM Cache") if (place / DATABASE).exists() else [(None,)]
    asyncio.run(work())
    if at is not None:  # diskcache goes by a clock of its own
        moved = "UPDATE Cache SET store_time = ?1, expire_time = ?1 + ?2 WHERE rowid > ?3"
        execute(place, moved, (at, ttl_s, last or 0))


def execute(place: Path, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    with closing(sqlite3.connect(place / DATABASE)) as database, database:
        return database.execute(statement, values).fetchall()


def told(cli: Run, *arguments: str) -> dict[str, Any]:
    code, out, err = cli("cache", *arguments, "--json")
    assert (code, err) == (0, "")
    return dict(json.loads(out))


class TestShow:
    def test_tells_what_is_good_what_has_expired_and_what_is_not_ours(self, cli: Run, place: Path) -> None:
        keep("a", "b", scope="one")
        keep("c", scope="two")
        keep("of another key", secret=b"k" * 32)
        keep("old", at=1.7e9, ttl_s=60)
        found = told(cli, "show")
        assert (found["directory"], found["entries"]) == (str(place), 5)
        assert (found["valid"], found["expired"], found["unverified"], found["scopes"]) == (3, 1, 1, 2)
        assert found["size_bytes"] > 4096
        assert (found["limit_bytes"], found["key"], found["aside"]) == (256 * 1024 * 1024, True, 0)
        assert found["oldest_at"] == "2023-11-14T22:13:20.000Z"
        assert found["newest_at"][:4] == time.strftime("%Y", time.gmtime())
        _, out, _ = cli("cache", "show")
        assert "entries    5: 3 good, 1 expired, 1 not verified\n" in out
        assert "whose they are, and what was asked, stands there only as hashes" in out
        assert "has not signed 1 entry" in out

    def test_reads_whatever_somebody_has_made_of_a_row(self, cli: Run, place: Path) -> None:
        forged = [
            *("value = zeroblob(40)", "value = 'text'", "value = NULL", "key = 'other'", "key = x'00'", "raw = 0"),
            *("mode = 4, value = x'80'", "filename = '/etc/passwd'", "key = CAST(x'ff' AS TEXT)"),
        ]
        good = ["expire_time = 1e300", "expire_time = 'soon'", "store_time = 1e300", "store_time = 'x'", "size = -5"]
        keep(*["forged"] * len(forged), *["good"] * len(good), "expired")
        for rowid, change in enumerate([*forged, *good, "expire_time = 5"], 1):
            execute(place, f"UPDATE Cache SET {change} WHERE rowid = {rowid}")
        found = told(cli, "show")
        assert (found["valid"], found["expired"], found["unverified"]) == (len(good), 1, len(forged))
        lines = [json.loads(line) for line in cli("cache", "export")[1].splitlines()]
        assert sorted(each["value"] for each in lines) == ["expired", *["good"] * len(good)]
        assert cli("cache", "show")[0] == cli("cache", "prune", "--before", "2999-01-01", "--yes")[0] == 0
        assert told(cli, "show")["entries"] == 0

    def test_says_that_without_a_key_nothing_can_be_verified_and_makes_none(self, cli: Run, home: Path) -> None:
        keep("a", secret=b"k" * 32)
        assert key_of() is None
        assert (told(cli, "show")["unverified"], told(cli, "show")["key"]) == (1, False)
        assert "nothing can be verified; name one with --key" in cli("cache", "show")[1]
        for command in (["export"], ["prune", "--unverified", "--yes"]):
            code, out, err = cli("cache", *command)
            assert (code, out) == (3, "")
            assert "there is no key at" in err
        assert not (home / "state").exists()

    def test_goes_by_the_key_and_the_directory_that_are_named(self, cli: Run, home: Path) -> None:
        other, key = home / "other", home / "key"
        key.write_bytes(b"k" * 32)
        key.chmod(0o600)
        keep("a", "b", directory=other, secret=b"k" * 32)
        assert told(cli, "show", "--cache", str(other), "--key", str(key))["valid"] == 2
        assert [cli("cache", "show", "--cache", str(other), "--key", str(home / "no"))[0] for _ in "a"] == [3]


class TestClaims:
    """Marks of calls under way stand in the cache, and are no answers."""

    def test_are_neither_counted_nor_exported_nor_pruned(self, cli: Run, place: Path) -> None:
        async def work() -> None:
            cache = ResponseCache(60)
            done = await cache.claim("t", "asked", 60)
            assert done is not None
            await cache.claim("t", "under way", 60)
            await cache.set("t", "k", "over")
            done.done()
            await cache.aclose()

        asyncio.run(work())
        ((rows,),) = execute(place, "SELECT count(*) FROM Cache")
        assert rows == 3
        assert (told(cli, "show")["entries"], told(cli, "show")["valid"]) == (1, 1)
        assert [json.loads(line)["value"] for line in cli("cache", "export")[1].splitlines()] == ["over"]
        assert cli("cache", "prune", "--before", "2100-01-01") == (0, "1 entry would go; say --yes\n", "")
        execute(place, "UPDATE Cache SET value = x'00' WHERE tag IS NOT NULL")
        assert told(cli, "show")["unverified"] == 2, "what only says that it is a claim is not hidden"
        assert cli("cache", "clear", "--yes") == (0, "removed 1 entry\n", "")
        assert execute(place, "SELECT * FROM Cache") == []


class TestExport:
    def test_has_what_can_be_told_of_an_entry(self, cli: Run, home: Path) -> None:
        keep("b")
        keep({"text": "é \ud800"}, at=1.7e9, ttl_s=60)
        _, out, _ = cli("cache", "export")
        first, second = [json.loads(line) for line in out.splitlines()]
        assert (first["value"], second["value"]) == ({"text": "é \ud800"}, "b")
        assert (first["stored_at"], first["expires_at"]) == ("2023-11-14T22:13:20.000Z", "2023-11-14T22:14:20.000Z")
        assert first["key"].partition("/")[0] == second["key"].partition("/")[0]
        place = home / "answers.jsonl"
        assert cli("cache", "export", "--output", str(place)) == (0, "", "")
        assert place.read_text() == out

    def test_goes_neither_into_the_cache_nor_anywhere_without_one(self, cli: Run, home: Path, place: Path) -> None:
        output = home / "answers.jsonl"
        assert key_of() is None
        keep("a")
        code, _, err = cli("cache", "export", "--output", str(place / DATABASE))
        assert (code, "--output is in the cache itself" in err) == (2, True)
        assert cli("cache", "export", "--cache", str(home / "no"), "--output", str(output))[0] == 3
        assert not output.exists()
        assert told(cli, "show")["valid"] == 1


class TestPrune:
    def test_says_what_would_go_and_removes_it_when_told_to(self, cli: Run, place: Path) -> None:
        keep("a")
        keep("old", "older", at=1.7e9, ttl_s=60)
        execute(place, "UPDATE Cache SET expire_time = 1e12 WHERE rowid = 2")  # what the entry itself says, holds
        assert cli("cache", "prune")[1] == "2 entries would go; say --yes\n"
        assert told(cli, "prune") == {"found": 2, "removed": 0}
        assert cli("cache", "prune", "--yes")[1] == "removed 2 entries\n"
        assert cli("cache", "prune")[1] == "0 entries would go\n"
        assert told(cli, "show")["valid"] == 1

    def test_takes_what_was_kept_before_a_moment_and_what_is_not_ours_if_that_is_said(self, cli: Run) -> None:
        keep("early", at=1.7e9)
        keep("late")
        keep("of another key", secret=b"k" * 32)
        assert told(cli, "prune", "--before", "2023-11-14")["found"] == 0
        assert told(cli, "prune", "--before", "2023-11-15")["found"] == 1
        assert told(cli, "prune", "--unverified", "--before", "2023-11-15", "--yes")["removed"] == 2
        assert (told(cli, "show")["valid"], told(cli, "show")["entries"]) == (1, 1)

    def test_to_a_size_removes_the_oldest_and_the_disk_has_it_back(self, cli: Run, place: Path) -> None:
        for number in range(6):
            keep(*[f"{number}" * 25_000] * 10, at=1.7e9 + number)
        before = told(cli, "show")
        assert before["size_bytes"] > 1_500_000
        assert told(cli, "prune", "--to-size", "5MB")["found"] == 0
        estimated = told(cli, "prune", "--to-size", "500kB")["found"]
        removed = told(cli, "prune", "--to-size", "500 kB", "--yes")["removed"]
        after = told(cli, "show")
        assert 30 < removed < 60
        assert abs(estimated - removed) < 6
        assert after["size_bytes"] < 600_000
        assert after["valid"] == 60 - removed
        oldest = sorted(float(at) for (at,) in execute(place, "SELECT store_time FROM Cache"))[0]
        assert oldest == 1.7e9 + removed // 10
        ((counted, size),) = execute(
            place,
            "SELECT (SELECT value FROM Settings WHERE key = 'count'), (SELECT value FROM Settings WHERE key = 'size')",
        )
        assert counted == after["valid"]
        assert size >= 0

    @pytest.mark.parametrize("said", ["much", "-1", "5 TB", "1e9", ""])
    def test_to_what_is_no_size_is_refused(self, cli: Run, said: str) -> None:
        keep("a")
        code, _, err = cli("cache", "prune", f"--to-size={said}")
        assert (code, "write 500kB, 64MB or 1GiB" in err) == (2, True)

    def test_leaves_what_a_router_has_put_there_meanwhile_and_lets_it_have_its_turn(self, place: Path) -> None:
        keep("x", at=1.7e9, ttl_s=60)
        again = "INSERT INTO Cache SELECT NULL, key || n, raw, store_time, expire_time, 0, 0, tag, 0, 1, NULL, value"
        counted = "WITH RECURSIVE counted(n) AS (VALUES (2) UNION ALL SELECT n + 1 FROM counted WHERE n < 450)"
        execute(place, f"{counted} {again} FROM Cache, counted")

        def turn(_: float) -> None:
            """A router keeps two answers, one in the place of the last that is to go."""
            with closing(sqlite3.connect(place / DATABASE, timeout=0)) as router, router:
                router.execute("UPDATE Cache SET store_time = 1.75e9, expire_time = 9e9 WHERE rowid = 450")

        assert prune(place, key_of(), Old(), sleep=turn) == 449
        assert execute(place, "SELECT rowid FROM Cache") == [(450,)]


class TestClear:
    def test_forgets_everything_once_that_is_confirmed(self, cli: Run, place: Path) -> None:
        keep("a", "b")
        (place / f"{DATABASE}.broken-1").write_bytes(b"old answers")
        code, out, err = cli("cache", "clear")
        assert (code, out) == (2, "")
        assert "say --yes" in err
        assert told(cli, "show")["aside"] == 1
        assert cli("cache", "clear", "--yes") == (0, "removed 2 entries\n", "")
        assert (told(cli, "show")["entries"], told(cli, "show")["aside"]) == (0, 0)
        assert b"old answers" not in b"".join(file.read_bytes() for file in place.iterdir())

    async def test_lets_a_router_go_on(self, place: Path) -> None:
        cache = ResponseCache(60)
        await cache.set("", "k", "before")
        assert await asyncio.to_thread(clear, place) == 1
        assert await cache.get("", "k") is None
        await cache.set("", "k", "after")
        assert await cache.get("", "k") == "after"
        assert (cache.statistics.dropped, cache.statistics.refused) == (0, 0)
        await cache.aclose()

    @pytest.mark.parametrize("broken", [b"no database" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
    def test_removes_a_broken_file(self, cli: Run, place: Path, broken: bytes) -> None:
        keep("a")
        (place / DATABASE).write_bytes(broken)
        assert cli("cache", "clear", "--yes")[0] == 0
        assert list(place.iterdir()) == []


class TestDirectories:
    COMMANDS = (["show"], ["export"], ["prune"], ["prune", "--yes"], ["clear", "--yes"])

    def test_without_a_cache_are_said_and_none_is_made(self, cli: Run, home: Path) -> None:
        keep("a", directory=home / "another")  # there is a key
        (empty := home / "empty").mkdir(mode=0o700)
        for place in (home / "no", empty):
            for command in self.COMMANDS:
                code, out, err = cli("cache", *command, "--cache", str(place))
                assert (code, out) == (3, "")
                assert f"there is no cache in {place}" in err
        assert not (home / "no").exists()
        assert list(empty.iterdir()) == []

    def test_with_a_broken_cache_are_said_and_left_as_they_are(self, cli: Run, place: Path) -> None:
        keep("a")
        execute(place, "CREATE TRIGGER evil AFTER DELETE ON Cache BEGIN DELETE FROM Settings; END")
        for broken in (None, b"no database" * 1000):
            if broken is not None:
                (place / DATABASE).write_bytes(broken)
            before = (place / DATABASE).read_bytes()
            for command in self.COMMANDS[:4]:
                code, out, err = cli("cache", *command)
                assert (code, out) == (3, "")
                assert "can not be used as a cache" in err
                assert "the next router that uses it puts it aside" in err
            assert (place / DATABASE).read_bytes() == before
            assert not list(place.glob("*.broken-*"))

    def test_that_others_may_write_are_refused(self, cli: Run, place: Path) -> None:
        keep("a")
        place.chmod(0o777)
        for command in self.COMMANDS:
            code, _, err = cli("cache", *command)
            assert (code, "chmod 700" in err) == (3, True)

    def test_that_are_only_looked_at_stay_as_they_are(self, cli: Run, place: Path) -> None:
        keep("a")
        keep("old", at=1.7e9, ttl_s=60)
        before = (place / DATABASE).read_bytes()
        for command in (["show"], ["export"], ["prune"]):
            assert cli("cache", *command)[0] == 0
        assert (place / DATABASE).read_bytes() == before
        assert look(place, key_of()).expired == 1

    def test_failing_json_is_json(self, cli: Run, home: Path) -> None:
        code, out, _ = cli("cache", "show", "--cache", str(home / "no"), "--json")
        assert (code, json.loads(out)["error"]) == (3, "configuration")
