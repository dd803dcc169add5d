"""Prices, windows and abilities: dated, and what LiteLLM itself says."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import pathlib
import runpy
from typing import Any

import pytest

from devsynth_providers import FREE, Model, Price, Usage, catalogue
from devsynth_providers.policy.file import parse_policy

ROOT = pathlib.Path(__file__).parent.parent


def test_a_known_model_has_price_window_and_abilities() -> None:
    entry = catalogue.find("openai", "gpt-4o")
    assert entry is not None
    assert entry.price is not None
    assert (entry.price.input_usd_per_1m, entry.price.output_usd_per_1m) == (2.5, 10)
    assert entry.price.cached_input_usd_per_1m == 1.25
    assert entry.context_window == 128_000
    assert {"chat", "tools", "json", "vision"} <= entry.abilities


def test_another_providers_model_of_the_same_name_is_not_taken_for_it() -> None:
    assert catalogue.find("lmstudio", "gpt-4o") is None
    assert catalogue.find("openai", "no-such-model") is None


def test_what_a_policy_says_is_kept_and_only_the_rest_filled_in() -> None:
    model = catalogue.complete(Model(name="gpt-4o", provider="openai", price=FREE, context_window=10))
    assert (model.price, model.context_window) == (FREE, 10)
    assert model.max_output_tokens == 16_384


def test_a_price_of_nothing_is_not_a_price() -> None:
    rows = json.loads((ROOT / "devsynth_providers/catalogue.json").read_text())["models"].values()
    assert len(rows) > 1000
    assert all(any(row["price"].values()) for row in rows if "price" in row)


def test_it_is_dated_and_says_where_it_comes_from() -> None:
    assert datetime.date.fromisoformat(catalogue.date())
    assert importlib.metadata.version("litellm") in catalogue.source()


def test_a_model_by_litellms_name_is_the_one_of_the_provider_before_the_slash() -> None:
    gemini = catalogue.find("litellm", "gemini/gemini-2.5-pro")
    assert gemini is not None
    assert gemini.provider == "gemini"
    assert catalogue.find("litellm", "bedrock/ai21.jamba-instruct-v1:0") is not None
    assert catalogue.find("litellm", "azure/ai21.jamba-instruct-v1:0") is None
    assert catalogue.find("litellm", "gpt-4o") is None


def test_it_is_what_the_update_makes_of_the_installed_litellm() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "update-catalogue"))
    table = litellms_table()
    for name, row in ours().items():
        assert row == script["row"](table[name]), name


class TestAgainstLiteLLM:
    """Every figure, one kind at a time, read from LiteLLM's table here and not by the script that made ours."""

    @pytest.mark.parametrize(
        ("figure", "theirs"),
        [
            ("input", "input_cost_per_token"),
            ("output", "output_cost_per_token"),
            ("cached_input", "cache_read_input_token_cost"),
            ("cache_write", "cache_creation_input_token_cost"),
            ("reasoning", "output_cost_per_reasoning_token"),
        ],
    )
    def test_prices_are_theirs(self, figure: str, theirs: str) -> None:
        table = litellms_table()
        differ = {
            name: (row["price"].get(figure), table[name].get(theirs))
            for name, row in ours().items()
            if "price" in row and not same_price(row["price"].get(figure), table[name].get(theirs))
        }
        assert not differ, f"{figure}: {len(differ)} differ (ours per million, theirs per token): {differ}"

    def test_a_price_is_missing_only_where_they_have_none_or_nothing_but_zeros(self) -> None:
        table = litellms_table()
        differ = {
            name: (table[name]["input_cost_per_token"], table[name]["output_cost_per_token"])
            for name, row in ours().items()
            if "price" not in row
            and table[name].get("input_cost_per_token")
            and table[name].get("output_cost_per_token")
        }
        assert not differ, f"no price here, but one there: {differ}"

    @pytest.mark.parametrize(
        ("figure", "theirs"),
        [("window", "max_input_tokens"), ("max_output", "max_output_tokens"), ("retired", "deprecation_date")],
    )
    def test_windows_and_days_of_retirement_are_theirs(self, figure: str, theirs: str) -> None:
        table = litellms_table()
        differ = {}
        for name, row in ours().items():
            entry = table[name]
            expected = entry.get(theirs) or None
            if row["abilities"][0] == "embeddings":  # these answer with vectors, and have their window in max_tokens
                expected = {"window": expected or entry.get("max_tokens") or None, "max_output": None}.get(
                    figure, expected
                )
            if row.get(figure) != expected:
                differ[name] = (row.get(figure), expected)
        assert not differ, f"{figure}: {len(differ)} differ (ours, theirs): {differ}"

    def test_abilities_are_theirs(self) -> None:
        table = litellms_table()
        flags = {
            "tools": "supports_function_calling",
            "json": "supports_response_schema",
            "vision": "supports_vision",
            "audio": "supports_audio_input",
        }
        differ = {}
        for name, row in ours().items():
            work = "embeddings" if table[name]["mode"] == "embedding" else "chat"
            expected = {work} | {ability for ability, flag in flags.items() if table[name].get(flag)}
            if row["provider"].endswith(("anthropic", "anthropic_models")) and table[name].get(
                "supports_assistant_prefill"
            ):
                expected.add("prefill")  # of others, a message at the end is not enough
            if set(row["abilities"]) != expected:
                differ[name] = (row["abilities"], sorted(expected))
        assert not differ, f"{len(differ)} differ (ours, theirs): {differ}"

    def test_no_model_that_chats_or_embeds_is_missing_and_none_is_invented(self) -> None:
        modes = ("chat", "completion", "responses", "embedding")
        theirs = {
            name
            for name, entry in litellms_table().items()
            if name != "sample_spec" and entry.get("mode") in modes and entry.get("litellm_provider")
        }
        assert theirs == ours().keys()


