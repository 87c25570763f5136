"""SIS of methods from the Dice of their slices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastmri_ufloss.metrics.semantic_interpretability import SegmentedImages

__all__ = ["SegmentationRows"]


class SegmentationRows:
    """What a segmenter has found in all volumes, for `SegmentedImages`.

    Args:
        found: what `fastmri_ufloss.report.scores.scoring.score_files` gives, by the name of the volume.
        methods: their names.

    Attributes:
        classes: numbers of the classes that any image has; none if there is no segmenter, or it finds nothing of one
            of them on the references.
        absent: numbers of the classes that no image has.
        notes: why there are none.
        segmenter_dice: the segmenter's mean Dice on the main reference by class.
        sis_of_volumes, sis_of_slices: by (volume, method), and by (volume, slice, method).
    """

    def __init__(self, found: Mapping[str, Mapping[str, Any]], methods: Sequence[str]) -> None:
        self._found, self._methods = found, list(methods)
        every = [row for numbers in found.values() for row in numbers["segmenter"]]
        numbers = sorted({int(name.split()[1]) for row in every for name in row if name.startswith("Dice ")})
        self.classes = [n for n in numbers if any(row[f"Dice {n}"] is not None for row in every)]
        self.absent = [n for n in numbers if n not in self.classes]
        self.notes: list[str] = []
        self.segmenter_dice: dict[int, float] = {}
        self.sis_of_volumes: dict[tuple[Any, ...], float] = {}
        self.sis_of_slices: dict[tuple[Any, ...], float] = {}
        if every and not self.classes:
            self.notes.append("Dice and SIS are left out: the segmentations are nothing but background.")
        if not self.classes:
            return
        try:
            for method in self._methods:
                self._add(method)
        except ValueError as error:  # of a segmenter that finds nothing: the other scores are not lost for it
            self.notes.append(f"Dice and SIS are left out: {error}.")
            self.classes = []

    def sis_over_images(self, subjects: Mapping[str, str]) -> tuple[dict[str, tuple[float, float, float]], list[str]]:
        """SIS over all images of some volumes with the ends of its interval, by method, and what is wrong with it.

        Args:
            subjects: of each volume, which the interval is made over.
        """
        if not self.classes:
            return {}, []
        rows = [row for name in subjects for row in self._found[name]["segmenter"]]
        classes = [number for number in self.classes if any(row[f"Dice {number}"] is not None for row in rows)]
        if not classes:
            return {}, ["SIS is left out: no image has a class."]
        found = {}
        for method in self._methods:
            images, _ = self._images(method, subjects, classes)
            try:
                value = float(np.mean(list(images.scores().values())))
                ends = images.interval(subjects)
            except ValueError as error:
                return {}, [f"SIS is left out: {error}."]
            found[method] = (value, *ends)
        return found, []

    def _add(self, method: str) -> None:
        images, slices = self._images(method, self._found, self.classes)
        self.segmenter_dice = images.segmenter_dice()
        for volume, value in images.per_volume().items():
            self.sis_of_volumes[volume, method] = value
        values = images.per_image().tolist()
        for volume, number, value in zip(images.volume.tolist(), slices, values, strict=True):
            if value == value:
                self.sis_of_slices[volume, number, method] = value

    def _images(
        self, method: str, volumes: Mapping[str, Any], classes: Sequence[int]
    ) -> tuple[SegmentedImages, list[int]]:
        """Dice of all slices of some volumes, and the numbers of the slices."""
        names: list[str] = []
        slices: list[int] = []
        on_output: list[list[float | None]] = []
        on_target: list[list[float | None]] = []
        columns = [f"Dice {number}" for number in classes]
        for name in volumes:
            numbers = self._found[name]
            outputs = {row["slice"]: row for row in numbers["slices"] if row["method"] == method}
            for target in numbers["segmenter"]:
                names.append(name)
                slices.append(target["slice"])
                on_target.append([target[column] for column in columns])
                on_output.append([outputs[target["slice"]][column] for column in columns])
        output, goal = (np.array(rows, dtype=float) for rows in (on_output, on_target))  # None becomes nan
        return SegmentedImages(classes, np.array(names), output, goal), slices
