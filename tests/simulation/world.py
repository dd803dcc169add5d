"""Carries a schedule out, and writes down how each request went and what was left behind."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from devsynth_providers import EmbedRequest, NoModelFits, Plan, ProviderPort, Response, Router
from devsynth_providers.limits import Limiter, Wish
from devsynth_providers.measured import Measured
from devsynth_providers.testing import EchoProvider, FaultyProvider, Hit, VirtualClock, run_virtually

from .schedule import Ask, Schedule
from .spans import SPANS, Spans

Around = Callable[[ProviderPort], ProviderPort]


@dataclass(eq=False)
class Outcome:
    """How one request went. *plan* is what the router said beforehand, ``None`` if no model fitted."""

    ask: Ask
    plan: Plan | None = None
    began: float = 0.0
    ended: float | None = None
    pieces: list[str] = field(default_factory=list)
    paused_s: float = 0.0
    stopped: bool = False
    """Whether the caller stopped reading."""
    response: Response | None = None
    error: BaseException | None = None

    @property
    def text(self) -> str:
        """What was delivered."""
        return "".join(self.pieces)


@dataclass(frozen=True)
class Story:
    """All that came of a schedule."""

    schedule: Schedule
    outcomes: tuple[Outcome, ...]
    hits: Mapping[str, tuple[Hit, ...]]
    """What the far side saw of each request, by its text, in order."""
    asked: Mapping[str, tuple[str, ...]]
    """Likewise, the models that were asked."""
    walks: Mapping[str, tuple[tuple[tuple[str, Hit], ...], ...]]
    """The same of each call, and of each part of a batch, by itself: the models with what they saw, in order."""
    left_behind: tuple[str, ...]
    spans: Spans
    stormy: bool
    """Whether a circuit has opened."""

    @override
    def __str__(self) -> str:
        """The same for the same schedule, to the last digit."""
        return "\n".join(
            f"{each.ask.number} {each.began} {each.ended} {each.error!r} {each.text!r} {self.asked[each.ask.text]}"
            for each in self.outcomes
        )


def play(schedule: Schedule, around: Around = lambda provider: provider) -> Story:
    """Carry *schedule* out; *around* wraps each provider. Raises ``RuntimeError`` for a deadlock."""
    state = random.getstate()
    random.seed(schedule.seed)
    try:
        return run_virtually(_World(schedule, around).play())
    finally:
        random.setstate(state)


class _World:
    def __init__(self, schedule: Schedule, around: Around) -> None:
        self.schedule = schedule
        self.far = {
            name: FaultyProvider(
                EchoProvider(model, pace_s=schedule.pace_s[name]), schedule.faults[name], seed=schedule.seed
            )
            for name, model in schedule.policy.models.items()
        }
        self.near = {name: around(each) for name, each in self.far.items()}

    async def play(self) -> Story:
        loop = asyncio.get_running_loop()
        complaints: list[str] = []
        loop.set_exception_handler(lambda _, context: complaints.append(f"the loop complains: {context}"))
        SPANS.begin()
        self.limiter = Limiter()
        self.router = Router(self.schedule.policy, self.near, measured=Measured(loop.time), limiter=self.limiter)
        _load_the_dice(self.router, self.schedule.seed)
        outcomes = await asyncio.gather(*map(self._carry_out, self.schedule.asks))
        await asyncio.sleep(0.001)  # for closing what was dropped
        complaints += self._left_behind(loop)
        await self.router.aclose()
        hits: dict[str, tuple[Hit, ...]] = defaultdict(tuple)
        asked: dict[str, tuple[str, ...]] = defaultdict(tuple)
        seen = [(hit.request.call.attempt, hit.at_s, name, hit) for name, far in self.far.items() for hit in far.hits]
        texts = {_begins(ask.text): ask.text for ask in self.schedule.asks}
        walks: dict[str, dict[tuple[str, str], tuple[tuple[str, Hit], ...]]] = defaultdict(dict)
        for _, _, name, hit in sorted(seen, key=lambda each: each[:2]):
            text, walk = texts[_begins(hit.request.text)], (hit.request.call.id, _part(hit))
            hits[text] += (hit,)
            asked[text] += (name,)
            walks[text][walk] = (*walks[text].get(walk, ()), (name, hit))
        stormy = any(circuit.changes for circuit in self.router._deployments.current.circuits.values())
        walked = defaultdict(tuple, {text: tuple(each.values()) for text, each in walks.items()})
        return Story(self.schedule, tuple(outcomes), hits, asked, walked, tuple(complaints), SPANS.end(), stormy)

    def _left_behind(self, loop: Any) -> list[str]:
        left = [f"a task is left: {task}" for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        left += [f"a generator is left: {each}" for each in set(loop._asyncgens) if each.ag_frame is not None]
        left += [f"{name} has {far.unclosed} answers open" for name, far in self.far.items() if far.unclosed]
        for provider, entrance in self.limiter._entrances.items():
            line = entrance._line
            gates = {gate for name in self.schedule.policy.models for gate in line.gates(Wish(name))}
            left += [f"{gate.running} calls are still in {gate.name}" for gate in gates if gate.running]
            if line.queue or entrance._loops:
                left.append(f"{len(line.queue)} calls wait for {provider}, in {len(entrance._loops)} loops")
        left += ["a call is left that nobody listens to"] * len(self.router._deployments.current.flights)
        if isinstance(loop, VirtualClock) and loop.timers:
            left.append(f"{loop.timers} timers are left")
        return left

    async def _carry_out(self, ask: Ask) -> Outcome:
        loop = asyncio.get_running_loop()
        outcome = Outcome(ask)
        await asyncio.sleep(ask.at_s)
        outcome.began = loop.time()
        with suppress(NoModelFits):
            outcome.plan = self.router.plan(ask.request)
        task = asyncio.current_task()
        assert task is not None
        cancel = None if ask.cancels_after_s is None else loop.call_later(ask.cancels_after_s, task.cancel)
        try:
            async with asyncio.timeout(ask.patience_s):
                await self._ask(ask, outcome)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - what it may be is for the rules to say
            outcome.error = error
        finally:
            outcome.ended = loop.time()
            if cancel is not None:
                cancel.cancel()
        return outcome

    async def _ask(self, ask: Ask, outcome: Outcome) -> None:
        request = ask.request
        if ask.deadline_s is not None:
            request = request.on(deadline=outcome.began + ask.deadline_s)
        if ask.way in ("whole", "vectors"):
            outcome.response = await self.router.complete(request)
            outcome.pieces.append(outcome.response.text)
        elif ask.way == "streamed":
            async with await self.router.send(request) as reply:
                async for chunk in reply:
                    if await self._enough(outcome, chunk.text):
                        break
            outcome.response = reply.response
        else:
            options: Any = {
                "temperature": getattr(request, "temperature", 1),
                "max_tokens": getattr(request, "max_tokens", 1),
                "task": request.task,
                **request.limits.given,
            }
            async for piece in self.router.generate_stream(request.task_text, **options):
                if await self._enough(outcome, piece):
                    break

    async def _enough(self, outcome: Outcome, piece: str) -> bool:
        ask = outcome.ask
        outcome.pieces.append(piece)
        if ask.pause_s:
            outcome.paused_s += ask.pause_s
            await asyncio.sleep(ask.pause_s)
        outcome.stopped = ask.reads is not None and len(outcome.pieces) > ask.reads
        return outcome.stopped


def _begins(text: str) -> str:
    return text.split(maxsplit=1)[0]


def _part(hit: Hit) -> str:
    """Which part of a batch it asks for; whoever is to go on with an answer is asked more, for the same call."""
    return hit.request.text if isinstance(hit.request, EmbedRequest) else ""


def _load_the_dice(router: Router, seed: int) -> None:
    """What the layers draw for themselves, they draw from the seed too."""
    for name, outermost in router._deployments.current.stacks.items():
        layer: Any = outermost
        while layer is not None:
            if hasattr(layer, "_jitter"):
                layer._jitter = random.Random(f"{seed} {name}")
            layer = getattr(layer, "inner", None)
