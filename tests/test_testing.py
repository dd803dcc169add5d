"""What ships for users' tests: providers that fail by a schedule, and a clock that leaps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from devsynth_providers import (
    ChatRequest,
    ConfigurationError,
    OpenAIProvider,
    ProviderError,
    RateLimitError,
    StreamInterrupted,
    errors,
)
from devsynth_providers.testing import EchoProvider, Fault, FaultyProvider, run_virtually

from .conftest import Ask

STREAM = ChatRequest.of("one two three", stream=True)


def faulty(*faults: Fault, seed: int = 0, pace_s: float = 0.0) -> FaultyProvider:
    return FaultyProvider(EchoProvider("echo", pace_s=pace_s), faults, seed=seed)


async def test_without_faults_it_answers_as_what_is_inside(ask: Ask) -> None:
    assert await ask(faulty(), "one two") == await ask(EchoProvider(), "one two") == "echo: one two"
    assert await faulty().embed("four") == [4.0, 4.0]


@pytest.mark.parametrize(
    ("kind", "error", "billed"),
    [
        ("rate_limited", "rate_limited", False),
        ("server_error", "unavailable", True),
        ("overloaded", "unavailable", False),
        ("refused", "unavailable", False),
        ("cut", "unavailable", True),
        ("timeout", "timeout", True),
        ("malformed", "malformed_response", True),
        ("authentication", "authentication", False),
        ("quota_exhausted", "quota_exhausted", False),
        ("model_not_found", "model_not_found", False),
        ("context_too_long", "context_too_long", False),
        ("rejected", "rejected", False),
        ("content_filtered", "content_filtered", True),
        ("empty", "empty_response", True),
    ],
)
async def test_it_fails_before_the_first_content_as_a_provider_would(
    ask: Ask, kind: Any, error: str, billed: bool
) -> None:
    provider = faulty(Fault(kind))
    with pytest.raises(ProviderError) as caught:
        await ask(provider)
    assert (caught.value.kind, caught.value.billed) == (error, billed)
    assert provider.unclosed == 0


async def test_a_limit_says_how_long_it_wants_to_be_left_alone() -> None:
    with pytest.raises(RateLimitError) as caught:
        await faulty(Fault("rate_limited", seconds=3)).complete("hi")
    assert caught.value.retry_after_s == 3


@pytest.mark.parametrize(
    ("fault", "partial"),
    [
        (Fault("cut", pieces=2), "echo: one"),
        (Fault("server_error", pieces=4), "echo: one two three"),
        (Fault("malformed", characters=7), "echo: o"),
        (Fault("cut", characters=5), "echo:"),
        (Fault("no_finish_reason"), "echo: one two three"),
    ],
)
async def test_a_stream_breaks_off_where_it_is_told_to(fault: Fault, partial: str) -> None:
    with pytest.raises(StreamInterrupted) as caught:
        await faulty(fault).complete(STREAM)
    assert caught.value.partial == partial


async def test_a_whole_answer_that_breaks_off_never_begins() -> None:
    with pytest.raises(errors.ProviderUnavailable):
        await faulty(Fault("cut", pieces=2)).complete("one two three")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("truncated", pieces=2), "echo: one"),
        (Fault("truncated", characters=7), "echo: o"),
        (Fault("truncated", characters=9), "echo: one"),
    ],
)
async def test_a_truncated_answer_ends_there_and_says_so(fault: Fault, text: str, stream: bool) -> None:
    answer = await faulty(fault).complete(ChatRequest.of("one two three", stream=stream))
    assert answer.truncated
    assert answer.text == text


def test_it_is_who_it_is_around() -> None:
    inner = OpenAIProvider("gpt-4o", base_url="http://gpu1:8000/v1", api_key="key-one-1234")
    assert FaultyProvider(inner).identity == inner.identity


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (Fault("stall"), 3600),
        (Fault("stall", seconds=7, pieces=2), 7),
        (Fault("slow", seconds=2), 10),
        (Fault("keep_alives", seconds=9), 9),
        (Fault("stall", seconds=5, pieces=9), 0),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_it_takes_as_long_as_it_is_told_to(fault: Fault, seconds: float, stream: bool) -> None:
    async def main() -> None:
        answer = await faulty(fault).complete(ChatRequest.of("one two three", stream=stream))
        assert answer.text == "echo: one two three"
        assert answer.latency_s == seconds

    run_virtually(main())


async def test_usage_and_vectors_are_wrong_where_they_are_told_to_be() -> None:
    assert (await faulty(Fault("no_usage")).complete("hi")).usage.input_tokens == 0
    wrong = (await faulty(Fault("wrong_usage")).complete("hi")).usage
    assert not (0 <= wrong.input_tokens < 1000 and 0 <= wrong.output_tokens < 1000)
    assert len(await faulty(Fault("vectors_missing")).embed_batch(["a", "b"])) == 1
    assert len(await faulty(Fault("vectors_doubled")).embed_batch(["a", "b"])) == 3


def test_a_deaf_one_goes_on_for_a_while_however_often_it_is_cancelled() -> None:
    async def main() -> None:
        provider = faulty(Fault("stall"), Fault("deaf", seconds=5))
        asked = asyncio.create_task(provider.generate("hi"))
        await asyncio.sleep(1)
        asked.cancel()
        await asyncio.sleep(1)
        asked.cancel()
        await asyncio.wait([asked])
        assert asked.cancelled()
        assert asyncio.get_running_loop().time() == 6
        assert provider.unclosed == 0

    run_virtually(main())


def test_an_outage_is_a_window_of_time_and_load_is_counted_by_time() -> None:
    async def main() -> None:
        provider = faulty(Fault("refused", between_s=(60, 180)))
        went_well = []
        for _ in range(240):
            try:
                await provider.generate("hi")
                went_well.append(asyncio.get_running_loop().time())
            except errors.ProviderUnavailable:
                pass
            await asyncio.sleep(1)
        assert went_well == [*range(60), *range(180, 240)]
        assert (provider.asked(), provider.asked(60, 180)) == (240, 120)

    run_virtually(main())


async def fates(provider: FaultyProvider, prompts: list[str]) -> dict[str, bool]:
    done = await asyncio.gather(*map(provider.generate, prompts), return_exceptions=True)
    return {prompt: isinstance(each, ProviderError) for prompt, each in zip(prompts, done, strict=True)}


async def test_the_same_seed_has_the_same_faults_in_whatever_order_tasks_come() -> None:
    prompts = [f"prompt {number}" for number in range(200)]
    once = await fates(faulty(Fault("cut", rate=0.3), seed=1), prompts)
    again = await fates(faulty(Fault("cut", rate=0.3), seed=1), prompts[::-1])
    other = await fates(faulty(Fault("cut", rate=0.3), seed=2), prompts)
    assert once == again != other
    assert 30 < sum(once.values()) < 90


async def test_a_fault_may_be_for_certain_requests_only() -> None:
    provider = faulty(Fault("cut", requests=(2, 3)))
    failed = [(await fates(provider, ["hi"]))["hi"] for _ in range(4)]
    assert failed == [False, True, True, False]
    assert [[fault.kind for fault in hit.faults] for hit in provider.hits] == [[], ["cut"], ["cut"], []]


@pytest.mark.parametrize("wrong", [{"kind": "sstall"}, {"kind": "stall", "rate": 2}, {"kind": "stall", "seconds": -1}])
def test_a_fault_that_there_is_not_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Fault(**wrong)


def test_waiting_for_what_never_comes_is_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="deadlock"):
        run_virtually(main())
