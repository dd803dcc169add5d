"""The schema that editors use says of a file what the reader says, as far as one value can show it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from devsynth_providers import PolicyError
from devsynth_providers.policy.file import packaged_names, parse_policy
from devsynth_providers.policy.schema import policy_schema
from devsynth_providers.policy.sources import PACKAGED

MODELS = "models: {a: {provider: stub, price: free, tags: [t]}}\n"
ALL = "rules: [{name: all, models: a}]\n"
PLAIN = MODELS + ALL


@cache
def validator() -> Draft202012Validator:
    schema = json.loads((PACKAGED / "policy.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def valid(text: str) -> bool:
    return bool(validator().is_valid(yaml.safe_load(text)))


def right(text: str) -> bool:
    try:
        parse_policy(text, environment={"DEVSYNTH_X": "cheapest"})
    except PolicyError:
        return False
    return True


def test_the_committed_schema_and_the_reference_in_the_docs_are_current() -> None:
    """If not: scripts/update-schema."""
    script = PACKAGED.parent.parent / "scripts" / "update-schema"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_key_says_what_it_means_and_no_other_is_allowed() -> None:
    for name, kind in policy_schema()["$defs"].items():
        assert kind["additionalProperties"] is False, name
        silent = [key for key, each in kind["properties"].items() if not each.get("description")]
        assert (name, silent) == (name, [])


@pytest.mark.parametrize("name", packaged_names())
def test_the_packaged_policies_are_right_for_both(name: str) -> None:
    text = (PACKAGED / f"{name}.yaml").read_text(encoding="utf-8")
    assert [error.message for error in validator().iter_errors(yaml.safe_load(text))] == []
    assert right(text)


def rule(text: str) -> str:
    return f"{MODELS}rules: [{{name: x, models: a, {text}}}, {{name: all, models: a}}]"


RIGHT = [
    PLAIN,
    rule("when: {task: t, complexity: {between: [0.1, 0.2]}}"),
    rule("when: {not: {task: [t, u]}, any: [{role: r}, {needs: tools}], modality: [vision]}"),
    rule('when: {time_of_day: {from: "22:00", to: "06:00", days: mon}}'),
    rule("when: {task: t}, prefer: {quality: 3, cost: 1}"),
    rule("when: {task: t}, prefer: '${DEVSYNTH_X}'"),
    rule("when: {task: t}, models: 'tag:t'").replace("models: a, ", "", 1),
    "variables: [A, b_1]\n" + PLAIN,
    "variables: {A: x, B: null}\n" + PLAIN,
    "defaults: {prefer: best, min_quality: null}\n" + PLAIN,
    "unknown_price: {assume: {input_usd_per_1m: 1, output_usd_per_1m: 2}}\n" + PLAIN,
    "access: [{role: x, models: a}, {role: ['*'], max_cost_usd: 1}]\n" + PLAIN,
    "limits: {stub: {concurrent: 3}}\nbudgets: [{scope: role, limit_usd: 1, per: week}]\n" + PLAIN,
    "tests: [{prompt: x, needs: json, expect: {rule: all}}]\n" + PLAIN,
    "extends: ci",
    "extends: balanced\nmodels: {gpt-4o: {quality: null}, gpt-4o-mini: {latency: null}}",
    "extends: ci\nmodels: {new: {provider: stub, price: null}}",
    "extends: balanced\nmodels: {gpt-4o: {quality: 0.5, latency: {first_token_s: 1}}}\n",
]

WRONG = [
    "[]",
    "{}",
    MODELS,
    ALL,
    PLAIN + "colour: red",
    PLAIN + "version: 2",
    PLAIN + "extends: null",
    PLAIN + "extends: ''",
    PLAIN + "extends: [ci]",
    PLAIN + "extends: ${DEVSYNTH_X}",
    PLAIN + "name: 3",
    PLAIN + "retry: null",
    PLAIN + "retry: {attempts: 0}",
    PLAIN + "retry: {attempts: 1.5}",
    PLAIN + "timeouts: {total_s: 5s}",
    PLAIN + "timeouts: {total: 5}",
    PLAIN + "variables: [API_KEY]",
    PLAIN + "variables: {my_password: x}",
    PLAIN + "variables: [a b]",
    PLAIN + "variables: {A: 3}",
    PLAIN + "defaults: {when: {task: x}}",
    PLAIN + "defaults: {max_cost: 1}",
    PLAIN + "unknown_price: assume",
    PLAIN + "unknown_price: {assume: 1}",
    PLAIN + "access: [{models: a}]",
    PLAIN + "budgets: [{scope: planet, limit_usd: 1}]",
    PLAIN + "budgets: [{scope: role, limit_usd: 0}]",
    PLAIN + "limits: {stub: {concurrent: 0}}",
    PLAIN + "tests: [{prompt: x}]",
    "models: {a: {}}\n" + ALL,
    "models: {a: null}\n" + ALL,
    "models: {a: {provider: stub, name: b}}\n" + ALL,
    "models: {a: {provider: stub, price_assumed: true}}\n" + ALL,
    "models: {a: {provider: stub, price: cheap}}\n" + ALL,
    "models: {a: {provider: stub, price: {input_usd_per_1m: 1}}}\n" + ALL,
    "models: {a: {provider: stub, price: {input_usd_per_1m: -1, output_usd_per_1m: 1}}}\n" + ALL,
    "models: {a: {provider: stub, abilities: [sing]}}\n" + ALL,
    "models: {a: {provider: stub, quality: 70}}\n" + ALL,
    "models: {a: {provider: stub, context_window: 32k}}\n" + ALL,
    "models: {a: {provider: stub, latency: {first_token_s: 1}}}\n" + ALL,
    "models: {'tag:x': {provider: stub}, a: {provider: stub}}\n" + ALL,
    MODELS + "rules: []",
    MODELS + "rules: [{name: x}]",
    MODELS + "rules: [{models: a}]",
    MODELS + "rules: [{name: x, models: []}]",
    rule("when: {tsak: t}"),
    rule("when: {not_: {task: t}}"),
    rule("when: {time_of_day: {from_: '22:00'}}"),
    rule("when: {task: ['']}"),
    rule("when: {complexity: {between: [0.1]}}"),
    rule("when: {needs: [singing]}"),
    rule("when: {all: {task: t}}"),
    rule("when: null"),
    rule("when: {task: t}, prefer: cheepest"),
    rule("when: {task: t}, prefer: {speed: 3}"),
    rule("when: {task: t}, max_cost_usd: '0.05'"),
    rule("when: {task: t}, max_cost_usd: yes"),
    "extends: ci\nrules: [{models: a}]",
    "extends: ci\nmodels: {stub: {quality: 5}}",
    "extends: ci\naccess: [{max_cost_usd: 1}]",
    "extends: ci\ncolour: red",
]


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_right_for_the_reader_is_right_for_the_schema(text: str) -> None:
    assert right(text)
    assert valid(text)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_for_the_reader_is_wrong_for_the_schema(text: str) -> None:
    assert not right(text)
    assert not valid(text)


def test_numbers_are_not_made_of_variables() -> None:
    text = rule("when: {task: t}, max_cost_usd: '${DEVSYNTH_X}'")
    assert (right(text), valid(text)) == (False, False)
