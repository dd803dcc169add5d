"""Where a streamed answer breaks off, another model goes on, and it shows. Time is virtual but for wires."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from devsynth_providers import (
    AnthropicProvider,
    AuthenticationError,
    ChatRequest,
    ContentFiltered,
    EmbedRequest,
    Model,
    OpenAIProvider,
    ProviderError,
    ProviderPort,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimitError,
    RequestRejected,
    Response,
    Router,
    StreamInterrupted,
    Timeouts,
    Usage,
)
from devsynth_providers.analysis import estimate_tokens
from devsynth_providers.layers.fallback import FallbackProvider
from devsynth_providers.layers.resuming import GO_ON, Resuming, continued
from devsynth_providers.layers.traced import Traced
from devsynth_providers.testing import ScriptedProvider, run_virtually
from devsynth_providers.types import Chunk, Message, ToolCallPart

from . import messages
from .helpers import NO_WAIT, PRICED, model, policy
from .loopback import Answer, Loopback, sse, usage_event

CUT = ProviderUnavailable("the connection was lost")
DOWN = ProviderUnavailable("down", status=503)
BEGUN = "Ports are what the core asks for, "
REST = "adapters are what the world offers."
WHOLE = BEGUN + REST
STREAM = ChatRequest.of("What is hexagonal?", stream=True)
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
CALL = Chunk(tool_calls=(ToolCallPart(0, "c1", "find", '{"x"'),))

Spans = Callable[[], list[ReadableSpan]]


def provider(name: str, *script: Any, **facts: Any) -> ScriptedProvider:
    return ScriptedProvider(*script, model=model(name, price=PRICED, **facts), usage=Usage(30, 40))


def router(*providers: ScriptedProvider, **rule: Any) -> Router:
    named = {each.model.name: each for each in providers}
    return Router(policy(*(each.model for each in providers), **{"on_break": "continue", **rule}), named)


async def heard(subject: ProviderPort, request: ChatRequest = STREAM) -> tuple[list[Chunk], Response]:
    async with await subject.send(request) as reply:
        chunks = [chunk async for chunk in reply]
    return chunks, reply.response


async def broken(subject: ProviderPort, request: ChatRequest = STREAM) -> tuple[StreamInterrupted, str]:
    """How it broke off, and what was delivered before."""
    text = ""
    with pytest.raises(StreamInterrupted) as caught:
        async with await subject.send(request) as reply:
            async for chunk in reply:
                text += chunk.text
    assert caught.value.partial == text == reply.response.text
    assert caught.value.attempts == reply.response.attempts
    return caught.value, text


def virtually(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_virtually(main())


class TestTheAnswer:
    def test_the_next_model_goes_on_and_the_answer_says_so(self) -> None:
        async def main() -> None:
            chunks, response = await heard(router(provider("a", (BEGUN, CUT)), provider("b", (REST[:9], REST[9:]))))
            assert "".join(chunk.text for chunk in chunks) == response.text == WHOLE
            assert [(chunk.text, chunk.continued_by) for chunk in chunks if chunk.text] == [
                (BEGUN, ""),
                (REST[:9], "b"),
                (REST[9:], ""),
            ]
            assert (response.model, response.finish_reason) == ("b", "stop")
            assert (response.continued_by, response.degraded) == (("b",), True)

        virtually(main)

    def test_both_halves_are_counted_and_paid(self) -> None:
        async def main() -> None:
            first = (Chunk(BEGUN), Chunk(usage=Usage(30, 10, cached_input_tokens=4)), CUT)
            _, response = await heard(router(provider("a", first), provider("b", REST)))
            assert [(each.model, each.reason, each.error) for each in response.attempts] == [
                ("a", "primary", "stream_interrupted"),
                ("b", "continuation", None),
            ]
            assert response.usage == Usage(60, 50, cached_input_tokens=4)
            assert response.cost_usd == sum(each.cost_usd or 0 for each in response.attempts) == 0.0021
            assert response.cost_basis == "computed"

        virtually(main)

    def test_an_answer_that_does_not_break_off_is_as_without(self) -> None:
        async def main() -> None:
            line = (Chunk(BEGUN, model="served"), REST)
            with_it = await heard(router(provider("a", line), provider("b")))
            without = await heard(router(provider("a", line), provider("b"), on_break="raise"))
            assert with_it[0] == without[0]
            same: dict[str, Any] = {"plan": None, "latency_s": 0, "first_token_s": 0}
            assert replace(with_it[1], attempts=(), **same) == replace(without[1], attempts=(), **same)
            assert (with_it[1].response_model, with_it[1].degraded, with_it[1].continued_by) == ("served", False, ())

        virtually(main)

    def test_who_ended_it_is_who_answered(self) -> None:
        async def main() -> None:
            first, second = provider("a", (Chunk(BEGUN, model="a-1"), CUT)), provider("b", Chunk(REST, model="b-1"))
            assert (await heard(router(first, second)))[1].response_model == "b-1"
            first, second = provider("a", (Chunk(BEGUN, model="a-1"), CUT)), provider("b", REST)
            assert (await heard(router(first, second)))[1].response_model == ""

        virtually(main)

    def test_what_is_repeated_is_left_out_and_the_marker_stands_on_what_is_new(self) -> None:
        async def main() -> None:
            second = provider("b", ("what the core ", "asks for, ", REST))
            chunks, _ = await heard(router(provider("a", (BEGUN, CUT)), second))
            assert [(chunk.text, chunk.continued_by) for chunk in chunks if chunk.text] == [(BEGUN, ""), (REST, "b")]
            chunks, _ = await heard(router(provider("a", (BEGUN, CUT)), provider("b", BEGUN)))
            assert [(chunk.text, chunk.continued_by) for chunk in chunks] == [(BEGUN, ""), ("", "b")]

        virtually(main)

    def test_while_it_is_read_it_tells_who_speaks(self) -> None:
        async def main() -> None:
            async with await router(provider("a", (BEGUN, CUT)), provider("b", REST)).send(STREAM) as reply:
                told = [(reply.response.model, reply.response.degraded) async for _ in reply]
            assert told == [("a", False), ("b", True), ("b", True)]

        virtually(main)

    def test_whoever_shares_it_hears_the_same_also_who_leaves_early(self) -> None:
        async def main() -> None:
            subject = router(provider("a", (BEGUN, CUT)), provider("b", ("adapters ", 1.0, "are.")), coalesce="always")
            stays = asyncio.create_task(heard(subject))
            async with await subject.send(STREAM) as reply:
                leaves = [await anext(reply), await anext(reply)]
            assert [chunk.continued_by for chunk in leaves] == ["", "b"]
            assert (reply.response.model, reply.response.degraded) == ("b", True)
            response = (await stays)[1]
            assert (response.text, response.model, response.continued_by) == (BEGUN + "adapters are.", "b", ("b",))

        virtually(main)

    def test_by_default_nobody_goes_on(self) -> None:
        async def main() -> None:
            second = provider("b")
            error, text = await broken(router(provider("a", (BEGUN, CUT)), second, on_break="raise"))
            assert (text, second.requests, len(error.attempts)) == (BEGUN, [], 1)

        virtually(main)


class TestWhatIsAsked:
    def ask_on(self, second: ScriptedProvider, request: ChatRequest = STREAM, begun: str = BEGUN) -> ChatRequest:
        async def main() -> None:
            await heard(router(provider("a", (begun, CUT)), second), request)

        virtually(main)
        (asked,) = second.requests
        assert isinstance(asked, ChatRequest)
        return asked

    def test_a_model_is_given_what_was_said_and_told_to_go_on(self) -> None:
        asked = self.ask_on(provider("b", REST))
        assert asked.messages == (*STREAM.messages, Message("assistant", BEGUN.rstrip()), Message("user", GO_ON))

    def test_one_that_can_is_given_the_beginning_of_its_answer(self) -> None:
        able = frozenset(("chat", "prefill"))
        asked = self.ask_on(provider("b", " " + REST, abilities=able))
        assert asked.messages == (*STREAM.messages, Message("assistant", BEGUN.rstrip()))
        thinks = self.ask_on(provider("b", REST, abilities=able), replace(STREAM, parameters={"thinking": {}}))
        assert thinks.messages[-1] == Message("user", GO_ON)

    def test_a_beginning_of_the_callers_own_is_gone_on_with(self) -> None:
        said = ChatRequest.of(messages=[Message("user", "hi"), Message("assistant", "Well: ")], stream=True)
        asked = self.ask_on(provider("b", REST, abilities=frozenset(("chat", "prefill"))), said)
        assert asked.messages == (Message("user", "hi"), Message("assistant", "Well: " + BEGUN.rstrip()))

    def test_after_white_space_alone_it_is_asked_as_the_first_was(self) -> None:
        assert self.ask_on(provider("b", " \nHello"), begun=" \n").messages == STREAM.messages

    def test_everything_else_is_as_it_was_but_the_tokens_that_are_left(self) -> None:
        request = replace(
            STREAM, temperature=0.1, max_tokens=50, stop=("END",), tools=(TOOL,), parameters={"top_p": 0.5}, task="x"
        )
        asked = self.ask_on(provider("b", REST), request)
        assert asked.max_tokens == 50 - estimate_tokens(BEGUN)
        assert (asked.call.reason, asked.call.attempt) == ("continuation", 2)
        assert replace(asked, messages=request.messages, max_tokens=50, call=request.call) == request

    def test_when_no_tokens_are_left_the_answer_is_truncated_and_nobody_is_asked(self) -> None:
        async def main() -> None:
            second = provider("b")
            request = replace(STREAM, max_tokens=estimate_tokens(BEGUN))
            _, response = await heard(router(provider("a", (BEGUN, CUT)), second), request)
            assert (response.text, response.truncated, response.model) == (BEGUN, True, "a")
            assert (second.requests, response.continued_by) == ([], ())

        virtually(main)


class TestWhoIsAsked:
    def test_not_those_that_have_failed_before(self) -> None:
        async def main() -> None:
            down, first, third = (
                provider("a", QuotaExhausted("spent")),
                provider("b", (BEGUN, CUT)),
                provider("c", REST),
            )
            _, response = await heard(router(down, first, third))
            assert [each.model for each in response.attempts] == ["a", "b", "c"]
            assert [each.reason for each in response.attempts] == ["primary", "fallback", "continuation"]

        virtually(main)

    def test_whoever_broke_off_if_nothing_else_is_left(self) -> None:
        async def main() -> None:
            only = provider("a", (BEGUN, CUT), REST)
            _, response = await heard(router(only))
            assert (response.text, response.model, response.degraded) == (WHOLE, "a", True)
            assert response.continued_by == ("a",)
            first, second = provider("a", (BEGUN, CUT), REST), provider("b", QuotaExhausted("spent"))
            _, response = await heard(router(first, second))
            assert [each.model for each in response.attempts] == ["a", "b", "a"]

        virtually(main)

    def test_the_next_if_one_goes_on_and_breaks_off_too_and_not_more_than_there_are(self) -> None:
        async def main() -> None:
            first, second = provider("a", ("one two three, ", CUT)), provider("b", ("four five six, ", CUT))
            third = provider("c", ("five six, seven, ", CUT), ("eight.", CUT))
            error, text = await broken(router(first, second, third))
            assert text == "one two three, four five six, five six, seven, eight."
            assert [each.model for each in error.attempts] == ["a", "b", "c", "c"]
            assert [each.reason for each in error.attempts] == ["primary", *["continuation"] * 3]
            assert f"after {len(text)} characters" in str(error)

        virtually(main)

    def test_one_that_is_down_has_its_retries_and_then_it_is_the_nexts_turn(self) -> None:
        async def main() -> None:
            second = provider("b", DOWN, DOWN, DOWN)
            third = provider("c", RateLimitError("slow"), REST)
            _, response = await heard(router(provider("a", (BEGUN, CUT)), second, third))
            assert [each.reason for each in response.attempts] == [
                "primary",
                *("continuation", "retry", "retry"),
                *("continuation", "retry"),
            ]
            assert (response.model, response.text) == ("c", WHOLE)

        virtually(main)

    def test_only_those_whose_window_holds_what_was_asked_and_said(self) -> None:
        async def main() -> None:
            said, request = "the core and its ports " * 100, replace(STREAM, max_tokens=1000)
            needed = estimate_tokens(continued(request, said, 1, prefill=False).text)
            small, large = provider("b", context_window=1010), provider("c", REST, context_window=1010 + needed)
            first = provider("a", ("the core and its ports " * 199, CUT))  # leaves a few tokens of the thousand
            _, response = await heard(router(first, small, large), request)
            assert response.continued_by == ("c",)
            just = provider("b", REST, context_window=1010)  # for the prompt and the answer; not for being told, too
            await heard(router(provider("a", (said, CUT)), just), request)
            (asked,) = just.requests
            assert isinstance(asked, ChatRequest)
            assert asked.max_tokens == 1010 - needed < 1000 - estimate_tokens(said)

        virtually(main)

    def test_nobody_past_the_deadline(self) -> None:
        async def main() -> None:
            second = provider("b")
            clocks = Timeouts(total_s=3, idle_s=10)
            named = {"a": provider("a", (BEGUN, 5.0, REST)), "b": second}
            subject = Router(policy(model("a"), model("b"), timeouts=clocks, on_break="continue"), named)
            error, text = await broken(subject)
            assert (text, second.requests) == (BEGUN, [])
            assert "past the deadline" in str(error)

        virtually(main)

    def test_nobody_who_can_not_be_paid(self, spans: Spans) -> None:
        async def main() -> None:
            dear, cheap = provider("b"), provider("c", REST, abilities=frozenset(("chat",)))
            worst = dear.model.worst_micros(200, 1000)
            assert worst is not None
            subject = router(provider("a", (BEGUN, CUT)), dear, max_cost_usd=1.5 * worst / 1e6)
            error, text = await broken(subject)
            assert (text, dear.requests, len(error.attempts)) == (BEGUN, [], 1)
            assert told(spans(), "stream.not_continued")["reason"] == "budget_exceeded"
            free = ScriptedProvider(REST, model=model("c"))
            subject = router(provider("a", (BEGUN, CUT)), dear, free, max_cost_usd=1.5 * worst / 1e6)
            assert (await heard(subject))[1].continued_by == ("c",)
            assert cheap.requests == []

        virtually(main)


class TestWhatIsGoneOnWith:
    @pytest.mark.parametrize(
        "line",
        [
            (BEGUN, CUT),
            (BEGUN, 100.0, "late"),
            (BEGUN, AuthenticationError("who are you?")),
            (BEGUN, RequestRejected("what is that?")),
            (BEGUN, StreamInterrupted("cut")),
        ],
    )
    def test_connections_that_are_lost_or_stall_and_errors_in_the_middle(self, line: Any) -> None:
        async def main() -> None:
            assert (await heard(router(provider("a", line), provider("b", REST))))[1].text == WHOLE

        virtually(main)

    @pytest.mark.parametrize("line", [(BEGUN, ContentFiltered("not here")), (BEGUN, AuthenticationError("who?"))])
    def test_not_what_the_rule_says_stops(self, line: Any) -> None:
        async def main() -> None:
            second = provider("b")
            with pytest.raises(ProviderError) as caught:
                await heard(router(provider("a", line), second, on_auth="raise"))
            assert getattr(caught.value, "partial", None) == BEGUN
            assert second.requests == []

        virtually(main)

    def test_a_refusal_to_go_on_by_content_ends_it_unless_the_rule_says_otherwise(self) -> None:
        async def main() -> None:
            second, third = provider("b", ContentFiltered("not here")), provider("c", REST)
            error, text = await broken(router(provider("a", (BEGUN, CUT)), second, third))
            assert (text, third.requests) == (BEGUN, [])
            assert [each.error for each in error.attempts] == ["stream_interrupted", "content_filtered"]
            second = provider("b", ContentFiltered("not here"))
            subject = router(provider("a", (BEGUN, CUT)), second, third, on_content_filter="next")
            assert (await heard(subject))[1].text == WHOLE

        virtually(main)

    def test_what_a_filter_stops_in_the_second_half_has_both_as_its_part(self) -> None:
        async def main() -> None:
            second = provider("b", ("adapters, ", ContentFiltered("not here")))
            with pytest.raises(ContentFiltered) as caught:
                await heard(router(provider("a", (BEGUN, CUT)), second))
            assert caught.value.partial == BEGUN + "adapters, "

        virtually(main)

    @pytest.mark.parametrize(
        ("line", "options", "why"),
        [
            ((BEGUN, CALL, CUT), {"tools": (TOOL,)}, "tool_call"),
            ((CALL, CUT), {"tools": (TOOL,)}, "tool_call"),
            ((BEGUN + '<tool_call>{"name"', CUT), {"tools": (TOOL,)}, "tool_call"),
            (('{"a": ', CUT), {"parameters": {"response_format": {"type": "json_object"}}}, "response_format"),
            (('{"a": ', CUT), {"parameters": {"extra_body": {"guided_json": {}}}}, "response_format"),
            (("half of a sign: \ud83d", CUT), {}, "half_a_character"),
        ],
    )
    def test_never_calls_of_tools_nor_json_and_the_trace_says_why(
        self, line: Any, options: dict[str, Any], why: str, spans: Spans
    ) -> None:
        async def main() -> None:
            second = provider("b")
            await broken(router(provider("a", line), second), replace(STREAM, **options))
            assert second.requests == []
            event = told(spans(), "stream.not_continued")
            assert (event["model"], event["reason"]) == ("a", why)

        virtually(main)

    def test_a_call_in_the_second_half_is_whole_or_breaks_off(self) -> None:
        async def main() -> None:
            rest = Chunk(tool_calls=(ToolCallPart(0, arguments=":1}"),), finish_reason="tool_calls")
            request = replace(STREAM, tools=(TOOL,))
            _, response = await heard(router(provider("a", (BEGUN, CUT)), provider("b", ("Wait", CALL, rest))), request)
            assert (response.text, response.tool_calls[0].arguments) == (BEGUN + "Wait", '{"x":1}')
            third = provider("c")
            await broken(router(provider("a", (BEGUN, CUT)), provider("b", (CALL, CUT)), third), request)
            assert third.requests == []

        virtually(main)

    def test_whole_answers_and_vectors_go_through(self) -> None:
        async def main() -> None:
            first = ScriptedProvider(WHOLE, "", model=model("a", price=PRICED))
            subject = Resuming(FallbackProvider([first]), [first])
            assert await subject.generate("hi") == WHOLE
            assert (await subject.complete(EmbedRequest(texts=("abc",)))).vectors == ((3.0, 1.0),)

        virtually(main)

    def test_what_was_held_back_of_a_half_that_breaks_off_is_forgotten(self) -> None:
        async def main() -> None:
            second, third = provider("b", ("what the core ", CUT)), provider("c", REST)
            _, response = await heard(router(provider("a", (BEGUN, CUT)), second, third))
            assert response.text == WHOLE
            assert response.continued_by == ("c",)
            assert response.usage.output_tokens == estimate_tokens(BEGUN) + 40
            assert len(response.attempts) == 3

        virtually(main)


class TestLeaving:
    @pytest.mark.parametrize("pieces", [1, 2])
    def test_an_answer_that_is_left_is_closed_and_nobody_is_asked(self, pieces: int) -> None:
        async def main() -> None:
            first, second = provider("a", (BEGUN, CUT)), provider("b", ("adapters", " are", " what"))
            async with await router(first, second).send(STREAM) as reply:
                for _ in range(pieces):
                    await anext(reply)
            assert [first.closed, second.closed] == [1, pieces - 1]
            assert len(second.requests) == len(reply.response.continued_by) == pieces - 1
            assert reply.response.finish_reason is None
            assert len(reply.response.attempts) == pieces

        virtually(main)

    def test_one_that_is_dropped_is_closed_at_once(self) -> None:
        async def main() -> None:
            first, second = provider("a", (BEGUN, CUT)), provider("b", ("adapters", " are", " what"))
            gc.disable()  # nothing may need it
            try:
                reply = await Resuming(FallbackProvider([first, second]), [first, second]).send(STREAM)
                await anext(reply)
                await anext(reply)
                with pytest.warns(ResourceWarning, match="forgotten before its end") as warned:
                    del reply
                await asyncio.sleep(0.001)
                assert ([first.closed, second.closed], len(warned)) == ([1, 1], 1)
            finally:
                gc.enable()

        virtually(main)

    def test_a_caller_who_is_cancelled_while_another_is_asked_leaves_nothing_behind(self) -> None:
        async def main() -> None:
            first, second = provider("a", (BEGUN, CUT)), provider("b", (10.0, REST))
            reply = await router(first, second).send(STREAM)
            task = asyncio.create_task(reply.read())
            await asyncio.sleep(5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.get_running_loop().time() == 5
            assert (reply.text, first.closed, second.closed) == (BEGUN, 1, 1)
            assert len(asyncio.all_tasks()) == 1

        virtually(main)


def told(spans: list[ReadableSpan], name: str) -> dict[str, Any]:
    """The one event of that name, which is the request's."""
    request = next(span for span in spans if span.parent is None)
    (event,) = [event for span in spans for event in span.events if event.name == name]
    assert event in request.events
    return dict(event.attributes or {})


