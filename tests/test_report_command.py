"""``devsynth-providers report``: its sums are the ledger's, in each format, and whatever stands there is only text."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from devsynth_providers import Usage
from devsynth_providers.cli import suggestions as rules
from devsynth_providers.cli.suggestions import Sums, suggestions
from devsynth_providers.stores.entries import Entry, Hit, Outcome
from devsynth_providers.stores.ledger_reader import By, Group, Quantiles, Wanted, read_ledger
from devsynth_providers.stores.sqlite_ledger import SqliteLedger

from .command import CANARY, Run, nobodys_url
from .filled import filled, hit, written
from .servers import PASSWORD, RedisServer
from .test_cli import run as as_command

NAMES = st.sampled_from([None, "a", "b", "<script>alert(1)</script>", "=1+1", "[red]\x1b[31m", "é"])
SUMMED = (
    *("attempts", "answered", "failed", "given_up", "under_way", "retries", "fallbacks", "hedges", "unpriced"),
    *("input_tokens", "output_tokens", "cached_input_tokens"),
    *("cost_micros", "estimated_micros", "reserved_micros", "retries_micros", "simple_micros"),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


def report(cli: Run, file: Path, *more: str) -> dict[str, Any]:
    code, out, err = cli("report", "--ledger", str(file), "--json", *more)
    assert (code, err) == (0, "")
    return dict(json.loads(out))


class TestNumbers:
    def test_are_those_of_what_a_router_has_asked(self, cli: Run, file: Path) -> None:
        cost = filled(file, calls=4)
        told = report(cli, file)
        total = told["total"]
        assert (total["calls"], total["attempts"], total["answered"], total["failed"]) == (5, 10, 5, 5)
        assert (total["retries"], total["fallbacks"]) == (4, 1)
        assert total["cost_usd"] == total["simple_usd"] == cost / 1_000_000
        assert (total["output_tokens"], total["cached_input_tokens"]) == (100, 20)
        assert {each["key"]: (each["calls"], each["attempts"]) for each in told["groups"]} == {
            "first": (5, 9),
            "second": (1, 1),
        }
        assert total["estimated_usd"] == pytest.approx(total["cost_usd"] - 5 * 700 / 1_000_000)  # it was down, thrice
        assert 0 < total["latency_p50_s"] <= total["latency_p95_s"]
        assert (told["by"], told["since"], told["suggestions"]) == ("model", None, [])

    @pytest.mark.parametrize(
        ("by", "keys"),
        [
            ("project", ["billing"]),
            ("rule", ["all"]),
            ("role", ["dev"]),
            ("task", ["review"]),
            ("tag", ["x"]),
            ("day", [None]),
        ],
    )
    def test_are_summed_up_by_what_is_asked_for(self, cli: Run, file: Path, by: str, keys: list[str | None]) -> None:
        filled(file)
        keys = keys if by != "day" else [time.strftime("%Y-%m-%d", time.gmtime())]
        groups = report(cli, file, "--by", by)["groups"]
        assert [each["key"] for each in groups][: len(keys)] == keys
        assert sum(each["calls"] for each in groups) == 5

    def test_by_tag_an_attempt_is_of_each_of_its_tags_once(self, cli: Run, file: Path) -> None:
        written(file, {"tags": ("a", "b", "a")}, {"tags": ("b",), "latency_s": 3.0}, {})
        hit(file, Hit("p", "m"))
        told = report(cli, file, "--by", "tag")
        assert {each["key"]: (each["attempts"], each["cost_usd"], each["hits"]) for each in told["groups"]} == {
            "a": (1, 0.00001, 0),
            "b": (2, 0.00002, 0),
            None: (1, 0.00001, 1),
        }
        assert {each["key"]: each["latency_p95_s"] for each in told["groups"]}["b"] == 3.0
        assert (told["total"]["attempts"], told["total"]["hits"]) == (3, 1)

    def test_tell_apart_what_is_estimated_reserved_or_of_no_known_price(self, cli: Run, file: Path) -> None:
        written(
            file,
            {"cost_micros": 300},
            {"cost_micros": 200, "basis": "estimated"},
            {"worst_micros": 5000, "settled": False},
            {"worst_micros": 0, "cost_micros": None, "basis": "unknown"},
            {"worst_micros": 70, "cost_micros": None, "basis": "unknown"},
        )
        total = report(cli, file)["total"]
        assert (total["cost_usd"], total["estimated_usd"], total["reserved_usd"]) == (0.00057, 0.00027, 0.005)
        assert (total["unpriced"], total["under_way"], total["answered"]) == (1, 1, 4)
        _, out, _ = cli("report", "--ledger", str(file))
        assert "$0.0003 of the cost is estimated" in out
        assert "$0.0050 is reserved for 1 attempt under way, and not in the cost." in out
        assert "1 attempt of no known price: not in the cost." in out

    def test_an_attempt_that_was_given_up_has_not_failed(self, cli: Run, file: Path) -> None:
        written(file, {"error": "cancelled"}, {"error": "process_ended"}, {"error": "timeout"}, {})
        total = report(cli, file)["total"]
        assert (total["given_up"], total["failed"], total["answered"]) == (2, 1, 1)

    def test_quantiles_are_of_answers_and_each_was_measured(self, cli: Run, file: Path) -> None:
        times = [float(n) for n in range(1, 101)]
        random.Random(0).shuffle(times)
        slow = {"latency_s": 1e6, "error": "timeout"}
        written(file, *({"latency_s": each, "first_token_s": each / 10} for each in times), slow, {"settled": False})
        total = report(cli, file)["total"]
        assert (total["latency_p50_s"], total["latency_p95_s"]) == (50.0, 95.0)
        assert (total["first_token_p50_s"], total["first_token_p95_s"]) == (5.0, 9.5)

    def test_of_few_answers_they_are_the_nearest_rank(self, file: Path) -> None:
        written(file, {"model": "one", "latency_s": 3.0}, *({"model": "two", "latency_s": s} for s in (1.0, 2.0)))
        with read_ledger(file) as ledger:
            told = {each.key: each.latency_s for each in ledger.groups(By.model)}
        assert told == {"one": Quantiles(3.0, 3.0), "two": Quantiles(1.0, 2.0)}

    @settings(max_examples=15, deadline=None)
    @given(
        st.lists(
            st.fixed_dictionaries(
                {
                    "at": st.floats(1.79e9, 1.80e9),
                    "call": st.sampled_from("abcdef"),
                    **dict.fromkeys(("project", "role", "task"), NAMES),
                    **dict.fromkeys(("model", "rule"), NAMES.map(lambda name: name or "none")),
                    "reason": st.sampled_from(["primary", "retry", "fallback", "hedge", "continuation"]),
                    "worst_micros": st.integers(0, 10**6),
                    "cost_micros": st.none() | st.integers(0, 10**6),
                    "basis": st.sampled_from(["free", "reported", "computed", "estimated", "unknown"]),
                    "usage": st.builds(Usage, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
                    "error": st.sampled_from([None, "timeout", "cancelled", "process_ended"]),
                    "complexity": st.none() | st.floats(0, 1),
                    "settled": st.booleans(),
                }
            ),
            max_size=12,
        ),
        st.none() | st.floats(1.79e9, 1.80e9),
    )
    def test_the_total_is_the_sum_of_the_groups_whatever_they_are(
        self, tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any]], since: float | None
    ) -> None:
        file = tmp_path_factory.mktemp("l") / "ledger.db"
        written(file, {"at": 0.0}, *({**each, "attempt": number} for number, each in enumerate(entries)))
        wanted = Wanted(since=since, until=1.80e9)
        with read_ledger(file) as ledger:
            total = ledger.total(wanted)
            for by in By:
                groups = ledger.groups(by, wanted)
                assert len({each.key for each in groups}) == len(groups)
                for name in SUMMED:
                    assert sum(getattr(each, name) for each in groups) == getattr(total, name), (by, name)
                assert max((each.calls for each in groups), default=0) <= total.calls
                assert total.calls <= sum(each.calls for each in groups)
        ended = (total.answered, total.failed, total.given_up, total.under_way)
        assert sum(ended) == total.attempts
        inside = [each for each in entries if (since or 0) <= each["at"] < 1.80e9]
        assert total.attempts == len(inside) + (since is None)
        settled = [each for each in inside if each["settled"]]
        paid = [each["worst_micros"] if each["cost_micros"] is None else each["cost_micros"] for each in settled]
        assert total.cost_micros == sum(paid) + 10 * (since is None)
        simple = [each["complexity"] is not None and each["complexity"] < 0.3 for each in settled]
        assert total.simple_micros == sum(cost for cost, counts in zip(paid, simple, strict=True) if counts)


class TestHits:
    def test_are_told_with_their_rate_in_every_format(self, cli: Run, file: Path) -> None:
        written(file, {"project": "a"}, {"project": "a"}, {"project": "b"})
        hit(file, *[Hit("p", "m", project="a")] * 6, *[Hit("p", "m", project="c")] * 2)
        told = report(cli, file, "--by", "project")
        assert {each["key"]: (each["calls"], each["hits"], each["hit_rate"]) for each in told["groups"]} == {
            "a": (2, 6, 0.75),
            "b": (1, 0, 0.0),
            "c": (0, 2, 1.0),
        }
        total = told["total"]
        assert (total["attempts"], total["calls"], total["hits"], total["hit_rate"]) == (3, 3, 8, 8 / 11)
        _, out, _ = cli("report", "--ledger", str(file), "--by", "project")
        lines = [re.split(r"\s{2,}", line) for line in out.splitlines()[:5]]
        at = lines[0].index("hits")
        assert [line[at : at + 2] for line in lines] == [
            ["hits", "hit rate"],
            *(["6", "75.0%"], ["0", "0.0%"], ["2", "100.0%"], ["8", "72.7%"]),
        ]
        page = Page(cli("report", "--ledger", str(file), "--format", "html")[1])
        assert "8, 72.7%" in page.text

    def test_alone_are_something(self, cli: Run, file: Path) -> None:
        written(file)
        hit(file, Hit("p", "m"), Hit("p", "m"))
        for form, wanted in (("table", "100.0%"), ("csv", ",2,1.0,0.0\n"), ("html", "2, 100.0%")):
            for by in By:
                code, out, _ = cli("report", "--ledger", str(file), "--format", form, "--by", by)
                assert (code, wanted in out) == (0, True), out

    def test_are_no_column_where_there_are_none(self, cli: Run, file: Path) -> None:
        written(file, {})
        assert "hit" not in cli("report", "--ledger", str(file))[1]

    def test_belong_to_their_minute_and_are_of_no_attempt(self, file: Path) -> None:
        written(file, {})
        hit(file, Hit("p", "m", project="a"), at=TestSpans.NOON + 90)
        hit(file, Hit("p", "m", project="b"), at=TestSpans.NOON + TestSpans.DAY)
        with read_ledger(file) as ledger:
            for wanted, hits in (
                (Wanted(since=TestSpans.NOON + 60), 2),
                (Wanted(until=TestSpans.NOON + 61), 1),
                (Wanted(since=TestSpans.NOON + 61), 1),
                (Wanted(having=(("project", "a"),)), 1),
                (Wanted(having=(("call", "a"),)), 0),
                (Wanted(failed=True), 0),
            ):
                assert ledger.total(wanted).hits == hits
            days = {each.key: each.hits for each in ledger.groups(By.day)}
        assert days["2026-11-25"] == days["2026-11-26"] == 1


class TestSpans:
    DAY = 86_400
    NOON = 1_795_608_000.0  # 2026-11-25T12:00:00Z

    def test_begin_with_since_and_end_before_until(self, cli: Run, file: Path) -> None:
        written(file, *({"at": self.NOON + n * self.DAY} for n in range(-2, 3)))
        days = ["--by", "day", "--since", "2026-11-24", "--until", "2026-11-26T12:00"]
        told = report(cli, file, *days)
        assert [each["key"] for each in told["groups"]] == ["2026-11-24", "2026-11-25"]
        assert (told["since"], told["until"]) == ("2026-11-24T00:00:00.000Z", "2026-11-26T12:00:00.000Z")
        assert report(cli, file, "--until", "2026-11-26T13:00+01:00")["total"]["attempts"] == 3

    def test_may_be_said_by_how_long_ago(self, cli: Run, file: Path) -> None:
        written(file, *({"at": time.time() - n * self.DAY} for n in (0.1, 3, 10)))
        found = [report(cli, file, "--since", since)["total"]["attempts"] for since in ("24h", "7d", "2w", "90m")]
        assert found == [1, 2, 3, 0]

    def test_may_reach_as_far_as_there_are_days(self, cli: Run, file: Path) -> None:
        written(file, {})
        for since, until in (("999999w", "9999-12-31T23:59-12:00"), ("0001-01-01T00:00+12:00", "9999-12-31")):
            assert report(cli, file, "--since", since, "--until", until)["total"]["attempts"] == 1

    @pytest.mark.parametrize(
        ("said", "why"),
        [
            (["--since", "yesterday"], "'yesterday' is no moment; write 2026-11-26"),
            (["--until", "2026-13-01"], "is no moment"),
            (["--since", "2026-11-26", "--until", "2026-11-25"], "is not after --since"),
            (["--by", "colour"], "colour"),
            (["--format", "pdf"], "pdf"),
        ],
    )
    def test_that_make_no_sense_are_refused(self, cli: Run, file: Path, said: list[str], why: str) -> None:
        code, out, err = cli("report", "--ledger", str(file), *said)
        assert (code, out) == (2, "")
        assert why in err


class TestFormats:
    def test_the_table_has_a_line_for_each_group_and_one_for_all(self, cli: Run, file: Path) -> None:
        filled(file, calls=4)
        code, out, _ = cli("report", "--ledger", str(file))
        head, *lines = [re.split(r"\s{2,}", line) for line in out.splitlines()]
        assert code == 0
        told = {line[0]: dict(zip(head[1:], line[1:], strict=False)) for line in lines}
        assert {name: told[name]["attempts"] for name in ("first", "second", "total")} == {
            "first": "9",
            "second": "1",
            "total": "10",
        }
        assert (told["second"]["cost"], told["total"]["retries"], told["total"]["fallbacks"]) == ("$0.0007", "4", "1")
        assert "hedges" not in head

    def test_a_table_of_very_many_groups_says_where_the_others_are(self, cli: Run, file: Path) -> None:
        written(file, *({"project": f"p{n}"} for n in range(60)))
        _, out, _ = cli("report", "--ledger", str(file), "--by", "project")
        assert "10 groups more: --format csv and json have all" in out
        assert len(report(cli, file, "--by", "project")["groups"]) == 60

    def test_nothing_is_an_answer(self, cli: Run, file: Path) -> None:
        written(file, {})
        for form in ("table", "csv", "json", "html"):
            code, out, _ = cli("report", "--ledger", str(file), "--format", form, "--until", "2020-01-01")
            assert code == 0
            assert out
        assert "no attempt stands in" in cli("report", "--ledger", str(file), "--until", "2020-01-01")[1]

    def test_csv_has_the_same_numbers_as_json_and_no_formula(self, cli: Run, file: Path) -> None:
        written(file, {"project": "=cmd|' /C calc'!A0"}, {"project": 'a,\n"b"'}, {"project": None})
        told = report(cli, file, "--by", "project")
        _, out, _ = cli("report", "--ledger", str(file), "--by", "project", "--format", "csv")
        lines = list(csv.DictReader(io.StringIO(out)))
        assert [line["row"] for line in lines] == ["group", "group", "group", "total"]
        assert {line["project"] for line in lines} == {"'=cmd|' /C calc'!A0", 'a,\n"b"', ""}
        for line, group in zip(lines, [*told["groups"], told["total"]], strict=True):
            numbers = {name: "" if value is None else str(value) for name, value in group.items() if name != "key"}
            assert {name: value for name, value in line.items() if name not in ("row", "project")} == numbers

    def test_what_a_terminal_would_obey_is_not_printed(self, cli: Run, file: Path) -> None:
        written(file, {"project": "\x1b[31mred\x07"})
        _, out, _ = cli("report", "--ledger", str(file), "--by", "project")
        assert "�[31mred�" in out

    def test_it_goes_into_a_file_but_never_into_the_ledger(self, cli: Run, file: Path, tmp_path: Path) -> None:
        filled(file)
        page = tmp_path / "page.html"
        assert cli("report", "--ledger", str(file), "--format", "html", "--output", str(page))[:2] == (0, "")
        assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
        before = file.read_bytes()
        code, _, err = cli("report", "--ledger", str(file), "--output", str(tmp_path / "." / file.name))
        assert (code, file.read_bytes()) == (2, before)
        assert "--output is the ledger itself" in err
        code, _, err = cli("report", "--ledger", str(file), "--output", str(tmp_path / "no" / "page.html"))
        assert (code, "page.html can not be written: No such file or directory" in err) == (3, True)


class Page(HTMLParser):
    """What a browser would find: elements that are open, their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta",):
            self._open.append(tag)

    @override
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.text += data


