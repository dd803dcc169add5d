"""``devsynth-providers models``: what it lists, what it says of prices and servers, and what it never shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from devsynth_providers import ProviderUnavailable, catalogue
from devsynth_providers.cli.looking import AbilityName
from devsynth_providers.cli.rows import catalogue_rows
from devsynth_providers.cli.table import drawn, money, wrapped
from devsynth_providers.doctor.servers import reach
from devsynth_providers.providers.anthropic import AnthropicProvider
from devsynth_providers.providers.lmstudio import LMStudioProvider
from devsynth_providers.providers.openai import OpenAIProvider
from devsynth_providers.providers.openrouter import OpenRouterProvider
from devsynth_providers.types import Ability, Model

from .command import CANARY, Run, listing, nobodys_url
from .loopback import Answer, Loopback, as_json, failure
from .test_cli import policy_file
from .test_cli import run as as_command


@pytest.fixture
def states(server: Loopback, tmp_path: Path) -> str:
    """A policy with a model of each state of price, configured and not, used and not."""
    return policy_file(
        tmp_path,
        f"""
models:
  stated: {{provider: openai, base_url: "{server.url}", api_key_env: THEIR_KEY,
           price: {{input_usd_per_1m: 3, output_usd_per_1m: 15}}}}
  gift: {{provider: openai, base_url: "{server.url}", api_key_env: THEIR_KEY, price: free}}
  nobody-knows: {{provider: openai, base_url: "{server.url}", api_key_env: THEIR_KEY}}
  gpt-4o: {{provider: openai}}
  gpt-4o-mini: {{provider: openai, price: {{input_usd_per_1m: 0.15, output_usd_per_1m: 0.6}}}}
  gemini: {{provider: litellm, model: gemini/gemini-2.5-pro}}
rules:
  - {{name: hard, when: {{task: [design]}}, models: [stated, gpt-4o]}}
  - {{name: rest, models: [gift, nobody-knows, gpt-4o-mini]}}
