"""Figure 5A of the UFLoss paper: patches, and those of a bank that are nearest to and farthest from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from fastmri_ufloss.report.figures.picture import write_figure

__all__ = ["Found", "Query", "save_retrieval"]

_CELL = 1.15  # inches
_COLORS = "inferno"


class Found(NamedTuple):
    """A patch of the bank.

    Args:
        patch: magnitude (rows, cols), at the scale of its image.
        value: inner product with the query.
        label: where it is from.
    """

    patch: np.ndarray
    value: float
    label: str = ""


class Query(NamedTuple):
    """A patch and what was found for it.

    Args:
        patch: magnitude (rows, cols), at the scale of its image.
        label: where it is from.
        nearest: the nearest first.
        farthest: the farthest first.
    """

    patch: np.ndarray
    label: str
    nearest: Sequence[Found]
    farthest: Sequence[Found]


def save_retrieval(path: str | Path, queries: Sequence[Query], *, title: str = "") -> None:
    """Draw a row for each query: the patch, its nearest patches, and its farthest ones.

    The border of a patch has the colour of its inner product with the query, which is written below it. All patches
    have one grey scale, from 0 to the 99th percentile of all of them.

    Args:
        path: of the picture, see `write_figure`.
        queries: with as many nearest and farthest patches each.
        title: above the picture.

    Raises:
        ValueError: if there is no query, their numbers of patches differ, or the suffix is another one.
    """
    counts = {(len(query.nearest), len(query.farthest)) for query in queries}
    if len(counts) != 1:
        raise ValueError(f"queries must be at least one, with as many patches each, got {sorted(counts)}")
    ((near, far),) = counts
    cells = [query.patch for query in queries]
    cells += [found.patch for query in queries for found in (*query.nearest, *query.farthest)]
    top = float(np.percentile(np.concatenate([cell.ravel() for cell in cells]), 99)) or 1.0
    # narrow empty columns stand between the query, the nearest and the farthest
    widths = [1.0, 0.12, *[1.0] * near, 0.12, *[1.0] * far]
    figure = Figure(figsize=(_CELL * sum(widths) + 0.9, (_CELL + 0.25) * len(queries) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(queries), len(widths), squeeze=False, width_ratios=widths)
    values = [found.value for query in queries for found in (*query.nearest, *query.farthest)]
    colors = ScalarMappable(Normalize(min(-0.2, *values), 1.0), colormaps[_COLORS])
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
    for row, query in zip(axes, queries, strict=True):
        row[0].imshow(query.patch, cmap="gray", vmin=0, vmax=top)
        row[0].set_xlabel(query.label, fontsize=6.5)
        for axis, found in zip(row[2 : 2 + near], query.nearest, strict=True):
            _draw(axis, found, top, colors)
        for axis, found in zip(row[3 + near :], query.farthest, strict=True):
            _draw(axis, found, top, colors)
    axes[0, 0].set_title("query", fontsize=9)
    axes[0, 2].set_title("nearest", fontsize=9, loc="left")
    axes[0, 3 + near].set_title("farthest", fontsize=9, loc="left")
    bar = figure.colorbar(colors, ax=axes, fraction=0.015, pad=0.01)
    bar.set_label("inner product of the features", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if title:
        figure.suptitle(title, fontsize=11)
    write_figure(path, figure, dpi=200)


def _draw(axis: Any, found: Found, top: float, colors: ScalarMappable) -> None:
    axis.imshow(found.patch, cmap="gray", vmin=0, vmax=top)
    for spine in axis.spines.values():
        spine.set(visible=True, color=colors.to_rgba(np.asarray(found.value)), linewidth=3.5)
    axis.set_xlabel(f"{found.value:.2f}", fontsize=8)
