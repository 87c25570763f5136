"""Scores by networks: UFLoss, and the Dice of a segmenter."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastmri_ufloss.losses.ufloss import patch_features, ufloss_per_image
from fastmri_ufloss.metrics.semantic_interpretability import dice_of_classes
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.scores.score_settings import ScoreSettings

__all__ = ["segment_volume", "slice_dice", "ufloss_of_slices"]

BATCH = 8  # slices that go through a segmenter at once


@torch.no_grad()
def ufloss_of_slices(
    feature_net: nn.Module,
    reference: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    phase: np.ndarray | None,
    device: str,
    **options: Any,
) -> dict[str, np.ndarray]:
    """UFLoss of each slice over the whole grid, by method, (slices,); nan where the reference is constant.

    The features of the reference are computed once for all methods.

    Args:
        feature_net: of magnitudes, or of complex images with a phase.
        reference: magnitudes (slices, rows, cols).
        outputs: the same shape.
        phase: that all images get, the same shape; None for magnitudes.
        device: of the network.
        **options: of `fastmri_ufloss.losses.ufloss_per_image`, such as ``stride``.

    Raises:
        ValueError: if the images do not fit the network.
    """
    found = {method: np.full(len(reference), np.nan) for method in outputs}
    for index, image in enumerate(reference):
        if image.min() == image.max():
            continue
        angle = None if phase is None else phase[index]
        target = _tensor(image, angle, device)
        features = patch_features(feature_net, target, image_scale(target), **options)
        for method, images in outputs.items():
            output = _tensor(images[index], angle, device)
            value = ufloss_per_image(feature_net, output, target, target_features=features, **options)
            found[method][index] = float(value)
    return found


def _tensor(image: np.ndarray, angle: np.ndarray | None, device: str) -> Tensor:
    """An image (1, 1, rows, cols), complex with a phase."""
    magnitude = torch.from_numpy(np.ascontiguousarray(image))
    if angle is not None:
        magnitude = torch.polar(magnitude, torch.from_numpy(np.ascontiguousarray(angle)).to(magnitude.dtype))
    return magnitude[None, None].to(device)


@torch.no_grad()
def segment_volume(settings: ScoreSettings, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Class numbers (slices, rows, cols) that the segmenter finds in magnitudes of the same shape, by name."""
    net = settings.segmentation_net()
    found = {}
    for source, volume in images.items():
        batches = torch.from_numpy(np.ascontiguousarray(volume)).unsqueeze(1).split(BATCH)
        found[source] = torch.cat([net(batch.to(settings.device)).cpu() for batch in batches]).numpy()
    return found


def slice_dice(labels: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Dice of each slice and class but the background, (slices, num_classes - 1); nan without the class."""
    return dice_of_classes(torch.from_numpy(labels), torch.from_numpy(truth), num_classes).double().numpy()
