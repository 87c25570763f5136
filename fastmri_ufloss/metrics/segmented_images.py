"""What a segmenter finds in many images, and the semantic interpretability that it amounts to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastmri_ufloss.metrics.paired import LEVEL, NUM_RESAMPLES, bootstrap_interval

__all__ = ["SegmentedImages"]


class SegmentedImages(NamedTuple):
    """Dice of a segmenter on outputs and on targets, of all images; for the score see `SemanticInterpretability`.

    Args:
        volume: what tells the volume of each image, such as its name, (images,).
        on_output: Dice on the outputs by class number, (images, num_classes); not read where the class is absent.
        on_target: Dice on the targets, the same shape.
        present: whether the image has the class, by the true segmentation, the same shape.
    """

    volume: np.ndarray
    on_output: np.ndarray
    on_target: np.ndarray
    present: np.ndarray

    def segmenter_dice(self, classes: Sequence[int]) -> dict[int, float]:
        """Mean Dice on the targets by class, what the scores are relative to; nan if there is no image.

        Raises:
            ValueError: if a class is in no image, or the segmenter finds nothing of it on the targets; also in the
                others below.
        """
        means = self._means(self.on_target, classes)
        for number, dice in means.items():
            if len(self.volume) and not self.present[:, number].any():
                raise ValueError(
                    f"class {number} is in none of the {len(self.volume)} images by their segmentation, and so has "
                    "no value; leave it out of classes"
                )
            if dice == 0:
                raise ValueError(
                    f"segmenter must find class {number} on the targets, got a Dice of 0 there: nothing could be "
                    "said of the outputs"
                )
        return means

    def scores(self, classes: Sequence[int]) -> dict[int, float]:
        """The score of each class over all images that have it."""
        outputs = self._means(self.on_output, classes)
        return {number: outputs[number] / dice for number, dice in self.segmenter_dice(classes).items()}

    def per_volume(self, classes: Sequence[int]) -> dict[Any, float]:
        """The score of each volume, the mean over the classes that it has; volumes without a class are left out.

        Mean Dice on the outputs of the volume, over the mean Dice on the targets of all volumes.
        """
        reference = self.segmenter_dice(classes)
        found = {}
        for volume in np.unique(self.volume).tolist():
            own = self.volume == volume
            values = [
                self.on_output[own & self.present[:, number], number].mean() / dice
                for number, dice in reference.items()
                if (own & self.present[:, number]).any()
            ]
            if values:
                found[volume] = float(np.mean(values))
        return found

    def per_image(self, classes: Sequence[int]) -> np.ndarray:
        """The score of each image, the mean over the classes that it has, (images,); nan where it has none."""
        reference = self.segmenter_dice(classes)
        present = self.present[:, list(reference)]
        relative = np.where(present, self.on_output[:, list(reference)], 0) / np.array(list(reference.values()))
        return np.where(present.any(axis=1), relative.sum(axis=1) / np.maximum(present.sum(axis=1), 1), np.nan)

    def interval(
        self,
        classes: Sequence[int],
        subjects: Sequence[Any],
        *,
        level: float = LEVEL,
        num_resamples: int = NUM_RESAMPLES,
        seed: int = 0,
    ) -> tuple[float, float]:
        """Confidence interval of the mean score over classes by bootstrap over subjects, each with all its images.

        Numerator and denominator are made anew from the drawn subjects; a class that they lack is left out of the
        mean. Subjects without a class that counts are not drawn.

        Args:
            classes: the numbers of those that count.
            subjects: of each image.
            level, num_resamples, seed: as for `fastmri_ufloss.metrics.paired.bootstrap_interval`.

        Returns:
            Its ends; nan for fewer than two subjects.
        """
        self.segmenter_dice(classes)  # raises
        numbers: dict[Any, int] = {}
        subject = [numbers.setdefault(name, len(numbers)) for name in subjects]
        counted = self.present[:, list(classes)].any(axis=1)
        drawn = np.unique(np.asarray(subject, dtype=int)[counted])
        if drawn.size < 2:
            return float("nan"), float("nan")
        sums = []
        for number in classes:
            for dice in (self.on_output, self.on_target):
                weights = np.where(self.present, dice, 0)[:, number]
                sums.append(np.bincount(subject, weights=weights, minlength=len(numbers))[drawn])
        return bootstrap_interval(
            *sums, statistic=_score_of_sums, level=level, num_resamples=num_resamples, seed=seed
        )

    def _means(self, dice: np.ndarray, classes: Sequence[int]) -> dict[int, float]:
        """Mean over the images with the class; nan if there is none."""
        values = {number: dice[self.present[:, number], number] for number in classes}
        return {number: float(value.mean()) if value.size else float("nan") for number, value in values.items()}


def _score_of_sums(*sums: np.ndarray, axis: int) -> np.ndarray:
    """The score of sums of Dice by subject: on outputs and on targets of the first class, of the second and so on."""
    outputs, targets = (np.stack([dice.sum(axis=axis) for dice in sums[first::2]]) for first in (0, 1))
    there = targets > 0
    return (np.where(there, outputs, 0) / np.where(there, targets, 1)).sum(axis=0) / there.sum(axis=0)
