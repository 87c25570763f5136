import math

import numpy as np
import pytest
from scipy import stats

from fastmri_ufloss.metrics.paired import LEVEL, NUM_RESAMPLES, bootstrap_interval, holm, paired_difference


def test_agrees_with_scipys_paired_tests() -> None:
    generator = np.random.default_rng(0)
    first = generator.random(9)
    second = first + generator.normal(0.1, 0.1, 9)
    found = paired_difference(first, second, larger_is_better=True)
    interval = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(interval))
    assert found.p == pytest.approx(stats.wilcoxon(second, first).pvalue)
    assert found.difference == pytest.approx(found.second - found.first)
    assert found.second == pytest.approx(second.mean())
    assert found.better == np.sum(second > first) and found.subjects == 9


def test_of_an_error_less_is_better_and_equal_is_not() -> None:
    values = ([1.0, 2.0, 3.0], [0.5, 2.0, 4.0])
    assert paired_difference(*values, larger_is_better=False).better == 1
    assert paired_difference(*values, larger_is_better=True).better == 1
    assert paired_difference(*values[::-1], larger_is_better=False).difference == pytest.approx(-1 / 6)


def test_what_one_subject_or_no_difference_can_tell() -> None:
    one = paired_difference([1.0], [2.0], larger_is_better=True)
    assert one.difference == 1 and math.isnan(one.low) and math.isnan(one.high) and one.p == 1
    equal = paired_difference([1.0, 2.0], [1.0, 2.0], larger_is_better=True)
    assert (equal.low, equal.high, equal.better) == (0, 0, 0) and math.isnan(equal.p)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [([], [], "at least one"), ([1.0], [1.0, 2.0], r"\[\(1,\), \(2,\)\]"), ([1.0], [math.inf], "must be finite")],
)
def test_bad_input_is_named(first: list[float], second: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(first, second, larger_is_better=True)


# p-values and what Holm's method makes of them, as R's p.adjust(p, method = "holm") does
HOLM = [
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
    ([0.001, 0.008, 0.039, 0.041, 0.042], [0.005, 0.032, 0.117, 0.117, 0.117]),
    ([0.9, 0.6, 0.02], [1.0, 1.0, 0.06]),
    ([0.03, 0.03], [0.06, 0.06]),
    ([0.2], [0.2]),
    ([], []),
]


@pytest.mark.parametrize(("p_values", "adjusted"), HOLM)
def test_holm_adjusts_as_r_does(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)
    with_nan = holm([math.nan, *p_values, math.nan])
    assert math.isnan(with_nan[0]) and math.isnan(with_nan[-1]) and with_nan[1:-1] == pytest.approx(adjusted)


def test_holm_agrees_with_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(0).random(20) ** 3
    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])


def test_holm_leaves_its_argument_alone() -> None:
    p_values = np.array([0.01, 0.04, 0.03])
    assert holm(p_values) == holm(p_values) != p_values.tolist()


@pytest.mark.parametrize("p_values", [[-0.1, 0.5], [1.1]])
def test_holm_takes_probabilities(p_values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"p_values must be in 0 .. 1, got \["):
        holm(p_values)


@pytest.mark.parametrize(
    ("differences", "p", "effect_size"),
    [
        ([1, 2, 3, 4, 5, 6], 2 / 64, 1.0),  # one of the 64 patterns of signs at either end
        ([-1, -2, -3, -4, -5, -6], 2 / 64, -1.0),
        ([-1, 2, 3, 4, 5, 6], 4 / 64, 19 / 21),  # W- is 0 or 1 in two patterns
        ([0, -1, 2, 3, 4, 5, 6], 4 / 64, 19 / 21),  # who does not differ does not count
        ([-2, 1, 3], 6 / 8, 2 / 6),
    ],
)
def test_p_is_exact_for_few_subjects_and_so_is_the_effect_size(
    differences: list[int], p: float, effect_size: float
) -> None:
    found = paired_difference([0.0] * len(differences), differences, larger_is_better=False)
    assert found.effect_size == pytest.approx(effect_size)
    if 0 not in differences:  # with zeros older SciPy takes the normal approximation
        assert found.p == pytest.approx(p)


def test_effect_size_shares_ranks_between_equal_differences() -> None:
    # |differences| 1, 1, 2: ranks 1.5, 1.5, 3
    assert paired_difference([0, 0, 0], [1, -1, 2], larger_is_better=True).effect_size == pytest.approx(3 / 6)
    assert math.isnan(paired_difference([1.0, 2.0], [1.0, 2.0], larger_is_better=True).effect_size)
    assert paired_difference([0.0], [1e-9], larger_is_better=True).effect_size == 1


def test_bootstrap_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).gamma(1.0, size=12)
    drawn = {"confidence_level": LEVEL, "n_resamples": NUM_RESAMPLES, "random_state": np.random.default_rng(0)}
    found = stats.bootstrap((values,), np.mean, paired=True, vectorized=True, **drawn).confidence_interval
    low, high = bootstrap_interval(values)
    assert (low, high) == pytest.approx(tuple(found))
    assert low < values.mean() < high and bootstrap_interval(values) == (low, high)
    doubled = bootstrap_interval(values, 2 * values, statistic=lambda a, b, axis: b.sum(axis) / a.sum(axis))
    assert doubled == pytest.approx((2, 2))  # a subject is drawn with all its numbers


def test_bootstrap_where_bca_is_not_defined() -> None:
    assert bootstrap_interval([0.25, 0.25, 0.25]) == (0.25, 0.25)
    assert all(math.isnan(end) for end in bootstrap_interval([1.0]))

    def of_those_above(values: np.ndarray, axis: int) -> np.ndarray:  # 0 / 0 where there is none
        above = values > 0
        return np.where(above, values, 0).sum(axis) / above.sum(axis)

    low, high = bootstrap_interval([0.0, 0.0, 3.0], statistic=of_those_above)
    assert (low, high) == (3, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "values must hold a number of each subject"),
        ([[]], r"at least one, got \[\(0,\)\]"),
        ([[1.0, 2.0], [1.0]], r"got \[\(2,\), \(1,\)\]"),
        ([[1.0, math.nan]], "values must be finite"),
    ],
)
def test_bad_input_of_the_bootstrap_is_named(values: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(*values)
