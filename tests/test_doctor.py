"""``devsynth-providers doctor``: what it finds, what it advises, what it never shows, and that it never hangs."""

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
from typing_extensions import override

from devsynth_providers import Model, OpenAIProvider, Policy, ProviderRegistry, Router, Rule
from devsynth_providers.cli.doctor import draw
from devsynth_providers.doctor import collector, environment, models, versions
from devsynth_providers.doctor.examine import Examination, examine
from devsynth_providers.doctor.finding import Finding
from devsynth_providers.doctor.servers import reach
from devsynth_providers.doctor.trial import ways
from devsynth_providers.doctor.versions import Requirement
from devsynth_providers.testing import ScriptedProvider

from .command import CANARY, Run, listing, nobodys_url
from .loopback import Answer, Loopback, delta, failure, sse, stream, vectors, whole
from .test_cli import command, policy_file
from .test_cli import run as as_command

ONE = """
models:
  m: {{provider: openai, base_url: "{url}", api_key_env: THEIR_KEY, abilities: [{abilities}],
      price: {{input_usd_per_1m: 10, output_usd_per_1m: 30}}}}
rules: [{{name: all, models: m}}]
timeouts: {{first_token_s: 10, total_s: 20}}
"""


def one(folder: Path, url: str, abilities: str = "chat") -> str:
    """A policy with one model at *url*."""
    return policy_file(folder, ONE.format(url=url, abilities=abilities))


def findings(done: tuple[int, str, str]) -> dict[str, list[dict[str, Any]]]:
    """What a run with ``--json`` found, by section."""
    report = json.loads(done[1])
    assert report["ok"] is (done[0] == 0)
    found: dict[str, list[dict[str, Any]]] = {}
    for each in report["findings"]:
        found.setdefault(each["section"], []).append(each)
    return found


def env_file(folder: Path, line: str) -> str:
    path = folder / "d.env"
    path.write_text(f"{line}\n")
    path.chmod(0o600)
    return str(path)


def find(found: list[Finding], subject: str) -> Finding:
    return next(each for each in found if each.subject == subject)


class TestVersions:
    WANTED = (
        Requirement("litellm", ">=1.106.2,<1.106.3,!=1.82.7", None),
        Requirement("llama-cpp-python", ">=0.3", "local"),
    )

    def found(self, version: str | None, *folders: str) -> Finding:
        return find(versions.versions({"litellm": version}.get, self.WANTED, folders), "litellm")

    def test_what_the_tests_ran_on_is_in_order(self) -> None:
        assert self.found("1.106.2").level == "ok"

    @pytest.mark.parametrize("version", ["1.82.7", "1.82.8"])
    def test_malware_is_said_loudly_and_never_imported(self, version: str) -> None:
        found = self.found(version)
        assert (found.level, "malware" in found.message) == ("broken", True)
        assert "change every key" in found.advice
        assert not versions.litellm_may_run([found])

    def test_so_is_what_malware_left_behind(self, tmp_path: Path) -> None:
        (tmp_path / versions.LEFT_BEHIND).touch()
        found = versions.versions({"litellm": "1.106.2"}.get, self.WANTED, [str(tmp_path)])
        assert not versions.litellm_may_run(found)
        assert str(tmp_path) in found[-1].message

    def test_a_version_outside_the_range_is_doubtful(self) -> None:
        found = self.found("1.109.1")
        assert (found.level, found.advice) == ("warning", "pip install 'litellm>=1.106.2,<1.106.3,!=1.82.7'")

    def test_what_is_required_and_not_there_is_broken(self) -> None:
        assert self.found(None).level == "broken"

    def test_a_missing_extra_is_no_fault_and_says_how_to_get_it(self) -> None:
        found = find(versions.versions({"litellm": "1.106.2"}.get, self.WANTED), "llama-cpp-python")
        assert (found.level, found.advice) == ("ok", "pip install 'devsynth_providers[local]'")

    @pytest.mark.parametrize(
        ("version", "bounds", "is_within"),
        [
            ("1.2.0", "==1.2", True),
            ("1.10", ">=1.9,<2", True),
            ("2.0", ">=1.9,<2", False),
            ("1.2.3+cpu", "<=1.2.3", True),
            ("1.2.3", ">1.2.3", False),
            ("1.4.9", "~=1.4.2", True),
            ("1.5", "~=1.4.2", False),
            ("1.5", "!=1.5.0", False),
        ],
    )
    def test_ranges_mean_what_pip_means(self, version: str, bounds: str, is_within: bool) -> None:
        assert versions.within(version, bounds) is is_within

    def test_the_ranges_are_those_of_the_package_itself(self) -> None:
        found = {each.name: each for each in versions.required()}
        assert found["litellm"].bounds.startswith(">=")
        assert "!=1.82.7" in found["litellm"].bounds
        assert found["llama-cpp-python"].extra == "local"
        assert not {"pytest", "redis"} & found.keys()
        here = versions.versions(versions.installed_version, versions.required(), versions.package_folders())
        assert [each for each in here if each.level == "broken"] == []


