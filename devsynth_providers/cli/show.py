"""``explain`` and ``policy check``: what would happen, and what is wrong, without asking anybody."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..doctor.mistakes import mistake
from ..errors import PolicyError
from ..policy.file import load_policy
from ..providers.registry import registry
from ..router import Router
from ..types import Candidate, Plan
from .table import counted


def explain(prompt: str, policy: str, options: dict[str, Any], *, as_json: bool) -> None:
    """Print the plan for *prompt*. Raises ``NoModelFits`` where asking would."""
    given = {name: value for name, value in options.items() if value is not None}
    plan = Router.from_policy(policy).plan(prompt, **given)
    print(json.dumps(_as_dict(plan), ensure_ascii=False) if as_json else plan)


def check_policies(sources: Sequence[str], *, as_json: bool) -> bool:
    """Print every mistake in *sources*; returns whether there is none."""
    findings: list[dict[str, Any]] = []
    for source in sources:
        try:
            policy = load_policy(source, providers=registry, mistake=mistake)
        except PolicyError as error:
            findings += [{"file": error.file, **asdict(problem)} for problem in error.problems]
            if not as_json:
                print(error, file=sys.stderr)
        else:
            if not as_json:
                print(f"{source}: right; {counted(len(policy.models), 'model')}, {counted(len(policy.rules), 'rule')}")
    if as_json:
        print(json.dumps({"ok": not findings, "problems": findings}))
    return not findings


def _as_dict(plan: Plan) -> dict[str, Any]:
    return {
        "policy": plan.policy,
        "rule": plan.rule,
        "complexity": plan.complexity,
        "evidence": [asdict(each) for each in plan.evidence],
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