""",
    )


class TestCatalogue:
    def test_unasked_for_details_it_counts_and_says_how_to_narrow_it_down(self, cli: Run) -> None:
        code, out, _ = cli("models")
        assert code == 0
        assert "Narrow it down" in out
        assert f"catalogue of {catalogue.date()}: LiteLLM" in out
        assert len(out.splitlines()) < 150

    def test_a_part_of_the_name_finds_window_price_and_abilities(self, cli: Run) -> None:
        _, out, _ = cli("models", "GPT-4o-mini", "--provider", "openai")
        row = next(line for line in out.splitlines() if line.startswith("gpt-4o-mini "))
        assert row.split() == [
            "gpt-4o-mini",
            "openai",
            "128,000",
            "16,384",
            "0.15",
            "0.60",
            "chat",
            "tools",
            "json",
            "vision",
        ]

    def test_filters_narrow_it_down_together(self, cli: Run) -> None:
        report = json_of(cli("models", "--ability", "tools", "--ability", "vision", "--max-price", "0.2", "--json"))
        assert report["models"]
        for model in report["models"]:
            assert {"tools", "vision"} <= set(model["abilities"])
            assert model["price"]["input_usd_per_1m"] <= 0.2
        wide = json_of(cli("models", "--min-window", "2000000", "--json"))["models"]
        assert wide
        assert all(model["context_window"] >= 2_000_000 for model in wide)

    def test_it_names_models_as_a_policy_would(self, cli: Run) -> None:
        report = json_of(cli("models", "--json", "--retired"))
        assert report["of"] == len(report["models"])
        assert len({(model["provider"], model["model"]) for model in report["models"]}) == report["of"]
        for model in report["models"]:
            found = catalogue.find(model["provider"], model["model"])
            assert found is not None, model
            assert found.context_window == model["context_window"], model

    def test_what_is_switched_off_is_left_out_unless_it_is_asked_for(self, cli: Run) -> None:
        gone = [row for row in catalogue_rows() if row.retired and row.retired < "2026-01-01"]
        _, without, _ = cli("models", gone[0].name, "--all")
        _, with_them, _ = cli("models", gone[0].name, "--all", "--retired")
        assert f"{gone[0].retired}" not in without
        assert f"{gone[0].retired}" in with_them

    def test_a_long_list_is_cut_and_says_so(self, cli: Run) -> None:
        _, out, _ = cli("models", "--ability", "chat")
        assert "the first 50 are here: narrow it down, or say --all" in out
        assert len(out.splitlines()) < 60

    def test_table_and_json_name_the_same_provider(self, cli: Run) -> None:
        (model,) = json_of(cli("models", "gemini/gemini-flash-latest", "--json"))["models"]
        _, out, _ = cli("models", "gemini/gemini-flash-latest")
        (row,) = (line for line in out.splitlines() if line.startswith("gemini/"))
        assert (row.split()[1], model["provider"], model["home"]) == ("litellm", "litellm", "gemini")

    def test_a_name_that_is_nearly_right_is_told(self, cli: Run, states: str) -> None:
        for more in ((), ("--policy", states)):
            code, out, _ = cli("models", "--provider", "opnai", *more)
            assert (code, "did you mean openai?" in out) == (0, True)
        code, _, err = cli("models", "--ability", "toolz")
        assert (code, "did you mean tools?" in said(err)) == (2, True)
        assert "there are chat, embeddings" in said(cli("models", "--ability", "juggling")[2])

    def test_a_check_that_would_ask_nobody_is_refused(self, cli: Run) -> None:
        code, out, err = cli("models", "--check", "--provider", "gemini")
        assert (code, out, "give its --policy" in err) == (2, "", True)

    def test_none_that_matches_is_an_answer(self, cli: Run) -> None:
        code, out, _ = cli("models", "no-such-model")
        assert code == 0
        assert "no model is like that" in out

    def test_configured_are_those_whose_key_is_there(self, cli: Run) -> None:
        assert json_of(cli("models", "--configured", "--json"))["models"] == []
        models = json_of(cli("models", "--configured", "--json", OPENAI_API_KEY=CANARY))["models"]
        assert {model["provider"] for model in models} == {"openai"}

    def test_check_asks_the_servers_that_need_no_policy(self, cli: Run, server: Loopback) -> None:
        server.script(listing("qwen3-8b"))
        code, out, _ = cli("models", "--check", "--provider", "lmstudio", LMSTUDIO_BASE_URL=server.url)
        assert code == 0
        assert "lmstudio: 127.0.0.1" in out
        report = json_of(cli("models", "--check", "--json", LMSTUDIO_BASE_URL=server.url))
        assert report["servers"]["lmstudio"]["state"] == "reachable"
        assert report["servers"]["openai"]["state"] == "not configured"

    def test_as_a_command_it_leaves_with_codes_that_are_documented(self) -> None:
        assert as_command("models", "gpt-4o").returncode == 0
        assert as_command("models", "--ability", "juggling").returncode == 2
        assert as_command("models", "--policy", "no-such").returncode == 3


def said(err: str) -> str:
    """What is in the box that a wrong command line is answered with, in one line."""
    return " ".join(err.replace("\u2502", " ").split())


class TestPolicy:
    def test_prices_say_their_state_and_where_they_come_from(self, cli: Run, states: str) -> None:
        models = {m["name"]: m for m in json_of(cli("models", "--policy", states, "--json"))["models"]}
        told = {name: (model["price_state"], model["price_from"]) for name, model in models.items()}
        assert told == {
            "stated": ("known", "policy"),
            "gift": ("free", "policy"),
            "nobody-knows": ("unknown", None),
            "gpt-4o": ("known", "catalogue"),
            "gpt-4o-mini": ("known", "policy"),
            "gemini": ("known", "catalogue"),
        }

    def test_each_says_its_rules_and_whether_it_is_configured(self, cli: Run, states: str) -> None:
        code, out, _ = cli("models", "--policy", states, THEIR_KEY=CANARY)
        assert code == 0
        assert "gpt-4o: not configured: OPENAI_API_KEY is not set" in out
        assert "nobody-knows: its price is not known" in out
        assert "gemini: no rule uses it" in out
        assert next(line for line in out.splitlines() if line.startswith("gift ")).split()[-3:] == [
            "policy",
            "chat",
            "rest",
        ]
        assert f"6 of 6 models of policy 'policy'; catalogue of {catalogue.date()}" in out

    def test_filters_hold_for_its_models_too(self, cli: Run, states: str) -> None:
        def names(*arguments: str) -> list[str]:
            report = json_of(cli("models", "--policy", states, "--json", *arguments, THEIR_KEY=CANARY))
            return [model["name"] for model in report["models"]]

        assert names("--configured") == ["stated", "gift", "nobody-knows", "gemini"]
        assert names("--max-price", "0.2") == ["gift", "gpt-4o-mini"]
        assert names("gpt", "--min-window", "1000") == ["gpt-4o", "gpt-4o-mini"]
        assert names("--provider", "litellm") == names("--provider", "gemini") == ["gemini"]

    def test_check_asks_each_server_once_and_says_what_it_has(self, cli: Run, states: str, server: Loopback) -> None:
        server.script(listing("stated", "gift:latest"))
        _, out, _ = cli("models", "--policy", states, "--check", THEIR_KEY=CANARY)
        assert server.paths == ["/v1/models"]
        assert server.headers[0]["authorization"] == f"Bearer {CANARY}"
        assert "stated: 127.0.0.1" in out
        assert "lists 2 models; nobody-knows is not among them" in out
        assert "gift is not among them" not in out
        assert "gemini: only LiteLLM knows its address" in out

    @pytest.mark.parametrize(("listed", "missing"), [("Qwen/qwen3-32b", False), ("hosted_vllm/Qwen/qwen3-32b", True)])
    def test_a_server_lists_a_model_without_the_prefix_that_is_meant_for_litellm(
        self, cli: Run, server: Loopback, tmp_path: Path, listed: str, missing: bool
    ) -> None:
        server.script(listing(listed))
        policy = policy_file(
            tmp_path,
            f"models: {{m: {{provider: litellm, model: hosted_vllm/Qwen/qwen3-32b, base_url: '{server.url}'}}}}\n"
            "rules: [{name: a, models: m}]",
        )
        _, out, _ = cli("models", "--policy", policy, "--check")
        assert "lists 1 model" in out
        assert ("is not among them" in out) is missing

    def test_offline_nothing_is_asked(self, cli: Run, states: str, server: Loopback) -> None:
        code, out, _ = cli("models", "--policy", states, "--check", DEVSYNTH_OFFLINE="1")
        assert (code, server.paths) == (0, [])
        assert "stated: it answers inside this process" in out

    def test_a_model_that_was_switched_off_says_so(self, cli: Run, tmp_path: Path) -> None:
        gone = next(row for row in catalogue_rows() if row.home == "openai" and row.retired)
        policy = policy_file(
            tmp_path, f"models: {{'{gone.model}': {{provider: openai}}}}\nrules: [{{name: a, models: '{gone.model}'}}]"
        )
        _, out, _ = cli("models", "--policy", policy)
        assert f"retired on {gone.retired}: name another model" in out


class TestLMStudio:
    """Its own listing says which models are loaded."""

    ROWS: ClassVar[dict[str, Any]] = {
        "models": [
            {"key": "qwen3-8b", "type": "llm", "loaded_instances": [{"id": "qwen3-8b", "config": {}}]},
            {"key": "mistral-7b", "type": "llm", "loaded_instances": []},
        ]
    }

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("qwen3-8b", "lists 2 models; loaded: qwen3-8b"),
            ("mistral-7b", "mistral-7b is loaded by its first call, which waits for that"),
            ("gemma", "loaded: qwen3-8b; gemma is not among them"),
        ],
    )
    def test_a_model_is_loaded_or_will_be_or_is_not_there(
        self, cli: Run, server: Loopback, tmp_path: Path, name: str, said: str
    ) -> None:
        server.script(as_json(self.ROWS))
        policy = policy_file(
            tmp_path, f"models: {{{name}: {{provider: lmstudio}}}}\nrules: [{{name: a, models: {name}}}]"
        )
        _, out, _ = cli("models", "--policy", policy, "--check", LMSTUDIO_BASE_URL=server.url)
        assert server.paths == ["/api/v1/models"]
        assert said in out

    async def test_one_that_hangs_is_left_in_time(self, server: Loopback) -> None:
        server.script(Answer([], content_length=9, then="hang"))
        provider = LMStudioProvider("m", base_url=server.url)
        found = (await reach({"m": provider}, 0.05))["m"]
        await provider.aclose()
        assert (found.state, "no answer within 0.05 s" in found.message) == ("broken", True)
        assert found.advice.startswith("start LM Studio's server")


class TestServers:
    """What is said of a server that is not as it should be, and how soon."""

    @pytest.mark.parametrize(
        ("answer", "said", "advice"),
        [
            (failure(401, f"Incorrect API key provided: {CANARY}"), "HTTP 401", "look at the key in THEIR_KEY"),
            (failure(402, "pay", "insufficient_quota"), "HTTP 402", "top it up"),
            (failure(503, "loading"), "HTTP 503", "start the server"),
            (failure(400, "what?"), "HTTP 400", "ask the server's log"),
            (Answer([b"<html>hi</html>"], content_type="text/html"), "a web page", "it ends where the API begins"),
            (Answer([b"<html>hi</html>"]), "a web page", "it ends where the API begins"),
            (Answer([b"hello"]), "no JSON", "it ends where the API begins"),
            (as_json({"error": {"message": "broken inside", "code": 500}}), "broken inside", "start the server"),
            (as_json({}, 302, location="https://elsewhere.example/"), "elsewhere.example", "base_url"),
            (Answer([], content_length=9, then="reset"), "connection", "start the server"),
        ],
    )
    async def test_each_way_of_being_wrong_has_its_advice(
        self, server: Loopback, monkeypatch: pytest.MonkeyPatch, answer: Answer, said: str, advice: str
    ) -> None:
        server.script(answer)
        monkeypatch.setenv("THEIR_KEY", CANARY)
        found = await reach_one(server.url, api_key_env="THEIR_KEY")
        assert found.state == "broken"
        assert said in found.message
        assert advice in found.advice
        assert CANARY not in found.message

    @pytest.mark.parametrize(
        ("answer", "advice"), [(failure(429), "left alone for a while"), (failure(403), "a trial tells")]
    )
    async def test_one_that_is_busy_or_shows_no_list_is_only_in_doubt(
        self, server: Loopback, answer: Answer, advice: str
    ) -> None:
        server.script(answer)
        found = await reach_one(server.url)
        assert (found.state, advice in found.advice) == ("in doubt", True)

    async def test_one_that_hangs_is_left_in_time(self, server: Loopback) -> None:
        server.script(Answer([], content_length=9, then="hang"))
        provider = OpenAIProvider(Model(name="m", provider="openai", base_url=server.url))
        found = (await reach({"m": provider}, 0.05))["m"]
        await provider.aclose()
        assert (found.state, found.message.endswith("no answer within 0.05 s")) == ("broken", True)

    async def test_one_that_is_down_is_told_with_its_address(self) -> None:
        found = await reach_one(nobodys_url())
        assert (found.state, found.advice) == ("broken", "start the server, or correct base_url")
        assert found.message.endswith(": Connection refused")
        assert found.message.startswith("127.0.0.1:")

    @pytest.mark.parametrize("answer", [failure(404), failure(405), as_json({"data": {"label": "a key"}}), as_json([])])
    async def test_one_without_a_listing_is_there_all_the_same(self, server: Loopback, answer: Answer) -> None:
        server.script(answer)
        found = await reach_one(server.url)
        assert found.state == "reachable"
        assert found.latency_s is not None

    async def test_the_key_goes_as_each_provider_wants_it(
        self, server: Loopback, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.script(listing("m"))
        anthropic = AnthropicProvider("m", api_key=CANARY, base_url=server.url)
        openrouter = OpenRouterProvider("m", api_key=CANARY, base_url=server.url)
        keyless = OpenAIProvider("m", base_url=server.url)
        for provider in (anthropic, openrouter, keyless):
            await provider.listing()
            await provider.aclose()
        assert server.paths == ["/v1/models?limit=1000", "/v1/key", "/v1/models"]
        assert server.headers[0]["x-api-key"] == CANARY
        assert server.headers[1]["authorization"] == f"Bearer {CANARY}"
        assert "authorization" not in server.headers[2]

    async def test_an_error_keeps_the_name_of_its_model(self) -> None:
        provider = OpenAIProvider("m", base_url=nobodys_url())
        with pytest.raises(ProviderUnavailable) as caught:
            await provider.listing()
        await provider.aclose()
        assert (caught.value.provider, caught.value.model) == ("openai", "m")


async def reach_one(url: str, **facts: Any) -> Any:
    provider = OpenAIProvider(Model(name="m", provider="openai", base_url=url, **facts))
    try:
        return (await reach({"m": provider}))["m"]
    finally:
        await provider.aclose()


def json_of(done: tuple[int, str, str]) -> dict[str, Any]:
    code, out, _ = done
    assert code == 0
    report: dict[str, Any] = json.loads(out)
    assert report["catalogue"]["date"] == catalogue.date()
    return report


def test_the_abilities_of_the_command_line_are_those_of_models() -> None:
    assert [each.value for each in AbilityName] == list(Ability.__args__)  # type: ignore[attr-defined]


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    assert drawn(("a", "bb"), [("long", "1")], right={1}) == ["a     bb", "long   1"]
    assert [money(usd) for usd in (0, 2.5, 10, 0.075, 0.00625)] == ["0.00", "2.50", "10.00", "0.075", "0.00625"]


def test_on_a_narrow_terminal_columns_and_lines_are_wrapped() -> None:
    rows = [("a model with a name", "chat tools json vision"), ("m", "chat")]
    narrow = drawn(("model", "abilities"), rows, width=24)
    assert narrow == ["a model with a name", "    abilities chat tools", "    json vision", "m", "    abilities chat"]
    assert drawn(("model", "abilities"), rows, width=80) == drawn(("model", "abilities"), rows)
    assert wrapped("  ok  m: it is there", 14, 6) == ["  ok  m: it is", "      there"]
    assert wrapped("  ok  m: it is there", None, 6) == ["  ok  m: it is there"]
