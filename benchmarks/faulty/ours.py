"""This library, by a policy as an operator writes it: the file's text goes through the policy reader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from devsynth_providers import ChatRequest, Router
from devsynth_providers.policy.file import parse_policy
from devsynth_providers.policy.rules import Rule

from .said import TEXTS
from .side import WARM, Setup, Side, Told, heard


def has(key: str) -> bool:
    """Whether rules of this version know *key*."""
    return key in Rule.__dataclass_fields__


class Ours(Side):
    """A router for each group, so that no group's failures are counted against another.

    All that the setup does not say is as it comes: three attempts at a model, a retry budget of a tenth, circuit
    breakers, our own wire. With *transport* ``litellm``, LiteLLM's calls carry the requests.
    """

    def __init__(
        self,
        setup: Setup,
        addresses: Mapping[str, str],
        *,
        transport: str = "auto",
        rule: Mapping[str, Any] | None = None,
        timeouts: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(setup, addresses)
        self._transport, self._rule, self._timeouts = transport, {**setup.rule, **(rule or {})}, timeouts or {}
        self._routers: dict[str, Router] = {}

    @override
    async def open(self) -> None:
        self._routers = {group: Router(parse_policy(self.policy(group))) for group in self.setup.groups}
        await self._routers[WARM].warm_up()

    def policy(self, group: str) -> str:
        """The policy file of *group*."""
        setup = self.setup
        names = [f"{script}--{'ab'[at]}" for at, script in enumerate(setup.groups[group])]
        models = {
            f"m{at}": {
                "provider": "openai",
                "model": name,
                "base_url": self.base_url(name.partition("--")[0]),
                "api_key_env": "BENCHMARK_KEY",
                "price": "free",
                "abilities": ["chat", "embeddings"],
                "transport": self._transport,
            }
            for at, name in enumerate(names)
        }
        timeouts = {"connect_s": 1, "first_token_s": setup.first_token_s, "idle_s": setup.idle_s}
        policy = {
            "version": 1,
            "models": models,
            "rules": [{"name": "all", "models": list(models), **self._rule}],
            "timeouts": {**timeouts, "total_s": setup.total_s, **self._timeouts},
        }
        return "\n".join(f"{key}: {json.dumps(value)}" for key, value in policy.items())  # JSON is YAML

    @override
    async def stream(self, group: str, prompt: str, told: Told) -> None:
        async with await self._routers[group].send(ChatRequest.of(prompt, stream=True)) as reply:
            async for each in reply:
                heard(told, each.text)
        told.finish = reply.finish_reason

    @override
    async def whole(self, group: str, prompt: str, told: Told) -> None:
        answer = await self._routers[group].complete(prompt)
        heard(told, answer.text)
        told.finish = answer.finish_reason

    @override
    async def vectors(self, group: str, prompt: str, told: Told) -> None:
        told.vectors = await self._routers[group].embed_batch(TEXTS)
