"""Semantic interpretability (SIS): how well a segmenter still segments reconstructions."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmri_ufloss.checks import check, require
from fastmri_ufloss.files import name_some
from fastmri_ufloss.losses.images import FrozenNetworkLoss, magnitude, no_autocast
from fastmri_ufloss.metrics.paired import bootstrap_interval
from fastmri_ufloss.metrics.volume_metric import SliceMetric, as_images, sum_dtype

__all__ = ["SegmentedImages", "SemanticInterpretability", "dice_of_classes"]


def dice_of_classes(
    labels: Tensor, segmentation: Tensor, num_classes: int, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """2 |A and B| / (|A| + |B|) of each image and class but the background, (batch, num_classes - 1).

    Labels and true segmentation are class numbers (batch, rows, cols), int64; nan where an image has no such class.
    """
    given, true = (F.one_hot(x, num_classes)[..., 1:].flatten(1, 2) for x in (labels, segmentation))
    dice = 2 * (given & true).sum(dim=1).to(dtype) / (given.sum(dim=1) + true.sum(dim=1))
    return torch.where(true.any(dim=1), dice, torch.nan)


class SegmentedImages(NamedTuple):
    """Dice of a segmenter on outputs and on targets, from which SIS is computed, see `SemanticInterpretability`.

    All methods raise ValueError if a class is in no image, or the segmenter has a Dice of 0 for it on the targets.
    """

    classes: Sequence[int]
    volume: np.ndarray  # of each image, by its name or another value, (images,)
    on_output: np.ndarray  # Dice, (images, classes); nan where the image lacks the class
    on_target: np.ndarray

    def segmenter_dice(self) -> dict[int, float]:
        """Mean Dice on the targets by class, what the scores are relative to; nan if there is no image."""
        means = dict(zip(self.classes, _means(self.on_target), strict=True))
        for label, dice in means.items():
            if len(self.volume) and np.isnan(dice):
                raise ValueError(
                    f"class {label} is in none of the {len(self.volume)} images; leave it out of classes"
                )
            require(dice != 0, f"segmenter must find class {label} on the targets", "a Dice of 0 there")
        return means

    def scores(self) -> dict[int, float]:
        """The score of each class over all images that have it; the mean over classes is SIS."""
        pairs = zip(self.segmenter_dice().items(), _means(self.on_output), strict=True)
        return {label: on_output / on_target for (label, on_target), on_output in pairs}

    def per_volume(self) -> dict[Any, float]:
        """Mean Dice on a volume's outputs over that on all volumes' targets, the mean over the volume's classes."""
        reference = list(self.segmenter_dice().values())
        values = {}
        for volume in np.unique(self.volume).tolist():
            scores = np.array(_means(self.on_output[self.volume == volume])) / reference
            if not np.isnan(scores).all():
                values[volume] = float(scores[~np.isnan(scores)].mean())
        return values

    def per_image(self) -> np.ndarray:
        """The score of each image, the mean over the classes that it has, (images,); nan where it has none."""
        relative = np.nan_to_num(self.on_output) / np.array(list(self.segmenter_dice().values()))
        count = (~np.isnan(self.on_target)).sum(axis=1)
        return np.where(count > 0, relative.sum(axis=1) / np.maximum(count, 1), np.nan)

    def interval(self, subjects: Mapping[Any, Hashable] | None = None) -> tuple[float, float]:
        """Confidence interval of SIS by `bootstrap_interval` over subjects, each drawn with all its images.

        ``subjects`` gives the subject of a volume, which otherwise is one of its own. Numerator and denominator are
        made anew from the drawn subjects; a class that they lack is left out of the mean. Subjects without a class
        that counts are not drawn; the ends are nan for fewer than two subjects.
        """
        self.segmenter_dice()  # raises
        names = [(subjects or {}).get(volume, volume) for volume in self.volume.tolist()]
        order = {name: index for index, name in enumerate(dict.fromkeys(names))}
        subject = np.array([order[name] for name in names], dtype=int)
        drawn = np.unique(subject[~np.isnan(self.on_target).all(axis=1)])
        if drawn.size < 2:
            return float("nan"), float("nan")
        columns = (column for pair in zip(self.on_output.T, self.on_target.T, strict=True) for column in pair)
        sums = [np.bincount(subject, np.nan_to_num(column), minlength=len(order))[drawn] for column in columns]
        return bootstrap_interval(*sums, statistic=_score_of_sums)


