"""What outlives a call: the cache of answers. Each foreign library that keeps things has its door here."""

from .response_cache import CacheStatistics as CacheStatistics
from .response_cache import ResponseCache as ResponseCache