class TestSettings:
    def test_each_says_where_it_comes_from(self, cli: Run, tmp_path: Path, server: Loopback) -> None:
        (tmp_path / ".env").write_text(f"OPENAI_MODEL=gpt-4o\nTHEIR_KEY={CANARY}\n")
        (tmp_path / ".env").chmod(0o600)
        config = tmp_path / "config.yml"
        config.write_text("provider:\n  openai: {temperature: 0.5}\n")
        policy = one(tmp_path, server.url)
        arguments = ("--policy", policy, "--env-file", str(tmp_path / ".env"), "--settings", str(config), "--json")
        found = {each["subject"]: each for each in findings(cli("doctor", *arguments))["settings"]}
        assert found["openai.model"]["facts"]["value"] == "gpt-4o"
        assert found["openai.model"]["facts"]["source"].endswith(".env:1 OPENAI_MODEL")
        assert found["openai.temperature"]["facts"]["source"].endswith("config.yml:2 provider.openai.temperature")
        assert found["openai.retry_attempts"]["facts"]["source"] == "default"
        assert found["THEIR_KEY"]["facts"]["value"] == "set"
        assert found["OPENAI_API_KEY"]["message"] == "not set"

    def test_a_slip_of_the_pen_in_a_file_is_told_too(self, cli: Run, tmp_path: Path) -> None:
        _, out, _ = cli("doctor", "--policy", "ci", "--env-file", env_file(tmp_path, "OPENAI_MODLE=gpt-4o"))
        assert "OPENAI_MODLE: is set in " in out
        assert "d.env, and nothing here reads it" in out
        assert "→ did you mean OPENAI_MODEL?" in out

    def test_one_that_can_not_be_used_is_broken(self, cli: Run) -> None:
        code, out, _ = cli("doctor", "--policy", "ci", OPENAI_HTTP_TIMEOUT="soon")
        assert code == 3
        assert "environment OPENAI_HTTP_TIMEOUT: openai.timeout must be a number of seconds above 0" in out

    def test_nor_is_a_file_that_can_not_be_read(self, cli: Run) -> None:
        code, out, _ = cli("doctor", "--policy", "ci", "--settings", "no-such-file.yml")
        assert code == 3
        assert "no-such-file.yml" in out

    def test_switches_over_everything_are_pointed_out(self, cli: Run) -> None:
        _, out, _ = cli("doctor", "--policy", "ci", DEVSYNTH_OFFLINE="1", DEVSYNTH_TLS_VERIFY="0")
        assert out.count("tls.verify: off (environment DEVSYNTH_TLS_VERIFY): every server is believed") == 1
        assert "offline: on (environment DEVSYNTH_OFFLINE): every model is answered by the stub" in out


