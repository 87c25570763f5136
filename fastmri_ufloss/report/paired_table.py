"""Methods side by side, subject by subject, in words and numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastmri_ufloss.metrics.paired import MethodComparison, PairedDifference, paired_difference

__all__ = ["method_rows", "p_value_note", "paired_rows"]

ALPHA = 0.05


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
        Rows for `fastmri_ufloss.report.format_table` and for JSON: a number that there is not, such as the interval
        of one subject, is None.

    Raises:
        ValueError: if the subjects of the two differ; and as `fastmri_ufloss.metrics.paired.paired_difference`.
    """
    (first_name, a), (second_name, b) = first, second
    if set(a) != set(b):
        raise ValueError(f"both methods must have the same subjects, got {sorted(a)} and {sorted(b)}")
    subjects = sorted(a)
    rows = []
    for metric, larger in larger_is_better.items():
        values = [[float(scores[subject][metric]) for subject in subjects] for scores in (a, b)]
        rows.append(_row(metric, first_name, second_name, paired_difference(*values, larger_is_better=larger)))
    return rows


def method_rows(comparisons: Sequence[MethodComparison]) -> list[dict[str, Any]]:
    """A row for each comparison of `fastmri_ufloss.metrics.paired.compare_methods`.

    Returns:
        Rows like those of `paired_rows`, with the two methods by name and, after Wilcoxon's p, Holm's adjusted p and
        the rank-biserial correlation.
    """
    rows = []
    for first, second, found, adjusted_p in comparisons:
        numbers = _numbers("mean of first", "mean of second", found)
        numbers |= {"p (Holm)": adjusted_p, "effect size": found.effect_size}
        rows.append({"first": first, "second": second, **_plain(numbers), "better in": _better_in(found)})
    return rows


def _row(metric: str, first_name: str, second_name: str, found: PairedDifference) -> dict[str, Any]:
    return {"metric": metric, **_plain(_numbers(first_name, second_name, found)), "better in": _better_in(found)}


def _numbers(first_name: str, second_name: str, found: PairedDifference) -> dict[str, float]:
    return {
        first_name: found.first,
        second_name: found.second,
        "difference": found.difference,
        "95% from": found.low,
        "95% to": found.high,
        "p": found.p,
    }


def _plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}


def _better_in(found: PairedDifference) -> str:
    return f"{found.better} of {found.subjects}"


def p_value_note(count: int) -> str:
    """What to say of Wilcoxon's p of so many subjects: nothing, unless they are too few."""
    smallest = min(1.0, 2.0 ** (1 - count))  # all differences have one sign
    if smallest <= ALPHA:
        return ""
    return (
        f"Too few subjects for Wilcoxon's test ({count}): its p cannot fall below {smallest:.2g}, however large the "
        "differences are."
    )
