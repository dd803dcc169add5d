"""What must hold of every story, whatever goes wrong in it. A rule yields a sentence for each time it is broken."""

from __future__ import annotations

import asyncio
import itertools
import traceback
from collections.abc import Callable, Iterator, Mapping

from devsynth_providers import (
    Attempt,
    BudgetExceeded,
    ChatRequest,
    ContentFiltered,
    DevSynthError,
    EmbedRequest,
    InvalidRequest,
    NoModelFits,
    Plan,
    StreamInterrupted,
)
from devsynth_providers.analysis import estimate_tokens
from devsynth_providers.layers.seam import Seam
from devsynth_providers.testing import Hit

from .facts import by_number, equals, goes_on, got_no_turn, may_share, told
from .whole import limits, shares, spans
from .world import Outcome, Story

Rule = Callable[[Story, Outcome], Iterator[str]]
Walk = tuple[tuple[str, Hit], ...]
GRACE_S = 1e-6


def broken(story: Story) -> list[str]:
    """Every rule that *story* breaks, as a sentence."""
    found = [
        f"request {one.ask.number}: {what}" for one in story.outcomes for rule in RULES for what in rule(story, one)
    ]
    return [*found, *story.left_behind, *shares(story), *spans(story), *limits(story)]


def ends_in_time(story: Story, one: Outcome) -> Iterator[str]:
    """At the deadline, the caller's or the policy's, and at once when it is cancelled; only the deaf take longer."""
    deaf_s = sum(f.lasts(1.0) for hit in story.hits[one.ask.text] for f in hit.faults if f.kind == "deaf")
    deadline_s = None if one.ask.way == "pieces" else one.ask.deadline_s
    whole = [story.schedule.policy.timeouts.total_s, *([] if deadline_s is None else [deadline_s])]
    bounds = [min(whole) + one.paused_s, one.ask.cancels_after_s, one.ask.patience_s]
    bound = min(each for each in bounds if each is not None)
    if one.ended is None or one.ended > one.began + bound + deaf_s + GRACE_S:
        yield f"began at {one.began}, had {bound} s and {deaf_s} s of deafness, and ended at {one.ended}"


def fails_as_it_may(story: Story, one: Outcome) -> Iterator[str]:
    """By an error of the library, or by the caller's own doing; ``NoModelFits`` exactly where the plan says so."""
    error = one.error
    planned = isinstance(error, NoModelFits) == (one.plan is None) or story.stormy
    if not planned and not isinstance(error, asyncio.CancelledError):
        yield f"the plan was {one.plan}, and it ended with {error!r}"
    if isinstance(error, asyncio.CancelledError):
        if one.ask.cancels_after_s is None:
            yield "cancelled by nobody"
    elif isinstance(error, TimeoutError):
        if one.ask.patience_s is None:
            yield "a TimeoutError that is not the caller's"
    elif isinstance(error, InvalidRequest) or not isinstance(error, DevSynthError | None):
        yield "".join(traceback.format_exception(error))


def delivers_one_answer(story: Story, one: Outcome) -> Iterator[str]:
    """Whole, or as much of it as was read or came: never doubled, and never spliced but where it says so."""
    response, error = one.response, one.error
    possible, wrong = _answers(story, one)
    yield from wrong
    if one.text and not any(answer.startswith(one.text) for answer in possible):
        yield f"{one.text!r} is of no model's answer"
    if isinstance(error, StreamInterrupted | ContentFiltered) and one.ask.way != "whole" and error.partial != one.text:
        yield f"{one.text!r} was delivered, and the error has {error.partial!r}"
    if one.pieces and one.text and isinstance(error, DevSynthError) and not hasattr(error, "partial"):
        yield f"it failed by {error!r} after {one.text!r} was delivered"
    if response is not None and one.ask.way != "vectors":
        if response.continued_by and (response.continued_by[-1], True) != (response.model, response.degraded):
            yield f"{response.model} ended what {response.continued_by} went on with"
        wholes = possible if response.continued_by else {f"{response.model}: {one.ask.text}"}
        if response.text != one.text or not any(whole.startswith(one.text) for whole in wholes):
            yield f"{response.model} answered {response.text!r}, and {one.text!r} was delivered"
        if not one.stopped and (response.finish_reason is None or not (one.text in wholes or response.truncated)):
            yield f"{one.text!r} passes for whole, finish reason {response.finish_reason}"
    partial = getattr(error, "partial", "")
    if partial and not any(answer.startswith(partial) for answer in possible):
        yield f"{partial!r} is not the beginning of the answer of {getattr(error, 'model', '')}"


