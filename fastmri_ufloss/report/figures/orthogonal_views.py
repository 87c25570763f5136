"""Volumes from three sides: central planes and maximum intensity projections."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import h5py
import numpy as np
from matplotlib.figure import Figure

from fastmri_ufloss.report.figures import drawing

__all__ = ["orthogonal_views", "save_orthogonal_views"]

Volume: TypeAlias = np.ndarray | h5py.Dataset

_FIGURE_WIDTH = 15.0  # inches
# the axes of the volume that a view shows, top to bottom and left to right: 0 slices, 1 rows, 2 cols
_PLANES = {"rows x cols": (1, 2), "slices x cols": (0, 2), "slices x rows": (0, 1)}
_PROJECTIONS = {"maximum over slices": (1, 2), "maximum over rows": (0, 2)}
_VIEWS = {**_PLANES, **_PROJECTIONS}


def orthogonal_views(volume: Volume) -> dict[str, np.ndarray]:
    """The central planes n // 2 of a volume (slices, rows, cols) and its maximum intensity projections, by name.

    Values are magnitudes, and slices are read one by one. A volume that is empty or not 3D raises ValueError.
    """
    shape = tuple(volume.shape)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"volume must have shape (slices, rows, cols), all at least 1, got {shape}")
    center = projection = np.zeros(shape[1:])
    lines = []
    for i in range(shape[0]):
        image = np.abs(np.asarray(volume[i]))
        # copies, or else the whole slice would stay
        lines.append((image[shape[1] // 2].copy(), image[:, shape[2] // 2].copy(), image.max(axis=0)))
        projection = np.maximum(projection, image)
        if i == shape[0] // 2:
            center = image
    row_lines, col_lines, row_maxima = map(np.stack, zip(*lines, strict=True))
    return dict(zip(_VIEWS, (center, row_lines, col_lines, projection, row_maxima), strict=True))


def save_orthogonal_views(
    path: str | Path, volumes: Mapping[str, Volume], *, voxel_size: Sequence[float] = (1.0, 1.0, 1.0)
) -> None:
    """A PNG, JPG or PDF has a row for each volume, with its `orthogonal_views` in one scale of mm.

    Volumes have one shape, and the gray scales of the first. ``voxel_size`` is in mm from slice to slice, row to row
    and column to column. Other volumes or sizes raise ValueError.
    """
    sizes = tuple(map(float, voxel_size))
    if len(sizes) != 3 or not all(0 < size < float("inf") for size in sizes):
        raise ValueError(f"voxel_size must be three positive numbers (slice, row, col), got {sizes}")
    if not volumes:
        raise ValueError("volumes must hold at least one volume, got none")
    shapes = {name: tuple(volume.shape) for name, volume in volumes.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"volumes must all have one shape (slices, rows, cols), got {shapes}")
    rows = {name: orthogonal_views(volume) for name, volume in volumes.items()}
    first = next(iter(rows.values()))
    whites: dict[str, float] = {}
    for kind in (_PLANES, _PROJECTIONS):  # projections are brighter than planes
        whites |= dict.fromkeys(kind, drawing.white_of(np.concatenate([first[view].ravel() for view in kind])))
    extents = [n * size for n, size in zip(next(iter(shapes.values())), sizes, strict=True)]
    widths = [extents[horizontal] for _, horizontal in _VIEWS.values()]
    height = max(extents[:2]) * _FIGURE_WIDTH / sum(widths)
    figure = Figure(figsize=(_FIGURE_WIDTH, len(rows) * (height + 0.1) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), len(_VIEWS), squeeze=False, width_ratios=widths)
    for (name, images), line in zip(rows.items(), axes, strict=True):
        for axis, (view, (vertical, horizontal)) in zip(line, _VIEWS.items(), strict=True):
            drawing.show(axis, images[view], whites[view], aspect=sizes[vertical] / sizes[horizontal])
            drawing.hide_frame(axis)
            axis.set_anchor("N")  # flat views are at the top, below their titles
        line[0].set_ylabel(name, fontsize=12)
    for axis, view in zip(axes[0], _VIEWS, strict=True):
        axis.set_title(view, fontsize=12)
    drawing.write_figure(path, figure, dpi=130)
