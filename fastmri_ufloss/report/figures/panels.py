"""Panels of a slice for a paper: images, a zoom, errors and numbers, as figures 6 to 8 of the paper."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fastmri_ufloss.report.figures.appearance import white_of
from fastmri_ufloss.report.figures.picture import ERROR_GAIN, check_magnitudes, most_textured, write_figure

__all__ = ["panel_scores", "save_panels"]

_WIDTH = 1.35  # inches, of a column: five fit on a printed page
_GAP = 0.04
_MAX_HEIGHT = 2.6
_FONT = 7
_LETTERS = 22  # in a column
_TEXT: dict[str, Any] = {"fontsize": _FONT, "parse_math": False}


def save_panels(
    path: str | Path,
    reference: tuple[str, np.ndarray],
    images: Mapping[str, np.ndarray],
    *,
    scores: Mapping[str, Mapping[str, str]] | None = None,
    zoom: tuple[int, int, int] | None = None,
    error_gain: float = ERROR_GAIN,
    title: str = "",
) -> None:
    """Write a PNG, JPG or PDF: a column for the reference and for each image; rows for image, zoom, error and scores.

    All images have one grey scale, up to the 99.5th percentile of the reference. The errors are
    error_gain |image - reference| on the same scale.

    Args:
        path: of the picture, its suffix says what it is.
        reference: its name, and its magnitude (rows, cols).
        images: magnitudes of the same shape by method.
        scores: numbers as text by method and metric, to stand below the images.
        zoom: row and column of the upper left corner of a square, and its side; if not given, the square with the
            largest gradients of the reference without its brightest parts.
        error_gain: by which errors are multiplied.
        title: above the picture.

    Raises:
        ValueError: if a shape differs, a score has no image, the zoom is not in the image, error_gain is not above
            0, or as `write_figure`.
    """
    name, first = reference
    columns = check_magnitudes({name: first, **images})
    scores = scores or {}
    if unknown := set(scores) - set(images):
        raise ValueError(f"scores must have the names of images {sorted(images)}, got {sorted(unknown)}")
    white = white_of(first)
    row, col, side = _square(first, zoom)
    if not 0 < error_gain < np.inf:
        raise ValueError(f"error_gain must be a number above 0, got {error_gain}")
    captions = {label: textwrap.fill(label, _LETTERS) for label in columns}
    texts = {
        label: "\n".join(f"{metric} {value}" for metric, value in scores.get(label, {}).items()) for label in columns
    }
    heading = textwrap.fill(title, _LETTERS * len(columns)) if title else ""
    figure, axes = _figure(first.shape, len(columns), [_lines(captions), _lines(texts)], heading)
    for (label, image), column in zip(columns.items(), axes.T, strict=True):
        column[0].imshow(image, cmap="gray", vmin=0, vmax=white)
        frame = Rectangle((col - 0.5, row - 0.5), side, side, fill=False, edgecolor="gold", linewidth=0.7)
        column[0].add_patch(frame)
        column[0].set_title(captions[label], pad=2, **_TEXT)
        column[1].imshow(image[row : row + side, col : col + side], cmap="gray", vmin=0, vmax=white)
        if label in images:
            column[2].imshow(error_gain * np.abs(image - first), cmap="inferno", vmin=0, vmax=white)
            column[2].text(0.5, -0.02, texts[label], ha="center", va="top", transform=column[2].transAxes, **_TEXT)
    note: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes[2, 0].transAxes}
    axes[2, 0].text(0.5, 0.5, f"error x{error_gain:g}", **note, **_TEXT)
    write_figure(path, figure, dpi=300)


def _square(image: np.ndarray, zoom: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Row, column and side of the square to enlarge."""
    if zoom is None:
        return most_textured(np.minimum(image, np.percentile(image, 95)))
    row, col, side = zoom
    if not (side > 0 and 0 <= row <= image.shape[0] - side and 0 <= col <= image.shape[1] - side):
        raise ValueError(f"zoom must be row, column and side of a square in an image of {image.shape}, got {zoom}")
    return row, col, side


def panel_scores(
    document: Mapping[str, Any], volume: str, slice_num: int, *, metrics: Sequence[str]
) -> dict[str, dict[str, str]]:
    """The scores of a slice as text, by method and metric, for `save_panels`.

    Args:
        document: of the report.
        volume, slice_num: the slice.
        metrics: names of the scores, in their order; those without a value are left out. A metric goes by its
            label, or by its name where two have one label.
    """
    known = {metric["name"]: metric for metric in document["metrics"] if metric["name"] in metrics}
    labels = Counter(metric["label"] for metric in known.values())
    names = {name: m["label"] if labels[m["label"]] == 1 else name for name, m in known.items()}
    found = {}
    for row in document["slices"]:
        if (row["volume"], row["slice"]) == (volume, slice_num):
            values = [(known[name], row[name]) for name in metrics if row.get(name) is not None]
            texts = {names[m["name"]]: f"{value:#.3g}".rstrip(".") + f" {m['unit']}".rstrip() for m, value in values}
            found[row["method"]] = texts
    return found


def _lines(texts: Mapping[str, str]) -> int:
    return max(text.count("\n") + 1 for text in texts.values())


def _figure(
    shape: tuple[int, ...], num_columns: int, lines: Sequence[int], heading: str
) -> tuple[Figure, np.ndarray]:
    """A figure with axes (3, columns) for images, squares and images, below and above so many lines of text.

    Places are computed here: a layout engine takes many seconds for so many axes.
    """
    height = min(_WIDTH * shape[0] / shape[1], _MAX_HEIGHT)
    line = _FONT * 1.35 / 72
    above, below = (line * count + 0.04 for count in lines)
    top = line * (heading.count("\n") + 1) + 0.08 if heading else 0.02
    size = np.array([num_columns * (_WIDTH + _GAP) + _GAP, top + above + 2 * height + _WIDTH + 4 * _GAP + below])
    figure = Figure(figsize=tuple(size))
    FigureCanvasAgg(figure)
    axes = np.empty((3, num_columns), dtype=object)
    bottom = below + _GAP
    for row, inches in ((2, height), (1, _WIDTH), (0, height)):
        for column in range(num_columns):
            left = _GAP + column * (_WIDTH + _GAP)
            axes[row, column] = figure.add_axes(
                (left / size[0], bottom / size[1], _WIDTH / size[0], inches / size[1])
            )
            axes[row, column].set_axis_off()
        bottom += inches + _GAP
    if heading:
        figure.text(0.5, 1 - 0.04 / size[1], heading, ha="center", va="top", **_TEXT)
    return figure, axes
