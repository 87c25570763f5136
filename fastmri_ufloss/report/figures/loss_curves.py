"""How the terms of a loss fall over the epochs of a training, and what the images look like meanwhile."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fastmri_ufloss.report.figures.picture import most_textured, write_figure

__all__ = ["PART_OF_FALL", "LossCurves", "Snapshot", "compare_falls", "describe_fall", "save_loss_curves"]

PART_OF_FALL = 0.95  # a curve that has done so much of its fall is called flat
COLORS = ("tab:red", "tab:blue")  # as in the paper: pixels, features
_COLUMN_WIDTH = 1.25  # inches, of an image
_LEAST_WIDTH = 3.6  # of a run
_CURVES_HEIGHT = 2.3

Curve = Mapping[int, float]
"""A value of each epoch, which count from 1."""


class Snapshot(NamedTuple):
    """An image of a training.

    Args:
        image: magnitude (rows, cols).
        note: below it, such as "NRMSE 0.112".
    """

    image: np.ndarray
    note: str


class LossCurves(NamedTuple):
    """What is to be shown of a training.

    Args:
        name: of the run.
        training: curves of the terms over training steps, by the name of the term.
        validation: those of the validation, may be empty.
        target: magnitude (rows, cols) of the slice of the snapshots; None without them.
        snapshots: the reconstruction of that slice, by epoch.
        is_rough: whether the training's points are means of so few steps that they say little.
    """

    name: str
    training: Mapping[str, Curve]
    validation: Mapping[str, Curve]
    target: np.ndarray | None
    snapshots: Mapping[int, Snapshot]
    is_rough: bool = False


def describe_fall(curve: Curve) -> dict[str, Any]:
    """When a curve has fallen, in numbers.

    The fall is that from the first epoch to the lowest value. A curve that never falls below its first value has
    None for the epochs.

    Args:
        curve: at least one epoch.

    Returns:
        ``first``, ``last`` and ``lowest`` values; ``95% of its fall by epoch``, the first epoch with a value of
        first - 0.95 fall or less; ``change in the second half``, (last - middle) / middle, with middle the value
        halfway.

    Raises:
        ValueError: if the curve is empty or not finite.
    """
    if not curve or not np.isfinite(list(curve.values())).all():
        raise ValueError(f"curve must have a finite value of at least one epoch, got {dict(curve)}")
    epochs = sorted(curve)
    values = [curve[epoch] for epoch in epochs]
    middle = values[(len(values) - 1) // 2]
    return {
        "first": values[0],
        "last": values[-1],
        "lowest": min(values),
        "95% of its fall by epoch": _epoch_of(curve, PART_OF_FALL),
        "change in the second half": (values[-1] - middle) / middle if middle else None,
    }


def compare_falls(pixel: Curve, feature: Curve) -> dict[str, Any]:
    """Whether one curve is flat while the other still falls, as the pixel loss and UFLoss in figure 10 of the paper.

    Args:
        pixel, feature: curves of the same epochs.

    Returns:
        ``pixel loss flat from epoch`` and ``feature loss flat from epoch``, that by which 95% of the fall are done;
        ``fall of the feature loss still to come`` then, in parts of its fall; ``pixel loss flattens first``. None
        where a curve does not fall.
    """
    epochs = [_epoch_of(curve, PART_OF_FALL) for curve in (pixel, feature)]
    flat, other = epochs
    left = None
    if flat is not None and other is not None and flat in feature:
        first, lowest = feature[min(feature)], min(feature.values())
        left = (feature[flat] - lowest) / (first - lowest)
    return {
        "pixel loss flat from epoch": flat,
        "feature loss flat from epoch": other,
        "fall of the feature loss still to come": left,
        "pixel loss flattens first": None if flat is None or other is None else flat < other,
    }


def _epoch_of(curve: Curve, part: float) -> int | None:
    """The first epoch in which a curve has done a part of its fall."""
    first, lowest = curve[min(curve)], min(curve.values())
    if not lowest < first:
        return None
    return next(epoch for epoch in sorted(curve) if curve[epoch] <= first - part * (first - lowest))


def save_loss_curves(
    path: str | Path, runs: Sequence[LossCurves], *, labels: Mapping[str, str], title: str = ""
) -> None:
    """Write a figure: for each run its curves, and below them the images of some epochs with a zoom.

    The first term has the axis on the left and the second that on the right; each has one scale for all runs. Lines
    are of the training, dashed ones of the validation; a mark is where a curve has done 95% of its fall. A rough
    training has faint lines and no marks. The images of a run have one grey scale, up to the 99.5th percentile of
    their target.

    Args:
        path: of the figure, its suffix says what it is.
        runs: at least one.
        labels: of the axes by the name of the term, at most two terms; a run need not have both.
        title: above all.

    Raises:
        ValueError: if there is no run or term, there are more than two terms, a snapshot has another shape than its
            target, or the suffix is unknown.
    """
    if not runs or not 1 <= len(labels) <= 2:
        raise ValueError(f"runs and labels must hold a run and one or two terms, got {len(runs)} and {list(labels)}")
    for run in runs:
        for epoch, snapshot in run.snapshots.items():
            if run.target is None or snapshot.image.shape != run.target.shape:
                shape = None if run.target is None else run.target.shape
                raise ValueError(
                    f"the image of epoch {epoch} must have the shape of target, got {snapshot.image.shape}, {shape}"
                )
    aspect = max((run.target.shape[0] / run.target.shape[1] for run in runs if run.target is not None), default=0.0)
    columns = [1 + len(run.snapshots) for run in runs]
    widths = [max(_COLUMN_WIDTH * count, _LEAST_WIDTH) for count in columns]
    image_height = max(w / c for w, c in zip(widths, columns, strict=True)) * (aspect + 1) + 0.4 if aspect else 0.0
    figure = Figure(figsize=(sum(widths), _CURVES_HEIGHT + image_height + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [_CURVES_HEIGHT, image_height] if aspect else [_CURVES_HEIGHT]
    cells = figure.subfigures(len(heights), len(runs), squeeze=False, width_ratios=widths, height_ratios=heights)
    limits = {term: _limits(runs, term) for term in labels}
    lines = max((snapshot.note.count("\n") for run in runs for snapshot in run.snapshots.values()), default=0)
    for run, column in zip(runs, cells.T, strict=True):
        _draw_curves(column[0].subplots(), run, labels, limits)
        if run.target is not None and len(column) > 1:
            _draw_snapshots(column[1], run, run.target, lines)
    if title:
        figure.suptitle(title)
    write_figure(path, figure, dpi=200)


def _limits(runs: Sequence[LossCurves], term: str) -> tuple[float, float]:
    """Ends of the axis of a term, the same for all runs."""
    curves = [curves.get(term, {}) for run in runs for curves in (run.training, run.validation)]
    values = [value for curve in curves for value in curve.values()]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_curves(
    axis: Axes, run: LossCurves, labels: Mapping[str, str], limits: Mapping[str, tuple[float, float]]
) -> None:
    drawn = False
    for term, color, place in zip(labels, COLORS, (axis, axis.twinx()), strict=False):
        for curves, style, kind in ((run.training, "-", "training"), (run.validation, "--", "validation")):
            curve = curves.get(term)
            if not curve:
                continue
            is_rough = run.is_rough and kind == "training"
            _draw_curve(place, curve, style, color, is_rough=is_rough)
            if not drawn:
                axis.plot([], [], style, color="0.3", label=f"{kind}, few steps" if is_rough else kind)
        drawn = drawn or bool(run.training.get(term) or run.validation.get(term))
        place.set_ylim(limits[term])
        is_there = term in run.training or term in run.validation
        place.set_ylabel(labels[term] if is_there else f"{labels[term]}: not logged", color=color, fontsize=9)
        place.tick_params(axis="y", labelcolor=color, labelsize=8)
        if not is_there:
            place.set_yticks([])
    axis.plot([], [], "o", color="0.3", markersize=5, label="95% of the fall")
    axis.set_xlabel("epoch", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(axis="x", labelsize=8)
    axis.legend(fontsize=7, frameon=False, loc="upper right")
    axis.set_title(run.name, fontsize=10)


def _draw_curve(axis: Axes, curve: Curve, style: str, color: str, *, is_rough: bool) -> None:
    epochs = sorted(curve)
    values = [curve[epoch] for epoch in epochs]
    axis.plot(epochs, values, style, color=color, linewidth=0.8 if is_rough else 1.4, alpha=0.4 if is_rough else 1)
    flat = _epoch_of(curve, PART_OF_FALL)
    if flat is not None and not is_rough:
        fill: Literal["full", "none"] = "full" if style == "-" else "none"
        axis.plot(flat, curve[flat], "o", color=color, markersize=5, fillstyle=fill)


def _draw_snapshots(cell: SubFigure, run: LossCurves, target: np.ndarray, lines: int) -> None:
    """A column for each epoch and, last, for the target; rows for image and zoom; all notes have one height."""
    aspect = target.shape[0] / target.shape[1]
    axes = cell.subplots(2, 1 + len(run.snapshots), squeeze=False, height_ratios=[aspect, 1])
    top = float(np.percentile(target, 99.5)) or 1.0
    # without its brightest parts, or else the zoom is of fat rather than of the organ
    row, col, side = most_textured(np.minimum(target, np.percentile(target, 95)))
    shown = {f"epoch {epoch}": snapshot for epoch, snapshot in sorted(run.snapshots.items())}
    for (name, (image, note)), (whole, zoom) in zip(
        [*shown.items(), ("reference", Snapshot(target, ""))], axes.T, strict=True
    ):
        whole.imshow(image, cmap="gray", vmin=0, vmax=top)
        whole.add_patch(Rectangle((col - 0.5, row - 0.5), side, side, fill=False, edgecolor="gold", linewidth=0.8))
        whole.set_title(name, fontsize=8)
        zoom.imshow(image[row : row + side, col : col + side], cmap="gray", vmin=0, vmax=top)
        zoom.set_xlabel(note + "\n" * (lines - note.count("\n")), fontsize=7)
        for axis in (whole, zoom):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
