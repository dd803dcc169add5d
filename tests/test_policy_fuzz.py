"""Whatever text a policy file has, it becomes a policy or a ``PolicyError`` that points into it, and soon."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devsynth_providers import Policy, PolicyError
from devsynth_providers.policy.file import packaged_names, parse_policy
from devsynth_providers.policy.sources import PACKAGED

LONG = 10.0
"""Seconds of computing that no file may take; a policy as people write them takes a few milliseconds."""

EXTENDING = """
extends: devsynth
variables: {HOST: here}
defaults: {max_expected_cost_usd: 1, prefer: {quality: 1}}
unknown_price: {assume: {input_usd_per_1m: 1, output_usd_per_1m: 2}}
models:
  claude-opus-5-5: null
  own: {provider: openai, base_url: "http://${HOST}/v1", price: free, tags: [code, own], latency: {first_token_s: 1, tokens_per_s: 9}}
rules:
  - {name: architecture, models: ["tag:own"], min_quality: null}
  - name: mine
    when: {not: {any: [{role: x}, {tags: [a, b]}]}, complexity: {between: [0.1, 0.5]}, time_of_day: {from: 22:00, days: mon}}
    models: tag:code
limits: {openai: {requests_per_minute: 5}}
budgets: [{scope: project, limit_usd: 500, per: month}]
"""
PLAIN = """
models: {a: {provider: stub, price: free, tags: [t]}}
rules: [{name: x, models: "tag:t", when: {task: t}, max_latency_s: 5}, {name: y, models: a}]
timeouts: {total_s: 5}
"""
REAL = [PLAIN, EXTENDING, *((PACKAGED / f"{name}.yaml").read_text(encoding="utf-8") for name in packaged_names())]

WORDS = (
    "models|rules|name|x|a|: |: |\n|\n  |- |{|}|[|]|, |1|-1|.nan|'|\"|provider: stub|price: free|when|complexity|above: 0.5"
    "|extends: ci\n|extends: |variables|defaults|not|from|all|any|tag:t|${HOST}|${|$$|$|null|true|&x|*x|!!str|!!int|#|<<|?|%"
    "|22:00|1e400|0x1f|0b1|1_0|2026-01-01|5s|$0.05|\t|\x85|\u2028|\ufeff|\x00|\ud800|\\ud800|\U0001f600|🜚|... \n|---\n"
    "|tests|access|budgets|limits|unknown_price|prefer|quality|max_cost|max_latency_ms|timeout|input|9" + "9" * 60
)
PIECES = st.sampled_from(WORDS.split("|")) | st.text(max_size=8)


@st.composite
def changed(draw: Callable[..., object]) -> str:
    """A real policy after a few accidents."""
    text = str(draw(st.sampled_from(REAL)))
    for _ in range(int(str(draw(st.integers(1, 5))))):
        lines = text.splitlines(keepends=True) or [""]
        tokens = re.findall(r"\w+|\s+|[^\w\s]", text) or [""]
        line = int(str(draw(st.integers(0, len(lines) - 1))))
        token, other = (int(str(draw(st.integers(0, len(tokens) - 1)))) for _ in range(2))
        match draw(st.sampled_from(["drop", "twice", "move", "swap", "replace", "insert", "cut"])):
            case "drop":
                del lines[line]
                text = "".join(lines)
            case "twice":
                text = "".join([*lines[: line + 1], *lines[line:]])
            case "move":
                text = "".join([*lines[:line], *lines[line + 1 :], lines[line]])
            case "swap":
                tokens[token], tokens[other] = tokens[other], tokens[token]
                text = "".join(tokens)
            case "replace":
                tokens[token] = str(draw(PIECES))
                text = "".join(tokens)
            case "insert":
                tokens.insert(token, str(draw(PIECES)))
                text = "".join(tokens)
            case _:
                text = "".join(tokens[:token])
    return text


def check(text: str) -> None:
    """The promise of this file, for one text."""
    begin = time.process_time()
    try:
        assert isinstance(parse_policy(text, file="p", environment={}), Policy)
    except PolicyError as error:
        assert error.problems
        assert str(error)
        lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
        for problem in error.problems:
            if problem.file == "p":
                assert 1 <= problem.line <= len(lines), problem
                assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1, problem
            else:
                assert None not in (problem.file, problem.line, problem.column), problem
    assert time.process_time() - begin < LONG


@pytest.mark.parametrize("text", REAL)
def test_real_policies_are_what_the_accidents_happen_to(text: str) -> None:
    assert parse_policy(text).rules


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(changed())
def test_a_real_policy_after_accidents(text: str) -> None:
    check(text)


@settings(deadline=None)
@given(st.text(max_size=300) | st.text(st.characters(), max_size=50))
@example("\ud800")
@example('"\\ud800"')
@example('a: "\\U0011ffff"')
@example('a: "\\UFFFFFFFF"')
@example("a: !!bool x")
@example("a: !!int x")
@example("a: !!float [x]")
@example("a: !!timestamp 5")
@example("a: !!binary x")
@example("%YAML 9.9\n--- a")
def test_any_text(text: str) -> None:
    check(text)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_what_looks_like_a_policy(text: str) -> None:
    check(text)


@settings(deadline=None, max_examples=50)
@given(
    st.recursive(PIECES, lambda inner: st.lists(inner, max_size=3).map(lambda all_: "{not: {all: [" + ", ".join(all_)))
)
def test_conditions_in_conditions(when: str) -> None:
    check(f"models: {{a: {{provider: stub}}}}\nrules: [{{name: x, models: a, when: {when}}}]")


KEY = "x" * 20

HUGE = {
    "brackets": "a: " + "[" * 100_000,
    "braces": "{a: " * 60_000,
    "dashes": "- " * 100_000,
    "questions": "? " * 100_000,
    "nested conditions": "rules: [{when: " + "{not: " * 15 + "{}" + "}" * 15 + "}]",
    "many models": "models: {" + ", ".join(f"m{n}: {{provider: stub, tags: t}}" for n in range(1500)) + "}\n"
    "rules: [" + ", ".join(f"{{name: r{n}, models: 'tag:t', when: {{task: t}}}}" for n in range(200)) + "]",
    "many names": "models: {a: {provider: stub}}\nrules: [{name: x, models: [" + "b, " * 9_000 + "]}]",
    "many wrong keys": "rules: [{" + ", ".join(f"{KEY}{n}: 1" for n in range(4_000)) + "}]",
    "many nearly right keys": "rules: [" + ", ".join("{max_cots_usd: 1}" for n in range(4_000)) + "]",
    "a long key": f"models: {{a: {{provider: stub, {'qualit' * 20_000}: 1}}}}",
    "a long word": f"{PLAIN}retry: {'cheepest' * 20_000}",
    "a long number": f"{PLAIN}retry: {{attempts: {'9' * 100_000}}}",
    "a long hexadecimal": f"{PLAIN}retry: {{attempts: 0x{'f' * 100_000}}}",
    "a number with the base 60": f"{PLAIN}retry: {{attempts: 1{':59' * 60_000}}}",
    "many variables": f"models: {{a: {{provider: stub, model: '{'${A}' * 30_000}'}}}}",
    "many open variables": f"models: {{a: {{provider: stub, model: '{'${' * 60_000}'}}}}",
    "many dollars": f"models: {{a: {{provider: stub, model: '{'$' * 120_000}'}}}}",
    "a long amount": f"{PLAIN.replace(': 5}', ': ' + '1_' * 50_000 + 's}')}",
    "spaces": " " * 200_000 + "\t",
    "quotes": '"' * 200_000,
    "comments": "#\n" * 100_000,
}


@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE)
def test_nothing_huge_takes_long(text: str) -> None:
    check(text)
