"""In which order the models that can take a request are asked. Equals stay as listed, and what is not known is last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..types import Candidate
from .rules import Order, Weights

_FAR = float("inf")


def ordered(
    candidates: Sequence[Candidate], prefer: Order | Weights, explore: float, draw: float | None
) -> tuple[tuple[Candidate, ...], bool]:
    """*candidates* as *prefer* says, and whether the first is first only to be measured for once.

    Where speed counts, a model whose speed nobody knows would come last for ever: with a *draw* below *explore*, one
    of those is asked first, and which one the draw says too.
    """
    if prefer == "listed" or len(candidates) == 1:
        return tuple(candidates), False
    in_order = sorted(candidates, key=_keys(candidates, prefer))
    by_speed = prefer == "fastest" or (isinstance(prefer, Weights) and prefer.latency > 0)
    if not by_speed or draw is None or not 0 <= draw < explore:  # nor if it is no number
        return tuple(in_order), False
    unknown = [each for each in in_order if each.latency_s is None]
    if not unknown or in_order[0] in unknown:
        return tuple(in_order), False
    chosen = unknown[int(draw / explore * len(unknown))]
    return (chosen, *(each for each in in_order if each is not chosen)), True


def _keys(candidates: Sequence[Candidate], prefer: Order | Weights) -> Callable[[Candidate], float]:
    if isinstance(prefer, Weights):
        return _Score(candidates, prefer)
    by: Mapping[str, Callable[[Candidate], float]] = {"cheapest": _cost, "fastest": _latency, "best": _quality}
    return by[prefer]


def _cost(candidate: Candidate) -> float:
    return _FAR if candidate.cost_usd is None else candidate.cost_usd


def _latency(candidate: Candidate) -> float:
    return _FAR if candidate.latency_s is None else candidate.latency_s


def _quality(candidate: Candidate) -> float:
    return _FAR if candidate.model.quality is None else -candidate.model.quality


class _Score:
    """Quality as it is; the lowest cost over the own one, and the least time over the own one: 1 for the cheapest and
    fastest, one half for what costs or takes twice as much, 0 for what is not known. The best has the lowest key."""

    def __init__(self, candidates: Sequence[Candidate], weights: Weights) -> None:
        self._weights = weights
        self._cheapest = min(map(_cost, candidates))
        self._fastest = min(map(_latency, candidates))

    def __call__(self, candidate: Candidate) -> float:
        weights = self._weights
        return -(
            weights.quality * (candidate.model.quality or 0.0)
            + weights.cost * _of_least(self._cheapest, candidate.cost_usd)
            + weights.latency * _of_least(self._fastest, candidate.latency_s)
        )


def _of_least(least: float, value: float | None) -> float:
    if value is None:
        return 0.0
    return 1.0 if value <= least else least / value
