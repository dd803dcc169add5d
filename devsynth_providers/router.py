"""The way in: decide, then ask. Read from top to bottom, this is the whole story of a request."""

from __future__ import annotations

import asyncio
import functools
import random
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self, Unpack

from typing_extensions import override

from . import telemetry
from .analysis import TaskAnalyzer
from .errors import ConfigurationError, DevSynthError, NoModelFits, NotConfigured
from .layers.fallback import FallbackProvider
from .layers.metered import Metered
from .layers.named import Named
from .layers.retrying import Retrying
from .layers.timed import Timed
from .layers.traced import Traced
from .measured import Measured
from .policy import Conditions, Facts, Policy
from .port import ProviderPort, as_request
from .providers.registry import ProviderRegistry, registry
from .reply import OnFinish, Reply
from .types import Call, ChatRequest, Model, Options, Plan, Request, Retry, Timeouts

if TYPE_CHECKING:
    from .sync import SyncRouter


def stack(provider: ProviderPort, *, timeouts: Timeouts = Timeouts(), retry: Retry = Retry()) -> ProviderPort:
    """The layers around one model, innermost first, each with the reason for its place."""
    layered = provider.bare  # without the retries and clocks it has for callers who use it alone
    layered = Timed(layered, timeouts)  # next to the wire: each attempt has clocks of its own
    layered = Traced(layered)  # one span and one Attempt for each try, those that ran out of time among them
    layered = Metered(layered)  # a try that can not be paid is none: neither made nor written down
    return Retrying(layered, retry)  # outside of all that makes up one try


