"""The model of LM Studio's that is meant: found among those it has, with its true window, and given time to load."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import NoReturn

from typing_extensions import override

from .. import turns
from ..errors import EmptyResponse, ModelNotFound, ProviderError, ProviderUnavailable
from ..port import ProviderPort
from ..reply import Reply
from ..types import ChatRequest, EmbedRequest, Model, Request
from .lmstudio_failures import meaning
from .lmstudio_models import LMStudioModel, ModelType

FRESH_S = 5.0
"""How long a listing is believed. It is not asked for again while there are calls: a model at work stays loaded."""
LOOK_EVERY_S = 0.5
"""How often to look whether a model is loaded by now."""
_CHANGED = (EmptyResponse, ModelNotFound, ProviderUnavailable)
"""What can mean that the models are not what they were."""


class Served(ProviderPort):
    """*model* on the lane that *connect* makes to it; if it is not *named*, whichever model is loaded.

    *listed* asks LM Studio for its models. That it fails is no reason for a call to fail: less is known then. A model
    that is not loaded yet has *load_s* seconds for that, and its first-content clock begins when it is loaded.
    """

    def __init__(
        self,
        model: Model,
        *,
        named: bool,
        connect: Callable[[Model], ProviderPort],
        listed: Callable[[], Awaitable[tuple[LMStudioModel, ...]]],
        load_s: float,
        ttl_s: int | None = None,
    ) -> None:
        self._given = model
        self._named = named
        self._connect = connect
        self._listed = listed
        self._load_s = load_s
        self._ttl_s = ttl_s
        self._models: tuple[LMStudioModel, ...] = ()
        self._failure: ProviderError | None = None
        self._meant: dict[ModelType, Model] = {}
        self._lanes: dict[Model, ProviderPort] = {}
        self._listed_at = self._called_at = float("-inf")
        self._stale = True
        self._locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()

    @property
    @override
    def model(self) -> Model:
        return self._meant.get("llm", self._given)

    @property
    def lane(self) -> ProviderPort:
        """What sends to ``model``."""
        return self._lane(self.model)

    @override
    async def send(self, request: Request) -> Reply:
        model = await self.resolve(request)
        try:
            return await self._ask(model, request)
        except ModelNotFound:
            if self._named:
                raise
            self._meant.pop(_type(request), None)
            other = await self.resolve(request)
            if other.id == model.id:
                raise
        return await self._ask(other, request)

    @override
    def count_tokens(self, text: str) -> int:
        return self.lane.count_tokens(text)

    async def resolve(self, request: Request) -> Model:
        """The facts of the model that *request* is for. Raises ``ProviderError`` if there is none to choose."""
        type_ = _type(request)
        if self._stale or (type_ not in self._meant and not self._named) or self._idle():
            await self._look()
        known = self._meant.get(type_)
        found = self._found(type_)
        if found is None:
            if known is None and not self._named:
                self._none(type_)
            return known or self._given
        facts = self._given if self._named else replace(self._given, name=found.name)
        if self._given.context_window is None:
            before = known.context_window if known else None
            facts = replace(facts, context_window=found.context_window or before)
        self._meant[type_] = facts
        return facts

    @override
    async def warm_up(self) -> None:
        await self.lane.warm_up()
        with contextlib.suppress(ProviderError):
            await self.resolve(ChatRequest.of("."))

    @override
    async def aclose(self) -> None:
        await self.lane.aclose()

    async def _ask(self, model: Model, request: Request) -> Reply:
        self._called_at = asyncio.get_running_loop().time()
        if self._ttl_s is not None and isinstance(request, ChatRequest):
            request = replace(request, parameters={"ttl": self._ttl_s, **request.parameters})
        try:
            async with self._time_to_load(self._found(_type(request))):
                reply = await self._lane(model).send(request)
            return reply.on_finish(self._done)
        except ProviderError as error:
            ours = meaning(error, request, model)
            self._stale = self._stale or isinstance(ours, _CHANGED)
            if ours is error:
                raise
        raise ours

    def _lane(self, model: Model) -> ProviderPort:
        if model not in self._lanes:
            self._lanes = {each: lane for each, lane in self._lanes.items() if each in self._meant.values()}
            self._lanes[model] = self._connect(model)
        return self._lanes[model]

    def _done(self, reply: Reply, error: BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # closed by the end of its loop: there is no time any more
            self._called_at = asyncio.get_running_loop().time()

    def _idle(self) -> bool:
        return max(self._listed_at, self._called_at) + FRESH_S < asyncio.get_running_loop().time()

    async def _look(self) -> None:
        """Ask for the models. Who comes while another asks, takes what that one is told."""
        loop = asyncio.get_running_loop()
        came = loop.time()
        async with self._locks.setdefault(loop, asyncio.Lock()):
            if self._listed_at >= came:
                return
            self._stale = False
            try:
                self._models, self._failure = await self._listed(), None
            except ProviderError as error:
                self._failure = error  # what was known is the best that is known
            self._listed_at = loop.time()

    def _found(self, type_: ModelType) -> LMStudioModel | None:
        """The model to ask, if it is known: the one that is named, or was chosen before; else the first loaded one."""
        if self._named:
            return next((each for each in self._models if each.answers_to(self._given.id)), None)
        able = self._able(type_)
        known = self._meant.get(type_)
        return (
            next((each for each in able if known and each.answers_to(known.id)), None)
            or next((each for each in able if each.loaded), None)
            or (able[0] if len(able) == 1 else None)
        )

    def _able(self, type_: ModelType) -> list[LMStudioModel]:
        """The models of this type; where none is said to be, those of which it is not said what they are."""
        of_type = [each for each in self._models if each.type == type_]
        return of_type or [each for each in self._models if each.type is None]

    def _none(self, type_: ModelType) -> NoReturn:
        if self._failure is not None:
            raise copy.copy(self._failure)  # each caller's own: attempts are written on it
        keys = ", ".join(each.key for each in self._able(type_))
        what = "LM Studio has no model loaded" if type_ == "llm" else "LM Studio has no model for embeddings loaded"
        choice = f"load one, or name one of these: {keys}" if keys else "and there is none to name"
        raise ModelNotFound(f"{what}; {choice}", provider="lmstudio", model=self._given.name)

    @contextlib.asynccontextmanager
    async def _time_to_load(self, found: LMStudioModel | None) -> AsyncGenerator[None, None]:
        if found is None or found.loaded is not False:
            yield
            return
        turns.waiting()
        watch = asyncio.create_task(self._until_loaded(found.key))
        try:
            yield
            self._stale = True  # it is loaded now, and its window can be known
        finally:
            watch.cancel()
            await asyncio.wait([watch])

    async def _until_loaded(self, key: str) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._load_s):
                while not any(each.key == key and each.loaded for each in self._models):
                    await asyncio.sleep(LOOK_EVERY_S)
                    if clock() - self._listed_at >= LOOK_EVERY_S:  # else another call has just looked
                        await self._look()
        turns.begun(clock() - started)


def _type(request: Request) -> ModelType:
    return "embeddings" if isinstance(request, EmbedRequest) else "llm"
