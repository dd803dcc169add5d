"""Everything this library raises, and for each kind whether to ask again.

DevSynthError
├── ConfigurationError        a setting, a key or a name is wrong: nothing was called
│   ├── NotConfigured         a provider lacks what it needs to be made: a key, a model, a package, a file
│   └── PolicyError           a policy file is wrong: says file, line, column, suggestion
├── InvalidRequest            the caller's arguments are wrong (also a ValueError)
├── NoModelFits               no model of the rule meets the request's limits; says why, for each
├── NotPaid                   the next attempt was not made
│   ├── BudgetExceeded        it could cost more than is left
│   └── LedgerUnavailable     what it costs can not be written down, and a budget has to hold
└── ProviderError             a model was asked and failed    same model again?  next model?  may be billed?
    ├── RateLimitError                                               yes            yes          no
    │   └── LimitReached      our own limit: nothing was sent        no             yes          no
    ├── ProviderTimeout                                              yes            yes          yes
    ├── ProviderUnavailable                                          yes            yes          yes
    │   └── CircuitOpen       it failed of late: nothing was sent    no             yes          no
    ├── EmptyResponse                                                yes            yes          yes
    ├── MalformedResponse                                            no             yes          yes
    ├── ModelNotFound                                                no             yes          no
    ├── QuotaExhausted                                               no             yes          no
    ├── AuthenticationError                                          no             yes          no
    ├── ContextTooLong                                               no       larger windows     no
    ├── RequestRejected                                              no             no           no
    ├── ContentFiltered                                              no             no           yes
    ├── StreamInterrupted     after text was delivered               no             no           yes
    └── AllProvidersFailed    also an ExceptionGroup                 no             no           each
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Self

from typing_extensions import override

if TYPE_CHECKING:
    from .types import Attempt, Rejection, Usage, Vector


class DevSynthError(Exception):
    """Base of every error that this library raises."""

    kind: ClassVar[str] = "error"
    """The stable, low-cardinality name that traces and metrics carry as ``error.type``."""
    vectors: tuple[Vector | None, ...] = ()
    """Of a batch of texts to embed that failed in part: what came all the same, in the order of the texts, and ``None``
    where nothing did. Empty where nothing came at all, and of every other request."""
    failures: Mapping[int, DevSynthError] = MappingProxyType({})
    """Of texts to embed that were asked for: by its place, from 0, why each that has no vector has none. The attempts
    of all are told by the error that was raised, and not by these."""


class ConfigurationError(DevSynthError, ValueError):
    """A setting, a key or a name is wrong; no model was called."""

    kind = "configuration"


class NotConfigured(ConfigurationError):
    """A provider lacks what it needs to be made: a key, a model, a package, a file. Others may be there."""

    kind = "not_configured"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a policy file. *line* and *column* count from 1; 0 means that no place is known.

    *file* is where it stands: the policy itself, or one that it extends.
    """

    message: str
    line: int = 0
    column: int = 0
    suggestion: str | None = None
    file: str | None = None


class PolicyError(ConfigurationError):
    """A policy file is wrong. *problems* has every mistake found; the other attributes tell the first."""

    kind = "policy"

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        super().__init__(file, tuple(problems))
        self.problems = tuple(replace(problem, file=problem.file or file) for problem in problems)
        self.file = (self.problems[0].file if self.problems else None) or file

    @property
    def line(self) -> int:
        return self.problems[0].line

    @property
    def column(self) -> int:
        return self.problems[0].column

    @property
    def suggestion(self) -> str | None:
        return self.problems[0].suggestion

    @override
    def __str__(self) -> str:
        return "\n".join(self._sentence(problem) for problem in self.problems)

    def _sentence(self, problem: Problem) -> str:
        place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
        return f"{place}: {problem.message}" + (f"; {problem.suggestion}" if problem.suggestion else "")


class InvalidRequest(DevSynthError, ValueError):
    """The caller's arguments are wrong; no model was called."""

    kind = "invalid_request"


class NoModelFits(DevSynthError):
    """No model of the rule can take the request within its limits. *rejected* says why, for each."""

    kind = "no_model_fits"

    def __init__(self, message: str, rejected: Sequence[Rejection] = ()) -> None:
        super().__init__(message, tuple(rejected))
        self.rejected = tuple(rejected)

    @override
    def __str__(self) -> str:
        reasons = "".join(f"\n  {r.model}: {r.reason} ({r.code})" for r in self.rejected)
        return f"{self.args[0]}{reasons}"


class AccessDenied(NoModelFits):
    """The caller's role may not ask any model of the rule, though there are some that could answer."""

    kind = "access_denied"


class ProviderError(DevSynthError):
    """A model was asked and failed.

    *attempts* are the tries of this call so far, this one among them; *status* and *code* are the provider's own, where
    it sent any; *usage* is what it says to bill for the failure. Two texts never appear here: a key, and the
    provider's whole page.
    """

    kind = "provider_error"
    retryable: bool = False
    passes_on: bool = False
    billed: bool = False
    """Whether the provider may charge for what failed; if so, its cost is estimated and counted."""

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        model: str = "",
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status = status
        self.code = code
        self.attempts: tuple[Attempt, ...] = ()
        self.usage: Usage | None = None


