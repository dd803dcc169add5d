"""The limits of a policy, held over all calls of a router or of several."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

from ..policy import Policy, RateLimits
from ..stores.servers import account
from ..types import Identity, Model
from .entrance import Entrance

_Rates = tuple[RateLimits | None, dict[str, RateLimits]]


class Limiter:
    """Requests and tokens of the last minute, slots, and queues: what has to outlast a change of the policy.

    Each account of a provider has its own, at each place: that is what a provider counts.
    Routers share one if they are given the same, as they should if they call by the same accounts; of their policies,
    the ``limits`` that came last hold. A forked child begins with empty queues, and counts what it does itself.
    """

    def __init__(self) -> None:
        self._rates: dict[Identity, _Rates] = {}
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._entrances = {whose: _made(whose, *rates) for whose, rates in self._rates.items()}
        self._pid = os.getpid()  # last: other threads of a child take what is here for new, and not the parent's

    def hold(self, policy: Policy) -> None:
        """From now on the limits of *policy* hold, for calls that wait too. Nobody loses the place in a queue."""
        self._after_fork()
        rates = _by_account(policy)
        with self._lock:
            before, self._rates = self._rates, rates
            for whose in before.keys() | rates.keys():
                whole, models = rates.get(whose, (None, {}))
                if whose in self._entrances:
                    if rates.get(whose) != before.get(whose):
                        self._entrances[whose].set(whole, models)
                else:
                    self._entrances[whose] = _made(whose, whole, models)

    def entrance(self, model: Model) -> Entrance:
        """The line before *model*. Ask anew for each call: after a fork it is another."""
        self._after_fork()
        whose = account(model)
        entrance = self._entrances.get(whose)
        if entrance is None:
            with self._lock:
                entrance = self._entrances.setdefault(whose, Entrance(model.provider))
        return entrance

    def rates(self, model: Model) -> tuple[RateLimits | None, RateLimits | None]:
        """What holds for the account of *model* as a whole, and for *model*."""
        whole, models = self._rates.get(account(model), (None, {}))
        return whole, models.get(model.name)

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            self._begin()


def _made(whose: Identity, whole: RateLimits | None, models: Mapping[str, RateLimits]) -> Entrance:
    entrance = Entrance(whose.provider)
    entrance.set(whole, models)
    return entrance


def _by_account(policy: Policy) -> dict[Identity, _Rates]:
    rates: dict[Identity, _Rates] = {}
    for model in policy.models.values():
        if model.provider in policy.limits or model.name in policy.limits:
            _, models = rates.setdefault(account(model), (policy.limits.get(model.provider), {}))
            if model.name in policy.limits and model.name != model.provider:
                models[model.name] = policy.limits[model.name]
    return rates