def _answers(story: Story, one: Outcome) -> tuple[set[str], list[str]]:
    """What the answer may be, if it is not cut short: one model's, or what was delivered and what the next one said to
    that, without what it repeated; and what is wrong with how they were asked on."""
    wrong = list[str]()
    return {text for walk in story.walks[one.ask.text] for text in _answers_of(walk, one, wrong)}, wrong


def _answers_of(walk: Walk, one: Outcome, wrong: list[str]) -> set[str]:
    possible = set[str]()
    for name, hit in walk:
        answer = f"{name}: {hit.request.task_text}"
        if not goes_on(one, hit):
            possible.add(answer)
            continue
        assert isinstance(hit.request, ChatRequest)
        said = hit.request.messages[1].content
        begun = {text[: len(said) + more] for text in possible if text.startswith(said) for more in (0, 1)}
        begun = {text for text in begun if text.rstrip() == said}
        if not begun or (one.plan is not None and one.plan.conduct.on_break != "continue"):
            wrong.append(f"{name} was to go on from {said!r}")
        possible |= {text + (Seam(text).join(answer, last=True) or "") for text in begun}
        if one.response is None or one.response.truncated:
            possible |= {text + answer for text in begun}  # cut short, a repetition may not be known as one
    return possible


def embeds_each_text(story: Story, one: Outcome) -> Iterator[str]:
    """One vector for each text, in their order, all of one model; of a batch that failed, that or an error for each."""
    if one.response is not None and isinstance(one.ask.request, EmbedRequest):
        space = float(len(story.schedule.policy.models[one.response.model].id))
        if one.response.vectors != tuple((float(len(text)), space) for text in one.ask.request.texts):
            yield f"{one.ask.request.texts} became {one.response.vectors}"
    error = one.error
    if isinstance(error, DevSynthError) and error.failures and isinstance(one.ask.request, EmbedRequest):
        texts = one.ask.request.texts
        came = error.vectors or (None,) * len(texts)
        if [place for place, vector in enumerate(came) if vector is None] != sorted(error.failures):
            yield f"of {len(texts)} texts {sorted(error.failures)} failed, and {came} came"
        if any(vector is not None and vector[0] != len(text) for text, vector in zip(texts, came, strict=True)):
            yield f"{texts} became {came}"


def tells_every_call(story: Story, one: Outcome) -> Iterator[str]:
    """The attempts that are told are those that the far side saw, and those that got no turn: in order, numbered, each
    with its reason. What one of several who asked the same is told, the others are not."""
    attempts, asked = told(one), story.asked[one.ask.text]
    if attempts is None:
        if asked and not story.stormy and all(each.plan is None for each in equals(story, one)):
            yield f"no model fits, and {asked} were asked"
        return
    if min((min(a.usage.input_tokens, a.usage.output_tokens) for a in attempts), default=0) < 0:
        yield f"less than nothing was used: {[a.usage for a in attempts]}"
    numbers = [each.number for each in attempts]
    if len(equals(story, one)) > 1:
        if len(set(numbers)) < len(numbers):
            yield f"the attempts are numbered {numbers}"
        return
    if tuple(each.model for each in attempts if not got_no_turn(each)) != asked:
        yield f"told of {[each.model for each in attempts]}, and the far side saw {asked}"
    if numbers != list(range(1, len(attempts) + 1)):
        yield f"the attempts are numbered {numbers}"
    if not story.stormy:
        hits = by_number(story, one)
        for tried in _one_after_the_other(story, one, attempts):
            if tried and tried[0].reason != "primary" and not any(map(got_no_turn, attempts)):
                yield f"{tried[0].model}, asked first, is called {tried[0].reason}"
            yield from _reasons(one, tried, hits)


def _one_after_the_other(story: Story, one: Outcome, attempts: tuple[Attempt, ...]) -> list[tuple[Attempt, ...]]:
    """*attempts*, those at each part of a batch by themselves; which part got no turn, nobody can tell."""
    walks, request = story.walks[one.ask.text], one.ask.request
    batch = isinstance(request, EmbedRequest) and len(request.texts) > 1
    if len(walks) <= 1 and not (batch and any(map(got_no_turn, attempts))):
        return [attempts]
    numbers = [{hit.request.call.attempt for _, hit in walk} for walk in walks]
    return [tuple(each for each in attempts if each.number in walk) for walk in numbers]