class TestTheTrace:
    def test_the_second_half_is_an_attempt_of_the_request_wherever_it_is_read(self, spans: Spans) -> None:
        async def main() -> None:
            subject = router(provider("a", (BEGUN, CUT)), provider("b", ("asks for, ", REST)))
            reply = await subject.send(STREAM)
            with trace.get_tracer("reader").start_as_current_span("reader"):
                await reply.read()

        virtually(main)
        seen = [span for span in spans() if span.name != "reader"]
        request, first, second = seen
        assert request.context is not None
        assert {span.parent.span_id for span in (first, second) if span.parent} == {request.context.span_id}
        assert (first.attributes or {})["error.type"] == "stream_interrupted"
        assert (second.attributes or {})["devsynth.attempt.reason"] == "continuation"
        assert request.status.status_code is StatusCode.UNSET
        facts = dict(request.attributes or {})
        assert (facts["devsynth.stream.continued"], facts["devsynth.degraded"]) == (True, True)
        assert (facts["devsynth.attempts"], facts["gen_ai.response.model"]) == (2, "b")
        event = told(seen, "stream.continued")
        assert event == {"from": "a", "to": "b", "characters": len(BEGUN), "overlap": 0}

    def test_how_much_was_repeated_is_told(self, spans: Spans) -> None:
        async def main() -> None:
            await heard(router(provider("a", (BEGUN, CUT)), provider("b", WHOLE)))

        virtually(main)
        assert told(spans(), "stream.continued")["overlap"] == len(BEGUN)

    @pytest.mark.parametrize("coalesce", ["always", "never"])
    def test_an_answer_that_its_own_model_went_on_with_is_degraded_too(self, coalesce: str, spans: Spans) -> None:
        async def main() -> None:
            await heard(router(provider("a", (BEGUN, CUT), REST), coalesce=coalesce))

        virtually(main)
        assert (spans()[0].attributes or {})["devsynth.degraded"] is True

    def test_an_answer_that_did_not_break_off_has_no_mark(self, spans: Spans) -> None:
        async def main() -> None:
            await heard(router(provider("a", WHOLE)))

        virtually(main)
        assert "devsynth.stream.continued" not in (spans()[0].attributes or {})


