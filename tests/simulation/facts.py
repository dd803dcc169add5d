"""What rules ask of a story: who asked the same, what each was told, and which of it the far side saw."""

from __future__ import annotations

from devsynth_providers import Attempt, ChatRequest, EmbedRequest, LimitReached, Usage
from devsynth_providers.testing import Hit

from .world import Outcome, Story


def told(outcome: Outcome) -> tuple[Attempt, ...] | None:
    """The attempts that the caller is told of, by their numbers; ``None`` if it is told nothing. An error tells them in
    the order in which they ended."""
    if outcome.response is not None:
        return outcome.response.attempts
    attempts: tuple[Attempt, ...] | None = getattr(outcome.error, "attempts", None)
    return None if attempts is None else tuple(sorted(attempts, key=lambda attempt: attempt.number))


def equals(story: Story, one: Outcome) -> list[Outcome]:
    """All who asked the same, *one* among them."""
    return [each for each in story.outcomes if each.ask.text == one.ask.text]


def by_number(story: Story, one: Outcome) -> dict[int, Hit]:
    """What the far side saw of *one*, whom no other equals, by the numbers of the attempts; those that got no turn are
    not among it."""
    return {hit.request.call.attempt: hit for hit in story.hits[one.ask.text]}


def got_no_turn(attempt: Attempt) -> bool:
    """It was refused by our own limits, or given up while it waited for its turn: nothing was sent, nothing is paid."""
    return attempt.error == LimitReached.kind or (attempt.error == "cancelled" and attempt.usage == Usage())


def goes_on(one: Outcome, hit: Hit) -> bool:
    """Whether it was asked to go on from what another had said."""
    return isinstance(hit.request, ChatRequest) and hit.request.text != one.ask.text


def may_share(one: Outcome) -> bool:
    """Whether the rule lets it share a call with its equals, if there are any."""
    plan = one.plan if one.response is None else one.response.plan
    coalesce, request = "never" if plan is None else plan.conduct.coalesce, one.ask.request
    alike = isinstance(request, EmbedRequest) or getattr(request, "temperature", 1) == 0
    return coalesce == "always" or (coalesce == "auto" and alike)
