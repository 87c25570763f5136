"""Methods compared by subject in several scores: means, differences paired by subject, and SIS over images."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastmri_ufloss.metrics.paired import PairedDifference, bootstrap_interval, holm, paired_difference
from fastmri_ufloss.metrics.semantic_interpretability import SegmentedImages

__all__ = [
    "SegmentationRows",
    "comparison_rows",
    "mean_rows",
    "p_value_note",
    "paired_rows",
    "plain",
    "scores_by_subject",
    "statistics_notes",
]

ALPHA = 0.05
MIN_DICE = 0.5  # of a segmenter on the references
Row = dict[str, Any]
SubjectScores = dict[str, dict[str, dict[str, float]]]
"""By score, method and subject."""


def scores_by_subject(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> SubjectScores:
    """Means over the volumes of each subject, by metric, method and subject, of rows of a volume and a method."""
    scores: SubjectScores = {}
    for metric in metrics:
        values = defaultdict(list)
        for row in rows:
            if row.get(metric) is not None:
                values[row["method"], row["subject"]].append(row[metric])
        for (method, subject), of_subject in values.items():
            scores.setdefault(metric, {}).setdefault(method, {})[subject] = float(np.mean(of_subject))
    return scores


def mean_rows(
    scores: SubjectScores, *, known: Mapping[str, Mapping[str, tuple[float, float, float]]] | None = None
) -> list[Row]:
    """A row for each score and method: mean, standard deviation (n - 1) and 95% interval by bootstrap over subjects.

    Args:
        scores: of `scores_by_subject`.
        known: value and ends of the interval, by score and method, where they are not the mean's.
    """
    rows = []
    for metric, methods in scores.items():
        for method, by_subject in methods.items():
            values = np.array(list(by_subject.values()))
            is_finite = bool(np.isfinite(values).all())
            std = float(values.std(ddof=1)) if is_finite and len(values) > 1 else math.nan
            ends = bootstrap_interval(values) if is_finite else (math.nan, math.nan)
            mean, low, high = (known or {}).get(metric, {}).get(method) or (float(values.mean()), *ends)
            numbers = {"mean": mean, "std": std, "95% from": low, "95% to": high}
            rows.append(plain({"metric": metric, "method": method, "subjects": len(values), **numbers}))
    return rows


def comparison_rows(scores: SubjectScores, larger_is_better: Mapping[str, bool], *, baseline: str) -> list[Row]:
    """A row for each score and method but the baseline: the difference from the baseline, paired by subject.

    All comparisons are one family for Holm's correction. The interval of the difference is by bootstrap over
    subjects. Left out are scores with fewer than two subjects, and methods that lack a subject or are infinite, as
    the PSNR of images that equal their reference.

    Args:
        scores: of `scores_by_subject`.
        larger_is_better: by score, in the order of the rows.
    """
    comparisons: list[tuple[str, str, PairedDifference]] = []
    for metric, larger in larger_is_better.items():
        methods = scores.get(metric, {})
        first = methods.get(baseline, {})
        for method, second in methods.items():
            is_finite = np.isfinite([*first.values(), *second.values()]).all()
            if method == baseline or set(first) != set(second) or len(first) < 2 or not is_finite:
                continue
            values = [[of_method[subject] for subject in sorted(first)] for of_method in (first, second)]
            paired = paired_difference(*values, larger_is_better=larger)
            low, high = bootstrap_interval([second[subject] - first[subject] for subject in first])
            comparisons.append((metric, method, paired._replace(low=low, high=high)))
    rows = []
    adjusted = holm([paired.p for _, _, paired in comparisons])
    for (metric, method, paired), p in zip(comparisons, adjusted, strict=True):
        more = {"p (Holm)": p, "effect size": paired.effect_size}
        columns = _paired_columns(paired, "mean of first", "mean of second", more)
        rows.append({"metric": metric, "first": baseline, "second": method, **columns})
    return rows


def paired_rows(
    first: tuple[str, Mapping[str, Mapping[str, float]]],
    second: tuple[str, Mapping[str, Mapping[str, float]]],
    larger_is_better: Mapping[str, bool],
) -> list[Row]:
    """A row for each metric: both means, second minus first with its 95% interval, Wilcoxon's p, who is better.

    Args:
        first, second: the name of a method, and its scores by subject and metric.
        larger_is_better: of each metric that is to be compared, in the order of the rows.

    Subjects that differ raise ValueError, and values as in `fastmri_ufloss.metrics.paired.paired_difference`.
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
    scores: SubjectScores, rows: Sequence[Row], metrics: Sequence[str], baseline: str
) -> Iterator[str]:
    """What is to be said of the comparisons of the tested metrics (rows of `comparison_rows`)."""
    num_tests = sum(row["p"] is not None for row in rows)
    for metric in metrics:
        methods = scores.get(metric, {})
        count = len(methods.get(baseline, {}))
        if count == 1:
            yield f"{metric}: a single subject, so there are means, but no interval and no test."
        elif count and len(methods) > 1:
            smallest = _smallest_p(count, num_tests)
            if note := p_value_note(count):
                yield note
            elif smallest > ALPHA:
                yield f"With {num_tests} comparisons of {count} subjects no p (Holm) can be below {smallest:.2g}."
        for method, values in methods.items():
            if not np.isfinite(list(values.values())).all():
                yield f"{metric} of {method} is infinite: it equals the reference, and is not compared."


