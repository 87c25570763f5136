"""Methods on the same subjects: the differences, and how sure they are."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fastmri_ufloss.checks import check, require

__all__ = ["LEVEL", "NUM_RESAMPLES", "PairedDifference", "bootstrap_interval", "holm", "paired_difference"]

LEVEL = 0.95
NUM_RESAMPLES = 2000


class PairedDifference(NamedTuple):
    """Second method minus first, for paired values.

    ``difference`` is the mean of the differences of ``subjects``, with the 95% confidence interval ``low`` ..
    ``high`` by Student's t, nan for fewer than two subjects; ``first`` and ``second`` are the means of the methods.
    ``p`` is of Wilcoxon's signed-rank test, two-sided, and ``better`` is how many subjects have a better value by the
    second method. ``effect_size`` is the matched-pairs rank-biserial correlation (W+ - W-) / (W+ + W-) from the sums
    of the ranks of positive and negative differences, in -1 .. 1 (Kerby, Comprehensive Psychology, 2014). Both are
    nan if no subject differs.
    """

    subjects: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    better: int
    effect_size: float


def paired_difference(first: Sequence[float], second: Sequence[float], *, larger_is_better: bool) -> PairedDifference:
    """Compare two methods by a score of each subject, in the same order.

    Average what belongs to one subject first. Raises ValueError if there is no subject, the numbers of subjects
    differ, or a value is not finite.
    """
    a, b = _of_subjects("first and second", first, second)
    differences = b - a
    mean = float(differences.mean())
    half = stats.t.ppf((1 + LEVEL) / 2, a.size - 1) * stats.sem(differences) if a.size > 1 else math.nan
    return PairedDifference(
        subjects=a.size,
        first=float(a.mean()),
        second=float(b.mean()),
        difference=mean,
        low=float(mean - half),
        high=float(mean + half),
        p=float(stats.wilcoxon(differences).pvalue) if differences.any() else math.nan,
        better=int(np.sum(differences > 0 if larger_is_better else differences < 0)),
        effect_size=_rank_biserial(differences),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family of tests, adjusted by Holm's step-down method, in the same order.

    The k-th smallest of m becomes the largest of (m - i + 1) p_i over i <= k, at most 1 (Holm, Scandinavian Journal
    of Statistics, 1979). NaN, of a test that could not be made, stays and is not counted in m; other values outside
    0 .. 1 raise ValueError.
    """
    p = np.array(p_values, dtype=float)
    made = np.flatnonzero(~np.isnan(p))
    check(p.ndim == 1 and bool(((p[made] >= 0) & (p[made] <= 1)).all()), "p_values", "in 0 .. 1", p.tolist())
    order = made[np.argsort(p[made])]
    p[order] = np.minimum(1, np.maximum.accumulate(np.arange(made.size, 0, -1) * p[order]))
    return p.tolist()


def bootstrap_interval(
    *values: Sequence[float] | np.ndarray, statistic: Callable[..., np.ndarray] = np.mean
) -> tuple[float, float]:
    """95% confidence interval of a statistic by bootstrap over subjects: SciPy's BCa.

    A subject is drawn with all its numbers, one of each of ``values``, (subjects,), on which ``statistic`` is called,
    with ``axis``. Where BCa is not defined, as for equal values or a statistic that is undefined without a certain
    subject, the interval lies between the percentiles of the resamples that have a value; the ends are nan for one
    subject. Raises ValueError if there is no subject, the numbers of values differ, or a value is not finite.
    """
    samples = _of_subjects("values", *values)
    if samples[0].size == 1:
        return math.nan, math.nan
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # SciPy warns where BCa is not defined
        result = stats.bootstrap(
            samples, statistic, paired=True, vectorized=True, n_resamples=NUM_RESAMPLES, confidence_level=LEVEL,
            method="BCa", random_state=np.random.default_rng(0),
        )  # fmt: skip
        ends = np.asarray(result.confidence_interval)
        if np.isnan(ends).any():
            ends = np.nanquantile(result.bootstrap_distribution, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(ends[0]), float(ends[1])


def _of_subjects(name: str, *values: Sequence[float] | np.ndarray) -> list[np.ndarray]:
    samples = [np.asarray(value, dtype=float) for value in values]
    shapes = [sample.shape for sample in samples]
    fits = len(set(shapes)) == 1 and len(shapes[0]) == 1 and shapes[0][0] > 0
    require(fits, f"{name} must hold a number of each subject, at least one", shapes)
    finite = all(np.isfinite(sample).all() for sample in samples)
    check(finite, name, "finite", "NaN or infinite values")
    return samples


def _rank_biserial(differences: np.ndarray) -> float:
    nonzero = differences[differences != 0]
    if not nonzero.size:
        return math.nan
    ranks = stats.rankdata(np.abs(nonzero))
    return float((np.sign(nonzero) * ranks).sum() / ranks.sum())
