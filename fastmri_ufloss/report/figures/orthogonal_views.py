"""Volumes from three sides: central planes and maximum intensity projections."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure

from fastmri_ufloss.report.figures import drawing

__all__ = ["SliceReadable", "orthogonal_views", "save_orthogonal_views"]

_FIGURE_WIDTH = 15.0  # inches


class SliceReadable(Protocol):
    """A volume that gives slice i as ``volume[i]``: a numpy array, or an h5py dataset in its open file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: int, /) -> Any: ...


# the axes of the volume that a view shows, top to bottom and left to right: 0 slices, 1 rows, 2 cols
_VIEWS = {
    "rows x cols": (1, 2),
    "slices x cols": (0, 2),
    "slices x rows": (0, 1),
    "maximum over slices": (1, 2),
    "maximum over rows": (0, 2),
}
_PLANES, _PROJECTIONS = list(_VIEWS)[:3], list(_VIEWS)[3:]


def orthogonal_views(volume: SliceReadable) -> dict[str, np.ndarray]:
    """The central planes of a volume and its maximum intensity projections, read slice by slice.

    The center of n is n // 2, as in fastMRI's transforms. Each slice is read once, and only one is held.

    Args:
        volume: (slices, rows, cols); of complex values the magnitude is taken.

    Returns:
        "rows x cols" (rows, cols), "slices x cols" (slices, cols) and "slices x rows" (slices, rows), each
        through the center; "maximum over slices" (rows, cols) and "maximum over rows" (slices, cols).

    Raises:
        ValueError: if the volume has not three axes or is empty.
    """
    shape = tuple(volume.shape)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"volume must have shape (slices, rows, cols), all at least 1, got {shape}")
    middle = [n // 2 for n in shape]
    row_lines, col_lines, row_maxima = [], [], []
    center = projection = np.zeros(shape[1:])
    for i in range(shape[0]):
        image = np.abs(np.asarray(volume[i]))
        row_lines.append(image[middle[1]].copy())  # a copy, or else the whole slice would stay
        col_lines.append(image[:, middle[2]].copy())
        row_maxima.append(image.max(axis=0))
        projection = np.maximum(projection, image)
        if i == middle[0]:
            center = image.copy()
    planes = (center, np.stack(row_lines), np.stack(col_lines), projection, np.stack(row_maxima))
    return dict(zip(_VIEWS, planes, strict=True))


def save_orthogonal_views(
    path: str | Path, volumes: Mapping[str, SliceReadable], *, voxel_size: Sequence[float] = (1.0, 1.0, 1.0)
) -> None:
    """Write a PNG, JPG or PDF: a row for each volume; columns for its central planes and its projections.

    All volumes have one gray scale for the planes and one for the projections, up to the 99.5th percentile of
    those of the first volume. The first slice is at the top, and all views have one scale in mm.

    Args:
        path: of the picture, its suffix says what it is.
        volumes: (slices, rows, cols) by name, of one shape, read as `orthogonal_views` does.
        voxel_size: mm from slice to slice, from row to row and from column to column.

    Raises:
        ValueError: if there is no volume, a shape is not as above, voxel_size is not three positive numbers,
            or the suffix is not that of a PNG, JPG or PDF.
    """
    sizes = tuple(float(size) for size in voxel_size)
    if len(sizes) != 3 or not all(0 < size < float("inf") for size in sizes):
        raise ValueError(f"voxel_size must be three positive numbers (slice, row, col), got {tuple(voxel_size)}")
    if not volumes:
        raise ValueError("volumes must hold at least one volume, got none")
    shapes = {name: tuple(volume.shape) for name, volume in volumes.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"volumes must all have one shape (slices, rows, cols), got {shapes}")
    rows = {name: orthogonal_views(volume) for name, volume in volumes.items()}
    first = next(iter(rows.values()))
    # projections are brighter than planes
    whites = [
        drawing.white_of(np.concatenate([first[v].ravel() for v in names])) for names in (_PLANES, _PROJECTIONS)
    ]
    figure, axes = _figure(next(iter(shapes.values())), sizes, len(rows))
    for (name, views), line in zip(rows.items(), axes, strict=True):
        for axis, (view, image) in zip(line, views.items(), strict=True):
            vertical, horizontal = _VIEWS[view]
            aspect = sizes[vertical] / sizes[horizontal]
            drawing.show(axis, image, whites[view in _PROJECTIONS], aspect=aspect)
        line[0].set_ylabel(name, fontsize=12)
    drawing.write_figure(path, figure, dpi=130)


def _figure(shape: tuple[int, ...], sizes: tuple[float, ...], num_volumes: int) -> tuple[Figure, np.ndarray]:
    """A figure with axes (num_volumes, views), each as wide and as high as its view in mm."""
    extents = [n * size for n, size in zip(shape, sizes, strict=True)]
    widths = [extents[horizontal] for _, horizontal in _VIEWS.values()]
    height = max(extents[:2]) * _FIGURE_WIDTH / sum(widths)
    figure = Figure(figsize=(_FIGURE_WIDTH, num_volumes * (height + 0.1) + 0.4), layout="constrained")
    axes = figure.subplots(num_volumes, len(_VIEWS), squeeze=False, width_ratios=widths)
    for view, axis in zip(_VIEWS, axes[0], strict=True):
        axis.set_title(view, fontsize=12)
    for axis in axes.flat:  # as ``set_axis_off``, but the label stays
        axis.set_anchor("N")  # flat views are at the top, below their titles
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, axes