def plain(value: Any) -> Any:
    """A value for JSON: None stands for what is infinite or does not exist, such as the interval of one subject."""
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _paired_columns(paired: PairedDifference, first: str, second: str, more: Mapping[str, float]) -> Row:
    numbers = {first: paired.first, second: paired.second, "difference": paired.difference}
    numbers |= {"95% from": paired.low, "95% to": paired.high, "p": paired.p, **more}
    return {**plain(numbers), "better in": f"{paired.better} of {paired.subjects}"}


def _smallest_p(count: int, num_tests: int = 1) -> float:
    return min(1.0, num_tests * 2.0 ** (1 - count))  # all differences have one sign


class SegmentationRows:
    """What a segmenter has found in all volumes, whose numbers `score_files` gives.

    Attributes:
        classes: that any image has; none if there is no segmenter, or the segmenter finds nothing of a class on the
            reference, as ``notes`` say.
        sis: by volume, slice (None of the volume) and method.
    """

    def __init__(self, numbers: Mapping[str, Mapping[str, Any]], methods: Sequence[str], reference: str) -> None:
        rows = [(name, row) for name, of_volume in numbers.items() for row in of_volume["slices"]]
        self._labels = sorted({int(key[5:]) for _, row in rows for key in row if key.startswith("Dice ")})
        self._places = [(name, row["slice"]) for name, row in rows if row["method"] == reference]
        self._dice: dict[str, np.ndarray] = {}  # (images, labels), nan where the image lacks the class
        for source in (reference, *methods):
            of_source = [row for _, row in rows if row["method"] == source]
            dice = [[row[f"Dice {label}"] for label in self._labels] for row in of_source]
            self._dice[source] = np.array(dice, dtype=float)
        self._methods, self._reference = methods, reference
        self.classes: Sequence[int] = []
        self.sis: dict[tuple[str, int | None, str], float] = {}
        self.notes: list[str] = []
        if self._labels:
            self._compare({method: self._images(method, numbers) for method in methods})

    def _compare(self, images: Mapping[str, SegmentedImages]) -> None:
        """Fill the attributes."""
        (first, *_) = images.values()
        if not first.classes:
            self.notes.append("Dice and SIS are left out: the segmentations are nothing but background.")
            return
        try:
            dice = first.segmenter_dice()
        except ValueError as error:  # a segmenter that finds nothing: the other scores are not lost for it
            self.notes.append(f"Dice and SIS are left out: {error}.")
            return
        self.classes = first.classes
        for method, of_method in images.items():
            self.sis |= {(volume, None, method): value for volume, value in of_method.per_volume().items()}
            values = of_method.per_image().tolist()
            self.sis |= {(*place, method): value for place, value in zip(self._places, values, strict=True)}
        if absent := [str(label) for label in self._labels if label not in dice]:
            self.notes.append(f"Left out, since no image has it: class {', '.join(absent)}.")
        texts = ", ".join(f"{value:.4f} of class {label}" for label, value in dice.items())
        self.notes.append(f"The segmenter's own Dice on the references: {texts}.")
        poor = "The segmenter has a Dice of only {:.2f} on the references for class {}: SIS says little of it."
        self.notes += [poor.format(value, label) for label, value in dice.items() if value < MIN_DICE]

    def sis_over_images(self, subjects: Mapping[str, str]) -> tuple[dict[str, tuple[float, float, float]], list[str]]:
        """SIS over all images of some volumes with its interval over subjects, by method, and what is wrong."""
        values: dict[str, tuple[float, float, float]] = {}
        for method in self._methods if self.classes else ():
            images = self._images(method, subjects)
            if not images.classes:
                return {}, ["SIS is left out: no image has a class."]
            try:
                value = float(np.mean(list(images.scores().values())))
                values[method] = (value, *images.interval(subjects))
            except ValueError as error:
                return {}, [f"SIS is left out: {error}."]
        return values, []

    def _images(self, method: str, volumes: Iterable[str]) -> SegmentedImages:
        """Dice of all slices of some volumes, of the classes that one of the slices has."""
        names = np.array([name for name, _ in self._places])
        chosen = np.isin(names, list(volumes))
        output, target = (self._dice[source][chosen] for source in (method, self._reference))
        present = ~np.isnan(target).all(axis=0)
        classes = np.array(self._labels)[present].tolist()
        return SegmentedImages(classes, names[chosen], output[:, present], target[:, present])
