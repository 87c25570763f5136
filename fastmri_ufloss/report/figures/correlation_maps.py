"""Figures 5B, S1 and S2 of the UFLoss paper: where in some images a patch of the first finds its like."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fastmri_ufloss.report.figures.picture import write_figure

__all__ = ["MappedImage", "save_best_matches", "save_correlation_maps"]

PATCH_COLORS = ("limegreen", "deepskyblue", "orange", "magenta")
_COLUMN = 2.1  # inches
_HEAT = "inferno"


class MappedImage(NamedTuple):
    """An image and its maps for each source patch.

    Args:
        name: of the image, such as "another subject".
        image: magnitude (rows, cols).
        maps: by the name of the measure, (patches, rows, cols) of the grid.
        matches: by the name of the measure, upper left corner of the best patch and its value, for each source patch.
    """

    name: str
    image: np.ndarray
    maps: Mapping[str, np.ndarray]
    matches: Mapping[str, Sequence[tuple[int, int, float]]]


def save_correlation_maps(
    path: str | Path,
    images: Sequence[MappedImage],
    corners: Sequence[tuple[int, int]],
    *,
    patch_size: int,
    stride: int,
    title: str = "",
) -> None:
    """Draw a row for each image: the image, and for each measure and source patch the map.

    The source patches are outlined in the first image, each in a colour that its maps have as border. A map shows
    positive values only, from 0 to 1, at the centre of each patch; a white cross is where it is largest.

    Args:
        path: of the picture, see `write_figure`.
        images: the first one has the source patches.
        corners: their upper left corners.
        patch_size: rows and columns of a patch.
        stride: of the grid of the maps.
        title: above the picture.

    Raises:
        ValueError: if there is no image, there are no patches or more than 4, or the suffix is another one.
    """
    _check(images, corners)
    measures = list(images[0].maps)
    columns = [(measure, index) for measure in measures for index in range(len(corners))]
    heights = [_COLUMN * item.image.shape[0] / item.image.shape[1] for item in images]
    figure = Figure(figsize=(_COLUMN * (1 + len(columns)) + 0.9, sum(heights) + 0.35), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), 1 + len(columns), squeeze=False, height_ratios=heights)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for item, row in zip(images, axes, strict=True):
        _show(row[0], item.image)
        row[0].set_ylabel(item.name, fontsize=8.5)
        for axis, (measure, index) in zip(row[1:], columns, strict=True):
            _heat(axis, item, measure, index, patch_size, stride)
    for (top, left), color in zip(corners, PATCH_COLORS, strict=False):
        _outline(axes[0, 0], top, left, patch_size, color)
    axes[0, 0].set_title("image", fontsize=9)
    for axis, (measure, _) in zip(axes[0, 1:], columns, strict=True):
        axis.set_title(measure, fontsize=9)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), _HEAT), ax=axes, fraction=0.02, pad=0.01)
    bar.set_label("inner product of the features, or SSIM", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if title:
        figure.suptitle(title, fontsize=10)
    write_figure(path, figure, dpi=150)


def save_best_matches(
    path: str | Path,
    images: Sequence[MappedImage],
    corners: Sequence[tuple[int, int]],
    *,
    patch_size: int,
    title: str = "",
) -> None:
    """Draw a row for each source patch: the patch, and the patch of each other image that is best by each measure.

    Each image has its own grey scale, up to its 99.5th percentile. Under a patch is the value of the measure.

    Args:
        path, images, corners, patch_size, title: as in `save_correlation_maps`; at least two images.

    Raises:
        ValueError: if there are fewer than two images, or as in `save_correlation_maps`.
    """
    _check(images, corners)
    source, others = images[0], images[1:]
    if not others:
        raise ValueError("images must be at least two, the source and another one, got one")
    measures = list(source.maps)
    columns = 1 + len(others) * len(measures)
    cell = 1.5
    figure = Figure(figsize=(cell * columns, (cell + 0.2) * len(corners) + 0.45), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(corners), columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for index, ((row, col), places) in enumerate(zip(corners, axes, strict=True)):
        _show_patch(places[0], source.image, row, col, patch_size, PATCH_COLORS[index])
        column = 1
        for item in others:
            for measure in measures:
                best_row, best_col, value = item.matches[measure][index]
                _show_patch(places[column], item.image, best_row, best_col, patch_size, "0.6")
                places[column].set_xlabel(f"{measure} {value:.2f}", fontsize=8.5)
                column += 1
    axes[0, 0].set_title("source patch", fontsize=8.5)
    for number, item in enumerate(others):
        axes[0, 1 + number * len(measures)].set_title(f"best in {item.name}", fontsize=8.5, loc="left")
    if title:
        figure.suptitle(title, fontsize=10)
    write_figure(path, figure, dpi=200)


def _check(images: Sequence[MappedImage], corners: Sequence[tuple[int, int]]) -> None:
    if not images:
        raise ValueError("images must be at least one, got none")
    if not 1 <= len(corners) <= len(PATCH_COLORS):
        raise ValueError(f"corners must be from 1 to {len(PATCH_COLORS)}, got {len(corners)}")


def _top(image: np.ndarray) -> float:
    return float(np.percentile(image, 99.5)) or 1.0


def _show(axis: Axes, image: np.ndarray) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=_top(image))


def _outline(axis: Axes, row: int, col: int, size: int, color: str) -> None:
    axis.add_patch(Rectangle((col - 0.5, row - 0.5), size, size, fill=False, edgecolor=color, linewidth=1.6))


def _heat(axis: Axes, item: MappedImage, measure: str, index: int, patch_size: int, stride: int) -> None:
    """A map where the centres of its patches are, in the frame of the image."""
    values = item.maps[measure][index]
    first = patch_size / 2 - 0.5 - stride / 2
    last = [first + stride * size for size in values.shape]
    axis.set_facecolor("black")
    axis.imshow(values, cmap=_HEAT, vmin=0, vmax=1, extent=(first, last[1], last[0], first))
    rows, cols = item.image.shape
    axis.set(xlim=(-0.5, cols - 0.5), ylim=(rows - 0.5, -0.5))
    row, col, value = item.matches[measure][index]
    center = patch_size / 2 - 0.5
    axis.plot(col + center, row + center, "x", color="white", markersize=5, markeredgewidth=1.2)
    axis.text(
        0.98, 0.02, f"max {value:.2f}", color="white", fontsize=7, ha="right", va="bottom", transform=axis.transAxes
    )
    for spine in axis.spines.values():
        spine.set(color=PATCH_COLORS[index], linewidth=2.5)


def _show_patch(axis: Axes, image: np.ndarray, row: int, col: int, size: int, color: str) -> None:
    axis.imshow(image[row : row + size, col : col + size], cmap="gray", vmin=0, vmax=_top(image))
    for spine in axis.spines.values():
        spine.set(color=color, linewidth=2.5)