class TestEnvironment:
    def test_what_is_set_and_not_read_is_told_without_its_value(self) -> None:
        found = environment.unread(
            {"OPENAI_BASE_URL": CANARY, "DEVSYNTH_OFLINE": "1", "DEVSYNTH_X": "1"}, ["DEVSYNTH_OFFLINE"]
        )
        assert [(each.subject, each.advice) for each in found] == [
            ("DEVSYNTH_OFLINE", "did you mean DEVSYNTH_OFFLINE?"),
            ("OPENAI_BASE_URL", "give the model a base_url"),
        ]
        assert CANARY not in str(found)

    def test_what_is_read_or_empty_or_anothers_is_not(self) -> None:
        assert environment.unread({"OPENAI_API_KEY": "x", "OPENAI_X": " ", "HOME": "y"}, ["OPENAI_API_KEY"]) == []

    def test_proxies_are_told_for_each_host_without_their_password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("https_proxy", f"http://me:{CANARY}@proxy.example:3128")
        monkeypatch.setenv("no_proxy", "gpu1")
        found = environment.proxies(["https://api.openai.com/v1", "https://gpu1/v1", "http://127.0.0.1:1/v1"])
        told = {each.subject: each.message for each in found}
        assert told["api.openai.com"] == "is asked through the proxy proxy.example:3128"
        assert told["gpu1"] == told["127.0.0.1:1"] == "is asked without a proxy"

    def test_without_a_proxy_there_is_nothing_to_tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert environment.proxies(["https://api.openai.com/v1"]) == []


