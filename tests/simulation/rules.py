"""What must hold of every story, whatever goes wrong in it. A rule yields a sentence for each time it is broken."""

from __future__ import annotations

import asyncio
import itertools
import traceback
from collections.abc import Callable, Iterator

from devsynth_providers import (
    Attempt,
    BudgetExceeded,
    ChatRequest,
    ContentFiltered,
    DevSynthError,
    EmbedRequest,
    InvalidRequest,
    LimitReached,
    NoModelFits,
    StreamInterrupted,
    Usage,
)
from devsynth_providers.analysis import estimate_tokens
from devsynth_providers.layers.seam import Seam
from devsynth_providers.testing import Hit

from .world import Outcome, Story

Rule = Callable[[Story, Outcome], Iterator[str]]
GRACE_S = 1e-6


def broken(story: Story) -> list[str]:
    """Every rule that *story* breaks, as a sentence."""
    found = [
        f"request {one.ask.number}: {what}" for one in story.outcomes for rule in RULES for what in rule(story, one)
    ]
    return [*found, *story.left_behind, *_spans(story), *_limits(story)]


def told(outcome: Outcome) -> tuple[Attempt, ...] | None:
    """The attempts that the caller is told of, by their numbers; ``None`` if it is told nothing. An error tells them in
    the order in which they ended."""
    if outcome.response is not None:
        return outcome.response.attempts
    attempts: tuple[Attempt, ...] | None = getattr(outcome.error, "attempts", None)
    return None if attempts is None else tuple(sorted(attempts, key=lambda attempt: attempt.number))


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


def _goes_on(one: Outcome, hit: Hit) -> bool:
    """Whether it was asked to go on from what another had said."""
    return hit.request.text != one.ask.text


def _answers(story: Story, one: Outcome) -> tuple[set[str], list[str]]:
    """What the answer may be, if it is not cut short: one model's, or what was delivered and what the next one said to
    that, without what it repeated; and what is wrong with how they were asked on."""
    possible, wrong = set[str](), list[str]()
    for name, hit in zip(story.asked[one.ask.text], story.hits[one.ask.text], strict=True):
        answer = f"{name}: {hit.request.task_text}"
        if not _goes_on(one, hit):
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
    return possible, wrong


def embeds_each_text(story: Story, one: Outcome) -> Iterator[str]:
    """One vector for each text, in their order, all of one model."""
    if one.response is not None and isinstance(one.ask.request, EmbedRequest):
        space = float(len(story.schedule.policy.models[one.response.model].id))
        if one.response.vectors != tuple((float(len(text)), space) for text in one.ask.request.texts):
            yield f"{one.ask.request.texts} became {one.response.vectors}"


def _by_number(story: Story, one: Outcome) -> dict[int, Hit]:
    """What the far side saw, by the numbers of the attempts; those that got no turn are not among it."""
    return {hit.request.call.attempt: hit for hit in story.hits[one.ask.text]}


def _got_no_turn(attempt: Attempt) -> bool:
    """It was refused by our own limits, or given up while it waited for its turn: nothing was sent, nothing is paid."""
    return attempt.error == LimitReached.kind or (attempt.error == "cancelled" and attempt.usage == Usage())


def tells_every_call(story: Story, one: Outcome) -> Iterator[str]:
    """The attempts that are told are those that the far side saw, and those that got no turn: in order, numbered, each
    with its reason."""
    attempts, asked = told(one), story.asked[one.ask.text]
    if attempts is None:
        if one.plan is None and asked and not story.stormy:
            yield f"no model fits, and {asked} were asked"
        return
    if tuple(each.model for each in attempts if not _got_no_turn(each)) != asked:
        yield f"told of {[each.model for each in attempts]}, and the far side saw {asked}"
    if [each.number for each in attempts] != list(range(1, len(attempts) + 1)):
        yield f"the attempts are numbered {[each.number for each in attempts]}"
    hits, seen = _by_number(story, one), set[str]()
    for before, after in itertools.pairwise(attempts):
        if before.number in hits:
            seen.add(before.model)
        reasons = {"retry"} if after.model in seen else {"fallback", "hedge"}
        if after.number not in hits:
            reasons.add("continuation")
        elif _goes_on(one, hits[after.number]):
            reasons = {"continuation"} | (reasons & {"retry"} if before.error != "stream_interrupted" else set())
        if after.reason not in reasons and not story.stormy:
            yield f"{after.model} after {before.model} is called {after.reason}"
    if min((min(a.usage.input_tokens, a.usage.output_tokens) for a in attempts), default=0) < 0:
        yield f"less than nothing was used: {[a.usage for a in attempts]}"


