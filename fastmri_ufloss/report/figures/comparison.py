"""Reconstructions of a slice side by side: with errors, with differences, or with outlines of segmentations."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from fastmri.evaluate import nmse
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fastmri_ufloss.report.figures import drawing

__all__ = ["save_comparison", "save_contours", "save_picture"]

TRUE, PREDICTED = "red", "yellow"
_GAIN = drawing.ERROR_GAIN
_MARGIN = 0.25  # of the zoom, around the truth on each side, in parts of its longer side
_LETTER = 0.085  # inches

Images = Mapping[str, np.ndarray]
Notes = Mapping[str, str]


def save_picture(path: str | Path, reference: np.ndarray, outputs: Images) -> None:
    """A PNG, JPG or PDF has a column for the reference and for each method, with image, error x5 and zoom.

    Images have the shape of the reference, and its gray scale; other shapes raise ValueError. NRMSE is the root of
    fastMRI's NMSE.
    """
    for name, image in outputs.items():
        if image.shape != reference.shape:
            raise ValueError(f"{name!r} must have the shape of reference, got {image.shape}, {reference.shape}")
    white, square = drawing.white_of(reference), drawing.most_textured(reference)
    columns = {"reference": reference, **outputs}
    aspect = reference.shape[0] / reference.shape[1]
    figure = Figure(figsize=(2.6 * len(columns), 2.6 * (2 * aspect + 1) + 0.5), layout="constrained")
    axes = figure.subplots(3, len(columns), squeeze=False, height_ratios=[aspect, aspect, 1])
    for (name, image), (whole, error, zoom) in zip(columns.items(), axes.T, strict=True):
        drawing.show_with_zoom(whole, zoom, image, white, square)
        whole.set_title(name)
        if name != "reference":
            drawing.show(error, _GAIN * np.abs(image - reference), white, heat=True)
            error.set_title(f"error x{_GAIN} (NRMSE {np.sqrt(nmse(reference, image)):.3f})", fontsize=9)
    for axis in axes.flat:
        axis.set_axis_off()
    drawing.write_figure(path, figure, dpi=110)


def save_comparison(
    path: str | Path, images: Images, *, compare_with: str | None = None, notes: Notes | None = None, title: str = ""
) -> None:
    """A PNG, JPG or PDF has a column for each image, with a zoom, and the difference from one of them, x5.

    The difference shows where two reconstructions disagree, and without a reference not which of them is wrong.

    Args:
        images: (rows, cols) by name, in one unit; of complex images the magnitude is shown.
        compare_with: name of the image that the others are compared with, or else the first; it gives the gray scale.
        notes: a short text for an image, by its name, such as "residual 0.036".

    Raises:
        ValueError: if images differ in shape, or a name is none of theirs.
    """
    notes = notes or {}
    magnitudes = drawing.check_magnitudes(images)
    drawing.check_names(magnitudes, notes=notes)
    first_name = next(iter(magnitudes)) if compare_with is None else compare_with
    if first_name not in magnitudes:
        raise ValueError(f"compare_with must be one of the images {sorted(magnitudes)}, got {compare_with!r}")
    first = magnitudes[first_name]
    white = drawing.white_of(first)
    square = drawing.most_textured(np.mean(list(magnitudes.values()), axis=0), organ=True)
    are_squares = [False, True, False] if len(magnitudes) > 1 else [False, True]
    figure, axes, width = drawing.image_columns(first.shape, len(magnitudes), are_squares=are_squares, margin=1)
    for (name, image), column in zip(magnitudes.items(), axes.T, strict=True):
        drawing.show_with_zoom(column[0], column[1], image, white, square)
        column[0].set_title(drawing.wrap(width, name, notes.get(name, "")), fontsize=11)
        if name != first_name:
            drawing.show(column[2], _GAIN * np.abs(image - first), white, heat=True)
            column[2].set_title(drawing.wrap(width, f"difference from {first_name} x{_GAIN}"), fontsize=9)
        elif len(magnitudes) > 1:
            caveat = drawing.wrap(width, "Where the images disagree. It does not tell which one is wrong.")
            column[2].text(0.5, 0.5, caveat, ha="center", va="center", fontsize=9, transform=column[2].transAxes)
    if title:
        figure.suptitle(title)
    drawing.write_figure(path, figure, dpi=140)


def save_contours(
    path: str | Path,
    images: Images,
    *,
    truth: np.ndarray,
    predictions: Images,
    notes: Notes | None = None,
    title: str = "",
) -> None:
    """A PNG, JPG or PDF has a column for each image, with the outlines of its segmentations, and a zoom.

    The outlines are of each class but the background: of the truth in red, of the prediction in yellow. The zoom is
    around the truth, or else around the predictions, or in the middle. (As figure 2 of Seitzer et al., MICCAI 2018.)

    Args:
        images: (rows, cols) by name, in one unit, the reference first; of complex images the magnitude is shown.
        truth: class numbers (rows, cols), 0 is the background.
        predictions: class numbers (rows, cols) by the name of their image; an image may have none.
        notes: a short text for an image, by its name, such as "PSNR 29.1 dB, Dice 0.83".

    Raises:
        ValueError: if shapes differ, classes are no integers, or a name is none of the images'.
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


def _zoom(truth: np.ndarray, predictions: Images) -> drawing.Square:
    """The square to enlarge, which is inside the image unless it is wider than that."""
    least = -(-min(truth.shape) // 4)
    shown = truth > 0
    if not shown.any():
        shown = np.any([shown, *(classes > 0 for classes in predictions.values())], axis=0)
    inside = np.argwhere(shown)
    low, high = (inside.min(axis=0), inside.max(axis=0)) if inside.size else (0, np.array(truth.shape) - 1)
    side = max(round((1 + 2 * _MARGIN) * int((high - low).max() + 1)), least) if inside.size else least
    start = (low + high + 1 - side) // 2
    room = np.array(truth.shape) - side
    start = np.where(room < 0, room // 2, np.clip(start, 0, np.maximum(room, 0)))
    return int(start[0]), int(start[1]), side


def _draw(axis: Axes, classes: np.ndarray, color: str, *, linewidth: float) -> None:
    rows, cols = (np.arange(-1, size + 1) for size in classes.shape)
    for number in np.unique(classes[classes > 0]):
        # with a frame of background, so that the outline is closed where a class reaches the border
        axis.contour(cols, rows, np.pad(classes == number, 1), levels=[0.5], colors=color, linewidths=linewidth)
