"""The real local model: a GGUF file, llama.cpp, a process of its own."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from devsynth_providers import (
    ChatRequest,
    ConfigurationError,
    ContextTooLong,
    InvalidRequest,
    LocalProvider,
    ModelNotFound,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimitError,
    RequestRejected,
    Router,
    StreamInterrupted,
    SyncRouter,
)
from devsynth_providers.providers.local import free_threads

from .conftest import Ask
from .helpers import model, policy

pytestmark = pytest.mark.local

SYSTEM = "You are a helpful assistant."
FRANCE = "What is the capital of France?"
ENDLESS = ChatRequest.of("Count from one to ten thousand.", stream=True, max_tokens=3000, temperature=0)


@pytest.fixture
async def local() -> AsyncIterator[LocalProvider]:
    async with LocalProvider(context_size=4096, threads=1) as provider:
        yield provider


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread or process is about to do."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


class TestAnswers:
    async def test_it_answers(self, local: LocalProvider, ask: Ask) -> None:
        answer = await ask(local, FRANCE, system_prompt=SYSTEM, temperature=0, max_tokens=20)
        assert answer == "The capital of France is Paris."

    async def test_the_same_question_has_the_same_answer_at_temperature_nought(self, local: LocalProvider) -> None:
        answers = set()
        for other in ("Name a colour, please.", "Name an animal.", "Name"):
            answers.add(await local.generate("Name a colour.", temperature=0, max_tokens=16))
            await local.generate(other, max_tokens=4)  # whatever is asked in between
        answers.add(await local.generate("Name a colour.", temperature=0, max_tokens=16))
        assert len(answers) == 1

    async def test_without_a_seed_every_process_draws_for_itself(self) -> None:
        answers = set()
        for _ in range(2):
            async with LocalProvider(context_size=512, threads=1) as provider:
                answers.add(await provider.generate("Tell me a story.", temperature=2.0, max_tokens=24))
        assert len(answers) == 2

    async def test_a_stream_comes_in_pieces_and_tells_tokens_and_times(self, local: LocalProvider) -> None:
        async with await local.send(
            ChatRequest.of(FRANCE, system_prompt=SYSTEM, temperature=0, max_tokens=20, stream=True)
        ) as reply:
            pieces = [chunk.text async for chunk in reply if chunk.text]
        response = reply.response
        assert len(pieces) > 3
        assert (response.finish_reason, response.provider, response.model) == ("stop", "local", "smollm2-135m")
        assert (response.usage.input_tokens, response.usage.output_tokens) == (27, 7)
        assert not response.usage.estimated
        assert (response.cost_usd, response.cost_basis) == (0.0, "free")
        assert response.first_token_s is not None
        assert 0 < response.first_token_s < response.latency_s

    async def test_it_stops_at_the_limit_of_tokens_and_at_a_stop_sequence(self, local: LocalProvider) -> None:
        cut = await local.complete(FRANCE, system_prompt=SYSTEM, temperature=0, max_tokens=3)
        assert (cut.text, cut.finish_reason, cut.usage.output_tokens) == ("The capital of", "length", 3)
        stopped = await local.complete(FRANCE, system_prompt=SYSTEM, temperature=0, stop_sequences=[" France"])
        assert (stopped.text, stopped.finish_reason) == ("The capital of", "stop")

    async def test_it_embeds(self, local: LocalProvider) -> None:
        one, other, again = await local.embed_batch(["a cat", "the stock market", "a cat"])
        assert len(one) == len(other) == 576
        assert one == again
        assert one != other

    async def test_it_counts_with_its_own_tokenizer(self, local: LocalProvider) -> None:
        assert local.count_tokens("hello world") == 2
        assert local.count_tokens("") == 0
        assert local.count_tokens("naïve 日本語 🙂") > 6

    async def test_text_in_any_script_survives_the_way(self, local: LocalProvider) -> None:
        text = "Repeat: naïve 日本語 🙂"
        assert await local.generate(text, temperature=0, max_tokens=30)
        assert len(await local.embed(text)) == 576

    async def test_answers_can_be_held_to_json(self, local: LocalProvider) -> None:
        import json

        schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer = await local.generate(FRANCE, temperature=0, max_tokens=60, response_format=form)
        assert "city" in json.loads(answer)

    async def test_what_it_does_not_take_is_refused_and_harms_nobody_else(self, local: LocalProvider) -> None:
        form = {"type": "json_schema", "json_schema": {"schema": {"enum": {"a", "b"}}}}
        with pytest.raises(InvalidRequest, match="can not be written as JSON"):
            await local.generate("hi", response_format=form)
        with pytest.raises(RequestRejected, match="do not take logit_bias"):
            await local.generate("hi", logit_bias={"1": 2})
        with pytest.raises(InvalidRequest, match="only text has tokens"):
            local.count_tokens(None)  # type: ignore[arg-type]
        assert await local.generate("hi", max_tokens=2, top_k=5, seed=1)

    async def test_it_works_from_code_without_a_loop(self, local: LocalProvider) -> None:
        sync = SyncRouter(local)
        text = await asyncio.to_thread(sync.generate, FRANCE, 0, 20, system_prompt=SYSTEM)
        assert text == "The capital of France is Paris."
        sync.stop()


class TestRefusals:
    async def test_a_prompt_that_does_not_fit_is_refused_before_decoding(self, ask: Ask) -> None:
        async with LocalProvider(context_size=256, threads=1) as small:
            with pytest.raises(ContextTooLong, match="the context holds 256") as caught:
                await ask(small, "word " * 400)
            assert caught.value.context_window == 256
            assert caught.value.attempts[0].usage.input_tokens == 0
            with pytest.raises(ContextTooLong):
                await small.embed("word " * 400)
            assert await ask(small, FRANCE, max_tokens=3)

    async def test_tools_are_refused_clearly(self, local: LocalProvider, ask: Ask) -> None:
        with pytest.raises(RequestRejected, match="no tools"):
            await ask(local, tools=[{"type": "function", "function": {"name": "f"}}])

    def test_a_file_that_is_no_gguf_is_refused_before_native_code_sees_it(self, tmp_path: Path) -> None:
        path = tmp_path / "model.gguf"
        path.write_bytes(b"PK\x03\x04 not a model")
        with pytest.raises(ConfigurationError, match="is not a GGUF file"):
            LocalProvider(model_path=path)

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConfigurationError, match=r"missing\.gguf: No such file"):
            LocalProvider(model_path=tmp_path / "missing.gguf")
        with pytest.raises(ConfigurationError, match="set LOCAL_MODEL_PATH"):
            LocalProvider("mistral-7b")
        monkeypatch.setenv("LOCAL_MODEL_PATH", str(tmp_path))
        with pytest.raises(ConfigurationError, match=r"mistral-7b\.gguf: No such file"):
            LocalProvider("mistral-7b")

    async def test_a_broken_gguf_file_is_an_error_and_takes_nothing_down(self, tmp_path: Path) -> None:
        path = tmp_path / "broken.gguf"
        path.write_bytes(b"GGUF" + os.urandom(4096))
        broken = LocalProvider(model_path=path, threads=1, retry_attempts=1)
        with pytest.raises(ModelNotFound, match="can not be loaded"):
            await broken.generate("hi")
        await broken.aclose()


class TestItsProcess:
    async def test_cancelling_stops_decoding(self, local: LocalProvider) -> None:
        process_id = local.process_id
        async with await local.send(ENDLESS) as reply:
            async for _ in reply:
                break
        started = time.monotonic()
        await local.generate("hi", max_tokens=1)  # waits for its turn: comes soon only if the other has stopped
        assert time.monotonic() - started < 5
        assert local.process_id == process_id

    async def test_cancelling_stops_the_reading_of_a_long_prompt(self, local: LocalProvider) -> None:
        task = asyncio.create_task(local.generate("word " * 3500, max_tokens=1))
        await until(lambda: local._llama._begun)
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        process_id = local.process_id
        assert await local.generate(FRANCE, system_prompt=SYSTEM, temperature=0) == "The capital of France is Paris."
        assert local.process_id == process_id

    async def test_a_call_survives_the_death_of_its_process_before_the_first_text(self, local: LocalProvider) -> None:
        first = local.process_id
        assert first is not None
        task = asyncio.create_task(local.complete("Tell me a long story. " * 400, max_tokens=8, temperature=0))
        await until(lambda: local._llama._begun)
        os.kill(first, signal.SIGSEGV)
        response = await task
        assert [attempt.error for attempt in response.attempts] == ["unavailable", None]
        assert "SIGSEGV" in response.attempts[0].error_message
        assert local.process_id not in (None, first)

    async def test_death_after_the_first_text_is_an_interruption(self, local: LocalProvider) -> None:
        assert local.process_id is not None
        with pytest.raises(StreamInterrupted) as caught:
            async with await local.send(ENDLESS) as reply:
                async for _ in reply:
                    os.kill(local.process_id or 0, signal.SIGKILL)
        assert caught.value.partial
        assert await local.generate("hi", max_tokens=2)

    async def test_a_process_that_does_not_stop_when_told_is_killed(self, local: LocalProvider) -> None:
        stuck = local.process_id
        assert stuck is not None
        async with await local.send(ENDLESS) as reply:
            async for _ in reply:
                os.kill(stuck, signal.SIGSTOP)
                break
        assert await local.generate("hi", max_tokens=2)
        assert local.process_id != stuck

    async def test_nor_does_one_that_is_stuck_before_it_begins_outlive_its_callers(self, local: LocalProvider) -> None:
        stuck = local.process_id
        assert stuck is not None
        os.kill(stuck, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await local.generate("hi", max_tokens=2)
        assert await local.generate("hi", max_tokens=2)
        assert local.process_id != stuck

    async def test_counting_gives_a_stuck_process_up_and_the_next_call_has_another(
        self, local: LocalProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stuck = local.process_id
        assert stuck is not None
        os.kill(stuck, signal.SIGSTOP)
        with monkeypatch.context() as patience:
            patience.setattr("devsynth_providers.providers.llama_process.LOAD_LIMIT_S", 0.3)
            with pytest.raises(ProviderTimeout, match="no sign of life"):
                local.count_tokens("hello world")
        assert local.count_tokens("hello world") == 2
        assert local.process_id != stuck

    async def test_a_call_left_while_the_model_loads_is_never_decoded(self) -> None:
        async with LocalProvider(threads=1, context_size=4096) as provider:
            await provider.aclose()
            task = asyncio.create_task(provider.generate("word " * 3000, max_tokens=500))
            await until(lambda: provider._llama._listeners)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            answer = await provider.complete("hi", max_tokens=1)
        assert answer.attempts[0].wait_s < 3

    async def test_callers_take_turns_in_the_order_in_which_they_came(self, local: LocalProvider) -> None:
        done: list[int] = []

        async def call(number: int) -> float:
            response = await local.complete("Say a word.", max_tokens=12, temperature=0)
            done.append(number)
            return response.attempts[0].wait_s

        calls = []
        for number in range(5):
            calls.append(asyncio.create_task(call(number)))
            await until(lambda: len(local._llama._listeners) + len(done) == len(calls))
        waits = await asyncio.gather(*calls)
        assert done == [0, 1, 2, 3, 4]
        assert waits == sorted(waits)
        assert waits[4] > waits[0]

    async def test_more_callers_than_may_wait_are_turned_away(self) -> None:
        async with LocalProvider(threads=1, context_size=512, waiting=2, retry_attempts=1) as narrow:
            asked = [narrow.complete("hi", max_tokens=20) for _ in range(4)]
            results = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(each, RateLimitError) for each in results) == 2

    async def test_closing_ends_the_process_and_the_next_call_starts_another(self, local: LocalProvider) -> None:
        first = local.process_id
        assert first is not None
        await local.aclose()
        assert local.process_id is None
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert await local.generate("hi", max_tokens=2)

    async def test_closing_while_it_works_ends_the_calls_it_has(self, local: LocalProvider) -> None:
        async with await local.send(ENDLESS) as reply:
            await anext(reply)
            waiting = asyncio.create_task(local.generate("hi", max_tokens=2))
            await until(lambda: len(local._llama._sent) == 2)
            await local.aclose()
            with pytest.raises(StreamInterrupted, match="its provider was closed"):
                async for _ in reply:
                    pass
        with pytest.raises(ProviderUnavailable, match="its provider was closed"):
            await waiting  # and is not tried again
        assert local.process_id is None

    async def test_closing_does_not_wait_for_a_process_that_is_stuck(self, local: LocalProvider) -> None:
        stuck = local.process_id
        assert stuck is not None
        os.kill(stuck, signal.SIGSTOP)
        call = asyncio.create_task(local.complete("word " * 100_000, max_tokens=1))  # more than a pipe holds
        await until(lambda: local._llama._sent)
        call.cancel()
        await local.aclose()
        with pytest.raises(ProcessLookupError):
            os.kill(stuck, 0)
        await asyncio.gather(call, return_exceptions=True)

    async def test_a_caller_that_left_before_its_turn_costs_nothing(self, local: LocalProvider) -> None:
        async with await local.send(ENDLESS) as reply:
            await anext(reply)
            left = [asyncio.create_task(local.complete("word " * 3000, max_tokens=200)) for _ in range(3)]
            await until(lambda: len(local._llama._sent) == 4)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        answer = await local.complete(FRANCE, max_tokens=2)
        assert answer.attempts[0].wait_s < 2  # none of the others was decoded first

    async def test_a_provider_that_is_forgotten_takes_its_process_along(self) -> None:
        provider = LocalProvider(threads=1, context_size=256)
        await provider.generate("hi", max_tokens=1)
        process_id = provider.process_id
        assert process_id is not None
        del provider
        gc.collect()
        for _ in range(100):
            await asyncio.sleep(0.05)
            if not Path(f"/proc/{process_id}").exists():
                return
        raise AssertionError("it is still there")

    async def test_a_router_that_was_given_it_leaves_it_open(self, local: LocalProvider) -> None:
        async with Router(policy(model("m", context_window=4096)), {"m": local}) as router:
            assert await router.generate("hi", max_tokens=2)
            assert router.count_tokens("hello world") == 2
        assert local.process_id is not None

    async def test_no_key_of_ours_reaches_its_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")
        async with LocalProvider(threads=1, context_size=256) as provider:
            environment = await asyncio.to_thread(Path(f"/proc/{provider.process_id}/environ").read_bytes)
        assert b"canary" not in environment
        assert b"PATH=" in environment

    def test_a_forked_child_has_a_process_of_its_own(self) -> None:
        script = """
import asyncio, os, warnings
from devsynth_providers import LocalProvider
provider = LocalProvider(threads=1, context_size=256)
print(asyncio.run(provider.generate("hi", max_tokens=2)) != "")
asyncio.run(provider.warm_up())
child = os.fork()
if child == 0:
    ok = provider.count_tokens("hello world") == 2
    asyncio.run(provider.warm_up())
    asyncio.run(provider.aclose())
    os._exit(0 if ok else 1)
print(os.waitpid(child, 0)[1] == 0, provider.count_tokens("hello world") == 2)
asyncio.run(provider.aclose())
"""
        import subprocess
        import sys

        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert run.stdout.split() == ["True", "True", "True"], run.stderr


def test_threads_default_to_what_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_MODEL_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for load, threads in ((0.0, 8), (2.6, 5), (20.0, 1)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert free_threads() == threads
    monkeypatch.setenv("LOCAL_MODEL_THREADS", "3")
    assert free_threads() == 3
    monkeypatch.setenv("LOCAL_MODEL_THREADS", "many")
    with pytest.raises(ConfigurationError, match="LOCAL_MODEL_THREADS must be a whole number"):
        free_threads()
