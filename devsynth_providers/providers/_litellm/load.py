"""LiteLLM, imported when first needed, with everything off that is done better elsewhere or not wanted at all.

Importing takes seconds, so it happens in a thread of its own: not in asyncio's default executor, whose few threads
LiteLLM itself uses for every call.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import logging
import os
import sys
import threading
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ..threads import in_thread

_SETTINGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it downloads a price list; only this spelling counts
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_MODE": "PRODUCTION",  # else it reads .env from the working directory
}

_lock = threading.Lock()


@functools.cache
def _load() -> Any:
    os.environ.update(_SETTINGS)
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", _tables())  # as newer versions set it; older ones would download
    litellm: Any = importlib.import_module("litellm")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.disable_hf_tokenizer_download = True
    litellm.num_retries = 0
    litellm.DEFAULT_MAX_RETRIES = 0  # which embeddings take in place of a max_retries of 0
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = (
        sys.maxsize
    )  # else a hundred equal pieces, of a table's line say, are an error
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.ERROR)  # its warnings are of its own queues and loops
    return litellm


def load() -> Any:
    """LiteLLM itself; blocks for seconds the first time."""
    with _lock:
        return _load()


async def ready() -> Any:
    """LiteLLM itself, without blocking the event loop for its import."""
    if _load.cache_info().currsize:
        return _load()
    return await in_thread(load)


def _tables() -> str:
    """The folder with the tables for tokens that LiteLLM brings along."""
    spec = importlib.util.find_spec("litellm")
    return str(Path(spec.origin or "").parent / "litellm_core_utils" / "tokenizers") if spec else ""


NO_MCP = "_skip_mcp_handler"


@functools.cache
def has_mcp_switch() -> bool:
    """Whether this LiteLLM obeys ``NO_MCP``; older ones would pass it on to the provider."""
    return NO_MCP in inspect.getsource(_load().main)


@functools.cache
def internal() -> ContextVar[bool] | None:
    """What tells this LiteLLM that a call is part of another, whose cost and callbacks are taken care of elsewhere;
    ``None`` if it is an older one, which does not ask."""
    load()
    try:
        told: ContextVar[bool] = importlib.import_module("litellm._internal_context").is_internal_call
    except (ImportError, AttributeError):
        return None
    return told


@functools.cache
def controls() -> frozenset[str]:
    """The keywords that LiteLLM's calls obey themselves."""
    litellm = _load()
    own = importlib.import_module("litellm.types.utils").all_litellm_params
    return frozenset(own) | frozenset(inspect.signature(litellm.acompletion).parameters)


async def warm_up() -> None:
    """Import it and let it do what it puts off to its first call, so that no caller waits for that."""
    litellm = await ready()
    await litellm.acompletion(
        model="openai/warm-up", messages=[{"role": "user", "content": "."}], mock_response=".", api_key="none"
    )
