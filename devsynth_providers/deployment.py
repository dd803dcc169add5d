"""What a router decides and asks by, as one value."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType

from .accounts import Book
from .errors import ConfigurationError, NoModelFits, NotConfigured
from .flights import Flights
from .health import Circuit, Health
from .hearsay import Commons
from .layers.cached import Cache
from .layers.named import Named
from .limits import Limiter
from .policy import Conditions, Facts, Policy
from .port import ProviderPort
from .providers.base import BaseProvider
from .providers.registry import ProviderRegistry
from .shadow import Shadow
from .stacks import stack
from .stores.entries import Ledger
from .types import Identity, Latency, Model, Plan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deployment:
    """A policy with all that carries it out. It never changes: another policy is another deployment.

    *stated* is the policy as it was given, *policy* the same with what providers know of their models, *on_trial* the
    policy that *shadow* compares it with.
    """

    stated: Policy
    policy: Policy
    providers: Mapping[str, ProviderPort]
    unavailable: Mapping[str, str]
    stacks: Mapping[str, ProviderPort]
    circuits: Mapping[str, Circuit]
    """The circuit breaker of each provider."""
    opened: Mapping[str, ProviderPort]
    """Of the providers, those that were built for it, as they were built: ours to close."""
    book: Book
    """What it writes down, and lets attempts cost."""
    cache: Cache | None = None
    """Where answers are kept, for rules that say so."""
    on_trial: Policy | None = None
    shadow: Shadow | None = None
    calls: weakref.WeakSet[Hold] = field(default_factory=weakref.WeakSet)
    """The calls that use it at this moment; one whose answer was dropped is gone with it."""
    flights: Flights = field(default_factory=Flights)
    """What equal requests may share: nobody joins a call of another policy."""

    def conditions(self, latency: Mapping[str, Latency], draw: float | None = None) -> Conditions:
        """What the world is like now: *latency* as measured of late, *draw* as ``Conditions`` has it."""
        return Conditions(
            unavailable=self.unavailable,
            unhealthy={name: str(circuit) for name, circuit in self.circuits.items() if circuit.avoided},
            latency=latency,
            now=datetime.now(UTC),
            draw=draw,
        )

    def decide(self, facts: Facts, conditions: Conditions) -> Plan:
        """The plan for a request with these *facts*; the policy on trial decides too. Raises ``NoModelFits``."""
        if self.shadow is None:
            return self.policy.plan(facts, conditions)
        try:
            plan = self.policy.plan(facts, conditions)
        except NoModelFits as error:
            self.shadow.compare(facts, conditions, error)
            raise
        self.shadow.compare(facts, conditions, plan)
        return plan

    @property
    def model(self) -> Model:
        """The first model that the last rule, the one for everything else, would ask if it can be asked at all."""
        names = self.policy.rules[-1].models
        return self.policy.models[next((name for name in names if name in self.providers), names[0])]

    @property
    def first(self) -> ProviderPort | None:
        """The provider of ``model``, if there is one."""
        return self.providers.get(self.model.name)

    async def warm_up(self) -> None:
        """Warm up every provider. Raises ``NoModelFits`` if there is none, and what the first raised if all fail: one
        that is left is enough to answer, the others fall back to it."""
        if not self.providers:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.unavailable.items())
            raise NoModelFits(f"no model of policy {self.policy.name!r} is configured: {reasons}")
        done = await asyncio.gather(*(each.warm_up() for each in self.providers.values()), return_exceptions=True)
        failed = [result for result in done if isinstance(result, BaseException)]
        if len(failed) == len(done):
            raise failed[0]


@dataclass(frozen=True, slots=True)
class Deployer:
    """Makes deployments: *given* maps names of models to the caller's providers, the *registry* builds the others.

    *health* outlives them all: a server that has failed is no better for a change of policy.
    """

    given: Mapping[str, ProviderPort]
    registry: ProviderRegistry
    limiter: Limiter = field(default_factory=Limiter)
    health: Health = field(default_factory=Health)
    cache: Callable[[], Cache] | None = None
    ledger: Callable[[Policy], Ledger | None] = lambda _: None
    commons: Commons | None = None

    def deploy(self, policy: Policy, shadow: Policy | None = None, before: Deployment | None = None) -> Deployment:
        """A deployment of *policy*. Providers of *before* serve on where nothing has changed that they are built from.

        Opens nothing. Raises ``ConfigurationError`` if the policy can not be carried out.
        """
        kept = {name for name in checked(policy).models if before is not None and _serves_on(before, name, policy)}
        opened, unavailable = self._build(policy, policy.models.keys() - self.given.keys() - kept)
        providers: dict[str, ProviderPort] = {}
        for name, model in policy.priced.items():
            if before is not None and name in kept:
                providers[name] = before.providers[name]
                if name in before.opened:
                    opened[name] = before.opened[name]
            elif name in self.given:
                providers[name] = Named(self.given[name].bare, model)
            elif name in opened:
                built = opened[name]
                providers[name] = built if built.model.name == name else Named(built, model)
        circuits = {
            name: self.health.circuit(_identity(name, self.given.get(name, each))) for name, each in providers.items()
        }
        models = {name: providers[name].model if name in opened else model for name, model in policy.priced.items()}
        book = Book(self.ledger(policy), policy)
        return Deployment(
            stated=policy,
            policy=replace(policy, models=models),
            providers=MappingProxyType(providers),
            unavailable=MappingProxyType(unavailable),
            stacks={
                name: self._stack(each, policy, models[name], circuits[name], book) for name, each in providers.items()
            },
            circuits=MappingProxyType(circuits),
            opened=opened,
            book=book,
            cache=self._cache(policy),
            on_trial=shadow,
            shadow=_shadow(policy, models, shadow, before),
        )

    def _cache(self, policy: Policy) -> Cache | None:
        wanted = any(rule.cache is not None for rule in policy.rules)
        return self.cache() if wanted and self.cache is not None else None

    def _stack(
        self, provider: ProviderPort, policy: Policy, model: Model, circuit: Circuit, book: Book
    ) -> ProviderPort:
        limited = model.name in policy.limits or model.provider in policy.limits
        limiter = self.limiter if limited else None
        return stack(
            provider,
            timeouts=policy.timeouts,
            retry=policy.retry,
            limiter=limiter,
            circuit=circuit,
            budget=self.health.retries,
            book=book,
            commons=self.commons,
            show_content=policy.telemetry.content,
        )

    def _build(self, policy: Policy, names: Collection[str]) -> tuple[dict[str, ProviderPort], dict[str, str]]:
        """Providers for the models called *names*, and why there is none for the others."""
        built: dict[str, ProviderPort] = {}
        unavailable: dict[str, str] = {}
        wrong: list[str] = []
        for name, model in policy.priced.items():
            if name not in names:
                continue
            try:
                built[name] = self.registry.build(model, policy.timeouts)
            except NotConfigured as error:
                unavailable[name] = str(error)
            except ConfigurationError as error:
                wrong.append(f"{name}: {error}")
        if wrong:
            raise ConfigurationError(f"policy {policy.name!r} can not be carried out. " + "; ".join(wrong))
        return built, unavailable


def checked(policy: Policy) -> Policy:
    """*policy*, if its rules name models that it has: files are checked when they are read, those made in code here."""
    if not policy.rules:
        raise ConfigurationError(f"policy {policy.name!r} has no rules")
    for name, model in policy.models.items():
        if model.name != name:
            raise ConfigurationError(f"the model that policy {policy.name!r} has as {name!r} is called {model.name!r}")
    for rule in policy.rules:
        if len(set(rule.models)) < len(rule.models):
            raise ConfigurationError(f"rule {rule.name!r} names a model twice")
        if unknown := set(rule.models) - policy.models.keys():
            raise ConfigurationError(f"rule {rule.name!r} names {', '.join(sorted(unknown))}, which is no model")
    return policy


def _identity(name: str, provider: ProviderPort) -> Identity:
    """Who *provider* is; one that does not say where it is, is known by the *name* of its model in the policy."""
    identity = provider.identity
    return identity if identity.place else identity._replace(place=name)


def _serves_on(before: Deployment, name: str, policy: Policy) -> bool:
    if name not in before.providers or before.stated.priced[name] != policy.priced[name]:
        return False
    has_clocks = isinstance(before.opened.get(name), BaseProvider)
    return not has_clocks or before.stated.timeouts == policy.timeouts


def _shadow(
    policy: Policy, models: Mapping[str, Model], shadow: Policy | None, before: Deployment | None
) -> Shadow | None:
    if shadow is None:
        return None
    if not isinstance(shadow, Policy):
        raise ConfigurationError("shadow is a Policy; Router.from_policy takes a name or a path")
    if before is not None and (before.stated, before.on_trial) == (policy, shadow):
        return before.shadow  # what it has counted is still true
    return Shadow(checked(shadow), policy, models)


class Hold:
    """One call's claim on the deployment that it began with."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
