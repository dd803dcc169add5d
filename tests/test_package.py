"""The package as a whole: what importing it costs, what it shows, and that users' code type-checks."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import devsynth_providers as d
from devsynth_providers.policy.file import packaged_names

ROOT = Path(__file__).parent.parent

PUBLIC = """
Access AccessDenied AllProvidersFailed AnthropicProvider Assume Attempt AuthenticationError BaseProvider Budget
BudgetExceeded CacheStatistics Candidate ChatRequest Chunk CircuitOpen Conditions Conduct ConfigurationError
ContentFiltered ContextTooLong CostTracker DecisionLog DevSynthError EmbedRequest EmptyResponse Evidence Example
Expect FREE Facts FallbackProvider Health Hedge InvalidRequest Keep LMStudioProvider Latency LedgerUnavailable
LimitReached Limits LiteLLMProvider LocalProvider MalformedResponse Message Model ModelNotFound Network NoModelFits
NotConfigured NotPaid OpenAIProvider OpenRouterProvider Plan Policy PolicyError Price ProviderError ProviderFactory
ProviderPort ProviderRegistry ProviderTimeout ProviderUnavailable QuotaExhausted Range RateLimitError RateLimits
RedisCache Rejection Reply Request RequestRejected Response ResponseCache Retry Router Rule RunBudget Setting Settings
SqliteLedger StreamInterrupted StubProvider SyncRouter TaskAnalyzer TaskFacts TimeOfDay Timeouts Tls TokenCounter
Tolerance ToolCall Usage Weights When registry stack
"""


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return run.stdout


def test_the_public_names_are_these() -> None:
    assert d.__all__ == PUBLIC.split()


def test_each_of_them_is_there_and_known_to_type_checkers() -> None:
    source = ast.parse((ROOT / "devsynth_providers/__init__.py").read_text())
    told = {
        alias.asname
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert told == set(d.__all__)
    for name in d.__all__:
        assert getattr(d, name) is not None
        assert name in dir(d)
    with pytest.raises(AttributeError, match="no attribute 'Ruoter'"):
        _ = d.Ruoter  # type: ignore[attr-defined]


def test_importing_it_loads_no_sdk_opens_no_socket_and_starts_no_thread() -> None:
    code = """
import sys, threading
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event.startswith(("socket.", "subprocess.")) else None)
before = len(sys.modules)
import devsynth_providers
few = len(sys.modules) - before < 20
from devsynth_providers import Router, OpenAIProvider, LMStudioProvider, LocalProvider, StubProvider, FallbackProvider
heavy = {"litellm", "openai", "httpx", "aiohttp", "llama_cpp", "pydantic", "yaml", "numpy", "typer", "rich",
         "opentelemetry.sdk", "diskcache", "tiktoken"}
print(sorted(heavy & set(sys.modules)), opened, threading.active_count(), few)
"""
    assert python(code).strip() == "[] [] 1 True"


def test_neither_does_making_a_router() -> None:
    code = """
import sys
from devsynth_providers import Router
router = Router.from_policy("balanced")
print(sorted({"litellm", "openai", "httpx", "aiohttp", "llama_cpp"} & set(sys.modules)))
"""
    assert python(code).strip() == "[]"


TYPED = """
from typing import assert_type
from devsynth_providers import Chunk, DevSynthError, Plan, Response, Router

async def use(router: Router) -> None:
    assert_type(await router.generate("hi", temperature=0.2, max_tokens=400, seed=1, task="review"), str)
    answer = await router.complete("hi", task="review", max_cost_usd=0.02, tags=("interactive",))
    assert_type(answer, Response)
    assert_type(answer.cost_usd, float | None)
    assert_type(router.plan("hi", task="design"), Plan)
    assert_type(await router.embed_batch(["a"]), list[list[float]])
    assert_type(router.sync.generate("hi"), str)
    async for piece in router.generate_stream("hi"):
        assert_type(piece, str)
    async for outcome in router.complete_all(["a"], at_once=4, task="review"):
        assert_type(outcome, Response | DevSynthError)
    for outcome in router.sync.complete_all(iter(["a"])):
        assert_type(outcome, Response | DevSynthError)
    router.complete_all([1])  # E: list item
    async with router as same:
        assert_type(same, Router)
    await router.generate("hi", max_cost=1)  # E: max_cost
    await router.generate("hi", task=1)  # E: task
    await router.generate("hi", temperature="hot")  # E: generate
    Router.from_policy(1)  # E: from_policy
"""


def test_users_code_is_checked_as_it_should_be(tmp_path: Path) -> None:
    path = tmp_path / "use.py"
    path.write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path), str(path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    errors = [line for line in run.stdout.splitlines() if "error:" in line]
    expected = [number for number, line in enumerate(TYPED.splitlines(), 1) if "# E:" in line]
    assert sorted({int(line.split(":")[1]) for line in errors}) == expected, run.stdout


def test_the_wheel_has_all_that_it_needs() -> None:
    """Data files stand beside the code that reads them, so that any way of installing takes them along."""
    package = ROOT / "devsynth_providers"
    for name in (
        "py.typed",
        "catalogue.json",
        "policies/policy.schema.json",
        *(f"policies/{name}.yaml" for name in packaged_names()),
    ):
        assert (package / name).is_file()
    assert (ROOT / "policies").resolve() == package / "policies"
