"""Methods compared by subject in several scores: means, and differences from one of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastmri_ufloss.metrics.paired import MethodComparison, bootstrap_interval, compare_methods, holm
from fastmri_ufloss.report.paired_table import method_rows

__all__ = ["comparison_rows", "mean_rows", "scores_by_subject"]

SubjectScores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By score, method and subject."""


def scores_by_subject(
    rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], subjects: Mapping[str, str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by metric, method and subject, the means over the subject's volumes.

    Args:
        rows: of each volume and method, with ``volume``, ``method`` and the scores; one that is None does not count.
        metrics: names of the scores.
        subjects: the subject of each volume by its name.
    """
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for metric in metrics:
        for row in rows:
            if row[metric] is not None:
                of_method = found.setdefault(metric, {}).setdefault(row["method"], {})
                of_method.setdefault(subjects[row["volume"]], []).append(row[metric])
    return {
        metric: {m: {s: float(np.mean(values)) for s, values in of.items()} for m, of in methods.items()}
        for metric, methods in found.items()
    }


def mean_rows(
    scores: SubjectScores, *, known: Mapping[str, Mapping[str, tuple[float, float, float]]] | None = None
) -> list[dict[str, Any]]:
    """A row for each score and method: the mean over subjects and the ends of its 95% interval by bootstrap.

    Args:
        scores: see `scores_by_subject`.
        known: value and ends of the interval, by score and method, where they are not the mean's.

    Returns:
        Rows for JSON: a number that there is not, such as the interval of one subject, or that is infinite is None.
    """
    rows = []
    for metric, methods in scores.items():
        for method, by_subject in methods.items():
            values = list(by_subject.values())
            mean, low, high = (known or {}).get(metric, {}).get(method) or _mean(values)
            numbers = {"mean": mean, "95% from": low, "95% to": high}
            plain = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
            rows.append({"metric": metric, "method": method, "subjects": len(values), **plain})
    return rows


def comparison_rows(
    scores: SubjectScores, larger_is_better: Mapping[str, bool], *, baseline: str
) -> list[dict[str, Any]]:
    """A row for each score and method but the baseline: the difference from the baseline, paired by subject.

    All comparisons are one family for Holm's correction. Left out are scores with fewer than two subjects, and those
    that are infinite for a method, as the PSNR of images that equal their reference.

    Args:
        scores: see `scores_by_subject`.
        larger_is_better: of each score, in the order of the rows.
        baseline: name of a method.

    Returns:
        Rows of `fastmri_ufloss.report.paired_table.method_rows`, with ``metric`` before them.

    Raises:
        ValueError: if the baseline is none of the methods, and as `compare_methods`.
    """
    metrics: list[str] = []
    comparisons: list[MethodComparison] = []
    for metric, larger in larger_is_better.items():
        methods = scores.get(metric, {})
        if methods and baseline not in methods:
            raise ValueError(f"baseline must be one of {', '.join(methods)}, got {baseline!r}")
        for method in methods:
            pair = {baseline: methods[baseline], method: methods[method]}
            values = [value for by_subject in pair.values() for value in by_subject.values()]
            if len(pair) < 2 or len(pair[baseline]) < 2 or not np.isfinite(values).all():
                continue
            comparisons += compare_methods(pair, larger_is_better=larger, baseline=baseline)
            metrics.append(metric)
    adjusted = holm([comparison.difference.p for comparison in comparisons])
    family = [comparison._replace(adjusted_p=p) for comparison, p in zip(comparisons, adjusted, strict=True)]
    return [{"metric": metric, **row} for metric, row in zip(metrics, method_rows(family), strict=True)]


def _mean(values: Sequence[float]) -> tuple[float, float, float]:
    if not np.isfinite(values).all():
        return float(np.mean(values)), math.nan, math.nan
    return float(np.mean(values)), *bootstrap_interval(values)
