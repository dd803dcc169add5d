"""What makes two requests one and the same, for whoever lets them share an answer."""

from __future__ import annotations

import enum
import math
import random
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from devsynth_providers import ChatRequest, EmbedRequest, Limits, Message
from devsynth_providers.types import Call, Request, Tenant, ToolCall, fingerprint

from .helpers import PRICED, model

TENANT = Tenant("billing", "developer")
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
CHAT = ChatRequest(
    messages=(Message("system", "Be short."), Message("user", "hi")),
    temperature=0,
    max_tokens=100,
    stop=("END",),
    tools=(TOOL,),
    parameters={"seed": 1, "logit_bias": {"50256": -100}},
)
EMBED = EmbedRequest(texts=("a", "b"))
MODELS = (model("a", base_url="http://one/v1"), model("b"))

OTHERWISE: dict[str, list[Any]] = {
    "messages": [
        (Message("user", "hi"),),
        (Message("user", "Be short."), Message("user", "hi")),
        (Message("system", "Be short.hi"), Message("user", "")),
        (*CHAT.messages, Message("assistant", "", (ToolCall("1", "find", "{}"),))),
        (*CHAT.messages, Message("assistant", "", (ToolCall("1", "find", "{ }"),))),
        (*CHAT.messages, Message("tool", "x", tool_call_id="1")),
        (*CHAT.messages, Message("tool", "x", tool_call_id="2")),
    ],
    "temperature": [0.1, 1],
    "max_tokens": [101],
    "stop": [(), ("END", "STOP"), ("EN", "D")],
    "tools": [(), (TOOL, TOOL), ({**TOOL, "type": "other"},)],
    "stream": [True],
    "parameters": [{}, {"seed": 1}, {"seed": 2, "logit_bias": {"50256": -100}}, {"seed": 1, "logit_bias": {}}],
}


def of(request: Request = CHAT, tenant: Tenant = TENANT, models: Any = MODELS, *decided: object) -> str | None:
    return fingerprint(tenant, request, models, *decided)


def test_equal_requests_have_one_fingerprint_and_another_one_where_anything_differs() -> None:
    others = [replace(CHAT, **{name: value}) for name, values in OTHERWISE.items() for value in values]
    others += [EMBED, EmbedRequest(texts=("ab",)), EmbedRequest(texts=("b", "a"))]  # type: ignore[list-item]
    prints = [of(), *map(of, others)]
    assert None not in prints
    assert len(set(prints)) == len(prints)
    again = replace(CHAT, parameters=dict(reversed(list(CHAT.parameters.items()))), messages=CHAT.messages)
    assert of(again) == of() == of(replace(CHAT, temperature=0.0))


def test_every_field_that_a_chat_has_counts() -> None:
    """Of a new one somebody has to say here how it may differ."""
    about = {field.name for field in fields(Request)}
    assert OTHERWISE.keys() == {field.name for field in fields(ChatRequest)} - about


def test_for_whom_it_is_is_the_tenants_to_say_and_how_it_is_decided_is_told_beside_it() -> None:
    told = {"project": "p", "role": "r", "task": "t", "tags": ("x",), "limits": Limits(max_cost_usd=1)}
    assert of(replace(CHAT, **told, call=Call(id="1", deadline=2.0))) == of()  # type: ignore[arg-type]
    assert Tenant.of(replace(CHAT, project="p", role="r")) == ("p", "r")
    assert len({of(), of(CHAT, TENANT, MODELS, "policy"), of(CHAT, TENANT, MODELS, "policy", "rule")}) == 3
    assert of(CHAT, TENANT, MODELS, Limits(max_cost_usd=1)) != of(CHAT, TENANT, MODELS, Limits(first_token_s=1))


@pytest.mark.parametrize(
    "tenant", [Tenant("billing", None), Tenant(None, "developer"), Tenant("developer", "billing"), Tenant("", "")]
)
def test_two_tenants_share_nothing(tenant: Tenant) -> None:
    assert of(tenant=tenant) != of()


name = st.none() | st.text(max_size=8)


@given(name, name, name, name)
def test_no_two_tenants_share_anything(
    one: str | None, role: str | None, other: str | None, second: str | None
) -> None:
    assert (of(tenant=Tenant(one, role)) == of(tenant=Tenant(other, second))) == ((one, role) == (other, second))


@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute of work, which a loaded machine takes its time for
def test_of_a_million_pairs_of_tenant_and_request_no_two_share_anything() -> None:
    """Names and prompts are of pieces that a separator, a quotation or a kind of value could be taken for."""
    draw = random.Random(11)
    pieces = [
        "",
        "a",
        "b",
        "ab",
        "null",
        "None",
        "0",
        '"',
        "'",
        ",",
        '","',
        "\\",
        "\n",
        "[",
        "]",
        ":",
        "é",
        "e\u0301",
        "\0",
    ]

    def texts(count: int) -> list[str]:
        made: dict[str, None] = {}
        while len(made) < count:
            made["".join(draw.choices(pieces, k=draw.randrange(1, 6)))] = None
        return list(made)

    names: list[str | None] = [None, *texts(99)]
    requests = [replace(CHAT, messages=(Message("user", text),), tools=(), parameters={}) for text in texts(100)]
    prints = {of(request, Tenant(*pair), MODELS[:1]) for pair in product(names, names) for request in requests}
    assert len(prints) == 1_000_000
    assert None not in prints


def test_the_models_count_in_their_order_by_who_they_are_and_not_by_what_they_cost() -> None:
    first, second = MODELS
    assert of(models=(first, replace(second, price=PRICED, quality=0.5))) == of()
    others = [
        (second, first),
        (first,),
        (first, second, second),
        (replace(first, base_url="http://two/v1"), second),
        (replace(first, name="c"), second),
        (replace(first, model="c"), second),
        (replace(first, provider="c"), second),
        (replace(first, path="c"), second),
        (replace(first, api_key_env="C"), second),
    ]
    prints = [of(), *(of(models=each) for each in others)]
    assert len(set(prints)) == len(prints)


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize("strange", [object(), {1, 2}, b"x", Colour.RED, Colour, {("a", "b"): 1}, [lambda: 0]])
def test_what_can_not_be_compared_is_like_nothing_else(strange: object) -> None:
    assert of(replace(CHAT, parameters={"x": strange})) is None
    round_and_round: dict[str, Any] = {}
    round_and_round["x"] = round_and_round
    assert of(replace(CHAT, parameters=round_and_round)) is None


class Name(str):
    @override
    def __repr__(self) -> str:
        return "'a'"


class Role(enum.StrEnum):
    DEVELOPER = "developer"


class Level(enum.IntEnum):
    ONE = 1


class Share(float):
    @override
    def __repr__(self) -> str:
        return "1"


@dataclass(frozen=True, init=False)
class Label(str):
    """A text that is a dataclass, too."""


class Turned(list[Any]):
    @override
    def __iter__(self) -> Iterator[Any]:
        return reversed(self)


def test_a_value_of_a_kind_of_ones_own_counts_as_the_text_or_number_that_it_is() -> None:
    assert of(tenant=Tenant("billing", Role.DEVELOPER)) == of()
    assert of(tenant=Tenant(Name("b"), "r")) == of(tenant=Tenant("b", "r")) != of(tenant=Tenant("a", "r"))
    assert of(models=(replace(MODELS[0], name=Name("c")),)) == of(models=(replace(MODELS[0], name="c"),))
    assert of(tenant=Tenant(Label("b"), "r")) == of(tenant=Tenant("b", "r")) != of(tenant=Tenant(Label("a"), "r"))
    pairs = [(Name("b"), "b"), (Level.ONE, 1), (Share(1.5), 1.5), (Share(2), 2), ([Name("b")], ["b"])]
    pairs += [(Label("b"), "b"), (Turned([1, 2]), [1, 2]), (OrderedDict(a=1), {"a": 1})]
    for own, plain in [*pairs, ({Name("b"): 1}, {"b": 1})]:
        assert of(replace(CHAT, parameters={"x": own})) == of(replace(CHAT, parameters={"x": plain}))


@pytest.mark.parametrize(
    "values", [[1, True, "1", "true", [1], {"1": 1}, {1: 1}, None, "null", [], {}, [["a", 1]], {"a": 1}, 1.5, "1.5"]]
)
def test_values_of_different_kinds_are_never_taken_for_each_other(values: list[Any]) -> None:
    prints = {of(replace(CHAT, parameters={"x": value})) for value in values}
    assert len(prints) == len(values)


any_text = st.text(max_size=2) | st.text(st.characters(categories=["Cs"]), max_size=2) | st.sampled_from(["nan", "'"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text | st.integers(0, 9), inner, max_size=3),
    max_leaves=6,
)


def strict(value: Any) -> Any:
    """*value* so that ``==`` tells truth values and numbers apart."""
    if isinstance(value, dict):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, list):
        return list(map(strict, value))
    if isinstance(value, float) and math.isnan(value):
        return ("no number",)
    return (isinstance(value, bool), value)


def disguised(value: Any) -> Any:
    """*value* of kinds of one's own, as far as there are some."""
    if isinstance(value, dict):
        return OrderedDict((disguised(key), disguised(each)) for key, each in value.items())
    if isinstance(value, list):
        return Turned(map(disguised, value))
    kinds: dict[type, Callable[[Any], Any]] = {str: Name, float: Share}
    return kinds.get(type(value), lambda value: value)(value)


@given(values, values)
def test_parameters_have_one_fingerprint_exactly_where_they_are_equal(one: Any, other: Any) -> None:
    one, other = ({"x": each} for each in (one, other))
    same = of(replace(CHAT, parameters=one)) == of(replace(CHAT, parameters=other))
    assert same == (strict(one) == strict(other))


@given(values)
def test_a_value_has_one_fingerprint_in_whatever_disguise(value: Any) -> None:
    print_ = of(replace(CHAT, parameters={"x": value}))
    assert print_ == of(replace(CHAT, parameters={"x": disguised(value)}))
    assert print_ is not None


def test_a_number_that_is_too_long_to_be_written_is_like_nothing_else() -> None:
    assert of(replace(CHAT, parameters={"x": 10**5000})) is None


@given(st.dictionaries(st.text(max_size=3), values, max_size=6).flatmap(lambda it: st.permutations(list(it.items()))))
def test_the_order_of_keys_says_nothing(items: list[tuple[str, Any]]) -> None:
    in_order = replace(EMBED, texts=("x",))
    assert of(in_order, TENANT, MODELS, dict(items)) == of(in_order, TENANT, MODELS, dict(sorted(items)))


def test_another_process_finds_the_same() -> None:
    code = "from tests.test_fingerprint import of; print(of())"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        assert done.stdout.strip() == of()