class TestPage:
    @pytest.mark.parametrize("by", list(By))
    def test_is_whole_in_itself_and_has_all_groups(self, cli: Run, file: Path, by: By) -> None:
        filled(file)
        filled(file, project="shipping")
        code, out, _ = cli("report", "--ledger", str(file), "--by", by, "--format", "html")
        page = Page(out)
        assert code == 0
        assert {"svg", "rect", "table"} <= set(page.tags)
        assert not {"script", "link", "img", "iframe", "a"} & set(page.tags)
        assert not [value for name, value in page.attributes if name in ("src", "href") or name.startswith("on")]
        assert not re.search(r"https?:|//|url\(|@import", out)
        assert "default-src 'none'" in out
        for each in report(cli, file, "--by", by)["groups"]:
            assert each["key"] in page.text

    def test_what_others_have_written_is_text(self, cli: Run, file: Path) -> None:
        evil = "</title></svg><script>alert(1)</script>\"'><img src=x onerror=alert(1)>&\x00\x1b\u202e"
        everywhere = dict.fromkeys(("project", "role", "task", "rule", "model"), evil)
        written(file, *({**everywhere, "tags": (evil,), "error": evil} for _ in range(30)))
        for by in By:
            _, out, _ = cli("report", "--ledger", str(file), "--by", by, "--format", "html")
            page = Page(out)
            assert not {"script", "img"} & set(page.tags)
            assert "<script>alert(1)</script>" in page.text
            assert not [each for each in out if not each.isprintable() and each != "\n"]

    def test_days_without_an_entry_are_gaps(self, cli: Run, file: Path) -> None:
        written(file, {"at": TestSpans.NOON}, {"at": TestSpans.NOON + 9 * TestSpans.DAY})
        _, out, _ = cli("report", "--ledger", str(file), "--format", "html")
        bars = re.findall(r"<g><title>(\S+): .*?<rect class=\"sure\" x=\"([\d.]+)\"", out)
        assert [day for day, _ in bars] == ["2026-11-25", "2026-12-04"]
        assert float(bars[1][1]) - float(bars[0][1]) == pytest.approx(9 * 60)


