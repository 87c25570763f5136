"""Methods compared by subject in several scores: means, differences paired by subject, and SIS over images."""

import math
from collections.abc import Iterable, Mapping, Sequence
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
SubjectScores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By score, method and subject."""


def scores_by_subject(
    rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Means over the volumes of each subject, by metric, method and subject, of rows of a volume and a method."""
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
    """A row for each score and method: mean, standard deviation (n - 1) and 95% interval by bootstrap over subjects.

    Args:
        scores: of `scores_by_subject`.
        known: value and ends of the interval, by score and method, where they are not the mean's.
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
            numbers = {"mean": mean, "std": std, "95% from": low, "95% to": high}
            rows.append(plain({"metric": metric, "method": method, "subjects": len(values), **numbers}))
    return rows


def comparison_rows(
    scores: SubjectScores, larger_is_better: Mapping[str, bool], *, baseline: str
) -> list[dict[str, Any]]:
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
) -> list[dict[str, Any]]:
    """A row for each metric: both means, second minus first with its 95% interval, Wilcoxon's p, who is better.

    Args:
        first, second: the name of a method, and its scores by subject and metric.
        larger_is_better: of each metric that is to be compared, in the order of the rows.

    Raises:
        ValueError: if the subjects of the two differ, or as `fastmri_ufloss.metrics.paired.paired_difference`.
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
    """What is to be said of the comparisons of the tested metrics (rows of `comparison_rows`), each once."""
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


def plain(value: Any) -> Any:
    """A value for JSON: None stands for what is infinite or does not exist, such as the interval of one subject."""
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _paired_columns(paired: PairedDifference, first: str, second: str, more: Mapping[str, float]) -> dict[str, Any]:
    numbers = {first: paired.first, second: paired.second, "difference": paired.difference}
    numbers |= {"95% from": paired.low, "95% to": paired.high, "p": paired.p, **more}
    return {**plain(numbers), "better in": f"{paired.better} of {paired.subjects}"}


def _smallest_p(count: int, num_tests: int = 1) -> float:
    return min(1.0, num_tests * 2.0 ** (1 - count))  # all differences have one sign


class SegmentationRows:
    """What a segmenter has found in all volumes, whose numbers `score_files` gives.

    Attributes:
        classes: that any image has; none if there is no segmenter, or the segmenter finds nothing of a class on the
            references, as ``notes`` say.
        absent: classes that no image has.
        segmenter_dice: the segmenter's mean Dice on the main reference by class.
        sis: of a volume by (volume, method), and of a slice by (volume, slice, method).
    """

    def __init__(self, numbers: Mapping[str, Mapping[str, Any]], methods: Sequence[str]) -> None:
        self._numbers, self._methods = numbers, list(methods)
        rows = [row for of_volume in numbers.values() for row in of_volume["segmenter"]]
        classes = sorted({int(name.split()[1]) for row in rows for name in row if name.startswith("Dice ")})
        self.classes = _present(classes, rows)
        self.absent = [label for label in classes if label not in self.classes]
        self.notes: list[str] = []
        self.segmenter_dice: dict[int, float] = {}
        self.sis: dict[tuple[Any, ...], float] = {}
        if rows and not self.classes:
            self.notes.append("Dice and SIS are left out: the segmentations are nothing but background.")
        try:
            for method in self._methods if self.classes else ():
                images, slices = self._images(method, numbers, self.classes)
                self.segmenter_dice = images.segmenter_dice()
                self.sis |= {(volume, method): value for volume, value in images.per_volume().items()}
                places = zip(images.volume.tolist(), slices, images.per_image().tolist(), strict=True)
                self.sis |= {(*place, method): value for *place, value in places if value == value}
        except ValueError as error:  # a segmenter that finds nothing: the other scores are not lost for it
            self.notes.append(f"Dice and SIS are left out: {error}.")
            self.classes = []

    def sis_over_images(self, subjects: Mapping[str, str]) -> tuple[dict[str, tuple[float, float, float]], list[str]]:
        """SIS over all images of some volumes with its interval over subjects, by method, and what is wrong."""
        if not self.classes:
            return {}, []
        classes = _present(self.classes, (row for name in subjects for row in self._numbers[name]["segmenter"]))
        if not classes:
            return {}, ["SIS is left out: no image has a class."]
        values = {}
        for method in self._methods:
            images, _ = self._images(method, subjects, classes)
            try:
                value = float(np.mean(list(images.scores().values())))
                values[method] = (value, *images.interval(subjects))
            except ValueError as error:
                return {}, [f"SIS is left out: {error}."]
        return values, []

    def _images(
        self, method: str, volumes: Iterable[str], classes: Sequence[int]
    ) -> tuple[SegmentedImages, list[int]]:
        """Dice of all slices of some volumes, and the numbers of the slices."""
        rows: list[tuple[str, int, list[float | None], list[float | None]]] = []
        for name in volumes:
            outputs = {row["slice"]: row for row in self._numbers[name]["slices"] if row["method"] == method}
            for target in self._numbers[name]["segmenter"]:
                both = ([row[f"Dice {label}"] for label in classes] for row in (outputs[target["slice"]], target))
                rows.append((name, target["slice"], *both))
        names, slices, *dice = zip(*rows, strict=True)
        on_output, on_target = (np.array(values, dtype=float) for values in dice)  # None becomes nan
        return SegmentedImages(classes, np.array(names), on_output, on_target), list(slices)


def _present(classes: Iterable[int], rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """The classes that any image has."""
    rows = list(rows)
    return [label for label in classes if any(row[f"Dice {label}"] is not None for row in rows)]
