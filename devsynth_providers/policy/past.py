"""What a log tells of models: what each did in the requests that it was asked in."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from ..errors import ProviderError
from ..types import Model, Usage
from .decision import Decision, Try, served
from .facts import Facts

FEW = 10
"""A model that was asked in fewer requests than this is not modelled: what it does is unknown."""
MANY = 20
"""From so many on, requests of the same kind speak for a request; with fewer, all that the model was asked."""


@dataclass(frozen=True, slots=True)
class Visit:
    """All tries at one model within one request. *final*: no other model would have been asked after it."""

    request: int
    answered: bool
    final: bool
    usage: Usage
    latency_s: float


class Pool:
    """What a model did in the requests that it was asked in."""

    def __init__(self, number: int, visits: Sequence[Visit], facts: Sequence[Facts]) -> None:
        self.number = number
        self._visits = visits
        billed = [each for each in visits if each.usage.input_tokens]
        estimated = sum(facts[each.request].input_tokens for each in billed)
        self._ratio = sum(each.usage.input_tokens for each in billed) / estimated if estimated else 1.0

    def draw(self, chance: float, facts: Facts) -> Visit:
        """A visit taken by *chance*, from 0 to 1, with its usage brought to the size of the request at hand."""
        visit = self._visits[int(chance * len(self._visits))]
        usage = visit.usage
        read = round(facts.input_tokens * self._ratio) if usage.input_tokens else 0
        written = min(usage.output_tokens, facts.max_output_tokens) if facts.max_output_tokens else usage.output_tokens
        shrunk = read / usage.input_tokens if usage.input_tokens else 0.0
        cut = written / usage.output_tokens if usage.output_tokens else 0.0
        brought = Usage(
            input_tokens=read,
            output_tokens=written,
            cached_input_tokens=int(usage.cached_input_tokens * shrunk),
            cache_write_tokens=int(usage.cache_write_tokens * shrunk),
            reasoning_tokens=int(usage.reasoning_tokens * cut),
        )
        return Visit(visit.request, visit.answered, visit.final, brought, visit.latency_s)


class Past:
    """All that a log tells of what models do, for policies to be held against."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = decisions
        self._facts = [each.facts for each in decisions]
        self.walks = [list(_visits(number, each)) for number, each in enumerate(decisions)]
        by_kind: dict[tuple[str, object], list[Visit]] = defaultdict(list)
        for decision, walk in zip(decisions, self.walks, strict=True):
            whole = walk if decision.outcome.status in ("answered", "failed") else walk[:-1]
            for name, visit in whole if not decision.outcome.cached else []:
                by_kind[name, _kind(decision.facts)].append(visit)
                by_kind[name, "embeddings" in decision.facts.needs].append(visit)
        self._pools = {
            key: Pool(number, visits, self._facts)
            for number, (key, visits) in enumerate(by_kind.items())
            if len(visits) >= (FEW if isinstance(key[1], bool) else MANY)
        }

    @cached_property
    def names(self) -> Mapping[str, set[str]]:
        """Each model that the log knows, with the names that policies had for it."""
        names: dict[str, set[str]] = defaultdict(set)
        for decision in self.decisions:
            for option in decision.candidates:
                names[option.served].add(option.model)
        return names

    def known_as(self, model: Model) -> str:
        """How the log calls *model*. A policy need not say where a model is; a log does, and may know several."""
        plain = served(model)
        if plain in self.names:
            return plain
        places = [name for name in self.names if name.startswith(f"{plain} at ")]
        if len(places) > 1:
            places = [name for name in places if model.name in self.names[name]]
        return places[0] if len(places) == 1 else plain

    def pool(self, name: str, facts: Facts) -> Pool | None:
        return self._pools.get((name, _kind(facts))) or self._pools.get((name, "embeddings" in facts.needs))


def _kind(facts: Facts) -> tuple[object, ...]:
    """Requests of one kind: the same task, and about the same size, by powers of four."""
    return "embeddings" in facts.needs, facts.task, facts.input_tokens.bit_length() // 2


def _visits(number: int, decision: Decision) -> Iterator[tuple[str, Visit]]:
    outcome = decision.outcome
    for name, tries in itertools.groupby(outcome.attempts, key=lambda each: each.served):
        yield name, _visit(number, list(tries))
    if not outcome.attempts and outcome.cached:
        option = next((each for each in decision.candidates if each.model == outcome.model), None)
        if option is not None:
            yield option.served, Visit(number, True, True, Usage(), outcome.latency_s or 0.0)


def _visit(number: int, tries: Sequence[Try]) -> Visit:
    usage = Usage(
        input_tokens=sum(each.usage.input_tokens for each in tries),
        output_tokens=sum(each.usage.output_tokens for each in tries),
        cached_input_tokens=sum(each.usage.cached_input_tokens for each in tries),
        cache_write_tokens=sum(each.usage.cache_write_tokens for each in tries),
        reasoning_tokens=sum(each.usage.reasoning_tokens for each in tries),
    )
    error = tries[-1].error
    final = error is not None and error not in _passing_on()
    return Visit(number, error is None, final, usage, sum(each.latency_s for each in tries))


@cache
def _passing_on() -> set[str]:
    """The kinds of errors after which the next model is asked."""
    return {kind.kind for kind in ProviderError.__subclasses__() if kind.passes_on}
