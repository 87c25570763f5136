import math

import numpy as np
import pytest
from scipy import stats

from fastmri_ufloss.metrics.paired import paired_difference


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
    [([], [], "at least one"), ([1.0], [1.0, 2.0], r"\(1,\) and \(2,\)"), ([1.0], [math.inf], "must be finite")],
)
def test_bad_input_is_named(first: list[float], second: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(first, second, larger_is_better=True)
