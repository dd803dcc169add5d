"""The layers around one model: which there are, in which order, and why."""

from __future__ import annotations

from .accounts import Book
from .health import Circuit, RetryBudget
from .hearsay import Commons
from .layers.breaking import Breaking
from .layers.limited import Limited
from .layers.matched import Matched
from .layers.metered import Metered
from .layers.ration import Ration
from .layers.retrying import Retrying
from .layers.timed import Timed
from .layers.traced import Traced
from .limits import Limiter
from .port import ProviderPort
from .types import Retry, Timeouts


def stack(
    provider: ProviderPort,
    *,
    timeouts: Timeouts = Timeouts(),
    retry: Retry = Retry(),
    limiter: Limiter | None = None,
    circuit: Circuit | None = None,
    budget: RetryBudget | None = None,
    book: Book | None = None,
    commons: Commons | None = None,
    show_content: bool = False,
) -> ProviderPort:
    """The layers around one model, innermost first, each with the reason for its place.

    Without a *limiter* nothing waits for its turn, without a *circuit* nothing is left alone for having failed, and
    without a *budget* retries are not counted together; without a *book* nothing is written into a ledger, and without
    *commons* nothing is shared with other processes. Traces have prompts and answers only where *show_content* says so,
    and the environment too.
    """
    layered = provider.bare  # without the retries and clocks it has for callers who use it alone
    if limiter is not None:
        # Only those whose turn it is in this process ask whether it is within what all processes may send.
        others = None if commons is None else Ration(limiter, commons.shared, timeouts)
        # Below retries: each try is a request that the provider counts, and no slot is held between two. Below clocks
        # and traces: they hear that a try waits, end it at the deadline, and tell for how long.
        layered = Limited(layered, limiter, others)
    layered = Timed(layered, timeouts)  # next to the wire: each attempt has clocks of its own
    layered = Matched(layered)  # below traces: vectors that do not fit their texts are an attempt that failed
    # One span and one Attempt for each try, those that ran out of time among them.
    layered = Traced(layered, book, show_content=show_content)
    if circuit is not None:
        # A refusal is no try: no span, no Attempt. Below all that may wait or refuse: the probe is really sent.
        # Below the retries: the next try does not knock where this one, or another request's, closed the door.
        layered = Breaking(layered, circuit, timeouts, None if commons is None else commons.hearsay.spread)
    layered = Metered(layered)  # a try that can not be paid is none: neither made nor written down
    return Retrying(layered, retry, budget=budget)  # outside of all that makes up one try
