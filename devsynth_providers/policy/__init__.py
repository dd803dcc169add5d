"""Which models, in which order: rules, and the decision. Both pure."""

from .facts import Conditions, Facts
from .policy import Policy
from .rules import Range, Rule, When

__all__ = ["Conditions", "Facts", "Policy", "Range", "Rule", "When"]
