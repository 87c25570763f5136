"""Several reconstructions of one scan side by side, where there is no reference."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fastmri_ufloss.report.figures.picture import ERROR_GAIN, check_magnitudes, most_textured, write_figure

__all__ = ["save_comparison"]

_COLUMN_WIDTHS = (1.8, 3.2)  # inches, from narrow to wide images
_MAX_HEIGHT = 4.5


def save_comparison(
    path: str | Path,
    images: Mapping[str, np.ndarray],
    *,
    compare_with: str | None = None,
    notes: Mapping[str, str] | None = None,
    title: str = "",
) -> None:
    """Write a PNG, JPG or PDF: a column for each image; rows for it, a zoom, and the difference from one of them.

    All images have one grey scale, up to the 99.5th percentile of the one that they are compared with. The zoom is
    where the mean of all images has the largest gradients. The difference is that of the magnitudes, x5; without a
    reference it shows where two reconstructions disagree, and not which of them is wrong. A single image has no
    such row.

    Args:
        path: of the picture, its suffix says what it is.
        images: (rows, cols) by name, in one unit; of complex images the magnitude is shown.
        compare_with: name of the image that the others are compared with, the first one if not given.
        notes: a short text for an image, by its name, such as "residual 0.036".
        title: above the picture.

    Raises:
        ValueError: if there is no image, an image has not two axes or another shape than the first, a note or
            compare_with has no image, or the suffix is not that of a PNG, JPG or PDF.
    """
    notes = notes or {}
    magnitudes = check_magnitudes(images)
    for name in notes:
        if name not in magnitudes:
            raise ValueError(f"notes must have the names of images {sorted(magnitudes)}, got {name!r}")
    first_name = next(iter(magnitudes)) if compare_with is None else compare_with
    if first_name not in magnitudes:
        raise ValueError(f"compare_with must be one of the images {sorted(magnitudes)}, got {compare_with!r}")
    first = magnitudes[first_name]
    top = float(np.percentile(first, 99.5)) or 1.0
    mean = np.mean(list(magnitudes.values()), axis=0)
    # without its brightest parts, or else the zoom is of fat rather than of the organ
    row, col, side = most_textured(np.minimum(mean, np.percentile(mean, 95)))
    figure, axes = _figure(first.shape, len(magnitudes))
    for (name, image), column in zip(magnitudes.items(), axes.T, strict=True):
        column[0].imshow(image, cmap="gray", vmin=0, vmax=top)
        column[0].add_patch(Rectangle((col - 0.5, row - 0.5), side, side, fill=False, edgecolor="gold"))
        column[0].set_title(_wrap(figure, axes, name, notes.get(name, "")), fontsize=11)
        column[1].imshow(image[row : row + side, col : col + side], cmap="gray", vmin=0, vmax=top)
        if name != first_name:
            column[2].imshow(ERROR_GAIN * np.abs(image - first), cmap="inferno", vmin=0, vmax=top)
            column[2].set_title(_wrap(figure, axes, f"difference from {first_name} x{ERROR_GAIN}"), fontsize=9)
    if len(magnitudes) > 1:
        caveat = _wrap(figure, axes, "Where the images disagree. It does not tell which one is wrong.")
        cell = axes[2, list(magnitudes).index(first_name)]
        cell.text(0.5, 0.5, caveat, ha="center", va="center", fontsize=9, transform=cell.transAxes)
    if title:
        figure.suptitle(title)
    write_figure(path, figure, dpi=140)


def _wrap(figure: Figure, axes: np.ndarray, *paragraphs: str) -> str:
    """Text as wide as a column, of letters of at most 11 points."""
    letters = int(figure.get_figwidth() / axes.shape[1] / 0.1)
    return "\n".join(textwrap.fill(text, letters) for text in paragraphs if text)


def _figure(shape: tuple[int, ...], num_images: int) -> tuple[Figure, np.ndarray]:
    """A figure with axes (2 or 3, num_images), whose cells fit images of this shape."""
    aspect = shape[0] / shape[1]
    width = float(np.clip(_MAX_HEIGHT / aspect, *_COLUMN_WIDTHS))
    height = min(width * aspect, _MAX_HEIGHT)
    heights = [height, width, height] if num_images > 1 else [height, width]
    figure = Figure(figsize=(width * num_images, sum(heights) + 1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), num_images, squeeze=False, height_ratios=heights)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes
