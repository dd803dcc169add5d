"""The values that travel: what is asked, of which model, what was decided, and what came back. All frozen."""

from .answer import Attempt, Chunk, Response, ToolCallPart, Vector, assemble, total_cost
from .left_out import MAX_TOKENS, TEMPERATURE, left_out
from .model import FREE, STRICT, Ability, CostBasis, Latency, Model, Price, Share, Transport, Usage
from .options import Context, Options, Parameters
from .plan import Candidate, Evidence, Plan, Rejection
from .request import (
    AttemptReason,
    Call,
    ChatRequest,
    EmbedRequest,
    Limits,
    Message,
    Request,
    Role,
    ToolCall,
    take_context,
)
from .settings import Network, Retry, Timeouts, Tls

__all__ = [
    "FREE",
    "MAX_TOKENS",
    "STRICT",
    "TEMPERATURE",
    "Ability",
    "Attempt",
    "AttemptReason",
    "Call",
    "Candidate",
    "ChatRequest",
    "Chunk",
    "Context",
    "CostBasis",
    "EmbedRequest",
    "Evidence",
    "Latency",
    "Limits",
    "Message",
    "Model",
    "Network",
    "Options",
    "Parameters",
    "Plan",
    "Price",
    "Rejection",
    "Request",
    "Response",
    "Retry",
    "Role",
    "Share",
    "Timeouts",
    "Tls",
    "ToolCall",
    "ToolCallPart",
    "Transport",
    "Usage",
    "Vector",
    "assemble",
    "left_out",
    "take_context",
    "total_cost",
]
