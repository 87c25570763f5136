import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from fastmri_ufloss.baselines import evenly_spaced, search_weight


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


@pytest.mark.parametrize("best", [2e-4, 0.009, 0.011, 0.35, 3.0])
@pytest.mark.parametrize("num_refinements", [0, 2, 5])
def test_the_minimum_is_found_wherever_it_is(best: float, num_refinements: int) -> None:
    function = Counting(best)
    found = search_weight(function, start=0.01, bounds=(1e-5, 10), factor=4, num_refinements=num_refinements)
    minimum = math.exp(minimize_scalar(lambda x: function.score(math.exp(x)), bounds=(-12, 3), method="bounded").x)
    assert abs(math.log(found.weight / minimum)) < 1.01 * math.log(4) / 2**num_refinements
    assert found.score == min(found.tried.values()) == function.score(found.weight)
    assert not found.at_bound
    below = [weight for weight in found.tried if weight < found.weight]
    above = [weight for weight in found.tried if weight > found.weight]
    assert below and above  # the best one has neighbours
    assert len(function.asked) == len(set(function.asked))  # none is tried twice
    assert found.tried == {weight: function.score(weight) for weight in sorted(function.asked)}


@pytest.mark.parametrize(("best", "expected"), [(1e-4, 1e-3), (1e3, 1.0)])
def test_it_ends_at_a_bound_and_says_so(best: float, expected: float) -> None:
    function = Counting(best)
    found = search_weight(function, start=0.01, bounds=(1e-3, 1.0))
    assert found.weight == expected and found.at_bound
    assert all(1e-3 <= weight <= 1 for weight in function.asked)


def test_an_interrupted_search_goes_on_and_ends_the_same() -> None:
    whole = Counting(0.3)
    expected = search_weight(whole, start=0.01, bounds=(1e-5, 10))

    class Interrupted(Counting):
        def __call__(self, weights: Sequence[float]) -> list[float]:
            if len(self.asked) > 4:
                raise KeyboardInterrupt
            return super().__call__(weights)

    first, second = Interrupted(0.3), Counting(0.3)
    with pytest.raises(KeyboardInterrupt):
        search_weight(first, start=0.01, bounds=(1e-5, 10))
    known = {weight: first.score(weight) for weight in first.asked}
    assert search_weight(second, start=0.01, bounds=(1e-5, 10), known=known) == expected
    assert first.asked + second.asked == whole.asked


def test_of_equal_scores_the_smallest_weight_is_taken_and_nan_never() -> None:
    def flat(weights: Sequence[float]) -> list[float]:
        return [math.nan if weight < 0.01 else 1.0 for weight in weights]

    assert search_weight(flat, start=0.01, bounds=(1e-3, 1)).weight == 0.01
    with pytest.raises(ValueError, match="objective must be finite"):
        search_weight(lambda weights: [math.nan] * len(weights), start=0.01, bounds=(1e-3, 1))


def test_bad_arguments_are_named() -> None:
    for start, bounds in ((0.01, (0, 1)), (2, (0.1, 1)), (math.nan, (0.1, 1)), (0.2, (0.1, math.inf))):
        with pytest.raises(ValueError, match="start must lie within"):
            search_weight(Counting(1), start=start, bounds=bounds)
    with pytest.raises(ValueError, match="factor must be"):
        search_weight(Counting(1), start=1, bounds=(0.1, 10), factor=1)
    with pytest.raises(ValueError, match="at least 1"):
        evenly_spaced(0, 3)


@pytest.mark.parametrize(("length", "count"), [(10, 3), (7, 7), (100, 12), (3, 5), (5, 1)])
def test_slices_are_spread_evenly(length: int, count: int) -> None:
    chosen = evenly_spaced(length, count)
    assert len(chosen) == len(set(chosen)) == min(length, count)
    assert all(0 <= index < length for index in chosen)
    gaps = np.diff([-1 - chosen[0], *chosen, length + (length - 1 - chosen[-1])])
    inner = gaps[1:-1]
    assert not len(inner) or inner.max() - inner.min() <= 1
    assert abs(chosen[0] - (length - 1 - chosen[-1])) <= 1
