"""One router for every language model: chosen by a policy in YAML, with fallback, cost and traces.

The public names are loaded when they are first used, so that importing this package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .analysis import (
        TaskAnalyzer as TaskAnalyzer,
    )
    from .analysis import (
        TaskFacts as TaskFacts,
    )
    from .cost_tracker import CostTracker as CostTracker
    from .decisions import DecisionLog as DecisionLog
    from .errors import (
        AccessDenied as AccessDenied,
    )
    from .errors import (
        AllProvidersFailed as AllProvidersFailed,
    )
    from .errors import (
        AuthenticationError as AuthenticationError,
    )
    from .errors import (
        BudgetExceeded as BudgetExceeded,
    )
    from .errors import (
        CircuitOpen as CircuitOpen,
    )
    from .errors import (
        ConfigurationError as ConfigurationError,
    )
    from .errors import (
        ContentFiltered as ContentFiltered,
    )
    from .errors import (
        ContextTooLong as ContextTooLong,
    )
    from .errors import (
        DevSynthError as DevSynthError,
    )
    from .errors import (
        EmptyResponse as EmptyResponse,
    )
    from .errors import (
        InvalidRequest as InvalidRequest,
    )
    from .errors import (
        LedgerUnavailable as LedgerUnavailable,
    )
    from .errors import (
        LimitReached as LimitReached,
    )
    from .errors import (
        MalformedResponse as MalformedResponse,
    )
    from .errors import (
        ModelNotFound as ModelNotFound,
    )
    from .errors import (
        NoModelFits as NoModelFits,
    )
    from .errors import (
        NotConfigured as NotConfigured,
    )
    from .errors import (
        NotPaid as NotPaid,
    )
    from .errors import (
        PolicyError as PolicyError,
    )
    from .errors import (
        ProviderError as ProviderError,
    )
    from .errors import (
        ProviderTimeout as ProviderTimeout,
    )
    from .errors import (
        ProviderUnavailable as ProviderUnavailable,
    )
    from .errors import (
        QuotaExhausted as QuotaExhausted,
    )
    from .errors import (
        RateLimitError as RateLimitError,
    )
    from .errors import (
        RequestRejected as RequestRejected,
    )
    from .errors import (
        StreamInterrupted as StreamInterrupted,
    )
    from .health import (
        Health as Health,
    )
    from .health import (
        Tolerance as Tolerance,
    )
    from .layers.fallback import FallbackProvider as FallbackProvider
    from .policy import (
        Access as Access,
    )
    from .policy import (
        Assume as Assume,
    )
    from .policy import (
        Budget as Budget,
    )
    from .policy import (
        Conditions as Conditions,
    )
    from .policy import (
        Example as Example,
    )
    from .policy import (
        Expect as Expect,
    )
    from .policy import (
        Facts as Facts,
    )
    from .policy import (
        Policy as Policy,
    )
    from .policy import (
        Range as Range,
    )
    from .policy import (
        RateLimits as RateLimits,
    )
    from .policy import (
        Rule as Rule,
    )
    from .policy import (
        TimeOfDay as TimeOfDay,
    )
    from .policy import (
        Weights as Weights,
    )
    from .policy import (
        When as When,
    )
    from .port import ProviderPort as ProviderPort
    from .providers.anthropic import AnthropicProvider as AnthropicProvider
    from .providers.anything import LiteLLMProvider as LiteLLMProvider
    from .providers.base import BaseProvider as BaseProvider
    from .providers.factory import ProviderFactory as ProviderFactory
    from .providers.lmstudio import LMStudioProvider as LMStudioProvider
    from .providers.local import LocalProvider as LocalProvider
    from .providers.openai import OpenAIProvider as OpenAIProvider
    from .providers.openrouter import OpenRouterProvider as OpenRouterProvider
    from .providers.registry import (
        ProviderRegistry as ProviderRegistry,
    )
    from .providers.registry import (
        registry as registry,
    )
    from .providers.settings import (
        Setting as Setting,
    )
    from .providers.settings import (
        Settings as Settings,
    )
    from .providers.stub import StubProvider as StubProvider
    from .reply import Reply as Reply
    from .router import Router as Router
    from .stacks import stack as stack
    from .stores.redis_cache import RedisCache as RedisCache
    from .stores.response_cache import ResponseCache as ResponseCache
    from .stores.sqlite_ledger import SqliteLedger as SqliteLedger
    from .stores.terms import CacheStatistics as CacheStatistics
    from .sync import SyncRouter as SyncRouter
    from .tokens import TokenCounter as TokenCounter
    from .types import (
        FREE as FREE,
    )
    from .types import (
        Attempt as Attempt,
    )
    from .types import (
        Candidate as Candidate,
    )
    from .types import (
        ChatRequest as ChatRequest,
    )
    from .types import (
        Chunk as Chunk,
    )
    from .types import (
        Conduct as Conduct,
    )
    from .types import (
        EmbedRequest as EmbedRequest,
    )
    from .types import (
        Evidence as Evidence,
    )
    from .types import (
        Hedge as Hedge,
    )
    from .types import (
        Keep as Keep,
    )
    from .types import (
        Latency as Latency,
    )
    from .types import (
        Limits as Limits,
    )
    from .types import (
        Message as Message,
    )
    from .types import (
        Model as Model,
    )
    from .types import (
        Network as Network,
    )
    from .types import (
        Plan as Plan,
    )
    from .types import (
        Price as Price,
    )
    from .types import (
        Rejection as Rejection,
    )
    from .types import (
        Request as Request,
    )
    from .types import (
        Response as Response,
    )
    from .types import (
        Retry as Retry,
    )
    from .types import (
        RunBudget as RunBudget,
    )
    from .types import (
        Timeouts as Timeouts,
    )
    from .types import (
        Tls as Tls,
    )
    from .types import (
        ToolCall as ToolCall,
    )
    from .types import (
        Usage as Usage,
    )

__version__ = "0.1.0"

_HOMES = {
    "analysis": "TaskAnalyzer TaskFacts",
    "cost_tracker": "CostTracker",
    "decisions": "DecisionLog",
    "errors": (
        "AccessDenied AllProvidersFailed AuthenticationError BudgetExceeded CircuitOpen ConfigurationError "
        "ContentFiltered ContextTooLong DevSynthError EmptyResponse InvalidRequest LedgerUnavailable LimitReached "
        "MalformedResponse ModelNotFound NoModelFits NotConfigured NotPaid PolicyError ProviderError "
        "ProviderTimeout ProviderUnavailable QuotaExhausted RateLimitError RequestRejected StreamInterrupted"
    ),
    "health": "Health Tolerance",
    "layers.fallback": "FallbackProvider",
    "policy": (
        "Access Assume Budget Conditions Example Expect Facts Policy Range RateLimits Rule TimeOfDay Weights When"
    ),
    "port": "ProviderPort",
    "providers.anthropic": "AnthropicProvider",
    "providers.anything": "LiteLLMProvider",
    "providers.factory": "ProviderFactory",
    "providers.base": "BaseProvider",
    "providers.lmstudio": "LMStudioProvider",
    "providers.local": "LocalProvider",
    "providers.openai": "OpenAIProvider",
    "providers.openrouter": "OpenRouterProvider",
    "providers.registry": "ProviderRegistry registry",
    "providers.settings": "Setting Settings",
    "providers.stub": "StubProvider",
    "reply": "Reply",
    "router": "Router",
    "stacks": "stack",
    "stores.redis_cache": "RedisCache",
    "stores.response_cache": "ResponseCache",
    "stores.sqlite_ledger": "SqliteLedger",
    "stores.terms": "CacheStatistics",
    "sync": "SyncRouter",
    "tokens": "TokenCounter",
    "types": (
        "FREE Attempt Candidate ChatRequest Chunk Conduct EmbedRequest Evidence Hedge Keep Latency Limits Message "
        "Model Network Plan Price Rejection Request Response Retry RunBudget Timeouts Tls ToolCall "
        "Usage"
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - a list of text, made from the table above


if not TYPE_CHECKING:  # which would take every name for one of these

    def __getattr__(name: str) -> Any:
        if (home := _HOME_OF.get(name)) is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
