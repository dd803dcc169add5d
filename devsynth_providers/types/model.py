"""The facts of a model: who serves it, what it costs, how fast and how good it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from annotated_types import Gt, Interval

from ..errors import ConfigurationError

CostBasis = Literal["reported", "computed", "estimated", "free", "unknown"]
Usd = Annotated[float, Interval(ge=0, lt=1e9)]
Seconds = Annotated[float, Interval(ge=0, le=86_400)]
PositiveSeconds = Annotated[float, Interval(gt=0, le=86_400)]
Share = Annotated[float, Interval(ge=0, le=1)]

Transport = Literal["auto", "litellm"]
"""``auto`` sends with our own wire where LiteLLM's translators are proved for it; ``litellm`` has LiteLLM send."""

Ability = Literal["chat", "embeddings", "tools", "json", "vision", "audio", "prefill"]
"""``prefill``: it goes on from a beginning of its answer that stands as the last of the messages."""

STRICT = {"extra": "forbid"}
"""For values that come from a file: a key that they do not have is a mistake, not something to pass over."""

PICOS_PER_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one attempt. *input_tokens* includes the cached ones, *output_tokens* the reasoning ones.

    *estimated* says that the provider did not report them, or reported what can not be true.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def adds_up(self) -> bool:
        """Whether it can be true: nothing is less than none, and no part more than its whole."""
        cached, written, reasoned = self.cached_input_tokens, self.cache_write_tokens, self.reasoning_tokens
        return min(cached, written, reasoned) >= 0 and (
            cached + written <= self.input_tokens and reasoned <= self.output_tokens
        )


class Rates(NamedTuple):
    """Picodollars for a token, as whole numbers: what a decision over many models reckons with."""

    input: int
    output: int
    dearest_input: int
    dearest_output: int


def micros(picos: int) -> int:
    """Picodollars as millionths of a dollar, rounded up."""
    return -(-picos // PICOS_PER_MICRO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD for a million tokens of each class. A class without a price of its own costs what its parent does."""

    __pydantic_config__: ClassVar = STRICT

    input_usd_per_1m: Usd
    output_usd_per_1m: Usd
    cached_input_usd_per_1m: Usd | None = None
    cache_write_usd_per_1m: Usd | None = None
    reasoning_usd_per_1m: Usd | None = None

    @property
    def free(self) -> bool:
        """Whether no token of any class costs anything."""
        return not any(
            (
                self.input_usd_per_1m,
                self.output_usd_per_1m,
                self.cached_input_usd_per_1m,
                self.cache_write_usd_per_1m,
                self.reasoning_usd_per_1m,
            )
        )

    @property
    def rates(self) -> Rates:
        """Whole picodollars for a token: as expected, and of the dearest class that it can be of."""
        return Rates(
            _picos(self.input_usd_per_1m),
            _picos(self.output_usd_per_1m),
            _picos(max(self.input_usd_per_1m, self.cached_input_usd_per_1m or 0, self.cache_write_usd_per_1m or 0)),
            _picos(max(self.output_usd_per_1m, self.reasoning_usd_per_1m or 0)),
        )

    def cost_micros(self, usage: Usage) -> int:
        """What *usage* costs in millionths of a dollar, rounded up.

        Reckoned in whole picodollars: a price in USD per million tokens with six decimals is a whole number of
        picodollars per token, so that nothing is lost to floating point.
        """
        plain_input = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
        plain_output = usage.output_tokens - usage.reasoning_tokens
        picos = max(plain_input, 0) * _picos(self.input_usd_per_1m) + max(plain_output, 0) * _picos(
            self.output_usd_per_1m
        )
        for tokens, own, parent in (
            (usage.cached_input_tokens, self.cached_input_usd_per_1m, self.input_usd_per_1m),
            (usage.cache_write_tokens, self.cache_write_usd_per_1m, self.input_usd_per_1m),
            (usage.reasoning_tokens, self.reasoning_usd_per_1m, self.output_usd_per_1m),
        ):
            if tokens:
                picos += tokens * _picos(parent if own is None else own)
        return micros(picos)

    def worst_micros(self, input_tokens: int, output_tokens: int) -> int:
        """What so many tokens cost at most, in millionths of a dollar: each of the dearest class it can be of."""
        rates = self.rates
        return micros(input_tokens * rates.dearest_input + output_tokens * rates.dearest_output)


FREE = Price(input_usd_per_1m=0.0, output_usd_per_1m=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How soon a model begins, and how fast it goes on."""

    __pydantic_config__: ClassVar = STRICT

    first_token_s: PositiveSeconds
    tokens_per_s: Annotated[float, Gt(0)]

    def __post_init__(self) -> None:
        if not (0 < self.first_token_s < math.inf and 0 < self.tokens_per_s < math.inf):
            raise ConfigurationError(f"seconds and tokens per second are above 0, and finite, not {self!r}")

    def estimate_s(self, output_tokens: int) -> float:
        """Seconds until an answer of *output_tokens* is whole."""
        return self.first_token_s + output_tokens / self.tokens_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model as a policy names it. ``None`` means that a fact is not known, never that it is zero.

    *model* is the name that the provider knows it by, *name* the one that rules use; they are the same unless
    said otherwise. *path* is a GGUF file, for the local provider.
    """

    __pydantic_config__: ClassVar = STRICT

    name: str
    provider: str
    model: str = ""
    base_url: str | None = None
    api_key_env: str | None = None
    path: str | None = None
    price: Price | None = None
    context_window: Annotated[int, Gt(0)] | None = None
    max_output_tokens: Annotated[int, Gt(0)] | None = None
    abilities: frozenset[Ability] | None = None
    quality: Share | None = None
    latency: Latency | None = None
    tags: tuple[str, ...] = ()
    transport: Transport = "auto"
    propagate: bool | None = None
    """Whether its server is told which trace asks; ``None``: LM Studio, this machine and private addresses are."""
    price_assumed: bool = False
    """Whether *price* is only what the policy assumes of a model whose price is not known."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError(f"a model's name is text, not {self.name!r}")
        if not isinstance(self.price, Price | None):
            raise ConfigurationError(
                f"the price of {self.name} is a Price, FREE, or None if unknown, not {self.price!r}"
            )
        if self.quality is not None and not 0 <= self.quality <= 1:
            raise ConfigurationError(f"the quality of {self.name} is from 0 to 1, not {self.quality!r}")
        for what in ("context_window", "max_output_tokens"):
            value = getattr(self, what)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigurationError(f"{what} of {self.name} is a whole number of tokens, not {value!r}")
        if self.transport not in ("auto", "litellm"):
            raise ConfigurationError(f"transport of {self.name} is 'auto' or 'litellm', not {self.transport!r}")

    @property
    def id(self) -> str:
        """The name that the provider knows this model by. Two models with one id share a vector space."""
        return self.model or self.name

    def cost_micros(self, usage: Usage) -> int | None:
        """What *usage* costs in millionths of a dollar, or ``None`` where the price is not known."""
        return None if self.price is None else self.price.cost_micros(usage)

    def worst_micros(self, input_tokens: int, output_tokens: int) -> int | None:
        """What so many tokens cost at most, in millionths of a dollar, or ``None`` where the price is not known."""
        return None if self.price is None else self.price.worst_micros(input_tokens, output_tokens)

    def cost_basis(self, usage: Usage) -> CostBasis:
        """How the cost of *usage* is known."""
        if self.price is None:
            return "unknown"
        if self.price.free:
            return "free"
        return "estimated" if usage.estimated or self.price_assumed else "computed"


def _picos(usd_per_1m: float) -> int:
    return round(usd_per_1m * 1_000_000)
