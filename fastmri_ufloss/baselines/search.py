"""Search of a regularisation weight on a logarithmic grid."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

__all__ = ["SearchedWeight", "evenly_spaced", "search_weight"]

Objective = Callable[[Sequence[float]], Sequence[float]]

_DIGITS = 4  # of a weight: enough to tell candidates apart, few enough to type one again


class SearchedWeight(NamedTuple):
    """What a search has found.

    Args:
        weight: of the lowest score; of equal ones the smallest.
        score: its score.
        tried: every score by its weight, from small to large weights.
        at_bound: whether the weight is one of the two bounds, and the minimum may lie beyond.
    """

    weight: float
    score: float
    tried: dict[float, float]
    at_bound: bool


def search_weight(
    objective: Objective,
    *,
    start: float,
    bounds: tuple[float, float],
    factor: float = 4.0,
    num_refinements: int = 2,
    known: Mapping[float, float] | None = None,
) -> SearchedWeight:
    """The weight with the lowest score.

    The first candidates are the start and its neighbours on a logarithmic grid, start * factor^k. While the best
    one is at an end, the grid goes on there, up to a bound. Then the two midpoints beside the best one are tried,
    ``num_refinements`` times: with the defaults, neighbours of the result are factors of sqrt(2) apart. A function
    with one minimum has it between these neighbours. No random number is drawn, and no weight is tried twice.

    Args:
        objective: from weights to their scores; several at once, which it may compute side by side. A score that
            is not finite is worse than all others.
        start: of the grid, within the bounds.
        bounds: smallest and largest weight.
        factor: of the grid, above 1.
        num_refinements: how often the grid is halved around the best weight, at least 0.
        known: scores of weights that need not be computed again, as of a search that was interrupted.

    Raises:
        ValueError: if an argument is out of range, or no score is finite.
    """
    low, high = bounds
    if not 0 < low <= start <= high < math.inf:
        raise ValueError(f"start must lie within the bounds, which are positive, got {start} and {bounds}")
    if not factor > 1 or num_refinements < 0:
        raise ValueError(f"factor must be above 1 and num_refinements at least 0, got {factor} and {num_refinements}")
    known = {_round(weight): score for weight, score in (known or {}).items()}
    scores: dict[float, float] = {}

    def weight_at(place: float) -> float:
        return _round(min(max(start * factor**place, low), high))

    def evaluate(places: Sequence[float]) -> None:
        weights = list(dict.fromkeys(weight_at(place) for place in places))
        scores.update({weight: known[weight] for weight in weights if weight in known})
        missing = [weight for weight in weights if weight not in scores]
        if missing:
            scores.update(zip(missing, objective(missing), strict=True))

    def best_of(places: Sequence[float]) -> float:
        return min(places, key=lambda place: (_comparable(scores[weight_at(place)]), weight_at(place)))

    places: list[float] = [-1.0, 0.0, 1.0]
    evaluate(places)
    best = best_of(places)
    while best in (places[0], places[-1]):
        step = -1.0 if best == places[0] else 1.0
        if weight_at(best + step) == weight_at(best):
            break  # at a bound
        places = sorted((*places, best + step))
        evaluate([best + step])
        best = best_of(places)
    step = 1.0
    for _ in range(num_refinements):
        step /= 2
        places = sorted((*places, best - step, best + step))
        evaluate([best - step, best + step])
        best = best_of(places)
    weight = weight_at(best)
    if not math.isfinite(scores[weight]):
        raise ValueError(f"the objective must be finite for some weight, got {scores}")
    return SearchedWeight(weight, scores[weight], dict(sorted(scores.items())), weight in (_round(low), _round(high)))


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most ``count`` of ``range(length)``, each in the middle of its share.

    Raises:
        ValueError: if there is nothing to take from, or nothing to take.
    """
    if length < 1 or count < 1:
        raise ValueError(f"length and count must be at least 1, got {length} and {count}")
    count = min(count, length)
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]


def _comparable(score: float) -> float:
    return score if math.isfinite(score) else math.inf


def _round(weight: float) -> float:
    return float(f"{weight:.{_DIGITS}g}")
