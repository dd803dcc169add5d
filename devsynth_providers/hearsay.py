"""What other processes found of servers, and telling them what this one found."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from .background import Background
from .health import Circuit
from .stores.servers import server_key
from .stores.shared import Shared, SharedUnavailable
from .types import Model

LOOK_S = 0.5
"""So old may be what is known of others, and a little older where nobody asks anything."""


class Hearsay:
    """Opens circuits of servers that another process that uses *shared* has found unwell, for as long as it has.

    A finding is heard once: a circuit that closes since stays closed until there is another. Where it is taken back
    before its time, circuits that only it has opened close. Slowness is not told: what is slow for one may be all that
    another has.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._looked_at = 0.0
        self._heard: dict[str, float] = {}
        self._background = Background()

    def glance(self, models: Mapping[str, Model], circuits: Mapping[str, Circuit]) -> None:
        """Look, if the last look is a while ago, for *circuits* by the names of *models*. Nobody waits for it."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._background.start(self._look(models, circuits))

    def spread(self, model: Model, circuit: Circuit) -> None:
        """Tell the others what *circuit* has come to, of the server of *model*."""
        server = server_key(model, "model")
        if circuit.refuses:
            self._shared.found(server, circuit.retry_after_s, circuit.reason)
        elif not circuit.avoided:
            self._shared.found(server, 0.0, "")

    async def ended(self) -> None:
        """Wait for a look that has begun."""
        await self._background.ended()

    async def _look(self, models: Mapping[str, Model], circuits: Mapping[str, Circuit]) -> None:
        try:
            unwell = await self._shared.unwell()
        except SharedUnavailable:
            return  # whoever counts by it says so
        for name, circuit in circuits.items():
            server = server_key(models[name], "model")
            found = unwell.get(server)
            if found is None:
                if self._heard.pop(server, None) is not None:
                    circuit.taken_back(LOOK_S)  # what is over by itself about now may only have been seen late
            elif self._heard.get(server) != found.until:
                self._heard[server] = found.until
                circuit.told(found.for_s, found.reason)


@dataclass(frozen=True, slots=True)
class Commons:
    """What a router has in common with those of other processes: limits by what is *shared*, and its *hearsay*."""

    shared: Shared
    hearsay: Hearsay = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hearsay", Hearsay(self.shared))
