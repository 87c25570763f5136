"""Scores by networks: UFLoss, and the Dice of a segmenter with a picture of its contours."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fastmri.evaluate import psnr
from torch import Tensor, nn

from fastmri_ufloss.losses.ufloss import patch_features, ufloss_per_image
from fastmri_ufloss.metrics.semantic_interpretability import dice_of_classes
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.figures.contours import save_contours
from fastmri_ufloss.report.reconstructions import ReconstructedVolume
from fastmri_ufloss.report.scores.score_settings import ScoreSettings

__all__ = ["save_volume_contours", "segment_volume", "slice_dice", "ufloss_of_slices"]

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

    def tensor(images: np.ndarray, index: int) -> Tensor:
        """An image (1, 1, rows, cols), complex with a phase."""
        image = torch.from_numpy(np.ascontiguousarray(images[index]))
        if phase is not None:
            image = torch.polar(image, torch.from_numpy(np.ascontiguousarray(phase[index])).to(image.dtype))
        return image[None, None].to(device)

    values = {method: np.full(len(reference), np.nan) for method in outputs}
    for index, image in enumerate(reference):
        if image.min() == image.max():
            continue
        target = tensor(reference, index)
        features = patch_features(feature_net, target, image_scale(target), **options)
        for method, images in outputs.items():
            output = tensor(images, index)
            values[method][index] = float(
                ufloss_per_image(feature_net, output, target, target_features=features, **options)
            )
    return values


@torch.no_grad()
def segment_volume(settings: ScoreSettings, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Class numbers (slices, rows, cols) that the segmenter finds in magnitudes of the same shape, by name."""
    net = settings.segmentation_net()
    labels = {}
    for source, volume in images.items():
        batches = torch.from_numpy(np.ascontiguousarray(volume)).unsqueeze(1).split(BATCH)
        labels[source] = torch.cat([net(batch.to(settings.device)).cpu() for batch in batches]).numpy()
    return labels


def slice_dice(labels: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Dice of each slice and class but the background, (slices, num_classes - 1); nan without the class."""
    return dice_of_classes(torch.from_numpy(labels), torch.from_numpy(truth), num_classes).double().numpy()


def save_volume_contours(
    settings: ScoreSettings,
    name: str,
    kept: np.ndarray,
    volume: ReconstructedVolume,
    truth: np.ndarray,
    labels: Mapping[str, np.ndarray],
) -> None:
    """Draw the slice with the largest segmented area, or the middle one, into the folder of pictures, if there is one.

    Args:
        settings: with the folder.
        name: file name of the volume.
        kept: numbers of the slices.
        volume: images of the slices.
        truth: true class numbers.
        labels: class numbers that the segmenter has found, of the main reference and of each method.
    """
    path, main = settings.picture_path(name), settings.main_reference
    if path is None:
        return
    areas = (truth > 0).sum(axis=(1, 2))
    index = int(areas.argmax()) if areas.any() else len(areas) // 2
    target = volume.references[main]
    images = {main: target[index], **{method: output[index] for method, output in volume.outputs.items()}}
    notes: dict[str, str] = {}
    for source, image in images.items():
        texts = []
        if source != main:
            with np.errstate(divide="ignore"):  # equal images
                texts.append(f"PSNR {float(psnr(images[main], image, maxval=target.max())):.1f} dB")
        if areas.any():
            dice = slice_dice(labels[source][index][None], truth[index][None], settings.num_classes)
            texts.append(f"Dice {np.nanmean(dice):.2f}")
        notes[source] = ", ".join(texts)
    save_contours(
        path,
        images,
        truth=truth[index],
        predictions={source: labels[source][index] for source in images},
        notes=notes,
        title=f"{name}, slice {kept[index]}",
    )
