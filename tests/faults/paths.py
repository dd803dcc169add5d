"""The ways by which a fault can be met: a path is what is asked, and through what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from devsynth_providers import (
    Keep,
    Policy,
    ProviderPort,
    Reply,
    Request,
    ResponseCache,
    Retry,
    Router,
    Rule,
    SqliteLedger,
    Timeouts,
)
from devsynth_providers.layers.wrapper import Wrapper

from .rows import EMBEDS, PROMPT, Lane, Way


@dataclass(frozen=True)
class Setting:
    """What a provider is put into: the models that are to be asked in turn, how long and how often, where attempts are
    written down, and where answers are kept, if they are."""

    providers: Sequence[ProviderPort]
    timeouts: Timeouts
    retry: Retry
    ledger: SqliteLedger
    cache: ResponseCache | None


@dataclass(frozen=True)
class Through:
    """What is between the caller and the provider. *models* are the ids of those who may be asked, the first with the
    fault, the others well; *traced* says whether there is a span around all attempts. What is above a lane does the
    same on each, and LiteLLM's own calls cost ten times as much: some are played on the direct one alone."""

    make: Callable[[Setting], ProviderPort]
    models: tuple[str, ...] = ("served-model",)
    traced: bool = True
    lanes: tuple[Lane, ...] = ("direct", "unified")
    keeps: bool = False
    """Whether answers are kept."""


def _router(setting: Setting) -> ProviderPort:
    models = {each.model.name: each.model for each in setting.providers}
    policy = Policy(
        name=next(iter(models)),
        models=models,
        rules=(Rule(name="all", models=tuple(models), cache=Keep(sampled=True) if setting.cache else None),),
        timeouts=setting.timeouts,
        retry=setting.retry,
    )
    providers = {each.model.name: each for each in setting.providers}
    return Router(policy, providers, cache=setting.cache, ledger=setting.ledger)


THROUGH = {
    "provider": Through(lambda setting: setting.providers[0], traced=False, lanes=("direct",)),
    "router": Through(_router),
    "fallback": Through(_router, ("served-model", "served-model")),
    "fallback of another space": Through(_router, ("served-model", "another-model"), lanes=("direct",)),
    "cached": Through(_router, ("served-model", "served-model"), lanes=("direct",), keeps=True),
}


@dataclass
class Caller(Wrapper):
    """Asks by the methods that everybody uses; keeps the replies, and what was delivered of them."""

    inner: ProviderPort
    on_text: Callable[[str], None] = lambda _: None
    replies: list[Reply] = field(default_factory=list)
    text: str = ""
    vectors: list[list[float]] = field(default_factory=list)

    @override
    async def send(self, request: Request) -> Reply:
        reply = await self.inner.send(request)
        self.replies.append(reply)
        return reply

    async def ask(self, way: Way) -> None:
        """Ask in this *way*, to the end."""
        if way == "generate":
            self.text = await self.generate(PROMPT, max_tokens=50)
        elif way == "generate_stream":
            async for piece in self.generate_stream(PROMPT, max_tokens=50):
                self.text += piece
                self.on_text(self.text)
        elif way == "embed":
            self.vectors = [await self.embed(PROMPT)]
        else:
            self.vectors = await self.embed_batch([PROMPT, "and another"])


@dataclass(frozen=True)
class Path:
    """One path: a *way* to ask, *through* something."""

    name: str
    way: Way
    through: Through

    @property
    def others(self) -> bool:
        """Whether there is another model that may be asked in this way."""
        ids = self.through.models
        return len(ids) > 1 and (self.way not in EMBEDS or ids[0] == ids[1])


def _paths() -> list[Path]:
    ways: tuple[Way, ...] = ("generate", "generate_stream", "embed", "embed_batch")
    made = [Path(f"{way}, {name}", way, through) for way in ways for name, through in THROUGH.items()]
    return [path for path in made if path.way in EMBEDS or path.through is not THROUGH["fallback of another space"]]


PATHS = {path.name: path for path in _paths()}
