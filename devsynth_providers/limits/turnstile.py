"""The gate of a provider or model for all, and one for each project where the limits say so. Pure: told the time."""

from __future__ import annotations

from collections import OrderedDict

from ..policy import RateLimits
from .gate import Gate
from .window import WINDOW_S

KEPT = 1024
"""Gates of projects that are kept; more are, as long as something of the last minute stands in them."""


class Turnstile:
    """The *gate* that all pass, and, by ``of``, that of one project."""

    def __init__(self, name: str, rates: RateLimits) -> None:
        self.gate = Gate(name, rates)
        self._projects: OrderedDict[str | None, Gate] = OrderedDict()

    def set(self, rates: RateLimits) -> None:
        """From now on *rates* hold. What has passed stays counted."""
        self.gate.set(rates)
        for gate in self._projects.values():
            gate.set(rates.per_project or RateLimits())

    @property
    def counts_tokens(self) -> bool:
        """Whether any of the limits is one of tokens."""
        rates = self.gate.rates
        return any(each is not None and each.tokens_per_minute is not None for each in (rates, rates.per_project))

    def of(self, project: str | None) -> Gate | None:
        """The gate of *project*, if projects have limits."""
        rates = self.gate.rates.per_project
        gate = self._projects.get(project)
        if gate is None and rates is not None:
            name = f"{self.gate.name} for {project or 'requests of no project'}"
            gate = self._projects[project] = Gate(name, rates, adapts=False)
            self._forget()
        if gate is not None:
            self._projects.move_to_end(project)
        return gate

    def _forget(self) -> None:
        """Drop those that were not used for the longest time, and say nothing any more of what may pass."""
        if len(self._projects) <= KEPT:
            return
        newest = max(gate.used_at for gate in self._projects.values())
        while len(self._projects) > KEPT:
            project, oldest = next(iter(self._projects.items()))
            if oldest.running or oldest.used_at > newest - WINDOW_S:
                return
            del self._projects[project]