def asks_within_the_plan(story: Story, one: Outcome) -> Iterator[str]:
    """Each model as often as a policy lets it, one after the other, as planned; nothing that was not planned.

    Where circuits open, requests wait for whoever is back first, which no plan can tell; and whoever is back, after
    others found out, may be tried anew, but once. To go on, not more are asked than the plan has.
    """
    hits, policy = story.hits[one.ask.text], story.schedule.policy
    both = [(name, _goes_on(one, hit)) for name, hit in zip(story.asked[one.ask.text], hits, strict=True)]
    asked, asked_on = ([name for name, on in both if on is which] for which in (False, True))
    models = tuple(policy.models) if one.plan is None or story.stormy else one.plan.models
    if not set(asked_on) <= set(models) or len(asked_on) > len(models) * policy.retry.attempts:
        yield f"{asked_on} were asked to go on; the plan was {one.plan}"
    if story.stormy:
        most = 2 * policy.retry.attempts
        if any(asked.count(name) > most for name in asked):
            yield f"{asked} were asked, with {policy.retry.attempts} attempts at each, before and after a wait"
        return
    hedged = any(hit.request.call.reason == "hedge" for hit in story.hits[one.ask.text])
    names = list(dict.fromkeys(asked))
    apart = [name for name, _ in itertools.groupby(asked)]
    if any(asked.count(name) > policy.retry.attempts for name in names) or (apart != names and not hedged):
        yield f"{asked} were asked, with {policy.retry.attempts} attempts at each"
    plan = one.plan if one.response is None else one.response.plan
    if plan is None or one.plan is None:
        return
    if set(plan.models) != set(one.plan.models) or not set(names) <= set(plan.models):
        yield f"{names} were asked; the plan was {one.plan.models}, then {plan.models}"
    if one.response is not None and names != [name for name in plan.models if name in names]:
        yield f"{names} were asked in another order than {plan.models}"


def hedges_as_the_rule_says(story: Story, one: Outcome) -> Iterator[str]:
    """Once at most, at the second model, when the first has had its time; only who lost is cancelled."""
    asked, hits = story.asked[one.ask.text], story.hits[one.ask.text]
    hedges = [number for number, hit in enumerate(hits) if hit.request.call.reason == "hedge"]
    if one.response is not None:
        answered = [each for each in one.response.attempts if each.model == one.response.model]
        if answered[-1].error == "cancelled":
            yield f"the attempt at {one.response.model} was cancelled, which answered"
    if not hedges or one.plan is None or story.stormy:
        return
    hedge = one.plan.conduct.hedge
    if hedge is None or len(hedges) > 1:
        yield f"{len(hedges)} hedges, and the rule says {hedge}"
    elif not isinstance(hedge.after, str) and hits[hedges[0]].at_s < one.began + hedge.after - GRACE_S:
        yield f"began at {one.began}, to be hedged after {hedge.after} s, and was hedged at {hits[hedges[0]].at_s}"
    if one.response is not None and one.response.plan is not None and asked[hedges[0]] != one.response.plan.models[1]:
        yield f"{asked} were asked, the hedge as number {hedges[0] + 1}; the plan was {one.response.plan.models}"
    if one.ask.way == "vectors" and len({story.schedule.policy.models[name].id for name in asked}) > 1:
        yield f"{asked} were asked for vectors, which are of several spaces"


def asks_nobody_else_once_it_is_answered(story: Story, one: Outcome) -> Iterator[str]:
    """When an answer begins, all other attempts have ended; only the deaf take longer."""
    if one.response is None:
        return
    hits = _by_number(story, one)
    attempts = [each for each in one.response.attempts if each.number in hits]
    winner = next(each for each in reversed(attempts) if each.model == one.response.model)
    begun = hits[winner.number].at_s + (winner.first_token_s or 0.0) - winner.wait_s
    for attempt in attempts:
        hit = hits[attempt.number]
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
        if isinstance(one.error, BudgetExceeded):
            yield "there is no ceiling to exceed"
        return
    spent, hits = 0, _by_number(story, one)
    for attempt in attempts:
        request = hits[attempt.number].request if attempt.number in hits else one.ask.request
        longest = request.max_tokens if isinstance(request, ChatRequest) else 0
        worst = policy.models[attempt.model].worst_micros(estimate_tokens(request.text), longest)
        if worst is None or spent + worst > round(ceiling * 1_000_000):
            yield f"{attempt.model} could cost {worst} when {spent} of {ceiling * 1_000_000} was spent"
        spent += attempt.worst_micros or 0


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


def _limits(story: Story) -> Iterator[str]:
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


def _spans(story: Story) -> Iterator[str]:
    """One for each request, one below it for each call that the far side saw, each ended once. Where there are limits,
    some are of calls whose turn did not come."""
    spans = story.spans
    if not spans.recorded:
        return
    yield from spans.wrong
    for name in spans.open.values():
        yield f"the span {name} has not ended"
    if len(spans.requests) != len(story.outcomes):
        yield f"{len(story.outcomes)} requests have {len(spans.requests)} spans"
    for text, hits in story.hits.items():
        if not hits:
            continue
        traced = spans.attempts[hits[0].request.call.id]
        if traced < len(hits) or (traced > len(hits) and not story.schedule.policy.limits):
            yield f"{text!r} has {traced} spans of attempts, and the far side saw {len(hits)}"
