"""Reconstructions of a slice beside its reference: images, their middle enlarged, and errors on one scale."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fastmri_ufloss.report.figures.picture import write_figure

__all__ = ["save_error_maps"]

_COLUMN_WIDTH = 2.8  # inches


def save_error_maps(
    path: str | Path,
    reference: np.ndarray,
    images: Mapping[str, np.ndarray],
    *,
    notes: Mapping[str, str] | None = None,
    title: str = "",
) -> None:
    """Write a PNG, JPG or PDF: a column for the reference and for each image; rows for image, middle third and error.

    All images have one grey scale, up to the 99.5th percentile of the reference, which is white. The errors are
    |image - reference| in parts of that white, and have one scale too, up to the 99th percentile of all of them.

    Args:
        path: of the picture, its suffix says what it is.
        reference: magnitude (rows, cols).
        images: magnitudes of the same shape by name.
        notes: a short text for an image, by its name, such as "SSIM 0.912".
        title: above the picture.

    Raises:
        ValueError: if a shape differs, a note has no image, or the suffix is not that of a PNG, JPG or PDF.
    """
    notes = notes or {}
    for name, image in images.items():
        if image.shape != reference.shape:
            raise ValueError(
                f"images[{name!r}] must have the shape of reference, got {image.shape}, {reference.shape}"
            )
    if unknown := set(notes) - set(images):
        raise ValueError(f"notes must have the names of images {sorted(images)}, got {sorted(unknown)}")
    white = float(np.percentile(reference, 99.5)) or 1.0
    rows, cols = reference.shape
    side = max(min(rows, cols) // 3, 1)
    top, left = (rows - side) // 2, (cols - side) // 2
    columns = {"reference": reference, **images}
    errors = {name: np.abs(image - reference) / white for name, image in images.items()}
    largest = float(np.percentile(list(errors.values()), 99)) if errors else 0.0
    figure, axes = _figure(rows / cols, len(columns))
    for (name, image), (whole, middle, error) in zip(columns.items(), axes.T, strict=True):
        whole.imshow(image, cmap="gray", vmin=0, vmax=white)
        whole.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor="gold"))
        whole.set_title("\n".join(filter(None, (name, notes.get(name, "")))), fontsize=11)
        middle.imshow(image[top : top + side, left : left + side], cmap="gray", vmin=0, vmax=white)
        if name in errors:
            shown = error.imshow(errors[name], cmap="inferno", vmin=0, vmax=largest or 1.0)
    if errors:
        place = axes[2, 0].inset_axes((0.05, 0.5, 0.8, 0.07))
        figure.colorbar(shown, cax=place, orientation="horizontal", label="error / white")
    if title:
        figure.suptitle(title)
    write_figure(path, figure, dpi=110)


def _figure(aspect: float, num_columns: int) -> tuple[Figure, np.ndarray]:
    """A figure with axes (3, columns), whose cells fit images of rows / cols = aspect."""
    aspect = float(np.clip(aspect, 0.4, 2.5))
    size = (_COLUMN_WIDTH * num_columns, _COLUMN_WIDTH * (2 * aspect + 1) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, num_columns, squeeze=False, height_ratios=[aspect, 1, aspect])
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes
