"""The values that travel: what they refuse, how they count money, and that errors say what to do."""

from __future__ import annotations

import dataclasses
import pickle
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

import devsynth_providers as d
from devsynth_providers import errors, exceptions
from devsynth_providers.types import Attempt, Call, changed, take_context, total_cost

from .helpers import PRICED


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temperature": 2.1}, "temperature must be between 0 and 2"),
        ({"temperature": "hot"}, "temperature must be between 0 and 2"),
        ({"max_tokens": "5"}, "max_tokens must be positive, and a whole number"),
        ({"max_tokens": 5.5}, "max_tokens must be positive, and a whole number"),
        ({"max_tokens": True}, "max_tokens must be positive, and a whole number"),
        ({"seed": "a"}, "seed must be a whole number"),
        ({"max_cost_usd": "0.1"}, "max_cost_usd must be a number from 0 on"),
        ({"task": ["a"]}, "task must be text"),
        ({"project": "\ud800"}, "project holds a lone surrogate"),
        ({"messages": "hi"}, "messages is a list of messages"),
        ({"messages": [1]}, "a message is a Message, or a mapping"),
        ({"messages": [{}]}, "a message is a Message, or a mapping"),
        ({"messages": [{"role": "user"}]}, "a message needs content"),
        ({"temperature": float("nan")}, "temperature must be between 0 and 2"),
        ({"max_tokens": 0}, "max_tokens must be positive"),
        ({"top_p": 1.5}, "top_p must be between 0 and 1"),
        ({"max_cost_usd": -1}, "max_cost_usd must be a number from 0 on"),
        ({"max_cost_usd": float("inf")}, "max_cost_usd must be a number from 0 on"),
        ({"max_latency_s": float("nan")}, "max_latency_s must be a number from 0 on"),
        ({"max_cost": 1}, "unknown option 'max_cost'; did you mean 'max_cost_usd'"),
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"messages": [{"role": "robot", "content": ""}]}, "a message's role is one of"),
    ],
)
def test_wrong_arguments_are_refused_before_any_call(options: dict[str, object], told: str) -> None:
    with pytest.raises(d.InvalidRequest, match=told):
        d.ChatRequest.of("hi", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["\ud800", 7])
def test_text_that_no_provider_takes_is_refused(text: str) -> None:
    for make in (lambda: d.ChatRequest.of(text), lambda: d.EmbedRequest(texts=(text,))):
        with pytest.raises(d.InvalidRequest):
            make()


def test_nothing_to_ask_is_refused() -> None:
    for make in (
        lambda: d.ChatRequest.of(None),
        lambda: d.ChatRequest.of(""),
        lambda: d.EmbedRequest(texts=()),
        lambda: d.EmbedRequest(texts=("",)),
    ):
        with pytest.raises(d.InvalidRequest):
            make()


def test_a_request_is_made_from_what_callers_write() -> None:
    request = d.ChatRequest.of(
        "and now?",
        system_prompt="Be brief.",
        messages=[{"role": "user", "content": "a"}, d.Message("assistant", "b")],
        stop_sequences=["END"],
        task="review",
        tags=("x",),
        max_cost_usd=0.1,
        seed=7,
        min_tokens=3,  # type: ignore[call-arg]
    )
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "Be brief."),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "and now?"),
    ]
    assert request.limits == d.Limits(max_cost_usd=0.1)
    assert (request.task, request.tags, request.stop) == ("review", ("x",), ("END",))
    assert request.parameters == {"seed": 7, "min_tokens": 3}
    assert request.call == Call()


def test_a_conversation_with_tools_keeps_its_calls() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    request = d.ChatRequest.of(
        None,
        messages=[
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "found", "tool_call_id": "c1"},
        ],
    )
    assert request.messages[1].tool_calls == (d.ToolCall("c1", "find", "{}"),)
    assert request.messages[2].tool_call_id == "c1"


def test_context_is_taken_out_and_the_rest_left() -> None:
    options = {"task": "t", "tags": "one", "max_latency_s": 3, "seed": 1}
    assert take_context(options) == {"task": "t", "tags": ("one",), "limits": d.Limits(max_latency_s=3)}
    assert options == {"seed": 1}


def test_values_are_frozen() -> None:
    for value in (d.Usage(), d.Limits(), d.FREE, d.ChatRequest.of("x"), d.Chunk(), d.Timeouts(), d.Retry()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, None)


