"""What LiteLLM would do by itself, and does not do here; and where a key is found after it was used: nowhere."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from devsynth_providers import AnthropicProvider, ChatRequest, DevSynthError, OpenAIProvider, OpenRouterProvider

from . import messages
from .loopback import Loopback, as_json, delta, failure, sse, stream, whole
from .points import Points

pytestmark = pytest.mark.litellm

ROOT = Path(__file__).parent.parent
KEY = "sk-canary-0123456789abcdef"


def run(code: str, *arguments: str, cwd: Path, **environment: str) -> Any:
    """What *code* prints as JSON, run with nothing loaded and *environment* beside the present one."""
    prelude = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
reached = []
def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple): reached.append(args[1][0])
    if event == "socket.getaddrinfo": reached.append(args[0])
sys.addaudithook(watch)
"""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LITELLM_")}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    told = subprocess.run(
        [sys.executable, "-c", prelude + code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**inherited, **environment, "PYTHONPATH": path},
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout.splitlines()[-1])


def test_loading_it_reaches_for_nothing_and_reads_no_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PLANTED_BY_ENV_FILE=1\nOPENAI_API_KEY=sk-from-a-file\n")
    code = """
from devsynth_providers.providers._litellm import load
before = dict(os.environ)
litellm = load.load()
import asyncio
asyncio.run(load.warm_up())
new = {name for name, value in os.environ.items() if before.get(name) != value}
print(json.dumps({"reached": reached, "new": sorted(new), "callbacks": [
    litellm.callbacks, litellm.success_callback, litellm.failure_callback, litellm.input_callback]}))
"""
    told = run(code, cwd=tmp_path)
    assert told["reached"] == []
    assert told["callbacks"] == [[], [], [], []]
    ours = {
        "LITELLM_LOCAL_MODEL_COST_MAP",
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS",
        "LITELLM_LOCAL_BLOG_POSTS",
        "LITELLM_MODE",
    }
    litellms = {"TIKTOKEN_CACHE_DIR", "CUSTOM_TIKTOKEN_CACHE_DIR"}
    assert set(told["new"]) - litellms == ours


def test_of_its_settings_only_these_are_changed(tmp_path: Path) -> None:
    code = """
os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_MODE="PRODUCTION",
    LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS="True", LITELLM_LOCAL_BLOG_POSTS="True")
import litellm
def state(): return {name: repr(value) for name, value in vars(litellm).items()
    if not name.startswith("_") and isinstance(value, (bool, int, float, str, list, type(None)))}
before = state()
from devsynth_providers.providers._litellm import load
load.load()
after = state()
print(json.dumps(sorted(name for name in after if before.get(name) != after[name])))
"""
    changed = set(run(code, cwd=tmp_path))
    mayset = {"telemetry", "suppress_debug_info", "disable_hf_tokenizer_download", "num_retries"}
    assert changed <= mayset | {"REPEATED_STREAMING_CHUNK_LIMIT", "DEFAULT_MAX_RETRIES"}
    assert "REPEATED_STREAMING_CHUNK_LIMIT" in changed


CALLS = """
import asyncio
from devsynth_providers import ChatRequest, EmbedRequest, OpenAIProvider
from devsynth_providers.providers._litellm import load
litellm = load.load()
prices = json.dumps(litellm.model_cost, sort_keys=True, default=str)
async def main():
    for transport in ("auto", "litellm"):
        provider = OpenAIProvider("llama-3-8b", base_url=sys.argv[1], transport=transport, retry_attempts=1)
        for streamed in (False, True):
            await provider.complete(ChatRequest.of("hi", stream=streamed))
        await provider.aclose()
asyncio.run(main())
same = prices == json.dumps(litellm.model_cost, sort_keys=True, default=str)
print(json.dumps({"reached": sorted(set(reached)), "same prices": same}))
"""


def test_calls_reach_the_server_alone_and_change_no_prices(server: Loopback, tmp_path: Path) -> None:
    """Models called llama made it fetch a tokenizer; prices given with a call stayed for ever."""
    told = run(CALLS, server.url, cwd=tmp_path)
    assert told == {"reached": ["127.0.0.1"], "same prices": True}
    assert len(server.requests) == 4


