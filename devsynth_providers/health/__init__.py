"""How servers have been of late, and what is done about it: circuit breakers, and a budget for retries."""

from .breaker import NEUTRAL as NEUTRAL
from .breaker import Breaker as Breaker
from .breaker import Pass as Pass
from .breaker import Tolerance as Tolerance
from .breaker import Verdict as Verdict
from .budget import RetryBudget as RetryBudget
from .circuit import LOOK_AGAIN_S as LOOK_AGAIN_S
from .circuit import Circuit as Circuit
from .health import Health as Health
