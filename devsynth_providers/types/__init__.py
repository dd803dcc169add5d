"""The values that travel: what is asked, of which model, what was decided, and what came back. All frozen."""

from .answer import Attempt, Chunk, Response, ToolCallPart, Vector, assemble, total_cost
from .changed import changed
from .conduct import Conduct, Hedge, Keep, Quantile
from .fingerprint import Tenant, fingerprint
from .identity import Identity
from .left_out import MAX_TOKENS, TEMPERATURE, left_out
from .limits import LIMITS, NO_LIMITS, Limits, is_number
from .model import (
    FREE,
    STRICT,
    Ability,
    CostBasis,
    Latency,
    Model,
    Price,
    Rates,
    Share,
    Transport,
    Usage,
    Usd,
    micros,
)
from .options import Context, Options, Parameters
from .plan import Candidate, Evidence, LatencyBasis, Plan, Rejection
from .request import (
    AttemptReason,
    Call,
    ChatRequest,
    EmbedRequest,
    Message,
    Request,
    Role,
    ToolCall,
    new_id,
    take_context,
)
from .run_budget import RunBudget
from .settings import Network, Retry, Timeouts, Tls
from .tally import Tally

__all__ = [
    "FREE",
    "LIMITS",
    "MAX_TOKENS",
    "NO_LIMITS",
    "STRICT",
    "TEMPERATURE",
    "Ability",
    "Attempt",
    "AttemptReason",
    "Call",
    "Candidate",
    "ChatRequest",
    "Chunk",
    "Conduct",
    "Context",
    "CostBasis",
    "EmbedRequest",
    "Evidence",
    "Hedge",
    "Identity",
    "Keep",
    "Latency",
    "LatencyBasis",
    "Limits",
    "Message",
    "Model",
    "Network",
    "Options",
    "Parameters",
    "Plan",
    "Price",
    "Quantile",
    "Rates",
    "Rejection",
    "Request",
    "Response",
    "Retry",
    "Role",
    "RunBudget",
    "Share",
    "Tally",
    "Tenant",
    "Timeouts",
    "Tls",
    "ToolCall",
    "ToolCallPart",
    "Transport",
    "Usage",
    "Usd",
    "Vector",
    "assemble",
    "changed",
    "fingerprint",
    "is_number",
    "left_out",
    "micros",
    "new_id",
    "take_context",
    "total_cost",
]