def _reasons(one: Outcome, attempts: tuple[Attempt, ...], hits: Mapping[int, Hit]) -> Iterator[str]:
    seen = set[str]()
    for before, after in itertools.pairwise(attempts):
        if before.number in hits:
            seen.add(before.model)
        reasons = {"retry"} if after.model in seen else {"fallback", "hedge"}
        if after.number not in hits:
            reasons.add("continuation")
        elif goes_on(one, hits[after.number]):
            reasons = {"continuation"} | (reasons & {"retry"} if before.error != "stream_interrupted" else set())
        if after.reason not in reasons:
            yield f"{after.model} after {before.model} is called {after.reason}"


def asks_within_the_plan(story: Story, one: Outcome) -> Iterator[str]:
    """Each model as often as a policy lets it, one after the other, as planned; nothing that was not planned. So it is
    for each part of a batch.

    Where circuits open, requests wait for whoever is back first, which no plan can tell; and whoever is back, after
    others found out, may be tried anew, but once. To go on, not more are asked than the plan has.
    """
    for walk in story.walks[one.ask.text]:
        yield from _within_the_plan(story, one, walk)


def _within_the_plan(story: Story, one: Outcome, walk: Walk) -> Iterator[str]:
    policy = story.schedule.policy
    asked, asked_on = ([name for name, hit in walk if goes_on(one, hit) is which] for which in (False, True))
    planned = {name for each in _plans(story, one) for name in each.models}
    models = set(policy.models) if one.plan is None or story.stormy else planned
    if not set(asked_on) <= models or len(asked_on) > len(models) * policy.retry.attempts:
        yield f"{asked_on} were asked to go on; the plan was {one.plan}"
    if story.stormy:
        most = 2 * policy.retry.attempts
        if any(asked.count(name) > most for name in asked):
            yield f"{asked} were asked, with {policy.retry.attempts} attempts at each, before and after a wait"
        return
    hedged = any(hit.request.call.reason == "hedge" for _, hit in walk)
    names = list(dict.fromkeys(asked))
    apart = [name for name, _ in itertools.groupby(asked)]
    if any(asked.count(name) > policy.retry.attempts for name in names) or (apart != names and not hedged):
        yield f"{asked} were asked, with {policy.retry.attempts} attempts at each"
    if planned and not set(names) <= planned:
        yield f"{names} were asked; planned were {planned}"
    plan = one.plan if one.response is None else one.response.plan
    if plan is None or one.plan is None:
        return
    if set(plan.models) != set(one.plan.models):
        yield f"the plan was {one.plan.models}, then {plan.models}"
    if not _all_told(story, one):
        return
    in_order = [[name for name in each.models if name in names] for each in _plans(story, one)]
    if len(equals(story, one)) == 1:
        in_order = [[name for name in plan.models if name in names]]
    if names not in in_order:
        yield f"{names} were asked in another order than {plan.models}"


def _all_told(story: Story, one: Outcome) -> bool:
    """Whether all who asked the same tell by which plan they were answered; one that failed does not."""
    return all(each.response is not None for each in equals(story, one))


def _plans(story: Story, one: Outcome) -> list[Plan]:
    """What the router said beforehand, and what it did, for all who asked the same."""
    each = [(other.plan, None if other.response is None else other.response.plan) for other in equals(story, one)]
    return [plan for both in each for plan in both if plan is not None]


def hedges_as_the_rule_says(story: Story, one: Outcome) -> Iterator[str]:
    """Once at most, at the second model, when the first has had its time; only who lost is cancelled, or who is asked
    for all who listen, when the last of them stops. So it is for each part of a batch."""
    walks = story.walks[one.ask.text]
    if one.response is not None and not (one.stopped and may_share(one)):
        answered = [each for each in one.response.attempts if each.model == one.response.model]
        lost = [each.error == "cancelled" for each in answered]
        if lost and (all(lost) if len(walks) > 1 else lost[-1]):
            yield f"the attempt at {one.response.model} was cancelled, which answered"
    for walk in walks:
        yield from _hedges(story, one, walk)


