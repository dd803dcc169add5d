"""What must hold of a story as a whole: between requests, over its time, and in its trace."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

from .facts import got_no_turn, may_share, told
from .world import Outcome, Story


def shares(story: Story) -> Iterator[str]:
    """Of equal requests each attempt is told by one; and who comes while one of them is answered asks nobody."""
    for text, asked in story.asked.items():
        group = [each for each in story.outcomes if each.ask.text == text]
        if len(group) == 1:
            continue
        attempts = [told(each) for each in group]
        names = Counter(each.model for one in attempts for each in one or () if not got_no_turn(each))
        seen = Counter(asked)
        if names - seen or (None not in attempts and names != seen):
            yield f"all who asked {text[:40]!r} are told of {names} together, and the far side saw {seen}"
        for one, other in itertools.permutations(group, 2):
            if _joins(story, one, other) and other.response is not None and not other.response.shared:
                yield f"request {other.ask.number} is not shared, and {one.ask.number}, equal to it, was under way"


def _joins(story: Story, one: Outcome, other: Outcome) -> bool:
    """Whether *other* came while *one*, who tells of the call, was being answered, and both were answered whole."""
    mine, theirs = one.response, other.response
    if mine is None or theirs is None or mine.plan is None or theirs.plan is None:
        return False
    if story.stormy or mine.shared or one.stopped or other.stopped or one.ask.pause_s:
        return False
    same = mine.plan.models == theirs.plan.models and may_share(one)
    return same and one.ended is not None and one.began < other.began < one.ended


def limits(story: Story) -> Iterator[str]:
    """In no minute, wherever it begins, has anybody been asked more often than the policy allows."""
    policy = story.schedule.policy
    for name, rates in policy.limits.items():
        asked = [
            hit.at_s
            for text, hits in story.hits.items()
            for model, hit in zip(story.asked[text], hits, strict=True)
            if name in (model, policy.models[model].provider)
        ]
        for start in asked:
            minute = sum(start <= at < start + 60 for at in asked)
            if rates.requests_per_minute is not None and minute > rates.requests_per_minute:
                yield f"{name} was asked {minute} times from {start} s on, and {rates.requests_per_minute} are allowed"


def spans(story: Story) -> Iterator[str]:
    """One for each request, one below it for each call that the far side saw, each ended once. Where there are limits,
    some are of calls whose turn did not come."""
    heard = story.spans
    if not heard.recorded:
        return
    yield from heard.wrong
    for name in heard.open.values():
        yield f"the span {name} has not ended"
    if len(heard.requests) != len(story.outcomes):
        yield f"{len(story.outcomes)} requests have {len(heard.requests)} spans"
    calls = Counter(hit.request.call.id for hits in story.hits.values() for hit in hits)
    for call, hits in calls.items():
        traced = heard.attempts[call]
        if traced < hits or (traced > hits and not story.schedule.policy.limits):
            yield f"the call {call} has {traced} spans of attempts, and the far side saw {hits}"
