"""Two methods on the same subjects: the difference, and how sure it is."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

__all__ = ["PairedDifference", "paired_difference"]

LEVEL = 0.95


class PairedDifference(NamedTuple):
    """Second method minus first, of paired values.

    Args:
        subjects: their number.
        first, second: means of the two methods.
        difference: mean of the differences.
        low, high: its 95% confidence interval by Student's t; nan for fewer than two subjects.
        p: of Wilcoxon's signed-rank test, two-sided; nan if no subject differs.
        better: subjects for which the second method is better.
    """

    subjects: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    better: int


def paired_difference(first: Sequence[float], second: Sequence[float], *, larger_is_better: bool) -> PairedDifference:
    """Compare two methods by a score of each subject.

    Slices, and volumes, of one subject are not independent: average them first.

    Args:
        first, second: a value of each subject, in the same order.
        larger_is_better: whether the score is to be large, as SSIM, or small, as an error.

    Raises:
        ValueError: if there is no subject, the numbers differ, or a value is not finite.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise ValueError(
            f"first and second must hold a value of each subject, at least one, got {a.shape} and {b.shape}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("first and second must be finite, got NaN or infinite values")
    differences = b - a
    mean, half = float(differences.mean()), math.nan
    if a.size > 1:
        half = float(stats.t.ppf((1 + LEVEL) / 2, a.size - 1) * stats.sem(differences))
    return PairedDifference(
        subjects=a.size,
        first=float(a.mean()),
        second=float(b.mean()),
        difference=mean,
        low=mean - half,
        high=mean + half,
        p=float(stats.wilcoxon(differences).pvalue) if differences.any() else math.nan,
        better=int(np.sum(differences > 0 if larger_is_better else differences < 0)),
    )
