"""``ask``: the answer to standard output as it comes, and what it took to standard error."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from .. import telemetry
from ..errors import DevSynthError, ProviderError
from ..router import Router
from ..types import Attempt, ChatRequest, Response
from .spans import SpanTree
from .table import counted

OTLP_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Where one of these is set, spans are sent there."""
METRICS_VARIABLES = ("OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
"""Where one of these is set, metrics are sent too: what takes spans alone, as Jaeger, would complain about them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the command line said."""

    text: str
    policy: str
    options: dict[str, Any]
    as_json: bool
    quiet: bool
    trace: bool


async def ask(question: Question) -> None:
    """Stream the answer; raises what the router raises."""
    aside = Console(stderr=True, quiet=question.quiet or question.as_json, highlight=False, emoji=False)
    spans = SpanTree() if question.trace else None
    send_telemetry()
    if spans is not None:
        telemetry.configure(exporter=spans)
    request = ChatRequest.of(question.text, stream=True, **_given(question.options))
    router = Router.from_policy(question.policy)
    try:
        plan = router.plan(request)
        aside.print(f"{plan}\n", style="dim", markup=False, soft_wrap=True)
        with aside.status("loading the model"), contextlib.suppress(ProviderError):  # asking it will say what is wrong
            await router.providers[plan.models[0]].warm_up()
        async with await router.send(request) as reply:
            async for chunk in reply:
                if chunk.continued_by:
                    aside.print(f"\n[it broke off; {chunk.continued_by} goes on]", style="dim", markup=False)
                if not question.as_json:
                    print(chunk.text, end="", flush=True)
        response = reply.response
    finally:
        await router.aclose()
    if question.as_json:
        print(json.dumps(as_dict(response), ensure_ascii=False))
    else:
        print()
        aside.print(f"\n{summary(response)}", style="dim", markup=False, soft_wrap=True)
    if spans is not None:
        Console(stderr=True, highlight=False, emoji=False).print(
            f"\n{spans}", style="dim", markup=False, soft_wrap=True
        )


def send_telemetry() -> None:
    """Send spans, and metrics, where the environment says so."""
    if any(name in os.environ for name in OTLP_VARIABLES):
        telemetry.configure(metrics=any(name in os.environ for name in METRICS_VARIABLES))


def summary(response: Response) -> str:
    """One answer's model, tokens, cost and times, for people."""
    usage, about = response.usage, "about " if response.usage.estimated else ""
    cost = "cost unknown" if response.cost_usd is None else f"${response.cost_usd:.6f} ({response.cost_basis})"
    start = "" if response.first_token_s is None else f", first token after {response.first_token_s:.2f} s"
    lines = [
        f"{response.model} ({response.provider}): {about}{counted(usage.input_tokens, 'token')} in, "
        f"{usage.output_tokens} out, {cost}, {response.latency_s:.2f} s{start}"
    ]
    if response.truncated:
        lines.append("the answer was cut at the limit of tokens (--max-tokens)")
    return "\n".join(lines + _failed(response.attempts))


def described(error: DevSynthError) -> str:
    """*error*, and the attempts it took, for people."""
    attempts: tuple[Attempt, ...] = getattr(error, "attempts", ())
    told = f"{error.model}: {error}" if isinstance(error, ProviderError) and error.model else str(error)
    return "\n".join([told, *(_failed(attempts) if len(attempts) > 1 else [])])


def _failed(attempts: Sequence[Attempt]) -> list[str]:
    return [
        f"attempt {a.number} ({a.reason}): {a.model} failed after {a.latency_s:.2f} s: {a.error_message}"
        for a in attempts
        if a.error
    ]


def as_dict(response: Response) -> dict[str, Any]:
    """*response* for ``--json``: plain values, nothing of the machine it ran on."""
    plan = response.plan
    return {
        "text": response.text,
        "model": response.model,
        "provider": response.provider,
        "rule": plan.rule if plan else None,
        "complexity": plan.complexity if plan else None,
        "finish_reason": response.finish_reason,
        "usage": asdict(response.usage),
        "cost_usd": response.cost_usd,
        "cost_basis": response.cost_basis,
        "first_token_s": response.first_token_s,
        "latency_s": response.latency_s,
        "cached": response.cached,
        "degraded": response.degraded,
        "shared": response.shared,
        "continued_by": list(response.continued_by),
        "attempts": [asdict(attempt) | {"cost_usd": attempt.cost_usd} for attempt in response.attempts],
    }


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
