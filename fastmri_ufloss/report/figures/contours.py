"""Outlines of true and predicted segmentations on several reconstructions of a slice."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from fastmri_ufloss.report.figures import drawing

__all__ = ["save_contours"]

TRUE, PREDICTED = "red", "yellow"
MARGIN = 0.25  # of the zoom, around the truth on each side, in parts of its longer side
_LETTER = 0.085  # inches


def save_contours(
    path: str | Path,
    images: Mapping[str, np.ndarray],
    *,
    truth: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    notes: Mapping[str, str] | None = None,
    title: str = "",
) -> None:
    """A PNG, JPG or PDF has a column for each image, with the outlines of its segmentations, and a zoom.

    The outlines are of each class but the background: of the truth in red, of the prediction in yellow. The first
    image gives the gray scales. The zoom is around the truth, or else around the predictions, or in the middle.

    Args:
        images: (rows, cols) by name, in one unit, the reference first; of complex images the magnitude is shown.
        truth: class numbers (rows, cols), 0 is the background.
        predictions: class numbers (rows, cols) by the name of their image; an image may have none.
        notes: a short text for an image, by its name, such as "PSNR 29.1 dB, Dice 0.83".

    Raises:
        ValueError: if an argument is not as above, shapes differ, or as `drawing.write_figure`.

    As figure 2 of Seitzer et al., MICCAI 2018.
    """
    notes = notes or {}
    magnitudes = drawing.check_magnitudes(images)
    drawing.check_names(magnitudes, notes=notes, predictions=predictions)
    first = next(iter(magnitudes.values()))
    for name, classes in (("truth", truth), *((f"predictions[{name!r}]", p) for name, p in predictions.items())):
        if classes.shape != first.shape:
            raise ValueError(f"{name} must have the shape of images, got {classes.shape} and {first.shape}")
        if classes.dtype.kind not in "iu":
            raise ValueError(f"{name} must hold class numbers of an integer dtype, got {classes.dtype}")
    white = drawing.white_of(first)
    row, col, side = square = _zoom(truth, predictions)
    # a dark organ beside bright fat is seen in the zoom
    white_of_zoom = float(np.percentile(first[max(row, 0) : row + side, max(col, 0) : col + side], 99.5)) or white
    figure, axes, width = drawing.image_columns(first.shape, len(magnitudes), are_squares=[False, True], margin=1.1)
    for (name, image), (whole, zoom) in zip(magnitudes.items(), axes.T, strict=True):
        for axis, linewidth, brightest in ((whole, 0.8, white), (zoom, 1.2, white_of_zoom)):
            drawing.show(axis, image, brightest)
            # the truth is the wider of the two, so that where they agree it has a yellow core
            _draw(axis, truth, TRUE, linewidth=2 * linewidth)
            if name in predictions:
                _draw(axis, predictions[name], PREDICTED, linewidth=linewidth)
        rows, cols = first.shape
        whole.set(xlim=(-0.5, cols - 0.5), ylim=(rows - 0.5, -0.5))
        drawing.outline(whole, square, color="white", linewidth=0.8)
        whole.set_title(drawing.wrap(width, name, notes.get(name, ""), letter=_LETTER), fontsize=10)
        zoom.set(xlim=(col - 0.5, col + side - 0.5), ylim=(row + side - 0.5, row - 0.5))
    colors = {"true": TRUE, "predicted": PREDICTED} if predictions else {"true": TRUE}
    lines = [Line2D([], [], color=color, label=label) for label, color in colors.items()]
    # black behind the legend, as of the images: yellow on white is hard to see
    figure.legend(handles=lines, loc="outside lower center", ncols=2, facecolor="black", labelcolor="white")
    if title:
        figure.suptitle(drawing.wrap(width * len(magnitudes), title, letter=_LETTER), fontsize=11)
    drawing.write_figure(path, figure, dpi=140)


def _zoom(truth: np.ndarray, predictions: Mapping[str, np.ndarray]) -> drawing.Square:
    """The square to enlarge, which is inside the image unless it is wider than that."""
    least = -(-min(truth.shape) // 4)
    shown = truth > 0
    if not shown.any():
        shown = np.any([shown, *(classes > 0 for classes in predictions.values())], axis=0)
    inside = np.argwhere(shown)
    low, high = (inside.min(axis=0), inside.max(axis=0)) if inside.size else (0, np.array(truth.shape) - 1)
    side = max(round((1 + 2 * MARGIN) * int((high - low).max() + 1)), least) if inside.size else least
    start = (low + high + 1 - side) // 2
    room = np.array(truth.shape) - side
    start = np.where(room < 0, room // 2, np.clip(start, 0, np.maximum(room, 0)))
    return int(start[0]), int(start[1]), side


def _draw(axis: Any, classes: np.ndarray, color: str, *, linewidth: float) -> None:
    rows, cols = (np.arange(-1, size + 1) for size in classes.shape)
    for number in np.unique(classes[classes > 0]):
        # with a frame of background, so that the outline is closed where a class reaches the border
        axis.contour(cols, rows, np.pad(classes == number, 1), levels=[0.5], colors=color, linewidths=linewidth)
