"""What providers are sent at most, and who is next when that is reached."""

from .limiter import Limiter
from .line import ANY, Lane, Where, Wish
from .ticket import Ticket

__all__ = ["ANY", "Lane", "Limiter", "Ticket", "Where", "Wish"]
