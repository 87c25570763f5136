"""Figure 4 of the UFLoss paper: how images change with noise and blur, and what descent on UFLoss makes of a blur."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from fastmri.data.transforms import center_crop
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor, nn
from tqdm import tqdm, trange

from fastmri_ufloss.losses.images import l2_loss
from fastmri_ufloss.losses.perceptual import perceptual_loss
from fastmri_ufloss.losses.ssim import dssim_loss
from fastmri_ufloss.losses.ufloss import UFLoss, check_at_least_one, patch_features, ufloss_per_image
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.figures import drawing
from fastmri_ufloss.report.figures.images import FigureImages, Place

__all__ = ["LR", "blurred", "descend", "draw_deblurring", "draw_noise_and_blur", "make_distances", "noisy"]

LEVELS = {
    "noise": tuple(level / 100 for level in range(11)),
    "blur": tuple(round(1 + 0.3 * level, 1) for level in range(11)),
}
"""No degradation, and ten levels: fractions of noise up to 10%, cropping factors of k-space up to 4."""
LR = {"sgd": 2e-4, "adam": 0.005}
"""Step sizes with which UFLoss fell steadily; that of gradient descent is for each pixel."""

_AXES = {"noise": r"noise $b$ (%), $x_p = (1 - b)\,x + b\,n$", "blur": "blur $R$, central $1/R$ of k-space"}
_UFLOSS = r"UFLoss, mean $|f(p) - f(\hat p)|^2$"
_COLUMN = 1.75  # inches

Values = dict[str, dict[str, list[float]]]  # at each level, by kind and distance
Curves = Mapping[str, Mapping[str, Any]]
"""What `summarize_curve` gives, by the name of the distance."""
Distance = Callable[[Tensor, Tensor], Tensor]
"""From outputs and targets (batch, 1, rows, cols), which are one image, to their distances (batch,)."""


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


def _degraded(images: Tensor, kind: str, level: float, seed: int) -> Tensor:
    return noisy(images, level, seed=seed) if kind == "noise" else blurred(images, level)


def make_distances(
    feature_net: nn.Module, *, vgg: nn.Module | None = None, stride: int = 20, chunk_size: int = 256
) -> dict[str, Distance]:
    """The distances of figure 4A by name: UFLoss, MSE, DSSIM, and VGG if there is a network for it.

    Args:
        stride: of the grid of UFLoss. Its mean over the patches hardly depends on it, its time does.
        chunk_size: patches that go through the network at once.
    """

    def ufloss(outputs: Tensor, targets: Tensor) -> Tensor:
        grid: dict[str, Any] = {"stride": stride, "chunk_size": chunk_size}
        features = patch_features(feature_net, targets[:1], image_scale(targets[:1]), **grid)
        features = features.expand(len(outputs), -1, -1)
        return ufloss_per_image(feature_net, outputs, targets, target_features=features, **grid)

    def dssim(outputs: Tensor, targets: Tensor) -> Tensor:
        return dssim_loss(outputs, targets, targets.abs().max(), reduction="none")

    distances: dict[str, Distance] = {"UFLoss": ufloss, "MSE": partial(l2_loss, reduction="none"), "DSSIM": dssim}
    if vgg is not None:
        distances["VGG"] = partial(perceptual_loss, vgg, reduction="none")
    return distances


@torch.no_grad()
def degradation_values(distances: Mapping[str, Distance], image: Tensor, *, seed: int = 0) -> Values:
    """The distances of an image (rows, cols) from itself with noise, and blurred, by kind and name at each level."""
    target, values = image[None, None], {}
    for kind, levels in LEVELS.items():
        outputs = torch.cat([_degraded(target, kind, level, seed) for level in levels])
        targets = target.expand_as(outputs)
        values[kind] = {name: distance(outputs, targets).tolist() for name, distance in distances.items()}
    return values


def summarize_curve(levels: Sequence[float], values: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Mean and spread of curves (images, levels) over images, and Spearman's rho of the mean and the level.

    ``rising`` is the fraction of images in which the distance rises from each level to the next, ``convex`` that of
    the second differences of the mean that are not negative.
    """
    curves = np.asarray(values, dtype=float)
    mean = curves.mean(axis=0)
    slopes = np.diff(mean) / np.diff(levels)
    return {
        "mean": mean.tolist(),
        "std": curves.std(axis=0).tolist(),
        "spearman": float(spearmanr(levels, mean).statistic) if np.ptp(mean) > 0 else None,
        "rising": float((np.diff(curves, axis=1) > 0).all(axis=1).mean()),
        "convex": float((np.diff(slopes) >= 0).mean()),
    }


