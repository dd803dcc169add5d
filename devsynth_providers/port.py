"""The port: anything that answers. One model, or several behind a policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Self, Unpack

from .analysis import estimate_tokens
from .bulk import AT_ONCE, in_order
from .errors import DevSynthError, InvalidRequest
from .reply import Reply
from .types import (
    MAX_TOKENS,
    TEMPERATURE,
    ChatRequest,
    Context,
    EmbedRequest,
    Identity,
    Message,
    Model,
    Options,
    Parameters,
    Price,
    Request,
    Response,
    take_context,
)

UNKNOWN_WINDOW = 8192
"""What ``max_context_size`` says of a model whose window nobody has told us: small enough for most."""


class ProviderPort(ABC):
    """Implement ``model`` and ``send``; the rest is written in terms of them."""

    @property
    @abstractmethod
    def model(self) -> Model:
        """The model that answers, or the first that will be asked."""

    @abstractmethod
    async def send(self, request: Request) -> Reply:
        """Ask, and return once the first content of the answer is here.

        Raises ``ProviderError`` if it does not come. Leave the reply by ``async with``, or ``read`` it to its end.
        Whoever implements this ends every whole answer with a ``finish_reason``: one without is taken as cut off.
        """

    @property
    def identity(self) -> Identity:
        """Which server this is, which model on it, and on whose account: what fails, and recovers, as one."""
        return Identity.of(self.model)

    @property
    def bare(self) -> ProviderPort:
        """This provider without retries and timeouts of its own: what a router puts its layers around."""
        return self

    async def complete(self, request: Request | str | None = None, **options: Unpack[Options]) -> Response:
        """Ask, and return the whole answer. *request* is a prompt, or a request made before."""
        return await (await self.send(as_request(request, **options))).read()

    def complete_all(
        self,
        requests: Iterable[Request | str] | AsyncIterable[Request | str],
        *,
        at_once: int = AT_ONCE,
        **options: Unpack[Options],
    ) -> AsyncGenerator[Response | DevSynthError, None]:
        """``complete`` each of *requests*, *at_once* at the same time: yields, in their order, the answer to each, or
        the error that it failed with. *options* are for all that are prompts.

        Requests are read as they can be asked; the answers wait for you. An error that is none of this library's, and
        a cancellation, are raised at once. Leave early by ``contextlib.aclosing`` to have what is under way ended then.
        """
        if options:
            ChatRequest.of("-", **options)  # what is wrong with them is wrong for all

        async def outcome(request: Request | str) -> Response | DevSynthError:
            try:
                return await self.complete(request, **options)
            except DevSynthError as error:
                return error.with_traceback(None)  # a value: whoever keeps thousands keeps no frames

        return in_order(outcome, requests, at_once=at_once)

    async def generate(
        self,
        prompt: str | None = None,
        temperature: float = TEMPERATURE,
        max_tokens: int = MAX_TOKENS,
        stop_sequences: Sequence[str] | None = None,
        *,
        system_prompt: str | None = None,
        messages: Sequence[Message | Mapping[str, Any]] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **parameters: Unpack[Parameters],
    ) -> str:
        """Return the text of the answer to *prompt*; never ``None``, and empty only if it is all tool calls."""
        request = ChatRequest.of(
            prompt,
            temperature=temperature,
            max_tokens=max_tokens,
            stop_sequences=stop_sequences,
            system_prompt=system_prompt,
            messages=messages,
            tools=tools,
            **parameters,
        )
        return (await self.complete(request)).text

    async def generate_stream(
        self,
        prompt: str | None = None,
        temperature: float = TEMPERATURE,
        max_tokens: int = MAX_TOKENS,
        stop_sequences: Sequence[str] | None = None,
        *,
        system_prompt: str | None = None,
        messages: Sequence[Message | Mapping[str, Any]] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **parameters: Unpack[Parameters],
    ) -> AsyncIterator[str]:
        """Yield the text of the answer to *prompt* as it arrives."""
        request = ChatRequest.of(
            prompt,
            stream=True,
            temperature=temperature,
            max_tokens=max_tokens,
            stop_sequences=stop_sequences,
            system_prompt=system_prompt,
            messages=messages,
            tools=tools,
            **parameters,
        )
        async with await self.send(request) as reply:
            async for chunk in reply:
                if chunk.text:
                    yield chunk.text

    async def embed(self, text: str, **context: Unpack[Context]) -> list[float]:
        """Return the vector of *text*."""
        return (await self.embed_batch([text], **context))[0]

    async def embed_batch(self, texts: Sequence[str], **context: Unpack[Context]) -> list[list[float]]:
        """Return one vector for each of *texts*, in their order. No texts, no call."""
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise InvalidRequest("embed_batch takes a list of texts; embed takes one")
        if not texts:
            return []
        request = EmbedRequest(texts=tuple(texts), **take_context(dict(context)))
        return [list(vector) for vector in (await self.complete(request)).vectors]

    def count_tokens(self, text: str) -> int:
        """How many tokens *text* is: the model's own count where it is at hand, else an estimate."""
        return estimate_tokens(text)

    @property
    def max_context_size(self) -> int:
        """How many tokens prompt and answer may have together; 8192 where it is not known."""
        return self.model.context_window or UNKNOWN_WINDOW

    @property
    def cost_per_1k_tokens(self) -> dict[str, float]:
        """USD for a thousand tokens, ``input`` and ``output``; NaN where the price is not known."""
        unknown = Price(input_usd_per_1m=float("nan"), output_usd_per_1m=float("nan"))
        price = self.model.price or unknown
        return {"input": price.input_usd_per_1m / 1000, "output": price.output_usd_per_1m / 1000}

    async def warm_up(self) -> None:
        """Do now what the first call would have to wait for."""
        return

    async def aclose(self) -> None:
        """Let go of connections and processes."""
        return

    async def __aenter__(self) -> Self:
        await self.warm_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def as_request(request: Request | str | None, **options: Unpack[Options]) -> Request:
    """*request* itself, or one made from a prompt and *options*."""
    if not isinstance(request, Request):
        return ChatRequest.of(request, **options)
    if options:
        raise InvalidRequest(f"a finished request takes no options: {', '.join(options)}")
    return request