class NotPaid(DevSynthError):
    """The next attempt was not made, for it could not be paid for; *attempts* are those already made.

    *passes_on* says whether a model that costs less may be asked in its place.
    """

    kind = "not_paid"
    passes_on = False
    attempts: tuple[Attempt, ...] = ()


class BudgetExceeded(NotPaid):
    """The next attempt could cost more than may still be spent.

    *account* is who has too little left: ``request``, ``run``, or one as ``project:billing``, of which *spent_usd* of
    *limit_usd* is spent, or set aside, until *resets_at*; ``None`` is without end.
    """

    kind = "budget_exceeded"
    passes_on = True
    account = "request"
    limit_usd: float | None = None
    spent_usd: float | None = None
    resets_at: datetime | None = None


class LedgerUnavailable(NotPaid):
    """The ledger can not be written, and a budget has to hold: no model was called."""

    kind = "ledger_unavailable"


class RateLimitError(ProviderError):
    """The provider asked us to slow down; *retry_after_s* is how long it wants to be left alone, if it said."""

    kind = "rate_limited"
    retryable = passes_on = True
    retry_after_s: float | None = None


class LimitReached(RateLimitError):
    """Our own limit for the provider leaves no turn in time: nothing was sent. *retry_after_s* is how long the queue
    would take, if that could be told at once. Its *code* is ``local_limit``."""

    kind = "local_limit"
    retryable = False


class ProviderTimeout(ProviderError):
    """The provider did not answer in time."""

    kind = "timeout"
    retryable = passes_on = billed = True


class ProviderUnavailable(ProviderError):
    """The provider could not be reached, or failed on its side."""

    kind = "unavailable"
    retryable = passes_on = billed = True
    retry_after_s: float | None = None


class CircuitOpen(ProviderUnavailable):
    """The model has failed so often of late that it is left alone: nothing was sent. *retry_after_s* says for how long.

    *rejected* says of each model that could else have been asked why it is left alone, where a router knows.
    """

    kind = "circuit_open"
    retryable = billed = False
    rejected: tuple[Rejection, ...] = ()


class EmptyResponse(ProviderError):
    """The provider said that all is well, and nothing else."""

    kind = "empty_response"
    retryable = passes_on = billed = True


class MalformedResponse(ProviderError):
    """What the provider sent is not an answer: cut JSON, a web page, vectors that do not match the texts."""

    kind = "malformed_response"
    passes_on = billed = True


class ModelNotFound(ProviderError):
    """The provider does not have this model, or can not load it."""

    kind = "model_not_found"
    passes_on = True


class QuotaExhausted(ProviderError):
    """The account behind the key has nothing left to spend."""

    kind = "quota_exhausted"
    passes_on = True


class AuthenticationError(ProviderError):
    """The provider refused our key, or what the key may do."""

    kind = "authentication"
    passes_on = True


class ContextTooLong(ProviderError):
    """The prompt does not fit this model's context window; only a model with a larger one is asked next."""

    kind = "context_too_long"
    passes_on = True
    context_window: int | None = None
    """The window that was too small, where it is known."""


class RequestRejected(ProviderError):
    """The provider refused the request itself; every other would refuse it too."""

    kind = "rejected"


class ContentFiltered(ProviderError):
    """The provider's content policy refused the prompt, or stopped the answer; *partial* is what it let through."""

    kind = "content_filtered"
    billed = True
    partial: str = ""


class StreamInterrupted(ProviderError):
    """The answer broke off after its first text was delivered; *partial* is that text, exactly."""

    kind = "stream_interrupted"
    billed = True
    partial: str = ""


class AllProvidersFailed(ProviderError, ExceptionGroup[ProviderError]):
    """Every model of the plan failed; *exceptions* has one error for each, in the order in which they were asked."""

    kind = "all_providers_failed"

    if TYPE_CHECKING:

        @property
        @override
        def exceptions(self) -> tuple[ProviderError, ...]: ...

    def __new__(cls, message: str, errors: Sequence[ProviderError]) -> Self:
        return ExceptionGroup.__new__(cls, message, errors)

    def __init__(self, message: str, errors: Sequence[ProviderError]) -> None:
        super().__init__(message)
        self.args = (message, list(errors))
        self.attempts = tuple(dict.fromkeys(attempt for error in errors for attempt in error.attempts))

    @override
    def derive(self, excs: Sequence[ProviderError]) -> AllProvidersFailed:  # type: ignore[override]
        return AllProvidersFailed(self.message, excs)

    @override
    def __str__(self) -> str:
        causes = "".join(f"\n  {error.model}: {error}" for error in self.exceptions)
        return f"{self.message}{causes}"
