"""LiteLLM, imported when first needed, with everything off that is done better elsewhere or not wanted at all.

Importing takes seconds, so it happens in a thread of its own: not in asyncio's default executor, whose few threads
LiteLLM itself uses for every call.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

_SETTINGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it downloads a price list; only this spelling counts
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_MODE": "PRODUCTION",  # else it reads .env from the working directory
}

T = TypeVar("T")
_lock = threading.Lock()


@functools.cache
def _load() -> Any:
    os.environ.update(_SETTINGS)
    litellm: Any = importlib.import_module("litellm")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    litellm.disable_hf_tokenizer_download = True
    litellm.num_retries = 0
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.ERROR)  # its warnings are of its own queues and loops
    return litellm


async def in_thread(work: Callable[[], T]) -> T:
    """What *work* returns, from a thread of its own: no pool that somebody else could fill, or a fork leave behind."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(cast("T", result))
        else:
            done.set_exception(error)

    def run() -> None:
        try:
            result, error = work(), None
        except BaseException as caught:  # noqa: BLE001 - it belongs to whoever waits
            result, error = None, caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="devsynth-work", daemon=True).start()
    return await done


def load() -> Any:
    """LiteLLM itself; blocks for seconds the first time."""
    with _lock:
        return _load()


async def ready() -> Any:
    """LiteLLM itself, without blocking the event loop for its import."""
    if _load.cache_info().currsize:
        return _load()
    return await in_thread(load)


async def warm_up() -> None:
    """Import it and let it do what it puts off to its first call, so that no caller waits for that."""
    litellm = await ready()
    await litellm.acompletion(
        model="openai/warm-up", messages=[{"role": "user", "content": "."}], mock_response=".", api_key="none"
    )
