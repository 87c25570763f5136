"""Scores of several methods on the same volumes, given one volume after another."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastmri_ufloss.metrics.semantic_interpretability import SemanticInterpretability
from fastmri_ufloss.metrics.ufloss import UFLossMetric
from fastmri_ufloss.metrics.volume_metric import volume_id
from fastmri_ufloss.metrics.volumes import score_volume

__all__ = ["MethodScores"]

BATCH = 8  # slices that go through a network at once


class MethodScores:
    """PSNR (dB), SSIM, NRMSE, UFLoss, Dice of each class and SIS of each volume and method.

    PSNR, SSIM and NRMSE are those of `score_volume`, with the reference volume's maximum as data range; UFLoss is
    `UFLossMetric`. Dice is the mean over a volume's slices with the class, and SIS is
    `SemanticInterpretability.per_volume`. Of a volume only numbers are kept, never its images.

    Args:
        methods: their names.
        make_ufloss: makes the UFLoss of a method, with a network of magnitudes; None leaves it out.
        segmenter: for Dice and SIS, called with magnitudes (batch, 1, rows, cols), gives class numbers
            (batch, rows, cols) of an integer dtype; None leaves them out.
        num_classes: of the segmenter, with the background.
        classes: the numbers of those that count; None for all but the background.
        device: of the networks, which are moved there.

    Raises:
        ValueError: as the metrics.
    """

    def __init__(
        self,
        methods: Sequence[str],
        *,
        make_ufloss: Callable[[], UFLossMetric] | None = None,
        segmenter: Callable[[Tensor], Tensor] | None = None,
        num_classes: int = 2,
        classes: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.methods, self.device = list(methods), torch.device(device)
        self.classes = list(range(1, num_classes) if classes is None else classes)
        self._segmenter = segmenter
        if isinstance(segmenter, nn.Module):
            segmenter.to(self.device).eval()
        self._ufloss: dict[str, UFLossMetric] = {}
        if make_ufloss is not None:
            self._ufloss = {method: make_ufloss().to(self.device) for method in self.methods}
        self._sis: dict[str, SemanticInterpretability] = {}
        self._dice: dict[tuple[str, int], SemanticInterpretability] = {}
        if segmenter is not None:
            make_sis = partial(SemanticInterpretability, _as_labels, num_classes=num_classes)
            self._sis = {method: make_sis(classes=self.classes) for method in self.methods}
            self._dice = {(m, number): make_sis(classes=[number]) for m in self.methods for number in self.classes}
        self._rows: list[dict[str, Any]] = []

    @property
    def larger_is_better(self) -> dict[str, bool]:
        """Of each score."""
        dice = {f"Dice {number}": True for number in self.classes} | {"SIS": True}
        ufloss = {"UFLoss": False} if self._ufloss else {}
        return {"PSNR": True, "SSIM": True, "NRMSE": False, **ufloss, **(dice if self._sis else {})}

    def add(
        self,
        name: str,
        reference: np.ndarray,
        outputs: Mapping[str, np.ndarray],
        *,
        segmentation: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Score a volume.

        Args:
            name: of the volume, each comes once.
            reference: magnitudes (slices, rows, cols), float32.
            outputs: of each method, the same shape.
            segmentation: the true class numbers, the same shape; needed for a segmenter.

        Returns:
            What the segmenter gives, (slices, rows, cols), of ``"reference"`` and of each method; empty without one.
        """
        for method in self.methods:
            with np.errstate(divide="ignore"):  # the PSNR of equal images is infinite
                scores = score_volume(reference, outputs[method])
            ordered = {metric: scores[metric] for metric in ("PSNR", "SSIM", "NRMSE")}
            self._rows.append({"volume": name, "method": method, **ordered})
        for start in range(0, len(reference) if self._ufloss else 0, BATCH):
            numbers = range(len(reference))[start : start + BATCH]
            target = torch.from_numpy(reference[start : start + BATCH]).to(self.device)
            place: dict[str, Any] = {"fname": [name] * len(numbers), "slice_num": list(numbers)}
            for method, metric in self._ufloss.items():
                output = torch.from_numpy(outputs[method][start : start + BATCH]).to(self.device)
                metric.update(output, target, **place)
        if self._segmenter is None:
            return {}
        images = {"reference": reference, **{method: outputs[method] for method in self.methods}}
        labels = {source: self._segment(self._segmenter, volume) for source, volume in images.items()}
        self._add_labels(name, labels, segmentation)
        return {source: found.numpy() for source, found in labels.items()}

    def rows(self) -> list[dict[str, Any]]:
        """The scores of each volume and method; None where a volume has no slice with the class.

        Raises:
            ValueError: if a class is in no image, or the segmenter finds nothing of it on the references.
        """
        found: dict[tuple[str, str], Mapping[int, float]] = {}
        for method, ufloss in self._ufloss.items():
            found[method, "UFLoss"] = ufloss.per_volume()
        for (method, number), dice in self._dice.items():
            on_references = dice.segmenter_dice()[number]
            relative = dice.per_volume()
            found[method, f"Dice {number}"] = {volume: value * on_references for volume, value in relative.items()}
        for method, sis in self._sis.items():
            found[method, "SIS"] = sis.per_volume()
        return [
            row
            | {
                metric: values.get(volume_id(row["volume"]))
                for (method, metric), values in found.items()
                if method == row["method"]
            }
            for row in self._rows
        ]

    def leave_out_segmentation(self) -> None:
        """Forget Dice and SIS, where they cannot be computed, so that the other scores are not lost."""
        self._sis, self._dice = {}, {}

    def segmenter_dice(self) -> dict[int, float]:
        """The segmenter's mean Dice on the references by class, over all images with it; empty without one."""
        return next(iter(self._sis.values())).segmenter_dice() if self._sis else {}

    def sis(self, subjects: Mapping[str, str]) -> dict[str, tuple[float, float, float]]:
        """SIS over all images and the ends of its interval, by method.

        Args:
            subjects: the subject of each volume, which the interval is made over.
        """
        return {name: (float(metric.compute()), *metric.interval(subjects)) for name, metric in self._sis.items()}

    def _add_labels(self, name: str, labels: Mapping[str, Tensor], segmentation: np.ndarray | None) -> None:
        if segmentation is None:
            raise ValueError(f"segmentation must be given of each volume for a segmenter, got none of {name}")
        place: dict[str, Any] = {"fname": [name] * len(segmentation), "slice_num": list(range(len(segmentation)))}
        true = torch.from_numpy(segmentation)
        # what the metrics get as images are the class numbers already: the references do not go through the network
        # again for each method and class
        target = labels["reference"].float()
        for method, metric in self._sis.items():
            metric.update(labels[method].float(), target, segmentation=true, **place)
        for (method, _), metric in self._dice.items():
            metric.update(labels[method].float(), target, segmentation=true, **place)

    def _segment(self, segmenter: Callable[[Tensor], Tensor], volume: np.ndarray) -> Tensor:
        with torch.no_grad():
            batches = [images.unsqueeze(1).to(self.device) for images in torch.from_numpy(volume).split(BATCH)]
            return torch.cat([segmenter(images).cpu() for images in batches])


def _as_labels(images: Tensor) -> Tensor:
    """The class numbers (batch, rows, cols) of images (batch, 1, rows, cols) that hold them."""
    return images[:, 0].long()
