"""Figure 4A of the UFLoss paper: distances of images that get more and more noise, or blur."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor, nn
from tqdm import tqdm

from fastmri_ufloss.losses.images import l2_loss
from fastmri_ufloss.losses.perceptual import perceptual_loss
from fastmri_ufloss.losses.ssim import dssim_loss
from fastmri_ufloss.losses.ufloss import patch_features, ufloss_per_image
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.figures import drawing
from fastmri_ufloss.report.figures.images import FigureImages, Place

__all__ = ["LEVELS", "blurred", "draw_noise_and_blur", "make_distances", "noisy", "save_degradation_curves"]

LEVELS = {
    "noise": tuple(level / 100 for level in range(11)),
    "blur": tuple(round(1 + 0.3 * level, 1) for level in range(11)),
}
"""No degradation, and ten levels: fractions of noise up to 10%, cropping factors of k-space up to 4."""

_AXES = {"noise": r"noise $b$ (%), $x_p = (1 - b)\,x + b\,n$", "blur": "blur $R$, central $1/R$ of k-space"}
_STYLES = ("-", "--", "-.", ":")

Distance = Callable[[Sequence[Tensor], Tensor], list[float]]
"""From outputs, each (1, 1, rows, cols), and their target to the distance of each output."""


def noisy(images: Tensor, fraction: float, *, seed: int = 0) -> Tensor:
    """Images x (batch, ..., rows, cols) with complex white noise, (1 - b) x + b s n, of magnitudes its magnitude.

    n has unit variance, the same for each fraction b, and s is `image_scale` of each image; b out of 0 .. 1 raises
    ValueError. (Wang et al., MRM 2022, eq. 13.)
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be from 0 to 1, got {fraction}")
    waves = _complex(images)
    scale = image_scale(images).reshape(-1, *[1] * (images.ndim - 1))
    noise = torch.randn(images.shape, dtype=waves.dtype, generator=torch.Generator().manual_seed(seed))
    waves = (1 - fraction) * waves + fraction * noise.to(images.device) * scale
    return waves if images.is_complex() else waves.abs()


def blurred(images: Tensor, factor: float) -> Tensor:
    """Images, as in `noisy`, from the central 1 / R of k-space in both directions; ValueError if R is below 1."""
    if not factor >= 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    waves = _complex(images)
    if factor == 1:
        return images.clone()
    rows, cols = (torch.fft.fftfreq(size, device=images.device).abs() <= 0.5 / factor for size in images.shape[-2:])
    waves = torch.fft.ifft2(torch.fft.fft2(waves) * rows[:, None] * cols)
    return waves if images.is_complex() else waves.abs()


def _complex(images: Tensor) -> Tensor:
    if images.ndim < 3 or not (images.is_complex() or images.is_floating_point()):
        got = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"images must be complex or real with shape (batch, ..., rows, cols), got {got}")
    return images if images.is_complex() else torch.complex(images, torch.zeros_like(images))


def make_distances(
    feature_net: nn.Module, *, vgg: nn.Module | None = None, stride: int = 20, chunk_size: int = 256
) -> dict[str, Distance]:
    """The distances of the figure by name: UFLoss, MSE, DSSIM, and VGG if there is a network for it.

    Args:
        stride: of the grid of UFLoss. Its mean over the patches hardly depends on it, its time does.
        chunk_size: patches that go through the network at once.
    """

    def ufloss(outputs: Sequence[Tensor], target: Tensor) -> list[float]:
        grid: dict[str, Any] = {"stride": stride, "chunk_size": chunk_size}
        grid["target_features"] = patch_features(feature_net, target, image_scale(target), **grid)
        return [float(ufloss_per_image(feature_net, output, target, **grid)) for output in outputs]

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
    levels: Mapping[str, Sequence[float]] = LEVELS,
    seed: int = 0,
) -> dict[str, dict[str, list[float]]]:
    """The distances of an image (rows, cols) from itself with noise, and blurred, by kind and name at each level.

    An image of another shape, not finite, or too small for a distance raises ValueError.
    """
    if image.ndim != 2 or not bool(torch.isfinite(image).all()):
        raise ValueError(f"image must be finite with shape (rows, cols), got {image.dtype} {tuple(image.shape)}")
    target, values = image[None, None], {}
    with torch.no_grad():
        for kind, of_kind in levels.items():
            outputs = [_degraded(target, kind, level, seed) for level in of_kind]
            values[kind] = {name: distance(outputs, target) for name, distance in distances.items()}
    return values


def _degraded(images: Tensor, kind: str, level: float, seed: int) -> Tensor:
    return noisy(images, level, seed=seed) if kind == "noise" else blurred(images, level)