def test_the_environment_takes_no_call_elsewhere(server: Loopback, tmp_path: Path) -> None:
    with Loopback() as elsewhere:
        names = ("OPENAI_BASE_URL", "OPENAI_API_BASE", "LITELLM_PROXY_API_BASE", "OPENAI_PROXY_URL")
        environment = dict.fromkeys(names, elsewhere.url) | {"OPENAI_API_KEY": KEY, "USE_LITELLM_PROXY": "False"}
        run(CALLS, server.url, cwd=tmp_path, **environment)
        assert elsewhere.connections == 0
    assert len(server.requests) == 4
    assert KEY not in str(server.headers)


async def test_an_applications_callbacks_do_not_get_our_prompts_with_their_answers(server: Loopback) -> None:
    import asyncio

    from devsynth_providers.providers._litellm import load

    litellm = await load.ready()
    heard: list[str] = []
    litellm.success_callback.append(lambda *told: heard.append(str(told)))
    try:
        for streamed in (False, True):
            mine = OpenAIProvider("m", base_url=server.url, transport="litellm")
            await mine.complete(ChatRequest.of("a secret", stream=streamed))
        await asyncio.sleep(0.3)
    finally:
        litellm.success_callback.clear()
    assert heard == []


async def test_it_does_no_work_for_its_logs_after_an_answer(server: Loopback) -> None:
    import asyncio

    from devsynth_providers.providers._litellm import load

    await load.ready()
    if load.internal() is None:
        pytest.skip("this LiteLLM can not be told")
    before = asyncio.all_tasks()
    mine = OpenAIProvider("m", base_url=server.url, transport="litellm")
    for streamed in (False, True):
        await mine.complete(ChatRequest.of("hi", stream=streamed))
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == before  # its logs are written by a task that stays
    await mine.aclose()


def with_locals(error: BaseException) -> str:
    """*error* as those show it who collect errors: with the variables of each frame of ours."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    told.stack = traceback.StackSummary.from_list(
        [frame for frame in told.stack if "devsynth_providers/" in frame.filename]
    )
    return "".join(told.format())


FAR_SIDES = [
    (whole(), stream()),
    (failure(401, f"Incorrect API key provided: {KEY}", f"bad_{KEY}"),) * 2,
    (failure(429, f"slow down, {KEY}"),) * 2,
    (as_json({"error": {"message": f"no such key {KEY}", "code": 400}}),) * 2,
    (as_json({"choices": KEY}), sse(delta("w0"), {"error": {"message": KEY}})),
    (failure(500, f"Bearer {KEY}"),) * 2,
    (messages.failure(401, "authentication_error", f"invalid x-api-key {KEY}"),) * 2,
]


@pytest.mark.parametrize("far_side", range(len(FAR_SIDES)))
@pytest.mark.parametrize("transport", ["auto", "litellm"])
@pytest.mark.parametrize("cls", [OpenAIProvider, AnthropicProvider, OpenRouterProvider])
async def test_a_key_is_in_the_request_and_nowhere_else(
    server: Loopback,
    spans: Callable[[], list[ReadableSpan]],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    measured: Callable[[], Points],
    cls: Any,
    transport: str,
    far_side: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script(FAR_SIDES[far_side])
    provider = cls("m", base_url=server.url, api_key=KEY, transport=transport, retry_attempts=1)
    told = [repr(provider), repr(provider.inner), str(provider.model)]
    for streamed in (False, True):
        try:
            response = await provider.complete(ChatRequest.of("hi", stream=streamed))
            told.append(repr(response))
        except DevSynthError as error:
            told += [repr(vars(error)), "".join(traceback.format_exception(error)), with_locals(error)]
            inner: BaseException | None = error
            while inner is not None:
                assert "httpx" not in type(inner).__module__
                assert not hasattr(inner, "request")
                inner = inner.__cause__ or inner.__context__
    told += [span.to_json() for span in spans()]
    told += [caplog.text, *(str(vars(record)) for record in caplog.records), *capfd.readouterr()]
    told += [str(measured())]
    assert KEY in str(server.headers)
    assert not [each for each in told if KEY in each]
