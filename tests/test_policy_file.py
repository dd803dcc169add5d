"""Policy files: what is right becomes a policy; what is wrong is told with its place, all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from devsynth_providers import FREE, Limits, PolicyError, Price, Range, Retry, Timeouts, When
from devsynth_providers.policy.file import load_policy, packaged_names, parse_policy
from devsynth_providers.providers.registry import registry

GOOD = """
version: 1
models:
  gpt-4-turbo: {provider: openai, quality: 0.9}
  mine: {provider: openai, model: qwen3-32b, base_url: "http://gpu1:8000/v1", api_key_env: VLLM_KEY,
         context_window: 32768, price: {input_usd_per_1m: 0.1, output_usd_per_1m: 0.4}, tags: [own]}
  small: {provider: local, price: free, abilities: [chat], latency: {first_token_s: 0.4, tokens_per_s: 25}}
rules:
  - name: architecture
    when: {complexity: {above: 0.8}, task: design}
    models: [gpt-4-turbo, mine, small]
    prefer: best
    max_cost_usd: 0.05
    max_latency_s: 20
    min_quality: 0.7
  - name: everyday
    models: small
timeouts: {connect_s: 2, total_s: 90}
retry: {attempts: 2}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, file="p.yaml", providers=registry.names())
    return str(caught.value).splitlines()


def only(text: str) -> str:
    (problem,) = problems(text)
    return problem


def rule(text: str) -> str:
    return f"models: {{a: {{provider: openai}}, abc: {{provider: openai}}}}\nrules:\n{text}"


def test_a_file_becomes_a_policy() -> None:
    policy = parse_policy(GOOD, name="good", providers=registry.names())
    assert policy.name == "good"
    assert policy.models["small"].price == FREE
    assert policy.models["mine"].id == "qwen3-32b"
    assert policy.models["mine"].price == Price(input_usd_per_1m=0.1, output_usd_per_1m=0.4)
    first, last = policy.rules
    assert first.when == When(complexity=Range(above=0.8), task=("design",))
    assert Limits(max_cost_usd=0.05, max_latency_s=20, min_quality=0.7) == Limits().tightest(first)
    assert last.models == ("small",)
    assert policy.timeouts == Timeouts(connect_s=2, total_s=90)
    assert policy.retry == Retry(attempts=2)


def test_what_the_file_does_not_say_comes_from_the_catalogue() -> None:
    known = parse_policy(GOOD).models["gpt-4-turbo"]
    assert known.context_window == 128_000
    assert known.price is not None
    assert (known.price.input_usd_per_1m, known.price.output_usd_per_1m) == (10, 30)


