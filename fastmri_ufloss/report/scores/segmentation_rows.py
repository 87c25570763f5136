"""SIS of methods from the Dice of their slices."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fastmri_ufloss.metrics.semantic_interpretability import SegmentedImages

__all__ = ["SegmentationRows"]


class SegmentationRows:
    """What a segmenter has found in all volumes, for `SegmentedImages`.

    Args:
        numbers: what `fastmri_ufloss.report.scores.scoring.score_files` gives, by the name of the volume.
        methods: their names.

    Attributes:
        classes: numbers of the classes that any image has; none if there is no segmenter, or it finds nothing of a
            class on the references.
        absent: numbers of the classes that no image has.
        notes: why there are none.
        segmenter_dice: the segmenter's mean Dice on the main reference by class.
        sis: of a volume by (volume, method), and of a slice by (volume, slice, method).
    """

    def __init__(self, numbers: Mapping[str, Mapping[str, Any]], methods: Sequence[str]) -> None:
        self._numbers, self._methods = numbers, list(methods)
        rows = [row for of_volume in numbers.values() for row in of_volume["segmenter"]]
        classes = sorted({int(name.split()[1]) for row in rows for name in row if name.startswith("Dice ")})
        self.classes = _present(classes, rows)
        self.absent = [number for number in classes if number not in self.classes]
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
        """SIS over all images of some volumes with the ends of its interval, by method, and what is wrong with it.

        Args:
            subjects: of each volume, which the interval is made over.
        """
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
        names: list[str] = []
        slices: list[int] = []
        dice: tuple[list[list[float | None]], ...] = ([], [])  # on the output, on the target
        for name in volumes:
            outputs = {row["slice"]: row for row in self._numbers[name]["slices"] if row["method"] == method}
            for target in self._numbers[name]["segmenter"]:
                names.append(name)
                slices.append(target["slice"])
                for rows, row in zip(dice, (outputs[target["slice"]], target), strict=True):
                    rows.append([row[f"Dice {number}"] for number in classes])
        on_output, on_target = (np.array(rows, dtype=float) for rows in dice)  # None becomes nan
        return SegmentedImages(classes, np.array(names), on_output, on_target), slices


def _present(classes: Iterable[int], rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """The classes that any image has."""
    rows = list(rows)
    return [number for number in classes if any(row[f"Dice {number}"] is not None for row in rows)]
