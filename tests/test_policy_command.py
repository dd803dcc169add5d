"""``devsynth-providers policy``: what each command prints, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from devsynth_providers import DecisionLog, Router
from devsynth_providers.policy.file import load_policy, packaged_names
from devsynth_providers.policy.schema import policy_schema
from devsynth_providers.testing import ScriptedProvider

from .command import Run
from .helpers import PRICED, model, policy

GOOD = """\
models:
  a: {provider: stub, price: {input_usd_per_1m: 10, output_usd_per_1m: 30}}
  b: {provider: stub, price: free, quality: 0.2}
rules:
  - {name: reviews, when: {task: review}, models: a}
  - {name: rest, models: b}
tests:
  - {prompt: hi, expect: {rule: rest, first: b}}
  - {prompt: hi, task: review, expect: {rule: reviews, models: a}}
"""
OTHER = GOOD.replace("task: review}, models: a", "task: review}, models: b")


@pytest.fixture
def good(tmp_path: Path) -> str:
    return put(tmp_path / "good.yaml", GOOD)


@pytest.fixture
def other(tmp_path: Path) -> str:
    return put(tmp_path / "other.yaml", OTHER)


def put(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


class TestCheck:
    def test_what_does_nothing_is_a_warning_and_strictly_a_mistake(self, cli: Run, tmp_path: Path) -> None:
        unused = put(tmp_path / "p.yaml", GOOD.replace("rules:", "  c: {provider: stub}\nrules:"))
        code, out, told = cli("policy", "check", unused)
        assert (code, out) == (0, f"{unused}: right; 3 models, 2 rules\n")
        assert told == f"{unused}:4:6: warning: no rule asks 'c'\n"
        assert cli("policy", "check", "--strict", unused)[0] == 3
        report = json.loads(cli("policy", "check", "--json", unused)[1])
        assert (report["ok"], report["problems"]) == (True, [])
        assert report["warnings"][0]["message"] == "no rule asks 'c'"

    @pytest.mark.parametrize("name", packaged_names())
    def test_the_packaged_ones_are_right_and_leave_nothing_to_warn_of(self, cli: Run, name: str) -> None:
        code, _, told = cli("policy", "check", "--strict", name)
        assert (code, told) == (0, "")


class TestTest:
    def test_every_packaged_policy_has_tests_and_they_pass(self, cli: Run) -> None:
        code, out, _ = cli("policy", "test")
        assert code == 0
        assert all(f"{name}: " in out for name in packaged_names())
        assert "no tests" not in out

    def test_a_test_that_fails_says_what_is_decided_in_its_place(self, cli: Run, tmp_path: Path) -> None:
        wrong = put(tmp_path / "p.yaml", GOOD.replace("rule: rest, first: b", "rule: reviews, first: a, rejected: b"))
        code, out, _ = cli("policy", "test", wrong)
        assert code == 3
        assert out.splitlines() == [
            f"{wrong}: test 1, 'hi':",
            "    expected rule reviews, but rest decides (complexity 0.04)",
            "    expected a first, but it is b",
            "    expected b not to be asked, but it is number 1",
            f"{wrong}: 1 of 2 tests failed",
        ]

    def test_an_error_can_be_expected_and_another_one_is_told(self, cli: Run, tmp_path: Path) -> None:
        asked = "{prompt: hi, min_quality: 0.9, expect: {fails: NoModelFits}}"
        good = put(tmp_path / "p.yaml", f"{GOOD}  - {asked}\n")
        assert cli("policy", "test", good)[0] == 0
        bad = put(tmp_path / "q.yaml", f"{GOOD}  - {asked.replace('NoModelFits', 'AccessDenied')}\n")
        code, out, _ = cli("policy", "test", bad)
        assert code == 3
        assert "    NoModelFits: no model of rule 'rest'" in out

    def test_programs_get_them_as_json(self, cli: Run, good: str) -> None:
        report = json.loads(cli("policy", "test", "--json", good)[1])
        assert report["ok"] is True
        assert [(each["number"], each["passed"], each["rule"]) for each in report["tests"]] == [
            (1, True, "rest"),
            (2, True, "reviews"),
        ]

    def test_a_wrong_policy_is_told_as_such(self, cli: Run, tmp_path: Path) -> None:
        code, _, told = cli("policy", "test", put(tmp_path / "p.yaml", "models: {}\nrules: []"))
        assert code == 3
        assert "p.yaml:2:8: rules should have at least 1 item" in told


class TestListShowSchema:
    def test_the_list_says_what_each_is_for(self, cli: Run) -> None:
        code, out, _ = cli("policy", "list")
        assert code == 0
        assert out.splitlines()[1].startswith("balanced     The model follows the work")
        report = json.loads(cli("policy", "list", "--json")[1])
        assert [each["name"] for each in report["policies"]] == packaged_names()

    def test_what_is_shown_is_the_same_policy_with_nothing_left_to_look_up(self, cli: Run, tmp_path: Path) -> None:
        code, out, _ = cli("policy", "show", "devsynth")
        assert code == 0
        said = yaml.safe_load(out)
        assert "extends" not in said
        assert len(said["rules"]) == 9
        again = load_policy(put(tmp_path / "again.yaml", out))
        assert again.rules == load_policy("devsynth").rules

    def test_the_schema_is_the_one_that_editors_get(self, cli: Run) -> None:
        assert json.loads(cli("policy", "schema")[1]) == policy_schema()


def test_explain_is_here_too_and_takes_all_that_rules_look_at(cli: Run) -> None:
    asked = ("policy", "explain", "Write a parser", "--policy", "devsynth", "--task", "code-generation")
    _, out, _ = cli(*asked, "--json", DEVSYNTH_OFFLINE="1")
    assert json.loads(out)["rule"] == "code"
    code, _, told = cli(*asked, "--role", "intern", DEVSYNTH_OFFLINE="1")
    assert code == 4
    assert "claude-sonnet-5-5: the caller's role may not ask it (access_denied)" in told


class TestDiff:
    def test_prompts_are_decided_by_both(self, cli: Run, good: str, other: str) -> None:
        code, out, _ = cli("policy", "diff", good, other, "hi")
        assert (code, out) == (0, "0 of 1 request decided otherwise\n")

    async def test_or_the_requests_of_a_log(self, cli: Run, good: str, other: str, tmp_path: Path) -> None:
        log = await logged(tmp_path / "log.jsonl")
        code, out, _ = cli("policy", "diff", good, other, "--log", log)
        assert code == 0
        assert out.startswith("3 of 9 requests decided otherwise")
        report = json.loads(cli("policy", "diff", good, other, "--log", log, "--json")[1])
        assert len(report["changes"]) == 3

    def test_of_one_of_them_there_must_be_something(self, cli: Run, good: str, other: str) -> None:
        assert cli("policy", "diff", good, other)[0] == 2
        code, _, told = cli("policy", "diff", good, other, "--log", "no-such-file")
        assert code == 3
        assert "no-such-file can not be read: No such file or directory" in told


class TestReplay:
    async def test_it_says_what_would_have_moved_and_draws_it(
        self, cli: Run, good: str, other: str, tmp_path: Path
    ) -> None:
        log, picture = await logged(tmp_path / "log.jsonl"), tmp_path / "moved.svg"
        asked = ("policy", "replay", log, "--old", good, "--new", other)
        code, out, _ = cli(*asked, "--picture", str(picture))
        assert code == 0
        assert "mean cost" in out
        assert picture.read_text("utf-8").startswith("<svg")
        assert json.loads(cli(*asked, "--json")[1])["requests"] == 9

    def test_a_file_without_decisions_is_no_log(self, cli: Run, good: str, tmp_path: Path) -> None:
        log = put(tmp_path / "log.jsonl", "no json\n")
        code, _, told = cli("policy", "replay", log, "--old", good, "--new", good)
        assert code == 3
        assert "has no decision in it: 1 " in told


async def logged(path: Path) -> str:
    """A log of nine requests, a third of them reviews, by models of the names that the policies use."""
    models = model("a", price=PRICED, provider="stub"), model("b", provider="stub")
    lines = {"a": ScriptedProvider(*["yes"] * 9), "b": ScriptedProvider(*["no"] * 9)}
    with DecisionLog(path) as log:
        router = Router(policy(*models), lines, decisions=log)
        for number in range(9):
            await router.complete("hi", task="review" if number % 3 == 0 else None)
    return str(path)