def summarize_curve(levels: Sequence[float], values: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Mean and spread of curves (images, levels) over images, and what can be said of their shape.

    ``spearman`` is Spearman's rho of the mean and the level, None for a constant mean; ``rising`` the fraction of
    images in which the distance rises from each level to the next; ``convex`` the fraction of second differences of
    the mean that are not negative. Levels that do not rise, or are fewer than three, raise ValueError.
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


def draw_noise_and_blur(
    path: str | Path, images: FigureImages, distances: Mapping[str, Distance], *, num_images: int, seed: int
) -> dict[str, Any]:
    """The figure of images that are evenly spaced over all slices is written; its numbers are returned."""
    places = images.evenly(num_images)
    found: dict[Place, dict[str, dict[str, list[float]]]] = {}
    for place, image in tqdm(images.with_signal(places), desc="Noise and blur", unit="image", total=len(places)):
        found[place] = degradation_values(distances, image, seed=seed + len(found))
    values, curves = {}, {}
    for kind, levels in LEVELS.items():
        values[kind] = {name: [of_image[kind][name] for of_image in found.values()] for name in distances}
        curves[kind] = {name: summarize_curve(levels, rows) for name, rows in values[kind].items()}
    middle = len(found) // 2
    example = images.read(list(found)[middle]).cpu()
    save_degradation_curves(path, LEVELS, curves, example, num_images=len(found), seed=seed + middle)
    return {"images": [images.label(place) for place in found], "levels": LEVELS, "curves": curves, "values": values}


def save_degradation_curves(
    path: str | Path,
    levels: Mapping[str, Sequence[float]],
    curves: Mapping[str, Mapping[str, Mapping[str, Any]]],
    example: Tensor,
    *,
    num_images: int,
    seed: int = 0,
) -> None:
    """A PNG, JPG or PDF has a row for noise and one for blur.

    In each row: UFLoss with its spread over the images; all distances, divided by their values at the largest level,
    with Spearman's rho; and an example (rows, cols) at three levels. Curves are of `summarize_curve` by kind and name
    of the distance, and without UFLoss raise ValueError; the seed is that of the example's noise.
    """
    for kind in levels:
        if "UFLoss" not in curves[kind]:
            raise ValueError(f"curves[{kind!r}] must have 'UFLoss', got {sorted(curves[kind])}")
    figure = Figure(figsize=(13, 2.9 * len(levels) + 0.4), layout="constrained")
    ratios = [3.1, 3.1, *[2.5 * min(1.0, example.shape[1] / example.shape[0])] * 3]
    axes = figure.subplots(len(levels), len(ratios), squeeze=False, width_ratios=ratios)
    white = drawing.white_of(example.abs().numpy())
    for (kind, of_kind), (own, every, *examples) in zip(levels.items(), axes, strict=True):
        positions = np.asarray(of_kind) * (100 if kind == "noise" else 1)
        mean, std = (np.asarray(curves[kind]["UFLoss"][name]) for name in ("mean", "std"))
        own.fill_between(positions, mean - std, mean + std, alpha=0.25, linewidth=0)
        label = f"mean ± SD of {num_images} images" if num_images > 1 else "one image"
        own.plot(positions, mean, marker="o", markersize=3.5, label=label)
        own.set(ylabel=r"UFLoss, mean $|f(p) - f(\hat p)|^2$", ylim=(0, None))
        for index, (name, curve) in enumerate(curves[kind].items()):
            mean = np.asarray(curve["mean"])
            rho = "-" if curve["spearman"] is None else f"{curve['spearman']:.2f}"
            style = {"linestyle": _STYLES[index % len(_STYLES)], "linewidth": 2.2 if name == "UFLoss" else 1.4}
            every.plot(
                positions, mean / (mean[-1] or 1.0), color=f"C{index}", label=rf"{name}, $\rho$ = {rho}", **style
            )
        every.set(ylabel="mean / its value at the last level", ylim=(0, 1.05))
        for axis in (own, every):
            axis.set(xlabel=_AXES[kind], xlim=(positions[0], positions[-1]))
            axis.grid(alpha=0.3)
            axis.legend(loc="upper left", fontsize=8, frameon=False)
        for axis, level in zip(examples, (of_kind[0], of_kind[len(of_kind) // 2], of_kind[-1]), strict=True):
            drawing.show(axis, _degraded(example[None], kind, level, seed)[0].abs().numpy(), white)
            axis.set_title(f"b = {100 * level:g}%" if kind == "noise" else f"R = {level:g}", fontsize=10)
            axis.set_axis_off()
    drawing.write_figure(path, figure, dpi=150)