@given(
    st.integers(0, 10**7),
    st.integers(0, 10**6),
    st.decimals(0, 1000, places=6),
    st.decimals(0, 1000, places=6),
)
def test_cost_is_exact_and_rounded_up_to_the_millionth(
    tokens_in: int, tokens_out: int, in_: object, out: object
) -> None:
    price = d.Price(input_usd_per_1m=float(str(in_)), output_usd_per_1m=float(str(out)))
    exact = tokens_in * Fraction(str(in_)) + tokens_out * Fraction(str(out))
    assert price.cost_micros(d.Usage(tokens_in, tokens_out)) == -(-exact.numerator // exact.denominator)


def test_each_class_of_tokens_has_its_price_and_none_is_counted_twice() -> None:
    price = d.Price(
        input_usd_per_1m=10,
        output_usd_per_1m=30,
        cached_input_usd_per_1m=1,
        cache_write_usd_per_1m=12,
        reasoning_usd_per_1m=60,
    )
    usage = d.Usage(100, 50, cached_input_tokens=40, cache_write_tokens=20, reasoning_tokens=10)
    assert price.cost_micros(usage) == 40 * 10 + 40 * 1 + 20 * 12 + 40 * 30 + 10 * 60
    assert PRICED.cost_micros(usage) == 100 * 10 + 50 * 30


def attempt(cost: int | None, basis: d.types.CostBasis) -> Attempt:
    return Attempt(number=1, reason="primary", provider="p", model="m", latency_s=1, cost_micros=cost, cost_basis=basis)


def test_a_sum_of_costs_is_as_sure_as_the_least_sure_and_unknown_is_not_nothing() -> None:
    assert total_cost([attempt(3, "computed"), attempt(4, "estimated")]) == (7, "estimated")
    assert total_cost([attempt(3, "computed"), attempt(None, "unknown")]) == (None, "unknown")
    assert total_cost([attempt(0, "free")]) == (0, "free")


ALL_ERRORS = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.DevSynthError)
]


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_every_error_has_a_kind_of_its_own_and_can_be_pickled(kind: type[errors.DevSynthError]) -> None:
    assert [other for other in ALL_ERRORS if other.kind == kind.kind] == [kind]
    error: errors.DevSynthError
    if kind is errors.PolicyError:
        error = errors.PolicyError("p.yaml", [errors.Problem("bad", 3, 4, "do this")])
    elif kind is errors.AllProvidersFailed:
        error = errors.AllProvidersFailed("all", [errors.RateLimitError("a", model="x", status=429)])
    elif issubclass(kind, errors.ProviderError):
        error = kind("no", provider="p", model="m", status=400, code="c")
        error.attempts = (attempt(1, "computed"),)
    else:
        error = kind("no")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_the_table_in_the_docstring_is_true() -> None:
    """The tree that people read says for each error whether to try again; it must be what the classes say."""
    rows = [line.strip("│├└─ ").split() for line in (errors.__doc__ or "").splitlines() if "──" in line]
    seen = 0
    for row in rows:
        kind = getattr(errors, row[0])
        words = [word for word in row[1:] if word in ("yes", "no", "windows")]
        if kind in (errors.ProviderError, errors.AllProvidersFailed) or not issubclass(kind, errors.ProviderError):
            continue
        again, next_model, billed = (word != "no" for word in words[-3:])
        assert (kind.retryable, kind.passes_on, kind.billed) == (again, next_model, billed), row[0]
        seen += 1
    assert seen == len([e for e in ALL_ERRORS if issubclass(e, errors.ProviderError)]) - 2


def test_errors_can_be_had_under_the_name_that_devsynth_uses() -> None:
    for kind in ALL_ERRORS:
        assert getattr(exceptions, kind.__name__) is kind


def test_configuration_errors_are_value_errors() -> None:
    assert issubclass(d.ConfigurationError, ValueError)
    assert issubclass(d.InvalidRequest, ValueError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelled(d.ChatRequest):
    """Somebody's own kind of request, which has no slots."""

    label: str = "none"
    seen: list[str] = dataclasses.field(default_factory=list)

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "words", len(self.text.split()))


@pytest.mark.parametrize(
    "request_",
    [
        d.ChatRequest.of("hi", tools=[{}], stop_sequences="x", project="p", max_cost_usd=1, seed=3),
        d.EmbedRequest(texts=("a", "b"), tags=("t",)),
        Labelled(messages=(d.Message("user", "hi"),), label="mine"),
    ],
    ids=["chat", "embeddings", "without slots"],
)
def test_a_request_further_on_its_way_is_the_same_but_for_its_call(request_: d.Request) -> None:
    before = dataclasses.replace(request_)
    on = request_.on(id="one", reason="retry")
    assert on == dataclasses.replace(request_, call=dataclasses.replace(request_.call, id="one", reason="retry"))
    assert type(on) is type(request_)
    assert getattr(on, "words", None) == getattr(request_, "words", None)
    assert on.call.tally is request_.call.tally
    assert request_ == before
    assert changed(on, project="q").project == "q"
    with pytest.raises(dataclasses.FrozenInstanceError):
        on.project = "r"  # type: ignore[misc]
    with pytest.raises(KeyError):
        changed(on, nonsense=1)
