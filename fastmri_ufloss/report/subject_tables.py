"""Methods compared by subject in several scores: means, and differences from one of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastmri_ufloss.metrics.paired import MethodComparison, bootstrap_interval, compare_methods, holm
from fastmri_ufloss.report.paired_table import ALPHA, method_rows, p_value_note

__all__ = ["comparison_rows", "mean_rows", "scores_by_subject", "statistics_notes"]

SubjectScores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By score, method and subject."""


def scores_by_subject(
    rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by metric, method and subject, the means over the subject's volumes.

    Args:
        rows: of each volume and method, with ``subject``, ``method`` and the scores; one that is None does not count.
        metrics: names of the scores.
    """
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for metric in metrics:
        for row in rows:
            if row.get(metric) is not None:
                of_method = found.setdefault(metric, {}).setdefault(row["method"], {})
                of_method.setdefault(row["subject"], []).append(row[metric])
    return {
        metric: {m: {s: float(np.mean(values)) for s, values in of.items()} for m, of in methods.items()}
        for metric, methods in found.items()
    }


def mean_rows(
    scores: SubjectScores, *, known: Mapping[str, Mapping[str, tuple[float, float, float]]] | None = None
) -> list[dict[str, Any]]:
    """A row for each score and method: mean and standard deviation over subjects, and the mean's 95% interval.

    The interval is by bootstrap over subjects; the standard deviation has n - 1 in its denominator.

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
            is_spread = len(values) > 1 and bool(np.isfinite(values).all())
            std = float(np.std(values, ddof=1)) if is_spread else math.nan
            numbers = {"mean": mean, "std": std, "95% from": low, "95% to": high}
            plain = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
            rows.append({"metric": metric, "method": method, "subjects": len(values), **plain})
    return rows


def comparison_rows(
    scores: SubjectScores, larger_is_better: Mapping[str, bool], *, baseline: str
) -> list[dict[str, Any]]:
    """A row for each score and method but the baseline: the difference from the baseline, paired by subject.

    All comparisons are one family for Holm's correction. The interval of the difference is by bootstrap over
    subjects. Left out are scores with fewer than two subjects, and of methods that lack one or are infinite, as the
    PSNR of images that equal their reference.

    Args:
        scores: see `scores_by_subject`.
        larger_is_better: of each score, in the order of the rows.
        baseline: name of a method.

    Returns:
        Rows of `fastmri_ufloss.report.paired_table.method_rows`, with ``metric`` before them.
    """
    metrics: list[str] = []
    comparisons: list[MethodComparison] = []
    for metric, larger in larger_is_better.items():
        methods = scores.get(metric, {})
        for method in methods:
            pair = {baseline: methods.get(baseline, {}), method: methods[method]}
            values = [value for by_subject in pair.values() for value in by_subject.values()]
            is_paired = set(pair[baseline]) == set(pair[method])
            if len(pair) < 2 or not is_paired or len(pair[baseline]) < 2 or not np.isfinite(values).all():
                continue
            (comparison,) = compare_methods(pair, larger_is_better=larger, baseline=baseline)
            first, second = pair.values()
            low, high = bootstrap_interval([second[subject] - first[subject] for subject in first])
            comparisons.append(comparison._replace(difference=comparison.difference._replace(low=low, high=high)))
            metrics.append(metric)
    adjusted = holm([comparison.difference.p for comparison in comparisons])
    family = [comparison._replace(adjusted_p=p) for comparison, p in zip(comparisons, adjusted, strict=True)]
    return [{"metric": metric, **row} for metric, row in zip(metrics, method_rows(family), strict=True)]


def statistics_notes(
    scores: SubjectScores, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], baseline: str
) -> list[str]:
    """What is to be said of the comparisons, each once.

    Args:
        scores: see `scores_by_subject`.
        rows: of `comparison_rows`.
        metrics: the scores that are tested.
        baseline: name of a method.
    """
    notes = []
    num_tests = sum(row["p"] is not None for row in rows)
    for metric in metrics:
        methods = scores.get(metric, {})
        count = len(methods.get(baseline, {}))
        if count == 1:
            notes.append(f"{metric}: a single subject, so there are means, but no interval and no test.")
        elif count and len(methods) > 1:
            smallest = min(1.0, num_tests * 2.0 ** (1 - count))  # all differences have one sign
            family = f"Of {num_tests} comparisons of {count} subjects none can have a p (Holm) below {smallest:.2g}."
            notes.append(p_value_note(count) or (family if smallest > ALPHA else ""))
        for method, values in methods.items():
            if not np.isfinite(list(values.values())).all():
                notes.append(f"{metric} of {method} is infinite: it equals the reference, and is not compared.")
    return [note for note in dict.fromkeys(notes) if note]


def _mean(values: Sequence[float]) -> tuple[float, float, float]:
    if not np.isfinite(values).all():
        return float(np.mean(values)), math.nan, math.nan
    return float(np.mean(values)), *bootstrap_interval(values)
