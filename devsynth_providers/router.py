"""The way in: decide, then ask. Read from top to bottom, this is the whole story of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self, Unpack

from typing_extensions import override

from . import telemetry
from .analysis import TaskAnalyzer
from .chain import chain
from .decisions import DecisionLog, Note
from .deployment import Deployer, Deployment, checked
from .errors import ConfigurationError, DevSynthError
from .guard import Guard
from .health import Health
from .hearsay import Commons
from .limits import Limiter
from .measured import Measured
from .patience import Nobody, Patience, choose
from .policy import Facts, Policy
from .port import ProviderPort, as_request
from .providers.registry import ProviderRegistry, registry
from .reloading import Reloading, interval
from .reply import Reply
from .shadow import ShadowReport
from .succession import Deployments, Succession
from .types import Call, ChatRequest, Model, Options, Plan, Request, RunBudget, changed, new_id

if TYPE_CHECKING:
    from .stores.entries import Ledger
    from .stores.redis_cache import RedisCache
    from .stores.response_cache import ResponseCache
    from .stores.shared import Shared
    from .sync import SyncRouter


class Router(ProviderPort):
    """A provider that chooses, for each request, whom to ask.

    *providers* maps names of models in the policy to providers; the others are built by the *registry* from the
    facts in the policy. A model that lacks something (a key, a file, a package) is left out of every plan, and the plan
    says why, as ``unavailable`` does; what is there and wrong is a ``ConfigurationError``. Use it as a context manager:
    it warms up what is slow the first time, and closes what it opened; providers that it was given are the giver's to
    close.

    *shadow* is a policy on trial: it decides every request too, calls nothing, and ``shadow_report`` and the traces
    say where it would have decided otherwise. *measured*, how fast models were of late, may be shared by routers that
    ask the same servers, and so may *health*, which of those are left alone and how many retries are left, and the
    *limiter*, which holds the policy's ``limits``. *decisions*, a ``DecisionLog`` or the path of one, gets a line for
    each request when it has ended. *cache* is where answers are kept for rules with ``cache``: a ``ResponseCache``, the
    directory of one, or the URL of a server of Redis or Valkey; by default the user's directory. *ledger* is where each
    attempt and what it costs is written down: a ``Ledger``, its file, or such a URL; by default, where the policy has
    ``budgets``, the user's, and else nowhere. *shared* is where processes tell each other what they have sent, so that
    the policy's ``limits`` hold for all of them together, and which servers they found unwell: a file for those of one
    machine, or such a URL; by default each process reckons for itself.
    """

    def __init__(
        self,
        policy: Policy,
        providers: Mapping[str, ProviderPort] | None = None,
        *,
        registry: ProviderRegistry = registry,
        analyzer: TaskAnalyzer | None = None,
        shadow: Policy | None = None,
        measured: Measured | None = None,
        health: Health | None = None,
        decisions: DecisionLog | str | Path | None = None,
        limiter: Limiter | None = None,
        cache: ResponseCache | RedisCache | str | Path | None = None,
        ledger: Ledger | str | Path | None = None,
        shared: Shared | str | Path | None = None,
    ) -> None:
        if not isinstance(policy, Policy):
            raise ConfigurationError("Router takes a Policy; Router.from_policy takes a name or a path")
        given = dict(providers or {})
        if strangers := given.keys() - checked(policy).models.keys():
            raise ConfigurationError(f"policy {policy.name!r} has no model called {', '.join(sorted(strangers))}")
        self._analyzer = analyzer or TaskAnalyzer()
        self._measured = measured or Measured()
        self._health = health or Health()
        self.decisions = DecisionLog(decisions) if isinstance(decisions, str | Path) else decisions
        self._cache = cache
        self._opened_cache: ResponseCache | RedisCache | None = None
        self._ledger = ledger
        self._opened_ledger: Ledger | None = None
        self._opened_shared: Shared | None = None
        if isinstance(shared, str | Path):
            shared = self._opened_shared = _shared_at(shared)
        self._commons = None if shared is None else Commons(shared)
        deployer = Deployer(
            given, registry, limiter or Limiter(), self._health, self._where_kept, self._where_booked, self._commons
        )
        self._deployments = Deployments(deployer.deploy(policy, shadow))
        deployer.limiter.hold(policy)
        self._succession = Succession(deployer, self._deployments)
        self._reloading: Reloading | None = None
        self._sync: SyncRouter | None = None
        self._guard = Guard()

    @classmethod
    def from_policy(
        cls,
        source: str | Path,
        providers: Mapping[str, ProviderPort] | None = None,
        *,
        registry: ProviderRegistry = registry,
        analyzer: TaskAnalyzer | None = None,
        shadow: str | Path | None = None,
        reload_s: float | None = None,
        measured: Measured | None = None,
        health: Health | None = None,
        decisions: DecisionLog | str | Path | None = None,
        limiter: Limiter | None = None,
        cache: ResponseCache | RedisCache | str | Path | None = None,
        ledger: Ledger | str | Path | None = None,
        shared: Shared | str | Path | None = None,
    ) -> Self:
        """A router by a policy file, or by the name of a packaged policy. Raises ``PolicyError``.

        With *reload_s* it looks whether the file, or that of the *shadow*, has changed: when a request comes, and the
        last look is as many seconds ago. That request does not wait, and goes by the policy that it finds: a thread
        reads and checks the file beside it, and puts the new policy in its place whole. Calls that have begun keep what
        they began with; providers whose facts are the same serve on, the others are closed when their last call has
        ended. A file that is wrong changes nothing: ``reload_error``, the log and the next trace say what is wrong, and
        the next look reads it again. ``aclose`` ends a look that has begun.
        """
        from .policy.watched import WatchedPolicy  # noqa: PLC0415 - pydantic and yaml, only for those who read files

        every_s = interval(reload_s)
        main = WatchedPolicy(source, registry)
        trial = None if shadow is None else WatchedPolicy(shadow, registry)
        on_trial = None if trial is None else trial.policy
        router = cls(
            main.policy,
            providers,
            registry=registry,
            analyzer=analyzer,
            shadow=on_trial,
            measured=measured,
            health=health,
            decisions=decisions,
            limiter=limiter,
            cache=cache,
            ledger=ledger,
            shared=shared,
        )
        router._reloading = Reloading(router._succession, main, trial, every_s)
        return router

    @override
    async def send(self, request: Request) -> Reply:
        held = self._deployments.hold()
        try:
            reply = await self._send(request, held.deployment)
        except BaseException:
            self._succession.release(held)
            raise
        return reply.on_finish(lambda *_: self._succession.release(held))

    async def _send(self, request: Request, deployment: Deployment) -> Reply:
        started = asyncio.get_running_loop().time()
        deadline = started + deployment.policy.timeouts.total_s
        if request.call.deadline is not None:
            deadline = min(deadline, request.call.deadline)
        call = Call(id=new_id(), deadline=deadline, runs=RunBudget.open_for(self))
        request = changed(request, call=call)
        note = Note(self.decisions, request, deployment.policy.name)
        with note, telemetry.request_span(request, deployment.policy.name, deployment.stated.digest) as span:
            if self._reloading is not None:
                self._reloading.glance()
            if self._commons is not None:
                self._commons.hearsay.glance(deployment.policy.models, deployment.circuits)
            self._health.retries.earn(deployment.policy.retry.budget)
            facts = Facts.of(request, self._analyzer)
            patience = Patience(deployment, facts, self._health, self._measured, note, request.call)
            try:
                reply = await self._answer(request, deployment, patience, note, span)
            except BaseException:
                self._learn(request)
                raise
            reply.on_finish(lambda *_: self._learn(request))
            return reply.since(started).on_finish(span.finish).on_finish(note.finish)

    async def _answer(
        self, request: Request, deployment: Deployment, patience: Patience, note: Note, span: telemetry.RequestSpan
    ) -> Reply:
        """Ask as planned; and where those who were to be asked have to be left alone meanwhile, plan again."""
        while True:
            plan = await patience.plan()
            note.decided(plan)
            span.decided(plan)
            call = changed(request.call, rule=plan.rule, complexity=plan.complexity)
            request = changed(request, limits=plan.limits, call=call)
            try:
                reply = await chain(deployment, plan, self._measured, self._health).send(request)
            except DevSynthError as error:
                failure = error
            else:
                reply.plan, reply.degraded = plan, reply.model.name != plan.preferred
                if reply.cached and not reply.shared:
                    deployment.book.hit(request, reply.model)
                return reply
            try:
                request = patience.again(request, failure)
            finally:
                del failure  # it holds this frame

    def _where_kept(self) -> ResponseCache | RedisCache:
        """The cache, opened when the first policy comes that has a rule for it."""
        from .stores.caches import cache_at  # noqa: PLC0415 - diskcache, only for those who keep answers

        if not isinstance(self._cache, str | Path | None):
            return self._cache
        if self._opened_cache is None:
            self._opened_cache = cache_at(self._cache)
        return self._opened_cache

    def _where_booked(self, policy: Policy) -> Ledger | None:
        """The ledger, opened when the first policy comes that needs it."""
        from .stores.ledgers import ledger_of  # noqa: PLC0415 - as above
        from .stores.places import default_ledger  # noqa: PLC0415

        if self._ledger is None and not policy.has_accounts:
            return None
        if not isinstance(self._ledger, str | Path | None):
            return self._ledger
        if self._opened_ledger is None:
            self._opened_ledger = ledger_of(self._ledger or default_ledger())
        return self._opened_ledger

    def budget(self, usd: float | None = None, *, tokens: int | None = None, calls: int | None = None) -> RunBudget:
        """What the code inside ``with router.budget(usd=2.0):`` may use, over all requests that begin there.

        Beyond it, ``BudgetExceeded`` is raised, and nothing is sent. One inside another can not give more than is left.
        The outermost is the run that a policy's ``scope: run`` is for; without a limit of its own it only counts.
        """
        return RunBudget(self, usd=usd, tokens=tokens, calls=calls)

    def _learn(self, request: Request) -> None:
        """How fast models are, from all attempts at *request*."""
        if attempts := request.call.tally.attempts:
            self._measured.note(attempts, streamed=isinstance(request, ChatRequest) and request.stream)

    def plan(self, request: Request | str | None = None, **options: Unpack[Options]) -> Plan:
        """What ``send`` would do with this request, and why. Calls nothing; ``print`` it.

        Raises ``NoModelFits`` where ``send`` would, and where it would wait for a model that is left alone now.
        """
        deployment = self._deployments.current
        facts = Facts.of(as_request(request, **options), self._analyzer)
        plan = choose(deployment, facts, deployment.conditions(self._measured.latency), again=True)
        if isinstance(plan, Nobody):
            raise plan.error
        return plan

    async def reload(self) -> None:
        """Read the policy file again now, and the shadow's, changed or not: a model that lacked something gets another
        chance. Raises ``ConfigurationError``, of which ``PolicyError`` is one, if it is wrong; then nothing changes."""
        if self._reloading is None:
            raise ConfigurationError("this router was made from a Policy in code: there is no file to read again")
        await self._reloading.reload()

    @property
    def reload_error(self) -> Exception | None:
        """Why the files, as they were last read, could not be taken; ``None`` if all is well."""
        return None if self._reloading is None else self._reloading.error

    @property
    def shadow_report(self) -> ShadowReport | None:
        """How the policy on trial compares, since it and the policy have been what they are; ``None`` without one."""
        shadow = self._deployments.current.shadow
        return None if shadow is None else shadow.report

    @property
    def policy(self) -> Policy:
        """The policy that requests are decided by, with what providers know of its models."""
        return self._deployments.current.policy

    @property
    def providers(self) -> Mapping[str, ProviderPort]:
        """Who serves which model."""
        return self._deployments.current.providers

    @property
    def unavailable(self) -> Mapping[str, str]:
        """Models that can not be asked, and why."""
        return self._deployments.current.unavailable

    @property
    @override
    def model(self) -> Model:
        """The first model that the last rule, the one for everything else, would ask if it can be asked at all."""
        return self._deployments.current.model

    @property
    @override
    def max_context_size(self) -> int:
        first = self._deployments.current.first
        return super().max_context_size if first is None else first.max_context_size

    @override
    def count_tokens(self, text: str) -> int:
        first = self._deployments.current.first
        return super().count_tokens(text) if first is None else first.count_tokens(text)

    @property
    def sync(self) -> SyncRouter:
        """The same router for code without an event loop, also from inside a running one."""
        from .sync import SyncRouter  # noqa: PLC0415 - above this module: a view of it

        if self._sync is None:
            with self._guard:  # two threads that come first at once get one loop between them
                self._sync = self._sync or SyncRouter(self)
        return self._sync

    @override
    async def warm_up(self) -> None:
        held = self._deployments.hold()
        try:
            await held.deployment.warm_up()
        except Exception:
            await self.aclose()
            raise
        finally:
            self._succession.release(held)

    @override
    async def aclose(self) -> None:
        if self._reloading is not None:
            self._reloading.stop()
        try:
            await self._succession.aclose()
        finally:
            if self.decisions is not None:
                await asyncio.to_thread(self.decisions.flush)
            if self._commons is not None:
                await self._commons.hearsay.ended()
            for opened in (self._opened_cache, self._opened_ledger, self._opened_shared):
                if opened is not None:
                    await opened.aclose()
            if self._sync is not None:
                self._sync.stop()  # last: it ends the loop that this may be running on


def _shared_at(where: str | Path) -> Shared:
    from .stores.shares import shared_at  # noqa: PLC0415 - SQLite, only for those who share

    return shared_at(where)
