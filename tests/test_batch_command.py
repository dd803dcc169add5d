"""``batch``: every line is answered once, whatever ends the command in the midst of it, and paid once."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .command import Run
from .loopback import Answer, Loopback, failure, vectors, whole

fcntl = pytest.importorskip("fcntl")

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def batch(cli: Run, folder: Path) -> Ask:
    """``batch in.jsonl out.jsonl`` in this process, by the policy that asks nobody."""
    return lambda *more, policy="ci": cli("batch", "in.jsonl", "out.jsonl", "--policy", policy, *more)


@pytest.fixture
def served(server: Loopback, folder: Path) -> str:
    """A policy with one model, on loopback."""
    (folder / "policy.yaml").write_text(
        f"""
models:
  m: {{provider: openai, base_url: "{server.url}", context_window: 8000, abilities: [chat, embeddings],
      price: {{input_usd_per_1m: 10, output_usd_per_1m: 30}}}}
rules: [{{name: all, models: m}}]
timeouts: {{first_token_s: 60, total_s: 60}}
retry: {{attempts: 1}}
""",
    )
    return "policy.yaml"


def ask(*lines: dict[str, Any] | str) -> None:
    """Write *lines* into the file of questions."""
    Path("in.jsonl").write_text(
        "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines), encoding="utf-8"
    )


def prompts(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"p{number}"} for number in range(1, count + 1)]


def records() -> list[dict[str, Any]]:
    """The lines of the file of answers that are there whole."""
    text = Path("out.jsonl").read_text(encoding="utf-8") if Path("out.jsonl").exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def asked(server: Loopback) -> list[str]:
    """The prompts, and the texts to embed."""
    return [text for body in server.requests for text in body.get("input") or [body["messages"][-1]["content"]]]


def echo(body: dict[str, Any]) -> Answer:
    if "input" in body:
        return vectors(*([float(len(text)), 1.0] for text in body["input"]))
    return whole(f"re {body['messages'][-1]['content']}")


def command(*arguments: str) -> list[str]:
    program = [sys.executable, "-c", "from devsynth_providers.cli import main; main()"]
    return [*program, "batch", "in.jsonl", "out.jsonl", *arguments]


def wait_for(what: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert process.poll() is None, "it has ended before"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.loads_litellm
class TestWhatIsWritten:
    def test_an_answer_says_whose_it_is_and_all_there_is(self, batch: Ask) -> None:
        ask(
            {"id": {"row": 7}, "prompt": "h\u00e9llo", "system_prompt": "Be brief.", "max_tokens": 60},
            "",
            '{"prompt": "b"}',
        )
        assert batch() == (0, "2 of 2 lines answered, 0 failed, $0.00\n", "")
        first, second = sorted(records(), key=lambda each: int(each["line"]))
        assert (first["line"], first["id"], first["text"]) == (
            1,
            {"row": 7},
            "[sys:Be brief.] [stub:stub-llm] h\u00e9llo",
        )
        assert (first["model"], first["provider"], first["finish_reason"]) == ("stub", "stub", "stop")
        assert (first["cost_usd"], first["cost_basis"], first["attempts"]) == (0, "free", 1)
        assert first["usage"]["output_tokens"] > 0
        assert (second["line"], second["id"], second["text"]) == (3, None, "[stub:stub-llm] b")

    def test_messages_and_options_reach_the_model(self, batch: Ask, served: str, server: Loopback) -> None:
        ask({"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "seed": 3, "extra_body": {"x": 1}})
        assert batch(policy=served)[0] == 0
        (request,) = server.requests
        assert (request["messages"], request["temperature"]) == ([{"role": "user", "content": "hi"}], 0)
        assert (request["seed"], request["x"]) == (3, 1)

    def test_tools_that_are_called_are_told(self, batch: Ask, served: str, server: Loopback) -> None:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        server.script(whole(None, finish="tool_calls", message={"tool_calls": [call]}))
        ask({"prompt": "hi"})
        assert batch(policy=served)[0] == 0
        assert records()[0]["tool_calls"] == [{"id": "1", "name": "f", "arguments": "{}"}]

    def test_one_that_failed_says_why_and_what_it_cost_and_the_others_go_on(
        self, batch: Ask, served: str, server: Loopback
    ) -> None:
        server.script(lambda body: failure(400, "no") if body["messages"][-1]["content"] == "p2" else echo(body))
        ask(*prompts(3))
        code, out, _ = batch(policy=served)
        assert (code, out) == (5, "2 of 3 lines answered, 1 failed (1 rejected), $0.00026\n")
        (failed,) = [each for each in records() if "error" in each]
        assert (failed["line"], failed["error"], failed["attempts"], failed["cost_usd"]) == (2, "rejected", 1, 0)
        assert "HTTP 400" in failed["message"]

    def test_where_no_model_fits_the_exit_code_is_4(self, batch: Ask, served: str, server: Loopback) -> None:
        ask({"prompt": "a", "max_cost_usd": 0}, {"prompt": "b"})
        code, out, _ = batch(policy=served)
        assert (code, len(server.requests)) == (4, 1)
        assert "1 failed (1 no_model_fits)" in out
        assert {each.get("error") for each in records()} == {"no_model_fits", None}

    def test_json_is_one_object_for_programs(self, batch: Ask) -> None:
        ask(*prompts(3))
        told = {"lines": 3, "answered": 3, "failed": 0, "failures": {}, "asked": 3, "cost_usd": 0, "unpriced": 0}
        code, out, err = batch("--json")
        assert (code, json.loads(out), err) == (0, told, "")

    def test_a_lone_surrogate_in_what_is_the_users_is_kept(self, batch: Ask) -> None:
        ask('{"prompt": "a", "id": "\\ud800"}')
        assert batch()[0] == 0
        assert records()[0]["id"] == "\ud800"

    def test_a_bug_that_one_line_meets_does_not_end_the_others(
        self, batch: Ask, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "buggy.py").write_text(
            "from devsynth_providers.testing import EchoProvider\n"
            "class Buggy(EchoProvider):\n"
            "    async def send(self, request):\n"
            "        return 1 / 0 if 'p2' in request.text else await super().send(request)\n"
        )
        (folder / "policy.yaml").write_text(
            "models: {m: {provider: 'buggy:Buggy', price: free}}\nrules: [{name: all, models: m}]\n"
        )
        monkeypatch.syspath_prepend(str(folder))
        ask(*prompts(3))
        code, out, _ = batch(policy="policy.yaml")
        assert (code, out) == (1, "2 of 3 lines answered, 1 failed (1 bug), $0.00 and 1 answer of unknown cost\n")
        assert [each["message"] for each in records() if "error" in each] == ["ZeroDivisionError: division by zero"]


def refuse_long_texts(body: dict[str, Any]) -> Answer:
    return failure(400, "too long") if any(len(text) > 5 for text in body["input"]) else echo(body)


@pytest.mark.loads_litellm
class TestTextsToEmbed:
    def test_a_line_may_have_one_or_many_beside_lines_that_ask(self, batch: Ask, served: str, server: Loopback) -> None:
        server.script(echo)
        ask({"embed": "abc", "id": 7, "project": "p", "tags": ["x"]}, {"prompt": "hi"}, {"embed": ["a", "bb", "a"]})
        code, out, _ = batch(policy=served)
        assert (code, out) == (0, "3 of 3 lines answered, 0 failed, $0.00023\n")
        one, text, many = sorted(records(), key=lambda each: int(each["line"]))
        assert (one["id"], one["vectors"], "text" in one) == (7, [[3, 1]], False)
        assert (one["model"], one["provider"], one["usage"]["input_tokens"]) == ("m", "openai", 5)
        assert (one["cost_usd"], one["attempts"], one["cached"]) == (0.00005, 1, False)
        assert (text["text"], "vectors" in text) == ("re hi", False)
        assert many["vectors"] == [[1, 1], [2, 1], [1, 1]]

    def test_where_some_fail_the_line_says_which_and_has_the_vectors_of_the_others(
        self, batch: Ask, served: str, server: Loopback
    ) -> None:
        server.script(refuse_long_texts)
        ask({"embed": ["a", "much too long", "bb"]}, {"embed": "longer"}, {"embed": ["a", "b"]})
        code, out, _ = batch(policy=served)
        assert code == 5
        assert out.startswith("1 of 3 lines answered, 2 failed (2 rejected), $")
        part, none, _ = sorted(records(), key=lambda each: int(each["line"]))
        assert (part["error"], part["message"][:13]) == ("rejected", "text 2 of 3: ")
        assert part["vectors"] == [[1, 1], None, [2, 1]]
        assert {place: each["error"] for place, each in part["failures"].items()} == {"1": "rejected"}
        assert "too long" in part["failures"]["1"]["message"]
        assert (none["error"], "vectors" in none, "failures" in none) == ("rejected", False, False)
        assert part["attempts"] == 5

    def test_a_line_that_failed_in_part_is_asked_whole_again_if_told(
        self, batch: Ask, served: str, server: Loopback
    ) -> None:
        server.script(refuse_long_texts)
        ask({"embed": ["a", "much too long"]}, {"embed": "b"})
        batch(policy=served)
        server.script(echo)
        before = len(server.requests)
        assert batch(policy=served)[0] == 5
        assert len(server.requests) == before
        assert batch("--retry-failed", policy=served)[0] == 0
        assert asked(server)[-2:] == ["a", "much too long"]
        assert records()[-1]["vectors"] == [[1, 1], [13, 1]]
        assert json.loads(batch("--json", "--retry-failed", policy=served)[1])["asked"] == 0

    def test_a_line_whose_texts_have_changed_is_told(self, batch: Ask) -> None:
        ask({"embed": ["a", "b"]})
        batch()
        ask({"embed": ["a", "c"]})
        assert batch()[2].startswith("error: in.jsonl:1: this line has changed since it was asked; ")


class TestMistakes:
    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("{", "not JSON: Expecting property name enclosed in double quotes, at character 2"),
            ("[1]", "a line is a JSON object, with prompt or messages, or with embed"),
            ("[" * 100_000, "it is nested too deeply"),
            ("{}", "a request needs a prompt or messages"),
            ('{"prompt": ""}', "the prompt is empty"),
            ('{"prompt": 7}', "a message's content must be text, not int"),
            ('{"prompt": "a", "max_token": 7}', "unknown key 'max_token'; did you mean 'max_tokens'?"),
            ('{"prompt": "a", "stream": true}', "unknown key 'stream'; what is yours goes into id"),
            ('{"prompt": "a", "temperature": 9}', "temperature must be between 0 and 2, not 9"),
            ('{"prompt": "a", "temperature": NaN}', "NaN is no number of JSON"),
            ('{"prompt": "a", "id": 1e999}', "1e999 is no number of JSON"),
            ('{"prompt": "a", "id": ' + "1" * 5000 + "}", "a number has too many digits"),
            ('{"prompt": "a", "prompt": "b"}', "a key stands there twice"),
            ('{"embed": []}', "there is nothing to embed: give at least one text"),
            ('{"embed": ["a", ""]}', "an empty text has no embedding"),
            ('{"embed": ["a", 1]}', "a text to embed must be text, not int"),
            ('{"embed": {"a": 1}}', "embed is a text, or a list of texts, not dict"),
            ('{"embed": null}', "embed is a text, or a list of texts, not NoneType"),
            ('{"embde": "a"}', "unknown key 'embde'; did you mean 'embed'?"),
            ('{"embed": "a", "prompt": "b"}', "'prompt' says nothing beside 'embed'; a line either asks or embeds"),
            ('{"embed": "a", "temperature": 0}', "'temperature' says nothing beside 'embed'"),
            ('{"embed": "a", "max_cost": 1}', "unknown key 'max_cost'; did you mean 'max_cost_usd'?"),
            ('{"embed": "a", "xyz": 1}', "unknown key 'xyz'; what is yours goes into id"),
            ('{"embed": "a", "project": 7}', "project must be text, not 7"),
            ('{"embed": "a", "tags": 7}', "this can not be asked: TypeError"),
            ('{"messages": 5}', "this can not be asked: TypeError"),
            ('{"messages": [{"role": "user", "content": "a", "tool_calls": [{}]}]}', "this can not be asked: KeyError"),
        ],
    )
    def test_one_is_told_with_its_line_before_anybody_is_asked(self, batch: Ask, line: str, said: str) -> None:
        ask({"prompt": "a"}, line)
        code, out, err = batch()
        assert (code, out, Path("out.jsonl").exists()) == (2, "", False)
        assert err.startswith(f"error: in.jsonl:2: {said}")

    def test_input_that_is_not_utf_8_is_one(self, batch: Ask) -> None:
        Path("in.jsonl").write_bytes(b'{"prompt": "h\xe9llo"}\n')
        assert batch() == (2, "", "error: in.jsonl:1: not UTF-8: byte 14 of the line\n")

    def test_all_are_told_and_of_very_many_the_first(self, batch: Ask) -> None:
        ask({"prompt": "a"}, "x", "y", *["z"] * 20)
        _, _, err = batch()
        assert [line.split(" ")[1] for line in err.splitlines()[:1]] == ["in.jsonl:2:"]
        assert err.splitlines()[1].startswith("in.jsonl:3: ")
        assert err.splitlines()[10:] == ["and 12 lines more"]

    def test_a_byte_order_mark_and_the_line_ends_of_windows_are_none(self, batch: Ask) -> None:
        Path("in.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n{"prompt": "b"}')
        assert batch()[:2] == (0, "2 of 2 lines answered, 0 failed, $0.00\n")

    def test_a_file_that_is_not_there_or_no_file(self, batch: Ask, cli: Run, folder: Path) -> None:
        done = subprocess.run(command("--policy", "ci"), capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (3, "", "error: in.jsonl: No such file or directory\n")
        asked = command("--policy", "ci", "--json")
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
        told = {"error": "system", "message": "in.jsonl: No such file or directory", "attempts": []}
        assert (done.returncode, json.loads(done.stdout)) == (3, told)
        ask({"prompt": "a"})
        code, _, err = cli("batch", "/dev/stdin", "out.jsonl", "--policy", "ci")
        assert (code, "they have to be in a file" in err) == (2, True)
        code, _, err = cli("batch", "in.jsonl", "/dev/null", "--policy", "ci")
        assert (code, "it has to be in a file" in err) == (2, True)
        code, _, err = cli("batch", "in.jsonl", "in.jsonl", "--policy", "ci")
        assert (code, "the questions stand there" in err) == (2, True)
        code, _, err = cli("batch", "in.jsonl", "out.jsonl", "--policy", "nope.yaml")
        assert (code, Path("out.jsonl").exists()) == (3, False)

    @pytest.mark.parametrize("text", ["mine\n", "mine", '{"line": 1}\n', '{"a": 1}'])
    def test_a_file_that_is_somebody_elses_is_left_as_it_is(self, batch: Ask, text: str) -> None:
        ask({"prompt": "a"})
        Path("out.jsonl").write_text(text)
        assert batch() == (2, "", "error: out.jsonl:1: this is no line that a batch has written\n")
        assert Path("out.jsonl").read_text() == text

    def test_as_json_they_are_an_object(self, batch: Ask) -> None:
        ask("x")
        code, out, _ = batch("--json")
        assert (code, json.loads(out)["error"]) == (2, "invalid_request")


@pytest.mark.loads_litellm
class TestSpending:
    @pytest.mark.parametrize("by", ["option", "policy"])
    def test_a_command_is_one_run_and_what_it_can_not_pay_is_asked_by_another(
        self, batch: Ask, served: str, server: Loopback, by: str
    ) -> None:
        """A line costs $0.00013, and could cost $0.03."""
        server.script(echo)
        options = ["--at-once", "1", *(["--budget-usd", "0.0302"] if by == "option" else [])]
        if by == "policy":
            with Path(served).open("a", encoding="utf-8") as file:
                file.write("budgets: [{scope: run, limit_usd: 0.0302}]\n")
        ask(*({**each, "max_tokens": 1000} for each in prompts(5)))
        told = "2 of 5 lines answered, 3 failed (3 budget_exceeded), $0.00026\n"
        assert batch(*options, policy=served) == (4, told, "")
        assert [each.get("error") for each in records()] == [None, None, *["budget_exceeded"] * 3]
        assert batch(*options, "--retry-failed", policy=served)[0] == 4
        assert batch(*options, "--retry-failed", policy=served)[0] == 0
        assert asked(server) == [f"p{number}" for number in range(1, 6)]


class TestGoingOn:
    @pytest.mark.loads_litellm
    def test_what_is_answered_is_not_asked_again(self, batch: Ask, served: str, server: Loopback) -> None:
        server.script(echo)
        ask(*prompts(3))
        batch(policy=served)
        ask(*prompts(5))
        code, out, _ = batch("--json", policy=served)
        told = json.loads(out)
        assert (code, told["asked"], told["answered"], told["cost_usd"]) == (0, 2, 5, 5 * 0.00013)
        assert sorted(asked(server)) == ["p1", "p2", "p3", "p4", "p5"]
        assert sorted((each["line"], each["text"]) for each in records()) == [(n, f"re p{n}") for n in range(1, 6)]

    @pytest.mark.loads_litellm
    def test_what_failed_is_asked_again_if_told(self, batch: Ask, served: str, server: Loopback) -> None:
        server.script(lambda body: failure(400, "no") if body["messages"][-1]["content"] == "p2" else echo(body))
        ask(*prompts(3))
        batch(policy=served)
        server.script(echo)
        code, out, _ = batch(policy=served)
        assert (code, len(server.requests)) == (5, 3)
        assert "1 failed (1 rejected)" in out
        code, out, _ = batch("--retry-failed", policy=served)
        assert (code, out) == (0, "3 of 3 lines answered, 0 failed, $0.00039\n")
        assert asked(server)[3:] == ["p2"]
        assert batch("--retry-failed", policy=served)[0] == 0
        assert len(server.requests) == 4

    @pytest.mark.parametrize("cut", [1, 9, 60, -2])
    def test_a_torn_last_line_is_cut_off_and_asked_again(self, batch: Ask, cut: int) -> None:
        ask(*prompts(2))
        batch("--at-once", "1")
        lines = Path("out.jsonl").read_text().splitlines(keepends=True)
        Path("out.jsonl").write_text(lines[0] + lines[1][:cut])
        assert json.loads(batch("--json")[1])["asked"] == 1
        assert [each["line"] for each in records()] == [1, 2]

    @pytest.mark.parametrize("cut", [0, 1, 9, 60])
    def test_so_is_one_that_is_the_first(self, batch: Ask, cut: int) -> None:
        ask(*prompts(1))
        batch()
        Path("out.jsonl").write_text(Path("out.jsonl").read_text()[:cut])
        assert json.loads(batch("--json")[1])["asked"] == 1
        assert [each["line"] for each in records()] == [1]

    def test_one_that_lacks_only_its_end_is_whole(self, batch: Ask) -> None:
        ask(*prompts(2))
        batch()
        whole_file = Path("out.jsonl").read_text()
        Path("out.jsonl").write_text(whole_file[:-1])
        assert json.loads(batch("--json")[1])["asked"] == 0
        assert Path("out.jsonl").read_text() == whole_file

    def test_a_line_that_has_changed_is_told_and_asked_again_only_if_told(self, batch: Ask) -> None:
        ask(*prompts(3))
        batch()
        before = Path("out.jsonl").read_text()
        ask({"prompt": "p1"}, {"prompt": "other"}, {"prompt": "p3"})
        code, out, err = batch()
        assert (code, out, Path("out.jsonl").read_text()) == (2, "", before)
        assert err.startswith("error: in.jsonl:2: this line has changed since it was asked; ")
        assert json.loads(batch("--ask-changed", "--json")[1])["asked"] == 1
        assert [(each["line"], each["text"]) for each in records()[3:]] == [(2, "[stub:stub-llm] other")]
        assert json.loads(batch("--json")[1])["asked"] == 0

    def test_so_is_one_that_is_gone(self, batch: Ask) -> None:
        ask(*prompts(3))
        batch()
        ask(*prompts(2))
        assert batch()[2].startswith("error: in.jsonl: lines that were asked are not there any more; ")
        assert json.loads(batch("--ask-changed", "--json")[1])["asked"] == 0

    @pytest.mark.parametrize(
        ("second", "said", "again"),
        [
            ('{"prompt": "other"}', "2 of 3 lines answered, 0 failed, $0.00\n", 1),
            ("{", "error: in.jsonl:2: not JSON", 0),
        ],
    )
    def test_a_file_that_is_written_while_it_is_asked_is_not_taken_for_answered(
        self, batch: Ask, folder: Path, monkeypatch: pytest.MonkeyPatch, second: str, said: str, again: int
    ) -> None:
        (folder / "meddling.py").write_text(
            "from pathlib import Path\n"
            "from devsynth_providers.testing import EchoProvider\n"
            "class Meddling(EchoProvider):\n"
            "    async def warm_up(self):\n"
            "        Path('in.jsonl').write_text(Path('new.jsonl').read_text())\n"
        )
        (folder / "policy.yaml").write_text(
            "models: {m: {provider: 'meddling:Meddling', price: free}}\nrules: [{name: all, models: m}]\n"
        )
        monkeypatch.syspath_prepend(str(folder))
        ask({"prompt": "p1"}, second, {"prompt": "p3"}, {"prompt": "added"})
        Path("in.jsonl").rename("new.jsonl")
        ask(*prompts(3))
        code, out, err = batch(policy="policy.yaml")
        assert (code, (out + err).startswith(said)) == (2, True)
        if again:
            told = json.loads(batch("--json", policy="policy.yaml")[1])
            assert (told["asked"], told["answered"]) == (again, 4)

    def test_two_do_not_write_one_file(self, batch: Ask) -> None:
        ask(*prompts(1))
        with Path("out.jsonl").open("ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert batch() == (3, "", "error: out.jsonl: another process writes it at this moment\n")
        assert batch()[0] == 0


QUICK = 25

FAR = f"""
import asyncio
from devsynth_providers.testing import EchoProvider