class SemanticInterpretability(FrozenNetworkLoss, SliceMetric):
    """Mean Dice of a segmenter on the outputs, relative to its mean Dice on the targets.

        SIS = mean_x Dice(S(x), truth) / mean_y Dice(S(y), truth),    Dice(A, B) = 2 |A and B| / (|A| + |B|)

    over all images with the class, outputs x and targets y; the mean over classes. Images whose true segmentation
    lacks the class do not count, nor does the background. The value is 1 for equal images, and above 1 if the
    segmenter sees more than on the targets (Seitzer et al., MICCAI 2018).

    Slices come as in `fastmri_ufloss.metrics.VolumeMetric`. In a ``torchmetrics.MetricCollection`` metrics with
    different segmenters need ``compute_groups=False``. A call of the metric, instead of its ``update``, needs a batch
    in which each class is present.

    The segmenter is called with magnitudes (batch, 1, rows, cols), float32, and gives class numbers (batch, rows,
    cols) of an integer dtype. A segmenter that is a module is frozen, in eval mode, on the device of the metric, and
    in no state dict. There are at least 2 classes with the background, which has the number 0; ``classes`` are the
    different numbers that count, None for all others; ValueError otherwise, and as `SegmentedImages`.
    """

    higher_is_better = True
    segmenter: nn.Module

    def __init__(
        self, segmenter: Callable[[Tensor], Tensor], *, num_classes: int, classes: Sequence[int] | None = None
    ) -> None:
        check(num_classes >= 2, "num_classes", "at least 2", num_classes)
        classes = tuple(range(1, num_classes) if classes is None else classes)
        fits = 0 < len(classes) == len(set(classes)) and all(0 < label < num_classes for label in classes)
        check(fits, "classes", f"different numbers in 1 .. {num_classes - 1}", list(classes))
        self.slice_sums = tuple(f"{source}_dice_{label}" for source in ("output", "target") for label in classes)
        super().__init__("segmenter", segmenter if isinstance(segmenter, nn.Module) else _Function(segmenter))
        self.num_classes = num_classes
        self.classes = classes

    def update(
        self,
        output: Tensor,
        target: Tensor,
        *,
        segmentation: Tensor,
        fname: Sequence[str],
        slice_num: Tensor | Sequence[int],
        max_value: Tensor | None = None,
    ) -> None:
        """Add the slices of a batch, as `VolumeMetric.update`; of complex images the magnitude counts.

        The segmentation has the true class numbers, (batch, rows, cols), of an integer dtype; ``max_value`` is not
        used. Raises ValueError for arguments of another shape or kind, or images that are not finite.
        """
        output, target = (magnitude(images.detach()).float().to(self.device) for images in (output, target))
        output, target = as_images(output, target)
        for name, images in (("output", output), ("target", target)):
            finite = bool(images.isfinite().all())
            check(finite, name, "finite", f"NaN or infinite values in {name_some(sorted(set(fname)))}")
        shape = (len(output), *output.shape[2:])
        require(segmentation.shape == shape, f"segmentation must have the shape {shape}", tuple(segmentation.shape))
        segmented = [self._segment(images) for images in (output, target)]
        true = self._checked("segmentation", segmentation)
        dtype, columns = sum_dtype(self.device), [label - 1 for label in self.classes]
        dice = [dice_of_classes(labels, true, self.num_classes, dtype=dtype)[:, columns] for labels in segmented]
        self._add(fname, slice_num, *torch.cat(dice, dim=1).unbind(dim=1))

    def images(self) -> SegmentedImages:
        """Dice of all images of all processes, by `volume_id`; all processes must call this."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self._images()

    def compute(self) -> Tensor:
        """SIS, the mean over classes, a scalar, nan without slices; all processes must call this, for the same."""
        return self._scalar(float(np.mean(list(self._images().scores().values()))))

    def _volume_values(self) -> dict[int, float]:
        return self._images().per_volume()

    def _images(self) -> SegmentedImages:
        volume, dice = self._slices()
        on_output, on_target = np.split(dice, 2, axis=1)
        return SegmentedImages(self.classes, volume, on_output, on_target)

    def _segment(self, images: Tensor) -> Tensor:
        segmenter = self.segmenter.to(self.device).eval()  # whatever its owner did
        with no_autocast(images), torch.no_grad():  # a score does not depend on the precision of the training
            labels = segmenter(images)
        shape = (len(images), *images.shape[2:])
        given = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        require(given == shape, f"segmenter must give class numbers of shape {shape}", given)
        return self._checked("what segmenter gives", labels)

    def _checked(self, name: str, labels: Tensor) -> Tensor:
        is_integer = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
        require(is_integer, f"{name} must have an integer dtype", labels.dtype)
        least, largest = int(labels.min()), int(labels.max())
        fits = least >= 0 and largest < self.num_classes
        check(fits, name, f"in 0 .. {self.num_classes - 1}", f"{least} .. {largest}")
        return labels.to(device=self.device, dtype=torch.int64)


class _Function(nn.Module):
    """A segmenter that is no module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def _means(dice: np.ndarray) -> list[float]:
    """Mean of each class over the images that have the class; nan if there is none."""
    columns = (column[~np.isnan(column)] for column in dice.T)
    return [float(column.mean()) if column.size else float("nan") for column in columns]


def _score_of_sums(*sums: np.ndarray, axis: int) -> np.ndarray:
    """SIS from sums of Dice by subject: on outputs and on targets of the first class, of the second and so on."""
    outputs, targets = (np.stack([dice.sum(axis=axis) for dice in sums[first::2]]) for first in (0, 1))
    there = targets > 0
    return (np.where(there, outputs, 0) / np.where(there, targets, 1)).sum(axis=0) / there.sum(axis=0)
