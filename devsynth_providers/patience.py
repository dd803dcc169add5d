"""One request's decision; and where every model that could take it is left alone, the wait for the soonest."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from . import telemetry
from .decisions import Note
from .deployment import Deployment
from .errors import AllProvidersFailed, CircuitOpen, DevSynthError, NoModelFits, ProviderError
from .health import LOOK_AGAIN_S, Circuit, Health
from .measured import Measured
from .policy import Conditions, Facts
from .types import Call, Plan, Request, Vector


@dataclass(frozen=True, slots=True)
class Nobody:
    """All who could take the request are left alone: *models*, for the reasons that *error* has."""

    models: Sequence[str]
    error: NoModelFits


def choose(deployment: Deployment, facts: Facts, conditions: Conditions, *, again: bool = False) -> Plan | Nobody:
    """Whom to ask now. Raises ``NoModelFits`` if waiting would help nothing.

    A model that is only slow is left alone for a faster one, and asked if there is none. The policy on trial hears of
    it unless it is decided *again*.
    """
    try:
        return deployment.policy.plan(facts, conditions) if again else deployment.decide(facts, conditions)
    except NoModelFits as error:
        if not conditions.unhealthy:
            raise
        nobody = error
    refusing = {name: why for name, why in conditions.unhealthy.items() if deployment.circuits[name].refuses}
    try:
        if refusing.keys() != conditions.unhealthy.keys():
            return deployment.policy.plan(facts, conditions._replace(unhealthy=refusing))
    except NoModelFits:
        pass
    return Nobody(deployment.policy.plan(facts, conditions._replace(unhealthy={})).models, nobody)


class Failed(NamedTuple):
    """What an error says of each text of a batch."""

    vectors: tuple[Vector | None, ...] = ()
    failures: Mapping[int, DevSynthError] = MappingProxyType({})

    def tell(self, error: DevSynthError) -> None:
        """Have *error* say it, if it says nothing of them itself."""
        if self.failures and not error.failures:
            error.vectors, error.failures = self


class Patience:
    """Decides for one request, as often as it takes to find somebody who may be asked, until *deadline*.

    Who was asked after a wait and failed is not asked again: one request is one probe.
    """

    def __init__(
        self, deployment: Deployment, facts: Facts, health: Health, measured: Measured, note: Note, call: Call
    ) -> None:
        self._deployment = deployment
        self._facts = facts
        self._health = health
        self._measured = measured
        self._note = note
        self._deadline = math.inf if call.deadline is None else call.deadline
        self._tally = call.tally
        self._made = 0  # attempts, when it was decided last
        self._draw = random.random()
        self._decided = self._waited = False
        self._failed = Failed()

    async def plan(self) -> Plan:
        """Whom to ask. Raises ``NoModelFits``; and ``CircuitOpen`` if nobody is back in time, or too many wait."""
        try:
            return await self._planned()
        except DevSynthError as error:  # of a batch, a part may have come before it was to be decided anew
            self._failed.tell(error)
            raise

    async def _planned(self) -> Plan:
        plan = self._choose()
        if isinstance(plan, Plan):
            return plan
        self._waited, told = True, -1
        with self._health.waiting() as room:
            while isinstance(plan, Nobody):
                wait_s = self._wait_s(plan)
                if not room or asyncio.get_running_loop().time() + wait_s >= self._deadline:
                    raise self._in_vain(plan, wait_s)
                news = sum(self._circuit(name).changes for name in plan.models)
                if news != told:  # it may look a hundred times, and a span keeps no more events than that
                    telemetry.event("breaker.wait", models=list(plan.models), delay_s=wait_s)
                    told = news
                await asyncio.sleep(wait_s)
                plan = self._choose()
        return plan

    def again(self, request: Request, error: DevSynthError) -> Request:
        """The request to decide again, where it failed because circuits opened before it; else raises *error*."""
        tired, before, self._made = self._waited or self._made > 0, self._made, self._tally.begun
        asked = self._made > before
        self._failed = Failed(error.vectors, error.failures) if error.failures else self._failed
        if not _refused(error) or (asked and tired):
            if isinstance(error, CircuitOpen) and isinstance(error.__cause__, ProviderError):
                error = error.__cause__  # why the last try failed says more than that there was no other
                error.attempts = self._tally.attempts
            self._failed.tell(error)
            try:
                raise error
            finally:
                del error  # it holds this frame
        return request.on(reason="retry") if asked else request

    def _choose(self) -> Plan | Nobody:
        conditions = self._deployment.conditions(self._measured.latency, self._draw)
        self._note.given(self._facts, conditions)
        again, self._decided = self._decided, True
        return choose(self._deployment, self._facts, conditions, again=again)

    def _wait_s(self, nobody: Nobody) -> float:
        """Seconds until the soonest is worth asking; while one is being asked, about as long as that may take."""
        waits = [self._circuit(name).wait_s for name in nobody.models]
        look_again_s = LOOK_AGAIN_S * (0.5 + self._health.chance() / 2)  # not all of those who wait at the same moment
        return min(look_again_s if wait_s is None else wait_s for wait_s in waits)

    def _circuit(self, name: str) -> Circuit:
        return self._deployment.circuits[name]

    def _in_vain(self, nobody: Nobody, wait_s: float) -> CircuitOpen:
        soonest = min(nobody.models, key=lambda name: self._circuit(name).retry_after_s)
        model = self._deployment.policy.models[soonest]
        reasons = "".join(f"\n  {each.model}: {each.reason}" for each in nobody.error.rejected)
        error = CircuitOpen(
            f"every model that could take this request is left alone; come back in {wait_s:.1f} s{reasons}",
            provider=model.provider,
            model=model.name,
            code=CircuitOpen.kind,
        )
        error.retry_after_s, error.rejected, error.attempts = wait_s, nobody.error.rejected, self._tally.attempts
        return error


def _refused(error: DevSynthError) -> bool:
    """Whether circuits alone stood in the way in the end."""
    ends = error.exceptions if isinstance(error, AllProvidersFailed) else (error,)
    return all(isinstance(each, CircuitOpen) for each in ends)
