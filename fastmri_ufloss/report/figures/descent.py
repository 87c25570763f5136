"""Figure 4B of the UFLoss paper: an image on its way down UFLoss, from blurred to sharp."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fastmri_ufloss.report.figures.picture import most_textured, write_figure

__all__ = ["save_descent"]

_COLUMN = 1.75  # inches
_UFLOSS, _NRMSE = "C0", "C3"


def save_descent(
    path: str | Path,
    target: np.ndarray,
    images: Mapping[int, np.ndarray],
    *,
    steps: Sequence[int],
    ufloss: Sequence[float],
    nrmse: Sequence[float],
    title: str = "",
) -> None:
    """Draw the curves of UFLoss and NRMSE over the steps, and below them images at some steps, each with a zoom.

    Args:
        path: of the picture, see `write_figure`.
        target: magnitude (rows, cols), it gives the grey scale and the place of the zoom.
        images: magnitudes by step; each is one of ``steps``.
        steps: where the curves were measured.
        ufloss, nrmse: the curves.
        title: above the picture.

    Raises:
        ValueError: if an image has another shape, its step was not measured, or the suffix is another one.
    """
    for at, image in images.items():
        if image.shape != target.shape or at not in steps:
            raise ValueError(
                f"images must have the shape of target {target.shape} and a step that was measured, got "
                f"{image.shape} at step {at}"
            )
    columns = len(images) + 1
    height = _COLUMN * target.shape[0] / target.shape[1]
    figure = Figure(figsize=(_COLUMN * columns, 2.6 + height + _COLUMN + 0.75), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, columns, height_ratios=[2.4, height, _COLUMN])
    _draw_curves(figure.add_subplot(grid[0, :]), steps, ufloss, nrmse, list(images))
    top = float(np.percentile(target, 99.5)) or 1.0
    row, col, side = most_textured(target)
    shown: list[tuple[int | None, np.ndarray]] = [*images.items(), (None, target)]
    for column, (step, image) in enumerate(shown):
        whole, zoom = figure.add_subplot(grid[1, column]), figure.add_subplot(grid[2, column])
        whole.imshow(image, cmap="gray", vmin=0, vmax=top)
        whole.add_patch(Rectangle((col - 0.5, row - 0.5), side, side, fill=False, edgecolor="gold", linewidth=0.8))
        zoom.imshow(image[row : row + side, col : col + side], cmap="gray", vmin=0, vmax=top)
        whole.set_title(_caption(step, steps, ufloss, nrmse), fontsize=8.5)
        for axis in (whole, zoom):
            axis.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=11)
    write_figure(path, figure, dpi=170)


def _draw_curves(
    axis: Axes, steps: Sequence[int], ufloss: Sequence[float], nrmse: Sequence[float], marked: Sequence[int]
) -> None:
    other = axis.twinx()
    for place, values, color, name in (
        (axis, ufloss, _UFLOSS, r"UFLoss, mean $|f(p) - f(\hat p)|^2$"),
        (other, nrmse, _NRMSE, "NRMSE, |x - t| / |t|"),
    ):
        place.plot(steps, values, color=color)
        at = [step for step in steps if step in marked]
        place.plot(at, [values[steps.index(step)] for step in at], "o", color=color, markersize=4, clip_on=False)
        place.set_ylabel(name, color=color)
        place.tick_params(axis="y", colors=color)
        place.set_ylim(0, 1.08 * max(values))
    axis.set_xlabel("step of descent on UFLoss")
    axis.set_xlim(steps[0], steps[-1])
    axis.grid(alpha=0.3)


def _caption(step: int | None, steps: Sequence[int], ufloss: Sequence[float], nrmse: Sequence[float]) -> str:
    if step is None:
        return "target\n\n"
    at = steps.index(step)
    name = "start, blurred" if step == 0 else f"step {step}"
    return f"{name}\nUFLoss {ufloss[at]:.3f}\nNRMSE {nrmse[at]:.3f}"