WORDS = st.lists(st.sampled_from(("port ", "adapter ", "é", "the core ", "\n\n", "hexagon ", "1000")), min_size=1)


@settings(max_examples=150)
@given(st.data())
def test_a_text_that_is_gone_on_with_rightly_is_whole_again_and_any_other_is_only_added(data: st.DataObject) -> None:
    text = data.draw(st.text(min_size=1, max_size=80) | WORDS.map("".join))
    before = text[: data.draw(st.integers(1, len(text)))]
    said = before.rstrip()
    repeated = said[len(said) - data.draw(st.sampled_from([0, *range(12, len(said) + 1)])) :]
    rightly = data.draw(st.booleans())
    after = repeated + text[len(said) :] if rightly else data.draw(st.text(max_size=30))
    assume(after)  # nothing at all is no answer
    size = data.draw(st.integers(1, 20))

    async def main() -> None:
        first = ScriptedProvider((before, CUT), model=model("a"))
        second = ScriptedProvider([after[at : at + size] for at in range(0, len(after), size)], model=model("b"))
        subject = Resuming(Traced(first), [second])
        delivered = (await heard(subject, replace(STREAM, max_tokens=10_000)))[1].text
        (asked,) = second.requests
        assert isinstance(asked, ChatRequest)
        assert asked.messages[1:2] == ((Message("assistant", said),) if said else ())
        left_out = len(before) + len(after) - len(delivered)
        assert delivered == before + after[left_out:]
        assert any(
            said.endswith(after[:split]) and before.endswith(after[split:left_out]) for split in range(left_out + 1)
        )
        patterned = any(repeated[step:] == repeated[:-step] for step in range(1, len(repeated) // 2 + 1))
        if rightly and text.count(said[-12:]) == 1 and not patterned:
            assert delivered == text

    virtually(main)


@pytest.fixture
def second() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.mark.slow
class TestOnWires:
    """A recorded stream, cut at every byte, and a second server that goes on from what came."""

    pytestmark = pytest.mark.litellm
    TEXTS = ("Ports are what the", " core asks. ", "Adapters: é")
    TEXT = "".join(TEXTS)

    first: Loopback
    second: Loopback
    speaks: Callable[..., Answer]
    anthropic_stream = staticmethod(messages.stream)

    @staticmethod
    def openai_stream(*texts: str) -> Answer:
        """As terse as servers are that send only what is needed: each byte costs two calls."""
        pieces: list[Any] = [{"choices": [{"delta": {"content": text}}]} for text in texts]
        pieces += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, usage_event(), "[DONE]"]
        return sse(*pieces)

    @staticmethod
    def openai(server: Loopback, name: str, transport: Any = "auto") -> ProviderPort:
        facts = Model(name=name, provider="openai", base_url=server.url, context_window=100_000)
        return OpenAIProvider(facts, api_key="k", transport=transport)

    @staticmethod
    def anthropic(server: Loopback, name: str, transport: Any = "auto") -> ProviderPort:
        able: Any = frozenset(("chat", "prefill"))
        url = server.url.removesuffix("/v1")
        facts = Model(name=name, provider="anthropic", base_url=url, context_window=100_000, abilities=able)
        return AnthropicProvider(facts, api_key="k", transport=transport)

    def goes_on(self, asked: dict[str, Any]) -> Answer:
        """The rest of the text, after some of the end of what there is; another one, to whoever asks from the start."""
        said = [each["content"] for each in asked["messages"] if each["role"] == "assistant"]
        if not said:
            return self.speaks("Another", " answer")
        begun = said[0] if isinstance(said[0], str) else said[0][0]["text"]
        assert self.TEXT.startswith(begun)
        rest = begun[-15:] + self.TEXT[len(begun) :]
        return self.speaks(rest[:5], rest[5:])

    async def cut_everywhere(
        self, recorded: Answer, near: ProviderPort, far: ProviderPort, on_break: str, step: int = 1
    ) -> set[str]:
        """How it may end, after each cut has been looked at."""
        raw = b"".join(piece for piece in recorded.pieces if isinstance(piece, bytes))
        rules = policy(near.model, far.model, retry=replace(NO_WAIT, attempts=1), on_break=on_break)
        ends = set[str]()
        for cut in range(0, len(raw) + 1, step):
            self.first.script(Answer([raw[:cut]], content_type="text/event-stream"))
            subject = Router(rules, {near.model.name: near, far.model.name: far})  # with circuits of its own
            text = ""
            try:
                async with await subject.send(STREAM) as reply:
                    async for chunk in reply:
                        text += chunk.text
            except StreamInterrupted as error:
                assert self.TEXT.startswith(text)
                assert error.partial == text
                ends.add("broken off")
                continue
            response = reply.response
            assert (response.text, response.finish_reason) == (text, "stop")
            passed_on = response.model == "b" and not response.continued_by
            assert text == ("Another answer" if passed_on else self.TEXT), cut
            ends.add("passed on" if passed_on else "continued" if response.continued_by else "whole")
        return ends

    @pytest.fixture(autouse=True)
    def _servers(self, server: Loopback, second: Loopback) -> None:
        self.first = server
        second.script(self.goes_on)
        self.second = second

    @pytest.mark.timeout(600)  # thousands of calls
    @pytest.mark.parametrize(("first", "then"), [("openai", "anthropic"), ("anthropic", "openai")])
    async def test_cut_at_every_byte_it_is_whole_again(self, first: str, then: str) -> None:
        self.speaks = getattr(self, f"{then}_stream")
        recorded = getattr(self, f"{first}_stream")(*self.TEXTS)
        async with getattr(self, first)(self.first, "a") as near, getattr(self, then)(self.second, "b") as far:
            ends = await self.cut_everywhere(recorded, near, far, "continue")
            assert ends == {"passed on", "continued", "whole"}
            ends = await self.cut_everywhere(recorded, near, far, "raise", 11)
            assert ends == {"passed on", "broken off", "whole"}

    @pytest.mark.parametrize(("first", "then"), [("openai", "anthropic"), ("anthropic", "openai")])
    async def test_litellms_own_calls_do_the_same(self, first: str, then: str) -> None:
        self.speaks = getattr(self, f"{then}_stream")
        recorded = getattr(self, f"{first}_stream")(*self.TEXTS)
        near, far = (
            getattr(self, wire)(server, name, "litellm")
            for wire, server, name in ((first, self.first, "a"), (then, self.second, "b"))
        )
        async with near, far:
            assert "continued" in await self.cut_everywhere(recorded, near, far, "continue", 61)
