"""Semantic interpretability: what a segmenter still finds in reconstructions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from fastmri_ufloss.losses.images import check_images, full_precision, magnitude
from fastmri_ufloss.metrics.paired import LEVEL, NUM_RESAMPLES
from fastmri_ufloss.metrics.segmented_images import SegmentedImages
from fastmri_ufloss.metrics.volume_metric import identify_slices, volume_id

__all__ = ["SemanticInterpretability"]


class SemanticInterpretability(Metric):
    """Mean Dice of a segmenter on the outputs, relative to its mean Dice on the targets.

        SIS = mean_x Dice(S(x), truth) / mean_y Dice(S(y), truth),    Dice(A, B) = 2 |A and B| / (|A| + |B|)

    over all images with the class, outputs x and targets y; the mean over classes. Images without the class, by the
    true one, do not count, and nor does the background. The value is 1 for equal images, 0 if nothing is found, and
    above 1 if more is found than on the targets (Seitzer et al., MICCAI 2018).

    Slices may come in any order, in batches of any size, and on any process, and one that comes again counts once, as
    in `fastmri_ufloss.metrics.VolumeMetric`. Kept are five numbers of pixels of each slice and class, never images.
    In a ``torchmetrics.MetricCollection`` metrics with different segmenters need ``compute_groups=False``. To call
    the metric, instead of its ``update``, needs a batch in which each class is present.

    A segmenter that is a module is frozen, in eval mode, and no part of this module: it is in no state dict and gets
    no gradient. It goes to the device of the metric with the first slices there.

    Args:
        segmenter: called with magnitudes (batch, 1, rows, cols), float32, on the device of the metric; gives class
            numbers (batch, rows, cols) of an integer dtype.
        num_classes: number of classes with the background, which has the number 0.
        classes: the numbers of those that count; None for all but the background.

    Raises:
        ValueError: if num_classes is below 2, or classes are none, not different, or not in 1 .. num_classes - 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(
        self,
        segmenter: Callable[[Tensor], Tensor],
        *,
        num_classes: int,
        classes: Sequence[int] | None = None,
    ) -> None:
        # a process without new slices would give its cached value, and the others would wait for it forever
        super().__init__(compute_with_cache=False)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        classes = tuple(range(1, num_classes) if classes is None else classes)
        if not classes or len(set(classes)) < len(classes) or not all(0 < number < num_classes for number in classes):
            raise ValueError(f"classes must be different numbers in 1 .. {num_classes - 1}, got {list(classes)}")
        self.num_classes = num_classes
        self.classes = classes
        if isinstance(segmenter, nn.Module):
            segmenter.requires_grad_(False)
        # in a list, so that its weights are no part of this module
        self._segmenters = [segmenter]
        for name in self._states():
            self.add_state(name, default=[], dist_reduce_fx="cat")

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
        """Add the slices of a batch.

        Args:
            output: (batch, rows, cols) or (batch, 1, rows, cols), magnitudes; of complex images the magnitude counts.
            target: the same shape, the fully sampled images.
            segmentation: the true class numbers, 0 .. num_classes - 1, (batch, rows, cols), of an integer dtype.
            fname: the name of each slice's volume.
            slice_num: the number of each slice in its volume, (batch,).
            max_value: not used; it is there so that all metrics are called alike.

        Raises:
            ValueError: if an argument is not as above, an image is not finite, or the segmenter gives something else
                than class numbers of the shape of its images.
        """
        if output.ndim == target.ndim == 3:
            output, target = output.unsqueeze(1), target.unsqueeze(1)
        output, target = (magnitude(images.detach()).float().to(self.device) for images in (output, target))
        check_images(output, target)
        if segmentation.shape != output[:, 0].shape:
            raise ValueError(
                "segmentation must have the shape of output (batch, rows, cols), got "
                f"{tuple(segmentation.shape)} and {tuple(output[:, 0].shape)}"
            )
        for name, images in (("output", output), ("target", target)):
            if not bool(images.isfinite().all()):
                raise ValueError(
                    f"{name} must be finite, got NaN or infinite values in {', '.join(sorted(set(fname)))}"
                )
        labels, target_labels = (self._segment(images) for images in (output, target))
        self.update_labels(labels, target_labels, segmentation=segmentation, fname=fname, slice_num=slice_num)

    def update_labels(
        self,
        output_labels: Tensor,
        target_labels: Tensor,
        *,
        segmentation: Tensor,
        fname: Sequence[str],
        slice_num: Tensor | Sequence[int],
    ) -> None:
        """Add the slices of a batch that has been segmented already.

        Args:
            output_labels: what the segmenter gives of the outputs, class numbers (batch, rows, cols), integers.
            target_labels: of the targets.
            segmentation, fname, slice_num: see `update`.

        Raises:
            ValueError: if an argument is not as above.
        """
        given = {"output_labels": output_labels, "target_labels": target_labels, "segmentation": segmentation}
        for name, labels in given.items():
            if labels.ndim != 3 or labels.shape != output_labels.shape:
                raise ValueError(
                    f"{name} must have the shape of output_labels (batch, rows, cols), got {tuple(labels.shape)} and "
                    f"{tuple(output_labels.shape)}"
                )
        slices = identify_slices(fname, slice_num, len(segmentation))
        *found, true = (self._one_hot(self._checked(name, labels)) for name, labels in given.items())
        counts = [(mask & true).sum(-1) for mask in found] + [mask.sum(-1) for mask in (*found, true)]
        for name, values in zip(self._states(), (*slices, torch.stack(counts, dim=1)), strict=True):
            getattr(self, name).append(values.to(self.device))

    def compute(self) -> Tensor:
        """SIS, the mean over classes, a scalar on the metric's device; nan if there is no slice.

        All processes must call this method and the others below, and all get the same.

        Raises:
            ValueError: if a class is in no image, or the segmenter finds nothing of it on the targets; also in the
                others below.
        """
        value = float(np.mean(list(self._images().scores(self.classes).values())))
        dtype = torch.float32 if self.device.type == "mps" else torch.float64  # MPS has no float64
        return torch.tensor(value, dtype=dtype, device=self.device)

    def per_class(self) -> dict[int, float]:
        """SIS of each class by its number."""
        return self._images_of_all().scores(self.classes)

    def segmenter_dice(self) -> dict[int, float]:
        """The segmenter's mean Dice on the targets by class, what SIS is relative to."""
        return self._images_of_all().segmenter_dice(self.classes)

    def per_volume(self) -> dict[int, float]:
        """The value of each volume by its `fastmri_ufloss.metrics.volume_id`; volumes without a class are left out.

        Mean Dice on the outputs of the volume, over the mean Dice on the targets of all volumes; the mean over the
        classes that the volume has. So all volumes have one unit, that of SIS, and methods on the same volumes
        differ by their outputs alone.
        """
        return self._images_of_all().per_volume(self.classes)

    def interval(
        self,
        subjects: Mapping[str, str] | None = None,
        *,
        level: float = LEVEL,
        num_resamples: int = NUM_RESAMPLES,
        seed: int = 0,
    ) -> tuple[float, float]:
        """Confidence interval of SIS by bootstrap over subjects, each drawn with all its images.

        Numerator and denominator are made anew from the drawn subjects; a class that they lack is left out of the
        mean. Subjects without a class that counts are not drawn. See `fastmri_ufloss.metrics.paired`.

        Args:
            subjects: the subject of a volume by the volume's name, where several volumes belong to one; a volume
                that is not named is a subject of its own.
            level, num_resamples, seed: as for `fastmri_ufloss.metrics.paired.bootstrap_interval`.

        Returns:
            Its ends; nan for fewer than two subjects.
        """
        images = self._images_of_all()
        names = {volume_id(fname): subject for fname, subject in (subjects or {}).items()}
        of_images = [names.get(volume, volume) for volume in images.volume.tolist()]
        return images.interval(self.classes, of_images, level=level, num_resamples=num_resamples, seed=seed)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """``torchmetrics.Metric.sync``, also where a process has seen no slice."""
        # torchmetrics sends float32 of one axis for an empty list, which the others would read as their own
        for name, shape in self._states().items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                getattr(self, name).append(torch.empty((0, *shape), dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)

    def _states(self) -> dict[str, tuple[int, ...]]:
        """The shape that each state has of a slice; all are int64."""
        return {"volume": (), "slice_num": (), "pixels": (5, self.num_classes)}

    def _segment(self, images: Tensor) -> Tensor:
        segmenter = self._segmenters[0]
        if isinstance(segmenter, nn.Module):
            segmenter.to(self.device).eval()
        with full_precision(images), torch.no_grad():  # a score does not depend on the precision of the training
            labels = segmenter(images)
        shape = (len(images), *images.shape[2:])
        if not isinstance(labels, Tensor) or labels.shape != shape:
            found = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
            raise ValueError(f"segmenter must give class numbers of shape {shape}, got {found}")
        return self._checked("what segmenter gives", labels)

    def _checked(self, name: str, labels: Tensor) -> Tensor:
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(f"{name} must have an integer dtype, got {labels.dtype}")
        least, largest = int(labels.min()), int(labels.max())
        if least < 0 or largest >= self.num_classes:
            raise ValueError(f"{name} must be in 0 .. {self.num_classes - 1}, got {least} .. {largest}")
        return labels.to(device=self.device, dtype=torch.int64)

    def _one_hot(self, labels: Tensor) -> Tensor:
        """Whether a pixel has a class, (batch, num_classes, pixels)."""
        return labels.flatten(1).unsqueeze(1) == torch.arange(self.num_classes, device=self.device)[:, None]

    def _images_of_all(self) -> SegmentedImages:
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self._images()

    def _images(self) -> SegmentedImages:
        """Each image once, in the order of volumes and slices, so that sums do not depend on how they came."""
        columns = []
        for name, shape in self._states().items():
            state = getattr(self, name)
            if isinstance(state, list):  # of batches; after an exchange it is one tensor
                state = torch.cat(state) if state else torch.empty((0, *shape), dtype=torch.int64)
            columns.append(state.cpu().numpy())
        volume, slice_num, pixels = columns
        _, first = np.unique(np.stack([volume, slice_num], axis=1), axis=0, return_index=True)
        both_output, both_target, on_output, on_target, true = pixels[first].transpose(1, 0, 2)
        return SegmentedImages(
            volume=volume[first],
            on_output=2 * both_output / np.maximum(on_output + true, 1),
            on_target=2 * both_target / np.maximum(on_target + true, 1),
            present=true > 0,
        )