def sums(*, total: Group, rules: list[Group] | None = None, models: list[Group] | None = None) -> Sums:
    return Sums(total=total, rules=rules or [], models=models or [], errors={"m": "rate_limited"})


def codes(given: Sums) -> list[str]:
    return [each.code for each in suggestions(given)]


class TestSuggestions:
    def test_say_what_the_ledger_shows(self, cli: Run, file: Path) -> None:
        failing = [{"model": "bad", "rule": "dear", "error": "rate_limited", "cost_micros": 0}] * 10
        retries = [{"model": "bad", "rule": "dear", "reason": "retry", "cost_micros": 1000}] * 15
        others = [{"model": "good", "rule": "cheap", "cost_micros": 200}] * 30
        written(file, *failing, *retries, *others)
        told = {each["code"]: each for each in report(cli, file)["suggestions"]}
        assert set(told) == {"dear_rule", "failing_model"}
        assert told["dear_rule"]["message"].startswith("71% of spend is on rule dear ($0.0150 for 25 calls)")
        assert told["failing_model"]["about"] == "bad"
        said = "failed 40% of its attempts (10 of 25), most often with rate_limited, and its retries cost $0.0150"
        assert said in told["failing_model"]["message"]
        assert "* 71% of spend" in cli("report", "--ledger", str(file))[1]
        assert "71% of spend" in cli("report", "--ledger", str(file), "--format", "html")[1]

    def test_say_which_rule_pays_much_for_simple_requests(self, cli: Run, file: Path) -> None:
        for complexity, cost, count in ((0.29, 300, 28), (0.3, 400, 20), (None, 360, 10)):
            told = {"complexity": complexity, "cost_micros": cost, "rule": "all", "call": f"{complexity}"}
            written(file, *({**told, "attempt": number} for number in range(1, count + 1)))
        (said,) = report(cli, file, "--by", "rule")["suggestions"]
        assert (said["code"], said["about"]) == ("dear_for_simple", "all")
        assert said["message"].startswith("42% of spend is on rule all with complexity under 0.3 ($0.0084)")

    def test_say_nothing_of_a_rule_for_simple_requests_but_that_it_is_dear(self) -> None:
        simple = Group(key="simple", attempts=100, calls=100, cost_micros=500, simple_micros=500)
        hard = Group(key="hard", attempts=100, calls=100, cost_micros=300)
        total = Group(attempts=200, calls=200, cost_micros=800)
        assert codes(sums(total=total, rules=[simple, hard])) == ["dear_rule"]
        assert codes(sums(total=simple, rules=[simple])) == ["dear_for_simple"]

    def test_are_none_where_there_is_too_little(self) -> None:
        few = Group(key="m", attempts=19, calls=19, failed=19, fallbacks=19, cost_micros=5, estimated_micros=5)
        assert codes(sums(total=few, rules=[few, Group()], models=[few])) == []
        many = Group(attempts=1000, calls=1000, cost_micros=5)
        assert codes(sums(total=many, rules=[few, Group()], models=[few])) == []

    @pytest.mark.parametrize(
        ("code", "less", "more"),
        [
            ("dear_rule", {"cost_micros": 399}, {"cost_micros": 400}),
            ("dear_for_simple", {"simple_micros": 399}, {"simple_micros": 400}),
            ("failing_model", {"failed": 19, "answered": 81}, {"failed": 20, "answered": 80}),
            ("passed_on", {"fallbacks": 19}, {"fallbacks": 20}),
            ("unsure_cost", {"estimated_micros": 99}, {"estimated_micros": 100}),
            ("unknown_price", {"unpriced": rules.FEWEST - 1}, {"unpriced": rules.FEWEST}),
            (
                "long_tail",
                {"answered": 100, "latency_s": Quantiles(1.0, 4.9)},
                {"answered": 100, "latency_s": Quantiles(1.0, 5.0)},
            ),
        ],
    )
    def test_begin_at_their_thresholds(self, code: str, less: dict[str, Any], more: dict[str, Any]) -> None:
        total = Group(attempts=200, calls=200, cost_micros=1000)
        for facts, expected in ((less, []), (more, [code])):
            group = Group(key="m", attempts=100, calls=100, **facts)
            kind = "rules" if code in ("dear_rule", "dear_for_simple", "passed_on") else "models"
            assert codes(sums(total=total, **{kind: [group, Group(key="other")]})) == expected

    def test_a_single_rule_is_no_news(self) -> None:
        all_of_it = Group(key="all", attempts=100, calls=100, cost_micros=100)
        assert codes(sums(total=all_of_it, rules=[all_of_it])) == []


