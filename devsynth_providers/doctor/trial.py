"""A few tokens from each model, in every way it can be asked. This costs money: only where it was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from ..errors import (
    AuthenticationError,
    ContentFiltered,
    DevSynthError,
    EmptyResponse,
    ModelNotFound,
    RequestRejected,
)
from ..port import ProviderPort
from ..router import Router
from ..stacks import stack
from ..types import ChatRequest, EmbedRequest, Model, Request, Response, Retry
from .finding import Finding
from .servers import advice, facade

MAX_TOKENS = 64
_TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two whole numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
_CHAT = frozenset(("chat",))


async def trial(router: Router, names: Iterable[str], told: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Ask each of *names*, all at the same time, one way after the other; *told* hears what is being tried."""
    policy = router.policy
    tried = await asyncio.gather(
        *(
            _model(stack(router.providers[name], timeouts=policy.timeouts, retry=Retry(attempts=1)), told)
            for name in names
        )
    )
    return [finding for each in tried for finding in each]


def ways(model: Model) -> dict[str, Request]:
    """The requests of a trial of *model*, by what they try: what it is known to do, and chat if nothing is known."""
    able = _CHAT if model.abilities is None else model.abilities
    requests: dict[str, Request] = {}
    if "chat" in able:
        prompt = "Answer with one word: what colour is a clear sky?"
        requests["whole"] = ChatRequest.of(prompt, temperature=0, max_tokens=MAX_TOKENS)
        requests["streamed"] = ChatRequest.of(prompt, temperature=0, max_tokens=MAX_TOKENS, stream=True)
    if "tools" in able:
        prompt = "Use the tool to add 2 and 3."
        requests["a tool"] = ChatRequest.of(prompt, temperature=0, max_tokens=MAX_TOKENS, tools=[_TOOL])
    if "embeddings" in able:
        requests["embeddings"] = EmbedRequest(texts=("a clear sky", "a red rose"))
    return requests


async def _model(provider: ProviderPort, told: Callable[[str], None]) -> list[Finding]:
    found = []
    for way, request in ways(provider.model).items():
        told(f"{provider.model.name}: {way}")
        found.append(await _tried(provider, way, request))
    return found


async def _tried(provider: ProviderPort, way: str, request: Request) -> Finding:
    started = time.monotonic()
    name = provider.model.name
    try:
        answer = await provider.complete(request)
    except DevSynthError as error:
        facts: dict[str, str | float | None] = {
            "way": way,
            "latency_s": time.monotonic() - started,
            "cost_usd": _spent(error),
            "error": error.kind,
        }
        return Finding("trial", "broken", name, f"{way}: {error.kind}: {error}", _advice(error, provider), facts)
    facts = {"way": way, "latency_s": answer.latency_s, "cost_usd": answer.cost_usd, "cost_basis": answer.cost_basis}
    cost = "cost unknown" if answer.cost_usd is None else f"${answer.cost_usd:.6f} ({answer.cost_basis})"
    tokens = f"{answer.usage.input_tokens} tokens in, {answer.usage.output_tokens} out"
    message = f"{way}: {_what(answer)} in {answer.latency_s:.2f} s, {tokens}, {cost}"
    if way == "a tool" and not answer.tool_calls:
        unused = "it may be asked for tools and not use them: take tools out of its abilities"
        return Finding("trial", "warning", name, f"{message}, and it did not use the tool", unused, facts)
    return Finding("trial", "ok", name, message, "", facts)


def _advice(error: DevSynthError, provider: ProviderPort) -> str:
    ours = facade(provider)
    match error:
        case EmptyResponse():
            return "a model that thinks before it speaks may need more tokens"
        case AuthenticationError(status=403):
            return "the key may not ask this model: look at what it is allowed"
        case ModelNotFound():
            return "look at the model's name, or have the server load it"
        case RequestRejected() | ContentFiltered():
            return "look at what the model can do: its abilities in the policy say what it is asked for"
        case _ if ours is not None:
            return advice(error, ours)
        case _:
            return f"look at {type(provider).__name__}, which serves it"


def _what(answer: Response) -> str:
    if answer.vectors:
        return f"vectors of {len(answer.vectors[0])} dimensions"
    return f"a call of {answer.tool_calls[0].name}" if answer.tool_calls else "an answer"


def _spent(error: DevSynthError) -> float | None:
    """What the attempts before *error* cost: some failures are billed."""
    costs = [attempt.cost_usd for attempt in getattr(error, "attempts", ())]
    known = [cost for cost in costs if cost is not None]
    return sum(known, 0.0) if len(known) == len(costs) else None
