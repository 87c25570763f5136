"""Figure 4A of the UFLoss paper: distances of images that get more and more noise, or blur."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from fastmri_ufloss.mri.degradation import blurred, noisy
from fastmri_ufloss.report.figures.picture import write_figure

__all__ = ["save_degradation_curves"]

_FIRST = "UFLoss"
_AXES = {"noise": r"noise $b$ (%), $x_p = (1 - b)\,x + b\,n$", "blur": "blur $R$, central $1/R$ of k-space"}
_STYLES = ("-", "--", "-.", ":")
_NUM_EXAMPLES = 3


def save_degradation_curves(
    path: str | Path,
    levels: Mapping[str, Sequence[float]],
    curves: Mapping[str, Mapping[str, Mapping[str, Any]]],
    example: Tensor,
    *,
    num_images: int,
    seed: int = 0,
    title: str = "",
) -> None:
    """Draw the curves: a row for noise and one for blur.

    In each row: UFLoss in its own unit with its spread over the images; all distances, each divided by its value at
    the largest level, with Spearman's rho of the mean curve and the level; and an image at the lowest, the middle
    and the highest level.

    Args:
        path: of the picture, see `write_figure`.
        levels: by ``"noise"`` (shares) and ``"blur"`` (factors).
        curves: of each distance at these, as `summarize_curve` describes them; one is called UFLoss.
        example: (rows, cols), complex or magnitude.
        num_images: that the curves are the mean of.
        seed: of the noise of the example.
        title: above the picture.

    Raises:
        ValueError: if there is no curve of UFLoss, or the suffix is another one.
    """
    for kind in levels:
        if _FIRST not in curves[kind]:
            raise ValueError(f"curves[{kind!r}] must have {_FIRST!r}, got {sorted(curves[kind])}")
    figure = Figure(figsize=(13, 2.9 * len(levels) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    width = 2.5 * min(1.0, example.shape[1] / example.shape[0])
    axes = figure.subplots(
        len(levels), 2 + _NUM_EXAMPLES, squeeze=False, width_ratios=[3.1, 3.1, *[width] * _NUM_EXAMPLES]
    )
    for (kind, values), row in zip(levels.items(), axes, strict=True):
        positions = np.asarray(values) * (100 if kind == "noise" else 1)
        _draw_first(row[0], positions, curves[kind][_FIRST], num_images)
        _draw_all(row[1], positions, curves[kind])
        for axis in row[:2]:
            axis.set_xlabel(_AXES[kind])
            axis.set_xlim(positions[0], positions[-1])
            axis.grid(alpha=0.3)
        _draw_examples(row[2:], kind, values, example, seed)
    if title:
        figure.suptitle(title, fontsize=11)
    write_figure(path, figure, dpi=150)


def _draw_first(axis: Axes, positions: np.ndarray, curve: Mapping[str, Any], num_images: int) -> None:
    mean, std = np.asarray(curve["mean"]), np.asarray(curve["std"])
    axis.fill_between(positions, mean - std, mean + std, alpha=0.25, linewidth=0)
    label = f"mean ± SD of {num_images} images" if num_images > 1 else "one image"
    axis.plot(positions, mean, marker="o", markersize=3.5, label=label)
    axis.set_ylabel(r"UFLoss, mean $|f(p) - f(\hat p)|^2$")
    axis.set_ylim(bottom=0)
    axis.legend(loc="upper left", fontsize=8, frameon=False)


def _draw_all(axis: Axes, positions: np.ndarray, curves: Mapping[str, Mapping[str, Any]]) -> None:
    for index, (name, curve) in enumerate(curves.items()):
        mean = np.asarray(curve["mean"])
        rho = "-" if curve["spearman"] is None else f"{curve['spearman']:.2f}"
        style: dict[str, Any] = {
            "linestyle": _STYLES[index % len(_STYLES)],
            "linewidth": 2.2 if name == _FIRST else 1.4,
        }
        axis.plot(positions, mean / (mean[-1] or 1.0), color=f"C{index}", label=rf"{name}, $\rho$ = {rho}", **style)
    axis.set_ylabel("mean / its value at the last level")
    axis.set_ylim(0, 1.05)
    axis.legend(loc="upper left", fontsize=8, frameon=False)


def _draw_examples(axes: Sequence[Axes], kind: str, levels: Sequence[float], example: Tensor, seed: int) -> None:
    image = example[None]
    top = float(np.percentile(example.abs().numpy(), 99.5)) or 1.0
    for axis, number in zip(axes, (0, len(levels) // 2, len(levels) - 1), strict=True):
        level = levels[number]
        changed = noisy(image, level, seed=seed) if kind == "noise" else blurred(image, level)
        axis.imshow(changed[0].abs().numpy(), cmap="gray", vmin=0, vmax=top)
        axis.set_title(f"b = {100 * level:g}%" if kind == "noise" else f"R = {level:g}", fontsize=10)
        axis.set_axis_off()