def test_a_server_of_ones_own_does_not_get_the_price_of_the_model_it_is_named_after() -> None:
    text = GOOD.replace("gpt-4-turbo: {provider: openai", 'gpt-4-turbo: {provider: openai, base_url: "http://x/v1"')
    with pytest.raises(
        PolicyError, match="never ask 'gpt-4-turbo': its price is not known, and the rule has max_cost_usd"
    ):
        parse_policy(text)
    assert parse_policy(text.replace("max_cost_usd: 0.05", "")).models["gpt-4-turbo"].price is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (rule("  - {name: x, models: [a], max_cots_usd: 3}"), "3:28: unknown key 'max_cots_usd'; did you mean 'max_cost_usd'?"),
        (rule("  - {name: x, models: [abcd]}"), "3:24: no model is called 'abcd'; did you mean 'abc'?"),
        (rule("  - {name: x, models: [a, a]}"), "3:27: rule 'x' names 'a' twice"),
        (rule("  - {name: x, models: [a], prefer: cheepest}"), "did you mean 'cheapest'?"),
        (rule("  - {name: x, models: [a], max_cost_usd: -1}"), "3:42: max_cost_usd should be greater than or equal to 0, not -1"),
        (rule("  - {name: x, models: [a], max_cost_usd: '1'}"), '3:42: max_cost_usd should be a valid number, not "1"'),
        (rule("  - {name: x, models: [a], max_cost_usd: yes}"), "3:42: max_cost_usd should be a valid number, not true"),
        (rule("  - {name: x, models: [a], max_cost_usd: .inf}"), "3:42: .inf is not a number to count with"),
        (rule("  - {name: x, models: [a], max_latency_s: .nan}"), "3:43: .nan is not a number to count with"),
        (rule("  - {name: x, models: [a], min_quality: 70}"), "3:41: min_quality should be less than or equal to 1, not 70"),
        (rule("  - {name: x, models: []}"), "3:23: models should have at least 1 item"),
        (rule("  - {models: [a]}"), "3:5: rule 1 has no 'name', which is required"),
        (rule("  - {name: x, models: [a], when: {tsak: b}}"), "3:35: unknown key 'tsak'; did you mean 'task'?"),
        (
            rule("  - {name: x, models: [a], when: {complexity: {abov: 0.5}}}\n  - {name: y, models: [a]}"),
            "3:48: unknown key 'abov'; did you mean 'above'?",
        ),
        (rule("  - {name: x, models: [a], when: {task: b}}"), "3:5: the last rule does not match all requests; add a last"),
        (rule("  - {name: x, models: [a]}\n  - {name: y, models: [a]}"), "3:5: rule 'x' matches all, so that 'y' is never"),
        (
            rule("  - {name: x, models: [a], when: {task: b}}\n  - {name: x, models: [a]}"),
            "4:12: a second rule called 'x'",
        ),
        (rule("  - {name: x, models: [a]}\nplans: []"), "4:1: unknown key 'plans'"),
        (rule("  - {name: x, models: [a]}\nretry: {atempts: 2}"), "4:9: unknown key 'atempts'; did you mean 'attempts'?"),
        (rule("  - {name: x, models: [a]}\nretry: {attempts: 0}"), "4:19: attempts should be greater than or equal to 1"),
        (rule("  - {name: x, models: [a]}\nversion: 2"), "4:10: version should be 1, not 2"),
        ("models: {a: {provider: opnai}}\nrules: [{name: x, models: a}]", "1:24: no provider is called 'opnai'; did you mean"),
        ("models: {a: {}}\nrules: [{name: x, models: a}]", "1:13: model a has no 'provider', which is required"),
        ('models: {a: {provider: stub, api_key_env: sk-proj-abcdefgh12345678}}\nrules: [{name: x, models: a}]', "1:43: api_key_env is the name"),
        ("models: {a: {provider: stub, price: fre}}\nrules: [{name: x, models: a}]", '1:37: price should be a mapping, free, or catalogue, not "fre"'),
        (rule("  - {name: x, models: [a], max_cost_usd: 1e-3}"), "YAML wants a point before the e, as in 1.0e-3"),
        ("models:\n\ta: 1", "indent with spaces"),
        ("models: {a: }\nrules: [{name: x, models: a}]", "1:12: a should be a mapping, not null"),
        ("models: {a: {provider: stub, name: b}}\nrules: [{name: x, models: a}]", "1:30: unknown key 'name'"),
        (
            "models: {a: {provider: stub, price: catalogue}}\nrules: [{name: x, models: a}]",
            "1:37: the catalogue has no price of 'a'",
        ),
        (
            "models: {a: {provider: stub, price: {input_usd_per_1k: 1}}}\nrules: [{name: x, models: a}]",
            "1:38: unknown key 'input_usd_per_1k'; write input_usd_per_1m: 1000",
        ),
        (
            'models: {x: {provider: openai, price: catalogue, base_url: "http://x/v1"}}\nrules: [{name: x, models: x}]',
            "1:39: the catalogue knows no prices of servers of one's own; state it, or say free",
        ),
        ("models: {a: {provider: stub, abilities: [tool]}}\nrules: [{name: x, models: a}]", "did you mean 'tools'?"),
        ("models: {a: {provider: stub}, a: {provider: stub}}\nrules: [{name: x, models: a}]", "1:31: 'a' is here twice"),
        ("models: &m {}\nrules: []", "1:9: not YAML: anchors and aliases are not allowed"),
        ("models: !!python/name:os.system {}\nrules: []", "1:9: tags are not allowed"),
        ("models: {<<: {a: 1}}\nrules: []", "1:10: a key is a plain word here"),
        ("models: {? [a] : 1}\nrules: []", "1:12: a key is a plain word here"),
        ("a: {", "not YAML"),
        ("a: " + "[" * 30, "1:23: not YAML: deeper than 20 levels"),
        ("a: 1\n--- \nb: 2", "2:1: not YAML"),
        ("", "1:1: a policy is a mapping with the keys models and rules"),
        ("- a", "1:1: a policy is a mapping with the keys models and rules"),
        ("rules: [{name: x, models: a}]", "1:1: no 'models', which is required"),
        ("#" * (256 * 1024 + 1), "larger than 256 KiB"),
    ],
)  # fmt: skip
def test_every_mistake_is_told_with_its_place(text: str, problem: str) -> None:
    found = problems(text)
    assert any(problem in line for line in found), found
    assert all(line.startswith("p.yaml:") for line in found)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    found = problems("models: {a: {provider: stub, colour: red}}\nrules: [{name: x, models: a, prefer: no, cost: 1}]")
    assert [line.split(" ")[0] for line in found] == ["p.yaml:1:30:", "p.yaml:2:38:", "p.yaml:2:42:"]


def test_one_mistake_is_told_once() -> None:
    only(rule("  - {name: x, models: [a], max_latency_s: .nan}"))
    only("models: !!python/name:os.system {}\nrules: [{name: x, models: a}]")


def test_the_error_tells_place_and_suggestion_to_programs_too() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(rule("  - {name: x, modles: [a]}"), file="p.yaml")
    error = caught.value
    assert (error.file, error.line, error.column) == ("p.yaml", 3, 15)
    assert [each.suggestion for each in error.problems] == ["did you mean 'models'?"]


def test_a_key_in_the_place_of_a_variable_is_not_repeated() -> None:
    text = "models: {a: {provider: stub, api_key_env: sk-proj-abcdefgh12345678}}\nrules: [{name: x, models: a}]"
    assert "abcdefgh" not in only(text)


def test_a_file_that_is_not_there_is_told_with_the_names_that_are(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="did you mean 'balanced'"):
        load_policy("ballanced")
    with pytest.raises(PolicyError, match="packaged policies: balanced"):
        load_policy(tmp_path / "missing.yaml")
    with pytest.raises(PolicyError, match="can not be read"):
        load_policy(tmp_path)


def test_a_folder_of_the_same_name_does_not_hide_a_packaged_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "offline").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_policy("offline").name == "offline"


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"models: \xff")
    with pytest.raises(PolicyError, match="not UTF-8: byte 8"):
        load_policy(path)


@pytest.mark.parametrize("name", packaged_names())
def test_the_packaged_policies_are_right(name: str) -> None:
    assert load_policy(name, providers=registry.names()).name == name