class Far(EchoProvider):
    left = {QUICK}

    async def send(self, request):
        self.left -= 1
        if self.left < 0:
            print("waits", flush=True)
            await asyncio.sleep(3600)
        return await super().send(request)
"""
"""A provider that answers a few, and lets the others wait."""


class TestEndingInTheMidst:
    @pytest.mark.loads_litellm
    def test_killed_it_goes_on_and_asks_nothing_twice_that_was_answered(
        self, served: str, server: Loopback, folder: Path
    ) -> None:
        lines = [{"embed": f"p{n}"} if n % 2 else {"prompt": f"p{n}"} for n in range(1, 101)]
        ask(*lines)
        line = command("--policy", served, "--at-once", "4")
        left = iter(range(QUICK))
        server.script(lambda body: echo(body) if next(left, None) is not None else Answer([b"{"], then="hang"))
        process = subprocess.Popen(line)
        wait_for(lambda: len(records()) == QUICK and len(server.requests) == QUICK + 4, process)
        process.kill()
        process.wait()
        answered = {f"p{each['line']}" for each in records()}
        with Path("out.jsonl").open("a") as file:
            file.write('{"line": 100, "id": nu')
        server.script(echo)
        done = subprocess.run(line, capture_output=True, text=True, timeout=90, check=False)
        assert (done.returncode, done.stdout) == (0, "100 of 100 lines answered, 0 failed, $0.009\n"), done.stderr
        times = Counter(asked(server))
        assert (len(answered), {times[prompt] for prompt in answered}) == (QUICK, {1})
        assert Counter(times.values()) == {1: 96, 2: 4}  # what was under way at the kill
        told = {each["line"]: each.get("text", each.get("vectors")) for each in records()}
        assert told == {n: [[len(f"p{n}"), 1]] if n % 2 else f"re p{n}" for n in range(1, 101)}
        assert len(records()) == 100

    @pytest.mark.parametrize("as_json", [False, True])
    def test_interrupted_it_ends_cleanly_and_says_how_to_go_on(self, folder: Path, as_json: bool) -> None:
        (folder / "far.py").write_text(FAR)
        (folder / "policy.yaml").write_text(
            "models: {m: {provider: 'far:Far', price: free}}\nrules: [{name: all, models: m}]\n"
        )
        ask(*prompts(100))
        process = subprocess.Popen(
            command("--policy", "policy.yaml", "--at-once", "4", *["--json"] * as_json),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(4)] == ["waits\n"] * 4
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, len(records())) == (130, QUICK)
        if as_json:
            assert (json.loads(out)["error"], err) == ("interrupted", "")
        else:
            told = "interrupted: 25 of 100 lines answered, 0 failed, $0.00; the same command goes on from there\n"
            assert (out, err) == ("", told)

    def test_a_disk_that_is_full_leaves_whole_lines(self, folder: Path) -> None:
        ask(*({"prompt": f"{number} {'long ' * 20_000}", "max_tokens": 50_000} for number in range(50)))
        limited = f"ulimit -f 2000; trap '' XFSZ; {' '.join(map(repr, command('--policy', 'ci')))}"
        done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == "error: out.jsonl: File too large\n"
        assert 0 < len(records()) < 50
        assert Path("out.jsonl").read_text().endswith("}\n")


class TestProgress:
    def test_a_terminal_sees_how_far_it_is(self, folder: Path) -> None:
        ask(*prompts(3))
        master, terminal = pty.openpty()
        with os.fdopen(master, "rb", buffering=0) as screen:
            process = subprocess.Popen(
                command("--policy", "ci"), stdout=subprocess.PIPE, stderr=terminal, env={**os.environ, "TERM": "xterm"}
            )
            os.close(terminal)
            seen = b""
            try:
                while more := screen.read(65536):
                    seen += more
            except OSError:  # how a terminal says that nobody writes any more
                pass
            out, _ = process.communicate(timeout=60)
        assert out == b"3 of 3 lines answered, 0 failed, $0.00\n"
        assert b"of 3 lines answered" in seen

    def test_a_pipe_sees_nothing(self, folder: Path) -> None:
        ask(*prompts(3))
        done = subprocess.run(command("--policy", "ci"), capture_output=True, text=True, timeout=60, check=False)
        assert done.stderr == ""
