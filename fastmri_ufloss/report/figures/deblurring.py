"""Figure 4B of the UFLoss paper: an image on its way down UFLoss alone, from blurred to sharp."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import trange

from fastmri_ufloss.losses.ufloss import UFLoss, patch_features, ufloss_per_image
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.figures import drawing
from fastmri_ufloss.report.figures.images import FigureImages, Place
from fastmri_ufloss.report.figures.noise_and_blur import blurred

__all__ = ["LR", "Descent", "descend", "draw_deblurring", "save_descent", "summarize_descent"]

LR = {"sgd": 2e-4, "adam": 0.005}
"""Step sizes with which UFLoss fell steadily; that of gradient descent is for each pixel."""

_COLUMN = 1.75  # inches


class Descent(NamedTuple):
    """The steps at which an image was measured, from 0 to the last, with its UFLoss of the whole grid and
    |x - t| / |t|, in which errors of the phase count, and the images (rows, cols) of some, in the unit of the target.
    """

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
    patches_per_step: int | None = 64,
    stride: int = 5,
    measure_stride: int = 10,
    measure_every: int = 10,
    num_images: int = 2,
    chunk_size: int = 256,
    seed: int = 0,
) -> Descent:
    """An image is changed step by step so that its UFLoss falls.

        x <- x - lr N dL / dx        with N pixels: the gradient of a mean gets smaller with their number

    The gradient is that of `UFLoss` in training. Images are divided by `image_scale` of the target: lr has no unit.

    Args:
        start, target: x and t, (rows, cols), complex or real as the network has it.
        num_steps: of the descent.
        optimizer: ``"sgd"`` for plain gradient descent as above, eq. 14 of the paper, or ``"adam"``, without N.
        lr: step size, that of ``LR`` if not given.
        patches_per_step: see `UFLoss`; None for the whole grid.
        stride: of the grid of the gradient.
        measure_stride: of the grid that is measured.
        measure_every: steps between two measurements; the last step is measured too.
        num_images: to keep on the way, start and end included; more of them at first, where they change most.
        chunk_size: patches that go through the network at once.
        seed: of the patches; torch's generator is left as it was.

    Raises:
        ValueError: if an argument is not as above, or start is target.

    Wang et al., MRM 2022, figure 4B.
    """
    if target.ndim != 2 or start.shape != target.shape or start.is_complex() != target.is_complex():
        got = f"{start.dtype} {tuple(start.shape)} and {target.dtype} {tuple(target.shape)}"
        raise ValueError(f"start and target must both be (rows, cols), both complex or both real, got {got}")
    if torch.equal(start, target):
        raise ValueError("start must differ from target, got equal images")
    counts = {"num_steps": (num_steps, 1), "measure_every": (measure_every, 1), "num_images": (num_images, 2)}
    for name, (count, least) in counts.items():
        if count < least:
            raise ValueError(f"{name} must be at least {least}, got {count}")
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
    """Where a descent ended relative to its start, whether no measured value is above the one before, and the largest
    rise of UFLoss between two measurements, relative to its start.
    """
    rises, nrmse_rises = np.diff(descent.ufloss), np.diff(descent.nrmse)
    return {
        "ufloss_ratio": descent.ufloss[-1] / descent.ufloss[0],
        "nrmse_ratio": descent.nrmse[-1] / descent.nrmse[0],
        "monotone": bool((rises <= 0).all()),
        "nrmse_monotone": bool((nrmse_rises <= 0).all()),
        "largest_rise": max(0.0, float(rises.max())) / descent.ufloss[0],
    }


def draw_deblurring(
    path: str | Path, images: FigureImages, place: Place, *, size: int, factor: float, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The figure of the middle of an image, ``size`` pixels wide and high at most; the numbers are returned.

    Factor is that of the blur, options are those of `descend`; a size below that of a patch raises ValueError.
    """
    if size < images.net.patch_size:
        raise ValueError(f"size must be at least that of a patch, {images.net.patch_size}, got {size}")
    image = images.read(place)
    rows, cols = (min(size, n) for n in image.shape)
    row, col = (image.shape[0] - rows) // 2, (image.shape[1] - cols) // 2
    target = image[row : row + rows, col : col + cols]
    descent = descend(images.net, blurred(target[None], factor)[0], target, **options)
    save_descent(path, target, descent)
    numbers = {name: value for name, value in descent._asdict().items() if name != "images"}
    place_in_words = {"image": images.label(place), "size": list(target.shape), "factor": factor}
    return {**place_in_words, **numbers, **summarize_descent(descent)}


def save_descent(path: str | Path, target: Tensor, descent: Descent) -> None:
    """A PNG, JPG or PDF has the curves of UFLoss and NRMSE, and below them images at some steps, each with a zoom.

    The target (rows, cols) gives the gray scale; an image of another shape or of no measured step raises ValueError.
    """
    shown = {}
    for step, image in descent.images.items():
        if image.shape != target.shape or step not in descent.steps:
            got = f"{tuple(image.shape)} at step {step}, target {tuple(target.shape)}"
            raise ValueError(f"images must have the shape of target and a step that was measured, got {got}")
        at, name = descent.steps.index(step), f"step {step}" if step else "start, blurred"
        shown[f"{name}\nUFLoss {descent.ufloss[at]:.3f}\nNRMSE {descent.nrmse[at]:.3f}"] = image
    shown["target\n\n"] = target
    height = _COLUMN * target.shape[0] / target.shape[1]
    figure = Figure(figsize=(_COLUMN * len(shown), 2.6 + height + _COLUMN + 0.75), layout="constrained")
    grid = figure.add_gridspec(3, len(shown), height_ratios=[2.4, height, _COLUMN])
    _draw_curves(figure.add_subplot(grid[0, :]), descent)
    reference = target.abs().cpu().numpy()
    white, square = drawing.white_of(reference), drawing.most_textured(reference)
    for column, (caption, image) in enumerate(shown.items()):
        whole, zoom = (figure.add_subplot(grid[row, column]) for row in (1, 2))
        drawing.show_with_zoom(whole, zoom, image.abs().cpu().numpy(), white, square, linewidth=0.8)
        whole.set_title(caption, fontsize=8.5)
        whole.set_axis_off()
        zoom.set_axis_off()
    drawing.write_figure(path, figure, dpi=170)


def _draw_curves(axis: Axes, descent: Descent) -> None:
    steps = np.array(descent.steps)
    is_marked = np.isin(steps, list(descent.images))
    for place, values, color, name in (
        (axis, descent.ufloss, "C0", r"UFLoss, mean $|f(p) - f(\hat p)|^2$"),
        (axis.twinx(), descent.nrmse, "C3", "NRMSE, |x - t| / |t|"),
    ):
        place.plot(steps, values, color=color)
        place.plot(steps[is_marked], np.array(values)[is_marked], "o", color=color, markersize=4, clip_on=False)
        place.set_ylabel(name, color=color)
        place.tick_params(axis="y", colors=color)
        place.set_ylim(0, 1.08 * max(values))
    axis.set(xlabel="step of descent on UFLoss", xlim=(steps[0], steps[-1]))
    axis.grid(alpha=0.3)
