"""Whoever carries a plan out: the layers around the stacks of its models."""

from __future__ import annotations

from collections.abc import Sequence

from .deployment import Deployment
from .health import Health
from .layers.cached import Cached, Kept
from .layers.coalesced import Coalesced
from .layers.fallback import FallbackProvider
from .layers.hedged import Hedged
from .layers.joined import Joined
from .layers.resuming import Resuming
from .layers.splitting import Splitting
from .measured import Measured
from .port import ProviderPort
from .types import Plan


def chain(deployment: Deployment, plan: Plan, measured: Measured, health: Health) -> ProviderPort:
    """Whoever is asked to carry *plan* out."""
    stacks, conduct, cache = [deployment.stacks[name] for name in plan.models], plan.conduct, deployment.cache
    if (keep := conduct.cache) is None or cache is None:
        return _calls(deployment, plan, stacks, measured, health)
    # Outermost: what is kept needs no turn, no money, no server that is well, and no call that others may share.
    first = Cached(stacks[0], cache, keep, conduct)

    def calls() -> ProviderPort:
        others = [Cached(each, cache, keep, conduct) for each in stacks[1:]]
        return _calls(deployment, plan, [first, *others], measured, health)

    return Kept(calls, first)


def _calls(
    deployment: Deployment, plan: Plan, asked: Sequence[ProviderPort], measured: Measured, health: Health
) -> ProviderPort:
    """The layers around *asked*, innermost first, each with the reason for its place."""
    conduct, first = plan.conduct, list(asked)
    if conduct.hedge is not None and len(first) > 1:
        # In the place of the first, and outside of its retries: it is the wait for all of them that is cut short.
        one, two = first[:2]
        first[0] = Hedged(one, two, conduct.hedge, measured, health.hedges, stops_at=conduct.stops_at)
    whole: ProviderPort = FallbackProvider(first, stops_at=conduct.stops_at)
    if conduct.on_break == "continue":
        # Outside of the choice of who begins: that is over when there is content. Whoever goes on is asked itself,
        # by its own stack: its retries, its circuit and what it costs are as for any other try.
        stacks = [deployment.stacks[name] for name in plan.models]
        whole = Resuming(whole, stacks, stops_at=conduct.stops_at)
    # Each part of a batch goes through all that by itself: what failed is tried again, and passed on, alone.
    parted = Splitting(whole, [candidate.model for candidate in plan.candidates])
    outer: ProviderPort = parted
    total_s = deployment.policy.timeouts.total_s
    if conduct.join_embeddings_s is not None:
        # Outside of what splits: no part of a batch waits for others. What was joined fits one request, and goes
        # around it: refused, it is parted between those who asked, and only then between the texts of one.
        outer = Joined(parted, whole, plan, deployment.flights, total_s=total_s)
    # Outside of all of it: whoever shares an answer shares what was done for it, also because models failed.
    return Coalesced(outer, plan, deployment.flights, total_s=total_s)
