"""The values that travel: what is asked, of which model, what was decided, and what came back. All frozen."""

from .answer import Attempt, Chunk, Response, ToolCallPart, Vector, assemble, total_cost
from .model import FREE, STRICT, Ability, CostBasis, Latency, Model, Price, Share, Usage
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
from .settings import Retry, Timeouts

__all__ = [
    "FREE",
    "STRICT",
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
    "ToolCall",
    "ToolCallPart",
    "Usage",
    "Vector",
    "assemble",
    "take_context",
    "total_cost",
]