class TestWithoutALedger:
    def test_a_missing_file_says_how_one_comes_to_be(self, cli: Run, tmp_path: Path) -> None:
        missing = tmp_path / "no.sqlite3"
        code, out, err = cli("report", "--ledger", str(missing))
        assert (code, out) == (3, "")
        assert f"there is no ledger at {missing}" in err
        assert "budgets" in err
        assert not missing.exists()

    def test_the_users_own_is_read_if_none_is_named(self, cli: Run, tmp_path: Path) -> None:
        code, _, err = cli("report", XDG_STATE_HOME=str(tmp_path))
        own = tmp_path / "devsynth_providers" / "ledger.sqlite3"
        assert (code, str(own) in err) == (3, True)
        written(own, {})
        assert report(cli, own)["total"] == json.loads(cli("report", "--json")[1])["total"]

    def test_one_on_a_server_is_neither_checked_nor_pruned_and_its_password_not_said(self, cli: Run) -> None:
        for command in (["ledger", "check"], ["ledger", "prune", "--before", "7d"]):
            code, out, err = cli(*command, "--ledger", f"redis://:{CANARY}@localhost/0")
            assert (code, out) == (3, "")
            assert "a ledger on a server (redis://…) can only be reported, shown and exported" in err

    def test_a_server_that_is_not_there_is_told_without_its_password(self, cli: Run) -> None:
        port = nobodys_url().rpartition(":")[2].partition("/")[0]
        for command in (["report"], ["ledger", "show"], ["ledger", "export"]):
            code, out, err = cli(*command, "--ledger", f"redis://:{CANARY}@127.0.0.1:{port}/0")
            assert (code, out) == (3, "")
            assert "can not be used" in err

    def test_failing_json_is_json(self, cli: Run, tmp_path: Path) -> None:
        code, out, _ = cli("report", "--ledger", str(tmp_path / "no"), "--format", "json")
        assert (code, json.loads(out)["error"]) == (3, "configuration")