class TestThreeStatesOfPrice:
    """Known, free by declaration, unknown: what a policy says, or the catalogue where it says nothing."""

    def price(self, facts: str) -> Price | None:
        policy = parse_policy(f"models: {{m: {{{facts}}}}}\nrules: [{{name: all, models: m}}]")
        return policy.models["m"].price

    def test_known_from_the_policy_wins_over_the_catalogue(self) -> None:
        price = self.price("provider: openai, model: gpt-4o, price: {input_usd_per_1m: 1, output_usd_per_1m: 2}")
        assert price == Price(input_usd_per_1m=1, output_usd_per_1m=2)

    @pytest.mark.parametrize("said", ["", ", price: catalogue"])
    def test_known_from_the_catalogue(self, said: str) -> None:
        price = self.price(f"provider: openai, model: gpt-4o{said}")
        assert price is not None
        assert (price.input_usd_per_1m, price.free) == (2.5, False)

    def test_free_only_where_it_is_declared(self) -> None:
        price = self.price("provider: openai, model: gpt-4o, price: free")
        assert price is not None
        assert price.free
        assert Model(name="m", provider="p", price=price).cost_basis(Usage(9, 9)) == "free"

    @pytest.mark.parametrize(
        "facts",
        [
            "provider: openai, model: no-such-model",
            "provider: lmstudio, model: gpt-4o",
            'provider: openai, model: gpt-4o, base_url: "http://gpu1/v1"',
        ],
    )
    def test_unknown_is_neither_free_nor_zero(self, facts: str) -> None:
        price = self.price(facts)
        assert price is None
        model = Model(name="m", provider="p", price=price)
        assert (model.cost_micros(Usage(9, 9)), model.cost_basis(Usage(9, 9))) == (None, "unknown")


def ours() -> dict[str, Any]:
    rows: dict[str, Any] = json.loads((ROOT / "devsynth_providers/catalogue.json").read_text())["models"]
    return rows


def litellms_table() -> dict[str, Any]:
    spec = importlib.util.find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    file = pathlib.Path(spec.origin).with_name("model_prices_and_context_window_backup.json")
    table: dict[str, Any] = json.loads(file.read_text())
    return table


def same_price(per_million: float | None, per_token: float | None) -> bool:
    if per_million is None or per_token is None:
        return per_million is per_token
    return per_million == pytest.approx(per_token * 1_000_000, rel=1e-6, abs=1e-6)