def draw_noise_and_blur(
    path: str | Path, images: FigureImages, distances: Mapping[str, Distance], *, num_images: int, seed: int
) -> dict[str, Any]:
    """Figure 4A of images that are evenly spaced over all slices is written; its numbers are returned."""
    places = images.evenly(num_images)
    by_place: dict[Place, Values] = {}
    for place, image in tqdm(images.with_signal(places), desc="Noise and blur", unit="image", total=len(places)):
        by_place[place] = degradation_values(distances, image, seed=seed + len(by_place))
    values, curves = {}, {}
    for kind, levels in LEVELS.items():
        values[kind] = {name: [of_image[kind][name] for of_image in by_place.values()] for name in distances}
        curves[kind] = {name: summarize_curve(levels, rows) for name, rows in values[kind].items()}
    middle = len(by_place) // 2
    example = images.read(list(by_place)[middle]).cpu()
    save_degradation_curves(path, curves, example, num_images=len(by_place), seed=seed + middle)
    return {"images": list(map(images.label, by_place)), "levels": LEVELS, "curves": curves, "values": values}


def save_degradation_curves(
    path: str | Path, curves: Mapping[str, Curves], example: Tensor, *, num_images: int, seed: int = 0
) -> None:
    """Noise and blur have a row each: UFLoss and its spread, all distances relative to their last, and an example."""
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    ratios = [3.1, 3.1, *[2.5 * min(1.0, example.shape[1] / example.shape[0])] * 3]
    axes = figure.subplots(len(LEVELS), len(ratios), width_ratios=ratios)
    white = drawing.white_of(example.abs().numpy())
    for (kind, levels), (ufloss, every, *examples) in zip(LEVELS.items(), axes, strict=True):
        unit = 100 if kind == "noise" else 1
        positions = unit * np.array(levels)
        mean, std = (np.array(curves[kind]["UFLoss"][name]) for name in ("mean", "std"))
        ufloss.fill_between(positions, mean - std, mean + std, alpha=0.25, linewidth=0)
        label = f"mean ± SD of {num_images} images" if num_images > 1 else "one image"
        ufloss.plot(positions, mean, marker="o", markersize=3.5, label=label)
        ufloss.set(ylabel=_UFLOSS, ylim=(0, None))
        for (name, curve), style in zip(curves[kind].items(), ("-", "--", "-.", ":"), strict=False):
            mean = np.array(curve["mean"]) / (curve["mean"][-1] or 1.0)
            rho = "-" if curve["spearman"] is None else f"{curve['spearman']:.2f}"
            width = 2.2 if name == "UFLoss" else 1.4
            every.plot(positions, mean, linestyle=style, linewidth=width, label=rf"{name}, $\rho$ = {rho}")
        every.set(ylabel="mean / its value at the last level", ylim=(0, 1.05))
        for axis in (ufloss, every):
            axis.set(xlabel=_AXES[kind], xlim=(positions[0], positions[-1]))
            axis.grid(alpha=0.3)
            axis.legend(loc="upper left", fontsize=8, frameon=False)
        for axis, index in zip(examples, (0, len(levels) // 2, -1), strict=True):
            shown = _degraded(example[None], kind, levels[index], seed)[0]
            drawing.show(axis, shown.abs().numpy(), white)
            axis.set_title(f"b = {positions[index]:g}%" if kind == "noise" else f"R = {levels[index]:g}", fontsize=10)
            axis.set_axis_off()
    drawing.write_figure(path, figure, dpi=150)


class Descent(NamedTuple):
    """Steps, UFLoss of the whole grid and |x - t| / |t| when an image was measured, and the image of some steps."""

    optimizer: str
    steps: list[int]
    ufloss: list[float]
    nrmse: list[float]
    images: dict[int, Tensor]


def descend(
    feature_net: nn.Module,
    start: Tensor,
    target: Tensor,
    *,
    num_steps: int = 300,
    optimizer: Literal["sgd", "adam"] = "sgd",
    lr: float | None = None,
    patches_per_step: int | None = None,
    stride: int | None = None,
    measure_stride: int = 10,
    measure_every: int = 10,
    num_images: int = 2,
    chunk_size: int = 256,
    seed: int = 0,
) -> Descent:
    """An image is changed step by step so that its UFLoss falls.

        x <- x - lr N dL / dx        with N pixels: the gradient of a mean gets smaller with their number

    The gradient is that of `UFLoss` in training. The images, (rows, cols), complex or real as the network has them,
    are divided by `image_scale` of the target: lr has no unit. Bad arguments, or start as target, raise ValueError.
    (Wang et al., MRM 2022, figure 4B.)

    Args:
        num_steps: of the descent.
        optimizer: ``"sgd"`` for plain gradient descent as above, eq. 14 of the paper, or ``"adam"``, without N.
        lr: step size, that of ``LR`` if not given.
        patches_per_step, stride: of the gradient, see `UFLoss`.
        measure_stride: of the grid that is measured.
        measure_every: steps between two measurements; the last step is measured too.
        num_images: to keep on the way, start and end included; more of them at first, where they change most.
        chunk_size: patches that go through the network at once.
        seed: of the patches; torch's generator is left as it was.
    """
    if torch.equal(start, target):
        raise ValueError("start must differ from target, got equal images")
    check_at_least_one(num_steps=num_steps, measure_every=measure_every)
    if num_images < 2:
        raise ValueError(f"num_images must be at least 2, got {num_images}")
    if optimizer not in LR:
        raise ValueError(f"optimizer must be one of {', '.join(LR)}, got {optimizer!r}")
    lr = LR[optimizer] if lr is None else lr
    if not lr > 0:
        raise ValueError(f"lr must be positive, got {lr}")
    keep = {round(num_steps * (i / (num_images - 1)) ** 2) for i in range(num_images)}
    scale = image_scale(target[None])
    wanted, x = target[None, None] / scale, (start[None, None] / scale).clone()
    values = (torch.view_as_real(x) if x.is_complex() else x).requires_grad_()
    loss = UFLoss(feature_net, stride=stride, patches_per_step=patches_per_step, chunk_size=chunk_size).train()
    is_adam = optimizer == "adam"
    rule = torch.optim.Adam([values], lr=lr) if is_adam else torch.optim.SGD([values], lr=lr * wanted.numel())
    grid: dict[str, Any] = {"stride": measure_stride, "chunk_size": chunk_size}
    grid["target_features"] = patch_features(feature_net, wanted, image_scale(wanted), **grid)
    result = Descent(optimizer, [], [], [], {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in trange(num_steps + 1, desc="Descent on UFLoss", unit="step", delay=2):
            image = torch.view_as_complex(values) if x.is_complex() else values
            if step % measure_every == 0 or step == num_steps or step in keep:
                with torch.no_grad():
                    result.steps.append(step)
                    result.ufloss.append(float(ufloss_per_image(feature_net, image, wanted, **grid)))
                    result.nrmse.append(float((image - wanted).norm() / wanted.norm()))
                    if step in keep:
                        result.images[step] = (image * scale)[0, 0].clone()
            if step < num_steps:
                rule.zero_grad()
                loss(image, wanted).backward()
                rule.step()
    return result


def summarize_descent(descent: Descent) -> dict[str, Any]:
    """The end and the largest rise between measurements relative to the start, and whether there is no rise."""
    ufloss, nrmse = np.array(descent.ufloss), np.array(descent.nrmse)
    return {
        "ufloss_ratio": float(ufloss[-1] / ufloss[0]),
        "nrmse_ratio": float(nrmse[-1] / nrmse[0]),
        "monotone": bool((np.diff(ufloss) <= 0).all()),
        "nrmse_monotone": bool((np.diff(nrmse) <= 0).all()),
        "largest_rise": float(np.diff(ufloss).max(initial=0.0) / ufloss[0]),
    }


def draw_deblurring(
    path: str | Path, images: FigureImages, place: Place, *, size: int, factor: float, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Figure 4B of the middle of an image, ``size`` pixels wide and high at most, is written; returns the numbers.

    Factor is that of the blur, options are those of `descend`; a size below that of a patch raises ValueError.
    """
    if size < images.net.patch_size:
        raise ValueError(f"size must be at least that of a patch, {images.net.patch_size}, got {size}")
    image = images.read(place)
    target = center_crop(image, (min(size, image.shape[0]), min(size, image.shape[1])))
    descent = descend(images.net, blurred(target[None], factor)[0], target, **options)
    save_descent(path, target, descent)
    numbers = {name: value for name, value in descent._asdict().items() if name != "images"}
    shown = {"image": images.label(place), "size": list(target.shape), "factor": factor}
    return {**shown, **numbers, **summarize_descent(descent)}


def save_descent(path: str | Path, target: Tensor, descent: Descent) -> None:
    """The curves of UFLoss and NRMSE, and below them images at some steps and the target, each with a zoom."""
    captions = {}
    for step, ufloss, nrmse in zip(descent.steps, descent.ufloss, descent.nrmse, strict=True):
        name = f"step {step}" if step else "start, blurred"
        captions[step] = f"{name}\nUFLoss {ufloss:.3f}\nNRMSE {nrmse:.3f}"
    shown = {captions[step]: image for step, image in descent.images.items()} | {"target\n\n": target}
    height = _COLUMN * target.shape[0] / target.shape[1]
    figure = Figure(figsize=(_COLUMN * len(shown), 2.6 + height + _COLUMN + 0.75), layout="constrained")
    grid = figure.add_gridspec(3, len(shown), height_ratios=[2.4, height, _COLUMN])
    _draw_descent(figure.add_subplot(grid[0, :]), descent)
    reference = target.abs().cpu().numpy()
    white, square = drawing.white_of(reference), drawing.most_textured(reference)
    for column, (caption, image) in enumerate(shown.items()):
        whole, zoom = (figure.add_subplot(grid[row, column]) for row in (1, 2))
        drawing.show_with_zoom(whole, zoom, image.abs().cpu().numpy(), white, square, linewidth=0.8)
        whole.set_title(caption, fontsize=8.5)
        whole.set_axis_off()
        zoom.set_axis_off()
    drawing.write_figure(path, figure, dpi=170)


def _draw_descent(axis: Axes, descent: Descent) -> None:
    marks = [descent.steps.index(step) for step in descent.images]
    for place, values, color, name in (
        (axis, descent.ufloss, "C0", _UFLOSS),
        (axis.twinx(), descent.nrmse, "C3", "NRMSE, |x - t| / |t|"),
    ):
        place.plot(descent.steps, values, "-o", color=color, markersize=4, markevery=marks, clip_on=False)
        place.set_ylabel(name, color=color)
        place.tick_params(axis="y", colors=color)
        place.set_ylim(0, 1.08 * max(values))
    axis.set(xlabel="step of descent on UFLoss", xlim=(0, descent.steps[-1]))
    axis.grid(alpha=0.3)
