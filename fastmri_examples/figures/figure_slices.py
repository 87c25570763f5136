"""Slices that figures show beside their references: which one, and its numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from fastmri_ufloss.losses.ufloss import ufloss_per_image
from fastmri_ufloss.metrics import UFLossMetric
from fastmri_ufloss.metrics.volumes import ReferenceVolume
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report.figures.picture import most_textured
from fastmri_ufloss.report.reconstructed_volume import VolumeFiles


def choose(volumes: Sequence[VolumeFiles], name: str | None, number: int | None) -> tuple[VolumeFiles, int]:
    """The volume of a file name and a slice of it; what is None is that with the most textured reference.

    Raises:
        ValueError: if there is no such volume or slice.
    """
    if name is not None:
        volumes = [volume for volume in volumes if name in (volume.name, Path(volume.name).stem)]
        if not volumes:
            raise ValueError(f"--volume must be a file that all folders have, got {name!r}")
    if name is None or number is None:
        found = {volume.name: find_textured(volume) for volume in tqdm(volumes, desc="Slices", unit="volume")}
    chosen = max(volumes, key=lambda volume: found[volume.name][1]) if len(volumes) > 1 else volumes[0]
    if number is None:
        number = found[chosen.name][0]
    if not 0 <= number < chosen.num_slices:
        raise ValueError(
            f"--slice must be in 0 .. {chosen.num_slices - 1}, the slices of {chosen.name}, got {number}"
        )
    return chosen, number


def find_textured(volume: VolumeFiles) -> tuple[int, float]:
    """The slice whose reference has the most textured part, and how textured it is, see `texture`."""
    (images, *_) = volume.read().references.values()
    top = float(np.nanmax(np.where(np.isfinite(images), images, np.nan), initial=0.0))
    gradients = [texture(image, top) for image in images]
    number = int(np.argmax(gradients))
    return number, gradients[number]


def texture(image: np.ndarray, top: float) -> float:
    """The mean gradient of the most textured square of an image, in parts of ``top``; 0 if it is not finite."""
    if not np.isfinite(image).all() or not top > 0:
        return 0.0
    image = np.minimum(image, np.percentile(image, 95))  # or else it is the one with the brightest fat
    row, col, side = most_textured(image)
    part = image[row : row + side, col : col + side]
    return float(np.hypot(*np.gradient(part)).mean()) / top if side > 1 else 0.0


def slice_scores(
    volume: VolumeFiles, number: int, *, net: PatchFeatureNet | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, dict[str, float]]:
    """NRMSE and SSIM of a slice by method and, with a network of magnitudes, UFLoss.

    SSIM is fastMRI's, with the maximum of the reference volume as data range; slices with an image that is not
    finite do not count.

    Args:
        volume: its first reference counts.
        number: of the slice.
        net: a `PatchFeatureNet` with ``in_chans`` 1.
        options: of `UFLossMetric`, such as its stride.

    Raises:
        ValueError: if an image of the slice is not finite.
    """
    images = volume.read()
    (references, *_) = images.references.values()
    is_finite = np.all([np.isfinite(x).all(axis=(1, 2)) for x in (references, *images.outputs.values())], axis=0)
    if not is_finite[number]:
        raise ValueError(f"{volume.name}: an image of slice {number} has NaN or infinite values, take another slice")
    references = references[is_finite]
    number = int(np.count_nonzero(is_finite[:number]))
    reference = ReferenceVolume(references)
    scores = {}
    for method, output in ((method, volume[is_finite]) for method, volume in images.outputs.items()):
        of_slices = reference.score(output).slices
        scores[method] = {name: float(of_slices[name][number]) for name in ("NRMSE", "SSIM")}
        if net is not None:
            pair = (torch.from_numpy(x[number])[None, None] for x in (output, references))
            stride = UFLossMetric(net, **(options or {})).stride
            scores[method]["UFLoss"] = float(ufloss_per_image(net.eval().requires_grad_(False), *pair, stride=stride))
    return scores


def as_text(scores: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, str]]:
    """Scores as `save_panels` takes them."""
    return {method: {name: f"{value:#.3g}" for name, value in of.items()} for method, of in scores.items()}
