"""Which models, in which order: rules, and the decision. Both pure."""

from .facts import Conditions, Facts
from .policy import Policy
from .rules import Range, Rule, TimeOfDay, Weights, When
from .sections import Access, Assume, Budget, Example, Expect, RateLimits

__all__ = [
    "Access",
    "Assume",
    "Budget",
    "Conditions",
    "Example",
    "Expect",
    "Facts",
    "Policy",
    "Range",
    "RateLimits",
    "Rule",
    "TimeOfDay",
    "Weights",
    "When",
]
