"""How distances of two images grow when one of them gets more noise or more blur."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from fastmri_ufloss.losses.perceptual import perceptual_loss
from fastmri_ufloss.losses.pixel import l2_loss
from fastmri_ufloss.losses.ssim import dssim_loss
from fastmri_ufloss.losses.ufloss import patch_features, ufloss_per_image
from fastmri_ufloss.mri.degradation import blurred, noisy
from fastmri_ufloss.mri.intensity import image_scale

__all__ = ["BLUR", "NOISE", "Distance", "degradation_values", "make_distances", "summarize_curve"]

NOISE = tuple(level / 100 for level in range(11))
"""Shares of noise: none, and ten levels to 10%."""

BLUR = tuple(round(1 + 0.3 * level, 1) for level in range(11))
"""Cropping factors of k-space: none, and ten levels to 4."""

Distance = Callable[[Sequence[Tensor], Tensor], list[float]]
"""From outputs, each (1, 1, rows, cols), and their target to the distance of each output."""


def make_distances(
    feature_net: nn.Module, *, vgg: nn.Module | None = None, stride: int = 20, chunk_size: int = 256
) -> dict[str, Distance]:
    """The distances of figure 4A by name: UFLoss, MSE, DSSIM, and VGG if there is one.

    MSE is `l2_loss`; the data range of DSSIM is the largest magnitude of the target; VGG is `perceptual_loss`.

    Args:
        feature_net: see `fastmri_ufloss.losses.UFLoss`, in eval mode.
        vgg: see `perceptual_loss`.
        stride: of the grid of UFLoss. Its mean over the patches hardly depends on it, its time does.
        chunk_size: patches that go through the network at once.
    """

    def ufloss(outputs: Sequence[Tensor], target: Tensor) -> list[float]:
        settings = {"stride": stride, "chunk_size": chunk_size}
        wanted = patch_features(feature_net, target, image_scale(target), **settings)
        return [
            float(ufloss_per_image(feature_net, output, target, target_features=wanted, **settings))
            for output in outputs
        ]

    distances: dict[str, Distance] = {
        "UFLoss": ufloss,
        "MSE": lambda outputs, target: [float(l2_loss(output, target)) for output in outputs],
        "DSSIM": lambda outputs, target: [float(dssim_loss(out, target, target.abs().max())) for out in outputs],
    }
    if vgg is not None:
        distances["VGG"] = lambda outputs, target: [float(perceptual_loss(vgg, out, target)) for out in outputs]
    return distances


def degradation_values(
    distances: Mapping[str, Distance],
    image: Tensor,
    *,
    noise: Sequence[float] = NOISE,
    blur: Sequence[float] = BLUR,
    seed: int = 0,
) -> dict[str, dict[str, list[float]]]:
    """The distances of an image from itself with noise, and from itself blurred, at each level.

    Args:
        distances: by name, see `make_distances`.
        image: (rows, cols), complex or real magnitude.
        noise: shares, see `noisy`.
        blur: factors, see `blurred`.
        seed: of the noise.

    Returns:
        ``{"noise": {name: values}, "blur": {name: values}}``.

    Raises:
        ValueError: if the image has another shape, is not finite, or is too small for a distance.
    """
    if image.ndim != 2 or not bool(torch.isfinite(image).all()):
        raise ValueError(f"image must be finite with shape (rows, cols), got {image.dtype} {tuple(image.shape)}")
    target = image[None, None]
    with torch.no_grad():
        changed = {
            "noise": [noisy(target, share, seed=seed) for share in noise],
            "blur": [blurred(target, factor) for factor in blur],
        }
        return {
            kind: {name: distance(outputs, target) for name, distance in distances.items()}
            for kind, outputs in changed.items()
        }


def summarize_curve(levels: Sequence[float], values: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Mean and spread of curves over images, and what can be said of their shape.

    Args:
        levels: that rise, at least three.
        values: of each image at each level.

    Returns:
        ``mean`` and ``std`` (population's) by level; ``spearman``, Spearman's rho of the mean and the level, None
        for a constant mean; ``rising``, the share of images in which the distance rises from each level to the next;
        ``convex``, the share of second differences of the mean that are not negative, each divided by the distance
        of its levels.

    Raises:
        ValueError: if the levels do not rise, are fewer than three, or are not as many as the values of an image.
    """
    positions, curves = np.asarray(levels, dtype=float), np.asarray(values, dtype=float)
    if positions.size < 3 or not (np.diff(positions) > 0).all():
        raise ValueError(f"levels must be at least three numbers that rise, got {list(levels)}")
    if curves.ndim != 2 or curves.shape[1] != positions.size or not len(curves):
        raise ValueError(f"values must have shape (images, {positions.size}), got {curves.shape}")
    mean = curves.mean(axis=0)
    slopes = np.diff(mean) / np.diff(positions)
    return {
        "mean": mean.tolist(),
        "std": curves.std(axis=0).tolist(),
        "spearman": float(spearmanr(positions, mean).statistic) if np.ptp(mean) > 0 else None,
        "rising": float((np.diff(curves, axis=1) > 0).all(axis=1).mean()),
        "convex": float((np.diff(slopes) >= 0).mean()),
    }
