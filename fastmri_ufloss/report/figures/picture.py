"""One picture of a reconstruction: reference, methods, error x5 and zoom."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fastmri_ufloss.files import atomic_path

__all__ = ["ERROR_GAIN", "check_magnitudes", "most_textured", "save_picture", "write_figure"]

ERROR_GAIN = 5
_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".pdf": "pdf"}


def save_picture(path: str | Path, reference: np.ndarray, outputs: Mapping[str, np.ndarray]) -> None:
    """Write a PNG, JPG or PDF: a column for the reference and for each method; rows for image, error x5 and zoom.

    Args:
        path: of the picture, its suffix says what it is.
        reference: magnitude (rows, cols), it gives the grey scale.
        outputs: magnitude images of the same shape by name.

    Raises:
        ValueError: if a shape differs, or the suffix is not that of a PNG, JPG or PDF.
    """
    for name, image in outputs.items():
        if image.shape != reference.shape:
            raise ValueError(
                f"outputs[{name!r}] must have the shape of reference, got {image.shape}, {reference.shape}"
            )
    top = float(np.percentile(reference, 99.5)) or 1.0
    columns = {"reference": reference, **outputs}
    aspect = reference.shape[0] / reference.shape[1]
    figure = Figure(figsize=(2.6 * len(columns), 2.6 * (2 * aspect + 1) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(columns), squeeze=False, height_ratios=[aspect, aspect, 1])
    row, col, side = most_textured(reference)
    for (name, image), column in zip(columns.items(), axes.T, strict=True):
        column[0].imshow(image, cmap="gray", vmin=0, vmax=top)
        frame = Rectangle((col - 0.5, row - 0.5), side, side, fill=False, edgecolor="gold", linewidth=1)
        column[0].add_patch(frame)
        column[0].set_title(name)
        if name != "reference":
            error = ERROR_GAIN * np.abs(image - reference)
            column[1].imshow(error, cmap="inferno", vmin=0, vmax=top)
            nrmse = np.linalg.norm(image - reference) / np.linalg.norm(reference)
            column[1].set_title(f"error x{ERROR_GAIN} (NRMSE {nrmse:.3f})", fontsize=9)
        column[2].imshow(image[row : row + side, col : col + side], cmap="gray", vmin=0, vmax=top)
        for axis in column:
            axis.set_axis_off()
    write_figure(path, figure, dpi=110)


def write_figure(path: str | Path, figure: Figure, *, dpi: int) -> None:
    """Write a figure as a PNG, JPG or PDF, in one step.

    Args:
        path: of the picture; it ends in .png, .jpg, .jpeg or .pdf.
        figure: with a canvas of Agg.
        dpi: pixels per inch; of a PDF, those of its images.

    Raises:
        ValueError: if the suffix is another one.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise ValueError(f"path must end in one of {', '.join(_FORMATS)}, got {str(path)!r}")
    # without the time, so that the same figure is the same file
    metadata = {"CreationDate": None} if suffix == ".pdf" else None
    # text in a PDF stays text: TrueType rather than outlines of Type 3, which publishers refuse
    with atomic_path(path) as temporary, matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(temporary, format=_FORMATS[suffix], dpi=dpi, metadata=metadata)


def check_magnitudes(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The magnitudes of images, which must be at least one, all (rows, cols) of one shape.

    Raises:
        ValueError: if they are not.
    """
    if not images:
        raise ValueError("images must hold at least one image, got none")
    shape = next(iter(images.values())).shape
    for name, image in images.items():
        if image.ndim != 2 or image.shape != shape:
            raise ValueError(f"images must all have one shape (rows, cols), got {image.shape} for {name!r}")
    return {name: np.abs(image) for name, image in images.items()}


def most_textured(image: np.ndarray) -> tuple[int, int, int]:
    """Row, column and side of the square, a third of the image wide, with the largest gradients."""
    side = max(min(image.shape) // 3, 1)
    gradients = np.hypot(*np.gradient(image)) if min(image.shape) > 1 else np.zeros_like(image)
    sums = np.pad(gradients, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    energy = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    row, col = np.unravel_index(int(np.argmax(energy)), energy.shape)
    return int(row), int(col), side
