"""How servers have been of late, and what is done about it: circuit breakers, and a budget for retries."""

from .breaker import Breaker as Breaker
from .budget import RetryBudget as RetryBudget
from .circuit import LOOK_AGAIN_S as LOOK_AGAIN_S
from .circuit import Circuit as Circuit
from .health import Health as Health
from .terms import NEUTRAL as NEUTRAL
from .terms import Pass as Pass
from .terms import State as State
from .terms import Tolerance as Tolerance
from .terms import Verdict as Verdict
