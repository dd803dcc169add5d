"""``litellm.Router``, set up as its documentation advises.

From its pages on the router (docs.litellm.ai: "Retries, fallbacks and cooldowns", "Router - Load Balancing",
"Fallbacks", "Timeouts", "Configuration and defaults", read in November 2026):

- ``timeout``: "sets a 30s timeout for the entire call". Ours is the deadline of the scenario.
- ``stream_timeout``: "maximum time to wait for the first chunk … to abort hanging providers and retry another model".
  Ours is the time that both sides allow for the first token.
- ``num_retries=2``: what the page of the router's arguments shows, and its default.
- ``allowed_fails=3, cooldown_time=30``: the example for fallbacks with retries, timeouts and cooldowns. Without them
  a group with one deployment is hardly ever cooled down.
- Two candidates can be written in two ways, and both are measured: ``fallbacks=[{first: [second]}]``, each a group of
  its own; and one group, with ``order`` 1 and 2 and ``enable_pre_call_checks=True``, which ``order`` requires.
  The better of the two stands beside ours; both stand in the details.
- *strict*, for the deadline: ``num_retries=0``, and the two documented variables that end streams,
  ``LITELLM_MAX_STREAMING_DURATION_SECONDS`` and ``LITELLM_STREAM_INACTIVITY_TIMEOUT_SECONDS``, set to the deadline.
- ``disable_cooldowns=True``, documented, where a candidate has to be asked again and again for the scenario's sake.
- ``simple-shuffle``, the default, which it recommends for production.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from .said import TEXTS
from .side import Setup, Side, Told, heard

_SAMPLING: dict[str, Any] = {"temperature": 0.7, "max_tokens": 1000}
"""What a request of ours has too."""


class LiteLLM(Side):
    def __init__(
        self,
        setup: Setup,
        addresses: Mapping[str, str],
        *,
        ordered: bool = False,
        strict: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(setup, addresses)
        self._ordered, self._arguments = ordered, arguments
        if strict:
            self._arguments["num_retries"] = 0
            os.environ["LITELLM_MAX_STREAMING_DURATION_SECONDS"] = str(setup.total_s)
            os.environ["LITELLM_STREAM_INACTIVITY_TIMEOUT_SECONDS"] = str(setup.total_s)

    @override
    async def open(self) -> None:
        import litellm

        litellm.suppress_debug_info = True
        for name in ("LiteLLM", "LiteLLM Router"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        await litellm.acompletion("openai/m", [{"role": "user", "content": "x"}], mock_response="x", api_key="k")
        models, fallbacks = [], []
        for group, scripts in self.setup.groups.items():
            names = [group if self._ordered or not at else f"{group}, second" for at in range(len(scripts))]
            for at, script in enumerate(scripts):
                target = self._target(f"{script}--{'ab'[at]}", script)
                order = {"order": at + 1} if self._ordered else {}
                models.append({"model_name": names[at], "litellm_params": {**target, **order}})
            if len(scripts) > 1 and not self._ordered:
                fallbacks.append({names[0]: names[1:]})
        given: dict[str, Any] = {
            "timeout": self.setup.total_s,
            "stream_timeout": self.setup.first_token_s,
            "num_retries": 2,
            "allowed_fails": 3,
            "cooldown_time": 30,
            "fallbacks": fallbacks,
            "enable_pre_call_checks": self._ordered,
        }
        self.router = litellm.Router(model_list=models, **{**given, **self._arguments})

    def _target(self, model: str, script: str) -> dict[str, Any]:
        return {"model": f"openai/{model}", "api_key": "k", "api_base": self.base_url(script)}

    @override
    async def stream(self, group: str, prompt: str, told: Told) -> None:
        async for each in await self.router.acompletion(
            model=group, messages=_messages(prompt), stream=True, stream_options={"include_usage": True}, **_SAMPLING
        ):
            for choice in each.choices[:1]:
                heard(told, choice.delta.content or "")
                told.finish = choice.finish_reason or told.finish

    @override
    async def whole(self, group: str, prompt: str, told: Told) -> None:
        answer = await self.router.acompletion(model=group, messages=_messages(prompt), **_SAMPLING)
        heard(told, answer.choices[0].message.content or "")
        told.finish = answer.choices[0].finish_reason

    @override
    async def vectors(self, group: str, prompt: str, told: Told) -> None:
        answer = await self.router.aembedding(model=group, input=list(TEXTS))
        told.vectors = [each["embedding"] for each in answer.data]


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
