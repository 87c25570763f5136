"""Reconstructions of a slice side by side, with a reference or where there is none."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from fastmri.evaluate import nmse
from matplotlib.figure import Figure

from fastmri_ufloss.report.figures import drawing

__all__ = ["save_comparison", "save_picture"]

_GAIN = drawing.ERROR_GAIN


def save_picture(path: str | Path, reference: np.ndarray, outputs: Mapping[str, np.ndarray]) -> None:
    """A PNG, JPG or PDF has a column for the reference and for each method, with image, error x5 and zoom.

    All are magnitudes (rows, cols) on the reference's gray scale; NRMSE is the root of fastMRI's NMSE.

    Raises:
        ValueError: if a shape differs, or as `drawing.write_figure`.
    """
    for name, image in outputs.items():
        if image.shape != reference.shape:
            raise ValueError(
                f"outputs[{name!r}] must have the shape of reference, got {image.shape}, {reference.shape}"
            )
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
    path: str | Path,
    images: Mapping[str, np.ndarray],
    *,
    compare_with: str | None = None,
    notes: Mapping[str, str] | None = None,
    title: str = "",
) -> None:
    """A PNG, JPG or PDF has a column for each image, with a zoom, and the difference from one of them, x5.

    The difference shows where two reconstructions disagree, and without a reference not which of them is wrong.

    Args:
        images: (rows, cols) by name, in one unit; of complex images the magnitude is shown.
        compare_with: name of the image that the others are compared with, or else the first; it gives the gray scale.
        notes: a short text for an image, by its name, such as "residual 0.036".

    Raises:
        ValueError: if an argument is not as above, the images differ in shape, or as `drawing.write_figure`.
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
