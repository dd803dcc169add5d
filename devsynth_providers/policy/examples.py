"""The examples that stand in a policy, tried: each a request, and what is to be decided of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..analysis import TaskAnalyzer
from ..errors import NoModelFits
from ..types import LIMITS, ChatRequest, EmbedRequest, Limits, Plan, Request
from .facts import Conditions, Facts
from .policy import Policy
from .sections import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one: *failures* says, of each thing that was expected, what was decided in its place."""

    number: int
    """In the file, from 1 on."""
    example: Example
    plan: Plan | None
    """``None`` if no model fits."""
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def title(self) -> str:
        """The example in a few words."""
        asked = self.example.prompt or " / ".join(self.example.texts) or "(no prompt)"
        about = [f"{name} {value}" for name in ("task", "project", "role") if (value := getattr(self.example, name))]
        short = asked if len(asked) <= 60 else f"{asked[:57]}..."
        return f"{short!r}" + (f", {', '.join(about)}" if about else "")


def try_examples(policy: Policy, analyzer: TaskAnalyzer | None = None) -> Iterator[Outcome]:
    """Decide each example of *policy*, with all its models there and nothing measured: as the file alone has it."""
    analyzer = analyzer or TaskAnalyzer()
    for number, example in enumerate(policy.tests, 1):
        plan, error = None, None
        try:
            plan = policy.plan(facts_of(example, analyzer), Conditions(now=example.moment))
        except NoModelFits as refused:
            error = refused
        yield Outcome(number=number, example=example, plan=plan, failures=tuple(_failures(example, plan, error)))


def facts_of(example: Example, analyzer: TaskAnalyzer) -> Facts:
    """What *example* says of a request, and what can be read off its prompt."""
    facts = Facts.of(_request(example), analyzer)
    needs = facts.needs | frozenset(example.needs) - {"streaming"}
    facts = facts._replace(needs=needs, streaming="streaming" in example.needs)
    if example.complexity is not None:
        facts = facts._replace(complexity=example.complexity, evidence=())
    return facts if example.input_tokens is None else facts._replace(input_tokens=example.input_tokens)


def _request(example: Example) -> Request:
    limits = Limits(**{name: getattr(example, name) for name in LIMITS})
    if example.texts:
        return EmbedRequest(
            texts=example.texts,
            task=example.task,
            project=example.project,
            role=example.role,
            tags=example.tags,
            limits=limits,
        )
    request = ChatRequest.of(
        example.prompt or "(no prompt)",
        system_prompt=example.system_prompt,
        task=example.task,
        project=example.project,
        role=example.role,
        tags=example.tags,
        max_tokens=example.max_tokens,
    )
    return replace(request, limits=limits)


def _failures(example: Example, plan: Plan | None, error: NoModelFits | None) -> Iterator[str]:
    expect = example.expect
    if plan is None:
        kind = type(error).__name__
        if expect.fails != kind:
            yield f"{kind}: {error}"
        return
    if expect.fails is not None:
        yield f"expected {expect.fails}, but rule {plan.rule} asks {', '.join(plan.models)}"
    if expect.rule is not None and plan.rule != expect.rule:
        yield f"expected rule {expect.rule}, but {plan.rule} decides (complexity {plan.complexity:.2f})"
    if expect.first is not None and plan.models[0] != expect.first:
        why = next((f" ({each.reason})" for each in plan.rejected if each.model == expect.first), "")
        yield f"expected {expect.first} first{why}, but it is {plan.models[0]}"
    if expect.models is not None and plan.models != expect.models:
        yield f"expected {', '.join(expect.models)}, but it is {', '.join(plan.models)}"
    for name in expect.rejected:
        if name in plan.models:
            yield f"expected {name} not to be asked, but it is number {plan.models.index(name) + 1}"
