"""Box plots of scores by method and contrast, as figure 9 of the paper."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fastmri_ufloss.report.figures.appearance import method_color
from fastmri_ufloss.report.figures.picture import write_figure
from fastmri_ufloss.report.subject_tables import scores_by_subject

__all__ = ["add_legend", "metric_label", "save_box_plots"]

_HEIGHT = 2.2  # inches, of a plot
_BOX = 0.13  # inches, of a box with its gap
_MARGIN = 0.9  # inches, of a plot's ticks and of the gaps between contrasts
_PAGE = 7.2  # inches, the width of a printed page
_FONT = 8
_LETTERS = 36  # of a name in a line
_LETTERS_AN_INCH = 14
_SMALL: dict[str, Any] = {"fontsize": _FONT, "parse_math": False}  # a $ in a method's name is a $


def save_box_plots(path: str | Path, document: Mapping[str, Any], *, reference: str | None = None) -> None:
    """Write a PNG, JPG or PDF: a plot for each metric, groups of boxes for the contrasts, a box for each method.

    A dot is a subject, the mean over its volumes of the contrast. The box is from the first to the third quartile
    with the median; whiskers go to the last values within 1.5 interquartile ranges. Where there is one contrast only,
    all volumes are one group.

    Args:
        path: of the picture, its suffix says what it is.
        document: of the report.
        reference: metrics against this one and those without a reference, the first of the document if not given.

    Raises:
        ValueError: if reference is none of the document's, no metric has a value, or as `write_figure`.
    """
    reference = document["references"][0] if reference is None else reference
    if reference not in document["references"]:
        raise ValueError(f"reference must be one of {', '.join(document['references'])}, got {reference!r}")
    metrics = [metric for metric in document["metrics"] if metric["reference"] in (None, reference)]
    groups = document["contrasts"][1:] or document["contrasts"][:1]
    values = {group: _values(document, group, [metric["name"] for metric in metrics]) for group in groups}
    metrics = [metric for metric in metrics if any(values[group].get(metric["name"]) for group in groups)]
    if not metrics:
        raise ValueError(f"document must have a volume with a value of a metric against {reference}, got none")
    methods = document["methods"]
    width = len(groups) * len(methods) * _BOX + _MARGIN
    figure, axes = _figure(len(metrics), width)
    letters = max(12, int(width * _LETTERS_AN_INCH))
    for metric, axis in zip(metrics, axes, strict=True):
        of_metric = {group: values[group].get(metric["name"], {}) for group in groups}
        _draw(axis, of_metric, methods)
        axis.set_title(textwrap.fill(metric_label(metric), letters), **_SMALL)
    handles = [Patch(color=method_color(index)) for index in range(len(methods))]
    columns = int(np.clip(figure.get_figwidth() * 14 // (min(max(map(len, methods)), _LETTERS) + 5), 1, len(methods)))
    add_legend(figure, handles, methods, loc="outside lower center", ncols=columns)
    write_figure(path, figure, dpi=200)


def add_legend(figure: Figure, handles: Sequence[Artist], names: Sequence[str], *, loc: Any, ncols: int = 1) -> None:
    """A legend of methods, whatever letters their names have; ``loc`` as matplotlib's."""
    labels = [textwrap.fill(name, _LETTERS) for name in names]
    legend = figure.legend(handles, labels, loc=loc, ncols=ncols, fontsize=_FONT, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def metric_label(metric: Mapping[str, Any]) -> str:
    """Label, unit, and an arrow to where it is better."""
    arrow = {True: " ↑", False: " ↓", None: ""}[metric["larger_is_better"]]
    return metric["label"] + (f" ({metric['unit']})" if metric["unit"] else "") + arrow


def _values(
    document: Mapping[str, Any], contrast: str, names: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """By metric, method and subject."""
    all_of_them = contrast == document["contrasts"][0]
    return scores_by_subject([r for r in document["volumes"] if all_of_them or r["contrast"] == contrast], names)


def _draw(axis: Axes, values: Mapping[str, Mapping[str, Mapping[str, float]]], methods: Sequence[str]) -> None:
    step = len(methods) + 1
    for number, of_methods in enumerate(values.values()):
        for index, method in enumerate(methods):
            scores = [value for value in of_methods.get(method, {}).values() if np.isfinite(value)]
            if scores:
                _box(axis, scores, number * step + index, method_color(index))
    if len(values) > 1:
        axis.set_xticks([number * step + (step - 2) / 2 for number in range(len(values))])
        axis.set_xticklabels(list(values), **_SMALL)
    else:
        axis.set_xticks([])
    axis.set_xlim(-1, len(values) * step - 1)
    axis.tick_params(axis="x", length=0)
    axis.tick_params(axis="y", labelsize=_FONT - 1)
    axis.grid(axis="y", linewidth=0.4, alpha=0.5)
    axis.spines[["top", "right"]].set_visible(False)


def _box(axis: Axes, scores: Sequence[float], place: float, color: str) -> None:
    axis.boxplot(
        [scores],
        positions=[place],
        widths=0.65,
        showfliers=False,  # every subject has its dot
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": (color, 0.3), "edgecolor": color},
        medianprops={"color": "black", "linewidth": 1.2},
        whiskerprops={"color": color},
        capprops={"color": color},
    )
    # beside each other by multiples of the golden ratio: the same in each run
    jitter = 0.45 * (np.arange(len(scores)) * 0.618034 % 1 - 0.5)
    axis.plot(place + jitter, scores, ".", color=color, markersize=2.5, zorder=3)


def _figure(count: int, width: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many plots, as many side by side as fit on a page."""
    columns = int(np.clip(_PAGE // width, 1, count))
    rows = -(-count // columns)
    figure = Figure(figsize=(max(columns * width, 3.5), rows * _HEIGHT + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]