class Router(ProviderPort):
    """A provider that chooses, for each request, whom to ask.

    *providers* maps names of models in the policy to providers; the others are built by the *registry* from the
    facts in the policy. A model that lacks something (a key, a file, a package) is left out of every plan, and the plan
    says why, as ``unavailable`` does; what is there and wrong is a ``ConfigurationError``. Use it as a context manager:
    it warms up what is slow the first time, and closes what it opened; providers that it was given are the giver's to
    close. *measured*, how fast models were of late, may be shared by routers that ask the same servers.
    """

    def __init__(
        self,
        policy: Policy,
        providers: Mapping[str, ProviderPort] | None = None,
        *,
        registry: ProviderRegistry = registry,
        analyzer: TaskAnalyzer | None = None,
        measured: Measured | None = None,
    ) -> None:
        if not isinstance(policy, Policy):
            raise ConfigurationError("Router takes a Policy; Router.from_policy takes a name or a path")
        given = dict(providers or {})
        for rule in policy.rules:
            if unknown := set(rule.models) - policy.models.keys():
                raise ConfigurationError(f"rule {rule.name!r} names {', '.join(sorted(unknown))}, which is no model")
        if strangers := given.keys() - policy.models.keys():
            raise ConfigurationError(f"policy {policy.name!r} has no model called {', '.join(sorted(strangers))}")
        if later := [name for name in ("budgets", "limits") if getattr(policy, name)]:
            raise ConfigurationError(
                f"policy {policy.name!r} has {' and '.join(later)}, which no router of this version can hold"
            )
        self._analyzer = analyzer or TaskAnalyzer()
        self._opened: list[ProviderPort] = []
        models: dict[str, Model] = dict(policy.priced)
        unavailable: dict[str, str] = {}
        wrong: list[str] = []
        for name, model in policy.priced.items():
            if name in given:
                given[name] = Named(given[name].bare, model)
                continue
            try:
                built = registry.build(model, policy.timeouts)
                self._opened.append(built)
                given[name] = built if built.model.name == name else Named(built, model)
                models[name] = given[name].model
            except NotConfigured as error:
                unavailable[name] = str(error)
            except ConfigurationError as error:
                wrong.append(f"{name}: {error}")
        if wrong:
            raise ConfigurationError(f"policy {policy.name!r} can not be carried out. " + "; ".join(wrong))
        self.policy = replace(policy, models=models)
        self.providers: Mapping[str, ProviderPort] = MappingProxyType(given)
        self.unavailable: Mapping[str, str] = MappingProxyType(unavailable)
        self._measured = measured or Measured()
        self._stacks = {
            name: stack(provider, timeouts=policy.timeouts, retry=policy.retry) for name, provider in given.items()
        }

    @classmethod
    def from_policy(
        cls,
        source: str | Path,
        providers: Mapping[str, ProviderPort] | None = None,
        *,
        registry: ProviderRegistry = registry,
        analyzer: TaskAnalyzer | None = None,
    ) -> Self:
        """A router by a policy file, or by the name of a packaged policy. Raises ``PolicyError``."""
        from .policy.file import load_policy  # noqa: PLC0415 - pydantic and yaml, only for those who read files

        policy = load_policy(source, providers=registry)
        return cls(policy, providers, registry=registry, analyzer=analyzer)

    @override
    async def send(self, request: Request) -> Reply:
        started = asyncio.get_running_loop().time()
        deadline = started + self.policy.timeouts.total_s
        if request.call.deadline is not None:
            deadline = min(deadline, request.call.deadline)
        request = replace(request, call=Call(id=uuid.uuid4().hex, deadline=deadline))
        with telemetry.request_span(request, self.policy.name) as span:
            plan = self._decide(request, draw=random.random())
            span.decided(plan)
            chain = FallbackProvider([self._stacks[name] for name in plan.models])
            if plan.limits != request.limits:
                request = replace(request, limits=plan.limits)
            streamed = isinstance(request, ChatRequest) and request.stream
            try:
                reply = await chain.send(request)
            except DevSynthError as error:
                self._measured.note(getattr(error, "attempts", ()), streamed=streamed)
                raise
            reply.plan = plan
            return reply.since(started).on_finish(self._learn(streamed)).on_finish(span.finish)

    def _learn(self, streamed: bool) -> OnFinish:
        return lambda reply, error: self._measured.note(reply.attempts, streamed=streamed)

    def plan(self, request: Request | str | None = None, **options: Unpack[Options]) -> Plan:
        """What ``send`` would do with this request, and why. Calls nothing; ``print`` it.

        Raises ``NoModelFits`` where ``send`` would.
        """
        return self._decide(as_request(request, **options))

    def _decide(self, request: Request, draw: float | None = None) -> Plan:
        conditions = Conditions(
            unavailable=self.unavailable, latency=self._measured.latency, now=datetime.now(UTC), draw=draw
        )
        return self.policy.plan(Facts.of(request, self._analyzer), conditions)

    @property
    @override
    def model(self) -> Model:
        """The first model that the last rule, the one for everything else, would ask if it can be asked at all."""
        names = self.policy.rules[-1].models
        return self.policy.models[next((name for name in names if name in self.providers), names[0])]

    @property
    @override
    def max_context_size(self) -> int:
        provider = self.providers.get(self.model.name)
        return super().max_context_size if provider is None else provider.max_context_size

    @override
    def count_tokens(self, text: str) -> int:
        provider = self.providers.get(self.model.name)
        return super().count_tokens(text) if provider is None else provider.count_tokens(text)

    @functools.cached_property
    def sync(self) -> SyncRouter:
        """The same router for code without an event loop, also from inside a running one."""
        from .sync import SyncRouter  # noqa: PLC0415 - above this module: a view of it

        return SyncRouter(self)

    @override
    async def warm_up(self) -> None:
        if not self.providers:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.unavailable.items())
            raise NoModelFits(f"no model of policy {self.policy.name!r} is configured: {reasons}")
        done = await asyncio.gather(*(each.warm_up() for each in self.providers.values()), return_exceptions=True)
        failed = [result for result in done if isinstance(result, BaseException)]
        if len(failed) == len(done):  # one that is left is enough to answer: the others fall back to it
            await self.aclose()
            raise failed[0]

    @override
    async def aclose(self) -> None:
        try:
            done = await asyncio.gather(*(each.aclose() for each in self._opened), return_exceptions=True)
        finally:
            if "sync" in self.__dict__:
                self.sync.stop()
        for result in done:
            if isinstance(result, BaseException):
                raise result
