"""Prices, windows and abilities: dated, and what LiteLLM itself says."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import pathlib
import runpy

from devsynth_providers import FREE, Model, catalogue

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


def test_it_is_what_the_installed_litellm_says() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "update-catalogue"))
    spec = importlib.util.find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    table = json.loads(pathlib.Path(spec.origin).with_name(script["TABLE"]).read_text())
    ours = json.loads((ROOT / "devsynth_providers/catalogue.json").read_text())["models"]
    for name, row in ours.items():
        assert row == script["row"](table[name]), name