class TestModels:
    async def look(self, policy: str, **more: Any) -> list[Finding]:
        found = await examine(Examination(policy=policy, timeout_s=0.3, **more))
        return [each for each in found if each.section in ("models", "trial")]

    @pytest.mark.parametrize(
        ("answer", "level"),
        [
            (listing("m"), "ok"),
            (listing("other"), "warning"),
            (failure(403, "not for this key"), "warning"),
            (failure(401, f"wrong key {CANARY}"), "broken"),
            (Answer([b"<html></html>"], content_type="text/html"), "broken"),
            (Answer([], content_length=9, then="hang"), "broken"),
        ],
        ids=["up", "another model", "403", "401", "a web page", "hanging"],
    )
    async def test_a_server_is_as_well_as_it_answers(
        self, server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, level: str
    ) -> None:
        monkeypatch.setenv("THEIR_KEY", CANARY)
        server.script(answer)
        found = find(await self.look(one(tmp_path, server.url)), "m")
        assert found.level == level
        assert bool(found.advice) is (level != "ok")
        assert CANARY not in str(found)

    async def test_one_that_is_down_is_broken_and_not_tried(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("THEIR_KEY", CANARY)
        found = await self.look(one(tmp_path, nobodys_url()), trial=True)
        assert find(found, "m").level == "broken"
        assert [each.message for each in found if each.section == "trial"] == ["not tried: its server does not answer"]

    async def test_the_lane_is_told(self, server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("THEIR_KEY", CANARY)
        policy = policy_file(
            tmp_path,
            f"""
models:
  ours: {{provider: openai, base_url: "{server.url}"}}
  theirs: {{provider: openai, base_url: "{server.url}", transport: litellm}}
  any: {{provider: litellm, model: gemini/gemini-2.5-pro}}
rules: [{{name: all, models: [ours, theirs, any]}}]
""",
        )
        found = {each.subject: each for each in await self.look(policy) if "lane" in each.facts}
        assert found["ours"].facts == {"lane": "direct"}
        assert found["theirs"].message == "LiteLLM itself sends: transport is litellm"
        assert [each.level for each in found.values()] == ["ok"] * 3

    async def test_a_lane_that_is_not_as_it_should_be_is_told_with_its_reason(self) -> None:
        class Changed(OpenAIProvider):
            @override
            async def why_not_direct(self) -> str | None:
                return "its translator of requests lost the tools"

        class Missing(OpenAIProvider):
            @override
            async def why_not_direct(self) -> str | None:
                raise ImportError("No module named 'litellm.llms'")

        registry = ProviderRegistry()
        registry.register("changed", Changed)
        registry.register("missing", Missing)
        names = ("changed", "missing")
        known = {name: Model(name=name, provider=name, base_url="http://127.0.0.1:9/v1") for name in names}
        router = Router(Policy(models=known, rules=(Rule(name="all", models=names),)), registry=registry)
        changed, missing = await models.lanes(router)
        await router.aclose()
        assert (changed.level, "slower: its translator" in changed.message) == ("warning", True)
        assert (missing.level, "can not be imported: ImportError" in missing.message) == ("broken", True)

    async def test_with_malware_installed_nothing_that_imports_it_is_done(
        self, server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("THEIR_KEY", CANARY)
        server.script(everything)
        wanted = Examination(policy=one(tmp_path, server.url), trial=True)
        found = await examine(wanted, version_of=lambda name: "1.82.8" if name == "litellm" else "1.0")
        assert not any("lane" in each.facts or each.section == "trial" for each in found)
        assert server.requests == [{}]

    async def test_a_provider_of_ones_own_has_no_listing_to_ask_for(self) -> None:
        scripted = ScriptedProvider("mine", ("x",))
        found = (await reach({"mine": scripted}))["mine"]
        assert (found.state, found.message) == ("nothing to reach", "its class has no listing to ask for")

    @pytest.mark.local
    async def test_an_engine_that_can_not_be_loaded_is_broken(self, tmp_path: Path) -> None:
        (tmp_path / "llama_cpp.py").write_text("raise SystemExit(7)")
        router = Router.from_policy("offline")
        (found,) = await models.local_engine(router, {"PYTHONPATH": str(tmp_path)})
        await router.aclose()
        assert (found.level, found.message) == ("broken", "can not be loaded: its process ended with 7")
        assert found.advice.startswith("build it on this machine")

    async def test_a_rule_with_nobody_left_is_broken_and_one_with_somebody_is_not(self, tmp_path: Path) -> None:
        policy = policy_file(
            tmp_path,
            """
models: {gpt-4o: {provider: openai}, s: {provider: stub}}
rules:
  - {name: alone, when: {task: [design]}, models: gpt-4o}
  - {name: rest, models: [gpt-4o, s]}
""",
        )
        found = await self.look(policy)
        assert find(found, "gpt-4o").level == "warning"
        assert find(found, "gpt-4o").advice == "set it, or leave the model out"
        assert [each.subject for each in found if each.level == "broken"] == ["rule alone"]

    async def test_what_will_be_switched_off_is_told(self, tmp_path: Path) -> None:
        gone = policy_file(
            tmp_path,
            "models: {gpt-4o-mini-2024-07-18: {provider: openai}}\nrules: [{name: a, models: gpt-4o-mini-2024-07-18}]",
        )
        assert any("it off on 20" in each.message for each in await self.look(gone))

    def test_a_wrong_policy_is_a_finding_with_its_place(self, cli: Run, tmp_path: Path) -> None:
        wrong = policy_file(tmp_path, "models: {m: {provider: opnai}}\nrules: [{name: all, models: m}]")
        code, out, _ = cli("doctor", "--policy", wrong)
        assert code == 3
        assert "policy.yaml:1:24: no provider is called 'opnai'" in out
        assert "→ devsynth-providers policy check" in out

    def test_advice_on_many_mistakes_is_given_once(self, cli: Run, tmp_path: Path) -> None:
        wrong = policy_file(tmp_path, "models: {m: {provider: stub, a: 1, b: 2}}\nrules: [{name: all, models: n}]")
        _, out, _ = cli("doctor", "--policy", wrong)
        assert out.count("unknown key") == 2
        assert out.count("→ devsynth-providers policy check") == 1

    def test_a_missing_one_too(self, cli: Run) -> None:
        code, out, _ = cli("doctor", "--policy", "no-such")
        assert (code, "→ name a policy file that is there" in out, "policy check" in out) == (3, True, False)

    def test_what_is_not_installed_has_advice(self) -> None:
        assert models._set_up("llama-cpp-python is not installed: pip install it", None).startswith("install it")

    def test_a_key_in_a_file_is_not_one_that_a_policy_sees(self, cli: Run, tmp_path: Path) -> None:
        env = env_file(tmp_path, f"OPENAI_API_KEY={CANARY}")
        _, out, _ = cli("doctor", "--policy", "balanced", "--env-file", env)
        assert "OPENAI_API_KEY is not set" in out
        assert f"→ export it: a policy's models read the environment only, not {env}" in out


class TestTelemetry:
    @pytest.mark.parametrize(
        ("variables", "level", "said"),
        [
            ({}, "ok", "unless the application sends them"),
            ({"OTEL_SDK_DISABLED": "true"}, "warning", "OTEL_SDK_DISABLED"),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "soap"}, "broken", "'soap'"),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, "warning", "take http/protobuf"),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:port"}, "broken", "no address"),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{'h' * 64}.example:1"}, "broken", "nobody is there"),
        ],
    )
    async def test_what_the_variables_say_is_judged(self, variables: dict[str, str], level: str, said: str) -> None:
        (found,) = await collector.telemetry(variables, 0.1)
        assert (found.level, said in found.message) == (level, True)

    async def test_a_collector_is_knocked_at(self, server: Loopback) -> None:
        (found,) = await collector.telemetry({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": server.url}, 5)
        assert (found.level, "somebody is there" in found.message) == ("ok", True)

    async def test_one_that_is_down_is_broken_and_no_password_is_told(self) -> None:
        url = nobodys_url().replace("http://", f"http://me:{CANARY}@")
        (found,) = await collector.telemetry({"OTEL_EXPORTER_OTLP_ENDPOINT": url}, 5)
        assert (found.level, "nobody is there" in found.message) == ("broken", True)
        assert CANARY not in str(found)


def everything(body: dict[str, Any]) -> Answer:
    """A server that can do all that a trial asks for."""
    if not body:
        return listing("m")
    if "input" in body:
        return vectors()
    if "tools" in body:
        call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
        return whole(None, finish="tool_calls", message={"tool_calls": [call]})
    return stream() if body.get("stream") else whole()


class TestTrial:
    def tried(self, cli: Run, policy: str, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        done = cli("doctor", "--policy", policy, "--json", *(arguments or ("--trial",)), THEIR_KEY=CANARY)
        return done[0], findings(done).get("trial", [])

    def test_each_way_is_tried_and_says_what_it_cost(self, cli: Run, server: Loopback, tmp_path: Path) -> None:
        server.script(everything)
        code, found = self.tried(cli, one(tmp_path, server.url, "chat, tools, embeddings"))
        assert code == 0
        assert [each["facts"]["way"] for each in found] == ["whole", "streamed", "a tool", "embeddings"]
        assert found[0]["message"].endswith("4 tokens in, 3 out, $0.000130 (computed)")
        assert found[0]["facts"]["cost_usd"] == 0.00013
        assert "a call of add" in found[2]["message"]
        assert "vectors of 2 dimensions" in found[3]["message"]

    def test_without_being_asked_for_nothing_is_tried(self, cli: Run, server: Loopback, tmp_path: Path) -> None:
        server.script(everything)
        code, out, _ = cli("doctor", "--policy", one(tmp_path, server.url), THEIR_KEY=CANARY)
        assert (code, server.requests) == (0, [{}])
        assert "trial" not in out

    def test_its_sum_is_told_to_people(self, cli: Run, server: Loopback, tmp_path: Path) -> None:
        server.script(everything)
        _, out, _ = cli("doctor", "--trial", "--policy", one(tmp_path, server.url), THEIR_KEY=CANARY)
        assert "the trial cost $0.000260" in out

    def test_a_refusal_costs_nothing_and_a_price_nobody_knows_is_told(
        self, cli: Run, server: Loopback, tmp_path: Path
    ) -> None:
        server.script(listing("m"), failure(404, "no such model"))
        _, out, _ = cli("doctor", "--trial", "--policy", one(tmp_path, server.url), THEIR_KEY=CANARY)
        assert "the trial cost $0.000000\n" in out
        server.script(everything)
        unknown = policy_file(
            tmp_path, f"models: {{m: {{provider: openai, base_url: '{server.url}'}}}}\nrules: [{{name: a, models: m}}]"
        )
        _, out, _ = cli("doctor", "--trial", "--policy", unknown)
        assert "the trial cost $0.000000, and what is not known\n" in out

    def test_a_model_that_fails_is_broken_and_tried_once(self, cli: Run, server: Loopback, tmp_path: Path) -> None:
        server.script(listing("m"), failure(500, f"out of memory {CANARY}"))
        code, found = self.tried(cli, one(tmp_path, server.url))
        assert code == 3
        assert {each["level"] for each in found} == {"broken"}
        assert found[0]["facts"]["error"] == "unavailable"
        assert all(each["advice"] for each in found)
        assert len(server.requests) == 3

    def test_a_stream_that_breaks_off_is_told_as_that(self, cli: Run, server: Loopback, tmp_path: Path) -> None:
        server.script(listing("m"), whole(), sse(delta("half")))
        _, found = self.tried(cli, one(tmp_path, server.url))
        assert [(each["facts"]["way"], each["level"]) for each in found] == [("whole", "ok"), ("streamed", "broken")]

    def test_one_that_thinks_too_long_for_a_trial_is_told_why(self, cli: Run, server: Loopback, tmp_path: Path) -> None:
        server.script(listing("m"), (whole("", finish="length"), sse(delta(finish="length"), "[DONE]")))
        _, found = self.tried(cli, one(tmp_path, server.url))
        assert "may need more tokens" in found[0]["advice"]

    def test_a_tool_that_is_not_used_is_doubtful(self, cli: Run, server: Loopback, tmp_path: Path) -> None:
        server.script(listing("m"), (whole(), stream()))
        code, found = self.tried(cli, one(tmp_path, server.url, "tools"))
        assert (code, found[0]["level"]) == (0, "warning")

    def test_one_model_can_be_tried_alone(self, cli: Run, server: Loopback, tmp_path: Path) -> None:
        server.script(everything)
        code, found = self.tried(cli, one(tmp_path, server.url), "--model", "m")
        assert (code, len(found)) == (0, 2)
        code, found = self.tried(cli, one(tmp_path, server.url), "--model", "n")
        assert (code, found[0]["message"]) == (3, "not tried: policy 'policy' has no model of this name")
        assert found[0]["advice"] == "there are m"

    def test_what_a_model_is_not_known_to_do_is_not_tried(self) -> None:
        assert list(ways(Model(name="m", provider="p"))) == ["whole", "streamed"]
        assert list(ways(Model(name="m", provider="p", abilities=frozenset(("embeddings",))))) == ["embeddings"]


class TestAsACommand:
    def test_nothing_broken_is_0_and_something_is_3(self, server: Loopback, tmp_path: Path) -> None:
        fine = as_command("doctor", "--policy", "ci")
        assert (fine.returncode, fine.stderr) == (0, "")
        assert "0 broken" in fine.stdout
        server.script(failure(401, f"wrong key {CANARY}"))
        wrong = as_command("doctor", "--policy", one(tmp_path, server.url), THEIR_KEY=CANARY)
        assert wrong.returncode == 3
        assert "→ look at the key in THEIR_KEY" in wrong.stdout
        assert CANARY not in wrong.stdout + wrong.stderr

    def test_litellm_is_not_imported_where_no_lane_is_to_be_told(self) -> None:
        code = (
            "import sys; from devsynth_providers.cli.app import run\n"
            "sys.argv = ['x', 'doctor', '--policy', 'ci']; run(); sys.exit('litellm' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=False, timeout=60, env=dict(os.environ)
        )
        assert done.returncode == 0

    @pytest.mark.local
    def test_a_local_model_is_found_and_its_engine_tried(self) -> None:
        done = as_command("doctor", "--policy", "offline", "--json")
        found = {each["subject"]: each for each in json.loads(done.stdout)["findings"]}
        assert found["smollm2-135m"]["message"].startswith("a file on this machine: ")
        assert found["llama.cpp"]["message"] == "can be loaded"
        assert found["cache"]["message"].startswith("nothing is kept yet")


def test_an_address_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    draw([Finding("models", "broken", "m", "localhost:1234: [red] nobody is there")])
    assert "m: localhost:1234: [red] nobody is there\n" in capsys.readouterr().out


class TestLeaving:
    @pytest.mark.parametrize("arguments", ["models --all --retired", "models gpt-4o", "doctor --policy ci"])
    def test_a_reader_that_leaves_is_no_error(self, arguments: str) -> None:
        line = f"set -o pipefail; {sys.executable} -m devsynth_providers {arguments} | true"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (141, "")

    def test_interrupting_it_ends_it_cleanly(self, server: Loopback, tmp_path: Path) -> None:
        server.script(Answer([], content_length=9, then="hang"))
        process = subprocess.Popen(
            command("doctor", "--policy", one(tmp_path, server.url)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "THEIR_KEY": CANARY},
        )
        while not server.paths and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, "Traceback" in errors) == (130, False)


def test_a_proxys_password_with_a_slash_in_it_is_not_shown() -> None:
    for url in ("http://me:pa/ss12345@proxy.test:8080/", "me:pa/ss12345@proxy.test:8080"):
        assert environment._address(url) == "proxy.test:8080"