def _hedges(story: Story, one: Outcome, walk: Walk) -> Iterator[str]:
    asked = [name for name, _ in walk]
    hedges = [(name, hit) for name, hit in walk if hit.request.call.reason == "hedge"]
    if not hedges or one.plan is None or story.stormy:
        return
    hedge, (second, hit) = one.plan.conduct.hedge, hedges[0]
    began = min(each.began for each in equals(story, one))
    if hedge is None or len(hedges) > 1:
        yield f"{len(hedges)} hedges, and the rule says {hedge}"
    elif not isinstance(hedge.after, str) and hit.at_s < began + hedge.after - GRACE_S:
        yield f"began at {began}, to be hedged after {hedge.after} s, and was hedged at {hit.at_s}"
    plans = _plans(story, one) if len(equals(story, one)) > 1 else [] if one.response is None else [one.response.plan]
    if _all_told(story, one) and second not in [plan.models[1] for plan in plans if plan is not None]:
        yield f"{asked} were asked, the hedge was {second}; the plan was {[plan and plan.models for plan in plans]}"
    if one.ask.way == "vectors" and len({story.schedule.policy.models[name].id for name in asked}) > 1:
        yield f"{asked} were asked for vectors, which are of several spaces"


def asks_nobody_else_once_it_is_answered(story: Story, one: Outcome) -> Iterator[str]:
    """When an answer begins, all other attempts to begin it have ended; only the deaf take longer. Each part of a batch
    has an answer of its own; of those who asked the same, nobody is told of all attempts."""
    if one.response is None or len(equals(story, one)) > 1:
        return
    hits, walks = by_number(story, one), story.walks[one.ask.text]
    for tried in _one_after_the_other(story, one, one.response.attempts):
        attempts = [each for each in tried if each.number in hits]
        won = [each for each in attempts if each.error is None or len(walks) == 1]
        winner = next((each for each in reversed(won) if each.model == one.response.model or len(walks) > 1), None)
        if winner is None:
            if len(walks) == 1:
                yield f"{one.response.model} answered, and was not asked"
            continue
        begun = hits[winner.number].at_s + (winner.first_token_s or 0.0) - winner.wait_s
        for attempt in attempts:
            hit = hits[attempt.number]
            if goes_on(one, hit):  # not with the answer itself
                continue
            deaf_s = sum(fault.lasts(1.0) for fault in hit.faults if fault.kind == "deaf")
            if attempt is not winner and hit.at_s + attempt.latency_s - attempt.wait_s > begun + deaf_s + GRACE_S:
                yield f"{winner.model} began to answer at {begun}, and {attempt.model} was still asked"


def pays_within_the_ceiling(story: Story, one: Outcome) -> Iterator[str]:
    """What it cost is the sum of its attempts, and none began whose worst could have been too much."""
    attempts, policy = told(one) or (), story.schedule.policy
    if one.response is not None:
        costs = [each.cost_micros for each in attempts]
        total = None if None in costs else sum(filter(None, costs)) / 1_000_000
        if one.response.cost_usd != total:
            yield f"cost {one.response.cost_usd}, its attempts {costs}"
    ceiling = None if one.plan is None else one.plan.limits.max_cost_usd
    if ceiling is None:
        if isinstance(one.error, BudgetExceeded) and one.plan is not None:  # else it was decided later, by who was back
            yield "there is no ceiling to exceed"
        return
    if len(equals(story, one)) > 1:
        return  # nobody is told of all that was spent
    spent, hits = 0, by_number(story, one)
    in_parts = isinstance(one.ask.request, EmbedRequest) and len(one.ask.request.texts) > 1
    for attempt in attempts:
        if in_parts and attempt.number not in hits:
            continue  # it got no turn: nothing was spent, and for which part it would have been, nobody can tell
        request = hits[attempt.number].request if attempt.number in hits else one.ask.request
        longest = request.max_tokens if isinstance(request, ChatRequest) else 0
        worst = policy.models[attempt.model].worst_micros(estimate_tokens(request.text), longest)
        if worst is None or spent + worst > round(ceiling * 1_000_000):
            yield f"{attempt.model} could cost {worst} when {spent} of {ceiling * 1_000_000} was spent"
        spent += min(attempt.worst_micros or 0, worst or 0) if in_parts else attempt.worst_micros or 0


RULES: tuple[Rule, ...] = (
    ends_in_time,
    fails_as_it_may,
    delivers_one_answer,
    embeds_each_text,
    tells_every_call,
    asks_within_the_plan,
    hedges_as_the_rule_says,
    asks_nobody_else_once_it_is_answered,
    pays_within_the_ceiling,
)
