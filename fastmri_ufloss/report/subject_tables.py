"""Methods compared by subject in several scores: means, and differences paired by subject."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastmri_ufloss.metrics.paired import (
    MethodComparison,
    PairedDifference,
    bootstrap_interval,
    compare_methods,
    holm,
    paired_difference,
)

__all__ = [
    "comparison_rows",
    "mean_rows",
    "method_rows",
    "p_value_note",
    "paired_rows",
    "scores_by_subject",
    "statistics_notes",
]

ALPHA = 0.05
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
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for metric in metrics:
        values: dict[str, dict[str, list[float]]] = {}
        for row in rows:
            if row.get(metric) is not None:
                values.setdefault(row["method"], {}).setdefault(row["subject"], []).append(row[metric])
        if values:
            scores[metric] = {m: {s: float(np.mean(v)) for s, v in of.items()} for m, of in values.items()}
    return scores


def mean_rows(
    scores: SubjectScores, *, known: Mapping[str, Mapping[str, tuple[float, float, float]]] | None = None
) -> list[dict[str, Any]]:
    """A row for each score and method: mean and standard deviation over subjects, and the mean's 95% interval.

    The interval is by bootstrap over subjects; the standard deviation has n - 1 in its denominator.

    Args:
        scores: see `scores_by_subject`.
        known: value and ends of the interval, by score and method, where they are not the mean's.

    Returns:
        Rows for JSON: None stands for what is infinite or does not exist, such as the interval of a single subject.
    """
    rows = []
    for metric, methods in scores.items():
        for method, by_subject in methods.items():
            values = list(by_subject.values())
            mean, low, high, std = float(np.mean(values)), math.nan, math.nan, math.nan
            if np.isfinite(values).all():
                low, high = bootstrap_interval(values)
                std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            mean, low, high = (known or {}).get(metric, {}).get(method) or (mean, low, high)
            numbers = _plain({"mean": mean, "std": std, "95% from": low, "95% to": high})
            rows.append({"metric": metric, "method": method, "subjects": len(values), **numbers})
    return rows


def comparison_rows(
    scores: SubjectScores, larger_is_better: Mapping[str, bool], *, baseline: str
) -> list[dict[str, Any]]:
    """A row for each score and method but the baseline: the difference from the baseline, paired by subject.

    All comparisons are one family for Holm's correction. The interval of the difference is by bootstrap over
    subjects. Left out are scores with fewer than two subjects, and methods that lack one or are infinite, as the
    PSNR of images that equal their reference.

    Args:
        scores: see `scores_by_subject`.
        larger_is_better: of each score, in the order of the rows.
        baseline: name of a method.

    Returns:
        Rows of `method_rows`, with ``metric`` before them.
    """
    metrics: list[str] = []
    comparisons: list[MethodComparison] = []
    for metric, larger in larger_is_better.items():
        methods = scores.get(metric, {})
        first = methods.get(baseline, {})
        for method, second in methods.items():
            is_finite = np.isfinite([*first.values(), *second.values()]).all()
            if method == baseline or set(first) != set(second) or len(first) < 2 or not is_finite:
                continue
            pair = {baseline: first, method: second}
            (comparison,) = compare_methods(pair, larger_is_better=larger, baseline=baseline)
            low, high = bootstrap_interval([second[subject] - first[subject] for subject in first])
            comparisons.append(comparison._replace(difference=comparison.difference._replace(low=low, high=high)))
            metrics.append(metric)
    adjusted = holm([comparison.difference.p for comparison in comparisons])
    family = [comparison._replace(adjusted_p=p) for comparison, p in zip(comparisons, adjusted, strict=True)]
    return [{"metric": metric, **row} for metric, row in zip(metrics, method_rows(family), strict=True)]


def method_rows(comparisons: Sequence[MethodComparison]) -> list[dict[str, Any]]:
    """A row for each comparison of `fastmri_ufloss.metrics.paired.compare_methods`, like those of `paired_rows`.

    The two methods go by name, and after Wilcoxon's p follow Holm's adjusted p and the rank-biserial correlation.
    """
    rows = []
    for first, second, paired, adjusted_p in comparisons:
        more = {"p (Holm)": adjusted_p, "effect size": paired.effect_size}
        numbers = _paired_columns(paired, "mean of first", "mean of second", more)
        rows.append({"first": first, "second": second, **numbers})
    return rows


def paired_rows(
    first: tuple[str, Mapping[str, Mapping[str, float]]],
    second: tuple[str, Mapping[str, Mapping[str, float]]],
    larger_is_better: Mapping[str, bool],
) -> list[dict[str, Any]]:
    """A row for each metric: both means, second minus first with its 95% interval, Wilcoxon's p, who is better.

    Args:
        first, second: the name of a method, and its scores by subject and metric.
        larger_is_better: of each metric that is to be compared, in the order of the rows.

    Returns:
        Rows for `fastmri_ufloss.report.format_table` and for JSON: None stands for what does not exist, such as the
        interval of a single subject.

    Raises:
        ValueError: if the subjects of the two differ; and as `fastmri_ufloss.metrics.paired.paired_difference`.
    """
    (first_name, a), (second_name, b) = first, second
    if set(a) != set(b):
        raise ValueError(f"both methods must have the same subjects, got {sorted(a)} and {sorted(b)}")
    rows = []
    for metric, larger in larger_is_better.items():
        values = [[float(scores[subject][metric]) for subject in sorted(a)] for scores in (a, b)]
        paired = paired_difference(*values, larger_is_better=larger)
        rows.append({"metric": metric, **_paired_columns(paired, first_name, second_name, {})})
    return rows


def p_value_note(count: int) -> str:
    """What to say of Wilcoxon's p of so many subjects: nothing, unless they are too few."""
    smallest = _smallest_p(count)
    if smallest <= ALPHA:
        return ""
    return (
        f"Too few subjects for Wilcoxon's test ({count}): its p cannot fall below {smallest:.2g}, however large the "
        "differences are."
    )


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
            smallest = _smallest_p(count, num_tests)
            family = f"With {num_tests} comparisons of {count} subjects no p (Holm) can be below {smallest:.2g}."
            notes.append(p_value_note(count) or (family if smallest > ALPHA else ""))
        for method, values in methods.items():
            if not np.isfinite(list(values.values())).all():
                notes.append(f"{metric} of {method} is infinite: it equals the reference, and is not compared.")
    return [note for note in dict.fromkeys(notes) if note]


def _paired_columns(
    paired: PairedDifference, first: str, second: str, more: Mapping[str, float]
) -> dict[str, float | str | None]:
    numbers = {first: paired.first, second: paired.second, "difference": paired.difference}
    numbers |= {"95% from": paired.low, "95% to": paired.high, "p": paired.p, **more}
    return {**_plain(numbers), "better in": f"{paired.better} of {paired.subjects}"}


def _plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def _smallest_p(count: int, num_tests: int = 1) -> float:
    return min(1.0, num_tests * 2.0 ** (1 - count))  # all differences have one sign
