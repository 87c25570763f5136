import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from fastmri_ufloss.baselines import runs
from fastmri_ufloss.baselines.runs import best_weight, evenly_spaced, next_weights


class Counting:
    """A convex function of the logarithm, with its minimum at ``best``, and what it was asked for."""

    def __init__(self, best: float) -> None:
        self.best = best
        self.asked: list[float] = []

    def score(self, weight: float) -> float:
        distance = math.log(weight / self.best)
        return math.cosh(distance) + 0.3 * distance

    def __call__(self, weights: Sequence[float]) -> list[float]:
        self.asked += weights
        return [self.score(weight) for weight in weights]


def search(function: Counting, known: Mapping[float, float] | None = None, **options: Any) -> dict[float, float]:
    """All scores at the end of a search."""
    scores = dict(known or {})
    while weights := next_weights(scores, **options):
        scores.update(zip(weights, function(weights), strict=True))
    return scores


@pytest.mark.parametrize("best", [2e-4, 0.009, 0.011, 0.35, 3.0])
@pytest.mark.parametrize("num_refinements", [0, 2, 5])
def test_the_minimum_is_found_wherever_it_is(
    best: float, num_refinements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "NUM_REFINEMENTS", num_refinements)
    function = Counting(best)
    scores = search(function, start=0.01, bounds=(1e-5, 10))
    weight = best_weight(scores)
    minimum = math.exp(minimize_scalar(lambda x: function.score(math.exp(x)), bounds=(-12, 3), method="bounded").x)
    assert abs(math.log(weight / minimum)) < 1.01 * math.log(4) / 2**num_refinements
    assert scores[weight] == min(scores.values()) == function.score(weight)
    assert min(scores) < weight < max(scores)  # the best weight has neighbors
    assert len(function.asked) == len(set(function.asked))  # none is tried twice
    assert scores == {weight: function.score(weight) for weight in sorted(function.asked)}


@pytest.mark.parametrize(("best", "expected"), [(1e-4, 1e-3), (1e3, 1.0)])
def test_the_search_ends_at_a_bound(best: float, expected: float) -> None:
    function = Counting(best)
    assert best_weight(search(function, start=0.01, bounds=(1e-3, 1.0))) == expected
    assert all(1e-3 <= weight <= 1 for weight in function.asked)


def test_an_interrupted_search_goes_on_and_ends_the_same() -> None:
    whole = Counting(0.3)
    expected = search(whole, start=0.01, bounds=(1e-5, 10))
    assert len(expected) > 6
    for count in range(len(expected)):
        rest = Counting(0.3)
        known = {weight: rest.score(weight) for weight in whole.asked[:count]}
        assert search(rest, known, start=0.01, bounds=(1e-5, 10)) == expected
        assert whole.asked[:count] + rest.asked == whole.asked


def test_of_equal_scores_the_smallest_weight_is_taken_and_nan_never() -> None:
    assert best_weight({0.02: 1.0, 0.01: 1.0, 0.001: math.nan, 0.1: math.inf}) == 0.01
    with pytest.raises(ValueError, match="scores must be finite"):
        best_weight({0.1: math.nan, 0.2: math.nan})
    flat = {0.0025: math.nan, 0.01: 1.0, 0.04: 1.0}
    assert next_weights(flat, start=0.01, bounds=(1e-3, 1)) == [0.005, 0.02]  # 0.01 has the lowest score


def test_bad_arguments_are_named() -> None:
    for start, bounds in ((0.01, (0, 1)), (2, (0.1, 1)), (math.nan, (0.1, 1)), (0.2, (0.1, math.inf))):
        with pytest.raises(ValueError, match="start must be within the positive bounds"):
            next_weights({}, start=start, bounds=bounds)
    with pytest.raises(ValueError, match="num_slices must be at least 1"):
        evenly_spaced(3, 0)


@pytest.mark.parametrize(("length", "count"), [(10, 3), (7, 7), (100, 12), (3, 5), (5, 1)])
def test_slices_are_spread_evenly(length: int, count: int) -> None:
    chosen = evenly_spaced(length, count)
    assert len(chosen) == len(set(chosen)) == min(length, count)
    assert all(0 <= index < length for index in chosen)
    gaps = np.diff([-1 - chosen[0], *chosen, length + (length - 1 - chosen[-1])])
    inner = gaps[1:-1]
    assert not len(inner) or inner.max() - inner.min() <= 1
    assert abs(chosen[0] - (length - 1 - chosen[-1])) <= 1
