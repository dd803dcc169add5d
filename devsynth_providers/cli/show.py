"""``explain``: what would happen, and why, without asking anybody."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from ..router import Router
from ..types import Candidate, Plan


def explain(prompt: str, policy: str, options: dict[str, Any], *, as_json: bool) -> None:
    """Print the plan for *prompt*. Raises ``NoModelFits`` where asking would."""
    given = {name: value for name, value in options.items() if value is not None}
    plan = Router.from_policy(policy).plan(prompt, **given)
    print(json.dumps(_as_dict(plan), ensure_ascii=False) if as_json else plan)


def _as_dict(plan: Plan) -> dict[str, Any]:
    return {
        "policy": plan.policy,
        "rule": plan.rule,
        "complexity": plan.complexity,
        "evidence": [each._asdict() for each in plan.evidence],
        "input_tokens": plan.input_tokens,
        "limits": asdict(plan.limits),
        "candidates": [_candidate(each) for each in plan.candidates],
        "rejected": [each._asdict() for each in plan.rejected],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "model": candidate.model.name,
        "provider": candidate.model.provider,
        "cost_usd": candidate.cost_usd,
        "worst_cost_usd": candidate.worst_cost_usd,
        "latency_s": candidate.latency_s,
        "first_token_s": candidate.first_token_s,
        "latency_basis": candidate.latency_basis,
    }
