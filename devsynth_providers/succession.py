"""One deployment after another: calls keep what they began with, and what nobody uses any more is closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from .background import Background
from .deployment import Deployer, Deployment, Hold
from .guard import Guard
from .policy import Policy
from .port import ProviderPort
from .reply import settle_left_behind

log = logging.getLogger("devsynth_providers")


class Deployments:
    """The deployment that serves, and those before it that calls still use.

    Any thread may ask for it while another brings the next. A call takes no lock: none that a fork could leave behind.
    """

    def __init__(self, first: Deployment) -> None:
        self.current = first
        self._retired: list[Deployment] = []
        self._unclosed: list[ProviderPort] = []
        self._lock = Guard()

    def hold(self) -> Hold:
        """Claim the current deployment, until ``release``. Answers that were left behind give back what they have: this
        call may wait for it."""
        settle_left_behind()
        while True:
            held = Hold(self.current)
            held.deployment.calls.add(held)
            if held.deployment is self.current:
                return held
            held.deployment.calls.discard(held)  # another came in between, and may not have seen the claim

    def release(self, held: Hold) -> bool:
        """The call has ended. Whether there may be providers now that nobody uses."""
        held.deployment.calls.discard(held)
        return bool(self._retired or self._unclosed)

    def put(self, following: Deployment) -> None:
        """From now on calls begin with *following*."""
        with self._lock:
            self._retired.append(self.current)
            self.current = following

    def take_unused(self, *, at_once: bool = False) -> list[ProviderPort]:
        """Providers that were built here and that nobody will use again, each once; *at_once*, also those that calls
        of retired deployments use."""
        with self._lock:
            busy = [] if at_once else [each for each in self._retired if each.calls]
            done = [each for each in self._retired if each not in busy]
            self._retired = busy
            used = {id(provider) for each in (self.current, *busy) for provider in each.opened.values()}
            left = {id(provider): provider for each in done for provider in each.opened.values()}
            unclosed, self._unclosed = self._unclosed, []
        return unclosed + [provider for key, provider in left.items() if key not in used]

    def put_back(self, unused: Collection[ProviderPort]) -> None:
        """Whoever took them could not close them: the next may."""
        with self._lock:
            self._unclosed += unused


class Succession:
    """Follows one deployment by another, and closes what only the former used once its last call has ended."""

    def __init__(self, deployer: Deployer, deployments: Deployments) -> None:
        self.deployer = deployer
        self.deployments = deployments
        self.background = Background()

    def follow(self, policy: Policy, shadow: Policy | None) -> None:
        """Let calls that begin from now on go by *policy*. Raises ``ConfigurationError`` if it can not be done."""
        self.deployments.put(self.deployer.deploy(policy, shadow, self.deployments.current))
        self.deployer.limiter.hold(policy)

    def release(self, held: Hold) -> None:
        """A call has ended."""
        if self.deployments.release(held):
            self.background.start(self.close_unused())

    async def close_unused(self) -> None:
        """Close what nobody uses any more. What can not be closed is told in the log: no call fails by it."""
        unused = self.deployments.take_unused()
        while unused:
            try:
                await unused[-1].aclose()
            except Exception as error:  # noqa: BLE001 - a provider of somebody's own
                name = unused[-1].model.name
                log.warning("model %s, which is no longer used, could not be closed: %s", name, error)
            except BaseException:
                self.deployments.put_back(unused)  # the loop ends: closed in the next one
                raise
            unused.pop()

    async def aclose(self) -> None:
        """Close everything that was opened, whoever uses it."""
        await self.background.ended()
        left = self.deployments.take_unused(at_once=True)
        opened = [*left, *self.deployments.current.opened.values()]
        try:
            failed = await asyncio.gather(*(each.aclose() for each in opened), return_exceptions=True)
        except BaseException:
            self.deployments.put_back(left)  # cut short: whoever closes the router again finds them
            raise
        for error in filter(None, failed):
            raise error