class TestOnAServer:
    """What is told of a ledger on a server is what is told of one in a file in which the same stands."""

    @pytest.fixture
    def url(self, redis_server: RedisServer) -> Iterator[str]:
        place = redis_server.url().removesuffix("/0") + "/9"
        yield place
        with redis_server.client() as client:
            client.select(9)
            client.flushdb()

    def test_sums_entries_and_hits_are_the_same(self, cli: Run, file: Path, url: str) -> None:
        entries: list[dict[str, Any]] = [
            {"cost_micros": 300, "project": "a", "tags": ("x", "y"), "usage": Usage(30, 40, 10, 5, 6)},
            {"cost_micros": 0, "error": "rate_limited", "reason": "retry", "usage": Usage(estimated=True)},
            {"worst_micros": 5000, "settled": False, "role": "é", "complexity": 0.25},
            {"complexity": 0.1, "rule": "simple"},
            {"cost_micros": None, "worst_micros": 0, "basis": "unknown", "first_token_s": 0.25, "task": "\x00'\""},
        ]
        entries += [{"model": f"m{number % 7}", "latency_s": number / 8} for number in range(1_200)]
        for place in (file, url):
            written(place, *entries)
            hit(place, Hit("p", "m", "a", rule="all"), Hit("p", "m", "a", rule="all"), Hit("p", "m7"))
        for command in (
            *(["report", "--json", "--by", by] for by in By),
            ["report", "--json", "--since", "2027-01-15T08:00:01Z"],
            ["ledger", "show", "--json", "--limit", "2000"],
            ["ledger", "export", "--format", "jsonl"],
        ):
            in_file, on_server = (cli(*command, "--ledger", str(place)) for place in (file, url))
            assert on_server == in_file
            assert in_file[0] == 0

    def test_of_what_a_router_has_asked(self, cli: Run, url: str) -> None:
        cost = filled(url, calls=4)
        code, out, _ = cli("report", "--ledger", url, "--json")
        total = json.loads(out)["total"]
        assert (code, total["calls"], total["attempts"], total["cost_usd"]) == (0, 5, 10, cost / 1_000_000)
        code, page, _ = cli("report", "--ledger", url, "--format", "html")
        assert (code, PASSWORD in page) == (0, False)
        assert f"<p>{url.replace(f':{PASSWORD}@', '')}" in page

    def test_what_is_none_of_ours_is_told(self, cli: Run, redis_server: RedisServer, url: str) -> None:
        with redis_server.client() as client:
            client.select(9)
            client.hset("{devsynth}:entry:x:1", mapping={"state": "settled", "call": "x"})
        code, out, err = cli("report", "--ledger", url)
        assert (code, out, "is no ledger of this version" in err) == (3, "", True)


def test_no_prompt_answer_or_error_message_is_in_any_format(cli: Run, file: Path, tmp_path: Path) -> None:
    filled(file)
    assert CANARY.encode() not in b"".join(each.read_bytes() for each in tmp_path.iterdir())
    for form in ("table", "csv", "json", "html"):
        assert CANARY not in cli("report", "--ledger", str(file), "--format", form)[1]


async def test_as_a_command_it_reads_what_another_process_goes_on_writing(file: Path) -> None:
    ledger = SqliteLedger(file)
    await ledger.reserve(Entry(call="c", attempt=1, provider="p", model="m", worst_micros=5000, lease_s=60))
    done = await asyncio.to_thread(as_command, "report", "--ledger", str(file), "--by", "model", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["total"]["reserved_usd"] == 0.005
    assert await ledger.settle("c", 1, Outcome(cost_micros=1, basis="computed"))
    await ledger.aclose()
