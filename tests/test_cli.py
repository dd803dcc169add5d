"""The command line: what it prints where, what its exit codes say, and that no traceback comes out of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .command import Run
from .loopback import Answer, Loopback, delta, failure, sse, stream

ROOT = Path(__file__).parent.parent


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    assert "Traceback" not in done.stderr
    return done


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from devsynth_providers.cli import main; main()", *arguments]


@pytest.fixture
def served(server: Loopback, tmp_path: Path) -> str:
    """A policy with one model, on loopback."""
    return policy_file(
        tmp_path,
        f"""
models:
  m: {{provider: openai, base_url: "{server.url}", context_window: 8000, abilities: [chat],
      price: {{input_usd_per_1m: 10, output_usd_per_1m: 30}}}}
rules: [{{name: all, models: m}}]
timeouts: {{first_token_s: 10, total_s: 20}}
retry: {{attempts: 1}}
""",
    )


def policy_file(folder: Path, text: str) -> str:
    path = folder / "policy.yaml"
    path.write_text(text)
    return str(path)


class TestAsk:
    def test_the_answer_goes_to_output_and_what_it_took_aside(self, served: str) -> None:
        done = run("ask", "hi", "--policy", served)
        assert (done.returncode, done.stdout) == (0, "w0 w1 w2\n")
        assert "rule 'all' of policy 'policy'" in done.stderr
        assert "m (openai): 4 tokens in, 3 out, $0.000130 (computed)" in done.stderr

    def test_quiet_is_the_answer_only(self, served: str) -> None:
        done = run("ask", "hi", "--policy", served, "--quiet")
        assert (done.stdout, done.stderr) == ("w0 w1 w2\n", "")

    def test_json_is_one_object_with_all_there_is(self, served: str) -> None:
        done = run("ask", "hi", "--policy", served, "--json", "--task", "review")
        answer = json.loads(done.stdout)
        assert (answer["text"], answer["model"], answer["rule"]) == ("w0 w1 w2", "m", "all")
        assert answer["cost_usd"] == 0.00013
        assert answer["attempts"][0]["number"] == 1
        assert done.stderr == ""

    def test_where_another_model_goes_on_is_told_aside(self, cli: Run, server: Loopback, tmp_path: Path) -> None:
        facts = f'provider: openai, base_url: "{server.url}", context_window: 8000, price: free'
        rule = "{name: all, models: [a, b], on_break: continue}"
        path = policy_file(tmp_path, f"models:\n  a: {{{facts}}}\n  b: {{{facts}}}\nrules: [{rule}]\n")
        answers = (sse(delta("half an ")), stream("answer"))
        server.script(*answers)
        _, out, err = cli("ask", "hi", "--policy", path)
        assert (out, "[it broke off; b goes on]" in err) == ("half an answer\n", True)
        server.script(*answers)
        _, out, err = cli("ask", "hi", "--policy", path, "--json")
        assert (json.loads(out)["continued_by"], err) == (["b"], "")

    def test_the_prompt_can_come_on_standard_input(self, served: str, server: Loopback) -> None:
        for arguments in ((), ("-",)):
            assert run("ask", *arguments, "--policy", served, stdin="from a pipe\n").returncode == 0
        assert [request["messages"][0]["content"] for request in server.requests] == ["from a pipe"] * 2

    def test_options_reach_the_model(self, served: str, server: Loopback) -> None:
        run("ask", "hi", "--policy", served, "--system", "Be brief.", "--max-tokens", "7", "--temperature", "0")
        (request,) = server.requests
        assert request["messages"][0] == {"role": "system", "content": "Be brief."}
        assert (request["max_tokens"], request["temperature"]) == (7, 0)

    def test_the_trace_can_be_looked_at(self, served: str) -> None:
        done = run("ask", "hi", "--policy", served, "--trace")
        assert "chat policy  " in done.stderr
        assert "    chat m  " in done.stderr
        assert "gen_ai.usage.output_tokens = 3" in done.stderr
        quiet = run("ask", "hi", "--policy", "ci", "--json", "--trace")
        assert "chat ci" in quiet.stderr

    def test_interrupting_it_ends_it_cleanly(self, served: str, server: Loopback) -> None:
        server.script(sse(delta("a beginning"), then="hang"))
        process = subprocess.Popen(
            command("ask", "hi", "--policy", served), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.read(11) == "a beginning"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "Traceback" not in errors
        assert server.client_left()

    def test_a_reader_that_leaves_is_no_error(self, served: str, server: Loopback) -> None:
        server.script(sse(*(delta("x" * 1000) for _ in range(200)), delta(finish="stop"), pause_s=0.005))
        line = f"{sys.executable} -c 'from devsynth_providers.cli import main; main()' ask hi -q --policy {served}"
        done = subprocess.run(
            ["bash", "-c", f"{line} | head -c 10"], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.stdout, done.stderr) == ("x" * 10, "")
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line} | true"], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (141, "")

    def test_nor_is_output_that_can_not_be_written_a_bug(self) -> None:
        line = f"{sys.executable} -m devsynth_providers ask -q --policy ci 'h\u00e9llo'"
        done = subprocess.run(
            ["bash", "-c", f"{line} >/dev/full"], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (3, "error: No space left on device\n")
        done = subprocess.run(["bash", "-c", f"{line} <&-"], capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout == "[stub:stub-llm] h\u00e9llo\n"
        narrow = run("ask", "-q", "--policy", "ci", "h\u00e9llo", PYTHONIOENCODING="ascii")
        assert narrow.stdout == "[stub:stub-llm] h?llo\n"

    def test_input_that_is_not_utf_8_is_refused(self) -> None:
        done = subprocess.run(
            command("ask", "--policy", "ci"), input=b"h\xe9llo", capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert b"not UTF-8: byte 1" in done.stderr


class TestExitCodes:
    def test_2_for_a_wrong_command_line(self, served: str) -> None:
        assert run("ask", "hi", "--polcy", served).returncode == 2
        assert run("ask", "hi", "--policy", served, "--temperature", "9").returncode == 2
        assert run("ask", "--policy", served).returncode == 2
        assert "there is no prompt" in run("ask", "--policy", served).stderr
        assert "there is no prompt" in run("ask", "  ", "--policy", served).stderr

    def test_3_for_a_wrong_policy(self, tmp_path: Path) -> None:
        wrong = policy_file(tmp_path, "models: {m: {provider: opnai}}\nrules: [{name: all, models: m}]")
        done = run("ask", "hi", "--policy", wrong)
        assert done.returncode == 3
        assert "policy.yaml:1:24: no provider is called 'opnai'; did you mean 'openai'?" in done.stderr

    def test_3_for_no_policy_at_all(self) -> None:
        done = run("ask", "hi", "--policy", "")
        assert (done.returncode, done.stderr) == (
            3,
            "error: policy: no policy is named; there are balanced, ci, devsynth, economy, interactive, offline, "
            "quality\n",
        )

    def test_4_where_no_model_fits(self, served: str) -> None:
        done = run("ask", "hi", "--policy", served, "--max-cost-usd", "0.000001")
        assert done.returncode == 4
        assert "over_cost_ceiling" in done.stderr

    @pytest.mark.parametrize("answer", [failure(401, "no"), stream("cut")])
    def test_5_where_the_models_failed(self, served: str, server: Loopback, answer: Answer) -> None:
        server.script(answer if answer.status != 200 else sse(delta("half")))
        done = run("ask", "hi", "--policy", served)
        assert done.returncode == 5
        assert done.stderr.splitlines()[-1].startswith("error: m: ")
        told = json.loads(run("ask", "hi", "--policy", served, "--json").stdout)
        assert told["error"] in ("authentication", "stream_interrupted")
        assert told["attempts"][0]["model"] == "m"
        assert told.get("partial") == (None if answer.status != 200 else "half")


class TestFailingAsJson:
    """Whoever asked for an object gets one, whichever way it fails."""

    @pytest.mark.parametrize(
        ("line", "code", "error"),
        [
            ("ask --json --policy nope.yaml hi", 3, "policy"),
            ("ask --json --policy ci --max-tokens 0 hi", 2, "invalid_request"),
            ("ask --json --policy ci", 2, "invalid_request"),
            ("explain --json --policy nope.yaml hi", 3, "policy"),
            ("explain --json --policy ci --max-tokens 0 hi", 2, "invalid_request"),
            ("models --json --policy nope.yaml", 3, "policy"),
        ],
    )
    def test_it_says_what_and_why(self, line: str, code: int, error: str) -> None:
        done = run(*line.split())
        told = json.loads(done.stdout)
        assert (done.returncode, told["error"], told["attempts"]) == (code, error, [])
        assert told["message"] in done.stderr

    def test_interrupted_too(self, served: str, server: Loopback) -> None:
        server.script(sse(delta("a beginning"), then="hang"))
        process = subprocess.Popen(
            command("ask", "hi", "--json", "--policy", served),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not server.requests and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
        assert (process.returncode, json.loads(output)["error"], errors) == (130, "interrupted", "")


class TestExplain:
    def test_it_shows_the_plan_and_asks_nobody(self, served: str, server: Loopback) -> None:
        done = run("explain", "hi", "--policy", served)
        assert (done.returncode, server.requests) == (0, [])
        assert "  1. m  openai" in done.stdout

    def test_json_has_every_candidate_and_every_reason(self) -> None:
        asked = ("explain", "hi", "--policy", "balanced", "--max-cost-usd", "0.001", "--json")
        plan = json.loads(run(*asked, DEVSYNTH_OFFLINE="1").stdout)
        assert plan["rule"] == "everyday"
        assert [each["model"] for each in plan["candidates"]] == ["gpt-4o-mini", "smollm2-135m"]
        assert [(each["model"], each["code"]) for each in plan["rejected"]] == [("gpt-4o", "over_cost_ceiling")]

    def test_where_nothing_fits_the_reasons_are_there_too(self, served: str) -> None:
        done = run("explain", "hi", "--policy", served, "--max-cost-usd", "0", "--json")
        assert done.returncode == 4
        told = json.loads(done.stdout)
        assert (told["error"], told["rejected"][0]["code"]) == ("no_model_fits", "over_cost_ceiling")
        assert told["message"].startswith("no model ")


class TestPolicyCheck:
    def test_right_ones_are_right(self) -> None:
        done = run("policy", "check", "balanced", "ci", "policies/offline.yaml")
        assert done.returncode == 0
        assert "balanced: right; 4 models, 4 rules" in done.stdout

    def test_wrong_ones_are_told_with_every_mistake(self, tmp_path: Path) -> None:
        wrong = policy_file(tmp_path, "models: {m: {provider: stub, color: red}}\nrules: [{name: a, models: n}]")
        done = run("policy", "check", "balanced", wrong)
        assert done.returncode == 3
        assert "policy.yaml:1:30: unknown key 'color'" in done.stderr

    def test_one_of_each_is_not_plural(self) -> None:
        assert run("policy", "check", "ci").stdout == "ci: right; 1 model, 1 rule\n"
        assert "(stub): 1 token in, " in run("ask", "--policy", "ci", "a").stderr.replace("about ", "")

    @pytest.mark.parametrize(
        ("model", "column", "said"),
        [
            ("provider: openai, base_url: localhost/v1", 42, "base_url must start with http:// or https://"),
            ("provider: openai, base_url: 'http://me:pw@h/v1'", 42, "base_url must not carry a user name"),
            ("provider: litellm, model: gpt-4o", 24, "as in gemini/gpt-4o"),
        ],
    )
    def test_what_can_never_work_is_a_mistake_with_its_place(
        self, tmp_path: Path, model: str, column: int, said: str
    ) -> None:
        wrong = policy_file(tmp_path, f"models: {{m: {{{model}}}}}\nrules: [{{name: a, models: m}}]")
        done = run("policy", "check", wrong)
        assert done.returncode == 3
        assert f"policy.yaml:1:{column}: model 'm': " in done.stderr
        assert said in done.stderr
        assert run("policy", "check", wrong, DEVSYNTH_OFFLINE="1").stderr == done.stderr
        done = run("doctor", "--json", "--policy", wrong)
        broken = [each["message"] for each in json.loads(done.stdout)["findings"] if each["level"] == "broken"]
        assert (done.returncode, [said in each for each in broken]) == (3, [True])

    def test_what_is_missing_is_none_and_nobodys_class_is_imported(self, tmp_path: Path) -> None:
        policy = policy_file(
            tmp_path,
            "models: {gpt-4o: {provider: openai}, m: {provider: 'no.such:Thing'}, n: {provider: local, path: /none}}\n"
            "rules: [{name: a, models: [gpt-4o, m, n]}]",
        )
        done = run("policy", "check", policy, OPENAI_API_KEY="")
        assert (done.returncode, done.stderr) == (0, "")

    def test_programs_get_them_as_json(self, tmp_path: Path) -> None:
        wrong = policy_file(tmp_path, "models: {m: {provider: stbu}}\nrules: [{name: a, models: m}]")
        report: dict[str, Any] = json.loads(run("policy", "check", wrong, "--json").stdout)
        (problem,) = report["problems"]
        assert report["ok"] is False
        assert (problem["line"], problem["column"], problem["suggestion"]) == (1, 24, "did you mean 'stub'?")


def test_help_and_version_are_quick_to_come() -> None:
    assert "explain" in run("--help").stdout
    assert run("--version").stdout.strip() == "0.1.0"


def test_without_its_extra_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')")
    done = run("ask", "hi", PYTHONPATH=str(tmp_path))
    assert done.returncode == 3
    assert "pip install 'devsynth_providers[cli]'" in done.stderr


@pytest.mark.local
def test_the_local_model_answers_from_the_command_line() -> None:
    started = time.monotonic()
    arguments = ("--policy", "offline", "--system", "You are a helpful assistant.", "--temperature", "0")
    done = run("ask", "What is the capital of France?", *arguments)
    assert done.stdout == "The capital of France is Paris.\n"
    assert "smollm2-135m (local): 27 tokens in, 7 out, $0.000000 (free)" in done.stderr
    assert time.monotonic() - started < 60
