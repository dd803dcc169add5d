"""The rule about failure: before the first content a call may be tried again; what goes wrong after it is final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from typing_extensions import override

from devsynth_providers import (
    ChatRequest,
    Chunk,
    ContentFiltered,
    EmptyResponse,
    ProviderUnavailable,
    Reply,
    Request,
    StreamInterrupted,
    ToolCall,
    Usage,
)
from devsynth_providers.testing import ScriptedProvider
from devsynth_providers.types import ToolCallPart

from .conftest import Ask
from .helpers import model

ASKED = ChatRequest.of("hi", stream=True)


async def test_the_pieces_make_up_the_whole() -> None:
    reply = await ScriptedProvider(("a", "b", "c"), usage=Usage(1, 3)).send(ASKED)
    pieces = [chunk.text async for chunk in reply]
    assert pieces == ["a", "b", "c", ""]
    assert reply.response.text == "abc"
    assert reply.response.usage == Usage(1, 3)
    assert reply.response.finish_reason == "stop"


async def test_an_error_before_the_first_content_is_raised_as_it_is(ask: Ask) -> None:
    with pytest.raises(ProviderUnavailable):
        await ask(ScriptedProvider((Chunk(), Chunk(usage=Usage(1, 0)), ProviderUnavailable("cut"))))


async def test_an_error_after_it_carries_exactly_what_was_delivered(ask: Ask) -> None:
    with pytest.raises(StreamInterrupted) as caught:
        await ask(ScriptedProvider(("half ", "an answer", ProviderUnavailable("cut"))))
    assert caught.value.partial == "half an answer"
    assert isinstance(caught.value.__cause__, ProviderUnavailable)


async def test_an_answer_that_ends_without_a_finish_reason_was_cut(ask: Ask) -> None:
    class Cut(ScriptedProvider):
        @override
        async def send(self, request: Request) -> Reply:
            async def chunks() -> AsyncGenerator[Chunk, None]:
                yield Chunk("nearly")

            return await Reply.open(self.model, chunks())

    with pytest.raises(StreamInterrupted) as caught:
        await ask(Cut())
    assert caught.value.partial == "nearly"


@pytest.mark.parametrize("line", [(), ("",), (Chunk(finish_reason="stop"),), (Chunk(finish_reason="length"),)])
async def test_an_answer_without_content_is_an_error(ask: Ask, line: tuple[object, ...]) -> None:
    with pytest.raises(EmptyResponse):
        await ask(ScriptedProvider(line))  # type: ignore[arg-type]


async def test_an_answer_that_was_withheld_says_so(ask: Ask) -> None:
    with pytest.raises(ContentFiltered):
        await ask(ScriptedProvider((Chunk(finish_reason="content_filter"),)))


async def test_and_what_it_used_counts() -> None:
    with pytest.raises(ContentFiltered) as caught:
        await ScriptedProvider((Chunk(finish_reason="content_filter", usage=Usage(9, 1)),)).send(ASKED)
    assert caught.value.usage == Usage(9, 1)


async def test_tool_calls_are_put_together_by_index() -> None:
    line = (
        Chunk(tool_calls=(ToolCallPart(0, "a", "find", '{"x"'), ToolCallPart(1, "b", "read", ""))),
        Chunk(tool_calls=(ToolCallPart(1, arguments="{}"),)),
        Chunk(tool_calls=(ToolCallPart(0, arguments=": 1}"),)),
    )
    response = await ScriptedProvider(line).complete("hi")
    assert response.tool_calls == (ToolCall("a", "find", '{"x": 1}'), ToolCall("b", "read", "{}"))
    assert response.text == ""


async def test_leaving_early_closes_what_was_behind_it() -> None:
    provider = ScriptedProvider(("a", "b"))
    async with await provider.send(ASKED) as reply:
        async for _ in reply:
            break
    assert provider.closed == 1
    assert reply.response.text == "a"
    assert reply.response.finish_reason is None


async def test_breaking_out_of_a_stream_of_text_closes_it_too() -> None:
    provider = ScriptedProvider(("a", "b"))
    stream = provider.generate_stream("hi")
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]
    assert provider.closed == 1


async def test_callbacks_run_once_in_order_however_it_ends() -> None:
    heard: list[tuple[str, str, BaseException | None]] = []

    def note(name: str, reply: Reply, error: BaseException | None) -> None:
        heard.append((name, reply.text, error))

    reply = await ScriptedProvider(("a", ProviderUnavailable("cut"))).send(ASKED)
    reply.on_finish(lambda reply, error: note("first", reply, error))
    reply.on_finish(lambda reply, error: note("second", reply, error))
    with pytest.raises(StreamInterrupted) as caught:
        await reply.read()
    await reply.aclose()
    assert heard == [("first", "a", caught.value), ("second", "a", caught.value)]


async def test_callbacks_run_also_after_one_that_is_cancelled_while_it_waits() -> None:
    heard: list[str] = []

    async def wait(*_: object) -> None:
        heard.append("waits")
        await asyncio.sleep(3600)

    reply = await ScriptedProvider("a").send(ASKED)
    reply.on_finish(wait).on_finish(lambda *_: heard.append("last"))
    task = asyncio.create_task(reply.read())
    while not heard:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == ["waits", "last"]


async def test_cancelling_closes_it_and_is_not_turned_into_an_error_of_ours() -> None:
    provider = ScriptedProvider(("a", 3600.0, "b"))

    async def read() -> None:
        async for _ in provider.generate_stream("hi"):
            pass

    task = asyncio.create_task(read())
    while not provider.requests:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert provider.closed == 1


async def test_a_callers_own_timeout_stays_a_timeout_of_the_caller() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await ScriptedProvider((3600.0, "late")).generate("hi")


async def test_without_attempts_written_down_the_price_of_the_model_is_what_counts() -> None:
    free = await ScriptedProvider("x", model=model()).complete("hi")
    unknown = await ScriptedProvider("x", model=model(price=None)).complete("hi")
    assert (free.cost_usd, free.cost_basis) == (0.0, "free")
    assert (unknown.cost_usd, unknown.cost_basis) == (None, "unknown")


async def test_a_reply_can_be_made_from_any_generator_of_chunks() -> None:
    async def chunks() -> AsyncGenerator[Chunk, None]:
        yield Chunk("x")
        yield Chunk(finish_reason="stop")

    assert (await (await Reply.open(model(), chunks())).read()).text == "x"
